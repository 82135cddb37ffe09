//! Hash tables of byte strings: what users call.
//!
//! Owns the table as a noun, and how an operation becomes part of the group that is open on this thread.
//!
//! - [`changes`]: adding, replacing, removing, updating; the choice between the short way and a transaction.
//! - [`finds`]: reading one key, without a lock or in the group.
//! - [`copies`]: the newest binding to the caller's memory; the short way of a find.
//! - [`walks`]: the whole table, counted or walked over.
//! - [`many`]: several keys in one call.
//! - [`watch`]: waiting for change.

mod changes;
mod copies;
mod finds;
pub(crate) mod many;
mod walks;
mod watch;

use crate::error::Result;
use crate::group;
use crate::object::{ManageOptions, Object};
use crate::table::{Table, TableKind, TableSpec};
use crate::txn::TableView;
use crate::writer::Writer;

pub use crate::txn::Update;
pub(crate) use crate::txn::fast_update::Compared;
pub(crate) use changes::Quick;
pub(crate) use copies::QuickCopy;
pub use many::Stopped;
pub use watch::Stamp;

/// A hash table that maps byte strings to byte strings; the bindings of a key form a stack.
///
/// Clones share the same table. All threads may use it at once. After a fork the child may go on using it.
#[derive(Clone)]
pub struct HashTable {
    pub(crate) table: Table,
}

impl std::fmt::Debug for HashTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashTable").field("table", &self.table).finish()
    }
}

impl HashTable {
    /// Views an object as a hash table. An empty object becomes one.
    ///
    /// # Errors
    /// [`Error::Locking`], [`Error::Stale`] if the object holds something else, [`Error::NoSpace`],
    /// [`Error::ReadOnly`] if an empty object is open for reading only.
    pub fn manage(object: &Object, options: &ManageOptions) -> Result<HashTable> {
        // Strings are the same bytes with a type and without.
        let is_raw = |recorded: &str| matches!(recorded, "" | "bytes" | "string");
        let accepts = |recorded: [&str; 2]| recorded.into_iter().all(is_raw);
        let spec = TableSpec { accepts: &accepts, ..TableSpec::of_bytes(TableKind::HashTable) };
        Ok(HashTable { table: object.manage_as(&spec, options)? })
    }

    /// The underlying table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Runs an operation in the group that is open on this thread.
    pub(crate) fn in_group<R>(
        &self,
        operation: impl FnOnce(&mut Writer, &TableView) -> Result<R>,
    ) -> Result<R> {
        let engine = &*self.table.engine;
        let patience = self.table.patience();
        let mut entered = engine.enter(patience)?;
        group::operate(&mut entered, patience, |w| operation(w, &self.table.view))
    }
}
