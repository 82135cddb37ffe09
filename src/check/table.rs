//! Table roots: those of tables without and with names, retired and spare ones, with their bucket arrays and counters.

use super::claims::{Claimed, Want};
use super::fixed::{Hash, Header};
use super::layout::*;
use super::record::Key;
use super::{Check, Step};
use crate::error::Damage;
use std::collections::HashSet;

const WORDS: usize = (PAGE / 8) as usize;
const ARRAYS: usize = 32;
const CHUNKS: usize = 80;
/// Byte ranges of a root that have a meaning for hash tables; all other words are zero.
const USED: &[(u64, u64)] =
    &[(0, 16), (32, 48), (64, 80), (128, 136), (192, 200), (8 * 32, 8 * 96), (8 * 128, 8 * 256)];

/// What only arrays use: default value and length, and the bytes of a longer default value.
const USED_BY_ARRAYS: [(u64, u64); 2] = [(48, 64), (8 * 256, 8 * 512)];
/// Kinds of tables: hash table, array, primitive table.
const KINDS: std::ops::RangeInclusive<u64> = 1..=3;
const ARRAY: u64 = 2;
/// Entries of a page of the catalog begin here, and have as many bytes.
const ENTRY: u64 = 256;
const MAX_NAME: u64 = ENTRY - 16;

/// What a root is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is a table with or without a name.
    Live,
    Retired,
    Spare,
}

/// A root that is plausible enough to follow.
pub(super) struct Table {
    pub(super) role: Role,
    pub(super) hash: Hash,
    /// Base level.
    pub(super) base: u64,
    /// Number of buckets to judge.
    pub(super) ready: u64,
    /// These are all buckets that there are.
    pub(super) whole: bool,
    /// Number of buckets that must be empty because they were swept.
    pub(super) swept: u64,
    arrays: [u64; BUCKET_ARRAYS as usize],
}

impl Table {
    /// Where bucket `index` lies; it must be below `ready`.
    pub(super) fn bucket(&self, index: u64) -> u64 {
        if index >> self.base == 0 {
            return self.arrays[0] + 64 * index;
        }
        let top = u64::from(index.ilog2());
        self.arrays[(top - self.base + 1) as usize] + 64 * (index - (1 << top))
    }
}

/// What was found in one table.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) bindings: u64,
    pub(super) keys: u64,
    pub(super) buckets: u64,
    pub(super) lines: u64,
    pub(super) record_bytes: u64,
    /// Something could not be followed, so the numbers are too small.
    pub(super) cut: bool,
    /// The keys of the bucket under inspection: hash, offset of the entry, place.
    pub(super) seen: Vec<(u64, u64, Key)>,
}

impl Check<'_> {
    /// All roots.
    pub(super) fn tables(&mut self, header: &Header) -> Step {
        let Some(main) = self.word(MAIN_ROOT)? else { return Ok(()) };
        if main != 0 {
            self.root(MAIN_ROOT, main, Role::Live, header)?;
        }
        self.catalog(header)?;
        self.summary.retired_roots = self.root_list(RETIRED_ROOTS, Role::Retired, header)?;
        self.summary.spare_roots = self.root_list(SPARE_ROOTS, Role::Spare, header)?;
        Ok(())
    }

    /// The named tables. Claims make the chain of pages end.
    fn catalog(&mut self, header: &Header) -> Step {
        let mut names = HashSet::new();
        let mut link = CATALOG;
        while let Some(page @ 1..) = self.word(link)? {
            if !self.exact_run(link, page, ROOT, PAGE, Damage::Root)? {
                return Ok(());
            }
            if header.strict {
                self.zero_but(page, ENTRY, &[(0, 8)], Damage::Root)?;
            }
            for entry in (page + ENTRY..page + PAGE).step_by(ENTRY as usize) {
                let Some(root @ 1..) = self.word(entry)? else { continue };
                let Some(length) = self.word(entry + 8)? else { return Ok(()) };
                if length == 0 || length > MAX_NAME {
                    self.say(Damage::Root, entry + 8, format!("the name of a table has {length} bytes"))?;
                } else {
                    let mut name = vec![0; length as usize];
                    if self.read(entry + 16, &mut name)? && !names.insert(name) {
                        self.say(Damage::Root, entry + 16, "two tables have this name".into())?;
                    }
                }
                self.root(entry, root, Role::Live, header)?;
            }
            link = page;
        }
        Ok(())
    }

    /// A list of roots; the answer is their number. Claims make it end.
    fn root_list(&mut self, head: u64, role: Role, header: &Header) -> Step<u64> {
        let mut count = 0;
        let mut link = head;
        while let Some(root @ 1..) = self.word(link)? {
            if !self.root(link, root, role, header)? {
                break;
            }
            count += 1;
            link = root + 32;
        }
        Ok(count)
    }

    /// One root and all that hangs from it; false: there is no root.
    fn root(&mut self, link: u64, root: u64, role: Role, header: &Header) -> Step<bool> {
        if !self.exact_run(link, root, ROOT, PAGE, Damage::Root)? {
            return Ok(false);
        }
        let Some(words) = self.words::<WORDS>(root)? else { return Ok(false) };
        let base = words[1];
        if !KINDS.contains(&words[0]) || base > MAX_LEVEL {
            self.incomplete = true;
            let (at, text) = if KINDS.contains(&words[0]) {
                (root + 8, format!("the base level {base} is impossible"))
            } else {
                (root, format!("the kind of table {} is unknown", words[0]))
            };
            return self.say(Damage::Root, at, text).map(|()| true);
        }
        self.lock_word(root + 64, words[8])?;
        for (word, of) in [(128, "key"), (192, "value")] {
            if words[word] > MAX_SIGNATURE {
                let text = format!("the signature of the {of} type has {} bytes", words[word]);
                self.say(Damage::Root, root + 8 * word as u64, text)?;
            }
        }
        if header.strict {
            let mut used = USED.to_vec();
            if words[0] == ARRAY {
                used.extend(USED_BY_ARRAYS);
            }
            self.zero_but(root, PAGE, &used, Damage::Root)?;
        }
        let incomplete_before = std::mem::replace(&mut self.incomplete, false);
        self.contents(root, &words, role, header)?;
        self.incomplete |= incomplete_before;
        Ok(true)
    }

    /// Arrays, buckets and counters of a root.
    fn contents(&mut self, root: u64, words: &[u64; WORDS], role: Role, header: &Header) -> Step {
        let base = words[1];
        let present = self.arrays(root, words)?;
        let mut ready = words[9];
        if ready >> base == 0 || (ready > present && !self.incomplete) {
            self.incomplete = true;
            let text = format!("{ready} buckets are ready, {present} exist, {} must", 1_u64 << base);
            self.say(Damage::Root, root + 72, text)?;
            // Nobody knows where the memory ends, and reading a hole would fill it.
            ready = 0;
        }
        ready = ready.min(present);
        let mut swept = if role == Role::Retired { words[5] } else { 0 };
        if swept > words[9] {
            let text = format!("{swept} buckets are swept, {} are ready", words[9]);
            self.say(Damage::Root, root + 40, text)?;
            swept = 0;
        }
        let arrays = std::array::from_fn(|k| words[ARRAYS + k]);
        let table = Table { role, hash: header.hash, base, ready, whole: !self.incomplete, swept, arrays };
        let mut tally = Tally::default();
        for index in 0..ready {
            if !self.bucket(&table, &mut tally, index)? {
                break;
            }
        }
        self.counters(root, words, &tally)?;
        if role == Role::Live {
            self.summary.tables += 1;
            self.summary.bindings += tally.bindings;
            self.summary.keys += tally.keys;
            self.summary.buckets += tally.buckets;
            self.summary.overflow_lines += tally.lines;
            self.summary.record_bytes += tally.record_bytes;
        }
        Ok(())
    }

    /// Claims the bucket arrays; the answer is how many buckets there are, up to the first that is missing.
    fn arrays(&mut self, root: u64, words: &[u64; WORDS]) -> Step<u64> {
        let base = words[1];
        let mut present = 0;
        let mut absent = false;
        for k in 0..BUCKET_ARRAYS {
            let referrer = root + 8 * (ARRAYS as u64 + k);
            let offset = words[ARRAYS + k as usize];
            if offset == 0 {
                absent = true;
                continue;
            }
            if k > MAX_LEVEL - base {
                self.incomplete = true;
                self.say(Damage::Root, referrer, format!("bucket array {k} lies beyond the highest level"))?;
                continue;
            }
            if std::mem::take(&mut absent) {
                self.incomplete = true;
                self.say(
                    Damage::Root,
                    referrer,
                    format!("bucket array {k} exists, the one before it does not"),
                )?;
            }
            let (first, count) = doubling(1 << base, k);
            let usable = self.exact_run(referrer, offset, BUCKETS, 64 * count, Damage::Root)?;
            self.incomplete |= !usable;
            if !self.incomplete {
                present = first + count;
            }
        }
        Ok(present)
    }

    /// The counters must add up to the bindings found.
    fn counters(&mut self, root: u64, words: &[u64; WORDS], tally: &Tally) -> Step {
        let mut sum = 0_i128;
        let mut cut = tally.cut || self.incomplete;
        for k in 0..COUNTER_CHUNKS {
            let chunk = words[CHUNKS + k as usize];
            let referrer = root + 8 * (CHUNKS as u64 + k);
            let (first, count) = doubling(64, k);
            if chunk == 0 {
                continue;
            }
            if first >= MAX_SLOT {
                self.incomplete = true;
                cut = true;
                self.say(Damage::Root, referrer, format!("counter chunk {k} is for impossible slots"))?;
                continue;
            }
            if !self.exact_run(referrer, chunk, COUNTERS, 64 * count, Damage::Root)? {
                cut = true;
                continue;
            }
            for line in 0..count.min(MAX_SLOT - first) {
                let Some(counter) = self.word(chunk + 64 * line)? else {
                    cut = true;
                    break;
                };
                sum += i128::from(counter as i64);
            }
        }
        if !cut && sum != i128::from(tally.bindings) {
            let text = format!("{sum} bindings are counted, there are {}", tally.bindings);
            self.say(Damage::Count, root + 8 * CHUNKS as u64, text)?;
        }
        Ok(())
    }

    /// Claims a record or overflow line of a table.
    pub(super) fn follow(
        &mut self,
        tally: &mut Tally,
        referrer: u64,
        offset: u64,
        want: Want,
    ) -> Step<Option<Claimed>> {
        let claimed = self.claim(referrer, offset, want)?;
        tally.cut |= claimed.is_none();
        Ok(claimed)
    }
}
