//! The map of the object's memory, and the account of who refers to what.
//!
//! Every reference in the object is claimed here once. A claim finds the block or run, checks that it is
//! allocated and fit for its use, and marks it; a second claim of the same is damage, which also makes
//! every walk along references end. What is allocated and unclaimed at the end has leaked.

use super::layout::*;
use super::{Check, Step};
use crate::error::Damage;

/// What occupies a stretch of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Free {
        unbacked: bool,
    },
    Run {
        purpose: u64,
        unbacked: bool,
        punching: bool,
    },
    Slab {
        class: usize,
        arena: u64,
        full: bool,
        /// Where its bitmap begins in the map's.
        bits: usize,
    },
}

/// A run or slab.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) page: u64,
    pub(super) pages: u64,
    pub(super) what: What,
    /// Seen in its list (free runs, slabs), or claimed (runs in use).
    pub(super) marked: bool,
}

/// All runs and slabs by page, with the bitmaps of the slabs.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) entries: Vec<Entry>,
    /// Copy of the bitmaps of all slabs.
    used: Vec<u64>,
    /// The same for blocks that are claimed.
    claimed: Vec<u64>,
    /// Stretches of pages that could not be walked.
    unknown: Vec<(u64, u64)>,
    free: [u64; 2],
}

impl Map {
    /// Appends the next entry in page order.
    pub(super) fn push(&mut self, entry: Entry) {
        if let What::Free { unbacked } = entry.what {
            self.free[usize::from(unbacked)] += entry.pages;
        }
        self.entries.push(entry);
    }

    /// Keeps the bitmap of a slab and tells where.
    pub(super) fn add_bitmap(&mut self, bitmap: &[u64]) -> usize {
        let bits = self.used.len();
        self.used.extend_from_slice(bitmap);
        self.claimed.resize(self.used.len(), 0);
        bits
    }

    pub(super) fn unknown(&mut self, from: u64, to: u64) {
        self.unknown.push((from, to));
    }

    pub(super) fn is_unknown(&self, page: u64) -> bool {
        self.unknown.iter().any(|&(from, to)| from <= page && page < to)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.unknown.is_empty()
    }

    pub(super) fn free_pages(&self, unbacked: bool) -> u64 {
        self.free[usize::from(unbacked)]
    }

    /// The entry that holds `page`.
    fn holding(&self, page: u64) -> Option<usize> {
        let index = self.entries.partition_point(|entry| entry.page <= page).checked_sub(1)?;
        let entry = &self.entries[index];
        (page - entry.page < entry.pages).then_some(index)
    }

    /// The entry that begins at `page`.
    pub(super) fn starting_at(&self, page: u64) -> Option<usize> {
        self.holding(page).filter(|&index| self.entries[index].page == page)
    }
}

/// What a reference may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A block of any class, or a run of records.
    Record,
    /// An overflow line.
    Line,
    /// A block of one class, in a magazine.
    Cell(usize),
    /// Anything that is allocated, whatever its state.
    Reserve,
    /// A run with this purpose.
    Run(u64),
}

/// A block or run that was claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The class of a block; none for a run.
    pub(super) class: Option<usize>,
}

impl Check<'_> {
    /// Claims what lies at `offset` for the word at `referrer`. None: it was reported as wrong, or lies
    /// in pages that are not known, and must not be used.
    pub(super) fn claim(&mut self, referrer: u64, offset: u64, want: Want) -> Step<Option<Claimed>> {
        let page = offset / PAGE;
        let Some(index) = self.map.holding(page) else {
            if self.map.is_unknown(page) {
                return Ok(None);
            }
            return self.not_allocated(referrer, offset, want, "no page in use");
        };
        let entry = &self.map.entries[index];
        let (start, pages) = (entry.page * PAGE, entry.pages);
        match entry.what {
            What::Free { .. } => self.not_allocated(referrer, offset, want, "a free run"),
            What::Run { .. } if offset != start => {
                self.not_allocated(referrer, offset, want, "the middle of a run")
            }
            What::Run { purpose, unbacked, punching } => {
                if !fits_run(want, purpose) {
                    let held = PURPOSES.get(purpose as usize).unwrap_or(&"something unknown");
                    return self.not_allocated(referrer, offset, want, &format!("a run that holds {held}"));
                }
                if std::mem::replace(&mut self.map.entries[index].marked, true) {
                    return self.twice(referrer, offset);
                }
                if want != Want::Reserve && (punching || (unbacked && purpose != BUCKETS)) {
                    self.incomplete = true;
                    let text = format!("the run at {offset} is in use and has no memory");
                    return self.say(Damage::PageMap, descriptor(page), text).map(|()| None);
                }
                Ok(Some(Claimed { offset, size: pages * PAGE, class: None }))
            }
            What::Slab { class, bits, .. } => {
                self.claim_block(referrer, offset, want, (offset - start, class, bits))
            }
        }
    }

    /// The same for a block: `within` is the distance from the begin of its slab.
    fn claim_block(
        &mut self,
        referrer: u64,
        offset: u64,
        want: Want,
        (within, class, bits): (u64, usize, usize),
    ) -> Step<Option<Claimed>> {
        let size = CLASS_SIZES[class];
        let number = within / size;
        if within % size != 0 || number >= blocks_per_slab(class) {
            return self.not_allocated(referrer, offset, want, "the middle of a block");
        }
        let (word, bit) = (bits + (number / 64) as usize, 1 << (number % 64));
        if self.map.used[word] & bit == 0 {
            return self.not_allocated(referrer, offset, want, "a free block");
        }
        if self.map.claimed[word] & bit != 0 {
            return self.twice(referrer, offset);
        }
        self.map.claimed[word] |= bit;
        let wrong = match want {
            Want::Record | Want::Reserve => None,
            Want::Line => (class != LINE_CLASS).then_some(Damage::Bucket),
            Want::Cell(of) => (class != of).then_some(Damage::Slot),
            Want::Run(_) => Some(Damage::NotAllocated),
        };
        if let Some(damage) = wrong {
            self.incomplete |= !matches!(want, Want::Cell(_));
            let text = format!("the block of {size} bytes at {offset} is of the wrong class");
            return self.say(damage, referrer, text).map(|()| None);
        }
        Ok(Some(Claimed { offset, size, class: Some(class) }))
    }

    #[cold]
    fn not_allocated(&mut self, referrer: u64, offset: u64, want: Want, why: &str) -> Step<Option<Claimed>> {
        // Cells lead nowhere; behind every other reference more may hang that is not reached now.
        self.incomplete |= !matches!(want, Want::Cell(_) | Want::Reserve);
        self.say(Damage::NotAllocated, referrer, format!("it refers to {offset}, which is {why}"))
            .map(|()| None)
    }

    #[cold]
    fn twice(&mut self, referrer: u64, offset: u64) -> Step<Option<Claimed>> {
        let text = format!("it refers to {offset}, to which something else refers already");
        self.say(Damage::Twice, referrer, text).map(|()| None)
    }

    /// At the end: what is in use and was never claimed.
    pub(super) fn leaks(&mut self) -> Step {
        if self.incomplete {
            return Ok(());
        }
        for index in 0..self.map.entries.len() {
            let entry = &self.map.entries[index];
            let (start, pages) = (entry.page * PAGE, entry.pages);
            match entry.what {
                What::Run { purpose, .. } if !entry.marked => {
                    let held = PURPOSES.get(purpose as usize).unwrap_or(&"something unknown");
                    let text = format!("nobody refers to the run of {pages} pages for {held}");
                    self.say(Damage::Leaked, start, text)?;
                }
                What::Slab { class, bits, .. } => self.leaked_blocks(start, class, bits)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn leaked_blocks(&mut self, start: u64, class: usize, bits: usize) -> Step {
        let size = CLASS_SIZES[class];
        for number in 0..blocks_per_slab(class) {
            let (word, bit) = (bits + (number / 64) as usize, number % 64);
            let leaked = self.map.used[word] & !self.map.claimed[word];
            if (leaked >> bit) & 1 != 0 {
                let text = format!("nobody refers to the block of {size} bytes");
                self.say(Damage::Leaked, start + number * size, text)?;
            }
        }
        Ok(())
    }
}

fn fits_run(want: Want, purpose: u64) -> bool {
    match want {
        Want::Record => purpose == RECORD,
        Want::Reserve => true,
        Want::Run(wanted) => purpose == wanted,
        Want::Line | Want::Cell(_) => false,
    }
}
