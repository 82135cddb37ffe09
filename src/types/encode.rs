//! From cells to bytes. Every value has exactly one encoding, so that equal keys are equal bytes.

use super::datatype::{Shape, Type};
use super::value::{Value, kinds};
use crate::error::{Error, Result};

/// The one NaN that is stored, whatever NaN the caller has.
pub(super) const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;
/// Bytes of the length before a left half of variable size.
pub(super) const LENGTH_BYTES: usize = 8;
/// Tags of options.
pub(super) const TAG_NONE: u8 = 0;
pub(super) const TAG_SOME: u8 = 1;

/// An encoded value: borrowed where the caller's bytes are the encoding, and without memory of its own for
/// single words.
#[derive(Debug)]
pub(crate) enum Encoded<'a> {
    Borrowed(&'a [u8]),
    Word([u8; 8]),
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Encoded<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Encoded::Borrowed(bytes) => bytes,
            Encoded::Word(bytes) => bytes,
            Encoded::Owned(bytes) => bytes,
        }
    }
}

/// Why cells could not be encoded: found in the middle, reported with all cells and the whole type.
enum Fault {
    /// The cells are not those of the type.
    Shape,
    Core(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        Fault::Core(e)
    }
}

impl Type {
    /// The bytes that stand for a value.
    ///
    /// # Errors
    /// [`Error::Type`] if the cells are not those of a value of this type, or if the type is for reading only;
    /// [`Error::Overflow`] if an integer does not fit; [`Error::Invalid`] if the bytes of an `int32[]` are not
    /// whole numbers; [`Error::NoMemory`]; what a custom type's conversion says.
    pub fn encode(&self, cells: &[Value<'_>]) -> Result<Vec<u8>> {
        match self.encoded(cells)? {
            Encoded::Owned(bytes) => Ok(bytes),
            other => {
                let mut copy = Vec::new();
                append(&mut copy, other.as_ref())?;
                Ok(copy)
            }
        }
    }

    /// The same, without a copy or memory of its own where that is possible.
    #[inline]
    pub(crate) fn encoded<'a>(&self, cells: &[Value<'a>]) -> Result<Encoded<'a>> {
        match (self.shape(), cells) {
            (Shape::String | Shape::Bytes, &[Value::Bytes(bytes)]) => Ok(Encoded::Borrowed(bytes)),
            (Shape::Int | Shape::Int64 | Shape::NativeInt, &[Value::Int(n)]) => {
                Ok(Encoded::Word(n.to_le_bytes()))
            }
            _ => self.encoded_generally(cells).map(Encoded::Owned),
        }
    }

    #[inline(never)]
    fn encoded_generally(&self, cells: &[Value<'_>]) -> Result<Vec<u8>> {
        if self.is_for_reading_only() {
            return Err(Error::Type {
                asked: "writing".into(),
                recorded: format!("{self}, of which the left half can be read and nothing written"),
            });
        }
        let mut out = Vec::new();
        let mut rest = cells;
        let outcome = write(self, &mut rest, &mut out);
        match outcome {
            Ok(()) if rest.is_empty() => Ok(out),
            Ok(()) | Err(Fault::Shape) => {
                Err(Error::Type { asked: kinds(cells), recorded: self.signature().to_owned() })
            }
            Err(Fault::Core(e)) => Err(e),
        }
    }
}

/// Appends the encoding of the value that the cells begin with, and takes these cells off.
fn write(what: &Type, cells: &mut &[Value<'_>], out: &mut Vec<u8>) -> std::result::Result<(), Fault> {
    if let Shape::Pair(left, right) = what.shape() {
        write_left(left, cells, out)?;
        return write(right, cells, out);
    }
    let (cell, rest) = cells.split_first().ok_or(Fault::Shape)?;
    *cells = rest;
    match (what.shape(), *cell) {
        (Shape::Int | Shape::Int64 | Shape::NativeInt, cell) => {
            append(out, &signed(cell)?.to_le_bytes())?;
        }
        (Shape::Int32, cell) => {
            let n = i32::try_from(signed(cell)?).map_err(|_| Error::Overflow)?;
            append(out, &n.to_le_bytes())?;
        }
        (Shape::Uint, cell) => append(out, &unsigned(cell)?.to_le_bytes())?,
        (Shape::Double, Value::Double(d)) => append(out, &double_bytes(d))?,
        (Shape::String | Shape::Bytes, Value::Bytes(bytes)) => append(out, bytes)?,
        (Shape::Int32Array, Value::Bytes(words)) => {
            if words.len() % 4 != 0 {
                let reason = "the bytes of an int32[] are not a whole number of int32";
                return Err(Error::Invalid { argument: "cells", reason }.into());
            }
            append(out, words)?;
        }
        (Shape::Option(_), Value::None) => append(out, &[TAG_NONE])?,
        (Shape::Option(content), Value::Some) => {
            append(out, &[TAG_SOME])?;
            write(content, cells, out)?;
        }
        (Shape::Custom(None), Value::Bytes(bytes)) => append(out, bytes)?,
        (Shape::Custom(Some(codec)), Value::Custom(object)) => (codec.encode)(object, out)?,
        _ => return Err(Fault::Shape),
    }
    Ok(())
}

/// The left half of a pair says how long it is, unless it is a number.
fn write_left(left: &Type, cells: &mut &[Value<'_>], out: &mut Vec<u8>) -> std::result::Result<(), Fault> {
    if left.number_bytes().is_some() {
        return write(left, cells, out);
    }
    let begin = begin_left(out)?;
    write(left, cells, out)?;
    end_left(out, begin);
    Ok(())
}

/// Leaves room for the length of a left half.
pub(super) fn begin_left(out: &mut Vec<u8>) -> Result<usize> {
    append(out, &[0; LENGTH_BYTES])?;
    Ok(out.len())
}

/// Writes the length of the left half that began at `begin`.
pub(super) fn end_left(out: &mut [u8], begin: usize) {
    let len = (out.len() - begin) as u64;
    out[begin - LENGTH_BYTES..begin].copy_from_slice(&len.to_le_bytes());
}

/// The bytes of a double; all NaNs have the same.
pub(super) fn double_bytes(d: f64) -> [u8; 8] {
    let bits = if d.is_nan() { NAN_BITS } else { d.to_bits() };
    bits.to_le_bytes()
}

/// Appends bytes; memory that cannot be had is an error.
pub(super) fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    out.try_reserve(bytes.len()).map_err(|_| Error::NoMemory)?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn signed(cell: Value<'_>) -> std::result::Result<i64, Fault> {
    match cell {
        Value::Int(n) => Ok(n),
        Value::Uint(n) => i64::try_from(n).map_err(|_| Error::Overflow.into()),
        _ => Err(Fault::Shape),
    }
}

fn unsigned(cell: Value<'_>) -> std::result::Result<u64, Fault> {
    match cell {
        Value::Uint(n) => Ok(n),
        Value::Int(n) => u64::try_from(n).map_err(|_| Error::Overflow.into()),
        _ => Err(Fault::Shape),
    }
}
