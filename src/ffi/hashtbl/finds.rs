//! Reading a hash table: one key, or the number of bindings.

use super::super::call::{Fault, bytes, guard, out};
use super::super::error::{Block, NETSHM_E_NOT_FOUND, NETSHM_OK};
use super::quick::{USUAL_KEY_BYTES, known_usual_arguments, quick_arguments, usual_arguments};
use super::{live, live_key, live_raw, netshm_hashtbl};
use crate::error::Error;
use crate::hashtbl::QuickCopy;
use std::ffi::{c_int, c_void};
use std::mem::size_of;

/// Bytes somewhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_slice {
    /// The first byte.
    pub data: *const c_void,
    /// Their number.
    pub len: usize,
}

/// Copies the newest binding of a key into the caller's buffer.
///
/// This takes no lock and makes no system call, unless a process has died in the middle of a change.
///
/// @param t        The table; safe to use from several threads.
/// @param key      The key; may be NULL only if key_len is 0. It must not overlap with buf.
/// @param key_len  Its length in bytes.
/// @param buf      Receives the value; may be NULL only if cap is 0. What it holds after any other code than
///                 NETSHM_OK, and behind the value, is unspecified.
/// @param cap      Size of buf in bytes.
/// @param len      Receives the value's full length in bytes, also with NETSHM_E_TOO_SMALL.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, the key has no binding; NETSHM_E_TOO_SMALL, *len bytes are needed;
///         NETSHM_E_TOO_LARGE, the key is longer than any; NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, the way was blocked by a
///         writer; NETSHM_E_BUSY; NETSHM_E_STALE;
///         NETSHM_E_DEADLOCK, NETSHM_E_IN_CALLBACK and NETSHM_E_FORKED as for netshm_hashtbl_add();
///         NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_find(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
) -> c_int {
    // Nothing is kept for either way before it is known which one it is.
    // SAFETY: the caller's promise.
    unsafe {
        if key_len == USUAL_KEY_BYTES {
            find_usual(t, key, len, buf, cap)
        } else {
            find_any(t, key, key_len, buf, cap, len)
        }
    }
}

/// The short way for keys of the usual length, whose arguments stay in the registers that they came in, but one.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn find_usual(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    len: *mut usize,
    buf: *mut c_void,
    cap: usize,
) -> c_int {
    if !buf.is_null() && !len.is_null() {
        // SAFETY: the header asks for a handle and for readable bytes.
        if let Some((table, usual)) = unsafe { usual_arguments(t, key) } {
            if table.is_among_groups() {
                // SAFETY: the arguments are as they have to be.
                return unsafe { find_among_groups(t, key, len, buf, cap) };
            }
            // SAFETY: the header asks for a buffer of `cap` bytes.
            let copied = unsafe { table.copy_usual_alone(usual, buf.cast(), cap) };
            if let Some(length) = copied.len() {
                // SAFETY: the header asks for a valid place.
                unsafe { len.write(length) };
                return NETSHM_OK;
            }
            if copied == QuickCopy::ABSENT {
                return NETSHM_E_NOT_FOUND;
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { find_any(t, key, USUAL_KEY_BYTES, buf, cap, len) }
}

/// The same while a group is open, for arguments that there is nothing to complain about.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn find_among_groups(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    len: *mut usize,
    buf: *mut c_void,
    cap: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let (table, usual) = unsafe { known_usual_arguments(t, key) };
    // SAFETY: the header asks for a buffer of `cap` bytes.
    let copied = unsafe { table.copy_usual_among_groups(usual, buf.cast(), cap) };
    if let Some(length) = copied.len() {
        // SAFETY: the header asks for a valid place.
        unsafe { len.write(length) };
        return NETSHM_OK;
    }
    if copied == QuickCopy::ABSENT {
        return NETSHM_E_NOT_FOUND;
    }
    // SAFETY: the caller's promise.
    unsafe { find_any(t, key, USUAL_KEY_BYTES, buf, cap, len) }
}

/// The short way for keys of all lengths.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn find_any(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { find_quickly(t, key, key_len, buf, cap, len) }
}

/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn find_quickly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
) -> c_int {
    if !buf.is_null() && !len.is_null() {
        // SAFETY: the header asks for a handle and for readable bytes.
        if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
            // SAFETY: the header asks for a buffer of `cap` bytes.
            let copied = unsafe { t.copy_quickly(key, buf.cast(), cap) };
            if let Some(length) = copied.len() {
                // SAFETY: the header asks for a valid place.
                unsafe { len.write(length) };
                return NETSHM_OK;
            }
            if copied == QuickCopy::ABSENT {
                return NETSHM_E_NOT_FOUND;
            }
        }
    }
    // SAFETY: as above.
    unsafe { find_slowly(t, key, key_len, buf, cap, len) }
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe extern "C" fn find_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
) -> c_int {
    guard(&["t", "key", "key_len", "buf", "cap", "len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?) };
        if buf.is_null() && cap != 0 {
            return Err(Fault::Null(4));
        }
        let place = out(6, len)?;
        let buf: *mut u8 = if buf.is_null() { std::ptr::dangling_mut() } else { buf.cast() };
        // SAFETY: the header asks for a buffer of `cap` bytes and a valid place.
        unsafe {
            match t.find_raw(key, buf, cap) {
                Ok(Some(length)) => place.put(length),
                Ok(None) => return Err(Fault::Core(Error::NotFound)),
                Err(Error::TooSmall { needed }) => {
                    place.put(usize::try_from(needed).map_err(|_| Error::TooLarge("a value"))?);
                    return Err(Fault::Core(Error::TooSmall { needed }));
                }
                Err(e) => return Err(Fault::Core(e)),
            }
        }
        Ok(())
    })
}

/// Gives a copy of the newest binding of a key.
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param val      Receives the copy, never NULL, to be freed by netshm_free().
/// @param len      Receives its length in bytes.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_NO_MEMORY; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_get(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *mut *mut c_void,
    len: *mut usize,
) -> c_int {
    guard(&["t", "key", "key_len", "val", "len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?) };
        let (val, len) = (out(4, val)?, out(5, len)?);
        let mut block = Block::new(256)?;
        loop {
            // SAFETY: the block has as many bytes as it says.
            match unsafe { t.find_raw(key, block.data, block.size) } {
                Ok(None) => return Err(Fault::Core(Error::NotFound)),
                Ok(Some(length)) => {
                    // SAFETY: the header asks for valid places.
                    unsafe {
                        len.put(length);
                        val.put(block.give());
                    }
                    return Ok(());
                }
                Err(Error::TooSmall { needed }) => {
                    block = Block::new(usize::try_from(needed).map_err(|_| Error::TooLarge("a value"))?)?;
                }
                Err(e) => return Err(Fault::Core(e)),
            }
        }
    })
}

/// Gives copies of all bindings of a key, newest first.
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param vals     Receives an array of n values, in one block with what they point to, to be freed by one
///                 netshm_free(). NULL if there is none.
/// @param n        Receives the number of values.
///
/// @return NETSHM_OK, also if there is none; NETSHM_E_NO_MEMORY; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_find_all(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    vals: *mut *mut netshm_slice,
    n: *mut usize,
) -> c_int {
    guard(&["t", "key", "key_len", "vals", "n"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?) };
        let (vals, n) = (out(4, vals)?, out(5, n)?);
        let all = t.find_all(key)?;
        let block = if all.is_empty() { std::ptr::null_mut() } else { pack(&all)?.give().cast() };
        // SAFETY: the header asks for valid places.
        unsafe {
            vals.put(block);
            n.put(all.len());
        }
        Ok(())
    })
}

/// One block with an array of slices and what they point to.
fn pack(all: &[Vec<u8>]) -> Result<Block, Error> {
    let head = all.len() * size_of::<netshm_slice>();
    let size = all.iter().try_fold(head, |sum, value| sum.checked_add(value.len()));
    let block = Block::new(size.ok_or(Error::NoMemory)?)?;
    let slices: *mut netshm_slice = block.data.cast();
    let mut at = head;
    for (i, value) in all.iter().enumerate() {
        // SAFETY: the block was made for the array and all values, one behind the other.
        unsafe {
            let data = block.data.add(at);
            data.copy_from_nonoverlapping(value.as_ptr(), value.len());
            slices.add(i).write(netshm_slice { data: data.cast(), len: value.len() });
        }
        at += value.len();
    }
    Ok(block)
}

/// Tells whether a key has a binding.
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param found    Receives 1 if it has one, 0 if not.
///
/// @return NETSHM_OK; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_mem(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    found: *mut c_int,
) -> c_int {
    guard(&["t", "key", "key_len", "found"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (live_key(t)?, bytes(2, key, key_len)?) };
        let place = out(4, found)?;
        let found = t.contains(key)?;
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(found.into()) };
        Ok(())
    })
}

/// Counts all bindings, hidden ones included. In a group it counts what the group sees, and keeps all other
/// writers out until the group ends.
///
/// @param t  The table.
/// @param n  Receives the number.
///
/// @return NETSHM_OK; NETSHM_E_BUSY, a table open for reading only changed all the time; else the codes of
///         netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_length(t: *mut netshm_hashtbl, n: *mut u64) -> c_int {
    guard(&["t", "n"], || {
        let place = out(2, n)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(live(t)?.len()?) };
        Ok(())
    })
}
