//! Goal: primitive tables are what a map of stacks of integer arrays says, whatever the sequence of operations, walks
//! that change and remove any binding included, alone, in groups that are rolled back, and among other processes.
//!
//! Method: random operations are done on a table and on a model, and each outcome is compared. Walks over blocks take
//! their answers from a generator of random numbers, of which table and model get a copy each. The contents are
//! compared at intervals, and the checker has the last word. Lengths are around the limits of fragments, of changes in
//! place, and of blocks. `NETSHM_SEED` repeats a run; `NETSHM_ROUNDS` is the number of operations.

mod support;

use netshm::{
    BlockOp, Error, FRAGMENT_WORDS, HashTable, ManageOptions, Name, OpenOptions, PrimitiveTable, Step,
};
use std::collections::HashMap;
use support::process::{Exit, fork, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_sound};

const LENGTHS: &[usize] = &[
    0, 1, 2, 3, 4, 7, 8, 10, 63, 64, 65, 100, 1000, 1022, 1023, 1024, 1025, 2047, 2048, 2049, 4090, 4095,
    4096, 4097, 5000, 20_000,
];
const DEEPEST: usize = 8;

type Stack = Vec<Vec<i32>>;
/// For each key its bindings, the newest last.
type Model = HashMap<i32, Stack>;
type Answer = netshm::Result<(Step, Option<BlockOp>)>;

fn open(name: &Name) -> PrimitiveTable {
    let object = OpenOptions::new().create(true).open(name).expect("opens");
    support::settle_locking(&object);
    PrimitiveTable::manage(&object, &ManageOptions::new()).expect("manages")
}

fn value(random: &mut Random) -> Vec<i32> {
    let len = if random.once_in(8) { *random.one_of(LENGTHS) } else { random.below(70) as usize };
    (0..len).map(|_| random.next() as i32).collect()
}

/// A callback of write_blocks that answers at random, and counts its calls.
fn writer(mut random: Random, announced: bool) -> impl FnMut(Option<&mut [i32]>) -> Answer {
    let may_fail = random.once_in(10);
    move |fragment| {
        if let Some(words) = fragment {
            assert!(!words.is_empty() && words.len() <= FRAGMENT_WORDS);
            if random.once_in(2) {
                let at = random.below(words.len() as u64) as usize;
                words[at] ^= random.next() as i32;
            }
        }
        if may_fail && random.once_in(4) {
            return Err(Error::Callback(-1234));
        }
        let step = match random.below(12) {
            0 => Step::Break,
            1 | 2 => Step::Next,
            _ => Step::Go,
        };
        let op = (announced || may_fail) && random.once_in(4);
        Ok((step, op.then_some(BlockOp::Remove)))
    }
}

/// What write_blocks is to make of a stack.
fn write_blocks(
    stack: &Stack,
    announced: bool,
    mut f: impl FnMut(Option<&mut [i32]>) -> Answer,
) -> netshm::Result<Stack> {
    let mut new: Stack = stack.clone();
    let mut gone = Vec::new();
    'bindings: for i in (0..new.len()).rev() {
        let len = new[i].len();
        let mut at = 0;
        loop {
            let end = (at + FRAGMENT_WORDS).min(len);
            let (step, op) = f(if at < len { Some(&mut new[i][at..end]) } else { None })?;
            if op.is_some() {
                if !announced {
                    return Err(Error::Unannounced);
                }
                gone.push(i);
            }
            match step {
                Step::Break => break 'bindings,
                Step::Next => break,
                Step::Go if at >= len => break,
                Step::Go => at = end,
            }
        }
    }
    let kept = new.into_iter().enumerate().filter(|(i, _)| !gone.contains(i));
    Ok(kept.map(|(_, value)| value).collect())
}

/// One random operation on both.
fn step(table: &PrimitiveTable, model: &mut Model, key: i32, random: &mut Random) {
    let stack = model.entry(key).or_default();
    match random.below(10) {
        0..=2 if stack.len() < DEEPEST => {
            let value = value(random);
            table.add(key, &value).expect("adds");
            stack.push(value);
        }
        3 => {
            // Often of the same length, so that it is replaced in place.
            let mut value = value(random);
            if let Some(old) = stack.last().filter(|_| random.once_in(2)) {
                value.resize(old.len(), 7);
            }
            table.replace(key, &value).expect("replaces");
            stack.pop();
            stack.push(value);
        }
        4 => assert_eq!(table.remove(key).expect("removes"), stack.pop().is_some()),
        5 => {
            assert_eq!(table.find(key).expect("finds").as_ref(), stack.last());
            assert_eq!(table.contains(key).expect("looks"), !stack.is_empty());
        }
        6 => {
            let most = random.below(12);
            let mut seen = (0, Vec::new());
            let ended = table.read_blocks(key, |fragment| {
                seen.0 += 1;
                seen.1.push(fragment.map(<[i32]>::to_vec));
                Ok(if seen.0 > most { Step::Break } else { Step::Go })
            });
            let all = stack.iter().rev().flat_map(|v| v.chunks(FRAGMENT_WORDS).map(Some).chain([None]));
            let should: Vec<_> = all.take(most as usize + 1).map(|f| f.map(<[i32]>::to_vec)).collect();
            assert_eq!(seen.1, should);
            assert_eq!(ended.expect("reads"), seen.0 > most);
        }
        _ => {
            let announced = !random.once_in(4);
            let answers = Random::new(random.next());
            let operations: &[BlockOp] = if announced { &[BlockOp::Remove] } else { &[] };
            let got = table.write_blocks(operations, key, writer(answers.clone(), announced));
            match write_blocks(stack, announced, writer(answers, announced)) {
                Ok(new) => {
                    assert_eq!(got, Ok(()));
                    *stack = new;
                }
                Err(e) => assert_eq!(got, Err(e)),
            }
        }
    }
    let newest_first: Stack = model[&key].iter().rev().cloned().collect();
    assert_eq!(table.find_all(key).expect("finds all"), newest_first);
}

/// Everything, by iteration, as far as the keys are `mine`.
fn contents(table: &PrimitiveTable, mine: impl Fn(i32) -> bool) -> Model {
    let mut all = Model::new();
    for binding in table {
        let (key, value) = binding.expect("iterates");
        if mine(key) {
            all.entry(key).or_default().insert(0, value);
        }
    }
    all
}

fn without_empty(model: &Model) -> Model {
    model.iter().filter(|(_, stack)| !stack.is_empty()).map(|(k, s)| (*k, s.clone())).collect()
}

/// Random work on keys that are `mine`: single operations, and groups that commit or not.
fn work(
    table: &PrimitiveTable,
    random: &mut Random,
    rounds: u64,
    mine: impl Fn(u64) -> i32,
    alone: bool,
) -> Model {
    let mut model = Model::new();
    for round in 0..rounds {
        let key = mine(random.below(30));
        if !random.once_in(6) {
            step(table, &mut model, key, random);
        } else {
            // A group that has to give way to another process is undone, and the model as well.
            let before = model.clone();
            let commit = random.once_in(2);
            let transaction = table.table().begin().expect("begins");
            let inside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..=random.below(6) {
                    let key = if alone { mine(random.below(30)) } else { key };
                    step(table, &mut model, key, random);
                }
            }));
            assert!(inside.is_ok(), "in a group of round {round}");
            if commit {
                transaction.commit().expect("commits");
            } else {
                transaction.abort().expect("aborts");
                model = before;
            }
        }
        if alone && round % 500 == 0 {
            let whole = without_empty(&model);
            assert_eq!(contents(table, |_| true), whole);
            let mut keys: Vec<i32> = table.keys().map(|key| key.expect("iterates")).collect();
            keys.sort_unstable();
            let mut should: Vec<i32> = whole.keys().copied().collect();
            should.sort_unstable();
            assert_eq!(keys, should);
            let count = whole.values().map(Vec::len).sum::<usize>();
            assert_eq!(table.len().expect("counts"), count as u64);
            assert_eq!(table.fold(0, |n, _, _| n + 1).expect("folds"), count);
        }
    }
    without_empty(&model)
}

fn rounds(default: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { default * 20 } else { default })
}

fn model_alone() {
    watchdog(300);
    let mut random = Random::from_environment("model_alone");
    let scratch = Scratch::posix("primitive");
    let table = open(scratch.name());
    let keys = [i32::MIN, i32::MAX, 0, -1, 1];
    let mine = |n: u64| keys.get(n as usize).copied().unwrap_or(n as i32 * 1_000_003);
    let model = work(&table, &mut random, rounds(4000), mine, true);
    assert_eq!(contents(&table, |_| true), model);
    drop(table);
    assert_sound(scratch.name());
    assert_eq!(contents(&open(scratch.name()), |_| true), model, "after opening again");
}

/// Each process has keys of its own, in the same few buckets, and two are killed in the middle.
fn several_processes() {
    const PROCESSES: u64 = 4;
    let mut random = Random::from_environment("several_processes");
    let scratch = Scratch::posix("primitive");
    let seeds: Vec<u64> = (0..PROCESSES + 2).map(|_| random.next()).collect();
    let run = |n: u64, rounds: u64| {
        let table = open(scratch.name());
        let mine = |i: u64| (i * (PROCESSES + 2) + n) as i32;
        let model = work(&table, &mut Random::new(seeds[n as usize]), rounds, mine, false);
        assert_eq!(contents(&table, |key| key as u64 % (PROCESSES + 2) == n), model);
    };
    let children: Vec<_> = (0..PROCESSES)
        .map(|n| {
            fork(|| {
                watchdog(300);
                run(n, rounds(1200));
            })
        })
        .collect();
    for n in PROCESSES..PROCESSES + 2 {
        let mut victim = fork(|| {
            watchdog(300);
            run(n, u64::MAX);
        });
        std::thread::sleep(std::time::Duration::from_millis(150));
        assert_eq!(victim.kill(), Exit::KILLED, "it was at work");
    }
    for mut child in children {
        assert_eq!(child.wait(), Exit::Code(0), "a process among others");
    }
    assert_sound(scratch.name());
}

/// What a callback of write_blocks may not do, and that nothing comes of it; what one of read_blocks may.
fn callbacks() {
    let scratch = Scratch::posix("primitive");
    let table = open(scratch.name());
    for n in 1..4 {
        table.add(5, &[n, n]).expect("adds");
    }
    let mut refused = 0;
    let outcome = table.write_blocks(&[BlockOp::Remove], 5, |fragment| {
        if let Some(words) = fragment {
            assert_eq!(table.add(6, &[]), Err(Error::InCallback));
            assert_eq!(table.replace(5, &[0]), Err(Error::InCallback));
            assert_eq!(table.remove(5), Err(Error::InCallback));
            assert_eq!(table.write_blocks(&[], 6, |_| Ok((Step::Go, None))), Err(Error::InCallback));
            assert_eq!(table.table().begin().err(), Some(Error::InCallback));
            assert_eq!(table.table().dump(), Err(Error::InCallback));
            assert_eq!(table.find(5).expect("finds what was before"), Some(vec![3, 3]));
            words[0] *= 10;
            refused += 1;
        }
        Ok((Step::Go, None))
    });
    assert_eq!((outcome, refused), (Ok(()), 3));
    assert_eq!(table.find_all(5).expect("finds"), [[30, 3], [20, 2], [10, 1]]);
    table
        .table()
        .group(|| {
            table.write_blocks(&[BlockOp::Remove], 5, |_| {
                assert_eq!(table.find(5), Err(Error::InCallback));
                Ok((Step::Next, Some(BlockOp::Remove)))
            })?;
            assert_eq!(table.len()?, 0);
            Err::<(), Error>(Error::Aborted)
        })
        .expect_err("is rolled back");
    // Removal in the middle stays answered, whatever follows; a break keeps what was done.
    let mut calls = 0;
    let outcome = table.write_blocks(&[BlockOp::Remove], 5, |_| {
        calls += 1;
        Ok(match calls {
            1 => (Step::Next, None),
            2 => (Step::Go, Some(BlockOp::Remove)),
            _ => (Step::Break, None),
        })
    });
    assert_eq!((outcome, calls), (Ok(()), 3));
    assert_eq!(table.find_all(5).expect("finds"), [[30, 3], [10, 1]]);
    assert_eq!(
        table.write_blocks(&[], 5, |_| Ok((Step::Go, Some(BlockOp::Remove)))),
        Err(Error::Unannounced)
    );
    table
        .read_blocks(5, |fragment| {
            table.add(7, fragment.unwrap_or(&[1]))?;
            Ok(Step::Go)
        })
        .expect("may call everything");
    assert_eq!(table.find_all(7).expect("finds"), [vec![1], vec![10, 1], vec![1], vec![30, 3]]);
    assert_eq!(table.find_into(7, &mut [0; 0]), Err(Error::TooSmall { needed: 1 }));
    let mut buffer = [0; 3];
    assert_eq!(table.find_into(7, &mut buffer), Ok(Some(1)));
    assert_eq!(table.find_into(8, &mut buffer), Ok(None));
    drop(table);
    assert_sound(scratch.name());
}

/// Tables of other kinds are told apart, also among the named ones of one object, and one group covers all.
fn kinds() {
    let scratch = Scratch::posix("primitive");
    let object = OpenOptions::new().create(true).open(scratch.name()).expect("opens");
    let named = |name: &str| ManageOptions::new().root(name).clone();
    let bytes = HashTable::manage(&object, &named("bytes")).expect("manages");
    let words = PrimitiveTable::manage(&object, &named("words")).expect("manages");
    let both = |asked: &str, found: &str| Error::Kind { asked: asked.into(), found: found.into() };
    let wrong = HashTable::manage(&object, &named("words")).err();
    assert_eq!(wrong, Some(both("a hash table", "a primitive table")));
    let wrong = PrimitiveTable::manage(&object, &named("bytes")).err();
    assert_eq!(wrong, Some(both("a primitive table", "a hash table")));
    let work = |outcome: netshm::Result<()>| {
        words.table().group(|| {
            bytes.add(b"both", b"")?;
            words.add(1, &[1])?;
            words.add(1, &[2])?;
            words.write_blocks(&[BlockOp::Remove], 1, |fragment| {
                let newest = fragment.is_some_and(|words| words[0] == 2);
                Ok((Step::Next, newest.then_some(BlockOp::Remove)))
            })?;
            outcome.clone()
        })
    };
    assert_eq!(work(Err(Error::Aborted)), Err(Error::Aborted));
    assert_eq!((bytes.len(), words.len()), (Ok(0), Ok(0)));
    assert_eq!(work(Ok(())), Ok(()));
    assert_eq!((bytes.len(), words.find_all(1)), (Ok(1), Ok(vec![vec![1]])));
    drop((bytes, words, object));
    assert_sound(scratch.name());
}

/// A callback that panics leaves nothing changed and nothing locked.
fn panics() {
    let scratch = Scratch::posix("primitive");
    let table = open(scratch.name());
    std::panic::set_hook(Box::new(|_| {}));
    for n in 1..4 {
        table.add(5, &[n, n]).expect("adds");
    }
    let attempt = || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.write_blocks(&[BlockOp::Remove], 5, |fragment| match fragment {
                Some([2, _]) => panic!("in the callback"),
                _ => Ok((Step::Go, Some(BlockOp::Remove))),
            })
        }));
        assert!(outcome.is_err());
    };
    attempt();
    assert_eq!(table.find_all(5).expect("finds"), [[3, 3], [2, 2], [1, 1]]);
    assert_eq!(
        fork(|| {
            watchdog(5);
            open(scratch.name()).replace(5, &[4, 4]).expect("is not locked out");
        })
        .wait(),
        Exit::Code(0)
    );
    table.add(5, &[5, 5]).expect("goes on");
    table
        .table()
        .group(|| {
            table.add(6, &[1])?;
            attempt();
            assert_eq!(table.find_all(5)?, [[5, 5], [4, 4], [2, 2], [1, 1]]);
            table.add(6, &[2])
        })
        .expect("the group goes on");
    assert_eq!(table.find_all(6).expect("finds"), [[2], [1]]);
    drop(table);
    assert_sound(scratch.name());
}

/// The dump shows what is there, of tables of any kind.
fn dump() {
    let scratch = Scratch::posix("primitive");
    let object = OpenOptions::new().create(true).open(scratch.name()).expect("opens");
    let table = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    for n in 0..500u32 {
        table.add(&n.to_le_bytes(), b"something").expect("adds");
    }
    table.add(&7u32.to_le_bytes(), &[0xab; 20]).expect("adds");
    let text = table.table().dump().expect("dumps");
    for part in [
        "base level 6",
        "array 0 at",
        "array 1 at",
        "bindings: 501\n",
        "overflow line",
        "key of 4 bytes [07000000], value of 20 bytes [abababababababababababababababab...]\n",
        "key of 4 bytes [07000000], value of 9 bytes [736f6d657468696e67]\n",
        "buckets: ",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!(text.matches("record at").count(), 501);
    assert_eq!(text.matches("  entry ").count(), 500);
    let in_group = table.table().group(|| {
        table.remove(&7u32.to_le_bytes())?;
        table.table().dump()
    });
    assert!(in_group.expect("dumps in a group").contains("bindings: 500\n"));
    let read_only = OpenOptions::new().read_only(true).open(scratch.name()).expect("opens");
    let reader = HashTable::manage(&read_only, &ManageOptions::new()).expect("manages");
    assert!(reader.table().dump().expect("dumps, for reading only").contains("bindings: 500\n"));
}

fn main() {
    support::main(&[
        ("model_alone", model_alone),
        ("several_processes", several_processes),
        ("callbacks", callbacks),
        ("kinds", kinds),
        ("panics", panics),
        ("dump", dump),
    ]);
}
