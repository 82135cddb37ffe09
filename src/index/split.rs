//! Splitting a bucket: its keys of one more index bit move to the partner, which is born by that.

use super::KeyHash;
use super::chain::{fill_line, for_each_line};
use super::find::checked_shape;
use super::roots::Roots;
use crate::error::{Damage, Error, Result};
use crate::format::Offset;
use crate::format::bucket::{self, ENTRIES, Link, W_ENTRY, W_LINK, entry_moves, entry_record, level_of};
use crate::lock::Rank;
use crate::writer::{Words, Writer};
use smallvec::SmallVec;

/// What a split needs besides the index: lines to chain, and where to put those that are left over.
pub(crate) trait Lines {
    fn take(&mut self, w: &mut Writer) -> Result<Offset>;
    fn free(&mut self, w: &mut Writer, line: Offset);
}

/// Plans the split of a bucket whose lock is held. False: not possible now, because the partner's memory is
/// not ready or somebody holds it.
pub(crate) fn split(
    w: &mut Writer,
    roots: &Roots,
    key_hash: KeyHash,
    index: u64,
    level: u32,
    lines: &mut impl Lines,
) -> Result<bool> {
    if level >= bucket::MAX_LEVEL {
        return Ok(false);
    }
    let partner_index = index + (1 << level);
    let (Some(home), Some(partner)) = (roots.bucket(index), roots.bucket(partner_index)) else {
        return Ok(false);
    };
    if !w.holds(partner) && !w.try_lock(partner, Rank::Ordinary)? {
        return Ok(false);
    }
    let partner_link = Link(w.word(partner.word(W_LINK)));
    if level_of(partner_index, partner_link, roots.base_level()).is_some() {
        return Err(Error::corrupt(Damage::Level, partner));
    }
    // Outside of groups nothing is planned yet, and each word is planned once: no need to look for it.
    let fresh = w.s.set().is_empty();
    let (in_bucket, in_lines, mut old_lines) = read_chain(w, home)?;
    let renew = bucket::window_changes_at(level + 1);
    let renewed = |w: &Writer, entry: u64| -> Result<u64> {
        if renew { rehash(w, key_hash, entry, level + 1) } else { Ok(entry) }
    };

    let mut kept = [0; ENTRIES as usize];
    let mut staying = Entries::new();
    let mut moving = Entries::new();
    for (i, entry) in in_bucket.iter().enumerate().filter(|(_, e)| **e != 0) {
        let new = renewed(w, *entry)?;
        if entry_moves(*entry, level) {
            moving.push(new);
        } else {
            kept[i] = new;
        }
    }
    for entry in in_lines {
        let new = renewed(w, entry)?;
        if entry_moves(entry, level) {
            moving.push(new);
            continue;
        }
        match kept.iter_mut().find(|e| **e == 0) {
            Some(hole) => *hole = new,
            None => staying.push(new),
        }
    }
    let link = write_chain(w, home, &in_bucket, (&kept, &staying), &mut old_lines, lines, fresh)?;
    w.put(home.word(W_LINK), link.with_level(level + 1).0);
    let (first, rest) = moving.split_at(moving.len().min(ENTRIES as usize));
    let link = write_chain(w, partner, &[0; 6], (first, rest), &mut old_lines, lines, fresh)?;
    w.put(partner.word(W_LINK), link.with_level(level + 1).0);
    for line in old_lines {
        lines.free(w, line);
    }
    w.will_change(home);
    w.will_change(partner);
    Ok(true)
}

/// Entries of a chain; they rarely need more than the stack.
type Entries = SmallVec<[u64; 16]>;
type ChainLines = SmallVec<[Offset; 4]>;
type Chain = ([u64; ENTRIES as usize], Entries, ChainLines);

/// The entries of a bucket, those of its overflow lines, and these lines.
fn read_chain(w: &Writer, home: Offset) -> Result<Chain> {
    let mut in_bucket = [0; ENTRIES as usize];
    let mut in_lines = Entries::new();
    let mut lines = ChainLines::new();
    for_each_line(w, home, |line, _| {
        for i in 0..ENTRIES {
            let entry = w.word(line.word(W_ENTRY + i));
            if line == home {
                in_bucket[i as usize] = entry;
            } else if entry != 0 {
                in_lines.push(entry);
            }
        }
        if line != home {
            lines.push(line);
        }
        Ok(None::<()>)
    })?;
    Ok((in_bucket, in_lines, lines))
}

/// Plans the six entries of a bucket and chains the others behind it, in old lines of the chain if there
/// are any. Gives the bucket's link. `fresh`: none of the bucket's words is planned yet.
fn write_chain(
    w: &mut Writer,
    home: Offset,
    before: &[u64; ENTRIES as usize],
    (entries, others): (&[u64], &[u64]),
    old_lines: &mut ChainLines,
    lines: &mut impl Lines,
    fresh: bool,
) -> Result<Link> {
    for i in 0..ENTRIES {
        let entry = entries.get(i as usize).copied().unwrap_or(0);
        if entry != before[i as usize] {
            if fresh {
                w.put_first(home.word(W_ENTRY + i), entry);
            } else {
                w.put(home.word(W_ENTRY + i), entry);
            }
        }
    }
    let mut next = Offset::NONE;
    for chunk in others.chunks(ENTRIES as usize) {
        let line = match old_lines.pop() {
            // Reachable until the commit: changed by plan.
            Some(line) => {
                for i in 0..ENTRIES {
                    w.put(line.word(W_ENTRY + i), chunk.get(i as usize).copied().unwrap_or(0));
                }
                w.put(line.word(W_LINK), Link(0).with_next(next).0);
                line
            }
            None => {
                let line = lines.take(w)?;
                fill_line(w, line, chunk, next);
                line
            }
        };
        next = line;
    }
    Ok(Link(w.word(home.word(W_LINK))).with_next(next))
}

/// The entry with the window of another level, for which the key has to be hashed.
#[cold]
fn rehash(w: &Writer, key_hash: KeyHash, entry: u64, level: u32) -> Result<u64> {
    let record = entry_record(entry);
    let shape = checked_shape(w.segment, record)?;
    let len = usize::try_from(shape.key_len).map_err(|_| Error::TooLarge("a key"))?;
    let mut key = Vec::new();
    key.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    // SAFETY: the buffer has room for `len` bytes, and the record was checked to lie inside of the object.
    unsafe {
        w.segment.copy_out(record.add(shape.header_bytes()), key.as_mut_ptr(), len);
        key.set_len(len);
    }
    Ok(bucket::entry(key_hash.hash(&key), level, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::bucket::LINE_BYTES;
    use crate::lock::Patience;
    use crate::object::{ManageOptions, OpenOptions};

    struct NoLines;

    impl Lines for NoLines {
        fn take(&mut self, _: &mut Writer) -> Result<Offset> {
            Err(Error::NoSpace)
        }
        fn free(&mut self, _: &mut Writer, _: Offset) {}
    }

    /// Goal: bytes by which a bucket is an overflow line of the one that it comes from do no harm. Method: each of some buckets
    /// whose partner is not born yet gets that as its only line, both full of keys, and is split.
    #[test]
    fn the_partner_may_be_a_line_of_the_bucket() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table =
            crate::HashTable::manage(&object, ManageOptions::new().expected(1 << 10)).expect("a table");
        for n in 0..2000u64 {
            table.add(&n.to_le_bytes(), b"value").expect("adds");
        }
        let table = table.table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        let roots = &table.view.roots;
        let mut splits = 0;
        for index in 0..roots.ready() {
            let Some(home) = roots.bucket(index) else { break };
            let link = Link(w.word(home.word(W_LINK)));
            let Some(level) = level_of(index, link, roots.base_level()) else { continue };
            let Some(partner) = roots.bucket(index + (1 << level)) else { continue };
            let partner_words: Vec<u64> = (0..LINE_BYTES / 8).map(|n| w.word(partner.word(n))).collect();
            let entries: Vec<u64> =
                (W_ENTRY..W_LINK).map(|n| w.word(home.word(n))).filter(|entry| *entry != 0).collect();
            let both =
                [0, 1].map(|bit| entries.iter().filter(|e| entry_moves(**e, level) == (bit == 1)).count());
            if both.contains(&0) || partner_words.iter().any(|word| *word != 0) || !link.next().is_none() {
                continue;
            }
            for (line, n) in [home, partner].iter().flat_map(|line| (0..ENTRIES).map(move |n| (line, n))) {
                w.segment.store(line.word(W_ENTRY + n), entries[n as usize % entries.len()]);
            }
            w.segment.store(home.word(W_LINK), link.with_next(partner).0);
            w.lock(home, Rank::Ordinary).expect("is free");
            let outcome = split(&mut w, roots, table.view.key_hash, index, level, &mut NoLines);
            assert!(matches!(outcome, Ok(true) | Err(Error::NoSpace | Error::Corrupt { .. })), "{outcome:?}");
            splits += 1;
            w.abort();
        }
        assert!(splits > 10, "{splits}");
    }
}
