//! Goal: a process may be killed between any two machine instructions of the short operations, in the very
//! library that is shipped: release build, no hooks, called through its C face.
//!
//! Method: a child opens a copy of a template object with `libnetshm.so` and is single-stepped (ptrace) through
//! one operation: on a table of bytes, typed, primitive, an array, several of them in a group, or a table made or dropped. After
//! every instruction that may store, the object's bytes are compared with what they were; each change gives
//! an image, which is what a death at that instruction would leave. Each image becomes a fresh file that nobody
//! holds; a process with a watchdog opens it, recovers, and must find all tables as before or as after the
//! operation, nothing in between, never "before" again once it was "after", and nothing for the checker to
//! object to. An operation that is several changes has as many states, one after the other.
//! So it must when the recovery of an image is stepped through and ended at each of its instructions in turn: pairs
//! of deaths. Objects have futexes, checksums, or record locks. Reading operations must not change a byte nor make a system
//! call. A sample of real SIGKILLs at random instructions makes sure that an image is indeed what a death leaves.
//!
//! `NETSHM_SO` names the library; else it is target/release/libnetshm.so of `cargo build --release`.
//!
//! The short form steps through the recovery of one image of each case, with futexes, from all phases by turns, and takes half of
//! the cases with checksums or record locks besides. `NETSHM_LONG=1` takes all; it prints a line for each case.
//! `NETSHM_CAMPAIGN` names a directory that keeps which cases are done, so that the same command goes on after an interruption;
//! `NETSHM_PART=1/2` takes every second case (two processes may share a directory), `NETSHM_ONLY=array` those that have it in
//! their names. `NETSHM_STRETCHES=1` is much faster: of recoveries it does not step through what lies between two system calls
//! and leaves the object as it was before.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../support/campaign.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod campaign;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cases;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod child;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod judge;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod library;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod model;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod ops;
#[path = "../support_processes/mod.rs"]
mod support_processes;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sweep;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trail;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use crate::sweep;

    #[test]
    fn every_instruction_of_the_short_operations() {
        sweep::every_instruction();
    }

    #[test]
    fn killed_at_random_instructions() {
        sweep::killed_at_random_instructions();
    }

    #[test]
    fn finding_does_not_even_try_to_store() {
        sweep::finding_does_not_even_try_to_store();
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn every_instruction_of_the_short_operations() {
    support_processes::skip("stepping needs Linux on x86_64");
}
