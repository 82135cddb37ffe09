//! A record: link to the next older binding of its key, lengths, key, value.

use super::{Offset, PAGE_BYTES, UNIT_MASK, size_class};

const LONG: u64 = 1 << 63;
/// Where the first word has the checksum of what follows it, in objects with checksums; else these bits are 0.
const SUM_SHIFT: u32 = super::UNIT_BITS;
const SUM_MASK: u64 = !(LONG | UNIT_MASK);
/// Bytes of a header with short lengths, and with long ones.
pub(crate) const SHORT_HEADER_BYTES: u64 = 16;
pub(crate) const LONG_HEADER_BYTES: u64 = 32;

/// Lengths and layout of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) key_len: u64,
    pub(crate) value_len: u64,
    pub(crate) long: bool,
}

/// What holds a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A block of a size class.
    Block(u32),
    /// A run of so many pages.
    Run(u32),
}

#[inline(always)]
pub(crate) const fn padded(bytes: u64) -> u64 {
    (bytes + 7) & !7
}

/// The same of a length that has 32 bits and is not among their last seven.
#[inline(always)]
pub(crate) const fn padded_short(bytes: u32) -> u64 {
    (bytes.wrapping_add(7) & !7) as u64
}

impl Shape {
    #[inline]
    pub(crate) const fn new(key_len: u64, value_len: u64) -> Shape {
        Shape { key_len, value_len, long: key_len > u32::MAX as u64 || value_len > u32::MAX as u64 }
    }

    /// The shape for bytes of so small lengths that a block holds it, and the class of that.
    #[inline(always)]
    pub(crate) fn of_short(key_len: usize, value_len: usize) -> Option<(Shape, u32)> {
        let (key_len, value_len) = (key_len as u64, value_len as u64);
        let value_at = SHORT_HEADER_BYTES.checked_add(padded(key_len))?;
        let class = size_class::class_for(value_at.checked_add(padded(value_len))?)?;
        Some((Shape { key_len, value_len, long: false }, class))
    }

    /// The shape that the first two words announce; the lengths of a long one are in the next two.
    #[inline(always)]
    pub(crate) const fn is_long(w0: u64) -> bool {
        w0 & LONG != 0
    }

    #[inline(always)]
    pub(crate) const fn from_lengths(w1: u64) -> Shape {
        Shape { key_len: w1 & 0xffff_ffff, value_len: w1 >> 32, long: false }
    }

    #[inline(always)]
    pub(crate) const fn header_bytes(&self) -> u64 {
        if self.long { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
    }

    /// Distance of the value from the record's beginning.
    #[inline(always)]
    pub(crate) const fn value_at(&self) -> u64 {
        self.header_bytes() + padded(self.key_len)
    }

    /// Bytes of the whole record; none if it exceeds what an object can hold.
    #[inline]
    pub(crate) const fn total(&self) -> Option<u64> {
        if self.key_len > super::MAX_OBJECT_BYTES || self.value_len > super::MAX_OBJECT_BYTES {
            return None;
        }
        Some(self.value_at() + padded(self.value_len))
    }

    /// What a record of this shape is kept in.
    pub(crate) const fn holder(&self) -> Option<Holder> {
        match self.total() {
            None => None,
            Some(bytes) => match size_class::class_for(bytes) {
                Some(class) => Some(Holder::Block(class)),
                None => {
                    let pages = bytes.div_ceil(PAGE_BYTES);
                    if pages > u32::MAX as u64 { None } else { Some(Holder::Run(pages as u32)) }
                }
            },
        }
    }

    /// The first word: link to the next older record, and LONG.
    #[inline(always)]
    pub(crate) const fn first_word(&self, older: Offset) -> u64 {
        older.units() | if self.long { LONG } else { 0 }
    }

    /// The second word.
    #[inline(always)]
    pub(crate) const fn lengths_word(&self) -> u64 {
        if self.long { 0 } else { self.key_len | (self.value_len << 32) }
    }
}

/// The next older record named by a record's first word.
#[inline(always)]
pub(crate) const fn older(w0: u64) -> Offset {
    Offset::from_units(w0)
}

/// The same first word with another link.
#[inline(always)]
pub(crate) const fn with_older(w0: u64, older: Offset) -> u64 {
    (w0 & !UNIT_MASK) | older.units()
}

/// What word `n` of a record adds to its checksum. A sum can be brought up to date word by word; that each place counts
/// differently tells words that have been exchanged.
#[inline]
pub(crate) const fn checksum_part(n: u64, word: u64) -> u64 {
    let mixed = (word ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed >> 32
}

/// The checksum that a first word holds.
pub(crate) const fn checksum(w0: u64) -> u64 {
    (w0 & SUM_MASK) >> SUM_SHIFT
}

/// The same first word with another checksum, of which the low bits count.
pub(crate) const fn with_checksum(w0: u64, sum: u64) -> u64 {
    (w0 & !SUM_MASK) | ((sum << SUM_SHIFT) & SUM_MASK)
}

/// In-place replacement goes through the log; beyond this many bytes a new record is cheaper.
pub(crate) const IN_PLACE_BYTES: u64 = 256;
/// Values in runs at least this long may lie in pages that were given back to the system.
pub(crate) const PUNCHABLE_BYTES: u64 = 16 * PAGE_BYTES;
/// A long value is copied in pieces of this many bytes, before each of which is looked whether it is still in use.
pub(crate) const PIECE_BYTES: usize = 8 * PAGE_BYTES as usize;
