//! Slices of arrays.
//!
//! Owns that a slice is of one moment, read without locks or under them, and which way one is written.

use super::Array;
use crate::engine::Rounds;
use crate::error::{Error, Result};
use crate::format::Offset;
use crate::format::array::{Geometry, Layout, MAX_LENGTH};
use crate::format::lock_word::LockWord;
use crate::hashtbl::Quick;
use crate::index::find::{self, Found, Obstacle, Seen};
use crate::segment::Segment;
use crate::segment::copy::Caching;
use crate::txn::{TableView, array, fast_slice, growth, ops};
use crate::writer::Writer;
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// From so many chunks on a slice makes the index grow before it is written.
const MANY_CHUNKS: u64 = 32;

/// A slice of so many bytes is written past the caches: it would only drive out what is in them.
const PAST_CACHES: usize = 8 << 20;

impl Array {
    /// Copies a slice of elements, each as its encoding, into a buffer whose length says how many: all of them
    /// as they were at one moment.
    ///
    /// A slice is read without locks and read again if somebody changes it meanwhile; if that happens time
    /// after time, its locks are taken. Beside the buffer it needs 16 bytes of memory for each 4 KiB.
    ///
    /// # Errors
    /// [`Error::Range`] if not all of the slice is inside of the array; [`Error::Type`] if elements are not of a
    /// fixed size of at most 256 bytes, [`Error::Invalid`] if the buffer is not for whole elements; else those
    /// of [`get`](Array::get).
    pub fn read(&self, first: u64, into: &mut [u8]) -> Result<()> {
        // SAFETY: bytes that are initialised are valid as bytes that need not be, and `read_raw` writes bytes only.
        let into = unsafe { &mut *(std::ptr::from_mut(into) as *mut [MaybeUninit<u8>]) };
        self.read_raw(first, into)
    }

    /// As [`read`](Array::read), into memory that may be uninitialised; if it succeeds, all of it is initialised.
    ///
    /// # Errors
    /// Those of [`read`](Array::read).
    pub fn read_raw(&self, first: u64, into: &mut [MaybeUninit<u8>]) -> Result<()> {
        let (g, count) = self.slice_of(into.len())?;
        if count == 0 || first.saturating_add(count) > MAX_LENGTH {
            return if first <= self.length()? && count == 0 { Ok(()) } else { Err(Error::Range) };
        }
        if self.cells.table.group_is_open()? {
            return self.cells.in_group(|w, table| read_locked(w, table, g, first, count, into));
        }
        let (engine, patience) = (&*self.cells.table.engine, self.cells.table.patience());
        // How often a slice is read in vain before its locks are taken: about as often as a small value.
        let most = (2000 / (1 + count / g.per_chunk)).clamp(4, 2000) as u32;
        let mut rounds = Rounds::default();
        loop {
            let obstacle = match self.read_attempt(g, first, count, into) {
                Ok(result) => return result,
                Err(obstacle) => obstacle,
            };
            if rounds.all > most
                && matches!(obstacle, Obstacle::Changed | Obstacle::Stale)
                && engine.is_writable()
            {
                return self.transact(|w, table| read_locked(w, table, g, first, count, into));
            }
            engine.overcome(self.view(), obstacle, &mut rounds, patience)?;
        }
    }

    /// Copies a slice once, without a lock.
    fn read_attempt(
        &self,
        g: &Geometry,
        first: u64,
        count: u64,
        into: &mut [MaybeUninit<u8>],
    ) -> std::result::Result<Result<()>, Obstacle> {
        let (segment, table) = (self.segment(), self.view());
        let version = table.roots.version();
        let default = array::check_range(segment, table, first, count)
            .and_then(|()| array::default_value(segment, table, &self.layout));
        segment.fence_acquire();
        if !table.roots.is_current(segment, version) {
            return Err(Obstacle::Stale);
        }
        let default = match default {
            Ok(default) => default,
            Err(e) => return Ok(Err(e)),
        };
        let last = g.place(first + count - 1).chunk;
        let mut all_seen = SmallVec::<[_; 8]>::new();
        for part in array::parts(g, first, count) {
            array::look_ahead(segment, table, g, part.chunk, last);
            let (from, to) = part.bytes(g);
            let (found, seen) = sight_of(segment, table, part.chunk)?;
            if seen.roots_version != version {
                return Err(Obstacle::Stale);
            }
            all_seen.push((seen.bucket, seen.word));
            match array::value_found(g, found) {
                Ok(value) => {
                    array::copy_part(segment, g, value, part, &default, &mut into[from..to]);
                }
                // Only if this bucket is as it was seen, the chunk is wrong.
                Err(e) => return is_of_one_moment(segment, table, version, &all_seen).map(|()| Err(e)),
            }
        }
        is_of_one_moment(segment, table, version, &all_seen).map(Ok)
    }

    /// Sets a slice of elements, whose encodings lie one after the other, in one transaction.
    ///
    /// It takes the locks of the whole slice, in an order common to all slices. The new values are written
    /// beside the old ones, whose memory is free afterwards; about 1 MB of it stays with this thread for its next
    /// slice. A thread that writes long slices within ten seconds of each other keeps as much as the longest (64 MB at
    /// most), if as much is left for others, until it does something else, such as a group, or ends. Beside that it
    /// needs about 100 bytes for each 4 KiB.
    ///
    /// # Errors
    /// Those of [`read`](Array::read) and [`set`](Array::set); nothing is changed then.
    pub fn write(&self, first: u64, values: &[u8]) -> Result<()> {
        let (g, count) = self.slice_of(values.len())?;
        if count == 0 || first.saturating_add(count) > MAX_LENGTH {
            return if first <= self.length()? && count == 0 { Ok(()) } else { Err(Error::Range) };
        }
        let caching = if values.len() >= PAST_CACHES { Caching::Past } else { Caching::Through };
        if self.write_quickly(g, first, values, caching) {
            return Ok(());
        }
        let chunks = count / g.per_chunk;
        if chunks >= MANY_CHUNKS {
            let all = self.length()? / g.per_chunk + 1;
            let now = growth::rough_count(self.segment(), self.view().roots.root());
            self.cells.grow_for(all.min(now.saturating_add(chunks)))?;
        }
        self.transact(|w, table| {
            let mut checked = false;
            for part in array::parts_in_lock_order(table, g, first, count) {
                let (from, to) = part.bytes(g);
                array::write_part(w, table, g, part, &values[from..to], caching)?;
                if !std::mem::replace(&mut checked, true) {
                    // The first part's lock keeps the length as it is.
                    array::check_range(w, table, first, count)?;
                }
            }
            Ok(())
        })
    }

    /// The short way of `write` alone.
    fn write_quickly(&self, g: &Geometry, first: u64, values: &[u8], caching: Caching) -> bool {
        let done =
            self.cells.change_quickly(|w, table| fast_slice::write(w, table, g, first, values, caching));
        if let Quick::DoneWithChores(()) = done {
            self.do_chores();
        }
        !matches!(done, Quick::NotDone)
    }

    /// How many elements a buffer is for.
    fn slice_of(&self, bytes: usize) -> Result<(&Geometry, u64)> {
        let g = self.chunks()?;
        if bytes as u64 % g.element_bytes != 0 {
            return Err(Error::Invalid { argument: "buf", reason: "it is not for whole elements" });
        }
        Ok((g, bytes as u64 / g.element_bytes))
    }

    /// Bytes of an element in a slice.
    ///
    /// # Errors
    /// [`Error::Type`] if the elements cannot be read in slices.
    pub(crate) fn element_bytes(&self) -> Result<u64> {
        self.chunks().map(|g| g.element_bytes)
    }
}

/// Where a chunk is, as far as a look without a lock tells.
#[inline(always)]
fn sight_of(
    segment: &Segment,
    table: &TableView,
    chunk: u64,
) -> std::result::Result<(Option<Found>, Seen), Obstacle> {
    let key = chunk.to_le_bytes();
    let hash = table.key_hash.hash(&key);
    match find::quick_lookup(segment, &table.roots, hash, &key) {
        Some(sight) => Ok((sight.found, sight.seen)),
        None => find::attempt(segment, &table.roots, hash, &key, |_, found| found),
    }
}

/// Are all buckets as they were seen before their parts were copied, so that all parts are of one moment?
fn is_of_one_moment(
    segment: &Segment,
    table: &TableView,
    version: u64,
    all_seen: &[(Offset, LockWord)],
) -> std::result::Result<(), Obstacle> {
    segment.fence_acquire();
    let unchanged =
        |&(bucket, word): &(_, LockWord)| word.unchanged_for_readers(LockWord(segment.load(bucket)));
    if !all_seen.iter().all(unchanged) {
        return Err(Obstacle::Changed);
    }
    if table.roots.is_current(segment, version) { Ok(()) } else { Err(Obstacle::Stale) }
}

/// Copies a slice with its locks held, and with the plans of this transaction.
fn read_locked(
    w: &mut Writer,
    table: &TableView,
    g: &Geometry,
    first: u64,
    count: u64,
    into: &mut [MaybeUninit<u8>],
) -> Result<()> {
    let mut default = None;
    for part in array::parts_in_lock_order(table, g, first, count) {
        let key = part.chunk.to_le_bytes();
        let at = ops::at(w, table, &key)?;
        let value = array::value_at(g, at.hit)?;
        let default = match &default {
            Some(default) => default,
            None => {
                array::check_range(w, table, first, count)?;
                default.insert(array::default_value(w, table, &Layout::Chunks(*g))?)
            }
        };
        let (from, to) = part.bytes(g);
        array::copy_planned_part(w, g, value, part, default, &mut into[from..to]);
    }
    Ok(())
}
