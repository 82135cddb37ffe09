//! Arrays.
//!
//! The three hot calls (get, set and add to an integer) try the short way first, outside of the guard against
//! panics, as those of hash tables do.

use super::call::{Fault, Outcome, guard, out, out_or_null};
use super::callback::{call_back, goes_on};
use super::error::NETSHM_OK;
use super::handle::{self, Handle, Noun, magic};
use super::hashtbl::{netshm_slice, netshm_table};
use super::object::netshm_object;
use super::options::{self, netshm_options};
use crate::array::Array;
use crate::error::Error;
use crate::hashtbl::Quick;
use crate::table::Table;
use crate::types::Type;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

/// An array in an object. Elements that were never set show the default value and take no memory. Closed by
/// netshm_array_close().
pub struct netshm_array {
    _opaque: [u8; 0],
}

/// What is behind an array's handle.
pub(super) struct Body {
    array: Array,
    /// The type of its elements.
    of: Type,
    /// What netshm_array_table() gives.
    part: Handle<Table>,
}

impl Drop for Body {
    fn drop(&mut self) {
        // SAFETY: this is the one end of it.
        unsafe { self.part.drop_part() };
    }
}

impl Noun for netshm_array {
    const MAGIC: u64 = magic::ARRAY;
    type Body = Body;

    fn closing(body: &Body) {
        body.part.close_part();
    }
}

/// The array behind a handle.
///
/// # Safety
/// As for `handle::body`.
unsafe fn live<'a>(a: *mut netshm_array) -> Outcome<&'a Array> {
    // SAFETY: the caller's promise.
    unsafe { handle::body(1, a) }.map(|body| &body.array)
}

/// The array behind a handle, and the type of its elements.
///
/// # Safety
/// As for `handle::body`.
pub(super) unsafe fn typed<'a>(a: *mut netshm_array) -> Outcome<(&'a Array, &'a Type)> {
    // SAFETY: the caller's promise.
    unsafe { handle::body(1, a) }.map(|body| (&body.array, &body.of))
}

/// What is behind an array's handle, for the short ways.
///
/// # Safety
/// As for `handle::peek`.
#[inline(always)]
unsafe fn quick<'a>(a: *mut netshm_array) -> Option<&'a Body> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { handle::peek(a) }
}

/// What an operation has left to be done.
#[cold]
fn chores(a: &Array) -> c_int {
    guard(&[], || {
        a.do_chores();
        Ok(())
    })
}

/// A new handle.
pub(super) fn handle_of(array: Array, of: Type) -> *mut netshm_array {
    let part = Handle::part::<netshm_table>(array.table().clone());
    handle::open(Body { array, of, part })
}

/// Views an object as an array of integers of 64 bits, type `int64`. An empty object becomes one.
///
/// Two processes that do this at the same moment with a new object both get the one array.
///
/// @param o        The object. Its handle may be closed afterwards.
/// @param dflt     The value of elements that were never set. An array that is there keeps its own.
/// @param length   The number of elements of a new array, at most 2^48. An array that is there keeps its own.
/// @param options  How; NULL gives the defaults.
/// @param out      Receives the handle.
///
/// @return NETSHM_OK; NETSHM_E_TYPE, its elements are of another type; NETSHM_E_KIND, the object holds something
///         else; NETSHM_E_TOO_LARGE; else the codes of netshm_hashtbl_manage().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_manage_int64(
    o: *mut netshm_object,
    dflt: i64,
    length: u64,
    options: *const netshm_options,
    out: *mut *mut netshm_array,
) -> c_int {
    guard(&["o", "dflt", "length", "options", "out"], || {
        let place = self::out(5, out)?;
        // SAFETY: the header asks for a handle, a structure that carries its size, and a valid place.
        let (object, options) = unsafe { (&handle::body(1, o)?.object, options::read(4, options)?) };
        let array = Array::manage_i64(object, dflt, length, &options)?;
        // SAFETY: as above.
        unsafe { place.put(handle_of(array, Type::int64())) };
        Ok(())
    })
}

/// Gives the underlying table, which is what groups are about.
///
/// @param a  The array.
///
/// @return The table, which is borrowed and ends with `a`; NULL if `a` is NULL, closed or of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_table(a: *mut netshm_array) -> *mut netshm_table {
    let mut part = std::ptr::null_mut();
    guard(&["a"], || {
        // SAFETY: the header asks for a handle.
        part = (&raw const unsafe { handle::body(1, a) }?.part).cast_mut().cast();
        Ok(())
    });
    part
}

/// Closes an array's handle. Open groups stay usable.
///
/// @param a  The handle; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_close(a: *mut netshm_array) -> c_int {
    guard(&["a"], || {
        if a.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, a) }?);
        Ok(())
    })
}

/// Gives the number of elements. In a group nobody else changes it until the group ends.
///
/// @param a  The array; safe to use from several threads.
/// @param n  Receives the number.
///
/// @return NETSHM_OK; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, in a group; NETSHM_E_IN_CALLBACK, from an update in a group on
///         the same object; NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_CORRUPT, NETSHM_E_STALE,
///         NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_length(a: *mut netshm_array, n: *mut u64) -> c_int {
    guard(&["a", "n"], || {
        let place = out(2, n)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(live(a)?.length()?) };
        Ok(())
    })
}

/// Changes the number of elements. New ones show the default value; those cut off are gone, also if the array
/// grows again. Everybody else is kept out meanwhile.
///
/// @param a  The array.
/// @param n  The new number, at most 2^48.
///
/// @return NETSHM_OK; NETSHM_E_TOO_LARGE; else the codes of netshm_array_set_int64(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_resize(a: *mut netshm_array, n: u64) -> c_int {
    guard(&["a", "n"], || {
        // SAFETY: the header asks for a handle.
        Ok(unsafe { live(a) }?.resize(n)?)
    })
}

/// Reads an element of an array of integers: of type `int`, `int32`, `int64`, `nativeint` or `uint`.
///
/// This takes no lock and makes no system call, unless a process has died in the middle of a change.
///
/// @param a      The array; safe to use from several threads.
/// @param i      The index, from 0.
/// @param value  Receives the element.
///
/// @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_TYPE, elements are not integers;
///         NETSHM_E_OVERFLOW, a `uint` beyond 2^63 - 1; NETSHM_E_CORRUPT; NETSHM_E_TIMEOUT, the way was blocked by
///         a writer; NETSHM_E_BUSY; NETSHM_E_STALE; NETSHM_E_DEADLOCK, NETSHM_E_IN_CALLBACK and NETSHM_E_FORKED as for
///         netshm_hashtbl_add(); NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_get_int64(a: *mut netshm_array, i: u64, value: *mut i64) -> c_int {
    // SAFETY: the header asks for a handle.
    if let Some(body) = unsafe { quick(a) } {
        if let Some(now) = body.array.get_i64_quickly(i).filter(|_| !value.is_null()) {
            // SAFETY: the header asks for a valid place.
            unsafe { value.write_unaligned(now) };
            return NETSHM_OK;
        }
    }
    guard(&["a", "i", "value"], || {
        let place = out(3, value)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(live(a)?.get_i64(i)?) };
        Ok(())
    })
}

/// Sets an element of an array of integers.
///
/// @param a      The array; safe to use from several threads.
/// @param i      The index, from 0.
/// @param value  The new value.
///
/// @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_TYPE, elements are not integers;
///         NETSHM_E_OVERFLOW, the value does not fit into an element; else the codes of netshm_hashtbl_add().
///         Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_set_int64(a: *mut netshm_array, i: u64, value: i64) -> c_int {
    // SAFETY: the header asks for a handle.
    if let Some(body) = unsafe { quick(a) } {
        match body.array.set_i64_quickly(i, value) {
            Quick::Done(()) => return NETSHM_OK,
            Quick::DoneWithChores(()) => return chores(&body.array),
            Quick::NotDone => {}
        }
    }
    guard(&["a", "i", "value"], || {
        // SAFETY: the header asks for a handle.
        Ok(unsafe { live(a) }?.set_i64(i, value)?)
    })
}

/// Adds to an element of an array of integers, in one step.
///
/// @param a      The array; safe to use from several threads.
/// @param i      The index, from 0.
/// @param delta  What to add; may be negative.
/// @param now    Receives the sum; may be NULL.
///
/// @return NETSHM_OK; NETSHM_E_OVERFLOW, the sum does not fit into an element; else the codes of
///         netshm_array_set_int64(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_incr(a: *mut netshm_array, i: u64, delta: i64, now: *mut i64) -> c_int {
    // SAFETY: the header asks for a handle.
    if let Some(body) = unsafe { quick(a) } {
        let quick = body.array.increment_quickly(i, delta);
        if let Quick::Done(sum) | Quick::DoneWithChores(sum) = quick {
            // SAFETY: the header asks for a valid place or NULL.
            unsafe { out_or_null(now).put(sum) };
            return if matches!(quick, Quick::Done(_)) { NETSHM_OK } else { chores(&body.array) };
        }
    }
    guard(&["a", "i", "delta", "now"], || {
        // SAFETY: the header asks for a handle and for a valid place or NULL.
        unsafe {
            let sum = live(a)?.increment(i, delta)?;
            out_or_null(now).put(sum);
        }
        Ok(())
    })
}

/// The array and the number of bytes of a slice, if elements are of this size.
///
/// # Safety
/// As for `handle::body`.
unsafe fn slice_arguments<'a>(
    a: *mut netshm_array,
    n: usize,
    buf: *const c_void,
    elem_size: usize,
) -> Outcome<(&'a Array, usize)> {
    // SAFETY: the caller's promise.
    let array = unsafe { live(a) }?;
    if array.element_bytes()? != elem_size as u64 {
        return Err(Fault::Argument(5, "the elements are of another size"));
    }
    if buf.is_null() && n != 0 {
        return Err(Fault::Null(4));
    }
    match n.checked_mul(elem_size) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok((array, bytes)),
        _ => Err(Fault::Core(Error::Range)),
    }
}

/// Copies a slice of elements into the caller's buffer: all of them as they were at one moment.
///
/// Elements lie there one after the other as they are stored: integers and doubles in little-endian byte order, which
/// is that of the machine nearly everywhere. Types whose encoding is not of one size, or of more than 256 bytes,
/// have no slices.
///
/// @param a          The array; safe to use from several threads.
/// @param first      Index of the first element.
/// @param n          The number of elements.
/// @param buf        Receives n * elem_size bytes; may be NULL only if n is 0. What it holds after any other code
///                   than NETSHM_OK is unspecified.
/// @param elem_size  Bytes of an element: 4 for `int32`, 8 for the other numbers.
///
/// @return NETSHM_OK; NETSHM_E_RANGE, not all of the slice is inside of the array; NETSHM_E_TYPE, there are no
///         slices of this type; NETSHM_E_INVALID, elements are of another size; else the codes of
///         netshm_array_get_int64().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_read(
    a: *mut netshm_array,
    first: u64,
    n: usize,
    buf: *mut c_void,
    elem_size: usize,
) -> c_int {
    guard(&["a", "first", "n", "buf", "elem_size"], || {
        // SAFETY: the header asks for a handle.
        let (array, bytes) = unsafe { slice_arguments(a, n, buf, elem_size) }?;
        let into: &mut [MaybeUninit<u8>] = match bytes {
            0 => &mut [],
            // SAFETY: the header asks for so many writable bytes; the length was checked.
            _ => unsafe { std::slice::from_raw_parts_mut(buf.cast(), bytes) },
        };
        Ok(array.read_raw(first, into)?)
    })
}

/// Sets a slice of elements in one transaction: others see all of them or none.
///
/// The new values are written beside the old ones, and the two take turns: up to 1 MB of the object's memory stays
/// with the calling thread for its next slice. A thread that writes long slices within ten seconds of each other keeps
/// as much as the longest (64 MB at most), if as much is left for others, until it does something else, such as a group,
/// or ends.
///
/// @param a          The array; safe to use from several threads.
/// @param first      Index of the first element.
/// @param n          The number of elements.
/// @param buf        n * elem_size bytes, as netshm_array_read() gives them; may be NULL only if n is 0.
/// @param elem_size  Bytes of an element.
///
/// @return As netshm_array_read(), and the codes of netshm_array_set_int64(). Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_write(
    a: *mut netshm_array,
    first: u64,
    n: usize,
    buf: *const c_void,
    elem_size: usize,
) -> c_int {
    guard(&["a", "first", "n", "buf", "elem_size"], || {
        // SAFETY: the header asks for a handle.
        let (array, bytes) = unsafe { slice_arguments(a, n, buf, elem_size) }?;
        let from: &[u8] = match bytes {
            0 => &[],
            // SAFETY: the header asks for so many readable bytes; the length was checked.
            _ => unsafe { std::slice::from_raw_parts(buf.cast(), bytes) },
        };
        Ok(array.write(first, from)?)
    })
}

/// Sees one element. The bytes are a copy, which lives while the callback runs. It may call everything.
///
/// @param i        The element's index.
/// @param encoded  The element as it is stored, see netshm_array_read().
/// @param arg      What was given to the call.
///
/// @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the call stops and fails with it (see "Callbacks"
///         at the top).
pub type netshm_array_iter_fn =
    Option<unsafe extern "C-unwind" fn(i: u64, encoded: netshm_slice, arg: *mut c_void) -> c_int>;

/// Calls a callback with every element that is set, in any order.
///
/// Nothing is locked meanwhile. An element that is set from beginning to end is seen exactly once, one that is
/// set meanwhile at most once. In a group the group's view is seen, and other writers wait until the group ends.
///
/// @param a    The array.
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CALLBACK; else the
///         codes of netshm_array_get_int64().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_iter(
    a: *mut netshm_array,
    r#fn: netshm_array_iter_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["a", "fn", "arg"], || {
        // SAFETY: the header asks for a handle. The array is kept open also if the callback closes it.
        let array = unsafe { live(a) }?.clone();
        let visit = r#fn.ok_or(Fault::Null(2))?;
        for element in array.iter() {
            let (i, bytes) = element?;
            let encoded = netshm_slice { data: bytes.as_ptr().cast(), len: bytes.len() };
            // SAFETY: the header asks for a function that can be called with these.
            if !goes_on(call_back(|| unsafe { visit(i, encoded, arg) }))? {
                break;
            }
        }
        Ok(())
    })
}
