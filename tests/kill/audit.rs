//! What is judged while everybody pauses, and in the end.

use crate::book::*;
use crate::step::*;
use crate::support::process::{Exit, Shared, fork, watchdog};
use crate::support::scratch::{Scratch, assert_object_sound};
use crate::tables::*;
use netshm::OpenOptions;

const MOST_SECONDS: u32 = 300;

/// What the object takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) used_pages: u64,
    pub(crate) taken_pages: u64,
}

/// Compares everything with the desks' books; `at_work` threads may have slots.
pub(crate) fn audit(plan: &Plan, office: &Office, at_work: u64, salvages: bool) -> Size {
    let told = Shared::new(2);
    let exit = fork(|| {
        watchdog(MOST_SECONDS);
        let t = Tables::open(plan, 0);
        let summary = assert_object_sound(&t.object);
        assert!(summary.slots_active <= at_work + 1, "{} slots are taken", summary.slots_active);
        compare_all(plan, office);
        compare_shared(&t, office);
        told.set(0, summary.used_pages);
        told.set(1, summary.used_pages - summary.free_pages - summary.unbacked_pages);
        if salvages {
            let saved = Scratch::file("saved");
            netshm::salvage(&plan.name, saved.name(), 0o600, false).expect("salvages");
            let saved = plan.copied_to(saved.name());
            compare_all(&saved, office);
            assert_object_sound(&OpenOptions::new().open(&saved.name).expect("opens what was saved"));
        }
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "the audit");
    Size { used_pages: told.get(0), taken_pages: told.get(1) }
}

fn compare_all(plan: &Plan, office: &Office) {
    for desk in office.desks() {
        assert_eq!(desk.begun(), desk.ended());
        let t = Tables::open(plan, desk.number);
        let verdict = t.compare(plan, desk.number, &desk.book(), true);
        verdict.unwrap_or_else(|e| panic!("desk {}: {e}", desk.number));
    }
}

/// What all have in common.
fn compare_shared(t: &Tables, office: &Office) {
    let desks = office.desks();
    let bindings = (COUNTERS + ACCOUNTS) as u64 + desks.iter().map(|d| d.book().bindings()).sum::<u64>();
    assert_eq!(t.raw.len().expect("counts"), bindings);
    for n in 0..COUNTERS {
        let is = number(t.raw.find(&counter_key(n)).expect("finds")) as u64;
        let certain: u64 = desks.iter().map(|d| d.book().0[COUNTED + n]).sum();
        let uncertain: u64 = desks.iter().map(|d| d.uncertain(n)).sum();
        let found = is.wrapping_sub(certain);
        assert!(found <= uncertain, "counter {n}: {is} instead of {certain} to {}", certain + uncertain);
        desks[0].settle_counter(n, found);
        desks.iter().for_each(|d| d.clear_uncertain(n));
    }
    let sum = |word: usize| desks.iter().map(|d| d.book().0[word]).fold(0, u64::wrapping_add) as i64;
    for n in 0..ACCOUNTS {
        let is = number(t.raw.find(&account_key(n)).expect("finds"));
        assert_eq!(is, OPENING_BALANCE + sum(MOVED + n), "account {n}");
    }
    for n in 0..ELEMENTS {
        let is = t.elements.get_i64(shared_element(n)).expect("gets");
        assert_eq!(is, sum(ADDED + n), "shared element {n}");
    }
}

/// Removes everything: then nothing but the tables themselves may be left, and the memory is free again.
pub(crate) fn clear(plan: &Plan, before: Size) -> Size {
    let told = Shared::new(2);
    let exit = fork(|| {
        watchdog(MOST_SECONDS);
        let t = Tables::open(plan, 0);
        t.clear_shared();
        for desk in 0..DESKS {
            Tables::open(plan, desk).clear(desk);
        }
        drop(t);
        let read_only = OpenOptions::new().read_only(true).open(&plan.name).expect("opens");
        let summary = assert_object_sound(&read_only);
        assert_eq!((summary.bindings, summary.record_bytes, summary.slots_active), (0, 0, 0));
        // What the killed had in their magazines waits for whoever takes their slots.
        assert!(
            summary.custody < 300 * summary.slots,
            "{} blocks in {} slots",
            summary.custody,
            summary.slots
        );
        told.set(0, summary.used_pages);
        told.set(1, summary.used_pages - summary.free_pages - summary.unbacked_pages);
    })
    .wait();
    assert_eq!(exit, Exit::Code(0), "clearing");
    let size = Size { used_pages: told.get(0), taken_pages: told.get(1) };
    assert!(
        size.taken_pages <= 2 * before.taken_pages + 1500,
        "{size:?} when all is gone, {before:?} at first"
    );
    size
}
