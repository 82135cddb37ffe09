//! Processes that work on a few hot keys and write down what they do; honest ones, and ones with a fault.
//!
//! A faulty client does to the library's promises what a broken library would, so that it is seen whether the checkers
//! notice. Everything else about it is the same.

use super::journal::{self, Journal, stamp_after, stamp_before};
use super::number::{self, ABSENT};
use super::registers::{self, Step};
use super::stack::{self, Gave, Kind};
use crate::support::random::Random;
use netshm::{Error, HashTable, Update};

/// What is wrong with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A find sometimes answers from an old copy.
    OldCopy,
    /// A find reads without validation: its value is half of one find's, half of another's.
    TornRead,
    /// An increment is a find and a replace.
    SplitIncrement,
    /// An insert is a look and an add.
    SplitInsert,
    /// A change returns before it has been made.
    EarlyReturn,
    /// A group is its steps, one by one.
    TornGroup,
    /// What a group writes is written together, but what it reads was read before.
    ReadsBeforeGroup,
    /// A group that is rolled back has been visible.
    VisibleRollback,
    /// A group is written when others may have begun after its return.
    LateGroup,
}

pub(crate) const SINGLE_FAULTS: [Fault; 5] =
    [Fault::OldCopy, Fault::TornRead, Fault::SplitIncrement, Fault::SplitInsert, Fault::EarlyReturn];
pub(crate) const GROUP_FAULTS: [Fault; 4] =
    [Fault::TornGroup, Fault::ReadsBeforeGroup, Fault::VisibleRollback, Fault::LateGroup];

/// A key of the length that has short ways of its own.
pub(crate) fn key(n: usize) -> Vec<u8> {
    format!("hot key {n:08}").into_bytes()
}

/// One process of a recording.
pub(crate) struct Client<'a> {
    pub(crate) table: HashTable,
    pub(crate) journal: &'a Journal,
    pub(crate) me: usize,
    /// The next entry of the journal.
    pub(crate) entry: usize,
    pub(crate) keys: usize,
    pub(crate) random: Random,
    pub(crate) fault: Option<Fault>,
    /// Only looks.
    pub(crate) reads_only: bool,
    /// How many of 1,000 values have the same length.
    pub(crate) alike: u64,
    /// Lets this process be stopped, in the middle of changes as well. Somebody has to wake it.
    pub(crate) stops: bool,
    /// The value that this process has seen last, for each key.
    pub(crate) seen: Vec<u64>,
}

fn found(value: Option<Vec<u8>>) -> Gave {
    value.map_or(Gave::Value(ABSENT), |bytes| bytes_gave(&bytes))
}

fn bytes_gave(bytes: &[u8]) -> Gave {
    number::from_bytes(bytes).map_or(Gave::Torn, Gave::Value)
}

fn list(newest_first: &[Vec<u8>]) -> Gave {
    let numbers: Option<Vec<u64>> = newest_first.iter().rev().map(|v| number::from_bytes(v)).collect();
    match numbers {
        None => Gave::Torn,
        Some(numbers) => Gave::List(numbers.len() as u64, stack::fingerprint(numbers)),
    }
}

/// Gives others a chance to come in between.
fn linger(random: &mut Random) {
    if random.once_in(2) {
        std::thread::yield_now();
    } else {
        (0..random.below(300)).for_each(|_| std::hint::spin_loop());
    }
}

impl Client<'_> {
    pub(crate) fn is_through(&self) -> bool {
        // Some operations have several entries.
        self.entry + 8 > self.journal.entries()
    }

    /// Locks all keys at once, so that what the dead have left is completed or given up, and writes that down.
    pub(crate) fn settle(&mut self) {
        let before = stamp_before();
        let table = self.table.clone();
        let touch = |n| table.update(&key(n), |_| Update::Keep);
        table.table().group_retry(None, || (0..self.keys).try_for_each(touch)).expect("locks all keys");
        self.journal.settle(self.me, self.entry, before, stamp_after());
        self.entry += 1;
    }

    fn fails_now(&mut self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.random.once_in(4)
    }

    fn fresh(&mut self, rest: u64) -> u64 {
        // Often of the same length, so that values are changed in place.
        let class =
            if self.random.below(1000) < self.alike { 3 } else { number::class(self.random.below(1000)) };
        number::number(class, self.me, self.entry, rest)
    }

    /// Looks at the keys one after the other, as fast as possible, in one order or the other: what lasts for moments only
    /// is seen like that, if at all. Readers leave nothing behind, so that it need not be known beforehand that they
    /// begin.
    fn look_around(&mut self) -> Vec<(usize, [u64; 2], Gave)> {
        let names: Vec<Vec<u8>> = (0..self.keys).map(key).collect();
        let mut order: Vec<usize> = (0..self.keys).collect();
        if self.random.once_in(2) {
            order.reverse();
        }
        let mut buffer = [0; 1024];
        let mut seen = Vec::with_capacity(self.keys);
        for n in order {
            let before = stamp_before();
            let len = self.table.find_into(&names[n], &mut buffer);
            let times = [before, stamp_after()];
            match len {
                Ok(None) => seen.push((n, times, Gave::Value(ABSENT))),
                Ok(Some(len)) => seen.push((n, times, bytes_gave(&buffer[..len]))),
                Err(Error::TooSmall { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        seen
    }

    // ---- Single keys

    /// Before an operation: perhaps this process is stopped soon, before one of its stores.
    pub(crate) fn tempt(&mut self) {
        #[cfg(feature = "inject")]
        if self.stops && self.random.once_in(20) {
            netshm::inject::stop_at(self.random.below(100));
        }
        #[cfg(not(feature = "inject"))]
        assert!(!self.stops, "needs the feature `inject`");
    }

    /// Does an operation on one key, or a call for several, and writes it down.
    pub(crate) fn do_single(&mut self) {
        use Kind::*;
        let key = self.random.below(self.keys as u64) as usize;
        let looks = [Find, Find, Find, Contains, FindAll];
        let (kind, arguments) = match self.random.below(100) {
            n if self.reads_only || n < 35 => (*self.random.one_of(&looks), [0, 0]),
            35..43 => (Add, [self.fresh(0), 0]),
            43..55 => (Replace, [self.fresh(0), 0]),
            55..61 => (Insert, [self.fresh(0), 0]),
            61..70 => (Remove, [0, 0]),
            70..79 => (Increment, [1 + self.random.below(3), 0]),
            79..85 => (CompareAndReplace, [self.seen[key], self.fresh(0)]),
            85..90 => (Update, [self.fresh(0), 0]),
            90..93 => (UpdateAway, [0, 0]),
            93..95 => (Touch, [0, 0]),
            95..96 => (Clear, [0, 0]),
            96..97 => return self.replace_many(),
            97..99 => {
                for (n, times, gave) in self.look_around() {
                    stack::note_begin(self.journal, self.me, self.entry, (Find, n, [0, 0]), times[0]);
                    stack::note_end(self.journal, self.me, self.entry, gave, times[1]);
                    self.entry += 1;
                }
                return;
            }
            _ => return self.find_many(),
        };
        self.begin(self.entry, kind, key, arguments);
        let early = !matches!(kind, Find | Contains | FindAll | Touch) && self.fails_now(Fault::EarlyReturn);
        if early && matches!(kind, Add | Replace) {
            stack::note_end(self.journal, self.me, self.entry, Gave::Done, stamp_after());
            linger(&mut self.random);
        }
        let gave = self.perform(kind, key, arguments).expect("works");
        if journal_is_open(self.journal, self.me, self.entry) {
            stack::note_end(self.journal, self.me, self.entry, gave, stamp_after());
        }
        match gave {
            Gave::Value(value) | Gave::Sum(value) => self.seen[key] = value,
            Gave::Done if kind == Remove => {}
            Gave::Done => self.seen[key] = arguments[usize::from(kind == CompareAndReplace)],
            _ => {}
        }
        self.entry += 1;
    }

    fn begin(&self, entry: usize, kind: Kind, key: usize, arguments: [u64; 2]) {
        stack::note_begin(self.journal, self.me, entry, (kind, key, arguments), 0);
        // The stamp comes last, or writing the entry would count.
        self.journal.set(self.me, entry, journal::INVOKED, stamp_before());
    }

    fn perform(&mut self, kind: Kind, n: usize, arguments: [u64; 2]) -> Result<Gave, Error> {
        let k = key(n);
        let [first, second] = arguments;
        let value = || number::bytes(first);
        let done = |()| Gave::Done;
        Ok(match kind {
            Kind::Find => self.find(n, &k)?,
            Kind::Contains => Gave::Bool(self.table.contains(&k)?),
            Kind::FindAll => list(&self.table.find_all(&k)?),
            Kind::Add => self.table.add(&k, &value()).map(done)?,
            Kind::Replace => self.table.replace(&k, &value()).map(done)?,
            Kind::Insert => self.insert(&k, &value())?,
            Kind::Remove => Gave::Bool(self.table.remove(&k)?),
            Kind::Increment => self.increment(&k, first)?,
            Kind::CompareAndReplace => {
                // What was expected may be no value at all.
                let old = if first == ABSENT { b"-".to_vec() } else { value() };
                match self.table.compare_and_replace(&k, &old, &number::bytes(second)) {
                    Ok(()) => Gave::Done,
                    Err(Error::NotFound) => Gave::NotFound,
                    Err(Error::Changed) => Gave::Changed,
                    Err(e) => return Err(e),
                }
            }
            Kind::Update => self.update(&k, Update::Replace(value()))?,
            Kind::UpdateAway => self.update(&k, Update::Remove)?,
            Kind::Touch => self.update(&k, Update::Keep)?,
            Kind::Clear => {
                let mut all = Vec::new();
                self.table.update_stack(&k, |value| {
                    all.push(value.to_vec());
                    Ok(Some(Update::Remove))
                })?;
                list(&all)
            }
        })
    }

    fn find(&mut self, n: usize, k: &[u8]) -> Result<Gave, Error> {
        if self.fails_now(Fault::OldCopy) {
            return Ok(Gave::Value(self.seen[n]));
        }
        if self.fails_now(Fault::TornRead) {
            let halves = [self.table.find(k)?, {
                linger(&mut self.random);
                self.table.find(k)?
            }];
            let [Some(a), Some(b)] = halves else { return Ok(found(halves[1].clone())) };
            let middle = (a.len() / 2).min(b.len());
            return Ok(found(Some([&a[..middle], &b[middle..]].concat())));
        }
        // The three ways to read a value.
        match self.random.below(3) {
            0 => Ok(found(self.table.find(k)?)),
            1 => {
                let mut buffer = [0; 1024];
                match self.table.find_into(k, &mut buffer) {
                    Ok(len) => Ok(found(len.map(|len| buffer[..len].to_vec()))),
                    Err(Error::TooSmall { .. }) => Ok(found(self.table.find(k)?)),
                    Err(e) => Err(e),
                }
            }
            _ => self.in_group(|client| Ok(found(client.table.find(k)?))),
        }
    }

    /// A group for one operation. Readers that may not write do without.
    fn in_group<R>(&mut self, mut body: impl FnMut(&mut Self) -> Result<R, Error>) -> Result<R, Error> {
        if self.reads_only || !self.random.once_in(4) {
            return body(self);
        }
        let table = self.table.clone();
        table.table().group_retry(None, || body(self))
    }

    fn insert(&mut self, k: &[u8], value: &[u8]) -> Result<Gave, Error> {
        if self.fails_now(Fault::SplitInsert) {
            if self.table.contains(k)? {
                return Ok(Gave::Exists);
            }
            linger(&mut self.random);
            return self.table.add(k, value).map(|()| Gave::Done);
        }
        match self.table.insert(k, value) {
            Ok(()) => Ok(Gave::Done),
            Err(Error::Exists) => Ok(Gave::Exists),
            Err(e) => Err(e),
        }
    }

    fn increment(&mut self, k: &[u8], delta: u64) -> Result<Gave, Error> {
        let by_hand = |client: &mut Self| {
            let old = client.table.find(k)?;
            linger(&mut client.random);
            let old = match old.map(<[u8; 8]>::try_from) {
                None => 0,
                Some(Ok(bytes)) => u64::from_le_bytes(bytes),
                Some(Err(_)) => return Ok(Gave::NoNumber),
            };
            client.table.replace(k, &(old + delta).to_le_bytes())?;
            Ok(Gave::Sum(old + delta))
        };
        if self.fails_now(Fault::SplitIncrement) {
            return by_hand(self);
        }
        if self.random.once_in(3) {
            let table = self.table.clone();
            return table.table().group_retry(None, || by_hand(self));
        }
        match self.table.increment(k, delta as i64, 0) {
            Ok(sum) => Ok(Gave::Sum(sum as u64)),
            Err(Error::Type { .. }) => Ok(Gave::NoNumber),
            Err(e) => Err(e),
        }
    }

    fn update(&mut self, k: &[u8], to: Update) -> Result<Gave, Error> {
        let mut gave = Gave::Torn;
        let random = &mut self.random;
        self.table.update(k, |old| {
            gave = found(old.map(<[u8]>::to_vec));
            if random.once_in(8) {
                std::thread::yield_now();
            }
            to
        })?;
        Ok(gave)
    }

    /// Some different keys.
    fn several(&mut self, n: usize) -> Vec<usize> {
        let mut keys: Vec<usize> = (0..self.keys).collect();
        for i in 0..n.min(self.keys) {
            let j = i + self.random.below((self.keys - i) as u64) as usize;
            keys.swap(i, j);
        }
        keys.truncate(n);
        keys
    }

    /// Several finds in one call, each with a moment of its own.
    fn find_many(&mut self) {
        let keys = self.several(3);
        for (i, k) in keys.iter().enumerate() {
            self.begin(self.entry + i, Kind::Find, *k, [0, 0]);
        }
        let names: Vec<Vec<u8>> = keys.iter().map(|k| key(*k)).collect();
        let values = self.table.find_many(&names).expect("finds");
        let now = stamp_after();
        for (i, value) in values.into_iter().enumerate() {
            stack::note_end(self.journal, self.me, self.entry + i, found(value), now);
        }
        self.entry += keys.len();
    }

    fn replace_many(&mut self) {
        let keys = self.several(3);
        let mut bindings = Vec::new();
        for (i, k) in keys.iter().enumerate() {
            let value = number::number(self.random.below(5) as usize, self.me, self.entry + i, 0);
            self.begin(self.entry + i, Kind::Replace, *k, [value, 0]);
            bindings.push((key(*k), number::bytes(value)));
        }
        self.table.replace_many(&bindings).expect("replaces");
        let now = stamp_after();
        for i in 0..keys.len() {
            stack::note_end(self.journal, self.me, self.entry + i, Gave::Done, now);
        }
        self.entry += keys.len();
    }

    // ---- Groups

    /// Does a group, and writes it down; or a single change, as a group of one.
    pub(crate) fn do_group(&mut self) {
        let choice = self.random.below(100);
        match choice {
            n if n < 6 || (self.reads_only && n < 60) => return self.look_at_all(),
            n if self.reads_only || n < 12 => self.single(How::Read),
            12..18 => self.single(How::Write),
            18..26 => self.single(How::Update),
            26..29 => self.snapshot(),
            29..37 => self.group(false),
            _ => self.group(true),
        }
        self.entry += 1;
    }

    fn note(&self) -> registers::Note<'_> {
        registers::Note { journal: self.journal, process: self.me, entry: self.entry }
    }

    fn look_at_all(&mut self) {
        for (n, times, gave) in self.look_around() {
            let read = if let Gave::Value(value) = gave { Some(value) } else { Some(GARBAGE) };
            self.note().begin(times[0]);
            self.note().step(Step { key: n, read, written: None, undone: false });
            self.note().sealed(true);
            self.note().end(times[1]);
            self.entry += 1;
        }
    }

    fn single(&mut self, how: How) {
        let key = self.random.below(self.keys as u64) as usize;
        let written = self.fresh(0);
        self.note().begin(0);
        if how != How::Read {
            // It may have happened from now on, also if nobody learns what it has read.
            self.note().step(Step { key, read: None, written: Some(written), undone: false });
        }
        self.note().sealed(true);
        self.journal.set(self.me, self.entry, journal::INVOKED, stamp_before());
        let step = self.step(how, key, written).expect("works");
        let now = stamp_after();
        match (how, step.read) {
            (How::Read, _) => self.note().step(step),
            (_, Some(read)) => self.note().learn(read),
            (_, None) => {}
        }
        self.note().end(now);
    }

    /// Everything in one iteration, which in a group is that of one moment.
    fn snapshot(&mut self) {
        self.note().begin(0);
        self.journal.set(self.me, self.entry, journal::INVOKED, stamp_before());
        let table = self.table.clone();
        let done = table.table().group_retry(None, || {
            self.note().attempt();
            for binding in table.iter() {
                let (name, value) = binding?;
                if let Some(key) = (0..self.keys).find(|k| key(*k) == name) {
                    self.note().step(read_step(key, Some(value)));
                }
            }
            self.note().sealed(true);
            Ok::<(), Error>(())
        });
        let now = stamp_after();
        done.expect("iterates");
        self.note().end(now);
    }

    fn group(&mut self, commits: bool) {
        let steps = 2 + self.random.below(3) as usize;
        let mut plan: Vec<(How, usize)> = Vec::new();
        for key in self.several(steps) {
            let how = *self.random.one_of(&[
                How::Read,
                How::Read,
                How::ReadAndWrite,
                How::ReadAndWrite,
                How::Update,
                How::Write,
                How::Undone,
            ]);
            plan.push((how, key));
        }
        if self.fault.is_none() && self.random.once_in(4) {
            // A key once more, which the group has touched already. (Faults would show too easily there.)
            plan.push((*self.random.one_of(&[How::Read, How::ReadAndWrite]), plan[0].1));
        }
        self.note().begin(0);
        self.journal.set(self.me, self.entry, journal::INVOKED, stamp_before());
        let fault = self.fault.filter(|f| self.fails_now(*f));
        match fault {
            Some(Fault::TornGroup) => self.one_by_one(&plan, commits),
            Some(Fault::ReadsBeforeGroup) => self.reads_before(&plan, commits),
            Some(Fault::VisibleRollback) if !commits => self.visible_rollback(&plan),
            Some(Fault::LateGroup) if commits => return self.late(&plan),
            _ => self.honest_group(&plan, commits),
        }
        let now = stamp_after();
        self.note().end(now);
    }

    fn honest_group(&mut self, plan: &[(How, usize)], commits: bool) {
        let table = self.table.clone();
        let mut attempts = 0;
        let outcome = table.table().group_retry(None, || {
            attempts += 1;
            self.note().attempt();
            for (n, (how, key)) in plan.iter().enumerate() {
                let written = self.fresh(attempts % 512 * 8 + n as u64);
                let step = self.step(*how, *key, written)?;
                self.note().step(step);
                if self.random.once_in(6) {
                    std::thread::yield_now();
                }
            }
            self.note().sealed(commits);
            if commits { Ok(()) } else { Err(Error::Aborted) }
        });
        assert_eq!(outcome, if commits { Ok(()) } else { Err(Error::Aborted) });
    }

    /// One step, in the group that is open, or alone.
    fn step(&mut self, how: How, n: usize, value: u64) -> Result<Step, Error> {
        let k = key(n);
        let bytes = number::bytes(value);
        let wrote = Step { key: n, read: None, written: Some(value), undone: false };
        Ok(match how {
            How::Read => read_step(n, self.table.find(&k)?),
            How::Write => {
                self.table.replace(&k, &bytes)?;
                wrote
            }
            How::ReadAndWrite => {
                let read = read_step(n, self.table.find(&k)?).read;
                self.table.replace(&k, &bytes)?;
                Step { read, ..wrote }
            }
            How::Update => {
                let mut read = None;
                self.table.update(&k, |old| {
                    read = read_step(n, old.map(<[u8]>::to_vec)).read;
                    Update::Replace(bytes)
                })?;
                Step { read, ..wrote }
            }
            How::Undone => {
                let inner = self.table.table().group(|| {
                    self.table.replace(&k, &bytes)?;
                    Err::<(), Error>(Error::Aborted)
                });
                match inner {
                    Err(Error::Aborted) => Step { undone: true, ..wrote },
                    Err(e) => return Err(e),
                    Ok(()) => unreachable!("the body fails"),
                }
            }
        })
    }

    // ---- Faulty groups

    fn one_by_one(&mut self, plan: &[(How, usize)], commits: bool) {
        for (n, (how, key)) in plan.iter().enumerate() {
            let written = self.fresh(8 + n as u64);
            let how = if commits { *how } else { How::Read };
            let step = self.step(how, *key, written).expect("works");
            self.note().step(step);
            linger(&mut self.random);
        }
        self.note().sealed(commits);
    }

    fn reads_before(&mut self, plan: &[(How, usize)], commits: bool) {
        let reads: Vec<Step> = plan
            .iter()
            .map(|(_, k)| {
                linger(&mut self.random);
                read_step(*k, self.table.find(&key(*k)).expect("finds"))
            })
            .collect();
        let table = self.table.clone();
        let done = table.table().group_retry(None, || {
            self.note().attempt();
            for (n, read) in reads.iter().enumerate() {
                let is_last = plan.iter().rposition(|p| p.1 == read.key) == Some(n);
                let written =
                    (commits && is_last && plan[n].0 != How::Read).then(|| self.fresh(8 + n as u64));
                if let Some(value) = written {
                    table.replace(&key(read.key), &number::bytes(value))?;
                }
                self.note().step(Step { written, ..*read });
            }
            self.note().sealed(commits);
            Ok::<(), Error>(())
        });
        done.expect("commits");
    }

    /// Writes, and then writes back what was there.
    fn visible_rollback(&mut self, plan: &[(How, usize)]) {
        let mut old = Vec::new();
        for (n, (_, k)) in plan.iter().enumerate() {
            let value = self.fresh(8 + n as u64);
            let step = self.step(How::ReadAndWrite, *k, value).expect("works");
            self.note().step(step);
            old.push((*k, step.read.expect("was read")));
        }
        linger(&mut self.random);
        for (k, value) in old.into_iter().rev() {
            self.table.replace(&key(k), &number::bytes(value)).expect("replaces");
        }
        self.note().sealed(false);
    }

    /// Returns before it has written.
    fn late(&mut self, plan: &[(How, usize)]) {
        let mut values: Vec<(usize, u64)> = Vec::new();
        for (n, (_, k)) in plan.iter().enumerate() {
            values.push((*k, self.fresh(8 + n as u64)));
            let step = Step { key: *k, read: None, written: Some(values[n].1), undone: false };
            self.note().step(step);
        }
        self.note().sealed(true);
        self.note().end(stamp_after());
        linger(&mut self.random);
        let table = self.table.clone();
        let done = table.table().group_retry(None, || {
            values.iter().try_for_each(|(k, value)| table.replace(&key(*k), &number::bytes(*value)))
        });
        done.expect("commits");
    }
}

/// What a step does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Read,
    Write,
    ReadAndWrite,
    Update,
    /// A write in an inner group that is rolled back.
    Undone,
}

/// A value that is none: a mixture, or no binding.
const GARBAGE: u64 = u64::MAX;

fn read_step(key: usize, value: Option<Vec<u8>>) -> Step {
    let read = value.and_then(|v| number::from_bytes(&v)).unwrap_or(GARBAGE);
    Step { key, read: Some(read), written: None, undone: false }
}

fn journal_is_open(j: &Journal, process: usize, entry: usize) -> bool {
    j.get(process, entry, journal::RETURNED) == 0
}
