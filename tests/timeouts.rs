//! Goal: calls on an object wait no longer than the time-out that was given last with its handle: not for groups, and not for
//! the gate.
//!
//! Method: somebody holds what is waited for, until he is told, or for ten seconds: who waits in spite of the time-out is
//! let in by then, and noticed by that.

mod support_processes;

use netshm::{Array, Error, HashTable, ManageOptions, Name, Object, OpenOptions};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support_processes::*;

const GATE: u64 = 2 * 4096;
const LONGEST_HOLD: Duration = Duration::from_secs(10);

fn is_timeout<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Timeout { .. }))
}

fn object(s: &Scratch) -> Object {
    OpenOptions::new().create(true).open(&s.0).expect("opens")
}

fn manage(object: &Object, timeout_ms: i32) -> Result<HashTable, Error> {
    HashTable::manage(object, ManageOptions::new().lock_timeout_ms(timeout_ms))
}

fn file(tag: &str) -> (Scratch, File) {
    let s = Scratch::file(Path::new("/dev/shm"), tag);
    let Name::File(path) = &s.0 else { unreachable!("it is a file") };
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("makes the file");
    (s, file)
}

/// Sleeps until it is over, or for as long as anything is held.
fn hold_until(is_over: impl Fn() -> bool) {
    let end = Instant::now() + LONGEST_HOLD;
    while !is_over() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does `body` while something is held, which `end` ends.
fn while_held<R>(end: impl FnOnce() + Send, body: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            hold_until(|| over.load(Ordering::SeqCst));
            end();
        });
        let outcome = body();
        over.store(true, Ordering::SeqCst);
        outcome
    })
}

/// Goal: checking an object and removing a table of it wait for an open group as long as the table's handle says, also if the
/// table could not be had; without a time-out, until the group has ended.
#[test]
fn check_and_removal_keep_the_time_out_of_the_table() {
    let _alone = alone();
    stage(60, || {
        let s = Scratch::posix("timeouts-group");
        let (held, told) = (0, 1);
        let shared = Shared::new(2);
        let named = |o: &Object| HashTable::manage(o, ManageOptions::new().root("named")).expect("manages");
        named(&object(&s));
        let holder = fork(40, || {
            let t = s.open();
            let group = || {
                t.replace(b"k", b"v")?;
                shared.set(held, 1);
                hold_until(|| shared.get(told) == 1);
                Ok::<(), Error>(())
            };
            t.table().group(group).expect("commits");
        });
        while shared.get(held) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for timeout_ms in [50, -1] {
            let o = object(&s);
            if timeout_ms > 0 {
                manage(&o, timeout_ms).expect("manages");
            } else {
                let mut options = ManageOptions::new();
                let other = Array::manage_i64(&o, 0, 0, options.lock_timeout_ms(timeout_ms));
                assert!(matches!(other, Err(Error::Kind { .. })), "{:?}", other.map(drop));
            }
            let ends = [o.check(|_| true).map(drop), o.drop_table("named")];
            assert!(ends.iter().all(is_timeout), "{timeout_ms}: {ends:?}");
            assert_eq!(o.tables().expect("lists").len(), 2);
        }
        let patient = object(&s);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                shared.set(told, 1);
            });
            patient.check(|_| true).expect("waits, and is sound");
        });
        patient.drop_table("named").expect("removes");
        holder.succeeds();
    });
}

/// Goal: listing the tables does not wait for ever for a gate that wrong bytes give to somebody who lives. Method: the
/// bytes say that this very process is changing the set of tables.
#[test]
fn listing_keeps_the_time_out_of_the_table() {
    let _alone = alone();
    stage(60, || {
        let (s, file) = file("timeouts-gate");
        let o = object(&s);
        manage(&o, 50).expect("manages").add(b"k", b"v").expect("adds");
        let mut sound = [0; 8];
        file.read_exact_at(&mut sound, GATE).expect("reads");
        let (slot, writing) = (1, 1 << 16);
        let wrong = u64::from_le_bytes(sound) | writing | slot;
        file.write_all_at(&wrong.to_le_bytes(), GATE).expect("writes");
        let repair = || file.write_all_at(&sound, GATE).expect("writes");
        let all = while_held(repair, || o.tables());
        assert!(is_timeout(&all), "{all:?}");
        assert_eq!(o.tables().expect("lists").len(), 1);
        check_object(&o);
    });
}
