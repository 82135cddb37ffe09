//! Whole objects: valid ones, changed by the script that the fuzzer makes up, and used by it. See tests/hostile/driver.rs.
#![no_main]

#[path = "../../tests/hostile/driver.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod driver;

use driver::Place;
use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    static PLACE: OnceLock<Place> = OnceLock::new();
    driver::run(PLACE.get_or_init(Place::new), script);
});
