//! What a death has left, judged by another process.

use crate::cases::*;
use crate::support_processes::{Child, End, Scratch, Shared, fork};
use netshm::{Error, HashTable, ManageOptions, Name, OpenOptions};
use std::path::Path;

pub(crate) fn read_all(t: &HashTable) -> Model {
    let mut model = Model::new();
    for binding in t.iter() {
        let (key, value) = binding.expect("reads");
        model.entry(key).or_default().insert(0, value);
    }
    model
}

pub(crate) struct Judge<'a> {
    pub(crate) what: String,
    pub(crate) before: &'a Model,
    pub(crate) after: &'a Model,
    pub(crate) keys: &'a [Bytes],
    /// Does what a reader without recovery finds belong to one of the models? Not where an earlier death
    /// has left a committed group that nobody has brought to its end.
    pub(crate) readable: bool,
}

pub(crate) const BEFORE: u64 = 1;
pub(crate) const AFTER: u64 = 2;

impl Judge<'_> {
    /// In a process of its own: what a dead writer has left.
    pub(crate) fn judge(&self, name: &Name) -> u64 {
        let newest = |model: &Model, key: &Bytes| model.get(key).and_then(|v| v.last().cloned());
        // A reader that cannot recover sees the old or the new value, or gives up in time.
        let reader = OpenOptions::new().read_only(true).open(name).expect("opens read-only");
        match HashTable::manage(&reader, ManageOptions::new().lock_timeout_ms(5)) {
            Ok(reader) => {
                for key in self.keys.iter().filter(|_| self.readable) {
                    match reader.find(key) {
                        Ok(found) => assert!(
                            found == newest(self.before, key) || found == newest(self.after, key),
                            "{}: a reader found {found:?}",
                            self.what
                        ),
                        Err(e) => assert!(matches!(e, Error::Timeout { .. }), "{}: {e}", self.what),
                    }
                }
            }
            Err(e) => assert!(matches!(e, Error::Timeout { .. }), "{}: {e}", self.what),
        }
        drop(reader);
        let object = OpenOptions::new().open(name).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        // Together, in a group: a walk alone is no snapshot, and may meet one key before, another one after
        // the dead writer's group is brought to its end.
        let together = || self.keys.iter().map(|key| t.find(key)).collect::<Result<Vec<_>, Error>>();
        let seen = t.table().group_retry(None, together).expect("finds");
        let found = read_all(&t);
        let verdict = if found == *self.before {
            BEFORE
        } else if found == *self.after {
            AFTER
        } else {
            panic!("{}: neither before nor after: {found:?}", self.what);
        };
        let expected: Vec<_> = self.keys.iter().map(|key| newest(&found, key)).collect();
        assert_eq!(seen, expected, "{}: what a group sees first, and what is there then", self.what);
        assert_eq!(t.len().expect("counts"), found.values().map(|v| v.len() as u64).sum::<u64>());
        for (key, stack) in &found {
            let all: Vec<Bytes> = stack.iter().rev().cloned().collect();
            assert_eq!(t.find_all(key).expect("finds"), all, "{}", self.what);
        }
        let check = |when: &str| {
            let mut findings = Vec::new();
            let summary = object.check(|f| {
                findings.push(f);
                true
            });
            let summary = summary.unwrap_or_else(|e| panic!("{}, {when}: {e}: {findings:?}", self.what));
            assert!(summary.complete && summary.slots_active == 1, "{}, {when}: {summary:?}", self.what);
        };
        check("recovered");
        for key in self.keys {
            t.replace(key, b"judge").expect("replaces");
            t.add(key, &[7; 100]).expect("adds");
            assert!(t.remove(key).expect("removes"));
            assert_eq!(t.find(key).expect("finds").as_deref(), Some(&b"judge"[..]));
        }
        check("used");
        verdict
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
pub(crate) fn judge_all(case: &Case, images: &[Bytes], before: &Model, after: &Model) -> Vec<u64> {
    let shared = Shared::new(images.len());
    let keys = case.op.keys();
    let judge = |i: usize| {
        let s = Scratch::file(Path::new("/dev/shm"), "step-judge");
        std::fs::write(path_of(&s), &images[i]).expect("writes");
        let what = format!("{}, image {i} of {}", case.name, images.len());
        let judge = Judge { what, before, after, keys: &keys, readable: case.name != "recovery" };
        let name = s.0.clone();
        let child = fork(10, || shared.set(i, judge.judge(&name)));
        (s, child)
    };
    let mut running = std::collections::VecDeque::new();
    let end = |(i, _scratch, child): (usize, Scratch, Child)| {
        let end = child.wait();
        if end != End::Exit(0) {
            let changed = if i == 0 { Vec::new() } else { differences(&images[i - 1], &images[i]) };
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

pub(crate) fn models(case: &Case) -> (Model, Model) {
    let mut before = case.model.clone();
    case.warm.iter().for_each(|op| op.on_model(&mut before));
    let mut after = before.clone();
    case.op.on_model(&mut after);
    (before, after)
}
