//! Groups that depend on each other, as a graph: a circle in it is what no serial order explains.
//!
//! The dependencies are those of Adya ("Weak consistency", 1999): the writer of a value comes before its reader (wr), and before the
//! writer of the next value (ww); who reads a value comes before the writer of the next one (rw). They can be
//! told from a history whose values are unique, as in Elle (Kingsbury and Alvaro, "Elle: inferring isolation
//! anomalies from experimental observations", 2020): the value that a group reads before it writes the same key is
//! the one before its own. Where somebody writes without reading, the place of the value is not known, and edges are
//! missing: the graph may say too little, never too much. Time adds the edges for strict serializability.
//!
//! Beside `linear`, which is exact, it says what kind of fault there is, and bears many groups under way at once.

use super::linear::Timed;
use super::registers::{Fate, Group, KEYS};
use std::collections::{HashMap, HashSet, VecDeque};

/// What is wrong. Groups are numbered as in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// A value that nobody wrote, or a mixture.
    Garbage { reader: usize, value: u64 },
    /// A value that was rolled back, or that its writer itself wrote over.
    Dirty { reader: usize, writer: usize, value: u64 },
    /// A group does not see what itself has written or read.
    NotOwn { group: usize, key: usize },
    /// Two groups wrote the next value after the same one.
    LostUpdate { first: usize, second: usize, value: u64 },
    /// No serial order: each depends on the one before.
    Circle(Vec<(Why, usize)>),
    /// A serial order, but not one that fits the times.
    OutOfTime(Vec<(Why, usize)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    ReadsFrom,
    WritesAfter,
    ReadBefore,
    Later,
}

struct Graph {
    edges: Vec<Vec<(usize, Why)>>,
}

/// Judges a history that begins with these values.
pub(crate) fn check(start: [u64; KEYS], groups: &[Timed<Group>]) -> Result<(), Anomaly> {
    let mut graph = Graph { edges: vec![Vec::new(); groups.len()] };
    graph.add_dependencies(start, groups)?;
    if let Some(circle) = graph.circle(groups.len()) {
        return Err(Anomaly::Circle(circle));
    }
    graph.add_times(groups);
    match graph.circle(groups.len()) {
        Some(circle) => Err(Anomaly::OutOfTime(circle)),
        None => Ok(()),
    }
}

/// A value for some of the keys.
type Values = [Option<u64>; KEYS];

/// What a group read from others, and leaves, for each key.
fn inside(n: usize, group: &Group) -> Result<(Values, Values), Anomaly> {
    let (mut read, mut now) = ([None; KEYS], [None; KEYS]);
    let mut left = [None; KEYS];
    for step in &group.steps {
        let key = step.key;
        if let Some(value) = step.read {
            match now[key] {
                None => read[key] = Some(value),
                Some(own) if own == value => {}
                Some(_) => return Err(Anomaly::NotOwn { group: n, key }),
            }
            now[key] = Some(value);
        }
        if let (Some(value), false) = (step.written, step.undone) {
            now[key] = Some(value);
            left[key] = Some(value);
        }
    }
    Ok((read, left))
}

impl Graph {
    fn add_dependencies(&mut self, start: [u64; KEYS], groups: &[Timed<Group>]) -> Result<(), Anomaly> {
        let mut writers: HashMap<u64, usize> = HashMap::new();
        let mut dirty: HashMap<u64, usize> = HashMap::new();
        let mut all = Vec::new();
        for (n, timed) in groups.iter().enumerate() {
            let group = &timed.op;
            let (read, mut left) = inside(n, group)?;
            if group.fate == Fate::RolledBack {
                left = [None; KEYS];
            }
            writers.extend(left.iter().flatten().map(|value| (*value, n)));
            let written = group.steps.iter().filter_map(|s| s.written);
            dirty.extend(written.filter(|v| !left.contains(&Some(*v))).map(|v| (v, n)));
            all.push((read, left));
        }
        // The writer of the value after this one.
        let mut next: HashMap<u64, usize> = HashMap::new();
        for (n, (read, left)) in all.iter().enumerate() {
            for (value, _) in read.iter().zip(left).filter_map(|(r, l)| Some(((*r)?, (*l)?))) {
                if let Some(first) = next.insert(value, n) {
                    return Err(Anomaly::LostUpdate { first, second: n, value });
                }
            }
        }
        for (n, (read, left)) in all.iter().enumerate() {
            for key in 0..KEYS {
                let Some(value) = read[key] else { continue };
                if let Some(writer) = writers.get(&value) {
                    self.add(*writer, n, Why::ReadsFrom);
                    if left[key].is_some() {
                        self.add(*writer, n, Why::WritesAfter);
                    }
                } else if let Some(writer) = dirty.get(&value) {
                    return Err(Anomaly::Dirty { reader: n, writer: *writer, value });
                } else if value != start[key] {
                    return Err(Anomaly::Garbage { reader: n, value });
                }
                if let Some(writer) = next.get(&value) {
                    self.add(n, *writer, Why::ReadBefore);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, from: usize, to: usize, why: Why) {
        if from != to {
            self.edges[from].push((to, why));
        }
    }

    /// Groups that ended, or were decided, before others began, by way of nodes for moments: few edges, same paths.
    fn add_times(&mut self, groups: &[Timed<Group>]) {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (n, group) in groups.iter().enumerate() {
            events.push((group.invoked, false, n));
            events.extend(group.returned.or(group.decided).map(|at| (at, true, n)));
        }
        events.sort_unstable();
        let mut moment = None;
        for (_, returns, n) in events {
            if returns {
                self.edges.push(Vec::new());
                let now = self.edges.len() - 1;
                self.add(n, now, Why::Later);
                if let Some(before) = moment {
                    self.add(before, now, Why::Later);
                }
                moment = Some(now);
            } else if let Some(before) = moment {
                self.add(before, n, Why::Later);
            }
        }
    }

    /// A shortest circle through some group of a strongly connected component; nodes from `groups` on are moments.
    fn circle(&self, groups: usize) -> Option<Vec<(Why, usize)>> {
        let component = self.components();
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        component.iter().for_each(|c| *sizes.entry(*c).or_default() += 1);
        let from = (0..groups).find(|n| sizes[&component[*n]] > 1)?;
        let mut came: HashMap<usize, (usize, Why)> = HashMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for (to, why) in self.edges[node].iter().filter(|e| component[e.0] == component[from]) {
                if came.contains_key(to) {
                    continue;
                }
                came.insert(*to, (node, *why));
                queue.push_back(*to);
            }
        }
        let mut path = Vec::new();
        let mut seen = HashSet::new();
        let mut at = from;
        while seen.insert(at) {
            let (before, why) = came[&at];
            if at < groups {
                path.push((why, at));
            }
            at = before;
        }
        path.reverse();
        Some(path)
    }

    /// For each node the number of its strongly connected component (Tarjan 1972, without recursion).
    fn components(&self) -> Vec<usize> {
        const NEW: usize = usize::MAX;
        let n = self.edges.len();
        let (mut index, mut low) = (vec![NEW; n], vec![0; n]);
        let mut component = vec![NEW; n];
        let (mut stack, mut calls) = (Vec::new(), Vec::new());
        let mut count = 0;
        for root in 0..n {
            if index[root] != NEW {
                continue;
            }
            calls.push((root, 0));
            while let Some((node, edge)) = calls.pop() {
                if edge == 0 {
                    index[node] = count;
                    low[node] = count;
                    count += 1;
                    stack.push(node);
                }
                if let Some((to, _)) = self.edges[node].get(edge) {
                    calls.push((node, edge + 1));
                    if index[*to] == NEW {
                        calls.push((*to, 0));
                    } else if component[*to] == NEW {
                        low[node] = low[node].min(index[*to]);
                    }
                    continue;
                }
                if low[node] == index[node] {
                    while let Some(member) = stack.pop() {
                        component[member] = node;
                        if member == node {
                            break;
                        }
                    }
                }
                if let Some((caller, _)) = calls.last() {
                    low[*caller] = low[*caller].min(low[node]);
                }
            }
        }
        component
    }
}
