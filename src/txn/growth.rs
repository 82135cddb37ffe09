//! Growth of a table: who splits which bucket when, and memory for buckets and counters.
//!
//! Splits are spread over the operations that add: a slot that has added 64 bindings looks whether the table
//! is above its target load, and takes tickets for some splits, which its next operations use up one by one.
//! A ticket that its holder cannot use is lost; a bucket left behind is split by the next adder that locks it.

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
    let delta = steps * REPORT;
    let rough = w.segment.add_advisory(root.word(root::W_ROUGH_COUNT), delta as u64);
    let rough = (rough as i64).wrapping_add(delta).max(0) as u64;
    let wanted = rough.saturating_mul(root::LOAD_BUCKETS) / root::LOAD_KEYS;
    let permitted_at = root.word(root::W_PERMITTED);
    let permitted = w.segment.load(permitted_at);
    // Those of another table are lost: nobody knows when this session will be there again.
    let has_tickets = w.s.p.tickets_of == root && !w.s.p.tickets.is_empty();
    if delta <= 0 || wanted <= permitted || permitted >= 1 << bucket::MAX_LEVEL || has_tickets {
        return;
    }
    let n = (wanted - permitted).min(TICKETS);
    let first = w.segment.add_advisory(permitted_at, n);
    w.s.p.tickets = first..first.saturating_add(n);
    w.s.p.tickets_of = root;
}

/// Uses some tickets, each for an operation of its own. Failing to split is no error: the bucket stays behind.
#[cold]
#[inline(never)]
pub(crate) fn use_tickets(w: &mut Writer, table: &TableView, most: u32) -> Result<()> {
    for _ in 0..most {
        if w.s.p.tickets_of != table.roots.root() {
            break;
        }
        let Some(target) = w.s.p.tickets.next() else { break };
        if target >= w.segment.load(table.roots.root().word(root::W_PERMITTED)) {
            // They are of another table, which had this place before.
            w.s.p.tickets = 0..0;
            break;
        }
        use_ticket(w, table, target)?;
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
    let permitted = w.segment.load(table.roots.root().word(root::W_PERMITTED));
    if partner >= permitted.min(table.roots.ready()) {
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
    let wanted = keys.saturating_mul(root::LOAD_BUCKETS) / root::LOAD_KEYS;
    let permitted_at = table.roots.root().word(root::W_PERMITTED);
    let permitted = w.segment.load(permitted_at);
    if wanted <= permitted || wanted >= 1 << bucket::MAX_LEVEL {
        return Ok(());
    }
    if w.segment.compare_exchange(permitted_at, permitted, wanted).is_ok() {
        // Tickets that are lost by this leave buckets behind, which are split by whoever adds to them.
        w.s.p.tickets = permitted..wanted;
        w.s.p.tickets_of = table.roots.root();
        use_tickets(w, table, u32::MAX)?;
    }
    Ok(())
}

/// In a group, where no operation comes afterwards that could use tickets: raises the permission so that the
/// buckets which the group adds to are split as it goes.
#[inline]
pub(crate) fn permit_for_group(w: &mut Writer, table: &TableView) -> Result<()> {
    let root = table.roots.root();
    let added = w.s.net_added.iter().find(|added| added.0 == root).map_or(0, |added| added.2);
    if added <= 0 || added % REPORT != 0 {
        return Ok(());
    }
    let added = added as u64;
    let rough = w.segment.load(root.word(root::W_ROUGH_COUNT)).saturating_add(added);
    let wanted = rough.saturating_mul(root::LOAD_BUCKETS) / root::LOAD_KEYS;
    let permitted_at = root.word(root::W_PERMITTED);
    let permitted = w.segment.load(permitted_at);
    if wanted > permitted && wanted < 1 << bucket::MAX_LEVEL && make_ready(w, table, wanted)? {
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
mod tests {
    use super::*;
    use crate::index::find;
    use crate::index::home::home;
    use crate::lock::Patience;
    use crate::object::{ManageOptions, OpenOptions};
    use crate::txn::cursor::{self, Batch, Part, Position};

    /// Goal: growth does not give memory to what damaged bytes call an array of buckets. Method: the next array lies where none
    /// can be: between two lines, before the pages that are used end, or far behind them.
    #[test]
    fn what_cannot_be_an_array_gets_no_memory() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        let (root, base, ready) =
            (table.view.roots.root(), table.view.roots.base_level(), table.view.roots.ready());
        let (k, i) = root::bucket_place(ready, base);
        let array_at = root.word(root::W_ARRAYS + k as u64);
        assert_eq!((w.segment.load(array_at), i), (0, 0), "it is not there yet");
        let (size, used) = (w.segment.limit(), w.segment.load(header::USED_PAGES) * PAGE_BYTES);
        for wrong in [16, used - PAGE_BYTES + 8, used, used + (1 << 40), !(PAGE_BYTES - 1)] {
            w.segment.store(array_at, wrong);
            let outcome = make_ready(&mut w, &table.view, ready);
            assert_eq!(outcome, Err(Error::corrupt(Damage::Root, array_at)), "{wrong:#x}");
            w.segment.refresh().expect("is whole");
            assert_eq!(w.segment.limit(), size, "{wrong:#x}");
        }
        w.segment.store(array_at, 0);
        assert_eq!(make_ready(&mut w, &table.view, ready), Ok(true));
    }

    /// Goal: what is permitted is advisory, so that keys are found whatever the order was in which buckets have been
    /// split. Method: single buckets are split as far as there are partners for them; a hint that says as little as it can is
    /// made before each operation, of every kind that looks for a bucket.
    #[test]
    fn keys_are_found_whatever_the_order_of_splits_was() {
        for rarely in [2, 5, 11] {
            let object = OpenOptions::new().anonymous().expect("memory");
            let hash_table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table");
            let keys: Vec<_> = (0..2000u64).map(u64::to_le_bytes).collect();
            for key in &keys {
                hash_table.add(key, b"value").expect("adds");
            }
            let table = &hash_table.table;
            let view = &table.view;
            let permitted_at = view.roots.root().word(root::W_PERMITTED);
            let know_little = || {
                let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
                let w = entered.writer(Patience::FOR_EVER);
                w.segment.store(permitted_at, 0);
                view.refresh(&w).expect("refreshes");
                assert_eq!(view.roots.expected(), 1 << view.roots.base_level());
            };
            let mut behind_all = 0;
            {
                let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
                let mut w = entered.writer(Patience::FOR_EVER);
                for index in (0..view.roots.ready()).step_by(rarely) {
                    while let Some((_, level)) = living_ancestor(&w, view, index).filter(|at| at.0 == index) {
                        if !split_generally(&mut w, view, index, level).expect("splits") {
                            break;
                        }
                        behind_all += u64::from(2 << level > view.roots.ready());
                    }
                }
            }
            assert!(
                behind_all > 10,
                "{behind_all}: levels by which keys are at home behind all that is ready"
            );

            let segment = &table.engine.segment;
            for (n, key) in keys.iter().enumerate() {
                let hash = view.key_hash.hash(key);
                know_little();
                let found = find::attempt(segment, &view.roots, hash, key, |_, found| found.is_some());
                assert!(matches!(found, Ok((true, _))), "{n}");
                know_little();
                assert!(home(segment, &view.roots, hash).is_ok(), "{n}");
                let value = &[b'v'; 20][..n % 20];
                know_little();
                hash_table.replace(key, value).expect("replaces");
                know_little();
                assert_eq!(hash_table.find_many(&[key]).expect("finds"), [Some(value.to_vec())]);
                let absent = (1 << 32 | n as u64).to_le_bytes();
                know_little();
                let hash = view.key_hash.hash(&absent);
                let found = find::attempt(segment, &view.roots, hash, &absent, |_, found| found.is_some());
                assert!(matches!(found, Ok((false, _))), "{n}");
            }
            let (mut position, mut batch, mut count) = (Position::START, Batch::default(), 0);
            while !position.is_end() {
                know_little();
                position = cursor::attempt(segment, view, position, Part::Keys, &mut batch)
                    .unwrap_or_else(|obstacle| panic!("{obstacle:?} behind {count}"));
                while batch.take().is_some() {
                    count += 1;
                }
            }
            assert_eq!(count, keys.len());
            let in_group: Result<usize> = table.group(|| {
                hash_table.add(b"one more", b"value")?;
                hash_table.iter().try_fold(0, |n, binding| binding.map(|_| n + 1))
            });
            assert_eq!(in_group, Ok(keys.len() + 1));
            let summary = object.check(|finding| panic!("{finding:?}")).expect("checks");
            assert_eq!(summary.bindings, keys.len() as u64 + 1);
        }
    }

    /// Goal: a table grows, whatever splits of another one its only session has still to make. Method: the session leaves one
    /// table just when it has taken tickets, and fills another.
    #[test]
    fn tickets_of_another_table_do_not_stop_growth() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let manage =
            |name| crate::HashTable::manage(&object, ManageOptions::new().root(name)).expect("a table");
        let (left, filled) = (manage("left"), manage("filled"));
        let tickets = || {
            let mut entered = left.table.engine.enter(Patience::FOR_EVER).expect("enters");
            entered.writer(Patience::FOR_EVER).s.p.tickets.clone().count()
        };
        let mut n = 0u64;
        while tickets() == 0 {
            left.add(&n.to_le_bytes(), b"value").expect("adds");
            n += 1;
        }
        let keys = 10_000u64;
        for n in 0..keys {
            filled.add(&n.to_le_bytes(), b"value").expect("adds");
        }
        let permitted = filled.table.view.roots.root().word(root::W_PERMITTED);
        let permitted = filled.table.engine.segment.load(permitted);
        assert!(permitted >= (keys - 200) * root::LOAD_BUCKETS / root::LOAD_KEYS, "{permitted}");
    }
}
