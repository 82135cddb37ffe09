//! The short way of a split, for the bucket that growth mostly meets: at most one overflow line before, none
//! afterwards, and nobody else there.
//!
//! As in [`super::fast`], everything is read first, and the compare-and-swaps that take the two locks prove
//! that nothing has changed since. What does not fit is split the general way; `None` means that nothing has
//! happened.

use super::TableView;
use super::fast::{LIST, LOG, Slot, slot_of};
use crate::alloc::custody;
use crate::format::bucket::{self, ENTRIES, Link, W_ENTRY, W_LINK, entry_moves, entry_record, level_of};
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::record::{SHORT_HEADER_BYTES, Shape, padded};
use crate::format::size_class::LINE_CLASS;
use crate::format::{Offset, log_record, slot};
use crate::index::KeyHash;
use crate::index::roots::Roots;
use crate::lock::release;
use crate::segment::view::{Block, View};
use crate::writer::Writer;

type Entries = [u64; ENTRIES as usize];

/// Longest key that is hashed again by the short way, in bytes.
const LONGEST_KEY: u64 = 128;

/// Words of a line that a split changes: its entries and its link.
const CHANGED: usize = ENTRIES as usize + 1;

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
    let unborn = (W_ENTRY as usize..8).all(|n| partner.load(n) == 0);
    let link = Link(home.load(W_LINK as usize));
    if !at_rest(home_word)
        || !at_rest(partner_word)
        || !unborn
        || level_of(index, link, roots.base_level()) != Some(level)
    {
        return None;
    }
    let (mut kept, mut moved) = divide(view, home, link, level)?;
    if bucket::window_changes_at(level + 1) {
        renew(view, table.key_hash, &mut kept, level + 1)?;
        renew(view, table.key_hash, &mut moved, level + 1)?;
    }
    let freed = link.next();
    let cell = if freed.is_none() { Offset::NONE } else { custody::empty_cell(w, LINE_CLASS)? };

    let slot = slot_of(w)?;
    let kept_link = link.with_next(Offset::NONE).with_level(level + 1);
    log_line(slot, LOG, home_at, &kept, kept_link);
    log_line(slot, LOG + 1 + CHANGED, partner_at, &moved, Link(0).with_level(level + 1));
    let mut words = 2 * (1 + CHANGED);
    if !freed.is_none() {
        slot.store(LOG + words, log_record::run_header(cell, 1));
        slot.store(LOG + words + 1, freed.0);
        words += 2;
    }

    slot.store(LIST, home_at.0);
    slot.store(LIST + 1, partner_at.0);
    slot.store(slot::W_LIST_LEN as usize, 2);
    let me = w.s.p.slot;
    let take = |block: Block<'_, 8>, word: LockWord| {
        block.compare_exchange(0, word.0, word.locked_by(me, WRITING).0).is_ok()
    };
    let locked = take(home, home_word) && take(partner, partner_word) && {
        // The compare-and-swaps were full fences: see `fast::lock`.
        let gate = LockWord(view.gate().load_acquire(0));
        gate.is_free() && Roots::version_of(gate) == version
    };
    if locked {
        // The commit point.
        slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, words as u64));
        w.segment.fence_release();
        apply_line(home, &kept, kept_link);
        apply_line(partner, &moved, Link(0).with_level(level + 1));
        if !freed.is_none() {
            w.segment.store(cell, freed.0);
        }
        slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
    }
    release(w.segment, home_at, me, true);
    release(w.segment, partner_at, me, true);
    slot.store(slot::W_LIST_LEN as usize, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
    if !locked {
        return None;
    }
    roots.expect(partner_index + 1);
    Some(())
}

/// The entries that stay, in their places where they have one, and those that move. None if either needs more
/// than a line.
fn divide(view: View<'_>, home: Block<'_, 8>, link: Link, level: u32) -> Option<(Entries, Entries)> {
    let (mut kept, mut moved) = (Entries::default(), Entries::default());
    let mut n = 0;
    for (i, place) in kept.iter_mut().enumerate() {
        let entry = home.load(W_ENTRY as usize + i);
        if entry != 0 && entry_moves(entry, level) {
            moved[n] = entry;
            n += 1;
        } else {
            *place = entry;
        }
    }
    if link.next().is_none() {
        return Some((kept, moved));
    }
    let line = view.block::<8>(link.next())?;
    if !Link(line.load(W_LINK as usize)).next().is_none() {
        return None;
    }
    for i in 0..ENTRIES as usize {
        let entry = line.load(W_ENTRY as usize + i);
        if entry == 0 {
            continue;
        }
        if entry_moves(entry, level) {
            *moved.get_mut(n)? = entry;
            n += 1;
        } else {
            *kept.iter_mut().find(|place| **place == 0)? = entry;
        }
    }
    Some((kept, moved))
}

/// Gives entries the window of another level, for which their keys are hashed again. None if one is not a
/// short key of a short record.
#[cold]
#[inline(never)]
fn renew(view: View<'_>, key_hash: KeyHash, entries: &mut Entries, level: u32) -> Option<()> {
    for entry in entries.iter_mut().filter(|entry| **entry != 0) {
        let record = entry_record(*entry);
        let header = view.block::<2>(record)?;
        let len = Shape::from_lengths(header.load(1)).key_len;
        if Shape::is_long(header.load(0)) || len > LONGEST_KEY || record.is_none() {
            return None;
        }
        let at = record.add(SHORT_HEADER_BYTES);
        let mut key = [0; LONGEST_KEY as usize];
        if !view.contains(at, padded(len)) {
            return None;
        }
        // SAFETY: the range was just checked, and the buffer has room for it.
        unsafe { view.copy_out(at, key.as_mut_ptr(), len as usize) };
        *entry = bucket::entry(key_hash.hash(&key[..len as usize]), level, record);
    }
    Some(())
}

/// Writes the new content of a line into the log, from log word `at` on.
fn log_line(slot: Slot, at: usize, line: Offset, entries: &Entries, link: Link) {
    slot.store(at, log_record::run_header(line.word(W_ENTRY), CHANGED as u64));
    for (i, entry) in entries.iter().enumerate() {
        slot.store(at + 1 + i, *entry);
    }
    slot.store(at + CHANGED, link.0);
}

/// Writes the new content of a line into it.
fn apply_line(line: Block<'_, 8>, entries: &Entries, link: Link) {
    for (i, entry) in entries.iter().enumerate() {
        line.store(W_ENTRY as usize + i, *entry);
    }
    line.store(W_LINK as usize, link.0);
}
