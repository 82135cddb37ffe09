//! Changes of scripts by whoever knows where their parts begin: the driver tells it for each script that it runs.
//!
//! The fuzzer's own changes of bytes shift all that comes after them, so that it means something else. Here changes of the
//! object and steps are dropped, made, doubled, moved, and taken from other scripts as a whole.

use crate::driver::Parts;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Scripts whose parts are remembered: those that the fuzzer begins with, and the newest of the others.
const MOST_LASTING: usize = 20_000;
const MOST_RECENT: usize = 100_000;
/// Scripts that parts are taken from.
const MOST_DONORS: usize = 2000;
const MOST_CHANGES: usize = 15;
const MOST_STEPS: usize = 48;

/// Random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }
}

/// A script in its parts.
#[derive(Clone)]
struct Script {
    image: u8,
    flags: u8,
    changes: Vec<Vec<u8>>,
    cut: Vec<u8>,
    steps: Vec<Vec<u8>>,
}

impl Script {
    fn read(bytes: &[u8], parts: &Parts) -> Script {
        let part = |from: u16, to: u16| {
            let to = usize::from(to).min(bytes.len());
            bytes[usize::from(from).min(to)..to].to_vec()
        };
        let list = |starts: &[u16], end: u16| {
            let ends = starts.iter().skip(1).chain([&end]);
            starts.iter().zip(ends).map(|(from, to)| part(*from, *to)).collect::<Vec<_>>()
        };
        Script {
            image: bytes.first().copied().unwrap_or(0),
            flags: bytes.get(1).copied().unwrap_or(0),
            changes: list(&parts.changes, parts.cut.0),
            cut: part(parts.cut.0, parts.cut.1),
            steps: list(&parts.steps, parts.end),
        }
    }

    fn write(&self, into: &mut [u8]) -> usize {
        let mut bytes = vec![self.image, self.flags, self.changes.len().min(MOST_CHANGES) as u8];
        let changes = self.changes.iter().take(MOST_CHANGES);
        changes.for_each(|change| bytes.extend(change));
        if self.flags & 4 != 0 {
            bytes.extend((0..2).map(|n| self.cut.get(n).copied().unwrap_or(200)));
        }
        for step in self.steps.iter().take(MOST_STEPS) {
            if bytes.len() + step.len() > into.len() {
                break;
            }
            bytes.extend(step);
        }
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        len
    }
}

/// A change as `driver::scribble` reads it.
fn change(random: &mut Random) -> Vec<u8> {
    let how = random.byte();
    let place = usize::from(matches!(how & 7, 3 | 4 | 7));
    let value = [8, 1, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1, 0][usize::from(how >> 3 & 15)];
    let mut bytes = vec![how];
    bytes.extend(random.bytes(2 + place));
    // Small numbers mean more.
    bytes.extend((0..value).map(|n| if n > 0 && random.below(2) == 0 { 0 } else { random.byte() }));
    bytes
}

/// A step with what it may read; what it does not read is a step of its own.
fn step(random: &mut Random) -> Vec<u8> {
    let kind = match random.below(8) {
        0 => return [vec![0], change(random)].concat(),
        1..=3 => 24 + random.below(96),
        4 => 120 + random.below(48),
        5 => 168 + random.below(24),
        6 => 192 + random.below(32),
        _ => 224 + random.below(32),
    };
    let count = match kind {
        // Groups.
        192..=223 => 0,
        // Changes from callbacks.
        76..=83 | 108..=110 | 186..=187 => 8,
        _ => 2,
    };
    [vec![kind as u8], random.bytes(count)].concat()
}

/// What is known of scripts.
#[derive(Default)]
pub(crate) struct Memory {
    known: HashMap<u64, (Parts, bool)>,
    donors: Vec<Script>,
}

fn name(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Memory {
    /// A script was run.
    pub(crate) fn note(&mut self, script: &[u8], parts: Parts) {
        if self.known.len() >= MOST_LASTING + MOST_RECENT {
            self.known.retain(|_, (_, lasting)| *lasting);
        }
        let lasting = self.known.len() < MOST_LASTING;
        self.known.entry(name(script)).or_insert((parts, lasting));
    }

    /// Changes a script in place; none: it is not known.
    pub(crate) fn change(&mut self, data: &mut [u8], size: usize, seed: u32) -> Option<usize> {
        let mut random = Random(seed.into());
        let (parts, lasting) = self.known.get_mut(&name(&data[..size]))?;
        *lasting = true;
        let mut script = Script::read(&data[..size], parts);
        let donor = (!self.donors.is_empty())
            .then(|| &self.donors[random.below(self.donors.len())])
            .cloned()
            .unwrap_or_else(|| script.clone());
        if self.donors.len() < MOST_DONORS {
            self.donors.push(script.clone());
        } else if random.below(8) == 0 {
            let place = random.below(MOST_DONORS);
            self.donors[place] = script.clone();
        }
        for _ in 0..1 + random.below(3) {
            edit(&mut script, &donor, &mut random);
        }
        if random.below(4) != 0 {
            // Waiting takes time, and finds little.
            script.flags |= 32;
        }
        if random.below(8) != 0 {
            // Saving reads word by word: half of the time of a script that does it.
            script.flags &= !16;
        }
        Some(script.write(data))
    }
}

/// A few neighbours of a list.
fn some(list: &[Vec<u8>], most: usize, random: &mut Random) -> std::ops::Range<usize> {
    let first = random.below(list.len());
    first..(first + 1 + random.below(most)).min(list.len())
}

fn edit(script: &mut Script, donor: &Script, random: &mut Random) {
    let in_changes = random.below(3) == 0;
    let most = if in_changes { 2 } else { 6 };
    let kind = random.below(14);
    let (list, other) =
        if in_changes { (&mut script.changes, &donor.changes) } else { (&mut script.steps, &donor.steps) };
    match kind {
        0 | 1 => drop(list.drain(some(list, most, random))),
        2 | 3 => {
            let new = if in_changes { change(random) } else { step(random) };
            list.insert(random.below(list.len() + 1), new);
        }
        4 => {
            let again = list[some(list, most, random)].to_vec();
            let at = random.below(list.len() + 1);
            list.splice(at..at, again);
        }
        5 if list.len() > 1 => {
            let (one, two) = (random.below(list.len()), random.below(list.len()));
            list.swap(one, two);
        }
        6 | 7 => {
            let place = random.below(list.len());
            if let Some(part) = list.get_mut(place).filter(|part| !part.is_empty()) {
                let at = random.below(part.len());
                part[at] = match random.below(4) {
                    0 => part[at] ^ 1 << random.below(8),
                    1 => part[at].wrapping_add(1),
                    2 => part[at].wrapping_sub(1),
                    _ => random.byte(),
                };
            }
        }
        8 | 9 => {
            let taken = other[some(other, most, random)].to_vec();
            let at = random.below(list.len() + 1);
            let end = if random.below(2) == 0 { at } else { (at + taken.len()).min(list.len()) };
            list.splice(at..end, taken);
        }
        10 if in_changes => script.changes.clone_from(other),
        10 => {
            let at = random.below(list.len() + 1);
            list.truncate(at);
            list.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        11 if !script.changes.is_empty() => {
            // Later instead of before.
            let at = random.below(script.changes.len());
            let late = [vec![0], script.changes.remove(at)].concat();
            script.steps.insert(random.below(script.steps.len() + 1), late);
        }
        12 => script.image = random.byte() % 5,
        _ => match random.below(4) {
            0 => script.flags ^= 8,
            1 => script.flags ^= 16,
            2 => script.flags ^= 32,
            _ => (script.flags, script.cut) = (script.flags ^ 4, random.bytes(2)),
        },
    }
}
