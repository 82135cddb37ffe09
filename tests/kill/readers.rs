//! Readers take no locks: what they see while writers are killed, and while they are stopped in the middle of reading.

use crate::support::model::{Actor, Bytes};
use crate::support::process::{Child, Exit, Shared, fork, now_ns};
use crate::support::random::Random;
use crate::support::scratch::{Scratch, assert_sound};
use crate::support::{self, options};
use netshm::{HashTable, Name};
use std::time::Duration;

const STUCK: Duration = Duration::from_secs(10);

// Hot keys: what is written there is a number again and again, so that a mixture shows.
const PAIR: [&[u8]; 2] = [b"one of a pair", b"the other one"];
const LONG: &[u8] = b"long";
const PAIR_BYTES: usize = 248;
const LONG_BYTES: usize = 16_000;

fn repeated(n: u64, len: usize) -> Bytes {
    n.to_le_bytes().repeat(len / 8)
}

/// The number that a value repeats.
fn sole_number(t: &HashTable, key: &[u8], len: usize) -> u64 {
    let value = t.find(key).expect("finds").expect("is there");
    assert_eq!(value.len(), len);
    assert!(
        value.chunks(8).all(|word| word == &value[..8]),
        "a mixture: {:?} ... {:?}",
        &value[..8],
        &value[len - 8..]
    );
    u64::from_le_bytes(value[..8].try_into().expect("8 bytes"))
}

// Shared words of those who read while others are killed: the last number that was written, for the pair and for
// the long one; which one begins now; rounds of the readers.
const WRITTEN: usize = 0;
const READ: usize = 2;
const STOP: usize = 3;

/// Writes ascending numbers. Only one writer lives at a time for each key.
fn write_numbers(name: &Name, shared: &Shared, which: usize) {
    let mut actor = Actor::new(name, &options());
    let t = actor.table();
    let last =
        if which == 0 { sole_number(&t, PAIR[0], PAIR_BYTES) } else { sole_number(&t, LONG, LONG_BYTES) };
    assert!(last >= shared.get(WRITTEN + which), "what had returned is gone");
    for n in last.max(shared.get(WRITTEN + which)) + 1.. {
        if which == 0 {
            t.table()
                .group_retry(None, || {
                    t.replace(PAIR[0], &repeated(n, PAIR_BYTES))?;
                    t.replace(PAIR[1], &repeated(n, PAIR_BYTES))
                })
                .expect("commits");
        } else {
            t.replace(LONG, &repeated(n, LONG_BYTES)).expect("replaces");
        }
        shared.set(WRITTEN + which, n);
    }
}

/// Reads without a lock: nothing mixed, nothing that goes back, nothing half done.
fn read_numbers(name: &Name, shared: &Shared) {
    let mut actor = Actor::new(name, &options());
    let t = actor.table();
    let mut last = [0; 3];
    while shared.get(STOP) == 0 {
        let returned = [shared.get(WRITTEN), shared.get(WRITTEN), shared.get(WRITTEN + 1)];
        let first = sole_number(&t, PAIR[0], PAIR_BYTES);
        let is = [first, sole_number(&t, PAIR[1], PAIR_BYTES), sole_number(&t, LONG, LONG_BYTES)];
        assert!(is[1] >= is[0], "half of a group was seen: {is:?}");
        for i in 0..3 {
            assert!(is[i] >= returned[i], "what had returned is not there: {is:?}, {returned:?}");
            assert!(is[i] >= last[i], "a key goes back: {is:?} after {last:?}");
        }
        last = is;
        shared.add(READ, 1);
    }
}

/// Those who read see whole values and whole groups, whoever is killed and however long they are stopped in the
/// middle of reading.
pub(crate) fn readers_among_kills() {
    let mut random = Random::from_environment("readers_among_kills");
    let kills = support::setting("NETSHM_READER_KILLS").unwrap_or(if support::long() { 5_000 } else { 150 });
    let scratch = Scratch::posix("readers");
    let shared = Shared::new(4);
    let name = scratch.name();
    let exit = fork(|| {
        let t = Actor::new(name, &options()).table();
        PAIR.iter().for_each(|key| t.add(key, &repeated(0, PAIR_BYTES)).expect("adds"));
        t.add(LONG, &repeated(0, LONG_BYTES)).expect("adds");
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let mut readers: Vec<Child> = (0..3).map(|_| fork(|| read_numbers(name, &shared))).collect();
    let mut writers: Vec<Child> = (0..2).map(|which| fork(|| write_numbers(name, &shared, which))).collect();
    for _ in 0..kills {
        let (written, read) = ([shared.get(WRITTEN), shared.get(WRITTEN + 1)], shared.get(READ));
        let which = random.below(2) as usize;
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        let stopped = random.below(3) as usize;
        readers[stopped].signal(libc::SIGSTOP);
        if random.once_in(2) {
            std::thread::sleep(Duration::from_micros(random.below(200)));
        }
        assert_eq!(writers[which].kill(), Exit::KILLED, "writer {which}");
        writers[which] = fork(|| write_numbers(name, &shared, which));
        std::thread::sleep(Duration::from_micros(random.below(8000)));
        readers[stopped].signal(libc::SIGCONT);
        let end = now_ns() + STUCK.as_nanos() as u64;
        while shared.get(READ) == read || shared.get(WRITTEN + which) == written[which] {
            assert!(now_ns() < end, "somebody is stuck");
            let ended = readers.iter_mut().chain(&mut writers).find_map(Child::poll);
            assert_eq!(ended, None, "somebody has ended by itself");
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    println!("  {kills} kills, {} rounds of reading", shared.get(READ));
    shared.set(STOP, 1);
    assert!(readers.iter_mut().all(|r| r.wait() == Exit::Code(0)), "the readers");
    writers.iter_mut().for_each(|w| assert_eq!(w.kill(), Exit::KILLED));
    let exit = fork(|| {
        assert_sound(name);
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the checker");
}

/// A reader is stopped in the middle of a value, a writer dies in the middle of changing it, somebody recovers it
/// and changes nothing: what the reader has read must not count when it goes on.
#[cfg(feature = "inject")]
pub(crate) fn a_reader_stopped_while_a_dead_writer_is_recovered() {
    use netshm::inject;
    let mut random = Random::from_environment("a_reader_stopped_while_a_dead_writer_is_recovered");
    let trials =
        support::setting("NETSHM_READER_KILLS").unwrap_or(if support::long() { 20_000 } else { 250 });
    let scratch = Scratch::posix("stopped");
    let shared = Shared::new(4);
    let name = scratch.name();
    let exit = fork(|| {
        let t = Actor::new(name, &options()).table();
        t.add(PAIR[0], &repeated(0, PAIR_BYTES)).expect("adds");
        t.replace(PAIR[0], &repeated(0, PAIR_BYTES)).expect("replaces");
        inject::arm(u64::MAX);
        t.replace(PAIR[0], &repeated(0, PAIR_BYTES)).expect("replaces");
        shared.set(WRITTEN, inject::disarm());
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
    let stores = shared.get(WRITTEN);
    let mut reader = fork(|| {
        let t = Actor::new(name, &options()).table();
        loop {
            sole_number(&t, PAIR[0], PAIR_BYTES);
            shared.add(READ, 1);
        }
    });
    for n in 1..=trials {
        let read = shared.get(READ);
        let k = random.below(stores);
        reader.signal(libc::SIGSTOP);
        let victim = fork(|| {
            let t = Actor::new(name, &options()).table();
            t.contains(PAIR[0]).expect("looks");
            t.update(b"nobody's", |_| netshm::Update::Keep).expect("takes part");
            inject::arm(k);
            t.replace(PAIR[0], &repeated(n, PAIR_BYTES)).expect("replaces");
            crate::support::process::leave(1);
        })
        .wait();
        assert_eq!(victim, Exit::KILLED, "the writer dies at store {k}");
        let recovered = fork(|| {
            drop(Actor::new(name, &options()).apply(&crate::support::model::Op::Touch(PAIR[0].to_vec())))
        })
        .wait();
        assert_eq!(recovered, Exit::Code(0));
        reader.signal(libc::SIGCONT);
        let end = now_ns() + STUCK.as_nanos() as u64;
        while shared.get(READ) < read + 3 {
            assert_eq!(reader.poll(), None, "the reader has ended: a writer died at store {k} of {stores}");
            assert!(now_ns() < end, "the reader is stuck");
        }
        let start = now_ns();
        let some = random.below(2000);
        while now_ns() < start + some {}
    }
    println!("  {trials} deaths, {} reads", shared.get(READ));
    assert_eq!(reader.kill(), Exit::KILLED);
    let exit = fork(|| {
        assert_sound(name);
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the checker");
}
