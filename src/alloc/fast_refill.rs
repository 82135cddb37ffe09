//! The short way from a slab to an empty magazine: what a refill mostly is.
//!
//! It is the mini-transaction of [`super::slabs`] in the frame of [`super::fast_arena`]: the first slab of the
//! slot's own arena gives what it has, at most as much as a refill takes.

use super::fast_arena::{CELLS, cells_of, change};
use super::slabs::{DESCRIPTOR_WORDS, bitmap_place, own_arena, refill_blocks};
use crate::format::pages::{self as page_format, Head, Links, descriptor};
use crate::format::size_class::{class_bytes, slab_blocks};
use crate::format::slot::magazine_word;
use crate::format::{Offset, Page, header};
use crate::log::{DirectLog, SlotBlock};
use crate::segment::view::{Block, View};
use crate::writer::Writer;

/// Fills empty cells of the magazine of a class.
pub(super) fn refill(w: &mut Writer, class: u32) -> Option<()> {
    let arena = own_arena(w);
    let base = w.s.p.base;
    let full = change(w, arena, |view, slot, log| choose(view, slot, base, log, arena, class))?;
    w.s.p.full_cell[class as usize] = full as u8;
    Some(())
}

/// Moves free blocks of a slab to the empty cells. Gives the last cell that has a block. The arena's lock is
/// held.
fn choose(
    view: View<'_>,
    slot: SlotBlock<'_>,
    slot_at: Offset,
    log: &mut DirectLog<'_>,
    arena: u64,
    class: u32,
) -> Option<usize> {
    let list = header::arena_list(arena, class);
    let slab = Page(u32::try_from(view.block::<1>(list)?.load(0)).ok().filter(|page| *page != 0)?);
    let at = descriptor(slab);
    let descriptors = view.block::<DESCRIPTOR_WORDS>(at)?;
    let head = Head(descriptors.load(0));
    if head.kind() != page_format::SLAB || head.class() != class {
        return None;
    }
    let (mut cells, mut empty) = cells_of(slot, class);
    let free = descriptors.load(2);
    let taken = refill_blocks(class).min(u64::from(empty.count_ones())).min(free);
    if taken == 0 {
        return None;
    }
    take(descriptors, slab, class, taken, (&mut cells, &mut empty), log)?;
    log.push_run(slot_at.word(magazine_word(class, 0)), cells);
    log.push(at.word(2), free - taken);
    if taken == free {
        leave_list(view, descriptors, slab, list, log)?;
    }
    (!empty & ALL_CELLS).checked_ilog2().map(|last| last as usize)
}

/// A bit for each cell.
const ALL_CELLS: u32 = (1 << CELLS) - 1;

/// Puts free blocks of a slab into empty cells, and says in its bitmap that they are not free.
fn take(
    descriptors: Block<'_, DESCRIPTOR_WORDS>,
    slab: Page,
    class: u32,
    mut wanted: u64,
    (cells, empty): (&mut [u64; CELLS], &mut u32),
    log: &mut DirectLog<'_>,
) -> Option<()> {
    let (bytes, blocks) = (class_bytes(class), slab_blocks(class));
    for n in 0..blocks.div_ceil(64) {
        let before = descriptors.load(bitmap_place(n));
        if before == u64::MAX {
            continue;
        }
        // The last word has bits beyond the last block.
        let none = if blocks - 64 * n < 64 { u64::MAX << (blocks - 64 * n) } else { 0 };
        let mut free = !(before | none);
        let first = slab.offset().0 + 64 * n * bytes;
        // In a register for the loop.
        let mut into = *empty;
        while free != 0 && wanted > 0 {
            *cells.get_mut(into.trailing_zeros() as usize)? =
                first + u64::from(free.trailing_zeros()) * bytes;
            free &= free - 1;
            into &= into - 1;
            wanted -= 1;
        }
        *empty = into;
        if free != !(before | none) {
            log.push(descriptor(slab).word(bitmap_place(n) as u64), !free & !none | before);
        }
        if wanted == 0 {
            return Some(());
        }
    }
    None
}

/// Takes a slab that is used up off the list of its arena, of which it is the first.
#[cold]
#[inline(never)]
fn leave_list(
    view: View<'_>,
    descriptors: Block<'_, DESCRIPTOR_WORDS>,
    slab: Page,
    list: Offset,
    log: &mut DirectLog<'_>,
) -> Option<()> {
    let links = Links(descriptors.load(1));
    if links.previous() != Page::NONE || links.next() == slab {
        return None;
    }
    log.push(list, links.next().0 as u64);
    if links.next() != Page::NONE {
        let next_at = descriptor(links.next()).word(1);
        let behind = Links(view.block::<1>(next_at)?.load(0));
        log.push(next_at, Links::new(behind.next(), Page::NONE).0);
    }
    Some(())
}
