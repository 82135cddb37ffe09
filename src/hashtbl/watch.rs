//! Waiting until a binding may have changed: what users call.

use super::HashTable;
use crate::error::Result;
use crate::os::time::Deadline;
use std::time::Duration;

/// The state of a key's bindings at one moment, as far as it can be told from another one: see
/// [`HashTable::stamp`].
///
/// A stamp is a number that means something for its key and its object only, in any process, as long as the
/// object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// No stamp of any key: a wait that begins with it ends at once.
    pub const NONE: Stamp = Stamp(0);

    /// The stamp as a number, to be kept or passed on.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The stamp that [`to_bits`](Stamp::to_bits) gave. Any number is accepted.
    pub fn from_bits(bits: u64) -> Stamp {
        Stamp(bits)
    }
}

impl HashTable {
    /// The present stamp of a key, bound or not. Whenever a binding of the key is added, replaced or removed,
    /// the key gets another stamp; it may get another one although nothing has happened to it.
    ///
    /// Take the stamp first, read afterwards, then wait: what changes between the stamp and the wait ends the
    /// wait at once. In a group, the stamp is that of what others see.
    ///
    /// # Errors
    /// Those of [`find`](HashTable::find).
    pub fn stamp(&self, key: &[u8]) -> Result<Stamp> {
        // Tells in a forked child that this thread's group is the parent's.
        self.table.group_is_open()?;
        let (engine, view) = (&*self.table.engine, &*self.table.view);
        engine.stamp(view, view.key_hash.hash(key), self.table.patience()).map(Stamp)
    }

    /// Waits until the key's bindings may have changed since `stamp`, and puts the new stamp there. False: the
    /// time-out has passed before that, and the stamp is as it was. Without a time-out it waits for ever.
    ///
    /// The wait may end early, without a change; it does not end late: a commit wakes all who wait. Two things
    /// may be noticed after 50 ms only: that a large table was re-initialised, and a change by a process that
    /// was killed before it could wake anybody. It does not poll, except that on an object that is open for
    /// reading only, or whose locking method is not [`Locking::Futex`](crate::Locking::Futex), it looks every 5 ms.
    ///
    /// All threads may wait, any number of them for the same key. Nothing is locked meanwhile.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if a signal handler has run in this thread while it
    /// slept; [`Error::InGroup`](crate::Error::InGroup) and [`Error::InCallback`](crate::Error::InCallback) where
    /// a change could not come for the caller's own sake; [`Error::Stale`](crate::Error::Stale) if the object
    /// holds no such table any more; else those of [`find`](HashTable::find).
    pub fn wait(&self, key: &[u8], stamp: &mut Stamp, timeout: Option<Duration>) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        let (engine, view) = (&*self.table.engine, &*self.table.view);
        engine.may_wait()?;
        let hash = view.key_hash.hash(key);
        let changed = engine.wait_for_change(view, hash, stamp.0, deadline, || self.table.patience())?;
        if let Some(now) = changed {
            *stamp = Stamp(now);
        }
        Ok(changed.is_some())
    }
}
