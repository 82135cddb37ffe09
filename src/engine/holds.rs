//! Who keeps an engine: handles, and open groups.
//!
//! Owns the moment when an engine ends. Handles keep it by counted references. Groups come and go too often for
//! that: each counts once in [`Groups`], the word by which finds see as well that they have to ask for a group. A handle that
//! closes while groups are open leaves its reference to them, and the last of them to end drops it.

use super::Engine;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Groups that keep an engine, in the low half; in the high half, the references that handles have left to them. As
/// long as there is one of these, there is a group.
#[derive(Default)]
pub(crate) struct Groups(AtomicU64);

const ONE_LEFT: u64 = 1 << 32;
const OPEN: u64 = ONE_LEFT - 1;

impl Groups {
    /// Is any open in this process? If not, none is on this thread.
    #[inline(always)]
    pub(crate) fn any_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The same for who goes on from what the groups' ends have left.
    fn any_open_now(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Begins a group.
    #[inline(always)]
    fn begin_one(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Leaves a reference to the open groups, if there are any.
    #[cold]
    fn take_over(&self) -> bool {
        let more = |word: u64| (word != 0).then(|| word + ONE_LEFT);
        // Acquire also if the last group has ended meanwhile: the caller then goes on to end the engine.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Ends a group if it is the only one, and nothing was left to it.
    #[inline(always)]
    fn end_the_only_one(&self) -> bool {
        self.0.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Ends a group. Gives the references that it has to drop: those left to the last group.
    #[cold]
    fn end_one(&self) -> u64 {
        let less = |word: u64| Some(if word & OPEN == 1 { 0 } else { word - 1 });
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less).unwrap_or(0);
        if before & OPEN == 1 { before >> ONE_LEFT.trailing_zeros() } else { 0 }
    }
}

/// A handle's reference to an engine.
#[derive(Clone)]
pub(crate) struct Hold(ManuallyDrop<Arc<Engine>>);

impl Hold {
    pub(crate) fn new(engine: Arc<Engine>) -> Hold {
        Hold(ManuallyDrop::new(engine))
    }

    /// The reference as a pointer, which is to become one again.
    pub(crate) fn into_raw(self) -> *mut Engine {
        let mut hold = ManuallyDrop::new(self);
        // SAFETY: the hold is not used again, nor dropped.
        Arc::into_raw(unsafe { ManuallyDrop::take(&mut hold.0) }).cast_mut()
    }

    /// The reference that became a pointer.
    ///
    /// # Safety
    /// `engine` must have come from [`Hold::into_raw`], and not have become a reference again.
    pub(crate) unsafe fn from_raw(engine: *mut Engine) -> Hold {
        // SAFETY: the caller's promise.
        Hold::new(unsafe { Arc::from_raw(engine) })
    }

    /// One more reference.
    ///
    /// # Safety
    /// As for [`Hold::from_raw`]; the pointer stays what it is.
    pub(crate) unsafe fn of_raw(engine: *mut Engine) -> Hold {
        // SAFETY: the caller's promise.
        Hold::clone(&ManuallyDrop::new(unsafe { Hold::from_raw(engine) }))
    }
}

impl Deref for Hold {
    type Target = Engine;
    #[inline(always)]
    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Acquire pairs with the end of the last group, all of which comes before the end of the engine.
        if !self.groups.any_open_now() || !self.groups.take_over() {
            // SAFETY: it is dropped once. Otherwise the groups have it now.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// A group's share in an engine.
pub(crate) struct Stake {
    engine: NonNull<Engine>,
    /// It is to be ended by somebody else, or has ended.
    is_left: Cell<bool>,
}

impl Stake {
    /// For the length of a group: whoever begins it has a handle of the engine.
    #[inline(always)]
    pub(crate) fn new(engine: &Engine) -> Stake {
        engine.groups.begin_one();
        Stake { engine: NonNull::from(engine), is_left: Cell::new(false) }
    }

    /// Gives it up if that does not end the engine. False: nothing has happened.
    #[inline(always)]
    pub(crate) fn end_briefly(&self) -> bool {
        self.is_left.set(self.groups.end_the_only_one());
        self.is_left.get()
    }

    /// Leaves the share to whoever calls [`Stake::of_abandoned`]. Until then the engine may be used.
    pub(crate) fn leave(&self) {
        self.is_left.set(true);
    }

    /// The share that a group has left.
    pub(crate) fn of_abandoned(engine: &Engine) -> Stake {
        Stake { engine: NonNull::from(engine), is_left: Cell::new(false) }
    }
}

impl Deref for Stake {
    type Target = Engine;
    #[inline(always)]
    fn deref(&self) -> &Engine {
        // SAFETY: the group counts, and as long as it does the engine lives.
        unsafe { self.engine.as_ref() }
    }
}

impl Drop for Stake {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_left.get() && !self.groups.end_the_only_one() {
            end_slowly(self.engine);
        }
    }
}

#[cold]
#[inline(never)]
fn end_slowly(engine: NonNull<Engine>) {
    // SAFETY: the group still counts.
    let engine = unsafe { engine.as_ref() };
    let shared = engine.me.as_ptr();
    for _ in 0..engine.groups.end_one() {
        // SAFETY: a handle has left this reference, and nobody else has taken it.
        unsafe { Arc::decrement_strong_count(shared) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{ManageOptions, OpenOptions};
    use crate::table::Table;
    use std::sync::Weak;

    fn table() -> (Table, Weak<Engine>) {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let engine = table.engine.me.clone();
        (table, engine)
    }

    #[test]
    fn groups_keep_the_engine_and_the_last_one_ends_it() {
        let (table, engine) = table();
        let first = table.begin().expect("a group").detach().expect("outermost");
        let second = table.begin().expect("a group");
        drop(table);
        assert_eq!(engine.strong_count(), 1, "the groups have it");
        second.commit().expect("commit");
        assert_eq!(engine.strong_count(), 1);
        drop(first);
        assert_eq!(engine.strong_count(), 0);
    }

    #[test]
    fn whoever_is_last_ends_the_engine_once() {
        for _ in 0..200 {
            let (table, engine) = table();
            std::thread::scope(|threads| {
                let (ours, theirs) = (table.clone(), table);
                let group = ours.begin().expect("a group").detach().expect("outermost");
                threads.spawn(move || drop(theirs));
                threads.spawn(move || group.attach().expect("its thread").commit().expect("commit"));
                drop(ours);
            });
            assert_eq!(engine.strong_count(), 0);
        }
    }
}
