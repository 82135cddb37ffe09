//! The system's shared memory itself: by a name, and without one.
//!
//! Owns what its calls answer and what that means. It knows nothing of the files that list it.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::descriptor::{common_flags, open_error, retry};
use crate::error::{Error, Result};

/// Opens POSIX shared memory; the library call adds `O_NOFOLLOW` by itself, but not everywhere.
pub(super) fn open_memory(mem: &OsStr, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    retry(|| nix::sys::mman::shm_open(mem, flags | common_flags() | OFlag::O_NOFOLLOW, mode))
}

/// Is there memory of that name, whether we may open it or not?
pub(super) fn memory_exists(mem: &OsStr) -> Result<bool> {
    match open_memory(mem, OFlag::O_RDONLY, Mode::empty()) {
        Err(Errno::ENOENT) => Ok(false),
        // Nothing was learnt.
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
            Err(open_error("shm_open", "mem_name", errno))
        }
        // It is another's, or all memory lies where it may not even be looked for.
        Err(Errno::EACCES) => match path_of_memory(mem).map(|path| path.symlink_metadata()) {
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(false),
            Some(Err(_)) => Err(Error::Permission),
            _ => Ok(true),
        },
        _ => Ok(true),
    }
}

/// Where the memory of a name, which was validated, lies in the file system.
#[cfg(target_os = "linux")]
pub(super) fn path_of_memory(mem: &OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    // `validate` has seen to the one slash in front.
    let mem = OsStr::from_bytes(mem.as_bytes().get(1..).unwrap_or_default());
    Some(Path::new("/dev/shm").join(mem))
}

/// It does not lie there.
#[cfg(not(target_os = "linux"))]
pub(super) fn path_of_memory(_: &OsStr) -> Option<PathBuf> {
    None
}

/// Makes memory without a name, which nobody can shorten, or seal against us.
#[cfg(target_os = "linux")]
pub(super) fn create_memfd() -> nix::Result<OwnedFd> {
    use std::os::fd::{AsRawFd, FromRawFd};

    /// `MFD_NOEXEC_SEAL`: systems may insist on it, kernels before 6.3 do not know it.
    const NOEXEC_SEAL: libc::c_uint = 8;

    let create = |flags: libc::c_uint| {
        // SAFETY: the name is a C string; the call touches nothing else.
        Errno::result(unsafe { libc::memfd_create(c"netshm".as_ptr(), libc::MFD_CLOEXEC | flags) })
    };
    let number = match create(NOEXEC_SEAL | libc::MFD_ALLOW_SEALING) {
        Err(Errno::EINVAL) => create(libc::MFD_ALLOW_SEALING),
        outcome => outcome,
    }?;
    // SAFETY: the system has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: the command takes an integer.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(fd)
}
