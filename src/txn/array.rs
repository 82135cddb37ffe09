//! Operations of an array as parts of a transaction, and the reading of its chunks.
//!
//! Owns what elements in chunks, elements in records, length and default value mean. Chunks and records are
//! bindings of the same index as a hash table's; an element's lock is that of the bucket of its key, which
//! covers absent keys as well. The length is covered by the gate.

use super::chunk::{self, NewChunk, Rest};
use super::{TableView, growth, ops};
use crate::alloc;
use crate::error::{Damage, Error, Result};
use crate::format::array::{self, Geometry, KEY_BYTES, Layout, Place};
use crate::format::bucket::{LINE_BYTES, entry_record};
use crate::format::catalog::text_words;
use crate::format::record::{self, IN_PLACE_BYTES, Shape};
use crate::format::root::W_LENGTH;
use crate::format::{Offset, PAGE_BYTES, header};
use crate::index::ahead;
use crate::index::chain::{self, Hit};
use crate::index::find::{Found, checked_shape};
use crate::lock::Rank;
use crate::segment::Segment;
use crate::segment::copy::Caching;
use crate::writer::{Words, Writer};
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// Most chunks that a shrinking array looks up one by one; beyond, it walks over all buckets.
const LOOKED_UP: u64 = 64;

/// A range of elements in one chunk, as a part of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) chunk: u64,
    /// Position of the first element in the chunk.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Which element of the slice that is.
    pub(crate) at: u64,
}

impl Part {
    /// Where its elements lie in the buffer of the slice.
    pub(crate) fn bytes(&self, g: &Geometry) -> (usize, usize) {
        ((self.at * g.element_bytes) as usize, ((self.at + self.count) * g.element_bytes) as usize)
    }
}

/// The parts of a slice, which lies below `MAX_LENGTH`.
pub(crate) fn parts(g: &Geometry, first: u64, count: u64) -> impl Iterator<Item = Part> + Clone + use<> {
    let g = *g;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == count {
            return None;
        }
        let Place { chunk, position } = g.place(first + done);
        let part =
            Part { chunk, first: position, count: (g.per_chunk - position).min(count - done), at: done };
        done += part.count;
        Some(part)
    })
}

/// The parts of a slice in the order in which their locks are taken: that of the buckets where they probably
/// are at home, so that slices which meet seldom wait for each other in a circle.
pub(crate) fn parts_in_lock_order(table: &TableView, g: &Geometry, first: u64, count: u64) -> Vec<Part> {
    let mut all: Vec<Part> = parts(g, first, count).collect();
    if all.len() > 1 {
        let home = |part: &Part| table.roots.guess(table.key_hash.hash(&part.chunk.to_le_bytes()));
        all.sort_by_cached_key(home);
    }
    all
}

/// So many chunks ahead of a lookup the buckets of others are asked for, and so many ahead their records: what a bucket
/// holds has to be there by the time when it says which record to ask for.
const BUCKETS_AHEAD: u64 = 8;
const RECORDS_AHEAD: u64 = 4;

/// Asks for what later steps through a slice will read, so that the waits for memory overlap with them. `last` is the
/// slice's last chunk. Short slices are left alone: they are in the caches.
#[inline(always)]
pub(crate) fn look_ahead(segment: &Segment, table: &TableView, g: &Geometry, chunk: u64, last: u64) {
    let roots = &table.roots;
    let hash = |chunk: u64| table.key_hash.hash(&chunk.to_le_bytes());
    if chunk + BUCKETS_AHEAD <= last {
        ahead::ask_for_bucket(segment, roots, hash(chunk + BUCKETS_AHEAD));
    }
    if chunk + RECORDS_AHEAD <= last {
        let before_elements = record::SHORT_HEADER_BYTES + KEY_BYTES + 8 * g.bitmap_words;
        let lines = before_elements / LINE_BYTES + 1;
        ahead::ask_for_record(segment, roots, hash(chunk + RECORDS_AHEAD), lines);
    }
}

/// The array's length.
#[inline(always)]
pub(crate) fn length<W: Words>(words: &W, table: &TableView) -> u64 {
    words.word(table.roots.root().word(W_LENGTH))
}

/// Are these elements inside of the array?
pub(crate) fn check_range<W: Words>(words: &W, table: &TableView, first: u64, count: u64) -> Result<()> {
    let length = length(words, table);
    if length > array::MAX_LENGTH {
        return Err(Error::corrupt(Damage::Root, table.roots.root().word(W_LENGTH)));
    }
    match first.checked_add(count) {
        Some(end) if end <= length => Ok(()),
        _ => Err(Error::Range),
    }
}

/// The encoding of a default value; that of a number takes no memory from the heap.
pub(crate) type DefaultValue = SmallVec<[u8; 8]>;

/// The array's default value.
pub(crate) fn default_value<W: Words>(words: &W, table: &TableView, layout: &Layout) -> Result<DefaultValue> {
    let root = table.roots.root();
    let word = words.word(root.word(array::W_DEFAULT));
    if let Layout::Chunks(g) = layout {
        if layout.has_short_default() {
            return Ok(DefaultValue::from_slice(&word.to_le_bytes()[..g.element_bytes as usize]));
        }
    }
    let fits = match layout {
        Layout::Chunks(g) => word == g.element_bytes,
        Layout::Records => word <= array::MAX_DEFAULT_BYTES,
    };
    if !fits {
        return Err(Error::corrupt(Damage::Root, root.word(array::W_DEFAULT)));
    }
    let words = (0..word.div_ceil(8)).map(|n| words.word(root.word(array::W_LONG_DEFAULT + n)).to_le_bytes());
    let mut bytes: DefaultValue = words.flatten().collect();
    bytes.truncate(word as usize);
    Ok(bytes)
}

/// How a default value lies in the root: the word `W_DEFAULT`, then those from `W_LONG_DEFAULT` on.
pub(crate) fn default_words(layout: &Layout, default: &[u8]) -> Result<Vec<u64>> {
    if default.len() as u64 > array::MAX_DEFAULT_BYTES {
        return Err(Error::TooLarge("the default value of an array"));
    }
    let words = text_words(default);
    Ok(if layout.has_short_default() {
        words.collect()
    } else {
        std::iter::once(default.len() as u64).chain(words).collect()
    })
}

/// Where the value of a chunk lies.
pub(crate) fn value_of_chunk(g: &Geometry, record: Offset, shape: Shape) -> Result<Offset> {
    if shape.value_len != g.value_bytes {
        return Err(Error::corrupt(Damage::Record, record));
    }
    Ok(record.add(shape.value_at()))
}

/// The same for what a find has found.
pub(crate) fn value_found(g: &Geometry, found: Option<Found>) -> Result<Option<Offset>> {
    found.map(|f| value_of_chunk(g, f.record, f.shape)).transpose()
}

/// The same for a key whose bucket is locked.
pub(crate) fn value_at(g: &Geometry, hit: Option<Hit>) -> Result<Option<Offset>> {
    hit.map(|hit| value_of_chunk(g, hit.record(), hit.shape)).transpose()
}

/// Copies an element of a chunk, if it is set.
pub(crate) fn read_element<W: Words>(
    words: &W,
    g: &Geometry,
    value: Offset,
    position: u64,
    into: &mut [u8],
) -> bool {
    let (word, bit) = g.presence(position);
    if words.word(value.word(word)) & bit == 0 {
        return false;
    }
    let (at, shift) = (g.element_word(position), g.element_shift(position));
    for (n, bytes) in into.chunks_mut(8).enumerate() {
        let word = words.word(value.word(at + n as u64)) >> shift;
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
    true
}

/// The record of a chunk whose value lies there.
fn record_of_chunk(value: Offset) -> Offset {
    Offset(value.0 - (record::SHORT_HEADER_BYTES + KEY_BYTES))
}

/// Plans to change an element of a chunk.
fn put_element(w: &mut Writer, g: &Geometry, value: Offset, position: u64, bytes: &[u8]) {
    let record = record_of_chunk(value);
    let (at, shift) = (g.element_word(position), g.element_shift(position));
    for (n, bytes) in bytes.chunks(8).enumerate() {
        let place = value.word(at + n as u64);
        let mut new = [0; 8];
        new[..bytes.len()].copy_from_slice(bytes);
        let mut new = u64::from_le_bytes(new) << shift;
        if g.stride < 8 {
            new |= w.word(place) & !(g.element_mask() << shift);
        }
        ops::put_in_record(w, record, place, new);
    }
    let (word, bit) = g.presence(position);
    let place = value.word(word);
    let bits = w.word(place);
    if bits & bit == 0 {
        ops::put_in_record(w, record, place, bits | bit);
    }
}

/// Changes an element of a chunk in a private copy of the chunk's value.
fn set_in_copy(g: &Geometry, copy: &mut [u8], position: u64, bytes: &[u8]) {
    let at = (8 * g.bitmap_words + position * g.stride) as usize;
    copy[at..at + bytes.len()].copy_from_slice(bytes);
    copy[position as usize / 8] |= 1 << (position % 8);
}

/// Gives an element the value that `new` makes of the present one.
pub(crate) fn update(
    w: &mut Writer,
    table: &TableView,
    g: &Geometry,
    index: u64,
    new: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<()> {
    let Place { chunk, position } = g.place(index);
    let key = chunk.to_le_bytes();
    let at = ops::at(w, table, &key)?;
    check_range(w, table, index, 1)?;
    let value = value_at(g, at.hit)?;
    let mut old = vec![0; g.element_bytes as usize];
    if !value.is_some_and(|value| read_element(w, g, value, position, &mut old)) {
        old = default_value(w, table, &Layout::Chunks(*g))?.into_vec();
    }
    let new = new(&old)?;
    match value {
        Some(value) => {
            put_element(w, g, value, position, &new);
            w.will_change(at.home.bucket);
            Ok(())
        }
        None => {
            let mut copy = vec![0; g.value_bytes as usize];
            set_in_copy(g, &mut copy, position, &new);
            at.add(w, table, &copy)
        }
    }
}

/// Gives an element in a record of its own a value.
pub(crate) fn set_record(w: &mut Writer, table: &TableView, index: u64, value: &[u8]) -> Result<()> {
    let key = index.to_le_bytes();
    let at = ops::at(w, table, &key)?;
    check_range(w, table, index, 1)?;
    at.replace(w, table, value)
}

/// Copies some elements of a chunk. Nothing is planned for the words of the chunk.
///
/// Whoever holds no lock has to validate afterwards that nothing has changed.
pub(crate) fn copy_part(
    segment: &Segment,
    g: &Geometry,
    value: Option<Offset>,
    part: Part,
    default: &[u8],
    into: &mut [MaybeUninit<u8>],
) {
    let Some(value) = value else { return fill_with(default, into) };
    let mut position = part.first;
    let mut rest = &mut into[..];
    if g.stride == g.element_bytes && g.element_shift(position) != 0 {
        // Copying begins at a whole word.
        let (one, others) = rest.split_at_mut(g.element_bytes as usize);
        copy_one(segment, g, value, position, one);
        position += 1;
        rest = others;
    }
    if g.stride == g.element_bytes {
        // SAFETY: the chunk was found to lie inside of the object, with all elements of the part in it, and
        // `rest` has their length.
        unsafe {
            let at = value.word(g.element_word(position));
            segment.copy_out_by_lines(at, rest.as_mut_ptr().cast(), rest.len());
        }
    } else {
        for one in rest.chunks_mut(g.element_bytes as usize) {
            copy_one(segment, g, value, position, one);
            position += 1;
        }
    }
    match segment.view().span(value, g.bitmap_words) {
        Some(bitmap) => replace_absent(|n| bitmap.load(n).unwrap_or(0), g, part, default, into),
        None => replace_absent(|n| segment.load(value.word(n)), g, part, default, into),
    }
}

/// The same with the plans of this transaction.
pub(crate) fn copy_planned_part(
    w: &mut Writer,
    g: &Geometry,
    value: Option<Offset>,
    part: Part,
    default: &[u8],
    into: &mut [MaybeUninit<u8>],
) {
    let Some(chunk) = value.filter(|_| !w.s.set().is_empty()) else {
        return copy_part(w.segment, g, value, part, default, into);
    };
    for (n, one) in into.chunks_mut(g.element_bytes as usize).enumerate() {
        copy_one(w, g, chunk, part.first + n as u64, one);
    }
    replace_absent(|n| w.word(chunk.word(n)), g, part, default, into);
}

/// Copies an element, set or not.
fn copy_one<W: Words>(words: &W, g: &Geometry, value: Offset, position: u64, into: &mut [MaybeUninit<u8>]) {
    let (at, shift) = (g.element_word(position), g.element_shift(position));
    for (n, bytes) in into.chunks_mut(8).enumerate() {
        let word = (words.word(value.word(at + n as u64)) >> shift).to_le_bytes();
        for (to, byte) in bytes.iter_mut().zip(word) {
            to.write(byte);
        }
    }
}

/// Puts the default value where elements are not set, as the words of the bitmap say.
#[inline(always)]
fn replace_absent(
    word: impl Fn(u64) -> u64,
    g: &Geometry,
    part: Part,
    default: &[u8],
    into: &mut [MaybeUninit<u8>],
) {
    for n in part.first / 64..(part.first + part.count).div_ceil(64) {
        let mut absent = !word(n) & chunk::bits_of(&part, n);
        while absent != 0 {
            let position = 64 * n + absent.trailing_zeros() as u64;
            absent &= absent - 1;
            let at = ((position - part.first) * g.element_bytes) as usize;
            fill_with(default, &mut into[at..at + default.len()]);
        }
    }
}

/// Fills memory with copies of a value.
fn fill_with(value: &[u8], into: &mut [MaybeUninit<u8>]) {
    for one in into.chunks_mut(value.len().max(1)) {
        for (to, byte) in one.iter_mut().zip(value) {
            to.write(*byte);
        }
    }
}

/// All words of a chunk's value.
pub(crate) fn chunk_words<W: Words>(words: &W, g: &Geometry, value: Offset) -> Vec<u64> {
    (0..g.value_bytes / 8).map(|n| words.word(value.word(n))).collect()
}

/// Sets the elements of a part; `bytes` are theirs. The range has been checked, or is checked by the caller
/// before the transaction is committed.
pub(crate) fn write_part(
    w: &mut Writer,
    table: &TableView,
    g: &Geometry,
    part: Part,
    bytes: &[u8],
    caching: Caching,
) -> Result<()> {
    let key = part.chunk.to_le_bytes();
    let before = growth::added(w, table);
    let at = ops::at(w, table, &key)?;
    let value = value_at(g, at.hit)?;
    if let Some(value) = value.filter(|_| part.count * g.stride <= IN_PLACE_BYTES) {
        for (element, position) in bytes.chunks(g.element_bytes as usize).zip(part.first..) {
            put_element(w, g, value, position, element);
        }
        w.will_change(at.home.bucket);
        return Ok(());
    }
    let older = at.hit.map_or(Offset::NONE, |hit| record::older(w.word(hit.record())));
    let block = alloc::take_block(w, chunk::class_of(g)?)?;
    let elements = chunk::at_stride(g, bytes);
    let rest = value.map_or(Rest::Unset, Rest::Of);
    NewChunk { g, part: &part, rest, older, elements: &elements, caching }.fill(w, block)?;
    if w.segment.has_checksums() {
        ops::seal(w, block, Shape::new(KEY_BYTES, g.value_bytes));
    }
    at.rebind(w, table, block)?;
    growth::permit_for_group(w, table, before)
}

/// Changes the length. New elements show the default value; those cut off are gone.
pub(crate) fn resize(w: &mut Writer, table: &TableView, layout: &Layout, length: u64) -> Result<()> {
    super::reserve_lock(w)?;
    w.lock_gate()?;
    table.refresh(w)?;
    check_range(w, table, 0, 0)?;
    let before = self::length(w, table);
    if length < before {
        cut(w, table, layout, length, before)?;
    }
    if length != before {
        w.put(table.roots.root().word(W_LENGTH), length);
        w.will_change(header::GATE);
    }
    Ok(())
}

/// Removes the elements from `length` on. The gate is held.
fn cut(w: &mut Writer, table: &TableView, layout: &Layout, length: u64, before: u64) -> Result<()> {
    let key_of = |index: u64| match layout {
        Layout::Chunks(g) => g.place(index).chunk,
        Layout::Records => index,
    };
    let (first, last) = (key_of(length), key_of(before - 1));
    if last - first < LOOKED_UP {
        for number in first..=last {
            let key = number.to_le_bytes();
            let at = ops::at(w, table, &key)?;
            cut_binding(w, table, layout, length, &at)?;
        }
        return Ok(());
    }
    for index in 0..table.roots.ready() {
        let Some(bucket) = table.roots.bucket(index) else { break };
        for entry in chain::entries(w, bucket)? {
            let record = entry_record(entry);
            let shape = checked_shape(w.segment, record)?;
            if shape.key_len != KEY_BYTES {
                return Err(Error::corrupt(Damage::Record, record));
            }
            let key = w.segment.load(record.add(shape.header_bytes()));
            if key < first {
                continue;
            }
            // The gate alone would do, but for the later operations of a group, which read the buckets that it has
            // not locked straight from memory.
            if !w.holds(bucket) {
                super::reserve_lock(w)?;
                w.lock(bucket, Rank::Ordinary)?;
            }
            let bytes = key.to_le_bytes();
            let at = ops::At::of_entry(w, (index, bucket), entry, shape, &bytes)?;
            cut_binding(w, table, layout, length, &at)?;
        }
    }
    Ok(())
}

/// Removes those elements of a chunk or record that lie from `length` on.
fn cut_binding(w: &mut Writer, table: &TableView, layout: &Layout, length: u64, at: &ops::At) -> Result<()> {
    let Some(hit) = at.hit else { return Ok(()) };
    let mut number = [0; KEY_BYTES as usize];
    number.copy_from_slice(at.key);
    let number = u64::from_le_bytes(number);
    let kept = match layout {
        Layout::Chunks(g) => length.saturating_sub(number.saturating_mul(g.per_chunk)),
        Layout::Records => (number < length) as u64,
    };
    let Layout::Chunks(g) = layout else {
        return if kept == 0 { at.remove(w, table).map(|_| ()) } else { Ok(()) };
    };
    if kept == 0 {
        return at.remove(w, table).map(|_| ());
    }
    let value = value_of_chunk(g, hit.record(), hit.shape)?;
    w.will_change(at.home.bucket);
    for n in kept / 64..g.bitmap_words {
        let keep = if n == kept / 64 { (1u64 << (kept % 64)) - 1 } else { 0 };
        let bits = w.word(value.word(n));
        if bits & !keep != 0 {
            ops::put_in_record(w, hit.record(), value.word(n), bits & keep);
        }
    }
    Ok(())
}

const _: () = assert!(array::W_LONG_DEFAULT + array::MAX_DEFAULT_BYTES / 8 <= PAGE_BYTES / 8);
