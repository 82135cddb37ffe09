//! Pages 0 to 31: the header, and where the fixed structures lie.

use super::{Offset, PAGE_BYTES};
use crate::error::{Damage, Error, Result};

/// The magic of a finished object: `NETSHM`, 0x1A, 0x0A.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"NETSHM\x1a\x0a");
/// The magic of an object whose creation has begun and not ended.
pub(crate) const MAGIC_CREATING: u64 = u64::from_le_bytes(*b"NETSHMc\x0a");
pub(crate) const FORMAT_VERSION: u64 = 1;

/// The locking method under which a held lock keeps nobody out.
pub(crate) const LOCKING_NONE: u64 = 1;
/// The locking method under which those who wait sleep on the lock words by futexes.
pub(crate) const LOCKING_FUTEX: u64 = 3;

/// Incompatible feature: records have checksums.
pub(crate) const INCOMPAT_CHECKSUMS: u64 = 1;

// Words of page 0.
pub(crate) const W_MAGIC: u64 = 0;
pub(crate) const W_VERSION: u64 = 1;
pub(crate) const W_RO_COMPAT: u64 = 3;
pub(crate) const W_INCOMPAT: u64 = 4;
pub(crate) const W_LIBRARY: u64 = 5;
pub(crate) const W_LOCKING: u64 = 6;
pub(crate) const W_HASH: u64 = 7;
pub(crate) const W_SEED_0: u64 = 8;
pub(crate) const W_SEED_1: u64 = 9;
pub(crate) const W_PAGE_HINT: u64 = 10;
pub(crate) const W_MAX_BYTES: u64 = 11;
pub(crate) const W_IDENTITY: u64 = 12;
pub(crate) const W_SLOT_BYTES: u64 = 14;
pub(crate) const W_ARENAS: u64 = 15;
pub(crate) const HEADER_WORDS: usize = 16;

pub(crate) const HEADER: Offset = Offset(0);

// Page 1.
pub(crate) const LIFE: Offset = Offset(PAGE_BYTES);
pub(crate) const LIFE_BOOT: Offset = LIFE;
pub(crate) const LIFE_DIRTY: Offset = LIFE.word(2);
pub(crate) const LIFE_CLEAN: Offset = LIFE.word(3);
/// The dirty generation that is known to be on the device.
pub(crate) const LIFE_NOTED: Offset = LIFE.word(4);
/// Not 0: the device has refused to take something.
pub(crate) const LIFE_FAILED: Offset = LIFE.word(5);

// Page 2.
pub(crate) const GATE: Offset = Offset(2 * PAGE_BYTES);
pub(crate) const MAIN_ROOT: Offset = GATE.add(64);
/// First page of the catalog of named tables.
pub(crate) const CATALOG: Offset = GATE.add(72);
pub(crate) const RETIRE_LOCK: Offset = GATE.add(128);
pub(crate) const RETIRED: Offset = GATE.add(192);
pub(crate) const SPARE: Offset = GATE.add(200);

/// Does it lie in the page of the gate, which a process has for itself alone once `os::guard` has acted?
pub(crate) const fn is_beside_gate(at: Offset) -> bool {
    at.0 / PAGE_BYTES == GATE.0 / PAGE_BYTES
}

// Page 3.
pub(crate) const SLOT_DIRECTORY: Offset = Offset(3 * PAGE_BYTES);
pub(crate) const SLOT_CHUNKS: u32 = 14;
pub(crate) const FIRST_CHUNK_SLOTS: u64 = 8;
pub(crate) const FIRST_CHUNK: Offset = Offset(8 * PAGE_BYTES);
pub(crate) const MAX_SLOT: u32 = 65_534;

pub(crate) const fn slot_chunk(k: u32) -> Offset {
    SLOT_DIRECTORY.add(64 + 8 * k as u64)
}

// Page 4.
pub(crate) const PAGE_LOCK: Offset = Offset(4 * PAGE_BYTES);
pub(crate) const USED_PAGES: Offset = PAGE_LOCK.add(64);
pub(crate) const FREE_BACKED: Offset = PAGE_LOCK.add(72);
pub(crate) const FREE_UNBACKED: Offset = PAGE_LOCK.add(80);

/// Head of a free list.
pub(crate) const fn free_list(bin: u32, unbacked: bool) -> Offset {
    PAGE_LOCK.add(if unbacked { 512 } else { 128 } + 8 * bin as u64)
}

// Pages 5 and 6.
pub(crate) const ARENAS: u64 = 16;
pub(crate) const ARENA_BYTES: u64 = 512;

/// Lock word of an arena.
pub(crate) const fn arena(a: u64) -> Offset {
    Offset(5 * PAGE_BYTES + a * ARENA_BYTES)
}

/// Head of an arena's list of slabs of one class that have free blocks.
pub(crate) const fn arena_list(a: u64, class: u32) -> Offset {
    arena(a).add(64 + 8 * class as u64)
}

/// Pages that exist from the beginning, and where segment 0's data begin.
pub(crate) const FIXED_PAGES: u32 = 32;
/// First page of the descriptors of segment 0.
pub(crate) const DESCRIPTORS_0: u32 = 24;

const _: () = assert!(ARENAS * ARENA_BYTES <= 2 * PAGE_BYTES);
const _: () = assert!(64 + 8 * super::size_class::CLASSES as u64 <= ARENA_BYTES);
const _: () = assert!(FIRST_CHUNK.0 + FIRST_CHUNK_SLOTS * super::slot::SLOT_BYTES == 24 * PAGE_BYTES);

/// How words of an object may be reached for by whom: recorded once, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) locking: u64,
    pub(crate) hash: u64,
    pub(crate) seed: [u64; 2],
    pub(crate) page_hint: u64,
    pub(crate) max_bytes: u64,
    pub(crate) identity: [u64; 2],
    /// Records have checksums.
    pub(crate) checksums: bool,
    /// A feature that this library does not know forbids writing.
    pub(crate) must_be_read_only: bool,
}

impl Header {
    pub(crate) fn encode(&self) -> [u64; HEADER_WORDS] {
        let mut w = [0; HEADER_WORDS];
        w[W_MAGIC as usize] = MAGIC;
        w[W_VERSION as usize] = FORMAT_VERSION;
        w[W_INCOMPAT as usize] = if self.checksums { INCOMPAT_CHECKSUMS } else { 0 };
        w[W_LIBRARY as usize] = library_version();
        w[W_LOCKING as usize] = self.locking;
        w[W_HASH as usize] = self.hash;
        w[W_SEED_0 as usize] = self.seed[0];
        w[W_SEED_1 as usize] = self.seed[1];
        w[W_PAGE_HINT as usize] = self.page_hint;
        w[W_MAX_BYTES as usize] = self.max_bytes;
        w[W_IDENTITY as usize] = self.identity[0];
        w[W_IDENTITY as usize + 1] = self.identity[1];
        w[W_SLOT_BYTES as usize] = super::slot::SLOT_BYTES;
        w[W_ARENAS as usize] = ARENAS;
        w
    }

    /// Reads a header; the first thing that does not fit is the error.
    pub(crate) fn decode(w: &[u64; HEADER_WORDS]) -> Result<Header> {
        let bad = |n: u64| Err(Error::corrupt(Damage::Header, Offset(8 * n)));
        if w[W_MAGIC as usize] != MAGIC {
            return Err(Error::corrupt(Damage::Magic, Offset(0)));
        }
        if w[W_VERSION as usize] > FORMAT_VERSION {
            return Err(Error::Newer("its format version is not known here"));
        }
        if w[W_VERSION as usize] == 0 {
            return bad(W_VERSION);
        }
        if w[W_INCOMPAT as usize] & !INCOMPAT_CHECKSUMS != 0 {
            return Err(Error::Newer("it needs a feature that is not known here"));
        }
        if w[W_SLOT_BYTES as usize] != super::slot::SLOT_BYTES {
            return bad(W_SLOT_BYTES);
        }
        if w[W_ARENAS as usize] != ARENAS {
            return bad(W_ARENAS);
        }
        if !(1..=3).contains(&w[W_LOCKING as usize]) {
            return bad(W_LOCKING);
        }
        if !(1..=2).contains(&w[W_HASH as usize]) {
            return bad(W_HASH);
        }
        Ok(Header {
            locking: w[W_LOCKING as usize],
            hash: w[W_HASH as usize],
            seed: [w[W_SEED_0 as usize], w[W_SEED_1 as usize]],
            page_hint: w[W_PAGE_HINT as usize],
            max_bytes: w[W_MAX_BYTES as usize],
            identity: [w[W_IDENTITY as usize], w[W_IDENTITY as usize + 1]],
            checksums: w[W_INCOMPAT as usize] & INCOMPAT_CHECKSUMS != 0,
            must_be_read_only: w[W_RO_COMPAT as usize] != 0,
        })
    }
}

/// This library's version as the header records it.
pub(crate) fn library_version() -> u64 {
    let part = |s: &str| s.parse::<u64>().unwrap_or(0);
    (part(env!("CARGO_PKG_VERSION_MAJOR")) << 32)
        | (part(env!("CARGO_PKG_VERSION_MINOR")) << 16)
        | part(env!("CARGO_PKG_VERSION_PATCH"))
}
