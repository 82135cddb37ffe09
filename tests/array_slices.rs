//! Goal: slices of all sizes of elements are written and read as a simple model says, by the short way and by the
//! general one; they stay whole among processes and when their writers are killed at any moment; writing them again
//! and again takes no more memory.
//!
//! Method: random slices, single elements and groups on an array and on a list of what should be set; processes that
//! write overlapping slices with one value all over, so that a mixture shows; writers that are killed after a random
//! time, judged by another process; the object's size before and after many slices. `NETSHM_SEED` repeats a run;
//! `NETSHM_ROUNDS` is the number of operations, `NETSHM_KILLS` of kills, of which long slices take a tenth.

mod support;

use netshm::{Array, HashTable, ManageOptions, Name, Object, OpenOptions, Type, Value};
use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
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
    whole_among_processes(30 * CHUNK, rounds(600));
}

/// The same by writers who keep more blocks than the magazine and the slot's log and list have room for.
fn long_slices_are_whole() {
    whole_among_processes(90 * CHUNK, rounds(100));
}

fn whole_among_processes(slice: u64, writes: u64) {
    let scratch = Scratch::posix("array");
    let done = Shared::new(1);
    integers(scratch.name(), slice).write(0, &filled(0, slice)).expect("writes");
    run(4, |p| {
        let a = integers(scratch.name(), 0);
        let mut random = Random::new(p as u64);
        if p < 2 {
            for n in 0..writes {
                a.write(0, &filled(2 * n + p as u64 + 1, slice)).expect("writes");
            }
            done.add(0, 1);
            return;
        }
        let mut bytes = vec![0; 8 * slice as usize];
        while done.word(0).load(Ordering::SeqCst) < 2 {
            let first = random.below(slice);
            let part = &mut bytes[8 * first as usize..];
            a.read(first, part).expect("reads");
            assert!(is_whole(part), "a mixture was seen");
        }
    });
    assert_sound(scratch.name());
}

/// Writers die at random moments.
fn killed_at_any_moment() {
    let kills = support::setting("NETSHM_KILLS").unwrap_or(if support::long() { 10_000 } else { 150 });
    killed_in(6 * CHUNK, kills);
}

/// The same to writers who keep the blocks of long slices.
fn killed_in_long_slices() {
    let asked = support::setting("NETSHM_KILLS").map(|kills| kills / 10);
    let kills = asked.unwrap_or(if support::long() { 1000 } else { 30 });
    killed_in(70 * CHUNK, kills);
}

fn killed_in(slice: u64, kills: u64) {
    let mut random = Random::from_environment("kills");
    let scratch = Scratch::posix("array");
    integers(scratch.name(), slice).write(0, &filled(0, slice)).expect("writes");
    let written = Shared::new(1);
    for round in 0..kills {
        let ready = Pipe::new();
        let mut victim = fork(|| {
            let a = integers(scratch.name(), 0);
            let slices = [0, 1, 2].map(|n| filled(1_000_000 * round + n, slice - 100));
            ready.send(1);
            for n in 0.. {
                // A long slice, a short one in place, an element: what is between the ends is always whole.
                a.write(50, &slices[n as usize % 3]).expect("writes");
                a.write(3, &filled(n, 20)).expect("writes");
                a.set_i64(slice - 1, n as i64).expect("sets");
                written.add(0, 1);
            }
        });
        assert!(ready.receive_within(Duration::from_secs(30)).is_some(), "the writer is at work");
        std::thread::sleep(Duration::from_micros(random.below(1500 * slice / CHUNK)));
        assert_eq!(victim.kill(), Exit::KILLED);
        let judge = fork(|| {
            watchdog(10);
            let a = integers(scratch.name(), 0);
            let mut bytes = vec![0; 8 * slice as usize];
            a.read(0, &mut bytes).expect("reads");
            assert!(is_whole(&bytes[8 * 50..8 * (slice - 50) as usize]), "half of a slice");
            assert!(is_whole(&bytes[8 * 3..8 * 23]), "half of a short slice");
            a.write(0, &filled(round, slice)).expect("goes on");
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

/// A change of an array with a name, or of the table beside it.
#[derive(Debug, Clone, Copy)]
enum Change {
    Slice(u64, u64, i64),
    Element(u64, i64),
    /// Shorter, and as long as before.
    Cut(u64),
    /// Removed, and made anew; the others only look for the new one.
    Anew,
    Look,
    /// A value of the hash table as large as a chunk; 0: its removal.
    Long(u8),
    /// The slice of another array.
    Elsewhere(u64, u64),
}

/// One thread's handles.
struct Hands {
    object: Object,
    array: RefCell<Array>,
    beside: HashTable,
    other: Array,
}

impl Hands {
    const LENGTH: u64 = 3 * CHUNK + 50;

    fn new(name: &Name) -> Hands {
        let object = open(name);
        let array = RefCell::new(Hands::manage(&object));
        let beside = HashTable::manage(&object, &ManageOptions::new()).expect("is a table");
        let other = Array::manage_i64(&object, 0, Hands::LENGTH, ManageOptions::new().root("other"));
        Hands { array, beside, other: other.expect("is an array"), object }
    }

    fn manage(object: &Object) -> Array {
        Array::manage_i64(object, 0, Hands::LENGTH, ManageOptions::new().root("numbers"))
            .expect("is an array")
    }

    fn make(&self, change: Change) {
        let array = self.array.borrow();
        match change {
            Change::Slice(first, count, value) => {
                array.write(first, &filled(value as u64, count)).expect("writes");
            }
            Change::Element(i, value) => array.set_i64(i, value).expect("sets"),
            Change::Cut(length) => {
                array.resize(length).expect("resizes");
                array.resize(Hands::LENGTH).expect("resizes");
            }
            Change::Anew | Change::Look => {
                drop(array);
                if matches!(change, Change::Anew) {
                    self.object.drop_table("numbers").expect("drops");
                }
                *self.array.borrow_mut() = Hands::manage(&self.object);
            }
            Change::Long(0) => _ = self.beside.remove(b"long").expect("removes"),
            Change::Elsewhere(first, count) => {
                self.other.write(first, &filled(u64::MAX, count)).expect("writes");
            }
            Change::Long(byte) => self.beside.replace(b"long", &[byte; 16_300]).expect("replaces"),
        }
    }

    fn read(&self) -> Vec<i64> {
        let mut bytes = vec![0; 8 * Hands::LENGTH as usize];
        self.array.borrow().read(0, &mut bytes).expect("reads");
        bytes.chunks(8).map(|e| i64::from_le_bytes(e.try_into().expect("8 bytes"))).collect()
    }
}

fn in_model(model: &mut [i64], change: Change) {
    match change {
        Change::Slice(first, count, value) => {
            model[first as usize..(first + count) as usize].fill(value);
        }
        Change::Element(i, value) => model[i as usize] = value,
        Change::Cut(length) => model[length as usize..].fill(0),
        Change::Anew => model.fill(0),
        Change::Look | Change::Long(_) | Change::Elsewhere(..) => {}
    }
}

/// Goal: what a slice leaves of a chunk is as it was left last, by whomever. Method: a thread writes a few slices again
/// and again; in between it and another thread change the same chunks in other ways, and the thread uses the blocks that it
/// keeps for other things.
fn the_same_slices_among_other_changes() {
    let mut random = Random::from_environment("the same");
    for _ in 0..rounds(100) {
        let scratch = Scratch::posix("array");
        let mine = Hands::new(scratch.name());
        let mut model = vec![0; Hands::LENGTH as usize];
        let any = |random: &mut Random| {
            let first = random.below(Hands::LENGTH - 1);
            let most = *random.one_of(&[100, 1000, 3 * CHUNK]);
            (first, (1 + random.below(most)).min(Hands::LENGTH - first))
        };
        let slices = [any(&mut random), any(&mut random), (0, 2 * CHUNK + 900)];
        std::thread::scope(|threads| {
            let (orders, to_do) = std::sync::mpsc::channel::<Change>();
            let (done, is_done) = std::sync::mpsc::channel();
            threads.spawn(move || {
                let theirs = Hands::new(scratch.name());
                for change in to_do {
                    theirs.make(change);
                    done.send(()).expect("is waited for");
                }
                drop(theirs);
                drop(scratch);
            });
            let let_them = |change| {
                orders.send(change).expect("waits");
                is_done.recv().expect("has done it");
            };
            for n in 1..300 {
                let (first, count) = match random.below(20) {
                    0 => any(&mut random),
                    n => slices[(n as usize / 2).min(2)],
                };
                let change = match random.below(40) {
                    0..=29 => Change::Slice(first, count, n),
                    30..=32 => Change::Element(random.below(Hands::LENGTH), n),
                    33 => Change::Cut(random.below(Hands::LENGTH)),
                    34 if random.once_in(3) => Change::Anew,
                    34..=36 => Change::Elsewhere(first, count),
                    _ => Change::Long(random.below(5) as u8),
                };
                if random.once_in(5) {
                    let_them(change);
                } else {
                    mine.make(change);
                }
                in_model(&mut model, change);
                if matches!(change, Change::Anew) {
                    let_them(Change::Look);
                    mine.make(Change::Look);
                }
                assert!(mine.read() == model, "step {n}: {change:?}");
            }
            assert_object_sound(&mine.object);
            drop(orders);
        });
    }
}

/// What a thread keeps of long slices goes back with its next operations of other kinds, and is kept only from the second
/// slice on.
fn what_is_kept_goes_back() {
    const CHUNKS: u64 = 400;
    let scratch = Scratch::posix("array");
    let object = open(scratch.name());
    let a = Array::manage_i64(&object, 0, CHUNKS * CHUNK, &ManageOptions::new()).expect("is an array");
    let write = |value| a.write(0, &filled(value, CHUNKS * CHUNK)).expect("writes");
    let kept = || assert_object_sound(&object).custody;
    write(1);
    assert!(kept() < 100, "after one slice nothing is kept");
    (2..5).for_each(write);
    assert!(kept() >= CHUNKS, "{} are kept", kept());
    a.set_i64(3, 3).expect("sets");
    assert!(kept() >= CHUNKS, "the short way leaves them alone");
    a.resize(CHUNKS * CHUNK + 1).expect("resizes");
    a.resize(CHUNKS * CHUNK).expect("resizes");
    assert!(kept() < 100, "{} are left", kept());
    write(5);
    // What it has replaced goes back by and by.
    (0..100).for_each(|n| a.set_i64(n, 3).expect("sets"));
    assert!(kept() < 100, "it begins anew, and {} are left", kept());
    (6..8).for_each(write);
    assert!(kept() >= CHUNKS);
    // The end of the thread's slot gives back everything.
    drop(a);
    drop(object);
    let object = open(scratch.name());
    assert!(assert_object_sound(&object).custody < 100);
}

/// Nothing is kept where others would not find as much.
fn nothing_is_kept_of_little_memory() {
    const CHUNKS: u64 = 100;
    let scratch = Scratch::posix("array");
    let object = open(scratch.name());
    let little = ManageOptions::new().max_bytes(4_800_000).clone();
    let a = Array::manage_i64(&object, 0, CHUNKS * CHUNK, &little).expect("is an array");
    let write = |a: &Array, value| a.write(0, &filled(value, CHUNKS * CHUNK));
    (0..5).for_each(|n| write(&a, n).expect("writes"));
    for _ in 0..2 {
        run(1, |_| {
            let a = integers(scratch.name(), 0);
            (0..5).for_each(|n| write(&a, n).expect("there is room for the slices of all"));
        });
    }
    (0..5).for_each(|n| write(&a, n).expect("writes"));
    assert!(assert_object_sound(&object).custody < CHUNKS);
}

/// Who needs memory gets what his own slot keeps.
fn what_is_kept_is_found_when_memory_is_short() {
    const CHUNKS: u64 = 100;
    const PIECE: usize = 128 << 10;
    let scratch = Scratch::posix("array");
    let object = open(scratch.name());
    let little = ManageOptions::new().max_bytes(8 << 20).clone();
    let a = Array::manage_i64(&object, 0, CHUNKS * CHUNK, &little).expect("is an array");
    let other = ManageOptions::new().root("other").clone();
    let t = HashTable::manage(&object, &other).expect("is a table");
    (0..4).for_each(|n| a.write(0, &filled(n, CHUNKS * CHUNK)).expect("writes"));
    assert!(assert_object_sound(&object).custody >= CHUNKS);
    let group = t.table().begin().expect("begins");
    let stored = (0u64..).take_while(|n| t.add(&n.to_le_bytes(), &vec![1; PIECE]).is_ok()).count() * PIECE;
    group.abort().expect("aborts");
    // The array itself takes 1.6 MB, and what holds everything together some of the rest.
    assert!(stored > 4_400_000, "{stored} bytes were found");
    assert_object_sound(&object);
}

/// A group sets one element, and its process stops where the change may be visible already and its lock is not given
/// back; whoever sees that element then sets another one. A slice may have both, neither or the first alone.
fn a_group_of_one_element_is_seen_before_what_follows_it() {
    const LENGTH: u64 = 5000 * CHUNK;
    for _ in 0..8 {
        let scratch = Scratch::posix("array");
        let a = integers(scratch.name(), LENGTH);
        a.write(0, &filled(0, LENGTH)).expect("writes");
        let (shared, name) = (Shared::new(1), scratch.name());
        let now = shared.word(0);
        let step = |wanted| {
            while now.load(Ordering::SeqCst) != wanted {
                std::hint::spin_loop();
            }
        };
        let mut writer = fork(|| {
            watchdog(STUCK_SECONDS);
            let a = integers(name, LENGTH);
            let group = a.table().begin().expect("begins");
            a.set_i64(0, 1).expect("sets");
            now.store(1, Ordering::SeqCst);
            step(3);
            // Two words of log and the commit point come before; then the mark, if there is one, and the change.
            netshm::inject::stop_at(4);
            group.commit().expect("commits");
        });
        step(1);
        let (pid, seen) = (writer.pid(), AtomicBool::new(false));
        let slice = std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut slice = filled(7, LENGTH);
                now.store(2, Ordering::SeqCst);
                a.read(0, &mut slice).expect("reads");
                slice
            });
            step(2);
            std::thread::sleep(Duration::from_micros(300));
            now.store(3, Ordering::SeqCst);
            threads.spawn(|| {
                // Again and again: where others have the processors it may stop later than that.
                while !seen.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(50));
                    // SAFETY: the child is not waited for before.
                    unsafe { libc::kill(pid, libc::SIGCONT) };
                }
            });
            while a.get_i64(0).expect("reads") == 0 {}
            seen.store(true, Ordering::SeqCst);
            a.set_i64(LENGTH - 1, 1).expect("sets");
            reader.join().expect("ends")
        });
        assert_eq!(writer.wait(), Exit::Code(0));
        let element = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let (first, last) = (element(&slice[..8]), element(&slice[slice.len() - 8..]));
        assert!(first >= last, "the last element was set after the first: {first}, {last}");
    }
}

fn main() {
    support::main(&[
        ("elements_of_all_sizes", elements_of_all_sizes),
        ("slices_are_whole", slices_are_whole),
        ("long_slices_are_whole", long_slices_are_whole),
        ("killed_at_any_moment", killed_at_any_moment),
        ("killed_in_long_slices", killed_in_long_slices),
        ("what_is_kept_goes_back", what_is_kept_goes_back),
        ("nothing_is_kept_of_little_memory", nothing_is_kept_of_little_memory),
        ("what_is_kept_is_found_when_memory_is_short", what_is_kept_is_found_when_memory_is_short),
        ("written_again_and_again", written_again_and_again),
        ("the_same_slices_among_other_changes", the_same_slices_among_other_changes),
        (
            "a_group_of_one_element_is_seen_before_what_follows_it",
            a_group_of_one_element_is_seen_before_what_follows_it,
        ),
    ]);
}
