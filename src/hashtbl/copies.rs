//! Finding into memory that the caller has: the newest binding, without a copy in between.
//!
//! Owns the short way of a find, which has no lock and no `Result`, and what follows where that does not fit: long
//! values by pieces, groups, writers in the way.

use super::HashTable;
use crate::engine::sessions::{Seated, Taken};
use crate::error::{Error, Result};
use crate::format::Offset;
use crate::format::record::{PIECE_BYTES, PUNCHABLE_BYTES};
use crate::index::find::{self, Sight};
use crate::index::roots::Roots;
use crate::lock::Patience;
use crate::segment::Segment;
use crate::segment::view::View;
use crate::txn::{in_group, ops};

/// How a copy into the caller's buffer ended.
pub(super) enum Copied {
    Absent,
    TooSmall(u64),
    Whole(usize),
    Failed(Box<Error>),
}

/// How an attempt to copy a value by the short way ended, in one register: the value's length, or what no length is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuickCopy(usize);

impl QuickCopy {
    pub(crate) const ABSENT: QuickCopy = QuickCopy(usize::MAX);
    /// The general way is to be taken.
    pub(crate) const NOT_DONE: QuickCopy = QuickCopy(usize::MAX - 1);

    /// The length of what was copied.
    #[inline(always)]
    pub(crate) fn len(self) -> Option<usize> {
        // Slices have at most isize::MAX bytes.
        if self.0 as isize >= 0 { Some(self.0) } else { None }
    }
}

impl HashTable {
    /// Copies the newest binding into a buffer and gives its length. Other bytes of the buffer may be
    /// changed as well, also if the call fails.
    ///
    /// # Errors
    /// [`Error::TooSmall`] with the length needed; else those of [`find`](HashTable::find).
    #[inline]
    pub fn find_into(&self, key: &[u8], buffer: &mut [u8]) -> Result<Option<usize>> {
        let capacity = buffer.len();
        // SAFETY: the pointer and the length are those of the slice.
        unsafe { self.find_raw(key, buffer.as_mut_ptr(), capacity) }
    }

    /// As [`find_into`](HashTable::find_into), for a buffer that may be uninitialised.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline]
    pub unsafe fn find_raw(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> Result<Option<usize>> {
        // SAFETY: by the caller's promise.
        match unsafe { self.copy_value(key, buffer, capacity) } {
            Copied::Whole(len) => Ok(Some(len)),
            Copied::Absent => Ok(None),
            Copied::TooSmall(needed) => Err(Error::TooSmall { needed }),
            Copied::Failed(e) => Err(*e),
        }
    }

    /// Copies the newest binding to memory that may be uninitialised.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    pub(super) unsafe fn copy_value(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> Copied {
        let usual = match key.try_into() {
            // SAFETY: by the caller's promise.
            Ok(key) => unsafe { self.copy_usual(key, buffer, capacity) },
            Err(_) => QuickCopy::NOT_DONE,
        };
        let copied = match usual {
            // SAFETY: by the caller's promise.
            QuickCopy::NOT_DONE => unsafe { self.copy_quickly(key, buffer, capacity) },
            copied => copied,
        };
        match copied.len() {
            Some(len) => Copied::Whole(len),
            None if copied == QuickCopy::ABSENT => Copied::Absent,
            None => {
                // SAFETY: by the caller's promise.
                match unsafe { self.copy_in_pieces(key, buffer, capacity) }.len() {
                    Some(len) => Copied::Whole(len),
                    // SAFETY: as above.
                    None => unsafe { self.copy_value_slowly(key, buffer, capacity) },
                }
            }
        }
    }

    /// The short way of a find alone.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_quickly(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        let engine = &*self.table.engine;
        if engine.groups.any_open() {
            // SAFETY: by the caller's promise.
            return unsafe { self.copy_among_groups(key, buffer, capacity) };
        }
        // SAFETY: by the caller's promise.
        unsafe { self.copy_without_lock(key, buffer, capacity) }
    }

    /// Is a group open on this thread or on another one of the process? If not, a find need not ask which.
    #[inline(always)]
    pub(crate) fn is_among_groups(&self) -> bool {
        self.table.engine.groups.any_open()
    }

    /// The short way of a find for a key of 16 bytes that is found in its bucket, or absent where there are no overflow
    /// lines.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_usual(&self, key: &[u8; 16], buffer: *mut u8, capacity: usize) -> QuickCopy {
        if self.is_among_groups() {
            return QuickCopy::NOT_DONE;
        }
        // SAFETY: by the caller's promise.
        unsafe { self.copy_usual_alone(key, buffer, capacity) }
    }

    /// The same where no group is open.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_usual_alone(
        &self,
        key: &[u8; 16],
        buffer: *mut u8,
        capacity: usize,
    ) -> QuickCopy {
        let engine = &*self.table.engine;
        let table = &*self.table.view;
        let Some(hash) = table.key_hash.hash_usual(key) else { return QuickCopy::NOT_DONE };
        let sight = find::lookup_in_bucket(&engine.segment, &table.roots, hash, key);
        // SAFETY: by the caller's promise.
        unsafe { copy_seen::<true>(&table.roots, sight, buffer, capacity) }
    }

    /// The same while a group is open on this thread or, more often, on another one of the process.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_usual_among_groups(
        &self,
        key: &[u8; 16],
        buffer: *mut u8,
        capacity: usize,
    ) -> QuickCopy {
        match self.table.engine.take_group() {
            // SAFETY: by the caller's promise.
            Taken::InGroup(seat) => unsafe { self.copy_in_group(seat, key, buffer, capacity) },
            // SAFETY: as above.
            Taken::Alone => unsafe { self.copy_usual_alone(key, buffer, capacity) },
            Taken::None => QuickCopy::NOT_DONE,
        }
    }

    /// The short way for all keys while a group is open on this thread or, more often, on another one of the process.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[cold]
    #[inline(never)]
    unsafe fn copy_among_groups(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        match self.table.engine.take_group() {
            // SAFETY: by the caller's promise.
            Taken::InGroup(seat) => return unsafe { self.copy_in_group(seat, key, buffer, capacity) },
            Taken::None if !matches!(self.table.engine.seat_with_group(), Ok(false)) => {
                return QuickCopy::NOT_DONE;
            }
            Taken::None | Taken::Alone => {}
        }
        // SAFETY: by the caller's promise.
        unsafe { self.copy_without_lock(key, buffer, capacity) }
    }

    /// The short way in the group whose session has been taken.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    unsafe fn copy_in_group(
        &self,
        mut seat: Seated<'_>,
        key: &[u8],
        buffer: *mut u8,
        capacity: usize,
    ) -> QuickCopy {
        let mut w = seat.writer(Patience::Try);
        // SAFETY: by the caller's promise.
        match unsafe { in_group::copy(&mut w, &self.table.view, key, buffer, capacity) } {
            None => QuickCopy::NOT_DONE,
            Some(None) => QuickCopy::ABSENT,
            Some(Some(len)) => QuickCopy(len),
        }
    }

    /// The short way where no group is open on this thread.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    unsafe fn copy_without_lock(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        let engine = &*self.table.engine;
        let roots = &self.table.view.roots;
        let hash = self.table.view.key_hash.hash(key);
        let sight = find::quick_lookup(&engine.segment, roots, hash, key);
        // SAFETY: by the caller's promise.
        unsafe { copy_seen::<false>(roots, sight, buffer, capacity) }
    }

    /// The same for a long value, by pieces. Before each it makes sure that the record is still in use: so its memory is
    /// in as little danger of being given back as that of a short value.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[cold]
    #[inline(never)]
    unsafe fn copy_in_pieces(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        let engine = &*self.table.engine;
        let roots = &self.table.view.roots;
        let hash = self.table.view.key_hash.hash(key);
        let sight = find::quick_lookup(&engine.segment, roots, hash, key);
        let Some((sight, found)) = sight.and_then(|sight| Some((sight, sight.found?))) else {
            return QuickCopy::NOT_DONE;
        };
        let len = found.shape.value_len as usize;
        if found.shape.value_len < PUNCHABLE_BYTES || len > capacity || engine.groups.any_open() {
            return QuickCopy::NOT_DONE;
        }
        for done in (0..len).step_by(PIECE_BYTES) {
            if !sight.is_valid(roots) {
                return QuickCopy::NOT_DONE;
            }
            let (from, piece) = (found.value_at.add(done as u64), PIECE_BYTES.min(len - done));
            // SAFETY: by the caller's promise; the lookup has checked that the record lies inside of the object.
            unsafe { sight.view.copy_out(from, buffer.add(done), piece) };
        }
        if sight.is_valid(roots) { QuickCopy(len) } else { QuickCopy::NOT_DONE }
    }

    /// The same where something is in the way, or unusual.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[cold]
    #[inline(never)]
    unsafe fn copy_value_slowly(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> Copied {
        let segment = &self.table.engine.segment;
        let too_small = |len| Err(Error::TooSmall { needed: len });
        let result = self.read(
            key,
            move |view, found| match found {
                None => Ok(None),
                Some(f) if f.shape.value_len > capacity as u64 => too_small(f.shape.value_len),
                Some(f) => {
                    let len = f.shape.value_len as usize;
                    // SAFETY: by the caller's promise, and the length was just compared.
                    unsafe { copy_to(segment, view, f.value_at, buffer, len) }.map(|()| Some(len))
                }
            },
            |w, at| match at.value() {
                None => Ok(None),
                Some((_, len)) if len > capacity as u64 => too_small(len),
                Some((value, len)) => {
                    // The caller's memory may be uninitialised: fill it before it becomes a slice.
                    // SAFETY: by the caller's promise, and the length was just compared.
                    let into = unsafe {
                        buffer.write_bytes(0, len as usize);
                        std::slice::from_raw_parts_mut(buffer, len as usize)
                    };
                    ops::read_value(w, value, len, into);
                    Ok(Some(into.len()))
                }
            },
        );
        match result.and_then(|copied| copied) {
            Ok(Some(len)) => Copied::Whole(len),
            Ok(None) => Copied::Absent,
            Err(Error::TooSmall { needed }) => Copied::TooSmall(needed),
            Err(e) => Copied::Failed(Box::new(e)),
        }
    }
}

/// Copies the value that a lookup has seen; if `INLINE`, without calls.
///
/// # Safety
/// `buffer` must be valid for writing `capacity` bytes.
#[inline(always)]
unsafe fn copy_seen<const INLINE: bool>(
    roots: &Roots,
    sight: Option<Sight<'_>>,
    buffer: *mut u8,
    capacity: usize,
) -> QuickCopy {
    let Some(sight) = sight else { return QuickCopy::NOT_DONE };
    let Some(found) = sight.found else {
        return if sight.is_valid(roots) { QuickCopy::ABSENT } else { QuickCopy::NOT_DONE };
    };
    let len = found.shape.value_len as usize;
    if len > capacity {
        return QuickCopy::NOT_DONE;
    }
    // SAFETY: by the caller's promise, and the length was just compared; the lookup has checked that the record lies
    // inside of the object.
    let copied = unsafe {
        if INLINE {
            sight.view.copy_out_inline(found.value_at, buffer, len)
        } else {
            sight.view.copy_out_quickly(found.value_at, buffer, len)
        }
    };
    if copied && sight.is_valid(roots) { QuickCopy(len) } else { QuickCopy::NOT_DONE }
}

/// Copies a value to the caller's memory.
///
/// # Safety
/// `into` must be valid for writing `len` bytes, and the range must lie inside of the object.
#[inline(always)]
unsafe fn copy_to(segment: &Segment, view: View<'_>, at: Offset, into: *mut u8, len: usize) -> Result<()> {
    if (len as u64) < PUNCHABLE_BYTES {
        // SAFETY: by the caller's promise.
        unsafe { view.copy_out(at, into, len) };
        return Ok(());
    }
    // SAFETY: by the caller's promise.
    unsafe { segment.read_file_raw(at, into, len) }
}
