//! Goal: a table grows from nothing to a million keys under readers, who never miss a key, and whose walks
//! meet every key that was there all the time exactly once.
//!
//! Method: one process adds and publishes how far it is (the watermark, after the add has returned); another
//! process finds random keys below the watermark, a third walks again and again, and marks what it meets.

mod support_processes;

use netshm::{Error, HashTable, ManageOptions, OpenOptions};
use std::time::Instant;
use support_processes::*;

const KEYS: u64 = 1_000_000;

/// Words of the shared memory.
const WATERMARK: usize = 0;
const READY: usize = 1;
const FOUND: usize = 2;
const WALKS: usize = 3;
const MET: usize = 4;
const LONGEST_WALK_GREW: usize = 5;
const SLOWEST: usize = 6;

fn key(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn number(key: &[u8]) -> u64 {
    // The inverse of the multiplier.
    u64::from_le_bytes(key.try_into().expect("8 bytes")).wrapping_mul(0xf1de_83e1_9937_733d)
}

#[test]
fn to_a_million_keys_under_readers() {
    let _alone = alone();
    assert_eq!(number(&key(123_456)), 123_456);
    let s = Scratch::posix("growth");
    let shared = Shared::new(8);
    drop(s.open());
    let seconds = 110;
    let begin = Instant::now();
    let finder = fork(seconds, || {
        let object = OpenOptions::new().read_only(true).open(&s.0).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        shared.add(READY, 1);
        shared.wait_for(READY, 2);
        let mut random = Random(1);
        let mut buffer = [0; 16];
        loop {
            let there = shared.get(WATERMARK);
            if there == 0 {
                std::hint::spin_loop();
                continue;
            }
            // The newest keys more often: their buckets are being split.
            for i in 0..64 {
                let n =
                    if i % 4 == 0 { there - 1 - random.below(there.min(100)) } else { random.below(there) };
                let found = t.find_into(&key(n), &mut buffer).expect("finds");
                assert_eq!(found, Some(8), "key {n} of {there} is missed");
                assert_eq!(buffer[..8], n.to_le_bytes());
                let absent = KEYS + random.below(1 << 40);
                assert_eq!(t.find_into(&key(absent), &mut buffer).expect("finds"), None);
            }
            shared.add(FOUND, 64);
            if there == KEYS {
                break;
            }
        }
    });
    let walker = fork(seconds, || {
        let t = s.open();
        shared.add(READY, 1);
        let mut met = vec![0u32; KEYS as usize];
        let mut walk = 0u32;
        loop {
            walk += 1;
            let before = shared.get(WATERMARK);
            let mut n_met = 0;
            let mut visit = |key: &[u8]| {
                let n = number(key);
                assert!(n < KEYS, "a key that nobody added: {n}");
                assert_ne!(met[n as usize], walk, "key {n} met twice in walk {walk}");
                met[n as usize] = walk;
                n_met += 1;
            };
            if walk % 2 == 0 {
                t.keys().for_each(|key| visit(&key.expect("reads")));
            } else {
                t.iter().for_each(|binding| {
                    let (key, value) = binding.expect("reads");
                    assert_eq!(value, number(&key).to_le_bytes());
                    visit(&key);
                });
            }
            let after = shared.get(WATERMARK);
            for (n, met) in met[..before as usize].iter().enumerate() {
                assert_eq!(*met, walk, "key {n} of {before} was missed by walk {walk}");
            }
            shared.add(WALKS, 1);
            shared.add(MET, n_met);
            shared.word(LONGEST_WALK_GREW).fetch_max(after - before, std::sync::atomic::Ordering::SeqCst);
            if before == KEYS {
                assert_eq!(n_met, KEYS);
                break;
            }
        }
    });
    let writer = fork(seconds, || {
        let t = s.open();
        shared.wait_for(READY, 2);
        for n in 0..KEYS {
            let begin = Instant::now();
            t.add(&key(n), &n.to_le_bytes()).expect("adds");
            let took = begin.elapsed().as_nanos() as u64;
            shared.set(WATERMARK, n + 1);
            if took > shared.get(SLOWEST) {
                shared.set(SLOWEST, took);
            }
            // One walk shall be long compared with the growth, and the growth shall last a while.
            if n % 16_384 == 0 {
                std::thread::yield_now();
            }
        }
    });
    writer.succeeds();
    let loaded = begin.elapsed();
    finder.succeeds();
    walker.succeeds();
    let summary = check(&s.0);
    assert_eq!((summary.bindings, summary.keys), (KEYS, KEYS));
    say(&format!(
        "{KEYS} keys in {loaded:?} (slowest add {} us), {} buckets; {} finds; {} walks met {} keys, \
         up to {} keys were added during one; {:?} in all\n",
        shared.get(SLOWEST) / 1000,
        summary.buckets,
        shared.get(FOUND),
        shared.get(WALKS),
        shared.get(MET),
        shared.get(LONGEST_WALK_GREW),
        begin.elapsed()
    ));
    // A bucket has 4 keys or fewer in the mean: so many splits were made during one walk.
    assert!(shared.get(LONGEST_WALK_GREW) > 4 * 1000, "no walk saw 1,000 splits");
}

/// Goal: the same for threads of one process, with removals of other keys, so that overflow lines come and go.
#[test]
fn threads_walk_while_keys_come_and_go() {
    let _alone = alone();
    let s = Scratch::posix("growth-threads");
    let lasting = 20_000;
    let rounds = if long_form() { 20 } else { 3 };
    stage(100, || {
        let t = s.open();
        for n in 0..lasting {
            t.add(&key(n), &n.to_le_bytes()).expect("adds");
        }
        let ended = std::sync::atomic::AtomicBool::new(false);
        let walks = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        let mut met = vec![false; lasting as usize];
                        let mut others = std::collections::HashSet::new();
                        for key in t.keys() {
                            let key = key.expect("reads");
                            let n = number(&key);
                            if n < lasting {
                                assert!(!std::mem::replace(&mut met[n as usize], true), "{n} met twice");
                            } else {
                                assert!(others.insert(n), "{n} met twice");
                            }
                        }
                        assert!(met.iter().all(|met| *met), "a lasting key was missed");
                        walks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
            // The growth comes in the middle of the walks, and what comes and goes stays below it.
            for round in 0..rounds {
                let first = lasting + round * 100_000;
                for n in first..first + 100_000 {
                    t.add(&key(n), b"comes").expect("adds");
                    if n % 2 == 0 {
                        assert!(t.remove(&key(n)).expect("removes"));
                    }
                }
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        say(&format!("{} walks\n", walks.into_inner()));
    });
    assert_eq!(check(&s.0).bindings, lasting + rounds * 50_000);
}

/// Goal: huge pages change nothing but the speed. Method: a process that asks for them adds, in steps that fill several
/// of them, while another one without them walks; memory is given back and used again; the checker.
#[test]
fn with_huge_pages() {
    const MANY: u64 = 200_000;
    let _alone = alone();
    let s = Scratch::posix("huge");
    drop(s.open());
    let shared = Shared::new(2);
    let writer = fork(110, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let t = HashTable::manage(&object, ManageOptions::new().huge_pages(true)).expect("manages");
        for n in 0..MANY {
            t.add(&key(n), &n.to_le_bytes()).expect("adds");
            shared.set(WATERMARK, n + 1);
        }
        // A second handle asks again; memory that is there already becomes huge pages then.
        let again = HashTable::manage(&object, ManageOptions::new().huge_pages(true)).expect("manages");
        for n in (0..MANY).step_by(2) {
            assert!(again.remove(&key(n)).expect("removes"));
        }
        let long = vec![7; 5 << 20];
        for n in 0..4u64 {
            t.replace(&key(MANY + n), &long).expect("replaces");
        }
        for n in 0..MANY {
            assert_eq!(t.find(&key(n)).expect("finds").is_some(), n % 2 == 1, "key {n}");
        }
    });
    let t = s.open();
    while shared.get(WATERMARK) < MANY {
        let before = shared.get(WATERMARK);
        assert!(
            t.keys().filter(|k| number(k.as_ref().expect("reads")) < before).count() as u64 >= before / 2
        );
    }
    writer.succeeds();
    let late = OpenOptions::new().open(&s.0).expect("opens");
    let late = HashTable::manage(&late, ManageOptions::new().huge_pages(true)).expect("manages");
    assert_eq!(
        late.iter().map(|b| b.expect("reads").1.len() as u64).sum::<u64>(),
        MANY / 2 * 8 + 4 * (5 << 20)
    );
    assert_eq!(check(&s.0).bindings, MANY / 2 + 4);
}

/// Goal: a long value, which is copied in pieces, is seen as it was at one moment. Method: a process replaces values whose
/// bytes all say the same, of changing length; others find and walk.
#[test]
fn long_values_are_whole() {
    let _alone = alone();
    let s = Scratch::posix("long");
    let t = s.open();
    let length = |n: u64| 60_000 + (n % 7 * 50_000) as usize;
    for k in 0..4u64 {
        t.replace(&key(k), &vec![k as u8; length(k)]).expect("replaces");
    }
    let writer = fork(60, || {
        let t = s.open();
        let begin = Instant::now();
        let mut n = 0u64;
        while begin.elapsed().as_secs() < 3 {
            n += 1;
            t.replace(&key(n % 4), &vec![n as u8; length(n)]).expect("replaces");
        }
    });
    let judge = |value: &[u8]| {
        assert!(value.iter().all(|b| *b == value[0]), "a mixture of {} bytes", value.len());
        assert!((0..7).any(|n| length(n) == value.len()));
    };
    let mut buffer = vec![0; 1 << 20];
    let begin = Instant::now();
    while begin.elapsed().as_secs() < 3 {
        for k in 0..4 {
            let len = t.find_into(&key(k), &mut buffer).expect("finds").expect("is there");
            judge(&buffer[..len]);
        }
        let mut n = 0;
        for binding in t.iter() {
            judge(&binding.expect("reads").1);
            n += 1;
        }
        assert_eq!(n, 4);
    }
    writer.succeeds();
    check(&s.0);
}

/// Goal: a table does not stay behind what another process has permitted it and not done. Method: that one adds many keys in a
/// group and takes them back, so that there is memory for buckets, and none is split; then keys are added by a process that
/// knows nothing of it, one by one, and by groups.
#[test]
fn what_others_have_only_permitted_is_done() {
    let _alone = alone();
    const MANY: u64 = 40_000;
    for in_groups in [false, true] {
        let s = Scratch::posix("permitted");
        let t = s.open();
        t.add(b"first", b"value").expect("adds");
        let other = fork(60, || {
            let t = s.open();
            let outcome: Result<(), Error> = t.table().group(|| {
                for n in 0..MANY {
                    t.add(&key(n), b"value")?;
                }
                Err(Error::Range)
            });
            assert_eq!(outcome, Err(Error::Range));
        });
        assert_eq!(other.wait(), End::Exit(0));
        for from in (0..MANY).step_by(100) {
            let add =
                || -> Result<(), Error> { (from..from + 100).try_for_each(|n| t.add(&key(n), b"value")) };
            if in_groups { t.table().group(add) } else { add() }.expect("adds");
        }
        let lines = t.table().dump().expect("dumps").matches("overflow line").count() as u64;
        assert!(lines < MANY / 10, "{lines} overflow lines for {MANY} keys, in groups: {in_groups}");
        check(&s.0);
    }
}
