//! Copying between private and shared bytes, and comparing, while others may write.
//!
//! Owns that ranges lie inside of the object; how the bytes go is in [`bytes`](super::bytes). Whoever reads has to
//! validate afterwards that nothing changed.

use super::bytes::*;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::sixteen;
use super::view::{Block, View};
use super::{Segment, hook};
use crate::format::record::{PUNCHABLE_BYTES, SHORT_HEADER_BYTES};
use crate::format::{Offset, UNIT_BYTES};
use std::sync::atomic::{AtomicU64, Ordering};

impl View<'_> {
    /// Copies a range that lies inside of the object to private memory.
    ///
    /// # Safety
    /// `into` must be valid for writing `len` bytes, and the range have been checked.
    #[inline(always)]
    pub(crate) unsafe fn copy_out(&self, at: Offset, into: *mut u8, len: usize) {
        debug_assert!(self.contains(at, len as u64));
        let from = self.address(at);
        // SAFETY: both ranges are valid, by the caller's promise.
        unsafe { if len <= SHORT_BYTES { copy_short(from, into, len) } else { copy_more(from, into, len) } };
    }

    /// The same for whole units of 16 bytes at a multiple of 16.
    ///
    /// # Safety
    /// As for `copy_out`.
    #[inline(always)]
    pub(crate) unsafe fn copy_units_out(&self, at: Offset, into: *mut u8, len: usize) {
        debug_assert!(
            at.0 % UNIT_BYTES == 0 && len as u64 % UNIT_BYTES == 0 && self.contains(at, len as u64)
        );
        // SAFETY: both ranges are valid, by the caller's promise.
        unsafe { copy_units(self.address(at), into, len) };
    }

    /// The same, unless the range may lie in pages that were given back to the system: then it answers false.
    ///
    /// # Safety
    /// As for `copy_out`.
    #[inline(always)]
    pub(crate) unsafe fn copy_out_quickly(&self, at: Offset, into: *mut u8, len: usize) -> bool {
        debug_assert!(self.contains(at, len as u64));
        let from = self.address(at);
        if len <= SHORT_BYTES {
            // SAFETY: both ranges are valid, by the caller's promise.
            unsafe { copy_short(from, into, len) };
            return true;
        }
        if len as u64 >= PUNCHABLE_BYTES {
            return false;
        }
        // SAFETY: as above.
        unsafe { copy_more(from, into, len) };
        true
    }

    /// As `copy_out_quickly`, without calls, so that the caller can keep what it has in registers.
    ///
    /// # Safety
    /// As for `copy_out`.
    #[inline(always)]
    pub(crate) unsafe fn copy_out_inline(&self, at: Offset, into: *mut u8, len: usize) -> bool {
        debug_assert!(self.contains(at, len as u64));
        let from = self.address(at);
        // SAFETY: both ranges are valid, by the caller's promise.
        unsafe {
            if len <= SHORT_BYTES {
                copy_short(from, into, len);
            } else if (len as u64) < PUNCHABLE_BYTES {
                copy_much(from, into, len);
            } else {
                return false;
            }
        }
        true
    }

    /// Are the bytes at `at`, a range that has been checked, these?
    ///
    /// # Safety
    /// The range must have been checked; it is padded to whole words, as all ranges of the format.
    #[inline(always)]
    pub(crate) unsafe fn equals(&self, at: Offset, bytes: &[u8]) -> bool {
        // SAFETY: by the caller's promise.
        unsafe { equal::<0>(self.address(at), bytes) }
    }

    /// Is the key behind the short header of the record at `at` this one?
    ///
    /// # Safety
    /// The record must have been checked, and begin at a multiple of 16.
    #[inline(always)]
    pub(crate) unsafe fn equals_behind_header(&self, at: Offset, key: &[u8]) -> bool {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if key.len() == 16 {
            const BEHIND: isize = SHORT_HEADER_BYTES as isize;
            // SAFETY: both ranges have 16 bytes; the header has a multiple of 16, and mappings begin with pages.
            return unsafe {
                let key = key.as_ptr().cast::<sixteen::Bytes>().read_unaligned();
                sixteen::equals_aligned_at::<BEHIND>(self.address(at), key)
            };
        }
        // SAFETY: by the caller's promise.
        unsafe { equal::<{ SHORT_HEADER_BYTES as isize }>(self.address(at), key) }
    }
}

impl View<'_> {
    /// Copies private bytes into a range of the object and pads them with zeros to a whole word.
    ///
    /// # Safety
    /// The range, with its padding, must have been checked, and begin at a multiple of 8.
    #[inline(always)]
    pub(crate) unsafe fn copy_in(&self, at: Offset, bytes: &[u8]) {
        debug_assert!(at.0 % 8 == 0 && self.contains(at, (bytes.len() as u64 + 7) & !7));
        // SAFETY: by the caller's promise.
        unsafe { store_padded(self.address(at).cast_mut(), bytes) };
    }
}

impl<const N: usize> Block<'_, N> {
    /// Stores bytes from word `n` on, padded with zeros to a whole word. They must fit.
    #[inline(always)]
    pub(crate) fn store_bytes(&self, n: usize, bytes: &[u8]) {
        let room = &self.words()[n..];
        assert!(bytes.len() <= 8 * room.len());
        // SAFETY: the words from `n` on have room for the bytes.
        unsafe { store_padded(room.as_ptr().cast_mut().cast(), bytes) };
    }
}

impl Block<'_, 8> {
    /// Which of the six entries of a bucket or overflow line have the tag of `tag_bits` (bits 48 to 63): bit
    /// i for entry i.
    #[inline(always)]
    pub(crate) fn matches(&self, tag_bits: u64) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_mm_castsi128_pd, _mm_cmpeq_epi16, _mm_movemask_pd, _mm_set1_epi64x};
            let line = self.words().as_ptr().cast::<u8>();
            // SAFETY: the six words from word 1 on are part of the block; SSE2 is part of x86_64.
            unsafe {
                let want = _mm_set1_epi64x(tag_bits as i64);
                let lanes =
                    |entries| _mm_movemask_pd(_mm_castsi128_pd(_mm_cmpeq_epi16(entries, want))) as u32;
                lanes(sixteen::load_shared_at::<8>(line))
                    | (lanes(sixteen::load_shared_at::<24>(line)) << 2)
                    | (lanes(sixteen::load_shared_at::<40>(line)) << 4)
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            (0..6).fold(0, |found, i| found | ((((self.load(1 + i) ^ tag_bits) >> 48 == 0) as u32) << i))
        }
    }
}

impl Segment {
    /// Copies a range of the object, which must lie inside of it, to private memory.
    ///
    /// # Safety
    /// `into` must be valid for writing `len` bytes.
    pub(crate) unsafe fn copy_out(&self, at: Offset, into: *mut u8, len: usize) {
        debug_assert!(self.contains(at, len as u64));
        // SAFETY: by the caller's promise.
        unsafe { self.view().copy_out(at, into, len) };
    }

    /// The same for a part of a slice. It must begin at a multiple of 8, and lie inside with its last word.
    ///
    /// # Safety
    /// `into` must be valid for writing `len` bytes.
    pub(crate) unsafe fn copy_out_by_lines(&self, at: Offset, into: *mut u8, len: usize) {
        debug_assert!(at.0 % 8 == 0 && self.contains(at, len.next_multiple_of(8) as u64));
        let from = self.view().address(at);
        // SAFETY: by the caller's promise.
        unsafe { if len < LONG_BYTES { copy_much(from, into, len) } else { copy_by_lines(from, into, len) } }
    }

    /// Are the bytes at `at`, a range inside of the object, these?
    pub(crate) fn equals(&self, at: Offset, bytes: &[u8]) -> bool {
        if !self.contains(at, (bytes.len() as u64 + 7) & !7) {
            return false;
        }
        // SAFETY: the range was just checked.
        unsafe { self.view().equals(at, bytes) }
    }

    /// Fills a range that nobody refers to: some words, then two strings, each padded to a whole word. False,
    /// and nothing is written, if the range does not lie inside of the object.
    #[inline(always)]
    #[must_use]
    pub(crate) fn fill(&self, at: Offset, words: &[u64], first: &[u8], second: &[u8]) -> bool {
        let padded = |bytes: &[u8]| (bytes.len() + 7) & !7;
        let first_at = 8 * words.len();
        let second_at = first_at + padded(first);
        // Another process may have made the file longer than this one knows.
        if at.0 % 8 != 0 || !self.contains(at, (second_at + padded(second)) as u64) {
            return false;
        }
        let to = self.view().address(at).cast_mut();
        // SAFETY: the whole range lies inside of the object, and all three parts begin at multiples of 8.
        unsafe {
            for (i, word) in words.iter().enumerate() {
                hook();
                (*to.add(8 * i).cast::<AtomicU64>()).store(word.to_le(), Ordering::Relaxed);
            }
            store_padded(to.add(first_at), first);
            store_padded(to.add(second_at), second);
        }
        true
    }

    /// Copies private bytes into the object and pads them with zeros to a whole word.
    #[inline(always)]
    pub(crate) fn copy_in(&self, at: Offset, bytes: &[u8]) {
        if bytes.is_empty() || !self.contains(at, (bytes.len() as u64 + 7) & !7) {
            return;
        }
        let to = self.view().address(at).cast_mut();
        // SAFETY: the range was checked with its padding; offsets of strings are multiples of 8.
        unsafe { store_padded(to, bytes) };
    }
}

/// How bytes come to memory that is not read again soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// As usual: through the caches.
    Through,
    /// Past the caches, for so much at once that it would not stay there.
    Past,
}

impl Segment {
    /// Copies private bytes to a place in the object that nobody refers to, without padding. False, and nothing is
    /// written, if it does not lie inside of the object.
    #[must_use]
    pub(crate) fn copy_in_exactly(&self, at: Offset, bytes: &[u8], caching: Caching) -> bool {
        if !self.contains(at, bytes.len() as u64) {
            return false;
        }
        let to = self.view().address(at).cast_mut();
        hook();
        // SAFETY: the range lies inside of the object, and private memory does not overlap it.
        unsafe {
            match caching {
                Caching::Through => copy_by_lines(bytes.as_ptr(), to, bytes.len()),
                Caching::Past => copy_past_caches(bytes.as_ptr(), to, bytes.len()),
            }
        }
        true
    }

    /// Copies a range of the object to another one, which nobody refers to. False, and nothing is written, if one of
    /// them does not lie inside of the object, or if they overlap.
    #[must_use]
    pub(crate) fn copy_between(&self, from: Offset, to: Offset, len: u64) -> bool {
        if len == 0 {
            return true;
        }
        if from.0.abs_diff(to.0) < len || !self.contains(from, len) || !self.contains(to, len) {
            return false;
        }
        let view = self.view();
        hook();
        // SAFETY: both ranges lie inside of the object, and they do not overlap.
        unsafe { copy_by_lines(view.address(from), view.address(to).cast_mut(), len as usize) };
        true
    }
}
