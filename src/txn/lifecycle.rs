//! Tables as a whole: making one, emptying it, sweeping what was replaced.
//!
//! A table is replaced by planning another root under the gate. The old one is retired: its buckets are
//! cleared in small steps by whoever comes along, and then it is spare, an empty table that the next
//! initialisation takes. Memory that holds lock words so never changes its use.

use super::{alone, ops, reserve_lock};
use crate::alloc::custody::{self, Fresh};
use crate::alloc::pages;
use crate::error::{Damage, Error, Result};
use crate::format::bucket::LINE_BYTES;
use crate::format::pages::Purpose;
use crate::format::{Offset, PAGE_BYTES, header, root};
use crate::lock::Rank;
use crate::writer::{Words, Writer};

/// What becomes of the object's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initialise {
    /// Made if there is none.
    IfEmpty { base_level: u32 },
    /// Replaced by an empty one.
    Anew { base_level: u32 },
    /// Removed: the object is empty afterwards.
    Remove,
}

/// Gives the object another table, in one transaction. Tells whether it changed anything.
pub(crate) fn initialise(w: &mut Writer, how: Initialise) -> Result<bool> {
    alone(w, |w| {
        w.lock_gate()?;
        let old = Offset(w.word(header::MAIN_ROOT));
        let base_level = match how {
            Initialise::IfEmpty { .. } if !old.is_none() => return Ok(false),
            Initialise::Remove if old.is_none() => return Ok(false),
            Initialise::IfEmpty { base_level } | Initialise::Anew { base_level } => Some(base_level),
            Initialise::Remove => None,
        };
        w.lock(header::RETIRE_LOCK, Rank::Ordinary)?;
        let new = match base_level {
            None => Offset::NONE,
            Some(base_level) => match Offset(w.word(header::SPARE)) {
                Offset::NONE => make_table(w, base_level)?,
                spare => {
                    w.put(header::SPARE, w.word(spare.word(root::W_NEXT_ROOT)));
                    w.put(spare.word(root::W_NEXT_ROOT), 0);
                    spare
                }
            },
        };
        if !old.is_none() {
            w.put(old.word(root::W_NEXT_ROOT), w.word(header::RETIRED));
            w.put(header::RETIRED, old.0);
        }
        w.put(header::MAIN_ROOT, new.0);
        w.will_change(header::GATE);
        Ok(true)
    })
}

/// Makes an empty table that nobody refers to yet.
fn make_table(w: &mut Writer, base_level: u32) -> Result<Offset> {
    let root = custody::take_fresh_run(w, 1, Purpose::Root, Fresh::Zeroed)?;
    let counters =
        custody::take_fresh_run(w, root::counter_chunk_pages(0), Purpose::Counters, Fresh::Zeroed)?;
    let buckets = 1u64 << base_level;
    let bytes = buckets * LINE_BYTES;
    let array =
        custody::take_fresh_run(w, (bytes / PAGE_BYTES) as u32, Purpose::Buckets, Fresh::AddressSpace)?;
    w.segment.back(array, bytes)?;
    let s = w.segment;
    s.store(root.word(root::W_KIND), root::KIND_HASHTABLE);
    s.store(root.word(root::W_BASE_LEVEL), base_level as u64);
    s.store(root.word(root::W_READY), buckets);
    s.store(root.word(root::W_PERMITTED), buckets);
    s.store(root.word(root::W_ARRAYS), array.0);
    s.store(root.word(root::W_COUNTERS), counters.0);
    Ok(root)
}

/// Buckets that one sweeping step looks at.
const SWEPT_AT_ONCE: u64 = 32;
/// Bindings that one sweeping step frees, about.
const FREED_AT_ONCE: u64 = 64;

/// Clears some buckets of a retired table. Tells whether there may be more to do.
pub(crate) fn sweep_step(w: &mut Writer) -> Result<bool> {
    if w.segment.load(header::RETIRED) == 0 {
        return Ok(false);
    }
    alone(w, |w| {
        if !w.try_lock(header::RETIRE_LOCK, Rank::Ordinary)? {
            return Ok(false);
        }
        let table = Offset(w.word(header::RETIRED));
        if table.is_none() {
            return Ok(false);
        }
        let base = w.word(table.word(root::W_BASE_LEVEL)) as u32;
        let ready = w.word(table.word(root::W_READY));
        if base > 36 || !w.segment.contains(table, PAGE_BYTES) {
            return Err(Error::corrupt(Damage::Root, table));
        }
        let mut position = w.word(table.word(root::W_SWEEP));
        let mut freed = 0;
        for _ in 0..SWEPT_AT_ONCE {
            if position >= ready || freed >= FREED_AT_ONCE {
                break;
            }
            let (k, i) = root::bucket_place(position, base);
            let array = Offset(w.word(table.word(root::W_ARRAYS + k.min(root::ARRAYS - 1) as u64)));
            let bucket = array.add(i * LINE_BYTES);
            if array.is_none() || !w.segment.contains(bucket, LINE_BYTES) {
                return Err(Error::corrupt(Damage::Root, table));
            }
            if (1..8).any(|n| w.segment.load(bucket.word(n)) != 0) {
                reserve_lock(w)?;
                if !w.try_lock(bucket, Rank::Ordinary)? {
                    break;
                }
                freed += ops::clear_bucket(w, bucket)?;
            }
            position += 1;
        }
        if freed > 0 {
            // The counters' sum stays the number of bindings; nobody else uses those of a retired table.
            let counters = Offset(w.word(table.word(root::W_COUNTERS)));
            let line = root::counter_line(counters, 0);
            w.put(line, w.word(line).wrapping_sub(freed));
        }
        if position < ready {
            w.put(table.word(root::W_SWEEP), position);
        } else {
            finish_sweep(w, table, base);
        }
        Ok(true)
    })
}

/// Makes a swept table a spare one.
fn finish_sweep(w: &mut Writer, table: Offset, base: u32) {
    for chunk in 0..root::COUNTER_CHUNKS {
        let counters = Offset(w.word(table.word(root::W_COUNTERS + chunk as u64)));
        if counters.is_none() {
            continue;
        }
        for i in 0..root::counter_chunk_lines(chunk) {
            let line = root::counter_line(counters, i);
            if w.word(line) != 0 {
                w.put(line, 0);
            }
        }
    }
    w.put(table.word(root::W_SWEEP), 0);
    w.put(table.word(root::W_PERMITTED), 1 << base);
    w.put(table.word(root::W_ROUGH_COUNT), 0);
    w.put(header::RETIRED, w.word(table.word(root::W_NEXT_ROOT)));
    w.put(table.word(root::W_NEXT_ROOT), w.word(header::SPARE));
    w.put(header::SPARE, table.0);
}

/// Operations between two looks at whether memory should be given back.
const UPKEEP_INTERVAL: u32 = 16;

/// A little of the work that somebody has to do: sweeping, giving memory back to the system.
pub(crate) fn upkeep(w: &mut Writer) -> Result<()> {
    if w.segment.load(header::RETIRED) != 0 {
        sweep_step(w)?;
    }
    w.s.p.chores += 1;
    if w.s.p.chores >= UPKEEP_INTERVAL {
        w.s.p.chores = 0;
        pages::punch_step(w)?;
    }
    Ok(())
}
