//! Goal: whoever may only read reads everything, changes nothing, and is told so; also among writers and the dead.
//!
//! Method: a child gives up its rights for good and opens the object as the user "nobody", who has no right to write
//! to it. That needs to be root; else a mode without the right to write, for the owner, has to do.

mod support_processes;

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions, Update};
use std::time::{Duration, Instant};
use support_processes::*;

const NOBODY: u32 = 65534;

/// Becomes a user who owns nothing. False, loudly: it is not possible here.
fn give_up_rights() -> bool {
    // SAFETY: plain system calls.
    unsafe {
        if libc::geteuid() != 0 {
            return false;
        }
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
        assert_ne!(libc::setuid(0), 0, "there is no way back");
    }
    true
}

fn skip_unless_root() {
    // SAFETY: a plain system call.
    if unsafe { libc::geteuid() } != 0 {
        skip("not root: readers are the owner with a mode without the right to write, not another user");
    }
}

fn scratches() -> [Scratch; 2] {
    [Scratch::posix("reader"), Scratch::file(std::path::Path::new("/dev/shm"), "reader")]
}

/// An object that others may read and not write.
fn readable(s: &Scratch) -> (Object, HashTable) {
    let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    object.chmod(0o444).expect("changes the mode");
    (object, t)
}

/// Runs `body` as somebody who may only read.
fn as_reader(body: impl FnOnce()) -> Child {
    fork(60, || {
        give_up_rights();
        body();
    })
}

fn open_to_read(name: &Name, timeout_ms: i32) -> (Object, HashTable) {
    let object = OpenOptions::new().read_only(true).open(name).expect("opens for reading");
    let t = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(timeout_ms)).expect("manages");
    (object, t)
}

/// Every way to write is refused.
fn writes_are_refused(object: &Object, t: &HashTable) {
    assert_eq!(t.add(b"k", b"w"), Err(Error::ReadOnly));
    assert_eq!(t.replace(b"k", b"w"), Err(Error::ReadOnly));
    assert_eq!(t.insert(b"new", b"w"), Err(Error::ReadOnly));
    assert_eq!(t.remove(b"k"), Err(Error::ReadOnly));
    assert_eq!(t.remove(b"absent"), Err(Error::ReadOnly));
    assert_eq!(t.increment(b"n", 1, 0), Err(Error::ReadOnly));
    assert_eq!(t.compare_and_replace(b"k", b"v", b"w"), Err(Error::ReadOnly));
    assert_eq!(t.update(b"k", |_| Update::Keep), Err(Error::ReadOnly));
    assert_eq!(t.table().begin().err(), Some(Error::ReadOnly));
    let mut again = ManageOptions::new();
    again.reinitialise(true);
    assert_eq!(HashTable::manage(object, &again).err(), Some(Error::ReadOnly));
}

/// Goal: everything that reads works for another user, and nothing else does.
#[test]
fn another_user_reads_everything_and_writes_nothing() {
    let _alone = alone();
    skip_unless_root();
    for s in scratches() {
        let (_object, t) = readable(&s);
        for n in 0..3000u32 {
            t.add(&n.to_le_bytes(), &n.to_be_bytes()).expect("adds");
        }
        t.add(b"k", b"old").expect("adds");
        t.add(b"k", b"v").expect("adds");
        t.add(b"long", &vec![5; 300_000]).expect("adds");
        t.increment(b"n", 7, 0).expect("increments");
        as_reader(|| {
            let writing = OpenOptions::new().open(&s.0).err();
            let creating = OpenOptions::new().create(true).open(&s.0).err();
            assert_eq!((writing, creating), (Some(Error::Permission), Some(Error::Permission)));
            assert_eq!(OpenOptions::new().truncate(true).open(&s.0).err(), Some(Error::Permission));
            let (object, t) = open_to_read(&s.0, 0);
            assert!(object.is_read_only());
            assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
            assert_eq!(t.find_all(b"k").expect("finds"), [b"v".to_vec(), b"old".to_vec()]);
            assert_eq!(t.find(b"long").expect("finds"), Some(vec![5; 300_000]));
            assert_eq!(t.find(b"absent").expect("finds"), None);
            assert!(t.contains(b"n").expect("looks"));
            assert_eq!(t.view(b"n", <[u8]>::len), Ok(Some(8)));
            assert_eq!(t.len(), Ok(3004));
            assert_eq!(t.iter().filter(Result::is_ok).count(), 3004);
            assert_eq!(t.keys().filter(Result::is_ok).count(), 3003);
            let summary = check_object(&object);
            assert_eq!(summary.bindings, 3004);
            let mut stamp = t.stamp(b"k").expect("stamps");
            assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_millis(30))), Ok(false));
            writes_are_refused(&object, &t);
            assert_eq!(object.chmod(0o666), Err(Error::Permission));
            // In a child of the reader's, too.
            fork(10, || {
                assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
                assert_eq!(t.add(b"k", b"w"), Err(Error::ReadOnly));
            })
            .succeeds();
            // A descriptor for reading is no more than that.
            let fd = object.as_fd().try_clone_to_owned().expect("duplicates");
            assert_eq!(OpenOptions::new().from_fd(fd).err(), Some(Error::ReadOnly));
        })
        .succeeds();
        assert_eq!(t.len(), Ok(3004));
        check(&s.0);
    }
}

/// Goal: reading stores nothing, not even what only steers performance. Method: the bytes before and after.
#[test]
fn a_reader_leaves_the_bytes_alone() {
    let _alone = alone();
    let s = Scratch::file(std::path::Path::new("/dev/shm"), "bytes");
    let Name::File(path) = &s.0 else { unreachable!("it is a file") };
    {
        let (_object, t) = readable(&s);
        for n in 0..2000u32 {
            t.add(&n.to_le_bytes(), b"value").expect("adds");
        }
    }
    let before = std::fs::read(path).expect("reads");
    as_reader(|| {
        let (object, t) = open_to_read(&s.0, 0);
        for n in 0..2000u32 {
            assert!(t.contains(&n.to_le_bytes()).expect("looks"));
        }
        assert_eq!(t.iter().count(), 2000);
        let mut stamp = t.stamp(b"k").expect("stamps");
        assert_eq!(t.wait(b"k", &mut stamp, Some(Duration::from_millis(10))), Ok(false));
        check_object(&object);
    })
    .succeeds();
    assert!(std::fs::read(path).expect("reads") == before);
}

/// Goal: a reader sees the changes of writers, growth and re-initialisation. Method: one writer, one reader who waits
/// for numbers and compares two keys that are changed in one group.
#[test]
fn a_reader_among_writers() {
    let _alone = alone();
    for s in scratches() {
        let (object, t) = readable(&s);
        t.increment(b"a", 0, 0).expect("makes it");
        t.increment(b"b", 0, 0).expect("makes it");
        let shared = Shared::new(2);
        let reader = as_reader(|| {
            let (_object, t) = open_to_read(&s.0, 0);
            let number = |key: &[u8]| {
                let value = t.find(key).expect("finds").and_then(|v| v.try_into().ok());
                value.map_or(0, u64::from_le_bytes)
            };
            let mut last = 0;
            while last < 2000 {
                let mut stamp = t.stamp(b"b").expect("stamps");
                let (b, a) = (number(b"b"), number(b"a"));
                assert!(b <= a, "what was committed first is seen first: {b} {a}");
                assert!(b >= last);
                if b == last {
                    assert!(t.wait(b"b", &mut stamp, Some(Duration::from_secs(20))).expect("waits"));
                }
                last = b;
            }
            shared.set(0, 1);
            let begin = Instant::now();
            while t.len().expect("counts") != 0 {
                assert!(begin.elapsed() < Duration::from_secs(20));
                std::thread::yield_now();
            }
            assert_eq!(t.find(b"a"), Ok(None));
            shared.set(0, 2);
            shared.wait_for(1, 1);
            assert_eq!(t.find(b"a"), Err(Error::Stale));
        });
        for n in 0..2000u32 {
            let outcome: Result<(), Error> = t.table().group(|| {
                t.increment(b"a", 1, 0)?;
                t.increment(b"b", 1, 0)?;
                t.add(&n.to_le_bytes(), &[1; 200])
            });
            outcome.expect("commits");
        }
        shared.wait_for(0, 1);
        HashTable::manage(&object, ManageOptions::new().reinitialise(true)).expect("manages");
        shared.wait_for(0, 2);
        OpenOptions::new().truncate(true).open(&s.0).expect("empties");
        shared.set(1, 1);
        reader.succeeds();
    }
}

/// Keys beside the one that a writer dies with. They are at home in buckets of which nobody knows, one in many in that of
/// the other key.
#[cfg(feature = "inject")]
const OTHERS: [&[u8]; 6] = [b"one", b"two", b"three", b"four", b"five", b"six"];

/// Goal: who may only read cannot repair what a dead writer has left, and gets the defined error within the time-out
/// that was asked for, or after about a second without one. Everything else stays readable, and all is well once
/// somebody has repaired it. Method: a writer dies at each store of a change.
#[cfg(feature = "inject")]
#[test]
fn a_reader_meets_the_mess_of_the_dead() {
    let _alone = alone();
    skip_unless_root();
    let (mut k, mut met) = (0, 0);
    loop {
        let s = Scratch::posix("mess");
        let (_object, t) = readable(&s);
        t.replace(b"k", b"before").expect("replaces");
        OTHERS.iter().for_each(|other| t.replace(other, b"v").expect("replaces"));
        let writer = fork(30, || {
            let t = s.open();
            t.replace(b"warm", b"1").expect("replaces");
            netshm::inject::arm(k);
            t.replace(b"k", b"after!").expect("replaces");
            netshm::inject::disarm();
        });
        let end = writer.wait();
        let child = as_reader(|| {
            let mut blocked = 0;
            for timeout_ms in [200, -1, 0] {
                let (_object, t) = open_to_read(&s.0, timeout_ms);
                let begin = Instant::now();
                match t.find(b"k") {
                    Ok(value) => {
                        let value = value.expect("is bound");
                        assert!(value == b"before" || value == b"after!", "{value:?}");
                    }
                    Err(Error::Timeout { .. }) => blocked += 1,
                    Err(e) => panic!("store {k}, time-out {timeout_ms}: {e}"),
                }
                let most = if timeout_ms == 0 { 8000 } else { 2000 };
                assert!(begin.elapsed() < Duration::from_millis(most), "{timeout_ms}: {:?}", begin.elapsed());
                let readable = OTHERS.iter().filter(|other| match t.find(other) {
                    Ok(value) => {
                        assert_eq!(value.as_deref(), Some(&b"v"[..]), "store {k}: another key has changed");
                        true
                    }
                    // It happens to be at home in the same bucket.
                    Err(Error::Timeout { .. }) => false,
                    Err(e) => panic!("store {k}, another key: {e}"),
                });
                assert!(readable.count() + 2 >= OTHERS.len(), "everything else stays readable");
                if blocked != 0 {
                    let mut stamp = netshm::Stamp::NONE;
                    let outcome = t.wait(b"k", &mut stamp, Some(Duration::from_millis(100)));
                    assert!(matches!(outcome, Ok(false) | Err(Error::Timeout { .. })), "{outcome:?}");
                }
            }
            // SAFETY: ends the child.
            unsafe { libc::_exit(if blocked == 3 { 3 } else { i32::from(blocked != 0) }) };
        });
        match child.wait() {
            End::Exit(3) => met += 1,
            end => assert_eq!(end, End::Exit(0), "store {k}: all or none of them are blocked"),
        }
        // Somebody who may write repairs it by the way.
        let value = s.open().find(b"k").expect("finds").expect("is bound");
        assert!(value == b"before" || value == b"after!", "{value:?}");
        as_reader(|| {
            let (_object, t) = open_to_read(&s.0, 0);
            assert_eq!(t.find(b"k").expect("finds"), Some(value));
        })
        .succeeds();
        check(&s.0);
        if end == End::Exit(0) {
            break;
        }
        k += 1;
    }
    assert!(met >= 2 && k > 5, "{met} of {k}");
    say(&format!("a writer died at each of {k} stores, a reader met what it left {met} times\n"));
}

#[cfg(not(feature = "inject"))]
#[test]
fn a_reader_meets_the_mess_of_the_dead() {
    skip("a_reader_meets_the_mess_of_the_dead needs --features inject");
}
