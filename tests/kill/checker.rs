//! The checker while others work.

use crate::support::model::{Actor, Bytes, Op};
use crate::support::options;
use crate::support::process::{Child, Exit, Shared, fork, watchdog};
use crate::support::scratch::{Scratch, assert_object_sound};

const STUCK_SECONDS: u32 = 10;

/// The checker keeps everybody out, and does not take those who wait for its end for damage.
fn check_among(work: impl Fn(&mut Actor, &Bytes)) {
    let scratch = Scratch::posix("check");
    let shared = Shared::new(1);
    let mut busy: Vec<Child> = (0..2)
        .map(|n| {
            fork(|| {
                let mut actor = Actor::new(scratch.name(), &options());
                while shared.get(0) == 0 {
                    work(&mut actor, &format!("key of {n}").into_bytes());
                }
            })
        })
        .collect();
    let exit = fork(|| {
        watchdog(STUCK_SECONDS);
        let object = Actor::new(scratch.name(), &options()).object();
        for _ in 0..1000 {
            assert_object_sound(&object);
        }
    })
    .wait();
    shared.set(0, 1);
    assert_eq!(exit, Exit::Code(0), "the checker");
    assert!(busy.iter_mut().all(|child| child.wait() == Exit::Code(0)));
}

pub(crate) fn the_checker_among_single_operations() {
    check_among(|actor, key| drop(actor.apply(&Op::Increment(key.clone(), 1, 0))));
}

pub(crate) fn the_checker_among_groups() {
    check_among(|actor, key| drop(actor.apply(&Op::Group(vec![Op::Increment(key.clone(), 1, 0)]))));
}

pub(crate) fn the_checker_among_those_who_close() {
    check_among(|actor, key| {
        actor.apply(&Op::Replace(key.clone(), vec![1; 100]));
        actor.close();
    });
}
