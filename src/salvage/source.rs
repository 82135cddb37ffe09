//! The damaged file: bytes that nobody vouches for.
//!
//! It is read by system calls, never mapped, since it may be shortened or refuse to be read at any place. Each byte is
//! read into private memory before it is judged, and not read again for use.

use crate::error::Result;
use crate::format::Offset;
use crate::os::shm::Files;
use crate::os::space;
use std::cell::Cell;
use std::ops::Range;

/// Reads may add up to so many times what the file holds: a record is read twice at most, and records do not overlap.
const MOST_READS: u64 = 4;
/// The same for what leads to records: roots, buckets, lines, the beginnings of records.
const MOST_LOOKS: u64 = 8;
/// What a look costs at least, in bytes.
const LOOK_BYTES: u64 = 64;

pub(super) struct Source {
    files: Files,
    size: u64,
    /// Bytes that the file really has, holes left out: more cannot have been stored.
    stored: u64,
    /// How much may still be read of keys and values.
    budget: u64,
    /// How much may still be looked at else. What is damaged on purpose may refer to the same bytes again and again.
    looks: Cell<u64>,
}

impl Source {
    pub(super) fn new(files: Files) -> Result<Source> {
        let size = files.size()?;
        let mut source = Source { files, size, stored: size, budget: 0, looks: Cell::new(0) };
        // Not the blocks of the file, which some file systems compress, or tell late or not at all.
        if space::data_from(source.files.fd(), 0).is_ok() {
            source.stored = source.data_backwards(0..size).iter().map(|data| data.end - data.start).sum();
        }
        source.budget = MOST_READS.saturating_mul(source.stored.max(1 << 20));
        source.looks = Cell::new(MOST_LOOKS.saturating_mul(source.stored.max(1 << 20)));
        Ok(source)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// `N` words, if they can be read.
    pub(super) fn words<const N: usize>(&self, at: Offset) -> Option<[u64; N]> {
        let mut words = [0; N];
        let mut bytes = vec![0; 8 * N];
        self.look(at, &mut bytes)?;
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Some(words)
    }

    /// Bytes of keys and values, if they can be there at all.
    pub(super) fn bytes(&mut self, at: Offset, len: u64) -> Option<Vec<u8>> {
        if len > self.stored || at.0.checked_add(len)? > self.size {
            return None;
        }
        self.budget = self.budget.checked_sub(len)?;
        let len = usize::try_from(len).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        self.fill(at, &mut bytes)?;
        Some(bytes)
    }

    /// Fills the buffer with what may lead to keys and values, if there is so much.
    pub(super) fn look(&self, at: Offset, into: &mut [u8]) -> Option<()> {
        let cost = LOOK_BYTES.max(into.len() as u64);
        self.looks.set(self.looks.get().checked_sub(cost)?);
        self.fill(at, into)
    }

    fn fill(&self, at: Offset, into: &mut [u8]) -> Option<()> {
        space::pread_exact(self.files.fd(), into, at.0).ok()
    }

    /// The parts of a range that hold something, the last one first. Where the system does not tell, all may.
    pub(super) fn data_backwards(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut parts, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let data = match space::data_from(self.files.fd(), at) {
                Ok(Some(data)) if data.start < range.end => data,
                Ok(_) => break,
                Err(_) => at..range.end,
            };
            parts.push(data.start.max(range.start)..data.end.min(range.end));
            at = data.end;
        }
        parts.reverse();
        parts
    }
}
