//! Arrays of any type: elements as cells.

use super::array::{self, netshm_array};
use super::call::{Fault, guard, out};
use super::callback::{call_back, goes_on};
use super::handle;
use super::hashtbl::netshm_type;
use super::object::netshm_object;
use super::options::{self, netshm_options};
use super::result::{self, Decoded, netshm_result};
use super::value::{cells, netshm_value};
use crate::array::Array;
use std::ffi::{c_int, c_void};

/// Views an object as an array. An empty object becomes one.
///
/// Two processes that do this at the same moment with a new object both get the one array.
///
/// @param o        The object. Its handle may be closed afterwards.
/// @param elem     The type of the elements. Left halves of pairs are not possible. NULL: whatever is recorded; then there
///                 must be an array, and the next three do not matter.
/// @param dflt     The cells of the value of elements that were never set. An array that is there keeps its own. NULL, with
///                 `nd` 0: whatever is recorded; then there must be an array.
/// @param nd       Their number.
/// @param length   The number of elements of a new array, at most 2^48. An array that is there keeps its own.
/// @param options  How; NULL gives the defaults.
/// @param out      Receives the handle.
///
/// @return NETSHM_OK; NETSHM_E_TYPE, its elements are of another type, or the cells are not of this type;
///         NETSHM_E_KIND, the object holds something else; NETSHM_E_INVALID, also for a new or re-initialised array
///         without a type or a default value; NETSHM_E_TOO_LARGE, also for a default value of more than 2048 bytes;
///         NETSHM_E_UNSUPPORTED; else the codes of netshm_hashtbl_manage().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_manage(
    o: *mut netshm_object,
    elem: *mut netshm_type,
    dflt: *const netshm_value,
    nd: usize,
    length: u64,
    options: *const netshm_options,
    out: *mut *mut netshm_array,
) -> c_int {
    guard(&["o", "elem", "dflt", "nd", "length", "options", "out"], || {
        let place = self::out(7, out)?;
        // SAFETY: the header asks for handles, cells, a structure that carries its size, and a valid place.
        unsafe {
            let (object, options) = (&handle::body(1, o)?.object, options::read(6, options)?);
            let elem = if elem.is_null() { None } else { Some(&handle::body(2, elem)?.of) };
            let (array, of) = match elem {
                Some(of) if !dflt.is_null() || nd != 0 => {
                    (Array::manage(object, of, &cells(3, dflt, nd)?, length, &options)?, of.clone())
                }
                _ => Array::manage_existing(object, elem, &options)?,
            };
            place.put(array::handle_of(array, of));
        }
        Ok(())
    })
}

/// Gets an element.
///
/// @param a  The array; safe to use from several threads.
/// @param i  The index, from 0.
/// @param r  Receives the cells of the element; see netshm_result_values().
///
/// @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_CORRUPT, it does not decode; else
///         the codes of netshm_array_get_int64() and netshm_hashtbl_find_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_get(a: *mut netshm_array, i: u64, r: *mut netshm_result) -> c_int {
    guard(&["a", "i", "r"], || {
        // SAFETY: the header asks for handles.
        unsafe {
            let mut filling = result::fill(3, r)?;
            let (array, of) = array::typed(a)?;
            *filling.raw() = array.get(i)?;
            Ok(filling.decode(of)?)
        }
    })
}

/// Sets an element.
///
/// @param a  The array; safe to use from several threads.
/// @param i  The index, from 0.
/// @param v  The cells of the new value.
/// @param n  Their number.
///
/// @return NETSHM_OK; NETSHM_E_RANGE, the index is not below the length; NETSHM_E_TYPE, the cells are not of the
///         elements' type; NETSHM_E_OVERFLOW, a number does not fit; else the codes of netshm_hashtbl_add(). Nothing
///         has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_set(
    a: *mut netshm_array,
    i: u64,
    v: *const netshm_value,
    n: usize,
) -> c_int {
    guard(&["a", "i", "v", "n"], || {
        // SAFETY: the header asks for a handle and for readable cells.
        unsafe {
            let (array, of) = array::typed(a)?;
            let encoded = of.encode(&cells(3, v, n)?).map_err(Fault::Core)?;
            Ok(array.set(i, &encoded)?)
        }
    })
}

/// Gets the value of elements that were never set.
///
/// @param a  The array.
/// @param r  Receives its cells.
///
/// @return As netshm_array_get().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_default(a: *mut netshm_array, r: *mut netshm_result) -> c_int {
    guard(&["a", "r"], || {
        // SAFETY: the header asks for handles.
        unsafe {
            let mut filling = result::fill(2, r)?;
            let (array, of) = array::typed(a)?;
            *filling.raw() = array.default_value()?;
            Ok(filling.decode(of)?)
        }
    })
}

/// Sees one element. Cells, bytes and objects live while the callback runs. It may call everything.
///
/// @param i    The element's index.
/// @param v    The cells of the element.
/// @param n    Their number.
/// @param arg  What was given to the call.
///
/// @return As of netshm_array_iter_fn.
pub type netshm_array_iter_v_fn =
    Option<unsafe extern "C-unwind" fn(i: u64, v: *const netshm_value, n: usize, arg: *mut c_void) -> c_int>;

/// Calls a callback with every element that is set; else it is like netshm_array_iter().
///
/// @param a    The array.
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CORRUPT, an element does
///         not decode; a custom type's answer; else the codes of netshm_array_iter().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_array_iter_v(
    a: *mut netshm_array,
    r#fn: netshm_array_iter_v_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["a", "fn", "arg"], || {
        // The callback may close the handle: array and type are kept.
        // SAFETY: the header asks for a handle.
        let (array, of) = unsafe { array::typed(a) }.map(|(array, of)| (array.clone(), of.clone()))?;
        let visit = r#fn.ok_or(Fault::Null(2))?;
        let mut decoded = Decoded::default();
        for element in array.iter() {
            let (i, encoded) = element?;
            decoded.clear();
            decoded.push(&of, &encoded)?;
            decoded.settle();
            let cells = decoded.value(0).unwrap_or_default();
            // SAFETY: the header asks for a function that can be called with these.
            if !goes_on(call_back(|| unsafe { visit(i, cells.as_ptr(), cells.len(), arg) }))? {
                break;
            }
        }
        Ok(())
    })
}
