//! How long a step of a script may take, and took: a call with a time-out ends within it, and an allowance for the work itself
//! that is so generous that only a call that hangs exceeds it. Time in which this process wanted to run and could not is not
//! counted.
//!
//! It has the kinds of steps of `driver.rs`, by their first bytes, with the number of calls with a time-out that one makes
//! at most. Excused is what opens an object, since opening has no time-out.

use super::support::process::{Shared, now_ns};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Beyond its time-out a call may take so long.
pub const ALLOWANCE: Duration = Duration::from_secs(20);

/// Items of a walk: each is read by itself, and may have to wait.
const WALK: Option<u32> = Some(3000);
const ONE: Option<u32> = Some(1);

/// `(last of the first bytes, name, most calls)`; no number: excused.
const KINDS: [(u8, &str, Option<u32>); 46] = [
    (23, "nothing", ONE),
    (43, "find", ONE),
    (49, "add", ONE),
    (57, "replace", ONE),
    (59, "insert", ONE),
    (67, "remove", ONE),
    (73, "increment", ONE),
    (75, "compare and replace", ONE),
    (79, "update", ONE),
    (83, "update of a stack", ONE),
    (91, "walk", WALK),
    (94, "number of keys", ONE),
    (97, "many finds", Some(32)),
    (100, "many changes", Some(32)),
    (103, "256 adds", Some(256)),
    (107, "255 removes", Some(255)),
    (110, "stamp and wait", Some(2)),
    (112, "dump", ONE),
    (114, "names", ONE),
    (116, "many finds into a buffer", Some(8)),
    (119, "find of a stack", ONE),
    (127, "typed element", ONE),
    (128, "walk over typed elements", WALK),
    (131, "typed array's length", ONE),
    (137, "element", ONE),
    (143, "set of an element", ONE),
    (145, "increment of an element", ONE),
    (151, "read of a slice", ONE),
    (157, "write of a slice", ONE),
    (161, "resize", ONE),
    (163, "default value", ONE),
    (165, "walk over elements", WALK),
    (167, "array's length", ONE),
    (172, "typed binding", ONE),
    (174, "walk over typed bindings", WALK),
    (179, "typed update", ONE),
    (187, "words", ONE),
    (189, "walk over words", WALK),
    (191, "number of words", ONE),
    (203, "begin", ONE),
    (218, "end of a group", ONE),
    (223, "restart and moving of a group", Some(2)),
    (236, "another table", Some(2)),
    (240, "re-initialise", ONE),
    (243, "sync or backup", ONE),
    // All tables; groups that are open end.
    (246, "tables anew", Some(9)),
];
/// What follows opens the object, or asks for its size.
const REOPEN: usize = KINDS.len();
/// Opening, and getting handles to all tables.
const OPEN: usize = REOPEN + 1;
pub const MANAGE: usize = KINDS.len() - 1;
const COUNT: usize = OPEN + 1;

/// The kind of a step, by its script.
pub fn kind_of(script: &[u8]) -> usize {
    let first = script.first().copied().unwrap_or(0);
    KINDS.iter().position(|(last, ..)| first <= *last).unwrap_or(REOPEN)
}

/// What is known of times, in words that processes share.
pub struct Times {
    /// How late the control was woken, all in all, in nanoseconds; then for each kind the number of steps and the longest.
    words: Shared,
    timeout: Duration,
    allowance: Duration,
}

impl Times {
    pub fn new(timeout: Duration, allowance: Duration) -> Times {
        Times { words: Shared::new(1 + 2 * COUNT), timeout, allowance }
    }

    /// Measures how late a process is woken that wants to be, until it is told to end.
    pub fn control(&self, ended: impl Fn() -> bool) {
        let nap = Duration::from_millis(10);
        while !ended() {
            let begin = now_ns();
            std::thread::sleep(nap);
            self.words.add(0, (now_ns() - begin).saturating_sub(nap.as_nanos() as u64));
        }
    }

    /// Opens something, by whatever time.
    pub fn open<R>(&self, body: impl FnOnce() -> R) -> R {
        self.measure(OPEN, body)
    }

    /// Makes a step, which ends in time.
    pub fn measure<R>(&self, kind: usize, body: impl FnOnce() -> R) -> R {
        let (begin, late, queued) = (now_ns(), self.words.get(0), queued_ns());
        let result = body();
        let took = now_ns() - begin;
        self.words.add(1 + 2 * kind, 1);
        let longest = self.words.word(2 + 2 * kind).fetch_max(took, Ordering::SeqCst);
        let Some((_, name, Some(calls))) = KINDS.get(kind) else { return result };
        let most = *calls * self.timeout + self.allowance;
        if took > longest && took > most.as_nanos() as u64 {
            let starved = (self.words.get(0) - late).max(queued_ns() - queued);
            let ran = Duration::from_nanos(took.saturating_sub(starved));
            assert!(ran <= most, "{name}: {ran:?}, and at most {most:?}");
        }
        result
    }

    /// The slowest kinds, in milliseconds, and how late the control was.
    pub fn text(&self) -> String {
        let names = KINDS.iter().map(|(_, name, calls)| (*name, calls.is_some()));
        let names = names.chain([("reopen, size", false), ("open", false)]);
        let mut all: Vec<_> =
            (0..COUNT).map(|kind| self.words.get(2 + 2 * kind) / 1_000_000).zip(names).collect();
        all.sort_by(|one, other| other.cmp(one));
        let steps: u64 = (0..KINDS.len()).map(|kind| self.words.get(1 + 2 * kind)).sum();
        let kinds = (0..KINDS.len()).filter(|kind| self.words.get(1 + 2 * kind) > 0).count();
        let slowest = all[..10].iter().map(|(ms, (name, is_bound))| {
            format!(" {name}{} {ms}", if *is_bound { "" } else { " (excused)" })
        });
        format!(
            "{steps} steps of {kinds} kinds with a bound; slowest, in ms:{}; the control was late by {} ms in all",
            slowest.collect::<Vec<_>>().join(","),
            self.words.get(0) / 1_000_000
        )
    }
}

/// Nanoseconds in which this thread was ready to run and did not; 0 where the system does not tell.
fn queued_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0)
}
