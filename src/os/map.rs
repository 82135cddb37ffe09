//! Address space over a file.
//!
//! It owns mappings: the large reservation through which an object is used, and the single page that
//! keeps a lock alive. It hands out the base and the length and refuses to dereference either: which
//! bytes of a mapping exist is known to `segment`.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw};

use super::descriptor::io_error;
use crate::error::{Error, Result};

/// Largest reservation: 16 TiB.
const MAX_RESERVATION: u64 = 1 << 44;

/// What is tried next where the system refuses a reservation: this part of it.
const FALLBACK_DIVISOR: u64 = 4;

/// Linux 6.1; the libc crate has it for some systems only.
#[cfg(target_os = "linux")]
const MADV_COLLAPSE: libc::c_int = 25;

/// Size and alignment of huge pages.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Size of a page of memory.
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let answer = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        answer.ok().flatten().and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
    })
}

/// Part of a file, from its beginning, in this process's address space. It may reach far beyond the
/// end of the file; what lies there must not be touched.
#[derive(Debug)]
pub(crate) enum Mapping {
    /// At an address of the kernel's choice.
    Anywhere(MmapRaw),
    /// At an address where huge pages are possible.
    Aligned(Placed),
}

/// A mapping at an address of our choice.
#[derive(Debug)]
pub(crate) struct Placed {
    base: *mut u8,
    len: usize,
}

// SAFETY: the address is that of memory which every thread may use in the same way; who dereferences it answers for
// that. Unmapping is possible from every thread.
unsafe impl Send for Placed {}
// SAFETY: as above.
unsafe impl Sync for Placed {}

impl Drop for Placed {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `place` and is unmapped only here.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

impl Mapping {
    /// Reserves `want` bytes of address space over the file, or less where the system refuses, but not
    /// less than `need`. Nothing is allocated by that.
    pub(crate) fn reserve(fd: BorrowedFd<'_>, want: u64, need: u64, writable: bool) -> Result<Mapping> {
        const BEYOND: Error = Error::TooLarge("the object for this process's address space");

        let page = page_size() as u64;
        let need = need.max(1).checked_next_multiple_of(page).ok_or(BEYOND)?;
        if need > MAX_RESERVATION || usize::try_from(need).is_err() {
            return Err(BEYOND);
        }
        let most = want.min(MAX_RESERVATION).next_multiple_of(page).max(need);
        let smaller = |length: u64| (length / FALLBACK_DIVISOR).next_multiple_of(page).max(need);
        let mut length = most;
        loop {
            // A length beyond `usize` is refused like one that the system does not have.
            let attempt = usize::try_from(length).map_or(Err(libc::ENOMEM), |len| map(fd, len, writable));
            match attempt {
                // Address space is scarce here: leave some of it to the rest of the process.
                Ok(mapping) if length < most && smaller(length) < length => {
                    drop(mapping);
                    let modest = usize::try_from(smaller(length)).map_err(|_| BEYOND)?;
                    return map(fd, modest, writable).map_err(|errno| Error::system("mmap", errno));
                }
                Ok(mapping) => return Ok(mapping),
                Err(errno) if is_final(errno) || length == need => return Err(Error::system("mmap", errno)),
                Err(_) => length = smaller(length),
            }
        }
    }

    /// Maps the same part of the file once more, at an address where huge pages are possible, and asks for them.
    pub(crate) fn aligned_copy(&self, fd: BorrowedFd<'_>, writable: bool) -> Result<Mapping> {
        let len = self.len();
        let room = len.checked_add(HUGE_PAGE_BYTES).ok_or(Error::TooLarge("the address space"))?;
        let (access, flags) =
            (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing; it gives no access.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), room, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(last_error("mmap"));
        }
        // Of the gap, the part in front of the mapping and that behind it go back when the mapping is made or not.
        let front = base.cast::<u8>().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
        // SAFETY: the range lies inside of the gap, which nobody else knows of; all of the gap but the new mapping is
        // unmapped, and `front` and `len` are multiples of the page size.
        unsafe {
            let start = base.cast::<u8>().add(front);
            let placed = place(start, fd, len, writable);
            if front > 0 {
                libc::munmap(base, front);
            }
            let (behind, left) = match placed {
                Ok(_) => (start.add(len), room - front - len),
                Err(_) => (start, room - front),
            };
            if left > 0 {
                libc::munmap(behind.cast(), left);
            }
            let mapping = Mapping::Aligned(placed?);
            mapping.keep_out_of_core_files();
            #[cfg(target_os = "linux")]
            mapping.advise(0..len, libc::MADV_HUGEPAGE);
            Ok(mapping)
        }
    }

    /// Makes huge pages of those that lie wholly inside of a range that has memory. An optimization: what cannot be had
    /// stays as it is.
    pub(crate) fn collapse(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            let start = range.start.next_multiple_of(HUGE_PAGE_BYTES);
            let end = range.end / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            if start < end {
                self.advise(start..end, MADV_COLLAPSE);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// First byte.
    pub(crate) fn base(&self) -> *mut u8 {
        match self {
            Mapping::Anywhere(raw) => raw.as_mut_ptr(),
            Mapping::Aligned(placed) => placed.base,
        }
    }

    /// Length in bytes, a multiple of the page size.
    pub(crate) fn len(&self) -> usize {
        match self {
            Mapping::Anywhere(raw) => raw.len(),
            Mapping::Aligned(placed) => placed.len,
        }
    }

    /// Terabytes of reservation, and other people's data, do not belong in a core file.
    fn keep_out_of_core_files(&self) {
        #[cfg(target_os = "linux")]
        self.advise(0..self.len(), libc::MADV_DONTDUMP);
    }

    /// Makes the pages of a range present and writable ahead of use. An optimization: where it fails,
    /// the pages come one by one when they are touched.
    pub(crate) fn populate_write(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        self.advise(range, libc::MADV_POPULATE_WRITE);
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Writes the changed pages of a range to the file's device, and waits for it.
    pub(crate) fn sync(&self, range: Range<usize>) -> Result<()> {
        let Some((start, length)) = self.pages(range) else { return Ok(()) };
        // SAFETY: `pages` has clipped the range to the mapping, which lives as long as `self`; no content changes.
        match unsafe { libc::msync(start.cast(), length, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => match last_error("msync") {
                // The file system has no device to write to.
                Error::System { errno: libc::EINVAL, .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Gives the kernel an advice that changes no content; its answer does not matter.
    #[cfg(target_os = "linux")]
    fn advise(&self, range: Range<usize>, advice: libc::c_int) {
        if let Some((start, length)) = self.pages(range) {
            // SAFETY: `pages` has clipped the range to the mapping, which lives as long as `self`; the
            // advices used here only fault pages in or mark the mapping.
            unsafe { libc::madvise(start.cast(), length, advice) };
        }
    }

    /// Whole pages that cover the part of a range that lies inside of the mapping.
    fn pages(&self, range: Range<usize>) -> Option<(*mut u8, usize)> {
        let page = page_size();
        let start = range.start - range.start % page;
        let end = range.end.min(self.len()).next_multiple_of(page);
        (start < end).then(|| (self.base().wrapping_add(start), end - start))
    }
}

fn map(fd: BorrowedFd<'_>, length: usize, writable: bool) -> std::result::Result<Mapping, i32> {
    let mut options = MmapOptions::new();
    options.len(length).no_reserve_swap();
    let raw = if writable { options.map_raw(&fd) } else { options.map_raw_read_only(&fd) };
    let mapping = Mapping::Anywhere(raw.map_err(|e| e.raw_os_error().unwrap_or(libc::ENOMEM))?);
    mapping.keep_out_of_core_files();
    Ok(mapping)
}

/// Maps a file at an address, instead of what is there.
///
/// # Safety
/// What is there must be the caller's to replace.
unsafe fn place(base: *mut u8, fd: BorrowedFd<'_>, len: usize, writable: bool) -> Result<Placed> {
    let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = libc::MAP_FIXED | libc::MAP_SHARED | libc::MAP_NORESERVE;
    // SAFETY: by the caller's promise.
    let answer = unsafe { libc::mmap(base.cast(), len, access, flags, fd.as_raw_fd(), 0) };
    if answer == libc::MAP_FAILED { Err(last_error("mmap")) } else { Ok(Placed { base, len }) }
}

/// Whether a smaller length would be refused likewise.
fn is_final(errno: i32) -> bool {
    matches!(errno, libc::EACCES | libc::EPERM | libc::EBADF | libc::ENODEV)
}

fn last_error(call: &'static str) -> Error {
    io_error(call, &std::io::Error::last_os_error())
}

/// A page without access whose only purpose is to keep a file description open: no `close` reaches it,
/// a forked child does not get it, and the end of the process, or exec, removes it.
#[derive(Debug)]
pub(crate) struct HeldPage {
    address: *mut libc::c_void,
    fork_epoch: u64,
}

// SAFETY: the address is never dereferenced, and unmapping is possible from every thread.
unsafe impl Send for HeldPage {}
// SAFETY: as above; there is no operation on a shared reference that does anything.
unsafe impl Sync for HeldPage {}

impl HeldPage {
    /// Whether this process made it. A forked child has the value, but not the page.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.fork_epoch == super::process::fork_epoch()
    }
}

impl Drop for HeldPage {
    fn drop(&mut self) {
        // In a forked child the page is missing, and something else may have come to its address.
        if self.is_of_this_process() {
            // SAFETY: the mapping of one page was made by this process and is unmapped only here.
            unsafe { libc::munmap(self.address, page_size()) };
        }
    }
}

/// Maps one page of a file description so that it, and the locks on it, outlive its descriptors.
///
/// A fork of another thread in the instant between the two system calls gives the child a copy that
/// keeps the description open for as long as the child lives: whoever judges by the lock alone sees a
/// living process then.
pub(crate) fn lock_holder_page(fd: BorrowedFd<'_>) -> Result<HeldPage> {
    let fork_epoch = super::process::fork_epoch();
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing; it gives no access.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), page_size(), libc::PROT_NONE, libc::MAP_SHARED, fd.as_raw_fd(), 0)
    };
    if address == libc::MAP_FAILED {
        return Err(last_error("mmap"));
    }
    let page = HeldPage { address, fork_epoch };
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the range is the mapping just made.
        if unsafe { libc::madvise(address, page_size(), libc::MADV_DONTFORK) } != 0 {
            // A child would keep the lock of its dead parent: rather no lock at all.
            return Err(last_error("madvise"));
        }
        // SAFETY: as above. A core file with one page more would do no harm, so failure is ignored.
        unsafe { libc::madvise(address, page_size(), libc::MADV_DONTDUMP) };
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::shm::Files;
    use crate::os::space;

    #[test]
    fn a_reservation_outruns_the_file_and_sees_it_grow() {
        let files = Files::anonymous().expect("memfd");
        let mapping = Mapping::reserve(files.fd(), 1 << 30, 4096, true).expect("mapping");
        assert!(mapping.len() >= 4096 && mapping.len() % page_size() == 0);
        space::allocate(files.fd(), 0, 1 << 20).expect("fits");
        mapping.populate_write(0..1 << 20);
        // SAFETY: the byte is backed and inside of the mapping.
        unsafe { mapping.base().add(70_000).write(9) };
        let mut byte = [0];
        space::pread_exact(files.fd(), &mut byte, 70_000).expect("readable");
        assert_eq!(byte, [9]);
    }

    #[test]
    fn an_aligned_copy_shows_the_same_and_stays_writable_when_it_is_collapsed() {
        let files = Files::anonymous().expect("memfd");
        space::allocate(files.fd(), 0, 5 << 20).expect("fits");
        let plain = Mapping::reserve(files.fd(), 1 << 30, 4096, true).expect("mapping");
        let aligned = plain.aligned_copy(files.fd(), true).expect("mapping");
        assert_eq!((aligned.base() as usize % HUGE_PAGE_BYTES, aligned.len()), (0, plain.len()));
        for at in [70_000, 3 << 20] {
            // SAFETY: the byte is backed and inside of both mappings, which are the test's alone.
            unsafe { plain.base().add(at).write(9) };
            aligned.collapse(0..5 << 20);
            // SAFETY: as above.
            assert_eq!(unsafe { aligned.base().add(at).read() }, 9);
            // SAFETY: as above.
            unsafe { aligned.base().add(at).write(10) };
            // SAFETY: as above.
            assert_eq!(unsafe { plain.base().add(at).read() }, 10);
        }
        drop(plain);
        // SAFETY: as above; what was around the mapping when it was made is gone, and the mapping is not.
        assert_eq!(unsafe { aligned.base().add(70_000).read() }, 10);
    }

    #[test]
    fn an_impossible_wish_falls_back_and_an_impossible_need_fails() {
        let files = Files::anonymous().expect("memfd");
        let most = Mapping::reserve(files.fd(), u64::MAX, 1, false).expect("mapping");
        assert!(most.len() >= page_size());
        assert!(matches!(Mapping::reserve(files.fd(), 0, u64::MAX, true), Err(Error::TooLarge(_))));
        let small = Mapping::reserve(files.fd(), 0, 1, true).expect("mapping");
        assert_eq!(small.len(), page_size());
    }
}
