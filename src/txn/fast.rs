//! The short way for single operations that change one bucket and need no waiting.
//!
//! The key is looked up as a find does; one compare-and-swap then takes the bucket's lock, marks it WRITING
//! and proves that nothing has changed since the lookup. What does not fit (contention, overflow lines,
//! stacks of bindings, an empty magazine) goes the general way, which gives the same result.

use super::{TableView, growth, ops};
use crate::alloc::custody;
use crate::error::{Error, Result};
use crate::format::bucket::{self, ENTRIES, Link, W_ENTRY, W_LINK, level_of};
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::record::{Holder, IN_PLACE_BYTES, Shape};
use crate::format::{Offset, header, log_record, slot};
use crate::index::find::{self, Found, Seen};
use crate::lock::release;
use crate::writer::Writer;

/// What became of an attempt.
pub(crate) enum Fast<R> {
    Done(R),
    /// Nothing has happened; the general way is to be taken.
    NotHere,
}

/// One word, and what it is to become.
type Change = (Offset, u64);

/// Replaces the newest binding by a value of the same, small length, or binds a key that has none.
#[inline(always)]
pub(crate) fn replace(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Result<Fast<()>> {
    let hash = table.key_hash.hash(key);
    let Ok((found, seen)) = find::attempt(w.segment, &table.roots, hash, key, |found| found) else {
        return Ok(Fast::NotHere);
    };
    match found {
        None => bind_new(w, table, hash, seen, key, value),
        Some(found) if can_overwrite(&found, value.len()) => Ok(overwrite(w, seen, found.value_at(), value)),
        Some(_) => Ok(Fast::NotHere),
    }
}

/// Binds a key that has no binding yet.
#[inline(always)]
pub(crate) fn add(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Result<Fast<()>> {
    let hash = table.key_hash.hash(key);
    match find::attempt(w.segment, &table.roots, hash, key, |found| found.is_some()) {
        Ok((false, seen)) => bind_new(w, table, hash, seen, key, value),
        _ => Ok(Fast::NotHere),
    }
}

/// Adds to the 8-byte little-endian integer that is bound to a key. Gives the sum.
#[inline(always)]
pub(crate) fn increment(w: &mut Writer, table: &TableView, key: &[u8], delta: i64) -> Result<Fast<i64>> {
    let hash = table.key_hash.hash(key);
    let segment = w.segment;
    let attempt = find::attempt(segment, &table.roots, hash, key, |found| {
        found.filter(|f| f.shape.value_len == 8).map(|f| (f.value_at(), segment.load(f.value_at())))
    });
    let Ok((Some((at, old)), seen)) = attempt else { return Ok(Fast::NotHere) };
    let sum = (old as i64).checked_add(delta).ok_or(Error::Overflow)?;
    Ok(match write(w, seen, &[(at, sum as u64)]) {
        true => Fast::Done(sum),
        false => Fast::NotHere,
    })
}

#[inline(always)]
fn can_overwrite(found: &Found, len: usize) -> bool {
    found.shape.value_len == len as u64 && len as u64 <= IN_PLACE_BYTES
}

/// Changes a value in place.
#[inline(always)]
fn overwrite(w: &mut Writer, seen: Seen, at: Offset, value: &[u8]) -> Fast<()> {
    let segment = w.segment;
    let log = w.slot_word(slot::LOG.inline_word);
    let words = value.len().div_ceil(8) as u64;
    if words == 0 {
        return Fast::NotHere;
    }
    segment.store(log, log_record::run_header(at, words));
    segment.copy_in(log.word(1), value);
    if !lock(w, seen) {
        return Fast::NotHere;
    }
    commit(w, seen.bucket, words + 1, |segment| segment.copy_in(at, value));
    Fast::Done(())
}

/// Adds a key that has no binding to a hole of its bucket.
#[inline(always)]
fn bind_new(
    w: &mut Writer,
    table: &TableView,
    hash: u64,
    seen: Seen,
    key: &[u8],
    value: &[u8],
) -> Result<Fast<()>> {
    let segment = w.segment;
    let shape = Shape::new(key.len() as u64, value.len() as u64);
    let Some(Holder::Block(class)) = shape.holder() else { return Ok(Fast::NotHere) };
    let hole = (0..ENTRIES).map(|i| seen.bucket.word(W_ENTRY + i)).find(|at| segment.load(*at) == 0);
    let Some(hole) = hole else { return Ok(Fast::NotHere) };
    let link = Link(segment.load(seen.bucket.word(W_LINK)));
    let Some(level) = level_of(seen.index, link, table.roots.base_level()) else { return Ok(Fast::NotHere) };
    let counter = ops::counter_line(w, table)?;
    let Some((cell, block)) = custody::peek_block(w, class) else {
        custody::fill_magazine(w, class)?;
        return Ok(Fast::NotHere);
    };
    ops::fill_record(w, block, shape, key, value, Offset::NONE);
    let count = segment.load(counter);
    let changes = [
        (hole, bucket::entry(hash, level, block)),
        (cell, 0),
        (counter, count.wrapping_add(1)),
    ];
    if !write(w, seen, &changes) {
        return Ok(Fast::NotHere);
    }
    growth::report(w, table, count as i64, count.wrapping_add(1) as i64);
    Ok(Fast::Done(()))
}

/// Logs and makes some changes, if the bucket is as it was seen.
#[inline(always)]
fn write(w: &mut Writer, seen: Seen, changes: &[Change]) -> bool {
    let segment = w.segment;
    let log = w.slot_word(slot::LOG.inline_word);
    for (i, (at, value)) in changes.iter().enumerate() {
        segment.store(log.word(2 * i as u64), log_record::run_header(*at, 1));
        segment.store(log.word(2 * i as u64 + 1), *value);
    }
    if !lock(w, seen) {
        return false;
    }
    commit(w, seen.bucket, 2 * changes.len() as u64, |segment| {
        for (at, value) in changes {
            segment.store(*at, *value);
        }
    });
    true
}

/// Takes the bucket's lock, marked WRITING, if nothing has changed since it was seen.
#[inline(always)]
fn lock(w: &mut Writer, seen: Seen) -> bool {
    let segment = w.segment;
    if !seen.word.is_free() {
        return false;
    }
    let list_len = w.slot_word(slot::W_LIST_LEN);
    segment.store(w.slot_word(slot::LOCK_LIST.inline_word), seen.bucket.0);
    segment.store(list_len, 1);
    let mine = seen.word.locked_by(w.s.p.slot, WRITING);
    if segment.compare_exchange(seen.bucket, seen.word.0, mine.0).is_err() {
        segment.store(list_len, 0);
        return false;
    }
    // The compare-and-swap was a full fence: either this load sees the gate's holder, or that one sees the
    // lock list.
    let gate = LockWord(segment.load_acquire(header::GATE));
    if !gate.is_free() || gate.version() + 1 != seen.roots_version {
        release(segment, seen.bucket, w.s.p.slot, true);
        segment.store(list_len, 0);
        return false;
    }
    true
}

/// Commits what the log says, with one bucket locked.
#[inline(always)]
fn commit(w: &mut Writer, bucket: Offset, log_words: u64, apply: impl FnOnce(&crate::segment::Segment)) {
    let segment = w.segment;
    let commit = w.slot_word(slot::W_COMMIT);
    // The commit point of the short way; its meaning is that of `Writer::commit_from`.
    segment.store(commit, slot::commit_word(slot::COMMITTED, log_words));
    segment.fence_release();
    apply(segment);
    segment.store(commit, slot::commit_word(slot::APPLIED, 0));
    release(segment, bucket, w.s.p.slot, true);
    segment.store(w.slot_word(slot::W_LIST_LEN), 0);
    segment.store(commit, slot::commit_word(slot::IDLE, 0));
}

/// What an operation leaves to be done when it is over: returning freed blocks, splitting a bucket.
#[inline(always)]
pub(crate) fn chores(w: &mut Writer, table: &TableView) {
    if !w.s.p.tickets.is_empty() || w.segment.load(w.slot_word(slot::W_PENDING)) != 0 {
        chores_slowly(w, table);
    }
}

#[cold]
#[inline(never)]
fn chores_slowly(w: &mut Writer, table: &TableView) {
    // The operation itself has succeeded. What fails here, for want of memory say, is tried again by later
    // operations, and reported by those that cannot do without it.
    let _ = growth::use_ticket(w, table);
    let _ = super::clean_up(w);
    let _ = super::lifecycle::upkeep(w);
}

const _: () = assert!(IN_PLACE_BYTES / 8 < slot::LOG.inline_len);
