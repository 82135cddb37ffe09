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
use crate::segment::Segment;
use crate::segment::view::{Block, View};
use std::sync::atomic::{Ordering, fence};

/// A record found: where it is, where its value lies, how long that is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) record: Offset,
    pub(crate) value_at: Offset,
    pub(crate) shape: Shape,
}

impl Found {
    #[inline(always)]
    pub(crate) fn new(record: Offset, shape: Shape) -> Found {
        Found { record, value_at: record.add(shape.value_at()), shape }
    }

    /// The same for a record whose key [`is_short_key`].
    #[inline(always)]
    fn of_short(record: Offset, shape: Shape) -> Found {
        let key_bytes = record::padded_short(shape.key_len as u32);
        Found { record, value_at: record.add(key_bytes).add(record::SHORT_HEADER_BYTES), shape }
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
/// Steps from one bucket to another: from the top level a level at a time, and once more so from each bucket that is ahead.
pub(crate) const LONGEST_ROUTE: u32 = 1024;

/// What the short way of a lookup has seen. It counts only once it is validated: by [`Sight::is_valid`], or
/// by taking the bucket's lock with a compare-and-swap from the word that was seen.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) view: View<'a>,
    pub(crate) bucket: Block<'a, 8>,
    pub(crate) found: Option<Found>,
    pub(crate) seen: Seen,
    /// The bucket's level, if nothing was found.
    pub(crate) level: u32,
}

impl Sight<'_> {
    /// Has nothing changed since the lookup?
    #[inline(always)]
    pub(crate) fn is_valid(&self, roots: &Roots) -> bool {
        fence(Ordering::Acquire);
        self.seen.word.unchanged_for_readers(LockWord(self.bucket.load(0)))
            && roots.is_current_in(self.view, self.seen.roots_version)
    }
}

/// Looks for a key once, on the short way: only in the bucket where it is probably at home, and only a key that is
/// not empty. None: something is unusual, and the caller goes on with [`attempt`], which tells what it is.
#[inline(always)]
pub(crate) fn quick_lookup<'a>(
    segment: &'a Segment,
    roots: &Roots,
    hash: u64,
    key: &[u8],
) -> Option<Sight<'a>> {
    look::<true>(segment, roots, hash, key)
}

/// The same, which gives none as well if the key may be in an overflow line. It calls nothing.
#[inline(always)]
pub(crate) fn lookup_in_bucket<'a>(
    segment: &'a Segment,
    roots: &Roots,
    hash: u64,
    key: &[u8],
) -> Option<Sight<'a>> {
    look::<false>(segment, roots, hash, key)
}

#[inline(always)]
fn look<'a, const IN_LINES: bool>(
    segment: &'a Segment,
    roots: &Roots,
    hash: u64,
    key: &[u8],
) -> Option<Sight<'a>> {
    let view = segment.view();
    let roots_version = roots.version();
    let index = roots.guess(hash);
    let at = roots.expected_bucket(index);
    let bucket = view.aligned_line(at)?;
    let word = LockWord(bucket.load_acquire(0));
    if word.is_writing() || !is_short_key(key.len()) {
        return None;
    }
    let seen = Seen { bucket: at, index, word, roots_version };
    let candidates = bucket.matches(hash);
    if candidates != 0 {
        // Another key with the same tag comes first once in ten thousand times: no loop here.
        // The mask keeps the index inside of the block for the compiler's sake.
        let entry = bucket.load((W_ENTRY as usize + candidates.trailing_zeros() as usize) & 7);
        let found = quick_match(view, entry_record(entry), key)?;
        return Some(Sight { view, bucket, found: Some(found), seen, level: 0 });
    }
    let link = Link(bucket.load(W_LINK as usize));
    if !link.next().is_none() {
        if !IN_LINES {
            if !lines_lack(view, link.next(), hash) {
                return None;
            }
        } else {
            match quick_overflow(view, link.next(), hash, key) {
                InLines::ABSENT => {}
                InLines::UNUSUAL => return None,
                InLines { record, value_len } => {
                    let shape = Shape { key_len: key.len() as u64, value_len, long: false };
                    let found = Some(Found::of_short(record, shape));
                    return Some(Sight { view, bucket, found, seen, level: 0 });
                }
            }
        }
    }
    let level = level_of(index, link, roots.base_level())?;
    if level > bucket::MAX_LEVEL || hash & mask(level) != index {
        return None;
    }
    Some(Sight { view, bucket, found: None, seen, level })
}

/// The bucket where a hash is probably at home, and where [`quick_lookup`] looks.
pub(crate) fn expected_bucket<'a>(segment: &'a Segment, roots: &Roots, hash: u64) -> Option<Block<'a, 8>> {
    segment.view().aligned_line(roots.expected_bucket(roots.guess(hash)))
}

/// Is a key of so many bytes looked for on the short way?
#[inline(always)]
pub(crate) const fn is_short_key(len: usize) -> bool {
    len.wrapping_sub(1) < i32::MAX as usize
}

/// The record at an offset, if it is plainly that of this key, which is a short one.
#[inline(always)]
pub(super) fn quick_match(view: View<'_>, record: Offset, key: &[u8]) -> Option<Found> {
    // Both are multiples of 16, so that a record that begins inside has its two header words inside.
    let header = view.block_of_units::<2>(record)?;
    let lengths = header.load(1);
    // Long records have 0 here.
    if lengths as u32 != key.len() as u32 {
        return None;
    }
    let shape = Shape::from_lengths(lengths);
    let key_bytes = record::padded_short(key.len() as u32);
    if !view.reaches_behind_units::<2>(record, key_bytes + shape.value_len) {
        return None;
    }
    // SAFETY: the whole record was just checked; its place is given in units of 16 bytes.
    let equal = unsafe { view.equals_behind_header(record, key) };
    equal.then_some(Found::of_short(record, shape))
}

/// Do the overflow lines, which are not many, plainly have no key of this hash?
#[inline(always)]
fn lines_lack(view: View<'_>, first: Offset, hash: u64) -> bool {
    let mut at = first;
    for _ in 0..FEW_LINES {
        let Some(line) = view.block::<8>(at) else { return false };
        if line.matches(hash) != 0 {
            return false;
        }
        at = Link(line.load(W_LINK as usize)).next();
        if at.is_none() {
            return true;
        }
    }
    false
}

/// Overflow lines that a bucket has at most as a rule.
const FEW_LINES: u32 = 3;

/// What the overflow lines have of a short key, in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct InLines {
    record: Offset,
    value_len: u64,
}

impl InLines {
    const ABSENT: InLines = InLines { record: Offset(0), value_len: 0 };
    /// Something that [`attempt`] can tell what it is. No record is there.
    const UNUSUAL: InLines = InLines { record: Offset(u64::MAX), value_len: 0 };
}

/// Searches the overflow lines for a short key.
#[inline(never)]
fn quick_overflow(view: View<'_>, first: Offset, hash: u64, key: &[u8]) -> InLines {
    let mut at = first;
    for _ in 0..LONGEST_CHAIN {
        let Some(line) = view.block::<8>(at) else { return InLines::UNUSUAL };
        let candidates = line.matches(hash);
        if candidates != 0 {
            // As in `quick_lookup`.
            let entry = line.load((W_ENTRY as usize + candidates.trailing_zeros() as usize) & 7);
            return match quick_match(view, entry_record(entry), key) {
                Some(found) => InLines { record: found.record, value_len: found.shape.value_len },
                None => InLines::UNUSUAL,
            };
        }
        at = Link(line.load(W_LINK as usize)).next();
        if at.is_none() {
            return InLines::ABSENT;
        }
    }
    InLines::UNUSUAL
}

/// Looks for a key once. `take` is called with the record, or with none, before what was read is validated;
/// what it did counts only if the result is `Ok`.
pub(crate) fn attempt<R>(
    segment: &Segment,
    roots: &Roots,
    hash: u64,
    key: &[u8],
    take: impl FnOnce(View<'_>, Option<Found>) -> R,
) -> std::result::Result<(R, Seen), Obstacle> {
    let view = segment.view();
    let roots_version = roots.version();
    let mut index = roots.guess(hash);
    let tag = bucket::tag_bits(hash);
    for _ in 0..LONGEST_ROUTE {
        let Some(at) = roots.bucket(index) else { return Err(Obstacle::Stale) };
        let Some(bucket) = view.block::<8>(at) else { return Err(beyond(segment, at)) };
        let word = LockWord(bucket.load_acquire(0));
        if word.is_writing() {
            return Err(Obstacle::Writing(at, word.owner()));
        }
        let seen = Seen { bucket: at, index, word, roots_version };
        let mut candidates = bucket.matches(tag);
        while candidates != 0 {
            let n = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            // The mask keeps the index inside of the block for the compiler's sake.
            let entry = bucket.load((W_ENTRY as usize + n) & 7);
            match matching_record(view, entry, key) {
                Match::Yes(found) => {
                    let result = take(view, Some(found));
                    return finish(segment, roots, bucket, seen, result);
                }
                Match::No => {}
                Match::Implausible => {
                    let at = entry_record(entry);
                    return Err(implausible(segment, view, roots, bucket, seen, at));
                }
            }
        }
        let link = Link(bucket.load(W_LINK as usize));
        if !link.next().is_none() {
            match overflow(view, link.next(), tag, key) {
                Ok(Some(found)) => {
                    let result = take(view, Some(found));
                    return finish(segment, roots, bucket, seen, result);
                }
                Ok(None) => {}
                Err(at) => return Err(implausible(segment, view, roots, bucket, seen, at)),
            }
        }
        // Not here. Only now it matters whether this is the key's home at all.
        match level_of(index, link, roots.base_level()) {
            Some(level) if level <= bucket::MAX_LEVEL => {
                let home = hash & mask(level);
                if home == index {
                    let result = take(view, None);
                    return finish(segment, roots, bucket, seen, result);
                }
                index = roots.way_to(segment, home).ok_or(Obstacle::Stale)?;
            }
            None if index != 0 => index = bucket::ancestor(index),
            _ => return Err(implausible(segment, view, roots, bucket, seen, at)),
        }
    }
    Err(Obstacle::Changed)
}

/// Validates what was read.
#[inline(always)]
fn finish<R>(
    segment: &Segment,
    roots: &Roots,
    bucket: Block<'_, 8>,
    seen: Seen,
    result: R,
) -> std::result::Result<(R, Seen), Obstacle> {
    fence(Ordering::Acquire);
    if !seen.word.unchanged_for_readers(LockWord(bucket.load(0))) {
        return Err(Obstacle::Changed);
    }
    if !roots.is_current(segment, seen.roots_version) {
        return Err(Obstacle::Stale);
    }
    Ok((result, seen))
}

/// Something cannot be: an error if nothing has changed meanwhile, and if it is not just that the object has
/// grown beyond what this process knew.
#[cold]
#[inline(never)]
fn implausible(
    segment: &Segment,
    view: View<'_>,
    roots: &Roots,
    bucket: Block<'_, 8>,
    seen: Seen,
    at: Offset,
) -> Obstacle {
    let _ = segment.refresh();
    if segment.limit() != view.limit() {
        return Obstacle::Changed;
    }
    match finish(segment, roots, bucket, seen, ()) {
        Ok(_) => Obstacle::Failed(Error::corrupt(Damage::Bucket, at)),
        Err(obstacle) => obstacle,
    }
}

/// A bucket lies beyond what this process knows of the object.
#[cold]
#[inline(never)]
fn beyond(segment: &Segment, at: Offset) -> Obstacle {
    if segment.contains(at, bucket::LINE_BYTES) {
        Obstacle::Changed
    } else {
        Obstacle::Failed(Error::corrupt(Damage::Truncated, at))
    }
}

pub(super) enum Match {
    Yes(Found),
    No,
    Implausible,
}

/// Is the entry's record one of this key?
#[inline(always)]
fn matching_record(view: View<'_>, entry: u64, key: &[u8]) -> Match {
    let record = entry_record(entry);
    if record.is_none() {
        return Match::No;
    }
    // The smallest block has 32 bytes, the longest header as well.
    let Some(header) = view.block::<4>(record) else { return Match::Implausible };
    let w0 = header.load(0);
    if Shape::is_long(w0) {
        return matching_long_record(view, header, record, key);
    }
    let shape = Shape::from_lengths(header.load(1));
    if shape.key_len != key.len() as u64 {
        return Match::No;
    }
    // Lengths of 32 bits cannot overflow.
    if !view.contains(record, shape.value_at() + record::padded(shape.value_len)) {
        return Match::Implausible;
    }
    // SAFETY: the whole record was just checked.
    if unsafe { view.equals(record.add(shape.header_bytes()), key) } {
        Match::Yes(Found::new(record, shape))
    } else {
        Match::No
    }
}

/// The same for a record of which one length needs more than 32 bits.
#[cold]
#[inline(never)]
fn matching_long_record(view: View<'_>, header: Block<'_, 4>, record: Offset, key: &[u8]) -> Match {
    let shape = shape_of(header);
    if shape.key_len != key.len() as u64 {
        return Match::No;
    }
    match shape.total() {
        Some(total) if view.contains(record, total) => {}
        _ => return Match::Implausible,
    }
    // SAFETY: the whole record was just checked.
    if unsafe { view.equals(record.add(shape.header_bytes()), key) } {
        Match::Yes(Found::new(record, shape))
    } else {
        Match::No
    }
}

/// The shape that a record's header announces.
#[inline(always)]
fn shape_of(header: Block<'_, 4>) -> Shape {
    if Shape::is_long(header.load(0)) {
        return Shape { key_len: header.load(2), value_len: header.load(3), long: true };
    }
    Shape::from_lengths(header.load(1))
}

/// Searches the overflow lines. Err: the place of something implausible.
#[inline(never)]
fn overflow(
    view: View<'_>,
    first: Offset,
    tag: u64,
    key: &[u8],
) -> std::result::Result<Option<Found>, Offset> {
    let mut at = first;
    for _ in 0..LONGEST_CHAIN {
        let Some(line) = view.block::<8>(at) else { return Err(at) };
        let mut candidates = line.matches(tag);
        while candidates != 0 {
            let n = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            let entry = line.load((W_ENTRY as usize + n) & 7);
            match matching_record(view, entry, key) {
                Match::Yes(found) => return Ok(Some(found)),
                Match::No => {}
                Match::Implausible => return Err(entry_record(entry)),
            }
        }
        at = Link(line.load(W_LINK as usize)).next();
        if at.is_none() {
            return Ok(None);
        }
    }
    Err(at)
}

/// The shape of a record, checked to lie inside of the object.
pub(crate) fn checked_shape(segment: &Segment, record: Offset) -> Result<Shape> {
    let bad = || Error::corrupt(Damage::Record, record);
    if record.is_none() {
        return Err(bad());
    }
    let shape = shape_of(segment.block::<4>(record).ok_or_else(bad)?);
    match shape.total() {
        Some(total) if segment.contains(record, total) => Ok(shape),
        _ => Err(bad()),
    }
}
