//! A text file that lists persistent kernel objects, as bytes; and the removal of such objects.
//!
//! It owns opening the file, locking the whole of it in the manner of `lockf`, and changing its end so that
//! what is seen is the old content or the new one. It refuses to know what a line means. The lock is always
//! given free before the file is closed, so that a forked child which has the descriptor does not keep it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::descriptor::{
    as_file, io_error, lift, open_error, open_or_create, open_path, require_regular, status,
};
use super::filelock::{lock_range, share_range, unlock_range};
use super::space::pwrite_all;
use super::time::Deadline;
use crate::error::{Error, Result};

/// A list of this length is a mistake, or somebody's attack on our memory.
const MAX_BYTES: usize = 64 << 20;

/// How long to wait for other programs that have the file locked. They remove what is listed meanwhile, at worst
/// some containers of 16,384 semaphores each.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the name may lead to another file when we have got the lock.
const ATTEMPTS: usize = 100;

/// What the file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be read, together with others who read. Permission to read will do.
    Look,
    /// To be changed. It is created if it is missing, for its owner only.
    Extend,
    /// To be emptied, if it is there, with all that it lists deleted.
    Clear,
}

/// The open file, locked until this value is dropped.
#[derive(Debug)]
pub(crate) struct LockedList {
    fd: OwnedFd,
}

impl LockedList {
    /// Opens and locks the file; `None` if it is missing and not to be created.
    pub(crate) fn open(path: &Path, purpose: Purpose) -> Result<Option<LockedList>> {
        let deadline = Deadline::after(Some(PATIENCE));
        for _ in 0..ATTEMPTS {
            let fd = match open(path, purpose) {
                Err(Errno::ENOENT) if purpose != Purpose::Extend => return Ok(None),
                outcome => lift(outcome.map_err(|errno| open_error("open", "path", errno))?)?,
            };
            require_regular(fd.as_fd(), "path")?;
            if purpose == Purpose::Clear {
                require_trusted_owner(fd.as_fd())?;
            }
            match purpose {
                Purpose::Look => share_range(fd.as_fd(), 0, 0, deadline)?,
                Purpose::Extend | Purpose::Clear => lock_range(fd.as_fd(), 0, 0, deadline)?,
            }
            let list = LockedList { fd };
            // What is written to a file that has lost its name would be lost.
            if list.is_at(path)? {
                return Ok(Some(list));
            }
        }
        Err(Error::Busy("the list's name appears and disappears"))
    }

    fn is_at(&self, path: &Path) -> Result<bool> {
        let ours = status(self.fd.as_fd())?;
        match std::fs::symlink_metadata(path) {
            Ok(at) => Ok(at.dev() == ours.identity.dev && at.ino() == ours.identity.ino),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("lstat", &error)),
        }
    }

    /// The whole content.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;

        let mut content = Vec::new();
        let mut chunk = [0; 16384];
        loop {
            match as_file(self.fd.as_fd()).read_at(&mut chunk, content.len() as u64) {
                Ok(0) => return Ok(content),
                Ok(count) => content.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("pread", &error)),
            }
            if content.len() > MAX_BYTES {
                return Err(Error::TooLarge("the list of persistent objects"));
            }
        }
    }

    /// Keeps the first bytes only and puts others behind them. If they do not fit, none is there.
    pub(crate) fn continue_from(&self, keep_bytes: u64, more: &[u8]) -> Result<()> {
        self.cut(keep_bytes)?;
        pwrite_all(self.fd.as_fd(), more, keep_bytes).inspect_err(|_| {
            // Should this fail, too, half a line is left, which its readers ignore and the next writer cuts off.
            let _ = self.cut(keep_bytes);
        })
    }

    /// Cuts the content off; nothing is done if it is not longer.
    pub(crate) fn cut(&self, keep_bytes: u64) -> Result<()> {
        if status(self.fd.as_fd())?.size_bytes <= keep_bytes {
            return Ok(());
        }
        as_file(self.fd.as_fd()).set_len(keep_bytes).map_err(|error| io_error("ftruncate", &error))
    }
}

impl Drop for LockedList {
    fn drop(&mut self) {
        let _ = unlock_range(self.fd.as_fd(), 0, 0);
    }
}

/// Whoever deletes what is listed does it by his own rights. In a directory like /tmp somebody else may have planted the
/// list, and have listed what only we may delete.
fn require_trusted_owner(fd: BorrowedFd<'_>) -> Result<()> {
    let owner = as_file(fd).metadata().map_err(|error| io_error("fstat", &error))?.uid();
    if owner == 0 || owner == nix::unistd::geteuid().as_raw() { Ok(()) } else { Err(Error::Permission) }
}

fn open(path: &Path, purpose: Purpose) -> nix::Result<OwnedFd> {
    let access = if purpose == Purpose::Look { OFlag::O_RDONLY } else { OFlag::O_RDWR };
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let open = |extra| open_path(path, access | extra, mode);
    open_or_create(open, purpose == Purpose::Extend, false).map(|(fd, _)| fd)
}

/// Removes a file's name. What cannot be removed stays.
pub(crate) fn remove_file(path: &[u8]) {
    remove(path, nix::unistd::unlink);
}

/// Removes the name of POSIX shared memory. What cannot be removed stays.
pub(crate) fn remove_posix_shm(path: &[u8]) {
    remove(path, nix::sys::mman::shm_unlink);
}

/// Removes the name of a POSIX semaphore. What cannot be removed stays.
pub(crate) fn remove_posix_sem(path: &[u8]) {
    remove(path, |path| {
        // SAFETY: the name is NUL-terminated and outlives the call.
        Errno::result(unsafe { libc::sem_unlink(path.as_ptr()) }).map(drop)
    });
}

fn remove(path: &[u8], call: impl FnOnce(&CStr) -> nix::Result<()>) {
    // A name with a NUL byte is nobody's.
    let Ok(path) = CString::new(path) else { return };
    let _ = call(&path);
}
