//! Goal: an array holds and gives what a simple model says, whatever sequence of operations, groups nested and
//! aborted or not; several processes that count, write slices and resize at once never see half of anything;
//! elements that were never set take no memory.
//!
//! Method: random operations are done on an array and on a map of the elements that are set, and each outcome is
//! compared; at intervals the whole contents and the checker's verdict are. Lengths and indices are taken around the
//! ends of chunks. Among processes, sums are compared at the end, and slices are written with one value all over, so
//! that a mixture shows. `NETSHM_SEED` repeats a run; `NETSHM_ROUNDS` is the number of operations.

mod support;

use netshm::{Array, Error, ManageOptions, Name, Object, OpenOptions, Transaction, Type, Value};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use support::process::{Child, Exit, Shared, fork, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_object_sound, assert_sound};

/// Elements of 8 bytes in a chunk.
const CHUNK: u64 = 2013;
const STUCK_SECONDS: u32 = 120;

fn rounds(short: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 10 * short } else { short })
}

fn open(name: &Name) -> Object {
    let object = OpenOptions::new().create(true).open(name).expect("opens");
    support::settle_locking(&object);
    object
}

fn integers(name: &Name, default: i64, length: u64) -> Array {
    Array::manage_i64(&open(name), default, length, &ManageOptions::new()).expect("is an array")
}

/// What an array should hold.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    default: Vec<u8>,
    length: u64,
    set: BTreeMap<u64, Vec<u8>>,
}

impl Model {
    fn get(&self, index: u64) -> Result<Vec<u8>, Error> {
        if index >= self.length {
            return Err(Error::Range);
        }
        Ok(self.set.get(&index).unwrap_or(&self.default).clone())
    }

    fn set(&mut self, index: u64, value: &[u8]) -> Result<(), Error> {
        if index >= self.length {
            return Err(Error::Range);
        }
        self.set.insert(index, value.to_vec());
        Ok(())
    }

    fn resize(&mut self, length: u64) {
        self.length = length;
        self.set.split_off(&length);
    }

    fn read(&self, first: u64, count: u64) -> Result<Vec<u8>, Error> {
        if first + count > self.length {
            return Err(Error::Range);
        }
        Ok((first..first + count).flat_map(|i| self.get(i).expect("inside")).collect())
    }
}

/// The whole contents, as the array tells them.
fn dump(a: &Array) -> Model {
    let mut set = BTreeMap::new();
    for item in a.iter() {
        let (index, value) = item.expect("iterates");
        assert!(set.insert(index, value).is_none(), "element {index} came twice");
    }
    Model { default: a.default_value().expect("has one"), length: a.length().expect("has one"), set }
}

/// Random operations on an array and on its model.
struct Tester {
    random: Random,
    array: Array,
    object: Object,
    /// The model as it was before each open group, and as it is.
    models: Vec<Model>,
    groups: Vec<Transaction>,
    /// Elements are integers, so that there are slices and sums.
    integers: bool,
}

impl Tester {
    fn model(&mut self) -> &mut Model {
        self.models.last_mut().expect("never empty")
    }

    /// An index mostly inside of the array, often near the end of a chunk.
    fn index(&mut self) -> u64 {
        let length = self.model().length;
        match self.random.below(10) {
            0 => length + self.random.below(3),
            1..=4 => {
                let chunk = self.random.below(length / CHUNK + 1) * CHUNK;
                (chunk + self.random.below(5)).saturating_sub(2)
            }
            _ => self.random.below(length.max(1)),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        if self.integers {
            return (self.random.next() >> 1).to_le_bytes().to_vec();
        }
        let len = *self.random.one_of(&[0, 1, 8, 30, 256, 257, 5000]);
        vec![self.random.next() as u8; len]
    }

    fn length(&mut self) -> u64 {
        match self.random.below(8) {
            0 => 0,
            1 => CHUNK * self.random.below(4),
            2 => self.random.below(100 * CHUNK),
            3 if self.integers => (1 << 40) + self.random.below(1000),
            _ => (self.model().length + self.random.below(400)).saturating_sub(self.random.below(400)),
        }
    }

    fn step(&mut self) {
        let a = self.array.clone();
        match self.random.below(if self.integers { 16 } else { 10 }) {
            0..=2 => {
                let i = self.index();
                assert_eq!(a.get(i), self.model().get(i), "element {i}");
            }
            3..=6 => {
                let (i, value) = (self.index(), self.value());
                assert_eq!(a.set(i, &value), self.model().set(i, &value), "element {i}");
            }
            7 => {
                let length = self.length();
                if self.random.once_in(4) {
                    a.resize(length).expect("resizes");
                    self.model().resize(length);
                }
            }
            8 => assert_eq!(a.length().expect("has one"), self.model().length),
            9 => self.change_group(),
            10 | 11 => self.read_slice(),
            12 | 13 => self.write_slice(),
            14 => {
                let (i, delta) = (self.index(), self.random.below(100) as i64 - 50);
                let sum = self.model().get(i).map(|v| i64::from_le_bytes(v.try_into().expect("8")));
                let expected = sum.and_then(|n| n.checked_add(delta).ok_or(Error::Overflow));
                assert_eq!(a.increment(i, delta), expected, "element {i}");
                if let Ok(sum) = expected {
                    self.model().set(i, &sum.to_le_bytes()).expect("inside");
                }
            }
            _ => {
                let i = self.index();
                let bytes = self.model().get(i);
                assert_eq!(a.get_i64(i), bytes.map(|v| i64::from_le_bytes(v.try_into().expect("8"))));
            }
        }
    }

    fn slice(&mut self) -> (u64, u64) {
        let first = self.index();
        let most = *self.random.one_of(&[1, 2, 40, 600, 3000]);
        let count = self.random.below(most + 1);
        let end = (first + count).min(self.model().length.max(first));
        (first, if self.random.once_in(10) { count } else { end - first })
    }

    fn read_slice(&mut self) {
        let (first, count) = self.slice();
        let mut bytes = vec![0xaa; 8 * count as usize];
        let outcome = self.array.read(first, &mut bytes).map(|()| bytes);
        assert_eq!(outcome, self.model().read(first, count), "{count} elements from {first}");
    }

    fn write_slice(&mut self) {
        let (first, count) = self.slice();
        let bytes: Vec<u8> = (0..count).flat_map(|_| self.value()).collect();
        let outcome = self.array.write(first, &bytes);
        if first + count > self.model().length {
            assert_eq!(outcome, Err(Error::Range), "{count} elements from {first}");
            return;
        }
        outcome.expect("writes");
        for (i, value) in (first..).zip(bytes.chunks(8)) {
            self.model().set(i, value).expect("inside");
        }
    }

    /// Begins, commits or aborts a group.
    fn change_group(&mut self) {
        if self.groups.len() < 3 && self.random.once_in(2) {
            self.groups.push(self.array.table().begin().expect("begins"));
            let model = self.model().clone();
            self.models.push(model);
        } else if let Some(group) = self.groups.pop() {
            let inner = self.models.pop().expect("one per group");
            if self.random.once_in(2) {
                group.commit().expect("commits");
                *self.model() = inner;
            } else {
                group.abort().expect("aborts");
            }
        }
    }

    fn compare(&mut self) {
        let is = dump(&self.array);
        let should = self.model();
        assert_eq!(is.length, should.length);
        assert_eq!(is.default, should.default);
        for (index, value) in &should.set {
            assert_eq!(is.set.get(index), Some(value), "element {index}");
        }
        assert_eq!(is.set.len(), should.set.len());
    }
}

fn model_of(integers: bool) {
    let mut random = Random::from_environment("model");
    for part in 0..8 {
        let scratch = Scratch::posix("array");
        let object = open(scratch.name());
        let default = if integers { 7i64.to_le_bytes().to_vec() } else { vec![b'd'; 1 + 100 * part] };
        let options = ManageOptions::new();
        let length = random.below(5000);
        let array = if integers {
            Array::manage_i64(&object, 7, length, &options)
        } else {
            Array::manage_bytes(&object, &default, length, &options)
        };
        let mut t = Tester {
            random: Random::new(random.next()),
            array: array.expect("is an array"),
            object,
            models: vec![Model { default, length, set: BTreeMap::new() }],
            groups: Vec::new(),
            integers,
        };
        for n in 0..rounds(6000) {
            t.step();
            if n % 1000 == 999 {
                t.compare();
                if t.groups.is_empty() {
                    assert_object_sound(&t.object);
                }
            }
        }
        while !t.groups.is_empty() {
            t.change_group();
        }
        t.compare();
        assert_object_sound(&t.object);
    }
}

fn an_array_keeps_what_it_was_made_with() {
    let scratch = Scratch::posix("array");
    let first = integers(scratch.name(), -3, 10);
    first.set_i64(4, 44).expect("sets");
    let again = integers(scratch.name(), 99, 1000);
    assert_eq!(again.length(), Ok(10));
    assert_eq!(again.get_i64(3), Ok(-3));
    assert_eq!(again.get_i64(4), Ok(44));
    assert_eq!(again.get_i64(10), Err(Error::Range));
    assert_eq!(again.set_i64(u64::MAX, 1), Err(Error::Range));
    assert_eq!(again.read(8, &mut [0; 24]), Err(Error::Range));
    assert!(matches!(again.read(8, &mut [0; 5]), Err(Error::Invalid { .. })));
    assert!(matches!(again.set(1, &[0; 7]), Err(Error::Invalid { .. })));
    assert!(matches!(again.resize(1 << 49), Err(Error::TooLarge(_))));
    again.set_i64(0, i64::MAX).expect("sets");
    assert_eq!(again.increment(0, 1), Err(Error::Overflow));
    assert_eq!(again.get_i64(0), Ok(i64::MAX));
    let object = open(scratch.name());
    let anew = ManageOptions::new().reinitialise(true).clone();
    let empty = Array::manage_i64(&object, 5, 0, &anew).expect("is made anew");
    assert_eq!(empty.length(), Ok(0));
    assert_eq!(first.length(), Ok(0), "other handles see the new one");
    first.resize(5).expect("resizes");
    assert_eq!(first.get_i64(4), Ok(5));
    assert_sound(scratch.name());
}

fn an_array_is_taken_as_whatever_it_records() {
    let scratch = Scratch::posix("array");
    let object = open(scratch.name());
    let options = ManageOptions::new();
    let (int32, texts) = (Type::int32(), Type::string());
    let refused = |r: netshm::Result<(Array, Type)>| matches!(r, Err(Error::Invalid { .. }));
    assert!(refused(Array::manage_existing(&object, None, &options)));
    assert!(refused(Array::manage_existing(&object, Some(&int32), &options)));
    assert_eq!(object.tables().expect("lists"), []);
    let a = Array::manage(&object, &int32, &[Value::Int(-1)], 3 * CHUNK, &options).expect("is an array");
    for asked in [None, Some(&int32)] {
        let (same, element) = Array::manage_existing(&object, asked, &options).expect("is an array");
        assert_eq!(element, int32);
        assert_eq!((same.length(), same.get_i64(2 * CHUNK)), (Ok(3 * CHUNK), Ok(-1)));
        same.increment(0, 1).expect("adds");
    }
    assert_eq!(a.get_i64(0), Ok(1));
    assert!(matches!(Array::manage_existing(&object, Some(&texts), &options), Err(Error::Type { .. })));
    let mut anew = ManageOptions::new();
    assert!(refused(Array::manage_existing(&object, None, anew.reinitialise(true))));
    assert_eq!(a.get_i64(0), Ok(1));
    assert_sound(scratch.name());
}

fn indices_beyond_every_array_are_out_of_range() {
    let far = |n: u32| [(1 << n) - 1, 1 << n, (1 << n) + 1, u64::MAX - (1 << (n - 10)), u64::MAX >> (63 - n)];
    for signature in ["int32", "int64", "(int32,int64)"] {
        let scratch = Scratch::posix("array");
        let element = Type::parse(signature).expect("is a type");
        let halves = [Value::Int(1), Value::Int(2)];
        let default = &halves[..if signature.starts_with('(') { 2 } else { 1 }];
        let object = open(scratch.name());
        let a = Array::manage(&object, &element, default, 10, &ManageOptions::new()).expect("is an array");
        let encoded = a.default_value().expect("has one");
        a.set(9, &encoded).expect("sets");
        for i in (48..64).flat_map(far) {
            assert_eq!(a.get(i), Err(Error::Range), "{i}");
            assert_eq!(a.set(i, &encoded), Err(Error::Range), "{i}");
            assert_eq!(a.read(i, &mut vec![0; 2 * encoded.len()]), Err(Error::Range), "{i}");
            assert_eq!(a.write(i, &encoded.repeat(2)), Err(Error::Range), "{i}");
            if signature != "(int32,int64)" {
                assert_eq!(a.get_i64(i), Err(Error::Range), "{i}");
                assert_eq!(a.set_i64(i, 1), Err(Error::Range), "{i}");
                assert_eq!(a.increment(i, 1), Err(Error::Range), "{i}");
            }
        }
        assert_sound(scratch.name());
    }
}

fn what_is_cut_off_is_gone() {
    let scratch = Scratch::posix("array");
    let a = integers(scratch.name(), 1, 100 * CHUNK);
    a.write(0, &vec![9; 800 * CHUNK as usize]).expect("writes");
    a.resize(CHUNK + 3).expect("shrinks");
    a.resize(100 * CHUNK).expect("grows");
    assert_eq!(a.iter().count() as u64, CHUNK + 3);
    for (index, expected) in [(CHUNK + 2, 0x0909090909090909), (CHUNK + 3, 1), (99 * CHUNK, 1)] {
        assert_eq!(a.get_i64(index), Ok(expected));
    }
    // The same beside other elements of the chunk, and in a group.
    a.set_i64(CHUNK + 10, 5).expect("sets");
    let group = a.table().begin().expect("begins");
    a.resize(CHUNK + 10).expect("shrinks");
    assert_eq!(a.get_i64(CHUNK + 10), Err(Error::Range));
    a.resize(2 * CHUNK).expect("grows");
    assert_eq!(a.get_i64(CHUNK + 10), Ok(1));
    group.abort().expect("aborts");
    assert_eq!(a.get_i64(CHUNK + 10), Ok(5));
    assert_sound(scratch.name());
}

/// 2^40 elements, three of them set: a few pages more than an empty array.
fn sparse() {
    let scratch = Scratch::posix("array");
    let object = open(scratch.name());
    let a = Array::manage_i64(&object, 0, 1 << 40, &ManageOptions::new()).expect("is an array");
    let used = || std::fs::metadata(scratch.path()).map(|m| std::os::unix::fs::MetadataExt::blocks(&m) / 8);
    a.set_i64(12345, 1).expect("sets");
    let before = used().expect("asks");
    for i in [0, 1 << 39, (1 << 40) - 1] {
        a.set_i64(i, i as i64 + 1).expect("sets");
    }
    let after = used().expect("asks");
    assert!(after - before <= 16, "{before} pages, then {after}");
    assert!(after <= 128, "{after} pages in all");
    for i in [0, 1 << 39, (1 << 40) - 1] {
        assert_eq!(a.get_i64(i), Ok(i as i64 + 1));
    }
    assert_eq!(a.iter().count(), 4);
    assert_object_sound(&object);
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

/// Several processes add to the same elements, alone and in groups.
fn counting_together() {
    const PROCESSES: usize = 4;
    const ELEMENTS: u64 = 3;
    let scratch = Scratch::posix("array");
    let each = rounds(20_000);
    run(PROCESSES, |p| {
        let a = integers(scratch.name(), 0, 1000 * CHUNK);
        let mut random = Random::new(p as u64);
        for n in 0..each {
            let i = 400 * CHUNK * random.below(ELEMENTS);
            if n % 16 == 0 {
                let read_and_write = || {
                    let now = a.get_i64(i)?;
                    a.set_i64(i, now + 1)
                };
                a.table().group_retry(None, read_and_write).expect("counts");
            } else {
                a.increment(i, 1).expect("counts");
            }
        }
    });
    let a = integers(scratch.name(), 0, 0);
    let sum: i64 = (0..ELEMENTS).map(|n| a.get_i64(400 * CHUNK * n).expect("gets")).sum();
    assert_eq!(sum as u64, each * PROCESSES as u64);
    assert_sound(scratch.name());
}

/// Slices are whole: writers fill overlapping slices each with one value; readers see one value in each part that
/// all writers write together. Meanwhile the array is resized above and below.
fn slices_and_resizing() {
    const SLICE: u64 = 7 * CHUNK;
    let scratch = Scratch::posix("array");
    let done = Shared::new(1);
    integers(scratch.name(), 0, 2 * SLICE);
    run(4, |p| {
        let a = integers(scratch.name(), 0, 0);
        let mut random = Random::new(p as u64);
        match p {
            0 | 1 => {
                for n in 0..rounds(400) {
                    let value = (2 * n + p as u64 + 1).to_le_bytes();
                    // Always over elements [100, SLICE), with more or less before.
                    let first = random.below(100);
                    let bytes: Vec<u8> = (first..SLICE).flat_map(|_| value).collect();
                    match a.write(first, &bytes) {
                        Ok(()) => {}
                        Err(e) => panic!("writes: {e}"),
                    }
                }
                done.add(0, 1);
            }
            2 => {
                let mut bytes = vec![0; 8 * SLICE as usize];
                let mut seen = 0;
                while done.word(0).load(Ordering::SeqCst) < 2 {
                    a.read(0, &mut bytes).expect("reads");
                    let of = |i: u64| &bytes[8 * i as usize..8 * i as usize + 8];
                    assert!((100..SLICE).all(|i| of(i) == of(100)), "a mixture was seen");
                    seen += 1;
                }
                assert!(seen > 0);
            }
            _ => {
                while done.word(0).load(Ordering::SeqCst) < 2 {
                    a.resize(SLICE + random.below(SLICE)).expect("resizes");
                    let at = SLICE + random.below(SLICE);
                    match a.set_i64(at, 1) {
                        Ok(()) | Err(Error::Range) => {}
                        Err(e) => panic!("sets: {e}"),
                    }
                    a.resize(SLICE).expect("resizes");
                    a.resize(2 * SLICE).expect("resizes");
                    assert_eq!(a.get_i64(at), Ok(0), "what was cut off is gone");
                }
            }
        }
    });
    assert_sound(scratch.name());
}

/// The same with longer slices, so that readers are often overtaken, and nothing else that makes them read again.
fn slices_are_whole() {
    const SLICE: u64 = 60 * CHUNK;
    let scratch = Scratch::posix("array");
    let done = Shared::new(1);
    integers(scratch.name(), 0, SLICE);
    run(3, |p| {
        let a = integers(scratch.name(), 0, 0);
        if p < 2 {
            for n in 0..rounds(2000) {
                let value = (2 * n + p as u64 + 1).to_le_bytes();
                let bytes: Vec<u8> = (0..SLICE).flat_map(|_| value).collect();
                a.write(0, &bytes).expect("writes");
            }
            done.add(0, 1);
            return;
        }
        let mut bytes = vec![0; 8 * SLICE as usize];
        while done.word(0).load(Ordering::SeqCst) < 2 {
            a.read(0, &mut bytes).expect("reads");
            let first = bytes[..8].to_vec();
            assert!(bytes.chunks(8).all(|element| element == first), "a mixture was seen");
        }
    });
    assert_sound(scratch.name());
}

/// Groups that take slices in contrary orders give way and get through.
fn groups_of_slices() {
    let scratch = Scratch::posix("array");
    integers(scratch.name(), 0, 200 * CHUNK);
    let each = rounds(150) as i64;
    run(3, |p| {
        let a = integers(scratch.name(), 0, 0);
        for n in 0..each {
            let (from, to) = if (n + p as i64) % 2 == 0 { (0, 100 * CHUNK) } else { (100 * CHUNK, 0) };
            let swap = || {
                let mut bytes = vec![0; 8 * 2 * CHUNK as usize];
                a.read(from, &mut bytes)?;
                let now = i64::from_le_bytes(bytes[..8].try_into().expect("8"));
                let next: Vec<u8> = (0..2 * CHUNK).flat_map(|_| (now + 1).to_le_bytes()).collect();
                a.write(from, &next)?;
                a.increment(to, 1).map(|_| ())
            };
            a.table().group_retry(None, swap).expect("gets through");
        }
    });
    let a = integers(scratch.name(), 0, 0);
    // Each round adds 1 to both; all elements of a slice but the first are at most as large.
    assert_eq!(a.get_i64(0), Ok(3 * each));
    assert_eq!(a.get_i64(100 * CHUNK), Ok(3 * each));
    assert_sound(scratch.name());
}

fn main() {
    support::main(&[
        ("an_array_keeps_what_it_was_made_with", an_array_keeps_what_it_was_made_with),
        ("an_array_is_taken_as_whatever_it_records", an_array_is_taken_as_whatever_it_records),
        ("indices_beyond_every_array_are_out_of_range", indices_beyond_every_array_are_out_of_range),
        ("what_is_cut_off_is_gone", what_is_cut_off_is_gone),
        ("sparse", sparse),
        ("model_of_integers", || model_of(true)),
        ("model_of_bytes", || model_of(false)),
        ("counting_together", counting_together),
        ("slices_and_resizing", slices_and_resizing),
        ("slices_are_whole", slices_are_whole),
        ("groups_of_slices", groups_of_slices),
    ]);
}
