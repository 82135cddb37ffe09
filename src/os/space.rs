//! Blocks of the file: allocating ahead of use, giving back, and copying by system call.
//!
//! It owns the promise that a page is backed before somebody stores to it. It refuses to shorten a
//! file that may be mapped: only creation, which nobody shares yet, may start over from nothing.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use super::descriptor::{as_file, io_error, status};
use crate::error::{Damage, Error, Result};

/// Backs `len` bytes from `offset` with memory or disk blocks and extends the file to cover them.
/// Bytes that exist already stay as they are. This is the place where a full device shows.
pub(crate) fn allocate(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    let end = offset.saturating_add(len);
    if exceeds_limit(end) && file_size(fd)? < end {
        return Err(Error::NoSpace);
    }
    fallocate(fd, 0, offset, len)
}

/// Is the end of a write or a file beyond what this process may write? To try it would send SIGXFSZ, which ends
/// processes that do not expect it.
fn exceeds_limit(end: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is valid and outlives the call.
    let outcome = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    #[allow(clippy::unnecessary_cast, reason = "the type differs between systems")]
    let most = limit.rlim_cur as u64;
    outcome == 0 && limit.rlim_cur != libc::RLIM_INFINITY && end > most
}

/// Gives the blocks of a range back to the system; it reads as zeros afterwards, and must be allocated
/// again before it is used, even for reading.
pub(crate) fn punch(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    #[cfg(target_os = "linux")]
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    #[cfg(not(target_os = "linux"))]
    let mode = -1;
    fallocate(fd, mode, offset, len)
}

#[cfg(target_os = "linux")]
fn fallocate(fd: BorrowedFd<'_>, mode: libc::c_int, offset: u64, len: u64) -> Result<()> {
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;

    if len == 0 {
        return Ok(());
    }
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(Error::TooLarge("the range of the file"));
    };
    // A signal makes tmpfs give up and take back what it did, so the call is simply made again.
    let outcome = super::descriptor::retry(|| {
        // SAFETY: the call reads and writes no memory of this process.
        Errno::result(unsafe { libc::fallocate64(fd.as_raw_fd(), mode, offset, len) })
    });
    match outcome {
        Ok(_) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV) => {
            Err(Error::Unsupported("the file system cannot allocate or free blocks of a file"))
        }
        Err(errno) => Err(Error::system("fallocate", errno as i32)),
    }
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_fd: BorrowedFd<'_>, _mode: libc::c_int, _offset: u64, _len: u64) -> Result<()> {
    Err(Error::Unsupported("this system cannot allocate blocks of a file"))
}

/// The next range of the file, from an offset on, that has memory; none behind the last one.
pub(crate) fn next_data(fd: BorrowedFd<'_>, from: u64) -> Option<std::ops::Range<u64>> {
    use nix::unistd::{Whence, lseek};

    let seek = |from: u64, what| lseek(fd, i64::try_from(from).ok()?, what).ok()?.try_into().ok();
    let start: u64 = seek(from, Whence::SeekData)?;
    let end = seek(start, Whence::SeekHole)?;
    (end > start).then_some(start..end)
}

/// The same, with its errors told from the end of the data.
pub(crate) fn data_from(fd: BorrowedFd<'_>, from: u64) -> Result<Option<std::ops::Range<u64>>> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};

    let seek = |from: u64, what| match lseek(fd, i64::try_from(from).unwrap_or(i64::MAX), what) {
        Ok(at) => Ok(Some(at.unsigned_abs())),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(Error::system("lseek", errno as i32)),
    };
    loop {
        let Some(start) = seek(from, Whence::SeekData)? else { return Ok(None) };
        let Some(end) = seek(start, Whence::SeekHole)? else { return Ok(None) };
        // Else the file was punched between the two looks.
        if end > start {
            return Ok(Some(start..end));
        }
    }
}

/// Makes the file so long at least. What is new has no memory.
pub(crate) fn lengthen(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    if file_size(fd)? >= len {
        return Ok(());
    }
    if exceeds_limit(len) {
        return Err(Error::NoSpace);
    }
    as_file(fd).set_len(len).map_err(|error| io_error("ftruncate", &error))
}

/// Bytes that the file's device still has for this process. None if that cannot be told: some file systems have no
/// limit.
pub(crate) fn available(fd: BorrowedFd<'_>) -> Option<u64> {
    let device = nix::sys::statvfs::fstatvfs(fd).ok()?;
    // The types differ between systems.
    #[allow(clippy::useless_conversion)]
    let (blocks, left) = (u64::from(device.blocks()), u64::from(device.blocks_available()));
    (blocks > 0).then(|| left.saturating_mul(device.fragment_size()))
}

/// Length of the file in bytes.
pub(crate) fn file_size(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(status(fd)?.size_bytes)
}

/// Reads exactly the buffer; a file that ends earlier is a damaged one.
pub(crate) fn pread_exact(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<()> {
    as_file(fd).read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::Corrupt { what: Damage::Truncated, offset },
        _ => io_error("pread", &error),
    })
}

/// Writes all of the bytes.
pub(crate) fn pwrite_all(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<()> {
    if exceeds_limit(offset.saturating_add(bytes.len() as u64)) {
        return Err(Error::NoSpace);
    }
    as_file(fd).write_all_at(bytes, offset).map_err(|error| match error.kind() {
        ErrorKind::WriteZero => Error::NoSpace,
        _ => io_error("pwrite", &error),
    })
}

/// Empties the file. Only for creation that starts over, while its lock is held and no magic stands:
/// whoever else had the file mapped would die of SIGBUS.
pub(crate) fn shrink_to_zero(fd: BorrowedFd<'_>) -> Result<()> {
    as_file(fd).set_len(0).map_err(|error| io_error("ftruncate", &error))
}

/// Brings the file's data to its device; memory has none. On Linux that includes what was stored through mappings.
pub(crate) fn sync_data(fd: BorrowedFd<'_>) -> Result<()> {
    as_file(fd).sync_data().map_err(|error| io_error("fdatasync", &error))
}

/// What a sync says that would have to bring to the device what the device has refused before.
#[cold]
pub(crate) fn refused_before() -> Error {
    Error::System { call: "fdatasync", errno: libc::EIO }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::shm::Files;

    #[test]
    fn allocate_punch_and_copy() {
        let files = Files::anonymous().expect("memfd");
        let fd = files.fd();
        allocate(fd, 0, 0).expect("nothing");
        allocate(fd, 0, 128 << 10).expect("fits");
        assert_eq!(file_size(fd), Ok(128 << 10));
        pwrite_all(fd, b"hello", 64 << 10).expect("writable");
        let mut bytes = [0; 5];
        pread_exact(fd, &mut bytes, 64 << 10).expect("readable");
        assert_eq!(&bytes, b"hello");
        assert_eq!(next_data(fd, 0), Some(64 << 10..68 << 10));
        assert_eq!(next_data(fd, 68 << 10), None);
        punch(fd, 64 << 10, 64 << 10).expect("punch");
        pread_exact(fd, &mut bytes, 64 << 10).expect("a hole reads as zeros");
        assert_eq!(bytes, [0; 5]);
        assert_eq!(file_size(fd), Ok(128 << 10));
        let past = pread_exact(fd, &mut bytes, (128 << 10) - 2);
        assert_eq!(past, Err(Error::Corrupt { what: Damage::Truncated, offset: (128 << 10) - 2 }));
        sync_data(fd).expect("sync");
    }

    #[test]
    fn the_impossible_is_an_error() {
        let files = Files::anonymous().expect("memfd");
        assert!(matches!(allocate(files.fd(), u64::MAX, 1), Err(Error::TooLarge(_))));
        assert_eq!(allocate(files.fd(), i64::MAX as u64, 1), Err(Error::NoSpace));
        // A sealed memfd cannot shrink, whoever asks.
        allocate(files.fd(), 0, 4096).expect("fits");
        assert_eq!(shrink_to_zero(files.fd()), Err(Error::Permission));
        let (reader, _writer) = nix::unistd::pipe().expect("pipe");
        assert!(allocate(reader.as_fd(), 0, 1).is_err());
    }
}
