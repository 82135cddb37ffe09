//! An object at work in this process: its mapping, its registration, its threads' sessions.
//!
//! Owns attaching (and attaching again after a fork), the choice of a session for each thread, and the end
//! of it all. All handles of one process to one object share one engine, so that a group covers operations
//! through any of them.
//!
//! - [`create`]: making an object, and judging one that is there.
//! - [`extent`]: refusing one whose file was cut.
//! - [`sessions`]: which slot serves which thread.
//! - [`registry`]: the engines of this process.
//! - [`holds`]: who keeps them.
//! - [`tables`]: the tables that this process has handles for.
//! - [`watch`]: waiting until a key's binding may have changed.

pub(crate) mod create;
mod extent;
pub(crate) mod holds;
mod registry;
pub(crate) mod sessions;
mod tables;
mod watch;

use crate::error::{Damage, Error, Result};
use crate::format::header::Header;
use crate::format::lock_word::LockWord;
use crate::format::slot::State;
use crate::format::{Offset, SlotIndex, header};
use crate::index::KeyHash;
use crate::index::catalog::Identity;
use crate::index::find::Obstacle;
use crate::life::{self, Past};
use crate::lock::Patience;
use crate::lock::attachment::{self, Attachment, Life, all_slots};
use crate::os::process;
use crate::os::shm::Files;
use crate::recovery;
use crate::segment::Segment;
use crate::settle;
use crate::txn::TableView;
use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, Weak};

pub(crate) use registry::open;
use tables::Tables;

/// Attempts so far to read something without a lock.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) all: u32,
    /// Those, one after another, after which the roots were read again and were the same.
    stale: u32,
    /// The roots' version then.
    stale_version: u64,
}

impl Rounds {
    /// The roots have been read again, and have this version. Does that get nowhere?
    fn are_in_vain(&mut self, version: u64) -> bool {
        self.stale = if version == self.stale_version { self.stale + 1 } else { 0 };
        self.stale_version = version;
        self.stale > MOST_STALE
    }
}

/// Times that the roots are read again for one lookup while they stay the same. Each time they tell of more buckets, unless the
/// bytes are wrong: buckets become ready before anything refers to them.
const MOST_STALE: u32 = 10_000;

/// After so many rounds, about a second, a read-only handle gives up on a word that a dead process has left
/// marked, even if no time-out was asked for.
const UNREPAIRED_ROUNDS: u32 = 2_900;
/// From this round on, after a tenth of a second or two, rounds last a millisecond: the fewer they are, the less it
/// matters how much longer than asked for a busy machine lets each of them sleep.
const PATIENT_ROUNDS: u32 = 2_000;

/// An object as this process uses it.
pub(crate) struct Engine {
    /// This engine, for threads that remember their sessions in it.
    me: Weak<Engine>,
    pub(crate) segment: Segment,
    pub(crate) header: Header,
    /// The tables that this process has handles for.
    tables: Tables,
    /// The registration of the process that runs; null until something has to be locked. After a fork the
    /// child replaces it, and leaves the parent's alone.
    attached: AtomicPtr<sessions::Attached>,
    /// Groups open in this process: as long as there is none, finds need not ask.
    pub(crate) groups: Alone<holds::Groups>,
}

/// Something that is written often, alone on its cache lines (which processors fetch in pairs), so that threads which
/// only read its neighbours keep those. It also keeps the counts of an `Arc` around it away from them.
#[repr(align(128))]
pub(crate) struct Alone<T>(T);

impl<T> std::ops::Deref for Alone<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Engine {
    fn new(files: Arc<Files>, header: Header, reserve: u64, writable: bool) -> Result<Arc<Engine>> {
        let futexes = header.locking == header::LOCKING_FUTEX;
        let writable = writable && !header.must_be_read_only;
        let segment = Segment::map(files, reserve, writable, futexes, header.checksums)?;
        segment.require(Offset(0), header::FIXED_PAGES as u64 * crate::format::PAGE_BYTES)?;
        extent::verify(&segment)?;
        Ok(Arc::new_cyclic(|me| Engine {
            me: me.clone(),
            segment,
            tables: Tables::new(KeyHash::of(&header)),
            header,
            attached: AtomicPtr::new(std::ptr::null_mut()),
            groups: Alone(holds::Groups::default()),
        }))
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.segment.is_writable()
    }

    fn locks_exclude(&self) -> bool {
        self.header.locking != header::LOCKING_NONE
    }

    /// Registers this process, and recovers what the dead have left in sight.
    fn register(&self) -> Result<Attachment> {
        self.segment.refresh()?;
        let _creation = life::lock_creation(self.segment.files())?;
        match life::judge(&self.segment)? {
            Past::ThisBoot => {}
            Past::InOrder if !life::rests_with_users(&self.segment) => {}
            Past::InOrder => settle::bring_to_rest(&self.segment)?,
            Past::Unclean => return Err(Error::corrupt(Damage::Unclean, header::LIFE)),
        }
        let me = Attachment::register(&self.segment, self.locks_exclude())?;
        life::mark_in_use(&self.segment)?;
        // Slots that name this registration were left by a former process that had it.
        for (slot, base) in all_slots(&self.segment) {
            let state = State(self.segment.load_acquire(base.word(crate::format::slot::W_STATE)));
            if state.kind() != crate::format::slot::FREE && state.registration() == me.number() {
                recovery::recover(&self.segment, &me, slot, base, state)?;
            }
        }
        self.recover_the_dead(&me, 64)?;
        Ok(me)
    }

    /// Recovers the slots of dead processes; looks at `most` processes at most.
    pub(crate) fn recover_the_dead(&self, me: &Attachment, most: usize) -> Result<()> {
        let mut looked_at = Vec::new();
        for (slot, base) in all_slots(&self.segment) {
            let state = State(self.segment.load_acquire(base.word(crate::format::slot::W_STATE)));
            if state.kind() == crate::format::slot::FREE || looked_at.contains(&state.registration()) {
                continue;
            }
            match attachment::life_at(&self.segment, base, Some(me.number()))? {
                Life::Dead(state) => recovery::recover(&self.segment, me, slot, base, state)?,
                _ if looked_at.len() >= most => return Ok(()),
                _ => looked_at.push(state.registration()),
            }
        }
        Ok(())
    }

    /// Clears the way for the next attempt to read without a lock, after the `rounds` so far.
    #[cold]
    #[inline(never)]
    pub(crate) fn overcome(
        &self,
        table: &TableView,
        obstacle: Obstacle,
        rounds: &mut Rounds,
        patience: Patience,
    ) -> Result<()> {
        rounds.all += 1;
        match obstacle {
            Obstacle::Failed(e) => return Err(e),
            Obstacle::Stale => {
                self.refresh(table, patience)?;
                if rounds.are_in_vain(table.roots.version()) {
                    return Err(Error::corrupt(Damage::Level, table.roots.root()));
                }
                if rounds.all < 64 {
                    return Ok(());
                }
            }
            Obstacle::Changed => {}
            Obstacle::Writing(at, owner) if rounds.all % 64 == 0 => self.look_after(at, owner, rounds.all)?,
            Obstacle::Writing(..) => {}
        }
        if rounds.all < 30 {
            std::hint::spin_loop();
            return Ok(());
        }
        if rounds.all < 64 {
            std::thread::yield_now();
            return Ok(());
        }
        if let Patience::Until(deadline) = patience {
            if deadline.passed() {
                return Err(match obstacle {
                    Obstacle::Writing(_, owner) => {
                        Error::Timeout { holder_pid: attachment::pid_of(&self.segment, owner) }
                    }
                    _ => Error::Busy("a value changed each time it was read"),
                });
            }
        } else if rounds.all > 1000 {
            return Err(match obstacle {
                Obstacle::Writing(_, owner) => {
                    Error::Timeout { holder_pid: attachment::pid_of(&self.segment, owner) }
                }
                _ => Error::Busy("a value changed each time it was read"),
            });
        }
        let nap_us = if rounds.all < PATIENT_ROUNDS { 50 } else { 1000 };
        crate::os::time::sleep(std::time::Duration::from_micros(nap_us));
        Ok(())
    }

    /// Reads a table's roots again.
    pub(crate) fn refresh(&self, table: &TableView, patience: Patience) -> Result<()> {
        let mut rounds = Rounds::default();
        table.roots.refresh(&self.segment, |gate| {
            let obstacle =
                gate.map_or(Obstacle::Changed, |gate| Obstacle::Writing(header::GATE, gate.owner()));
            self.overcome(table, obstacle, &mut rounds, patience)
        })
    }

    /// This process's view of a table.
    pub(crate) fn view(&self, identity: Identity) -> Arc<TableView> {
        self.tables.view(identity)
    }

    /// A word has been marked WRITING for long: is its owner dead?
    fn look_after(&self, at: Offset, owner: SlotIndex, rounds: u32) -> Result<()> {
        let Some(base) = attachment::slot_base(&self.segment, owner) else {
            return Err(Error::corrupt(crate::error::Damage::StrayLock, at));
        };
        if self.is_writable() {
            let attached = self.attached()?;
            if let Life::Dead(state) = attached.registration.life_of(&self.segment, owner)? {
                recovery::recover(&self.segment, &attached.registration, owner, base, state)?;
            }
        } else if rounds > UNREPAIRED_ROUNDS {
            // Who may only read cannot repair what the dead have left, and need not wait for somebody who can.
            if let Life::Dead(_) = attachment::life_at(&self.segment, base, None)? {
                return Err(Error::Timeout { holder_pid: attachment::pid_of(&self.segment, owner) });
            }
        }
        Ok(())
    }

    /// Is this process the one that made `epoch`?
    #[inline(always)]
    pub(crate) fn is_this_process(epoch: u64) -> bool {
        process::fork_epoch() == epoch
    }
}

impl Engine {
    /// Reads something that only changes under the gate, at one moment.
    pub(crate) fn read_at_rest<R>(
        &self,
        patience: Patience,
        mut read: impl FnMut(&Segment) -> Result<R>,
    ) -> Result<R> {
        let mut rounds = Rounds::default();
        let nobody = TableView::new(Identity::unnamed(), KeyHash::of(&self.header));
        loop {
            let gate = LockWord(self.segment.load_acquire(header::GATE));
            if gate.is_writing() {
                self.overcome(&nobody, Obstacle::Writing(header::GATE, gate.owner()), &mut rounds, patience)?;
                continue;
            }
            let outcome = read(&self.segment);
            self.segment.fence_acquire();
            if gate.unchanged_for_readers(LockWord(self.segment.load(header::GATE))) {
                return self.segment.require_whole().and(outcome);
            }
            self.overcome(&nobody, Obstacle::Changed, &mut rounds, patience)?;
        }
    }

    /// Writes everything that has been stored to the device, at a moment at which nothing is half done.
    pub(crate) fn sync(&self, patience: Patience) -> Result<()> {
        if !self.is_writable() {
            return Err(Error::ReadOnly);
        }
        self.segment.refresh()?;
        // Most of it while others go on. The system tells of a failure once, so this one counts as well.
        life::write_all(&self.segment)?;
        let mut entered = self.enter(patience)?;
        if entered.in_group() {
            return Err(Error::InGroup("syncing the object"));
        }
        let mut w = entered.writer(patience);
        let outcome = w.lock_gate().and_then(|()| match w.me.locks_exclude() {
            true => life::rest(w.segment, w.me, w.s.p.slot),
            false => life::write_all(w.segment),
        });
        w.abort();
        outcome
    }

    /// Fails if the object must not be used before it is checked, since the machine went down while it was in use.
    pub(crate) fn require_order(&self) -> Result<()> {
        life::require_order(&self.segment)
    }

    /// Checks an object that the machine went down with. If it is sound, and open for writing, it can be used from
    /// then on. None: it is no such object.
    fn check_after_crash(
        &self,
        report: &mut dyn FnMut(crate::check::Finding) -> bool,
    ) -> Result<Option<crate::check::Summary>> {
        if life::judge(&self.segment)? != Past::Unclean {
            return Ok(None);
        }
        let options = crate::check::Options { after_crash: true, ..Default::default() };
        let mut check = || crate::check::check(&Live(&self.segment), &options, &mut *report);
        if !self.is_writable() {
            return Ok(Some(check()));
        }
        let _creation = life::lock_creation(self.segment.files())?;
        // Somebody else may have been faster.
        if life::judge(&self.segment)? != Past::Unclean {
            return Ok(None);
        }
        let summary = check();
        self.segment.require_whole()?;
        if summary.findings == 0 && summary.complete {
            settle::bring_to_rest(&self.segment)?;
            life::adopt(&self.segment)?;
        }
        Ok(Some(summary))
    }

    /// Runs the checker. If the object is open for writing, the dead are recovered first and everybody else
    /// is kept out by the gate.
    pub(crate) fn check(
        &self,
        patience: Patience,
        report: &mut dyn FnMut(crate::check::Finding) -> bool,
    ) -> Result<crate::check::Summary> {
        let live = Live(&self.segment);
        self.segment.refresh()?;
        if let Some(summary) = self.check_after_crash(report)? {
            return Ok(summary);
        }
        if !self.is_writable() {
            return Ok(crate::check::check(&live, &crate::check::Options::default(), report));
        }
        let mut entered = self.enter(patience)?;
        if entered.in_group() {
            return Err(Error::InGroup("checking the object"));
        }
        let mut w = entered.writer(patience);
        self.recover_the_dead(w.me, usize::MAX)?;
        if let Err(e) = w.lock_gate().and_then(|()| self.segment.refresh()) {
            w.abort();
            return Err(e);
        }
        let options = crate::check::Options { own_slot: w.s.p.slot.0, after_crash: false };
        let summary = crate::check::check(&live, &options, report);
        w.abort();
        // Else what was looked at may be pages of this process alone.
        self.segment.require_whole().map(|()| summary)
    }
}

/// A mapped object as the checker sees it.
struct Live<'a>(&'a Segment);

impl crate::check::Image for Live<'_> {
    fn size(&self) -> u64 {
        self.0.limit()
    }
    fn word(&self, offset: u64) -> Option<u64> {
        let at = Offset(offset);
        (offset % 8 == 0 && self.0.contains(at, 8)).then(|| self.0.load(at))
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        let at = Offset(offset);
        if offset % 8 != 0 || !self.0.contains(at, (into.len() as u64 + 7) & !7) {
            return None;
        }
        // SAFETY: the range lies inside of the object, and `into` has its length.
        unsafe { self.0.copy_out(at, into.as_mut_ptr(), into.len()) };
        Some(())
    }
}
