//! Cursors: walking over a table without callbacks.

use crate::engine::{Engine, Rounds};
use crate::error::{Error, Result};
use crate::group;
use crate::hashtbl::HashTable;
use crate::txn;
use crate::txn::cursor::{Batch, Binding, Part, Position, attempt, read_under_gate};
use crate::txn::fast_walk::{Ahead, copy_bucket};
use std::borrow::Cow;

/// A walk over a table; see [`Bindings`](crate::Bindings) for what it sees.
pub(crate) struct Cursor<'t> {
    table: Cow<'t, HashTable>,
    part: Part,
    position: Position,
    ahead: Ahead,
    /// The bucket read last.
    bindings: Batch,
    failed: bool,
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("part", &self.part).field("position", &self.position).finish()
    }
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(table: &'t HashTable, part: Part) -> Cursor<'t> {
        Cursor::over(Cow::Borrowed(table), part)
    }

    fn over(table: Cow<'t, HashTable>, part: Part) -> Cursor<'t> {
        let (position, ahead, bindings) = (Position::START, Ahead::default(), Batch::default());
        Cursor { table, part, position, ahead, bindings, failed: false }
    }

    /// Reads buckets, the next one not the short way, until there is a binding.
    fn fill(&mut self) -> Result<()> {
        while !self.position.is_end() {
            let read = match self.table.table.group_is_open() {
                Ok(true) => self.read_in_group(),
                Ok(false) => self.read_alone(),
                Err(e) => Err(e),
            };
            match read {
                Ok(position) => self.position = position,
                Err(e) => {
                    // What a reading that failed has left was not validated.
                    self.bindings.clear();
                    return Err(e);
                }
            }
            if self.read_quickly() {
                break;
            }
        }
        Ok(())
    }

    /// Reads buckets the short way until there is a binding. False: none is left, or a group is open, or the next bucket has
    /// something unusual.
    #[inline(never)]
    fn read_quickly(&mut self) -> bool {
        match self.part {
            Part::Bindings => self.read_buckets::<true>(),
            Part::Keys => self.read_buckets::<false>(),
        }
    }

    #[inline(always)]
    fn read_buckets<const VALUES: bool>(&mut self) -> bool {
        let engine: &Engine = &self.table.table.engine;
        let view = &self.table.table.view;
        while self.bindings.is_used_up() {
            if self.position.is_end() || engine.groups.any_open() {
                return false;
            }
            let (ahead, into) = (&mut self.ahead, &mut self.bindings);
            match copy_bucket::<VALUES>(&engine.segment, view, ahead, self.position, into) {
                Some(position) => self.position = position,
                None => {
                    // It was not validated.
                    self.bindings.clear();
                    return false;
                }
            }
        }
        true
    }

    fn read_in_group(&mut self) -> Result<Position> {
        let table = &self.table.table;
        let patience = table.patience();
        let engine: &Engine = &table.engine;
        let mut entered = engine.enter(patience)?;
        let (position, part, into) = (self.position, self.part, &mut self.bindings);
        let view = &table.view;
        group::operate(&mut entered, patience, |w| {
            txn::reserve_lock(w)?;
            w.lock_gate()?;
            read_under_gate(w, view, position, part, into)
        })
    }

    fn read_alone(&mut self) -> Result<Position> {
        let table = &self.table.table;
        let patience = table.patience();
        let engine: &Engine = &table.engine;
        let view = &table.view;
        let mut rounds = Rounds::default();
        loop {
            let obstacle = match attempt(&engine.segment, view, self.position, self.part, &mut self.bindings)
            {
                Ok(position) => return Ok(position),
                Err(obstacle) => obstacle,
            };
            if rounds.all > 2000 && engine.is_writable() {
                // Writers are always faster: keep them out, for once.
                let mut entered = engine.enter(patience)?;
                let mut w = entered.writer(patience);
                return txn::alone(&mut w, |w| {
                    w.lock_gate()?;
                    read_under_gate(w, view, self.position, self.part, &mut self.bindings)
                });
            }
            engine.overcome(view, obstacle, &mut rounds, patience)?;
        }
    }
}

impl Cursor<'static> {
    /// A cursor that keeps its table open by itself.
    pub(crate) fn owning(table: HashTable, part: Part) -> Cursor<'static> {
        Cursor::over(Cow::Owned(table), part)
    }
}

impl Cursor<'_> {
    /// The next binding, if it has been read or can be read the short way. There is nothing that could panic.
    #[inline(always)]
    pub(crate) fn advance_quickly(&mut self) -> Option<Binding<'_>> {
        if self.is_ready() { self.bindings.take() } else { None }
    }

    /// Is there a binding, perhaps because the next bucket can be read the short way?
    #[inline(always)]
    fn is_ready(&mut self) -> bool {
        !self.bindings.is_used_up() || !self.failed && self.read_quickly()
    }

    /// Moves to the next binding, which is there until the next call.
    #[inline(always)]
    pub(crate) fn advance(&mut self) -> Option<Result<Binding<'_>>> {
        if !self.is_ready() {
            if let Some(e) = self.read_next() {
                return Some(Err(e));
            }
        }
        self.bindings.take().map(Ok)
    }

    /// Reads what comes next, if the walk goes on.
    #[cold]
    #[inline(never)]
    fn read_next(&mut self) -> Option<Error> {
        if self.failed {
            return None;
        }
        let e = self.fill().err()?;
        // A failed walk would miss bindings if it went on; a time-out may be tried again.
        self.failed = !matches!(e, Error::Timeout { .. } | Error::InCallback);
        Some(e)
    }
}

/// Iterator over all bindings of a table.
///
/// Nothing is locked between two items. A binding that is there from beginning to end is seen exactly once,
/// one that is made or removed meanwhile at most once. If it begins inside of a group, it sees the group's
/// view, other writers wait until the group ends, and it ends with the group.
#[derive(Debug)]
pub struct Bindings<'t>(pub(crate) Cursor<'t>);

impl Iterator for Bindings<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.advance().map(|item| item.map(|binding| (binding.key.to_vec(), binding.value.to_vec())))
    }
}

/// Iterator over all keys of a table.
#[derive(Debug)]
pub struct Keys<'t>(pub(crate) Cursor<'t>);

impl Iterator for Keys<'_> {
    type Item = Result<Vec<u8>>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.advance().map(|item| item.map(|binding| binding.key.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header;
    use crate::format::lock_word::{LockWord, WRITING};
    use crate::lock::Patience;
    use crate::object::{ManageOptions, OpenOptions};

    /// Goal: a bucket whose reading was ended by a time-out is read again, for what was copied of it has not been
    /// validated. Method: somebody marks the gate WRITING while a walk is on its way, and takes that back later.
    #[test]
    fn a_time_out_leaves_nothing_unvalidated() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table =
            HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(10)).expect("a hash table");
        let all: Vec<Vec<u8>> = (0..500u32).map(|n| n.to_le_bytes().to_vec()).collect();
        all.iter().for_each(|key| table.add(key, b"v").expect("adds"));
        let engine: &Engine = &table.table.engine;
        let me = engine.enter(Patience::Try).expect("a session").writer(Patience::Try).s.p.slot;
        let free = LockWord(engine.segment.load_acquire(header::GATE));
        let mut walk = table.keys();
        let mut seen: Vec<Vec<u8>> = walk.by_ref().take(100).map(|key| key.expect("a key")).collect();
        engine.segment.store(header::GATE, free.locked_by(me, WRITING).0);
        let failure = loop {
            match walk.next().expect("not the end") {
                Ok(key) => seen.push(key),
                Err(e) => break e,
            }
        };
        assert!(matches!(failure, Error::Timeout { .. }), "{failure}");
        engine.segment.store(header::GATE, free.0);
        seen.extend(walk.map(|key| key.expect("a key")));
        seen.sort();
        let mut expected = all;
        expected.sort();
        assert!(seen == expected, "{} keys of {} were seen", seen.len(), expected.len());
    }
}
