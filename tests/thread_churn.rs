//! Goal: every thread has a session that no other one works in at the same time, and gives it back, however threads come and go,
//! numbers of threads are used again, and groups move.
//!
//! Method: thousands of short threads, more at a time than a process has places for those that it finds at once, on two objects.
//! They count, begin groups, end them, leave them to others, or die with them, some from destructors that run late; some fork. What
//! each has done is known.

mod support_processes;

use netshm::{DetachedTransaction, HashTable, ManageOptions, OpenOptions, Transaction};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use support_processes::*;

/// Threads that live at once.
const AT_ONCE: usize = 90;

/// An object with what is to come of it.
struct Place {
    t: HashTable,
    /// Groups that nobody has: any thread may end them.
    nobodys: Mutex<Vec<DetachedTransaction>>,
    begun: AtomicU64,
    committed: AtomicU64,
    /// What the threads have counted, each under a key of its own.
    counted: AtomicU64,
}

impl Place {
    fn new(t: HashTable) -> &'static Place {
        let count = || AtomicU64::new(0);
        let (begun, committed, counted) = (count(), count(), count());
        Box::leak(Box::new(Place { t, nobodys: Mutex::default(), begun, committed, counted }))
    }

    /// Counts outside of groups.
    fn count(&self, key: &[u8]) {
        self.t.increment(key, 1, 0).expect("counts");
        self.counted.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a group with a key of its own.
    fn begin(&self) -> Transaction {
        let group = self.t.table().begin().expect("begins");
        let n = self.begun.fetch_add(1, Ordering::Relaxed);
        let key = format!("group {n}");
        self.t.replace(key.as_bytes(), b"whole").expect("replaces");
        assert_eq!(
            self.t.find(key.as_bytes()).expect("finds").as_deref(),
            Some(&b"whole"[..]),
            "sees its own"
        );
        group
    }

    fn commit(&self, group: Transaction) {
        group.commit().expect("commits");
        self.committed.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self, group: Transaction) {
        let group = group.detach().expect("detaches");
        self.nobodys.lock().expect("is whole").push(group);
    }

    /// Ends a group that nobody has, if there is one.
    fn end_anothers(&self, commit: bool) {
        let Some(group) = self.nobodys.lock().expect("is whole").pop() else { return };
        if commit {
            self.commit(group.attach().expect("attaches"));
        }
    }
}

type Late = Box<dyn FnOnce()>;

/// What a thread does when it ends.
struct AtEnd(RefCell<Vec<Late>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|late| late());
    }
}

thread_local! {
    static BEFORE: AtEnd = const { AtEnd(RefCell::new(Vec::new())) };
    static AFTER: AtEnd = const { AtEnd(RefCell::new(Vec::new())) };
    static GROUP: Cell<Option<Transaction>> = const { Cell::new(None) };
}

/// A thread's life: some steps, and an end.
fn live(places: [&'static Place; 2], seed: u64) {
    let mut random = Random(seed);
    let late = random.below(4) == 0;
    if late {
        // Before the library's own, so that it is destroyed after that.
        BEFORE.with(|end| end.0.borrow_mut().push(Box::new(move || end_with(places, seed))));
    }
    if random.below(2) == 0 {
        GROUP.with(|_| {});
    }
    let key = format!("thread {seed}");
    for _ in 0..random.below(12) {
        let place = places[random.below(2) as usize];
        match random.below(12) {
            0..5 => place.count(key.as_bytes()),
            5 => place.leave(place.begin()),
            6 | 7 => place.end_anothers(random.below(3) != 0),
            8 => {
                let group = place.begin();
                // The other object is not part of it.
                let other = places[usize::from(std::ptr::eq(place, places[0]))];
                other.count(key.as_bytes());
                place.commit(group);
            }
            9 => drop(place.begin()),
            10 => {
                let group = place.begin();
                let inner = place.t.table().begin().expect("begins");
                place.t.replace(format!("never {seed}").as_bytes(), b"1").expect("replaces");
                inner.abort().expect("aborts");
                place.commit(group);
            }
            _ => place.commit(place.begin()),
        }
    }
    match random.below(6) {
        0 if !late => AFTER.with(|end| end.0.borrow_mut().push(Box::new(move || end_with(places, seed)))),
        1 => {
            // The end of the thread rolls it back, sooner or later.
            GROUP.set(Some(places[0].begin()));
        }
        2 => {
            let place = places[1];
            let child = fork(30, || {
                let t = &place.t;
                t.increment(b"children", 1, 0).expect("counts");
                let group = t.table().begin().expect("begins");
                t.increment(b"children", 1, 0).expect("counts");
                group.commit().expect("commits");
            });
            child.succeeds();
        }
        _ => {}
    }
}

/// What comes late.
fn end_with(places: [&'static Place; 2], seed: u64) {
    let key = format!("late {seed}");
    for place in places {
        if let Some(group) = GROUP.try_with(Cell::take).ok().flatten() {
            drop(group);
        }
        place.count(key.as_bytes());
        place.end_anothers(seed % 3 != 0);
        place.commit(place.begin());
        place.leave(place.begin());
        place.count(key.as_bytes());
    }
}

#[test]
fn no_two_threads_are_in_one_session_and_all_give_theirs_back() {
    let _alone = alone();
    let scratches = [Scratch::posix("churn-one"), Scratch::posix("churn-two")];
    let threads = if long_form() { 60_000 } else { 8000 };
    stage(if long_form() { 1200 } else { 100 }, || {
        let places = scratches.each_ref().map(|s| {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            Place::new(HashTable::manage(&object, ManageOptions::new().expected(1 << 17)).expect("manages"))
        });
        let (ended, ends) = mpsc::channel();
        let mut living = std::collections::HashMap::new();
        for seed in 0..threads {
            let ended = ended.clone();
            let thread = move || {
                live(places, seed);
                // What comes late comes after this; joining waits for it.
                ended.send(seed).expect("is waited for");
            };
            living.insert(seed, std::thread::spawn(thread));
            while living.len() >= AT_ONCE {
                if let Ok(ended) = ends.recv_timeout(std::time::Duration::from_millis(1)) {
                    living.remove(&ended).expect("lives").join().expect("no panic");
                }
                // Somebody may wait for them.
                places.iter().for_each(|place| place.end_anothers(seed % 2 == 0));
            }
        }
        while !living.is_empty() {
            if let Ok(ended) = ends.recv_timeout(std::time::Duration::from_millis(1)) {
                living.remove(&ended).expect("lives").join().expect("no panic");
            }
            places.iter().for_each(|place| place.end_anothers(true));
        }
        for (place, s) in places.iter().zip(&scratches) {
            while !place.nobodys.lock().expect("is whole").is_empty() {
                place.end_anothers(true);
            }
            let (mut groups, mut counted) = (0, 0);
            for binding in place.t.iter() {
                let (key, value) = binding.expect("iterates");
                match &key[..] {
                    key if key.starts_with(b"group ") => groups += u64::from(value == b"whole"),
                    b"children" => {}
                    key if key.starts_with(b"never") => panic!("what was undone is there"),
                    _ => counted += u64::from_le_bytes(value.try_into().expect("is a number")),
                }
            }
            assert_eq!(groups, place.committed.load(Ordering::Relaxed), "groups");
            assert_eq!(counted, place.counted.load(Ordering::Relaxed), "counted");
            let summary = check(&s.0);
            say(&format!(
                "{groups} groups, {counted} counted, {} slots, {} active\n",
                summary.slots, summary.slots_active
            ));
            assert!(summary.slots_active <= AT_ONCE as u64 + 40, "{summary:?}");
        }
    });
    for s in &scratches {
        check(&s.0);
    }
}
