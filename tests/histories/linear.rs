//! Is a history that of one object whose operations happen one at a time, each between invocation and response?
//!
//! The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) for an order of the operations, in
//! the breadth-first form that Lowe calls just-in-time linearization ("Testing for linearizability", 2017): the
//! events are gone through as they happened, with the set of all *configurations* that fit so far. A configuration is
//! the object's state and which of the operations under way have taken effect. Equal ones are merged, which is Lowe's
//! memoisation. When an operation returns, each configuration in which it has not taken effect is replaced by those in which it
//! has, after any of the others that are under way. Where nothing is under way only states are left: the history is
//! cut there by itself. The object is to be taken as small as it can be (Horn and Kroening, "Faster linearizability
//! checking via P-compositionality", 2015): a history of single keys is linearizable if that of each key is.
//!
//! An operation that was cut off may take effect at any later time, or never, until it is decided: whoever has locked
//! its keys since its process died has completed it or given it up, so that it has happened by then, or will not. (That is
//! between the "strict" linearizability of Aguilera and Frølund, 2003, where the death decides, and the ordinary one.)

use std::collections::HashSet;

/// An object, as a set of states that have numbers, and what operations do to it.
pub(crate) trait Object {
    type Op;

    /// The state after an operation, if in this state it can give what it gave.
    fn step(&mut self, state: u32, op: &Self::Op) -> Option<u32>;

    /// Is it, given what it gave, one that never changes a state? Such an operation may take effect as soon as it can.
    fn only_looks(&self, op: &Self::Op) -> bool;
}

/// An operation and its time.
#[derive(Debug, Clone)]
pub(crate) struct Timed<Op> {
    pub(crate) invoked: u64,
    /// None: it was cut off.
    pub(crate) returned: Option<u64>,
    /// If it was cut off: it has happened by then, or will not. None: it may happen for ever.
    pub(crate) decided: Option<u64>,
    pub(crate) op: Op,
}

/// What the search cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Most operations under way at once, those cut off included.
    pub(crate) under_way: u32,
    /// Most configurations at once.
    pub(crate) configurations: usize,
    /// Responses of operations that were not alone.
    pub(crate) overlapping: u64,
}

impl Effort {
    pub(crate) fn max(self, other: Effort) -> Effort {
        Effort {
            under_way: self.under_way.max(other.under_way),
            configurations: self.configurations.max(other.configurations),
            overlapping: self.overlapping + other.overlapping,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable(Effort),
    /// No order explains what this operation gave.
    Wrong {
        op: usize,
        /// What was under way when it returned.
        under_way: Vec<usize>,
    },
    /// Too many operations at once, or too many configurations.
    Undecided {
        op: usize,
    },
}

const MOST_CONFIGURATIONS: usize = 4_000_000;

/// A state, and a bit for each operation under way that has taken effect.
type Configuration = (u32, u64);

struct Search<'a, O: Object> {
    object: &'a mut O,
    ops: &'a [Timed<O::Op>],
    /// The operation of each bit.
    under_way: [usize; 64],
    used: u64,
    visited: HashSet<Configuration>,
    stack: Vec<Configuration>,
}

/// Judges a history that begins in the state `start`.
pub(crate) fn check<O: Object>(object: &mut O, start: u32, ops: &[Timed<O::Op>]) -> Verdict {
    // At equal stamps invocations come first: the operations overlap.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * ops.len());
    for (n, op) in ops.iter().enumerate() {
        events.push((op.invoked, false, n));
        events.extend(op.returned.or(op.decided).map(|at| (at, true, n)));
    }
    events.sort_unstable();
    let mut search =
        Search { object, ops, under_way: [0; 64], used: 0, visited: HashSet::new(), stack: Vec::new() };
    let mut bits = vec![0u8; ops.len()];
    let mut configurations: Vec<Configuration> = vec![(start, 0)];
    let mut effort = Effort::default();
    for (_, returns, n) in events {
        if !returns {
            let bit = search.used.trailing_ones();
            if bit == 64 {
                return Verdict::Undecided { op: n };
            }
            bits[n] = bit as u8;
            search.used |= 1 << bit;
            search.under_way[bit as usize] = n;
            effort.under_way = effort.under_way.max(search.used.count_ones());
            continue;
        }
        if search.used >> bits[n] & 1 == 0 || search.under_way[bits[n] as usize] != n {
            // It was cut off, and has taken effect for certain already.
            continue;
        }
        let others = search.members(search.used & !(1 << bits[n]));
        effort.overlapping += u64::from(others.iter().any(|m| ops[*m].returned.is_some()));
        match search.complete(&configurations, 1 << bits[n]) {
            Some(mut next) => {
                if ops[n].returned.is_none() {
                    // It has not happened: that is possible as well.
                    next.extend(configurations.iter().filter(|c| c.1 >> bits[n] & 1 == 0));
                    next.sort_unstable();
                    next.dedup();
                }
                configurations = next;
            }
            None => return Verdict::Undecided { op: n },
        }
        if configurations.is_empty() {
            return Verdict::Wrong { op: n, under_way: search.members(search.used) };
        }
        search.used &= !(1 << bits[n]);
        search.settle(&mut configurations);
        effort.configurations = effort.configurations.max(configurations.len());
    }
    Verdict::Linearizable(effort)
}

impl<O: Object> Search<'_, O> {
    fn members(&self, bits: u64) -> Vec<usize> {
        (0..64).filter(|b| bits >> b & 1 != 0).map(|b| self.under_way[b]).collect()
    }

    /// The configurations in which the operation of this bit has taken effect; the bit is free in them.
    fn complete(&mut self, from: &[Configuration], bit: u64) -> Option<Vec<Configuration>> {
        self.visited.clear();
        let mut done: HashSet<Configuration> = HashSet::new();
        self.stack.extend_from_slice(from);
        while let Some((state, effective)) = self.stack.pop() {
            let effective = self.look(state, effective);
            if effective & bit != 0 {
                done.insert((state, effective & !bit));
                continue;
            }
            if !self.visited.insert((state, effective)) {
                continue;
            }
            if self.visited.len() + done.len() > MOST_CONFIGURATIONS {
                return None;
            }
            let mut left = self.used & !effective;
            while left != 0 {
                let this = left & left.wrapping_neg();
                left &= !this;
                let op = &self.ops[self.under_way[this.trailing_zeros() as usize]].op;
                if let Some(next) = self.object.step(state, op) {
                    self.stack.push((next, effective | this));
                }
            }
        }
        Some(done.into_iter().collect())
    }

    /// Lets all that only look take effect, if this is what they saw.
    fn look(&mut self, state: u32, mut effective: u64) -> u64 {
        let mut left = self.used & !effective;
        while left != 0 {
            let this = left & left.wrapping_neg();
            left &= !this;
            let op = &self.ops[self.under_way[this.trailing_zeros() as usize]].op;
            if self.object.only_looks(op) && self.object.step(state, op).is_some() {
                effective |= this;
            }
        }
        effective
    }

    /// What was cut off and has taken effect in all configurations is not under way any more.
    fn settle(&mut self, configurations: &mut Vec<Configuration>) {
        let everywhere = configurations.iter().fold(self.used, |bits, c| bits & c.1);
        let mut settled = 0;
        for bit in 0..64 {
            let cut_off = self.ops[self.under_way[bit]].returned.is_none();
            if everywhere >> bit & 1 != 0 && cut_off {
                settled |= 1 << bit;
            }
        }
        if settled != 0 {
            self.used &= !settled;
            configurations.iter_mut().for_each(|c| c.1 &= !settled);
            configurations.sort_unstable();
            configurations.dedup();
        }
    }
}

/// The same question, answered by trying all orders, for histories of some operations: the search as Wing and Gong
/// first wrote it down, to judge the other one by.
pub(crate) fn check_by_trying_all<O: Object>(object: &mut O, start: u32, ops: &[Timed<O::Op>]) -> bool {
    fn try_from<O: Object>(object: &mut O, state: u32, ops: &[Timed<O::Op>], left: u32) -> bool {
        let members = || (0..ops.len()).filter(|n| left >> n & 1 != 0);
        if members().all(|n| ops[n].returned.is_none()) {
            return true;
        }
        for n in members() {
            let is_first = members().all(|m| ops[m].returned.is_none_or(|at| at >= ops[n].invoked));
            let mut done = (0..ops.len()).filter(|m| left >> m & 1 == 0);
            let is_too_late = done.any(|m| ops[n].decided.is_some_and(|at| ops[m].invoked > at));
            if !is_first || is_too_late {
                continue;
            }
            if let Some(next) = object.step(state, &ops[n].op) {
                if try_from(object, next, ops, left & !(1 << n)) {
                    return true;
                }
            }
        }
        false
    }
    try_from(object, start, ops, (1 << ops.len()) - 1)
}
