//! The operating system: the only room of this crate that knows libc, nix and memmap2.
//!
//! It owns names, files, mappings, file locks, futexes, clocks and the identity of processes, and
//! turns each failed call into one `Error`. It refuses to know what the bytes of an object mean: no
//! offset of the format, no lock word, no slot is interpreted here, and nothing is imported but
//! `crate::error`. What differs between systems is decided inside of this directory.
//!
//! From the names upward:
//!
//! | file | owns |
//! |---|---|
//! | `name` | how an object is named; which kinds there are here |
//! | `descriptor` | one descriptor that knows its file, and notices when it was swept away |
//! | `management` | the small text file beside a POSIX object; the quoting of names |
//! | `persistent` | a list of persistent kernel objects as a text file; the removal of such objects |
//! | `memory` | shared memory itself, by a name and without one |
//! | `shm` | the files behind an object: open, create, unlink, chmod, reopen |
//! | `draft` | a file that gets its name when it is finished |
//! | `space` | blocks of the file: allocate, punch, read, write |
//! | `map` | address space: the reservation, and the page that keeps a lock alive |
//! | `guard` | what becomes of this process when a page is taken away under it |
//! | `filelock` | locks on bytes of a file, and the registration of a process |
//! | `futex` | sleeping on a word and waking |
//! | `signals` | sleeping so that a signal is noticed |
//! | `process` | who runs: pid, namespace, boot, fork epoch, randomness |
//! | `thread` | which thread runs |
//! | `time` | clocks and deadlines |

pub(crate) mod descriptor;
pub(crate) mod draft;
pub(crate) mod filelock;
pub(crate) mod futex;
pub(crate) mod guard;
pub(crate) mod management;
pub(crate) mod map;
mod memory;
pub(crate) mod name;
pub(crate) mod persistent;
pub(crate) mod process;
pub(crate) mod shm;
pub(crate) mod signals;
pub(crate) mod space;
pub(crate) mod thread;
pub(crate) mod time;
pub(crate) mod turn;
