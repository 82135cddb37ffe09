//! Goal: a walk shows what is there, whatever its shape, and nothing that was never there.
//!
//! Method: bindings of all lengths and stacks of all depths, shown outside of groups, where most go a short way and some
//! cannot, and in one, where none does; then values that say whether they are whole, changed while others walk.

use netshm::{HashTable, ManageOptions, OpenOptions};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn table(expected: u64) -> HashTable {
    let object = OpenOptions::new().anonymous().expect("memory");
    HashTable::manage(&object, ManageOptions::new().expected(expected)).expect("a hash table")
}

/// The bindings of each key, newest first, as a walk shows them.
fn shown(t: &HashTable) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut all: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for binding in t.iter() {
        let (key, value) = binding.expect("walks");
        all.entry(key).or_default().push(value);
    }
    all
}

fn value(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (n.wrapping_mul(31).wrapping_add(i.wrapping_mul(i >> 3 | 1))) as u8).collect()
}

/// All bindings of `t` are those of `expected`, and every key is shown once by a walk over keys.
fn assert_shown(t: &HashTable, expected: &HashMap<Vec<u8>, Vec<Vec<u8>>>, when: &str) {
    let all = shown(t);
    assert_eq!(all.len(), expected.len(), "{when}");
    for (key, values) in expected {
        assert!(all.get(key) == Some(values), "{when}: wrong bindings of a key of {} bytes", key.len());
    }
    let mut keys: Vec<Vec<u8>> = t.keys().map(|key| key.expect("walks")).collect();
    keys.sort();
    let mut wanted: Vec<&Vec<u8>> = expected.keys().collect();
    wanted.sort();
    assert!(keys.iter().eq(wanted), "{when}: wrong keys");
}

#[test]
fn bindings_of_every_shape_are_shown() {
    let t = table(0);
    let mut expected: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    let mut add = |key: Vec<u8>, value: Vec<u8>| {
        t.add(&key, &value).expect("adds");
        expected.entry(key).or_default().insert(0, value);
    };
    for len in (0..=130).chain([255, 256, 257, 495, 496, 497, 511, 512, 513, 1000, 16_000, 32_700, 32_800]) {
        add(value(len, len.max(1)), value(len, 130 - len.min(130)));
        add(format!("length {len}").into_bytes(), value(len, len));
    }
    for len in [65_535, 65_536, 70_001, 1 << 20, 3 << 20] {
        add(format!("length {len}").into_bytes(), value(len, len));
        add(format!("beside {len}").into_bytes(), value(len, 5));
    }
    add(Vec::new(), Vec::new());
    add(value(3, 40_000), value(4, 3));
    for depth in [2, 3, 63, 64, 65, 66, 67, 300] {
        (0..depth).for_each(|n| add(format!("depth {depth}").into_bytes(), value(n, n % 40)));
    }
    for n in 0..3000 {
        add(format!("one of many {n}").into_bytes(), value(n, n % 100));
    }
    assert_shown(&t, &expected, "outside of a group");
    let in_group = || -> netshm::Result<()> {
        assert_shown(&t, &expected, "in a group");
        Ok(())
    };
    t.table().group(in_group).expect("a group");
    assert_shown(&t, &expected, "again");
}

/// Many keys for few buckets, added by one group: what overflow lines hold is shown.
#[test]
fn long_chains_are_shown() {
    let t = table(0);
    let expected: HashMap<Vec<u8>, Vec<Vec<u8>>> =
        (0..5000usize).map(|n| (n.to_le_bytes().to_vec(), vec![value(n, 8)])).collect();
    let add =
        || -> netshm::Result<()> { expected.iter().try_for_each(|(key, values)| t.add(key, &values[0])) };
    t.table().group(add).expect("a group");
    assert_shown(&t, &expected, "after one group");
}

/// Values are changed in place, moved, removed and put back, all bytes of each alike, while others walk.
#[test]
fn what_changes_meanwhile_is_shown_whole() {
    const KEYS: u64 = 120;
    const LENS: [usize; 6] = [8, 64, 200, 300, 2000, 40_000];
    let walks_wanted: u64 = if std::env::var_os("NETSHM_LONG").is_some() { 100_000 } else { 2000 };
    let t = table(0);
    // The low bits of a value's bytes are the key's.
    let value = |n: u64, version: u8| vec![version << 3 | (n % 8) as u8; LENS[n as usize % LENS.len()]];
    for n in 0..KEYS {
        t.add(&n.to_le_bytes(), &value(n, 0)).expect("adds");
    }
    let (ended, walks, changed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let judge = |key: &[u8], value: &[u8]| {
        let n = u64::from_le_bytes(key.try_into().expect("8 bytes"));
        assert!(n < KEYS, "a key that was never there");
        assert_eq!(value.len(), LENS[n as usize % LENS.len()], "key {n}");
        assert_eq!(u64::from(value[0] % 8), n % 8, "key {n} with the value of another one");
        assert!(value[1..] == value[..value.len() - 1], "key {n}: a value that never was");
        n
    };
    std::thread::scope(|threads| {
        for writer in 0..2u64 {
            let (t, ended, changed) = (&t, &ended, &changed);
            threads.spawn(move || {
                for round in 0u64.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    for n in (0..KEYS).filter(|n| n % 2 == writer) {
                        // Some keys have short values and change most.
                        if LENS[n as usize % LENS.len()] > 1000 && round % 16 != 0 {
                            continue;
                        }
                        t.replace(&n.to_le_bytes(), &value(n, round as u8)).expect("replaces");
                        if n % 5 == 0 {
                            t.add(&n.to_le_bytes(), &value(n, round as u8)).expect("adds");
                            assert!(t.remove(&n.to_le_bytes()).expect("removes"));
                        }
                        changed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let walk = || {
            let mut met = [0u32; KEYS as usize];
            for binding in t.iter() {
                let (key, value) = binding.expect("walks");
                met[judge(&key, &value) as usize] += 1;
            }
            // A second binding comes and goes above the one that stays.
            let at_most = |n: usize| if n % 5 == 0 { 2 } else { 1 };
            (0..KEYS as usize)
                .for_each(|n| assert!((1..=at_most(n)).contains(&met[n]), "{n}: {} times", met[n]));
            walks.fetch_add(1, Ordering::Relaxed);
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while walks.load(Ordering::Relaxed) < walks_wanted {
                walk();
            }
        }));
        ended.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let changed = changed.into_inner();
    println!("{walks_wanted} walks while there were {changed} changes");
    assert!(changed > KEYS, "nothing changed meanwhile");
}
