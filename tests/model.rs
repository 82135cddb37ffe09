//! Goal: whatever sequence of operations, in groups nested and aborted or not, a table holds and gives what a simple
//! model says, alone and among other processes.
//!
//! Method: random operations are done on a table and on a map of stacks, and each outcome is compared; at intervals
//! the whole contents and the checker's verdict are. Few keys make deep stacks, many keys make the table grow; the
//! lengths of values and keys are taken from the boundaries of the format. Alone the outcome of everything is known.
//! Among other processes each owns its keys, of which it knows everything; sums that all add to are compared at the
//! end, and groups that have to give way are forgotten by the model as by the table. `NETSHM_LOCKING=record` tests record
//! locking instead of futexes.
//!
//! `NETSHM_SEED` repeats a run (exactly, where one process is alone); `NETSHM_ROUNDS` is the number of operations.

mod support;

use netshm::{Error, HashTable, KeyHashing, Locking, ManageOptions, Name, Transaction, Update};
use std::collections::{BTreeMap, BTreeSet};
use support::model::{Actor, Bytes, Model, Op, Outcome, difference, do_on_table};
use support::process::{Child, Exit, Pipe, fork, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_object_sound, assert_sound};

/// Most bindings of one key.
const DEEPEST: usize = 12;
/// Around the limits of header fields, words, size classes, blocks, runs.
const LENGTHS: &[usize] = &[
    0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 111, 112, 113, 255, 256, 257, 495, 496,
    497, 1000, 4079, 4080, 4081, 4095, 4096, 4097, 8191, 8192, 8193,
];
const LONG_LENGTHS: &[usize] = &[
    16_352, 16_360, 16_367, 16_368, 16_369, 16_384, 16_385, 32_768, 65_519, 65_520, 65_535, 65_536, 65_537,
    100_000,
];

/// The model, with a way back for each open group: the stacks of the keys that it has touched, as they were.
#[derive(Default)]
struct Nested {
    model: Model,
    undo: Vec<BTreeMap<Bytes, Option<Vec<Bytes>>>>,
}

impl Nested {
    fn apply(&mut self, op: &Op) -> Outcome {
        if let Some(undo) = self.undo.last_mut() {
            for key in support::model::keys_of(std::slice::from_ref(op)) {
                let old = self.model.0.get(&key).cloned();
                undo.entry(key).or_insert(old);
            }
        }
        self.model.apply(op)
    }

    fn commit(&mut self) {
        let inner = self.undo.pop().expect("a group is open");
        if let Some(outer) = self.undo.last_mut() {
            for (key, old) in inner {
                outer.entry(key).or_insert(old);
            }
        }
    }

    fn abort(&mut self) {
        for (key, old) in self.undo.pop().expect("a group is open") {
            match old {
                Some(stack) => self.model.0.insert(key, stack),
                None => self.model.0.remove(&key),
            };
        }
    }
}

/// Somebody who does random things and knows what has to come of it.
struct Tester {
    actor: Actor,
    random: Random,
    /// All keys begin with it.
    prefix: Bytes,
    few: u64,
    many: u64,
    nested: Nested,
    groups: Vec<Transaction>,
    /// Nobody else changes the object.
    alone: bool,
    /// What has been added to the shared sums: by what is committed, and in each open group.
    added: Vec<[i64; SUMS]>,
    gave_way: u64,
    done: u64,
}

const SUMS: usize = 3;

fn sum_key(n: usize) -> Bytes {
    format!("sum {n}").into_bytes()
}

impl Tester {
    fn new(name: &Name, options: &ManageOptions, seed: u64, prefix: &str, alone: bool) -> Tester {
        Tester {
            actor: Actor::new(name, options),
            random: Random::new(seed),
            prefix: prefix.into(),
            few: 6,
            many: if alone { 4000 } else { 400 },
            nested: Nested::default(),
            groups: Vec::new(),
            alone,
            added: vec![[0; SUMS]],
            gave_way: 0,
            done: 0,
        }
    }

    /// A key: mostly one of few, of which some have unusual lengths.
    fn key(&mut self) -> Bytes {
        let n = if self.random.below(10) < 7 {
            self.random.below(self.few)
        } else {
            self.few + self.random.below(self.many)
        };
        let mut key = [&self.prefix[..], n.to_string().as_bytes()].concat();
        match n {
            0 if self.alone => key.clear(),
            1 => key.resize(256, b'k'),
            2 => key.resize(17_000, b'l'),
            // The length that has short ways of its own.
            n if n % 2 == 0 && key.len() < 16 => key.resize(16, b'.'),
            n if n % 10 == 3 => key.resize(LENGTHS[n as usize % LENGTHS.len()].max(key.len()), b'm'),
            _ => {}
        }
        key
    }

    fn value(&mut self) -> Bytes {
        let len = match self.random.below(40) {
            0 => *self.random.one_of(LONG_LENGTHS),
            1..5 => self.random.below(600) as usize,
            5..12 => 8,
            _ => *self.random.one_of(LENGTHS),
        };
        let mut bytes = self.random.next().to_le_bytes().repeat(len / 8 + 1);
        bytes.truncate(len);
        bytes
    }

    /// A value for a key: any, or one that nearly is as long as the newest binding, so that it goes in its place, or into
    /// another block of the same class or of the next one.
    fn value_like(&mut self, key: &Bytes) -> Bytes {
        let any = self.value();
        let Some(newest) = self.nested.model.newest(key) else { return any };
        let len = match self.random.below(8) {
            0 | 1 => newest.len(),
            2 => newest.len().saturating_sub(1 + self.random.below(16) as usize),
            3 => newest.len() + 1 + self.random.below(16) as usize,
            _ => return any,
        };
        let mut bytes = self.random.next().to_le_bytes().repeat(len / 8 + 1);
        bytes.truncate(len);
        bytes
    }

    /// Keys for one call: none, few, or some batches of them; some keys more than once.
    fn several(&mut self) -> Vec<Bytes> {
        let most = *self.random.one_of(&[1, 4, 20, 40]);
        (0..self.random.below(most)).map(|_| self.key()).collect()
    }

    fn change(&mut self) -> Op {
        let key = self.key();
        let value = self.value_like(&key);
        let depth = self.nested.model.0.get(&key).map_or(0, Vec::len);
        match self.random.below(18) {
            0..4 if depth < DEEPEST => Op::Add(key, value),
            0..4 => Op::Remove(key),
            4..7 => Op::Replace(key, value),
            7 => Op::Insert(key, value),
            8..11 => Op::Remove(key),
            11..13 => Op::Increment(key, self.random.next() as i64 >> self.random.below(64), 5),
            13 => Op::Update(key, Some(value)),
            14 => Op::Update(key, None),
            16 => Op::ReplaceMany(self.several().into_iter().map(|key| (key, self.value())).collect()),
            17 => {
                let mut keys = self.several();
                keys.retain(|key| self.nested.model.0.get(key).map_or(0, Vec::len) < DEEPEST);
                Op::AddMany(keys.into_iter().map(|key| (key, self.value())).collect())
            }
            _ => {
                let mut old = self.nested.model.newest(&key).cloned().unwrap_or_default();
                if self.random.once_in(4) {
                    old.push(1);
                }
                Op::CompareAndReplace(key, old, value)
            }
        }
    }

    /// Does one thing. Err: a group had to give way.
    fn one(&mut self) -> netshm::Result<()> {
        let t = self.actor.table();
        self.done += 1;
        match self.random.below(100) {
            0..55 => {
                let op = self.change();
                let outcome = do_on_table(&t, &op);
                if outcome == Outcome::Failed(Error::Deadlock) {
                    return Err(Error::Deadlock);
                }
                let expected = self.nested.apply(&op);
                assert_eq!(outcome, expected, "{}", short(&op));
            }
            55..81 => {
                let key = self.key();
                self.look(&t, &key)?;
            }
            81..85 => self.update_by(&t)?,
            85..90 if self.groups.len() < 4 => {
                self.groups.push(t.table().begin()?);
                self.nested.undo.push(BTreeMap::new());
                self.added.push([0; SUMS]);
            }
            90..95 => self.end_group()?,
            95 => self.count(&t)?,
            96 if self.random.once_in(10) => self.walk(&t)?,
            97..99 if !self.alone => {
                let (n, delta) = (self.random.below(SUMS as u64) as usize, self.random.below(9) as i64 - 4);
                t.increment(&sum_key(n), delta, 0)?;
                self.added.last_mut().expect("one at least")[n] += delta;
            }
            99 if self.groups.is_empty() && self.random.once_in(50) => self.actor.close(),
            _ => {}
        }
        Ok(())
    }

    /// Updates by a callback that looks at the value, looks around, and answers anything or does not answer.
    fn update_by(&mut self, t: &HashTable) -> netshm::Result<()> {
        let (key, other) = (self.key(), self.key());
        let (value, answer) = (self.value_like(&key), self.random.below(8));
        let newest = self.nested.model.newest(&key).cloned();
        let among_groups = !self.groups.is_empty();
        let alone = self.alone;
        let update = |old: Option<&[u8]>| {
            assert!(old == newest.as_deref(), "the callback sees another value");
            let now = t.find(&key);
            match among_groups {
                true => assert_eq!(now, Err(Error::InCallback)),
                false => assert!(now.expect("finds") == newest, "a find in the callback sees another value"),
            }
            for outcome in [t.replace(&other, b"1"), t.add(&key, b"1"), t.update(&other, |_| Update::Remove)]
            {
                assert_eq!(outcome, Err(Error::InCallback));
            }
            match answer {
                0 => Err(Error::Aborted),
                1 => std::panic::resume_unwind(Box::new(())),
                2 => Ok(Update::Remove),
                3 => Ok(Update::Keep),
                _ => Ok(Update::Replace(value.clone())),
            }
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| t.try_update(&key, update)));
        match outcome {
            Ok(Err(Error::Deadlock)) if !alone => return Err(Error::Deadlock),
            Ok(outcome) => assert_eq!(outcome, if answer == 0 { Err(Error::Aborted) } else { Ok(()) }),
            Err(panic) => assert!(answer == 1 && panic.is::<()>(), "the callback complains"),
        }
        let op = match answer {
            0 | 1 | 3 => return Ok(()),
            2 => Op::Update(key, None),
            _ => Op::Update(key, Some(value)),
        };
        self.nested.apply(&op);
        Ok(())
    }

    fn look(&mut self, t: &HashTable, key: &Bytes) -> netshm::Result<()> {
        let stack = self.nested.model.0.get(key).map_or(&[][..], |stack| &stack[..]);
        let newest = stack.last();
        let what = || String::from_utf8_lossy(&key[..key.len().min(20)]).into_owned();
        match self.random.below(8) {
            0 => assert_eq!(t.contains(key)?, newest.is_some(), "{}", what()),
            1 => assert!(t.find_all(key)?.iter().eq(stack.iter().rev()), "{}", what()),
            2 => {
                let viewed = t.view(key, <[u8]>::to_vec)?;
                assert!(viewed.as_ref() == newest, "{}", what());
            }
            3 | 4 => {
                let len = newest.map_or(0, Vec::len);
                let sizes = [0, len / 2, len.saturating_sub(1), len, len, len, len + 1, len + 100];
                let mut buffer = vec![0xee; *self.random.one_of(&sizes)];
                let outcome = t.find_into(key, &mut buffer);
                match newest {
                    None => assert_eq!(outcome?, None, "{}", what()),
                    Some(value) if value.len() > buffer.len() => match outcome {
                        Err(Error::Deadlock) => return Err(Error::Deadlock),
                        other => assert_eq!(other, Err(Error::TooSmall { needed: value.len() as u64 })),
                    },
                    Some(value) => {
                        assert_eq!(outcome?, Some(value.len()), "{}", what());
                        assert!(buffer[..value.len()] == value[..], "{}", what());
                    }
                }
            }
            5 => {
                let keys = self.several();
                let found = t.find_many(&keys)?;
                assert!(
                    found.iter().map(Option::as_ref).eq(keys.iter().map(|key| self.nested.model.newest(key)))
                );
            }
            6 => self.look_into(t)?,
            _ => assert!(t.find(key)?.as_ref() == newest, "{}", what()),
        }
        Ok(())
    }

    /// Finds several keys at once in places of any size.
    fn look_into(&mut self, t: &HashTable) -> netshm::Result<()> {
        let (keys, stride) = (self.several(), self.value().len());
        let mut buffer = vec![0xee; keys.len() * stride];
        let mut lens = vec![Some(77); keys.len()];
        let outcome = t.find_many_into(&keys, &mut buffer, stride, &mut lens);
        let expected: Vec<Option<&Bytes>> = keys.iter().map(|key| self.nested.model.newest(key)).collect();
        let longest = expected.iter().flatten().map(|value| value.len()).max().unwrap_or(0);
        match outcome {
            Err(Error::TooSmall { needed }) => {
                assert!(
                    needed == longest as u64 && longest > stride,
                    "{needed} bytes, {longest} and {stride}"
                );
            }
            outcome => {
                outcome?;
                assert!(longest <= stride, "{longest} bytes do not fit");
            }
        }
        for (i, value) in expected.into_iter().enumerate() {
            assert_eq!(lens[i], value.map(|value| value.len() as u64));
            if let Some(value) = value.filter(|value| value.len() <= stride) {
                assert!(buffer[i * stride..][..value.len()] == value[..], "the value of key {i}");
            }
        }
        Ok(())
    }

    fn count(&mut self, t: &HashTable) -> netshm::Result<()> {
        let own = self.nested.model.len();
        let all = t.len()?;
        if self.alone {
            assert_eq!(all, own);
            assert_eq!(t.is_empty()?, own == 0);
        } else {
            assert!(all >= own, "{all} bindings, {own} of them are mine");
        }
        Ok(())
    }

    /// Walks over everything, also in a group.
    fn walk(&mut self, t: &HashTable) -> netshm::Result<()> {
        let mut seen: BTreeMap<Bytes, Vec<Bytes>> = BTreeMap::new();
        for binding in t.iter() {
            let (key, value) = binding?;
            if key.starts_with(&self.prefix) || self.alone {
                seen.entry(key).or_default().push(value);
            }
        }
        seen.values_mut().for_each(|stack| stack.reverse());
        let seen = Model(seen);
        assert!(seen == self.nested.model, "{}", difference(&seen, &self.nested.model));
        let mut keys = BTreeSet::new();
        for key in t.keys() {
            let key = key?;
            if key.starts_with(&self.prefix) || self.alone {
                assert!(keys.insert(key), "a key comes once");
            }
        }
        assert!(keys.iter().eq(seen.0.keys()));
        Ok(())
    }

    /// Commits, aborts or drops the innermost group.
    fn end_group(&mut self) -> netshm::Result<()> {
        let Some(group) = self.groups.pop() else { return Ok(()) };
        let added = self.added.pop().expect("one for each group");
        match self.random.below(5) {
            0 => {
                self.nested.abort();
                group.abort().expect("aborts");
            }
            1 => {
                self.nested.abort();
                drop(group);
            }
            _ => {
                if let Err(e) = group.commit() {
                    // As if it were open still: the caller gives everything up.
                    self.added.push(added);
                    return Err(e);
                }
                self.nested.commit();
                let outer = self.added.last_mut().expect("one at least");
                outer.iter_mut().zip(added).for_each(|(sum, delta)| *sum += delta);
            }
        }
        Ok(())
    }

    /// After a deadlock: all groups are rolled back.
    fn give_up(&mut self) {
        assert!(!self.alone, "alone nobody is in the way");
        while let Some(group) = self.groups.pop() {
            group.abort().expect("aborts");
        }
        while !self.nested.undo.is_empty() {
            self.nested.abort();
        }
        self.added.truncate(1);
        self.gave_way += 1;
    }

    fn run(&mut self, operations: u64) {
        for n in 0..operations {
            match self.one() {
                Ok(()) => {}
                Err(Error::Deadlock) => self.give_up(),
                Err(e) => panic!("operation {n}: {e}"),
            }
            if n % 4000 == 3999 {
                watchdog(30);
                while !self.groups.is_empty() {
                    if self.end_group().is_err() {
                        self.give_up();
                    }
                }
                let t = self.actor.table();
                self.walk(&t).expect("walks");
                if self.alone {
                    let summary = assert_object_sound(&self.actor.object());
                    assert_eq!(summary.bindings, self.nested.model.len());
                    assert_eq!(summary.keys, self.nested.model.0.len() as u64);
                }
            }
        }
        while !self.groups.is_empty() {
            if self.end_group().is_err() {
                self.give_up();
            }
        }
        let t = self.actor.table();
        self.walk(&t).expect("walks");
    }
}

/// An operation without its long strings.
fn short(op: &Op) -> String {
    let text = format!("{op:?}");
    text.chars().take(200).collect()
}

fn rounds(short: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 30 * short } else { short })
}

fn alone(test: &str, options: &ManageOptions) {
    let mut random = Random::from_environment(test);
    let scratch = Scratch::posix("model");
    let operations = rounds(40_000);
    let exit = fork(|| {
        watchdog(30);
        let mut tester = Tester::new(scratch.name(), options, random.next(), "", true);
        tester.run(operations);
        // Everything goes, and nothing is left.
        let t = tester.actor.table();
        for (key, stack) in std::mem::take(&mut tester.nested.model.0) {
            stack.iter().for_each(|_| assert!(t.remove(&key).expect("removes")));
            assert!(!t.remove(&key).expect("removes"));
        }
        assert_eq!(t.len(), Ok(0));
        drop(t);
        tester.actor.close();
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let summary = fork_sound(scratch.name());
    assert_eq!(summary, [0, 0, 0], "bindings, their bytes, custody");
}

/// The checker's verdict from a process of its own.
fn fork_sound(name: &Name) -> [u8; 3] {
    let pipe = Pipe::new();
    let exit = fork(|| {
        let s = assert_sound(name);
        [s.bindings, s.record_bytes, s.custody].into_iter().for_each(|n| pipe.send(n.min(255) as u8));
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the checker");
    [pipe.receive(), pipe.receive(), pipe.receive()]
}

fn among_others() {
    const PROCESSES: u64 = 4;
    let mut random = Random::from_environment("among_others");
    let scratch = Scratch::posix("model");
    let options = ManageOptions::new().locking(support::locking()).clone();
    let operations = rounds(30_000);
    let shared = support::process::Shared::new(SUMS + 1);
    let children: Vec<Child> = (0..PROCESSES)
        .map(|p| {
            let seed = random.next();
            let (scratch, options, shared) = (&scratch, &options, &shared);
            fork(move || {
                watchdog(60);
                let prefix = format!("process {p}: ");
                let mut tester = Tester::new(scratch.name(), options, seed, &prefix, false);
                tester.run(operations);
                for n in 0..SUMS {
                    shared.add(n, tester.added[0][n] as u64);
                }
                shared.add(SUMS, tester.gave_way);
                let t = tester.actor.table();
                for key in tester.nested.model.0.keys() {
                    while t.remove(key).expect("removes") {}
                }
            })
        })
        .collect();
    let ends: Vec<Exit> = children.into_iter().map(|mut c| c.wait()).collect();
    assert!(ends.iter().all(|e| *e == Exit::Code(0)), "{ends:?}");
    println!("  {PROCESSES} processes, {operations} operations each, {} groups gave way", shared.get(SUMS));
    let exit = fork(|| {
        let t = Actor::new(scratch.name(), &options).table();
        for n in 0..SUMS {
            assert_eq!(t.increment(&sum_key(n), 0, 0), Ok(shared.get(n) as i64), "sum {n}");
            assert!(t.remove(&sum_key(n)).expect("removes"));
        }
        assert_eq!(t.len(), Ok(0));
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the sums");
    let [bindings, bytes, _] = fork_sound(scratch.name());
    assert_eq!([bindings, bytes], [0, 0]);
}

fn main() {
    support::main(&[
        ("alone_without_locking", || {
            alone("alone_without_locking", ManageOptions::new().locking(Locking::None));
        }),
        ("alone_with_locking", || {
            alone("alone_with_locking", ManageOptions::new().locking(support::locking()));
        }),
        ("alone_with_keyed_hashes", || {
            alone("alone_with_keyed_hashes", ManageOptions::new().hashing(KeyHashing::Keyed));
        }),
        ("among_others", among_others),
    ]);
}
