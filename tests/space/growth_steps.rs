//! Goal: POSIX memory on a /dev/shm that is full, whatever the step of growth that is the first to find no memory: an error, nothing
//! is lost, and the same handles work on when there is space again.
//!
//! Method: tables, arrays, named tables and groups beside a model, on a /dev/shm of the child's own: each size of it from one
//! page on, both lockings. The binary's own `fallocate64` tells what the object asks for, so that it is known which steps a
//! run without a limit takes, and that each of them was once the first to be refused.

use super::{Model, compare, key, mixed, value};
use crate::support_processes::*;
use netshm::{Array, Error, HashTable, Locking, ManageOptions, Name, Object, OpenOptions};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const SHM: &str = "/dev/shm";
const PAGE: u64 = 4096;
/// Space in abundance.
const AMPLE: u64 = 64 << 20;

/// The steps by which an object has grown, each by the pages that it had before.
struct Growth {
    steps: Vec<u64>,
    refused: Option<u64>,
}

static GROWTH: Mutex<Option<Growth>> = Mutex::new(None);

/// What the library calls: the system's, but for the book that is kept.
#[unsafe(no_mangle)]
extern "C" fn fallocate64(fd: i32, mode: i32, offset: i64, len: i64) -> i32 {
    let mut growth = GROWTH.lock().expect("no panic in here");
    let before = pages_of(fd);
    // SAFETY: the call reads and writes no memory of this process.
    let outcome = unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, len) } as i32;
    // SAFETY: this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(growth) = growth.as_mut().filter(|_| mode == 0) {
        if outcome == 0 && pages_of(fd) > before {
            growth.steps.push(before);
        } else if outcome != 0 && errno == libc::ENOSPC {
            growth.refused.get_or_insert(before);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    outcome
}

/// Pages of memory that a file has.
fn pages_of(fd: i32) -> u64 {
    // SAFETY: the structure is plain data, and lives during the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(fd, &raw mut stat), 0, "looks");
        stat.st_blocks as u64 * 512 / PAGE
    }
}

/// Something to do; by turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Small,
    Mixed,
    Replace,
    Remove,
    Numbers,
    Texts,
    Named,
    Group,
}

use Step::*;

/// Small values alone fill slab after slab; the other work meets all kinds of runs.
const WORKS: [&[Step]; 2] = [
    &[Small],
    &[
        Small, Mixed, Numbers, Named, Texts, Group, Small, Replace, Named, Mixed, Numbers, Named, Remove,
        Texts,
    ],
];

/// What an object holds.
#[derive(Default)]
struct Holdings {
    main: Model,
    named: Option<Model>,
    numbers: Option<Vec<i64>>,
    texts: Option<Vec<Vec<u8>>>,
}

/// Handles to all that an object holds.
struct Handles {
    object: Object,
    main: HashTable,
    named: Option<HashTable>,
    numbers: Option<Array>,
    texts: Option<Array>,
}

fn root(name: &str) -> ManageOptions {
    ManageOptions::new().root(name).clone()
}

fn manage_numbers(object: &Object) -> Result<Array, Error> {
    Array::manage_i64(object, -7, 100, &root("numbers"))
}

fn manage_texts(object: &Object) -> Result<Array, Error> {
    Array::manage_bytes(object, b"none", 40, &root("texts"))
}

impl Handles {
    fn new(object: Object, main: HashTable) -> Handles {
        Handles { object, main, named: None, numbers: None, texts: None }
    }

    /// Those of somebody who comes later.
    fn of(name: &Name, holdings: &Holdings) -> Handles {
        let object = OpenOptions::new().open(name).expect("opens");
        let main = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
        let is_there = "manages what is there";
        let named = holdings.named.as_ref();
        let named = named.map(|_| HashTable::manage(&object, &root("named")).expect(is_there));
        let numbers = holdings.numbers.as_ref().map(|_| manage_numbers(&object).expect(is_there));
        let texts = holdings.texts.as_ref().map(|_| manage_texts(&object).expect(is_there));
        Handles { object, main, named, numbers, texts }
    }

    /// Does the n-th thing, or nothing.
    fn work(&mut self, steps: &[Step], n: u64, holdings: &mut Holdings) -> Result<(), Error> {
        let (key, turn) = (key(n), n / steps.len() as u64);
        match steps[n as usize % steps.len()] {
            Small => add(&self.main, &mut holdings.main, key, value(n, [8, 40, 200][n as usize % 3])),
            Mixed => add(&self.main, &mut holdings.main, key, value(n, mixed(turn))),
            Replace => {
                let Some(key) = some_key(&holdings.main, n) else { return Ok(()) };
                let new = value(n, [300, 8, 2000, 40][turn as usize % 4]);
                self.main.replace(&key, &new)?;
                holdings.main.insert(key, new);
                Ok(())
            }
            Remove => {
                let Some(key) = some_key(&holdings.main, n) else { return Ok(()) };
                assert!(self.main.remove(&key).expect("removing needs no space"));
                holdings.main.remove(&key);
                Ok(())
            }
            Numbers => self.numbers(n, holdings),
            Texts => self.texts(n, mixed(turn), holdings),
            Named => self.named(n, turn, holdings),
            Group => self.group(n, holdings),
        }
    }

    fn numbers(&mut self, n: u64, holdings: &mut Holdings) -> Result<(), Error> {
        let (Some(array), Some(held)) = (&self.numbers, &mut holdings.numbers) else {
            self.numbers = Some(manage_numbers(&self.object)?);
            holdings.numbers = Some(vec![-7; 100]);
            return Ok(());
        };
        if n % 2 == 0 {
            let length = held.len() + 300;
            array.resize(length as u64)?;
            held.resize(length, -7);
        } else {
            let at = n as usize * 7919 % held.len();
            array.set_i64(at as u64, n as i64)?;
            held[at] = n as i64;
        }
        Ok(())
    }

    fn texts(&mut self, n: u64, len: usize, holdings: &mut Holdings) -> Result<(), Error> {
        let (Some(array), Some(held)) = (&self.texts, &mut holdings.texts) else {
            self.texts = Some(manage_texts(&self.object)?);
            holdings.texts = Some(vec![b"none".to_vec(); 40]);
            return Ok(());
        };
        let (at, new) = (n as usize % held.len(), value(n, len));
        array.set(at as u64, &new)?;
        held[at] = new;
        Ok(())
    }

    /// A named table comes, is filled, and goes.
    fn named(&mut self, n: u64, turn: u64, holdings: &mut Holdings) -> Result<(), Error> {
        let (Some(table), Some(held)) = (&self.named, &mut holdings.named) else {
            self.named = Some(HashTable::manage(&self.object, &root("named"))?);
            holdings.named = Some(Model::new());
            return Ok(());
        };
        if turn % 3 < 2 || held.is_empty() {
            return add(table, held, key(n), value(n, 500));
        }
        self.object.drop_table("named").expect("dropping needs no space");
        (self.named, holdings.named) = (None, None);
        Ok(())
    }

    /// All tables in one group, which happens or does not.
    fn group(&self, n: u64, holdings: &mut Holdings) -> Result<(), Error> {
        let gone = some_key(&holdings.main, n);
        let numbers = self.numbers.as_ref().zip(holdings.numbers.as_mut());
        let texts = self.texts.as_ref().zip(holdings.texts.as_mut());
        let named = self.named.as_ref().zip(holdings.named.as_mut());
        let slice: Vec<i64> = (0..64).map(|i| i + n as i64).collect();
        let bytes: Vec<u8> = slice.iter().flat_map(|i| i.to_le_bytes()).collect();
        let (key, long, short) = (key(n), value(n, 5000), value(n, 30));
        self.main.table().group_retry(Some(Duration::from_secs(10)), || -> Result<(), Error> {
            if let Some(gone) = &gone {
                self.main.remove(gone)?;
            }
            self.main.add(&key, &short)?;
            numbers.as_ref().map_or(Ok(()), |(array, held)| array.write(held.len() as u64 - 64, &bytes))?;
            texts.as_ref().map_or(Ok(()), |(array, _)| array.set(n % 40, &long))?;
            named.as_ref().map_or(Ok(()), |(table, _)| table.add(&key, &short))
        })?;
        gone.map(|gone| holdings.main.remove(&gone));
        if let Some((_, held)) = numbers {
            let at = held.len() - 64;
            held[at..].copy_from_slice(&slice);
        }
        if let Some((_, held)) = texts {
            held[n as usize % 40] = long;
        }
        if let Some((_, held)) = named {
            held.insert(key.clone(), short.clone());
        }
        holdings.main.insert(key, short);
        Ok(())
    }

    /// The object holds just that, and the checker is content.
    fn compare(&self, name: &Name, holdings: &Holdings, when: &str) {
        compare(&self.main, name, &holdings.main, when);
        if let (Some(table), Some(held)) = (&self.named, &holdings.named) {
            let found: Model = table.iter().collect::<Result<_, _>>().expect("reads");
            assert!(found == *held, "{when}: the named table");
        }
        if let (Some(array), Some(held)) = (&self.numbers, &holdings.numbers) {
            let held: Vec<_> = held.iter().map(|n| n.to_le_bytes().to_vec()).collect();
            assert!(elements(array) == held, "{when}: numbers");
        }
        if let (Some(array), Some(held)) = (&self.texts, &holdings.texts) {
            assert!(elements(array) == *held, "{when}: texts");
        }
        let mut tables: Vec<String> =
            self.object.tables().expect("lists").into_iter().filter_map(|table| table.name).collect();
        tables.sort();
        let held = [
            ("named", holdings.named.is_some()),
            ("numbers", holdings.numbers.is_some()),
            ("texts", holdings.texts.is_some()),
        ];
        assert!(
            held.iter().filter(|(_, is)| *is).map(|(name, _)| *name).eq(tables.iter()),
            "{when}: {tables:?}"
        );
    }
}

fn add(t: &HashTable, model: &mut Model, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
    t.add(&key, &value)?;
    model.insert(key, value);
    Ok(())
}

/// All elements, those that were never set as well.
fn elements(array: &Array) -> Vec<Vec<u8>> {
    let length = array.length().expect("has a length") as usize;
    let mut all = vec![array.default_value().expect("has a default"); length];
    for element in array.iter() {
        let (at, element) = element.expect("reads");
        all[at as usize] = element;
    }
    all
}

/// One of the keys that are there.
fn some_key(model: &Model, n: u64) -> Option<Vec<u8>> {
    let from = key(n.wrapping_mul(0x9e37_79b9) % (n + 1));
    model.range(from..).next().or(model.first_key_value()).map(|(key, _)| key.clone())
}

/// What a case tells, in words that outlive its process.
const SKIPPED: usize = 0;
/// Pages before the first step that was refused, and when a call was first refused; both and one.
const STEP_REFUSED: usize = 1;
const CALL_REFUSED: usize = 2;
/// Things done before.
const DONE: usize = 3;
/// The object's length in pages in the end.
const LENGTH: usize = 4;
/// A bit for each sort of thing that was refused.
const SORTS_REFUSED: usize = 5;
/// The number of steps, and from here on each.
const STEPS: usize = 6;
const MOST_STEPS: usize = 2000;

/// Things are done until a call is refused, on a device that is full then; and more, with space again. Without limit: until the
/// object has more pages than `most`.
struct Case<'a> {
    name: &'a Name,
    locking: Locking,
    steps: &'static [Step],
    pages: Option<u64>,
    most: u64,
}

impl Case<'_> {
    fn run(&self, told: &Shared) {
        if !device_at(Path::new(SHM), self.pages.map_or(AMPLE, |pages| pages * PAGE)) {
            told.set(SKIPPED, 1);
            return;
        }
        *GROWTH.lock().expect("no panic in there") = Some(Growth { steps: Vec::new(), refused: None });
        self.fill_and_go_on(told);
        let growth = GROWTH.lock().expect("no panic in there").take().expect("is kept");
        told.set(STEP_REFUSED, growth.refused.map_or(0, |pages| pages + 1));
        if self.pages.is_none() {
            told.set(STEPS, growth.steps.len() as u64);
            growth.steps.iter().enumerate().for_each(|(i, pages)| told.set(STEPS + 1 + i, *pages));
        }
    }

    fn fill_and_go_on(&self, told: &Shared) {
        let mut holdings = Holdings::default();
        let Some(mut handles) = self.create(told) else { return };
        let mut n = 0;
        loop {
            if self.pages.is_none() && self.pages_now() > self.most {
                told.set(LENGTH, handles.object.size().expect("has a size") / PAGE);
                return handles.compare(self.name, &holdings, "without limit");
            }
            if !self.try_next(&mut handles, n, &mut holdings, told) {
                break;
            }
            n += 1;
            assert!(n < 1_000_000, "that never ends");
        }
        told.set(DONE, n);
        told.set(CALL_REFUSED, self.pages_now() + 1);
        handles.compare(self.name, &holdings, "refused");
        // What fits still is there, and what does not is not.
        for n in n..n + 3 * self.steps.len() as u64 {
            self.try_next(&mut handles, n, &mut holdings, told);
        }
        handles.compare(self.name, &holdings, "full");
        assert!(resize_device(Path::new(SHM), AMPLE), "remounts");
        self.go_on(&mut handles, n + 1_000_000, &mut holdings);
    }

    /// Does the n-th thing. False: there is no space for it.
    fn try_next(&self, handles: &mut Handles, n: u64, holdings: &mut Holdings, told: &Shared) -> bool {
        let Err(e) = handles.work(self.steps, n, holdings) else { return true };
        assert_eq!(e, Error::NoSpace, "thing {n}");
        let sort = self.steps[n as usize % self.steps.len()];
        told.set(SORTS_REFUSED, told.get(SORTS_REFUSED) | 1 << sort as u64);
        false
    }

    /// Makes the object and its first table, with more space in the end if need be: then there is nothing left to do.
    fn create(&self, told: &Shared) -> Option<Handles> {
        let options = ManageOptions::new().locking(self.locking).clone();
        let open = || OpenOptions::new().create(true).open(self.name);
        let object = open();
        let main = object.clone().and_then(|object| HashTable::manage(&object, &options));
        let refusal = match main {
            Ok(main) => return Some(Handles::new(object.expect("it has a table"), main)),
            Err(e) => e,
        };
        assert_eq!(refusal, Error::NoSpace, "creates");
        told.set(CALL_REFUSED, self.pages_now() + 1);
        match &object {
            Ok(object) => {
                assert_eq!(HashTable::manage(object, &options).err(), Some(Error::NoSpace), "once more");
                check_object(object);
            }
            Err(_) => assert_eq!(open().err(), Some(Error::NoSpace), "once more"),
        }
        assert!(resize_device(Path::new(SHM), AMPLE), "remounts");
        let object = object.as_ref().cloned().or_else(|_| open()).expect("opens with space");
        let main = HashTable::manage(&object, &options).expect("manages with space");
        self.go_on(&mut Handles::new(object, main), 0, &mut Holdings::default());
        None
    }

    /// With space again everything goes, by the same handles; and others see it.
    fn go_on(&self, handles: &mut Handles, first: u64, holdings: &mut Holdings) {
        handles.compare(self.name, holdings, "with space again");
        for n in first..first + 10 * self.steps.len() as u64 {
            let outcome = handles.work(self.steps, n, holdings);
            outcome.unwrap_or_else(|e| panic!("thing {n} with space again: {e}"));
        }
        handles.compare(self.name, holdings, "gone on");
        fork(30, || Handles::of(self.name, holdings).compare(self.name, holdings, "seen by another"))
            .succeeds();
    }

    /// Pages of memory that the object has.
    fn pages_now(&self) -> u64 {
        let Name::Posix { mem, .. } = self.name else { unreachable!() };
        let path = Path::new(SHM).join(mem.to_str().expect("is UTF-8").trim_start_matches('/'));
        if path.exists() { blocks(&path).0 * 512 / PAGE } else { 0 }
    }
}

#[test]
fn posix_memory_is_full_at_every_page_and_works_on() {
    let _alone = alone();
    // The second segment begins at page 1024.
    let sizes = if long_form() { vec![1..=240, 980..=1060] } else { vec![1..=160] };
    let most = *sizes[sizes.len() - 1].end();
    for (work, steps) in WORKS.into_iter().enumerate() {
        for locking in [Locking::Futex, Locking::Record] {
            let case = |pages| {
                let (s, told) = (Scratch::posix("shm-full"), Shared::new(STEPS + 1 + MOST_STEPS));
                fork(60, || Case { name: &s.0, locking, steps, pages, most }.run(&told)).succeeds();
                told
            };
            let unlimited = case(None);
            if unlimited.get(SKIPPED) == 1 {
                skip("space: a /dev/shm in a mount namespace of its own is not permitted here");
                return;
            }
            let taken: BTreeSet<u64> =
                (0..unlimited.get(STEPS) as usize).map(|i| unlimited.get(STEPS + 1 + i)).collect();
            let is_swept = |pages: &u64| sizes.iter().any(|range| range.contains(pages));
            let taken: BTreeSet<u64> = taken.into_iter().filter(is_swept).collect();
            let (mut refused, mut calls) = (BTreeSet::new(), BTreeSet::new());
            let (mut without_table, mut sorts) = (0, 0);
            for pages in sizes.iter().cloned().flatten() {
                let told = case(Some(pages));
                assert!(told.get(STEP_REFUSED) * told.get(CALL_REFUSED) > 0, "{pages} pages were enough");
                refused.insert(told.get(STEP_REFUSED) - 1);
                calls.insert(told.get(CALL_REFUSED) - 1);
                sorts |= told.get(SORTS_REFUSED);
                without_table += u64::from(told.get(DONE) == 0);
            }
            let never: Vec<&u64> = taken.difference(&refused).collect();
            assert!(never.is_empty(), "steps from so many pages on never were the first refused: {never:?}");
            // Nothing fits a device that the object has filled, but for what the object has still free.
            let never: Vec<&u64> = taken.difference(&calls).collect();
            assert!(never.is_empty(), "an object of so many pages never refused anything: {never:?}");
            let need_space = steps.iter().filter(|sort| **sort != Remove);
            let never: Vec<&Step> = need_space.filter(|sort| sorts & 1 << **sort as u64 == 0).collect();
            assert!(never.is_empty(), "never refused: {never:?}");
            assert!(0 < without_table && without_table < most, "creation and growth both ran out of space");
            let length = unlimited.get(LENGTH);
            assert!(!long_form() || length > 1024, "the second segment was not reached");
            say(&format!(
                "work {work}, {locking:?}: {sizes:?} pages of /dev/shm ({without_table} without room for anything), \
                 the object up to {length} pages long: {} steps of growth without limit, all of them once the first \
                 refused; steps refused first at {} sizes of the object, calls at {}\n",
                taken.len(),
                refused.len(),
                calls.len(),
            ));
        }
    }
}
