//! Goal: a process may die before any of its shared stores while it changes an array, and what it leaves is the array
//! as it was before the operation or as it is after it, whole, with nothing stuck or leaked.
//!
//! Method: as in tests/death.rs. For each operation a template is made once, and what it holds is noted before and
//! after. For k = 0, 1, 2, ... a child gets a copy and dies before its k-th shared store, until it survives; a second
//! process, with a watchdog, judges: the contents, the checker's verdict, and whether it can go on. It comes after
//! the death, or was at work before. The short form strides through the longest, each time from another store on; `NETSHM_LONG=1` takes every k.
//! `NETSHM_CAMPAIGN` names a directory that keeps which operations are done, so that the same command goes on after an
//! interruption.

mod support;

use netshm::{Array, ManageOptions, Name, OpenOptions, inject};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::campaign::Campaign;
use support::process::{Exit, Pipe, Shared, fork, leave, watchdog};
use support::random::Random;
use support::scratch::{Scratch, Snapshot, assert_object_sound};

const STUCK_SECONDS: u32 = 10;
/// Elements of 8 bytes in a chunk.
const CHUNK: u64 = 2013;
const LENGTH: u64 = 100 * CHUNK;
const MANY: u64 = 16;
/// Chunks of a long slice: more than a slot keeps blocks for without being asked.
const LONG: u64 = 70;

/// One kind of operation.
struct Scenario {
    name: &'static str,
    step: fn(&Array),
    /// The short form takes every so many-th store.
    stride: u64,
}

/// An array's length, and what is set.
type Contents = (u64, BTreeMap<u64, Vec<u8>>);

fn open(name: &Name) -> Array {
    let object = OpenOptions::new().create(true).open(name).expect("opens");
    Array::manage_i64(&object, -1, LENGTH, &ManageOptions::new()).expect("is an array")
}

fn dump(a: &Array) -> Contents {
    let set = a.iter().map(|item| item.expect("iterates")).collect();
    (a.length().expect("has one"), set)
}

fn slice(first: u64, count: u64) -> Vec<u8> {
    (first..first + count).flat_map(|i| (i * 3).to_le_bytes()).collect()
}

/// Chunks 0, 1, 2 and 50 have some elements, chunk 4 has all; with `many`, chunks from 59 on have one.
fn prepare(a: &Array, many: bool) {
    for chunk in (0..=MANY).filter(|_| many) {
        a.set_i64((59 + chunk) * CHUNK + 3, 3).expect("sets");
    }
    for i in [0, 1, 5, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, 50 * CHUNK + 7] {
        a.set_i64(i, i as i64).expect("sets");
    }
    a.write(4 * CHUNK, &slice(7, CHUNK)).expect("writes");
}

/// Writes a long slice, so that its next writer keeps blocks; what it holds stays the same from the second time on.
fn write_long(a: &Array) {
    a.write(20 * CHUNK - 7, &slice(1, LONG * CHUNK)).expect("writes");
}

/// Writes what a slice finds that is written again.
fn write_before(a: &Array) {
    a.write(CHUNK / 2 + 9, &slice(77, 2 * CHUNK - 20)).expect("writes");
}

/// Does this thread keep the blocks of a long slice?
fn keeps_blocks(name: &Name) -> bool {
    let object = OpenOptions::new().open(name).expect("opens");
    assert_object_sound(&object).custody >= LONG
}

fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "set in place", step: |a| a.set_i64(5, 99).expect("sets"), stride: 1 },
        Scenario { name: "set beside others", step: |a| a.set_i64(6, 99).expect("sets"), stride: 1 },
        Scenario {
            name: "set in a new chunk",
            step: |a| a.set_i64(70 * CHUNK, 99).expect("sets"),
            stride: 1,
        },
        Scenario { name: "add", step: |a| assert!(a.increment(5, 10).is_ok()), stride: 1 },
        Scenario {
            name: "small slice over two chunks",
            step: |a| a.write(2 * CHUNK - 5, &slice(1, 9)).expect("writes"),
            stride: 1,
        },
        Scenario {
            name: "slice over several chunks",
            step: |a| a.write(3 * CHUNK - 100, &slice(1, 3 * CHUNK)).expect("writes"),
            stride: 3,
        },
        Scenario {
            name: "whole chunk again",
            step: |a| a.write(4 * CHUNK, &slice(1, CHUNK)).expect("writes"),
            stride: 1,
        },
        Scenario {
            name: "slice over chunks that exist",
            step: |a| a.write(CHUNK / 2, &slice(1, 2 * CHUNK)).expect("writes"),
            stride: 1,
        },
        // Each with blocks that hold already what the slice leaves of its chunks.
        Scenario {
            name: "slice over chunks written before",
            step: |a| a.write(CHUNK / 2, &slice(1, 2 * CHUNK)).expect("writes"),
            stride: 1,
        },
        // As much as goes to its place, in two chunks: the log needs an extension.
        Scenario {
            name: "two parts in place",
            step: |a| a.write(2 * CHUNK - 192, &slice(1, 384)).expect("writes"),
            stride: 11,
        },
        // So many that some have their bucket in common.
        Scenario {
            name: "slice over many chunks that exist",
            step: |a| a.write(60 * CHUNK - 7, &slice(1, MANY * CHUNK)).expect("writes"),
            stride: 5,
        },
        // So many that log and lock list need extensions, and the blocks are kept.
        Scenario {
            name: "long slice in turn",
            step: |a| a.write(20 * CHUNK - 7, &slice(5, LONG * CHUNK)).expect("writes"),
            stride: 101,
        },
        Scenario { name: "growing", step: |a| a.resize(1 << 40).expect("resizes"), stride: 1 },
        Scenario {
            name: "shrinking in a chunk",
            step: |a| a.resize(50 * CHUNK + 7).expect("resizes"),
            stride: 1,
        },
        Scenario { name: "shrinking by chunks", step: |a| a.resize(CHUNK + 3).expect("resizes"), stride: 1 },
        Scenario { name: "shrinking by a walk", step: |a| a.resize(3).expect("resizes"), stride: 1 },
        Scenario {
            name: "group",
            step: |a| {
                let all = || {
                    a.set_i64(0, 77)?;
                    a.resize(4 * CHUNK + 5)?;
                    a.write(CHUNK - 10, &slice(1, 20))?;
                    a.resize(LENGTH + 1)?;
                    a.set_i64(LENGTH, 5)
                };
                a.table().group(all).expect("commits");
            },
            stride: 1,
        },
    ]
}

/// A template, and what it holds before and after the operation.
struct Prepared {
    scenario: Scenario,
    snapshot: Snapshot,
    before: Contents,
    after: Contents,
}

impl Prepared {
    fn new(scenario: Scenario) -> Prepared {
        let scratch = Scratch::file("array-template");
        let a = open(scratch.name());
        prepare(&a, scenario.name.contains("many"));
        if scenario.name.contains("in turn") {
            write_long(&a);
        }
        if scenario.name.contains("written before") {
            write_before(&a);
        }
        let before = dump(&a);
        drop(a);
        let snapshot = Snapshot::take(&scratch);
        let copy = snapshot.restore("array-after");
        let a = open(copy.name());
        (scenario.step)(&a);
        let after = dump(&a);
        assert_ne!(before, after, "{} changes nothing", scenario.name);
        Prepared { scenario, snapshot, before, after }
    }
}

const STORES: usize = 0;
const SURVIVED: usize = 1;

fn victim(p: &Prepared, name: &Name, shared: &Shared, k: u64) -> ! {
    watchdog(STUCK_SECONDS);
    let a = open(name);
    a.set_i64(1, 1).expect("sets what is set already");
    if p.scenario.name.contains("in turn") {
        (0..2).for_each(|_| write_long(&a));
        assert!(keeps_blocks(name));
    }
    if p.scenario.name.contains("written before") {
        // Whoever writes it for the second time finds the blocks of the first time.
        (0..2).for_each(|_| write_before(&a));
    }
    inject::arm(k);
    (p.scenario.step)(&a);
    shared.set(STORES, inject::disarm());
    shared.set(SURVIVED, 1);
    leave(0)
}

fn judge(p: &Prepared, name: &Name, a: Array, survived: bool, k: u64) {
    // The first contact differs: a read, a slice, a write, a change of the length.
    match k % 4 {
        0 => drop(a.get_i64(0).expect("gets")),
        1 => a.read(0, &mut [0; 24]).expect("reads"),
        2 => a.set_i64(1, 1).expect("sets"),
        _ => drop(a.length().expect("has one")),
    }
    let group = a.table().begin().expect("begins");
    let seen = dump(&a);
    group.commit().expect("commits");
    assert!(seen == p.after || (!survived && seen == p.before), "neither before nor after");
    let object = OpenOptions::new().open(name).expect("opens");
    let summary = assert_object_sound(&object);
    assert_eq!(summary.slots_active, 1, "only the judge's own slot is taken");
    (p.scenario.step)(&a);
    a.resize(2 * LENGTH).expect("goes on");
    a.write(CHUNK / 2, &slice(9, 2 * CHUNK)).expect("goes on");
    let mut back = vec![0; 16 * CHUNK as usize];
    a.read(CHUNK / 2, &mut back).expect("goes on");
    assert!(back == slice(9, 2 * CHUNK));
    assert_object_sound(&object);
}

/// One death. Gives the number of stores if the victim survived.
fn one_death(p: &Prepared, live: bool, k: u64) -> Option<u64> {
    let scratch = p.snapshot.restore("array-death");
    let shared = Shared::new(2);
    let (ready, died) = (Pipe::new(), Pipe::new());
    let judge_process = || {
        let a = open(scratch.name());
        if live {
            a.set_i64(1, 1).expect("sets");
            ready.send(1);
            died.receive();
        }
        watchdog(STUCK_SECONDS);
        judge(p, scratch.name(), a, shared.get(SURVIVED) == 1, k);
    };
    let early = live.then(|| fork(judge_process));
    if live {
        assert!(ready.receive_within(Duration::from_secs(30)).is_some(), "the judge is at work");
    }
    let exit = fork(|| victim(p, scratch.name(), &shared, k)).wait();
    let survived = shared.get(SURVIVED) == 1;
    assert_eq!(exit, if survived { Exit::Code(0) } else { Exit::KILLED }, "{}, k = {k}", p.scenario.name);
    let verdict = match early {
        Some(mut child) => {
            died.send(1);
            child.wait()
        }
        None => fork(judge_process).wait(),
    };
    assert_eq!(verdict, Exit::Code(0), "{}, live {live}, k = {k}: the judge", p.scenario.name);
    survived.then(|| shared.get(STORES))
}

fn operations() {
    let only = std::env::var("NETSHM_DEATH_ONLY").ok();
    let holds =
        "whatever store a process died before, the array was as before or as after, whole, and went on";
    let mut campaign = Campaign::open("array_death.operations", holds);
    let mut random = Random::new(campaign.seed(|| Random::seed("operations")));
    for scenario in scenarios() {
        if only.as_ref().is_some_and(|o| !scenario.name.contains(o.as_str())) {
            continue;
        }
        let stride = if support::long() { 1 } else { scenario.stride };
        let phase = random.below(stride);
        if !campaign.begin(&format!("{}, every {stride}. store from {phase}", scenario.name)) {
            continue;
        }
        let p = Prepared::new(scenario);
        let start = Instant::now();
        let last = [false, true].map(|live| {
            (phase..).step_by(stride as usize).find_map(|k| one_death(&p, live, k)).expect("survives")
        });
        let seconds = start.elapsed().as_secs_f32();
        println!(
            "  {}: {} stores, live {}, every {stride}. ({seconds:.1} s)",
            p.scenario.name, last[0], last[1]
        );
        let deaths = last.map(|stores| stores.saturating_sub(phase).div_ceil(stride));
        campaign.finish(&[("deaths", deaths[0]), ("deaths beside others", deaths[1])]);
    }
    campaign.end();
}

/// The judge can tell: contents that are neither before nor after are seen.
fn the_judge_can_fail() {
    let p = Prepared::new(Scenario { name: "set", step: |a| a.set_i64(5, 99).expect("sets"), stride: 1 });
    let scratch = p.snapshot.restore("array-death");
    let exit = fork(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let a = open(scratch.name());
        a.set_i64(9, 9).expect("sets");
        judge(&p, scratch.name(), a, false, 0);
    })
    .wait();
    assert_eq!(exit, Exit::Code(101));
}

fn main() {
    support::main(&[("the_judge_can_fail", the_judge_can_fail), ("operations", operations)]);
}
