//! What a slot has in its hands: magazine cells, reserve cells, the pending list.
//!
//! A magazine cell holds a block or 0. Taking one plans `cell := 0`, freeing one plans `cell := block`, as
//! part of the operation. Mini-transactions fill only cells that are 0 in memory and in nobody's plan. Where
//! all cells are planned (a large group), blocks come through the reserve, a list of cells of any class that
//! also holds runs. What finds no empty cell when freed goes to the pending list, which needs no memory.

use super::{kept, pages, slabs};
use crate::error::{Damage, Error, Result};
use crate::format::pages::Purpose;
use crate::format::size_class::{self, CLASSES};
use crate::format::slot::{self, MAGAZINE_CELLS, magazine_word};
use crate::format::{Offset, PAGE_BYTES};
use crate::log::SlotBlock;
use crate::segment::view::Block;
use crate::writer::{Words, Writer};

pub(crate) use super::pages::Backing;

/// Takes a block of a class; it is part of the operation's plan from now on.
pub(crate) fn take_block(w: &mut Writer, class: u32) -> Result<Offset> {
    // There are spares of a class when its magazine had neither blocks nor cells that are not planned.
    if !w.s.spares.iter().any(|spare| spare.0 == class) {
        if let Some(block) = from_magazine(w, class) {
            return Ok(block);
        }
    }
    take_block_slowly(w, class)
}

#[cold]
#[inline(never)]
fn take_block_slowly(w: &mut Writer, class: u32) -> Result<Offset> {
    for _ in 0..3 {
        if let Some(i) = w.s.spares.iter().position(|s| s.0 == class) {
            let (_, cell) = w.s.spares.swap_remove(i);
            let block = Offset(w.segment.load(cell));
            if usable_block(w, block, class) {
                w.put(cell, 0);
                return Ok(block);
            }
        }
        match slabs::refill(w, class) {
            Err(Error::NoSpace) if reclaim(w)? => slabs::refill(w, class)?,
            outcome => outcome?,
        }
        if let Some(block) = from_magazine(w, class) {
            return Ok(block);
        }
    }
    Err(Error::corrupt(Damage::Slab, w.slot_word(magazine_word(class, 0))))
}

/// A block of the magazine that is not part of the plan yet.
#[inline]
fn from_magazine(w: &mut Writer, class: u32) -> Option<Offset> {
    let hint = w.s.p.full_cell[class as usize] as u64;
    for n in 0..MAGAZINE_CELLS {
        let i = (hint.wrapping_sub(n)) % MAGAZINE_CELLS;
        let cell = w.slot_word(magazine_word(class, i));
        let block = Offset(w.segment.load(cell));
        if !block.is_none() && !w.is_planned(cell) && usable_block(w, block, class) {
            w.put(cell, 0);
            w.s.p.full_cell[class as usize] = (i.wrapping_sub(1) % MAGAZINE_CELLS) as u8;
            return Some(block);
        }
    }
    None
}

/// Can this be a block of the class at all?
pub(super) fn usable_block(w: &Writer, block: Offset, class: u32) -> bool {
    may_be_block(block) && w.segment.contains(block, size_class::class_bytes(class))
}

/// A cell that a mini-transaction may fill. `reserve` is its number in the reserve, if it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) at: Offset,
    pub(super) reserve: Option<u64>,
}

/// Up to `most` cells that a refill may fill: empty magazine cells, or else reserve cells.
pub(super) fn cells_to_fill(w: &mut Writer, class: u32, most: usize) -> Result<Vec<Cell>> {
    let mut cells = Vec::with_capacity(most);
    for i in 0..MAGAZINE_CELLS {
        let at = w.slot_word(magazine_word(class, i));
        if cells.len() < most && w.segment.load(at) == 0 && !w.is_planned(at) {
            cells.push(Cell { at, reserve: None });
            w.s.p.full_cell[class as usize] = i as u8;
        }
    }
    if cells.is_empty() {
        make_reserve_room(w)?;
        while cells.len() < most {
            let Some(cell) = next_reserve_cell(w) else { break };
            cells.push(cell);
        }
    }
    Ok(cells)
}

/// Plans to put a run or block into a cell, inside of a mini-transaction.
pub(super) fn fill_cell(w: &mut Writer, cell: Cell, what: Offset) {
    if let Some(n) = cell.reserve {
        let len_at = w.slot_word(slot::W_RESERVE_LEN);
        if w.word(len_at) <= n {
            w.put(len_at, n + 1);
        }
    }
    w.put_first(cell.at, what.0);
}

/// An empty reserve cell that is in nobody's plan.
fn next_reserve_cell(w: &mut Writer) -> Option<Cell> {
    loop {
        let n = w.s.reserve_cursor;
        let at = w.s.p.reserve_word(n)?;
        w.s.reserve_cursor = n + 1;
        if w.segment.load(at) == 0 && !w.is_planned(at) {
            return Some(Cell { at, reserve: Some(n) });
        }
    }
}

/// Puts a run into an empty reserve cell, inside of a mini-transaction. Room has been made.
pub(super) fn put_in_reserve(w: &mut Writer, what: Offset) -> Result<Offset> {
    let cell = next_reserve_cell(w).ok_or(Error::TooLarge("a group allocates too much"))?;
    fill_cell(w, cell, what);
    Ok(cell.at)
}

/// Makes sure that some reserve cells are free.
pub(super) fn make_reserve_room(w: &mut Writer) -> Result<()> {
    let n = w.s.reserve_cursor + 24;
    if w.s.p.reserve_word(n).is_some() {
        return Ok(());
    }
    extend(w, slot::RESERVE, n)
}

/// Makes sure that a slot's growable list has element `n`.
#[cold]
pub(crate) fn extend(w: &mut Writer, of: slot::Growable, n: u64) -> Result<()> {
    let slot::Place::Extension(last, _) = of.place(n) else {
        return Err(Error::TooLarge("a group is too large"));
    };
    for k in 0..=last {
        let word = w.slot_word(of.extensions_word + k as u64);
        if w.segment.load(word) != 0 {
            continue;
        }
        let pages = slot::extension_pages(k);
        let (run, cell) = pages::take_into_reserve(w, pages, Purpose::Extension, Backing::Backed)?;
        zero(w, run, pages);
        publish(w, run, cell, |w, run| {
            w.put(word, run.0);
            Ok(true)
        })?;
        w.s.p.reload_extensions(w.segment);
    }
    if w.s.p.has_extensions(&of, last) { Ok(()) } else { Err(damaged_extensions(w, &of)) }
}

/// There are extensions, and not where any can be.
#[cold]
fn damaged_extensions(w: &Writer, of: &slot::Growable) -> Error {
    Error::corrupt(Damage::Slot, w.slot_word(of.extensions_word))
}

/// Fills the pages of a run in custody with zeros.
fn zero(w: &Writer, run: Offset, n: u32) {
    let zeros = [0u8; PAGE_BYTES as usize];
    for page in 0..n as u64 {
        w.segment.copy_in(run.add(page * PAGE_BYTES), &zeros);
    }
}

/// Takes a run of pages, with memory but any content, as part of the operation's plan.
pub(crate) fn take_run(w: &mut Writer, n: u32, purpose: Purpose) -> Result<Offset> {
    make_reserve_room(w)?;
    let (run, cell) = match pages::take_into_reserve(w, n, purpose, Backing::Backed) {
        Err(Error::NoSpace) if reclaim(w)? => pages::take_into_reserve(w, n, purpose, Backing::Backed)?,
        outcome => outcome?,
    };
    w.put(cell, 0);
    Ok(run)
}

/// How a new run is prepared before it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// It has memory, filled with zeros.
    Zeroed,
    /// It is address space that gets its memory, zeros, piece by piece.
    AddressSpace,
}

/// Takes a run and, in a mini-transaction, lets `place` plan who refers to it; if that declines by `false`,
/// the run is freed again.
pub(crate) fn place_run(
    w: &mut Writer,
    n: u32,
    purpose: Purpose,
    fresh: Fresh,
    place: impl FnOnce(&mut Writer, Offset) -> Result<bool>,
) -> Result<()> {
    make_reserve_room(w)?;
    let backing = if fresh == Fresh::Zeroed { Backing::Backed } else { Backing::Reserved };
    let (run, cell) = pages::take_into_reserve(w, n, purpose, backing)?;
    if fresh == Fresh::Zeroed {
        zero(w, run, n);
    }
    publish(w, run, cell, place)
}

/// Takes a run as part of the operation's plan.
pub(crate) fn take_fresh_run(w: &mut Writer, n: u32, purpose: Purpose, fresh: Fresh) -> Result<Offset> {
    make_reserve_room(w)?;
    let backing = if fresh == Fresh::Zeroed { Backing::Backed } else { Backing::Reserved };
    let (run, cell) = pages::take_into_reserve(w, n, purpose, backing)?;
    if fresh == Fresh::Zeroed {
        zero(w, run, n);
    }
    w.put(cell, 0);
    Ok(run)
}

fn publish(
    w: &mut Writer,
    run: Offset,
    cell: Offset,
    place: impl FnOnce(&mut Writer, Offset) -> Result<bool>,
) -> Result<()> {
    let placed = w.mini(|w| {
        let placed = place(w, run)?;
        if placed {
            w.put(cell, 0);
        }
        Ok(placed)
    });
    if !matches!(placed, Ok(true)) {
        drop_reserved(w, cell)?;
    }
    placed.map(|_| ())
}

/// Plans to free a block that the operation makes unreachable.
pub(crate) fn free_block(w: &mut Writer, block: Offset, class: u32) {
    let hint = w.s.p.full_cell[class as usize] as u64;
    for n in 1..=MAGAZINE_CELLS {
        let i = (hint + n) % MAGAZINE_CELLS;
        let cell = w.slot_word(magazine_word(class, i));
        if w.segment.load(cell) == 0 && !w.is_planned(cell) {
            w.put(cell, block.0);
            w.s.p.full_cell[class as usize] = i as u8;
            return;
        }
    }
    make_pending(w, block);
    w.s.pending = w.s.pending.saturating_add(1);
}

/// Plans to free a run that the operation makes unreachable.
pub(crate) fn free_run(w: &mut Writer, run: Offset) {
    make_pending(w, run);
    // Much memory: it is not to wait for company.
    w.s.pending = u32::MAX;
}

fn make_pending(w: &mut Writer, what: Offset) {
    w.s.newly_pending += 1;
    let head = w.slot_word(slot::W_PENDING);
    let next = w.word(head);
    w.put(what, next);
    w.put(head, what.0);
}

/// So many pending blocks are returned together, which costs little more than returning one.
const WORTH_RETURNING: u32 = 16;

/// Are there pending blocks that are worth returning?
#[inline(always)]
pub(crate) fn is_drain_due(w: &Writer) -> bool {
    w.s.pending >= WORTH_RETURNING
}

/// Lets the slot look after its pending blocks when this operation is over.
#[inline(always)]
pub(crate) fn make_drain_due(w: &mut Writer) {
    w.s.pending = u32::MAX;
}

/// Returns pending blocks to where they come from: at most `batches` mini-transactions. Nothing is planned.
#[inline]
pub(crate) fn drain(w: &mut Writer, batches: u32) -> Result<()> {
    if !is_drain_due(w) {
        return Ok(());
    }
    for _ in 0..batches {
        if !slabs::return_pending(w)? {
            break;
        }
    }
    w.s.pending = if w.segment.load(w.slot_word(slot::W_PENDING)) == 0 { 0 } else { WORTH_RETURNING };
    Ok(())
}

/// Returns all pending blocks, and what the slot keeps for slices, before there is said to be no space. Tells whether
/// there was anything.
#[cold]
fn reclaim(w: &mut Writer) -> Result<bool> {
    let kept = kept::give_back_unplanned(w)?;
    let head = w.slot_word(slot::W_PENDING);
    if w.segment.load(head) == 0 || w.is_planned(head) {
        return Ok(kept);
    }
    while slabs::return_pending(w)? {}
    w.s.pending = 0;
    Ok(true)
}

/// Frees what one reserve cell holds.
pub(super) fn drop_reserved(w: &mut Writer, cell: Offset) -> Result<()> {
    let what = Offset(w.segment.load(cell));
    w.mini(|w| {
        slabs::release_any(w, what)?;
        w.put(cell, 0);
        Ok(())
    })
}

/// Empties magazine, reserve and pending list, before the slot is given up.
pub(crate) fn flush(w: &mut Writer) -> Result<()> {
    kept::settle_wholly(w)?;
    for class in 0..CLASSES {
        for i in 0..MAGAZINE_CELLS {
            let cell = w.slot_word(magazine_word(class, i));
            let block = Offset(w.segment.load(cell));
            if block.is_none() {
                continue;
            }
            if !usable_block(w, block, class) {
                return Err(Error::corrupt(Damage::Slot, cell));
            }
            w.mini(|w| {
                slabs::release_any(w, block)?;
                w.put(cell, 0);
                Ok(())
            })?;
        }
    }
    while slabs::return_pending(w)? {}
    Ok(())
}

/// An empty cell of the magazine, for an operation that plans nothing else and will fill it. Blocks are returned
/// first if there is none.
#[inline(always)]
pub(crate) fn empty_cell<'a>(
    w: &mut Writer<'a>,
    slot: SlotBlock<'a>,
    class: u32,
) -> Option<(Offset, Block<'a, 1>)> {
    let i = next_cell(w, class);
    let cell = ready_at(w, slot, class, i);
    if cell.block.is_none() { Some((cell.cell, cell.word)) } else { find_empty_cell(w, slot, class) }
}

/// The cell behind the one that probably holds a block.
#[inline(always)]
fn next_cell(w: &Writer, class: u32) -> u8 {
    (w.s.p.full_cell[class as usize] + 1) % MAGAZINE_CELLS as u8
}

#[cold]
#[inline(never)]
fn find_empty_cell<'a>(
    w: &mut Writer<'a>,
    slot: SlotBlock<'a>,
    class: u32,
) -> Option<(Offset, Block<'a, 1>)> {
    let found = match search(w, class, 1, |block| block.is_none()) {
        Some(found) => found,
        None => {
            slabs::return_from_magazine(w, class).ok()?;
            search(w, class, 1, |block| block.is_none())?
        }
    };
    w.s.p.full_cell[class as usize] = (found.wrapping_sub(1) % MAGAZINE_CELLS) as u8;
    let cell = ready_at(w, slot, class, found as u8);
    Some((cell.cell, cell.word))
}

/// Looks for a cell, from the one that probably holds a block on, in steps of `step`.
#[inline(always)]
fn search(w: &Writer, class: u32, step: u64, fits: impl Fn(Offset) -> bool) -> Option<u64> {
    let slot = w.segment.block::<{ slot::SLOT_BYTES as usize / 8 }>(w.s.p.base)?;
    let first = magazine_word(class, 0) as usize;
    let mut i = w.s.p.full_cell[class as usize] as usize % CELLS;
    for _ in 0..CELLS {
        if fits(Offset(slot.load(first + i))) {
            return Some(i as u64);
        }
        i = (i + step as usize) % CELLS;
    }
    None
}

const CELLS: usize = MAGAZINE_CELLS as usize;

/// Takes note that the cell given by `empty_cell` has been filled.
#[inline(always)]
pub(crate) fn note_freed(w: &mut Writer, class: u32) {
    w.s.p.full_cell[class as usize] = next_cell(w, class);
}

/// Takes note that the cell given by `ready_block` has been emptied.
#[inline(always)]
pub(crate) fn note_taken(w: &mut Writer, class: u32) {
    let hint = &mut w.s.p.full_cell[class as usize];
    *hint = hint.wrapping_sub(1) % MAGAZINE_CELLS as u8;
}

/// A block in a cell of the magazine.
#[derive(Clone, Copy)]
pub(crate) struct Ready<'a> {
    pub(crate) cell: Offset,
    /// The cell's word.
    pub(crate) word: Block<'a, 1>,
    pub(crate) block: Offset,
}

/// A block of the magazine, which is filled first if it is empty, for an operation that plans nothing else. Nothing
/// is planned yet. Whether the block lies in the object is found when it is filled.
#[inline(always)]
pub(crate) fn ready_block<'a>(w: &mut Writer<'a>, slot: SlotBlock<'a>, class: u32) -> Option<Ready<'a>> {
    let ready = ready_at(w, slot, class, *w.s.p.full_cell.get(class as usize)?);
    if may_be_block(ready.block) { Some(ready) } else { find_ready_block(w, slot, class) }
}

#[inline(always)]
fn ready_at<'a>(w: &Writer<'a>, slot: SlotBlock<'a>, class: u32, i: u8) -> Ready<'a> {
    let n = magazine_word(class, u64::from(i) % MAGAZINE_CELLS);
    let word = slot.word(n as usize);
    Ready { cell: w.slot_word(n), word, block: Offset(word.load(0)) }
}

#[inline(always)]
fn may_be_block(block: Offset) -> bool {
    block.0 % 16 == 0 && !block.is_none()
}

#[cold]
#[inline(never)]
fn find_ready_block<'a>(w: &mut Writer<'a>, slot: SlotBlock<'a>, class: u32) -> Option<Ready<'a>> {
    let backwards = MAGAZINE_CELLS - 1;
    // As a rule all are empty.
    let first = magazine_word(class, 0) as usize;
    let any = (0..CELLS).fold(0, |bits, i| bits | slot.load(first + i));
    let found = if any == 0 { None } else { search(w, class, backwards, may_be_block) };
    let found = match found {
        Some(found) => found,
        None => {
            slabs::refill(w, class).ok()?;
            pages::grow_ahead(w);
            search(w, class, backwards, may_be_block)?
        }
    };
    w.s.p.full_cell[class as usize] = found as u8;
    Some(ready_at(w, slot, class, found as u8))
}
