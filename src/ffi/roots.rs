//! The tables of an object: listing and removing them by name.

use super::call::{Fault, guard, out, text_or_null};
use super::error::allocate;
use super::handle;
use super::object::netshm_object;
use crate::error::Error;
use crate::table::TableInfo;
use std::ffi::{c_char, c_int};
use std::mem::size_of;

/// Kind of table: hash table.
#[allow(dead_code)] // for C only
pub const NETSHM_TABLE_HASHTBL: u32 = 1;
/// Kind of table: array.
#[allow(dead_code)] // for C only
pub const NETSHM_TABLE_ARRAY: u32 = 2;
/// Kind of table: primitive table, 32-bit integers to arrays of 32-bit integers.
#[allow(dead_code)] // for C only
pub const NETSHM_TABLE_PRIMITIVE: u32 = 3;

/// A table of an object.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_root_info {
    /// Its name; NULL for the unnamed table.
    pub name: *const c_char,
    /// Signature of the keys' type; empty for raw bytes.
    pub key_type: *const c_char,
    /// Signature of the values' type; empty for raw bytes.
    pub value_type: *const c_char,
    /// One of the NETSHM_TABLE_ numbers.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

/// Lists the tables of an object, the unnamed one first.
///
/// @param o    The object.
/// @param out  Receives an array in one block with all its strings, to be freed by netshm_free(); NULL if there are none.
/// @param n    Receives the number of tables.
///
/// @return NETSHM_OK; NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, a dead writer is in the way of a read-only handle, or
///         somebody has been making or removing a table for longer than the netshm_options.lock_timeout_ms that was given
///         last with this handle of the object; NETSHM_E_BUSY, the tables changed each time they were read;
///         NETSHM_E_NO_MEMORY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_roots(
    o: *mut netshm_object,
    out: *mut *mut netshm_root_info,
    n: *mut usize,
) -> c_int {
    guard(&["o", "out", "n"], || {
        let (list, count) = (self::out(2, out)?, self::out(3, n)?);
        // SAFETY: the header asks for a handle.
        let all = unsafe { handle::body(1, o) }?.object.tables()?;
        let block = pack(&all)?;
        // SAFETY: the header asks for valid places.
        unsafe {
            list.put(block);
            count.put(all.len());
        }
        Ok(())
    })
}

/// One block with an array of descriptions and the strings that they point to.
fn pack(all: &[TableInfo]) -> Result<*mut netshm_root_info, Error> {
    if all.is_empty() {
        return Ok(std::ptr::null_mut());
    }
    let texts =
        |info: &TableInfo| [info.name.clone(), Some(info.key_type.clone()), Some(info.value_type.clone())];
    let head = all.len() * size_of::<netshm_root_info>();
    let tail: usize = all.iter().flat_map(texts).flatten().map(|text| text.len() + 1).sum();
    let block: *mut u8 = allocate(head + tail)?;
    let infos: *mut netshm_root_info = block.cast();
    let mut at = head;
    for (i, info) in all.iter().enumerate() {
        let [name, key_type, value_type] = texts(info).map(|text| match text {
            None => std::ptr::null(),
            Some(text) => {
                // SAFETY: the block was made for all descriptions and all texts, each with a zero behind it.
                let place = unsafe {
                    let place = block.add(at);
                    place.copy_from_nonoverlapping(text.as_ptr(), text.len());
                    place.add(text.len()).write(0);
                    place
                };
                at += text.len() + 1;
                place.cast_const().cast::<c_char>()
            }
        });
        let kind = info.kind as u32;
        // SAFETY: as above.
        unsafe { infos.add(i).write(netshm_root_info { name, key_type, value_type, kind, reserved: 0 }) };
    }
    Ok(infos)
}

/// Removes a named table with all that it holds, in one transaction. Its handles give NETSHM_E_STALE until a table of
/// the same name, kind and types is there again, which they then are of.
///
/// @param o     The object, open for writing.
/// @param name  The name of the table.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_IN_GROUP; NETSHM_E_IN_CALLBACK, from an update of the same object;
///         NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_READ_ONLY; NETSHM_E_TIMEOUT,
///         groups are open for longer than the netshm_options.lock_timeout_ms that was given last with this handle of the
///         object; NETSHM_E_DEADLOCK, only where somebody damages the object; NETSHM_E_CORRUPT; NETSHM_E_NO_SPACE;
///         NETSHM_E_NO_MEMORY; NETSHM_E_SYSTEM; NETSHM_E_BUSY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_root_drop(o: *mut netshm_object, name: *const c_char) -> c_int {
    guard(&["o", "name"], || {
        // SAFETY: the header asks for a handle and for a string.
        let (object, name) = unsafe { (&handle::body(1, o)?.object, text_or_null(name)) };
        let name = name.ok_or(Fault::Null(2))?.to_str().ok_or(Fault::Argument(2, "it is not UTF-8"))?;
        Ok(object.drop_table(name).map_err(|e| match e {
            Error::Invalid { reason, .. } => Error::Invalid { argument: "name", reason },
            other => other,
        })?)
    })
}
