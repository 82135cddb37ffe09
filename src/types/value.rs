//! Values as flat cells, and what a custom type brings along to turn its objects into bytes and back.

use crate::error::Result;

/// A cell of a value. A value is its leaves in order; an option is one cell, [`Some`](Value::Some) or
/// [`None`](Value::None), before its content, which is there only in the first case.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A leaf of type `int`, `int32`, `int64`, `nativeint`.
    Int(i64),
    /// A leaf of type `uint`.
    Uint(u64),
    /// A leaf of type `double`.
    Double(f64),
    /// A leaf of type `string` or `bytes`; of type `int32[]`, 4 bytes little-endian for each number; of a
    /// custom type without conversions, its bytes.
    Bytes(&'a [u8]),
    /// An option that has a content, which follows.
    Some,
    /// An option without content.
    None,
    /// A leaf of a custom type: an object of its owner's.
    Custom(CustomObject),
}

/// An object of a custom type, known to its conversions only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomObject(pub(crate) *const ());

/// The conversions of a custom type.
pub(crate) struct Codec {
    /// Appends an object's bytes.
    pub(crate) encode: Box<EncodeFn>,
    /// Makes an object from bytes.
    pub(crate) decode: Box<DecodeFn>,
    /// Ends an object that `decode` has made.
    pub(crate) discard: Box<dyn Fn(CustomObject) + Send + Sync>,
}

type EncodeFn = dyn Fn(CustomObject, &mut Vec<u8>) -> Result<()> + Send + Sync;
type DecodeFn = dyn Fn(&[u8]) -> Result<CustomObject> + Send + Sync;

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

/// The kinds of some cells, for a message.
pub(super) fn kinds(cells: &[Value<'_>]) -> String {
    const SHOWN: usize = 8;
    let mut text = String::from("cells [");
    for (n, cell) in cells.iter().take(SHOWN).enumerate() {
        text.push_str(if n == 0 { "" } else { " " });
        text.push_str(match cell {
            Value::Int(_) => "INT",
            Value::Uint(_) => "UINT",
            Value::Double(_) => "DOUBLE",
            Value::Bytes(_) => "BYTES",
            Value::Some => "SOME",
            Value::None => "NONE",
            Value::Custom(_) => "CUSTOM",
        });
    }
    text.push_str(if cells.len() > SHOWN { " ...]" } else { "]" });
    text
}
