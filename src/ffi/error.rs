//! Error codes, their texts and details; versions; memory that the caller frees.

use super::call::guard_value;
use crate::error::Error;
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, size_of};

/// Success.
pub const NETSHM_OK: c_int = 0;
/// There is no such key, name or object; or a cursor is at the end.
pub const NETSHM_E_NOT_FOUND: c_int = -1;
/// The key, or the name, is there already.
pub const NETSHM_E_EXISTS: c_int = -2;
/// The caller's buffer is too small; the length needed has been written.
pub const NETSHM_E_TOO_SMALL: c_int = -3;
/// The value is not the expected one any more.
pub const NETSHM_E_CHANGED: c_int = -4;
/// An argument is not acceptable; `argument` of #netshm_error says which.
pub const NETSHM_E_INVALID: c_int = -5;
/// The types asked for, or the value found, are not of the type needed.
pub const NETSHM_E_TYPE: c_int = -6;
/// The locking method asked for is not the one that the object records.
pub const NETSHM_E_LOCKING: c_int = -7;
/// It is another kind of object, or the management file names another one.
pub const NETSHM_E_KIND: c_int = -8;
/// Groups wait for each other, and this one gives way: end it, or begin it again.
pub const NETSHM_E_DEADLOCK: c_int = -9;
/// The lock time-out has passed; `holder_pid` of #netshm_error says who holds the lock, if it is known.
pub const NETSHM_E_TIMEOUT: c_int = -10;
/// The group was rolled back because its callback wanted it, or because the enclosing group has ended.
pub const NETSHM_E_ABORTED: c_int = -11;
/// Not possible inside of a group; or the group is not this thread's.
pub const NETSHM_E_IN_GROUP: c_int = -12;
/// Not allowed in the callback that makes this call.
pub const NETSHM_E_IN_CALLBACK: c_int = -13;
/// A callback gave an answer that it may not give.
pub const NETSHM_E_CALLBACK: c_int = -14;
/// An index is out of range.
pub const NETSHM_E_RANGE: c_int = -15;
/// The result does not fit into the integer; nothing was changed.
pub const NETSHM_E_OVERFLOW: c_int = -16;
/// Larger than this process, or the format, can handle.
pub const NETSHM_E_TOO_LARGE: c_int = -17;
/// The object's bytes contradict the format; `offset` of #netshm_error says where.
pub const NETSHM_E_CORRUPT: c_int = -18;
/// The object was made by a newer library, which this one does not understand.
pub const NETSHM_E_NEWER: c_int = -19;
/// The memory device, the file system, or the object's maximum size is exhausted; nothing was lost.
pub const NETSHM_E_NO_SPACE: c_int = -20;
/// This process is out of memory or address space.
pub const NETSHM_E_NO_MEMORY: c_int = -21;
/// The operating system denies access.
pub const NETSHM_E_PERMISSION: c_int = -22;
/// The object, or its file system, is for reading only.
pub const NETSHM_E_READ_ONLY: c_int = -23;
/// The handle is closed.
pub const NETSHM_E_CLOSED: c_int = -24;
/// The group was begun by the parent process, before the fork; only the parent can end it.
pub const NETSHM_E_FORKED: c_int = -25;
/// The object was re-initialised as something else, or the table dropped; it lasts until there is such a table again.
pub const NETSHM_E_STALE: c_int = -26;
/// Too many participants, or too many changes meanwhile; or the handle is in use by another thread.
pub const NETSHM_E_BUSY: c_int = -27;
/// A signal ended the wait.
pub const NETSHM_E_INTERRUPTED: c_int = -28;
/// This system, file system or version does not support it.
pub const NETSHM_E_UNSUPPORTED: c_int = -29;
/// A system call failed; `sys_errno` of #netshm_error says how.
pub const NETSHM_E_SYSTEM: c_int = -30;
/// A bug in the library was caught; the object is consistent. Please report it.
pub const NETSHM_E_PANIC: c_int = -31;
/// Numbers from this one downwards are the callbacks' own: a call whose callback answers with one of them
/// returns it as it is.
pub const NETSHM_E_CALLER: c_int = -1000;

/// What is known about a failure. Fields that do not apply are 0, `offset` is -1.
///
/// Set `size` to `sizeof(netshm_error)` before the call; the structure may grow at its end, and a program
/// compiled against an older header gets what it knows.
#[repr(C)]
pub struct netshm_error {
    /// Size of this structure in bytes, set by the caller.
    pub size: usize,
    /// The code that the call returned.
    pub code: c_int,
    /// The system's error number, with #NETSHM_E_SYSTEM.
    pub sys_errno: c_int,
    /// Number of the argument that is wrong, the first being 1, with #NETSHM_E_INVALID.
    pub argument: c_int,
    /// 0.
    pub reserved: c_int,
    /// Byte offset of the damage in the object, with #NETSHM_E_CORRUPT; in the value, if a typed one does not
    /// decode; of the bad line in a list of persistent objects; in the signature, with #NETSHM_E_INVALID from
    /// a call that takes
    /// one.
    pub offset: i64,
    /// Process that holds the lock, with #NETSHM_E_TIMEOUT; 0 if it is not known.
    pub holder_pid: i64,
    /// One sentence for humans, NUL-terminated, cut off if it is longer.
    pub text: [c_char; 232],
}

const TEXT_BYTES: usize = 232;

/// A structure that claims to be larger was not initialised.
pub(super) const MOST_SIZE: usize = 4096;

/// What this thread remembers of its last failure.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    pub(super) code: c_int,
    pub(super) sys_errno: c_int,
    pub(super) argument: u32,
    pub(super) offset: i64,
    pub(super) holder_pid: i64,
}

impl Default for Detail {
    fn default() -> Detail {
        Detail { code: NETSHM_OK, sys_errno: 0, argument: 0, offset: -1, holder_pid: 0 }
    }
}

thread_local! {
    // Plain bytes without a destructor: they can be used until the very end of the thread.
    static DETAIL: Cell<Detail> =
        const { Cell::new(Detail { code: 0, sys_errno: 0, argument: 0, offset: -1, holder_pid: 0 }) };
    static TEXT: Cell<[u8; TEXT_BYTES]> = const { Cell::new([0; TEXT_BYTES]) };
}

/// Remembers a failure and gives its code.
pub(super) fn record(detail: Detail, text: &str) -> c_int {
    let mut bytes = [0; TEXT_BYTES];
    let mut len = text.len().min(TEXT_BYTES - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    DETAIL.set(detail);
    TEXT.set(bytes);
    detail.code
}

/// Remembers an error of the library and gives its code.
pub(super) fn record_core(e: &Error) -> c_int {
    let mut detail = Detail { code: code_of(e), ..Detail::default() };
    match *e {
        Error::Corrupt { offset, .. } | Error::Line { offset, .. } => {
            detail.offset = i64::try_from(offset).unwrap_or(i64::MAX)
        }
        Error::Signature { position, .. } => detail.offset = position as i64,
        Error::Timeout { holder_pid } => detail.holder_pid = holder_pid.into(),
        Error::System { errno, .. } => detail.sys_errno = errno,
        _ => {}
    }
    record(detail, &e.to_string())
}

/// The code for a callback's negative answer: its own if it is one of the library's or one of the caller's.
pub(super) fn record_answer(answer: c_int) -> c_int {
    let passes = (NETSHM_E_PANIC..0).contains(&answer) || answer <= NETSHM_E_CALLER;
    let code = if passes { answer } else { NETSHM_E_CALLBACK };
    if passes && answer > NETSHM_E_CALLER {
        // It came from a call inside of the callback, whose detail is better than ours; the codes that leave
        // no detail leave none here either.
        if answer >= NETSHM_E_CHANGED || DETAIL.get().code == answer {
            return code;
        }
    }
    record(Detail { code, ..Detail::default() }, &Error::Callback(answer).to_string())
}

fn code_of(e: &Error) -> c_int {
    match e {
        Error::NotFound => NETSHM_E_NOT_FOUND,
        Error::Exists => NETSHM_E_EXISTS,
        Error::TooSmall { .. } => NETSHM_E_TOO_SMALL,
        Error::Changed => NETSHM_E_CHANGED,
        Error::Invalid { .. } | Error::Signature { .. } => NETSHM_E_INVALID,
        Error::Type { .. } => NETSHM_E_TYPE,
        Error::Locking { .. } => NETSHM_E_LOCKING,
        Error::Kind { .. } => NETSHM_E_KIND,
        Error::Deadlock => NETSHM_E_DEADLOCK,
        Error::Timeout { .. } => NETSHM_E_TIMEOUT,
        Error::Aborted => NETSHM_E_ABORTED,
        Error::InGroup(_) => NETSHM_E_IN_GROUP,
        Error::InCallback => NETSHM_E_IN_CALLBACK,
        Error::Callback(_) | Error::Unannounced => NETSHM_E_CALLBACK,
        Error::Range => NETSHM_E_RANGE,
        Error::Overflow => NETSHM_E_OVERFLOW,
        Error::TooLarge(_) => NETSHM_E_TOO_LARGE,
        Error::Corrupt { .. } | Error::Line { .. } => NETSHM_E_CORRUPT,
        Error::Newer(_) => NETSHM_E_NEWER,
        Error::NoSpace => NETSHM_E_NO_SPACE,
        Error::NoMemory => NETSHM_E_NO_MEMORY,
        Error::Permission => NETSHM_E_PERMISSION,
        Error::ReadOnly => NETSHM_E_READ_ONLY,
        Error::Closed => NETSHM_E_CLOSED,
        Error::Forked => NETSHM_E_FORKED,
        Error::Stale => NETSHM_E_STALE,
        Error::Busy(_) => NETSHM_E_BUSY,
        Error::Interrupted => NETSHM_E_INTERRUPTED,
        Error::Unsupported(_) => NETSHM_E_UNSUPPORTED,
        Error::System { .. } => NETSHM_E_SYSTEM,
    }
}

/// Tells more about the last failure of a call of this thread.
///
/// The codes #NETSHM_E_NOT_FOUND, #NETSHM_E_EXISTS, #NETSHM_E_TOO_SMALL and #NETSHM_E_CHANGED are everyday
/// answers: they leave no detail, and the detail of an earlier failure is kept. So compare `code` with what the
/// call returned. Successful calls change nothing here, and neither does this one.
///
/// @param out  Receives a copy; its field `size` must have been set.
///
/// @return NETSHM_OK, also if nothing has failed yet (`code` is 0 then);
///         NETSHM_E_INVALID, `out` is NULL or its `size` is impossible.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_last_error(out: *mut netshm_error) -> c_int {
    if out.is_null() {
        return NETSHM_E_INVALID;
    }
    // SAFETY: the caller gives a structure whose first word is set.
    let size = unsafe { (&raw const (*out).size).read_unaligned() };
    if !(size_of::<netshm_error>()..=MOST_SIZE).contains(&size) {
        return NETSHM_E_INVALID;
    }
    let detail = DETAIL.get();
    let error = netshm_error {
        size,
        code: detail.code,
        sys_errno: detail.sys_errno,
        argument: detail.argument as c_int,
        reserved: 0,
        offset: detail.offset,
        holder_pid: detail.holder_pid,
        text: TEXT.get().map(|byte| byte as c_char),
    };
    // SAFETY: the caller gives a structure of this size.
    unsafe {
        out.cast::<u8>().write_bytes(0, size);
        out.write_unaligned(error);
    }
    NETSHM_OK
}

const _: () = assert!(offset_of!(netshm_error, text) + TEXT_BYTES == size_of::<netshm_error>());

/// A short text for a code.
///
/// @param code  Any integer.
///
/// @return A static, NUL-terminated text; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn netshm_strerror(code: c_int) -> *const c_char {
    let text = match code {
        NETSHM_OK => c"no error",
        NETSHM_E_NOT_FOUND => c"not found",
        NETSHM_E_EXISTS => c"already exists",
        NETSHM_E_TOO_SMALL => c"the buffer is too small",
        NETSHM_E_CHANGED => c"the value has changed meanwhile",
        NETSHM_E_INVALID => c"invalid argument",
        NETSHM_E_TYPE => c"wrong type",
        NETSHM_E_LOCKING => c"wrong locking method",
        NETSHM_E_KIND => c"wrong kind of object",
        NETSHM_E_DEADLOCK => c"deadlock: this group was chosen to give way",
        NETSHM_E_TIMEOUT => c"timed out",
        NETSHM_E_ABORTED => c"the group was aborted",
        NETSHM_E_IN_GROUP => c"not possible inside a group, or not this thread's group",
        NETSHM_E_IN_CALLBACK => c"not allowed inside this callback",
        NETSHM_E_CALLBACK => c"the callback failed",
        NETSHM_E_RANGE => c"index out of range",
        NETSHM_E_OVERFLOW => c"integer overflow",
        NETSHM_E_TOO_LARGE => c"too large",
        NETSHM_E_CORRUPT => c"corrupt object",
        NETSHM_E_NEWER => c"the object needs a newer library",
        NETSHM_E_NO_SPACE => c"no space left for the object",
        NETSHM_E_NO_MEMORY => c"out of memory",
        NETSHM_E_PERMISSION => c"permission denied",
        NETSHM_E_READ_ONLY => c"read-only",
        NETSHM_E_CLOSED => c"the handle is closed",
        NETSHM_E_FORKED => c"the group belongs to the parent process",
        NETSHM_E_STALE => c"the object was re-initialised as something else",
        NETSHM_E_BUSY => c"busy",
        NETSHM_E_INTERRUPTED => c"interrupted",
        NETSHM_E_UNSUPPORTED => c"not supported",
        NETSHM_E_SYSTEM => c"a system call failed",
        NETSHM_E_PANIC => c"internal error",
        _ if code <= NETSHM_E_CALLER => c"an error of the caller's callback",
        _ => c"unknown error code",
    };
    text.as_ptr()
}

/// Frees a block that a function gave as `T **out` and that is not a handle.
///
/// @param block  The block, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_free(block: *mut c_void) {
    // SAFETY: blocks come from `allocate`, which is malloc.
    unsafe { libc::free(block) };
}

/// Memory for `netshm_free`; of one byte at least.
pub(super) fn allocate(bytes: usize) -> Result<*mut u8, Error> {
    // SAFETY: any size can be asked for.
    let block: *mut u8 = unsafe { libc::malloc(bytes.max(1)) }.cast();
    if block.is_null() { Err(Error::NoMemory) } else { Ok(block) }
}

/// A block on its way to the caller.
pub(super) struct Block {
    pub(super) data: *mut u8,
    pub(super) size: usize,
}

impl Block {
    pub(super) fn new(size: usize) -> Result<Block, Error> {
        Ok(Block { data: allocate(size)?, size })
    }

    pub(super) fn give(self) -> *mut c_void {
        std::mem::ManuallyDrop::new(self).data.cast()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated for netshm_free, and has not been given away.
        unsafe { netshm_free(self.data.cast()) };
    }
}

const fn version_part(text: &str) -> u32 {
    let (digits, mut number, mut at) = (text.as_bytes(), 0, 0);
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as u32;
        at += 1;
    }
    number
}

const VERSION: u32 = (version_part(env!("CARGO_PKG_VERSION_MAJOR")) << 16)
    | (version_part(env!("CARGO_PKG_VERSION_MINOR")) << 8)
    | version_part(env!("CARGO_PKG_VERSION_PATCH"));

/// The version of the library at run time, to be compared with #NETSHM_VERSION_NUMBER.
///
/// @return `major << 16 | minor << 8 | patch`.
#[unsafe(no_mangle)]
pub extern "C" fn netshm_version() -> u32 {
    VERSION
}

/// The version of the library at run time, as text.
///
/// @return A static text such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn netshm_version_string() -> *const c_char {
    guard_value(c"".as_ptr(), || concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast())
}
