//! Changing a hash table: what users call, and the choice of the way.
//!
//! A change goes the short way where that fits; else it is a transaction of its own, or part of the group if one is
//! open on this thread.

use super::{HashTable, Update};
use crate::engine::sessions::{Seated, Taken};
use crate::error::{Error, Result};
use crate::group;
use crate::index::find;
use crate::lock::Patience;
use crate::segment::lot::Lot;
use crate::txn::cursor::buffer;
use crate::txn::fast_update::{Compared, Updated};
use crate::txn::{self, TableView, fast, fast_bind, fast_update, growth, in_group, ops, stack};
use crate::writer::Writer;
use std::cell::Cell;
use std::ops::Deref;

/// How an attempt to do something by the short way ended.
pub(crate) enum Quick<R> {
    Done(R),
    /// Done, and `do_chores` should follow.
    DoneWithChores(R),
    /// Nothing has happened: the general way is to be taken.
    NotDone,
}

impl HashTable {
    /// Puts a binding on top of those that the key has; they are hidden, not removed.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooLarge`], [`Error::Timeout`], [`Error::Deadlock`] in a group,
    /// [`Error::ReadOnly`].
    #[inline]
    pub fn add(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(
            |w, table| fast_bind::add(w, table, key, value),
            |w, table| ops::at(w, table, key)?.add(w, table, value),
        )
    }

    /// Replaces the newest binding of the key, or adds one.
    ///
    /// # Errors
    /// Those of [`add`](HashTable::add).
    #[inline]
    pub fn replace(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if let (Ok(usual), true) = (key.try_into(), Lot::fits(value.len())) {
            match self.replace_usual(usual, value) {
                Quick::Done(()) => return Ok(()),
                Quick::DoneWithChores(()) => {
                    self.do_chores();
                    return Ok(());
                }
                Quick::NotDone => {}
            }
        }
        self.change(
            |w, table| fast::replace(w, table, key, value),
            |w, table| ops::at(w, table, key)?.replace(w, table, value),
        )
    }

    /// Binds a key that has no binding yet.
    ///
    /// # Errors
    /// [`Error::Exists`] if it has one; else those of [`add`](HashTable::add).
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(
            |w, table| fast_bind::insert(w, table, key, value),
            |w, table| {
                let at = ops::at(w, table, key)?;
                if at.hit.is_some() { Err(Error::Exists) } else { at.add(w, table, value) }
            },
        )
    }

    /// Removes the newest binding of the key, so that the one before it shows. Tells whether there was one.
    ///
    /// # Errors
    /// Those of [`add`](HashTable::add).
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        self.change(
            |w, table| fast_bind::remove(w, table, key),
            |w, table| ops::at(w, table, key)?.remove(w, table),
        )
    }

    /// Adds to the integer that is bound to the key, 8 bytes little-endian, and gives the sum. A key without
    /// binding gets `initial + delta`.
    ///
    /// # Errors
    /// [`Error::Overflow`], and nothing is changed; [`Error::Type`] if the value is not of 8 bytes; else
    /// those of [`add`](HashTable::add).
    #[inline]
    pub fn increment(&self, key: &[u8], delta: i64, initial: i64) -> Result<i64> {
        self.change(
            |w, table| fast::increment(w, table, key, delta),
            |w, table| {
                let at = ops::at(w, table, key)?;
                let old = match at.value() {
                    None => initial,
                    Some((value, 8)) => {
                        let mut bytes = [0; 8];
                        ops::read_value(w, value, 8, &mut bytes);
                        i64::from_le_bytes(bytes)
                    }
                    Some((_, len)) => {
                        return Err(Error::Type {
                            asked: "an integer of 8 bytes".into(),
                            recorded: format!("a value of {len} bytes"),
                        });
                    }
                };
                let sum = old.checked_add(delta).ok_or(Error::Overflow)?;
                at.replace(w, table, &sum.to_le_bytes())?;
                Ok(sum)
            },
        )
    }

    /// Replaces the newest binding if it equals `old`.
    ///
    /// # Errors
    /// [`Error::Changed`] if it does not, [`Error::NotFound`] if there is none; else those of
    /// [`add`](HashTable::add).
    pub fn compare_and_replace(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<()> {
        let compared = self.change(
            |w, table| fast_update::compare_and_replace(w, table, key, old, new),
            |w, table| {
                let at = ops::at(w, table, key)?;
                let Some((value, len)) = at.value() else { return Ok(Compared::Absent) };
                if len != old.len() as u64 {
                    return Ok(Compared::Different);
                }
                let mut now = vec![0; old.len()];
                ops::read_value(w, value, len, &mut now);
                if now != old {
                    return Ok(Compared::Different);
                }
                at.replace(w, table, new).map(|()| Compared::Equal)
            },
        )?;
        match compared {
            Compared::Equal => Ok(()),
            Compared::Different => Err(Error::Changed),
            Compared::Absent => Err(Error::NotFound),
        }
    }

    /// Calls `update` once, under the key's lock, with the newest binding, and does what it answers. In the
    /// callback, changing the object and all that belongs to a group is [`Error::InCallback`]; finding outside of
    /// groups shows what was there before.
    ///
    /// # Errors
    /// Those of [`add`](HashTable::add); nothing is changed if the callback panics.
    pub fn update(&self, key: &[u8], update: impl FnOnce(Option<&[u8]>) -> Update) -> Result<()> {
        self.try_update(key, |old| Ok(update(old)))
    }

    /// Like [`update`](HashTable::update), with a callback that may fail; nothing is changed then.
    ///
    /// # Errors
    /// The callback's, and those of [`update`](HashTable::update).
    pub fn try_update(&self, key: &[u8], update: impl FnOnce(Option<&[u8]>) -> Result<Update>) -> Result<()> {
        self.try_update_by(key, update)
    }

    /// The same for values of any form.
    #[inline]
    pub(crate) fn try_update_by<V: Deref<Target = [u8]>>(
        &self,
        key: &[u8],
        update: impl FnOnce(Option<&[u8]>) -> Result<Update<V>>,
    ) -> Result<()> {
        let mut failure = None;
        let outcome = self.update_by(key, |old| {
            update(old).unwrap_or_else(|e| {
                failure = Some(e);
                Update::Keep
            })
        });
        match (outcome, failure) {
            (Err(Error::Forked), _) => Err(Error::Forked),
            (_, Some(e)) => Err(e),
            (outcome, None) => outcome,
        }
    }

    /// The same with a callback that cannot fail.
    #[inline]
    fn update_by<V: Deref<Target = [u8]>>(
        &self,
        key: &[u8],
        update: impl FnOnce(Option<&[u8]>) -> Update<V>,
    ) -> Result<()> {
        // Both ways may call it, and one does.
        let update = Cell::new(Some(update));
        let call = |old: Option<&[u8]>| update.take().map_or(Update::Keep, |update| update(old));
        let outcome: Updated = self.change(
            |w, table| fast_update::update(w, table, key, |old| call(Some(old))),
            |w, table| {
                let at = ops::at(w, table, key)?;
                let old = match at.value() {
                    None => None,
                    Some((value, len)) => {
                        let mut bytes = buffer(len)?;
                        ops::read_value(w, value, len, &mut bytes);
                        Some(bytes)
                    }
                };
                let answer = call(old.as_deref());
                if w.is_forked() {
                    // In the callback. The lock and the slot are the parent's.
                    return Err(Error::Forked);
                }
                at.answer(w, table, answer).map(Ok)
            },
        )?;
        outcome.map_err(|e| *e)
    }

    /// The short way of `compare_and_replace` alone.
    #[inline(always)]
    pub(crate) fn compare_quickly(&self, key: &[u8], old: &[u8], new: &[u8]) -> Quick<Compared> {
        let Some(mut seat) = self.table.engine.take_seat() else { return Quick::NotDone };
        // What waits for nobody needs no patience.
        let mut w = seat.writer(Patience::Try);
        let done = fast_update::compare_and_replace(&mut w, &self.table.view, key, old, new);
        self.quick_outcome(&w, done)
    }

    /// The short way of `update` alone.
    #[inline(always)]
    pub(crate) fn update_quickly<V: Deref<Target = [u8]>>(
        &self,
        key: &[u8],
        update: impl FnOnce(&[u8]) -> Update<V>,
    ) -> Quick<Updated> {
        self.change_quickly(|w, table| fast_update::update(w, table, key, update))
    }

    /// Calls `update` under the key's lock with each binding of the key, newest first, until it gives `None`, and
    /// then does all that it has answered, as one change. Any binding of the stack can be replaced or removed, not
    /// only the newest. What the callback may do is as with [`update`](HashTable::update).
    ///
    /// # Errors
    /// The callback's, and those of [`add`](HashTable::add). Nothing is changed then, and neither if the callback
    /// panics.
    pub fn update_stack(
        &self,
        key: &[u8],
        mut update: impl FnMut(&[u8]) -> Result<Option<Update>>,
    ) -> Result<()> {
        self.change(
            |_, _| None,
            |w, table| {
                let at = ops::at(w, table, key)?;
                stack::rewrite(w, table, &at, &mut update)
            },
        )
    }

    /// Makes a change: by the short way or, where that does not fit, by a transaction of its own; in the
    /// group if one is open on this thread.
    #[inline(always)]
    pub(crate) fn change<R>(
        &self,
        short: impl FnOnce(&mut Writer, &TableView) -> Option<R>,
        general: impl FnOnce(&mut Writer, &TableView) -> Result<R>,
    ) -> Result<R> {
        match self.change_quickly(short) {
            Quick::Done(result) => Ok(result),
            Quick::DoneWithChores(result) => {
                self.do_chores();
                Ok(result)
            }
            Quick::NotDone => self.change_generally(general),
        }
    }

    #[inline(always)]
    pub(crate) fn change_quickly<R>(
        &self,
        short: impl FnOnce(&mut Writer, &TableView) -> Option<R>,
    ) -> Quick<R> {
        let Some(mut seat) = self.table.engine.take_seat() else { return Quick::NotDone };
        let mut w = seat.writer(self.table.patience());
        let done = short(&mut w, &self.table.view);
        self.quick_outcome(&w, done)
    }

    /// How the short way of a change ended.
    #[inline(always)]
    fn quick_outcome<R>(&self, w: &Writer, done: Option<R>) -> Quick<R> {
        match done {
            None => Quick::NotDone,
            Some(result) if fast::has_chores(w, &self.table.view) => Quick::DoneWithChores(result),
            Some(result) => Quick::Done(result),
        }
    }

    /// What an operation has left to be done.
    #[cold]
    #[inline(never)]
    pub(crate) fn do_chores(&self) {
        let engine = &*self.table.engine;
        if let Some(mut seat) = engine.take_seat() {
            fast::chores(&mut seat.writer(self.table.patience()), &self.table.view);
        }
    }

    /// The short way of `add` alone.
    #[inline(always)]
    pub(crate) fn add_quickly(&self, key: &[u8], value: &[u8]) -> Quick<()> {
        // Not by `change_quickly`: a closure would become a function of its own.
        let Some(mut seat) = self.table.engine.take_seat() else { return Quick::NotDone };
        let mut w = seat.writer(self.table.patience());
        let done = fast_bind::add(&mut w, &self.table.view, key, value);
        self.quick_outcome(&w, done)
    }

    /// The short way of `replace`, alone or in a group.
    #[inline(always)]
    pub(crate) fn replace_quickly(&self, key: &[u8], value: &[u8]) -> Quick<()> {
        let Some(mut seat) = self.table.engine.take_seat() else { return self.replaced_in_group(key, value) };
        let mut w = seat.writer(self.table.patience());
        let done = fast::replace(&mut w, &self.table.view, key, value);
        self.quick_outcome(&w, done)
    }

    /// The same for a key of 16 bytes and a value that is a [`Lot`], which has a value of this length in its bucket or
    /// none.
    #[inline(always)]
    pub(crate) fn replace_usual(&self, key: &[u8; 16], value: &[u8]) -> Quick<()> {
        let Some(mut seat) = self.table.engine.take_seat() else { return self.replaced_in_group(key, value) };
        let table = &*self.table.view;
        let Some(hash) = table.key_hash.hash_usual(key) else { return Quick::NotDone };
        // What waits for nobody needs no patience.
        let mut w = seat.writer(Patience::Try);
        let Some(sight) = find::lookup_in_bucket(w.segment, &table.roots, hash, key) else {
            return Quick::NotDone;
        };
        let Some(found) = sight.found else { return self.insert_seated(seat, key, value) };
        // Not before: calls would not keep it in registers. Without a closure, as in `add_quickly`.
        let Some(lot) = Lot::of(value) else { return Quick::NotDone };
        let done = fast::overwrite_by_lot(&mut w, &sight, &found, &lot);
        self.quick_outcome(&w, done)
    }

    /// Where it was found late that something is going on in the session: a group, perhaps.
    #[cold]
    #[inline(never)]
    fn replaced_in_group(&self, key: &[u8], value: &[u8]) -> Quick<()> {
        if self.replace_in_group(key, value) { Quick::Done(()) } else { Quick::NotDone }
    }

    /// The short way of `insert`, for callers that seldom need it: what has been looked up is looked up again, so that it need
    /// not be kept in memory for those who do not.
    #[inline(never)]
    fn insert_seated(&self, mut seat: Seated<'_>, key: &[u8], value: &[u8]) -> Quick<()> {
        let mut w = seat.writer(self.table.patience());
        let done = fast_bind::insert(&mut w, &self.table.view, key, value);
        self.quick_outcome(&w, done)
    }

    /// The short way of `replace` in the group that is open on this thread, for a value of the same, small length.
    #[inline(always)]
    pub(crate) fn replace_in_group(&self, key: &[u8], value: &[u8]) -> bool {
        let Taken::InGroup(mut seat) = self.table.engine.take_group() else { return false };
        let mut w = seat.writer(Patience::Try);
        in_group::replace(&mut w, &self.table.view, key, value).is_some()
    }

    /// The short way of `increment` alone.
    #[inline(always)]
    pub(crate) fn increment_quickly(&self, key: &[u8], delta: i64) -> Quick<i64> {
        let Some(mut seat) = self.table.engine.take_seat() else { return Quick::NotDone };
        // What waits for nobody needs no patience.
        let mut w = seat.writer(Patience::Try);
        let done = fast::increment(&mut w, &self.table.view, key, delta);
        self.quick_outcome(&w, done)
    }

    /// The short way of `remove` alone.
    #[inline(always)]
    pub(crate) fn remove_quickly(&self, key: &[u8]) -> Quick<bool> {
        self.change_quickly(|w, table| fast_bind::remove(w, table, key))
    }

    /// The short way of `increment` in a group, for a key that has a binding.
    #[inline(never)]
    pub(crate) fn increment_in_group(&self, key: &[u8], delta: i64) -> Option<i64> {
        let Taken::InGroup(mut seat) = self.table.engine.take_group() else { return None };
        in_group::increment(&mut seat.writer(Patience::Try), &self.table.view, key, delta)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn change_generally<R>(
        &self,
        general: impl FnOnce(&mut Writer, &TableView) -> Result<R>,
    ) -> Result<R> {
        let engine = &*self.table.engine;
        let patience = self.table.patience();
        let mut entered = engine.enter(patience)?;
        if entered.in_group() {
            return group::operate(&mut entered, patience, |w| {
                let before = growth::added(w, &self.table.view);
                let result = general(w, &self.table.view)?;
                growth::permit_for_group(w, &self.table.view, before)?;
                Ok(result)
            });
        }
        let mut w = entered.writer(patience);
        let result = txn::alone(&mut w, |w| general(w, &self.table.view))?;
        growth::report_commit(&mut w);
        fast::chores(&mut w, &self.table.view);
        Ok(result)
    }

    /// Makes room for keys that are about to be added, unless a group is open on this thread.
    pub(crate) fn grow_for(&self, keys: u64) -> Result<()> {
        let engine = &*self.table.engine;
        let patience = self.table.patience();
        let mut entered = engine.enter(patience)?;
        if entered.in_group() {
            return Ok(());
        }
        growth::grow_for(&mut entered.writer(patience), &self.table.view, keys)
    }
}
