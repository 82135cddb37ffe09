//! What stays in a slot's reserve when an operation is over, and how it goes back.
//!
//! Writers of slices put a new block in the place of each old one, and keep the old ones for the next slice. The
//! magazine is too small for that, so the reserve serves as well. What it holds goes back to slabs and pages with the
//! slot's next operation by the general way, a part with each, or when memory is short. More than a megabyte is
//! only kept from the second of two long slices on that closely follow each other, and only where as much is left
//! for others.

use super::custody::{drop_reserved, usable_block};
use super::slabs;
use crate::error::Result;
use crate::format::size_class::class_bytes;
use crate::format::slot::{self, MAGAZINE_CELLS, magazine_word};
use crate::format::{Offset, PAGE_BYTES, header};
use crate::os::{space, time};
use crate::writer::Writer;
use smallvec::SmallVec;

/// So many blocks of chunks any slot may keep: about a megabyte.
const FEW: usize = 60;
/// Long slices that follow each other closely: so many seconds of a coarse clock.
const CLOSE_SECONDS: u64 = 10;
/// Most reserve cells that are emptied when an operation is over, so that none pays for a whole long slice.
const SETTLED_AT_ONCE: u64 = 256;

/// Cells, and the blocks that they hold.
pub(crate) type Held = SmallVec<[(Offset, Offset); 8]>;

/// May the slot keep so many blocks, as old ones of a slice that is about to be written?
pub(crate) fn may_keep(w: &mut Writer, class: u32, wanted: usize) -> bool {
    if wanted <= FEW {
        return true;
    }
    let is_close = is_close_to_last(w);
    w.s.spares.len() >= wanted || (is_close && is_as_much_left(w, class, wanted))
}

/// Cells that hold blocks of a class, and the blocks, for an operation that plans nothing else and will put another
/// block into each of them. None: there are not so many to be had.
pub(crate) fn peek_blocks(w: &mut Writer, class: u32, wanted: usize, into: &mut Held) -> Option<()> {
    blocks_held(w, class, wanted, into);
    while into.len() < wanted {
        let had = into.len();
        // Each refill gives two, if there is no lack of them.
        for _ in 0..(wanted - had).div_ceil(2) {
            slabs::refill(w, class).ok()?;
        }
        blocks_held(w, class, wanted, into);
        if into.len() == had {
            return None;
        }
    }
    Some(())
}

fn blocks_held(w: &Writer, class: u32, most: usize, into: &mut Held) {
    into.clear();
    let Some(slot) = w.slot() else { return };
    let cells = (0..MAGAZINE_CELLS).map(|i| magazine_word(class, i));
    let magazine = cells.map(|n| (w.slot_word(n), slot.load(n as usize)));
    let spares = w.s.spares.iter().filter(|spare| spare.0 == class);
    for (cell, word) in magazine.chain(spares.map(|spare| (spare.1, w.segment.load(spare.1)))) {
        if into.len() == most {
            return;
        }
        if usable_block(w, Offset(word), class) {
            into.push((cell, Offset(word)));
        }
    }
}

/// Was the slot's last long slice a moment ago, with nothing in between that made it give back what it kept? Takes
/// note of this one.
fn is_close_to_last(w: &mut Writer) -> bool {
    let now = time::coarse_seconds();
    let last = w.s.long_slice.replace(now);
    last.is_some_and(|last| now.wrapping_sub(last) <= CLOSE_SECONDS)
}

/// Would others find as much free memory as this slot wants to keep?
#[cold]
fn is_as_much_left(w: &Writer, class: u32, wanted: usize) -> bool {
    let bytes = 2 * wanted as u64 * class_bytes(class);
    let word = |at| w.segment.load(at);
    let free =
        word(header::FREE_BACKED).saturating_add(word(header::FREE_UNBACKED)).saturating_mul(PAGE_BYTES);
    let max = word(Offset(8 * header::W_MAX_BYTES));
    let grows_by = match max {
        0 => u64::MAX,
        max => max.saturating_sub(word(header::USED_PAGES).saturating_mul(PAGE_BYTES)),
    };
    let device = || w.segment.fd().ok().and_then(space::available);
    let has_memory =
        || word(header::FREE_BACKED) * PAGE_BYTES >= bytes || device().is_none_or(|left| left >= bytes);
    grows_by.saturating_add(free) >= bytes && has_memory()
}

/// After an operation or group: what is left in the reserve because it was not used goes back.
#[inline]
pub(crate) fn settle(w: &mut Writer) -> Result<()> {
    if is_settled(w) { Ok(()) } else { settle_slowly(w, SETTLED_AT_ONCE) }
}

/// Is there nothing to be given back?
#[inline(always)]
pub(crate) fn is_settled(w: &Writer) -> bool {
    w.s.reserve_cursor == 0
}

/// Gives back all that the reserve holds. Nothing is planned.
pub(crate) fn settle_wholly(w: &mut Writer) -> Result<()> {
    settle_slowly(w, u64::MAX)
}

/// Empties the last cells of the reserve, so many at most. Nothing is planned.
#[cold]
fn settle_slowly(w: &mut Writer, most: u64) -> Result<()> {
    let len_at = w.slot_word(slot::W_RESERVE_LEN);
    let before = cells_in_use(w, w.segment.load(len_at));
    let settled = empty_from_end(w, before, most);
    // What cannot be given back because it is damaged is not tried again each time.
    let left = *settled.as_ref().unwrap_or(&0);
    let (segment, kept) = (w.segment, w.s.spares.len());
    w.s.spares.retain(|spare| left > 0 && segment.load(spare.1) != 0);
    if kept - w.s.spares.len() > FEW {
        w.s.long_slice = None;
    }
    w.s.reserve_cursor = left;
    if settled.is_ok() && before > slot::RESERVE.inline_len {
        w.mini(|w| {
            w.put(len_at, left);
            Ok(())
        })?;
    }
    settled.map(|_| ())
}

/// How many cells of the reserve may hold something: so many as it says, if there are so many.
fn cells_in_use(w: &Writer, said: u64) -> u64 {
    let inline = slot::RESERVE.inline_len;
    let mut room = inline;
    while room < said && w.s.p.reserve_word(room).is_some() {
        room = inline + slot::EXTENSION_0_WORDS + 2 * (room - inline);
    }
    said.min(room)
}

/// Empties the reserve's cells from number `end - 1` down, about `most` of those that hold something. Gives the number of
/// those that may still hold something.
fn empty_from_end(w: &mut Writer, end: u64, most: u64) -> Result<u64> {
    let (mut n, mut emptied) = (end, 0);
    while n > 0 && emptied < most {
        let cell = w.s.p.reserve_word(n - 1);
        let left = match cell.map_or(0, |cell| w.segment.load(cell)) {
            0 => n - 1,
            _ => {
                let left = slabs::return_reserved(w, n)?;
                emptied += n - left;
                left
            }
        };
        n = left;
    }
    Ok(n)
}

/// Gives back what the reserve holds and the plan does not take, inside of an operation. Tells whether there was
/// anything.
#[cold]
pub(super) fn give_back_unplanned(w: &mut Writer) -> Result<bool> {
    let mut any = false;
    for (_, cell) in std::mem::take(&mut w.s.spares) {
        if w.segment.load(cell) != 0 && !w.is_planned(cell) {
            drop_reserved(w, cell)?;
            any = true;
        }
    }
    w.s.long_slice = None;
    Ok(any)
}
