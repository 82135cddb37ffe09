//! Finding a key without a lock, without a store and without a system call.
//!
//! A bucket is read optimistically (a sequence lock: the version in the lock word, read before and after).
//! What was read is believed only if the version has not changed and nobody was WRITING; until then nothing
//! read counts, not even an implausibility.

use super::roots::Roots;
use crate::error::{Damage, Error, Result};
use crate::format::bucket::{self, Link, W_ENTRY, W_LINK, entry_record, level_of, mask};
use crate::format::lock_word::LockWord;
use crate::format::record::{self, Shape};
use crate::format::{Offset, SlotIndex};
use crate::segment::{Pattern, Segment};

/// A record found: where it is, where its value lies, how long that is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) record: Offset,
    pub(crate) shape: Shape,
}

impl Found {
    #[inline(always)]
    pub(crate) fn value_at(&self) -> Offset {
        self.record.add(self.shape.value_at())
    }
}

/// Where and at which version a lookup ended, for whoever goes on from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) bucket: Offset,
    pub(crate) index: u64,
    pub(crate) word: LockWord,
    pub(crate) roots_version: u64,
}

/// Why a lookup could not be finished and what has to happen before the next attempt.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// The bucket is being changed by this slot, which may be dead.
    Writing(Offset, SlotIndex),
    /// Something changed meanwhile: try again.
    Changed,
    /// The hint is stale: refresh it and try again.
    Stale,
    /// The bytes are wrong, and were not being changed.
    Failed(Error),
}

/// Lines of a chain that are looked at. A chain of honest growth has a handful.
pub(crate) const LONGEST_CHAIN: u32 = 1 << 20;
/// Steps from one bucket to another: a level at a time, from the top one at most.
const LONGEST_ROUTE: u32 = 64;

/// Looks for a key once. `take` is called with the record, or with none, before what was read is validated;
/// what it did counts only if the result is `Ok`.
#[inline(always)]
pub(crate) fn attempt<R>(
    segment: &Segment,
    roots: &Roots,
    hash: u64,
    key: &[u8],
    take: impl FnOnce(Option<Found>) -> R,
) -> std::result::Result<(R, Seen), Obstacle> {
    let roots_version = roots.version();
    let mut index = roots.guess(hash);
    let pattern = Pattern::new(bucket::tag_bits(hash));
    for _ in 0..LONGEST_ROUTE {
        let Some(bucket) = roots.bucket(index) else { return Err(Obstacle::Stale) };
        let word = LockWord(segment.load_acquire(bucket));
        if word.is_writing() {
            return Err(Obstacle::Writing(bucket, word.owner()));
        }
        let seen = Seen { bucket, index, word, roots_version };
        let mut candidates = segment.line_matches(bucket, pattern);
        while candidates != 0 {
            let n = candidates.trailing_zeros() as u64;
            candidates &= candidates - 1;
            let entry = segment.load(bucket.word(W_ENTRY + n));
            match matching_record(segment, entry, key) {
                Match::Yes(found) => return finish(segment, roots, seen, take(Some(found))),
                Match::No => {}
                Match::Implausible => return Err(implausible(segment, roots, seen, entry_record(entry))),
            }
        }
        let link = Link(segment.load(bucket.word(W_LINK)));
        if !link.next().is_none() {
            match overflow(segment, link.next(), pattern, key) {
                Ok(Some(found)) => return finish(segment, roots, seen, take(Some(found))),
                Ok(None) => {}
                Err(at) => return Err(implausible(segment, roots, seen, at)),
            }
        }
        // Not here. Only now it matters whether this is the key's home at all.
        match level_of(index, link, roots.base_level()) {
            None if index == 0 => return Err(implausible(segment, roots, seen, bucket)),
            None => index = bucket::ancestor(index),
            Some(level) if level > bucket::MAX_LEVEL => {
                return Err(implausible(segment, roots, seen, bucket));
            }
            Some(level) => {
                let home = hash & mask(level);
                if home == index {
                    return finish(segment, roots, seen, take(None));
                }
                if home >= roots.ready() {
                    return Err(Obstacle::Stale);
                }
                roots.expect(home + 1);
                index = home;
            }
        }
    }
    Err(Obstacle::Changed)
}

/// Validates what was read.
#[inline(always)]
fn finish<R>(
    segment: &Segment,
    roots: &Roots,
    seen: Seen,
    result: R,
) -> std::result::Result<(R, Seen), Obstacle> {
    segment.fence_acquire();
    if !seen.word.unchanged_for_readers(LockWord(segment.load(seen.bucket))) {
        return Err(Obstacle::Changed);
    }
    if !roots.is_current(segment, seen.roots_version) {
        return Err(Obstacle::Stale);
    }
    Ok((result, seen))
}

/// Something cannot be: an error if nothing has changed meanwhile.
#[cold]
fn implausible(segment: &Segment, roots: &Roots, seen: Seen, at: Offset) -> Obstacle {
    match finish(segment, roots, seen, ()) {
        Ok(_) => Obstacle::Failed(Error::corrupt(Damage::Bucket, at)),
        Err(obstacle) => obstacle,
    }
}

enum Match {
    Yes(Found),
    No,
    Implausible,
}

/// Is the entry's record one of this key?
#[inline(always)]
fn matching_record(segment: &Segment, entry: u64, key: &[u8]) -> Match {
    let record = entry_record(entry);
    if record.is_none() {
        return Match::No;
    }
    if !segment.contains(record, record::LONG_HEADER_BYTES) {
        return Match::Implausible;
    }
    let shape = shape_at(segment, record);
    if shape.key_len != key.len() as u64 {
        return Match::No;
    }
    match shape.total() {
        Some(total) if segment.contains(record, total) => {}
        _ => return Match::Implausible,
    }
    if segment.equals(record.add(shape.header_bytes()), key) {
        Match::Yes(Found { record, shape })
    } else {
        Match::No
    }
}

/// The shape of the record at an offset whose header lies inside of the object.
#[inline(always)]
fn shape_at(segment: &Segment, record: Offset) -> Shape {
    let w0 = segment.load(record);
    if Shape::is_long(w0) {
        return Shape {
            key_len: segment.load(record.word(2)),
            value_len: segment.load(record.word(3)),
            long: true,
        };
    }
    Shape::from_lengths(segment.load(record.word(1)))
}

/// Searches the overflow lines. Err: the place of something implausible.
#[cold]
#[inline(never)]
fn overflow(
    segment: &Segment,
    first: Offset,
    pattern: Pattern,
    key: &[u8],
) -> std::result::Result<Option<Found>, Offset> {
    let mut line = first;
    for _ in 0..LONGEST_CHAIN {
        if !segment.contains(line, bucket::LINE_BYTES) {
            return Err(line);
        }
        let mut candidates = segment.line_matches(line, pattern);
        while candidates != 0 {
            let n = candidates.trailing_zeros() as u64;
            candidates &= candidates - 1;
            let entry = segment.load(line.word(W_ENTRY + n));
            match matching_record(segment, entry, key) {
                Match::Yes(found) => return Ok(Some(found)),
                Match::No => {}
                Match::Implausible => return Err(entry_record(entry)),
            }
        }
        line = Link(segment.load(line.word(W_LINK))).next();
        if line.is_none() {
            return Ok(None);
        }
    }
    Err(line)
}

/// The shape of a record, checked to lie inside of the object.
pub(crate) fn checked_shape(segment: &Segment, record: Offset) -> Result<Shape> {
    let bad = || Error::corrupt(Damage::Record, record);
    if record.is_none() || !segment.contains(record, record::LONG_HEADER_BYTES) {
        return Err(bad());
    }
    let shape = shape_at(segment, record);
    match shape.total() {
        Some(total) if segment.contains(record, total) => Ok(shape),
        _ => Err(bad()),
    }
}
