//! Runs of pages: free lists with boundary tags, growth, punching.
//!
//! Runs are kept in segregated free lists, merged with their neighbours when freed (boundary tags: Knuth,
//! TAOCP 1, 2.5). Backed and unbacked free runs are kept apart: only the former have memory.

use super::custody;
use crate::error::{Damage, Error, Result};
use crate::format::pages::{self, BINS, Head, Links, Purpose, bin, descriptor, segment_of};
use crate::format::size_class::SLAB_PAGES;
use crate::format::{Offset, PAGE_BYTES, Page, header};
use crate::lock::Rank;
use crate::os::time;
use crate::writer::{Words, Writer};

/// Pages by which an object grows on the path of an operation: those of a slab, 64 KiB. Allocating and mapping them takes
/// some 35 microseconds.
const STEP_PAGES: u32 = SLAB_PAGES;
/// Pages by which it grows ahead, which takes some 10 microseconds, and the free ones beside which it does not.
const AHEAD_PAGES: u32 = 4;
const AMPLE_PAGES: u64 = 2 * SLAB_PAGES as u64;
/// Free runs that are looked at in one list before the next list is tried.
const LOOKED_AT: u32 = 24;
/// Freed pages are given back to the system this many seconds after they became free, so that readers that
/// still copy from them have long finished.
const QUARANTINE_SECONDS: u64 = 10;
/// Runs shorter than this are not worth a system call.
const PUNCH_PAGES: u32 = 16;
/// Most pages that one punch takes: 1 MiB.
const PUNCH_STEP: u32 = 256;

/// Does a run have to have memory?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Yes; it may hold leftovers.
    Backed,
    /// No: the taker backs it piece by piece, and finds zeros.
    Reserved,
}

/// A free run found in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    page: Page,
    pages: u32,
    unbacked: bool,
}

fn head_of(w: &Writer, page: Page) -> Head {
    Head(w.word(descriptor(page)))
}

fn damaged(page: Page) -> Error {
    Error::corrupt(Damage::PageMap, descriptor(page))
}

/// Takes a run of pages into the slot's reserve. Gives the run and the cell that holds it. What is backed
/// has memory on return; an unbacked run stays marked so. There is room in the reserve.
pub(super) fn take_into_reserve(
    w: &mut Writer,
    n: u32,
    purpose: Purpose,
    backing: Backing,
) -> Result<(Offset, Offset)> {
    let (mut misses, mut growths) = (0, 0);
    loop {
        let candidate = match backing {
            Backing::Backed => find(w, n, false).or_else(|| find(w, n, true)),
            Backing::Reserved => find(w, n, true),
        };
        let Some(candidate) = candidate else {
            growths += 1;
            grow_once_more(w, n, backing, growths)?;
            continue;
        };
        if candidate.unbacked {
            back_descriptors(w, candidate.page.add(n - 1), 2.min(candidate.pages - n + 1))?;
        }
        let carved = w.mini(|w| {
            w.lock(header::PAGE_LOCK, Rank::Page)?;
            if find(w, n, candidate.unbacked) != Some(candidate) {
                return Ok(None);
            }
            carve(w, candidate, n, purpose)?;
            let cell = custody::put_in_reserve(w, candidate.page.offset())?;
            Ok(Some(cell))
        })?;
        let Some(cell) = carved else {
            misses += 1;
            if misses > MOST_MISSES {
                return Err(Error::corrupt(Damage::FreeList, descriptor(candidate.page)));
            }
            continue;
        };
        let run = candidate.page.offset();
        if candidate.unbacked && backing == Backing::Backed {
            // The descriptors of backed pages have memory, too: the run may be cut up later.
            let backed = back_descriptors(w, candidate.page, n)
                .and_then(|()| w.segment.back(run, n as u64 * PAGE_BYTES));
            if let Err(e) = backed {
                custody::drop_reserved(w, cell)?;
                return Err(e);
            }
            w.mini(|w| {
                w.lock(header::PAGE_LOCK, Rank::Page)?;
                w.put(descriptor(candidate.page), Head::run(n, purpose, false, false).0);
                Ok(())
            })?;
        }
        return Ok((run, cell));
    }
}

/// Is there a free run of so many pages that has memory? Lets the object grow if there is none of either sort.
pub(super) fn has_backed(w: &mut Writer, n: u32) -> Result<bool> {
    let mut growths = 0;
    loop {
        if find(w, n, false).is_some() {
            return Ok(true);
        }
        if find(w, n, true).is_some() {
            return Ok(false);
        }
        growths += 1;
        grow_once_more(w, n, Backing::Backed, growths)?;
    }
}

/// How often a run that was found is somebody else's before it is taken; in damaged objects it may be planned for something
/// else as well, and never be had.
const MOST_MISSES: u32 = 10_000;

/// How often others may take what was added before it is found. In damaged objects the words that say what is used and free may
/// be planned to hold something else, so that it never is.
const MOST_GROWTHS: u32 = 256;

/// Grows for the n-th time in a row for the same run.
#[cold]
fn grow_once_more(w: &mut Writer, n: u32, backing: Backing, times: u32) -> Result<()> {
    if times > MOST_GROWTHS {
        return Err(Error::corrupt(Damage::FreeList, header::USED_PAGES));
    }
    grow(w, n, STEP_PAGES, backing)
}

/// Takes pages that have memory off the free lists, as part of what is planned. The page lock is held.
pub(super) fn carve_backed(w: &mut Writer, n: u32, purpose: Purpose) -> Result<Option<Page>> {
    let Some(found) = find(w, n, false) else { return Ok(None) };
    carve(w, found, n, purpose)?;
    Ok(Some(found.page))
}

/// The first fitting run of the free lists of one sort.
fn find(w: &Writer, n: u32, unbacked: bool) -> Option<Found> {
    for b in bin(n)..BINS {
        let mut page = Page(w.word(header::free_list(b, unbacked)) as u32);
        let mut looked_at = 0;
        while page != Page::NONE && looked_at < LOOKED_AT {
            let head = head_of(w, page);
            if head.kind() != pages::FREE
                || head.unbacked() != unbacked
                || !lies_inside(w, page, head.number())
            {
                break;
            }
            if head.number() >= n {
                return Some(Found { page, pages: head.number(), unbacked });
            }
            page = Links(w.word(descriptor(page).word(1))).next();
            looked_at += 1;
        }
    }
    None
}

/// Can there be a run of so many pages? It lies in the data of one segment, in pages that have been used.
fn lies_inside(w: &Writer, page: Page, n: u32) -> bool {
    let segment = segment_of(page.0.into());
    let (first, end) = (u64::from(page.0), u64::from(page.0) + u64::from(n));
    n > 0 && first >= segment.data && end <= segment.end.min(w.word(header::USED_PAGES))
}

/// Cuts `n` pages off the front of a free run. The page lock is held.
fn carve(w: &mut Writer, from: Found, n: u32, purpose: Purpose) -> Result<()> {
    unlink(w, from.page, Head::free(from.pages, from.unbacked))?;
    if from.pages > n {
        let freed_at = w.word(descriptor(from.page).word(2));
        link(w, from.page.add(n), from.pages - n, from.unbacked, freed_at);
    }
    w.put(descriptor(from.page), Head::run(n, purpose, from.unbacked, false).0);
    if n > 1 {
        w.put(descriptor(from.page.add(n - 1)), Head::run_tail(n).0);
    }
    Ok(())
}

/// Takes a free run off its list. The page lock is held.
fn unlink(w: &mut Writer, page: Page, head: Head) -> Result<()> {
    let at = descriptor(page);
    let links = Links(w.word(at.word(1)));
    let list = header::free_list(bin(head.number()), head.unbacked());
    if links.previous() == Page::NONE {
        if w.word(list) != page.0 as u64 {
            return Err(Error::corrupt(Damage::FreeList, list));
        }
        w.put(list, links.next().0 as u64);
    } else {
        set_next(w, links.previous(), links.next());
    }
    if links.next() != Page::NONE {
        set_previous(w, links.next(), links.previous());
    }
    count_free(w, head.unbacked(), -(head.number() as i64));
    Ok(())
}

/// Changes the `next` of a run or slab in a list.
pub(super) fn set_next(w: &mut Writer, of: Page, next: Page) {
    let at = descriptor(of).word(1);
    let links = Links(w.word(at));
    w.put(at, Links::new(next, links.previous()).0);
}

/// Changes the `previous` of a run or slab in a list.
pub(super) fn set_previous(w: &mut Writer, of: Page, previous: Page) {
    let at = descriptor(of).word(1);
    let links = Links(w.word(at));
    w.put(at, Links::new(links.next(), previous).0);
}

/// Makes a free run and puts it at the head of its list. The page lock is held.
fn link(w: &mut Writer, page: Page, n: u32, unbacked: bool, freed_at: u64) {
    let at = descriptor(page);
    let list = header::free_list(bin(n), unbacked);
    let next = Page(w.word(list) as u32);
    w.put(at, Head::free(n, unbacked).0);
    w.put(at.word(1), Links::new(next, Page::NONE).0);
    w.put(at.word(2), freed_at);
    if n > 1 {
        w.put(descriptor(page.add(n - 1)), Head::free_tail(n, unbacked).0);
    }
    if next != Page::NONE {
        set_previous(w, next, page);
    }
    w.put(list, page.0 as u64);
    count_free(w, unbacked, n as i64);
}

fn count_free(w: &mut Writer, unbacked: bool, delta: i64) {
    let at = if unbacked { header::FREE_UNBACKED } else { header::FREE_BACKED };
    let count = w.word(at);
    w.put(at, count.wrapping_add_signed(delta));
}

/// Frees a run, merging it with its neighbours. The page lock is held.
pub(super) fn release(w: &mut Writer, page: Page, n: u32, unbacked: bool) -> Result<()> {
    let segment = segment_of(page.0 as u64);
    let used = w.word(header::USED_PAGES);
    if (page.0 as u64) < segment.data || page.0 as u64 + n as u64 > segment.end.min(used) || n == 0 {
        return Err(damaged(page));
    }
    let (mut page, mut n) = (page, n);
    if page.0 as u64 > segment.data {
        let before = head_of(w, Page(page.0 - 1));
        let is_free =
            before.kind() == pages::FREE_TAIL || (before.kind() == pages::FREE && before.number() == 1);
        if is_free && before.unbacked() == unbacked {
            let len = before.number();
            if len == 0 || len > page.0 - segment.data as u32 {
                return Err(damaged(Page(page.0 - 1)));
            }
            let first = Page(page.0 - len);
            let head = head_of(w, first);
            if head.kind() != pages::FREE || head.number() != len {
                return Err(damaged(first));
            }
            unlink(w, first, head)?;
            (page, n) = (first, n + len);
        }
    }
    let behind = page.0 as u64 + n as u64;
    if behind < segment.end.min(used) {
        let after = Page(behind as u32);
        let head = head_of(w, after);
        if head.kind() == pages::FREE && head.unbacked() == unbacked {
            if head.number() == 0 || behind + head.number() as u64 > segment.end.min(used) {
                return Err(damaged(after));
            }
            unlink(w, after, head)?;
            n += head.number();
        }
    }
    link(w, page, n, unbacked, time::coarse_seconds());
    Ok(())
}

/// The run in use that begins at a page: its head.
pub(super) fn run_at(w: &Writer, page: Page) -> Result<Head> {
    let head = head_of(w, page);
    let segment = segment_of(page.0 as u64);
    let fits = page.0 as u64 + head.number() as u64 <= segment.end;
    if head.kind() != pages::RUN || head.number() == 0 || !fits {
        return Err(damaged(page));
    }
    Ok(head)
}

/// Gives the descriptors of `count` pages memory.
fn back_descriptors(w: &Writer, first: Page, count: u32) -> Result<()> {
    let from = descriptor(first);
    let end = descriptor(first.add(count - 1)).0 + pages::DESCRIPTOR_BYTES;
    // To the end of the page: the file may end here, and what is behind its last whole line is out of reach.
    w.segment.back(from, end.next_multiple_of(PAGE_BYTES) - from.0)
}

/// Grows a little long before memory is wanted, so that no operation has to wait for that of a whole slab. Nothing is
/// planned, and it is no error if there is none.
#[inline]
pub(super) fn grow_ahead(w: &mut Writer) {
    if w.segment.load(header::FREE_BACKED) < AMPLE_PAGES {
        let _ = grow(w, 1, AHEAD_PAGES, Backing::Backed);
    }
}

/// Adds pages that were never used to the free lists, at least `n` in one run, and rather a step of so many.
#[cold]
fn grow(w: &mut Writer, n: u32, step: u32, backing: Backing) -> Result<()> {
    let used = w.word(header::USED_PAGES);
    // The file reaches into the segment of the last page that is used, where its descriptor is.
    let is_within_reach = |w: &Writer| used <= segment_of(w.segment.limit() / PAGE_BYTES).end;
    if !is_within_reach(w) {
        w.segment.refresh()?;
        if !is_within_reach(w) {
            return Err(Error::corrupt(Damage::PageMap, header::USED_PAGES));
        }
    }
    let segment = segment_of(used);
    let first = used.max(segment.data);
    let room = segment.end.saturating_sub(first);
    if first >= pages::MAX_PAGES || (segment.end >= pages::MAX_PAGES && room < n as u64) {
        return Err(Error::NoSpace);
    }
    let first_page = Page(first as u32);
    if room < n as u64 {
        // What is left of this segment is free, without memory; the next one is larger.
        if room > 0 {
            back_descriptors(w, first_page, 1)?;
            back_descriptors(w, Page((segment.end - 1) as u32), 1)?;
        }
        return add_pages(w, used, first_page, room as u32, true, None);
    }
    let max = w.word(Offset(8 * header::W_MAX_BYTES));
    let allowed = if max == 0 { u64::MAX } else { max / PAGE_BYTES };
    let reserved = backing == Backing::Reserved;
    let mut step = if reserved { n } else { n.max(step).min(room as u32) };
    if first + step as u64 > allowed {
        step = n;
    }
    if first + step as u64 > allowed {
        return Err(Error::NoSpace);
    }
    loop {
        let backed = back_for_growth(w, first_page, step, reserved);
        match backed {
            Ok(()) => break,
            Err(Error::NoSpace) if step > n => step = n,
            Err(e) => return Err(e),
        }
    }
    add_pages(w, used, first_page, step, reserved, Some(n))
}

fn back_for_growth(w: &Writer, first: Page, n: u32, reserved: bool) -> Result<()> {
    if reserved {
        back_descriptors(w, first, 1)?;
        return back_descriptors(w, first.add(n - 1), 1);
    }
    // The page that holds the descriptor of the last used page has memory.
    let last = first.add(n - 1);
    let has_neighbour = first.0 as u64 > segment_of(first.0 as u64).data;
    if !has_neighbour || descriptor(Page(first.0 - 1)).0 / PAGE_BYTES != descriptor(last).0 / PAGE_BYTES {
        back_descriptors(w, first, n)?;
    }
    let bytes = n as u64 * PAGE_BYTES;
    w.segment.back(first.offset(), bytes)?;
    if n <= STEP_PAGES {
        w.segment.populate(first.offset(), bytes);
    }
    Ok(())
}

/// Publishes growth from `used` to the end of `n` pages from `first` on, unless somebody was faster.
fn add_pages(
    w: &mut Writer,
    used: u64,
    first: Page,
    n: u32,
    unbacked: bool,
    wanted: Option<u32>,
) -> Result<()> {
    w.mini(|w| {
        w.lock(header::PAGE_LOCK, Rank::Page)?;
        if w.word(header::USED_PAGES) != used {
            return Ok(());
        }
        w.put(header::USED_PAGES, first.0 as u64 + n as u64);
        if n > 0 {
            release(w, first, n, unbacked)?;
        }
        // It is the first of its list now. Where it is not found the lists are damaged, and would not be satisfied by more.
        match wanted {
            Some(wanted) if find(w, wanted, unbacked).is_none() => {
                Err(Error::corrupt(Damage::FreeList, header::free_list(bin(wanted), unbacked)))
            }
            _ => Ok(()),
        }
    })
}

/// Frees a run in custody, with the memory that it has.
pub(super) fn release_run(w: &mut Writer, run: Offset) -> Result<()> {
    let page = run.page();
    let head = run_at(w, page)?;
    // Whoever was punching it has died, perhaps before.
    let unbacked = head.unbacked() || (head.punching() && punch(w, page, head.number())?);
    release(w, page, head.number(), unbacked)
}

/// Gives the memory of a run back to the system, so that it reads as zeros, as all that is unbacked does. False: that
/// cannot be, and it has its memory, all of it.
fn punch(w: &Writer, page: Page, n: u32) -> Result<bool> {
    if !lies_inside(w, page, n) {
        return Err(damaged(page));
    }
    let bytes = u64::from(n) * PAGE_BYTES;
    match w.segment.punch(page.offset(), bytes) {
        Ok(()) => Ok(true),
        Err(_) => w.segment.back(page.offset(), bytes).map(|()| false),
    }
}

/// The quarantine, which tests may make shorter.
fn quarantine_seconds() -> u64 {
    #[cfg(feature = "inject")]
    if let Some(seconds) = crate::segment::inject::quarantine_seconds() {
        return seconds;
    }
    QUARANTINE_SECONDS
}

/// Gives one long-free run back to the system, if much is free. Tells whether there may be more to do.
pub(crate) fn punch_step(w: &mut Writer) -> Result<bool> {
    let free = w.segment.load(header::FREE_BACKED);
    let used = w.segment.load(header::USED_PAGES);
    if free < PUNCH_STEP as u64 || free < used / 16 {
        return Ok(false);
    }
    let now = time::coarse_seconds();
    if long_free(w, now).is_none() {
        return Ok(false);
    }
    custody::make_reserve_room(w)?;
    // Here others may change all that was found.
    #[cfg(test)]
    std::thread::sleep(std::time::Duration::from_micros(50));
    let taken = w.mini(|w| {
        w.lock(header::PAGE_LOCK, Rank::Page)?;
        // Not what was found before: that may be in the middle of another run by now, and its head is still what it was.
        let Some((page, n)) = long_free(w, now) else { return Ok(None) };
        let pages = head_of(w, page).number();
        carve(w, Found { page, pages, unbacked: false }, n, Purpose::Record)?;
        w.put(descriptor(page), Head::run(n, Purpose::Record, false, true).0);
        let cell = custody::put_in_reserve(w, page.offset())?;
        Ok(Some((page, n, cell)))
    })?;
    let Some((page, n, cell)) = taken else { return Ok(false) };
    let punched = punch(w, page, n)?;
    w.mini(|w| {
        w.lock(header::PAGE_LOCK, Rank::Page)?;
        release(w, page, n, punched)?;
        w.put(cell, 0);
        Ok(())
    })?;
    Ok(punched)
}

/// Has what became free then been so for the whole quarantine? What became free much later than now did so before the
/// machine was started anew; what did so a little later, while another process went on into the next second.
fn has_rested(freed_at: u64, now: u64) -> bool {
    now.abs_diff(freed_at) >= quarantine_seconds()
}

/// A backed run, or the part of one, that has been free for the whole quarantine.
fn long_free(w: &Writer, now: u64) -> Option<(Page, u32)> {
    for b in (bin(PUNCH_PAGES)..BINS).rev() {
        let mut page = Page(w.word(header::free_list(b, false)) as u32);
        for _ in 0..LOOKED_AT {
            if page == Page::NONE {
                break;
            }
            let head = head_of(w, page);
            if head.kind() != pages::FREE || !lies_inside(w, page, head.number()) {
                break;
            }
            let freed_at = w.word(descriptor(page).word(2));
            if has_rested(freed_at, now) && head.number() >= PUNCH_PAGES {
                return Some((page, head.number().min(PUNCH_STEP)));
            }
            page = Links(w.word(descriptor(page).word(1))).next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Patience;
    use crate::object::{ManageOptions, OpenOptions};

    /// The quarantine is the process's: tests that change it, or count on it, run one after another.
    static QUARANTINE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// Goal: what one thread wants to give back and another one merges, or takes, just before is not given back as it was. Method: a
    /// thread that gives back without a pause, others that change what is free; the checker.
    #[cfg(feature = "inject")]
    #[test]
    fn what_is_merged_meanwhile_is_not_given_back() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let _alone = QUARANTINE.lock().expect("the other one has passed");
        crate::segment::inject::set_quarantine_seconds(0);
        let object = OpenOptions::new().anonymous().expect("memory");
        let hash_table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table");
        let ended = AtomicBool::new(false);
        let changes = |thread: u64| {
            let mut random = thread + 1;
            for _ in 0..20_000 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let key = [thread as u8, (random >> 33) as u8 % 64];
                let len = (1 << ((random >> 40) % 8)) * (1000 + (random >> 48) as usize % 1000);
                hash_table.replace(&key, &vec![key[1]; len]).expect("replaces");
            }
        };
        std::thread::scope(|threads| {
            let others: Vec<_> = (0..3).map(|thread| threads.spawn(move || changes(thread))).collect();
            threads.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let mut entered = hash_table.table.engine.enter(Patience::FOR_EVER).expect("enters");
                    punch_step(&mut entered.writer(Patience::FOR_EVER)).expect("gives back");
                }
            });
            let outcomes: Vec<_> = others.into_iter().map(|other| other.join()).collect();
            ended.store(true, Ordering::Relaxed);
            outcomes.into_iter().for_each(|outcome| outcome.expect("ends"));
        });
        crate::segment::inject::set_quarantine_seconds(u64::MAX);
        object.check(|finding| panic!("{finding:?}")).expect("is in order");
    }

    /// Goal: memory that became free before the machine was started anew, by a clock that has begun anew as well, goes back to the
    /// system. Method: free runs are given a time that is still to come.
    #[test]
    fn what_became_free_before_a_new_start_goes_back() {
        let _alone = QUARANTINE.lock().expect("the other one has passed");
        let object = OpenOptions::new().anonymous().expect("memory");
        let hash_table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table");
        for n in 0..8u8 {
            hash_table.add(&[n], &vec![n; 4 << 20]).expect("adds");
        }
        for n in 0..8u8 {
            assert_eq!(hash_table.remove(&[n]), Ok(true));
        }
        let mut entered = hash_table.table.engine.enter(Patience::FOR_EVER).expect("enters");
        let mut w = entered.writer(Patience::FOR_EVER);
        let backed = w.segment.load(header::FREE_BACKED);
        assert_eq!(punch_step(&mut w), Ok(false), "all is fresh");
        let set_free_in = |w: &Writer, seconds: u64| {
            let mut runs = 0;
            for b in 0..BINS {
                let mut page = Page(w.word(header::free_list(b, false)) as u32);
                while page != Page::NONE {
                    w.segment.store(descriptor(page).word(2), time::coarse_seconds() + seconds);
                    page = Links(w.word(descriptor(page).word(1))).next();
                    runs += 1;
                }
            }
            assert!(runs > 0);
        };
        set_free_in(&w, 2);
        assert_eq!(punch_step(&mut w), Ok(false), "somebody has just freed it");
        set_free_in(&w, 1_000_000);
        while punch_step(&mut w).expect("gives back") {}
        assert!(w.segment.load(header::FREE_BACKED) < backed / 2);
    }
}
