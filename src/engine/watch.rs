//! Waiting until a key's binding may have changed.
//!
//! Owns what a stamp is made of, and the loop of looking and sleeping. The sleep itself, and why no change is
//! missed in it, is in `lock::watch`.

use super::Engine;
use crate::error::{Error, Result};
use crate::format::header;
use crate::format::lock_word::LockWord;
use crate::index::home::{self, Home};
use crate::lock::{Patience, watch};
use crate::os::futex::Wake;
use crate::os::signals::HeldBack;
use crate::os::time::Deadline;
use crate::txn::TableView;
use std::time::Duration;

/// Longest sleep without a look: how late, at most, is noticed what wakes nobody. That is what was left undone by a
/// process that was killed between a change and its wake-ups, and a new table in place of a large one, whose sweeping
/// takes longer.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// The same where nobody can be asked for a wake-up.
const FIRST_NAP: Duration = Duration::from_micros(100);
const LONGEST_NAP: Duration = Duration::from_millis(5);

/// Bits of a stamp, from below: 44 of the bucket's version, 6 of its level, 14 of the gate's version.
const LEVEL_SHIFT: u32 = 44;
const GATE_SHIFT: u32 = 50;

/// The stamp of a bucket: never 0.
///
/// For one key, the level tells which bucket it is as long as the table is the same one; a bucket's version and
/// its level only ever grow; another table in its place comes with another version of the gate.
fn stamp_of(home: &Home) -> u64 {
    home.word.version() | (home.level as u64) << LEVEL_SHIFT | home.gate_version << GATE_SHIFT
}

fn longest_sleep() -> Duration {
    #[cfg(feature = "inject")]
    if let Some(longest) = crate::segment::inject::longest_sleep() {
        return longest;
    }
    LONGEST_SLEEP
}

impl Engine {
    /// A number that changes whenever a binding of the key changes, and sometimes besides.
    pub(crate) fn stamp(&self, table: &TableView, hash: u64, patience: Patience) -> Result<u64> {
        self.home(table, hash, patience).map(|home| stamp_of(&home))
    }

    /// Waits until the stamp of a key is another one than `since`, and gives the new one; none if the deadline
    /// passes before that. `patience` is asked for anew whenever something is in the way.
    pub(crate) fn wait_for_change(
        &self,
        table: &TableView,
        hash: u64,
        since: u64,
        deadline: Deadline,
        patience: impl Fn() -> Patience,
    ) -> Result<Option<u64>> {
        let ask = self.is_writable() && self.header.locking == header::LOCKING_FUTEX;
        if ask {
            // The object is going to be written to.
            self.attached()?;
        }
        let (mut sleep, longest) =
            if ask { (longest_sleep(), longest_sleep()) } else { (FIRST_NAP, LONGEST_NAP) };
        let signals = HeldBack::new();
        let mut own = patience();
        loop {
            let bounded = match own {
                Patience::Try => Patience::Try,
                Patience::Until(own) => {
                    Patience::Until(own.earlier(deadline).earlier(Deadline::after(Some(LONGEST_SLEEP))))
                }
            };
            let home = match self.home(table, hash, bounded) {
                // A change was under way all the time.
                Err(Error::Timeout { .. } | Error::Busy(_)) if deadline.passed() => return Ok(None),
                Err(Error::Timeout { .. } | Error::Busy(_)) if own.is_left() => {
                    // Signals do not wait for as long as somebody is in the way.
                    if signals.nap(FIRST_NAP) {
                        return Err(Error::Interrupted);
                    }
                    continue;
                }
                found => found?,
            };
            own = patience();
            let now = stamp_of(&home);
            if now != since {
                return Ok(Some(now));
            }
            if deadline.passed() {
                return Ok(None);
            }
            let sleep_for = deadline.clip(sleep);
            let wake = if !ask {
                if signals.nap(sleep_for) { Wake::Interrupted } else { Wake::TimedOut }
            } else {
                let Some(expected) = self.ask_for_wake_up(&home) else { continue };
                watch::sleep(&self.segment, home.bucket, expected, sleep_for, &signals)
            };
            match wake {
                Wake::Interrupted => return Err(Error::Interrupted),
                // Who dies right after the commit point has not marked the bucket yet.
                Wake::TimedOut if !home.word.is_free() => {
                    self.look_after(home.bucket, home.word.owner(), 0)?;
                }
                Wake::TimedOut | Wake::Woken | Wake::Changed => {}
            }
            sleep = (sleep * 2).min(longest);
        }
    }

    /// Lets a change of the bucket wake this thread, and another table in place of its own. None: one has come already.
    fn ask_for_wake_up(&self, home: &Home) -> Option<LockWord> {
        let word = watch::ask(&self.segment, home.bucket, home.word)?;
        // Whoever sweeps a former table wakes where he sees somebody watch. If he has looked before the bit was set,
        // the gate has its new version already: a full fence here, and one between his change of the gate and his look.
        self.segment.fence_after_exchange();
        let gate = LockWord(self.segment.load_acquire(header::GATE));
        (gate.version() == home.gate_version).then_some(word)
    }

    /// The bucket where a hash is at home.
    fn home(&self, table: &TableView, hash: u64, patience: Patience) -> Result<Home> {
        let mut rounds = super::Rounds::default();
        loop {
            match home::home(&self.segment, &table.roots, hash) {
                Ok(home) => return Ok(home),
                Err(obstacle) => self.overcome(table, obstacle, &mut rounds, patience)?,
            }
        }
    }
}
