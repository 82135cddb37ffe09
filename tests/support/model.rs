//! Operations as data; the table as a map of stacks; an actor that does operations on a real table.

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions, Update};
use std::collections::BTreeMap;

/// Keys or values.
pub(crate) type Bytes = Vec<u8>;

/// Something to do with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Add(Bytes, Bytes),
    Replace(Bytes, Bytes),
    Insert(Bytes, Bytes),
    /// Several in one call, each a change of its own.
    ReplaceMany(Vec<(Bytes, Bytes)>),
    AddMany(Vec<(Bytes, Bytes)>),
    Remove(Bytes),
    Increment(Bytes, i64, i64),
    /// Under the key's lock: a new value, or the removal of the newest binding.
    Update(Bytes, Option<Bytes>),
    /// What becomes of each binding, newest first; older ones stay.
    UpdateStack(Bytes, Vec<Update>),
    /// Takes the key's lock and changes nothing.
    Touch(Bytes),
    CompareAndReplace(Bytes, Bytes, Bytes),
    Group(Vec<Op>),
    /// A group that is rolled back.
    Abort(Vec<Op>),
    /// Empties the object; a new table follows.
    Reinitialise,
    /// Empties the object of its table as well.
    Truncate,
    /// Makes or finds a named table.
    MakeNamed(&'static str),
    /// Removes a named table.
    DropNamed(&'static str),
    /// A group over the unnamed table and a named one, which is made first if need be.
    GroupOfTwo(&'static str, Vec<Op>, Vec<Op>),
    /// Opens the object, creating it if need be.
    Open,
    /// Makes or finds the table.
    Manage,
    /// Gives up all handles, and with them registration and slots.
    Close,
    Check,
    Length,
    /// So many more threads take part, and stay.
    Threads(usize),
}

/// What an operation gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Found(bool),
    Sum(i64),
    Count(u64),
    Failed(Error),
}

/// What a table is supposed to hold: for each key its bindings, the newest last. Keys of named tables are
/// there as well, see [`named_key`]; that a table exists is a binding of its empty key,
/// which it does not really hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model(pub(crate) BTreeMap<Bytes, Vec<Bytes>>);

impl Model {
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Bytes> {
        self.0.get(key).and_then(|stack| stack.last())
    }

    pub(crate) fn len(&self) -> u64 {
        let unnamed = self.0.iter().filter(|(key, _)| !key.starts_with(NAMED));
        unnamed.map(|(_, stack)| stack.len() as u64).sum()
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.0.entry(key.to_vec()).or_default().push(value.to_vec());
    }

    fn pop(&mut self, key: &[u8]) -> bool {
        let Some(stack) = self.0.get_mut(key) else { return false };
        stack.pop();
        if stack.is_empty() {
            self.0.remove(key);
        }
        true
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.pop(key);
        self.push(key, value);
    }

    /// Does the operation, and tells what it gives.
    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Add(k, v) => self.push(k, v),
            Op::Replace(k, v) => self.set(k, v),
            Op::Insert(k, v) => {
                if self.0.contains_key(k) {
                    return Outcome::Failed(Error::Exists);
                }
                self.push(k, v);
            }
            Op::ReplaceMany(bindings) => bindings.iter().for_each(|(k, v)| self.set(k, v)),
            Op::AddMany(bindings) => bindings.iter().for_each(|(k, v)| self.push(k, v)),
            Op::Remove(k) => return Outcome::Found(self.pop(k)),
            Op::Increment(k, delta, initial) => return self.increment(k, *delta, *initial),
            Op::Update(k, Some(v)) => self.set(k, v),
            Op::Update(k, None) => {
                self.pop(k);
            }
            Op::UpdateStack(k, updates) => self.update_stack(k, updates),
            Op::CompareAndReplace(k, old, new) => match self.newest(k) {
                None => return Outcome::Failed(Error::NotFound),
                Some(now) if now != old => return Outcome::Failed(Error::Changed),
                Some(_) => self.set(k, new),
            },
            Op::Group(ops) => {
                for op in ops {
                    self.apply(op);
                }
            }
            Op::Reinitialise | Op::Truncate => self.0.clear(),
            Op::MakeNamed(name) => self.make(name),
            Op::DropNamed(name) => {
                let prefix = named_key(name, b"");
                if !self.0.contains_key(&prefix) {
                    return Outcome::Failed(Error::NotFound);
                }
                self.0.retain(|key, _| !key.starts_with(&prefix));
            }
            Op::GroupOfTwo(name, ops, named) => {
                self.make(name);
                for op in ops {
                    self.apply(op);
                }
                for op in named {
                    match op {
                        Op::Add(k, v) => self.push(&named_key(name, k), v),
                        Op::Replace(k, v) => self.set(&named_key(name, k), v),
                        Op::Remove(k) => drop(self.pop(&named_key(name, k))),
                        other => panic!("{other:?} is not for named tables"),
                    }
                }
            }
            Op::Length => return Outcome::Count(self.len()),
            Op::Abort(_) | Op::Touch(_) | Op::Open | Op::Manage | Op::Close | Op::Check | Op::Threads(_) => {}
        }
        Outcome::Done
    }

    fn update_stack(&mut self, key: &[u8], updates: &[Update]) {
        let Some(stack) = self.0.remove(key) else { return };
        let mut answers = updates.iter();
        let mut newest_first = Vec::new();
        for value in stack.into_iter().rev() {
            match answers.next() {
                Some(Update::Remove) => {}
                Some(Update::Replace(new)) => newest_first.push(new.clone()),
                Some(Update::Keep) | None => newest_first.push(value),
            }
        }
        newest_first.reverse();
        if !newest_first.is_empty() {
            self.0.insert(key.to_vec(), newest_first);
        }
    }

    fn make(&mut self, name: &str) {
        self.0.entry(named_key(name, b"")).or_insert_with(|| vec![Bytes::new()]);
    }

    fn increment(&mut self, key: &[u8], delta: i64, initial: i64) -> Outcome {
        let old = match self.newest(key) {
            None => initial,
            Some(value) => match <[u8; 8]>::try_from(value.as_slice()) {
                Ok(bytes) => i64::from_le_bytes(bytes),
                Err(_) => {
                    return Outcome::Failed(Error::Type {
                        asked: "an integer of 8 bytes".into(),
                        recorded: format!("a value of {} bytes", value.len()),
                    });
                }
            },
        };
        let Some(sum) = old.checked_add(delta) else { return Outcome::Failed(Error::Overflow) };
        self.set(key, &sum.to_le_bytes());
        Outcome::Sum(sum)
    }
}

/// What the keys of named tables begin with in a model.
const NAMED: &[u8] = b"\0named\0";

/// A key of a named table, as it is in a model.
fn named_key(name: &str, key: &[u8]) -> Bytes {
    [NAMED, name.as_bytes(), b"\0", key].concat()
}

/// Keys of the unnamed table that operations name.
pub(crate) fn keys_of(ops: &[Op]) -> Vec<Bytes> {
    let mut keys = Vec::new();
    for op in ops {
        match op {
            Op::Add(k, _) | Op::Replace(k, _) | Op::Insert(k, _) | Op::Remove(k) | Op::Touch(k) => {
                keys.push(k.clone());
            }
            Op::Increment(k, ..) | Op::Update(k, _) | Op::CompareAndReplace(k, ..) => keys.push(k.clone()),
            Op::UpdateStack(k, _) => keys.push(k.clone()),
            Op::ReplaceMany(bindings) | Op::AddMany(bindings) => {
                keys.extend(bindings.iter().map(|(k, _)| k.clone()));
            }
            Op::Group(ops) | Op::Abort(ops) | Op::GroupOfTwo(_, ops, _) => keys.extend(keys_of(ops)),
            _ => {}
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// A process's handles to an object.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) name: Name,
    pub(crate) options: ManageOptions,
    pub(crate) object: Option<Object>,
    pub(crate) table: Option<HashTable>,
}

impl Actor {
    /// Nothing is opened yet.
    pub(crate) fn new(name: &Name, options: &ManageOptions) -> Actor {
        Actor { name: name.clone(), options: options.clone(), object: None, table: None }
    }

    /// Opens the object, creating it if need be.
    pub(crate) fn object(&mut self) -> Object {
        if self.object.is_none() {
            self.object = Some(OpenOptions::new().create(true).open(&self.name).expect("opens"));
        }
        self.object.clone().expect("just opened")
    }

    pub(crate) fn table(&mut self) -> HashTable {
        if self.table.is_none() {
            let object = self.object();
            self.table = Some(HashTable::manage(&object, &self.options).expect("manages"));
        }
        self.table.clone().expect("just managed")
    }

    pub(crate) fn close(&mut self) {
        self.table = None;
        self.object = None;
    }

    /// Does an operation.
    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Reinitialise => {
                let object = self.object();
                let options = self.options.clone().reinitialise(true).clone();
                match HashTable::manage(&object, &options) {
                    Ok(table) => self.table = Some(table),
                    Err(e) => return Outcome::Failed(e),
                }
            }
            Op::Truncate => {
                self.table = None;
                self.object = Some(OpenOptions::new().truncate(true).open(&self.name).expect("truncates"));
            }
            Op::MakeNamed(name) => {
                if let Err(e) = self.named(name) {
                    return Outcome::Failed(e);
                }
            }
            Op::DropNamed(name) => {
                if let Err(e) = self.object().drop_table(name) {
                    return Outcome::Failed(e);
                }
            }
            Op::GroupOfTwo(name, ops, others) => {
                let (table, named) = (self.table(), self.named(name));
                let in_both =
                    |named: &HashTable| in_group(&table, ops).and_then(|()| in_group(named, others));
                if let Err(e) = named.and_then(|named| table.table().group(|| in_both(&named))) {
                    return Outcome::Failed(e);
                }
            }
            Op::Open => drop(self.object()),
            Op::Manage => drop(self.table()),
            Op::Close => self.close(),
            Op::Check => {
                super::scratch::assert_object_sound(&self.object());
            }
            Op::Threads(n) => self.more_threads(*n),
            op => return do_on_table(&self.table(), op),
        }
        Outcome::Done
    }

    /// The same as one consistent snapshot, which recovers whoever died on the way.
    pub(crate) fn dump_in_group(&mut self) -> Model {
        let table = self.table();
        table.table().group(|| Ok::<Model, Error>(self.dump())).expect("reads in a group")
    }

    fn more_threads(&mut self, n: usize) {
        for _ in 0..n {
            let table = self.table();
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                table.update(b"nobody's", |_| Update::Keep).expect("takes part");
                tell.send(()).expect("is waited for");
                loop {
                    std::thread::park();
                }
            });
            told.recv().expect("the thread takes part");
        }
    }

    /// Everything that the tables hold, by iteration.
    pub(crate) fn dump(&mut self) -> Model {
        let mut all = dump(&self.table());
        for info in self.object().tables().expect("lists") {
            let name = info.name.as_deref().unwrap_or_default();
            if name.is_empty() {
                continue;
            }
            all.make(name);
            for (key, stack) in dump(&self.named(name).expect("manages")).0 {
                all.0.insert(named_key(name, &key), stack);
            }
        }
        all
    }

    fn named(&mut self, name: &str) -> netshm::Result<HashTable> {
        let object = self.object();
        HashTable::manage(&object, self.options.clone().root(name))
    }
}

/// Does an operation on a table.
pub(crate) fn do_on_table(t: &HashTable, op: &Op) -> Outcome {
    let done = match op {
        Op::Add(k, v) => t.add(k, v),
        Op::Replace(k, v) => t.replace(k, v),
        Op::Insert(k, v) => t.insert(k, v),
        Op::ReplaceMany(bindings) => t.replace_many(bindings).map_err(Error::from),
        Op::AddMany(bindings) => t.add_many(bindings).map_err(Error::from),
        Op::Remove(k) => {
            return match t.remove(k) {
                Ok(found) => Outcome::Found(found),
                Err(e) => Outcome::Failed(e),
            };
        }
        Op::Increment(k, delta, initial) => {
            return match t.increment(k, *delta, *initial) {
                Ok(sum) => Outcome::Sum(sum),
                Err(e) => Outcome::Failed(e),
            };
        }
        Op::Update(k, Some(v)) => t.update(k, |_| Update::Replace(v.clone())),
        Op::Update(k, None) => t.update(k, |_| Update::Remove),
        Op::UpdateStack(k, updates) => {
            let mut updates = updates.iter().cloned();
            t.update_stack(k, |_| Ok(updates.next()))
        }
        Op::Touch(k) => t.update(k, |_| Update::Keep),
        Op::CompareAndReplace(k, old, new) => t.compare_and_replace(k, old, new),
        Op::Length => {
            return match t.len() {
                Ok(n) => Outcome::Count(n),
                Err(e) => Outcome::Failed(e),
            };
        }
        Op::Group(ops) => t.table().group(|| in_group(t, ops)),
        Op::Abort(ops) => {
            let aborted = t.table().group(|| in_group(t, ops).and(Err::<(), Error>(Error::Aborted)));
            match aborted {
                Err(Error::Aborted) => Ok(()),
                other => other,
            }
        }
        other => panic!("{other:?} is no operation on a table"),
    };
    match done {
        Ok(()) => Outcome::Done,
        Err(e) => Outcome::Failed(e),
    }
}

/// The operations of a group; those that fail for reasons of their own leave it usable.
fn in_group(t: &HashTable, ops: &[Op]) -> netshm::Result<()> {
    for op in ops {
        match do_on_table(t, op) {
            Outcome::Failed(Error::Exists | Error::NotFound | Error::Changed) => {}
            Outcome::Failed(Error::Type { .. } | Error::Overflow) => {}
            Outcome::Failed(e) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Everything that a table holds, by iteration.
pub(crate) fn dump(t: &HashTable) -> Model {
    let mut all: BTreeMap<Bytes, Vec<Bytes>> = BTreeMap::new();
    for binding in t.iter() {
        let (key, value) = binding.expect("iterates");
        all.entry(key).or_default().push(value);
    }
    for stack in all.values_mut() {
        stack.reverse();
    }
    Model(all)
}

/// Says where two models differ, shortly.
pub(crate) fn difference(is: &Model, should: &Model) -> String {
    let short = |stack: Option<&Vec<Bytes>>| match stack {
        None => "nothing".to_string(),
        Some(stack) => format!("{:?}", stack.iter().map(|v| (v.len(), v.first())).collect::<Vec<_>>()),
    };
    let mut text = String::new();
    let keys: std::collections::BTreeSet<&Bytes> = is.0.keys().chain(should.0.keys()).collect();
    for key in keys {
        if is.0.get(key) != should.0.get(key) {
            let name = String::from_utf8_lossy(key);
            text += &format!("{name}: {} instead of {}; ", short(is.0.get(key)), short(should.0.get(key)));
        }
        if text.len() > 500 {
            break;
        }
    }
    text
}
