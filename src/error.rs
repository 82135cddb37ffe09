//! The one error type of the crate and the one `Result`.
//!
//! It owns the list of everything a user can tell apart. It knows neither C codes (that is `ffi`)
//! nor how an error is displayed to a C caller beyond its text.

use crate::format::Offset;

/// Result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Every variant is something a caller may want to treat differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name, key or object does not exist.
    #[error("not found")]
    NotFound,
    /// The key, or the name with `EXCL`, exists already.
    #[error("already exists")]
    Exists,
    /// The caller's buffer is too small; `needed` bytes would do.
    #[error("the buffer is too small: {needed} bytes are needed")]
    TooSmall {
        /// Full length of the value in bytes.
        needed: u64,
    },
    /// Compare-and-replace found another value.
    #[error("the value has changed meanwhile")]
    Changed,
    /// An argument is not acceptable.
    #[error("invalid argument {argument}: {reason}")]
    Invalid {
        /// Name of the argument.
        argument: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A type's signature does not follow the grammar.
    #[error("bad signature at byte {position}: {reason}")]
    Signature {
        /// The first byte that cannot be there, counted from 0: so many bytes before it are the beginning of some
        /// signature. The text's length if it only ends too early.
        position: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The types asked for are not those that the object records.
    #[error("wrong type: the caller asks for {asked}, the object holds {recorded}")]
    Type {
        /// Signature asked for.
        asked: String,
        /// Signature recorded in the object.
        recorded: String,
    },
    /// The locking method asked for is not the one that the object records.
    #[error("wrong locking method: the caller asks for {asked}, the object records {recorded}")]
    Locking {
        /// Method asked for.
        asked: &'static str,
        /// Method recorded in the object.
        recorded: &'static str,
    },
    /// The object holds another kind of thing, or is of another kind than the call needs.
    #[error("wrong kind of object: the caller asks for {asked}, there is {found}")]
    Kind {
        /// Kind asked for.
        asked: String,
        /// Kind that is there.
        found: String,
    },
    /// Waiting would never end: a cycle of groups wait for each other, and this one gives way.
    #[error("deadlock: this group was chosen to give way")]
    Deadlock,
    /// The lock time-out has passed.
    #[error("timed out waiting for a lock held by process {holder_pid}")]
    Timeout {
        /// Process that holds the lock, 0 if it is not known.
        holder_pid: u32,
    },
    /// The group was rolled back because its callback asked for it.
    #[error("the group was aborted")]
    Aborted,
    /// The call is not possible inside a group, or the group is not this thread's.
    #[error("not possible inside a group: {0}")]
    InGroup(&'static str),
    /// The call is not allowed in the callback that makes it.
    #[error("not allowed inside a callback of the same object")]
    InCallback,
    /// A callback reported failure.
    #[error("the callback failed with {0}")]
    Callback(i32),
    /// A callback answered with an operation that its caller had not announced.
    #[error("the callback answered with an operation that was not announced")]
    Unannounced,
    /// An index lies outside of the array.
    #[error("index out of range")]
    Range,
    /// An integer does not fit.
    #[error("integer overflow")]
    Overflow,
    /// Something is larger than this process, or the format, can handle.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The object's bytes contradict the format.
    #[error("corrupt object: {what} at offset {offset}")]
    Corrupt {
        /// What was found wrong.
        what: Damage,
        /// Byte offset of the place in the object.
        offset: u64,
    },
    /// A line of a list of persistent objects is not understood.
    #[error("line {line}: {reason}")]
    Line {
        /// Number of the line, the first being 1.
        line: u64,
        /// Byte offset of its beginning in the file.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The object was written by a newer library or needs a feature that this one lacks.
    #[error("the object needs a newer library: {0}")]
    Newer(&'static str),
    /// The memory device, the file system or the object's maximum size is exhausted.
    #[error("no space left for the object")]
    NoSpace,
    /// This process is out of memory or address space.
    #[error("out of memory")]
    NoMemory,
    /// The operating system denies access.
    #[error("permission denied")]
    Permission,
    /// The object is open for reading only.
    #[error("the object is open for reading only")]
    ReadOnly,
    /// The handle is closed.
    #[error("the handle is closed")]
    Closed,
    /// The group was begun before a fork by the parent process.
    #[error("the group belongs to the parent process")]
    Forked,
    /// The object was re-initialised as something else since the handle was made.
    #[error("the object was re-initialised as something else")]
    Stale,
    /// All participant slots are taken, or a reader met changes without end.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// A signal ended the wait.
    #[error("interrupted")]
    Interrupted,
    /// This system, file system or build does not support it.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// A system call failed in a way that has no variant of its own.
    #[error("{call}: {}", std::io::Error::from_raw_os_error(*.errno))]
    System {
        /// Name of the system call.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

/// What can be wrong with an object's bytes; the checker names these, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The first bytes are not those of a netshm object.
    #[error("wrong magic")]
    Magic,
    /// The file ends before the memory that its header describes.
    #[error("truncated file")]
    Truncated,
    /// A header field has an impossible value.
    #[error("bad header field")]
    Header,
    /// The machine went down while the object was in use, and what had been stored may be there in part only. It
    /// can be used after a check has found it sound; else it can be salvaged.
    #[error(
        "in use, and not synced, when the machine went down (check it, which makes it usable if it is sound, or salvage it)"
    )]
    Unclean,
    /// A lock word names an owner that does not hold it, or has unknown bits.
    #[error("stray lock")]
    StrayLock,
    /// A slot is not idle, or one of its fields is impossible.
    #[error("bad slot")]
    Slot,
    /// A redo log is not empty, or one of its records is impossible.
    #[error("bad redo log")]
    Log,
    /// A page descriptor contradicts its neighbours.
    #[error("bad page descriptor")]
    PageMap,
    /// A free list is broken.
    #[error("bad free list")]
    FreeList,
    /// A slab's descriptor, bitmap or list is wrong.
    #[error("bad slab")]
    Slab,
    /// A block in use is marked free, or lies where no block can be.
    #[error("reachable but not allocated")]
    NotAllocated,
    /// A block is marked in use and nothing refers to it.
    #[error("allocated but not reachable")]
    Leaked,
    /// A block is referred to twice.
    #[error("referred to twice")]
    Twice,
    /// A table root has an impossible field.
    #[error("bad table root")]
    Root,
    /// A bucket's level contradicts its place.
    #[error("bad bucket level")]
    Level,
    /// A bucket's entry, tag or overflow link is wrong.
    #[error("bad bucket")]
    Bucket,
    /// A record's lengths, key or chain are impossible.
    #[error("bad record")]
    Record,
    /// A key lies in a bucket where no find would look.
    #[error("misplaced key")]
    Misplaced,
    /// A counter differs from what is there.
    #[error("wrong count")]
    Count,
    /// A record's lengths, key or value are not those that its checksum was made of.
    #[error("wrong checksum")]
    Checksum,
    /// The bytes of a typed key or value are not what its type makes of any value. The offset that comes with
    /// it is that within the key or value.
    #[error("bad encoding of a typed value")]
    Encoding,
}

impl Error {
    /// A `Corrupt` error for a place in the object.
    #[cold]
    pub(crate) fn corrupt(what: Damage, offset: Offset) -> Error {
        Error::Corrupt { what, offset: offset.0 }
    }

    /// The error for a failed system call, with the common numbers sorted out.
    #[cold]
    pub(crate) fn system(call: &'static str, errno: i32) -> Error {
        match errno {
            libc::ENOENT => Error::NotFound,
            libc::EEXIST => Error::Exists,
            libc::EACCES | libc::EPERM => Error::Permission,
            libc::EROFS => Error::ReadOnly,
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Error::NoSpace,
            libc::ENOMEM => Error::NoMemory,
            _ => Error::System { call, errno },
        }
    }
}
