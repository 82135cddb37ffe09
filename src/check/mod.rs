//! The checker: reads a whole object and names everything that contradicts the format.
//!
//! It owns its own reading of the design document, part 1: it shares no helper and no constant with
//! the code it judges. It only reads; it never touches free, unbacked or uninteresting memory, which
//! may be holes. It trusts nothing: whatever the bytes are, it ends, does not panic, and needs memory
//! in proportion to what the page descriptors really describe. It judges an object at rest (no
//! operation in flight); who calls it sees to that.
//!
//! What contradicts the format is a [`Finding`]. A structure too damaged to be followed is reported
//! once and left; checks that would then only repeat the same damage (leaks, counts) are skipped, and
//! [`Summary::complete`] is false.
//!
//! Reading order: `layout` (the numbers), `fixed` (pages 0 to 7), `pages` and `lists` (page
//! descriptors), `claims` (who refers to what), `slots`, `table`, `bucket`, `record`.

mod bucket;
mod claims;
mod fixed;
mod layout;
mod lists;
mod pages;
mod record;
mod slots;
mod table;

#[cfg(test)]
mod test_hostile;
#[cfg(test)]
mod test_image;
#[cfg(test)]
mod test_tables;
#[cfg(test)]
mod tests;

use crate::error::Damage;
use claims::Map;

/// Bytes to be judged.
pub trait Image {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// The little-endian word at `offset`, which is a multiple of 8; `None`: outside of the object.
    fn word(&self, offset: u64) -> Option<u64>;
    /// Copies `into.len()` bytes from `offset` on; `None`: not wholly inside of the object.
    fn read(&self, offset: u64, into: &mut [u8]) -> Option<()>;
}

/// An object as a plain piece of memory.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Image for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn word(&self, offset: u64) -> Option<u64> {
        let tail = self.0.get(usize::try_from(offset).ok()?..)?;
        tail.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        let tail = self.0.get(usize::try_from(offset).ok()?..)?;
        into.copy_from_slice(tail.get(..into.len())?);
        Some(())
    }
}

/// One contradiction to the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of damage.
    pub what: Damage,
    /// Byte offset of the word that is wrong. For `NotAllocated` and `Twice` this is the word that
    /// refers, for `Leaked` it is the memory that nobody refers to.
    pub offset: u64,
    /// The details, for humans.
    pub text: String,
}

/// What the checker has to know about its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The slot of the running check itself, 0: none. It may hold the gate (and nothing else).
    pub own_slot: u16,
    /// The machine went down while the object was in use, and it has been used by nobody since: slots are owned, and
    /// wait, and list and have locks, which means nothing. A log that had committed is a finding: it may be torn.
    pub after_crash: bool,
}

/// What was seen. Figures of tables are sums over all tables, without retired and spare roots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Everything could be followed and nobody stopped the check.
    pub complete: bool,
    /// Number of findings reported.
    pub findings: u64,
    /// Tables, the unnamed one included.
    pub tables: u64,
    /// Bindings, older ones of the same key included.
    pub bindings: u64,
    /// Different keys.
    pub keys: u64,
    /// Born buckets.
    pub buckets: u64,
    /// Overflow lines.
    pub overflow_lines: u64,
    /// Bytes of all blocks and runs that hold records.
    pub record_bytes: u64,
    /// Retired roots.
    pub retired_roots: u64,
    /// Spare roots.
    pub spare_roots: u64,
    /// Pages that have been used at some time.
    pub used_pages: u64,
    /// Free pages with memory behind them.
    pub free_pages: u64,
    /// Free pages without memory.
    pub unbacked_pages: u64,
    /// Slabs.
    pub slabs: u64,
    /// Slots that exist.
    pub slots: u64,
    /// Slots in state ACTIVE.
    pub slots_active: u64,
    /// Blocks and runs in the custody of slots.
    pub custody: u64,
}

/// Judges `image`. Each contradiction goes to `report`, which answers whether to go on.
pub fn check(image: &dyn Image, options: &Options, report: &mut dyn FnMut(Finding) -> bool) -> Summary {
    let mut check = Check {
        image,
        options,
        report,
        map: Map::default(),
        checksums: false,
        summary: Summary::default(),
        truncated: false,
        incomplete: false,
    };
    let ended = check.everything();
    check.summary.complete = ended.is_ok() && !check.incomplete;
    check.summary
}

/// The receiver of the findings wants no more of them.
struct Stopped;

/// Outcome of a part of the check.
type Step<T = ()> = std::result::Result<T, Stopped>;

/// A check under way.
struct Check<'a> {
    image: &'a dyn Image,
    options: &'a Options,
    report: &'a mut dyn FnMut(Finding) -> bool,
    map: Map,
    /// Records have checksums.
    checksums: bool,
    summary: Summary,
    /// The end of the file was reported as missing.
    truncated: bool,
    /// Something was not followed: what seems unreferenced need not be.
    incomplete: bool,
}

impl Check<'_> {
    fn everything(&mut self) -> Step {
        let Some(header) = self.header()? else {
            self.incomplete = true;
            return Ok(());
        };
        self.checksums = header.checksums;
        self.fixed_pages(&header)?;
        self.walk_pages()?;
        self.free_lists()?;
        self.slab_lists()?;
        self.slots(&header)?;
        self.tables(&header)?;
        self.leaks()
    }

    /// Reports one contradiction.
    #[cold]
    fn say(&mut self, what: Damage, offset: u64, text: String) -> Step {
        self.summary.findings += 1;
        if (self.report)(Finding { what, offset, text }) { Ok(()) } else { Err(Stopped) }
    }

    /// The word at `offset`; if the file ends before it, says so once.
    fn word(&mut self, offset: u64) -> Step<Option<u64>> {
        match self.image.word(offset) {
            Some(word) => Ok(Some(word)),
            None => self.missing(offset).map(|()| None),
        }
    }

    /// Fills `into` from `offset` on; false: the file ends before.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Step<bool> {
        match self.image.read(offset, into) {
            Some(()) => Ok(true),
            None => self.missing(offset).map(|()| false),
        }
    }

    /// `words` words from `offset` on; none: the file ends before.
    fn words<const WORDS: usize>(&mut self, offset: u64) -> Step<Option<[u64; WORDS]>> {
        let mut words = [0; WORDS];
        for (offset, word) in (offset..).step_by(8).zip(&mut words) {
            match self.word(offset)? {
                Some(value) => *word = value,
                None => return Ok(None),
            }
        }
        Ok(Some(words))
    }

    #[cold]
    fn missing(&mut self, offset: u64) -> Step {
        self.incomplete = true;
        if self.truncated {
            return Ok(());
        }
        self.truncated = true;
        let size = self.image.size();
        self.say(Damage::Truncated, offset, format!("the file ends at {size}, before memory in use"))
    }
}
