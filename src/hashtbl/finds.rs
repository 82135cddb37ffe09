//! Reading one key of a hash table: without a lock or, if a group is open on this thread, as part of it.
//!
//! Owns what happens to a read that meets an obstacle. Where a find puts bytes to memory that the caller has, see
//! `copies`.

use super::HashTable;
use crate::engine::Rounds;
use crate::error::Result;
use crate::index::chain;
use crate::index::find::{self, Found, Obstacle};
use crate::segment::Segment;
use crate::segment::view::View;
use crate::txn::cursor::{buffer, copy_bytes};
use crate::txn::{self, ops};
use crate::writer::Writer;

impl HashTable {
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
                    chain::for_each_binding(segment, f.record, |record, shape| {
                        all.push(copy_value(segment, &Found::new(record, shape))?);
                        Ok(None::<()>)
                    })?;
                    Ok(all)
                }
            },
            |w, at| {
                let mut all = Vec::new();
                if let Some(hit) = at.hit {
                    chain::for_each_binding(w, hit.record(), |record, shape| {
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
        let mut rounds = Rounds::default();
        loop {
            if rounds.all > 2000
                && matches!(obstacle, Obstacle::Changed | Obstacle::Stale)
                && engine.is_writable()
            {
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

/// A copy of a record's value.
fn copy_value(segment: &Segment, found: &Found) -> Result<Vec<u8>> {
    copy_bytes(segment, found.value_at, found.shape.value_len)
}
