//! Goal: a process may be killed between any two machine instructions of the short operations, in the very
//! library that is shipped: release build, no hooks, called through its C face.
//!
//! Method: a child opens a copy of a template object with `libnetshm.so` and is single-stepped (ptrace) through
//! one operation. After every instruction the object's bytes are compared with what they were; each change gives
//! an image, which is what a death at that instruction would leave. Each image becomes a fresh file that nobody
//! holds; a process with a watchdog opens it, recovers, and must find the table as before or as after the
//! operation, nothing in between, never "before" again once it was "after", and nothing for the checker to
//! object to. Reading operations must not change a byte nor make a system call. A sample of real SIGKILLs at
//! random instructions makes sure that an image is indeed what a death leaves.
//!
//! `NETSHM_SO` names the library; else it is target/release/libnetshm.so of `cargo build --release`.

mod support_processes;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod steps {
    use super::support_processes::*;
    use netshm::{Error, HashTable, ManageOptions, Name, OpenOptions};
    use std::collections::BTreeMap;
    use std::ffi::{CString, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::time::Instant;

    // ---- the library -------------------------------------------------------------------------------

    type Handle = *mut c_void;
    type Setter = unsafe extern "C" fn(Handle, *const u8, usize) -> c_int;
    type Updater = unsafe extern "C" fn(Handle, *const c_void, usize, *mut c_void) -> c_int;
    type Store = unsafe extern "C" fn(Handle, *const u8, usize, *const u8, usize) -> c_int;

    /// The functions of include/netshm.h that are stepped through.
    #[derive(Clone, Copy)]
    struct Library {
        open: unsafe extern "C" fn(c_int, *const c_char, *const c_char, u32, u32, *mut Handle) -> c_int,
        manage: unsafe extern "C" fn(Handle, Handle, Handle, *const c_void, *mut Handle) -> c_int,
        table: unsafe extern "C" fn(Handle) -> Handle,
        add: Store,
        insert: Store,
        replace: Store,
        remove: unsafe extern "C" fn(Handle, *const u8, usize, *mut c_int) -> c_int,
        find: unsafe extern "C" fn(Handle, *const u8, usize, *mut u8, usize, *mut usize) -> c_int,
        mem: unsafe extern "C" fn(Handle, *const u8, usize, *mut c_int) -> c_int,
        incr: unsafe extern "C" fn(Handle, *const u8, usize, i64, i64, *mut i64) -> c_int,
        update: unsafe extern "C" fn(Handle, *const u8, usize, Updater, *mut c_void) -> c_int,
        update_set: Setter,
        cas: unsafe extern "C" fn(Handle, *const u8, usize, *const u8, usize, *const u8, usize) -> c_int,
        begin: unsafe extern "C" fn(Handle, *mut Handle) -> c_int,
        commit: unsafe extern "C" fn(Handle) -> c_int,
    }

    const FILE: c_int = 2;
    const RDONLY: u32 = 1;
    const RDWR: u32 = 2;
    const NOT_FOUND: c_int = -1;

    fn so_path() -> PathBuf {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/libnetshm.so");
        std::env::var_os("NETSHM_SO").map_or_else(default, PathBuf::from)
    }

    /// Loads the library once; what is in the way is said, loudly, by each test.
    fn library() -> Option<Library> {
        static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| {
            let path = so_path();
            if !path.exists() {
                return Err(format!("{} is not there: cargo build --release makes it", path.display()));
            }
            load(&path)
        });
        match loaded {
            Ok(library) => Some(*library),
            Err(why) => {
                skip(&format!("stepping: {why}"));
                None
            }
        }
    }

    fn load(path: &Path) -> Result<Library, String> {
        let name = CString::new(path.as_os_str().as_bytes()).expect("has no NUL");
        // SAFETY: the name is a C string.
        let so = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if so.is_null() {
            return Err(format!("{} cannot be loaded", path.display()));
        }
        let symbol = |name: &str| {
            let name = CString::new(name).expect("has no NUL");
            // SAFETY: the library was just opened and stays open.
            unsafe { libc::dlsym(so, name.as_ptr()) }
        };
        if !symbol("netshm_test_panic").is_null() {
            return Err(format!("{} was built with the feature `inject`", path.display()));
        }
        macro_rules! function {
            ($name:literal) => {{
                let at = symbol($name);
                if at.is_null() {
                    return Err(format!("{} lacks {}", path.display(), $name));
                }
                // SAFETY: the types are those of include/netshm.h.
                unsafe { std::mem::transmute_copy(&at) }
            }};
        }
        Ok(Library {
            open: function!("netshm_open"),
            manage: function!("netshm_hashtbl_manage"),
            table: function!("netshm_hashtbl_table"),
            add: function!("netshm_hashtbl_add"),
            insert: function!("netshm_hashtbl_insert"),
            replace: function!("netshm_hashtbl_replace"),
            remove: function!("netshm_hashtbl_remove"),
            find: function!("netshm_hashtbl_find"),
            mem: function!("netshm_hashtbl_mem"),
            incr: function!("netshm_hashtbl_incr"),
            update: function!("netshm_hashtbl_update"),
            update_set: function!("netshm_update_set"),
            cas: function!("netshm_hashtbl_cas"),
            begin: function!("netshm_group_begin"),
            commit: function!("netshm_group_commit"),
        })
    }

    // ---- operations --------------------------------------------------------------------------------

    type Bytes = Vec<u8>;
    /// Bindings of each key, oldest first.
    type Model = BTreeMap<Bytes, Vec<Bytes>>;

    #[derive(Clone, Debug)]
    enum Op {
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
        fn on_model(&self, model: &mut Model) {
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

        fn keys(&self) -> Vec<Bytes> {
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

        fn on_rust(&self, t: &HashTable) {
            match self {
                Op::Add(key, value) => t.add(key, value).expect("adds"),
                Op::Replace(key, value) => t.replace(key, value).expect("replaces"),
                Op::Remove(key) => assert!(t.remove(key).expect("removes")),
                other => panic!("not for templates: {other:?}"),
            }
        }
    }

    /// Handles in the child.
    struct Opened {
        netshm: Library,
        object: Handle,
        table: Handle,
    }

    impl Opened {
        fn open(netshm: Library, path: &Path, flags: u32) -> Opened {
            let name = CString::new(path.as_os_str().as_bytes()).expect("has no NUL");
            let mut object = std::ptr::null_mut();
            // SAFETY: the arguments are as the header wants them.
            let code = unsafe {
                (netshm.open)(FILE, name.as_ptr(), std::ptr::null(), flags, 0o600, &raw mut object)
            };
            assert_eq!(code, 0, "opens");
            Opened { netshm, object, table: std::ptr::null_mut() }
        }

        fn run(&mut self, op: &Op) {
            let l = self.netshm;
            let t = self.table;
            // SAFETY: handles and buffers are alive, and lengths are theirs.
            let code = unsafe {
                match op {
                    Op::Find(key, value) => {
                        let mut buffer = [0u8; 512];
                        let mut len = 0;
                        let code =
                            (l.find)(t, key.as_ptr(), key.len(), buffer.as_mut_ptr(), 512, &raw mut len);
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
                    Op::Incr(key, delta) => {
                        let mut now = 0;
                        (l.incr)(t, key.as_ptr(), key.len(), *delta, 0, &raw mut now)
                    }
                    Op::Update(key, v) => {
                        let mut answer = (l.update_set, v.clone());
                        (l.update)(t, key.as_ptr(), key.len(), set, (&raw mut answer).cast())
                    }
                    Op::Cas(key, old, v) => {
                        (l.cas)(t, key.as_ptr(), key.len(), old.as_ptr(), old.len(), v.as_ptr(), v.len())
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

    fn key(n: u64) -> Bytes {
        format!("key {n}").into_bytes()
    }

    fn value(n: u64, len: usize) -> Bytes {
        (0..len as u64).map(|i| (n.wrapping_mul(31) + i * 7 + 1) as u8).collect()
    }

    /// One operation to be stepped through.
    struct Case {
        name: &'static str,
        /// The object before: all its bytes, and what is in it.
        template: Bytes,
        model: Model,
        flags: u32,
        /// What the child does before.
        warm: Vec<Op>,
        op: Op,
        /// It must not change a byte nor make a system call.
        reads_only: bool,
        /// Growing buckets must have grown.
        splits: bool,
    }

    /// Makes a template by the Rust face, and closes it.
    fn template(keys: u64) -> (Bytes, Model) {
        let s = Scratch::file(Path::new("/dev/shm"), "step-template");
        let mut model = Model::new();
        let mut ops: Vec<Op> = (0..keys).map(|n| Op::Add(key(n), value(n, 8))).collect();
        ops.push(Op::Add(key(3), value(33, 30)));
        ops.push(Op::Replace(b"counter".to_vec(), 41i64.to_le_bytes().to_vec()));
        for op in &ops {
            op.on_model(&mut model);
        }
        stage(20, || {
            let t = s.open();
            ops.iter().for_each(|op| op.on_rust(&t));
        });
        (std::fs::read(path_of(&s)).expect("reads"), model)
    }

    fn path_of(s: &Scratch) -> &Path {
        match &s.0 {
            Name::File(path) => path,
            other => panic!("{other:?} is no file"),
        }
    }

    fn buckets(bytes: &[u8]) -> u64 {
        netshm::check::check(&netshm::check::Bytes(bytes), &netshm::check::Options::default(), &mut |_| true)
            .buckets
    }

    /// The numbers of keys that are added one after another until one of the adds splits a bucket: that one.
    fn first_split(bytes: &[u8], first: u64) -> u64 {
        let s = Scratch::file(Path::new("/dev/shm"), "step-scan");
        std::fs::write(path_of(&s), bytes).expect("writes");
        let shared = Shared::new(1);
        stage(20, || {
            let t = s.open();
            let mut now = 0;
            for n in first.. {
                t.add(&key(n), &value(n, 8)).expect("adds");
                let before =
                    std::mem::replace(&mut now, buckets(&std::fs::read(path_of(&s)).expect("reads")));
                if before != 0 && now > before {
                    shared.set(0, n);
                    break;
                }
            }
        });
        shared.get(0)
    }

    fn cases() -> Vec<Case> {
        let (bytes, model) = template(20);
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
        let reading =
            |name, flags, op: Op| Case { reads_only: true, flags, ..case(name, vec![op.clone()], op) };
        let add = |n, len| Op::Add(key(n), value(n, len));
        let replace = |n, len| Op::Replace(key(n), value(n + 500, len));
        let stock = || vec![add(900, 8)];
        let hit = Op::Find(key(7), Some(value(7, 8)));
        let miss = Op::Find(key(777), None);
        let (full, full_model) = template(60);
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

    // ---- stepping ----------------------------------------------------------------------------------

    /// A child that has been stopped before its operation. Word 0 of `shared`: 1 inside of it, 2 done.
    fn start(case: &Case, path: &Path, shared: &Shared, library: Library) -> Option<Child> {
        std::fs::write(path, &case.template).expect("writes");
        let child = fork(120, || {
            // SAFETY: asks the parent to trace this process.
            if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
                // SAFETY: ends the process.
                unsafe { libc::_exit(77) };
            }
            let mut opened = Opened::open(library, path, case.flags);
            if !matches!(case.op, Op::Manage) {
                opened.run(&Op::Manage);
            }
            case.warm.iter().for_each(|op| opened.run(op));
            // SAFETY: stops this process.
            unsafe { libc::raise(libc::SIGSTOP) };
            shared.set(0, 1);
            opened.run(&case.op);
            shared.set(0, 2);
        });
        let mut status = 0;
        // SAFETY: it is our child.
        unsafe { libc::waitpid(child.pid, &raw mut status, 0) };
        if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP {
            return Some(child);
        }
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 77, "{}: {status:x}", case.name);
        std::mem::forget(child);
        skip("stepping: ptrace is not permitted here");
        None
    }

    /// One instruction. False: the child has ended.
    fn step(child: &Child, signal: &mut c_int) -> bool {
        let mut status = 0;
        // SAFETY: the child is traced by this thread, and stopped.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SINGLESTEP, child.pid, 0, *signal as usize), 0);
            libc::waitpid(child.pid, &raw mut status, 0);
        }
        assert!(libc::WIFSTOPPED(status), "the child died: {:?}", decode(status));
        let why = libc::WSTOPSIG(status);
        *signal = if why == libc::SIGTRAP { 0 } else { why };
        true
    }

    /// Where the child is.
    fn instruction_pointer(child: &Child) -> i64 {
        const RIP: usize = 16 * 8;
        // SAFETY: the child is traced by this thread, and stopped.
        unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, child.pid, RIP, 0) }
    }

    /// Is there a system call at that place?
    fn at_system_call(child: &Child, rip: i64) -> bool {
        // SAFETY: the child is traced by this thread, and stopped.
        let code = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child.pid, rip, 0) } as u64;
        // `syscall`, `sysenter`, `int 0x80`.
        matches!(code & 0xffff, 0x050f | 0x340f | 0x80cd)
    }

    /// The object's bytes, as the child changes them.
    struct Eye {
        file: std::fs::File,
        base: *mut c_void,
    }

    const WINDOW: usize = 64 << 20;

    impl Eye {
        fn open(path: &Path) -> Eye {
            use std::os::fd::AsRawFd;
            let file = std::fs::File::open(path).expect("opens");
            // SAFETY: a new mapping; what lies beyond the end of the file is not touched.
            let base = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    WINDOW,
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            assert_ne!(base, libc::MAP_FAILED);
            Eye { file, base }
        }

        fn len(&self) -> usize {
            (self.file.metadata().expect("has a length").len() as usize).min(WINDOW)
        }

        fn is(&self, image: &[u8]) -> bool {
            // SAFETY: the image is not longer than the file; the writer is stopped.
            unsafe { libc::memcmp(self.base, image.as_ptr().cast(), image.len()) == 0 }
        }

        fn take(&self, len: usize) -> Bytes {
            let mut image = vec![0; len];
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(self.base.cast::<u8>(), image.as_mut_ptr(), len) };
            image
        }
    }

    impl Drop for Eye {
        fn drop(&mut self) {
            // SAFETY: the mapping was made by `open`.
            unsafe { libc::munmap(self.base, WINDOW) };
        }
    }

    struct Trail {
        instructions: u64,
        system_calls: u64,
        /// The bytes before the operation, and after each instruction that changed them.
        images: Vec<Bytes>,
        /// The instruction that led to each image.
        at: Vec<u64>,
    }

    fn follow(case: &Case, library: Library) -> Option<Trail> {
        let s = Scratch::file(Path::new("/dev/shm"), "step");
        let shared = Shared::new(1);
        let child = start(case, path_of(&s), &shared, library)?;
        let eye = Eye::open(path_of(&s));
        let mut len = eye.len();
        let mut trail = Trail { instructions: 0, system_calls: 0, images: vec![eye.take(len)], at: vec![0] };
        let (mut signal, mut repeated) = (0, 0u64);
        while shared.get(0) < 2 {
            let inside = shared.get(0) == 1;
            let rip = instruction_pointer(&child);
            let calls = at_system_call(&child, rip);
            step(&child, &mut signal);
            if !inside {
                continue;
            }
            trail.instructions += 1;
            if calls {
                trail.system_calls += 1;
                len = eye.len();
            }
            // Every byte of a `rep movsb` is a step of its own; some of them will do.
            if instruction_pointer(&child) == rip {
                repeated += 1;
                if repeated % 257 != 5 {
                    continue;
                }
            }
            let last = trail.images.last().expect("there is one");
            if last.len() != len || !eye.is(last) {
                trail.images.push(eye.take(len));
                trail.at.push(trail.instructions);
                assert!(trail.images.len() < 1500, "{}: too many images for this test", case.name);
            }
        }
        // SAFETY: the child is traced by this thread, and stopped.
        unsafe { libc::ptrace(libc::PTRACE_CONT, child.pid, 0, 0) };
        child.succeeds();
        Some(trail)
    }

    // ---- judging -----------------------------------------------------------------------------------

    fn read_all(t: &HashTable) -> Model {
        let mut model = Model::new();
        for binding in t.iter() {
            let (key, value) = binding.expect("reads");
            model.entry(key).or_default().insert(0, value);
        }
        model
    }

    struct Judge<'a> {
        what: String,
        before: &'a Model,
        after: &'a Model,
        keys: &'a [Bytes],
        /// Does what a reader without recovery finds belong to one of the models? Not where an earlier death
        /// has left a committed group that nobody has brought to its end.
        readable: bool,
    }

    const BEFORE: u64 = 1;
    const AFTER: u64 = 2;

    impl Judge<'_> {
        /// In a process of its own: what a dead writer has left.
        fn judge(&self, name: &Name) -> u64 {
            let newest = |model: &Model, key: &Bytes| model.get(key).and_then(|v| v.last().cloned());
            // A reader that cannot recover sees the old or the new value, or gives up in time.
            let reader = OpenOptions::new().read_only(true).open(name).expect("opens read-only");
            match HashTable::manage(&reader, ManageOptions::new().lock_timeout_ms(5)) {
                Ok(reader) => {
                    for key in self.keys.iter().filter(|_| self.readable) {
                        match reader.find(key) {
                            Ok(found) => assert!(
                                found == newest(self.before, key) || found == newest(self.after, key),
                                "{}: a reader found {found:?}",
                                self.what
                            ),
                            Err(e) => assert!(matches!(e, Error::Timeout { .. }), "{}: {e}", self.what),
                        }
                    }
                }
                Err(e) => assert!(matches!(e, Error::Timeout { .. }), "{}: {e}", self.what),
            }
            drop(reader);
            let object = OpenOptions::new().open(name).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            // Together, in a group: a walk alone is no snapshot, and may meet one key before, another one after
            // the dead writer's group is brought to its end.
            let together = || self.keys.iter().map(|key| t.find(key)).collect::<Result<Vec<_>, Error>>();
            let seen = t.table().group_retry(None, together).expect("finds");
            let found = read_all(&t);
            let verdict = if found == *self.before {
                BEFORE
            } else if found == *self.after {
                AFTER
            } else {
                panic!("{}: neither before nor after: {found:?}", self.what);
            };
            let expected: Vec<_> = self.keys.iter().map(|key| newest(&found, key)).collect();
            assert_eq!(seen, expected, "{}: what a group sees first, and what is there then", self.what);
            assert_eq!(t.len().expect("counts"), found.values().map(|v| v.len() as u64).sum::<u64>());
            for (key, stack) in &found {
                let all: Vec<Bytes> = stack.iter().rev().cloned().collect();
                assert_eq!(t.find_all(key).expect("finds"), all, "{}", self.what);
            }
            let check = |when: &str| {
                let mut findings = Vec::new();
                let summary = object.check(|f| {
                    findings.push(f);
                    true
                });
                let summary = summary.unwrap_or_else(|e| panic!("{}, {when}: {e}: {findings:?}", self.what));
                assert!(summary.complete && summary.slots_active == 1, "{}, {when}: {summary:?}", self.what);
            };
            check("recovered");
            for key in self.keys {
                t.replace(key, b"judge").expect("replaces");
                t.add(key, &[7; 100]).expect("adds");
                assert!(t.remove(key).expect("removes"));
                assert_eq!(t.find(key).expect("finds").as_deref(), Some(&b"judge"[..]));
            }
            check("used");
            verdict
        }
    }

    /// The words in which two images differ.
    fn differences(old: &[u8], new: &[u8]) -> Vec<String> {
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let pairs = old.chunks(8).zip(new.chunks(8)).enumerate();
        let changed = pairs.filter(|(_, (old, new))| old != new);
        changed.map(|(i, (old, new))| format!("{:#x}: {:#x} -> {:#x}", 8 * i, word(old), word(new))).collect()
    }

    /// Judges images by two processes at a time; gives what each one shows.
    fn judge_all(case: &Case, images: &[Bytes], before: &Model, after: &Model) -> Vec<u64> {
        let shared = Shared::new(images.len());
        let keys = case.op.keys();
        let judge = |i: usize| {
            let s = Scratch::file(Path::new("/dev/shm"), "step-judge");
            std::fs::write(path_of(&s), &images[i]).expect("writes");
            let what = format!("{}, image {i} of {}", case.name, images.len());
            let judge = Judge { what, before, after, keys: &keys, readable: case.name != "recovery" };
            let name = s.0.clone();
            let child = fork(10, || shared.set(i, judge.judge(&name)));
            (s, child)
        };
        let mut running = std::collections::VecDeque::new();
        let end = |(i, _scratch, child): (usize, Scratch, Child)| {
            let end = child.wait();
            if end != End::Exit(0) {
                let changed = if i == 0 { Vec::new() } else { differences(&images[i - 1], &images[i]) };
                panic!("{}, image {i}: {end:?}; the instruction changed {}", case.name, changed.join(", "));
            }
        };
        for i in 0..images.len() {
            if running.len() == 2 {
                end(running.pop_front().expect("runs"));
            }
            let (scratch, child) = judge(i);
            running.push_back((i, scratch, child));
        }
        running.into_iter().for_each(end);
        (0..images.len()).map(|i| shared.get(i)).collect()
    }

    fn models(case: &Case) -> (Model, Model) {
        let mut before = case.model.clone();
        case.warm.iter().for_each(|op| op.on_model(&mut before));
        let mut after = before.clone();
        case.op.on_model(&mut after);
        (before, after)
    }

    pub(super) fn every_instruction() {
        let Some(library) = library() else { return };
        let _alone = alone();
        say(&format!("stepping through {}\n", so_path().display()));
        let (mut instructions, mut distinct) = (0, 0);
        let mut interrupted: Vec<(Bytes, Model, Bytes)> = Vec::new();
        for case in &cases() {
            let begin = Instant::now();
            let Some(trail) = follow(case, library) else { return };
            let images = &trail.images;
            if case.reads_only {
                assert_eq!(images.len(), 1, "{}: changed the object at {:?}", case.name, trail.at);
                assert_eq!(trail.system_calls, 0, "{}: makes system calls", case.name);
            }
            let (before, after) = models(case);
            let verdicts = judge_all(case, images, &before, &after);
            if !case.reads_only {
                assert_eq!(verdicts[0], BEFORE, "{}", case.name);
                assert_eq!(verdicts.last(), Some(&AFTER), "{}", case.name);
                assert!(verdicts.is_sorted(), "{}: back again: {verdicts:?}", case.name);
            }
            if case.splits {
                let (was, is) = (buckets(&images[0]), buckets(images.last().expect("there is one")));
                assert!(is > was, "{}: {was} buckets, then {is}", case.name);
            }
            let done = verdicts.iter().filter(|v| **v == AFTER).count();
            say(&format!(
                "  {:32} {:6} instructions, {:3} system calls, {:4} images ({:3} before, {:3} after), {:?}\n",
                case.name,
                trail.instructions,
                trail.system_calls,
                images.len(),
                images.len() - done,
                done,
                begin.elapsed()
            ));
            instructions += trail.instructions;
            distinct += images.len();
            if !case.reads_only {
                // The first image that shows the operation done has everything still to be applied.
                let first = verdicts.iter().position(|v| *v == AFTER).expect("there is one");
                let model = |v| if v == AFTER { after.clone() } else { before.clone() };
                for i in [first - 1, first] {
                    interrupted.push((images[i].clone(), model(verdicts[i]), case.op.keys()[0].clone()));
                }
            }
        }
        say(&format!("  in all: {instructions} instructions, {distinct} images\n"));

        // Death within recovery: changing a key that a dead writer has in hand.
        let step = if long_form() { 1 } else { 5 };
        let (mut instructions, mut distinct, mut calls) = (0, 0, 0);
        for (image, model, key) in interrupted.into_iter().rev().step_by(step) {
            let case = Case {
                name: "recovery",
                template: image,
                model,
                flags: RDWR,
                warm: Vec::new(),
                op: Op::Replace(key, value(4711, 8)),
                reads_only: false,
                splits: false,
            };
            let Some(trail) = follow(&case, library) else { return };
            let (before, after) = models(&case);
            let verdicts = judge_all(&case, &trail.images, &before, &after);
            assert!(verdicts.is_sorted() && verdicts.last() == Some(&AFTER), "recovery: {verdicts:?}");
            instructions += trail.instructions;
            calls += trail.system_calls;
            distinct += trail.images.len();
        }
        say(&format!("  recovery: {instructions} instructions, {calls} system calls, {distinct} images\n"));
    }

    pub(super) fn killed_at_random_instructions() {
        let Some(library) = library() else { return };
        let _alone = alone();
        let cases: Vec<Case> = cases().into_iter().filter(|c| !c.reads_only).collect();
        let mut lengths = vec![0; cases.len()];
        let mut random = Random(std::process::id() as u64);
        say(&format!("seed {}\n", std::process::id()));
        let rounds = if long_form() { 5000 } else { 100 };
        let mut seen = [0; 3];
        for round in 0..rounds {
            let n = round % cases.len();
            let case = &cases[n];
            if lengths[n] == 0 {
                let Some(trail) = follow(case, library) else { return };
                lengths[n] = trail.instructions;
            }
            let s = Scratch::file(Path::new("/dev/shm"), "step-kill");
            let shared = Shared::new(2);
            let Some(child) = start(case, path_of(&s), &shared, library) else { return };
            let mut signal = 0;
            let mut left = random.below(lengths[n]);
            let at = left;
            while shared.get(0) < 2 && left > 0 {
                left -= shared.get(0);
                step(&child, &mut signal);
            }
            assert_eq!(child.kill(), End::Signal(libc::SIGKILL));
            let (before, after) = models(case);
            let keys = case.op.keys();
            let what = format!("{}, killed at instruction {at}", case.name);
            let judge = Judge { what, before: &before, after: &after, keys: &keys, readable: true };
            fork(10, || shared.set(1, judge.judge(&s.0))).succeeds();
            seen[shared.get(1) as usize] += 1;
        }
        say(&format!(
            "{rounds} real deaths: {} before, {} after\n",
            seen[BEFORE as usize], seen[AFTER as usize]
        ));
        assert!(seen[BEFORE as usize] > 0 && seen[AFTER as usize] > 0);
    }

    /// Stores that do not change a byte are stores, too: the mapping is made read-only under the library.
    pub(super) fn finding_does_not_even_try_to_store() {
        let Some(library) = library() else { return };
        let _alone = alone();
        let (bytes, _) = template(3000);
        let s = Scratch::file(Path::new("/dev/shm"), "step-protect");
        std::fs::write(path_of(&s), bytes).expect("writes");
        stage(30, || {
            let mut opened = Opened::open(library, path_of(&s), RDWR);
            opened.run(&Op::Manage);
            opened.run(&Op::Add(key(9000), value(9000, 8)));
            let maps = std::fs::read_to_string("/proc/self/maps").expect("reads");
            let mut protected = 0;
            let file = path_of(&s).to_str().expect("is UTF-8");
            for line in maps.lines().filter(|l| l.contains(file) && l.contains(" rw-s ")) {
                let range = line.split(' ').next().expect("has a range");
                let (from, to) = range.split_once('-').expect("is a range");
                let [from, to] = [from, to].map(|n| usize::from_str_radix(n, 16).expect("is a number"));
                // SAFETY: it is a mapping of this process; a store to it is what the test is after.
                let code = unsafe { libc::mprotect(from as *mut c_void, to - from, libc::PROT_READ) };
                assert_eq!(code, 0, "protects");
                protected += 1;
            }
            assert!(protected > 0, "{maps}");
            for n in 0..3000 {
                if n != 3 {
                    opened.run(&Op::Find(key(n), Some(value(n, 8))));
                }
                opened.run(&Op::Find(key(n + 50_000), None));
                opened.run(&Op::Mem(key(n), true));
            }
        });
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::steps;

    #[test]
    fn every_instruction_of_the_short_operations() {
        steps::every_instruction();
    }

    #[test]
    fn killed_at_random_instructions() {
        steps::killed_at_random_instructions();
    }

    #[test]
    fn finding_does_not_even_try_to_store() {
        steps::finding_does_not_even_try_to_store();
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn every_instruction_of_the_short_operations() {
    support_processes::skip("stepping needs Linux on x86_64");
}
