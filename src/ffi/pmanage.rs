//! Lists of persistent kernel objects.

use super::call::{Fault, Outcome, guard, out};
use super::error::{allocate, netshm_free};
use super::handle::{self, Noun, magic};
use crate::error::Error;
use crate::pmanage::{PmKind, PmObject, Pmanage};
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;

/// A list of persistent kernel objects: files, POSIX shared memory, semaphores. It serves to find and delete what
/// crashed programs have left. Closed by netshm_pmanage_close().
///
/// The list is a text file, or in memory only. The file is interchangeable with those of Ocamlnet's
/// Netsys_pmanage, whose lines are `R KIND "path"` and `U KIND "path"`; the management file of a POSIX shared
/// memory object is such a list. All threads and processes may use it at once: every call locks the whole file
/// in the manner of lockf, for as long as it takes.
pub struct netshm_pmanage {
    _opaque: [u8; 0],
}

impl Noun for netshm_pmanage {
    const MAGIC: u64 = magic::PMANAGE;
    type Body = Pmanage;
}

/// Kind of persistent object: a file.
pub const NETSHM_PM_FILE: c_int = 1;
/// Kind of persistent object: POSIX shared memory.
pub const NETSHM_PM_POSIX_SHM: c_int = 2;
/// Kind of persistent object: a named POSIX semaphore.
pub const NETSHM_PM_POSIX_SEM: c_int = 3;
/// Kind of persistent object: a container of semaphores, as Ocamlnet's Netsys_sem makes them. The path `p` stands
/// for the POSIX shared memory `p_sems` and the named semaphores `p_contsem` and `p_sem0` to `p_sem16383`.
pub const NETSHM_PM_SEM_CONT: c_int = 4;

/// The object that is named by the arguments `number` and `number + 1`.
///
/// # Safety
/// `path` must be NULL or NUL-terminated.
unsafe fn object_of(number: u32, kind: c_int, path: *const c_char) -> Outcome<PmObject> {
    let kind = match kind {
        NETSHM_PM_FILE => PmKind::File,
        NETSHM_PM_POSIX_SHM => PmKind::PosixShm,
        NETSHM_PM_POSIX_SEM => PmKind::PosixSem,
        NETSHM_PM_SEM_CONT => PmKind::SemCont,
        _ => return Err(Fault::Argument(number, "unknown kind of persistent object")),
    };
    if path.is_null() {
        return Err(Fault::Null(number + 1));
    }
    // SAFETY: the caller's promise.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    Ok(PmObject::new(kind, path))
}

fn number_of(kind: PmKind) -> c_int {
    match kind {
        PmKind::File => NETSHM_PM_FILE,
        PmKind::PosixShm => NETSHM_PM_POSIX_SHM,
        PmKind::PosixSem => NETSHM_PM_POSIX_SEM,
        PmKind::SemCont => NETSHM_PM_SEM_CONT,
    }
}

/// Makes a handle for a list.
///
/// The file is looked at by the other calls only. It is created, for its owner only, when something is registered.
///
/// @param path  The absolute path of the file; NULL for a list that is in memory only, and belongs to the handle. A
///              forked child has a copy of such a list.
/// @param out   Receives the handle.
///
/// @return NETSHM_OK; NETSHM_E_INVALID, the path is not absolute, or out is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_open(path: *const c_char, out: *mut *mut netshm_pmanage) -> c_int {
    guard(&["path", "out"], || {
        let place = self::out(2, out)?;
        let list = if path.is_null() {
            Pmanage::in_memory()
        } else {
            // SAFETY: the header asks for a string that ends with NUL.
            Pmanage::open(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))?
        };
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(handle::open(list)) };
        Ok(())
    })
}

/// Registers an object. It need not exist; that it is registered already is no error.
///
/// @param p     The list; safe to use from several threads.
/// @param kind  #NETSHM_PM_FILE, #NETSHM_PM_POSIX_SHM, #NETSHM_PM_POSIX_SEM or #NETSHM_PM_SEM_CONT.
/// @param path  The object's name, which must be an absolute path, or look like one.
///
/// @return NETSHM_OK; NETSHM_E_INVALID, an unknown kind, the path is not absolute, or the list's file is not a
///         regular one; NETSHM_E_CORRUPT, the file has a line that is not understood: the text of
///         netshm_last_error() gives its number, `offset` its beginning; NETSHM_E_TIMEOUT, another program keeps
///         the file locked; NETSHM_E_PERMISSION, NETSHM_E_READ_ONLY, NETSHM_E_NOT_FOUND, there is no such
///         directory; NETSHM_E_NO_SPACE, NETSHM_E_TOO_LARGE, NETSHM_E_BUSY, NETSHM_E_UNSUPPORTED, NETSHM_E_CLOSED,
///         NETSHM_E_SYSTEM. Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_register(
    p: *mut netshm_pmanage,
    kind: c_int,
    path: *const c_char,
) -> c_int {
    guard(&["p", "kind", "path"], || {
        // SAFETY: the header asks for a handle and a string that ends with NUL.
        let (list, object) = unsafe { (handle::body(1, p)?, object_of(2, kind, path)?) };
        Ok(list.register(&object)?)
    })
}

/// Unregisters an object, without deleting it; that it is not registered is no error.
///
/// Parameters and return codes are those of netshm_pmanage_register().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_unregister(
    p: *mut netshm_pmanage,
    kind: c_int,
    path: *const c_char,
) -> c_int {
    guard(&["p", "kind", "path"], || {
        // SAFETY: the header asks for a handle and a string that ends with NUL.
        let (list, object) = unsafe { (handle::body(1, p)?, object_of(2, kind, path)?) };
        Ok(list.unregister(&object)?)
    })
}

/// Registers several objects by one change of the list: all of them or, on an error, none.
///
/// @param p      The list.
/// @param kinds  Their kinds, n of them; may be NULL only if n is 0.
/// @param path   Their paths, n of them; may be NULL only if n is 0.
/// @param n      Their number.
///
/// @return The codes of netshm_pmanage_register().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_register_many(
    p: *mut netshm_pmanage,
    kinds: *const c_int,
    path: *const *const c_char,
    n: usize,
) -> c_int {
    guard(&["p", "kinds", "path", "n"], || {
        // SAFETY: the header asks for a handle.
        let list = unsafe { handle::body(1, p) }?;
        if n > 0 && kinds.is_null() {
            return Err(Fault::Null(2));
        }
        if n > 0 && path.is_null() {
            return Err(Fault::Null(3));
        }
        let object = |i: usize| {
            // SAFETY: the header asks for two arrays of n elements, and for strings that end with NUL.
            unsafe { object_of(2, kinds.add(i).read_unaligned(), path.add(i).read_unaligned()) }
        };
        let objects = (0..n).map(object).collect::<Outcome<Vec<PmObject>>>()?;
        Ok(list.register_many(&objects)?)
    })
}

/// Lists what is registered, each object once, sorted by kind and path.
///
/// @param p      The list.
/// @param kinds  Receives the kinds, n of them, in a block for netshm_free(); NULL if n is 0.
/// @param paths  Receives the paths, n of them, in one block for netshm_free(), strings included; NULL if n is 0.
///               Relative ones may be among them, if another program has registered them.
/// @param n      Receives their number.
///
/// @return NETSHM_OK, also if the file is missing; NETSHM_E_UNSUPPORTED, another program has registered a path with
///         a NUL byte; NETSHM_E_NO_MEMORY; else the codes of netshm_pmanage_register().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_list(
    p: *mut netshm_pmanage,
    kinds: *mut *mut c_int,
    paths: *mut *mut *mut c_char,
    n: *mut usize,
) -> c_int {
    guard(&["p", "kinds", "paths", "n"], || {
        // SAFETY: the header asks for a handle.
        let list = unsafe { handle::body(1, p) }?;
        let (kinds, paths, n) = (out(2, kinds)?, out(3, paths)?, out(4, n)?);
        let objects = list.registered()?;
        if objects.iter().any(|object| object.path.as_os_str().as_bytes().contains(&0)) {
            return Err(Fault::Core(Error::Unsupported("a registered path with a NUL byte, in C")));
        }
        let (numbers, strings) = match objects.is_empty() {
            true => (std::ptr::null_mut(), std::ptr::null_mut()),
            false => pack(&objects)?,
        };
        // SAFETY: the header asks for valid places.
        unsafe {
            kinds.put(numbers);
            paths.put(strings);
            n.put(objects.len());
        }
        Ok(())
    })
}

/// Two blocks for netshm_free: the kinds; pointers to the paths, with the paths behind them.
fn pack(objects: &[PmObject]) -> Result<(*mut c_int, *mut *mut c_char), Error> {
    let bytes = |object: &PmObject| object.path.as_os_str().as_bytes().len() + 1;
    let head = objects.len() * size_of::<*mut c_char>();
    let numbers: *mut c_int = allocate(objects.len() * size_of::<c_int>())?.cast();
    let block = allocate(head + objects.iter().map(bytes).sum::<usize>()).inspect_err(|_| {
        // SAFETY: it was allocated for netshm_free, and nobody else knows of it.
        unsafe { netshm_free(numbers.cast()) };
    })?;
    let strings: *mut *mut c_char = block.cast();
    let mut at = head;
    for (i, object) in objects.iter().enumerate() {
        let path = object.path.as_os_str().as_bytes();
        // SAFETY: the blocks were made for all objects: a number each; a pointer each, and behind the pointers
        // the paths with a NUL each.
        unsafe {
            let text = block.add(at);
            text.copy_from_nonoverlapping(path.as_ptr(), path.len());
            text.add(path.len()).write(0);
            strings.add(i).write(text.cast());
            numbers.add(i).write(number_of(object.kind));
        }
        at += path.len() + 1;
    }
    Ok((numbers, strings))
}

/// Deletes every registered object and empties the list. Failures to delete single objects are ignored, and relative
/// paths, which another program may have registered, are left alone.
///
/// The list is emptied in the end: should the process die on the way, all is still registered.
///
/// @param p  The list.
///
/// @return NETSHM_OK, also if the file is missing; NETSHM_E_PERMISSION, also if the list is neither the calling user's nor root's,
///         since deleting is done with the caller's rights; else the codes of netshm_pmanage_register().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_unlink(p: *mut netshm_pmanage) -> c_int {
    guard(&["p"], || {
        // SAFETY: the header asks for a handle.
        Ok(unsafe { handle::body(1, p) }?.unlink()?)
    })
}

/// Deletes one object, whether it is registered somewhere or not, as netshm_pmanage_unlink() does with those of a
/// list. A failure to delete it is ignored.
///
/// @param kind  #NETSHM_PM_FILE, #NETSHM_PM_POSIX_SHM, #NETSHM_PM_POSIX_SEM or #NETSHM_PM_SEM_CONT.
/// @param path  The object's name, which must be an absolute path, or look like one.
///
/// @return NETSHM_OK; NETSHM_E_INVALID, an unknown kind, or the path is not absolute.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_unlink_this(kind: c_int, path: *const c_char) -> c_int {
    guard(&["kind", "path"], || {
        // SAFETY: the header asks for a string that ends with NUL.
        Ok(unsafe { object_of(1, kind, path) }?.unlink()?)
    })
}

/// Closes a list's handle. The file stays as it is; a list in memory is gone.
///
/// @param p  The handle; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_pmanage_close(p: *mut netshm_pmanage) -> c_int {
    guard(&["p"], || {
        if p.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, p) }?);
        Ok(())
    })
}
