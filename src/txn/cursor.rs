//! Reading a table bucket by bucket.
//!
//! A cursor moves through the hashes in the order of their reversed bits: in that order a bucket of level L
//! is one interval, and its split cuts the interval in two. So a cursor that advances by the interval of the
//! level that it has actually read meets every key exactly once, however the table grows meanwhile (the
//! cursor of Redis' SCAN, by Noordhuis, rests on the same order).

use super::{TableView, ops};
use crate::error::{Damage, Error, Result};
use crate::format::bucket::{self, Link, MAX_LEVEL, W_LINK, entry_record, level_of, mask};
use crate::format::lock_word::LockWord;
use crate::format::record::{PIECE_BYTES, PUNCHABLE_BYTES, Shape};
use crate::format::root;
use crate::format::{Offset, UNIT_BYTES};
use crate::index::chain;
use crate::index::find::{LONGEST_ROUTE, Obstacle};
use crate::segment::Segment;
use crate::segment::view::View;
use crate::writer::{Words, Writer};
use std::ops::Range;

/// One binding, copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding<'b> {
    pub(crate) key: &'b [u8],
    pub(crate) value: &'b [u8],
}

/// The bindings of one bucket, copied into one piece of memory, which is used again for the next bucket.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Of each binding, where its key and its value lie.
    places: Vec<(Range<usize>, Range<usize>)>,
    taken: usize,
}

/// Memory that is asked for at first.
const LEAST_BYTES: usize = 2048;
/// Memory that is kept for the next bucket.
const KEPT_BYTES: usize = 1 << 20;

impl Batch {
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.give_back();
        }
        self.bytes.clear();
        self.places.clear();
        self.taken = 0;
    }

    #[cold]
    #[inline(never)]
    fn give_back(&mut self) {
        self.bytes = Vec::new();
    }

    #[inline(always)]
    pub(crate) fn is_used_up(&self) -> bool {
        self.taken == self.places.len()
    }

    /// The next binding.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<Binding<'_>> {
        let (key, value) = self.places.get(self.taken)?;
        let binding = Binding { key: self.bytes.get(key.clone())?, value: self.bytes.get(value.clone())? };
        self.taken += 1;
        Some(binding)
    }

    /// Bytes of the last binding.
    #[inline(always)]
    pub(crate) fn last_bytes(&self) -> Option<u64> {
        self.places.last().map(|(key, value)| (key.len() + value.len()) as u64)
    }

    /// Appends the binding whose key and value, `len` bytes with what is between them, begin at `at`, a multiple of 16; or,
    /// with no value, its key alone. The range lies inside of the object. None: there is no memory.
    #[inline(always)]
    pub(crate) fn append_body(
        &mut self,
        view: View<'_>,
        at: Offset,
        len: usize,
        key_len: usize,
        value: Option<usize>,
    ) -> Option<()> {
        let start = self.bytes.len();
        let whole = (len + UNIT_BYTES as usize - 1) & !(UNIT_BYTES as usize - 1);
        if self.bytes.capacity() - start < whole || self.places.len() == self.places.capacity() {
            self.make_room(whole)?;
        }
        let value = value.map_or(0..0, |at| start + at..start + len);
        // SAFETY: there is room for whole units, which are written before they count, and for a place; that the range lies
        // inside of the object was checked.
        unsafe {
            view.copy_units_out(at, self.bytes.as_mut_ptr().add(start), whole);
            self.bytes.set_len(start + whole);
            let n = self.places.len();
            self.places.as_mut_ptr().add(n).write((start..start + key_len, value));
            self.places.set_len(n + 1);
        }
        Some(())
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, len: usize) -> Option<()> {
        self.places.try_reserve(1).ok()?;
        self.bytes.try_reserve(len.max(LEAST_BYTES)).ok()
    }

    /// Appends bytes. `copy` gets a place where `len` bytes may be written, and writes all of them unless it fails.
    #[inline(always)]
    fn append(&mut self, len: u64, copy: impl FnOnce(*mut u8, usize) -> Result<()>) -> Result<Range<usize>> {
        let len = usize::try_from(len).map_err(|_| Error::TooLarge("a value"))?;
        self.bytes.try_reserve(len).map_err(|_| Error::NoMemory)?;
        let start = self.bytes.len();
        // SAFETY: there is room for `len` bytes, and they are written before they count.
        unsafe {
            copy(self.bytes.as_mut_ptr().add(start), len)?;
            self.bytes.set_len(start + len);
        }
        Ok(start..start + len)
    }
}

/// A position between buckets: the hash, as far as its low bits go, of the next bucket to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(u64);

impl Position {
    pub(crate) const START: Position = Position(0);
    /// No position has bits beyond those of the highest level.
    const END: Position = Position(u64::MAX);

    #[inline(always)]
    pub(crate) fn is_end(self) -> bool {
        self == Position::END
    }

    #[inline(always)]
    pub(super) fn hash(self) -> u64 {
        self.0
    }

    /// Behind the bucket of this level that holds the position: one more in the order of reversed bits. The bits of the
    /// bucket's number, from the highest on, are flipped until one becomes 1.
    #[inline(always)]
    pub(super) fn after(self, level: u32) -> Position {
        if level == 0 || level > MAX_LEVEL || self.is_end() {
            return Position::END;
        }
        let bits = self.0 << (64 - level);
        if bits == u64::MAX << (64 - level) {
            return Position::END;
        }
        let flipped = u64::MAX << (63 - bits.leading_ones());
        Position((bits ^ flipped) >> (64 - level))
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
    into: &mut Batch,
) -> std::result::Result<Position, Obstacle> {
    let roots = &table.roots;
    let version = roots.version();
    let hash = position.hash();
    let mut index = roots.guess(hash);
    for _ in 0..LONGEST_ROUTE {
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
                    index = roots.way_to(segment, home).ok_or(Obstacle::Stale)?;
                    continue;
                }
                // The bucket's last split has made its partner, which whoever goes by the hint should expect.
                roots.expect((index | 1 << level.saturating_sub(1)) + 1);
                into.clear();
                let unchanged = || {
                    segment.fence_acquire();
                    word.unchanged_for_readers(LockWord(segment.load(bucket)))
                };
                let outcome = copy_chain(segment, bucket, part, into, |segment, at, to, len| {
                    copy_pieces(segment, at, to, len, unchanged)
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
    into: &mut Batch,
) -> Result<Position> {
    let roots = &table.roots;
    table.refresh(w)?;
    let hash = position.hash();
    let mut index = roots.guess(hash);
    for _ in 0..LONGEST_ROUTE {
        let bucket = roots.bucket(index).ok_or(Error::corrupt(Damage::Level, roots.root()))?;
        match level_of(index, Link(w.word(bucket.word(W_LINK))), roots.base_level()) {
            Some(level) if level <= bucket::MAX_LEVEL => {
                let home = hash & mask(level);
                if home == index {
                    into.clear();
                    copy_chain(w, bucket, part, into, |w, at, to, len| {
                        // SAFETY: the batch has room for `len` bytes there.
                        unsafe { ops::read_value_raw(w, at, len as u64, to) };
                        Ok(())
                    })?;
                    return Ok(position.after(level));
                }
                index = roots.way_to(w.segment, home).ok_or(Error::corrupt(Damage::Level, roots.root()))?;
            }
            None if index > 0 => index = bucket::ancestor(index),
            _ => break,
        }
    }
    Err(Error::corrupt(Damage::Level, roots.root()))
}

/// Copies a range to private memory; before each piece, `unchanged` says whether it is still in use. The range was
/// checked, and there is room for it.
fn copy_pieces(
    segment: &Segment,
    at: Offset,
    to: *mut u8,
    len: usize,
    unchanged: impl Fn() -> bool,
) -> Result<()> {
    if len < PIECE_BYTES {
        // SAFETY: the caller has checked the range and has the room.
        unsafe { segment.copy_out(at, to, len) };
        return Ok(());
    }
    for done in (0..len).step_by(PIECE_BYTES) {
        if !unchanged() {
            return Err(Error::Busy("changed while it was read"));
        }
        // SAFETY: as above.
        unsafe { segment.copy_out(at.add(done as u64), to.add(done), PIECE_BYTES.min(len - done)) };
    }
    Ok(())
}

/// Copies all bindings of a chain; those of one key newest first.
#[inline(always)]
fn copy_chain<W: Words>(
    words: &W,
    bucket: Offset,
    part: Part,
    into: &mut Batch,
    copy: impl Fn(&W, Offset, *mut u8, usize) -> Result<()>,
) -> Result<()> {
    for entry in chain::entries(words, bucket)? {
        let mut key: Option<Range<usize>> = None;
        chain::for_each_binding(words, entry_record(entry), |record, shape: Shape| {
            let key = match &key {
                Some(key) => key.clone(),
                None => {
                    let at = record.add(shape.header_bytes());
                    let bytes = into.append(shape.key_len, |to, len| copy(words, at, to, len))?;
                    key.insert(bytes).clone()
                }
            };
            let value = match part {
                Part::Keys => 0..0,
                Part::Bindings => {
                    let at = record.add(shape.value_at());
                    into.append(shape.value_len, |to, len| copy(words, at, to, len))?
                }
            };
            into.places.push((key, value));
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
