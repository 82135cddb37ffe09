//! What the short ways of the hot calls share.
//!
//! These calls (find, add, replace, remove, incr) try the short way first, outside of the guard against panics: it has
//! nothing that could panic, and setting up the guard would cost as much as a tenth of a find. What is unusual about
//! the arguments is left to the general way, which says what is wrong with them.

use super::super::call::guard;
use super::super::error::NETSHM_OK;
use super::super::handle;
use super::{Body, netshm_hashtbl};
use crate::hashtbl::{HashTable, Quick};
use crate::index::find::is_short_key;
use std::ffi::{c_int, c_void};

/// Keys of so many bytes have copies of the short ways in which their length is a constant: less is asked, and less is
/// kept in registers. What is unusual goes on with the way for all keys.
pub(super) const USUAL_KEY_BYTES: usize = 16;

/// The table and the key, if there is nothing to complain about.
///
/// # Safety
/// As for `handle::body` and `call::bytes`.
#[inline(always)]
pub(super) unsafe fn quick_arguments<'a>(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
) -> Option<(&'a HashTable, &'a [u8])> {
    // SAFETY: the caller's promise.
    unsafe { quick_body(t, key, key_len) }.map(|(body, key)| (&body.table, key))
}

/// What is behind the table's handle and the key, if there is nothing to complain about.
///
/// # Safety
/// As for `handle::body` and `call::bytes`.
#[inline(always)]
pub(in crate::ffi) unsafe fn quick_body<'a>(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
) -> Option<(&'a Body, &'a [u8])> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if crate::ffi::inject::is_armed() {
        return None;
    }
    if key.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let body = unsafe { handle::peek(t) }?;
    if !is_short_key(key_len) {
        return None;
    }
    // SAFETY: the caller's promise; the length was just checked.
    Some((body, unsafe { std::slice::from_raw_parts(key.cast(), key_len) }))
}

/// The same for a key of the usual length.
///
/// # Safety
/// As for `handle::body`; if the key is not NULL, so many bytes must be readable there.
#[inline(always)]
pub(super) unsafe fn usual_arguments<'a>(
    t: *mut netshm_hashtbl,
    key: *const c_void,
) -> Option<(&'a HashTable, &'a [u8; USUAL_KEY_BYTES])> {
    // SAFETY: the caller's promise.
    let (table, key) = unsafe { quick_arguments(t, key, USUAL_KEY_BYTES) }?;
    Some((table, key.try_into().ok()?))
}

/// The table and the key, in which [`quick_arguments`] has found nothing to complain about.
///
/// # Safety
/// It must have.
#[inline(always)]
pub(super) unsafe fn known_arguments<'a>(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
) -> (&'a HashTable, &'a [u8]) {
    // SAFETY: by the caller's promise.
    unsafe { (&handle::known(t).table, std::slice::from_raw_parts(key.cast(), key_len)) }
}

/// The same for a key of the usual length.
///
/// # Safety
/// As for [`known_arguments`].
#[inline(always)]
pub(super) unsafe fn known_usual_arguments<'a>(
    t: *mut netshm_hashtbl,
    key: *const c_void,
) -> (&'a HashTable, &'a [u8; USUAL_KEY_BYTES]) {
    // SAFETY: by the caller's promise.
    unsafe { (&handle::known(t).table, &*key.cast()) }
}

/// The code of a change that was made by the short way; none if the general way is to be taken.
#[inline(always)]
pub(in crate::ffi) fn settled(t: &HashTable, quick: Quick<()>) -> Option<c_int> {
    match quick {
        Quick::Done(()) => Some(NETSHM_OK),
        Quick::DoneWithChores(()) => Some(chores(t)),
        Quick::NotDone => None,
    }
}

/// What an operation has left to be done.
#[cold]
#[inline(never)]
pub(in crate::ffi) extern "C" fn chores(t: &HashTable) -> c_int {
    guard(&[], || {
        t.do_chores();
        Ok(())
    })
}

/// Bytes of an argument, if there is nothing to complain about.
///
/// # Safety
/// As for `call::bytes`.
#[inline(always)]
pub(in crate::ffi) unsafe fn quick_bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    if data.is_null() {
        return None;
    }
    // The long way says which lengths there can be.
    if len > i32::MAX as usize {
        return None;
    }
    // SAFETY: the caller's promise; the length was just checked.
    Some(unsafe { std::slice::from_raw_parts(data.cast(), len) })
}
