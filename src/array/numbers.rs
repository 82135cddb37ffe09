//! Elements that are integers, or as small: read, set and counted by the short ways.
//!
//! Owns what the bits of an integer mean, and which short way is tried. Elements of other types are copied as bytes
//! by the array itself.

use super::{Array, Element};
use crate::error::{Error, Result};
use crate::format::array::{Geometry, Layout};
use crate::hashtbl::Quick;
use crate::txn::fast_array::{self, ArrayView};
use crate::txn::{TableView, array};

/// Integers that can be read, written and counted as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Int32,
    Int64,
    Uint64,
}

impl Number {
    #[inline(always)]
    fn decode(self, bits: u64) -> Option<i64> {
        match self {
            Number::Int32 => Some(bits as u32 as i32 as i64),
            Number::Int64 => Some(bits as i64),
            Number::Uint64 => i64::try_from(bits).ok(),
        }
    }

    #[inline(always)]
    fn encode(self, value: i64) -> Option<u64> {
        match self {
            Number::Int32 => i32::try_from(value).ok().map(|value| value as u32 as u64),
            Number::Int64 => Some(value as u64),
            Number::Uint64 => u64::try_from(value).ok(),
        }
    }

    #[inline(always)]
    fn add(self, bits: u64, delta: i64) -> Option<u64> {
        self.encode(self.decode(bits)?.checked_add(delta)?)
    }
}

impl Element {
    pub(super) fn number(&self) -> Option<Number> {
        match self.signature.as_str() {
            "int32" => Some(Number::Int32),
            "int" | "int64" | "nativeint" => Some(Number::Int64),
            "uint" => Some(Number::Uint64),
            _ => None,
        }
    }
}

impl Array {
    /// Gives an element of at most 8 bytes the bits that `new` makes of the present ones; `None` is an overflow.
    #[inline(always)]
    fn update_bits(&self, g: &Geometry, index: u64, new: impl Fn(u64) -> Option<u64>) -> Result<u64> {
        let quick =
            self.cells.change_quickly(|w, table| fast_array::update(w, self.in_short(table, g), index, &new));
        match quick {
            Quick::Done(bits) => Ok(bits),
            Quick::DoneWithChores(bits) => {
                self.do_chores();
                Ok(bits)
            }
            Quick::NotDone => self.update_bits_by_hash(g, index, new),
        }
    }

    /// The same for other elements than those of `fast_array::update`.
    #[inline(never)]
    fn update_bits_by_hash(&self, g: &Geometry, index: u64, new: impl Fn(u64) -> Option<u64>) -> Result<u64> {
        self.key_of(index)?;
        self.cells.change(
            |w, table| fast_array::update_by_hash(w, self.in_short(table, g), index, &new),
            |w, table| {
                let mut made = 0;
                array::update(w, table, g, index, |old| {
                    let mut bits = [0; 8];
                    bits[..old.len()].copy_from_slice(old);
                    made = new(u64::from_le_bytes(bits)).ok_or(Error::Overflow)?;
                    Ok(made.to_le_bytes()[..old.len()].to_vec())
                })?;
                Ok(made)
            },
        )
    }

    #[inline(always)]
    pub(super) fn set_bits(&self, g: &Geometry, index: u64, bits: u64) -> Result<()> {
        self.update_bits(g, index, |_| Some(bits)).map(|_| ())
    }

    /// What the short ways need.
    #[inline(always)]
    fn in_short<'a>(&'a self, table: &'a TableView, g: &'a Geometry) -> ArrayView<'a> {
        ArrayView { table, hints: &self.hints, g }
    }

    /// The kind of integers, and where they lie.
    #[inline(always)]
    fn numbers(&self) -> Result<(Number, &Geometry)> {
        match (self.number, &self.layout) {
            (Some(number), Layout::Chunks(g)) => Ok((number, g)),
            _ => Err(self.wrong_type("an integer")),
        }
    }

    /// An element of an array of integers.
    ///
    /// # Errors
    /// [`Error::Type`] if elements are not integers, [`Error::Overflow`] for a `uint` beyond 2^63 - 1; else those
    /// of [`get`](Array::get).
    #[inline]
    pub fn get_i64(&self, index: u64) -> Result<i64> {
        let (number, g) = self.numbers()?;
        if let Some(bits) = self.bits_quickly(g, index).or_else(|| self.bits_by_hash(g, index)) {
            return number.decode(bits).ok_or(Error::Overflow);
        }
        let bytes = self.get(index)?;
        let mut bits = [0; 8];
        bits[..bytes.len()].copy_from_slice(&bytes);
        number.decode(u64::from_le_bytes(bits)).ok_or(Error::Overflow)
    }

    /// The short way of a read alone, for an element that is set, in a chunk for which there is a hint.
    #[inline(always)]
    fn bits_quickly(&self, g: &Geometry, index: u64) -> Option<u64> {
        let engine = &*self.cells.table.engine;
        if engine.groups.any_open() {
            return None;
        }
        fast_array::get(&engine.segment, self.in_short(self.view(), g), index)
    }

    /// The short way for other elements.
    #[inline(never)]
    fn bits_by_hash(&self, g: &Geometry, index: u64) -> Option<u64> {
        let engine = &*self.cells.table.engine;
        if engine.groups.any_open() {
            return None;
        }
        fast_array::get_by_hash(&engine.segment, self.in_short(self.view(), g), index)
    }

    /// Sets an element of an array of integers.
    ///
    /// # Errors
    /// [`Error::Type`] if elements are not integers, [`Error::Overflow`] if the value does not fit; else those
    /// of [`set`](Array::set).
    #[inline]
    pub fn set_i64(&self, index: u64, value: i64) -> Result<()> {
        let (number, g) = self.numbers()?;
        self.set_bits(g, index, number.encode(value).ok_or(Error::Overflow)?)
    }

    /// Adds to an element of an array of integers, in one step, and gives the sum.
    ///
    /// # Errors
    /// [`Error::Type`] if elements are not integers, [`Error::Overflow`], and nothing is changed; else those of
    /// [`set`](Array::set).
    #[inline]
    pub fn increment(&self, index: u64, delta: i64) -> Result<i64> {
        let (number, g) = self.numbers()?;
        let bits = self.update_bits(g, index, |bits| number.add(bits, delta))?;
        number.decode(bits).ok_or(Error::Overflow)
    }

    /// The short way of `get_i64` alone.
    #[inline(always)]
    pub(crate) fn get_i64_quickly(&self, index: u64) -> Option<i64> {
        let (number, g) = self.numbers().ok()?;
        number.decode(self.bits_quickly(g, index)?)
    }

    /// The short way of `set_i64` alone.
    #[inline(always)]
    pub(crate) fn set_i64_quickly(&self, index: u64, value: i64) -> Quick<()> {
        let Ok((number, g)) = self.numbers() else { return Quick::NotDone };
        let Some(bits) = number.encode(value) else { return Quick::NotDone };
        self.cells.change_quickly(|w, table| {
            fast_array::update(w, self.in_short(table, g), index, |_| Some(bits)).map(|_| ())
        })
    }

    /// The short way of `increment` alone.
    #[inline(always)]
    pub(crate) fn increment_quickly(&self, index: u64, delta: i64) -> Quick<i64> {
        let Ok((number, g)) = self.numbers() else { return Quick::NotDone };
        self.cells.change_quickly(|w, table| {
            number.decode(fast_array::update(w, self.in_short(table, g), index, |bits| {
                number.add(bits, delta)
            })?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::hints::interruption;
    use crate::object::{ManageOptions, Object, OpenOptions};
    use crate::os::name::Name;

    /// A hint may be written twice under the same roots while it is read: its parts must belong together all the same.
    /// Here the chunk has gone to another block and come back between two loads.
    #[test]
    fn a_hint_that_changes_while_it_is_read_is_not_mixed() {
        let memory = format!("/netshm-hints-{}", std::process::id());
        let file = std::env::temp_dir().join(&memory[1..]);
        let name = Name::posix(&file, &memory);
        let object = OpenOptions::new().create(true).open(&name).expect("opens");
        let array = Array::manage_i64(&object, 0, 5000, &ManageOptions::new()).expect("is an array");
        let write = |array: &Array, value: i64| {
            let slice: Vec<u8> = (0..2013).flat_map(|_| value.to_le_bytes()).collect();
            array.write(0, &slice).expect("writes");
        };
        for value in 1..=20 {
            write(&array, value);
            // A read by the hash, which makes a hint.
            assert_eq!(array.get_i64(7), Ok(value));
        }
        let interrupted = array.clone();
        interruption::plan(move || {
            // The hint is of the one block now, and the entry of the other again.
            write(&interrupted, 21);
            assert_eq!(interrupted.get_i64(7), Ok(21));
            write(&interrupted, 22);
        });
        assert_eq!(array.get_i64(7), Ok(22));
        drop((array, object));
        Object::unlink(&name).expect("unlinks");
    }
}
