//! The frame of the short ways between slabs and magazine: a mini-transaction of one arena, written out.
//!
//! Nothing is planned and nothing locked beforehand. The arena's lock is taken before anything of the arena is
//! read; what is read decides about the log, which is written straight into the slot. What does not fit goes
//! the general way; `None` means that nothing has happened.

use crate::format::lock_word::LockWord;
use crate::format::slot::{self, MAGAZINE_CELLS, magazine_word};
use crate::format::{Offset, header};
use crate::lock::release;
use crate::log::{DirectLog, SlotBlock};
use crate::segment::view::View;
use crate::writer::Writer;

pub(super) const CELLS: usize = MAGAZINE_CELLS as usize;

/// The magazine of a class: the blocks in its cells, and a bit for each cell that is empty.
#[inline(always)]
pub(super) fn cells_of(slot: SlotBlock<'_>, class: u32) -> ([u64; CELLS], u32) {
    let first = magazine_word(class, 0) as usize;
    let (mut cells, mut empty) = ([0; CELLS], 0);
    for (i, cell) in cells.iter_mut().enumerate() {
        *cell = slot.load(first + i);
        empty |= u32::from(*cell == 0) << i;
    }
    (cells, empty)
}

/// Lets `choose` write into the log what is to be done, with the arena's lock held, and does it.
#[inline(always)]
pub(super) fn change<'a, R>(
    w: &mut Writer<'a>,
    arena: u64,
    choose: impl FnOnce(View<'a>, SlotBlock<'a>, &mut DirectLog<'a>) -> Option<R>,
) -> Option<R> {
    const LIST: usize = slot::LOCK_LIST.inline_word as usize;
    if !w.s.is_at_rest() {
        return None;
    }
    let segment = w.segment;
    let slot: SlotBlock<'a> = segment.block(w.s.p.base)?;
    let lock: Offset = header::arena(arena);
    let seen = LockWord(segment.load_acquire(lock));
    if !seen.is_free() {
        return None;
    }
    slot.store(LIST, lock.0);
    slot.store(slot::W_LIST_LEN as usize, 1);
    if segment.compare_exchange(lock, seen.0, seen.locked_by(w.s.p.slot, 0).0).is_err() {
        slot.store(slot::W_LIST_LEN as usize, 0);
        return None;
    }
    let mut log = DirectLog::new(slot);
    // All that is changed lies in this view, or nothing is.
    let view = segment.view();
    // Straight after the compare-and-swap: see `Writer::gate_is_anothers`.
    let chosen = if w.gate_is_anothers() { None } else { choose(view, slot, &mut log) };
    if chosen.is_some() {
        log.commit(segment, |log| log.replay(view));
    }
    release(segment, lock, w.s.p.slot, false);
    slot.store(slot::W_LIST_LEN as usize, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
    chosen
}
