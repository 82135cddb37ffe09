//! Records: lengths, padding, chains of bindings, and the hashes and comparison of their keys.

use super::claims::{Claimed, Want};
use super::fixed::Hash;
use super::layout::*;
use super::table::Tally;
use super::{Check, Step};
use crate::error::Damage;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

const LONG: u64 = 1 << 63;
/// Bits of the first word that are neither the link nor LONG.
const RESERVED: u64 = !(LONG | UNIT_MASK);
/// A seed that has nothing to do with the object's.
const SECOND_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Keys up to this length are hashed in one go.
const SHORT_KEY: usize = 256;
const PIECE: usize = 4096;

/// A key within the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    offset: u64,
    length: u64,
}

impl Check<'_> {
    /// The records of one key from the newest on. The answer is the key, if it can be read. Claims make
    /// the chain end.
    pub(super) fn bindings(&mut self, tally: &mut Tally, referrer: u64, newest: u64) -> Step<Option<Key>> {
        let mut key = None;
        let mut at = newest;
        let mut referrer = referrer;
        tally.keys += 1;
        while at != 0 {
            let Some(claimed) = self.follow(tally, referrer, at, Want::Record)? else { break };
            let Some(first) = self.word(at)? else { break };
            tally.bindings += 1;
            tally.record_bytes += claimed.size;
            let own = self.record(claimed, first)?;
            match (key, own) {
                _ if at == newest => key = own,
                (Some(key), Some(own)) if self.same_key(key, own)? == Some(false) => {
                    self.say(Damage::Record, at, "an older binding has another key".into())?;
                }
                _ => {}
            }
            referrer = at;
            at = (first & UNIT_MASK) * UNIT;
        }
        Ok(key)
    }

    /// One record; its key, if its lengths are possible.
    fn record(&mut self, claimed: Claimed, first: u64) -> Step<Option<Key>> {
        let at = claimed.offset;
        if first & RESERVED != 0 && !self.checksums {
            self.say(Damage::Record, at, format!("the record has reserved bits, {first:#x}"))?;
        }
        let Some(lengths) = self.word(at + 8)? else { return Ok(None) };
        let (header, key, value) = if first & LONG == 0 {
            (16, lengths & 0xffff_ffff, lengths >> 32)
        } else {
            // The smallest block has 32 bytes, so this header is inside of it.
            let Some([key, value]) = self.words(at + 16)? else { return Ok(None) };
            if lengths != 0 {
                self.say(
                    Damage::Record,
                    at + 8,
                    format!("the second word of a LONG record is {lengths:#x}"),
                )?;
            }
            if (key | value) >> 32 == 0 {
                self.say(Damage::Record, at, format!("a LONG record has the lengths {key} and {value}"))?;
            }
            (32, key, value)
        };
        if !fits(header, key, value, &claimed) {
            let text = format!("lengths {key} and {value} in {} bytes", claimed.size);
            return self.say(Damage::Record, at, text).map(|()| None);
        }
        if self.checksums {
            self.checksum(at, first, header + key.next_multiple_of(8) + value.next_multiple_of(8))?;
        }
        let key = Key { offset: at + header, length: key };
        self.padding(key)?;
        self.padding(Key { offset: key.offset + key.length.next_multiple_of(8), length: value })?;
        Ok(Some(key))
    }

    /// The checksum of a record is the sum of what its words but the first make together with their numbers.
    fn checksum(&mut self, at: u64, first: u64, size: u64) -> Step {
        let mut piece = [0; PIECE];
        let (mut sum, mut done) = (0_u64, 8);
        while done < size {
            let bytes = &mut piece[..(size - done).min(PIECE as u64) as usize];
            if !self.read(at + done, bytes)? {
                return Ok(());
            }
            for word in bytes.chunks_exact(8) {
                let number = done / 8 + 1;
                let word = word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
                let mut part = word ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                part = part.wrapping_mul(0xbf58_476d_1ce4_e5b9);
                part = (part ^ part >> 32).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32;
                sum = sum.wrapping_add(part);
                done += 8;
            }
        }
        let (recorded, sum) = ((first & RESERVED) >> 40, sum & (RESERVED >> 40));
        if recorded == sum {
            return Ok(());
        }
        self.say(
            Damage::Checksum,
            at,
            format!("the checksum is {recorded:#x}, that of the bytes is {sum:#x}"),
        )
    }

    /// The bytes between a key or value and the next word are zero.
    fn padding(&mut self, bytes: Key) -> Step {
        let at = bytes.offset + bytes.length / 8 * 8;
        let left = bytes.length % 8;
        if left == 0 {
            return Ok(());
        }
        match self.word(at)? {
            Some(word) if word >> (8 * left) != 0 => {
                self.say(Damage::Record, at, format!("the padding in {word:#x} is not zero"))
            }
            _ => Ok(()),
        }
    }

    /// The hash of a key by the object's hash function.
    pub(super) fn hash(&mut self, hash: Hash, key: Key) -> Step<Option<u64>> {
        if key.length <= SHORT_KEY as u64 {
            let mut bytes = [0; SHORT_KEY];
            let bytes = &mut bytes[..key.length as usize];
            return Ok(self.read(key.offset, bytes)?.then(|| match hash {
                Hash::Xxh3(seed) => xxh3_64_with_seed(bytes, seed),
                Hash::Sip(k0, k1) => {
                    let mut hasher = SipHasher13::new_with_keys(k0, k1);
                    hasher.write(bytes);
                    hasher.finish()
                }
            }));
        }
        match hash {
            Hash::Xxh3(seed) => self.hash_pieces(Xxh3::with_seed(seed), key),
            Hash::Sip(k0, k1) => self.hash_pieces(SipHasher13::new_with_keys(k0, k1), key),
        }
    }

    /// Another hash of a key.
    pub(super) fn second_hash(&mut self, key: Key) -> Step<Option<u64>> {
        self.hash_pieces(Xxh3::with_seed(SECOND_SEED), key)
    }

    fn hash_pieces(&mut self, mut hasher: impl Hasher, key: Key) -> Step<Option<u64>> {
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < key.length {
            let bytes = &mut piece[..(key.length - done).min(PIECE as u64) as usize];
            if !self.read(key.offset + done, bytes)? {
                return Ok(None);
            }
            hasher.write(bytes);
            done += bytes.len() as u64;
        }
        Ok(Some(hasher.finish()))
    }

    /// Whether two keys are equal.
    pub(super) fn same_key(&mut self, one: Key, other: Key) -> Step<Option<bool>> {
        if one.length != other.length {
            return Ok(Some(false));
        }
        let (mut piece, mut copy) = ([0; PIECE], [0; PIECE]);
        let mut done = 0;
        while done < one.length {
            let length = (one.length - done).min(PIECE as u64) as usize;
            let (piece, copy) = (&mut piece[..length], &mut copy[..length]);
            if !self.read(one.offset + done, piece)? || !self.read(other.offset + done, copy)? {
                return Ok(None);
            }
            if piece != copy {
                return Ok(Some(false));
            }
            done += length as u64;
        }
        Ok(Some(true))
    }
}

/// Whether a record with these lengths takes exactly the block or run that it is in.
fn fits(header: u64, key: u64, value: u64, claimed: &Claimed) -> bool {
    let (Some(key), Some(value)) = (key.checked_next_multiple_of(8), value.checked_next_multiple_of(8))
    else {
        return false;
    };
    let Some(size) = key.checked_add(value).and_then(|size| size.checked_add(header)) else { return false };
    match claimed.class {
        Some(class) => smallest_class(size) == Some(class),
        None => size > LARGEST_BLOCK && size.checked_next_multiple_of(PAGE) == Some(claimed.size),
    }
}
