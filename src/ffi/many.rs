//! Hash tables: several keys in one call.

use super::call::{Fault, Outcome, check_length, guard, out, out_or_null};
use super::error::{Block, NETSHM_E_NOT_FOUND};
use super::hashtbl::{live_raw, netshm_hashtbl, netshm_slice};
use crate::error::Error;
use crate::hashtbl::many::{Places, Stopped, Strided};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::size_of;

/// Gives copies of the newest bindings of several keys.
///
/// This is n times netshm_hashtbl_get() in a fraction of the time: while the memory of one key is waited for, that of
/// others is on its way. Each key is read at a moment of its own; where all are to be read at one moment, call this in a
/// group. A key may occur more than once. netshm_hashtbl_find_many_into() needs no memory, and is faster.
///
/// @param t     The table; safe to use from several threads.
/// @param keys  The keys; may be NULL only if n is 0.
/// @param n     Their number.
/// @param vals  Receives an array of n values, in the order of the keys, in one block with what they point to, to be freed by
///              one netshm_free(). A key without binding has data NULL; an empty value has not. NULL if n is 0.
///
/// @return NETSHM_OK, also if keys have no binding; NETSHM_E_NO_MEMORY; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_find_many(
    t: *mut netshm_hashtbl,
    keys: *const netshm_slice,
    n: usize,
    vals: *mut *mut netshm_slice,
) -> c_int {
    guard(&["t", "keys", "n", "vals"], || {
        // SAFETY: the header asks for a handle and for n keys.
        let (t, keys) = unsafe { (live_raw(t)?, Slices::new(2, keys, n)?) };
        let place = out(4, vals)?;
        let mut block = std::ptr::null_mut();
        if n != 0 {
            let mut values = Packed::new(n)?;
            t.find_each(keys.iter(), &mut values)?;
            block = values.give();
        }
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(block) };
        Ok(())
    })
}

/// Copies the newest bindings of several keys into one buffer of the caller's.
///
/// This is n times netshm_hashtbl_find() in a fraction of the time, see netshm_hashtbl_find_many(). It takes no
/// memory.
///
/// @param t       The table; safe to use from several threads.
/// @param keys    The keys; may be NULL only if n is 0. They must not overlap with buf or lens.
/// @param n       Their number.
/// @param buf     n * stride bytes; the value of keys[i] goes to byte i * stride. May be NULL only if that is 0. What the buffer
///                holds besides is unspecified.
/// @param stride  Bytes for each value.
/// @param lens    Receives n lengths: for each key the full length of its value in bytes, or #NETSHM_E_NOT_FOUND if it
///                has no binding. May be NULL only if n is 0.
///
/// @return NETSHM_OK, also if keys have no binding; NETSHM_E_TOO_SMALL, some lengths are greater than stride: these
///         values are not there, all others are, and all of lens; else the codes of netshm_hashtbl_find(), and buf and lens
///         hold anything then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_find_many_into(
    t: *mut netshm_hashtbl,
    keys: *const netshm_slice,
    n: usize,
    buf: *mut c_void,
    stride: usize,
    lens: *mut i64,
) -> c_int {
    guard(&["t", "keys", "n", "buf", "stride", "lens"], || {
        // SAFETY: the header asks for a handle and for n keys.
        let (t, keys) = unsafe { (live_raw(t)?, Slices::new(2, keys, n)?) };
        let bytes = n.checked_mul(stride).filter(|bytes| *bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or(Fault::Argument(5, "n times as much exceeds half of the address space"))?;
        if buf.is_null() && bytes != 0 {
            return Err(Fault::Null(4));
        }
        if lens.is_null() && n != 0 {
            return Err(Fault::Null(6));
        }
        let first: *mut u8 = if buf.is_null() { std::ptr::dangling_mut() } else { buf.cast() };
        let note = |number: usize, len: Option<u64>| {
            let len = len.map_or(NETSHM_E_NOT_FOUND as i64, |len| len as i64);
            // SAFETY: the header asks for n places.
            unsafe { lens.add(number).write_unaligned(len) };
        };
        // SAFETY: the header asks for a buffer of n * stride bytes.
        let mut strided = unsafe { Strided::new(first, stride, note) };
        t.find_each(keys.iter(), &mut strided)?;
        Ok(strided.outcome()?)
    })
}

/// Replaces the newest bindings of several keys, or adds one to those that have none.
///
/// This is n times netshm_hashtbl_replace() in the order of the keys, in less time: while the memory of one key is
/// waited for, that of others is on its way. Each is a change of its own: others may see some of them before the rest, and if
/// the process is killed, the first ones are done, up to any of them, and the rest is not. Where all are to become one
/// change, call this in a group.
///
/// @param t     The table; safe to use from several threads.
/// @param keys  The keys; may be NULL only if n is 0. Of equal ones the last one counts.
/// @param vals  The value of each; may be NULL only if n is 0.
/// @param n     Their number.
/// @param done  Receives, also if the call fails, how many keys are done: the first ones, and no others. May be NULL.
///
/// @return NETSHM_OK, all are done; else the codes of netshm_hashtbl_add() for the first one that could not be done; a
///         lock's time-out begins anew for each. In a group that goes on, those that are done are part of it. Wrong
///         arguments are found before any is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_replace_many(
    t: *mut netshm_hashtbl,
    keys: *const netshm_slice,
    vals: *const netshm_slice,
    n: usize,
    done: *mut usize,
) -> c_int {
    guard(&["t", "keys", "vals", "n", "done"], || {
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(done).put(0) };
        // SAFETY: the header asks for a handle and for n keys and values.
        let (t, keys, vals) = unsafe { (live_raw(t)?, Slices::new(2, keys, n)?, Slices::new(3, vals, n)?) };
        // SAFETY: as above.
        unsafe { tell(done, n, t.replace_each(keys.iter().zip(vals.iter()))) }
    })
}

/// Puts bindings of several keys on top of those that they have.
///
/// This is n times netshm_hashtbl_add(), else like netshm_hashtbl_replace_many(). Of equal keys the last one ends up
/// on top.
///
/// Parameters and return codes are those of netshm_hashtbl_replace_many().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_add_many(
    t: *mut netshm_hashtbl,
    keys: *const netshm_slice,
    vals: *const netshm_slice,
    n: usize,
    done: *mut usize,
) -> c_int {
    guard(&["t", "keys", "vals", "n", "done"], || {
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(done).put(0) };
        // SAFETY: the header asks for a handle and for n keys and values.
        let (t, keys, vals) = unsafe { (live_raw(t)?, Slices::new(2, keys, n)?, Slices::new(3, vals, n)?) };
        // SAFETY: as above.
        unsafe { tell(done, n, t.add_each(keys.iter().zip(vals.iter()))) }
    })
}

/// Tells how many are done.
///
/// # Safety
/// `done` must be valid for writing, or NULL.
unsafe fn tell(done: *mut usize, n: usize, outcome: Result<(), Stopped>) -> Outcome {
    let stored = outcome.as_ref().map_or_else(|stopped| stopped.done, |()| n);
    // SAFETY: the caller's promise.
    unsafe { out_or_null(done).put(stored) };
    Ok(outcome.map_err(Error::from)?)
}

/// An array of byte strings that has been looked through.
struct Slices<'a> {
    first: *const netshm_slice,
    n: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Slices<'a> {
    /// # Safety
    /// If it is not NULL, `first` must be followed by `n` slices, and what each of them names must be readable; nothing
    /// of it may change during `'a`.
    unsafe fn new(number: u32, first: *const netshm_slice, n: usize) -> Outcome<Slices<'a>> {
        if first.is_null() && n != 0 {
            return Err(Fault::Null(number));
        }
        let slices = Slices { first, n, bytes: PhantomData };
        for i in 0..n {
            let slice = slices.get(i);
            if slice.data.is_null() && slice.len != 0 {
                return Err(Fault::Argument(number, "data of an element is NULL, and its len is not 0"));
            }
            check_length(slice.len)?;
        }
        Ok(slices)
    }

    #[inline(always)]
    fn get(&self, i: usize) -> netshm_slice {
        debug_assert!(i < self.n);
        // SAFETY: by the promise to `new`.
        unsafe { self.first.add(i).read_unaligned() }
    }

    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.n).map(|i| match self.get(i) {
            netshm_slice { len: 0, .. } => &[][..],
            // SAFETY: by the promise to `new`, which has looked at the length.
            netshm_slice { data, len } => unsafe { std::slice::from_raw_parts(data.cast(), len) },
        })
    }
}

/// Values one behind the other in a block, behind the array that will describe them. Until then it has distances from
/// the block's beginning, since the block moves when it grows; 0: no value.
struct Packed {
    block: Block,
    n: usize,
    /// Bytes in use.
    used: usize,
}

impl Packed {
    /// Room that is taken beforehand for each value.
    const EXPECTED_BYTES: usize = 64;

    fn new(n: usize) -> Result<Packed, Error> {
        let each = size_of::<netshm_slice>() + Packed::EXPECTED_BYTES;
        let block = Block::new(n.checked_mul(each).ok_or(Error::NoMemory)?)?;
        Ok(Packed { block, n, used: n * size_of::<netshm_slice>() })
    }

    fn slice(&mut self, i: usize) -> *mut netshm_slice {
        debug_assert!(i < self.n);
        // SAFETY: the block begins with n of them.
        unsafe { self.block.data.cast::<netshm_slice>().add(i) }
    }

    /// Makes room for a value of this length, and for as much again as there is.
    fn grow(&mut self, len: u64) -> Result<(), Error> {
        let len = usize::try_from(len).map_err(|_| Error::TooLarge("a value"))?;
        let size = self.used.checked_add(len).and_then(|all| all.checked_add(self.block.size));
        let block = Block::new(size.ok_or(Error::NoMemory)?)?;
        // SAFETY: the new block is longer.
        unsafe { block.data.copy_from_nonoverlapping(self.block.data, self.used) };
        self.block = block;
        Ok(())
    }

    /// Ends it: the distances become addresses.
    fn give(mut self) -> *mut netshm_slice {
        for i in 0..self.n {
            // SAFETY: all of them have been noted; the distances are those of places in the block, or its end.
            unsafe {
                let slice = self.slice(i);
                let distance = (*slice).data as usize;
                if distance != 0 {
                    (*slice).data = self.block.data.add(distance).cast();
                }
            }
        }
        self.block.give().cast()
    }
}

// SAFETY: the room is what the block has left.
unsafe impl Places for Packed {
    #[inline(always)]
    fn room(&mut self, _number: usize) -> (*mut u8, usize) {
        // SAFETY: no more is in use than there is.
        (unsafe { self.block.data.add(self.used) }, self.block.size - self.used)
    }

    #[inline(always)]
    fn take(&mut self, number: usize, len: Option<u64>) -> Result<bool, Error> {
        let (distance, len) = match len {
            None => (0, 0),
            Some(len) if len > (self.block.size - self.used) as u64 => {
                self.grow(len)?;
                return Ok(true);
            }
            Some(len) => (self.used, len as usize),
        };
        let data = std::ptr::without_provenance(distance);
        // SAFETY: the place is one of the array's.
        unsafe { self.slice(number).write(netshm_slice { data, len }) };
        self.used += len;
        Ok(false)
    }
}
