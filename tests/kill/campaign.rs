//! Random kills by the thousand, in rounds: each has an object of its own, made in its own way, and ends with nothing in it.
//!
//! `NETSHM_KILLS` says how many. With `NETSHM_CAMPAIGN`, a directory, what was done is kept there (`state`), so that the
//! same command goes on after an interruption, and a report is written there (`report`).

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
use std::path::PathBuf;
use std::time::Duration;

const SHORT: u64 = 2000;
const LONG: u64 = 10_000;

/// A round of the short form is shorter, so that all kinds of objects get their turn.
fn kills_per_round() -> u64 {
    if setting("NETSHM_KILLS").is_none() && !support::long() { SHORT / 4 } else { 1000 }
}

pub(crate) fn random_kills() {
    let mut random = Random::from_environment("random_kills");
    let goal = setting("NETSHM_KILLS").unwrap_or(if support::long() { LONG } else { SHORT });
    let directory = std::env::var_os("NETSHM_CAMPAIGN").map(PathBuf::from);
    let mut tally = directory.as_ref().map_or_else(Tally::default, |d| Tally::load(d));
    let namespaces = may_have_namespaces();
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
        let plan = Plan { name: scratch.name().clone(), locking, checksums, seed: random.next() };
        let what = if locking == Locking::Record { "record" } else { "futex" };
        Round { scratch, plan, namespaces, what }
    }

    fn run(&self, kills: u64, tally: &mut Tally, random: &mut Random) -> String {
        // As long as the process: panic hooks refer to it.
        let office: &'static Office = Box::leak(Box::new(Office::new()));
        assert_eq!(fork(|| self.plan.found()).wait(), Exit::Code(0), "making the object");
        let mut site = Site::new(&self.plan, office, self.namespaces);
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
        tally.in_namespaces += site.in_namespaces;
        let pages: Vec<u64> = sizes.iter().map(|size| size.taken_pages).collect();
        let (what, sums) = (self.what, if self.plan.checksums { ", checksums" } else { "" });
        format!(
            "{what}{sums}: {kills} kills, {operations} operations, pages {pages:?}, cleared {}",
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
        assert!(last.used_pages <= 2 * first.used_pages + 4000, "the object grows and grows: {sizes:?}");
        sizes
    }

    /// One death or several, or none for comparison. Gives how many.
    fn event(&self, site: &mut Site<'_>, tally: &mut Tally, random: &mut Random) -> u64 {
        let at_stores = site.revive();
        tally.at_stores += at_stores;
        let observed = random.once_in(10);
        if observed && random.once_in(2) {
            let from = now_ns();
            site.watch();
            let slowest = site.wait_until_all_went_on(from);
            if site.at_stores == 0 {
                tally.time(self.what, "without a kill").note(slowest);
            }
            return at_stores;
        }
        let any = |random: &mut Random| random.below(PROCESSES.len() as u64) as usize;
        let stopped = random.once_in(12).then(|| any(random));
        if let Some(process) = stopped {
            // Whatever it holds, it holds for a while; perhaps it dies so.
            site.signal(process, libc::SIGSTOP);
            tally.stops += 1;
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
            site.signal(process, libc::SIGCONT);
        }
        let mut kills = at_stores + dead.len() as u64;
        if observed && stopped.is_none() && dead.len() < PROCESSES.len() {
            site.watch();
            let slowest = site.wait_until_all_went_on(from);
            tally.time(self.what, "after a kill").note(slowest);
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
