//! Taking turns between the threads of one process, in a way that survives a fork.
//!
//! A mutex that another thread holds while the process forks is held for ever in the child. A turn belongs to
//! a process: the child sees that the holder was its parent's, and takes it. What a turn protects must
//! therefore be right at every moment, or be done again from the start.

use super::process::fork_epoch;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

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

/// A value that the threads of a process read and replace by turns. It is only ever replaced as a whole, by one store,
/// so that a child finds a whole one at whatever moment the process forks; at worst the child loses some memory.
pub(crate) struct Replaceable<T: Send + Sync> {
    turn: Turn,
    value: AtomicPtr<T>,
}

impl<T: Send + Sync> Replaceable<T> {
    pub(crate) fn new(value: T) -> Replaceable<T> {
        Replaceable { turn: Turn::new(), value: AtomicPtr::new(Box::into_raw(Box::new(value))) }
    }

    /// Shows the value. It is this thread's turn meanwhile.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        let _turn = self.turn.take();
        // SAFETY: the pointer is that of a box, and only whoever has the turn takes it away.
        read(unsafe { &*self.value.load(Ordering::Acquire) })
    }

    /// Puts what `make` makes of the value in its place. Gives the old one.
    pub(crate) fn replace(&self, make: impl FnOnce(&T) -> T) -> T {
        let _turn = self.turn.take();
        let old = self.value.load(Ordering::Acquire);
        // SAFETY: as in `read`.
        let new = make(unsafe { &*old });
        self.value.store(Box::into_raw(Box::new(new)), Ordering::Release);
        // SAFETY: it is the pointer of a box, which was just taken away: nobody else has it.
        *unsafe { Box::from_raw(old) }
    }
}

impl<T: Send + Sync> Drop for Replaceable<T> {
    fn drop(&mut self) {
        // SAFETY: it is the pointer of a box, and nobody uses the value any more.
        drop(unsafe { Box::from_raw(*self.value.get_mut()) });
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

    #[test]
    fn what_is_replaced_is_lost_by_nobody() {
        let numbers = Replaceable::new(vec![0]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let old = numbers.replace(|all| [all.as_slice(), &[all.len()]].concat());
                        assert!(numbers.read(Vec::len) > old.len());
                    }
                });
            }
        });
        assert!(numbers.read(|all| all.iter().copied().eq(0..2001)));
    }
}
