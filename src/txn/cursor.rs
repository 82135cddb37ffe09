//! Reading a table bucket by bucket.
//!
//! A cursor moves through the hashes in the order of their reversed bits: in that order a bucket of level L
//! is one interval, and its split cuts the interval in two. So a cursor that advances by the interval of the
//! level that it has actually read meets every key exactly once, however the table grows meanwhile (the
//! cursor of Redis' SCAN, by Noordhuis, rests on the same order).

use super::{TableView, ops};
use crate::error::{Damage, Error, Result};
use crate::format::Offset;
use crate::format::bucket::{self, entry_record, level_of, mask};
use crate::format::bucket::{Link, W_LINK};
use crate::format::lock_word::LockWord;
use crate::format::record::{PUNCHABLE_BYTES, Shape};
use crate::format::root;
use crate::index::chain;
use crate::index::find::Obstacle;
use crate::segment::Segment;
use crate::writer::{Words, Writer};

/// One binding, copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) key: std::rc::Rc<[u8]>,
    pub(crate) value: Vec<u8>,
}

/// A position between buckets; none at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(Option<u64>);

impl Position {
    pub(crate) const START: Position = Position(Some(0));

    pub(crate) fn is_end(self) -> bool {
        self.0.is_none()
    }

    /// The hash, as far as its low bits go, of the next bucket to read.
    fn hash(self) -> u64 {
        self.0.unwrap_or(0).reverse_bits()
    }

    /// Behind the bucket of this level that holds the position.
    fn after(self, level: u32) -> Position {
        let Some(at) = self.0 else { return self };
        if level == 0 {
            return Position(None);
        }
        let width = 1u64 << (64 - level);
        Position((at & !(width - 1)).checked_add(width))
    }
}

/// What to copy of each binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Keys,
    Bindings,
}

/// Copies the bucket at a position, without a lock. Gives the position behind it.
pub(crate) fn attempt(
    segment: &Segment,
    table: &TableView,
    position: Position,
    part: Part,
    into: &mut Vec<Binding>,
) -> std::result::Result<Position, Obstacle> {
    let roots = &table.roots;
    let version = roots.version();
    let hash = position.hash();
    let mut index = roots.guess(hash);
    for _ in 0..64 {
        let Some(bucket) = roots.bucket(index) else { return Err(Obstacle::Stale) };
        let word = LockWord(segment.load_acquire(bucket));
        if word.is_writing() {
            return Err(Obstacle::Writing(bucket, word.owner()));
        }
        let link = Link(segment.load(bucket.word(W_LINK)));
        match level_of(index, link, roots.base_level()) {
            Some(level) if level <= bucket::MAX_LEVEL => {
                let home = hash & mask(level);
                if home != index {
                    if home >= roots.ready() {
                        return Err(Obstacle::Stale);
                    }
                    index = home;
                    continue;
                }
                into.clear();
                let mut copied = 0u64;
                let outcome = read_bucket(segment, bucket, part, into, |bytes| {
                    // While somebody replaces values all the time, do not copy without end before looking.
                    copied += bytes;
                    copied < (1 << 20) || {
                        copied = 0;
                        segment.fence_acquire();
                        word.unchanged_for_readers(LockWord(segment.load(bucket)))
                    }
                });
                segment.fence_acquire();
                if !word.unchanged_for_readers(LockWord(segment.load(bucket))) {
                    return Err(Obstacle::Changed);
                }
                if !roots.is_current(segment, version) {
                    return Err(Obstacle::Stale);
                }
                return outcome.map(|()| position.after(level)).map_err(Obstacle::Failed);
            }
            None if index > 0 => index = bucket::ancestor(index),
            _ => {
                segment.fence_acquire();
                let now = LockWord(segment.load(bucket));
                return Err(if word.unchanged_for_readers(now) {
                    Obstacle::Failed(Error::corrupt(Damage::Level, bucket))
                } else {
                    Obstacle::Changed
                });
            }
        }
    }
    Err(Obstacle::Changed)
}

/// Copies the bucket at a position, with this transaction's own plans. The gate is held.
pub(crate) fn read_under_gate(
    w: &Writer,
    table: &TableView,
    position: Position,
    part: Part,
    into: &mut Vec<Binding>,
) -> Result<Position> {
    let roots = &table.roots;
    table.refresh(w)?;
    let hash = position.hash();
    let mut index = roots.guess(hash);
    for _ in 0..64 {
        let bucket = roots.bucket(index).ok_or(Error::corrupt(Damage::Level, roots.root()))?;
        match level_of(index, Link(w.word(bucket.word(W_LINK))), roots.base_level()) {
            Some(level) if level <= bucket::MAX_LEVEL => {
                let home = hash & mask(level);
                if home == index {
                    into.clear();
                    copy_chain(w, bucket, part, into, |w, at, len| {
                        let mut value = buffer(len)?;
                        ops::read_value(w, at, len, &mut value);
                        Ok(value)
                    })?;
                    return Ok(position.after(level));
                }
                index = home;
            }
            None if index > 0 => index = bucket::ancestor(index),
            _ => break,
        }
    }
    Err(Error::corrupt(Damage::Level, roots.root()))
}

fn read_bucket(
    segment: &Segment,
    bucket: Offset,
    part: Part,
    into: &mut Vec<Binding>,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<()> {
    copy_chain(segment, bucket, part, into, |segment, at, len| {
        if !go_on(len) {
            return Err(Error::Busy("changed while it was read"));
        }
        copy_bytes(segment, at, len)
    })
}

/// Copies all bindings of a chain; those of one key newest first.
fn copy_chain<W: Words>(
    words: &W,
    bucket: Offset,
    part: Part,
    into: &mut Vec<Binding>,
    mut value_at: impl FnMut(&W, Offset, u64) -> Result<Vec<u8>>,
) -> Result<()> {
    for entry in chain::entries(words, bucket)? {
        let mut key: Option<std::rc::Rc<[u8]>> = None;
        chain::for_each_binding(words, entry_record(entry), |record, shape: Shape| {
            let key = match &key {
                Some(key) => key.clone(),
                None => {
                    let at = record.add(shape.header_bytes());
                    let bytes = copy_bytes(words.segment(), at, shape.key_len)?;
                    key.insert(bytes.into()).clone()
                }
            };
            let value = match part {
                Part::Keys => Vec::new(),
                Part::Bindings => value_at(words, record.add(shape.value_at()), shape.value_len)?,
            };
            into.push(Binding { key, value });
            Ok((part == Part::Keys).then_some(()))
        })?;
    }
    Ok(())
}

/// The number of bindings, if no counter changes while it is taken: two rounds that see the same numbers.
pub(crate) fn length_attempt(segment: &Segment, table: &TableView) -> std::result::Result<u64, Obstacle> {
    let version = table.roots.version();
    if !table.roots.is_current(segment, version) {
        return Err(Obstacle::Stale);
    }
    let root = table.roots.root();
    let collect = || {
        let mut counters = Vec::with_capacity(64);
        for chunk in 0..root::COUNTER_CHUNKS {
            let base = Offset(segment.load_acquire(root.word(root::W_COUNTERS + chunk as u64)));
            if base.is_none() {
                continue;
            }
            let lines = 0..root::counter_chunk_lines(chunk);
            counters.extend(lines.map(|i| segment.load_acquire(root::counter_line(base, i))));
        }
        segment.fence_acquire();
        counters
    };
    let first = collect();
    if first != collect() {
        return Err(Obstacle::Changed);
    }
    if !table.roots.is_current(segment, version) {
        return Err(Obstacle::Stale);
    }
    let sum = first.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
    if (sum as i64) < 0 {
        return Err(Obstacle::Failed(Error::corrupt(Damage::Count, root)));
    }
    Ok(sum)
}

pub(crate) fn buffer(len: u64) -> Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| Error::TooLarge("a value"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// A private copy of a range that was checked to lie inside of the object.
pub(crate) fn copy_bytes(segment: &Segment, at: Offset, len: u64) -> Result<Vec<u8>> {
    let mut bytes = buffer(len)?;
    if len >= PUNCHABLE_BYTES {
        segment.read_file(at, &mut bytes)?;
        return Ok(bytes);
    }
    // SAFETY: the buffer has room, and the caller has checked the range.
    unsafe { segment.copy_out(at, bytes.as_mut_ptr(), bytes.len()) };
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_visit_every_bucket_once_while_levels_differ() {
        // A table of level 3 where every bucket may meanwhile get one or two more levels.
        for seed in 0..1000u64 {
            let level_at =
                |index: u64| 3 + (seed.wrapping_mul(0x9e37_79b9).wrapping_add(index) >> 3) as u32 % 3;
            let mut seen = std::collections::HashSet::new();
            let mut position = Position::START;
            while !position.is_end() {
                let level = level_at(position.hash() & 7);
                for h in 0..32u64 {
                    if h & mask(level) == position.hash() & mask(level) {
                        assert!(seen.insert(h), "seed {seed}: {h} twice");
                    }
                }
                position = position.after(level);
            }
            assert_eq!(seen.len(), 32, "seed {seed}");
        }
    }
}
