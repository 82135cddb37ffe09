//! The slots: chunks, states, and the memory that they have in custody.
//!
//! At rest a slot is FREE or ACTIVE, waits for nothing and lists no lock. It may hold blocks and runs
//! in its magazine, its pending list and its reserve, whatever its state.
//!
//! While the running check holds the gate, those who come meanwhile are not at rest: see [`Check::is_passing`].

use super::claims::Want;
use super::fixed::Header;
use super::layout::*;
use super::{Check, Step};
use crate::error::Damage;

const WORDS: usize = (SLOT_SIZE / 8) as usize;
const ACTIVE: u64 = 1;
const RECOVERING: u64 = 2;
const LOG_IDLE: u64 = 0;
const LOG_APPLIED: u64 = 2;
const LISTED_LOCKS: usize = 96;
/// How many locks somebody may list for a moment who does not know of the gate's holder yet: those of a split.
const MAX_PASSING: u64 = 2;
/// How often a lock and a list that do not agree are looked at.
const LOOKS: u32 = 1000;
const LOG_EXTENSIONS: usize = 32;
const LOCK_EXTENSIONS: usize = 48;
const RESERVE_EXTENSIONS: usize = 64;
const MAGAZINE: usize = 416;
const CELLS: usize = 16;
const RESERVE: usize = 976;
const RESERVE_CELLS: u64 = 32;
/// Byte ranges of a slot that have a meaning; all other words are reserved.
const USED: &[(u64, u64)] =
    &[(0, 8 * 3), (8 * 4, 8 * 9), (8 * 16, 8 * 18), (8 * 24, 8 * 26), (8 * 32, 8 * 80), (8 * 96, 8 * 1008)];

/// Has a slot in this state an owner, dead or alive?
fn is_used(state: u64) -> bool {
    state == ACTIVE || state == RECOVERING
}

impl Check<'_> {
    /// All slots of all chunks.
    pub(super) fn slots(&mut self, header: &Header) -> Step {
        let mut own_seen = false;
        let mut absent = false;
        for k in 0..SLOT_CHUNKS {
            let at = DIRECTORY + 64 + 8 * k;
            let (first, count) = doubling(8, k);
            let Some(mut chunk) = self.word(at)? else { break };
            if k == 0 && chunk != FIRST_SLOTS {
                self.say(Damage::Slot, at, format!("the first slots are said to be at {chunk}"))?;
                chunk = FIRST_SLOTS;
            }
            if chunk == 0 {
                absent = true;
                continue;
            }
            if std::mem::take(&mut absent) {
                self.say(Damage::Slot, at, format!("slot chunk {k} exists, the one before it does not"))?;
            }
            if k > 0 && !self.exact_run(at, chunk, SLOTS, count * SLOT_SIZE, Damage::Slot)? {
                continue;
            }
            for slot in first + 1..=(first + count).min(MAX_SLOT) {
                own_seen |= slot == u64::from(self.options.own_slot);
                let at = chunk + (slot - first - 1) * SLOT_SIZE;
                let Some(words) = self.words::<WORDS>(at)? else { break };
                self.slot(slot, at, &words, header)?;
            }
        }
        if !own_seen && self.options.own_slot != 0 {
            self.own_gate(false)?;
        }
        Ok(())
    }

    /// Claims a run that must be exactly long enough for `bytes`.
    pub(super) fn exact_run(
        &mut self,
        referrer: u64,
        offset: u64,
        purpose: u64,
        bytes: u64,
        damage: Damage,
    ) -> Step<bool> {
        let Some(run) = self.claim(referrer, offset, Want::Run(purpose))? else { return Ok(false) };
        if run.size == bytes.next_multiple_of(PAGE) {
            return Ok(true);
        }
        self.incomplete = true;
        let text = format!("the run at {offset} has {} bytes, {bytes} are needed", run.size);
        self.say(damage, referrer, text).map(|()| false)
    }

    fn slot(&mut self, slot: u64, at: u64, words: &[u64; WORDS], header: &Header) -> Step {
        self.summary.slots += 1;
        self.slot_state(slot, at, words)?;
        if header.strict {
            if words[4] != 0 {
                self.say(Damage::Log, at + 32, format!("slot {slot} has a log checksum, {:#x}", words[4]))?;
            }
            self.zero_but(at, SLOT_SIZE, USED, Damage::Slot)?;
        }
        self.extensions(at, words, LOG_EXTENSIONS)?;
        self.extensions(at, words, LOCK_EXTENSIONS)?;
        for cell in 0..CLASS_COUNT * CELLS {
            if words[MAGAZINE + cell] != 0 {
                let referrer = at + 8 * (MAGAZINE + cell) as u64;
                let claimed = self.claim(referrer, words[MAGAZINE + cell], Want::Cell(cell / CELLS))?;
                self.summary.custody += u64::from(claimed.is_some());
            }
        }
        self.reserve(slot, at, words)?;
        self.pending(at, words[24])
    }

    /// The slot at rest: state, commit word, lock list, wait.
    fn slot_state(&mut self, slot: u64, at: u64, words: &[u64; WORDS]) -> Step {
        let own = slot == u64::from(self.options.own_slot);
        let state = words[0] & 0xff;
        if self.options.after_crash {
            self.summary.slots_active += u64::from(state == ACTIVE);
            let log = words[1] & 0xff;
            if log != LOG_IDLE && log != LOG_APPLIED {
                self.say(Damage::Log, at + 8, format!("the log of slot {slot} is in state {log}"))?;
            }
            return Ok(());
        }
        // Whoever comes while the check runs may be killed as well, and others recover him.
        let recovered_now = state == RECOVERING && self.options.own_slot != 0 && !own;
        if state > ACTIVE && !recovered_now {
            self.say(Damage::Slot, at, format!("slot {slot} is in state {state}"))?;
        }
        self.summary.slots_active += u64::from(state == ACTIVE);
        // The words are not read at one moment: the slot may have been claimed meanwhile.
        let late = self.options.own_slot != 0
            && !own
            && (is_used(state) || self.image.word(at).is_some_and(|word| is_used(word & 0xff)));
        let log = words[1] & 0xff;
        if log != LOG_IDLE && !(late && log == LOG_APPLIED) {
            self.say(Damage::Log, at + 8, format!("the log of slot {slot} is in state {log}"))?;
        }
        let lists_gate = words[2] == 1 && words[LISTED_LOCKS] == GATE;
        if words[2] != 0 && !(late && words[2] <= MAX_PASSING) && !(own && lists_gate) {
            self.say(Damage::Slot, at + 16, format!("slot {slot} lists {} locks", words[2]))?;
        }
        if own {
            return self.own_gate(lists_gate);
        }
        if words[6] != 0 && !late {
            self.say(Damage::Slot, at + 48, format!("slot {slot} has an open group"))?;
        }
        if words[16] != 0 && !late {
            self.say(Damage::Slot, at + 128, format!("slot {slot} waits for {}", words[16]))?;
        }
        Ok(())
    }

    /// While the running check holds the gate: is the lock at `offset` in the hands of somebody who will give it
    /// back unused? Who takes a first lock looks at the gate afterwards, and who then finds it taken changes
    /// nothing, gives the lock back and queues for the gate. The slot lists the lock from before it has it until
    /// after it has not, but lock word and list are not read at one moment.
    pub(super) fn is_passing(&self, offset: u64) -> bool {
        self.options.own_slot != 0
            && (0..LOOKS).any(|_| {
                let Some(word) = self.image.word(offset) else { return false };
                let owner = word & LOCK_OWNER;
                owner == 0 || (owner != u64::from(self.options.own_slot) && self.lists(owner, offset))
            })
    }

    /// Does a slot that is in use list the lock at `offset`, among the few of somebody who comes late?
    fn lists(&self, slot: u64, offset: u64) -> bool {
        let Some(at) = self.place_of(slot) else { return false };
        let word = |n: u64| self.image.word(at + 8 * n).unwrap_or(0);
        is_used(word(0) & 0xff)
            && (0..word(2).min(MAX_PASSING)).any(|n| word(LISTED_LOCKS as u64 + n) == offset)
    }

    /// Where a slot lies, if that is inside of the object.
    fn place_of(&self, slot: u64) -> Option<u64> {
        let (k, i) = (0..SLOT_CHUNKS).find_map(|k| {
            let (first, count) = doubling(8, k);
            (first < slot && slot <= first + count).then(|| (k, slot - first - 1))
        })?;
        let chunk = self.image.word(DIRECTORY + 64 + 8 * k).filter(|chunk| *chunk != 0)?;
        let at = chunk.checked_add(i * SLOT_SIZE)?;
        at.checked_add(SLOT_SIZE).filter(|end| *end <= self.image.size()).map(|_| at)
    }

    /// If the running check owns the gate, its slot must list it.
    fn own_gate(&mut self, listed: bool) -> Step {
        let Some(gate) = self.word(GATE)? else { return Ok(()) };
        let owner = gate & LOCK_OWNER;
        if owner == 0 || owner != u64::from(self.options.own_slot) || listed {
            return Ok(());
        }
        self.say(Damage::StrayLock, GATE, format!("slot {owner} owns the gate and does not list it"))
    }

    /// Claims a chain of extensions. The answer: how many of them, from the first on, can be used.
    fn extensions(&mut self, at: u64, words: &[u64; WORDS], first: usize) -> Step<usize> {
        let mut usable = 0;
        let mut absent = false;
        for k in 0..16 {
            let offset = words[first + k];
            let referrer = at + 8 * (first + k) as u64;
            if offset == 0 {
                absent = true;
                continue;
            }
            if std::mem::take(&mut absent) {
                let text = format!("extension {k} exists, the one before it does not");
                self.say(Damage::Slot, referrer, text)?;
            }
            let exact = self.exact_run(referrer, offset, EXTENSION, PAGE << k, Damage::Slot)?;
            usable += usize::from(exact && usable == k);
        }
        Ok(usable)
    }

    /// The reserve cells, inline and in extensions.
    fn reserve(&mut self, slot: u64, at: u64, words: &[u64; WORDS]) -> Step {
        let usable = self.extensions(at, words, RESERVE_EXTENSIONS)?;
        let present = words[RESERVE_EXTENSIONS..][..16].iter().take_while(|&&offset| offset != 0).count();
        let room = |extensions: usize| RESERVE_CELLS + 512 * ((1 << extensions) - 1);
        let count = words[25];
        if count > room(present) {
            let text = format!("slot {slot} has {count} reserve cells in {}", room(present));
            self.say(Damage::Slot, at + 200, text)?;
        }
        let room = room(usable);
        self.incomplete |= count > room;
        for n in 0..count.min(room) {
            let referrer = match n.checked_sub(RESERVE_CELLS) {
                None => at + 8 * (RESERVE as u64 + n),
                Some(n) => {
                    let k = u64::from((n / 512 + 1).ilog2());
                    words[RESERVE_EXTENSIONS + k as usize] + 8 * (n - 512 * ((1 << k) - 1))
                }
            };
            match self.word(referrer)? {
                Some(0) => {}
                Some(offset) => {
                    let claimed = self.claim(referrer, offset, Want::Reserve)?;
                    self.summary.custody += u64::from(claimed.is_some());
                }
                None => break,
            }
        }
        for n in count.min(RESERVE_CELLS)..RESERVE_CELLS {
            let cell = RESERVE + n as usize;
            if words[cell] != 0 {
                let text = format!("reserve cell {n} is not zero, only {count} are in use");
                self.say(Damage::Slot, at + 8 * cell as u64, text)?;
            }
        }
        Ok(())
    }

    /// The pending list. Claims make it end.
    fn pending(&mut self, at: u64, first: u64) -> Step {
        let mut referrer = at + 8 * 24;
        let mut offset = first;
        while offset != 0 {
            if self.claim(referrer, offset, Want::Record)?.is_none() {
                break;
            }
            self.summary.custody += 1;
            referrer = offset;
            match self.word(offset)? {
                Some(next) => offset = next,
                None => break,
            }
        }
        Ok(())
    }
}
