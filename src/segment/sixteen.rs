//! Sixteen bytes at a time, of which one side is shared: loads and stores in assembly, which are outside of the language's
//! memory model. Whoever calls has checked the ranges.

pub(super) type Bytes = std::arch::x86_64::__m128i;

/// # Safety
/// 16 bytes must be readable at `from + I`, which may be shared.
#[inline(always)]
pub(super) unsafe fn load_shared_at<const I: isize>(from: *const u8) -> Bytes {
    let bytes;
    // SAFETY: by the caller's promise.
    unsafe {
        std::arch::asm!("movdqu {b}, [{p} + {i}]", p = in(reg) from, i = const I,
            b = out(xmm_reg) bytes, options(nostack, readonly, preserves_flags, pure));
    }
    bytes
}

/// # Safety
/// 16 bytes must be readable at `from + len - I`, which may be shared.
#[inline(always)]
pub(super) unsafe fn load_shared_before<const I: isize>(from: *const u8, len: usize) -> Bytes {
    let bytes;
    // SAFETY: by the caller's promise.
    unsafe {
        std::arch::asm!("movdqu {b}, [{p} + {n} - {i}]", p = in(reg) from, n = in(reg) len, i = const I,
            b = out(xmm_reg) bytes, options(nostack, readonly, preserves_flags, pure));
    }
    bytes
}

/// Are 16 bytes the same?
///
/// # Safety
/// 16 bytes must be readable at `from + I`, which may be shared, and is a multiple of 16.
#[inline(always)]
pub(super) unsafe fn equals_aligned_at<const I: isize>(from: *const u8, bytes: Bytes) -> bool {
    debug_assert!((from as isize + I) % 16 == 0);
    let mut equal = bytes;
    // SAFETY: by the caller's promise; SSE2 is part of x86_64.
    unsafe {
        std::arch::asm!("pcmpeqb {b}, [{p} + {i}]", p = in(reg) from, i = const I,
            b = inout(xmm_reg) equal, options(nostack, readonly, preserves_flags, pure));
        std::arch::x86_64::_mm_movemask_epi8(equal) == 0xffff
    }
}

/// # Safety
/// 16 bytes must be writable at `to + I`, which may be shared.
#[cfg(not(feature = "inject"))]
#[inline(always)]
pub(super) unsafe fn store_shared_at<const I: isize>(to: *mut u8, bytes: Bytes) {
    // SAFETY: by the caller's promise.
    unsafe {
        std::arch::asm!("movdqu [{p} + {i}], {b}", p = in(reg) to, i = const I,
            b = in(xmm_reg) bytes, options(nostack, preserves_flags));
    }
}

/// # Safety
/// 16 bytes must be writable at `to + len - I`, which may be shared.
#[cfg(not(feature = "inject"))]
#[inline(always)]
pub(super) unsafe fn store_shared_before<const I: isize>(to: *mut u8, len: usize, bytes: Bytes) {
    // SAFETY: by the caller's promise.
    unsafe {
        std::arch::asm!("movdqu [{p} + {n} - {i}], {b}", p = in(reg) to, n = in(reg) len, i = const I,
            b = in(xmm_reg) bytes, options(nostack, preserves_flags));
    }
}
