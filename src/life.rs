//! The life page: was the object left in order before the machine last went down?
//!
//! What a file's pages hold after the machine has failed is any mixture of what was last synced and what was stored
//! since. So the page says *dirty*, and says it on the device, before the first change after each synced state, and *clean*
//! after everything has been synced. Two moments count as clean: the last process has left in order, and nothing has
//! been changed since [`rest`], the end of a sync. For the latter the gate is left to nobody: its owner is
//! [`SlotIndex::AT_REST`], which whoever is about to change something finds where he looks anyhow, and takes
//! for an occasion to [`rouse`] the object. So marking costs operations nothing.
//!
//! It owns the words of the life page, which are changed only while the creation byte is locked, but for the mark of a
//! failure, which anybody may make at any time. It does not know what the object's other bytes mean.

use crate::error::{Damage, Error, Result};
use crate::format::lock_word::LockWord;
use crate::format::slot::{self, State};
use crate::format::{PAGE_BYTES, SlotIndex, header};
use crate::lock::attachment::{self, Attachment, CREATION_BYTE};
use crate::lock::{Patience, release, wake};
use crate::os::filelock::{self, Description, Spare};
use crate::os::name::Kind;
use crate::os::shm::Files;
use crate::os::time::Deadline;
use crate::os::{process, space};
use crate::segment::Segment;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a process may hold the creation byte: creation takes well below a millisecond, a clean close of
/// a large file may have to write it to its disk.
const CREATION_PATIENCE: Duration = Duration::from_secs(60);

/// The creation byte, locked.
pub(crate) struct CreationLock<'a>(Description<'a>);

impl Drop for CreationLock<'_> {
    fn drop(&mut self) {
        // Closing would not do: a child that was forked meanwhile shares the description.
        let _ = filelock::unlock_byte(self.0.as_fd(), CREATION_BYTE);
    }
}

/// Locks the creation byte. Whoever has it waits for no lock word.
pub(crate) fn lock_creation(files: &Files) -> Result<CreationLock<'static>> {
    // A description of its own, so that threads exclude each other as well.
    lock_creation_by(Description::Fresh(filelock::open_again(files)?), deadline_by(Deadline::NEVER))
}

/// The same for a registrant, who may no longer be able to open the file.
pub(crate) fn lock_creation_again<'a>(files: &Files, spare: &'a Spare) -> Result<CreationLock<'a>> {
    let deadline = deadline_by(Deadline::NEVER);
    lock_creation_by(spare.description(files, deadline)?, deadline)
}

/// The deadline for the creation byte of whoever has one of his own.
fn deadline_by(own: Deadline) -> Deadline {
    own.earlier(Deadline::after(Some(CREATION_PATIENCE)))
}

fn lock_creation_by(description: Description<'_>, deadline: Deadline) -> Result<CreationLock<'_>> {
    filelock::lock_byte(description.as_fd(), CREATION_BYTE, deadline)?;
    Ok(CreationLock(description))
}

/// What is known of an object's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// It has been used since the machine was booted, or nobody can tell.
    ThisBoot,
    /// The machine has been booted since, and had written all that was stored.
    InOrder,
    /// The machine went down before all that was stored was written.
    Unclean,
}

/// The words of a new object's life page.
pub(crate) fn first_words() -> Result<[u64; 4]> {
    let [low, high] = boot()?;
    Ok([low, high, 0, 0])
}

fn boot() -> Result<[u64; 2]> {
    let id = process::boot_id()?;
    let half = |i: usize| id[i..i + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok([half(0), half(8)])
}

/// Judges an object's past.
pub(crate) fn judge(segment: &Segment) -> Result<Past> {
    let recorded = [0, 1].map(|n| segment.load(header::LIFE_BOOT.word(n)));
    let now = boot()?;
    if recorded == now || recorded == [0; 2] || now == [0; 2] {
        return Ok(Past::ThisBoot);
    }
    // Who lives cannot have been there before the boot, whatever the system says that boots are called.
    if attachment::anybody_registered(segment)? {
        return Ok(Past::ThisBoot);
    }
    let clean = segment.load(header::LIFE_DIRTY) == segment.load(header::LIFE_CLEAN);
    Ok(if clean { Past::InOrder } else { Past::Unclean })
}

/// Fails if the object must not be used before it is checked.
pub(crate) fn require_order(segment: &Segment) -> Result<()> {
    match judge(segment)? {
        Past::Unclean => Err(Error::corrupt(Damage::Unclean, header::LIFE)),
        Past::ThisBoot | Past::InOrder => Ok(()),
    }
}

/// Did the object come to rest by a sync, with its users alive? Then its slots have owners, and its lock words may.
pub(crate) fn rests_with_users(segment: &Segment) -> bool {
    !LockWord(segment.load(header::GATE)).is_free()
        || attachment::all_slots(segment)
            .any(|(_, base)| State(segment.load(base.word(slot::W_STATE))).kind() != slot::FREE)
}

/// Before the first change of a synced state, and before the first one by a process. The creation byte is locked, and
/// the object is in order.
pub(crate) fn mark_in_use(segment: &Segment) -> Result<()> {
    for (n, half) in (0..).zip(boot()?) {
        // A death between the halves leaves another boot's id, and the object as clean or dirty as it was.
        if segment.load(header::LIFE_BOOT.word(n)) != half {
            segment.store(header::LIFE_BOOT.word(n), half);
        }
    }
    let clean = segment.load(header::LIFE_CLEAN);
    let mut dirty = segment.load(header::LIFE_DIRTY);
    if dirty == clean {
        dirty = clean.wrapping_add(1);
    }
    if segment.load(header::LIFE_NOTED) != dirty {
        // Also when it says so already: only a page that has been stored to since the device refused it is written again.
        segment.store(header::LIFE_DIRTY, dirty);
        // Header and life page: from now on the system may write any page whenever it likes.
        write_marks(segment, 2 * PAGE_BYTES)?;
        segment.store(header::LIFE_NOTED, dirty);
    }
    release(segment, header::GATE, SlotIndex::AT_REST, false);
    Ok(())
}

/// Ends the rest that a sync has left, before somebody's first change.
#[cold]
pub(crate) fn rouse(segment: &Segment, me: &Attachment, patience: Patience) -> Result<()> {
    let deadline = match patience {
        Patience::Try => Deadline::after(Some(Duration::ZERO)),
        Patience::Until(deadline) => deadline,
    };
    let deadline = deadline_by(deadline);
    let _creation = lock_creation_by(me.spare.description(segment.files(), deadline)?, deadline)?;
    mark_in_use(segment)
}

/// Ends a sync: everything is written, the object is marked clean, and the gate, which `slot` holds and has found
/// everybody to respect, becomes nobody's.
pub(crate) fn rest(segment: &Segment, me: &Attachment, slot: SlotIndex) -> Result<()> {
    let _creation = lock_creation_again(segment.files(), &me.spare)?;
    write_all(segment)?;
    // From here on nobody changes anything before the byte is free again.
    let mut gate = LockWord(segment.load_acquire(header::GATE));
    loop {
        if gate.owner() != slot {
            return Err(Error::corrupt(Damage::StrayLock, header::GATE));
        }
        let resting = gate.locked_by(SlotIndex::AT_REST, 0);
        match segment.compare_exchange(header::GATE, gate.0, resting.0) {
            Ok(_) => break,
            Err(now) => gate = LockWord(now),
        }
    }
    segment.store(header::LIFE_CLEAN, segment.load(header::LIFE_DIRTY));
    let noted = write_marks(segment, header::GATE.0 + PAGE_BYTES);
    if gate.has_sleepers() {
        wake(segment, header::GATE, i32::MAX);
    }
    noted
}

/// After this process has given up its registration: if it was the last one and everything is at rest, a
/// file is written to its device and marked clean. The creation byte is locked.
pub(crate) fn mark_clean(segment: &Segment) -> Result<()> {
    if segment.files().kind() == Kind::Posix || attachment::anybody_registered(segment)? {
        return Ok(());
    }
    let at_rest = attachment::all_slots(segment)
        .all(|(_, base)| State(segment.load(base.word(slot::W_STATE))).kind() == slot::FREE);
    if !at_rest {
        return Ok(());
    }
    write_all(segment)?;
    segment.store(header::LIFE_CLEAN, segment.load(header::LIFE_DIRTY));
    write_marks(segment, 2 * PAGE_BYTES)
}

/// A copy that nobody has used yet is written to its device, clean from the beginning.
pub(crate) fn begin_clean(segment: &Segment) -> Result<()> {
    for (n, half) in (0..).zip(boot()?) {
        segment.store(header::LIFE_BOOT.word(n), half);
    }
    let dirty = segment.load(header::LIFE_DIRTY);
    segment.store(header::LIFE_NOTED, dirty);
    segment.store(header::LIFE_CLEAN, dirty);
    segment.store(header::LIFE_FAILED, 0);
    segment.sync()
}

/// Writes everything to the device. A page that the device has once refused counts as written afterwards, so one
/// failure spoils the object for being clean until it is checked.
pub(crate) fn write_all(segment: &Segment) -> Result<()> {
    if segment.load(header::LIFE_FAILED) != 0 {
        return Err(space::refused_before());
    }
    // A process that cannot get at the file is no failure of the device's.
    segment.fd()?;
    segment.sync().inspect_err(|_| segment.store(header::LIFE_FAILED, 1))
}

/// Writes the first `len` bytes, which say whether the object is clean, to the device.
fn write_marks(segment: &Segment, len: u64) -> Result<()> {
    segment.sync_range(header::HEADER, len).inspect_err(|_| segment.store(header::LIFE_FAILED, 1))
}

/// An object that nobody uses and whose bytes have been found sound belongs to this boot now. The creation byte is
/// locked.
pub(crate) fn adopt(segment: &Segment) -> Result<()> {
    segment.store(header::LIFE_FAILED, 0);
    mark_in_use(segment)
}
