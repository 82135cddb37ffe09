//! What the workers know: words in shared memory outside of the object, which outlive a kill.
//!
//! A desk is the place of one thread. It holds the number of the operation that has begun, and of the last one that has
//! ended with what the desk's share of the object holds since. What is in flight is in one of two books: before, or after.

use crate::support::process::{Shared, now_ns};
use std::sync::atomic::{AtomicU64, Ordering};

/// Desks of each process: some have threads.
pub(crate) const PROCESSES: [&[usize]; 4] = [&[0], &[1], &[2, 3], &[4, 5]];
pub(crate) const DESKS: usize = 6;

/// Keys of each desk that hold stacks: some of the table of bytes, then some of the primitive table.
pub(crate) const KEYS: usize = 12;
pub(crate) const WORD_KEYS: usize = 4;
pub(crate) const DEPTH: usize = 4;
/// Keys of each desk that come and go in order, at most.
pub(crate) const QUEUE: u64 = 300;
pub(crate) const COUNTERS: usize = 3;
pub(crate) const ACCOUNTS: usize = 6;
pub(crate) const ELEMENTS: usize = 2;
pub(crate) const TYPED_KEYS: usize = 4;
/// Parts of the desk's own array, which grows and shrinks by them.
pub(crate) const BLOCKS: usize = 8;
/// Parts of the desk's share of the long array.
pub(crate) const PIECES: usize = 4;
pub(crate) const TEXTS: usize = 4;

// The words of a book. A tag stands for a value, 0 for none.
const STACKS: usize = 0;
/// The queue's keys are numbered from the first word on, up to the second.
pub(crate) const QUEUE_FROM: usize = STACKS + (KEYS + WORD_KEYS) * (DEPTH + 1);
pub(crate) const QUEUE_TO: usize = QUEUE_FROM + 1;
/// Number of the last group that says so.
pub(crate) const MARKER: usize = QUEUE_TO + 1;
/// What this desk has added to counters, moved to accounts, added to elements.
pub(crate) const COUNTED: usize = MARKER + 1;
pub(crate) const MOVED: usize = COUNTED + COUNTERS;
pub(crate) const ADDED: usize = MOVED + ACCOUNTS;
/// An element of its own.
pub(crate) const ELEMENT: usize = ADDED + ELEMENTS;
pub(crate) const TYPED: usize = ELEMENT + 1;
/// Length of the desk's own array, in blocks; what they hold.
pub(crate) const LENGTH: usize = TYPED + TYPED_KEYS;
pub(crate) const BLOCK: usize = LENGTH + 1;
pub(crate) const PIECE: usize = BLOCK + BLOCKS;
pub(crate) const TEXT: usize = PIECE + PIECES;
/// The desk's own named table: 0 there is none, 1 it is empty, else what it holds.
pub(crate) const ROOT: usize = TEXT + TEXTS;
/// A value of megabytes.
pub(crate) const BALLAST: usize = ROOT + 1;
const WORDS: usize = BALLAST + 1;

/// What a desk has done so far.
#[derive(Clone, PartialEq)]
pub(crate) struct Book(pub(crate) [u64; WORDS]);

impl Book {
    pub(crate) fn depth(&self, key: usize) -> usize {
        self.0[STACKS + key * (DEPTH + 1)] as usize
    }

    /// The tags of a key's values, oldest first.
    pub(crate) fn stack(&self, key: usize) -> &[u64] {
        let from = STACKS + key * (DEPTH + 1) + 1;
        &self.0[from..from + self.depth(key)]
    }

    pub(crate) fn push(&mut self, key: usize, tag: u64) {
        let at = STACKS + key * (DEPTH + 1);
        self.0[at] += 1;
        self.0[at + self.0[at] as usize] = tag;
    }

    pub(crate) fn pop(&mut self, key: usize) -> bool {
        let had = self.depth(key) > 0;
        if had {
            self.0[STACKS + key * (DEPTH + 1)] -= 1;
        }
        had
    }

    pub(crate) fn set(&mut self, key: usize, tag: u64) {
        self.pop(key);
        self.push(key, tag);
    }

    /// Takes the oldest away.
    pub(crate) fn shift(&mut self, key: usize) {
        let rest = self.stack(key)[1..].to_vec();
        while self.pop(key) {}
        rest.into_iter().for_each(|tag| self.push(key, tag));
    }

    pub(crate) fn add(&mut self, word: usize, delta: i64) {
        self.0[word] = self.0[word].wrapping_add_signed(delta);
    }

    /// Bindings in the table of bytes.
    pub(crate) fn bindings(&self) -> u64 {
        let stacks: usize = (0..KEYS).map(|key| self.depth(key)).sum();
        let single = [MARKER, BALLAST].iter().filter(|word| self.0[**word] != 0).count();
        (stacks + single) as u64 + self.0[QUEUE_TO] - self.0[QUEUE_FROM]
    }
}

// The words of a desk.
const BEGUN: usize = 0;
const ENDED: usize = 1;
/// When the last operation ended.
const ENDED_AT: usize = 2;
/// When the first one ended since the controller has cleared this.
const FIRST_SINCE: usize = 3;
const PARKED: usize = 4;
/// Increments that nobody knows about, for each counter.
const UNCERTAIN: usize = 5;
/// Two books: the one of an even number of operations ended, and of an odd one.
const BOOKS: usize = UNCERTAIN + COUNTERS;
const PER_DESK: usize = BOOKS + 2 * WORDS;

/// The desks, and the words of the controller.
pub(crate) struct Office(Shared);

const PARK: usize = DESKS * PER_DESK;
const END: usize = PARK + 1;
/// Somebody has found something wrong; and has told what.
const FAILED: usize = END + 1;
const TOLD: usize = FAILED + 1;
/// Runs of pages given back to the system.
const GIVEN_BACK: usize = TOLD + 1;

impl Office {
    pub(crate) fn new() -> Office {
        Office(Shared::new(GIVEN_BACK + 1))
    }

    pub(crate) fn desk(&self, number: usize) -> Desk<'_> {
        Desk { shared: &self.0, number }
    }

    pub(crate) fn desks(&self) -> Vec<Desk<'_>> {
        (0..DESKS).map(|number| self.desk(number)).collect()
    }

    /// Two words: somebody has found something wrong, and has told what.
    pub(crate) fn failure(&self) -> [&AtomicU64; 2] {
        [FAILED, TOLD].map(|word| self.0.word(word))
    }

    pub(crate) fn given_back(&self) -> u64 {
        self.0.get(GIVEN_BACK)
    }

    /// Everybody is to pause.
    pub(crate) fn park(&self, yes: bool) {
        self.0.set(PARK, yes.into());
    }

    pub(crate) fn end(&self) {
        self.0.set(END, 1);
        self.park(true);
    }
}

/// The place of one thread.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    shared: &'a Shared,
    pub(crate) number: usize,
}

impl Desk<'_> {
    fn at(&self, word: usize) -> usize {
        self.number * PER_DESK + word
    }

    fn get(&self, word: usize) -> u64 {
        self.shared.get(self.at(word))
    }

    fn set(&self, word: usize, value: u64) {
        self.shared.set(self.at(word), value);
    }

    pub(crate) fn ended(&self) -> u64 {
        self.get(ENDED)
    }

    pub(crate) fn begun(&self) -> u64 {
        self.get(BEGUN)
    }

    pub(crate) fn begin(&self, n: u64) {
        self.set(BEGUN, n);
    }

    pub(crate) fn book(&self) -> Book {
        let from = BOOKS + (self.ended() % 2) as usize * WORDS;
        Book(std::array::from_fn(|i| self.get(from + i)))
    }

    /// One more operation has ended, and this is what the desk knows now.
    pub(crate) fn end(&self, book: &Book) {
        let ended = self.ended() + 1;
        let from = BOOKS + (ended % 2) as usize * WORDS;
        for (i, word) in book.0.iter().enumerate() {
            self.set(from + i, *word);
        }
        self.set(ENDED, ended);
    }

    pub(crate) fn tick(&self) {
        let now = now_ns();
        self.set(ENDED_AT, now);
        let _ = self.shared.word(self.at(FIRST_SINCE)).compare_exchange(
            0,
            now,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }

    pub(crate) fn forget_first(&self) {
        self.set(FIRST_SINCE, 0);
    }

    /// When the first operation ended since `forget_first`.
    pub(crate) fn first(&self) -> Option<u64> {
        Some(self.get(FIRST_SINCE)).filter(|at| *at != 0)
    }

    pub(crate) fn ended_at(&self) -> u64 {
        self.get(ENDED_AT)
    }

    pub(crate) fn must_park(&self) -> bool {
        self.shared.get(PARK) != 0
    }

    pub(crate) fn must_end(&self) -> bool {
        self.shared.get(END) != 0
    }

    pub(crate) fn set_parked(&self, yes: bool) {
        self.set(PARKED, yes.into());
        self.set(ENDED_AT, now_ns());
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.get(PARKED) != 0
    }

    pub(crate) fn note_given_back(&self, runs: u64) {
        self.shared.add(GIVEN_BACK, runs);
    }

    /// Nobody can tell whether a counter was raised by the dead one.
    pub(crate) fn note_uncertain(&self, counter: usize) {
        self.shared.add(self.at(UNCERTAIN + counter), 1);
    }

    pub(crate) fn uncertain(&self, counter: usize) -> u64 {
        self.get(UNCERTAIN + counter)
    }

    /// Now it is known: so many of the uncertain increments of all have happened. They are entered into this book.
    pub(crate) fn settle_counter(&self, counter: usize, found: u64) {
        let book = BOOKS + (self.ended() % 2) as usize * WORDS;
        self.shared.add(self.at(book + COUNTED + counter), found);
    }

    pub(crate) fn clear_uncertain(&self, counter: usize) {
        self.set(UNCERTAIN + counter, 0);
    }
}
