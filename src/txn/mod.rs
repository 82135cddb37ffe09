//! Operations on a table, planned inside of a transaction and committed together.
//!
//! Owns the order of things: lock the key's bucket, read, take memory, plan, commit, clean up. The index and
//! the allocator below do not know each other; they meet here.
//!
//! - [`ops`]: operations of the hash table, as parts of a transaction.
//! - [`array`]: operations of arrays.
//! - [`chunk`]: making a chunk of an array anew.
//! - [`fast`], [`fast_bind`], [`fast_update`], [`fast_split`], [`fast_array`], [`fast_slice`], [`fast_walk`], [`in_group`]: the short ways
//!   of what happens most.
//! - [`stack`]: changing any binding of a key, not only the newest.
//! - [`growth`]: splitting, and memory for buckets.
//! - [`lifecycle`]: making, emptying and sweeping tables.
//! - [`cursor`]: reading a table bucket by bucket.
//! - [`dump`]: its internals as text.

pub(crate) mod array;
mod chunk;
pub(crate) mod cursor;
pub(crate) mod dump;
pub(crate) mod fast;
pub(crate) mod fast_array;
pub(crate) mod fast_bind;
pub(crate) mod fast_slice;
mod fast_split;
pub(crate) mod fast_update;
pub(crate) mod fast_walk;
pub(crate) mod growth;
pub(crate) mod in_group;
pub(crate) mod lifecycle;
pub(crate) mod ops;
pub(crate) mod stack;

use crate::alloc::{custody, kept};
use crate::error::{Error, Result};
use crate::format::{header, slot};
use crate::index::KeyHash;
use crate::index::catalog::Identity;
use crate::index::roots::Roots;
use crate::writer::{Session, Writer};

/// A table as seen by this process.
pub(crate) struct TableView {
    pub(crate) roots: Roots,
    pub(crate) key_hash: KeyHash,
}

impl TableView {
    pub(crate) fn new(identity: Identity, key_hash: KeyHash) -> TableView {
        TableView { roots: Roots::new(identity), key_hash }
    }

    /// Reads the roots again, recovering whoever died while replacing them.
    pub(crate) fn refresh(&self, w: &Writer) -> Result<()> {
        let mut rounds = 0;
        self.roots.refresh(w.segment, |gate| match gate {
            Some(gate) => w.wait_for_writing(header::GATE, gate, &mut rounds),
            None => w.wait_for_rest(&mut rounds),
        })
    }
}

/// What an update makes of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<V = Vec<u8>> {
    /// Leaves it as it is.
    Keep,
    /// Replaces it, or adds one if there is none.
    Replace(V),
    /// Removes it, so that the one before it shows.
    Remove,
}

/// Batches of freed blocks that one operation returns to their slabs, so that none pays for a whole lot.
const BATCHES_PER_OPERATION: u32 = 2;

/// Blocks that a batch returns at least, if they are of one arena.
const FREED_PER_BATCH: u32 = 8;

/// Commits what a session has planned and releases all of its locks. On error nothing has happened, and the
/// locks are released as well.
pub(crate) fn commit(w: &mut Writer) -> Result<()> {
    let prepared = reserve_log(w);
    let result = prepared.and_then(|()| w.commit_from(0));
    if result.is_err() {
        w.abort();
    }
    clean_up(w)?;
    result
}

/// The same if that cannot fail, and nothing is left to be done afterwards. False: nothing has happened.
#[inline(always)]
pub(crate) fn commit_quickly(w: &mut Writer) -> bool {
    let is_over_then = w.s.net_added.is_empty() && kept::is_settled(w) && !custody::is_drain_due(w);
    is_over_then && w.s.newly_pending == 0 && w.commit_briefly()
}

/// Forgets what a session has planned and releases all of its locks.
pub(crate) fn abort(w: &mut Writer) -> Result<()> {
    w.abort();
    clean_up(w)
}

/// Makes room for the log before it is sealed: the last thing that can fail.
fn reserve_log(w: &mut Writer) -> Result<()> {
    loop {
        // Extending plans nothing, but takes from the reserve what the plan does not know yet.
        let words = w.s.set().log_words_at_most();
        if words == 0 || w.s.p.log_word(words - 1).is_some() {
            return Ok(());
        }
        custody::extend(w, slot::LOG, words - 1)?;
    }
}

/// More locks than an operation takes: two of buckets at most; mini-transactions in it take up to three.
const LOCKS_OF_AN_OPERATION: u64 = 8;

/// Makes room in the lock list before another lock is taken.
#[inline]
pub(crate) fn reserve_lock(w: &mut Writer) -> Result<()> {
    let n = w.s.p.held.len() as u64 + LOCKS_OF_AN_OPERATION;
    if w.s.p.list_word(n).is_some() { Ok(()) } else { custody::extend(w, slot::LOCK_LIST, n) }
}

/// What is left to do once nothing is planned and no lock is held.
fn clean_up(w: &mut Writer) -> Result<()> {
    if !w.segment.is_whole() {
        // The log may be one that is left for others.
        return Ok(());
    }
    kept::settle(w)?;
    // Who has freed much pays for it: slices that are written again and again would pile it up.
    let freed = std::mem::take(&mut w.s.newly_pending);
    custody::drain(w, BATCHES_PER_OPERATION.max(freed / FREED_PER_BATCH))
}

/// A transaction whose body is running. If a panic of a callback's passes through, the transaction is undone, so that
/// nobody waits for its locks for ever.
struct UndoOnPanic<'w, 'a>(&'w mut Writer<'a>);

impl<'w, 'a> UndoOnPanic<'w, 'a> {
    /// There was no panic.
    fn disarm(self) -> &'w mut Writer<'a> {
        // SAFETY: what is read is not used again, since nothing is dropped.
        unsafe { std::ptr::read(&raw const std::mem::ManuallyDrop::new(self).0) }
    }
}

impl Drop for UndoOnPanic<'_, '_> {
    #[cold]
    fn drop(&mut self) {
        if self.0.is_forked() {
            self.0.forget();
        } else {
            // Whatever fails here is left to later operations; the panic goes on and tells the story.
            let _ = abort(self.0);
        }
    }
}

/// Runs `body` as a transaction of its own.
pub(crate) fn alone<R>(w: &mut Writer, body: impl FnOnce(&mut Writer) -> Result<R>) -> Result<R> {
    // Else locks may be left from the operation before.
    w.segment.require_whole()?;
    debug_assert!(w.s.p.held.is_empty() && w.s.set().is_empty());
    let undo = UndoOnPanic(&mut *w);
    let outcome = body(undo.0);
    std::mem::forget(undo);
    if w.is_forked() {
        // In a callback. The operation is the parent's, which goes on with it.
        w.forget();
        return Err(Error::Forked);
    }
    match outcome {
        Ok(value) => commit(w).map(|()| value),
        Err(e) => {
            abort(w)?;
            Err(e)
        }
    }
}

/// The last chores of a session before its slot is given up.
pub(crate) fn retire_session(w: &mut Writer) -> Result<()> {
    debug_assert!(Session::is_at_rest(w.s));
    custody::flush(w)
}
