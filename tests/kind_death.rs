//! Goal: a process may die before any of its shared stores, whatever kind of table it changes and whatever it does with
//! the object as a whole, and so may whoever recovers it; nothing is lost, half done, stuck or leaked.
//!
//! Method: as in tests/death.rs, which has the operations on tables of bytes, and tests/array_death.rs, which has
//! arrays of integers. One template has a table of each kind. For k = 0, 1, 2, ... a child gets a copy and dies before
//! its k-th shared store, until it survives; a second process, with a watchdog, judges: all tables as they were before or
//! as they are after, together; the checker's verdict; whether it can go on. It comes after the death, or was at work before.
//! A third one waits for a change, and must be woken. Pairs: each distinct image that a death leaves is recovered by a
//! process that dies before its k-th store as well, and judged likewise. All of it with futexes, with checksums, and with record
//! locks. The short form strides, each time from another store on; `NETSHM_LONG=1` takes every one;
//! `NETSHM_DEATH_ONLY` names a scenario. `NETSHM_CAMPAIGN` names a directory that keeps which scenarios are done, so that
//! the same command goes on after an interruption.

mod support;

use netshm::{
    Array, BlockOp, Error, FRAGMENT_WORDS, HashTable, Locking, ManageOptions, Name, Object, OpenOptions,
    PrimitiveTable, Result, Step, TypedArray, TypedHashTable, Update, inject, salvage,
};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use support::campaign::Campaign;
use support::process::{Exit, Pipe, Shared, fork, leave, watchdog};
use support::random::Random;
use support::scratch::{Scratch, Snapshot, assert_object_sound, assert_sound};

const STUCK_SECONDS: u32 = 20;
/// Elements of 8 bytes in a chunk.
const CHUNK: u64 = 2013;

/// How objects are made.
#[derive(Debug, Clone, Copy)]
struct Mode {
    name: &'static str,
    locking: Locking,
    checksums: bool,
}

const MODES: [Mode; 3] = [
    Mode { name: "futex", locking: Locking::Futex, checksums: false },
    Mode { name: "checksums", locking: Locking::Futex, checksums: true },
    Mode { name: "record", locking: Locking::Record, checksums: false },
];

impl Mode {
    fn options(&self) -> ManageOptions {
        ManageOptions::new().locking(self.locking).checksums(self.checksums).clone()
    }

    fn named(&self, root: &str) -> ManageOptions {
        self.options().root(root).clone()
    }
}

/// Handles to a table of each kind.
struct Tables {
    mode: Mode,
    name: Name,
    object: Object,
    bytes: HashTable,
    typed: TypedHashTable<String, (i64, Option<String>)>,
    counts: TypedHashTable<String, i64>,
    words: PrimitiveTable,
    numbers: Array,
    texts: TypedArray<String>,
}

impl Tables {
    fn open(name: &Name, mode: Mode) -> Tables {
        let object = OpenOptions::new().create(true).open(name).expect("opens");
        let array = |root: &str| Array::manage_i64(&object, -1, 10 * CHUNK, &mode.named(root));
        Tables {
            mode,
            name: name.clone(),
            bytes: HashTable::manage(&object, &mode.options()).expect("manages"),
            typed: TypedHashTable::manage(&object, &mode.named("typed")).expect("manages"),
            counts: TypedHashTable::manage(&object, &mode.named("counts")).expect("manages"),
            words: PrimitiveTable::manage(&object, &mode.named("words")).expect("manages"),
            numbers: array("numbers").expect("manages"),
            texts: TypedArray::manage(&object, "none", 500, &mode.named("texts")).expect("manages"),
            object,
        }
    }

    fn furnish(&self) {
        for n in 0..20u64 {
            self.bytes.add(&n.to_le_bytes(), &[n as u8; 8]).expect("adds");
            self.typed.add(&format!("key {n}"), &(n as i64, None)).expect("adds");
        }
        self.counts.add("n", &5).expect("adds");
        for (n, len) in [(1, 1), (1, 40), (1, 2 * FRAGMENT_WORDS + 9), (2, 3), (-3, 7)] {
            self.words.add(n, &vec![n; len]).expect("adds");
        }
        for i in [0, 5, CHUNK, 4 * CHUNK + 1] {
            self.numbers.set_i64(i, i as i64).expect("sets");
        }
        for i in [0, 1, 2, 400] {
            self.texts.set(i, &format!("text {i}")).expect("sets");
        }
    }

    /// All that is in the object, at one moment.
    fn dump(&self) -> Vec<String> {
        let all = || {
            let mut all = Vec::new();
            for binding in &self.bytes {
                all.push(format!("bytes {:?}", binding?));
            }
            for binding in &self.typed {
                all.push(format!("typed {:?}", binding?));
            }
            for binding in &self.counts {
                all.push(format!("counts {:?}", binding?));
            }
            for binding in &self.words {
                all.push(format!("words {:?}", binding?));
            }
            for element in self.numbers.iter() {
                all.push(format!("numbers {:?}", element?));
            }
            for element in self.texts.iter() {
                all.push(format!("texts {:?}", element?));
            }
            all.push(format!("lengths {} {}", self.numbers.length()?, self.texts.length()?));
            Ok::<_, Error>(all)
        };
        let mut all = self.bytes.table().group_retry(None, all).expect("reads");
        let names = self.object.tables().expect("lists");
        all.extend(names.into_iter().map(|table| format!("there is {table:?}")));
        all.sort();
        all
    }

    /// Where copies are made.
    fn copy_name(&self) -> Name {
        copy_name(&self.name)
    }
}

fn copy_name(name: &Name) -> Name {
    let mut path = name.file_name().as_os_str().to_owned();
    path.push("-copy");
    Name::file(path)
}

/// One kind of operation.
struct Scenario {
    name: &'static str,
    warm: fn(&Tables),
    step: fn(&Tables),
    /// It changes what the object holds.
    changes: bool,
    /// The short form takes every so many-th store.
    stride: u64,
}

fn change(name: &'static str, step: fn(&Tables)) -> Scenario {
    Scenario {
        name,
        warm: |t| drop(t.bytes.replace(&3u64.to_le_bytes(), &[3; 8])),
        step,
        changes: true,
        stride: 11,
    }
}

fn tables() -> Vec<Scenario> {
    vec![
        change("bytes: one word in place", |t| {
            t.bytes.replace(&7u64.to_le_bytes(), &[9; 8]).expect("replaces")
        }),
        change("bytes: increment of one word", |t| {
            assert!(t.bytes.increment(&7u64.to_le_bytes(), 3, 0).is_ok());
        }),
        change("typed: add", |t| t.typed.add("key 3", &(77, Some("new".into()))).expect("adds")),
        change("typed: insert", |t| t.typed.insert("new key", &(78, None)).expect("inserts")),
        change("typed: replace by a longer one", |t| {
            t.typed.replace("key 4", &(1, Some("longer ".repeat(40)))).expect("replaces");
        }),
        change("typed: compare and replace", |t| {
            t.typed.compare_and_replace("key 5", &(5, None), &(6, Some("x".into()))).expect("replaces");
        }),
        change("typed: update", |t| {
            let update = |old: Option<(i64, Option<String>)>| {
                Ok(Update::Replace((old.expect("is there").0 + 1, Some("y".into()))))
            };
            t.typed.update("key 6", update).expect("updates");
        }),
        change("typed: update that removes", |t| {
            t.typed.update("key 6", |_| Ok(Update::Remove)).expect("updates");
        }),
        change("typed: remove", |t| assert!(t.typed.remove("key 7").expect("removes"))),
        change("typed: increment", |t| assert_eq!(t.counts.increment("n", 10, 0), Ok(15))),
        change("primitive: add", |t| t.words.add(2, &[9; 30]).expect("adds")),
        change("primitive: replace in place", |t| t.words.replace(2, &[8; 3]).expect("replaces")),
        change("primitive: replace, new key", |t| t.words.replace(99, &[8; 3]).expect("replaces")),
        change("primitive: remove", |t| assert!(t.words.remove(1).expect("removes"))),
        change("primitive: write_blocks assigns", |t| write_blocks(t, &[true, true, true], &[])),
        change("primitive: write_blocks removes", |t| write_blocks(t, &[], &[true, false, true])),
        change("primitive: write_blocks does both", |t| {
            write_blocks(t, &[true, false, true], &[false, true, false]);
        }),
        change("texts: set", |t| t.texts.set(77, "new").expect("sets")),
        change("texts: set to one of another size", |t| t.texts.set(1, &"long ".repeat(50)).expect("sets")),
        change("texts: shrink", |t| t.texts.resize(2).expect("resizes")),
        change("texts: grow", |t| t.texts.resize(1 << 30).expect("resizes")),
        change("numbers: set beside others", |t| t.numbers.set_i64(6, 99).expect("sets")),
        change("numbers: increment", |t| assert_eq!(t.numbers.increment(5, 10), Ok(15))),
        change("numbers: slice", |t| {
            t.numbers.write(CHUNK - 5, &7i64.to_le_bytes().repeat(600)).expect("writes");
        }),
        change("group over all kinds", |t| t.bytes.table().group(|| everywhere(t)).expect("commits")),
        change("nested groups over all kinds", |t| {
            let all = || {
                t.words.add(5, &[1, 2, 3])?;
                let inner = t.bytes.table().group(|| everywhere(t).and(Err::<(), _>(Error::Aborted)));
                assert_eq!(inner, Err(Error::Aborted));
                t.typed.replace("key 1", &(4, None))
            };
            t.bytes.table().group(all).expect("commits");
        }),
    ]
}

/// Assigns to those bindings of key 1, newest first, and removes these.
fn write_blocks(t: &Tables, assigned: &[bool], removed: &[bool]) {
    let mut binding = 0;
    let answer = |fragment: Option<&mut [i32]>| {
        let is = |all: &[bool]| all.get(binding).is_some_and(|yes| *yes);
        if let Some(fragment) = fragment {
            if is(assigned) {
                fragment.iter_mut().for_each(|word| *word += 100);
            }
            return Ok((Step::Go, None));
        }
        let answer = is(removed).then_some(BlockOp::Remove);
        binding += 1;
        Ok((Step::Next, answer))
    };
    t.words.write_blocks(&[BlockOp::Remove], 1, answer).expect("assigns");
}

fn everywhere(t: &Tables) -> Result<()> {
    t.bytes.replace(&3u64.to_le_bytes(), &[7; 80])?;
    t.typed.add("key 3", &(77, None))?;
    t.words.remove(1)?;
    t.texts.set(3, "three")?;
    t.numbers.resize(3 * CHUNK)?;
    t.numbers.set_i64(2 * CHUNK, 5)
}

fn objects() -> Vec<Scenario> {
    let same = |name, step| Scenario { changes: false, ..change(name, step) };
    vec![
        change("named array with a default, made", |t| {
            let made = Array::manage_bytes(&t.object, &[7; 300], 5, &t.mode.named("more"));
            assert_eq!(made.expect("makes").length(), Ok(5));
        }),
        change("named primitive table, made", |t| {
            drop(PrimitiveTable::manage(&t.object, &t.mode.named("more")).expect("makes"));
        }),
        same("sync", |t| t.object.sync(0).expect("syncs")),
        same("check", |t| _ = assert_object_sound(&t.object)),
        same("backup", |t| {
            let done = t.object.backup(&t.copy_name(), 0o600, true, 0).expect("backs up");
            assert!(done.size_bytes > 0);
        }),
        Scenario {
            // Most of its stores are those into the copy, which nobody else knows yet.
            stride: 3001,
            ..same("salvage", |t| {
                let done = salvage(&t.name, &t.copy_name(), 0o600, true).expect("salvages");
                assert_eq!((done.tables_lost, done.bindings_lost), (0, 0));
            })
        },
        same("waiting for change, in vain", |t| {
            let mut stamp = t.bytes.stamp(b"nobody's").expect("has a stamp");
            let _ = t.bytes.wait(b"nobody's", &mut stamp, Some(Duration::from_millis(1))).expect("waits");
        }),
    ]
}

/// A template in one mode, and what it holds before and after the operation.
struct Prepared {
    scenario: Scenario,
    mode: Mode,
    snapshot: Snapshot,
    before: Vec<String>,
    after: Vec<String>,
}

impl Prepared {
    fn new(scenario: Scenario, mode: Mode) -> Prepared {
        let scratch = Scratch::file("kind-template");
        let t = Tables::open(scratch.name(), mode);
        t.furnish();
        let before = t.dump();
        drop(t);
        let snapshot = Snapshot::take(&scratch);
        let copy = snapshot.restore("kind-after");
        let t = Tables::open(copy.name(), mode);
        (scenario.warm)(&t);
        (scenario.step)(&t);
        let after = t.dump();
        assert_eq!(before != after, scenario.changes, "{}", scenario.name);
        let _ = Object::unlink(&t.copy_name());
        Prepared { scenario, mode, snapshot, before, after }
    }

    fn what(&self) -> String {
        format!("{} ({})", self.scenario.name, self.mode.name)
    }
}

const STORES: usize = 0;
const SURVIVED: usize = 1;
const WORDS: usize = 2;

fn victim(p: &Prepared, name: &Name, shared: &Shared, k: u64) -> ! {
    watchdog(STUCK_SECONDS);
    let t = Tables::open(name, p.mode);
    (p.scenario.warm)(&t);
    inject::arm(k);
    (p.scenario.step)(&t);
    shared.set(STORES, inject::disarm());
    shared.set(SURVIVED, 1);
    leave(0)
}

fn judge(p: &Prepared, t: &Tables, survived: bool, k: u64, most_slots: u64) {
    // The first contact differs: a find, the commit of a change, the check, the dump itself.
    match k % 4 {
        0 => drop(t.typed.find("key 3").expect("finds")),
        1 => t.bytes.update(&7u64.to_le_bytes(), |_| Update::Keep).expect("touches"),
        2 => drop(assert_object_sound(&t.object)),
        _ => {}
    }
    let seen = t.dump();
    if seen != p.after && (survived || seen != p.before) {
        let news = |old: &[String]| seen.iter().filter(|s| !old.contains(s)).cloned().collect::<Vec<_>>();
        panic!("neither before nor after; new to both: {:?}, {:?}", news(&p.before), news(&p.after));
    }
    let summary = assert_object_sound(&t.object);
    assert!(summary.slots_active <= most_slots, "only the judge's own slot is taken, and that of who waits");
    // A copy that is there is whole.
    let copy = t.copy_name();
    if copy.file_name().exists() {
        assert_sound(&copy);
        let copied = Tables::open(&copy, p.mode);
        assert_eq!(copied.dump(), p.before, "the copy");
        Object::unlink(&copy).expect("unlinks");
    }
    go_on(t);
    assert_object_sound(&t.object);
}

fn go_on(t: &Tables) {
    t.texts.resize(500).expect("goes on");
    everywhere(t).expect("goes on");
    t.words.add(1, &[1, 2]).expect("goes on");
    write_blocks(t, &[true], &[]);
    assert_eq!(t.words.find(1), Ok(Some(vec![101, 102])));
    assert!(t.typed.remove("key 3").expect("goes on"));
    t.texts.set(499, "the last").expect("goes on");
    assert_eq!(t.texts.get(499).as_deref(), Ok("the last"));
    t.bytes.replace(&7u64.to_le_bytes(), b"the end").expect("wakes who waits");
}

/// Waits for a change of a key that the judge changes in the end, and perhaps the victim.
fn waiter(p: &Prepared, name: &Name, ready: &Pipe) {
    watchdog(2 * STUCK_SECONDS);
    let t = Tables::open(name, p.mode);
    let key = 7u64.to_le_bytes();
    let mut stamp = t.bytes.stamp(&key).expect("has a stamp");
    let old = t.bytes.find(&key).expect("finds");
    ready.send(1);
    while t.bytes.find(&key).expect("finds") == old {
        t.bytes.wait(&key, &mut stamp, None).expect("waits");
    }
}

/// One death. Gives the number of stores if the victim survived.
fn one_death(p: &Prepared, live: bool, k: u64) -> Option<u64> {
    let scratch = p.snapshot.restore("kind-death");
    let shared = Shared::new(WORDS);
    let (ready, died) = (Pipe::new(), Pipe::new());
    let waits = live && k % 3 == 0;
    let judge_process = || {
        let t = Tables::open(scratch.name(), p.mode);
        if live {
            t.bytes.update(b"nobody's", |_| Update::Keep).expect("takes part");
            ready.send(1);
            died.receive();
        }
        watchdog(STUCK_SECONDS);
        judge(p, &t, shared.get(SURVIVED) == 1, k, 1 + u64::from(waits));
    };
    let ready_within = || assert!(ready.receive_within(Duration::from_secs(60)).is_some(), "at work");
    let early = live.then(|| fork(judge_process));
    if live {
        ready_within();
    }
    let asleep = waits.then(|| fork(|| waiter(p, scratch.name(), &ready)));
    if waits {
        ready_within();
        std::thread::sleep(Duration::from_millis(1));
    }
    let exit = fork(|| victim(p, scratch.name(), &shared, k)).wait();
    let survived = shared.get(SURVIVED) == 1;
    let what = format!("{}, live {live}, k = {k}", p.what());
    assert_eq!(exit, if survived { Exit::Code(0) } else { Exit::KILLED }, "{what}");
    let verdict = match early {
        Some(mut child) => {
            died.send(1);
            child.wait()
        }
        None => fork(judge_process).wait(),
    };
    let _ = Object::unlink(&copy_name(scratch.name()));
    assert_eq!(verdict, Exit::Code(0), "{what}: the judge");
    if let Some(mut asleep) = asleep {
        assert_eq!(asleep.wait(), Exit::Code(0), "{what}: who waits for a change");
    }
    survived.then(|| shared.get(STORES))
}

fn stride(short: u64, random: &mut Random) -> (u64, u64) {
    if support::long() { (0, 1) } else { (random.below(short), short) }
}

/// Prepares all scenarios that are asked for, in all modes, and does something with each; a stride as in the long form or of
/// so many stores is chosen for it. What is done gives what is to be told, and how many deaths there were.
fn for_all(
    test: &str,
    scenarios: fn() -> Vec<Scenario>,
    short: impl Fn(&Scenario) -> u64,
    mut one: impl FnMut(&Prepared, (u64, u64), &mut Random) -> (String, u64),
) {
    let only = std::env::var("NETSHM_DEATH_ONLY").ok();
    let holds =
        "whatever store they died before, all tables were as before or as after, together, and went on";
    let mut campaign = Campaign::open(&format!("kind_death.{test}"), holds);
    let seed = campaign.seed(|| Random::seed(test));
    for (number, (mode, scenario)) in all(scenarios).enumerate() {
        if only.as_ref().is_some_and(|o| !scenario.name.contains(o.as_str())) {
            continue;
        }
        // Whether others are left out makes no difference.
        let mut random = Random::new(seed ^ (number as u64) << 32);
        let (phase, stride) = stride(short(&scenario), &mut random);
        let seeded = if support::long() { String::new() } else { format!(", seed {seed}") };
        if !campaign.begin(&format!("{}, {}, every {stride}. store{seeded}", mode.name, scenario.name)) {
            continue;
        }
        let start = Instant::now();
        let p = Prepared::new(scenario, mode);
        let (told, deaths) = one(&p, (phase, stride), &mut random);
        println!("  {}: {told} ({:.1} s)", p.what(), start.elapsed().as_secs_f32());
        campaign.finish(&[("deaths", deaths)]);
    }
    campaign.end();
}

fn all(scenarios: fn() -> Vec<Scenario>) -> impl Iterator<Item = (Mode, Scenario)> {
    MODES.into_iter().flat_map(move |mode| scenarios().into_iter().map(move |scenario| (mode, scenario)))
}

fn every_store(test: &str, scenarios: fn() -> Vec<Scenario>) {
    for_all(
        test,
        scenarios,
        |scenario| scenario.stride,
        |p, (phase, stride), _| {
            let last = [false, true].map(|live| {
                (phase..).step_by(stride as usize).find_map(|k| one_death(p, live, k)).expect("survives")
            });
            let deaths = last.iter().map(|stores| stores.saturating_sub(phase).div_ceil(stride)).sum();
            (format!("{} stores, live {}, every {stride}. from {phase}", last[0], last[1]), deaths)
        },
    );
}

/// Comes upon a dead one's remains, and dies itself.
fn recoverer(p: &Prepared, name: &Name, shared: &Shared, k: u64) -> ! {
    watchdog(STUCK_SECONDS);
    inject::arm(k);
    let t = Tables::open(name, p.mode);
    t.dump();
    t.bytes.update(b"nobody's", |_| Update::Keep).expect("takes part");
    shared.set(STORES, inject::disarm());
    shared.set(SURVIVED, 1);
    leave(0)
}

/// Dies at the recoverer's store number `k`, of the recovery of an image. True: the recoverer survived.
fn one_pair(p: &Prepared, image: &Snapshot, what: &str, survived: bool, k: u64) -> bool {
    let scratch = image.restore("kind-pair");
    let shared = Shared::new(WORDS);
    let exit = fork(|| recoverer(p, scratch.name(), &shared, k)).wait();
    let end = shared.get(SURVIVED) == 1;
    let what = format!("{what}, then {k}");
    assert_eq!(exit, if end { Exit::Code(0) } else { Exit::KILLED }, "{what}: the recoverer");
    let verdict = fork(|| {
        watchdog(STUCK_SECONDS);
        judge(p, &Tables::open(scratch.name(), p.mode), survived, k, 1);
    })
    .wait();
    let _ = Object::unlink(&copy_name(scratch.name()));
    assert_eq!(verdict, Exit::Code(0), "{what}: the judge");
    end
}

/// What is left by each death, each image once: recovered by one who dies at each of his stores.
fn pairs() {
    for_all(
        "pairs",
        tables,
        |_| 97,
        |p, (phase, stride_1), random| {
            let (mut seen, mut deaths) = (HashSet::new(), 0u64);
            for k1 in (phase..).step_by(stride_1 as usize) {
                let scratch = p.snapshot.restore("kind-first");
                let shared = Shared::new(WORDS);
                fork(|| victim(p, scratch.name(), &shared, k1)).wait();
                let survived = shared.get(SURVIVED) == 1;
                let image = Snapshot::take(&scratch);
                if seen.insert(image.fingerprint(is_personal)) {
                    let (phase, stride_2) = stride(37, random);
                    let what = format!("{}, k = {k1}", p.what());
                    for k2 in (phase..).step_by(stride_2 as usize) {
                        if one_pair(p, &image, &what, survived, k2) {
                            break;
                        }
                        deaths += 1;
                    }
                }
                if survived {
                    break;
                }
            }
            (format!("{} images, {deaths} deaths in their recovery", seen.len()), deaths)
        },
    );
}

/// Words that differ from process to process: its number and the age of its group, in the first eight slots.
fn is_personal(offset: u64) -> bool {
    const SLOTS: std::ops::Range<u64> = 8 * 4096..24 * 4096;
    SLOTS.contains(&offset) && matches!((offset - SLOTS.start) % 8192 / 8, 5 | 6)
}

/// The judge can tell: contents that are neither before nor after are seen.
fn the_judge_can_fail() {
    let p = Prepared::new(change("set", |t| t.texts.set(77, "new").expect("sets")), MODES[0]);
    let scratch = p.snapshot.restore("kind-death");
    let exit = fork(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let t = Tables::open(scratch.name(), p.mode);
        t.texts.set(78, "new").expect("sets");
        judge(&p, &t, false, 3, 1);
    })
    .wait();
    assert_eq!(exit, Exit::Code(101));
}

fn main() {
    support::main(&[
        ("the_judge_can_fail", the_judge_can_fail),
        ("tables_of_all_kinds", || every_store("tables_of_all_kinds", tables)),
        ("the_object_as_a_whole", || every_store("the_object_as_a_whole", objects)),
        ("pairs", pairs),
    ]);
}
