//! Callbacks on one binding: looking at it, and changing it under its lock.

use super::call::{Fault, Outcome, bytes, check_length, guard, out_or_null};
use super::callback::call_back;
use super::error::NETSHM_E_CALLBACK;
use super::handle;
use super::hashtbl::{Body, check_raw, netshm_hashtbl};
use crate::error::Error;
use crate::hashtbl::Update;
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
pub(super) type Given = SmallVec<[u8; 128]>;

/// An update that is under way on this thread. Its address is what C knows.
pub(super) struct Active<'a> {
    /// The type of the value that it takes; none where it takes the bytes of a custom type.
    of: Option<&'a Type>,
    /// The encoded value, once it is set.
    value: RefCell<Given>,
    is_set: Cell<bool>,
    /// The one in whose callback this one was begun, on another object.
    outer: Link,
}

/// An update that is known; it lives at least as long as its callback runs.
type Link = *const Active<'static>;

impl<'a> Active<'a> {
    pub(super) fn new(of: Option<&'a Type>) -> Active<'a> {
        Active { of, value: RefCell::default(), is_set: Cell::new(false), outer: INNERMOST.get() }
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

thread_local! {
    static INNERMOST: Cell<Link> = const { Cell::new(std::ptr::null()) };
}

/// Makes the innermost update known, as long as it lives.
struct Known<'a>(&'a Active<'a>);

impl<'a> Known<'a> {
    fn new(active: &'a Active<'a>) -> Known<'a> {
        INNERMOST.set((&raw const *active).cast());
        Known(active)
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        INNERMOST.set(self.0.outer);
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
pub(super) fn with_active<R>(u: *mut netshm_update, then: impl FnOnce(&Active) -> R) -> Outcome<R> {
    let mut active = INNERMOST.get();
    while !active.is_null() && !std::ptr::eq(active.cast(), u) {
        // SAFETY: what is in the list is under way further up on this thread's stack.
        active = unsafe { (*active).outer };
    }
    // SAFETY: as above.
    unsafe { active.as_ref() }.map(then).ok_or(Fault::Core(Error::Closed))
}

/// Calls a callback that hands out bytes by means of an update: its answer, and the bytes if it gave any.
pub(super) fn collect(callback: impl FnOnce(*mut netshm_update) -> c_int) -> (c_int, Option<Given>) {
    let active = Active::new(None);
    let answer = active.call(callback);
    (answer, active.is_set.get().then(|| active.value.take()))
}

impl Active<'_> {
    /// Calls a callback with this update, which is known meanwhile: its answer.
    fn call(&self, callback: impl FnOnce(*mut netshm_update) -> c_int) -> c_int {
        let _known = Known::new(self);
        call_back(|| callback((&raw const *self).cast_mut().cast()))
    }

    /// Hears from a callback what becomes of a binding.
    pub(super) fn decide(
        &self,
        callback: impl FnOnce(*mut netshm_update) -> c_int,
    ) -> Result<Update<Ref<'_, [u8]>>, Error> {
        match self.call(callback) {
            NETSHM_REPLACE if self.is_set.get() => {
                Ok(Update::Replace(Ref::map(self.value.borrow(), |value| value.as_slice())))
            }
            NETSHM_REPLACE => Err(Error::Callback(NETSHM_E_CALLBACK)),
            NETSHM_REMOVE => Ok(Update::Remove),
            answer if answer < 0 => Err(Error::Callback(answer)),
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
    guard(&["t", "key", "key_len", "fn", "arg"], || {
        let update = |body: &Body| {
            // SAFETY: the header asks for readable bytes.
            let (t, key) = (body.raw()?, unsafe { bytes(2, key, key_len) }?);
            let update = r#fn.ok_or(Fault::Null(4))?;
            let active = Active::new(Some(&body.types.value));
            let outcome = t.update_by(key, |old| {
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
