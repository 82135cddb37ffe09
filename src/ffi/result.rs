//! Results: reusable owners of decoded values.

use super::call::{Fault, Outcome, guard, out};
use super::handle::{self, Noun, magic};
use super::hashtbl::netshm_slice;
use super::value::{NETSHM_V_BYTES, netshm_content, netshm_value};
use crate::error::Error;
use crate::types::{Codec, CustomObject, Shape, Type, Value};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A place for the values that typed calls find. It is used again by each call that gets it, and keeps its
/// memory; so a program needs one for each thread, or one for each value that it wants to keep. Ended by
/// netshm_result_free().
pub struct netshm_result {
    _opaque: [u8; 0],
}

/// Values as cells, with what the cells point to.
#[derive(Default)]
pub(super) struct Decoded {
    cells: Vec<netshm_value>,
    /// Where each value's cells end.
    ends: Vec<usize>,
    /// Copies of all bytes, each one aligned to 8 and followed by a zero byte.
    bytes: Vec<u64>,
    objects: Vec<(CustomObject, Arc<Codec>)>,
}

impl Drop for Decoded {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Decoded {
    /// Forgets all values and ends their objects.
    pub(super) fn clear(&mut self) {
        self.cells.clear();
        self.ends.clear();
        self.bytes.clear();
        for (object, codec) in std::mem::take(&mut self.objects) {
            (codec.discard)(object);
        }
    }

    /// Appends a value. The cells' bytes are in place only after [`settle`](Decoded::settle).
    pub(super) fn push(&mut self, of: &Type, encoded: &[u8]) -> Result<(), Error> {
        of.decode_each(encoded, &mut |leaf, value| {
            self.cells.try_reserve(1).map_err(|_| Error::NoMemory)?;
            let cell = match (leaf.shape(), value) {
                (Shape::Custom(Some(codec)), Value::Bytes(bytes)) => {
                    self.objects.try_reserve(1).map_err(|_| Error::NoMemory)?;
                    let object = (codec.decode)(bytes)?;
                    self.objects.push((object, codec.clone()));
                    netshm_value::of(Value::Custom(object))
                }
                (_, Value::Bytes(bytes)) => self.copy(bytes)?,
                (_, value) => netshm_value::of(value),
            };
            self.cells.push(cell);
            Ok(())
        })?;
        self.ends.push(self.cells.len());
        Ok(())
    }

    /// Copies bytes. The cell holds the distance from the beginning of all bytes, which may still move.
    fn copy(&mut self, bytes: &[u8]) -> Result<netshm_value, Error> {
        let begin = self.bytes.len();
        let words = bytes.len() / 8 + 1;
        self.bytes.try_reserve(words).map_err(|_| Error::NoMemory)?;
        self.bytes.resize(begin + words, 0);
        // SAFETY: the words were just made, and they have room for the bytes.
        unsafe {
            let into: *mut u8 = self.bytes.as_mut_ptr().add(begin).cast();
            into.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        let s = netshm_slice { data: std::ptr::without_provenance(8 * begin), len: bytes.len() };
        Ok(netshm_value { r#as: netshm_content { s }, ..netshm_value::of(Value::Bytes(&[])) })
    }

    /// Makes the cells point to the bytes. To be called once, after the last value.
    pub(super) fn settle(&mut self) {
        let base: *const u8 = self.bytes.as_ptr().cast();
        for cell in self.cells.iter_mut().filter(|cell| cell.kind == NETSHM_V_BYTES) {
            // SAFETY: the kind says that the member is set, and the distance is one within the bytes.
            unsafe {
                let s = cell.r#as.s;
                cell.r#as.s = netshm_slice { data: base.add(s.data.addr()).cast::<c_void>(), len: s.len };
            }
        }
    }

    /// The cells of value `i`.
    pub(super) fn value(&self, i: usize) -> Option<&[netshm_value]> {
        let end = *self.ends.get(i)?;
        let begin = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.cells[begin..end])
    }
}

/// What is behind a result's handle.
pub(super) struct Body {
    /// Nobody is filling it, and it holds no objects: the short way may write a word.
    is_plain: AtomicBool,
    /// It is being filled; a conversion's callback might want to use it as well.
    is_busy: AtomicBool,
    inner: UnsafeCell<Inner>,
}

struct Inner {
    /// A value of one integer, without more ado.
    word: netshm_value,
    decoded: Decoded,
    shows: Shows,
    /// An encoded value on its way.
    raw: Vec<u8>,
}

/// What the caller gets to see.
#[derive(Clone, Copy)]
enum Shows {
    Nothing,
    Word,
    Decoded,
}

impl Noun for netshm_result {
    const MAGIC: u64 = magic::RESULT;
    type Body = Body;
}

/// A result that the short way may write to.
pub(super) struct Plain<'a>(&'a Body);

/// The result, if the short way may write to it.
///
/// # Safety
/// As for `handle::body`; and the header wants that no other thread is using it.
#[inline(always)]
pub(super) unsafe fn plain<'a>(r: *mut netshm_result) -> Option<Plain<'a>> {
    // SAFETY: the caller's promise.
    let body = unsafe { handle::peek(r) }?;
    body.is_plain.load(Ordering::Relaxed).then_some(Plain(body))
}

impl Plain<'_> {
    /// Makes an integer the value.
    #[inline(always)]
    pub(super) fn put(&self, i: i64) {
        // SAFETY: no other thread is using the result, and nobody on this one: it is plain.
        unsafe {
            let inner = self.0.inner.get();
            (*inner).word.r#as.i = i;
            (*inner).shows = Shows::Word;
        }
    }

    /// Leaves no value.
    #[inline(always)]
    pub(super) fn clear(&self) {
        // SAFETY: as in `put`.
        unsafe { (*self.0.inner.get()).shows = Shows::Nothing };
    }
}

/// A result in use for filling it.
pub(super) struct Filling<'a> {
    body: &'a Body,
    inner: &'a mut Inner,
}

/// The result at argument `number`, emptied.
///
/// # Safety
/// As for [`plain`].
pub(super) unsafe fn fill<'a>(number: u32, r: *mut netshm_result) -> Outcome<Filling<'a>> {
    // SAFETY: the caller's promise.
    let body = unsafe { handle::body(number, r) }?;
    if body.is_busy.swap(true, Ordering::Acquire) {
        return Err(Fault::Core(Error::Busy("the result is being filled by another call")));
    }
    body.is_plain.store(false, Ordering::Relaxed);
    // SAFETY: whoever finds the mark above unset is the only one.
    let filling = Filling { body, inner: unsafe { &mut *body.inner.get() } };
    filling.inner.shows = Shows::Nothing;
    filling.inner.decoded.clear();
    Ok(filling)
}

impl Filling<'_> {
    /// Room for an encoded value.
    pub(super) fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.inner.raw
    }

    /// Decodes what is in the room for an encoded value.
    pub(super) fn decode(&mut self, of: &Type) -> Result<(), Error> {
        let outcome = self.inner.decoded.push(of, &self.inner.raw);
        self.show(outcome)
    }

    /// Decodes several values.
    pub(super) fn decode_all(&mut self, of: &Type, all: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        let outcome = all.iter().try_for_each(|encoded| self.inner.decoded.push(of, encoded.as_ref()));
        self.show(outcome)
    }

    /// Shows what was decoded; nothing if that has failed.
    fn show(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        match outcome {
            Ok(()) => {
                self.inner.decoded.settle();
                self.inner.shows = Shows::Decoded;
            }
            Err(_) => self.inner.decoded.clear(),
        }
        outcome
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.body.is_plain.store(self.inner.decoded.objects.is_empty(), Ordering::Relaxed);
        self.body.is_busy.store(false, Ordering::Release);
    }
}

/// Makes an empty result.
///
/// @param out  Receives it. It may be used by any thread, but by one at a time.
///
/// @return NETSHM_OK; NETSHM_E_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_result_new(out: *mut *mut netshm_result) -> c_int {
    guard(&["out"], || {
        let place = self::out(1, out)?;
        let body = Body {
            is_plain: AtomicBool::new(true),
            is_busy: AtomicBool::new(false),
            inner: UnsafeCell::new(Inner {
                word: netshm_value::int(0),
                decoded: Decoded::default(),
                shows: Shows::Nothing,
                raw: Vec::new(),
            }),
        };
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(handle::open::<netshm_result>(body)) };
        Ok(())
    })
}

/// Value `i` of a result that nobody is filling.
///
/// # Safety
/// As for [`plain`]; the cells live until the result is filled again.
unsafe fn value<'a>(r: *mut netshm_result, i: usize) -> Outcome<Option<&'a [netshm_value]>> {
    // SAFETY: the caller's promise.
    let body = unsafe { handle::body(1, r) }?;
    if body.is_busy.load(Ordering::Acquire) {
        return Err(Fault::Core(Error::Busy("the result is being filled by another call")));
    }
    // SAFETY: nobody is filling it, and the header wants no other thread to do so now.
    let inner = unsafe { &*body.inner.get() };
    Ok(match inner.shows {
        Shows::Word if i == 0 => Some(std::slice::from_ref(&inner.word)),
        Shows::Nothing | Shows::Word => None,
        Shows::Decoded => inner.decoded.value(i),
    })
}

/// Gives the value that the last call with a result has found; with several, the first one.
///
/// @param r  The result.
/// @param v  Receives the cells. Bytes in them are followed by a zero byte, which is not counted, and begin at a
///           multiple of 8. Cells, bytes and objects live until the result is used again or freed.
/// @param n  Receives the number of cells.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, it holds none: the last call with it has failed or found nothing;
///         NETSHM_E_BUSY, from a callback of the call that fills it; NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_result_values(
    r: *mut netshm_result,
    v: *mut *const netshm_value,
    n: *mut usize,
) -> c_int {
    guard(&["r", "v", "n"], || {
        let (v, n) = (out(2, v)?, out(3, n)?);
        // SAFETY: the header asks for a handle and valid places.
        unsafe {
            let cells = value(r, 0)?.ok_or(Fault::Core(Error::NotFound))?;
            v.put(cells.as_ptr());
            n.put(cells.len());
        }
        Ok(())
    })
}

/// Gives one of several values, as found by netshm_hashtbl_find_all_v().
///
/// @param r  The result.
/// @param i  Which one, the first being 0.
/// @param v  Receives the cells, as with netshm_result_values().
/// @param n  Receives the number of cells.
///
/// @return NETSHM_OK; NETSHM_E_RANGE, there are not so many; else the codes of netshm_result_values().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_result_at(
    r: *mut netshm_result,
    i: usize,
    v: *mut *const netshm_value,
    n: *mut usize,
) -> c_int {
    guard(&["r", "i", "v", "n"], || {
        let (v, n) = (out(3, v)?, out(4, n)?);
        // SAFETY: the header asks for a handle and valid places.
        unsafe {
            let cells = value(r, i)?.ok_or(Fault::Core(Error::Range))?;
            v.put(cells.as_ptr());
            n.put(cells.len());
        }
        Ok(())
    })
}

/// Frees a result and all that it holds.
///
/// @param r  The result; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_result_free(r: *mut netshm_result) -> c_int {
    guard(&["r"], || {
        if r.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, r) }?);
        Ok(())
    })
}
