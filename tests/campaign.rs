//! Goal: a campaign that is interrupted goes on where it was, and repeats nothing that is finished; its report says how often
//! it was interrupted. Method: this program runs itself; the first run is killed within its third part of five, the second
//! one goes on, and the third one finds nothing to do. In between, what a failing machine leaves of a line is appended.

#[path = "support/campaign.rs"]
#[allow(dead_code, reason = "others need more of it")]
mod campaign;

use campaign::Campaign;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

const PARTS: u64 = 5;

#[test]
fn an_interrupted_campaign_goes_on_and_repeats_nothing() {
    if let Some(dies_in) = std::env::var_os("NETSHM_TEST_DIES_IN") {
        return run(dies_in.to_str().and_then(|n| n.parse().ok()).expect("a number"));
    }
    let directory = std::env::temp_dir().join(format!("netshm-campaign-{}", std::process::id()));
    let begin = |dies_in: u64| -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().expect("knows itself"));
        command.env("NETSHM_CAMPAIGN", &directory).env("NETSHM_TEST_DIES_IN", dies_in.to_string());
        command.env_remove("NETSHM_SEED").status().expect("runs itself")
    };
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("was written");
    let report = || {
        let text = read("sample.report");
        let (head, rest) = text.split_once('\n').expect("has lines");
        assert!(head.starts_with("sample: ") && head.ends_with(" s"), "{head}");
        rest.to_string()
    };
    const HEAD: &str = "  found of each: it is a sample\n";
    const TAIL: &str = "  begun and not finished, by a failure or an interruption:";

    assert_eq!(begin(2).signal(), Some(libc::SIGKILL), "is killed within its third part");
    assert_eq!(report(), format!("{HEAD}  operations: 21\n  seed: 2\n{TAIL} 0 times\n"));
    let mut state =
        std::fs::File::options().append(true).open(directory.join("sample.state")).expect("opens");
    state.write_all(b"done\tpart 4, seed 2\toperat").expect("writes");
    assert!(begin(PARTS).success(), "goes on to its end");
    let whole = format!("{HEAD}  operations: 60\n  seed: 2\n{TAIL} 1 times\n");
    assert_eq!(report(), whole);
    assert!(begin(PARTS).success(), "has nothing to do");
    assert_eq!(report(), whole);
    assert_eq!(read("begun"), "0\n1\n2\n2\n3\n4\n", "only the part that was cut off is begun again");
    std::fs::remove_dir_all(directory).expect("cleans up");
}

fn run(dies_in: u64) {
    let mut campaign = Campaign::open("sample", "it is a sample");
    // Another one each time.
    let seed = campaign.seed(|| dies_in);
    let directory = std::env::var_os("NETSHM_CAMPAIGN").expect("has a directory");
    for n in 0..PARTS {
        if !campaign.begin(&format!("part {n}, seed {seed}")) {
            continue;
        }
        let path = Path::new(&directory).join("begun");
        let mut begun = std::fs::File::options().append(true).create(true).open(path).expect("opens");
        writeln!(begun, "{n}").expect("notes what has begun");
        if n == dies_in {
            // SAFETY: it ends this process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        campaign.finish(&[("operations", 10 + n)]);
    }
    campaign.end();
}
