//! Finding the bucket where a hash is at home, and nothing in it.

use super::find::{LONGEST_ROUTE, Obstacle};
use super::roots::Roots;
use crate::error::{Damage, Error};
use crate::format::Offset;
use crate::format::bucket::{self, Link, W_LINK, level_of, mask};
use crate::format::lock_word::LockWord;
use crate::segment::Segment;

/// Where a hash was at home, at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home {
    pub(crate) bucket: Offset,
    pub(crate) level: u32,
    /// The bucket's lock word; it was not WRITING.
    pub(crate) word: LockWord,
    /// The version of the gate's word under which the bucket was the table's.
    pub(crate) gate_version: u64,
}

/// Looks once, without a lock.
pub(crate) fn home(segment: &Segment, roots: &Roots, hash: u64) -> Result<Home, Obstacle> {
    let roots_version = roots.version();
    let mut index = roots.guess(hash);
    for _ in 0..LONGEST_ROUTE {
        let Some(bucket) = roots.bucket(index) else { return Err(Obstacle::Stale) };
        let word = LockWord(segment.load_acquire(bucket));
        if word.is_writing() {
            return Err(Obstacle::Writing(bucket, word.owner()));
        }
        let link = Link(segment.load(bucket.word(W_LINK)));
        let level = level_of(index, link, roots.base_level());
        segment.fence_acquire();
        if !word.unchanged_for_readers(LockWord(segment.load(bucket))) {
            return Err(Obstacle::Changed);
        }
        if !roots.is_current(segment, roots_version) {
            return Err(Obstacle::Stale);
        }
        match level {
            Some(level) if level <= bucket::MAX_LEVEL => {
                let home = hash & mask(level);
                if home == index {
                    let gate_version = LockWord(roots_version).version();
                    return Ok(Home { bucket, level, word, gate_version });
                }
                index = roots.way_to(segment, home).ok_or(Obstacle::Stale)?;
            }
            None if index != 0 => index = bucket::ancestor(index),
            _ => return Err(Obstacle::Failed(Error::corrupt(Damage::Level, bucket))),
        }
    }
    Err(Obstacle::Changed)
}
