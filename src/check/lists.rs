//! Free lists and lists of slabs with free blocks: membership, order of links, counts.
//!
//! It reads only descriptors that the walk of the pages has found to be heads.

use super::claims::What;
use super::layout::*;
use super::{Check, Step};
use crate::error::Damage;

impl Check<'_> {
    /// The free lists and the counts of free pages.
    pub(super) fn free_lists(&mut self) -> Step {
        let mut whole = self.map.is_whole();
        for unbacked in [false, true] {
            let kind = usize::from(unbacked);
            for list in 0..FREE_LIST_COUNT {
                whole &= self.list(FREE_LISTS[kind] + 8 * list, Damage::FreeList, |what, pages| {
                    *what == What::Free { unbacked } && free_list(pages) == list
                })?;
            }
            let pages = self.map.free_pages(unbacked);
            let Some(count) = self.word(FREE_COUNT[kind])? else { continue };
            if count != pages && self.map.is_whole() {
                let text = format!("{count} pages are counted as free, there are {pages}");
                self.say(Damage::Count, FREE_COUNT[kind], text)?;
            }
        }
        self.summary.free_pages = self.map.free_pages(false);
        self.summary.unbacked_pages = self.map.free_pages(true);
        if whole { self.unlisted(Damage::FreeList, |what| matches!(what, What::Free { .. })) } else { Ok(()) }
    }

    /// The lists of slabs with free blocks.
    pub(super) fn slab_lists(&mut self) -> Step {
        let mut whole = self.map.is_whole();
        for arena in 0..ARENA_COUNT {
            for class in 0..CLASS_COUNT {
                let head = ARENAS + arena * ARENA_SIZE + ARENA_HEADS + 8 * class as u64;
                whole &= self.list(head, Damage::Slab, |what, _| {
                    matches!(*what, What::Slab { class: c, arena: a, full: false, .. } if c == class && a == arena)
                })?;
            }
        }
        if whole {
            self.unlisted(Damage::Slab, |what| matches!(what, What::Slab { full: false, .. }))
        } else {
            Ok(())
        }
    }

    /// Follows one list from its head word. It ends at the first link that is wrong (the answer is false
    /// then); members are marked, so that no list is longer than there are runs.
    fn list(&mut self, head: u64, damage: Damage, belongs: impl Fn(&What, u64) -> bool) -> Step<bool> {
        let mut link = head;
        let Some(mut page) = self.word(head)? else { return Ok(false) };
        let mut before = 0;
        while page != 0 {
            let Some(index) = self.map.starting_at(page) else {
                if !self.map.is_unknown(page) {
                    self.say(damage, link, format!("page {page} in the list begins nothing"))?;
                }
                return Ok(false);
            };
            let entry = &mut self.map.entries[index];
            if !belongs(&entry.what, entry.pages) {
                return self
                    .say(damage, link, format!("page {page} does not belong into this list"))
                    .map(|()| false);
            }
            if std::mem::replace(&mut entry.marked, true) {
                return self.say(damage, link, format!("page {page} is in the lists twice")).map(|()| false);
            }
            link = descriptor(page) + 8;
            let Some(links) = self.word(link)? else { return Ok(false) };
            if links >> 32 != before {
                let text = format!("page {page} follows {before} in its list, but says {}", links >> 32);
                self.say(damage, link, text)?;
            }
            before = page;
            page = links & 0xffff_ffff;
        }
        Ok(true)
    }

    /// What should have been in a list and was not.
    fn unlisted(&mut self, damage: Damage, belongs: impl Fn(&What) -> bool) -> Step {
        for index in 0..self.map.entries.len() {
            let entry = &self.map.entries[index];
            if belongs(&entry.what) && !entry.marked {
                let page = entry.page;
                self.say(damage, descriptor(page), format!("page {page} is missing in its list"))?;
            }
        }
        Ok(())
    }
}
