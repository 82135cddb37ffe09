//! The gate: either the holder of the gate sees a lock in somebody's list, or that one sees the gate taken.
//!
//! Repeats, of those who lock, `Participant::list`, the compare-and-swap, and `Writer::gate_is_anothers` (`fast::lock`,
//! `in_group::lock`, `fast_split::split` and `fast_slice::lock_all` do the same); of the holder, `Writer::lock_gate` with
//! `attachment::holds_nothing`. Two who each store, and then load what the other stores, need a full fence each
//! (Dekker 1965). A compare-and-swap that is SeqCst is none in the model of C11: the fault `no-fence-after-exchange` is how the
//! library was before it had `Segment::fence_after_exchange`.
//!
//! What the participants change under their locks is memory that loom watches: if the holder of the gate and one of
//! them are at it at once, it is found.

use crate::format::SlotIndex;
use crate::format::lock_word::WRITING;
use crate::locks::Lock;
use crate::memory::{Word, fence_after_exchange, fence_full};
use crate::run::{Model, has};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// What the lists hold for the gate and for a bucket.
const GATE: u64 = 8192;
const BUCKET: u64 = 4096;
const HOLDER: SlotIndex = SlotIndex(9);

struct Slot {
    list: Word,
    length: Word,
    bucket: Lock,
    data: UnsafeCell<u64>,
}

struct Object {
    gate: Lock,
    slots: Vec<Slot>,
}

// SAFETY: loom finds accesses that the protocol does not order.
unsafe impl Sync for Object {}

impl Object {
    fn new(slots: u16) -> Arc<Object> {
        let slot = |_| Slot {
            list: Word::new(0),
            length: Word::new(0),
            bucket: Lock::new(1 << 20),
            data: UnsafeCell::new(0),
        };
        Arc::new(Object { gate: Lock::new(1 << 20), slots: (0..slots).map(slot).collect() })
    }

    /// Changes something under a bucket's lock, unless somebody holds the gate. Each has a bucket of its own.
    fn change(&self, index: u16) -> bool {
        let (slot, me) = (&self.slots[index as usize], SlotIndex(index + 1));
        let list = || {
            slot.list.store(BUCKET);
            slot.length.store(1);
        };
        if !has("list-late") {
            list();
        }
        let early = self.gate.word.lock_word_acquire();
        let word = slot.bucket.word.lock_word_acquire();
        let mine = word.locked_by(me, WRITING);
        assert!(slot.bucket.word.compare_exchange(word.0, mine.0).is_ok());
        fence_after_exchange();
        let gate = if has("gate-early") { early } else { self.gate.word.lock_word_acquire() };
        if has("list-late") {
            list();
        }
        let enters = gate.is_free();
        if enters {
            slot.data.with_mut(|data| {
                // SAFETY: see above.
                unsafe { *data += 1 }
            });
        }
        slot.bucket.release(me, true);
        slot.length.store(0);
        enters
    }

    /// Waits for the gate: `Writer::wait_for_gate`. The gate in the list counts as nothing.
    fn wait_for_gate(&self, index: u16) {
        let (slot, me) = (&self.slots[index as usize], SlotIndex(index + 1));
        slot.list.store(GATE);
        slot.length.store(1);
        let taken = self.gate.acquire(me, true);
        assert!(taken);
        self.gate.release(me, false);
        slot.length.store(0);
    }

    /// `holds_nothing`.
    fn holds_nothing(slot: &Slot) -> bool {
        match slot.length.load_acquire() {
            0 => true,
            1 => slot.list.load_acquire() == GATE,
            _ => false,
        }
    }

    /// Takes the gate, and looks at everything if all lists are seen empty. It does not wait for those which are not.
    fn look_at_all(&self) {
        let word = self.gate.word.lock_word_acquire();
        if !word.is_free() || self.gate.word.compare_exchange(word.0, word.locked_by(HOLDER, 0).0).is_err() {
            return;
        }
        fence_full();
        for slot in &self.slots {
            if !Object::holds_nothing(slot) {
                continue;
            }
            slot.data.with(|data| {
                // SAFETY: see above.
                unsafe { *data }
            });
        }
        self.gate.release(HOLDER, false);
    }
}

fn gate(slots: u16, again: bool) {
    let object = Object::new(slots);
    let changers: Vec<_> = (0..slots)
        .map(|index| {
            let object = object.clone();
            thread::spawn(move || {
                if !object.change(index) && again {
                    object.wait_for_gate(index);
                    object.change(index);
                }
            })
        })
        .collect();
    object.look_at_all();
    for changer in changers {
        changer.join().unwrap();
    }
}

fn one() {
    gate(1, true);
}

fn two() {
    gate(2, false);
}

pub fn models() -> Vec<Model> {
    let faults: &[&str] = &[
        "no-fence-after-exchange",
        "no-full-fence",
        "list-late",
        "gate-early",
        "relaxed-load",
        "relaxed-store",
    ];
    vec![
        Model {
            name: "gate",
            about: "the holder of the gate, and one who changes, waits for the gate and changes again",
            body: one,
            preemptions: Some(4),
            faults,
        },
        Model {
            name: "gate-of-two",
            about: "the holder of the gate, and two who change",
            body: two,
            preemptions: Some(2),
            faults: &["no-fence-after-exchange", "no-full-fence", "list-late"],
        },
    ]
}
