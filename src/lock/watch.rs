//! Sleeping until what a lock covers has changed: without the lock, without a slot, for any number of threads.
//!
//! Owns the bit WATCH of lock words: who is about to sleep sets it, whoever advances the version takes it away
//! and wakes all. It does not know what the lock covers, nor which of its versions the sleeper has seen before.

use crate::format::Offset;
use crate::format::lock_word::{LockWord, WATCH};
use crate::os::futex::{self, Wake};
use crate::os::time;
use crate::segment::Segment;
use std::time::Duration;

/// Sleeps until the lock's version is another one than that of `seen`, for `most` at most, and sometimes
/// shorter. `seen` is a word read from there that was not WRITING. If `ask`, the bit WATCH is set, a store to the
/// object; without it somebody else's change wakes nobody, but for the sake of others.
///
/// No change is missed. The word goes from `seen` to `seen` with WATCH in one step, so the version is still the
/// one seen. Whoever advances it clears WATCH in the same step and wakes all afterwards. If that was before the
/// kernel compares the word, it finds another one, and there is no sleep; else the sleeper is found by the
/// wake-up.
pub(crate) fn sleep(segment: &Segment, at: Offset, seen: LockWord, ask: bool, most: Duration) -> Wake {
    debug_assert!(!seen.is_writing());
    let mut expected = seen;
    if ask && !seen.is_watched() {
        expected = seen.with(WATCH);
        if segment.compare_exchange(at, seen.0, expected.0).is_err() {
            return Wake::Changed;
        }
    }
    match segment.futex_address(at) {
        Some(address) => futex::wait(address, expected.futex_value(), most),
        // Nobody wakes anybody under this locking method.
        None if time::nap(most) => Wake::Interrupted,
        None => Wake::TimedOut,
    }
}
