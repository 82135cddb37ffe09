//! Goal: a process may die before any of its shared stores, in any operation, and nothing is lost, half done,
//! stuck or leaked.
//!
//! Method: for each kind of operation a template object is made once. For k = 0, 1, 2, ... a child gets a copy
//! of it and dies before its k-th shared store, until it survives. Then a second process, with a watchdog, goes
//! on: what it finds must be what the model says before or after the operation in flight (those that had
//! returned must all be there), the checker must find nothing, no slot may stay taken, and operations on the
//! same keys must work. The second process comes after the death ("cold"), or was at work on the object before
//! ("live", so that it has to find out by itself that somebody died). For recovery itself, a second process dies
//! before its k-th store while it recovers the first, and a third one is the judge. The short form strides through
//! the longest operations, each time from another store on (`NETSHM_SEED` repeats a run); `NETSHM_LONG=1` takes every k.
//! `NETSHM_CAMPAIGN` names a directory that keeps which scenarios are done, so that the same command goes on after an interruption.

mod support;

use netshm::{Locking, ManageOptions, Update, inject};
use std::time::Instant;
use support::campaign::Campaign;
use support::model::{Actor, Bytes, Model, Op, Outcome, difference, do_on_table, keys_of};
use support::process::{Exit, Pipe, Shared, fork, leave, watchdog};
use support::random::Random;
use support::scratch::{Scratch, Snapshot, assert_object_sound};

/// Seconds after which a process counts as stuck.
const STUCK_SECONDS: u32 = 10;
/// In seconds.
const NEVER: u64 = 1 << 40;
/// Processes that share the work.
const WORKERS: u64 = 2;

/// One kind of operation.
struct Scenario {
    name: &'static str,
    options: fn() -> ManageOptions,
    /// The object before; `None`: there is no file yet. Gives a number for `steps`.
    template: Option<fn(&mut Template) -> u64>,
    /// What the victim does before it may die. `true`: live, the victim has the second slot.
    warm: fn(bool) -> Vec<Op>,
    /// What the victim does while it may die.
    steps: fn(u64) -> Vec<Op>,
    /// Is there a judge that was at work before?
    live: bool,
    /// The short form of the test takes every so many-th store. No multiple of `CONTACTS`.
    stride: u64,
    /// How often at least a victim that survives has given memory back to the system. If not 0, it does so without delay.
    punches: u64,
    /// What the judge does in the end.
    aftermath: fn(&mut Actor),
}

/// The making of a template.
struct Template {
    actor: Actor,
    model: Model,
}

impl Template {
    fn apply(&mut self, op: &Op) {
        let outcome = self.actor.apply(op);
        assert_eq!(outcome, self.model.apply(op), "{op:?}");
    }

    fn add_keys(&mut self, keys: std::ops::Range<u64>) {
        for n in keys {
            self.apply(&Op::Add(key(n), value(n, 8)));
        }
    }

    /// Adds keys until one of them needs a new overflow line: its number.
    fn add_until_overflow(&mut self) -> u64 {
        self.apply(&Op::Manage);
        let lines = |t: &mut Template| assert_object_sound(&t.actor.object()).overflow_lines;
        for n in 0.. {
            let before = lines(self);
            self.add_keys(n..n + 1);
            if lines(self) > before {
                return n;
            }
        }
        unreachable!("some bucket overflows")
    }
}

fn key(n: u64) -> Bytes {
    format!("key {n}").into_bytes()
}

fn value(n: u64, len: usize) -> Bytes {
    (0..len as u64).map(|i| (n.wrapping_mul(31) + i * 7 + 1) as u8).collect()
}

fn add(n: u64, len: usize) -> Op {
    Op::Add(key(n), value(n + 1000, len))
}

fn replace(n: u64, len: usize) -> Op {
    Op::Replace(key(n), value(n + 2000, len))
}

fn remove(n: u64) -> Op {
    Op::Remove(key(n))
}

fn exclusive() -> ManageOptions {
    ManageOptions::new().locking(support::locking()).clone()
}

fn no_locking() -> ManageOptions {
    ManageOptions::new().locking(Locking::None).clone()
}

/// A table without anything.
fn empty(t: &mut Template) -> u64 {
    t.apply(&Op::Manage);
    0
}

/// Some keys with stacks and values of several sizes.
fn some(t: &mut Template) -> u64 {
    t.add_keys(0..40);
    for (i, len) in [0, 1, 8, 100, 255, 256, 257, 2000, 16_000, 20_000].into_iter().enumerate() {
        t.apply(&add(100 + i as u64, len));
    }
    for n in 0..5 {
        t.apply(&add(n, 8));
        t.apply(&add(n, 30));
    }
    0
}

fn nothing(_: bool) -> Vec<Op> {
    Vec::new()
}

/// A magazine with blocks for the small records.
fn one_add(_: bool) -> Vec<Op> {
    vec![add(900, 8)]
}

const PLAIN: Scenario = Scenario {
    name: "",
    options: exclusive,
    template: Some(some),
    warm: one_add,
    steps: |_| Vec::new(),
    live: true,
    stride: 1,
    punches: 0,
    aftermath: |_| (),
};

/// One operation of every kind.
fn singles() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "add, first of all",
            template: Some(empty),
            warm: nothing,
            steps: |_| vec![add(0, 8)],
            ..PLAIN
        },
        Scenario { name: "add, new key", steps: |_| vec![add(500, 8)], ..PLAIN },
        Scenario { name: "add, new key, empty value", steps: |_| vec![add(500, 0)], ..PLAIN },
        Scenario { name: "add, new key, long value", steps: |_| vec![add(500, 5000)], ..PLAIN },
        Scenario { name: "add, old key", steps: |_| vec![add(7, 8)], ..PLAIN },
        Scenario {
            name: "add, overflow line",
            template: Some(|t| {
                let n = t.add_until_overflow();
                t.apply(&remove(n));
                n
            }),
            steps: |n| vec![add(n, 8)],
            ..PLAIN
        },
        Scenario {
            name: "insert",
            steps: |_| vec![Op::Insert(key(500), value(3, 9)), Op::Insert(key(7), value(3, 9))],
            ..PLAIN
        },
        Scenario { name: "replace, in place", steps: |_| vec![replace(7, 8)], ..PLAIN },
        Scenario {
            name: "add and replace, lengths with ways of their own",
            steps: |_| {
                let key = b"a usual key, 16.";
                vec![Op::Add(key.to_vec(), value(1, 48)), Op::Replace(key.to_vec(), value(2, 48))]
            },
            ..PLAIN
        },
        Scenario {
            name: "replace, in place, 255 and 256 bytes",
            steps: |_| vec![replace(104, 255), replace(105, 256)],
            ..PLAIN
        },
        Scenario {
            name: "replace, moved",
            steps: |_| vec![replace(7, 9), replace(106, 257), replace(108, 16_001)],
            ..PLAIN
        },
        Scenario { name: "replace, moved, in a stack", steps: |_| vec![replace(2, 9)], ..PLAIN },
        Scenario { name: "replace, new key", steps: |_| vec![replace(500, 9)], ..PLAIN },
        Scenario { name: "remove, only binding", steps: |_| vec![remove(7)], ..PLAIN },
        Scenario {
            name: "remove, stack",
            steps: |_| vec![remove(2), remove(2), remove(2), remove(2)],
            ..PLAIN
        },
        Scenario {
            name: "remove, overflow line",
            template: Some(Template::add_until_overflow),
            steps: |n| vec![remove(n)],
            ..PLAIN
        },
        Scenario {
            name: "remove, all of chains with overflow lines",
            template: Some(|t| {
                t.add_keys(0..250);
                0
            }),
            steps: |_| (0..250).map(remove).collect(),
            stride: 13,
            ..PLAIN
        },
        Scenario {
            name: "update",
            steps: |_| {
                vec![
                    Op::Update(key(7), Some(value(1, 8))),
                    Op::Update(key(7), Some(value(1, 80))),
                    Op::Update(key(7), None),
                    Op::Touch(key(8)),
                ]
            },
            ..PLAIN
        },
        Scenario {
            name: "update, in place, 8 to 256 bytes",
            steps: |_| {
                vec![
                    Op::Update(key(7), Some(value(1, 8))),
                    Op::Update(key(2), Some(value(1, 30))),
                    Op::Update(key(105), Some(value(1, 256))),
                ]
            },
            ..PLAIN
        },
        Scenario {
            name: "update, removing the only binding",
            steps: |_| vec![Op::Update(key(7), None), Op::Update(key(9), None)],
            ..PLAIN
        },
        Scenario {
            name: "compare and replace",
            steps: |_| {
                vec![
                    Op::CompareAndReplace(key(7), value(7, 8), value(1, 10)),
                    Op::CompareAndReplace(key(7), value(7, 8), value(1, 10)),
                    Op::CompareAndReplace(key(8), value(8, 8), value(1, 8)),
                    Op::CompareAndReplace(key(104), value(104, 255), value(1, 255)),
                ]
            },
            ..PLAIN
        },
        Scenario {
            name: "increment",
            steps: |_| vec![Op::Increment(b"n".to_vec(), 5, 100), Op::Increment(b"n".to_vec(), -7, 0)],
            ..PLAIN
        },
        Scenario { name: "length", steps: |_| vec![Op::Length], ..PLAIN },
        Scenario { name: "check", steps: |_| vec![Op::Check], ..PLAIN },
        Scenario {
            name: "add, replace, remove without locking",
            options: no_locking,
            live: false,
            steps: |_| vec![add(500, 8), add(7, 300), replace(8, 8), replace(8, 9), remove(9)],
            ..PLAIN
        },
    ]
}

/// Several keys in one call. It dies between two of them as well, when the first ones are done and the rest is not.
fn many() -> Vec<Scenario> {
    fn all(keys: &[u64], len: usize) -> Vec<(Bytes, Bytes)> {
        keys.iter().map(|n| (key(*n), value(*n + 3000, len))).collect()
    }
    vec![
        Scenario {
            name: "replace many, in place and new",
            steps: |_| vec![Op::ReplaceMany(all(&[7, 500, 8, 104, 501, 9], 8))],
            ..PLAIN
        },
        Scenario {
            name: "replace many, moved, in a stack, long",
            steps: |_| {
                vec![Op::ReplaceMany(all(&[7, 2, 500], 300)), Op::ReplaceMany(all(&[8, 3, 109], 17_000))]
            },
            stride: 2,
            ..PLAIN
        },
        Scenario {
            name: "add many, over two batches",
            template: Some(empty),
            warm: nothing,
            steps: |_| vec![Op::AddMany((0..20).map(|n| (key(n), value(n, 8))).collect())],
            stride: 2,
            ..PLAIN
        },
        Scenario {
            name: "replace and add many, in a group",
            steps: |_| {
                vec![Op::Group(vec![
                    Op::ReplaceMany(all(&[7, 500, 2, 8], 8)),
                    Op::AddMany(all(&[7, 501, 2], 30)),
                ])]
            },
            ..PLAIN
        },
        Scenario {
            name: "replace many without locking",
            options: no_locking,
            live: false,
            steps: |_| vec![Op::ReplaceMany(all(&[7, 500, 8], 8))],
            ..PLAIN
        },
    ]
}

/// Changes of any binding in a stack. Keys 0 to 4 have three, newest first of 30, 8 and 8 bytes.
fn stacks() -> Vec<Scenario> {
    const KEEP: Update = Update::Keep;
    const REMOVE: Update = Update::Remove;
    fn set(len: usize) -> Update {
        Update::Replace(value(77, len))
    }
    fn stack(n: u64, updates: Vec<Update>) -> Op {
        Op::UpdateStack(key(n), updates)
    }
    /// Two bindings that lie in runs of pages, and one between.
    fn large(t: &mut Template) -> u64 {
        some(t);
        for len in [20_000, 8, 70_000] {
            t.apply(&add(200, len));
        }
        0
    }
    vec![
        Scenario {
            name: "stack, remove in the middle",
            steps: |_| vec![stack(2, vec![KEEP, REMOVE])],
            ..PLAIN
        },
        Scenario {
            name: "stack, remove the oldest and the newest",
            steps: |_| vec![stack(2, vec![REMOVE, KEEP, REMOVE]), stack(3, vec![KEEP, KEEP, REMOVE])],
            ..PLAIN
        },
        Scenario {
            name: "stack, remove all, in an overflow line too",
            template: Some(|t| {
                let n = t.add_until_overflow();
                t.apply(&add(n, 9));
                for _ in 0..2 {
                    t.apply(&add(2, 9));
                }
                n
            }),
            steps: |n| vec![stack(n, vec![REMOVE, REMOVE]), stack(2, vec![REMOVE; 3])],
            ..PLAIN
        },
        Scenario {
            name: "stack, change in place",
            steps: |_| vec![stack(2, vec![set(30), KEEP, set(8)]), stack(1, vec![KEEP, set(8)])],
            ..PLAIN
        },
        Scenario {
            name: "stack, change, move and remove",
            steps: |_| {
                vec![stack(2, vec![set(30), set(300), REMOVE]), stack(3, vec![set(9), REMOVE, set(9)])]
            },
            ..PLAIN
        },
        Scenario {
            name: "stack of large blocks",
            template: Some(large),
            steps: |_| {
                vec![stack(200, vec![set(70_000), KEEP, REMOVE]), stack(200, vec![REMOVE, set(17_000)])]
            },
            stride: 2,
            ..PLAIN
        },
        Scenario {
            name: "stack, in a group",
            steps: |_| {
                vec![Op::Group(vec![
                    add(2, 12),
                    stack(2, vec![KEEP, REMOVE, set(8), set(9)]),
                    Op::Abort(vec![stack(2, vec![REMOVE; 2]), add(2, 5)]),
                    stack(2, vec![set(12), REMOVE]),
                    remove(2),
                ])]
            },
            ..PLAIN
        },
    ]
}

/// Memory: magazines, pages, large blocks.
fn memory() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "refill of magazines",
            template: Some(empty),
            warm: nothing,
            steps: |_| (0..18).map(|n| add(n, 8)).chain((20..24).map(|n| add(n, 3000))).collect(),
            stride: 2,
            ..PLAIN
        },
        Scenario {
            name: "freeing beyond the magazine",
            warm: |_| (200..240).map(|n| add(n, 8)).collect(),
            steps: |_| (200..240).map(remove).collect(),
            stride: 4,
            ..PLAIN
        },
        Scenario {
            // Ten blocks to a slab. What is removed first goes back to six slabs that had been used up; the newest of
            // these is used up again.
            name: "slabs used up, listed again, and used up",
            warm: |_| (200..260).map(|n| add(n, 6000)).collect(),
            steps: |_| {
                let spread = (0..24).map(|i| remove(200 + 10 * (i % 6) + i / 6));
                spread.chain((300..330).map(|n| add(n, 6000))).collect()
            },
            stride: 7,
            ..PLAIN
        },
        Scenario {
            name: "close, flush of magazines",
            warm: |_| {
                let sizes = [0, 8, 50, 100, 300, 1000, 5000, 16_000, 20_000, 70_000];
                let add = sizes.iter().enumerate().map(|(i, len)| add(600 + i as u64, *len));
                add.chain((600..610).step_by(2).map(remove)).collect()
            },
            steps: |_| vec![Op::Close],
            stride: 2,
            ..PLAIN
        },
        Scenario {
            name: "close and open",
            steps: |_| vec![add(500, 8), Op::Close, Op::Open, Op::Manage, add(501, 8), Op::Close],
            ..PLAIN
        },
        Scenario { name: "large block, add", steps: |_| vec![add(500, 17_000), add(7, 70_000)], ..PLAIN },
        Scenario {
            name: "large block, replace",
            steps: |_| {
                vec![replace(109, 20_000), replace(109, 70_000), replace(109, 17_000), replace(109, 3)]
            },
            ..PLAIN
        },
        Scenario {
            name: "large block, remove",
            warm: |_| vec![add(500, 17_000), add(500, 70_000)],
            steps: |_| vec![remove(109), remove(500), remove(500)],
            ..PLAIN
        },
        Scenario {
            name: "growth of the file",
            template: Some(empty),
            warm: nothing,
            steps: |_| (0..4).map(|n| add(n, 120_000)).collect(),
            ..PLAIN
        },
        Scenario {
            name: "growth into the next segment",
            template: Some(|t| {
                t.add_keys(0..4);
                0
            }),
            warm: nothing,
            steps: |_| vec![add(500, 3_000_000), add(501, 2_000_000), remove(500)],
            live: false,
            stride: 2,
            ..PLAIN
        },
        giving_back(),
    ]
    .into_iter()
    .chain(taking_again())
    .collect()
}

/// Giving memory back to the system: two runs of 256 pages of those that long values have left.
fn giving_back() -> Scenario {
    Scenario {
        name: "memory given back",
        template: Some(much_free),
        warm: |_| at_rest(12),
        steps: |_| at_rest(24),
        punches: 2,
        aftermath: what_has_no_memory_becomes_buckets,
        stride: 12,
        ..PLAIN
    }
}

/// And taking what was given back.
fn taking_again() -> Vec<Scenario> {
    /// The same when all is given back already.
    fn given_back(t: &mut Template) -> u64 {
        inject::set_quarantine_seconds(0);
        much_free(t);
        while inject::punches() < 2 {
            t.apply(&at_rest(1)[0]);
        }
        0
    }
    vec![
        Scenario {
            name: "memory taken that was given back",
            template: Some(given_back),
            steps: |_| vec![add(500, 1_100_000), remove(500)],
            aftermath: what_has_no_memory_becomes_buckets,
            stride: 6,
            ..PLAIN
        },
        Scenario {
            name: "memory given back, and taken in between",
            template: Some(much_free),
            warm: |_| at_rest(12),
            steps: |_| {
                let long = vec![add(500, 1_100_000), remove(500)];
                at_rest(20).into_iter().chain(long).chain(at_rest(40)).collect()
            },
            punches: 2,
            aftermath: what_has_no_memory_becomes_buckets,
            stride: 73,
            ..PLAIN
        },
    ]
}

/// More than two megabytes are free in one run, and hold what was there.
fn much_free(t: &mut Template) -> u64 {
    some(t);
    t.apply(&add(300, 2_400_000));
    t.apply(&remove(300));
    0
}

/// Operations by the general way that change nothing: at some of them memory is given back.
fn at_rest(count: usize) -> Vec<Op> {
    vec![Op::UpdateStack(key(2), vec![Update::Keep]); count]
}

/// Whoever takes memory that has none yet, so to speak, relies on zeros: here for the buckets of new tables.
fn what_has_no_memory_becomes_buckets(actor: &mut Actor) {
    take_slots_of_the_dead(actor);
    let mut pages = assert_object_sound(&actor.object()).unbacked_pages;
    for name in ["first", "second"] {
        if pages < 32 {
            break;
        }
        let buckets = 1 << (pages * 64).ilog2();
        let options = actor.options.clone().root(name).expected(buckets / 4 * 15).clone();
        let table = netshm::HashTable::manage(&actor.object(), &options).expect("makes a table");
        for n in 0..10 {
            table.add(&key(n), &value(n, 8)).expect("adds");
        }
        assert_eq!(table.len().expect("counts"), 10);
        let left = assert_object_sound(&actor.object()).unbacked_pages;
        assert!(left < pages, "{pages} pages had no memory, and {left} have none when some became buckets");
        pages = left;
    }
}

/// So many threads take part at once that the slots of the dead are taken, and what they had in their hands goes back.
fn take_slots_of_the_dead(actor: &mut Actor) {
    let (table, both) = (actor.table(), std::sync::Barrier::new(2));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                assert_eq!(do_on_table(&table, &Op::Touch(b"nobody's".to_vec())), Outcome::Done);
                both.wait();
            });
        }
    });
}

/// Growth of the table.
fn growth() -> Vec<Scenario> {
    // A slot looks at the load each time its counter passes a multiple of 64, and takes its tickets then.
    fn live_needs_more(live: bool) -> Vec<Op> {
        (3000..if live { 3063 } else { 3000 }).map(|n| add(n, 8)).collect()
    }
    /// Ten bindings to a bucket: who takes tickets leaves with most of them.
    fn left_behind(t: &mut Template) -> u64 {
        for n in (0..576).step_by(64) {
            t.add_keys(n..n + 64);
            for op in [Op::Close, Op::Open, Op::Manage] {
                t.apply(&op);
            }
        }
        t.add_keys(576..639);
        0
    }
    vec![
        Scenario {
            name: "split, new array of buckets",
            template: Some(|t| {
                t.add_keys(0..255);
                0
            }),
            warm: live_needs_more,
            steps: |_| (500..507).map(|n| add(n, 8)).collect(),
            ..PLAIN
        },
        Scenario {
            name: "split, long chains",
            template: Some(left_behind),
            warm: live_needs_more,
            steps: |_| (4000..4009).map(|n| add(n, 8)).collect(),
            stride: 3,
            ..PLAIN
        },
        Scenario {
            // A line that a split has no use for goes to the magazine of its class, and finds it full of blocks that
            // records of the same size have left: room is made for it by a transaction of its own.
            name: "split, line freed to a full magazine",
            template: Some(left_behind),
            warm: |live| {
                let longer_and_back = (0..16).map(|n| replace(n, 40)).chain((0..16).map(|n| replace(n, 8)));
                live_needs_more(live).into_iter().chain(longer_and_back).collect()
            },
            steps: |_| (4000..4009).map(|n| add(n, 8)).collect(),
            stride: 7,
            ..PLAIN
        },
        Scenario {
            name: "split, new window",
            options: || exclusive().expected(30_000).clone(),
            template: Some(|t| {
                // Buckets of level 13 split into such of level 14, where entries get a new window. The permission
                // passes bucket 8192 with 30,720 bindings.
                t.add_keys(0..30_783);
                0
            }),
            warm: nothing,
            steps: |_| (40_000..40_006).map(|n| add(n, 8)).collect(),
            live: false,
            stride: 3,
            ..PLAIN
        },
        Scenario {
            name: "growth of ready",
            options: || exclusive().expected(15_000).clone(),
            template: Some(|t| {
                // The permission passes bucket 6144 with 23,040 bindings.
                t.add_keys(0..23_103);
                0
            }),
            warm: nothing,
            steps: |_| (30_000..30_003).map(|n| add(n, 8)).collect(),
            live: false,
            stride: 3,
            ..PLAIN
        },
        Scenario {
            name: "more slots",
            warm: |live| vec![add(900, 8), Op::Close, Op::Threads(if live { 6 } else { 7 })],
            steps: |_| vec![add(500, 8), remove(7)],
            ..PLAIN
        },
        Scenario {
            name: "more counters",
            warm: |live| vec![Op::Threads(if live { 63 } else { 64 })],
            steps: |_| vec![add(500, 8), remove(7)],
            ..PLAIN
        },
    ]
}

fn several() -> Vec<Op> {
    vec![
        add(500, 8),
        replace(7, 8),
        replace(8, 500),
        remove(2),
        add(3, 40),
        Op::Increment(b"n".to_vec(), 1, 0),
        remove(9),
    ]
}

fn big() -> Vec<Op> {
    (1000..1130).map(|n| add(n, 8)).chain((0..25).map(remove)).chain((0..4).map(|n| add(n, 17_000))).collect()
}

/// Groups.
fn groups() -> Vec<Scenario> {
    vec![
        Scenario { name: "group, one key", steps: |_| vec![Op::Group(vec![replace(7, 8)])], ..PLAIN },
        Scenario {
            name: "group, read only",
            steps: |_| vec![Op::Group(vec![Op::Touch(key(7)), Op::Length])],
            ..PLAIN
        },
        Scenario { name: "group, several keys", steps: |_| vec![Op::Group(several())], ..PLAIN },
        Scenario {
            name: "group, without locking",
            options: no_locking,
            live: false,
            steps: |_| vec![Op::Group(several())],
            ..PLAIN
        },
        Scenario {
            name: "group, big: log, lock list and reserve grow",
            steps: |_| vec![Op::Group(big())],
            stride: 2,
            ..PLAIN
        },
        Scenario { name: "abort", steps: |_| vec![Op::Abort(several())], ..PLAIN },
        Scenario { name: "abort, big", steps: |_| vec![Op::Abort(big())], stride: 2, ..PLAIN },
        Scenario {
            name: "nested groups, inner abort and commit",
            steps: |_| {
                vec![Op::Group(vec![
                    add(500, 8),
                    Op::Abort(several()),
                    Op::Group(vec![add(502, 8), replace(8, 8)]),
                    Op::Abort(vec![add(502, 9)]),
                    remove(7),
                ])]
            },
            ..PLAIN
        },
        Scenario {
            name: "group of large blocks",
            steps: |_| {
                vec![
                    Op::Group(vec![add(500, 70_000), add(501, 17_000), remove(109), add(7, 20_000)]),
                    Op::Group(vec![remove(500), remove(501), replace(7, 1)]),
                ]
            },
            ..PLAIN
        },
    ]
}

/// The object as a whole.
fn whole() -> Vec<Scenario> {
    fn emptied(t: &mut Template) -> u64 {
        t.add_keys(0..10);
        t.apply(&Op::Truncate);
        0
    }
    fn filled(t: &mut Template) -> u64 {
        let n = t.add_until_overflow();
        t.add_keys(n + 1..(n + 1).max(60));
        t.apply(&add(3, 8));
        t.apply(&add(3, 20_000));
        0
    }
    vec![
        Scenario {
            name: "creation",
            template: None,
            warm: nothing,
            steps: |_| vec![Op::Open, Op::Manage, add(0, 8)],
            live: false,
            ..PLAIN
        },
        Scenario {
            name: "initialisation of an empty object",
            template: Some(emptied),
            warm: |_| vec![Op::Open],
            steps: |_| vec![Op::Manage, add(0, 8)],
            live: false,
            ..PLAIN
        },
        Scenario {
            name: "initialisation, size expected",
            options: || exclusive().expected(1000).clone(),
            template: Some(|t| {
                t.actor.options.expected(0);
                emptied(t)
            }),
            warm: |_| vec![Op::Open],
            steps: |_| vec![Op::Manage, add(0, 8)],
            live: false,
            ..PLAIN
        },
        Scenario {
            name: "re-initialisation and sweeping",
            template: Some(filled),
            steps: |_| vec![Op::Reinitialise, add(500, 8), Op::Reinitialise, add(501, 8)],
            stride: 4,
            ..PLAIN
        },
        Scenario {
            name: "truncation and sweeping",
            template: Some(filled),
            steps: |_| vec![Op::Truncate, Op::Manage, add(501, 8)],
            live: false,
            stride: 2,
            ..PLAIN
        },
    ]
}

/// Several tables in one object.
fn named_tables() -> Vec<Scenario> {
    fn two(t: &mut Template) -> u64 {
        t.add_keys(0..20);
        for name in ["a", "b"] {
            t.apply(&Op::GroupOfTwo(name, vec![], (0..20).map(|n| add(n, 8)).collect()));
            t.apply(&Op::GroupOfTwo(name, vec![], vec![add(3, 9), add(50, 20_000)]));
        }
        0
    }
    fn page_of_names(t: &mut Template) -> u64 {
        const NAMES: [&str; 15] =
            ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
        t.add_keys(0..5);
        for name in NAMES {
            t.apply(&Op::MakeNamed(name));
        }
        0
    }
    vec![
        Scenario {
            name: "named table, the first one, made",
            steps: |_| vec![Op::MakeNamed("a"), Op::GroupOfTwo("a", vec![], vec![add(1, 8)])],
            ..PLAIN
        },
        Scenario {
            name: "named table, made on a new page of the catalog",
            template: Some(page_of_names),
            steps: |_| vec![Op::MakeNamed("a")],
            ..PLAIN
        },
        Scenario {
            name: "named table, dropped and made again",
            template: Some(two),
            steps: |_| vec![Op::DropNamed("a"), Op::MakeNamed("a"), Op::DropNamed("a"), Op::DropNamed("a")],
            stride: 2,
            ..PLAIN
        },
        Scenario {
            name: "named table, group over two tables",
            template: Some(two),
            steps: |_| {
                let named = vec![add(500, 8), replace(7, 8), replace(8, 500), remove(2), add(3, 40)];
                vec![Op::GroupOfTwo("a", several(), named)]
            },
            ..PLAIN
        },
        Scenario {
            name: "named tables, all re-initialised",
            template: Some(two),
            steps: |_| vec![Op::Reinitialise, Op::MakeNamed("a")],
            stride: 4,
            ..PLAIN
        },
    ]
}

/// Calls of several changes each, whose chores sweep a table in between.
fn chores() -> Vec<Scenario> {
    /// Somebody has died when he had dropped a table and had not swept it.
    fn unswept(t: &mut Template) -> u64 {
        t.add_keys(0..255);
        t.apply(&Op::GroupOfTwo("a", vec![], (0..20).map(|n| add(n, 8)).collect()));
        t.apply(&Op::Close);
        let exit = fork(|| {
            t.actor.table();
            inject::arm(50);
            t.actor.apply(&Op::DropNamed("a"));
            leave(0)
        })
        .wait();
        assert_eq!(exit, Exit::KILLED, "the sweep takes more stores");
        t.model.apply(&Op::DropNamed("a"));
        0
    }
    vec![Scenario {
        name: "add many, splitting and sweeping",
        template: Some(unswept),
        warm: nothing,
        steps: |_| vec![Op::AddMany((500..520).map(|n| (key(n), value(n, 8))).collect())],
        live: false,
        ..PLAIN
    }]
}

/// What a victim tells.
const RETURNED: usize = 0;
const STORES: usize = 1;
const SURVIVED: usize = 2;
const SPECIAL: usize = 3;
const WORDS: usize = 8;

/// A scenario with its template made.
struct Prepared {
    scenario: &'static Scenario,
    snapshot: Option<Snapshot>,
    options: ManageOptions,
    steps: Vec<Op>,
    /// The template's contents.
    before: Model,
}

impl Prepared {
    fn new(scenario: Scenario) -> Prepared {
        let scenario: &'static Scenario = Box::leak(Box::new(scenario));
        // On a slow machine ten seconds pass somewhere.
        inject::set_quarantine_seconds(NEVER);
        let options = (scenario.options)();
        let Some(template) = scenario.template else {
            let steps = (scenario.steps)(0);
            return Prepared { scenario, snapshot: None, options, steps, before: Model::default() };
        };
        let scratch = Scratch::file("template");
        let shared = Shared::new(WORDS);
        let file = std::env::temp_dir().join(format!("netshm-test-model-{}", std::process::id()));
        let exit = fork(|| {
            watchdog(60);
            let actor = Actor::new(scratch.name(), &options);
            let mut t = Template { actor, model: Model::default() };
            shared.set(SPECIAL, template(&mut t));
            t.actor.close();
            std::fs::write(&file, encode(&t.model)).expect("hands over the model");
        })
        .wait();
        assert_eq!(exit, Exit::Code(0), "{}: making the template", scenario.name);
        let before = decode(&std::fs::read(&file).expect("reads the model"));
        let _ = std::fs::remove_file(&file);
        let steps = (scenario.steps)(shared.get(SPECIAL));
        Prepared { scenario, snapshot: Some(Snapshot::take(&scratch)), options, steps, before }
    }

    fn copy(&self) -> Scratch {
        match &self.snapshot {
            Some(snapshot) => snapshot.restore("death"),
            None => Scratch::file("death"),
        }
    }

    /// The contents after each number of steps.
    fn models(&self, live: bool) -> Vec<(Model, Outcome)> {
        let mut model = self.before.clone();
        for op in (self.scenario.warm)(live) {
            model.apply(&op);
        }
        let mut all = vec![(model.clone(), Outcome::Done)];
        for op in &self.steps {
            let outcome = model.apply(op);
            all.push((model.clone(), outcome));
        }
        all
    }
}

fn encode(model: &Model) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, stack) in &model.0 {
        for value in stack {
            for part in [key, value] {
                bytes.extend((part.len() as u64).to_le_bytes());
                bytes.extend(part);
            }
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Model {
    let mut model = Model::default();
    let mut part = || {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let (part, rest) = rest.split_at(u64::from_le_bytes(*len) as usize);
        bytes = rest;
        Some(part.to_vec())
    };
    while let (Some(key), Some(value)) = (part(), part()) {
        model.apply(&Op::Add(key, value));
    }
    model
}

/// The victim's life. It ends without closing anything.
fn victim(p: &Prepared, scratch: &Scratch, shared: &Shared, live: bool, k: u64) -> ! {
    watchdog(STUCK_SECONDS);
    let models = p.models(live);
    let mut actor = Actor::new(scratch.name(), &p.options);
    if p.scenario.template.is_some() && !p.steps.contains(&Op::Open) && !p.steps.contains(&Op::Manage) {
        actor.table();
    }
    for op in (p.scenario.warm)(live) {
        assert!(!matches!(actor.apply(&op), Outcome::Failed(_)), "{op:?}");
    }
    if p.scenario.punches > 0 {
        inject::set_quarantine_seconds(0);
    }
    inject::arm(k);
    for (i, op) in p.steps.iter().enumerate() {
        let outcome = actor.apply(op);
        shared.set(RETURNED, i as u64 + 1);
        assert_eq!(outcome, models[i + 1].1, "{op:?}");
    }
    shared.set(STORES, inject::disarm());
    assert!(inject::punches() >= p.scenario.punches, "memory is given back");
    shared.set(SURVIVED, 1);
    leave(0)
}

/// The life of a victim that does not die: before its k-th store another thread of it, so to say, finds a page missing, and the
/// guard puts private pages in the place of that one and of the one that holds the gate. It goes on to its end; every
/// second one closes what it has open.
fn guarded_victim(p: &Prepared, scratch: &Scratch, shared: &Shared, live: bool, k: u64) -> ! {
    watchdog(STUCK_SECONDS);
    netshm::guard_sigbus().expect("a handler");
    let models = p.models(live);
    let mut actor = Actor::new(scratch.name(), &p.options);
    actor.table();
    for op in (p.scenario.warm)(live) {
        assert!(!matches!(actor.apply(&op), Outcome::Failed(_)), "{op:?}");
    }
    inject::lose_a_page_at(k, behind_the_end(scratch));
    for (i, op) in p.steps.iter().enumerate() {
        let outcome = actor.apply(op);
        if inject::stores() > k {
            // That one may say anything; the others, nothing but that the object is cut.
            for op in &p.steps[i + 1..] {
                let outcome = actor.apply(op);
                assert!(
                    matches!(outcome, Outcome::Failed(netshm::Error::Corrupt { .. })),
                    "{op:?}: {outcome:?}"
                );
            }
            if k % 2 == 0 {
                actor.close();
            }
            leave(0)
        }
        assert_eq!(outcome, models[i + 1].1, "{op:?}");
        shared.set(RETURNED, i as u64 + 1);
    }
    shared.set(STORES, inject::disarm());
    shared.set(SURVIVED, 1);
    leave(0)
}

/// An address of this process's mapping of the object where the file has no page.
fn behind_the_end(scratch: &Scratch) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("reads");
    let path = scratch.path();
    // A registration maps a page of it as well, which cannot be touched.
    let is_object = |line: &&str| line.contains(" rw-s ") && line.ends_with(path.to_str().expect("a name"));
    let line = maps.lines().rfind(is_object);
    let end = line.and_then(|line| line.split([' ', '-']).nth(1)).expect("it is mapped");
    usize::from_str_radix(end, 16).expect("an address") - 1
}

/// How a judge makes its first contact with what the dead one has left.
const CONTACTS: u64 = 5;
/// The contact with an object whose table the dead one may have removed.
const TRUNCATED: u64 = u64::MAX;

/// Tells whether the step in flight was seen to have happened.
fn first_contact(
    actor: &mut Actor,
    keys: &[Bytes],
    contact: u64,
    (before, after): (&Model, &Model),
    is_one_change: bool,
) -> bool {
    let mut seen = false;
    actor.table();
    if contact == TRUNCATED {
        // The table may be gone with the first look: a new one is needed.
        assert!(actor.object().check(|_| true).is_ok());
        actor.table = None;
        return false;
    }
    match contact {
        0 => {
            for key in keys {
                let t = actor.table();
                let mut all = t.find_all(key).expect("finds");
                assert_eq!(t.find(key).expect("finds").as_ref(), all.first());
                all.reverse();
                let (old, new) = (before.0.get(key), after.0.get(key));
                let is = (!all.is_empty()).then_some(&all);
                assert!(is == old || is == new, "one key is neither as before nor as after");
                // All marks precede all changes: who has seen one sees the others.
                assert!(old == new || is == new || !seen || !is_one_change, "half of a transaction was seen");
                seen |= old != new && is == new;
            }
        }
        1 => {
            for key in keys {
                assert_eq!(actor.apply(&Op::Touch(key.clone())), Outcome::Done);
            }
        }
        2 => {
            let t = actor.table();
            t.table()
                .group(|| {
                    for key in keys {
                        assert_eq!(t.contains(key)?, t.find(key)?.is_some());
                    }
                    Ok::<(), netshm::Error>(())
                })
                .expect("reads in a group");
        }
        3 => drop(assert_object_sound(&actor.object())),
        _ => assert!(matches!(actor.apply(&Op::Length), Outcome::Count(_))),
    }
    seen
}

/// What may be left of a step besides all or nothing: that of the first keys, if it is for several keys.
fn parts(step: Option<&Op>, before: &Model) -> Vec<Model> {
    let (Some(Op::ReplaceMany(bindings)) | Some(Op::AddMany(bindings))) = step else { return Vec::new() };
    let mut model = before.clone();
    let mut parts = Vec::new();
    for (key, value) in bindings.iter().cloned() {
        model.apply(&match step {
            Some(Op::AddMany(_)) => Op::Add(key, value),
            _ => Op::Replace(key, value),
        });
        parts.push(model.clone());
    }
    parts
}

/// Judges what the dead have left; `returned` steps had returned.
fn judge(p: &Prepared, models: &[(Model, Outcome)], actor: &mut Actor, returned: usize, contact: u64) {
    let mut keys = keys_of(&p.steps);
    keys.push(b"never there".to_vec());
    let (before, after) = (&models[returned].0, models.get(returned + 1).map(|m| &m.0));
    let parts = parts(p.steps.get(returned), before);
    let happened = |is: &Model| {
        if is == before {
            return false;
        }
        if parts.contains(is) {
            return true;
        }
        let should = difference(is, before);
        let or = after.map(|a| difference(is, a));
        assert!(Some(is) == after, "after {returned} steps: against before: {should}\nagainst after: {or:?}");
        true
    };
    let contact = if p.steps.contains(&Op::Truncate) { TRUNCATED } else { contact };
    let seen = first_contact(actor, &keys, contact, (before, after.unwrap_or(before)), parts.is_empty());
    let mut model = actor.dump_in_group();
    // A find stores nothing and so does not recover: what was committed and not begun to be applied may show
    // only now. What has shown stays.
    assert!(happened(&model) || !seen, "what had happened is gone");
    let summary = assert_object_sound(&actor.object());
    assert_eq!(summary.slots_active, 1, "only the judge's own slot is taken");
    assert_eq!(actor.table().len().expect("counts"), model.len());
    go_on(actor, &mut model, &keys, &p.steps[returned..]);
    let is = actor.dump();
    assert!(is == model, "going on: {}", difference(&is, &model));
    assert_object_sound(&actor.object());
    (p.scenario.aftermath)(actor);
    actor.close();
    let read_only = netshm::OpenOptions::new().read_only(true).open(&actor.name).expect("opens");
    assert_eq!(assert_object_sound(&read_only).slots_active, 0);
}

/// Works on the same keys.
fn go_on(actor: &mut Actor, model: &mut Model, keys: &[Bytes], rest: &[Op]) {
    for key in keys {
        let t = actor.table();
        for op in [
            Op::Add(key.clone(), value(1, 24)),
            Op::Replace(key.clone(), value(2, 24)),
            Op::Replace(key.clone(), value(3, 48)),
        ] {
            assert_eq!(do_on_table(&t, &op), model.apply(&op), "{op:?}");
            assert_eq!(t.find(key).expect("finds").as_ref(), model.newest(key));
        }
        let op = Op::Remove(key.clone());
        assert_eq!(do_on_table(&t, &op), model.apply(&op), "{op:?}");
        assert_eq!(t.find(key).expect("finds").as_ref(), model.newest(key));
    }
    for op in rest.iter().filter(|op| !matches!(op, Op::Open | Op::Close | Op::Truncate | Op::Threads(_))) {
        assert_eq!(actor.apply(op), model.apply(op), "{op:?}");
    }
}

/// The life of a victim.
type Life = fn(&Prepared, &Scratch, &Shared, bool, u64) -> !;

/// One death. Gives the number of stores if the victim survived.
fn one_death(p: &Prepared, live: bool, k: u64) -> Option<u64> {
    one_life(p, (victim, Exit::KILLED), live, k)
}

/// The life of one victim, which is expected to end so if anything happens to it, and what it leaves. Gives the number of
/// stores if nothing happened.
fn one_life(p: &Prepared, (life, end): (Life, Exit), live: bool, k: u64) -> Option<u64> {
    let scratch = p.copy();
    let shared = Shared::new(WORDS);
    let (ready, died) = (Pipe::new(), Pipe::new());
    let judge_process = || {
        let models = p.models(live);
        let mut actor = Actor::new(scratch.name(), &p.options);
        if live {
            actor.apply(&Op::Touch(b"nobody's".to_vec()));
            let _ = actor.table().len();
            ready.send(1);
            died.receive();
        }
        watchdog(STUCK_SECONDS);
        judge(p, &models, &mut actor, shared.get(RETURNED) as usize, k % CONTACTS);
    };
    let early = live.then(|| fork(judge_process));
    if live {
        assert!(ready.receive_within(std::time::Duration::from_secs(30)).is_some(), "the judge is at work");
    }
    let exit = fork(|| life(p, &scratch, &shared, live, k)).wait();
    let survived = shared.get(SURVIVED) == 1;
    let expected = if survived { Exit::Code(0) } else { end };
    assert_eq!(exit, expected, "{}, live {live}, k = {k}: the victim itself", p.scenario.name);
    let verdict = match early {
        Some(mut child) => {
            died.send(1);
            child.wait()
        }
        None => fork(judge_process).wait(),
    };
    assert_eq!(verdict, Exit::Code(0), "{}, live {live}, k = {k}: the judge", p.scenario.name);
    survived.then(|| shared.get(STORES))
}

/// Shares out every `stride`-th number among processes, until `one` says that the end is reached.
fn for_every_k((phase, stride): (u64, u64), one: impl Fn(u64) -> Option<u64>) -> u64 {
    let shared = Shared::new(1);
    let workers: Vec<_> = (0..WORKERS)
        .map(|w| {
            fork(|| {
                let first = from() / stride + w;
                for k in (first..).step_by(WORKERS as usize) {
                    if let Some(stores) = one(phase + k * stride) {
                        shared.set(0, stores);
                        return;
                    }
                }
            })
        })
        .collect();
    let ends: Vec<Exit> = workers.into_iter().map(|mut w| w.wait()).collect();
    assert!(ends.iter().all(|e| *e == Exit::Code(0)), "see above");
    shared.get(0)
}

/// Which stores the short form takes: the first, and then every so many-th.
fn strided(stride: u64, random: &mut Random) -> (u64, u64) {
    if support::long() { (0, 1) } else { (random.below(stride), stride) }
}

/// How many of these numbers are below the number of stores: each was a death.
fn deaths((phase, stride): (u64, u64), stores: u64) -> u64 {
    stores.saturating_sub(phase + from() / stride * stride).div_ceil(stride)
}

/// The first store before which somebody dies.
fn from() -> u64 {
    support::setting("NETSHM_DEATH_FROM").unwrap_or(0)
}

/// What a campaign calls a scenario.
fn part_of(scenario: &Scenario, what: &str, (phase, stride): (u64, u64)) -> String {
    let from = phase + from() / stride * stride;
    format!("{}, {}{what}, every {stride}. store from {from}", support::kind(), scenario.name)
}

/// Is a scenario left out, by `NETSHM_DEATH_ONLY`?
fn is_left_out(scenario: &Scenario) -> bool {
    std::env::var("NETSHM_DEATH_ONLY").is_ok_and(|only| !scenario.name.contains(&only))
}

fn run(test: &str, scenarios: Vec<Scenario>) {
    let holds =
        "whatever store a process died before, the object was as before or as after, whole, and went on";
    run_lives(test, scenarios, one_death, holds);
}

fn run_lives(
    test: &str,
    scenarios: Vec<Scenario>,
    one: fn(&Prepared, bool, u64) -> Option<u64>,
    holds: &'static str,
) {
    let mut campaign = Campaign::open(&format!("death.{test}"), holds);
    let mut random = Random::new(campaign.seed(|| Random::seed(test)));
    for scenario in scenarios {
        if is_left_out(&scenario) {
            continue;
        }
        let (phase, stride) = strided(scenario.stride, &mut random);
        if !campaign.begin(&part_of(&scenario, "", (phase, stride))) {
            continue;
        }
        let p = Prepared::new(scenario);
        let start = Instant::now();
        let cold = for_every_k((phase, stride), |k| one(&p, false, k));
        let live = p.scenario.live.then(|| for_every_k((phase, stride), |k| one(&p, true, k)));
        let live_text = live.map_or(String::new(), |n| format!(", live {n}"));
        let every = if stride > 1 { format!(", every {stride}th from {phase}") } else { String::new() };
        let seconds = start.elapsed().as_secs_f32();
        println!("  {}: {cold} stores{live_text}{every} ({seconds:.1} s)", p.scenario.name);
        let deaths = |stores| deaths((phase, stride), stores);
        campaign.finish(&[("deaths", deaths(cold)), ("deaths beside others", live.map_or(0, deaths))]);
    }
    campaign.end();
}

/// The recoverer's life: comes upon a dead one's remains and dies itself.
fn recoverer(p: &Prepared, scratch: &Scratch, shared: &Shared, k: u64) -> ! {
    watchdog(STUCK_SECONDS);
    let mut actor = Actor::new(scratch.name(), &p.options);
    inject::arm(k);
    for key in keys_of(&p.steps) {
        assert_eq!(actor.apply(&Op::Touch(key)), Outcome::Done);
    }
    assert_object_sound(&actor.object());
    if p.scenario.punches > 0 {
        actor.apply(&Op::Threads(2));
    }
    shared.set(STORES, inject::disarm());
    shared.set(SURVIVED, 1);
    leave(0)
}

/// The same, by one who was at work before and comes upon the dead one's locks.
fn live_recoverer(p: &Prepared, scratch: &Scratch, shared: &Shared, ready: &Pipe, died: &Pipe, k: u64) -> ! {
    let mut actor = Actor::new(scratch.name(), &p.options);
    actor.apply(&Op::Touch(b"nobody's".to_vec()));
    let t = actor.table();
    ready.send(1);
    died.receive();
    watchdog(STUCK_SECONDS);
    inject::arm(k);
    for key in keys_of(&p.steps) {
        t.find(&key).expect("finds");
        assert_eq!(do_on_table(&t, &Op::Touch(key)), Outcome::Done);
    }
    t.len().expect("counts");
    if p.scenario.punches > 0 {
        actor.apply(&Op::Threads(2));
    }
    shared.set(STORES, inject::disarm());
    shared.set(SURVIVED, 1);
    leave(0)
}

/// Deaths of the recoverer of a victim that died at `k1`, for each `k2`. `None`: the victim survived.
fn deaths_in_recovery(p: &Prepared, live: bool, k1: u64) -> Option<u64> {
    let survived = Shared::new(1);
    for_every_k_alone(|k2| {
        let scratch = p.copy();
        let (first, second) = (Shared::new(WORDS), Shared::new(WORDS));
        let (ready, died) = (Pipe::new(), Pipe::new());
        let early = live.then(|| fork(|| live_recoverer(p, &scratch, &second, &ready, &died, k2)));
        if live {
            assert!(
                ready.receive_within(std::time::Duration::from_secs(30)).is_some(),
                "the recoverer is at work"
            );
        }
        let exit = fork(|| victim(p, &scratch, &first, live, k1)).wait();
        if first.get(SURVIVED) == 1 {
            survived.set(0, 1);
        }
        assert!(matches!(exit, Exit::KILLED | Exit::Code(0)), "the victim: {exit:?}");
        let exit = match early {
            Some(mut child) => {
                died.send(1);
                child.wait()
            }
            None => fork(|| recoverer(p, &scratch, &second, k2)).wait(),
        };
        let end = second.get(SURVIVED) == 1;
        let expected = if end { Exit::Code(0) } else { Exit::KILLED };
        let at = format!("{}, live {live}, k = {k1}, then {k2}", p.scenario.name);
        assert_eq!(exit, expected, "{at}: the recoverer itself");
        let verdict = fork(|| {
            watchdog(STUCK_SECONDS);
            let mut actor = Actor::new(scratch.name(), &p.options);
            judge(p, &p.models(live), &mut actor, first.get(RETURNED) as usize, k2 % CONTACTS);
        })
        .wait();
        assert_eq!(verdict, Exit::Code(0), "{at}: the judge");
        end.then(|| second.get(STORES))
    });
    (survived.get(0) == 1).then_some(k1)
}

fn for_every_k_alone(one: impl Fn(u64) -> Option<u64>) -> u64 {
    (0..).find_map(one).unwrap_or(0)
}

fn run_recovery(scenario: Scenario, live: bool, stride: u64, random: &mut Random, campaign: &mut Campaign) {
    if is_left_out(&scenario) {
        return;
    }
    let (phase, stride) = strided(stride, random);
    let who = if live { ", recovered by one at work" } else { ", recovered by one who comes" };
    if !campaign.begin(&part_of(&scenario, who, (phase, stride))) {
        return;
    }
    let p = Prepared::new(scenario);
    let start = Instant::now();
    let last = for_every_k((phase, stride), |k| deaths_in_recovery(&p, live, k));
    let seconds = start.elapsed().as_secs_f32();
    println!(
        "  recovery of {}, live {live}: deaths at every {stride}. of {last} stores, from {phase} ({seconds:.1} s)",
        p.scenario.name
    );
    campaign.finish(&[("first deaths", deaths((phase, stride), last))]);
}

/// Who recovers may die as well, at each of its stores; a third process judges.
fn recovery() {
    let holds =
        "whatever store a recovery ended before, the next one left the object as before or as after, whole";
    let mut campaign = Campaign::open("death.recovery", holds);
    let mut random = Random::new(campaign.seed(|| Random::seed("recovery")));
    for live in [false, true] {
        let mut of = |name, steps, stride| {
            run_recovery(Scenario { name, steps, ..PLAIN }, live, stride, &mut random, &mut campaign);
        };
        of("add, new key", |_| vec![add(500, 8)], 1);
        of("remove, stack", |_| vec![remove(2)], 1);
        of("group of two", |_| vec![Op::Group(vec![replace(1, 30), replace(10, 8)])], 1);
        of("group", |_| vec![Op::Group(several())], 7);
        run_recovery(giving_back(), live, 251, &mut random, &mut campaign);
    }
    run_recovery(
        Scenario { name: "check", steps: |_| vec![Op::Check, Op::Touch(key(3))], ..PLAIN },
        false,
        1,
        &mut random,
        &mut campaign,
    );
    campaign.end();
}

/// Where the file system takes no memory back, a run that was to be given back keeps what it holds, and counts as memory: also
/// if whoever wanted to give it back dies right before.
fn memory_that_cannot_be_given_back() {
    let p = Prepared::new(giving_back());
    for dies in [false, true] {
        let scratch = p.copy();
        let work = || {
            watchdog(STUCK_SECONDS);
            inject::set_quarantine_seconds(0);
            let mut actor = Actor::new(scratch.name(), &p.options);
            for op in &p.steps {
                assert_eq!(actor.apply(op), Outcome::Done);
            }
            actor
        };
        if dies {
            let exit = fork(|| {
                inject::die_at_punch(0);
                work();
            })
            .wait();
            assert_eq!(exit, Exit::KILLED);
        }
        let exit = fork(|| {
            inject::refuse_punches(true);
            let mut actor = work();
            take_slots_of_the_dead(&mut actor);
            let summary = assert_object_sound(&actor.object());
            assert_eq!(summary.unbacked_pages, 0, "it has its memory");
            inject::refuse_punches(false);
            for op in &p.steps {
                assert_eq!(actor.apply(op), Outcome::Done);
            }
            assert!(inject::punches() >= 2, "and is given back as soon as it can be");
            what_has_no_memory_becomes_buckets(&mut actor);
        })
        .wait();
        assert_eq!(exit, Exit::Code(0), "dies {dies}");
    }
}

/// Who has asked for [`netshm::guard_sigbus`] does not spoil the object for others, whenever a page is found missing: what its
/// other threads are doing then has happened wholly or not at all once it is gone. Tables that are made and dropped and
/// swept change the page that becomes private.
fn a_page_found_missing_at_every_store() {
    let wanted = |s: &Scenario| s.template.is_some() && !(s.steps)(0).contains(&Op::Truncate);
    let mut scenarios = named_tables();
    scenarios.extend(whole().into_iter().filter(wanted).filter(|s| !(s.steps)(0).contains(&Op::Manage)));
    scenarios.push(Scenario { name: "add, new key", steps: |_| vec![add(500, 8)], ..PLAIN });
    scenarios.push(Scenario { name: "group", steps: |_| vec![Op::Group(several())], stride: 3, ..PLAIN });
    scenarios.extend(chores());
    let one = |p: &Prepared, live, k| one_life(p, (guarded_victim, Exit::Code(0)), live, k);
    let holds = "whatever store a page was found missing before, the object was as before or as after, whole, and went on";
    run_lives("a_page_found_missing_at_every_store", scenarios, one, holds);
}

/// The judge can tell: contents that are neither before nor after are seen.
fn the_judge_can_fail() {
    let p = Prepared::new(Scenario { name: "add, new key", steps: |_| vec![add(500, 8)], ..PLAIN });
    let scratch = p.copy();
    let exit = fork(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let mut actor = Actor::new(scratch.name(), &p.options);
        actor.apply(&add(501, 8));
        judge(&p, &p.models(false), &mut actor, 0, 0);
    })
    .wait();
    assert_eq!(exit, Exit::Code(101));
}

fn main() {
    support::main(&[
        ("the_judge_can_fail", the_judge_can_fail),
        ("single_operations", || run("single_operations", singles())),
        ("many_keys", || run("many_keys", many())),
        ("stacks", || run("stacks", stacks())),
        ("memory", || run("memory", memory())),
        ("growth", || run("growth", growth())),
        ("groups", || run("groups", groups())),
        ("whole_object", || run("whole_object", whole())),
        ("named_tables", || run("named_tables", named_tables())),
        ("memory_that_cannot_be_given_back", memory_that_cannot_be_given_back),
        ("a_page_found_missing_at_every_store", a_page_found_missing_at_every_store),
        ("recovery", recovery),
    ]);
}
