//! What a desk does: each operation follows from the seed, the desk and its number, and what the desk knows.

use crate::book::*;
use crate::support::model::{Bytes, Op, Outcome};
use crate::support::random::Random;
use crate::tables::Plan;
use netshm::Error;

/// One operation.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// On one of the desk's own keys.
    Own(Change),
    /// Several of these in a group; those of the second list in a nested one that is aborted.
    Bundle(Vec<Change>, Vec<Change>),
    Aborted(Vec<Change>),
    Enqueue,
    Dequeue,
    /// An increment, in a group with the marker or on its own.
    Count(usize, bool),
    /// In a group with the marker.
    Transfer {
        from: usize,
        to: usize,
        amount: i64,
    },
    /// A binding of the typed table.
    Typed(usize, Typed, u64),
    /// A stack of the primitive table.
    Words(usize, Words, u64),
    /// The desk's own element, among those of others.
    Set(u64),
    /// A shared element, in a group with the marker.
    AddTo(usize),
    /// A slice of the desk's own array.
    Blocks(usize, usize, u64),
    Resize(usize),
    /// A slice of the long array.
    Pieces(usize, usize, u64),
    Text(usize, u64),
    /// One group over tables of all kinds.
    Everywhere(u64),
    Root(Root),
    /// A large value comes or goes.
    Ballast(u64),
    /// Adds up the accounts, in a group.
    Audit,
    Lengths,
    Iterate,
    Wait(usize),
    Check,
    Sync,
    Backup,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Typed {
    Replace,
    Remove,
    Update,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Words {
    Add,
    Replace,
    Remove,
    /// `write_blocks`: the newest is assigned to, the oldest removed if there are more than two.
    Assign,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Root {
    Make,
    Fill(u64),
    Drop,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: usize,
    how: How,
    pub(crate) tag: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Add,
    Replace,
    Insert,
    Remove,
    Update,
    UpdateAway,
    Compare,
    Touch,
}

impl Change {
    fn random(random: &mut Random, tag: u64) -> Change {
        use How::*;
        let hows = [
            Add, Add, Add, Replace, Replace, Replace, Insert, Remove, Remove, Update, UpdateAway, Compare,
            Touch,
        ];
        Change { key: random.below(KEYS as u64) as usize, how: *random.one_of(&hows), tag }
    }

    /// The operation, and what it gives. Changes the book.
    pub(crate) fn enter(&self, desk: usize, book: &mut Book) -> (Op, Outcome) {
        let (k, v) = (own_key(desk, self.key), value(desk, self.tag));
        let newest = book.stack(self.key).last().copied();
        match self.how {
            How::Add if book.depth(self.key) < DEPTH => {
                book.push(self.key, self.tag);
                (Op::Add(k, v), Outcome::Done)
            }
            How::Add | How::Replace => {
                book.set(self.key, self.tag);
                (Op::Replace(k, v), Outcome::Done)
            }
            How::Insert if newest.is_some() => (Op::Insert(k, v), Outcome::Failed(Error::Exists)),
            How::Insert => {
                book.set(self.key, self.tag);
                (Op::Insert(k, v), Outcome::Done)
            }
            How::Remove => (Op::Remove(k), Outcome::Found(book.pop(self.key))),
            How::Update => {
                book.set(self.key, self.tag);
                (Op::Update(k, Some(v)), Outcome::Done)
            }
            How::UpdateAway => {
                book.pop(self.key);
                (Op::Update(k, None), Outcome::Done)
            }
            How::Compare => match newest {
                None => (Op::CompareAndReplace(k, v.clone(), v), Outcome::Failed(Error::NotFound)),
                Some(old) => {
                    book.set(self.key, self.tag);
                    (Op::CompareAndReplace(k, value(desk, old), v), Outcome::Done)
                }
            },
            How::Touch => (Op::Touch(k), Outcome::Done),
        }
    }
}

pub(crate) fn own_key(desk: usize, key: usize) -> Bytes {
    // Of the length that has short ways of its own.
    format!("{:<16}", format!("desk {desk} key {key}")).into_bytes()
}

pub(crate) fn queue_key(desk: usize, n: u64) -> Bytes {
    format!("desk {desk} queue {n}").into_bytes()
}

pub(crate) fn marker_key(desk: usize) -> Bytes {
    format!("desk {desk} marker").into_bytes()
}

pub(crate) fn ballast_key(desk: usize) -> Bytes {
    format!("desk {desk} ballast").into_bytes()
}

pub(crate) fn counter_key(n: usize) -> Bytes {
    format!("counter {n}").into_bytes()
}

pub(crate) fn account_key(n: usize) -> Bytes {
    format!("account {n}").into_bytes()
}

pub(crate) fn typed_key(desk: usize, key: usize) -> String {
    format!("desk {desk} typed {key}")
}

pub(crate) fn word_key(desk: usize, key: usize) -> i32 {
    (desk * WORD_KEYS + key) as i32 - 7
}

/// The value that belongs to a tag.
pub(crate) fn value(desk: usize, tag: u64) -> Bytes {
    let mut random = Random::new(tag ^ (desk as u64) << 56);
    let len = match random.below(100) {
        0..60 => random.below(40),
        60..90 => random.below(600),
        90..97 => random.below(9000),
        97..99 => 16_300 + random.below(200),
        _ => random.below(90_000),
    };
    repeated(random.next(), len as usize)
}

/// A value of up to two megabytes.
pub(crate) fn ballast(desk: usize, tag: u64) -> Bytes {
    let mut random = Random::new(tag ^ (desk as u64) << 48);
    let len = 100_000 + random.below(1_900_000) as usize;
    repeated(random.next(), len)
}

fn repeated(word: u64, len: usize) -> Bytes {
    let mut bytes = word.to_le_bytes().repeat(len / 8 + 1);
    bytes.truncate(len);
    bytes
}

pub(crate) fn typed_value(tag: u64) -> (i64, Option<String>) {
    let text = (tag % 3 != 0).then(|| format!("{tag} ").repeat((tag % 40) as usize));
    (tag as i64, text)
}

pub(crate) fn text(tag: u64) -> String {
    if tag == 0 { String::new() } else { format!("text {tag} ").repeat(1 + (tag % 60) as usize) }
}

/// Values of one key of the primitive table have one length, so that they can be assigned to. Some are of several fragments.
pub(crate) fn words(key: usize, tag: u64) -> Vec<i32> {
    let len = [1, 3, 40, 2 * netshm::FRAGMENT_WORDS + 5][key];
    (0..len as u64).map(|i| (tag.wrapping_mul(2_654_435_761) + i) as i32).collect()
}

/// Elements of arrays, encoded.
pub(crate) fn elements(tag: u64, count: usize) -> Bytes {
    (0..count as u64).flat_map(|i| element(tag, i).to_le_bytes()).collect()
}

pub(crate) fn element(tag: u64, i: u64) -> i64 {
    if tag == 0 { -1 } else { (tag << 20 | i) as i64 }
}

/// What a desk does as its `n`-th operation.
pub(crate) fn step(plan: &Plan, desk: usize, n: u64, book: &Book) -> Step {
    let mut random = Random::new(plan.seed ^ (desk as u64) << 56 ^ n.wrapping_mul(0x1234_5678_9abd));
    let r = &mut random;
    let tag = n * 64;
    let changes = |r: &mut Random, most: u64, part: u64| -> Vec<Change> {
        (0..1 + r.below(most)).map(|i| Change::random(r, tag + part * 32 + i)).collect()
    };
    match r.below(10_000) {
        0..3300 => Step::Own(Change::random(r, tag)),
        3300..4000 => Step::Bundle(changes(r, 6, 0), changes(r, 3, 1)),
        4000..4200 => Step::Bundle(changes(r, 30, 0), Vec::new()),
        4200..4500 => Step::Aborted(changes(r, 10, 0)),
        4500..5600 => {
            let len = book.0[QUEUE_TO] - book.0[QUEUE_FROM];
            if r.below(QUEUE) >= len { Step::Enqueue } else { Step::Dequeue }
        }
        5600..6400 => Step::Count(r.below(COUNTERS as u64) as usize, r.once_in(3)),
        6400..7400 => {
            let from = r.below(ACCOUNTS as u64);
            let to = (from + 1 + r.below(ACCOUNTS as u64 - 1)) % ACCOUNTS as u64;
            Step::Transfer { from: from as usize, to: to as usize, amount: r.below(20) as i64 - 5 }
        }
        7400..7850 => {
            let how = *r.one_of(&[Typed::Replace, Typed::Replace, Typed::Remove, Typed::Update]);
            Step::Typed(r.below(TYPED_KEYS as u64) as usize, how, tag)
        }
        7850..8350 => {
            let how = *r.one_of(&[Words::Add, Words::Replace, Words::Remove, Words::Assign, Words::Assign]);
            Step::Words(r.below(WORD_KEYS as u64) as usize, how, tag)
        }
        8350..8600 => Step::Set(tag),
        8600..8800 => Step::AddTo(r.below(ELEMENTS as u64) as usize),
        8800..9000 => blocks(r, book, tag),
        9000..9010 => {
            let (from, to) = range(r, PIECES);
            Step::Pieces(from, to, tag)
        }
        9010..9220 => Step::Text(r.below(TEXTS as u64) as usize, if r.once_in(5) { 0 } else { tag }),
        9220..9420 => Step::Everywhere(tag),
        9420..9470 => match (book.0[ROOT], r.below(4)) {
            (0, _) => Step::Root(Root::Make),
            (_, 0) => Step::Root(Root::Drop),
            _ => Step::Root(Root::Fill(tag)),
        },
        9470..9485 => ballast_comes_or_goes(book, tag),
        9485..9600 => Step::Audit,
        9600..9640 => Step::Lengths,
        9640..9645 => Step::Iterate,
        9645..9680 => Step::Wait(r.below(COUNTERS as u64) as usize),
        9680..9682 => Step::Check,
        9682..9687 => Step::Sync,
        9687 if r.once_in(3) => Step::Backup,
        9688..9740 => Step::Reopen,
        9740..9860 if plan.gives_back => ballast_comes_or_goes(book, tag),
        _ => Step::Own(Change::random(r, tag)),
    }
}

fn ballast_comes_or_goes(book: &Book, tag: u64) -> Step {
    Step::Ballast(if book.0[BALLAST] == 0 { tag } else { 0 })
}

/// Some neighbours of several.
fn range(r: &mut Random, of: usize) -> (usize, usize) {
    let from = r.below(of as u64) as usize;
    (from, from + 1 + r.below((of - from) as u64) as usize)
}

fn blocks(r: &mut Random, book: &Book, tag: u64) -> Step {
    let length = book.0[LENGTH] as usize;
    if length == 0 || r.once_in(4) {
        return Step::Resize(r.below(BLOCKS as u64 + 1) as usize);
    }
    let (from, to) = range(r, length);
    Step::Blocks(from, to, tag)
}

/// What the desk knows after a step.
pub(crate) fn after(step: &Step, desk: usize, n: u64, book: &Book) -> Book {
    let mut book = book.clone();
    match step {
        Step::Own(change) => drop(change.enter(desk, &mut book)),
        Step::Bundle(changes, _) => changes.iter().for_each(|c| drop(c.enter(desk, &mut book))),
        Step::Enqueue => book.add(QUEUE_TO, 1),
        Step::Dequeue => book.add(QUEUE_FROM, 1),
        Step::Count(counter, marked) => {
            book.add(COUNTED + counter, 1);
            if *marked {
                book.0[MARKER] = n;
            }
        }
        Step::Transfer { from, to, amount } => {
            book.add(MOVED + from, -amount);
            book.add(MOVED + to, *amount);
            book.0[MARKER] = n;
        }
        Step::Typed(key, Typed::Remove, _) => book.0[TYPED + key] = 0,
        Step::Typed(key, _, tag) => book.0[TYPED + key] = *tag,
        Step::Words(key, how, tag) => words_after(&mut book, KEYS + key, *how, *tag),
        Step::Set(tag) => book.0[ELEMENT] = *tag,
        Step::AddTo(element) => {
            book.add(ADDED + element, 1);
            book.0[MARKER] = n;
        }
        Step::Blocks(from, to, tag) => book.0[BLOCK + from..BLOCK + to].fill(*tag),
        Step::Resize(length) => {
            book.0[LENGTH] = *length as u64;
            book.0[BLOCK + length..BLOCK + BLOCKS].fill(0);
        }
        Step::Pieces(from, to, tag) => book.0[PIECE + from..PIECE + to].fill(*tag),
        Step::Text(text, tag) => book.0[TEXT + text] = *tag,
        Step::Everywhere(tag) => {
            book.set(0, *tag);
            book.set(KEYS, *tag);
            book.0[TYPED] = *tag;
            book.0[ELEMENT] = *tag;
            book.add(ADDED, 1);
            book.0[TEXT] = *tag;
            book.0[LENGTH] = 2;
            book.0[BLOCK + 2..BLOCK + BLOCKS].fill(0);
            book.0[BLOCK + 1] = *tag;
            book.0[MARKER] = n;
        }
        Step::Root(Root::Make) => book.0[ROOT] = 1,
        Step::Root(Root::Fill(tag)) => book.0[ROOT] = *tag,
        Step::Root(Root::Drop) => book.0[ROOT] = 0,
        Step::Ballast(tag) => book.0[BALLAST] = *tag,
        Step::Aborted(_) | Step::Audit | Step::Lengths | Step::Iterate | Step::Wait(_) => {}
        Step::Check | Step::Sync | Step::Backup | Step::Reopen => {}
    }
    book
}

fn words_after(book: &mut Book, key: usize, how: Words, tag: u64) {
    match how {
        Words::Add if book.depth(key) < DEPTH => book.push(key, tag),
        Words::Add | Words::Replace => book.set(key, tag),
        Words::Remove => drop(book.pop(key)),
        Words::Assign if book.depth(key) == 0 => {}
        Words::Assign => {
            book.set(key, tag);
            if book.depth(key) > 2 {
                book.shift(key);
            }
        }
    }
}
