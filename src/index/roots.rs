//! A process's private copy of where a table's buckets are. It may be stale: the buckets tell.

use super::catalog::{self, Identity};
use crate::error::{Damage, Error, Result};
use crate::format::bucket::{LINE_BYTES, ancestor, mask};
use crate::format::lock_word::LockWord;
use crate::format::root;
use crate::format::{Offset, PAGE_BYTES, header};
use crate::os::turn::Turn;
use crate::segment::Segment;
use crate::segment::view::View;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hint of a table: its gate version, level and arrays.
///
/// Readers load `version` first and compare it with the gate's at the end. A refresh changes the other words
/// only after the shared gate has got another version, so whoever saw a mixture fails that comparison;
/// within one version, words only grow, and any mixture is a legal hint.
pub(crate) struct Roots {
    /// Which table it is, and what it is expected to be.
    identity: Identity,
    /// See `version_of`.
    version: AtomicU64,
    root: AtomicU64,
    base_level: AtomicU64,
    /// Buckets to be expected, at most `ready`; the mask for the next power of two, and that for the one before.
    expected: AtomicU64,
    mask: AtomicU64,
    half_mask: AtomicU64,
    /// Buckets that may be reached for.
    ready: AtomicU64,
    /// For the buckets whose numbers have their highest bit at n: where bucket 0 would lie if their array began with
    /// it. As many as a word has bits, so that no index needs a check.
    origins: [AtomicU64; 64],
    /// Held by the thread that refreshes.
    refreshing: Turn,
}

/// The version of a hint that says nothing: none that the gate has.
pub(super) const NOTHING_KNOWN: u64 = u64::MAX;

/// Level and number of buckets, as a [`Roots`] knew them at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Hint {
    pub(crate) version: u64,
    pub(crate) base_level: u32,
    mask: u64,
    expected: u64,
}

impl Hint {
    /// As [`Roots::guess`].
    #[inline(always)]
    pub(crate) fn index(&self, hash: u64) -> u64 {
        let i = hash & self.mask;
        if i >= self.expected { i & (self.mask >> 1) } else { i }
    }

    /// The bucket where a hash is at home, and its level, if the buckets that are expected are born, and no others.
    #[inline(always)]
    pub(crate) fn home(&self, hash: u64) -> (u64, u32) {
        let half = self.mask >> 1;
        let partner = (hash & half) | (self.mask ^ half);
        let of_partners = if partner < self.expected { self.mask } else { half };
        (hash & of_partners, of_partners.trailing_ones())
    }
}

impl Roots {
    pub(crate) fn new(identity: Identity) -> Roots {
        Roots {
            identity,
            version: AtomicU64::new(NOTHING_KNOWN),
            root: AtomicU64::new(0),
            base_level: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            mask: AtomicU64::new(0),
            half_mask: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            origins: [const { AtomicU64::new(0) }; 64],
            refreshing: Turn::new(),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The version that everything else is read under.
    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Is the hint of the version that the gate has now? The gate is not WRITING.
    #[inline(always)]
    pub(crate) fn is_current(&self, segment: &Segment, version: u64) -> bool {
        self.is_current_in(segment.view(), version)
    }

    #[inline(always)]
    pub(crate) fn is_current_in(&self, view: View<'_>, version: u64) -> bool {
        LockWord(version).unchanged_for_readers(LockWord(view.gate().load_acquire(0)))
    }

    /// The version that a hint has which was made under this word of the gate; never 0, and that of no hint
    /// while the gate is WRITING.
    #[inline(always)]
    pub(crate) fn version_of(gate: LockWord) -> u64 {
        gate.seen_by_readers() | 1
    }

    /// Is this the word of a gate that is free, under which a hint of that version is made?
    #[inline(always)]
    pub(crate) fn is_free_gate(gate: LockWord, version: u64) -> bool {
        // As a rule it is nothing but its version. For NOTHING_KNOWN that is a word which no gate ever has; a peer who
        // writes it could as well write what would be changed under it.
        // Without a call: whoever asks has a lock, and much in registers.
        gate.0.wrapping_add(1) == version || gate.is_free() && Roots::version_of(gate) == version
    }

    #[inline(always)]
    pub(crate) fn root(&self) -> Offset {
        Offset(self.root.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn base_level(&self) -> u32 {
        self.base_level.load(Ordering::Relaxed) as u32
    }

    /// What is read afterwards of where they are is not older.
    #[inline(always)]
    pub(crate) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Acquire)
    }

    /// Buckets that the hint expects to be born.
    pub(crate) fn expected(&self) -> u64 {
        self.expected.load(Ordering::Relaxed)
    }

    /// Takes note of a bucket count that was heard of; it must be at most `ready`.
    pub(crate) fn expect(&self, buckets: u64) {
        if buckets > self.expected() {
            // A refresh that comes in between may find another table, which does not have so many.
            let _turn = self.refreshing.take();
            if buckets <= self.ready() && buckets > self.expected() {
                self.set_expected(buckets);
            }
        }
    }

    /// The bucket where to look next for a hash that is at home in this one, as the level of another tells. None: the hint
    /// does not know it yet.
    ///
    /// What is permitted is advisory, so splits may come in any order, and levels differ by any number: the home may lie
    /// behind all that is ready, by the root's word. Then it is not born, and its keys are with the nearest of its ancestors
    /// that is.
    #[cold]
    #[inline(never)]
    pub(crate) fn way_to(&self, segment: &Segment, home: u64) -> Option<u64> {
        let known = self.ready();
        let mut index = home;
        if home >= known {
            if known == 0 {
                return None;
            }
            // Buckets become ready before they are born.
            let ready = segment.load_acquire(self.root().word(root::W_READY)).max(known);
            while index >= ready {
                index = ancestor(index);
            }
            if index >= known {
                return None;
            }
        }
        // A bucket that is ahead of all others says nothing about them.
        if index < segment.load(self.root().word(root::W_PERMITTED)) {
            self.expect(index + 1);
        }
        Some(index)
    }

    fn set_expected(&self, buckets: u64) {
        let mask = buckets.next_power_of_two() - 1;
        self.mask.store(mask, Ordering::Release);
        self.half_mask.store(mask >> 1, Ordering::Release);
        self.expected.store(buckets, Ordering::Release);
    }

    /// The bucket where a hash is probably at home.
    #[inline(always)]
    pub(crate) fn guess(&self, hash: u64) -> u64 {
        // What is read afterwards is not older than these.
        let i = hash & self.mask.load(Ordering::Acquire);
        let lower = i & self.half_mask.load(Ordering::Acquire);
        if i >= self.expected.load(Ordering::Acquire) { lower } else { i }
    }

    /// What `guess` goes by, read once for several keys.
    #[inline(always)]
    pub(crate) fn hint(&self) -> Hint {
        // As for `guess`, the version comes first.
        let version = self.version();
        Hint {
            version,
            mask: self.mask.load(Ordering::Acquire),
            expected: self.expected.load(Ordering::Acquire),
            base_level: self.base_level(),
        }
    }

    /// Where a bucket lies; none if it is beyond what this hint knows to be ready.
    #[inline(always)]
    pub(crate) fn bucket(&self, index: u64) -> Option<Offset> {
        if index >= self.ready() { None } else { Some(self.expected_bucket(index)) }
    }

    /// Where a bucket lies which `guess` gave, so that it is one of those that are ready. A multiple of 64.
    #[inline(always)]
    pub(crate) fn expected_bucket(&self, index: u64) -> Offset {
        let origin = self.origins[(index | 1).ilog2() as usize & 63].load(Ordering::Relaxed);
        Offset(origin.wrapping_add(index * LINE_BYTES))
    }

    /// Reads everything again. `Stale` if the object does not hold this table any more. While somebody replaces
    /// the table, `wait` is called with the gate's word again and again: it has to look after the owner's
    /// life, and to end the wait by an error when it has lasted too long.
    #[cold]
    #[inline(never)]
    pub(crate) fn refresh(
        &self,
        segment: &Segment,
        mut wait: impl FnMut(Option<LockWord>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let turn = self.refreshing.take();
            let gate = LockWord(segment.load_acquire(header::GATE));
            let writer = if gate.is_writing() {
                Some(gate)
            } else {
                let outcome = self.read(segment, Roots::version_of(gate));
                segment.fence_acquire();
                if gate.unchanged_for_readers(LockWord(segment.load(header::GATE))) {
                    // Whether pages were taken away is told before anything that follows from it.
                    return segment.require_whole().and(outcome);
                }
                self.version.store(NOTHING_KNOWN, Ordering::Release);
                None
            };
            // Others may have less patience.
            drop(turn);
            wait(writer)?;
        }
    }

    fn read(&self, segment: &Segment, version: u64) -> Result<()> {
        let root = catalog::root_of(segment, &self.identity.name)?;
        if root.is_none() {
            return Err(Error::Stale);
        }
        let base = segment.load(root.word(root::W_BASE_LEVEL));
        if root.0 % PAGE_BYTES != 0
            || !segment.contains(root, PAGE_BYTES)
            || !(root::MIN_BASE_LEVEL as u64..=root::MAX_BASE_LEVEL as u64).contains(&base)
        {
            return Err(Error::corrupt(Damage::Root, root));
        }
        let (kind, signatures) = catalog::nature(segment, root)?;
        if kind != self.identity.kind || signatures != self.identity.signatures {
            return Err(Error::Stale);
        }
        let ready = segment.load_acquire(root.word(root::W_READY));
        if self.version.load(Ordering::Relaxed) != version {
            self.version.store(NOTHING_KNOWN, Ordering::Release);
            self.expected.store(0, Ordering::Relaxed);
            self.ready.store(0, Ordering::Relaxed);
        }
        self.root.store(root.0, Ordering::Relaxed);
        self.base_level.store(base, Ordering::Relaxed);
        let base = base as u32;
        let mut first = 0;
        for k in 0..root::max_arrays(base) {
            if first >= ready {
                break;
            }
            let len = root::array_buckets(k, base);
            let at = Offset(segment.load(root.word(root::W_ARRAYS + k as u64)));
            let used = len.min(ready - first);
            if at.is_none() || at.0 % PAGE_BYTES != 0 {
                return Err(Error::corrupt(Damage::Root, root.word(root::W_ARRAYS + k as u64)));
            }
            segment.require(at, used * LINE_BYTES)?;
            // Array k > 0 has the buckets from 2^(base + k - 1) on, as many again; array 0 those before it.
            for highest_bit in (first | 1).ilog2()..(first + len).ilog2() {
                let origin = at.0.wrapping_sub(first * LINE_BYTES);
                self.origins[highest_bit as usize].store(origin, Ordering::Relaxed);
            }
            first += len;
        }
        if ready > first || ready <= mask(base) {
            return Err(Error::corrupt(Damage::Root, root.word(root::W_READY)));
        }
        self.ready.store(ready, Ordering::Release);
        let permitted = segment.load(root.word(root::W_PERMITTED)).clamp(1 << base, ready);
        if permitted != self.expected() {
            self.set_expected(permitted);
        }
        self.version.store(version, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Goal: a hint says where keys are at home, and at which level, in a table that has grown as it should. Method: all
    /// hashes of a small table, bucket by bucket split.
    #[test]
    fn homes_are_where_splits_have_put_them() {
        let roots = Roots::new(Identity::unnamed());
        roots.ready.store(1 << 10, Ordering::Relaxed);
        let mut levels = vec![6; 64];
        while levels.len() <= 300 {
            roots.set_expected(levels.len() as u64);
            for hash in 0..1u64 << 10 {
                let (index, level) = roots.hint().home(hash);
                assert_eq!(level, levels[index as usize], "{hash} of {}", levels.len());
                assert_eq!(index, hash & mask(level), "{hash} of {}", levels.len());
                assert_eq!(index, roots.guess(hash));
            }
            let parent = ancestor(levels.len() as u64) as usize;
            levels[parent] += 1;
            levels.push(levels[parent]);
        }
    }

    /// Goal: what was heard of a table is not believed of another one, which a refresh finds in its place. Method: a
    /// thread hears of many buckets in the middle of what a refresh does.
    #[test]
    fn what_was_heard_waits_for_a_refresh() {
        let roots = Roots::new(Identity::unnamed());
        roots.ready.store(64, Ordering::Relaxed);
        roots.set_expected(4);
        std::thread::scope(|threads| {
            let turn = roots.refreshing.take();
            let hears = threads.spawn(|| roots.expect(64));
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(roots.expected(), 4, "nobody else changes the hint during a refresh");
            roots.ready.store(8, Ordering::Relaxed);
            drop(turn);
            hears.join().expect("hears");
        });
        assert_eq!(roots.expected(), 4);
        roots.expect(8);
        assert_eq!(roots.expected(), 8);
    }
}
