//! Goal: processes at work are killed at random moments, again and again, and nothing is lost, half done, stuck or
//! leaked; those who survive hardly notice.
//!
//! Method: four processes, two of them with two threads, work on one object with tables of all kinds: changes of own keys
//! alone and in groups, nested and aborted ones; increments of shared counters and elements, transfers between shared
//! accounts; primitive and typed bindings; slices and lengths of arrays; named tables that come and go; large values, so
//! that memory is given back; waiting for change, checks, syncs, backups. Each operation follows from the seed, the
//! desk and its number ([`step`]). Memory that survives kills holds the number of the operation that has begun,
//! and of the last one that has ended with what the desk's share of the object holds then ([`book`]). One or several
//! processes are killed at random moments, also while they begin, while they are stopped, and while they recover what
//! others have left, some by themselves at a random one of their shared stores or while they give memory back to the system, and begin
//! anew, some in PID namespaces of their own; some stand still for a while, mostly with a lock, and some of these die so: all
//! operations that had ended must be there, and the one in flight wholly or not at all. In one round of two memory is given back as soon
//! as it is free, and much comes and goes. At intervals everybody pauses, the checker must find nothing, and
//! everything is compared with the books ([`audit`]), in a salvaged copy as well; the object must stop growing, and when all is
//! removed its memory is free. A thread that ends no operation in 120 s is stuck. How long the others take to go on
//! is measured beside the same without a kill.
//!
//! 2,000 kills, or `NETSHM_KILLS`, or `NETSHM_LONG=1` for 1,000,000; see [`campaign`] for going on after an interruption.
//! Rounds with futexes and with record locks, with checksums and without take turns, unless `NETSHM_LOCKING` or
//! `NETSHM_CHECKSUMS` says otherwise. `NETSHM_SEED` repeats the operations, not the moments.

mod audit;
mod book;
mod campaign;
mod checker;
mod readers;
mod site;
mod step;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod tally;
mod worker;

fn main() {
    support::main(&[
        ("random_kills", campaign::random_kills),
        ("readers_among_kills", readers::readers_among_kills),
        #[cfg(feature = "inject")]
        (
            "a_reader_stopped_while_a_dead_writer_is_recovered",
            readers::a_reader_stopped_while_a_dead_writer_is_recovered,
        ),
        ("the_checker_among_single_operations", checker::the_checker_among_single_operations),
        ("the_checker_among_groups", checker::the_checker_among_groups),
        ("the_checker_among_those_who_close", checker::the_checker_among_those_who_close),
    ]);
}
