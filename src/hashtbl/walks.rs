//! A hash table as a whole: counted, or walked over.

use super::HashTable;
use crate::cursor::{Bindings, Cursor, Keys};
use crate::engine::Rounds;
use crate::error::Result;
use crate::index::find::Obstacle;
use crate::txn::cursor::Part;
use crate::txn::{self, ops};

impl HashTable {
    /// Number of bindings, hidden ones counted. In a group it counts what the group has done, and keeps all
    /// other writers out until the group ends.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Deadlock`] in a group, [`Error::Busy`].
    pub fn len(&self) -> Result<u64> {
        let engine = &*self.table.engine;
        if self.table.group_is_open()? {
            return self.in_group(|w, table| {
                txn::reserve_lock(w)?;
                w.lock_gate()?;
                table.refresh(w)?;
                ops::length_under_gate(w, table)
            });
        }
        let patience = self.table.patience();
        let mut rounds = Rounds::default();
        loop {
            let obstacle = match txn::cursor::length_attempt(&engine.segment, &self.table.view) {
                Ok(length) => return Ok(length),
                Err(obstacle) => obstacle,
            };
            if rounds.all > 64 && engine.is_writable() && matches!(obstacle, Obstacle::Changed) {
                break;
            }
            engine.overcome(&self.table.view, obstacle, &mut rounds, patience)?;
        }
        let mut entered = engine.enter(patience)?;
        let mut w = entered.writer(patience);
        txn::alone(&mut w, |w| {
            w.lock_gate()?;
            self.table.view.refresh(w)?;
            ops::length_under_gate(w, &self.table.view)
        })
    }

    /// Has the table no binding?
    ///
    /// # Errors
    /// Those of [`len`](HashTable::len).
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|n| n == 0)
    }

    /// All bindings, in any order of keys; those of one key newest first. See [`Bindings`].
    pub fn iter(&self) -> Bindings<'_> {
        Bindings(Cursor::new(self, Part::Bindings))
    }

    /// Every key once. See [`Bindings`] for what happens to keys that come and go meanwhile.
    pub fn keys(&self) -> Keys<'_> {
        Keys(Cursor::new(self, Part::Keys))
    }
}

impl<'t> IntoIterator for &'t HashTable {
    type Item = Result<(Vec<u8>, Vec<u8>)>;
    type IntoIter = Bindings<'t>;
    fn into_iter(self) -> Bindings<'t> {
        self.iter()
    }
}
