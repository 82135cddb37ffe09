//! The library that is shipped, called through its C face.

use crate::support_processes::skip;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) type Handle = *mut c_void;
pub(crate) type Setter = unsafe extern "C" fn(Handle, *const u8, usize) -> c_int;
pub(crate) type Updater = unsafe extern "C" fn(Handle, *const c_void, usize, *mut c_void) -> c_int;
pub(crate) type Store = unsafe extern "C" fn(Handle, *const u8, usize, *const u8, usize) -> c_int;
pub(crate) type StoreMany =
    unsafe extern "C" fn(Handle, *const Slice, *const Slice, usize, *mut usize) -> c_int;
pub(crate) type StoreTyped = unsafe extern "C" fn(Handle, *const Cell, usize, *const Cell, usize) -> c_int;
pub(crate) type StoreWords = unsafe extern "C" fn(Handle, i32, *const i32, usize) -> c_int;
pub(crate) type Editing = unsafe extern "C" fn(*mut i32, usize, *mut c_void) -> c_int;

/// `netshm_slice`.
#[repr(C)]
pub(crate) struct Slice {
    pub(crate) data: *const c_void,
    pub(crate) len: usize,
}

/// `netshm_value`.
#[repr(C)]
pub(crate) struct Cell {
    pub(crate) kind: u32,
    pub(crate) reserved: u32,
    pub(crate) content: [u64; 2],
}

/// `netshm_options`.
#[repr(C)]
pub(crate) struct Options {
    pub(crate) size: usize,
    pub(crate) flags: u32,
    pub(crate) locking: u32,
    pub(crate) page_size: u32,
    pub(crate) lock_timeout_ms: i32,
    pub(crate) init: u64,
    pub(crate) max_bytes: u64,
    pub(crate) root: *const c_char,
    pub(crate) hashing: u32,
    pub(crate) reserved: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: size_of::<Options>(),
            flags: 0,
            locking: 0,
            page_size: 0,
            lock_timeout_ms: 0,
            init: 0,
            max_bytes: 0,
            root: std::ptr::null(),
            hashing: 0,
            reserved: 0,
        }
    }
}

/// The functions of include/netshm.h that are stepped through.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    pub(crate) open:
        unsafe extern "C" fn(c_int, *const c_char, *const c_char, u32, u32, *mut Handle) -> c_int,
    pub(crate) manage: unsafe extern "C" fn(Handle, Handle, Handle, *const c_void, *mut Handle) -> c_int,
    pub(crate) table: unsafe extern "C" fn(Handle) -> Handle,
    pub(crate) add: Store,
    pub(crate) insert: Store,
    pub(crate) replace: Store,
    pub(crate) remove: unsafe extern "C" fn(Handle, *const u8, usize, *mut c_int) -> c_int,
    pub(crate) find: unsafe extern "C" fn(Handle, *const u8, usize, *mut u8, usize, *mut usize) -> c_int,
    pub(crate) mem: unsafe extern "C" fn(Handle, *const u8, usize, *mut c_int) -> c_int,
    pub(crate) incr: unsafe extern "C" fn(Handle, *const u8, usize, i64, i64, *mut i64) -> c_int,
    pub(crate) update: unsafe extern "C" fn(Handle, *const u8, usize, Updater, *mut c_void) -> c_int,
    pub(crate) update_set: Setter,
    pub(crate) cas:
        unsafe extern "C" fn(Handle, *const u8, usize, *const u8, usize, *const u8, usize) -> c_int,
    pub(crate) add_many: StoreMany,
    pub(crate) replace_many: StoreMany,
    pub(crate) add_v: StoreTyped,
    pub(crate) replace_v: StoreTyped,
    pub(crate) table_manage: unsafe extern "C" fn(Handle, *const c_void, *mut Handle) -> c_int,
    pub(crate) table_add: StoreWords,
    pub(crate) table_replace: StoreWords,
    pub(crate) write_blocks: unsafe extern "C" fn(Handle, u32, i32, Editing, *mut c_void) -> c_int,
    pub(crate) array_manage: unsafe extern "C" fn(Handle, i64, u64, *const c_void, *mut Handle) -> c_int,
    pub(crate) array_set: unsafe extern "C" fn(Handle, u64, i64) -> c_int,
    pub(crate) array_incr: unsafe extern "C" fn(Handle, u64, i64, *mut i64) -> c_int,
    pub(crate) array_write: unsafe extern "C" fn(Handle, u64, usize, *const c_void, usize) -> c_int,
    pub(crate) array_resize: unsafe extern "C" fn(Handle, u64) -> c_int,
    pub(crate) root_drop: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
    pub(crate) sync: unsafe extern "C" fn(Handle, i32) -> c_int,
    pub(crate) stamp: unsafe extern "C" fn(Handle, *const u8, usize, *mut u64) -> c_int,
    pub(crate) wait: unsafe extern "C" fn(Handle, *const u8, usize, *mut u64, i64) -> c_int,
    pub(crate) begin: unsafe extern "C" fn(Handle, *mut Handle) -> c_int,
    pub(crate) commit: unsafe extern "C" fn(Handle) -> c_int,
}

pub(crate) const FILE: c_int = 2;
pub(crate) const RDONLY: u32 = 1;
pub(crate) const RDWR: u32 = 2;
pub(crate) const NOT_FOUND: c_int = -1;
pub(crate) const BLOCK_GO: c_int = 1;
pub(crate) const BLOCK_REMOVE: c_int = 4;

pub(crate) fn so_path() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/libnetshm.so");
    std::env::var_os("NETSHM_SO").map_or_else(default, PathBuf::from)
}

/// Loads the library once; what is in the way is said, loudly, by each test.
pub(crate) fn library() -> Option<Library> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let path = so_path();
        if !path.exists() {
            return Err(format!("{} is not there: cargo build --release makes it", path.display()));
        }
        load(&path)
    });
    match loaded {
        Ok(library) => Some(*library),
        Err(why) => {
            skip(&format!("stepping: {why}"));
            None
        }
    }
}

pub(crate) fn load(path: &Path) -> Result<Library, String> {
    let name = CString::new(path.as_os_str().as_bytes()).expect("has no NUL");
    // SAFETY: the name is a C string.
    let so = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if so.is_null() {
        return Err(format!("{} cannot be loaded", path.display()));
    }
    let symbol = |name: &str| {
        let name = CString::new(name).expect("has no NUL");
        // SAFETY: the library was just opened and stays open.
        unsafe { libc::dlsym(so, name.as_ptr()) }
    };
    if !symbol("netshm_test_panic").is_null() {
        return Err(format!("{} was built with the feature `inject`", path.display()));
    }
    macro_rules! function {
        ($name:literal) => {{
            let at = symbol($name);
            if at.is_null() {
                return Err(format!("{} lacks {}", path.display(), $name));
            }
            // SAFETY: the types are those of include/netshm.h.
            unsafe { std::mem::transmute_copy(&at) }
        }};
    }
    Ok(Library {
        open: function!("netshm_open"),
        manage: function!("netshm_hashtbl_manage"),
        table: function!("netshm_hashtbl_table"),
        add: function!("netshm_hashtbl_add"),
        insert: function!("netshm_hashtbl_insert"),
        replace: function!("netshm_hashtbl_replace"),
        remove: function!("netshm_hashtbl_remove"),
        find: function!("netshm_hashtbl_find"),
        mem: function!("netshm_hashtbl_mem"),
        incr: function!("netshm_hashtbl_incr"),
        update: function!("netshm_hashtbl_update"),
        update_set: function!("netshm_update_set"),
        cas: function!("netshm_hashtbl_cas"),
        add_many: function!("netshm_hashtbl_add_many"),
        replace_many: function!("netshm_hashtbl_replace_many"),
        add_v: function!("netshm_hashtbl_add_v"),
        replace_v: function!("netshm_hashtbl_replace_v"),
        table_manage: function!("netshm_table_manage"),
        table_add: function!("netshm_table_add"),
        table_replace: function!("netshm_table_replace"),
        write_blocks: function!("netshm_table_write_blocks"),
        array_manage: function!("netshm_array_manage_int64"),
        array_set: function!("netshm_array_set_int64"),
        array_incr: function!("netshm_array_incr"),
        array_write: function!("netshm_array_write"),
        array_resize: function!("netshm_array_resize"),
        root_drop: function!("netshm_root_drop"),
        sync: function!("netshm_sync"),
        stamp: function!("netshm_hashtbl_stamp"),
        wait: function!("netshm_hashtbl_wait"),
        begin: function!("netshm_group_begin"),
        commit: function!("netshm_group_commit"),
    })
}
