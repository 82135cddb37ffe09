//! Goal: a process that may write to an object and stores random bytes into it, while others work with it, can make them
//! see "corrupt", wrong values, or the time-out that they have asked for; nothing else. Method: workers make all operations
//! that have a time-out (`hostile/driver.rs`), and check the object through handles for reading; the enemy stores random
//! bytes, words, pages, and values that look right, and makes words change all the time, so that what was looked at is
//! something else when it is used. Now and then he puts the object right, so that there is something to be spoilt. Each kind of
//! call has to end within its time-out and an allowance (`hostile/times.rs`).
//!
//! `NETSHM_ROUNDS` is the number of operations, `NETSHM_SEED` repeats what is chosen. `make test-hostile` runs it under the
//! address sanitizer.

#[path = "hostile/driver.rs"]
#[allow(dead_code, unreachable_pub, reason = "it serves other tests as well")]
mod driver;
mod support;
#[path = "hostile/times.rs"]
#[allow(unreachable_pub, reason = "it lies in a room of its own")]
mod times;

use driver::{Elsewhere, Image, Input, Place, Session, images, scribble};
use netshm::{HashTable, ManageOptions, Name, OpenOptions};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::process::{Exit, Shared, fork, leave, watchdog};
use support::random::Random;
use times::{ALLOWANCE, MANAGE, Times, kind_of};

fn main() {
    if cfg!(debug_assertions) {
        // Assertions are about mistakes of this library; the bytes of an enemy may well break them.
        println!(
            "with debug assertions this is not run: `make test-hostile` runs it without, as it is shipped"
        );
        return;
    }
    support::main(&[
        ("an_enemy_beside_workers", || beside(0)),
        ("an_enemy_beside_workers_with_record_locks", || beside(1)),
        ("an_enemy_beside_workers_with_checksums", || beside(2)),
        ("words_that_never_rest", words_that_never_rest),
        ("an_enemy_is_noticed", an_enemy_is_noticed),
    ]);
}

const WORKERS: u64 = 3;
/// Words that all share: operations made, objects opened, attempts that were refused, words changed, the end.
const DONE: usize = 0;
const OPENED: usize = 1;
const REFUSED: usize = 2;
const CHANGED: usize = 3;
const END: usize = 4;
/// The time-out of all calls that have one.
const TIMEOUT_MS: i32 = 20;
/// An operation that takes so long, in seconds, has no end; see [`times`] for those that have a time-out.
const PATIENCE_S: u32 = 150;
/// What an object may take in memory.
const MOST_MEMORY: u64 = 1 << 30;

fn times() -> Times {
    Times::new(Duration::from_millis(TIMEOUT_MS as u64), ALLOWANCE)
}

fn script(random: &mut Random) -> Vec<u8> {
    (0..64 + random.below(200)).map(|_| random.next() as u8).collect()
}

/// Uses the object until the end, opening it now and then.
fn work(place: &Place, shared: &Shared, times: &Times, seed: u64) -> ! {
    bound_memory();
    let mut random = Random::new(seed);
    let name = Name::file(place.path("object"));
    let copy = place.path(&format!("copy{seed}"));
    while shared.get(END) == 0 {
        watchdog(PATIENCE_S);
        let read_only = random.once_in(5);
        let Ok(object) = times.open(|| OpenOptions::new().read_only(read_only).open(&name)) else {
            shared.add(REFUSED, 1);
            shared.add(DONE, 1);
            continue;
        };
        shared.add(OPENED, 1);
        let mut session = times.measure(MANAGE, || Session::new(object, &copy, TIMEOUT_MS));
        for _ in 0..1 + random.below(6) {
            let script = script(&mut random);
            let mut input = Input(&script);
            while !input.0.is_empty() && shared.get(END) == 0 {
                watchdog(PATIENCE_S);
                times.measure(kind_of(input.0), || session.step(&mut input, &Elsewhere));
                shared.add(DONE, 1);
            }
        }
        drop(session);
    }
    leave(0);
}

/// A process whose memory grows without bound ends by a failing allocation. The sanitizer needs address space of its own.
fn bound_memory() {
    if std::env::var_os("NETSHM_SANITIZED").is_none() {
        let limit = libc::rlimit { rlim_cur: MOST_MEMORY, rlim_max: MOST_MEMORY };
        // SAFETY: the structure is ours.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    }
}

/// The object's first pages as the enemy has them mapped.
struct Grip {
    words: *mut AtomicU64,
    count: u64,
}

impl Grip {
    fn new(file: &File) -> Grip {
        let len = file.metadata().expect("exists").len() as usize;
        // SAFETY: a new mapping.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        Grip { words: at.cast(), count: len as u64 / 8 }
    }

    fn word(&self, n: u64) -> &AtomicU64 {
        // SAFETY: the file is never shortened, and the enemy never gives the mapping up.
        unsafe { &*self.words.add((n % self.count) as usize) }
    }
}

/// Puts the object right, as far as that can be done under the hands of others.
fn put_right(file: &File, image: &Image) {
    // It may be a very long one by now, with nothing in it.
    let len = file.metadata().expect("exists").len().min(64 << 20);
    let zeros = vec![0; 1 << 16];
    for at in (0..len).step_by(zeros.len()) {
        let part = (len - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], at).expect("writes");
    }
    image.restore_words(file);
    file.write_all_at(&[0; 16], 4096).expect("writes");
}

fn make_trouble(place: &Place, image: &Image, shared: &Shared, seed: u64) -> ! {
    let mut random = Random::new(seed);
    let file = File::options().read(true).write(true).open(place.path("object")).expect("opens");
    let grip = Grip::new(&file);
    while shared.get(END) == 0 {
        put_right(&file, image);
        // Some time for others to get hold of it.
        let until = shared.get(DONE) + random.below(100);
        while shared.get(DONE) < until && shared.get(END) == 0 {
            std::thread::yield_now();
        }
        for _ in 0..random.below(40) {
            match random.below(8) {
                0 => {
                    let bytes = [random.next() as u8; 1];
                    let len = file.metadata().expect("exists").len();
                    file.write_all_at(&bytes, random.below(len)).expect("writes");
                }
                1..=3 => {
                    // A word that is one thing and then another.
                    let n = image.place(random.next()) / 8;
                    let word = grip.word(n);
                    let (one, other) =
                        (word.load(Ordering::Relaxed), grip.word(image.place(random.next()) / 8));
                    let other = if random.once_in(2) { other.load(Ordering::Relaxed) } else { random.next() };
                    let other = if random.once_in(3) { one ^ 1 << random.below(64) } else { other };
                    for _ in 0..random.below(20_000) {
                        word.store(other, Ordering::Relaxed);
                        std::hint::spin_loop();
                        word.store(one, Ordering::Relaxed);
                    }
                    if random.once_in(2) {
                        word.store(other, Ordering::Relaxed);
                    }
                }
                _ => scribble(&file, image, &mut Input(&script(&mut random))),
            }
            shared.add(CHANGED, 1);
            for _ in 0..random.below(20) {
                std::thread::yield_now();
            }
        }
    }
    leave(0);
}

fn beside(image: usize) {
    let mut random = Random::from_environment("an enemy beside workers");
    let rounds =
        support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 5_000_000 } else { 150_000 });
    let image = &images()[image];
    let (place, shared, times) = (Place::new(), Shared::new(8), times());
    let file =
        File::options().read(true).write(true).create_new(true).open(place.path("object")).expect("creates");
    image.restore(&file);
    put_right(&file, image);
    let mut workers: Vec<_> = (0..WORKERS)
        .map(|_| random.next())
        .map(|seed| fork(|| work(&place, &shared, &times, seed)))
        .collect();
    let mut control = fork(|| times.control(|| shared.get(END) != 0));
    let seed = random.next();
    let mut enemy = fork(|| make_trouble(&place, image, &shared, seed));
    let mut told = 0;
    while shared.get(DONE) < rounds {
        std::thread::sleep(std::time::Duration::from_millis(5));
        for worker in &mut workers {
            assert_eq!(
                worker.poll(),
                None,
                "a worker has ended (14 is an operation without end, 101 one that took too long); see NETSHM_SEED"
            );
        }
        assert_eq!(enemy.poll(), None, "the enemy has ended");
        let taken = file.metadata().expect("exists").blocks() * 512;
        assert!(taken <= MOST_MEMORY, "the object takes {taken} bytes");
        if shared.get(DONE) / 250_000 > told {
            told = shared.get(DONE) / 250_000;
            println!("an enemy beside workers: {} of {rounds}", shared.get(DONE));
        }
    }
    shared.set(END, 1);
    for worker in &mut workers {
        assert_eq!(worker.wait(), Exit::Code(0), "how a worker ended");
    }
    assert_eq!(enemy.wait(), Exit::Code(0));
    assert_eq!(control.wait(), Exit::Code(0));
    println!("an enemy beside workers: {}", times.text());
    println!(
        "an enemy beside workers: {} operations, opened {} times, refused {} times, {} changes by the enemy",
        shared.get(DONE),
        shared.get(OPENED),
        shared.get(REFUSED),
        shared.get(CHANGED)
    );
    assert!(shared.get(CHANGED) > 0 && shared.get(OPENED) > 0);
}

/// Words on which everybody depends, by their places: gate, roots, retire lock, slot directory, page allocator, arenas, slots.
const CENTRAL: [u64; 17] = [
    2 * 4096,
    2 * 4096 + 64,
    2 * 4096 + 72,
    2 * 4096 + 128,
    2 * 4096 + 192,
    3 * 4096,
    4 * 4096,
    4 * 4096 + 64,
    4 * 4096 + 128,
    5 * 4096,
    5 * 4096 + 512,
    8 * 4096,
    8 * 4096 + 8,
    8 * 4096 + 16,
    8 * 4096 + 8 * 24,
    8 * 4096 + 8 * 32,
    10 * 4096,
];

/// What a word is now and then.
fn other_value(n: u64, one: u64) -> u64 {
    match n {
        0 => one.wrapping_add(1 << 20),
        1 => one ^ 1 << 16 | 1,
        2 => one ^ 1,
        3 => one ^ 2,
        4 => one | 0xffff,
        5 => 0,
        _ => !0,
    }
}

/// Goal: every call that has a time-out ends although a word changes to and fro all the time, so that no two looks at it are
/// the same. Method: each of some words and values; in the short form some of the pairs, and always those of the gate.
fn words_that_never_rest() {
    let mut random = Random::from_environment("words_that_never_rest");
    let image = &images()[0];
    let buckets = (0..3).map(|_| image.place(random.next() & !(1 << 63))).collect::<Vec<_>>();
    let all = CENTRAL.iter().chain(&buckets).flat_map(|at| (0..7).map(move |n| (*at, n)));
    let all: Vec<_> =
        all.filter(|(at, _)| support::long() || *at == 2 * 4096 || random.once_in(12)).collect();
    let (times, end) = (times(), Shared::new(1));
    let mut control = fork(|| times.control(|| end.get(0) != 0));
    for (at, n) in &all {
        let (place, shared) = (Place::new(), Shared::new(8));
        let path = place.path("object");
        let file = File::options().read(true).write(true).create_new(true).open(path).expect("creates");
        image.restore(&file);
        put_right(&file, image);
        let script: Vec<u8> = (0..60).flat_map(|_| script(&mut random)).take(400).collect();
        let mut enemy = fork(|| {
            let grip = Grip::new(&file);
            let word = grip.word(at / 8);
            while shared.get(END) == 0 {
                let one = word.load(Ordering::Relaxed);
                for _ in 0..2000 {
                    word.store(other_value(*n, one), Ordering::Relaxed);
                    (0..random.below(30)).for_each(|_| std::hint::spin_loop());
                    word.store(one, Ordering::Relaxed);
                }
                shared.add(CHANGED, 1);
            }
            leave(0);
        });
        while shared.get(CHANGED) == 0 {
            std::thread::yield_now();
        }
        let outcome = fork(|| {
            bound_memory();
            watchdog(PATIENCE_S);
            let name = Name::file(place.path("object"));
            let Ok(object) = times.open(|| OpenOptions::new().open(&name)) else { return };
            let copy = place.path("copy");
            let mut session = times.measure(MANAGE, || Session::new(object, &copy, TIMEOUT_MS));
            let mut input = Input(&script);
            for _ in 0..60 {
                watchdog(PATIENCE_S);
                times.measure(kind_of(input.0), || session.step(&mut input, &Elsewhere));
                shared.add(DONE, 1);
            }
        })
        .wait();
        assert_eq!(
            outcome,
            Exit::Code(0),
            "the word at {at:#x}, value {n}, after {} calls",
            shared.get(DONE)
        );
        shared.set(END, 1);
        assert_eq!(enemy.wait(), Exit::Code(0));
    }
    end.set(0, 1);
    assert_eq!(control.wait(), Exit::Code(0));
    println!("words_that_never_rest: {} words and values; {}", all.len(), times.text());
}

/// Goal: the test would see what it looks for. Method: one who trusts a word of the object, one who waits for a word
/// without end, and one whose call waits longer than it may, in the workers' place.
fn an_enemy_is_noticed() {
    let trusting = fork(|| {
        let table = [1u8; 64];
        let index = std::hint::black_box(1 << 20);
        // SAFETY: none, that is what it is about.
        std::hint::black_box(unsafe { table.as_ptr().wrapping_add(index << 24).read_volatile() });
    })
    .wait();
    assert_ne!(trusting, Exit::Code(0), "a wild read");
    let endless = fork(|| {
        watchdog(1);
        loop {
            std::hint::spin_loop();
        }
    })
    .wait();
    assert_eq!(endless, Exit::Signal(libc::SIGALRM));
    // The allowance is a second here; without a limit the call waits for three.
    assert_eq!(waits_for_a_lock(TIMEOUT_MS), Exit::Code(0), "a call that ends in time");
    assert_eq!(waits_for_a_lock(0), Exit::Code(101), "a call that waits for too long");
    println!(
        "an_enemy_is_noticed: (the panic above is that of a call that waited for too long, as it was to)"
    );
}

/// How somebody ends whose call with that time-out waits for a lock that another has for three seconds.
fn waits_for_a_lock(timeout_ms: i32) -> Exit {
    let (place, shared) = (Place::new(), Shared::new(8));
    let path = place.path("object");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("creates");
    images()[0].restore(&file);
    put_right(&file, &images()[0]);
    let name = Name::file(path);
    let open = || OpenOptions::new().open(&name).expect("opens");
    let mut holder = fork(|| {
        let t = HashTable::manage(&open(), &ManageOptions::new()).expect("manages");
        let group = t.table().begin().expect("begins");
        t.replace(&0u32.to_le_bytes(), b"locked").expect("replaces");
        shared.set(DONE, 1);
        std::thread::sleep(Duration::from_secs(3));
        group.abort().expect("aborts");
    });
    while shared.get(DONE) == 0 {
        assert_eq!(holder.poll(), None, "who holds the lock has ended");
        std::thread::yield_now();
    }
    let times = Times::new(Duration::from_millis(TIMEOUT_MS as u64), Duration::from_secs(1));
    let outcome = fork(|| {
        let copy = place.path("copy");
        // That makes a table, so it waits as well.
        let mut session = times.measure(MANAGE, || Session::new(open(), &copy, timeout_ms));
        // Removes the key.
        let script = [60, 0];
        times.measure(kind_of(&script), || session.step(&mut Input(&script), &Elsewhere));
    })
    .wait();
    assert_eq!(holder.wait(), Exit::Code(0));
    outcome
}
