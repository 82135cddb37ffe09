//! The short way of single changes that depend on the value that is there: its comparison, or a callback under its lock.
//!
//! As in [`fast`](super::fast), `None` means that nothing has happened, no callback was called, and the general way is to
//! be taken.

use super::fast::{self, LOG};
use super::{TableView, UndoOnPanic, Update, abort, commit, growth, ops};
use crate::error::Error;
use crate::format::lock_word::LockWord;
use crate::format::record::IN_PLACE_BYTES;
use crate::format::{Offset, log_record, slot};
use crate::index::find::{self, Found, Sight};
use crate::lock::Rank;
use crate::lock::participant::Held;
use crate::log::SlotBlock;
use crate::writer::Writer;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// How a comparison went.
pub(crate) enum Compared {
    /// The value was equal, and is replaced.
    Equal,
    Different,
    /// The key has no binding.
    Absent,
}

/// How an update went, in one register.
pub(crate) type Updated = Result<(), Box<Error>>;

/// Replaces the newest binding by a value of the same, small length, if it equals `old`.
#[inline(always)]
pub(crate) fn compare_and_replace(
    w: &mut Writer,
    table: &TableView,
    key: &[u8],
    old: &[u8],
    new: &[u8],
) -> Option<Compared> {
    compare_once(w, table, key, old, new).or_else(|| compare_again(&mut w.reborrow(), table, key, old, new))
}

#[cold]
#[inline(never)]
fn compare_again(w: &mut Writer, table: &TableView, key: &[u8], old: &[u8], new: &[u8]) -> Option<Compared> {
    fast::persevere(w, table, key, |w| compare_once(w, table, key, old, new))
}

#[inline(always)]
fn compare_once(w: &mut Writer, table: &TableView, key: &[u8], old: &[u8], new: &[u8]) -> Option<Compared> {
    if !fast::is_small(old.len()) {
        return None;
    }
    let sight = find::quick_lookup(w.segment, &table.roots, table.key_hash.hash(key), key)?;
    let refusal = match sight.found {
        None => Compared::Absent,
        // What was read counts only if it has not changed until the lock is taken, or the refusal is given.
        Some(found) if equals(&sight, &found, old) => {
            let fits = fast::can_overwrite(&found, new.len());
            return if fits {
                fast::overwrite(w, &sight, found.value_at, new).map(|()| Compared::Equal)
            } else {
                None
            };
        }
        Some(_) => Compared::Different,
    };
    sight.is_valid(&table.roots).then_some(refusal)
}

#[inline(always)]
fn equals(sight: &Sight, found: &Found, value: &[u8]) -> bool {
    if found.shape.value_len != value.len() as u64 {
        return false;
    }
    // SAFETY: the lookup has checked the record, whose value is as long as this one.
    unsafe {
        match value.try_into() {
            Ok(word) => sight.view.known_word(found.value_at).load(0) == u64::from_le_bytes(word),
            Err(_) => sight.view.equals(found.value_at, value),
        }
    }
}

/// Calls `update` once with the newest binding, which is small, under its lock, and does what it answers.
#[inline(always)]
pub(crate) fn update<V: Deref<Target = [u8]>>(
    w: &mut Writer,
    table: &TableView,
    key: &[u8],
    update: impl FnOnce(&[u8]) -> Update<V>,
) -> Option<Updated> {
    let sight = find::quick_lookup(w.segment, &table.roots, table.key_hash.hash(key), key)?;
    let found = sight.found.filter(|found| found.shape.value_len <= IN_PLACE_BYTES)?;
    let slot = w.slot()?;
    debug_assert!(w.s.is_at_rest());
    // As in `fast::overwrite`: giving back the lock waits for the stores to the value.
    sight.view.prefetch_last_for_writing(found.value_at, found.shape.value_len);
    // Readers go on while the callback runs: the lock is marked only when the value is being changed.
    let mine = fast::lock(w, slot, &sight, 0)?;
    let mut old = MaybeUninit::<[u8; IN_PLACE_BYTES as usize]>::uninit();
    let (old, len) = (old.as_mut_ptr().cast::<u8>(), found.shape.value_len as usize);
    // SAFETY: the lookup has checked the record, and nobody has changed it before its lock was taken. There is room for
    // a value that is no longer than this one.
    let old = unsafe {
        sight.view.copy_out(found.value_at, old, len);
        std::slice::from_raw_parts(old, len)
    };
    let undo = UndoInCallback { w: w.reborrow(), bucket: sight.seen.bucket };
    let answer = update(old);
    std::mem::forget(undo);
    if w.is_forked() {
        return Some(Err(forked(w.reborrow())));
    }
    match answer {
        Update::Replace(new) if fast::can_overwrite(&found, new.len()) => {
            overwrite_locked(w, slot, &sight, mine, found.value_at, &new);
            Some(Ok(()))
        }
        Update::Keep => {
            fast::give_back(w, slot, &sight);
            Some(Ok(()))
        }
        answer => Some(finish(w.reborrow(), table, key, sight.seen.bucket, answer)),
    }
}

/// Changes in place a value whose lock, the only one, is held as `mine`, and releases that. The commit point is that of
/// `Writer::commit_from`.
#[inline(always)]
fn overwrite_locked(
    w: &Writer,
    slot: SlotBlock<'_>,
    sight: &Sight,
    mine: LockWord,
    at: Offset,
    value: &[u8],
) {
    let words = value.len().div_ceil(8) as u64;
    slot.store(LOG, log_record::run_header(at, words));
    slot.store_bytes(LOG + 1, &value[..value.len().min(IN_PLACE_BYTES as usize)]);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, words + 1));
    // As in `Writer::commit_sealed`: one word is seen as it was or as it will be.
    let mine = if words > 1 { fast::mark(w, sight, mine) } else { mine };
    w.segment.fence_release();
    // SAFETY: the lookup has checked the record, whose value is as long as this one.
    unsafe { sight.view.copy_in(at, value) };
    fast::conclude(w, slot, sight, mine);
}

/// The callback of an update is running. If a panic of its passes through, the update is undone, so that nobody waits
/// for its lock for ever.
struct UndoInCallback<'a> {
    w: Writer<'a>,
    bucket: Offset,
}

impl Drop for UndoInCallback<'_> {
    #[cold]
    fn drop(&mut self) {
        note_lock(&mut self.w, self.bucket);
        drop(UndoOnPanic(&mut self.w));
    }
}

/// Notes for the general way which lock the short one has taken.
fn note_lock(w: &mut Writer, bucket: Offset) {
    w.s.p.held.push(Held { at: bucket, rank: Rank::Ordinary, changes: false });
}

/// The process has forked in the callback: as in `alone`.
#[cold]
#[inline(never)]
fn forked(mut w: Writer) -> Box<Error> {
    w.forget();
    Box::new(Error::Forked)
}

/// Does what a callback has answered in the general way. The key's lock is held and stays so until that is done.
#[cold]
#[inline(never)]
fn finish<V: Deref<Target = [u8]>>(
    mut w: Writer,
    table: &TableView,
    key: &[u8],
    bucket: Offset,
    answer: Update<V>,
) -> Updated {
    let w = &mut w;
    note_lock(w, bucket);
    let undo = UndoOnPanic(w);
    let outcome = ops::at(undo.0, table, key).and_then(|at| at.answer(undo.0, table, answer));
    let w = undo.disarm();
    match outcome {
        Ok(()) => {
            commit(w)?;
            growth::report_commit(w);
            Ok(())
        }
        Err(e) => {
            abort(w)?;
            Err(e.into())
        }
    }
}
