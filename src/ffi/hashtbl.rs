//! Hash tables: the handle, from managing to closing.
//!
//! Owns what is behind the handle, and which calls its types allow.
//!
//! - [`changes`]: adding, replacing, removing, counting.
//! - [`finds`]: reading keys.
//! - [`quick`]: what the short ways of the hot calls share; not part of the header.

mod changes;
mod finds;
pub(super) mod quick;

use super::call::{Fault, Outcome, guard, out};
use super::handle::{self, Handle, Noun, magic};
use super::object::netshm_object;
use super::options::{self, netshm_options};
use crate::error::Error;
use crate::hashtbl::HashTable;
use crate::table::Table;
use crate::typed::{self, Types};
use crate::types::Type;
use std::ffi::c_int;

pub use finds::netshm_slice;
pub(super) use quick::settled;

/// Any managed table: what groups are about. Borrowed from its hash table and never closed; or a primitive table from
/// netshm_table_manage(), closed by netshm_table_close().
pub struct netshm_table {
    _opaque: [u8; 0],
}

/// A hash table in an object. Closed by netshm_hashtbl_close().
pub struct netshm_hashtbl {
    _opaque: [u8; 0],
}

/// The type of keys or values: immutable. See "Types". Closed by netshm_type_close().
pub struct netshm_type {
    _opaque: [u8; 0],
}

impl Noun for netshm_table {
    const MAGIC: u64 = magic::TABLE;
    type Body = Table;
}

/// What is behind a hash table's handle.
pub(super) struct Body {
    pub(super) table: HashTable,
    pub(super) types: Types,
    /// What netshm_hashtbl_table() gives.
    part: Handle<Table>,
}

impl Drop for Body {
    fn drop(&mut self) {
        // SAFETY: this is the one end of it.
        unsafe { self.part.drop_part() };
    }
}

impl Noun for netshm_hashtbl {
    /// A table that calls on raw bytes can use, on both sides.
    const MAGIC: u64 = magic::HASHTBL;
    const OTHERS: &'static [u64] = &[magic::HASHTBL_TYPED, magic::HASHTBL_WORDS];
    type Body = Body;

    fn closing(body: &Body) {
        body.part.close_part();
    }
}

/// The table behind a handle, for calls to which its types do not matter.
///
/// # Safety
/// As for `handle::body`.
#[inline(always)]
unsafe fn live<'a>(t: *mut netshm_hashtbl) -> Outcome<&'a HashTable> {
    // SAFETY: the caller's promise.
    unsafe { handle::body(1, t) }.map(|body| &body.table)
}

/// The table behind a handle, for calls with raw keys.
///
/// # Safety
/// As for `handle::body`.
#[inline(always)]
unsafe fn live_key<'a>(t: *mut netshm_hashtbl) -> Outcome<&'a HashTable> {
    // SAFETY: the caller's promise.
    let body = unsafe { handle::body(1, t) }?;
    check_raw("a key of raw bytes", &body.types.key)?;
    Ok(&body.table)
}

/// The table behind a handle, for calls with raw keys and values.
///
/// # Safety
/// As for `handle::body`.
#[inline(always)]
pub(super) unsafe fn live_raw<'a>(t: *mut netshm_hashtbl) -> Outcome<&'a HashTable> {
    // SAFETY: the caller's promise.
    unsafe { handle::body(1, t) }?.raw()
}

impl Body {
    /// The table, for calls with raw keys and values.
    #[inline(always)]
    pub(super) fn raw(&self) -> Outcome<&HashTable> {
        check_raw("a key of raw bytes", &self.types.key)?;
        check_raw("a value of raw bytes", &self.types.value)?;
        Ok(&self.table)
    }
}

/// The table behind a handle, for calls with raw keys and integers as values.
///
/// # Safety
/// As for `handle::body`.
#[inline(always)]
unsafe fn live_counter<'a>(t: *mut netshm_hashtbl) -> Outcome<&'a HashTable> {
    // SAFETY: the caller's promise.
    let (table, body) = unsafe { (live_key(t)?, handle::body(1, t)?) };
    let value = &body.types.value;
    if value.is_raw() || value.is_word() {
        Ok(table)
    } else {
        Err(wrong_type("an integer of 8 bytes", value))
    }
}

/// Complains if a type is not one of raw bytes.
#[inline(always)]
pub(super) fn check_raw(asked: &str, recorded: &Type) -> Outcome {
    if recorded.is_raw() { Ok(()) } else { Err(wrong_type(asked, recorded)) }
}

#[cold]
pub(super) fn wrong_type(asked: &str, recorded: &Type) -> Fault {
    Fault::Core(Error::Type { asked: asked.into(), recorded: recorded.signature().into() })
}

/// The table behind a handle, for calls with raw keys and values. It is kept open also if a callback closes the
/// handle.
///
/// # Safety
/// As for `handle::body`.
pub(super) unsafe fn kept(t: *mut netshm_hashtbl) -> Outcome<HashTable> {
    // SAFETY: the caller's promise.
    unsafe { live_raw(t) }.cloned()
}

/// The same for calls with raw keys and without values.
///
/// # Safety
/// As for `handle::body`.
pub(super) unsafe fn kept_key(t: *mut netshm_hashtbl) -> Outcome<HashTable> {
    // SAFETY: the caller's promise.
    unsafe { live_key(t) }.cloned()
}

/// The type that a handle stands for; none for NULL.
///
/// # Safety
/// As for `handle::body`.
unsafe fn type_of<'a>(number: u32, handle: *mut netshm_type) -> Outcome<Option<&'a Type>> {
    if handle.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    Ok(Some(unsafe { &handle::body(number, handle)?.of }))
}

/// A handle for a table.
pub(super) fn open((table, types): (HashTable, Types)) -> *mut netshm_hashtbl {
    let magic = match &types {
        Types { key, value } if key.is_raw() && value.is_raw() => magic::HASHTBL,
        Types { key, value } if key.is_word() && value.is_word() => magic::HASHTBL_WORDS,
        _ => magic::HASHTBL_TYPED,
    };
    let part = Handle::part::<netshm_table>(table.table().clone());
    handle::open_as(magic, Body { table, types, part })
}

/// Views an object as a hash table. An empty object becomes one.
///
/// Two processes that do this at the same moment with a new object both get the one table.
///
/// @param o        The object. Its handle may be closed afterwards.
/// @param key      The type of the keys, which is recorded in a new table and compared with what an existing one
///                 records. NULL: raw bytes for a new table, whatever is recorded for an existing one.
/// @param val      The same for the values.
/// @param options  How; NULL gives the defaults.
/// @param out      Receives the handle.
///
/// @return NETSHM_OK; NETSHM_E_TYPE, other types are recorded: the text names both; NETSHM_E_LOCKING, another
///         method is recorded; NETSHM_E_READ_ONLY, an empty object is open for
///         reading only; NETSHM_E_CORRUPT; NETSHM_E_KIND, the object holds something else;
///         NETSHM_E_UNSUPPORTED, something reserved was asked for; NETSHM_E_IN_GROUP, NETSHM_E_IN_CALLBACK and
///         NETSHM_E_FORKED, where a table would have to be made or re-initialised: this thread has a group on the object
///         open, an update of it under way, or its parent's group; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK,
///         only where somebody damages the object; NETSHM_E_NO_SPACE, NETSHM_E_NO_MEMORY, NETSHM_E_BUSY, NETSHM_E_INVALID,
///         NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_manage(
    o: *mut netshm_object,
    key: *mut netshm_type,
    val: *mut netshm_type,
    options: *const netshm_options,
    out: *mut *mut netshm_hashtbl,
) -> c_int {
    guard(&["o", "key", "val", "options", "out"], || {
        let place = self::out(5, out)?;
        // SAFETY: the header asks for handles, a structure that carries its size, and a valid place.
        unsafe {
            let (object, options) = (&handle::body(1, o)?.object, options::read(4, options)?);
            let managed = typed::manage(object, type_of(2, key)?, type_of(3, val)?, &options)?;
            place.put(open(managed));
        }
        Ok(())
    })
}

/// Gives the underlying table, which is what groups are about.
///
/// @param t  The hash table.
///
/// @return The table, which is borrowed and ends with `t`; NULL if `t` is NULL, closed or of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_table(t: *mut netshm_hashtbl) -> *mut netshm_table {
    // There is nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        // SAFETY: the header asks for a handle.
        return unsafe { table_slowly(t) };
    }
    // SAFETY: the header asks for a handle.
    match unsafe { handle::peek(t) } {
        Some(body) => part_of(body),
        // SAFETY: as above.
        None => unsafe { table_slowly(t) },
    }
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe extern "C" fn table_slowly(t: *mut netshm_hashtbl) -> *mut netshm_table {
    let mut part = std::ptr::null_mut();
    guard(&["t"], || {
        // SAFETY: the header asks for a handle.
        part = part_of(unsafe { handle::body(1, t) }?);
        Ok(())
    });
    part
}

/// The handle of the underlying table.
#[inline(always)]
fn part_of(body: &Body) -> *mut netshm_table {
    (&raw const body.part).cast_mut().cast()
}

/// Closes a hash table's handle. Open cursors and groups stay usable.
///
/// @param t  The handle; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_close(t: *mut netshm_hashtbl) -> c_int {
    guard(&["t"], || {
        if t.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        unsafe { handle::end(1, t) }
    })
}
