//! Handles: what C holds in its hands, and how a closed or wrong one is told from a good one.
//!
//! A handle begins with a magic word, which says its noun and changes when it is closed. The memory of the handles
//! that a thread closes rests for a while before it is given back, so that the magic word of a handle that was
//! closed a moment ago can still be read.

use super::call::{Fault, Outcome};
use crate::engine::sessions;
use crate::error::Error;
use crate::os::thread::LastEnd;
use std::alloc::Layout;
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of handle. The implementing type is the opaque one that C knows.
pub(super) trait Noun {
    /// What its handles begin with.
    const MAGIC: u64;
    /// Other words that its handles may begin with, so that the short ways of some calls take only those that
    /// they are for, without looking further.
    const OTHERS: &'static [u64] = &[];
    /// What is behind a handle.
    type Body;

    /// Called when a handle is closed, while its body is still in its place.
    fn closing(_body: &Self::Body) {}
}

/// Magic words of all nouns, so that a handle of another noun is known as such.
pub(super) mod magic {
    pub(in crate::ffi) const OBJECT: u64 = 0x6e73_686d_0b1e_c701;
    pub(in crate::ffi) const TABLE: u64 = 0x6e73_686d_0b1e_c702;
    pub(in crate::ffi) const HASHTBL: u64 = 0x6e73_686d_0b1e_c703;
    pub(in crate::ffi) const TXN: u64 = 0x6e73_686d_0b1e_c704;
    pub(in crate::ffi) const CURSOR: u64 = 0x6e73_686d_0b1e_c705;
    pub(in crate::ffi) const ARRAY: u64 = 0x6e73_686d_0b1e_c707;
    pub(in crate::ffi) const PMANAGE: u64 = 0x6e73_686d_0b1e_c7b0;
    pub(in crate::ffi) const TYPE: u64 = 0x6e73_686d_0b1e_c7a0;
    pub(in crate::ffi) const RESULT: u64 = 0x6e73_686d_0b1e_c7a1;
    /// A hash table with types that are not both raw bytes.
    pub(in crate::ffi) const HASHTBL_TYPED: u64 = 0x6e73_686d_0b1e_c7a2;
    /// A hash table from integers of 8 bytes to such integers.
    pub(in crate::ffi) const HASHTBL_WORDS: u64 = 0x6e73_686d_0b1e_c7a3;
    pub(super) const ALL: [u64; 11] =
        [OBJECT, TABLE, HASHTBL, TXN, CURSOR, ARRAY, PMANAGE, TYPE, RESULT, HASHTBL_TYPED, HASHTBL_WORDS];
    pub(super) const CLOSED: u64 = 0x6e73_686d_dead_dead;
}

/// The memory behind a handle.
#[repr(C)]
pub(super) struct Handle<B> {
    magic: AtomicU64,
    /// Gives the memory back.
    free: unsafe fn(*mut Head),
    /// It is part of another one and cannot be closed by itself.
    is_part: bool,
    body: ManuallyDrop<B>,
}

/// What the memory of all handles begins with.
#[repr(C)]
struct Head {
    magic: AtomicU64,
    free: unsafe fn(*mut Head),
}

impl<B> Handle<B> {
    /// A handle that is part of another one.
    pub(super) fn part<N: Noun<Body = B>>(body: B) -> Handle<B> {
        Handle { is_part: true, ..Handle::whole::<N>(body) }
    }

    fn whole<N: Noun<Body = B>>(body: B) -> Handle<B> {
        let (magic, body) = (AtomicU64::new(N::MAGIC), ManuallyDrop::new(body));
        Handle { magic, free: free::<B>, is_part: false, body }
    }

    /// Closes a handle that is part of another one. Its body stays, for `drop_part`.
    pub(super) fn close_part(&self) {
        self.magic.store(magic::CLOSED, Ordering::Release);
    }

    /// Drops the body of a handle that is part of another one.
    ///
    /// # Safety
    /// To be called once.
    pub(super) unsafe fn drop_part(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { ManuallyDrop::drop(&mut self.body) };
    }
}

/// How many closed handles of one thread rest.
const RESTING: usize = 256;

/// Memory of handles that this thread has closed, in the order of their closing, round and round.
struct Rest {
    state: Cell<RestState>,
    places: [Cell<*mut Head>; RESTING],
    next: Cell<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RestState {
    /// Nothing has rested yet.
    New,
    /// What rests ends with the thread.
    Open,
    /// The thread is ending, and lets nothing rest.
    Ended,
}

/// The end of a thread, at which what rests is given back.
struct RestEnd;

thread_local! {
    /// Has no destructor: what runs after `REST_END` still closes handles.
    static REST: Rest = const {
        Rest {
            state: Cell::new(RestState::New),
            places: [const { Cell::new(std::ptr::null_mut()) }; RESTING],
            next: Cell::new(0),
        }
    };
    static REST_END: RestEnd = const { RestEnd };
}

impl Drop for RestEnd {
    fn drop(&mut self) {
        REST_LAST_END.forget();
        end_rest();
    }
}

/// The end of a thread that has closed its first handle when the likes of [`RestEnd`] were over.
static REST_LAST_END: LastEnd = LastEnd::new(end_rest);

/// Gives back what rests. From now on nothing does.
fn end_rest() {
    REST.with(|rest| {
        rest.state.set(RestState::Ended);
        for place in &rest.places {
            // SAFETY: what rests here is this thread's alone.
            unsafe { give_back(place.replace(std::ptr::null_mut())) };
        }
    });
}

/// Makes a handle. It lives until it is closed.
pub(super) fn open<N: Noun>(body: N::Body) -> *mut N {
    open_as(N::MAGIC, body)
}

/// The same with one of the noun's other magic words.
pub(super) fn open_as<N: Noun>(magic: u64, body: N::Body) -> *mut N {
    debug_assert!(is_of::<N>(magic));
    Room::<N>::new().fill(Handle { magic: AtomicU64::new(magic), ..Handle::whole::<N>(body) })
}

/// Memory for a handle that is about to be made.
pub(super) struct Room<N: Noun>(NonNull<Handle<N::Body>>);

impl<N: Noun> Room<N> {
    #[inline(always)]
    pub(super) fn new() -> Room<N> {
        Room(rested().unwrap_or_else(memory_for))
    }

    /// Makes the handle.
    #[inline(always)]
    pub(super) fn open(self, body: N::Body) -> *mut N {
        self.fill(Handle::whole::<N>(body))
    }

    #[inline(always)]
    fn fill(self, handle: Handle<N::Body>) -> *mut N {
        let memory = ManuallyDrop::new(self).0;
        // SAFETY: it is memory for such a handle, and nobody else's.
        unsafe { memory.write(handle) };
        memory.as_ptr().cast()
    }
}

impl<N: Noun> Drop for Room<N> {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: there is no handle in it.
        unsafe { free::<N::Body>(self.0.as_ptr().cast()) };
    }
}

/// Memory for a handle with such a body.
#[cold]
#[inline(never)]
fn memory_for<B>() -> NonNull<Handle<B>> {
    let memory = Box::new(MaybeUninit::<Handle<B>>::uninit());
    NonNull::from(Box::leak(memory)).cast()
}

/// The memory that has rested longest, if it is for a handle with such a body.
#[inline(always)]
fn rested<B>() -> Option<NonNull<Handle<B>>> {
    let take = |rest: &Rest| {
        let place = &rest.places[rest.next.get() % RESTING];
        let memory = place.get();
        // SAFETY: what rests here is memory of closed handles, and this thread's alone.
        let free = unsafe { memory.as_ref() }?.free;
        if !std::ptr::fn_addr_eq(free, self::free::<B> as unsafe fn(*mut Head)) {
            return None;
        }
        place.set(std::ptr::null_mut());
        NonNull::new(memory.cast())
    };
    REST.with(take)
}

/// Is this a magic word of the noun?
#[inline(always)]
fn is_of<N: Noun>(magic: u64) -> bool {
    magic == N::MAGIC || N::OTHERS.contains(&magic)
}

/// What is behind a handle.
///
/// # Safety
/// The argument must be NULL or have been made by this library, and not be closed during `'a`. Handles that
/// were closed before are recognised as long as their memory rests.
#[inline(always)]
pub(super) unsafe fn body<'a, N: Noun>(number: u32, handle: *const N) -> Outcome<&'a N::Body> {
    let handle: *const Handle<N::Body> = handle.cast();
    if handle.is_null() {
        return Err(Fault::Null(number));
    }
    if !handle.is_aligned() {
        return Err(Fault::Argument(number, "it is not a handle"));
    }
    // SAFETY: the caller's promise: it is memory of a handle. Only its first word is looked at, which all
    // nouns have.
    let magic = unsafe { &*handle.cast::<AtomicU64>() }.load(Ordering::Acquire);
    if !is_of::<N>(magic) {
        return Err(wrong(number, magic));
    }
    // SAFETY: the magic word says that the body is there.
    Ok(unsafe { &(*handle).body })
}

/// What is behind a handle, if there is nothing to complain about.
///
/// # Safety
/// As for [`body`].
#[inline(always)]
pub(super) unsafe fn peek<'a, N: Noun>(handle: *const N) -> Option<&'a N::Body> {
    // SAFETY: the caller's promise.
    unsafe { peek_as(N::MAGIC, handle) }
}

/// The same for handles with this magic word of the noun's only.
///
/// # Safety
/// As for [`body`].
#[inline(always)]
pub(super) unsafe fn peek_as<'a, N: Noun>(magic: u64, handle: *const N) -> Option<&'a N::Body> {
    let handle: *const Handle<N::Body> = handle.cast();
    // SAFETY: the caller's promise: it is memory of a handle, which all begin with a magic word.
    if handle.is_null() || unsafe { handle.cast::<u64>().read_unaligned() } != magic {
        return None;
    }
    // SAFETY: the magic word says that the body is there.
    Some(unsafe { &(*handle).body })
}

/// The same for a handle that was just peeked at.
///
/// # Safety
/// As for [`body`], which must have been there.
#[inline(always)]
pub(super) unsafe fn known<'a, N: Noun>(handle: *const N) -> &'a N::Body {
    // SAFETY: the caller's promise.
    unsafe { &(*handle.cast::<Handle<N::Body>>()).body }
}

/// Ends a handle whose body is of no use any more, and need not be dropped.
///
/// # Safety
/// The argument must be a live handle that is no part of another one, and no other thread can be closing it.
#[inline(always)]
pub(super) unsafe fn close_emptied<N: Noun>(handle: *mut N) {
    // SAFETY: the caller's promise.
    unsafe { &*handle.cast::<AtomicU64>() }.store(magic::CLOSED, Ordering::Release);
    rest(handle.cast());
}

/// Ends a handle and gives what was behind it.
///
/// # Safety
/// As for [`body`], and no other thread may be using the handle.
pub(super) unsafe fn close<N: Noun>(number: u32, handle: *mut N) -> Outcome<N::Body> {
    // SAFETY: the caller's promise.
    unsafe { mark_closed(number, handle) }?;
    // SAFETY: that succeeds once in the life of a handle.
    Ok(unsafe { take(handle) })
}

/// Ends a handle. What was behind it ends as well, or with the calls of this thread to which it is [lent](lend).
///
/// # Safety
/// As for [`close`].
pub(super) unsafe fn end<N: Noun>(number: u32, handle: *mut N) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { mark_closed(number, handle) }?;
    match outermost_loan(handle.cast()) {
        Some(loan) => loan.is_closed.set(true),
        // SAFETY: marking succeeds once in the life of a handle.
        None => drop(unsafe { take(handle) }),
    }
    Ok(())
}

/// Makes a handle a closed one.
///
/// # Safety
/// As for [`close`].
unsafe fn mark_closed<N: Noun>(number: u32, handle: *mut N) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { body::<N>(number, handle) }?;
    let handle: *mut Handle<N::Body> = handle.cast();
    // SAFETY: it was just found to be a live handle.
    if unsafe { (*handle).is_part } {
        return Err(Fault::Argument(number, "it is borrowed, and ends with the handle that it came from"));
    }
    // SAFETY: it was just found to be a live handle.
    let word = unsafe { &(*handle).magic };
    // Of two threads that close it one gets through.
    let ended = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |magic| {
        is_of::<N>(magic).then_some(magic::CLOSED)
    });
    ended.map_err(|magic| wrong(number, magic))?;
    // SAFETY: the exchange above succeeds once in the life of a handle, whose body is still there.
    N::closing(unsafe { &(*handle).body });
    Ok(())
}

/// Takes what is behind a handle that was closed, and lays its memory to rest.
///
/// # Safety
/// To be called once for a handle that was marked as closed.
unsafe fn take<N: Noun>(handle: *mut N) -> N::Body {
    let handle: *mut Handle<N::Body> = handle.cast();
    // SAFETY: the caller's promise.
    let body = unsafe { ManuallyDrop::take(&mut (*handle).body) };
    rest(handle.cast());
    body
}

/// A call of this thread that runs a callback: the handle that it uses, which the callback may close, and what it shows
/// to the callback. Either may be NULL.
struct Loan {
    handle: *const Head,
    shown: *const c_void,
    outer: *const Loan,
    /// The handle was closed meanwhile; this is the outermost call that uses it.
    is_closed: Cell<bool>,
}

thread_local! {
    static LOANS: Cell<*const Loan> = const { Cell::new(std::ptr::null()) };
}

/// Calls `then` with what is behind a handle, which stays there until it returns, also if a callback closes the handle.
///
/// # Safety
/// As for [`body`], but that this thread may close the handle meanwhile, by [`end`].
#[inline(always)]
pub(super) unsafe fn lend<N: Noun, R>(
    number: u32,
    handle: *mut N,
    then: impl FnOnce(&N::Body) -> Outcome<R>,
) -> Outcome<R> {
    // SAFETY: the caller's promise.
    let body = unsafe { body(number, handle) }?;
    // SAFETY: as above; it is live.
    unsafe { show(handle, std::ptr::null(), || then(body)) }
}

/// Calls `then`, which shows something to a callback, by means of a handle; as long as it runs, what is shown [is
/// known](is_shown), and what is behind the handle stays there.
///
/// # Safety
/// The handle must be NULL or live; this thread may close it meanwhile, by [`end`].
#[inline(always)]
pub(super) unsafe fn show<N: Noun, R>(handle: *mut N, shown: *const c_void, then: impl FnOnce() -> R) -> R {
    // Its address is asked for once, and by a function that does nothing else, so that `then` stays where it is.
    let loans = LOANS.with(std::ptr::from_ref);
    // SAFETY: this thread does not end before the call.
    let loans = unsafe { &*loans };
    let loan = Loan { handle: handle.cast(), shown, outer: loans.get(), is_closed: Cell::new(false) };
    loans.set(&raw const loan);
    let _lent = Lent::<N> { loans, loan: &loan, noun: PhantomData };
    then()
}

/// Is this shown to a callback that runs on this thread?
#[inline(always)]
pub(super) fn is_shown(what: *const c_void) -> bool {
    // SAFETY: what is in the list belongs to calls further up on this thread's stack.
    let mut loan = unsafe { LOANS.get().as_ref() };
    while let Some(here) = loan {
        if std::ptr::eq(here.shown, what) {
            return true;
        }
        // SAFETY: as above.
        loan = unsafe { here.outer.as_ref() };
    }
    false
}

/// Ends a loan.
struct Lent<'a, N: Noun> {
    loans: &'a Cell<*const Loan>,
    loan: &'a Loan,
    noun: PhantomData<*mut N>,
}

impl<N: Noun> Drop for Lent<'_, N> {
    #[inline(always)]
    fn drop(&mut self) {
        self.loans.set(self.loan.outer);
        if self.loan.is_closed.get() {
            // SAFETY: it was marked as closed by `end`, which has left this to the outermost loan.
            drop(unsafe { take(self.loan.handle.cast::<N>().cast_mut()) });
        }
    }
}

/// The outermost call of this thread that uses a handle.
fn outermost_loan<'a>(handle: *const Head) -> Option<&'a Loan> {
    let (mut loan, mut found) = (LOANS.get(), None);
    // SAFETY: what is in the list belongs to calls further up on this thread's stack.
    while let Some(here) = unsafe { loan.as_ref() } {
        if here.handle == handle {
            found = Some(here);
        }
        loan = here.outer;
    }
    found
}

/// Lays the memory of a closed handle to rest, and gives back what has rested longest.
#[inline(always)]
fn rest(memory: *mut Head) {
    let oldest = REST.with(|rest| {
        if rest.state.get() != RestState::Open && !opens(rest) {
            return memory;
        }
        let next = rest.next.get() % RESTING;
        rest.next.set(next + 1);
        rest.places[next].replace(memory)
    });
    // SAFETY: it is memory of a closed handle, which nobody but this thread knows.
    unsafe { give_back(oldest) };
}

/// May something rest from now on? Not where nothing would give it back.
#[cold]
#[inline(never)]
fn opens(rest: &Rest) -> bool {
    if rest.state.get() == RestState::New {
        let is_late = sessions::thread_has_ended() || REST_END.try_with(|_| ()).is_err();
        rest.state.set(if is_late { RestState::Ended } else { RestState::Open });
        if !is_late {
            REST_LAST_END.ask();
        }
    }
    rest.state.get() == RestState::Open
}

/// Frees what has rested.
///
/// # Safety
/// NULL, or the memory of a closed handle that only the caller knows.
#[inline(always)]
unsafe fn give_back(memory: *mut Head) {
    if !memory.is_null() {
        // SAFETY: the caller's promise.
        unsafe { ((*memory).free)(memory) };
    }
}

/// Gives back the memory of a handle.
///
/// # Safety
/// It must have been made by [`open`] with this type of body, which has been dropped or moved away.
unsafe fn free<B>(memory: *mut Head) {
    // SAFETY: the caller's promise: it came from a box of this layout.
    unsafe { std::alloc::dealloc(memory.cast(), Layout::new::<Handle<B>>()) };
}

#[cold]
fn wrong(number: u32, found: u64) -> Fault {
    if magic::ALL.contains(&found) {
        Fault::Argument(number, "it is a handle of another type")
    } else {
        Fault::Core(Error::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const CLOSED_LATE: usize = 10;
    static FREED: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Noun for Counted {
        const MAGIC: u64 = magic::TXN;
        type Body = u64;
    }

    unsafe fn count(memory: *mut Head) {
        FREED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { free::<u64>(memory) };
    }

    extern "C" fn close_some(_: *mut c_void) {
        for _ in 0..CLOSED_LATE {
            let handle = Handle { free: count, ..Handle::whole::<Counted>(7) };
            let handle = Room::<Counted>::new().fill(handle);
            // SAFETY: it was just made.
            assert!(unsafe { close::<Counted>(1, handle) }.is_ok());
        }
    }

    /// Goal: a thread leaves no memory behind if it closes its first handles when thread-local variables are destroyed. Method:
    /// it does so in a destructor of `pthread_key_create`; the handles' memory is counted as it is freed.
    #[test]
    fn what_rests_is_given_back_by_a_thread_that_begins_late() {
        let mut key = 0;
        // SAFETY: a valid place, and a function that stays.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(close_some)) }, 0);
        let thread = std::thread::spawn(move || {
            // SAFETY: the key was just made; its destructor does not look at the value.
            assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(1)) }, 0);
        });
        thread.join().expect("no panic");
        assert_eq!(FREED.load(Ordering::Relaxed), CLOSED_LATE);
    }
}
