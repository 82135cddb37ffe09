//! Primitive tables: int32 keys, arrays of int32 as values, and walks over their blocks.

use super::call::{Fault, Outcome, check_length, guard, out, out_or_null};
use super::callback::{call_back, goes_on};
use super::error::allocate;
use super::handle;
use super::hashtbl::netshm_table;
use super::object::netshm_object;
use super::options::{self, netshm_options};
use crate::error::Error;
use crate::primitive::{BlockOp, PrimitiveTable, Step};
use std::ffi::{c_char, c_int, c_void};
use std::mem::size_of;

/// The primitive table behind a handle, kept open also if a callback closes the handle.
///
/// # Safety
/// As for `handle::body`.
unsafe fn kept(t: *mut netshm_table) -> Outcome<PrimitiveTable> {
    // SAFETY: the caller's promise.
    Ok(PrimitiveTable::of(unsafe { handle::body(1, t) }?)?)
}

/// The words of an argument; NULL is an empty array if `n` is 0.
///
/// # Safety
/// If it is not NULL, `n` words must be readable there during `'a`, and not change.
unsafe fn words<'a>(number: u32, data: *const i32, n: usize) -> Outcome<&'a [i32]> {
    if data.is_null() {
        return if n == 0 { Ok(&[]) } else { Err(Fault::Null(number)) };
    }
    if !data.is_aligned() {
        return Err(Fault::Argument(number, "it is not aligned"));
    }
    check_length(n.saturating_mul(size_of::<i32>()))?;
    // SAFETY: the caller's promise; alignment and length were just checked.
    Ok(unsafe { std::slice::from_raw_parts(data, n) })
}

/// Views an object as a primitive table, which maps integers of 32 bits to arrays of such integers. An empty object
/// becomes one.
///
/// @param o        The object. Its handle may be closed afterwards.
/// @param options  How; NULL gives the defaults.
/// @param out      Receives the handle, to be closed by netshm_table_close(). It is a table also for netshm_group().
///
/// @return As netshm_hashtbl_manage(); NETSHM_E_KIND, the object holds another kind of table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_manage(
    o: *mut netshm_object,
    options: *const netshm_options,
    out: *mut *mut netshm_table,
) -> c_int {
    guard(&["o", "options", "out"], || {
        let place = self::out(3, out)?;
        // SAFETY: the header asks for a handle, a structure that carries its size, and a valid place.
        let (object, options) = unsafe { (&handle::body(1, o)?.object, options::read(2, options)?) };
        let table = PrimitiveTable::manage(object, &options)?;
        // SAFETY: as above.
        unsafe { place.put(handle::open::<netshm_table>(table.table().clone())) };
        Ok(())
    })
}

/// Closes the handle of a primitive table. Open groups stay usable.
///
/// @param t  The handle; NULL is OK.
///
/// @return NETSHM_OK; NETSHM_E_CLOSED; NETSHM_E_INVALID, it is a handle of another type, or a borrowed one, such as
///         netshm_hashtbl_table() gives: that one ends with its hash table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_close(t: *mut netshm_table) -> c_int {
    guard(&["t"], || {
        if t.is_null() {
            return Ok(());
        }
        // SAFETY: the header asks for a handle that no other thread is using.
        drop(unsafe { handle::close(1, t) }?);
        Ok(())
    })
}

/// Puts a binding on top of those that the key has. They are hidden, not removed.
///
/// @param t      The table; safe to use from several threads.
/// @param key    The key.
/// @param words  The value; may be NULL only if n is 0.
/// @param n      Its length in words.
///
/// @return NETSHM_OK; NETSHM_E_KIND, the table is not a primitive one; else the codes of netshm_hashtbl_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_add(
    t: *mut netshm_table,
    key: i32,
    words: *const i32,
    n: usize,
) -> c_int {
    guard(&["t", "key", "words", "n"], || {
        // SAFETY: the header asks for a handle and for readable words.
        let (t, value) = unsafe { (kept(t)?, self::words(3, words, n)?) };
        Ok(t.add(key, value)?)
    })
}

/// Replaces the newest binding of the key, or adds one if there is none.
///
/// Parameters and return codes are those of netshm_table_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_replace(
    t: *mut netshm_table,
    key: i32,
    words: *const i32,
    n: usize,
) -> c_int {
    guard(&["t", "key", "words", "n"], || {
        // SAFETY: the header asks for a handle and for readable words.
        let (t, value) = unsafe { (kept(t)?, self::words(3, words, n)?) };
        Ok(t.replace(key, value)?)
    })
}

/// Removes the newest binding of the key, so that the one before it shows again.
///
/// @param t          The table.
/// @param key        The key.
/// @param was_there  Receives 1 if there was a binding, 0 if not; may be NULL.
///
/// @return NETSHM_OK, also if there was none; else the codes of netshm_table_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_remove(t: *mut netshm_table, key: i32, was_there: *mut c_int) -> c_int {
    guard(&["t", "key", "was_there"], || {
        // SAFETY: the header asks for a handle.
        let there = unsafe { kept(t)? }.remove(key)?;
        // SAFETY: the header asks for a valid place or NULL.
        unsafe { out_or_null(was_there).put(there.into()) };
        Ok(())
    })
}

/// Tells whether a key has a binding.
///
/// @param t      The table.
/// @param key    The key.
/// @param found  Receives 1 if it has one, 0 if not.
///
/// @return NETSHM_OK; NETSHM_E_KIND; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_mem(t: *mut netshm_table, key: i32, found: *mut c_int) -> c_int {
    guard(&["t", "key", "found"], || {
        let place = out(3, found)?;
        // SAFETY: the header asks for a handle.
        let found = unsafe { kept(t)? }.contains(key)?;
        // SAFETY: the header asks for a valid place.
        unsafe { place.put(found.into()) };
        Ok(())
    })
}

/// Copies the newest binding of a key into the caller's buffer.
///
/// @param t      The table; safe to use from several threads.
/// @param key    The key.
/// @param words  Receives the value; may be NULL only if cap is 0.
/// @param cap    Its size in words.
/// @param n      Receives the value's full length in words, also with NETSHM_E_TOO_SMALL.
///
/// @return NETSHM_OK; NETSHM_E_NOT_FOUND; NETSHM_E_TOO_SMALL, *n words are needed; NETSHM_E_KIND; else the codes of
///         netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_find(
    t: *mut netshm_table,
    key: i32,
    words: *mut i32,
    cap: usize,
    n: *mut usize,
) -> c_int {
    guard(&["t", "key", "words", "cap", "n"], || {
        if words.is_null() && cap != 0 {
            return Err(Fault::Null(3));
        }
        let place = out(5, n)?;
        // SAFETY: the header asks for a handle.
        let value = unsafe { kept(t)? }.find(key)?.ok_or(Error::NotFound)?;
        // SAFETY: the header asks for valid places, the buffer with room for `cap` words.
        unsafe {
            place.put(value.len());
            if value.len() > cap {
                return Err(Fault::Core(Error::TooSmall { needed: value.len() as u64 }));
            }
            let bytes: *const u8 = value.as_ptr().cast();
            if !value.is_empty() {
                words.cast::<u8>().copy_from_nonoverlapping(bytes, value.len() * size_of::<i32>());
            }
        }
        Ok(())
    })
}

/// Words somewhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_words {
    /// The first word.
    pub data: *const i32,
    /// Their number.
    pub n: usize,
}

/// Gives copies of all bindings of a key, newest first.
///
/// @param t     The table.
/// @param key   The key.
/// @param vals  Receives an array of n values, in one block with what they point to, to be freed by one
///              netshm_free(). NULL if there is none.
/// @param n     Receives the number of values.
///
/// @return NETSHM_OK, also if there is none; NETSHM_E_NO_MEMORY; NETSHM_E_KIND; else the codes of
///         netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_find_all(
    t: *mut netshm_table,
    key: i32,
    vals: *mut *mut netshm_words,
    n: *mut usize,
) -> c_int {
    guard(&["t", "key", "vals", "n"], || {
        let (vals, n) = (out(3, vals)?, out(4, n)?);
        // SAFETY: the header asks for a handle.
        let all = unsafe { kept(t)? }.find_all(key)?;
        let block = if all.is_empty() { std::ptr::null_mut() } else { pack(&all)? };
        // SAFETY: the header asks for valid places.
        unsafe {
            vals.put(block);
            n.put(all.len());
        }
        Ok(())
    })
}

/// One block for netshm_free(), with an array of values and the words that they point to.
fn pack(all: &[Vec<i32>]) -> Result<*mut netshm_words, Error> {
    let head = all.len() * size_of::<netshm_words>();
    let words: usize = all.iter().map(Vec::len).sum();
    let block = allocate(head + words * size_of::<i32>())?;
    let values: *mut netshm_words = block.cast();
    let mut at = head;
    for (i, value) in all.iter().enumerate() {
        // SAFETY: the block was made for the array and all values, one behind the other; `malloc` aligns it, and the
        // size of the array is a multiple of a word's.
        unsafe {
            let data: *mut i32 = block.add(at).cast();
            data.copy_from_nonoverlapping(value.as_ptr(), value.len());
            values.add(i).write(netshm_words { data, n: value.len() });
        }
        at += value.len() * size_of::<i32>();
    }
    Ok(values)
}

/// Counts all bindings, hidden ones included, as netshm_hashtbl_length() does.
///
/// @param t  The table.
/// @param n  Receives the number.
///
/// @return NETSHM_OK; NETSHM_E_KIND; else the codes of netshm_hashtbl_length().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_length(t: *mut netshm_table, n: *mut u64) -> c_int {
    guard(&["t", "n"], || {
        let place = out(2, n)?;
        // SAFETY: the header asks for a handle and a valid place.
        unsafe { place.put(kept(t)?.len()?) };
        Ok(())
    })
}

/// Sees one binding. The words are copies, which live while the callback runs. It may call everything.
///
/// @param key    The key.
/// @param words  The value; with netshm_table_iter_keys() NULL.
/// @param n      Its length in words.
/// @param arg    What was given to the call.
///
/// @return #NETSHM_CONTINUE or #NETSHM_STOP; or a negative number: the call stops and fails with it (see "Callbacks"
///         at the top).
pub type netshm_words_fn =
    Option<unsafe extern "C-unwind" fn(key: i32, words: *const i32, n: usize, arg: *mut c_void) -> c_int>;

/// Calls a callback with every binding, keys in any order, the bindings of one key newest first. It sees what
/// netshm_hashtbl_iter() sees.
///
/// @param t    The table.
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the callback stopped it; the callback's negative answer; NETSHM_E_CALLBACK;
///         NETSHM_E_KIND; else the codes of netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_iter(
    t: *mut netshm_table,
    r#fn: netshm_words_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || {
        // SAFETY: the header asks for a handle.
        let table = unsafe { kept(t)? };
        let visit = r#fn.ok_or(Fault::Null(2))?;
        for binding in table.iter() {
            let (key, words) = binding?;
            // SAFETY: the header asks for a function that can be called with these.
            if !goes_on(call_back(|| unsafe { visit(key, words.as_ptr(), words.len(), arg) }))? {
                break;
            }
        }
        Ok(())
    })
}

/// Calls a callback with every key once. Else it is like netshm_table_iter().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_iter_keys(
    t: *mut netshm_table,
    r#fn: netshm_words_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "fn", "arg"], || {
        // SAFETY: the header asks for a handle.
        let table = unsafe { kept(t)? };
        let visit = r#fn.ok_or(Fault::Null(2))?;
        for key in table.keys() {
            let key = key?;
            // SAFETY: the header asks for a function that can be called with these.
            if !goes_on(call_back(|| unsafe { visit(key, std::ptr::null(), 0, arg) }))? {
                break;
            }
        }
        Ok(())
    })
}

/// Answer of a walk over blocks: that is enough. So does every unknown answer that is not negative.
#[allow(dead_code)] // for C only
pub const NETSHM_BLOCK_BREAK: c_int = 0;
/// Answer of a walk over blocks: go on with the next fragment; after the end marker, with the next binding.
pub const NETSHM_BLOCK_GO: c_int = 1;
/// Answer of a walk over blocks: go on with the next binding at once. This one gets no end marker.
pub const NETSHM_BLOCK_NEXT: c_int = 2;
/// Answer of netshm_table_write_blocks(), to be combined by `|` with one of the others: the binding is to be removed.
/// It counts whatever is answered later. Also the bit that announces it.
pub const NETSHM_BLOCK_REMOVE: c_int = 4;

/// Sees the bindings of a key, newest first, fragment by fragment.
///
/// @param words  A fragment of the value, private to the call; NULL at the end of a binding. A value without words
///               has an end only.
/// @param n      Its length in words, 1024 at most; 0 at the end.
/// @param arg    What was given to the call.
///
/// @return #NETSHM_BLOCK_GO, #NETSHM_BLOCK_NEXT or #NETSHM_BLOCK_BREAK, with netshm_table_write_blocks() combined with
///         #NETSHM_BLOCK_REMOVE or not; or a negative number: the call fails with it (see "Callbacks" at the top).
pub type netshm_block_fn =
    Option<unsafe extern "C-unwind" fn(words: *mut i32, n: usize, arg: *mut c_void) -> c_int>;

type BlockFn = unsafe extern "C-unwind" fn(*mut i32, usize, *mut c_void) -> c_int;

/// Asks a callback; `failed` remembers its negative answer.
fn ask(
    f: BlockFn,
    fragment: Option<&mut [i32]>,
    arg: *mut c_void,
    failed: &mut Option<c_int>,
) -> crate::error::Result<(Step, Option<BlockOp>)> {
    let (data, n) = fragment.map_or((std::ptr::null_mut(), 0), |words| (words.as_mut_ptr(), words.len()));
    // SAFETY: the header asks for a function that can be called with these.
    let answer = call_back(|| unsafe { f(data, n, arg) });
    if answer < 0 {
        *failed = Some(answer);
        return Err(Error::Callback(answer));
    }
    if answer & !(NETSHM_BLOCK_GO | NETSHM_BLOCK_NEXT | NETSHM_BLOCK_REMOVE) != 0 {
        return Ok((Step::Break, None));
    }
    let step = match answer {
        _ if answer & NETSHM_BLOCK_NEXT != 0 => Step::Next,
        _ if answer & NETSHM_BLOCK_GO != 0 => Step::Go,
        _ => Step::Break,
    };
    Ok((step, (answer & NETSHM_BLOCK_REMOVE != 0).then_some(BlockOp::Remove)))
}

/// What a call with such a callback gives.
fn concluded<T>(outcome: crate::error::Result<T>, failed: Option<c_int>) -> Outcome {
    match failed {
        Some(answer) => Err(Fault::Answer(answer)),
        None => {
            outcome?;
            Ok(())
        }
    }
}

/// Shows all bindings of a key to a callback, newest first, fragment by fragment. It sees copies of what was there at
/// one moment, and may call everything.
///
/// @param t    The table.
/// @param key  The key. If it has no binding, the callback is not called.
/// @param fn   The callback.
/// @param arg  Handed to the callback.
///
/// @return NETSHM_OK, also if the callback ended it; its negative answer; NETSHM_E_CALLBACK, it answered with
///         #NETSHM_BLOCK_REMOVE, or with a reserved negative number; NETSHM_E_KIND; else the codes of
///         netshm_hashtbl_find().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_read_blocks(
    t: *mut netshm_table,
    key: i32,
    r#fn: netshm_block_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "key", "fn", "arg"], || {
        // SAFETY: the header asks for a handle.
        let table = unsafe { kept(t)? };
        let f = r#fn.ok_or(Fault::Null(3))?;
        let mut failed = None;
        let outcome = table.read_copies(key, |fragment| match ask(f, fragment, arg, &mut failed)? {
            (_, Some(_)) => Err(Error::Unannounced),
            (step, None) => Ok(step),
        });
        concluded(outcome, failed)
    })
}

/// Shows all bindings of a key to a callback while the key is locked for writing, and makes the changes that it wants.
///
/// The fragments are copies, to which the callback may assign; and it may answer that a binding be removed, be it the
/// newest or not. All changes and removals are made together when the call returns, also if the callback has ended
/// it by #NETSHM_BLOCK_BREAK or left bindings by #NETSHM_BLOCK_NEXT.
///
/// The callback runs on the calling thread; it should be quick. In it, changing the same object by any handle, everything
/// that belongs to a group on it, and netshm_sync(), netshm_backup(), netshm_check() and netshm_table_dump() of it give
/// NETSHM_E_IN_CALLBACK; finding outside of groups shows what was there before. Other objects can be used.
///
/// @param t          The table.
/// @param announced  What the callback may answer besides where to go on: 0 or #NETSHM_BLOCK_REMOVE.
/// @param key        The key. If it has no binding, the callback is not called.
/// @param fn         The callback.
/// @param arg        Handed to the callback.
///
/// @return NETSHM_OK. Else nothing has changed: the callback's negative answer; NETSHM_E_CALLBACK, it answered
///         with what was not announced, or with a reserved negative number; else the codes of netshm_table_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_write_blocks(
    t: *mut netshm_table,
    announced: u32,
    key: i32,
    r#fn: netshm_block_fn,
    arg: *mut c_void,
) -> c_int {
    guard(&["t", "announced", "key", "fn", "arg"], || {
        // SAFETY: the header asks for a handle.
        let table = unsafe { kept(t)? };
        let operations: &[BlockOp] = match announced {
            0 => &[],
            4 => &[BlockOp::Remove],
            _ => return Err(Fault::Argument(2, "unknown operation")),
        };
        let f = r#fn.ok_or(Fault::Null(4))?;
        let mut failed = None;
        let outcome = table.write_blocks(operations, key, |fragment| ask(f, fragment, arg, &mut failed));
        concluded(outcome, failed)
    })
}

const _: () = assert!(NETSHM_BLOCK_REMOVE == 4 && crate::primitive::FRAGMENT_WORDS == 1024);

/// Gives the internals of a table of any kind as text, for debugging. Its form may change with every version.
///
/// Other writers are kept out meanwhile, in a group until it ends. A table open for reading only is looked at without
/// that, and may change in between.
///
/// @param t     The table.
/// @param text  Receives the text, NUL-terminated, to be freed by netshm_free().
///
/// @return NETSHM_OK; NETSHM_E_CORRUPT; NETSHM_E_STALE; NETSHM_E_TIMEOUT; NETSHM_E_DEADLOCK, in a group;
///         NETSHM_E_IN_CALLBACK, from an update of the same object; NETSHM_E_FORKED, in a child whose parent has a group
///         open; NETSHM_E_NO_MEMORY; NETSHM_E_INVALID; NETSHM_E_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netshm_table_dump(t: *mut netshm_table, text: *mut *mut c_char) -> c_int {
    guard(&["t", "text"], || {
        let place = out(2, text)?;
        // SAFETY: the header asks for a handle.
        let dumped = unsafe { handle::body(1, t) }?.clone().dump()?;
        let block = allocate(dumped.len() + 1)?;
        // SAFETY: the block was made for the text and its end; the header asks for a valid place.
        unsafe {
            block.copy_from_nonoverlapping(dumped.as_ptr(), dumped.len());
            block.add(dumped.len()).write(0);
            place.put(block.cast());
        }
        Ok(())
    })
}
