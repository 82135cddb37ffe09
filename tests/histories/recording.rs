//! Real histories: processes work, some are killed, and what they wrote down is collected and judged.

use super::client::{Client, Fault, key};
use super::journal::{Journal, stamp_after, stamp_before};
use super::linear::{self, Effort, Timed, Verdict};
use super::registers::{self, Group};
use super::stack::{self, Kind, Op, Stacks};
use super::{graph, number};
use crate::support::process::{Child, Exit, Shared, fork, leave, watchdog};
use crate::support::random::Random;
use crate::support::scratch::{Scratch, assert_sound};
use netshm::{Error, HashTable, Locking, ManageOptions, Name, OpenOptions};
use std::time::{Duration, Instant};

/// What a recording is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Stacks of single keys.
    Singles,
    Groups,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) subject: Subject,
    pub(crate) locking: Locking,
    pub(crate) processes: usize,
    /// Entries of the journal of each.
    pub(crate) entries: usize,
    pub(crate) keys: usize,
    /// At most so many.
    pub(crate) kills: u64,
    /// Whoever dies does so before some store of his. Needs the feature `inject`.
    pub(crate) at_stores: bool,
    /// Other keys come and go meanwhile, so that buckets are split.
    pub(crate) grows: bool,
    /// The last process has the object open for reading only.
    pub(crate) reader: bool,
    /// How many of 1,000 values have the same length.
    pub(crate) alike: u64,
    /// Processes are stopped before some store of theirs, and go on a little later. Needs the feature `inject`, as all of
    /// this does; with it, kills hit before some store as well.
    pub(crate) stops: bool,
    pub(crate) fault: Option<Fault>,
    pub(crate) seed: u64,
}

/// What came of a recording.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Score {
    pub(crate) operations: u64,
    pub(crate) kills: u64,
    /// Operations that were cut off.
    pub(crate) cut_off: u64,
    pub(crate) effort: Effort,
}

impl Score {
    pub(crate) fn plus(self, other: Score) -> Score {
        Score {
            operations: self.operations + other.operations,
            kills: self.kills + other.kills,
            cut_off: self.cut_off + other.cut_off,
            effort: self.effort.max(other.effort),
        }
    }
}

/// Nobody does nothing for so long, also on a machine that is very busy.
const STUCK: Duration = Duration::from_secs(300);

/// The word that lets them begin.
const GO: usize = 0;

fn options(locking: Locking) -> ManageOptions {
    ManageOptions::new().locking(locking).clone()
}

fn open(name: &Name, plan: &Plan, reads_only: bool) -> HashTable {
    let object = match reads_only {
        true => OpenOptions::new().read_only(true).open(name),
        false => OpenOptions::new().create(true).open(name),
    };
    HashTable::manage(&object.expect("opens"), &options(plan.locking)).expect("manages")
}

/// One life of a process. If it is to die of itself, it does so before one of its first stores.
fn work(name: &Name, plan: &Plan, journal: &Journal, go: &Shared, me: usize, life: u64, dies: bool) {
    let reads_only = plan.reader && me + 1 == plan.processes;
    let mut client = Client {
        table: open(name, plan, reads_only),
        journal,
        me,
        entry: journal.begun(me),
        keys: plan.keys,
        random: Random::new(plan.seed ^ (me as u64) << 50 ^ life << 40),
        fault: plan.fault,
        reads_only,
        alike: plan.alike,
        stops: plan.stops,
        seen: vec![number::ABSENT; plan.keys],
    };
    while go.get(GO) == 0 {
        std::thread::yield_now();
    }
    if life > 0 && !client.is_through() {
        client.settle();
    }
    #[cfg(feature = "inject")]
    if dies {
        netshm::inject::arm(client.random.below(2000));
    }
    #[cfg(not(feature = "inject"))]
    assert!(!dies, "needs the feature `inject`");
    let grower = plan.grows && me == 0;
    while !client.is_through() {
        client.tempt();
        match plan.subject {
            Subject::Singles => client.do_single(),
            Subject::Groups => client.do_group(),
        }
        if grower && client.entry % 2 == 0 {
            let n = client.entry as u32 / 2;
            client.table.add(format!("grows {n}").as_bytes(), &[n as u8; 30]).expect("adds");
        }
        if client.random.once_in(3000) {
            // New hints, another slot perhaps; and what was kept goes back.
            client.table = open(name, plan, reads_only);
        }
    }
    // Some leave without a word.
    if client.random.once_in(4) {
        leave(0);
    }
    drop(client);
}

/// The value of a key before anybody has changed it; for groups.
fn opening_value(n: usize) -> u64 {
    number::number(2, 254, n, 0)
}

fn opening_values() -> [u64; registers::KEYS] {
    std::array::from_fn(opening_value)
}

/// Records, and gives the object and the journal. The last process of the journal is the auditor.
fn record(plan: &Plan) -> (Scratch, Journal, u64) {
    let scratch = Scratch::posix("histories");
    let name = scratch.name();
    let width = match plan.subject {
        Subject::Singles => stack::WIDTH,
        Subject::Groups => registers::WIDTH,
    };
    let journal = Journal::new(plan.processes + 1, plan.entries, width);
    let go = Shared::new(1);
    let exit = fork(|| {
        let table = open(name, plan, false);
        if plan.subject == Subject::Groups {
            let set = |n| table.replace(&key(n), &number::bytes(opening_value(n))).expect("replaces");
            (0..plan.keys).for_each(set);
        }
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the preparation");
    let mut random = Random::new(plan.seed);
    let mut lives = vec![0; plan.processes];
    let start = |me: usize, life: u64, dies| fork(|| work(name, plan, &journal, &go, me, life, dies));
    let may_die = |n: u64| cfg!(feature = "inject") && n < plan.kills;
    let mut workers: Vec<Child> =
        (0..plan.processes).map(|me| start(me, 0, may_die(me as u64) && !plan.stops)).collect();
    std::thread::sleep(Duration::from_millis(20));
    go.set(GO, 1);
    let mut kills = 0;
    let mut progress = Progress::new(plan.processes);
    while !progress.all_are_through(&mut workers, &journal, plan) {
        std::thread::sleep(Duration::from_micros(100 + random.below(3000)));
        let victim = random.below(plan.processes as u64) as usize;
        if !plan.at_stores && kills < plan.kills && workers[victim].poll().is_none() && random.once_in(2) {
            workers[victim].kill();
        }
        for n in 0..plan.processes {
            match workers[n].poll() {
                None if plan.stops => workers[n].signal(libc::SIGCONT),
                Some(Exit::KILLED) => {
                    kills += 1;
                    lives[n] += 1;
                    let dies = may_die(kills + plan.processes as u64)
                        && !plan.stops
                        && (plan.at_stores || random.once_in(2));
                    workers[n] = start(n, lives[n], dies);
                }
                _ => {}
            }
        }
    }
    let exit = fork(|| audit(name, plan, &journal)).wait();
    assert_eq!(exit, Exit::Code(0), "the audit of {plan:?}");
    (scratch, journal, kills)
}

/// How far the workers are.
struct Progress {
    /// Entries, and when there was the last new one.
    last: Vec<(usize, Instant)>,
}

impl Progress {
    fn new(processes: usize) -> Progress {
        Progress { last: vec![(0, Instant::now()); processes] }
    }

    /// Have all ended? Fails if one has failed, or does nothing for very long.
    fn all_are_through(&mut self, workers: &mut [Child], journal: &Journal, plan: &Plan) -> bool {
        let mut all = true;
        for (n, worker) in workers.iter_mut().enumerate() {
            match worker.poll() {
                Some(Exit::Code(0)) => continue,
                // It is started again.
                Some(Exit::KILLED) if plan.kills > 0 => {
                    all = false;
                    continue;
                }
                Some(exit) => panic!("process {n} of {plan:?}: {exit:?}"),
                None => all = false,
            }
            let (entries, at) = &mut self.last[n];
            let now = journal.begun_from(n, *entries);
            if now != *entries {
                (*entries, *at) = (now, Instant::now());
            }
            if at.elapsed() > STUCK {
                let read = |file| std::fs::read_to_string(format!("/proc/{}/{file}", worker.pid()));
                let [stat, place] = [read("stat"), read("wchan")];
                panic!("process {n} is stuck in entry {now} of {plan:?}: {stat:?} {place:?}");
            }
        }
        all
    }
}

/// Reads everything in a group, which recovers the dead, and writes it down as one more process.
fn audit(name: &Name, plan: &Plan, journal: &Journal) {
    watchdog(STUCK.as_secs() as u32);
    let table = open(name, plan, false);
    let me = plan.processes;
    let before = stamp_before();
    let all: Vec<Vec<Vec<u8>>> = table
        .table()
        .group(|| (0..plan.keys).map(|n| table.find_all(&key(n))).collect::<Result<_, Error>>())
        .expect("reads");
    let after = stamp_after();
    let values = |n: usize| all[n].iter().rev().map(|v| number::from_bytes(v).expect("is whole"));
    match plan.subject {
        Subject::Singles => {
            for (n, bindings) in all.iter().enumerate() {
                stack::note_begin(journal, me, n, (Kind::FindAll, n, [0, 0]), before);
                let gave = stack::Gave::List(bindings.len() as u64, stack::fingerprint(values(n)));
                stack::note_end(journal, me, n, gave, after);
            }
        }
        Subject::Groups => {
            let note = registers::Note { journal, process: me, entry: 0 };
            note.begin(before);
            for n in 0..plan.keys {
                let read = values(n).next();
                note.step(registers::Step { key: n, read, written: None, undone: false });
            }
            note.sealed(true);
            note.end(after);
        }
    }
    drop(table);
    assert_sound(name);
}

/// Why a history was not found right.
#[derive(Debug)]
pub(crate) enum Finding {
    Wrong(String),
    /// So much was under way at once, on a machine that lets many wait in the middle of an operation, that the search gave
    /// up. It says nothing about the library.
    Undecided(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Wrong(text) => f.write_str(text),
            Finding::Undecided(text) => write!(f, "too much at once: {text}"),
        }
    }
}

/// Records a history and judges it.
pub(crate) fn run(plan: &Plan) -> Result<Score, Finding> {
    let (scratch, journal, kills) = record(plan);
    drop(scratch);
    let mut score = Score { kills, ..Score::default() };
    match plan.subject {
        Subject::Singles => {
            let history = stack::read(&journal);
            score.operations = history.len() as u64;
            score.cut_off = history.iter().filter(|op| op.returned.is_none()).count() as u64;
            score.effort = judge_singles(plan.keys, &history)?;
        }
        Subject::Groups => {
            let history = registers::read(&journal);
            score.operations = history.iter().map(|g| g.op.steps.len() as u64).sum();
            score.cut_off = history.iter().filter(|g| g.returned.is_none()).count() as u64;
            score.effort = judge_groups(opening_values(), &history)?;
        }
    }
    Ok(score)
}

/// Each key by itself.
pub(crate) fn judge_singles(keys: usize, history: &[Timed<Op>]) -> Result<Effort, Finding> {
    let mut effort = Effort::default();
    for key in 0..keys {
        let mut of_key: Vec<Timed<Op>> =
            history.iter().filter(|op| op.op.key == key && !stack::is_idle(op)).cloned().collect();
        of_key.sort_by_key(|op| op.invoked);
        match linear::check(&mut Stacks::new(), stack::EMPTY, &of_key) {
            Verdict::Linearizable(this) => effort = effort.max(this),
            Verdict::Wrong { op, under_way } => {
                let text = surroundings(&of_key, op, &under_way);
                return Err(Finding::Wrong(format!("key {key} is not linearizable\n{text}")));
            }
            Verdict::Undecided { op } => {
                return Err(Finding::Undecided(format!("key {key}: {:?}", of_key[op])));
            }
        }
    }
    Ok(effort)
}

/// All keys together, in two ways.
pub(crate) fn judge_groups(
    start: [u64; registers::KEYS],
    history: &[Timed<Group>],
) -> Result<Effort, Finding> {
    let mut groups = registers::of_consequence(history);
    groups.sort_by_key(|g| g.invoked);
    let by_graph = graph::check(start, &groups);
    let (mut states, first) = registers::Registers::new(start);
    let by_search = linear::check(&mut states, first, &groups);
    if let Err(anomaly) = by_graph {
        assert!(!matches!(by_search, Verdict::Linearizable(_)), "the checkers disagree: {anomaly:?}");
        return Err(Finding::Wrong(explain(&anomaly, &groups)));
    }
    match by_search {
        Verdict::Linearizable(effort) => Ok(effort),
        Verdict::Wrong { op, under_way } => {
            let text = surroundings(&groups, op, &under_way);
            Err(Finding::Wrong(format!("not strictly serializable\n{text}")))
        }
        Verdict::Undecided { op } => Err(Finding::Undecided(format!("{:?}", groups[op]))),
    }
}

/// An operation, those under way, and the last ones before it.
fn surroundings<T: std::fmt::Debug>(history: &[Timed<T>], op: usize, under_way: &[usize]) -> String {
    let mut text = format!("  wrong: {:?}\n", history[op]);
    for n in under_way.iter().filter(|n| **n != op) {
        text += &format!("  under way: {:?}\n", history[*n]);
    }
    let end = history[op].returned.unwrap_or(u64::MAX);
    let mut before: Vec<&Timed<T>> =
        history.iter().filter(|o| o.returned.is_some_and(|at| at < end)).collect();
    before.sort_by_key(|o| o.returned);
    for o in before.iter().rev().take(8) {
        text += &format!("  before: {o:?}\n");
    }
    text
}

fn explain(anomaly: &graph::Anomaly, groups: &[Timed<Group>]) -> String {
    use graph::Anomaly::*;
    let mut text = format!("not serializable: {anomaly:?}\n");
    let members: Vec<usize> = match anomaly {
        Garbage { reader, .. } => vec![*reader],
        Dirty { reader, writer, .. } => vec![*reader, *writer],
        NotOwn { group, .. } => vec![*group],
        LostUpdate { first, second, .. } => vec![*first, *second],
        Circle(path) | OutOfTime(path) => path.iter().map(|p| p.1).collect(),
    };
    for n in members.iter().take(12) {
        text += &format!("  {n}: {:?}\n", groups[*n]);
    }
    text
}

/// The stamps of two processes that take turns: do they ascend? Gives how many turns were looked at.
pub(crate) fn clock_ascends(turns: u64) -> Result<u64, String> {
    let shared = Shared::new(turns as usize + 1);
    let players: Vec<Child> = (0..2)
        .map(|me| {
            fork(|| {
                watchdog(STUCK.as_secs() as u32);
                for turn in (me..turns).step_by(2) {
                    let mut spins = 0u32;
                    while shared.get(0) != turn {
                        spins += 1;
                        if spins > 200 {
                            std::thread::yield_now();
                        }
                    }
                    let stamp = if turn % 4 < 2 { stamp_before() } else { stamp_after() };
                    shared.set(1 + turn as usize, stamp);
                    shared.set(0, turn + 1);
                }
            })
        })
        .collect();
    for mut player in players {
        if player.wait() != Exit::Code(0) {
            return Err("a player has failed".into());
        }
    }
    let stamps: Vec<u64> = (0..turns).map(|n| shared.get(1 + n as usize)).collect();
    match stamps.windows(2).position(|pair| pair[1] < pair[0]) {
        Some(n) => Err(format!("turn {n}: {} after {}", stamps[n + 1], stamps[n])),
        None => Ok(turns),
    }
}
