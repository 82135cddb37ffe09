//! Several keys with one value each, as the object of a history whose operations are groups.
//!
//! Owns what a group is in a history, and how it is written into a journal. All groups together are judged as one object: so
//! what is checked is strict serializability, the order of time included.

use super::journal::{self, Journal};
use super::linear::{Object, Timed};
use std::collections::{HashMap, HashSet};

/// Keys of the groups.
pub(crate) const KEYS: usize = 6;
/// Most steps of a group.
pub(crate) const STEPS: usize = 6;

/// One step of a group: reads, writes, or reads and then writes a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: usize,
    pub(crate) read: Option<u64>,
    pub(crate) written: Option<u64>,
    /// What was written was rolled back with an inner group.
    pub(crate) undone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed,
    /// What it read counts, what it wrote must never be seen.
    RolledBack,
    /// Cut off: committed or not. All its steps are known.
    Open,
    /// Cut off before its last step had ended, so that it cannot have been committed.
    Unfinished,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) steps: Vec<Step>,
    pub(crate) fate: Fate,
    #[allow(dead_code, reason = "shown with a history that is wrong")]
    pub(crate) process: usize,
    #[allow(dead_code, reason = "as above")]
    pub(crate) entry: usize,
}

/// Where the last attempt is numbered; what came before it was rolled back.
const FATE: usize = journal::FIRST_FREE;
const COUNT: usize = FATE + 1;
const FIRST_STEP: usize = COUNT + 1;
const STEP_WIDTH: usize = 3;
/// Words of an entry.
pub(crate) const WIDTH: usize = FIRST_STEP + STEPS * STEP_WIDTH;

const COMMITS: u64 = 1;
const ROLLS_BACK: u64 = 2;

const READS: u64 = 1 << 8;
const WRITES: u64 = 1 << 9;
const UNDONE: u64 = 1 << 10;

/// Writes a group down as it goes on.
pub(crate) struct Note<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) process: usize,
    pub(crate) entry: usize,
}

impl Note<'_> {
    fn set(&self, word: usize, value: u64) {
        self.journal.set(self.process, self.entry, word, value);
    }

    pub(crate) fn begin(&self, now: u64) {
        self.set(FATE, 0);
        self.set(COUNT, 0);
        self.set(journal::INVOKED, now);
        self.set(journal::KIND, 1);
    }

    /// An attempt begins, and what was noted of the former ones is void.
    pub(crate) fn attempt(&self) {
        self.set(FATE, 0);
        self.set(COUNT, 0);
    }

    pub(crate) fn step(&self, step: Step) {
        let n = self.journal.get(self.process, self.entry, COUNT);
        let at = FIRST_STEP + n as usize * STEP_WIDTH;
        let bits = [(READS, step.read.is_some()), (WRITES, step.written.is_some()), (UNDONE, step.undone)];
        let bits = bits.iter().filter(|b| b.1).fold(0, |all, b| all | b.0);
        self.set(at, step.key as u64 | bits);
        self.set(at + 1, step.read.unwrap_or(0));
        self.set(at + 2, step.written.unwrap_or(0));
        self.set(COUNT, n + 1);
    }

    /// What the only step has read.
    pub(crate) fn learn(&self, read: u64) {
        self.set(FIRST_STEP + 1, read);
        let bits = self.journal.get(self.process, self.entry, FIRST_STEP);
        self.set(FIRST_STEP, bits | READS);
    }

    /// All steps are done, and what is left is to commit, or to roll back.
    pub(crate) fn sealed(&self, commits: bool) {
        self.set(FATE, if commits { COMMITS } else { ROLLS_BACK });
    }

    pub(crate) fn end(&self, now: u64) {
        self.set(journal::RETURNED, now);
    }
}

/// All groups of a journal.
pub(crate) fn read(j: &Journal) -> Vec<Timed<Group>> {
    let mut all = Vec::new();
    for process in 0..j.processes() {
        for entry in (0..j.begun(process)).filter(|entry| !j.is_settlement(process, *entry)) {
            let word = |n| j.get(process, entry, n);
            let steps = (0..word(COUNT) as usize).map(|n| {
                let at = FIRST_STEP + n * STEP_WIDTH;
                let [bits, read, written] = [word(at), word(at + 1), word(at + 2)];
                Step {
                    key: (bits & 0xff) as usize,
                    read: (bits & READS != 0).then_some(read),
                    written: (bits & WRITES != 0).then_some(written),
                    undone: bits & UNDONE != 0,
                }
            });
            let returned = Some(word(journal::RETURNED)).filter(|at| *at != 0);
            let fate = match (word(FATE), returned) {
                (COMMITS, Some(_)) => Fate::Committed,
                (COMMITS, None) => Fate::Open,
                (ROLLS_BACK, _) => Fate::RolledBack,
                _ => Fate::Unfinished,
            };
            let group = Group { steps: steps.collect(), fate, process, entry };
            let decided = j.decided(process, entry);
            all.push(Timed { invoked: word(journal::INVOKED), returned, decided, op: group });
        }
    }
    all
}

/// What is left to be judged: groups that have happened, and those that were cut off and have been seen by one of these. A
/// group that was cut off and none of whose values was ever seen might as well not have happened: every key is
/// always bound, so that nothing but a value tells of a write.
pub(crate) fn of_consequence(groups: &[Timed<Group>]) -> Vec<Timed<Group>> {
    let mut kept = vec![false; groups.len()];
    let mut seen: HashSet<u64> = HashSet::new();
    loop {
        let mut more = false;
        for (n, group) in groups.iter().enumerate() {
            if kept[n] {
                continue;
            }
            let mut written = group.op.steps.iter().filter_map(|s| s.written);
            kept[n] = match group.op.fate {
                Fate::Committed => true,
                Fate::RolledBack => group.returned.is_some(),
                Fate::Open => written.any(|value| seen.contains(&value)),
                Fate::Unfinished => false,
            };
            if kept[n] {
                seen.extend(group.op.steps.iter().filter_map(|s| s.read));
                more = true;
            }
        }
        if !more {
            break;
        }
    }
    groups.iter().zip(kept).filter(|(_, kept)| *kept).map(|(group, _)| group.clone()).collect()
}

/// The states of all keys together.
pub(crate) struct Registers {
    states: Vec<[u64; KEYS]>,
    numbers: HashMap<[u64; KEYS], u32>,
}

impl Registers {
    /// The states, and the number of the one to begin with.
    pub(crate) fn new(values: [u64; KEYS]) -> (Registers, u32) {
        let mut all = Registers { states: Vec::new(), numbers: HashMap::new() };
        let first = all.number(values);
        (all, first)
    }

    fn number(&mut self, values: [u64; KEYS]) -> u32 {
        *self.numbers.entry(values).or_insert_with(|| {
            self.states.push(values);
            self.states.len() as u32 - 1
        })
    }
}

impl Object for Registers {
    type Op = Group;

    fn step(&mut self, state: u32, group: &Group) -> Option<u32> {
        let mut values = self.states[state as usize];
        for step in &group.steps {
            if step.read.is_some_and(|read| read != values[step.key]) {
                return None;
            }
            if let (Some(written), false) = (step.written, step.undone) {
                values[step.key] = written;
            }
        }
        match group.fate {
            Fate::Committed | Fate::Open => Some(self.number(values)),
            Fate::RolledBack | Fate::Unfinished => Some(state),
        }
    }

    fn only_looks(&self, group: &Group) -> bool {
        group.fate == Fate::RolledBack || group.steps.iter().all(|s| s.written.is_none() || s.undone)
    }
}
