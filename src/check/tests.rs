//! Goal: the checker finds each kind of damage, and nothing else. Method: a sample object made by hand
//! holds everything the format knows; each test breaks exactly one invariant of it and compares all
//! findings with the expected ones, offsets included.

use super::test_image::{CLASS_32, CLASS_64, CLASS_80, Object};
use super::{Bytes, Finding, Options, Summary, check};
use crate::error::Damage;

const PAGE: u64 = 4096;
const GATE: u64 = 2 * PAGE;
const ALLOCATOR: u64 = 4 * PAGE;

pub(super) fn judge(object: &Object, own_slot: u16) -> (Vec<Finding>, Summary) {
    let mut findings = Vec::new();
    let summary = check(object, &Options { own_slot, ..Options::default() }, &mut |finding| {
        findings.push(finding);
        true
    });
    assert_eq!(summary.findings, findings.len() as u64);
    (findings, summary)
}

#[track_caller]
pub(super) fn assert_clean(object: &Object) -> Summary {
    let (findings, summary) = judge(object, 0);
    assert_eq!(findings, []);
    assert!(summary.complete);
    summary
}

/// An object with everything, and where its parts are.
pub(super) struct Sample {
    pub(super) o: Object,
    pub(super) root: u64,
    pub(super) retired: u64,
    pub(super) spare: u64,
    /// Free runs: 3 backed pages, 20 unbacked ones, 1 backed one in use before and after each.
    pub(super) free: u64,
    pub(super) unbacked: u64,
    /// The record of a large value.
    pub(super) large: u64,
    /// Three bindings of one key, newest first.
    pub(super) stack: [u64; 3],
    /// A slab of arena 3 with free blocks, another of the same list, a full one.
    pub(super) slabs: [u64; 2],
    pub(super) full_slab: u64,
    /// Extensions of slot 2.
    pub(super) log: [u64; 2],
    pub(super) reserve: u64,
    /// Pending blocks of slot 3.
    pub(super) pending: [u64; 3],
    pub(super) chunk: u64,
}

const KEYS: usize = 40;

pub(super) fn key(n: usize) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

pub(super) fn sample() -> Sample {
    let mut o = Object::new();
    let root = o.root(2);
    o.set(GATE + 64, root);
    let free = o.free_run(3, false);
    o.array(root, 1);
    // Array 2 exists and is not ready: its memory may be a hole.
    let reserved = o.array(root, 2);
    o.set(root + 72, 8);
    o.forbidden.push(reserved..reserved + PAGE);
    o.split(root, 1);
    let unbacked = o.free_run(20, true);
    for n in 0..KEYS {
        o.insert(root, &key(n), b"value");
    }
    let oldest = (o.get(o.entry_of(root, &key(0)).unwrap()) & 0xff_ffff_ffff) * 16;
    let middle = o.stack(root, &key(0), b"another value, of another class");
    let newest = o.stack(root, &key(0), b"");
    let large = o.insert(root, b"large", &[7; 20_001]);
    o.insert(root, &[9; 1000], b"a key of 1000 bytes");
    o.insert(root, b"", b"the empty key");

    // Slot 2 is active and holds blocks, slot 3 is free and does, too.
    o.set(Object::slot(2), 1 | 5 << 8 | 3 << 32);
    for n in 0..4 {
        let block = o.block(34);
        o.set(Object::cell(2, 34, 3 * n), block);
    }
    let full_slab = o.get(Object::cell(2, 34, 0)) / PAGE;
    let block = o.block(CLASS_80);
    o.set(Object::cell(3, CLASS_80, 15), block);
    let slabs = [o.slab(34, 3), o.slab(34, 3)];
    let log = [o.run(6, 1), o.run(6, 2)];
    o.set(Object::slot(2) + 8 * 32, log[0]);
    o.set(Object::slot(2) + 8 * 33, log[1]);
    let locks = o.run(6, 1);
    o.set(Object::slot(2) + 8 * 48, locks);
    let reserve = o.run(6, 1);
    o.set(Object::slot(2) + 8 * 64, reserve);
    o.set(Object::slot(2) + 8 * 25, 34);
    let (block, run, punched) = (o.block(CLASS_32), o.run(2, 2), o.run(1, 7));
    o.set(Object::descriptor(punched / PAGE), o.get(Object::descriptor(punched / PAGE)) | 1 << 17);
    o.forbidden.push(punched..punched + 7 * PAGE);
    o.set(Object::slot(2) + 8 * 976, block);
    o.set(Object::slot(2) + 8 * 1007, run);
    o.set(reserve + 8, punched);
    o.set(reserve + 16, 1234);
    let pending = [o.block(CLASS_32), o.run(1, 5), o.block(10)];
    o.set(Object::slot(3) + 8 * 24, pending[0]);
    o.set(pending[0], pending[1]);
    o.set(pending[1], pending[2]);
    let chunk = o.run(5, 16);
    o.set(3 * PAGE + 72, chunk);

    // Retired: bucket 0 is swept, bucket 1 is not.
    let retired = o.root(1);
    o.set(GATE + 192, retired);
    for n in 0..3 {
        let key = (0..).map(key).filter(|key| o.hash(key) % 2 == 1).nth(n).unwrap();
        o.insert(retired, &key, b"old");
    }
    o.set(retired + 40, 1);
    let spare = o.root(7);
    o.array(spare, 1);
    o.set(GATE + 200, spare);
    let second = o.root(0);
    o.set(spare + 32, second);
    o.count(second, 1, -5);
    o.count(second, 2, 5);
    // Advisory words, times, and whatever else may have any value.
    for any in [root + 128, root + 192, Object::slot(3) + 40, Object::slot(3) + 64, Object::slot(3) + 136] {
        o.set(any, 42);
    }
    o.set(GATE, 1 << 17 | 77 << 20);
    o.set(o.bucket(root, 6), 1 << 18 | 5 << 20);
    Sample {
        o,
        root,
        retired,
        spare,
        free,
        unbacked,
        large,
        stack: [newest, middle, oldest],
        slabs,
        full_slab,
        log,
        reserve,
        pending,
        chunk,
    }
}

/// Breaks the sample and expects these findings, in any order.
#[track_caller]
pub(super) fn expect(change: impl FnOnce(&mut Sample) -> Vec<(Damage, u64)>) {
    let mut sample = sample();
    let mut expected = change(&mut sample);
    let findings = judge(&sample.o, 0).0;
    let mut found: Vec<_> = findings.iter().map(|finding| (finding.what, finding.offset)).collect();
    let order = |one: &(Damage, u64)| (one.1, format!("{:?}", one.0));
    expected.sort_by_key(order);
    found.sort_by_key(order);
    assert_eq!(found, expected, "{findings:#?}");
}

/// Sets one word and expects one finding there.
#[track_caller]
pub(super) fn bad_word(what: Damage, value: u64, at: impl FnOnce(&Sample) -> u64) {
    expect(|sample| {
        let at = at(sample);
        sample.o.set(at, value);
        vec![(what, at)]
    });
}

#[test]
fn clean_objects() {
    assert_eq!(assert_clean(&Object::new()).bindings, 0);
    let summary = assert_clean(&sample().o);
    assert_eq!((summary.keys, summary.bindings, summary.buckets), (KEYS as u64 + 3, KEYS as u64 + 5, 5));
    assert!(summary.overflow_lines > 0);
    assert_eq!((summary.free_pages, summary.unbacked_pages), (3, 20));
    assert_eq!((summary.slots, summary.slots_active, summary.custody), (16, 1, 11));
    assert_eq!((summary.retired_roots, summary.spare_roots), (1, 2));

    let bytes = sample().o.flatten();
    let other = check(&Bytes(&bytes), &Options::default(), &mut |finding| panic!("{finding:?}"));
    assert_eq!(other, summary);
}

#[test]
fn sip_hash() {
    let mut o = Object::new_sip();
    let root = o.root(0);
    o.set(GATE + 64, root);
    for length in [0, 1, 7, 8, 255, 256, 257, 5000, 20_000] {
        o.insert(root, &vec![length as u8; length], b"");
    }
    assert_eq!(assert_clean(&o).keys, 9);
}

#[test]
fn long_keys_with_xxh3() {
    let mut o = Object::new();
    let root = o.root(0);
    o.set(GATE + 64, root);
    for length in [256, 257, 4096, 4097, 20_000] {
        o.insert(root, &vec![length as u8; length], b"");
    }
    assert_eq!(assert_clean(&o).keys, 5);
}

#[test]
fn many_segments_and_a_value_of_4_gib() {
    let mut o = Object::new();
    let root = o.root(0);
    o.set(GATE + 64, root);
    let length = (1 << 32) + 3;
    let record = o.record_memory(32 + 8 + length + 5);
    o.set(record, 1 << 63);
    o.set(record + 16, 3);
    o.set(record + 24, length);
    o.write(record + 32, b"key");
    let entry = o.record(0, b"key", b"");
    let at = o.enter(root, b"key", entry);
    // The small record was only there to let the builder find the key's bucket.
    o.set(at, o.get(at) & !0xff_ffff_ffff | (record / 16));
    o.set(entry, 0);
    o.set(Object::slot(1) + 8 * 24, entry);
    o.count(root, 1, 1);
    assert_clean(&o);

    o.set(record + 24, length - 8);
    assert_eq!(judge(&o, 0).0[0].what, Damage::Record);
    o.set(record + 24, length);
    o.set(record + 8, 1);
    assert_eq!(judge(&o, 0).0[0].offset, record + 8);
}

#[test]
fn stops_when_told() {
    let mut sample = sample();
    sample.o.set(ALLOCATOR + 72, 99);
    sample.o.set(GATE, 7);
    let mut count = 0;
    let summary = check(&sample.o, &Options::default(), &mut |_| {
        count += 1;
        false
    });
    assert_eq!((count, summary.findings, summary.complete), (1, 1, false));
}

#[test]
fn header() {
    for (word, value, what) in [
        (0, 0x1234, Damage::Magic),
        (0, u64::from_le_bytes(*b"NETSHMc\n"), Damage::Magic),
        (1, 2, Damage::Header),
        (4, 2, Damage::Header),
        (6, 4, Damage::Header),
        (7, 3, Damage::Header),
        (11, 4096, Damage::Header),
        (14, 4096, Damage::Header),
        (15, 15, Damage::Header),
        (16, 1, Damage::Header),
        (511, 1, Damage::Header),
        // The catalog, the clean generation, reserved words of the pages 1 to 7.
        (2 * 512 + 9, 4096, Damage::NotAllocated),
        (512 + 3, 1, Damage::Header),
        (512 + 6, 1, Damage::Header),
        (2 * 512 + 1, 1, Damage::Header),
        (3 * 512 + 22, 1, Damage::Header),
        (4 * 512 + 112, 1, Damage::Header),
        (5 * 512 + 43, 1, Damage::Header),
        (7 * 512 + 8, 1, Damage::Header),
    ] {
        bad_word(what, value, |_| 8 * word);
    }
}

#[test]
fn unknown_compatible_features_excuse_reserved_words() {
    let mut sample = sample();
    sample.o.set(16, 1);
    sample.o.set(8 * 16, 1);
    sample.o.set(Object::slot(2) + 8 * 9, 1);
    assert_clean(&sample.o);
}

#[test]
fn truncated() {
    expect(|sample| {
        sample.o.size -= 1;
        vec![(Damage::Truncated, sample.o.get(sample.o.get(sample.spare + 32) + 640))]
    });
    expect(|sample| {
        sample.o.size = 31 * PAGE;
        vec![(Damage::Truncated, 31 * PAGE)]
    });
    expect(|sample| {
        sample.o.size = 7;
        vec![(Damage::Truncated, 0)]
    });
}

#[test]
fn unbacked_end_may_lie_beyond_the_file() {
    let mut o = Object::new();
    o.free_run(5, true);
    o.size = 32 * PAGE;
    assert_clean(&o);
    let mut o = Object::new();
    o.free_run(5, false);
    o.size -= PAGE;
    assert_eq!(judge(&o, 0).0[0].what, Damage::Truncated);
}

#[test]
fn locks() {
    for offset in [GATE, GATE + 128, 3 * PAGE, ALLOCATOR, 5 * PAGE, 7 * PAGE - 512] {
        for value in [1, 1 << 16, 1 << 19, 2 | 1 << 16 | 1 << 17] {
            bad_word(Damage::StrayLock, value, |_| offset);
        }
    }
    bad_word(Damage::StrayLock, 3, |s| s.root + 64);
    bad_word(Damage::StrayLock, 3, |s| s.retired + 64);
    bad_word(Damage::StrayLock, 3, |s| s.spare + 64);
    bad_word(Damage::StrayLock, 3, |s| s.o.bucket(s.root, 0));
    bad_word(Damage::StrayLock, 3, |s| s.o.bucket(s.root, 6));
    bad_word(Damage::StrayLock, 3, |s| s.o.bucket(s.spare, 255));
}

#[test]
fn own_slot() {
    let gate_held = |o: &mut Object| {
        o.set(GATE, 2);
        o.set(Object::slot(2) + 16, 1);
        o.set(Object::slot(2) + 8 * 96, GATE);
    };
    let mut o = sample().o;
    gate_held(&mut o);
    assert_eq!(judge(&o, 2).0, []);
    let damage = |o: &Object, own| judge(o, own).0.iter().map(|f| (f.what, f.offset)).collect::<Vec<_>>();
    let listed = (Damage::Slot, Object::slot(2) + 16);
    assert_eq!(damage(&o, 0), [(Damage::StrayLock, GATE), listed]);
    // A check by slot 3 cannot run while slot 2 has the gate, but for a moment.
    assert_eq!(damage(&o, 3), []);
    // While the check holds the gate, others may queue for it, and have groups open that hold nothing.
    let mut queue = o.clone();
    queue.set(Object::slot(1), queue.get(Object::slot(2)));
    queue.set(Object::slot(1) + 16, 1);
    queue.set(Object::slot(1) + 48, 77);
    queue.set(Object::slot(1) + 128, GATE);
    queue.set(Object::slot(1) + 8 * 96, GATE);
    assert_eq!(damage(&queue, 2), []);
    // Before they queue, they may have a lock or two, or wait for one; but nothing may be committed, and what they
    // own they list.
    queue.set(Object::slot(1) + 128, ALLOCATOR);
    queue.set(Object::slot(1) + 8 * 97, ALLOCATOR);
    queue.set(Object::slot(1) + 8, 2);
    queue.set(ALLOCATOR, 1 | 1 << 16);
    let unlisted = (Damage::StrayLock, ALLOCATOR);
    assert_eq!(damage(&queue, 2), [unlisted]);
    queue.set(Object::slot(1) + 16, 2);
    assert_eq!(damage(&queue, 2), []);
    assert_eq!(damage(&queue, 0)[1], unlisted);
    // They may be killed there, and be recovered by others while the check runs.
    let mut recovered = queue.clone();
    recovered.set(Object::slot(1), queue.get(Object::slot(2)) + 1);
    assert_eq!(damage(&recovered, 2), []);
    assert_eq!(damage(&recovered, 0)[2], (Damage::Slot, Object::slot(1)));
    recovered.set(Object::slot(1), queue.get(Object::slot(2)) + 2);
    assert_eq!(damage(&recovered, 2)[1], (Damage::Slot, Object::slot(1)));
    queue.set(Object::slot(1) + 8, 1);
    assert_eq!(damage(&queue, 2), [(Damage::Log, Object::slot(1) + 8)]);
    queue.set(Object::slot(1) + 8, 0);
    queue.set(Object::slot(1) + 16, 3);
    assert_eq!(damage(&queue, 2), [(Damage::Slot, Object::slot(1) + 16)]);
    queue.set(Object::slot(1) + 16, 2);
    queue.set(Object::slot(1), 0);
    assert_eq!(damage(&queue, 2)[0], unlisted);
    o.set(Object::slot(2) + 8 * 96, ALLOCATOR);
    assert_eq!(damage(&o, 2), [listed, (Damage::StrayLock, GATE)]);
    gate_held(&mut o);
    o.set(ALLOCATOR, 2);
    assert_eq!(damage(&o, 2), [(Damage::StrayLock, ALLOCATOR)]);
    // A slot that does not exist.
    let mut o = sample().o;
    o.set(GATE, 500);
    assert_eq!(damage(&o, 500), [(Damage::StrayLock, GATE)]);
}

#[test]
fn page_map() {
    bad_word(Damage::PageMap, 31, |_| ALLOCATOR + 64);
    bad_word(Damage::PageMap, (1 << 32) + 1, |_| ALLOCATOR + 64);
    // A kind that begins nothing, no pages, too many pages.
    bad_word(Damage::PageMap, 9, |s| Object::descriptor(s.free));
    bad_word(Damage::PageMap, 1, |s| Object::descriptor(s.free));
    bad_word(Damage::PageMap, 1 | 9999 << 32, |s| Object::descriptor(s.free));
    bad_word(Damage::PageMap, 6 | 3 << 32, |s| Object::descriptor(s.free));
    // Unknown bits, unknown purpose.
    expect(|s| {
        let at = Object::descriptor(s.root / PAGE);
        s.o.set(at, s.o.get(at) | 1 << 18);
        vec![(Damage::PageMap, at)]
    });
    expect(|s| {
        let at = Object::descriptor(s.free);
        s.o.set(at, s.o.get(at) | 1 << 8);
        s.o.set(at + 64, s.o.get(at + 64) | 1 << 8);
        vec![(Damage::PageMap, at)]
    });
    expect(|s| {
        let at = Object::descriptor(s.large / PAGE);
        s.o.set(at, s.o.get(at) & !0xff00 | 7 << 8);
        let entry = s.o.entry_of(s.root, b"large").unwrap();
        vec![(Damage::PageMap, at), (Damage::NotAllocated, entry)]
    });
    // Tails.
    bad_word(Damage::PageMap, 2 | 4 << 32, |s| Object::descriptor(s.free + 2));
    bad_word(Damage::PageMap, 2 | 1 << 16 | 3 << 32, |s| Object::descriptor(s.free + 2));
    bad_word(Damage::PageMap, 6 | 3 << 32, |s| Object::descriptor(s.free + 2));
    bad_word(Damage::PageMap, 2 | 5 << 32, |s| Object::descriptor(s.large / PAGE + 4));
    bad_word(Damage::PageMap, 0, |s| Object::descriptor(s.large / PAGE + 4));
    // In use without memory.
    for bit in [16, 17] {
        expect(|s| {
            let at = Object::descriptor(s.large / PAGE);
            s.o.set(at, s.o.get(at) | 1 << bit);
            s.o.forbidden.push(s.large..s.large + 4 * PAGE);
            vec![(Damage::PageMap, at)]
        });
    }
}

#[test]
fn free_runs_are_merged() {
    expect(|s| {
        s.o.free_run(2, false);
        let second = s.o.free_run(4, false);
        vec![(Damage::PageMap, Object::descriptor(second))]
    });
    let mut s = sample();
    s.o.free_run(2, false);
    s.o.free_run(4, true);
    s.o.free_run(1, false);
    assert_clean(&s.o);
}

#[test]
fn free_lists() {
    bad_word(Damage::Count, 4, |_| ALLOCATOR + 72);
    bad_word(Damage::Count, 19, |_| ALLOCATOR + 80);
    // Missing in its list.
    expect(|s| {
        s.o.set(ALLOCATOR + 128 + 16, 0);
        vec![(Damage::FreeList, Object::descriptor(s.free))]
    });
    // In the list of another length, of the other backing, of something in use, of nothing.
    let (page, unbacked) = (sample().free, sample().unbacked);
    for list in [ALLOCATOR + 128, ALLOCATOR + 128 + 8 * 47, ALLOCATOR + 512 + 16] {
        bad_word(Damage::FreeList, page, |_| list);
    }
    for page in [unbacked + 1, unbacked - 1, 31, 1 << 40] {
        bad_word(Damage::FreeList, page, |_| ALLOCATOR + 512);
    }
    // Links.
    bad_word(Damage::FreeList, 77 << 32, |s| Object::descriptor(s.free) + 8);
    bad_word(Damage::FreeList, 77, |s| Object::descriptor(s.free) + 8);
    expect(|s| {
        let at = Object::descriptor(s.free) + 8;
        s.o.set(at, s.free);
        vec![(Damage::FreeList, at)]
    });
    expect(|s| {
        s.o.run(1, 1);
        s.o.free_run(3, false);
        let leaked = Object::descriptor(s.o.get(ALLOCATOR + 64) - 4);
        let at = Object::descriptor(s.free) + 8;
        s.o.set(at, 0);
        vec![(Damage::FreeList, at), (Damage::Leaked, (leaked - 24 * PAGE) / 32 * PAGE)]
    });
}

#[test]
fn slabs() {
    // Head: class, arena, pages, unknown bits.
    for (clear, bits) in [(0xff00, 35 << 8), (0xff_0000, 16 << 16), (0x1f << 32, 0)] {
        expect(|s| {
            let at = Object::descriptor(s.slabs[0]);
            s.o.set(at, s.o.get(at) & !clear | bits);
            vec![(Damage::Slab, at)]
        });
    }
    expect(|s| {
        let at = Object::descriptor(s.slabs[0]);
        s.o.set(at, s.o.get(at) | 1 << 24);
        vec![(Damage::Slab, at)]
    });
    // Body tags.
    bad_word(Damage::Slab, 5 | 3 << 32, |s| Object::descriptor(s.slabs[0] + 2));
    bad_word(Damage::Slab, 4 | 15 << 32, |s| Object::descriptor(s.slabs[0] + 15));
    // Count of free blocks; bits beyond the last block.
    bad_word(Damage::Slab, 3, |s| Object::descriptor(s.slabs[0]) + 16);
    bad_word(Damage::Slab, 1 << 4, |s| Object::bitmap_word(s.slabs[0], 0));
    // Lists: missing, wrong class, wrong arena, a full slab, links.
    expect(|s| {
        s.o.set(Object::slab_list(34, 3), s.slabs[0]);
        let links = Object::descriptor(s.slabs[0]) + 8;
        s.o.set(links, 0);
        vec![(Damage::Slab, Object::descriptor(s.slabs[1]))]
    });
    let slabs = sample().slabs;
    for list in [Object::slab_list(33, 3), Object::slab_list(34, 4)] {
        bad_word(Damage::Slab, slabs[0], |_| list);
    }
    bad_word(Damage::Slab, sample().full_slab, |_| Object::slab_list(34, 0));
    bad_word(Damage::Slab, slabs[0] + 1, |_| Object::slab_list(0, 4));
    bad_word(Damage::Slab, 0, |s| Object::descriptor(s.slabs[0]) + 8);
    bad_word(Damage::Slab, slabs[1] << 32 | slabs[1], |s| Object::descriptor(s.slabs[0]) + 8);
}

#[test]
fn slots() {
    let at = |word: u64| move |_: &Sample| Object::slot(2) + 8 * word;
    bad_word(Damage::Slot, 2, at(0));
    bad_word(Damage::Slot, 7, at(0));
    bad_word(Damage::Log, 1 | 5 << 8, at(1));
    bad_word(Damage::Log, 2, at(1));
    bad_word(Damage::Slot, 1, at(2));
    bad_word(Damage::Log, 1, at(4));
    bad_word(Damage::Slot, 1, at(6));
    bad_word(Damage::Slot, GATE, at(16));
    for reserved in [3, 9, 15, 18, 23, 26, 31, 80, 95, 1008, 1023] {
        bad_word(Damage::Slot, 1, at(reserved));
    }
    // Also in other chunks.
    bad_word(Damage::Slot, 2, |s| s.chunk + 7 * 8192);
    // Chunks.
    bad_word(Damage::Slot, 16 * PAGE, |_| 3 * PAGE + 64);
    expect(|s| {
        let words = [3 * PAGE + 72, 3 * PAGE + 80];
        s.o.set(words[0], 0);
        let chunk = s.o.run(5, 32);
        s.o.set(words[1], chunk);
        vec![(Damage::Slot, words[1]), (Damage::Leaked, s.chunk)]
    });
    expect(|s| {
        s.o.set(3 * PAGE + 80, s.chunk);
        vec![(Damage::Twice, 3 * PAGE + 80)]
    });
    expect(|s| {
        let run = s.o.run(5, 16);
        s.o.set(3 * PAGE + 80, run);
        vec![(Damage::Slot, 3 * PAGE + 80)]
    });
}

#[test]
fn extensions() {
    let at = |word: u64| Object::slot(2) + 8 * word;
    // A gap, the wrong length, the wrong purpose.
    expect(|s| {
        s.o.set(at(32), 0);
        // The second is too long for the first place, and the first is referred to no more.
        vec![(Damage::Slot, at(33)), (Damage::Leaked, s.log[0])]
    });
    expect(|s| {
        s.o.set(at(32), s.log[1]);
        s.o.set(at(33), 0);
        vec![(Damage::Slot, at(32))]
    });
    expect(|s| {
        let run = s.o.run(1, 2);
        s.o.set(at(49), run);
        vec![(Damage::NotAllocated, at(49))]
    });
    expect(|s| {
        s.o.set(at(63), s.log[0]);
        vec![(Damage::Slot, at(63)), (Damage::Twice, at(63))]
    });
    expect(|s| {
        s.o.set(at(48), 0);
        vec![(Damage::Leaked, s.log[1] + 2 * PAGE)]
    });
}

#[test]
fn reserve_cells() {
    let at = |word: u64| Object::slot(2) + 8 * word;
    expect(|s| {
        s.o.set(at(25), 545);
        s.o.set(s.reserve + 16, 0);
        vec![(Damage::Slot, at(25))]
    });
    expect(|s| {
        // The cell beyond the count holds garbage.
        s.o.set(at(25), 35);
        vec![(Damage::NotAllocated, s.reserve + 16)]
    });
    expect(|s| {
        s.o.set(s.reserve + 8, 0);
        let punched = s.o.forbidden.last().unwrap().start;
        vec![(Damage::Leaked, punched)]
    });
    expect(|s| {
        let run = s.o.get(at(1007));
        s.o.set(at(25), 31);
        vec![
            (Damage::Slot, at(1007)),
            (Damage::Leaked, run),
            (Damage::Leaked, s.o.forbidden.last().unwrap().start),
        ]
    });
}

#[test]
fn custody() {
    let cell = Object::cell(2, CLASS_80, 0);
    // The wrong class, a free block, the middle of one, nothing, somebody else's.
    expect(|s| {
        let block = s.o.block(CLASS_64);
        s.o.set(cell, block);
        vec![(Damage::Slot, cell)]
    });
    bad_word(Damage::NotAllocated, sample().slabs[0] * PAGE, |_| cell);
    bad_word(Damage::NotAllocated, sample().stack[0] + 16, |_| cell);
    bad_word(Damage::NotAllocated, sample().free * PAGE, |_| cell);
    bad_word(Damage::NotAllocated, 4096, |_| cell);
    bad_word(Damage::NotAllocated, u64::MAX, |_| cell);
    bad_word(Damage::NotAllocated, sample().large, |_| cell);
    expect(|s| {
        s.o.set(cell, s.o.get(Object::cell(3, CLASS_80, 15)));
        vec![(Damage::Twice, Object::cell(3, CLASS_80, 15))]
    });
    // Leaks: a block in use, a run in use.
    expect(|s| {
        s.o.use_block(s.slabs[1], 2);
        vec![(Damage::Leaked, s.slabs[1] * PAGE + 2 * 16384)]
    });
    expect(|s| {
        s.o.set(Object::cell(2, 34, 0), 0);
        vec![(Damage::Leaked, s.full_slab * PAGE)]
    });
    expect(|s| {
        let run = s.o.run(1, 9);
        vec![(Damage::Leaked, run)]
    });
}

#[test]
fn pending_lists() {
    expect(|s| {
        s.o.set(s.pending[2], s.pending[0]);
        vec![(Damage::Twice, s.pending[2])]
    });
    expect(|s| {
        s.o.set(s.pending[1], s.pending[1] + PAGE);
        vec![(Damage::NotAllocated, s.pending[1])]
    });
    expect(|s| {
        s.o.set(s.pending[1], 0);
        vec![(Damage::Leaked, s.pending[2])]
    });
    expect(|s| {
        s.o.set(s.pending[2], s.log[0]);
        vec![(Damage::NotAllocated, s.pending[2])]
    });
}
