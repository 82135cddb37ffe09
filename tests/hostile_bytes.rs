//! Goal: whatever bytes an object consists of, when it is opened and while it is used, nobody who works with it panics,
//! faults, loops without end or takes memory without bound. Method: scripts (`hostile/driver.rs`) change valid objects and
//! work with them: those that the fuzzer (`fuzz/`) has found worth keeping, those that once failed, and random ones.
//!
//! `NETSHM_ROUNDS` is the number of random scripts, `NETSHM_SEED` repeats a run, `NETSHM_SCRIPT` is the one file to run.
//! `NETSHM_CAMPAIGN` names a directory that keeps which rounds are done, so that the same command goes on after an interruption.
//! `NETSHM_GOLDEN=make` makes the objects of `hostile/images` that are missing (with the feature `inject`).

#[path = "hostile/driver.rs"]
#[allow(dead_code, unreachable_pub, reason = "it serves other tests as well")]
mod driver;
mod support;
#[path = "hostile/texts.rs"]
#[allow(unreachable_pub, reason = "it serves the fuzzer as well")]
mod texts;

use driver::{Place, run};
use netshm::{Damage, Error, HashTable, ManageOptions, OpenOptions};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::campaign::Campaign;
use support::process::{Exit, fork, watchdog};
use support::random::Random;
use support::scratch::Scratch;

fn main() {
    if cfg!(debug_assertions) {
        // Assertions are about mistakes of this library; the bytes of an enemy may well break them.
        println!(
            "with debug assertions this is not run: `make test-hostile` runs it without, as it is shipped"
        );
        return;
    }
    support::main(&[
        ("images_are_made", images_are_made),
        ("images_are_sound_or_recovered", images_are_sound_or_recovered),
        ("a_catalog_that_goes_round_costs_nothing", a_catalog_that_goes_round_costs_nothing),
        ("lists_of_roots_that_go_round_are_damage", lists_of_roots_that_go_round_are_damage),
        ("an_extension_that_is_none_is_damage", an_extension_that_is_none_is_damage),
        ("no_single_damaged_word_does_harm", no_single_damaged_word_does_harm),
        ("scripts_of_the_fuzzer_do_no_harm", scripts_of_the_fuzzer_do_no_harm),
        ("random_scripts_do_no_harm", random_scripts_do_no_harm),
        ("texts_do_no_harm", texts_do_no_harm),
    ]);
}

/// Seconds that some scripts may take together, on a machine with much else to do.
const PATIENCE_S: u32 = 120;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile")
}

/// Runs scripts in a process of their own, and says which one did harm.
fn survive(scripts: &[(String, Vec<u8>)]) {
    let last = support::process::Shared::new(1);
    let outcome = fork(|| {
        let place = Place::new();
        for (n, (_, script)) in scripts.iter().enumerate() {
            last.set(0, n as u64);
            watchdog(PATIENCE_S);
            run(&place, script);
        }
    })
    .wait();
    let (name, script) = &scripts[last.get(0) as usize];
    let hang = Exit::Signal(libc::SIGALRM);
    let what = if outcome == hang { "did not end" } else { "did harm" };
    if outcome != Exit::Code(0) {
        let kept = std::env::temp_dir().join(format!("netshm-hostile-script-{}", std::process::id()));
        fs::write(&kept, script).expect("writes");
        panic!("{name} {what}: {outcome:?}; NETSHM_SCRIPT={} repeats it", kept.display());
    }
}

fn scripts_in(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut scripts: Vec<(String, Vec<u8>)> = fs::read_dir(directory)
        .expect("lists")
        .map(|entry| {
            let path = entry.expect("lists").path();
            (path.display().to_string(), fs::read(&path).expect("reads"))
        })
        .collect();
    scripts.sort();
    scripts
}

fn scripts_of_the_fuzzer_do_no_harm() {
    if let Ok(path) = std::env::var("NETSHM_SCRIPT") {
        run(&Place::new(), &fs::read(path).expect("reads"));
        return;
    }
    for kind in ["object", "finds"] {
        let scripts = scripts_in(&directory().join("corpus").join(kind));
        assert!(!scripts.is_empty());
        scripts.chunks(50).for_each(survive);
        println!("scripts_of_the_fuzzer_do_no_harm: {} scripts of {kind}", scripts.len());
    }
}

/// Goal: refusals that random bytes rarely come to, since most of these damage too much, are met as well. Method: one word
/// of a valid object is changed at a time, in each of some ways, and a little of everything is made with it; the short
/// form takes every 23rd of these changes. Among the objects is one of which the slots have to be recovered.
fn no_single_damaged_word_does_harm() {
    let step = if support::long() { 1 } else { 23 };
    let mut done = 0;
    for number in [0, 3] {
        let image = &driver::images()[number];
        let changes: Vec<(u64, u64)> = image.words().iter().flat_map(|(at, word)| ways(*at, *word)).collect();
        let changes: Vec<(u64, u64)> = changes.into_iter().step_by(step).collect();
        let last = support::process::Shared::new(1);
        let outcome = fork(|| {
            let place = Place::new();
            for (n, change) in changes.iter().enumerate() {
                last.set(0, n as u64);
                watchdog(PATIENCE_S);
                driver::run_everything(&place, image, &[*change]);
            }
        })
        .wait();
        let (at, word) = changes[last.get(0) as usize];
        assert_eq!(outcome, Exit::Code(0), "image {number} with {word:#x} at {at:#x}");
        done += changes.len();
    }
    println!("no_single_damaged_word_does_harm: {done} changes");
}

/// What a word is changed to: nothing, all, one more or less, another place of any alignment, other upper parts.
fn ways(at: u64, word: u64) -> impl Iterator<Item = (u64, u64)> {
    let others = [
        0,
        u64::MAX,
        word.wrapping_add(1),
        word.wrapping_sub(1),
        word ^ 8,
        word ^ 0x1000,
        word ^ 1 << 20,
        word ^ 1 << 34,
        word ^ 1 << 60,
        word & 0xffff_ffff,
        word & !0xffff_ffff,
    ];
    others.into_iter().map(move |other| (at, other))
}

/// A script of random bytes. Those that say where and what to change, and what to do, are all legal.
fn random_script(random: &mut Random) -> Vec<u8> {
    let len = 8 + random.below(400);
    let mut script: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    // Few changes do more: with many the object is not even opened.
    script[2] = random.below(6) as u8;
    if random.below(8) != 0 {
        script[1] &= !12;
    }
    script
}

fn random_scripts_do_no_harm() {
    let test = "random_scripts_do_no_harm";
    let holds = "scripts brought about no panic, no fault, no loop without end, no memory without bound";
    let mut campaign = Campaign::open(&format!("hostile_bytes.{test}"), holds);
    let seed = campaign.seed(|| Random::repeatable_seed(test, 20261130));
    let wanted = support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 300_000 } else { 2000 });
    for first in (0..wanted).step_by(1000) {
        let count = (wanted - first).min(1000);
        if !campaign.begin(&format!("seed {seed}, {count} scripts from {first}")) {
            continue;
        }
        let mut random = Random::new(seed ^ first << 32);
        let all: Vec<_> =
            (first..first + count).map(|n| (format!("script {n}"), random_script(&mut random))).collect();
        all.chunks(100).for_each(survive);
        campaign.finish(&[("scripts", count)]);
        if (first + count) % 10_000 == 0 {
            println!("{test}: {} of {wanted}", first + count);
        }
    }
    println!("{test}: {} scripts", campaign.sum("scripts"));
    campaign.end();
}

/// Goal: signatures, encoded values, and lists of persistent objects may be anything. Method: what the fuzzer has kept, and
/// valid ones with random changes.
fn texts_do_no_harm() {
    let mut random = Random::from_environment("texts_do_no_harm");
    let place = Place::new();
    let list = place.path("list");
    let kept = scripts_in(&directory().join("corpus/text"));
    assert!(!kept.is_empty());
    for (name, bytes) in &kept {
        println!("{name}");
        texts::run(&list, bytes);
    }
    let rounds =
        support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 10_000_000 } else { 20_000 });
    for _ in 0..rounds {
        let mut bytes = random.one_of(&kept).1.clone();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, *random.one_of(b"\"\\ \n(),?_[]0129RU\x00\x01\xff")),
                2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ => {
                    let other = &random.clone().one_of(&kept).1;
                    bytes.extend_from_slice(&other[..other.len().min(random.below(40) as usize)]);
                }
            }
        }
        texts::run(&list, &bytes);
    }
    println!("texts_do_no_harm: {} kept, {rounds} changed", kept.len());
}

/// Goal: scripts begin with what they are meant to begin with. Each object is opened, recovered, found to be sound, and found
/// to have its tables.
fn images_are_sound_or_recovered() {
    for image in driver::images() {
        let scratch = Scratch::file("image");
        let file = fs::File::create_new(scratch.path()).expect("creates");
        image.restore(&file);
        file.write_all_at(&[0; 16], 4096).expect("writes");
        let summary = support::scratch::assert_sound(scratch.name());
        assert!(summary.tables >= 1 && summary.keys > 10, "{summary:?}");
    }
}

/// The first image in a file, with some words changed.
fn damaged(tag: &str, changes: impl Fn(&dyn Fn(u64) -> u64) -> Vec<(u64, u64)>) -> Scratch {
    let scratch = Scratch::file(tag);
    let file =
        fs::File::options().read(true).write(true).create_new(true).open(scratch.path()).expect("creates");
    driver::images()[0].restore(&file);
    let word = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("reads");
        u64::from_le_bytes(bytes)
    };
    for (at, value) in changes(&word) {
        file.write_all_at(&value.to_le_bytes(), at).expect("writes");
    }
    scratch
}

const CATALOG: u64 = 2 * 4096 + 72;
const RETIRED: u64 = 2 * 4096 + 192;

/// Goal: a catalog page that names itself as the next one is damage, found at once, whatever is asked for. Before, a million
/// rounds were made, and all tables listed in each: gigabytes.
fn a_catalog_that_goes_round_costs_nothing() {
    watchdog(20);
    // The sanitizer needs more for itself.
    if std::env::var_os("NETSHM_SANITIZED").is_none() {
        let limit = libc::rlimit { rlim_cur: 256 << 20, rlim_max: 256 << 20 };
        // SAFETY: the structure is ours.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    }
    let scratch = damaged("circle", |word| vec![(word(CATALOG), word(CATALOG))]);
    let object = OpenOptions::new().open(scratch.name()).expect("opens");
    let is_damage = |error: Error| matches!(error, Error::Corrupt { what: Damage::Root, .. });
    assert!(object.tables().is_err_and(is_damage));
    for _ in 0..1000 {
        let outcome = HashTable::manage(&object, ManageOptions::new().root("new"));
        assert!(outcome.is_err_and(is_damage));
    }
    HashTable::manage(&object, ManageOptions::new().root("words")).expect_err("it is of another kind");
}

/// The same for retired roots, in an object of an earlier boot with a slot in use, which is brought to rest.
fn lists_of_roots_that_go_round_are_damage() {
    watchdog(20);
    let main = 2 * 4096 + 64;
    let scratch =
        damaged("roots", |word| vec![(8 * 4096, 1), (RETIRED, word(main)), (word(main) + 32, word(main))]);
    let object = OpenOptions::new().open(scratch.name()).expect("opens");
    let table = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    assert!(matches!(table.add(b"key", b"value"), Err(Error::Corrupt { what: Damage::Root, .. })));
    // Once only, and still each bucket of the object is another's, too.
    let scratch = damaged("shared", |word| vec![(8 * 4096, 1), (RETIRED, word(word(CATALOG) + 256))]);
    let object = OpenOptions::new().open(scratch.name()).expect("opens");
    let table = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    let _ = table.add(b"key", b"value");
}

/// Goal: a group whose log needs an extension, where something else than one is written, fails; it looked for it for ever.
fn an_extension_that_is_none_is_damage() {
    for (first, keys) in [(32, 100), (32, 140), (32, 180), (32, 4000), (48, 4000), (64, 4000)] {
        watchdog(20);
        let scratch = damaged("extension", |_| vec![(4096, 0), (4104, 0), (8 * 4096 + 8 * first, 1)]);
        let keys: u32 = keys;
        let object = OpenOptions::new().open(scratch.name()).expect("opens");
        let table = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let group = table.table().begin().expect("begins");
        let mut outcome = Ok(());
        for n in 0..keys {
            outcome = outcome.and_then(|()| table.add(&n.to_be_bytes(), b"grouped"));
        }
        let outcome = outcome.and_then(|()| group.commit());
        assert!(matches!(outcome, Err(Error::Corrupt { what: Damage::Slot, .. })), "{first}: {outcome:?}");
    }
}

#[cfg(not(feature = "inject"))]
fn images_are_made() {}

#[cfg(feature = "inject")]
fn images_are_made() {
    making::make();
}

/// Making the objects that scripts begin with.
#[cfg(feature = "inject")]
mod making {
    use super::*;
    use netshm::{Array, Object, Type, Value, inject};
    use std::fmt::Write;

    pub(super) fn make() {
        if std::env::var("NETSHM_GOLDEN").is_ok_and(|what| what == "make") {
            keep("checksums", checksums);
            keep("dead", dead);
            keep("swept", swept);
        }
    }

    fn open(scratch: &Scratch) -> Object {
        OpenOptions::new().create(true).open(scratch.name()).expect("opens")
    }

    fn keep(name: &str, build: fn(&Scratch)) {
        let path = directory().join("images").join(format!("{name}.txt"));
        if fs::metadata(&path).is_ok_and(|file| file.len() > 100) {
            return;
        }
        let scratch = Scratch::file(name);
        build(&scratch);
        let bytes = fs::read(scratch.path()).expect("reads");
        let mut text = format!("# Made by netshm {}.\nsize {}\n", env!("CARGO_PKG_VERSION"), bytes.len());
        for (n, line) in bytes.chunks(64).enumerate() {
            let words: Vec<u64> =
                line.chunks(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes"))).collect();
            let Some(last) = words.iter().rposition(|word| *word != 0) else { continue };
            let first = words.iter().position(|word| *word != 0).unwrap_or(0);
            write!(text, "{:x}", n * 64 + first * 8).expect("fits");
            words[first..=last].iter().for_each(|word| write!(text, " {word:x}").expect("fits"));
            text.push('\n');
        }
        fs::write(path, text).expect("writes");
    }

    fn fill(table: &HashTable, keys: u32) {
        for key in 0..keys {
            table.add(&key.to_le_bytes(), b"val").expect("adds");
        }
        for value in [&b"oldest"[..], b"older", b"newest"] {
            table.add(b"stack", value).expect("adds");
        }
        table.add(b"long", &[3; 20_000]).expect("adds");
        table.increment(b"count", 1, 1).expect("counts");
    }

    fn checksums(scratch: &Scratch) {
        let object = open(scratch);
        let table = HashTable::manage(&object, ManageOptions::new().checksums(true)).expect("manages");
        fill(&table, 60);
        let of = Type::parse("(int,(int32,double))").expect("a type");
        let default = [Value::Int(1), Value::Int(2), Value::Double(3.0)];
        let array = Array::manage(&object, &of, &default, 3000, ManageOptions::new().root("records"));
        let array = array.expect("manages");
        array.write(5, &[7; 20 * 40]).expect("writes");
        array.set(2900, &[8; 20]).expect("sets");
    }

    /// The phase of a slot's commit word.
    fn phase(scratch: &Scratch, slot: u64) -> u8 {
        fs::read(scratch.path()).expect("reads")[(8 * 4096 + (slot - 1) * 8192 + 8) as usize]
    }

    /// Two have died: in the middle of a group, and after the commit point of another.
    fn dead(scratch: &Scratch) {
        let object = open(scratch);
        fill(&HashTable::manage(&object, &ManageOptions::new()).expect("manages"), 40);
        drop(object);
        let group = |table: &HashTable, keys: std::ops::Range<u32>| {
            let group = table.table().begin().expect("begins");
            for key in keys {
                table.replace(&key.to_le_bytes(), &[key as u8; 300]).expect("replaces");
            }
            group
        };
        let (ready, go) = (support::process::Pipe::new(), support::process::Pipe::new());
        let mut idle = fork(|| {
            let table = HashTable::manage(&open(scratch), &ManageOptions::new()).expect("manages");
            let _group = group(&table, 0..3);
            ready.send(1);
            go.receive();
        });
        ready.receive();
        for k in 0.. {
            let outcome = fork(|| {
                let table = HashTable::manage(&open(scratch), &ManageOptions::new()).expect("manages");
                let group = group(&table, 20..24);
                inject::arm(k);
                group.commit().expect("commits");
                inject::disarm();
            })
            .wait();
            assert_eq!(outcome, Exit::KILLED, "no death after the commit point");
            if phase(scratch, 2) == 1 {
                break;
            }
        }
        idle.kill();
    }

    /// A table has been removed, and half of it swept; memory is free.
    fn swept(scratch: &Scratch) {
        let object = open(scratch);
        fill(&HashTable::manage(&object, &ManageOptions::new()).expect("manages"), 40);
        let gone = HashTable::manage(&object, ManageOptions::new().root("gone")).expect("manages");
        fill(&gone, 200);
        drop((gone, object));
        for k in 100.. {
            let outcome = fork(|| {
                let object = open(scratch);
                inject::arm(k);
                object.drop_table("gone").expect("drops");
            })
            .wait();
            assert_eq!(outcome, Exit::KILLED, "no death while it was swept");
            let bytes = fs::read(scratch.path()).expect("reads");
            if bytes[2 * 4096 + 192..2 * 4096 + 200] != [0; 8] {
                break;
            }
        }
    }
}
