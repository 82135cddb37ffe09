//! The short way of a split, for the bucket that growth mostly meets: at most two overflow lines, and nobody
//! else there.
//!
//! As in [`super::fast`], everything is read first, and the compare-and-swaps that take the two locks prove
//! that nothing has changed since. What does not fit is split the general way; `None` means that nothing has
//! happened.

use super::TableView;
use super::fast::LIST;
use crate::alloc::custody;
use crate::format::bucket::{self, ENTRIES, Link, W_ENTRY, W_LINK, entry_moves, entry_record, level_of};
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::record::{SHORT_HEADER_BYTES, Shape, padded};
use crate::format::size_class::LINE_CLASS;
use crate::format::{Offset, slot};
use crate::index::KeyHash;
use crate::index::roots::Roots;
use crate::lock::release;
use crate::log::DirectLog;
use crate::segment::view::{Block, View};
use crate::writer::Writer;
use std::mem::MaybeUninit;

/// Longest key that is hashed again by the short way, in bytes.
const LONGEST_KEY: u64 = 128;

const SIX: usize = ENTRIES as usize;

/// A line and where it lies.
type Line<'a> = (Offset, Block<'a, 8>);

/// One of the two buckets, as it will be.
struct Half<'a> {
    bucket: Line<'a>,
    entries: [u64; 2 * SIX],
    len: usize,
    /// The overflow line for the second six entries.
    more: Option<Line<'a>>,
    link: Link,
}

/// Splits bucket `index`, which has this level.
pub(super) fn split(w: &mut Writer, table: &TableView, index: u64, level: u32) -> Option<()> {
    if level >= bucket::MAX_LEVEL {
        return None;
    }
    let roots = &table.roots;
    let view = w.segment.view();
    let version = roots.version();
    let partner_index = index + (1 << level);
    let (home_at, partner_at) = (roots.bucket(index)?, roots.bucket(partner_index)?);
    let (home, partner) = (view.block::<8>(home_at)?, view.block::<8>(partner_at)?);
    let (home_word, partner_word) = (LockWord(home.load_acquire(0)), LockWord(partner.load_acquire(0)));
    let at_rest = |word: LockWord| word.is_free() && !word.is_writing();
    let born = (W_ENTRY as usize..8).fold(0, |bits, n| bits | partner.load(n)) != 0;
    let link = Link(home.load(W_LINK as usize));
    if !at_rest(home_word)
        || !at_rest(partner_word)
        || born
        || level_of(index, link, roots.base_level()) != Some(level)
    {
        return None;
    }
    let mut kept = Half::new((home_at, home), link.with_level(level + 1));
    let mut moved = Half::new((partner_at, partner), Link(0).with_level(level + 1));
    let freed = divide(view, home, link, level, &mut kept, &mut moved)?;
    if bucket::window_changes_at(level + 1) {
        kept.renew(view, table.key_hash, level + 1)?;
        moved.renew(view, table.key_hash, level + 1)?;
    }
    // Making room for the freed line may be a transaction of its own, which needs the log: so that comes first.
    let slot = w.slot()?;
    let cell = if freed.is_none() { None } else { Some(custody::empty_cell(w, slot, LINE_CLASS)?) };
    let mut log = DirectLog::new(slot);
    kept.log(&mut log);
    moved.log(&mut log);
    if let Some((cell, _)) = cell {
        log.push(cell, freed.0);
    }

    slot.store(LIST, home_at.0);
    slot.store(LIST + 1, partner_at.0);
    slot.store(slot::W_LIST_LEN as usize, 2);
    let me = w.s.p.slot;
    let taken = |word: LockWord| word.locked_by(me, WRITING);
    let take = |block: Block<'_, 8>, word: LockWord| block.compare_exchange(0, word.0, taken(word).0).is_ok();
    let locked = take(home, home_word) && take(partner, partner_word) && {
        // As in `fast::lock`.
        w.segment.fence_after_exchange();
        let gate = LockWord(view.gate().load_acquire(0));
        Roots::is_free_gate(gate, version)
    };
    if locked {
        log.commit(w.segment, |_| {
            kept.apply();
            moved.apply();
            if let Some((_, cell)) = cell {
                cell.store(0, freed.0);
            }
        });
    }
    for ((at, block), word) in [(kept.bucket, home_word), (moved.bucket, partner_word)] {
        // Nobody but a waiter, or somebody who watches, changes the word while it is held.
        let held = taken(word);
        if held.has_sleepers() || block.compare_exchange(0, held.0, held.released(true).0).is_err() {
            release(w.segment, at, me, true);
        }
    }
    slot.store(slot::W_LIST_LEN as usize, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
    if !locked {
        return None;
    }
    if !freed.is_none() {
        custody::note_freed(w, LINE_CLASS);
    }
    roots.expect(partner_index + 1);
    Some(())
}

/// Distributes the entries of a bucket and its overflow lines, and these lines to the halves that need one. Gives
/// the line that is left over, if one is. None if it is not as simple as that.
#[inline(always)]
fn divide<'a>(
    view: View<'a>,
    home: Block<'a, 8>,
    link: Link,
    level: u32,
    kept: &mut Half<'a>,
    moved: &mut Half<'a>,
) -> Option<Offset> {
    let mut share = |line: Block<'_, 8>| {
        for n in W_ENTRY as usize..W_LINK as usize {
            let entry = line.load(n);
            if entry != 0 {
                if entry_moves(entry, level) { moved.add(entry)? } else { kept.add(entry)? }
            }
        }
        Some(())
    };
    share(home)?;
    let mut lines = [None; 2];
    let mut next = link.next();
    for place in &mut lines {
        if next.is_none() {
            break;
        }
        let line = view.block::<8>(next)?;
        share(line)?;
        *place = Some((next, line));
        next = Link(line.load(W_LINK as usize)).next();
    }
    if !next.is_none() {
        return None;
    }
    // Two halves of more than six entries each had two lines, one had one: there are as many as it takes.
    let mut lines = lines.into_iter().flatten();
    kept.lengthen(&mut lines)?;
    moved.lengthen(&mut lines)?;
    let freed = lines.next().map_or(Offset::NONE, |line| line.0);
    lines.next().is_none().then_some(freed)
}

impl<'a> Half<'a> {
    fn new(bucket: Line<'a>, link: Link) -> Half<'a> {
        let link = link.with_next(Offset::NONE);
        Half { bucket, entries: [0; 2 * SIX], len: 0, more: None, link }
    }

    #[inline(always)]
    fn add(&mut self, entry: u64) -> Option<()> {
        *self.entries.get_mut(self.len)? = entry;
        self.len += 1;
        Some(())
    }

    /// Takes an overflow line if there are more entries than the bucket holds.
    fn lengthen(&mut self, lines: &mut impl Iterator<Item = Line<'a>>) -> Option<()> {
        if self.len > SIX {
            let line = lines.next()?;
            self.more = Some(line);
            self.link = self.link.with_next(line.0);
        }
        Some(())
    }

    /// The lines that change, with their new entries and links.
    #[inline(always)]
    fn each_line(&self, mut f: impl FnMut(Line<'a>, [u64; SIX + 1])) {
        let content = |from: usize, link: Link| {
            std::array::from_fn(|i| if i < SIX { self.entries[from + i] } else { link.0 })
        };
        f(self.bucket, content(0, self.link));
        if let Some(line) = self.more {
            f(line, content(SIX, Link(0)));
        }
    }

    #[inline(always)]
    fn log(&self, log: &mut DirectLog<'_>) {
        self.each_line(|(at, _), words| log.push_run(at.word(W_ENTRY), words));
    }

    #[inline(always)]
    fn apply(&self) {
        self.each_line(|(_, line), words| line.store_run(W_ENTRY as usize, words));
    }

    /// Gives the entries the window of another level, for which their keys are hashed again. None if one is not a
    /// short key of a short record.
    #[cold]
    #[inline(never)]
    fn renew(&mut self, view: View<'_>, key_hash: KeyHash, level: u32) -> Option<()> {
        for entry in &mut self.entries[..self.len] {
            *entry = renewed(view, key_hash, *entry, level)?;
        }
        Some(())
    }
}

/// An entry with the window of another level.
fn renewed(view: View<'_>, key_hash: KeyHash, entry: u64, level: u32) -> Option<u64> {
    let record = entry_record(entry);
    let header = view.block::<2>(record)?;
    let len = Shape::from_lengths(header.load(1)).key_len;
    let at = record.add(SHORT_HEADER_BYTES);
    if Shape::is_long(header.load(0))
        || len > LONGEST_KEY
        || record.is_none()
        || !view.contains(at, padded(len))
    {
        return None;
    }
    let mut key = [MaybeUninit::<u8>::uninit(); LONGEST_KEY as usize];
    // SAFETY: the range was just checked, and the buffer has room for it; its first `len` bytes are initialised by
    // the copy.
    let key = unsafe {
        view.copy_out(at, key.as_mut_ptr().cast(), len as usize);
        std::slice::from_raw_parts(key.as_ptr().cast::<u8>(), len as usize)
    };
    Some(bucket::entry(key_hash.hash(key), level, record))
}
