//! What the adversarial tests share. Their binaries have a `main` of their own (`harness = false`): it stays
//! single-threaded and never touches an object itself, so that forking is harmless, and runs each test in a
//! forked child.
//!
//! - [`campaign`]: what a long run has finished, kept so that it can go on.
//! - [`scratch`]: objects with unique names that vanish with their guard; judging by the checker.
//! - [`process`]: forked children with watchdogs, pipes, memory that survives a kill.
//! - [`model`]: operations as data, the table as a map of stacks, and an actor that does both.
//! - [`random`]: a small generator, so that a seed repeats a run.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod campaign;
pub(crate) mod model;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod scratch;

use campaign::Campaign;
use random::Random;
use std::time::Instant;

/// A test: its name, and what it does. It fails by panicking.
pub(crate) type Test = (&'static str, fn());

/// Runs those tests whose name contains one of the arguments, or all.
pub(crate) fn main(tests: &[Test]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return;
    }
    let exact = arguments.iter().any(|a| a == "--exact");
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut failed = Vec::new();
    for (name, test) in tests {
        let chosen = wanted.iter().any(|w| if exact { *w == name } else { name.contains(w.as_str()) });
        if !chosen && !wanted.is_empty() {
            continue;
        }
        let start = Instant::now();
        let outcome = process::fork(test).wait();
        let seconds = start.elapsed().as_secs_f32();
        if outcome == process::Exit::Code(0) {
            println!("test {name} ... ok ({seconds:.1} s)");
        } else {
            println!("test {name} ... FAILED: {outcome:?} ({seconds:.1} s)");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(101);
    }
}

/// A number from the environment.
pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The locking method to test: futexes, or that of `NETSHM_LOCKING`, which is `futex` or `record`.
pub(crate) fn locking() -> netshm::Locking {
    match std::env::var("NETSHM_LOCKING").as_deref() {
        Err(_) | Ok("futex") => netshm::Locking::Futex,
        Ok("record") => netshm::Locking::Record,
        Ok(text) => panic!("NETSHM_LOCKING={text} is no locking method"),
    }
}

/// The locking method to test, as options.
pub(crate) fn options() -> netshm::ManageOptions {
    netshm::ManageOptions::new().locking(locking()).clone()
}

/// Are new objects to have checksums, by `NETSHM_CHECKSUMS`?
pub(crate) fn checksums() -> bool {
    setting("NETSHM_CHECKSUMS").is_some_and(|n| n != 0)
}

/// How objects are made, by the environment: part of the name of what a campaign has finished.
pub(crate) fn kind() -> &'static str {
    match (locking(), checksums()) {
        (netshm::Locking::Record, false) => "record",
        (netshm::Locking::Record, true) => "record, checksums",
        (_, false) => "futex",
        (_, true) => "futex, checksums",
    }
}

/// Rounds of a campaign, each with random choices of its own, so that any may be left out: those that are finished are.
/// `one` gives what it has counted.
pub(crate) fn rounds<const N: usize>(
    campaign: &mut Campaign,
    seed: u64,
    rounds: u64,
    mut one: impl FnMut(u64, &mut Random) -> [(&'static str, u64); N],
) {
    for round in 0..rounds {
        if campaign.begin(&format!("{}, seed {seed}, round {round}", kind())) {
            let counts = one(round, &mut Random::new(seed ^ round << 32));
            campaign.finish(&counts);
        }
    }
}

/// Settles the locking method of a new object, and whether it has checksums, so that tests whose subject is something
/// else run over all of these.
#[allow(dead_code, reason = "not every test uses it")]
pub(crate) fn settle_locking(object: &netshm::Object) {
    let settled = locking() == netshm::Locking::Futex && !checksums();
    if !settled && object.tables().expect("lists").is_empty() {
        let options = netshm::ManageOptions::new()
            .root("settles the locking")
            .locking(locking())
            .checksums(checksums())
            .clone();
        netshm::HashTable::manage(object, &options).expect("manages");
        // Another process may do the same at the same moment.
        let dropped = object.drop_table("settles the locking");
        assert!(matches!(dropped, Ok(()) | Err(netshm::Error::NotFound)), "{dropped:?}");
    }
}

/// Is the long form of the tests asked for?
pub(crate) fn long() -> bool {
    setting("NETSHM_LONG").is_some_and(|n| n != 0)
}
