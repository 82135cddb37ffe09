//! What every export does: catch panics, check pointers, turn an outcome into a number.
//!
//! Owns the way from a [`Fault`] to a code. The detail that goes with a code is kept by `error`.

use super::error::{self, Detail};
use crate::error::Error;
use std::any::Any;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call fails.
pub(super) enum Fault {
    /// The library says so.
    Core(Error),
    /// The argument of this number is NULL.
    Null(u32),
    /// The argument of this number is wrong.
    Argument(u32, &'static str),
    /// The signature at the argument of this number is wrong at this byte.
    Signature(u32, usize, &'static str),
    /// A callback answered with this negative number.
    Answer(c_int),
}

impl From<Error> for Fault {
    #[inline(always)]
    fn from(e: Error) -> Fault {
        Fault::Core(e)
    }
}

/// Outcome of the body of an export.
pub(super) type Outcome<T = ()> = Result<T, Fault>;

/// Names of an export's arguments, in order.
pub(super) type Names = &'static [&'static str];

/// Runs the body of an export. `names` are those of its arguments.
#[inline(always)]
pub(super) fn guard(names: Names, body: impl FnOnce() -> Outcome) -> c_int {
    let body = || {
        #[cfg(feature = "inject")]
        super::inject::panic_if_armed();
        body()
    };
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => error::NETSHM_OK,
        Ok(Err(fault)) => fail(fault, names),
        Err(panic) => panicked(panic),
    }
}

/// Runs the body of an export that cannot fail; a panic gives `otherwise`.
pub(super) fn guard_value<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// The number of a failure; the frequent ones leave no detail behind.
#[inline(never)]
fn fail(fault: Fault, names: Names) -> c_int {
    match fault {
        Fault::Core(Error::NotFound) => error::NETSHM_E_NOT_FOUND,
        Fault::Core(Error::Exists) => error::NETSHM_E_EXISTS,
        Fault::Core(Error::TooSmall { .. }) => error::NETSHM_E_TOO_SMALL,
        Fault::Core(Error::Changed) => error::NETSHM_E_CHANGED,
        other => fail_with_detail(other, names),
    }
}

#[cold]
fn fail_with_detail(fault: Fault, names: Names) -> c_int {
    let named = |number: u32| names.get(number.wrapping_sub(1) as usize).copied().unwrap_or("?");
    match fault {
        Fault::Core(Error::Invalid { argument, reason }) => {
            let number = number_of(argument, names);
            let text = format!("invalid argument {number} ({argument}): {reason}");
            error::record(
                Detail { code: error::NETSHM_E_INVALID, argument: number, ..Detail::default() },
                &text,
            )
        }
        // It comes from a type's conversion, and the answer is the callback's.
        Fault::Core(Error::Callback(answer)) => error::record_answer(answer),
        Fault::Core(e) => error::record_core(&e),
        Fault::Null(number) => {
            let text = format!("invalid argument {number} ({}): it is NULL", named(number));
            error::record(
                Detail { code: error::NETSHM_E_INVALID, argument: number, ..Detail::default() },
                &text,
            )
        }
        Fault::Argument(number, reason) => {
            let text = format!("invalid argument {number} ({}): {reason}", named(number));
            error::record(
                Detail { code: error::NETSHM_E_INVALID, argument: number, ..Detail::default() },
                &text,
            )
        }
        Fault::Signature(number, position, reason) => {
            let text = format!(
                "invalid argument {number} ({}): bad signature at byte {position}: {reason}",
                named(number)
            );
            let (code, offset) = (error::NETSHM_E_INVALID, position as i64);
            error::record(Detail { code, argument: number, offset, ..Detail::default() }, &text)
        }
        Fault::Answer(answer) => error::record_answer(answer),
    }
}

/// The number of a named argument; fields of the options count as the options.
fn number_of(argument: &str, names: Names) -> u32 {
    let position = |name: &str| names.iter().position(|n| *n == name);
    position(argument).or_else(|| position("options")).map_or(0, |at| at as u32 + 1)
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> c_int {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    let text = format!("internal error, please report: {message}");
    // What a panic carries may panic when it is dropped.
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        error::record(Detail { code: error::NETSHM_E_PANIC, ..Detail::default() }, &text)
    }));
    std::mem::forget(panic);
    dropped.unwrap_or(error::NETSHM_E_PANIC)
}

/// The longest key and the longest value, in bytes.
const LONGEST: u64 = 1 << 40;

/// Complains of a length that no key and no value has, before any byte is looked at.
#[inline(always)]
pub(super) fn check_length(bytes: usize) -> Outcome {
    if bytes as u64 > LONGEST || bytes > isize::MAX as usize { Err(too_long()) } else { Ok(()) }
}

#[cold]
fn too_long() -> Fault {
    Fault::Core(Error::TooLarge("a key or a value of more than 2^40 bytes"))
}

/// The bytes of an argument; NULL is an empty slice if `len` is 0.
///
/// # Safety
/// If it is not NULL, `len` bytes must be readable there during `'a`, and not change.
#[inline(always)]
pub(super) unsafe fn bytes<'a>(number: u32, data: *const c_void, len: usize) -> Outcome<&'a [u8]> {
    if data.is_null() {
        return if len == 0 { Ok(&[]) } else { Err(Fault::Null(number)) };
    }
    check_length(len)?;
    // SAFETY: the caller's promise; the length was just checked.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// A string argument that may be NULL.
///
/// # Safety
/// If it is not NULL, it must be NUL-terminated, and not change during `'a`.
pub(super) unsafe fn text_or_null<'a>(text: *const c_char) -> Option<&'a OsStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// A place for an output.
#[inline(always)]
pub(super) fn out<T>(number: u32, place: *mut T) -> Outcome<Out<T>> {
    if place.is_null() { Err(Fault::Null(number)) } else { Ok(Out(place)) }
}

/// A place for an output that may be NULL, which means that the caller does not want it.
#[inline(always)]
pub(super) fn out_or_null<T>(place: *mut T) -> Out<T> {
    Out(place)
}

/// A place for an output, unwritten as yet.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the output, if it is wanted.
    ///
    /// # Safety
    /// The place must be NULL, or valid for writing. It need not be aligned or initialised.
    #[inline(always)]
    pub(super) unsafe fn put(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller's promise.
            unsafe { self.0.write_unaligned(value) };
        }
    }
}
