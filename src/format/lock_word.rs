//! The lock word as a value: bits 0-15 owner slot, 16 WRITING, 17 WAITERS, 18 WATCH, 19 STARVING,
//! 20-63 version. What a state means, who may leave it, and what a dead owner means:
//!
//! | owner | WRITING | meaning | left by | owner dead |
//! |---|---|---|---|---|
//! | 0 | 0 | free | CAS to locked | - |
//! | s | 0 | locked; the covered words are as before | release, or mark | recovery of s: replay if COMMITTED, release |
//! | s | 1 | locked; the covered words may be changing; readers wait | release with bump | the same, release with bump |
//! | 0 | 1 | does not occur | - | corrupt: treated as free by the next owner |
//!
//! WAITERS: somebody who wants the lock sleeps on the low half, or may be about to. WATCH: the same of somebody
//! who waits for a new version; it stays until the version advances. Every change preserves the bits it does not
//! know.

use super::SlotIndex;

/// A lock word's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockWord(pub(crate) u64);

const OWNER: u64 = 0xffff;
pub(crate) const WRITING: u64 = 1 << 16;
pub(crate) const WAITERS: u64 = 1 << 17;
pub(crate) const WATCH: u64 = 1 << 18;
const VERSION_ONE: u64 = 1 << 20;
/// What a reader compares: the version and WRITING.
const SEEN_BY_READERS: u64 = !(VERSION_ONE - 1) | WRITING;

impl LockWord {
    #[inline(always)]
    pub(crate) const fn owner(self) -> SlotIndex {
        SlotIndex((self.0 & OWNER) as u16)
    }

    #[inline(always)]
    pub(crate) const fn is_free(self) -> bool {
        self.0 & OWNER == 0
    }

    #[inline(always)]
    pub(crate) const fn is_writing(self) -> bool {
        self.0 & WRITING != 0
    }

    #[inline(always)]
    pub(crate) const fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    #[inline(always)]
    pub(crate) const fn is_watched(self) -> bool {
        self.0 & WATCH != 0
    }

    /// May anybody sleep on the word, for whatever reason?
    #[inline(always)]
    pub(crate) const fn has_sleepers(self) -> bool {
        self.0 & (WAITERS | WATCH) != 0
    }

    #[inline(always)]
    pub(crate) const fn version(self) -> u64 {
        self.0 >> VERSION_ONE.trailing_zeros()
    }

    /// The word once `slot` has taken it; `bits` (WRITING, WAITERS) are set besides.
    #[inline(always)]
    pub(crate) const fn locked_by(self, slot: SlotIndex, bits: u64) -> LockWord {
        LockWord((self.0 & !(OWNER | WRITING)) | slot.0 as u64 | bits)
    }

    #[inline(always)]
    pub(crate) const fn with(self, bits: u64) -> LockWord {
        LockWord(self.0 | bits)
    }

    /// The word after release: nobody's, no waiters; if `bump`, the version advances, and nobody watches any more.
    #[inline(always)]
    pub(crate) const fn released(self, bump: bool) -> LockWord {
        let cleared = self.0 & !(OWNER | WRITING | WAITERS);
        LockWord(if bump { (cleared & !WATCH).wrapping_add(VERSION_ONE) } else { cleared })
    }

    /// May a reader that saw `self` first and `later` afterwards trust what it read in between?
    #[inline(always)]
    pub(crate) const fn unchanged_for_readers(self, later: LockWord) -> bool {
        (self.0 ^ later.0) & SEEN_BY_READERS == 0
    }

    /// What a reader compares.
    #[inline(always)]
    pub(crate) const fn seen_by_readers(self) -> u64 {
        self.0 & SEEN_BY_READERS
    }

    /// The value of the futex word, the low half, as memory holds it.
    pub(crate) const fn futex_value(self) -> u32 {
        (self.0 as u32).to_le()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_keeps_unknown_bits_and_advances_the_version() {
        let starving = 1 << 19;
        let w = LockWord((7 << 20) | starving | WATCH).locked_by(SlotIndex(9), WRITING | WAITERS);
        assert_eq!(w.owner(), SlotIndex(9));
        assert!(w.is_writing() && w.has_waiters());
        let r = w.released(true);
        assert!(r.is_free() && !r.is_writing() && !r.has_waiters());
        assert_eq!(r.version(), 8);
        assert_eq!(r.0 & starving, starving);
        assert!(w.is_watched() && !r.is_watched(), "who watches is told of a new version");
        assert!(w.released(false).is_watched(), "and of nothing else");
        assert_eq!(w.released(false).version(), 7);
        assert!(r.is_free() && !r.has_sleepers());
    }

    #[test]
    fn readers_ignore_the_owner_but_not_writing() {
        let free = LockWord(5 << 20);
        assert!(free.unchanged_for_readers(free.locked_by(SlotIndex(3), WAITERS)));
        assert!(!free.unchanged_for_readers(free.locked_by(SlotIndex(3), WRITING)));
        assert!(!free.unchanged_for_readers(free.released(true)));
    }
}
