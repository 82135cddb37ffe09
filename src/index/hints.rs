//! Where the entries of some keys of 8 bytes were seen, so that the next lookup needs neither the hash nor the search.
//!
//! A hint is private to the process and may be wrong: the entry, the record's lengths and its key are compared
//! each time, and what is read counts under the same condition as after a lookup by hash. Only one thing has to be
//! right, that the entry lies in a bucket of the table: therefore a hint is used only under the version of the
//! roots that it was made under.

use super::find::{Found, Seen, Sight};
use super::roots::Roots;
use crate::format::Offset;
use crate::format::bucket::{ENTRIES, LINE_BYTES, W_ENTRY, entry_record};
use crate::format::lock_word::LockWord;
use crate::format::record::{SHORT_HEADER_BYTES, Shape};
use crate::segment::Segment;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Keys that are remembered: those that come first. Others of the same place go the way by hash, so that reading
/// at random stores nothing here, either.
const HINTS: usize = 256;

/// One hint, alone on half a cache line.
#[repr(align(32))]
struct Hint {
    /// Version of the roots, 0: there is no hint, or it is being written. It never goes back.
    version: AtomicU64,
    key: AtomicU64,
    /// Offset of the entry, which lies in the bucket itself, not in an overflow line.
    entry_at: AtomicU64,
}

/// Hints for one table.
pub(crate) struct Hints {
    hints: [Hint; HINTS],
    /// Somebody is writing one. Nobody waits for it: a forked child may find it set for ever, and only loses speed.
    writing: AtomicBool,
}

impl Hints {
    pub(crate) fn new() -> Hints {
        let none = || Hint { version: 0.into(), key: 0.into(), entry_at: 0.into() };
        Hints { hints: std::array::from_fn(|_| none()), writing: AtomicBool::new(false) }
    }

    #[inline(always)]
    fn of(&self, key: u64) -> &Hint {
        &self.hints[key as usize % HINTS]
    }

    /// Looks for a key whose value has this length where it was seen. As `find::quick_lookup`, but none is found
    /// also if there is no hint or it does not fit.
    #[inline(always)]
    pub(crate) fn lookup<'a>(
        &self,
        segment: &'a Segment,
        roots: &Roots,
        key: u64,
        value_len: u64,
    ) -> Option<Sight<'a>> {
        let view = segment.view();
        let roots_version = roots.version();
        let hint = self.of(key);
        if hint.version.load(Ordering::Acquire) != roots_version {
            return None;
        }
        let entry_at = hint.entry_at.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if hint.version.load(Ordering::Relaxed) != roots_version {
            return None;
        }
        let at = Offset(entry_at / LINE_BYTES * LINE_BYTES);
        let bucket = view.aligned_line(at)?;
        let word = LockWord(bucket.load_acquire(0));
        if word.is_writing() {
            return None;
        }
        let record = entry_record(bucket.load((entry_at / 8 % 8) as usize));
        let header = view.block::<3>(record)?;
        let shape = Shape::new(8, value_len);
        let fits = header.load(1) == shape.lengths_word() && header.load(2) == key && !record.is_none();
        if !fits || !view.reaches(record, shape.value_at() + value_len) {
            return None;
        }
        let found = Some(Found::new(record, shape));
        // Only those who add an entry ask for the bucket's index.
        Some(Sight { view, bucket, found, seen: Seen { bucket: at, index: 0, word, roots_version } })
    }

    /// Takes note of where a key was found, if its place is not another key's.
    #[inline]
    pub(crate) fn remember(&self, key: u64, sight: &Sight) {
        let hint = self.of(key);
        let version = hint.version.load(Ordering::Relaxed);
        if version == sight.seen.roots_version && hint.key.load(Ordering::Relaxed) != key {
            return;
        }
        self.write(hint, key, sight);
    }

    #[cold]
    #[inline(never)]
    fn write(&self, hint: &Hint, key: u64, sight: &Sight) {
        let Some(found) = sight.found else { return };
        let is_it = |n: &usize| entry_record(sight.bucket.load(*n)) == found.record;
        let entries = W_ENTRY as usize..(W_ENTRY + ENTRIES) as usize;
        let Some(n) = entries.into_iter().find(is_it) else { return };
        if self.writing.swap(true, Ordering::Acquire) {
            return;
        }
        if hint.version.load(Ordering::Relaxed) <= sight.seen.roots_version {
            hint.version.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            hint.key.store(key, Ordering::Relaxed);
            hint.entry_at.store(sight.seen.bucket.word(n as u64).0, Ordering::Relaxed);
            hint.version.store(sight.seen.roots_version, Ordering::Release);
        }
        self.writing.store(false, Ordering::Release);
    }
}

const _: () = assert!(SHORT_HEADER_BYTES == 16);
