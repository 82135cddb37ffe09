//! Taking turns between the threads of one process, in a way that survives a fork.
//!
//! A mutex that another thread holds while the process forks is held for ever in the child. A turn belongs to
//! a process: the child sees that the holder was its parent's, and takes it. What a turn protects must
//! therefore be right at every moment, or be done again from the start.

use super::process::fork_epoch;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose turn it is: the fork epoch of the process whose thread has it, or 0.
pub(crate) struct Turn(AtomicU64);

/// The turn, until it is dropped.
pub(crate) struct HeldTurn<'a>(&'a Turn);

impl Turn {
    pub(crate) const fn new() -> Turn {
        Turn(AtomicU64::new(0))
    }

    /// Waits for the turn. Meant for things that take microseconds.
    pub(crate) fn take(&self) -> HeldTurn<'_> {
        let me = fork_epoch();
        loop {
            let holder = self.0.load(Ordering::Relaxed);
            if holder != me
                && self.0.compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return HeldTurn(self);
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for HeldTurn<'_> {
    fn drop(&mut self) {
        // A child that was forked while this thread had the turn may have taken it meanwhile.
        let _ = self.0.0.compare_exchange(fork_epoch(), 0, Ordering::Release, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_at_a_time() {
        static TURN: Turn = Turn::new();
        static SUM: AtomicU64 = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let _turn = TURN.take();
                        let sum = SUM.load(Ordering::Relaxed);
                        SUM.store(sum + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(SUM.load(Ordering::Relaxed), 40_000);
    }
}
