//! The way to change an object: locks, the write set, and the one commit point.
//!
//! Owns a participant together with its write sets, takes locks for it (recovering dead owners met on the
//! way, standing back for the gate) and commits. It does not know what it writes.

mod remembered;

use crate::error::{Damage, Error, Result};
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::slot::{self, State};
use crate::format::{Offset, SlotIndex, header};
use crate::life;
use crate::lock::attachment::{Attachment, Life, all_slots, slot_base};
use crate::lock::participant::Participant;
use crate::lock::wait::{Acquired, acquire, wait_for_empty_list};
use crate::lock::{Patience, Rank};
use crate::log::{SlotBlock, WriteSet};
use crate::os::{process, time};
use crate::recovery;
use crate::segment::Segment;
use crate::segment::view::Block;
pub(crate) use remembered::{Counter, Known, Written};
use remembered::{LastSlice, Tickets};
use smallvec::SmallVec;
use std::time::Duration;

/// Where words are read: straight from the object, or through a write set.
pub(crate) trait Words {
    fn word(&self, at: Offset) -> u64;
    /// Are the words of the line of 64 bytes that begins at `at` surely those of the object itself?
    fn is_plain_line(&self, at: Offset) -> bool;
    fn segment(&self) -> &Segment;
}

impl Words for Segment {
    #[inline(always)]
    fn is_plain_line(&self, _: Offset) -> bool {
        true
    }
    #[inline(always)]
    fn word(&self, at: Offset) -> u64 {
        self.load(at)
    }
    #[inline(always)]
    fn segment(&self) -> &Segment {
        self
    }
}

/// For each table, by its root: this slot's counter line, and how much is added to it.
pub(crate) type NetAdded = SmallVec<[(Offset, Offset, i64); 2]>;

/// A participant with its private state, in the hands of one thread.
pub(crate) struct Session {
    pub(crate) p: Participant,
    /// The changes being collected.
    set: WriteSet,
    /// While a mini-transaction runs: the changes of the operation or group around it.
    outer: WriteSet,
    in_mini: bool,
    /// Reserve cells filled for the operation or group, with the class of their blocks.
    pub(crate) spares: Vec<(u32, Offset)>,
    /// Bindings added (or, negative, removed) by what is planned, not reported to the tables' loads yet.
    pub(crate) net_added: NetAdded,
    /// About how many blocks the slot's pending list holds; see `custody`.
    pub(crate) pending: u32,
    /// Blocks and runs that what is planned makes pending.
    pub(crate) newly_pending: u32,
    /// The slot's counter in the table that it changed last.
    pub(crate) counter: Option<Counter>,
    /// Splits that the session has taken on.
    pub(crate) tickets: Tickets,
    /// Reserve cells below this one are known to be in use.
    pub(crate) reserve_cursor: u64,
    /// Second of the coarse clock when a long slice was written last, unless what it kept has gone back since.
    pub(crate) long_slice: Option<u64>,
    /// What the group has looked up last, until something may be different; see `txn::in_group`.
    pub(crate) known: Known,
    /// How often work has begun in the session.
    turns: u64,
    last_slice: LastSlice,
}

impl Session {
    /// Takes note that work begins.
    #[inline(always)]
    pub(crate) fn begin_turn(&mut self) {
        self.turns += 1;
    }

    pub(crate) fn new(p: Participant) -> Session {
        Session {
            p,
            set: WriteSet::default(),
            outer: WriteSet::default(),
            in_mini: false,
            spares: Vec::new(),
            net_added: NetAdded::new(),
            pending: u32::MAX,
            newly_pending: 0,
            counter: None,
            tickets: Tickets::none(),
            reserve_cursor: 0,
            long_slice: None,
            known: Known::NOTHING,
            turns: 0,
            last_slice: LastSlice::none(),
        }
    }

    pub(crate) fn set(&mut self) -> &mut WriteSet {
        &mut self.set
    }

    /// What a word is planned to become.
    #[inline]
    pub(crate) fn planned_word(&self, at: Offset) -> Option<u64> {
        self.set.get(at)
    }

    /// May a change of some of these bytes be planned?
    #[inline(always)]
    pub(crate) fn may_have_plans_for(&self, at: Offset, len: u64) -> bool {
        self.set.may_have_lines_of(at, len)
    }

    /// Is no change planned?
    #[inline]
    pub(crate) fn has_no_plan(&self) -> bool {
        self.set.is_empty()
    }

    /// Is nothing planned and nothing locked?
    pub(crate) fn is_at_rest(&self) -> bool {
        self.set.is_empty() && self.outer.is_empty() && self.p.held.is_empty()
    }
}

/// A session at work on its object.
pub(crate) struct Writer<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) me: &'a Attachment,
    pub(crate) s: &'a mut Session,
    pub(crate) patience: Patience,
}

impl Words for Writer<'_> {
    #[inline(always)]
    fn is_plain_line(&self, at: Offset) -> bool {
        at.0 % 64 == 0 && !self.s.set.has_line_of(at)
    }
    #[inline(always)]
    fn word(&self, at: Offset) -> u64 {
        match self.s.set.get(at) {
            Some(value) => value,
            None => self.segment.load(at),
        }
    }
    #[inline(always)]
    fn segment(&self) -> &Segment {
        self.segment
    }
}

/// Dead owners that a lock may have had, one after another, before its deadline counts.
const MOST_OVERCOME: u32 = 16;

impl<'a> Writer<'a> {
    /// Plans a change. The word's cover is held, or the slot owned.
    #[inline]
    pub(crate) fn put(&mut self, at: Offset, value: u64) {
        self.s.set.put(at, value);
    }

    /// Plans changes of words in a row.
    #[inline(always)]
    pub(crate) fn put_run(&mut self, first: Offset, values: impl ExactSizeIterator<Item = u64>) {
        debug_assert!(!self.s.in_mini, "no mini plans a run");
        self.s.set.put_run(first, values);
    }

    /// Plans a change of a word that has none yet.
    #[inline]
    pub(crate) fn put_first(&mut self, at: Offset, value: u64) {
        self.s.set.push(at, value);
    }

    /// Is a change of this word planned, by this mini-transaction or by what is around it?
    #[inline]
    pub(crate) fn is_planned(&self, at: Offset) -> bool {
        self.s.set.get(at).is_some() || self.s.outer.get(at).is_some()
    }

    /// The same session, to be lent to others: what is lent has to lie in memory, which slows down who lends it.
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> Writer<'_> {
        Writer { segment: self.segment, me: self.me, s: self.s, patience: self.patience }
    }

    /// The word of this slot.
    #[inline(always)]
    pub(crate) fn slot_word(&self, n: u64) -> Offset {
        self.s.p.base.word(n)
    }

    pub(crate) fn holds(&self, at: Offset) -> bool {
        LockWord(self.segment.load(at)).owner() == self.s.p.slot && self.s.p.position(at).is_some()
    }

    /// Says that words covered by a held lock are planned to change.
    pub(crate) fn will_change(&mut self, lock: Offset) {
        if let Some(i) = self.s.p.position(lock) {
            self.s.p.held[i].changes = true;
        }
    }

    /// Takes a lock, recovering dead owners, and standing back if it is the first one while somebody holds
    /// the gate.
    pub(crate) fn lock(&mut self, at: Offset, rank: Rank) -> Result<()> {
        // Each round but the last one has overcome something, and is worth another one. Only words that somebody scribbles on
        // bring ever more.
        let mut rounds = 0;
        loop {
            if rounds > MOST_OVERCOME && self.is_late(rounds) {
                return Err(Error::Timeout { holder_pid: 0 });
            }
            rounds += 1;
            // What the slot lists may be left for others.
            self.segment.require_whole()?;
            match acquire(self.segment, self.me, &mut self.s.p, at, rank, self.patience)? {
                Acquired::OwnerDead(slot, state) => self.recover(slot, state)?,
                Acquired::AtRest if at == header::GATE => life::rouse(self.segment, self.me, self.patience)?,
                Acquired::AtRest => return Err(Error::corrupt(Damage::StrayLock, at)),
                Acquired::Held(_) => {
                    if self.s.p.held.len() > 1 || at == header::GATE || !self.gate_is_anothers() {
                        return Ok(());
                    }
                    self.s.p.release_from(self.segment, 0);
                    self.wait_for_gate()?;
                }
            }
        }
    }

    /// Takes a lock if that needs no waiting.
    pub(crate) fn try_lock(&mut self, at: Offset, rank: Rank) -> Result<bool> {
        let patience = std::mem::replace(&mut self.patience, Patience::Try);
        let result = self.lock(at, rank);
        self.patience = patience;
        match result {
            Ok(()) => Ok(true),
            Err(Error::Timeout { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Does another slot hold the gate? The caller's last lock was just taken by a compare-and-swap, which becomes a
    /// full fence: either this load sees the gate's holder, or that one sees the caller's lock list.
    #[inline(always)]
    pub(crate) fn gate_is_anothers(&self) -> bool {
        self.segment.fence_after_exchange();
        let gate = LockWord(self.segment.load_acquire(header::GATE));
        !gate.is_free() && gate.owner() != self.s.p.slot && self.me.locks_exclude()
    }

    #[cold]
    pub(crate) fn wait_for_gate(&mut self) -> Result<()> {
        self.lock(header::GATE, Rank::Ordinary)?;
        self.s.p.release_from(self.segment, 0);
        Ok(())
    }

    /// Takes the gate and waits until every other participant has held no lock once: from then on nobody
    /// but this one changes anything, until the gate is released.
    pub(crate) fn lock_gate(&mut self) -> Result<()> {
        if self.s.p.holds_gate() {
            return Ok(());
        }
        let before = self.s.p.held.len();
        self.lock(header::GATE, Rank::Ordinary)?;
        if !self.me.locks_exclude() {
            return Ok(());
        }
        self.segment.fence();
        let segment = self.segment;
        for (slot, base) in all_slots(segment) {
            if slot == self.s.p.slot {
                continue;
            }
            let mut rounds = 0;
            loop {
                let outcome = wait_for_empty_list(segment, self.me, &mut self.s.p, slot, base, self.patience)
                    .and_then(|acquired| match acquired {
                        Acquired::Held(_) | Acquired::AtRest => Ok(true),
                        Acquired::OwnerDead(slot, state) => self.recover(slot, state).map(|()| false),
                    });
                match outcome {
                    Ok(true) => break,
                    Ok(false) if rounds <= MOST_OVERCOME || !self.is_late(rounds) => rounds += 1,
                    Ok(false) => {
                        self.s.p.release_from(segment, before);
                        return Err(Error::Timeout { holder_pid: self.me.pid_of(segment, slot) });
                    }
                    Err(e) => {
                        self.s.p.release_from(segment, before);
                        return Err(e);
                    }
                }
            }
        }
        // Else it may be the gate of a private page, at which nobody else is.
        segment.require_whole()
    }

    /// Waits a moment for whoever marks a word WRITING, and recovers that one if it is dead.
    #[cold]
    pub(crate) fn wait_for_writing(&self, at: Offset, word: LockWord, rounds: &mut u32) -> Result<()> {
        *rounds += 1;
        if *rounds < 100 {
            std::hint::spin_loop();
            return Ok(());
        }
        if word.owner() == self.s.p.slot {
            // Who marks words does nothing else until they are free again.
            return Err(Error::corrupt(Damage::StrayLock, at));
        }
        if let Life::Dead(state) = self.me.life_of(self.segment, word.owner())? {
            return self.recover(word.owner(), state);
        }
        if self.is_late(*rounds) {
            return Err(Error::Timeout { holder_pid: self.me.pid_of(self.segment, word.owner()) });
        }
        time::sleep(Duration::from_micros(50));
        Ok(())
    }

    /// Waits a moment after something has changed while it was read.
    #[cold]
    pub(crate) fn wait_for_rest(&self, rounds: &mut u32) -> Result<()> {
        *rounds += 1;
        if *rounds < 100 {
            std::hint::spin_loop();
            return Ok(());
        }
        if self.is_late(*rounds) {
            return Err(Error::Busy("what was read changed each time"));
        }
        time::sleep(Duration::from_micros(50));
        Ok(())
    }

    /// Has it lasted too long, after so many rounds?
    fn is_late(&self, rounds: u32) -> bool {
        match self.patience {
            Patience::Try => rounds > 1000,
            Patience::Until(deadline) => deadline.passed(),
        }
    }

    #[cold]
    pub(crate) fn recover(&self, slot: SlotIndex, state: State) -> Result<()> {
        match slot_base(self.segment, slot) {
            Some(base) => recovery::recover(self.segment, self.me, slot, base, state),
            None => Ok(()),
        }
    }

    /// Runs `body` as a transaction of its own on the slot's log, before the one around it is sealed. Its
    /// locks are released at the end; if it fails, its changes are forgotten.
    pub(crate) fn mini<R>(&mut self, body: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        debug_assert!(!self.s.in_mini && self.s.outer.is_empty());
        std::mem::swap(&mut self.s.set, &mut self.s.outer);
        self.s.in_mini = true;
        let from = self.s.p.held.len();
        let result = body(self).and_then(|value| {
            if self.s.p.held.is_empty() && !self.s.set.is_empty() {
                // It changes words of its slot only. Some lock has to be held all the same, for the gate's sake.
                let arena = self.s.p.slot.0 as u64 % header::ARENAS;
                self.lock(header::arena(arena), Rank::Arena)?;
            }
            // What is planned around it would undo it. In an object that is sound nothing has two uses.
            match self.s.set.common_word(&self.s.outer) {
                Some(at) => Err(Error::corrupt(Damage::Twice, at)),
                None => self.commit_from(from).map(|()| value),
            }
        });
        if result.is_err() {
            self.s.p.release_from(self.segment, from);
            self.s.set.clear();
        }
        std::mem::swap(&mut self.s.set, &mut self.s.outer);
        self.s.in_mini = false;
        result
    }

    /// Commits the planned changes and releases the locks from position `from` of the list on. There is
    /// room for the log.
    pub(crate) fn commit_from(&mut self, from: usize) -> Result<()> {
        if self.s.set.is_empty() {
            self.s.p.release_from(self.segment, from);
            return Ok(());
        }
        let Some(slot) = self.slot() else {
            return Err(Error::corrupt(Damage::Truncated, self.s.p.base));
        };
        // What is planned may come from a page that is not the object's any more; and the log may be one that is left for others.
        self.segment.fence_acquire();
        self.segment.require_whole()?;
        let log_words = self.s.set.seal(self.segment, &self.s.p, slot)?;
        self.commit_sealed(slot, log_words, from);
        Ok(())
    }

    /// The same for all locks, and for changes whose log fits into the slot. False, and nothing has happened, if it
    /// does not.
    #[inline(always)]
    pub(crate) fn commit_briefly(&mut self) -> bool {
        let may_commit = self.s.set.fits_inline() && self.segment.is_whole();
        let Some(slot) = self.slot().filter(|_| may_commit) else { return false };
        if self.s.set.is_empty() {
            self.s.p.release_from(self.segment, 0);
        } else {
            let log_words = self.s.set.seal_inline(slot);
            self.commit_sealed(slot, log_words, 0);
        }
        true
    }

    /// Commits what is in the slot's log.
    #[inline(always)]
    fn commit_sealed(&mut self, slot: SlotBlock<'_>, log_words: u64, from: usize) {
        // The commit point. Before this store nothing has happened; after it, everything has.
        slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, log_words));
        // A value of one word needs no mark: whoever reads meanwhile sees it as it was or as it will be, and nothing
        // else at the same time.
        if !self.s.set.is_whole_value() {
            self.mark_writing(from);
        }
        self.segment.fence_release();
        self.s.set.apply(self.segment);
        if !self.segment.is_whole_after_stores() && self.concerns_gate_page(from) {
            // It has happened, but perhaps not in the object. Those who recover the slot, once this process has gone, make it happen.
            return self.s.set.clear();
        }
        slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
        self.s.p.release_from(self.segment, from);
        slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
        self.s.set.clear();
    }

    /// Does what was just committed change the page that holds the gate, or is it covered by a lock there?
    #[cold]
    #[inline(never)]
    fn concerns_gate_page(&self, from: usize) -> bool {
        self.s.set.changes_any(header::is_beside_gate)
            || self.s.p.held[from..].iter().any(|held| header::is_beside_gate(held.at))
    }

    /// Tells readers that what the locks from position `from` of the list on cover is changing.
    #[inline(always)]
    pub(crate) fn mark_writing(&self, from: usize) {
        let view = self.segment.view();
        for held in self.s.p.held[from..].iter().filter(|held| held.changes) {
            let Some(lock) = view.block::<1>(held.at) else { continue };
            self.mark_word(lock, LockWord(lock.load(0)));
        }
    }

    /// The same for one lock, whose word was seen. Gives the word that it has then.
    #[inline(always)]
    pub(crate) fn mark_word(&self, lock: Block<'_, 1>, mut word: LockWord) -> LockWord {
        while word.owner() == self.s.p.slot && !word.is_writing() {
            match lock.compare_exchange(0, word.0, word.with(WRITING).0) {
                Ok(()) => return word.with(WRITING),
                Err(now) => word = LockWord(now),
            }
        }
        word
    }

    /// The words of this session's slot.
    #[inline(always)]
    pub(crate) fn slot(&self) -> Option<SlotBlock<'a>> {
        // SAFETY: a session's participant is one of the segment that it writes to.
        unsafe { self.s.p.words(self.segment) }
    }

    /// Has the process forked since the session began? Then the slot is the parent's.
    pub(crate) fn is_forked(&self) -> bool {
        process::fork_epoch() != self.me.epoch
    }

    /// In a forked child: forgets everything, and leaves the slot, which is the parent's, alone.
    #[cold]
    pub(crate) fn forget(&mut self) {
        self.s.p.held.clear();
        self.forget_plans();
    }

    fn forget_plans(&mut self) {
        self.s.set.clear();
        self.s.outer.clear();
        self.s.net_added.clear();
    }

    /// Forgets the planned changes and releases all locks.
    pub(crate) fn abort(&mut self) {
        if !self.segment.is_whole() {
            // The file was cut: what is in it now may be another object, with locks of its own. If it is sound, those who
            // recover the slot release them: they stay listed, here as well, or whatever comes next would end the list.
            return self.forget_plans();
        }
        for held in &mut self.s.p.held {
            held.changes = false;
        }
        self.s.p.release_from(self.segment, 0);
        self.s.set.clear();
        self.s.net_added.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::PAGE_BYTES;
    use crate::object::{ManageOptions, OpenOptions};
    use crate::os::guard;
    use crate::os::name::Name;

    /// Goal: bytes by which a session waits for itself are an error, also without a time-out. Method: the gate, which it has, is
    /// marked as being changed by it.
    #[test]
    fn nobody_waits_for_a_mark_of_his_own() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        w.lock_gate().expect("is free");
        let sound = w.segment.load(header::GATE);
        w.segment.store(header::GATE, LockWord(sound).with(WRITING).0);
        assert_eq!(table.view.refresh(&w), Err(Error::corrupt(Damage::StrayLock, header::GATE)));
        w.segment.store(header::GATE, sound);
        w.abort();
    }

    /// Goal: a lock that is left to others, since a page of the object was found missing, stays in the list. Method: the last
    /// page is read while the file is shorter, and a mini-transaction is tried after the lock has been left.
    #[test]
    fn locks_left_in_an_object_that_has_been_cut_stay_listed() {
        guard::install().expect("a handler");
        let path = std::env::temp_dir().join(format!("netshm-left-{}", std::process::id()));
        let object = OpenOptions::new().create(true).open(&Name::file(&path)).expect("opens");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        let lock = header::arena(3);
        w.lock(lock, Rank::Arena).expect("is free");
        let list = [slot::W_LIST_LEN, slot::LOCK_LIST.inline_word].map(|n| w.slot_word(n));
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
        let end = w.segment.limit();
        file.set_len(end - PAGE_BYTES).expect("cuts");
        w.segment.load(Offset(end - 8));
        file.set_len(end).expect("lengthens");
        assert!(!w.segment.is_whole(), "it was noticed");
        w.abort();
        let other = w.mini(|w| w.lock(header::arena(4), Rank::Arena));
        assert!(matches!(other, Err(Error::Corrupt { what: Damage::Truncated, .. })), "{other:?}");
        assert_eq!(LockWord(w.segment.load(lock)).owner(), w.s.p.slot);
        assert_eq!(list.map(|at| w.segment.load(at)), [1, lock.0]);
        std::fs::remove_file(path).expect("removes");
    }

    /// Goal: bytes that let one word be two things lead to an error, and nothing is changed. Method: a mini-transaction
    /// that changes a word which what is around it changes as well, with few other words planned and with many.
    #[test]
    fn no_word_is_changed_by_a_mini_transaction_and_by_what_is_around_it() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        // Words of the last page of the fixed ones, which mean nothing.
        let word = |n: u64| Offset(7 * crate::format::PAGE_BYTES).word(n);
        for others in [0, 1, 100] {
            (0..=others).for_each(|n| w.put(word(n), 0));
            let mut mini = |n| {
                w.mini(|w| {
                    w.put(word(n), n + 1);
                    Ok(())
                })
            };
            assert_eq!(mini(others), Err(Error::corrupt(Damage::Twice, word(others))));
            mini(others + 1).expect("is another word");
            assert_eq!([others, others + 1].map(|n| w.segment.load(word(n))), [0, others + 2]);
            w.segment.store(word(others + 1), 0);
            w.abort();
        }
    }
}
