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

/// Asks for a wake-up when the lock's version becomes another one than that of `seen`, a word read from there that was
/// not WRITING: sets the bit WATCH. Gives the word that is there then; none if it has changed.
pub(crate) fn ask(segment: &Segment, at: Offset, seen: LockWord) -> Option<LockWord> {
    debug_assert!(!seen.is_writing());
    let asked = seen.with(WATCH);
    (seen.is_watched() || segment.compare_exchange(at, seen.0, asked.0).is_ok()).then_some(asked)
}

/// Sleeps while the lock's word is `expected`, which [`ask`] gave, for `most` at most, and sometimes shorter. If nobody
/// was asked, somebody else's change wakes nobody, but for the sake of others.
///
/// No change is missed. The word went from `seen` to `seen` with WATCH in one step, so the version was still the
/// one seen. Whoever advances it clears WATCH in the same step and wakes all afterwards. If that was before the
/// kernel compares the word, it finds another one, and there is no sleep; else the sleeper is found by the
/// wake-up.
pub(crate) fn sleep(segment: &Segment, at: Offset, expected: LockWord, most: Duration) -> Wake {
    match segment.futex_address(at) {
        Some(address) => futex::wait(address, expected.futex_value(), most),
        // Nobody wakes anybody under this locking method.
        None if time::nap(most) => Wake::Interrupted,
        None => Wake::TimedOut,
    }
}
