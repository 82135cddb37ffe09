//! Objects made by hand for the tests of the checker: the bytes, as the design document says.
//!
//! It shares nothing with the checker and nothing with the rest of the crate. Memory is a set of pages,
//! so that objects of many gigabytes can be made, and so that reading a hole can be noticed.

use super::Image;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

pub(super) const SEED: u64 = 0x0123_4567_89ab_cdef;
/// Class numbers of the blocks that the tests speak of.
pub(super) const CLASS_32: u64 = 0;
pub(super) const CLASS_64: u64 = 2;
pub(super) const CLASS_80: u64 = 3;

#[derive(Clone)]
pub(super) struct Object {
    pages: BTreeMap<u64, Box<[u8; 4096]>>,
    pub(super) size: u64,
    /// Ranges that a checker must not read.
    pub(super) forbidden: Vec<Range<u64>>,
    sip: bool,
    /// The slab of each class in arena 0 that blocks are taken from, and the next block in it.
    slabs: HashMap<u64, (u64, u64)>,
}

impl Image for Object {
    fn size(&self) -> u64 {
        self.size
    }

    fn word(&self, offset: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        let end = offset.checked_add(into.len() as u64)?;
        if end > self.size {
            return None;
        }
        for range in &self.forbidden {
            assert!(end <= range.start || range.end <= offset, "read of {offset}..{end} in {range:?}");
        }
        for (at, byte) in (offset..).zip(into) {
            *byte = self.pages.get(&(at / 4096)).map_or(0, |page| page[(at % 4096) as usize]);
        }
        Some(())
    }
}

pub(super) fn class_size(class: u64) -> u64 {
    match class {
        0..=2 => 32 + 16 * class,
        _ => (5 + (class - 3) % 4) << (4 + (class - 3) / 4),
    }
}

impl Object {
    /// An empty object without any table: 32 pages.
    pub(super) fn new() -> Object {
        let mut object = Object {
            pages: BTreeMap::new(),
            size: 32 * 4096,
            forbidden: Vec::new(),
            sip: false,
            slabs: HashMap::new(),
        };
        object.set(0, u64::from_le_bytes([b'N', b'E', b'T', b'S', b'H', b'M', 0x1a, 0x0a]));
        for (word, value) in
            [(1, 1), (5, 1 << 16), (6, 3), (7, 1), (8, SEED), (10, 256), (12, 77), (14, 8192), (15, 16)]
        {
            object.set(8 * word, value);
        }
        object.set(3 * 4096 + 64, 8 * 4096);
        object.set(4 * 4096 + 64, 32);
        object
    }

    /// The same, with SipHash.
    pub(super) fn new_sip() -> Object {
        let mut object = Object::new();
        object.set(56, 2);
        object.set(72, 99);
        object.sip = true;
        object
    }

    pub(super) fn get(&self, offset: u64) -> u64 {
        let page = self.pages.get(&(offset / 4096));
        let at = (offset % 4096) as usize;
        page.map_or(0, |page| u64::from_le_bytes(page[at..at + 8].try_into().unwrap()))
    }

    pub(super) fn set(&mut self, offset: u64, value: u64) {
        let page = self.pages.entry(offset / 4096).or_insert_with(|| Box::new([0; 4096]));
        let at = (offset % 4096) as usize;
        page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn add(&mut self, offset: u64, value: i64) {
        self.set(offset, self.get(offset).wrapping_add_signed(value));
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, &byte) in (offset..).zip(bytes) {
            let page = self.pages.entry(at / 4096).or_insert_with(|| Box::new([0; 4096]));
            page[(at % 4096) as usize] = byte;
        }
    }

    /// All bytes in one piece.
    pub(super) fn flatten(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        for (page, from) in &self.pages {
            if let Some(to) = bytes.get_mut(*page as usize * 4096..(*page as usize + 1) * 4096) {
                to.copy_from_slice(&from[..]);
            }
        }
        bytes
    }

    // Pages.

    /// Where the descriptor of `page` lies.
    pub(super) fn descriptor(page: u64) -> u64 {
        if page < 1024 {
            return 24 * 4096 + 32 * page;
        }
        let first = 1 << page.ilog2();
        first * 4096 + 32 * (page - first)
    }

    /// Takes `n` pages at the end; what is left of a segment that is too short becomes a free run.
    fn take(&mut self, n: u64) -> u64 {
        loop {
            let used = self.get(4 * 4096 + 64);
            let end = if used < 1024 { 1024 } else { 2 << used.ilog2() };
            let first = if used >= 1024 && used.is_power_of_two() { used + used / 128 } else { used };
            if first + n <= end {
                self.set(4 * 4096 + 64, first + n);
                self.size = self.size.max((first + n) * 4096);
                return first;
            }
            self.set(4 * 4096 + 64, end);
            if first < end {
                self.free_at(first, end - first, true);
            }
        }
    }

    /// A run in use; its offset.
    pub(super) fn run(&mut self, purpose: u64, n: u64) -> u64 {
        let page = self.take(n);
        self.set(Object::descriptor(page), 3 | purpose << 8 | n << 32);
        if n > 1 {
            self.set(Object::descriptor(page + n - 1), 6 | n << 32);
        }
        page * 4096
    }

    /// A free run at the end; its page.
    pub(super) fn free_run(&mut self, n: u64, unbacked: bool) -> u64 {
        let page = self.take(n);
        self.free_at(page, n, unbacked);
        page
    }

    fn free_at(&mut self, page: u64, n: u64, unbacked: bool) {
        let bits = u64::from(unbacked) << 16 | n << 32;
        self.set(Object::descriptor(page), 1 | bits);
        if n > 1 {
            self.set(Object::descriptor(page + n - 1), 2 | bits);
        }
        let list = if n <= 16 { n - 1 } else { 12 + u64::from(n.ilog2()) };
        self.push(4 * 4096 + if unbacked { 512 } else { 128 } + 8 * list, page);
        self.set(Object::descriptor(page) + 16, 12345);
        self.add(4 * 4096 + if unbacked { 80 } else { 72 }, n as i64);
        self.forbidden.push(page * 4096..(page + n) * 4096);
    }

    /// Puts `page` at the front of a list.
    pub(super) fn push(&mut self, head: u64, page: u64) {
        let next = self.get(head);
        self.set(Object::descriptor(page) + 8, next);
        if next != 0 {
            let links = Object::descriptor(next) + 8;
            self.set(links, self.get(links) & 0xffff_ffff | page << 32);
        }
        self.set(head, page);
    }

    /// Takes the first page of a list off it.
    fn pop(&mut self, head: u64) {
        let next = self.get(Object::descriptor(self.get(head)) + 8) & 0xffff_ffff;
        if next != 0 {
            let links = Object::descriptor(next) + 8;
            self.set(links, self.get(links) & 0xffff_ffff);
        }
        self.set(head, next);
    }

    /// An empty slab; its page.
    pub(super) fn slab(&mut self, class: u64, arena: u64) -> u64 {
        let page = self.take(16);
        self.set(Object::descriptor(page), 4 | class << 8 | arena << 16 | 16 << 32);
        self.set(Object::descriptor(page) + 16, 65536 / class_size(class));
        for body in 1..16 {
            self.set(Object::descriptor(page + body), 5 | body << 32);
        }
        self.push(Object::slab_list(class, arena), page);
        page
    }

    pub(super) fn slab_list(class: u64, arena: u64) -> u64 {
        5 * 4096 + 512 * arena + 64 + 8 * class
    }

    /// Where the bitmap word of block `m` of a slab lies.
    pub(super) fn bitmap_word(slab: u64, m: u64) -> u64 {
        let n = m / 64;
        Object::descriptor(slab + 1 + n / 3) + 8 * (1 + n % 3)
    }

    /// Marks block `m` of a slab at the front of its list as used.
    pub(super) fn use_block(&mut self, slab: u64, m: u64) {
        let word = Object::bitmap_word(slab, m);
        self.set(word, self.get(word) | 1 << (m % 64));
        let head = Object::descriptor(slab);
        self.add(head + 16, -1);
        if self.get(head + 16) == 0 {
            let tag = self.get(head);
            self.pop(Object::slab_list((tag >> 8) & 0xff, (tag >> 16) & 0xff));
        }
    }

    /// A block of a class from arena 0, marked as used.
    pub(super) fn block(&mut self, class: u64) -> u64 {
        let (slab, m) = match self.slabs.get(&class) {
            Some(&(slab, m)) if m < 65536 / class_size(class) => (slab, m),
            _ => (self.slab(class, 0), 0),
        };
        self.slabs.insert(class, (slab, m + 1));
        self.use_block(slab, m);
        slab * 4096 + m * class_size(class)
    }

    /// Memory for a record of `size` bytes.
    pub(super) fn record_memory(&mut self, size: u64) -> u64 {
        match (0..35).find(|&class| class_size(class) >= size) {
            Some(class) => self.block(class),
            None => self.run(1, size.div_ceil(4096)),
        }
    }

    // Slots.

    /// Where a slot of chunk 0 lies.
    pub(super) fn slot(slot: u64) -> u64 {
        8 * 4096 + (slot - 1) * 8192
    }

    /// Magazine cell `n` of a slot and class.
    pub(super) fn cell(slot: u64, class: u64, n: u64) -> u64 {
        Object::slot(slot) + 8 * (416 + 16 * class + n)
    }

    // Tables.

    /// A root with array 0 and counters; it is in no list yet.
    pub(super) fn root(&mut self, base: u64) -> u64 {
        let root = self.run(4, 1);
        let buckets = self.run(2, (64_u64 << base).div_ceil(4096));
        let counters = self.run(3, 1);
        for (word, value) in
            [(0, 1), (1, base), (9, 1 << base), (16, 1 << base), (32, buckets), (80, counters)]
        {
            self.set(root + 8 * word, value);
        }
        root
    }

    /// Adds bucket array `k` to a root, all of it ready.
    pub(super) fn array(&mut self, root: u64, k: u64) -> u64 {
        let base = self.get(root + 8);
        let buckets = self.run(2, (64_u64 << (base + k - 1)).div_ceil(4096));
        self.set(root + 8 * (32 + k), buckets);
        self.set(root + 72, 1 << (base + k));
        buckets
    }

    pub(super) fn bucket(&self, root: u64, index: u64) -> u64 {
        let base = self.get(root + 8);
        if index < 1 << base {
            return self.get(root + 8 * 32) + 64 * index;
        }
        let top = u64::from(index.ilog2());
        self.get(root + 8 * (32 + top - base + 1)) + 64 * (index - (1 << top))
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        if self.sip {
            siphasher::sip::SipHasher13::new_with_keys(SEED, 99).hash(key)
        } else {
            xxhash_rust::xxh3::xxh3_64_with_seed(key, SEED)
        }
    }

    pub(super) fn level(&self, root: u64, index: u64) -> u64 {
        let base = self.get(root + 8);
        match (self.get(self.bucket(root, index) + 56) >> 40) & 0xff {
            0 if index < 1 << base => base,
            level => level,
        }
    }

    pub(super) fn set_level(&mut self, root: u64, index: u64, level: u64) {
        let last = self.bucket(root, index) + 56;
        self.set(last, self.get(last) & !(0xff << 40) | level << 40);
    }

    /// The bucket that a hash belongs to, and its level.
    pub(super) fn home(&self, root: u64, hash: u64) -> (u64, u64) {
        for level in (self.get(root + 8)..=40).rev() {
            let index = hash % (1 << level);
            if index < self.get(root + 72) && self.level(root, index) >= level {
                let level = self.level(root, index);
                return (hash % (1 << level), level);
            }
        }
        unreachable!("array 0 is always born");
    }

    /// Splits a bucket that is empty.
    pub(super) fn split(&mut self, root: u64, index: u64) {
        let level = self.level(root, index);
        self.set_level(root, index, level + 1);
        self.set_level(root, index + (1 << level), level + 1);
    }

    /// The entry of a key: where it is.
    pub(super) fn entry_of(&self, root: u64, key: &[u8]) -> Option<u64> {
        let hash = self.hash(key);
        let (index, _) = self.home(root, hash);
        let mut line = self.bucket(root, index);
        while line != 0 {
            for word in 1..7 {
                let entry = self.get(line + 8 * word);
                let record = (entry & 0xff_ffff_ffff) * 16;
                let length = self.get(record + 8) & 0xffff_ffff;
                let mut held = vec![0; length as usize];
                if entry != 0 && self.read(record + 16, &mut held).is_some() && held == key {
                    return Some(line + 8 * word);
                }
            }
            line = (self.get(line + 56) & 0xff_ffff_ffff) * 16;
        }
        None
    }

    /// A record, not yet reachable.
    pub(super) fn record(&mut self, older: u64, key: &[u8], value: &[u8]) -> u64 {
        let padded = (key.len() as u64).next_multiple_of(8);
        let record = self.record_memory(16 + padded + (value.len() as u64).next_multiple_of(8));
        self.set(record, older / 16);
        self.set(record + 8, key.len() as u64 | (value.len() as u64) << 32);
        self.write(record + 16, key);
        self.write(record + 16 + padded, value);
        record
    }

    /// Puts a record into the first hole of the chain of its key's bucket; where the entry is.
    pub(super) fn enter(&mut self, root: u64, key: &[u8], record: u64) -> u64 {
        let hash = self.hash(key);
        let (index, level) = self.home(root, hash);
        let window = (hash >> (6 + 8 * (level.saturating_sub(6) / 8))) & 0xff;
        let entry = (record / 16) | (window << 40) | (hash >> 48 << 48);
        let mut line = self.bucket(root, index);
        loop {
            if let Some(word) = (1..7).find(|word| self.get(line + 8 * word) == 0) {
                self.set(line + 8 * word, entry);
                return line + 8 * word;
            }
            let link = self.get(line + 56);
            if link & 0xff_ffff_ffff == 0 {
                let next = self.block(CLASS_64);
                self.set(line + 56, link | (next / 16));
            }
            line = (self.get(line + 56) & 0xff_ffff_ffff) * 16;
        }
    }

    /// Adds a binding for a key that has none, counted under slot 1; where the record is.
    pub(super) fn insert(&mut self, root: u64, key: &[u8], value: &[u8]) -> u64 {
        let record = self.record(0, key, value);
        self.enter(root, key, record);
        self.count(root, 1, 1);
        record
    }

    /// Adds a binding on top of that of a key that has one.
    pub(super) fn stack(&mut self, root: u64, key: &[u8], value: &[u8]) -> u64 {
        let entry = self.entry_of(root, key).unwrap();
        let older = (self.get(entry) & 0xff_ffff_ffff) * 16;
        let record = self.record(older, key, value);
        self.set(entry, self.get(entry) & !0xff_ffff_ffff | (record / 16));
        self.count(root, 2, 1);
        record
    }

    pub(super) fn count(&mut self, root: u64, slot: u64, change: i64) {
        let line = self.get(root + 8 * 80) + 64 * (slot - 1);
        self.add(line, change);
    }
}
