//! A private map of byte strings behind the same kind of C calls as netshm's.

use hashbrown::HashMap;
use std::ffi::c_void;
use std::hash::{BuildHasher, Hasher};

/// XXH3 with a seed, of the key's bytes alone, as netshm hashes.
#[derive(Clone, Copy)]
struct Xxh3(u64);

struct State {
    seed: u64,
    hash: u64,
}

impl BuildHasher for Xxh3 {
    type Hasher = State;
    fn build_hasher(&self) -> State {
        State { seed: self.0, hash: 0 }
    }
}

impl Hasher for State {
    fn write(&mut self, bytes: &[u8]) {
        self.hash = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.seed);
    }
    // The length that slices hash first would only cost time here.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.hash
    }
}

pub struct Map(HashMap<Box<[u8]>, Box<[u8]>, Xxh3>);

unsafe fn slice<'a>(data: *const u8, len: usize) -> &'a [u8] {
    unsafe { std::slice::from_raw_parts(data, len) }
}

#[unsafe(no_mangle)]
pub extern "C" fn benchmap_new(expected: usize) -> *mut Map {
    Box::into_raw(Box::new(Map(HashMap::with_capacity_and_hasher(expected, Xxh3(0x1234_5678_9abc_def1)))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_free(map: *mut Map) {
    drop(unsafe { Box::from_raw(map) });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_put(map: *mut Map, key: *const u8, key_len: usize, value: *const u8, len: usize) {
    let (key, value) = unsafe { (slice(key, key_len), slice(value, len)) };
    match unsafe { &mut *map }.0.get_mut(key) {
        Some(old) if old.len() == len => old.copy_from_slice(value),
        Some(old) => *old = value.into(),
        None => {
            unsafe { &mut *map }.0.insert(key.into(), value.into());
        }
    }
}

/// Adds a key that is known to be new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_add(map: *mut Map, key: *const u8, key_len: usize, value: *const u8, len: usize) {
    let (key, value) = unsafe { (slice(key, key_len), slice(value, len)) };
    unsafe { &mut *map }.0.insert(key.into(), value.into());
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_find(
    map: *const Map,
    key: *const u8,
    key_len: usize,
    into: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> i32 {
    match unsafe { &*map }.0.get(unsafe { slice(key, key_len) }) {
        None => -1,
        Some(value) if value.len() > capacity => -3,
        Some(value) => unsafe {
            std::ptr::copy_nonoverlapping(value.as_ptr(), into, value.len());
            *len = value.len();
            0
        },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_increment(map: *mut Map, key: *const u8, key_len: usize, delta: i64) -> i64 {
    let Some(value) = unsafe { &mut *map }.0.get_mut(unsafe { slice(key, key_len) }) else { return i64::MIN };
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&value[..8]);
    let sum = i64::from_le_bytes(bytes) + delta;
    value.copy_from_slice(&sum.to_le_bytes());
    sum
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_remove(map: *mut Map, key: *const u8, key_len: usize) -> i32 {
    unsafe { &mut *map }.0.remove(unsafe { slice(key, key_len) }).is_some() as i32
}

/// The same map with a lock in each value, as its first word: what a change costs that others may see half-way, with
/// nothing else that sharing needs. A value is stored with a word before it.
fn under_lock<R>(value: &mut [u8], change: impl FnOnce(&mut [u8]) -> R) -> R {
    use std::sync::atomic::{AtomicU64, Ordering};
    let (word, bytes) = value.split_at_mut(8);
    // SAFETY: boxes of bytes of this size are aligned to words by every allocator that this is run with.
    let lock = unsafe { &*word.as_ptr().cast::<AtomicU64>() };
    let seen = lock.load(Ordering::Relaxed);
    let _ = lock.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed);
    let result = change(bytes);
    let _ = lock.compare_exchange(seen + 1, seen + 2, Ordering::Release, Ordering::Relaxed);
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_put_locked(
    map: *mut Map,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    len: usize,
) {
    let (key, value) = unsafe { (slice(key, key_len), slice(value, len)) };
    if let Some(old) = unsafe { &mut *map }.0.get_mut(key) {
        under_lock(old, |old| old.copy_from_slice(value));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_increment_locked(map: *mut Map, key: *const u8, key_len: usize, delta: i64) -> i64 {
    let Some(value) = unsafe { &mut *map }.0.get_mut(unsafe { slice(key, key_len) }) else { return i64::MIN };
    under_lock(value, |value| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&value[..8]);
        let sum = i64::from_le_bytes(bytes) + delta;
        value.copy_from_slice(&sum.to_le_bytes());
        sum
    })
}

/// Calls `change` with the value of a key, which it may alter in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_change(
    map: *mut Map,
    key: *const u8,
    key_len: usize,
    change: extern "C" fn(*mut u8, usize, *mut c_void),
    arg: *mut c_void,
) {
    if let Some(value) = unsafe { &mut *map }.0.get_mut(unsafe { slice(key, key_len) }) {
        change(value.as_mut_ptr(), value.len(), arg);
    }
}

/// Calls `see` with each key and value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchmap_iter(
    map: *const Map,
    see: extern "C" fn(*const u8, usize, *const u8, usize, *mut c_void),
    arg: *mut c_void,
) {
    for (key, value) in &unsafe { &*map }.0 {
        see(key.as_ptr(), key.len(), value.as_ptr(), value.len(), arg);
    }
}

/// The least that looking up a byte string can be: hash the key, read one line of an index that says where the
/// record is, copy the value from there. `lines` has `mask + 1` lines of 64 bytes, of which the second word is
/// the number of a record; a record has `record_len` bytes, the value at 32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_find(
    lines: *const [u64; 8],
    mask: u64,
    records: *const u8,
    record_len: usize,
    key: *const u8,
    key_len: usize,
    into: *mut u8,
    len: usize,
) {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(unsafe { slice(key, key_len) }, 0x1234_5678_9abc_def1);
    unsafe {
        let record = std::ptr::read_volatile(&(*lines.add((hash & mask) as usize))[1]);
        std::ptr::copy_nonoverlapping(records.add(record as usize * record_len + 32), into, len);
    }
}

/// The least that looking up 16 byte strings at once can be: the same for each, all lines of the index and then all
/// records asked for before they are read. The keys lie one behind the other, and so do the values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_find_16(
    lines: *const [u64; 8],
    mask: u64,
    records: *const u8,
    record_len: usize,
    keys: *const u8,
    key_len: usize,
    into: *mut u8,
    len: usize,
) {
    let mut places = [0; 16];
    unsafe {
        for (i, place) in places.iter_mut().enumerate() {
            let key = slice(keys.add(i * key_len), key_len);
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(key, 0x1234_5678_9abc_def1);
            *place = (hash & mask) as usize;
            fetch(lines.add(*place).cast());
        }
        for place in &mut places {
            let record = std::ptr::read_volatile(&(*lines.add(*place))[1]);
            *place = record as usize * record_len;
            fetch(records.add(*place));
            fetch(records.add(*place + 64));
        }
        for (i, place) in places.into_iter().enumerate() {
            std::ptr::copy_nonoverlapping(records.add(place + 32), into.add(i * len), len);
        }
    }
}

fn fetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The same as `benchlimit_find`, with `3 * 50` instructions more that depend on nothing in memory: what the least lookup costs when
/// the processor has as much to do between two cache misses as a complete one has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_find_busy(
    lines: *const [u64; 8],
    mask: u64,
    records: *const u8,
    record_len: usize,
    key: *const u8,
    key_len: usize,
    into: *mut u8,
    len: usize,
) {
    unsafe { benchlimit_find(lines, mask, records, record_len, key, key_len, into, len) };
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(".rept 50", "add {a}, 1", "xor {b}, 1", "lea {c}, [{d} + 1]", ".endr",
            a = inout(reg) mask => _, b = inout(reg) len => _, c = out(reg) _, d = in(reg) key_len,
            options(nomem, nostack));
    }
}

/// The least that a change which others may see half-way can be: the lookup of `benchlimit_find`, one
/// compare-and-swap of the line's first word to take it, the change of the value in place, one to give it back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_write(
    lines: *const [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
    key: *const u8,
    key_len: usize,
    from: *const u8,
    len: usize,
) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(unsafe { slice(key, key_len) }, 0x1234_5678_9abc_def1);
    unsafe {
        let line = lines.add((hash & mask) as usize);
        let lock = &*line.cast::<AtomicU64>();
        let record = std::ptr::read_volatile(&(*line)[1]);
        let seen = lock.load(Ordering::Relaxed);
        let _ = lock.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed);
        std::ptr::copy_nonoverlapping(from, records.add(record as usize * record_len + 32), len);
        let _ = lock.compare_exchange(seen + 1, seen + 2, Ordering::Release, Ordering::Relaxed);
    }
}

/// The least that an absent key costs in an index whose lines are not in the cache: hash the key, read one line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_miss(lines: *const [u64; 8], mask: u64, key: *const u8, key_len: usize) -> u64 {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(unsafe { slice(key, key_len) }, 0x1234_5678_9abc_def1);
    unsafe { std::ptr::read_volatile(&(*lines.add((hash & mask) as usize))[1]) }
}
