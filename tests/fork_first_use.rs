//! Goal: a child that is forked while another thread of its parent takes its first session can take one as well.
//!
//! Method: the first session makes a key by the C library's `pthread_key_create`. Here is one that stays in that call until the
//! child has ended.

mod support_processes;

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use support_processes::*;

type Destructor = Option<unsafe extern "C" fn(*mut c_void)>;
type Create = unsafe extern "C" fn(*mut libc::pthread_key_t, Destructor) -> c_int;

/// The next call stays in it.
static IS_ARMED: AtomicBool = AtomicBool::new(false);
static IS_IN_IT: AtomicBool = AtomicBool::new(false);
static MAY_GO_ON: AtomicBool = AtomicBool::new(false);

/// Takes the place of the C library's.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_key_create(key: *mut libc::pthread_key_t, end: Destructor) -> c_int {
    if IS_ARMED.swap(false, Ordering::SeqCst) {
        IS_IN_IT.store(true, Ordering::SeqCst);
        while !MAY_GO_ON.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
    // SAFETY: it is the C library's, of this type.
    unsafe {
        let create = libc::dlsym(libc::RTLD_NEXT, c"pthread_key_create".as_ptr());
        std::mem::transmute::<*mut c_void, Create>(create)(key, end)
    }
}

#[test]
fn a_child_uses_the_library_that_another_thread_was_about_to_use_first() {
    let _alone = alone();
    let s = Scratch::posix("first-use");
    fork(30, || s.open().replace(b"k", b"v").expect("replaces")).succeeds();
    IS_ARMED.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| s.open().replace(b"parent", b"1").expect("replaces"));
        while !IS_IN_IT.load(Ordering::SeqCst) {
            assert!(!first.is_finished(), "makes a key");
            std::thread::yield_now();
        }
        let child = fork(30, || s.open().replace(b"child", b"1").expect("replaces"));
        let end = child.wait();
        MAY_GO_ON.store(true, Ordering::SeqCst);
        assert_eq!(end, End::Exit(0), "14 is the watchdog");
        first.join().expect("no panic");
    });
    let t = s.open();
    assert_eq!(t.find(b"child").expect("finds").as_deref(), Some(&b"1"[..]));
    assert_eq!(t.find(b"parent").expect("finds").as_deref(), Some(&b"1"[..]));
}
