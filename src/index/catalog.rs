//! Where the root of a table is written: the word of the unnamed table, or an entry of the catalog.
//!
//! Only reads. Whoever reads without the gate has to compare the gate's version afterwards.

use crate::error::{Damage, Error, Result};
use crate::format::catalog::{ENTRIES, MAX_NAME, W_NAME, W_NAME_LEN, W_NEXT, W_ROOT, entry};
use crate::format::{Circle, Offset, PAGE_BYTES, header, root};
use crate::writer::Words;

/// What a table is, besides its content: where it is found, and what a handle expects it to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Empty: the unnamed table.
    pub(crate) name: Box<[u8]>,
    pub(crate) kind: u64,
    /// Signatures of keys and values; empty: raw bytes.
    pub(crate) signatures: [Box<[u8]>; 2],
}

impl Identity {
    /// The unnamed hash table of raw bytes.
    pub(crate) fn unnamed() -> Identity {
        Identity {
            name: Box::default(),
            kind: root::KIND_HASHTABLE,
            signatures: [Box::default(), Box::default()],
        }
    }
}

/// An entry of the catalog that is in use.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) root: Offset,
    pub(crate) name: Box<[u8]>,
}

/// Calls `f` with each entry of the catalog, vacant ones as none, until it gives something.
pub(crate) fn for_each_entry<W: Words, R>(
    words: &W,
    mut f: impl FnMut(Offset, Option<Entry>) -> Result<Option<R>>,
) -> Result<Option<R>> {
    let mut page = Offset(words.word(header::CATALOG));
    let mut circle = Circle::new();
    while !page.is_none() {
        if circle.is_closed_by(page) {
            return Err(Error::corrupt(Damage::Root, header::CATALOG));
        }
        if page.0 % PAGE_BYTES != 0 || !words.segment().contains(page, PAGE_BYTES) {
            return Err(Error::corrupt(Damage::Root, page));
        }
        for n in 0..ENTRIES {
            let at = entry(page, n);
            let root = Offset(words.word(at.word(W_ROOT)));
            let used = if root.is_none() {
                None
            } else {
                let name = text(words, at.word(W_NAME), words.word(at.word(W_NAME_LEN)), MAX_NAME)
                    .ok_or(Error::corrupt(Damage::Root, at))?;
                Some(Entry { root, name })
            };
            if let Some(result) = f(at, used)? {
                return Ok(Some(result));
            }
        }
        page = Offset(words.word(page.word(W_NEXT)));
    }
    Ok(None)
}

/// The word that holds the root of a table; none if no table has this name.
pub(crate) fn place_of<W: Words>(words: &W, name: &[u8]) -> Result<Option<Offset>> {
    if name.is_empty() {
        return Ok(Some(header::MAIN_ROOT));
    }
    for_each_entry(words, |at, used| Ok(used.filter(|entry| *entry.name == *name).map(|_| at.word(W_ROOT))))
}

/// The root of a table; 0 if there is none.
pub(crate) fn root_of<W: Words>(words: &W, name: &[u8]) -> Result<Offset> {
    Ok(place_of(words, name)?.map_or(Offset::NONE, |place| Offset(words.word(place))))
}

/// A text of so many bytes; none if it is longer than it may be.
fn text<W: Words>(words: &W, at: Offset, len: u64, most: usize) -> Option<Box<[u8]>> {
    let len = usize::try_from(len).ok().filter(|len| *len <= most)?;
    let mut bytes = Vec::with_capacity(len + 8);
    for n in 0..len.div_ceil(8) as u64 {
        bytes.extend_from_slice(&words.word(at.word(n)).to_le_bytes());
    }
    bytes.truncate(len);
    Some(bytes.into())
}

/// The kind of the table with this root, and the signatures that it records.
pub(crate) fn nature<W: Words>(words: &W, root: Offset) -> Result<(u64, [Box<[u8]>; 2])> {
    let bad = || Error::corrupt(Damage::Root, root);
    if root.0 % PAGE_BYTES != 0 || !words.segment().contains(root, PAGE_BYTES) {
        return Err(bad());
    }
    let signature = |word: u64| {
        let at = root.word(word);
        text(words, at.word(1), words.word(at), root::MAX_SIGNATURE).ok_or_else(bad)
    };
    let [keys, values] = root::W_SIGNATURES;
    Ok((words.word(root.word(root::W_KIND)), [signature(keys)?, signature(values)?]))
}
