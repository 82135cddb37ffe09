//! What a session remembers from one call to the next.
//!
//! Owns the conditions under which that still counts; whoever uses it checks them. It reads nothing of the object.

use super::Session;
use crate::format::Offset;
use crate::format::lock_word::LockWord;
use crate::format::record::Shape;
use crate::segment::view::Pinned;
use smallvec::SmallVec;
use std::ops::Range;

/// Splits that a session is to make, each named by the bucket that it brings to life: those of one table, which are used
/// up before it goes on with those of others.
pub(crate) struct Tickets {
    /// The table's root.
    of: Offset,
    next: Range<u64>,
    /// Those of other tables, which it has left in the middle.
    others: SmallVec<[(Offset, Range<u64>); MOST_TABLES]>,
}

/// Other tables whose splits a session keeps in mind. Those of further ones are lost.
const MOST_TABLES: usize = 4;

impl Tickets {
    pub(super) fn none() -> Tickets {
        Tickets { of: Offset::NONE, next: 0..0, others: SmallVec::new() }
    }

    /// Are there some of this table that it goes on with now?
    #[inline(always)]
    pub(crate) fn are_of(&self, root: Offset) -> bool {
        !self.next.is_empty() && self.of == root
    }

    /// Are there some of this table? Then it goes on with them.
    pub(crate) fn bring_forward(&mut self, root: Offset) -> bool {
        if self.are_of(root) {
            return true;
        }
        let Some(i) = self.others.iter().position(|others| others.0 == root) else { return false };
        let (of, next) = self.others.remove(i);
        self.take_on(of, next);
        true
    }

    /// Takes on some of a table that it has none of, and goes on with them.
    pub(crate) fn take_on(&mut self, root: Offset, tickets: Range<u64>) {
        if !self.next.is_empty() {
            if self.others.len() == MOST_TABLES {
                self.others.remove(0);
            }
            self.others.push((self.of, self.next.clone()));
        }
        (self.of, self.next) = (root, tickets);
    }

    /// The first one of those that it goes on with. The last one makes room for those of another table.
    pub(crate) fn use_first(&mut self) -> Option<u64> {
        let first = self.next.next();
        if self.next.is_empty() {
            self.go_on_with_others();
        }
        first
    }

    /// Forgets those of a table.
    pub(crate) fn discard(&mut self, root: Offset) {
        if self.bring_forward(root) {
            self.go_on_with_others();
        }
    }

    fn go_on_with_others(&mut self) {
        (self.of, self.next) = self.others.pop().unwrap_or((Offset::NONE, 0..0));
    }
}

/// A slot's count of the bindings of a table.
#[derive(Clone, Copy)]
pub(crate) struct Counter {
    /// The table's root.
    pub(crate) root: Offset,
    pub(crate) at: Offset,
    /// The word there.
    pub(crate) word: Pinned<1>,
}

/// A key's binding under a lock that a group holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Address of the table's view, 0: nothing is known.
    pub(crate) table: usize,
    pub(crate) record: Offset,
    pub(crate) value_at: Offset,
    pub(crate) shape: Shape,
    /// The lock's place in the list.
    pub(crate) place: usize,
    /// When it was looked up: see [`Participant::releases`].
    pub(crate) releases: u64,
}

impl Known {
    pub(crate) const NOTHING: Known = Known {
        table: 0,
        record: Offset::NONE,
        value_at: Offset::NONE,
        shape: Shape::new(0, 0),
        place: 0,
        releases: 0,
    };
}

/// A chunk of an array of which the slot has written a part. It is as it was left while the bucket's word says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) chunk: u64,
    /// The part that was written: its first element in the chunk, and the end.
    pub(crate) part: (u64, u64),
    pub(crate) bucket: Offset,
    pub(crate) bucket_index: u64,
    /// The bucket's word when the part had been written.
    pub(crate) word: LockWord,
    pub(crate) roots_version: u64,
    /// The entry that points to the chunk, where that lies, and what the record links to.
    pub(crate) entry: u64,
    pub(crate) entry_at: Offset,
    pub(crate) older: Offset,
    /// The chunk's value.
    pub(crate) value: Offset,
    /// The record in whose place it came, which is in a cell of the slot now: but for the part it holds the same.
    pub(crate) twin: Option<Offset>,
}

/// The slice that the session's last turn has written, if that was the turn before this one: any other may have used the
/// blocks in its cells.
pub(super) struct LastSlice {
    turn: u64,
    /// The array's root.
    array: Offset,
    chunks: SmallVec<[Written; 4]>,
}

impl LastSlice {
    pub(super) fn none() -> LastSlice {
        LastSlice { turn: 0, array: Offset::NONE, chunks: SmallVec::new() }
    }
}

impl Session {
    /// The slice of an array that the turn before this one has written.
    pub(crate) fn last_slice(&self, array: Offset) -> &[Written] {
        let last = &self.last_slice;
        if last.turn + 1 == self.turns && last.array == array { &last.chunks } else { &[] }
    }

    /// Remembers a slice for the next turn.
    pub(crate) fn remember_slice(&mut self, array: Offset, chunks: impl Iterator<Item = Written>) {
        let last = &mut self.last_slice;
        (last.turn, last.array) = (self.turns, array);
        last.chunks.clear();
        last.chunks.extend(chunks);
    }
}
