//! Typed hash tables: keys and values as cells.
//!
//! Keys and values of one 8-byte integer take a short way of their own, outside of the guard against panics, as the
//! hot calls on raw bytes do.

use super::call::{Fault, Outcome, check_length, guard, out, out_or_null};
use super::error::{NETSHM_E_NOT_FOUND, NETSHM_OK};
use super::handle::{self, magic};
use super::hashtbl::{self, netshm_hashtbl, settled};
use super::object::netshm_object;
use super::options::{self, netshm_options};
use super::result::{self, netshm_result};
use super::types;
use super::value::{NETSHM_V_INT, cells, netshm_value};
use crate::error::Error;
use crate::hashtbl::{HashTable, QuickCopy};
use crate::typed::{self, Types};
use crate::types::{Encoded, Type};
use std::ffi::{c_char, c_int};

/// Views an object as a hash table of types that are given by their signatures; else as netshm_hashtbl_manage().
///
/// @param o        The object. Its handle may be closed afterwards.
/// @param key      The signature of the keys' type, for instance "string"; NULL as there.
/// @param val      The signature of the values' type, for instance "(int,string?)"; NULL as there.
/// @param options  How; NULL gives the defaults.
/// @param out      Receives the handle.
///
/// @return The codes of netshm_hashtbl_manage() and netshm_type_parse().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_manage_as(
    o: *mut netshm_object,
    key: *const c_char,
    val: *const c_char,
    options: *const netshm_options,
    out: *mut *mut netshm_hashtbl,
) -> c_int {
    guard(&["o", "key", "val", "options", "out"], || {
        let place = self::out(5, out)?;
        // SAFETY: the header asks for a handle, strings, a structure that carries its size, and a valid place.
        unsafe {
            let (object, options) = (&handle::body(1, o)?.object, options::read(4, options)?);
            let (key, val) = (signature(2, key)?, signature(3, val)?);
            place.put(hashtbl::open(typed::manage(object, key.as_ref(), val.as_ref(), &options)?));
        }
        Ok(())
    })
}

/// # Safety
/// As for `types::parse`.
unsafe fn signature(number: u32, text: *const c_char) -> Outcome<Option<Type>> {
    // SAFETY: the caller's promise.
    if text.is_null() { Ok(None) } else { unsafe { types::parse(number, text) }.map(Some) }
}

/// The table and its types.
///
/// # Safety
/// As for `handle::body`.
#[inline(always)]
pub(super) unsafe fn live<'a>(t: *mut netshm_hashtbl) -> Outcome<(&'a HashTable, &'a Types)> {
    // SAFETY: the caller's promise.
    unsafe { handle::body(1, t) }.map(|body| (&body.table, &body.types))
}

/// The encoding of the cells at argument `number`.
///
/// # Safety
/// As for `value::cells`.
pub(super) unsafe fn encoded<'a>(
    number: u32,
    of: &Type,
    v: *const netshm_value,
    n: usize,
) -> Outcome<Encoded<'a>> {
    // SAFETY: the caller's promise.
    let encoded = of.encoded(&unsafe { cells(number, v, n) }?)?;
    // Each cell may be as long as a value, and a value has several.
    check_length(encoded.as_ref().len())?;
    Ok(encoded)
}

/// The table, if it maps integers of 8 bytes to such.
///
/// # Safety
/// As for `handle::body`.
#[inline(always)]
unsafe fn quick_table<'a>(t: *mut netshm_hashtbl) -> Option<&'a HashTable> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { handle::peek_as(magic::HASHTBL_WORDS, t) }.map(|body| &body.table)
}

/// The encoding of a value that is one integer cell.
///
/// # Safety
/// As for `value::cells`.
#[inline(always)]
unsafe fn quick_word(v: *const netshm_value, n: usize) -> Option<[u8; 8]> {
    if v.is_null() || n != 1 {
        return None;
    }
    // SAFETY: the caller's promise: there is one cell, whose kind says which member is set.
    unsafe {
        if (&raw const (*v).kind).read_unaligned() != NETSHM_V_INT {
            return None;
        }
        Some((&raw const (*v).r#as.i).read_unaligned().to_le_bytes())
    }
}

/// Table, key and value, if all are of integers of 8 bytes.
///
/// # Safety
/// As for `handle::body` and `value::cells`.
#[inline(always)]
unsafe fn quick_arguments<'a>(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    val: *const netshm_value,
    nv: usize,
) -> Option<(&'a HashTable, [u8; 8], [u8; 8])> {
    // SAFETY: the caller's promise.
    unsafe { Some((quick_table(t)?, quick_word(key, nk)?, quick_word(val, nv)?)) }
}

/// Puts a binding on top of those that the key has. They are hidden, not removed.
///
/// @param t    The table; safe to use from several threads.
/// @param key  The cells of the key.
/// @param nk   Their number.
/// @param val  The cells of the value.
/// @param nv   Their number.
///
/// @return NETSHM_OK; NETSHM_E_TYPE, the cells are not those of the recorded types, or a type is for reading only;
///         NETSHM_E_OVERFLOW, an integer does not fit into its type; a custom type's answer; else the codes of
///         netshm_hashtbl_add(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_add_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    val: *const netshm_value,
    nv: usize,
) -> c_int {
    // SAFETY: the header asks for a handle and for readable cells.
    if let Some((t, key, val)) = unsafe { quick_arguments(t, key, nk, val, nv) } {
        if let Some(code) = settled(t, t.add_quickly(&key, &val)) {
            return code;
        }
    }
    // SAFETY: as above.
    unsafe { change(t, key, nk, val, nv, HashTable::add) }
}

/// A change of a key and a value, by the general way.
///
/// # Safety
/// As for `handle::body` and `value::cells`.
unsafe fn change(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    val: *const netshm_value,
    nv: usize,
    change: impl FnOnce(&HashTable, &[u8], &[u8]) -> Result<(), Error>,
) -> c_int {
    // SAFETY: the caller's promise.
    guard(&["t", "key", "nk", "val", "nv"], || unsafe {
        let (table, types) = live(t)?;
        let (key, val) = (encoded(2, &types.key, key, nk)?, encoded(4, &types.value, val, nv)?);
        Ok(change(table, key.as_ref(), val.as_ref())?)
    })
}

/// Replaces the newest binding of the key, or adds one if there is none.
///
/// Parameters and return codes are those of netshm_hashtbl_add_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_replace_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    val: *const netshm_value,
    nv: usize,
) -> c_int {
    // SAFETY: the header asks for a handle and for readable cells.
    if let Some((t, key, val)) = unsafe { quick_arguments(t, key, nk, val, nv) } {
        if let Some(code) = settled(t, t.replace_quickly(&key, &val)) {
            return code;
        }
    }
    // SAFETY: as above.
    unsafe { change(t, key, nk, val, nv, HashTable::replace) }
}

/// Binds a key that has no binding yet.
///
/// Parameters as for netshm_hashtbl_add_v().
///
/// @return NETSHM_OK; NETSHM_E_EXISTS, the key has a binding; else the codes of netshm_hashtbl_add_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_insert_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    val: *const netshm_value,
    nv: usize,
) -> c_int {
    // SAFETY: the header asks for a handle and for readable cells.
    unsafe { change(t, key, nk, val, nv, HashTable::insert) }
}

/// Removes the newest binding of the key, so that the one before it shows again.
///
/// @param t          The table.
/// @param key        The cells of the key.
/// @param nk         Their number.
/// @param was_there  Receives 1 if there was a binding, 0 if not; may be NULL.
///
/// @return NETSHM_OK, also if there was none; else the codes of netshm_hashtbl_add_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_remove_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    was_there: *mut c_int,
) -> c_int {
    guard(&["t", "key", "nk", "was_there"], || {
        // SAFETY: the header asks for a handle, readable cells, and a valid place or NULL.
        unsafe {
            let (table, types) = live(t)?;
            let there = table.remove(encoded(2, &types.key, key, nk)?.as_ref())?;
            out_or_null(was_there).put(there.into());
        }
        Ok(())
    })
}

/// Tells whether a key has a binding.
///
/// @param t      The table.
/// @param key    The cells of the key.
/// @param nk     Their number.
/// @param found  Receives 1 if it has one, 0 if not.
///
/// @return NETSHM_OK; else the codes of netshm_hashtbl_find_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_mem_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    found: *mut c_int,
) -> c_int {
    guard(&["t", "key", "nk", "found"], || {
        let place = out(4, found)?;
        // SAFETY: the header asks for a handle, readable cells, and a valid place.
        unsafe {
            let (table, types) = live(t)?;
            let found = table.contains(encoded(2, &types.key, key, nk)?.as_ref())?;
            place.put(found.into());
        }
        Ok(())
    })
}

/// Finds the newest binding of a key.
///
/// @param t    The table; safe to use from several threads.
/// @param key  The cells of the key.
/// @param nk   Their number.
/// @param r    Receives the value, see netshm_result_values(). It is empty after any other code than NETSHM_OK
///             that comes with a good handle of it.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, the key has no binding; NETSHM_E_TYPE, NETSHM_E_OVERFLOW as for
///         netshm_hashtbl_add_v(); NETSHM_E_CORRUPT, the value does not decode; a custom type's answer;
///         NETSHM_E_BUSY, from a callback of the call that fills `r`; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_find_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    r: *mut netshm_result,
) -> c_int {
    // SAFETY: the header asks for handles and for readable cells.
    if let (Some(t), Some(key), Some(r)) = unsafe { (quick_table(t), quick_word(key, nk), result::plain(r)) }
    {
        let mut word = [0; 8];
        // SAFETY: the place has room for 8 bytes.
        let copied = unsafe { t.copy_quickly(&key, word.as_mut_ptr(), word.len()) };
        if copied.len() == Some(8) {
            r.put(i64::from_le_bytes(word));
            return NETSHM_OK;
        }
        if copied == QuickCopy::ABSENT {
            r.clear();
            return NETSHM_E_NOT_FOUND;
        }
    }
    guard(&["t", "key", "nk", "r"], || {
        // SAFETY: the header asks for handles and for readable cells.
        unsafe {
            let mut filling = result::fill(4, r)?;
            let (table, types) = live(t)?;
            if !copy(table, encoded(2, &types.key, key, nk)?.as_ref(), filling.raw())? {
                return Err(Fault::Core(Error::NotFound));
            }
            Ok(filling.decode(&types.value)?)
        }
    })
}

/// Copies the newest binding into memory that is used again and again. Tells whether there is one.
fn copy(table: &HashTable, key: &[u8], into: &mut Vec<u8>) -> Result<bool, Error> {
    into.clear();
    loop {
        // SAFETY: a vector may be written up to its capacity.
        match unsafe { table.find_raw(key, into.as_mut_ptr(), into.capacity()) } {
            Ok(None) => return Ok(false),
            Ok(Some(len)) => {
                // SAFETY: so many bytes were just written.
                unsafe { into.set_len(len) };
                return Ok(true);
            }
            Err(Error::TooSmall { needed }) => {
                let needed = usize::try_from(needed).map_err(|_| Error::TooLarge("a value"))?;
                into.try_reserve(needed).map_err(|_| Error::NoMemory)?;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Finds all bindings of a key.
///
/// @param t    The table.
/// @param key  The cells of the key.
/// @param nk   Their number.
/// @param r    Receives the values, newest first, see netshm_result_at().
/// @param n    Receives the number of values.
///
/// @return NETSHM_OK, also if there is none; else the codes of netshm_hashtbl_find_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_find_all_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    r: *mut netshm_result,
    n: *mut usize,
) -> c_int {
    guard(&["t", "key", "nk", "r", "n"], || {
        let place = out(5, n)?;
        // SAFETY: the header asks for handles, readable cells, and a valid place.
        unsafe {
            let mut filling = result::fill(4, r)?;
            let (table, types) = live(t)?;
            let all = table.find_all(encoded(2, &types.key, key, nk)?.as_ref())?;
            filling.decode_all(&types.value, &all)?;
            place.put(all.len());
        }
        Ok(())
    })
}

/// Adds to the integer that is bound to a key, atomically. The values must be of type int, int64 or nativeint.
///
/// @param t        The table.
/// @param key      The cells of the key.
/// @param nk       Their number.
/// @param delta    What to add; may be negative.
/// @param initial  What a key without binding counts from: it gets initial + delta.
/// @param now      Receives the sum; may be NULL.
///
/// @return NETSHM_OK; NETSHM_E_OVERFLOW; NETSHM_E_TYPE; else the codes of netshm_hashtbl_add_v(). Nothing has changed
///         then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_incr_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    delta: i64,
    initial: i64,
    now: *mut i64,
) -> c_int {
    guard(&["t", "key", "nk", "delta", "initial", "now"], || {
        // SAFETY: the header asks for a handle, readable cells, and a valid place or NULL.
        unsafe {
            let (table, types) = live(t)?;
            if !types.value.is_word() {
                return Err(hashtbl::wrong_type("an integer of 8 bytes", &types.value));
            }
            let sum = table.increment(encoded(2, &types.key, key, nk)?.as_ref(), delta, initial)?;
            out_or_null(now).put(sum);
        }
        Ok(())
    })
}
