//! Tables as a whole: making them, emptying and removing them, sweeping what was replaced.
//!
//! A table is replaced by planning another root under the gate. The old one is retired: its buckets are
//! cleared in small steps by whoever comes along, and then it is spare, an empty table that the next
//! initialisation takes. Memory that holds lock words so never changes its use.

use super::{alone, ops, reserve_lock};
use crate::alloc::custody::{self, Fresh};
use crate::alloc::pages;
use crate::error::{Damage, Error, Result};
use crate::format::bucket::LINE_BYTES;
use crate::format::catalog as format;
use crate::format::lock_word::LockWord;
use crate::format::pages::Purpose;
use crate::format::{Offset, PAGE_BYTES, array, header, root};
use crate::index::catalog::{self, Identity};
use crate::lock::Rank;
use crate::writer::{Words, Writer};

/// A table to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) base_level: u32,
    /// Number of elements of an array.
    pub(crate) length: u64,
    /// The words of its default value: that beside the length, then the others.
    pub(crate) default: &'a [u64],
}

/// What becomes of an object's tables.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Initialise<'a> {
    /// Made if there is none of that name.
    IfEmpty(Wanted<'a>),
    /// Replaced by an empty one. If it is the unnamed one, all others are removed.
    Anew(Wanted<'a>),
    /// The table of this name is removed, if there is one.
    Drop(&'a [u8]),
    /// All are removed: the object is empty afterwards.
    RemoveAll,
}

/// Makes, replaces or removes tables, in one transaction. Tells whether it changed anything.
pub(crate) fn initialise(w: &mut Writer, how: Initialise) -> Result<bool> {
    alone(w, |w| {
        w.lock_gate()?;
        w.lock(header::RETIRE_LOCK, Rank::Ordinary)?;
        let changed = match how {
            Initialise::IfEmpty(wanted) => {
                let vacant = catalog::root_of(w, &wanted.identity.name)?.is_none();
                if vacant {
                    put_table(w, wanted)?;
                }
                vacant
            }
            Initialise::Anew(wanted) => {
                if wanted.identity.name.is_empty() {
                    remove_all(w)?;
                } else {
                    remove(w, &wanted.identity.name)?;
                }
                put_table(w, wanted)?;
                true
            }
            Initialise::Drop(name) => remove(w, name)?,
            Initialise::RemoveAll => remove_all(w)?,
        };
        if changed {
            w.will_change(header::GATE);
        }
        Ok(changed)
    })
}

/// Gives a name, under which there is nothing, a new table.
fn put_table(w: &mut Writer, wanted: Wanted) -> Result<()> {
    let root = match Offset(w.word(header::SPARE)) {
        Offset::NONE => make_table(w, wanted)?,
        spare => {
            w.put(header::SPARE, w.word(spare.word(root::W_NEXT_ROOT)));
            w.put(spare.word(root::W_NEXT_ROOT), 0);
            for (at, value) in nature_words(spare, wanted) {
                if w.word(at) != value {
                    w.put(at, value);
                }
            }
            // What the default value of a former array leaves.
            for n in wanted.default.len().saturating_sub(1) as u64..array::MAX_DEFAULT_BYTES / 8 {
                let at = spare.word(array::W_LONG_DEFAULT + n);
                if w.word(at) != 0 {
                    w.put(at, 0);
                }
            }
            spare
        }
    };
    let name = &*wanted.identity.name;
    if name.is_empty() {
        w.put(header::MAIN_ROOT, root.0);
        return Ok(());
    }
    let entry = vacant_entry(w)?;
    w.put(entry.word(format::W_ROOT), root.0);
    w.put(entry.word(format::W_NAME_LEN), name.len() as u64);
    for (n, word) in format::text_words(name).enumerate() {
        w.put(entry.word(format::W_NAME + n as u64), word);
    }
    Ok(())
}

/// An entry of the catalog that is not in use, in a new page if need be.
fn vacant_entry(w: &mut Writer) -> Result<Offset> {
    if let Some(at) = catalog::for_each_entry(w, |at, used| Ok(if used.is_none() { Some(at) } else { None }))?
    {
        return Ok(at);
    }
    let page = custody::take_fresh_run(w, 1, Purpose::Root, Fresh::Zeroed)?;
    w.segment.store(page.word(format::W_NEXT), w.word(header::CATALOG));
    w.put(header::CATALOG, page.0);
    Ok(format::entry(page, 0))
}

/// Removes the table of a name. Tells whether there was one.
fn remove(w: &mut Writer, name: &[u8]) -> Result<bool> {
    let Some(place) = catalog::place_of(w, name)? else { return Ok(false) };
    retire(w, place)
}

/// Removes all tables. Tells whether there was one.
fn remove_all(w: &mut Writer) -> Result<bool> {
    let mut any = retire(w, header::MAIN_ROOT)?;
    let mut places = Vec::new();
    catalog::for_each_entry(w, |at, used| {
        if used.is_some() {
            places.push(at.word(format::W_ROOT));
        }
        Ok(None::<()>)
    })?;
    for place in places {
        any |= retire(w, place)?;
    }
    Ok(any)
}

/// Retires the table whose root a word holds. Tells whether there was one.
fn retire(w: &mut Writer, place: Offset) -> Result<bool> {
    let root = Offset(w.word(place));
    if root.is_none() {
        return Ok(false);
    }
    w.put(root.word(root::W_NEXT_ROOT), w.word(header::RETIRED));
    w.put(header::RETIRED, root.0);
    w.put(place, 0);
    Ok(true)
}

/// The words of a root that say what the table is, and what they are to be.
fn nature_words(root: Offset, wanted: Wanted) -> impl Iterator<Item = (Offset, u64)> {
    let identity = wanted.identity;
    let texts = root::W_SIGNATURES.into_iter().zip(&identity.signatures).flat_map(move |(at, text)| {
        let words = format::text_words(text).enumerate();
        std::iter::once((root.word(at), text.len() as u64))
            .chain(words.map(move |(n, word)| (root.word(at + 1 + n as u64), word)))
    });
    let (first, others) = wanted.default.split_first().unwrap_or((&0, &[]));
    let default = (array::W_LONG_DEFAULT..).zip(others).map(move |(n, word)| (root.word(n), *word));
    let length = (root.word(root::W_LENGTH), wanted.length);
    [(root.word(root::W_KIND), identity.kind), (root.word(array::W_DEFAULT), *first), length]
        .into_iter()
        .chain(default)
        .chain(texts)
}

/// Makes an empty table that nobody refers to yet.
fn make_table(w: &mut Writer, wanted: Wanted) -> Result<Offset> {
    let root = custody::take_fresh_run(w, 1, Purpose::Root, Fresh::Zeroed)?;
    let counters =
        custody::take_fresh_run(w, root::counter_chunk_pages(0), Purpose::Counters, Fresh::Zeroed)?;
    let buckets = 1u64 << wanted.base_level;
    let bytes = buckets * LINE_BYTES;
    let array =
        custody::take_fresh_run(w, (bytes / PAGE_BYTES) as u32, Purpose::Buckets, Fresh::AddressSpace)?;
    w.segment.back(array, bytes)?;
    let s = w.segment;
    for (at, value) in nature_words(root, wanted) {
        s.store(at, value);
    }
    s.store(root.word(root::W_BASE_LEVEL), wanted.base_level as u64);
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

/// Clears some buckets of a retired table. Tells whether it has got on: if not, there is nothing to do, or somebody has a
/// bucket locked that comes next.
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
        if base > root::MAX_BASE_LEVEL || !w.segment.contains(table, PAGE_BYTES) {
            return Err(Error::corrupt(Damage::Root, table));
        }
        let begin = w.word(table.word(root::W_SWEEP));
        let mut position = begin;
        let mut freed = 0;
        for _ in 0..SWEPT_AT_ONCE {
            if position >= ready || freed >= FREED_AT_ONCE {
                break;
            }
            let (k, i) = root::bucket_place(position, base);
            let array = Offset(w.word(table.word(root::W_ARRAYS + k.min(root::ARRAYS - 1) as u64)));
            let bucket = array.add(i * LINE_BYTES);
            let is_array = !array.is_none() && array.0 % PAGE_BYTES == 0;
            if !is_array || !w.segment.contains(bucket, LINE_BYTES) {
                return Err(Error::corrupt(Damage::Root, table));
            }
            // Who waits for a change of a key that has no binding has to be told, too.
            let watched = LockWord(w.segment.load_acquire(bucket)).is_watched();
            if watched || (1..8).any(|n| w.segment.load(bucket.word(n)) != 0) {
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
            finish_sweep(w, table, base)?;
        }
        Ok(position > begin || position >= ready)
    })
}

/// Makes a swept table a spare one.
fn finish_sweep(w: &mut Writer, table: Offset, base: u32) -> Result<()> {
    for chunk in 0..root::COUNTER_CHUNKS {
        let counters = Offset(w.word(table.word(root::W_COUNTERS + chunk as u64)));
        if counters.is_none() {
            continue;
        }
        let lines = root::counter_chunk_lines(chunk);
        if !w.segment.contains(counters, lines * LINE_BYTES) {
            return Err(Error::corrupt(Damage::Root, table));
        }
        for i in 0..lines {
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
    Ok(())
}

/// Operations between two looks at whether memory should be given back.
const UPKEEP_INTERVAL: u32 = 16;

/// Counts an operation of a short way that has set memory free, so that some of these have chores and look after it, too.
#[inline(always)]
pub(super) fn count_freeing(w: &mut Writer) {
    w.s.p.chores += 1;
    if w.s.p.chores >= UPKEEP_INTERVAL {
        custody::make_drain_due(w);
    }
}

/// A little of the work that somebody has to do: sweeping, giving memory back to the system.
pub(crate) fn upkeep(w: &mut Writer) -> Result<()> {
    let swept = if w.segment.load(header::RETIRED) == 0 { Ok(false) } else { sweep_step(w) };
    w.s.p.chores += 1;
    if w.s.p.chores >= UPKEEP_INTERVAL {
        w.s.p.chores = 0;
        pages::punch_step(w)?;
    }
    swept.map(drop)
}
