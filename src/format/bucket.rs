//! Buckets and overflow lines: entries, tags, windows, levels, routing.

use super::{Offset, UNIT_BITS, UNIT_MASK};

pub(crate) const LINE_BYTES: u64 = 64;
pub(crate) const ENTRIES: u64 = 6;
/// The highest level: index bits end where the windows of that level end.
pub(crate) const MAX_LEVEL: u32 = 40;
/// First entry's word in a line, and the last word.
pub(crate) const W_ENTRY: u64 = 1;
pub(crate) const W_LINK: u64 = 7;

const TAG_SHIFT: u32 = 48;
const WINDOW_BITS: u32 = 8;
/// Windows begin at bits 6, 14, 22, ...: the smallest table has level 6, and a table that grows to some millions
/// of keys meets a new window once, when it is small.
const FIRST_WINDOW: u32 = 6;
const LEVEL_SHIFT: u32 = UNIT_BITS;

/// The tag of a hash, in its place in an entry.
#[inline(always)]
pub(crate) const fn tag_bits(hash: u64) -> u64 {
    hash >> TAG_SHIFT << TAG_SHIFT
}

/// The window of a hash in a bucket of some level, in its place in an entry.
#[inline(always)]
pub(crate) const fn window_bits(hash: u64, level: u32) -> u64 {
    let from = FIRST_WINDOW + level.saturating_sub(FIRST_WINDOW) / WINDOW_BITS * WINDOW_BITS;
    ((hash >> from) & 0xff) << UNIT_BITS
}

#[inline(always)]
pub(crate) const fn entry(hash: u64, level: u32, record: Offset) -> u64 {
    tag_bits(hash) | window_bits(hash, level) | record.units()
}

#[inline(always)]
pub(crate) const fn entry_record(entry: u64) -> Offset {
    Offset::from_units(entry)
}

/// The same entry with another record.
#[inline(always)]
pub(crate) const fn entry_with(entry: u64, record: Offset) -> u64 {
    (entry & !UNIT_MASK) | record.units()
}

/// Does bit `level` of the key's hash, known from the entry's window in a bucket of that level, send the key to the partner?
#[inline(always)]
pub(crate) const fn entry_moves(entry: u64, level: u32) -> bool {
    (entry >> (UNIT_BITS + level.saturating_sub(FIRST_WINDOW) % WINDOW_BITS)) & 1 == 1
}

/// Is the window of an entry used up when its bucket gets this level, so that the key must be hashed again?
#[inline(always)]
pub(crate) const fn window_changes_at(level: u32) -> bool {
    level >= FIRST_WINDOW && (level - FIRST_WINDOW) % WINDOW_BITS == 0
}

/// A line's last word: next overflow line, and a bucket's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(pub(crate) u64);

impl Link {
    #[inline(always)]
    pub(crate) const fn next(self) -> Offset {
        Offset::from_units(self.0)
    }
    #[inline(always)]
    pub(crate) const fn stored_level(self) -> u32 {
        (self.0 >> LEVEL_SHIFT) as u32 & 0xff
    }
    pub(crate) const fn with_next(self, next: Offset) -> Link {
        Link((self.0 & !UNIT_MASK) | next.units())
    }
    pub(crate) const fn with_level(self, level: u32) -> Link {
        Link((self.0 & !(0xff << LEVEL_SHIFT)) | ((level as u64) << LEVEL_SHIFT))
    }
}

#[inline(always)]
pub(crate) const fn mask(level: u32) -> u64 {
    (1 << level) - 1
}

/// The level of a bucket; none if it is unborn. `base` is the table's base level.
#[inline(always)]
pub(crate) const fn level_of(index: u64, link: Link, base: u32) -> Option<u32> {
    match link.stored_level() {
        0 if index >> base == 0 => Some(base),
        0 => None,
        level => Some(level),
    }
}

/// The index without its highest bit: whose keys an unborn bucket's are.
#[inline(always)]
pub(crate) const fn ancestor(index: u64) -> u64 {
    index & !(1 << index.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_knows_where_a_split_sends_it() {
        for level in FIRST_WINDOW..MAX_LEVEL {
            for hash in [0x0123_4567_89ab_cdef, !0x0123_4567_89ab_cdef, 0x5555_aaaa_3333_cccc_u64] {
                let e = entry(hash, level, Offset(160));
                assert_eq!(entry_moves(e, level), (hash >> level) & 1 == 1, "level {level}");
                assert_eq!(entry_record(e), Offset(160));
                // The window stays right until the level that renews it.
                if !window_changes_at(level + 1) {
                    assert_eq!(e, entry(hash, level + 1, Offset(160)));
                }
            }
        }
    }
}
