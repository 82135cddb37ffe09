//! What was seen of some chunks of an array, so that the next lookup needs neither the hash nor the search.
//!
//! A hint is private to the process and may be out of date: the entry that pointed to the chunk and the chunk's key are
//! compared each time, and what is read counts under the same condition as after a lookup by hash. Only three things
//! have to be right: that the entry lies in a bucket of the table, that the chunk lies in the object, and what the
//! array's length is. Therefore a hint is used only under the version of the roots that it was made under.

use super::find::{Seen, Sight};
use super::roots::{NOTHING_KNOWN, Roots};
use crate::format::Offset;
use crate::format::array::KEY_BYTES;
use crate::format::bucket::{ENTRIES, LINE_BYTES, W_ENTRY, entry_record};
use crate::format::lock_word::LockWord;
use crate::format::record::SHORT_HEADER_BYTES;
use crate::segment::Segment;
use crate::segment::view::{Block, Span, View};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Chunks that are remembered: those that come first. Others of the same place go the way by hash, so that reading
/// at random stores nothing here, either.
const HINTS: usize = 256;

/// One hint, alone on a cache line.
#[repr(align(64))]
struct Hint {
    /// Version of the roots, 0: there is no hint, or it is being written. It never goes back.
    version: AtomicU64,
    chunk: AtomicU64,
    /// The entry, and its offset. It lies in the bucket itself, not in an overflow line.
    entry: AtomicU64,
    entry_at: AtomicU64,
    /// Length of the array.
    length: AtomicU64,
}

/// Hints for one array.
pub(crate) struct Hints {
    hints: [Hint; HINTS],
    /// Somebody is writing one. Nobody waits for it: a forked child may find it set for ever, and only loses speed.
    writing: AtomicBool,
}

/// A chunk as it was seen. It counts under the same condition as a [`Sight`].
#[derive(Clone, Copy)]
pub(crate) struct SeenChunk<'a> {
    pub(crate) view: View<'a>,
    pub(crate) bucket: Block<'a, 8>,
    pub(crate) seen: Seen,
    pub(crate) value_at: Offset,
    /// The chunk's value.
    pub(crate) value: Span<'a>,
    /// Length of the array.
    pub(crate) length: u64,
}

impl<'a> SeenChunk<'a> {
    /// As a lookup gives it.
    #[inline(always)]
    pub(crate) fn sight(&self) -> Sight<'a> {
        Sight { view: self.view, bucket: self.bucket, found: None, seen: self.seen, level: 0 }
    }
}

impl Hints {
    pub(crate) fn new() -> Hints {
        let none = || Hint {
            version: 0.into(),
            chunk: 0.into(),
            entry: 0.into(),
            entry_at: 0.into(),
            length: 0.into(),
        };
        Hints { hints: std::array::from_fn(|_| none()), writing: AtomicBool::new(false) }
    }

    #[inline(always)]
    fn of(&self, chunk: u64) -> &Hint {
        &self.hints[chunk as usize % HINTS]
    }

    /// Looks for a chunk whose value has `value_words` words. None: there is no hint, or it does not fit.
    #[inline(always)]
    pub(crate) fn lookup<'a>(
        &self,
        segment: &'a Segment,
        roots: &Roots,
        chunk: u64,
        value_words: u64,
    ) -> Option<SeenChunk<'a>> {
        let roots_version = roots.version();
        let hint = self.of(chunk);
        if hint.version.load(Ordering::Acquire) != roots_version {
            return None;
        }
        let entry = hint.entry.load(Ordering::Relaxed);
        #[cfg(test)]
        interruption::come();
        let entry_at = hint.entry_at.load(Ordering::Relaxed);
        // Not kept by itself: the version tells hints of different roots apart, but not two that were made under the
        // same ones, and the entry may have changed in between.
        let value_at = entry_record(entry).add(SHORT_HEADER_BYTES + KEY_BYTES);
        let length = hint.length.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if hint.version.load(Ordering::Relaxed) != roots_version {
            return None;
        }
        let view = segment.view();
        let at = Offset(entry_at / LINE_BYTES * LINE_BYTES);
        let bucket = view.aligned_line(at)?;
        let word = LockWord(bucket.load_acquire(0));
        // SAFETY: whoever wrote the entry had its value as a span, and the version was seen before the view was taken.
        let value = unsafe { view.known_span(value_at, value_words) };
        // SAFETY: a chunk's key lies right before its value, and where the value is, that is.
        let key = unsafe { view.known_span(Offset(value_at.0 - KEY_BYTES), 1) };
        let fits = bucket.load((entry_at / 8 % 8) as usize) == entry && key.load(0) == Some(chunk);
        if word.is_writing() || !fits {
            return None;
        }
        // Only those who add an entry ask for the bucket's index.
        let seen = Seen { bucket: at, index: 0, word, roots_version };
        Some(SeenChunk { view, bucket, seen, value_at, value, length })
    }

    /// Takes note of a chunk that was found by its hash, unless its place is another chunk's.
    pub(crate) fn remember(&self, chunk: u64, record: Offset, at: &SeenChunk) {
        // What was found while the roots were read anew counts under no version.
        if at.seen.roots_version == NOTHING_KNOWN {
            return;
        }
        let hint = self.of(chunk);
        let is_taken = hint.version.load(Ordering::Relaxed) == at.seen.roots_version;
        if !is_taken || hint.chunk.load(Ordering::Relaxed) == chunk {
            self.write(hint, chunk, record, at);
        }
    }

    fn write(&self, hint: &Hint, chunk: u64, record: Offset, at: &SeenChunk) {
        let mut entries = (W_ENTRY..W_ENTRY + ENTRIES).map(|n| (n, at.bucket.load(n as usize)));
        let Some((n, entry)) = entries.find(|(_, entry)| entry_record(*entry) == record) else { return };
        if self.writing.swap(true, Ordering::Acquire) {
            return;
        }
        if hint.version.load(Ordering::Relaxed) <= at.seen.roots_version {
            hint.version.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            hint.chunk.store(chunk, Ordering::Relaxed);
            hint.entry.store(entry, Ordering::Relaxed);
            hint.entry_at.store(at.seen.bucket.word(n).0, Ordering::Relaxed);
            hint.length.store(at.length, Ordering::Relaxed);
            hint.version.store(at.seen.roots_version, Ordering::Release);
        }
        self.writing.store(false, Ordering::Release);
    }
}

/// Lets a test do something in the middle of the next lookup of this thread, as another thread might.
#[cfg(test)]
pub(crate) mod interruption {
    use std::cell::RefCell;

    thread_local! {
        static NEXT: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    pub(crate) fn plan(what: impl FnOnce() + 'static) {
        NEXT.with(|next| *next.borrow_mut() = Some(Box::new(what)));
    }

    pub(super) fn come() {
        if let Some(what) = NEXT.with(|next| next.borrow_mut().take()) {
            what();
        }
    }
}
