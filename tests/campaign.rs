//! Goal: a campaign that is interrupted goes on where it was, and repeats nothing that has ended.
//! Method: this program runs itself; the first run dies within its third part of five, the second one goes on.

#[path = "support/campaign.rs"]
mod campaign;

use campaign::Campaign;
use std::process::Command;

const PARTS: u64 = 5;

#[test]
fn an_interrupted_campaign_goes_on_and_repeats_nothing() {
    if let Some(dies_in) = std::env::var_os("NETSHM_TEST_DIES_IN") {
        return run(dies_in.to_str().and_then(|n| n.parse().ok()).expect("a number"));
    }
    let directory = std::env::temp_dir().join(format!("netshm-campaign-{}", std::process::id()));
    let begin = |dies_in: u64| {
        let mut command = Command::new(std::env::current_exe().expect("knows itself"));
        command.env("NETSHM_CAMPAIGN", &directory).env("NETSHM_TEST_DIES_IN", dies_in.to_string());
        command.status().expect("runs itself").success()
    };
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("was written");
    assert!(!begin(2), "dies within its third part");
    assert_eq!(read("sample.report"), "sample: 2 parts, 0 failures, 21 operations\n");
    assert!(begin(PARTS), "goes on to its end");
    assert_eq!(read("sample.report"), "sample: 5 parts, 0 failures, 60 operations\n");
    assert_eq!(read("begun"), "0\n1\n2\n2\n3\n4\n", "only the part that was cut off is begun again");
    std::fs::remove_dir_all(directory).expect("cleans up");
}

fn run(dies_in: u64) {
    let mut campaign = Campaign::open("sample");
    let begun = std::env::var_os("NETSHM_CAMPAIGN").map(|d| std::path::Path::new(&d).join("begun"));
    for n in 0..PARTS {
        let part = format!("part {n}");
        if campaign.has_finished(&part) {
            continue;
        }
        let path = begun.as_ref().expect("has a directory");
        let before = std::fs::read_to_string(path).unwrap_or_default();
        std::fs::write(path, format!("{before}{n}\n")).expect("notes what has begun");
        if n == dies_in {
            std::process::abort();
        }
        campaign.finish(&part, &[("operations", 10 + n)]);
    }
}
