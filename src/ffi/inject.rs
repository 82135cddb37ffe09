//! A hook for the tests of the C face, in builds with the feature `inject` only.

use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the next call of this thread that returns a code panic inside.
#[unsafe(no_mangle)]
pub extern "C" fn netshm_test_panic(armed: c_int) {
    ARMED.set(armed != 0);
}

/// Is the next call to panic?
pub(super) fn is_armed() -> bool {
    ARMED.get()
}

pub(super) fn panic_if_armed() {
    assert!(!ARMED.replace(false), "a test asked for this panic");
}
