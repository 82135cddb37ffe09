//! Recovery of a dead participant's slot. It knows only bytes, locks and logs, never tables.
//!
//! It happens where somebody waits, takes no lock and waits for nothing: the state word's CAS makes exactly
//! one recoverer, whose own death is found and recovered like any other.

use crate::error::Result;
use crate::format::lock_word::{LockWord, WRITING};
use crate::format::slot::{self, State};
use crate::format::{Offset, SlotIndex, log_record};
use crate::lock::attachment::Attachment;
use crate::lock::participant::Participant;
use crate::lock::{pass_on, release};
use crate::log;
use crate::segment::Segment;

/// Brings the slot of a dead owner to rest: finishes what had committed, forgets what had not, gives back
/// its locks. `seen` is its state when its owner was found dead. Does nothing if somebody else was faster.
#[cold]
pub(crate) fn recover(
    segment: &Segment,
    me: &Attachment,
    slot: SlotIndex,
    base: Offset,
    seen: State,
) -> Result<()> {
    segment.require_whole()?;
    // Another generation each time: who has been given the registration of a dead recoverer would else exchange the
    // word for itself, and whoever has found that one dead as well could take the slot over once more.
    let mine = State::new(slot::RECOVERING, me.number(), seen.generation().wrapping_add(1));
    if segment.compare_exchange(base.word(slot::W_STATE), seen.0, mine.0).is_err() {
        return Ok(());
    }
    let p = Participant::new(segment, slot, base);
    let commit = segment.load_acquire(base.word(slot::W_COMMIT));
    let mut outcome = Ok(());
    if slot::commit_phase(commit) == slot::COMMITTED {
        for_each_listed(segment, &p, |at, word| {
            let mut word = word;
            while word.owner() == slot && !word.is_writing() {
                match segment.compare_exchange(at, word.0, word.with(WRITING).0) {
                    Ok(()) => break,
                    Err(now) => word = LockWord(now),
                }
            }
        });
        segment.fence_release();
        outcome = log::replay(segment, &p, slot::commit_log_words(commit));
        require_whole_after_stores(segment)?;
        segment.store(base.word(slot::W_COMMIT), slot::commit_word(slot::APPLIED, 0));
    }
    // A value of a single word is changed without a mark.
    let has_committed = slot::commit_phase(commit) != slot::IDLE;
    let mut wakes = 0;
    for_each_listed(segment, &p, |at, word| {
        if word.owner() == slot {
            release(segment, at, slot, has_committed || word.is_writing());
        }
        // The dead may have eaten a wake-up that was meant for somebody else, also if it was still waiting; or have released
        // the lock, and not woken anybody yet.
        if wakes < MOST_WAKES {
            wakes += 1;
            pass_on(segment, at);
        }
    });
    require_whole_after_stores(segment)?;
    for (word, value) in [
        (slot::W_LIST_LEN, 0),
        (slot::W_WAIT_TARGET, 0),
        (slot::W_VICTIM, 0),
        (slot::W_AGE, 0),
        (slot::W_PID, 0),
        (slot::W_COMMIT, slot::commit_word(slot::IDLE, 0)),
    ] {
        segment.store(base.word(word), value);
    }
    let free = State::new(slot::FREE, 0, mine.generation().wrapping_add(1));
    segment.store(base.word(slot::W_STATE), free.0);
    outcome
}

/// Fails if what was stored may have gone to pages that are not the object's. Then the slot stays as if this process had died.
fn require_whole_after_stores(segment: &Segment) -> Result<()> {
    if segment.is_whole_after_stores() { Ok(()) } else { segment.require_whole() }
}

/// Locks whose waiters are woken. A list may name millions if somebody has damaged it; whoever waits looks by itself after a
/// while.
const MOST_WAKES: u32 = 10_000;

/// Calls `f` for each lock in the slot's published list, with its present word.
fn for_each_listed(segment: &Segment, p: &Participant, mut f: impl FnMut(Offset, LockWord)) {
    let len = segment.load_acquire(p.base.word(slot::W_LIST_LEN));
    for n in 0..len.min(log_record::MAX_RUN * 64) {
        let Some(word) = p.list_word(n) else { break };
        let at = Offset(segment.load(word));
        if at.0 % 8 == 0 && at.0 >= crate::format::PAGE_BYTES && segment.contains(at, 8) {
            f(at, LockWord(segment.load_acquire(at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header;
    use crate::lock::Patience;
    use crate::lock::attachment::slot_base;
    use crate::object::{ManageOptions, OpenOptions};
    use crate::os::futex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// Goal: who waits for the same lock as one that has died is woken, for the dead may have been woken in his place.
    /// Method: a slot in the state of a dead waiter is recovered while a thread sleeps, as often as it takes to be
    /// sure that it did.
    #[test]
    fn a_wake_up_that_a_dead_waiter_has_eaten_is_passed_on() {
        let object = OpenOptions::new().anonymous().expect("memory");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
        let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
        let w = entered.writer(Patience::FOR_EVER);
        let (segment, lock, dead) = (w.segment, header::arena(3), SlotIndex(5));
        let base = slot_base(segment, dead).expect("is one of the first");
        if segment.futex_address(lock).is_none() {
            eprintln!("SKIP a_wake_up_that_a_dead_waiter_has_eaten_is_passed_on: no futexes");
            return;
        }
        let woken = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let sleeper = threads.spawn(|| {
                let address = segment.futex_address(lock).expect("as before");
                let end =
                    futex::wait(address, LockWord(segment.load(lock)).futex_value(), Duration::from_secs(5));
                woken.store(true, Ordering::SeqCst);
                end
            });
            while !woken.load(Ordering::SeqCst) {
                let state = State(segment.load(base.word(slot::W_STATE)));
                let waiting = State::new(slot::ACTIVE, 4711, state.generation());
                segment.store(base.word(slot::LOCK_LIST.inline_word), lock.0);
                segment.store(base.word(slot::W_LIST_LEN), 1);
                segment.store(base.word(slot::W_WAIT_TARGET), slot::WaitTarget::Lock(lock).encode());
                segment.store(base.word(slot::W_STATE), waiting.0);
                recover(segment, w.me, dead, base, waiting).expect("recovers");
                assert_eq!(State(segment.load(base.word(slot::W_STATE))).kind(), slot::FREE);
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(sleeper.join().expect("ends"), futex::Wake::Woken);
        });
    }
}
