//! Goal: whatever system call fails, in whatever operation, there is a clear error or success; nothing is lost, nothing
//! hangs, no descriptor and no mapping is left over, the checker is content, and all works on when calls succeed again.
//!
//! Method: each scene is played in a child of its own with the n-th system call of the scene's operation failing, for n
//! from 1 until the operation makes fewer calls; once only, and lasting for all further calls of the same kind. The
//! library is the one that is shipped, without hooks: see `support_faults`. `NETSHM_LONG=1` lets every call fail, with all
//! error numbers that it has (else of the later calls only some fail, and the numbers take turns); `NETSHM_SCENE` plays the
//! scenes whose names contain its text.

mod support_faults;
mod support_processes;

use netshm::{
    Array, Error, HashTable, Locking, ManageOptions, Name, Object, OpenOptions, PmKind, PmObject, Pmanage,
    Stamp,
};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support_faults::{Class, Fault, Plan, VARIANTS};
use support_processes::*;

/// One play of a scene, in the child.
struct Run {
    plan: Plan,
    kind: Kind,
    /// Where the scene's files are.
    directory: PathBuf,
    tag: String,
    fault: Cell<Option<Fault>>,
    failed: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Posix,
    File,
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u64) -> Vec<u8> {
    format!("key {n:012}").into_bytes()
}

fn value(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (n.wrapping_mul(31) + i * 7 + 1) as u8).collect()
}

impl Run {
    /// The name of one of the scene's objects.
    fn name(&self, which: &str) -> Name {
        match self.kind {
            Kind::Posix => {
                let mem = format!("/netshm-{}-{which}", self.tag);
                Name::posix(self.directory.join(format!("{which}.management")), mem)
            }
            Kind::File => Name::File(self.directory.join(which)),
        }
    }

    /// Does what is tested, with the fault of this play in it.
    fn faulted<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        support_faults::arm(self.plan);
        let outcome = act();
        self.fault.set(support_faults::disarm());
        if let Err(e) = &outcome {
            self.failed.set(true);
            self.judge(e);
        }
        outcome
    }

    /// Is it an error that follows from the fault?
    fn judge(&self, e: &Error) {
        let Some(fault) = self.fault.get() else { panic!("without a fault: {e}") };
        let fits = match e {
            Error::NoSpace => fault.errno == libc::ENOSPC,
            Error::NoMemory => fault.errno == libc::ENOMEM,
            Error::Permission => fault.errno == libc::EACCES,
            Error::Interrupted => fault.errno == libc::EINTR,
            Error::System { errno, .. } => *errno == fault.errno,
            // A larger object cannot be mapped.
            Error::TooLarge(_) => fault.class == Class::Map,
            // Whoever may not open the file again that was swept away has lost it.
            Error::Closed => fault.class == Class::Open && fault.errno == libc::EACCES,
            Error::Unsupported(_) => matches!(fault.errno, libc::ENOSYS | libc::EINVAL),
            // The lock is held by nobody, as far as can be told.
            Error::Timeout { .. } => fault.class == Class::Lock && fault.errno == libc::EACCES,
            Error::Busy(_) => fault.class == Class::Lock && fault.errno == libc::EACCES,
            _ => false,
        };
        assert!(fits, "{fault:?} gives {e:?}");
    }

    fn create(&self, which: &str, options: &ManageOptions) -> HashTable {
        let object = OpenOptions::new().create(true).open(&self.name(which)).expect("opens");
        HashTable::manage(&object, options).expect("manages")
    }

    /// A table with some content, and what that is.
    fn filled(&self, which: &str, keys: u64) -> (HashTable, Model) {
        let t = self.create(which, &ManageOptions::new());
        let mut model = Model::new();
        for n in 0..keys {
            t.add(&key(n), &value(n, 20 + n as usize % 50)).expect("adds");
            model.insert(key(n), value(n, 20 + n as usize % 50));
        }
        (t, model)
    }

    /// Opens the object anew, and compares everything in it.
    fn holds(&self, which: &str, model: &Model) {
        let object = OpenOptions::new().open(&self.name(which)).expect("opens again");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages again");
        compare(&t, model);
        // It works on.
        t.replace(b"afterwards", &value(1, 700)).expect("replaces afterwards");
        assert_eq!(t.find(b"afterwards").expect("finds"), Some(value(1, 700)));
        assert!(t.remove(b"afterwards").expect("removes"));
        check_object(&object);
    }
}

fn compare(t: &HashTable, model: &Model) {
    let mut n = 0;
    for binding in t.iter() {
        let (key, value) = binding.expect("reads");
        assert_eq!(model.get(&key), Some(&value), "{}", String::from_utf8_lossy(&key));
        n += 1;
    }
    assert_eq!(n, model.len());
    assert_eq!(t.len().expect("counts"), model.len() as u64);
}

/// Descriptors, and mappings of files of the scene. Where the system gives no random numbers, Rust's own maps open
/// /dev/urandom, once, and for good.
fn resources(tag: &str) -> (usize, usize) {
    let leads = |fd: &std::fs::DirEntry| std::fs::read_link(fd.path()).unwrap_or_default();
    let all = std::fs::read_dir("/proc/self/fd").expect("reads").flatten();
    let descriptors = all.filter(|fd| leads(fd) != Path::new("/dev/urandom")).count();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("reads");
    (descriptors, maps.lines().filter(|line| line.contains(tag) || line.contains("memfd:")).count())
}

/// Words that the plays of a scene share with the test.
const CALLS: usize = 0;
const FAULTED: usize = 1;
const FAILED: usize = 2;
const INSTALLED: usize = 3;
const CLASS: usize = 4;
const ERRNO: usize = 5;

/// Plays a scene with each fault in turn.
fn sweep(scene: &str, kind: Kind, play: impl Fn(&Run)) {
    if std::env::var("NETSHM_SCENE").is_ok_and(|only| !scene.contains(&only)) {
        return;
    }
    let shared = Shared::new(6);
    let (mut runs, mut faulted, mut failed, mut most) = (0u64, 0, 0, 0);
    let mut errnos = BTreeSet::new();
    let variants = if long_form() { VARIANTS } else { 1 };
    for lasting in [false, true] {
        for variant in 0..variants {
            let mut nth = 0;
            loop {
                // The short form leaves out some of the later calls, and takes the numbers of each class in turn.
                nth += if long_form() { 1 } else { 1 + nth / 24 };
                let plan = Plan { nth, variant, lasting };
                for word in [CALLS, FAULTED, FAILED, CLASS, ERRNO] {
                    shared.set(word, 0);
                }
                let child = fork(60, || in_child(plan, kind, &play, &shared));
                let pid = child.pid;
                let end = child.wait();
                clean_up(pid);
                assert_eq!(end, End::Exit(0), "{scene}, {kind:?}, {plan:?} (14 is the watchdog)");
                if shared.get(INSTALLED) == 0 {
                    skip(&format!("{scene}: no filter for system calls here"));
                    return;
                }
                runs += 1;
                failed += shared.get(FAILED);
                most = most.max(shared.get(CALLS));
                if let Some(class) = Class::from_number(shared.get(CLASS)) {
                    errnos.insert((class as u64, shared.get(ERRNO)));
                    if !long_form() {
                        support_faults::next_turn(class);
                    }
                }
                if shared.get(FAULTED) == 0 {
                    break;
                }
                faulted += shared.get(FAULTED);
                assert!(nth < 20_000, "{scene} never ends");
            }
        }
    }
    assert!(faulted > 0, "{scene}: no system call, so there is nothing to test");
    let pairs = errnos.len();
    say(&format!(
        "{scene}, {kind:?}: {most} calls, {runs} plays, {faulted} faults with {pairs} pairs of kind and number, {failed} \
         errors\n"
    ));
}

fn directory(pid: libc::pid_t) -> PathBuf {
    PathBuf::from(format!("/dev/shm/netshm-faults-{pid}"))
}

fn in_child(plan: Plan, kind: Kind, play: &impl Fn(&Run), shared: &Shared) {
    let pid = std::process::id() as libc::pid_t;
    let directory = directory(pid);
    std::fs::create_dir_all(&directory).expect("makes a directory");
    if let Err(why) = support_faults::install() {
        say(&format!("{why}\n"));
        return;
    }
    shared.set(INSTALLED, 1);
    let tag = format!("faults-{pid}");
    let run =
        Run { plan, kind, directory, tag: tag.clone(), fault: Cell::new(None), failed: Cell::new(false) };
    let before = resources(&tag);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&run)));
    if outcome.is_err() {
        say(&format!("[child {pid}] {plan:?}, fault {:?}\n", run.fault.get()));
        // SAFETY: ends the child.
        unsafe { libc::_exit(PANICKED) };
    }
    let after = resources(&tag);
    assert_eq!(before, after, "descriptors and mappings before and after; {plan:?}, {:?}", run.fault.get());
    shared.set(CALLS, support_faults::seen());
    shared.set(FAULTED, u64::from(run.fault.get().is_some()));
    if let Some(fault) = run.fault.get() {
        shared.set(CLASS, fault.class as u64);
        shared.set(ERRNO, fault.errno as u64);
    }
    shared.set(FAILED, u64::from(run.failed.get()));
}

/// Removes what a child has left.
fn clean_up(pid: libc::pid_t) {
    let _ = std::fs::remove_dir_all(directory(pid));
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(&format!("faults-{pid}-")) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn both(scene: &str, play: impl Fn(&Run)) {
    let _alone = alone();
    for kind in [Kind::Posix, Kind::File] {
        sweep(scene, kind, &play);
    }
}

fn posix(scene: &str, play: impl Fn(&Run)) {
    let _alone = alone();
    sweep(scene, Kind::Posix, play);
}

/// Which boot of the machine this is, as an object records it.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("reads");
    u128::from_str_radix(&text.trim().replace('-', ""), 16).expect("is a number").to_be_bytes()
}

#[test]
fn creating() {
    both("create, manage and add", |run| {
        let made = run.faulted(|| {
            let object = OpenOptions::new().create(true).open(&run.name("a"))?;
            let t = HashTable::manage(&object, &ManageOptions::new())?;
            t.add(b"k", b"v")
        });
        let t = run.create("a", &ManageOptions::new());
        let found = t.find(b"k").expect("finds");
        assert!(found.as_deref() == Some(b"v") || (made.is_err() && found.is_none()), "{found:?}");
        if let (Ok(()), Name::File(path)) = (&made, run.name("a")) {
            // Else it would be trusted after the machine has failed. Where it may not be read it cannot be recorded.
            let forbidden = run.fault.get().is_some_and(|fault| fault.errno == libc::EACCES);
            let bytes = std::fs::read(path).expect("reads");
            assert!(forbidden || bytes.windows(16).any(|part| part == boot_id()), "{:?}", run.fault.get());
        }
        t.replace(b"k", b"v").expect("replaces");
        drop(t);
        run.holds("a", &Model::from([(b"k".to_vec(), b"v".to_vec())]));
    });
}

#[test]
fn creating_under_a_new_name() {
    both("create unique", |run| {
        let pattern = match run.name("u") {
            Name::Posix { mem, .. } => {
                let mem = format!("{}-XXXXXXXX", mem.to_string_lossy());
                Name::posix(run.directory.join("XXXXXXXX.management"), mem)
            }
            _ => Name::File(run.directory.join("uXXXXXXXX")),
        };
        let made = run.faulted(|| OpenOptions::new().create_unique(&pattern));
        match made {
            Ok(object) => {
                let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                t.add(b"k", b"v").expect("adds");
                Object::unlink(object.name().expect("has a name")).expect("unlinks");
            }
            Err(_) => {
                // Nothing is left of it, unless the call that removes failed.
                let fault = run.fault.get().expect("has failed");
                let left = std::fs::read_dir(&run.directory).expect("reads").count();
                assert!(
                    left == 0 || fault.class == Class::Name || fault.times > 1 || fault.class == Class::Lock,
                    "{fault:?}: {left}"
                );
            }
        }
        assert!(OpenOptions::new().create_unique(&pattern).is_ok());
    });
}

#[test]
fn making_memory_without_a_name() {
    posix("anonymous", |run| {
        let _ = run.faulted(|| {
            let object = OpenOptions::new().anonymous()?;
            let t = HashTable::manage(&object, &ManageOptions::new())?;
            t.add(b"k", b"v")?;
            let copy = object.as_fd().try_clone_to_owned().map_err(|e| {
                let errno = e.raw_os_error().unwrap_or(0);
                Error::System { call: "dup", errno }
            })?;
            let again = OpenOptions::new().from_fd(copy);
            drop((t, object));
            let again = HashTable::manage(&again?, &ManageOptions::new())?;
            assert_eq!(again.find(b"k")?.as_deref(), Some(&b"v"[..]));
            Ok(())
        });
        let object = OpenOptions::new().anonymous().expect("makes memory");
        HashTable::manage(&object, &ManageOptions::new()).expect("manages").add(b"k", b"v").expect("adds");
    });
}

#[test]
fn opening_and_finding() {
    for (scene, read_only) in [("open, manage and find", false), ("open for reading and find", true)] {
        both(scene, |run| {
            let (t, model) = run.filled("a", 300);
            drop(t);
            let _ = run.faulted(|| {
                let object = OpenOptions::new().read_only(read_only).open(&run.name("a"))?;
                let t = HashTable::manage(&object, &ManageOptions::new())?;
                assert_eq!(t.find(&key(7))?, Some(model[&key(7)].clone()));
                assert_eq!(t.iter().collect::<Result<Vec<_>, _>>()?.len(), 300);
                assert_eq!(object.tables()?.len(), 1);
                Ok(())
            });
            run.holds("a", &model);
        });
    }
}

#[test]
fn the_first_change_and_the_last() {
    both("first add, and close", |run| {
        let (t, mut model) = run.filled("a", 300);
        drop(t);
        let object = OpenOptions::new().open(&run.name("a")).expect("opens");
        let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let added = run.faulted(|| t.add(b"k", b"v"));
        if added.is_ok() {
            model.insert(b"k".to_vec(), b"v".to_vec());
        }
        compare(&t, &model);
        t.replace(b"again", b"v").expect("replaces");
        model.insert(b"again".to_vec(), b"v".to_vec());
        if run.fault.get().is_none() {
            // The end of use has no errors; all it must not do is harm. Its calls are counted on from those of the add.
            let nth = run.plan.nth - support_faults::seen();
            support_faults::arm(Plan { nth, ..run.plan });
            drop((t, object));
            run.fault.set(support_faults::disarm());
        } else {
            drop((t, object));
        }
        run.holds("a", &model);
    });
}

#[test]
fn growing() {
    both("grow by small and large values", |run| {
        let (t, mut model) = run.filled("a", 20);
        let mut n = 1000;
        let _ = run.faulted(|| {
            for _ in 0..1500 {
                n += 1;
                t.add(&key(n), &value(n, 30))?;
                model.insert(key(n), value(n, 30));
            }
            for len in [5000, 70_000, 300_000, 2_000_000] {
                n += 1;
                t.add(&key(n), &value(n, len))?;
                model.insert(key(n), value(n, len));
            }
            Ok(())
        });
        compare(&t, &model);
        for len in [10, 300_000] {
            n += 1;
            t.add(&key(n), &value(n, len)).expect("adds afterwards");
            model.insert(key(n), value(n, len));
        }
        drop(t);
        run.holds("a", &model);
    });
}

#[test]
fn growing_beyond_what_is_mapped() {
    both("grow beyond a small reservation", |run| {
        drop(run.create("a", &ManageOptions::new()));
        let object = OpenOptions::new().reservation(256 << 10).open(&run.name("a")).expect("opens");
        let t = HashTable::manage(&object, ManageOptions::new().huge_pages(true)).expect("manages");
        let mut model = Model::new();
        let _ = run.faulted(|| {
            for n in 0..30 {
                t.add(&key(n), &value(n, 40_000))?;
                model.insert(key(n), value(n, 40_000));
            }
            Ok(())
        });
        compare(&t, &model);
        t.add(b"more", &value(5, 500_000)).expect("adds afterwards");
        model.insert(b"more".to_vec(), value(5, 500_000));
        drop((t, object));
        run.holds("a", &model);
    });
}

#[test]
fn groups() {
    both("groups that grow", |run| {
        let (t, mut model) = run.filled("a", 60);
        let group = run.faulted(|| {
            t.table().group(|| {
                t.remove(&key(1))?;
                t.replace(&key(2), &value(2, 3000))?;
                for n in 100..400 {
                    t.add(&key(n), &value(n, 900))?;
                }
                assert_eq!(t.len()?, 359);
                t.add(&key(401), &value(401, 200_000))
            })
        });
        if group.is_ok() {
            model.remove(&key(1));
            model.insert(key(2), value(2, 3000));
            model.extend((100..400).map(|n| (key(n), value(n, 900))));
            model.insert(key(401), value(401, 200_000));
        }
        compare(&t, &model);
        drop(t);
        run.holds("a", &model);
    });
}

#[test]
fn groups_that_swallow_an_error() {
    posix("groups that go on after an error", |run| {
        let (t, mut model) = run.filled("a", 60);
        let mut done = Vec::new();
        let group = run.faulted(|| {
            t.table().group(|| {
                t.remove(&key(1))?;
                for n in 100..300 {
                    if t.add(&key(n), &value(n, 900)).is_ok() {
                        done.push(n);
                    }
                }
                Ok::<_, Error>(())
            })
        });
        if group.is_ok() {
            model.remove(&key(1));
            model.extend(done.iter().map(|&n| (key(n), value(n, 900))));
        }
        compare(&t, &model);
        drop(t);
        run.holds("a", &model);
    });
}

#[test]
fn removing_and_using_again() {
    posix("remove and fill again", |run| {
        let (t, mut model) = run.filled("a", 10);
        for n in 100..160 {
            t.add(&key(n), &value(n, 50_000)).expect("adds");
            model.insert(key(n), value(n, 50_000));
        }
        let _ = run.faulted(|| {
            for n in 100..160 {
                t.remove(&key(n))?;
                model.remove(&key(n));
            }
            for n in 200..240 {
                t.add(&key(n), &value(n, 90_000))?;
                model.insert(key(n), value(n, 90_000));
            }
            Ok(())
        });
        compare(&t, &model);
        drop(t);
        run.holds("a", &model);
    });
}

#[test]
fn what_the_dead_have_left() {
    both("recovery", |run| {
        let (t, model) = run.filled("a", 60);
        drop(t);
        // Ends with a group open: its locks, its slot and its blocks are in its hands.
        let dead = fork(20, || {
            let object = OpenOptions::new().open(&run.name("a")).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            let group = t.table().begin().expect("begins");
            for n in 0..20 {
                t.replace(&key(n), &value(n, 2000)).expect("replaces");
            }
            std::mem::forget(group);
            // SAFETY: a plain system call.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        });
        assert_eq!(dead.wait(), End::Signal(libc::SIGKILL));
        let mut now = model.clone();
        let _ = run.faulted(|| {
            let object = OpenOptions::new().open(&run.name("a"))?;
            let t = HashTable::manage(&object, &ManageOptions::new())?;
            for n in 0..20 {
                t.replace(&key(n), b"mine")?;
                now.insert(key(n), b"mine".to_vec());
            }
            Ok(())
        });
        run.holds("a", &now);
    });
}

#[test]
fn waiting_for_a_lock() {
    let _alone = alone();
    for locking in [Locking::Futex, Locking::Record] {
        sweep(&format!("wait for a lock, {locking:?}"), Kind::Posix, |run| {
            let mut options = ManageOptions::new();
            options.locking(locking);
            let t = run.create("a", &options);
            t.add(b"k", b"v").expect("adds");
            let shared = Shared::new(2);
            let holder = fork(20, || {
                let object = OpenOptions::new().open(&run.name("a")).expect("opens");
                let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                let group = t.table().begin().expect("begins");
                t.replace(b"k", b"holder's").expect("replaces");
                shared.set(0, 1);
                shared.wait_for(1, 1);
                std::thread::sleep(Duration::from_millis(8));
                group.commit().expect("commits");
            });
            shared.wait_for(0, 1);
            let got = run.faulted(|| {
                shared.set(1, 1);
                t.replace(b"k", b"mine")
            });
            shared.set(1, 1);
            holder.succeeds();
            let expected: &[u8] = if got.is_ok() { b"mine" } else { b"holder's" };
            let model = Model::from([(b"k".to_vec(), expected.to_vec())]);
            compare(&t, &model);
            drop(t);
            run.holds("a", &model);
        });
    }
}

/// Here each lock that is waited for, and each look at an owner's life, is a call of fcntl.
#[test]
fn groups_with_record_locks() {
    let _alone = alone();
    for waits in [false, true] {
        let scene = format!("groups with record locks{}", if waits { " that wait" } else { "" });
        sweep(&scene, Kind::Posix, |run| {
            let t = run.create("a", ManageOptions::new().locking(Locking::Record));
            let mut model = Model::new();
            for n in 0..60 {
                t.add(&key(n), &value(n, 30)).expect("adds");
                model.insert(key(n), value(n, 30));
            }
            let shared = Shared::new(2);
            let holder = waits.then(|| {
                let holder = fork(20, || {
                    let object = OpenOptions::new().open(&run.name("a")).expect("opens");
                    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                    let group = t.table().begin().expect("begins");
                    t.replace(&key(5), b"holder's").expect("replaces");
                    shared.set(0, 1);
                    shared.wait_for(1, 1);
                    std::thread::sleep(Duration::from_millis(8));
                    group.commit().expect("commits");
                });
                shared.wait_for(0, 1);
                model.insert(key(5), b"holder's".to_vec());
                holder
            });
            let group = run.faulted(|| {
                shared.set(1, 1);
                t.table().group(|| {
                    t.remove(&key(1))?;
                    t.replace(&key(5), b"mine")?;
                    for n in 100..130 {
                        t.add(&key(n), &value(n, 900))?;
                    }
                    t.increment(&key(200), 1, 7)?;
                    Ok::<_, Error>(())
                })
            });
            shared.set(1, 1);
            if let Some(holder) = holder {
                holder.succeeds();
            }
            if group.is_ok() {
                model.remove(&key(1));
                model.insert(key(5), b"mine".to_vec());
                model.extend((100..130).map(|n| (key(n), value(n, 900))));
                model.insert(key(200), 8i64.to_le_bytes().to_vec());
            }
            compare(&t, &model);
            drop(t);
            run.holds("a", &model);
        });
    }
}

#[test]
fn waiting_for_a_change() {
    posix("wait for a change", |run| {
        let t = run.create("a", &ManageOptions::new());
        t.add(b"k", b"v").expect("adds");
        let mut stamp = Stamp::NONE;
        let _ = run.faulted(|| {
            stamp = t.stamp(b"k")?;
            assert!(!t.wait(b"k", &mut stamp, Some(Duration::from_millis(4)))?);
            t.replace(b"k", b"w")?;
            assert!(t.wait(b"k", &mut stamp, Some(Duration::from_millis(4)))?);
            Ok(())
        });
        t.replace(b"k", b"w").expect("replaces");
        drop(t);
        run.holds("a", &Model::from([(b"k".to_vec(), b"w".to_vec())]));
    });
}

#[test]
fn whole_tables() {
    both("roots, dropping, re-initialising, emptying", |run| {
        let (t, model) = run.filled("a", 300);
        let object = OpenOptions::new().open(&run.name("a")).expect("opens");
        let mut step = 0;
        let outcome = run.faulted(|| {
            HashTable::manage(&object, ManageOptions::new().root("other"))?.add(b"k", b"v")?;
            step = 1;
            object.drop_table("other")?;
            step = 2;
            HashTable::manage(&object, ManageOptions::new().reinitialise(true))?;
            step = 3;
            OpenOptions::new().truncate(true).open(&run.name("a"))?;
            step = 4;
            Ok(())
        });
        assert!(step == 4 || outcome.is_err());
        // The step that failed has happened wholly or not at all.
        let here = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let count = here.len().expect("counts");
        assert!(count == if step < 2 { 300 } else { 0 } || (step == 2 && count == 300), "{step}: {count}");
        if count == 300 {
            compare(&here, &model);
        }
        let named = HashTable::manage(&object, ManageOptions::new().root("other")).expect("manages");
        named.replace(b"k", b"w").expect("replaces");
        let now = if count == 300 { model } else { Model::new() };
        drop((t, here, named, object));
        run.holds("a", &now);
    });
}

#[test]
fn arrays() {
    both("arrays", |run| {
        let object = OpenOptions::new().create(true).open(&run.name("a")).expect("opens");
        let mut model = vec![7i64; 1000];
        let a = Array::manage_i64(&object, 7, 1000, &ManageOptions::new()).expect("manages");
        let ones = vec![1u8; 800 * 8];
        let mut slice_done = false;
        let outcome = run.faulted(|| {
            a.set(3, &5i64.to_le_bytes())?;
            model[3] = 5;
            a.write(100, &ones)?;
            slice_done = true;
            a.resize(200_000)?;
            a.write(1000, &vec![2; 150_000 * 8])?;
            Ok(())
        });
        let one = i64::from_le_bytes([1; 8]);
        if slice_done {
            model[100..900].fill(one);
        }
        for (i, expected) in model.iter().enumerate() {
            assert_eq!(a.get(i as u64).expect("gets"), expected.to_le_bytes(), "element {i}");
        }
        let length = a.length().expect("has a length");
        assert!(length == 200_000 || (outcome.is_err() && length == 1000), "{length}");
        if length == 200_000 {
            let first = a.get(1000).expect("gets");
            let all = if outcome.is_ok() { vec![2; 8] } else { 7i64.to_le_bytes().to_vec() };
            assert_eq!(first, all);
            let mut whole = vec![0; 150_000 * 8];
            a.read(1000, &mut whole).expect("reads");
            assert!(whole.chunks(8).all(|element| element == all), "a slice is written wholly or not at all");
        }
        a.resize(300_000).expect("resizes afterwards");
        a.write(250_000, &ones).expect("writes afterwards");
        check_object(&object);
    });
}

/// Nothing but the objects lies about, if whatever removes was not what failed.
fn no_hidden_files(run: &Run) {
    let fault = run.fault.get();
    if fault.is_none_or(|fault| fault.class != Class::Name) {
        let hidden = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with('.');
        let left = std::fs::read_dir(&run.directory).expect("reads").flatten().filter(hidden).count();
        assert_eq!(left, 0, "{fault:?}");
    }
}

#[test]
fn syncs_and_checks() {
    both("sync, check and go on", |run| {
        let (t, mut model) = run.filled("a", 60);
        let object = OpenOptions::new().open(&run.name("a")).expect("opens");
        let _ = run.faulted(|| {
            object.sync(1000)?;
            t.add(b"after", b"v")?;
            model.insert(b"after".to_vec(), b"v".to_vec());
            object.check(|finding| panic!("{finding:?}")).map(|summary| assert!(summary.complete))
        });
        compare(&t, &model);
        drop((t, object));
        run.holds("a", &model);
    });
}

#[test]
fn backups() {
    both("backup", |run| {
        let (t, model) = run.filled("a", 60);
        let object = OpenOptions::new().open(&run.name("a")).expect("opens");
        let old = run.filled("b", 3).1;
        let (mut backed_up, mut replaced) = (false, false);
        let _ = run.faulted(|| {
            object.backup(&run.name("c"), 0o600, false, 1000)?;
            backed_up = true;
            object.backup(&run.name("b"), 0o600, true, 1000)?;
            replaced = true;
            Ok(())
        });
        compare(&t, &model);
        drop((t, object));
        run.holds("a", &model);
        // A copy is there wholly or not at all.
        match OpenOptions::new().open(&run.name("c")) {
            Ok(_) => run.holds("c", &model),
            Err(e) => assert!(!backed_up && e == Error::NotFound, "{e}"),
        }
        let object = OpenOptions::new().open(&run.name("b")).expect("opens");
        let b = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        if replaced || b.len() != Ok(3) {
            compare(&b, &model)
        } else {
            compare(&b, &old)
        }
        check_object(&object);
        no_hidden_files(run);
    });
}

#[test]
fn salvages() {
    both("salvage", |run| {
        let (t, model) = run.filled("a", 60);
        drop(t);
        // A header that cannot be read is a damaged one.
        let damaged = |e| if matches!(e, Error::Corrupt { .. }) { Ok(None) } else { Err(e) };
        let outcome = run.faulted(|| {
            netshm::salvage(&run.name("a"), &run.name("d"), 0o600, false).map(Some).or_else(damaged)
        });
        let unread = run.fault.get().is_some_and(|fault| fault.class == Class::Read);
        assert!(outcome != Ok(None) || unread, "{:?}", run.fault.get());
        run.holds("a", &model);
        match OpenOptions::new().open(&run.name("d")) {
            // What is salvaged where bytes cannot be read is said to be not all.
            Ok(object) => {
                let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
                let mut saved = model.clone();
                if let Ok(Some(report)) = outcome {
                    let lost = report.bindings_lost + report.buckets_lost + report.tables_lost > 0;
                    assert!(report.bindings == 60 || (lost && unread), "{report:?}, {:?}", run.fault.get());
                    saved.retain(|key, _| report.bindings == 60 || t.contains(key).expect("looks"));
                }
                drop((t, object));
                run.holds("d", &saved);
            }
            Err(e) => assert!(!matches!(outcome, Ok(Some(_))) && e == Error::NotFound, "{e}"),
        }
        no_hidden_files(run);
    });
}

#[test]
fn names_and_permissions() {
    both("chmod, chown, unlink", |run| {
        let (t, model) = run.filled("a", 20);
        let object = OpenOptions::new().open(&run.name("a")).expect("opens");
        let unlinked = run.faulted(|| {
            object.chmod(0o640)?;
            object.chown(None, None)?;
            object.size()?;
            Object::unlink(&run.name("a"))
        });
        compare(&t, &model);
        drop((t, object));
        match OpenOptions::new().open(&run.name("a")) {
            Ok(object) => {
                assert!(unlinked.is_err());
                drop(object);
                run.holds("a", &model);
                Object::unlink(&run.name("a")).expect("unlinks");
            }
            Err(e) => {
                assert_eq!(e, Error::NotFound);
                // Of a POSIX object the memory goes first; the small file may be left then.
                let again = Object::unlink(&run.name("a"));
                assert!(again == Err(Error::NotFound) || (again.is_ok() && unlinked.is_err()), "{again:?}");
            }
        }
    });
}

#[test]
fn lists_of_objects() {
    posix("pmanage", |run| {
        let list = Pmanage::open(run.directory.join("list")).expect("opens");
        let victim = run.directory.join("victim");
        std::fs::write(&victim, "x").expect("writes");
        let kept = PmObject::new(PmKind::File, run.directory.join("kept"));
        let entry = PmObject::new(PmKind::File, &victim);
        list.register(&kept).expect("registers");
        let mut step = 0;
        let _ = run.faulted(|| {
            list.register(&entry)?;
            step = 1;
            assert_eq!(list.registered()?.len(), 2);
            list.unregister(&kept)?;
            step = 2;
            list.unlink()?;
            step = 3;
            Ok(())
        });
        let here = list.registered().expect("reads");
        assert!(here.contains(&kept) || step >= 1, "{step}: {here:?}");
        assert!(here.contains(&entry) || step == 0 || step == 3 || !victim.exists(), "{step}: {here:?}");
        list.register(&entry).expect("registers");
        assert!(list.registered().expect("reads").contains(&entry));
        list.unlink().expect("unlinks");
        assert!(!victim.exists() && list.registered().expect("reads").is_empty());
    });
}

#[test]
fn forked_children() {
    posix("a child's first change", |run| {
        let (t, mut model) = run.filled("a", 20);
        let ended = Shared::new(4);
        let child = fork(20, || {
            let added = run.faulted(|| t.add(b"child's", b"v"));
            ended.set(0, u64::from(added.is_ok()) + 1);
            t.replace(b"again", b"v").expect("adds afterwards");
            if let Some(fault) = run.fault.get() {
                ended.set(1, fault.class as u64);
                ended.set(3, fault.errno as u64);
            }
            ended.set(2, support_faults::seen());
        });
        child.succeeds();
        if ended.get(0) == 2 {
            model.insert(b"child's".to_vec(), b"v".to_vec());
        }
        model.insert(b"again".to_vec(), b"v".to_vec());
        compare(&t, &model);
        drop(t);
        run.holds("a", &model);
        if let Some(class) = Class::from_number(ended.get(1)) {
            run.fault.set(Some(Fault { class, errno: ended.get(3) as i32, times: 1 }));
        }
    });
}

#[test]
fn descriptors_swept_away() {
    both("a swept descriptor", |run| {
        let (t, mut model) = run.filled("a", 20);
        let object = OpenOptions::new().open(&run.name("a")).expect("opens");
        for fd in std::fs::read_dir("/proc/self/fd").expect("reads").flatten() {
            let link = std::fs::read_link(fd.path()).unwrap_or_default();
            if link.to_string_lossy().contains(&run.tag) {
                let number = fd.file_name().to_string_lossy().parse().expect("is a number");
                // SAFETY: it is what hosts do.
                unsafe { libc::close(number) };
            }
        }
        let added = run.faulted(|| t.add(b"large", &value(1, 3_000_000)));
        // Of the file that cannot be opened again no more than that is known.
        if added.is_ok() {
            model.insert(b"large".to_vec(), value(1, 3_000_000));
        }
        compare(&t, &model);
        t.replace(b"again", &value(2, 3_000_000)).expect("replaces afterwards");
        model.insert(b"again".to_vec(), value(2, 3_000_000));
        drop((t, object));
        run.holds("a", &model);
    });
}
