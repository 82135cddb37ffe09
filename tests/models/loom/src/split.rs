//! Split against reading: a find that begins at the bucket or at its partner, while the bucket is split and something is
//! added to it.
//!
//! Repeats `fast_split::split` (lookup, the two compare-and-swaps, `DirectLog::commit`, the releases), `find::attempt`
//! with `level_of` and `ancestor`, and of the one who adds, `find::quick_lookup` and `fast::{lock, write, conclude}`. The gate is
//! left to its own model.
//!
//! The promise: a key that is bound all the time is always found, wherever one begins to look; a key that was found
//! once is found again; what was added while the split read is not lost by it.

use crate::format::SlotIndex;
use crate::format::lock_word::{LockWord, WRITING};
use crate::locks::Lock;
use crate::memory::{Word, fence_acquire, fence_after_exchange, fence_release};
use crate::run::{Model, has};
use loom::sync::Arc;
use loom::thread;

/// Entries of a bucket here.
const ENTRIES: usize = 2;

/// A bucket: its lock, entries (a key, or 0), and 1 more than its level (0: unborn).
struct Bucket {
    lock: Lock,
    entries: [Word; ENTRIES],
    level: Word,
}

impl Bucket {
    fn new(level: u64, keys: [u64; ENTRIES]) -> Bucket {
        Bucket { lock: Lock::new(1 << 20), entries: keys.map(Word::new), level: Word::new(level) }
    }
}

type Table = [Bucket; 2];

const SPLITTER: SlotIndex = SlotIndex(1);
const ADDER: SlotIndex = SlotIndex(2);

/// Keys are their own hashes. `MOVES` is there from the beginning, `ADDED` comes, and goes the same way.
const MOVES: u64 = 3;
const ADDED: u64 = 5;

/// Where a key was looked for at last: the bucket, its word, and whether the key is there.
struct Sight {
    bucket: usize,
    word: LockWord,
    found: bool,
}

/// `find::attempt` without its end.
fn look(table: &Table, key: u64, hint: usize) -> Option<Sight> {
    let mut index = hint;
    for _ in 0..4 {
        let bucket = &table[index];
        let word = bucket.lock.word.lock_word_acquire();
        if word.is_writing() {
            return None;
        }
        if bucket.entries.iter().any(|entry| entry.load() == key) {
            return Some(Sight { bucket: index, word, found: true });
        }
        let home = match bucket.level.load() {
            // Unborn: the ancestor.
            0 if !has("no-route") => {
                index = 0;
                continue;
            }
            level => (key & ((1 << level.saturating_sub(1)) - 1)) as usize,
        };
        if home == index || has("no-route") {
            return Some(Sight { bucket: index, word, found: false });
        }
        index = home;
    }
    None
}

/// A find: none if it has to be tried again.
fn find(table: &Table, key: u64, hint: usize) -> Option<bool> {
    let sight = look(table, key, hint)?;
    fence_acquire();
    let now = table[sight.bucket].lock.word.lock_word();
    (sight.word.unchanged_for_readers(now) || has("no-validation")).then_some(sight.found)
}

/// Splits bucket 0, of level 0, as `fast_split::split`. False: something has changed meanwhile.
fn split(table: &Table) -> bool {
    let [home, partner] = table;
    let words = [home.lock.word.lock_word_acquire(), partner.lock.word.lock_word_acquire()];
    if words.iter().any(|word| !word.is_free()) {
        return false;
    }
    let keys = home.entries.each_ref().map(Word::load);
    let share = |bit: u64| keys.map(|key| if key & 1 == bit { key } else { 0 });
    let (kept, moved) = (share(0), share(1));
    let mark =
        |bucket: usize| if has("no-mark") || (bucket == 1 && has("partner-unmarked")) { 0 } else { WRITING };
    let mine = [0, 1].map(|n| words[n].locked_by(SPLITTER, mark(n)));
    let take = |n: usize| {
        let seen = if has("no-proof") { table[n].lock.word.lock_word() } else { words[n] };
        seen.is_free()
            && table[n].lock.word.compare_exchange(seen.0, seen.locked_by(SPLITTER, mark(n)).0).is_ok()
    };
    let locked = take(0) && take(1);
    if locked {
        fence_after_exchange();
        fence_release();
        for (bucket, keys) in [(home, kept), (partner, moved)] {
            for (entry, key) in bucket.entries.iter().zip(keys) {
                entry.store(key);
            }
            bucket.level.store(2);
        }
    }
    for n in [0, 1] {
        table[n].lock.release_from(mine[n]);
    }
    locked
}

/// Adds a key by the short way. False: somebody was in the way.
fn add(table: &Table, key: u64) -> bool {
    let Some(sight) = look(table, key, 0) else { return false };
    let bucket = &table[sight.bucket];
    let hole = bucket.entries.iter().find(|entry| entry.load() == 0);
    let Some(hole) = hole.filter(|_| !sight.found && sight.word.is_free()) else { return false };
    let mine = sight.word.locked_by(ADDER, WRITING);
    if bucket.lock.word.compare_exchange(sight.word.0, mine.0).is_err() {
        return false;
    }
    fence_release();
    hole.store(key);
    bucket.lock.release_from(mine);
    true
}

fn finding() {
    let table: Arc<Table> = Arc::new([Bucket::new(1, [2, MOVES]), Bucket::new(0, [0; ENTRIES])]);
    let splitter = {
        let table = table.clone();
        thread::spawn(move || assert!(split(&table)))
    };
    for hint in [1, 0] {
        let found = find(&table, MOVES, hint);
        assert_ne!(found, Some(false), "a key that is bound all the time is not found");
    }
    splitter.join().unwrap();
    for (key, hint) in [(2, 0), (2, 1), (MOVES, 0), (MOVES, 1)] {
        assert_eq!(find(&table, key, hint), Some(true), "a key is lost");
    }
}

fn adding() {
    let table: Arc<Table> = Arc::new([Bucket::new(1, [0, MOVES]), Bucket::new(0, [0; ENTRIES])]);
    let others: [fn(&Table) -> bool; 2] = [split, |table| add(table, ADDED)];
    let others = others.map(|other| {
        let table = table.clone();
        thread::spawn(move || other(&table))
    });
    let mut before = false;
    if let Some(found) = find(&table, ADDED, 1) {
        before = found;
    }
    let [_, added] = others.map(|other| other.join().unwrap());
    for hint in [0, 1] {
        assert_eq!(find(&table, MOVES, hint), Some(true), "a key is lost");
        assert_eq!(find(&table, ADDED, hint), Some(added), "what was added is lost");
    }
    assert!(added || !before, "what nobody has added is found");
}

pub fn models() -> Vec<Model> {
    vec![
        Model {
            name: "split",
            about: "finds that begin at the bucket and at its partner, and its split",
            body: finding,
            preemptions: Some(2),
            faults: &[
                "no-validation",
                "no-acquire-fence",
                "no-mark",
                "partner-unmarked",
                "no-route",
                "relaxed-load",
                "no-bump",
            ],
        },
        Model {
            name: "split-and-add",
            about: "the same with one who adds a key that moves",
            body: adding,
            preemptions: Some(1),
            faults: &["no-proof"],
        },
    ]
}
