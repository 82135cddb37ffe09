//! Acquiring a lock: try, spin, sleep, look after the owner, give up.

use super::attachment::{Attachment, Life, holds_nothing};
use super::deadlock::{self, Verdict};
use super::nap::Naps;
use super::participant::Participant;
use super::{Patience, Rank, pass_on};
use crate::error::{Damage, Error, Result};
use crate::format::lock_word::{LockWord, WAITERS};
use crate::format::slot::{self, State, WaitTarget};
use crate::format::{Offset, SlotIndex};
use crate::os::futex;
use crate::segment::Segment;
use std::time::Duration;

/// How an acquisition ended without error.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Acquired {
    /// The lock is held; this was its word before.
    Held(LockWord),
    /// The owner is dead and has to be recovered first; the lock is not held.
    OwnerDead(SlotIndex, State),
    /// It is the gate of an object that rests, see `life`: it has to be roused first; the lock is not held.
    AtRest,
}

/// Rounds of spinning before sleeping: about a microsecond, the time that a holder needs to commit.
const SPINS: u32 = 40;
const FIRST_SLEEP: Duration = Duration::from_millis(1);
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// Who holds locks may be part of a circle that has closed meanwhile, and looks sooner.
const LONGEST_SLEEP_OF_HOLDERS: Duration = Duration::from_millis(4);

/// Takes a lock for a participant. It is in the participant's published list from before the attempt until
/// it is released.
pub(crate) fn acquire(
    segment: &Segment,
    me: &Attachment,
    p: &mut Participant,
    at: Offset,
    rank: Rank,
    patience: Patience,
) -> Result<Acquired> {
    p.list(segment, at, rank)?;
    let word = LockWord(segment.load_acquire(at));
    if word.is_free() && segment.compare_exchange(at, word.0, word.locked_by(p.slot, 0).0).is_ok() {
        return Ok(Acquired::Held(word));
    }
    let result = acquire_slowly(segment, me, p, at, patience);
    if !matches!(result, Ok(Acquired::Held(_))) {
        p.unlist(segment);
    }
    result
}

#[cold]
fn acquire_slowly(
    segment: &Segment,
    me: &Attachment,
    p: &mut Participant,
    at: Offset,
    patience: Patience,
) -> Result<Acquired> {
    let longest = if p.held.len() > 1 { LONGEST_SLEEP_OF_HOLDERS } else { LONGEST_SLEEP };
    let mut wait = Wait {
        longest,
        slept: false,
        published: false,
        nap: FIRST_SLEEP,
        naps: Naps::new(),
        free_owner_seen: 0,
    };
    let mut spins = 0;
    loop {
        let word = LockWord(segment.load_acquire(at));
        if word.owner() == SlotIndex::AT_REST {
            wait.give_up(segment, p, at);
            return Ok(Acquired::AtRest);
        }
        if word.is_free() || !me.locks_exclude() {
            if !word.is_free() {
                // Locking method NONE: nobody is waited for, but the dead are recovered.
                if let Life::Dead(state) = me.life_of(segment, word.owner())? {
                    return Ok(Acquired::OwnerDead(word.owner(), state));
                }
            }
            let bits = if wait.slept { WAITERS } else { 0 };
            if segment.compare_exchange(at, word.0, word.locked_by(p.slot, bits).0).is_ok() {
                wait.withdraw(segment, p);
                return Ok(Acquired::Held(word));
            }
            continue;
        }
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
            continue;
        }
        let Patience::Until(deadline) = patience else {
            if let Life::Dead(state) = me.life_of(segment, word.owner())? {
                return Ok(Acquired::OwnerDead(word.owner(), state));
            }
            return Err(Error::Timeout { holder_pid: me.pid_of(segment, word.owner()) });
        };
        if !word.has_waiters() && segment.compare_exchange(at, word.0, word.with(WAITERS).0).is_err() {
            continue;
        }
        wait.publish(segment, p, WaitTarget::Lock(at));
        if p.held.len() > 1 {
            match deadlock::judge(segment, me, p)? {
                Verdict::Wait => {}
                Verdict::GiveWay => {
                    wait.give_up(segment, p, at);
                    return Err(Error::Deadlock);
                }
                Verdict::Dead(slot, state) => {
                    wait.give_up(segment, p, at);
                    return Ok(Acquired::OwnerDead(slot, state));
                }
            }
        }
        let woken = wait.sleep(segment, p, at, word.with(WAITERS), deadline.remaining());
        if wait.is_victim(segment, p) {
            wait.give_up(segment, p, at);
            return Err(Error::Deadlock);
        }
        // Who is woken, or finds another owner, each time he looks is late all the same.
        let late = deadline.passed();
        if woken && !late {
            continue;
        }
        let now = LockWord(segment.load_acquire(at));
        let can_be_had = now.is_free() || now.owner() == SlotIndex::AT_REST;
        if can_be_had || now.owner() != word.owner() && !late {
            continue;
        }
        match me.life_of(segment, now.owner())? {
            Life::Dead(state) => {
                wait.give_up(segment, p, at);
                return Ok(Acquired::OwnerDead(now.owner(), state));
            }
            Life::NobodyThere => wait.stray(segment, at, now)?,
            Life::Alive => {}
        }
        if late {
            let holder_pid = me.pid_of(segment, now.owner());
            wait.give_up(segment, p, at);
            return Err(Error::Timeout { holder_pid });
        }
    }
}

/// What one participant publishes while it waits.
pub(crate) struct Wait {
    longest: Duration,
    slept: bool,
    published: bool,
    /// How long to sleep before the next look at the owner.
    nap: Duration,
    /// What such a sleep consists of where there is no futex.
    naps: Naps,
    free_owner_seen: u32,
}

impl Wait {
    /// Publishes what is waited for, under a new sequence number.
    fn publish(&mut self, segment: &Segment, p: &mut Participant, target: WaitTarget) {
        if !self.published {
            self.published = true;
            p.publish_age(segment);
            p.wait_sequence = p.wait_sequence.wrapping_add(1);
            segment.store(p.base.word(slot::W_WAIT_SEQUENCE), p.wait_sequence);
            segment.store(p.base.word(slot::W_WAIT_TARGET), target.encode());
        }
        segment.fence();
    }

    fn withdraw(&mut self, segment: &Segment, p: &Participant) {
        if self.published {
            self.published = false;
            segment.store(p.base.word(slot::W_WAIT_TARGET), 0);
        }
    }

    /// Ends a wait without the lock; somebody else may have been meant by the last wake-up.
    fn give_up(&mut self, segment: &Segment, p: &Participant, at: Offset) {
        self.withdraw(segment, p);
        if self.slept {
            pass_on(segment, at);
        }
    }

    fn is_victim(&self, segment: &Segment, p: &Participant) -> bool {
        self.published && segment.load_acquire(p.base.word(slot::W_VICTIM)) == p.wait_sequence
    }

    /// Sleeps until woken or until it is time to look after the owner. True: woken, or the word changed.
    fn sleep(
        &mut self,
        segment: &Segment,
        p: &Participant,
        at: Offset,
        expected: LockWord,
        left: Option<Duration>,
    ) -> bool {
        let nap = left.map_or(self.nap, |left| left.min(self.nap));
        self.nap = (self.nap * 2).min(self.longest);
        let Some(address) = segment.futex_address(at) else { return self.sleep_in_naps(segment, p, at, nap) };
        let woken = matches!(
            futex::wait(address, expected.futex_value(), nap),
            futex::Wake::Woken | futex::Wake::Changed
        );
        self.slept = true;
        woken
    }

    /// The same without a futex: nobody wakes this thread, so it looks at all that it could be woken for.
    fn sleep_in_naps(&mut self, segment: &Segment, p: &Participant, at: Offset, nap: Duration) -> bool {
        let victim = p.base.word(slot::W_VICTIM);
        self.slept = true;
        self.naps.until(nap, || {
            LockWord(segment.load_acquire(at)).is_free() || segment.load_acquire(victim) == p.wait_sequence
        })
    }

    /// The owner's slot is free. That is a passing moment, unless it lasts.
    fn stray(&mut self, segment: &Segment, at: Offset, seen: LockWord) -> Result<()> {
        if LockWord(segment.load_acquire(at)).owner() != seen.owner() {
            self.free_owner_seen = 0;
            return Ok(());
        }
        self.free_owner_seen += 1;
        if self.free_owner_seen >= 3 {
            return Err(Error::corrupt(Damage::StrayLock, at));
        }
        Ok(())
    }
}

/// Waits until another slot's lock list has been empty once, for the holder of the gate.
pub(crate) fn wait_for_empty_list(
    segment: &Segment,
    me: &Attachment,
    p: &mut Participant,
    other: SlotIndex,
    other_base: Offset,
    patience: Patience,
) -> Result<Acquired> {
    let mut wait = Wait {
        longest: LONGEST_SLEEP_OF_HOLDERS,
        slept: false,
        published: false,
        nap: Duration::from_micros(20),
        naps: Naps::new(),
        free_owner_seen: 0,
    };
    let mut spins = 0;
    let result = loop {
        let state = State(segment.load_acquire(other_base.word(slot::W_STATE)));
        if state.kind() == slot::FREE || holds_nothing(segment, other_base) {
            break Ok(Acquired::Held(LockWord(0)));
        }
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
            continue;
        }
        let Patience::Until(deadline) = patience else {
            break Err(Error::Timeout { holder_pid: me.pid_of(segment, other) });
        };
        wait.publish(segment, p, WaitTarget::Slot(other));
        match deadlock::judge(segment, me, p)? {
            Verdict::Wait if !wait.is_victim(segment, p) => {}
            Verdict::Wait | Verdict::GiveWay => break Err(Error::Deadlock),
            Verdict::Dead(slot, state) => break Ok(Acquired::OwnerDead(slot, state)),
        }
        if let Life::Dead(state) = me.life_of(segment, other)? {
            break Ok(Acquired::OwnerDead(other, state));
        }
        if deadline.passed() {
            break Err(Error::Timeout { holder_pid: me.pid_of(segment, other) });
        }
        crate::os::time::sleep(wait.nap);
        wait.nap = (wait.nap * 2).min(Duration::from_millis(1));
    };
    wait.withdraw(segment, p);
    result
}
