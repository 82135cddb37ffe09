//! Making a chunk's record beside the one that it replaces.
//!
//! Owns how a part of a slice and what the old record holds besides come into a block that nobody refers to yet. It
//! neither takes the block nor makes anybody refer to it.

use super::array::Part;
use crate::error::{Damage, Error, Result};
use crate::format::Offset;
use crate::format::array::{Geometry, KEY_BYTES};
use crate::format::bucket::LINE_BYTES;
use crate::format::record::{Holder, Shape};
use crate::segment::copy::Caching;
use crate::writer::{Words, Writer};
use std::borrow::Cow;

/// Where those elements of a new chunk come from that are not in the part, and the bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// No other element is set.
    Unset,
    /// From the value in whose place it comes.
    Of(Offset),
    /// They are in the block.
    Present,
}

/// A chunk's record as it is to become.
pub(super) struct NewChunk<'a> {
    pub(super) g: &'a Geometry,
    pub(super) part: &'a Part,
    pub(super) rest: Rest,
    /// What its first word links to.
    pub(super) older: Offset,
    /// The elements of the part, at their stride.
    pub(super) elements: &'a [u8],
    pub(super) caching: Caching,
}

/// The size class of chunks.
pub(super) fn class_of(g: &Geometry) -> Result<u32> {
    match Shape::new(KEY_BYTES, g.value_bytes).holder() {
        Some(Holder::Block(class)) => Ok(class),
        _ => Err(Error::TooLarge("a chunk")),
    }
}

/// The elements of a slice at their stride.
pub(super) fn at_stride<'a>(g: &Geometry, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    if g.stride == g.element_bytes {
        return Cow::Borrowed(bytes);
    }
    let elements = bytes.chunks(g.element_bytes as usize);
    let mut spread = vec![0; elements.len() * g.stride as usize];
    for (to, element) in spread.chunks_mut(g.stride as usize).zip(elements) {
        to[..element.len()].copy_from_slice(element);
    }
    Cow::Owned(spread)
}

/// Which bits of a word of the bitmap say that the elements of a part are set.
pub(super) fn bits_of(part: &Part, word: u64) -> u64 {
    let below = |position: u64| match position.saturating_sub(64 * word) {
        n @ 0..64 => (1 << n) - 1,
        _ => u64::MAX,
    };
    below(part.first + part.count) & !below(part.first)
}

impl NewChunk<'_> {
    /// Fills a block, which is in the slot's custody.
    pub(super) fn fill(&self, w: &Writer, block: Offset) -> Result<()> {
        let (g, segment) = (self.g, w.segment);
        let shape = Shape::new(KEY_BYTES, g.value_bytes);
        let value = block.add(shape.value_at());
        let damaged = || Error::corrupt(Damage::Truncated, block);
        // Readers of what the block was before must see that it is gone before they see new bytes.
        segment.fence_release();
        let head = [shape.first_word(self.older), shape.lengths_word(), self.part.chunk];
        let rest = if self.part.count == g.per_chunk { Rest::Unset } else { self.rest };
        let kept = |from| self.keep(w, from, value);
        let filled = segment.fill(block, &head, &[], &[])
            && if let Rest::Of(old) = rest { kept(old) } else { true }
            && self.make_bitmap(w, value, rest != Rest::Unset)
            && segment.copy_in_exactly(self.begin(value), self.elements, self.caching);
        if filled { Ok(()) } else { Err(damaged()) }
    }

    /// Says which elements are set: those of the part, and those that the bitmap says if it was kept.
    #[inline(always)]
    fn make_bitmap(&self, w: &Writer, value: Offset, is_kept: bool) -> bool {
        let (part, words) = (self.part, self.g.bitmap_words);
        let Some(bitmap) = w.segment.view().span(value, words) else { return false };
        let (first, last) = (part.first / 64, (part.first + part.count - 1) / 64);
        if part.count == self.g.per_chunk {
            bitmap.fill(0, last, u64::MAX);
            bitmap.store(last, bits_of(part, last));
            return true;
        }
        if !is_kept {
            bitmap.fill(0, first + 1, 0);
            bitmap.fill(last, words, 0);
        }
        bitmap.fill(first + 1, last, u64::MAX);
        for n in [first, last] {
            bitmap.store(n, bitmap.load(n).unwrap_or(0) | bits_of(part, n));
        }
        true
    }

    /// Where the part begins in a value.
    fn begin(&self, value: Offset) -> Offset {
        value.add(8 * self.g.bitmap_words + self.part.first * self.g.stride)
    }

    /// Copies what the part does not overwrite, and the whole bitmap, with the plans of this transaction.
    #[inline(never)]
    fn keep(&self, w: &Writer, old: Offset, value: Offset) -> bool {
        let begin = self.begin(old).0 - old.0;
        let end = begin + self.part.count * self.g.stride;
        let copied = w.segment.copy_between(old, value, begin)
            && w.segment.copy_between(old.add(end), value.add(end), self.g.value_bytes - end);
        if copied && !w.s.has_no_plan() {
            self.keep_plans(w, old, value);
        }
        copied
    }

    /// The same for the words that are planned to change.
    fn keep_plans(&self, w: &Writer, old: Offset, value: Offset) {
        let mut n = 0;
        while n < self.g.value_bytes / 8 {
            let at = old.word(n);
            if w.is_plain_line(Offset(at.0 / LINE_BYTES * LINE_BYTES)) {
                n += (LINE_BYTES - at.0 % LINE_BYTES) / 8;
                continue;
            }
            if let Some(planned) = w.s.planned_word(at) {
                w.segment.store(value.word(n), planned);
            }
            n += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_part() {
        for (first, count) in [(0, 1), (0, 64), (63, 2), (64, 64), (5, 1000), (2012, 1), (0, 2013)] {
            let part = Part { chunk: 0, first, count, at: 0 };
            for position in 0..2048 {
                let is_set = bits_of(&part, position / 64) >> (position % 64) & 1 == 1;
                assert_eq!(
                    is_set,
                    (first..first + count).contains(&position),
                    "{first}, {count}: {position}"
                );
            }
        }
    }
}
