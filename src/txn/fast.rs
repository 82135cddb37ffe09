//! The short way for single operations that change one bucket and need no waiting.
//!
//! The key is looked up as a find does; one compare-and-swap then takes the bucket's lock, marks it WRITING
//! and proves that nothing has changed since the lookup. What does not fit (contention, long overflow chains,
//! values in runs of pages, an empty magazine, every error) goes the general way, which gives the same result:
//! `None` means that nothing has happened.

use super::{TableView, fast_bind, growth};
use crate::alloc::custody;
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::record::IN_PLACE_BYTES;
use crate::format::{Offset, SlotIndex, log_record, slot};
use crate::index::find::{self, Found, Sight};
use crate::index::roots::Roots;
use crate::lock::release;
use crate::segment::Segment;
use crate::segment::lot::Lot;
use crate::segment::view::{Block, View};
use crate::writer::Writer;

/// A word: where it is, and the word there.
pub(super) type At<'a> = (Offset, Block<'a, 1>);

/// A word, and what it is to become.
pub(super) type Change<'a> = (At<'a>, u64);

/// The slot's words, checked once.
pub(super) type Slot<'a> = Block<'a, { slot::SLOT_WORDS }>;

pub(super) const LIST: usize = slot::LOCK_LIST.inline_word as usize;
pub(super) const LOG: usize = slot::LOG.inline_word as usize;

/// Replaces the newest binding by a value of the same, small length that is not 0, or binds a key that has none.
#[inline(always)]
pub(crate) fn replace(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    replace_seen(w, table, sight, key, value)
}

/// The same for a key that has been looked up.
#[inline(always)]
pub(crate) fn replace_seen(
    w: &mut Writer,
    table: &TableView,
    sight: Sight,
    key: &[u8],
    value: &[u8],
) -> Option<()> {
    match sight.found {
        None => fast_bind::insert_apart(&mut w.reborrow(), table, key, value),
        Some(found) if can_overwrite(&found, value.len()) => overwrite(w, &sight, found.value_at, value),
        Some(_) => fast_bind::rebind(&mut w.reborrow(), table, key, value),
    }
}

/// Adds to the 8-byte little-endian integer that is bound to a key. Gives the sum.
#[inline(always)]
pub(crate) fn increment(w: &mut Writer, table: &TableView, key: &[u8], delta: i64) -> Option<i64> {
    increment_once(w, table, key, delta).or_else(|| increment_again(&mut w.reborrow(), table, key, delta))
}

#[cold]
#[inline(never)]
fn increment_again(w: &mut Writer, table: &TableView, key: &[u8], delta: i64) -> Option<i64> {
    persevere(w, table, key, |w| increment_once(w, table, key, delta))
}

/// Tries the short way again while others change the key's bucket, each of whom needs no longer than this does: for a
/// while it is worth waiting for them here.
pub(super) fn persevere<R>(
    w: &mut Writer,
    table: &TableView,
    key: &[u8],
    mut attempt: impl FnMut(&mut Writer) -> Option<R>,
) -> Option<R> {
    let hash = table.key_hash.hash(key);
    for _ in 0..ATTEMPTS {
        let bucket = find::expected_bucket(w.segment, &table.roots, hash)?;
        let free = becomes_free(bucket)?;
        // Whoever holds the gate needs longer, and attempts would only disturb him.
        if !LockWord(w.segment.view().gate().load_acquire(0)).is_free() {
            return None;
        }
        let done = attempt(w);
        // If nobody has been there meanwhile, it does not fit for other reasons.
        if done.is_some() || bucket.load(0) == free {
            return done;
        }
    }
    None
}

/// Further attempts of a short way.
const ATTEMPTS: u32 = 16;

/// Looks at a lock until it is free, a microsecond or so. Gives its word then.
fn becomes_free(bucket: Block<'_, 8>) -> Option<u64> {
    (0..LOOKS).find_map(|_| {
        let word = LockWord(bucket.load(0));
        let free = word.is_free() && !word.is_writing();
        if !free {
            std::hint::spin_loop();
        }
        free.then_some(word.0)
    })
}

/// Looks at a lock. A pause takes some 10 to 40 ns.
const LOOKS: u32 = 64;

#[inline(always)]
fn increment_once(w: &mut Writer, table: &TableView, key: &[u8], delta: i64) -> Option<i64> {
    let hash = table.key_hash.hash(key);
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    let at = sight.found.filter(|f| f.shape.value_len == 8)?.value_at;
    // SAFETY: the lookup has checked the record, of which this is the last word.
    let word = unsafe { sight.view.known_word(at) };
    let sum = (word.load(0) as i64).checked_add(delta)?;
    write(w, w.slot()?, &sight, &[((at, word), sum as u64)]).then_some(sum)
}

/// Can a value of so many bytes be changed in place on the short way?
#[inline(always)]
pub(super) fn is_small(len: usize) -> bool {
    (len as u64).wrapping_sub(1) < IN_PLACE_BYTES
}

#[inline(always)]
pub(super) fn can_overwrite(found: &Found, len: usize) -> bool {
    is_small(len) && found.shape.value_len == len as u64
}

/// A value on its way to the log and to its place. No closures: these would become functions of their own.
trait InPlace {
    /// Words that it takes in both.
    fn words(&self) -> u64;

    /// Puts it behind its header in the log.
    fn log(&self, slot: Slot<'_>);

    /// Puts it into its place.
    ///
    /// # Safety
    /// The range, with its padding, must have been checked, and begin at a multiple of 8.
    unsafe fn write(&self, view: View<'_>, at: Offset);
}

impl InPlace for &[u8] {
    #[inline(always)]
    fn words(&self) -> u64 {
        self.len().div_ceil(8) as u64
    }

    #[inline(always)]
    fn log(&self, slot: Slot<'_>) {
        slot.store_bytes(LOG + 1, &self[..self.len().min(IN_PLACE_BYTES as usize)]);
    }

    #[inline(always)]
    unsafe fn write(&self, view: View<'_>, at: Offset) {
        // SAFETY: by the caller's promise.
        unsafe { view.copy_in(at, self) };
    }
}

impl InPlace for Lot<'_> {
    #[inline(always)]
    fn words(&self) -> u64 {
        self.bytes() / 8
    }

    #[inline(always)]
    fn log(&self, slot: Slot<'_>) {
        slot.store_lot::<{ LOG + 1 }>(self);
    }

    #[inline(always)]
    unsafe fn write(&self, view: View<'_>, at: Offset) {
        // SAFETY: by the caller's promise.
        unsafe { view.copy_in_lot(at, self) };
    }
}

/// Replaces the newest binding of a key that has been looked up by a value of the same length.
#[inline(always)]
pub(crate) fn overwrite_by_lot(w: &mut Writer, sight: &Sight, found: &Found, lot: &Lot) -> Option<()> {
    if found.shape.value_len != lot.bytes() {
        return None;
    }
    overwrite_by(w, sight, found.value_at, lot)
}

/// Changes a value in place, which is not empty.
#[inline(always)]
pub(super) fn overwrite(w: &mut Writer, sight: &Sight, at: Offset, value: &[u8]) -> Option<()> {
    overwrite_by(w, sight, at, &value)
}

#[inline(always)]
fn overwrite_by(w: &mut Writer, sight: &Sight, at: Offset, value: &impl InPlace) -> Option<()> {
    let words = value.words();
    // The lookup has read the beginning of the record, and giving back the lock waits for every store before it.
    sight.view.prefetch_last_for_writing(at, 8 * words);
    let slot = w.slot()?;
    slot.store(LOG, log_record::run_header(at, words));
    value.log(slot);
    let mine = lock(w, slot, sight, WRITING)?;
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, words + 1));
    w.segment.fence_release();
    // SAFETY: the lookup has checked the record, whose value is as long as this one.
    unsafe { value.write(sight.view, at) };
    conclude(w, slot, sight, mine);
    Some(())
}

/// Logs and makes some changes, if the bucket is as it was seen.
#[inline(always)]
pub(super) fn write<const N: usize>(w: &Writer, slot: Slot, sight: &Sight, changes: &[Change; N]) -> bool {
    for (i, ((at, _), value)) in changes.iter().enumerate() {
        slot.store(LOG + 2 * i, log_record::run_header(*at, 1));
        slot.store(LOG + 2 * i + 1, *value);
    }
    let Some(mine) = lock(w, slot, sight, WRITING) else { return false };
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, 2 * N as u64));
    w.segment.fence_release();
    for ((_, word), value) in changes {
        word.store(0, *value);
    }
    conclude(w, slot, sight, mine);
    true
}

/// Takes the bucket's lock, marked with `flags`, if nothing has changed since it was seen. Gives the word that it has
/// then. Whoever gets it marked WRITING stores
/// COMMITTED next, the commit point of the short way, whose meaning is that of `Writer::commit_from`.
#[inline(always)]
pub(super) fn lock(w: &Writer, slot: Slot, sight: &Sight, flags: u64) -> Option<LockWord> {
    let seen = sight.seen;
    if !seen.word.is_free() {
        return None;
    }
    slot.store(LIST, seen.bucket.0);
    slot.store(slot::W_LIST_LEN as usize, 1);
    let mine = seen.word.locked_by(w.s.p.slot, flags);
    if sight.bucket.compare_exchange(0, seen.word.0, mine.0).is_err() {
        slot.store(slot::W_LIST_LEN as usize, 0);
        return None;
    }
    // A full fence: either this load sees the gate's holder, or that one sees the lock list.
    w.segment.fence_after_exchange();
    let gate = LockWord(sight.view.gate().load_acquire(0));
    if !Roots::is_free_gate(gate, seen.roots_version) {
        release_apart(w.segment, seen.bucket, w.s.p.slot);
        slot.store(slot::W_LIST_LEN as usize, 0);
        return None;
    }
    Some(mine)
}

/// Tells readers that what a held lock covers is changing. Gives the lock's word.
#[inline(always)]
pub(super) fn mark(w: &Writer, sight: &Sight, mine: LockWord) -> LockWord {
    let marked = mine.with(WRITING);
    match sight.bucket.compare_exchange(0, mine.0, marked.0) {
        Ok(()) => marked,
        Err(now) => w.mark_word(sight.bucket.word(0), LockWord(now)),
    }
}

/// Releases a lock under which nothing has changed.
#[inline(always)]
pub(super) fn give_back(w: &Writer, slot: Slot, sight: &Sight) {
    release(w.segment, sight.seen.bucket, w.s.p.slot, false);
    slot.store(slot::W_LIST_LEN as usize, 0);
}

/// Ends a commit whose changes are made.
#[inline(always)]
pub(super) fn conclude(w: &Writer, slot: Slot, sight: &Sight, mine: LockWord) {
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
    // Nobody but a waiter, or somebody who watches, changes the word while it is held.
    if mine.has_sleepers() || sight.bucket.compare_exchange(0, mine.0, mine.released(true).0).is_err() {
        release_apart(w.segment, sight.seen.bucket, w.s.p.slot);
    }
    slot.store(slot::W_LIST_LEN as usize, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
}

/// Releases a bucket's lock, whose word is not as the short way has left it.
#[cold]
#[inline(never)]
fn release_apart(segment: &Segment, bucket: Offset, owner: SlotIndex) {
    release(segment, bucket, owner, true);
}

/// Splits that one operation makes for others: two, so that every second one pays for none.
const TICKETS_PER_OPERATION: u32 = 2;

/// What an operation leaves to be done when it is over: returning freed blocks, splitting a bucket.
#[inline(always)]
pub(crate) fn has_chores(w: &Writer, table: &TableView) -> bool {
    custody::is_drain_due(w) || w.s.tickets.are_of(table.roots.root())
}

/// Does some of it.
#[cold]
#[inline(never)]
pub(crate) fn chores(w: &mut Writer, table: &TableView) {
    // The operation itself has succeeded. What fails here, for want of memory say, is tried again by later
    // operations, and reported by those that cannot do without it.
    let _ = growth::use_tickets(w, table, TICKETS_PER_OPERATION);
    let _ = super::clean_up(w);
    let _ = super::lifecycle::upkeep(w);
}

const _: () = assert!(IN_PLACE_BYTES / 8 < slot::LOG.inline_len);
