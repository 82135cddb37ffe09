//! The library's own file of what a lock word means.

/// As in the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotIndex(pub u16);

#[allow(dead_code, reason = "the models need a part of it")]
#[path = "../../../../src/format/lock_word.rs"]
pub mod lock_word;
