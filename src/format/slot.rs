//! A slot: the place of one participant, 8192 bytes. Word numbers and packings.

use super::{Offset, doubling_chunk_len};

pub(crate) const SLOT_BYTES: u64 = 8192;
pub(crate) const SLOT_WORDS: usize = SLOT_BYTES as usize / 8;

pub(crate) const W_STATE: u64 = 0;
pub(crate) const W_COMMIT: u64 = 1;
pub(crate) const W_LIST_LEN: u64 = 2;
pub(crate) const W_PID: u64 = 5;
pub(crate) const W_AGE: u64 = 6;
pub(crate) const W_PID_NAMESPACE: u64 = 7;
pub(crate) const W_VICTIM: u64 = 8;
pub(crate) const W_WAIT_TARGET: u64 = 16;
pub(crate) const W_WAIT_SEQUENCE: u64 = 17;
pub(crate) const W_PENDING: u64 = 24;
pub(crate) const W_RESERVE_LEN: u64 = 25;
pub(crate) const W_MAGAZINE: u64 = 416;
pub(crate) const MAGAZINE_CELLS: u64 = 16;

/// A sequence of words that begins in the slot and goes on in extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growable {
    pub(crate) inline_word: u64,
    pub(crate) inline_len: u64,
    pub(crate) extensions_word: u64,
}

pub(crate) const LOCK_LIST: Growable = Growable { inline_word: 96, inline_len: 64, extensions_word: 48 };
pub(crate) const LOG: Growable = Growable { inline_word: 160, inline_len: 256, extensions_word: 32 };
pub(crate) const RESERVE: Growable = Growable { inline_word: 976, inline_len: 32, extensions_word: 64 };
pub(crate) const EXTENSIONS: u32 = 16;
/// Words in extension 0; each further one has twice as many.
pub(crate) const EXTENSION_0_WORDS: u64 = 512;

/// Where an element of a [`Growable`] lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Word of the slot.
    Inline(u64),
    /// Extension, and word in it.
    Extension(u32, u64),
    /// Beyond the last extension.
    Beyond,
}

impl Growable {
    pub(crate) const fn place(&self, n: u64) -> Place {
        if n < self.inline_len {
            return Place::Inline(self.inline_word + n);
        }
        let m = (n - self.inline_len) / EXTENSION_0_WORDS + 1;
        let k = m.ilog2();
        if k >= EXTENSIONS {
            return Place::Beyond;
        }
        Place::Extension(k, n - self.inline_len - EXTENSION_0_WORDS * ((1 << k) - 1))
    }
}

/// Pages of extension `k`.
pub(crate) const fn extension_pages(k: u32) -> u32 {
    1 << k
}

/// Magazine cell `i` of a class, as an offset from the slot's beginning.
#[inline(always)]
pub(crate) const fn magazine_word(class: u32, i: u64) -> u64 {
    W_MAGAZINE + class as u64 * MAGAZINE_CELLS + i
}

// The state word.
pub(crate) const FREE: u64 = 0;
pub(crate) const ACTIVE: u64 = 1;
pub(crate) const RECOVERING: u64 = 2;

/// A slot's state word: whose it is, and how often it has changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u64);

impl State {
    pub(crate) const fn new(state: u64, registration: u32, generation: u32) -> State {
        State(state | ((registration as u64 & 0xff_ffff) << 8) | ((generation as u64) << 32))
    }
    pub(crate) const fn kind(self) -> u64 {
        self.0 & 0xff
    }
    pub(crate) const fn registration(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff_ffff
    }
    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

// The commit word.
pub(crate) const IDLE: u64 = 0;
pub(crate) const COMMITTED: u64 = 1;
pub(crate) const APPLIED: u64 = 2;

#[inline(always)]
pub(crate) const fn commit_word(phase: u64, log_words: u64) -> u64 {
    phase | (log_words << 8)
}

pub(crate) const fn commit_phase(word: u64) -> u64 {
    word & 0xff
}

pub(crate) const fn commit_log_words(word: u64) -> u64 {
    word >> 8
}

/// What a waiting slot waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitTarget {
    Nothing,
    Lock(Offset),
    Slot(super::SlotIndex),
}

impl WaitTarget {
    pub(crate) const fn encode(self) -> u64 {
        match self {
            WaitTarget::Nothing => 0,
            WaitTarget::Lock(offset) => offset.0,
            WaitTarget::Slot(slot) => 2 * slot.0 as u64 + 1,
        }
    }
    pub(crate) const fn decode(word: u64) -> WaitTarget {
        if word == 0 {
            WaitTarget::Nothing
        } else if word & 1 == 1 {
            WaitTarget::Slot(super::SlotIndex((word >> 1) as u16))
        } else {
            WaitTarget::Lock(Offset(word))
        }
    }
}

const _: () = assert!(LOCK_LIST.inline_word + LOCK_LIST.inline_len == LOG.inline_word);
const _: () = assert!(LOG.inline_word + LOG.inline_len == W_MAGAZINE);
const _: () = assert!(W_MAGAZINE + super::size_class::CLASSES as u64 * MAGAZINE_CELLS == RESERVE.inline_word);
const _: () = assert!((RESERVE.inline_word + RESERVE.inline_len) * 8 <= SLOT_BYTES);
const _: () = assert!(doubling_chunk_len(13, 8) == 32_768);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growable_places_tile_the_extensions() {
        let mut expected = (0, 0);
        for n in LOG.inline_len..LOG.inline_len + 512 * 7 {
            assert_eq!(LOG.place(n), Place::Extension(expected.0, expected.1), "element {n}");
            expected.1 += 1;
            if expected.1 == 512 << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(LOG.place(255), Place::Inline(415));
        assert_eq!(LOG.place(u64::MAX / 2), Place::Beyond);
    }

    #[test]
    fn state_fields_do_not_overlap() {
        let s = State::new(RECOVERING, 0xab_cdef, 0x1234_5678);
        assert_eq!((s.kind(), s.registration(), s.generation()), (RECOVERING, 0xab_cdef, 0x1234_5678));
    }
}
