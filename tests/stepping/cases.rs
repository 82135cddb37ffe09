//! What is stepped through: operations, on the library and on a model, and the objects that they begin with.

use crate::library::*;
use crate::support_processes::{Scratch, Shared, stage};
use netshm::{HashTable, Locking, ManageOptions, Name, OpenOptions};
use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(crate) type Bytes = Vec<u8>;
/// Bindings of each key, oldest first.
pub(crate) type Model = BTreeMap<Bytes, Vec<Bytes>>;

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
    Group(Vec<Op>),
    /// Manages the object (which recovers it).
    Manage,
}

impl Op {
    pub(crate) fn on_model(&self, model: &mut Model) {
        match self {
            Op::Find(key, value) => assert_eq!(model.get(key).and_then(|v| v.last()), value.as_ref()),
            Op::Mem(key, there) => assert_eq!(model.contains_key(key), *there),
            Op::Add(key, value) => model.entry(key.clone()).or_default().push(value.clone()),
            Op::Insert(key, value) => {
                assert!(model.insert(key.clone(), vec![value.clone()]).is_none());
            }
            Op::Replace(key, value) | Op::Update(key, value) | Op::Cas(key, _, value) => {
                let stack = model.entry(key.clone()).or_default();
                stack.pop();
                stack.push(value.clone());
            }
            Op::Remove(key) => {
                if let Some(stack) = model.get_mut(key) {
                    stack.pop();
                    if stack.is_empty() {
                        model.remove(key);
                    }
                }
            }
            Op::Incr(key, delta) => {
                let stack = model.get_mut(key).expect("the counter is there");
                let old = stack.pop().expect("has a binding");
                let sum = i64::from_le_bytes(old.try_into().expect("8 bytes")) + delta;
                stack.push(sum.to_le_bytes().to_vec());
            }
            Op::Group(ops) => ops.iter().for_each(|op| op.on_model(model)),
            Op::Manage => {}
        }
    }

    pub(crate) fn keys(&self) -> Vec<Bytes> {
        match self {
            Op::Find(key, _) | Op::Mem(key, _) | Op::Add(key, _) | Op::Insert(key, _) => {
                vec![key.clone()]
            }
            Op::Replace(key, _) | Op::Remove(key) | Op::Incr(key, _) => vec![key.clone()],
            Op::Update(key, _) | Op::Cas(key, _, _) => vec![key.clone()],
            Op::Group(ops) => ops.iter().flat_map(Op::keys).collect(),
            Op::Manage => Vec::new(),
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

/// Handles in the child.
pub(crate) struct Opened {
    pub(crate) netshm: Library,
    pub(crate) object: Handle,
    pub(crate) table: Handle,
}

impl Opened {
    pub(crate) fn open(netshm: Library, path: &Path, flags: u32) -> Opened {
        let name = CString::new(path.as_os_str().as_bytes()).expect("has no NUL");
        let mut object = std::ptr::null_mut();
        // SAFETY: the arguments are as the header wants them.
        let code =
            unsafe { (netshm.open)(FILE, name.as_ptr(), std::ptr::null(), flags, 0o600, &raw mut object) };
        assert_eq!(code, 0, "opens");
        Opened { netshm, object, table: std::ptr::null_mut() }
    }

    pub(crate) fn run(&mut self, op: &Op) {
        let l = self.netshm;
        let t = self.table;
        // SAFETY: handles and buffers are alive, and lengths are theirs.
        let code = unsafe {
            match op {
                Op::Find(key, value) => {
                    let mut buffer = [0u8; 512];
                    let mut len = 0;
                    let code = (l.find)(t, key.as_ptr(), key.len(), buffer.as_mut_ptr(), 512, &raw mut len);
                    match value {
                        Some(value) => {
                            assert!(code == 0 && buffer[..len] == value[..], "{code}");
                            code
                        }
                        None => code - NOT_FOUND,
                    }
                }
                Op::Mem(key, there) => {
                    let mut found = 7;
                    let code = (l.mem)(t, key.as_ptr(), key.len(), &raw mut found);
                    assert_eq!(found, *there as c_int);
                    code
                }
                Op::Add(key, v) => (l.add)(t, key.as_ptr(), key.len(), v.as_ptr(), v.len()),
                Op::Insert(key, v) => (l.insert)(t, key.as_ptr(), key.len(), v.as_ptr(), v.len()),
                Op::Replace(key, v) => (l.replace)(t, key.as_ptr(), key.len(), v.as_ptr(), v.len()),
                Op::Remove(key) => {
                    let mut there = 0;
                    let code = (l.remove)(t, key.as_ptr(), key.len(), &raw mut there);
                    assert_eq!(there, 1);
                    code
                }
                Op::Update(key, v) => {
                    let mut answer = (l.update_set, v.clone());
                    (l.update)(t, key.as_ptr(), key.len(), set, (&raw mut answer).cast())
                }
                Op::Cas(key, old, v) => {
                    (l.cas)(t, key.as_ptr(), key.len(), old.as_ptr(), old.len(), v.as_ptr(), v.len())
                }
                Op::Incr(key, delta) => {
                    let mut now = 0;
                    (l.incr)(t, key.as_ptr(), key.len(), *delta, 0, &raw mut now)
                }
                Op::Group(ops) => {
                    let mut group = std::ptr::null_mut();
                    assert_eq!((l.begin)((l.table)(t), &raw mut group), 0);
                    for op in ops {
                        self.run(op);
                    }
                    (l.commit)(group)
                }
                Op::Manage => {
                    let null = std::ptr::null_mut();
                    (l.manage)(self.object, null, null, std::ptr::null(), &raw mut self.table)
                }
            }
        };
        assert_eq!(code, 0, "{op:?}");
    }
}

/// Answers an update with the value that it is given.
unsafe extern "C" fn set(update: Handle, _: *const c_void, _: usize, answer: *mut c_void) -> c_int {
    const REPLACE: c_int = 1;
    // SAFETY: `run` gives this, and the update is the library's.
    let code = unsafe {
        let (set, value) = &*answer.cast::<(Setter, Bytes)>();
        set(update, value.as_ptr(), value.len())
    };
    if code == 0 { REPLACE } else { code }
}

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
    pub(crate) template: Bytes,
    pub(crate) model: Model,
    pub(crate) flags: u32,
    /// What the child does before.
    pub(crate) warm: Vec<Op>,
    pub(crate) op: Op,
    /// It must not change a byte nor make a system call.
    pub(crate) reads_only: bool,
    /// Growing buckets must have grown.
    pub(crate) splits: bool,
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

/// Makes a template by the Rust face, and closes it.
pub(crate) fn template(keys: u64, mode: &Mode) -> (Bytes, Model) {
    let s = Scratch::file(Path::new("/dev/shm"), "step-template");
    let mut model = Model::new();
    let mut ops: Vec<Op> = (0..keys).map(|n| Op::Add(key(n), value(n, 8))).collect();
    ops.push(Op::Add(key(3), value(33, 30)));
    ops.push(Op::Replace(b"counter".to_vec(), 41i64.to_le_bytes().to_vec()));
    for op in &ops {
        op.on_model(&mut model);
    }
    stage(20, || {
        let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
        let options = ManageOptions::new().locking(mode.locking).checksums(mode.checksums).clone();
        let t = HashTable::manage(&object, &options).expect("manages");
        drop(object);
        ops.iter().for_each(|op| op.on_rust(&t));
    });
    (std::fs::read(path_of(&s)).expect("reads"), model)
}

pub(crate) fn path_of(s: &Scratch) -> &Path {
    match &s.0 {
        Name::File(path) => path,
        other => panic!("{other:?} is no file"),
    }
}

pub(crate) fn buckets(bytes: &[u8]) -> u64 {
    netshm::check::check(&netshm::check::Bytes(bytes), &netshm::check::Options::default(), &mut |_| true)
        .buckets
}

/// The numbers of keys that are added one after another until one of the adds splits a bucket: that one.
pub(crate) fn first_split(bytes: &[u8], first: u64) -> u64 {
    let s = Scratch::file(Path::new("/dev/shm"), "step-scan");
    std::fs::write(path_of(&s), bytes).expect("writes");
    let shared = Shared::new(1);
    stage(20, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let mut now = 0;
        for n in first.. {
            t.add(&key(n), &value(n, 8)).expect("adds");
            let before = std::mem::replace(&mut now, buckets(&std::fs::read(path_of(&s)).expect("reads")));
            if before != 0 && now > before {
                shared.set(0, n);
                break;
            }
        }
    });
    shared.get(0)
}

pub(crate) fn cases(mode: &Mode) -> Vec<Case> {
    let (bytes, model) = template(20, mode);
    let case = |name, warm: Vec<Op>, op| Case {
        name,
        template: bytes.clone(),
        model: model.clone(),
        flags: RDWR,
        warm,
        op,
        reads_only: false,
        splits: false,
    };
    let reading = |name, flags, op: Op| Case { reads_only: true, flags, ..case(name, vec![op.clone()], op) };
    let add = |n, len| Op::Add(key(n), value(n, len));
    let replace = |n, len| Op::Replace(key(n), value(n + 500, len));
    let stock = || vec![add(900, 8)];
    let hit = Op::Find(key(7), Some(value(7, 8)));
    let miss = Op::Find(key(777), None);
    let (full, full_model) = template(60, mode);
    let split = first_split(&full, 1000);
    vec![
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
        case("group of two keys", stock(), Op::Group(vec![replace(7, 8), replace(8, 8)])),
        case(
            "group, all kinds",
            stock(),
            Op::Group(vec![add(501, 8), replace(7, 40), Op::Remove(key(8)), replace(9, 8)]),
        ),
        Case {
            name: "add that splits a bucket",
            template: full.clone(),
            model: full_model,
            splits: true,
            ..case("", (1000..split).map(|n| add(n, 8)).collect(), add(split, 8))
        },
    ]
}
