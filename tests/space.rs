//! Goal: memory and address space that end: an error and nothing lost, never SIGBUS; memory comes back.
//!
//! Method: limits of all kinds, swept; the table compared with a model, and the checker.

#[path = "space/growth_steps.rs"]
mod growth_steps;
mod support_processes;

use netshm::{Error, HashTable, ManageOptions, Name, OpenOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support_processes::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u64) -> Vec<u8> {
    format!("key {n:012}").into_bytes()
}

fn value(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (n.wrapping_mul(31) + i * 7 + 1) as u8).collect()
}

/// The table is the model; and the checker is content.
fn compare(t: &HashTable, name: &Name, model: &Model, when: &str) {
    let mut n = 0;
    for binding in t.iter() {
        let (key, value) = binding.expect("reads");
        assert_eq!(model.get(&key), Some(&value), "{when}: {}", String::from_utf8_lossy(&key));
        n += 1;
    }
    assert_eq!(n, model.len(), "{when}");
    for (key, value) in model.iter().step_by(7) {
        assert_eq!(t.find(key).expect("finds").as_ref(), Some(value), "{when}");
    }
    assert_eq!(t.len().expect("counts"), model.len() as u64, "{when}");
    check(name);
}

/// Adds until there is no space; gives how many went in.
fn fill(t: &HashTable, model: &mut Model, first: u64, len_of: impl Fn(u64) -> usize) -> u64 {
    for n in first.. {
        let v = value(n, len_of(n));
        match t.add(&key(n), &v) {
            Ok(()) => drop(model.insert(key(n), v)),
            Err(e) => {
                assert_eq!(e, Error::NoSpace, "key {n}");
                return n - first;
            }
        }
        assert!(n < first + 10_000_000, "that never ends");
    }
    unreachable!()
}

/// What must hold on a table that can get full. `name` is new; `options` limit it, or its device does.
/// Gives how many keys went in.
fn full_and_on(name: &Name, options: &ManageOptions, len_of: impl Fn(u64) -> usize + Copy) -> u64 {
    let object = match OpenOptions::new().create(true).open(name) {
        Ok(object) => object,
        Err(e) => {
            assert_eq!(e, Error::NoSpace, "opens");
            return 0;
        }
    };
    let t = match HashTable::manage(&object, options) {
        Ok(t) => t,
        Err(e) => {
            assert_eq!(e, Error::NoSpace, "manages");
            // Still no space, and still no damage.
            assert_eq!(HashTable::manage(&object, options).err(), Some(Error::NoSpace));
            check(name);
            return 0;
        }
    };
    let mut model = Model::new();
    let added = fill(&t, &mut model, 0, len_of);
    compare(&t, name, &model, "full");
    if added < 20 {
        return added;
    }
    // The refusals stay refusals, and cost nothing.
    for n in 0..50 {
        let big = value(n, 300_000);
        assert_eq!(t.replace(&key(0), &big), Err(Error::NoSpace));
        assert_eq!(t.add(&key(n), &big), Err(Error::NoSpace));
    }
    // What needs no space works: small values in place, reading, removing.
    let same = value(77, model[&key(1)].len());
    match t.replace(&key(1), &same) {
        Ok(()) => drop(model.insert(key(1), same)),
        Err(e) => assert!(e == Error::NoSpace && same.len() > 255, "a small value is replaced in place: {e}"),
    }
    compare(&t, name, &model, "refused");
    // A group that runs out of space fails as a whole, and so does the table's view of it.
    let group: Result<(), Error> = t.table().group_retry(Some(Duration::from_secs(10)), || {
        t.remove(&key(2))?;
        t.replace(&key(3), b"changed")?;
        for n in 0..u64::MAX {
            t.add(&key(1_000_000_000 + n), &value(n, 3000))?;
        }
        Ok(())
    });
    assert_eq!(group, Err(Error::NoSpace));
    compare(&t, name, &model, "group rolled back");
    // The same, when the group swallows the error and commits: what was done before it is there.
    let mut went_in = Vec::new();
    let group: Result<(), Error> = t.table().group_retry(Some(Duration::from_secs(10)), || {
        went_in.clear();
        t.remove(&key(4))?;
        t.remove(&key(5))?;
        for n in 0..10_000 {
            let n = 2_000_000_000 + n;
            match t.add(&key(n), &value(n, 100)) {
                Ok(()) => went_in.push(n),
                Err(Error::NoSpace) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    });
    match group {
        Ok(()) => {
            model.remove(&key(4));
            model.remove(&key(5));
            model.extend(went_in.iter().map(|n| (key(*n), value(*n, 100))));
        }
        Err(e) => assert_eq!(e, Error::NoSpace),
    }
    compare(&t, name, &model, "group with a refusal");
    // Removing makes room.
    let keys: Vec<Vec<u8>> = model.keys().cloned().collect();
    for key in keys.iter().step_by(2) {
        assert!(t.remove(key).expect("removing needs no space"));
        model.remove(key);
    }
    compare(&t, name, &model, "half removed");
    // Values all alike fit again where they were; new keys might need memory of another kind.
    let alike = (0..10).all(|n| len_of(n) == len_of(0));
    for key in keys.iter().step_by(2) {
        let v = value(1, len_of(0));
        match t.add(key, &v) {
            Ok(()) => drop(model.insert(key.clone(), v)),
            Err(e) => assert!(!alike && e == Error::NoSpace, "what was there before does not fit again: {e}"),
        }
    }
    fill(&t, &mut model, 3_000_000_000, len_of);
    compare(&t, name, &model, "full again");
    for key in model.keys() {
        assert!(t.remove(key).expect("removes"));
    }
    model.clear();
    compare(&t, name, &model, "emptied");
    // A process that comes later finds a sound object.
    fork(30, || {
        let t = open(name);
        if fill(&t, &mut Model::new(), 4_000_000_000, len_of) == 0 {
            panic!("there is room again");
        }
    })
    .succeeds();
    check(name);
    added
}

/// Lengths of values: all alike, or a mixture that takes blocks and runs.
fn mixed(n: u64) -> usize {
    [8, 40, 8, 300, 8, 2000, 8, 20_000, 100, 70_000][(n % 10) as usize]
}

/// Goal: an object with a maximum size gets full and stays sound. Method: sizes swept, from impossible to
/// some MiB; small values, large ones, a mixture.
#[test]
fn full_by_the_maximum_size() {
    let _alone = alone();
    let mut figures = String::new();
    let step = if long_form() { 20_480 } else { 225_280 };
    for kind in 0..3 {
        for max in (4096u64..1_400_000).step_by(step).chain([4 << 20, 9_000_000]) {
            let s = Scratch::posix("full");
            let figure = Shared::new(1);
            stage(60, || {
                let mut options = ManageOptions::new();
                options.max_bytes(max);
                let n = full_and_on(&s.0, &options, |n| [8, mixed(n), 30_000][kind]);
                figure.set(0, n);
            });
            if let Ok(object) = OpenOptions::new().open(&s.0) {
                assert!(object.size().expect("has a size") <= max, "grew beyond its maximum");
            }
            figures += &format!(" {max}:{}", figure.get(0));
        }
    }
    say(&format!("bytes:keys{figures}\n"));
}

/// Goal: a full device is an error, never SIGBUS, and nothing is lost. Method: tmpfs of many sizes.
#[test]
fn full_by_the_device() {
    let _alone = alone();
    let mut figures = String::new();
    let step = if long_form() { 12_288 } else { 225_280 };
    for kind in 0..3 {
        for bytes in (4096u64..1_400_000).step_by(step).chain([3 << 20, 9_000_960]) {
            let figure = Shared::new(2);
            let mut directory = None;
            let child = fork(60, || {
                let Some(dir) = small_device(bytes) else {
                    figure.set(1, 1);
                    return;
                };
                let name = Name::File(dir.join("object"));
                let options = ManageOptions::new();
                let n = full_and_on(&name, &options, |n| [8, mixed(n), 30_000][kind]);
                figure.set(0, n);
            });
            directory.replace(PathBuf::from(format!("/tmp/netshm-device-{}", child.pid)));
            let end = child.wait();
            let _ = directory.map(std::fs::remove_dir);
            assert_eq!(end, End::Exit(0), "device of {bytes} bytes, kind {kind} (signal 7 is SIGBUS)");
            if figure.get(1) == 1 {
                skip("space: a tmpfs in a mount namespace of its own is not permitted here");
                return;
            }
            figures += &format!(" {bytes}:{}", figure.get(0));
        }
    }
    say(&format!("bytes of the device:keys{figures}\n"));
}

/// Goal: a device that others fill and empty meanwhile. Method: a file beside the object takes and gives room.
#[test]
fn a_device_that_others_fill() {
    let _alone = alone();
    let shared = Shared::new(1);
    let child = fork(60, || {
        let Some(dir) = small_device(6 << 20) else {
            shared.set(0, 1);
            return;
        };
        let name = Name::File(dir.join("object"));
        let t = open(&name);
        let mut model = Model::new();
        let mut random = Random(5);
        let mut next = 0;
        for round in 0..12 {
            let other = dir.join("other");
            let size = random.below(3 << 20) as usize;
            // As much as fits.
            let _ = std::fs::write(&other, vec![1; size]);
            next += 1 + fill(&t, &mut model, next, mixed);
            compare(&t, &name, &model, &format!("round {round}"));
            std::fs::remove_file(&other).expect("removes");
            for k in model.keys().filter(|_| random.below(3) > 0).cloned().collect::<Vec<_>>() {
                assert!(t.remove(&k).expect("removes"));
                model.remove(&k);
            }
            compare(&t, &name, &model, &format!("round {round}, removed"));
        }
    });
    let pid = child.pid;
    let end = child.wait();
    let _ = std::fs::remove_dir(format!("/tmp/netshm-device-{pid}"));
    assert_eq!(end, End::Exit(0), "(signal 7 is SIGBUS)");
    if shared.get(0) == 1 {
        skip("space: a tmpfs in a mount namespace of its own is not permitted here");
    }
}

/// Goal: address space that ends is an error as well, less of it is enough, and the same handles work on when there is more
/// again. Method: RLIMIT_AS, which is raised again in the end.
#[test]
fn little_address_space() {
    let _alone = alone();
    const KEYS: u64 = 40_000;
    for spare in [1u64 << 20, 8 << 20, 48 << 20, 64 << 20, 512 << 20] {
        let s = Scratch::posix("address-space");
        stage(60, || {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("reads");
            let pages: u64 = statm.split(' ').next().and_then(|n| n.parse().ok()).expect("is a number");
            let before = limit_address_space(pages * 4096 + spare);
            let object = match OpenOptions::new().create(true).open(&s.0) {
                Ok(object) => object,
                Err(e) => panic!("opens: {e}"),
            };
            let fill = |t: &HashTable, added: &mut u64| {
                while *added < KEYS {
                    t.add(&key(*added), &value(*added, 900))?;
                    *added += 1;
                }
                Ok(())
            };
            let (mut added, mut outcome) = (0u64, Ok(()));
            let mut t = match HashTable::manage(&object, &ManageOptions::new()) {
                Ok(t) => Some(t),
                Err(e) => {
                    assert!(spare <= 1 << 20 && e == Error::NoMemory, "{e:?}");
                    say("1 MiB of address space: not enough\n");
                    None
                }
            };
            if let Some(t) = &t {
                outcome = fill(t, &mut added);
                say(&format!("{} MiB of address space: {added} keys, then {outcome:?}\n", spare >> 20));
                if let Err(e) = &outcome {
                    // What a caller can understand: there is no memory, or the object cannot be mapped further.
                    let named = ["the object exceeds this process's address space"];
                    let is_clear = match e {
                        Error::NoMemory => true,
                        Error::TooLarge(what) => named.contains(what),
                        _ => false,
                    };
                    assert!(is_clear, "{e:?}");
                }
                assert!(added > 100, "{outcome:?}");
                assert!(spare < 100 << 20 || added == KEYS);
                holds(t, added);
            }
            limit_address_space(before);
            let t = t.get_or_insert_with(|| {
                HashTable::manage(&object, &ManageOptions::new()).expect("manages when there is more")
            });
            fill(t, &mut added).expect("adds when there is more");
            t.replace(b"afterwards", &value(1, 3_000_000)).expect("replaces when there is more");
            holds(t, KEYS);
            assert_eq!(t.find(b"afterwards").expect("finds"), Some(value(1, 3_000_000)));
            assert_eq!(t.len().expect("counts"), KEYS + 1);
            assert!(outcome.is_err() || !(8 << 20..100 << 20).contains(&spare), "the limit was not felt");
        });
        assert_eq!(check(&s.0).bindings, KEYS + 1);
    }
}

/// All keys up to a number are there. Needs no memory of its own.
fn holds(t: &HashTable, count: u64) {
    let (mut buffer, mut name) = ([0; 1000], Vec::with_capacity(32));
    for n in 0..count {
        use std::io::Write;
        name.clear();
        write!(name, "key {n:012}").expect("writes");
        assert_eq!(t.find_into(&name, &mut buffer).expect("finds"), Some(900));
    }
}

/// Sets the soft limit alone, which can be raised again; gives what it was.
fn limit_address_space(most: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives during the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, most);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const limit), 0);
        before
    }
}

/// Goal: memory that was freed is used again at once. Method: a table that is filled and emptied does not grow.
#[test]
fn freed_memory_is_used_again() {
    let _alone = alone();
    let s = Scratch::posix("again");
    stage(60, || {
        let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let mut sizes = Vec::new();
        for round in 0..12u64 {
            for n in 0..3000 {
                t.add(&key(n), &value(n + round, mixed(n + round % 2))).expect("adds");
            }
            for n in 0..3000 {
                t.replace(&key(n), &value(n, mixed(n + 1))).expect("replaces");
            }
            sizes.push(object.size().expect("has a size"));
            for n in 0..3000 {
                assert!(t.remove(&key(n)).expect("removes"));
            }
        }
        say(&format!("size after each round: {sizes:?}\n"));
        assert!(sizes[11] <= sizes[2] + (sizes[2] >> 4), "it goes on growing: {sizes:?}");
    });
    check(&s.0);
}

/// Goal: much memory that was freed returns to the system. Method: 100 MiB, removed; after the quarantine
/// further operations punch holes.
#[test]
fn freed_memory_returns() {
    let _alone = alone();
    if !long_form() {
        return;
    }
    let s = Scratch::posix("returns");
    let Name::Posix { mem, .. } = &s.0 else { unreachable!() };
    let path = Path::new("/dev/shm").join(mem.to_str().expect("is UTF-8").trim_start_matches('/'));
    stage(120, || {
        let t = s.open();
        for n in 0..5000 {
            t.add(&key(n), &value(n, 20_000)).expect("adds");
        }
        let full = blocks(&path).0;
        for n in 0..5000 {
            assert!(t.remove(&key(n)).expect("removes"));
        }
        std::thread::sleep(Duration::from_secs(12));
        for n in 0..3000 {
            t.replace(b"k", &value(n, 20_000 + (n as usize % 2) * 1000)).expect("replaces");
        }
        let left = blocks(&path).0;
        say(&format!("{} KiB when full, {} KiB after the quarantine\n", full / 2, left / 2));
        assert!(left < full / 4, "{left} of {full} blocks are still there");
        for n in 0..5000 {
            t.add(&key(n), &value(n, 20_000)).expect("adds");
        }
        for n in 0..5000 {
            assert_eq!(t.find(&key(n)).expect("finds"), Some(value(n, 20_000)));
        }
    });
    check(&s.0);
}

/// Goal: a reservation of 1 MiB is extended while other threads use pointers into it, and while several threads
/// notice at once that it is too small. Method: another process makes the object grow to many times that; in
/// this one four threads find what is there, from the newest backwards, and add some themselves.
#[test]
fn a_small_reservation_is_extended_under_threads_at_work() {
    let _alone = alone();
    let rounds = if long_form() { 300 } else { 30 };
    let value = |i: u64| vec![i as u8; 900];
    for _ in 0..rounds {
        let s = Scratch::posix("reservation");
        let shared = Shared::new(2);
        drop(s.open());
        let grower = fork(60, || {
            let t = s.open();
            shared.wait_for(1, 1);
            for i in 0..30_000u64 {
                t.add(&i.to_le_bytes(), &value(i)).expect("adds");
                shared.set(0, i + 1);
            }
        });
        stage(60, || {
            let object = OpenOptions::new().reservation(1 << 20).open(&s.0).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            shared.set(1, 1);
            std::thread::scope(|scope| {
                for n in 0..4u64 {
                    let (t, shared) = (&t, &shared);
                    scope.spawn(move || {
                        let mut random = Random(n);
                        let mut added = 0;
                        loop {
                            let there = shared.get(0);
                            if there == 0 {
                                continue;
                            }
                            let i = there - 1 - random.below(there.min(20));
                            let found = t.find(&i.to_le_bytes()).expect("finds");
                            assert_eq!(found, Some(value(i)), "key {i}");
                            if n < 2 && added < 2000 {
                                added += 1;
                                t.add(&(n << 32 | added).to_be_bytes(), &value(added)).expect("adds");
                            }
                            if there == 30_000 {
                                break;
                            }
                        }
                    });
                }
            });
            let size = object.size().expect("has a size");
            assert!(size > 16 << 20, "{size}");
        });
        grower.succeeds();
        assert!(check(&s.0).bindings >= 30_000);
    }
}

/// Goal: where nothing is free, values get other lengths and stacks grow as far as there is room, or there is an error and
/// nothing has happened. Method: a table that is full, changes of keys in all ways, and stacks that are compared with.
#[test]
fn values_of_a_full_table_change_their_lengths_or_stay() {
    let _alone = alone();
    let refusals = Shared::new(2);
    for (round, max) in [300_000u64, 700_000, 2 << 20].into_iter().enumerate() {
        let s = Scratch::posix("full-lengths");
        stage(60, || {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            let t = HashTable::manage(&object, ManageOptions::new().max_bytes(max)).expect("manages");
            let mut first = Model::new();
            fill(&t, &mut first, 0, |n| [8, 300, 40, 2000][(n % 4) as usize]);
            let mut model: BTreeMap<Vec<u8>, Vec<Vec<u8>>> =
                first.into_iter().map(|(key, value)| (key, vec![value])).collect();
            let (keys, mut random) = (model.len() as u64, Random(round as u64));
            for n in 0..if long_form() { 200_000 } else { 20_000 } {
                let key = key(random.below(keys));
                let new = value(
                    n,
                    [0, 8, 9, 40, 41, 256, 257, 300, 2000, 2001, 9000, 16_000][random.below(12) as usize],
                );
                let stack = model.entry(key.clone()).or_default();
                let replaces = random.below(4);
                let outcome = match replaces {
                    0 => t.add(&key, &new),
                    1 => t.replace(&key, &new),
                    2 => t.update(&key, |_| netshm::Update::Replace(new.clone())),
                    _ if random.below(2) == 0 => {
                        assert_eq!(t.remove(&key), Ok(stack.pop().is_some()), "change {n}");
                        continue;
                    }
                    _ => t.replace_many(&[(&key, &new)]).map_err(Error::from),
                };
                match outcome {
                    Ok(()) => {
                        if replaces != 0 {
                            stack.pop();
                        }
                        stack.push(new);
                    }
                    Err(e) => {
                        assert_eq!(e, Error::NoSpace, "change {n}");
                        refusals.add(0, 1);
                    }
                }
                refusals.add(1, 1);
                assert!(t.find_all(&key).expect("finds").iter().eq(stack.iter().rev()), "change {n}");
            }
            assert_eq!(t.len().expect("counts"), model.values().map(|stack| stack.len() as u64).sum());
            check(&s.0);
            for (key, stack) in &model {
                assert!(t.find_all(key).expect("finds").iter().eq(stack.iter().rev()));
                stack.iter().for_each(|_| assert!(t.remove(key).expect("removes")));
            }
            assert_eq!(t.len(), Ok(0));
        });
        assert_eq!(check(&s.0).bindings, 0);
    }
    say(&format!("{} of {} changes refused\n", refusals.get(0), refusals.get(1)));
    assert!(refusals.get(0) > 0, "it was never full");
}
