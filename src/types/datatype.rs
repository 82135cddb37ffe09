//! Type objects: immutable, shared, each with its canonical signature.

use super::encode::LENGTH_BYTES;
use super::signature;
use super::value::Codec;
use crate::error::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Longest signature in bytes: what a table's root has room for.
pub(super) const MAX_SIGNATURE_BYTES: usize = 504;
/// Deepest nesting, a simple type having depth 1. It bounds the recursion of everything that walks a type.
pub(super) const MAX_DEPTH: usize = 32;
/// Longest name of a custom type in bytes.
pub(super) const MAX_NAME_BYTES: usize = 64;

/// The type of keys or values. Clones share the same object; two types are equal if their signatures are.
///
/// The grammar of signatures and the encoding of each type are in docs/types.md of the repository.
#[derive(Clone)]
pub struct Type(Arc<Node>);

struct Node {
    shape: Shape,
    signature: String,
    depth: usize,
    fixed_bytes: Option<usize>,
    readable_only: bool,
}

/// What a type is made of.
pub(crate) enum Shape {
    Int,
    Int32,
    Int64,
    NativeInt,
    Uint,
    Double,
    String,
    Bytes,
    Int32Array,
    Pair(Type, Type),
    /// The left half of a pair whose right half may be anything. For reading only.
    Left(Type),
    Option(Type),
    /// A custom type; without conversions its objects are their bytes.
    Custom(Option<Arc<Codec>>),
}

impl Type {
    fn simple(shape: Shape, signature: &str, fixed_bytes: Option<usize>) -> Type {
        let signature = signature.to_owned();
        Type(Arc::new(Node { shape, signature, depth: 1, fixed_bytes, readable_only: false }))
    }

    fn nested(shape: Shape, signature: String, fixed_bytes: Option<usize>, parts: &[&Type]) -> Result<Type> {
        let depth = 1 + parts.iter().map(|part| part.0.depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err(Error::TooLarge("types are nested more than 32 deep"));
        }
        if signature.len() > MAX_SIGNATURE_BYTES {
            return Err(Error::TooLarge("a signature of more than 504 bytes"));
        }
        let readable_only = matches!(shape, Shape::Left(_)) || parts.iter().any(|part| part.0.readable_only);
        Ok(Type(Arc::new(Node { shape, signature, depth, fixed_bytes, readable_only })))
    }

    /// `int`: an integer of the caller's language, 64 bits.
    pub fn int() -> Type {
        Type::simple(Shape::Int, "int", Some(8))
    }
    /// `int32`.
    pub fn int32() -> Type {
        Type::simple(Shape::Int32, "int32", Some(4))
    }
    /// `int64`.
    pub fn int64() -> Type {
        Type::simple(Shape::Int64, "int64", Some(8))
    }
    /// `nativeint`: an integer of the caller's machine word, stored as 64 bits.
    pub fn nativeint() -> Type {
        Type::simple(Shape::NativeInt, "nativeint", Some(8))
    }
    /// `uint`: an unsigned integer of 64 bits.
    pub fn uint() -> Type {
        Type::simple(Shape::Uint, "uint", Some(8))
    }
    /// `double`.
    pub fn double() -> Type {
        Type::simple(Shape::Double, "double", Some(8))
    }
    /// `string`: any bytes that are meant as text. No encoding of characters is enforced.
    pub fn string() -> Type {
        Type::simple(Shape::String, "string", None)
    }
    /// `bytes`: any bytes.
    pub fn bytes() -> Type {
        Type::simple(Shape::Bytes, "bytes", None)
    }
    /// `int32[]`: any number of 32-bit integers.
    pub fn int32_array() -> Type {
        Type::simple(Shape::Int32Array, "int32[]", None)
    }

    /// `(left,right)`: two values, one after the other.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the nesting or the signature gets out of bounds.
    pub fn pair(left: &Type, right: &Type) -> Result<Type> {
        let signature = format!("({left},{right})");
        let length = if left.number_bytes().is_some() { 0 } else { LENGTH_BYTES };
        let fixed = left.fixed_bytes().zip(right.fixed_bytes()).map(|(left, right)| length + left + right);
        Type::nested(Shape::Pair(left.clone(), right.clone()), signature, fixed, &[left, right])
    }

    /// `(left,_)`: the left half of any pair that begins with `left`. Reads such pairs, and writes nothing.
    ///
    /// # Errors
    /// Those of [`pair`](Type::pair).
    pub fn left(left: &Type) -> Result<Type> {
        Type::nested(Shape::Left(left.clone()), format!("({left},_)"), None, &[left])
    }

    /// `content?`: a value or none.
    ///
    /// # Errors
    /// Those of [`pair`](Type::pair).
    pub fn option(content: &Type) -> Result<Type> {
        Type::nested(Shape::Option(content.clone()), format!("{content}?"), None, &[content])
    }

    /// `custom:name`: a type of the caller's, known by its name, whose values are bytes here.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name is not 1 to 64 letters, digits, `.`, `-` or `_`.
    pub fn custom(name: &str) -> Result<Type> {
        Type::custom_with(name, None)
    }

    /// A custom type with conversions between objects and bytes.
    pub(crate) fn custom_with(name: &str, codec: Option<Arc<Codec>>) -> Result<Type> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(signature::is_name_byte) {
            let reason = "the name of a custom type is 1 to 64 letters, digits, '.', '-' or '_'";
            return Err(Error::Invalid { argument: "name", reason });
        }
        Type::nested(Shape::Custom(codec), format!("custom:{name}"), None, &[])
    }

    /// The type that a signature describes.
    ///
    /// # Errors
    /// [`Error::Signature`], with the position of the first byte that cannot be there; [`Error::TooLarge`].
    pub fn parse(signature: &str) -> Result<Type> {
        Type::parse_bytes(signature.as_bytes())
    }

    /// The same, for a text that may be anything: no byte is accepted but ASCII.
    pub(crate) fn parse_bytes(signature: &[u8]) -> Result<Type> {
        signature::parse(signature)
    }

    /// The canonical signature.
    pub fn signature(&self) -> &str {
        &self.0.signature
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// Size of every value's encoding in bytes, if all have the same.
    pub fn fixed_bytes(&self) -> Option<usize> {
        self.0.fixed_bytes
    }

    /// The same for numbers only: as the left half of a pair they need no length before them. Pairs of numbers
    /// do, because `(int,_)` has to stand for every pair that begins with an int.
    pub(crate) fn number_bytes(&self) -> Option<usize> {
        if matches!(self.0.shape, Shape::Pair(..)) { None } else { self.0.fixed_bytes }
    }

    /// Can values be read but not written, because a left half is part of the type?
    pub fn is_for_reading_only(&self) -> bool {
        self.0.readable_only
    }

    /// Are a value's bytes the value itself?
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.0.shape, Shape::String | Shape::Bytes)
    }

    /// Is a value an [`Value::Int`](super::Value::Int) of 8 bytes?
    pub(crate) fn is_word(&self) -> bool {
        matches!(self.0.shape, Shape::Int | Shape::Int64 | Shape::NativeInt)
    }

    /// Can values that were written as `recorded` be read as this type? They can if the two are equal but for
    /// left halves here.
    pub fn reads(&self, recorded: &Type) -> bool {
        match (&self.0.shape, &recorded.0.shape) {
            (Shape::Pair(a, b), Shape::Pair(c, d)) => a.reads(c) && b.reads(d),
            (Shape::Left(a), Shape::Pair(c, _) | Shape::Left(c)) => a.reads(c),
            (Shape::Option(a), Shape::Option(c)) => a.reads(c),
            _ => self == recorded,
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        self.0.signature == other.0.signature
    }
}
impl Eq for Type {}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.signature)
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Type({})", self.0.signature)
    }
}
