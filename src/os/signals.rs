//! Sleeping so that a signal handler which runs meanwhile is noticed.
//!
//! Owns the calling thread's signal mask for the length of a wait: between the sleeps signals stay pending, and a handler
//! runs in a sleep, which ends by it, or not before the wait has been told. It never changes what a signal does.

use super::time;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What answers a mistake of the thread itself. Blocked, it would end the process without its handler.
const OF_THE_THREAD: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

/// Signals of the calling thread, held back as long as this lives.
pub(crate) struct HeldBack {
    /// The mask from before.
    before: libc::sigset_t,
}

impl HeldBack {
    pub(crate) fn new() -> HeldBack {
        HeldBack { before: hold_back() }
    }

    /// Sleeps for this long, or until a signal handler has run: also for a signal that came before. Tells whether one has.
    pub(crate) fn nap(&self, duration: Duration) -> bool {
        let request = nix::sys::time::TimeSpec::from_duration(duration);
        let none = std::ptr::null_mut();
        // SAFETY: time and mask outlive the call, and no descriptors are looked at.
        let outcome = unsafe { libc::pselect(0, none, none, none, request.as_ref(), &raw const self.before) };
        match nix::errno::Errno::result(outcome) {
            Ok(_) => false,
            Err(nix::errno::Errno::EINTR) => true,
            // A sandbox that denies this call: what comes just before the sleep is not noticed then.
            Err(_) => self.in_between(|| time::nap(duration)),
        }
    }

    /// Runs a sleep that has no mask of its own with the mask from before. `None`: a signal had come before, and its
    /// handler has run instead. One that comes in the very moment before the sleep or after it is handled, and not noticed.
    pub(crate) fn around<R>(&self, sleep: impl FnOnce() -> R) -> Option<R> {
        if self.nap(Duration::ZERO) {
            return None;
        }
        Some(self.in_between(sleep))
    }

    fn in_between<R>(&self, sleep: impl FnOnce() -> R) -> R {
        self.give_back();
        let result = sleep();
        hold_back();
        result
    }

    fn give_back(&self) {
        // SAFETY: the mask is a valid one. The call fails for an unknown way of changing it only.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Holds back the signals of this thread, and gives its mask from before.
fn hold_back() -> libc::sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both are places for a mask, of which the first call fills the one and the last the other; it fails for an
    // unknown way of changing the mask only.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for signal in OF_THE_THREAD {
            libc::sigdelset(all.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    static RUNS: AtomicU32 = AtomicU32::new(0);

    extern "C" fn note(_: libc::c_int) {
        RUNS.fetch_add(1, Ordering::SeqCst);
    }

    fn raise(signal: libc::c_int) {
        // SAFETY: a signal for this thread.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
    }

    #[test]
    fn a_signal_that_comes_between_sleeps_is_noticed_by_the_next_one() {
        // SAFETY: the handler only adds to a static.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut()), 0);
        }
        let held_back = HeldBack::new();
        raise(libc::SIGURG);
        assert_eq!(RUNS.load(Ordering::SeqCst), 0);
        assert!(held_back.nap(Duration::from_secs(60)));
        assert_eq!(RUNS.load(Ordering::SeqCst), 1);
        raise(libc::SIGURG);
        assert_eq!(held_back.around(|| unreachable!("there is no sleep")), None::<()>);
        assert_eq!(RUNS.load(Ordering::SeqCst), 2);
        let begin = Instant::now();
        // Nobody handles this one, and it does nothing.
        raise(libc::SIGCHLD);
        assert!(!held_back.nap(Duration::from_millis(5)));
        assert!(begin.elapsed() >= Duration::from_millis(5));
        assert_eq!(held_back.around(|| raise(libc::SIGURG)), Some(()));
        assert_eq!(RUNS.load(Ordering::SeqCst), 3);
        drop(held_back);
        raise(libc::SIGURG);
        assert_eq!(RUNS.load(Ordering::SeqCst), 4);
    }
}
