//! Pages 0 to 7: the header, and the fixed words of gate, slot directory, allocator and arenas.
//!
//! It judges these words alone; what they point to is judged where it is followed.

use super::layout::*;
use super::{Check, Step};
use crate::error::Damage;

/// What the rest of the check needs from page 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) hash: Hash,
    /// No unknown compatible feature is in use, so reserved words must be zero.
    pub(super) strict: bool,
    /// Records have checksums.
    pub(super) checksums: bool,
}

/// The object's hash function with its seed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hash {
    Xxh3(u64),
    Sip(u64, u64),
}

/// The words of a page's structure that are in use: ranges of byte offsets within it.
type Used = &'static [(u64, u64)];

impl Check<'_> {
    /// Page 0 and the length of the file. None: there is no use in going on.
    pub(super) fn header(&mut self) -> Step<Option<Header>> {
        let Some([magic, version]) = self.words(0)? else { return Ok(None) };
        if magic != MAGIC {
            let text =
                if magic == MAGIC_CREATING { "its creation was not finished" } else { "not an object" };
            return self.say(Damage::Magic, 0, text.into()).map(|()| None);
        }
        if version != 1 {
            return self.say(Damage::Header, 8, format!("unknown format version {version}")).map(|()| None);
        }
        if self.image.size() < FIXED_PAGES * PAGE {
            return self.missing(self.image.size()).map(|()| None);
        }
        let Some(words) = self.words::<16>(0)? else { return Ok(None) };
        if words[4] & !CHECKSUMS != 0 {
            let text = format!("unknown incompatible features {:#x}", words[4]);
            return self.say(Damage::Header, 32, text).map(|()| None);
        }
        if !matches!(words[6], 1..=3) {
            self.say(Damage::Header, 48, format!("unknown locking method {}", words[6]))?;
        }
        if words[11] != 0 && words[11] < FIXED_PAGES * PAGE {
            self.say(Damage::Header, 88, format!("impossible maximum size {}", words[11]))?;
        }
        let mut usable = true;
        for (word, must) in [(14, SLOT_SIZE), (15, ARENA_COUNT)] {
            if words[word] != must {
                usable = false;
                self.say(Damage::Header, 8 * word as u64, format!("{} instead of {must}", words[word]))?;
            }
        }
        let hash = match words[7] {
            1 => Hash::Xxh3(words[8]),
            2 => Hash::Sip(words[8], words[9]),
            other => {
                self.say(Damage::Header, 56, format!("unknown hash function {other}"))?;
                return Ok(None);
            }
        };
        Ok(usable.then_some(Header {
            hash,
            strict: words[2] == 0 && words[3] == 0,
            checksums: words[4] & CHECKSUMS != 0,
        }))
    }

    /// Pages 1 to 7, and the unused words of page 0.
    pub(super) fn fixed_pages(&mut self, header: &Header) -> Step {
        self.lock(GATE)?;
        for lock in [RETIRE_LOCK, DIRECTORY, PAGES] {
            self.lock(lock)?;
        }
        for arena in 0..ARENA_COUNT {
            self.lock(ARENAS + arena * ARENA_SIZE)?;
        }
        if let Some([dirty, clean]) = self.words(LIFE + 16)? {
            if clean > dirty {
                let text = format!("the clean generation {clean} is above the dirty one, {dirty}");
                self.say(Damage::Header, LIFE + 24, text)?;
            }
        }
        if !header.strict {
            return Ok(());
        }
        self.reserved(0, PAGE, &[(0, 128)])?;
        self.reserved(LIFE, PAGE, &[(0, 48)])?;
        self.reserved(GATE, PAGE, &[(0, 8), (64, 80), (128, 136), (192, 208)])?;
        self.reserved(DIRECTORY, PAGE, &[(0, 8), (64, 64 + 8 * SLOT_CHUNKS)])?;
        self.reserved(PAGES, PAGE, &[(0, 8), (64, 88), (128, 512), (512, 896)])?;
        for arena in 0..ARENA_COUNT {
            self.reserved(
                ARENAS + arena * ARENA_SIZE,
                ARENA_SIZE,
                &[(0, 8), (64, 64 + 8 * CLASS_COUNT as u64)],
            )?;
        }
        self.reserved(RESERVED_PAGE, PAGE, &[])
    }

    /// Words of pages 0 to 7 that have no meaning must be zero.
    fn reserved(&mut self, start: u64, size: u64, used: Used) -> Step {
        self.zero_but(start, size, used, Damage::Header)
    }

    /// The words of a structure that are not `used` (ranges within it) must be zero.
    pub(super) fn zero_but(&mut self, start: u64, size: u64, used: &[(u64, u64)], what: Damage) -> Step {
        for at in (0..size).step_by(8) {
            if used.iter().any(|&(from, to)| from <= at && at < to) {
                continue;
            }
            match self.word(start + at)? {
                Some(0) => {}
                Some(value) => self.say(what, start + at, format!("the reserved word is {value:#x}"))?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// A lock word by itself.
    fn lock(&mut self, offset: u64) -> Step {
        match self.word(offset)? {
            Some(word) => self.lock_word(offset, word),
            None => Ok(()),
        }
    }

    /// At rest nobody owns a lock; only the running check may own the gate, and others, for a moment, what they
    /// will give back.
    pub(super) fn lock_word(&mut self, offset: u64, word: u64) -> Step {
        if word & (LOCK_OWNER | LOCK_WRITING | LOCK_STARVING) == 0 {
            return Ok(());
        }
        let owner = word & LOCK_OWNER;
        let means_nothing = self.options.after_crash || (offset == GATE && owner == AT_REST);
        if means_nothing
            && word & LOCK_STARVING == 0
            && (self.options.after_crash || word & LOCK_WRITING == 0)
        {
            return Ok(());
        }
        let own_gate = offset == GATE && owner != 0 && owner == u64::from(self.options.own_slot);
        if owner != 0 && !own_gate && word & LOCK_STARVING == 0 && self.is_passing(offset) {
            return Ok(());
        }
        if word & LOCK_WRITING != 0 {
            self.say(Damage::StrayLock, offset, format!("the lock word {word:#x} is marked WRITING"))
        } else if owner != 0 && !own_gate {
            self.say(Damage::StrayLock, offset, format!("slot {owner} owns the lock of an object at rest"))
        } else if word & LOCK_STARVING != 0 {
            self.say(Damage::StrayLock, offset, format!("the lock word {word:#x} has reserved bits"))
        } else {
            Ok(())
        }
    }
}
