//! This process as a registrant of an object: who lives, and which slots are whose.
//!
//! Liveness rests on a file lock that the kernel drops when the process is gone, however it goes. Nobody
//! is judged by process id alone.

use crate::error::{Error, Result};
use crate::format::slot::{self, State};
use crate::format::{Offset, SlotIndex, doubling_chunk, doubling_chunk_len, header};
use crate::os::{filelock, process};
use crate::segment::Segment;
use std::sync::Arc;

/// Byte of the file, far beyond its end, that is locked while the object is created or adopted.
pub(crate) const CREATION_BYTE: i64 = 1 << 61;
/// Registration n locks this byte plus n.
const REGISTRATION_BASE: i64 = (1 << 61) + (1 << 32);
const MAX_REGISTRATION: u32 = 0xff_ffff;

/// A registration of this process, and what it needs to judge others.
pub(crate) struct Attachment {
    registration: filelock::Registration,
    /// For the creation byte, when the file can no longer be opened.
    pub(crate) spare: Arc<filelock::Spare>,
    pub(crate) pid: u32,
    pub(crate) pid_namespace: u64,
    /// Fork epoch of the process that registered.
    pub(crate) epoch: u64,
    /// False for the locking method NONE.
    exclusive_locks: bool,
}

/// What is known of a slot's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// Dead; the state that was seen, to be taken over.
    Dead(State),
    /// The slot is free.
    NobodyThere,
}

impl Attachment {
    /// Registers this process.
    pub(crate) fn register(segment: &Segment, exclusive_locks: bool) -> Result<Attachment> {
        let registration =
            filelock::Registration::take(segment.files(), REGISTRATION_BASE, MAX_REGISTRATION)?;
        Ok(Attachment {
            registration,
            spare: Arc::new(filelock::Spare::open(segment.files())?),
            pid: process::pid(),
            pid_namespace: process::pid_namespace(),
            epoch: process::fork_epoch(),
            exclusive_locks,
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.registration.number()
    }

    /// Does a held lock keep others out?
    #[inline(always)]
    pub(crate) fn locks_exclude(&self) -> bool {
        self.exclusive_locks
    }

    /// Does the owner of a slot live?
    pub(crate) fn life_of(&self, segment: &Segment, slot: SlotIndex) -> Result<Life> {
        let Some(base) = slot_base(segment, slot) else {
            return Err(Error::corrupt(crate::error::Damage::StrayLock, Offset(slot.0 as u64)));
        };
        life_at(segment, base, Some(self.number()))
    }

    /// Process id of a slot's owner, 0 if unknown.
    pub(crate) fn pid_of(&self, segment: &Segment, slot: SlotIndex) -> u32 {
        pid_of(segment, slot)
    }
}

/// Does the slot at `base` hold no lock that counts for the holder of the gate: none at all, or just the
/// gate, for which it can only be waiting?
pub(crate) fn holds_nothing(segment: &Segment, base: Offset) -> bool {
    match segment.load_acquire(base.word(slot::W_LIST_LEN)) {
        0 => true,
        1 => segment.load_acquire(base.word(slot::LOCK_LIST.inline_word)) == header::GATE.0,
        _ => false,
    }
}

/// Process id recorded by a slot's owner, 0 if unknown.
pub(crate) fn pid_of(segment: &Segment, slot: SlotIndex) -> u32 {
    slot_base(segment, slot).map_or(0, |base| segment.load(base.word(slot::W_PID)) as u32)
}

/// The life of the owner of the slot at `base`. `mine` is this process's own registration, which is never
/// judged by its lock: a process does not see its own.
pub(crate) fn life_at(segment: &Segment, base: Offset, mine: Option<u32>) -> Result<Life> {
    let state = State(segment.load_acquire(base.word(slot::W_STATE)));
    if state.kind() == slot::FREE {
        return Ok(Life::NobodyThere);
    }
    if mine == Some(state.registration()) {
        return Ok(Life::Alive);
    }
    let fd = segment.fd()?;
    let registered = filelock::registration_alive(fd, REGISTRATION_BASE, state.registration())?;
    if !registered {
        return Ok(Life::Dead(state));
    }
    // A process that forked just while it registered may have left the lock to its child. Its process id tells,
    // if both are in one namespace; it is 0 from before the slot is free until after it is claimed.
    let pid = segment.load_acquire(base.word(slot::W_PID)) as u32;
    let namespace = segment.load(base.word(slot::W_PID_NAMESPACE));
    let gone = state.kind() == slot::ACTIVE && pid != 0 && process::is_dead(pid, namespace);
    Ok(if gone { Life::Dead(state) } else { Life::Alive })
}

/// Is any process registered with the object, other than by the caller's own registration?
pub(crate) fn anybody_registered(segment: &Segment) -> Result<bool> {
    let fd = segment.fd()?;
    let first = filelock::first_locked_in(fd, REGISTRATION_BASE + 1, MAX_REGISTRATION as i64)?;
    Ok(first.is_some())
}

/// Where a slot lies; none if there is no such slot.
pub(crate) fn slot_base(segment: &Segment, slot: SlotIndex) -> Option<Offset> {
    if slot == SlotIndex::NOBODY || slot == SlotIndex::AT_REST {
        return None;
    }
    let (chunk, i) = doubling_chunk(slot.0 as u64 - 1, header::FIRST_CHUNK_SLOTS);
    let base = chunk_base(segment, chunk)?.add(i * slot::SLOT_BYTES);
    segment.contains(base, slot::SLOT_BYTES).then_some(base)
}

/// Where a chunk of slots lies, if it exists.
pub(crate) fn chunk_base(segment: &Segment, chunk: u32) -> Option<Offset> {
    let at = Offset(segment.load_acquire(header::slot_chunk(chunk)));
    let usable = !at.is_none() && at.0 % crate::format::PAGE_BYTES == 0;
    usable.then_some(at)
}

/// All slots of the object, with the place of each.
pub(crate) fn all_slots(segment: &Segment) -> impl Iterator<Item = (SlotIndex, Offset)> + '_ {
    (0..header::SLOT_CHUNKS).flat_map(move |chunk| {
        let base = chunk_base(segment, chunk);
        let len = doubling_chunk_len(chunk, header::FIRST_CHUNK_SLOTS);
        let usable = base.is_some_and(|b| segment.contains(b, len * slot::SLOT_BYTES));
        let first = if chunk == 0 { 1 } else { len + 1 };
        (0..if usable { len } else { 0 }).filter(move |i| first + i <= header::MAX_SLOT as u64).map(
            move |i| {
                let base = base.unwrap_or(Offset::NONE);
                (SlotIndex((first + i) as u16), base.add(i * slot::SLOT_BYTES))
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Patience;
    use crate::object::{ManageOptions, OpenOptions};

    /// Goal: whose process is gone is dead, though a child that he had while he registered still has the lock; nobody else is
    /// taken for dead. Method: a lock that nobody gives back, and a slot that says by whom it was claimed.
    #[test]
    fn who_has_left_the_lock_to_a_child_is_dead() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let segment = entered.writer(Patience::FOR_EVER).segment;
        let left = filelock::Registration::take(segment.files(), REGISTRATION_BASE, MAX_REGISTRATION);
        let left = left.expect("registers once more");
        let mut child = std::process::Command::new("true").spawn().expect("spawns");
        let gone = child.id();
        child.wait().expect("ends");

        let base = slot_base(segment, SlotIndex(5)).expect("is one of the first");
        let free = segment.load(base.word(slot::W_STATE));
        let here = process::pid_namespace();
        let cases = [
            (slot::ACTIVE, gone, here, true),
            (slot::ACTIVE, gone, here + 1, false),
            (slot::ACTIVE, process::pid(), here, false),
            (slot::ACTIVE, 0, here, false),
            (slot::RECOVERING, gone, here, false),
        ];
        for (kind, pid, namespace, is_dead) in cases {
            let state = State::new(kind, left.number(), 1);
            segment.store(base.word(slot::W_PID), pid.into());
            segment.store(base.word(slot::W_PID_NAMESPACE), namespace);
            segment.store(base.word(slot::W_STATE), state.0);
            let life = life_at(segment, base, None).expect("looks");
            let expected = if is_dead { Life::Dead(state) } else { Life::Alive };
            assert_eq!(life, expected, "{kind} of {pid} in {namespace}");
        }
        segment.store(base.word(slot::W_PID), 0);
        segment.store(base.word(slot::W_STATE), free);
    }
}
