//! All cases, their images, and the recovery of these.

use crate::cases::*;
use crate::judge::*;
use crate::library::{Library, RDWR, library, so_path};
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
    fn add(&mut self, trail: &Trail) {
        self.instructions += trail.instructions;
        self.system_calls += trail.system_calls;
        self.images += trail.images.len();
    }

    fn tell(&self, what: &str) {
        let Seen { instructions, system_calls, images, recovered } = self;
        let of = if *recovered > 0 { format!(" of {recovered} images") } else { String::new() };
        say(&format!(
            "  {what}{of}: {instructions} instructions, {system_calls} system calls, {images} images\n"
        ));
    }
}

pub(crate) fn every_instruction() {
    let Some(library) = library() else { return };
    let _alone = alone();
    say(&format!("stepping through {}\n", so_path().display()));
    let mut random = Random(std::process::id().into());
    let other = if random.below(2) == 0 { &CHECKSUMS } else { &RECORD };
    let modes = if long_form() { vec![&FUTEX, &CHECKSUMS, &RECORD] } else { vec![&FUTEX, other] };
    for mode in modes {
        let (mut seen, mut pairs) = (Seen::default(), Seen::default());
        for case in &cases(mode) {
            let begin = Instant::now();
            let Some(trail) = follow(case, library) else { return };
            let verdicts = judge_case(case, &trail);
            let done = verdicts.iter().filter(|v| **v == AFTER).count();
            seen.add(&trail);
            let pairs = &mut pairs;
            let recovered =
                case.reads_only || recover_images(case, &trail, &verdicts, library, &mut random, pairs);
            if !recovered {
                return;
            }
            say(&format!(
                "  {:9} {:32} {:6} instructions, {:3} system calls, {:4} images ({:3} before, {:3} after), {:?}\n",
                mode.name,
                case.name,
                trail.instructions,
                trail.system_calls,
                verdicts.len(),
                verdicts.len() - done,
                done,
                begin.elapsed()
            ));
        }
        seen.tell("in all");
        pairs.tell("recovery");
    }
}

/// What each image of a case shows.
fn judge_case(case: &Case, trail: &Trail) -> Vec<u64> {
    let images = &trail.images;
    if case.reads_only {
        assert_eq!(images.len(), 1, "{}: changed the object at {:?}", case.name, trail.at);
        assert_eq!(trail.system_calls, 0, "{}: makes system calls", case.name);
    }
    let (before, after) = models(case);
    let verdicts = judge_all(case, images, &before, &after);
    if !case.reads_only {
        assert_eq!(verdicts[0], BEFORE, "{}", case.name);
        assert_eq!(verdicts.last(), Some(&AFTER), "{}", case.name);
        assert!(verdicts.is_sorted(), "{}: back again: {verdicts:?}", case.name);
    }
    if case.splits {
        let (was, is) = (buckets(&images[0]), buckets(images.last().expect("there is one")));
        assert!(is > was, "{}: {was} buckets, then {is}", case.name);
    }
    verdicts
}

/// The short form takes so many images of each case, besides the last one before and the first one after.
const SOME: usize = 1;

/// Death within recovery: somebody changes a key that a dead writer has in hand, and dies at each of his instructions.
/// False: it cannot be stepped here.
fn recover_images(
    case: &Case,
    trail: &Trail,
    verdicts: &[u64],
    library: Library,
    random: &mut Random,
    pairs: &mut Seen,
) -> bool {
    let images = &trail.images;
    // The first image that shows the operation done has everything still to be applied.
    let first = verdicts.iter().position(|v| *v == AFTER).expect("there is one");
    let mut chosen: Vec<usize> = (0..images.len()).collect();
    if !long_form() {
        let any = || random.below(images.len() as u64) as usize;
        chosen = std::iter::repeat_with(any).take(SOME).chain([first - 1, first]).collect();
        // Each run of the short form takes a sixth of these.
        chosen.retain(|_| random.below(6) == 0);
    }
    let (before, after) = models(case);
    for i in chosen {
        let model = if verdicts[i] == AFTER { &after } else { &before };
        let case = Case {
            name: "recovery",
            template: images[i].clone(),
            model: model.clone(),
            flags: RDWR,
            warm: Vec::new(),
            op: Op::Replace(case.op.keys()[0].clone(), value(4711, 8)),
            reads_only: false,
            splits: false,
        };
        let Some(trail) = follow(&case, library) else { return false };
        let (before, after) = models(&case);
        let verdicts = judge_all(&case, &trail.images, &before, &after);
        assert!(verdicts.is_sorted() && verdicts.last() == Some(&AFTER), "recovery: {verdicts:?}");
        pairs.add(&trail);
        pairs.recovered += 1;
    }
    true
}

pub(crate) fn killed_at_random_instructions() {
    let Some(library) = library() else { return };
    let _alone = alone();
    let cases: Vec<Case> = cases(&FUTEX).into_iter().filter(|c| !c.reads_only).collect();
    let mut lengths = vec![0; cases.len()];
    let mut random = Random(std::process::id() as u64);
    say(&format!("seed {}\n", std::process::id()));
    let rounds = if long_form() { 5000 } else { 100 };
    let mut seen = [0; 3];
    for round in 0..rounds {
        let n = round % cases.len();
        let case = &cases[n];
        if lengths[n] == 0 {
            let Some(trail) = follow(case, library) else { return };
            lengths[n] = trail.instructions;
        }
        let s = Scratch::file(Path::new("/dev/shm"), "step-kill");
        let shared = Shared::new(2);
        let Some(child) = start(case, path_of(&s), &shared, library) else { return };
        let mut signal = 0;
        let mut left = random.below(lengths[n]);
        let at = left;
        while shared.get(0) < 2 && left > 0 {
            left -= shared.get(0);
            step(&child, &mut signal);
        }
        assert_eq!(child.kill(), End::Signal(libc::SIGKILL));
        let (before, after) = models(case);
        let keys = case.op.keys();
        let what = format!("{}, killed at instruction {at}", case.name);
        let judge = Judge { what, before: &before, after: &after, keys: &keys, readable: true };
        fork(10, || shared.set(1, judge.judge(&s.0))).succeeds();
        seen[shared.get(1) as usize] += 1;
    }
    say(&format!("{rounds} real deaths: {} before, {} after\n", seen[BEFORE as usize], seen[AFTER as usize]));
    assert!(seen[BEFORE as usize] > 0 && seen[AFTER as usize] > 0);
}

/// Stores that do not change a byte are stores, too: the mapping is made read-only under the library.
pub(crate) fn finding_does_not_even_try_to_store() {
    let Some(library) = library() else { return };
    let _alone = alone();
    let (bytes, _) = template(3000, &FUTEX);
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
