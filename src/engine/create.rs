//! Making an object and judging one that is there.
//!
//! Creation precedes all logs, so it has a lock of its own, a byte of the file. The magic is stored last:
//! without it, whoever holds the byte starts over.

use crate::error::{Damage, Error, Result};
use crate::format::header::{self, HEADER_WORDS, Header, MAGIC, MAGIC_CREATING};
use crate::format::{Offset, PAGE_BYTES};
use crate::life;
use crate::os::name::Kind;
use crate::os::shm::Files;
use crate::os::space;
use crate::segment::death_point;

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
    let _creation = life::lock_creation(files)?;
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
    words(header::LIFE, &life::first_words()?)?;
    words(header::slot_chunk(0), &[header::FIRST_CHUNK.0])?;
    words(header::USED_PAGES, &[header::FIXED_PAGES as u64])?;
    let encoded = wanted.encode();
    words(Offset(8), &encoded[1..])?;
    if files.kind() != Kind::Posix {
        // The magic on a device is to mean that the rest is there, too.
        space::sync_data(fd)?;
    }
    words(Offset(0), &[MAGIC])?;
    Ok(*wanted)
}
