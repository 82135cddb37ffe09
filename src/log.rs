//! The write set: the changes that an operation or a group wants to make, kept privately until it commits.
//!
//! Owns the collection of `(word, value)` pairs with savepoints, and its form as a redo log in a slot. It
//! takes no locks and does not decide when to commit. [`DirectLog`] is the same log for whoever knows all
//! changes beforehand.

use crate::error::{Damage, Error, Result};
use crate::format::{Offset, log_record, slot};
use crate::lock::participant::Participant;
use crate::segment::Segment;
use crate::segment::view::{Block, View};
use hashbrown::HashMap;

/// Up to this many entries are searched one by one: by their lines it is mostly known that there is nothing to be found,
/// and an index costs as much for each entry as a search of some twenty.
const SEARCHED: usize = 128;

/// Changes to be made together.
#[derive(Default)]
pub(crate) struct WriteSet {
    entries: Vec<(Offset, u64)>,
    /// Position of each word in `entries`, once there are many.
    index: HashMap<u64, u32>,
    /// What to undo, newest last: position, and the former value if the entry existed.
    journal: Vec<(u32, Option<u64>)>,
    /// Savepoints open: the journal is kept only for them.
    savepoints: u32,
    /// A word that is a whole value of a hash table, or none: if nothing else changes, the change is never seen half-way.
    whole_value: Option<Offset>,
    /// For each line of 64 bytes that has had a word in the set, one of 64 bits: a bit that is 0 says that none
    /// of its lines has one.
    lines: u64,
}

/// The bit of a line, by Fibonacci hashing of its number.
#[inline(always)]
const fn line_bit(at: Offset) -> u64 {
    1 << ((at.0 / 64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

/// A point to which a write set can go back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Savepoint(usize);

impl WriteSet {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        if self.entries.len() > SEARCHED {
            self.clear_index();
        }
        self.entries.clear();
        self.journal.clear();
        self.savepoints = 0;
        self.whole_value = None;
        self.lines = 0;
    }

    #[cold]
    #[inline(never)]
    fn clear_index(&mut self) {
        self.index.clear();
        if self.entries.capacity() > 4096 {
            *self = WriteSet::default();
        }
    }

    #[inline]
    fn position(&self, at: Offset) -> Option<usize> {
        if self.entries.len() <= SEARCHED {
            // The latest first: what is changed twice is mostly changed twice in a row.
            self.entries.iter().rposition(|e| e.0 == at)
        } else {
            self.index.get(&at.0).map(|i| *i as usize)
        }
    }

    /// The value that a word will have, if it is in the set.
    #[inline]
    pub(crate) fn get(&self, at: Offset) -> Option<u64> {
        if !self.may_have_line_of(at) {
            return None;
        }
        self.position(at).map(|i| self.entries[i].1)
    }

    /// A word that is in both sets.
    pub(crate) fn common_word(&self, other: &WriteSet) -> Option<Offset> {
        if self.lines & other.lines == 0 {
            return None;
        }
        self.entries.iter().map(|e| e.0).find(|at| other.get(*at).is_some())
    }

    /// Is a word of the line of 64 bytes that holds `at` in the set? With many entries it may also say yes if
    /// none is.
    #[inline(always)]
    pub(crate) fn has_line_of(&self, at: Offset) -> bool {
        self.may_have_line_of(at)
            && (self.entries.len() > SEARCHED || self.entries.iter().any(|e| e.0.0 / 64 == at.0 / 64))
    }

    /// The same by its bit alone.
    #[inline(always)]
    pub(crate) fn may_have_line_of(&self, at: Offset) -> bool {
        self.lines & line_bit(at) != 0
    }

    /// The same for the lines of some bytes in a row.
    #[inline(always)]
    pub(crate) fn may_have_lines_of(&self, at: Offset, len: u64) -> bool {
        let first = at.0 / 64 * 64;
        (first..at.0 + len).step_by(64).any(|line| self.may_have_line_of(Offset(line)))
    }

    /// May a word of some bytes in a row be in the set? With few entries it says no if none is.
    #[inline(never)]
    fn may_have_words_of(&self, at: Offset, len: u64) -> bool {
        self.entries.len() > SEARCHED || self.entries.iter().any(|e| e.0.0.wrapping_sub(at.0) < len)
    }

    /// Adds or changes a word.
    #[inline(always)]
    pub(crate) fn put(&mut self, at: Offset, value: u64) {
        if !self.may_have_line_of(at) || !self.change(at, value) {
            self.push(at, value);
        }
    }

    /// Adds or changes words in a row. Mostly none of them is in the set, which their lines tell.
    #[inline(always)]
    pub(crate) fn put_run(&mut self, first: Offset, values: impl ExactSizeIterator<Item = u64>) {
        let bytes = 8 * values.len() as u64;
        let search = self.may_have_lines_of(first, bytes) && self.may_have_words_of(first, bytes);
        for (value, n) in values.zip(0..) {
            let at = first.word(n);
            if !search || !self.change(at, value) {
                self.push(at, value);
            }
        }
    }

    /// Changes a word if it is in the set.
    #[inline(never)]
    fn change(&mut self, at: Offset, value: u64) -> bool {
        let Some(i) = self.position(at) else { return false };
        if self.savepoints > 0 {
            self.journal.push((i as u32, Some(self.entries[i].1)));
        }
        self.entries[i].1 = value;
        true
    }

    /// Adds a word that is not in the set. Not asserted: bytes by which two things lie in one place can let it be there. Then
    /// the value that came last counts, here, in the log, and when the changes are made.
    #[inline(always)]
    pub(crate) fn push(&mut self, at: Offset, value: u64) {
        let i = self.entries.len();
        self.entries.push((at, value));
        self.lines |= line_bit(at);
        if i >= SEARCHED {
            self.note_in_index(at, i);
        }
        if self.savepoints > 0 {
            self.note_in_journal(i);
        }
    }

    /// Notes an addition, for whoever may go back.
    #[inline(never)]
    fn note_in_journal(&mut self, i: usize) {
        self.journal.push((i as u32, None));
    }

    /// Notes the position of the newest entry; of all entries, when they become too many to be searched.
    #[inline(never)]
    fn note_in_index(&mut self, at: Offset, i: usize) {
        if i == SEARCHED {
            self.index.clear();
            self.index.extend(self.entries.iter().enumerate().map(|(i, e)| (e.0.0, i as u32)));
        } else {
            self.index.insert(at.0, i as u32);
        }
    }

    /// Opens a savepoint. It is ended by `roll_back` or `keep`, innermost first.
    pub(crate) fn savepoint(&mut self) -> Savepoint {
        self.savepoints += 1;
        Savepoint(self.journal.len())
    }

    /// Undoes what was put since the savepoint, and ends it.
    pub(crate) fn roll_back(&mut self, to: Savepoint) {
        while self.journal.len() > to.0 {
            let Some((i, former)) = self.journal.pop() else { break };
            match former {
                Some(value) => self.entries[i as usize].1 = value,
                None => {
                    // Entries are only ever added at the end, so the newest addition is the last.
                    debug_assert_eq!(i as usize + 1, self.entries.len());
                    if let Some((at, _)) = self.entries.pop() {
                        self.index.remove(&at.0);
                    }
                }
            }
        }
        self.savepoints -= 1;
    }

    /// Ends a savepoint and keeps what was put since.
    pub(crate) fn keep(&mut self, _: Savepoint) {
        self.savepoints -= 1;
        if self.savepoints == 0 {
            self.journal.clear();
        }
    }

    /// Is a word of the kind in the set?
    pub(crate) fn changes_any(&self, kind: impl Fn(Offset) -> bool) -> bool {
        self.entries.iter().any(|e| kind(e.0))
    }

    /// Most words that the set takes as a log.
    pub(crate) fn log_words_at_most(&self) -> u64 {
        2 * self.entries.len() as u64
    }

    /// Says that a word in the set is a whole value of a hash table, whose readers look at nothing else with it.
    #[inline(always)]
    pub(crate) fn note_whole_value(&mut self, at: Offset) {
        self.whole_value = Some(at);
    }

    /// Is it the change of one such word, and of nothing else?
    #[inline(always)]
    pub(crate) fn is_whole_value(&self) -> bool {
        matches!(self.entries[..], [(at, _)] if Some(at) == self.whole_value)
    }

    /// Does the log fit into the slot?
    #[inline(always)]
    pub(crate) fn fits_inline(&self) -> bool {
        self.log_words_at_most() <= slot::LOG.inline_len
    }

    /// Writes the set into the slot's log and gives the number of log words. Room has been made before.
    #[inline(always)]
    pub(crate) fn seal(&self, segment: &Segment, p: &Participant, slot: SlotBlock<'_>) -> Result<u64> {
        if self.fits_inline() {
            return Ok(self.seal_inline(slot));
        }
        self.seal_beyond(segment, p)
    }

    /// The same for a set that needs extensions.
    #[cold]
    #[inline(never)]
    fn seal_beyond(&self, segment: &Segment, p: &Participant) -> Result<u64> {
        let mut n = 0;
        let mut i = 0;
        let append = |n: &mut u64, value: u64| -> Result<()> {
            let at = p.log_word(*n).ok_or(Error::TooLarge("a group changes too much"))?;
            segment.store(at, value);
            *n += 1;
            Ok(())
        };
        while i < self.entries.len() {
            let first = self.entries[i].0;
            let mut count = 1;
            while i + count < self.entries.len()
                && self.entries[i + count].0 == first.word(count as u64)
                && (count as u64) < log_record::MAX_RUN
            {
                count += 1;
            }
            append(&mut n, log_record::run_header(first, count as u64))?;
            for (_, value) in &self.entries[i..i + count] {
                append(&mut n, *value)?;
            }
            i += count;
        }
        Ok(n)
    }

    /// The same for a set that fits into the slot.
    #[inline(always)]
    pub(crate) fn seal_inline(&self, slot: SlotBlock<'_>) -> u64 {
        const LOG: usize = slot::LOG.inline_word as usize;
        if let [(at, value)] = self.entries[..] {
            slot.store(LOG, log_record::run_header(at, 1));
            slot.store(LOG + 1, value);
            return 2;
        }
        let mut n = 0;
        let mut rest = &self.entries[..];
        while let Some((first, _)) = rest.first() {
            let header = n;
            let mut together = 0;
            for (at, value) in rest {
                if *at != first.word(together) {
                    break;
                }
                together += 1;
                slot.store(LOG + n + together as usize, *value);
            }
            slot.store(LOG + header, log_record::run_header(*first, together));
            n += 1 + together as usize;
            rest = &rest[together as usize..];
        }
        n as u64
    }

    /// Makes the changes.
    #[inline(always)]
    pub(crate) fn apply(&self, segment: &Segment) {
        let view = segment.view();
        for (at, value) in &self.entries {
            match view.block::<1>(*at) {
                Some(word) => word.store(0, *value),
                None => segment.store(*at, *value),
            }
        }
    }
}

/// The words of a slot.
pub(crate) type SlotBlock<'a> = Block<'a, { slot::SLOT_WORDS }>;

/// A redo log written straight into the slot, by the short ways, which have read everything before they write
/// the first word. Until it is committed it means nothing.
pub(crate) struct DirectLog<'a> {
    slot: SlotBlock<'a>,
    words: usize,
}

impl<'a> DirectLog<'a> {
    const FIRST: usize = slot::LOG.inline_word as usize;
    const ROOM: usize = slot::LOG.inline_len as usize;

    #[inline(always)]
    pub(crate) fn new(slot: SlotBlock<'a>) -> DirectLog<'a> {
        DirectLog { slot, words: 0 }
    }

    /// Adds the changes of some words in a row.
    #[inline(always)]
    pub(crate) fn push_run<const N: usize>(&mut self, first: Offset, values: [u64; N]) {
        // Behind the log lies the magazine.
        assert!(self.words + N < Self::ROOM);
        let at = Self::FIRST + self.words;
        self.slot.store(at, log_record::run_header(first, N as u64));
        self.slot.store_run(at + 1, values);
        self.words += 1 + N;
    }

    /// Adds the change of a word.
    #[inline(always)]
    pub(crate) fn push(&mut self, at: Offset, value: u64) {
        self.push_run(at, [value]);
    }

    /// Commits, and makes the changes by `apply`. The locks that cover them are held.
    #[inline(always)]
    pub(crate) fn commit(self, segment: &Segment, apply: impl FnOnce(&Self)) {
        // The commit point.
        self.slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, self.words as u64));
        segment.fence_release();
        apply(&self);
        self.slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
    }

    /// Makes the changes as the log has them. Whoever has scribbled on it meanwhile gets what he asked for, inside
    /// of the object.
    pub(crate) fn replay(&self, view: View<'_>) {
        let (mut n, end) = (Self::FIRST, Self::FIRST + self.words);
        while n < end {
            let header = self.slot.load(n);
            let count = (log_record::run_count(header) as usize).min(end - n - 1);
            view.store_run(log_record::run_first(header), self.slot.run(n + 1, count));
            n += 1 + count;
        }
    }
}

/// Replays a slot's log of `words` words: makes its changes, which may have been made in part already.
pub(crate) fn replay(segment: &Segment, p: &Participant, words: u64) -> Result<()> {
    let mut n = 0;
    while n < words {
        let header = segment.load(log_at(p, n)?);
        let (first, count) = (log_record::run_first(header), log_record::run_count(header));
        let inside = first.0 >= crate::format::PAGE_BYTES && segment.contains(first, 8 * count);
        if count == 0 || count > words - n - 1 || !inside {
            return Err(Error::corrupt(Damage::Log, log_at(p, n)?));
        }
        for i in 0..count {
            segment.store(first.word(i), segment.load(log_at(p, n + 1 + i)?));
        }
        n += 1 + count;
    }
    Ok(())
}

fn log_at(p: &Participant, n: u64) -> Result<Offset> {
    p.log_word(n).ok_or(Error::corrupt(Damage::Log, p.base.word(slot::W_COMMIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: of two values that were planned for a word as if it had none, the last one counts, whether the set is searched or
    /// has an index.
    #[test]
    fn of_a_word_that_was_added_twice_the_last_value_counts() {
        for others in [0, 3, 200] {
            let mut set = WriteSet::default();
            let word = |n: u64| Offset(8 * n);
            set.push(word(1000), 1);
            (0..others).for_each(|n| set.push(word(n), n));
            set.push(word(1000), 2);
            assert_eq!(set.get(word(1000)), Some(2), "{others}");
            set.put(word(1000), 3);
            assert_eq!(set.get(word(1000)), Some(3), "{others}");
            let last = set.entries.iter().rfind(|entry| entry.0 == word(1000));
            assert_eq!(last.map(|entry| entry.1), Some(3), "what is stored last");
        }
    }

    /// Random puts of words and of runs, savepoints and rollbacks against a stack of maps; some sets get too large to be searched.
    #[test]
    fn savepoints_restore_exactly() {
        let mut state = 1u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let mut largest = 0;
        for round in 0..if cfg!(miri) { 2 } else { 200 } {
            let words = if round % 2 == 0 { 40 } else { 300 };
            let mut set = WriteSet::default();
            let mut models = vec![std::collections::BTreeMap::new()];
            let mut points = Vec::new();
            for _ in 0..if cfg!(miri) { 60 } else { 300 } {
                match random(10) {
                    0 => {
                        points.push(set.savepoint());
                        models.push(models.last().expect("never empty").clone());
                    }
                    1 => {
                        if let Some(point) = points.pop() {
                            set.roll_back(point);
                            models.pop();
                        }
                    }
                    2 => {
                        if let Some(point) = points.pop() {
                            set.keep(point);
                            let top = models.pop().expect("one per savepoint");
                            *models.last_mut().expect("never empty") = top;
                        }
                    }
                    3 => {
                        let (first, value) = (1 + random(words - 8), random(1000));
                        let run = value..value + random(9);
                        for (n, value) in run.clone().enumerate() {
                            models.last_mut().expect("never empty").insert(8 * (first + n as u64), value);
                        }
                        set.put_run(Offset(8 * first), run.collect::<Vec<_>>().into_iter());
                    }
                    _ => {
                        let (at, value) = (8 * (1 + random(words)), random(1000));
                        set.put(Offset(at), value);
                        models.last_mut().expect("never empty").insert(at, value);
                    }
                }
                largest = largest.max(set.entries.len());
                for at in 1..=words {
                    assert_eq!(
                        set.get(Offset(8 * at)),
                        models.last().expect("never empty").get(&(8 * at)).copied()
                    );
                }
            }
        }
        assert!(cfg!(miri) || largest > SEARCHED + 20, "{largest}");
    }
}
