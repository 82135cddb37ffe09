//! Goal: what processes see of one object is what they would see if its operations happened one at a time: single
//! operations are linearizable, groups strictly serializable, also if processes are killed in the middle of them.
//!
//! Method: 2 to 8 processes work on a few hot keys and write down each operation with what it gave and two stamps of
//! one clock, in memory that outlives them. Afterwards checkers look for an order that explains the history: for
//! single keys and for groups one that searches (`linear`), for groups another one that draws a graph of what
//! depends on what (`graph`). The checkers are judged first: by histories made by hand, with seeded faults; by trying
//! all orders of small histories made by chance; and by real recordings of clients with a fault of their own.
//!
//! With the feature `inject` processes also stop for a while, or die, before any store of theirs, so that moments become long
//! which are short. In a campaign of its own all who die do so before a store: a recovery that replays nothing is found
//! out by the first recording or the second.
//!
//! `NETSHM_OPERATIONS` operations on single keys, and as many in groups, or `NETSHM_LONG=1` for 2,000,000 of each;
//! `NETSHM_LOCKING` for one locking method, else both. `NETSHM_SEED` repeats the choices, `NETSHM_ROUND` goes on at
//! that round, since each round is a recording of its own. `NETSHM_CAMPAIGN` names a directory that keeps which rounds are
//! done, so that the same command goes on after an interruption.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod graph;
mod journal;
mod linear;
mod number;
mod recording;
mod registers;
mod stack;
mod synthetic;

use client::{Fault, GROUP_FAULTS, SINGLE_FAULTS};
use netshm::Locking;
use recording::{Finding, Plan, Score, Subject, run};
use std::time::Instant;
use support::campaign::{Campaign, Counts};
use support::random::Random;

fn checkers_find_seeded_faults_in_histories_made_by_hand() {
    let (singles, groups) = synthetic::judge_those_made_by_hand();
    println!("  {singles} histories of single keys, {groups} of groups");
}

fn checkers_agree_with_trying_all_orders() {
    let mut random = Random::from_environment("checkers_agree_with_trying_all_orders");
    let rounds = if support::long() { 1_000_000 } else { 20_000 };
    let singles = synthetic::compare_on_single_keys(&mut random, rounds);
    let groups = synthetic::compare_on_groups(&mut random, rounds);
    println!(
        "  single keys: {} linearizable, {} not; groups: {} serializable, {} not",
        singles[0], singles[1], groups[0], groups[1]
    );
    assert!(singles[1] > rounds / 50 && groups[1] > rounds / 50, "hardly any fault");
}

fn stamps_of_all_processes_are_of_one_clock() {
    let turns = recording::clock_ascends(if support::long() { 1_000_000 } else { 10_000 })
        .unwrap_or_else(|e| panic!("the clock runs back: {e}"));
    println!("  {turns} stamps of two processes in turn ascend");
}

fn find_out(subject: Subject, fault: Fault, random: &mut Random) {
    for round in 1..=40 {
        let plan = Plan {
            subject,
            locking: Locking::Futex,
            processes: 4,
            entries: 1500,
            keys: 3,
            kills: 0,
            at_stores: false,
            grows: false,
            reader: false,
            alike: 0,
            stops: false,
            fault: Some(fault),
            seed: random.next(),
        };
        if let Err(Finding::Wrong(text)) = run(&plan) {
            println!("  {fault:?}: found in recording {round}: {}", text.lines().next().unwrap_or_default());
            return;
        }
    }
    panic!("{fault:?} was not found out");
}

fn clients_with_a_fault_are_found_out() {
    let mut random = Random::from_environment("clients_with_a_fault_are_found_out");
    SINGLE_FAULTS.into_iter().for_each(|fault| find_out(Subject::Singles, fault, &mut random));
    GROUP_FAULTS.into_iter().for_each(|fault| find_out(Subject::Groups, fault, &mut random));
}

/// The locking methods to test, each with its share of the short form.
fn methods() -> Vec<(Locking, u64)> {
    match std::env::var_os("NETSHM_LOCKING") {
        Some(_) => vec![(support::locking(), 1)],
        None => vec![(Locking::Futex, 1), (Locking::Record, 4)],
    }
}

/// What a round is of follows from its number.
fn plan(subject: Subject, locking: Locking, round: u64, seed: u64) -> Plan {
    let mut random = Random::new(seed ^ round << 32);
    let processes = 2 + (round % 7) as usize;
    let groups = subject == Subject::Groups;
    // What is cut off stays open, and each doubles what a search has to look at.
    let kills = if round % 2 == 1 { 5 + random.below(if groups { 40 } else { 20 }) } else { 0 };
    let keys = if kills > 0 { 5 } else { 2 + random.below(4) as usize };
    Plan {
        subject,
        locking,
        processes,
        entries: (if groups { 8_000 } else { 30_000 }) / processes,
        keys: if groups { registers::KEYS } else { keys },
        kills,
        at_stores: false,
        grows: random.once_in(2),
        // One who may not recover would wait for somebody who does.
        reader: kills == 0 && random.once_in(3),
        alike: if groups || random.once_in(2) { 700 } else { 0 },
        stops: cfg!(feature = "inject") && round % 4 < 2,
        fault: None,
        seed: random.next(),
    }
}

/// The same with deaths, all before a store: some hit between the commit point and the last word that is changed, so
/// that recovery has to finish the change.
fn deadly_plan(subject: Subject, locking: Locking, round: u64, seed: u64) -> Plan {
    let plan = plan(subject, locking, round, seed);
    let kills = if subject == Subject::Groups { 45 } else { 25 };
    Plan { kills, at_stores: true, keys: plan.keys.max(5), reader: false, stops: false, ..plan }
}

/// Recordings of a campaign about which nothing may be found out; each is told, and others are made.
const MOST_UNDECIDED: u32 = 3;

fn campaign(subject: Subject, plan: impl Fn(Subject, Locking, u64, u64) -> Plan, test: &str) {
    let mut kept = Campaign::open(&format!("histories.{test}"), "some order of its operations explains it");
    let start = kept.seed(|| Random::seed(test));
    let seed = Random::new(start).next();
    let build = if cfg!(feature = "inject") { "inject, " } else { "" };
    for (locking, share) in methods() {
        let short = if subject == Subject::Groups { 120_000 } else { 240_000 };
        let wanted = support::setting("NETSHM_OPERATIONS").unwrap_or(if support::long() {
            2_000_000
        } else {
            short / share
        });
        let begin = Instant::now();
        let mut score = Score::default();
        let mut round = support::setting("NETSHM_ROUND").unwrap_or(0);
        let (mut told, mut undecided) = (0, 0);
        while score.operations < wanted {
            let part = format!("{subject:?}, {locking:?}, {build}seed {start}, round {round}");
            if let Some(counts) = kept.finished(&part) {
                score = score.plus(score_of(counts));
                round += 1;
                continue;
            }
            kept.begin(&part);
            let plan = plan(subject, locking, round, seed);
            match run(&plan) {
                Ok(this) => {
                    kept.finish(&counts_of(&this));
                    score = score.plus(this);
                }
                Err(finding @ Finding::Undecided(_)) if undecided < MOST_UNDECIDED => {
                    undecided += 1;
                    println!("  round {round} of {locking:?} is not counted, {plan:?}: {finding}");
                }
                Err(finding) => panic!("round {round} of {locking:?}, {plan:?}: {finding}"),
            }
            round += 1;
            if score.operations >= told + wanted.div_ceil(10).max(200_000) {
                told = score.operations;
                println!("  {locking:?}: {told} of {wanted} operations, {round} rounds");
            }
        }
        println!(
            "  {locking:?}: {} operations in {round} rounds, {} of them with others under way, {} kills cut off {}; at most \
             {} under way and {} configurations in this run; {:.1} s",
            score.operations,
            score.effort.overlapping,
            score.kills,
            score.cut_off,
            score.effort.under_way,
            score.effort.configurations,
            begin.elapsed().as_secs_f32()
        );
        assert!(score.effort.overlapping > score.operations / 200, "they hardly ever met");
        assert!(score.kills < 20 || score.cut_off > 0, "no kill cut off anything");
    }
    kept.end();
}

/// What a campaign keeps of a round.
fn counts_of(score: &Score) -> [(&'static str, u64); 4] {
    [
        ("operations", score.operations),
        ("operations with others under way", score.effort.overlapping),
        ("kills", score.kills),
        ("operations cut off by kills", score.cut_off),
    ]
}

/// The way back; how much effort the judges made is not kept.
fn score_of(counts: &Counts) -> Score {
    let mut score = Score::default();
    let [operations, overlapping, kills, cut_off] = counts_of(&score).map(|(name, _)| counts[name]);
    (score.operations, score.kills, score.cut_off) = (operations, kills, cut_off);
    score.effort.overlapping = overlapping;
    score
}

fn single_operations_are_linearizable() {
    campaign(Subject::Singles, plan, "single_operations_are_linearizable");
}

fn groups_are_strictly_serializable() {
    campaign(Subject::Groups, plan, "groups_are_strictly_serializable");
}

fn what_deaths_at_stores_leave_is_linearizable() {
    let test = "what_deaths_at_stores_leave_is_linearizable";
    if cfg!(feature = "inject") {
        campaign(Subject::Singles, deadly_plan, test);
        campaign(Subject::Groups, deadly_plan, test);
    } else {
        println!("SKIP {test}: needs the feature `inject`");
    }
}

fn main() {
    support::main(&[
        (
            "checkers_find_seeded_faults_in_histories_made_by_hand",
            checkers_find_seeded_faults_in_histories_made_by_hand,
        ),
        ("checkers_agree_with_trying_all_orders", checkers_agree_with_trying_all_orders),
        ("stamps_of_all_processes_are_of_one_clock", stamps_of_all_processes_are_of_one_clock),
        ("clients_with_a_fault_are_found_out", clients_with_a_fault_are_found_out),
        ("single_operations_are_linearizable", single_operations_are_linearizable),
        ("groups_are_strictly_serializable", groups_are_strictly_serializable),
        ("what_deaths_at_stores_leave_is_linearizable", what_deaths_at_stores_leave_is_linearizable),
    ]);
}
