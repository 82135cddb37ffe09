//! Calling the program's functions: the one place where the library leaves itself.
//!
//! Owns what happens when a callback does not return. Its types are `extern "C-unwind"`, which is what C and C++ have:
//! with plain "C" the compiler takes for granted that nothing unwinds out of them, leaves away what would stop it, and
//! a C++ exception would pass through to the caller or not, as the optimiser pleases.

use super::call::{Fault, Outcome};
use super::cursor::NETSHM_CONTINUE;
use std::ffi::c_int;
use std::io::Write;

/// Calls a function of the program's and gives its answer. If anything unwinds out of it, be it an exception or the end
/// of the thread, the process ends here, as the header says: C callers cannot be unwound, and a group may be open or a
/// lock held.
#[inline(always)]
pub(super) fn call_back<R>(function: impl FnOnce() -> R) -> R {
    let ends_process = EndsProcess;
    let answer = function();
    std::mem::forget(ends_process);
    answer
}

/// Is dropped by unwinding only.
struct EndsProcess;

impl Drop for EndsProcess {
    #[cold]
    fn drop(&mut self) {
        // Without a place to say it, the end is the same.
        let text = b"netshm: a callback was left by an exception or by the end of its thread\n";
        let _ = std::io::stderr().write_all(text);
        std::process::abort();
    }
}

/// Does the answer of a callback that is shown one thing after the other want more?
#[inline(always)]
pub(super) fn goes_on(answer: c_int) -> Outcome<bool> {
    if answer < 0 { Err(Fault::Answer(answer)) } else { Ok(answer == NETSHM_CONTINUE) }
}
