//! Data types: what keys and values mean, and the bytes that they are stored as.
//!
//! Owns type objects, their signatures and their encoding. It is pure: it knows no shared memory, no tables and
//! no C. docs/types.md has the grammar and the bytes.
//!
//! - [`datatype`]: the type objects, and which recorded type satisfies which asked for.
//! - [`signature`]: from text to type.
//! - [`value`]: values as flat cells; how custom types hook in.
//! - [`encode`], [`decode`]: between cells and bytes.
//! - [`data`]: the traits by which Rust's own types take part.

mod data;
mod datatype;
mod decode;
mod encode;
mod signature;
mod value;

#[cfg(test)]
mod tests;

pub use data::{Data, Encode, Int, Left};
pub(crate) use datatype::Shape;
pub use datatype::Type;
pub(crate) use encode::Encoded;
pub(crate) use value::Codec;
pub use value::{CustomObject, Value};
