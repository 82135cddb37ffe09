//! What the tests of processes, space, growth and stepping share: objects that go away by themselves,
//! forked children that cannot hang, memory to talk through.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use netshm::check::Summary;
use netshm::{HashTable, ManageOptions, Name, Object, OpenOptions};
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// Tests that fork run one after another: a child must not inherit the locks of its neighbours.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is the long form asked for?
pub fn long_form() -> bool {
    std::env::var_os("NETSHM_LONG").is_some_and(|v| v != "0" && !v.is_empty())
}

/// Says loudly that something was not tested; past the harness, which hides what passing tests print.
pub fn skip(what: &str) {
    say(&format!("SKIP: {what}\n"));
}

/// Writes to standard error without locks, so that forked children may do it as well.
pub fn say(text: &str) {
    // SAFETY: the pointer and the length are those of the text.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// A name that is unlinked in the end.
pub struct Scratch(pub Name);

impl Scratch {
    /// A POSIX object.
    pub fn posix(tag: &str) -> Scratch {
        let unique = Scratch::unique(tag);
        Scratch(Name::posix(format!("/tmp/{unique}"), format!("/{unique}")))
    }

    /// A File object in a directory.
    pub fn file(directory: &Path, tag: &str) -> Scratch {
        Scratch(Name::File(directory.join(Scratch::unique(tag))))
    }

    fn unique(tag: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("netshm-{tag}-{}-{n}", std::process::id())
    }

    /// Opens or creates the object and manages it.
    pub fn open(&self) -> HashTable {
        open(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Object::unlink(&self.0);
    }
}

/// Options with the locking method to test: the default one, or that of `NETSHM_LOCKING`, which can be `record`.
pub fn options() -> ManageOptions {
    let mut options = ManageOptions::new();
    match std::env::var("NETSHM_LOCKING").as_deref() {
        Err(_) => {}
        Ok("record") => _ = options.locking(netshm::Locking::Record),
        Ok(text) => panic!("NETSHM_LOCKING={text} is no locking method for this test"),
    }
    options
}

/// Opens or creates the object and manages it.
pub fn open(name: &Name) -> HashTable {
    let object = OpenOptions::new().create(true).open(name).expect("opens");
    HashTable::manage(&object, &options()).expect("manages")
}

/// Opens or creates an object with so many buckets that different keys hardly ever share one: whoever holds
/// the lock of one key in a group is in nobody else's way.
pub fn open_wide(name: &Name) -> HashTable {
    let object = OpenOptions::new().create(true).open(name).expect("opens");
    HashTable::manage(&object, options().expected(1 << 20)).expect("manages")
}

/// Checks an object through a handle of its own: no finding, and everything looked at.
pub fn check(name: &Name) -> Summary {
    let object = OpenOptions::new().open(name).expect("opens for the check");
    check_object(&object)
}

/// Checks an object: no finding, and everything looked at.
pub fn check_object(object: &Object) -> Summary {
    let mut findings = Vec::new();
    let outcome = object.check(|f| {
        findings.push(f);
        findings.len() < 10
    });
    let summary = outcome.unwrap_or_else(|e| panic!("the checker: {e}: {findings:#?}"));
    assert!(summary.complete, "the checker gave up: {summary:?}");
    summary
}

/// A forked child.
pub struct Child {
    pub pid: libc::pid_t,
    waited: bool,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

/// Exit code of a child that panicked.
pub const PANICKED: i32 = 101;

/// Makes panics of children visible: the harness would catch what they print and they would take it along.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let home = std::process::id();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::process::id() == home {
                before(info);
            } else {
                say(&format!("[child {}] {info}\n", std::process::id()));
            }
        }));
    });
}

/// Forks. The child runs `body` and ends without any cleaning up; after `seconds` it is ended by SIGALRM.
pub fn fork(seconds: u32, body: impl FnOnce()) -> Child {
    fork_by(
        || {
            // SAFETY: the child may allocate, since glibc's allocator survives a fork.
            unsafe { libc::fork() }
        },
        seconds,
        body,
    )
}

/// Forks by the system call itself, which the C library does not notice. The caller has no other threads.
pub fn raw_fork(seconds: u32, body: impl FnOnce()) -> Child {
    fork_by(
        || {
            // SAFETY: without CLONE_VM, and without a stack of its own, that is a fork.
            unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t }
        },
        seconds,
        body,
    )
}

fn fork_by(how: impl FnOnce() -> libc::pid_t, seconds: u32, body: impl FnOnce()) -> Child {
    install_hook();
    let pid = how();
    assert!(pid >= 0, "forks");
    if pid == 0 {
        // SAFETY: plain system calls.
        unsafe { libc::alarm(seconds) };
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(body));
        // SAFETY: as above; destructors of what the parent also has must not run here.
        unsafe { libc::_exit(if outcome.is_ok() { 0 } else { PANICKED }) };
    }
    Child { pid, waited: false }
}

impl Child {
    /// Waits for the end.
    pub fn wait(mut self) -> End {
        let mut status = 0;
        loop {
            // SAFETY: the child is ours and was not waited for yet.
            let pid = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            if pid == self.pid {
                break;
            }
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR), "waits");
        }
        self.waited = true;
        decode(status)
    }

    /// Waits, and expects that all went well.
    #[track_caller]
    pub fn succeeds(self) {
        assert_eq!(self.wait(), End::Exit(0), "how the child ended (14 is the watchdog)");
    }

    /// Kills it, and waits.
    pub fn kill(self) -> End {
        // SAFETY: the child is ours and was not waited for yet.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        self.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.waited && std::thread::panicking() {
            // SAFETY: the child is ours and was not waited for yet.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// A wait status, decoded.
pub fn decode(status: i32) -> End {
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    }
}

/// Runs a whole scenario in a process of its own, with a watchdog: what it does to itself is no one else's.
/// `NETSHM_STAGE=here` keeps it in this process: ThreadSanitizer is blind in children of a process with threads.
#[track_caller]
pub fn stage(seconds: u32, body: impl FnOnce()) {
    match std::env::var("NETSHM_STAGE").as_deref() {
        Err(_) => fork(seconds, body).succeeds(),
        Ok("here") => body(),
        Ok(text) => panic!("NETSHM_STAGE={text} is no place for a stage"),
    }
}

/// Words that forked processes share.
pub struct Shared {
    words: *mut AtomicU64,
    count: usize,
}

// SAFETY: it is memory that is only accessed by atomic operations.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    pub fn new(count: usize) -> Shared {
        // SAFETY: a new anonymous mapping.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        Shared { words: at.cast(), count }
    }

    pub fn word(&self, i: usize) -> &AtomicU64 {
        assert!(i < self.count);
        // SAFETY: the mapping has that many words and stays until the value goes.
        unsafe { &*self.words.add(i) }
    }

    pub fn get(&self, i: usize) -> u64 {
        self.word(i).load(Ordering::SeqCst)
    }

    pub fn set(&self, i: usize, value: u64) {
        self.word(i).store(value, Ordering::SeqCst);
    }

    pub fn add(&self, i: usize, n: u64) -> u64 {
        self.word(i).fetch_add(n, Ordering::SeqCst)
    }

    /// Waits, spinning, until a word has reached a value.
    #[track_caller]
    pub fn wait_for(&self, i: usize, at_least: u64) {
        let begin = Instant::now();
        let mut rounds = 0u32;
        while self.get(i) < at_least {
            rounds += 1;
            if rounds % 64 == 0 {
                std::thread::yield_now();
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "word {i} never reached {at_least}");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`.
        unsafe { libc::munmap(self.words.cast(), self.count * 8) };
    }
}

/// A small generator of pseudo-random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Closes a descriptor that the test has made by a system call.
pub fn close(fd: RawFd) {
    // SAFETY: the caller owns it.
    unsafe { libc::close(fd) };
}

/// Size of a file's memory in 512-byte blocks, and its length.
pub fn blocks(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).expect("exists");
    (metadata.blocks(), metadata.len())
}

/// A small tmpfs in a mount namespace of this process alone; none if that is not permitted.
pub fn small_device(bytes: u64) -> Option<std::path::PathBuf> {
    let dir = std::path::PathBuf::from(format!("/tmp/netshm-device-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("makes a directory");
    device_at(&dir, bytes).then_some(dir)
}

/// Mounts a tmpfs of that many bytes at a directory, in a mount namespace of this process's own.
pub fn device_at(dir: &Path, bytes: u64) -> bool {
    // SAFETY: no memory is involved.
    let alone = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0 || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0
    };
    let private = libc::MS_REC | libc::MS_PRIVATE;
    alone && mount(Path::new("/"), private, None) && mount(dir, 0, Some(bytes))
}

/// Gives a device of [`device_at`] another size.
pub fn resize_device(dir: &Path, bytes: u64) -> bool {
    mount(dir, libc::MS_REMOUNT, Some(bytes))
}

fn mount(dir: &Path, flags: libc::c_ulong, bytes: Option<u64>) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let at = std::ffi::CString::new(dir.as_os_str().as_bytes()).expect("has no NUL");
    let size =
        std::ffi::CString::new(bytes.map_or(String::new(), |n| format!("size={n}"))).expect("has no NUL");
    // SAFETY: C strings that live during the call.
    unsafe { libc::mount(c"none".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, size.as_ptr().cast()) == 0 }
}
