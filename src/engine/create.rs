//! Making an object and judging one that is there.
//!
//! Creation precedes all logs, so it has a lock of its own, a byte of the file. The magic is stored last:
//! without it, whoever holds the byte starts over.

use crate::error::{Damage, Error, Result};
use crate::format::header::{self, HEADER_WORDS, Header, MAGIC, MAGIC_CREATING};
use crate::format::slot::{self, State};
use crate::format::{Offset, PAGE_BYTES};
use crate::lock::attachment::{self, CREATION_BYTE};
use crate::os::name::Kind;
use crate::os::shm::Files;
use crate::os::time::Deadline;
use crate::os::{filelock, process, space};
use crate::segment::{Segment, death_point};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a process may hold the creation byte: creation takes well below a millisecond, a clean close of
/// a large file may have to write it to its disk.
const CREATION_PATIENCE: Duration = Duration::from_secs(60);

/// The creation byte, locked.
pub(super) struct CreationLock(OwnedFd);

impl Drop for CreationLock {
    fn drop(&mut self) {
        // Closing would not do: a child that was forked meanwhile shares the description.
        let _ = filelock::unlock_byte(self.0.as_fd(), CREATION_BYTE);
    }
}

/// Locks the creation byte.
pub(super) fn lock_creation(files: &Files) -> Result<CreationLock> {
    // A description of its own, so that threads exclude each other as well.
    let fd = filelock::open_again(files)?;
    filelock::lock_byte(fd.as_fd(), CREATION_BYTE, Deadline::after(Some(CREATION_PATIENCE)))?;
    Ok(CreationLock(fd))
}

/// What a file holds.
#[derive(Debug)]
pub(crate) enum Content {
    /// Nothing yet, or a creation that was cut off.
    Nothing,
    Object(Header),
}

/// Reads and judges the header.
pub(crate) fn inspect(files: &Files) -> Result<Content> {
    let size = files.size()?;
    if size == 0 {
        return Ok(Content::Nothing);
    }
    let mut bytes = [0u8; 8 * HEADER_WORDS];
    let present = bytes.len().min(size as usize);
    space::pread_exact(files.fd(), &mut bytes[..present], 0)?;
    let mut words = [0u64; HEADER_WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
    }
    if words[0] == MAGIC_CREATING {
        return Ok(Content::Nothing);
    }
    if words[0] != MAGIC {
        return Err(Error::corrupt(Damage::Magic, Offset(0)));
    }
    if present < bytes.len() || size < header::FIXED_PAGES as u64 * PAGE_BYTES {
        return Err(Error::corrupt(Damage::Truncated, Offset(size)));
    }
    Header::decode(&words).map(Content::Object)
}

/// Makes an empty object, unless somebody else was faster. Gives the header that counts.
pub(crate) fn create(files: &Files, wanted: &Header) -> Result<Header> {
    let _creation = lock_creation(files)?;
    if let Content::Object(header) = inspect(files)? {
        return Ok(header);
    }
    if wanted.max_bytes != 0 && wanted.max_bytes < header::FIXED_PAGES as u64 * PAGE_BYTES {
        return Err(Error::NoSpace);
    }
    let fd = files.fd();
    if files.size()? != 0 {
        if files.kind() == Kind::Anon {
            space::punch(fd, 0, files.size()?)?;
        } else {
            // Nobody maps an object without magic.
            space::shrink_to_zero(fd)?;
        }
    }
    let words = |offset: Offset, values: &[u64]| {
        death_point();
        let bytes: Vec<u8> = values.iter().flat_map(|w| w.to_le_bytes()).collect();
        space::pwrite_all(fd, &bytes, offset.0)
    };
    words(Offset(0), &[MAGIC_CREATING])?;
    death_point();
    space::allocate(fd, 0, header::FIXED_PAGES as u64 * PAGE_BYTES)?;
    words(header::LIFE, &life_words(0, 0))?;
    words(header::slot_chunk(0), &[header::FIRST_CHUNK.0])?;
    words(header::USED_PAGES, &[header::FIXED_PAGES as u64])?;
    let encoded = wanted.encode();
    words(Offset(8), &encoded[1..])?;
    words(Offset(0), &[MAGIC])?;
    Ok(*wanted)
}

fn life_words(dirty: u64, clean: u64) -> [u64; 4] {
    let boot = process::boot_id();
    let half = |i: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&boot[i..i + 8]);
        u64::from_le_bytes(word)
    };
    [half(0), half(8), dirty, clean]
}

/// Before the first change by this process: an object that was in use when the machine last went down has
/// stale locks and half-written logs, which must not be touched. The creation byte is locked.
pub(super) fn mark_in_use(segment: &Segment) -> Result<()> {
    let now: Vec<u64> = (0..4).map(|n| segment.load(header::LIFE.word(n))).collect();
    let (dirty, clean) = (now[2], now[3]);
    let fresh = life_words(0, 0);
    let unknown_boot = fresh[..2] == [0, 0] || now[..2] == [0, 0];
    if now[..2] != fresh[..2] && !unknown_boot && dirty != clean {
        return Err(Error::corrupt(Damage::Unclean, header::LIFE));
    }
    if dirty == clean {
        segment.store(header::LIFE_DIRTY, clean.wrapping_add(1));
    }
    if now[..2] != fresh[..2] {
        // Both halves or neither: the object is dirty already, so a death in between leads to an error that
        // is found, not to a replay.
        segment.store(header::LIFE_BOOT, fresh[0]);
        segment.store(header::LIFE_BOOT.word(1), fresh[1]);
    }
    Ok(())
}

/// After this process has given up its registration: if it was the last one and everything is at rest, a
/// file is written to its disk and marked clean. The creation byte is locked.
pub(super) fn mark_clean(segment: &Segment) -> Result<()> {
    if segment.files().kind() != Kind::File || attachment::anybody_registered(segment)? {
        return Ok(());
    }
    let at_rest = attachment::all_slots(segment)
        .all(|(_, base)| State(segment.load(base.word(slot::W_STATE))).kind() == slot::FREE);
    if !at_rest {
        return Ok(());
    }
    segment.sync()?;
    segment.store(header::LIFE_CLEAN, segment.load(header::LIFE_DIRTY));
    segment.sync()
}
