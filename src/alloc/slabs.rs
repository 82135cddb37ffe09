//! Slabs: 16 pages of blocks of one class, with a bitmap as the truth.
//!
//! A slab belongs to an arena, whose lock covers its descriptors. Arenas are chosen by slot, so that
//! processes rarely meet; a busy arena is not waited for.

use super::custody::{self, Cell};
use super::{fast_refill, fast_return, pages};
use crate::error::{Damage, Error, Result};
use crate::format::pages::{self as page_format, Head, Links, Purpose, bitmap_word, descriptor};
use crate::format::size_class::{self, CLASSES, SLAB_BYTES, SLAB_PAGES, class_bytes, slab_blocks};
use crate::format::slot;
use crate::format::{Offset, PAGE_BYTES, Page, header};
use crate::lock::Rank;
use crate::writer::{Words, Writer};

/// A refill takes blocks of about this many bytes together.
const REFILL_BYTES: u64 = 8192;
/// From this many words of log on an operation counts as a large one.
const MUCH_PLANNED: u64 = 64;
/// Most pending blocks that one mini-transaction returns.
const RETURNED_AT_ONCE: u32 = 16;

/// Words of the descriptors of a slab, which lie in a row.
pub(super) const DESCRIPTOR_WORDS: usize = SLAB_PAGES as usize * page_format::DESCRIPTOR_BYTES as usize / 8;

/// Where bitmap word `n` of a slab is among these.
#[inline(always)]
pub(super) const fn bitmap_place(n: u64) -> usize {
    4 * (1 + n as usize / 3) + 1 + n as usize % 3
}

/// Blocks of a class that a refill takes together.
pub(super) fn refill_blocks(class: u32) -> u64 {
    (REFILL_BYTES / class_bytes(class)).clamp(2, slot::MAGAZINE_CELLS)
}

/// The arena that a slot begins with.
pub(super) fn own_arena(w: &Writer) -> u64 {
    w.s.p.slot.0 as u64 % header::ARENAS
}

/// Fills empty cells of the slot with blocks of a class.
pub(super) fn refill(w: &mut Writer, class: u32) -> Result<()> {
    // Who has planned much already is likely to want more.
    let many = w.s.set().log_words_at_most() > MUCH_PLANNED;
    if !many && fast_refill::refill(w, class).is_some() {
        return Ok(());
    }
    let slab = (SLAB_BYTES / class_bytes(class)).clamp(2, slot::MAGAZINE_CELLS);
    let most = if many { slab } else { refill_blocks(class) } as usize;
    let cells = custody::cells_to_fill(w, class, most)?;
    if cells.is_empty() {
        return Err(Error::TooLarge("a group allocates too much"));
    }
    let own = own_arena(w);
    let mut filled = 0;
    for n in 0..header::ARENAS {
        let arena = (own + n) % header::ARENAS;
        if w.segment.load(header::arena_list(arena, class)) == 0 {
            continue;
        }
        filled = w.mini(|w| {
            if !w.try_lock(header::arena(arena), Rank::Arena)? {
                return Ok(0);
            }
            match Page(w.word(header::arena_list(arena, class)) as u32) {
                Page::NONE => Ok(0),
                slab => fill_from(w, slab, class, &cells),
            }
        })?;
        if filled > 0 {
            break;
        }
    }
    if filled == 0 {
        filled = fill_from_new(w, own, class, &cells)?;
    }
    let reserved = cells[..filled].iter().filter(|cell| cell.reserve.is_some());
    w.s.spares.extend(reserved.map(|cell| (class, cell.at)));
    Ok(())
}

/// Makes a slab and fills cells from it.
fn fill_from_new(w: &mut Writer, arena: u64, class: u32, cells: &[Cell]) -> Result<usize> {
    while pages::has_backed(w, SLAB_PAGES)? {
        let filled = w.mini(|w| {
            w.lock(header::arena(arena), Rank::Arena)?;
            w.lock(header::PAGE_LOCK, Rank::Page)?;
            let Some(slab) = pages::carve_backed(w, SLAB_PAGES, Purpose::Record)? else { return Ok(0) };
            make_slab(w, slab, arena, class);
            fill_from(w, slab, class, cells)
        })?;
        if filled > 0 {
            return Ok(filled);
        }
    }
    custody::make_reserve_room(w)?;
    let (run, cell) = pages::take_into_reserve(w, SLAB_PAGES, Purpose::Record, custody::Backing::Backed)?;
    let slab = run.page();
    w.mini(|w| {
        w.lock(header::arena(arena), Rank::Arena)?;
        w.put(cell, 0);
        make_slab(w, slab, arena, class);
        fill_from(w, slab, class, cells)
    })
}

/// Makes a run a slab, and puts it at the head of its list. The arena lock is held; the run is in the slot's
/// custody, or is being taken from a free list under the page lock.
fn make_slab(w: &mut Writer, slab: Page, arena: u64, class: u32) {
    let at = descriptor(slab);
    let list = header::arena_list(arena, class);
    let next = Page(w.word(list) as u32);
    w.put(at, Head::slab(class, arena).0);
    w.put(at.word(1), Links::new(next, Page::NONE).0);
    w.put(at.word(2), slab_blocks(class));
    let last = descriptor(slab.add(SLAB_PAGES - 1));
    w.put(last, Head::slab_body(SLAB_PAGES - 1).0);
    // What inner pages say, and the last page in all but its first word, means nothing until the run is a slab,
    // so it needs no log.
    w.segment.fence_release();
    w.segment.store(at.word(3), 0);
    for distance in 1..SLAB_PAGES {
        let body = descriptor(slab.add(distance));
        if body != last {
            w.segment.store(body, Head::slab_body(distance).0);
        }
        for n in 1..4 {
            w.segment.store(body.word(n), 0);
        }
    }
    if next != Page::NONE {
        pages::set_previous(w, next, slab);
    }
    w.put(list, slab.0 as u64);
}

/// Moves free blocks of a slab into cells. The arena lock is held.
fn fill_from(w: &mut Writer, slab: Page, class: u32, cells: &[Cell]) -> Result<usize> {
    let at = descriptor(slab);
    let head = Head(w.word(at));
    let blocks = slab_blocks(class);
    if head.kind() != page_format::SLAB || head.class() != class {
        return Err(Error::corrupt(Damage::Slab, at));
    }
    let mut filled = 0;
    for n in 0..blocks.div_ceil(64) {
        let word_at = bitmap_word(slab, n);
        let before = w.word(word_at);
        let mut word = before;
        while filled < cells.len() && word != u64::MAX {
            let bit = word.trailing_ones() as u64;
            if 64 * n + bit >= blocks {
                break;
            }
            word |= 1 << bit;
            let block = slab.offset().add((64 * n + bit) * class_bytes(class));
            custody::fill_cell(w, cells[filled], block);
            filled += 1;
        }
        if word != before {
            w.put(word_at, word);
        }
        if filled == cells.len() {
            break;
        }
    }
    let free = w.word(at.word(2));
    if filled == 0 || free < filled as u64 {
        return Err(Error::corrupt(Damage::Slab, at));
    }
    w.put(at.word(2), free - filled as u64);
    if free == filled as u64 {
        unlink(w, slab, head)?;
    }
    Ok(filled)
}

/// Takes a slab off its arena's list. The arena lock is held.
fn unlink(w: &mut Writer, slab: Page, head: Head) -> Result<()> {
    let links = Links(w.word(descriptor(slab).word(1)));
    let list = header::arena_list(head.arena(), head.class());
    if links.previous() == Page::NONE {
        if w.word(list) != slab.0 as u64 {
            return Err(Error::corrupt(Damage::Slab, list));
        }
        w.put(list, links.next().0 as u64);
    } else {
        pages::set_next(w, links.previous(), links.next());
    }
    if links.next() != Page::NONE {
        pages::set_previous(w, links.next(), links.previous());
    }
    Ok(())
}

/// The slab that a block lies in, with its head; none if the page is not part of a slab.
fn slab_of(w: &Writer, block: Offset) -> Result<Option<(Page, Head)>> {
    let page = block.page();
    let head = Head(w.word(descriptor(page)));
    let slab = match head.kind() {
        page_format::SLAB => page,
        page_format::SLAB_BODY if head.number() < SLAB_PAGES && head.number() < page.0 => {
            Page(page.0 - head.number())
        }
        _ => return Ok(None),
    };
    let head = Head(w.word(descriptor(slab)));
    if head.kind() != page_format::SLAB || head.class() >= CLASSES || head.arena() >= header::ARENAS {
        return Err(Error::corrupt(Damage::Slab, descriptor(slab)));
    }
    Ok(Some((slab, head)))
}

/// Marks a block free. The arena lock is held.
fn release_block(w: &mut Writer, slab: Page, head: Head, block: Offset) -> Result<()> {
    let distance = block.0 - slab.offset().0;
    let n = distance / class_bytes(head.class());
    let word_at = bitmap_word(slab, n / 64);
    let word = w.word(word_at);
    let bit = 1 << (n % 64);
    if distance % class_bytes(head.class()) != 0 || n >= slab_blocks(head.class()) || word & bit == 0 {
        return Err(Error::corrupt(Damage::Slab, block));
    }
    w.put(word_at, word & !bit);
    let free_at = descriptor(slab).word(2);
    let free = w.word(free_at).wrapping_add(1);
    w.put(free_at, free);
    if free == 1 {
        let list = header::arena_list(head.arena(), head.class());
        let next = Page(w.word(list) as u32);
        w.put(descriptor(slab).word(1), Links::new(next, Page::NONE).0);
        if next != Page::NONE {
            pages::set_previous(w, next, slab);
        }
        w.put(list, slab.0 as u64);
    }
    Ok(())
}

/// Gives the pages of an empty slab back, unless it is the only one of its list. The arena lock is held.
fn release_if_empty(w: &mut Writer, slab: Page, head: Head) -> Result<()> {
    let at = descriptor(slab);
    if w.word(at.word(2)) != slab_blocks(head.class()) {
        return Ok(());
    }
    let links = Links(w.word(at.word(1)));
    if links.next() == Page::NONE && links.previous() == Page::NONE {
        return Ok(());
    }
    unlink(w, slab, head)?;
    lock_pages(w)?;
    pages::release(w, slab, SLAB_PAGES, false)
}

/// Has this mini-transaction taken the page lock? Its own list tells, not the lock's word, which somebody may have damaged.
fn has_pages(w: &Writer) -> bool {
    w.s.p.position(header::PAGE_LOCK).is_some()
}

/// Takes the page lock, unless it has been taken.
fn lock_pages(w: &mut Writer) -> Result<()> {
    if has_pages(w) { Ok(()) } else { w.lock(header::PAGE_LOCK, Rank::Page) }
}

/// Frees a block or a run in custody, inside of a mini-transaction. Waits for the arena.
pub(super) fn release_any(w: &mut Writer, what: Offset) -> Result<()> {
    match slab_of(w, what)? {
        Some((slab, head)) => {
            w.lock(header::arena(head.arena()), Rank::Arena)?;
            release_block(w, slab, head, what)?;
            release_if_empty(w, slab, head)
        }
        None => {
            w.lock(header::PAGE_LOCK, Rank::Page)?;
            pages::release_run(w, what)
        }
    }
}

/// Returns about half of a full magazine to the slabs, so that blocks can be freed into it again.
pub(super) fn return_from_magazine(w: &mut Writer, class: u32) -> Result<()> {
    if fast_return::return_some(w, class).is_some() {
        return Ok(());
    }
    let cells: Vec<Offset> =
        (0..slot::MAGAZINE_CELLS).map(|i| w.slot_word(slot::magazine_word(class, i))).collect();
    w.mini(|w| {
        let mut arena = None;
        let mut touched: Vec<(Page, Head)> = Vec::new();
        for cell in cells.into_iter().take(slot::MAGAZINE_CELLS as usize / 2) {
            let block = Offset(w.segment.load(cell));
            if block.is_none() || w.is_planned(cell) {
                continue;
            }
            let Some((slab, head)) = slab_of(w, block)? else {
                return Err(Error::corrupt(Damage::Slot, cell));
            };
            match arena {
                None if !w.try_lock(header::arena(head.arena()), Rank::Arena)? => return Ok(()),
                None => arena = Some(head.arena()),
                Some(arena) if arena != head.arena() => continue,
                Some(_) => {}
            }
            if !touched.iter().any(|t| t.0 == slab) {
                if touched.len() == MOST_TOUCHED {
                    continue;
                }
                touched.push((slab, head));
            }
            release_block(w, slab, head, block)?;
            w.put(cell, 0);
        }
        for (slab, head) in touched {
            release_if_empty(w, slab, head)?;
        }
        Ok(())
    })
}

/// Slabs that one mini-transaction returns blocks to, at most.
const MOST_TOUCHED: usize = 4;

/// Returns some of the slot's pending blocks. Tells whether it did.
pub(super) fn return_pending(w: &mut Writer) -> Result<bool> {
    let head_at = w.slot_word(slot::W_PENDING);
    let first = Offset(w.segment.load(head_at));
    if first.is_none() {
        return Ok(false);
    }
    if first.0 % 16 != 0 || !w.segment.contains(first, 32) {
        return Err(Error::corrupt(Damage::Slot, head_at));
    }
    w.mini(|w| {
        let Some((slab, head)) = slab_of(w, first)? else {
            w.lock(header::PAGE_LOCK, Rank::Page)?;
            let next = w.word(first);
            pages::release_run(w, first)?;
            w.put(head_at, next);
            return Ok(true);
        };
        let arena = head.arena();
        if !w.try_lock(header::arena(arena), Rank::Arena)? {
            return Ok(false);
        }
        let mut at = first;
        let mut touched: Vec<(Page, Head)> = vec![(slab, head)];
        for _ in 0..RETURNED_AT_ONCE {
            let Some((slab, head)) = slab_of(w, at)? else { break };
            if head.arena() != arena || at.0 % 16 != 0 {
                break;
            }
            let next = Offset(w.word(at));
            release_block(w, slab, head, at)?;
            if !touched.iter().any(|t| t.0 == slab) {
                if touched.len() == MOST_TOUCHED {
                    at = next;
                    break;
                }
                touched.push((slab, head));
            }
            at = next;
            if at.is_none() || !w.segment.contains(at, 32) {
                break;
            }
        }
        w.put(head_at, at.0);
        for (slab, head) in touched {
            release_if_empty(w, slab, head)?;
        }
        Ok(true)
    })
}

/// Empties reserve cells from number `end - 1` down, some at once. Gives the number of those left. The last one is not
/// empty; nothing is planned.
pub(super) fn return_reserved(w: &mut Writer, end: u64) -> Result<u64> {
    w.mini(|w| {
        let mut left = end;
        let mut touched: Vec<(Page, Head)> = Vec::new();
        while left > 0 && end - left < RETURNED_AT_ONCE as u64 {
            let Some(cell) = w.s.p.reserve_word(left - 1) else { break };
            let what = Offset(w.segment.load(cell));
            if !what.is_none() {
                if !return_one(w, what, &mut touched)? {
                    break;
                }
                w.put(cell, 0);
            }
            left -= 1;
        }
        for (slab, head) in touched {
            release_if_empty(w, slab, head)?;
        }
        Ok(left)
    })
}

/// Frees a block or a run, if it goes together with those that have been freed. The first one always does.
fn return_one(w: &mut Writer, what: Offset, touched: &mut Vec<(Page, Head)>) -> Result<bool> {
    let Some((slab, head)) = slab_of(w, what)? else {
        if touched.is_empty() {
            lock_pages(w)?;
            pages::release_run(w, what)?;
        }
        return Ok(touched.is_empty());
    };
    match touched.first() {
        None if has_pages(w) => return Ok(false),
        None => w.lock(header::arena(head.arena()), Rank::Arena)?,
        Some((_, first)) if first.arena() != head.arena() => return Ok(false),
        Some(_) => {}
    }
    if !touched.iter().any(|t| t.0 == slab) {
        if touched.len() == MOST_TOUCHED {
            return Ok(false);
        }
        touched.push((slab, head));
    }
    release_block(w, slab, head, what)?;
    Ok(true)
}

const _: () = assert!(size_class::SLAB_BYTES == SLAB_PAGES as u64 * PAGE_BYTES);
const _: () = assert!(bitmap_place(44) < DESCRIPTOR_WORDS && slab_blocks(0).div_ceil(64) <= 45);
const _: () = assert!(bitmap_word(Page(32), 4).0 == descriptor(Page(32)).0 + 8 * bitmap_place(4) as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Patience;
    use crate::object::{ManageOptions, OpenOptions};

    /// Goal: who has the page lock does not take it again, nor an arena's lock behind it, when somebody damages its word.
    #[test]
    fn a_damaged_page_lock_is_not_taken_twice() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let hash_table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table");
        hash_table.add(b"key", b"value").expect("adds");
        let table = &hash_table.table;
        let root = table.view.roots.root();
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        let block = (0..slot::MAGAZINE_CELLS)
            .flat_map(|i| (0..CLASSES).map(move |class| (class, i)))
            .map(|(class, i)| Offset(w.segment.load(w.slot_word(slot::magazine_word(class, i)))))
            .find(|block| !block.is_none())
            .expect("the key's came with others");
        let outcome = w.mini(|w| {
            lock_pages(w)?;
            w.segment.store(header::PAGE_LOCK, 0);
            let mut touched = Vec::new();
            assert_eq!(return_one(w, root, &mut touched), Ok(true), "a run");
            assert_eq!(
                return_one(w, block, &mut touched),
                Ok(false),
                "a block is not freed together with runs"
            );
            assert_eq!(w.s.p.held.len(), 1);
            Err::<(), _>(Error::Aborted)
        });
        assert_eq!(outcome, Err(Error::Aborted));
        drop(entered);
        hash_table.add(b"another", b"value").expect("everything goes on");
    }
}
