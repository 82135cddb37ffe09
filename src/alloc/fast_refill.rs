//! The short way from a slab to an empty magazine: what a refill mostly is.
//!
//! It is the same mini-transaction as in [`super::slabs`], written out: one arena that nobody holds, whose
//! first slab has more free blocks than are wanted, while nothing is planned and nothing locked. What does
//! not fit goes the general way; `None` means that nothing has happened.

use super::slabs::{own_arena, refill_blocks};
use crate::format::lock_word::LockWord;
use crate::format::pages::{self as page_format, Head, bitmap_word, descriptor};
use crate::format::size_class::{class_bytes, slab_blocks};
use crate::format::slot::{self, MAGAZINE_CELLS, magazine_word};
use crate::format::{Offset, Page, header, log_record};
use crate::lock::release;
use crate::segment::view::{Block, View};
use crate::writer::Writer;

const LIST: usize = slot::LOCK_LIST.inline_word as usize;
const LOG: usize = slot::LOG.inline_word as usize;
const CELLS: usize = MAGAZINE_CELLS as usize;
type Slot<'a> = Block<'a, { slot::SLOT_BYTES as usize / 8 }>;

/// What a refill changes besides the cells: bitmap words, and the number of free blocks.
struct Taken {
    cells: [u64; CELLS],
    bitmap: [(Offset, u64); CELLS],
    bitmap_words: usize,
    free_at: Offset,
    free: u64,
}

/// Fills empty cells of the magazine of a class.
pub(super) fn refill(w: &mut Writer, class: u32) -> Option<()> {
    if !w.s.is_at_rest() {
        return None;
    }
    let segment = w.segment;
    let slot: Slot = segment.block(w.s.p.base)?;
    let arena = header::arena(own_arena(w));
    let list = header::arena_list(own_arena(w), class);
    let word = LockWord(segment.load_acquire(arena));
    if !word.is_free() {
        return None;
    }
    slot.store(LIST, arena.0);
    slot.store(slot::W_LIST_LEN as usize, 1);
    if segment.compare_exchange(arena, word.0, word.locked_by(w.s.p.slot, 0).0).is_err() {
        slot.store(slot::W_LIST_LEN as usize, 0);
        return None;
    }
    // The compare-and-swap was a full fence: see `Writer::gate_is_anothers`.
    let taken =
        if w.gate_is_anothers() { None } else { choose(segment.view(), slot, segment.load(list), class) };
    if let Some(taken) = &taken {
        commit(w, slot, class, taken);
    }
    release(segment, arena, w.s.p.slot, false);
    slot.store(slot::W_LIST_LEN as usize, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
    let full = taken?.cells.iter().rposition(|cell| *cell != 0)?;
    w.s.p.full_cell[class as usize] = full as u8;
    Some(())
}

/// Chooses free blocks of a slab for the empty cells. The arena's lock is held.
fn choose(view: View<'_>, slot: Slot, slab: u64, class: u32) -> Option<Taken> {
    let slab = Page(u32::try_from(slab).ok().filter(|page| *page != 0)?);
    let at = descriptor(slab);
    let descriptor = view.block::<4>(at)?;
    let head = Head(descriptor.load(0));
    if head.kind() != page_format::SLAB || head.class() != class {
        return None;
    }
    let mut taken = Taken {
        cells: [0; CELLS],
        bitmap: [(Offset::NONE, 0); CELLS],
        bitmap_words: 0,
        free_at: at.word(2),
        free: descriptor.load(2),
    };
    let mut empty = 0;
    for (i, cell) in taken.cells.iter_mut().enumerate() {
        *cell = slot.load(magazine_word(class, i as u64) as usize);
        empty += u64::from(*cell == 0);
    }
    let mut wanted = refill_blocks(class).min(empty);
    // A slab that is used up leaves its arena's list, which the general way does.
    taken.free = taken.free.checked_sub(wanted).filter(|left| *left != 0 && wanted != 0)?;
    let mut cells = taken.cells.iter_mut().filter(|cell| **cell == 0);
    let blocks = slab_blocks(class);
    for n in 0..blocks.div_ceil(64) {
        let word_at = bitmap_word(slab, n);
        let before = view.block::<1>(word_at)?.load(0);
        let mut word = before;
        while wanted > 0 && word != u64::MAX {
            let bit = word.trailing_ones() as u64;
            if 64 * n + bit >= blocks {
                break;
            }
            word |= 1 << bit;
            *cells.next()? = slab.offset().0 + (64 * n + bit) * class_bytes(class);
            wanted -= 1;
        }
        if word != before {
            taken.bitmap[taken.bitmap_words] = (word_at, word);
            taken.bitmap_words += 1;
        }
        if wanted == 0 {
            return Some(taken);
        }
    }
    None
}

/// Logs the changes and makes them.
fn commit(w: &Writer, slot: Slot, class: u32, taken: &Taken) {
    let first_cell = magazine_word(class, 0);
    let mut words = LOG;
    let mut log = |value: u64| {
        slot.store(words, value);
        words += 1;
        words - LOG
    };
    log(log_record::run_header(w.slot_word(first_cell), MAGAZINE_CELLS));
    for cell in &taken.cells {
        log(*cell);
    }
    for (at, word) in &taken.bitmap[..taken.bitmap_words] {
        log(log_record::run_header(*at, 1));
        log(*word);
    }
    log(log_record::run_header(taken.free_at, 1));
    let log_words = log(taken.free);
    // The commit point.
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, log_words as u64));
    w.segment.fence_release();
    for (i, cell) in taken.cells.iter().enumerate() {
        slot.store(first_cell as usize + i, *cell);
    }
    for (at, word) in &taken.bitmap[..taken.bitmap_words] {
        w.segment.store(*at, *word);
    }
    w.segment.store(taken.free_at, taken.free);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
}
