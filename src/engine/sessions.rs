//! Which slot serves which thread.
//!
//! A thread keeps the session that it got with its first change until it ends; then other threads of the
//! process take it over. A thread finds its session without a lock: at the place of its number in a table, if it was the
//! first one there, else in thread-local storage. What still runs on a thread after its end, which are destructors and exit
//! handlers of others, has a session for one operation or group at a time. [`slots`] takes and gives up the slots themselves.

mod slots;

use super::Engine;
use crate::error::{Error, Result};
use crate::group;
use crate::lock::Patience;
use crate::lock::attachment::Attachment;
use crate::os::thread::LastEnd;
use crate::os::{process, thread};
use crate::writer::{Session, Writer};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

/// A registration, with the sessions of the process that made it.
pub(crate) struct Attached {
    /// Unique in this process, so that thread-local memories of former ones never match.
    id: u64,
    /// The process that made it.
    era: process::Era,
    pub(super) registration: Attachment,
    sessions: Mutex<Sessions>,
    /// Sessions at the places of the threads that have them, see [`place_of`]; or of those that had them.
    places: [AtomicPtr<Seat>; PLACES],
}

/// Threads whose numbers have the same place look for theirs elsewhere, which takes a call; tests want to see that.
const PLACES: usize = if cfg!(test) { 4 } else { 64 };

/// The place of a thread, by Fibonacci hashing of its number.
#[inline(always)]
const fn place_of(thread: usize) -> usize {
    ((thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize
}

#[derive(Default)]
struct Sessions {
    all: Vec<NonNull<Seat>>,
    idle: Vec<NonNull<Seat>>,
}

// SAFETY: seats are handed from thread to thread under the mutex, and used by one thread at a time.
unsafe impl Send for Sessions {}

/// A session and what is going on in it. It belongs to its `Attached`. Its cache lines are those of one thread at a time.
#[repr(align(128))]
pub(crate) struct Seat {
    session: UnsafeCell<Session>,
    /// Number of the thread that has it, written by that one alone: when it gets it, and 0 when it gives it up. No thread
    /// finds its own number here unless it has the seat.
    thread: AtomicUsize,
    /// The attachment that it belongs to.
    of: u64,
    state: Cell<SeatState>,
    /// What an open group keeps here: see `group`.
    pub(crate) group: crate::group::Nest,
}

impl Seat {
    /// Is a group open in it, and no operation of that under way?
    #[inline(always)]
    fn has_group(&self) -> Result<bool> {
        match self.state.get() {
            SeatState::Group => Ok(true),
            SeatState::GroupBusy => Err(Error::InCallback),
            SeatState::Idle | SeatState::Busy => Ok(false),
        }
    }

    /// Is an operation of a group under way?
    pub(crate) fn has_busy_group(&self) -> bool {
        self.state.get() == SeatState::GroupBusy
    }
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatState {
    Idle,
    /// In an operation, perhaps in a callback of it.
    Busy,
    /// A group is open, no operation is under way.
    Group,
    /// An operation of the open group is under way.
    GroupBusy,
}

struct Remembered {
    id: u64,
    seat: NonNull<Seat>,
    engine: Weak<Engine>,
}

/// The end of a thread, at which it gives its sessions back.
struct End;

thread_local! {
    /// The session used last: attachment and seat. None once the end of the thread has begun.
    static LAST: Cell<(u64, *const Seat)> = const { Cell::new((0, std::ptr::null())) };
    /// All sessions of the thread. Has no destructor: what runs after `END` still asks.
    static MINE: ManuallyDrop<RefCell<Vec<Remembered>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
    static END: End = const { End };
    /// How often `LAST_END` has come. The thread may have used the library too late for `END` to come at all.
    static ROUND: Cell<usize> = const { Cell::new(0) };
}

/// Has this thread given its sessions back, so that it is not sure that anything will do so once more? If not, it will do
/// so from now on.
pub(crate) fn thread_has_ended() -> bool {
    ROUND.get() > 0 || END.try_with(|_| ()).is_err()
}

impl Drop for End {
    fn drop(&mut self) {
        give_back_all(false);
    }
}

/// The end of a thread that has first used the library when the likes of [`End`] were over, and of groups that nothing
/// has ended.
static LAST_END: LastEnd = LastEnd::new(end_at_last);

fn end_at_last() {
    let round = ROUND.get() + 1;
    ROUND.set(round);
    // One round is left to destructors that come between the first use of the library and this.
    give_back_all(round + 1 >= LastEnd::ROUNDS);
}

/// Gives back the sessions of this thread, which ends; groups that are open in them are left, for a destructor that
/// runs later may end them, or rolled back.
fn give_back_all(with_groups: bool) {
    LAST.set((0, std::ptr::null()));
    // What is dropped below may be an engine's last reference, so nothing is borrowed meanwhile.
    let all = MINE.with(|mine| mine.take());
    LAST_END.forget();
    for entry in all {
        let Some(engine) = entry.engine.upgrade() else { continue };
        let Some(attached) = engine.attached_here() else { continue };
        if attached.id != entry.id {
            continue;
        }
        // SAFETY: seats live as long as their attachment, which the upgraded engine keeps.
        let seat = unsafe { entry.seat.as_ref() };
        // The next thread may get this one's number.
        seat.thread.store(0, Ordering::Relaxed);
        if seat.state.get() == SeatState::Idle {
            attached.sessions().idle.push(entry.seat);
        } else if !with_groups {
            MINE.with(|mine| mine.borrow_mut().push(entry));
            LAST_END.ask();
        } else if let Ok(entered) = engine.enter_seat(entry.seat) {
            group::end_with_thread(entered);
        }
    }
}

/// Counts attachments.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Attached {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread at work in a session.
pub(crate) struct Entered<'e> {
    engine: &'e Engine,
    attached: &'e Attached,
    seat: &'e Seat,
    before: SeatState,
    /// The session is nobody's once nothing is going on in it.
    lent: bool,
}

impl Drop for Entered<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.seat.state.set(self.before);
        if self.lent {
            self.give_back();
        }
    }
}

impl<'e> Entered<'e> {
    /// Is a group open on this thread?
    #[inline(always)]
    pub(crate) fn in_group(&self) -> bool {
        self.before == SeatState::Group
    }

    pub(crate) fn seat(&self) -> &'e Seat {
        self.seat
    }

    #[inline(always)]
    pub(crate) fn writer(&mut self, patience: Patience) -> Writer<'_> {
        // SAFETY: the state says that nobody but this thread, here, uses the session.
        let session = unsafe { &mut *self.seat.session.get() };
        session.begin_turn();
        Writer { segment: &self.engine.segment, me: &self.attached.registration, s: session, patience }
    }

    pub(crate) fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// Leaves the session in another state than it was found in.
    pub(crate) fn leave_as(&mut self, state: SeatState) {
        self.before = state;
    }

    /// Gives a lent session back, if nothing is going on in it.
    #[cold]
    #[inline(never)]
    fn give_back(&self) {
        // In the child of a callback's fork it is the parent's.
        if self.before == SeatState::Idle && self.attached.era.is_here() {
            let seat = NonNull::from(self.seat);
            self.engine.forget_seat(seat);
            self.attached.sessions().idle.push(seat);
        }
    }
}

/// The common case of [`Entered`]: the thread has a session, and nothing is going on in it.
pub(crate) struct Seated<'e> {
    engine: &'e Engine,
    attached: &'e Attached,
    seat: &'e Seat,
    /// What the session is left as.
    after: SeatState,
}

/// How a thread has found the session that it used last.
pub(crate) enum Taken<'e> {
    /// Nothing is going on in it, and it has been left so.
    Alone,
    /// A group is open in it that need not be rolled back.
    InGroup(Seated<'e>),
    /// Something is unusual.
    None,
}

impl Drop for Seated<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.seat.state.set(self.after);
    }
}

impl<'e> Seated<'e> {
    #[inline(always)]
    pub(crate) fn seat(&self) -> &'e Seat {
        self.seat
    }

    /// Leaves the session in another state than it was found in.
    #[inline(always)]
    pub(crate) fn leave_as(&mut self, state: SeatState) {
        self.after = state;
    }

    #[inline(always)]
    pub(crate) fn writer(&mut self, patience: Patience) -> Writer<'_> {
        // SAFETY: the state says that nobody but this thread, here, uses the session.
        let session = unsafe { &mut *self.seat.session.get() };
        session.begin_turn();
        Writer { segment: &self.engine.segment, me: &self.attached.registration, s: session, patience }
    }
}

/// The session that this thread used last, if it is one of this attachment.
#[cold]
#[inline(never)]
fn seat_used_last(attached: &Attached) -> Option<&Seat> {
    let (id, seat) = LAST.get();
    // SAFETY: the attachment is alive, so its seats are.
    (id == attached.id).then(|| unsafe { &*seat })
}

impl Engine {
    /// Begins to work in the session that this thread used last, if nothing is going on in it.
    #[inline(always)]
    pub(crate) fn take_seat(&self) -> Option<Seated<'_>> {
        let (attached, seat) = self.seat_at_hand()?;
        // Of an object that has been cut a session may have left a log and locks for others.
        if seat.state.get() != SeatState::Idle || !self.segment.is_whole() {
            return None;
        }
        seat.state.set(SeatState::Busy);
        Some(Seated { engine: self, attached, seat, after: SeatState::Idle })
    }

    /// Begins to work in the group that is open in the session that this thread used last.
    #[inline(always)]
    pub(crate) fn take_group(&self) -> Taken<'_> {
        let Some((attached, seat)) = self.seat_at_hand() else { return Taken::None };
        match seat.state.get() {
            SeatState::Group if !seat.group.is_doomed() => {
                seat.state.set(SeatState::GroupBusy);
                Taken::InGroup(Seated { engine: self, attached, seat, after: SeatState::Group })
            }
            SeatState::Idle => Taken::Alone,
            _ => Taken::None,
        }
    }

    /// The session of this thread, if it is at hand.
    #[inline(always)]
    fn seat_at_hand(&self) -> Option<(&Attached, &Seat)> {
        let attached = self.attached_here()?;
        let thread = thread::number();
        // Acquire pairs with the Release in `use_next`.
        let seat = attached.places[place_of(thread)].load(Ordering::Acquire);
        // SAFETY: the attachment is alive, so its seats are.
        match unsafe { seat.as_ref() } {
            Some(seat) if seat.thread.load(Ordering::Relaxed) == thread => Some((attached, seat)),
            _ => seat_used_last(attached).map(|seat| (attached, seat)),
        }
    }

    /// The registration of this process; makes it if need be.
    #[inline(always)]
    pub(super) fn attached(&self) -> Result<&Attached> {
        match self.attached_here() {
            Some(attached) => Ok(attached),
            None => self.attach(),
        }
    }

    /// The registration, if this very process has made one.
    #[inline(always)]
    fn attached_here(&self) -> Option<&Attached> {
        // SAFETY: attachments are freed only by the engine's drop.
        let attached = unsafe { self.attached.load(Ordering::Acquire).as_ref() }?;
        attached.era.is_here().then_some(attached)
    }

    #[cold]
    #[inline(never)]
    fn attach(&self) -> Result<&Attached> {
        if !self.is_writable() {
            return Err(Error::ReadOnly);
        }
        loop {
            let before = self.attached.load(Ordering::Acquire);
            if let Some(attached) = self.attached_here() {
                return Ok(attached);
            }
            // The registration of another process, if there is one, was this process's parent's. It is not
            // freed: its parts may have been in use when the process forked.
            let new = Box::into_raw(Box::new(Attached {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                era: process::Era::here(),
                registration: self.register()?,
                sessions: Mutex::new(Sessions::default()),
                places: [const { AtomicPtr::new(std::ptr::null_mut()) }; PLACES],
            }));
            if self.attached.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: it was made above and not published.
                drop(unsafe { Box::from_raw(new) });
            // SAFETY: attachments are freed only by the engine's drop.
            } else if let Some(parent) = unsafe { before.as_ref() } {
                parent.registration.spare.close_in_child(self.segment.files());
            }
        }
    }

    /// Begins to work in this thread's session.
    pub(crate) fn enter(&self, patience: Patience) -> Result<Entered<'_>> {
        match self.seat_at_hand() {
            Some((attached, seat)) => self.sit(attached, seat),
            None => self.enter_slowly(patience),
        }
    }

    fn sit<'e>(&'e self, attached: &'e Attached, seat: &'e Seat) -> Result<Entered<'e>> {
        let before = seat.state.get();
        if before == SeatState::Idle {
            self.segment.require_whole()?;
            seat.state.set(SeatState::Busy);
        } else if before == SeatState::Group {
            seat.state.set(SeatState::GroupBusy);
        } else {
            return Err(Error::InCallback);
        }
        Ok(Entered { engine: self, attached, seat, before, lent: false })
    }

    #[cold]
    #[inline(never)]
    fn enter_slowly(&self, patience: Patience) -> Result<Entered<'_>> {
        if self.group_of_parent_is_open() {
            return Err(Error::Forked);
        }
        self.segment.require_whole()?;
        let attached = self.attached()?;
        let seat = match self.remembered(attached.id) {
            Some(seat) => seat,
            None => {
                let idle = attached.sessions().idle.pop();
                let seat = match idle {
                    Some(seat) => seat,
                    None => self.claim(attached, patience.to_take_part())?,
                };
                self.remember(attached, seat);
                seat
            }
        };
        self.use_next(attached, seat);
        // SAFETY: the attachment is alive, so its seats are.
        let mut entered = self.sit(attached, unsafe { seat.as_ref() })?;
        entered.lent = thread_has_ended();
        Ok(entered)
    }

    /// Makes a seat the one that this thread finds without a search, which opens the short ways. These know nothing of
    /// checksums, nor of giving the seat back: where that is to be done every operation goes the general way.
    fn use_next(&self, attached: &Attached, seat: NonNull<Seat>) {
        if thread_has_ended() || self.segment.has_checksums() {
            LAST.set((0, std::ptr::null()));
            return;
        }
        LAST.set((attached.id, seat.as_ptr()));
        let at = place_of(thread::number());
        let place = &attached.places[at];
        let before = place.load(Ordering::Acquire);
        // SAFETY: the attachment is alive, so its seats are.
        let is_taken = unsafe { before.as_ref() }.is_some_and(|seat| {
            let thread = seat.thread.load(Ordering::Relaxed);
            thread != 0 && place_of(thread) == at
        });
        if !is_taken {
            // If another thread was faster, it has the place.
            let _ = place.compare_exchange(before, seat.as_ptr(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn remembered(&self, id: u64) -> Option<NonNull<Seat>> {
        MINE.with(|mine| mine.borrow().iter().find(|e| e.id == id).map(|e| e.seat))
    }

    fn remember(&self, attached: &Attached, seat: NonNull<Seat>) {
        let engine = self.me.clone();
        if !thread_has_ended() {
            // SAFETY: the attachment is alive, so its seats are.
            unsafe { seat.as_ref() }.thread.store(thread::number(), Ordering::Relaxed);
        }
        LAST_END.ask();
        MINE.with(|mine| {
            let mut mine = mine.borrow_mut();
            mine.retain(|e| e.engine.strong_count() > 0);
            mine.push(Remembered { id: attached.id, seat, engine });
        });
    }

    /// Takes a seat away from this thread.
    pub(crate) fn forget_seat(&self, seat: NonNull<Seat>) {
        MINE.with(|mine| {
            let mut mine = mine.borrow_mut();
            mine.retain(|e| e.seat != seat);
            if mine.is_empty() {
                // Nothing else frees what it has allocated, if the end of the thread is over.
                *mine = Vec::new();
            }
        });
        // SAFETY: this thread has it, so that nobody has freed it.
        unsafe { seat.as_ref() }.thread.store(0, Ordering::Relaxed);
        if std::ptr::eq(LAST.get().1, seat.as_ptr()) {
            LAST.set((0, std::ptr::null()));
        }
    }

    /// Makes a seat, in which a group is open, this thread's. Fails if one is open here already.
    pub(crate) fn adopt_seat(&self, seat: NonNull<Seat>) -> Result<()> {
        let attached = self.attached()?;
        if let Some(other) = self.remembered(attached.id) {
            // SAFETY: the attachment is alive, so its seats are.
            if unsafe { other.as_ref() }.state.get() != SeatState::Idle {
                return Err(Error::InGroup("another group is open on this thread"));
            }
            self.forget_seat(other);
            attached.sessions().idle.push(other);
        }
        self.remember(attached, seat);
        self.use_next(attached, seat);
        Ok(())
    }

    /// Begins to work in a seat that no thread has. It is available to all as soon as nothing is going on in it.
    pub(crate) fn enter_seat(&self, seat: NonNull<Seat>) -> Result<Entered<'_>> {
        let Some(attached) = self.attached_here() else { return Err(Error::Forked) };
        // SAFETY: the attachment is alive, so its seats are.
        let mut entered = self.sit(attached, unsafe { seat.as_ref() })?;
        entered.lent = true;
        Ok(entered)
    }

    /// The seat of this thread in which a group is open, if there is one. Asked only while groups are open.
    #[inline(never)]
    pub(crate) fn seat_with_group(&self) -> Result<bool> {
        // A child that has a group of its parent open never gets as far as to a session of its own.
        match self.seat_at_hand() {
            Some((_, seat)) => seat.has_group(),
            None => self.seat_with_group_slowly(),
        }
    }

    #[cold]
    #[inline(never)]
    fn seat_with_group_slowly(&self) -> Result<bool> {
        if self.group_of_parent_is_open() {
            return Err(Error::Forked);
        }
        let Some(attached) = self.attached_here() else { return Ok(false) };
        let Some(seat) = self.remembered(attached.id) else { return Ok(false) };
        // SAFETY: the attachment is alive, so its seats are.
        unsafe { seat.as_ref() }.has_group()
    }

    /// Fails where this thread would wait for itself: in a group, and in the callback of an operation.
    pub(crate) fn may_wait(&self) -> Result<()> {
        if self.group_of_parent_is_open() {
            return Err(Error::Forked);
        }
        let Some(attached) = self.attached_here() else { return Ok(()) };
        let Some(seat) = self.remembered(attached.id) else { return Ok(()) };
        // SAFETY: the attachment is alive, so its seats are.
        match unsafe { seat.as_ref() }.state.get() {
            SeatState::Idle => Ok(()),
            SeatState::Group => Err(Error::InGroup("waiting for a change")),
            SeatState::Busy | SeatState::GroupBusy => Err(Error::InCallback),
        }
    }

    /// Does this seat belong to this thread of this process?
    #[inline]
    pub(crate) fn owns_seat(&self, seat: NonNull<Seat>) -> bool {
        let Some(attached) = self.attached_here() else { return false };
        // SAFETY: whoever asks keeps the engine, which frees no seats before its end, and never those of a parent.
        let known = unsafe { seat.as_ref() };
        let is_known = known.of == attached.id && known.thread.load(Ordering::Relaxed) == thread::number();
        is_known || self.owns_seat_by_memory(seat)
    }

    /// The same for a thread whose end has begun.
    #[cold]
    #[inline(never)]
    fn owns_seat_by_memory(&self, seat: NonNull<Seat>) -> bool {
        self.attached_here().is_some_and(|attached| self.remembered(attached.id) == Some(seat))
    }

    /// Was a group open on this thread when the parent process forked, and has not been ended since?
    fn group_of_parent_is_open(&self) -> bool {
        let here = self.attached_here().map_or(0, |attached| attached.id);
        MINE.with(|mine| {
            mine.borrow().iter().any(|e| {
                // SAFETY: seats of an engine that lives are not freed, and never those of a parent.
                std::ptr::eq(e.engine.as_ptr(), self)
                    && e.id != here
                    && matches!(
                        unsafe { e.seat.as_ref() }.state.get(),
                        SeatState::Group | SeatState::GroupBusy
                    )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::hashtbl::HashTable;
    use crate::object::{ManageOptions, OpenOptions};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};

    const ADDED: i64 = 300;

    fn table() -> HashTable {
        let object = OpenOptions::new().anonymous().expect("memory");
        HashTable::manage(&object, &ManageOptions::new()).expect("a table")
    }

    /// Adds to a counter that all have, and in groups to one that only `thread` has.
    fn work(table: &HashTable, thread: u64) {
        for _ in 0..ADDED {
            table.increment(b"all", 1, 0).expect("adds");
            let group = table.table.begin().expect("a group");
            table.increment(&thread.to_le_bytes(), 1, 0).expect("adds");
            group.commit().expect("commits");
        }
    }

    fn sum(table: &HashTable, key: &[u8]) -> i64 {
        table.increment(key, 0, 0).expect("reads")
    }

    /// Goal: no two threads work in one session, though tests have fewer places than there are threads. Method: many that
    /// live at once, and what they have added.
    #[test]
    fn threads_with_one_place_have_sessions_of_their_own() {
        let (table, all_there) = (table(), Barrier::new(12));
        std::thread::scope(|threads| {
            for thread in 0..12 {
                let (table, all_there) = (&table, &all_there);
                threads.spawn(move || {
                    sum(table, b"all");
                    all_there.wait();
                    work(table, thread);
                });
            }
        });
        assert_eq!(sum(&table, b"all"), 12 * ADDED);
        assert!((0..12u64).all(|thread| sum(&table, &thread.to_le_bytes()) == ADDED));
    }

    /// Goal: the session of a thread that has ended is not that of the next thread with its number. Method: threads one
    /// after another, mostly of one number, while the session of the first one is in the hands of another thread.
    #[test]
    fn a_session_does_not_come_with_a_thread_s_number() {
        let (table, is_over) = (table(), AtomicBool::new(false));
        std::thread::scope(|threads| {
            let first = || threads.spawn(|| sum(&table, b"all")).join().expect("ends");
            first();
            let heir = threads.spawn(|| {
                let mut added = 0;
                while !is_over.load(Ordering::Relaxed) {
                    table.increment(b"heir", 1, 0).expect("adds");
                    added += 1;
                }
                added
            });
            while sum(&table, b"heir") == 0 {
                std::thread::yield_now();
            }
            for thread in 0..20 {
                threads.spawn({
                    let table = &table;
                    move || work(table, thread)
                });
            }
            for _ in 0..20 {
                first();
            }
            (0..20).for_each(|thread| {
                let table = &table;
                threads.spawn(move || work(table, thread)).join().expect("ends");
            });
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(heir.join().expect("ends"), sum(&table, b"heir"));
        });
        assert_eq!(sum(&table, b"all"), 40 * ADDED);
        assert!((0..20u64).all(|thread| sum(&table, &thread.to_le_bytes()) == 2 * ADDED));
    }
}
