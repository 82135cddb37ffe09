//! Values as numbers: each writer writes numbers that nobody else writes, and the bytes are the number again and again, so that
//! a mixture of two values shows.

/// No value. No writer writes it.
pub(crate) const ABSENT: u64 = 0;

/// Lengths of the values of each class, which the number's first byte tells. Those of the first two are integers; up to
/// 256 bytes values are changed in place; the last one has pages of its own.
const LENGTHS: [usize; 7] = [8, 8, 40, 200, 264, 1000, 70_000];

/// The number of a writer: class, process, entry in its journal, and what is below 2^16.
pub(crate) fn number(class: usize, process: usize, entry: usize, rest: u64) -> u64 {
    assert!(class < LENGTHS.len() && process < 255 && entry < 1 << 24 && rest < 1 << 16);
    (class as u64) << 56 | (process as u64 + 1) << 48 | (entry as u64) << 16 | rest
}

/// Class for a random number below 1,000: mostly short.
pub(crate) fn class(random: u64) -> usize {
    match random {
        0..300 => 0,
        300..400 => 1,
        400..600 => 2,
        600..800 => 3,
        800..950 => 4,
        950..997 => 5,
        _ => 6,
    }
}

/// Can it be incremented?
pub(crate) fn is_integer(number: u64) -> bool {
    LENGTHS[(number >> 56) as usize] == 8
}

pub(crate) fn bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(LENGTHS[(number >> 56) as usize] / 8)
}

/// The number of some bytes; none if they are a mixture, or not the whole.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let len = *LENGTHS.get((number >> 56) as usize)?;
    let whole = bytes.len() == len && bytes.chunks(8).all(|word| word == &bytes[..8]);
    whole.then_some(number)
}
