//! Operations of the hash table as parts of a transaction: the key's bucket is locked at the first touch, also
//! for reading, and stays locked until the end.

use super::{TableView, Update, growth, in_group, reserve_lock};
use crate::alloc;
use crate::error::{Damage, Error, Result};
use crate::format::bucket::{self, Link, W_ENTRY, W_LINK, entry_record, entry_with, level_of, mask};
use crate::format::catalog::text_words;
use crate::format::pages::Purpose;
use crate::format::record::{self, Holder, IN_PLACE_BYTES, Shape};
use crate::format::size_class::LINE_CLASS;
use crate::format::{Offset, header, root};
use crate::index::chain::{self, Hit};
use crate::index::find::{Found, checked_shape};
use crate::lock::Rank;
use crate::segment::view::Block;
use crate::writer::{Counter, Words, Writer};
use std::ops::Deref;

/// A key's bucket, locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home {
    pub(crate) bucket: Offset,
    pub(crate) index: u64,
    pub(crate) level: u32,
    pub(crate) hash: u64,
}

/// A key in its locked bucket.
pub(crate) struct At<'k> {
    pub(crate) home: Home,
    pub(crate) key: &'k [u8],
    /// The key's entry, if it has bindings.
    pub(crate) hit: Option<Hit>,
}

/// Locks the bucket of a key and finds its entry.
pub(crate) fn at<'k>(w: &mut Writer, table: &TableView, key: &'k [u8]) -> Result<At<'k>> {
    let hash = table.key_hash.hash(key);
    if let Some(at) = find_quickly(w, table, hash, key) {
        return Ok(at);
    }
    let home = lock_home(w, table, hash)?;
    let hit = chain::lookup(w, home.bucket, hash, key)?;
    Ok(At { home, key, hit })
}

/// The same for a bucket that is free, or held already without plans for it.
fn find_quickly<'k>(w: &mut Writer, table: &TableView, hash: u64, key: &'k [u8]) -> Option<At<'k>> {
    let (sight, _) = in_group::look(w, table, hash, key)?;
    let (bucket, seen) = (sight.bucket, sight.seen);
    let link = Link(bucket.load(W_LINK as usize));
    let level = level_of(seen.index, link, table.roots.base_level())?;
    let hit = match sight.found {
        None => None,
        Some(found) => Some(hit_in(w, bucket, seen.bucket, link, &found)?),
    };
    Some(At { home: Home { bucket: seen.bucket, index: seen.index, level, hash }, key, hit })
}

/// The entry that points to a record, in a bucket or in its first overflow line.
#[inline(always)]
pub(super) fn hit_in(w: &Writer, bucket: Block<'_, 8>, at: Offset, link: Link, found: &Found) -> Option<Hit> {
    hit_in_line(bucket, at, found).or_else(|| {
        let next = link.next();
        if next.is_none() { None } else { hit_in_line(w.segment.block(next)?, next, found) }
    })
}

#[inline(always)]
fn hit_in_line(line: Block<'_, 8>, at: Offset, found: &Found) -> Option<Hit> {
    for n in W_ENTRY..W_ENTRY + bucket::ENTRIES {
        let entry = line.load(n as usize);
        if entry_record(entry) == found.record {
            return Some(Hit { at: at.word(n), entry, shape: found.shape });
        }
    }
    None
}

/// The same in one of its overflow lines, as many as a bucket has at most while its table grows as it should.
#[cold]
pub(super) fn hit_in_lines(w: &Writer, mut link: Link, found: &Found) -> Option<Hit> {
    for _ in 0..LINES_SEARCHED {
        let at = Some(link.next()).filter(|next| !next.is_none())?;
        let line = w.segment.block::<8>(at)?;
        if let Some(hit) = hit_in_line(line, at, found) {
            return Some(hit);
        }
        link = Link(line.load(W_LINK as usize));
    }
    None
}

/// Overflow lines that are searched for an entry.
const LINES_SEARCHED: u32 = 16;

/// Locks the bucket where a hash is at home.
fn lock_home(w: &mut Writer, table: &TableView, hash: u64) -> Result<Home> {
    let roots = &table.roots;
    if !roots.is_current(w.segment, roots.version()) {
        table.refresh(w)?;
    }
    let mut index = roots.guess(hash);
    for _ in 0..10_000 {
        let Some(bucket) = roots.bucket(index) else {
            table.refresh(w)?;
            if index >= roots.ready() {
                index = roots.guess(hash);
            }
            continue;
        };
        let held = w.holds(bucket);
        if !held {
            reserve_lock(w)?;
            w.lock(bucket, Rank::Ordinary)?;
        }
        let give_back = |w: &mut Writer| {
            if !held {
                let last = w.s.p.held.len() - 1;
                w.s.p.release_from(w.segment, last);
            }
        };
        if !roots.is_current(w.segment, roots.version()) {
            give_back(w);
            table.refresh(w)?;
            index = roots.guess(hash);
            continue;
        }
        let link = Link(w.word(bucket.word(W_LINK)));
        match level_of(index, link, roots.base_level()) {
            None if index == 0 => return Err(Error::corrupt(Damage::Level, bucket)),
            None => {
                give_back(w);
                index = bucket::ancestor(index);
            }
            Some(level) if level > bucket::MAX_LEVEL => {
                return Err(Error::corrupt(Damage::Level, bucket));
            }
            Some(level) => {
                let home = hash & mask(level);
                if home == index {
                    return Ok(Home { bucket, index, level, hash });
                }
                give_back(w);
                index = match roots.way_to(w.segment, home) {
                    Some(next) => next,
                    None => {
                        table.refresh(w)?;
                        roots.guess(hash)
                    }
                };
            }
        }
    }
    Err(Error::corrupt(Damage::Level, roots.root()))
}

/// Makes a record that nobody refers to yet.
pub(super) fn make_record(w: &mut Writer, key: &[u8], value: &[u8], older: Offset) -> Result<Offset> {
    let shape = Shape::new(key.len() as u64, value.len() as u64);
    let at = match shape.holder().ok_or(Error::TooLarge("key and value"))? {
        Holder::Block(class) => alloc::take_block(w, class)?,
        Holder::Run(pages) => alloc::take_run(w, pages, Purpose::Record)?,
    };
    if !fill_record(w, at, shape, key, value, older) {
        return Err(Error::corrupt(Damage::Truncated, at));
    }
    if w.segment.has_checksums() {
        seal(w, at, shape);
    }
    Ok(at)
}

/// Gives a record that nobody refers to yet its checksum.
#[cold]
pub(super) fn seal(w: &Writer, at: Offset, shape: Shape) {
    let words = shape.total().unwrap_or(0) / 8;
    let sum = (1..words)
        .fold(0u64, |sum, n| sum.wrapping_add(record::checksum_part(n, w.segment.load(at.word(n)))));
    w.segment.store(at, record::with_checksum(w.segment.load(at), sum));
}

/// Plans a change of a word of a record, and of its checksum if it has one.
#[inline]
pub(super) fn put_in_record(w: &mut Writer, record: Offset, at: Offset, new: u64) {
    if w.segment.has_checksums() {
        let (n, first) = ((at.0 - record.0) / 8, w.word(record));
        let sum = record::checksum(first)
            .wrapping_sub(record::checksum_part(n, w.word(at)))
            .wrapping_add(record::checksum_part(n, new));
        w.put(record, record::with_checksum(first, sum));
    }
    w.put(at, new);
}

/// Fills a block that nobody refers to. False if it does not lie inside of the object.
#[inline(always)]
#[must_use]
pub(super) fn fill_record(
    w: &Writer,
    at: Offset,
    shape: Shape,
    key: &[u8],
    value: &[u8],
    older: Offset,
) -> bool {
    // Readers of what the block was before must see that it is gone before they see new bytes.
    w.segment.fence_release();
    let words = [shape.first_word(older), shape.lengths_word(), shape.key_len, shape.value_len];
    let header = &words[..shape.header_bytes() as usize / 8];
    w.segment.fill(at, header, key, value)
}

/// Plans to free a record.
pub(super) fn free_record(w: &mut Writer, record: Offset, shape: Shape) -> Result<()> {
    match shape.holder() {
        Some(Holder::Block(class)) => alloc::free_block(w, record, class),
        Some(Holder::Run(_)) => alloc::free_run(w, record),
        None => return Err(Error::corrupt(Damage::Record, record)),
    }
    Ok(())
}

/// Plans a change of the number of bindings.
pub(super) fn count(w: &mut Writer, table: &TableView, delta: i64) -> Result<()> {
    let line = counter_of(w, table)?.at;
    let now = w.word(line);
    w.put(line, now.wrapping_add_signed(delta));
    let root = table.roots.root();
    match w.s.net_added.iter_mut().find(|added| added.0 == root) {
        Some(added) => added.2 += delta,
        None => w.s.net_added.push((root, line, delta)),
    }
    Ok(())
}

/// This slot's counter, made if it is the first of its chunk.
#[inline(always)]
fn counter_of(w: &mut Writer, table: &TableView) -> Result<Counter> {
    match w.s.counter {
        Some(counter) if counter.root == table.roots.root() => Ok(counter),
        _ => find_counter(w, table),
    }
}

/// Where this slot's counter is, and the word there.
#[inline(always)]
pub(super) fn counter<'a>(w: &mut Writer<'a>, table: &TableView) -> Option<(Offset, Block<'a, 1>)> {
    // A look at what is there, without a copy of all of it.
    match &w.s.counter {
        Some(counter) if counter.root == table.roots.root() => {
            // SAFETY: the session's counters are of the segment that it writes to.
            Some((counter.at, unsafe { counter.word.block(w.segment) }))
        }
        _ => find_counter_apart(&mut w.reborrow(), table).map(|counter| {
            // SAFETY: as above.
            (counter.at, unsafe { counter.word.block(w.segment) })
        }),
    }
}

/// As `find_counter`, for callers that go another way if that fails.
#[cold]
#[inline(never)]
fn find_counter_apart(w: &mut Writer, table: &TableView) -> Option<Counter> {
    find_counter(w, table).ok()
}

#[cold]
#[inline(never)]
fn find_counter(w: &mut Writer, table: &TableView) -> Result<Counter> {
    let root = table.roots.root();
    let (chunk, distance) = root::counter_place(w.s.p.slot);
    let chunk_at = root.word(root::W_COUNTERS + chunk as u64);
    let base = Offset(w.segment.load_acquire(chunk_at));
    if base.is_none() {
        growth::make_counter_chunk(w, table, chunk)?;
        return find_counter(w, table);
    }
    let at = base.add(distance);
    let word = w.segment.pin(at).filter(|_| base.0 % crate::format::PAGE_BYTES == 0);
    let counter = Counter { root, at, word: word.ok_or(Error::corrupt(Damage::Root, chunk_at))? };
    w.s.counter = Some(counter);
    Ok(counter)
}

impl<'k> At<'k> {
    /// A key found by walking over the entries of a bucket, for whoever keeps all others out by the gate.
    pub(super) fn of_entry(
        w: &Writer,
        (index, bucket): (u64, Offset),
        entry: u64,
        shape: Shape,
        key: &'k [u8],
    ) -> Result<At<'k>> {
        let at = chain::for_each_line(w, bucket, |line, _| {
            Ok((0..bucket::ENTRIES).map(|i| line.word(bucket::W_ENTRY + i)).find(|at| w.word(*at) == entry))
        })?
        .ok_or(Error::corrupt(Damage::Bucket, bucket))?;
        // Level and hash serve those who add.
        let home = Home { bucket, index, level: 0, hash: 0 };
        Ok(At { home, key, hit: Some(Hit { at, entry, shape }) })
    }
}

impl At<'_> {
    /// The newest binding: its value's place.
    pub(crate) fn value(&self) -> Option<(Offset, u64)> {
        self.hit.map(|hit| (hit.record().add(hit.shape.value_at()), hit.shape.value_len))
    }

    /// Puts a new binding on top of the others.
    pub(crate) fn add(&self, w: &mut Writer, table: &TableView, value: &[u8]) -> Result<()> {
        let older = self.hit.map_or(Offset::NONE, |hit| hit.record());
        let record = make_record(w, self.key, value, older)?;
        self.bind(w, record)?;
        count(w, table, 1)?;
        if self.hit.is_none() {
            growth::split_if_behind(w, table, self.home)?;
        }
        Ok(())
    }

    /// Makes the key's entry point to a record.
    pub(super) fn bind(&self, w: &mut Writer, record: Offset) -> Result<()> {
        match self.hit {
            Some(hit) => {
                w.put(hit.at, entry_with(hit.entry, record));
                w.will_change(self.home.bucket);
                Ok(())
            }
            None => {
                let entry = bucket::entry(self.home.hash, self.home.level, record);
                chain::insert(w, self.home.bucket, entry, |w| alloc::take_block(w, LINE_CLASS))
            }
        }
    }

    /// Replaces the newest binding, or adds one.
    pub(crate) fn replace(&self, w: &mut Writer, table: &TableView, value: &[u8]) -> Result<()> {
        let Some(hit) = self.hit else { return self.add(w, table, value) };
        if self.overwrite_if_it_fits(w, value) {
            return Ok(());
        }
        let record = hit.record();
        let older = record::older(w.word(record));
        let new = make_record(w, self.key, value, older)?;
        self.rebind(w, table, new)
    }

    /// Makes a record that nobody refers to yet the newest binding, in place of the one that there is.
    pub(super) fn rebind(&self, w: &mut Writer, table: &TableView, record: Offset) -> Result<()> {
        self.bind(w, record)?;
        match self.hit {
            Some(hit) => free_record(w, hit.record(), hit.shape),
            None => {
                count(w, table, 1)?;
                growth::split_if_behind(w, table, self.home)
            }
        }
    }

    /// Does what an update has answered.
    pub(crate) fn answer<V: Deref<Target = [u8]>>(
        &self,
        w: &mut Writer,
        table: &TableView,
        answer: Update<V>,
    ) -> Result<()> {
        match answer {
            Update::Keep => Ok(()),
            Update::Replace(value) => self.replace(w, table, &value),
            Update::Remove => self.remove(w, table).map(|_| ()),
        }
    }

    /// Plans to change the newest value in place, if there is one of this length that is small.
    fn overwrite_if_it_fits(&self, w: &mut Writer, value: &[u8]) -> bool {
        let same =
            |hit: &Hit| hit.shape.value_len == value.len() as u64 && hit.shape.value_len <= IN_PLACE_BYTES;
        let Some(hit) = self.hit.filter(same) else { return false };
        self.overwrite(w, hit.record(), hit.shape, value);
        true
    }

    /// Plans to change a value in place, by words.
    pub(super) fn overwrite(&self, w: &mut Writer, record: Offset, shape: Shape, value: &[u8]) {
        let at = record.add(shape.value_at());
        if w.segment.has_checksums() {
            overwrite_in_record(w, record, at, value);
        } else {
            overwrite(w, at, value);
        }
        w.will_change(self.home.bucket);
    }

    /// Removes the newest binding, so that the one before it shows. Tells whether there was one.
    pub(crate) fn remove(&self, w: &mut Writer, table: &TableView) -> Result<bool> {
        let Some(hit) = self.hit else { return Ok(false) };
        let record = hit.record();
        let older = record::older(w.word(record));
        if older.is_none() {
            if let Some(line) = chain::remove(w, self.home.bucket, hit.at)? {
                alloc::free_block(w, line, LINE_CLASS);
            }
        } else {
            checked_shape(w.segment, older)?;
            w.put(hit.at, entry_with(hit.entry, older));
            w.will_change(self.home.bucket);
        }
        free_record(w, record, hit.shape)?;
        count(w, table, -1)?;
        Ok(true)
    }
}

/// The same in a record with a checksum.
#[cold]
fn overwrite_in_record(w: &mut Writer, record: Offset, at: Offset, value: &[u8]) {
    for (word, n) in text_words(value).zip(0..) {
        put_in_record(w, record, at.word(n), word);
    }
}

/// Plans to change a value by words, the last one padded with zeros.
#[inline(always)]
pub(super) fn overwrite(w: &mut Writer, at: Offset, value: &[u8]) {
    if let Ok(word) = value.try_into() {
        return w.put(at, u64::from_le_bytes(word));
    }
    w.put_run(
        at,
        value.chunks(8).map(|bytes| match bytes.try_into() {
            Ok(word) => u64::from_le_bytes(word),
            Err(_) => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }),
    );
}

/// Plans to free everything that hangs from a bucket and to leave it empty and, beyond array 0, unborn.
/// Its lock is held. Only for tables that nobody can reach any more.
pub(super) fn clear_bucket(w: &mut Writer, bucket: Offset) -> Result<u64> {
    let mut bindings = 0;
    for entry in chain::entries(w, bucket)? {
        let mut records = Vec::new();
        chain::for_each_binding(w, bucket::entry_record(entry), |record, shape| {
            records.push((record, shape));
            Ok(None::<()>)
        })?;
        bindings += records.len() as u64;
        for (record, shape) in records {
            free_record(w, record, shape)?;
        }
    }
    let mut lines = Vec::new();
    chain::for_each_line(w, bucket, |line, _| {
        if line != bucket {
            lines.push(line);
        }
        Ok(None::<()>)
    })?;
    for line in lines {
        alloc::free_block(w, line, LINE_CLASS);
    }
    for i in 1..8 {
        if w.word(bucket.word(i)) != 0 {
            w.put(bucket.word(i), 0);
        }
    }
    w.will_change(bucket);
    Ok(bindings)
}

/// The value at a place, copied. Words planned by this transaction shine through.
pub(crate) fn read_value(w: &Writer, at: Offset, len: u64, into: &mut [u8]) {
    assert!(into.len() as u64 == len);
    // SAFETY: the slice has `len` bytes.
    unsafe { read_value_raw(w, at, len, into.as_mut_ptr()) };
}

/// The same for memory that may be uninitialised.
///
/// # Safety
/// `into` must be valid for writing `len` bytes.
#[inline(always)]
pub(crate) unsafe fn read_value_raw(w: &Writer, at: Offset, len: u64, into: *mut u8) {
    // SAFETY: the record was checked to lie inside of the object, and the buffer has `len` bytes.
    unsafe {
        w.segment.copy_out(at, into, len as usize);
        put_plans_over(w, at, len, into);
    }
}

/// Puts what this transaction plans for a value over its bytes, if it is any.
///
/// # Safety
/// As for [`read_value_raw`].
#[inline(always)]
pub(super) unsafe fn put_plans_over(w: &Writer, at: Offset, len: u64, into: *mut u8) {
    if len <= IN_PLACE_BYTES && !w.s.has_no_plan() && w.s.may_have_plans_for(at, len) {
        // SAFETY: the caller's promise.
        unsafe { put_planned_words(w, at, len, into) };
    }
}

/// Puts what is planned for a value over its bytes.
///
/// # Safety
/// As for [`read_value_raw`].
#[inline(never)]
unsafe fn put_planned_words(w: &Writer, at: Offset, len: u64, into: *mut u8) {
    for (n, from) in (0..len).step_by(8).enumerate() {
        if let Some(word) = w.s.planned_word(at.word(n as u64)) {
            let bytes = word.to_le_bytes();
            let wanted = bytes.len().min((len - from) as usize);
            // SAFETY: these are bytes `from` and following of the buffer, which has `len`.
            unsafe { into.add(from as usize).copy_from_nonoverlapping(bytes.as_ptr(), wanted) };
        }
    }
}

/// The number of bindings of the table; the gate is held.
pub(crate) fn length_under_gate(w: &Writer, table: &TableView) -> Result<u64> {
    let root = table.roots.root();
    let mut sum = 0u64;
    for chunk in 0..root::COUNTER_CHUNKS {
        let base = Offset(w.segment.load_acquire(root.word(root::W_COUNTERS + chunk as u64)));
        if base.is_none() {
            continue;
        }
        for i in 0..root::counter_chunk_lines(chunk) {
            sum = sum.wrapping_add(w.word(root::counter_line(base, i)));
        }
    }
    if (sum as i64) < 0 {
        return Err(Error::corrupt(Damage::Count, header::MAIN_ROOT));
    }
    Ok(sum)
}
