//! The short ways that change which records a key has: binding it, once more or first, removing its newest binding, and a
//! new record in the place of the newest one.
//!
//! As in [`super::fast`]. Records are filled in blocks of the slot's cells while nothing is locked; what the change sets free
//! goes into cells with the same commit.

use super::fast::{At, write};
use super::lifecycle::count_freeing;
use super::{TableView, growth, ops};
use crate::alloc::custody;
use crate::format::Offset;
use crate::format::bucket::{self, Link, W_ENTRY, W_LINK, entry_record, entry_with};
use crate::format::record::{self, Holder, Shape};
use crate::format::size_class::LINE_CLASS;
use crate::index::find::{self, Sight};
use crate::segment::Segment;
use crate::segment::view::{Block, View};
use crate::writer::Writer;

/// As `insert`, for callers that seldom need it: what has been looked up is looked up again, so that it need not be kept
/// in memory for those who do not.
#[inline(never)]
pub(super) fn insert_apart(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    insert(w, table, key, value)
}

/// Replaces the newest binding by a value of any length that a block holds: a new record takes the old one's place. As in
/// `insert_apart`, the key is looked up again.
#[inline(never)]
pub(super) fn rebind(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    let found = sight.found?;
    let Holder::Block(old_class) = found.shape.holder()? else { return None };
    let (shape, class) = Shape::of_short(key.len(), value.len())?;
    let place = place_of(&sight, found.record)?;
    let older = record::older(sight.view.block::<1>(found.record)?.load(0));
    let slot = w.slot()?;
    let ready = custody::ready_block(w, slot, class)?;
    let words = [shape.first_word(older), shape.lengths_word()];
    if !fill_record(w, sight.view, ready.block, words, key, value) {
        return None;
    }
    let moved = (word_of(place.line, place.word), entry_with(place.entry, ready.block));
    let cell = (ready.cell, ready.word);
    if class == old_class {
        if !write(w, slot, &sight, &[moved, (cell, found.record.0)]) {
            return None;
        }
    } else {
        let freed = (custody::empty_cell(w, slot, old_class)?, found.record.0);
        if !write(w, slot, &sight, &[moved, (cell, 0), freed]) {
            return None;
        }
        custody::note_taken(w, class);
        custody::note_freed(w, old_class);
    }
    count_freeing(w);
    Some(())
}

/// Binds a key.
#[inline(always)]
pub(crate) fn add(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    add_seen(w, table, hash, sight, key, value)
}

/// The same for a key that has been looked up.
#[inline(always)]
pub(crate) fn add_seen(
    w: &mut Writer,
    table: &TableView,
    hash: u64,
    sight: Sight,
    key: &[u8],
    value: &[u8],
) -> Option<()> {
    match sight.found {
        None => bind_new(w, table, hash, sight, key, value),
        Some(_) => stack_apart(&mut w.reborrow(), table, key, value),
    }
}

/// Binds a key that has no binding yet.
#[inline(always)]
pub(crate) fn insert(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    if sight.found.is_some() { None } else { bind_new(w, table, hash, sight, key, value) }
}

/// Binds a key that has a binding once more. As in `insert_apart`, the key is looked up again.
#[inline(never)]
fn stack_apart(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    let newest = sight.found?.record;
    let (shape, class) = Shape::of_short(key.len(), value.len())?;
    let place = place_of(&sight, newest)?;
    let slot = w.slot()?;
    let counter = ops::counter(w, table)?;
    let ready = custody::ready_block(w, slot, class)?;
    let count = counter.1.load(0);
    let words = [shape.first_word(newest), shape.lengths_word()];
    if !fill_record(w, sight.view, ready.block, words, key, value) {
        return None;
    }
    let bound = (word_of(place.line, place.word), entry_with(place.entry, ready.block));
    let taken = ((ready.cell, ready.word), 0);
    if !write(w, slot, &sight, &[bound, taken, (counter, count.wrapping_add(1))]) {
        return None;
    }
    custody::note_taken(w, class);
    growth::report(w, table.roots.root(), count as i64, count.wrapping_add(1) as i64);
    Some(())
}

/// Removes the newest binding. Tells whether there was one.
#[inline(always)]
pub(crate) fn remove(w: &mut Writer, table: &TableView, key: &[u8]) -> Option<bool> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    let Some(found) = sight.found else {
        return sight.is_valid(&table.roots).then_some(false);
    };
    let Holder::Block(class) = found.shape.holder()? else { return None };
    let place = place_of(&sight, found.record)?;
    let older = record::older(sight.view.block::<1>(found.record)?.load(0));
    let left = if older.is_none() {
        0
    } else {
        find::checked_shape(w.segment, older).ok()?;
        entry_with(place.entry, older)
    };
    let slot = w.slot()?;
    let counter = ops::counter(w, table)?;
    let count = counter.1.load(0);
    let freed = (custody::empty_cell(w, slot, class)?, found.record.0);
    let counted = (counter, count.wrapping_sub(1));
    if left == 0 && place.is_last {
        // The line that becomes empty is freed. Its cell is another one if its class is.
        let (link_at, link) = place.before.filter(|_| class != LINE_CLASS)?;
        let line_cell = custody::empty_cell(w, slot, LINE_CLASS)?;
        let next = Link(place.line.1.load(W_LINK as usize)).next();
        let unlinked = (link_at, link.with_next(next).0);
        if !write(w, slot, &sight, &[unlinked, (line_cell, place.line.0.0), freed, counted]) {
            return None;
        }
        custody::note_freed(w, LINE_CLASS);
    } else if !write(w, slot, &sight, &[(word_of(place.line, place.word), left), freed, counted]) {
        return None;
    }
    custody::note_freed(w, class);
    count_freeing(w);
    growth::report(w, table.roots.root(), count as i64, count.wrapping_sub(1) as i64);
    Some(true)
}

/// A line: where it is, and its words.
type Line<'a> = (Offset, Block<'a, 8>);

/// A word of a line.
#[inline(always)]
fn word_of(line: Line<'_>, n: usize) -> At<'_> {
    (line.0.word(n as u64), line.1.word(n))
}

/// Where a key's entry is: in the bucket, or in an overflow line.
struct Place<'a> {
    line: Line<'a>,
    word: usize,
    entry: u64,
    /// Is it the only entry of an overflow line?
    is_last: bool,
    /// For an overflow line: the word that links to it, and its value.
    before: Option<(At<'a>, Link)>,
}

/// Finds the entry that points to a record, in the bucket or one of its first overflow lines.
#[inline(always)]
fn place_of<'a>(sight: &Sight<'a>, record: Offset) -> Option<Place<'a>> {
    let line = (sight.seen.bucket, sight.bucket);
    for word in ENTRIES {
        let entry = line.1.load(word);
        if entry_record(entry) == record {
            return Some(Place { line, word, entry, is_last: false, before: None });
        }
    }
    place_in_lines(sight, record)
}

#[inline(never)]
fn place_in_lines<'a>(sight: &Sight<'a>, record: Offset) -> Option<Place<'a>> {
    let mut link_at = word_of((sight.seen.bucket, sight.bucket), LINK);
    let mut link = Link(sight.bucket.load(LINK));
    for _ in 0..LINES_SEARCHED {
        let at = link.next();
        let line = (at, sight.view.block::<8>(at).filter(|_| !at.is_none())?);
        let mut others = 0;
        let mut found = None;
        for n in ENTRIES {
            let entry = line.1.load(n);
            if entry != 0 && entry_record(entry) == record {
                found = Some((n, entry));
            } else {
                others |= entry;
            }
        }
        if let Some((word, entry)) = found {
            return Some(Place { line, word, entry, is_last: others == 0, before: Some((link_at, link)) });
        }
        link_at = word_of(line, LINK);
        link = Link(line.1.load(LINK));
    }
    None
}

const ENTRIES: std::ops::Range<usize> = W_ENTRY as usize..W_LINK as usize;
const LINK: usize = W_LINK as usize;

/// Overflow lines of a bucket that the short way of a removal knows.
const LINES_SEARCHED: u32 = 3;

/// Adds a key that has no binding to a hole of its bucket, or to a new overflow line.
#[inline(always)]
fn bind_new(
    w: &mut Writer,
    table: &TableView,
    hash: u64,
    sight: Sight,
    key: &[u8],
    value: &[u8],
) -> Option<()> {
    let (shape, class) = Shape::of_short(key.len(), value.len())?;
    let slot = w.slot()?;
    let counter = ops::counter(w, table)?;
    let ready = custody::ready_block(w, slot, class)?;
    let entry = bucket::entry(hash, sight.level, ready.block);
    let count = counter.1.load(0);
    let taken = ((ready.cell, ready.word), 0);
    let counted = (counter, count.wrapping_add(1));
    let words = [shape.first_word(Offset::NONE), shape.lengths_word()];
    if !fill_record(w, sight.view, ready.block, words, key, value) {
        return None;
    }
    let bucket = (sight.seen.bucket, sight.bucket);
    let link = Link(sight.bucket.load(LINK));
    let done = match hole_in(sight.view, bucket, link) {
        Some(hole) => write(w, slot, &sight, &[(hole, entry), taken, counted]),
        None => {
            // A new line goes between the bucket and its other lines. Its cell is another one if its class is.
            let line = custody::ready_block(w, slot, LINE_CLASS).filter(|_| class != LINE_CLASS)?;
            fill_line(w.segment, line.block, entry, link.next())?;
            let linked = (word_of(bucket, LINK), link.with_next(line.block).0);
            let line_taken = ((line.cell, line.word), 0);
            let done = write(w, slot, &sight, &[linked, line_taken, taken, counted]);
            if done {
                custody::note_taken(w, LINE_CLASS);
            }
            done
        }
    };
    if done {
        custody::note_taken(w, class);
        growth::report(w, table.roots.root(), count as i64, count.wrapping_add(1) as i64);
    }
    done.then_some(())
}

/// Fills a block that nobody refers to, and that may be one, with a short record. False if it does not lie inside of the
/// object.
#[inline(always)]
#[must_use]
fn fill_record(w: &Writer, view: View<'_>, at: Offset, words: [u64; 2], key: &[u8], value: &[u8]) -> bool {
    // As in `ops::fill_record`.
    w.segment.fence_release();
    view.fill(at, words, key, value) || fill_beyond(w.segment, (at, words), key, value)
}

/// The same for a block that lies beyond what was known of the object.
#[cold]
#[inline(never)]
fn fill_beyond(segment: &Segment, (at, words): (Offset, [u64; 2]), key: &[u8], value: &[u8]) -> bool {
    segment.fill(at, &words, key, value)
}

/// Fills an overflow line that is not reachable yet.
#[inline(always)]
fn fill_line(segment: &Segment, at: Offset, entry: u64, next: Offset) -> Option<()> {
    let line = segment.block::<8>(at)?;
    // As in `ops::fill_record`.
    segment.fence_release();
    line.store(0, 0);
    line.store(W_ENTRY as usize, entry);
    for n in W_ENTRY as usize + 1..LINK {
        line.store(n, 0);
    }
    line.store(LINK, Link(0).with_next(next).0);
    Some(())
}

/// A free entry of the bucket or of its first overflow line.
#[inline(always)]
fn hole_in<'a>(view: View<'a>, bucket: Line<'a>, link: Link) -> Option<At<'a>> {
    if let Some(n) = empty_entry(bucket.1) {
        return Some(word_of(bucket, n));
    }
    if link.next().is_none() {
        return None;
    }
    let line = (link.next(), view.block::<8>(link.next())?);
    empty_entry(line.1).map(|n| word_of(line, n))
}

#[inline(always)]
fn empty_entry(line: Block<'_, 8>) -> Option<usize> {
    // An empty entry is 0, so its tag is.
    let mut candidates = line.matches(0);
    while candidates != 0 {
        let n = W_ENTRY as usize + candidates.trailing_zeros() as usize;
        if line.load(n & 7) == 0 {
            return Some(n);
        }
        candidates &= candidates - 1;
    }
    None
}
