//! Locks of an object: who holds them, how to wait for them, what becomes of a dead holder.
//!
//! Owns the acquisition and release of lock words, the published lock list of a participant and the search
//! for deadlocks. It changes lock words, lock lists and wait fields only. It does not recover the dead (it
//! reports them, and the caller must act) and does not know what a lock covers.
//!
//! - [`attachment`]: this process as a registrant of the object; who lives.
//! - [`participant`]: one slot in the hands of one thread.
//! - [`wait`]: acquiring, waiting, giving up.
//! - [`watch`]: sleeping until what a lock covers has changed.
//! - [`nap`]: sleeping without futexes, for the locking method RECORD.
//! - [`deadlock`]: finding cycles.

pub(crate) mod attachment;
mod deadlock;
mod nap;
pub(crate) mod participant;
pub(crate) mod wait;
pub(crate) mod watch;

use crate::format::lock_word::LockWord;
use crate::format::{Offset, SlotIndex};
use crate::os::{futex, time};
use crate::segment::Segment;
use std::time::Duration;

pub(crate) use nap::let_others_look;

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// Not at all.
    Try,
    /// Until the deadline.
    Until(time::Deadline),
}

impl Patience {
    pub(crate) const FOR_EVER: Patience = Patience::Until(time::Deadline::NEVER);

    /// Is there any left?
    pub(crate) fn is_left(self) -> bool {
        matches!(self, Patience::Until(deadline) if !deadline.passed())
    }

    /// The patience that a handle's time-out in milliseconds means: 0 for ever, negative not at all.
    #[cold]
    pub(crate) fn from_millis(timeout_ms: i32) -> Patience {
        match timeout_ms {
            0 => Patience::FOR_EVER,
            ms if ms < 0 => Patience::Try,
            ms => Patience::Until(time::Deadline::after(Some(Duration::from_millis(ms as u64)))),
        }
    }

    /// The same for taking part at all, which is waited for a moment even by who waits for no lock: of many that begin
    /// together one makes room for the others.
    #[cold]
    pub(crate) fn to_take_part(self) -> Patience {
        match self {
            Patience::Try => Patience::from_millis(TO_TAKE_PART_MS),
            until => until,
        }
    }
}

/// Far longer than it takes to make room, and short for who finds none.
const TO_TAKE_PART_MS: i32 = 1000;

/// Order in which internal locks may be taken while others are held. Ordinary locks (buckets, gate, retire
/// lock) wait for each other freely, deadlocks among them are found; an internal lock is only waited for by
/// holders of lower ranks, so no cycle can contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Ordinary,
    Growth,
    SlotDirectory,
    Arena,
    Page,
}

/// Gives a lock back if `owner` holds it.
#[inline(always)]
pub(crate) fn release(segment: &Segment, at: Offset, owner: SlotIndex, bump: bool) {
    let Some(lock) = segment.block::<1>(at) else { return };
    let mut word = LockWord(lock.load(0));
    while word.owner() == owner {
        match lock.compare_exchange(0, word.0, word.released(bump).0) {
            Ok(()) => {
                if word.has_sleepers() {
                    wake_sleepers(segment, at, word, bump);
                }
                return;
            }
            Err(now) => word = LockWord(now),
        }
    }
}

/// Wakes whom the release of a lock concerns, whose word was `held`: all who watch, if there is a new version;
/// else one who waits for the lock. Both sleep on the same word, so that of one wake-up it is not known whom it
/// reaches: as long as somebody watches, all are woken.
#[cold]
#[inline(never)]
fn wake_sleepers(segment: &Segment, at: Offset, held: LockWord, bump: bool) {
    if held.is_watched() {
        if bump || held.has_waiters() {
            wake(segment, at, i32::MAX);
        }
    } else {
        wake(segment, at, 1);
    }
}

/// Wakes one more of those who wait for a lock: a wake-up may have been lost on somebody who has given up.
#[cold]
pub(crate) fn pass_on(segment: &Segment, at: Offset) {
    let watched = LockWord(segment.load_acquire(at)).is_watched();
    wake(segment, at, if watched { i32::MAX } else { 1 });
}

/// Wakes waiters of a lock. Where they do not sleep on futexes they look by themselves, soon.
#[cold]
pub(crate) fn wake(segment: &Segment, at: Offset, count: i32) {
    if let Some(address) = segment.futex_address(at) {
        futex::wake(address, count);
    }
}
