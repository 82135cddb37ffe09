//! The redo log's records: a header word (bits 0-47 offset / 8, bits 48-63 count) and that many data words.

use super::Offset;

/// Most data words that one header can announce.
pub(crate) const MAX_RUN: u64 = 0xffff;

pub(crate) const fn run_header(first: Offset, count: u64) -> u64 {
    (first.0 / 8) | (count << 48)
}

pub(crate) const fn run_first(header: u64) -> Offset {
    Offset((header & ((1 << 48) - 1)) * 8)
}

pub(crate) const fn run_count(header: u64) -> u64 {
    header >> 48
}
