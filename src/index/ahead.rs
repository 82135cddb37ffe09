//! Looking up several keys at once: each step is taken for all of them before the next one begins, and asks the
//! processor for what the next one reads, so that the waits for memory overlap.
//!
//! What it finds are [`Sight`]s like those of single lookups, which count once they are validated. Whatever is not
//! as usual it leaves to them.

use super::KeyHash;
use super::find::{Seen, Sight, is_short_key, quick_match};
use super::roots::{Hint, Roots};
use crate::format::Offset;
use crate::format::bucket::{self, LINE_BYTES, Link, W_ENTRY, W_LINK, entry_record, level_of, mask};
use crate::format::lock_word::LockWord;
use crate::segment::Segment;
use crate::segment::view::{Block, View};

/// Keys that are looked up at once. A processor core has some ten to twenty reads from memory under way at a time;
/// with many more keys the lines of the first ones would be pushed out of the nearest cache before they are used.
pub(crate) const BATCH: usize = 16;

/// Some keys, each with something that its user wants to do with it, and how far their lookups have come.
pub(crate) struct Batch<'k, 'a, T> {
    segment: &'a Segment,
    view: View<'a>,
    hint: Hint,
    len: usize,
    lookups: [Lookup<'k, T>; BATCH],
}

/// A key's lookup, under way.
#[derive(Clone, Copy)]
struct Lookup<'k, T> {
    key: &'k [u8],
    task: T,
    hash: u64,
    bucket: Offset,
    word: LockWord,
    next: Next,
}

/// What a lookup looks at next.
#[derive(Clone, Copy)]
enum Next {
    /// A record that is probably the key's.
    Record(Offset),
    /// An overflow line.
    Line(Offset),
    /// Nothing: the key has no binding. With the level of its bucket.
    Absent(u32),
    /// It is for a single lookup to say.
    Unusual,
}

impl<'k, 'a, T: Copy + Default> Batch<'k, 'a, T> {
    /// A batch of no keys.
    pub(crate) fn new(segment: &'a Segment, roots: &Roots) -> Batch<'k, 'a, T> {
        let nothing = Lookup {
            key: &[],
            task: T::default(),
            hash: 0,
            bucket: Offset::NONE,
            word: LockWord(0),
            next: Next::Unusual,
        };
        Batch { segment, view: segment.view(), hint: roots.hint(), len: 0, lookups: [nothing; BATCH] }
    }

    /// The first step: takes up to [`BATCH`] other keys, and asks for the buckets where they are probably at home.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        roots: &Roots,
        hash: &KeyHash,
        keys: &mut impl Iterator<Item = (&'k [u8], T)>,
    ) {
        (self.view, self.hint, self.len) = (self.segment.view(), roots.hint(), 0);
        for lookup in &mut self.lookups {
            let Some((key, task)) = keys.next() else { return };
            let hash = hash.hash(key);
            let bucket = roots.expected_bucket(self.hint.index(hash));
            self.view.prefetch(bucket);
            *lookup = Lookup { key, task, hash, bucket, word: LockWord(0), next: Next::Unusual };
            self.len += 1;
        }
    }

    /// The second step: looks into the buckets, and asks for the records.
    #[inline(always)]
    pub(crate) fn look(&mut self) {
        if self.read_buckets() {
            self.read_lines();
        }
    }

    /// What do their buckets say? Tells whether some have to be looked for in overflow lines.
    #[inline(always)]
    fn read_buckets(&mut self) -> bool {
        let mut overflowing = false;
        for lookup in &mut self.lookups[..self.len] {
            let Some(bucket) = self.view.aligned_line(lookup.bucket) else { continue };
            lookup.word = LockWord(bucket.load_acquire(0));
            if lookup.word.is_writing() {
                continue;
            }
            lookup.next = match record_in(bucket, lookup.hash) {
                Some(record) => Next::Record(record),
                None => after_bucket(&self.hint, lookup.hash, Link(bucket.load(W_LINK as usize))),
            };
            match lookup.next {
                Next::Record(record) => prefetch_record(self.view, record),
                Next::Line(line) => {
                    overflowing = true;
                    self.view.prefetch(line);
                }
                _ => {}
            }
        }
        overflowing
    }

    /// What do the first overflow lines say?
    #[cold]
    fn read_lines(&mut self) {
        for lookup in &mut self.lookups[..self.len] {
            let Next::Line(at) = lookup.next else { continue };
            let record = self.view.block::<8>(at).and_then(|line| record_in(line, lookup.hash));
            lookup.next = match record {
                Some(record) => {
                    prefetch_record(self.view, record);
                    Next::Record(record)
                }
                None => Next::Unusual,
            };
        }
    }

    /// The number of keys.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Has it as many keys as it can have, so that there may be more?
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.len == BATCH
    }

    /// A key of the batch, its task, and its hash.
    #[inline(always)]
    pub(crate) fn key(&self, i: usize) -> (&'k [u8], T, u64) {
        let lookup = &self.lookups[i];
        (lookup.key, lookup.task, lookup.hash)
    }

    /// What was seen of a key; none, if it is to be looked up by itself.
    #[inline(always)]
    pub(crate) fn sight(&self, i: usize) -> Option<Sight<'a>> {
        let (lookup, view) = (&self.lookups[i], self.view);
        let found = match lookup.next {
            Next::Record(record) if is_short_key(lookup.key.len()) => {
                Some(quick_match(view, record, lookup.key)?)
            }
            Next::Absent(_) => None,
            _ => return None,
        };
        let level = if let Next::Absent(level) = lookup.next { level } else { 0 };
        let (bucket, index) = (lookup.bucket, self.hint.index(lookup.hash));
        let seen = Seen { bucket, index, word: lookup.word, roots_version: self.hint.version };
        Some(Sight { view, bucket: view.aligned_line(bucket)?, found, seen, level })
    }
}

/// Asks for the bucket where a key is probably at home, long before it is looked up.
#[inline(always)]
pub(crate) fn ask_for_bucket(segment: &Segment, roots: &Roots, hash: u64) {
    segment.view().prefetch(roots.expected_bucket(roots.guess(hash)));
}

/// Asks for the first lines of a key's record, if its bucket, which was asked for before, shows it.
#[inline(always)]
pub(crate) fn ask_for_record(segment: &Segment, roots: &Roots, hash: u64, lines: u64) {
    let view = segment.view();
    let bucket = view.aligned_line(roots.expected_bucket(roots.guess(hash)));
    if let Some(record) = bucket.and_then(|bucket| record_in(bucket, hash)) {
        (0..lines).for_each(|n| view.prefetch(record.add(n * LINE_BYTES)));
    }
}

/// The record of the first entry that has a hash's tag.
#[inline(always)]
fn record_in(line: Block<'_, 8>, hash: u64) -> Option<Offset> {
    let candidates = line.matches(bucket::tag_bits(hash));
    if candidates == 0 {
        return None;
    }
    // The mask keeps the index inside of the block for the compiler's sake.
    Some(entry_record(line.load((W_ENTRY as usize + candidates.trailing_zeros() as usize) & 7)))
}

/// Where a lookup goes on if its bucket has no entry with the tag.
#[inline(always)]
fn after_bucket(hint: &Hint, hash: u64, link: Link) -> Next {
    if !link.next().is_none() {
        return Next::Line(link.next());
    }
    let index = hint.index(hash);
    match level_of(index, link, hint.base_level) {
        Some(level) if level <= bucket::MAX_LEVEL && hash & mask(level) == index => Next::Absent(level),
        _ => Next::Unusual,
    }
}

/// Asks for a record: most reach into a second line.
#[inline(always)]
fn prefetch_record(view: View<'_>, record: Offset) {
    view.prefetch(record);
    view.prefetch(record.add(LINE_BYTES));
}
