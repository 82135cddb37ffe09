//! Values on their way to the log and to their place: loaded once, stored twice.

#[cfg(any(not(target_arch = "x86_64"), miri, feature = "inject"))]
use super::bytes::store_words;
use super::bytes::{SHORT_BYTES, store_padded};
use super::hook;
#[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
use super::sixteen;
use super::view::{Block, View};
use crate::format::Offset;
use std::sync::atomic::{AtomicU64, Ordering};

/// Private bytes on their way to more than one place in the object: whole words, more than half of [`SHORT_BYTES`] and not
/// more than these.
#[derive(Clone, Copy)]
pub(crate) struct Lot<'a> {
    /// Builds that die at every store want to see every word.
    #[cfg(any(not(target_arch = "x86_64"), miri, feature = "inject"))]
    bytes: &'a [u8],
    #[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
    parts: [sixteen::Bytes; 4],
    len: usize,
    from: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Lot<'a> {
    const MOST_WORDS: usize = SHORT_BYTES / 8;

    /// The bytes, if they are so many.
    #[inline(always)]
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Lot<'a>> {
        let len = bytes.len();
        if !Lot::fits(len) {
            return None;
        }
        #[cfg(any(not(target_arch = "x86_64"), miri, feature = "inject"))]
        return Some(Lot { bytes, len, from: std::marker::PhantomData });
        #[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
        {
            // SAFETY: every 16 bytes lie inside of the slice; the last ones may overlap others.
            let at = |i: usize| unsafe { bytes.as_ptr().add(i).cast::<sixteen::Bytes>().read_unaligned() };
            Some(Lot {
                parts: [at(0), at(16), at(len - 32), at(len - 16)],
                len,
                from: std::marker::PhantomData,
            })
        }
    }

    /// Can so many bytes be a lot?
    #[inline(always)]
    pub(crate) const fn fits(len: usize) -> bool {
        // One comparison for all: what comes before the least is a very large number, and so is what is no whole word.
        len.wrapping_sub(SHORT_BYTES / 2 + 8).rotate_right(3) < SHORT_BYTES / 2 / 8
    }

    /// Tells the compiler that so many bytes can be one.
    ///
    /// # Safety
    /// They can.
    #[inline(always)]
    pub(crate) unsafe fn assume_fit(len: usize) {
        // SAFETY: the caller's promise; the second is a part of the first.
        unsafe {
            std::hint::assert_unchecked(Lot::fits(len));
            std::hint::assert_unchecked(0 < len && len <= SHORT_BYTES);
        }
    }

    /// Their number.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> u64 {
        self.len as u64
    }

    /// Stores them.
    ///
    /// # Safety
    /// `to` must be a multiple of 8 and valid for writing so many bytes.
    #[inline(always)]
    unsafe fn store(&self, to: *mut u8) {
        // SAFETY: by the caller's promise.
        unsafe {
            #[cfg(any(not(target_arch = "x86_64"), miri, feature = "inject"))]
            store_words(to, self.bytes);
            #[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
            {
                sixteen::store_shared_at::<0>(to, self.parts[0]);
                sixteen::store_shared_at::<16>(to, self.parts[1]);
                sixteen::store_shared_before::<32>(to, self.len, self.parts[2]);
                sixteen::store_shared_before::<16>(to, self.len, self.parts[3]);
            }
        }
    }
}

impl View<'_> {
    /// As [`Segment::fill`], in what is known of the object.
    #[inline(always)]
    #[must_use]
    pub(crate) fn fill(&self, at: Offset, words: [u64; 2], first: &[u8], second: &[u8]) -> bool {
        let padded = |bytes: &[u8]| (bytes.len() + 7) & !7;
        let second_at = 16 + padded(first);
        if at.0 % 8 != 0 || !self.contains(at, (second_at + padded(second)) as u64) {
            return false;
        }
        let to = self.address(at).cast_mut();
        // SAFETY: the whole range lies inside of the object, and all three parts begin at multiples of 8.
        unsafe {
            for (i, word) in words.iter().enumerate() {
                hook();
                (*to.add(8 * i).cast::<AtomicU64>()).store(word.to_le(), Ordering::Relaxed);
            }
            store_padded(to.add(16), first);
            match Lot::of(second) {
                Some(lot) => lot.store(to.add(second_at)),
                None => store_padded(to.add(second_at), second),
            }
        }
        true
    }

    /// Copies private bytes into a range of the object.
    ///
    /// # Safety
    /// The range must have been checked, and begin at a multiple of 8.
    #[inline(always)]
    pub(crate) unsafe fn copy_in_lot(&self, at: Offset, lot: &Lot) {
        debug_assert!(at.0 % 8 == 0 && self.contains(at, lot.len as u64));
        // SAFETY: by the caller's promise.
        unsafe { lot.store(self.address(at).cast_mut()) };
    }
}

impl<const N: usize> Block<'_, N> {
    /// Stores bytes from word `FIRST` on.
    #[inline(always)]
    pub(crate) fn store_lot<const FIRST: usize>(&self, lot: &Lot) {
        const { assert!(FIRST + Lot::MOST_WORDS <= N) };
        // SAFETY: a lot has at most so many words, and the block has them.
        unsafe { lot.store(self.words().as_ptr().add(FIRST).cast_mut().cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a lot is stored whole wherever it goes, and only what fits is one. Method: every length.
    #[test]
    fn lots_are_stored_whole() {
        let bytes: Vec<u8> = (1..=100).collect();
        for len in 0..bytes.len() {
            let lot = Lot::of(&bytes[..len]);
            assert_eq!(lot.is_some(), [40, 48, 56, 64].contains(&len), "{len} bytes");
            let Some(lot) = lot else { continue };
            let into: [AtomicU64; 10] = [const { AtomicU64::new(u64::MAX) }; 10];
            // SAFETY: there is room for it from the second word on.
            unsafe { lot.store(into.as_ptr().add(1).cast_mut().cast()) };
            let words: Vec<u64> = into.iter().map(|word| word.load(Ordering::Relaxed)).collect();
            let stored: Vec<u8> = words[1..].iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!((words[0], &stored[..len]), (u64::MAX, &bytes[..len]));
            assert!(stored[len..].iter().all(|byte| *byte == 0xff), "{len} bytes");
        }
    }
}
