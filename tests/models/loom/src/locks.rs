//! The lock word and its futex: `lock::{wait, mod}` and `Writer::mark_writing`, with the library's own file for the bits.

use crate::format::SlotIndex;
use crate::format::lock_word::{LockWord, WAITERS, WRITING};
use crate::memory::Word;
use crate::run::has;
use loom::sync::Mutex;
use loom::thread::{self, Thread};

/// The futex of a lock word: what the kernel does for those who sleep on it. Sleeps have no time-out here, so that nothing
/// is mended by looking again: whoever is not woken sleeps for ever, which loom finds.
pub struct Futex(Mutex<Vec<Thread>>);

impl Futex {
    pub fn new() -> Futex {
        Futex(Mutex::new(Vec::new()))
    }

    /// `futex::wait`: compares the word's low half and queues the caller, in one step for those who wake.
    pub fn wait(&self, word: &Word, expected: LockWord) {
        let mut queue = self.0.lock().unwrap();
        if word.lock_word_acquire().futex_value() == expected.futex_value() {
            queue.push(thread::current());
            drop(queue);
            thread::park();
        }
    }

    /// `futex::wake`, the first come first.
    pub fn wake(&self, count: usize) {
        let mut queue = self.0.lock().unwrap();
        let count = count.min(queue.len());
        let woken: Vec<Thread> = queue.drain(..count).collect();
        drop(queue);
        woken.iter().for_each(Thread::unpark);
    }
}

/// A lock word with its futex.
pub struct Lock {
    pub word: Word,
    pub futex: Futex,
}

impl Lock {
    pub fn new(word: u64) -> Lock {
        Lock { word: Word::new(word), futex: Futex::new() }
    }

    /// `acquire_slowly`, without spinning, time-outs and the dead. `patient`: false gives up after the first sleep.
    pub fn acquire(&self, me: SlotIndex, patient: bool) -> bool {
        let mut slept = false;
        loop {
            let word = self.word.lock_word_acquire();
            if word.is_free() {
                let bits = if slept && !has("forget-waiters") { WAITERS } else { 0 };
                if self.word.compare_exchange(word.0, word.locked_by(me, bits).0).is_ok() {
                    return true;
                }
                continue;
            }
            if slept && !patient {
                // `Wait::give_up`.
                if !has("no-pass-on") {
                    self.pass_on();
                }
                return false;
            }
            let asleep = if has("no-waiters") { word } else { word.with(WAITERS) };
            if !word.has_waiters() && self.word.compare_exchange(word.0, asleep.0).is_err() {
                continue;
            }
            self.futex.wait(&self.word, asleep);
            slept = true;
        }
    }

    /// `lock::release`.
    pub fn release(&self, owner: SlotIndex, bump: bool) {
        let mut word = self.word.lock_word();
        while word.owner() == owner {
            match self.word.compare_exchange(word.0, word.released(bump && !has("no-bump")).0) {
                Ok(()) => {
                    if word.has_sleepers() && !has("no-wake") {
                        self.wake_sleepers(word, bump);
                    }
                    return;
                }
                Err(now) => word = LockWord(now),
            }
        }
    }

    /// `lock::wake_sleepers`.
    fn wake_sleepers(&self, held: LockWord, bump: bool) {
        if held.is_watched() && !has("wake-one") {
            if bump || held.has_waiters() {
                self.futex.wake(usize::MAX);
            }
        } else {
            self.futex.wake(1);
        }
    }

    /// `lock::pass_on`.
    fn pass_on(&self) {
        let watched = self.word.lock_word_acquire().is_watched();
        self.futex.wake(if watched { usize::MAX } else { 1 });
    }

    /// `Writer::mark_writing`.
    pub fn mark_writing(&self, owner: SlotIndex) {
        let mut word = self.word.lock_word();
        while word.owner() == owner && !word.is_writing() {
            match self.word.compare_exchange(word.0, word.with(WRITING).0) {
                Ok(()) => break,
                Err(now) => word = LockWord(now),
            }
        }
    }

    /// `fast::conclude` from the release on: straight if nobody has set a bit, else by `release`.
    pub fn release_from(&self, mine: LockWord) {
        let bump = !has("no-bump");
        if mine.has_sleepers() || self.word.compare_exchange(mine.0, mine.released(bump).0).is_err() {
            self.release(mine.owner(), true);
        }
    }
}
