//! Test builds only: dying or stopping before the k-th shared store of this process, and other settings of tests.

use crate::error::{Error, Result};
use crate::format::lock_word::LockWord;
use crate::format::{Offset, doubling_chunk_len, header, slot};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

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

/// An address, or 0.
static LOSES: AtomicUsize = AtomicUsize::new(0);

/// Starts counting; before store number `k` (from 0) this process touches an address, where there is no page.
pub fn lose_a_page_at(k: u64, address: usize) {
    LOSES.store(address, Ordering::SeqCst);
    arm(k);
}

/// How many stores there were since [`arm`].
pub fn stores() -> u64 {
    STORES.load(Ordering::SeqCst)
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
        let address = LOSES.load(Ordering::Relaxed);
        if address != 0 {
            return crate::os::guard::touch(address);
        }
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

pub(super) fn before_sync() -> Result<()> {
    let fewer = |left: u64| left.checked_sub(1);
    match SYNCS_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer) {
        Ok(1) => Err(crate::os::space::refused_before()),
        _ => Ok(()),
    }
}

/// `u64::MAX`: not set.
static QUARANTINE_SECONDS: AtomicU64 = AtomicU64::new(u64::MAX);

/// Lets this process give memory back to the system that has been free for so long.
pub fn set_quarantine_seconds(seconds: u64) {
    QUARANTINE_SECONDS.store(seconds, Ordering::SeqCst);
}

/// What was set by [`set_quarantine_seconds`].
pub(crate) fn quarantine_seconds() -> Option<u64> {
    Some(QUARANTINE_SECONDS.load(Ordering::Relaxed)).filter(|seconds| *seconds != u64::MAX)
}

/// Moments of punches that have passed: one right before each, one right after it.
static PUNCH_MOMENTS: AtomicU64 = AtomicU64::new(0);
static DIE_AT_PUNCH: AtomicU64 = AtomicU64::new(u64::MAX);
static REFUSES_PUNCHES: AtomicBool = AtomicBool::new(false);

/// How often this process has given memory back to the system.
pub fn punches() -> u64 {
    PUNCH_MOMENTS.load(Ordering::SeqCst) / 2
}

/// The process kills itself right before its punch number `k / 2` (from 0), or, with an odd number, right after it.
pub fn die_at_punch(k: u64) {
    DIE_AT_PUNCH.store(k, Ordering::SeqCst);
}

/// Lets the file system take no memory back, as some cannot.
pub fn refuse_punches(yes: bool) {
    REFUSES_PUNCHES.store(yes, Ordering::SeqCst);
}

pub(super) fn before_punch() -> Result<()> {
    if REFUSES_PUNCHES.load(Ordering::SeqCst) {
        return Err(Error::Unsupported("a test lets no memory be given back"));
    }
    punch_moment();
    Ok(())
}

/// Where a process may die that gives memory back: the memory has no store of its own there.
pub(super) fn punch_moment() {
    before_store();
    if PUNCH_MOMENTS.fetch_add(1, Ordering::SeqCst) == DIE_AT_PUNCH.load(Ordering::SeqCst) {
        crate::os::process::kill_self();
    }
}

/// Locks that a process has while it stands still, by what the file of an object says: those that a slot of its lists and
/// owns. At least so many: what the list has beyond its first words is not looked at.
///
/// # Errors
/// Those of reading the file.
pub fn locks_held(file: &std::fs::File, pid: u32) -> std::io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let word = |at: Offset| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at.0).map(|()| u64::from_le_bytes(bytes))
    };
    let (mut number, mut locks) = (0, 0);
    for k in 0..header::SLOT_CHUNKS {
        let chunk = Offset(word(header::slot_chunk(k))?);
        if chunk.is_none() {
            break;
        }
        for i in 0..doubling_chunk_len(k, header::FIRST_CHUNK_SLOTS) {
            number += 1;
            let base = chunk.add(i * slot::SLOT_BYTES);
            if word(base.word(slot::W_PID))? != u64::from(pid) {
                continue;
            }
            let listed = word(base.word(slot::W_LIST_LEN))?.min(slot::LOCK_LIST.inline_len);
            for n in 0..listed {
                let at = Offset(word(base.word(slot::LOCK_LIST.inline_word + n))?);
                let owner = LockWord(word(at)?).owner();
                locks += u64::from(u64::from(owner.0) == number);
            }
        }
    }
    Ok(locks)
}
