//! Whole objects: valid ones, changed by the script that the fuzzer makes up, and used by it. See tests/hostile/driver.rs.
#![no_main]

#[path = "../../tests/hostile/driver.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod driver;
mod mutate;

use driver::Place;
use mutate::Memory;
use std::sync::{LazyLock, Mutex, OnceLock};

static MEMORY: LazyLock<Mutex<Memory>> = LazyLock::new(Mutex::default);

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    static PLACE: OnceLock<Place> = OnceLock::new();
    let parts = driver::run(PLACE.get_or_init(Place::new), script);
    MEMORY.lock().expect("no panic").note(script, parts);
});

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let bytes = &mut data[..size.max(max_size)];
    // Now and then the fuzzer's own way.
    let changed =
        if seed % 8 == 0 { None } else { MEMORY.lock().expect("no panic").change(bytes, size, seed / 8) };
    changed.map_or_else(|| libfuzzer_sys::fuzzer_mutate(bytes, size, max_size), |len| len.min(max_size))
});
