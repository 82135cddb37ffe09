//! Several keys in one call: as many single operations one after the other, whose waits for memory overlap.
//!
//! Owns the choice of the way for each key. What is unusual about one of them (a long value, a writer in the way,
//! a group, a table that has grown) goes the way of the single call, for this key alone.

use super::copies::Copied;
use super::{HashTable, Quick};
use crate::error::{Error, Result};
use crate::format::record::PUNCHABLE_BYTES;
use crate::index::ahead::Batch;
use crate::index::find::Sight;
use crate::txn::cursor::buffer;
use crate::txn::{TableView, fast, fast_bind};
use crate::writer::Writer;

/// Why several keys were not all stored, and how many were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("after {done} keys: {error}")]
pub struct Stopped {
    /// So many keys, the first ones, are stored. In a group: as far as the group will be committed.
    pub done: usize,
    /// What the next one met.
    #[source]
    pub error: Error,
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Error {
        stopped.error
    }
}

/// Where the values of several keys go.
///
/// # Safety
/// What `room` gives must be valid for writing until the next call.
pub(crate) unsafe trait Places {
    /// Room for the value of the key of this number: where it is, and how many bytes it has.
    fn room(&mut self, number: usize) -> (*mut u8, usize);

    /// The key has a value of this length, which is there if it fits; or none. Tells whether to look again, with
    /// more room.
    fn take(&mut self, number: usize, len: Option<u64>) -> Result<bool>;
}

impl HashTable {
    /// Copies of the newest bindings of several keys, in their order: as many single [`find`](HashTable::find)s,
    /// in less time. Each key is read at a moment of its own, unless a group is open on this thread.
    ///
    /// # Errors
    /// Those of [`find`](HashTable::find).
    pub fn find_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut vectors = Vectors { scratch: vec![0; 256], found: Vec::new() };
        vectors.found.try_reserve_exact(keys.len()).map_err(|_| Error::NoMemory)?;
        self.find_each(keys.iter().map(AsRef::as_ref), &mut vectors)?;
        Ok(vectors.found)
    }

    /// Copies the newest bindings of several keys into one buffer, that of `keys[i]` to byte `i * stride`, and their
    /// lengths, none for a key without binding, to `lens`. Other bytes of the buffer may be changed as well. Else
    /// as [`find_many`](HashTable::find_many), and faster.
    ///
    /// # Errors
    /// [`Error::TooSmall`], some value has more than `stride` bytes: the greatest length is told, all others are
    /// there, and all of `lens`. [`Error::Invalid`] if the buffer has less than `keys.len() * stride` bytes or
    /// `lens` not as many elements as `keys`; else those of [`find`](HashTable::find).
    pub fn find_many_into<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        buffer: &mut [u8],
        stride: usize,
        lens: &mut [Option<u64>],
    ) -> Result<()> {
        let invalid = |argument, reason| Err(Error::Invalid { argument, reason });
        if keys.len().checked_mul(stride).is_none_or(|bytes| bytes > buffer.len()) {
            return invalid("buffer", "it is shorter than the values of all keys");
        }
        if lens.len() != keys.len() {
            return invalid("lens", "it has not as many elements as there are keys");
        }
        let note = |number: usize, len| lens[number] = len;
        // SAFETY: the buffer has room for so many values; it was just looked at.
        let mut strided = unsafe { Strided::new(buffer.as_mut_ptr(), stride, note) };
        self.find_each(keys.iter().map(AsRef::as_ref), &mut strided)?;
        strided.outcome()
    }

    /// Replaces the newest bindings of several keys, in their order, or adds some: as many single
    /// [`replace`](HashTable::replace)s, in less time. Each is a change of its own, unless a group is open on this
    /// thread.
    ///
    /// # Errors
    /// Those of [`replace`](HashTable::replace); it tells how many keys are stored, and the others are not.
    pub fn replace_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        bindings: &[(K, V)],
    ) -> std::result::Result<(), Stopped> {
        self.replace_each(bindings.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))
    }

    /// Adds several bindings, in their order: as many single [`add`](HashTable::add)s. Else as
    /// [`replace_many`](HashTable::replace_many).
    ///
    /// # Errors
    /// Those of [`add`](HashTable::add); it tells how many are stored, and the others are not.
    pub fn add_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        bindings: &[(K, V)],
    ) -> std::result::Result<(), Stopped> {
        self.add_each(bindings.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))
    }

    /// Looks up some keys.
    #[inline(always)]
    pub(crate) fn find_each<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        places: &mut impl Places,
    ) -> Result<()> {
        let mut number = 0;
        self.in_batches(keys.map(|key| (key, ())), |batch| {
            let alone = self.is_alone();
            for i in 0..batch.len() {
                let quick =
                    alone && batch.sight(i).is_some_and(|sight| self.take_quickly(number, &sight, places));
                if !quick {
                    self.find_slowly(number, batch.key(i).0, places)?;
                }
                number += 1;
            }
            Ok(())
        })
    }

    /// Calls `each` with batches of keys that have been looked for. While the records of one are on their way, the
    /// next one takes its first step.
    #[inline(always)]
    fn in_batches<'k, 's, T: Copy + Default, E>(
        &'s self,
        mut keys: impl Iterator<Item = (&'k [u8], T)>,
        mut each: impl FnMut(&Batch<'k, 's, T>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (segment, table) = (&self.table.engine.segment, &*self.table.view);
        let mut first = Batch::new(segment, &table.roots);
        first.take(&table.roots, &table.key_hash, &mut keys);
        first.look();
        if !first.is_full() {
            return each(&first);
        }
        let mut second = Batch::new(segment, &table.roots);
        let (mut now, mut next) = (&mut first, &mut second);
        while now.len() != 0 {
            next.take(&table.roots, &table.key_hash, &mut keys);
            each(now)?;
            next.look();
            std::mem::swap(&mut now, &mut next);
        }
        Ok(())
    }

    /// Is it certain that no group is open on this thread?
    #[inline(always)]
    fn is_alone(&self) -> bool {
        let engine = &*self.table.engine;
        !engine.groups.any_open() || matches!(engine.seat_with_group(), Ok(false))
    }

    /// The short way of one find. False: something is unusual, and nothing was taken.
    #[inline(always)]
    fn take_quickly(&self, number: usize, sight: &Sight, places: &mut impl Places) -> bool {
        let mut len = None;
        if let Some(found) = sight.found {
            let (buffer, capacity) = places.room(number);
            let value_len = found.shape.value_len;
            if value_len > (capacity as u64).min(PUNCHABLE_BYTES - 1) {
                return false;
            }
            // SAFETY: by the promise of `Places`, and the length was just compared; the lookup has checked that the
            // record lies inside of the object.
            unsafe { sight.view.copy_out(found.value_at, buffer, value_len as usize) };
            len = Some(value_len);
        }
        // What fits needs no second look.
        sight.is_valid(&self.table.view.roots) && matches!(places.take(number, len), Ok(false))
    }

    /// The way of the single call, as often as more room is needed.
    #[cold]
    #[inline(never)]
    fn find_slowly(&self, number: usize, key: &[u8], places: &mut impl Places) -> Result<()> {
        loop {
            let (buffer, capacity) = places.room(number);
            // SAFETY: by the promise of `Places`.
            let len = match unsafe { self.copy_value(key, buffer, capacity) } {
                Copied::Whole(len) => Some(len as u64),
                Copied::TooSmall(needed) => Some(needed),
                Copied::Absent => None,
                Copied::Failed(e) => return Err(*e),
            };
            if !places.take(number, len)? {
                return Ok(());
            }
        }
    }

    /// Replaces some bindings.
    #[inline(always)]
    pub(crate) fn replace_each<'k>(
        &self,
        bindings: impl Iterator<Item = (&'k [u8], &'k [u8])>,
    ) -> std::result::Result<(), Stopped> {
        let short = |w: &mut Writer, table: &TableView, _, sight: Sight, key: &[u8], value: &[u8]| {
            fast::replace_seen(w, table, sight, key, value)
        };
        self.store_each(bindings, short, |key, value| match self.replace_quickly(key, value) {
            Quick::Done(()) => Ok(()),
            Quick::DoneWithChores(()) => {
                self.do_chores();
                Ok(())
            }
            Quick::NotDone => self.replace(key, value),
        })
    }

    /// Adds some bindings.
    #[inline(always)]
    pub(crate) fn add_each<'k>(
        &self,
        bindings: impl Iterator<Item = (&'k [u8], &'k [u8])>,
    ) -> std::result::Result<(), Stopped> {
        self.store_each(bindings, fast_bind::add_seen, |key, value| self.add(key, value))
    }

    /// Stores some bindings: by the short way or, where that does not fit, by a single call.
    #[inline(always)]
    fn store_each<'k>(
        &self,
        bindings: impl Iterator<Item = (&'k [u8], &'k [u8])>,
        short: impl Fn(&mut Writer, &TableView, u64, Sight, &[u8], &[u8]) -> Option<()>,
        single: impl Fn(&[u8], &[u8]) -> Result<()>,
    ) -> std::result::Result<(), Stopped> {
        let (engine, table) = (&*self.table.engine, &*self.table.view);
        let mut done = 0;
        self.in_batches(bindings, |batch| {
            let mut seat = engine.take_seat();
            for i in 0..batch.len() {
                let (key, value, hash) = batch.key(i);
                let stored = match (&mut seat, batch.sight(i)) {
                    (Some(seated), Some(sight)) => {
                        let mut w = seated.writer(self.table.patience());
                        let stored = short(&mut w, table, hash, sight, key, value).is_some();
                        if stored && fast::has_chores(&w, table) {
                            fast::chores(&mut w, table);
                            // What these may have left for others in an object that has been cut is not to be written over.
                            if !w.segment.is_whole() {
                                seat = None;
                            }
                        }
                        stored
                    }
                    _ => false,
                };
                if !stored {
                    // The single call takes the seat itself.
                    drop(seat);
                    single(key, value).map_err(|error| Stopped { done, error })?;
                    seat = engine.take_seat();
                }
                done += 1;
            }
            Ok(())
        })
    }
}

/// Values at equal distances.
pub(crate) struct Strided<F> {
    first: *mut u8,
    stride: usize,
    note: F,
    /// The greatest length that did not fit.
    too_long: u64,
}

impl<F: FnMut(usize, Option<u64>)> Strided<F> {
    /// `note` is told the number and the length of each.
    ///
    /// # Safety
    /// `first` must be valid for writing `stride` bytes for each key that will be looked up.
    pub(crate) unsafe fn new(first: *mut u8, stride: usize, note: F) -> Strided<F> {
        Strided { first, stride, note, too_long: 0 }
    }

    /// Did all fit?
    pub(crate) fn outcome(&self) -> Result<()> {
        if self.too_long == 0 { Ok(()) } else { Err(Error::TooSmall { needed: self.too_long }) }
    }
}

// SAFETY: by the promise to `new`, for numbers of keys.
unsafe impl<F: FnMut(usize, Option<u64>)> Places for Strided<F> {
    #[inline(always)]
    fn room(&mut self, number: usize) -> (*mut u8, usize) {
        (self.first.wrapping_add(number * self.stride), self.stride)
    }

    #[inline(always)]
    fn take(&mut self, number: usize, len: Option<u64>) -> Result<bool> {
        if let Some(len) = len.filter(|len| *len > self.stride as u64) {
            self.too_long = self.too_long.max(len);
        }
        (self.note)(number, len);
        Ok(false)
    }
}

/// A vector for each value.
struct Vectors {
    scratch: Vec<u8>,
    found: Vec<Option<Vec<u8>>>,
}

// SAFETY: the scratch is a vector's memory.
unsafe impl Places for Vectors {
    fn room(&mut self, _number: usize) -> (*mut u8, usize) {
        (self.scratch.as_mut_ptr(), self.scratch.len())
    }

    fn take(&mut self, _number: usize, len: Option<u64>) -> Result<bool> {
        let Some(len) = len else {
            self.found.push(None);
            return Ok(false);
        };
        if len > self.scratch.len() as u64 {
            self.scratch = buffer(len)?;
            return Ok(true);
        }
        let mut copy = buffer(len)?;
        copy.copy_from_slice(&self.scratch[..len as usize]);
        self.found.push(Some(copy));
        Ok(false)
    }
}
