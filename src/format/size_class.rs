//! Size classes of blocks: 32, 48, 64 and then four per doubling up to 16384 bytes, so that at most a fifth
//! of a block is lost (the spacing that jemalloc uses).

/// Number of classes.
pub(crate) const CLASSES: u32 = 35;
/// Largest block that a class holds; longer ones are runs of pages.
pub(crate) const LARGEST: u64 = 16_384;
/// Pages of a slab.
pub(crate) const SLAB_PAGES: u32 = 16;
/// Bytes of a slab.
pub(crate) const SLAB_BYTES: u64 = SLAB_PAGES as u64 * super::PAGE_BYTES;
/// Class of an overflow line, 64 bytes.
pub(crate) const LINE_CLASS: u32 = 2;

/// Bytes of a block of a class below [`CLASSES`].
#[inline]
pub(crate) const fn class_bytes(class: u32) -> u64 {
    if class < 3 {
        return 32 + 16 * class as u64;
    }
    let doubling = (class - 3) / 4;
    let quarter = (class - 3) % 4;
    (64 + 16 * (quarter as u64 + 1)) << doubling
}

/// Smallest class whose blocks hold `bytes`; none if it has to be a run.
#[inline]
pub(crate) const fn class_for(bytes: u64) -> Option<u32> {
    if bytes > LARGEST {
        return None;
    }
    if bytes <= 64 {
        return Some(if bytes <= 32 { 0 } else { ((bytes - 32).div_ceil(16)) as u32 });
    }
    let doubling = (bytes - 1).ilog2() - 6;
    let quarter = ((bytes - 1) >> (doubling + 4)) - 4;
    Some(3 + 4 * doubling + quarter as u32)
}

/// Blocks in a slab of a class.
pub(crate) const fn slab_blocks(class: u32) -> u64 {
    SLAB_BYTES / class_bytes(class)
}

const _: () = assert!(class_bytes(LINE_CLASS) == 64);
const _: () = assert!(class_bytes(CLASSES - 1) == LARGEST);
const _: () = assert!(slab_blocks(0).div_ceil(64) <= 45);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gets_the_smallest_class_that_holds_it() {
        for bytes in 0..=LARGEST {
            let class = class_for(bytes).expect("small enough");
            assert!(class_bytes(class) >= bytes, "{bytes}");
            assert!(class == 0 || class_bytes(class - 1) < bytes, "{bytes}");
        }
        assert_eq!(class_for(LARGEST + 1), None);
    }
}
