//! One slot in the hands of one thread: the private mirror of what the slot publishes.

use super::Rank;
use crate::error::{Error, Result};
use crate::format::slot::{self, Growable, Place};
use crate::format::{Offset, PAGE_BYTES, SlotIndex, header};
use crate::os::time;
use crate::segment::Segment;
use crate::segment::view::{Block, Pinned};

/// A lock that this participant has listed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) at: Offset,
    pub(crate) rank: Rank,
    /// Words that it covers are in the write set: readers must be told.
    pub(crate) changes: bool,
}

/// A claimed slot. Exactly one thread uses it at a time.
pub(crate) struct Participant {
    pub(crate) slot: SlotIndex,
    /// Where the slot lies.
    pub(crate) base: Offset,
    /// Its words.
    words: Option<Pinned<{ slot::SLOT_WORDS }>>,
    /// Mirror of the lock list, in its order.
    pub(crate) held: Vec<Held>,
    /// How often locks of the list have been released.
    pub(crate) releases: u64,
    pub(super) wait_sequence: u64,
    /// Extensions of lock list, log and reserve; mirrors of the slot's words.
    lists: [Offset; slot::EXTENSIONS as usize],
    logs: [Offset; slot::EXTENSIONS as usize],
    reserves: [Offset; slot::EXTENSIONS as usize],
    /// For each class, a magazine cell that probably holds a block.
    pub(crate) full_cell: [u8; crate::format::size_class::CLASSES as usize],
    /// Operations since the last look at what should be given back.
    pub(crate) chores: u32,
    /// A group is open: its waits have an age.
    in_group: bool,
    /// Mirror of the group's age; 0 before its first wait.
    age: u64,
}

impl Participant {
    /// The mirror of a slot that was just claimed.
    pub(crate) fn new(segment: &Segment, slot: SlotIndex, base: Offset) -> Participant {
        let mut p = Participant {
            slot,
            base,
            words: segment.pin(base),
            held: Vec::with_capacity(16),
            releases: 0,
            wait_sequence: segment.load(base.word(slot::W_WAIT_SEQUENCE)),
            lists: [Offset::NONE; slot::EXTENSIONS as usize],
            logs: [Offset::NONE; slot::EXTENSIONS as usize],
            reserves: [Offset::NONE; slot::EXTENSIONS as usize],
            full_cell: [0; crate::format::size_class::CLASSES as usize],
            chores: 0,
            in_group: false,
            age: 0,
        };
        p.reload_extensions(segment);
        p
    }

    /// The words of the slot.
    ///
    /// # Safety
    /// To be called with the segment that the participant was made for.
    #[inline(always)]
    pub(crate) unsafe fn words<'a>(&self, segment: &'a Segment) -> Option<Block<'a, { slot::SLOT_WORDS }>> {
        // SAFETY: by the caller's promise.
        self.words.as_ref().map(|words| unsafe { words.block(segment) })
    }

    /// Reads the extension words again.
    pub(crate) fn reload_extensions(&mut self, segment: &Segment) {
        for (mirror, of) in [
            (&mut self.lists, slot::LOCK_LIST),
            (&mut self.logs, slot::LOG),
            (&mut self.reserves, slot::RESERVE),
        ] {
            for k in 0..slot::EXTENSIONS {
                let at = Offset(segment.load(self.base.word(of.extensions_word + k as u64)));
                let bytes = slot::extension_pages(k) as u64 * PAGE_BYTES;
                let usable = at.0 % PAGE_BYTES == 0 && segment.contains(at, bytes);
                mirror[k as usize] = if usable { at } else { Offset::NONE };
            }
        }
    }

    /// Are the extensions of a list where they can be, up to number `last`?
    pub(crate) fn has_extensions(&self, of: &Growable, last: u32) -> bool {
        let mirrors =
            [(slot::LOCK_LIST, &self.lists), (slot::LOG, &self.logs), (slot::RESERVE, &self.reserves)];
        let mirror = mirrors.iter().find(|(list, _)| list.extensions_word == of.extensions_word);
        mirror.is_some_and(|(_, all)| all.iter().take(last as usize + 1).all(|at| !at.is_none()))
    }

    #[inline(always)]
    fn locate(&self, of: &Growable, extensions: &[Offset; 16], n: u64) -> Option<Offset> {
        match of.place(n) {
            Place::Inline(word) => Some(self.base.word(word)),
            Place::Extension(k, word) => {
                let run = extensions[k as usize];
                if run.is_none() { None } else { Some(run.word(word)) }
            }
            Place::Beyond => None,
        }
    }

    /// Where log word `n` lies, if there is room for it.
    #[inline(always)]
    pub(crate) fn log_word(&self, n: u64) -> Option<Offset> {
        self.locate(&slot::LOG, &self.logs, n)
    }

    pub(crate) fn list_word(&self, n: u64) -> Option<Offset> {
        self.locate(&slot::LOCK_LIST, &self.lists, n)
    }

    pub(crate) fn reserve_word(&self, n: u64) -> Option<Offset> {
        self.locate(&slot::RESERVE, &self.reserves, n)
    }

    /// Publishes that a lock is about to be taken. Room has been made before.
    #[inline(always)]
    pub(crate) fn list(&mut self, segment: &Segment, at: Offset, rank: Rank) -> Result<()> {
        debug_assert!(
            rank == Rank::Ordinary || self.held.last().is_none_or(|h| h.rank < rank),
            "lock ranks ascend"
        );
        let n = self.held.len() as u64;
        let word = self.list_word(n).ok_or(Error::TooLarge("a group holds too many locks"))?;
        segment.store(word, at.0);
        segment.store(self.base.word(slot::W_LIST_LEN), n + 1);
        self.held.push(Held { at, rank, changes: false });
        Ok(())
    }

    /// Forgets the lock listed last, which is not held.
    #[inline(always)]
    pub(crate) fn unlist(&mut self, segment: &Segment) {
        self.held.pop();
        segment.store(self.base.word(slot::W_LIST_LEN), self.held.len() as u64);
    }

    /// Releases the locks from position `from` of the list on, and takes them off the list.
    #[inline(always)]
    pub(crate) fn release_from(&mut self, segment: &Segment, from: usize) {
        for held in &self.held[from..] {
            super::release(segment, held.at, self.slot, held.changes);
        }
        self.releases += 1;
        let from = if segment.is_whole_after_stores() { from } else { self.released_up_to(from) };
        self.held.truncate(from);
        // SAFETY: the segment is that of the slot.
        match unsafe { self.words(segment) } {
            Some(slot) => slot.store(slot::W_LIST_LEN as usize, from as u64),
            None => segment.store(self.base.word(slot::W_LIST_LEN), from as u64),
        }
    }

    /// Where pages of the object have become private: how many locks stay in the list, of those that it had and `from` of
    /// which were to stay. One that lies beside the gate may be free in the private page only. Listed, it is released by
    /// those who recover the slot, once this process has gone.
    #[cold]
    #[inline(never)]
    fn released_up_to(&self, from: usize) -> usize {
        let last = self.held[from..].iter().rposition(|held| header::is_beside_gate(held.at));
        last.map_or(from, |last| from + last + 1)
    }

    /// A group begins: it gets an age when it first has to wait, and keeps that however often it is restarted.
    #[inline]
    pub(crate) fn begin_group(&mut self) {
        self.in_group = true;
    }

    /// The group has ended.
    #[inline]
    pub(crate) fn end_group(&mut self, segment: &Segment) {
        self.in_group = false;
        if self.age != 0 {
            self.age = 0;
            segment.store(self.base.word(slot::W_AGE), 0);
        }
    }

    /// Publishes the age of a group that has to wait.
    pub(super) fn publish_age(&mut self, segment: &Segment) {
        if self.in_group && self.age == 0 {
            self.age = time::monotonic_ns().max(1);
            segment.store(self.base.word(slot::W_AGE), self.age);
        }
    }

    /// Position of a lock in the list, if it is held.
    pub(crate) fn position(&self, at: Offset) -> Option<usize> {
        self.held.iter().rposition(|h| h.at == at)
    }

    pub(crate) fn holds_gate(&self) -> bool {
        self.position(header::GATE).is_some()
    }
}
