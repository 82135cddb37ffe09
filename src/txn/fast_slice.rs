//! The short way of writing a slice whose chunks exist.
//!
//! As in [`super::fast`], for several buckets at once: the chunks are looked up, and new ones are filled beside those
//! that are to be replaced, while nothing is locked. Compare-and-swaps from the words that were seen then take the
//! buckets' locks, marked WRITING, and prove that nothing has changed; none of them waits. Each cell of the slot that
//! gave a block gets the one that it replaces, so that slices written again and again go back and forth between the
//! same blocks. What does not fit goes the general way; `None` means that nothing has happened.

use super::array::{self, Part};
use super::chunk::{self, NewChunk};
use super::fast::{LIST, LOG, Slot};
use super::{TableView, ops};
use crate::alloc::custody::{self, Held};
use crate::format::array::{Geometry, MAX_LENGTH};
use crate::format::bucket::{Link, W_LINK, entry_record, entry_with};
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::record::{self, IN_PLACE_BYTES};
use crate::format::{Offset, header, log_record, slot};
use crate::index::find::{self, Seen};
use crate::index::roots::Roots;
use crate::lock::release;
use crate::segment::Segment;
use crate::segment::copy::Caching;
use crate::segment::view::Block;
use crate::writer::Writer;
use smallvec::SmallVec;

/// Most chunks: so many as the log has room for in the slot, if each is replaced.
const MOST_CHUNKS: u64 = 60;
/// Most chunks of which the first and the last may be written in place.
const FEW_CHUNKS: usize = 8;

/// A part of the slice, and the chunk where it goes.
struct Target<'a> {
    part: Part,
    /// The chunk's value.
    value: Offset,
    /// The entry that points to the chunk, and where that lies.
    entry: u64,
    entry_at: Offset,
    bucket: Block<'a, 8>,
    seen: Seen,
}

type Targets<'a> = SmallVec<[Target<'a>; 4]>;

/// Sets the elements of a slice.
pub(crate) fn write(w: &mut Writer, table: &TableView, g: &Geometry, first: u64, bytes: &[u8]) -> Option<()> {
    let count = bytes.len() as u64 / g.element_bytes;
    // The first and the last chunk may be there in part.
    if count / g.per_chunk + 2 > MOST_CHUNKS {
        return None;
    }
    let slot = w.slot()?;
    let version = table.roots.version();
    let mut targets = Targets::new();
    for part in array::parts(g, first, count) {
        targets.push(look(w, table, g, part)?);
    }
    let is_inside = first + count <= array::length(w.segment, table).min(MAX_LENGTH);
    if !is_inside || targets.iter().any(|t| t.seen.roots_version != version) {
        return None;
    }
    let mut log = Log { slot, words: 0 };
    prepare(w, g, &targets, bytes, &mut log)?;
    lock_all(w, slot, &targets)?;
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, log.words as u64));
    w.segment.fence_release();
    log.apply(w.segment);
    conclude(w, slot, &targets);
    Some(())
}

/// Looks for the chunk of a part.
#[inline]
fn look<'a>(w: &Writer<'a>, table: &TableView, g: &Geometry, part: Part) -> Option<Target<'a>> {
    let key = part.chunk.to_le_bytes();
    let sight = find::quick_lookup(w.segment, &table.roots, table.key_hash.hash(&key), &key)?;
    let (bucket, seen) = (sight.bucket, sight.seen);
    let found = sight.found.filter(|_| seen.word.is_free())?;
    let value = array::value_of_chunk(g, found.record, found.shape).ok()?;
    let hit = ops::hit_in(w, bucket, seen.bucket, Link(bucket.load(W_LINK as usize)), &found)?;
    Some(Target { part, value, entry: hit.entry, entry_at: hit.at, bucket, seen })
}

/// Fills new chunks, and logs what is to be changed.
fn prepare(w: &mut Writer, g: &Geometry, targets: &Targets, bytes: &[u8], log: &mut Log) -> Option<()> {
    let in_place = |t: &&Target| targets.len() <= FEW_CHUNKS && t.part.count * g.stride <= IN_PLACE_BYTES;
    let replaced = targets.len() - targets.iter().filter(in_place).count();
    let mut held = Held::new();
    custody::peek_blocks(w, chunk::class_of(g).ok()?, replaced, &mut held)?;
    let mut blocks = held.iter();
    for target in targets {
        let (from, to) = target.part.bytes(g);
        let elements = &*chunk::at_stride(g, &bytes[from..to]);
        if in_place(&target) {
            log.change_in_place(w, g, target, elements)?;
            continue;
        }
        let (cell, block) = *blocks.next()?;
        let record = entry_record(target.entry);
        let older = record::older(w.segment.load(record));
        let (part, old, caching) = (&target.part, Some(target.value), Caching::Through);
        NewChunk { g, part, old, older, elements, caching }.fill(w, block).ok()?;
        log.begin(target.entry_at, 1)?.push(entry_with(target.entry, block));
        log.begin(cell, 1)?.push(record.0);
    }
    Some(())
}

/// The log in the slot, while it is written.
struct Log<'a> {
    slot: Slot<'a>,
    words: usize,
}

impl Log<'_> {
    /// Begins a run of words. None: there is no room.
    #[inline(always)]
    fn begin(&mut self, at: Offset, count: u64) -> Option<&mut Self> {
        if self.words as u64 + 1 + count > slot::LOG.inline_len {
            return None;
        }
        self.push(log_record::run_header(at, count));
        Some(self)
    }

    #[inline(always)]
    fn push(&mut self, word: u64) {
        self.slot.store(LOG + self.words, word);
        self.words += 1;
    }

    /// Logs that the elements of a part change where they are.
    fn change_in_place(&mut self, w: &Writer, g: &Geometry, target: &Target, elements: &[u8]) -> Option<()> {
        let part = &target.part;
        let (first, end) = (part.first / 64, (part.first + part.count).div_ceil(64));
        self.begin(target.value.word(first), end - first)?;
        for n in first..end {
            self.push(w.segment.load(target.value.word(n)) | chunk::bits_of(part, n));
        }
        // Elements of four bytes may begin or end in the middle of a word.
        let mut skipped = g.element_shift(part.first) as usize / 8;
        let mut at = target.value.word(g.element_word(part.first));
        self.begin(at, (skipped + elements.len()).div_ceil(8) as u64)?;
        let mut rest = elements;
        while !rest.is_empty() {
            let (now, others) = rest.split_at(rest.len().min(8 - skipped));
            let mut word = if now.len() == 8 { [0; 8] } else { w.segment.load(at).to_le_bytes() };
            word[skipped..skipped + now.len()].copy_from_slice(now);
            self.push(u64::from_le_bytes(word));
            (rest, skipped, at) = (others, 0, at.word(1));
        }
        Some(())
    }

    /// Makes the changes that are logged.
    fn apply(&self, segment: &Segment) {
        let mut n = 0;
        while n < self.words {
            let header = self.slot.load(LOG + n);
            let (first, count) = (log_record::run_first(header), log_record::run_count(header) as usize);
            n += 1;
            for i in 0..count.min(self.words - n) {
                segment.store(first.word(i as u64), self.slot.load(LOG + n + i));
            }
            n += count;
        }
    }
}

/// Takes the locks of all buckets, marked WRITING, if nothing has changed since they were seen.
fn lock_all(w: &Writer, slot: Slot, targets: &Targets) -> Option<()> {
    for (n, target) in targets.iter().enumerate() {
        slot.store(LIST + n, target.seen.bucket.0);
    }
    slot.store(slot::W_LIST_LEN as usize, targets.len() as u64);
    for (n, target) in targets.iter().enumerate() {
        let seen = target.seen;
        let mine = mine(w, target);
        let taken = match target.bucket.compare_exchange(0, seen.word.0, mine.0) {
            Ok(()) => n > 0 || gate_is_as_seen(w, target),
            // It may be the bucket of an earlier part as well, unchanged since both were seen.
            Err(now) => now == mine.0,
        };
        if !taken {
            for target in &targets[..=n] {
                release(w.segment, target.seen.bucket, w.s.p.slot, true);
            }
            slot.store(slot::W_LIST_LEN as usize, 0);
            return None;
        }
    }
    Some(())
}

/// A bucket's word while this slot has its lock.
fn mine(w: &Writer, target: &Target) -> LockWord {
    target.seen.word.locked_by(w.s.p.slot, WRITING)
}

/// Is the gate free, and the table the one that was seen? Asked after the first compare-and-swap, which was a full
/// fence: either this load sees the gate's holder, or that one sees the lock list.
fn gate_is_as_seen(w: &Writer, target: &Target) -> bool {
    let gate = LockWord(w.segment.load_acquire(header::GATE));
    gate.is_free() && Roots::version_of(gate) == target.seen.roots_version
}

/// Ends a commit whose changes are made.
fn conclude(w: &Writer, slot: Slot, targets: &Targets) {
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
    for target in targets {
        let mine = mine(w, target);
        let bucket = target.bucket;
        if mine.has_sleepers() || bucket.compare_exchange(0, mine.0, mine.released(true).0).is_err() {
            release(w.segment, target.seen.bucket, w.s.p.slot, true);
        }
    }
    slot.store(slot::W_LIST_LEN as usize, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
}

const _: () = assert!(MOST_CHUNKS <= slot::LOCK_LIST.inline_len && 4 * MOST_CHUNKS <= slot::LOG.inline_len);
