//! A private map of byte strings behind the same kind of C calls as netshm's.

use hashbrown::HashMap;
use std::ffi::c_void;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The lines of an index and the records that they lead to, as `benchlimit_find` has them. The first word of a line is its
/// lock: odd while somebody changes the record.
#[derive(Clone, Copy)]
struct Index {
    lines: *mut [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
}

impl Index {
    unsafe fn line(&self, key: &[u8]) -> *mut [u64; 8] {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(key, 0x1234_5678_9abc_def1);
        unsafe { self.lines.add((hash & self.mask) as usize) }
    }

    unsafe fn value(&self, line: *mut [u64; 8]) -> *mut u8 {
        unsafe { self.records.add(std::ptr::read_volatile(&(*line)[1]) as usize * self.record_len + 32) }
    }

    /// One compare-and-swap of the line's lock to take it, the change of the value in place, one to give it back.
    unsafe fn change<R>(&self, line: *mut [u64; 8], change: impl FnOnce(*mut u8) -> R) -> R {
        unsafe {
            let value = self.value(line);
            let seen = lock(line);
            let result = change(value);
            let _ = lock_of(line).compare_exchange(seen + 1, seen + 2, Ordering::Release, Ordering::Relaxed);
            result
        }
    }
}

unsafe fn lock_of<'a>(line: *mut [u64; 8]) -> &'a AtomicU64 {
    unsafe { &*line.cast::<AtomicU64>() }
}

/// Takes a line's lock and gives what its word was.
unsafe fn lock(line: *mut [u64; 8]) -> u64 {
    let word = unsafe { lock_of(line) };
    let seen = word.load(Ordering::Relaxed) & !1;
    match word.compare_exchange(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => seen,
        Err(_) => lock_slowly(word),
    }
}

/// Somebody else has it. Who waits for long lets others run: the owner may be among them.
#[cold]
fn lock_slowly(word: &AtomicU64) -> u64 {
    for tries in 0u64.. {
        let seen = word.load(Ordering::Relaxed);
        if seen & 1 == 0 && word.compare_exchange(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return seen;
        }
        if tries % 128 == 127 { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
    unreachable!()
}

/// The least that a change which others may see half-way can be: the lookup of `benchlimit_find`, and the new value
/// copied between two compare-and-swaps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_write(
    lines: *mut [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
    key: *const u8,
    key_len: usize,
    from: *const u8,
    len: usize,
) {
    let index = Index { lines, mask, records, record_len };
    unsafe { index.change(index.line(slice(key, key_len)), |value| std::ptr::copy_nonoverlapping(from, value, len)) }
}

/// The least that changing 16 values at once can be: all lines and records asked for as in `benchlimit_find_16`, then each
/// changed as `benchlimit_write` does it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_write_16(
    lines: *mut [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
    keys: *const Bytes,
    values: *const Bytes,
) {
    let index = Index { lines, mask, records, record_len };
    let mut places = [std::ptr::null_mut(); 16];
    unsafe {
        for (i, place) in places.iter_mut().enumerate() {
            let key = &*keys.add(i);
            *place = index.line(slice(key.data, key.len));
            fetch((*place).cast());
        }
        for place in places {
            let value = index.value(place);
            fetch(value);
            fetch(value.add(56));
        }
        for (i, place) in places.into_iter().enumerate() {
            let from = &*values.add(i);
            index.change(place, |value| std::ptr::copy_nonoverlapping(from.data, value, from.len));
        }
    }
}

/// The least that adding to a counter can be: the lookup, and the addition between two compare-and-swaps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_count(
    lines: *mut [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
    key: *const u8,
    key_len: usize,
    delta: i64,
) -> i64 {
    let index = Index { lines, mask, records, record_len };
    let add = |value: *mut u8| unsafe {
        let value = value.cast::<i64>();
        *value = (*value).wrapping_add(delta);
        *value
    };
    unsafe { index.change(index.line(slice(key, key_len)), add) }
}

/// The least that reading, raising and writing one value can be: copied out and back between two compare-and-swaps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_update(
    lines: *mut [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
    key: *const u8,
    key_len: usize,
    delta: u64,
    buffer: *mut u8,
    len: usize,
) {
    let index = Index { lines, mask, records, record_len };
    let update = |value: *mut u8| unsafe {
        std::ptr::copy_nonoverlapping(value, buffer, len);
        raise(buffer, len, delta);
        std::ptr::copy_nonoverlapping(buffer, value, len);
    };
    unsafe { index.change(index.line(slice(key, key_len)), update) }
}

/// As content.h has it: the first and the last word of a value grow.
unsafe fn raise(value: *mut u8, len: usize, delta: u64) {
    unsafe {
        let stamp = value.cast::<u64>().read_unaligned().wrapping_add(delta);
        value.cast::<u64>().write_unaligned(stamp);
        value.add(len - 8).cast::<u64>().write_unaligned(stamp);
    }
}

#[repr(C)]
pub struct Bytes {
    data: *const u8,
    len: usize,
}

/// The least that raising up to 8 values together can be, if a death in the middle shall be undone or redone: all lines and
/// records asked for, each lock taken by a compare-and-swap, in the order of their addresses; the new values written to a
/// log first, which is sealed; then copied to the records; the log emptied, and the locks given back by stores. `log` is
/// shared memory that this process alone writes: a word, and for each value a word and its bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_group(
    lines: *mut [u64; 8],
    mask: u64,
    records: *mut u8,
    record_len: usize,
    keys: *const Bytes,
    n: usize,
    delta: u64,
    log: *mut u8,
    len: usize,
) {
    let index = Index { lines, mask, records, record_len };
    let mut places = [std::ptr::null_mut::<[u64; 8]>(); 8];
    let (places, step) = (&mut places[..n], 8 + len);
    unsafe {
        for (i, place) in places.iter_mut().enumerate() {
            let key = &*keys.add(i);
            *place = index.line(slice(key.data, key.len));
            fetch((*place).cast());
        }
        places.sort_unstable();
        let places = &*places;
        // Two keys may have one line.
        let is_first = |i: usize| i == 0 || places[i] != places[i - 1];
        for i in 0..n {
            fetch(index.value(places[i]));
            if is_first(i) {
                lock(places[i]);
            }
        }
        let state = &*log.cast::<AtomicU64>();
        for (i, &place) in places.iter().enumerate() {
            let (value, logged) = (index.value(place), log.add(8 + i * step));
            logged.cast::<*mut u8>().write_unaligned(value);
            std::ptr::copy_nonoverlapping(value, logged.add(8), len);
            raise(logged.add(8), len, delta);
        }
        state.store(n as u64, Ordering::Release);
        for i in 0..n {
            let logged = log.add(8 + i * step);
            std::ptr::copy_nonoverlapping(logged.add(8), logged.cast::<*mut u8>().read_unaligned(), len);
        }
        state.store(0, Ordering::Release);
        for i in (0..n).filter(|&i| is_first(i)) {
            let word = lock_of(places[i]);
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
    }
}

/// The least that entering a new record in an index can be: hash the key, a store into one of `lines` lines.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_link(
    lines: *mut [u64; 8],
    n: u64,
    key: *const u8,
    key_len: usize,
    record: u64,
) {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(unsafe { slice(key, key_len) }, 0x1234_5678_9abc_def1);
    let line = (u128::from(hash) * u128::from(n) >> 64) as usize;
    unsafe { std::ptr::write_volatile(&mut (*lines.add(line))[(hash & 7) as usize], record) }
}

/// The least that an absent key costs in an index whose lines are not in the cache: hash the key, read one line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn benchlimit_miss(lines: *const [u64; 8], mask: u64, key: *const u8, key_len: usize) -> u64 {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(unsafe { slice(key, key_len) }, 0x1234_5678_9abc_def1);
    unsafe { std::ptr::read_volatile(&(*lines.add((hash & mask) as usize))[1]) }
}
