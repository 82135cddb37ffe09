//! The object under attack: a table of every kind in it, and the comparison of what they hold with what a desk knows.

use crate::book::*;
use crate::step::*;
use crate::support::model::Bytes;
use crate::support::process::now_ns;
use netshm::{
    Array, Error, HashTable, Locking, ManageOptions, Name, Object, OpenOptions, PrimitiveTable, TypedArray,
    TypedHashTable,
};

pub(crate) const OPENING_BALANCE: i64 = 1000;
pub(crate) const CAPITAL: i64 = OPENING_BALANCE * ACCOUNTS as i64;
/// Elements in a block of a desk's own array: three share a chunk. In a piece of the long array: four are more chunks than a
/// slot keeps blocks for without being asked.
pub(crate) const BLOCK_ELEMENTS: usize = 700;
pub(crate) const PIECE_ELEMENTS: usize = 33_000;

/// An object, and how it was made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) name: Name,
    pub(crate) locking: Locking,
    pub(crate) checksums: bool,
    pub(crate) seed: u64,
    /// Memory is given back to the system as soon as it is free, and much comes and goes.
    pub(crate) gives_back: bool,
}

impl Plan {
    pub(crate) fn options(&self) -> ManageOptions {
        ManageOptions::new().locking(self.locking).checksums(self.checksums).clone()
    }

    fn named(&self, root: &str) -> ManageOptions {
        self.options().root(root).clone()
    }

    /// The same object under another name.
    pub(crate) fn copied_to(&self, name: &Name) -> Plan {
        Plan { name: name.clone(), ..self.clone() }
    }

    /// Where a desk makes a backup.
    pub(crate) fn backup_name(&self, desk: usize) -> Name {
        Name::file(format!("/dev/shm/netshm-test-kill-backup-{}-{desk}", self.seed))
    }

    /// Makes the object with what all share.
    pub(crate) fn found(&self) {
        let t = Tables::open(self, 0);
        (0..ACCOUNTS).for_each(|n| t.raw.add(&account_key(n), &OPENING_BALANCE.to_le_bytes()).expect("adds"));
        (0..COUNTERS).for_each(|n| t.raw.add(&counter_key(n), &0i64.to_le_bytes()).expect("adds"));
        (0..ELEMENTS).for_each(|n| t.elements.set_i64(shared_element(n), 0).expect("sets"));
    }
}

/// Elements of the shared array that all add to; the desks' own ones lie beside the first one.
pub(crate) fn shared_element(n: usize) -> u64 {
    n as u64 * 5000
}

pub(crate) fn own_element(desk: usize) -> u64 {
    10 + desk as u64
}

pub(crate) fn text_index(desk: usize, n: usize) -> u64 {
    (desk * TEXTS + n) as u64
}

pub(crate) fn piece_index(desk: usize, n: usize) -> u64 {
    ((desk * PIECES + n) * PIECE_ELEMENTS) as u64
}

/// One desk's handles.
pub(crate) struct Tables {
    pub(crate) object: Object,
    pub(crate) raw: HashTable,
    pub(crate) typed: TypedHashTable<String, (i64, Option<String>)>,
    pub(crate) words: PrimitiveTable,
    pub(crate) elements: Array,
    pub(crate) blocks: Array,
    pub(crate) pieces: Array,
    pub(crate) texts: TypedArray<String>,
}

impl Tables {
    pub(crate) fn open(plan: &Plan, desk: usize) -> Tables {
        let object = OpenOptions::new().create(true).open(&plan.name).expect("opens");
        let array = |root: &str, length| {
            Array::manage_i64(&object, -1, length, &plan.named(root)).expect("is an array")
        };
        Tables {
            raw: HashTable::manage(&object, &plan.options()).expect("manages"),
            typed: TypedHashTable::manage(&object, &plan.named("typed")).expect("manages"),
            words: PrimitiveTable::manage(&object, &plan.named("words")).expect("manages"),
            elements: array("elements", 10_000),
            blocks: array(&format!("blocks {desk}"), 0),
            pieces: array("pieces", piece_index(DESKS, 0)),
            texts: TypedArray::manage(&object, "", text_index(DESKS, 0), &plan.named("texts"))
                .expect("manages"),
            object,
        }
    }

    pub(crate) fn root_name(desk: usize) -> String {
        format!("desk {desk}")
    }

    /// The desk's own table, which is there or is made.
    pub(crate) fn root(&self, plan: &Plan, desk: usize) -> HashTable {
        HashTable::manage(&self.object, &plan.named(&Tables::root_name(desk))).expect("manages")
    }

    /// Is what the desk's share holds what the book says? Err: what is not. Not `whole`: what cannot have been changed by
    /// the operation in flight is left out where that saves much time.
    pub(crate) fn compare(&self, plan: &Plan, desk: usize, book: &Book, whole: bool) -> Result<(), String> {
        let together = || {
            self.compare_bytes(desk, book, whole)?;
            self.compare_others(desk, book, whole)
        };
        // Under locks: what a dead one had committed is brought to its end first.
        self.raw.table().group_retry(None, together).map_err(Unequal::text)?;
        self.compare_root(plan, desk, book.0[ROOT]).map_err(Unequal::text)
    }

    fn compare_bytes(&self, desk: usize, book: &Book, whole: bool) -> Result<(), Unequal> {
        let lens = |all: &[Bytes]| all.iter().map(Vec::len).collect::<Vec<_>>();
        for key in 0..KEYS {
            let is = self.raw.find_all(&own_key(desk, key))?;
            let should: Vec<Bytes> = book.stack(key).iter().rev().map(|tag| value(desk, *tag)).collect();
            let unequal = || format!("key {key}: lengths {:?} instead of {:?}", lens(&is), lens(&should));
            equal(is == should, unequal)?;
        }
        let (from, to) = (book.0[QUEUE_FROM], book.0[QUEUE_TO]);
        let ends = |n: u64| whole || n <= from + 1 || n + 2 >= to;
        for n in (from.saturating_sub(2)..to + 2).filter(|n| ends(*n)) {
            let is = self.raw.find(&queue_key(desk, n))?;
            let should = (from..to).contains(&n).then(|| value(desk, n));
            equal(is == should, || format!("queue {n} of {from}..{to}: {:?}", is.map(|v| v.len())))?;
        }
        let marker = self.raw.find(&marker_key(desk))?.map_or(0, |v| number(Some(v)) as u64);
        equal(marker == book.0[MARKER], || format!("marker {marker} instead of {}", book.0[MARKER]))?;
        let (is, tag) = (self.raw.find(&ballast_key(desk))?, book.0[BALLAST]);
        let should = (tag != 0).then(|| ballast(desk, tag));
        equal(is == should, || format!("ballast of {:?} bytes instead of {tag}", is.map(|v| v.len())))
    }

    fn compare_others(&self, desk: usize, book: &Book, whole: bool) -> Result<(), Unequal> {
        for key in 0..TYPED_KEYS {
            let (is, tag) = (self.typed.find(&typed_key(desk, key))?, book.0[TYPED + key]);
            let should = (tag != 0).then(|| typed_value(tag));
            equal(is == should, || format!("typed {key}: {is:?} instead of {should:?}"))?;
        }
        for key in 0..WORD_KEYS {
            let is = self.words.find_all(word_key(desk, key))?;
            let stack = book.stack(KEYS + key).iter().rev();
            let should: Vec<Vec<i32>> = stack.map(|tag| words(key, *tag)).collect();
            equal(is == should, || format!("words {key}: {} instead of {}", is.len(), should.len()))?;
        }
        let (is, tag) = (self.elements.get_i64(own_element(desk))?, book.0[ELEMENT]);
        equal(is == element(tag, 0), || format!("element {is} instead of that of {tag}"))?;
        for n in 0..TEXTS {
            let (is, tag) = (self.texts.get(text_index(desk, n))?, book.0[TEXT + n]);
            equal(is == text(tag), || format!("text {n}: {is} instead of that of {tag}"))?;
        }
        let length = book.0[LENGTH] as usize;
        let is = self.blocks.length()? as usize;
        equal(is == length * BLOCK_ELEMENTS, || format!("length {is} instead of {length} blocks"))?;
        compare_slice(&self.blocks, 0, BLOCK_ELEMENTS, &book.0[BLOCK..BLOCK + length])?;
        if whole {
            compare_slice(
                &self.pieces,
                piece_index(desk, 0),
                PIECE_ELEMENTS,
                &book.0[PIECE..PIECE + PIECES],
            )?;
        }
        Ok(())
    }

    /// The desk's own table is only changed by the desk: it is looked up without a group.
    fn compare_root(&self, plan: &Plan, desk: usize, state: u64) -> Result<(), Unequal> {
        let name = Tables::root_name(desk);
        let is_there = self.object.tables()?.iter().any(|table| table.name.as_ref() == Some(&name));
        equal(is_there == (state != 0), || format!("own table: there {is_there}, instead of {state}"))?;
        if is_there {
            let table = self.root(plan, desk);
            let is = table.table().group_retry::<_, Error>(None, || table.find(b"filled"))?;
            let should = (state > 1).then(|| value(desk, state));
            equal(is == should, || format!("own table: {:?} instead of {state}", is.map(|v| v.len())))?;
        }
        Ok(())
    }

    /// Sum of all accounts; to be called in a group.
    pub(crate) fn sum_accounts(&self) -> netshm::Result<i64> {
        let mut sum = 0;
        for n in 0..ACCOUNTS {
            sum += number(self.raw.find(&account_key(n))?);
        }
        Ok(sum)
    }

    /// Removes everything that a desk has.
    pub(crate) fn clear(&self, desk: usize) {
        self.blocks.resize(0).expect("resizes");
        match self.object.drop_table(&Tables::root_name(desk)) {
            Ok(()) | Err(Error::NotFound) => {}
            Err(e) => panic!("dropping the own table: {e}"),
        }
    }

    /// Removes everything that all have.
    pub(crate) fn clear_shared(&self) {
        let keys: Vec<Bytes> = self.raw.keys().map(|k| k.expect("iterates")).collect();
        keys.iter().for_each(|key| while self.raw.remove(key).expect("removes") {});
        let keys: Vec<String> = self.typed.keys().map(|k| k.expect("iterates")).collect();
        keys.iter().for_each(|key| while self.typed.remove(key).expect("removes") {});
        let keys: Vec<i32> = self.words.keys().map(|k| k.expect("iterates")).collect();
        keys.iter().for_each(|key| while self.words.remove(*key).expect("removes") {});
        self.elements.resize(0).expect("resizes");
        self.pieces.resize(0).expect("resizes");
        self.texts.resize(0).expect("resizes");
    }

    /// Waits a moment for a change of a counter.
    pub(crate) fn wait(&self, counter: usize) {
        let key = counter_key(counter);
        let mut stamp = self.raw.stamp(&key).expect("has a stamp");
        let most = std::time::Duration::from_micros(now_ns() % 1000);
        self.raw.wait(&key, &mut stamp, Some(most)).expect("waits");
    }
}

fn compare_slice(array: &Array, first: u64, count: usize, tags: &[u64]) -> Result<(), Unequal> {
    let mut is = vec![0; tags.len() * count * 8];
    array.read(first, &mut is)?;
    let should: Bytes = tags.iter().flat_map(|tag| slice_part(*tag, count)).collect();
    equal(is == should, || {
        let at = is.iter().zip(&should).position(|(a, b)| a != b).unwrap_or(0) / 8;
        format!("slice from {first}: differs at {at}, tags {tags:?}")
    })
}

/// What a block or a piece holds; one that was never written shows the default.
pub(crate) fn slice_part(tag: u64, count: usize) -> Bytes {
    elements(tag, count)
}

pub(crate) fn number(value: Option<Vec<u8>>) -> i64 {
    let value = value.expect("has a value");
    i64::from_le_bytes(value.try_into().expect("8 bytes"))
}

/// Why a comparison has ended.
enum Unequal {
    What(String),
    Failed(Error),
}

impl From<Error> for Unequal {
    fn from(e: Error) -> Unequal {
        Unequal::Failed(e)
    }
}

impl Unequal {
    fn text(self) -> String {
        match self {
            Unequal::What(text) => text,
            Unequal::Failed(e) => panic!("comparing: {e}"),
        }
    }
}

fn equal(is: bool, what: impl FnOnce() -> String) -> Result<(), Unequal> {
    if is { Ok(()) } else { Err(Unequal::What(what())) }
}
