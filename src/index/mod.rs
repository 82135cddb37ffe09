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
    is_sip: bool,
}

impl KeyHash {
    pub(crate) fn of(header: &Header) -> KeyHash {
        KeyHash { seed: header.seed, is_sip: header.hash == 2 }
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        if self.is_sip {
            sip(&self.seed, key)
        } else {
            xxhash_rust::xxh3::xxh3_64_with_seed(key, self.seed[0])
        }
    }
}

#[inline(never)]
fn sip(k: &[u64; 2], key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(k[0], k[1]);
    hasher.write(key);
    hasher.finish()
}
