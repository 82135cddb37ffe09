//! Groups: several operations as one transaction.
//!
//! Owns the handle of an open group: which thread and which process it belongs to, and that it is ended once.

use super::call::{Fault, Outcome, guard, out};
use super::callback::call_back;
use super::error::NETSHM_OK;
use super::handle::{self, Noun, Room, magic};
use super::hashtbl::netshm_table;
use crate::error::Error;
use crate::group::{DetachedTransaction, Place, Transaction};
use crate::os::process;
use crate::os::time::Deadline;
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// An open group. Ended by netshm_group_commit() or netshm_group_abort().
pub struct netshm_txn {
    _opaque: [u8; 0],
}

/// What is behind a group's handle.
pub(super) struct Body {
    /// The process that began it.
    epoch: u64,
    /// In whose hands the group is, see below. Only they touch `group`.
    owner: AtomicU32,
    /// Where the group is. None if it belongs to netshm_group(), which has shown it to its callback.
    place: Option<Place>,
    /// None at the same time.
    group: UnsafeCell<Option<Transaction>>,
}

/// On its way from one thread to another: whoever puts another value here has it.
const DETACHED: u32 = 0;
/// In the hands of a call that moves or ends a detached group.
const TAKEN: u32 = 1;
/// Lent to a callback.
const LENT: u32 = 2;
/// In the hands of the thread that has the group's session.
const ATTACHED: u32 = 3;

impl Noun for netshm_txn {
    const MAGIC: u64 = magic::TXN;
    type Body = Body;
}

/// Answer of a group's callback: undo everything. So does every unknown answer.
#[allow(dead_code)] // for C only
pub const NETSHM_ROLLBACK: c_int = 0;
/// Answer of a group's callback: make all changes permanent.
pub const NETSHM_COMMIT: c_int = 1;

/// Does the operations of a group, with the handles of its object, on the calling thread.
///
/// @param txn  The group; it ends with the callback, which cannot end, restart or detach it.
/// @param arg  What was given to the call.
///
/// @return #NETSHM_COMMIT or #NETSHM_ROLLBACK; or a negative number: everything is undone, and the call fails with
///         it (see "Callbacks" at the top).
pub type netshm_group_fn =
    Option<unsafe extern "C-unwind" fn(txn: *mut netshm_txn, arg: *mut c_void) -> c_int>;

fn handle_of(owner: u32, group: Option<Transaction>) -> *mut netshm_txn {
    handle::open(Body {
        epoch: process::fork_epoch(),
        owner: AtomicU32::new(owner),
        place: group.as_ref().map(Transaction::place),
        group: UnsafeCell::new(group),
    })
}

/// Calls the callback with a handle that ends with it.
fn ask(body: unsafe extern "C-unwind" fn(*mut netshm_txn, *mut c_void) -> c_int, arg: *mut c_void) -> c_int {
    let txn = handle_of(LENT, None);
    // SAFETY: the header asks for a function that can be called with these.
    let answer = call_back(|| unsafe { body(txn, arg) });
    // SAFETY: the handle was made above, and the callback cannot close it.
    let _ = unsafe { handle::close(1, txn) };
    answer
}

/// Runs a callback as a group; again and again, if it has to give way, until the deadline.
fn run(
    t: *mut netshm_table,
    body: netshm_group_fn,
    number: u32,
    deadline: Option<Deadline>,
    arg: *mut c_void,
) -> Outcome {
    // SAFETY: the header asks for a handle.
    let table = unsafe { handle::body(1, t) }?.clone();
    let body = body.ok_or(Fault::Null(number))?;
    let mut transaction = table.begin()?;
    loop {
        let answer = ask(body, arg);
        let doomed = transaction.is_doomed();
        if doomed && transaction.is_outermost() && deadline.is_some_and(|deadline| !deadline.passed()) {
            transaction.restart()?;
            continue;
        }
        if answer == NETSHM_COMMIT {
            return Ok(transaction.commit()?);
        }
        transaction.abort()?;
        // A callback that says only "undo" may have swallowed the deadlock.
        return Err(match answer {
            ..0 => Fault::Answer(answer),
            _ if doomed => Fault::Core(Error::Deadlock),
            _ => Fault::Core(Error::Aborted),
        });
    }
}

/// Runs a callback as a group: all that it does on the table's object, on this thread, happens, or nothing.
///
/// Nobody else sees anything of it before it ends. Within a group of the same object it is an inner group, which
/// can be undone alone. What a group has changed or read stays locked until it ends; several keys share a lock, so
/// that others may have to wait also with other keys. Finding outside of groups never waits for a group. Two
/// objects are never changed together: a group covers one.
///
/// @param t    The table, see netshm_hashtbl_table().
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, it is done. Else nothing has happened: NETSHM_E_ABORTED, the callback answered
///         NETSHM_ROLLBACK; its negative answer; NETSHM_E_CALLBACK; NETSHM_E_DEADLOCK, it had to give way to another
///         group: try again, if this is the outermost group; NETSHM_E_READ_ONLY; NETSHM_E_NO_SPACE; NETSHM_E_BUSY;
///         NETSHM_E_TIMEOUT; NETSHM_E_CORRUPT; NETSHM_E_FORKED, the callback returned in a forked child;
///         NETSHM_E_IN_CALLBACK; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group(
    t: *mut netshm_table,
    r#fn: netshm_group_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || run(t, r#fn, 2, None, arg))
}

/// Runs a callback as a group, and runs it again each time the group has to give way to another one.
///
/// Between the attempts it pauses for a random time, and the group keeps its age: the oldest one always gets
/// through.
///
/// @param t           The table, see netshm_hashtbl_table().
/// @param timeout_ns  No new attempt is made when so many nanoseconds have passed; negative: no limit.
/// @param fn          The callback. It runs several times: what it does outside of the object must bear that.
/// @param arg         Handed to the callback.
///
/// @return As netshm_group(). NETSHM_E_DEADLOCK: the time is over, or it is an inner group, and the outermost one
///         has to begin again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_retry(
    t: *mut netshm_table,
    timeout_ns: i64,
    r#fn: netshm_group_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "timeout_ns", "fn", "arg"], || {
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        run(t, r#fn, 3, Some(Deadline::after(timeout)), arg)
    })
}

/// Begins a group, or an inner group if one is open on this thread.
///
/// Until it ends, the operations of this thread on the object belong to it. If the process dies, nothing of it
/// has happened. So it is where the thread ends and no destructor of its thread-local data ends the group, unless it was begun in the
/// last of these; the handle, which nobody can use any more, then keeps its memory and the object's mapping.
///
/// @param t    The table, see netshm_hashtbl_table().
/// @param out  Receives the group.
///
/// @return NETSHM_OK; NETSHM_E_DEADLOCK, the enclosing group has to give way; NETSHM_E_READ_ONLY; NETSHM_E_BUSY;
///         NETSHM_E_CORRUPT; NETSHM_E_FORKED; NETSHM_E_IN_CALLBACK; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_begin(t: *mut netshm_table, out: *mut *mut netshm_txn) -> c_int {
    // SAFETY: the header asks for a handle and a valid place.
    if unsafe { begin_quickly(t, out) }.is_some() {
        return NETSHM_OK;
    }
    guard(&["t", "out"], || {
        let place = self::out(2, out)?;
        // SAFETY: the header asks for a handle.
        let table = unsafe { handle::body(1, t) }?;
        let txn = handle_of(ATTACHED, Some(table.begin()?));
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(txn) };
        Ok(())
    })
}

/// The same if there is nothing unusual, nor anything to complain about. None: nothing has happened.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn begin_quickly(t: *mut netshm_table, out: *mut *mut netshm_txn) -> Option<()> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return None;
    }
    if out.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let table = unsafe { handle::peek(t) }?;
    // Nothing can fail once there is a group.
    let room = Room::<netshm_txn>::new();
    let group = table.begin_quickly()?;
    let txn = room.open(Body {
        epoch: group.epoch(),
        owner: AtomicU32::new(ATTACHED),
        place: Some(group.place()),
        group: UnsafeCell::new(Some(group)),
    });
    // SAFETY: as above.
    unsafe { out.write_unaligned(txn) };
    Some(())
}

/// The group behind a handle, if it is this thread's and no operation of it is under way.
///
/// # Safety
/// As for `handle::body`.
unsafe fn usable<'a>(x: *mut netshm_txn) -> Outcome<(&'a Body, &'a mut Transaction)> {
    // SAFETY: the caller's promise.
    let body = unsafe { handle::body(1, x) }?;
    if body.epoch != process::fork_epoch() {
        return Err(Fault::Core(Error::Forked));
    }
    // Acquire pairs with the Release in `netshm_group_attach`.
    let owner = body.owner.load(Ordering::Acquire);
    // A group in other hands may be over at any moment, and its engine with it.
    // SAFETY: the handle keeps the group.
    let is_here = || body.place.as_ref().is_some_and(|place| unsafe { place.is_here() });
    if owner != ATTACHED || !is_here() {
        return Err(Fault::Core(match owner {
            LENT => Error::InCallback,
            TAKEN => Error::Busy("another thread is using the group's handle"),
            DETACHED => Error::InGroup("it was detached and is no thread's"),
            _ => Error::InGroup("it is not this thread's group"),
        }));
    }
    // SAFETY: no other thread touches what is here; this one does so in one call at a time.
    let Some(group) = (unsafe { &mut *body.group.get() }) else { return Err(Fault::Core(Error::InCallback)) };
    // Not from a callback of an operation in it.
    group.check_idle()?;
    Ok((body, group))
}

/// Ends a group.
///
/// # Safety
/// As for `handle::close`.
unsafe fn end(x: *mut netshm_txn, commit: bool) -> Outcome {
    // A detached group first: of several threads that abort it one gets it, and the others see that it is taken.
    // SAFETY: the caller's promise.
    let in_hand = unsafe {
        match !commit && take_detached(x)? {
            true => Ok(()),
            false => usable(x).map(drop),
        }
    };
    let forked = match in_hand {
        Ok(()) => false,
        // A child only forgets what its parent has.
        Err(Fault::Core(Error::Forked)) => true,
        Err(fault) => return Err(fault),
    };
    // SAFETY: as above.
    let body = unsafe { handle::close(1, x) }?;
    let Some(mut group) = body.group.into_inner() else { return Err(Fault::Core(Error::Forked)) };
    if forked {
        let _ = group.end(false);
        return Err(Fault::Core(Error::Forked));
    }
    if body.owner.into_inner() == TAKEN {
        drop(DetachedTransaction::of(group));
        return Ok(());
    }
    Ok(group.end(commit)?)
}

/// Takes a detached group of this process into this call's hands, if it is one.
///
/// # Safety
/// As for `handle::body`.
unsafe fn take_detached(x: *mut netshm_txn) -> Outcome<bool> {
    // SAFETY: the caller's promise.
    let body = unsafe { handle::body(1, x) }?;
    Ok(body.epoch == process::fork_epoch()
        && body.owner.compare_exchange(DETACHED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok())
}

/// Makes the changes of a group permanent, all at once; those of an inner group as part of the enclosing one.
///
/// Inner groups that are still open are undone: what they have changed is dropped, this call gives NETSHM_OK for the
/// rest, and their own ends give NETSHM_E_ABORTED. So end inner groups first.
///
/// @param x  The group. It ends and its handle is freed, whatever is returned, with these exceptions:
///           NETSHM_E_IN_GROUP, NETSHM_E_IN_CALLBACK, NETSHM_E_BUSY, NETSHM_E_INVALID, NETSHM_E_CLOSED.
///
/// @return NETSHM_OK. Else nothing has happened: NETSHM_E_DEADLOCK, it had to give way to another group;
///         NETSHM_E_NO_SPACE; NETSHM_E_TIMEOUT; NETSHM_E_CORRUPT; NETSHM_E_ABORTED, the enclosing group has ended
///         before it; NETSHM_E_FORKED, it is the parent's; NETSHM_E_IN_GROUP, it is another thread's, or detached; NETSHM_E_IN_CALLBACK, it is under way in
///         an operation, or netshm_group() has it; NETSHM_E_BUSY, another thread is using the handle;
///         NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_commit(x: *mut netshm_txn) -> c_int {
    // SAFETY: the header asks for a handle.
    match unsafe { commit_quickly(x) } {
        Some(true) => NETSHM_OK,
        // SAFETY: as above.
        Some(false) => guard(&["x"], || unsafe { handle::close(1, x) }.map(drop)),
        // SAFETY: as above.
        None => guard(&["x"], || unsafe { end(x, true) }),
    }
}

/// The same if there is nothing unusual, nor anything to complain about. None: nothing has happened. False: it is
/// done, but the handle has to be closed.
///
/// # Safety
/// As for the export.
#[inline(always)]
unsafe fn commit_quickly(x: *mut netshm_txn) -> Option<bool> {
    // The short ways have nothing that can panic, and no guard.
    #[cfg(feature = "inject")]
    if super::inject::is_armed() {
        return None;
    }
    // SAFETY: the caller's promise.
    let body = unsafe { handle::peek(x) }?;
    // One in other hands may be over at any moment, and its engine with it.
    if body.owner.load(Ordering::Acquire) != ATTACHED {
        return None;
    }
    // SAFETY: nobody else ends it now; so the handle keeps the group.
    let seated = unsafe { body.place.as_ref()?.take()? };
    // SAFETY: this thread has the group, so that no other one touches it.
    let group = unsafe { &mut *body.group.get() }.as_mut()?;
    if !group.commit_quickly(seated) {
        return None;
    }
    let is_over = group.leave_engine();
    if is_over {
        // SAFETY: it is live and whole, and what is left in it has nothing to drop.
        unsafe { handle::close_emptied(x) };
    }
    Some(is_over)
}

/// Undoes a group. A detached group can be undone by any thread.
///
/// After a deadlock it takes 50 us, with #NETSHM_LOCK_RECORD 3 ms: those to whom the group has given way go on meanwhile.
///
/// @param x  The group; NULL is OK. It ends as with netshm_group_commit().
///
/// @return As netshm_group_commit(), but never NETSHM_E_NO_SPACE, and NETSHM_E_DEADLOCK only where somebody damages the
///         object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_abort(x: *mut netshm_txn) -> c_int {
    guard(&["x"], || {
        if x.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle.
        unsafe { end(x, false) }
    })
}

/// After NETSHM_E_DEADLOCK: undoes everything, waits a moment, and begins again as the same group.
///
/// The group keeps its age, so that others give way to it sooner or later.
///
/// @param x  The group, which stays open whatever is returned.
///
/// @return NETSHM_OK; NETSHM_E_IN_GROUP, it is an inner group, another thread's, or detached; NETSHM_E_FORKED;
///         NETSHM_E_ABORTED; NETSHM_E_TIMEOUT; NETSHM_E_CORRUPT; NETSHM_E_IN_CALLBACK; NETSHM_E_BUSY;
///         NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_restart(x: *mut netshm_txn) -> c_int {
    guard(&["x"], || {
        // SAFETY: the header asks for a handle.
        Ok(unsafe { usable(x) }?.1.restart()?)
    })
}

/// Takes a group off this thread, so that another thread can attach it. Its inner groups must have ended.
///
/// @param x  The group, which stays open whatever is returned.
///
/// @return NETSHM_OK; NETSHM_E_IN_GROUP, it is an inner group, another thread's, or detached already;
///         NETSHM_E_FORKED; NETSHM_E_ABORTED; NETSHM_E_IN_CALLBACK; NETSHM_E_BUSY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_detach(x: *mut netshm_txn) -> c_int {
    guard(&["x"], || {
        // SAFETY: the header asks for a handle.
        let (body, group) = unsafe { usable(x) }?;
        group.leave_thread()?;
        // Release pairs with the Acquire of whoever takes it.
        body.owner.store(DETACHED, Ordering::Release);
        Ok(())
    })
}

/// Makes a detached group the calling thread's.
///
/// @param x  The group, which stays detached if the call fails.
///
/// @return NETSHM_OK; NETSHM_E_IN_GROUP, another group on the same object is open on this thread, or it is not
///         detached; NETSHM_E_FORKED; NETSHM_E_IN_CALLBACK; NETSHM_E_BUSY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_group_attach(x: *mut netshm_txn) -> c_int {
    guard(&["x"], || {
        // SAFETY: the header asks for a handle.
        let body = unsafe { handle::body(1, x) }?;
        if body.epoch != process::fork_epoch() {
            return Err(Fault::Core(Error::Forked));
        }
        // SAFETY: as above.
        if !unsafe { take_detached(x) }? {
            return Err(Fault::Core(match body.owner.load(Ordering::Acquire) {
                LENT => Error::InCallback,
                TAKEN => Error::Busy("another thread is using the group's handle"),
                _ => Error::InGroup("it is not detached"),
            }));
        }
        // SAFETY: it was detached, and this call has taken it.
        let group = unsafe { &mut *body.group.get() };
        let joined = group.as_ref().map_or(Err(Error::InCallback), Transaction::join_thread);
        let owner = if joined.is_ok() { ATTACHED } else { DETACHED };
        body.owner.store(owner, Ordering::Release);
        Ok(joined?)
    })
}
