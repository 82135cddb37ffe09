//! The lock word with waiters: mutual exclusion, what the lock passes on, and that nobody sleeps while it is free.
//!
//! Repeats `wait::acquire_slowly` without spinning and time-outs, `Wait::give_up`, `lock::{release, wake_sleepers, pass_on}` and
//! the futex. What the lock covers is memory that loom watches: an access that the lock does not order is found. A
//! sleep has no end but a wake-up: whoever should have been woken sleeps for ever, and loom finds all threads blocked.

use crate::format::SlotIndex;
use crate::locks::Lock;
use crate::run::Model;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

struct Covered {
    lock: Lock,
    changes: UnsafeCell<u64>,
}

// SAFETY: loom finds accesses that the lock does not order.
unsafe impl Sync for Covered {}

impl Covered {
    fn new() -> Arc<Covered> {
        Arc::new(Covered { lock: Lock::new(1 << 20), changes: UnsafeCell::new(0) })
    }

    /// Locks, changes and releases. False: it has given up.
    fn change(&self, slot: u16, patient: bool) -> bool {
        if !self.lock.acquire(SlotIndex(slot), patient) {
            return false;
        }
        self.changes.with_mut(|changes| {
            // SAFETY: see above.
            unsafe { *changes += 1 }
        });
        self.lock.release(SlotIndex(slot), true);
        true
    }
}

/// Each locks once; those who are impatient give up after a sleep, and pass on the wake-up.
fn all(patience: &'static [bool], rounds_of_the_first: u32) {
    let covered = Covered::new();
    let others: Vec<_> = (2..)
        .zip(&patience[1..])
        .map(|(slot, patient)| {
            let covered = covered.clone();
            thread::spawn(move || covered.change(slot, *patient))
        })
        .collect();
    let mut done = 0;
    for _ in 0..rounds_of_the_first {
        done += u64::from(covered.change(1, patience[0]));
    }
    for other in others {
        done += u64::from(other.join().unwrap());
    }
    let changes = covered.changes.with(|changes| {
        // SAFETY: all have ended.
        unsafe { *changes }
    });
    assert_eq!(changes, done, "two were in at once");
    assert!(covered.lock.word.lock_word().is_free());
}

fn two() {
    all(&[true, true], 1);
}

fn three() {
    all(&[true, true, true], 1);
}

/// The first one locks once more at once, so that who was woken finds it locked.
fn impatient() {
    all(&[true, false, true], 2);
}

pub fn models() -> Vec<Model> {
    vec![
        Model {
            name: "two-lock",
            about: "two who lock, change and release, and sleep if need be",
            body: two,
            preemptions: None,
            faults: &["no-waiters", "no-wake", "relaxed-exchange"],
        },
        Model {
            name: "three-lock",
            about: "three of them",
            body: three,
            preemptions: Some(2),
            faults: &["no-waiters", "forget-waiters", "no-wake"],
        },
        Model {
            name: "giving-up",
            about: "three of them, of whom one locks twice, and one gives up after its first sleep",
            body: impatient,
            preemptions: Some(2),
            faults: &["no-pass-on"],
        },
    ]
}
