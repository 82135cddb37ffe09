//! What a long campaign has done so far: which of its parts were begun, which are finished, and what these have counted. The
//! directory that `NETSHM_CAMPAIGN` names keeps it, so that the same command goes on after an interruption. Without one,
//! nothing is kept.
//!
//! A state is a log of lines; whoever takes part appends to it, each line at once, so several processes may share in one
//! campaign. A part's name says all that its outcome depends on but the library: a directory is for one state of the
//! library.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

pub(crate) type Counts = BTreeMap<String, u64>;

pub(crate) struct Campaign {
    name: String,
    /// What each finished part was found to be like.
    holds: &'static str,
    directory: Option<PathBuf>,
    kept: Kept,
    under_way: Option<(String, Instant)>,
    finished_here: u64,
}

/// What a state says.
#[derive(Default)]
struct Kept {
    seed: Option<u64>,
    /// How often each part was begun.
    begun: BTreeMap<String, u64>,
    parts: BTreeMap<String, Counts>,
}

const MILLISECONDS: &str = "milliseconds";

impl Campaign {
    /// The campaign of this name, and what a part has been found to be like when it is finished.
    pub(crate) fn open(name: &str, holds: &'static str) -> Campaign {
        let directory = std::env::var_os("NETSHM_CAMPAIGN").map(PathBuf::from);
        let (name, kept) = (name.to_string(), Kept::default());
        let mut campaign = Campaign { name, holds, directory, kept, under_way: None, finished_here: 0 };
        if let Some(directory) = &campaign.directory {
            fs::create_dir_all(directory).expect("has a directory for the campaign");
            campaign.drop_torn_line();
            campaign.kept = campaign.load();
            campaign.say(&format!("{} parts are finished already", campaign.kept.parts.len()));
        }
        campaign
    }

    /// The seed with which the campaign was begun; that of `draw` if it begins, or if `NETSHM_SEED` wants another one.
    pub(crate) fn seed(&mut self, draw: impl FnOnce() -> u64) -> u64 {
        match self.kept.seed {
            Some(seed) if std::env::var_os("NETSHM_SEED").is_none() => {
                self.say(&format!("goes on with NETSHM_SEED={seed}"));
                seed
            }
            _ => {
                let seed = draw();
                self.kept.seed = Some(seed);
                self.append(&format!("seed\t{seed}"));
                seed
            }
        }
    }

    /// What a finished part has counted.
    pub(crate) fn finished(&self, part: &str) -> Option<&Counts> {
        self.kept.parts.get(part)
    }

    /// Begins a part, unless it is finished: then it is not to be done.
    pub(crate) fn begin(&mut self, part: &str) -> bool {
        assert!(!part.contains(['\t', '\n']), "a part has a name of one line: {part:?}");
        if self.finished(part).is_some() {
            return false;
        }
        self.append(&format!("begun\t{part}"));
        self.under_way = Some((part.to_string(), Instant::now()));
        true
    }

    /// The part that was begun has ended well.
    pub(crate) fn finish(&mut self, counts: &[(&str, u64)]) {
        let (part, begin) = self.under_way.take().expect("a part was begun");
        self.finished_here += 1;
        let time = (MILLISECONDS, begin.elapsed().as_millis() as u64);
        let counts: Vec<_> = counts.iter().chain([&time]).map(|(name, n)| (name.to_string(), *n)).collect();
        let mut line = format!("done\t{part}");
        counts.iter().for_each(|(name, count)| _ = write!(line, "\t{name}={count}"));
        self.kept.parts.insert(part.clone(), counts.into_iter().collect());
        if self.directory.is_some() {
            self.append(&line);
            self.kept = self.load();
            self.say(&format!("done: {part}; {} parts in all", self.kept.parts.len()));
            self.write_report();
        }
    }

    /// What all finished parts have counted together.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.kept.parts.values().filter_map(|counts| counts.get(name)).sum()
    }

    /// All parts that were wanted are finished.
    pub(crate) fn end(self) {
        if let Some(directory) = &self.directory {
            if self.finished_here == 0 {
                let state = directory.join(self.state());
                self.say(&format!("NOTHING was left to do; to begin anew, remove {}", state.display()));
            }
            self.write_report();
            self.say("the report:");
            print(&self.report());
        }
    }

    /// The sums over all finished parts, and how often one was begun in vain: it failed, or was interrupted.
    fn report(&self) -> String {
        let Kept { seed, begun, parts } = &self.kept;
        let mut sums = BTreeMap::<&str, u64>::new();
        for (name, count) in parts.values().flatten() {
            *sums.entry(name).or_default() += count;
        }
        let seconds = sums.remove(MILLISECONDS).unwrap_or(0) / 1000;
        let mut text = format!("{}: {} parts finished, {seconds} s\n", self.name, parts.len());
        let _ = writeln!(text, "  found of each: {}", self.holds);
        sums.iter().for_each(|(name, sum)| _ = writeln!(text, "  {name}: {sum}"));
        seed.iter().for_each(|seed| _ = writeln!(text, "  seed: {seed}"));
        let in_vain = begun.values().sum::<u64>() - parts.len() as u64;
        let _ = writeln!(text, "  begun and not finished, by a failure or an interruption: {in_vain} times");
        for part in begun.keys().filter(|part| !parts.contains_key(*part)) {
            let _ = writeln!(text, "  not finished: {part}");
        }
        text
    }

    fn write_report(&self) {
        let Some(directory) = &self.directory else { return };
        fs::write(directory.join(format!("{}.report", self.name)), self.report()).expect("writes the report");
    }

    fn state(&self) -> String {
        format!("{}.state", self.name)
    }

    fn append(&self, line: &str) {
        let Some(directory) = &self.directory else { return };
        let state = fs::File::options().append(true).create(true).open(directory.join(self.state()));
        let line = format!("{line}\n");
        let written = std::io::Write::write(&mut state.expect("opens the state"), line.as_bytes());
        assert_eq!(written.expect("writes the state"), line.len(), "a line is written at once");
    }

    fn text(&self) -> String {
        let Some(directory) = &self.directory else { return String::new() };
        match fs::read_to_string(directory.join(self.state())) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => panic!("{}: {e}", self.state()),
        }
    }

    /// A line without an end is that of a machine that failed.
    fn drop_torn_line(&self) {
        let text = self.text();
        if !text.is_empty() && !text.ends_with('\n') {
            self.append("\ttorn");
        }
    }

    fn load(&self) -> Kept {
        let mut kept = Kept::default();
        for line in self.text().lines().filter(|line| !line.ends_with("\ttorn")) {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["seed", seed] => kept.seed = Some(seed.parse().expect("a number")),
                ["begun", part] => *kept.begun.entry(part.to_string()).or_default() += 1,
                ["done", part, ref counts @ ..] => {
                    kept.parts.insert(part.to_string(), counts.iter().map(|c| count_of(c)).collect());
                }
                _ => panic!("{}: what is {line:?}?", self.state()),
            }
        }
        kept
    }

    fn say(&self, text: &str) {
        print(&format!("  {}: {text}\n", self.name));
    }
}

/// Past the harness, which hides what passing tests print.
fn print(text: &str) {
    std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes()).expect("prints");
}

fn count_of(field: &str) -> (String, u64) {
    let (name, count) = field.rsplit_once('=').expect("a name and its count");
    (name.to_string(), count.parse().expect("a number"))
}
