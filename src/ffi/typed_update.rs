//! Changes of a typed binding that depend on what it is: by callback under its lock, and by comparison.

use super::call::{Fault, Outcome, guard};
use super::handle;
use super::hashtbl::{Body, netshm_hashtbl, wrong_type};
use super::result::Decoded;
use super::typed::{encoded, live};
use super::update::{Active, netshm_update, with_active};
use super::value::{cells, netshm_value};
use crate::types::Type;
use std::ffi::{c_int, c_void};

/// Decides what becomes of a typed binding.
///
/// It runs as a netshm_update_fn does, while the key is locked, and so do the conversions of custom types.
///
/// @param u    The update, for netshm_update_set_v().
/// @param old  The cells of the newest binding; NULL if there is none. Cells, bytes and objects live while the callback
///             runs.
/// @param no   Their number; 0 if there is none.
/// @param arg  What was given to the call.
///
/// @return As of netshm_update_fn.
pub type netshm_update_v_fn = Option<
    unsafe extern "C-unwind" fn(
        u: *mut netshm_update,
        old: *const netshm_value,
        no: usize,
        arg: *mut c_void,
    ) -> c_int,
>;

/// Sets the value for #NETSHM_REPLACE, also in the callback of netshm_hashtbl_update(). If it is called again, the last
/// value counts.
///
/// @param u    What the callback was given. It can be used by the callback's thread and during it only.
/// @param val  The cells of the value, which are copied.
/// @param nv   Their number.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED, the callback has returned; NETSHM_E_TYPE, the cells are not those of the values'
///         type, or it is a custom type's conversion, which gives bytes; NETSHM_E_OVERFLOW, an integer does not fit into
///         its type; a custom type's answer; NETSHM_E_NO_MEMORY, NETSHM_E_TOO_LARGE, NETSHM_E_INVALID. What was set
///         before stays then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_update_set_v(
    u: *mut netshm_update,
    val: *const netshm_value,
    nv: usize,
) -> c_int {
    guard(&["u", "val", "nv"], || {
        if u.is_null() {
            return Err(Fault::Null(1));
        }
        // SAFETY: the header asks for readable cells.
        let val = unsafe { cells(2, val, nv) }?;
        with_active(u, |active| {
            let of = active.value_type().ok_or_else(|| wrong_type("cells", &Type::bytes()))?;
            active.set(&of.encode(&val)?)
        })?
    })
}

/// Calls a callback once, under the key's lock, with the newest binding, and does what it answers; else it is like
/// netshm_hashtbl_update().
///
/// @param t    The table.
/// @param key  The cells of the key.
/// @param nk   Their number.
/// @param fn   Called once.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the answer was NETSHM_KEEP; NETSHM_E_CALLBACK, it answered NETSHM_REPLACE without a
///         value, or a reserved negative number; its negative answer; NETSHM_E_CORRUPT, the binding does not decode, and
///         the callback was not called; else the codes of netshm_hashtbl_add_v(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_update_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    r#fn: netshm_update_v_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "key", "nk", "fn", "arg"], || {
        let update = |body: &Body| {
            let types = &body.types;
            let update = r#fn.ok_or(Fault::Null(4))?;
            // SAFETY: the header asks for readable cells.
            let key = unsafe { encoded(2, &types.key, key, nk) }?;
            // Its objects end after the key's lock.
            let mut decoded = Decoded::default();
            let active = Active::new(Some(&types.value));
            let outcome = body.table.try_update_by(key.as_ref(), |old| {
                if let Some(old) = old {
                    decoded.push(&types.value, old)?;
                    decoded.settle();
                }
                let (data, n) =
                    decoded.value(0).map_or((std::ptr::null(), 0), |old| (old.as_ptr(), old.len()));
                // SAFETY: the header asks for a function that can be called with these.
                active.decide(|u| unsafe { update(u, data, n, arg) })
            });
            Ok(outcome?)
        };
        // SAFETY: the header asks for a handle, which the callback may close.
        unsafe { handle::lend(1, t, update) }
    })
}

/// Replaces the newest binding if it equals an expected value. Values are equal if their encodings are.
///
/// @param t    The table; safe to use from several threads.
/// @param key  The cells of the key.
/// @param nk   Their number.
/// @param old  The cells of the expected value.
/// @param no   Their number.
/// @param val  The cells of the new value.
/// @param nv   Their number.
///
/// @return NETSHM_OK; NETSHM_E_CHANGED, the value is another one; NETSHM_E_NOT_FOUND, the key has no binding; else the
///         codes of netshm_hashtbl_add_v(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_cas_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    old: *const netshm_value,
    no: usize,
    val: *const netshm_value,
    nv: usize,
) -> c_int {
    guard(&["t", "key", "nk", "old", "no", "val", "nv"], || {
        // SAFETY: the header asks for a handle and for readable cells.
        unsafe { compare_and_replace(t, (key, nk), (old, no), (val, nv)) }
    })
}

/// # Safety
/// As for the export.
unsafe fn compare_and_replace(
    t: *mut netshm_hashtbl,
    key: (*const netshm_value, usize),
    old: (*const netshm_value, usize),
    new: (*const netshm_value, usize),
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let (table, types) = live(t)?;
        let key = encoded(2, &types.key, key.0, key.1)?;
        let old = encoded(4, &types.value, old.0, old.1)?;
        let new = encoded(6, &types.value, new.0, new.1)?;
        Ok(table.compare_and_replace(key.as_ref(), old.as_ref(), new.as_ref())?)
    }
}
