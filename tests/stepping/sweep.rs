//! All cases, their images, and the recovery of these.

use crate::campaign::Campaign;
use crate::cases::*;
use crate::child::Opened;
use crate::judge::*;
use crate::library::{Library, RDWR, library, so_path};
use crate::ops::*;
use crate::support_processes::*;
use crate::trail::*;
use std::ffi::c_void;
use std::path::Path;
use std::time::Instant;

/// What has been looked at.
#[derive(Default)]
struct Seen {
    instructions: u64,
    system_calls: u64,
    images: usize,
    recovered: usize,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.instructions += other.instructions;
        self.system_calls += other.system_calls;
        self.images += other.images;
        self.recovered += other.recovered;
    }

    fn of(trail: &Trail) -> Seen {
        let Trail { instructions, system_calls, images, .. } = trail;
        Seen { instructions: *instructions, system_calls: *system_calls, images: images.len(), recovered: 0 }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seen { instructions, system_calls, images, .. } = self;
        write!(f, "{instructions:7} instructions, {system_calls:3} system calls, {images:4} images")
    }
}

/// Which cases are wanted: `NETSHM_PART=1/2` takes every second one, `NETSHM_ONLY` those whose names have a text in them.
struct Chosen {
    part: usize,
    parts: usize,
    only: Option<String>,
    count: usize,
}

impl Chosen {
    fn from_environment() -> Chosen {
        let text = |name| std::env::var(name).ok();
        let (part, parts) = text("NETSHM_PART").map_or((1, 1), |part| {
            let numbers = part.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
            numbers.filter(|(i, n)| (1..=*n).contains(i)).unwrap_or_else(|| panic!("NETSHM_PART={part}"))
        });
        Chosen { part, parts, only: text("NETSHM_ONLY"), count: 0 }
    }

    /// The running number of a case, if it is wanted.
    fn takes(&mut self, mode: &Mode, case: &Case) -> Option<usize> {
        self.count += 1;
        let name = format!("{} {}", mode.name, case.name);
        let named = self.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        let here = self.count % self.parts == self.part % self.parts;
        (named && here).then_some(self.count)
    }
}

pub(crate) fn every_instruction() {
    let Some(library) = library() else { return };
    let _alone = alone();
    say(&format!("stepping through {}\n", so_path().display()));
    let mut random = Random(std::process::id().into());
    let other = if random.below(2) == 0 { &CHECKSUMS } else { &RECORD };
    let modes = if long_form() { vec![&FUTEX, &CHECKSUMS, &RECORD] } else { vec![&FUTEX, other] };
    let mut chosen = Chosen::from_environment();
    let holds = "after each instruction the object is as before or as after, never as before again; so it is if who recovers dies";
    let mut campaign = Campaign::open("stepping.every_instruction_of_the_short_operations", holds);
    for mode in modes {
        let (mut steps, mut recoveries) = (Seen::default(), Seen::default());
        for case in &cases(mode) {
            let Some(number) = chosen.takes(mode, case) else { continue };
            // The short form takes half of the cases with the other mode.
            if !long_form() && mode.name != FUTEX.name && number / 2 % 2 == 0 {
                continue;
            }
            if !campaign.begin(&format!("{} {}, {}", mode.name, case.name, recoveries_stepped_through())) {
                continue;
            }
            let begin = Instant::now();
            let Some(trail) = follow(case, &[], library) else { return };
            let verdicts = judge_case(case, &trail);
            let done = verdicts.iter().filter(|v| **v > BEFORE).count();
            let seen = Seen::of(&trail);
            let images = chosen_images(mode, number, &verdicts);
            let Some(again) = recover_images(case, &images, &trail, &verdicts, library) else { return };
            say(&format!(
                "  {:9} {:38} {seen} ({:3} before, {done:3} after); {:3} recovered: {again}; {:.1?}\n",
                mode.name,
                case.name,
                verdicts.len() - done,
                again.recovered,
                begin.elapsed()
            ));
            campaign.finish(&[
                ("instructions", seen.instructions),
                ("images", seen.images as u64),
                ("recoveries", again.recovered as u64),
                ("instructions of recoveries", again.instructions),
                ("images of recoveries", again.images as u64),
            ]);
            steps.add(&seen);
            recoveries.add(&again);
        }
        say(&format!("  {} in all: {steps}; {} recovered: {recoveries}\n", mode.name, recoveries.recovered));
    }
    campaign.end();
}

/// Which recoveries are stepped through, and how.
fn recoveries_stepped_through() -> &'static str {
    match (long_form(), std::env::var_os("NETSHM_STRETCHES").is_some()) {
        (false, _) => "a recovery",
        (true, false) => "all recoveries",
        (true, true) => "stretches of all recoveries",
    }
}

/// What each image of a case shows.
fn judge_case(case: &Case, trail: &Trail) -> Vec<u64> {
    let images = &trail.images;
    if case.reads_only {
        assert_eq!(images.len(), 1, "{}: changed the object at {:?}", case.name, trail.at);
        assert_eq!(trail.system_calls, 0, "{}: makes system calls", case.name);
    }
    let states = states(case);
    let verdicts = judge_all(case, images, &states);
    assert_eq!(verdicts[0], BEFORE, "{}", case.name);
    assert_eq!(verdicts.last(), Some(&(states.len() as u64)), "{}", case.name);
    assert!(verdicts.is_sorted(), "{}: back again: {verdicts:?}", case.name);
    if let Some(proof) = case.proof {
        let last = images.last().expect("there is one");
        assert!(proof.holds(&images[0].bytes(), &last.bytes()), "{}: not {proof:?}", case.name);
    }
    verdicts
}

/// The images whose recovery is stepped through: all of them; in the short form one, with futexes. By turns it is the first one
/// that shows the operation done, which has everything still to be applied, or one a fifth, two fifths, ... of the way after it.
fn chosen_images(mode: &Mode, number: usize, verdicts: &[u64]) -> Vec<usize> {
    let n = verdicts.len();
    if long_form() {
        return (0..n).collect();
    }
    if mode.name != FUTEX.name {
        return Vec::new();
    }
    let first_done = verdicts.iter().position(|v| *v > BEFORE).unwrap_or(0);
    vec![(first_done + number % 5 * n / 5) % n]
}

/// Death within recovery: somebody changes a key that a dead writer has in hand, and dies at each of his instructions.
/// None: it cannot be stepped here.
fn recover_images(
    case: &Case,
    chosen: &[usize],
    trail: &Trail,
    verdicts: &[u64],
    library: Library,
) -> Option<Seen> {
    let mut seen = Seen::default();
    if case.reads_only {
        return Some(seen);
    }
    let states_of_case = states(case);
    for &i in chosen {
        let done = (verdicts[i] - BEFORE) as usize;
        let model = &states_of_case[done];
        let first_found = |op| Case {
            name: "recovery",
            template: trail.images[i].bytes().into(),
            model: model.clone(),
            flags: RDWR,
            warm: Vec::new(),
            op,
            reads_only: false,
            proof: None,
            sleeper: false,
        };
        let mut case = first_found(case.op.meets(done, model));
        let mut trail = recovery(&case, library)?;
        if trail.images[0].bytes()[..] != case.template[..] {
            // Already who only views the object finds what there is to recover.
            case = first_found(Op::Manage);
            trail = recovery(&case, library)?;
            assert!(trail.images[0].bytes()[..] == case.template[..], "recovery: somebody was here before");
        }
        let states = states(&case);
        let verdicts = judge_all(&case, &trail.images, &states);
        let is_done = verdicts.last() == Some(&(states.len() as u64));
        assert!(verdicts.is_sorted() && is_done, "recovery: {verdicts:?}");
        seen.add(&Seen { recovered: 1, ..Seen::of(&trail) });
    }
    Some(seen)
}

/// Steps through a recovery; in the short form, and with `NETSHM_STRETCHES=1`, not through what lies between two system calls
/// and leaves the object as it was: that is most of the way to a place among those who take part.
fn recovery(case: &Case, library: Library) -> Option<Trail> {
    let whole = long_form() && std::env::var_os("NETSHM_STRETCHES").is_none();
    let stretches = if whole { Vec::new() } else { stretches(case, library)? };
    follow(case, &stretches, library)
}

pub(crate) fn killed_at_random_instructions() {
    let Some(library) = library() else { return };
    let _alone = alone();
    let mut cases: Vec<Case> = cases(&FUTEX).into_iter().filter(|c| !c.reads_only).collect();
    if !long_form() {
        // A third of them, since how long each one is has to be found out.
        let mut number = std::process::id();
        cases.retain(|_| {
            number += 1;
            number % 3 == 0
        });
    }
    let mut lengths = vec![0; cases.len()];
    let mut random = Random(std::process::id() as u64);
    say(&format!("seed {}\n", std::process::id()));
    let rounds = if long_form() { 5000 } else { 100 };
    let mut seen = [0; 2];
    for round in 0..rounds {
        let n = round % cases.len();
        let case = &cases[n];
        if lengths[n] == 0 {
            let Some(trail) = follow(case, &[], library) else { return };
            lengths[n] = trail.instructions;
        }
        let s = Scratch::file(Path::new("/dev/shm"), "step-kill");
        std::fs::write(path_of(&s), &case.template).expect("writes");
        let shared = Shared::new(2);
        let sleeper = sleeper(case, path_of(&s), library);
        let Some(child) = start(case, path_of(&s), &shared, library) else { return };
        let mut signal = 0;
        let mut left = random.below(lengths[n]);
        let at = left;
        while shared.get(0) < 2 && left > 0 {
            left -= shared.get(0);
            step(&child, &mut signal);
        }
        assert_eq!(child.kill(), End::Signal(libc::SIGKILL));
        let (states, spots) = (states(case), case.op.spots());
        let what = format!("{}, killed at instruction {at}", case.name);
        let others = u64::from(sleeper.is_some());
        let judge = Judge { what, states: &states, spots: &spots, readable: true, others };
        fork(10, || shared.set(1, judge.judge(&s.0))).succeeds();
        // Whom the dead one has not woken the judge has.
        if let Some(sleeper) = sleeper {
            sleeper.succeeds();
        }
        seen[usize::from(shared.get(1) > BEFORE)] += 1;
    }
    say(&format!("{rounds} real deaths: {} before, {} after\n", seen[0], seen[1]));
    assert!(seen[0] > 0 && seen[1] > 0);
}

/// Stores that do not change a byte are stores, too: the mapping is made read-only under the library.
pub(crate) fn finding_does_not_even_try_to_store() {
    let Some(library) = library() else { return };
    let _alone = alone();
    let (bytes, _) = template(3000, &FUTEX, false);
    let s = Scratch::file(Path::new("/dev/shm"), "step-protect");
    std::fs::write(path_of(&s), bytes).expect("writes");
    stage(30, || {
        let mut opened = Opened::open(library, path_of(&s), RDWR);
        opened.run(&Op::Manage);
        opened.run(&Op::Add(key(9000), value(9000, 8)));
        let maps = std::fs::read_to_string("/proc/self/maps").expect("reads");
        let mut protected = 0;
        let file = path_of(&s).to_str().expect("is UTF-8");
        for line in maps.lines().filter(|l| l.contains(file) && l.contains(" rw-s ")) {
            let range = line.split(' ').next().expect("has a range");
            let (from, to) = range.split_once('-').expect("is a range");
            let [from, to] = [from, to].map(|n| usize::from_str_radix(n, 16).expect("is a number"));
            // SAFETY: it is a mapping of this process; a store to it is what the test is after.
            let code = unsafe { libc::mprotect(from as *mut c_void, to - from, libc::PROT_READ) };
            assert_eq!(code, 0, "protects");
            protected += 1;
        }
        assert!(protected > 0, "{maps}");
        for n in 0..3000 {
            if n != 3 {
                opened.run(&Op::Find(key(n), Some(value(n, 8))));
            }
            opened.run(&Op::Find(key(n + 50_000), None));
            opened.run(&Op::Mem(key(n), true));
        }
    });
}
