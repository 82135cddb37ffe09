//! Sleeping until what a lock covers has changed: without the lock, without a slot, for any number of threads.
//!
//! Owns the bit WATCH of lock words: who is about to sleep sets it, whoever advances the version takes it away
//! and wakes all. It does not know what the lock covers, nor which of its versions the sleeper has seen before.

use crate::format::Offset;
use crate::format::lock_word::{LockWord, WATCH};
use crate::os::futex::{self, Wake};
use crate::os::signals::HeldBack;
use crate::segment::Segment;
use std::time::Duration;

/// Asks for a wake-up when the lock's version becomes another one than that of `seen`, a word read from there that was
/// not WRITING: sets the bit WATCH. Gives the word that is there then; none if it has changed.
pub(crate) fn ask(segment: &Segment, at: Offset, seen: LockWord) -> Option<LockWord> {
    debug_assert!(!seen.is_writing());
    let asked = seen.with(WATCH);
    (seen.is_watched() || segment.compare_exchange(at, seen.0, asked.0).is_ok()).then_some(asked)
}

/// Sleeps while the lock's word is `expected`, which [`ask`] gave, for `most` at most, and sometimes shorter.
///
/// No change is missed. The word went from `seen` to `seen` with WATCH in one step, so the version was still the
/// one seen. Whoever advances it clears WATCH in the same step and wakes all afterwards. If that was before the
/// kernel compares the word, it finds another one, and there is no sleep; else the sleeper is found by the
/// wake-up.
pub(crate) fn sleep(
    segment: &Segment,
    at: Offset,
    expected: LockWord,
    most: Duration,
    signals: &HeldBack,
) -> Wake {
    match segment.futex_address(at) {
        Some(address) => {
            signals.around(|| futex::wait(address, expected.futex_value(), most)).unwrap_or(Wake::Interrupted)
        }
        // Nobody wakes anybody under this locking method.
        None if signals.nap(most) => Wake::Interrupted,
        None => Wake::TimedOut,
    }
}
