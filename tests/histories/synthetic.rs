//! Histories made by hand and by chance, to judge the checkers by.

use super::graph::{self, Anomaly};
use super::linear::{Timed, Verdict, check, check_by_trying_all};
use super::number::{ABSENT, number};
use super::recording::{judge_groups, judge_singles};
use super::registers::{Fate, Group, KEYS, Registers, Step, of_consequence};
use super::stack::{EMPTY, Gave, Kind, Op, Stacks, fingerprint};
use crate::support::random::Random;

fn op(times: (u64, u64), kind: Kind, arguments: [u64; 2], gave: Gave) -> Timed<Op> {
    let op = Op { kind, key: 0, arguments, gave: Some(gave), process: 0, entry: 0 };
    Timed { invoked: times.0, returned: Some(times.1), decided: None, op }
}

fn cut_off(invoked: u64, kind: Kind, arguments: [u64; 2]) -> Timed<Op> {
    let op = Op { kind, key: 0, arguments, gave: None, process: 0, entry: 0 };
    Timed { invoked, returned: None, decided: None, op }
}

fn decided(at: u64, op: Timed<Op>) -> Timed<Op> {
    Timed { decided: Some(at), ..op }
}

/// Single keys: histories with a name, and whether they are linearizable.
pub(crate) fn of_single_keys() -> Vec<(&'static str, bool, Vec<Timed<Op>>)> {
    use Gave::{Bool, Changed, Done, Exists, List, Sum, Torn, Value};
    use Kind::*;
    let (a, b, c) = (number(0, 0, 1, 0), number(0, 1, 1, 0), number(3, 1, 2, 0));
    let replace = |times, v| op(times, Replace, [v, 0], Done);
    let find = |times, v| op(times, Find, [0, 0], Value(v));
    vec![
        (
            "one after the other",
            true,
            vec![replace((1, 2), a), find((3, 4), a), op((5, 6), Remove, [0; 2], Bool(true))],
        ),
        (
            "a find during a replace sees either",
            true,
            vec![replace((1, 2), a), replace((3, 9), b), find((4, 5), a), find((6, 7), b)],
        ),
        (
            "seeded: a reader without validation, stale",
            false,
            vec![replace((1, 2), a), replace((3, 4), b), find((5, 6), a)],
        ),
        (
            "seeded: a reader goes back",
            false,
            vec![replace((1, 2), a), replace((3, 9), b), find((4, 5), b), find((6, 7), a)],
        ),
        (
            "seeded: two readers see two orders",
            false,
            vec![replace((1, 9), a), replace((1, 9), b), find((10, 11), a), find((12, 13), b)],
        ),
        (
            "seeded: a reader without validation, torn",
            false,
            vec![replace((1, 2), c), op((3, 4), Find, [0, 0], Torn)],
        ),
        (
            "seeded: a lost update",
            false,
            vec![op((1, 5), Increment, [1, 0], Sum(1)), op((2, 6), Increment, [1, 0], Sum(1))],
        ),
        (
            "increments overlap",
            true,
            vec![op((1, 5), Increment, [1, 0], Sum(2)), op((2, 6), Increment, [1, 0], Sum(1))],
        ),
        (
            "seeded: two inserts succeed",
            false,
            vec![op((1, 5), Insert, [a, 0], Done), op((2, 6), Insert, [b, 0], Done)],
        ),
        (
            "one insert fails because of the other, which began later",
            true,
            vec![op((1, 9), Insert, [a, 0], Exists), op((2, 6), Insert, [b, 0], Done)],
        ),
        (
            "seeded: an insert fails though nothing is bound",
            false,
            vec![op((1, 2), Insert, [a, 0], Exists), op((3, 6), Insert, [b, 0], Done)],
        ),
        (
            "seeded: compare and replace succeeds twice on the same value",
            false,
            vec![
                replace((1, 2), a),
                op((3, 9), CompareAndReplace, [a, b], Done),
                op((3, 9), CompareAndReplace, [a, c], Done),
            ],
        ),
        (
            "compare and replace, one of two",
            true,
            vec![
                replace((1, 2), a),
                op((3, 9), CompareAndReplace, [a, b], Done),
                op((3, 9), CompareAndReplace, [a, c], Changed),
            ],
        ),
        (
            "seeded: a remove takes the binding below",
            false,
            vec![
                op((1, 2), Add, [a, 0], Done),
                op((3, 4), Add, [b, 0], Done),
                op((5, 6), Remove, [0, 0], Bool(true)),
                op((7, 8), FindAll, [0, 0], List(1, fingerprint([b]))),
            ],
        ),
        (
            "stacks",
            true,
            vec![
                op((1, 2), Add, [a, 0], Done),
                op((3, 4), Add, [b, 0], Done),
                op((5, 6), FindAll, [0, 0], List(2, fingerprint([a, b]))),
                op((7, 8), Update, [c, 0], Value(b)),
                op((9, 10), Clear, [0, 0], List(2, fingerprint([a, c]))),
                find((11, 12), ABSENT),
            ],
        ),
        (
            "cut off, and never happened",
            true,
            vec![replace((1, 2), a), cut_off(3, Replace, [b, 0]), find((9, 10), a), find((11, 12), a)],
        ),
        (
            "cut off, and happened late",
            true,
            vec![replace((1, 2), a), cut_off(3, Replace, [b, 0]), find((9, 10), a), find((11, 12), b)],
        ),
        (
            "cut off, decided, and happened before that",
            true,
            vec![replace((1, 2), a), decided(10, cut_off(3, Replace, [b, 0])), find((9, 12), b)],
        ),
        (
            "seeded: what was cut off happens after it was decided",
            false,
            vec![
                replace((1, 2), a),
                decided(10, cut_off(3, Replace, [b, 0])),
                find((11, 12), a),
                find((13, 14), b),
            ],
        ),
        (
            "seeded: what was cut off happens and is undone",
            false,
            vec![replace((1, 2), a), cut_off(3, Replace, [b, 0]), find((9, 10), b), find((11, 12), a)],
        ),
        (
            "seeded: what was cut off happens twice",
            false,
            vec![
                op((1, 2), Increment, [1, 0], Sum(1)),
                cut_off(3, Increment, [1, 0]),
                op((9, 10), Increment, [1, 0], Sum(4)),
            ],
        ),
        (
            "seeded: what had returned is lost by a kill",
            false,
            vec![replace((1, 2), a), replace((3, 4), b), cut_off(5, Remove, [0, 0]), find((9, 10), a)],
        ),
    ]
}

fn group(times: (u64, u64), steps: &[(usize, Option<u64>, Option<u64>)]) -> Timed<Group> {
    let step =
        |s: &(usize, Option<u64>, Option<u64>)| Step { key: s.0, read: s.1, written: s.2, undone: false };
    let steps = steps.iter().map(step).collect();
    let op = Group { steps, fate: Fate::Committed, process: 0, entry: 0 };
    Timed { invoked: times.0, returned: Some(times.1), decided: None, op }
}

fn with_fate(fate: Fate, mut group: Timed<Group>) -> Timed<Group> {
    group.op.fate = fate;
    if matches!(fate, Fate::Open | Fate::Unfinished) {
        group.returned = None;
    }
    group
}

const START: [u64; KEYS] = [10, 20, 30, 40, 50, 60];

/// Groups: histories with a name, whether they are strictly serializable, and what the graph says if not.
#[allow(clippy::type_complexity, reason = "a table")]
pub(crate) fn of_groups() -> Vec<(&'static str, bool, fn(&Anomaly) -> bool, Vec<Timed<Group>>)> {
    let r = |key, value| (key, Some(value), None);
    let w = |key, value| (key, None, Some(value));
    let rw = |key, read, value| (key, Some(read), Some(value));
    let never: fn(&Anomaly) -> bool = |_| false;
    let is_circle: fn(&Anomaly) -> bool = |a| matches!(a, Anomaly::Circle(_));
    let is_late: fn(&Anomaly) -> bool = |a| matches!(a, Anomaly::OutOfTime(_));
    let is_lost: fn(&Anomaly) -> bool = |a| matches!(a, Anomaly::LostUpdate { .. });
    let is_dirty: fn(&Anomaly) -> bool = |a| matches!(a, Anomaly::Dirty { .. });
    let is_garbage: fn(&Anomaly) -> bool = |a| matches!(a, Anomaly::Garbage { .. });
    let is_own: fn(&Anomaly) -> bool = |a| matches!(a, Anomaly::NotOwn { .. });
    vec![
        (
            "one after the other",
            true,
            never,
            vec![group((1, 2), &[rw(0, 10, 11), rw(1, 20, 21)]), group((3, 4), &[r(0, 11), r(1, 21)])],
        ),
        (
            "they overlap, and each may be the first",
            true,
            never,
            vec![
                group((1, 9), &[rw(0, 10, 11), rw(1, 20, 21)]),
                group((2, 8), &[r(0, 10), r(1, 20)]),
                group((2, 8), &[r(0, 11), r(1, 21)]),
            ],
        ),
        (
            "seeded: a torn group",
            false,
            is_circle,
            vec![group((1, 9), &[rw(0, 10, 11), rw(1, 20, 21)]), group((2, 8), &[r(0, 11), r(1, 20)])],
        ),
        (
            "seeded: a torn group of blind writes, seen by single reads",
            false,
            is_circle,
            vec![group((1, 9), &[w(0, 11), rw(1, 20, 21)]), group((2, 3), &[r(0, 11), r(1, 20)])],
        ),
        (
            "seeded: two single reads within a group's time see half of it",
            false,
            is_late,
            vec![
                group((1, 9), &[rw(0, 10, 11), rw(1, 20, 21)]),
                group((2, 3), &[r(0, 11)]),
                group((4, 5), &[r(1, 20)]),
            ],
        ),
        (
            "seeded: a lost update",
            false,
            is_lost,
            vec![group((1, 9), &[rw(0, 10, 11)]), group((2, 8), &[rw(0, 10, 12)])],
        ),
        (
            "seeded: write skew",
            false,
            is_circle,
            vec![group((1, 9), &[r(0, 10), rw(1, 20, 21)]), group((2, 8), &[rw(0, 10, 11), r(1, 20)])],
        ),
        (
            "seeded: a stale snapshot",
            false,
            is_late,
            vec![group((1, 2), &[rw(0, 10, 11), rw(1, 20, 21)]), group((3, 4), &[r(0, 10), r(1, 20)])],
        ),
        (
            "seeded: a value that was rolled back is seen",
            false,
            is_dirty,
            vec![with_fate(Fate::RolledBack, group((1, 5), &[rw(0, 10, 11)])), group((2, 4), &[r(0, 11)])],
        ),
        (
            "what is rolled back reads and leaves nothing",
            true,
            never,
            vec![
                with_fate(Fate::RolledBack, group((1, 5), &[rw(0, 10, 11), r(0, 11)])),
                group((6, 7), &[r(0, 10)]),
            ],
        ),
        (
            "seeded: what is rolled back has read a torn group",
            false,
            is_circle,
            vec![
                group((1, 9), &[rw(0, 10, 11), rw(1, 20, 21)]),
                with_fate(Fate::RolledBack, group((2, 8), &[r(0, 11), r(1, 20)])),
            ],
        ),
        (
            "seeded: a value that its writer wrote over is seen",
            false,
            is_dirty,
            vec![group((1, 5), &[rw(0, 10, 11), rw(0, 11, 12)]), group((2, 4), &[r(0, 11)])],
        ),
        (
            "seeded: a group does not see its own value",
            false,
            is_own,
            vec![group((1, 5), &[rw(0, 10, 11), r(0, 10)])],
        ),
        ("seeded: a mixture", false, is_garbage, vec![group((1, 5), &[r(0, 99)])]),
        (
            "cut off, and seen",
            true,
            never,
            vec![
                with_fate(Fate::Open, group((1, 0), &[rw(0, 10, 11), rw(1, 20, 21)])),
                group((3, 4), &[r(0, 10)]),
                group((5, 6), &[r(0, 11), r(1, 21)]),
            ],
        ),
        (
            "cut off, and never seen",
            true,
            never,
            vec![
                with_fate(Fate::Open, group((1, 0), &[rw(0, 10, 11), rw(1, 20, 21)])),
                group((3, 4), &[rw(0, 10, 12)]),
                group((5, 6), &[r(0, 12), r(1, 20)]),
            ],
        ),
        (
            "seeded: half of what was cut off",
            false,
            is_circle,
            vec![
                with_fate(Fate::Open, group((1, 0), &[rw(0, 10, 11), rw(1, 20, 21)])),
                group((3, 4), &[r(0, 11), r(1, 20)]),
            ],
        ),
        (
            "seeded: what was cut off is undone after it was seen",
            false,
            is_late,
            vec![
                with_fate(Fate::Open, group((1, 0), &[rw(0, 10, 11), rw(1, 20, 21)])),
                group((3, 4), &[r(0, 11)]),
                group((5, 6), &[r(0, 10)]),
            ],
        ),
        (
            "seeded: what cannot have been committed is seen",
            false,
            is_garbage,
            vec![with_fate(Fate::Unfinished, group((1, 0), &[rw(0, 10, 11)])), group((3, 4), &[r(0, 11)])],
        ),
    ]
}

/// Judges all histories made by hand. Panics if a checker is wrong.
pub(crate) fn judge_those_made_by_hand() -> (usize, usize) {
    let singles = of_single_keys();
    for (name, right, history) in &singles {
        let verdict = judge_singles(1, history);
        assert_eq!(verdict.is_ok(), *right, "{name}: {verdict:?}");
        assert_eq!(check_by_trying_all(&mut Stacks::new(), EMPTY, history), *right, "all orders: {name}");
    }
    let groups = of_groups();
    for (name, right, kind, history) in &groups {
        let verdict = judge_groups(START, history);
        assert_eq!(verdict.is_ok(), *right, "{name}: {verdict:?}");
        let kept = of_consequence(history);
        if let Err(anomaly) = graph::check(START, &kept) {
            assert!(!right && kind(&anomaly), "{name}: {anomaly:?}");
        } else {
            assert!(right, "the graph shows nothing: {name}");
        }
    }
    (singles.len(), groups.len())
}

/// Times of `n` operations by `processes` processes, each of which does one at a time.
fn times(random: &mut Random, n: usize, processes: usize) -> Vec<(u64, u64)> {
    let mut now = vec![0; processes];
    (0..n)
        .map(|i| {
            let mut moment = |p: usize| {
                now[p] += 1 + random.below(8);
                now[p]
            };
            (moment(i % processes), moment(i % processes))
        })
        .collect()
}

/// Small histories of single keys, by chance: the outcomes are right for some order, and then perhaps one is not.
/// Gives how many were linearizable, and how many not; the search and trying all orders must agree.
pub(crate) fn compare_on_single_keys(random: &mut Random, rounds: u64) -> [u64; 2] {
    use Kind::*;
    let mut count = [0; 2];
    for round in 0..rounds {
        let n = 3 + random.below(5) as usize;
        let mut history: Vec<Timed<Op>> = Vec::new();
        for (i, times) in times(random, n, 3).into_iter().enumerate() {
            let kinds = [
                Find,
                Find,
                Add,
                Replace,
                Insert,
                Remove,
                Increment,
                CompareAndReplace,
                Update,
                FindAll,
                Clear,
            ];
            // Few values, so that wrong outcomes are plausible.
            let value = |random: &mut Random| number(0, 0, random.below(3) as usize, 0);
            let arguments = [value(random), value(random)];
            let kind = *random.one_of(&kinds);
            let op = Op { kind, key: 0, arguments, gave: None, process: 0, entry: i };
            let returned = (!random.once_in(6)).then_some(times.1);
            let decided = (returned.is_none() && random.once_in(2)).then(|| times.0 + random.below(30));
            history.push(Timed { invoked: times.0, returned, decided, op });
        }
        // Done in the order of random moments; sometimes of impossible ones.
        let mut moments: Vec<(u64, usize)> = Vec::new();
        for (i, op) in history.iter().enumerate() {
            let end = op.returned.or(op.decided).unwrap_or(op.invoked + 10);
            let strays = round % 2 == 0 && random.once_in(5);
            let from = if strays { op.invoked.saturating_sub(10) } else { op.invoked };
            moments.push((from + random.below(end - from + 1), i));
        }
        moments.sort_unstable();
        let (mut stacks, mut state) = (Stacks::new(), EMPTY);
        for (_, i) in moments {
            let op = history[i].op;
            if history[i].returned.is_none() && random.once_in(2) {
                continue;
            }
            let (gave, next) = stacks.apply(state, op.kind, op.arguments);
            state = next;
            if history[i].returned.is_some() {
                history[i].op.gave = Some(gave);
            }
        }
        let by_search = check(&mut stacks, EMPTY, &history);
        let by_trying = check_by_trying_all(&mut Stacks::new(), EMPTY, &history);
        let is_right = matches!(by_search, Verdict::Linearizable(_));
        assert_eq!(is_right, by_trying, "{by_search:?}\n{history:#?}");
        assert!(round % 2 == 0 || is_right, "the outcomes are those of an order\n{history:#?}");
        count[usize::from(!is_right)] += 1;
    }
    count
}

/// The same for groups. Where all writes follow reads, the graph must agree as well; else it may say too little.
pub(crate) fn compare_on_groups(random: &mut Random, rounds: u64) -> [u64; 2] {
    let mut count = [0; 2];
    for round in 0..rounds {
        let n = 3 + random.below(4) as usize;
        let only_after_reads = round % 4 < 2;
        let mut history: Vec<Timed<Group>> = Vec::new();
        for (i, times) in times(random, n, 3).into_iter().enumerate() {
            let mut steps = Vec::new();
            for s in 0..1 + random.below(3) {
                let reads = only_after_reads || random.once_in(2);
                let written = (!reads || random.once_in(2)).then(|| number(1, 0, i, s));
                let undone = written.is_some() && random.once_in(8);
                steps.push(Step { key: random.below(3) as usize, read: reads.then_some(0), written, undone });
            }
            let fate = *random.one_of(&[
                Fate::Committed,
                Fate::Committed,
                Fate::Committed,
                Fate::Open,
                Fate::RolledBack,
            ]);
            let returned = (fate != Fate::Open).then_some(times.1);
            let decided = (returned.is_none() && random.once_in(2)).then(|| times.0 + random.below(30));
            history.push(Timed {
                invoked: times.0,
                returned,
                decided,
                op: Group { steps, fate, process: 0, entry: i },
            });
        }
        fill_in_reads(random, &mut history, round % 2 == 0);
        let kept = of_consequence(&history);
        let (mut states, first) = Registers::new(START);
        let by_search = check(&mut states, first, &kept);
        let is_right = matches!(by_search, Verdict::Linearizable(_));
        assert_eq!(is_right, check_by_trying_all(&mut states, first, &kept), "{by_search:?}\n{kept:#?}");
        // Also with those that are of no consequence: nothing is lost by leaving them out.
        let all: Vec<Timed<Group>> =
            history.iter().filter(|g| g.op.fate != Fate::Unfinished).cloned().collect();
        assert_eq!(is_right, check_by_trying_all(&mut states, first, &all), "left out\n{all:#?}");
        assert!(round % 2 == 0 || is_right, "the reads are those of an order\n{history:#?}");
        let by_graph = graph::check(START, &kept);
        if is_right || only_after_reads {
            assert_eq!(by_graph.is_ok(), is_right, "{by_graph:?}\n{kept:#?}");
        }
        count[usize::from(!is_right)] += 1;
    }
    count
}

/// Does the groups step by step, in the order of random moments: whole groups, or, if they may be wrong, some torn ones.
fn fill_in_reads(random: &mut Random, history: &mut [Timed<Group>], may_be_wrong: bool) {
    let mut moments: Vec<(u64, usize, usize)> = Vec::new();
    for (i, group) in history.iter().enumerate() {
        let end = group.returned.or(group.decided).unwrap_or(group.invoked + 10);
        let is_torn = may_be_wrong && random.once_in(3);
        let moment = group.invoked + random.below(end - group.invoked + 1);
        for s in 0..group.op.steps.len() {
            let own = if is_torn { group.invoked + random.below(end - group.invoked + 1) } else { moment };
            moments.push((own, i, s));
        }
    }
    moments.sort_unstable();
    let mut values = START;
    let mut saved = START;
    for (_, i, s) in moments {
        let group = &mut history[i].op;
        if s == 0 {
            saved = values;
        }
        let step = &mut group.steps[s];
        if step.read.is_some() {
            step.read = Some(values[step.key]);
        }
        if let (Some(value), false) = (step.written, step.undone) {
            values[step.key] = value;
        }
        if s + 1 == group.steps.len() && group.fate == Fate::RolledBack {
            values = saved;
        }
    }
}
