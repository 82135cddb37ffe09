//! Growth of a table: who splits which bucket when, and memory for buckets and counters.
//!
//! Splits are spread over the operations that add: a slot that has added 64 bindings looks whether the table
//! is above its target load, and takes tickets for some splits, which its next operations use up one by one.
//! A ticket that its holder cannot use is lost; a bucket left behind is split by the next adder that locks it the general
//! way. The words that say what is permitted and how much there is are advisory: whatever they say, growth goes on.

use super::{TableView, commit, fast_split};
use crate::alloc;
use crate::alloc::custody::{self, Fresh};
use crate::error::{Damage, Error, Result};
use crate::format::bucket::{self, LINE_BYTES, Link, W_LINK, level_of};
use crate::format::pages::{self, Purpose};
use crate::format::size_class::LINE_CLASS;
use crate::format::{Offset, PAGE_BYTES, doubling_chunk_len, header, root, slot};
use crate::index::split::{Lines, split};
use crate::lock::Rank;
use crate::segment::Segment;
use crate::writer::{Words, Writer};

/// Buckets that get memory at once: 16 KiB, some 10 microseconds.
const READY_STEP: u64 = 256;
/// Bindings that a slot adds before it looks at the load.
const REPORT: i64 = 64;
/// Most tickets taken at once: twice what 64 bindings make necessary.
const TICKETS: u64 = 34;

struct SlabLines;

impl Lines for SlabLines {
    fn take(&mut self, w: &mut Writer) -> Result<Offset> {
        alloc::take_block(w, LINE_CLASS)
    }
    fn free(&mut self, w: &mut Writer, line: Offset) {
        alloc::free_block(w, line, LINE_CLASS);
    }
}

/// Reports a changed counter to the table's rough count, and takes tickets if the table is too full.
#[inline(always)]
pub(crate) fn report(w: &mut Writer, root: Offset, before: i64, now: i64) {
    if before.div_euclid(REPORT) != now.div_euclid(REPORT) {
        report_step(w, root, now.div_euclid(REPORT) - before.div_euclid(REPORT));
    }
}

#[cold]
#[inline(never)]
fn report_step(w: &mut Writer, root: Offset, steps: i64) {
    let delta = steps.wrapping_mul(REPORT);
    w.segment.add_advisory(root.word(root::W_ROUGH_COUNT), delta as u64);
    if delta <= 0 || w.s.tickets.bring_forward(root) {
        return;
    }
    let wanted = buckets_for(rough_count(w.segment, root));
    let permitted_at = root.word(root::W_PERMITTED);
    let permitted = w.segment.load(permitted_at);
    let ready = w.segment.load(root.word(root::W_READY));
    if wanted > permitted {
        let n = (wanted - permitted).min(TICKETS);
        let first = w.segment.add_advisory(permitted_at, n);
        w.s.tickets.take_on(root, first..first.saturating_add(n));
    } else if wanted > ready {
        // Whoever was to bring these to life may be dead, or have had no memory.
        w.s.tickets.take_on(root, ready..wanted.min(ready + TICKETS));
    }
}

/// Roughly how many bindings a table has. What one slot has added and another one removed is rounded for each of them, so
/// that the sum may come out below 0; and more than twice as much as there are buckets for is not believed at once.
pub(crate) fn rough_count(segment: &Segment, root: Offset) -> u64 {
    let most = segment.load(root.word(root::W_READY)).min(1 << bucket::MAX_LEVEL) * 2 * root::LOAD_KEYS
        / root::LOAD_BUCKETS;
    u64::try_from(segment.load(root.word(root::W_ROUGH_COUNT)) as i64).map_or(0, |count| count.min(most))
}

/// How many buckets so many bindings are to have.
fn buckets_for(bindings: u64) -> u64 {
    bindings.saturating_mul(root::LOAD_BUCKETS) / root::LOAD_KEYS
}

/// Growth that cannot be had now is no error of the operation that would have liked it.
fn unless_hopeless(outcome: Result<bool>) -> Result<bool> {
    match outcome {
        Err(Error::NoSpace | Error::NoMemory | Error::Timeout { .. } | Error::Busy(_)) => Ok(false),
        outcome => outcome,
    }
}

/// Uses some tickets, each for an operation of its own. Failing to split is no error: the bucket stays behind.
#[cold]
#[inline(never)]
pub(crate) fn use_tickets(w: &mut Writer, table: &TableView, most: u32) -> Result<()> {
    let root = table.roots.root();
    for _ in 0..most {
        if !w.s.tickets.are_of(root) {
            break;
        }
        let permitted = w.segment.load(root.word(root::W_PERMITTED));
        let Some(target) = w.s.tickets.use_first().filter(|target| *target < permitted) else {
            // They are of another table, which had this place before.
            w.s.tickets.discard(root);
            break;
        };
        // Without memory for one there is none for the others. They are asked for again.
        use_ticket(w, table, target).inspect_err(|_| w.s.tickets.discard(root))?;
    }
    Ok(())
}

fn use_ticket(w: &mut Writer, table: &TableView, target: u64) -> Result<()> {
    if target >= 1 << bucket::MAX_LEVEL || !make_ready(w, table, target)? {
        return Ok(());
    }
    // Else a lock may be left from the ticket before, and be written over by the short way.
    w.segment.require_whole()?;
    // The bucket that has the keys of the target may be some levels behind.
    for _ in 0..4 {
        let Some((index, level)) = living_ancestor(w, table, target) else { return Ok(()) };
        if index == target {
            return Ok(());
        }
        if fast_split::split(w, table, index, level).is_none() && !split_generally(w, table, index, level)? {
            return Ok(());
        }
        if index + (1 << level) == target {
            return Ok(());
        }
    }
    Ok(())
}

/// Splits a bucket if nobody is there. False: it stays as it is.
#[cold]
#[inline(never)]
fn split_generally(w: &mut Writer, table: &TableView, index: u64, level: u32) -> Result<bool> {
    let Some(bucket) = table.roots.bucket(index) else { return Ok(false) };
    if !w.try_lock(bucket, Rank::Ordinary)? {
        return Ok(false);
    }
    let link = Link(w.word(bucket.word(W_LINK)));
    let unchanged = level_of(index, link, table.roots.base_level()) == Some(level)
        && table.roots.is_current(w.segment, table.roots.version());
    let split = if unchanged {
        split(w, &table.roots, table.key_hash, index, level, &mut SlabLines)
    } else {
        Ok(false)
    };
    match split {
        Ok(true) => commit(w).map(|()| true),
        Ok(false) => super::abort(w).map(|()| false),
        Err(e) => {
            super::abort(w)?;
            Err(e)
        }
    }
}

/// The bucket that holds the keys which an unborn one will get, and its level.
fn living_ancestor(w: &Writer, table: &TableView, target: u64) -> Option<(u64, u32)> {
    let mut index = target;
    loop {
        let bucket = table.roots.bucket(index)?;
        let link = Link(w.segment.load(bucket.word(W_LINK)));
        if let Some(level) = level_of(index, link, table.roots.base_level()) {
            return Some((index, level));
        }
        if index == 0 {
            return None;
        }
        index = bucket::ancestor(index);
    }
}

/// Splits a locked bucket that is behind, as part of the transaction that has added to it.
pub(crate) fn split_if_behind(w: &mut Writer, table: &TableView, home: super::ops::Home) -> Result<()> {
    let partner = home.index + (1u64 << home.level);
    let root = table.roots.root();
    let permitted = w.segment.load(root.word(root::W_PERMITTED));
    if partner >= permitted.min(w.segment.load(root.word(root::W_READY))) {
        return Ok(());
    }
    // The memory is there, but this process may not know it yet.
    if !unless_hopeless(make_ready(w, table, partner))? {
        return Ok(());
    }
    super::reserve_lock(w)?;
    let savepoint = w.s.set().savepoint();
    match split(w, &table.roots, table.key_hash, home.index, home.level, &mut SlabLines) {
        // Without memory for lines the bucket stays behind; what was added to it has its place.
        Err(Error::NoSpace) => w.s.set().roll_back(savepoint),
        Err(e) => {
            w.s.set().roll_back(savepoint);
            return Err(e);
        }
        Ok(_) => w.s.set().keep(savepoint),
    }
    Ok(())
}

/// After a commit: reports what it added to the tables' loads.
pub(crate) fn report_commit(w: &mut Writer) {
    for (root, line, added) in std::mem::take(&mut w.s.net_added) {
        let now = w.segment.load(line) as i64;
        report(w, root, now.wrapping_sub(added), now);
    }
}

/// Splits buckets ahead, until the table has room for so many keys: before an operation that adds many of them at
/// once. Nothing is planned. What could not be split stays behind, and is split by whoever adds to it.
pub(crate) fn grow_for(w: &mut Writer, table: &TableView, keys: u64) -> Result<()> {
    let wanted = buckets_for(keys);
    let root = table.roots.root();
    let permitted_at = root.word(root::W_PERMITTED);
    let permitted = w.segment.load(permitted_at);
    if wanted <= permitted || wanted > 1 << bucket::MAX_LEVEL {
        return Ok(());
    }
    // Memory comes first: buckets that are permitted and have none would keep the table from growing.
    if !unless_hopeless(make_ready(w, table, wanted - 1))?
        || table.roots.root() != root
        || w.segment.compare_exchange(permitted_at, permitted, wanted).is_err()
    {
        return Ok(());
    }
    w.s.tickets.discard(root);
    w.s.tickets.take_on(root, permitted..wanted);
    let outcome = use_tickets(w, table, u32::MAX);
    // Some are left if the table is another one by now.
    w.s.tickets.discard(root);
    outcome
}

/// What is planned adds so many bindings to a table.
pub(crate) fn added(w: &Writer, table: &TableView) -> i64 {
    w.s.net_added.iter().find(|added| added.0 == table.roots.root()).map_or(0, |added| added.2)
}

/// In a group, where no operation comes afterwards that could use tickets: raises the permission so that the
/// buckets which the group adds to are split as it goes. `before` is what it had added before the operation that is over.
#[inline]
pub(crate) fn permit_for_group(w: &mut Writer, table: &TableView, before: i64) -> Result<()> {
    let root = table.roots.root();
    match w.s.net_added.iter().find(|added| added.0 == root) {
        // The slot's count goes on from one group to the next.
        Some(&(_, line, added)) if added > before.max(0) && w.word(line) as i64 % REPORT == 0 => {
            permit(w, table, rough_count(w.segment, root).saturating_add(added as u64))
        }
        _ => Ok(()),
    }
}

/// Raises the permission to what so many bindings are to have.
#[cold]
fn permit(w: &mut Writer, table: &TableView, bindings: u64) -> Result<()> {
    let root = table.roots.root();
    let wanted = buckets_for(bindings);
    let permitted_at = root.word(root::W_PERMITTED);
    let permitted = w.segment.load(permitted_at);
    let is_enough = wanted <= permitted.min(w.segment.load(root.word(root::W_READY)));
    if !is_enough
        && wanted < 1 << bucket::MAX_LEVEL
        && unless_hopeless(make_ready(w, table, wanted))?
        && wanted > permitted
    {
        let _ = w.segment.compare_exchange(permitted_at, permitted, wanted);
    }
    Ok(())
}

/// Makes sure that the memory of a bucket is there. False: the table has become another one.
#[inline(always)]
fn make_ready(w: &mut Writer, table: &TableView, index: u64) -> Result<bool> {
    if index < table.roots.ready() { Ok(true) } else { make_ready_slowly(w, table, index) }
}

#[cold]
#[inline(never)]
fn make_ready_slowly(w: &mut Writer, table: &TableView, index: u64) -> Result<bool> {
    loop {
        if index < table.roots.ready() {
            return Ok(true);
        }
        table.refresh(w)?;
        if index < table.roots.ready() {
            return Ok(true);
        }
        let version = table.roots.version();
        let root = table.roots.root();
        let base = table.roots.base_level();
        let ready = table.roots.ready();
        let (k, i) = root::bucket_place(ready, base);
        if k >= root::max_arrays(base) {
            return Ok(false);
        }
        let array_at = root.word(root::W_ARRAYS + k as u64);
        let growth_lock = root.word(root::W_GROWTH_LOCK);
        let buckets = root::array_buckets(k, base);
        if w.segment.load(array_at) == 0 {
            let pages = (buckets * LINE_BYTES).div_ceil(PAGE_BYTES);
            custody::place_run(w, pages as u32, Purpose::Buckets, Fresh::AddressSpace, |w, run| {
                w.lock(growth_lock, Rank::Growth)?;
                let vacant = w.word(array_at) == 0 && table.roots.is_current(w.segment, version);
                if vacant {
                    w.put(array_at, run.0);
                }
                Ok(vacant)
            })?;
            continue;
        }
        let step = READY_STEP.min(buckets - i);
        let array = Offset(w.segment.load(array_at));
        let from = array.add(i * LINE_BYTES);
        // Memory is given to pages that are used, not to wherever damaged bytes say.
        let used = w.segment.load(header::USED_PAGES).min(pages::MAX_PAGES) * PAGE_BYTES;
        if array.0 % PAGE_BYTES != 0 || from.0 > used || used - from.0 < step * LINE_BYTES {
            return Err(Error::corrupt(Damage::Root, array_at));
        }
        w.segment.back(from, step * LINE_BYTES)?;
        w.segment.populate(from, step * LINE_BYTES);
        w.mini(|w| {
            w.lock(growth_lock, Rank::Growth)?;
            if w.word(root.word(root::W_READY)) == ready && table.roots.is_current(w.segment, version) {
                w.put(root.word(root::W_READY), ready + step);
            }
            Ok(())
        })?;
    }
}

/// Makes the chunk of counter lines that a slot needs.
#[cold]
pub(super) fn make_counter_chunk(w: &mut Writer, table: &TableView, chunk: u32) -> Result<()> {
    let root = table.roots.root();
    let at = root.word(root::W_COUNTERS + chunk as u64);
    let pages = root::counter_chunk_pages(chunk);
    custody::place_run(w, pages, Purpose::Counters, Fresh::Zeroed, |w, run| {
        w.lock(root.word(root::W_GROWTH_LOCK), Rank::Growth)?;
        let vacant = w.word(at) == 0;
        if vacant {
            w.put(at, run.0);
        }
        Ok(vacant)
    })
}

/// Adds a chunk of slots, when the last free one has been claimed.
pub(crate) fn add_slots(w: &mut Writer) -> Result<()> {
    for k in 1..header::SLOT_CHUNKS {
        let at = header::slot_chunk(k);
        if w.segment.load(at) != 0 {
            continue;
        }
        let slots = doubling_chunk_len(k, header::FIRST_CHUNK_SLOTS);
        let pages = (slots * slot::SLOT_BYTES / PAGE_BYTES) as u32;
        return custody::place_run(w, pages, Purpose::Slots, Fresh::Zeroed, |w, run| {
            w.lock(header::SLOT_DIRECTORY, Rank::SlotDirectory)?;
            let vacant = w.word(at) == 0;
            if vacant {
                w.put(at, run.0);
            }
            Ok(vacant)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
