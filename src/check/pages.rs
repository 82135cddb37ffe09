//! The page map: the walk over the descriptors of all segments.
//!
//! It finds the runs and slabs, which must tile the space between page 32 and the used end without gap,
//! and fills the [`Map`](super::claims::Map) that everything else is looked up in. Only descriptors of
//! heads, tails and slab bodies are read; the others may lie in holes.

use super::claims::{Entry, What};
use super::layout::*;
use super::{Check, Step};
use crate::error::Damage;

/// The first word of a page descriptor.
#[derive(Clone, Copy)]
struct Head {
    kind: u64,
    detail: u64,
    number: u64,
}

impl Head {
    fn decode(word: u64) -> Head {
        Head { kind: word & 0xff, detail: word & 0xffff_ff00, number: word >> 32 }
    }
}

impl Check<'_> {
    /// Walks all segments up to the used end.
    pub(super) fn walk_pages(&mut self) -> Step {
        let Some(used) = self.word(USED_PAGES)? else { return Ok(()) };
        if !(FIXED_PAGES..=MAX_PAGES).contains(&used) {
            self.map.unknown(0, MAX_PAGES);
            self.incomplete = true;
            return self.say(Damage::PageMap, USED_PAGES, format!("{used} used pages"));
        }
        self.summary.used_pages = used;
        for k in 0.. {
            let segment = Segment::number(k);
            if segment.first >= used {
                break;
            }
            self.walk_segment(&segment, segment.end.min(used))?;
        }
        Ok(())
    }

    /// Walks one segment up to page `end`.
    fn walk_segment(&mut self, segment: &Segment, end: u64) -> Step {
        let mut page = segment.data;
        let mut free_before = None;
        while page < end {
            let at = segment.descriptor(page);
            let Some(entry) = self.walk_head(segment, page, end)? else {
                self.map.unknown(page, end);
                self.incomplete = true;
                return Ok(());
            };
            let free = match entry.what {
                What::Free { unbacked } => Some(unbacked),
                _ => None,
            };
            if free.is_some() && free == free_before {
                self.say(
                    Damage::PageMap,
                    at,
                    format!("the free runs before and at page {page} are not merged"),
                )?;
            }
            free_before = free;
            page += entry.pages;
            self.backed_to_the_end(&entry)?;
            self.map.push(entry);
        }
        Ok(())
    }

    /// Judges the run or slab at `page`; none: the walk cannot go on.
    fn walk_head(&mut self, segment: &Segment, page: u64, end: u64) -> Step<Option<Entry>> {
        let at = segment.descriptor(page);
        let Some(word) = self.word(at)? else { return Ok(None) };
        let head = Head::decode(word);
        let (name, known) = match head.kind {
            FREE => (Damage::PageMap, UNBACKED),
            RUN => (Damage::PageMap, 0xff00 | UNBACKED | PUNCHING),
            SLAB => (Damage::Slab, 0xff_ff00),
            kind => {
                let text = format!("page {page} begins no run: its descriptor is of kind {kind}");
                return self.say(Damage::PageMap, at, text).map(|()| None);
            }
        };
        if head.number == 0 || head.number > end - page {
            let text = format!("{} pages from page {page} on, where {} are left", head.number, end - page);
            return self.say(name, at, text).map(|()| None);
        }
        if head.detail & !known != 0 {
            self.say(
                name,
                at,
                format!("the descriptor of page {page} has unknown bits, {:#x}", head.detail),
            )?;
        }
        match head.kind {
            SLAB => self.walk_slab(segment, page, head),
            kind => self.walk_run(segment, page, head, kind == FREE),
        }
    }

    /// Judges the rest of a free run or of a run in use.
    fn walk_run(&mut self, segment: &Segment, page: u64, head: Head, free: bool) -> Step<Option<Entry>> {
        let unbacked = head.detail & UNBACKED != 0;
        if head.number > 1 {
            let at = segment.descriptor(page + head.number - 1);
            let Some(word) = self.word(at)? else { return Ok(None) };
            let tail = Head::decode(word);
            let kind = if free { FREE_TAIL } else { RUN_TAIL };
            if tail.kind != kind || tail.number != head.number || (free && tail.detail != head.detail) {
                self.say(Damage::PageMap, at, format!("the tail of the run at page {page} is {word:#x}"))?;
            }
        }
        let what = if free {
            What::Free { unbacked }
        } else {
            let purpose = (head.detail >> 8) & 0xff;
            if !(RECORD..=EXTENSION).contains(&purpose) {
                let text = format!("the run at page {page} has the unknown purpose {purpose}");
                self.say(Damage::PageMap, segment.descriptor(page), text)?;
            }
            What::Run { purpose, unbacked, punching: head.detail & PUNCHING != 0 }
        };
        Ok(Some(Entry { page, pages: head.number, what, marked: false }))
    }

    /// Judges the rest of a slab, but for its place in lists.
    fn walk_slab(&mut self, segment: &Segment, page: u64, head: Head) -> Step<Option<Entry>> {
        let at = segment.descriptor(page);
        let class = (head.detail >> 8) as usize & 0xff;
        let arena = (head.detail >> 16) & 0xff;
        if head.number != SLAB_PAGES || class >= CLASS_COUNT || arena >= ARENA_COUNT {
            let text = format!("{} pages of class {class}, arena {arena}", head.number);
            return self.say(Damage::Slab, at, text).map(|()| None);
        }
        let mut bitmap = [0; 45];
        for distance in 1..SLAB_PAGES {
            let at = segment.descriptor(page + distance);
            let Some(body) = self.words::<4>(at)? else { return Ok(None) };
            let tag = Head::decode(body[0]);
            if tag.kind != SLAB_BODY || tag.number != distance {
                let text = format!("body page {distance} of the slab at page {page} is {:#x}", body[0]);
                self.say(Damage::Slab, at, text)?;
            }
            let first = 3 * (distance as usize - 1);
            bitmap[first..first + 3].copy_from_slice(&body[1..]);
        }
        let blocks = blocks_per_slab(class);
        let bitmap = &mut bitmap[..blocks.div_ceil(64) as usize];
        if let (Some(last), left @ 1..) = (bitmap.last_mut(), blocks % 64) {
            if *last >> left != 0 {
                let at = bitmap_word(segment, page, blocks / 64);
                self.say(Damage::Slab, at, format!("bits beyond the {blocks} blocks of the slab are set"))?;
                *last &= (1 << left) - 1;
            }
        }
        let used: u64 = bitmap.iter().map(|word| u64::from(word.count_ones())).sum();
        let Some(free) = self.word(at + 16)? else { return Ok(None) };
        if free != blocks - used {
            let text = format!("the slab at page {page} counts {free} free blocks, it has {}", blocks - used);
            self.say(Damage::Slab, at + 16, text)?;
        }
        self.summary.slabs += 1;
        let full = used == blocks;
        let bits = self.map.add_bitmap(bitmap);
        Ok(Some(Entry {
            page,
            pages: SLAB_PAGES,
            what: What::Slab { class, arena, full, bits },
            marked: false,
        }))
    }

    /// Backed memory lies within the file. Bucket arrays are backed piecewise: see `table`.
    fn backed_to_the_end(&mut self, entry: &Entry) -> Step {
        let backed = match entry.what {
            What::Free { unbacked } => !unbacked,
            What::Run { purpose, unbacked, punching } => purpose != BUCKETS && !unbacked && !punching,
            What::Slab { .. } => true,
        };
        if backed && (entry.page + entry.pages) * PAGE > self.image.size() {
            self.missing(entry.page * PAGE)?;
        }
        Ok(())
    }
}

/// Where word `n` of the bitmap of the slab at `page` lies.
fn bitmap_word(segment: &Segment, page: u64, n: u64) -> u64 {
    segment.descriptor(page + 1 + n / 3) + 8 * (1 + n % 3)
}
