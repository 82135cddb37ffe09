//! Goal: no bytes whatever make the checker panic, run on, or take memory without bound. Method: random
//! changes to the sample object, and fields at their extremes.

use super::test_image::Object;
use super::tests::sample;
use super::{Bytes, Options, Summary, check};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// A word that is likelier to be understood than noise.
    fn value(&mut self, bytes: &[u8]) -> u64 {
        let pages = bytes.len() as u64 / 4096;
        match self.below(8) {
            0 => self.next(),
            1 => self.below(300),
            2 => 1 << self.below(64),
            3 => u64::MAX >> self.below(64),
            4 => self.below(pages) * 4096,
            5 => self.below(pages * 256) * 16,
            6 => word(bytes, self.below(pages * 512)),
            _ => self.below(pages) | self.below(pages) << 32,
        }
    }
}

fn word(bytes: &[u8], n: u64) -> u64 {
    u64::from_le_bytes(bytes[8 * n as usize..][..8].try_into().unwrap())
}

fn survive(bytes: &[u8], own_slot: u16) -> Summary {
    let mut left = 100_000_u64;
    check(&Bytes(bytes), &Options { own_slot, ..Options::default() }, &mut |_| {
        left -= 1;
        left > 0
    })
}

#[test]
fn random_words() {
    let bytes = sample().o.flatten();
    // Words that are not zero lie densely among those that matter.
    let meaning: Vec<u64> = (0..bytes.len() as u64 / 8).filter(|&n| word(&bytes, n) != 0).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let rounds = std::env::var("NETSHM_FUZZ_ROUNDS").map_or(3000, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        let mut copy = bytes.clone();
        for _ in 0..=random.below(6) {
            let near = meaning[random.below(meaning.len() as u64) as usize];
            let n = match random.below(4) {
                0 => random.below(bytes.len() as u64 / 8),
                1 => (near + random.below(8)).min(bytes.len() as u64 / 8 - 1),
                _ => near,
            } as usize;
            let value = match random.below(3) {
                0 => word(&bytes, n as u64) ^ 1 << random.below(64),
                _ => random.value(&bytes),
            };
            copy[8 * n..8 * n + 8].copy_from_slice(&value.to_le_bytes());
        }
        copy.truncate(
            bytes.len() - if random.below(10) == 0 { random.below(bytes.len() as u64) as usize } else { 0 },
        );
        survive(&copy, random.below(4) as u16);
    }
}

#[test]
fn noise_and_nothing() {
    let mut random = Random(1);
    let header = Object::new().flatten();
    for length in [0, 1, 8, 4096, 32 * 4096, 200 * 4096] {
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        survive(&bytes, 1);
        bytes.fill(0);
        survive(&bytes, 1);
        bytes.fill(0xff);
        survive(&bytes, 1);
        if bytes.len() >= 4096 {
            bytes[..4096].copy_from_slice(&header[..4096]);
            survive(&bytes, 1);
        }
    }
}

#[test]
fn huge_claims_in_a_small_file() {
    // Descriptors may claim runs that the file does not have; the largest table must not cost anything.
    let mut o = Object::new();
    let root = o.run(4, 1);
    o.set(2 * 4096 + 64, root);
    for (word, value) in [(0, 1), (1, 20), (9, 1 << 40)] {
        o.set(root + 8 * word, value);
    }
    let size = o.size;
    for k in 0..10 {
        let buckets = if k == 0 { 1_u64 << 20 } else { 1 << (19 + k) };
        let run = o.run(2, buckets / 64);
        o.set(root + 8 * (32 + k), run);
    }
    o.set(root + 72, 1 << 29);
    o.size = size + (1 << 20);
    let mut findings = 0;
    let summary = check(&o, &Options::default(), &mut |_| {
        findings += 1;
        true
    });
    assert!(findings > 0 && !summary.complete);
}

/// A million keys. `cargo test --release -- --ignored --nocapture million`
#[test]
#[ignore = "measures time"]
fn million_keys() {
    let mut o = Object::new();
    let root = o.root(18);
    o.set(2 * 4096 + 64, root);
    for n in 0..1_000_000_u64 {
        o.insert(root, format!("{n:016}").as_bytes(), &[n as u8; 64]);
    }
    let bytes = o.flatten();
    let begin = std::time::Instant::now();
    let summary = check(&Bytes(&bytes), &Options::default(), &mut |finding| panic!("{finding:?}"));
    println!("{summary:?} in {:?}", begin.elapsed());
    assert_eq!((summary.keys, summary.complete), (1_000_000, true));
}
