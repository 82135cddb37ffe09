//! Hash tables of byte strings: what users call.
//!
//! Owns the choice of the way for each operation: without a lock for finds, the short way for single
//! changes, as part of the group if one is open on this thread.
//!
//! - [`many`]: several keys in one call.
//! - [`watch`]: waiting for change.

pub(crate) mod many;
mod watch;

use crate::cursor::{Bindings, Cursor, Keys};
use crate::engine::sessions::{Seated, Taken};
use crate::error::{Error, Result};
use crate::format::Offset;
use crate::format::record::{PIECE_BYTES, PUNCHABLE_BYTES};
use crate::group;
use crate::index::find::{self, Found, Obstacle};
use crate::lock::Patience;
use crate::object::{ManageOptions, Object};
use crate::segment::Segment;
use crate::segment::view::View;
use crate::table::Table;
use crate::table::{TableKind, TableSpec};
use crate::txn::cursor::{Part, buffer, copy_bytes};
use crate::txn::fast;
use crate::txn::stack::{self, Fate};
use crate::txn::{self, TableView, growth, in_group, ops};
use crate::writer::Writer;

pub use many::Stopped;
pub use watch::Stamp;

/// A hash table that maps byte strings to byte strings; the bindings of a key form a stack.
///
/// Clones share the same table. All threads may use it at once. After a fork the child may go on using it.
#[derive(Clone)]
pub struct HashTable {
    pub(crate) table: Table,
}

impl std::fmt::Debug for HashTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashTable").field("table", &self.table).finish()
    }
}

/// What an update makes of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<V = Vec<u8>> {
    /// Leaves it as it is.
    Keep,
    /// Replaces it, or adds one if there is none.
    Replace(V),
    /// Removes it, so that the one before it shows.
    Remove,
}

impl HashTable {
    /// Views an object as a hash table. An empty object becomes one.
    ///
    /// # Errors
    /// [`Error::Locking`], [`Error::Stale`] if the object holds something else, [`Error::NoSpace`],
    /// [`Error::ReadOnly`] if an empty object is open for reading only.
    pub fn manage(object: &Object, options: &ManageOptions) -> Result<HashTable> {
        // Strings are the same bytes with a type and without.
        let is_raw = |recorded: &str| matches!(recorded, "" | "bytes" | "string");
        let accepts = |recorded: [&str; 2]| recorded.into_iter().all(is_raw);
        let spec = TableSpec { accepts: &accepts, ..TableSpec::of_bytes(TableKind::HashTable) };
        Ok(HashTable { table: object.manage_as(&spec, options)? })
    }

    /// The underlying table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Puts a binding on top of those that the key has; they are hidden, not removed.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooLarge`], [`Error::Timeout`], [`Error::Deadlock`] in a group,
    /// [`Error::ReadOnly`].
    #[inline]
    pub fn add(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(
            |w, table| fast::add(w, table, key, value),
            |w, table| ops::at(w, table, key)?.add(w, table, value),
        )
    }

    /// Replaces the newest binding of the key, or adds one.
    ///
    /// # Errors
    /// Those of [`add`](HashTable::add).
    #[inline]
    pub fn replace(&self, key: &[u8], value: &[u8]) -> Result<()> {
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
            |w, table| fast::add(w, table, key, value),
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
            |w, table| fast::remove(w, table, key),
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
        self.change(
            |_, _| None,
            |w, table| {
                let at = ops::at(w, table, key)?;
                let Some((value, len)) = at.value() else { return Err(Error::NotFound) };
                if len != old.len() as u64 {
                    return Err(Error::Changed);
                }
                let mut now = vec![0; old.len()];
                ops::read_value(w, value, len, &mut now);
                if now != old { Err(Error::Changed) } else { at.replace(w, table, new) }
            },
        )
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
        self.change(
            |_, _| None,
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
                match update(old.as_deref())? {
                    Update::Keep => Ok(()),
                    Update::Replace(value) => at.replace(w, table, &value),
                    Update::Remove => at.remove(w, table).map(|_| ()),
                }
            },
        )
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
                stack::rewrite(w, table, &at, |value| {
                    Ok(update(value)?.map(|answer| match answer {
                        Update::Keep => Fate::Kept,
                        Update::Replace(value) => Fate::Replaced(value),
                        Update::Remove => Fate::Removed,
                    }))
                })
            },
        )
    }

    /// A copy of the newest binding.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Timeout`] if a dead writer is in the way of a read-only handle,
    /// [`Error::NoMemory`].
    pub fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let segment = &self.table.engine.segment;
        self.read(
            key,
            |_, found| found.map(|f| copy_value(segment, &f)).transpose(),
            |w, at| match at.value() {
                None => Ok(None),
                Some((value, len)) => {
                    let mut bytes = buffer(len)?;
                    ops::read_value(w, value, len, &mut bytes);
                    Ok(Some(bytes))
                }
            },
        )?
    }

    /// Copies the newest binding into a buffer and gives its length. Other bytes of the buffer may be
    /// changed as well, also if the call fails.
    ///
    /// # Errors
    /// [`Error::TooSmall`] with the length needed; else those of [`find`](HashTable::find).
    #[inline]
    pub fn find_into(&self, key: &[u8], buffer: &mut [u8]) -> Result<Option<usize>> {
        let capacity = buffer.len();
        // SAFETY: the pointer and the length are those of the slice.
        unsafe { self.find_raw(key, buffer.as_mut_ptr(), capacity) }
    }

    /// As [`find_into`](HashTable::find_into), for a buffer that may be uninitialised.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline]
    pub unsafe fn find_raw(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> Result<Option<usize>> {
        // SAFETY: by the caller's promise.
        match unsafe { self.copy_value(key, buffer, capacity) } {
            Copied::Whole(len) => Ok(Some(len)),
            Copied::Absent => Ok(None),
            Copied::TooSmall(needed) => Err(Error::TooSmall { needed }),
            Copied::Failed(e) => Err(*e),
        }
    }

    /// Copies the newest binding to memory that may be uninitialised.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    unsafe fn copy_value(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> Copied {
        // SAFETY: by the caller's promise.
        let copied = unsafe { self.copy_quickly(key, buffer, capacity) };
        match copied.len() {
            Some(len) => Copied::Whole(len),
            None if copied == QuickCopy::ABSENT => Copied::Absent,
            None => {
                // SAFETY: by the caller's promise.
                match unsafe { self.copy_in_pieces(key, buffer, capacity) }.len() {
                    Some(len) => Copied::Whole(len),
                    // SAFETY: as above.
                    None => unsafe { self.copy_value_slowly(key, buffer, capacity) },
                }
            }
        }
    }

    /// The short way of a find alone.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_quickly(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        let engine = &*self.table.engine;
        if engine.groups.any_open() {
            // SAFETY: by the caller's promise.
            return unsafe { self.copy_among_groups(key, buffer, capacity) };
        }
        // SAFETY: by the caller's promise.
        unsafe { self.copy_without_lock(key, buffer, capacity) }
    }

    /// The short way while a group is open on this thread or, more often, on another one of the process.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[cold]
    #[inline(never)]
    unsafe fn copy_among_groups(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        match self.table.engine.take_any_seat() {
            Taken::InGroup(mut seat) => {
                let mut w = seat.writer(Patience::Try);
                // SAFETY: by the caller's promise.
                return match unsafe { in_group::copy(&mut w, &self.table.view, key, buffer, capacity) } {
                    None => QuickCopy::NOT_DONE,
                    Some(None) => QuickCopy::ABSENT,
                    Some(Some(len)) => QuickCopy(len),
                };
            }
            Taken::None if !matches!(self.table.engine.seat_with_group(), Ok(false)) => {
                return QuickCopy::NOT_DONE;
            }
            Taken::None | Taken::Alone(_) => {}
        }
        // SAFETY: by the caller's promise.
        unsafe { self.copy_without_lock(key, buffer, capacity) }
    }

    /// The short way where no group is open on this thread.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[inline(always)]
    unsafe fn copy_without_lock(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        let engine = &*self.table.engine;
        let roots = &self.table.view.roots;
        let hash = self.table.view.key_hash.hash(key);
        let Some(sight) = find::quick_lookup(&engine.segment, roots, hash, key) else {
            return QuickCopy::NOT_DONE;
        };
        let Some(found) = sight.found else {
            return if sight.is_valid(roots) { QuickCopy::ABSENT } else { QuickCopy::NOT_DONE };
        };
        let len = found.shape.value_len as usize;
        if len > capacity {
            return QuickCopy::NOT_DONE;
        }
        // SAFETY: by the caller's promise, and the length was just compared; the lookup has checked that the record
        // lies inside of the object.
        if !unsafe { sight.view.copy_out_quickly(found.value_at, buffer, len) } {
            return QuickCopy::NOT_DONE;
        }
        if sight.is_valid(roots) { QuickCopy(len) } else { QuickCopy::NOT_DONE }
    }

    /// The same for a long value, by pieces. Before each it makes sure that the record is still in use: so its memory is
    /// in as little danger of being given back as that of a short value.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[cold]
    #[inline(never)]
    unsafe fn copy_in_pieces(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> QuickCopy {
        let engine = &*self.table.engine;
        let roots = &self.table.view.roots;
        let hash = self.table.view.key_hash.hash(key);
        let sight = find::quick_lookup(&engine.segment, roots, hash, key);
        let Some((sight, found)) = sight.and_then(|sight| Some((sight, sight.found?))) else {
            return QuickCopy::NOT_DONE;
        };
        let len = found.shape.value_len as usize;
        if found.shape.value_len < PUNCHABLE_BYTES || len > capacity || engine.groups.any_open() {
            return QuickCopy::NOT_DONE;
        }
        for done in (0..len).step_by(PIECE_BYTES) {
            if !sight.is_valid(roots) {
                return QuickCopy::NOT_DONE;
            }
            let (from, piece) = (found.value_at.add(done as u64), PIECE_BYTES.min(len - done));
            // SAFETY: by the caller's promise; the lookup has checked that the record lies inside of the object.
            unsafe { sight.view.copy_out(from, buffer.add(done), piece) };
        }
        if sight.is_valid(roots) { QuickCopy(len) } else { QuickCopy::NOT_DONE }
    }

    /// The same where something is in the way, or unusual.
    ///
    /// # Safety
    /// `buffer` must be valid for writing `capacity` bytes.
    #[cold]
    #[inline(never)]
    unsafe fn copy_value_slowly(&self, key: &[u8], buffer: *mut u8, capacity: usize) -> Copied {
        let segment = &self.table.engine.segment;
        let too_small = |len| Err(Error::TooSmall { needed: len });
        let result = self.read(
            key,
            move |view, found| match found {
                None => Ok(None),
                Some(f) if f.shape.value_len > capacity as u64 => too_small(f.shape.value_len),
                Some(f) => {
                    let len = f.shape.value_len as usize;
                    // SAFETY: by the caller's promise, and the length was just compared.
                    unsafe { copy_to(segment, view, f.value_at, buffer, len) }.map(|()| Some(len))
                }
            },
            |w, at| match at.value() {
                None => Ok(None),
                Some((_, len)) if len > capacity as u64 => too_small(len),
                Some((value, len)) => {
                    // The caller's memory may be uninitialised: fill it before it becomes a slice.
                    // SAFETY: by the caller's promise, and the length was just compared.
                    let into = unsafe {
                        buffer.write_bytes(0, len as usize);
                        std::slice::from_raw_parts_mut(buffer, len as usize)
                    };
                    ops::read_value(w, value, len, into);
                    Ok(Some(into.len()))
                }
            },
        );
        match result.and_then(|copied| copied) {
            Ok(Some(len)) => Copied::Whole(len),
            Ok(None) => Copied::Absent,
            Err(Error::TooSmall { needed }) => Copied::TooSmall(needed),
            Err(e) => Copied::Failed(Box::new(e)),
        }
    }

    /// Calls `view` with the newest binding; the bytes hold still meanwhile.
    ///
    /// # Errors
    /// Those of [`find`](HashTable::find).
    pub fn view<R>(&self, key: &[u8], view: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.find(key)?.map(|value| view(&value)))
    }

    /// All bindings of the key, newest first.
    ///
    /// # Errors
    /// Those of [`find`](HashTable::find).
    pub fn find_all(&self, key: &[u8]) -> Result<Vec<Vec<u8>>> {
        let segment = &self.table.engine.segment;
        self.read(
            key,
            |_, found| match found {
                None => Ok(Vec::new()),
                Some(f) => {
                    let mut all = Vec::new();
                    crate::index::chain::for_each_binding(segment, f.record, |record, shape| {
                        all.push(copy_value(segment, &Found::new(record, shape))?);
                        Ok(None::<()>)
                    })?;
                    Ok(all)
                }
            },
            |w, at| {
                let mut all = Vec::new();
                if let Some(hit) = at.hit {
                    crate::index::chain::for_each_binding(w, hit.record(), |record, shape| {
                        let mut bytes = buffer(shape.value_len)?;
                        ops::read_value(w, record.add(shape.value_at()), shape.value_len, &mut bytes);
                        all.push(bytes);
                        Ok(None::<()>)
                    })?;
                }
                Ok(all)
            },
        )?
    }

    /// Has the key a binding?
    ///
    /// # Errors
    /// Those of [`find`](HashTable::find).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        self.read(key, |_, found| found.is_some(), |_, at| at.hit.is_some())
    }

    /// Number of bindings, hidden ones counted. In a group it counts what the group has done, and keeps all
    /// other writers out until the group ends.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Deadlock`] in a group, [`Error::Busy`].
    pub fn len(&self) -> Result<u64> {
        let engine = &*self.table.engine;
        if self.table.group_is_open()? {
            return self.in_group(|w, table| {
                txn::reserve_lock(w)?;
                w.lock_gate()?;
                table.refresh(w)?;
                ops::length_under_gate(w, table)
            });
        }
        let patience = self.table.patience();
        let mut rounds = 0;
        loop {
            let obstacle = match txn::cursor::length_attempt(&engine.segment, &self.table.view) {
                Ok(length) => return Ok(length),
                Err(obstacle) => obstacle,
            };
            if rounds > 64 && engine.is_writable() && matches!(obstacle, Obstacle::Changed) {
                break;
            }
            engine.overcome(&self.table.view, obstacle, &mut rounds, patience)?;
        }
        let mut entered = engine.enter(patience)?;
        let mut w = entered.writer(patience);
        txn::alone(&mut w, |w| {
            w.lock_gate()?;
            self.table.view.refresh(w)?;
            ops::length_under_gate(w, &self.table.view)
        })
    }

    /// Has the table no binding?
    ///
    /// # Errors
    /// Those of [`len`](HashTable::len).
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|n| n == 0)
    }

    /// All bindings, in any order of keys; those of one key newest first. See [`Bindings`].
    pub fn iter(&self) -> Bindings<'_> {
        Bindings(Cursor::new(self, Part::Bindings))
    }

    /// Every key once. See [`Bindings`] for what happens to keys that come and go meanwhile.
    pub fn keys(&self) -> Keys<'_> {
        Keys(Cursor::new(self, Part::Keys))
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
        let done = fast::add(&mut w, &self.table.view, key, value);
        self.quick_outcome(&w, done)
    }

    /// The short way of `replace`, alone or in a group.
    #[inline(always)]
    pub(crate) fn replace_quickly(&self, key: &[u8], value: &[u8]) -> Quick<()> {
        let mut seat = match self.table.engine.take_any_seat() {
            Taken::Alone(seat) => seat,
            Taken::InGroup(seat) => {
                return if self.replace_in_group(seat, key, value) {
                    Quick::Done(())
                } else {
                    Quick::NotDone
                };
            }
            Taken::None => return Quick::NotDone,
        };
        let mut w = seat.writer(self.table.patience());
        let done = fast::replace(&mut w, &self.table.view, key, value);
        self.quick_outcome(&w, done)
    }

    /// The short way of `replace` in a group, for a value of the same, small length.
    #[inline(never)]
    fn replace_in_group(&self, mut seat: Seated<'_>, key: &[u8], value: &[u8]) -> bool {
        let mut w = seat.writer(Patience::Try);
        in_group::replace(&mut w, &self.table.view, key, value).is_some()
    }

    /// The short way of `increment` alone.
    #[inline(always)]
    pub(crate) fn increment_quickly(&self, key: &[u8], delta: i64) -> Quick<i64> {
        self.change_quickly(|w, table| fast::increment(w, table, key, delta))
    }

    /// The short way of `remove` alone.
    #[inline(always)]
    pub(crate) fn remove_quickly(&self, key: &[u8]) -> Quick<bool> {
        self.change_quickly(|w, table| fast::remove(w, table, key))
    }

    /// The short way of `increment` in a group, for a key that has a binding.
    #[inline(never)]
    pub(crate) fn increment_in_group(&self, key: &[u8], delta: i64) -> Option<i64> {
        let Taken::InGroup(mut seat) = self.table.engine.take_any_seat() else { return None };
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
                let result = general(w, &self.table.view)?;
                growth::permit_for_group(w, &self.table.view)?;
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

    pub(crate) fn in_group<R>(
        &self,
        operation: impl FnOnce(&mut Writer, &TableView) -> Result<R>,
    ) -> Result<R> {
        let engine = &*self.table.engine;
        let patience = self.table.patience();
        let mut entered = engine.enter(patience)?;
        group::operate(&mut entered, patience, |w| operation(w, &self.table.view))
    }

    /// Reads a key: without a lock, or in the group if one is open on this thread.
    #[inline(always)]
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        take: impl Fn(View<'_>, Option<Found>) -> R + Copy,
        in_group: impl FnOnce(&mut Writer, &ops::At) -> R,
    ) -> Result<R> {
        let engine = &*self.table.engine;
        if engine.groups.any_open() && self.table.group_is_open()? {
            return self.read_in_group(key, in_group);
        }
        let hash = self.table.view.key_hash.hash(key);
        let segment = &engine.segment;
        match find::attempt(segment, &self.table.view.roots, hash, key, take) {
            Ok((result, _)) => Ok(result),
            Err(obstacle) => self.read_again(key, hash, obstacle, take),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_in_group<R>(&self, key: &[u8], read: impl FnOnce(&mut Writer, &ops::At) -> R) -> Result<R> {
        self.in_group(|w, table| {
            let at = ops::at(w, table, key)?;
            Ok(read(w, &at))
        })
    }

    /// Goes on with a read that met an obstacle.
    #[cold]
    #[inline(never)]
    fn read_again<R>(
        &self,
        key: &[u8],
        hash: u64,
        mut obstacle: Obstacle,
        take: impl Fn(View<'_>, Option<Found>) -> R + Copy,
    ) -> Result<R> {
        let engine = &*self.table.engine;
        let segment = &engine.segment;
        let patience = self.table.patience();
        let mut rounds = 0;
        loop {
            if rounds > 2000 && matches!(obstacle, Obstacle::Changed) && engine.is_writable() {
                // Writers are always faster: read under the lock, for once.
                let mut entered = engine.enter(patience)?;
                let mut w = entered.writer(patience);
                return txn::alone(&mut w, |w| {
                    let at = ops::at(w, &self.table.view, key)?;
                    let found = at.hit.map(|hit| Found::new(hit.record(), hit.shape));
                    Ok(take(segment.view(), found))
                });
            }
            engine.overcome(&self.table.view, obstacle, &mut rounds, patience)?;
            match find::attempt(segment, &self.table.view.roots, hash, key, take) {
                Ok((result, _)) => return Ok(result),
                Err(next) => obstacle = next,
            }
        }
    }
}

/// How a copy into the caller's buffer ended.
enum Copied {
    Absent,
    TooSmall(u64),
    Whole(usize),
    Failed(Box<Error>),
}

/// How an attempt to do something by the short way ended.
pub(crate) enum Quick<R> {
    Done(R),
    /// Done, and `do_chores` should follow.
    DoneWithChores(R),
    /// Nothing has happened: the general way is to be taken.
    NotDone,
}

/// How an attempt to copy a value by the short way ended, in one register: the value's length, or what no length is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuickCopy(usize);

impl QuickCopy {
    pub(crate) const ABSENT: QuickCopy = QuickCopy(usize::MAX);
    /// The general way is to be taken.
    pub(crate) const NOT_DONE: QuickCopy = QuickCopy(usize::MAX - 1);

    /// The length of what was copied.
    #[inline(always)]
    pub(crate) fn len(self) -> Option<usize> {
        // Slices have at most isize::MAX bytes.
        if self.0 as isize >= 0 { Some(self.0) } else { None }
    }
}

impl<'t> IntoIterator for &'t HashTable {
    type Item = Result<(Vec<u8>, Vec<u8>)>;
    type IntoIter = Bindings<'t>;
    fn into_iter(self) -> Bindings<'t> {
        self.iter()
    }
}

/// A copy of a record's value.
fn copy_value(segment: &Segment, found: &Found) -> Result<Vec<u8>> {
    copy_bytes(segment, found.value_at, found.shape.value_len)
}

/// Copies a value to the caller's memory.
///
/// # Safety
/// `into` must be valid for writing `len` bytes, and the range must lie inside of the object.
#[inline(always)]
unsafe fn copy_to(segment: &Segment, view: View<'_>, at: Offset, into: *mut u8, len: usize) -> Result<()> {
    if (len as u64) < PUNCHABLE_BYTES {
        // SAFETY: by the caller's promise.
        unsafe { view.copy_out(at, into, len) };
        return Ok(());
    }
    // SAFETY: by the caller's promise.
    unsafe { segment.read_file_raw(at, into, len) }
}
