//! Test builds only: dying before the k-th shared store of this process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static STORES: AtomicU64 = AtomicU64::new(0);
static DIE_AT: AtomicU64 = AtomicU64::new(u64::MAX);
static ARMED: AtomicBool = AtomicBool::new(false);

/// Starts counting; the process kills itself before store number `k` (from 0), or never with `u64::MAX`.
pub fn arm(k: u64) {
    STORES.store(0, Ordering::SeqCst);
    DIE_AT.store(k, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
}

/// Stops counting and tells how many stores there were since [`arm`].
pub fn disarm() -> u64 {
    ARMED.store(false, Ordering::SeqCst);
    STORES.load(Ordering::SeqCst)
}

#[inline]
pub(super) fn before_store() {
    if ARMED.load(Ordering::Relaxed)
        && STORES.fetch_add(1, Ordering::Relaxed) == DIE_AT.load(Ordering::Relaxed)
    {
        crate::os::process::kill_self();
    }
}
