//! Changing a hash table.

use super::super::call::{bytes, guard, out_or_null};
use super::super::error::{NETSHM_E_CHANGED, NETSHM_E_NOT_FOUND, NETSHM_OK};
use super::quick::{
    USUAL_KEY_BYTES, chores, known_arguments, known_usual_arguments, quick_arguments, quick_bytes, settled,
};
use super::{live_counter, live_key, live_raw, netshm_hashtbl};
use crate::error::Error;
use crate::hashtbl::{Compared, HashTable, Quick};
use crate::segment::lot::Lot;
use std::ffi::{c_int, c_void};

/// Puts a binding on top of those that the key has. They are hidden, not removed.
///
/// @param t        The table; safe to use from several threads.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param val      The value; may be NULL only if val_len is 0.
/// @param val_len  Its length in bytes.
///
/// @return NETSHM_OK; NETSHM_E_NO_SPACE; NETSHM_E_TOO_LARGE; NETSHM_E_TIMEOUT; NETSHM_E_READ_ONLY; NETSHM_E_STALE;
///         NETSHM_E_DEADLOCK, in a group; NETSHM_E_IN_CALLBACK, from an update of the same object;
///         NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_NO_MEMORY, NETSHM_E_BUSY,
///         NETSHM_E_CORRUPT, NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM. Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_add(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    if key_len != USUAL_KEY_BYTES {
        // SAFETY: the caller's promise.
        return unsafe { add_any(t, key, key_len, val, val_len) };
    }
    // SAFETY: the caller's promise.
    unsafe { add_quickly(t, key, USUAL_KEY_BYTES, val, val_len) }
}

/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn add_any(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { add_quickly(t, key, key_len, val, val_len) }
}

/// The short way, or else the general one.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn add_quickly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
        // SAFETY: as above.
        if let Some(val) = unsafe { quick_bytes(val, val_len) } {
            if let Some(code) = settled(t, t.add_quickly(key, val)) {
                return code;
            }
        }
    }
    // SAFETY: as above.
    unsafe { add_slowly(t, key, key_len, val, val_len) }
}

/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe extern "C" fn add_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(t, key, key_len, val, val_len, HashTable::add) }
}

/// A change of a key and a value, where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn change(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
    change: impl FnOnce(&HashTable, &[u8], &[u8]) -> Result<(), Error>,
) -> c_int {
    guard(&["t", "key", "key_len", "val", "val_len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key, val) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?, bytes(4, val, val_len)?) };
        Ok(change(t, key, val)?)
    })
}

/// Replaces the newest binding of the key, or adds one if there is none.
///
/// Parameters and return codes are those of netshm_hashtbl_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_replace(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // Nothing is kept for any way before it is known which one it is.
    // SAFETY: the caller's promise.
    unsafe {
        match quick_arguments(t, key, key_len) {
            Some((table, _)) if table.is_among_groups() => replace_in_group(t, key, key_len, val, val_len),
            Some(_) if key_len == USUAL_KEY_BYTES && Lot::fits(val_len) => {
                replace_usual(t, key, val, val_len)
            }
            _ => replace_any(t, key, key_len, val, val_len),
        }
    }
}

/// The short way for keys of the usual length and values that are lots, where there is nothing to complain about the
/// former.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn replace_usual(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the header asks for readable bytes, and the caller promises the rest.
    let ((table, usual), value) = unsafe {
        Lot::assume_fit(val_len);
        (known_usual_arguments(t, key), quick_bytes(val, val_len))
    };
    if let Some(value) = value {
        if let Some(code) = settled(table, table.replace_usual(usual, value)) {
            return code;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { replace_any(t, key, USUAL_KEY_BYTES, val, val_len) }
}

/// The short way while a group is open, for a key that there is nothing to complain about.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn replace_in_group(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the header asks for readable bytes, and the caller promises the rest.
    let ((table, short), value) = unsafe { (known_arguments(t, key, key_len), quick_bytes(val, val_len)) };
    if value.is_some_and(|value| table.replace_in_group(short, value)) {
        return NETSHM_OK;
    }
    // SAFETY: as above.
    unsafe { replace_any(t, key, key_len, val, val_len) }
}

/// The short way for all keys and values, or else the general one.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn replace_any(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
        // SAFETY: as above.
        if let Some(val) = unsafe { quick_bytes(val, val_len) } {
            if let Some(code) = settled(t, t.replace_quickly(key, val)) {
                return code;
            }
        }
    }
    // SAFETY: as above.
    unsafe { change(t, key, key_len, val, val_len, HashTable::replace) }
}

/// Binds a key that has no binding yet.
///
/// Parameters as for netshm_hashtbl_add().
///
/// @return NETSHM_OK; NETSHM_E_EXISTS, the key has a binding; else the codes of netshm_hashtbl_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_insert(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    guard(&["t", "key", "key_len", "val", "val_len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key, val) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?, bytes(4, val, val_len)?) };
        Ok(t.insert(key, val)?)
    })
}

/// Removes the newest binding of the key, so that the one before it shows again.
///
/// @param t          The table.
/// @param key        The key; may be NULL only if key_len is 0.
/// @param key_len    Its length in bytes.
/// @param was_there  Receives 1 if there was a binding, 0 if not; may be NULL.
///
/// @return NETSHM_OK, also if there was none; else the codes of netshm_hashtbl_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_remove(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    was_there: *mut c_int,
) -> c_int {
    // SAFETY: the header asks for a handle and for readable bytes.
    if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
        let quick = t.remove_quickly(key);
        if let Quick::Done(there) | Quick::DoneWithChores(there) = quick {
            if !was_there.is_null() {
                // SAFETY: the header asks for a valid place or NULL.
                unsafe { was_there.write(there.into()) };
            }
            return if matches!(quick, Quick::Done(_)) { NETSHM_OK } else { chores(t) };
        }
    }
    // SAFETY: as above.
    unsafe { remove_slowly(t, key, key_len, was_there) }
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn remove_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    was_there: *mut c_int,
) -> c_int {
    guard(&["t", "key", "key_len", "was_there"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (live_key(t)?, bytes(2, key, key_len)?) };
        let there = t.remove(key)?;
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(was_there).put(there.into()) };
        Ok(())
    })
}

/// Adds to the integer that is bound to a key, atomically. The value is 8 bytes, little-endian.
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param delta    What to add; may be negative.
/// @param initial  What a key without binding counts from: it gets initial + delta.
/// @param now      Receives the sum; may be NULL.
///
/// @return NETSHM_OK; NETSHM_E_OVERFLOW; NETSHM_E_TYPE, the value is not of 8 bytes; else the codes of
///         netshm_hashtbl_add(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_incr(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    delta: i64,
    initial: i64,
    now: *mut i64,
) -> c_int {
    if key_len != USUAL_KEY_BYTES {
        // SAFETY: the caller's promise.
        return unsafe { incr_any(t, key, key_len, delta, initial, now) };
    }
    // SAFETY: the caller's promise.
    unsafe { incr_quickly(t, key, USUAL_KEY_BYTES, delta, initial, now) }
}

/// # Safety
/// As for the export.
#[inline(never)]
unsafe extern "C" fn incr_any(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    delta: i64,
    initial: i64,
    now: *mut i64,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { incr_quickly(t, key, key_len, delta, initial, now) }
}

/// The short way, or else the general one.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn incr_quickly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    delta: i64,
    initial: i64,
    now: *mut i64,
) -> c_int {
    // SAFETY: the header asks for a handle and for readable bytes.
    if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
        let quick = t.increment_quickly(key, delta);
        if let Quick::Done(sum) | Quick::DoneWithChores(sum) = quick {
            if !now.is_null() {
                // SAFETY: the header asks for a valid place or NULL.
                unsafe { now.write(sum) };
            }
            return if matches!(quick, Quick::Done(_)) { NETSHM_OK } else { chores(t) };
        }
    }
    // SAFETY: as above.
    unsafe { incr_slowly(t, key, key_len, delta, initial, now) }
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe extern "C" fn incr_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    delta: i64,
    initial: i64,
    now: *mut i64,
) -> c_int {
    guard(&["t", "key", "key_len", "delta", "initial", "now"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (live_counter(t)?, bytes(2, key, key_len)?) };
        let sum = match t.increment_in_group(key, delta) {
            Some(sum) => sum,
            None => t.increment(key, delta, initial)?,
        };
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(now).put(sum) };
        Ok(())
    })
}

/// Replaces the newest binding of a key if it equals the expected value ("compare and swap").
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param old      The expected value; may be NULL only if old_len is 0.
/// @param old_len  Its length in bytes.
/// @param val      The new value; may be NULL only if val_len is 0.
/// @param val_len  Its length in bytes.
///
/// @return NETSHM_OK; NETSHM_E_CHANGED, it is another value; NETSHM_E_NOT_FOUND, there is none; else the codes of
///         netshm_hashtbl_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_cas(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    old: *const c_void,
    old_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(code) = unsafe { cas_quickly(t, key, key_len, (old, old_len), (val, val_len)) } {
        return code;
    }
    // SAFETY: as above.
    unsafe { cas_slowly(t, key, key_len, (old, old_len), (val, val_len)) }
}

/// The same by the short way, if there is nothing unusual, nor anything to complain about. None: nothing has happened.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn cas_quickly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    (old, old_len): (*const c_void, usize),
    (val, val_len): (*const c_void, usize),
) -> Option<c_int> {
    // SAFETY: the header asks for a handle and for readable bytes.
    let ((t, key), old, val) = unsafe {
        (quick_arguments(t, key, key_len)?, quick_bytes(old, old_len)?, quick_bytes(val, val_len)?)
    };
    let (compared, code) = match t.compare_quickly(key, old, val) {
        Quick::Done(compared) => (compared, NETSHM_OK),
        Quick::DoneWithChores(compared) => (compared, chores(t)),
        Quick::NotDone => return None,
    };
    Some(match compared {
        Compared::Equal => code,
        Compared::Different => NETSHM_E_CHANGED,
        Compared::Absent => NETSHM_E_NOT_FOUND,
    })
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn cas_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    (old, old_len): (*const c_void, usize),
    (val, val_len): (*const c_void, usize),
) -> c_int {
    guard(&["t", "key", "key_len", "old", "old_len", "val", "val_len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key, old, val) = unsafe {
            (live_raw(t)?, bytes(2, key, key_len)?, bytes(4, old, old_len)?, bytes(6, val, val_len)?)
        };
        Ok(t.compare_and_replace(key, old, val)?)
    })
}
