//! Callbacks on one binding: looking at it, and changing it under its lock.

use super::call::{Fault, Outcome, bytes, check_length, guard, out_or_null};
use super::callback::call_back;
use super::error::{NETSHM_E_CALLBACK, NETSHM_OK};
use super::handle;
use super::hashtbl::quick::{chores, quick_body, quick_bytes};
use super::hashtbl::{Body, check_raw, netshm_hashtbl};
use crate::error::Error;
use crate::hashtbl::{Quick, Update};
use crate::types::Type;
use smallvec::SmallVec;
use std::cell::{Cell, Ref, RefCell};
use std::ffi::{c_int, c_void};

/// Sees a value. The bytes hold still while it runs and are gone afterwards.
///
/// @param data  The value; not NULL.
/// @param len   Its length in bytes.
/// @param arg   What was given to the call.
///
/// @return Any number, which the call hands on.
pub type netshm_view_fn =
    Option<unsafe extern "C-unwind" fn(data: *const c_void, len: usize, arg: *mut c_void) -> c_int>;

/// Shows the newest binding of a key to a callback. The callback may call everything.
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param fn       Called once if there is a binding.
/// @param arg      Handed to the callback.
/// @param answer   Receives what the callback returned; may be NULL.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, and the callback was not called; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_view(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    r#fn: netshm_view_fn,
    arg: *mut c_void,
    answer: *mut c_int,
) -> c_int {
    guard(&["t", "key", "key_len", "fn", "arg", "answer"], || {
        let show = |body: &Body| {
            // SAFETY: the header asks for readable bytes.
            let (t, key) = (body.raw()?, unsafe { bytes(2, key, key_len) }?);
            let view = r#fn.ok_or(Fault::Null(4))?;
            // SAFETY: the header asks for a function that can be called with these.
            let show = |value: &[u8]| call_back(|| unsafe { view(value.as_ptr().cast(), value.len(), arg) });
            t.view(key, show)?.ok_or(Fault::Core(Error::NotFound))
        };
        // SAFETY: the header asks for a handle, which the callback may close.
        let given = unsafe { handle::lend(1, t, show) }?;
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(answer).put(given) };
        Ok(())
    })
}

/// Answer of an update: leave the binding as it is. So does every unknown answer that is not negative.
#[allow(dead_code)] // for C only
pub const NETSHM_KEEP: c_int = 0;
/// Answer of an update: replace the binding, or add one, by what netshm_update_set() was given.
pub const NETSHM_REPLACE: c_int = 1;
/// Answer of an update: remove the binding.
pub const NETSHM_REMOVE: c_int = 2;

/// An update under way. Valid during its callback only.
pub struct netshm_update {
    _opaque: [u8; 0],
}

/// A value that a callback has given. Short ones are on the stack.
pub(super) type Given = SmallVec<[u8; SHORT_BYTES]>;

/// The most bytes of a short value.
const SHORT_BYTES: usize = 128;

/// An update that is under way on this thread. Its address is what C knows; it is shown to its callback.
pub(super) struct Active<'a> {
    /// The type of the value that it takes; none where it takes the bytes of a custom type.
    of: Option<&'a Type>,
    /// The encoded value, once it is set.
    value: RefCell<Given>,
    is_set: Cell<bool>,
}

impl<'a> Active<'a> {
    #[inline(always)]
    pub(super) fn new(of: Option<&'a Type>) -> Active<'a> {
        Active { of, value: RefCell::default(), is_set: Cell::new(false) }
    }

    /// The type of the value that it takes, if it is typed.
    pub(super) fn value_type(&self) -> Option<&Type> {
        self.of
    }

    /// Sets the value, in whose place there may be one already, which stays if this fails.
    pub(super) fn set(&self, encoded: &[u8]) -> Outcome {
        let mut value = self.value.borrow_mut();
        if encoded.len() > value.capacity() {
            let more = encoded.len() - value.len();
            value.try_reserve_exact(more).map_err(|_| Error::NoMemory)?;
        }
        value.clear();
        value.extend_from_slice(encoded);
        self.is_set.set(true);
        Ok(())
    }

    /// The same for a short value of raw bytes, if there is nothing to complain about. None: nothing has happened.
    #[inline(always)]
    fn set_quickly(&self, bytes: &[u8]) -> Option<()> {
        if !self.of.is_some_and(Type::is_raw) || bytes.len() > SHORT_BYTES {
            return None;
        }
        let mut value = self.value.try_borrow_mut().ok()?;
        // SAFETY: there is always room for a short value; it is the caller's, and not this one.
        unsafe {
            value.as_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            value.set_len(bytes.len());
        }
        self.is_set.set(true);
        Some(())
    }

    /// Appends to the value; one that is not set is empty.
    fn append(&self, bytes: &[u8]) -> Outcome {
        let mut value = self.value.borrow_mut();
        check_length(value.len().saturating_add(bytes.len()))?;
        value.try_reserve(bytes.len()).map_err(|_| Error::NoMemory)?;
        value.extend_from_slice(bytes);
        self.is_set.set(true);
        Ok(())
    }

    /// Complains if the value cannot be given as raw bytes.
    fn check_raw(&self) -> Outcome {
        self.of.map_or(Ok(()), |of| check_raw("a value of raw bytes", of))
    }
}

/// Decides what becomes of a binding.
///
/// It runs on the calling thread while the key is locked: it should be quick. Calls that change the same object, by any
/// handle, give NETSHM_E_IN_CALLBACK, and so do all that belong to a group, and netshm_sync(), netshm_backup(),
/// netshm_check() and netshm_table_dump(); finding outside of groups shows what was there before. Other objects can be used.
///
/// @param u        The update, for netshm_update_set().
/// @param old      The newest binding; NULL if there is none. The bytes hold still while the callback runs.
/// @param old_len  Its length in bytes.
/// @param arg      What was given to the call.
///
/// @return #NETSHM_KEEP, #NETSHM_REPLACE or #NETSHM_REMOVE; or a negative number: nothing is changed, and the call
///         fails with it (see "Callbacks" at the top).
pub type netshm_update_fn = Option<
    unsafe extern "C-unwind" fn(
        u: *mut netshm_update,
        old: *const c_void,
        old_len: usize,
        arg: *mut c_void,
    ) -> c_int,
>;

/// Sets the value for #NETSHM_REPLACE. If it is called again, the last value counts.
///
/// @param u        What the callback was given. It can be used by the callback's thread and during it only.
/// @param val      The value, which is copied; may be NULL only if val_len is 0.
/// @param val_len  Its length in bytes.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED, the callback has returned; NETSHM_E_TYPE, the values are not raw bytes, see
///         netshm_update_set_v(); NETSHM_E_NO_MEMORY; NETSHM_E_TOO_LARGE; NETSHM_E_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_update_set(
    u: *mut netshm_update,
    val: *const c_void,
    val_len: usize,
) -> c_int {
    // SAFETY: the header asks for readable bytes.
    if unsafe { set_quickly(u, val, val_len) }.is_some() {
        return NETSHM_OK;
    }
    // SAFETY: as above.
    unsafe { set_slowly(u, val, val_len) }
}

/// The same if there is nothing unusual, nor anything to complain about. None: nothing has happened.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn set_quickly(u: *mut netshm_update, val: *const c_void, val_len: usize) -> Option<()> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return None;
    }
    // SAFETY: the caller's promise.
    let val = unsafe { quick_bytes(val, val_len) }?;
    active(u)?.set_quickly(val)
}

/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn set_slowly(u: *mut netshm_update, val: *const c_void, val_len: usize) -> c_int {
    guard(&["u", "val", "val_len"], || {
        if u.is_null() {
            return Err(Fault::Null(1));
        }
        // SAFETY: the header asks for readable bytes.
        let val = unsafe { bytes(2, val, val_len) }?;
        with_active(u, |active| {
            active.check_raw()?;
            active.set(val)
        })?
    })
}

/// Appends bytes to the value that was set so far.
///
/// @param u         What the callback was given. It can be used by the callback's thread and during it only.
/// @param data      The bytes, which are copied; may be NULL only if len is 0.
/// @param len       Their number.
///
/// @return As for netshm_update_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_update_append(
    u: *mut netshm_update,
    data: *const c_void,
    len: usize,
) -> c_int {
    guard(&["u", "data", "len"], || {
        if u.is_null() {
            return Err(Fault::Null(1));
        }
        // SAFETY: the header asks for readable bytes.
        let data = unsafe { bytes(2, data, len) }?;
        with_active(u, |active| {
            active.check_raw()?;
            active.append(data)
        })?
    })
}

/// Finds the update that is known by this address among those under way on this thread.
#[inline(always)]
fn active<'a>(u: *const netshm_update) -> Option<&'a Active<'a>> {
    // SAFETY: what is shown by this address is such an update, as long as its callback runs: in which the caller is.
    if !u.is_null() && handle::is_shown(u.cast()) { Some(unsafe { &*u.cast() }) } else { None }
}

/// The same, with a complaint if there is none.
pub(super) fn with_active<R>(u: *mut netshm_update, then: impl FnOnce(&Active) -> R) -> Outcome<R> {
    active(u).map(then).ok_or(Fault::Core(Error::Closed))
}

/// Calls a callback that hands out bytes by means of an update: its answer, and the bytes if it gave any.
pub(super) fn collect(callback: impl FnOnce(*mut netshm_update) -> c_int) -> (c_int, Option<Given>) {
    let active = Active::new(None);
    let answer = active.call(callback);
    (answer, active.is_set.get().then(|| active.value.take()))
}

impl Active<'_> {
    /// What C knows of it.
    #[inline(always)]
    fn handle(&self) -> *mut netshm_update {
        (&raw const *self).cast_mut().cast()
    }

    /// Calls a callback with this update, which is shown meanwhile: its answer.
    fn call(&self, callback: impl FnOnce(*mut netshm_update) -> c_int) -> c_int {
        let nobody = std::ptr::null_mut::<netshm_hashtbl>();
        // SAFETY: no handle is lent.
        unsafe { handle::show(nobody, self.handle().cast(), || call_back(|| callback(self.handle()))) }
    }

    /// Hears from a callback what becomes of a binding.
    pub(super) fn decide(
        &self,
        callback: impl FnOnce(*mut netshm_update) -> c_int,
    ) -> Result<Update<Ref<'_, [u8]>>, Error> {
        self.decided(self.call(callback)).map_err(Error::Callback)
    }

    /// What a callback's answer makes of a binding, or what the call fails with.
    #[inline(always)]
    fn decided(&self, answer: c_int) -> Result<Update<Ref<'_, [u8]>>, c_int> {
        match answer {
            NETSHM_REPLACE => match self.value.try_borrow() {
                Ok(value) if self.is_set.get() => {
                    Ok(Update::Replace(Ref::map(value, |value| value.as_slice())))
                }
                _ => Err(NETSHM_E_CALLBACK),
            },
            NETSHM_REMOVE => Ok(Update::Remove),
            answer if answer < 0 => Err(answer),
            _ => Ok(Update::Keep),
        }
    }
}

/// Calls a callback once, under the key's lock, with the newest binding, and does what it answers.
///
/// Read-modify-write of one key in this way is atomic and never meets a deadlock outside of groups.
///
/// @param t        The table.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param fn       Called once.
/// @param arg      Handed to the callback.
///
/// @return NETSHM_OK, also if the answer was NETSHM_KEEP; NETSHM_E_CALLBACK, it answered NETSHM_REPLACE without a
///         value, or a reserved negative number; its negative answer; else the codes of netshm_hashtbl_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_update(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    r#fn: netshm_update_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { update_quickly(t, key, key_len, r#fn, arg) } {
        Some(code) => code,
        // SAFETY: as above.
        None => unsafe { update_slowly(t, key, key_len, r#fn, arg) },
    }
}

/// The same by the short way, if there is nothing unusual, nor anything to complain about. None: nothing has happened.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn update_quickly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    r#fn: netshm_update_fn,
    arg: *mut c_void,
) -> Option<c_int> {
    // SAFETY: the header asks for a handle and for readable bytes.
    let (body, key) = unsafe { quick_body(t, key, key_len) }?;
    let update = r#fn?;
    let active = Active::new(Some(&body.types.value));
    let refusal = Cell::new(NETSHM_OK);
    let decide = |old: &[u8]| {
        // SAFETY: the header asks for a function that can be called with these.
        let answer = call_back(|| unsafe { update(active.handle(), old.as_ptr().cast(), old.len(), arg) });
        active.decided(answer).unwrap_or_else(|code| {
            refusal.set(code);
            Update::Keep
        })
    };
    let change = || match body.table.update_quickly(key, decide) {
        Quick::Done(outcome) => Some((outcome, NETSHM_OK)),
        Quick::DoneWithChores(outcome) => Some((outcome, chores(&body.table))),
        Quick::NotDone => None,
    };
    // SAFETY: the header asks for a handle, which the callback may close.
    let (outcome, code) = unsafe { handle::show(t, active.handle().cast(), change) }?;
    Some(match (outcome, refusal.get()) {
        (Err(e), _) => failed(*e),
        (Ok(()), NETSHM_OK) => code,
        (Ok(()), refusal) => failed(Error::Callback(refusal)),
    })
}

#[cold]
#[inline(never)]
fn failed(e: Error) -> c_int {
    guard(&[], || Err(Fault::Core(e)))
}

/// The same where something is unusual.
///
/// # Safety
/// As for the export.
#[cold]
#[inline(never)]
unsafe fn update_slowly(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    r#fn: netshm_update_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "key", "key_len", "fn", "arg"], || {
        let update = |body: &Body| {
            // SAFETY: the header asks for readable bytes.
            let (t, key) = (body.raw()?, unsafe { bytes(2, key, key_len) }?);
            let update = r#fn.ok_or(Fault::Null(4))?;
            let active = Active::new(Some(&body.types.value));
            let outcome = t.try_update_by(key, |old| {
                let (data, len) = old.map_or((std::ptr::null(), 0), |old| (old.as_ptr(), old.len()));
                // SAFETY: the header asks for a function that can be called with these.
                active.decide(|u| unsafe { update(u, data.cast(), len, arg) })
            });
            Ok(outcome?)
        };
        // SAFETY: the header asks for a handle, which the callback may close.
        unsafe { handle::lend(1, t, update) }
    })
}
