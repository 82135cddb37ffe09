//! Managed tables of any type, as the scope of groups and of waiting.

use crate::engine::holds::Hold;
use crate::error::{Error, Result};
use crate::format::root;
use crate::group::{self, Transaction};
use crate::lock::Patience;
use crate::os::time::Deadline;
use crate::txn::TableView;
use std::sync::Arc;
use std::time::Duration;

/// A managed table of any kind: the scope of groups and of waiting.
#[derive(Clone)]
pub struct Table {
    pub(crate) engine: Hold,
    pub(crate) view: Arc<TableView>,
    pub(crate) lock_timeout_ms: i32,
}

/// Kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// Keys and values are bytes, or typed.
    HashTable = root::KIND_HASHTABLE as isize,
    /// Elements by number.
    Array = root::KIND_ARRAY as isize,
    /// 32-bit integers to arrays of 32-bit integers.
    Primitive = root::KIND_PRIMITIVE as isize,
}

impl TableKind {
    pub(crate) fn from_recorded(kind: u64) -> Option<TableKind> {
        [TableKind::HashTable, TableKind::Array, TableKind::Primitive].into_iter().find(|k| *k as u64 == kind)
    }

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::HashTable => "a hash table",
            TableKind::Array => "an array",
            TableKind::Primitive => "a primitive table",
        }
    }
}

/// What a handle wants a table to be.
pub(crate) struct TableSpec<'a> {
    pub(crate) kind: TableKind,
    /// Signatures of keys and values that a new table records.
    pub(crate) signatures: [&'a str; 2],
    /// Does what an existing table records fit? It is asked with the signatures of keys and values.
    pub(crate) accepts: &'a dyn Fn([&str; 2]) -> bool,
    /// Number of elements of a new array; 0 for others.
    pub(crate) length: u64,
    /// The argument that a new table needs and that is not given, if there is one: then only a table that is there
    /// will do.
    pub(crate) lacks: Option<&'static str>,
}

impl TableSpec<'_> {
    /// A table of raw bytes, or of whatever types it records.
    pub(crate) fn of_bytes(kind: TableKind) -> TableSpec<'static> {
        TableSpec { kind, signatures: ["", ""], accepts: &|_| true, length: 0, lacks: None }
    }

    /// May a new table be made?
    pub(crate) fn judge_new(&self) -> Result<()> {
        match self.lacks {
            Some(argument) => {
                Err(Error::Invalid { argument, reason: "it is NULL, and a new array needs it" })
            }
            None => Ok(()),
        }
    }
}

/// What is known of a table without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name; none for the unnamed table.
    pub name: Option<String>,
    /// Its kind.
    pub kind: TableKind,
    /// Signature of the keys' type; empty for raw bytes.
    pub key_type: String,
    /// Signature of the values' type; empty for raw bytes.
    pub value_type: String,
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

    /// The table's kind.
    pub fn kind(&self) -> TableKind {
        TableKind::from_recorded(self.view.roots.identity().kind).unwrap_or(TableKind::HashTable)
    }

    /// Signatures of the types of keys and values, as the table records them; empty for raw bytes.
    pub fn signatures(&self) -> [String; 2] {
        let signatures = &self.view.roots.identity().signatures;
        signatures.each_ref().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// The table's name; none for the unnamed one.
    pub fn name(&self) -> Option<String> {
        let name = &self.view.roots.identity().name;
        if name.is_empty() { None } else { Some(String::from_utf8_lossy(name).into_owned()) }
    }

    /// Is a group on this object open on this thread?
    pub(crate) fn group_is_open(&self) -> Result<bool> {
        Ok(self.engine.groups.any_open() && self.engine.seat_with_group()?)
    }

    /// Begins a group: until it is committed or aborted, this thread's operations on the object belong to
    /// it. If one is open on this thread already, the new one is nested in it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Busy`], [`Error::Deadlock`] if the enclosing group is doomed.
    pub fn begin(&self) -> Result<Transaction> {
        match self.begin_quickly() {
            Some(transaction) => Ok(transaction),
            None => group::begin(&self.engine, self.lock_timeout_ms),
        }
    }

    /// The same on a thread that has a session in which nothing is going on. None: nothing has happened.
    #[inline(always)]
    pub(crate) fn begin_quickly(&self) -> Option<Transaction> {
        group::begin_quickly(&self.engine, self.lock_timeout_ms)
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
