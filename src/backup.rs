//! A copy of a live object, consistent, while others work.
//!
//! The file is copied while everybody goes on, and again where it has changed meanwhile, until little changes. Then
//! writers are kept out by the gate, for as long as it takes to compare the object with the copy and to bring the rest over. What
//! the copy then holds of its users (slots, locks) is put in order there: nobody but this process knows it yet.
//!
//! Nothing is copied through the mapping: reading memory that has been given back would allocate it again, or fail with
//! a signal on a full device.

use crate::engine::Engine;
use crate::error::{Damage, Error, Result};
use crate::format::bucket::LINE_BYTES;
use crate::format::pages::{self, Head};
use crate::format::{PAGE_BYTES, Page, header};
use crate::life;
use crate::lock::Patience;
use crate::os::draft::Draft;
use crate::os::name::Name;
use crate::os::shm::Files;
use crate::os::{process, space};
use crate::segment::Segment;
use crate::settle;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes compared and copied at a time: what stays in the processor's cache.
const PIECE_BYTES: u64 = 128 << 10;
/// Passes without the gate, and how little has to have changed in one for the next to be the last.
const MOST_PASSES: u32 = 4;
const FEW_BYTES: u64 = 1 << 20;

/// What a backup has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// Length of the copy in bytes, holes included.
    pub size_bytes: u64,
    /// How long writers were kept out.
    pub writers_stopped: Duration,
    /// How many bytes had to be copied during that time.
    pub copied_meanwhile: u64,
}

/// Copies an object to a new name.
pub(crate) fn backup(
    engine: &Engine,
    to: &Name,
    mode: u32,
    replace: bool,
    patience: Patience,
) -> Result<Backup> {
    if !engine.is_writable() {
        return Err(Error::ReadOnly);
    }
    // Asked before anything is copied: in a group the copy would wait for itself.
    if engine.enter(patience)?.in_group() {
        return Err(Error::InGroup("making a backup"));
    }
    if Draft::is_at(to, engine.segment.files().identity())? {
        let argument = if matches!(to, Name::File(_)) { "file_name" } else { "mem_name" };
        return Err(Error::Invalid { argument, reason: "it is the object's own: backups go elsewhere" });
    }
    let (draft, files) = Draft::begin(to, mode, replace)?;
    let copy = Copy { from: engine.segment.fd()?, to: files.fd() };
    for _ in 0..MOST_PASSES {
        if copy.pass()? < FEW_BYTES {
            break;
        }
    }
    let (writers_stopped, copied_meanwhile) = last_pass(engine, &copy, patience)?;
    let size_bytes = finish(files)?;
    draft.publish()?;
    Ok(Backup { size_bytes, writers_stopped, copied_meanwhile })
}

/// Brings over what has changed, while nobody changes anything.
fn last_pass(engine: &Engine, copy: &Copy, patience: Patience) -> Result<(Duration, u64)> {
    let mut entered = engine.enter(patience)?;
    let mut w = entered.writer(patience);
    let start = Instant::now();
    let outcome = w.lock_gate().and_then(|()| copy.pass());
    w.abort();
    Ok((start.elapsed(), outcome?))
}

/// Two files, of which one becomes like the other.
struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
}

impl Copy<'_> {
    /// Copies what differs, and gives the number of bytes. Where one has a hole, the other gets one.
    fn pass(&self) -> Result<u64> {
        let size = space::file_size(self.from)?;
        space::lengthen(self.to, size)?;
        let (mut copied, mut at) = (0, 0);
        let mut pieces = Pieces::new();
        while at < size {
            let data = space::data_from(self.from, at)?.unwrap_or(size..size);
            let data = data.start.min(size)..data.end.min(size);
            self.clear(at..data.start)?;
            at = data.start;
            while at < data.end {
                let len = (data.end - at).min(PIECE_BYTES - at % PIECE_BYTES);
                copied += self.piece(&mut pieces, at, len as usize)?;
                at += len;
            }
        }
        Ok(copied)
    }

    /// What the object has given back to the system must not come back to life in the copy: zeros count on it.
    fn clear(&self, range: std::ops::Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let data = space::data_from(self.to, at)?.filter(|data| data.start < range.end);
            let Some(data) = data else { break };
            space::punch(self.to, data.start, data.end.min(range.end) - data.start)?;
            at = data.end;
        }
        Ok(())
    }

    fn piece(&self, pieces: &mut Pieces, at: u64, len: usize) -> Result<u64> {
        let (from, to) = (&mut pieces.from[..len], &mut pieces.to[..len]);
        space::pread_exact(self.from, from, at)?;
        space::pread_exact(self.to, to, at)?;
        if from == to {
            return Ok(0);
        }
        // The pages that differ, neighbours together.
        let page = PAGE_BYTES as usize;
        let differs = |p: usize| {
            let range = p * page..((p + 1) * page).min(len);
            from[range.clone()] != to[range]
        };
        let (mut copied, mut p) = (0, 0);
        while p * page < len {
            let first = p;
            while p * page < len && differs(p) {
                p += 1;
            }
            if p > first {
                let range = first * page..(p * page).min(len);
                copied += range.len() as u64;
                space::pwrite_all(self.to, &from[range.clone()], at + range.start as u64)?;
            }
            p += 1;
        }
        Ok(copied)
    }
}

struct Pieces {
    from: Box<[u8]>,
    to: Box<[u8]>,
}

impl Pieces {
    fn new() -> Pieces {
        let piece = || vec![0; PIECE_BYTES as usize].into_boxed_slice();
        Pieces { from: piece(), to: piece() }
    }
}

/// Makes an object in order of a copy that has come to its end, and writes it to its device. Gives its length.
fn finish(files: Files) -> Result<u64> {
    let size = files.size()?;
    let copy = Segment::map(Arc::new(files), size, true, false, false)?;
    // First memory for all that is looked at through the mapping: a hole there would take some, or end the process
    // where there is none.
    back(&copy)?;
    settle::bring_to_rest(&copy)?;
    let mut identity = [0; 16];
    process::random_bytes(&mut identity)?;
    for (n, half) in identity.chunks_exact(8).enumerate() {
        let half = half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        copy.store(header::HEADER.word(header::W_IDENTITY + n as u64), half);
    }
    life::begin_clean(&copy)?;
    Ok(size)
}

/// Gives memory to all that has memory in the object: the copy of memory without content is a hole.
fn back(copy: &Segment) -> Result<()> {
    let used = copy.load(header::USED_PAGES).min(copy.limit() / PAGE_BYTES);
    let allocate = |first: u64, end: u64| copy.back(Page(first as u32).offset(), (end - first) * PAGE_BYTES);
    let mut page = 0;
    while page < used {
        let segment = pages::segment_of(page);
        if page == segment.first {
            // The fixed pages, and descriptors as far as there are pages to be described.
            let described = (used.min(segment.end) - segment.first) * pages::DESCRIPTOR_BYTES;
            let end = if page == 0 { segment.data } else { page + described.div_ceil(PAGE_BYTES) };
            allocate(page, end.min(segment.data))?;
            page = segment.data;
            continue;
        }
        let at = pages::descriptor(Page(page as u32));
        let head = Head(copy.load(at));
        let end = page + u64::from(head.number());
        if !matches!(head.kind(), pages::FREE | pages::RUN | pages::SLAB) || end == page || end > segment.end
        {
            return Err(Error::corrupt(Damage::PageMap, at));
        }
        if !head.unbacked() {
            allocate(page, end.min(used))?;
        }
        page = end;
    }
    for root in settle::roots(copy)? {
        for (first, buckets) in settle::bucket_arrays(copy, root)? {
            copy.back(first, buckets * LINE_BYTES)?;
        }
    }
    Ok(())
}

const _: () = assert!(PIECE_BYTES % PAGE_BYTES == 0);
