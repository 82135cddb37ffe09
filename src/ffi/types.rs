//! Type objects, and how a custom type's callbacks become conversions.

use super::call::{Fault, Outcome, guard, out};
use super::callback::call_back;
use super::error::{MOST_SIZE, NETSHM_E_CALLBACK, NETSHM_OK};
use super::handle::{self, Noun, magic};
use super::hashtbl::{netshm_slice, netshm_type};
use super::update::{collect, netshm_update};
use crate::error::Error;
use crate::types::{Codec, CustomObject, Type};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::size_of;
use std::sync::Arc;

/// What is behind a type's handle.
pub(super) struct Body {
    pub(super) of: Type,
    /// What netshm_type_signature() gives.
    signature: CString,
}

impl Noun for netshm_type {
    const MAGIC: u64 = magic::TYPE;
    type Body = Body;
}

fn open(of: Type) -> Outcome<*mut netshm_type> {
    // A signature has no zero byte.
    let signature = CString::new(of.signature()).unwrap_or_default();
    Ok(handle::open(Body { of, signature }))
}

/// A signature as the caller gives it.
///
/// # Safety
/// If it is not NULL, it must be NUL-terminated.
pub(super) unsafe fn parse(number: u32, signature: *const c_char) -> Outcome<Type> {
    if signature.is_null() {
        return Err(Fault::Null(number));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(signature) };
    Type::parse_bytes(text.to_bytes()).map_err(|e| match e {
        Error::Signature { position, reason } => Fault::Signature(number, position, reason),
        e => Fault::Core(e),
    })
}

/// Makes the type that a signature describes, for instance `int`, `(int,string?)`, `int32[]`.
///
/// @param signature  Its text. docs/types.md has the grammar: the simple types `int`, `int32`, `int64`,
///                   `nativeint`, `uint`, `double`, `string`, `bytes`, `int32[]` and `custom:NAME`; pairs
///                   `(A,B)`; `(A,_)`, the left half of any pair that begins with A; options `A?`.
/// @param out        Receives the type, to be closed by netshm_type_close().
///
/// @return NETSHM_OK; NETSHM_E_INVALID, it is no signature: `offset` of #netshm_error is the position, counted
///         from 0, of the first byte that cannot be there: what stands before it is the beginning of some
///         signature, and with it no more is (3 for `integer`); it is the length of a text that only ends too
///         early; NETSHM_E_TOO_LARGE, more than 504 bytes or nested more than 32 deep.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_parse(signature: *const c_char, out: *mut *mut netshm_type) -> c_int {
    guard(&["signature", "out"], || {
        let place = self::out(2, out)?;
        // SAFETY: the header asks for a string and a valid place.
        unsafe { place.put(open(parse(1, signature)?)?) };
        Ok(())
    })
}

/// Makes a type of two others.
///
/// @param left   The type of the left half; it stays the caller's.
/// @param right  The type of the right half, likewise.
/// @param out    Receives the type.
///
/// @return NETSHM_OK; NETSHM_E_TOO_LARGE; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_pair(
    left: *mut netshm_type,
    right: *mut netshm_type,
    out: *mut *mut netshm_type,
) -> c_int {
    guard(&["left", "right", "out"], || {
        let place = self::out(3, out)?;
        // SAFETY: the header asks for handles and a valid place.
        unsafe {
            let pair = Type::pair(&handle::body(1, left)?.of, &handle::body(2, right)?.of)?;
            place.put(open(pair)?);
        }
        Ok(())
    })
}

/// Makes the type of the left half of a pair whose right half may be anything. It reads recorded pairs, and
/// nothing can be written through it.
///
/// @param left  The type of the left half; it stays the caller's.
/// @param out   Receives the type.
///
/// @return As for netshm_type_pair().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_left(left: *mut netshm_type, out: *mut *mut netshm_type) -> c_int {
    guard(&["left", "out"], || {
        let place = self::out(2, out)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(open(Type::left(&handle::body(1, left)?.of)?)?) };
        Ok(())
    })
}

/// Makes the type of a value that may be missing.
///
/// @param content  The type of the value; it stays the caller's.
/// @param out      Receives the type.
///
/// @return As for netshm_type_pair().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_option(content: *mut netshm_type, out: *mut *mut netshm_type) -> c_int {
    guard(&["content", "out"], || {
        let place = self::out(2, out)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(open(Type::option(&handle::body(1, content)?.of)?)?) };
        Ok(())
    })
}

/// Turns an object of a custom type into bytes. It runs before anything is locked and may call everything.
///
/// @param object  What the cell holds.
/// @param out     Takes the bytes, by netshm_update_set() or netshm_update_append(). Equal objects must give
///                equal bytes if they are used as keys.
/// @param arg     As given with the type.
///
/// @return NETSHM_OK; or a negative number, with which the call fails (see "Callbacks" at the top). Nothing is
///         changed then, nor if it gave no bytes: netshm_update_set() with length 0 gives an empty value.
pub type netshm_encode_fn = Option<
    unsafe extern "C-unwind" fn(object: *const c_void, out: *mut netshm_update, arg: *mut c_void) -> c_int,
>;

/// Makes an object of a custom type from bytes. Nothing is locked meanwhile, except by an open group.
///
/// @param bytes   What netshm_encode_fn gave; or anything, if another program has written it.
/// @param object  Receives the object. It belongs to the result that the value is read into.
/// @param arg     As given with the type.
///
/// @return NETSHM_OK; or a negative number, with which the call fails, for instance NETSHM_E_CORRUPT.
pub type netshm_decode_fn = Option<
    unsafe extern "C-unwind" fn(bytes: netshm_slice, object: *mut *mut c_void, arg: *mut c_void) -> c_int,
>;

/// Ends an object that netshm_decode_fn has made: its result is used again or freed.
pub type netshm_drop_fn = Option<unsafe extern "C-unwind" fn(object: *mut c_void, arg: *mut c_void)>;

/// A custom type: its name, which the signature has, and its conversions.
///
/// Programs on one table must agree about what the name means. The callbacks run on whatever thread makes a
/// call, and on several at once; they must not close the table or free the result that the call uses.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_custom {
    /// Size of this structure in bytes.
    pub size: usize,
    /// 1 to 64 letters, digits, '.', '-', '_'. It is copied.
    pub name: *const c_char,
    /// Handed to the callbacks. It must stay valid until the type, all types and tables made with it, and
    /// all results that hold its objects are closed.
    pub arg: *mut c_void,
    /// Object to bytes.
    pub encode: netshm_encode_fn,
    /// Bytes to object.
    pub decode: netshm_decode_fn,
    /// End of an object that was decoded; may be NULL.
    pub drop: netshm_drop_fn,
}

/// Makes a custom type.
///
/// @param c    Its description, which is copied.
/// @param out  Receives the type.
///
/// @return NETSHM_OK; NETSHM_E_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_custom(c: *const netshm_custom, out: *mut *mut netshm_type) -> c_int {
    guard(&["c", "out"], || {
        let place = self::out(2, out)?;
        // SAFETY: the header asks for a structure that carries its size.
        let custom = unsafe { read(c) }?;
        if custom.name.is_null() {
            return Err(Fault::Argument(1, "the field name is NULL"));
        }
        // SAFETY: the header asks for a string.
        let name = unsafe { CStr::from_ptr(custom.name) }.to_string_lossy();
        let of = Type::custom_with(&name, Some(Arc::new(codec(&custom)?)));
        let of = of.map_err(|e| match e {
            Error::Invalid { reason, .. } => Fault::Argument(1, reason),
            e => Fault::Core(e),
        })?;
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(open(of)?) };
        Ok(())
    })
}

/// # Safety
/// The pointer must be NULL or point to a structure that is as long as its first word says.
unsafe fn read(c: *const netshm_custom) -> Outcome<netshm_custom> {
    if c.is_null() {
        return Err(Fault::Null(1));
    }
    const KNOWN: usize = size_of::<netshm_custom>();
    // SAFETY: the caller's promise.
    let size = unsafe { (&raw const (*c).size).read_unaligned() };
    if !(KNOWN..=MOST_SIZE).contains(&size) {
        return Err(Fault::Argument(1, "the field size is not that of the structure"));
    }
    // SAFETY: the caller's promise; there are `size` bytes.
    let tail = unsafe { std::slice::from_raw_parts(c.cast::<u8>().add(KNOWN), size - KNOWN) };
    if tail.iter().any(|byte| *byte != 0) {
        return Err(Fault::Argument(1, "this version does not know all of the fields that are set"));
    }
    // SAFETY: as above.
    Ok(unsafe { c.read_unaligned() })
}

/// What the caller's functions are called with.
#[derive(Clone, Copy)]
struct Arg(*mut c_void);

// SAFETY: it is only handed to the caller's functions, which the header wants to be ready for every thread.
unsafe impl Send for Arg {}
// SAFETY: as above.
unsafe impl Sync for Arg {}

impl Arg {
    fn get(self) -> *mut c_void {
        self.0
    }
}

fn codec(custom: &netshm_custom) -> Outcome<Codec> {
    let arg = Arg(custom.arg);
    let encode = custom.encode.ok_or(Fault::Argument(1, "the field encode is NULL"))?;
    let decode = custom.decode.ok_or(Fault::Argument(1, "the field decode is NULL"))?;
    let end = custom.drop;
    Ok(Codec {
        encode: Box::new(move |object, bytes| {
            // SAFETY: the header asks for a function that can be called with these.
            let (answer, given) = collect(|out| unsafe { encode(object.0.cast(), out, arg.get()) });
            succeeded(answer)?;
            let given = given.ok_or(Error::Callback(NETSHM_E_CALLBACK))?;
            bytes.try_reserve(given.len()).map_err(|_| Error::NoMemory)?;
            bytes.extend_from_slice(&given);
            Ok(())
        }),
        decode: Box::new(move |bytes| {
            let mut object = std::ptr::null_mut();
            let slice = netshm_slice { data: bytes.as_ptr().cast(), len: bytes.len() };
            // SAFETY: as above.
            succeeded(call_back(|| unsafe { decode(slice, &mut object, arg.get()) }))?;
            Ok(CustomObject(object.cast_const().cast()))
        }),
        discard: Box::new(move |object| {
            if let Some(end) = end {
                // SAFETY: as above.
                call_back(|| unsafe { end(object.0.cast_mut().cast(), arg.get()) });
            }
        }),
    })
}

/// What a conversion's answer means: a number that it may not give is a failure, as bytes and objects that
/// might not be there must not be used.
fn succeeded(answer: c_int) -> Result<(), Error> {
    match answer {
        NETSHM_OK => Ok(()),
        answer if answer < 0 => Err(Error::Callback(answer)),
        _ => Err(Error::Callback(NETSHM_E_CALLBACK)),
    }
}

/// Gives a type's signature.
///
/// @param t     The type.
/// @param text  Receives the text, which lives as long as the type's handle.
///
/// @return NETSHM_OK; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_signature(t: *mut netshm_type, text: *mut *const c_char) -> c_int {
    guard(&["t", "text"], || {
        let place = out(2, text)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(handle::body(1, t)?.signature.as_ptr()) };
        Ok(())
    })
}

/// Closes a type's handle. Types and tables that were made with it stay usable.
///
/// @param t  The handle; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_type_close(t: *mut netshm_type) -> c_int {
    guard(&["t"], || {
        if t.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, t) }?);
        Ok(())
    })
}
