//! Words of the object as the library reads and writes them, kept by loom, which tries all that the memory model of
//! C11 allows: interleavings, and loads of old values.
//!
//! The orders are those of `src/segment.rs` and `src/segment/view.rs`. loom takes accesses that are SeqCst for acquire
//! and release alone, which is a little less than C11 promises; the library relies on fences where more is needed.

use crate::format::lock_word::LockWord;
use crate::run::has;
use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// A word of the object.
pub struct Word(AtomicU64);

impl Word {
    pub fn new(value: u64) -> Word {
        Word(AtomicU64::new(value))
    }

    /// `Segment::load`, `Block::load`, and the copies out of the object.
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// `Segment::load_acquire`, `Block::load_acquire`.
    pub fn load_acquire(&self) -> u64 {
        self.0.load(if has("relaxed-load") { Ordering::Relaxed } else { Ordering::Acquire })
    }

    /// `Segment::store`, `Block::store`, `Block::store_run`.
    pub fn store(&self, value: u64) {
        self.0.store(value, if has("relaxed-store") { Ordering::Relaxed } else { Ordering::Release });
    }

    /// `View::copy_in`, `Segment::fill`, `Block::store_bytes`: plain stores.
    pub fn copy_in(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// `Segment::compare_exchange`, `Block::compare_exchange`.
    pub fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        let (success, failure) = if has("relaxed-exchange") {
            (Ordering::Relaxed, Ordering::Relaxed)
        } else {
            (Ordering::SeqCst, Ordering::Acquire)
        };
        self.0.compare_exchange(old, new, success, failure).map(drop)
    }

    pub fn lock_word(&self) -> LockWord {
        LockWord(self.load())
    }

    pub fn lock_word_acquire(&self) -> LockWord {
        LockWord(self.load_acquire())
    }
}

/// `Segment::fence_release`.
pub fn fence_release() {
    if !has("no-release-fence") {
        fence(Ordering::Release);
    }
}

/// `Segment::fence_acquire`, and the fences of `index::find`.
pub fn fence_acquire() {
    if !has("no-acquire-fence") {
        fence(Ordering::Acquire);
    }
}

/// `Segment::fence`.
pub fn fence_full() {
    if !has("no-full-fence") {
        fence(Ordering::SeqCst);
    }
}

/// `Segment::fence_after_exchange`.
pub fn fence_after_exchange() {
    if !has("no-fence-after-exchange") {
        fence(Ordering::SeqCst);
    }
}
