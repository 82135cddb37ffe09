//! Deadlocks: following who waits for whom through the slots.
//!
//! Every lock has one owner and every slot waits for one thing, so the waits form chains. A cycle counts
//! if two walks along it see the same wait sequences: then all its members were waiting at once. The
//! youngest member gives way (the rule of "wound-wait" schemes; Rosenkrantz, Stearns, Lewis 1978), so the
//! oldest always gets through.

use super::attachment::{holds_nothing, slot_base};
use super::participant::Participant;
use super::wake;
use crate::format::lock_word::LockWord;
use crate::format::slot::{self, WaitTarget};
use crate::format::{Offset, SlotIndex};
use crate::segment::Segment;

/// Longest chain that is followed; a longer one is looked at again at the next sleep.
const LONGEST_CHAIN: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Member {
    slot: SlotIndex,
    base: Offset,
    sequence: u64,
    age: u64,
    target: WaitTarget,
}

/// Looks for a cycle through this participant, whose wait is published. Tells whether it has to give way;
/// if another member has to, tells that one.
pub(super) fn must_give_way(segment: &Segment, p: &Participant) -> bool {
    let Some(first) = cycle(segment, p) else { return false };
    let Some(second) = cycle(segment, p) else { return false };
    if first != second {
        return false;
    }
    let Some(youngest) = first.iter().max_by_key(|m| (m.age, m.slot.0)) else { return false };
    if youngest.slot == p.slot {
        return true;
    }
    segment.store(youngest.base.word(slot::W_VICTIM), youngest.sequence);
    if let WaitTarget::Lock(at) = youngest.target {
        wake(segment, at, i32::MAX);
    }
    false
}

/// The members of the cycle that begins and ends with this participant.
fn cycle(segment: &Segment, p: &Participant) -> Option<Vec<Member>> {
    let mut members = Vec::new();
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
        if next == SlotIndex::NOBODY
            || members.len() >= LONGEST_CHAIN
            || members.iter().any(|m| m.slot == next)
        {
            return None;
        }
        slot = next;
    }
}
