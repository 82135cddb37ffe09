//! Goal: groups that wait for each other in a circle find out at once, without any time-out: exactly one gives way
//! (as few as possible, where there are several circles), nothing of it stays, and all get through by trying again.
//! Groups that read, modify and write one key
//! never deadlock. Groups that try again never starve.
//!
//! Method: processes meet at barriers inside of their groups, each with one lock, so that the next operation closes
//! the circle for certain; each round counts who had to give way, and looks at what the keys hold. The watchdog of
//! each process ends what is stuck. `NETSHM_ROUNDS` sets the number of rounds.

mod support;

use netshm::{Error, HashTable, ManageOptions, Name};
use std::sync::atomic::Ordering;
use support::model::{Actor, Bytes};
use support::process::{Child, Exit, Shared, fork, now_ns, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_sound};

const STUCK_SECONDS: u32 = 10;

fn rounds(short: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 10 * short } else { short })
}

fn open(name: &Name) -> HashTable {
    let options = ManageOptions::new().locking(support::locking()).expected(4000).clone();
    Actor::new(name, &options).table()
}

/// Keys that are not locked together, found by trying.
fn separate_keys(name: &Name, wanted: usize) -> Vec<Bytes> {
    let mut found: Vec<Bytes> = Vec::new();
    for n in 0.. {
        let candidate = format!("key {n}").into_bytes();
        let held = open(name);
        let group = held.table().begin().expect("begins");
        for key in &found {
            held.update(key, |_| netshm::Update::Keep).expect("locks");
        }
        let is_free = std::thread::scope(|s| {
            let other = s.spawn(|| {
                let options = ManageOptions::new().lock_timeout_ms(-1).clone();
                let t = Actor::new(name, &options).table();
                t.replace(&candidate, b"initial").is_ok()
            });
            other.join().expect("tries")
        });
        group.abort().expect("aborts");
        if is_free {
            found.push(candidate);
        }
        if found.len() == wanted {
            break;
        }
    }
    found
}

/// Where all processes meet: word 0 counts those who have arrived.
fn meet(shared: &Shared, processes: u64) {
    let mine = shared.add(0, 1);
    let wanted = (mine / processes + 1) * processes;
    let mut spins = 0;
    while shared.get(0) < wanted {
        spins += 1;
        if spins > 100 {
            std::thread::yield_now();
        }
    }
}

fn run(n: usize, body: impl Fn(usize)) {
    let children: Vec<Child> = (0..n).map(|i| fork(|| body(i))).collect();
    let ends: Vec<Exit> = children.into_iter().map(|mut c| c.wait()).collect();
    assert!(ends.iter().all(|e| *e == Exit::Code(0)), "{ends:?}");
}

/// What closes the circle.
#[derive(Clone, Copy, PartialEq)]
enum Closing {
    /// Each wants its neighbour's key.
    Keys,
    /// Each wants to count all bindings, and for that that nobody else holds a lock.
    Length,
    /// The first wants to count, the others their neighbours' keys.
    Mixed,
}

impl Closing {
    /// How many of `n` have to give way.
    fn victims(self, n: usize) -> std::ops::RangeInclusive<u32> {
        match self {
            Closing::Keys => 1..=1,
            // There is a circle for each pair: only one can get through.
            Closing::Length => n as u32 - 1..=n as u32 - 1,
            // If it is not the last one that gives way, it still waits for the one that counts, and that one for it.
            Closing::Mixed => 1..=n as u32 - 1,
        }
    }
}

// Words of the shared memory, besides the barrier's.
const VICTIMS: usize = 1;
const EARLY: usize = 3;
const LONGEST: usize = 4;

/// Circles of `n` processes.
fn circle(n: usize, closing: Closing) {
    let rounds = rounds(5000);
    let scratch = Scratch::posix("deadlock");
    let shared = Shared::new(8);
    let keys_file = std::env::temp_dir().join(format!("netshm-test-keys-{}", std::process::id()));
    let exit = fork(|| {
        let keys = separate_keys(scratch.name(), n);
        std::fs::write(&keys_file, keys.join(&b'\n')).expect("hands over the keys");
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let text = std::fs::read(&keys_file).expect("reads the keys");
    let _ = std::fs::remove_file(&keys_file);
    let keys: Vec<Bytes> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    run(n, |me| {
        let t = open(scratch.name());
        for round in 0..rounds {
            watchdog(STUCK_SECONDS);
            one_round(&t, &keys, me, round, closing, &shared);
        }
    });
    let longest = shared.get(LONGEST) as f64 / 1e6;
    println!("  {n} processes: {rounds} rounds, longest wait until all were through {longest:.1} ms");
    assert_sound(scratch.name());
}

fn one_round(t: &HashTable, keys: &[Bytes], me: usize, round: u64, closing: Closing, shared: &Shared) {
    let n = keys.len();
    let (mine, next) = (&keys[me], &keys[(me + 1) % n]);
    let counts = closing == Closing::Length || (closing == Closing::Mixed && me == 0);
    let text = |attempt: u64| format!("{me} in round {round}, attempt {attempt}").into_bytes();
    meet(shared, n as u64);
    if me == 0 {
        shared.set(VICTIMS, 0);
    }
    // Ages differ, in an order that changes.
    if round % 3 == me as u64 % 3 {
        std::thread::yield_now();
    }
    let mut closed_at = 0;
    let attempt = t.table().group(|| {
        t.replace(mine, &text(0))?;
        meet(shared, n as u64);
        closed_at = now_ns();
        let closing = if counts { t.len().map(|_| ()) } else { t.replace(next, &text(0)) };
        if closing == Err(Error::Deadlock) {
            // Whoever is to give way stays so, also if the error is swallowed.
            assert_eq!(t.find(mine), Err(Error::Deadlock));
            assert_eq!(t.add(b"another key", b""), Err(Error::Deadlock));
            assert_eq!(t.table().begin().err(), Some(Error::Deadlock));
            if round % 2 == 0 {
                return Ok(());
            }
        }
        closing
    });
    match attempt {
        Ok(()) => {}
        Err(Error::Deadlock) => {
            shared.add(VICTIMS, 1 << me);
        }
        Err(e) => panic!("{e}"),
    }
    meet(shared, n as u64);
    shared.word(LONGEST).fetch_max(now_ns() - closed_at, Ordering::SeqCst);
    let victims = shared.get(VICTIMS);
    let gave_way = |who: usize| victims & 1 << who != 0;
    let right = closing.victims(n);
    assert!(
        right.contains(&victims.count_ones()),
        "{victims:#b} gave way in round {round}, right: {right:?}"
    );
    for key in keys {
        let value = t.find(key).expect("finds").expect("is there");
        let of_victim = |who: usize| value.starts_with(format!("{who} in round {round},").as_bytes());
        let stayed = (0..n).any(|who| gave_way(who) && of_victim(who));
        assert!(!stayed, "round {round}: something of what gave way has stayed");
    }
    assert!(!t.contains(b"another key").expect("looks"));
    if closing == Closing::Keys && !gave_way(me) {
        // Who got through has left its mark, unless the neighbour came after it.
        let value = t.find(mine).expect("finds").expect("is there");
        let before = (me + n - 1) % n;
        let ends = [me, before].map(|who| format!("{who} in round {round}, attempt 0").into_bytes());
        assert!(ends.contains(&value), "{}", String::from_utf8_lossy(&value));
    }
    meet(shared, n as u64);
    if gave_way(me) {
        let again = t.table().group_retry(None, || {
            t.replace(mine, &text(1))?;
            t.replace(next, &text(1))?;
            assert_eq!((t.find(mine)?, t.find(next)?), (Some(text(1)), Some(text(1))));
            Ok::<(), Error>(())
        });
        assert_eq!(again, Ok(()));
    }
}

/// Everybody reads, modifies and writes the same key in groups: waiting, but no deadlock, and nothing gets lost.
fn read_modify_write_of_one_key() {
    const PROCESSES: usize = 5;
    let rounds = rounds(5000);
    let scratch = Scratch::posix("rmw");
    let shared = Shared::new(1);
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
    run(PROCESSES, |me| {
        watchdog(6 * STUCK_SECONDS);
        let t = open(scratch.name());
        let mut random = Random::new(me as u64);
        meet(&shared, PROCESSES as u64);
        for _ in 0..rounds {
            let how = random.below(6);
            let done = t.table().group(|| -> netshm::Result<()> {
                let mut small = [0; 8];
                let old = match how {
                    0 => t.find(b"sum")?.map_or(0, |v| number(&v)),
                    1 => t.find_into(b"sum", &mut small)?.map_or(0, |_| number(&small)),
                    2 => t.find_all(b"sum")?.first().map_or(0, |v| number(v)),
                    3 => {
                        let there = t.contains(b"sum")?;
                        assert!(there || t.find(b"sum")?.is_none());
                        t.find(b"sum")?.map_or(0, |v| number(&v))
                    }
                    4 => {
                        return t.update(b"sum", |old| {
                            netshm::Update::Replace((old.map_or(0, number) + 1).to_le_bytes().to_vec())
                        });
                    }
                    _ => t.table().group(|| t.increment(b"sum", 0, 0))?,
                };
                if random.once_in(10) {
                    std::thread::yield_now();
                }
                t.replace(b"sum", &(old + 1).to_le_bytes())
            });
            assert_eq!(done, Ok(()), "way {how}");
        }
    });
    let exit = fork(|| {
        let t = open(scratch.name());
        let sum = t.find(b"sum").expect("finds").map_or(0, |v| number(&v));
        assert_eq!(sum, PROCESSES as i64 * rounds as i64);
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the sum");
    assert_sound(scratch.name());
}

/// Two hot keys, taken in both orders by many: everybody gets through.
fn retry_under_contention() {
    const PROCESSES: usize = 6;
    let rounds = rounds(3000);
    let scratch = Scratch::posix("retry");
    let shared = Shared::new(8);
    run(PROCESSES, |me| {
        watchdog(6 * STUCK_SECONDS);
        let t = open(scratch.name());
        let (one, other): (&[u8], &[u8]) =
            if me % 2 == 0 { (b"hot 1", b"hot 2") } else { (b"hot 2", b"hot 1") };
        meet(&shared, PROCESSES as u64);
        for _ in 0..rounds {
            let mut attempts = 0;
            let start = now_ns();
            let done = t.table().group_retry(None, || -> netshm::Result<()> {
                attempts += 1;
                t.increment(one, 1, 0)?;
                std::thread::yield_now();
                // Also in a nested group it is the outermost one that begins again.
                if me % 3 == 0 {
                    return t.table().group_retry(None, || t.increment(other, 1, 0).map(|_| ()));
                }
                t.increment(other, 1, 0).map(|_| ())
            });
            assert_eq!(done, Ok(()));
            shared.add(EARLY, attempts - 1);
            shared.word(VICTIMS).fetch_max(attempts, Ordering::SeqCst);
            shared.word(LONGEST).fetch_max(now_ns() - start, Ordering::SeqCst);
        }
    });
    let exit = fork(|| {
        let t = open(scratch.name());
        for key in [b"hot 1", b"hot 2"] {
            assert_eq!(t.increment(key, 0, 0), Ok(PROCESSES as i64 * rounds as i64));
        }
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the sums");
    let (again, most) = (shared.get(EARLY), shared.get(VICTIMS));
    let longest = shared.get(LONGEST) as f64 / 1e6;
    println!(
        "  {PROCESSES} processes, {rounds} groups each: {again} attempts in vain, {most} at most for one group"
    );
    println!("  longest time for one group {longest:.1} ms");
    assert_sound(scratch.name());
}

/// A process dies while it waits in a group: the circle that would go through it is none. (It was found by the
/// demo: all survivors gave way to the dead one, for ever.)
fn the_dead_are_no_party() {
    let scratch = Scratch::posix("dead-party");
    let keys = separate_keys(scratch.name(), 2);
    for _ in 0..rounds(100) {
        let shared = Shared::new(8);
        let mut doomed = fork(|| {
            watchdog(STUCK_SECONDS);
            let t = open(scratch.name());
            let _ = t.table().group(|| {
                t.replace(&keys[0], b"doomed")?;
                shared.set(1, 1);
                while shared.get(2) == 0 {
                    std::thread::yield_now();
                }
                shared.set(3, 1);
                // The survivor has this one, so that it waits until it is killed.
                t.replace(&keys[1], b"doomed")
            });
        });
        let mut survivor = fork(|| {
            watchdog(STUCK_SECONDS);
            let t = open(scratch.name());
            let done = t.table().group(|| {
                while shared.get(1) == 0 {
                    std::thread::yield_now();
                }
                // Younger than the doomed group, which would be the one to get through.
                t.replace(&keys[1], b"survived")?;
                shared.set(2, 1);
                while shared.get(4) == 0 {
                    std::thread::yield_now();
                }
                t.replace(&keys[0], b"survived")
            });
            assert_eq!(done, Ok(()));
        });
        while shared.get(3) == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(3));
        doomed.kill();
        shared.set(4, 1);
        assert_eq!(survivor.wait(), Exit::Code(0), "the survivor");
    }
    assert_sound(scratch.name());
}

/// Goal: a circle is found however many are in it. Method: so many threads, each with a key and in want of the next one.
fn three_hundred_in_a_circle() {
    const MEMBERS: usize = 300;
    watchdog(4 * STUCK_SECONDS);
    let scratch = Scratch::posix("long-circle");
    let keys = separate_keys(scratch.name(), MEMBERS);
    let t = open(scratch.name());
    let (all_hold, gave_way) = (std::sync::Barrier::new(MEMBERS), Shared::new(1));
    std::thread::scope(|threads| {
        for me in 0..MEMBERS {
            let (t, keys, all_hold, gave_way) = (&t, &keys, &all_hold, &gave_way);
            threads.spawn(move || {
                let outcome = t.table().group(|| {
                    t.replace(&keys[me], b"mine")?;
                    all_hold.wait();
                    t.replace(&keys[(me + 1) % MEMBERS], b"the next one's")
                });
                match outcome {
                    Ok(()) => {}
                    Err(Error::Deadlock) => _ = gave_way.add(0, 1),
                    Err(e) => panic!("{me}: {e}"),
                }
            });
        }
    });
    assert_eq!(gave_way.get(0), 1, "so many gave way");
    drop(t);
    assert_sound(scratch.name());
}

fn main() {
    support::main(&[
        ("the_dead_are_no_party", the_dead_are_no_party),
        ("two_in_a_circle", || circle(2, Closing::Keys)),
        ("three_in_a_circle", || circle(3, Closing::Keys)),
        ("three_hundred_in_a_circle", three_hundred_in_a_circle),
        ("two_who_count", || circle(2, Closing::Length)),
        ("three_who_count", || circle(3, Closing::Length)),
        ("one_counts_and_one_writes", || circle(2, Closing::Mixed)),
        ("one_counts_and_two_write", || circle(3, Closing::Mixed)),
        ("read_modify_write_of_one_key", read_modify_write_of_one_key),
        ("retry_under_contention", retry_under_contention),
    ]);
}
