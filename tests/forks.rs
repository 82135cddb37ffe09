//! Goal: objects without a name, descriptors closed behind the library's back, and waits, across forks: what
//! tests/processes.rs does not cover.
//!
//! Method: scenarios run in forked stages with a watchdog; what others left is judged by a fresh handle and by the
//! checker.

mod support_processes;

use netshm::{Error, HashTable, ManageOptions, Object, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};
use support_processes::*;

fn anonymous() -> (Object, HashTable) {
    let object = OpenOptions::new().anonymous().expect("makes memory");
    let table = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    (object, table)
}

/// The object once more, as somebody who is handed its descriptor sees it.
fn adopted(object: &Object) -> (Object, HashTable) {
    let fd = object.as_fd().try_clone_to_owned().expect("duplicates");
    let object = OpenOptions::new().from_fd(fd).expect("opens");
    let table = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    (object, table)
}

fn number(t: &HashTable, key: &[u8]) -> i64 {
    t.increment(key, 0, 0).expect("reads")
}

/// Goal: memory without a name outlives whoever made it, and whoever inherited it. Method: parent and child at work;
/// one is killed in a group; the other goes on with everything that had been committed.
#[test]
fn memory_without_a_name_outlives_parent_and_child() {
    let _alone = alone();
    for parent_dies in [true, false] {
        for moment in 0..8 {
            let (object, t) = anonymous();
            let shared = Shared::new(3);
            // 0: the child's rounds, 1: the parent's, 2: stop
            let work = |t: &HashTable, who: usize, name: &[u8]| {
                while shared.get(2) == 0 {
                    t.table()
                        .group_retry(None, || -> Result<(), Error> {
                            t.increment(b"sum", 1, 0)?;
                            t.add(b"stack", name)?;
                            t.increment(name, 1, 0).map(|_| ())
                        })
                        .expect("commits");
                    shared.add(who, 1);
                }
            };
            let parent = fork(60, || {
                let (_object, t) = adopted(&object);
                let child = fork(60, || work(&t, 0, b"child"));
                if parent_dies {
                    work(&t, 1, b"parent");
                } else {
                    std::thread::scope(|scope| {
                        scope.spawn(|| work(&t, 1, b"parent"));
                        shared.wait_for(0, 5);
                        std::thread::sleep(Duration::from_millis(moment));
                        child.kill();
                        let seen = shared.get(1);
                        shared.wait_for(1, seen + 20);
                        shared.set(2, 1);
                    });
                }
            });
            if parent_dies {
                shared.wait_for(1, 5);
                std::thread::sleep(Duration::from_millis(moment));
                parent.kill();
                let seen = shared.get(0);
                shared.wait_for(0, seen + 20);
                shared.set(2, 1);
                std::thread::sleep(Duration::from_millis(10));
            } else {
                parent.succeeds();
            }
            let (sum, child, parent) = (number(&t, b"sum"), number(&t, b"child"), number(&t, b"parent"));
            assert_eq!(sum, child + parent, "groups are whole");
            assert_eq!(t.find_all(b"stack").expect("finds").len() as i64, sum);
            for (told, stored) in [(shared.get(0) as i64, child), (shared.get(1) as i64, parent)] {
                assert!(stored == told || stored == told + 1, "what had returned stays: {told} {stored}");
            }
            check_object(&object);
        }
    }
}

/// Goal: a group that is open in a fork stays the parent's also in memory without a name, by fork and by raw clone.
#[test]
fn a_group_without_a_name_is_not_inherited() {
    let _alone = alone();
    for raw in [false, true] {
        let (object, outside) = anonymous();
        outside.replace(b"a", b"before").expect("replaces");
        stage(30, || {
            let (_object, t) = adopted(&object);
            let group = t.table().begin().expect("begins");
            t.replace(b"a", b"parent").expect("replaces");
            let body = || {
                assert_eq!(t.find(b"a"), Err(Error::Forked));
                assert_eq!(t.replace(b"a", b"child"), Err(Error::Forked));
                assert_eq!(t.stamp(b"a"), Err(Error::Forked));
                assert_eq!(t.table().begin().err(), Some(Error::Forked));
            };
            let child = if raw { raw_fork(10, body) } else { fork(10, body) };
            child.succeeds();
            group.commit().expect("commits");
        });
        assert_eq!(outside.find(b"a").expect("finds").as_deref(), Some(&b"parent"[..]));
        check_object(&object);
    }
}

/// Goal: a child forked while threads of its parent sleep in waits can wait and wake itself, by fork and by raw clone.
#[test]
fn forks_while_threads_wait() {
    let _alone = alone();
    for raw in [false, true] {
        let s = Scratch::posix("waiting");
        stage(60, || {
            let t = s.open();
            t.increment(b"n", 0, 0).expect("makes it");
            let wait_for = |key: &[u8], least: i64| {
                loop {
                    let mut stamp = t.stamp(key).expect("stamps");
                    let now = t.find(key).expect("finds").and_then(|v| v.try_into().ok());
                    if now.map_or(0, i64::from_le_bytes) >= least {
                        return;
                    }
                    assert!(t.wait(key, &mut stamp, Some(Duration::from_secs(20))).expect("waits"));
                }
            };
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| wait_for(b"n", 40));
                }
                std::thread::sleep(Duration::from_millis(20));
                for round in 1..=20 {
                    let body = || {
                        t.increment(b"n", 1, 0).expect("increments");
                        t.increment(b"from the child", 1, 0).expect("increments");
                        wait_for(b"from the parent", round);
                    };
                    let child = if raw { raw_fork(20, body) } else { fork(20, body) };
                    wait_for(b"from the child", round);
                    t.increment(b"n", 1, 0).expect("increments");
                    t.increment(b"from the parent", 1, 0).expect("increments");
                    child.succeeds();
                }
            });
        });
        check(&s.0);
    }
}

/// Closes everything from descriptor 3 on, and opens other files in the places.
fn close_all() {
    // SAFETY: plain system calls; no owner of a descriptor uses it without looking whether it is still his.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) != 0 {
            for fd in 3..1024 {
                libc::close(fd);
            }
        }
        for _ in 0..30 {
            libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        }
    }
}

/// What a daemon wants to be able to do; big enough for the object to grow.
fn everything(object: &Object, t: &HashTable, tag: &[u8]) {
    let own = |n: u32| [tag, &n.to_le_bytes()[..]].concat();
    assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
    for n in 0..20_000 {
        t.add(&own(n), &[7; 100]).expect("adds");
    }
    t.add(b"long", &vec![1; 3_000_000]).expect("adds");
    assert_eq!(t.find(b"long").expect("finds").map(|v| v.len()), Some(3_000_000));
    assert!(t.remove(b"long").expect("removes"));
    let outcome: Result<(), Error> = t.table().group(|| {
        t.replace(b"g", tag)?;
        t.increment(b"groups", 1, 0).map(|_| ())
    });
    outcome.expect("commits");
    for n in 0..20_000 {
        assert!(t.remove(&own(n)).expect("removes"));
    }
    let mut stamp = t.stamp(b"k").expect("stamps");
    assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_millis(20))), Ok(false));
    assert_eq!(t.iter().count() as u64, t.len().expect("counts"));
    check_object(object);
}

/// Goal: daemonising with all descriptors closed, and others in their places, does not matter to objects with a
/// name. Method: with and without a fork, before and after the first use; a peer is at work meanwhile.
#[test]
fn a_daemon_goes_on_without_its_descriptors() {
    let _alone = alone();
    for kind in ["posix", "file"] {
        for used_before in [true, false] {
            for forks in [0, 2] {
                let s = match kind {
                    "posix" => Scratch::posix("daemon"),
                    _ => Scratch::file(Path::new("/dev/shm"), "daemon"),
                };
                s.open().replace(b"k", b"v").expect("replaces");
                let shared = Shared::new(1);
                stage(60, || {
                    let object = OpenOptions::new().open(&s.0).expect("opens");
                    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                    if used_before {
                        t.increment(b"used", 1, 0).expect("increments");
                    }
                    let daemon = || {
                        close_all();
                        everything(&object, &t, b"daemon");
                        shared.add(0, 1);
                    };
                    if forks == 0 {
                        return daemon();
                    }
                    fork(60, || {
                        // SAFETY: a plain system call.
                        unsafe { libc::setsid() };
                        fork(60, daemon).succeeds();
                    })
                    .succeeds();
                    everything(&object, &t, b"parent");
                });
                assert_eq!(shared.get(0), 1);
                let summary = check(&s.0);
                assert_eq!(summary.bindings, 3 + u64::from(used_before), "{kind}, {used_before}, {forks}");
            }
        }
    }
}

/// Goal: memory without a name cannot be had again without a descriptor. What needs none goes on, the rest is a clear
/// error that harms nobody. Method: the same with memory that a peer has as well.
#[test]
fn without_name_and_descriptor_it_is_closed() {
    let _alone = alone();
    for forks in [false, true] {
        let (object, outside) = anonymous();
        outside.replace(b"k", b"v").expect("replaces");
        stage(60, || {
            let (object, t) = adopted(&object);
            t.increment(b"n", 1, 0).expect("increments");
            let daemon = || {
                close_all();
                assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
                assert_eq!(t.iter().count(), 2);
                if forks {
                    // The child would have to register.
                    assert_eq!(t.increment(b"n", 1, 0), Err(Error::Closed));
                    assert_eq!(t.replace(b"k", b"w"), Err(Error::Closed));
                } else {
                    t.increment(b"n", 1, 0).expect("increments");
                    let failed = (0..100_000u32).find_map(|n| t.add(&n.to_le_bytes(), &[7; 500]).err());
                    assert_eq!(failed, Some(Error::Closed), "it cannot grow");
                    for n in 0..100_000u32 {
                        if !t.remove(&n.to_le_bytes()).expect("removes") {
                            break;
                        }
                    }
                }
                assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
                assert_eq!(object.size().err(), Some(Error::Closed));
            };
            if forks { fork(30, daemon).succeeds() } else { daemon() }
        });
        outside.replace(b"k", b"after").expect("replaces");
        for n in 0..5000u32 {
            outside.add(&n.to_be_bytes(), b"grows").expect("adds");
        }
        assert_eq!(number(&outside, b"n"), if forks { 1 } else { 2 });
        check_object(&object);
    }
}

/// Goal: descriptors passed on by a process that is gone are as good as any; the slots of the dead are found by them.
/// Method: a chain of processes, each of which hands the memory to the next one and dies in a group.
#[test]
fn a_chain_of_the_dead_hands_it_on() {
    let _alone = alone();
    let (object, outside) = anonymous();
    outside.increment(b"n", 0, 0).expect("makes it");
    for round in 1..=20 {
        let (ends, killed) = (Shared::new(1), Instant::now());
        let link = fork(30, || {
            let (_object, t) = adopted(&object);
            t.increment(b"n", 1, 0).expect("increments");
            let _group = t.table().begin().expect("begins");
            t.replace(b"n", b"never").expect("replaces");
            t.add(b"never", &[7; 70_000]).expect("adds");
            ends.set(0, 1);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        ends.wait_for(0, 1);
        link.kill();
        assert_eq!(number(&outside, b"n"), round);
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    }
    assert_eq!(check_object(&object).bindings, 1);
}
