//! Hash tables: managing, changing, finding.
//!
//! The four hot calls (find, add, replace, incr) try the short way first, outside of the guard against panics:
//! it has nothing that could panic, and setting up the guard would cost as much as a tenth of a find.

use super::call::{Fault, Outcome, bytes, guard, out, out_or_null};
use super::error::allocate;
use super::error::{NETSHM_E_NOT_FOUND, NETSHM_OK};
use super::handle::{self, Handle, Noun, magic};
use super::object::netshm_object;
use super::options::{self, netshm_options};
use crate::error::Error;
use crate::hashtbl::{HashTable, Quick, QuickCopy};
use crate::index::find::is_short_key;
use crate::table::Table;
use crate::typed::{self, Types};
use crate::types::Type;
use std::ffi::{c_int, c_void};
use std::mem::size_of;

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

/// Bytes somewhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_slice {
    /// The first byte.
    pub data: *const c_void,
    /// Their number.
    pub len: usize,
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
    let (table, body) = unsafe { (live_key(t)?, handle::body(1, t)?) };
    check_raw("a value of raw bytes", &body.types.value)?;
    Ok(table)
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

/// The table and the key, if there is nothing to complain about.
///
/// # Safety
/// As for `handle::body` and `call::bytes`.
#[inline(always)]
unsafe fn quick_arguments<'a>(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
) -> Option<(&'a HashTable, &'a [u8])> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return None;
    }
    if key.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let table = unsafe { &handle::peek(t)?.table };
    if !is_short_key(key_len) {
        return None;
    }
    // SAFETY: the caller's promise; the length was just checked.
    Some((table, unsafe { std::slice::from_raw_parts(key.cast(), key_len) }))
}

/// What an operation has left to be done.
#[cold]
fn chores(t: &HashTable) -> c_int {
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
unsafe fn quick_bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    if data.is_null() {
        return None;
    }
    if len > isize::MAX as usize {
        return None;
    }
    // SAFETY: the caller's promise; the length was just checked.
    Some(unsafe { std::slice::from_raw_parts(data.cast(), len) })
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
///         reading only; NETSHM_E_CORRUPT; NETSHM_E_UNSUPPORTED, something reserved was asked for;
///         NETSHM_E_IN_GROUP, to re-initialise; NETSHM_E_NO_SPACE, NETSHM_E_NO_MEMORY, NETSHM_E_BUSY,
///         NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
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
    let mut part = std::ptr::null_mut();
    guard(&["t"], || {
        // SAFETY: the header asks for a handle.
        part = (&raw const unsafe { handle::body(1, t) }?.part).cast_mut().cast();
        Ok(())
    });
    part
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
        drop(unsafe { handle::close(1, t) }?);
        Ok(())
    })
}

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
    // SAFETY: the header asks for a handle and for readable bytes.
    if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
        // SAFETY: as above.
        if let Some(val) = unsafe { quick_bytes(val, val_len) } {
            match t.add_quickly(key, val) {
                Quick::Done(()) => return NETSHM_OK,
                Quick::DoneWithChores(()) => return chores(t),
                Quick::NotDone => {}
            }
        }
    }
    // SAFETY: as above.
    unsafe { add_slowly(t, key, key_len, val, val_len) }
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn add_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    guard(&["t", "key", "key_len", "val", "val_len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key, val) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?, bytes(4, val, val_len)?) };
        Ok(t.add(key, val)?)
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
    // SAFETY: the header asks for a handle and for readable bytes.
    if let Some((t, key)) = unsafe { quick_arguments(t, key, key_len) } {
        // SAFETY: as above.
        if let Some(val) = unsafe { quick_bytes(val, val_len) } {
            match t.replace_quickly(key, val) {
                Quick::Done(()) => return NETSHM_OK,
                Quick::DoneWithChores(()) => return chores(t),
                Quick::NotDone => {}
            }
        }
    }
    // SAFETY: as above.
    unsafe { replace_slowly(t, key, key_len, val, val_len) }
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn replace_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    guard(&["t", "key", "key_len", "val", "val_len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key, val) = unsafe { (live_raw(t)?, bytes(2, key, key_len)?, bytes(4, val, val_len)?) };
        Ok(t.replace(key, val)?)
    })
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
///         NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, the way was blocked by a writer; NETSHM_E_BUSY;
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
unsafe fn find_slowly(
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

/// A block on its way to the caller.
pub(super) struct Block {
    pub(super) data: *mut u8,
    pub(super) size: usize,
}

impl Block {
    pub(super) fn new(size: usize) -> Result<Block, Error> {
        Ok(Block { data: allocate(size)?, size })
    }

    pub(super) fn give(self) -> *mut c_void {
        std::mem::ManuallyDrop::new(self).data.cast()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated for netshm_free, and has not been given away.
        unsafe { super::error::netshm_free(self.data.cast()) };
    }
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
unsafe fn incr_slowly(
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
    guard(&["t", "key", "key_len", "old", "old_len", "val", "val_len"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key, old, val) = unsafe {
            (live_raw(t)?, bytes(2, key, key_len)?, bytes(4, old, old_len)?, bytes(6, val, val_len)?)
        };
        Ok(t.compare_and_replace(key, old, val)?)
    })
}
