//! What a long campaign has done so far: its finished parts and what each has counted, kept in a directory so that the same
//! command goes on after an interruption. Without a directory it only counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

pub struct Campaign {
    name: &'static str,
    directory: Option<PathBuf>,
    /// Per finished part, its counts by name.
    parts: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Campaign {
    /// The campaign of this name in the directory that `NETSHM_CAMPAIGN` names, if it does.
    pub fn open(name: &'static str) -> Campaign {
        let directory = std::env::var_os("NETSHM_CAMPAIGN").map(PathBuf::from);
        let mut campaign = Campaign { name, directory, parts: BTreeMap::new() };
        let Some(directory) = &campaign.directory else { return campaign };
        std::fs::create_dir_all(directory).expect("has a directory for the campaign");
        let state = directory.join(format!("{name}.state"));
        match std::fs::read_to_string(&state) {
            Ok(text) => campaign.parts = text.lines().map(part_of).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => panic!("{}: {e}", state.display()),
        }
        println!("  {name}: goes on after {} parts", campaign.parts.len());
        campaign
    }

    pub fn has_finished(&self, part: &str) -> bool {
        self.parts.contains_key(part)
    }

    /// A part has ended well: it is kept, with what it counted, before the next one begins.
    pub fn finish(&mut self, part: &str, counts: &[(&str, u64)]) {
        assert!(!part.contains(['\t', '\n']), "a part has a name of one word or several: {part:?}");
        let counts = counts.iter().map(|(name, count)| (name.to_string(), *count)).collect();
        self.parts.insert(part.to_string(), counts);
        let Some(directory) = &self.directory else { return };
        println!("  {}: {part} is done, {} parts in all", self.name, self.parts.len());
        let mut text = String::new();
        for (part, counts) in &self.parts {
            text += part;
            counts.iter().for_each(|(name, count)| _ = write!(text, "\t{name}={count}"));
            text += "\n";
        }
        // The new state takes the place of the old one at once.
        let draft = directory.join(format!("{}.state.new", self.name));
        std::fs::write(&draft, text).expect("writes the state");
        std::fs::rename(draft, directory.join(format!("{}.state", self.name))).expect("keeps the state");
        let report = directory.join(format!("{}.report", self.name));
        std::fs::write(report, self.report()).expect("writes the report");
    }

    /// The sums over all parts. A part that fails is never finished.
    pub fn report(&self) -> String {
        let mut sums = BTreeMap::<&str, u64>::new();
        for (name, count) in self.parts.values().flatten() {
            *sums.entry(name).or_default() += count;
        }
        let mut text = format!("{}: {} parts, 0 failures", self.name, self.parts.len());
        sums.iter().for_each(|(name, sum)| _ = write!(text, ", {sum} {name}"));
        text + "\n"
    }
}

fn part_of(line: &str) -> (String, BTreeMap<String, u64>) {
    let mut fields = line.split('\t').map(str::to_string);
    let part = fields.next().expect("the name of a part");
    let count = |field: String| {
        let (name, count) = field.rsplit_once('=').expect("a name and its count");
        (name.to_string(), count.parse().expect("a number"))
    };
    (part, fields.map(count).collect())
}
