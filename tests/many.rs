//! Goal: calls for several keys keep what single calls promise while other processes change the table: no key that is
//! there is missed, no value is half of one and half of another, and a call that stops half-way says truly where.
//!
//! Method: a table grows by calls for several keys under a reader that uses them, too; writers and readers of the same
//! few keys meet, under each locking method; somebody holds a key's lock. What calls for several keys give when nobody
//! else is there is compared with a model in `model.rs`, deaths are in `death.rs`.

mod support_processes;

use netshm::{Error, HashTable, Locking, ManageOptions, OpenOptions, Stopped};
use std::cell::Cell;
use support_processes::*;

const WATERMARK: usize = 0;
const READY: usize = 1;
const FOUND: usize = 2;

fn key(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

#[test]
fn finds_miss_nothing_while_the_table_grows() {
    const KEYS: u64 = 400_000;
    let _alone = alone();
    let s = Scratch::posix("many-growth");
    let shared = Shared::new(4);
    drop(s.open());
    let finder = fork(100, || {
        let object = OpenOptions::new().read_only(true).open(&s.0).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        shared.add(READY, 1);
        let mut random = Random(1);
        let mut lens = [None; 40];
        let mut buffer = [0; 40 * 8];
        loop {
            let there = shared.get(WATERMARK);
            if there == 0 {
                std::hint::spin_loop();
                continue;
            }
            // Every fourth key is absent; the newest ones, whose buckets are being split, come more often.
            let numbers: [u64; 40] = std::array::from_fn(|i| match i % 4 {
                0 => KEYS + random.below(1 << 40),
                1 => there - 1 - random.below(there.min(100)),
                _ => random.below(there),
            });
            let keys = numbers.map(key);
            t.find_many_into(&keys, &mut buffer, 8, &mut lens).expect("finds");
            for (i, n) in numbers.into_iter().enumerate() {
                assert_eq!(lens[i], (n < KEYS).then_some(8), "key {n} of {there}");
                assert!(n >= KEYS || buffer[8 * i..][..8] == n.to_le_bytes(), "the value of key {n}");
            }
            shared.add(FOUND, 30);
            if there == KEYS {
                break;
            }
        }
    });
    let writer = fork(100, || {
        let t = s.open();
        shared.wait_for(READY, 1);
        for first in (0..KEYS).step_by(40) {
            let bindings: Vec<_> = (first..first + 40).map(|n| (key(n), n.to_le_bytes())).collect();
            t.add_many(&bindings).expect("adds");
            shared.set(WATERMARK, first + 40);
        }
    });
    writer.succeeds();
    finder.succeeds();
    let summary = check(&s.0);
    assert_eq!((summary.bindings, summary.keys), (KEYS, KEYS));
    assert!(shared.get(FOUND) > 1000, "the reader was there");
    say(&format!("{KEYS} keys, {} finds\n", shared.get(FOUND)));
}

/// A value of one byte again and again: halves of two are seen.
fn is_whole(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == value[0])
}

fn writers_and_readers_meet(locking: Locking) {
    const KEYS: u64 = 50;
    const STRIDE: usize = 300;
    let s = Scratch::posix("many-meet");
    let rounds = if long_form() { 100_000 } else { 4_000 };
    let options = ManageOptions::new().locking(locking).clone();
    let open = || {
        let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
        HashTable::manage(&object, &options).expect("manages")
    };
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    open().replace_many(&keys.iter().map(|key| (key, [1; 200])).collect::<Vec<_>>()).expect("replaces");
    let shared = Shared::new(4);
    let finder = fork(100, || {
        let t = open();
        let mut lens = vec![None; keys.len()];
        let mut buffer = vec![0; keys.len() * STRIDE];
        shared.add(READY, 1);
        while shared.get(WATERMARK) < 2 {
            t.find_many_into(&keys, &mut buffer, STRIDE, &mut lens).expect("finds");
            for (i, len) in lens.iter().enumerate() {
                let len = len.expect("all keys are there") as usize;
                assert!(is_whole(&buffer[i * STRIDE..][..len]), "key {i} in halves");
            }
            for value in t.find_many(&keys).expect("finds") {
                assert!(is_whole(&value.expect("all keys are there")));
            }
            shared.add(FOUND, 1);
        }
    });
    let writers: Vec<_> = (0..2)
        .map(|w| {
            let (keys, shared, open) = (&keys, &shared, &open);
            fork(100, move || {
                let t = open();
                let mut random = Random(7 + w);
                shared.wait_for(READY, 1);
                for round in 0..rounds {
                    // Mostly of the same length, which is changed in place.
                    let len = if random.below(8) == 0 { 1 + random.below(290) as usize } else { 200 };
                    let value = vec![(round % 251) as u8; len];
                    let some = (0..30).map(|_| (keys[random.below(KEYS) as usize], &value));
                    t.replace_many(&some.collect::<Vec<_>>()).expect("replaces");
                }
                shared.add(WATERMARK, 1);
            })
        })
        .collect();
    writers.into_iter().for_each(Child::succeeds);
    finder.succeeds();
    let summary = check(&s.0);
    assert_eq!((summary.bindings, summary.keys), (KEYS, KEYS));
    assert!(shared.get(FOUND) > 0, "the reader was there");
}

#[test]
fn values_are_whole_with_futexes() {
    let _alone = alone();
    writers_and_readers_meet(Locking::Futex);
}

#[test]
fn values_are_whole_with_record_locks() {
    let _alone = alone();
    writers_and_readers_meet(Locking::Record);
}

/// Somebody's group has changed key 5: those before it are stored, and it is not; all are found as they were.
#[test]
fn a_lock_in_the_way_stops_half_way() {
    let _alone = alone();
    let s = Scratch::posix("many-lock");
    let shared = Shared::new(4);
    let keys: Vec<_> = (0..10).map(key).collect();
    let old: Vec<_> = keys.iter().map(|key| (key, b"old")).collect();
    let new: Vec<_> = keys.iter().map(|key| (key, b"new")).collect();
    stage(20, || s.open().replace_many(&old).expect("replaces"));
    let holder = fork(50, || {
        let t = s.open();
        let group = t.table().begin().expect("begins");
        t.replace(&keys[5], b"his").expect("replaces");
        shared.add(READY, 1);
        shared.wait_for(READY, 2);
        group.abort().expect("aborts");
    });
    stage(20, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let t = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(50)).expect("manages");
        shared.wait_for(READY, 1);
        assert!(t.find_many(&keys).expect("finds").iter().all(|v| v.as_deref() == Some(b"old")));
        let Err(Stopped { done, error }) = t.replace_many(&new) else { panic!("the lock is held") };
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        // An earlier key may be at home in the same bucket.
        assert!(done <= 5, "{done}");
        for (i, value) in t.find_many(&keys).expect("finds").into_iter().enumerate() {
            let expected = if i < done { b"new" } else { b"old" };
            assert_eq!(value.as_deref(), Some(&expected[..]), "key {i}, {done} done");
        }
        shared.add(READY, 1);
    });
    holder.succeeds();
    stage(20, || {
        let t = s.open();
        t.replace_many(&new).expect("replaces");
        assert!(t.find_many(&keys).expect("finds").iter().all(|v| v.as_deref() == Some(b"new")));
    });
    assert_eq!(check(&s.0).bindings, 10);
}

#[test]
fn what_may_only_be_read_is_not_stored() {
    let _alone = alone();
    let s = Scratch::posix("many-read-only");
    stage(20, || {
        s.open().add_many(&[("a", "1"), ("b", "2")]).expect("adds");
        let object = OpenOptions::new().read_only(true).open(&s.0).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let stopped = Err(Stopped { done: 0, error: Error::ReadOnly });
        assert_eq!(t.replace_many(&[("a", "x"), ("c", "y")]), stopped);
        assert_eq!(t.add_many(&[("a", "x")]), stopped);
        let found = t.find_many(&["b", "c", "a", "b"]).expect("finds");
        assert_eq!(found, [Some(b"2".to_vec()), None, Some(b"1".to_vec()), Some(b"2".to_vec())]);
    });
}

/// A key that is another one each time it is asked for: it is stored under the hash of the bytes that are stored.
#[test]
fn keys_that_change_their_minds_do_no_damage() {
    struct Fickle(Cell<usize>);
    impl AsRef<[u8]> for Fickle {
        fn as_ref(&self) -> &[u8] {
            const NAMES: [&[u8]; 3] = [b"one", b"another", b"a third"];
            NAMES[self.0.replace(self.0.get() + 1) % 3]
        }
    }
    let _alone = alone();
    let s = Scratch::posix("many-fickle");
    stage(20, || {
        let t = s.open();
        let bindings: Vec<_> = (0..100).map(|i| (Fickle(Cell::new(i)), Fickle(Cell::new(i)))).collect();
        t.replace_many(&bindings).expect("replaces");
        t.add_many(&bindings).expect("adds");
        for key in ["one", "another", "a third"] {
            assert!(t.find(key.as_bytes()).expect("finds").is_some(), "{key}");
        }
    });
    check(&s.0);
}
