//! Copying and comparing by address: the instructions, and which of them for how many bytes.
//!
//! Plain copies that race are undefined behaviour, so words go by relaxed atomics, and longer stretches by
//! loads and stores in assembly, which are outside of the language's memory model. It knows nothing of objects: whoever
//! calls has checked the ranges.

use super::hook;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::sixteen;
use std::sync::atomic::{AtomicU64, Ordering};

/// From this length on the processor's string instruction is used instead of a loop: as glibc does where its loop goes by
/// 16 bytes. Builds that die at every store would die too often.
pub(super) const LONG_BYTES: usize = if cfg!(feature = "inject") { 512 } else { 2048 };
/// Up to this length bytes are copied without a loop.
pub(super) const SHORT_BYTES: usize = 64;

/// Up to 7 bytes as a little-endian number, the missing ones 0.
#[inline(always)]
pub(super) fn tail_word(bytes: &[u8]) -> u64 {
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

/// Eight private bytes as memory holds them.
#[inline(always)]
pub(super) fn native_word(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// Are the bytes at `from + AT` these?
///
/// # Safety
/// As for `View::equals`.
#[inline(always)]
pub(super) unsafe fn equal<const AT: isize>(from: *const u8, bytes: &[u8]) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if bytes.len() == 16 {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8};
        // SAFETY: both ranges have 16 bytes; SSE2 is part of x86_64.
        return unsafe {
            let a = sixteen::load_shared_at::<AT>(from);
            let b = bytes.as_ptr().cast::<sixteen::Bytes>().read_unaligned();
            _mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) == 0xffff
        };
    }
    let from = from.wrapping_offset(AT).cast::<AtomicU64>();
    if bytes.len() == 8 {
        // SAFETY: by the caller's promise.
        return unsafe { (*from).load(Ordering::Relaxed) } == native_word(bytes);
    }
    // SAFETY: by the caller's promise.
    unsafe { equal_words(from, bytes) }
}

/// Are the bytes at `from` these?
///
/// # Safety
/// The range must have been checked; it is padded to whole words.
#[inline(never)]
pub(super) unsafe fn equal_words(from: *const AtomicU64, bytes: &[u8]) -> bool {
    {
        let mut chunks = bytes.chunks_exact(8);
        let mut i = 0;
        for chunk in &mut chunks {
            // SAFETY: by the caller's promise.
            if unsafe { (*from.add(i)).load(Ordering::Relaxed) } != native_word(chunk) {
                return false;
            }
            i += 1;
        }
        let rest = chunks.remainder();
        if rest.is_empty() {
            return true;
        }
        let keep = (1u64 << (8 * rest.len())) - 1;
        // SAFETY: by the caller's promise.
        let last = u64::from_le(unsafe { (*from.add(i)).load(Ordering::Relaxed) });
        last & keep == tail_word(rest)
    }
}

/// Copies bytes of which one side is shared, many at once, through the caches. The string instruction takes nearly twice
/// as long where its destination does not begin on a line and has gone from the second-level cache. Neither range need
/// begin or end with a word: no other bytes are taken.
///
/// # Safety
/// Both ranges must be valid and must not overlap.
pub(super) unsafe fn copy_by_lines(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if (LINE..LONG_BYTES).contains(&len) {
        // The last line may copy some bytes again.
        let last = len - LINE;
        for at in (0..last).step_by(LINE).chain([last]) {
            // SAFETY: by the caller's promise; the line lies inside of both ranges.
            unsafe { copy_line(from.add(at), to.add(at)) };
        }
        return;
    }
    if len < LONG_BYTES {
        // SAFETY: by the caller's promise.
        return unsafe { copy_long(from, to, len) };
    }
    let head = to.align_offset(LINE);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if head != 0 {
        // What the first line has beyond the head is copied again.
        // SAFETY: by the caller's promise; a line is shorter than what is copied.
        unsafe { copy_line(from, to) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: by the caller's promise; a line is shorter than what is copied.
    unsafe {
        copy_long(from, to, head);
    }
    // SAFETY: by the caller's promise.
    unsafe { copy_long(from.add(head), to.add(head), len - head) };
}

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;
/// Bytes of what records are made of.
const UNIT: usize = crate::format::UNIT_BYTES as usize;

/// Copies 64 bytes.
///
/// # Safety
/// As for `copy_by_lines`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) unsafe fn copy_line(from: *const u8, to: *mut u8) {
    // SAFETY: by the caller's promise.
    unsafe {
        std::arch::asm!(
            "movdqu {a}, [{from}]",
            "movdqu {b}, [{from} + 16]",
            "movdqu {c}, [{from} + 32]",
            "movdqu {d}, [{from} + 48]",
            "movdqu [{to}], {a}",
            "movdqu [{to} + 16], {b}",
            "movdqu [{to} + 32], {c}",
            "movdqu [{to} + 48], {d}",
            from = in(reg) from, to = in(reg) to,
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies private bytes past the caches, and waits until others can see them.
///
/// # Safety
/// Both ranges must be valid and must not overlap.
pub(super) unsafe fn copy_past_caches(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let head = to.align_offset(LINE).min(len);
        let lines = (len - head) / LINE * LINE;
        // SAFETY: by the caller's promise; stores past the caches begin at a multiple of 16, and the fence orders them
        // before everything that follows.
        unsafe {
            copy_long(from, to, head);
            if lines != 0 {
                std::arch::asm!(
                    "2:",
                    "movdqu {a}, [{from}]",
                    "movdqu {b}, [{from} + 16]",
                    "movdqu {c}, [{from} + 32]",
                    "movdqu {d}, [{from} + 48]",
                    "movntdq [{to}], {a}",
                    "movntdq [{to} + 16], {b}",
                    "movntdq [{to} + 32], {c}",
                    "movntdq [{to} + 48], {d}",
                    "add {from}, 64",
                    "add {to}, 64",
                    "sub {left}, 64",
                    "jnz 2b",
                    "sfence",
                    from = inout(reg) from.add(head) => _, to = inout(reg) to.add(head) => _,
                    left = inout(reg) lines => _,
                    a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                    options(nostack),
                );
            }
            let done = head + lines;
            copy_long(from.add(done), to.add(done), len - done);
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: by the caller's promise.
    unsafe {
        copy_long(from, to, len);
    }
}

/// Gives words in a row one value.
///
/// # Safety
/// `to` must be a multiple of 8 and valid for writing so many words.
#[inline(always)]
pub(super) unsafe fn fill_words(to: *mut u8, words: usize, value: u64) {
    let (mut to, mut left) = (to, words);
    // Builds that die at every store want to see every word.
    #[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
    // SAFETY: what is stored lies inside of the range; SSE2 is part of x86_64.
    unsafe {
        let pair = std::arch::x86_64::_mm_set1_epi64x(value.to_le() as i64);
        while left >= 8 {
            sixteen::store_shared_at::<0>(to, pair);
            sixteen::store_shared_at::<16>(to, pair);
            sixteen::store_shared_at::<32>(to, pair);
            sixteen::store_shared_at::<48>(to, pair);
            (to, left) = (to.add(LINE), left - 8);
        }
    }
    while left != 0 {
        hook();
        // SAFETY: as above.
        unsafe {
            (*to.cast::<AtomicU64>()).store(value.to_le(), Ordering::Release);
            (to, left) = (to.add(8), left - 1);
        }
    }
}

/// Stores bytes and pads them with zeros to a whole word.
///
/// # Safety
/// `to` must be a multiple of 8 and valid for writing the bytes with their padding.
#[inline(always)]
pub(super) unsafe fn store_padded(to: *mut u8, bytes: &[u8]) {
    let whole = bytes.len() / 8 * 8;
    if whole >= LONG_BYTES {
        let half = whole / 16 * 8;
        hook();
        // SAFETY: the range is valid, by the caller's promise.
        unsafe { copy_long(bytes.as_ptr(), to, half) };
        hook();
        // SAFETY: as above.
        unsafe { copy_long(bytes.as_ptr().add(half), to.add(half), whole - half) };
    } else {
        // SAFETY: as above.
        unsafe { store_words(to, &bytes[..whole]) };
    }
    if whole < bytes.len() {
        hook();
        // SAFETY: as above, with the padding.
        unsafe {
            (*to.add(whole).cast::<AtomicU64>()).store(tail_word(&bytes[whole..]).to_le(), Ordering::Relaxed);
        }
    }
}

/// Stores whole words.
///
/// # Safety
/// `to` must be a multiple of 8 and valid for writing as many bytes.
#[inline(always)]
pub(super) unsafe fn store_words(to: *mut u8, bytes: &[u8]) {
    // Builds that die at every store want to see every word.
    #[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
    // SAFETY: both ranges have these bytes.
    unsafe {
        let (mut to, mut bytes) = (to, bytes);
        while bytes.len() > SHORT_BYTES {
            let (first, rest) = bytes.split_at_unchecked(SHORT_BYTES);
            store_short(to, first);
            (to, bytes) = (to.add(SHORT_BYTES), rest);
        }
        store_short(to, bytes);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(feature = "inject"))))]
    for (i, word) in bytes.chunks_exact(8).enumerate() {
        hook();
        // SAFETY: both ranges have this word.
        unsafe { (*to.add(8 * i).cast::<AtomicU64>()).store(native_word(word), Ordering::Relaxed) };
    }
}

/// Stores at most [`SHORT_BYTES`], which are whole words, without a loop.
///
/// # Safety
/// As for `store_words`.
#[cfg(all(target_arch = "x86_64", not(miri), not(feature = "inject")))]
#[inline(always)]
pub(super) unsafe fn store_short(to: *mut u8, bytes: &[u8]) {
    use sixteen::{Bytes, store_shared_at, store_shared_before};
    let (from, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: every 16 bytes lie inside of both ranges; the last ones may overlap others.
    unsafe {
        let at = |i: usize| from.add(i).cast::<Bytes>().read_unaligned();
        if len > 32 {
            store_shared_at::<0>(to, at(0));
            store_shared_at::<16>(to, at(16));
            store_shared_before::<32>(to, len, at(len - 32));
            store_shared_before::<16>(to, len, at(len - 16));
        } else if len > 16 {
            store_shared_at::<0>(to, at(0));
            store_shared_before::<16>(to, len, at(len - 16));
        } else if len == 16 {
            store_shared_at::<0>(to, at(0));
        } else if len != 0 {
            (*to.cast::<AtomicU64>()).store(from.cast::<u64>().read_unaligned(), Ordering::Relaxed);
        }
    }
}

/// Copies a short range by words; the last one is taken whole.
///
/// # Safety
/// `from` must be a multiple of 8, padded to whole words, `into` valid for writing `len` bytes.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
pub(super) unsafe fn copy_words(from: *const AtomicU64, into: *mut u8, len: usize) {
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

/// Copies at most [`SHORT_BYTES`] of the object's bytes, without a loop.
///
/// # Safety
/// Both ranges must be valid.
#[inline(always)]
pub(super) unsafe fn copy_short(from: *const u8, into: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use sixteen::{Bytes, load_shared_at, load_shared_before};
        // SAFETY: every 16 bytes taken lie inside of both ranges; the last ones may overlap others.
        unsafe {
            let put = |i: usize, bytes| into.add(i).cast::<Bytes>().write_unaligned(bytes);
            if len > 32 {
                let (first, second) = (load_shared_at::<0>(from), load_shared_at::<16>(from));
                let (third, last) =
                    (load_shared_before::<32>(from, len), load_shared_before::<16>(from, len));
                put(0, first);
                put(16, second);
                put(len - 32, third);
                return put(len - 16, last);
            }
            if len >= 16 {
                let (first, last) = (load_shared_at::<0>(from), load_shared_before::<16>(from, len));
                put(0, first);
                return put(len - 16, last);
            }
            copy_few(from.cast(), into, len);
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: by the caller's promise.
    unsafe {
        copy_words(from.cast(), into, len);
    }
}

/// Copies less than 16 bytes; the last word is taken whole.
///
/// # Safety
/// As for `copy_words`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) unsafe fn copy_few(from: *const AtomicU64, into: *mut u8, len: usize) {
    debug_assert!(len < 16);
    if len == 0 {
        return;
    }
    // SAFETY: the object's ranges are padded to whole words, and all that is written lies within `len` bytes.
    unsafe {
        let mut first = (*from).load(Ordering::Relaxed);
        if len >= 8 {
            into.cast::<u64>().write_unaligned(first);
            if len > 8 {
                // The last eight bytes, of which the first ones are written once more.
                let (second, shift) = ((*from.add(1)).load(Ordering::Relaxed), 8 * (len - 8));
                into.add(len - 8).cast::<u64>().write_unaligned(first >> shift | second << (64 - shift));
            }
            return;
        }
        let mut into = into;
        if len & 4 != 0 {
            into.cast::<u32>().write_unaligned(first as u32);
            (into, first) = (into.add(4), first >> 32);
        }
        if len & 2 != 0 {
            into.cast::<u16>().write_unaligned(first as u16);
            (into, first) = (into.add(2), first >> 16);
        }
        if len & 1 != 0 {
            into.write(first as u8);
        }
    }
}

/// Copies whole units of 16 bytes of the object's bytes.
///
/// # Safety
/// Both ranges must be valid; `from` is a multiple of 16.
#[inline(always)]
pub(super) unsafe fn copy_units(from: *const u8, into: *mut u8, len: usize) {
    if len >= LONG_BYTES {
        // A value of one word, which is changed without a mark, is in the last unit, and has to be seen whole.
        let lines = len - UNIT;
        // SAFETY: by the caller's promise.
        unsafe {
            copy_by_lines(from, into, lines);
            return copy_few_units(from.add(lines), into.add(lines), UNIT);
        }
    }
    // SAFETY: as above.
    unsafe { copy_few_units(from, into, len) };
}

/// The same, each word at once.
///
/// # Safety
/// As for `copy_units`.
#[inline(always)]
unsafe fn copy_few_units(from: *const u8, into: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every unit lies inside of both ranges.
    unsafe {
        let (mut from, mut into, mut left) = (from, into, len);
        while left >= LINE {
            copy_line(from, into);
            (from, into, left) = (from.add(LINE), into.add(LINE), left - LINE);
        }
        while left != 0 {
            into.cast::<sixteen::Bytes>().write_unaligned(sixteen::load_shared_at::<0>(from));
            (from, into, left) = (from.add(UNIT), into.add(UNIT), left - UNIT);
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: as above.
    unsafe {
        copy_words(from.cast(), into, len);
    }
}

/// Copies more than [`SHORT_BYTES`] of the object's bytes.
///
/// # Safety
/// Both ranges must be valid.
#[inline(never)]
pub(super) unsafe fn copy_more(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: by the caller's promise.
    unsafe { copy_much(from, into, len) };
}

/// # Safety
/// As for `copy_more`, and `from` must be a multiple of 8, padded to whole words.
#[inline(always)]
pub(super) unsafe fn copy_much(from: *const u8, into: *mut u8, len: usize) {
    if len >= LONG_BYTES {
        // SAFETY: by the caller's promise.
        return unsafe { copy_long(from, into, len) };
    }
    let mut i = 0;
    // SAFETY: what is taken lies inside of both ranges.
    unsafe {
        while len - i > SHORT_BYTES {
            copy_short(from.add(i), into.add(i), SHORT_BYTES);
            i += SHORT_BYTES;
        }
        copy_short(from.add(i), into.add(i), len - i);
    }
}

/// Copies bytes of which one side is shared.
///
/// # Safety
/// Both ranges must be valid and must not overlap.
pub(super) unsafe fn copy_long(from: *const u8, to: *mut u8, len: usize) {
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
    use super::*;

    /// Goal: of every length exactly the bytes arrive, and none beside them. Method: each length, each alignment of the
    /// destination, with guards around it.
    #[test]
    fn short_copies_write_what_they_are_to_and_nothing_else() {
        let bytes: Vec<u8> = (1..=SHORT_BYTES as u8).collect();
        let from: Vec<AtomicU64> = bytes
            .chunks_exact(8)
            .map(|c| AtomicU64::new(u64::from_ne_bytes(c.try_into().expect("8"))))
            .collect();
        for len in 0..=SHORT_BYTES {
            for at in 0..8 {
                let mut into = [0xee; SHORT_BYTES + 16];
                // SAFETY: both sides have so many bytes.
                unsafe { copy_short(from.as_ptr().cast(), into.as_mut_ptr().add(at), len) };
                assert_eq!(&into[at..at + len], &bytes[..len], "{len} bytes to {at}");
                let around = into[..at].iter().chain(&into[at + len..]);
                assert!(around.copied().all(|byte| byte == 0xee), "{len} bytes to {at}");
            }
        }
    }

    /// Memory of a known alignment with guards around what is to be written.
    #[repr(align(64))]
    struct Guarded([u8; 4096]);

    /// Calls `write` with the address of byte `at`, and compares all bytes then.
    fn assert_writes(at: usize, expected: &[u8], write: impl FnOnce(*mut u8)) {
        let mut memory = Guarded([0xee; 4096]);
        write(memory.0[at..].as_mut_ptr());
        let end = at + expected.len();
        assert!(memory.0[at..end] == *expected, "{} bytes to {at}", expected.len());
        let mut around = memory.0[..at].iter().chain(&memory.0[end..]);
        assert!(around.all(|byte| *byte == 0xee), "{} bytes to {at}", expected.len());
    }

    /// Goal: as above, of copies by lines, from where no word begins as well. Method: lengths around those where another
    /// instruction takes over, and each alignment of both sides on a line; one that takes more than the bytes
    /// is seen by Miri, by the compiler's checks of alignment, and by tests/slices_edges.rs.
    #[test]
    fn copies_by_lines_write_what_they_are_to_and_nothing_else() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i * 7 + i / 256 + 1) as u8).collect();
        let step = if cfg!(miri) { 7 } else { 1 };
        let lengths =
            (0..30).chain(60..70).chain(250..264).chain([700]).chain(LONG_BYTES - 7..LONG_BYTES + 70);
        for len in lengths.step_by(step) {
            for (to, from) in (0..64).step_by(step).zip([0, 1, 4, 12].into_iter().cycle()) {
                let expected = &bytes[from..from + len];
                // SAFETY: both sides have so many bytes.
                assert_writes(to, expected, |to| unsafe { copy_by_lines(expected.as_ptr(), to, len) });
            }
        }
    }

    /// Goal: the same of words of one value. Method: each number of words up to some lines, from each word of a line on.
    #[test]
    fn words_are_filled_and_nothing_else() {
        for words in 0..40 {
            for first in 0..8 {
                for value in [0, u64::MAX, 0x0102_0304_0506_0708] {
                    let expected = value.to_le_bytes().repeat(words);
                    // SAFETY: there are so many words.
                    assert_writes(8 * first, &expected, |to| unsafe { fill_words(to, words, value) });
                }
            }
        }
    }

    /// The same for whole units, by whichever way they are copied.
    #[test]
    fn units_are_copied_and_nothing_beside_them() {
        const MOST: usize = LONG_BYTES + 128;
        let words: Vec<u64> = (1..=MOST as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let from: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
        for len in (0..=MOST).step_by(16) {
            for at in [0, 3, 8, 16] {
                let mut into = vec![0xee; MOST + 32];
                // SAFETY: both sides have so many bytes.
                unsafe { copy_units(from.as_ptr().cast(), into.as_mut_ptr().add(at), len) };
                assert_eq!(&into[at..at + len], &bytes[..len], "{len} bytes to {at}");
                let around = into[..at].iter().chain(&into[at + len..]);
                assert!(around.copied().all(|byte| byte == 0xee), "{len} bytes to {at}");
            }
        }
    }

    /// Goal: who copies a long record while its value, one word, is being changed gets it as it was or as it will be. Method: a
    /// thread that changes the last word; Miri sees as well that nothing else than the word at once is read there.
    #[test]
    fn the_last_word_of_long_records_is_whole() {
        use std::sync::atomic::AtomicBool;
        let (rounds, len) = (if cfg!(miri) { 3 } else { 3000 }, LONG_BYTES + 32);
        let from: Vec<AtomicU64> = (0..len / 8).map(|_| AtomicU64::new(0)).collect();
        for last in [len / 8 - 1, len / 8 - 2] {
            let is_over = AtomicBool::new(false);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        from[last].fetch_xor(u64::MAX, Ordering::Relaxed);
                    }
                });
                let mut into = vec![0u8; len];
                for _ in 0..rounds {
                    // SAFETY: both sides have so many bytes.
                    unsafe { copy_units(from.as_ptr().cast(), into.as_mut_ptr(), len) };
                    let word: Vec<u8> = into[8 * last..8 * last + 8].to_vec();
                    assert!(word.iter().all(|byte| *byte == word[0]), "{word:?}");
                }
                is_over.store(true, Ordering::Relaxed);
            });
            from[last].store(0, Ordering::Relaxed);
        }
    }

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
