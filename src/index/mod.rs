//! The index: linear hashing over buckets of one cache line.
//!
//! Owns how keys map to buckets, how buckets chain, and how they split (Litwin 1980). The level is kept in
//! the bucket, so that splits may happen in any order and stale hints do no harm. It does not allocate: it
//! is handed lines, and says which lines became free.
//!
//! - [`catalog`]: which tables there are.
//! - [`roots`]: this process's private hint of where the buckets are.
//! - [`find`]: looking up without a lock and without a store.
//! - [`home`]: finding a key's bucket, for whoever waits for it to change.
//! - [`hints`]: where some keys were seen.
//! - [`chain`]: reading and changing a bucket that is locked.
//! - [`mod@split`]: how a table grows, bucket by bucket.

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
pub(crate) enum KeyHash {
    Xxh3 { seed: u64 },
    SipHash13 { key: [u64; 2] },
}

impl KeyHash {
    pub(crate) fn of(header: &Header) -> KeyHash {
        if header.hash == 2 {
            KeyHash::SipHash13 { key: header.seed }
        } else {
            KeyHash::Xxh3 { seed: header.seed[0] }
        }
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        match self {
            KeyHash::Xxh3 { seed } => xxhash_rust::xxh3::xxh3_64_with_seed(key, *seed),
            KeyHash::SipHash13 { key: k } => sip(k, key),
        }
    }
}

#[inline(never)]
fn sip(k: &[u64; 2], key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(k[0], k[1]);
    hasher.write(key);
    hasher.finish()
}
