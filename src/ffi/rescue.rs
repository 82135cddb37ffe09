//! Copies of objects: of live ones, and of what is intact of damaged ones.

use super::call::{Fault, Outcome, guard, out_or_null, text_or_null};
use super::error::MOST_SIZE;
use super::handle;
use super::object::{name_of, netshm_object};
use crate::os::name::Name;
use crate::salvage::{Salvaged, salvage};
use std::ffi::{c_char, c_int};
use std::mem::size_of;

/// Flag of netshm_backup() and netshm_salvage(): an object of the new name may exist, and is replaced. Whoever uses it goes
/// on with the old one.
pub const NETSHM_REPLACE: u32 = 1;

/// Copies an object to a new name, as it is at one moment, while others go on.
///
/// The object is copied while everybody works, what has changed meanwhile is copied again, and at the end, for a short time,
/// writers are kept out while the object is compared with the copy and the rest is brought over: about 0.6 s for each GiB of
/// the object on a modest machine, longer if others need its processors or the files are not in memory. Readers are never
/// kept out. The copy is an object of its
/// own, closed in order, and on its device; it gets its name when it is finished, so that there is never a half one.
/// If the call fails, or its process is killed, nothing is left (where the file system knows files without names; elsewhere a
/// kill leaves a hidden file beside, and so it does everywhere if it hits the moment in which an object is replaced).
///
/// Under the locking method NONE nobody is kept out: the object has to be quiet.
///
/// @param o           The object, open for writing: else writers could not be kept out.
/// @param kind        #NETSHM_POSIX or #NETSHM_FILE, whatever the kind of the object.
/// @param file_name   As for netshm_open().
/// @param mem_name    As for netshm_open().
/// @param mode        Permissions of the copy, as for open(2). The umask is honoured.
/// @param flags       0 or #NETSHM_REPLACE.
/// @param timeout_ms  Longest wait for groups that are open, in milliseconds. 0: no limit; negative: no waiting.
/// @param stopped_ns  Receives the time for which writers were kept out, in nanoseconds; may be NULL.
///
/// @return NETSHM_OK; NETSHM_E_EXISTS; NETSHM_E_NOT_FOUND, the object is empty, or there is no such directory;
///         NETSHM_E_NO_SPACE; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, only where somebody damages the object;
///         NETSHM_E_IN_GROUP; NETSHM_E_IN_CALLBACK, from an update of the same object;
///         NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_READ_ONLY; NETSHM_E_PERMISSION;
///         NETSHM_E_KIND, the management file is about another memory object; NETSHM_E_CORRUPT, the object's structure is
///         damaged; NETSHM_E_INVALID, also for the object's own name; NETSHM_E_CLOSED; NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_backup(
    o: *mut netshm_object,
    kind: c_int,
    file_name: *const c_char,
    mem_name: *const c_char,
    mode: u32,
    flags: u32,
    timeout_ms: i32,
    stopped_ns: *mut u64,
) -> c_int {
    let names = &["o", "kind", "file_name", "mem_name", "mode", "flags", "timeout_ms", "stopped_ns"];
    guard(names, || {
        // SAFETY: the header asks for a handle.
        let object = unsafe { handle::body(1, o) }?.object.clone();
        // SAFETY: the header asks for NUL-terminated strings.
        let to = unsafe { name(2, kind, file_name, mem_name) }?;
        let done = object.backup(&to, mode, replaces(6, flags)?, timeout_ms)?;
        let stopped = u64::try_from(done.writers_stopped.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(stopped_ns).put(stopped) };
        Ok(())
    })
}

/// What netshm_salvage() has saved, and what not.
///
/// Set `size` to `sizeof(netshm_salvaged)` before the call; the structure may grow at its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_salvaged {
    /// Size of this structure in bytes, set by the caller.
    pub size: usize,
    /// Tables and arrays found, the unnamed one included.
    pub tables: u64,
    /// Tables of which nothing is left, because their roots or what refers to these is damaged.
    pub tables_lost: u64,
    /// Bindings saved; of an array, parts.
    pub bindings: u64,
    /// Bindings that are known to be lost. Behind each there may be older ones of the same key.
    pub bindings_lost: u64,
    /// Buckets that cannot be read or are damaged: what they referred to is not known.
    pub buckets_lost: u64,
    /// How many bindings the tables had by their own count, about; UINT64_MAX if that cannot be read.
    pub bindings_counted: u64,
}

/// Copies every binding whose record and chain are undamaged from an object into a new one. The damaged object is only read,
/// without locks, and by system calls, so that nothing in it can do harm; nobody should be using it.
///
/// Tables and arrays keep their names, types, default values and lengths, and the bindings of a key their order. A binding
/// is saved if its key, by its hash, belongs where it was found, and its record is plausible. That the bytes of its
/// value are those that were stored is known only if the object has checksums. The new object has the same locking method
/// and hashing, and no maximum size; it gets its name when it is finished.
///
/// @param kind          #NETSHM_POSIX or #NETSHM_FILE: the damaged object's.
/// @param file_name     Its name, as for netshm_open().
/// @param mem_name      Its name, as for netshm_open().
/// @param to_kind       #NETSHM_POSIX or #NETSHM_FILE: the new object's.
/// @param to_file_name  Its name, as for netshm_open().
/// @param to_mem_name   Its name, as for netshm_open().
/// @param mode          Permissions of the new object, as for open(2). The umask is honoured.
/// @param flags         0 or #NETSHM_REPLACE.
/// @param report        Receives what was saved and lost; may be NULL. Its field `size` is set by the caller.
///
/// @return NETSHM_OK, whatever was lost; NETSHM_E_CORRUPT, the header is damaged, so that no key can be recognised;
///         NETSHM_E_NEWER; NETSHM_E_NOT_FOUND; NETSHM_E_EXISTS; NETSHM_E_PERMISSION; NETSHM_E_NO_SPACE; NETSHM_E_KIND;
///         NETSHM_E_INVALID; NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_salvage(
    kind: c_int,
    file_name: *const c_char,
    mem_name: *const c_char,
    to_kind: c_int,
    to_file_name: *const c_char,
    to_mem_name: *const c_char,
    mode: u32,
    flags: u32,
    report: *mut netshm_salvaged,
) -> c_int {
    let names = &[
        "kind",
        "file_name",
        "mem_name",
        "to_kind",
        "to_file_name",
        "to_mem_name",
        "mode",
        "flags",
        "report",
    ];
    guard(names, || {
        // SAFETY: the header asks for NUL-terminated strings.
        let from = unsafe { name(1, kind, file_name, mem_name) }?;
        // SAFETY: the header asks for NUL-terminated strings.
        let to = unsafe { name(4, to_kind, to_file_name, to_mem_name) }?;
        let replace = replaces(8, flags)?;
        // SAFETY: the header asks for NULL or a structure that is as long as its first word says.
        let size = unsafe { size_of_report(9, report) }?;
        let done = salvage(&from, &to, mode, replace)?;
        if let Some(size) = size {
            // SAFETY: as above.
            unsafe { report.write_unaligned(told(size, &done)) };
        }
        Ok(())
    })
}

fn told(size: usize, done: &Salvaged) -> netshm_salvaged {
    netshm_salvaged {
        size,
        tables: done.tables,
        tables_lost: done.tables_lost,
        bindings: done.bindings,
        bindings_lost: done.bindings_lost,
        buckets_lost: done.buckets_lost,
        bindings_counted: done.bindings_counted.unwrap_or(u64::MAX),
    }
}

/// The size that a report says it has; none if there is none.
///
/// # Safety
/// The pointer must be NULL or point to a structure that is as long as its first word says.
unsafe fn size_of_report(number: u32, report: *const netshm_salvaged) -> Outcome<Option<usize>> {
    if report.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let size = unsafe { (&raw const (*report).size).read_unaligned() };
    if !(size_of::<netshm_salvaged>()..=MOST_SIZE).contains(&size) {
        return Err(Fault::Argument(number, "the field size is not that of the structure"));
    }
    Ok(Some(size))
}

fn replaces(number: u32, flags: u32) -> Outcome<bool> {
    if flags & !NETSHM_REPLACE != 0 {
        return Err(Fault::Argument(number, "unknown flag"));
    }
    Ok(flags & NETSHM_REPLACE != 0)
}

/// The name that three arguments from `number` on give.
///
/// # Safety
/// The texts must be NULL or NUL-terminated.
unsafe fn name(number: u32, kind: c_int, file_name: *const c_char, mem_name: *const c_char) -> Outcome<Name> {
    // SAFETY: the caller's promise.
    let (file, mem) = unsafe { (text_or_null(file_name), text_or_null(mem_name)) };
    name_of(kind, file, mem).map_err(|fault| match fault {
        Fault::Null(n) => Fault::Null(n + number - 1),
        Fault::Argument(n, reason) => Fault::Argument(n + number - 1, reason),
        other => other,
    })
}
