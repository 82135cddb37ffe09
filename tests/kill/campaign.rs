//! Random kills by the thousand, in rounds: each has an object of its own, made in its own way, and ends with nothing in it.
//!
//! `NETSHM_KILLS` says how many. With `NETSHM_CAMPAIGN`, a directory, what was done is kept there (`state`), so that the
//! same command goes on after an interruption, and a report is written there (`report`). Without either the long form has a
//! directory below `target`, and begins anew when it has come to its end.

use crate::audit::{self, Size};
use crate::book::*;
use crate::site::Site;
use crate::support::process::{Exit, fork, fork_into_namespace, now_ns};
use crate::support::random::Random;
use crate::support::scratch::Scratch;
use crate::support::{self, setting};
use crate::tables::Plan;
use crate::tally::Tally;
use netshm::{Locking, Object};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SHORT: u64 = 2000;
const LONG: u64 = 1_000_000;
/// A round with so many kills gives memory back, if it does so at all.
const ENOUGH: u64 = 50;

/// A round of the short form is shorter, so that all kinds of objects get their turn.
fn kills_per_round() -> u64 {
    if setting("NETSHM_KILLS").is_none() && !support::long() { SHORT / 4 } else { 1000 }
}

pub(crate) fn random_kills() {
    let mut random = Random::from_environment("random_kills");
    let goal = setting("NETSHM_KILLS").unwrap_or(if support::long() { LONG } else { SHORT });
    let directory = directory(goal);
    let mut tally = directory.as_ref().map_or_else(Tally::default, |d| Tally::load(d));
    let namespaces = may_have_namespaces();
    if !cfg!(feature = "inject") {
        println!(
            "SKIP: deaths at stores, stops amid changes, memory given back at once: they need --features inject"
        );
    }
    let before = (tally.kills, tally.given_back, tally.at_punches, tally.stopped_holders);
    while tally.kills < goal {
        let start = now_ns();
        let round = tally.rounds;
        let kills = kills_per_round().min(goal - tally.kills);
        let done = Round::new(round, namespaces, &mut random).run(kills, &mut tally, &mut random);
        tally.rounds += 1;
        tally.seconds += (now_ns() - start) / 1_000_000_000;
        println!("  {done}; in all {} kills in {} s", tally.kills, tally.seconds);
        if let Some(directory) = &directory {
            tally.save(directory);
        }
    }
    print!("{}", tally.report());
    if cfg!(feature = "inject") && tally.kills - before.0 >= SHORT {
        assert!(tally.given_back > before.1, "no memory was given back");
        assert!(tally.at_punches > before.2, "nobody has died while giving memory back");
        assert!(tally.stopped_holders > before.3, "nobody has stood still with a lock");
    }
}

/// Where the campaign is kept, if it is.
fn directory(goal: u64) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("NETSHM_CAMPAIGN") {
        return Some(PathBuf::from(directory));
    }
    if !support::long() || setting("NETSHM_KILLS").is_some() {
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kill-campaign");
    println!("  the campaign is kept in {}", directory.display());
    if Tally::load(&directory).kills >= goal {
        println!("  it has come to its end: a new one begins, the former report is report.before");
        std::fs::rename(directory.join("report"), directory.join("report.before")).expect("keeps the report");
        std::fs::remove_file(directory.join("state")).expect("begins anew");
    }
    Some(directory)
}

fn may_have_namespaces() -> bool {
    match fork_into_namespace(|| assert_eq!(std::process::id(), 1)) {
        Ok(mut child) => {
            assert_eq!(child.wait(), Exit::Code(0), "the first process of a namespace");
            true
        }
        Err(e) => {
            println!("SKIP: processes in PID namespaces of their own: {e}");
            false
        }
    }
}

struct Round {
    scratch: Scratch,
    plan: Plan,
    namespaces: bool,
    what: &'static str,
}

impl Round {
    /// All ways to make an object come in turn, unless the environment says how.
    fn new(number: u64, namespaces: bool, random: &mut Random) -> Round {
        let locking = match std::env::var_os("NETSHM_LOCKING") {
            Some(_) => support::locking(),
            None => [Locking::Futex, Locking::Record][number as usize % 2],
        };
        let asked = std::env::var_os("NETSHM_CHECKSUMS").is_some();
        let checksums = if asked { support::checksums() } else { number / 2 % 2 == 1 };
        let scratch = if number / 4 % 2 == 0 { Scratch::posix("kill") } else { Scratch::file("kill") };
        // One round in two, in turn for each way to make an object.
        let gives_back = cfg!(feature = "inject") && (number + number / 2 + number / 8) % 2 == 0;
        let seed = random.next();
        let plan = Plan { name: scratch.name().clone(), locking, checksums, seed, gives_back };
        let what = if locking == Locking::Record { "record" } else { "futex" };
        Round { scratch, plan, namespaces, what }
    }

    fn run(&self, kills: u64, tally: &mut Tally, random: &mut Random) -> String {
        // As long as the process: panic hooks refer to it.
        let office: &'static Office = Box::leak(Box::new(Office::new()));
        assert_eq!(fork(|| self.plan.found()).wait(), Exit::Code(0), "making the object");
        let mut site = Site::new(&self.plan, &self.scratch.path(), office, self.namespaces);
        (0..PROCESSES.len()).for_each(|process| site.start(process));
        site.watch();
        site.wait_until_all_went_on(now_ns());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let sizes = self.kill_and_audit(kills, &mut site, tally, random);
            site.end();
            audit::audit(&self.plan, office, 0, true);
            let cleared = audit::clear(&self.plan, sizes[0]);
            (sizes, cleared)
        }));
        (0..DESKS).for_each(|desk| _ = Object::unlink(&self.plan.backup_name(desk)));
        let Ok((sizes, cleared)) = outcome else { self.keep_what_failed() };
        let operations: u64 = office.desks().iter().map(Desk::ended).sum();
        tally.operations += operations;
        tally.enter(&site.counts);
        let given_back = office.given_back();
        tally.given_back += given_back;
        let enough = given_back > 0 || !self.plan.gives_back || kills < ENOUGH;
        assert!(enough, "{:?}: no memory was given back", self.plan);
        let pages: Vec<u64> = sizes.iter().map(|size| size.taken_pages).collect();
        let (what, sums) = (self.what, if self.plan.checksums { ", checksums" } else { "" });
        format!(
            "{what}{sums}: {kills} kills, {operations} operations, pages {pages:?}, cleared {}, {given_back} runs given back",
            cleared.taken_pages
        )
    }

    /// The object is wanted for looking into.
    fn keep_what_failed(&self) -> ! {
        let directory = std::env::var_os("NETSHM_CAMPAIGN").map_or_else(std::env::temp_dir, PathBuf::from);
        let kept = directory.join(format!("netshm-kill-failed-{}", self.plan.seed));
        let copied = std::fs::copy(self.scratch.path(), &kept);
        panic!("{:?}; a copy of the object: {} ({copied:?})", self.plan, kept.display());
    }

    fn kill_and_audit(
        &self,
        kills: u64,
        site: &mut Site<'_>,
        tally: &mut Tally,
        random: &mut Random,
    ) -> Vec<Size> {
        let every = kills.div_ceil(5).clamp(20, 250);
        let mut sizes = Vec::new();
        let mut done = 0;
        while done < kills {
            let before = done;
            done += self.event(site, tally, random);
            if before / every != done / every {
                let salvages = random.once_in(4);
                sizes.push(
                    site.while_paused(|site| audit::audit(&self.plan, site.office, DESKS as u64, salvages)),
                );
            }
        }
        tally.kills += done;
        // No leak: once all live and most die, the object has the size that it needs.
        let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
        let grows = if self.plan.gives_back {
            // What was given back lies in pieces between what was not, into which long values do not fit: then pages are used that
            // never were, but no more memory.
            last.taken_pages > 2 * first.taken_pages + 4000
        } else {
            last.used_pages > 2 * first.used_pages + 4000
        };
        assert!(!grows, "the object grows and grows: {sizes:?}");
        sizes
    }

    /// How long it takes from a moment on until all who are alive have gone on; none if meanwhile somebody has died by
    /// himself or stood still.
    fn time_all(&self, site: &mut Site<'_>, from: u64) -> Option<u64> {
        let before = (site.died(), site.counts.stops);
        let at_work = !site.is_stopped();
        site.watch();
        let slowest = site.wait_until_all_went_on(from);
        (at_work && before == (site.died(), site.counts.stops)).then_some(slowest)
    }

    /// One death or several, or none for comparison. Gives how many.
    fn event(&self, site: &mut Site<'_>, tally: &mut Tally, random: &mut Random) -> u64 {
        let died = site.revive();
        let observed = random.once_in(10);
        if observed && random.once_in(2) {
            if let Some(slowest) = self.time_all(site, now_ns()) {
                tally.time(self.what, "without a kill").note(slowest);
            }
            return died;
        }
        let any = |random: &mut Random| random.below(PROCESSES.len() as u64) as usize;
        let stopped = random.once_in(12).then(|| any(random));
        if let Some(process) = stopped {
            // Perhaps it dies so.
            site.stop(process);
            site.wait(Duration::from_micros(random.below(1500)));
        }
        // Survivors are killed while they recover what the first has left.
        let victims = if random.once_in(5) { 2 + random.below(3) } else { 1 };
        let from = now_ns();
        let mut dead = Vec::new();
        for n in 0..victims {
            if n > 0 {
                site.wait(Duration::from_micros(random.below(400)));
            }
            let process = any(random);
            if site.is_alive(process) {
                site.kill(process);
                dead.push(process);
            }
        }
        if let Some(process) = stopped {
            site.go_on(process);
        }
        let mut kills = died + dead.len() as u64;
        if observed && stopped.is_none() && dead.len() < PROCESSES.len() {
            if let Some(slowest) = self.time_all(site, from) {
                tally.time(self.what, "after a kill").note(slowest);
            }
        } else if random.once_in(3) {
            site.wait(Duration::from_micros(random.below(3000)));
        }
        for process in dead {
            site.start(process);
            // Some do not even get as far as to work.
            if random.once_in(5) {
                site.wait(Duration::from_micros(random.below(2000)));
                if site.is_alive(process) {
                    site.kill(process);
                    kills += 1;
                    site.start(process);
                }
            }
        }
        site.wait(Duration::from_micros(random.below(6000)));
        kills
    }
}
