//! Signatures, encoded values, lists of persistent objects, the checker. See tests/hostile/texts.rs.
#![no_main]

#[path = "../../tests/hostile/texts.rs"]
mod texts;

use std::path::PathBuf;
use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static LIST: OnceLock<PathBuf> = OnceLock::new();
    let list = LIST.get_or_init(|| format!("/dev/shm/netshm-hostile-list-{}", std::process::id()).into());
    texts::run(list, bytes);
    let _ = std::fs::remove_file(list);
});
