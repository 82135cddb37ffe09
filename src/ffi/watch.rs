//! Waiting until a key's binding may have changed.

use super::call::{bytes, guard, out};
use super::error::{self, Detail, NETSHM_E_TIMEOUT, NETSHM_OK};
use super::hashtbl::{kept_key, netshm_hashtbl};
use crate::hashtbl::Stamp;
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
/// things are noticed after 50 ms only: that the whole table was re-initialised, and a change by a process that was
/// killed before it could wake anybody. It does not poll, except that on an object that is open for reading only,
/// or whose locking method is not #NETSHM_LOCK_FUTEX, it looks every 5 ms. Nothing is locked meanwhile.
///
/// @param t           The table; any number of threads may wait, also for the same key. It may be closed meanwhile.
/// @param key         The key; may be NULL only if key_len is 0.
/// @param key_len     Its length in bytes.
/// @param stamp       The stamp from netshm_hashtbl_stamp() or from the last wait; 0 ends the wait at once.
///                    Receives the new stamp, if the call succeeds.
/// @param timeout_ns  Longest wait in nanoseconds; 0 only looks, a negative number sets no limit.
///
/// @return NETSHM_OK, there may be a change; NETSHM_E_TIMEOUT, there was none in time; NETSHM_E_INTERRUPTED, a signal
///         handler has run in this thread while it slept; NETSHM_E_IN_GROUP and NETSHM_E_IN_CALLBACK, where a
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
    let mut in_time = true;
    let code = guard(&["t", "key", "key_len", "stamp", "timeout_ns"], || {
        let place = out(4, stamp)?;
        // SAFETY: the header asks for a handle, for readable bytes and for a stamp.
        let (t, key, since) = unsafe { (kept_key(t)?, bytes(2, key, key_len)?, stamp.read_unaligned()) };
        let mut since = Stamp::from_bits(since);
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        in_time = t.wait(key, &mut since, timeout)?;
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(since.to_bits()) };
        Ok(())
    });
    if code == NETSHM_OK && !in_time {
        let detail = Detail { code: NETSHM_E_TIMEOUT, ..Detail::default() };
        return error::record(detail, "timed out waiting for a change");
    }
    code
}
