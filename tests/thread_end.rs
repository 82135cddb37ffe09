//! Goal: what runs on a thread after the library has given the thread's session back works as everything else does, and
//! takes nothing from whoever has the session by then. Such are destructors of thread-local variables and exit handlers.
//!
//! Method: a thread-local variable that is there before the thread uses the library is destroyed after the library's own.
//! Its destructor runs the part of the test that is meant, in a thread of an object with few slots; in the end these are
//! counted.

mod support_processes;

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions, Transaction, Update};
use std::cell::RefCell;
use std::sync::{LazyLock, mpsc};
use std::thread::Scope;
use support_processes::*;

type Part = Box<dyn FnOnce()>;

/// Runs what is in it when the thread ends.
struct AtEnd(RefCell<Vec<Part>>);

thread_local! {
    static AT_END: AtEnd = const { AtEnd(RefCell::new(Vec::new())) };
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        for part in self.0.take() {
            part();
        }
    }
}

/// To be called before the thread uses the library.
fn when_all_is_over(part: impl FnOnce() + 'static) {
    AT_END.with(|all| all.0.borrow_mut().push(Box::new(part)));
}

/// Objects of all kinds that sessions are found in differently.
fn each_kind_of_object(test: impl Fn(&Name, &HashTable)) {
    old_key();
    let _alone = alone();
    for (locking, checksums) in
        [(netshm::Locking::Futex, false), (netshm::Locking::Futex, true), (netshm::Locking::Record, false)]
    {
        let s = Scratch::posix("thread-end");
        stage(60, || {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            let mut options = ManageOptions::new();
            options.locking(locking).checksums(checksums).expected(1 << 14).lock_timeout_ms(20_000);
            let t = HashTable::manage(&object, &options).expect("manages");
            test(&s.0, &t);
            let summary = check_object(&object);
            assert_eq!(summary.slots, 8, "what comes late has used up slots");
            assert!(summary.slots_active <= 4, "{summary:?}");
        });
        check(&s.0);
    }
}

/// A thread that has a session of its own and does `late` when that has been given back.
fn ends<'s>(scope: &'s Scope<'s, '_>, t: &HashTable, late: impl FnOnce(&HashTable) + Send + 'static) {
    let t = t.clone();
    let thread = scope.spawn(move || {
        let own = t.clone();
        when_all_is_over(move || late(&own));
        t.replace(b"mine", b"1").expect("takes a session");
    });
    thread.join().expect("no panic");
}

/// Goal: what a destructor does is its own, not part of the group of whoever has taken the thread's session. Method: between
/// the end and the destructor's change another thread begins a group, which it aborts after that.
#[test]
fn what_a_late_destructor_does_is_not_in_the_group_of_another_thread() {
    each_kind_of_object(|_, t| {
        for round in 0..20u32 {
            std::thread::scope(|scope| {
                let (over, when_over) = mpsc::channel();
                let (begun, when_begun) = mpsc::channel();
                let (changed, when_changed) = mpsc::channel();
                scope.spawn(move || {
                    when_over.recv().expect("is told");
                    let group = t.table().begin().expect("begins");
                    t.replace(b"lost", b"1").expect("replaces");
                    begun.send(()).expect("tells");
                    when_changed.recv().expect("is told");
                    group.abort().expect("aborts");
                });
                ends(scope, t, move |t| {
                    over.send(()).expect("tells");
                    when_begun.recv().expect("is told");
                    t.replace(b"late", &round.to_le_bytes()).expect("replaces");
                    assert_eq!(t.find(b"lost").expect("finds"), None, "is not in the group");
                    changed.send(()).expect("tells");
                });
            });
            assert_eq!(t.find(b"late").expect("finds"), Some(round.to_le_bytes().to_vec()));
            assert_eq!(t.find(b"lost").expect("finds"), None);
        }
    });
}

/// Goal: everything works late, and gives its session back each time. Method: sixty threads, more than there are slots, one after
/// another, with operations, callbacks that fail or call in turn, walks, and groups, some of which move to another thread or come
/// from there.
#[test]
fn everything_works_late_and_uses_up_no_slots() {
    each_kind_of_object(|name, t| {
        let other = OpenOptions::new().anonymous().expect("makes memory");
        let other = HashTable::manage(&other, &ManageOptions::new()).expect("manages");
        for round in 0..60u32 {
            std::thread::scope(|scope| {
                let (moved, arrival) = mpsc::channel();
                let group = t.table().begin().expect("begins");
                t.increment(b"moved", 1, 0).expect("counts");
                let group = group.detach().expect("detaches");
                let (other, name) = (other.clone(), name.clone());
                ends(scope, t, move |t| {
                    let group = group.attach().expect("attaches");
                    t.increment(b"moved", 1, 0).expect("counts");
                    group.commit().expect("commits");
                    late_operations(t, &other, round);
                    let object = OpenOptions::new().open(&name).expect("opens");
                    assert_eq!(object.tables().expect("lists").len(), 1);
                    let group = t.table().begin().expect("begins");
                    t.increment(b"moved", 1, 0).expect("counts");
                    moved.send(group.detach().expect("detaches")).expect("tells");
                    t.replace(b"last", b"1").expect("replaces");
                });
                let group = arrival.recv().expect("arrives").attach().expect("attaches");
                t.increment(b"moved", 1, 0).expect("counts");
                group.commit().expect("commits");
            });
            assert_eq!(t.increment(b"moved", 0, 0), Ok(4 * (i64::from(round) + 1)));
            assert_eq!(t.increment(b"late", 0, 0), Ok(3 * (i64::from(round) + 1)));
        }
    });
}

fn late_operations(t: &HashTable, other: &HashTable, round: u32) {
    let key = round.to_le_bytes();
    t.add(&key, b"first").expect("adds");
    t.add(&key, b"second").expect("adds");
    assert_eq!(t.find_all(&key).expect("finds").len(), 2);
    assert!(t.remove(&key).expect("removes"));
    assert_eq!(t.find(&key).expect("finds").as_deref(), Some(&b"first"[..]));
    t.increment(b"late", 1, 0).expect("counts");
    assert!(t.iter().all(|b| b.is_ok()));
    // A callback may use other objects, but not this one.
    let nested = t.update(&key, |_| {
        other.replace(&key, b"x").expect("replaces");
        assert_eq!(t.replace(&key, b"y"), Err(Error::InCallback));
        Update::Replace(b"z".to_vec())
    });
    nested.expect("updates");
    let panic = std::panic::catch_unwind(|| t.update(&key, |_| std::panic::resume_unwind(Box::new(()))));
    assert!(panic.is_err());
    let group = t.table().begin().expect("begins");
    t.increment(b"late", 1, 0).expect("counts");
    let inner = t.table().begin().expect("begins");
    t.increment(b"late", 100, 0).expect("counts");
    inner.abort().expect("aborts");
    t.increment(b"late", 1, 0).expect("counts");
    assert!(t.iter().all(|b| b.is_ok()));
    group.commit().expect("commits");
    drop(t.table().begin().expect("begins"));
}

thread_local! {
    static GROUP: RefCell<Option<Transaction>> = const { RefCell::new(None) };
}

/// Goal: a destructor can end the group that is open on its thread, whose session is free from then on. Method: a
/// thread-local variable has the group; some are committed, some are dropped with the variable.
#[test]
fn a_late_destructor_ends_the_group_of_its_thread() {
    each_kind_of_object(|_, t| {
        for round in 0..40u32 {
            let (t, own) = (t.clone(), t.clone());
            let thread = std::thread::spawn(move || {
                GROUP.with(|_| {});
                when_all_is_over(move || {
                    if round % 2 == 0 {
                        own.increment(b"committed", 1, 0).expect("counts");
                        GROUP.take().expect("is there").commit().expect("commits");
                        own.increment(b"committed", 1, 0).expect("counts");
                    }
                });
                let group = t.table().begin().expect("begins");
                t.increment(b"committed", 1, 0).expect("counts");
                GROUP.set(Some(group));
            });
            thread.join().expect("no panic");
        }
        assert_eq!(t.increment(b"committed", 0, 0), Ok(60));
    });
}

/// Goal: an exit handler has a session, beside a thread that has taken over the one of the thread that exits. Method: a child
/// that calls `exit` from its main thread.
#[test]
fn an_exit_handler_works_beside_other_threads() {
    static TABLE: std::sync::Mutex<Option<HashTable>> = std::sync::Mutex::new(None);
    extern "C" fn handler() {
        let t = TABLE.lock().expect("is whole").take().expect("is there");
        let group = std::thread::scope(|scope| {
            let begin = scope.spawn(|| {
                let group = t.table().begin().expect("begins");
                t.replace(b"lost", b"1").expect("replaces");
                group.detach().expect("detaches")
            });
            begin.join().expect("no panic")
        });
        t.replace(b"late", b"1").expect("replaces");
        drop(group);
        t.replace(b"later", b"1").expect("replaces");
    }
    old_key();
    let _alone = alone();
    let s = Scratch::posix("exit-handler");
    let child = fork(30, || {
        let t = s.open();
        t.replace(b"k", b"v").expect("takes a session");
        *TABLE.lock().expect("is whole") = Some(t);
        // SAFETY: the handler may run then; what other handlers of the test program do is harmless in a child.
        unsafe {
            assert_eq!(libc::atexit(handler), 0);
            libc::exit(0);
        }
    });
    child.succeeds();
    let object: Object = OpenOptions::new().open(&s.0).expect("opens");
    assert_eq!(check_object(&object).bindings, 3);
    let t = s.open();
    assert_eq!(t.find(b"lost").expect("finds"), None);
    assert_eq!(t.find(b"later").expect("finds").as_deref(), Some(&b"1"[..]));
}

/// A key of `pthread_key_create`, whose destructor does what was set last. These run when all thread-local variables are
/// destroyed, round after round.
struct Key(libc::pthread_key_t);

impl Key {
    fn new() -> Key {
        extern "C" fn run(part: *mut libc::c_void) {
            // SAFETY: `set` has put it there.
            let part = unsafe { Box::from_raw(part.cast::<Part>()) };
            part();
        }
        let mut key = 0;
        // SAFETY: a valid place.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(run)) }, 0);
        Key(key)
    }

    /// To be done when the calling thread ends.
    fn set(&self, part: impl FnOnce() + 'static) {
        let part: *mut Part = Box::into_raw(Box::new(Box::new(part)));
        // SAFETY: the destructor frees it.
        assert_eq!(unsafe { libc::pthread_setspecific(self.0, part.cast()) }, 0);
    }
}

/// A key that is older than the library's: every test asks for it before it uses the library.
fn old_key() -> &'static Key {
    static OLD: LazyLock<Key> = LazyLock::new(Key::new);
    &OLD
}

/// Goal: a thread whose first use of the library is in the destructor of a `pthread_key_create` gives its session back, as do
/// those that use it once more after that. Method: sixty of either kind, by a key that is older than the library's and by a younger
/// one.
#[test]
fn a_thread_that_begins_in_its_last_destructors_uses_up_no_slot() {
    let old = old_key();
    each_kind_of_object(|_, t| {
        t.replace(b"first", b"1").expect("replaces");
        let young = Key::new();
        for round in 0..120 {
            std::thread::scope(|scope| {
                let (young, t) = (&young, t.clone());
                // Each has a larger stack than all before it, and so a number of its own: whoever finds the session of the one
                // before it by its number uses up no slot either.
                let thread = std::thread::Builder::new().stack_size((1 << 20) + (round << 16));
                let thread = thread.spawn_scoped(scope, move || {
                    let (first, second) = if round % 2 == 0 { (old, young) } else { (young, old) };
                    let next = Key(second.0);
                    first.set(move || {
                        t.increment(b"late", 1, 0).expect("counts");
                        let group = t.table().begin().expect("begins");
                        t.increment(b"late", 1, 0).expect("counts");
                        group.commit().expect("commits");
                        let t = t.clone();
                        next.set(move || {
                            t.increment(b"late", 1, 0).expect("counts");
                        });
                    });
                });
                thread.expect("begins").join().expect("no panic");
            });
        }
        assert_eq!(t.increment(b"late", 0, 0), Ok(360));
    });
}

/// Goal: a group that its thread has left open, and nothing ends, is rolled back with the thread: what it had locked is free, its
/// session too, and no later thread finds itself in it. A destructor of `pthread_key_create` can still end it. Method: groups that
/// are forgotten before the end of the thread, in a destructor of a thread-local variable, and in one of the former; and some
/// that are committed there.
#[test]
fn a_group_that_nothing_ends_ends_with_its_thread() {
    let key = Key::new();
    each_kind_of_object(|_, t| {
        for round in 0..60u32 {
            let leave = {
                let t = t.clone();
                move || {
                    let group = t.table().begin().expect("begins");
                    t.increment(b"counter", 1, 0).expect("counts");
                    std::mem::forget(group);
                }
            };
            std::thread::scope(|scope| {
                let (key, t) = (&key, t.clone());
                let thread = scope.spawn(move || match round % 4 {
                    0 => leave(),
                    1 => when_all_is_over(leave),
                    2 => key.set(leave),
                    _ => {
                        let group = t.table().begin().expect("begins");
                        t.increment(b"counter", 1, 0).expect("counts");
                        key.set(move || group.commit().expect("commits"));
                    }
                });
                thread.join().expect("no panic");
            });
            t.increment(b"counter", 1, 0).expect("counts");
            std::thread::scope(|scope| {
                let next = scope.spawn(|| t.increment(b"counter", 1, 0).expect("counts"));
                next.join().expect("no panic");
            });
        }
        assert_eq!(t.increment(b"counter", 0, 0), Ok(60 * 2 + 15));
    });
}

/// Rounds of destructors that a thread has at most (`PTHREAD_DESTRUCTOR_ITERATIONS`), here and in other C libraries.
const ROUNDS: u32 = 4;

impl Key {
    /// To be done in each round of the calling thread's end.
    fn set_for_all_rounds(&self, part: impl FnMut(u32) + 'static) {
        fn next(key: libc::pthread_key_t, round: u32, mut part: Box<dyn FnMut(u32)>) {
            Key(key).set(move || {
                part(round);
                if round + 1 < ROUNDS {
                    next(key, round + 1, part);
                }
            });
        }
        next(self.0, 0, Box::new(part));
    }
}

/// Goal: what a thread does in the last of all its destructors leaves nothing to the next thread with its number, neither a
/// session nor a group. Method: a destructor that comes after the library's, and in each round; in the last one it may leave a
/// group open. The next thread takes over a group, and counts alone.
#[test]
fn a_thread_has_nothing_of_the_last_destructors_of_another() {
    each_kind_of_object(|_, t| {
        t.replace(b"first", b"1").expect("replaces");
        let young = Key::new();
        for round in 0..3 {
            std::thread::scope(|scope| {
                let (young, t) = (&young, t.clone());
                let thread = scope.spawn(move || {
                    young.set_for_all_rounds(move |n| {
                        t.increment(b"late", 1, 0).expect("counts");
                        if round == 2 && n + 1 == ROUNDS {
                            std::mem::forget(t.table().begin().expect("begins"));
                        }
                    });
                });
                thread.join().expect("no panic");
            });
            let group = t.table().begin().expect("begins").detach().expect("detaches");
            std::thread::scope(|scope| {
                let next = scope.spawn(|| {
                    let group = group.attach().expect("attaches");
                    t.increment(b"undone", 1, 0).expect("counts");
                    group.abort().expect("aborts");
                    t.increment(b"counter", 1, 0).expect("counts");
                });
                next.join().expect("no panic");
            });
            assert_eq!(t.find(b"undone").expect("finds"), None, "it was in a group");
            assert_eq!(t.increment(b"counter", 0, 0), Ok(round + 1), "it was in no group");
        }
        assert_eq!(t.increment(b"late", 0, 0), Ok(3 * i64::from(ROUNDS)));
    });
}

/// Goal: a group that nothing ends is rolled back though destructors use other objects in each round. Method: such a destructor,
/// and a group that is left open before it.
#[test]
fn a_group_ends_with_its_thread_though_destructors_use_other_objects() {
    each_kind_of_object(|_, t| {
        let other = OpenOptions::new().anonymous().expect("makes memory");
        let other = HashTable::manage(&other, &ManageOptions::new()).expect("manages");
        t.replace(b"first", b"1").expect("replaces");
        let young = Key::new();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                let (young, t, other) = (&young, t.clone(), other.clone());
                let thread = scope.spawn(move || {
                    young.set_for_all_rounds(move |_| {
                        other.increment(b"late", 1, 0).expect("counts");
                    });
                    let group = t.table().begin().expect("begins");
                    t.increment(b"counter", 1, 0).expect("counts");
                    std::mem::forget(group);
                });
                thread.join().expect("no panic");
            });
            t.increment(b"counter", 1, 0).expect("counts");
        }
        assert_eq!(t.increment(b"counter", 0, 0), Ok(3));
        assert_eq!(other.increment(b"late", 0, 0), Ok(3 * i64::from(ROUNDS)));
    });
}
