//! The C face: `include/netshm.h` is made from these files, in the order of the list below.
//!
//! Owns the conversion between C and Rust, and nothing else: check the arguments, forward, turn the outcome
//! into a number. No Rust enum is received from C, nothing unwinds into C, and outputs are written only if the
//! call succeeds (exceptions are documented with their functions).
//!
//! - [`call`], [`callback`], [`handle`]: what all exports share; not part of the header.
//! - [`error`]: codes, texts, versions, memory that the caller frees.
//! - [`object`], [`options`], [`roots`], [`hashtbl`], [`many`], [`array`],
//!   [`array_typed`], [`update`], [`cursor`], [`primitive`], [`group`],
//!   [`watch`], [`check`], [`rescue`], [`pmanage`]: one noun each.
//! - [`value`], [`types`], [`result`], [`typed`], [`typed_walk`], [`typed_update`]: cells, type objects, what was
//!   found, typed hash tables.
//! - [`inject`]: a hook for tests, in test builds only; not part of the header.

// The names are C's, and C finds the functions by their symbols.
#![allow(non_camel_case_types, unreachable_pub)]

mod call;
mod callback;
mod handle;

mod array;
mod array_typed;
mod check;
mod cursor;
mod error;
mod group;
mod hashtbl;
mod many;
mod object;
mod options;
mod pmanage;
mod primitive;
mod rescue;
mod result;
mod roots;
mod typed;
mod typed_update;
mod typed_walk;
mod types;
mod update;
mod value;
mod watch;

#[cfg(feature = "inject")]
mod inject;
