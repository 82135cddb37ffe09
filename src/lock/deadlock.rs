//! Deadlocks: following who waits for whom through the slots.
//!
//! Every lock has one owner and every slot waits for one thing, so the waits form chains. A cycle counts
//! if two walks along it see the same wait sequences: then all its members were waiting at once. The
//! youngest member gives way (the rule of "wound-wait" schemes; Rosenkrantz, Stearns, Lewis 1978), so the
//! oldest always gets through.

use super::attachment::{Attachment, Life, holds_nothing, slot_base};
use super::participant::Participant;
use super::wake;
use crate::error::Result;
use crate::format::lock_word::LockWord;
use crate::format::slot::{self, State, WaitTarget};
use crate::format::{Circle, Offset, SlotIndex, header};
use crate::segment::Segment;

/// Longest chain that is followed: all slots that there can be.
const LONGEST_CHAIN: usize = header::MAX_SLOT as usize;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Member {
    slot: SlotIndex,
    base: Offset,
    sequence: u64,
    age: u64,
    target: WaitTarget,
}

/// What a look at the waits says.
pub(super) enum Verdict {
    /// Wait on: there is no cycle, or another member of it has been told to give way.
    Wait,
    /// This participant has to give way.
    GiveWay,
    /// A member of the cycle died while it waited, and is no party to it any more: it has to be recovered.
    Dead(SlotIndex, State),
}

/// Looks for a cycle through this participant, whose wait is published. If another member has to give way,
/// tells that one.
pub(super) fn judge(segment: &Segment, me: &Attachment, p: &Participant) -> Result<Verdict> {
    let Some(first) = cycle(segment, p) else { return Ok(Verdict::Wait) };
    let Some(second) = cycle(segment, p) else { return Ok(Verdict::Wait) };
    if first != second {
        return Ok(Verdict::Wait);
    }
    for member in first.iter().filter(|m| m.slot != p.slot) {
        if let Life::Dead(state) = me.life_of(segment, member.slot)? {
            return Ok(Verdict::Dead(member.slot, state));
        }
    }
    let Some(youngest) = first.iter().max_by_key(|m| (m.age, m.slot.0)) else {
        return Ok(Verdict::Wait);
    };
    if youngest.slot == p.slot {
        return Ok(Verdict::GiveWay);
    }
    segment.store(youngest.base.word(slot::W_VICTIM), youngest.sequence);
    if let WaitTarget::Lock(at) = youngest.target {
        wake(segment, at, i32::MAX);
    }
    Ok(Verdict::Wait)
}

/// The members of the cycle that begins and ends with this participant.
fn cycle(segment: &Segment, p: &Participant) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    // Others may go round without this participant.
    let mut others = Circle::new();
    let mut slot = p.slot;
    loop {
        let base = if slot == p.slot { p.base } else { slot_base(segment, slot)? };
        let sequence = segment.load_acquire(base.word(slot::W_WAIT_SEQUENCE));
        let target = WaitTarget::decode(segment.load_acquire(base.word(slot::W_WAIT_TARGET)));
        let age = segment.load(base.word(slot::W_AGE));
        members.push(Member { slot, base, sequence, age, target });
        let next = match target {
            WaitTarget::Nothing => return None,
            WaitTarget::Lock(at) => LockWord(segment.load_acquire(at)).owner(),
            WaitTarget::Slot(other) => {
                let other_base = slot_base(segment, other)?;
                if holds_nothing(segment, other_base) {
                    return None;
                }
                other
            }
        };
        if next == p.slot {
            return Some(members);
        }
        let is_over = next == SlotIndex::NOBODY || members.len() >= LONGEST_CHAIN;
        if is_over || others.is_closed_by(base) {
            return None;
        }
        slot = next;
    }
}
