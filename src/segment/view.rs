//! A look at the object for the length of one operation: base and limit read once, ranges checked once.
//!
//! What the hot paths use instead of the word-by-word primitives of [`Segment`]: a [`Block`] is a range that
//! has been checked, so that its words need no further check.

use super::bytes::fill_words;
use super::{Segment, hook};
use crate::format::bucket::LINE_BYTES;
use crate::format::{Offset, PAGE_BYTES, UNIT_BYTES, header};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Base and limit of the mapping at one moment; both stay valid as long as the segment.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    base: *const u8,
    limit: u64,
    segment: PhantomData<&'a Segment>,
}

/// `N` words of the object.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, const N: usize>(&'a [AtomicU64; N]);

/// A block whose address is kept: what has been mapped stays where it is until the segment ends.
#[derive(Clone, Copy)]
pub(crate) struct Pinned<const N: usize>(NonNull<[AtomicU64; N]>);

impl<const N: usize> Pinned<N> {
    /// The block.
    ///
    /// # Safety
    /// To be called with the segment that it is of.
    #[inline(always)]
    pub(crate) unsafe fn block<'a>(&self, _: &'a Segment) -> Block<'a, N> {
        // SAFETY: by the caller's promise the mapping lives as long as the borrowed segment.
        Block(unsafe { self.0.as_ref() })
    }
}

/// Words of the object whose number is not known beforehand.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a>(&'a [AtomicU64]);

impl Segment {
    /// Keeps the address of a block, if it lies inside of the object.
    pub(crate) fn pin<const N: usize>(&self, at: Offset) -> Option<Pinned<N>> {
        self.block(at).map(|block| Pinned(NonNull::from(block.0)))
    }

    #[inline(always)]
    pub(crate) fn view(&self) -> View<'_> {
        // The limit first: the base is then that of the same mapping or of a larger one.
        let limit = self.limit();
        View { base: self.base.load(Ordering::Acquire), limit, segment: PhantomData }
    }

    /// `N` words at an offset, if they lie inside of the object.
    #[inline(always)]
    pub(crate) fn block<const N: usize>(&self, at: Offset) -> Option<Block<'_, N>> {
        match self.view().block(at) {
            Some(block) => Some(block),
            None => self.block_now(at),
        }
    }

    #[cold]
    #[inline(never)]
    fn block_now<const N: usize>(&self, at: Offset) -> Option<Block<'_, N>> {
        if self.contains(at, 8 * N as u64) { self.view().block(at) } else { None }
    }
}

impl<'a> View<'a> {
    /// The object's bytes as far as they were known when the view was taken.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Does a range lie inside of what is known of the object?
    #[inline(always)]
    pub(crate) fn contains(&self, at: Offset, len: u64) -> bool {
        at.0 <= self.limit && len <= self.limit - at.0
    }

    /// `N` words at an offset, if they lie inside of what is known of the object.
    #[inline(always)]
    pub(crate) fn block<const N: usize>(&self, at: Offset) -> Option<Block<'a, N>> {
        const { assert!(8 * N as u64 <= header::FIXED_PAGES as u64 * PAGE_BYTES) };
        // The fixed pages are inside of every object, so that the difference does not go below 0.
        if at.0 % 8 != 0 || at.0 > self.limit - 8 * N as u64 {
            return None;
        }
        // SAFETY: the range lies inside of the mapping, which lives as long as the segment; the address is a
        // multiple of 8; other processes change the words only in ways that atomics allow.
        Some(Block(unsafe { &*self.base.add(at.0 as usize).cast::<[AtomicU64; N]>() }))
    }

    /// A word that is known to lie inside of the object.
    ///
    /// # Safety
    /// The offset must be a multiple of 8, and its word have been checked in this view.
    #[inline(always)]
    pub(crate) unsafe fn known_word(&self, at: Offset) -> Block<'a, 1> {
        debug_assert!(at.0 % 8 == 0 && self.contains(at, 8));
        // SAFETY: by the caller's promise; else as in `block`.
        Block(unsafe { &*self.base.add(at.0 as usize).cast::<[AtomicU64; 1]>() })
    }

    /// `words` words at an offset, if they lie inside of what is known of the object.
    pub(crate) fn span(&self, at: Offset, words: u64) -> Option<Span<'a>> {
        if at.0 % 8 != 0 || !self.contains(at, 8 * words) {
            return None;
        }
        // SAFETY: the range was just checked.
        Some(unsafe { self.known_span(at, words) })
    }

    /// The same for words that are known to lie inside of the object.
    ///
    /// # Safety
    /// `span` must have given them before, to a thread whose later stores this one had seen before it took the view.
    #[inline(always)]
    pub(crate) unsafe fn known_span(&self, at: Offset, words: u64) -> Span<'a> {
        debug_assert!(at.0 % 8 == 0 && self.contains(at, 8 * words));
        let first = self.base.wrapping_add(at.0 as usize).cast::<AtomicU64>();
        // SAFETY: by the caller's promise: what is inside stays inside, and views get no smaller. Else as in `block`.
        Span(unsafe { std::slice::from_raw_parts(first, words as usize) })
    }

    /// `N` words at an offset that is a multiple of 16, of which the limit is one, too: `N` is at most 2.
    #[inline(always)]
    pub(crate) fn block_of_units<const N: usize>(&self, at: Offset) -> Option<Block<'a, N>> {
        const { assert!(N <= 2) };
        debug_assert!(at.0 % UNIT_BYTES == 0);
        // One comparison for "nowhere" and for "beyond the end": what comes before 0 is a very large number.
        if at.0.wrapping_sub(UNIT_BYTES) >= self.limit - UNIT_BYTES {
            return None;
        }
        // SAFETY: as in `block`.
        Some(Block(unsafe { &*self.base.add(at.0 as usize).cast::<[AtomicU64; N]>() }))
    }

    /// The line at a multiple of 64, of which the limit is one, too.
    #[inline(always)]
    pub(crate) fn aligned_line(&self, at: Offset) -> Option<Block<'a, 8>> {
        debug_assert!(at.0 % LINE_BYTES == 0 && self.limit % LINE_BYTES == 0);
        if at.0 >= self.limit {
            return None;
        }
        // SAFETY: as in `block`.
        Some(Block(unsafe { &*self.base.add(at.0 as usize).cast::<[AtomicU64; 8]>() }))
    }

    /// As [`Segment::store`], of words in a row, which are those of another place; nothing is stored if not all of
    /// them lie in what is known of the object.
    #[inline(always)]
    pub(crate) fn store_run(&self, at: Offset, values: &[AtomicU64]) {
        if at.0 % 8 != 0 || !self.contains(at, 8 * values.len() as u64) {
            return;
        }
        let to = self.address(at).cast::<AtomicU64>();
        for (i, value) in values.iter().enumerate() {
            hook();
            // SAFETY: the range was just checked, and is aligned; see `block`.
            unsafe { (*to.add(i)).store(value.load(Ordering::Relaxed), Ordering::Release) };
        }
    }

    /// Do so many bytes behind a block that [`block_of_units`](View::block_of_units) gave lie inside, too? Their
    /// number is the sum of two lengths of 32 bits.
    #[inline(always)]
    pub(crate) fn reaches_behind_units<const N: u64>(&self, at: Offset, len: u64) -> bool {
        at.0 + len <= self.limit - 8 * N
    }

    /// The gate's lock word: the pages that every object has are mapped by every segment.
    #[inline(always)]
    pub(crate) fn gate(&self) -> Block<'a, 1> {
        debug_assert!(self.contains(header::GATE, 8));
        // SAFETY: `Segment::map` has checked that the fixed pages are there.
        Block(unsafe { &*self.base.add(header::GATE.0 as usize).cast::<[AtomicU64; 1]>() })
    }

    /// The address of an offset inside of the object or at its end.
    #[inline(always)]
    pub(super) fn address(&self, at: Offset) -> *const u8 {
        self.base.wrapping_add(at.0 as usize)
    }
}

impl Span<'_> {
    /// Word `n`, if there are so many.
    #[inline(always)]
    pub(crate) fn load(&self, n: u64) -> Option<u64> {
        self.0.get(n as usize).map(|word| u64::from_le(word.load(Ordering::Relaxed)))
    }

    /// Gives the words from `n` on and before `end`, which there are, one value.
    #[inline(always)]
    pub(crate) fn fill(&self, n: u64, end: u64, value: u64) {
        let words = self.0.get(n as usize..end as usize).unwrap_or_default();
        // SAFETY: they are words of the object.
        unsafe { fill_words(words.as_ptr().cast_mut().cast(), words.len(), value) };
    }

    /// As [`Segment::store`], of word `n`, which there is.
    #[inline(always)]
    pub(crate) fn store(&self, n: u64, value: u64) {
        if let Some(word) = self.0.get(n as usize) {
            hook();
            word.store(value.to_le(), Ordering::Release);
        }
    }
}

impl<'a, const N: usize> Block<'a, N> {
    /// Word `n` alone.
    #[inline(always)]
    pub(crate) fn word(&self, n: usize) -> Block<'a, 1> {
        Block(std::array::from_ref(&self.0[n]))
    }

    #[inline(always)]
    pub(crate) fn load(&self, n: usize) -> u64 {
        u64::from_le(self.0[n].load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn load_acquire(&self, n: usize) -> u64 {
        u64::from_le(self.0[n].load(Ordering::Acquire))
    }

    #[inline(always)]
    pub(crate) fn store(&self, n: usize, value: u64) {
        hook();
        self.0[n].store(value.to_le(), Ordering::Release);
    }

    /// Stores words from word `n` on. They must fit.
    #[inline(always)]
    pub(crate) fn store_run<const M: usize>(&self, n: usize, values: [u64; M]) {
        for (word, value) in self.0[n..n + M].iter().zip(values) {
            hook();
            word.store(value.to_le(), Ordering::Release);
        }
    }

    /// The words from word `n` on, as far as there are `count` of them, as they are.
    #[inline(always)]
    pub(crate) fn run(&self, n: usize, count: usize) -> &[AtomicU64] {
        let rest = self.0.get(n..).unwrap_or_default();
        &rest[..count.min(rest.len())]
    }

    /// As [`Segment::compare_exchange`].
    #[inline(always)]
    pub(crate) fn compare_exchange(&self, n: usize, old: u64, new: u64) -> Result<(), u64> {
        hook();
        match self.0[n].compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(u64::from_le(now)),
        }
    }

    #[inline(always)]
    pub(super) fn words(&self) -> &[AtomicU64; N] {
        self.0
    }
}
