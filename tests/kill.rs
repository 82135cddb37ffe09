//! Goal: processes at work are killed at random moments, again and again, and nothing is lost, half done, stuck or
//! leaked; those who survive hardly notice.
//!
//! Method: four processes work on one object: all kinds of operations on keys of their own, increments of shared
//! counters, transfers between shared accounts. Each operation follows from the seed, the worker and its number.
//! Memory that survives kills holds the number of the operation that has begun, and of the last one that has
//! ended with what the worker's keys hold then. One or several workers are killed at random moments, also while
//! they begin, and begin anew: all operations that had ended must be there, and the one in flight wholly or not at
//! all. At intervals everybody pauses, the checker must find nothing, and all counters and accounts are compared
//! with the workers' books; the object must stop growing. A worker that ends no operation in 10 s is stuck.
//!
//! `NETSHM_KILLS`, or `NETSHM_LONG=1` for 10,000; `NETSHM_SEED` repeats the operations, not the moments.

mod support;

use netshm::{Error, HashTable, ManageOptions, Name, OpenOptions};
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::model::{Actor, Bytes, Op, Outcome, do_on_table};
use support::process::{Child, Exit, Shared, fork, leave, now_ns, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_object_sound, assert_sound};

const WORKERS: usize = 4;
const STUCK: Duration = Duration::from_secs(10);
/// Keys of each worker that hold stacks.
const KEYS: usize = 12;
const DEPTH: usize = 4;
/// Keys of each worker that come and go in order.
const QUEUE: u64 = 300;
const COUNTERS: usize = 3;
const ACCOUNTS: usize = 6;
const OPENING_BALANCE: i64 = 1000;

// What a worker knows: words, so that they can lie in shared memory.
const STACKS: usize = 0;
/// The queue's keys are numbered from the first word on, up to the second.
const QUEUE_FROM: usize = STACKS + KEYS * (DEPTH + 1);
const QUEUE_TO: usize = QUEUE_FROM + 1;
/// Number of the last group that says so.
const MARKER: usize = QUEUE_TO + 1;
/// What this worker has added to counters.
const COUNTED: usize = MARKER + 1;
/// What this worker has moved to accounts.
const MOVED: usize = COUNTED + COUNTERS;
const BOOK: usize = MOVED + ACCOUNTS;

// What lies in shared memory for each worker.
const BEGUN: usize = 0;
const ENDED: usize = 1;
/// When the last operation ended.
const ENDED_AT: usize = 2;
/// Longest time between two ends since the controller has looked.
const PAUSE: usize = 3;
const PARKED: usize = 4;
/// Increments that nobody knows about, for each counter.
const UNCERTAIN: usize = 5;
/// Two books: the one of an even number of operations ended, and of an odd one.
const BOOKS: usize = UNCERTAIN + COUNTERS;
const PER_WORKER: usize = BOOKS + 2 * BOOK;
/// The controller's words come after those of the workers.
const PARK: usize = WORKERS * PER_WORKER;
const END: usize = PARK + 1;
const ALL: usize = END + 1;

/// What a worker has done so far.
#[derive(Clone, PartialEq)]
struct Book([u64; BOOK]);

impl Book {
    fn depth(&self, key: usize) -> usize {
        self.0[STACKS + key * (DEPTH + 1)] as usize
    }

    /// The tags of a key's values, oldest first.
    fn stack(&self, key: usize) -> &[u64] {
        let from = STACKS + key * (DEPTH + 1) + 1;
        &self.0[from..from + self.depth(key)]
    }

    fn push(&mut self, key: usize, tag: u64) {
        let at = STACKS + key * (DEPTH + 1);
        self.0[at] += 1;
        self.0[at + self.0[at] as usize] = tag;
    }

    fn pop(&mut self, key: usize) -> bool {
        let had = self.depth(key) > 0;
        if had {
            self.0[STACKS + key * (DEPTH + 1)] -= 1;
        }
        had
    }

    fn add(&mut self, word: usize, delta: i64) {
        self.0[word] = self.0[word].wrapping_add_signed(delta);
    }
}

/// What a worker does.
#[derive(Debug, Clone)]
enum Step {
    /// On one of the worker's own keys.
    Own(Change),
    /// Several of these in a group; those of the second list in a nested one that is aborted.
    Bundle(Vec<Change>, Vec<Change>),
    Aborted(Vec<Change>),
    Enqueue,
    Dequeue,
    /// An increment, in a group with the marker or on its own.
    Count(usize, bool),
    /// In a group with the marker.
    Transfer {
        from: usize,
        to: usize,
        amount: i64,
    },
    /// Adds up the accounts, in a group.
    Audit,
    Length,
    Iterate,
    Check,
    Reopen,
}

#[derive(Debug, Clone)]
struct Change {
    key: usize,
    how: How,
    tag: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Add,
    Replace,
    Insert,
    Remove,
    Update,
    UpdateAway,
    Compare,
    Touch,
}

impl Change {
    fn random(random: &mut Random, tag: u64) -> Change {
        use How::*;
        let hows = [
            Add, Add, Add, Replace, Replace, Replace, Insert, Remove, Remove, Update, UpdateAway, Compare,
            Touch,
        ];
        Change { key: random.below(KEYS as u64) as usize, how: *random.one_of(&hows), tag }
    }

    /// The operation, and what it gives. Changes the book.
    fn enter(&self, worker: usize, book: &mut Book) -> (Op, Outcome) {
        let (k, v) = (own_key(worker, self.key), value(worker, self.tag));
        let newest = book.stack(self.key).last().copied();
        let set = |book: &mut Book| {
            book.pop(self.key);
            book.push(self.key, self.tag);
        };
        match self.how {
            How::Add if book.depth(self.key) < DEPTH => {
                book.push(self.key, self.tag);
                (Op::Add(k, v), Outcome::Done)
            }
            How::Add | How::Replace => {
                set(book);
                (Op::Replace(k, v), Outcome::Done)
            }
            How::Insert if newest.is_some() => (Op::Insert(k, v), Outcome::Failed(Error::Exists)),
            How::Insert => {
                set(book);
                (Op::Insert(k, v), Outcome::Done)
            }
            How::Remove => (Op::Remove(k), Outcome::Found(book.pop(self.key))),
            How::Update => {
                set(book);
                (Op::Update(k, Some(v)), Outcome::Done)
            }
            How::UpdateAway => {
                book.pop(self.key);
                (Op::Update(k, None), Outcome::Done)
            }
            How::Compare => match newest {
                None => (Op::CompareAndReplace(k, v.clone(), v), Outcome::Failed(Error::NotFound)),
                Some(old) => {
                    set(book);
                    (Op::CompareAndReplace(k, value(worker, old), v), Outcome::Done)
                }
            },
            How::Touch => (Op::Touch(k), Outcome::Done),
        }
    }
}

fn own_key(worker: usize, key: usize) -> Bytes {
    format!("worker {worker} key {key}").into_bytes()
}

fn queue_key(worker: usize, n: u64) -> Bytes {
    format!("worker {worker} queue {n}").into_bytes()
}

fn marker_key(worker: usize) -> Bytes {
    format!("worker {worker} marker").into_bytes()
}

fn counter_key(n: usize) -> Bytes {
    format!("counter {n}").into_bytes()
}

fn account_key(n: usize) -> Bytes {
    format!("account {n}").into_bytes()
}

/// The value that belongs to a tag.
fn value(worker: usize, tag: u64) -> Bytes {
    let mut random = Random::new(tag ^ (worker as u64) << 56);
    let len = match random.below(100) {
        0..60 => random.below(40),
        60..90 => random.below(600),
        90..97 => random.below(9000),
        97..99 => 16_300 + random.below(200),
        _ => random.below(90_000),
    };
    let mut bytes = random.next().to_le_bytes().repeat(len as usize / 8 + 1);
    bytes.truncate(len as usize);
    bytes
}

/// What a worker does as its `n`-th operation.
fn step(seed: u64, worker: usize, n: u64, book: &Book) -> Step {
    let mut random = Random::new(seed ^ (worker as u64) << 56 ^ n.wrapping_mul(0x1234_5678_9abd));
    let changes = |random: &mut Random, most: u64, part: u64| -> Vec<Change> {
        (0..1 + random.below(most)).map(|i| Change::random(random, n * 64 + part * 32 + i)).collect()
    };
    match random.below(1000) {
        0..400 => Step::Own(Change::random(&mut random, n * 64)),
        400..500 => Step::Bundle(changes(&mut random, 6, 0), changes(&mut random, 3, 1)),
        500..530 => Step::Bundle(changes(&mut random, 30, 0), Vec::new()),
        530..560 => Step::Aborted(changes(&mut random, 10, 0)),
        560..700 => {
            let len = book.0[QUEUE_TO] - book.0[QUEUE_FROM];
            if random.below(QUEUE) >= len { Step::Enqueue } else { Step::Dequeue }
        }
        700..800 => Step::Count(random.below(COUNTERS as u64) as usize, random.once_in(3)),
        800..970 => {
            let from = random.below(ACCOUNTS as u64);
            let to = (from + 1 + random.below(ACCOUNTS as u64 - 1)) % ACCOUNTS as u64;
            Step::Transfer { from: from as usize, to: to as usize, amount: random.below(20) as i64 - 5 }
        }
        970..985 => Step::Audit,
        985..990 => Step::Length,
        990..994 => Step::Iterate,
        994 => Step::Check,
        _ => Step::Reopen,
    }
}

/// What the worker knows after a step.
fn after(step: &Step, worker: usize, n: u64, book: &Book) -> Book {
    let mut book = book.clone();
    match step {
        Step::Own(change) => drop(change.enter(worker, &mut book)),
        Step::Bundle(changes, _) => changes.iter().for_each(|c| drop(c.enter(worker, &mut book))),
        Step::Enqueue => book.add(QUEUE_TO, 1),
        Step::Dequeue => book.add(QUEUE_FROM, 1),
        Step::Count(counter, marked) => {
            book.add(COUNTED + counter, 1);
            if *marked {
                book.0[MARKER] = n;
            }
        }
        Step::Transfer { from, to, amount } => {
            book.add(MOVED + from, -amount);
            book.add(MOVED + to, *amount);
            book.0[MARKER] = n;
        }
        Step::Aborted(_) | Step::Audit | Step::Length | Step::Iterate | Step::Check | Step::Reopen => {}
    }
    book
}

fn number(value: Option<Vec<u8>>) -> i64 {
    let value = value.expect("has a value");
    i64::from_le_bytes(value.try_into().expect("8 bytes"))
}

/// A worker's place in the shared memory.
struct Desk<'a> {
    shared: &'a Shared,
    worker: usize,
}

impl Desk<'_> {
    fn at(&self, word: usize) -> usize {
        self.worker * PER_WORKER + word
    }

    fn get(&self, word: usize) -> u64 {
        self.shared.get(self.at(word))
    }

    fn set(&self, word: usize, value: u64) {
        self.shared.set(self.at(word), value);
    }

    fn book(&self) -> Book {
        let from = BOOKS + (self.get(ENDED) % 2) as usize * BOOK;
        Book(std::array::from_fn(|i| self.get(from + i)))
    }

    /// One more operation has ended, and this is what the worker knows now.
    fn end(&self, book: &Book) {
        let ended = self.get(ENDED) + 1;
        let from = BOOKS + (ended % 2) as usize * BOOK;
        for (i, word) in book.0.iter().enumerate() {
            self.set(from + i, *word);
        }
        self.set(ENDED, ended);
    }

    fn tick(&self) {
        let now = now_ns();
        let last = self.shared.word(self.at(ENDED_AT)).swap(now, Ordering::SeqCst);
        self.shared.word(self.at(PAUSE)).fetch_max(now.saturating_sub(last), Ordering::SeqCst);
    }
}

/// Is what a table holds of a worker's what the book says? Err: what is not.
fn compare(t: &HashTable, worker: usize, book: &Book) -> netshm::Result<Result<(), String>> {
    let tell = |what: String| Ok(Err(what));
    for key in 0..KEYS {
        let is = t.find_all(&own_key(worker, key))?;
        let should: Vec<Bytes> = book.stack(key).iter().rev().map(|tag| value(worker, *tag)).collect();
        if is != should {
            let lens = |all: &[Bytes]| all.iter().map(Vec::len).collect::<Vec<_>>();
            return tell(format!("key {key}: lengths {:?} instead of {:?}", lens(&is), lens(&should)));
        }
    }
    let (from, to) = (book.0[QUEUE_FROM], book.0[QUEUE_TO]);
    for n in from.saturating_sub(2)..to + 2 {
        let is = t.find(&queue_key(worker, n))?;
        let should = (from..to).contains(&n).then(|| value(worker, n));
        if is != should {
            return tell(format!("queue {n} of {from}..{to}: {:?}", is.map(|v| v.len())));
        }
    }
    let marker = t.find(&marker_key(worker))?.map_or(0, |v| number(Some(v)) as u64);
    if marker != book.0[MARKER] {
        return tell(format!("marker {marker} instead of {}", book.0[MARKER]));
    }
    Ok(Ok(()))
}

fn options() -> ManageOptions {
    ManageOptions::new().locking(support::locking()).clone()
}

struct Worker<'a> {
    desk: Desk<'a>,
    seed: u64,
    actor: Actor,
}

impl Worker<'_> {
    /// Finds out what has become of the operation in flight when the one before was killed.
    fn resolve(&mut self) {
        let (begun, ended) = (self.desk.get(BEGUN), self.desk.get(ENDED));
        if begun == ended {
            return;
        }
        assert_eq!(begun, ended + 1);
        let worker = self.desk.worker;
        let before = self.desk.book();
        let step = step(self.seed, worker, begun, &before);
        let mut after = after(&step, worker, begun, &before);
        let t = self.actor.table();
        let compare_with = |book: &Book| {
            t.table().group_retry::<_, Error>(None, || compare(&t, worker, book)).expect("reads")
        };
        let was_before = compare_with(&before);
        let was_after = compare_with(&after);
        if let (Err(b), Err(a)) = (&was_before, &was_after) {
            panic!("worker {worker}, operation {begun}, {step:?}: against before: {b}; against after: {a}");
        }
        if let Step::Count(counter, false) = step {
            // Nobody can tell: it was once more, or not.
            self.desk.shared.add(self.desk.at(UNCERTAIN + counter), 1);
            after = before;
        } else if was_after.is_err() {
            after = before;
        }
        self.desk.end(&after);
    }

    fn group(&mut self, mut body: impl FnMut(&HashTable) -> netshm::Result<()>) -> netshm::Result<()> {
        let t = self.actor.table();
        t.table().group_retry(None, || body(&t))
    }

    fn apply(&mut self, n: u64, step: &Step, book: &Book) {
        let worker = self.desk.worker;
        let t = self.actor.table();
        // Other groups may win; then the whole is tried again.
        let all_of = |changes: &[Change], book: &mut Book| -> netshm::Result<()> {
            for change in changes {
                let (op, expected) = change.enter(worker, book);
                let outcome = do_on_table(&t, &op);
                if outcome == Outcome::Failed(Error::Deadlock) {
                    return Err(Error::Deadlock);
                }
                assert_eq!(outcome, expected, "{change:?} in {step:?}");
            }
            Ok(())
        };
        let mark = |t: &HashTable| t.replace(&marker_key(worker), &n.to_le_bytes());
        match step {
            Step::Own(change) => all_of(std::slice::from_ref(change), &mut book.clone()).expect("no group"),
            Step::Bundle(changes, nested) => self
                .group(|t| {
                    let mut book = book.clone();
                    let (first, rest) = changes.split_at(changes.len() / 2);
                    all_of(first, &mut book)?;
                    let aborted = t.table().group(|| {
                        all_of(nested, &mut book.clone())?;
                        Err::<(), _>(Error::Aborted)
                    });
                    assert!(matches!(aborted, Err(Error::Aborted | Error::Deadlock)), "{aborted:?}");
                    all_of(rest, &mut book)
                })
                .expect("commits"),
            Step::Aborted(changes) => {
                let aborted = self.group(|_| all_of(changes, &mut book.clone()).and(Err(Error::Aborted)));
                assert_eq!(aborted, Err(Error::Aborted));
            }
            Step::Enqueue => {
                let n = book.0[QUEUE_TO];
                t.add(&queue_key(worker, n), &value(worker, n)).expect("adds");
            }
            Step::Dequeue => assert!(t.remove(&queue_key(worker, book.0[QUEUE_FROM])).expect("removes")),
            Step::Count(counter, false) => {
                t.increment(&counter_key(*counter), 1, 0).expect("counts");
            }
            Step::Count(counter, true) => self
                .group(|t| {
                    t.increment(&counter_key(*counter), 1, 0)?;
                    mark(t)
                })
                .expect("commits"),
            Step::Transfer { from, to, amount } => self
                .group(|t| {
                    let (from, to) = (account_key(*from), account_key(*to));
                    let balance = number(t.find(&from)?);
                    t.replace(&from, &(balance - amount).to_le_bytes())?;
                    mark(t)?;
                    t.increment(&to, *amount, 0).map(|_| ())
                })
                .expect("commits"),
            Step::Audit => {
                self.group(|t| sum_accounts(t).map(|sum| assert_eq!(sum, CAPITAL))).expect("reads")
            }
            Step::Length => assert!(t.len().expect("counts") > 0),
            Step::Iterate => {
                let mine = format!("worker {worker} ").into_bytes();
                let is = t.iter().map(|b| b.expect("iterates").0).filter(|k| k.starts_with(&mine)).count();
                let stacks: usize = (0..KEYS).map(|k| book.depth(k)).sum();
                let queue = (book.0[QUEUE_TO] - book.0[QUEUE_FROM]) as usize;
                assert_eq!(is, stacks + queue + usize::from(book.0[MARKER] != 0), "own bindings");
            }
            // For the disturbance; tests of its own look at what it says among others at work.
            Step::Check => drop(self.actor.object().check(|_| true)),
            Step::Reopen => {
                drop(t);
                self.actor.close();
                self.actor.table();
            }
        }
    }

    fn work(&mut self) -> ! {
        self.resolve();
        let worker = self.desk.worker;
        loop {
            self.desk.tick();
            while self.desk.shared.get(PARK) != 0 {
                if self.desk.shared.get(END) != 0 {
                    self.actor.close();
                    leave(0);
                }
                self.desk.set(PARKED, 1);
                std::thread::sleep(Duration::from_millis(1));
                self.desk.set(ENDED_AT, now_ns());
            }
            self.desk.set(PARKED, 0);
            let n = self.desk.get(ENDED) + 1;
            let book = self.desk.book();
            let step = step(self.seed, worker, n, &book);
            let after = after(&step, worker, n, &book);
            self.desk.set(BEGUN, n);
            self.apply(n, &step, &book);
            self.desk.end(&after);
            if n % 16 == 0 {
                self.look_at_one(&after);
            }
        }
    }

    /// What has returned is there: one key, without a lock.
    fn look_at_one(&mut self, book: &Book) {
        let worker = self.desk.worker;
        let n = self.desk.get(ENDED);
        let (key, t) = ((n / 16) as usize % KEYS, self.actor.table());
        let should = book.stack(key).last().map(|tag| value(worker, *tag));
        assert_eq!(t.find(&own_key(worker, key)).expect("finds"), should, "after operation {n}");
    }
}

const CAPITAL: i64 = OPENING_BALANCE * ACCOUNTS as i64;

fn sum_accounts(t: &HashTable) -> netshm::Result<i64> {
    let mut sum = 0;
    for n in 0..ACCOUNTS {
        sum += number(t.find(&account_key(n))?);
    }
    Ok(sum)
}

fn start(worker: usize, name: &Name, shared: &Shared, seed: u64) -> Child {
    let desk = Desk { shared, worker };
    desk.set(PARKED, 0);
    desk.set(ENDED_AT, now_ns());
    fork(|| Worker { desk, seed, actor: Actor::new(name, &options()) }.work())
}

/// Compares everything with the workers' books while they pause.
fn audit(name: &Name, shared: &Shared, at_work: u64) -> (u64, u64) {
    let told = Shared::new(2);
    let exit = fork(|| {
        watchdog(2 * STUCK.as_secs() as u32);
        let mut actor = Actor::new(name, &options());
        let t = actor.table();
        let summary = assert_object_sound(&actor.object());
        assert!(summary.slots_active <= at_work + 1, "{} slots are taken", summary.slots_active);
        let desks: Vec<Desk> = (0..WORKERS).map(|worker| Desk { shared, worker }).collect();
        let mut bindings = (COUNTERS + ACCOUNTS) as u64;
        for desk in &desks {
            let book = desk.book();
            assert_eq!(desk.get(BEGUN), desk.get(ENDED));
            let verdict = compare(&t, desk.worker, &book).expect("reads");
            verdict.unwrap_or_else(|e| panic!("worker {}: {e}", desk.worker));
            bindings += book.0[QUEUE_TO] - book.0[QUEUE_FROM] + u64::from(book.0[MARKER] != 0);
            bindings += (0..KEYS).map(|k| book.depth(k) as u64).sum::<u64>();
        }
        assert_eq!(t.len().expect("counts"), bindings);
        assert_eq!(summary.bindings, bindings);
        for n in 0..COUNTERS {
            let is = number(t.find(&counter_key(n)).expect("finds")) as u64;
            let certain: u64 = desks.iter().map(|d| d.book().0[COUNTED + n]).sum();
            let uncertain: u64 = desks.iter().map(|d| d.get(UNCERTAIN + n)).sum();
            let found = is.wrapping_sub(certain);
            assert!(found <= uncertain, "counter {n}: {is} instead of {certain} to {}", certain + uncertain);
            // Now it is known: enter it into one of the books.
            let desk = &desks[0];
            let book = BOOKS + (desk.get(ENDED) % 2) as usize * BOOK;
            shared.add(desk.at(book + COUNTED + n), found);
            desks.iter().for_each(|d| d.set(UNCERTAIN + n, 0));
        }
        for n in 0..ACCOUNTS {
            let moved: u64 = desks.iter().map(|d| d.book().0[MOVED + n]).fold(0, u64::wrapping_add);
            assert_eq!(number(t.find(&account_key(n)).expect("finds")), OPENING_BALANCE + moved as i64);
        }
        told.set(0, actor.object().size().expect("tells its size"));
        told.set(1, summary.used_pages);
        actor.close();
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the audit");
    (told.get(0), told.get(1))
}

/// The workers, and who looks after them.
struct Site<'a> {
    name: &'a Name,
    shared: &'a Shared,
    seed: u64,
    workers: Vec<Option<Child>>,
}

impl Site<'_> {
    fn desk(&self, worker: usize) -> Desk<'_> {
        Desk { shared: self.shared, worker }
    }

    fn start(&mut self, worker: usize) {
        self.workers[worker] = Some(start(worker, self.name, self.shared, self.seed));
    }

    fn kill(&mut self, worker: usize) {
        if let Some(mut child) = self.workers[worker].take() {
            assert_eq!(child.kill(), Exit::KILLED, "worker {worker} was alive");
        }
    }

    /// Fails if somebody has ended, or is stuck.
    fn look_after(&mut self) {
        for worker in 0..WORKERS {
            let Some(child) = &mut self.workers[worker] else { continue };
            let ended = child.poll();
            let pid = child.pid();
            let n = self.desk(worker).get(BEGUN);
            assert_eq!(ended, None, "worker {worker} ended by itself in operation {n}");
            let idle = now_ns().saturating_sub(self.desk(worker).get(ENDED_AT));
            if idle > STUCK.as_nanos() as u64 {
                let book = self.desk(worker).book();
                let what = step(self.seed, worker, n, &book);
                let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
                panic!("worker {worker} is stuck in operation {n}, {what:?}, in {wchan}");
            }
        }
    }

    /// Sleeps, and looks after the workers.
    fn wait(&mut self, time: Duration) {
        let end = now_ns() + time.as_nanos() as u64;
        loop {
            self.look_after();
            let left = end.saturating_sub(now_ns());
            if left == 0 {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left.min(20_000_000)));
        }
    }

    fn forget_pauses(&self) {
        (0..WORKERS).for_each(|w| self.desk(w).set(PAUSE, 0));
    }

    /// Longest pause of those at work since `forget_pauses`, also one that lasts.
    fn longest_pause(&self, who: impl Fn(usize) -> bool) -> u64 {
        let now = now_ns();
        let pause = |w| self.desk(w).get(PAUSE).max(now.saturating_sub(self.desk(w).get(ENDED_AT)));
        (0..WORKERS).filter(|w| who(*w)).map(pause).max().unwrap_or(0)
    }

    /// Lets everybody pause, judges, and lets them go on.
    fn pause_and_audit(&mut self) -> (u64, u64) {
        self.shared.set(PARK, 1);
        while (0..WORKERS).any(|w| self.desk(w).get(PARKED) == 0) {
            self.wait(Duration::from_millis(1));
        }
        let outcome = audit(self.name, self.shared, WORKERS as u64);
        self.shared.set(PARK, 0);
        outcome
    }
}

fn report(what: &str, times_ns: &mut [u64]) {
    times_ns.sort_unstable();
    let at = |percent: usize| times_ns[(times_ns.len() - 1) * percent / 100] as f64 / 1e6;
    println!(
        "  {what}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

fn random_kills() {
    let mut random = Random::from_environment("random_kills");
    let kills = support::setting("NETSHM_KILLS").unwrap_or(if support::long() { 10_000 } else { 300 });
    let scratch = Scratch::posix("kill");
    let shared = Shared::new(ALL);
    let exit = fork(|| {
        let mut actor = Actor::new(scratch.name(), &options());
        let t = actor.table();
        (0..ACCOUNTS).for_each(|n| t.add(&account_key(n), &OPENING_BALANCE.to_le_bytes()).expect("adds"));
        (0..COUNTERS).for_each(|n| t.add(&counter_key(n), &0i64.to_le_bytes()).expect("adds"));
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let workers = (0..WORKERS).map(|_| None).collect();
    let mut site = Site { name: scratch.name(), shared: &shared, seed: random.next(), workers };
    (0..WORKERS).for_each(|w| site.start(w));
    // What a pause is without kills.
    let mut undisturbed = Vec::new();
    for _ in 0..20 {
        site.forget_pauses();
        site.wait(Duration::from_millis(60));
        undisturbed.push(site.longest_pause(|_| true));
    }
    let mut pauses = Vec::new();
    let mut sizes = vec![site.pause_and_audit()];
    let (mut done, mut last_audit) = (0, 0);
    while done < kills {
        let victims = if random.once_in(6) { 2 + random.below(3) } else { 1 };
        let mut dead: Vec<usize> = Vec::new();
        site.forget_pauses();
        for _ in 0..victims {
            let worker = random.below(WORKERS as u64) as usize;
            if !dead.contains(&worker) {
                site.kill(worker);
                dead.push(worker);
                done += 1;
            }
        }
        // Mostly the survivors have to find out by themselves.
        if !random.once_in(3) {
            site.wait(Duration::from_micros(random.below(120_000)));
            if dead.len() < WORKERS {
                pauses.push(site.longest_pause(|w| !dead.contains(&w)));
            }
        }
        for worker in &dead {
            site.start(*worker);
            // Some do not even get as far as to work.
            if random.once_in(5) {
                site.wait(Duration::from_micros(random.below(4000)));
                site.kill(*worker);
                done += 1;
                site.start(*worker);
            }
        }
        site.wait(Duration::from_micros(random.below(100_000)));
        if done >= last_audit + kills.div_ceil(10).min(200) {
            last_audit = done;
            sizes.push(site.pause_and_audit());
        }
    }
    sizes.push(site.pause_and_audit());
    let operations: u64 = (0..WORKERS).map(|w| site.desk(w).get(ENDED)).sum();
    println!("  {done} kills, {operations} operations, sizes and pages {sizes:?}");
    report("longest pause without kills", &mut undisturbed);
    report("longest pause of survivors after a kill", &mut pauses);
    // No leak: once all live and most die, the object has the size that it needs.
    let (first, last) = (sizes[1], sizes[sizes.len() - 1]);
    assert!(last.1 <= 2 * first.1 + 2000, "the object grows and grows: {sizes:?}");
    shared.set(END, 1);
    shared.set(PARK, 1);
    for (n, worker) in site.workers.iter_mut().flatten().enumerate() {
        assert_eq!(worker.wait(), Exit::Code(0), "worker {n} at the end");
    }
    audit(scratch.name(), &shared, 0);
    let exit = fork(|| clear(scratch.name())).wait();
    assert_eq!(exit, Exit::Code(0), "clearing");
}

/// Removes everything: then nothing but the table itself may be left.
fn clear(name: &Name) {
    watchdog(60);
    let mut actor = Actor::new(name, &options());
    let t = actor.table();
    let keys: Vec<Bytes> = t.keys().map(|k| k.expect("iterates")).collect();
    for key in keys {
        while t.remove(&key).expect("removes") {}
    }
    drop(t);
    actor.close();
    let read_only = OpenOptions::new().read_only(true).open(name).expect("opens");
    let summary = assert_object_sound(&read_only);
    assert_eq!((summary.bindings, summary.record_bytes, summary.slots_active), (0, 0, 0));
    // What the killed had in their magazines waits for whoever takes their slots.
    assert!(summary.custody < 300 * summary.slots, "{} blocks in {} slots", summary.custody, summary.slots);
}

// Hot keys: what is written there is a number again and again, so that a mixture shows.
const PAIR: [&[u8]; 2] = [b"one of a pair", b"the other one"];
const LONG: &[u8] = b"long";
const PAIR_BYTES: usize = 248;
const LONG_BYTES: usize = 16_000;

fn repeated(n: u64, len: usize) -> Bytes {
    n.to_le_bytes().repeat(len / 8)
}

/// The number that a value repeats.
fn sole_number(t: &HashTable, key: &[u8], len: usize) -> u64 {
    let value = t.find(key).expect("finds").expect("is there");
    assert_eq!(value.len(), len);
    assert!(
        value.chunks(8).all(|word| word == &value[..8]),
        "a mixture: {:?} ... {:?}",
        &value[..8],
        &value[len - 8..]
    );
    number(Some(value[..8].to_vec())) as u64
}

// Shared words of those who read while others are killed: the last number that was written, for the pair and for
// the long one; which one begins now; rounds of the readers.
const WRITTEN: usize = 0;
const READ: usize = 2;
const STOP: usize = 3;

/// Writes ascending numbers. Only one writer lives at a time for each key.
fn write_numbers(name: &Name, shared: &Shared, which: usize) {
    let mut actor = Actor::new(name, &options());
    let t = actor.table();
    let last =
        if which == 0 { sole_number(&t, PAIR[0], PAIR_BYTES) } else { sole_number(&t, LONG, LONG_BYTES) };
    assert!(last >= shared.get(WRITTEN + which), "what had returned is gone");
    for n in last.max(shared.get(WRITTEN + which)) + 1.. {
        if which == 0 {
            t.table()
                .group_retry(None, || {
                    t.replace(PAIR[0], &repeated(n, PAIR_BYTES))?;
                    t.replace(PAIR[1], &repeated(n, PAIR_BYTES))
                })
                .expect("commits");
        } else {
            t.replace(LONG, &repeated(n, LONG_BYTES)).expect("replaces");
        }
        shared.set(WRITTEN + which, n);
    }
}

/// Reads without a lock: nothing mixed, nothing that goes back, nothing half done.
fn read_numbers(name: &Name, shared: &Shared) {
    let mut actor = Actor::new(name, &options());
    let t = actor.table();
    let mut last = [0; 3];
    while shared.get(STOP) == 0 {
        let returned = [shared.get(WRITTEN), shared.get(WRITTEN), shared.get(WRITTEN + 1)];
        let first = sole_number(&t, PAIR[0], PAIR_BYTES);
        let is = [first, sole_number(&t, PAIR[1], PAIR_BYTES), sole_number(&t, LONG, LONG_BYTES)];
        assert!(is[1] >= is[0], "half of a group was seen: {is:?}");
        for i in 0..3 {
            assert!(is[i] >= returned[i], "what had returned is not there: {is:?}, {returned:?}");
            assert!(is[i] >= last[i], "a key goes back: {is:?} after {last:?}");
        }
        last = is;
        shared.add(READ, 1);
    }
}

/// Those who read see whole values and whole groups, whoever is killed and however long they are stopped in the
/// middle of reading.
fn readers_among_kills() {
    let mut random = Random::from_environment("readers_among_kills");
    let kills = support::setting("NETSHM_KILLS").unwrap_or(if support::long() { 5_000 } else { 150 });
    let scratch = Scratch::posix("readers");
    let shared = Shared::new(4);
    let name = scratch.name();
    let exit = fork(|| {
        let t = Actor::new(name, &options()).table();
        PAIR.iter().for_each(|key| t.add(key, &repeated(0, PAIR_BYTES)).expect("adds"));
        t.add(LONG, &repeated(0, LONG_BYTES)).expect("adds");
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let mut readers: Vec<Child> = (0..3).map(|_| fork(|| read_numbers(name, &shared))).collect();
    let mut writers: Vec<Child> = (0..2).map(|which| fork(|| write_numbers(name, &shared, which))).collect();
    for _ in 0..kills {
        let (written, read) = ([shared.get(WRITTEN), shared.get(WRITTEN + 1)], shared.get(READ));
        let which = random.below(2) as usize;
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        let stopped = random.below(3) as usize;
        readers[stopped].signal(libc::SIGSTOP);
        if random.once_in(2) {
            std::thread::sleep(Duration::from_micros(random.below(200)));
        }
        assert_eq!(writers[which].kill(), Exit::KILLED, "writer {which}");
        writers[which] = fork(|| write_numbers(name, &shared, which));
        std::thread::sleep(Duration::from_micros(random.below(8000)));
        readers[stopped].signal(libc::SIGCONT);
        let end = now_ns() + STUCK.as_nanos() as u64;
        while shared.get(READ) == read || shared.get(WRITTEN + which) == written[which] {
            assert!(now_ns() < end, "somebody is stuck");
            let ended = readers.iter_mut().chain(&mut writers).find_map(Child::poll);
            assert_eq!(ended, None, "somebody has ended by itself");
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    println!("  {kills} kills, {} rounds of reading", shared.get(READ));
    shared.set(STOP, 1);
    assert!(readers.iter_mut().all(|r| r.wait() == Exit::Code(0)), "the readers");
    writers.iter_mut().for_each(|w| assert_eq!(w.kill(), Exit::KILLED));
    let exit = fork(|| {
        assert_sound(name);
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the checker");
}

/// A reader is stopped in the middle of a value, a writer dies in the middle of changing it, somebody recovers it
/// and changes nothing: what the reader has read must not count when it goes on.
#[cfg(feature = "inject")]
fn a_reader_stopped_while_a_dead_writer_is_recovered() {
    use netshm::inject;
    let mut random = Random::from_environment("a_reader_stopped_while_a_dead_writer_is_recovered");
    let trials = support::setting("NETSHM_KILLS").unwrap_or(if support::long() { 20_000 } else { 250 });
    let scratch = Scratch::posix("stopped");
    let shared = Shared::new(4);
    let name = scratch.name();
    let exit = fork(|| {
        let t = Actor::new(name, &options()).table();
        t.add(PAIR[0], &repeated(0, PAIR_BYTES)).expect("adds");
        t.replace(PAIR[0], &repeated(0, PAIR_BYTES)).expect("replaces");
        inject::arm(u64::MAX);
        t.replace(PAIR[0], &repeated(0, PAIR_BYTES)).expect("replaces");
        shared.set(WRITTEN, inject::disarm());
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let stores = shared.get(WRITTEN);
    let mut reader = fork(|| {
        let t = Actor::new(name, &options()).table();
        loop {
            sole_number(&t, PAIR[0], PAIR_BYTES);
            shared.add(READ, 1);
        }
    });
    for n in 1..=trials {
        let read = shared.get(READ);
        let k = random.below(stores);
        reader.signal(libc::SIGSTOP);
        let victim = fork(|| {
            let t = Actor::new(name, &options()).table();
            t.contains(PAIR[0]).expect("looks");
            t.update(b"nobody's", |_| netshm::Update::Keep).expect("takes part");
            inject::arm(k);
            t.replace(PAIR[0], &repeated(n, PAIR_BYTES)).expect("replaces");
            leave(1);
        })
        .wait();
        assert_eq!(victim, Exit::KILLED, "the writer dies at store {k}");
        let recovered =
            fork(|| drop(Actor::new(name, &options()).apply(&Op::Touch(PAIR[0].to_vec())))).wait();
        assert_eq!(recovered, Exit::Code(0));
        reader.signal(libc::SIGCONT);
        let end = now_ns() + STUCK.as_nanos() as u64;
        while shared.get(READ) < read + 3 {
            assert_eq!(reader.poll(), None, "the reader has ended: a writer died at store {k} of {stores}");
            assert!(now_ns() < end, "the reader is stuck");
        }
        let start = now_ns();
        let some = random.below(2000);
        while now_ns() < start + some {}
    }
    println!("  {trials} deaths, {} reads", shared.get(READ));
    assert_eq!(reader.kill(), Exit::KILLED);
    let exit = fork(|| {
        assert_sound(name);
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the checker");
}

/// The checker keeps everybody out, and does not take those who wait for its end for damage.
fn check_among(work: impl Fn(&mut Actor, &Bytes)) {
    let scratch = Scratch::posix("check");
    let shared = Shared::new(1);
    let mut busy: Vec<Child> = (0..2)
        .map(|n| {
            fork(|| {
                let mut actor = Actor::new(scratch.name(), &options());
                while shared.get(0) == 0 {
                    work(&mut actor, &own_key(n, 0));
                }
            })
        })
        .collect();
    let exit = fork(|| {
        watchdog(STUCK.as_secs() as u32);
        let object = Actor::new(scratch.name(), &options()).object();
        for _ in 0..1000 {
            assert_object_sound(&object);
        }
    })
    .wait();
    shared.set(0, 1);
    assert_eq!(exit, Exit::Code(0), "the checker");
    assert!(busy.iter_mut().all(|child| child.wait() == Exit::Code(0)));
}

fn the_checker_among_single_operations() {
    check_among(|actor, key| drop(actor.apply(&Op::Increment(key.clone(), 1, 0))));
}

fn the_checker_among_groups() {
    check_among(|actor, key| drop(actor.apply(&Op::Group(vec![Op::Increment(key.clone(), 1, 0)]))));
}

fn the_checker_among_those_who_close() {
    check_among(|actor, key| {
        actor.apply(&Op::Replace(key.clone(), vec![1; 100]));
        actor.close();
    });
}

fn main() {
    support::main(&[
        ("random_kills", random_kills),
        ("readers_among_kills", readers_among_kills),
        #[cfg(feature = "inject")]
        (
            "a_reader_stopped_while_a_dead_writer_is_recovered",
            a_reader_stopped_while_a_dead_writer_is_recovered,
        ),
        ("the_checker_among_single_operations", the_checker_among_single_operations),
        ("the_checker_among_groups", the_checker_among_groups),
        ("the_checker_among_those_who_close", the_checker_among_those_who_close),
    ]);
}
