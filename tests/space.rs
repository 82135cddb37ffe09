//! Goal: memory and address space that end: an error and nothing lost, never SIGBUS; memory comes back.
//!
//! Method: limits of all kinds, swept; the table compared with a model, and the checker.

mod support_processes;

use netshm::{HashTable, ManageOptions, OpenOptions};
use support_processes::*;

/// Goal: a reservation of 1 MiB is extended while other threads use pointers into it, and while several threads
/// notice at once that it is too small. Method: another process makes the object grow to many times that; in
/// this one four threads find what is there, from the newest backwards, and add some themselves.
#[test]
fn a_small_reservation_is_extended_under_threads_at_work() {
    let _alone = alone();
    let rounds = if long_form() { 300 } else { 30 };
    let value = |i: u64| vec![i as u8; 900];
    for _ in 0..rounds {
        let s = Scratch::posix("reservation");
        let shared = Shared::new(2);
        drop(s.open());
        let grower = fork(60, || {
            let t = s.open();
            shared.wait_for(1, 1);
            for i in 0..30_000u64 {
                t.add(&i.to_le_bytes(), &value(i)).expect("adds");
                shared.set(0, i + 1);
            }
        });
        stage(60, || {
            let object = OpenOptions::new().reservation(1 << 20).open(&s.0).expect("opens");
            let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
            shared.set(1, 1);
            std::thread::scope(|scope| {
                for n in 0..4u64 {
                    let (t, shared) = (&t, &shared);
                    scope.spawn(move || {
                        let mut random = Random(n);
                        let mut added = 0;
                        loop {
                            let there = shared.get(0);
                            if there == 0 {
                                continue;
                            }
                            let i = there - 1 - random.below(there.min(20));
                            let found = t.find(&i.to_le_bytes()).expect("finds");
                            assert_eq!(found, Some(value(i)), "key {i}");
                            if n < 2 && added < 2000 {
                                added += 1;
                                t.add(&(n << 32 | added).to_be_bytes(), &value(added)).expect("adds");
                            }
                            if there == 30_000 {
                                break;
                            }
                        }
                    });
                }
            });
            let size = object.size().expect("has a size");
            assert!(size > 16 << 20, "{size}");
        });
        grower.succeeds();
        assert!(check(&s.0).bindings >= 30_000);
    }
}
