//! Goal: the locking method RECORD needs no futexes. It waits, finds deadlocks, runs into time-outs and recovers the dead
//! where the futex system call kills who makes it; an object remembers its method, which is this one by default where
//! there are no futexes.
//!
//! Method: each process forbids itself the call by a seccomp filter, then they meet in locks. That the filter is sharp is
//! shown by the method FUTEX, which dies of it in the same scenario. (The processes have one thread each: joining threads
//! is a futex call of the C library's.)

mod support;

use netshm::{Error, HashTable, Locking, ManageOptions, Name, OpenOptions};
use std::time::{Duration, Instant};
use support::model::Actor;
use support::process::{Exit, Pipe, Shared, fork, now_ns, watchdog};
use support::scratch::{Scratch, assert_sound};

fn options(locking: Locking) -> ManageOptions {
    ManageOptions::new().locking(locking).expected(1 << 20).clone()
}

fn open(name: &Name, locking: Locking) -> HashTable {
    Actor::new(name, &options(locking)).table()
}

/// An object with an empty table. (Who makes the table waits until nobody is in a group, and here groups wait for
/// processes that have not come so far.)
fn prepared(locking: Locking) -> Scratch {
    let scratch = Scratch::posix("record");
    assert_eq!(fork(|| drop(open(scratch.name(), locking))).wait(), Exit::Code(0));
    scratch
}

/// From now on a futex call of this process ends it by SIGSYS. False: the system has no such filters.
fn forbid_futexes() -> bool {
    answer_futexes(libc::SECCOMP_RET_KILL_PROCESS)
}

/// From now on the system seems to have no futex call: it fails by this error.
fn deny_futexes(errno: i32) -> bool {
    answer_futexes(libc::SECCOMP_RET_ERRNO | errno as u32)
}

fn answer_futexes(answer: u32) -> bool {
    /// Loads the number of the system call; answers if it is that of the futex call; else allows it.
    const FUTEX: u32 = libc::SYS_futex as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, FUTEX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, answer),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter outlives the call, which copies it.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    }
}

fn filters_work() -> bool {
    let works = fork(|| {
        if !forbid_futexes() {
            support::process::leave(3);
        }
    })
    .wait()
        == Exit::Code(0);
    if !works {
        println!("  SKIP: no seccomp filters here: whether the futex call is avoided was NOT tested");
    }
    works
}

/// One process holds a key for a while in a group, another one waits for it; many times. Gives how each ended, and how
/// long after the release the waiter had the key.
fn hand_over(locking: Locking, rounds: u64, forbidden: bool) -> ([Exit; 2], Vec<u64>) {
    let scratch = prepared(locking);
    let shared = Shared::new(3 + rounds as usize);
    let worker = |me: u64| {
        let (scratch, shared) = (&scratch, &shared);
        fork(move || {
            watchdog(30);
            assert!(!forbidden || forbid_futexes());
            let t = open(scratch.name(), locking);
            for round in 1..=rounds {
                // Who holds in this round takes the key, says so, and keeps it for 0 to 9 ms.
                if me == 0 {
                    let group = t.table().begin().expect("begins");
                    t.increment(b"key", 1, 0).expect("increments");
                    shared.set(0, round);
                    std::thread::sleep(Duration::from_micros(700 * (round % 14)));
                    shared.set(2, now_ns());
                    group.commit().expect("commits");
                    await_word(shared, 1, round);
                } else {
                    await_word(shared, 0, round);
                    t.increment(b"key", 1, 0).expect("increments");
                    shared.set(2 + round as usize, now_ns().saturating_sub(shared.get(2)));
                    shared.set(1, round);
                }
            }
        })
    };
    let (mut holder, mut waiter) = (worker(0), worker(1));
    let waited = waiter.wait();
    let held = if waited == Exit::Code(0) { holder.wait() } else { holder.kill() };
    let times = (1..=rounds as usize).map(|n| shared.get(2 + n)).collect();
    ([held, waited], times)
}

fn await_word(shared: &Shared, n: usize, value: u64) {
    while shared.get(n) < value {
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn hand_over_latency() {
    for locking in [Locking::Futex, Locking::Record] {
        let (ends, mut times) = hand_over(locking, 100, false);
        assert_eq!(ends, [Exit::Code(0), Exit::Code(0)]);
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)] as f64 / 1000.0;
        println!(
            "  {locking:?}: from release to lock p50 {:.0} us, p90 {:.0} us, max {:.0} us",
            at(50),
            at(90),
            at(100)
        );
        assert!(at(50) < 20_000.0, "{locking:?}: half of the waits end late");
    }
}

fn no_futex_calls() {
    if !filters_work() {
        return;
    }
    let (ends, _) = hand_over(Locking::Record, 30, true);
    assert_eq!(ends, [Exit::Code(0), Exit::Code(0)]);
    // The filter can tell.
    let (ends, _) = hand_over(Locking::Futex, 30, true);
    assert!(ends.contains(&Exit::Signal(libc::SIGSYS)), "{ends:?}");
}

/// Two processes lock two keys in opposite orders: one of them is told, and neither waits for a time-out.
fn deadlocks_are_found() {
    let forbidden = filters_work();
    let scratch = prepared(Locking::Record);
    let shared = Shared::new(4);
    let mut both = [0, 1].map(|me| {
        let (scratch, shared) = (&scratch, &shared);
        fork(move || {
            watchdog(20);
            assert!(!forbidden || forbid_futexes());
            let t = open(scratch.name(), Locking::Record);
            for round in 1..=100 {
                // Who gives way tries again; both have to come through.
                let mut first = true;
                loop {
                    let group = t.table().begin().expect("begins");
                    t.increment([b"one", b"two"][me], 1, 0).expect("increments");
                    if std::mem::take(&mut first) {
                        shared.set(me, round);
                        await_word(shared, 1 - me, round);
                    }
                    match t.increment([b"two", b"one"][me], 1, 0) {
                        Ok(_) => break group.commit().expect("commits"),
                        Err(Error::Deadlock) => _ = shared.add(2, 1),
                        Err(e) => panic!("{e}"),
                    }
                    group.abort().expect("aborts");
                }
                shared.add(3, 1);
                await_word(shared, 3, 2 * round);
            }
        })
    });
    assert_eq!(both.each_mut().map(|child| child.wait()), [Exit::Code(0), Exit::Code(0)]);
    println!("  100 circles, {} times somebody gave way", shared.get(2));
    assert!(shared.get(2) >= 100);
    // Who has given way leaves the other one time; it was hundreds of thousands when it did not.
    assert!(shared.get(2) <= 2000);
    let exit = fork(|| {
        let t = open(scratch.name(), Locking::Record);
        assert_eq!(t.increment(b"one", 0, 0), Ok(200));
        assert_eq!(t.increment(b"two", 0, 0), Ok(200));
        assert_sound(scratch.name());
    })
    .wait();
    assert_eq!(exit, Exit::Code(0));
}

/// A holder that lives is waited for as long as was asked; one that is killed is recovered by who waits.
fn time_outs_and_the_dead() {
    let forbidden = filters_work();
    let scratch = prepared(Locking::Record);
    let (held, dead) = (Pipe::new(), Pipe::new());
    let mut holder = fork(|| {
        let t = open(scratch.name(), Locking::Record);
        let _group = t.table().begin().expect("begins");
        t.replace(b"key", b"lost").expect("replaces");
        held.send(1);
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    held.receive();
    let pid = holder.pid();
    let mut waiter = fork(|| {
        watchdog(20);
        assert!(!forbidden || forbid_futexes());
        let object = OpenOptions::new().open(scratch.name()).expect("opens");
        let t = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(150)).expect("manages");
        let start = Instant::now();
        assert_eq!(t.replace(b"key", b"new"), Err(Error::Timeout { holder_pid: pid as u32 }));
        assert!(start.elapsed() >= Duration::from_millis(150));
        let t = open(scratch.name(), Locking::Record);
        dead.send(1);
        let start = Instant::now();
        t.replace(b"key", b"new").expect("replaces");
        assert!(start.elapsed() < Duration::from_secs(2), "recovered after {:?}", start.elapsed());
        assert_eq!(t.find(b"key"), Ok(Some(b"new".to_vec())));
        assert_sound(scratch.name());
    });
    dead.receive();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(holder.kill(), Exit::KILLED);
    assert_eq!(waiter.wait(), Exit::Code(0));
}

/// Where the futex call fails, who makes an object with default options gets this method, and waiting works.
fn the_default_needs_no_futexes() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        if !filters_work() {
            return;
        }
        let scratch = Scratch::posix("denied");
        let shared = Shared::new(2);
        let mut both = [0, 1].map(|me| {
            let (scratch, shared) = (&scratch, &shared);
            fork(move || {
                watchdog(30);
                assert!(deny_futexes(errno));
                assert_eq!(netshm::best_locking(scratch.name().kind()), Locking::Record);
                let object = OpenOptions::new().create(true).open(scratch.name()).expect("opens");
                let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                for round in 1..=200 {
                    shared.set(me, round);
                    await_word(shared, 1 - me, round);
                    let group = t.table().begin().expect("begins");
                    t.increment(b"key", 1, 0).expect("increments");
                    std::thread::sleep(Duration::from_micros(100));
                    group.commit().expect("commits");
                }
                assert_sound(scratch.name());
            })
        });
        assert_eq!(
            both.each_mut().map(|child| child.wait()),
            [Exit::Code(0), Exit::Code(0)],
            "errno {errno}"
        );
        let recorded = fork(|| {
            assert_eq!(
                netshm::best_locking(scratch.name().kind()),
                Locking::Futex,
                "where they are not denied"
            );
            let t = open(scratch.name(), Locking::Record);
            assert_eq!(t.increment(b"key", 0, 0), Ok(400));
        });
        assert_eq!({ recorded }.wait(), Exit::Code(0));
    }
}

fn the_method_is_recorded() {
    for (recorded, asked) in [(Locking::Record, Locking::Futex), (Locking::Futex, Locking::Record)] {
        let scratch = Scratch::posix("record");
        open(scratch.name(), recorded).add(b"key", b"value").expect("adds");
        let before = std::fs::read(scratch.path()).expect("reads");
        let object = OpenOptions::new().open(scratch.name()).expect("opens");
        let refused = HashTable::manage(&object, &options(asked)).err();
        let name = |l| if l == Locking::Record { "RECORD" } else { "FUTEX" };
        assert_eq!(refused, Some(Error::Locking { asked: name(asked), recorded: name(recorded) }));
        assert!(before == std::fs::read(scratch.path()).expect("reads"), "it was changed");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        assert_eq!(t.find(b"key"), Ok(Some(b"value".to_vec())));
    }
}

fn main() {
    support::main(&[
        ("no_futex_calls", no_futex_calls),
        ("deadlocks_are_found", deadlocks_are_found),
        ("time_outs_and_the_dead", time_outs_and_the_dead),
        ("the_method_is_recorded", the_method_is_recorded),
        ("the_default_needs_no_futexes", the_default_needs_no_futexes),
        ("hand_over_latency", hand_over_latency),
    ]);
}
