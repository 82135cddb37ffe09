//! The bindings of one damaged table, as far as they prove themselves.
//!
//! A key proves an entry: its hash has the entry's tag, belongs into the bucket, and has the entry's window. A record
//! proves itself by lengths that fit, padding that is zero, and its checksum, if the object has them. Older bindings
//! have the same key. Nothing else is believed; page descriptors, bitmaps, counters and locks are not even read.

use super::source::Source;
use crate::format::bucket::{self, ENTRIES, LINE_BYTES, Link, W_ENTRY};
use crate::format::record::{self, Shape};
use crate::format::{Offset, UNIT_BYTES};
use crate::index::KeyHash;
use std::collections::HashSet;

/// A binding as it was stored.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) older: Offset,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// One key's bindings, the newest first: the newest itself, and the records of the older ones.
pub(super) struct Stack {
    pub(super) newest: Binding,
    pub(super) older: Vec<Offset>,
}

/// What is wrong with a bucket.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Losses {
    /// Entries and links that lead to nothing that proves itself.
    pub(super) bindings: u64,
    /// The bucket or one of its overflow lines is damaged, so that nobody knows what it referred to.
    pub(super) is_damaged: bool,
}

pub(super) struct Reader<'a> {
    pub(super) source: &'a mut Source,
    pub(super) hash: KeyHash,
    /// Records have checksums.
    pub(super) checksums: bool,
    /// Records and lines that have been referred to, by their unit numbers: no walk is endless.
    pub(super) claimed: &'a mut HashSet<u64>,
}

impl Reader<'_> {
    /// The stacks of a bucket, whose line has been read, and what is lost of it.
    pub(super) fn bucket(
        &mut self,
        index: u64,
        base: u32,
        line: [u64; 8],
        mut found: impl FnMut(&mut Self, Stack) -> crate::error::Result<()>,
    ) -> crate::error::Result<Losses> {
        let mut losses = Losses::default();
        let link = Link(line[bucket::W_LINK as usize]);
        let lowest = if index >> base == 0 { base } else { index.ilog2() + 1 };
        let level =
            bucket::level_of(index, link, base).filter(|level| (lowest..=bucket::MAX_LEVEL).contains(level));
        losses.is_damaged = (level.is_none() && link.stored_level() != 0) || link.0 >> 48 != 0;
        let mut line = line;
        loop {
            for entry in &line[W_ENTRY as usize..(W_ENTRY + ENTRIES) as usize] {
                match self.stack(*entry, index, lowest, level) {
                    _ if *entry == 0 => {}
                    Some((stack, cut)) => {
                        losses.bindings += u64::from(cut);
                        found(self, stack)?;
                    }
                    None => losses.bindings += 1,
                }
            }
            let next = Link(line[bucket::W_LINK as usize]).next();
            if next.is_none() {
                break;
            }
            match self.claim(next).and_then(|()| self.source.words(next)) {
                // An overflow line has no lock and no level.
                Some(words) if words[0] == 0 && words[bucket::W_LINK as usize] >> 40 == 0 => line = words,
                _ => {
                    losses.is_damaged = true;
                    break;
                }
            }
        }
        Ok(losses)
    }

    fn claim(&mut self, at: Offset) -> Option<()> {
        self.claimed.insert(at.0 / UNIT_BYTES).then_some(())
    }

    /// The stack that an entry refers to, and whether its end was lost.
    fn stack(&mut self, entry: u64, index: u64, lowest: u32, level: Option<u32>) -> Option<(Stack, bool)> {
        let at = bucket::entry_record(entry);
        if at.is_none() {
            return None;
        }
        let newest = self.record(at, |key, hash| {
            let hash = hash.hash(key);
            let is_home = hash & bucket::mask(level.unwrap_or(lowest)) == index;
            let has_window = level.is_none_or(|level| bucket::entry(hash, level, at) == entry);
            is_home && has_window && bucket::tag_bits(hash) == bucket::tag_bits(entry)
        })?;
        self.claim(at)?;
        let mut older = Vec::new();
        let mut next = newest.older;
        let mut cut = false;
        while !next.is_none() {
            let binding = self.record(next, |key, _| *key == *newest.key);
            let Some(binding) = binding.filter(|_| self.claim(next).is_some()) else {
                cut = true;
                break;
            };
            older.push(next);
            next = binding.older;
        }
        Some((Stack { newest, older }, cut))
    }

    /// A binding, if the record is intact and its key is accepted.
    pub(super) fn record(
        &mut self,
        at: Offset,
        accept: impl FnOnce(&[u8], &KeyHash) -> bool,
    ) -> Option<Binding> {
        let [first, lengths] = self.source.words::<2>(at)?;
        let mut sum = record::checksum_part(1, lengths);
        let shape = if Shape::is_long(first) {
            let [key_len, value_len] = self.source.words::<2>(at.word(2))?;
            sum = sum.wrapping_add(record::checksum_part(2, key_len));
            sum = sum.wrapping_add(record::checksum_part(3, value_len));
            let shape = Shape::new(key_len, value_len);
            (shape.long && lengths == 0).then_some(shape)?
        } else {
            Shape::from_lengths(lengths)
        };
        let total = shape.total()?;
        if at.0.checked_add(total)? > self.source.size() {
            return None;
        }
        let mut key = self.source.bytes(at.add(shape.header_bytes()), record::padded(shape.key_len))?;
        sum = sum.wrapping_add(sum_of(&key, shape.header_bytes() / 8));
        unpad(&mut key, shape.key_len)?;
        if !accept(&key, &self.hash) {
            return None;
        }
        let mut value = self.source.bytes(at.add(shape.value_at()), record::padded(shape.value_len))?;
        sum = sum.wrapping_add(sum_of(&value, shape.value_at() / 8));
        let sum = if self.checksums { sum } else { 0 };
        if record::checksum(record::with_checksum(0, sum)) != record::checksum(first) {
            return None;
        }
        unpad(&mut value, shape.value_len)?;
        Some(Binding { older: record::older(first), key, value })
    }
}

/// What words add to a checksum, of which the first has number `first`.
fn sum_of(words: &[u8], first: u64) -> u64 {
    let words =
        words.chunks_exact(8).map(|word| word.iter().rev().fold(0, |w, byte| w << 8 | u64::from(*byte)));
    words.zip(first..).fold(0u64, |sum, (word, n)| sum.wrapping_add(record::checksum_part(n, word)))
}

/// Takes the padding off, which has to be zero.
fn unpad(bytes: &mut Vec<u8>, len: u64) -> Option<()> {
    let padding = bytes.get(len as usize..)?;
    padding.iter().all(|byte| *byte == 0).then_some(())?;
    bytes.truncate(len as usize);
    Some(())
}

const _: () = assert!(LINE_BYTES == 64);
