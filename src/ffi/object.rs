//! Objects: opening, naming, removing, closing.

use super::call::{Fault, Outcome, guard, guard_value, out, out_or_null, text_or_null};
use super::handle::{self, Noun, magic};
use super::options::{NETSHM_LOCK_FUTEX, NETSHM_LOCK_NONE, NETSHM_LOCK_RECORD};
use crate::error::Error;
use crate::object::{self, Locking, Object, OpenOptions};
use crate::os::name::{Kind, Name};
use std::ffi::{CString, OsStr, c_char, c_int};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// An open shared memory object. Closed by netshm_close().
pub struct netshm_object {
    _opaque: [u8; 0],
}

/// What is behind an object's handle.
pub(super) struct Body {
    pub(super) object: Object,
    /// The name as C strings, which live as long as the handle.
    file_name: Option<CString>,
    mem_name: Option<CString>,
}

impl Noun for netshm_object {
    const MAGIC: u64 = magic::OBJECT;
    type Body = Body;
}

/// Kind of object: POSIX shared memory, with a small management file by which it can be found and removed.
pub const NETSHM_POSIX: c_int = 1;
/// Kind of object: a file that holds the data.
pub const NETSHM_FILE: c_int = 2;
/// Kind of object: memory without a name, which goes with its last descriptor and mapping. Others get it as a
/// descriptor, see netshm_fd() and netshm_open_fd(). Nobody can shorten it.
pub const NETSHM_ANON: c_int = 3;

/// Open for reading only: the memory is mapped read-only and never written.
pub const NETSHM_RDONLY: u32 = 1;
/// Open for reading and writing.
pub const NETSHM_RDWR: u32 = 2;
/// Create the object if it does not exist.
pub const NETSHM_CREAT: u32 = 4;
/// With #NETSHM_CREAT: fail with #NETSHM_E_EXISTS if the object exists.
pub const NETSHM_EXCL: u32 = 8;
/// Empty the object, in one transaction.
pub const NETSHM_TRUNC: u32 = 16;

/// The name that arguments 1 to 3 give.
pub(super) fn name_of(kind: c_int, file_name: Option<&OsStr>, mem_name: Option<&OsStr>) -> Outcome<Name> {
    match (kind, file_name, mem_name) {
        (NETSHM_ANON, ..) => Err(Fault::Argument(1, "memory without a name cannot be named")),
        (NETSHM_POSIX | NETSHM_FILE, None, _) => Err(Fault::Null(2)),
        (NETSHM_POSIX, Some(_), None) => Err(Fault::Null(3)),
        (NETSHM_POSIX, Some(file), Some(mem)) => Ok(Name::posix(file, mem)),
        (NETSHM_FILE, Some(file), None) => Ok(Name::file(file)),
        (NETSHM_FILE, ..) => Err(Fault::Argument(3, "a file has no second name: pass NULL")),
        _ => Err(Fault::Argument(1, "unknown kind of object")),
    }
}

fn handle_of(object: Object) -> *mut netshm_object {
    let text = |text: &OsStr| CString::new(text.as_bytes()).ok();
    let name = object.name();
    let file_name = name.and_then(|name| text(name.file_name().as_os_str()));
    let mem_name = name.and_then(|name| name.mem_name()).and_then(text);
    handle::open(Body { object, file_name, mem_name })
}

/// Makes memory without a name.
fn open_anonymous(named: [bool; 2], flags: u32, mode: u32) -> Outcome<Object> {
    for (number, named) in [(2, named[0]), (3, named[1])] {
        if named {
            return Err(Fault::Argument(number, "memory without a name has none: pass NULL"));
        }
    }
    let options = options_of(4, flags, mode)?;
    if flags & NETSHM_RDWR == 0 || flags & NETSHM_CREAT == 0 {
        let reason = "memory without a name is always new: NETSHM_RDWR and NETSHM_CREAT are needed";
        return Err(Fault::Argument(4, reason));
    }
    Ok(options.anonymous()?)
}

/// `number` is that of the argument with the flags.
fn options_of(number: u32, flags: u32, mode: u32) -> Outcome<OpenOptions> {
    const KNOWN: u32 = NETSHM_RDONLY | NETSHM_RDWR | NETSHM_CREAT | NETSHM_EXCL | NETSHM_TRUNC;
    if flags & !KNOWN != 0 {
        return Err(Fault::Argument(number, "unknown flag"));
    }
    let read_only = match flags & (NETSHM_RDONLY | NETSHM_RDWR) {
        NETSHM_RDONLY => true,
        NETSHM_RDWR => false,
        _ => return Err(Fault::Argument(number, "either NETSHM_RDONLY or NETSHM_RDWR is needed")),
    };
    let has = |flag| flags & flag != 0;
    let mut options = OpenOptions::new();
    options.read_only(read_only).mode(mode);
    options.create(has(NETSHM_CREAT)).exclusive(has(NETSHM_EXCL)).truncate(has(NETSHM_TRUNC));
    Ok(options)
}

/// Opens, or creates, a shared memory object.
///
/// A new object is empty until it is managed, see netshm_hashtbl_manage(). The same object may be opened several
/// times in one process.
///
/// @param kind       #NETSHM_POSIX, #NETSHM_FILE, or #NETSHM_ANON, which is always made anew.
/// @param file_name  NETSHM_POSIX: the management file, usually in /tmp. It is created if it is missing, and gets
///                   the line `R POSIX_SHM "<mem_name>"`. NETSHM_FILE: the file that holds the data.
///                   NETSHM_ANON: NULL.
/// @param mem_name   NETSHM_POSIX: the memory's name, which begins with a slash and contains no other.
///                   NETSHM_FILE, NETSHM_ANON: NULL.
/// @param flags      Either #NETSHM_RDONLY or #NETSHM_RDWR, and any of #NETSHM_CREAT, #NETSHM_EXCL,
///                   #NETSHM_TRUNC. The last three need NETSHM_RDWR. NETSHM_ANON needs NETSHM_RDWR and NETSHM_CREAT.
/// @param mode       Permissions of a new object, as for open(2), for example 0600. The umask is honoured.
///                   NETSHM_ANON: without effect.
/// @param out        Receives the handle.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND, there is none, and NETSHM_CREAT was not given; NETSHM_E_EXISTS, with
///         NETSHM_EXCL; NETSHM_E_PERMISSION; NETSHM_E_KIND, the management file is about another memory object;
///         NETSHM_E_CORRUPT and NETSHM_E_NEWER, the memory holds something else, or its end was cut off (the error's
///         text says "truncated file"), and is left as it is;
///         NETSHM_E_UNSUPPORTED, on network file systems; with NETSHM_TRUNC also NETSHM_E_IN_GROUP, this thread has a group
///         on the object open, NETSHM_E_IN_CALLBACK, from an update of it, and NETSHM_E_FORKED, in a child whose parent has a
///         group open; NETSHM_E_INVALID, NETSHM_E_NO_MEMORY, NETSHM_E_NO_SPACE, NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_open(
    kind: c_int,
    file_name: *const c_char,
    mem_name: *const c_char,
    flags: u32,
    mode: u32,
    out: *mut *mut netshm_object,
) -> c_int {
    guard(&["kind", "file_name", "mem_name", "flags", "mode", "out"], || {
        let place = self::out(6, out)?;
        // SAFETY: the header asks for NUL-terminated strings.
        let (file, mem) = unsafe { (text_or_null(file_name), text_or_null(mem_name)) };
        let object = if kind == NETSHM_ANON {
            open_anonymous([file.is_some(), mem.is_some()], flags, mode)?
        } else {
            let name = name_of(kind, file, mem)?;
            options_of(4, flags, mode)?.open(&name)?
        };
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(handle_of(object)) };
        Ok(())
    })
}

/// Opens the object that a descriptor refers to: one that was inherited, or came over a Unix socket (SCM_RIGHTS).
///
/// The descriptor is duplicated and stays the caller's. The object is the same one as that of other handles, in this
/// process or in others. It has no name here, whatever it has elsewhere, so that a process which closes descriptors
/// that are not its own can go on with it only as long as it needs no descriptor; then it gets #NETSHM_E_CLOSED.
///
/// @param fd     A descriptor of an object's memory, open for reading or for both.
/// @param flags  Either #NETSHM_RDONLY or #NETSHM_RDWR; with the latter, perhaps #NETSHM_TRUNC.
/// @param out    Receives the handle.
///
/// @return NETSHM_OK; NETSHM_E_READ_ONLY, NETSHM_RDWR with a descriptor for reading only; NETSHM_E_INVALID, it is no
///         descriptor of a regular file that can be mapped; else the codes of netshm_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_open_fd(fd: c_int, flags: u32, out: *mut *mut netshm_object) -> c_int {
    guard(&["fd", "flags", "out"], || {
        let place = self::out(3, out)?;
        if flags & (NETSHM_CREAT | NETSHM_EXCL) != 0 {
            return Err(Fault::Argument(2, "what a descriptor refers to exists already"));
        }
        let options = options_of(2, flags, 0)?;
        // SAFETY: the command takes an integer; a number that is no descriptor is answered with an error.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EBADF);
            return Err(match errno {
                libc::EBADF => Fault::Argument(1, "it is no open descriptor"),
                errno => Fault::Core(Error::System { call: "fcntl", errno }),
            });
        }
        // SAFETY: the descriptor was just made, and nobody else knows it.
        let object = options.from_fd(unsafe { OwnedFd::from_raw_fd(copy) })?;
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(handle_of(object)) };
        Ok(())
    })
}

/// Creates an object under a new name.
///
/// Every `X` of the patterns becomes a random character of 0-9A-Z until the name is new; netshm_name() tells it.
///
/// @param kind      #NETSHM_POSIX or #NETSHM_FILE.
/// @param file_pat  Pattern of the file name, for example "/tmp/sessions.XXXXXX".
/// @param mem_pat   NETSHM_POSIX: pattern of the memory's name, for example "/sessions.XXXXXX". NETSHM_FILE: NULL.
/// @param mode      Permissions, as for netshm_open().
/// @param out       Receives the handle, open for reading and writing.
///
/// @return NETSHM_OK; NETSHM_E_EXISTS, 1,000 attempts met names in use; else the codes of netshm_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_create_unique(
    kind: c_int,
    file_pat: *const c_char,
    mem_pat: *const c_char,
    mode: u32,
    out: *mut *mut netshm_object,
) -> c_int {
    guard(&["kind", "file_pat", "mem_pat", "mode", "out"], || {
        let place = self::out(5, out)?;
        // SAFETY: the header asks for NUL-terminated strings.
        let (file, mem) = unsafe { (text_or_null(file_pat), text_or_null(mem_pat)) };
        let object =
            OpenOptions::new().mode(mode).create_unique(&name_of(kind, file, mem)?).map_err(of_patterns)?;
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(handle_of(object)) };
        Ok(())
    })
}

/// Names are patterns here, and called so.
fn of_patterns(e: Error) -> Error {
    match e {
        Error::Invalid { argument: "file_name", reason } => Error::Invalid { argument: "file_pat", reason },
        Error::Invalid { argument: "mem_name", reason } => Error::Invalid { argument: "mem_pat", reason },
        other => other,
    }
}

/// Tells an object's kind and name.
///
/// @param o          The object.
/// @param kind       Receives the kind; may be NULL.
/// @param file_name  Receives the file name, NULL if there is none; may be NULL.
/// @param mem_name   Receives the memory's name, NULL if there is none; may be NULL.
///
/// The strings belong to the handle and live until it is closed.
///
/// @return NETSHM_OK, NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_name(
    o: *mut netshm_object,
    kind: *mut c_int,
    file_name: *mut *const c_char,
    mem_name: *mut *const c_char,
) -> c_int {
    guard(&["o", "kind", "file_name", "mem_name"], || {
        // SAFETY: the header asks for a handle.
        let body = unsafe { handle::body(1, o) }?;
        let text = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: the header asks for valid places or NULL.
        unsafe {
            out_or_null(kind).put(body.object.kind() as c_int);
            out_or_null(file_name).put(text(&body.file_name));
            out_or_null(mem_name).put(text(&body.mem_name));
        }
        Ok(())
    })
}

/// Gives the descriptor of an object's memory.
///
/// It is borrowed: it may be duplicated and passed on; it must not be closed, written to, or truncated. It is closed
/// by exec: a program that is to get it by inheritance needs a duplicate.
///
/// @param o   The object.
/// @param fd  Receives the descriptor, which lives as long as the object is used in this process.
///
/// @return NETSHM_OK, NETSHM_E_INVALID, NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_fd(o: *mut netshm_object, fd: *mut c_int) -> c_int {
    guard(&["o", "fd"], || {
        let place = out(2, fd)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(handle::body(1, o)?.object.as_fd().as_raw_fd()) };
        Ok(())
    })
}

/// Removes an object's name or names. The memory goes when nobody uses it any more.
///
/// @param kind       #NETSHM_POSIX or #NETSHM_FILE.
/// @param file_name  As for netshm_open(). The management file is removed as well.
/// @param mem_name   As for netshm_open().
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_PERMISSION; NETSHM_E_INVALID; NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_unlink(
    kind: c_int,
    file_name: *const c_char,
    mem_name: *const c_char,
) -> c_int {
    guard(&["kind", "file_name", "mem_name"], || {
        // SAFETY: the header asks for NUL-terminated strings.
        let (file, mem) = unsafe { (text_or_null(file_name), text_or_null(mem_name)) };
        Ok(Object::unlink(&name_of(kind, file, mem)?)?)
    })
}

/// Changes the permissions of all files behind an object.
///
/// @param o     The object.
/// @param mode  Permissions, for example 0660.
///
/// @return NETSHM_OK, NETSHM_E_PERMISSION, NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_chmod(o: *mut netshm_object, mode: u32) -> c_int {
    guard(&["o", "mode"], || {
        // SAFETY: the header asks for a handle.
        Ok(unsafe { handle::body(1, o) }?.object.chmod(mode)?)
    })
}

/// Changes the owner and the group of all files behind an object.
///
/// @param o    The object.
/// @param uid  The user, or (uint32_t)-1 to leave it as it is.
/// @param gid  The group, or (uint32_t)-1 to leave it as it is.
///
/// @return NETSHM_OK, NETSHM_E_PERMISSION, NETSHM_E_INVALID, NETSHM_E_CLOSED, NETSHM_E_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_chown(o: *mut netshm_object, uid: u32, gid: u32) -> c_int {
    guard(&["o", "uid", "gid"], || {
        let wanted = |id: u32| (id != u32::MAX).then_some(id);
        // SAFETY: the header asks for a handle.
        Ok(unsafe { handle::body(1, o) }?.object.chown(wanted(uid), wanted(gid))?)
    })
}

/// Writes all that has been stored to the device of an object's file, at a moment at which no operation and no group is
/// half done, and waits until it is there.
///
/// If the machine goes down before anything is changed again, the object is exactly as it was at that moment, and is used
/// like one that was closed in order. If it goes down after further changes, some of these are on the device and
/// others are not: every use of the object then fails with #NETSHM_E_CORRUPT, #NETSHM_DAMAGE_UNCLEAN, until
/// netshm_check() has found it sound; see there. A process that is killed needs no sync: nothing is lost by that.
///
/// Writers are kept out while that part is written which a first pass, during which they go on, has left. Readers are
/// not. POSIX shared memory and memory without a name have no device: it costs little and gains nothing.
///
/// @param o           The object, open for writing.
/// @param timeout_ms  Longest wait for groups that are open, in milliseconds. 0: no limit; negative: no waiting.
///
/// @return NETSHM_OK; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, only where somebody damages the object; NETSHM_E_IN_GROUP,
///         this thread has a group open; NETSHM_E_IN_CALLBACK, from an update of the same object; NETSHM_E_FORKED, in a child whose parent has a group open; NETSHM_E_READ_ONLY;
///         NETSHM_E_SYSTEM and NETSHM_E_NO_SPACE, the device does not take it, and what is on it is not known: make a
///         backup elsewhere; NETSHM_E_CORRUPT; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_sync(o: *mut netshm_object, timeout_ms: i32) -> c_int {
    guard(&["o", "timeout_ms"], || {
        // SAFETY: the header asks for a handle.
        Ok(unsafe { handle::body(1, o) }?.object.sync(timeout_ms)?)
    })
}

/// Closes an object's handle. The object goes on existing, and tables made from it stay usable.
///
/// @param o  The handle; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_close(o: *mut netshm_object) -> c_int {
    guard(&["o"], || {
        if o.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, o) }?);
        Ok(())
    })
}

/// Installs a handler for SIGBUS, by which this process outlives that somebody shortens the file of an object that it has
/// mapped, or that a device cannot give back a page. Without it the system kills the process in such a case: whoever may
/// write to the file of a #NETSHM_FILE or #NETSHM_POSIX object can do that to all who use it. Memory of
/// #NETSHM_ANON objects cannot be shortened by anybody, and needs no guard.
///
/// Where a page is gone the handler puts an empty, private one, and from then on all calls on the object, by all of its handles
/// in this process, fail with NETSHM_E_CORRUPT, the place being the length that is left. Calls under way, groups that are open,
/// and values that they give, may have any outcome; nothing that they store is kept. The handles are closed as usual.
/// Opening the object again gives a new handle, if the file is an object again.
///
/// That is also what happens to a thread that has stood still in the middle of a lookup until its memory was given back and the
/// device full, see "Signals" above. Nothing in the object is damaged then, though the code is NETSHM_E_CORRUPT and the place the
/// object's whole length. The call under way gives the right answer, or this error. Close all old handles, open the
/// object again, and go on. Other processes notice nothing, unless other threads of this one were changing something:
/// what these had locked stays locked until the old handles are closed, and all who change anything may have to wait for that.
/// So a thread that opens the object first should have a time-out: it may wait for what its own process has left.
///
/// The handler uses system calls and atomics alone, and returns: it jumps nowhere. A SIGBUS that does not concern an
/// object, or that was sent by kill(2), goes to the handler that was there before, or does what it did by default. Call this
/// after other handlers for SIGBUS have been installed; who installs one later should pass on what is not his. The handler stays
/// for good: the library is never unloaded. Calling again does nothing, unless another handler has been installed meanwhile.
/// At most 2048 mappings are guarded: one for each object, and some more for one that has outgrown its reservation.
///
/// @return NETSHM_OK; NETSHM_E_SYSTEM, sigaction(2) has failed.
#[unsafe(no_mangle)]
pub extern "C" fn netshm_guard_sigbus() -> c_int {
    guard(&[], || Ok(crate::os::guard::install()?))
}

/// Tells which kinds of objects can be made here; containers may lack POSIX shared memory.
///
/// @return A set of bits: `1 << kind` for each kind.
#[unsafe(no_mangle)]
pub extern "C" fn netshm_supported_kinds() -> u32 {
    guard_value(0, || object::supported_kinds().iter().fold(0, |bits, kind| bits | (1 << *kind as u32)))
}

/// Tells the best locking method for a kind of object, which is that of a new one if none is asked for. The system call
/// for #NETSHM_LOCK_FUTEX is tried once in each process; sandboxes may deny it.
///
/// @param kind  The kind.
///
/// @return #NETSHM_LOCK_FUTEX; #NETSHM_LOCK_RECORD where there are no futexes; NETSHM_E_INVALID for an unknown kind, without a detail.
#[unsafe(no_mangle)]
pub extern "C" fn netshm_best_locking(kind: c_int) -> c_int {
    let kind = match kind {
        NETSHM_POSIX => Kind::Posix,
        NETSHM_FILE => Kind::File,
        NETSHM_ANON => Kind::Anon,
        _ => return super::error::NETSHM_E_INVALID,
    };
    guard_value(NETSHM_LOCK_NONE as c_int, || match object::best_locking(kind) {
        Locking::None => NETSHM_LOCK_NONE as c_int,
        Locking::Record => NETSHM_LOCK_RECORD as c_int,
        Locking::Futex => NETSHM_LOCK_FUTEX as c_int,
    })
}
