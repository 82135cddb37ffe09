//! A table's root page and its counter lines.

use super::{Offset, bucket, doubling_chunk, doubling_chunk_len};

// Kinds of tables. All are the same index; the kind says what its keys and values mean.
pub(crate) const KIND_HASHTABLE: u64 = 1;
pub(crate) const KIND_ARRAY: u64 = 2;
pub(crate) const KIND_PRIMITIVE: u64 = 3;

pub(crate) const W_KIND: u64 = 0;
pub(crate) const W_BASE_LEVEL: u64 = 1;
pub(crate) const W_NEXT_ROOT: u64 = 4;
pub(crate) const W_SWEEP: u64 = 5;
/// Number of elements of an array.
pub(crate) const W_LENGTH: u64 = 7;
pub(crate) const W_GROWTH_LOCK: u64 = 8;
pub(crate) const W_READY: u64 = 9;
pub(crate) const W_PERMITTED: u64 = 16;
pub(crate) const W_ROUGH_COUNT: u64 = 24;
pub(crate) const W_ARRAYS: u64 = 32;
pub(crate) const ARRAYS: u32 = 48;
pub(crate) const W_COUNTERS: u64 = 80;
pub(crate) const COUNTER_CHUNKS: u32 = 16;

/// Signatures of the types of keys and of values: the length in bytes, then the text.
pub(crate) const W_SIGNATURES: [u64; 2] = [128, 192];
/// Longest signature in bytes.
pub(crate) const MAX_SIGNATURE: usize = 8 * 63;

/// Slots in counter chunk 0, which is one page.
const COUNTERS_0: u64 = 64;
const COUNTER_BYTES: u64 = 64;

/// Level of the smallest table: 64 buckets, one page.
pub(crate) const MIN_BASE_LEVEL: u32 = 6;
/// That of the largest one.
pub(crate) const MAX_BASE_LEVEL: u32 = 36;
/// Mean number of keys per bucket above which a table grows, as a fraction.
pub(crate) const LOAD_KEYS: u64 = 15;
pub(crate) const LOAD_BUCKETS: u64 = 4;

/// Array and position in it of a bucket.
#[inline(always)]
pub(crate) const fn bucket_place(index: u64, base: u32) -> (u32, u64) {
    doubling_chunk(index, 1 << base)
}

/// Buckets in array `k`.
pub(crate) const fn array_buckets(k: u32, base: u32) -> u64 {
    doubling_chunk_len(k, 1 << base)
}

/// Arrays that a table of this base level can have.
pub(crate) const fn max_arrays(base: u32) -> u32 {
    let n = bucket::MAX_LEVEL - base + 1;
    if n < ARRAYS { n } else { ARRAYS }
}

/// Chunk and distance in it, in bytes, of a slot's counter line.
#[inline(always)]
pub(crate) const fn counter_place(slot: super::SlotIndex) -> (u32, u64) {
    let (chunk, i) = doubling_chunk(slot.0 as u64 - 1, COUNTERS_0);
    (chunk, i * COUNTER_BYTES)
}

/// Counter lines in a chunk, and the pages of it.
pub(crate) const fn counter_chunk_lines(chunk: u32) -> u64 {
    doubling_chunk_len(chunk, COUNTERS_0)
}
pub(crate) const fn counter_chunk_pages(chunk: u32) -> u32 {
    (counter_chunk_lines(chunk) * COUNTER_BYTES / super::PAGE_BYTES) as u32
}

/// The counter line `i` of a chunk.
pub(crate) const fn counter_line(chunk: Offset, i: u64) -> Offset {
    chunk.add(i * COUNTER_BYTES)
}

/// Smallest base level at which `expected` keys need no growth.
pub(crate) fn base_level_for(expected: u64) -> u32 {
    let buckets = expected.saturating_mul(LOAD_BUCKETS).div_ceil(LOAD_KEYS).max(1);
    buckets.next_power_of_two().ilog2().clamp(MIN_BASE_LEVEL, MAX_BASE_LEVEL)
}
