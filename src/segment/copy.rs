//! Copying between private and shared bytes, and comparing, while others may write.
//!
//! Plain copies that race are undefined behaviour, so short ranges go by relaxed atomic words and long ones
//! by a string instruction in assembly, which is outside of the language's memory model. Whoever reads has
//! to validate afterwards that nothing changed.

use super::Segment;
use crate::format::Offset;
use std::sync::atomic::{AtomicU64, Ordering};

/// From this length on the string instruction is faster than words.
const LONG_BYTES: usize = 512;

/// Six tags to look for at once, in all lanes.
#[derive(Clone, Copy)]
pub(crate) struct Pattern(u64);

impl Pattern {
    /// A pattern for entries whose bits 48 to 63 are those of `tag_bits`.
    #[inline(always)]
    pub(crate) fn new(tag_bits: u64) -> Pattern {
        Pattern(tag_bits)
    }
}

/// Up to 8 bytes as a little-endian number, the missing ones 0.
#[inline(always)]
fn tail_word(bytes: &[u8]) -> u64 {
    let n = bytes.len();
    debug_assert!(n < 8);
    if n >= 4 {
        let low = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as u64;
        let high = u32::from_le_bytes([bytes[n - 4], bytes[n - 3], bytes[n - 2], bytes[n - 1]]) as u64;
        low | (high << (8 * (n - 4)))
    } else {
        bytes.iter().rev().fold(0, |w, b| (w << 8) | *b as u64)
    }
}

impl Segment {
    /// Which of the six entries of the line at `at` have the pattern's tag: bit i for entry i. The line must
    /// lie inside of the object.
    #[inline(always)]
    pub(crate) fn line_matches(&self, at: Offset, pattern: Pattern) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_mm_cmpeq_epi16, _mm_movemask_pd, _mm_castsi128_pd, _mm_set1_epi64x, __m128i};
            let first: *const AtomicU64 = self.word_inside(at.word(1));
            let (a, b, c): (__m128i, __m128i, __m128i);
            // SAFETY: the six words lie inside of the mapping; the loads are in assembly because other
            // processes may write meanwhile.
            unsafe {
                std::arch::asm!(
                    "movdqu {a}, [{p}]", "movdqu {b}, [{p} + 16]", "movdqu {c}, [{p} + 32]",
                    p = in(reg) first, a = out(xmm_reg) a, b = out(xmm_reg) b, c = out(xmm_reg) c,
                    options(nostack, readonly, preserves_flags));
            }
            // SAFETY: SSE2 is part of x86_64.
            unsafe {
                let want = _mm_set1_epi64x(self_lane(pattern));
                let lane = |x| _mm_movemask_pd(_mm_castsi128_pd(_mm_cmpeq_epi16(x, want))) as u32;
                lane(a) | (lane(b) << 2) | (lane(c) << 4)
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            let mut found = 0;
            for i in 0..6 {
                let entry = u64::from_le(self.word_inside(at.word(1 + i)).load(Ordering::Relaxed));
                found |= (((entry ^ pattern.0) >> 48 == 0) as u32) << i;
            }
            found
        }
    }

    /// Copies a range of the object, which must lie inside of it, to private memory.
    ///
    /// # Safety
    /// `into` must be valid for writing `len` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_out(&self, at: Offset, into: *mut u8, len: usize) {
        debug_assert!(self.contains(at, len as u64));
        let from: *const AtomicU64 = self.word_inside_or_end(at);
        if len >= LONG_BYTES {
            // SAFETY: both ranges are valid, by the caller's promise and the check above.
            unsafe { copy_long(from.cast(), into, len) };
            return;
        }
        let words = len / 8;
        for i in 0..words {
            // SAFETY: word i lies inside of the range on both sides; the destination may be unaligned.
            unsafe { into.add(8 * i).cast::<u64>().write_unaligned((*from.add(i)).load(Ordering::Relaxed)) };
        }
        let rest = len % 8;
        if rest != 0 {
            // SAFETY: the object's ranges are padded to whole words, and `rest` bytes remain at `into`.
            unsafe {
                let last = (*from.add(words)).load(Ordering::Relaxed).to_ne_bytes();
                std::ptr::copy_nonoverlapping(last.as_ptr(), into.add(8 * words), rest);
            }
        }
    }

    /// Copies private bytes into the object and pads them with zeros to a whole word.
    pub(crate) fn copy_in(&self, at: Offset, bytes: &[u8]) {
        if bytes.is_empty() || !self.contains(at, (bytes.len() as u64 + 7) & !7) {
            return;
        }
        let to: *const AtomicU64 = self.word_inside(at);
        super::hook();
        let whole = bytes.len() / 8 * 8;
        if whole >= LONG_BYTES {
            let half = whole / 16 * 8;
            // SAFETY: the range lies inside of the mapping, and is nobody else's while it is filled.
            unsafe { copy_long(bytes.as_ptr(), to.cast_mut().cast(), half) };
            super::hook();
            // SAFETY: as above.
            unsafe { copy_long(bytes.as_ptr().add(half), to.cast_mut().cast::<u8>().add(half), whole - half) };
        } else {
            for (i, word) in bytes.chunks_exact(8).enumerate() {
                let word = u64::from_ne_bytes([
                    word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
                ]);
                // SAFETY: word i lies inside of the range.
                unsafe { (*to.add(i)).store(word, Ordering::Relaxed) };
            }
        }
        if whole < bytes.len() {
            super::hook();
            // SAFETY: the range was checked with its padding.
            unsafe { (*to.add(whole / 8)).store(tail_word(&bytes[whole..]).to_le(), Ordering::Relaxed) };
        }
    }

    /// Are the bytes at `at`, inside of the object, these?
    #[inline(always)]
    pub(crate) fn equals(&self, at: Offset, bytes: &[u8]) -> bool {
        let from: *const AtomicU64 = self.word_inside_or_end(at);
        let mut chunks = bytes.chunks_exact(8);
        let mut i = 0;
        for chunk in &mut chunks {
            let word = u64::from_ne_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
            // SAFETY: the caller has checked the range.
            if unsafe { (*from.add(i)).load(Ordering::Relaxed) } != word {
                return false;
            }
            i += 1;
        }
        let rest = chunks.remainder();
        if rest.is_empty() {
            return true;
        }
        let keep = (1u64 << (8 * rest.len())) - 1;
        // SAFETY: the object's ranges are padded to whole words.
        let last = u64::from_le(unsafe { (*from.add(i)).load(Ordering::Relaxed) });
        last & keep == tail_word(rest)
    }

    /// Like `word_inside`, for ranges that may be empty and end where the object does.
    #[inline(always)]
    fn word_inside_or_end(&self, at: Offset) -> *const AtomicU64 {
        debug_assert!(at.0 % 8 == 0 && at.0 <= self.limit());
        self.base.load(Ordering::Acquire).wrapping_add(at.0 as usize).cast::<AtomicU64>().cast_const()
    }

    /// Asks the processor to fetch the line at an offset.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at: Offset) {
        #[cfg(target_arch = "x86_64")]
        {
            let p = self.base.load(Ordering::Acquire).wrapping_add(at.0 as usize);
            // SAFETY: a prefetch of any address is harmless.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn self_lane(pattern: Pattern) -> i64 {
    pattern.0 as i64
}

/// Copies bytes of which one side is shared.
///
/// # Safety
/// Both ranges must be valid and must not overlap.
unsafe fn copy_long(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: by the caller's promise; the direction flag is clear in every Rust function.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        use std::sync::atomic::AtomicU8;
        for i in 0..len {
            // SAFETY: by the caller's promise; one side may be shared, so both go by atomic bytes.
            unsafe {
                let byte = (*from.add(i).cast::<AtomicU8>()).load(Ordering::Relaxed);
                (*to.add(i).cast::<AtomicU8>()).store(byte, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tail_word;

    #[test]
    fn tails_are_little_endian_and_zero_filled() {
        let bytes = [1u8, 2, 3, 4, 5, 6, 7];
        for n in 0..8 {
            let mut padded = [0; 8];
            padded[..n].copy_from_slice(&bytes[..n]);
            assert_eq!(tail_word(&bytes[..n]), u64::from_le_bytes(padded), "{n} bytes");
        }
    }
}
