//! Goal: slices of all sizes of elements are written and read as a simple model says, by the short way and by the
//! general one; they stay whole among processes and when their writers are killed at any moment; writing them again
//! and again takes no more memory.
//!
//! Method: random slices, single elements and groups on an array and on a list of what should be set; processes that
//! write overlapping slices with one value all over, so that a mixture shows; writers that are killed after a random
//! time, judged by another process; the object's size before and after many slices. `NETSHM_SEED` repeats a run;
//! `NETSHM_ROUNDS` is the number of operations, `NETSHM_KILLS` of kills.

mod support;

use netshm::{Array, ManageOptions, Name, Object, OpenOptions, Type, Value};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::process::{Child, Exit, Pipe, Shared, fork, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_object_sound, assert_sound};

/// Elements of 8 bytes in a chunk.
const CHUNK: u64 = 2013;
const STUCK_SECONDS: u32 = 120;

fn open(name: &Name) -> Object {
    OpenOptions::new().create(true).open(name).expect("opens")
}

fn integers(name: &Name, length: u64) -> Array {
    Array::manage_i64(&open(name), 0, length, &ManageOptions::new()).expect("is an array")
}

fn rounds(short: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 10 * short } else { short })
}

/// An array of elements of a fixed size, and what it should hold.
struct Tester {
    random: Random,
    array: Array,
    bytes: usize,
    /// The encoding of each element; none if it is not set.
    model: Vec<Option<Vec<u8>>>,
    default: Vec<u8>,
}

impl Tester {
    fn new(object: &Object, signature: &str, mut random: Random) -> Tester {
        let element = Type::parse(signature).expect("is a type");
        let bytes = element.fixed_bytes().expect("is of fixed size");
        // Something over five chunks.
        let stride = if bytes <= 4 { 4 } else { bytes.next_multiple_of(8) };
        let length = 5 * 16384 / stride + random.below(50) as usize;
        let array = match signature {
            "int32" => {
                Array::manage(object, &element, &[Value::Int(-7)], length as u64, &ManageOptions::new())
            }
            _ => {
                let halves = [Value::Int(1), Value::Int(2)];
                let halves = &halves[..if signature.starts_with('(') { 2 } else { 1 }];
                Array::manage(object, &element, halves, length as u64, &ManageOptions::new())
            }
        }
        .expect("is an array");
        let default = array.default_value().expect("has one");
        assert_eq!(default.len(), bytes);
        Tester { random, array, bytes, model: vec![None; length], default }
    }

    fn slice(&mut self) -> (usize, usize) {
        let first = self.random.below(self.model.len() as u64) as usize;
        let most = *self.random.one_of(&[1, 5, 30, 300, 20_000]);
        (first, (1 + self.random.below(most) as usize).min(self.model.len() - first))
    }

    fn write(&mut self) {
        let (first, count) = self.slice();
        let new: Vec<u8> = (0..count * self.bytes).map(|_| self.random.next() as u8).collect();
        self.array.write(first as u64, &new).expect("writes");
        for (place, element) in self.model[first..].iter_mut().zip(new.chunks(self.bytes)) {
            *place = Some(element.to_vec());
        }
    }

    fn set(&mut self) {
        let (first, _) = self.slice();
        let new: Vec<u8> = (0..self.bytes).map(|_| self.random.next() as u8).collect();
        self.array.set(first as u64, &new).expect("sets");
        self.model[first] = Some(new);
    }

    fn read(&mut self) {
        let (first, count) = self.slice();
        let mut is = vec![0xaa; count * self.bytes];
        self.array.read(first as u64, &mut is).expect("reads");
        let shown = self.model[first..first + count].iter().map(|e| e.as_ref().unwrap_or(&self.default));
        assert!(is == shown.flatten().copied().collect::<Vec<u8>>(), "{count} elements from {first}");
    }

    fn step(&mut self) {
        match self.random.below(8) {
            0..=2 => self.write(),
            3 => self.set(),
            _ => self.read(),
        }
    }

    /// Some steps as a group, half of which are aborted.
    fn group(&mut self) {
        let (group, before) = (self.array.table().begin().expect("begins"), self.model.clone());
        for _ in 0..5 {
            self.step();
        }
        if self.random.once_in(2) {
            group.commit().expect("commits");
        } else {
            group.abort().expect("aborts");
            self.model = before;
        }
    }

    fn compare(&self) {
        let mut is = vec![None; self.model.len()];
        for item in self.array.iter() {
            let (index, value) = item.expect("iterates");
            is[index as usize] = Some(value);
        }
        assert!(is == self.model);
    }
}

fn elements_of_all_sizes() {
    let mut random = Random::from_environment("elements");
    for signature in ["int32", "int64", "(int32,int64)", "(int32,int32)"] {
        let scratch = Scratch::posix("array");
        let object = open(scratch.name());
        let mut t = Tester::new(&object, signature, Random::new(random.next()));
        for n in 0..rounds(400) {
            if n % 8 == 7 {
                t.group()
            } else {
                t.step()
            }
            if n % 100 == 99 {
                t.compare();
                assert_object_sound(&object);
            }
        }
    }
}

fn run(n: usize, body: impl Fn(usize)) {
    let one = |i| {
        watchdog(STUCK_SECONDS);
        body(i);
    };
    let children: Vec<Child> = (0..n).map(|i| fork(|| one(i))).collect();
    let ends: Vec<Exit> = children.into_iter().map(|mut c| c.wait()).collect();
    assert!(ends.iter().all(|e| *e == Exit::Code(0)), "{ends:?}");
}

fn filled(value: u64, count: u64) -> Vec<u8> {
    (0..count).flat_map(|_| value.to_le_bytes()).collect()
}

/// Are all elements of a slice the same?
fn is_whole(bytes: &[u8]) -> bool {
    bytes.chunks(8).all(|element| element == &bytes[..8])
}

/// Slices over so many chunks that some have their bucket in common; those who meet give way to each other.
fn slices_are_whole() {
    const SLICE: u64 = 30 * CHUNK;
    let scratch = Scratch::posix("array");
    let done = Shared::new(1);
    integers(scratch.name(), SLICE).write(0, &filled(0, SLICE)).expect("writes");
    run(4, |p| {
        let a = integers(scratch.name(), 0);
        let mut random = Random::new(p as u64);
        if p < 2 {
            for n in 0..rounds(600) {
                a.write(0, &filled(2 * n + p as u64 + 1, SLICE)).expect("writes");
            }
            done.add(0, 1);
            return;
        }
        let mut bytes = vec![0; 8 * SLICE as usize];
        while done.word(0).load(Ordering::SeqCst) < 2 {
            let first = random.below(SLICE);
            let part = &mut bytes[8 * first as usize..];
            a.read(first, part).expect("reads");
            assert!(is_whole(part), "a mixture was seen");
        }
    });
    assert_sound(scratch.name());
}

/// Writers die at random moments.
fn killed_at_any_moment() {
    const SLICE: u64 = 6 * CHUNK;
    let kills = support::setting("NETSHM_KILLS").unwrap_or(if support::long() { 10_000 } else { 150 });
    let mut random = Random::from_environment("kills");
    let scratch = Scratch::posix("array");
    integers(scratch.name(), SLICE).write(0, &filled(0, SLICE)).expect("writes");
    let written = Shared::new(1);
    for round in 0..kills {
        let ready = Pipe::new();
        let mut victim = fork(|| {
            let a = integers(scratch.name(), 0);
            ready.send(1);
            for n in 0.. {
                // A long slice, a short one in place, an element: what is between the ends is always whole.
                a.write(50, &filled(1_000_000 * round + n, SLICE - 100)).expect("writes");
                a.write(3, &filled(n, 20)).expect("writes");
                a.set_i64(SLICE - 1, n as i64).expect("sets");
                written.add(0, 1);
            }
        });
        assert!(ready.receive_within(Duration::from_secs(30)).is_some(), "the writer is at work");
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        assert_eq!(victim.kill(), Exit::KILLED);
        let judge = fork(|| {
            watchdog(10);
            let a = integers(scratch.name(), 0);
            let mut bytes = vec![0; 8 * SLICE as usize];
            a.read(0, &mut bytes).expect("reads");
            assert!(is_whole(&bytes[8 * 50..8 * (SLICE - 50) as usize]), "half of a slice");
            assert!(is_whole(&bytes[8 * 3..8 * 23]), "half of a short slice");
            a.write(0, &filled(round, SLICE)).expect("goes on");
            drop(a);
            assert_sound(scratch.name());
        })
        .wait();
        assert_eq!(judge, Exit::Code(0), "kill {round}: the judge");
    }
    assert!(written.get(0) > kills / 2, "the writers hardly got to write");
}

/// Slices go back and forth between the same blocks.
fn written_again_and_again() {
    let scratch = Scratch::posix("array");
    let object = open(scratch.name());
    let a = Array::manage_i64(&object, 0, 80 * CHUNK, &ManageOptions::new()).expect("is an array");
    let write_all = |value| {
        for chunks in [80, 1, 50, 3, 17] {
            a.write(10, &filled(value, chunks * CHUNK - 20)).expect("writes");
        }
    };
    let pages = || std::fs::metadata(scratch.path()).expect("is there").blocks() / 8;
    (0..5).for_each(write_all);
    let before = pages();
    (5..100).for_each(write_all);
    let after = pages();
    assert!(after <= before + 64, "{before} pages, then {after}");
    assert_object_sound(&object);
}

fn main() {
    support::main(&[
        ("elements_of_all_sizes", elements_of_all_sizes),
        ("slices_are_whole", slices_are_whole),
        ("killed_at_any_moment", killed_at_any_moment),
        ("written_again_and_again", written_again_and_again),
    ]);
}
