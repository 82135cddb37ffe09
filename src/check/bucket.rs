//! Buckets: levels, the tree of splits, overflow lines, entries.
//!
//! The levels say completely which buckets are born: bucket `i` was born when the bucket with `i`'s top
//! bit cleared was split, and every split of `i` since then has made one child. So it suffices to look
//! at each bucket's parent and children for the buckets to divide all hashes without gap or overlap.

use super::claims::Want;
use super::layout::*;
use super::record::Key;
use super::table::{Role, Table, Tally};
use super::{Check, Step};
use crate::error::Damage;

/// The words of a line that hold entries.
const ENTRIES: std::ops::RangeInclusive<usize> = 1..=6;
/// Byte offset of the last word: link and level.
const LAST: u64 = 56;

/// What a bucket's level says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Born(u64),
    Unborn,
    Impossible,
}

impl Check<'_> {
    /// One bucket with its chain; false: the file ends before it.
    pub(super) fn bucket(&mut self, table: &Table, tally: &mut Tally, index: u64) -> Step<bool> {
        let at = table.bucket(index);
        let Some(line) = self.words::<8>(at)? else { return Ok(false) };
        self.lock_word(at, line[0])?;
        if line[7] >> 48 != 0 {
            self.say(Damage::Bucket, at + LAST, format!("bucket {index} has reserved bits, {:#x}", line[7]))?;
        }
        let level = self.level(table, index, line[7])?;
        let swept = index < table.swept;
        if let Some(word) = first_content(&line) {
            if level == Level::Unborn || table.role == Role::Spare || swept {
                let text = format!("bucket {index} is unborn or swept, and not empty");
                self.say(Damage::Bucket, at + 8 * word as u64, text)?;
            }
            self.chain(table, tally, index, level, line)?;
        }
        if let Level::Born(level) = level {
            tally.buckets += 1;
            if !swept {
                self.relations(table, index, level)?;
            }
        }
        Ok(true)
    }

    /// The level of a bucket, judged by itself.
    fn level(&mut self, table: &Table, index: u64, last: u64) -> Step<Level> {
        let stored = stored_level(last);
        let old = index >> table.base == 0;
        let lowest = lowest_level(table, index);
        if stored == 0 {
            return Ok(if old { Level::Born(table.base) } else { Level::Unborn });
        }
        let possible = (lowest..=MAX_LEVEL).contains(&stored);
        if possible && (table.role != Role::Spare || (old && stored == table.base)) {
            return Ok(Level::Born(stored));
        }
        let text = format!("bucket {index} cannot have level {stored}");
        self.say(Damage::Level, table.bucket(index) + LAST, text)?;
        Ok(Level::Impossible)
    }

    /// A born bucket's parent was split to make it, and its own splits have made children.
    fn relations(&mut self, table: &Table, index: u64, level: u64) -> Step {
        let last = table.bucket(index) + LAST;
        let lowest = lowest_level(table, index);
        if index >> table.base != 0 {
            let parent = index ^ (1 << (lowest - 1));
            let at = table.bucket(parent) + LAST;
            let Some(word) = self.word(at)? else { return Ok(()) };
            // A bucket of array 0 that says 0 is of the base level, which is too low as well.
            if stored_level(word) < lowest && parent >= table.swept {
                let text = format!("bucket {index} is born, but bucket {parent} was not split to make it");
                self.say(Damage::Level, last, text)?;
            }
        }
        for split in lowest..level {
            let child = index + (1 << split);
            if child >= table.ready && !table.whole {
                break;
            }
            if child >= table.ready {
                let text =
                    format!("bucket {index} of level {level} was split into bucket {child} without memory");
                return self.say(Damage::Level, last, text);
            }
            let at = table.bucket(child) + LAST;
            let Some(word) = self.word(at)? else { return Ok(()) };
            if stored_level(word) == 0 {
                let text = format!("bucket {child} is unborn, but bucket {index} has level {level}");
                self.say(Damage::Level, at, text)?;
            }
        }
        Ok(())
    }

    /// All entries of a bucket and of its overflow lines.
    fn chain(
        &mut self,
        table: &Table,
        tally: &mut Tally,
        index: u64,
        level: Level,
        mut line: [u64; 8],
    ) -> Step {
        let mut at = table.bucket(index);
        tally.seen.clear();
        loop {
            for word in ENTRIES {
                if line[word] != 0 {
                    self.entry(table, tally, (index, level), at + 8 * word as u64, line[word])?;
                }
            }
            let next = (line[7] & UNIT_MASK) * UNIT;
            if next == 0 || self.follow(tally, at + LAST, next, Want::Line)?.is_none() {
                break;
            }
            tally.lines += 1;
            at = next;
            let Some(words) = self.words(at)? else { break };
            line = words;
            if line[0] != 0 {
                self.say(
                    Damage::Bucket,
                    at,
                    format!("the first word of an overflow line is {:#x}", line[0]),
                )?;
            }
            if line[7] >> 40 != 0 {
                let text = format!("an overflow line has a level or reserved bits, {:#x}", line[7]);
                self.say(Damage::Bucket, at + LAST, text)?;
            }
            if line[ENTRIES] == [0; 6] {
                self.say(Damage::Bucket, at + 8, "an overflow line has no entry".into())?;
            }
        }
        self.unique(tally)
    }

    /// One entry with its chain of records.
    fn entry(
        &mut self,
        table: &Table,
        tally: &mut Tally,
        (index, level): (u64, Level),
        at: u64,
        entry: u64,
    ) -> Step {
        let newest = (entry & UNIT_MASK) * UNIT;
        if newest == 0 {
            return self.say(Damage::Bucket, at, format!("the entry {entry:#x} refers to no record"));
        }
        let Some(key) = self.bindings(tally, at, newest)? else { return Ok(()) };
        let Some(hash) = self.hash(table.hash, key)? else { return Ok(()) };
        tally.seen.push((hash, at, key));
        if entry >> 48 != hash >> 48 {
            let text = format!("the entry {entry:#x} has a tag that is not its key's, of hash {hash:#x}");
            return self.say(Damage::Bucket, at, text);
        }
        let Level::Born(level) = level else { return Ok(()) };
        let window = (hash >> (6 + 8 * (level.saturating_sub(6) / 8))) & 0xff;
        if (entry >> 40) & 0xff != window {
            let text = format!("the entry {entry:#x} should have the window {window:#x}");
            return self.say(Damage::Bucket, at, text);
        }
        let home = hash & ((1 << level) - 1);
        if home != index {
            let text = format!("a key of bucket {home} at level {level} is in bucket {index}");
            return self.say(Damage::Misplaced, at, text);
        }
        Ok(())
    }

    /// No key is in two entries of a chain.
    fn unique(&mut self, tally: &mut Tally) -> Step {
        tally.seen.sort_unstable_by_key(|&(hash, at, _)| (hash, at));
        for group in tally.seen.chunk_by(|one, other| one.0 == other.0) {
            if group.len() > 1 {
                self.unique_of_one_hash(group)?;
            }
        }
        Ok(())
    }

    /// The same among keys whose hashes are equal. A second hash keeps this short even if somebody has
    /// made many such keys.
    #[cold]
    fn unique_of_one_hash(&mut self, group: &[(u64, u64, Key)]) -> Step {
        let mut again = Vec::with_capacity(group.len());
        for &(_, at, key) in group {
            if let Some(hash) = self.second_hash(key)? {
                again.push((hash, at, key));
            }
        }
        again.sort_unstable_by_key(|&(hash, at, _)| (hash, at));
        for pair in again.windows(2) {
            let ((one, first, key), (other, second, same)) = (pair[0], pair[1]);
            if one == other && self.same_key(key, same)? == Some(true) {
                self.say(Damage::Bucket, second, format!("the entry at {first} has the same key"))?;
            }
        }
        Ok(())
    }
}

/// The word of the first entry or link of a line, if it has any.
fn first_content(line: &[u64; 8]) -> Option<usize> {
    let link = (line[7] & UNIT_MASK != 0).then_some(7);
    ENTRIES.into_iter().find(|&word| line[word] != 0).or(link)
}

fn stored_level(last: u64) -> u64 {
    (last >> 40) & 0xff
}

/// The level of a bucket when it was born.
fn lowest_level(table: &Table, index: u64) -> u64 {
    if index >> table.base == 0 { table.base } else { u64::from(index.ilog2()) + 1 }
}
