//! What becomes of this process when a page of an object is taken away under it.
//!
//! Whoever may write to the file of a File object may also shorten it, and the system kills with SIGBUS who then touches
//! what is gone. It does the same when a device fails to give back a page. Nothing can be done about that
//! without a handler for the signal, which is the process's to have: so there is one for those who ask for it. It
//! puts an empty private page in the place of the one that is gone, and marks the object as cut.
//!
//! Owns the table of mappings, which the handler searches, and the handler, which may run at any instruction: all it uses
//! is atomics and system calls. It does not know what a page means, but for the words that its owner wants to find in
//! one page from then on, so that whoever looks there notices.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use nix::errno::Errno;

use super::map::page_size;
use crate::error::{Error, Result};

/// Mappings that are known to the handler; more are not guarded.
const MOST: usize = 2048;

/// One mapping. It is written by whoever has claimed it, and read by handlers at any time: `sequence` is odd while it is
/// being changed.
struct Entry {
    claimed: AtomicBool,
    sequence: AtomicU64,
    base: AtomicUsize,
    len: AtomicUsize,
    /// Whose mapping it is.
    owner: AtomicU64,
    /// Where in the mapping its owner looks, and what is to be there when it is cut.
    sign_at: AtomicUsize,
    sign: AtomicU64,
    cut: AtomicBool,
}

static ENTRIES: [Entry; MOST] = [const { Entry::vacant() }; MOST];

/// Has any mapping of this process been cut? So whoever asks often need not look at his own.
static ANY_CUT: AtomicBool = AtomicBool::new(false);

/// The action that was there before ours was installed last.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
/// The one that was there before it was installed first, which knows nothing of ours.
static FIRST: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// Signals that have been passed on and not come back yet, by their contexts. Who is passed one may pass it on to us.
static PASSED_ON: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

impl Entry {
    const fn vacant() -> Entry {
        Entry {
            claimed: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
            base: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            owner: AtomicU64::new(0),
            sign_at: AtomicUsize::new(0),
            sign: AtomicU64::new(0),
            cut: AtomicBool::new(false),
        }
    }

    /// Changes the entry, which is the caller's.
    fn set(&self, base: usize, len: usize, owner: u64, sign: Sign) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.base.store(base, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
        self.sign_at.store(sign.at, Ordering::Relaxed);
        self.sign.store(sign.word, Ordering::Relaxed);
        self.cut.store(false, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Base, length, owner and sign of one moment. None: it is being changed, so it is not the mapping of somebody who
    /// uses it.
    fn read(&self) -> Option<(usize, usize, u64, Sign)> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let load = |word: &AtomicUsize| word.load(Ordering::Relaxed);
        let sign = Sign { at: load(&self.sign_at), word: self.sign.load(Ordering::Relaxed) };
        let all = (load(&self.base), load(&self.len), self.owner.load(Ordering::Relaxed), sign);
        fence(Ordering::Acquire);
        (sequence % 2 == 0 && self.sequence.load(Ordering::Relaxed) == sequence).then_some(all)
    }
}

/// A word that tells the owner of a mapping that it has been cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sign {
    /// Its place, in bytes from the mapping's beginning. The page around it becomes private, and empty but for this.
    pub(crate) at: usize,
    pub(crate) word: u64,
}

/// A mapping in the table, until it is dropped: before the mapping is.
pub(crate) struct Watch(&'static Entry);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cut", &self.is_cut()).finish()
    }
}

impl Watch {
    /// Has a page of it, or of another mapping of the same owner, been taken away?
    pub(crate) fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.set(0, 0, 0, Sign { at: 0, word: 0 });
        self.0.claimed.store(false, Ordering::Release);
    }
}

/// Has a page of any mapping been taken away? If none has, there is no need to look at one's own.
#[inline(always)]
pub(crate) fn any_is_cut() -> bool {
    ANY_CUT.load(Ordering::Acquire)
}

/// A number that no other owner has.
pub(crate) fn new_owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Puts a mapping into the table. None: the table is full, and nobody will guard it.
pub(crate) fn watch(base: *const u8, len: usize, owner: u64, sign: Sign) -> Option<Watch> {
    let free = |entry: &&Entry| {
        !entry.claimed.load(Ordering::Relaxed) && !entry.claimed.swap(true, Ordering::Acquire)
    };
    let entry = ENTRIES.iter().find(free)?;
    entry.set(base.addr(), len, owner, sign);
    Some(Watch(entry))
}

/// Installs the handler, unless it is there.
pub(crate) fn install() -> Result<()> {
    static INSTALLING: super::turn::Turn = super::turn::Turn::new();
    let _turn = INSTALLING.take();
    page_size();
    // SAFETY: all bytes zero are an action.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the place is ours.
    check(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut now) })?;
    if now.sa_sigaction == our_handler() {
        return Ok(());
    }
    // Of what was there before an earlier call nothing is freed: a handler may be running.
    let now_kept = Box::into_raw(Box::new(now));
    let _ = FIRST.compare_exchange(std::ptr::null_mut(), now_kept, Ordering::AcqRel, Ordering::Relaxed);
    BEFORE.store(now_kept, Ordering::Release);
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = our_handler();
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    ours.sa_mask = now.sa_mask;
    // SAFETY: the handler does nothing that a handler must not do, and forwards what is not for it.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()) })
}

fn check(answer: libc::c_int) -> Result<()> {
    Errno::result(answer).map(drop).map_err(|errno| Error::system("sigaction", errno as i32))
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
type ShortHandler = extern "C" fn(libc::c_int);

fn our_handler() -> libc::sighandler_t {
    let handler: Handler = on_fault;
    handler as *const () as libc::sighandler_t
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the system gives a structure; only for faults the field is an address.
    let address = unsafe { is_missing_page((*info).si_code).then(|| (*info).si_addr().addr()) };
    if !address.is_some_and(mend) {
        pass_on(signal, info, context);
    }
    Errno::set_raw(errno);
}

/// Does the code say that there is no page, or none that can be read? Else a new page is no help.
fn is_missing_page(code: libc::c_int) -> bool {
    code == libc::BUS_ADRERR || code == libc::BUS_OBJERR || code == BUS_MCEERR_AR
}

/// Linux: the memory of a page that is being read has failed.
const BUS_MCEERR_AR: libc::c_int = 4;

/// Gives a signal to whoever had it before; one that comes back from there, to whoever had it first.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context_is = |entry: &&AtomicUsize| entry.load(Ordering::Relaxed) == context.addr();
    if PASSED_ON.iter().any(|entry| context_is(&entry)) {
        return forward(&FIRST, signal, info, context);
    }
    let free = |entry: &&AtomicUsize| {
        entry.compare_exchange(0, context.addr(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    };
    match PASSED_ON.iter().find(free) {
        Some(entry) => {
            forward(&BEFORE, signal, info, context);
            entry.store(0, Ordering::Relaxed);
        }
        // Many threads at once, or handlers that have jumped away.
        None => forward(&FIRST, signal, info, context),
    }
}

/// Puts an empty page in the place of one that is gone, if it is one of a mapping in the table.
fn mend(address: usize) -> bool {
    let found = ENTRIES.iter().find_map(|entry| {
        let (base, len, owner, _) = entry.read()?;
        (address.wrapping_sub(base) < len).then_some(owner)
    });
    let Some(owner) = found else { return false };
    ANY_CUT.store(true, Ordering::Release);
    let is_there = |place: usize| place / page_size() == address / page_size();
    for entry in &ENTRIES {
        let Some((base, _, _, sign)) = entry.read().filter(|(_, _, of, _)| *of == owner) else { continue };
        let place = base.wrapping_add(sign.at);
        // Whoever has found it missing although it is marked comes between the mark and the page: of another thread, or of
        // the parent, which forked there.
        let is_missing = is_there(place);
        if !entry.cut.swap(true, Ordering::AcqRel) || is_missing {
            if !put_empty_page(place) {
                return false;
            }
            // SAFETY: the page was just made, and words lie inside of pages.
            unsafe { (*(place as *const AtomicU64)).store(sign.word, Ordering::Release) };
        }
        if is_missing {
            return true;
        }
    }
    put_empty_page(address)
}

/// Reads a byte of an address, which may be missing.
#[cfg(feature = "inject")]
pub(crate) fn touch(address: usize) {
    // SAFETY: tests give addresses in a mapping; those whose page is missing are mended by the handler, or the process ends.
    unsafe { (address as *const u8).read_volatile() };
}

/// Replaces the page around an address by an empty, private one.
fn put_empty_page(address: usize) -> bool {
    let start = address / page_size() * page_size();
    // SAFETY: callers see to it that the page is one of a mapping in the table, which nobody but this library uses.
    let answer = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            page_size(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    answer != libc::MAP_FAILED
}

/// Does what would have been done without us.
fn forward(
    to: &AtomicPtr<libc::sigaction>,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: what was stored there is never freed.
    let before = unsafe { to.load(Ordering::Acquire).as_ref() };
    let is_sent = {
        // SAFETY: the system gives a structure.
        unsafe { (*info).si_code <= 0 }
    };
    match before {
        Some(before) if before.sa_sigaction == libc::SIG_IGN && is_sent => {}
        Some(before) if before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN => {
            // SAFETY: it is the handler that the process had, of the form that its flags say.
            unsafe {
                if before.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler = std::mem::transmute::<*const (), Handler>(before.sa_sigaction as *const ());
                    handler(signal, info, context);
                } else {
                    let handler =
                        std::mem::transmute::<*const (), ShortHandler>(before.sa_sigaction as *const ());
                    handler(signal);
                }
            }
        }
        _ => {
            // The end of the process: a fault happens again when the handler returns; a signal that was sent is sent again.
            // SAFETY: all bytes zero are the default action; both calls may be made in handlers.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
                if is_sent {
                    libc::raise(signal);
                }
            }
        }
    }
}
