//! One key of a table, as the object of a history: a stack of bindings.
//!
//! Owns what operations on one key mean, and how they are written into a journal.

use super::journal::{self, Journal};
use super::linear::{Object, Timed};
use super::number::ABSENT;
use std::collections::HashMap;

/// What is done to a key. Values are numbers, see `number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Find = 1,
    Contains,
    FindAll,
    Add,
    Replace,
    Insert,
    Remove,
    Increment,
    /// The first argument is the value expected.
    CompareAndReplace,
    /// Gives the value that the callback saw.
    Update,
    UpdateAway,
    Touch,
    /// Removes the whole stack; gives what the callbacks saw.
    Clear,
}

use Kind::*;

/// All, in the order of their numbers.
const KINDS: [Kind; 13] = [
    Find,
    Contains,
    FindAll,
    Add,
    Replace,
    Insert,
    Remove,
    Increment,
    CompareAndReplace,
    Update,
    UpdateAway,
    Touch,
    Clear,
];

/// What an operation gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gave {
    Done,
    /// A value, or `ABSENT`.
    Value(u64),
    Exists,
    Changed,
    NotFound,
    Bool(bool),
    Sum(u64),
    /// The value is no integer.
    NoNumber,
    /// How many bindings, and a fingerprint of them.
    List(u64, u64),
    /// Bytes that nobody has written.
    Torn,
}

impl Gave {
    fn to_words(self) -> [u64; 3] {
        match self {
            Gave::Done => [1, 0, 0],
            Gave::Value(v) => [2, v, 0],
            Gave::Exists => [3, 0, 0],
            Gave::Changed => [4, 0, 0],
            Gave::NotFound => [5, 0, 0],
            Gave::Bool(b) => [6, u64::from(b), 0],
            Gave::Sum(n) => [7, n, 0],
            Gave::NoNumber => [8, 0, 0],
            Gave::List(n, print) => [9, n, print],
            Gave::Torn => [10, 0, 0],
        }
    }

    fn from_words(words: [u64; 3]) -> Gave {
        match words[0] {
            1 => Gave::Done,
            2 => Gave::Value(words[1]),
            3 => Gave::Exists,
            4 => Gave::Changed,
            5 => Gave::NotFound,
            6 => Gave::Bool(words[1] != 0),
            7 => Gave::Sum(words[1]),
            8 => Gave::NoNumber,
            9 => Gave::List(words[1], words[2]),
            10 => Gave::Torn,
            n => panic!("no outcome has the number {n}"),
        }
    }
}

/// An operation on one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) key: usize,
    pub(crate) arguments: [u64; 2],
    /// None: nobody knows, it was cut off.
    pub(crate) gave: Option<Gave>,
    #[allow(dead_code, reason = "shown with a history that is wrong")]
    pub(crate) process: usize,
    #[allow(dead_code, reason = "as above")]
    pub(crate) entry: usize,
}

const ARGUMENTS: usize = journal::FIRST_FREE;
const GAVE: usize = ARGUMENTS + 2;
/// Words of an entry.
pub(crate) const WIDTH: usize = GAVE + 3;

/// Writes down that an operation begins at `now`.
pub(crate) fn note_begin(j: &Journal, process: usize, entry: usize, op: (Kind, usize, [u64; 2]), now: u64) {
    let (kind, key, arguments) = op;
    j.set(process, entry, ARGUMENTS, arguments[0]);
    j.set(process, entry, ARGUMENTS + 1, arguments[1]);
    j.set(process, entry, journal::INVOKED, now);
    j.set(process, entry, journal::KIND, kind as u64 | (key as u64) << 8);
}

/// Writes down that it has ended at `now`.
pub(crate) fn note_end(j: &Journal, process: usize, entry: usize, gave: Gave, now: u64) {
    for (n, word) in gave.to_words().into_iter().enumerate() {
        j.set(process, entry, GAVE + n, word);
    }
    j.set(process, entry, journal::RETURNED, now);
}

/// All operations of a journal.
pub(crate) fn read(j: &Journal) -> Vec<Timed<Op>> {
    let mut all = Vec::new();
    for process in 0..j.processes() {
        for entry in (0..j.begun(process)).filter(|entry| !j.is_settlement(process, *entry)) {
            let word = |n| j.get(process, entry, n);
            let returned = Some(word(journal::RETURNED)).filter(|at| *at != 0);
            let gave = returned.map(|_| Gave::from_words([word(GAVE), word(GAVE + 1), word(GAVE + 2)]));
            let kind = word(journal::KIND);
            let op = Op {
                kind: KINDS[(kind & 0xff) as usize - 1],
                key: (kind >> 8) as usize,
                arguments: [word(ARGUMENTS), word(ARGUMENTS + 1)],
                gave,
                process,
                entry,
            };
            let decided = j.decided(process, entry);
            all.push(Timed { invoked: word(journal::INVOKED), returned, decided, op });
        }
    }
    all
}

/// A fingerprint of a stack, the oldest binding first.
pub(crate) fn fingerprint(oldest_first: impl IntoIterator<Item = u64>) -> u64 {
    oldest_first.into_iter().fold(0, mix)
}

fn mix(print: u64, value: u64) -> u64 {
    let mixed = (print ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_add(1)
}

struct Node {
    value: u64,
    below: u32,
    depth: u64,
    print: u64,
}

/// The states of a key: stacks, each known by the number of its newest binding.
pub(crate) struct Stacks {
    nodes: Vec<Node>,
    numbers: HashMap<(u64, u32), u32>,
}

pub(crate) const EMPTY: u32 = 0;

impl Stacks {
    pub(crate) fn new() -> Stacks {
        let bottom = Node { value: ABSENT, below: EMPTY, depth: 0, print: 0 };
        Stacks { nodes: vec![bottom], numbers: HashMap::new() }
    }

    fn push(&mut self, below: u32, value: u64) -> u32 {
        *self.numbers.entry((value, below)).or_insert_with(|| {
            let under = &self.nodes[below as usize];
            let node = Node { value, below, depth: under.depth + 1, print: mix(under.print, value) };
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        })
    }

    fn replace(&mut self, state: u32, value: u64) -> u32 {
        self.push(self.nodes[state as usize].below, value)
    }

    /// What an operation gives, and leaves behind.
    pub(crate) fn apply(&mut self, state: u32, kind: Kind, arguments: [u64; 2]) -> (Gave, u32) {
        let Node { value: top, below, depth, print } = self.nodes[state as usize];
        let [first, second] = arguments;
        let is_bound = state != EMPTY;
        match kind {
            Find | Touch => (Gave::Value(top), state),
            Contains => (Gave::Bool(is_bound), state),
            FindAll => (Gave::List(depth, print), state),
            Add => (Gave::Done, self.push(state, first)),
            Replace => (Gave::Done, self.replace(state, first)),
            Insert if is_bound => (Gave::Exists, state),
            Insert => (Gave::Done, self.push(state, first)),
            Remove => (Gave::Bool(is_bound), below),
            Increment if !is_bound => (Gave::Sum(first), self.push(state, first)),
            Increment if super::number::is_integer(top) => {
                (Gave::Sum(top + first), self.replace(state, top + first))
            }
            Increment => (Gave::NoNumber, state),
            CompareAndReplace if !is_bound => (Gave::NotFound, state),
            CompareAndReplace if top == first => (Gave::Done, self.replace(state, second)),
            CompareAndReplace => (Gave::Changed, state),
            Update => (Gave::Value(top), self.replace(state, first)),
            UpdateAway => (Gave::Value(top), below),
            Clear => (Gave::List(depth, print), EMPTY),
        }
    }
}

impl Object for Stacks {
    type Op = Op;

    fn step(&mut self, state: u32, op: &Op) -> Option<u32> {
        let (gives, next) = self.apply(state, op.kind, op.arguments);
        op.gave.is_none_or(|gave| gave == gives).then_some(next)
    }

    fn only_looks(&self, op: &Op) -> bool {
        match op.gave {
            None => false,
            Some(Gave::Exists | Gave::Changed | Gave::NotFound | Gave::NoNumber) => true,
            Some(gave) => match op.kind {
                Find | Contains | FindAll | Touch => true,
                Remove => gave == Gave::Bool(false),
                UpdateAway => gave == Gave::Value(ABSENT),
                Clear => gave == Gave::List(0, 0),
                _ => false,
            },
        }
    }
}

/// Is it of no consequence that it was cut off?
pub(crate) fn is_idle(op: &Timed<Op>) -> bool {
    op.returned.is_none() && matches!(op.op.kind, Find | Contains | FindAll | Touch)
}
