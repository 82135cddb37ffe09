//! The internals of a table as text.
//!
//! Reads and formats, and changes nothing. Everything that it follows is checked first, as other readers do; what is
//! impossible is an error, not text.

use super::TableView;
use crate::error::{Damage, Error, Result};
use crate::format::bucket::{self, ENTRIES, Link, W_ENTRY, W_LINK, level_of};
use crate::format::lock_word::LockWord;
use crate::format::{Offset, root};
use crate::index::chain;
use crate::writer::Words;
use std::fmt::Write;

/// Most bytes of a key, and of a value, that are shown.
const SHOWN_BYTES: u64 = 16;

/// The table as text. Nobody else changes it meanwhile, if the caller has seen to that.
pub(crate) fn of<W: Words>(words: &W, table: &TableView) -> Result<String> {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = head(words, table, &mut out);
    let roots = &table.roots;
    let (mut born, mut empty) = (0u64, 0u64);
    for index in 0..roots.ready() {
        let at = roots.bucket(index).ok_or(Error::corrupt(Damage::Level, roots.root()))?;
        let link = Link(words.word(at.word(W_LINK)));
        let Some(level) = level_of(index, link, roots.base_level()) else { continue };
        born += 1;
        if (W_ENTRY..=ENTRIES).all(|i| words.word(at.word(i)) == 0) && link.next().is_none() {
            empty += 1;
            continue;
        }
        let lock = LockWord(words.segment().load(at));
        let _ = writeln!(out, "bucket {index} at {:#x}: level {level}, lock {:#x}", at.0, lock.0);
        chain::for_each_line(words, at, |line, _| {
            if line != at {
                let _ = writeln!(out, "  overflow line at {:#x}", line.0);
            }
            for i in 0..ENTRIES {
                let entry = words.word(line.word(W_ENTRY + i));
                if entry != 0 {
                    stack(words, i, entry, &mut out)?;
                }
            }
            Ok(None::<()>)
        })?;
    }
    let _ = writeln!(out, "buckets: {} ready, {born} born, {empty} of them empty", roots.ready());
    Ok(out)
}

/// What the root says, and the counters.
fn head<W: Words>(words: &W, table: &TableView, out: &mut String) -> std::fmt::Result {
    let root = table.roots.root();
    let word = |n: u64| words.word(root.word(n));
    writeln!(
        out,
        "root at {:#x}: kind {}, base level {}",
        root.0,
        word(root::W_KIND),
        table.roots.base_level()
    )?;
    writeln!(
        out,
        "buckets permitted {}, expected {}, rough number of bindings {}",
        word(root::W_PERMITTED),
        table.roots.expected(),
        word(root::W_ROUGH_COUNT) as i64
    )?;
    for k in 0..root::max_arrays(table.roots.base_level()) {
        let array = word(root::W_ARRAYS + u64::from(k));
        if array != 0 {
            let buckets = root::array_buckets(k, table.roots.base_level());
            writeln!(out, "array {k} at {array:#x}: {buckets} buckets")?;
        }
    }
    let mut sum = 0u64;
    for chunk in 0..root::COUNTER_CHUNKS {
        let base = Offset(word(root::W_COUNTERS + u64::from(chunk)));
        let lines = root::counter_chunk_lines(chunk);
        if base.is_none()
            || !words.segment().contains(base, u64::from(root::counter_chunk_pages(chunk)) * 4096)
        {
            continue;
        }
        for i in 0..lines {
            let count = words.word(root::counter_line(base, i));
            sum = sum.wrapping_add(count);
            if count != 0 {
                let before = if chunk == 0 { 0 } else { lines };
                writeln!(out, "counter of slot {}: {}", before + i + 1, count as i64)?;
            }
        }
    }
    writeln!(out, "bindings: {}", sum as i64)
}

/// One entry with all bindings of its key.
fn stack<W: Words>(words: &W, number: u64, entry: u64, out: &mut String) -> Result<()> {
    let tag = bucket::tag_bits(entry) >> 48;
    let _ = writeln!(out, "  entry {number}: tag {tag:#06x}, window {:#04x}", entry >> 40 & 0xff);
    chain::for_each_binding(words, bucket::entry_record(entry), |record, shape| {
        let key = beginning(words, record.add(shape.header_bytes()), shape.key_len);
        let value = beginning(words, record.add(shape.value_at()), shape.value_len);
        let _ = writeln!(
            out,
            "    record at {:#x}: key of {} bytes {key}, value of {} bytes {value}",
            record.0, shape.key_len, shape.value_len
        );
        Ok(None::<()>)
    })?;
    Ok(())
}

/// The first bytes of a range that was checked, in hexadecimal.
fn beginning<W: Words>(words: &W, at: Offset, len: u64) -> String {
    let mut text = String::from("[");
    for i in 0..len.min(SHOWN_BYTES) {
        let byte = words.word(at.word(i / 8)).to_le_bytes()[(i % 8) as usize];
        let _ = write!(text, "{byte:02x}");
    }
    text + if len > SHOWN_BYTES { "...]" } else { "]" }
}
