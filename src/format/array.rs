//! An array's bytes: its words in the table root, and the layout of a chunk of elements.
//!
//! Elements of a fixed, small size lie in chunks: the record of chunk c has the key c, 8 bytes little-endian,
//! and as its value a bitmap of the elements that are set, and the elements in place. An element of variable
//! or of larger size has a record of its own, whose key is its index. Pure arithmetic: it reads no memory.

use super::record::{self, IN_PLACE_BYTES, padded};
use super::size_class;

/// Word of the root: the default value itself if elements take at most 8 bytes, else its length in bytes.
pub(crate) const W_DEFAULT: u64 = 6;
/// From this word of the root on lie the bytes of a default value that does not fit into `W_DEFAULT`.
pub(crate) const W_LONG_DEFAULT: u64 = 256;
/// Longest default value in bytes: what the root has room for.
pub(crate) const MAX_DEFAULT_BYTES: u64 = 2048;
/// Largest number of elements.
pub(crate) const MAX_LENGTH: u64 = 1 << 48;

/// Bytes of a key: the number of a chunk or of an element.
pub(crate) const KEY_BYTES: u64 = 8;
/// Bytes of a chunk's record: the largest size class, four pages. Smaller chunks would save memory where single
/// elements are far apart, and make slices slower: each chunk costs a lookup, and when it is written a lock and a block.
const RECORD_BYTES: u64 = size_class::LARGEST;
const VALUE_BYTES: u64 = RECORD_BYTES - record::SHORT_HEADER_BYTES - KEY_BYTES;
/// Largest elements that lie in chunks: what the log takes at once, so that setting one copies no chunk.
const MAX_IN_CHUNK: u64 = IN_PLACE_BYTES;

/// How elements lie in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In chunks.
    Chunks(Geometry),
    /// Each in a record of its own.
    Records,
}

impl Layout {
    /// The layout of elements that all have so many bytes, or of elements of variable size.
    pub(crate) fn of(element_bytes: Option<u64>) -> Layout {
        match element_bytes {
            Some(bytes @ 1..=MAX_IN_CHUNK) => Layout::Chunks(Geometry::new(bytes)),
            _ => Layout::Records,
        }
    }

    /// Does the default value lie in `W_DEFAULT`?
    pub(crate) fn has_short_default(&self) -> bool {
        matches!(self, Layout::Chunks(g) if g.element_bytes <= 8)
    }
}

/// Layout of the chunks of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of an element.
    pub(crate) element_bytes: u64,
    /// Distance of elements: 4, or a multiple of 8.
    pub(crate) stride: u64,
    /// Elements in a chunk.
    pub(crate) per_chunk: u64,
    /// Words of the bitmap.
    pub(crate) bitmap_words: u64,
    /// Length of a chunk's value in bytes.
    pub(crate) value_bytes: u64,
    /// 2^64 / `per_chunk`, rounded up.
    reciprocal: u64,
}

/// The place of an element: its chunk, and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) chunk: u64,
    pub(crate) position: u64,
}

impl Geometry {
    /// The layout for elements of 1 to `MAX_IN_CHUNK` bytes.
    const fn new(element_bytes: u64) -> Geometry {
        let stride = if element_bytes <= 4 { 4 } else { padded(element_bytes) };
        let mut per_chunk = VALUE_BYTES / stride;
        while 8 * per_chunk.div_ceil(64) + padded(per_chunk * stride) > VALUE_BYTES {
            per_chunk -= 1;
        }
        let bitmap_words = per_chunk.div_ceil(64);
        let value_bytes = 8 * bitmap_words + padded(per_chunk * stride);
        let reciprocal = u64::MAX / per_chunk + 1;
        Geometry { element_bytes, stride, per_chunk, bitmap_words, value_bytes, reciprocal }
    }

    /// Where an element below `MAX_LENGTH` lies. Of others it gives some place, of no meaning: who has compared the index
    /// with the array's length does not use it.
    #[inline(always)]
    pub(crate) const fn place(&self, index: u64) -> Place {
        // Exact because `index * per_chunk` is below 2^64: the reciprocal's error does not reach the quotient.
        let chunk = ((index as u128 * self.reciprocal as u128) >> 64) as u64;
        Place { chunk, position: index.wrapping_sub(chunk.wrapping_mul(self.per_chunk)) }
    }

    /// The word of a chunk's value where an element begins.
    #[inline(always)]
    pub(crate) const fn element_word(&self, position: u64) -> u64 {
        self.bitmap_words + position * self.stride / 8
    }

    /// Bits by which an element is shifted in its word: of two elements in a word the second one.
    #[inline(always)]
    pub(crate) const fn element_shift(&self, position: u64) -> u32 {
        (position * self.stride % 8 * 8) as u32
    }

    /// The element in its word. For elements of at most 8 bytes.
    #[inline(always)]
    pub(crate) const fn element_in(&self, word: u64, position: u64) -> u64 {
        if self.element_bytes == 8 {
            return word;
        }
        word >> self.element_shift(position) & self.element_mask()
    }

    /// The word with another element in it. For elements of at most 8 bytes.
    #[inline(always)]
    pub(crate) const fn with_element(&self, word: u64, position: u64, bits: u64) -> u64 {
        if self.element_bytes == 8 {
            return bits;
        }
        let shift = self.element_shift(position);
        (word & !(self.element_mask() << shift)) | bits << shift
    }

    /// Which bits of its word an element has, before shifting. For elements of at most 8 bytes.
    #[inline(always)]
    pub(crate) const fn element_mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.element_bytes)
    }

    /// The word of the bitmap, and the bit in it, that say whether an element is set.
    #[inline(always)]
    pub(crate) const fn presence(&self, position: u64) -> (u64, u64) {
        (position / 64, 1 << (position % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fill_their_blocks() {
        for bytes in 1..=MAX_IN_CHUNK {
            let g = Geometry::new(bytes);
            let total = record::SHORT_HEADER_BYTES + KEY_BYTES + g.value_bytes;
            assert!(total <= RECORD_BYTES && total + g.stride + 8 > RECORD_BYTES, "{bytes}: {total}");
            let class = size_class::class_for(total).expect("a block");
            assert_eq!(size_class::class_bytes(class), RECORD_BYTES);
        }
        assert_eq!(Geometry::new(8).per_chunk, 2013);
        assert_eq!(Geometry::new(4).per_chunk, 3966);
    }

    #[test]
    fn places_are_those_of_division() {
        for bytes in 1..=MAX_IN_CHUNK {
            let g = Geometry::new(bytes);
            let around = |n: u64| [n.saturating_sub(1), n, n + 1];
            let of_chunks = |c: u64| around(c * g.per_chunk);
            let ends = [0, 1, 2, 1000, MAX_LENGTH / g.per_chunk - 1].map(of_chunks);
            for i in ends.into_iter().flatten().chain([MAX_LENGTH / 3, MAX_LENGTH - 1]) {
                let place = g.place(i);
                assert_eq!((place.chunk, place.position), (i / g.per_chunk, i % g.per_chunk), "{bytes}, {i}");
            }
        }
    }

    #[test]
    fn places_beyond_the_largest_array_are_no_arithmetic_error() {
        for bytes in 1..=MAX_IN_CHUNK {
            let g = Geometry::new(bytes);
            for n in 48..64 {
                for i in [(1 << n) - 1, 1 << n, u64::MAX - (1 << (n - 10)), u64::MAX >> (63 - n)] {
                    let _ = g.place(i);
                }
            }
        }
    }

    #[test]
    fn elements_do_not_overlap() {
        for bytes in [1, 2, 4, 5, 8, 12, 16, 256] {
            let g = Geometry::new(bytes);
            let mut end = 8 * g.bitmap_words;
            for position in 0..g.per_chunk {
                let at = 8 * g.element_word(position) + g.element_shift(position) as u64 / 8;
                assert!(at >= end && at + bytes <= g.value_bytes, "{bytes}: {position}");
                end = at + bytes;
            }
        }
    }
}
