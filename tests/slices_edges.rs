//! Goal: writing a slice reads the caller's bytes and no other ones, and reads nothing behind the object's end.
//!
//! Method: slices of all short lengths from buffers that end, or begin, where memory does; parts of chunks that leave
//! some elements at the end of the chunk, in objects that grow block by block, so that chunks lie at the end of the
//! file again and again. A fault ends the child that runs the test. Without hooks in the library: these are the copies that
//! are shipped.

mod support;

use netshm::{Array, ManageOptions, Object, OpenOptions, Type, Value};
use support::scratch::{Scratch, assert_object_sound};

/// Memory with nothing before and behind it.
struct Island {
    base: *mut u8,
    bytes: usize,
}

impl Island {
    const PAGE: usize = 4096;

    fn new(pages: usize) -> Island {
        let bytes = pages * Island::PAGE;
        // SAFETY: a new mapping, of which all but the first and the last page may be used.
        unsafe {
            let whole = libc::mmap(
                std::ptr::null_mut(),
                bytes + 2 * Island::PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(whole, libc::MAP_FAILED);
            let base = whole.cast::<u8>().add(Island::PAGE);
            assert_eq!(libc::mprotect(base.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE), 0);
            Island { base, bytes }
        }
    }

    /// The last so many bytes, or the first ones.
    fn shore(&mut self, len: usize, at_end: bool) -> &mut [u8] {
        let from = if at_end { self.bytes - len } else { 0 };
        // SAFETY: they lie inside of the mapping, which is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(from), len) }
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made.
        unsafe { libc::munmap(self.base.sub(Island::PAGE).cast(), self.bytes + 2 * Island::PAGE) };
    }
}

fn open(scratch: &Scratch) -> Object {
    OpenOptions::new().create(true).open(scratch.name()).expect("opens")
}

fn array(object: &Object, signature: &str, length: u64, name: &str) -> Array {
    let element = Type::parse(signature).expect("is a type");
    let zeros = [Value::Int(0), Value::Int(0)];
    let zeros = &zeros[..if signature.starts_with('(') { 2 } else { 1 }];
    Array::manage(object, &element, zeros, length, ManageOptions::new().root(name)).expect("is an array")
}

fn pattern(len: usize, seed: usize) -> impl Iterator<Item = u8> {
    (0..len).map(move |i| (i * 31 + seed * 7 + 1) as u8)
}

/// A new chunk, a chunk that is there in a group (the general way) and alone (the short way), each from the first byte
/// of the buffer to its last one.
fn buffers_may_end_where_memory_ends() {
    let mut island = Island::new(2);
    for signature in ["int32", "int64", "(int32,int32)", "(int32,int64)"] {
        let scratch = Scratch::posix("edges");
        let object = open(&scratch);
        let bytes = Type::parse(signature).expect("is a type").fixed_bytes().expect("has them");
        let per_chunk = 16360 / if bytes <= 4 { 4 } else { bytes.next_multiple_of(8) } as u64;
        let most = 2000 / bytes;
        let a = array(&object, signature, per_chunk * (most as u64 + 2), "edges");
        for count in 1..=most {
            for (n, at_end) in [(0, true), (1, false), (2, true), (3, true)] {
                let first = per_chunk * count as u64 + count as u64 % 5;
                let shore = island.shore(count * bytes, at_end);
                shore.iter_mut().zip(pattern(count * bytes, count + n)).for_each(|(to, byte)| *to = byte);
                if n == 2 {
                    a.table().group(|| a.write(first, shore)).expect("commits");
                } else {
                    a.write(first, shore).expect("writes");
                }
                shore.fill(0);
                a.read(first, shore).expect("reads");
                assert!(shore.iter().copied().eq(pattern(count * bytes, count + n)), "{signature}, {count}");
            }
        }
        assert_object_sound(&object);
    }
}

/// What is left of a chunk is copied to its end, and the chunk may be the last block of the file.
fn chunks_may_end_where_the_file_ends() {
    const IN_CHUNK: u64 = 3966;
    for left in [1, 3, 17, 19, 33] {
        let scratch = Scratch::file("edges");
        let object = open(&scratch);
        let a = array(&object, "int32", 200 * IN_CHUNK, "edges");
        let part: Vec<u8> = pattern(4 * (IN_CHUNK - left) as usize, left as usize).collect();
        for chunk in 0..60 {
            // The last one is set; then what the slice leaves is copied, the general way and the short way.
            let last = (chunk + 1) * IN_CHUNK - 1;
            a.set(last, &(chunk as u32).to_le_bytes()).expect("sets");
            a.table().group(|| a.write(chunk * IN_CHUNK, &part)).expect("commits");
            a.set(last, &(chunk as u32 + 1).to_le_bytes()).expect("sets");
            for _ in 0..4 {
                a.write(chunk * IN_CHUNK, &part).expect("writes");
                a.set(last - left + 1, &[7; 4]).expect("sets");
            }
            let mut element = [0; 4];
            a.read(last, &mut element).expect("reads");
            let wanted = if left == 1 { [7; 4] } else { (chunk as u32 + 1).to_le_bytes() };
            assert_eq!(element, wanted, "{left} are left");
        }
        assert_object_sound(&object);
    }
}

fn main() {
    support::main(&[
        ("buffers_may_end_where_memory_ends", buffers_may_end_where_memory_ends),
        ("chunks_may_end_where_the_file_ends", chunks_may_end_where_the_file_ends),
    ]);
}
