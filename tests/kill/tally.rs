//! What a campaign has done so far: counted, kept in a file, reported.

use crate::site::Counts;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Times, each in a class 9% wider than the one before.
#[derive(Default)]
pub(crate) struct Distribution {
    classes: BTreeMap<u32, u64>,
    worst_ns: u64,
}

const PER_DOUBLING: f64 = 8.0;

impl Distribution {
    pub(crate) fn note(&mut self, ns: u64) {
        *self.classes.entry((PER_DOUBLING * (ns as f64 + 1.0).log2()) as u32).or_default() += 1;
        self.worst_ns = self.worst_ns.max(ns);
    }

    fn count(&self) -> u64 {
        self.classes.values().sum()
    }

    /// So many of a hundred are not longer: upper end of a class, in ms.
    fn percentile_ms(&self, percent: f64) -> f64 {
        let wanted = (self.count() as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (class, count) in &self.classes {
            seen += count;
            if seen >= wanted {
                return (f64::from(class + 1) / PER_DOUBLING).exp2().min(self.worst_ns as f64) / 1e6;
            }
        }
        0.0
    }
}

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) kills: u64,
    pub(crate) rounds: u64,
    pub(crate) operations: u64,
    /// Of the kills, those at a shared store, and those while memory was given back.
    pub(crate) at_stores: u64,
    pub(crate) at_punches: u64,
    pub(crate) stops: u64,
    /// Of the stops, those of processes that held a lock; of these, those that were killed before they went on.
    pub(crate) stopped_holders: u64,
    pub(crate) killed_holders: u64,
    /// Runs of pages given back to the system.
    pub(crate) given_back: u64,
    pub(crate) in_namespaces: u64,
    pub(crate) seconds: u64,
    times: BTreeMap<String, Distribution>,
}

impl Tally {
    pub(crate) fn time(&mut self, locking: &str, what: &str) -> &mut Distribution {
        self.times.entry(format!("{locking}, {what}")).or_default()
    }

    pub(crate) fn report(&self) -> String {
        let mut text = format!(
            "  {} kills, {} of them at a store and {} while giving memory back, 0 failures; {} rounds, {} operations, {} processes in namespaces, {} s\n",
            self.kills,
            self.at_stores,
            self.at_punches,
            self.rounds,
            self.operations,
            self.in_namespaces,
            self.seconds
        );
        let _ = writeln!(
            text,
            "  {} stops, {} of them of holders of locks, of whom {} were killed meanwhile; {} runs of pages given back to the system",
            self.stops, self.stopped_holders, self.killed_holders, self.given_back
        );
        text += "  time until every other thread has ended its next operation:\n";
        for (what, times) in &self.times {
            let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|p| times.percentile_ms(p));
            let (worst, count) = (times.worst_ns as f64 / 1e6, times.count());
            let _ = writeln!(
                text,
                "    {what:24} p50 {p50:7.1} ms, p90 {p90:7.1} ms, p99 {p99:7.1} ms, worst {worst:7.1} ms ({count})"
            );
        }
        text
    }

    /// Adds what has happened in a round.
    pub(crate) fn enter(&mut self, counts: &Counts) {
        self.in_namespaces += counts.in_namespaces;
        self.at_stores += counts.at_stores;
        self.at_punches += counts.at_punches;
        self.stops += counts.stops;
        self.stopped_holders += counts.stopped_holders;
        self.killed_holders += counts.killed_holders;
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 11] {
        [
            ("kills", &mut self.kills),
            ("rounds", &mut self.rounds),
            ("operations", &mut self.operations),
            ("at_stores", &mut self.at_stores),
            ("at_punches", &mut self.at_punches),
            ("stops", &mut self.stops),
            ("stopped_holders", &mut self.stopped_holders),
            ("killed_holders", &mut self.killed_holders),
            ("given_back", &mut self.given_back),
            ("in_namespaces", &mut self.in_namespaces),
            ("seconds", &mut self.seconds),
        ]
    }

    /// The new state takes the place of the old one at once.
    pub(crate) fn save(&mut self, directory: &Path) {
        let mut text = String::new();
        for (name, count) in self.counts() {
            let _ = writeln!(text, "{name}\t{count}");
        }
        for (what, times) in &self.times {
            let classes: Vec<String> = times.classes.iter().map(|(c, n)| format!("{c}:{n}")).collect();
            let _ = writeln!(text, "times\t{what}\t{}\t{}", times.worst_ns, classes.join(" "));
        }
        let draft = directory.join("state.new");
        std::fs::write(&draft, text).expect("writes the state");
        std::fs::rename(draft, directory.join("state")).expect("puts the state in its place");
        std::fs::write(directory.join("report"), self.report()).expect("writes the report");
    }

    /// The state of a campaign that was begun, or that of none.
    pub(crate) fn load(directory: &Path) -> Tally {
        let mut tally = Tally::default();
        std::fs::create_dir_all(directory).expect("has a directory for the campaign");
        let Ok(text) = std::fs::read_to_string(directory.join("state")) else { return tally };
        for line in text.lines() {
            let parts: Vec<&str> = line.split('\t').collect();
            if let ["times", what, worst, classes] = parts[..] {
                let class = |pair: &str| {
                    let (class, count) = pair.split_once(':').expect("a class and its count");
                    (class.parse().expect("a number"), count.parse().expect("a number"))
                };
                let classes = classes.split(' ').map(class).collect();
                let times = Distribution { classes, worst_ns: worst.parse().expect("a number") };
                tally.times.insert(what.to_string(), times);
            } else if let [name, count] = parts[..] {
                let mut counts = tally.counts();
                let known = counts.iter_mut().find(|(known, _)| *known == name);
                *known.expect("a count that is known").1 = count.parse().expect("a number");
            }
        }
        println!("  goes on after {} kills", tally.kills);
        tally
    }
}
