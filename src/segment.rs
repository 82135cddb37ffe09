//! The mapped object: the only place where an offset becomes a pointer.
//!
//! Owns the mapping, the bound up to which it may be touched, and the few primitives through which all
//! shared bytes are read and written. It knows nothing of what the bytes mean. Every shared store of the
//! library passes through [`Segment::store`], [`Segment::compare_exchange`], [`Segment::add_advisory`] or
//! [`Segment::copy_in`]; these are where test builds die on purpose.
//!
//! A load outside of the object gives 0, which is "nothing" in every structure of the format; a store there
//! does nothing. So no offset read from shared memory can lead to a wild access.

mod bytes;
pub(crate) mod copy;
#[cfg(feature = "inject")]
pub mod inject;
pub(crate) mod lot;
mod prefetch;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod sixteen;
pub(crate) mod view;

use crate::error::{Damage, Error, Result};
use crate::format::bucket::LINE_BYTES;
use crate::format::{MAX_OBJECT_BYTES, Offset, PAGE_BYTES, header};
use crate::os::guard::{self, Sign, Watch};
use crate::os::map::{HUGE_PAGE_BYTES, Mapping};
use crate::os::shm::{Files, verify_or_reopen};
use crate::os::space;
use crate::os::turn::Turn;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, compiler_fence, fence};

/// Where address space is scarce a mapping is extended to a multiple of this: former ones stay, so it is not to happen
/// with every step of growth.
const SCARCE_STEP: u64 = 256 << 10;

/// The mapping of one object by this process.
pub(crate) struct Segment {
    files: Arc<Files>,
    /// First byte of the newest, largest mapping.
    base: AtomicPtr<u8>,
    /// Bytes that may be touched: at most the file's size and the mapping's. Never shrinks. It is stored
    /// after `base`, and read before it, so that a limit never meets a smaller mapping.
    limit: AtomicU64,
    /// All mappings, the newest first: pointers into older ones stay valid until the segment goes.
    mappings: AtomicPtr<MappingNode>,
    writable: bool,
    /// Threads that wait for a lock word sleep on it.
    futexes: bool,
    /// The object's records have checksums.
    checksums: bool,
    /// Huge pages are wanted.
    huge: AtomicBool,
    /// Held by the thread that maps more.
    growing: Turn,
    /// Whose mappings these are, for those who watch them.
    owner: u64,
}

struct MappingNode {
    /// Tells when pages have been taken away; goes before the mapping.
    watch: Option<Watch>,
    mapping: Mapping,
    older: *mut MappingNode,
}

/// What the gate's lock word says when pages have been taken away: free, and of a version that it never has. All who
/// look at it have to look up the roots again, and are told there.
const SIGN: Sign = Sign { at: header::GATE.0 as usize, word: !0xf_ffff };

// SAFETY: the raw pointers are to memory that lives as long as the segment, is mapped shared, and is only
// accessed by atomic operations or by copies that tolerate races.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps the object, reserving address space for `reserve` bytes or what can be had. `futexes` says whether
    /// threads may sleep on its words, `checksums` whether records have them.
    pub(crate) fn map(
        files: Arc<Files>,
        reserve: u64,
        writable: bool,
        futexes: bool,
        checksums: bool,
    ) -> Result<Segment> {
        let size = space::file_size(files.fd())? / LINE_BYTES * LINE_BYTES;
        if size < header::FIXED_PAGES as u64 * PAGE_BYTES {
            return Err(Error::corrupt(Damage::Truncated, Offset(size)));
        }
        let mapping = Mapping::reserve(files.fd(), reserve.min(MAX_OBJECT_BYTES), size, writable)?;
        let base = mapping.base();
        let limit = size.min(mapping.len() as u64);
        let owner = guard::new_owner();
        let node = MappingNode::new(mapping, owner, std::ptr::null_mut());
        Ok(Segment {
            files,
            base: AtomicPtr::new(base),
            limit: AtomicU64::new(limit),
            mappings: AtomicPtr::new(node),
            writable,
            futexes,
            checksums,
            huge: AtomicBool::new(false),
            growing: Turn::new(),
            owner,
        })
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// The object's descriptor, found again if somebody has closed it behind our back.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>> {
        verify_or_reopen(&self.files)
    }

    /// Do records have checksums?
    #[inline]
    pub(crate) fn has_checksums(&self) -> bool {
        self.checksums
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Bytes that may be touched at present.
    #[inline(always)]
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    /// Is the range inside of the object? Looks at the file again if it seems not to be.
    #[inline(always)]
    pub(crate) fn contains(&self, at: Offset, len: u64) -> bool {
        match at.0.checked_add(len) {
            Some(end) => end <= self.limit() || self.contains_now(end),
            None => false,
        }
    }

    #[cold]
    #[inline(never)]
    fn contains_now(&self, end: u64) -> bool {
        self.refresh_limit(end).is_ok() && end <= self.limit()
    }

    /// Checks that a range which this process is about to use can be reached by it.
    pub(crate) fn require(&self, at: Offset, len: u64) -> Result<()> {
        let end = at.0.checked_add(len).ok_or(Error::TooLarge("an offset exceeds 64 bits"))?;
        if end > self.limit() {
            self.refresh_limit(end)?;
            if end > self.limit() {
                return Err(Error::corrupt(Damage::Truncated, at));
            }
        }
        Ok(())
    }

    /// Takes note of the file's growth.
    pub(crate) fn refresh(&self) -> Result<()> {
        self.refresh_limit(space::file_size(self.fd()?)? / LINE_BYTES * LINE_BYTES)
    }

    /// Takes note of the file's growth; maps more if `end` lies beyond what is mapped.
    #[cold]
    pub(crate) fn refresh_limit(&self, end: u64) -> Result<()> {
        self.require_whole()?;
        let known = self.limit();
        // The limit is a multiple of the line, so that an aligned line that begins inside ends there, too.
        let size = space::file_size(self.fd()?)? / LINE_BYTES * LINE_BYTES;
        if size < known.min(self.newest_mapping().len() as u64) {
            return Err(Error::corrupt(Damage::Truncated, Offset(size)));
        }
        if size > MAX_OBJECT_BYTES {
            return Err(Error::corrupt(Damage::Header, Offset(size)));
        }
        if end > size { Ok(()) } else { self.reach(end, size) }
    }

    /// Maps more if `end` lies beyond what is mapped. The file has `size` bytes at least, which are whole lines.
    fn reach(&self, end: u64, size: u64) -> Result<()> {
        let _turn = self.growing.take();
        let mut mapped = self.newest_mapping().len() as u64;
        if end > mapped {
            let want = size.saturating_mul(4).min(MAX_OBJECT_BYTES);
            let need = size.next_multiple_of(SCARCE_STEP);
            let mut mapping = Mapping::reserve(self.fd()?, want, need, self.writable)
                .map_err(|_| Error::TooLarge("the object exceeds this process's address space"))?;
            if self.huge.load(Ordering::Relaxed) {
                mapping = mapping.aligned_copy(self.fd()?, self.writable).unwrap_or(mapping);
            }
            mapped = mapping.len() as u64;
            self.use_mapping(mapping);
        }
        // All threads read the limit all the time: it is not written without need.
        if size.min(mapped) > self.limit() {
            self.limit.fetch_max(size.min(mapped), Ordering::AcqRel);
        }
        Ok(())
    }

    /// Makes a mapping the newest. The turn is this thread's, and the mapping not smaller than the newest one.
    fn use_mapping(&self, mapping: Mapping) {
        let base = mapping.base();
        let older = self.mappings.load(Ordering::Acquire);
        let node = MappingNode::new(mapping, self.owner, older);
        self.mappings.store(node, Ordering::Release);
        // The base before the limit: whoever reads the limit first never meets a smaller mapping.
        self.base.store(base, Ordering::Release);
    }

    /// Fails if a page of the object was taken away while it was mapped, see [`crate::os::guard`].
    pub(crate) fn require_whole(&self) -> Result<()> {
        if self.is_whole() { Ok(()) } else { Err(Error::corrupt(Damage::Truncated, Offset(self.size_now()))) }
    }

    /// Is every page there, as far as is known?
    #[inline(always)]
    pub(crate) fn is_whole(&self) -> bool {
        !guard::any_is_cut() || self.has_whole_mappings()
    }

    /// The same for whoever has just stored something: if so, it went to the object, and not to a page that had been put in
    /// the place of one of the object's.
    #[inline(always)]
    pub(crate) fn is_whole_after_stores(&self) -> bool {
        // Whoever takes a page away waits until no processor uses the former mapping. On x86 loads and stores are made in an order in
        // which a store that comes later than that is followed by a load that sees the mark.
        self.fence_after_exchange();
        self.is_whole()
    }

    #[cold]
    #[inline(never)]
    fn has_whole_mappings(&self) -> bool {
        let mut node = self.mappings.load(Ordering::Acquire);
        // SAFETY: nodes are freed only by drop.
        while let Some(mapping) = unsafe { node.as_ref() } {
            if mapping.watch.as_ref().is_some_and(Watch::is_cut) {
                return false;
            }
            node = mapping.older;
        }
        true
    }

    /// The file's length, as far as it can be had.
    fn size_now(&self) -> u64 {
        self.fd().and_then(space::file_size).unwrap_or(0)
    }

    fn newest_mapping(&self) -> &Mapping {
        // SAFETY: nodes are freed only by drop.
        unsafe { &(*self.mappings.load(Ordering::Acquire)).mapping }
    }

    /// Asks for huge pages, for what there is and for what will come. Where they cannot be had nothing changes.
    pub(crate) fn use_huge_pages(&self) -> Result<()> {
        let _turn = self.growing.take();
        if !self.huge.swap(true, Ordering::Relaxed) {
            let mapping = self.newest_mapping().aligned_copy(self.fd()?, self.writable)?;
            // Where there are holes huge pages would be a waste.
            let mut from = 0;
            while let Some(data) = space::next_data(self.fd()?, from) {
                from = data.end;
                mapping.collapse(data.start as usize..data.end.min(mapping.len() as u64) as usize);
            }
            self.use_mapping(mapping);
        }
        Ok(())
    }

    /// The word at an offset that lies inside of the object.
    #[inline(always)]
    fn word_inside(&self, at: Offset) -> &AtomicU64 {
        debug_assert!(at.0 % 8 == 0 && at.0 + 8 <= self.limit());
        let base = self.base.load(Ordering::Acquire);
        // SAFETY: callers have compared the offset with the limit, which never exceeds the newest mapping,
        // and mappings live as long as `self`; the offset is a multiple of 8 and mappings are page-aligned.
        unsafe { &*base.add(at.0 as usize).cast::<AtomicU64>() }
    }

    /// The word at any offset, if there is one.
    #[inline(always)]
    fn word(&self, at: Offset) -> Option<&AtomicU64> {
        let at = Offset(at.0 & !7);
        if at.0 < self.limit() || self.contains(at, 8) { Some(self.word_inside(at)) } else { None }
    }

    /// Reads a word; 0 outside of the object.
    #[inline(always)]
    pub(crate) fn load(&self, at: Offset) -> u64 {
        self.word(at).map_or(0, |w| u64::from_le(w.load(Ordering::Relaxed)))
    }

    /// Reads a word before everything that follows in the program.
    #[inline(always)]
    pub(crate) fn load_acquire(&self, at: Offset) -> u64 {
        self.word(at).map_or(0, |w| u64::from_le(w.load(Ordering::Acquire)))
    }

    /// Writes a word after everything that precedes it in the program.
    #[inline(always)]
    pub(crate) fn store(&self, at: Offset, value: u64) {
        if let Some(w) = self.word(at) {
            hook();
            w.store(value.to_le(), Ordering::Release);
        }
    }

    /// Replaces `old` by `new`; else gives what is there. A full fence on success only together with
    /// [`fence_after_exchange`](Segment::fence_after_exchange).
    #[inline(always)]
    pub(crate) fn compare_exchange(&self, at: Offset, old: u64, new: u64) -> std::result::Result<(), u64> {
        let Some(w) = self.word(at) else { return Err(!old) };
        hook();
        match w.compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(u64::from_le(now)),
        }
    }

    /// Adds to an advisory word and gives its former value.
    pub(crate) fn add_advisory(&self, at: Offset, delta: u64) -> u64 {
        let mut now = self.load(at);
        loop {
            match self.compare_exchange(at, now, now.wrapping_add(delta)) {
                Ok(()) => return now,
                Err(_) if self.word(at).is_none() => return 0,
                Err(other) => now = other,
            }
        }
    }

    /// Orders all earlier stores before all later ones.
    #[inline(always)]
    pub(crate) fn fence_release(&self) {
        fence(Ordering::Release);
    }

    /// Orders all earlier loads before all later ones.
    #[inline(always)]
    pub(crate) fn fence_acquire(&self) {
        fence(Ordering::Acquire);
    }

    /// A full fence.
    #[inline(always)]
    pub(crate) fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    /// Makes an exchange that has succeeded just before a full fence: what was stored before is seen by others before
    /// anything is loaded afterwards. On x86 it is one already; in the language's model, and on machines where an exchange is
    /// a load and a store with something in between, it is not.
    #[inline(always)]
    pub(crate) fn fence_after_exchange(&self) {
        if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Do those who wait sleep on futexes, and are woken?
    pub(crate) fn sleeps_on_futexes(&self) -> bool {
        self.futexes
    }

    /// Address of the futex word of a lock word, if it lies in the object and the locking method sleeps on futexes.
    pub(crate) fn futex_address(&self, at: Offset) -> Option<*const u32> {
        if !self.futexes {
            return None;
        }
        self.word(at).map(|w| std::ptr::from_ref(w).cast())
    }

    /// Gives a range memory before it is used. Errors leave nothing changed but that some of it may have it.
    pub(crate) fn back(&self, at: Offset, len: u64) -> Result<()> {
        debug_assert!((at.0 + len) % LINE_BYTES == 0, "a part of a line is out of reach");
        space::allocate(self.fd()?, at.0, len)?;
        // The file reaches to there now: there is no need to ask for its size.
        let end = at.0 + len;
        if end > self.limit() {
            self.reach(end, end)?;
        }
        if self.huge.load(Ordering::Relaxed) {
            self.collapse_before(end, len);
        }
        Ok(())
    }

    /// Memory grows in small steps. When a step has filled huge pages to their end, the small ones give way.
    #[cold]
    fn collapse_before(&self, end: u64, len: u64) {
        let huge = HUGE_PAGE_BYTES as u64;
        let (first, last) = ((end - len) / huge * huge, end / huge * huge);
        let mapping = self.newest_mapping();
        if first < last && last <= self.limit().min(mapping.len() as u64) {
            mapping.collapse(first as usize..last as usize);
        }
    }

    /// Maps the pages of a range that is backed at once, which costs less than a fault for each.
    pub(crate) fn populate(&self, at: Offset, len: u64) {
        let mapping = self.newest_mapping();
        if self.contains(at, len) && at.0 + len <= mapping.len() as u64 {
            mapping.populate_write(at.0 as usize..(at.0 + len) as usize);
        }
    }

    /// Gives the memory of a range back to the system.
    pub(crate) fn punch(&self, at: Offset, len: u64) -> Result<()> {
        #[cfg(feature = "inject")]
        inject::before_punch()?;
        space::punch(self.fd()?, at.0, len)?;
        #[cfg(feature = "inject")]
        inject::punch_moment();
        Ok(())
    }

    /// Reads a range through its descriptor: unlike a load, that cannot fault where pages were given back.
    ///
    /// # Errors
    /// [`Damage::Truncated`] if the file has become too short.
    pub(crate) fn read_file(&self, at: Offset, into: &mut [u8]) -> Result<()> {
        match self.fd() {
            Ok(fd) => space::pread_exact(fd, into, at.0),
            // The descriptor was closed behind our back and cannot be had again: the mapping is still there.
            Err(_) if self.contains(at, into.len() as u64) => {
                // SAFETY: the slice is as long as it says, and the range was just checked.
                unsafe { self.copy_out(at, into.as_mut_ptr(), into.len()) };
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The same, to memory that may be uninitialised.
    ///
    /// # Safety
    /// `into` must be valid for writing `len` bytes.
    pub(crate) unsafe fn read_file_raw(&self, at: Offset, into: *mut u8, len: usize) -> Result<()> {
        // SAFETY: by the caller's promise; the bytes are initialised before they become a slice.
        let into = unsafe {
            into.write_bytes(0, len);
            std::slice::from_raw_parts_mut(into, len)
        };
        self.read_file(at, into)
    }

    /// Writes everything to the file's device.
    pub(crate) fn sync(&self) -> Result<()> {
        #[cfg(feature = "inject")]
        inject::before_sync()?;
        space::sync_data(self.fd()?)?;
        #[cfg(feature = "inject")]
        inject::synced(self.files.identity().ino, 0..u64::MAX);
        Ok(())
    }

    /// Writes a part that is mapped to the file's device.
    pub(crate) fn sync_range(&self, at: Offset, len: u64) -> Result<()> {
        #[cfg(feature = "inject")]
        inject::before_sync()?;
        self.newest_mapping().sync(at.0 as usize..(at.0 + len) as usize)?;
        #[cfg(feature = "inject")]
        inject::synced(self.files.identity().ino, at.0..at.0 + len);
        Ok(())
    }
}

impl MappingNode {
    fn new(mapping: Mapping, owner: u64, older: *mut MappingNode) -> *mut MappingNode {
        let watch = guard::watch(mapping.base(), mapping.len(), owner, SIGN);
        Box::into_raw(Box::new(MappingNode { watch, mapping, older }))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let mut node = *self.mappings.get_mut();
        while !node.is_null() {
            // SAFETY: each node was made by Box::into_raw and is in the list once.
            let owned = unsafe { Box::from_raw(node) };
            node = owned.older;
            drop(owned.watch);
            drop(owned.mapping);
        }
    }
}

/// Where a test build may die: before every shared store, and at the steps of creation, which writes by
/// system calls.
#[inline(always)]
pub(crate) fn death_point() {
    hook();
}

#[inline(always)]
fn hook() {
    #[cfg(feature = "inject")]
    inject::before_store();
}
