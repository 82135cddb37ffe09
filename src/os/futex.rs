//! Sleeping on a word of shared memory, and waking.
//!
//! It owns the two futex calls in their shared form, which works between processes. It refuses to read
//! or write the word itself, and every sleep without an end. It knows whether the system has these calls.

use std::time::Duration;

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody woke this thread, or it seems so: look again.
    Woken,
    /// The word was not the expected one any more; there was no sleep.
    Changed,
    /// Nobody came in time.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// The kernel's own layout for this call, which is not that of `libc::timespec` where 32-bit systems
/// have 64-bit times.
#[cfg(target_os = "linux")]
#[repr(C)]
struct KernelTimespec {
    seconds: libc::c_long,
    nanoseconds: libc::c_long,
}

/// Sleeps while the word at `addr` holds `expected` (as this machine reads it), at most for `timeout`.
///
/// The address is only passed to the kernel, which checks it: a bad one is no worse than a sleep.
#[cfg(target_os = "linux")]
pub(crate) fn wait(addr: *const u32, expected: u32, timeout: Duration) -> Wake {
    use nix::errno::Errno;

    let relative = KernelTimespec {
        seconds: libc::c_long::try_from(timeout.as_secs()).unwrap_or(libc::c_long::MAX),
        nanoseconds: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the kernel reads the word by its own checked access and `relative` outlives the call; a
    // word that is not mapped is answered with EFAULT.
    let outcome = unsafe {
        libc::syscall(libc::SYS_futex, addr, libc::FUTEX_WAIT, expected, &raw const relative, 0usize, 0u32)
    };
    match Errno::result(outcome) {
        Ok(_) => Wake::Woken,
        Err(Errno::EAGAIN) => Wake::Changed,
        Err(Errno::ETIMEDOUT) => Wake::TimedOut,
        Err(Errno::EINTR) => Wake::Interrupted,
        // No futex here (a sandbox), or no such word (a peer cut the file): sleeping keeps the caller
        // from spinning, and its next look at the word tells the rest.
        Err(_) => sleep_instead(timeout),
    }
}

/// Wakes at most `n` threads that sleep on the word; says how many there were.
#[cfg(target_os = "linux")]
pub(crate) fn wake(addr: *const u32, n: i32) -> u32 {
    // SAFETY: the kernel uses the address as a key only and accesses no memory of this process.
    let woken = unsafe { libc::syscall(libc::SYS_futex, addr, libc::FUTEX_WAKE, n) };
    u32::try_from(woken).unwrap_or(0)
}

/// Can this process sleep and wake by futexes? Sandboxes may deny the call. It is tried once.
#[cfg(target_os = "linux")]
pub(crate) fn works() -> bool {
    use nix::errno::Errno;
    use std::sync::OnceLock;

    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let word = 0u32;
        // SAFETY: the kernel reads the word, which outlives the calls; the first does not sleep, because the word is
        // another one, and the second finds nobody to wake.
        let [slept, woke] = unsafe {
            let at = &raw const word;
            [
                libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT, 1u32, 0usize, 0usize, 0u32),
                libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, 1),
            ]
            .map(Errno::result)
        };
        slept == Err(Errno::EAGAIN) && woke == Ok(0)
    })
}

/// There are none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn works() -> bool {
    false
}

/// Sleeps a little: without futexes, waiting is polling.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wait(_addr: *const u32, _expected: u32, timeout: Duration) -> Wake {
    sleep_instead(timeout)
}

/// Nobody can be woken without futexes; the sleepers look by themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wake(_addr: *const u32, _n: i32) -> u32 {
    0
}

#[cold]
fn sleep_instead(timeout: Duration) -> Wake {
    /// Long enough to spare the processor, short enough to notice a change soon.
    const STEP: Duration = Duration::from_millis(1);

    if super::time::nap(timeout.min(STEP)) {
        return Wake::Interrupted;
    }
    if timeout <= STEP { Wake::TimedOut } else { Wake::Woken }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn waits_end_as_they_should() {
        let word = AtomicU32::new(7);
        assert_eq!(wait(word.as_ptr(), 8, Duration::from_secs(9)), Wake::Changed);
        assert_eq!(wait(word.as_ptr(), 7, Duration::from_millis(2)), Wake::TimedOut);
        assert_eq!(wake(word.as_ptr(), 1), 0);
        assert!(works());
        // A bad address is answered, not followed.
        assert_ne!(wait(std::ptr::without_provenance(8), 7, Duration::from_millis(1)), Wake::Changed);
    }

    #[test]
    fn a_sleeper_is_woken_through_another_mapping() {
        let files = crate::os::shm::Files::anonymous().expect("memfd");
        crate::os::space::allocate(files.fd(), 0, 4096).expect("fits");
        let map = || crate::os::map::Mapping::reserve(files.fd(), 4096, 4096, true).expect("mapping");
        let (here, there) = (map(), map());
        assert_ne!(here.base(), there.base());
        // SAFETY: both mappings are at least one page, aligned, and outlive the references.
        let (mine, yours) =
            unsafe { (AtomicU32::from_ptr(here.base().cast()), AtomicU32::from_ptr(there.base().cast())) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while mine.load(Ordering::Acquire) == 0 {
                    wait(mine.as_ptr(), 0, Duration::from_secs(20));
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            yours.store(1, Ordering::Release);
            wake(yours.as_ptr(), i32::MAX);
        });
    }
}
