//! The index: linear hashing over buckets of one cache line.
//!
//! Owns how keys map to buckets, how buckets chain, and how they split (Litwin 1980). The level is kept in
//! the bucket, so that splits may happen in any order and stale hints do no harm. It does not allocate: it
//! is handed lines, and says which lines became free.
//!
//! - [`ahead`]: asking for what several lookups will read.
//! - [`catalog`]: which tables there are.
//! - [`roots`]: this process's private hint of where the buckets are.
//! - [`find`]: looking up without a lock and without a store.
//! - [`home`]: finding a key's bucket, for whoever waits for it to change.
//! - [`hints`]: where some keys were seen.
//! - [`chain`]: reading and changing a bucket that is locked.
//! - [`mod@split`]: how a table grows, bucket by bucket.

pub(crate) mod ahead;
pub(crate) mod catalog;
pub(crate) mod chain;
pub(crate) mod find;
pub(crate) mod hints;
pub(crate) mod home;
pub(crate) mod roots;
pub(crate) mod split;

use crate::format::header::Header;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The hash function of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHash {
    /// XXH3 uses the first word as its seed, SipHash-1-3 both as its key.
    seed: [u64; 2],
    /// What XXH3 makes of its seed for keys of 16 bytes.
    flips: [u64; 2],
    is_sip: bool,
}

impl KeyHash {
    pub(crate) fn of(header: &Header) -> KeyHash {
        KeyHash::new(header.seed, header.hash == 2)
    }

    const fn new(seed: [u64; 2], is_sip: bool) -> KeyHash {
        let flips = [
            0x6782_737b_ea42_39b9_u64.wrapping_add(seed[0]),
            0xaf56_bc3b_0996_523a_u64.wrapping_sub(seed[0]),
        ];
        KeyHash { seed, flips, is_sip }
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        if self.is_sip {
            sip(&self.seed, key)
        } else if let Ok(key) = key.try_into() {
            xxh3_of_16(&self.flips, key)
        } else {
            xxhash_rust::xxh3::xxh3_64_with_seed(key, self.seed[0])
        }
    }
}

impl KeyHash {
    /// The same for a key of 16 bytes, if it takes no call.
    #[inline(always)]
    pub(crate) fn hash_usual(&self, key: &[u8; 16]) -> Option<u64> {
        if self.is_sip { None } else { Some(xxh3_of_16(&self.flips, key)) }
    }
}

/// XXH3 of 16 bytes, as it is defined for them, without a look at what it does for other lengths.
#[inline(always)]
fn xxh3_of_16(flips: &[u64; 2], key: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *key;
    let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ flips[0];
    let high = u64::from_le_bytes(rest) ^ flips[1];
    let product = u128::from(low) * u128::from(high);
    let folded = product as u64 ^ (product >> 64) as u64;
    let sum = low.swap_bytes().wrapping_add(high).wrapping_add(16).wrapping_add(folded);
    let mixed = (sum ^ (sum >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
    mixed ^ (mixed >> 32)
}

#[cold]
#[inline(never)]
fn sip(k: &[u64; 2], key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(k[0], k[1]);
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::KeyHash;

    /// Goal: objects of all versions agree where a key of 16 bytes is at home. Method: the hash written out here
    /// against the library's own, whose results are in objects that exist.
    #[test]
    fn keys_of_16_bytes_have_the_hash_that_others_have() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state ^ (state >> 29)
        };
        for round in 0..20_000 {
            let seed = [0, u64::MAX, random(), 1 << 63][round % 4];
            let mut key = [0; 16];
            key[..8].copy_from_slice(&random().to_le_bytes());
            key[8..].copy_from_slice(&random().to_le_bytes());
            let hash = KeyHash::new([seed, 0], false).hash(&key);
            assert_eq!(hash, xxhash_rust::xxh3::xxh3_64_with_seed(&key, seed), "seed {seed:x}, key {key:x?}");
        }
    }
}
