//! Clocks and deadlines.
//!
//! It owns which clock is asked for what. It refuses the time of day: that one jumps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Clock for `coarse_seconds`: it is compared between processes of one machine and wants no precision.
#[cfg(target_os = "linux")]
const COARSE: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const COARSE: ClockId = ClockId::CLOCK_MONOTONIC;

/// Nanoseconds of a clock that never goes back; its zero lies anywhere.
pub(crate) fn monotonic_ns() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole seconds of such a clock, as cheap as the system has it. All processes of one machine see the
/// same count, unless time namespaces part them.
pub(crate) fn coarse_seconds() -> u64 {
    read(COARSE).as_secs()
}

fn read(clock: ClockId) -> Duration {
    // These clocks exist wherever the crate runs, so the call cannot fail; a stopped clock would still
    // be no danger, since nothing but the length of waits depends on it.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// Sleeps for at least this long, signals or not.
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Sleeps for this long, or until a signal handler has run. Tells whether one has.
pub(crate) fn nap(duration: Duration) -> bool {
    let request = nix::sys::time::TimeSpec::from_duration(duration);
    // SAFETY: the request outlives the call, and nobody asks for what is left of it.
    let outcome = unsafe { libc::nanosleep(request.as_ref(), std::ptr::null_mut()) };
    nix::errno::Errno::result(outcome) == Err(nix::errno::Errno::EINTR)
}

/// A point in time that ends a wait, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    at_ns: Option<u64>,
}

impl Deadline {
    /// The deadline that never comes.
    pub(crate) const NEVER: Deadline = Deadline { at_ns: None };

    /// The deadline that lies this far ahead; without a duration, or beyond the clock's end, never.
    pub(crate) fn after(duration: Option<Duration>) -> Deadline {
        let at_ns = duration
            .and_then(|duration| u64::try_from(duration.as_nanos()).ok())
            .and_then(|ns| monotonic_ns().checked_add(ns));
        Deadline { at_ns }
    }

    /// Time left; zero when it has passed, `None` when it never comes.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.at_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(monotonic_ns())))
    }

    /// Whichever of the two comes first.
    pub(crate) fn earlier(self, other: Deadline) -> Deadline {
        match (self.at_ns, other.at_ns) {
            (Some(one), Some(two)) => Deadline { at_ns: Some(one.min(two)) },
            (one, two) => Deadline { at_ns: one.or(two) },
        }
    }

    /// Whether it has passed.
    pub(crate) fn passed(&self) -> bool {
        self.at_ns.is_some_and(|at_ns| monotonic_ns() >= at_ns)
    }

    /// The time for one sleep: as wished for, but not beyond the deadline.
    pub(crate) fn clip(&self, wish: Duration) -> Duration {
        self.remaining().map_or(wish, |remaining| wish.min(remaining))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_pass_or_never_do() {
        assert!(Deadline::after(Some(Duration::ZERO)).passed());
        assert_eq!(Deadline::after(None), Deadline::NEVER);
        assert_eq!(Deadline::after(Some(Duration::MAX)), Deadline::NEVER);
        assert_eq!(Deadline::NEVER.remaining(), None);
        assert!(!Deadline::NEVER.passed());
        let (near, far) = (Deadline { at_ns: Some(1) }, Deadline { at_ns: Some(2) });
        assert_eq!(far.earlier(near), near);
        assert_eq!(near.earlier(Deadline::NEVER), near);
        assert_eq!(Deadline::NEVER.earlier(far), far);

        let soon = Deadline::after(Some(Duration::from_millis(5)));
        assert!(soon.remaining().expect("finite") <= Duration::from_millis(5));
        assert!(soon.clip(Duration::from_secs(9)) <= Duration::from_millis(5));
        sleep(Duration::from_millis(6));
        assert!(soon.passed());
        assert_eq!(soon.remaining(), Some(Duration::ZERO));
    }

    #[test]
    fn clocks_run() {
        let before = monotonic_ns();
        sleep(Duration::from_millis(1));
        assert!(monotonic_ns() >= before + 1_000_000);
        assert!(coarse_seconds() > 0);
    }
}
