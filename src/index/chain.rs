//! A bucket with its overflow lines, as whoever holds its lock reads and changes it.

use super::find::{LONGEST_CHAIN, checked_shape};
use crate::error::{Damage, Error, Result};
use crate::format::Offset;
use crate::format::bucket::{self, ENTRIES, Link, W_ENTRY, W_LINK, entry_record};
use crate::format::record::{self, Shape};
use crate::writer::{Words, Writer};
use smallvec::SmallVec;

/// A key's entry in a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    /// The word that holds the entry.
    pub(crate) at: Offset,
    pub(crate) entry: u64,
    pub(crate) shape: Shape,
}

impl Hit {
    pub(crate) fn record(&self) -> Offset {
        entry_record(self.entry)
    }
}

/// Calls `f` with each line of a chain until it gives something.
pub(crate) fn for_each_line<W: Words, R>(
    words: &W,
    bucket: Offset,
    mut f: impl FnMut(Offset, Link) -> Result<Option<R>>,
) -> Result<Option<R>> {
    let mut line = bucket;
    for _ in 0..LONGEST_CHAIN {
        if line.0 % 16 != 0 || !words.segment().contains(line, bucket::LINE_BYTES) {
            return Err(Error::corrupt(Damage::Bucket, line));
        }
        let link = Link(words.word(line.word(W_LINK)));
        if let Some(result) = f(line, link)? {
            return Ok(Some(result));
        }
        line = link.next();
        if line.is_none() {
            return Ok(None);
        }
    }
    Err(Error::corrupt(Damage::Bucket, bucket))
}

/// Looks for a key's entry.
pub(crate) fn lookup<W: Words>(words: &W, bucket: Offset, hash: u64, key: &[u8]) -> Result<Option<Hit>> {
    for_each_line(words, bucket, |line, _| {
        let mut candidates = if words.is_plain_line(line) {
            words.segment().block::<8>(line).map_or(0, |block| block.matches(bucket::tag_bits(hash)))
        } else {
            (1 << ENTRIES) - 1
        };
        while candidates != 0 {
            let i = u64::from(candidates.trailing_zeros());
            candidates &= candidates - 1;
            let at = line.word(W_ENTRY + i);
            let entry = words.word(at);
            if entry == 0 || bucket::tag_bits(entry) != bucket::tag_bits(hash) {
                continue;
            }
            let record = entry_record(entry);
            let shape = checked_shape(words.segment(), record)?;
            if shape.key_len == key.len() as u64
                && words.segment().equals(record.add(shape.header_bytes()), key)
            {
                return Ok(Some(Hit { at, entry, shape }));
            }
        }
        Ok(None)
    })
}

/// All entries of a chain.
pub(crate) fn entries<W: Words>(words: &W, bucket: Offset) -> Result<SmallVec<[u64; 12]>> {
    let mut all = SmallVec::new();
    for_each_line(words, bucket, |line, _| {
        all.extend((0..ENTRIES).map(|i| words.word(line.word(W_ENTRY + i))).filter(|e| *e != 0));
        Ok(None::<()>)
    })?;
    Ok(all)
}

/// Calls `f` with each record of one key, newest first, until it gives something.
pub(crate) fn for_each_binding<W: Words, R>(
    words: &W,
    newest: Offset,
    mut f: impl FnMut(Offset, Shape) -> Result<Option<R>>,
) -> Result<Option<R>> {
    let mut record = newest;
    // No chain is longer than the object has units.
    for _ in 0..words.segment().limit() / record::SHORT_HEADER_BYTES {
        let shape = checked_shape(words.segment(), record)?;
        if let Some(result) = f(record, shape)? {
            return Ok(Some(result));
        }
        record = record::older(words.word(record));
        if record.is_none() {
            return Ok(None);
        }
    }
    Err(Error::corrupt(Damage::Record, newest))
}

/// Puts an entry for a key that has none into a hole of the chain, or into a new line from `new_line`.
pub(crate) fn insert(
    w: &mut Writer,
    bucket: Offset,
    entry: u64,
    new_line: impl FnOnce(&mut Writer) -> Result<Offset>,
) -> Result<()> {
    let hole = for_each_line(w, bucket, |line, _| {
        Ok((0..ENTRIES).map(|i| line.word(W_ENTRY + i)).find(|at| w.word(*at) == 0))
    })?;
    match hole {
        Some(at) => w.put(at, entry),
        None => {
            let line = new_line(w)?;
            let link_at = bucket.word(W_LINK);
            let link = Link(w.word(link_at));
            fill_line(w, line, &[entry], link.next());
            w.put(link_at, link.with_next(line).0);
        }
    }
    w.will_change(bucket);
    Ok(())
}

/// Fills an overflow line that is not reachable yet.
pub(crate) fn fill_line(w: &mut Writer, line: Offset, entries: &[u64], next: Offset) {
    w.segment.fence_release();
    w.segment.store(line, 0);
    for i in 0..ENTRIES {
        let entry = entries.get(i as usize).copied().unwrap_or(0);
        w.segment.store(line.word(W_ENTRY + i), entry);
    }
    w.segment.store(line.word(W_LINK), Link(0).with_next(next).0);
}

/// Empties an entry. Gives the overflow line that is unlinked because it became empty.
pub(crate) fn remove(w: &mut Writer, bucket: Offset, entry_at: Offset) -> Result<Option<Offset>> {
    w.put(entry_at, 0);
    w.will_change(bucket);
    if entry_at.0 < bucket.0 + bucket::LINE_BYTES && entry_at.0 >= bucket.0 {
        return Ok(None);
    }
    let mut previous = bucket;
    let emptied = for_each_line(w, bucket, |line, link| {
        if entry_at.0 >= line.0 && entry_at.0 < line.0 + bucket::LINE_BYTES {
            return Ok(Some((previous, line, link)));
        }
        previous = line;
        Ok(None)
    })?;
    let Some((previous, line, link)) = emptied else {
        return Err(Error::corrupt(Damage::Bucket, bucket));
    };
    if (0..ENTRIES).any(|i| w.word(line.word(W_ENTRY + i)) != 0) {
        return Ok(None);
    }
    let at = previous.word(W_LINK);
    let before = Link(w.word(at));
    w.put(at, before.with_next(link.next()).0);
    Ok(Some(line))
}
