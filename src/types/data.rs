//! The traits by which Rust's own types become keys and values.
//!
//! They write and read the bytes that `encode` and `decode` do, without cells in between.

use super::datatype::Type;
use super::decode::{Part, split, undecodable};
use super::encode::{TAG_NONE, TAG_SOME, append, begin_left, double_bytes, end_left};
use crate::error::{Error, Result};

/// Something that can be written as a key or a value.
///
/// Implemented for what [`Data`] is implemented for and, besides, for `str`, `[u8]` and `[i32]`, so that a key
/// `String` can be looked up by a `&str`. A type that a `Data` type can be borrowed as must have the same encoding.
pub trait Encode {
    /// Appends the encoding.
    ///
    /// # Errors
    /// [`Error::NoMemory`], or whatever the implementation says.
    fn encode(&self, out: &mut Vec<u8>) -> Result<()>;

    /// Calls `then` with the encoding. Implementations that have it at hand need no memory for it.
    ///
    /// # Errors
    /// Those of [`encode`](Encode::encode).
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let mut out = Vec::new();
        self.encode(&mut out)?;
        Ok(then(&out))
    }
}

/// A type of keys or values.
///
/// | Rust | signature |
/// |---|---|
/// | `i32`, `i64`, `isize`, `u64`, `f64` | `int32`, `int64`, `nativeint`, `uint`, `double` |
/// | [`Int`] | `int` |
/// | `String`, `Vec<u8>`, `Vec<i32>` | `string`, `bytes`, `int32[]` |
/// | `(A, B)`, `Option<A>` | `(A,B)`, `A?` |
/// | [`Left<A>`] | `(A,_)` |
///
/// An own type takes part by a name of its own ([`Type::custom`]) and its own bytes:
///
/// ```
/// use netshm::{Data, Encode, Error, Result, Type};
///
/// struct Point { x: i32, y: i32 }
///
/// impl Encode for Point {
///     fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
///         out.extend_from_slice(&self.x.to_le_bytes());
///         out.extend_from_slice(&self.y.to_le_bytes());
///         Ok(())
///     }
/// }
///
/// impl Data for Point {
///     fn data_type() -> Result<Type> {
///         Type::custom("point")
///     }
///     fn decode(bytes: &[u8]) -> Result<Point> {
///         let (x, y): (i32, i32) = Data::decode(bytes)?;
///         Ok(Point { x, y })
///     }
/// }
/// ```
pub trait Data: Sized {
    /// Size in bytes, for the numbers, which are the left half of a pair without a length before them. Own types
    /// leave it as it is.
    const NUMBER_BYTES: Option<usize> = None;

    /// The type object.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the type is nested too deep.
    fn data_type() -> Result<Type>;

    /// The value that is encoded by exactly these bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they are not an encoding; [`Error::Overflow`] if the value does not fit here.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

/// The bytes as a part that begins at 0: positions are those within the innermost value here.
fn whole(bytes: &[u8]) -> Part<'_> {
    Part { bytes, position: 0 }
}

/// A number of fixed size.
macro_rules! number {
    ($number:ty, $type:ident) => {
        impl Encode for $number {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
                append(out, &self.to_le_bytes())
            }
            #[inline]
            fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
                Ok(then(&self.to_le_bytes()))
            }
        }
        impl Data for $number {
            const NUMBER_BYTES: Option<usize> = Some(size_of::<$number>());
            fn data_type() -> Result<Type> {
                Ok(Type::$type())
            }
            #[inline]
            fn decode(bytes: &[u8]) -> Result<$number> {
                Ok(<$number>::from_le_bytes(whole(bytes).exactly()?))
            }
        }
    };
}

number!(i32, int32);
number!(i64, int64);
number!(u64, uint);

impl Encode for f64 {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        append(out, &double_bytes(*self))
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(then(&double_bytes(*self)))
    }
}
impl Data for f64 {
    const NUMBER_BYTES: Option<usize> = Some(8);
    fn data_type() -> Result<Type> {
        Ok(Type::double())
    }
    fn decode(bytes: &[u8]) -> Result<f64> {
        whole(bytes).double()
    }
}

impl Encode for isize {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        (*self as i64).encode(out)
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        (*self as i64).with_encoded(then)
    }
}
impl Data for isize {
    const NUMBER_BYTES: Option<usize> = Some(8);
    fn data_type() -> Result<Type> {
        Ok(Type::nativeint())
    }
    fn decode(bytes: &[u8]) -> Result<isize> {
        i64::decode(bytes)?.try_into().map_err(|_| Error::Overflow)
    }
}

/// The type `int`, which is how other languages record their plain integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Int(
    /// The integer.
    pub i64,
);

impl Encode for Int {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        self.0.encode(out)
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.0.with_encoded(then)
    }
}
impl Data for Int {
    const NUMBER_BYTES: Option<usize> = Some(8);
    fn data_type() -> Result<Type> {
        Ok(Type::int())
    }
    #[inline]
    fn decode(bytes: &[u8]) -> Result<Int> {
        i64::decode(bytes).map(Int)
    }
}

impl Encode for [u8] {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        append(out, self)
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(then(self))
    }
}
impl Encode for Vec<u8> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        append(out, self)
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(then(self))
    }
}
impl Data for Vec<u8> {
    fn data_type() -> Result<Type> {
        Ok(Type::bytes())
    }
    fn decode(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut copy = Vec::new();
        append(&mut copy, bytes)?;
        Ok(copy)
    }
}

impl Encode for str {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        append(out, self.as_bytes())
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(then(self.as_bytes()))
    }
}
impl Encode for String {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        append(out, self.as_bytes())
    }
    #[inline]
    fn with_encoded<R>(&self, then: impl FnOnce(&[u8]) -> R) -> Result<R> {
        Ok(then(self.as_bytes()))
    }
}
/// Other languages may have written strings that are not UTF-8: those do not decode here, where `Vec<u8>` with
/// signature `bytes` is not what they recorded. [`HashTable`](crate::HashTable) reads them.
impl Data for String {
    fn data_type() -> Result<Type> {
        Ok(Type::string())
    }
    fn decode(bytes: &[u8]) -> Result<String> {
        String::from_utf8(Vec::decode(bytes)?).map_err(|e| undecodable(e.utf8_error().valid_up_to()))
    }
}

impl Encode for [i32] {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.try_reserve(size_of_val(self)).map_err(|_| Error::NoMemory)?;
        out.extend(self.iter().flat_map(|n| n.to_le_bytes()));
        Ok(())
    }
}
impl Encode for Vec<i32> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        self.as_slice().encode(out)
    }
}
impl Data for Vec<i32> {
    fn data_type() -> Result<Type> {
        Ok(Type::int32_array())
    }
    fn decode(bytes: &[u8]) -> Result<Vec<i32>> {
        let words = whole(bytes).words()?;
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(words.len() / 4).map_err(|_| Error::NoMemory)?;
        numbers.extend(
            words.chunks_exact(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])),
        );
        Ok(numbers)
    }
}

impl<A: Data + Encode, B: Data + Encode> Encode for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        if A::NUMBER_BYTES.is_some() {
            self.0.encode(out)?;
        } else {
            let begin = begin_left(out)?;
            self.0.encode(out)?;
            end_left(out, begin);
        }
        self.1.encode(out)
    }
}
impl<A: Data, B: Data> Data for (A, B) {
    fn data_type() -> Result<Type> {
        Type::pair(&A::data_type()?, &B::data_type()?)
    }
    fn decode(bytes: &[u8]) -> Result<(A, B)> {
        let (left, right) = split(bytes, A::NUMBER_BYTES, 0)?;
        Ok((A::decode(left.bytes)?, B::decode(right.bytes)?))
    }
}

/// The left half of a pair whatever the right one is: for reading only, and so it cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Left<A>(
    /// The half.
    pub A,
);

impl<A: Data> Data for Left<A> {
    fn data_type() -> Result<Type> {
        Type::left(&A::data_type()?)
    }
    fn decode(bytes: &[u8]) -> Result<Left<A>> {
        A::decode(split(bytes, A::NUMBER_BYTES, 0)?.0.bytes).map(Left)
    }
}

impl<A: Data + Encode> Encode for Option<A> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            None => append(out, &[TAG_NONE]),
            Some(content) => {
                append(out, &[TAG_SOME])?;
                content.encode(out)
            }
        }
    }
}
impl<A: Data> Data for Option<A> {
    fn data_type() -> Result<Type> {
        Type::option(&A::data_type()?)
    }
    fn decode(bytes: &[u8]) -> Result<Option<A>> {
        whole(bytes).content()?.map(|content| A::decode(content.bytes)).transpose()
    }
}
