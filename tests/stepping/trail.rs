//! Single steps of a child, and the bytes of the object after each.

use crate::cases::*;
use crate::child::Opened;
use crate::library::{Library, RDWR};
use crate::model::*;
use crate::ops::*;
use crate::support_processes::{Child, Scratch, Shared, decode, fork, skip};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::time::Duration;

/// A process that waits until another one changes the key of a case, if the case wants one.
pub(crate) fn sleeper(case: &Case, path: &Path, library: Library) -> Option<Child> {
    let spots = case.op.spots();
    let [Spot::Bytes(key)] = &spots[..] else { return None };
    if !case.sleeper {
        return None;
    }
    let shared = Shared::new(1);
    let child = fork(600, || {
        let mut opened = Opened::open(library, path, RDWR);
        opened.run(&Op::Manage);
        opened.wait_for_another_value(key, || shared.set(0, 1));
    });
    shared.wait_for(0, 1);
    // Let it fall asleep.
    std::thread::sleep(Duration::from_millis(10));
    Some(child)
}

/// A child that has been stopped before its operation. Word 0 of `shared`: 1 inside of it, 2 done.
pub(crate) fn start(case: &Case, path: &Path, shared: &Shared, library: Library) -> Option<Child> {
    let child = fork(120, || {
        // SAFETY: asks the parent to trace this process.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
            // SAFETY: ends the process.
            unsafe { libc::_exit(77) };
        }
        let mut opened = Opened::open(library, path, case.flags);
        if !matches!(case.op, Op::Manage) {
            opened.run(&Op::Manage);
        }
        case.warm.iter().for_each(|op| opened.run(op));
        // SAFETY: stops this process.
        unsafe { libc::raise(libc::SIGSTOP) };
        shared.set(0, 1);
        opened.run(&case.op);
        shared.set(0, 2);
    });
    let mut status = 0;
    // SAFETY: it is our child.
    unsafe { libc::waitpid(child.pid, &raw mut status, 0) };
    if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP {
        return Some(child);
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 77, "{}: {status:x}", case.name);
    std::mem::forget(child);
    skip("stepping: ptrace is not permitted here");
    None
}

/// One instruction. False: the child has ended.
pub(crate) fn step(child: &Child, signal: &mut c_int) -> bool {
    let mut status = 0;
    // SAFETY: the child is traced by this thread, and stopped.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_SINGLESTEP, child.pid, 0, *signal as usize), 0);
        libc::waitpid(child.pid, &raw mut status, 0);
    }
    assert!(libc::WIFSTOPPED(status), "the child died: {:?}", decode(status));
    let why = libc::WSTOPSIG(status);
    *signal = if why == libc::SIGTRAP { 0 } else { why };
    true
}

/// Keeps this thread, and the children that it forks meanwhile, on the processor where it is: steps are passed to and
/// fro, and a processor that sleeps takes long to wake.
struct Pinned(libc::cpu_set_t);

impl Pinned {
    fn here() -> Option<Pinned> {
        // SAFETY: the sets are this function's; all zero is an empty one.
        unsafe {
            let mut old = std::mem::zeroed();
            let mut here: libc::cpu_set_t = std::mem::zeroed();
            let (own, size) = (0, size_of::<libc::cpu_set_t>());
            let cpu = libc::sched_getcpu();
            if cpu < 0 || libc::sched_getaffinity(own, size, &raw mut old) != 0 {
                return None;
            }
            libc::CPU_SET(cpu as usize, &mut here);
            (libc::sched_setaffinity(own, size, &raw const here) == 0).then_some(Pinned(old))
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the set was given by `sched_getaffinity`.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }
}

/// Where the child is.
pub(crate) fn instruction_pointer(child: &Child) -> i64 {
    const RIP: usize = 16 * 8;
    // SAFETY: the child is traced by this thread, and stopped.
    unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, child.pid, RIP, 0) }
}

/// Is there a system call at that place?
pub(crate) fn at_system_call(child: &Child, rip: i64) -> bool {
    // SAFETY: the child is traced by this thread, and stopped.
    let code = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child.pid, rip, 0) } as u64;
    // `syscall`, `sysenter`, `int 0x80`.
    matches!(code & 0xffff, 0x050f | 0x340f | 0x80cd)
}

/// The object's bytes, as the child changes them.
pub(crate) struct Eye {
    pub(crate) file: std::fs::File,
    pub(crate) base: *mut c_void,
}

pub(crate) const WINDOW: usize = 64 << 20;

impl Eye {
    pub(crate) fn open(path: &Path) -> Eye {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open(path).expect("opens");
        // SAFETY: a new mapping; what lies beyond the end of the file is not touched.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), WINDOW, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        Eye { file, base }
    }

    pub(crate) fn len(&self) -> usize {
        (self.file.metadata().expect("has a length").len() as usize).min(WINDOW)
    }

    pub(crate) fn is(&self, image: &[u8]) -> bool {
        // SAFETY: the image is not longer than the file; the writer is stopped.
        unsafe { libc::memcmp(self.base, image.as_ptr().cast(), image.len()) == 0 }
    }

    pub(crate) fn take(&self, len: usize) -> Bytes {
        let mut image = vec![0; len];
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(self.base.cast::<u8>(), image.as_mut_ptr(), len) };
        image
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open`.
        unsafe { libc::munmap(self.base, WINDOW) };
    }
}

pub(crate) struct Trail {
    pub(crate) instructions: u64,
    pub(crate) system_calls: u64,
    /// The bytes before the operation, and after each instruction that changed them.
    pub(crate) images: Vec<Bytes>,
    /// The instruction that led to each image.
    pub(crate) at: Vec<u64>,
}

const MOST_IMAGES: usize = 3000;

pub(crate) fn follow(case: &Case, library: Library) -> Option<Trail> {
    let s = Scratch::file(Path::new("/dev/shm"), "step");
    std::fs::write(path_of(&s), &case.template).expect("writes");
    let shared = Shared::new(1);
    let sleeper = sleeper(case, path_of(&s), library);
    let _pinned = Pinned::here();
    let child = start(case, path_of(&s), &shared, library)?;
    let eye = Eye::open(path_of(&s));
    let mut len = eye.len();
    let mut trail = Trail { instructions: 0, system_calls: 0, images: vec![eye.take(len)], at: vec![0] };
    let (mut signal, mut repeated) = (0, 0u64);
    // The code does not change: is there a system call?
    let mut call_at = HashMap::new();
    let mut next = instruction_pointer(&child);
    while shared.get(0) < 2 {
        let inside = shared.get(0) == 1;
        let rip = next;
        let calls = inside && *call_at.entry(rip).or_insert_with(|| at_system_call(&child, rip));
        step(&child, &mut signal);
        next = instruction_pointer(&child);
        if !inside {
            continue;
        }
        trail.instructions += 1;
        if calls {
            trail.system_calls += 1;
            len = eye.len();
        }
        // Every byte of a `rep movsb` is a step of its own; some of them will do.
        if next == rip {
            repeated += 1;
            if repeated % 257 != 5 {
                continue;
            }
        }
        let last = trail.images.last().expect("there is one");
        if last.len() != len || !eye.is(last) {
            trail.images.push(eye.take(len));
            trail.at.push(trail.instructions);
            assert!(trail.images.len() < MOST_IMAGES, "{}: too many images for this test", case.name);
        }
    }
    // SAFETY: the child is traced by this thread, and stopped.
    unsafe { libc::ptrace(libc::PTRACE_CONT, child.pid, 0, 0) };
    child.succeeds();
    if let Some(sleeper) = sleeper {
        sleeper.succeeds();
    }
    Some(trail)
}
