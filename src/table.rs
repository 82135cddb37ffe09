//! Managed tables of any type, as the scope of groups and of waiting.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::group::{self, Transaction};
use crate::lock::Patience;
use crate::os::time::Deadline;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A managed table of any type: the scope of groups and of waiting.
#[derive(Clone)]
pub struct Table {
    pub(crate) engine: Arc<Engine>,
    pub(crate) lock_timeout_ms: i32,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("lock_timeout_ms", &self.lock_timeout_ms).finish_non_exhaustive()
    }
}

impl Table {
    #[inline(always)]
    pub(crate) fn patience(&self) -> Patience {
        match self.lock_timeout_ms {
            0 => Patience::FOR_EVER,
            ms => Patience::from_millis(ms),
        }
    }

    /// Is a group on this object open on this thread?
    pub(crate) fn group_is_open(&self) -> Result<bool> {
        Ok(self.engine.groups_open.load(Ordering::Relaxed) != 0 && self.engine.seat_with_group()?)
    }

    /// Begins a group: until it is committed or aborted, this thread's operations on the object belong to
    /// it. If one is open on this thread already, the new one is nested in it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Busy`], [`Error::Deadlock`] if the enclosing group is doomed.
    pub fn begin(&self) -> Result<Transaction> {
        group::begin(&self.engine, self.lock_timeout_ms)
    }

    /// Runs `body` as a group: all that it does on the object happens if it gives `Ok`, nothing if `Err`.
    ///
    /// # Errors
    /// The body's, and those of [`begin`](Table::begin) and [`commit`](Transaction::commit).
    pub fn group<R, E: From<Error>>(
        &self,
        body: impl FnOnce() -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        let transaction = self.begin()?;
        match body() {
            Ok(value) => {
                transaction.commit()?;
                Ok(value)
            }
            Err(e) => {
                transaction.abort()?;
                Err(e)
            }
        }
    }

    /// Like [`group`](Table::group), and tries again, with growing random pauses, each time the group has to
    /// give way to another one, until `timeout` has passed. The group keeps its age, so it gets through.
    ///
    /// # Errors
    /// Those of [`group`](Table::group); [`Error::Deadlock`] only after the time-out, or inside of another
    /// group, which has to begin again as a whole.
    pub fn group_retry<R, E: From<Error>>(
        &self,
        timeout: Option<Duration>,
        mut body: impl FnMut() -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        let deadline = Deadline::after(timeout);
        let mut transaction = self.begin()?;
        loop {
            let outcome = body();
            let again = transaction.is_doomed() && transaction.is_outermost() && !deadline.passed();
            if again {
                transaction.restart()?;
                continue;
            }
            return match outcome {
                Ok(value) => {
                    transaction.commit()?;
                    Ok(value)
                }
                Err(e) => {
                    transaction.abort()?;
                    Err(e)
                }
            };
        }
    }
}
