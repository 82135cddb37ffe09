//! Hash tables in shared memory for independent processes.
//!
//! Finding a key takes no lock, makes no system call and stores nothing; a process may be killed at any
//! instruction and nothing is lost or stuck; groups of operations are transactions. The README shows how to
//! begin; docs/design.md in the repository describes the bytes and the protocol.
//!
//! ```no_run
//! use netshm::{HashTable, ManageOptions, Name, OpenOptions};
//!
//! # fn main() -> netshm::Result<()> {
//! let name = Name::posix("/tmp/sample", "/sample");
//! let object = OpenOptions::new().create(true).open(&name)?;
//! let table = HashTable::manage(&object, &ManageOptions::new())?;
//! table.add(b"First Key", b"First value")?;
//! assert_eq!(table.find(b"First Key")?.as_deref(), Some(&b"First value"[..]));
//! # Ok(()) }
//! ```

mod error;
mod format;
mod os;

mod segment;

mod lock;

mod life;
mod log;
mod recovery;
mod writer;

mod alloc;
mod index;

mod engine;
mod group;
mod settle;
mod txn;
mod types;

mod array;
mod backup;
pub mod check;
mod cursor;
mod dump;
mod hashtbl;
mod object;
mod pmanage;
mod primitive;
mod salvage;
mod table;
mod typed;
mod typed_array;

mod ffi;

pub use array::{Array, Elements};
pub use backup::Backup;
pub use cursor::{Bindings, Keys};
pub use error::{Damage, Error, Result};
/// Installs a handler for SIGBUS, by which this process outlives that somebody shortens the file of an object that it has
/// mapped, or that a device cannot give back a page. Without it the system kills the process.
///
/// Where a page is gone the handler puts an empty private one, and from then on operations on the object, by all of its handles
/// in this process, say [`Error::Corrupt`]; those under way may have any outcome. Faults that do not concern an object go on
/// to the handler that was there before. The handler is the process's for good; calling again does
/// nothing, unless another handler has been installed meanwhile. It guards up to 2048 mappings, of which an object has one, and
/// some more if it has outgrown its reservation.
///
/// # Errors
/// [`Error::System`].
pub fn guard_sigbus() -> Result<()> {
    os::guard::install()
}

pub use group::{DetachedTransaction, Transaction};
pub use hashtbl::{HashTable, Stamp, Stopped, Update};
pub use object::{KeyHashing, Locking, ManageOptions, Object, OpenOptions, best_locking, supported_kinds};
pub use os::name::{Kind, Name};
pub use pmanage::{PmKind, PmObject, Pmanage};
pub use primitive::{BlockOp, FRAGMENT_WORDS, PrimitiveTable, Step, WordBindings, WordKeys};
pub use salvage::{Salvaged, salvage};
#[cfg(feature = "inject")]
pub use segment::inject;
pub use table::{Table, TableInfo, TableKind};
pub use typed::{TypedBindings, TypedHashTable, TypedKeys};
pub use typed_array::{TypedArray, TypedElements};
pub use types::{CustomObject, Data, Encode, Int, Left, Type, Value};
