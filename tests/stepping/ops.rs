//! Operations, on the model.

use crate::model::*;
use netshm::HashTable;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// The value expected.
    Find(Bytes, Option<Bytes>),
    Mem(Bytes, bool),
    Add(Bytes, Bytes),
    Insert(Bytes, Bytes),
    Replace(Bytes, Bytes),
    Remove(Bytes),
    Incr(Bytes, i64),
    /// By a callback that sets the value.
    Update(Bytes, Bytes),
    /// From the value that is there.
    Cas(Bytes, Bytes, Bytes),
    /// Each of them is a change of its own.
    AddMany(Vec<(Bytes, Bytes)>),
    ReplaceMany(Vec<(Bytes, Bytes)>),
    AddTyped(String, Typed),
    ReplaceTyped(String, Typed),
    AddWords(i32, Vec<i32>),
    ReplaceWords(i32, Vec<i32>),
    /// What is done to the bindings of a key, newest first.
    WriteBlocks(i32, Vec<Edit>),
    SetNumber(u64, i64),
    IncrNumber(u64, i64),
    Slice(u64, Vec<i64>),
    Resize(u64),
    Group(Vec<Op>),
    /// Views the table "more", which is made if it is not there.
    Make,
    /// Drops it.
    Drop,
    Sync,
    /// Manages the object (which recovers it).
    Manage,
}

/// What is done to a binding by blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Edit {
    Keep,
    /// Adds to each word.
    Shift(i32),
    Remove,
}

/// What an operation is about.
#[derive(Clone, Debug)]
pub(crate) enum Spot {
    Bytes(Bytes),
    Typed(String),
    Words(i32),
    /// So many elements from one on.
    Numbers(u64, u64),
    /// The table "more" itself.
    More,
}

impl Spot {
    /// What is there, as text.
    pub(crate) fn on_model(&self, model: &Model) -> String {
        match self {
            Spot::Bytes(key) => newest(Some(&model.bytes), key),
            Spot::Typed(key) => newest(model.typed.as_ref(), key),
            Spot::Words(key) => newest(model.words.as_ref(), key),
            Spot::Numbers(first, count) => {
                let numbers = model.numbers.as_ref().expect("there is an array");
                let inside = first + count <= numbers.length;
                let all = || (*first..first + count).map(|i| numbers.get(i)).collect::<Vec<_>>();
                format!("{:?}", inside.then(all))
            }
            Spot::More => format!("{:?}", model.more.is_some()),
        }
    }
}

impl Op {
    pub(crate) fn on_model(&self, model: &mut Model) {
        match self {
            Op::Find(key, value) => assert_eq!(model.bytes.get(key).and_then(|v| v.last()), value.as_ref()),
            Op::Mem(key, there) => assert_eq!(model.bytes.contains_key(key), *there),
            Op::Add(key, value) => model.bytes.entry(key.clone()).or_default().push(value.clone()),
            Op::Insert(key, value) => {
                assert!(model.bytes.insert(key.clone(), vec![value.clone()]).is_none());
            }
            Op::Replace(key, value) | Op::Update(key, value) | Op::Cas(key, _, value) => {
                replace(&mut model.bytes, key.clone(), value.clone());
            }
            Op::Remove(key) => {
                if let Some(stack) = model.bytes.get_mut(key) {
                    stack.pop();
                    if stack.is_empty() {
                        model.bytes.remove(key);
                    }
                }
            }
            Op::Incr(key, delta) => {
                let stack = model.bytes.get_mut(key).expect("the counter is there");
                let old = stack.pop().expect("has a binding");
                let sum = i64::from_le_bytes(old.try_into().expect("8 bytes")) + delta;
                stack.push(sum.to_le_bytes().to_vec());
            }
            Op::AddMany(_) | Op::ReplaceMany(_) | Op::Group(_) => {
                self.parts().iter().for_each(|op| op.on_model(model));
            }
            Op::AddTyped(key, value) => {
                let typed = model.typed.as_mut().expect("there is a typed table");
                typed.entry(key.clone()).or_default().push(value.clone());
            }
            Op::ReplaceTyped(key, value) => {
                replace(model.typed.as_mut().expect("there is one"), key.clone(), value.clone());
            }
            Op::AddWords(key, value) => {
                let words = model.words.as_mut().expect("there is a primitive table");
                words.entry(*key).or_default().push(value.clone());
            }
            Op::ReplaceWords(key, value) => {
                replace(model.words.as_mut().expect("there is one"), *key, value.clone());
            }
            Op::WriteBlocks(key, edits) => {
                let stack = model.words.as_mut().and_then(|words| words.get_mut(key)).expect("is bound");
                for (binding, edit) in (0..stack.len()).rev().zip(edits) {
                    match edit {
                        Edit::Keep => {}
                        Edit::Shift(by) => stack[binding].iter_mut().for_each(|word| *word += by),
                        Edit::Remove => _ = stack.remove(binding),
                    }
                }
            }
            Op::SetNumber(i, value) => model.numbers.as_mut().expect("there is an array").set(*i, *value),
            Op::IncrNumber(i, delta) => {
                let array = model.numbers.as_mut().expect("there is an array");
                array.set(*i, array.get(*i) + delta);
            }
            Op::Slice(first, values) => {
                let array = model.numbers.as_mut().expect("there is an array");
                (*first..).zip(values).for_each(|(i, value)| array.set(i, *value));
            }
            Op::Resize(length) => model.numbers.as_mut().expect("there is an array").resize(*length),
            Op::Make => _ = model.more.get_or_insert_default(),
            Op::Drop => model.more = None,
            Op::Sync | Op::Manage => {}
        }
    }

    /// The operations that it consists of.
    fn parts(&self) -> Vec<Op> {
        let each = |all: &[(Bytes, Bytes)], op: fn(Bytes, Bytes) -> Op| {
            all.iter().map(|(key, value)| op(key.clone(), value.clone())).collect()
        };
        match self {
            Op::AddMany(all) => each(all, Op::Add),
            Op::ReplaceMany(all) => each(all, Op::Replace),
            Op::Group(ops) => ops.clone(),
            _ => vec![self.clone()],
        }
    }

    /// The states that it leads through, from the one before: a death leaves one of them.
    pub(crate) fn states(&self, before: &Model) -> Vec<Model> {
        let steps = if matches!(self, Op::Group(_)) { vec![self.clone()] } else { self.parts() };
        let mut states = vec![before.clone()];
        for step in &steps {
            let mut state = states.last().expect("there is one").clone();
            step.on_model(&mut state);
            states.push(state);
        }
        states.dedup();
        states
    }

    pub(crate) fn spots(&self) -> Vec<Spot> {
        match self {
            Op::Find(key, _) | Op::Mem(key, _) | Op::Add(key, _) | Op::Insert(key, _) => {
                vec![Spot::Bytes(key.clone())]
            }
            Op::Replace(key, _) | Op::Remove(key) | Op::Incr(key, _) => vec![Spot::Bytes(key.clone())],
            Op::Update(key, _) | Op::Cas(key, _, _) => vec![Spot::Bytes(key.clone())],
            Op::AddTyped(key, _) | Op::ReplaceTyped(key, _) => vec![Spot::Typed(key.clone())],
            Op::AddWords(key, _) | Op::ReplaceWords(key, _) | Op::WriteBlocks(key, _) => {
                vec![Spot::Words(*key)]
            }
            Op::SetNumber(i, _) | Op::IncrNumber(i, _) => vec![Spot::Numbers(*i, 1)],
            Op::Slice(first, values) => vec![Spot::Numbers(*first, values.len() as u64)],
            Op::Resize(_) => vec![Spot::Numbers(0, 6), Spot::Numbers(3 * CHUNK, 9)],
            Op::AddMany(_) | Op::ReplaceMany(_) | Op::Group(_) => {
                self.parts().iter().flat_map(Op::spots).collect()
            }
            Op::Make | Op::Drop => vec![Spot::More],
            Op::Sync => vec![Spot::Bytes(crate::cases::key(7))],
            Op::Manage => Vec::new(),
        }
    }

    /// A change of what a process has in hand that has died in this one, when so many of its parts were done.
    pub(crate) fn meets(&self, done: usize, model: &Model) -> Op {
        let spots = self.spots();
        let spot = if matches!(self, Op::Group(_)) { &spots[0] } else { &spots[done.min(spots.len() - 1)] };
        match spot.clone() {
            Spot::Bytes(key) => Op::Replace(key, crate::cases::value(4711, 8)),
            Spot::Typed(key) => Op::ReplaceTyped(key, (4711, None)),
            Spot::Words(key) => Op::ReplaceWords(key, vec![4711]),
            Spot::Numbers(first, _) => {
                let inside = first < model.numbers.as_ref().expect("there is an array").length;
                Op::SetNumber(if inside { first } else { 0 }, 4711)
            }
            Spot::More if model.more.is_some() => Op::Drop,
            Spot::More => Op::Make,
        }
    }

    pub(crate) fn on_rust(&self, t: &HashTable) {
        match self {
            Op::Add(key, value) => t.add(key, value).expect("adds"),
            Op::Replace(key, value) => t.replace(key, value).expect("replaces"),
            Op::Remove(key) => assert!(t.remove(key).expect("removes")),
            other => panic!("not for templates: {other:?}"),
        }
    }
}
