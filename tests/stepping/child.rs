//! Operations, on the library that is shipped.

use crate::library::*;
use crate::model::*;
use crate::ops::*;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Handles in the child.
pub(crate) struct Opened {
    pub(crate) netshm: Library,
    pub(crate) object: Handle,
    pub(crate) table: Handle,
    /// Those of named tables, which are viewed when they are used first.
    named: BTreeMap<&'static CStr, Handle>,
}

impl Opened {
    pub(crate) fn open(netshm: Library, path: &Path, flags: u32) -> Opened {
        let name = CString::new(path.as_os_str().as_bytes()).expect("has no NUL");
        let mut object = std::ptr::null_mut();
        // SAFETY: the arguments are as the header wants them.
        let code =
            unsafe { (netshm.open)(FILE, name.as_ptr(), std::ptr::null(), flags, 0o600, &raw mut object) };
        assert_eq!(code, 0, "opens");
        Opened { netshm, object, table: std::ptr::null_mut(), named: BTreeMap::new() }
    }

    /// The handle of a named table.
    fn named(&mut self, root: &'static CStr) -> Handle {
        if let Some(handle) = self.named.get(root) {
            return *handle;
        }
        let (l, o, null) = (self.netshm, self.object, std::ptr::null_mut());
        let options = Options { size: size_of::<Options>(), root: root.as_ptr(), ..Options::default() };
        let options: *const c_void = (&raw const options).cast();
        let mut handle = null;
        // SAFETY: the arguments are as the header wants them.
        let code = unsafe {
            match root.to_bytes() {
                b"words" => (l.table_manage)(o, options, &raw mut handle),
                b"numbers" => (l.array_manage)(o, UNSET, LENGTH, options, &raw mut handle),
                _ => (l.manage)(o, null, null, options, &raw mut handle),
            }
        };
        assert_eq!(code, 0, "{root:?}");
        self.named.insert(root, handle);
        handle
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
                Op::AddMany(all) => many(l.add_many, t, all),
                Op::ReplaceMany(all) => many(l.replace_many, t, all),
                Op::AddTyped(key, value) => typed(l.add_v, self.named(c"typed"), key, value),
                Op::ReplaceTyped(key, value) => typed(l.replace_v, self.named(c"typed"), key, value),
                Op::AddWords(key, w) => (l.table_add)(self.named(c"words"), *key, w.as_ptr(), w.len()),
                Op::ReplaceWords(key, w) => {
                    (l.table_replace)(self.named(c"words"), *key, w.as_ptr(), w.len())
                }
                Op::WriteBlocks(key, edits) => {
                    let mut editor = Editor { edits, binding: 0 };
                    let announced = if edits.contains(&Edit::Remove) { BLOCK_REMOVE } else { 0 };
                    let arg = (&raw mut editor).cast();
                    (l.write_blocks)(self.named(c"words"), announced as u32, *key, edit, arg)
                }
                Op::SetNumber(i, value) => (l.array_set)(self.named(c"numbers"), *i, *value),
                Op::IncrNumber(i, delta) => {
                    (l.array_incr)(self.named(c"numbers"), *i, *delta, std::ptr::null_mut())
                }
                Op::Slice(first, values) => {
                    (l.array_write)(self.named(c"numbers"), *first, values.len(), values.as_ptr().cast(), 8)
                }
                Op::Resize(length) => (l.array_resize)(self.named(c"numbers"), *length),
                Op::Group(ops) => {
                    let mut group = std::ptr::null_mut();
                    assert_eq!((l.begin)((l.table)(t), &raw mut group), 0);
                    for op in ops {
                        self.run(op);
                    }
                    (l.commit)(group)
                }
                Op::Make => {
                    self.named(c"more");
                    0
                }
                Op::Drop => (l.root_drop)(self.object, c"more".as_ptr()),
                Op::Sync => (l.sync)(self.object, 0),
                Op::Manage => {
                    let null = std::ptr::null_mut();
                    (l.manage)(self.object, null, null, std::ptr::null(), &raw mut self.table)
                }
            }
        };
        assert_eq!(code, 0, "{op:?}");
    }

    /// Waits until a key has another value than now; `asleep` is told when there is a stamp.
    pub(crate) fn wait_for_another_value(&mut self, key: &[u8], asleep: impl FnOnce()) {
        let (l, t) = (self.netshm, self.table);
        let value = || {
            let (mut buffer, mut len) = ([0u8; 512], 0);
            // SAFETY: handles and buffers are alive, and lengths are theirs.
            let code =
                unsafe { (l.find)(t, key.as_ptr(), key.len(), buffer.as_mut_ptr(), 512, &raw mut len) };
            assert_eq!(code, 0);
            buffer[..len].to_vec()
        };
        let mut stamp = 0;
        // SAFETY: as above.
        assert_eq!(unsafe { (l.stamp)(t, key.as_ptr(), key.len(), &raw mut stamp) }, 0);
        let old = value();
        asleep();
        while value() == old {
            // SAFETY: as above.
            assert_eq!(unsafe { (l.wait)(t, key.as_ptr(), key.len(), &raw mut stamp, -1) }, 0);
        }
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

/// What a walk over blocks does, and where it is.
struct Editor<'a> {
    edits: &'a [Edit],
    binding: usize,
}

/// Does to each binding what `Editor` says.
unsafe extern "C" fn edit(words: *mut i32, n: usize, arg: *mut c_void) -> c_int {
    // SAFETY: `run` gives this.
    let editor = unsafe { &mut *arg.cast::<Editor>() };
    let what = editor.edits.get(editor.binding).copied().unwrap_or(Edit::Keep);
    if words.is_null() {
        editor.binding += 1;
        return if what == Edit::Remove { BLOCK_GO | BLOCK_REMOVE } else { BLOCK_GO };
    }
    if let Edit::Shift(by) = what {
        // SAFETY: the fragment is the library's, for this call.
        unsafe { std::slice::from_raw_parts_mut(words, n) }.iter_mut().for_each(|word| *word += by);
    }
    BLOCK_GO
}

/// # Safety
/// The handle is one of a hash table.
unsafe fn many(function: StoreMany, t: Handle, all: &[(Bytes, Bytes)]) -> c_int {
    let slice = |bytes: &Bytes| Slice { data: bytes.as_ptr().cast(), len: bytes.len() };
    let keys: Vec<Slice> = all.iter().map(|(key, _)| slice(key)).collect();
    let values: Vec<Slice> = all.iter().map(|(_, value)| slice(value)).collect();
    let mut done = 0;
    // SAFETY: keys and values live during the call.
    let code = unsafe { function(t, keys.as_ptr(), values.as_ptr(), all.len(), &raw mut done) };
    assert_eq!(done, all.len());
    code
}

/// # Safety
/// The handle is one of a table from strings to `(int64,string?)`.
unsafe fn typed(function: StoreTyped, t: Handle, key: &str, value: &Typed) -> c_int {
    let text = |text: &str| Cell { kind: 4, reserved: 0, content: [text.as_ptr() as u64, text.len() as u64] };
    let cell = |kind, word| Cell { kind, reserved: 0, content: [word, 0] };
    let mut cells = vec![cell(1, value.0 as u64)];
    match &value.1 {
        Some(content) => cells.extend([cell(5, 0), text(content)]),
        None => cells.push(cell(6, 0)),
    }
    // SAFETY: the cells and what they point to live during the call.
    unsafe { function(t, [text(key)].as_ptr(), 1, cells.as_ptr(), cells.len()) }
}
