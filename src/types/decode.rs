//! From bytes to cells. The bytes come from shared memory: whatever is not the one encoding of a value is an
//! error that names the place.

use super::datatype::{Shape, Type};
use super::encode::{LENGTH_BYTES, NAN_BITS, TAG_NONE, TAG_SOME};
use super::value::Value;
use crate::error::{Damage, Error, Result};

/// The error for bytes that are no value; the offset is that within the value.
#[cold]
pub(super) fn undecodable(position: usize) -> Error {
    Error::Corrupt { what: Damage::Encoding, offset: position as u64 }
}

/// Takes the left half off a pair's bytes: the half, and the rest.
pub(super) fn split(bytes: &[u8], number: Option<usize>, position: usize) -> Result<(Part<'_>, Part<'_>)> {
    let (head, len) = match number {
        Some(len) => (0, len as u64),
        None => {
            let length = bytes.first_chunk::<LENGTH_BYTES>().ok_or_else(|| undecodable(position))?;
            (LENGTH_BYTES, u64::from_le_bytes(*length))
        }
    };
    let rest = &bytes[head..];
    if len > rest.len() as u64 {
        return Err(undecodable(position));
    }
    let (left, right) = rest.split_at(len as usize);
    let position = position + head;
    Ok((Part { bytes: left, position }, Part { bytes: right, position: position + left.len() }))
}

/// Some of a value's bytes, and where they begin in it.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Part<'a> {
    /// A part of exactly `N` bytes.
    pub(super) fn exactly<const N: usize>(self) -> Result<[u8; N]> {
        self.bytes.try_into().map_err(|_| undecodable(self.position + self.bytes.len().min(N)))
    }

    /// A double, if it is not a NaN that is never written.
    pub(super) fn double(self) -> Result<f64> {
        let d = f64::from_le_bytes(self.exactly()?);
        if d.is_nan() && d.to_bits() != NAN_BITS { Err(undecodable(self.position)) } else { Ok(d) }
    }

    /// The content of an option.
    pub(super) fn content(self) -> Result<Option<Part<'a>>> {
        match self.bytes {
            [TAG_NONE] => Ok(None),
            [TAG_SOME, content @ ..] => Ok(Some(Part { bytes: content, position: self.position + 1 })),
            [TAG_NONE, ..] => Err(undecodable(self.position + 1)),
            _ => Err(undecodable(self.position)),
        }
    }

    /// The words of an `int32[]`.
    pub(super) fn words(self) -> Result<&'a [u8]> {
        match self.bytes.len() % 4 {
            0 => Ok(self.bytes),
            _ => Err(undecodable(self.position + self.bytes.len())),
        }
    }
}

impl Type {
    /// The cells of an encoded value. The leaf of a custom type comes as its bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes are not the encoding of a value; the offset is that within the value.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Vec<Value<'a>>> {
        let mut cells = Vec::new();
        self.decode_each(bytes, &mut |_, cell| {
            cells.push(cell);
            Ok(())
        })?;
        Ok(cells)
    }

    /// Calls `see` with each cell and the type that it belongs to.
    pub(crate) fn decode_each<'a>(&self, bytes: &'a [u8], see: &mut See<'_, 'a>) -> Result<()> {
        read(self, Part { bytes, position: 0 }, see)
    }
}

type See<'s, 'a> = dyn FnMut(&Type, Value<'a>) -> Result<()> + 's;

/// Reads a value that takes exactly these bytes.
fn read<'a>(what: &Type, part: Part<'a>, see: &mut See<'_, 'a>) -> Result<()> {
    let cell = match what.shape() {
        Shape::Int | Shape::Int64 | Shape::NativeInt => Value::Int(i64::from_le_bytes(part.exactly()?)),
        Shape::Int32 => Value::Int(i32::from_le_bytes(part.exactly()?).into()),
        Shape::Uint => Value::Uint(u64::from_le_bytes(part.exactly()?)),
        Shape::Double => Value::Double(part.double()?),
        Shape::String | Shape::Bytes | Shape::Custom(_) => Value::Bytes(part.bytes),
        Shape::Int32Array => Value::Bytes(part.words()?),
        Shape::Pair(left, right) => {
            let (first, second) = split(part.bytes, left.number_bytes(), part.position)?;
            read(left, first, see)?;
            return read(right, second, see);
        }
        Shape::Left(left) => {
            let (first, _) = split(part.bytes, left.number_bytes(), part.position)?;
            return read(left, first, see);
        }
        Shape::Option(content) => match part.content()? {
            None => Value::None,
            Some(inner) => {
                see(what, Value::Some)?;
                return read(content, inner, see);
            }
        },
    };
    see(what, cell)
}
