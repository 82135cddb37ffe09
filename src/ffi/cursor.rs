//! Walking over a table: by callback, and by cursor.

use super::call::{Fault, Outcome, guard, out, out_or_null};
use super::callback::{call_back, goes_on};
use super::error::NETSHM_OK;
use super::handle::{self, Noun, magic};
use super::hashtbl::{check_raw, kept, kept_key, netshm_hashtbl, netshm_slice};
use crate::cursor::Cursor;
use crate::error::Error;
use crate::hashtbl::HashTable;
use crate::txn::cursor::{Binding, Part};
use crate::typed::Types;
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Answer of a callback: that is enough. So does every unknown answer that is not negative.
#[allow(dead_code)] // for C only
pub const NETSHM_STOP: c_int = 0;
/// Answer of a callback: go on.
pub const NETSHM_CONTINUE: c_int = 1;

/// Sees one binding. The bytes are copies, which live while the callback runs. It may call everything.
///
/// @param key  The key.
/// @param val  The value; with netshm_hashtbl_iter_keys() `data` is NULL and `len` is 0.
/// @param arg  What was given to the call.
///
/// @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the call stops and fails with it (see "Callbacks"
///         at the top).
pub type netshm_iter_fn =
    Option<unsafe extern "C-unwind" fn(key: netshm_slice, val: netshm_slice, arg: *mut c_void) -> c_int>;

fn slice(bytes: &[u8]) -> netshm_slice {
    netshm_slice { data: bytes.as_ptr().cast(), len: bytes.len() }
}

const NOTHING: netshm_slice = netshm_slice { data: std::ptr::null(), len: 0 };

/// The table, if what is walked over is raw bytes.
///
/// # Safety
/// As for `handle::body`.
unsafe fn kept_for(t: *mut netshm_hashtbl, part: Part) -> Outcome<HashTable> {
    // SAFETY: the caller's promise.
    unsafe { if part == Part::Keys { kept_key(t) } else { kept(t) } }
}

/// Calls `visit` with each binding, or each key, until it wants no more.
fn walk(t: *mut netshm_hashtbl, part: Part, visit: netshm_iter_fn, arg: *mut c_void) -> Outcome {
    // SAFETY: the header asks for a handle.
    let table = unsafe { kept_for(t, part) }?;
    let visit = visit.ok_or(Fault::Null(2))?;
    let mut cursor = Cursor::owning(table, part);
    while let Some(binding) = cursor.advance() {
        let binding = binding?;
        let val = if part == Part::Bindings { slice(binding.value) } else { NOTHING };
        // SAFETY: the header asks for a function that can be called with these.
        if !goes_on(call_back(|| unsafe { visit(slice(binding.key), val, arg) }))? {
            break;
        }
    }
    Ok(())
}

/// Calls a callback with every binding, keys in any order, the bindings of one key newest first.
///
/// Nothing is locked meanwhile. A binding that is there from beginning to end is seen exactly once, one that is
/// made or removed meanwhile at most once. In a group the group's view is seen, and other writers wait until
/// the group ends.
///
/// @param t    The table.
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CALLBACK; else the
///         codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_iter(
    t: *mut netshm_hashtbl,
    r#fn: netshm_iter_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || walk(t, Part::Bindings, r#fn, arg))
}

/// Calls a callback with every key once. Else it is like netshm_hashtbl_iter().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_iter_keys(
    t: *mut netshm_hashtbl,
    r#fn: netshm_iter_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || walk(t, Part::Keys, r#fn, arg))
}

/// A walk over a table without a callback. Closed by netshm_cursor_close().
pub struct netshm_cursor {
    _opaque: [u8; 0],
}

/// What is behind a cursor's handle.
pub(super) struct Body {
    /// A call is using the walk. Not a mutex, whose way back costs as much as its way in: nobody ever waits.
    in_use: AtomicBool,
    walk: UnsafeCell<Walk>,
}

// SAFETY: the walk, which may move between threads, is reached by whoever has set the flag only.
unsafe impl Sync for Body where Walk: Send {}

struct Walk {
    cursor: Cursor<'static>,
    part: Part,
    /// What the cursor shows is of raw bytes.
    is_raw: bool,
    types: Types,
}

/// A walk that this call alone is using.
struct InUse<'a>(&'a Body);

impl Body {
    fn new(walk: Walk) -> Body {
        Body { in_use: AtomicBool::new(false), walk: UnsafeCell::new(walk) }
    }

    /// The walk, if no other call is using it.
    #[inline(always)]
    fn try_use(&self) -> Option<InUse<'_>> {
        if self.in_use.swap(true, Ordering::Acquire) { None } else { Some(InUse(self)) }
    }
}

impl Drop for InUse<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.in_use.store(false, Ordering::Release);
    }
}

impl Deref for InUse<'_> {
    type Target = Walk;
    #[inline(always)]
    fn deref(&self) -> &Walk {
        // SAFETY: this call has set the flag, and takes it back when it is through.
        unsafe { &*self.0.walk.get() }
    }
}

impl DerefMut for InUse<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Walk {
        // SAFETY: as above.
        unsafe { &mut *self.0.walk.get() }
    }
}

impl Noun for netshm_cursor {
    const MAGIC: u64 = magic::CURSOR;
    type Body = Body;
}

/// Flag of a cursor: every key once, without values.
pub const NETSHM_CURSOR_KEYS: u32 = 1;

/// Opens a cursor, which sees what netshm_hashtbl_iter() sees. It keeps its table open by itself.
///
/// @param t      The table.
/// @param flags  0 or #NETSHM_CURSOR_KEYS.
/// @param out    Receives the cursor. It may be used by any thread, but by one at a time.
///
/// @return NETSHM_OK, NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_cursor_open(
    t: *mut netshm_hashtbl,
    flags: u32,
    out: *mut *mut netshm_cursor,
) -> c_int {
    guard(&["t", "flags", "out"], || {
        let place = self::out(3, out)?;
        let part = match flags {
            0 => Part::Bindings,
            NETSHM_CURSOR_KEYS => Part::Keys,
            _ => return Err(Fault::Argument(2, "unknown flag")),
        };
        // SAFETY: the header asks for a handle.
        let body = unsafe { handle::body(1, t) }?;
        let cursor = Cursor::owning(body.table.clone(), part);
        let types = body.types.clone();
        let is_raw = check_shown(&types, part).is_ok();
        let walk = Walk { cursor, part, is_raw, types };
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(handle::open::<netshm_cursor>(Body::new(walk))) };
        Ok(())
    })
}

/// Moves a cursor to the next binding.
///
/// @param c    The cursor.
/// @param key  Receives the key; may be NULL.
/// @param val  Receives the value; may be NULL. With #NETSHM_CURSOR_KEYS `data` is NULL and `len` is 0.
///
/// The bytes belong to the cursor and live until the next call with it.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, there is no more; NETSHM_E_BUSY, another thread is using the cursor; else
///         the codes of netshm_hashtbl_find(). After an error the cursor is at its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_cursor_next(
    c: *mut netshm_cursor,
    key: *mut netshm_slice,
    val: *mut netshm_slice,
) -> c_int {
    // SAFETY: the header asks for a handle, and for valid places or NULL.
    if unsafe { next_quickly(c, key, val) } {
        return NETSHM_OK;
    }
    // SAFETY: as above.
    unsafe { next_any(c, key, val) }
}

/// The short way: the next binding, if nothing is unusual. False: the cursor has not moved.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn next_quickly(c: *mut netshm_cursor, key: *mut netshm_slice, val: *mut netshm_slice) -> bool {
    // There is nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return false;
    }
    // SAFETY: the caller's promise.
    let Some(mut walk) = unsafe { handle::peek(c) }.and_then(Body::try_use) else { return false };
    if !walk.is_raw {
        return false;
    }
    let part = walk.part;
    let Some(binding) = walk.cursor.advance_quickly() else { return false };
    // SAFETY: the caller's promise.
    unsafe { show(binding, part, key, val) };
    true
}

/// The general way.
///
/// # Safety
/// As for the export.
#[inline(never)]
unsafe fn next_any(c: *mut netshm_cursor, key: *mut netshm_slice, val: *mut netshm_slice) -> c_int {
    guard(&["c", "key", "val"], || {
        // SAFETY: the header asks for a handle.
        let mut walk = unsafe { walking(c) }?;
        check_shown(&walk.types, walk.part)?;
        let part = walk.part;
        let binding = walk.cursor.advance().transpose()?.ok_or(Fault::Core(Error::NotFound))?;
        // SAFETY: the header asks for valid places or NULL.
        unsafe { show(binding, part, key, val) };
        Ok(())
    })
}

/// Is what a cursor shows of raw bytes?
fn check_shown(types: &Types, part: Part) -> Outcome {
    check_raw("a key of raw bytes", &types.key)?;
    if part == Part::Bindings { check_raw("a value of raw bytes", &types.value) } else { Ok(()) }
}

/// # Safety
/// Both must be valid places or NULL.
#[inline(always)]
unsafe fn show(binding: Binding<'_>, part: Part, key: *mut netshm_slice, val: *mut netshm_slice) {
    let value = if part == Part::Bindings { slice(binding.value) } else { NOTHING };
    // SAFETY: the caller's promise.
    unsafe {
        out_or_null(key).put(slice(binding.key));
        out_or_null(val).put(value);
    }
}

/// A cursor in use by this call.
///
/// # Safety
/// As for `handle::body`.
unsafe fn walking<'a>(c: *mut netshm_cursor) -> Outcome<InUse<'a>> {
    // SAFETY: the caller's promise.
    let walk = unsafe { handle::body(1, c) }?.try_use();
    walk.ok_or(Fault::Core(Error::Busy("another thread is using the cursor")))
}

/// Moves a cursor to the next binding and hands it, encoded, to `take`.
///
/// # Safety
/// As for `handle::body`.
pub(super) unsafe fn next_binding(
    c: *mut netshm_cursor,
    take: impl FnOnce(Binding<'_>, &Types, Part) -> Result<(), Error>,
) -> Outcome {
    // SAFETY: the caller's promise.
    let mut walk = unsafe { walking(c) }?;
    let Walk { cursor, part, types, .. } = &mut *walk;
    let binding = cursor.advance().transpose()?.ok_or(Fault::Core(Error::NotFound))?;
    Ok(take(binding, types, *part)?)
}

/// Closes a cursor.
///
/// @param c  The cursor; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_cursor_close(c: *mut netshm_cursor) -> c_int {
    guard(&["c"], || {
        if c.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, c) }?);
        Ok(())
    })
}
