//! The short way of operations in a group that read or overwrite one binding.
//!
//! The key is looked up as a find does, straight from memory; then its bucket's lock is taken by a compare-and-swap
//! from the word seen, unless the group has it already. What does not fit (contention, a bucket for which the group
//! has plans, other lengths, every error) goes the general way, which gives the same result: `None` means that
//! nothing has happened but that the bucket may be locked, as the general way would lock it as well.

use super::fast::LIST;
use super::{TableView, ops};
use crate::format::Offset;
use crate::format::bucket::{Link, W_LINK};
use crate::format::lock_word::LockWord;
use crate::format::record::IN_PLACE_BYTES;
use crate::format::slot::{self, LOCK_LIST};
use crate::index::find::{self, Found, Sight};
use crate::index::roots::Roots;
use crate::lock::Rank;
use crate::lock::participant::Held;
use crate::writer::{Known, Words, Writer};

/// Locks that one operation may need besides those that are listed; see [`super::lock_room`].
const ROOM: usize = super::LOCKS_OF_AN_OPERATION as usize;

/// Looks up a key whose bucket is free, or held already by this group and without plans. The bucket is held then, and
/// nobody has changed anything in between. Gives its place in the lock list as well.
#[inline(always)]
pub(super) fn look<'a>(
    w: &mut Writer<'a>,
    table: &TableView,
    hash: u64,
    key: &[u8],
) -> Option<(Sight<'a>, usize)> {
    let sight = find::quick_lookup(w.segment, &table.roots, hash, key)?;
    let held = if sight.seen.word.owner() == w.s.p.slot { held(w, &sight) } else { lock(w, &sight) }?;
    Some((sight, held))
}

/// The place in the lock list of a bucket that this group holds, if what was seen in memory is what the group sees.
#[inline(always)]
fn held(w: &Writer, sight: &Sight) -> Option<usize> {
    let bucket = sight.seen.bucket;
    // The bucket may be that of another table by now, which this group holds it for.
    if Roots::version_of(LockWord(sight.view.gate().load_acquire(0))) != sight.seen.roots_version {
        return None;
    }
    if !w.s.has_no_plan() && !has_plain_lines(w, bucket, Link(sight.bucket.load(W_LINK as usize))) {
        return None;
    }
    w.s.p.position(bucket)
}

/// Does this group plan nothing for a bucket and its overflow lines, of which there are few?
#[inline(never)]
fn has_plain_lines(w: &Writer, bucket: Offset, mut link: Link) -> bool {
    let mut line = bucket;
    for _ in 0..4 {
        if !w.is_plain_line(line) {
            return false;
        }
        line = link.next();
        if line.is_none() {
            return true;
        }
        link = Link(w.segment.load(line.word(W_LINK)));
    }
    false
}

/// Takes the lock of a bucket, if nothing has changed since it was seen and nobody is at the gate.
#[inline(always)]
pub(super) fn lock(w: &mut Writer, sight: &Sight) -> Option<usize> {
    let seen = sight.seen;
    let place = w.s.p.held.len();
    if !seen.word.is_free() || place + ROOM >= LOCK_LIST.inline_len as usize {
        return None;
    }
    let slot = w.slot()?;
    slot.store(LIST + place, seen.bucket.0);
    slot.store(slot::W_LIST_LEN as usize, place as u64 + 1);
    let mine = seen.word.locked_by(w.s.p.slot, 0);
    if sight.bucket.compare_exchange(0, seen.word.0, mine.0).is_err() {
        slot.store(slot::W_LIST_LEN as usize, place as u64);
        return None;
    }
    w.s.p.held.push(Held { at: seen.bucket, rank: Rank::Ordinary, changes: false });
    // A full fence: either this load sees the gate's holder, or that one sees the lock list.
    w.segment.fence_after_exchange();
    let gate = LockWord(sight.view.gate().load_acquire(0));
    let is_mine_or_free = gate.is_free() || gate.owner() == w.s.p.slot;
    if !is_mine_or_free || Roots::version_of(gate) != seen.roots_version {
        give_back(&mut w.reborrow(), place);
        return None;
    }
    Some(place)
}

#[cold]
#[inline(never)]
fn give_back(w: &mut Writer, place: usize) {
    w.s.p.release_from(w.segment, place);
}

/// A key's newest binding and the place of its bucket's lock in the list, for a change: what was read just before is
/// not looked up again.
#[inline(always)]
fn find_again(w: &mut Writer, table: &TableView, key: &[u8]) -> Option<(Found, usize)> {
    if let Some(found) = known(w, table, key) {
        return Some((found, w.s.known.place));
    }
    let (sight, place) = look(w, table, table.key_hash.hash(key), key)?;
    Some((sight.found?, place))
}

/// What is known of a key, if it is the one of which something is known.
#[inline(always)]
fn known(w: &Writer, table: &TableView, key: &[u8]) -> Option<Found> {
    let Known { record, value_at, shape, .. } = w.s.known;
    let is_this_table = w.s.known.table == std::ptr::from_ref(table).addr();
    if !is_this_table || w.s.known.releases != w.s.p.releases || shape.key_len != key.len() as u64 {
        return None;
    }
    // SAFETY: the record was checked when it was found.
    let is_this_key = unsafe { w.segment.view().equals(record.add(shape.header_bytes()), key) };
    is_this_key.then_some(Found { record, value_at, shape })
}

/// Copies the newest binding to memory that may be uninitialised, if it fits. Gives its length, or none if there is no
/// binding.
///
/// # Safety
/// `into` must be valid for writing `capacity` bytes.
#[inline(always)]
pub(crate) unsafe fn copy(
    w: &mut Writer,
    table: &TableView,
    key: &[u8],
    into: *mut u8,
    capacity: usize,
) -> Option<Option<usize>> {
    let (sight, place) = look(w, table, table.key_hash.hash(key), key)?;
    let Some(found) = sight.found else { return Some(None) };
    let Found { record, value_at, shape } = found;
    let (table, releases) = (std::ptr::from_ref(table).addr(), w.s.p.releases);
    w.s.known = Known { table, record, value_at, shape, place, releases };
    let len = found.shape.value_len;
    if len > capacity as u64 {
        return None;
    }
    // SAFETY: by the caller's promise, and the length was just compared; the record was checked.
    unsafe {
        if !sight.view.copy_out_inline(value_at, into, len as usize) {
            return None;
        }
        ops::put_plans_over(w, value_at, len, into);
    }
    Some(Some(len as usize))
}

/// Replaces the newest binding by a value of the same, small length.
#[inline(always)]
pub(crate) fn replace(w: &mut Writer, table: &TableView, key: &[u8], value: &[u8]) -> Option<()> {
    let (found, place) = find_again(w, table, key)?;
    if found.shape.value_len != value.len() as u64 || found.shape.value_len > IN_PLACE_BYTES {
        return None;
    }
    ops::overwrite(w, found.value_at, value);
    if value.len() <= 8 {
        w.s.set().note_whole_value(found.value_at);
    }
    w.s.p.held[place].changes = true;
    Some(())
}

/// Adds to the 8-byte little-endian integer that is bound to a key. Gives the sum.
#[inline(always)]
pub(crate) fn increment(w: &mut Writer, table: &TableView, key: &[u8], delta: i64) -> Option<i64> {
    let (found, place) = find_again(w, table, key)?;
    if found.shape.value_len != 8 {
        return None;
    }
    let at = found.value_at;
    let sum = (w.word(at) as i64).checked_add(delta)?;
    w.put(at, sum as u64);
    w.s.set().note_whole_value(at);
    w.s.p.held[place].changes = true;
    Some(sum)
}
