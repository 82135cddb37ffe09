//! What is stepped through, and the objects that it begins with.

use crate::library::*;
use crate::model::*;
use crate::ops::*;
use crate::support_processes::{Scratch, Shared, stage};
use netshm::{
    Array, HashTable, Locking, ManageOptions, Name, Object, OpenOptions, PrimitiveTable, TypedHashTable,
};
use std::path::Path;
use std::rc::Rc;

pub(crate) fn key(n: u64) -> Bytes {
    format!("key {n}").into_bytes()
}

pub(crate) fn value(n: u64, len: usize) -> Bytes {
    (0..len as u64).map(|i| (n.wrapping_mul(31) + i * 7 + 1) as u8).collect()
}

/// One operation to be stepped through.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The object before: all its bytes, and what is in it.
    pub(crate) template: Rc<[u8]>,
    pub(crate) model: Model,
    pub(crate) flags: u32,
    /// What the child does before.
    pub(crate) warm: Vec<Op>,
    pub(crate) op: Op,
    /// It must not change a byte nor make a system call.
    pub(crate) reads_only: bool,
    /// What it must have done besides, as a figure of the first and of the last image shows.
    pub(crate) proof: Option<Proof>,
    /// Another process waits for a change of the key.
    pub(crate) sleeper: bool,
}

impl Case {
    /// An operation by whoever may write, and that nothing else is to be said about.
    fn on(template: &Rc<[u8]>, model: &Model, name: &'static str, warm: Vec<Op>, op: Op) -> Case {
        Case {
            name,
            template: template.clone(),
            model: model.clone(),
            flags: RDWR,
            warm,
            op,
            reads_only: false,
            proof: None,
            sleeper: false,
        }
    }
}

/// What can be seen of an operation's way in its images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Proof {
    /// A bucket is split.
    Splits,
    /// Blocks are given back to the slabs.
    GivesBack,
}

/// How objects are made.
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    locking: Locking,
    checksums: bool,
}

pub(crate) const FUTEX: Mode = Mode { name: "futex", locking: Locking::Futex, checksums: false };
pub(crate) const CHECKSUMS: Mode = Mode { name: "checksums", locking: Locking::Futex, checksums: true };
pub(crate) const RECORD: Mode = Mode { name: "record", locking: Locking::Record, checksums: false };

/// Makes a template by the Rust face, and closes it: the unnamed table, and the others if `all` are wanted.
pub(crate) fn template(keys: u64, mode: &Mode, all: bool) -> (Rc<[u8]>, Model) {
    let s = Scratch::file(Path::new("/dev/shm"), "step-template");
    let mut model = Model::default();
    let mut ops: Vec<Op> = (0..keys).map(|n| Op::Add(key(n), value(n, 8))).collect();
    ops.push(Op::Add(key(3), value(33, 30)));
    ops.push(Op::Replace(b"counter".to_vec(), 41i64.to_le_bytes().to_vec()));
    for op in &ops {
        op.on_model(&mut model);
    }
    if all {
        furnish(&mut model);
    }
    stage(20, || {
        let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
        let options = ManageOptions::new().locking(mode.locking).checksums(mode.checksums).clone();
        let t = HashTable::manage(&object, &options).expect("manages");
        ops.iter().for_each(|op| op.on_rust(&t));
        make_named(&object, &options, &model);
    });
    (std::fs::read(path_of(&s)).expect("reads").into(), model)
}

/// What the named tables of templates hold.
fn furnish(model: &mut Model) {
    let typed = |n: i64| (format!("key {n}"), vec![(n, Some(format!("text {n}")))]);
    model.typed = Some((0..10).map(typed).collect());
    // Key 1 has a binding of several fragments.
    let stacks =
        [(1, vec![vec![1], vec![2; 40], vec![3; 1030]]), (2, vec![vec![7; 3]]), (-3, vec![vec![9; 7]])];
    model.words = Some(stacks.into());
    let elements = [0, 1, 5, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK + 7];
    let set = elements.into_iter().map(|i| (i, 1000 + i as i64)).collect();
    model.numbers = Some(Numbers { length: LENGTH, set });
}

/// Makes the named tables of a model.
fn make_named(object: &Object, options: &ManageOptions, model: &Model) {
    let named = |root: &str| options.clone().root(root).clone();
    if let Some(stacks) = &model.typed {
        let t = TypedHashTable::<String, Typed>::manage(object, &named("typed")).expect("manages");
        for (key, stack) in stacks {
            stack.iter().for_each(|value| t.add(key, value).expect("adds"));
        }
    }
    if let Some(stacks) = &model.words {
        let t = PrimitiveTable::manage(object, &named("words")).expect("manages");
        for (key, stack) in stacks {
            stack.iter().for_each(|value| t.add(*key, value).expect("adds"));
        }
    }
    if let Some(numbers) = &model.numbers {
        let a = Array::manage_i64(object, UNSET, numbers.length, &named("numbers")).expect("manages");
        numbers.set.iter().for_each(|(i, value)| a.set_i64(*i, *value).expect("sets"));
    }
}

pub(crate) fn path_of(s: &Scratch) -> &Path {
    match &s.0 {
        Name::File(path) => path,
        other => panic!("{other:?} is no file"),
    }
}

/// What the checker counts in an object, also while it is in use.
pub(crate) fn summary(bytes: &[u8]) -> netshm::check::Summary {
    netshm::check::check(&netshm::check::Bytes(bytes), &netshm::check::Options::default(), &mut |_| true)
}

impl Proof {
    /// Has it happened between two images?
    pub(crate) fn holds(self, old: &[u8], new: &[u8]) -> bool {
        let (old, new) = (summary(old), summary(new));
        match self {
            Proof::Splits => new.buckets > old.buckets,
            Proof::GivesBack => new.custody < old.custody,
        }
    }
}

/// The number of the first of some operations that gives the proof.
fn first(proof: Proof, bytes: &[u8], ops: impl Iterator<Item = Op>) -> usize {
    let s = Scratch::file(Path::new("/dev/shm"), "step-scan");
    std::fs::write(path_of(&s), bytes).expect("writes");
    let shared = Shared::new(1);
    stage(20, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let image = || std::fs::read(path_of(&s)).expect("reads");
        let mut before = Bytes::new();
        for (n, op) in ops.enumerate() {
            op.on_rust(&t);
            let old = std::mem::replace(&mut before, image());
            if !old.is_empty() && proof.holds(&old, &before) {
                shared.set(0, n as u64);
                break;
            }
        }
    });
    assert!(shared.get(0) > 0, "{proof:?}: none does it");
    shared.get(0) as usize
}

pub(crate) fn cases(mode: &Mode) -> Vec<Case> {
    let (bytes, model) = template(20, mode, false);
    let case = |name, warm, op| Case::on(&bytes, &model, name, warm, op);
    let reading = |name, flags, op: Op| Case { reads_only: true, flags, ..case(name, vec![op.clone()], op) };
    let add = |n, len| Op::Add(key(n), value(n, len));
    let replace = |n, len| Op::Replace(key(n), value(n + 500, len));
    let stock = || vec![add(900, 8)];
    let hit = Op::Find(key(7), Some(value(7, 8)));
    let miss = Op::Find(key(777), None);
    let full = template(60, mode, false);
    let adds = |n: usize| add(1000 + n as u64, 8);
    let removals = |n: usize| Op::Remove(key(10 + n as u64));
    // After so many of them the next one does it.
    let splits = first(Proof::Splits, &full.0, (0..5000).map(adds));
    let gives_back = first(Proof::GivesBack, &full.0, (0..50).map(removals));
    let last_of = |name, proof, ops: &dyn Fn(usize) -> Op, n: usize| Case {
        template: full.0.clone(),
        model: full.1.clone(),
        proof: Some(proof),
        ..case(name, (0..n).map(ops).collect(), ops(n))
    };
    let mut all = vec![
        reading("find, hit", RDWR, hit.clone()),
        reading("find, hit, read-only", RDONLY, hit),
        reading("find, miss", RDWR, miss.clone()),
        reading("find, miss, read-only", RDONLY, miss),
        reading("mem", RDWR, Op::Mem(key(7), true)),
        case("add, new key", stock(), add(500, 8)),
        case("add, new key, without stock", vec![], add(500, 8)),
        case("add, new key, a run of pages", stock(), add(500, 17_000)),
        case("add, old key", stock(), add(7, 8)),
        case("insert, new key", stock(), Op::Insert(key(500), value(500, 8))),
        case("replace, in place", stock(), replace(7, 8)),
        case("replace, moved", stock(), replace(7, 40)),
        case("remove", stock(), Op::Remove(key(7))),
        case("remove, uncovers an older one", stock(), Op::Remove(key(3))),
        case("increment", stock(), Op::Incr(b"counter".to_vec(), 1)),
        case("update, in place", stock(), Op::Update(key(7), value(507, 8))),
        case("update, in place, four words", stock(), Op::Update(key(3), value(503, 30))),
        case("update, moved", stock(), Op::Update(key(7), value(507, 40))),
        case("compare and replace", stock(), Op::Cas(key(7), value(7, 8), value(507, 8))),
        // Of one word, and nothing else, readers see no half, and are told nothing.
        case("group that replaces one word", stock(), Op::Group(vec![replace(7, 8)])),
        case("group that counts", stock(), Op::Group(vec![Op::Incr(b"counter".to_vec(), 1)])),
        case("group of two keys", stock(), Op::Group(vec![replace(7, 8), replace(8, 8)])),
        case(
            "group, all kinds",
            stock(),
            Op::Group(vec![add(501, 8), replace(7, 40), Op::Remove(key(8)), replace(9, 8)]),
        ),
        last_of("add that splits a bucket", Proof::Splits, &adds, splits),
        // Bindings of other lengths, and stacks of them.
        case("replace by a shorter value, same size", stock(), replace(7, 5)),
        case("replace by a longer one, old one below", stock(), replace(3, 200)),
        case("replace by a run of pages", stock(), replace(7, 17_000)),
        case("add a third binding", stock(), add(3, 12)),
        case("remove one of three", vec![add(900, 8), add(3, 12)], Op::Remove(key(3))),
        last_of("remove, gives blocks back", Proof::GivesBack, &removals, gives_back),
        case(
            "add_many",
            stock(),
            Op::AddMany((500..503).chain([7]).map(|n| (key(n), value(n, 8))).collect()),
        ),
        case(
            "replace_many",
            stock(),
            Op::ReplaceMany(vec![
                (key(7), value(507, 8)),
                (key(8), value(508, 40)),
                (key(3), value(503, 30)),
                (key(600), value(600, 8)),
            ]),
        ),
        Case { sleeper: true, ..case("replace, wakes who waits", stock(), replace(7, 8)) },
        case("sync", stock(), Op::Sync),
    ];
    all.extend(named_tables(mode));
    all
}

/// Operations on named tables: typed, primitive, arrays; and on the tables as a whole.
fn named_tables(mode: &Mode) -> Vec<Case> {
    let (bytes, model) = template(20, mode, true);
    let case = |name, warm, op| Case::on(&bytes, &model, name, warm, op);
    let text = |n: u64| format!("key {n}");
    let typed =
        |n: u64, text: &str| Op::ReplaceTyped(format!("key {n}"), (n as i64 + 100, Some(text.into())));
    let typed_stock = || vec![typed(1, "other ")];
    let word_stock = || vec![Op::AddWords(4, vec![4; 3])];
    let number_stock = || vec![Op::SetNumber(1, 1)];
    let number_case = |name, op| case(name, number_stock(), op);
    let slice = |first: u64, n: i64| Op::Slice(first, (0..n).map(|i| (i + 1) * 0x0101_0101).collect());
    let kinds = vec![
        Op::Replace(key(7), value(507, 8)),
        typed(4, "text 9"),
        Op::AddWords(2, vec![5; 4]),
        Op::SetNumber(5, 99),
        Op::Remove(key(8)),
    ];
    let warm_kinds = vec![typed(1, "other "), Op::AddWords(4, vec![4; 3]), Op::SetNumber(1, 1)];
    let more = || vec![Op::Make];
    vec![
        case("typed: replace, in place", typed_stock(), typed(4, "text 9")),
        case("typed: replace, moved", typed_stock(), typed(4, &"longer ".repeat(9))),
        case("typed: add", typed_stock(), Op::AddTyped(text(4), (5, None))),
        case("primitive: add", word_stock(), Op::AddWords(2, vec![5; 4])),
        case("primitive: replace", word_stock(), Op::ReplaceWords(2, vec![5; 3])),
        case("primitive: write_blocks changes", word_stock(), Op::WriteBlocks(2, vec![Edit::Shift(100)])),
        case(
            "primitive: write_blocks does both",
            word_stock(),
            Op::WriteBlocks(1, vec![Edit::Remove, Edit::Shift(100), Edit::Remove]),
        ),
        number_case("array: set", Op::SetNumber(5, 99)),
        number_case("array: set beside others", Op::SetNumber(6, 99)),
        number_case("array: set in a new chunk", Op::SetNumber(4 * CHUNK + 1, 99)),
        number_case("array: add", Op::IncrNumber(5, -10)),
        number_case("array: short slice", slice(2, 9)),
        number_case("array: longest slice in place", slice(2, 192)),
        number_case("array: slice in a new block", slice(2, 193)),
        number_case("array: short slice over two chunks", slice(CHUNK - 4, 9)),
        number_case("array: long slice over two chunks", slice(CHUNK - 193, 386)),
        number_case("array: resize, longer", Op::Resize(1 << 30)),
        number_case("array: resize, in a chunk", Op::Resize(3 * CHUNK + 7)),
        number_case("array: resize, by chunks", Op::Resize(CHUNK + 3)),
        case("group over all kinds", warm_kinds, Op::Group(kinds)),
        case("table made", vec![Op::Replace(key(900), value(900, 8))], Op::Make),
        case("table dropped", more(), Op::Drop),
    ]
}
