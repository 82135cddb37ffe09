//! The bytes: where everything lies in an object and how words are packed.
//!
//! Owns the constants and the encodings that docs/design.md part 1 describes. It is pure: it touches no
//! memory but its arguments, knows no system calls and no locks.

pub(crate) mod array;
pub(crate) mod bucket;
pub(crate) mod catalog;
pub(crate) mod header;
pub(crate) mod lock_word;
pub(crate) mod log_record;
pub(crate) mod pages;
pub(crate) mod record;
pub(crate) mod root;
pub(crate) mod size_class;
pub(crate) mod slot;

/// Bytes of a page, the unit in which memory comes and goes.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Bytes of a unit, the alignment of blocks; unit numbers have 40 bits.
pub(crate) const UNIT_BYTES: u64 = 16;
/// Bits of a unit number, and the mask that extracts one.
pub(crate) const UNIT_BITS: u32 = 40;
pub(crate) const UNIT_MASK: u64 = (1 << UNIT_BITS) - 1;
/// The largest object: what 40 bits of units reach.
pub(crate) const MAX_OBJECT_BYTES: u64 = UNIT_BYTES << UNIT_BITS;

/// Distance in bytes from the beginning of the object. 0 means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Offset(pub(crate) u64);

impl Offset {
    pub(crate) const NONE: Offset = Offset(0);

    /// The `n`th word of the structure that begins here. Where that may be is for who uses it to ask: offsets from
    /// shared memory can be anything.
    #[inline(always)]
    pub(crate) const fn word(self, n: u64) -> Offset {
        self.add(8 * n)
    }

    #[inline(always)]
    pub(crate) const fn add(self, bytes: u64) -> Offset {
        Offset(self.0.wrapping_add(bytes))
    }

    #[inline(always)]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The offset that a unit number stands for.
    #[inline(always)]
    pub(crate) const fn from_units(word: u64) -> Offset {
        Offset((word & UNIT_MASK) * UNIT_BYTES)
    }

    #[inline(always)]
    pub(crate) const fn units(self) -> u64 {
        self.0 / UNIT_BYTES
    }

    /// The page that this offset lies in.
    #[inline(always)]
    pub(crate) const fn page(self) -> Page {
        Page((self.0 / PAGE_BYTES) as u32)
    }
}

/// Number of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Page(pub(crate) u32);

impl Page {
    pub(crate) const NONE: Page = Page(0);

    #[inline(always)]
    pub(crate) const fn offset(self) -> Offset {
        Offset(self.0 as u64 * PAGE_BYTES)
    }

    pub(crate) const fn add(self, pages: u32) -> Page {
        Page(self.0.wrapping_add(pages))
    }
}

/// Number of a slot: a participant's place in the object. 0 means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotIndex(pub(crate) u16);

impl SlotIndex {
    pub(crate) const NOBODY: SlotIndex = SlotIndex(0);
    /// No slot: the gate's owner while an object rests that has been synced, see `life`.
    pub(crate) const AT_REST: SlotIndex = SlotIndex(65_535);
}

/// Position of element `z` in a sequence of chunks: `first` elements in chunk 0, and chunk k holds
/// `[first * 2^(k-1), first * 2^k)`. Gives the chunk and the index in it. `first` is a power of two.
#[inline(always)]
pub(crate) const fn doubling_chunk(z: u64, first: u64) -> (u32, u64) {
    if z < first {
        (0, z)
    } else {
        let k = z.ilog2() - first.ilog2() + 1;
        (k, z - (first << (k - 1)))
    }
}

/// Elements in chunk `k` of such a sequence.
pub(crate) const fn doubling_chunk_len(k: u32, first: u64) -> u64 {
    if k == 0 { first } else { first << (k - 1) }
}

/// Notices that a list in shared memory leads back into itself: of a list that goes round, it lets pass three times as many
/// members at most as there are, and has no memory of its own (Brent's method).
#[derive(Debug)]
pub(crate) struct Circle {
    mark: Offset,
    left: u64,
    span: u64,
}

impl Circle {
    pub(crate) const fn new() -> Circle {
        Circle { mark: Offset::NONE, left: 1, span: 1 }
    }

    /// Is this member, which comes next, one that was there before? It is none of those that are "none".
    pub(crate) fn is_closed_by(&mut self, member: Offset) -> bool {
        if member == self.mark {
            return true;
        }
        self.left -= 1;
        if self.left == 0 {
            self.mark = member;
            self.span = self.span.saturating_mul(2);
            self.left = self.span;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_noticed_soon_and_lists_pass() {
        for (tail, round) in [(0, 1), (0, 2), (5, 1), (3, 7), (100, 1), (1, 100), (1000, 777)] {
            let mut circle = Circle::new();
            let next = |n: u64| if n < tail { n } else { tail + (n - tail) % round };
            let passed = (0..).take_while(|n| !circle.is_closed_by(Offset(1 + next(*n)))).count() as u64;
            assert!(passed >= tail + round - 1 && passed <= 3 * (tail + round), "{tail} {round}: {passed}");
        }
        let mut circle = Circle::new();
        assert!((1..10_000).all(|n| !circle.is_closed_by(Offset(n))));
    }
}
