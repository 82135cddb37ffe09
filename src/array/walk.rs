//! The elements of an array that are set, one after the other.
//!
//! Owns how chunks and records come apart into elements. Which there are, the cursor over the index knows.

use super::Array;
use crate::cursor::Keys;
use crate::error::{Damage, Error, Result};
use crate::format::array::Layout;
use crate::txn::array;

impl Array {
    /// The elements that are set, with their indices: those of a chunk in order, the chunks in any order.
    ///
    /// Nothing is locked between two items; the callback may change the array. An element that is set from
    /// beginning to end is seen exactly once, one that is set meanwhile at most once. In a group it sees the
    /// group's view, other writers wait until the group ends, and it ends with the group.
    pub fn iter(&self) -> Elements<'_> {
        Elements { array: self, keys: self.cells.keys(), chunk: Vec::new() }
    }

    /// The elements that a chunk or record holds, in reverse order.
    fn elements_of(&self, key: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut number = [0; 8];
        if key.len() != number.len() {
            return Err(Error::Corrupt { what: Damage::Record, offset: 0 });
        }
        number.copy_from_slice(key);
        let number = u64::from_le_bytes(number);
        let g = match &self.layout {
            Layout::Records => {
                return Ok(self.cells.find(key)?.map(|value| (number, value)).into_iter().collect());
            }
            Layout::Chunks(g) => g,
        };
        let segment = self.segment();
        let words = self.cells.read(
            key,
            |_, found| {
                Ok::<_, Error>(
                    array::value_found(g, found)?.map(|value| array::chunk_words(segment, g, value)),
                )
            },
            |w, at| Ok(array::value_at(g, at.hit)?.map(|value| array::chunk_words(w, g, value))),
        )??;
        let Some(words) = words else { return Ok(Vec::new()) };
        let bytes: Vec<u8> = words[g.bitmap_words as usize..].iter().flat_map(|w| w.to_le_bytes()).collect();
        let is_set = |position: u64| {
            let (word, bit) = g.presence(position);
            words[word as usize] & bit != 0
        };
        let element = |position: u64| {
            let at = (position * g.stride) as usize;
            (number.wrapping_mul(g.per_chunk) + position, bytes[at..at + g.element_bytes as usize].to_vec())
        };
        Ok((0..g.per_chunk).rev().filter(|position| is_set(*position)).map(element).collect())
    }
}

/// Iterator over the elements of an array that are set: index and encoded value. See [`Array::iter`].
#[derive(Debug)]
pub struct Elements<'a> {
    array: &'a Array,
    keys: Keys<'a>,
    /// What is left of the chunk read last, in reverse order.
    chunk: Vec<(u64, Vec<u8>)>,
}

impl Iterator for Elements<'_> {
    type Item = Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(element) = self.chunk.pop() {
                return Some(Ok(element));
            }
            match self.keys.next()?.and_then(|key| self.array.elements_of(&key)) {
                Ok(chunk) => self.chunk = chunk,
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

impl<'a> IntoIterator for &'a Array {
    type Item = Result<(u64, Vec<u8>)>;
    type IntoIter = Elements<'a>;
    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}
