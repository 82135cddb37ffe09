//! Who runs: the process, its namespace, the boot of the machine, and whether a fork has happened.
//!
//! It owns the fork epoch and the source of randomness. It refuses to take a PID for an identity: a
//! PID only ever proves that nobody has it, and only inside of one namespace.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// This process's number, as processes of its own namespace see it.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// Which namespace this process's number belongs to; 0 if that cannot be known.
pub(crate) fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// Whether a process is dead for certain: its number is of our namespace and nobody has it. A false
/// answer means nothing, since numbers are used again.
pub(crate) fn is_dead(pid: u32, namespace: u64) -> bool {
    use nix::errno::Errno;
    use nix::unistd::Pid;

    // Numbers from shared memory may be anything; 0 and negative ones would address groups.
    let Ok(number) = i32::try_from(pid) else { return false };
    if number == 0 || namespace == 0 || namespace != pid_namespace() {
        return false;
    }
    nix::sys::signal::kill(Pid::from_raw(number), None) == Err(Errno::ESRCH)
}

/// Identity of the machine's current boot; all zero if the system does not tell. A want of descriptors or memory is
/// another matter: it passes, and an object that was marked with zeros meanwhile would be trusted after the next boot.
pub(crate) fn boot_id() -> Result<[u8; 16]> {
    use std::io::ErrorKind;

    static ID: OnceLock<[u8; 16]> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(*id);
    }
    let id = match std::fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(text) => parse_uuid(&text).unwrap_or_default(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => [0; 16],
        Err(error) => return Err(Error::system("open", error.raw_os_error().unwrap_or(libc::EIO))),
    };
    Ok(*ID.get_or_init(|| id))
}

fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut digits = text.trim_ascii().iter().filter(|&&byte| byte != b'-');
    let mut id = [0; 16];
    for byte in &mut id {
        let mut digit = || digits.next().and_then(|&digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    digits.next().is_none().then_some(id)
}

/// Fills the buffer with random bytes from the kernel.
pub(crate) fn random_bytes(buffer: &mut [u8]) -> Result<()> {
    #[cfg(target_os = "linux")]
    if fill_by_getrandom(buffer) {
        return Ok(());
    }
    // Old kernels and sandboxes: the device gives the same bytes.
    use std::io::Read;
    std::fs::File::open("/dev/urandom")
        .and_then(|mut device| device.read_exact(buffer))
        .map_err(|error| Error::system("getrandom", error.raw_os_error().unwrap_or(libc::EIO)))
}

#[cfg(target_os = "linux")]
fn fill_by_getrandom(buffer: &mut [u8]) -> bool {
    use nix::errno::Errno;

    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        // SAFETY: the kernel writes at most `rest.len()` bytes to `rest`.
        let outcome = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match Errno::result(outcome) {
            Ok(count) => filled += usize::try_from(count).unwrap_or(0),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Ends this process as SIGKILL does, at this very instruction: for tests of dying.
#[cfg(any(test, feature = "inject"))]
pub(crate) fn kill_self() -> ! {
    // `raise` would do for this thread; the signal ends the whole process in any case.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}

/// Lets this process stand still until somebody continues it.
#[cfg(feature = "inject")]
pub(crate) fn stop_self() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}

/// `EPOCH` points here before the first question.
static UNSET: AtomicU64 = AtomicU64::new(0);
/// `EPOCH` points here where the system has no page that a fork wipes. The word stays 0, so that every
/// question takes the slow path.
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// The word with this process's epoch: in a page that the kernel gives to a forked child as zeros.
/// Written once, from `UNSET` to one of the others, and never again, also not by children.
static EPOCH: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const UNSET).cast_mut());
/// The last epoch given out. Ordinary memory: a child begins with its parent's count and so never
/// chooses an epoch that an ancestor had before the fork.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A number that tells this process from those it was forked from: what a process learnt here before a
/// fork, its child never learns. Never 0. One load of a word, in the usual case.
#[inline]
pub(crate) fn fork_epoch() -> u64 {
    // Acquire pairs with the Release in `provide_page`: the page is there before its address is.
    let word = EPOCH.load(Ordering::Acquire);
    // SAFETY: the pointer is that of a static, or of a page that is never unmapped.
    let epoch = unsafe { (*word).load(Ordering::Relaxed) };
    if epoch != 0 { epoch } else { new_epoch() }
}

/// The process that asked for it: neither its parent nor its child.
pub(crate) struct Era {
    /// Where its epoch is as long as it is this process.
    word: &'static AtomicU64,
    epoch: u64,
}

impl Era {
    /// This process.
    pub(crate) fn here() -> Era {
        let epoch = fork_epoch();
        // SAFETY: as in `fork_epoch`, which has been there.
        Era { word: unsafe { &*EPOCH.load(Ordering::Acquire) }, epoch }
    }

    /// Is this that process?
    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        self.word.load(Ordering::Relaxed) == self.epoch || self.is_here_all_the_same()
    }

    /// The word says nothing in a child, and where the system has no such page.
    #[cold]
    #[inline(never)]
    fn is_here_all_the_same(&self) -> bool {
        fork_epoch() == self.epoch
    }
}

/// The first question in this process image. No step waits for another thread: at the moment of a fork
/// the others may be anywhere in here, and they do not exist in the child.
#[cold]
fn new_epoch() -> u64 {
    let word = provide_page();
    if std::ptr::eq(word, &REFUSED) {
        return (1 << 63) | u64::from(pid());
    }
    // The number is taken before it is published. A fork between the two leaves a child whose count is
    // already beyond it.
    let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => fresh,
        Err(epoch) => epoch,
    }
}

/// The word for the epoch; all threads agree on the one that was published first.
fn provide_page() -> &'static AtomicU64 {
    let mut current = EPOCH.load(Ordering::Acquire);
    if std::ptr::eq(current, &UNSET) {
        let page = map_wiped_page();
        let offer = page.unwrap_or((&raw const REFUSED).cast_mut());
        match EPOCH.compare_exchange(current, offer, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => current = offer,
            Err(winner) => {
                current = winner;
                if let Some(page) = page {
                    unmap_page(page);
                }
            }
        }
    }
    // SAFETY: what is published is a static or a page that is never unmapped, and holds an AtomicU64.
    unsafe { &*current }
}

/// A fresh page of zeros that a forked child gets as zeros again.
#[cfg(target_os = "linux")]
fn map_wiped_page() -> Option<*mut AtomicU64> {
    let length = super::map::page_size();
    // SAFETY: a new private mapping at an address of the kernel's choice disturbs nothing.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range is the mapping just made.
    if unsafe { libc::madvise(page, length, libc::MADV_WIPEONFORK) } != 0 {
        unmap_page(page.cast());
        return None;
    }
    Some(page.cast())
}

#[cfg(not(target_os = "linux"))]
fn map_wiped_page() -> Option<*mut AtomicU64> {
    None
}

/// Unmaps a page that was never published.
fn unmap_page(page: *mut AtomicU64) {
    // SAFETY: the caller made this mapping of one page, and nobody else has its address.
    unsafe { libc::munmap(page.cast(), super::map::page_size()) };
}

/// Held by tests that fork and by tests that would notice a copy of their descriptors in a child.
#[cfg(test)]
pub(crate) static FORKING: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `child` in a forked process and returns its exit code. The child may only do what a signal
    /// handler may.
    fn forked(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child calls nothing that needs locks of the other threads, and ends by `_exit`.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                libc::_exit(child());
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
        }
    }

    #[test]
    fn a_child_and_its_child_have_new_epochs() {
        let _guard = FORKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mine = fork_epoch();
        assert_ne!(mine, 0);
        assert_eq!(mine, fork_epoch());
        let era = Era::here();
        assert!(era.is_here());
        let code = forked(|| {
            if era.is_here() {
                return 2;
            }
            let child = fork_epoch();
            if child == mine || child != fork_epoch() || era.is_here() || !Era::here().is_here() {
                return 1;
            }
            10 + forked(|| i32::from(fork_epoch() == child || fork_epoch() == mine))
        });
        assert_eq!(code, 10);
        assert!(era.is_here());
        assert_eq!(mine, fork_epoch());
    }

    #[test]
    fn racing_threads_agree() {
        let epochs: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(fork_epoch)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(epochs.iter().all(|&epoch| epoch == epochs[0] && epoch != 0));
    }

    #[test]
    fn the_dead_are_dead_and_the_living_are_not() {
        let _guard = FORKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let namespace = pid_namespace();
        assert!(!is_dead(pid(), namespace));
        for odd in [0, u32::MAX, i32::MIN as u32] {
            assert!(!is_dead(odd, namespace));
        }
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        let number = child.id();
        child.wait().expect("wait");
        assert!(!is_dead(number, 0) && !is_dead(number, namespace + 1));
        if namespace != 0 {
            assert!(is_dead(number, namespace));
        }
        assert_eq!(forked(|| kill_self()), -libc::SIGKILL);
    }

    #[test]
    fn randomness_and_boot() {
        let (mut one, mut two) = ([0; 300], [0; 300]);
        random_bytes(&mut one).expect("random");
        random_bytes(&mut two).expect("random");
        assert_ne!(one, two);
        random_bytes(&mut []).expect("nothing");
        assert_eq!(boot_id(), boot_id());
        assert_eq!(
            parse_uuid(b"00010203-0405-0607-0809-0a0b0c0d0eff\n").map(|id| (id[1], id[15])),
            Some((1, 255))
        );
        assert_eq!(parse_uuid(b"0001"), None);
        assert_eq!(parse_uuid(&[b'a'; 33]), None);
    }
}
