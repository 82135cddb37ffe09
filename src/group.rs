//! Groups: several operations as one transaction, nested, on one thread at a time.
//!
//! Owns what a group is besides its planned changes: its nesting, whether it is doomed by a deadlock, its
//! age, and its way from thread to thread. The changes themselves are planned by `txn`.

use crate::engine::Engine;
use crate::engine::holds::Stake;
use crate::engine::sessions::{Entered, Seat, SeatState, Seated, Taken};
use crate::error::{Error, Result};
use crate::lock::{self, Patience};
use crate::log::Savepoint;
use crate::os::{process, time};
use crate::txn::{self, growth, lifecycle};
use crate::writer::{Known, NetAdded, Writer};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::Duration;

/// The open groups of a session, outermost first.
#[derive(Default)]
pub(crate) struct Nest {
    /// For each inner group, where it goes back to: what was planned, and what that added to tables.
    savepoints: RefCell<Vec<(Savepoint, NetAdded)>>,
    /// Tells the outermost groups of a session apart.
    number: Cell<u64>,
    /// A deadlock was found in it: all that is left is to roll back.
    doomed: Cell<bool>,
    /// So many of its handles were given up inside of a callback: it ends with the operation that called back.
    abandoned: Cell<u32>,
    /// Attempts that ended in a deadlock.
    attempts: Cell<u32>,
}

impl Nest {
    /// Has a deadlock been found in it?
    #[inline(always)]
    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.get()
    }

    /// Begins an outermost group, and gives its number.
    #[inline(always)]
    fn open(&self) -> u64 {
        self.number.set(self.number.get() + 1);
        self.doomed.set(false);
        self.abandoned.set(0);
        self.attempts.set(0);
        self.number.get()
    }

    /// How many inner groups are open?
    #[inline(always)]
    fn depth(&self) -> usize {
        self.savepoints.borrow().len()
    }

    /// Forgets the innermost group.
    fn pop(&self) -> Option<(Savepoint, NetAdded)> {
        self.savepoints.borrow_mut().pop()
    }

    /// Rolls back all groups inside of the one of this level.
    fn roll_back_to(&self, level: usize, w: &mut Writer) {
        while self.depth() > level {
            if let Some((savepoint, added)) = self.pop() {
                w.s.set().roll_back(savepoint);
                w.s.net_added = added;
            }
        }
    }
}

/// An open group, begun by [`Table::begin`](crate::Table::begin).
///
/// While it is open, all operations of this thread on its object belong to it: they see each other's
/// changes, and nobody else does until [`commit`](Transaction::commit). Dropping it rolls it back.
pub struct Transaction {
    engine: Stake,
    seat: NonNull<Seat>,
    number: u64,
    /// Fork epoch of the process that began it.
    epoch: u64,
    /// 0 for the outermost group.
    level: usize,
    timeout_ms: i32,
    ended: bool,
    /// A group belongs to a thread; see [`Transaction::detach`].
    not_send: PhantomData<*const ()>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Where a group is to be found, and so whose it is. Any thread may ask.
pub(crate) struct Place {
    engine: NonNull<Engine>,
    seat: NonNull<Seat>,
}

impl Place {
    /// Has this thread, of this process, the group?
    ///
    /// # Safety
    /// The group must not have been dropped.
    pub(crate) unsafe fn is_here(&self) -> bool {
        // SAFETY: the group keeps the engine.
        unsafe { self.engine.as_ref() }.owns_seat(self.seat)
    }

    /// Begins to work in the group's session, if this thread has used it last and there is nothing unusual.
    ///
    /// # Safety
    /// The group must not be dropped during `'a`.
    #[inline(always)]
    pub(crate) unsafe fn take<'a>(&self) -> Option<Seated<'a>> {
        // SAFETY: the group keeps the engine.
        match unsafe { self.engine.as_ref() }.take_group() {
            Taken::InGroup(seated) if NonNull::from(seated.seat()) == self.seat => Some(seated),
            _ => None,
        }
    }
}

/// A group on its way from one thread to another. Dropping it rolls the group back.
pub struct DetachedTransaction(Transaction);

// SAFETY: a detached group's seat is nobody's until it is attached, by one thread.
unsafe impl Send for DetachedTransaction {}

impl std::fmt::Debug for DetachedTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DetachedTransaction")
    }
}

/// Begins a group, or an inner one if one is open on this thread.
pub(crate) fn begin(engine: &Engine, timeout_ms: i32) -> Result<Transaction> {
    let mut entered = engine.enter(Patience::from_millis(timeout_ms))?;
    let seat = entered.seat();
    let nest = &seat.group;
    let level = if entered.in_group() {
        if nest.is_doomed() {
            return Err(Error::Deadlock);
        }
        let w = entered.writer(Patience::Try);
        nest.savepoints.borrow_mut().push((w.s.set().savepoint(), w.s.net_added.clone()));
        nest.depth()
    } else {
        nest.open();
        entered.writer(Patience::Try).s.p.begin_group();
        entered.leave_as(SeatState::Group);
        0
    };
    Ok(Transaction::of(engine, seat, level, timeout_ms))
}

/// The same on a thread that has a session in which nothing is going on. None: nothing has happened.
#[inline(always)]
pub(crate) fn begin_quickly(engine: &Engine, timeout_ms: i32) -> Option<Transaction> {
    let mut seated = engine.take_seat()?;
    let seat = seated.seat();
    seat.group.open();
    seated.writer(Patience::Try).s.p.begin_group();
    seated.leave_as(SeatState::Group);
    Some(Transaction::of(engine, seat, 0, timeout_ms))
}

/// An operation of a group that is under way. If a panic of a callback's passes through, it is undone, and the group
/// stays as it was before.
struct UndoOnPanic<'w, 'a> {
    w: &'w mut Writer<'a>,
    savepoint: Savepoint,
    added: &'w NetAdded,
}

impl Drop for UndoOnPanic<'_, '_> {
    #[cold]
    fn drop(&mut self) {
        self.w.s.set().roll_back(self.savepoint);
        self.w.s.net_added = self.added.clone();
    }
}

/// Rolls back the group that is open in the session of a thread that is over, so that nobody else can end it.
pub(crate) fn end_with_thread(mut entered: Entered<'_>) {
    entered.seat().group.savepoints.borrow_mut().clear();
    let mut w = entered.writer(Patience::Try);
    // Whatever cannot be tidied up now is left to the session's next user.
    let _ = txn::abort(&mut w);
    w.s.p.end_group(w.segment);
    entered.leave_as(SeatState::Idle);
}

/// Runs an operation as part of the group that is open on this thread: wholly or not at all.
pub(crate) fn operate<R>(
    entered: &mut Entered<'_>,
    patience: Patience,
    operation: impl FnOnce(&mut Writer) -> Result<R>,
) -> Result<R> {
    let seat = entered.seat();
    if seat.group.is_doomed() {
        return Err(Error::Deadlock);
    }
    let mut w = entered.writer(patience);
    // What this operation plans may be about what the group knows.
    w.s.known = Known::NOTHING;
    let savepoint = w.s.set().savepoint();
    let added = w.s.net_added.clone();
    let undo = UndoOnPanic { w: &mut w, savepoint, added: &added };
    let result = operation(undo.w);
    std::mem::forget(undo);
    if w.is_forked() {
        return Err(Error::Forked);
    }
    if seat.group.abandoned.get() > 0 {
        let outcome = txn::abort(&mut w);
        w.s.p.end_group(w.segment);
        seat.group.savepoints.borrow_mut().clear();
        entered.leave_as(SeatState::Idle);
        for _ in 0..seat.group.abandoned.take() {
            drop(Stake::of_abandoned(entered.engine()));
        }
        return Err(outcome.err().unwrap_or(Error::Aborted));
    }
    match &result {
        Ok(_) => w.s.set().keep(savepoint),
        Err(e) => {
            w.s.set().roll_back(savepoint);
            w.s.net_added = added;
            if *e == Error::Deadlock {
                seat.group.doomed.set(true);
            }
        }
    }
    result
}

impl Transaction {
    /// The group that has just been begun.
    #[inline(always)]
    fn of(engine: &Engine, seat: &Seat, level: usize, timeout_ms: i32) -> Transaction {
        Transaction {
            engine: Stake::new(engine),
            seat: NonNull::from(seat),
            number: seat.group.number.get(),
            epoch: process::fork_epoch(),
            level,
            timeout_ms,
            ended: false,
            not_send: PhantomData,
        }
    }

    /// Makes the changes of this group permanent: all of them at once, if it is the outermost one; as part
    /// of the enclosing group otherwise.
    ///
    /// # Errors
    /// The group is rolled back and [`Error::Deadlock`] if it was chosen to give way, [`Error::NoSpace`] if
    /// its log does not fit, [`Error::Aborted`] if an enclosing group has been ended already,
    /// [`Error::Forked`] in a child process.
    pub fn commit(mut self) -> Result<()> {
        // SAFETY: the group's share keeps the engine.
        let seated = unsafe { self.place().take() };
        if seated.is_some_and(|seated| self.commit_quickly(seated)) { Ok(()) } else { self.end(true) }
    }

    /// Forgets the changes of this group.
    ///
    /// # Errors
    /// Those of [`commit`](Transaction::commit) that tell about the handle, not about its changes.
    pub fn abort(mut self) -> Result<()> {
        self.end(false)
    }

    /// After a deadlock: rolls back, waits a moment, and begins again as the same, older group, which
    /// others give way to more readily.
    ///
    /// # Errors
    /// [`Error::InGroup`] for an inner group: the outermost one has to begin again.
    pub fn restart(&mut self) -> Result<()> {
        if self.level != 0 {
            return Err(Error::InGroup("only the outermost group can begin again"));
        }
        let attempts = {
            let mut entered = self.enter_own()?;
            let nest = &entered.seat().group;
            nest.savepoints.borrow_mut().clear();
            nest.doomed.set(false);
            let attempts = nest.attempts.get() + 1;
            nest.attempts.set(attempts);
            let mut w = entered.writer(Patience::from_millis(self.timeout_ms));
            txn::abort(&mut w)?;
            attempts
        };
        time::sleep(back_off(attempts));
        Ok(())
    }

    /// Takes the group off this thread.
    ///
    /// # Errors
    /// [`Error::InGroup`] if it is an inner group, or not this thread's; it is rolled back then.
    pub fn detach(self) -> Result<DetachedTransaction> {
        self.leave_thread()?;
        Ok(DetachedTransaction(self))
    }

    pub(crate) fn leave_thread(&self) -> Result<()> {
        if self.level != 0 {
            return Err(Error::InGroup("an inner group cannot be moved"));
        }
        drop(self.enter_own()?);
        self.engine.forget_seat(self.seat);
        Ok(())
    }

    pub(crate) fn join_thread(&self) -> Result<()> {
        if !Engine::is_this_process(self.epoch) {
            return Err(Error::Forked);
        }
        self.engine.adopt_seat(self.seat)
    }

    /// Has a deadlock been found in this group, so that all that is left is to roll back?
    pub fn is_doomed(&self) -> bool {
        // SAFETY: the engine, and with it the seat, lives; the group is this thread's.
        self.is_here() && unsafe { self.seat.as_ref() }.group.is_doomed()
    }

    /// Fails if an operation of the group is under way on this thread, which calls from a callback.
    pub(crate) fn check_idle(&self) -> Result<()> {
        self.engine.seat_with_group().map(|_| ())
    }

    /// Is this the outermost group?
    pub(crate) fn is_outermost(&self) -> bool {
        self.level == 0
    }

    /// Enters the group's own session.
    fn enter_own(&self) -> Result<Entered<'_>> {
        if !Engine::is_this_process(self.epoch) {
            return Err(Error::Forked);
        }
        if !self.engine.owns_seat(self.seat) {
            return Err(Error::InGroup("it is not this thread's group"));
        }
        let entered = self.engine.enter(Patience::from_millis(self.timeout_ms))?;
        let nest = &entered.seat().group;
        let is_open = entered.in_group() && nest.number.get() == self.number && nest.depth() >= self.level;
        if is_open { Ok(entered) } else { Err(Error::Aborted) }
    }

    /// Does this thread, of this process, have the group?
    pub(crate) fn is_here(&self) -> bool {
        self.engine.owns_seat(self.seat)
    }

    /// Fork epoch of the process that began it.
    #[inline(always)]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where the group is to be found.
    #[inline(always)]
    pub(crate) fn place(&self) -> Place {
        Place { engine: NonNull::from(&*self.engine), seat: self.seat }
    }

    /// Commits the group if it is this thread's, whose session has been taken, the outermost one, and nothing about it
    /// is unusual. False: nothing has happened.
    #[inline(always)]
    pub(crate) fn commit_quickly(&mut self, mut seated: Seated<'_>) -> bool {
        let nest = &seated.seat().group;
        if nest.number.get() != self.number || self.level != 0 || nest.depth() != 0 {
            return false;
        }
        let mut w = seated.writer(Patience::Try);
        if !txn::commit_quickly(&mut w) {
            return false;
        }
        w.s.p.end_group(w.segment);
        seated.leave_as(SeatState::Idle);
        self.ended = true;
        true
    }

    /// Gives up its share in the engine, if that does not end the engine. False: nothing has happened.
    #[inline(always)]
    pub(crate) fn leave_engine(&self) -> bool {
        self.engine.end_briefly()
    }

    pub(crate) fn end(&mut self, commit: bool) -> Result<()> {
        self.ended = true;
        let entered = match self.enter_own() {
            Ok(entered) => entered,
            Err(Error::Forked) => {
                // The group is the parent's; this process only forgets it.
                if self.level == 0 {
                    self.engine.forget_seat(self.seat);
                }
                return Err(Error::Forked);
            }
            Err(Error::InCallback) => {
                // SAFETY: the engine, and with it the seat, lives; the group is this thread's.
                let seat = unsafe { self.seat.as_ref() };
                if seat.has_busy_group() && seat.group.number.get() == self.number {
                    seat.group.abandoned.set(seat.group.abandoned.get() + 1);
                    self.engine.leave();
                }
                return Err(Error::InCallback);
            }
            Err(e) => return Err(e),
        };
        self.end_in(entered, commit)
    }

    fn end_in(&self, mut entered: Entered<'_>, commit: bool) -> Result<()> {
        let nest = &entered.seat().group;
        let doomed = nest.is_doomed();
        let mut w = entered.writer(Patience::from_millis(self.timeout_ms));
        if self.level > 0 {
            // Groups inside of this one that were not ended are rolled back with their handles' knowledge:
            // they will be told that they are aborted.
            nest.roll_back_to(self.level, &mut w);
            if !commit || doomed {
                nest.roll_back_to(self.level - 1, &mut w);
            } else if let Some((savepoint, _)) = nest.pop() {
                w.s.set().keep(savepoint);
            }
            return if commit && doomed { Err(Error::Deadlock) } else { Ok(()) };
        }
        nest.roll_back_to(0, &mut w);
        let result = if commit && !doomed {
            let result = txn::commit(&mut w);
            if result.is_ok() {
                growth::report_commit(&mut w);
            }
            result
        } else {
            let result = txn::abort(&mut w);
            if commit { Err(Error::Deadlock) } else { result }
        };
        w.s.p.end_group(w.segment);
        entered.leave_as(SeatState::Idle);
        if commit && result.is_ok() {
            // Programs that do all in groups have to do their share as well. What fails is tried again by others.
            let _ = lifecycle::upkeep(&mut entered.writer(Patience::from_millis(self.timeout_ms)));
        }
        drop(entered);
        if doomed {
            lock::let_others_look(&self.engine.segment);
        }
        result
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end(false);
        }
    }
}

impl DetachedTransaction {
    /// A group that has left its thread by [`Transaction::leave_thread`].
    pub(crate) fn of(transaction: Transaction) -> DetachedTransaction {
        DetachedTransaction(transaction)
    }

    /// Makes the group the calling thread's.
    ///
    /// # Errors
    /// [`Error::InGroup`] if another group on the same object is open on this thread; the group is rolled
    /// back then.
    pub fn attach(self) -> Result<Transaction> {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped and not used again.
        let transaction = unsafe { std::ptr::read(&this.0) };
        match transaction.join_thread() {
            Ok(()) => Ok(transaction),
            Err(e) => {
                // It is nobody's still, and ends as such.
                drop(DetachedTransaction(transaction));
                Err(e)
            }
        }
    }
}

impl Drop for DetachedTransaction {
    fn drop(&mut self) {
        self.0.ended = true;
        if !Engine::is_this_process(self.0.epoch) {
            let _ = self.0.end(false);
        } else if let Ok(entered) = self.0.engine.enter_seat(self.0.seat) {
            let _ = self.0.end_in(entered, false);
        }
    }
}

/// A random pause, longer with each attempt: 20 us to 5 ms at most.
pub(crate) fn back_off(attempts: u32) -> Duration {
    let most = 20u64 << attempts.min(8);
    let mut random = [0u8; 8];
    if process::random_bytes(&mut random).is_err() {
        random = time::monotonic_ns().to_le_bytes();
    }
    Duration::from_micros(u64::from_le_bytes(random) % most)
}
