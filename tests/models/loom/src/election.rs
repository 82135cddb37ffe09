//! Recovery's election and the slot that changes hands: whoever finds an owner dead takes the slot over by one compare-and-swap;
//! who claims it afterwards finds it empty.
//!
//! Repeats `recovery::recover`, `attachment::life_at`, the end of `Engine::register` (slots that name a registration which was given
//! anew), and `Engine::claim_slot`. What a slot's owner alone may change is memory that loom watches: two at once, or
//! one who does not see what his predecessor has done, are found. Deaths at every step are left to `slots.py` and `recovery.py`;
//! here the dead are dead from the beginning.
//!
//! The fault `same-generation` is how the library was: who recovered a slot whose recoverer had died, and had been
//! given that one's registration, exchanged the state for itself, and somebody else could take the slot over once more.

use crate::format::SlotIndex;
use crate::format::lock_word::{LockWord, WRITING};
use crate::locks::Lock;
use crate::memory::{Word, fence_release};
use crate::run::{Model, has};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

const FREE: u64 = 0;
const ACTIVE: u64 = 1;
const RECOVERING: u64 = 2;
const IDLE: u64 = 0;
const COMMITTED: u64 = 1;
const APPLIED: u64 = 2;
const SLOT: SlotIndex = SlotIndex(1);

/// As `format::slot::State`.
fn state(kind: u64, registration: u64, generation: u64) -> u64 {
    kind | registration << 8 | generation << 32
}

fn kind(state: u64) -> u64 {
    state & 0xff
}

fn registration(state: u64) -> u64 {
    state >> 8 & 0xff_ffff
}

fn generation(state: u64) -> u64 {
    state >> 32
}

struct Object {
    state: Word,
    commit: Word,
    listed: Word,
    /// What only the slot's owner, or its one recoverer, may touch.
    owned: UnsafeCell<u64>,
    bucket: Lock,
    value: Word,
    logged: Word,
    /// Is the byte of registration 5 locked? The kernel tells, and orders whoever asks.
    registered: AtomicBool,
}

// SAFETY: loom finds accesses that the protocol does not order.
unsafe impl Sync for Object {}

/// The registration of the dead, which is given anew, and another one.
const FIVE: u64 = 5;
const SEVEN: u64 = 7;

impl Object {
    /// The owner has committed a change of 10 to 11, and is dead; `kind` says whether a recoverer has died as well.
    fn new(kind: u64) -> Arc<Object> {
        Arc::new(Object {
            state: Word::new(state(kind, FIVE, 1)),
            commit: Word::new(COMMITTED),
            listed: Word::new(1),
            owned: UnsafeCell::new(0),
            bucket: Lock::new(LockWord(1 << 20).locked_by(SLOT, WRITING).0),
            value: Word::new(10),
            logged: Word::new(11),
            registered: AtomicBool::new(false),
        })
    }

    fn use_slot(&self) {
        self.owned.with_mut(|owned| {
            // SAFETY: see above.
            unsafe { *owned += 1 }
        });
    }

    /// `recovery::recover`.
    fn recover(&self, me: u64, seen: u64) {
        let next = u64::from(!has("same-generation"));
        let mine = state(RECOVERING, me, generation(seen) + next);
        if has("no-election") {
            self.state.store(mine);
        } else if self.state.compare_exchange(seen, mine).is_err() {
            return;
        }
        self.use_slot();
        let commit = self.commit.load_acquire();
        if commit == COMMITTED {
            self.bucket.mark_writing(SLOT);
            fence_release();
            self.value.store(self.logged.load());
            self.commit.store(APPLIED);
        }
        if self.listed.load_acquire() == 1 {
            self.bucket.release(SLOT, true);
        }
        let next = if has("keep-generation") { generation(seen) } else { generation(mine) + 1 };
        if has("free-early") {
            self.state.store(state(FREE, 0, next));
        }
        self.listed.store(0);
        self.commit.store(IDLE);
        if !has("free-early") {
            self.state.store(state(FREE, 0, next));
        }
    }

    /// Somebody who has found the owner dead: `life_at`, then `recover`.
    fn look_after(&self) {
        let seen = self.state.load_acquire();
        let dead =
            kind(seen) != FREE && registration(seen) == FIVE && !self.registered.load(Ordering::Acquire);
        if dead {
            self.recover(SEVEN, seen);
        }
    }

    /// A new process is given the registration of the dead, and recovers what still names it.
    fn register(&self) {
        self.registered.store(true, Ordering::Release);
        let seen = self.state.load_acquire();
        if kind(seen) != FREE && registration(seen) == FIVE && !has("no-scan") {
            self.recover(FIVE, seen);
        }
    }

    /// Claims the slot if it is free, and adds 1 to the value if its bucket is. Tells whether it has.
    fn change(&self, me: u64) -> bool {
        let seen = self.state.load_acquire();
        let mine = state(ACTIVE, me, generation(seen));
        if kind(seen) != FREE || self.state.compare_exchange(seen, mine).is_err() {
            return false;
        }
        self.use_slot();
        assert_eq!(
            (self.commit.load(), self.listed.load()),
            (IDLE, 0),
            "a slot is not empty when it is claimed"
        );
        self.listed.store(1);
        let word = self.bucket.word.lock_word_acquire();
        if !word.is_free()
            || self.bucket.word.compare_exchange(word.0, word.locked_by(SLOT, WRITING).0).is_err()
        {
            panic!("the lock names a slot that was free");
        }
        let value = self.value.load() + 1;
        self.logged.store(value);
        self.commit.store(COMMITTED);
        fence_release();
        self.value.store(value);
        self.commit.store(APPLIED);
        self.bucket.release(SLOT, true);
        self.listed.store(0);
        self.commit.store(IDLE);
        self.use_slot();
        true
    }
}

fn election(first: u64) {
    let object = Object::new(first);
    let other = {
        let object = object.clone();
        thread::spawn(move || object.look_after())
    };
    object.register();
    let done = object.change(FIVE);
    other.join().unwrap();
    // Whoever comes next needs nobody to have been faster.
    let seen = object.state.load_acquire();
    if !done && kind(seen) != FREE {
        assert!(has("no-scan"), "nobody recovers the slot");
    }
    assert_eq!(object.value.load(), 11 + u64::from(done), "a change is lost, or made twice");
}

fn owner_dead() {
    election(ACTIVE);
}

fn recoverer_dead() {
    election(RECOVERING);
}

pub fn models() -> Vec<Model> {
    vec![
        Model {
            name: "election",
            about: "an owner is dead; one who has seen that, and one who gets the dead one's registration and claims the slot",
            body: owner_dead,
            preemptions: None,
            faults: &["no-election", "keep-generation", "free-early", "relaxed-store"],
        },
        Model {
            name: "election-again",
            about: "the same, but a recoverer is dead, too",
            body: recoverer_dead,
            preemptions: None,
            faults: &["same-generation", "no-election", "free-early"],
        },
    ]
}
