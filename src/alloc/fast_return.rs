//! The short way from a full magazine back to the slabs.
//!
//! It is the mini-transaction of [`super::slabs`] in the frame of [`super::fast_arena`], for blocks of the slot's
//! own arena. A slab that would become empty is left to the general way, which may give its pages back.

use super::fast_arena::{CELLS, cells_of, change};
use super::slabs::{DESCRIPTOR_WORDS, bitmap_place, own_arena};
use crate::format::pages::{self as page_format, Head, Links, descriptor};
use crate::format::size_class::{SLAB_PAGES, class_bytes, slab_blocks};
use crate::format::slot::magazine_word;
use crate::format::{Offset, Page, header};
use crate::log::{DirectLog, SlotBlock};
use crate::segment::view::View;
use crate::writer::Writer;

/// Blocks that are returned together: half of the magazine, so that it serves both ways afterwards.
const RETURNED: usize = CELLS / 2;

/// Returns blocks from the full magazine of a class.
pub(super) fn return_some(w: &mut Writer, class: u32) -> Option<()> {
    let arena = own_arena(w);
    let base = w.s.p.base;
    change(w, arena, |view, slot, log| choose(view, slot, base, log, arena, class))
}

/// A slab that gets blocks back.
#[derive(Clone, Copy)]
struct Receiver {
    slab: Page,
    free_before: u64,
    free: u64,
}

/// What the log gets to say of the slabs.
struct Plan {
    receivers: [Receiver; RETURNED],
    slabs: usize,
    /// Words of bitmaps, as they will be.
    words: [(Offset, u64); RETURNED],
    bitmap_words: usize,
}

fn choose(
    view: View<'_>,
    slot: SlotBlock<'_>,
    slot_at: Offset,
    log: &mut DirectLog<'_>,
    arena: u64,
    class: u32,
) -> Option<()> {
    let (mut cells, _) = cells_of(slot, class);
    let mut plan = Plan {
        receivers: [Receiver { slab: Page::NONE, free_before: 0, free: 0 }; RETURNED],
        slabs: 0,
        words: [(Offset::NONE, 0); RETURNED],
        bitmap_words: 0,
    };
    let mut returned = 0;
    for cell in cells.iter_mut().filter(|cell| **cell != 0) {
        if returned < RETURNED && plan.give_back(view, arena, class, Offset(*cell))? {
            *cell = 0;
            returned += 1;
        }
    }
    if returned == 0 {
        return None;
    }
    log.push_run(slot_at.word(magazine_word(class, 0)), cells);
    for (at, word) in &plan.words[..plan.bitmap_words] {
        log.push(*at, *word);
    }
    plan.log_slabs(view, header::arena_list(arena, class), class, log)
}

impl Plan {
    /// Marks a block free. False if it is another arena's; none if something is not as it should be.
    #[inline(always)]
    fn give_back(&mut self, view: View<'_>, arena: u64, class: u32, block: Offset) -> Option<bool> {
        let page = block.page();
        let page_at = descriptor(page);
        let head = Head(view.block::<1>(page_at)?.load(0));
        let distance = match head.kind() {
            page_format::SLAB => 0,
            page_format::SLAB_BODY if head.number() < SLAB_PAGES && head.number() < page.0 => head.number(),
            _ => return None,
        };
        let slab = Page(page.0 - distance);
        let at = Offset(page_at.0 - u64::from(distance) * page_format::DESCRIPTOR_BYTES);
        let descriptors = view.block::<DESCRIPTOR_WORDS>(at)?;
        let head = Head(descriptors.load(0));
        if head.kind() != page_format::SLAB || head.class() != class {
            return None;
        }
        if head.arena() != arena {
            return Some(false);
        }
        let bytes = class_bytes(class);
        let distance = block.0 - slab.offset().0;
        let n = distance / bytes;
        if n * bytes != distance || n >= slab_blocks(class) {
            return None;
        }
        let place = bitmap_place(n / 64);
        let word = self.bitmap_word(at.word(place as u64), || descriptors.load(place));
        if *word & (1 << (n % 64)) == 0 {
            return None;
        }
        *word &= !(1 << (n % 64));
        self.receiver(slab, || descriptors.load(2)).free += 1;
        Some(true)
    }

    /// A word of a bitmap, as it will be.
    #[inline(always)]
    fn bitmap_word(&mut self, at: Offset, now: impl FnOnce() -> u64) -> &mut u64 {
        let known = self.words[..self.bitmap_words].iter().position(|word| word.0 == at);
        let i = known.unwrap_or(self.bitmap_words);
        if known.is_none() {
            self.words[i] = (at, now());
            self.bitmap_words += 1;
        }
        &mut self.words[i].1
    }

    #[inline(always)]
    fn receiver(&mut self, slab: Page, free: impl FnOnce() -> u64) -> &mut Receiver {
        let known = self.receivers[..self.slabs].iter().position(|receiver| receiver.slab == slab);
        let i = known.unwrap_or(self.slabs);
        if known.is_none() {
            let free = free();
            self.receivers[i] = Receiver { slab, free_before: free, free };
            self.slabs += 1;
        }
        &mut self.receivers[i]
    }

    /// Logs the numbers of free blocks, and puts slabs that had none at the head of their list.
    fn log_slabs(&self, view: View<'_>, list_at: Offset, class: u32, log: &mut DirectLog<'_>) -> Option<()> {
        let head_before = Page(view.block::<1>(list_at)?.load(0) as u32);
        let mut head = head_before;
        let had_none = |receiver: &&Receiver| receiver.free_before == 0;
        let mut listed = self.receivers[..self.slabs].iter().filter(had_none).peekable();
        while let Some(receiver) = listed.next() {
            // Each is followed by the one before it, and preceded by the one after it.
            let previous = listed.peek().map_or(Page::NONE, |after| after.slab);
            log.push(descriptor(receiver.slab).word(1), Links::new(head, previous).0);
            head = receiver.slab;
        }
        for receiver in &self.receivers[..self.slabs] {
            if receiver.free >= slab_blocks(class) {
                return None;
            }
            log.push(descriptor(receiver.slab).word(2), receiver.free);
        }
        if head == head_before {
            return Some(());
        }
        log.push(list_at, head.0 as u64);
        if head_before != Page::NONE {
            let first = self.receivers[..self.slabs].iter().find(had_none)?;
            let links_at = descriptor(head_before).word(1);
            let links = Links(view.block::<1>(links_at)?.load(0));
            log.push(links_at, Links::new(links.next(), first.slab).0);
        }
        Some(())
    }
}
