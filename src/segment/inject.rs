//! Test builds only: dying or stopping before the k-th shared store of this process, and other settings of tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static STORES: AtomicU64 = AtomicU64::new(0);
static DIE_AT: AtomicU64 = AtomicU64::new(u64::MAX);
static STOPS: AtomicBool = AtomicBool::new(false);
static ARMED: AtomicBool = AtomicBool::new(false);

/// Starts counting; the process kills itself before store number `k` (from 0), or never with `u64::MAX`.
pub fn arm(k: u64) {
    STORES.store(0, Ordering::SeqCst);
    DIE_AT.store(k, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
}

/// Starts counting; the process stops, by SIGSTOP, before store number `k` (from 0).
pub fn stop_at(k: u64) {
    STOPS.store(true, Ordering::SeqCst);
    arm(k);
}

/// Stops counting and tells how many stores there were since [`arm`].
pub fn disarm() -> u64 {
    ARMED.store(false, Ordering::SeqCst);
    STORES.load(Ordering::SeqCst)
}

/// 0: not set.
static LONGEST_SLEEP_MS: AtomicU64 = AtomicU64::new(0);

/// Makes waits for a change in this process sleep as long as this between two looks, so that a wake-up which is
/// lost is not made good by the next look.
pub fn set_longest_sleep_ms(ms: u64) {
    LONGEST_SLEEP_MS.store(ms, Ordering::SeqCst);
}

/// What was set by [`set_longest_sleep_ms`].
pub(crate) fn longest_sleep() -> Option<std::time::Duration> {
    let ms = LONGEST_SLEEP_MS.load(Ordering::Relaxed);
    (ms != 0).then(|| std::time::Duration::from_millis(ms))
}

/// Are objects for which no locking method is asked to have record locks? So says `NETSHM_LOCKING=record`.
pub(crate) fn prefers_record_locking() -> bool {
    std::env::var_os("NETSHM_LOCKING").is_some_and(|method| method == "record")
}

#[inline]
pub(super) fn before_store() {
    if ARMED.load(Ordering::Relaxed)
        && STORES.fetch_add(1, Ordering::Relaxed) == DIE_AT.load(Ordering::Relaxed)
    {
        if !STOPS.load(Ordering::Relaxed) {
            crate::os::process::kill_self();
        }
        crate::os::process::stop_self();
    }
}

/// Hears of each range, in bytes, of the file with an inode number that has been written to its device.
pub type SyncObserver = fn(u64, std::ops::Range<u64>);

static OBSERVER: std::sync::Mutex<Option<SyncObserver>> = std::sync::Mutex::new(None);

/// Has syncs of this process told to a function; a test's model of a device needs to know them.
pub fn observe_syncs(observer: SyncObserver) {
    *OBSERVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(observer);
}

pub(super) fn synced(inode: u64, range: std::ops::Range<u64>) {
    let observer = *OBSERVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(observer) = observer {
        observer(inode, range);
    }
}

/// Syncs until one fails, and that one; 0: none will.
static SYNCS_LEFT: AtomicU64 = AtomicU64::new(0);

/// Lets the device refuse sync number `k` of this process from now on (from 0), and no other.
pub fn fail_sync(k: u64) {
    SYNCS_LEFT.store(k + 1, Ordering::SeqCst);
}

pub(super) fn before_sync() -> crate::error::Result<()> {
    let fewer = |left: u64| left.checked_sub(1);
    match SYNCS_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer) {
        Ok(1) => Err(crate::os::space::refused_before()),
        _ => Ok(()),
    }
}
