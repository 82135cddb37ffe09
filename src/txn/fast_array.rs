//! The short way of reading or changing one element of at most 8 bytes in a chunk that exists.
//!
//! As in [`super::fast`]: everything is read first, and either nothing is stored and the bucket's version
//! proves what was read, or the compare-and-swap that takes the bucket's lock does. What does not fit goes the
//! general way; `None` means that nothing has happened.

use super::fast::{LOG, conclude, lock};
use super::{TableView, array};
use crate::format::array::{Geometry, MAX_LENGTH, W_DEFAULT};
use crate::format::lock_word::WRITING;
use crate::format::root::W_LENGTH;
use crate::format::{log_record, slot};
use crate::index::find::{self, Sight};
use crate::index::hints::{Hints, SeenChunk};
use crate::segment::Segment;
use crate::segment::view::View;
use crate::writer::Writer;

/// What the short way needs to know of an array.
#[derive(Clone, Copy)]
pub(crate) struct ArrayView<'a> {
    pub(crate) table: &'a TableView,
    pub(crate) hints: &'a Hints,
    pub(crate) g: &'a Geometry,
}

/// The bits of an element that is set, in a chunk for which there is a hint.
#[inline(always)]
pub(crate) fn get(segment: &Segment, a: ArrayView, index: u64) -> Option<u64> {
    let place = a.g.place(index);
    let chunk = a.hints.lookup(segment, &a.table.roots, place.chunk, a.g.value_bytes / 8)?;
    let (word, bit) = a.g.presence(place.position);
    if index >= chunk.length || chunk.value.load(word)? & bit == 0 {
        return None;
    }
    let bits = a.g.element_in(chunk.value.load(a.g.element_word(place.position))?, place.position);
    chunk.sight().is_valid(&a.table.roots).then_some(bits)
}

/// The bits of any element.
pub(crate) fn get_by_hash(segment: &Segment, a: ArrayView, index: u64) -> Option<u64> {
    let place = a.g.place(index);
    let key = place.chunk.to_le_bytes();
    let sight = find::quick_lookup(segment, &a.table.roots, a.table.key_hash.hash(&key), &key)?;
    let mut bits = root_word(sight.view, a.table, W_DEFAULT)?;
    if sight.found.is_some() {
        let chunk = chunk_of(a, &sight, place.chunk)?;
        let (word, bit) = a.g.presence(place.position);
        if chunk.value.load(word)? & bit != 0 {
            bits = a.g.element_in(chunk.value.load(a.g.element_word(place.position))?, place.position);
        }
    }
    let is_inside = index < length(sight.view, a.table)?;
    (is_inside && sight.is_valid(&a.table.roots)).then_some(bits)
}

/// The chunk that was found, with a hint for the next time.
fn chunk_of<'a>(a: ArrayView, sight: &Sight<'a>, number: u64) -> Option<SeenChunk<'a>> {
    let found = sight.found?;
    let value_at = array::value_of_chunk(a.g, found.record, found.shape).ok()?;
    let value = sight.view.span(value_at, a.g.value_bytes / 8)?;
    let length = length(sight.view, a.table)?;
    let chunk =
        SeenChunk { view: sight.view, bucket: sight.bucket, seen: sight.seen, value_at, value, length };
    a.hints.remember(number, found.record, &chunk);
    Some(chunk)
}

/// The array's length. The root is read after the version of the roots: if that is still the gate's at the end, they
/// belong together.
fn length(view: View<'_>, table: &TableView) -> Option<u64> {
    Some(root_word(view, table, W_LENGTH)?.min(MAX_LENGTH))
}

fn root_word(view: View<'_>, table: &TableView, n: u64) -> Option<u64> {
    Some(view.block::<8>(table.roots.root())?.load(n as usize))
}

/// Gives an element that is set, in a chunk for which there is a hint, the bits that `new` makes of the present ones,
/// and gives them back.
///
/// It hands nothing on to functions that are not part of it, so that all that it knows stays in registers.
#[inline(always)]
pub(crate) fn update(
    w: &mut Writer,
    a: ArrayView,
    index: u64,
    new: impl FnOnce(u64) -> Option<u64>,
) -> Option<u64> {
    let place = a.g.place(index);
    let chunk = a.hints.lookup(w.segment, &a.table.roots, place.chunk, a.g.value_bytes / 8)?;
    let (word, bit) = a.g.presence(place.position);
    if index >= chunk.length || chunk.value.load(word)? & bit == 0 {
        return None;
    }
    let at = a.g.element_word(place.position);
    let before = chunk.value.load(at)?;
    let bits = new(a.g.element_in(before, place.position))?;
    write(w, &chunk, [(at, a.g.with_element(before, place.position, bits))]).then_some(bits)
}

/// The same for any element whose chunk exists.
pub(crate) fn update_by_hash(
    w: &mut Writer,
    a: ArrayView,
    index: u64,
    new: impl FnOnce(u64) -> Option<u64>,
) -> Option<u64> {
    let place = a.g.place(index);
    let key = place.chunk.to_le_bytes();
    let sight = find::quick_lookup(w.segment, &a.table.roots, a.table.key_hash.hash(&key), &key)?;
    let chunk = chunk_of(a, &sight, place.chunk)?;
    if index >= chunk.length {
        return None;
    }
    let (word, bit) = a.g.presence(place.position);
    let at = a.g.element_word(place.position);
    let (before, presence) = (chunk.value.load(at)?, chunk.value.load(word)?);
    if presence & bit != 0 {
        let bits = new(a.g.element_in(before, place.position))?;
        return write(w, &chunk, [(at, a.g.with_element(before, place.position, bits))]).then_some(bits);
    }
    let bits = new(root_word(sight.view, a.table, W_DEFAULT)?)?;
    let element = (at, a.g.with_element(before, place.position, bits));
    write(w, &chunk, [element, (word, presence | bit)]).then_some(bits)
}

/// Logs and makes some changes of words of the chunk, which it has, if the bucket is as it was seen.
#[inline(always)]
fn write<const N: usize>(w: &mut Writer, chunk: &SeenChunk, changes: [(u64, u64); N]) -> bool {
    let Some(slot) = chunk.view.block(w.s.p.base) else { return false };
    for (i, (at, value)) in changes.iter().enumerate() {
        slot.store(LOG + 2 * i, log_record::run_header(chunk.value_at.word(*at), 1));
        slot.store(LOG + 2 * i + 1, *value);
    }
    let sight = chunk.sight();
    let Some(mine) = lock(w, slot, &sight, WRITING) else { return false };
    slot.store(slot::W_COMMIT as usize, slot::commit_word(slot::COMMITTED, 2 * N as u64));
    w.segment.fence_release();
    for (at, value) in changes {
        chunk.value.store(at, value);
    }
    conclude(w, slot, &sight, mine);
    true
}
