//! Locks on bytes of a file, and the registration of a process by such a lock.
//!
//! It owns the "open file description" locks, which belong to an open file and not to a process: no
//! stray `close` elsewhere in the process drops them. It refuses the older kind, and it refuses to say
//! what the bytes mean. A lock is invisible to probes through the description that holds it; so never
//! is a lock probed through the descriptor that took it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::descriptor::{Descriptor, common_flags, is_identity, lift, retry};
use super::map::{HeldPage, lock_holder_page};
use super::process::fork_epoch;
use super::shm::Files;
use super::time::{Deadline, sleep};
use crate::error::{Error, Result};

/// The longest sleep between two looks at a lock that another process holds.
const FIRST_STEP: Duration = Duration::from_micros(50);
const LONGEST_STEP: Duration = Duration::from_millis(20);

/// A fresh description of the object's own file: locks taken through it are not those of `files`.
pub(crate) fn open_again(files: &Files) -> Result<OwnedFd> {
    let access = if files.read_only() { OFlag::O_RDONLY } else { OFlag::O_RDWR };
    // The link leads to the file also when its name is gone, or was never there.
    let link = format!("/proc/self/fd/{}", files.fd().as_raw_fd());
    let by_link = retry(|| nix::fcntl::open(link.as_str(), access | common_flags(), Mode::empty()));
    let failure = match by_link {
        Ok(fd) if is_identity(fd.as_fd(), files.identity()) => return lift(fd),
        // The number was swept and is another file's now.
        Ok(_) => Error::Closed,
        Err(errno) => Error::system("open", errno as i32),
    };
    match files.open_by_name() {
        Ok(fd) if is_identity(fd.as_fd(), files.identity()) => lift(fd),
        Ok(_) => Err(Error::Closed),
        Err(_) => Err(failure),
    }
}

/// A description of the object's file for the time when the file cannot be opened any more: a server has dropped its
/// privileges, has another root directory, or no number is free.
///
/// It comes second to a fresh one, since a child that was forked meanwhile shares it, and with it a lock that
/// its parent dies with.
#[derive(Debug)]
pub(crate) struct Spare {
    descriptor: Descriptor,
    fork_epoch: u64,
    /// Locks of one description do not keep its threads apart.
    turn: Mutex<()>,
}

/// A description to lock by; nobody else locks by it at the same time.
pub(crate) enum Description<'a> {
    Fresh(OwnedFd),
    Spare(BorrowedFd<'a>, #[expect(dead_code, reason = "is held")] MutexGuard<'a, ()>),
}

impl AsFd for Description<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Description::Fresh(fd) => fd.as_fd(),
            Description::Spare(fd, _) => *fd,
        }
    }
}

impl Spare {
    pub(crate) fn open(files: &Files) -> Result<Spare> {
        let descriptor = Descriptor::new(open_again(files)?)?;
        Ok(Spare { descriptor, fork_epoch: fork_epoch(), turn: Mutex::new(()) })
    }

    /// A description of `files`, whether these can be opened or not; in the latter case other threads may have to be waited
    /// for.
    pub(crate) fn description(&self, files: &Files, deadline: Deadline) -> Result<Description<'_>> {
        let failure = match open_again(files) {
            Ok(fd) => return Ok(Description::Fresh(fd)),
            Err(failure) => failure,
        };
        if self.fork_epoch != fork_epoch() {
            return Err(failure);
        }
        let turn = self.take_turn(deadline)?;
        if self.is_open(files) { Ok(Description::Spare(self.descriptor.fd(), turn)) } else { Err(failure) }
    }

    fn take_turn(&self, deadline: Deadline) -> Result<MutexGuard<'_, ()>> {
        let mut step = FIRST_STEP;
        loop {
            match self.turn.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(turn)) => return Ok(turn.into_inner()),
                Err(TryLockError::WouldBlock) if deadline.passed() => {
                    return Err(Error::Timeout { holder_pid: std::process::id() });
                }
                Err(TryLockError::WouldBlock) => sleep(deadline.clip(step)),
            }
            step = (2 * step).min(LONGEST_STEP);
        }
    }

    /// In a child: closes what the parent keeps for itself.
    pub(crate) fn close_in_child(&self, files: &Files) {
        if self.fork_epoch != fork_epoch() && self.is_open(files) {
            // SAFETY: the number is the parent's spare, which is not used, nor ever dropped, here.
            drop(unsafe { OwnedFd::from_raw_fd(self.descriptor.fd().as_raw_fd()) });
        }
    }

    /// Does the number still stand for the spare? It may have been swept, and then have become the one of `files`.
    fn is_open(&self, files: &Files) -> bool {
        self.descriptor.is_ours() && self.descriptor.fd().as_raw_fd() != files.fd().as_raw_fd()
    }
}

/// Locks a byte for writing if nobody else has it locked.
pub(crate) fn try_lock_byte(fd: BorrowedFd<'_>, offset: i64) -> Result<bool> {
    try_lock_range(fd, offset, 1)
}

/// Locks a byte for writing, and waits for it until the deadline. Nobody who has a right to the byte locks it for
/// reading; such a lock is not waited for.
pub(crate) fn lock_byte(fd: BorrowedFd<'_>, offset: i64, deadline: Deadline) -> Result<()> {
    let brief = Duration::from_millis(1);
    loop {
        match lock_range(fd, offset, 1, Deadline::after(Some(deadline.clip(brief)))) {
            Err(Error::Timeout { .. }) if !deadline.passed() => {}
            outcome => return outcome,
        }
        let lock = conflict(fd, libc::F_WRLCK, offset, 1)?;
        if lock.is_some_and(|lock| lock.l_type == libc::F_RDLCK as libc::c_short) {
            return Err(Error::Busy("another program has locked all of the object's file"));
        }
        sleep(deadline.clip(brief));
    }
}

/// Gives a byte free that was locked through this description.
pub(crate) fn unlock_byte(fd: BorrowedFd<'_>, offset: i64) -> Result<()> {
    unlock_range(fd, offset, 1)
}

/// Locks a range for writing if nobody else has a lock in it; length 0 reaches to the end of the file,
/// wherever that will be.
pub(crate) fn try_lock_range(fd: BorrowedFd<'_>, start: i64, length: i64) -> Result<bool> {
    match control(fd, SET, libc::F_WRLCK, start, length) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(lock_error(errno)),
    }
}

/// Locks a range for reading, which needs no more than reading access, and waits for it until the deadline.
pub(crate) fn share_range(fd: BorrowedFd<'_>, start: i64, length: i64, deadline: Deadline) -> Result<()> {
    let mut step = FIRST_STEP;
    loop {
        match control(fd, SET, libc::F_RDLCK, start, length) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err(lock_error(errno)),
        }
        if deadline.passed() {
            let lock = control(fd, GET, libc::F_RDLCK, start, length).map_err(lock_error)?;
            return Err(Error::Timeout { holder_pid: u32::try_from(lock.l_pid).unwrap_or(0) });
        }
        sleep(deadline.clip(step));
        step = (step * 2).min(LONGEST_STEP);
    }
}

/// Locks a range for writing, and waits for it until the deadline.
pub(crate) fn lock_range(fd: BorrowedFd<'_>, start: i64, length: i64, deadline: Deadline) -> Result<()> {
    if deadline == Deadline::NEVER {
        return control(fd, SET_AND_WAIT, libc::F_WRLCK, start, length).map(drop).map_err(lock_error);
    }
    // The kernel's own wait has no time-out, so a bounded wait looks again and again.
    let mut step = FIRST_STEP;
    while !try_lock_range(fd, start, length)? {
        if deadline.passed() {
            let holder = conflict(fd, libc::F_WRLCK, start, length)?;
            let holder_pid = holder.and_then(|lock| u32::try_from(lock.l_pid).ok()).unwrap_or(0);
            return Err(Error::Timeout { holder_pid });
        }
        sleep(deadline.clip(step));
        step = (step * 2).min(LONGEST_STEP);
    }
    Ok(())
}

/// Gives a range free that was locked through this description.
pub(crate) fn unlock_range(fd: BorrowedFd<'_>, start: i64, length: i64) -> Result<()> {
    control(fd, SET, libc::F_UNLCK, start, length).map(drop).map_err(lock_error)
}

/// Whether another description than this one has the byte locked for writing. Locks for reading do not count: whoever
/// may only read the file can have them, and must not be taken for somebody who lives.
pub(crate) fn is_locked_by_other(fd: BorrowedFd<'_>, offset: i64) -> Result<bool> {
    Ok(conflict(fd, libc::F_RDLCK, offset, 1)?.is_some())
}

/// The first byte of the range that another description than this one has locked for writing.
pub(crate) fn first_locked_in(fd: BorrowedFd<'_>, start: i64, length: i64) -> Result<Option<i64>> {
    let mut first = None;
    let mut rest = length;
    // The kernel names any of the locks in the range, so the part before it is asked about again.
    while rest > 0 {
        let Some(lock) = conflict(fd, libc::F_RDLCK, start, rest)? else { break };
        let found = widen(lock.l_start).max(start);
        first = Some(found);
        rest = found - start;
    }
    Ok(first)
}

/// A lock of somebody else that is in the way of one of this kind on the range.
fn conflict(fd: BorrowedFd<'_>, kind: libc::c_int, start: i64, length: i64) -> Result<Option<libc::flock>> {
    let lock = control(fd, GET, kind, start, length).map_err(lock_error)?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock))
}

#[cfg(target_os = "linux")]
const GET: libc::c_int = libc::F_OFD_GETLK;
#[cfg(target_os = "linux")]
const SET: libc::c_int = libc::F_OFD_SETLK;
#[cfg(target_os = "linux")]
const SET_AND_WAIT: libc::c_int = libc::F_OFD_SETLKW;
#[cfg(not(target_os = "linux"))]
const GET: libc::c_int = -1;
#[cfg(not(target_os = "linux"))]
const SET: libc::c_int = -1;
#[cfg(not(target_os = "linux"))]
const SET_AND_WAIT: libc::c_int = -1;

/// One lock call; signals are no reason to give up.
fn control(
    fd: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
    start: i64,
    length: i64,
) -> nix::Result<libc::flock> {
    // SAFETY: `flock` consists of integers, for which zero is a value; `l_pid` has to be zero here.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = libc::off_t::try_from(start).map_err(|_| Errno::EOVERFLOW)?;
    lock.l_len = libc::off_t::try_from(length).map_err(|_| Errno::EOVERFLOW)?;
    retry(|| {
        // SAFETY: `lock` is a valid `flock` that outlives the call, as these commands want it.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) })
    })?;
    Ok(lock)
}

#[allow(clippy::useless_conversion, reason = "off_t has 32 bits on some systems")]
fn widen(offset: libc::off_t) -> i64 {
    i64::from(offset)
}

#[cold]
fn lock_error(errno: Errno) -> Error {
    match errno {
        Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP => {
            Error::Unsupported("the system or the file system has no locks on open file descriptions")
        }
        Errno::EOVERFLOW => Error::TooLarge("the offset of a file lock"),
        _ => Error::system("fcntl", errno as i32),
    }
}

/// This process's entry among those that use an object: a locked byte, whose lock nothing but the end
/// of the process, exec, or dropping this value ends. A forked child has the value, but not the lock.
///
/// If another thread forks in the short time while `take` runs, the child may keep the lock as long as
/// it lives. The lock then says "alive" too long, never "dead" too early; `process::is_dead` knows
/// better within one PID namespace.
#[derive(Debug)]
pub(crate) struct Registration {
    number: u32,
    /// Keeps the lock; see there.
    _page: HeldPage,
}

impl Registration {
    /// Locks the byte `base + n` for the lowest number `n` from 1 to `max` that is free.
    pub(crate) fn take(files: &Files, base: i64, max: u32) -> Result<Registration> {
        if files.read_only() {
            return Err(Error::ReadOnly);
        }
        let description = open_again(files)?;
        let number = lock_lowest(description.as_fd(), base, max)?;
        // From here on the mapping keeps the description, and with it the lock, also when `description`
        // is closed at the end of this function.
        let page = lock_holder_page(description.as_fd())?;
        Ok(Registration { number, _page: page })
    }

    /// The number under which this process is registered.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

fn lock_lowest(fd: BorrowedFd<'_>, base: i64, max: u32) -> Result<u32> {
    let mut number = 1;
    while number <= max {
        let byte = byte_of(base, number)?;
        if try_lock_byte(fd, byte)? {
            return Ok(number);
        }
        number += 1;
        // Registrants have one byte each. A lock of many is a stranger's, who may only read perhaps.
        let lock = conflict(fd, libc::F_WRLCK, byte, 1)?;
        if lock.is_some_and(|lock| lock.l_len == 0 || widen(lock.l_len) > i64::from(max)) {
            return Err(Error::Busy("another program has locked all of the object's file"));
        }
    }
    Err(Error::Busy("too many processes use the object"))
}

fn byte_of(base: i64, number: u32) -> Result<i64> {
    base.checked_add(i64::from(number)).ok_or(Error::TooLarge("the offset of a file lock"))
}

/// Whether the process with that registration lives. `fd` is any description but the registration's
/// own, which nobody has a descriptor of; so a process may well ask about itself.
pub(crate) fn registration_alive(fd: BorrowedFd<'_>, base: i64, number: u32) -> Result<bool> {
    is_locked_by_other(fd, byte_of(base, number)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::{FORKING, fork_epoch};

    const BASE: i64 = 1 << 30;

    #[test]
    fn locks_belong_to_descriptions() {
        let files = Files::anonymous().expect("memfd");
        let (one, two) = (open_again(&files).expect("open"), open_again(&files).expect("open"));
        let (one, two) = (one.as_fd(), two.as_fd());
        assert_eq!(try_lock_byte(one, 5), Ok(true));
        assert_eq!(try_lock_byte(one, 9), Ok(true));
        assert_eq!(try_lock_byte(two, 5), Ok(false));
        assert_eq!((is_locked_by_other(one, 5), is_locked_by_other(two, 5)), (Ok(false), Ok(true)));
        assert_eq!(first_locked_in(two, 0, 100), Ok(Some(5)));
        assert_eq!(first_locked_in(two, 6, 100), Ok(Some(9)));
        assert_eq!(first_locked_in(two, 10, 100), Ok(None));
        assert_eq!(first_locked_in(two, 10, 0), Ok(None));
        let soon = Deadline::after(Some(Duration::from_millis(5)));
        assert_eq!(lock_byte(two, 5, soon), Err(Error::Timeout { holder_pid: 0 }));
        unlock_byte(one, 5).expect("unlock");
        lock_byte(two, 5, Deadline::NEVER).expect("free");
        lock_byte(two, 6, soon).expect("free, though the deadline has passed");
    }

    #[test]
    fn registrations_take_the_lowest_number_and_end_by_drop() {
        let _guard = FORKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let files = Files::anonymous().expect("memfd");
        let alive = |number| registration_alive(files.fd(), BASE, number);
        let first = Registration::take(&files, BASE, 3).expect("first");
        let second = Registration::take(&files, BASE, 3).expect("second");
        assert_eq!((first.number(), second.number()), (1, 2));
        assert!(first._page.is_of_this_process());
        assert_eq!((alive(1), alive(2), alive(3)), (Ok(true), Ok(true), Ok(false)));
        drop(first);
        assert_eq!((alive(1), alive(2)), (Ok(false), Ok(true)));
        let again = Registration::take(&files, BASE, 2).expect("again");
        assert_eq!(again.number(), 1);
        assert!(matches!(Registration::take(&files, BASE, 2), Err(Error::Busy(_))));
        assert!(matches!(Registration::take(&files, i64::MAX, 2), Err(Error::TooLarge(_))));
    }

    /// A registered process is killed while a child of its own lives on: the lock must go with it.
    #[test]
    fn a_killed_process_is_not_registered_though_its_child_lives() {
        let _guard = FORKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let files = Files::anonymous().expect("memfd");
        // The page of the fork epoch must not be made in the child, where allocation could block.
        fork_epoch();
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        // SAFETY: the children only make system calls, and allocate one short path (the test's
        // allocator is glibc's, which survives a fork); they end by a signal or `_exit`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let registration = Registration::take(&files, BASE, 9);
            // SAFETY: as above; the grandchild leaves when the pipe is closed by the test's end.
            unsafe {
                if libc::fork() == 0 {
                    let _ = libc::sleep(2);
                    libc::_exit(0);
                }
                let answer = registration.as_ref().map_or(0, |taken| taken.number() as u8);
                libc::write(writer.as_raw_fd(), (&raw const answer).cast(), 1);
                let _ = libc::sleep(60);
                libc::_exit(0);
            }
        }
        let mut answer = [0];
        std::io::Read::read_exact(&mut std::fs::File::from(reader), &mut answer).expect("answer");
        assert_eq!(answer, [1]);
        assert_eq!(registration_alive(files.fd(), BASE, 1), Ok(true));
        // SAFETY: the child is ours and not waited for yet.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        let deadline = Deadline::after(Some(Duration::from_millis(500)));
        while registration_alive(files.fd(), BASE, 1).expect("probe") {
            assert!(!deadline.passed(), "the lock outlives its process");
            sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_forked_copy_is_no_registration_and_leaves_the_lock_alone() {
        let _guard = FORKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let files = Files::anonymous().expect("memfd");
        let registration = Registration::take(&files, BASE, 1).expect("registration");
        // SAFETY: the child makes system calls only and ends by `_exit`.
        let status = unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                let foreign = registration._page.is_of_this_process();
                drop(registration);
                libc::_exit(i32::from(foreign));
            }
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0);
            status
        };
        assert_eq!(status, 0);
        assert_eq!(registration_alive(files.fd(), BASE, 1), Ok(true));
    }
}
