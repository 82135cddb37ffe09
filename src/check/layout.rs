//! The numbers of the format, as the design document (part 1) gives them, and nothing else.
//!
//! The rest of the crate has its own; neither side may use the other's, so that a slip of the pen in
//! one of them is found by the other. All arithmetic here is on numbers that the caller has bounded.

pub(super) const PAGE: u64 = 4096;
pub(super) const UNIT: u64 = 16;
/// Unit numbers have 40 bits.
pub(super) const UNIT_MASK: u64 = (1 << 40) - 1;
/// Pages of the largest object.
pub(super) const MAX_PAGES: u64 = 1 << 32;
/// Pages 0 to 31 have fixed uses.
pub(super) const FIXED_PAGES: u64 = 32;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"NETSHM\x1a\x0a");
pub(super) const MAGIC_CREATING: u64 = u64::from_le_bytes(*b"NETSHMc\x0a");

/// Incompatible feature: records have checksums.
pub(super) const CHECKSUMS: u64 = 1;

/// Page 1: boot id and generations.
pub(super) const LIFE: u64 = PAGE;
/// Page 2: gate lock, roots, retire lock.
pub(super) const GATE: u64 = 2 * PAGE;
pub(super) const MAIN_ROOT: u64 = GATE + 64;
pub(super) const CATALOG: u64 = GATE + 72;
pub(super) const RETIRE_LOCK: u64 = GATE + 128;
pub(super) const RETIRED_ROOTS: u64 = GATE + 192;
pub(super) const SPARE_ROOTS: u64 = GATE + 200;
/// Page 3: slot directory.
pub(super) const DIRECTORY: u64 = 3 * PAGE;
pub(super) const SLOT_CHUNKS: u64 = 14;
/// Page 4: page allocator.
pub(super) const PAGES: u64 = 4 * PAGE;
pub(super) const USED_PAGES: u64 = PAGES + 64;
/// Counts and list heads: index 0 backed, 1 unbacked.
pub(super) const FREE_COUNT: [u64; 2] = [PAGES + 72, PAGES + 80];
pub(super) const FREE_LISTS: [u64; 2] = [PAGES + 128, PAGES + 512];
pub(super) const FREE_LIST_COUNT: u64 = 48;
/// Pages 5 and 6: arenas.
pub(super) const ARENAS: u64 = 5 * PAGE;
pub(super) const ARENA_SIZE: u64 = 512;
pub(super) const ARENA_COUNT: u64 = 16;
pub(super) const ARENA_HEADS: u64 = 64;
/// Page 7: reserved.
pub(super) const RESERVED_PAGE: u64 = 7 * PAGE;
/// Pages 8 to 23: slots 1 to 8.
pub(super) const FIRST_SLOTS: u64 = 8 * PAGE;
pub(super) const SLOT_SIZE: u64 = 8192;
pub(super) const MAX_SLOT: u64 = 65534;
/// The gate's owner while an object rests that was synced.
pub(super) const AT_REST: u64 = 65535;

/// Lock words.
pub(super) const LOCK_OWNER: u64 = 0xffff;
pub(super) const LOCK_WRITING: u64 = 1 << 16;
pub(super) const LOCK_STARVING: u64 = 1 << 19;

/// Kinds of page descriptors.
pub(super) const FREE: u64 = 1;
pub(super) const FREE_TAIL: u64 = 2;
pub(super) const RUN: u64 = 3;
pub(super) const SLAB: u64 = 4;
pub(super) const SLAB_BODY: u64 = 5;
pub(super) const RUN_TAIL: u64 = 6;
/// Bits of the first descriptor word.
pub(super) const UNBACKED: u64 = 1 << 16;
pub(super) const PUNCHING: u64 = 1 << 17;

/// Purposes of runs.
pub(super) const RECORD: u64 = 1;
pub(super) const BUCKETS: u64 = 2;
pub(super) const COUNTERS: u64 = 3;
pub(super) const ROOT: u64 = 4;
pub(super) const SLOTS: u64 = 5;
pub(super) const EXTENSION: u64 = 6;
pub(super) const PURPOSES: [&str; 7] =
    ["nothing", "records", "buckets", "counters", "a root", "slots", "an extension"];

pub(super) const SLAB_PAGES: u64 = 16;
pub(super) const SLAB_BYTES: u64 = SLAB_PAGES * PAGE;
pub(super) const CLASS_COUNT: usize = 35;
pub(super) const LARGEST_BLOCK: u64 = 16384;
/// The class of overflow lines, 64 bytes.
pub(super) const LINE_CLASS: usize = 2;

/// Sizes of the classes: 32, 48, 64, then four per doubling.
pub(super) const CLASS_SIZES: [u64; CLASS_COUNT] = {
    let mut sizes = [32; CLASS_COUNT];
    sizes[1] = 48;
    sizes[2] = 64;
    let mut class = 3;
    while class < CLASS_COUNT {
        let doubling = 64 << ((class - 3) / 4);
        sizes[class] = doubling + doubling / 4 * ((class as u64 - 3) % 4 + 1);
        class += 1;
    }
    sizes
};
const _: () = assert!(CLASS_SIZES[3] == 80 && CLASS_SIZES[7] == 160);
const _: () = assert!(CLASS_SIZES[CLASS_COUNT - 1] == LARGEST_BLOCK);

pub(super) const MAX_LEVEL: u64 = 40;
pub(super) const BUCKET_ARRAYS: u64 = 48;
pub(super) const COUNTER_CHUNKS: u64 = 16;
pub(super) const MAX_SIGNATURE: u64 = 504;

/// A stretch of pages that no run crosses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// First page of the segment.
    pub(super) first: u64,
    /// First page with a descriptor.
    pub(super) data: u64,
    /// First page of the next segment.
    pub(super) end: u64,
    /// First page of the descriptors.
    descriptors: u64,
}

impl Segment {
    pub(super) fn number(k: u64) -> Segment {
        if k == 0 {
            Segment { first: 0, data: FIXED_PAGES, end: 1024, descriptors: 24 }
        } else {
            let first = 1 << (9 + k);
            Segment { first, data: first + (1 << (2 + k)), end: 1 << (10 + k), descriptors: first }
        }
    }

    pub(super) fn descriptor(&self, page: u64) -> u64 {
        self.descriptors * PAGE + 32 * (page - self.first)
    }
}

/// Where the descriptor of a page below 2^32 lies.
pub(super) fn descriptor(page: u64) -> u64 {
    let k = if page < 1024 { 0 } else { u64::from(page.ilog2()) - 9 };
    Segment::number(k).descriptor(page)
}

/// The free list for runs of `pages` pages (at least 1).
pub(super) fn free_list(pages: u64) -> u64 {
    if pages <= 16 { pages - 1 } else { 12 + u64::from(pages.ilog2()) }
}

/// The smallest class for `bytes`; none for more than the largest block.
pub(super) fn smallest_class(bytes: u64) -> Option<usize> {
    let class = CLASS_SIZES.partition_point(|&size| size < bytes);
    (class < CLASS_COUNT).then_some(class)
}

pub(super) fn blocks_per_slab(class: usize) -> u64 {
    SLAB_BYTES / CLASS_SIZES[class]
}

/// First number in part k of a sequence whose part 0 has `unit` elements, and whose part k >= 1
/// continues from `unit << (k - 1)`; and the length of that part.
pub(super) fn doubling(unit: u64, k: u64) -> (u64, u64) {
    if k == 0 { (0, unit) } else { (unit << (k - 1), unit << (k - 1)) }
}
