//! System calls that fail on demand, in the library as it is shipped: no hook in it, none in the C library.
//!
//! A seccomp filter turns each call that the library might make into a SIGSYS; the handler makes the call itself, by an
//! instruction that the filter lets pass, or answers with an error number instead. It is inherited by children, who
//! begin disarmed, and cannot be taken away: so it is installed in a child that lives for one run.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What kind of call fails; each with the numbers that such calls fail with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Class {
    Allocate = 1,
    Truncate,
    Open,
    Map,
    Futex,
    Lock,
    Duplicate,
    Sync,
    Advise,
    Stat,
    Read,
    Write,
    Name,
    Random,
    Close,
}

impl Class {
    const ALL: [Class; 15] = [
        Class::Allocate,
        Class::Truncate,
        Class::Open,
        Class::Map,
        Class::Futex,
        Class::Lock,
        Class::Duplicate,
        Class::Sync,
        Class::Advise,
        Class::Stat,
        Class::Read,
        Class::Write,
        Class::Name,
        Class::Random,
        Class::Close,
    ];

    /// The class with a number.
    pub fn from_number(n: u64) -> Option<Class> {
        Class::ALL.into_iter().find(|class| *class as u64 == n)
    }

    /// The numbers, the most usual first.
    fn errnos(self) -> &'static [i32] {
        match self {
            Class::Allocate => &[libc::ENOSPC, libc::EINTR, libc::ENOMEM, libc::EIO],
            Class::Truncate => &[libc::ENOSPC, libc::EINTR, libc::EACCES, libc::EIO],
            Class::Open => &[libc::EMFILE, libc::EACCES, libc::ENOMEM, libc::EINTR],
            Class::Map => &[libc::ENOMEM, libc::EACCES, libc::EAGAIN],
            Class::Futex => &[libc::EINTR, libc::ENOSYS, libc::EAGAIN, libc::ENOMEM],
            Class::Lock => &[libc::ENOLCK, libc::EINTR, libc::EACCES, libc::ENOMEM],
            Class::Duplicate => &[libc::EMFILE, libc::EINTR],
            Class::Sync => &[libc::EIO, libc::ENOSPC, libc::EINTR],
            Class::Advise => &[libc::ENOMEM, libc::EINVAL],
            Class::Stat => &[libc::ENOMEM, libc::EACCES, libc::EIO],
            Class::Read => &[libc::EIO, libc::EINTR],
            Class::Write => &[libc::ENOSPC, libc::EIO, libc::EINTR],
            Class::Name => &[libc::EACCES, libc::ENOSPC, libc::EIO, libc::EINTR],
            Class::Random => &[libc::EINTR, libc::ENOSYS],
            Class::Close => &[libc::EINTR, libc::EIO],
        }
    }
}

/// Which calls fail, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The first call that fails, counted from 1.
    pub nth: u64,
    /// Which of its class's numbers it fails with, counted from that whose turn it is.
    pub variant: usize,
    /// All further calls of the same class fail as well.
    pub lasting: bool,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub class: Class,
    pub errno: i32,
    /// How many calls failed.
    pub times: u64,
}

/// The most variants that a class has.
pub const VARIANTS: usize = 4;

static ARMED_FOR: AtomicI64 = AtomicI64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static NTH: AtomicU64 = AtomicU64::new(0);
static VARIANT: AtomicU64 = AtomicU64::new(0);
static LASTING: AtomicU64 = AtomicU64::new(0);
static CLASS: AtomicU64 = AtomicU64::new(0);
static ERRNO: AtomicU64 = AtomicU64::new(0);
static TIMES: AtomicU64 = AtomicU64::new(0);

/// For each class, the number whose turn it is.
static TURNS: [AtomicU64; Class::ALL.len() + 1] = [const { AtomicU64::new(0) }; Class::ALL.len() + 1];

/// From now on it is the turn of the class's next number, in this process and children to come.
pub fn next_turn(class: Class) {
    TURNS[class as usize].fetch_add(1, Ordering::SeqCst);
}

/// From now on the calls of this thread are counted, and fail as planned.
pub fn arm(plan: Plan) {
    SEEN.store(0, Ordering::SeqCst);
    NTH.store(plan.nth, Ordering::SeqCst);
    VARIANT.store(plan.variant as u64, Ordering::SeqCst);
    LASTING.store(u64::from(plan.lasting), Ordering::SeqCst);
    CLASS.store(0, Ordering::SeqCst);
    TIMES.store(0, Ordering::SeqCst);
    // SAFETY: a plain system call.
    ARMED_FOR.store(unsafe { libc::syscall(libc::SYS_gettid) }, Ordering::SeqCst);
}

/// No call fails any more. Tells what has failed.
pub fn disarm() -> Option<Fault> {
    ARMED_FOR.store(0, Ordering::SeqCst);
    let class = Class::from_number(CLASS.load(Ordering::SeqCst))?;
    let errno = ERRNO.load(Ordering::SeqCst) as i32;
    Some(Fault { class, errno, times: TIMES.load(Ordering::SeqCst) })
}

/// How many calls were counted since `arm`.
pub fn seen() -> u64 {
    SEEN.load(Ordering::SeqCst)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod mechanism {
    use super::*;

    // Number and six arguments to the kernel. The filter knows the address behind its one instruction.
    std::arch::global_asm!(
        ".pushsection .text",
        ".p2align 4",
        ".globl netshm_faults_gate",
        "netshm_faults_gate:",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        ".globl netshm_faults_gate_passed",
        "netshm_faults_gate_passed:",
        "ret",
        ".popsection",
    );

    unsafe extern "C" {
        fn netshm_faults_gate(nr: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64;
        fn netshm_faults_gate_passed();
    }

    /// The calls that the library makes, and some that it might make.
    const CAUGHT: [i64; 32] = [
        libc::SYS_fallocate,
        libc::SYS_ftruncate,
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_memfd_create,
        libc::SYS_mmap,
        libc::SYS_mremap,
        libc::SYS_futex,
        libc::SYS_fcntl,
        libc::SYS_flock,
        libc::SYS_dup,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_msync,
        libc::SYS_madvise,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_fstatfs,
        libc::SYS_lseek,
        libc::SYS_pread64,
        libc::SYS_read,
        libc::SYS_pwrite64,
        libc::SYS_copy_file_range,
        libc::SYS_link,
        libc::SYS_linkat,
        libc::SYS_rename,
        libc::SYS_unlink,
        libc::SYS_fchmod,
        libc::SYS_fchown,
        libc::SYS_getrandom,
        libc::SYS_readlink,
        libc::SYS_close,
    ];

    fn class_of(nr: i64, args: &[i64; 6]) -> Option<Class> {
        Some(match nr {
            libc::SYS_fallocate => Class::Allocate,
            libc::SYS_ftruncate => Class::Truncate,
            libc::SYS_open | libc::SYS_openat | libc::SYS_memfd_create => Class::Open,
            libc::SYS_mmap => {
                // The allocator's own memory is another matter: Rust ends the process without it.
                let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                if args[3] as i32 & private == private && args[2] as i32 & access != 0 {
                    return None;
                }
                Class::Map
            }
            libc::SYS_futex => Class::Futex,
            libc::SYS_flock => Class::Lock,
            libc::SYS_fcntl => match args[1] as i32 {
                // To ask an open description for its flags does not fail.
                libc::F_GETFL => return None,
                libc::F_DUPFD | libc::F_DUPFD_CLOEXEC | libc::F_ADD_SEALS => Class::Duplicate,
                _ => Class::Lock,
            },
            libc::SYS_dup => Class::Duplicate,
            libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_msync => Class::Sync,
            libc::SYS_madvise => Class::Advise,
            // To look at an open file does not fail: the file systems that would let it are refused.
            libc::SYS_newfstatat if args[3] as i32 & libc::AT_EMPTY_PATH != 0 => return None,
            libc::SYS_statx if args[2] as i32 & libc::AT_EMPTY_PATH != 0 => return None,
            libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_fstatfs => Class::Stat,
            libc::SYS_lseek | libc::SYS_readlink => Class::Stat,
            libc::SYS_pread64 | libc::SYS_read => Class::Read,
            libc::SYS_pwrite64 | libc::SYS_copy_file_range => Class::Write,
            libc::SYS_link | libc::SYS_linkat | libc::SYS_rename | libc::SYS_unlink => Class::Name,
            libc::SYS_fchmod | libc::SYS_fchown => Class::Name,
            libc::SYS_getrandom => Class::Random,
            libc::SYS_close => Class::Close,
            _ => return None,
        })
    }

    /// The number with which the call is to fail, if it is.
    fn judge(class: Class) -> Option<i32> {
        let n = SEEN.fetch_add(1, Ordering::SeqCst) + 1;
        let nth = NTH.load(Ordering::SeqCst);
        if n < nth {
            return None;
        }
        if n == nth {
            CLASS.store(class as u64, Ordering::SeqCst);
            let errnos = class.errnos();
            let turn = VARIANT.load(Ordering::SeqCst) + TURNS[class as usize].load(Ordering::SeqCst);
            let errno = errnos[turn as usize % errnos.len()];
            ERRNO.store(errno as u64, Ordering::SeqCst);
        } else {
            // A call that signals interrupt for ever would rightly be repeated for ever.
            let errno = ERRNO.load(Ordering::SeqCst) as i32;
            let goes_on =
                LASTING.load(Ordering::SeqCst) != 0 && errno != libc::EINTR && class != Class::Close;
            if !goes_on || CLASS.load(Ordering::SeqCst) != class as u64 {
                return None;
            }
        }
        TIMES.fetch_add(1, Ordering::SeqCst);
        Some(ERRNO.load(Ordering::SeqCst) as i32)
    }

    extern "C" fn on_call(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel hands a `ucontext_t` to a handler with SA_SIGINFO, and nobody else uses it.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let nr = registers[libc::REG_RAX as usize];
        let args = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9]
            .map(|r| registers[r as usize]);
        let call = || {
            // SAFETY: it is the call that the interrupted code has made, with its arguments.
            unsafe { netshm_faults_gate(nr, args[0], args[1], args[2], args[3], args[4], args[5]) }
        };
        // SAFETY: a plain system call, which the filter does not catch.
        let armed = ARMED_FOR.load(Ordering::SeqCst) != 0
            && ARMED_FOR.load(Ordering::SeqCst)
                == unsafe { netshm_faults_gate(libc::SYS_gettid, 0, 0, 0, 0, 0, 0) };
        let failure =
            if armed { class_of(nr, &args).and_then(|class| Some((class, judge(class)?))) } else { None };
        registers[libc::REG_RAX as usize] = match failure {
            None => call(),
            Some((class, errno)) => {
                if class == Class::Close {
                    // The number is free afterwards, whatever the answer is.
                    call();
                }
                -i64::from(errno)
            }
        };
    }

    /// Installs handler and filter in this process. The reason, if that is not possible here.
    pub fn install() -> Result<(), String> {
        // SAFETY: the structures live during the calls; the handler uses nothing but atomics and system calls.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_call as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            if libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) != 0 {
                return Err("sigaction".to_string());
            }
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return Err("PR_SET_NO_NEW_PRIVS".to_string());
            }
            let mut filter = filter();
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0 {
                return Err("PR_SET_SECCOMP".to_string());
            }
        }
        Ok(())
    }

    /// Of `seccomp_data`: number, architecture, address.
    fn filter() -> Vec<libc::sock_filter> {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let passed = netshm_faults_gate_passed as *const () as u64;
        let mut lines = vec![
            line(LOAD, 0, 0, 8),
            line(EQUAL, 0, 3, passed as u32),
            line(LOAD, 0, 0, 12),
            line(EQUAL, 0, 1, (passed >> 32) as u32),
            line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
            line(LOAD, 0, 0, 0),
        ];
        for (i, nr) in CAUGHT.iter().enumerate() {
            lines.push(line(EQUAL, (CAUGHT.len() - i) as u8, 0, *nr as u32));
        }
        lines.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
        lines.push(line(RETURN, 0, 0, libc::SECCOMP_RET_TRAP));
        lines
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod mechanism {
    pub fn install() -> Result<(), String> {
        Err("only Linux on x86_64 is known to the test".to_string())
    }
}

pub use mechanism::install;
