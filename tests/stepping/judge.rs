//! What a death has left, judged by another process.

use crate::cases::*;
use crate::model::*;
use crate::ops::*;
use crate::support_processes::{Child, End, Scratch, Shared, fork};
use crate::trail::Image;
use netshm::{
    Array, Error, HashTable, ManageOptions, Name, Object, OpenOptions, PrimitiveTable, Result, TypedHashTable,
};
use std::path::Path;

/// An object's tables.
struct Faces {
    object: Object,
    bytes: HashTable,
    typed: Option<TypedHashTable<String, Typed>>,
    words: Option<PrimitiveTable>,
    numbers: Option<Array>,
}

impl Faces {
    /// Views the tables that a model has.
    fn open(object: Object, options: &ManageOptions, model: &Model) -> Result<Faces> {
        let named = |root: &str| options.clone().root(root).clone();
        let bytes = HashTable::manage(&object, options)?;
        let typed = model.typed.as_ref().map(|_| TypedHashTable::manage(&object, &named("typed")));
        let words = model.words.as_ref().map(|_| PrimitiveTable::manage(&object, &named("words")));
        let numbers = model.numbers.as_ref().map(|_| Array::manage_i64(&object, 7, 7, &named("numbers")));
        let (typed, words, numbers) = (typed.transpose()?, words.transpose()?, numbers.transpose()?);
        Ok(Faces { object, bytes, typed, words, numbers })
    }

    fn typed(&self) -> &TypedHashTable<String, Typed> {
        self.typed.as_ref().expect("there is one")
    }

    fn words(&self) -> &PrimitiveTable {
        self.words.as_ref().expect("there is one")
    }

    fn numbers(&self) -> &Array {
        self.numbers.as_ref().expect("there is one")
    }

    /// What is there, as [`Spot::on_model`] tells it.
    fn look(&self, spot: &Spot) -> Result<String> {
        Ok(match spot {
            Spot::Bytes(key) => format!("{:?}", self.bytes.find(key)?),
            Spot::Typed(key) => format!("{:?}", self.typed().find(key.as_str())?),
            Spot::Words(key) => format!("{:?}", self.words().find(*key)?),
            Spot::Numbers(first, count) => {
                let mut slice = vec![0; 8 * *count as usize];
                let inside = match self.numbers().read(*first, &mut slice) {
                    Err(Error::Range) => false,
                    read => read.map(|()| true)?,
                };
                format!("{:?}", inside.then(|| slice.chunks(8).map(number).collect::<Vec<_>>()))
            }
            Spot::More => {
                let tables = self.object.tables()?;
                format!("{:?}", tables.iter().any(|table| table.name.as_deref() == Some("more")))
            }
        })
    }

    /// Everything; also the tables that nobody knows of.
    fn read_all(&self) -> Model {
        let mut model = Model { bytes: stacks(self.bytes.iter()), ..Model::default() };
        for table in self.object.tables().expect("lists") {
            match table.name.as_deref() {
                None => {}
                Some("typed") => model.typed = Some(stacks(self.typed().iter())),
                Some("words") => model.words = Some(stacks(self.words().iter())),
                Some("numbers") => {
                    let set = self.numbers().iter().map(|element| element.expect("reads"));
                    let set = set.map(|(i, bytes)| (i, number(&bytes))).collect();
                    model.numbers = Some(Numbers { length: self.numbers().length().expect("has one"), set });
                }
                Some("more") => {
                    let more = HashTable::manage(&self.object, ManageOptions::new().root("more"));
                    model.more = Some(stacks(more.expect("is a table").iter()));
                }
                Some(other) => panic!("a table named {other:?}"),
            }
        }
        model
    }

    /// Counts and lists agree with what walks have found.
    fn agrees_with(&self, found: &Model, what: &str) {
        assert_eq!(self.bytes.len().expect("counts"), count(&found.bytes), "{what}");
        for (key, stack) in &found.bytes {
            assert_eq!(self.bytes.find_all(key).expect("finds"), newest_first(stack), "{what}");
        }
        if let Some(stacks) = &found.typed {
            assert_eq!(self.typed().len().expect("counts"), count(stacks), "{what}");
            for (key, stack) in stacks {
                assert_eq!(
                    self.typed().find_all(key.as_str()).expect("finds"),
                    newest_first(stack),
                    "{what}"
                );
            }
        }
        if let Some(stacks) = &found.words {
            assert_eq!(self.words().len().expect("counts"), count(stacks), "{what}");
            for (key, stack) in stacks {
                assert_eq!(self.words().find_all(*key).expect("finds"), newest_first(stack), "{what}");
            }
        }
        if let Some(numbers) = &found.numbers {
            for chunk in 0..numbers.length.min(LENGTH).div_ceil(CHUNK) {
                let (first, end) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(numbers.length));
                let mut slice = vec![0; 8 * (end - first) as usize];
                self.numbers().read(first, &mut slice).expect("reads");
                let all = slice.chunks(8).map(number);
                assert!(all.eq((first..end).map(|i| numbers.get(i))), "{what}: chunk {chunk}");
            }
        }
    }

    /// Changes what the dead process has changed.
    fn go_on(&self, spot: &Spot) {
        match spot {
            Spot::Bytes(key) => {
                let t = &self.bytes;
                t.replace(key, b"judge").expect("replaces");
                t.add(key, &[7; 100]).expect("adds");
                assert!(t.remove(key).expect("removes"));
                assert_eq!(t.find(key).expect("finds").as_deref(), Some(&b"judge"[..]));
            }
            Spot::Typed(key) => {
                let (t, key) = (self.typed(), key.as_str());
                t.replace(key, &(1, None)).expect("replaces");
                t.add(key, &(2, Some("judge".repeat(20)))).expect("adds");
                assert!(t.remove(key).expect("removes"));
                assert_eq!(t.find(key).expect("finds"), Some((1, None)));
            }
            Spot::Words(key) => {
                let (t, key) = (self.words(), *key);
                t.replace(key, &[1, 2]).expect("replaces");
                t.add(key, &[7; 30]).expect("adds");
                assert!(t.remove(key).expect("removes"));
                assert_eq!(t.find(key).expect("finds"), Some(vec![1, 2]));
            }
            Spot::Numbers(first, _) => {
                let a = self.numbers();
                a.resize(2 * LENGTH).expect("resizes");
                a.set_i64(*first, 5).expect("sets");
                a.write(*first + 1, &6i64.to_le_bytes().repeat(300)).expect("writes");
                let mut slice = vec![0; 16];
                a.read(*first, &mut slice).expect("reads");
                assert!(slice.chunks(8).map(number).eq([5, 6]));
            }
            Spot::More => {
                let more =
                    HashTable::manage(&self.object, ManageOptions::new().root("more")).expect("manages");
                more.replace(b"judge", b"judge").expect("replaces");
                assert_eq!(more.find(b"judge").expect("finds").as_deref(), Some(&b"judge"[..]));
                self.object.drop_table("more").expect("drops");
            }
        }
    }
}

fn number(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("has 8 bytes"))
}

fn count<K, V>(stacks: &Stacks<K, V>) -> u64 {
    stacks.values().map(|stack| stack.len() as u64).sum()
}

fn newest_first<V: Clone>(stack: &[V]) -> Vec<V> {
    stack.iter().rev().cloned().collect()
}

fn stacks<K: Ord, V>(bindings: impl Iterator<Item = Result<(K, V)>>) -> Stacks<K, V> {
    let mut stacks = Stacks::new();
    for binding in bindings {
        let (key, value) = binding.expect("reads");
        stacks.entry(key).or_insert_with(Vec::new).insert(0, value);
    }
    stacks
}

pub(crate) struct Judge<'a> {
    pub(crate) what: String,
    /// What there may be: before, after, and between where an operation is several changes.
    pub(crate) states: &'a [Model],
    pub(crate) spots: &'a [Spot],
    /// Does what a reader without recovery finds belong to one of the states? Not where an earlier death
    /// has left a committed group that nobody has brought to its end.
    pub(crate) readable: bool,
    /// Processes that still use the object.
    pub(crate) others: u64,
}

/// The first state; the others follow.
pub(crate) const BEFORE: u64 = 1;

impl Judge<'_> {
    /// In a process of its own: which state a dead writer has left.
    pub(crate) fn judge(&self, name: &Name) -> u64 {
        // A reader that cannot recover sees a value of one of the states, or gives up in time.
        let reader = OpenOptions::new().read_only(true).open(name).expect("opens read-only");
        match Faces::open(reader, ManageOptions::new().lock_timeout_ms(5), &self.states[0]) {
            Ok(reader) => {
                for spot in self.spots.iter().filter(|_| self.readable) {
                    match reader.look(spot) {
                        Ok(found) => assert!(
                            self.states.iter().any(|state| spot.on_model(state) == found),
                            "{}: a reader found {found} at {spot:?}",
                            self.what
                        ),
                        Err(e) => assert!(matches!(e, Error::Timeout { .. }), "{}: {e}", self.what),
                    }
                }
            }
            Err(e) => assert!(matches!(e, Error::Timeout { .. }), "{}: {e}", self.what),
        }
        let object = OpenOptions::new().open(name).expect("opens");
        let faces = Faces::open(object, &ManageOptions::new(), &self.states[0]).expect("manages");
        // Together, in a group: a walk alone is no snapshot, and may meet one key before, another one after
        // the dead writer's group is brought to its end.
        let spots = || self.spots.iter().filter(|spot| !matches!(spot, Spot::More));
        let together = || spots().map(|spot| faces.look(spot)).collect::<Result<Vec<_>>>();
        let seen = faces.bytes.table().group_retry(None, together).expect("finds");
        let found = faces.read_all();
        let state = self.states.iter().position(|state| *state == found);
        let state = state.unwrap_or_else(|| panic!("{}: neither before nor after: {found:?}", self.what));
        let expected: Vec<_> = spots().map(|spot| spot.on_model(&found)).collect();
        assert_eq!(seen, expected, "{}: what a group sees first, and what is there then", self.what);
        faces.agrees_with(&found, &self.what);
        let check = |when: &str| {
            let mut findings = Vec::new();
            let summary = faces.object.check(|f| {
                findings.push(f);
                true
            });
            let summary = summary.unwrap_or_else(|e| panic!("{}, {when}: {e}: {findings:?}", self.what));
            let slots = 1..=1 + self.others;
            assert!(
                summary.complete && slots.contains(&summary.slots_active),
                "{}, {when}: {summary:?}",
                self.what
            );
        };
        check("recovered");
        self.spots.iter().for_each(|spot| faces.go_on(spot));
        check("used");
        BEFORE + state as u64
    }
}

/// The words in which two images differ.
pub(crate) fn differences(old: &[u8], new: &[u8]) -> Vec<String> {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let pairs = old.chunks(8).zip(new.chunks(8)).enumerate();
    let changed = pairs.filter(|(_, (old, new))| old != new);
    changed.map(|(i, (old, new))| format!("{:#x}: {:#x} -> {:#x}", 8 * i, word(old), word(new))).collect()
}

/// Judges images by two processes at a time; gives what each one shows.
pub(crate) fn judge_all(case: &Case, images: &[Image], states: &[Model]) -> Vec<u64> {
    let shared = Shared::new(images.len());
    let spots = case.op.spots();
    let judge = |i: usize| {
        let s = Scratch::file(Path::new("/dev/shm"), "step-judge");
        std::fs::write(path_of(&s), images[i].bytes()).expect("writes");
        let what = format!("{}, image {i} of {}", case.name, images.len());
        let judge = Judge { what, states, spots: &spots, readable: case.name != "recovery", others: 0 };
        let name = s.0.clone();
        let child = fork(10, || shared.set(i, judge.judge(&name)));
        (s, child)
    };
    let mut running = std::collections::VecDeque::new();
    let end = |(i, _scratch, child): (usize, Scratch, Child)| {
        let end = child.wait();
        if end != End::Exit(0) {
            let changed =
                if i == 0 { Vec::new() } else { differences(&images[i - 1].bytes(), &images[i].bytes()) };
            panic!("{}, image {i}: {end:?}; the instruction changed {}", case.name, changed.join(", "));
        }
    };
    for i in 0..images.len() {
        if running.len() == 2 {
            end(running.pop_front().expect("runs"));
        }
        let (scratch, child) = judge(i);
        running.push_back((i, scratch, child));
    }
    running.into_iter().for_each(end);
    (0..images.len()).map(|i| shared.get(i)).collect()
}

/// What there may be when a case's operation was cut off.
pub(crate) fn states(case: &Case) -> Vec<Model> {
    let mut before = case.model.clone();
    case.warm.iter().for_each(|op| op.on_model(&mut before));
    case.op.states(&before)
}
