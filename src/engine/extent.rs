//! Is the file as long as what lies in it? Judged when an object is opened, before anything is written to it.
//!
//! Others may change the object meanwhile, so no lock is asked for and no moment is looked at. Each word that counts
//! is a proof by itself: memory is given to a page before any word says that it has some, and the file is never
//! shortened. So a word that says "memory up to here" was true when it was written and still is, even if it is a
//! leftover, or half of a change whose author died. Since the size is asked for afterwards, an object at work is never
//! refused; of one at rest every run is found that lies beyond the file's end.

use crate::error::{Damage, Error, Result};
use crate::format::bucket::LINE_BYTES;
use crate::format::catalog::{ENTRIES, W_NEXT, W_ROOT, entry};
use crate::format::header::{self, FIXED_PAGES};
use crate::format::pages::{self, DESCRIPTOR_BYTES, Head, descriptor, segment_of};
use crate::format::size_class::SLAB_PAGES;
use crate::format::{MAX_OBJECT_BYTES, Offset, PAGE_BYTES, Page, root};
use crate::os::space::file_size;
use crate::segment::Segment;

/// Refuses an object whose file ends before memory in use.
pub(super) fn verify(segment: &Segment) -> Result<()> {
    let used = segment.load_acquire(header::USED_PAGES);
    if !(FIXED_PAGES as u64..=pages::MAX_PAGES).contains(&used) {
        // Damage of another kind, which a check names and for which an object has to be open.
        return Ok(());
    }
    let size = file_size(segment.fd()?)?;
    if used * PAGE_BYTES <= size {
        return Ok(());
    }
    // The end has no memory yet, as that of a bucket array, or the file was cut.
    let needed = end_of_memory(segment, used, size);
    let size = file_size(segment.fd()?)?;
    if needed <= size { Ok(()) } else { Err(Error::corrupt(Damage::Truncated, Offset(size))) }
}

/// How far the object is known to have memory, as far as that is beyond `size`.
fn end_of_memory(segment: &Segment, used: u64, size: u64) -> u64 {
    // The descriptor of the last page has memory from before the page was counted.
    let mut known = descriptor(Page((used - 1) as u32)).0 + DESCRIPTOR_BYTES;
    let mut may_be_buckets = false;
    let mut end = used;
    while end > FIXED_PAGES as u64 && end * PAGE_BYTES > size {
        let Some((first, head)) = run_before(segment, end) else { break };
        if !head.unbacked() {
            known = known.max(end * PAGE_BYTES);
            break;
        }
        may_be_buckets |= head.kind() == pages::RUN;
        let data = segment_of(first).data;
        end = if first == data { segment_of(first).first } else { first };
    }
    if may_be_buckets { known.max(end_of_buckets(segment, used)) } else { known }
}

/// The first page and the descriptor of the run or slab that ends before a page; none if the words do not agree.
fn run_before(segment: &Segment, end: u64) -> Option<(u64, Head)> {
    let head_of = |page: u64| Head(segment.load_acquire(descriptor(Page(page as u32))));
    let last = head_of(end - 1);
    let pages = match last.kind() {
        pages::FREE | pages::RUN => 1,
        pages::FREE_TAIL | pages::RUN_TAIL => last.number() as u64,
        pages::SLAB_BODY => SLAB_PAGES as u64,
        _ => return None,
    };
    let first = end.checked_sub(pages).filter(|first| *first >= segment_of(end - 1).data)?;
    let head = head_of(first);
    let fits = matches!(head.kind(), pages::FREE | pages::RUN | pages::SLAB) && head.number() as u64 == pages;
    fits.then_some((first, head))
}

/// The end of the buckets with memory that lies last. Bucket arrays get theirs piece by piece: their table's root says
/// how far.
fn end_of_buckets(segment: &Segment, used: u64) -> u64 {
    let mut end = 0;
    let mut look_at = |root: Offset| end = end.max(end_of_arrays(segment, root));
    let _ = page_at(segment, header::MAIN_ROOT).map(&mut look_at);
    for page in chain(segment, header::CATALOG, W_NEXT, used) {
        let roots = (0..ENTRIES).filter_map(|n| page_at(segment, entry(page, n).word(W_ROOT)));
        roots.for_each(&mut look_at);
    }
    for list in [header::RETIRED, header::SPARE] {
        chain(segment, list, root::W_NEXT_ROOT, used).for_each(&mut look_at);
    }
    end
}

/// The page that a word refers to, if it is one.
fn page_at(segment: &Segment, at: Offset) -> Option<Offset> {
    let page = Offset(segment.load_acquire(at));
    (!page.is_none() && page.0 % PAGE_BYTES == 0 && page.0 < MAX_OBJECT_BYTES).then_some(page)
}

/// The pages of a list, at most `most`, and no more than the object has: it may change meanwhile, or be damaged.
fn chain(segment: &Segment, head: Offset, next: u64, most: u64) -> impl Iterator<Item = Offset> + '_ {
    std::iter::successors(page_at(segment, head), move |page| page_at(segment, page.word(next)))
        .take(most.min(segment.view().limit() / PAGE_BYTES) as usize)
}

fn end_of_arrays(segment: &Segment, root: Offset) -> u64 {
    let ready = segment.load_acquire(root.word(root::W_READY));
    let base = segment.load(root.word(root::W_BASE_LEVEL));
    if base > root::MAX_BASE_LEVEL as u64 {
        return 0;
    }
    let (mut first, mut end) = (0, 0);
    for k in 0..root::max_arrays(base as u32) {
        if first >= ready {
            break;
        }
        let buckets = root::array_buckets(k, base as u32);
        let array = segment.load_acquire(root.word(root::W_ARRAYS + k as u64));
        if array != 0 {
            end = end.max(array.saturating_add(buckets.min(ready - first) * LINE_BYTES));
        }
        first += buckets;
    }
    end
}
