//! Walking over a typed table: by callback, and by cursor.

use super::call::{Fault, Outcome, guard};
use super::callback::{call_back, goes_on};
use super::cursor::{self, netshm_cursor};
use super::hashtbl::netshm_hashtbl;
use super::result::{self, Decoded, netshm_result};
use super::typed::live;
use super::value::netshm_value;
use crate::cursor::Cursor;
use crate::txn::cursor::Part;
use std::ffi::{c_int, c_void};

/// Sees one binding. Cells, bytes and objects live while the callback runs. It may call everything.
///
/// @param key  The cells of the key.
/// @param nk   Their number.
/// @param val  The cells of the value; NULL with netshm_hashtbl_iter_keys_v().
/// @param nv   Their number.
/// @param arg  What was given to the call.
///
/// @return As of netshm_iter_fn.
pub type netshm_iter_v_fn = Option<
    unsafe extern "C-unwind" fn(
        key: *const netshm_value,
        nk: usize,
        val: *const netshm_value,
        nv: usize,
        arg: *mut c_void,
    ) -> c_int,
>;

/// Calls a callback with every binding; else it is like netshm_hashtbl_iter().
///
/// @param t    The table.
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CORRUPT, a key or a
///         value does not decode; a custom type's answer; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_iter_v(
    t: *mut netshm_hashtbl,
    r#fn: netshm_iter_v_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || walk(t, Part::Bindings, r#fn, arg))
}

/// Calls a callback with every key once. Else it is like netshm_hashtbl_iter_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_iter_keys_v(
    t: *mut netshm_hashtbl,
    r#fn: netshm_iter_v_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || walk(t, Part::Keys, r#fn, arg))
}

/// Moves a cursor to the next binding of a typed table; else it is like netshm_cursor_next().
///
/// @param c    The cursor.
/// @param key  Receives the key; may be NULL.
/// @param val  Receives the value; may be NULL. With #NETSHM_CURSOR_KEYS it is empty. It must not be `key`.
///
/// The values belong to the results, not to the cursor.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, there is no more; NETSHM_E_CORRUPT, the key or the value does not decode, and
///         the cursor has passed it; NETSHM_E_BUSY, another thread is using the cursor, or another call the result; a
///         custom type's answer; else the codes of netshm_cursor_next(). What the results hold then is unspecified.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_cursor_next_v(
    c: *mut netshm_cursor,
    key: *mut netshm_result,
    val: *mut netshm_result,
) -> c_int {
    guard(&["c", "key", "val"], || {
        // SAFETY: the header asks for handles or NULL.
        let mut key = unsafe { wanted(2, key) }?;
        // SAFETY: as above.
        let mut val = unsafe { wanted(3, val) }?;
        // SAFETY: the header asks for a handle.
        unsafe {
            cursor::next_binding(c, |binding, types, part| {
                if let Some(key) = &mut key {
                    key.decode_all(&types.key, std::slice::from_ref(&binding.key))?;
                }
                if let (Some(val), Part::Bindings) = (&mut val, part) {
                    val.decode_all(&types.value, std::slice::from_ref(&binding.value))?;
                }
                Ok(())
            })
        }
    })
}

/// The result at argument `number`, if it is wanted.
///
/// # Safety
/// As for `result::fill`.
unsafe fn wanted<'a>(number: u32, r: *mut netshm_result) -> Outcome<Option<result::Filling<'a>>> {
    // SAFETY: the caller's promise.
    if r.is_null() { Ok(None) } else { unsafe { result::fill(number, r) }.map(Some) }
}

fn walk(t: *mut netshm_hashtbl, part: Part, visit: netshm_iter_v_fn, arg: *mut c_void) -> Outcome {
    // The callback may close the handle: table and types are kept.
    // SAFETY: the header asks for a handle.
    let (table, types) = unsafe { live(t) }.map(|(table, types)| (table.clone(), types.clone()))?;
    let visit = visit.ok_or(Fault::Null(2))?;
    let mut decoded = Decoded::default();
    let mut cursor = Cursor::owning(table, part);
    while let Some(binding) = cursor.advance() {
        let binding = binding?;
        decoded.clear();
        decoded.push(&types.key, binding.key)?;
        if part == Part::Bindings {
            decoded.push(&types.value, binding.value)?;
        }
        decoded.settle();
        let key = decoded.value(0).unwrap_or_default();
        let (val, nv) = decoded.value(1).map_or((std::ptr::null(), 0), |val| (val.as_ptr(), val.len()));
        // SAFETY: the header asks for a function that can be called with these.
        if !goes_on(call_back(|| unsafe { visit(key.as_ptr(), key.len(), val, nv, arg) }))? {
            break;
        }
    }
    Ok(())
}
