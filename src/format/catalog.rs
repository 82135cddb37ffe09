//! The catalog of named tables: a chain of pages, each with some entries.

use super::{Offset, PAGE_BYTES};

/// Next page of the catalog.
pub(crate) const W_NEXT: u64 = 0;
/// Bytes of an entry; the first one begins after as many.
const ENTRY_BYTES: u64 = 256;
/// Entries in a page.
pub(crate) const ENTRIES: u64 = PAGE_BYTES / ENTRY_BYTES - 1;
// Words of an entry.
pub(crate) const W_ROOT: u64 = 0;
pub(crate) const W_NAME_LEN: u64 = 1;
pub(crate) const W_NAME: u64 = 2;
/// Longest name in bytes.
pub(crate) const MAX_NAME: usize = (ENTRY_BYTES - 8 * W_NAME) as usize;

/// Entry `n` of a page.
pub(crate) const fn entry(page: Offset, n: u64) -> Offset {
    page.add((1 + n) * ENTRY_BYTES)
}

/// The words of a text, zero-padded.
pub(crate) fn text_words(text: &[u8]) -> impl Iterator<Item = u64> + '_ {
    text.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}
