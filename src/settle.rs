//! Bringing an object to rest whose users are gone altogether: after a boot, and in a copy.
//!
//! Nobody but the caller may use the object, and no log of it is to be replayed: its bytes are those of a moment
//! at which nothing was half done, but for lock words in the hands of somebody who came while the gate was held. So
//! every slot becomes free, with what it has in custody, and every lock word nobody's. Nothing else is changed.

use crate::error::{Damage, Error, Result};
use crate::format::bucket::LINE_BYTES;
use crate::format::lock_word::LockWord;
use crate::format::slot::{self, State};
use crate::format::{Circle, Offset, PAGE_BYTES, header, root};
use crate::index::catalog;
use crate::lock::attachment::all_slots;
use crate::segment::Segment;

/// Frees all slots and all locks. Doing it again, after a death in the middle of it, does no harm.
pub(crate) fn bring_to_rest(segment: &Segment) -> Result<()> {
    for (_, base) in all_slots(segment) {
        free_slot(segment, base);
    }
    for lock in [header::RETIRE_LOCK, header::SLOT_DIRECTORY, header::PAGE_LOCK] {
        free_lock(segment, lock);
    }
    for a in 0..header::ARENAS {
        free_lock(segment, header::arena(a));
    }
    // Each line of the file is a bucket of one table at most.
    let mut lines_left = segment.limit() / LINE_BYTES;
    for root in roots(segment)? {
        free_lock(segment, root.word(root::W_GROWTH_LOCK));
        for (first, buckets) in bucket_arrays(segment, root)? {
            lines_left = lines_left.checked_sub(buckets).ok_or(Error::corrupt(Damage::Root, root))?;
            for i in 0..buckets {
                free_lock(segment, first.add(i * LINE_BYTES));
            }
        }
    }
    free_lock(segment, header::GATE);
    Ok(())
}

fn free_slot(segment: &Segment, base: Offset) {
    for word in
        [slot::W_LIST_LEN, slot::W_WAIT_TARGET, slot::W_VICTIM, slot::W_AGE, slot::W_PID, slot::W_COMMIT]
    {
        if segment.load(base.word(word)) != 0 {
            segment.store(base.word(word), 0);
        }
    }
    let state = State(segment.load(base.word(slot::W_STATE)));
    if state.kind() != slot::FREE {
        let free = State::new(slot::FREE, 0, state.generation().wrapping_add(1));
        segment.store(base.word(slot::W_STATE), free.0);
    }
}

fn free_lock(segment: &Segment, at: Offset) {
    let word = LockWord(segment.load(at));
    if !word.is_free() || word.is_writing() || word.has_sleepers() {
        segment.store(at, word.released(word.is_writing() || word.is_watched()).0);
    }
}

/// The roots of all tables, retired and spare ones included.
pub(crate) fn roots(segment: &Segment) -> Result<Vec<Offset>> {
    let mut all = Vec::new();
    let main = Offset(segment.load(header::MAIN_ROOT));
    all.extend((!main.is_none()).then_some(main));
    catalog::for_each_entry(segment, |_, used| {
        all.extend(used.map(|entry| entry.root));
        Ok(None::<()>)
    })?;
    for list in [header::RETIRED, header::SPARE] {
        let mut at = Offset(segment.load(list));
        let mut circle = Circle::new();
        while !at.is_none() {
            if at.0 % PAGE_BYTES != 0 || circle.is_closed_by(at) {
                return Err(Error::corrupt(Damage::Root, list));
            }
            all.push(at);
            at = Offset(segment.load(at.word(root::W_NEXT_ROOT)));
        }
    }
    Ok(all)
}

/// The bucket arrays of a table: where each begins, and how many of its buckets have memory.
pub(crate) fn bucket_arrays(segment: &Segment, root: Offset) -> Result<Vec<(Offset, u64)>> {
    let base = segment.load(root.word(root::W_BASE_LEVEL));
    if root.0 % PAGE_BYTES != 0 || base > 36 {
        return Err(Error::corrupt(Damage::Root, root));
    }
    let ready = segment.load(root.word(root::W_READY));
    let (mut arrays, mut first) = (Vec::new(), 0);
    for k in 0..root::max_arrays(base as u32) {
        if first >= ready {
            break;
        }
        let len = root::array_buckets(k, base as u32);
        let at = Offset(segment.load(root.word(root::W_ARRAYS + u64::from(k))));
        let used = len.min(ready - first);
        if at.is_none() || at.0 % PAGE_BYTES != 0 || !segment.contains(at, used * LINE_BYTES) {
            return Err(Error::corrupt(Damage::Root, root.word(root::W_ARRAYS + u64::from(k))));
        }
        arrays.push((at, used));
        first += len;
    }
    Ok(arrays)
}
