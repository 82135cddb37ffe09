//! Goal: a slice that is written again leaves of its chunks what they held last, whoever changed them and however,
//! and changes nothing that is not its own.
//!
//! Method: a few slices, and such as have nearly their ends, are written again and again, by this thread, by others that take
//! over its session one after the other, by forked children with inherited handles and with their own. In between come changes
//! of all other kinds: elements, groups that end well or not, another length, another table in its place, growth of the index,
//! writers that are killed or in the way, values of the size of chunks that use the same blocks, and objects without
//! room. After each change all elements are compared with a simple model; the reading needs no session, so that what a
//! session remembers stays. Without hooks in the library: these are the copies that are shipped. `NETSHM_SEED` repeats a run;
//! `NETSHM_ROUNDS` is the number of objects.

mod support;

use netshm::{Array, Error, HashTable, ManageOptions, Name, Object, OpenOptions, Result, Type, Value};
use std::cell::RefCell;
use std::time::Duration;
use support::process::{Exit, Pipe, fork, leave, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_object_sound};

/// Bytes of a chunk's bitmap and elements.
const CHUNK_BYTES: u64 = 16360;
/// Largest part that changes where it is; see `docs/design.md`.
const IN_PLACE_BYTES: u64 = 1536;
/// Chunks of which all elements are compared.
const CHUNKS: u64 = 12;
/// Chunks whose first elements make the index grow.
const MORE_CHUNKS: u64 = 400;
const STUCK_SECONDS: u32 = 60;

/// What elements are like.
#[derive(Debug, Clone, Copy)]
struct Kind {
    signature: &'static str,
    bytes: u64,
    per_chunk: u64,
    stride: u64,
}

impl Kind {
    fn any(random: &mut Random) -> Kind {
        let signatures = ["int64", "int32", "(int32,int64)", "(int64,int64)"];
        let signature = random.one_of(&signatures);
        let bytes = Type::parse(signature).expect("is a type").fixed_bytes().expect("has them") as u64;
        let stride = if bytes <= 4 { 4 } else { bytes.next_multiple_of(8) };
        let mut per_chunk = CHUNK_BYTES / stride;
        while 8 * per_chunk.div_ceil(64) + (per_chunk * stride).next_multiple_of(8) > CHUNK_BYTES {
            per_chunk -= 1;
        }
        Kind { signature, bytes, per_chunk, stride }
    }

    fn length(&self) -> u64 {
        CHUNKS * self.per_chunk
    }

    fn whole_length(&self) -> u64 {
        (CHUNKS + MORE_CHUNKS) * self.per_chunk
    }
}

/// Elements in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    count: u64,
}

impl Range {
    /// With ends that matter: those of chunks, some elements beside them, as much as still goes to its place.
    fn any(kind: &Kind, random: &mut Random) -> Range {
        let border = random.below(CHUNKS) * kind.per_chunk;
        let in_place = IN_PLACE_BYTES / kind.stride;
        let near = |random: &mut Random| match random.below(7) {
            0 => 0,
            1 => random.below(4),
            2 => in_place - 1 + random.below(3),
            3 => kind.per_chunk - random.below(4),
            4 => kind.per_chunk / 2 + random.below(200),
            5 => random.below(150),
            _ => random.below(kind.per_chunk),
        };
        let first =
            if random.once_in(3) { border.saturating_sub(near(random)) } else { border + near(random) };
        let first = first.min(kind.length() - 1);
        let chunks = *random.one_of(&[0, 0, 0, 1, 1, 2, 3, 5, 8, 9]);
        let count = (chunks * kind.per_chunk + near(random)).max(1);
        Range { first, count: count.min(kind.length() - first) }
    }

    /// Nearly the same one.
    fn beside(self, kind: &Kind, random: &mut Random) -> Range {
        let (mut first, mut end) = (self.first, self.first + self.count);
        let step = 1 + random.below(70);
        match random.below(4) {
            0 => first = first.saturating_sub(step),
            1 => first = (first + step).min(end - 1),
            2 => end = (end + step).min(kind.length()),
            _ => end = end.saturating_sub(step).max(first + 1),
        }
        Range { first, count: end - first }
    }
}

/// A change of the array or of what is beside it.
#[derive(Debug, Clone, Copy)]
enum Change {
    Slice(Range),
    Element(u64),
    /// A slice and an element in a group, that ends well or not.
    Group(Range, u64, bool),
    /// As long as this, and as long as before.
    Cut(u64),
    /// Elements of many more chunks.
    Grow,
    /// Another array in its place.
    Anew,
    /// A value of the table beside, as long as a chunk, or none.
    Long(u64, bool),
    Sync,
    /// The same slice of the array beside.
    Elsewhere(Range),
}

/// Who makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The thread that reads.
    Me,
    /// A thread that takes over the session of another one before it.
    Heir,
    /// A child with its parent's handles.
    Child,
    /// A process with handles of its own.
    Stranger,
}

/// Handles of an object.
struct Hands {
    kind: Kind,
    object: Object,
    array: RefCell<Array>,
    beside: HashTable,
    other: Array,
}

// SAFETY: the cell is used by one thread at a time: others are waited for at once.
unsafe impl Sync for Hands {}

impl Hands {
    fn new(name: &Name, kind: Kind, options: &ManageOptions) -> Hands {
        let object = OpenOptions::new().create(true).open(name).expect("opens");
        let array = RefCell::new(Hands::manage(&object, kind, "numbers", options).expect("is an array"));
        let beside = HashTable::manage(&object, options).expect("is a table");
        let other = Hands::manage(&object, kind, "other", options).expect("is an array");
        Hands { kind, object, array, beside, other }
    }

    fn manage(object: &Object, kind: Kind, root: &str, options: &ManageOptions) -> Result<Array> {
        let element = Type::parse(kind.signature).expect("is a type");
        let zeros = vec![Value::Int(0); element.signature().matches("int").count()];
        Array::manage(object, &element, &zeros, kind.whole_length(), options.clone().root(root))
    }

    /// The bytes of elements that a change numbered `n` sets.
    fn elements(&self, count: u64, n: u64) -> Vec<u8> {
        let len = count * self.kind.bytes;
        (0..len).map(|i| (i.wrapping_mul(7) ^ n ^ n.wrapping_mul(i >> 8)) as u8).collect()
    }

    fn make(&self, change: Change, n: u64) -> Result<()> {
        let array = self.array.borrow();
        match change {
            Change::Slice(range) => array.write(range.first, &self.elements(range.count, n)),
            Change::Element(i) => array.set(i, &self.elements(1, n)),
            Change::Group(range, i, is_good) => {
                let group = array.table().begin()?;
                array.set(i, &self.elements(1, n))?;
                array.write(range.first, &self.elements(range.count, n))?;
                if is_good { group.commit() } else { group.abort() }
            }
            Change::Cut(length) => {
                array.resize(length)?;
                array.resize(self.kind.whole_length())
            }
            Change::Grow => {
                let of_chunk = |chunk| array.set(chunk * self.kind.per_chunk, &self.elements(1, n));
                (CHUNKS..CHUNKS + MORE_CHUNKS).try_for_each(of_chunk)
            }
            Change::Anew => {
                self.object.drop_table("numbers")?;
                Hands::manage(&self.object, self.kind, "numbers", &ManageOptions::new()).map(drop)
            }
            Change::Long(key, true) => self.beside.replace(&key.to_le_bytes(), &[n as u8; 16_300]),
            Change::Long(key, false) => self.beside.remove(&key.to_le_bytes()).map(drop),
            Change::Sync => self.object.sync(0),
            Change::Elsewhere(range) => self.other.write(range.first, &self.elements(range.count, !n)),
        }
    }

    /// Looks for the array that has the name.
    fn look(&self) {
        *self.array.borrow_mut() =
            Hands::manage(&self.object, self.kind, "numbers", &ManageOptions::new()).expect("is there");
    }

    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.kind.length() * self.kind.bytes) as usize];
        self.array.borrow().read(0, &mut bytes).expect("reads");
        bytes
    }
}

struct World {
    name: Name,
    hands: Hands,
    options: ManageOptions,
    model: Vec<u8>,
    /// What went wrong for want of memory.
    full: u64,
}

impl World {
    fn set(&mut self, range: Range, n: u64) {
        let new = self.hands.elements(range.count, n);
        let from = (range.first * self.hands.kind.bytes) as usize;
        self.model[from..from + new.len()].copy_from_slice(&new);
    }

    fn change_model(&mut self, change: Change, n: u64) {
        match change {
            Change::Slice(range) => self.set(range, n),
            Change::Element(i) => self.set(Range { first: i, count: 1 }, n),
            Change::Group(range, i, true) => {
                self.set(Range { first: i, count: 1 }, n);
                self.set(range, n);
            }
            Change::Cut(length) => self.model[(length * self.hands.kind.bytes) as usize..].fill(0),
            Change::Anew => self.model.fill(0),
            _ => {}
        }
    }

    fn make(&mut self, who: Who, change: Change, n: u64) {
        let hands = &self.hands;
        let outcome = match who {
            Who::Me => hands.make(change, n),
            Who::Heir => {
                std::thread::scope(|threads| threads.spawn(|| hands.make(change, n)).join().expect("ends"))
            }
            Who::Child | Who::Stranger => {
                let mut child = fork(|| {
                    watchdog(STUCK_SECONDS);
                    let outcome = match who {
                        Who::Child => hands.make(change, n),
                        _ => Hands::new(&self.name, hands.kind, &self.options).make(change, n),
                    };
                    match outcome {
                        Err(Error::NoSpace) => leave(3),
                        outcome => outcome.expect("is made"),
                    }
                });
                match child.wait() {
                    Exit::Code(0) => Ok(()),
                    Exit::Code(3) => Err(Error::NoSpace),
                    exit => panic!("{who:?}, {change:?}: {exit:?}"),
                }
            }
        };
        match (outcome, change) {
            (Ok(()), _) => self.change_model(change, n),
            // Half of it may be there.
            (Err(Error::NoSpace), Change::Grow | Change::Cut(_) | Change::Anew) => panic!("{change:?}"),
            (Err(Error::NoSpace), _) => self.full += 1,
            (Err(e), _) => panic!("{who:?}, {change:?}: {e}"),
        }
        if matches!(change, Change::Anew) {
            self.hands.look();
        }
    }

    /// Another process that writes a slice time after time is killed at any moment; this thread's next slice comes
    /// before anything else.
    fn kill(&mut self, theirs: Range, mine: Range, micros: u64, n: u64) {
        let (hands, is_at_work) = (&self.hands, Pipe::new());
        let mut child = fork(|| {
            watchdog(STUCK_SECONDS);
            let own = Hands::new(&self.name, hands.kind, &self.options);
            is_at_work.send(1);
            for _ in 0..100_000 {
                let outcome = own.make(Change::Slice(theirs), !n);
                assert!(matches!(outcome, Ok(()) | Err(Error::NoSpace)), "{outcome:?}");
            }
        });
        assert!(is_at_work.receive_within(Duration::from_secs(30)).is_some(), "is at work");
        std::thread::sleep(Duration::from_micros(micros));
        assert_eq!(child.kill(), Exit::KILLED);
        let outcome = hands.make(Change::Slice(mine), n);
        let (seen, before) = (hands.read(), self.model.clone());
        self.set(theirs, !n);
        if outcome.is_ok() {
            self.set(mine, n);
        }
        if seen != self.model {
            // Theirs has not happened.
            self.model = before;
            if outcome.is_ok() {
                self.set(mine, n);
            }
        }
        assert!(matches!(outcome, Ok(()) | Err(Error::NoSpace)), "{outcome:?}");
    }

    /// Another process is in the way with an element that it has set in a group, and has not committed yet.
    fn meet(&mut self, element: u64, mine: Range, n: u64) {
        let (hands, is_set, go_on) = (&self.hands, Pipe::new(), Pipe::new());
        let mut child = fork(|| {
            watchdog(STUCK_SECONDS);
            let own = Hands::new(&self.name, hands.kind, &self.options);
            let array = own.array.borrow();
            let group = array.table().begin().expect("begins");
            let outcome = array.set(element, &own.elements(1, !n));
            is_set.send(1);
            go_on.receive();
            match outcome {
                Err(Error::NoSpace) => leave(3),
                outcome => outcome.expect("sets"),
            }
            group.commit().expect("commits");
        });
        assert!(is_set.receive_within(Duration::from_secs(30)).is_some(), "is in the way");
        let hasty = self.options.clone().lock_timeout_ms(1).clone();
        let array = Hands::manage(&hands.object, hands.kind, "numbers", &hasty).expect("is there");
        // Twice: what the first one fills and does not commit must not count.
        let outcomes = [n ^ 1, n].map(|n| array.write(mine.first, &hands.elements(mine.count, n)));
        go_on.send(1);
        let exit = child.wait();
        for (outcome, n) in outcomes.iter().zip([n ^ 1, n]) {
            assert!(matches!(outcome, Ok(()) | Err(Error::NoSpace | Error::Timeout { .. })), "{outcome:?}");
            if outcome.is_ok() {
                self.set(mine, n);
            }
        }
        match exit {
            Exit::Code(0) => self.set(Range { first: element, count: 1 }, !n),
            exit => assert_eq!(exit, Exit::Code(3)),
        }
    }
}

fn rounds(short: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 50 * short } else { short })
}

/// One object, many changes.
fn one_object(random: &mut Random, little: bool, steps: u64) -> u64 {
    let scratch = Scratch::posix("again");
    let kind = Kind::any(random);
    let mut options = ManageOptions::new();
    if little {
        options.max_bytes(2_600_000);
    }
    let hands = Hands::new(scratch.name(), kind, &options);
    if little {
        let stored =
            (1000..).take_while(|key| hands.make(Change::Long(*key, true), *key).is_ok()).count() as u64;
        (1000..1000 + stored / 6).for_each(|key| hands.make(Change::Long(key, false), 0).expect("removes"));
    }
    let model = vec![0; (kind.length() * kind.bytes) as usize];
    let mut world = World { name: scratch.name().clone(), hands, options, model, full: 0 };
    let favourites: Vec<Range> = (0..3).map(|_| Range::any(&kind, random)).collect();
    let mut last = favourites[0];
    for n in 1..=steps {
        let range = match random.below(12) {
            0 => Range::any(&kind, random),
            1 | 2 => last.beside(&kind, random),
            3 | 4 => *random.one_of(&favourites),
            _ => last,
        };
        let element = if random.once_in(2) {
            (range.first + random.below(range.count + 2)).min(kind.length() - 1)
        } else {
            random.below(kind.length())
        };
        let change = match random.below(60) {
            0..=36 => Change::Slice(range),
            37..=41 => Change::Element(element),
            42..=44 => Change::Group(range, element, random.once_in(2)),
            45 => Change::Elsewhere(range),
            46 if !little => Change::Cut(element),
            47 if !little && random.once_in(4) => Change::Anew,
            48 if !little && random.once_in(6) => Change::Grow,
            49 if random.once_in(4) => Change::Sync,
            50 => {
                world.kill(range, last, random.below(1000), n);
                Change::Slice(last)
            }
            51 | 52 => {
                world.meet(element, last, n);
                Change::Slice(last)
            }
            53.. => Change::Long(random.below(if little { 200 } else { 8 }), !random.once_in(4)),
            _ => Change::Slice(range),
        };
        let who = match random.below(30) {
            0..=17 => Who::Me,
            18..=26 => Who::Heir,
            27 => Who::Child,
            _ => Who::Stranger,
        };
        if random.once_in(2) {
            // Nothing at all in between.
            world.make(who, Change::Slice(last), !n);
        }
        world.make(who, change, n);
        if let Change::Slice(range) = change {
            last = range;
        }
        assert!(world.hands.read() == world.model, "step {n}: {kind:?}, {who:?}, {change:?}, {last:?}");
    }
    assert_object_sound(&world.hands.object);
    world.full
}

fn slices_among_all_other_changes() {
    let mut random = Random::from_environment("all other changes");
    for _ in 0..rounds(12) {
        let seed = random.next();
        one_object(&mut Random::new(seed), false, 120);
    }
}

fn slices_without_room() {
    let mut random = Random::from_environment("without room");
    let mut full = 0;
    for _ in 0..rounds(8) {
        let seed = random.next();
        full += one_object(&mut Random::new(seed), true, 120);
    }
    println!("  {full} changes found no room");
    assert!(full > 0, "there was room for everything");
}

/// The log of a few elements beside a border has room in the slot: it takes no page.
fn short_slices_over_a_border_take_no_memory() {
    let scratch = Scratch::posix("again");
    let object = OpenOptions::new().create(true).open(scratch.name()).expect("opens");
    let a = Array::manage_i64(&object, 0, 3 * 2013, &ManageOptions::new()).expect("is an array");
    a.write(0, &vec![1; 8 * 3 * 2013]).expect("writes");
    let in_use = || {
        let now = assert_object_sound(&object);
        now.used_pages - now.free_pages - now.unbacked_pages
    };
    let before = in_use();
    for (first, count) in [(2010, 6), (2013 - 20, 180), (2012, 1 + 192)] {
        a.write(first, &vec![2; 8 * count]).expect("writes");
        assert_eq!(in_use(), before, "{count} elements from {first}");
    }
    a.write(2013 - 192, &[3; 8 * 384]).expect("writes");
    assert_eq!(in_use(), before + 1, "a log of more words than the slot has room for");
}

fn main() {
    support::main(&[
        ("slices_among_all_other_changes", slices_among_all_other_changes),
        ("slices_without_room", slices_without_room),
        ("short_slices_over_a_border_take_no_memory", short_slices_over_a_border_take_no_memory),
    ]);
}
