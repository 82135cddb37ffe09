//! Sleeping where threads do not sleep on futexes: naps, each followed by a look.
//!
//! Owns how long the naps are. It makes no futex call and takes no file lock: a record lock can be slept on, but
//! such a sleep has no time-out, and nobody but the lock's holder could end it. It does not know what is looked
//! for.

use crate::os::time::{self, Deadline};
use crate::segment::Segment;
use std::time::Duration;

/// About what the system's timers can do.
const FIRST: Duration = Duration::from_micros(50);
/// Bounds how late a release is noticed; 500 looks a second cost less than a hundredth of a processor.
const LONGEST: Duration = Duration::from_millis(2);
/// One look lasts ten microseconds or so: a lock that its holder takes again at once is free for moments only.
const GLANCES: u32 = 400;

/// After this thread has given way and has given back its locks: leaves these alone until those who wait for them have
/// woken up or looked. If it took its locks again at once, they would find them taken time after time.
pub(crate) fn let_others_look(segment: &Segment) {
    time::sleep(if segment.sleeps_on_futexes() { FIRST } else { LONGEST + LONGEST / 2 });
}

/// The naps of one wait. They grow by a quarter each, so that a wait lasts about a quarter longer than it had to,
/// until the longest nap is the bound.
pub(super) struct Naps {
    next: Duration,
}

impl Naps {
    pub(super) fn new() -> Naps {
        Naps { next: FIRST }
    }

    /// Naps until `come` says that what is waited for has come, or for `limit`. True: it has come.
    pub(super) fn until(&mut self, limit: Duration, mut come: impl FnMut() -> bool) -> bool {
        let end = Deadline::after(Some(limit));
        loop {
            time::sleep(end.clip(self.next));
            self.next = (self.next + self.next / 4).min(LONGEST);
            for _ in 0..GLANCES {
                if come() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if end.passed() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_nap_ends_at_its_limit_or_when_it_has_come() {
        let start = Instant::now();
        let mut looks = 0;
        assert!(!Naps::new().until(Duration::from_millis(20), || {
            looks += 1;
            false
        }));
        assert!(start.elapsed() >= Duration::from_millis(20));
        // Naps of 50 us all along would be 400.
        assert!((GLANCES..=30 * GLANCES).contains(&looks), "{looks} looks");

        let mut naps = Naps::new();
        assert!(naps.until(Duration::from_secs(60), || true));
        assert!(start.elapsed() < Duration::from_secs(30));
        for _ in 0..100 {
            naps.until(Duration::ZERO, || false);
        }
        assert_eq!(naps.next, LONGEST);
    }
}
