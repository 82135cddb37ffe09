//! The short way of reading or changing one element of at most 8 bytes in a chunk that exists.
//!
//! As in [`super::fast`]: everything is read first, and either nothing is stored and the bucket's version
//! proves what was read, or the compare-and-swap that takes the bucket's lock does. What does not fit goes the
//! general way; `None` means that nothing has happened.

use super::{TableView, fast};
use crate::format::Offset;
use crate::format::array::{Geometry, MAX_LENGTH, W_DEFAULT};
use crate::format::root::W_LENGTH;
use crate::index::find::{self, Sight};
use crate::index::hints::Hints;
use crate::segment::Segment;
use crate::writer::Writer;

/// An element, as the short way sees it.
struct Element<'a> {
    sight: Sight<'a>,
    /// The element's bits; those of the default value if it is not set.
    now: u64,
    /// Where it lies, if its chunk exists.
    place: Option<Cell>,
}

/// Where an element lies.
struct Cell {
    /// The word that holds it, that word's value, and how far the element is shifted in it.
    at: Offset,
    word: u64,
    shift: u32,
    /// The word of the bitmap, its value, and the element's bit.
    presence_at: Offset,
    presence: u64,
    bit: u64,
}

/// Looks for an element.
#[inline(always)]
fn look<'a>(
    segment: &'a Segment,
    table: &TableView,
    hints: &Hints,
    g: &Geometry,
    index: u64,
) -> Option<Element<'a>> {
    let place = g.place(index);
    let sight = match hints.lookup(segment, &table.roots, place.chunk, g.value_bytes) {
        Some(sight) => sight,
        None => look_by_hash(segment, table, hints, place.chunk)?,
    };
    // The root is read after the version of the roots: if that is still the gate's at the end, they belong together.
    let root = sight.view.block::<8>(table.roots.root())?;
    if index >= root.load(W_LENGTH as usize).min(MAX_LENGTH) {
        return None;
    }
    let Some(found) = sight.found else {
        return Some(Element { sight, now: root.load(W_DEFAULT as usize), place: None });
    };
    if found.shape.value_len != g.value_bytes {
        return None;
    }
    let (word, bit) = g.presence(place.position);
    let presence_at = found.value_at.word(word);
    let presence = sight.view.block::<1>(presence_at)?.load(0);
    let at = found.value_at.word(g.element_word(place.position));
    let word = sight.view.block::<1>(at)?.load(0);
    let shift = g.element_shift(place.position);
    let now =
        if presence & bit == 0 { root.load(W_DEFAULT as usize) } else { word >> shift & g.element_mask() };
    Some(Element { sight, now, place: Some(Cell { at, word, shift, presence_at, presence, bit }) })
}

/// Looks for a chunk without a hint, and makes one.
#[inline(never)]
fn look_by_hash<'a>(segment: &'a Segment, table: &TableView, hints: &Hints, chunk: u64) -> Option<Sight<'a>> {
    let key = chunk.to_le_bytes();
    let sight = find::quick_lookup(segment, &table.roots, table.key_hash.hash(&key), &key)?;
    if sight.found.is_some() {
        hints.remember(chunk, &sight);
    }
    Some(sight)
}

/// The bits of an element.
#[inline(always)]
pub(crate) fn get(
    segment: &Segment,
    table: &TableView,
    hints: &Hints,
    g: &Geometry,
    index: u64,
) -> Option<u64> {
    let element = look(segment, table, hints, g, index)?;
    element.sight.is_valid(&table.roots).then_some(element.now)
}

/// Gives an element the bits that `new` makes of the present ones, and gives them back.
#[inline(always)]
pub(crate) fn update(
    w: &mut Writer,
    table: &TableView,
    hints: &Hints,
    g: &Geometry,
    index: u64,
    new: impl FnOnce(u64) -> Option<u64>,
) -> Option<u64> {
    let element = look(w.segment, table, hints, g, index)?;
    let cell = element.place?;
    let new = new(element.now)?;
    let word = (cell.word & !(g.element_mask() << cell.shift)) | new << cell.shift;
    let done = if cell.presence & cell.bit != 0 {
        fast::write(w, &element.sight, &[(cell.at, word)])
    } else {
        fast::write(w, &element.sight, &[(cell.at, word), (cell.presence_at, cell.presence | cell.bit)])
    };
    done.then_some(new)
}
