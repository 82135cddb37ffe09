//! Goal: processes, threads, forks and deaths around shared handles, as the issue lists them.
//!
//! Method: scenarios run in forked stages with a watchdog; what others left is judged by a fresh handle and
//! by the checker. Creation cut off at every step needs the feature `inject`.

mod support_processes;

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions, Update};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support_processes::*;

/// A little of everything, on keys that begin with `tag`. Leaves the table as it found it.
fn a_little_of_everything(t: &HashTable, tag: &str) {
    let key = |n: u32| format!("{tag}/{n}").into_bytes();
    for n in 0..20 {
        t.add(&key(n), &vec![n as u8; n as usize * 7]).expect("adds");
    }
    t.add(&key(0), b"on top").expect("adds");
    assert_eq!(t.find_all(&key(0)).expect("finds"), [b"on top".to_vec(), Vec::new()]);
    assert!(t.remove(&key(0)).expect("removes"));
    for n in 0..20 {
        assert_eq!(t.find(&key(n)).expect("finds"), Some(vec![n as u8; n as usize * 7]));
        t.replace(&key(n), &vec![1; n as usize * 11]).expect("replaces");
        assert_eq!(t.insert(&key(n), b""), Err(Error::Exists));
    }
    t.update(&key(3), |old| Update::Replace(old.map_or(0, <[u8]>::len).to_string().into_bytes()))
        .expect("updates");
    assert_eq!(t.find(&key(3)).expect("finds"), Some(b"33".to_vec()));
    assert_eq!(t.compare_and_replace(&key(3), b"34", b"x"), Err(Error::Changed));
    t.compare_and_replace(&key(3), b"33", b"long enough to move").expect("replaces");
    t.table()
        .group_retry(Some(Duration::from_secs(20)), || -> Result<(), Error> {
            t.replace(&key(4), b"g4")?;
            t.replace(&key(5), b"g5")?;
            assert_eq!(t.find(&key(4))?.as_deref(), Some(&b"g4"[..]));
            Ok(())
        })
        .expect("commits");
    let aborted: Result<(), Error> = t.table().group_retry(Some(Duration::from_secs(20)), || {
        t.remove(&key(4))?;
        t.add(&key(100), b"never")?;
        Err(Error::Aborted)
    });
    assert_eq!(aborted, Err(Error::Aborted));
    assert_eq!(t.find(&key(4)).expect("finds").as_deref(), Some(&b"g4"[..]));
    assert!(!t.contains(&key(100)).expect("looks"));
    let prefix = format!("{tag}/").into_bytes();
    let mine = t.iter().map(|b| b.expect("reads").0).filter(|k| k.starts_with(&prefix)).count();
    assert_eq!(mine, 20);
    for n in 0..20 {
        assert!(t.remove(&key(n)).expect("removes"));
        assert!(!t.remove(&key(n)).expect("removes"));
    }
}

// ---- creation -----------------------------------------------------------------------------------------

/// Goal: two processes that create and manage the same new object at the same moment both end up with the
/// one valid table. Method: two lasting processes, released together for each round by a shared word; each
/// inserts a common key (exactly one may succeed) and one of its own; a third looks and checks.
fn creation_race(rounds: u64, name_of: impl Fn(u64) -> Name) {
    let shared = Shared::new(8);
    let worker = |me: usize| {
        for round in 1..=rounds {
            let name = name_of(round);
            shared.add(2, 1);
            shared.wait_for(0, round);
            let object = OpenOptions::new().create(true).open(&name).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            match t.insert(b"common", &[me as u8]) {
                Ok(()) => drop(shared.add(3, 1)),
                Err(e) => assert_eq!(e, Error::Exists),
            }
            t.insert(&[b'w', me as u8], &round.to_le_bytes()).expect("inserts");
            // Every other round the handles are still open when the third looks.
            if round % 2 == 0 {
                shared.add(1, 1);
                shared.wait_for(4, round);
            } else {
                drop((t, object));
                shared.add(1, 1);
            }
        }
    };
    let workers: Vec<Child> = (0..2).map(|me| fork(200, || worker(me))).collect();
    stage(200, || {
        for round in 1..=rounds {
            let name = name_of(round);
            shared.wait_for(2, 2 * round);
            shared.set(0, round);
            shared.wait_for(1, 2 * round);
            assert_eq!(shared.get(3), round, "the common key was inserted once");
            let object = OpenOptions::new().open(&name).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            assert_eq!(t.len().expect("counts"), 3, "round {round}");
            for me in 0..2 {
                assert_eq!(t.find(&[b'w', me]).expect("finds"), Some(round.to_le_bytes().to_vec()));
            }
            let summary = check_object(&object);
            assert_eq!((summary.bindings, summary.retired_roots, summary.spare_roots), (3, 0, 0));
            shared.set(4, round);
            Object::unlink(&name).expect("unlinks");
        }
    });
    for worker in workers {
        worker.succeeds();
    }
}

#[test]
fn two_processes_create_the_same_posix_object_at_once() {
    let _alone = alone();
    let pid = std::process::id();
    creation_race(500, |n| {
        Name::posix(format!("/tmp/netshm-race-{pid}-{n}"), format!("/netshm-race-{pid}-{n}"))
    });
}

#[test]
fn two_processes_create_the_same_file_object_at_once() {
    let _alone = alone();
    let pid = std::process::id();
    // Most of them in memory, for a clean close of a file on a disk waits for the disk.
    creation_race(500, |n| {
        let directory = if n % 50 == 0 { "/tmp" } else { "/dev/shm" };
        Name::File(Path::new(directory).join(format!("netshm-race-file-{pid}-{n}")))
    });
}

/// Goal: a process killed at any step of creating, managing, first use and closing leaves nothing that another
/// cannot use. Method: the k-th store or creation step kills; sweep k; the second process may die as well.
#[cfg(feature = "inject")]
#[test]
fn a_killed_creator_leaves_nothing_in_the_way() {
    let _alone = alone();
    let life = |name: &Name, key: &[u8]| {
        let object = OpenOptions::new().create(true).open(name).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        t.replace(key, b"value").expect("replaces");
        drop((t, object));
    };
    let judge = |name: &Name, k: u64| {
        fork(10, || {
            let object = OpenOptions::new().create(true).open(name).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new());
            let t = t.unwrap_or_else(|e| panic!("manages after a death at {k}: {e}"));
            t.replace(b"judge", b"J").expect("replaces");
            for key in [&b"first"[..], b"second"] {
                let found = t.find(key).expect("finds");
                assert!(found.is_none() || found.as_deref() == Some(b"value"), "{k}: {found:?}");
            }
            let n = t.len().expect("counts");
            assert_eq!(t.iter().count() as u64, n);
            let summary = check_object(&object);
            assert_eq!((summary.bindings, summary.slots_active), (n, 1), "{k}");
        })
        .succeeds();
    };
    for kind in ["posix", "file"] {
        let scratch = || match kind {
            "posix" => Scratch::posix("halfway"),
            _ => Scratch::file(Path::new("/dev/shm"), "halfway"),
        };
        let mut steps = 0;
        loop {
            let s = scratch();
            let end = fork(10, || {
                netshm::inject::arm(steps);
                life(&s.0, b"first");
            })
            .wait();
            judge(&s.0, steps);
            if end == End::Exit(0) {
                break;
            }
            assert_eq!(end, End::Signal(libc::SIGKILL));
            steps += 1;
        }
        assert!(steps > 50, "{steps}");
        // Two deaths: the second creator dies where it goes on after the first.
        let mut pairs = 0;
        let strides = if long_form() { (5, 7) } else { (13, 19) };
        for first in (0..steps).step_by(strides.0) {
            for second in (0..steps).step_by(strides.1) {
                let s = scratch();
                for (k, key) in [(first, &b"first"[..]), (second, b"second")] {
                    let _ = fork(10, || {
                        netshm::inject::arm(k);
                        life(&s.0, key);
                    })
                    .wait();
                }
                judge(&s.0, first * 1000 + second);
                pairs += 1;
            }
        }
        say(&format!("creation ({kind}): killed at each of {steps} steps, and at {pairs} pairs of steps\n"));
    }
}

#[cfg(not(feature = "inject"))]
#[test]
fn a_killed_creator_leaves_nothing_in_the_way() {
    skip("a_killed_creator_leaves_nothing_in_the_way needs --features inject");
}

/// Goal: the same by real signals at random moments, in any build.
#[test]
fn a_creator_killed_at_a_random_moment_leaves_nothing_in_the_way() {
    let _alone = alone();
    let mut random = Random(7);
    let mut unfinished = 0;
    for _ in 0..300 {
        let s = Scratch::posix("random-kill");
        let creator = fork(10, || {
            let t = s.open();
            for n in 0..1000u32 {
                t.add(&n.to_le_bytes(), b"value").expect("adds");
            }
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let pause = random.below(1500);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_micros(pause) {
            std::hint::spin_loop();
        }
        creator.kill();
        let end = fork(10, || {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            let n = t.len().expect("counts");
            for i in 0..1000u32 {
                let there = t.contains(&i.to_le_bytes()).expect("looks");
                // The add in flight may have committed: then it counts from its recovery on, which is by this find.
                let in_flight = there && i as u64 == n && t.len().expect("counts") == n + 1;
                assert!(there == ((i as u64) < n) || in_flight, "key {i} of {n}");
            }
            t.add(b"judge", b"J").expect("adds");
            check_object(&object);
            // SAFETY: ends the process.
            unsafe { libc::_exit(if n == 1000 { 1 } else { 0 }) };
        })
        .wait();
        assert!(matches!(end, End::Exit(0 | 1)), "the judge: {end:?}");
        unfinished += u32::from(end == End::Exit(0));
    }
    assert!(unfinished > 100, "most creators are killed before they are through: {unfinished}");
}

// ---- threads and forks on shared handles ------------------------------------------------------------------

/// Goal: one handle, eight threads, everything at once. Method: own keys with exact results, a common counter.
#[test]
fn eight_threads_on_one_handle() {
    let _alone = alone();
    let s = Scratch::posix("threads");
    stage(100, || {
        let t = s.open();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let t = &t;
                scope.spawn(move || {
                    for round in 0..40 {
                        a_little_of_everything(t, &format!("thread {n}"));
                        t.increment(b"counter", 1, 0).expect("increments");
                        t.table()
                            .group_retry(None, || -> Result<(), Error> {
                                let old = t.find(b"by hand")?.map_or(0, |v| v.len());
                                t.replace(b"by hand", &vec![0; old + 1])
                            })
                            .expect("commits");
                        if round % 8 == n {
                            t.len().expect("counts");
                        }
                    }
                });
            }
        });
        assert_eq!(t.increment(b"counter", 0, 0).expect("reads"), 320);
        assert_eq!(t.find(b"by hand").expect("finds").map(|v| v.len()), Some(320));
        assert_eq!(t.len().expect("counts"), 2);
    });
    assert_eq!(check(&s.0).bindings, 2);
}

/// Goal: a child forked while other threads are inside of operations uses the inherited handle at once, and
/// ends as it likes. Method: six busy threads, 150 children; then exact sums.
#[test]
fn forks_while_other_threads_are_inside_of_operations() {
    let _alone = alone();
    let s = Scratch::posix("forks");
    let children = 150;
    let rounds = Shared::new(1);
    stage(100, || {
        let t = s.open();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..6 {
                let (t, stop, rounds) = (&t, &stop, &rounds);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        a_little_of_everything(t, &format!("thread {n}"));
                        t.increment(b"counter", 1, 0).expect("increments");
                        rounds.add(0, 1);
                    }
                });
            }
            for c in 0..children {
                let child = fork(20, || {
                    t.increment(b"counter", 1, 0).expect("increments");
                    a_little_of_everything(&t, &format!("child {c}"));
                    match c % 3 {
                        0 => t.add(b"by a child", &[c as u8]).expect("adds"),
                        1 => {
                            // A second object handle of the child's own, and clean ends.
                            let again = s.open();
                            again.add(b"by a child", &[c as u8]).expect("adds");
                        }
                        _ => {
                            t.add(b"by a child", &[c as u8]).expect("adds");
                            // SAFETY: ends the child in the middle of its life.
                            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                        }
                    }
                });
                let end = child.wait();
                let expected = if c % 3 == 2 { End::Signal(libc::SIGKILL) } else { End::Exit(0) };
                if end != expected {
                    stop.store(true, Ordering::Relaxed);
                }
                assert_eq!(end, expected, "child {c}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        let sum = rounds.get(0) as i64 + children;
        assert_eq!(t.increment(b"counter", 0, 0).expect("reads"), sum);
        assert_eq!(t.find_all(b"by a child").expect("finds").len() as i64, children);
    });
    assert_eq!(check(&s.0).bindings, 1 + children as u64);
}

/// Goal: a fork while another thread registers this process with an object does not leave locks or mutexes
/// behind that stop the child or anybody else. Method: one thread opens, uses and closes all the time, the
/// other forks children that open, use and close, too, and some that just live on.
#[test]
fn forks_while_another_thread_opens_and_closes() {
    let _alone = alone();
    let s = Scratch::posix("attach");
    let slowest = Shared::new(1);
    stage(100, || {
        drop(s.open());
        let stop = AtomicBool::new(false);
        let note = |begin: Instant| {
            slowest.word(0).fetch_max(begin.elapsed().as_millis() as u64, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let t = s.open();
                    t.replace(b"thread", b"1").expect("replaces");
                    drop(t);
                    note(begin);
                }
            });
            let mut living = Vec::new();
            for c in 0..300 {
                if c % 3 == 0 {
                    living.push(fork(60, || {
                        loop {
                            std::thread::sleep(Duration::from_secs(1));
                        }
                    }));
                } else {
                    fork(30, || {
                        let begin = Instant::now();
                        let t = s.open();
                        t.replace(b"child", b"1").expect("replaces");
                        drop(t);
                        note(begin);
                    })
                    .succeeds();
                }
            }
            stop.store(true, Ordering::Relaxed);
            for child in living {
                child.kill();
            }
        });
    });
    check(&s.0);
    let slowest = slowest.get(0);
    assert!(
        slowest < 5_000,
        "opening took {slowest} ms because a forked child kept a lock of another thread's"
    );
}

/// Goal: a fork while another thread manages a fresh object through the same `Object`: the child can manage it.
#[test]
fn a_fork_while_another_thread_manages() {
    let _alone = alone();
    for round in 0..200u64 {
        let s = Scratch::posix("manage");
        stage(20, || {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            let started = AtomicU64::new(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    started.store(1, Ordering::SeqCst);
                    HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                });
                while started.load(Ordering::SeqCst) == 0 {
                    std::hint::spin_loop();
                }
                for _ in 0..round * 40 {
                    std::hint::spin_loop();
                }
                fork(10, || {
                    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                    t.add(b"child", b"1").expect("adds");
                })
                .succeeds();
            });
        });
        assert_eq!(check(&s.0).bindings, 1);
    }
}

/// Goal: who dies first does not matter. Method: a parent with open groups and its child, both at work; one
/// is killed; the other goes on without a pause worth the name.
#[test]
fn the_parent_dies_while_the_child_lives_and_the_reverse() {
    let _alone = alone();
    for parent_dies in [true, false] {
        for moment in 0..20 {
            let s = Scratch::posix("family");
            let shared = Shared::new(4);
            // 0: the child's rounds, 1: the parent's, 2: longest pause of the survivor in ms, 3: stop
            drop(s.open());
            let parent = fork(60, || {
                let t = s.open();
                let work = |who: usize, name: &str| {
                    while shared.get(3) == 0 {
                        let begin = Instant::now();
                        a_little_of_everything(&t, name);
                        t.table()
                            .group_retry(None, || -> Result<(), Error> {
                                t.replace(b"common", name.as_bytes())?;
                                t.increment(b"sum", 1, 0)?;
                                t.increment(name.as_bytes(), 1, 0).map(|_| ())
                            })
                            .expect("commits");
                        shared.add(who, 1);
                        if (who == 0) == parent_dies {
                            shared.word(2).fetch_max(begin.elapsed().as_millis() as u64, Ordering::SeqCst);
                        }
                    }
                };
                t.replace(b"common", b"-").expect("replaces");
                let child = fork(60, || work(0, "child"));
                if parent_dies {
                    work(1, "parent");
                    child.succeeds();
                } else {
                    let deadline = Instant::now() + Duration::from_millis(20 + moment);
                    std::thread::scope(|scope| {
                        scope.spawn(|| work(1, "parent"));
                        std::thread::sleep(deadline - Instant::now());
                        child.kill();
                        let seen = shared.get(1);
                        shared.wait_for(1, seen + 20);
                        shared.set(3, 1);
                    });
                }
            });
            if parent_dies {
                shared.wait_for(0, 2);
                std::thread::sleep(Duration::from_millis(10 + moment));
                parent.kill();
                let seen = shared.get(0);
                shared.wait_for(0, seen + 20);
                shared.set(3, 1);
                std::thread::sleep(Duration::from_millis(5));
            } else {
                parent.succeeds();
            }
            stage(20, || {
                let t = s.open();
                let n = |key: &[u8]| t.increment(key, 0, 0).expect("reads");
                assert_eq!(n(b"sum"), n(b"child") + n(b"parent"), "groups are whole");
                for (word, key) in [(0, &b"child"[..]), (1, b"parent")] {
                    let (told, stored) = (shared.get(word) as i64, n(key));
                    assert!(stored == told || stored == told + 1, "what had returned stays: {told} {stored}");
                }
            });
            check(&s.0);
            assert!(shared.get(2) < 2000, "the survivor paused for {} ms", shared.get(2));
        }
    }
}

/// Every call of a group gives E_FORKED.
fn everything_is_forked(t: &HashTable) {
    let group: Result<(), Error> = t.table().group(|| Ok(()));
    assert_eq!(group, Err(Error::Forked), "group");
    assert_eq!(t.table().begin().err(), Some(Error::Forked), "begin");
    assert_eq!(t.add(b"a", b"child"), Err(Error::Forked));
    assert_eq!(t.replace(b"a", b"child"), Err(Error::Forked));
    assert_eq!(t.insert(b"new", b"child"), Err(Error::Forked));
    assert_eq!(t.remove(b"a"), Err(Error::Forked));
    assert_eq!(t.increment(b"n", 1, 0), Err(Error::Forked));
    assert_eq!(t.find(b"a"), Err(Error::Forked));
    assert_eq!(t.find_all(b"a"), Err(Error::Forked));
    assert_eq!(t.find_into(b"a", &mut [0; 10]), Err(Error::Forked));
    assert_eq!(t.contains(b"a"), Err(Error::Forked));
    assert_eq!(t.len(), Err(Error::Forked));
    assert_eq!(t.update(b"a", |_| Update::Remove), Err(Error::Forked));
    assert_eq!(t.compare_and_replace(b"a", b"parent", b"x"), Err(Error::Forked));
    assert_eq!(t.view(b"a", |_| ()), Err(Error::Forked));
    assert!(matches!(t.iter().next(), Some(Err(Error::Forked))));
    assert!(matches!(t.keys().next(), Some(Err(Error::Forked))));
}

/// Goal: a fork in the middle of a group. Method: all ways for the child to get out of it; the parent's
/// group commits and is whole.
fn fork_in_a_group(raw: bool) {
    for way in ["commit", "abort", "drop", "nested", "closure", "leave"] {
        let s = Scratch::posix("group-fork");
        stage(30, || {
            let t = open_wide(&s.0);
            t.replace(b"a", b"before").expect("replaces");
            let group = t.table().begin().expect("begins");
            t.replace(b"a", b"parent").expect("replaces");
            t.add(b"b", b"parent").expect("adds");
            let child = |body: &dyn Fn()| if raw { raw_fork(10, body) } else { fork(10, body) };
            // The child ends the parent's group in its own memory only: a copy of the handle is used up there.
            let group = std::cell::RefCell::new(Some(group));
            let inner = (way == "nested").then(|| t.table().begin().expect("begins"));
            let inner = std::cell::RefCell::new(inner);
            let c = child(&|| {
                everything_is_forked(&t);
                let group = group.borrow_mut().take().expect("is there");
                match way {
                    "commit" => assert_eq!(group.commit(), Err(Error::Forked)),
                    "abort" => {
                        let outcome = group.abort();
                        assert!(matches!(outcome, Ok(()) | Err(Error::Forked)), "{outcome:?}");
                    }
                    "drop" => drop(group),
                    "closure" => {
                        let mut group = group;
                        assert_eq!(group.restart(), Err(Error::Forked));
                        assert_eq!(group.detach().err(), Some(Error::Forked));
                    }
                    "nested" => {
                        let inner = inner.borrow_mut().take().expect("is there");
                        assert_eq!(inner.commit(), Err(Error::Forked));
                        everything_is_forked(&t);
                        assert_eq!(group.commit(), Err(Error::Forked));
                    }
                    _ => {
                        std::mem::forget(group);
                        everything_is_forked(&t);
                        return;
                    }
                }
                // Now it works, beside the parent's group, which still has its locks.
                assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"before"[..]), "{way}");
                t.replace(b"of the child", b"1").expect("replaces");
                a_little_of_everything(&t, "child");
                let mut own = t.table().begin().expect("begins");
                t.replace(b"of the child", b"2").expect("replaces");
                own.restart().expect("begins again");
                t.replace(b"of the child", b"3").expect("replaces");
                own.commit().expect("commits");
                assert_eq!(t.find(b"of the child").expect("finds").as_deref(), Some(&b"3"[..]));
            });
            c.succeeds();
            if let Some(inner) = inner.take() {
                inner.commit().expect("commits");
            }
            group.take().expect("is there").commit().expect("the parent's group commits");
            assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"parent"[..]));
            assert_eq!(t.find(b"b").expect("finds").as_deref(), Some(&b"parent"[..]));
        });
        check(&s.0);
    }
}

#[test]
fn fork_in_the_middle_of_a_group() {
    let _alone = alone();
    fork_in_a_group(false);
}

#[test]
fn raw_clone_in_the_middle_of_a_group() {
    let _alone = alone();
    fork_in_a_group(true);
}

/// Goal: the group of the parent stays closed to the child also when another thread of the child has attached
/// the child to the object meanwhile.
#[test]
fn the_parents_group_stays_forked_after_another_thread_of_the_child_attached() {
    let _alone = alone();
    let s = Scratch::posix("group-fork-thread");
    stage(30, || {
        let t = open_wide(&s.0);
        t.replace(b"a", b"before").expect("replaces");
        let group = t.table().begin().expect("begins");
        t.replace(b"a", b"parent").expect("replaces");
        fork(10, || {
            std::thread::scope(|scope| {
                scope.spawn(|| t.replace(b"other", b"1").expect("replaces"));
            });
            everything_is_forked(&t);
            assert_eq!(group.commit(), Err(Error::Forked));
            t.replace(b"other", b"2").expect("replaces");
        })
        .succeeds();
    });
    check(&s.0);
}

/// Goal: a detached group is the parent's as well: the child can neither attach it, nor end it, nor harm it
/// by dropping it.
#[test]
fn a_detached_group_is_not_inherited() {
    let _alone = alone();
    for attached_before in [false, true] {
        for way in ["attach", "drop"] {
            let s = Scratch::posix("detached-fork");
            stage(30, || {
                let t = open_wide(&s.0);
                t.replace(b"a", b"before").expect("replaces");
                let group = t.table().begin().expect("begins");
                t.replace(b"a", b"parent").expect("replaces");
                let detached = std::cell::RefCell::new(Some(group.detach().expect("detaches")));
                let child = fork(10, || {
                    if attached_before {
                        t.replace(b"other", b"1").expect("replaces");
                    }
                    let detached = detached.borrow_mut().take().expect("is there");
                    match way {
                        "attach" => assert_eq!(detached.attach().err(), Some(Error::Forked), "attaches"),
                        _ => drop(detached),
                    }
                    t.replace(b"other", b"2").expect("replaces");
                    // The parent's lock must still be there.
                    let object = OpenOptions::new().open(&s.0).expect("opens");
                    let mut options = ManageOptions::new();
                    let patient = HashTable::manage(&object, options.lock_timeout_ms(100)).expect("manages");
                    let outcome = patient.replace(b"a", b"child");
                    assert!(matches!(outcome, Err(Error::Timeout { .. })), "the parent's lock: {outcome:?}");
                });
                assert_eq!(child.wait(), End::Exit(0), "{way}, attached before: {attached_before}");
                let group = detached.take().expect("is there").attach().expect("attaches");
                assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"parent"[..]));
                group.commit().expect("commits");
                assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"parent"[..]));
            });
            check(&s.0);
        }
    }
}

/// Goal: a fork in the callback of `update`: the operation is the parent's; in the child it fails and changes
/// nothing.
#[test]
fn a_fork_in_a_callback() {
    let _alone = alone();
    let s = Scratch::posix("callback-fork");
    stage(30, || {
        // So that the other key has another bucket: the child would wait for that of the first one, and the parent for the child.
        let t = open_wide(&s.0);
        t.replace(b"a", b"before").expect("replaces");
        let mut in_child = false;
        let mut child = None;
        let outcome = t.update(b"a", |_| {
            // SAFETY: no other threads; the child goes on and ends by _exit.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                in_child = true;
                return Update::Replace(b"child!".to_vec());
            }
            child = Some(pid);
            let mut status = 0;
            // SAFETY: it is our child.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(
                decode(status),
                End::Exit(0),
                "the child (1: its update was no error, 2: E_FORKED lasts)"
            );
            Update::Replace(b"parent".to_vec())
        });
        if in_child {
            let code = if outcome != Err(Error::Forked) {
                1
            } else if t.replace(b"other", b"child").is_err() {
                2
            } else {
                0
            };
            // SAFETY: ends the child.
            unsafe { libc::_exit(code) };
        }
        outcome.expect("updates");
        assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"parent"[..]));
    });
    check(&s.0);
}

/// Goal: raw clone behind the C library's back, and children of children, with an idle handle.
#[test]
fn raw_clones_and_grandchildren_use_the_handle() {
    let _alone = alone();
    let s = Scratch::posix("raw");
    stage(60, || {
        let t = s.open();
        t.increment(b"n", 1, 0).expect("increments");
        for _ in 0..20 {
            raw_fork(20, || {
                t.increment(b"n", 1, 0).expect("increments");
                a_little_of_everything(&t, "child");
                raw_fork(20, || {
                    t.increment(b"n", 1, 0).expect("increments");
                    a_little_of_everything(&t, "grandchild");
                })
                .succeeds();
                t.increment(b"n", 1, 0).expect("increments");
            })
            .succeeds();
            t.increment(b"n", 1, 0).expect("increments");
        }
        assert_eq!(t.increment(b"n", 0, 0).expect("reads"), 81);
    });
    assert_eq!(check(&s.0).bindings, 1);
}

/// Number of keys below 1000 that a walk still delivers.
fn rest_below_1000(walk: &mut netshm::Bindings<'_>) -> usize {
    let keys = walk.map(|b| b.expect("reads").0);
    keys.filter(|k| u32::from_le_bytes([k[0], k[1], k[2], k[3]]) < 1000).count()
}

/// Goal: an iteration goes on in the child.
#[test]
fn a_fork_in_the_middle_of_an_iteration() {
    let _alone = alone();
    let s = Scratch::posix("iteration-fork");
    stage(30, || {
        let t = s.open();
        for n in 0..1000u32 {
            t.add(&n.to_le_bytes(), b"").expect("adds");
        }
        let mut walk = t.iter();
        for _ in 0..300 {
            walk.next().expect("is there").expect("reads");
        }
        let walk = std::cell::RefCell::new(walk);
        fork(10, || {
            for n in 1000..2000u32 {
                t.add(&n.to_le_bytes(), b"").expect("adds");
            }
            assert_eq!(rest_below_1000(&mut walk.borrow_mut()), 700);
        })
        .succeeds();
        assert_eq!(rest_below_1000(&mut walk.borrow_mut()), 700);
    });
    check(&s.0);
}

// ---- several handles, threads that end ---------------------------------------------------------------------

/// Goal: several opens in one process are one participant: a group covers operations through any handle, and
/// they close in any order. Method: all orders of closing three handles, with a group over all.
#[test]
fn several_opens_in_one_process() {
    let _alone = alone();
    for kind in [0, 1] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let s = match kind {
                0 => Scratch::posix("several"),
                _ => Scratch::file(Path::new("/dev/shm"), "several"),
            };
            stage(20, || {
                let mut handles: Vec<Option<HashTable>> = (0..3).map(|_| Some(s.open())).collect();
                let t = |i: usize| handles[i].as_ref().expect("is open");
                let group = t(0).table().begin().expect("begins");
                t(1).replace(b"k", b"1").expect("replaces");
                assert_eq!(t(2).find(b"k").expect("finds").as_deref(), Some(&b"1"[..]));
                let inner = t(2).table().begin().expect("nests");
                t(0).replace(b"k", b"2").expect("replaces");
                inner.abort().expect("aborts");
                assert_eq!(t(0).find(b"k").expect("finds").as_deref(), Some(&b"1"[..]));
                // Two handles are closed while the group is open, the third after its end.
                drop(handles[order[0]].take());
                drop(handles[order[1]].take());
                let last = handles[order[2]].take().expect("is open");
                last.replace(b"l", b"2").expect("replaces");
                // Read-only handles are beside the group.
                let reader = OpenOptions::new().read_only(true).open(&s.0).expect("opens");
                let reader = HashTable::manage(&reader, &ManageOptions::new()).expect("manages");
                assert_eq!(reader.find(b"k").expect("finds"), None);
                assert_eq!(reader.replace(b"k", b"x"), Err(Error::ReadOnly));
                if order[0] == 1 {
                    group.commit().expect("commits");
                    drop(last);
                } else {
                    drop(last);
                    group.commit().expect("commits, though all handles are closed");
                }
                assert_eq!(reader.find(b"k").expect("finds").as_deref(), Some(&b"1"[..]));
                assert_eq!(reader.len().expect("counts"), 2);
                // Everything is closed: another open begins anew.
                let again = s.open();
                assert_eq!(again.find(b"l").expect("finds").as_deref(), Some(&b"2"[..]));
                a_little_of_everything(&again, "again");
            });
            let summary = check(&s.0);
            assert_eq!((summary.bindings, summary.slots_active), (2, 1));
        }
    }
}

/// Goal: opening and closing in many threads at once. Method: each thread opens, uses and drops in a loop.
#[test]
fn threads_open_and_close_at_once() {
    let _alone = alone();
    let s = Scratch::posix("open-close");
    stage(60, || {
        drop(s.open());
        std::thread::scope(|scope| {
            for n in 0..8 {
                let s = &s;
                scope.spawn(move || {
                    for _ in 0..60 {
                        let t = s.open();
                        a_little_of_everything(&t, &format!("thread {n}"));
                        let other = t.clone();
                        drop(t);
                        other.increment(b"n", 1, 0).expect("increments");
                    }
                });
            }
        });
        assert_eq!(s.open().increment(b"n", 0, 0).expect("reads"), 480);
    });
    let summary = check(&s.0);
    assert_eq!((summary.bindings, summary.slots_active), (1, 1));
}

/// A group that was detached and cannot be attached again, since another one is open on the thread: it is rolled back,
/// and its locks are free.
#[test]
fn a_group_that_cannot_be_attached_is_rolled_back() {
    let _alone = alone();
    let s = Scratch::posix("detached");
    stage(30, || {
        let t = open_wide(&s.0);
        t.replace(b"k", b"before").expect("replaces");
        let first = t.table().begin().expect("begins");
        t.replace(b"k", b"lost").expect("replaces");
        let detached = first.detach().expect("detaches");
        let second = t.table().begin().expect("begins");
        assert!(matches!(detached.attach().err(), Some(Error::InGroup(_))));
        second.commit().expect("commits");
        assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"before"[..]));
        t.replace(b"k", b"after").expect("replaces");
    });
}

/// Goal: a thread begins a group, detaches it and ends; another attaches and commits; one is dropped.
#[test]
fn a_detached_group_outlives_its_thread() {
    let _alone = alone();
    let s = Scratch::posix("detached");
    stage(60, || {
        let t = open_wide(&s.0);
        for round in 0..200u32 {
            let begun = std::thread::scope(|scope| {
                let begin = scope.spawn(|| {
                    let group = t.table().begin().expect("begins");
                    t.replace(b"k", &round.to_le_bytes()).expect("replaces");
                    t.add(b"stack", &round.to_le_bytes()).expect("adds");
                    group.detach().expect("detaches")
                });
                begin.join().expect("no panic")
            });
            // This thread is not in the group.
            let before = round.checked_sub(1).map(|n| n.to_le_bytes().to_vec());
            let before = if round % 4 == 3 { Some((round - 1).to_le_bytes().to_vec()) } else { before };
            if round % 4 != 0 {
                assert_eq!(t.find(b"k").expect("finds"), before);
            }
            t.replace(b"other", b"1").expect("replaces");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    if round % 2 == 0 {
                        t.replace(b"mine", b"1").expect("has a session of its own");
                    }
                    if round % 4 == 3 {
                        drop(begun);
                        assert_ne!(t.find(b"k").expect("finds"), Some(round.to_le_bytes().to_vec()));
                        t.replace(b"k", &round.to_le_bytes()).expect("replaces");
                        return;
                    }
                    let group = begun.attach().expect("attaches");
                    assert_eq!(t.find(b"k").expect("finds"), Some(round.to_le_bytes().to_vec()));
                    t.replace(b"later", b"1").expect("replaces");
                    group.commit().expect("commits");
                });
            });
            assert_eq!(t.find(b"k").expect("finds"), Some(round.to_le_bytes().to_vec()));
        }
        assert_eq!(t.find_all(b"stack").expect("finds").len(), 150);
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let summary = check_object(&object);
        assert_eq!(summary.slots, 8, "groups that moved have not used up slots");
    });
    check(&s.0);
}

/// Goal: threads that come and go do not use up slots. Method: 1,500 threads one after another.
#[test]
fn many_threads_one_after_another() {
    let _alone = alone();
    let s = Scratch::posix("many-threads");
    stage(60, || {
        let t = s.open();
        for n in 0..1500u32 {
            let t = t.clone();
            let thread = std::thread::spawn(move || {
                t.add(&n.to_le_bytes(), b"x").expect("adds");
                if n % 10 == 0 {
                    // Some end in a group that nobody will ever end but the thread's own end.
                    let group = t.table().begin().expect("begins");
                    t.add(b"never", b"x").expect("adds");
                    drop(group);
                }
            });
            thread.join().expect("no panic");
        }
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let summary = check_object(&object);
        assert_eq!(summary.slots, 8);
        assert!(summary.slots_active <= 3, "{summary:?}");
    });
    assert_eq!(check(&s.0).bindings, 1500);
}

/// Goal: who waits for no lock takes part like others. Method: time after time 24 processes begin at once, with slots for
/// eight; each holds its own until all have one.
#[test]
fn impatient_processes_begin_at_once() {
    let _alone = alone();
    for _ in 0..if long_form() { 200 } else { 15 } {
        let s = Scratch::posix("impatient");
        let shared = Shared::new(2);
        drop(s.open());
        let begin = |n: u32| {
            let object = OpenOptions::new().open(&s.0).expect("opens");
            let t = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(-1)).expect("manages");
            shared.add(0, 1);
            shared.wait_for(0, 24);
            // Two of them may meet in one bucket.
            let outcome = t.add(&n.to_le_bytes(), b"x");
            assert!(matches!(outcome, Ok(()) | Err(Error::Timeout { .. })), "{outcome:?}");
            shared.add(1, 1);
            shared.wait_for(1, 24);
        };
        let children: Vec<Child> = (0..24).map(|n| fork(60, move || begin(n))).collect();
        children.into_iter().for_each(Child::succeeds);
    }
}

/// Goal: more participants than slots: the directory grows. Method: 40 processes, all inside at once; then as
/// many threads; a third of the processes is killed.
#[test]
fn forty_processes_at_once() {
    let _alone = alone();
    let s = Scratch::posix("forty");
    let shared = Shared::new(4);
    drop(s.open());
    let children: Vec<Child> = (0..40)
        .map(|n| {
            fork(60, || {
                let t = s.open();
                a_little_of_everything(&t, &format!("process {n}"));
                t.add(format!("stays {n}").as_bytes(), b"x").expect("adds");
                shared.add(0, 1);
                shared.wait_for(0, 40);
                for _ in 0..5 {
                    a_little_of_everything(&t, &format!("process {n}"));
                    t.increment(b"n", 1, 0).expect("increments");
                }
                shared.add(1, 1);
                shared.wait_for(1, 40);
                if n % 3 == 0 {
                    let _group = t.table().begin().expect("begins");
                    let object = OpenOptions::new().open(&s.0).expect("opens");
                    let t = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(500))
                        .expect("manages");
                    // Two of them may meet in one bucket.
                    let outcome = t.add(format!("never {n}").as_bytes(), b"x");
                    assert!(matches!(outcome, Ok(()) | Err(Error::Timeout { .. })), "{outcome:?}");
                    shared.add(2, 1);
                    loop {
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            })
        })
        .collect();
    shared.wait_for(2, 14);
    for (n, child) in children.into_iter().enumerate() {
        if n % 3 == 0 {
            child.kill();
        } else {
            child.succeeds();
        }
    }
    let summary = check(&s.0);
    assert_eq!(summary.bindings, 41);
    assert!(summary.slots >= 40, "{summary:?}");
    assert_eq!(summary.slots_active, 1);
    // The slots of the dead are used again: no further growth.
    stage(60, || {
        let t = s.open();
        assert_eq!(t.increment(b"n", 0, 0).expect("reads"), 200);
        let barrier = Barrier::new(40);
        std::thread::scope(|scope| {
            for n in 0..40 {
                let (t, barrier) = (&t, &barrier);
                scope.spawn(move || {
                    t.replace(format!("thread {n}").as_bytes(), b"x").expect("replaces");
                    barrier.wait();
                });
            }
        });
    });
    assert_eq!(check(&s.0).slots, summary.slots);
}

// ---- ends -----------------------------------------------------------------------------------------------

/// Goal: processes that end without closing leave nothing in the way. Method: 200 of them in a row, ending by
/// return, exit, _exit, abort and signal, with groups open; slots do not run out, nothing leaks.
#[test]
fn processes_end_without_closing() {
    let _alone = alone();
    let s = Scratch::posix("ends");
    for n in 0..200u32 {
        let child = fork(20, || {
            let t = s.open();
            t.add(&n.to_le_bytes(), &vec![7; 100 * (n as usize % 50)]).expect("adds");
            let group = t.table().begin().expect("begins");
            t.replace(b"contended", &n.to_le_bytes()).expect("replaces");
            t.add(b"never", &vec![7; 100 * (n as usize % 400)]).expect("adds");
            std::mem::forget(t);
            match n % 5 {
                0 => std::mem::forget(group),
                // SAFETY: the process ends in various ways.
                1 => unsafe { libc::exit(0) },
                // SAFETY: as above.
                2 => unsafe { libc::_exit(0) },
                n => {
                    let signal = if n == 3 { libc::SIGTERM } else { libc::SIGKILL };
                    // SAFETY: as above.
                    unsafe { libc::kill(libc::getpid(), signal) };
                }
            }
        });
        let end = child.wait();
        assert!(!matches!(end, End::Exit(PANICKED) | End::Signal(libc::SIGALRM)), "{n}: {end:?}");
    }
    stage(20, || {
        let t = s.open();
        assert_eq!(t.len().expect("counts"), 200);
        assert!(!t.contains(b"never").expect("looks"));
    });
    let summary = check(&s.0);
    assert_eq!((summary.bindings, summary.slots, summary.slots_active), (200, 8, 1));
}

/// Goal: exec is an end, too: locks of the group open then are free soon. Method: the process lives on as
/// another program, under the same process id.
#[test]
fn exec_ends_a_participation() {
    let _alone = alone();
    for kind in [0, 1] {
        let s = match kind {
            0 => Scratch::posix("exec"),
            _ => Scratch::file(Path::new("/dev/shm"), "exec"),
        };
        let shared = Shared::new(1);
        s.open().replace(b"k", b"before").expect("replaces");
        let program = fork(60, || {
            let t = s.open();
            let _group = t.table().begin().expect("begins");
            t.replace(b"k", b"never").expect("replaces");
            t.add(b"never", &[7; 50_000]).expect("adds");
            shared.set(0, 1);
            let argv = [c"sleep".as_ptr(), c"30".as_ptr(), std::ptr::null()];
            // SAFETY: the arguments are C strings, and the list ends by a null pointer.
            unsafe { libc::execv(c"/bin/sleep".as_ptr(), argv.as_ptr()) };
            panic!("exec failed");
        });
        shared.wait_for(0, 1);
        stage(20, || {
            let t = s.open();
            let begin = Instant::now();
            t.replace(b"k", b"after").expect("replaces");
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
            assert_eq!(t.len().expect("counts"), 1);
        });
        check(&s.0);
        assert_eq!(program.kill(), End::Signal(libc::SIGKILL), "it was asleep all the time");
    }
}

/// Goal: a process stopped, not dead, keeps its locks; nobody steals from the living.
#[test]
fn a_stopped_process_is_not_dead() {
    let _alone = alone();
    let s = Scratch::posix("stopped");
    let shared = Shared::new(2);
    drop(open_wide(&s.0));
    let holder = fork(60, || {
        let t = s.open();
        let group = t.table().begin().expect("begins");
        t.replace(b"k", b"holder").expect("replaces");
        shared.set(0, 1);
        shared.wait_for(1, 1);
        group.commit().expect("commits");
    });
    shared.wait_for(0, 1);
    // SAFETY: it is our child.
    unsafe { libc::kill(holder.pid, libc::SIGSTOP) };
    stage(20, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        let t = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(300)).expect("manages");
        let pid = holder.pid as u32;
        assert_eq!(t.replace(b"k", b"thief"), Err(Error::Timeout { holder_pid: pid }));
        assert_eq!(t.find(b"k").expect("finds"), None);
        t.replace(b"of another", b"1").expect("replaces");
    });
    // SAFETY: it is our child.
    unsafe { libc::kill(holder.pid, libc::SIGCONT) };
    shared.set(1, 1);
    holder.succeeds();
    stage(20, || assert_eq!(s.open().find(b"k").expect("finds").as_deref(), Some(&b"holder"[..])));
    check(&s.0);
}
