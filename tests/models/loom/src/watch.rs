//! Waiting for change: nobody who has asked for a wake-up sleeps through a change of the bucket, nor through another table in
//! its place.
//!
//! Repeats `Engine::wait_for_change`, `Engine::ask_for_wake_up`, `watch::ask`, `home::home`, and of the others `lock::release`,
//! `lock::wake_sleepers` and the look of `lifecycle::sweep_step`. Sleeps have no time-out here; the library's end after 50 ms, so
//! that what is found here is late there, not lost.
//!
//! The gate's version and the bucket's WATCH are two words of which each side stores one and then loads the other:
//! both need a full fence, as at the gate.

use crate::format::SlotIndex;
use crate::format::lock_word::{LockWord, WATCH, WRITING};
use crate::locks::Lock;
use crate::memory::{fence_acquire, fence_after_exchange};
use crate::run::{Model, has};
use loom::sync::Arc;
use loom::thread;

struct Object {
    gate: Lock,
    bucket: Lock,
}

const WRITER: SlotIndex = SlotIndex(1);
const SWEEPER: SlotIndex = SlotIndex(2);
const LOCKER: SlotIndex = SlotIndex(3);

/// What a stamp is made of here.
type Stamp = (u64, u64);

impl Object {
    fn new() -> Arc<Object> {
        Arc::new(Object { gate: Lock::new(1 << 20), bucket: Lock::new(1 << 20) })
    }

    /// `home::home`: the word of the bucket and the version of the gate, at one moment.
    fn home(&self) -> Option<(LockWord, u64)> {
        let gate = self.gate.word.lock_word_acquire();
        let word = self.bucket.word.lock_word_acquire();
        if gate.is_writing() || word.is_writing() {
            return None;
        }
        fence_acquire();
        let same = word.unchanged_for_readers(self.bucket.word.lock_word())
            && gate.unchanged_for_readers(self.gate.word.lock_word_acquire());
        same.then_some((word, gate.version()))
    }

    /// Waits for another stamp.
    fn wait(&self, since: Stamp) {
        loop {
            let Some((word, gate)) = self.home() else {
                thread::yield_now();
                continue;
            };
            if (word.version(), gate) != since {
                return;
            }
            // `ask`.
            let asked = word.with(WATCH);
            if has("no-ask") {
            } else if has("ask-blindly") {
                let now = self.bucket.word.lock_word();
                let _ = self.bucket.word.compare_exchange(now.0, now.with(WATCH).0);
            } else if !word.is_watched() && self.bucket.word.compare_exchange(word.0, asked.0).is_err() {
                continue;
            }
            // `ask_for_wake_up`.
            fence_after_exchange();
            let gate_now = self.gate.word.lock_word_acquire();
            if gate_now.version() != gate && !has("no-second-look") {
                continue;
            }
            let asked = if has("ask-blindly") { self.bucket.word.lock_word() } else { asked };
            self.bucket.futex.wait(&self.bucket.word, if has("no-ask") { word } else { asked });
        }
    }

    /// A change by the short way.
    fn change(&self) {
        loop {
            let word = self.bucket.word.lock_word_acquire();
            if word.is_free()
                && self.bucket.word.compare_exchange(word.0, word.locked_by(WRITER, WRITING).0).is_ok()
            {
                self.bucket.release(WRITER, true);
                return;
            }
            thread::yield_now();
        }
    }

    /// Another table: the gate gets a new version; then the bucket is swept, of which nothing is bound.
    fn replace_table(&self) {
        let word = self.gate.word.lock_word_acquire();
        assert!(self.gate.word.compare_exchange(word.0, word.locked_by(SWEEPER, WRITING).0).is_ok());
        self.gate.release(SWEEPER, true);
        // The sweep is a transaction of its own, which takes the retire lock first: `gate_is_anothers` comes after that.
        fence_after_exchange();
        if self.bucket.word.lock_word_acquire().is_watched() {
            let locked = self.bucket.acquire(SWEEPER, true);
            assert!(locked);
            self.bucket.release(SWEEPER, true);
        }
    }
}

fn stamp() -> Stamp {
    (1, 1)
}

fn changed() {
    let object = Object::new();
    let writer = {
        let object = object.clone();
        thread::spawn(move || object.change())
    };
    object.wait(stamp());
    writer.join().unwrap();
}

fn with_locker() {
    let object = Object::new();
    let others: [fn(&Object); 2] = [Object::change, |object| {
        let locked = object.bucket.acquire(LOCKER, true);
        assert!(locked);
        object.bucket.release(LOCKER, false);
    }];
    let others = others.map(|other| {
        let object = object.clone();
        thread::spawn(move || other(&object))
    });
    object.wait(stamp());
    others.into_iter().for_each(|other| other.join().unwrap());
}

fn replaced() {
    let object = Object::new();
    let sweeper = {
        let object = object.clone();
        thread::spawn(move || object.replace_table())
    };
    object.wait(stamp());
    sweeper.join().unwrap();
}

pub fn models() -> Vec<Model> {
    vec![
        Model {
            name: "watch",
            about: "one who waits for a change, one who makes it",
            body: changed,
            preemptions: Some(4),
            faults: &["no-ask", "ask-blindly", "no-wake", "no-bump"],
        },
        Model {
            name: "watch-and-lock",
            about: "the same with one who wants the lock and changes nothing",
            body: with_locker,
            preemptions: Some(2),
            faults: &["wake-one", "no-wake"],
        },
        Model {
            name: "watch-table",
            about: "one who waits for a change, and another table in the place of his",
            body: replaced,
            preemptions: Some(4),
            faults: &["no-fence-after-exchange", "no-second-look"],
        },
    ]
}
