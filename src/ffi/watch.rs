//! Waiting until a key's binding may have changed.

use super::call::{Names, Outcome, bytes, guard, out};
use super::error::{self, Detail, NETSHM_E_TIMEOUT, NETSHM_OK};
use super::hashtbl::{kept_key, netshm_hashtbl};
use super::typed::{encoded, live};
use super::value::netshm_value;
use crate::hashtbl::{HashTable, Stamp};
use std::ffi::{c_int, c_void};
use std::time::Duration;

/// Gives the present stamp of a key, bound or not, for netshm_hashtbl_wait().
///
/// Whenever a binding of the key is added, replaced or removed, the key gets another stamp; it may get another one
/// although nothing has happened to it. A stamp means something for its key and its object only, in any process;
/// 0 is none. Take the stamp first, read afterwards, then wait: what changes in between ends the wait at once.
///
/// @param t        The table; safe to use from several threads.
/// @param key      The key; may be NULL only if key_len is 0.
/// @param key_len  Its length in bytes.
/// @param stamp    Receives the stamp. In a group, it is that of what others see.
///
/// @return NETSHM_OK; else the codes of netshm_hashtbl_find() but NETSHM_E_NOT_FOUND and NETSHM_E_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_stamp(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    stamp: *mut u64,
) -> c_int {
    guard(&["t", "key", "key_len", "stamp"], || {
        let place = out(4, stamp)?;
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (kept_key(t)?, bytes(2, key, key_len)?) };
        let stamp = t.stamp(key)?.to_bits();
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(stamp) };
        Ok(())
    })
}

/// Waits until the bindings of a key may have changed since a stamp.
///
/// It may end early, without a change; it does not end late: a commit wakes all who wait, in whatever process. Two
/// things may be noticed after 50 ms only: that a large table was re-initialised, and a change by a process that was
/// killed before it could wake anybody. It does not poll, except that on an object that is open for reading only,
/// or whose locking method is not #NETSHM_LOCK_FUTEX, it looks every 5 ms. Nothing is locked meanwhile.
///
/// Signals of the calling thread are held back while it looks, and handled when it sleeps, so that hardly any is missed. A
/// handler that has run just before the call is not noticed: who waits for what a handler says should set a time-out.
///
/// @param t           The table; any number of threads may wait, also for the same key. It may be closed meanwhile.
/// @param key         The key; may be NULL only if key_len is 0.
/// @param key_len     Its length in bytes.
/// @param stamp       The stamp from netshm_hashtbl_stamp() or from the last wait; 0 ends the wait at once.
///                    Receives the new stamp, if the call succeeds.
/// @param timeout_ns  Longest wait in nanoseconds; 0 only looks, a negative number sets no limit.
///
/// @return NETSHM_OK, there may be a change; NETSHM_E_TIMEOUT, there was none in time; NETSHM_E_INTERRUPTED, a signal
///         handler has run in this thread meanwhile; NETSHM_E_IN_GROUP and NETSHM_E_IN_CALLBACK, where a
///         change could not come for the caller's own sake; NETSHM_E_STALE, the object holds no such table any
///         more; NETSHM_E_FORKED, NETSHM_E_BUSY, NETSHM_E_CORRUPT, NETSHM_E_INVALID, NETSHM_E_CLOSED,
///         NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_wait(
    t: *mut netshm_hashtbl,
    key: *const c_void,
    key_len: usize,
    stamp: *mut u64,
    timeout_ns: i64,
) -> c_int {
    guard_wait(&["t", "key", "key_len", "stamp", "timeout_ns"], || {
        // SAFETY: the header asks for a handle and for readable bytes.
        let (t, key) = unsafe { (kept_key(t)?, bytes(2, key, key_len)?) };
        // SAFETY: the header asks for a stamp.
        unsafe { wait(&t, key, stamp, timeout_ns) }
    })
}

/// Runs the body of a wait, which tells whether the time-out has not passed.
fn guard_wait(names: Names, body: impl FnOnce() -> Outcome<bool>) -> c_int {
    let mut in_time = true;
    let code = guard(names, || {
        in_time = body()?;
        Ok(())
    });
    if code == NETSHM_OK && !in_time {
        let detail = Detail { code: NETSHM_E_TIMEOUT, ..Detail::default() };
        return error::record(detail, "timed out waiting for a change");
    }
    code
}

/// Waits for another stamp than the one at argument 4, and puts it there.
///
/// # Safety
/// If it is not NULL, it must be readable and writable.
unsafe fn wait(t: &HashTable, key: &[u8], stamp: *mut u64, timeout_ns: i64) -> Outcome<bool> {
    let place = out(4, stamp)?;
    // SAFETY: the caller's promise.
    let mut since = Stamp::from_bits(unsafe { stamp.read_unaligned() });
    let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
    let in_time = t.wait(key, &mut since, timeout)?;
    // SAFETY: the caller's promise.
    unsafe { place.put(since.to_bits()) };
    Ok(in_time)
}

/// Gives the present stamp of a key of any type; else it is like netshm_hashtbl_stamp().
///
/// @param t      The table; safe to use from several threads.
/// @param key    The cells of the key.
/// @param nk     Their number.
/// @param stamp  Receives the stamp.
///
/// @return As netshm_hashtbl_stamp(); NETSHM_E_TYPE, NETSHM_E_OVERFLOW and a custom type's answer as for
///         netshm_hashtbl_find_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_stamp_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    stamp: *mut u64,
) -> c_int {
    guard(&["t", "key", "nk", "stamp"], || {
        let place = out(4, stamp)?;
        // SAFETY: the header asks for a handle, for readable cells, and for a valid place.
        unsafe {
            let (table, types) = live(t)?;
            let stamp = table.stamp(encoded(2, &types.key, key, nk)?.as_ref())?;
            place.put(stamp.to_bits());
        }
        Ok(())
    })
}

/// Waits until the bindings of a key of any type may have changed since a stamp; else it is like
/// netshm_hashtbl_wait().
///
/// @param t           The table; any number of threads may wait, also for the same key. It may be closed meanwhile.
/// @param key         The cells of the key.
/// @param nk          Their number.
/// @param stamp       The stamp, as for netshm_hashtbl_wait().
/// @param timeout_ns  Longest wait in nanoseconds; 0 only looks, a negative number sets no limit.
///
/// @return As netshm_hashtbl_wait(); NETSHM_E_TYPE, NETSHM_E_OVERFLOW and a custom type's answer as for
///         netshm_hashtbl_find_v().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_hashtbl_wait_v(
    t: *mut netshm_hashtbl,
    key: *const netshm_value,
    nk: usize,
    stamp: *mut u64,
    timeout_ns: i64,
) -> c_int {
    guard_wait(&["t", "key", "nk", "stamp", "timeout_ns"], || {
        // SAFETY: the header asks for a handle, for readable cells, and for a stamp.
        unsafe {
            // The handle may be closed meanwhile, also by a type's callback.
            let (table, types) = live(t).map(|(table, types)| (table.clone(), types.clone()))?;
            let key = encoded(2, &types.key, key, nk)?;
            wait(&table, key.as_ref(), stamp, timeout_ns)
        }
    })
}
