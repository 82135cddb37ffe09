//! The short way of writing a slice whose chunks exist.
//!
//! As in [`super::fast`], for several buckets at once: the chunks are looked up, and new ones are filled beside those
//! that are to be replaced, while nothing is locked. Compare-and-swaps from the words that were seen then take the
//! buckets' locks, marked WRITING, and prove that nothing has changed; none of them waits. Each cell of the slot that
//! gave a block gets the one that it replaces, so that slices written again and again go back and forth between the
//! same blocks. What does not fit goes the general way; `None` means that nothing has happened.

use super::array::{self, Part};
use super::chunk::{self, NewChunk, Rest};
use super::fast::{LIST, LOG, Slot};
use super::{TableView, ops};
use crate::alloc::custody;
use crate::alloc::kept::{self, Held};
use crate::format::array::{Geometry, KEY_BYTES, MAX_LENGTH};
use crate::format::bucket::{Link, W_LINK, entry_record, entry_with};
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::record::{self, Shape};
use crate::format::{Offset, header, log_record, slot};
use crate::index::find::{self, Seen};
use crate::index::roots::Roots;
use crate::lock::participant::Participant;
use crate::lock::release;
use crate::segment::Segment;
use crate::segment::copy::Caching;
use crate::segment::view::Block;
use crate::writer::{Writer, Written};
use smallvec::SmallVec;

/// Most chunks: 64 MB, beyond which locks and log get long, and the caches are of no use to anybody.
const MOST_CHUNKS: u64 = 4096;
/// Most bytes of a part that go through the log to their place, twice copied: more take as long as a new chunk.
const MOST_IN_PLACE: u64 = 1536;
/// Most chunks of a slice that is remembered.
const REMEMBERED: usize = 8;

/// A part of the slice, and the chunk where it goes.
struct Target<'a> {
    part: Part,
    /// The chunk's value.
    value: Offset,
    /// The entry that points to the chunk, and where that lies.
    entry: u64,
    entry_at: Offset,
    /// What the chunk's record links to.
    older: Offset,
    bucket: Block<'a, 8>,
    seen: Seen,
    /// Its elements change where they are; else a new record takes the chunk's place.
    is_in_place: bool,
    /// A block that holds the same as the chunk but for the part, if there is one.
    twin: Option<Offset>,
}

type Targets<'a> = SmallVec<[Target<'a>; 4]>;

/// Sets the elements of a slice, which lies below `MAX_LENGTH` and is not empty.
pub(crate) fn write(
    w: &mut Writer,
    table: &TableView,
    g: &Geometry,
    first: u64,
    bytes: &[u8],
    caching: Caching,
) -> Option<()> {
    let count = bytes.len() as u64 / g.element_bytes;
    let last = g.place(first + count - 1).chunk;
    let chunks = 1 + last - g.place(first).chunk;
    let class = chunk::class_of(g).ok()?;
    if chunks > MOST_CHUNKS || !kept::may_keep(w, class, chunks as usize) {
        return None;
    }
    let version = table.roots.version();
    let mut targets = Targets::with_capacity(chunks as usize);
    for (n, part) in array::parts(g, first, count).enumerate() {
        array::look_ahead(w.segment, table, g, part.chunk, last);
        targets.push(recall(w, table, g, n, part).or_else(|| look(w, table, g, part))?);
    }
    let is_inside = first + count <= array::length(w.segment, table).min(MAX_LENGTH);
    if !is_inside || targets.iter().any(|t| t.seen.roots_version != version) {
        return None;
    }
    make_room(w, targets.iter().map(|target| log_words(g, target)).sum(), chunks)?;
    let mut held = Held::new();
    let replaced = targets.iter().filter(|target| !target.is_in_place).count();
    kept::peek_blocks(w, class, replaced, &mut held)?;
    let slot = w.slot()?;
    let mut log = Log { slot, segment: w.segment, participant: &w.s.p, words: 0 };
    prepare(w, g, &targets, &held, bytes, caching, &mut log)?;
    lock_all(w, slot, &targets)?;
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, log.words as u64));
    w.segment.fence_release();
    log.apply();
    conclude(w, slot, &targets);
    remember(w, table, g, &targets, &held);
    Some(())
}

/// A chunk that was part `n` of the slice that was written before, and is as it was left.
#[inline(always)]
fn recall<'a>(w: &Writer<'a>, table: &TableView, g: &Geometry, n: usize, part: Part) -> Option<Target<'a>> {
    let last = w.s.last_slice(table.roots.root()).get(n)?;
    let bucket = w.segment.block::<8>(last.bucket)?;
    let word = LockWord(bucket.load_acquire(0));
    let is_as_left = last.chunk == part.chunk && last.word.unchanged_for_readers(word) && word.is_free();
    if !is_as_left || last.roots_version != table.roots.version() {
        return None;
    }
    let covers_last = part.first <= last.part.0 && last.part.1 <= part.first + part.count;
    Some(Target {
        part,
        value: last.value,
        entry: last.entry,
        entry_at: last.entry_at,
        older: last.older,
        bucket,
        seen: Seen { bucket: last.bucket, index: last.bucket_index, word, roots_version: last.roots_version },
        is_in_place: is_in_place(g, &part),
        twin: last.twin.filter(|_| covers_last),
    })
}

/// Remembers a short slice: whoever writes the same one again finds its chunks here, and need not copy what the slice
/// leaves of them.
fn remember(w: &mut Writer, table: &TableView, g: &Geometry, targets: &Targets, held: &Held) {
    if targets.len() > REMEMBERED {
        return;
    }
    let (slot, behind_head) = (w.s.p.slot, Shape::new(KEY_BYTES, g.value_bytes).value_at());
    let mut blocks = held.iter().peekable();
    let written = targets.iter().map(|target| {
        let part = &target.part;
        let mut written = Written {
            chunk: part.chunk,
            part: (part.first, part.first + part.count),
            bucket: target.seen.bucket,
            bucket_index: target.seen.index,
            word: target.seen.word.locked_by(slot, WRITING).released(true),
            roots_version: target.seen.roots_version,
            entry: target.entry,
            entry_at: target.entry_at,
            older: target.older,
            value: target.value,
            twin: None,
        };
        if let Some((_, block)) = blocks.next_if(|_| !target.is_in_place) {
            written.entry = entry_with(target.entry, *block);
            written.value = block.add(behind_head);
            written.twin = Some(entry_record(target.entry));
        }
        written
    });
    w.s.remember_slice(table.roots.root(), written);
}

/// Most words of log that a part needs.
fn log_words(g: &Geometry, target: &Target) -> u64 {
    let count = target.part.count;
    match target.is_in_place {
        true => 2 + count / 64 + 2 + count * g.stride / 8 + 1,
        false => 4,
    }
}

/// Makes sure that log and lock list have room for a long slice.
fn make_room(w: &mut Writer, words: u64, chunks: u64) -> Option<()> {
    let (last_word, last_lock) = (words - 1, chunks - 1);
    if w.s.p.log_word(last_word).is_none() {
        custody::extend(w, slot::LOG, last_word).ok()?;
    }
    if w.s.p.list_word(last_lock).is_none() {
        custody::extend(w, slot::LOCK_LIST, last_lock).ok()?;
    }
    Some(())
}

/// Are the elements of a part changed where they are?
fn is_in_place(g: &Geometry, part: &Part) -> bool {
    part.count * g.stride <= MOST_IN_PLACE
}

/// Looks for the chunk of a part.
#[inline]
fn look<'a>(w: &Writer<'a>, table: &TableView, g: &Geometry, part: Part) -> Option<Target<'a>> {
    let key = part.chunk.to_le_bytes();
    let hash = table.key_hash.hash(&key);
    let (found, seen) = match find::quick_lookup(w.segment, &table.roots, hash, &key) {
        Some(sight) => (sight.found, sight.seen),
        // Among thousands of chunks one is not where it is looked for first.
        None => find::attempt(w.segment, &table.roots, hash, &key, |_, found| found).ok()?,
    };
    let bucket = w.segment.block::<8>(seen.bucket)?;
    let found = found.filter(|_| seen.word.is_free())?;
    let value = array::value_of_chunk(g, found.record, found.shape).ok()?;
    let link = Link(bucket.load(W_LINK as usize));
    let hit =
        ops::hit_in(w, bucket, seen.bucket, link, &found).or_else(|| ops::hit_in_lines(w, link, &found))?;
    let older = record::older(w.segment.load(found.record));
    let is_in_place = is_in_place(g, &part);
    Some(Target {
        part,
        value,
        entry: hit.entry,
        entry_at: hit.at,
        older,
        bucket,
        seen,
        is_in_place,
        twin: None,
    })
}

/// Fills new chunks, and logs what is to be changed.
fn prepare(
    w: &Writer,
    g: &Geometry,
    targets: &Targets,
    held: &Held,
    bytes: &[u8],
    caching: Caching,
    log: &mut Log,
) -> Option<()> {
    let mut blocks = held.iter();
    for target in targets {
        let (from, to) = target.part.bytes(g);
        let elements = &*chunk::at_stride(g, &bytes[from..to]);
        if target.is_in_place {
            log.change_in_place(w, g, target, elements)?;
            continue;
        }
        let (cell, block) = *blocks.next()?;
        let record = entry_record(target.entry);
        let (part, older) = (&target.part, target.older);
        let rest = match part.count == g.per_chunk {
            true => Rest::Unset,
            false if target.twin == Some(block) => Rest::Present,
            false => Rest::Of(target.value),
        };
        NewChunk { g, part, rest, older, elements, caching }.fill(w, block).ok()?;
        log.change(target.entry_at, entry_with(target.entry, block))?;
        log.change(cell, record.0)?;
    }
    Some(())
}

/// The log in the slot and its extensions, while it is written.
struct Log<'a> {
    slot: Slot<'a>,
    segment: &'a Segment,
    participant: &'a Participant,
    words: usize,
}

const INLINE_WORDS: usize = slot::LOG.inline_len as usize;

impl Log<'_> {
    /// Logs the change of a word. None: there is no room.
    #[inline(always)]
    fn change(&mut self, at: Offset, word: u64) -> Option<()> {
        if self.words + 2 <= INLINE_WORDS {
            self.slot.store_run(LOG + self.words, [log_record::run_header(at, 1), word]);
            self.words += 2;
        } else {
            self.begin(at, 1)?.push(word);
        }
        Some(())
    }

    /// Begins a run of words. None: there is no room.
    #[inline(always)]
    fn begin(&mut self, at: Offset, count: u64) -> Option<&mut Self> {
        let last = self.words as u64 + count;
        if last >= slot::LOG.inline_len {
            self.participant.log_word(last)?;
        }
        self.push(log_record::run_header(at, count));
        Some(self)
    }

    #[inline(always)]
    fn push(&mut self, word: u64) {
        if self.words < INLINE_WORDS {
            self.slot.store(LOG + self.words, word);
        } else if let Some(at) = self.participant.log_word(self.words as u64) {
            self.segment.store(at, word);
        }
        self.words += 1;
    }

    #[inline(always)]
    fn word(&self, n: usize) -> u64 {
        if n < INLINE_WORDS {
            return self.slot.load(LOG + n);
        }
        self.participant.log_word(n as u64).map_or(0, |at| self.segment.load(at))
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
        let words = (skipped + elements.len()).div_ceil(8);
        self.begin(at, words as u64)?;
        if skipped == 0 && elements.len() % 8 == 0 && self.words + words <= INLINE_WORDS {
            self.slot.store_bytes(LOG + self.words, elements);
            self.words += words;
            return Some(());
        }
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
    fn apply(&self) {
        let mut n = 0;
        let view = self.segment.view();
        while n < self.words.min(INLINE_WORDS) {
            let header = self.slot.load(LOG + n);
            let (first, count) = (log_record::run_first(header), log_record::run_count(header) as usize);
            if n + count >= INLINE_WORDS {
                break;
            }
            match view.block::<1>(first) {
                Some(word) if count == 1 => word.store(0, self.slot.load(LOG + n + 1)),
                _ => view.store_run(first, self.slot.run(LOG + n + 1, count)),
            }
            n += 1 + count;
        }
        while n < self.words {
            let header = self.word(n);
            let (first, count) = (log_record::run_first(header), log_record::run_count(header) as usize);
            n += 1;
            for i in 0..count.min(self.words - n) {
                self.segment.store(first.word(i as u64), self.word(n + i));
            }
            n += count;
        }
    }
}

/// Takes the locks of all buckets, marked WRITING, if nothing has changed since they were seen. The others are listed
/// when the first one is held and the gate is free: a holder of the gate never sees more than one that is listed in
/// vain.
fn lock_all(w: &Writer, slot: Slot, targets: &Targets) -> Option<()> {
    let (first, others) = targets.split_first()?;
    slot.store(LIST, first.seen.bucket.0);
    slot.store(slot::W_LIST_LEN as usize, 1);
    if first.bucket.compare_exchange(0, first.seen.word.0, mine(w, first).0).is_err() {
        slot.store(slot::W_LIST_LEN as usize, 0);
        return None;
    }
    let taken = gate_is_as_seen(w, first) && list_others(w, slot, others) && lock_others(w, others);
    if !taken {
        release_all(w, slot, targets);
    }
    taken.then_some(())
}

fn list_others(w: &Writer, slot: Slot, others: &[Target]) -> bool {
    for (target, n) in others.iter().zip(1..) {
        let bucket = target.seen.bucket.0;
        if n < slot::LOCK_LIST.inline_len {
            slot.store(LIST + n as usize, bucket);
            continue;
        }
        let Some(at) = w.s.p.list_word(n) else { return false };
        w.segment.store(at, bucket);
    }
    slot.store(slot::W_LIST_LEN as usize, 1 + others.len() as u64);
    true
}

fn lock_others(w: &Writer, others: &[Target]) -> bool {
    others.iter().all(|target| {
        let mine = mine(w, target);
        match target.bucket.compare_exchange(0, target.seen.word.0, mine.0) {
            Ok(()) => true,
            // It may be the bucket of an earlier part as well, unchanged since both were seen.
            Err(now) => now == mine.0,
        }
    })
}

/// Gives back those of the locks that this slot has. Nothing has changed.
#[cold]
fn release_all(w: &Writer, slot: Slot, targets: &Targets) {
    for target in targets {
        release(w.segment, target.seen.bucket, w.s.p.slot, true);
    }
    slot.store(slot::W_LIST_LEN as usize, 0);
}

/// A bucket's word while this slot has its lock.
fn mine(w: &Writer, target: &Target) -> LockWord {
    target.seen.word.locked_by(w.s.p.slot, WRITING)
}

/// Is the gate free, and the table the one that was seen? Asked after the first compare-and-swap, which becomes a full
/// fence: either this load sees the gate's holder, or that one sees the lock list.
fn gate_is_as_seen(w: &Writer, target: &Target) -> bool {
    w.segment.fence_after_exchange();
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
