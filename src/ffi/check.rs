//! Verifying an object.

use super::call::{Fault, guard};
use super::callback::call_back;
use super::cursor::NETSHM_CONTINUE;
use super::handle;
use super::object::netshm_object;
use crate::error::Damage;
use std::ffi::{CString, c_char, c_int, c_void};

/// Damage: the first bytes are not those of a netshm object.
pub const NETSHM_DAMAGE_MAGIC: c_int = 1;
/// Damage: the file ends before the memory that its header describes.
pub const NETSHM_DAMAGE_TRUNCATED: c_int = 2;
/// Damage: a header field has an impossible value.
pub const NETSHM_DAMAGE_HEADER: c_int = 3;
/// Damage: the machine went down while the object was in use, and it has not been checked since: see netshm_check().
pub const NETSHM_DAMAGE_UNCLEAN: c_int = 4;
/// Damage: a lock word names an owner that does not hold it, or has unknown bits.
pub const NETSHM_DAMAGE_STRAY_LOCK: c_int = 5;
/// Damage: a slot is not idle, or one of its fields is impossible.
pub const NETSHM_DAMAGE_SLOT: c_int = 6;
/// Damage: a redo log is not empty, or one of its records is impossible.
pub const NETSHM_DAMAGE_LOG: c_int = 7;
/// Damage: a page descriptor contradicts its neighbours.
pub const NETSHM_DAMAGE_PAGE_MAP: c_int = 8;
/// Damage: a free list is broken.
pub const NETSHM_DAMAGE_FREE_LIST: c_int = 9;
/// Damage: a slab's descriptor, bitmap or list is wrong.
pub const NETSHM_DAMAGE_SLAB: c_int = 10;
/// Damage: a block in use is marked free, or lies where no block can be.
pub const NETSHM_DAMAGE_NOT_ALLOCATED: c_int = 11;
/// Damage: a block is marked in use and nothing refers to it.
pub const NETSHM_DAMAGE_LEAKED: c_int = 12;
/// Damage: a block is referred to twice.
pub const NETSHM_DAMAGE_TWICE: c_int = 13;
/// Damage: a table root has an impossible field.
pub const NETSHM_DAMAGE_ROOT: c_int = 14;
/// Damage: a bucket's level contradicts its place.
pub const NETSHM_DAMAGE_LEVEL: c_int = 15;
/// Damage: a bucket's entry, tag or overflow link is wrong.
pub const NETSHM_DAMAGE_BUCKET: c_int = 16;
/// Damage: a record's lengths, key or chain are impossible.
pub const NETSHM_DAMAGE_RECORD: c_int = 17;
/// Damage: a key lies where no find would look.
pub const NETSHM_DAMAGE_MISPLACED: c_int = 18;
/// Damage: a counter differs from what is there.
pub const NETSHM_DAMAGE_COUNT: c_int = 19;
/// Damage: the bytes of a typed key or value do not decode. Found by typed calls; no finding of a check.
pub const NETSHM_DAMAGE_ENCODING: c_int = 20;
/// Damage: a key or value is not what its checksum was made of; in objects with checksums, see #NETSHM_CHECKSUMS.
pub const NETSHM_DAMAGE_CHECKSUM: c_int = 21;

fn number_of(damage: Damage) -> c_int {
    match damage {
        Damage::Magic => NETSHM_DAMAGE_MAGIC,
        Damage::Truncated => NETSHM_DAMAGE_TRUNCATED,
        Damage::Header => NETSHM_DAMAGE_HEADER,
        Damage::Unclean => NETSHM_DAMAGE_UNCLEAN,
        Damage::StrayLock => NETSHM_DAMAGE_STRAY_LOCK,
        Damage::Slot => NETSHM_DAMAGE_SLOT,
        Damage::Log => NETSHM_DAMAGE_LOG,
        Damage::PageMap => NETSHM_DAMAGE_PAGE_MAP,
        Damage::FreeList => NETSHM_DAMAGE_FREE_LIST,
        Damage::Slab => NETSHM_DAMAGE_SLAB,
        Damage::NotAllocated => NETSHM_DAMAGE_NOT_ALLOCATED,
        Damage::Leaked => NETSHM_DAMAGE_LEAKED,
        Damage::Twice => NETSHM_DAMAGE_TWICE,
        Damage::Root => NETSHM_DAMAGE_ROOT,
        Damage::Level => NETSHM_DAMAGE_LEVEL,
        Damage::Bucket => NETSHM_DAMAGE_BUCKET,
        Damage::Record => NETSHM_DAMAGE_RECORD,
        Damage::Misplaced => NETSHM_DAMAGE_MISPLACED,
        Damage::Count => NETSHM_DAMAGE_COUNT,
        Damage::Encoding => NETSHM_DAMAGE_ENCODING,
        Damage::Checksum => NETSHM_DAMAGE_CHECKSUM,
    }
}

/// Hears of one damage. Calls on the same object give NETSHM_E_IN_CALLBACK.
///
/// @param what    One of the NETSHM_DAMAGE_ numbers; others may come.
/// @param offset  Byte offset in the object of the word that is wrong.
/// @param text    The details, for humans; it lives while the callback runs.
/// @param arg     What was given to the call.
///
/// @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the check stops and the call fails with it (see
///         "Callbacks" at the top).
pub type netshm_damage_fn = Option<
    unsafe extern "C-unwind" fn(what: c_int, offset: i64, text: *const c_char, arg: *mut c_void) -> c_int,
>;

/// Verifies every invariant of an object's structure. Nothing is repaired.
///
/// If the object is open for writing, what dead processes have left is put in order first, and all writers are
/// kept out meanwhile. If it is open for reading only, changes under way may look like damage.
///
/// An object in a file that the machine went down with while it was in use, and not at rest after netshm_sync(), may hold
/// any mixture of what was stored since it was last in order. All other calls refuse it, with #NETSHM_E_CORRUPT and
/// #NETSHM_DAMAGE_UNCLEAN. If the check finds no damage in its structure, and it is open for writing, it can be
/// used from then on, in all processes: it has what was synced last, and of later changes some, of a group perhaps a part.
/// If there is damage, it stays refused.
///
/// @param o      The object.
/// @param flags  Reserved: 0.
/// @param fn     Called for each damage; may be NULL.
/// @param arg    Handed to the callback.
///
/// @return NETSHM_OK, there is no damage, or the object is empty; NETSHM_E_CORRUPT, there is, the first one is told by
///         netshm_last_error(); the callback's negative answer; NETSHM_E_CALLBACK; NETSHM_E_IN_GROUP;
///         NETSHM_E_IN_CALLBACK, from an update of the same object; NETSHM_E_FORKED, in a child whose parent has a group
///         open; NETSHM_E_TIMEOUT, others could not be kept out in the netshm_options.lock_timeout_ms that was given last
///         with this handle of the object; NETSHM_E_DEADLOCK, only where somebody damages the object; NETSHM_E_BUSY;
///         NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_check(
    o: *mut netshm_object,
    flags: u32,
    r#fn: netshm_damage_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["o", "flags", "fn", "arg"], || {
        // The callback may close the handle: the object is kept open by a reference of our own.
        // SAFETY: the header asks for a handle.
        let object = unsafe { handle::body(1, o) }?.object.clone();
        if flags != 0 {
            return Err(Fault::Argument(2, "unknown flag"));
        }
        let mut failed = None;
        let outcome = object.check(|finding| {
            let Some(report) = r#fn else { return false };
            let text = CString::new(finding.text).unwrap_or_default();
            let offset = i64::try_from(finding.offset).unwrap_or(i64::MAX);
            // SAFETY: the header asks for a function that can be called with these.
            let answer = call_back(|| unsafe { report(number_of(finding.what), offset, text.as_ptr(), arg) });
            failed = (answer < 0).then_some(answer);
            answer == NETSHM_CONTINUE
        });
        match failed {
            Some(answer) => Err(Fault::Answer(answer)),
            None => Ok(outcome.map(|_| ())?),
        }
    })
}
