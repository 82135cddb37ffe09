//! Taking slots of the object for this process, and giving them up.
//!
//! Owns how a slot is claimed, of the dead if need be, and what is left of a process's part when its engine ends.

use super::super::Engine;
use super::{Attached, Entered, Seat, SeatState};
use crate::alloc::kept;
use crate::error::{Damage, Error, Result};
use crate::format::slot::{self, State};
use crate::format::{Offset, SlotIndex, header};
use crate::life;
use crate::lock::Patience;
use crate::lock::attachment::{Attachment, Life, all_slots, life_at};
use crate::lock::participant::Participant;
use crate::os::time;
use crate::recovery;
use crate::txn;
use crate::txn::growth;
use crate::writer::{Session, Writer};
use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;

impl Engine {
    /// Claims a slot of the object for one more session of this process.
    pub(super) fn claim(&self, attached: &Attached, patience: Patience) -> Result<NonNull<Seat>> {
        let (slot, base, last) = self.claim_slot(&attached.registration, patience)?;
        let session = Session::new(Participant::new(&self.segment, slot, base));
        let seat = Box::new(Seat {
            session: UnsafeCell::new(session),
            thread: AtomicUsize::new(0),
            of: attached.id,
            state: Cell::new(SeatState::Busy),
            group: crate::group::Nest::default(),
        });
        let seat = NonNull::from(Box::leak(seat));
        attached.sessions().all.push(seat);
        // SAFETY: it was made above, and no other thread knows it.
        let seat_ref = unsafe { seat.as_ref() };
        let mut entered =
            Entered { engine: self, attached, seat: seat_ref, before: SeatState::Idle, lent: false };
        let mut w = entered.writer(patience);
        // What a dead owner had in its hands and could not use.
        if let Err(e) = kept::settle_wholly(&mut w) {
            drop(entered);
            attached.sessions().idle.push(seat);
            return Err(e);
        }
        if last {
            // For want of memory the next one will wait until a slot is free.
            let _ = growth::add_slots(&mut w);
        }
        drop(entered);
        Ok(seat)
    }

    /// Finds a free slot. Gives its number, its place, and whether it was the last one.
    fn claim_slot(&self, me: &Attachment, patience: Patience) -> Result<(SlotIndex, Offset, bool)> {
        let segment = &self.segment;
        loop {
            let mut claimed = None;
            for (slot, base) in all_slots(segment) {
                let at = base.word(slot::W_STATE);
                let state = State(segment.load_acquire(at));
                if state.kind() != slot::FREE {
                    continue;
                }
                if claimed.is_some() {
                    return Ok(claimed
                        .map(|(slot, base)| (slot, base, false))
                        .unwrap_or((slot, base, false)));
                }
                let mine = State::new(slot::ACTIVE, me.number(), state.generation());
                if segment.compare_exchange(at, state.0, mine.0).is_ok() {
                    segment.store(base.word(slot::W_PID_NAMESPACE), me.pid_namespace);
                    segment.store(base.word(slot::W_PID), me.pid as u64);
                    claimed = Some((slot, base));
                }
            }
            if let Some((slot, base)) = claimed {
                return Ok((slot, base, true));
            }
            // All taken: by the dead, perhaps.
            let mut recovered = false;
            if all_slots(segment).next().is_none() {
                return Err(Error::corrupt(Damage::Slot, header::slot_chunk(0)));
            }
            for (_, base) in all_slots(segment) {
                if let Life::Dead(state) = life_at(segment, base, Some(me.number()))? {
                    let slot = all_slots(segment).find(|s| s.1 == base).map_or(SlotIndex::NOBODY, |s| s.0);
                    recovery::recover(segment, me, slot, base, state)?;
                    recovered = true;
                }
            }
            if recovered {
                continue;
            }
            let late = match patience {
                Patience::Try => true,
                Patience::Until(deadline) => deadline.passed(),
            };
            if late {
                return Err(Error::Busy("all participant slots of the object are taken"));
            }
            time::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Gives up everything that this process has in the object.
    fn detach(&self, attached: Attached) -> Result<()> {
        let mut outcome = Ok(());
        let all = std::mem::take(&mut attached.sessions().all);
        if !self.segment.is_whole() {
            // The file was cut. What is in it now may be another object, whose slots these are not.
            for seat in all {
                // SAFETY: as below.
                drop(unsafe { Box::from_raw(seat.as_ptr()) });
            }
            return self.segment.require_whole();
        }
        for seat in all {
            // SAFETY: seats are made by Box::leak, and this is the end of their attachment.
            let seat = unsafe { Box::from_raw(seat.as_ptr()) };
            let mut session = seat.session.into_inner();
            let mut w = Writer {
                segment: &self.segment,
                me: &attached.registration,
                s: &mut session,
                patience: Patience::from_millis(1000),
            };
            let result = if w.s.is_at_rest() { Ok(()) } else { txn::abort(&mut w) };
            let result = result.and_then(|()| self.segment.require_whole());
            let result = result.and_then(|()| txn::retire_session(&mut w));
            if !self.segment.is_whole() {
                // It may list locks, or have a log, for those who find it without its registration.
                outcome = outcome.and(self.segment.require_whole());
                continue;
            }
            let base = session.p.base;
            let state = State(self.segment.load(base.word(slot::W_STATE)));
            let free = State::new(slot::FREE, 0, state.generation().wrapping_add(1));
            self.segment.store(base.word(slot::W_AGE), 0);
            self.segment.store(base.word(slot::W_PID), 0);
            self.segment.store(base.word(slot::W_STATE), free.0);
            outcome = outcome.and(result);
        }
        let spare = attached.registration.spare.clone();
        let files_creation = life::lock_creation_again(self.segment.files(), &spare);
        // What others have left is nobody's once this process is gone.
        let _ = self.recover_the_dead(&attached.registration, usize::MAX);
        drop(attached);
        if files_creation.is_ok() {
            outcome = outcome.and(life::mark_clean(&self.segment));
        }
        outcome
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let attached = std::mem::replace(self.attached.get_mut(), std::ptr::null_mut());
        // SAFETY: attachments are made by Box::into_raw, and the engine is the only one that frees them.
        let Some(owned) = (unsafe { attached.as_ref() }) else { return };
        if !owned.era.is_here() {
            // The parent's: not ours to give up.
            return;
        }
        // SAFETY: as above; nobody uses the engine any more.
        let owned = unsafe { Box::from_raw(attached) };
        // Nobody is left who could be told; what could not be given back is recovered by the next process.
        let _ = self.detach(*owned);
    }
}
