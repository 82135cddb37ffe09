//! Forked children, their ends, and what outlives them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// The status of a process that leaked.
#[cfg(leak_check)]
const LEAKED: i32 = 98;

impl Exit {
    pub(crate) const KILLED: Exit = Exit::Signal(libc::SIGKILL);
}

/// A forked child. It is killed and waited for when the guard goes.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
    ended: Option<Exit>,
}

/// Runs `body` in a child, which ends with status 0 when it returns and 101 when it panics. The caller is
/// single-threaded. Children die with their parent.
pub(crate) fn fork(body: impl FnOnce()) -> Child {
    let _ = std::io::stdout().flush();
    let parent = std::process::id();
    // SAFETY: this process has one thread, so the child's memory is whole.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: plain system calls.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // 0: the parent lives in another PID namespace.
            let now = libc::getppid() as u32;
            if now != parent && now != 0 {
                libc::_exit(99);
            }
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        leave(if outcome.is_ok() { 0 } else { 101 });
    }
    Child { pid, ended: None }
}

/// As [`fork`], but the child is the first process of a PID namespace of its own.
pub(crate) fn fork_into_namespace(body: impl FnOnce()) -> std::io::Result<Child> {
    use std::os::fd::AsRawFd;
    let own = File::open("/proc/self/ns/pid")?;
    // SAFETY: a plain system call; it concerns children only.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let child = fork(body);
    // SAFETY: as above; the descriptor is that of this process's namespace.
    let back = unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWPID) };
    assert_eq!(back, 0, "further children are born at home: {}", std::io::Error::last_os_error());
    Ok(child)
}

/// Ends this process at once, without closing anything. Under the address sanitizer (`make test-sanitizers`) memory that
/// nothing refers to any more makes it end with [`LEAKED`]; the sanitizer itself would look for that in exit handlers only.
pub(crate) fn leave(status: i32) -> ! {
    let _ = std::io::stdout().flush();
    #[cfg(leak_check)]
    let status = {
        unsafe extern "C" {
            safe fn __lsan_do_recoverable_leak_check() -> i32;
        }
        if status == 0 && __lsan_do_recoverable_leak_check() != 0 { LEAKED } else { status }
    };
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// Lets SIGALRM end this process unless it is called again in time; 0 for no limit.
pub(crate) fn watchdog(seconds: u32) {
    // SAFETY: a plain system call.
    unsafe { libc::alarm(seconds) };
}

impl Child {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn signal(&self, signal: i32) {
        assert!(self.ended.is_none(), "the child has ended");
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) -> Exit {
        if self.ended.is_none() {
            self.signal(libc::SIGKILL);
        }
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> Exit {
        match self.wait_with(0) {
            Some(exit) => exit,
            None => unreachable!("waitpid blocks"),
        }
    }

    /// How it ended, if it has.
    pub(crate) fn poll(&mut self) -> Option<Exit> {
        self.wait_with(libc::WNOHANG)
    }

    /// Has it come to stand still since this was asked last?
    pub(crate) fn has_stopped(&self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        // SAFETY: all zeros are a value of this structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WSTOPPED | libc::WNOHANG;
        // SAFETY: the child is ours and has not been waited for; the structure is valid.
        let status = unsafe { libc::waitid(libc::P_PID, self.pid as libc::id_t, &mut info, flags) };
        // SAFETY: filled in by the call, or zeros.
        status == 0 && unsafe { info.si_pid() } == self.pid
    }

    fn wait_with(&mut self, flags: i32) -> Option<Exit> {
        if self.ended.is_some() {
            return self.ended;
        }
        let mut status = 0;
        loop {
            // SAFETY: the child is ours and has not been waited for.
            let pid = unsafe { libc::waitpid(self.pid, &mut status, flags) };
            if pid == 0 {
                return None;
            }
            if pid == self.pid {
                break;
            }
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid: {error}");
        }
        self.ended = Some(if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        });
        self.ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A pipe: one side waits for the other.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: File,
    write: File,
}

impl Pipe {
    pub(crate) fn new() -> Pipe {
        let mut fds = [0; 2];
        // SAFETY: the array has room for both.
        let status = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(status, 0, "pipe: {}", std::io::Error::last_os_error());
        // SAFETY: both descriptors are new.
        unsafe { Pipe { read: File::from_raw_fd(fds[0]), write: File::from_raw_fd(fds[1]) } }
    }

    pub(crate) fn send(&self, byte: u8) {
        (&self.write).write_all(&[byte]).expect("writes to the pipe");
    }

    pub(crate) fn receive(&self) -> u8 {
        let mut byte = [0];
        (&self.read).read_exact(&mut byte).expect("reads from the pipe");
        byte[0]
    }

    /// Waits for a byte, but not for ever.
    pub(crate) fn receive_within(&self, limit: Duration) -> Option<u8> {
        use std::os::fd::AsRawFd;
        let mut fd = libc::pollfd { fd: self.read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, as the count says.
        let ready = unsafe { libc::poll(&mut fd, 1, limit.as_millis() as i32) };
        (ready == 1).then(|| self.receive())
    }
}

/// Words that this process shares with its children; what they write there outlives them.
#[derive(Debug)]
pub(crate) struct Shared {
    words: *mut AtomicU64,
    len: usize,
}

// SAFETY: memory that is only accessed by atomic operations.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(len: usize) -> Shared {
        // SAFETY: a new anonymous mapping.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Shared { words: at.cast(), len }
    }

    pub(crate) fn word(&self, n: usize) -> &AtomicU64 {
        assert!(n < self.len);
        // SAFETY: inside of the mapping, which lives as long as `self`; fresh pages are zeros.
        unsafe { &*self.words.add(n) }
    }

    pub(crate) fn get(&self, n: usize) -> u64 {
        self.word(n).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, n: usize, value: u64) {
        self.word(n).store(value, Ordering::SeqCst);
    }

    pub(crate) fn add(&self, n: usize, delta: u64) -> u64 {
        self.word(n).fetch_add(delta, Ordering::SeqCst)
    }

    pub(crate) fn signed(&self, n: usize) -> &AtomicI64 {
        // SAFETY: both types have the same layout.
        unsafe { &*std::ptr::from_ref(self.word(n)).cast() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length.
        unsafe { libc::munmap(self.words.cast(), self.len * 8) };
    }
}

/// Nanoseconds of a clock that all processes share.
pub(crate) fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
