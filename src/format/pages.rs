//! Page descriptors and segments: what each page is used for, and where that is written.

use super::header::{DESCRIPTORS_0, FIXED_PAGES};
use super::size_class::SLAB_PAGES;
use super::{Offset, PAGE_BYTES, Page};

pub(crate) const DESCRIPTOR_BYTES: u64 = 32;
/// Pages of segment 0; segment k >= 1 is `[2^(9+k), 2^(10+k))`.
const SEGMENT_0_PAGES: u32 = 1024;
/// The last page that an object of 16 TiB can have is below this.
pub(crate) const MAX_PAGES: u64 = super::MAX_OBJECT_BYTES / PAGE_BYTES;

/// A segment's first page, first data page, and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    pub(crate) data: u64,
    pub(crate) end: u64,
}

/// The segment that a page lies in.
pub(crate) const fn segment_of(page: u64) -> Segment {
    if page < SEGMENT_0_PAGES as u64 {
        return Segment { first: 0, data: FIXED_PAGES as u64, end: SEGMENT_0_PAGES as u64 };
    }
    let first = 1 << page.ilog2();
    Segment { first, data: first + first * DESCRIPTOR_BYTES / PAGE_BYTES, end: 2 * first }
}

/// Where the descriptor of a page lies.
#[inline]
pub(crate) const fn descriptor(page: Page) -> Offset {
    let p = page.0 as u64;
    if p < SEGMENT_0_PAGES as u64 {
        return Offset(DESCRIPTORS_0 as u64 * PAGE_BYTES + p * DESCRIPTOR_BYTES);
    }
    let first = 1u64 << p.ilog2();
    Offset(first * PAGE_BYTES + (p - first) * DESCRIPTOR_BYTES)
}

// Kinds.
pub(crate) const FREE: u64 = 1;
pub(crate) const FREE_TAIL: u64 = 2;
pub(crate) const RUN: u64 = 3;
pub(crate) const SLAB: u64 = 4;
pub(crate) const SLAB_BODY: u64 = 5;
pub(crate) const RUN_TAIL: u64 = 6;

/// What a run in use is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Record = 1,
    Buckets = 2,
    Counters = 3,
    Root = 4,
    Slots = 5,
    Extension = 6,
}

const UNBACKED: u64 = 1 << 16;
const PUNCHING: u64 = 1 << 17;

/// The first word of a page descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head(pub(crate) u64);

impl Head {
    pub(crate) const fn free(pages: u32, unbacked: bool) -> Head {
        Head(FREE | if unbacked { UNBACKED } else { 0 } | ((pages as u64) << 32))
    }
    pub(crate) const fn free_tail(pages: u32, unbacked: bool) -> Head {
        Head(FREE_TAIL | if unbacked { UNBACKED } else { 0 } | ((pages as u64) << 32))
    }
    pub(crate) const fn run(pages: u32, purpose: Purpose, unbacked: bool, punching: bool) -> Head {
        let flags = if unbacked { UNBACKED } else { 0 } | if punching { PUNCHING } else { 0 };
        Head(RUN | ((purpose as u64) << 8) | flags | ((pages as u64) << 32))
    }
    pub(crate) const fn run_tail(pages: u32) -> Head {
        Head(RUN_TAIL | ((pages as u64) << 32))
    }
    pub(crate) const fn slab(class: u32, arena: u64) -> Head {
        Head(SLAB | ((class as u64) << 8) | (arena << 16) | ((SLAB_PAGES as u64) << 32))
    }
    pub(crate) const fn slab_body(distance: u32) -> Head {
        Head(SLAB_BODY | ((distance as u64) << 32))
    }
    pub(crate) const fn kind(self) -> u64 {
        self.0 & 0xff
    }
    pub(crate) const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }
    pub(crate) const fn unbacked(self) -> bool {
        self.0 & UNBACKED != 0
    }
    pub(crate) const fn punching(self) -> bool {
        self.0 & PUNCHING != 0
    }
    pub(crate) const fn class(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff
    }
    pub(crate) const fn arena(self) -> u64 {
        (self.0 >> 16) & 0xff
    }
}

/// The word that links a free run or a slab in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Links(pub(crate) u64);

impl Links {
    pub(crate) const fn new(next: Page, previous: Page) -> Links {
        Links(next.0 as u64 | ((previous.0 as u64) << 32))
    }
    pub(crate) const fn next(self) -> Page {
        Page(self.0 as u32)
    }
    pub(crate) const fn previous(self) -> Page {
        Page((self.0 >> 32) as u32)
    }
}

/// Free lists of runs, of each of the two sorts.
pub(crate) const BINS: u32 = 48;

/// The free list of runs of so many pages, at least one.
pub(crate) const fn bin(pages: u32) -> u32 {
    if pages <= 16 { pages.saturating_sub(1) } else { 12 + pages.ilog2() }
}

/// Where bitmap word `n` of a slab lies.
#[inline]
pub(crate) const fn bitmap_word(slab: Page, n: u64) -> Offset {
    descriptor(slab.add(1 + (n / 3) as u32)).word(1 + n % 3)
}

const _: () = assert!(bin(u32::MAX) < BINS);
const _: () = assert!(bin(16) + 1 == bin(17));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_lie_in_their_segment_and_do_not_overlap() {
        assert_eq!(descriptor(Page(0)).0, 24 * PAGE_BYTES);
        assert_eq!(descriptor(Page(1023)).0 + DESCRIPTOR_BYTES, 32 * PAGE_BYTES);
        for k in 1..20u32 {
            let first = 512u64 << k;
            let s = segment_of(first);
            assert_eq!((s.first, s.end), (first, 2 * first));
            assert_eq!(descriptor(Page(s.end as u32 - 1)).0 + DESCRIPTOR_BYTES, s.data * PAGE_BYTES);
            assert_eq!(segment_of(s.end - 1), s);
        }
    }
}
