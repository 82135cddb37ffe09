//! What a session remembers from one call to the next.
//!
//! Owns the conditions under which that still counts; whoever uses it checks them. It reads nothing of the object.

use super::Session;
use crate::format::Offset;
use crate::format::lock_word::LockWord;
use crate::format::record::Shape;
use crate::segment::view::Pinned;
use smallvec::SmallVec;

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
