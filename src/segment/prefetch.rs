//! Asking the processor for lines that will be read or written soon, so that several waits for memory overlap.
//!
//! It is a hint: it reads nothing as far as the program can tell, cannot fault, and nothing depends on it. Where the
//! processor is not known it does nothing.

use super::view::View;
use crate::format::Offset;

impl View<'_> {
    /// Asks for the line of an offset, if that lies inside of what is known of the object.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at: Offset) {
        if at.0 < self.limit() {
            fetch(self.address(at));
        }
    }

    /// Asks for the line of whatever offset. If it is not one of the object that costs time and does no harm.
    #[inline(always)]
    pub(crate) fn prefetch_anything(&self, at: Offset) {
        fetch(self.address(at));
    }

    /// Asks for the last line of `len` bytes that are about to be changed. A line that is not there does no harm.
    #[inline(always)]
    pub(crate) fn prefetch_last_for_writing(&self, at: Offset, len: u64) {
        fetch_last_for_writing(self.address(at), len as usize);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn fetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86_64; a prefetch may have any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn fetch_last_for_writing(first: *const u8, len: usize) {
    // SAFETY: a prefetch may have any address, and changes nothing; processors without this one ignore it.
    unsafe {
        std::arch::asm!("prefetchw [{first} + {len} - 1]", first = in(reg) first, len = in(reg) len,
            options(nostack, readonly, preserves_flags));
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline(always)]
fn fetch(line: *const u8) {
    // SAFETY: a prefetch may have any address, and changes nothing.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line,
            options(nostack, readonly, preserves_flags));
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline(always)]
fn fetch_last_for_writing(first: *const u8, len: usize) {
    let last = first.wrapping_add(len).wrapping_sub(1);
    // SAFETY: a prefetch may have any address, and changes nothing.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{last}]", last = in(reg) last,
            options(nostack, readonly, preserves_flags));
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline(always)]
fn fetch(_line: *const u8) {}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline(always)]
fn fetch_last_for_writing(_first: *const u8, _len: usize) {}
