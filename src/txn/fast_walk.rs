//! The short way of a walk: copies a bucket of which nothing is unusual, and asks long before for what it will read.
//!
//! A walk knows which buckets come. Each is asked for [`BUCKETS_AHEAD`] steps before it is read; when it is there, its
//! records and its first overflow line are; and then the records of that. So the waits for memory overlap. What it reads counts only once
//! it is validated, as with [`attempt`](super::cursor::attempt), which it leaves everything unusual to.

use super::TableView;
use super::cursor::{Batch, Position};
use crate::format::Offset;
use crate::format::bucket::{ENTRIES, LINE_BYTES, Link, W_ENTRY, W_LINK, entry_record, level_of};
use crate::format::lock_word::LockWord;
use crate::format::record::{self, PIECE_BYTES, SHORT_HEADER_BYTES, Shape};
use crate::index::roots::{Hint, Roots};
use crate::segment::Segment;
use crate::segment::view::{Block, View};
use std::sync::atomic::{Ordering, fence};

/// So many steps before a bucket is read it is asked for, then its records and its first overflow line, then the
/// records of that line.
const BUCKETS_AHEAD: usize = 8;
const RECORDS_AHEAD: usize = 4;
const OVERFLOW_AHEAD: usize = 2;

/// Overflow lines of a bucket, and bindings of a key, that are not unusual.
const MOST_LINES: u32 = 16;
const MOST_BINDINGS: u32 = 64;

/// A bucket that comes.
#[derive(Debug, Clone, Copy)]
struct Coming {
    position: Position,
    at: Offset,
    index: u64,
    level: u32,
}

/// The buckets that come, as far as is known.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// A ring of those that have been asked for.
    coming: [Coming; BUCKETS_AHEAD],
    first: usize,
    len: usize,
    /// Behind the last one of them.
    frontier: Position,
    /// The roots' version that they are of.
    version: u64,
    /// Bytes of the record that was read last. The next ones probably have as many.
    record_bytes: u64,
}

impl Default for Ahead {
    fn default() -> Ahead {
        let nothing = Coming { position: Position::START, at: Offset::NONE, index: 0, level: 0 };
        Ahead {
            coming: [nothing; BUCKETS_AHEAD],
            first: 0,
            len: 0,
            frontier: Position::START,
            version: 0,
            record_bytes: LINE_BYTES,
        }
    }
}

impl Ahead {
    /// Forgets what was known.
    fn restart(&mut self, position: Position, version: u64) {
        (self.len, self.frontier, self.version) = (0, position, version);
    }

    /// The bucket that comes after `n` others, if so many are known.
    #[inline(always)]
    fn after(&self, n: usize) -> Option<&Coming> {
        if n < self.len { Some(&self.coming[(self.first + n) % BUCKETS_AHEAD]) } else { None }
    }

    /// Asks for what comes. Gives the bucket at this position, which is not the end.
    #[inline(always)]
    fn step(&mut self, view: View<'_>, roots: &Roots, hint: &Hint, position: Position) -> Coming {
        let next = self.coming[self.first % BUCKETS_AHEAD];
        if self.len == 0 || next.position != position || self.version != hint.version {
            self.restart(position, hint.version);
        }
        while self.len < BUCKETS_AHEAD && !self.frontier.is_end() {
            let position = self.frontier;
            let (index, level) = hint.home(position.hash());
            let at = roots.expected_bucket(index);
            view.prefetch_anything(at);
            self.coming[(self.first + self.len) % BUCKETS_AHEAD] = Coming { position, at, index, level };
            self.len += 1;
            self.frontier = position.after(level);
        }
        if let Some(line) = self.after(RECORDS_AHEAD).and_then(|next| view.aligned_line(next.at)) {
            self.ask_for_records(view, line);
            let link = Link(line.load(W_LINK as usize));
            view.prefetch_anything(link.next());
        }
        if let Some(line) = self.after(OVERFLOW_AHEAD).and_then(|next| view.aligned_line(next.at)) {
            let more = Link(line.load(W_LINK as usize)).next();
            if !more.is_none() {
                if let Some(line) = view.block::<8>(more) {
                    self.ask_for_records(view, line);
                }
            }
        }
        let here = self.coming[self.first % BUCKETS_AHEAD];
        self.first += 1;
        self.len -= 1;
        here
    }

    /// Asks for the records of a line; of long ones, for what comes first.
    #[inline(always)]
    fn ask_for_records(&self, view: View<'_>, line: Block<'_, 8>) {
        let last = (self.record_bytes - 1).min(2 * LINE_BYTES - 1);
        for n in W_ENTRY..W_ENTRY + ENTRIES {
            let record = entry_record(line.load(n as usize));
            view.prefetch_anything(record);
            view.prefetch_anything(record.add(last));
        }
    }
}

/// Copies the bucket at a position, which is not the end, without a lock; `VALUES` says whether with values. Gives the
/// position behind it. None: something is unusual, and what is in the batch does not count.
#[inline(always)]
pub(crate) fn copy_bucket<const VALUES: bool>(
    segment: &Segment,
    table: &TableView,
    ahead: &mut Ahead,
    position: Position,
    into: &mut Batch,
) -> Option<Position> {
    let (view, roots) = (segment.view(), &table.roots);
    let hint = roots.hint();
    let here = ahead.step(view, roots, &hint, position);
    let bucket = view.aligned_line(here.at)?;
    let word = LockWord(bucket.load_acquire(0));
    let link = Link(bucket.load(W_LINK as usize));
    // At this level the position's bucket has this index.
    if word.is_writing() || level_of(here.index, link, hint.base_level) != Some(here.level) {
        return None;
    }
    into.clear();
    copy_line::<VALUES>(view, bucket, into)?;
    if !link.next().is_none() {
        copy_overflow::<VALUES>(view, link.next(), into)?;
    }
    fence(Ordering::Acquire);
    let is_valid =
        word.unchanged_for_readers(LockWord(bucket.load(0))) && roots.is_current_in(view, hint.version);
    if let Some(bytes) = into.last_bytes() {
        ahead.record_bytes = SHORT_HEADER_BYTES + bytes;
    }
    is_valid.then(|| position.after(here.level))
}

/// Copies all bindings of overflow lines.
#[inline(never)]
fn copy_overflow<const VALUES: bool>(view: View<'_>, first: Offset, into: &mut Batch) -> Option<()> {
    let mut next = first;
    for _ in 0..MOST_LINES {
        let line = view.block::<8>(next)?;
        copy_line::<VALUES>(view, line, into)?;
        next = Link(line.load(W_LINK as usize)).next();
        if next.is_none() {
            return Some(());
        }
    }
    None
}

/// Copies all bindings of a line; those of one key newest first.
#[inline(always)]
fn copy_line<const VALUES: bool>(view: View<'_>, line: Block<'_, 8>, into: &mut Batch) -> Option<()> {
    for n in W_ENTRY..W_ENTRY + ENTRIES {
        let newest = entry_record(line.load(n as usize));
        if newest.is_none() {
            continue;
        }
        let older = copy_record::<VALUES>(view, newest, into)?;
        if VALUES && !older.is_none() {
            copy_hidden(view, older, into)?;
        }
    }
    Some(())
}

/// Copies a record. Gives the next older one.
#[inline(always)]
fn copy_record<const VALUES: bool>(view: View<'_>, at: Offset, into: &mut Batch) -> Option<Offset> {
    let header = view.block_of_units::<2>(at)?;
    let (first, shape) = (header.load(0), Shape::from_lengths(header.load(1)));
    let value_at = record::padded(shape.key_len);
    let bytes = if VALUES { value_at + shape.value_len } else { shape.key_len };
    // What is longer is copied in pieces.
    if Shape::is_long(first) || bytes >= PIECE_BYTES as u64 || !view.reaches_behind_units::<2>(at, bytes) {
        return None;
    }
    let value = VALUES.then_some(value_at as usize);
    into.append_body(view, at.add(SHORT_HEADER_BYTES), bytes as usize, shape.key_len as usize, value)?;
    Some(record::older(first))
}

/// Copies older bindings of a key, newest first.
#[inline(never)]
fn copy_hidden(view: View<'_>, newest: Offset, into: &mut Batch) -> Option<()> {
    let mut record = newest;
    for _ in 0..MOST_BINDINGS {
        record = copy_record::<true>(view, record, into)?;
        if record.is_none() {
            return Some(());
        }
    }
    None
}
