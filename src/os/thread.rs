//! Which thread runs, by a number that tells the threads of a process apart, and when it ends.
//!
//! It owns no memory of what a thread has done; that is for thread-local storage, whose every use is a call in a shared
//! library. The number takes an instruction where the processor has it at hand.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

/// This thread's number. No other thread of the process has it as long as this one lives. Never 0.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux", not(miri)))]
#[inline(always)]
pub(crate) fn number() -> usize {
    let number;
    // SAFETY: the ABI of the platform has the thread pointer, which is the address of memory of this thread's, in this
    // word. It is read, and stays the same as long as the thread lives.
    unsafe {
        std::arch::asm!("mov {number}, fs:[0]", number = out(reg) number,
            options(nostack, preserves_flags, pure, readonly));
    }
    number
}

/// This thread's number. No other thread of the process has it as long as this one lives. Never 0.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux", not(miri))))]
#[inline(always)]
pub(crate) fn number() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// What is to be done at the end of threads that ask for it, later than all destructors of thread-local variables.
///
/// glibc runs those destructors first, and only once; then those of `pthread_key_create`, round after round as long as these
/// ask for more. A thread that uses the library for the first time in one of the latter has no other end. Other C libraries
/// have only the latter, by which the former are run as well: this may come before them then.
pub(crate) struct LastEnd {
    /// The key and one; 0 as long as there is none. No thread waits here for another one that makes it, which a forked
    /// child may not have.
    key: AtomicU64,
    end: fn(),
}

impl LastEnd {
    /// POSIX promises as many rounds (`_POSIX_THREAD_DESTRUCTOR_ITERATIONS`).
    pub(crate) const ROUNDS: usize = 4;

    pub(crate) const fn new(end: fn()) -> LastEnd {
        LastEnd { key: AtomicU64::new(0), end }
    }

    /// Has `end` called when this thread ends, or in the next round of its end. Where the process has no key left, it is not.
    pub(crate) fn ask(&'static self) {
        let key = self.key().or_else(|| self.make_key());
        set(key, std::ptr::from_ref(self).cast());
    }

    /// Nothing is left to be done.
    pub(crate) fn forget(&self) {
        set(self.key(), std::ptr::null());
    }

    fn key(&self) -> Option<libc::pthread_key_t> {
        key_in(self.key.load(Ordering::Acquire))
    }

    #[cold]
    fn make_key(&self) -> Option<libc::pthread_key_t> {
        let mut key = 0;
        // SAFETY: a valid place, and a function that stays: the shared library is not unloaded (build.rs).
        if unsafe { libc::pthread_key_create(&mut key, Some(come)) } != 0 {
            return None;
        }
        let word = key as u64 + 1;
        match self.key.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(key),
            Err(other) => {
                // SAFETY: it was made above, and nobody else knows it.
                unsafe { libc::pthread_key_delete(key) };
                key_in(other)
            }
        }
    }
}

/// The destructor of all keys.
extern "C" fn come(end: *mut c_void) {
    // SAFETY: `ask` has given it, and it lives as long as the process.
    (unsafe { &*end.cast::<LastEnd>() }.end)();
}

fn key_in(word: u64) -> Option<libc::pthread_key_t> {
    word.checked_sub(1).and_then(|key| key.try_into().ok())
}

/// Anything but NULL has the end called.
fn set(key: Option<libc::pthread_key_t>, value: *const c_void) {
    if let Some(key) = key {
        // SAFETY: it is a key of this process's. Where there is no memory for the value, the end is not called.
        unsafe { libc::pthread_setspecific(key, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::number;
    use std::collections::HashSet;
    use std::sync::Barrier;

    #[test]
    fn threads_that_live_at_once_have_different_numbers_and_keep_them() {
        let all_there = Barrier::new(16);
        let numbers: HashSet<usize> = std::thread::scope(|threads| {
            let see = || {
                let first = number();
                all_there.wait();
                assert_eq!(number(), first);
                first
            };
            let all: Vec<_> = (0..16).map(|_| threads.spawn(see)).collect();
            all.into_iter().map(|thread| thread.join().expect("ends")).collect()
        });
        assert!(numbers.len() == 16 && !numbers.contains(&0), "{numbers:?}");
    }
}
