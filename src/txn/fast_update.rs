//! The short way of single changes that depend on the value that is there: its comparison, or a callback under its lock.
//!
//! As in [`fast`](super::fast), `None` means that nothing has happened, no callback was called, and the general way is to
//! be taken.

use super::fast::{self, LOG};
use super::{TableView, UndoOnPanic, Update, abort, commit, growth, in_group, ops};
use crate::error::{Error, Result};
use crate::format::record::IN_PLACE_BYTES;
use crate::format::{Offset, log_record, slot};
use crate::index::find::{self, Found, Sight};
use crate::log::SlotBlock;
use crate::writer::Writer;
use std::ops::Deref;

/// How a comparison went.
pub(crate) enum Compared {
    /// The value was equal, and is replaced.
    Equal,
    Different,
    /// The key has no binding.
    Absent,
}

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
    // SAFETY: the lookup has checked the record, whose value is as long as this one.
    found.shape.value_len == value.len() as u64 && unsafe { sight.view.equals(found.value_at, value) }
}

/// Calls `update` once with the newest binding, which is small, under its lock, and does what it answers.
#[inline(always)]
pub(crate) fn update<V: Deref<Target = [u8]>>(
    w: &mut Writer,
    table: &TableView,
    key: &[u8],
    update: impl FnOnce(&[u8]) -> Result<Update<V>>,
) -> Option<Result<()>> {
    let sight = find::quick_lookup(w.segment, &table.roots, table.key_hash.hash(key), key)?;
    let found = sight.found.filter(|found| found.shape.value_len <= IN_PLACE_BYTES)?;
    let slot = w.slot()?;
    debug_assert!(w.s.is_at_rest());
    // As in `fast::overwrite`: giving back the lock waits for the stores to the value.
    sight.view.prefetch_last_for_writing(found.value_at, found.shape.value_len);
    // Readers go on while the callback runs: the lock is marked only when the value is being changed.
    in_group::lock(w, &sight)?;
    let mut old = [0; IN_PLACE_BYTES as usize];
    let old = &mut old[..found.shape.value_len as usize];
    // SAFETY: the lookup has checked the record, and nobody has changed it before its lock was taken.
    unsafe { sight.view.copy_out(found.value_at, old.as_mut_ptr(), old.len()) };
    let undo = UndoOnPanic(w);
    let answer = update(old);
    if undo.0.is_forked() {
        // As in `alone`.
        undo.disarm().forget();
        return Some(Err(Error::Forked));
    }
    let outcome = match answer {
        Ok(Update::Replace(new)) if fast::can_overwrite(&found, new.len()) => {
            overwrite_locked(undo.disarm(), slot, &sight, found.value_at, &new);
            return Some(Ok(()));
        }
        Ok(Update::Keep) => Ok(()),
        Ok(answer) => return Some(finish(undo, table, key, answer)),
        Err(e) => Err(e),
    };
    let w = undo.disarm();
    w.s.p.release_from(w.segment, 0);
    Some(outcome)
}

/// Changes in place a value whose lock, the only one, is held, and releases that. The commit point is that of
/// `Writer::commit_from`.
#[inline(always)]
fn overwrite_locked(w: &mut Writer, slot: SlotBlock<'_>, sight: &Sight, at: Offset, value: &[u8]) {
    let words = value.len().div_ceil(8) as u64;
    slot.store(LOG, log_record::run_header(at, words));
    slot.store_bytes(LOG + 1, &value[..value.len().min(IN_PLACE_BYTES as usize)]);
    w.s.p.held[0].changes = true;
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, words + 1));
    w.mark_writing(0);
    w.segment.fence_release();
    // SAFETY: the lookup has checked the record, whose value is as long as this one.
    unsafe { sight.view.copy_in(at, value) };
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::APPLIED, 0));
    w.s.p.release_from(w.segment, 0);
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::IDLE, 0));
}

/// Does what a callback has answered in the general way. The key's lock is held and stays so until that is done.
#[cold]
#[inline(never)]
fn finish<V: Deref<Target = [u8]>>(
    undo: UndoOnPanic<'_, '_>,
    table: &TableView,
    key: &[u8],
    answer: Update<V>,
) -> Result<()> {
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
            Err(e)
        }
    }
}
