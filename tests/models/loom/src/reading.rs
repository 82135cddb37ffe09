//! Reading against writing: a find meets a writer of the same bucket, and a record whose memory is used anew.
//!
//! Repeats `find::quick_lookup`, `Sight::is_valid` (and `find::{attempt, finish}`, which do the same), `fast::{lock, write,
//! overwrite, conclude}`, `fast::{remove, bind_new}` with `ops::fill_record`, `fast_update::update` with `in_group::lock` and
//! `overwrite_locked`, and, of a group that changes one word, `Writer::commit_sealed`.
//!
//! The promise: what a find gives was, as a whole, bound to its key at one moment, and nobody sees a value go back; nobody's
//! change is lost.

use crate::format::SlotIndex;
use crate::format::lock_word::{LockWord, WRITING};
use crate::locks::Lock;
use crate::memory::{Word, fence_acquire, fence_release};
use crate::run::{Model, has};
use loom::sync::Arc;
use loom::thread;

const COMMITTED: u64 = 1;
const APPLIED: u64 = 2;
const IDLE: u64 = 0;

/// A bucket with one entry.
struct Bucket {
    lock: Lock,
    entry: Word,
}

/// A record: its key, and a value of two words.
struct Record {
    key: Word,
    value: [Word; 2],
}

struct Object {
    buckets: [Bucket; 2],
    records: [Record; 1],
    commit: [Word; 2],
}

const ONE: u64 = 1 << 20;

impl Object {
    /// The key 1 is bound to the value (10, 10) in record 1 (entries count from 1), by bucket 0.
    fn new() -> Arc<Object> {
        let bucket = |entry| Bucket { lock: Lock::new(ONE), entry: Word::new(entry) };
        Arc::new(Object {
            buckets: [bucket(1), bucket(0)],
            records: [Record { key: Word::new(1), value: [Word::new(10), Word::new(10)] }],
            commit: [Word::new(IDLE), Word::new(IDLE)],
        })
    }

    /// A find without a lock: none if it has to try again; else the value, if there is one.
    fn find(&self, bucket: usize, key: u64) -> Option<Option<[u64; 2]>> {
        let bucket = &self.buckets[bucket];
        let word = bucket.lock.word.lock_word_acquire();
        if word.is_writing() {
            return None;
        }
        let mut found = None;
        let entry = bucket.entry.load();
        if entry != 0 {
            let record = &self.records[entry as usize - 1];
            if record.key.load() == key {
                found = Some([record.value[0].load(), record.value[1].load()]);
            }
        }
        fence_acquire();
        let valid = word.unchanged_for_readers(bucket.lock.word.lock_word()) || has("no-validation");
        valid.then_some(found)
    }

    /// What `quick_lookup` has seen of a bucket that is free: its word and the first word of its value.
    fn look(&self) -> Option<(LockWord, u64)> {
        let word = self.buckets[0].lock.word.lock_word_acquire();
        (word.is_free() && !word.is_writing()).then(|| (word, self.records[0].value[0].load()))
    }

    /// Takes a bucket's lock by a compare-and-swap from the word seen.
    fn lock(&self, bucket: usize, slot: u16, seen: LockWord, bits: u64) -> Option<LockWord> {
        let mine = seen.locked_by(SlotIndex(slot), bits);
        self.buckets[bucket].lock.word.compare_exchange(seen.0, mine.0).ok().map(|()| mine)
    }

    fn commit(&self, slot: u16) {
        self.commit[slot as usize - 1].store(COMMITTED);
    }

    /// `fast::conclude`.
    fn conclude(&self, slot: u16, bucket: usize, mine: LockWord) {
        self.commit[slot as usize - 1].store(APPLIED);
        self.buckets[bucket].lock.release_from(mine);
        self.commit[slot as usize - 1].store(IDLE);
    }

    /// `fast::overwrite` by what was seen plus 1. False: somebody else was faster.
    fn overwrite(&self, slot: u16) -> bool {
        let Some((seen, value)) = self.look() else { return false };
        let bits = if has("no-mark") { 0 } else { WRITING };
        let Some(mine) = self.lock(0, slot, seen, bits) else { return false };
        self.commit(slot);
        fence_release();
        self.change(value + 1);
        self.conclude(slot, 0, mine);
        true
    }

    fn change(&self, value: u64) {
        for word in &self.records[0].value {
            word.copy_in(value);
        }
    }

    /// `fast_update::update`, whose callback adds 1: the lock is not marked before its answer is committed.
    fn update(&self, slot: u16) -> bool {
        let Some((seen, _)) = self.look() else { return false };
        let Some(mine) = self.lock(0, slot, seen, 0) else { return false };
        let value = self.records[0].value[0].load();
        self.commit(slot);
        if !has("mark-late") && !has("no-mark") {
            self.buckets[0].lock.mark_writing(SlotIndex(slot));
        }
        fence_release();
        self.change(value + 1);
        if has("mark-late") {
            self.buckets[0].lock.mark_writing(SlotIndex(slot));
        }
        self.commit[slot as usize - 1].store(APPLIED);
        self.buckets[0].lock.release(mine.owner(), true);
        self.commit[slot as usize - 1].store(IDLE);
        true
    }

    /// A group that adds 1 to a value of one word, with `commit_sealed`: no mark.
    fn group_of_one_word(&self, slot: u16) -> bool {
        let word = self.buckets[0].lock.word.lock_word_acquire();
        let Some(mine) = self.lock(0, slot, word, 0).filter(|_| word.is_free()) else { return false };
        let value = self.records[0].value[0].load();
        self.commit(slot);
        fence_release();
        self.records[0].value[0].store(value + 1);
        self.commit[slot as usize - 1].store(APPLIED);
        self.buckets[0].lock.release(mine.owner(), true);
        self.commit[slot as usize - 1].store(IDLE);
        true
    }

    /// `increment_once`: the word that was seen proves the value.
    fn increment(&self, slot: u16) -> bool {
        let Some((seen, value)) = self.look() else { return false };
        let Some(mine) = self.lock(0, slot, seen, WRITING) else { return false };
        self.commit(slot);
        fence_release();
        self.records[0].value[0].store(value + 1);
        self.conclude(slot, 0, mine);
        true
    }
}

fn is_whole(value: [u64; 2]) {
    assert_eq!(value[0], value[1], "a value is read in part as it was, in part as it will be");
}

/// Two finds in a row against a writer.
fn against(write: fn(&Object)) {
    let object = Object::new();
    let writer = {
        let object = object.clone();
        thread::spawn(move || write(&object))
    };
    let mut last = 10;
    for _ in 0..2 {
        if let Some(found) = object.find(0, 1) {
            let value = found.expect("a key that is bound all the time is not found");
            is_whole(value);
            assert!(value[0] >= last, "a value goes back");
            last = value[0];
        }
    }
    writer.join().unwrap();
    let value = object.find(0, 1).expect("at rest").expect("still bound");
    is_whole(value);
    assert_eq!(value[0], 12, "a change is lost");
}

fn overwriting() {
    against(|object| assert!(object.overwrite(1) && object.overwrite(1)));
}

fn updating() {
    against(|object| assert!(object.update(1) && object.overwrite(1)));
}

/// A group's change of one word, an increment and two finds.
fn one_word() {
    let object = Object::new();
    let changers = [1, 2].map(|slot| {
        let object = object.clone();
        thread::spawn(move || if slot == 1 { object.group_of_one_word(1) } else { object.increment(2) })
    });
    let mut last = 10;
    for _ in 0..2 {
        if let Some(Some([value, _])) = object.find(0, 1) {
            assert!(value >= last, "a value goes back");
            last = value;
        }
    }
    let done: u64 = changers.map(|changer| u64::from(changer.join().unwrap())).iter().sum();
    assert_eq!(object.records[0].value[0].load(), 10 + done, "a change is lost");
}

/// A key is removed, and its record's memory is filled for another one, which is bound in another bucket.
fn reuse(find: fn(&Object)) {
    let object = Object::new();
    let writer = {
        let object = object.clone();
        thread::spawn(move || {
            let word = object.buckets[0].lock.word.lock_word_acquire();
            let mine = object.lock(0, 1, word, WRITING).expect("nobody else locks");
            object.commit(1);
            fence_release();
            object.buckets[0].entry.store(0);
            object.conclude(1, 0, mine);

            let word = object.buckets[1].lock.word.lock_word_acquire();
            // `ops::fill_record`. Who frees a record and fills it again has the fence of his commit before that already.
            fence_release();
            let record = &object.records[0];
            // The same key: what is found in the other bucket must not be taken for what was here.
            record.key.copy_in(1);
            record.value.iter().for_each(|word| word.copy_in(20));
            let mine = object.lock(1, 1, word, WRITING).expect("nobody else locks");
            object.commit(1);
            fence_release();
            object.buckets[1].entry.store(1);
            object.conclude(1, 1, mine);
        })
    };
    find(&object);
    find(&object);
    writer.join().unwrap();
}

/// In the bucket that had the key before.
fn reuse_before() {
    reuse(|object| {
        if let Some(Some(value)) = object.find(0, 1) {
            is_whole(value);
            assert_eq!(value[0], 10, "memory that is used anew is read as what it was");
        }
    });
}

/// In the bucket that has it afterwards.
fn reuse_after() {
    reuse(|object| {
        if let Some(Some(value)) = object.find(1, 1) {
            is_whole(value);
            assert_eq!(value[0], 20, "a record is read as it was before it was filled");
        }
    });
}

pub fn models() -> Vec<Model> {
    let seqlock: &[&str] = &[
        "no-acquire-fence",
        "no-release-fence",
        "relaxed-load",
        "relaxed-exchange",
        "no-bump",
        "no-validation",
        "no-mark",
    ];
    vec![
        Model {
            name: "reading",
            about: "two finds against two changes of a value of two words by the short way",
            body: overwriting,
            preemptions: Some(4),
            faults: seqlock,
        },
        Model {
            name: "updating",
            about: "two finds against an update by callback, marked only when it is committed, and a change",
            body: updating,
            preemptions: Some(3),
            faults: &["mark-late", "no-mark", "no-release-fence", "no-bump"],
        },
        Model {
            name: "one-word",
            about: "a group that changes one word without a mark, an increment, two finds",
            body: one_word,
            preemptions: Some(2),
            faults: &["no-bump", "relaxed-exchange"],
        },
        Model {
            name: "reuse",
            about: "a find against the removal of its key, whose record is filled anew and bound in another bucket",
            body: reuse_before,
            preemptions: None,
            faults: &["no-release-fence", "no-acquire-fence"],
        },
        Model {
            name: "reuse-there",
            about: "the same, where it is looked for in the other bucket",
            body: reuse_after,
            preemptions: None,
            faults: &["no-acquire-fence", "relaxed-load"],
        },
    ]
}
