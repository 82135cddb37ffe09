//! The internals of a table as text, for whoever looks for a bug.
//!
//! Owns when it is safe to look: with all others kept out, if the object is open for writing. What is written is
//! `txn::dump`'s business, and nobody may rely on its form.

use crate::error::Result;
use crate::group;
use crate::table::Table;
use crate::txn::{self, dump};

impl Table {
    /// The internals of the table as text, for debugging: its root, arrays, counters, and each bucket with its level,
    /// entries and records. The form may change with every version. Other writers are kept out meanwhile; inside a
    /// group its own changes are shown, and writers are kept out until it ends. An object that is open for reading
    /// only is looked at without that, and may change in between.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::Timeout`](crate::Error::Timeout),
    /// [`Error::InCallback`](crate::Error::InCallback), [`Error::Deadlock`](crate::Error::Deadlock) in a group.
    pub fn dump(&self) -> Result<String> {
        let engine = &*self.engine;
        let table = &*self.view;
        let patience = self.patience();
        if !engine.is_writable() {
            engine.refresh(table, patience)?;
            return dump::of(&engine.segment, table);
        }
        let mut entered = engine.enter(patience)?;
        if entered.in_group() {
            return group::operate(&mut entered, patience, |w| {
                txn::reserve_lock(w)?;
                w.lock_gate()?;
                table.refresh(w)?;
                dump::of(&*w, table)
            });
        }
        let mut w = entered.writer(patience);
        txn::alone(&mut w, |w| {
            w.lock_gate()?;
            table.refresh(w)?;
            dump::of(&*w, table)
        })
    }
}
