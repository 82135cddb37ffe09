//! What an object is expected to hold.

use std::collections::BTreeMap;

pub(crate) type Bytes = Vec<u8>;
/// Bindings of each key, oldest first.
pub(crate) type Stacks<K, V> = BTreeMap<K, Vec<V>>;
/// A value of the table of types, `(int64,string?)`.
pub(crate) type Typed = (i64, Option<String>);

/// Default value of the array's elements.
pub(crate) const UNSET: i64 = -1;
/// Elements in a chunk of the array.
pub(crate) const CHUNK: u64 = 2013;
pub(crate) const LENGTH: u64 = 5 * CHUNK;

/// The tables of an object: the unnamed one, and those named "typed", "words", "numbers" and "more", where they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) bytes: Stacks<Bytes, Bytes>,
    pub(crate) typed: Option<Stacks<String, Typed>>,
    pub(crate) words: Option<Stacks<i32, Vec<i32>>>,
    pub(crate) numbers: Option<Numbers>,
    pub(crate) more: Option<Stacks<Bytes, Bytes>>,
}

/// An array's length, and the elements that are set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) length: u64,
    pub(crate) set: BTreeMap<u64, i64>,
}

impl Numbers {
    pub(crate) fn get(&self, i: u64) -> i64 {
        self.set.get(&i).copied().unwrap_or(UNSET)
    }

    pub(crate) fn set(&mut self, i: u64, value: i64) {
        assert!(i < self.length);
        self.set.insert(i, value);
    }

    pub(crate) fn resize(&mut self, length: u64) {
        self.length = length;
        self.set.retain(|i, _| *i < length);
    }
}

/// The newest binding of a key, in words that can be compared with what is found.
pub(crate) fn newest<K: Ord, V: std::fmt::Debug>(stacks: Option<&Stacks<K, V>>, key: &K) -> String {
    format!("{:?}", stacks.and_then(|stacks| stacks.get(key)).and_then(|stack| stack.last()))
}

/// Replaces the newest binding, or adds one.
pub(crate) fn replace<K: Ord, V>(stacks: &mut Stacks<K, V>, key: K, value: V) {
    let stack = stacks.entry(key).or_default();
    stack.pop();
    stack.push(value);
}
