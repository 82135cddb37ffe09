//! Goal: what several do to the same few keys at once by the short ways of changes is neither lost nor torn nor done twice,
//! whatever lengths the values have before and after.
//!
//! Method: values that say themselves whether they are whole, of lengths that go in their place, into another block of the same
//! class or of another one, and into pages of their own; sums that all changes add to; processes with threads.

mod support_processes;

use netshm::{Error, HashTable, Update};
use support_processes::*;

/// Lengths of numbers: a word, which is changed without a mark; the longest ones that are changed in place, and what is longer; runs
/// of pages. Between them such as share a class.
const LENGTHS: [usize; 12] = [8, 8, 8, 16, 24, 72, 80, 256, 264, 1000, 1008, 20_000];

/// A number as so many bytes: each half of each word says it.
fn number(n: u64, len: usize) -> Vec<u8> {
    (n as u32).to_le_bytes().repeat(len / 4)
}

/// The number that a value is, which must be whole.
fn read(value: &[u8]) -> u64 {
    let first = value.first_chunk::<4>().expect("a word at least");
    assert!(LENGTHS.contains(&value.len()) && value.chunks(4).all(|part| part == first), "{value:?}");
    u64::from(u32::from_le_bytes(*first))
}

/// What an increment adds to both halves of a word.
const ONE: i64 = 1 | 1 << 32;

/// Keys of numbers. The last one is so long that a walk copies record and value at once and in another way.
fn number_keys() -> [Vec<u8>; 4] {
    [b"n".to_vec(), b"a key of 16 b...".to_vec(), b"seventeen bytes..".to_vec(), vec![b'l'; 3001]]
}

/// Adds one to a number in one of all ways. False: somebody else was faster, and nothing was done.
fn add_one(t: &HashTable, key: &[u8], random: &mut Random) -> bool {
    let len = |old: usize, random: &mut Random| match random.below(4) {
        0 => LENGTHS[random.below(LENGTHS.len() as u64) as usize],
        _ => old,
    };
    match random.below(8) {
        0..3 => {
            t.update(key, |old| {
                let old = old.expect("is never removed");
                Update::Replace(number(read(old) + 1, len(old.len(), random)))
            })
            .expect("updates");
            true
        }
        3 => match t.increment(key, ONE, 0) {
            Ok(sum) => {
                read(&sum.to_le_bytes());
                true
            }
            Err(e) => {
                assert!(matches!(e, Error::Type { .. }), "{e}");
                false
            }
        },
        4 => {
            // What changes nothing, and what fails, leaves no trace.
            t.update(key, |_| Update::Keep).expect("updates");
            let failed = t.try_update(key, |old| {
                read(old.expect("is never removed"));
                Err(Error::Aborted)
            });
            assert_eq!(failed, Err(Error::Aborted));
            false
        }
        5 => {
            let outcome: Result<(), Error> = t.table().group_retry(None, || {
                let old = t.find(key)?.expect("is never removed");
                t.replace(key, &number(read(&old) + 1, len(old.len(), random)))
            });
            outcome.expect("commits");
            true
        }
        _ => {
            let old = t.find(key).expect("finds").expect("is never removed");
            let new = number(read(&old) + 1, len(old.len(), random));
            match t.compare_and_replace(key, &old, &new) {
                Ok(()) => true,
                Err(e) => {
                    assert_eq!(e, Error::Changed);
                    false
                }
            }
        }
    }
}

/// Looks at all numbers in one of all ways: they are whole, and do not go back.
fn look(t: &HashTable, seen: &mut [u64; 4], random: &mut Random) {
    let keys = number_keys();
    let mut note = |i: usize, value: &[u8]| {
        let n = read(value);
        assert!(n >= seen[i], "{n} after {}", seen[i]);
        seen[i] = n;
    };
    match random.below(5) {
        0 => {
            for binding in t.iter() {
                let (key, value) = binding.expect("iterates");
                if let Some(i) = keys.iter().position(|k| *k == key) {
                    note(i, &value);
                }
            }
        }
        1 => {
            let found = t.find_many(&keys).expect("finds");
            found.iter().enumerate().for_each(|(i, value)| note(i, value.as_ref().expect("is there")));
        }
        2 => keys.iter().enumerate().for_each(|(i, key)| {
            let all = t.find_all(key).expect("finds");
            assert_eq!(all.len(), 1, "a replacement is no addition");
            note(i, &all[0]);
        }),
        3 => keys.iter().enumerate().for_each(|(i, key)| {
            t.view(key, |value| note(i, value)).expect("views").expect("is there");
        }),
        _ => keys.iter().enumerate().for_each(|(i, key)| {
            let mut buffer = [0; 20_000];
            let len = t.find_into(key, &mut buffer).expect("finds").expect("is there");
            note(i, &buffer[..len]);
        }),
    }
}

fn rounds(short: u64) -> u64 {
    if long_form() { 40 * short } else { short }
}

/// Goal: no change is lost, nor is any half of one seen. Method: numbers to which three processes of two threads each add one, by
/// callbacks, comparisons, increments, and groups, and with other lengths; all look meanwhile.
#[test]
fn numbers_of_changing_lengths_are_whole_and_lose_nothing() {
    let _alone = alone();
    let s = Scratch::posix("short-ways");
    let t = s.open();
    for key in number_keys() {
        t.replace(&key, &number(0, 8)).expect("replaces");
    }
    drop(t);
    let done = Shared::new(4);
    let workers: Vec<Child> = (0..3)
        .map(|process| {
            let (s, done) = (&s, &done);
            fork(100, move || {
                let t = s.open();
                std::thread::scope(|scope| {
                    for thread in 0..2 {
                        let t = &t;
                        scope.spawn(move || {
                            let mut random = Random(7 + 2 * process + thread);
                            let mut seen = [0; 4];
                            for _ in 0..rounds(150_000) {
                                let i = random.below(4) as usize;
                                if add_one(t, &number_keys()[i], &mut random) {
                                    done.add(i, 1);
                                }
                                if random.below(8) == 0 {
                                    look(t, &mut seen, &mut random);
                                }
                            }
                        });
                    }
                });
            })
        })
        .collect();
    workers.into_iter().for_each(Child::succeeds);
    let t = s.open();
    for (i, key) in number_keys().iter().enumerate() {
        let all = t.find_all(key).expect("finds");
        assert_eq!(all.iter().map(|value| read(value)).collect::<Vec<_>>(), [done.get(i)], "key {i}");
    }
    drop(t);
    check(&s.0);
}

/// Goal: a stack is as high as what was put on it and taken off it, and what is bound only if it is not there is bound once. Method:
/// processes that add, remove, replace and insert with values of all lengths; what was done is counted.
#[test]
fn stacks_of_changing_lengths_are_as_high_as_they_should_be() {
    let _alone = alone();
    let s = Scratch::posix("short-stacks");
    const HIGHEST: u64 = 20;
    let height = Shared::new(3);
    let workers: Vec<Child> = (0..4)
        .map(|process| {
            let (s, height) = (&s, &height);
            fork(100, move || {
                let t = s.open();
                let mut random = Random(70 + process);
                for _ in 0..rounds(200_000) {
                    let i = random.below(3) as usize;
                    let stack = [&b"stack"[..], b"stack of 16 b...", b"another stack"][i];
                    let value = number(random.next(), LENGTHS[random.below(LENGTHS.len() as u64) as usize]);
                    match random.below(8) {
                        0 if height.get(i) < HIGHEST => {
                            t.add_many(&[(stack, &value)]).expect("adds");
                            height.add(i, 1);
                        }
                        1 | 2 if height.get(i) < HIGHEST => {
                            t.add(stack, &value).expect("adds");
                            height.add(i, 1);
                        }
                        3 | 4 => {
                            if t.remove(stack).expect("removes") {
                                height.add(i, u64::MAX);
                            }
                        }
                        5 => {
                            // The older ones stay what they are, and in their places.
                            let replace = |old: Option<&[u8]>| match old {
                                Some(old) => {
                                    read(old);
                                    Update::Replace(value.clone())
                                }
                                None => Update::Keep,
                            };
                            t.update(stack, replace).expect("updates");
                        }
                        6 => {
                            // Only if it is not there, or in its place: never two.
                            let outcome = t.insert(b"single", &value);
                            assert!(matches!(outcome, Ok(()) | Err(Error::Exists)), "{outcome:?}");
                            assert!(t.find_all(b"single").expect("finds").len() <= 1);
                            t.replace(b"single", &value).expect("replaces");
                            t.replace_many(&[(b"single", &value)]).expect("replaces");
                            assert!(t.find_all(b"single").expect("finds").len() <= 1);
                            t.remove(b"single").expect("removes");
                        }
                        _ => t
                            .find_all(stack)
                            .expect("finds")
                            .iter()
                            .for_each(|value| assert!(read(value) <= u64::from(u32::MAX))),
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(Child::succeeds);
    let t = s.open();
    let all: Vec<u64> = [&b"stack"[..], b"stack of 16 b...", b"another stack"]
        .iter()
        .map(|stack| t.find_all(stack).expect("finds").len() as u64)
        .collect();
    assert_eq!(all, (0..3).map(|i| height.get(i)).collect::<Vec<_>>());
    assert!(t.find_all(b"single").expect("finds").len() <= 1);
    drop(t);
    check(&s.0);
}
