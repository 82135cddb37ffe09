//! Goal: keys and values beyond 4 GiB are stored and come back byte for byte. Method: one value and one key of
//! 2^32 + 5 bytes, whose bytes tell their place, through add, find, replace by a short value, remove, and the checker.
//! It takes some 14 GiB of memory, so it belongs to the long form (`NETSHM_LONG=1`) alone.

mod support_processes;

use netshm::{HashTable, ManageOptions, OpenOptions};
use support_processes::{Scratch, check, long_form, skip};

const BYTES: usize = (1 << 32) + 5;
/// Memory for the object, the bytes to be stored and those that come back.
const NEEDED: u64 = 14 << 30;

/// Bytes that differ from those of any shift by a power of two below 2^33.
fn bytes_from(seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES + 8);
    for n in 0..BYTES.div_ceil(8) as u64 {
        bytes.extend_from_slice(&(n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    bytes.truncate(BYTES);
    bytes
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

#[test]
fn keys_and_values_of_more_than_four_gibibytes() {
    if !long_form() {
        return;
    }
    if available() < NEEDED {
        skip("less than 14 GiB of memory: keys and values beyond 4 GiB were NOT tested");
        return;
    }
    let scratch = Scratch::posix("gigabytes");
    let object = OpenOptions::new().create(true).open(&scratch.0).expect("opens");
    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    let value = bytes_from(1);
    t.add(b"value", &value).expect("adds");
    let same = t.view(b"value", |found| found == value.as_slice()).expect("finds");
    assert_eq!(same, Some(true), "the long value");
    t.replace(b"value", b"short").expect("replaces");
    drop(value);
    let mut key = bytes_from(2);
    t.add(&key, b"found by the long key").expect("adds");
    assert_eq!(t.find(&key).expect("finds").as_deref(), Some(&b"found by the long key"[..]));
    // A key that differs in its last byte alone.
    *key.last_mut().expect("not empty") ^= 1;
    assert_eq!(t.find(&key).expect("finds"), None);
    *key.last_mut().expect("not empty") ^= 1;
    check(&scratch.0);
    assert!(t.remove(&key).expect("removes"));
    assert_eq!(t.find(b"value").expect("finds").as_deref(), Some(&b"short"[..]));
    assert_eq!(t.len().expect("counts"), 1);
}
