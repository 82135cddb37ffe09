//! One open descriptor that knows which file it stands for.
//!
//! It owns the number, closes it, and refuses to close or to believe a number that has meanwhile come
//! to stand for another file: servers sweep descriptors that they do not know (`closefrom`), and the
//! number is soon somebody else's.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use crate::error::{Error, Result};

/// Numbers below this one belong to the standard streams, also while these are closed: a message for
/// a closed stderr must not land in the object.
const FIRST_NUMBER: RawFd = 3;

/// Which file a descriptor stands for, whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The device.
    pub(crate) dev: u64,
    /// The file's number on the device.
    pub(crate) ino: u64,
}

/// What the system says about an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// Which file it is.
    pub(crate) identity: Identity,
    /// Length in bytes.
    pub(crate) size_bytes: u64,
    /// Whether it is a regular file, as shared memory is.
    pub(crate) regular: bool,
}

/// Asks the system about an open file.
pub(crate) fn status(fd: BorrowedFd<'_>) -> Result<Status> {
    let metadata = as_file(fd).metadata().map_err(|error| io_error("fstat", &error))?;
    Ok(Status {
        identity: Identity { dev: metadata.dev(), ino: metadata.ino() },
        size_bytes: metadata.size(),
        regular: metadata.is_file(),
    })
}

/// The descriptor as a `File` that will not close it.
pub(crate) fn as_file(fd: BorrowedFd<'_>) -> ManuallyDrop<File> {
    // SAFETY: the number is borrowed for longer than the call that uses the `File`, and `ManuallyDrop`
    // keeps it from being closed.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd.as_raw_fd()) })
}

/// The crate's error for a failed call of the standard library.
#[cold]
pub(crate) fn io_error(call: &'static str, error: &io::Error) -> Error {
    Error::system(call, error.raw_os_error().unwrap_or(libc::EIO))
}

/// Repeats a call for as long as signals end it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// Flags of every open. A FIFO must not block the opener, a terminal must not become its own, and a
/// 32-bit process opens what is longer than 2 GiB, too.
pub(crate) fn common_flags() -> OFlag {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    #[cfg(target_os = "linux")]
    let flags = flags | OFlag::O_LARGEFILE;
    flags
}

/// Opens a path as it is: symbolic links at its end are refused.
pub(crate) fn open_path(path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    retry(|| nix::fcntl::open(path, flags | common_flags() | OFlag::O_NOFOLLOW, mode))
}

/// Removes the name of a file.
pub(crate) fn unlink_path(path: &Path) -> Result<()> {
    retry(|| nix::unistd::unlink(path)).map_err(|errno| open_error("unlink", "file_name", errno))
}

/// Opens what is there, or creates it, and says whether it was created. `open` gets the flags that are
/// added. Existing files are opened without `O_CREAT`: with it, the kernel's `protected_regular` denies
/// another user's file in a directory like /tmp.
pub(crate) fn open_or_create(
    open: impl Fn(OFlag) -> nix::Result<OwnedFd>,
    create: bool,
    exclusive: bool,
) -> nix::Result<(OwnedFd, bool)> {
    /// Others may create and remove the name between our two calls, but hardly as often as this.
    const ATTEMPTS: usize = 100;

    for _ in 0..ATTEMPTS {
        if !exclusive {
            match open(OFlag::empty()) {
                Err(Errno::ENOENT) if create => {}
                outcome => return outcome.map(|fd| (fd, false)),
            }
        }
        match open(OFlag::O_CREAT | OFlag::O_EXCL) {
            Err(Errno::EEXIST) if !exclusive => {}
            outcome => return outcome.map(|fd| (fd, true)),
        }
    }
    Err(Errno::EBUSY)
}

/// The crate's error for an open that failed; what is wrong with the name is said of the argument.
#[cold]
pub(crate) fn open_error(call: &'static str, argument: &'static str, errno: Errno) -> Error {
    let invalid = |reason| Error::Invalid { argument, reason };
    match errno {
        Errno::ELOOP => invalid("it is a symbolic link"),
        Errno::EISDIR => invalid("it is a directory"),
        Errno::ENAMETOOLONG => invalid("it is too long"),
        Errno::EINVAL => invalid("the system does not accept it"),
        Errno::ENXIO => invalid("it is not a regular file"),
        Errno::EOVERFLOW => Error::TooLarge("the file for this process"),
        Errno::EBUSY => Error::Busy("the name appears and disappears"),
        _ => Error::system(call, errno as i32),
    }
}

/// Refuses what cannot be mapped or read like a file.
pub(crate) fn require_regular(fd: BorrowedFd<'_>, argument: &'static str) -> Result<()> {
    if !status(fd)?.regular {
        return Err(Error::Invalid { argument, reason: "it is not a regular file" });
    }
    Ok(())
}

/// Permission bits from a caller's mode; more than the nine of `rwxrwxrwx` is an error.
pub(crate) fn permissions(mode: u32) -> Result<Mode> {
    if mode & !0o777 != 0 {
        return Err(Error::Invalid { argument: "mode", reason: "only permission bits (0777) are possible" });
    }
    Ok(Mode::from_bits_truncate(mode as libc::mode_t))
}

/// An open descriptor and the file for which it was opened.
#[derive(Debug)]
pub(crate) struct Descriptor {
    number: AtomicI32,
    status_flags: OFlag,
    identity: Identity,
}

impl Descriptor {
    /// Takes over a descriptor, and moves it away from the numbers of the standard streams.
    pub(crate) fn new(fd: OwnedFd) -> Result<Descriptor> {
        let fd = lift(fd)?;
        let identity = status(borrow(&fd))?.identity;
        let status_flags = retry(|| nix::fcntl::fcntl(&fd, FcntlArg::F_GETFL))
            .map(OFlag::from_bits_truncate)
            .map_err(|errno| Error::system("fcntl", errno as i32))?;
        Ok(Descriptor { number: AtomicI32::new(fd.into_raw_fd()), status_flags, identity })
    }

    /// The descriptor, unverified: good for calls that do no harm to a stranger's file.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is not -1 and is closed by this value's `drop` only. If the host has swept
        // it, calls get EBADF or meet a stranger's file; `is_ours` is there to tell.
        unsafe { BorrowedFd::borrow_raw(self.number.load(Ordering::Acquire)) }
    }

    /// Which file it was opened for.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it can only read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.status_flags & OFlag::O_ACCMODE == OFlag::O_RDONLY
    }

    /// Whether the number still stands for the file for which it was opened.
    pub(crate) fn is_ours(&self) -> bool {
        is_identity(self.fd(), self.identity)
    }

    /// Verifies the number; if it was swept, `reopen` has to deliver the same file again. A want of numbers or
    /// memory may pass, and is said as it is.
    pub(crate) fn verify_or_reopen(
        &self,
        reopen: impl FnOnce() -> Result<OwnedFd>,
    ) -> Result<BorrowedFd<'_>> {
        let swept = self.number.load(Ordering::Acquire);
        if self.is_ours() {
            return Ok(self.fd());
        }
        let fresh = reopen().map_err(|error| match error {
            Error::NoMemory | Error::System { .. } => error,
            _ => Error::Closed,
        })?;
        let fresh = lift(fresh)?;
        if !is_identity(borrow(&fresh), self.identity) {
            return Err(Error::Closed);
        }
        // Another thread may have been faster; then its number is the good one, and ours is closed.
        if self.number.compare_exchange(swept, fresh.as_raw_fd(), Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            let _ = fresh.into_raw_fd();
        }
        Ok(self.fd())
    }

    /// Changes the permissions of the file; the descriptor must have been verified.
    pub(crate) fn chmod(&self, mode: u32) -> Result<()> {
        let mode = permissions(mode)?;
        retry(|| nix::sys::stat::fchmod(self.fd(), mode))
            .map_err(|errno| Error::system("fchmod", errno as i32))
    }

    /// Changes owner and group of the file; the descriptor must have been verified.
    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        retry(|| nix::unistd::fchown(self.fd(), uid, gid))
            .map_err(|errno| Error::system("fchown", errno as i32))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: the number was taken over from an `OwnedFd`, still stands for its file, and is not
            // used after this.
            drop(unsafe { OwnedFd::from_raw_fd(*self.number.get_mut()) });
        }
    }
}

/// Whether a descriptor stands for the given file.
pub(crate) fn is_identity(fd: BorrowedFd<'_>, identity: Identity) -> bool {
    status(fd).is_ok_and(|status| status.identity == identity)
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

/// Moves a descriptor away from the numbers of the standard streams.
pub(crate) fn lift(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_NUMBER {
        return Ok(fd);
    }
    let number = retry(|| nix::fcntl::fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_NUMBER)))
        .map_err(|errno| Error::system("fcntl", errno as i32))?;
    // SAFETY: `fcntl` has just made this number, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> OwnedFd {
        File::open(path).expect("readable").into()
    }

    #[test]
    fn a_swept_descriptor_is_noticed_and_not_closed_twice() {
        let directory = tempdir();
        let (ours, others) = (format!("{directory}/ours"), format!("{directory}/others"));
        std::fs::write(&ours, b"x").expect("write");
        std::fs::write(&others, b"y").expect("write");
        let descriptor = Descriptor::new(file(&ours)).expect("descriptor");
        assert!(descriptor.is_ours() && descriptor.is_read_only());

        // The host puts another file on our number.
        let stranger = file(&others);
        let number = descriptor.fd().as_raw_fd();
        // SAFETY: both numbers are open; dup2 closes ours, which is what is tested.
        assert_eq!(unsafe { libc::dup2(stranger.as_raw_fd(), number) }, number);
        assert!(!descriptor.is_ours());
        assert_eq!(descriptor.verify_or_reopen(|| Ok(file(&others))).err(), Some(Error::Closed));
        assert_eq!(descriptor.verify_or_reopen(|| Err(Error::NotFound)).err(), Some(Error::Closed));
        let fresh = descriptor.verify_or_reopen(|| Ok(file(&ours))).expect("reopened").as_raw_fd();
        assert_ne!(fresh, number);
        assert!(descriptor.is_ours());
        drop(descriptor);
        // SAFETY: the number is open, it is the stranger's copy.
        let copy = unsafe { OwnedFd::from_raw_fd(number) };
        assert_eq!(status(borrow(&copy)).expect("still open"), status(borrow(&stranger)).expect("open"));
        std::fs::remove_dir_all(directory).expect("cleanup");
    }

    #[test]
    fn modes_are_permissions_only() {
        assert!(permissions(0o644).is_ok());
        assert!(matches!(permissions(0o1644), Err(Error::Invalid { argument: "mode", .. })));
    }

    fn tempdir() -> String {
        let path = std::env::temp_dir().join(format!("netshm-descriptor-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("directory");
        path.into_os_string().into_string().expect("text")
    }
}
