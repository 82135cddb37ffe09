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
use std::rc::Rc;
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

/// One instruction.
pub(crate) fn step(child: &Child, signal: &mut c_int) {
    advance(child, libc::PTRACE_SINGLESTEP, signal);
}

fn advance(child: &Child, how: libc::c_uint, signal: &mut c_int) {
    let mut status = 0;
    // SAFETY: the child is traced by this thread, and stopped.
    unsafe {
        assert_eq!(libc::ptrace(how, child.pid, 0, *signal as usize), 0);
        libc::waitpid(child.pid, &raw mut status, 0);
    }
    assert!(libc::WIFSTOPPED(status), "the child died: {:?}", decode(status));
    let why = libc::WSTOPSIG(status);
    *signal = if why == libc::SIGTRAP { 0 } else { why };
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

/// What an instruction may do to the object.
#[derive(Clone, Copy, PartialEq)]
enum Code {
    SystemCall,
    MayStore,
    /// It surely stores nothing, but to the stack.
    Plain,
}

fn code_at(child: &Child, rip: i64) -> Code {
    // SAFETY: the child is traced by this thread, and stopped.
    let code = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child.pid, rip, 0) }.to_le_bytes();
    // `syscall`, `sysenter`, `int 0x80`.
    if matches!(code[..2], [0x0f, 0x05] | [0x0f, 0x34] | [0xcd, 0x80]) {
        return Code::SystemCall;
    }
    let opcode = if code[0] & 0xf0 == 0x40 { &code[1..] } else { &code[..] };
    let to_register = |modrm: u8| modrm >> 6 == 3;
    let plain = match *opcode {
        // Jumps, calls, returns; push and pop of registers; loads of constants.
        [0x70..=0x7f | 0xeb | 0xe9 | 0xe8 | 0xc3 | 0x50..=0x5f | 0xb0..=0xbf, ..] => true,
        // To a register: mov, lea, add, or, and, sub, xor. Comparisons.
        [0x8b | 0x8d | 0x03 | 0x0b | 0x23 | 0x2b | 0x33 | 0x38..=0x3d | 0x84 | 0x85 | 0xa8 | 0xa9, ..] => {
            true
        }
        // The same the other way round, and with constants and shifts.
        [0x88 | 0x89 | 0x01 | 0x09 | 0x21 | 0x29 | 0x31 | 0x81 | 0x83 | 0xc1 | 0xd1 | 0xd3, modrm, ..] => {
            to_register(modrm)
        }
        // Jumps, cmov; movzx, movsx, imul, bt, nop.
        [0x0f, 0x80..=0x8f | 0x40..=0x4f | 0xb6 | 0xb7 | 0xbe | 0xbf | 0xaf | 0xa3 | 0x1f, ..] => true,
        _ => false,
    };
    if plain { Code::Plain } else { Code::MayStore }
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

/// An object's bytes at some moment. Pages that are as they were one moment before are kept once: a process with less
/// memory forks faster.
pub(crate) struct Image(Vec<Rc<[u8]>>);

impl Image {
    const PAGE: usize = 4096;

    fn new(bytes: &[u8]) -> Image {
        Image(bytes.chunks(Image::PAGE).map(Rc::from).collect())
    }

    /// These bytes, which come after this image.
    fn then(&self, bytes: &[u8]) -> Image {
        let same = |i: usize, page: &[u8]| self.0.get(i).filter(|old| old[..] == *page).cloned();
        let pages = bytes.chunks(Image::PAGE).enumerate();
        Image(pages.map(|(i, page)| same(i, page).unwrap_or_else(|| Rc::from(page))).collect())
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.0.concat()
    }
}

pub(crate) struct Trail {
    pub(crate) instructions: u64,
    pub(crate) system_calls: u64,
    /// The bytes before the operation, and after each instruction that changed them.
    pub(crate) images: Vec<Image>,
    /// The instruction that led to each image.
    pub(crate) at: Vec<u64>,
}

const MOST_IMAGES: usize = 3000;

/// A child that is followed.
struct Followed {
    child: Child,
    sleeper: Option<Child>,
    shared: Shared,
    eye: Eye,
    _scratch: Scratch,
    _pinned: Option<Pinned>,
}

impl Followed {
    fn start(case: &Case, library: Library) -> Option<Followed> {
        let s = Scratch::file(Path::new("/dev/shm"), "step");
        std::fs::write(path_of(&s), &case.template).expect("writes");
        let shared = Shared::new(1);
        let sleeper = sleeper(case, path_of(&s), library);
        let pinned = Pinned::here();
        let child = start(case, path_of(&s), &shared, library)?;
        let eye = Eye::open(path_of(&s));
        Some(Followed { child, sleeper, shared, eye, _scratch: s, _pinned: pinned })
    }

    fn is_done(&self) -> bool {
        self.shared.get(0) == 2
    }

    /// As far as the end of the next system call, or to the end of all.
    fn to_next_system_call(&self, signal: &mut c_int) {
        // It stops at the beginning of one, too.
        advance(&self.child, libc::PTRACE_SYSCALL, signal);
        if !self.is_done() {
            advance(&self.child, libc::PTRACE_SYSCALL, signal);
        }
    }

    fn end(self) {
        // SAFETY: the child is traced by this thread, and stopped.
        unsafe { libc::ptrace(libc::PTRACE_CONT, self.child.pid, 0, 0) };
        self.child.succeeds();
        if let Some(sleeper) = self.sleeper {
            sleeper.succeeds();
        }
    }
}

/// Which of an operation's stretches, each as far as the end of a system call, change the object: for all others
/// [`follow`] need not step.
pub(crate) fn stretches(case: &Case, library: Library) -> Option<Vec<bool>> {
    let followed = Followed::start(case, library)?;
    let mut signal = 0;
    let mut changes = Vec::new();
    let mut last = followed.eye.take(followed.eye.len());
    loop {
        followed.to_next_system_call(&mut signal);
        if followed.is_done() {
            break;
        }
        let len = followed.eye.len();
        let changed = last.len() != len || !followed.eye.is(&last);
        changes.push(changed);
        if changed {
            last = followed.eye.take(len);
        }
    }
    followed.end();
    Some(changes)
}

/// Steps through a case's operation. Stretches that `stretches` says to change nothing are not stepped through.
pub(crate) fn follow(case: &Case, stretches: &[bool], library: Library) -> Option<Trail> {
    let followed = Followed::start(case, library)?;
    let Followed { child, shared, eye, .. } = &followed;
    let mut len = eye.len();
    let mut last = eye.take(len);
    let mut trail = Trail { instructions: 0, system_calls: 0, images: vec![Image::new(&last)], at: vec![0] };
    let (mut signal, mut repeated) = (0, 0u64);
    // The code does not change.
    let mut known = HashMap::new();
    let mut next = instruction_pointer(child);
    let mut stretch = 0;
    while !followed.is_done() {
        let inside = shared.get(0) == 1;
        let rip = next;
        let code = if stretches.get(stretch) == Some(&false) {
            followed.to_next_system_call(&mut signal);
            Code::SystemCall
        } else {
            let code = *known.entry(rip).or_insert_with(|| code_at(child, rip));
            step(child, &mut signal);
            trail.instructions += u64::from(inside);
            code
        };
        next = instruction_pointer(child);
        if code == Code::SystemCall {
            stretch += 1;
            trail.system_calls += u64::from(inside);
            len = eye.len();
        } else if code == Code::Plain || !inside {
            continue;
        }
        // Every byte of a `rep movsb` is a step of its own; some of them will do.
        if next == rip {
            repeated += 1;
            if repeated % 257 != 5 {
                continue;
            }
        }
        if last.len() != len || !eye.is(&last) {
            last = eye.take(len);
            let image = trail.images.last().expect("there is one").then(&last);
            trail.images.push(image);
            trail.at.push(trail.instructions);
            assert!(trail.images.len() < MOST_IMAGES, "{}: too many images for this test", case.name);
        }
    }
    followed.end();
    Some(trail)
}
