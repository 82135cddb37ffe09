//! Goal: whoever waits for a change of a key is woken by each of them, whatever makes it, and by nothing is kept
//! asleep.
//!
//! Method: processes that hand values to each other; each way to change a binding, with a sleeper before it;
//! growth, re-initialisation and deaths meanwhile. In builds with the feature `inject`, sleeps last so long that a
//! lost wake-up ends in the watchdog instead of being made good by the next look.

mod support_processes;

use netshm::{Error, HashTable, Locking, ManageOptions, Object, OpenOptions, Stamp, Update};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support_processes::*;

/// Lets nothing but wake-ups end a sleep, where the build can do that.
fn sleep_long() {
    #[cfg(feature = "inject")]
    netshm::inject::set_longest_sleep_ms(1_000_000);
}

fn number(t: &HashTable, key: &[u8]) -> u64 {
    let value = t.find(key).expect("finds").unwrap_or_default();
    value.try_into().map_or(0, u64::from_le_bytes)
}

/// Waits until a key has a number of at least `least`.
fn wait_for_number(t: &HashTable, key: &[u8], least: u64) -> u64 {
    loop {
        let mut stamp = t.stamp(key).expect("stamps");
        let now = number(t, key);
        if now >= least {
            return now;
        }
        assert!(t.wait(key, &mut stamp, None).expect("waits"));
    }
}

/// Time for a process to fall asleep, so that most sleeps are really slept; nothing depends on it.
fn let_it_sleep() {
    std::thread::sleep(Duration::from_millis(15));
}

/// Goal: no wake-up is lost in many hand-overs. Method: two processes answer each other's numbers, under keys of
/// different buckets and under keys of the same one; the values change in place, by the short way.
#[test]
fn two_processes_hand_over_a_hundred_thousand_times() {
    let _alone = alone();
    for (ping, pong, rounds) in [(&b"ping"[..], &b"pong"[..], 50_000u64), (b"both", b"both", 50_000)] {
        let s = Scratch::posix("hand-over");
        s.open().replace(ping, &0u64.to_le_bytes()).expect("replaces");
        s.open().replace(pong, &0u64.to_le_bytes()).expect("replaces");
        let play = |first: bool| {
            sleep_long();
            let t = s.open();
            let (mine, yours) = if first { (ping, pong) } else { (pong, ping) };
            let turn = u64::from(!first);
            for round in 0..rounds {
                // With one key: even numbers are the second one's, odd numbers the first one's.
                let n = 2 * round + turn;
                if n > 0 {
                    assert_eq!(wait_for_number(&t, yours, n), n);
                }
                t.replace(mine, &(n + 1).to_le_bytes()).expect("replaces");
            }
        };
        let begin = Instant::now();
        let second = fork(100, || play(false));
        let first = fork(100, || play(true));
        first.succeeds();
        second.succeeds();
        say(&format!("{} hand-overs in {:?}\n", 2 * rounds, begin.elapsed()));
        check(&s.0);
    }
}

/// Goal: every way to change a binding wakes. Method: a sleeper in another process before each of them.
#[test]
fn every_kind_of_change_wakes() {
    let _alone = alone();
    type Change = fn(&HashTable);
    let changes: [(&str, Change); 25] = [
        ("add to nothing", |t| t.add(b"k", b"value").expect("adds")),
        ("replace in place", |t| t.replace(b"k", b"VALUE").expect("replaces")),
        ("replace by one of the same class", |t| t.replace(b"k", b"another length").expect("replaces")),
        ("replace by a longer one", |t| t.replace(b"k", &[7; 5000]).expect("replaces")),
        ("replace by a very long one", |t| t.replace(b"k", &[8; 200_000]).expect("replaces")),
        ("add on a very long one", |t| t.add(b"k", &[9; 300]).expect("adds")),
        ("replace the upper one by another of its length", |t| {
            t.replace(b"k", &[10; 300]).expect("replaces")
        }),
        ("replace the upper one by a shorter one", |t| t.replace(b"k", &[11; 20]).expect("replaces")),
        ("update in place", |t| t.update(b"k", |_| Update::Replace(vec![12; 20])).expect("updates")),
        ("compare and replace in place", |t| {
            t.compare_and_replace(b"k", &[12; 20], &[13; 20]).expect("replaces")
        }),
        ("add on top", |t| t.add(b"k", &1u64.to_le_bytes()).expect("adds")),
        ("increment", |t| assert_eq!(t.increment(b"k", 5, 0).expect("increments"), 6)),
        ("update of a word in place", |t| {
            t.update(b"k", |_| Update::Replace(7u64.to_le_bytes().to_vec())).expect("updates");
        }),
        ("replace of several", |t| t.replace_many(&[(b"k", [14; 9])]).expect("replaces")),
        ("addition of several", |t| t.add_many(&[(b"k", 6u64.to_le_bytes())]).expect("adds")),
        ("compare and replace", |t| {
            t.compare_and_replace(b"k", &6u64.to_le_bytes(), b"!").expect("replaces")
        }),
        ("remove one of four", |t| assert!(t.remove(b"k").expect("removes"))),
        ("remove one of three", |t| assert!(t.remove(b"k").expect("removes"))),
        ("remove one of two", |t| assert!(t.remove(b"k").expect("removes"))),
        ("remove the last", |t| assert!(t.remove(b"k").expect("removes"))),
        ("insert", |t| t.insert(b"k", b"again").expect("inserts")),
        ("update", |t| t.update(b"k", |_| Update::Replace(b"other".to_vec())).expect("updates")),
        ("update that removes", |t| t.update(b"k", |_| Update::Remove).expect("updates")),
        ("group", |t| {
            let outcome: Result<(), Error> = t.table().group(|| {
                t.replace(b"another", b"1")?;
                t.replace(b"k", b"in a group")?;
                t.replace(b"one more", b"1")
            });
            outcome.expect("commits");
        }),
        ("group that only removes", |t| {
            let outcome: Result<bool, Error> = t.table().group(|| t.remove(b"k"));
            assert!(outcome.expect("commits"));
        }),
    ];
    let s = Scratch::posix("every");
    drop(s.open());
    let shared = Shared::new(2);
    let sleeper = fork(60, || {
        sleep_long();
        let t = s.open();
        let mut stamp = t.stamp(b"k").expect("stamps");
        for n in 0..changes.len() as u64 {
            let before = t.find_all(b"k").expect("finds");
            shared.set(0, n + 1);
            while t.find_all(b"k").expect("finds") == before {
                assert!(t.wait(b"k", &mut stamp, None).expect("waits"));
            }
            shared.set(1, n + 1);
            // What comes now has to be a later stamp than the one of the change.
            stamp = t.stamp(b"k").expect("stamps");
        }
    });
    stage(60, || {
        let t = s.open();
        for (n, (what, change)) in changes.iter().enumerate() {
            shared.wait_for(0, n as u64 + 1);
            let_it_sleep();
            let stamp = t.stamp(b"k").expect("stamps");
            change(&t);
            let changed = Instant::now();
            assert_ne!(t.stamp(b"k").expect("stamps"), stamp, "{what}");
            shared.wait_for(1, n as u64 + 1);
            assert!(changed.elapsed() < Duration::from_secs(5), "{what}: {:?}", changed.elapsed());
        }
    });
    sleeper.succeeds();
    check(&s.0);
}

/// Goal: one commit wakes all, in whatever process and thread. Method: 12 processes of 3 threads, asleep at once.
#[test]
fn one_change_wakes_all_who_watch() {
    let _alone = alone();
    let s = Scratch::posix("many");
    s.open().replace(b"k", &0u64.to_le_bytes()).expect("replaces");
    let shared = Shared::new(2);
    let rounds = 20;
    let sleepers: Vec<Child> = (0..12)
        .map(|_| {
            fork(60, || {
                sleep_long();
                let t = s.open();
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| {
                            for round in 1..=rounds {
                                shared.add(0, 1);
                                wait_for_number(&t, b"k", round);
                                shared.add(1, 1);
                            }
                        });
                    }
                });
            })
        })
        .collect();
    stage(60, || {
        let t = s.open();
        for round in 1..=rounds {
            shared.wait_for(0, 36 * round);
            let_it_sleep();
            t.replace(b"k", &round.to_le_bytes()).expect("replaces");
            shared.wait_for(1, 36 * round);
        }
    });
    for sleeper in sleepers {
        sleeper.succeeds();
    }
}

/// Goal: a wait without a change ends by its time-out, not before, and leaves the stamp alone. Aborted groups and
/// locks are no changes.
#[test]
fn without_a_change_the_time_passes() {
    let _alone = alone();
    let s = Scratch::posix("quiet");
    stage(30, || {
        let t = open_wide(&s.0);
        t.replace(b"k", b"v").expect("replaces");
        let before = t.stamp(b"k").expect("stamps");
        let mut stamp = before;
        assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::ZERO)), Ok(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20 {
                    let group = t.table().begin().expect("begins");
                    t.replace(b"k", b"never").expect("replaces");
                    std::thread::sleep(Duration::from_millis(2));
                    group.abort().expect("aborts");
                }
            });
            for ms in [10, 60, 130] {
                let begin = Instant::now();
                assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_millis(ms))), Ok(false));
                assert!(begin.elapsed() >= Duration::from_millis(ms), "{:?} of {ms} ms", begin.elapsed());
            }
        });
        assert_eq!(stamp, before);
        // A stamp that is none, or that of another time, ends the wait at once.
        stamp = Stamp::NONE;
        assert_eq!(t.wait(b"k", &mut stamp, None), Ok(true));
        assert_eq!(stamp, before);
        assert_eq!(Stamp::from_bits(stamp.to_bits()), stamp);
        t.replace(b"k", b"w").expect("replaces");
        assert_eq!(t.wait(b"k", &mut stamp, None), Ok(true));
        assert_ne!(stamp, before);
        // Keys without a binding have stamps, too.
        let mut stamp = t.stamp(b"absent").expect("stamps");
        assert_eq!(t.wait(b"absent", &mut stamp, Some(Duration::from_millis(5))), Ok(false));
        t.add(b"absent", b"").expect("adds");
        assert_eq!(t.wait(b"absent", &mut stamp, None), Ok(true));
    });
}

/// Goal: where a change could not come, the wait is refused. In groups and callbacks stamps can be had.
#[test]
fn a_thread_does_not_wait_for_itself() {
    let _alone = alone();
    let s = Scratch::posix("refused");
    stage(30, || {
        let t = s.open();
        t.replace(b"k", b"v").expect("replaces");
        let mut stamp = t.stamp(b"k").expect("stamps");
        let group = t.table().begin().expect("begins");
        t.replace(b"k", b"w").expect("replaces");
        assert!(matches!(t.wait(b"k", &mut stamp, None), Err(Error::InGroup(_))));
        assert_eq!(t.stamp(b"k"), Ok(stamp), "what others see");
        fork(10, || {
            let mut stamp = stamp;
            assert_eq!(t.wait(b"k", &mut stamp, None), Err(Error::Forked));
            assert_eq!(t.stamp(b"k"), Err(Error::Forked));
        })
        .succeeds();
        group.commit().expect("commits");
        assert_eq!(t.wait(b"k", &mut stamp, None), Ok(true));
        t.update(b"k", |_| {
            assert_eq!(t.wait(b"k", &mut stamp, None), Err(Error::InCallback));
            Update::Keep
        })
        .expect("updates");
        for item in &t {
            item.expect("reads");
            assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::ZERO)), Ok(false), "iterating holds nothing");
        }
    });
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// Goal: a signal handler that has run ends the wait, also one that asks for calls to be restarted, also where
/// nobody can be asked for a wake-up, and at whatever moment of the wait. Method: one signal for each wait.
#[test]
fn a_signal_interrupts() {
    let _alone = alone();
    let s = Scratch::posix("signal");
    s.open().replace(b"k", b"v").expect("replaces");
    let record = Scratch::posix("record-signal");
    let object = OpenOptions::new().create(true).open(&record.0).expect("opens");
    HashTable::manage(&object, ManageOptions::new().locking(Locking::Record)).expect("manages");
    let all = [(false, &s), (true, &s), (false, &record), (true, &record)];
    for (read_only, s) in all.into_iter().cycle().take(40) {
        let shared = Shared::new(1);
        let sleeper = fork(30, || {
            // SAFETY: the handler only adds to a static.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note_signal as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
            }
            let object = OpenOptions::new().read_only(read_only).open(&s.0).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            let mut stamp = t.stamp(b"k").expect("stamps");
            shared.set(0, 1);
            assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_secs(20))), Err(Error::Interrupted));
            assert_eq!(SIGNALS.load(Ordering::SeqCst), 1);
            assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_millis(10))), Ok(false), "it can go on");
        });
        shared.wait_for(0, 1);
        let_it_sleep();
        // SAFETY: it is our child, and was not waited for.
        unsafe { libc::kill(sleeper.pid, libc::SIGUSR1) };
        let end = sleeper.wait();
        assert_eq!(end, End::Exit(0), "read only: {read_only}");
    }
}

/// Goal: a signal reaches whoever waits also while somebody stands in the middle of a change of the key. Method: a
/// process that stops before each store of a replacement.
#[cfg(feature = "inject")]
#[test]
fn a_signal_interrupts_while_somebody_is_in_the_way() {
    let _alone = alone();
    let s = Scratch::posix("in-the-way");
    s.open().replace(b"k", b"v").expect("replaces");
    let mut interrupted = 0;
    for store in 0..16 {
        let shared = Shared::new(2);
        let writer = fork(60, || {
            let t = s.open();
            t.find(b"k").expect("finds");
            netshm::inject::stop_at(store);
            t.replace(b"k", b"w").expect("replaces");
            netshm::inject::disarm();
        });
        // SAFETY: it is our child; that it has stopped does not end it.
        while unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT;
            libc::waitid(libc::P_PID, writer.pid as u32, &raw mut info, options) != 0
        } {}
        let sleeper = fork(30, || {
            // SAFETY: the handler only adds to a static.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note_signal as *const () as usize;
                assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
            }
            let t = s.open();
            shared.set(0, 1);
            // It ends at once where nobody is in the way.
            let mut stamp = Stamp::NONE;
            let ended = t.wait(b"k", &mut stamp, None);
            assert!(matches!(ended, Ok(true) | Err(Error::Interrupted)), "{ended:?}");
            shared.set(1, 1 + u64::from(ended.is_err()));
        });
        shared.wait_for(0, 1);
        let_it_sleep();
        // SAFETY: they are our children, and were not waited for.
        unsafe { libc::kill(sleeper.pid, libc::SIGUSR1) };
        // Its watchdog is a signal as well.
        shared.wait_for(1, 1);
        sleeper.succeeds();
        // SAFETY: as above.
        unsafe { libc::kill(writer.pid, libc::SIGCONT) };
        writer.succeeds();
        interrupted += shared.get(1) - 1;
    }
    assert!(interrupted > 0, "nobody was in the way");
    println!("  of 16 waits {interrupted} were interrupted");
}

/// Goal: growth loses nobody. Method: sleepers for numbers under many keys, in a table that grows from 64 buckets
/// to thousands meanwhile; each number steps up now and then, and each step has to be seen.
#[test]
fn nobody_is_lost_in_splits() {
    let _alone = alone();
    let s = Scratch::posix("splits");
    let keys: Vec<[u8; 2]> = (0..40u8).map(|n| [b'w', n]).collect();
    {
        let t = s.open();
        for key in &keys {
            t.replace(key, &0u64.to_le_bytes()).expect("replaces");
        }
    }
    let shared = Shared::new(1);
    let steps = 25;
    let sleepers: Vec<Child> = (0..4)
        .map(|part| {
            let (s, keys, shared) = (&s, &keys, &shared);
            fork(100, move || {
                sleep_long();
                let t = s.open();
                std::thread::scope(|scope| {
                    for key in keys[part * 10..part * 10 + 10].iter() {
                        let t = &t;
                        scope.spawn(move || {
                            for step in 1..=steps {
                                wait_for_number(t, key, step);
                                shared.add(0, 1);
                            }
                        });
                    }
                });
            })
        })
        .collect();
    stage(100, || {
        let t = s.open();
        for step in 1..=steps {
            for n in 0..1500u64 {
                t.add(&(step << 32 | n).to_le_bytes(), b"filler").expect("adds");
            }
            for key in &keys {
                t.replace(key, &step.to_le_bytes()).expect("replaces");
            }
            // Every other time the sleepers run behind, and their keys move more than once between two looks.
            if step % 2 == 0 {
                shared.wait_for(0, 40 * step);
            }
        }
    });
    for sleeper in sleepers {
        sleeper.succeeds();
    }
    check(&s.0);
}

/// Goal: a table that is replaced as a whole is noticed, and one that is gone. Their sleepers are not woken, but look.
#[test]
fn re_initialising_is_a_change() {
    let _alone = alone();
    let s = Scratch::posix("again");
    s.open().replace(b"k", b"v").expect("replaces");
    let shared = Shared::new(2);
    let sleeper = fork(30, || {
        let t = s.open();
        let mut stamp = t.stamp(b"k").expect("stamps");
        let mut absent = t.stamp(b"absent").expect("stamps");
        shared.set(0, 1);
        assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_secs(10))), Ok(true));
        assert_eq!(t.find(b"k"), Ok(None));
        assert_eq!(
            t.wait(b"absent", &mut absent, Some(Duration::ZERO)),
            Ok(true),
            "the bucket was untouched"
        );
        shared.set(1, 1);
        shared.set(0, 2);
        assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_secs(10))), Err(Error::Stale));
        shared.set(1, 2);
    });
    stage(30, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        for round in 1..=2 {
            shared.wait_for(0, round);
            let_it_sleep();
            if round == 1 {
                HashTable::manage(&object, ManageOptions::new().reinitialise(true)).expect("manages");
            } else {
                OpenOptions::new().truncate(true).open(&s.0).expect("empties");
            }
            let begin = Instant::now();
            shared.wait_for(1, round);
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        }
    });
    sleeper.succeeds();
}

/// Goal: who replaces or removes a table wakes all who watch keys in it, bound or not. Method: sleeps that only wake-ups
/// end; keys in many buckets.
#[test]
fn another_table_in_its_place_wakes() {
    const SLEEPERS: u64 = 6;
    let _alone = alone();
    type Change = fn(&Object, &Scratch);
    let changes: [(&str, Change); 4] = [
        ("", |object, _| drop(HashTable::manage(object, ManageOptions::new().reinitialise(true)))),
        ("", |_, s| drop(OpenOptions::new().truncate(true).open(&s.0))),
        ("named", |object, _| object.drop_table("named").expect("drops")),
        ("named", |object, _| drop(HashTable::manage(object, ManageOptions::new().reinitialise(true)))),
    ];
    for (root, change) in changes {
        let s = Scratch::posix("replaced");
        let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
        let manage = |object: &Object| {
            HashTable::manage(object, ManageOptions::new().root(root).expected(10_000)).expect("manages")
        };
        for key in 0..10u64 {
            manage(&object).replace(&key.to_le_bytes(), b"v").expect("replaces");
        }
        let shared = Shared::new(2);
        let sleepers: Vec<Child> = (0..SLEEPERS)
            .map(|key| {
                fork(30, || {
                    sleep_long();
                    let t = manage(&OpenOptions::new().open(&s.0).expect("opens"));
                    // Every second one is bound.
                    let key = (if key % 2 == 0 { key } else { 1000 + key }).to_le_bytes();
                    let mut stamp = t.stamp(&key).expect("stamps");
                    shared.add(0, 1);
                    let woken = t.wait(&key, &mut stamp, None);
                    assert!(matches!(woken, Ok(true) | Err(Error::Stale)), "{woken:?}");
                })
            })
            .collect();
        shared.wait_for(0, SLEEPERS);
        let_it_sleep();
        stage(30, || change(&OpenOptions::new().open(&s.0).expect("opens"), &s));
        sleepers.into_iter().for_each(Child::succeeds);
    }
}

/// Goal: who is just about to sleep when the table is replaced does not sleep. Method: it stands still before its
/// store, the bit WATCH, until the former table has been swept; nothing else would wake it.
#[cfg(feature = "inject")]
#[test]
fn nobody_falls_asleep_in_a_former_table() {
    let _alone = alone();
    let s = Scratch::posix("former");
    s.open().replace(b"k", b"v").expect("replaces");
    let sleeper = fork(20, || {
        sleep_long();
        let t = s.open();
        let mut stamp = Stamp::NONE;
        // Registers this process, so that the next store is the one that is meant.
        assert_eq!(t.wait(b"absent", &mut stamp, None), Ok(true));
        netshm::inject::stop_at(0);
        assert_eq!(t.wait(b"absent", &mut stamp, None), Ok(true));
        assert_eq!(netshm::inject::disarm(), 1, "it was about to sleep");
    });
    let mut status = 0;
    // SAFETY: plain system calls; the child is ours.
    let stopped = unsafe { libc::waitpid(sleeper.pid, &raw mut status, libc::WUNTRACED) };
    assert!(stopped == sleeper.pid && libc::WIFSTOPPED(status), "{status:#x}");
    stage(20, || {
        let object = OpenOptions::new().open(&s.0).expect("opens");
        HashTable::manage(&object, ManageOptions::new().reinitialise(true)).expect("manages");
    });
    // SAFETY: as above.
    unsafe { libc::kill(sleeper.pid, libc::SIGCONT) };
    sleeper.succeeds();
    check(&s.0);
}

/// Goal: waiting works where nobody can be asked for a wake-up. Method: a read-only handle, and locking method
/// NONE.
#[test]
fn readers_and_the_unlocked_look_by_themselves() {
    let _alone = alone();
    for (read_only, locking) in [
        (true, Locking::Futex),
        (false, Locking::None),
        (true, Locking::None),
        (false, Locking::Record),
        (true, Locking::Record),
    ] {
        let s = Scratch::posix("naps");
        let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
        let t = HashTable::manage(&object, ManageOptions::new().locking(locking)).expect("manages");
        t.replace(b"k", &0u64.to_le_bytes()).expect("replaces");
        let shared = Shared::new(2);
        let sleeper = fork(30, || {
            let object = OpenOptions::new().read_only(read_only).open(&s.0).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            for round in 1..=10 {
                shared.set(0, round);
                wait_for_number(&t, b"k", round);
                shared.set(1, round);
            }
        });
        for round in 1..=10 {
            shared.wait_for(0, round);
            let_it_sleep();
            t.replace(b"k", &round.to_le_bytes()).expect("replaces");
            let begin = Instant::now();
            shared.wait_for(1, round);
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        }
        sleeper.succeeds();
    }
}

/// Goal: those who want the lock are not kept waiting by those who watch, although all sleep on one word.
/// Method: a lock held and given back without a change, one who waits for it, six who watch; how long it takes
/// from the release until the waiter has the lock.
#[test]
fn who_watches_eats_no_wake_up() {
    let _alone = alone();
    let s = Scratch::posix("eaten");
    open_wide(&s.0).replace(b"k", &0u64.to_le_bytes()).expect("replaces");
    let shared = Shared::new(4);
    // 0: the round, 1: the waiter has the lock, 2: the end, 3: the waiter is about to wait
    let watchers: Vec<Child> = (0..6)
        .map(|_| {
            fork(60, || {
                sleep_long();
                let t = s.open();
                let mut stamp = Stamp::NONE;
                while shared.get(2) == 0 {
                    t.wait(b"k", &mut stamp, None).expect("waits");
                }
            })
        })
        .collect();
    let rounds = 60;
    let waiter = fork(60, || {
        let t = s.open();
        for round in 1..=rounds {
            shared.wait_for(0, round);
            let group = t.table().begin().expect("begins");
            shared.set(3, round);
            assert!(t.contains(b"k").expect("finds"), "this takes the lock");
            shared.set(1, round);
            group.abort().expect("aborts");
        }
    });
    stage(60, || {
        let t = s.open();
        let mut times = Vec::new();
        for round in 1..=rounds {
            let group = t.table().begin().expect("begins");
            t.replace(b"k", b"never").expect("replaces");
            shared.set(0, round);
            shared.wait_for(3, round);
            // Long enough for the waiter's sleeps to have become long ones.
            std::thread::sleep(Duration::from_millis(60));
            group.abort().expect("aborts");
            let begin = Instant::now();
            shared.wait_for(1, round);
            times.push(begin.elapsed());
        }
        times.sort();
        assert!(times[rounds as usize / 2] < Duration::from_millis(5), "{times:?}");
        shared.set(2, 1);
        t.replace(b"k", b"end").expect("replaces");
    });
    waiter.succeeds();
    for watcher in watchers {
        watcher.succeeds();
    }
}

/// Goal: what a dead process had committed is noticed, although it wakes nobody any more and nobody else comes by.
/// Method: a process dies before its k-th store of a change; one sleeper; sweep k; then the value tells whether
/// there was a change.
#[cfg(feature = "inject")]
#[test]
fn the_change_of_a_dead_process_is_noticed() {
    let _alone = alone();
    type Change = fn(&HashTable);
    let changes: [(&str, Change); 3] = [
        ("in place", |t| t.replace(b"k", b"VALUE").expect("replaces")),
        ("in a group", |t| {
            let outcome: Result<(), Error> = t.table().group(|| {
                t.replace(b"k", b"VALUE")?;
                t.replace(b"warm", b"2")
            });
            outcome.expect("commits");
        }),
        ("removal", |t| assert!(t.remove(b"k").expect("removes"))),
    ];
    for (what, change) in changes {
        let (mut k, mut noticed) = (0, 0);
        loop {
            let s = Scratch::posix("dead");
            s.open().replace(b"k", b"value").expect("replaces");
            let shared = Shared::new(2);
            // 0: asleep, 1: the writer has ended
            let writer = fork(30, || {
                let t = s.open();
                t.replace(b"warm", b"1").expect("replaces");
                shared.wait_for(0, 1);
                let_it_sleep();
                netshm::inject::arm(k);
                change(&t);
                netshm::inject::disarm();
            });
            let sleeper = fork(30, || {
                let t = s.open();
                let mut stamp = t.stamp(b"k").expect("stamps");
                let before = t.find(b"k").expect("finds");
                shared.set(0, 1);
                let mut left = 2;
                // One more wait after the end of the writer, longer than the longest sleep without a look.
                while left > 0 {
                    if shared.get(1) != 0 {
                        left -= 1;
                    }
                    let changed = t.wait(b"k", &mut stamp, Some(Duration::from_millis(150))).expect("waits");
                    if changed && t.find(b"k").expect("finds") != before {
                        // SAFETY: ends the child.
                        unsafe { libc::_exit(7) };
                    }
                }
            });
            let end = writer.wait();
            shared.set(1, 1);
            let seen = sleeper.wait() == End::Exit(7);
            // The judge recovers, and so tells what had been committed.
            let found = {
                let t = s.open();
                t.replace(b"judge", b"1").expect("replaces");
                t.find(b"k").expect("finds")
            };
            let changed = found.as_deref() != Some(&b"value"[..]);
            assert_eq!(seen, changed, "{what}, store {k}: {found:?}");
            noticed += u32::from(changed);
            if end == End::Exit(0) {
                break;
            }
            k += 1;
        }
        assert!(noticed > 2 && k > 5, "{what}: {noticed} of {k}");
        say(&format!("{what}: died at each of {k} stores, {noticed} changes were noticed\n"));
    }
}

#[cfg(not(feature = "inject"))]
#[test]
fn the_change_of_a_dead_process_is_noticed() {
    skip("the_change_of_a_dead_process_is_noticed needs --features inject");
}
