//! Options of managing: a structure that carries its size, so that it can grow.

use super::call::{Fault, Outcome, text_or_null};
use super::error::MOST_SIZE;
use crate::object::{KeyHashing, Locking, ManageOptions};
use std::ffi::c_char;
use std::mem::{offset_of, size_of};

/// Locking: the one that the object records; for a new object, the best one.
pub const NETSHM_LOCK_RECORDED: u32 = 0;
/// Locking: none. For one thread of one process, or readers only. Still safe against being killed.
pub const NETSHM_LOCK_NONE: u32 = 1;
/// Locking: the same lock words as #NETSHM_LOCK_FUTEX, but no futex system call: for systems and sandboxes that do
/// not have it. Record locks of the file system tell who lives; whoever waits looks again every 50 us to 2 ms.
pub const NETSHM_LOCK_RECORD: u32 = 2;
/// Locking: lock words in the shared memory. No system call unless somebody has to wait.
pub const NETSHM_LOCK_FUTEX: u32 = 3;

/// Hashing of keys: as the object records; for a new object, #NETSHM_HASH_FAST.
pub const NETSHM_HASH_RECORDED: u32 = 0;
/// Hashing of keys: XXH3 with a random seed.
pub const NETSHM_HASH_FAST: u32 = 1;
/// Hashing of keys: SipHash with a random key, for keys that are chosen by enemies.
pub const NETSHM_HASH_KEYED: u32 = 2;

/// Flag of managing: delete everything that the table holds, in one transaction; with the unnamed table, everything
/// that the object holds.
pub const NETSHM_REINIT: u32 = 1;
/// Flag of managing: ask the system for huge pages for this process's view of the object. They save time in objects of
/// some hundred MiB and more, if they can be had; docs/tuning.md says when, and what they cost. It holds for all handles
/// of this process to the object, and is not recorded in it.
pub const NETSHM_HUGE_PAGES: u32 = 2;

/// Flag of managing: a new object gets checksums of its keys and values. netshm_check() and netshm_salvage() verify them, and
/// so find damage that changes a value and nothing else; finds do not. Of 8 million such damages one goes unnoticed. Changes
/// take some times as long as without. It is recorded; an object that was made without is refused (#NETSHM_E_KIND).
pub const NETSHM_CHECKSUMS: u32 = 4;

/// How an object is managed. Zero in all fields but `size` gives the defaults.
///
/// Set all bytes to zero and `size` to `sizeof(netshm_options)`, or begin with #NETSHM_OPTIONS_INIT. The
/// structure may grow at its end; a library that does not know a field refuses it unless it is zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_options {
    /// Size of this structure in bytes.
    pub size: usize,
    /// 0, or #NETSHM_REINIT, #NETSHM_HUGE_PAGES and #NETSHM_CHECKSUMS, added up.
    pub flags: u32,
    /// One of the NETSHM_LOCK_ numbers. For an existing object: what it is expected to record.
    pub locking: u32,
    /// A hint, in bytes: at least 160 and divisible by 4. It is recorded and has no other effect. 0: 256.
    pub page_size: u32,
    /// Longest wait for a lock through the new handle, in milliseconds. 0: no limit; negative: no waiting. Until another
    /// table is managed by the same handle of the object, netshm_check(), netshm_roots() and netshm_root_drop() wait as long
    /// with that; before any is, they wait without a limit. A thread's first change may wait a second for a place among those who
    /// take part, even with no waiting.
    pub lock_timeout_ms: i32,
    /// Number of keys for which a new table has room from the beginning.
    pub init: u64,
    /// Size in bytes beyond which a new object does not grow. 0: no limit.
    pub max_bytes: u64,
    /// Name of the table in the object, UTF-8 of 1 to 240 bytes; NULL: the unnamed table.
    pub root: *const c_char,
    /// One of the NETSHM_HASH_ numbers.
    pub hashing: u32,
    /// Reserved: 0.
    pub reserved: u32,
}

const _: () = assert!(offset_of!(netshm_options, reserved) + 4 == size_of::<netshm_options>());

/// Reads the options at argument `number`; NULL means all defaults.
///
/// # Safety
/// The pointer must be NULL or point to a structure that is as long as its first word says.
pub(super) unsafe fn read(number: u32, options: *const netshm_options) -> Outcome<ManageOptions> {
    let mut result = ManageOptions::new();
    if options.is_null() {
        return Ok(result);
    }
    let wrong = |reason| Err(Fault::Argument(number, reason));
    // SAFETY: the caller's promise.
    let size = unsafe { (&raw const (*options).size).read_unaligned() };
    if !(size_of::<netshm_options>()..=MOST_SIZE).contains(&size) {
        return wrong("the field size is not that of the structure");
    }
    // SAFETY: the caller's promise; there are `size` bytes.
    let (fields, tail) = unsafe {
        let from = options.cast::<u8>().add(size_of::<netshm_options>());
        let tail = std::slice::from_raw_parts(from, size - size_of::<netshm_options>());
        (options.read_unaligned(), tail)
    };
    if tail.iter().any(|byte| *byte != 0) {
        return wrong("this version does not know all of the fields that are set");
    }
    // SAFETY: the caller's promise: NULL or a string.
    if let Some(root) = unsafe { text_or_null(fields.root) } {
        match root.to_str() {
            None | Some("") => return wrong("the field root must be UTF-8 of 1 to 240 bytes, or NULL"),
            Some(root) => _ = result.root(root),
        }
    }
    if fields.reserved != 0 {
        return wrong("the reserved field must be 0");
    }
    if fields.flags & !(NETSHM_REINIT | NETSHM_HUGE_PAGES | NETSHM_CHECKSUMS) != 0 {
        return wrong("the field flags has an unknown flag");
    }
    match fields.locking {
        NETSHM_LOCK_RECORDED => {}
        NETSHM_LOCK_NONE => _ = result.locking(Locking::None),
        NETSHM_LOCK_RECORD => _ = result.locking(Locking::Record),
        NETSHM_LOCK_FUTEX => _ = result.locking(Locking::Futex),
        _ => return wrong("the field locking has an unknown number"),
    }
    match fields.hashing {
        NETSHM_HASH_RECORDED => {}
        NETSHM_HASH_FAST => _ = result.hashing(KeyHashing::Fast),
        NETSHM_HASH_KEYED => _ = result.hashing(KeyHashing::Keyed),
        _ => return wrong("the field hashing has an unknown number"),
    }
    if fields.page_size != 0 {
        result.page_size(fields.page_size);
    }
    result.lock_timeout_ms(fields.lock_timeout_ms).expected(fields.init).max_bytes(fields.max_bytes);
    result.reinitialise(fields.flags & NETSHM_REINIT != 0);
    result.huge_pages(fields.flags & NETSHM_HUGE_PAGES != 0);
    result.checksums(fields.flags & NETSHM_CHECKSUMS != 0);
    Ok(result)
}
