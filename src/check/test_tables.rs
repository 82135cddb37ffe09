//! Goal and method as in `tests`: damage to roots, buckets, entries and records.

use super::test_image::{CLASS_32, CLASS_64, Object};
use super::tests::*;
use crate::error::Damage;

const PAGE: u64 = 4096;
const GATE: u64 = 2 * PAGE;
const UNIT_MASK: u64 = (1 << 40) - 1;

/// A table with the two keys `key(0)` and `key(1)` in one bucket of level 0, and where their entries are.
fn small() -> (Object, u64, [u64; 2]) {
    let mut o = Object::new();
    let root = o.root(0);
    o.set(GATE + 64, root);
    o.array(root, 1);
    o.set(root + 72, 1);
    for n in 0..2 {
        o.insert(root, &key(n), b"");
    }
    let entries = [0, 1].map(|n| o.entry_of(root, &key(n)).unwrap());
    (o, root, entries)
}

/// Like `expect`, on the small object.
#[track_caller]
fn expect_small(change: impl FnOnce(&mut Object, u64, [u64; 2]) -> Vec<(Damage, u64)>) {
    let (mut o, root, entries) = small();
    let expected = change(&mut o, root, entries);
    let findings = judge(&o, 0).0;
    let found: Vec<_> = findings.iter().map(|finding| (finding.what, finding.offset)).collect();
    assert_eq!(found, expected, "{findings:#?}");
}

fn record(o: &Object, entry: u64) -> u64 {
    (o.get(entry) & UNIT_MASK) * 16
}

/// The small object with the catalog page that holds the tables `a` and `b`, and its first entry.
fn with_catalog(change: impl FnOnce(&mut Object, u64) -> Vec<(Damage, u64)>) {
    expect_small(|o, _, _| {
        let page = o.run(4, 1);
        o.set(GATE + 72, page);
        for (n, name) in [b'a', b'b'].into_iter().enumerate() {
            let entry = page + 256 * (1 + n as u64);
            let root = o.root(0);
            o.set(root, 1 + n as u64);
            o.set(entry, root);
            o.set(entry + 8, 1);
            o.set(entry + 16, u64::from(name));
        }
        change(o, page)
    });
}

#[test]
fn named_tables() {
    with_catalog(|_, _| Vec::new());
    let bad = |at: u64, value: u64, found: u64| {
        with_catalog(|o, page| {
            o.set(page + at, value);
            vec![(Damage::Root, page + found)]
        });
    };
    // A name without bytes, one that is too long, the same twice; something behind the link.
    bad(256 + 8, 0, 256 + 8);
    bad(256 + 8, 241, 256 + 8);
    bad(512 + 16, u64::from(b'a'), 512 + 16);
    bad(8, 1, 8);
    // A chain that runs in a circle, and a table with two names.
    with_catalog(|o, page| {
        o.set(page, page);
        vec![(Damage::Twice, page)]
    });
    with_catalog(|o, page| {
        let first = o.get(page + 256);
        o.set(page + 768, first);
        o.set(page + 776, 1);
        o.set(page + 784, u64::from(b'c'));
        vec![(Damage::Twice, page + 768)]
    });
    // Only an array has a length.
    with_catalog(|o, page| {
        let array = o.get(page + 512);
        o.set(array + 56, 9);
        Vec::new()
    });
    with_catalog(|o, page| {
        let table = o.get(page + 256);
        o.set(table + 56, 9);
        vec![(Damage::Root, table + 56)]
    });
}

#[test]
fn roots() {
    let at = |word: u64| move |s: &Sample| s.root + 8 * word;
    for kind in [0, 4, 5, 1 << 32] {
        bad_word(Damage::Root, kind, at(0));
    }
    bad_word(Damage::Root, 41, at(1));
    for reserved in [2, 3, 6, 7, 10, 15, 17, 25, 31, 96, 127, 256, 511] {
        bad_word(Damage::Root, 1, at(reserved));
    }
    bad_word(Damage::Root, 505, at(128));
    bad_word(Damage::Root, 505, at(192));
    // Ready: less than the base, more than there is.
    bad_word(Damage::Root, 3, at(9));
    bad_word(Damage::Root, 17, at(9));
    bad_word(Damage::Root, u64::MAX, at(9));
    // Retired roots: the sweep.
    bad_word(Damage::Root, 3, |s| s.retired + 40);
    // The main root is no root, is in a list, is nothing.
    bad_word(Damage::NotAllocated, sample().large, |_| GATE + 64);
    bad_word(Damage::NotAllocated, 1 << 50, |_| GATE + 64);
    expect(|s| {
        s.o.set(s.retired + 32, s.root);
        vec![(Damage::Twice, s.retired + 32)]
    });
    expect(|s| {
        s.o.set(s.retired + 32, s.retired);
        vec![(Damage::Twice, s.retired + 32)]
    });
    expect(|s| {
        let long = s.o.run(4, 2);
        s.o.set(s.retired + 32, long);
        vec![(Damage::Root, s.retired + 32)]
    });
    expect(|s| {
        let second = s.o.get(s.spare + 32);
        let parts = [second, s.o.get(second + 8 * 32), s.o.get(second + 8 * 80)];
        s.o.set(s.spare + 32, 0);
        parts.map(|part| (Damage::Leaked, part)).to_vec()
    });
}

#[test]
fn bucket_arrays() {
    let word = |s: &Sample, k: u64| s.root + 8 * (32 + k);
    expect(|s| {
        // Gone, and half of the buckets with it.
        s.o.set(word(s, 1), 0);
        vec![(Damage::Root, word(s, 2))]
    });
    expect(|s| {
        s.o.set(word(s, 3), s.o.get(word(s, 2)));
        vec![(Damage::Twice, word(s, 3))]
    });
    expect(|s| {
        let long = s.o.run(2, 2);
        s.o.set(word(s, 3), long);
        vec![(Damage::Root, word(s, 3))]
    });
    expect(|s| {
        let beyond = s.o.run(2, 1);
        s.o.set(word(s, 39), beyond);
        vec![(Damage::Root, word(s, 39))]
    });
    expect(|s| {
        let other = s.o.run(3, 1);
        s.o.set(word(s, 3), other);
        vec![(Damage::NotAllocated, word(s, 3))]
    });
    // An array without memory is as good as any if none of its buckets is ready.
    let mut s = sample();
    let at = Object::descriptor(s.o.get(word(&s, 2)) / PAGE);
    s.o.set(at, s.o.get(at) | 1 << 16);
    assert_clean(&s.o);
}

#[test]
fn counters() {
    expect(|s| {
        s.o.count(s.root, 7, 1);
        vec![(Damage::Count, s.root + 640)]
    });
    expect(|s| {
        s.o.count(s.retired, 1, -3);
        vec![(Damage::Count, s.retired + 640)]
    });
    expect(|s| {
        s.o.count(s.spare, 1, 1);
        vec![(Damage::Count, s.spare + 640)]
    });
    expect(|s| {
        s.o.set(s.root + 648, s.o.get(s.root + 640));
        vec![(Damage::Twice, s.root + 648)]
    });
    expect(|s| {
        let run = s.o.run(3, 1);
        s.o.set(s.root + 656, run);
        vec![(Damage::Root, s.root + 656)]
    });
    expect(|s| {
        let run = s.o.run(3, 512);
        s.o.set(s.root + 8 * 90, run);
        s.o.set(s.root + 8 * 91, run);
        vec![(Damage::Root, s.root + 8 * 91)]
    });
    // Any chunk may be absent, and may hold any part of the sum.
    let mut s = sample();
    let run = s.o.run(3, 2);
    s.o.set(s.root + 656, run);
    s.o.set(run + 64 * 127, 1 << 40);
    s.o.count(s.root, 1, -(1 << 40));
    assert_clean(&s.o);
}

#[test]
fn levels() {
    // Too low for the base, too high for anything.
    let with_level = |level: u64| {
        move |o: &mut Object, root: u64, index: u64| {
            o.set_level(root, index, level);
            o.bucket(root, index) + 56
        }
    };
    for level in [1, 41, 255] {
        expect(|s| vec![(Damage::Level, with_level(level)(&mut s.o, s.root, 0))]);
    }
    // The base level may be said outright.
    let mut s = sample();
    s.o.set_level(s.root, 0, 2);
    assert_clean(&s.o);
    // Born with a level at which it did not exist.
    expect(|s| vec![(Damage::Level, with_level(2)(&mut s.o, s.root, 5))]);
    // Born without its parent's split.
    expect(|s| vec![(Damage::Level, with_level(3)(&mut s.o, s.root, 6))]);
}

#[test]
fn splits() {
    let empty = |levels: &[(u64, u64)], expected: &[u64]| {
        let mut o = Object::new();
        let root = o.root(1);
        o.set(GATE + 64, root);
        o.array(root, 1);
        o.array(root, 2);
        for &(index, level) in levels {
            o.set_level(root, index, level);
        }
        let expected: Vec<_> =
            expected.iter().map(|&index| (Damage::Level, o.bucket(root, index) + 56)).collect();
        let found: Vec<_> = judge(&o, 0).0.iter().map(|finding| (finding.what, finding.offset)).collect();
        assert_eq!(found, expected, "{levels:?}");
    };
    empty(&[(0, 2), (2, 2)], &[]);
    empty(&[(0, 3), (2, 2), (4, 3)], &[]);
    empty(&[(0, 3), (2, 3), (4, 3), (6, 3)], &[]);
    // A child is missing, also one of two.
    empty(&[(0, 2)], &[2]);
    empty(&[(0, 3), (4, 3)], &[2]);
    empty(&[(0, 3), (2, 2)], &[4]);
    // A parent was not split, or not often enough.
    empty(&[(2, 2)], &[2]);
    empty(&[(0, 2), (2, 2), (4, 3)], &[4]);
    empty(&[(0, 2), (2, 2), (6, 3)], &[6]);
    empty(&[(4, 3)], &[4]);
    // Split into a bucket that has no memory.
    empty(&[(0, 4), (2, 2), (4, 3)], &[0]);
    empty(&[(0, 2), (2, 4), (6, 3)], &[2]);
}

#[test]
fn unborn_spare_and_swept_buckets_are_empty() {
    for index in [4, 6] {
        expect(|s| {
            let at = s.o.bucket(s.root, index) + 8 * 3;
            let entry = s.o.entry_of(s.root, b"large").unwrap();
            s.o.set(at, s.o.get(entry));
            s.o.set(entry, 0);
            vec![(Damage::Bucket, at)]
        });
        expect(|s| {
            let (at, line) = (s.o.bucket(s.root, index) + 56, s.o.block(CLASS_64));
            s.o.set(at, line / 16);
            let again = s.o.entry_of(s.root, b"large").unwrap();
            s.o.set(line + 8, s.o.get(again));
            s.o.set(again, 0);
            vec![(Damage::Bucket, at)]
        });
    }
    expect(|s| {
        s.o.insert(s.spare, b"key", b"");
        vec![(Damage::Bucket, s.o.entry_of(s.spare, b"key").unwrap())]
    });
    expect(|s| {
        s.o.split(s.spare, 3);
        vec![(Damage::Level, s.o.bucket(s.spare, 3) + 56), (Damage::Level, s.o.bucket(s.spare, 128 + 3) + 56)]
    });
    expect(|s| {
        s.o.set(s.retired + 40, 2);
        vec![(Damage::Bucket, s.o.bucket(s.retired, 1) + 8)]
    });
    // What a sweep leaves behind: the parent swept and back at the base level, the child not yet.
    let mut s = sample();
    s.o.array(s.retired, 1);
    s.o.split(s.retired, 0);
    s.o.set_level(s.retired, 0, 0);
    assert_clean(&s.o);
    s.o.set(s.retired + 40, 0);
    assert_eq!(judge(&s.o, 0).0[0].what, Damage::Level);
}

#[test]
fn entries() {
    // Tag and window; an entry without a record.
    for bits in [1 << 48, 1 << 63, 1 << 40, 1 << 47] {
        expect_small(|o, _, [entry, _]| {
            o.set(entry, o.get(entry) ^ bits);
            vec![(Damage::Bucket, entry)]
        });
    }
    expect_small(|o, root, _| {
        let at = o.bucket(root, 0) + 8 * 5;
        o.set(at, 1 << 48);
        vec![(Damage::Bucket, at)]
    });
    // A record that is not allocated, and one that has an owner.
    expect_small(|o, root, [entry, _]| {
        let at = o.bucket(root, 0) + 8 * 6;
        o.set(at, o.get(entry));
        vec![(Damage::Twice, at)]
    });
    expect_small(|o, _, [entry, _]| {
        o.set(entry, o.get(entry) + 1);
        vec![(Damage::NotAllocated, entry)]
    });
    expect_small(|o, root, _| {
        let at = o.bucket(root, 0) + 8 * 6;
        o.set(at, root / 16);
        vec![(Damage::NotAllocated, at)]
    });
    // The same key in two entries.
    expect_small(|o, root, _| {
        let again = o.record(0, &key(0), b"again");
        let at = o.enter(root, &key(0), again);
        o.count(root, 1, 1);
        vec![(Damage::Bucket, at)]
    });
}

#[test]
fn same_key_in_two_lines() {
    expect(|s| {
        let again = s.o.record(0, b"large", b"");
        let at = s.o.enter(s.root, b"large", again);
        s.o.count(s.root, 1, 1);
        vec![(Damage::Bucket, at)]
    });
}

#[test]
fn misplaced() {
    expect_small(|o, root, [one, other]| {
        // Split without moving anybody: a key of one of the two halves is wrong.
        o.set(root + 72, 2);
        o.split(root, 0);
        let stranger = [(one, 0), (other, 1)].into_iter().filter(|&(_, n)| o.hash(&key(n)) % 2 == 1);
        stranger.map(|(entry, _)| (Damage::Misplaced, entry)).collect()
    });
    expect(|s| {
        let entry = s.o.entry_of(s.root, b"large").unwrap();
        let (home, _) = s.o.home(s.root, s.o.hash(b"large"));
        let hole =
            (0..4).filter(|&index| index != home).find_map(|index| hole(&s.o, s.o.bucket(s.root, index)));
        let hole = hole.unwrap();
        s.o.set(hole, s.o.get(entry));
        s.o.set(entry, s.o.get(s.o.bucket(s.root, home) + 8));
        s.o.set(s.o.bucket(s.root, home) + 8, 0);
        vec![(Damage::Misplaced, hole)]
    });
}

/// A place for an entry in a chain.
fn hole(o: &Object, mut line: u64) -> Option<u64> {
    while line != 0 {
        if let Some(word) = (1..7).find(|word| o.get(line + 8 * word) == 0) {
            return Some(line + 8 * word);
        }
        line = (o.get(line + 56) & UNIT_MASK) * 16;
    }
    None
}

#[test]
fn windows_follow_the_level() {
    let mut o = Object::new();
    let root = o.root(14);
    o.set(GATE + 64, root);
    o.insert(root, b"key", b"");
    assert_clean(&o);
    let (hash, entry) = (o.hash(b"key"), o.entry_of(root, b"key").unwrap());
    assert_eq!((o.get(entry) >> 40) & 0xff, (hash >> 14) & 0xff);
    assert_ne!((hash >> 6) & 0xff, (hash >> 14) & 0xff);
    o.set(entry, o.get(entry) & !(0xff << 40) | ((hash >> 6) & 0xff) << 40);
    assert_eq!(judge(&o, 0).0[0].offset, entry);
}

#[test]
fn lines() {
    expect_small(|o, root, _| {
        let at = o.bucket(root, 0) + 56;
        o.set(at, 1 << 48);
        vec![(Damage::Bucket, at)]
    });
    // No entry; first word, level, reserved bits.
    expect_small(|o, root, _| {
        let line = o.block(CLASS_64);
        o.set(o.bucket(root, 0) + 56, line / 16);
        vec![(Damage::Bucket, line + 8)]
    });
    for (word, value) in [(0, 1), (7, 1 << 40), (7, 1 << 63)] {
        expect_small(|o, root, _| {
            for n in 2..7 {
                o.insert(root, &key(n), b"");
            }
            let line = (o.get(o.bucket(root, 0) + 56) & UNIT_MASK) * 16;
            o.set(line + 8 * word, value);
            vec![(Damage::Bucket, line + 8 * word)]
        });
    }
    // A cycle, a block of another class, something free.
    expect_small(|o, root, _| {
        for n in 2..7 {
            o.insert(root, &key(n), b"");
        }
        let line = (o.get(o.bucket(root, 0) + 56) & UNIT_MASK) * 16;
        o.set(line + 56, line / 16);
        vec![(Damage::Twice, line + 56)]
    });
    expect_small(|o, root, _| {
        let block = o.block(CLASS_32);
        let at = o.bucket(root, 0) + 56;
        o.set(at, block / 16);
        vec![(Damage::Bucket, at)]
    });
    expect_small(|o, root, _| {
        let block = o.block(CLASS_64);
        let at = o.bucket(root, 0) + 56;
        o.set(at, block / 16 + 4);
        vec![(Damage::NotAllocated, at)]
    });
}

#[test]
fn chains_of_records() {
    // A cycle, and an end in nothing.
    expect(|s| {
        s.o.set(s.stack[2], s.stack[0] / 16);
        vec![(Damage::Twice, s.stack[2])]
    });
    expect(|s| {
        s.o.set(s.stack[1], s.stack[2] / 16 + 1);
        vec![(Damage::NotAllocated, s.stack[1])]
    });
    // Cut off, and the rest forgotten.
    expect(|s| {
        s.o.set(s.stack[1], 0);
        vec![(Damage::Count, s.root + 640), (Damage::Leaked, s.stack[2])]
    });
    // Another key, of the same and of another length.
    expect(|s| {
        s.o.write(s.stack[1] + 16, b"Key");
        vec![(Damage::Record, s.stack[1])]
    });
    expect(|s| {
        s.o.set(s.stack[2] + 8, 4 | 5 << 32);
        s.o.set(s.stack[2] + 16, u64::from_le_bytes(*b"key-\0\0\0\0"));
        vec![(Damage::Record, s.stack[2])]
    });
}

#[test]
fn records() {
    for bit in [40, 62] {
        expect_small(|o, _, [entry, _]| {
            let record = record(o, entry);
            o.set(record, 1 << bit);
            vec![(Damage::Record, record)]
        });
    }
    // LONG without need: the lengths are read where key and value are.
    expect(|s| {
        s.o.set(s.large, 1 << 63);
        s.o.set(s.large + 8, 0);
        s.o.set(s.large + 16, 8);
        s.o.set(s.large + 24, 20_000);
        let entry = s.o.entry_of(s.root, b"large");
        assert_eq!(entry, None);
        let findings = judge(&s.o, 0).0;
        assert_eq!((findings[0].what, findings[0].offset), (Damage::Record, s.large));
        findings.iter().map(|finding| (finding.what, finding.offset)).collect()
    });
    // Lengths that do not fit, or would fit into less.
    for lengths in [5 | 9 << 32, 17, u64::MAX, 5 | 0xffff_ffff << 32] {
        expect_small(|o, _, [entry, _]| {
            let record = record(o, entry);
            o.set(record + 8, lengths);
            vec![(Damage::Record, record)]
        });
    }
    for value in [16_360, 20_457] {
        expect(|s| {
            s.o.set(s.large + 8, 5 | value << 32);
            vec![(Damage::Record, s.large)]
        });
    }
    for [key, value] in [[u64::MAX, 1], [1 << 63, 1 << 63], [1 << 32, 0]] {
        expect(|s| {
            s.o.set(s.large, 1 << 63);
            s.o.set(s.large + 8, 0);
            s.o.set(s.large + 16, key);
            s.o.set(s.large + 24, value);
            vec![(Damage::Record, s.large)]
        });
    }
    // A block that is larger than need be.
    expect(|s| {
        let record = s.o.block(super::test_image::CLASS_80);
        s.o.set(record + 8, 1);
        s.o.write(record + 16, b"x");
        s.o.enter(s.root, b"x", record);
        s.o.count(s.root, 1, 1);
        vec![(Damage::Record, record)]
    });
}

#[test]
fn padding() {
    expect_small(|o, _, [entry, _]| {
        let record = record(o, entry);
        o.write(record + 16 + 7, &[1]);
        vec![(Damage::Record, record + 16)]
    });
    expect(|s| {
        // After the value: 20,001 bytes.
        s.o.write(s.large + 24 + 20_001, &[1]);
        vec![(Damage::Record, s.large + 24 + 20_000)]
    });
    // What follows in the block means nothing.
    let (mut o, _, [entry, _]) = small();
    o.set(record(&o, entry) + 24, 1);
    assert_clean(&o);
}
