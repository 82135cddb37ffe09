//! Goal: a file that was cut is refused by its own error, for writing and for reading, and nothing in it is changed; an
//! object at work, whose file grows and whose end may have no memory, never is.
//!
//! Method: objects of several shapes are copied and cut at places that hurt and at some that do not; the bytes are
//! compared. Then an object is opened again and again while others let it grow, and are killed.

mod support_processes;

use netshm::check::Summary;
use netshm::{Array, Error, HashTable, ManageOptions, Name, Object, OpenOptions};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support_processes::*;

const PAGE: u64 = 4096;

fn scratch(tag: &str) -> (Scratch, PathBuf) {
    let s = Scratch::file(Path::new("/dev/shm"), tag);
    let Name::File(path) = &s.0 else { unreachable!("it is a file") };
    let path = path.clone();
    (s, path)
}

/// Number of pages that an object counts as used.
fn used_pages(path: &Path) -> u64 {
    let mut word = [0; 8];
    File::open(path).expect("opens").read_exact_at(&mut word, 4 * PAGE + 64).expect("reads");
    u64::from_le_bytes(word)
}

/// How an attempt to use an object ends: opened, its table looked up, a binding changed.
fn attempt(name: &Name, read_only: bool) -> Result<(), Error> {
    let object = OpenOptions::new().read_only(read_only).open(name)?;
    let t = HashTable::manage(&object, &ManageOptions::new())?;
    if read_only { t.find(b"new").map(drop) } else { t.replace(b"new", b"value") }
}

fn is_truncated<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(e @ Error::Corrupt { .. }) if e.to_string().contains("truncated file"))
}

/// Copies the object, as long as said, and tells how opening it ends, for writing and for reading. If it is refused,
/// the bytes are still the same.
fn open_cut(path: &Path, len: u64) -> bool {
    let (s, copy) = scratch("cut");
    let mut bytes = std::fs::read(path).expect("reads");
    bytes.truncate(len as usize);
    std::fs::write(&copy, &bytes).expect("writes the copy");
    let mut ends = [true, false].map(|read_only| attempt(&s.0, read_only));
    if ends.iter().any(Result::is_err) {
        for end in &ends {
            assert!(is_truncated(end), "{} pages and {} bytes: {end:?}", len / PAGE, len % PAGE);
        }
        assert!(std::fs::read(&copy).expect("reads") == bytes, "it was changed");
        // The same for memory with a name in a table of its own, and by a descriptor.
        let fd = File::options().read(true).write(true).open(&copy).expect("opens");
        ends[0] = OpenOptions::new().from_fd(fd.into()).map(drop);
        ends[1] = OpenOptions::new().truncate(true).open(&s.0).map(drop);
        assert!(ends.iter().all(is_truncated), "{ends:?}");
        assert!(std::fs::read(&copy).expect("reads") == bytes, "it was changed");
        return false;
    }
    check(&s.0);
    true
}

/// Cuts an object whose last page has memory at many places, none of which can be had without.
fn every_cut_is_refused(path: &Path) {
    let used = used_pages(path);
    let size = std::fs::metadata(path).expect("exists").len();
    assert!(open_cut(path, size), "as it is");
    let mut cuts: Vec<u64> =
        [used - 1, used - 2, used - 3, used * 3 / 4, used / 2, 33, 32].map(|n| n * PAGE).into();
    cuts.extend([1, 63, 64, 4095].map(|bytes| used * PAGE - bytes));
    for len in cuts {
        assert!(!open_cut(path, len), "cut to {} of {used} pages and {} bytes", len / PAGE, len % PAGE);
    }
}

/// Goal: an object of long values, of which each is a run of pages, is refused wherever it is cut.
#[test]
fn a_cut_in_runs_of_records_is_seen() {
    let _alone = alone();
    let (s, path) = scratch("runs");
    stage(60, || {
        let t = s.open();
        for n in 0..300u32 {
            t.add(&n.to_le_bytes(), &vec![n as u8; 30_000]).expect("adds");
        }
    });
    every_cut_is_refused(&path);
}

/// The same for small bindings, in slabs.
#[test]
fn a_cut_in_slabs_is_seen() {
    let _alone = alone();
    let (s, path) = scratch("slabs");
    stage(60, || {
        let t = s.open();
        for n in 0..3000u32 {
            t.add(&n.to_le_bytes(), b"value").expect("adds");
        }
    });
    every_cut_is_refused(&path);
}

/// Goal: the end of an object may be a bucket array that has memory in part; what it has must be there.
#[test]
fn buckets_end_where_their_table_says() {
    let _alone = alone();
    let (s, path) = scratch("buckets");
    // Until the file is shorter than the pages that are counted, by much.
    stage(60, || {
        let t = s.open();
        for n in 0.. {
            t.add(&n.to_string().into_bytes(), b"v").expect("adds");
            if n % 64 == 0
                && (used_pages(&path) - 30) * PAGE > std::fs::metadata(&path).expect("exists").len()
            {
                break;
            }
        }
    });
    let (used, size) = (used_pages(&path), std::fs::metadata(&path).expect("exists").len());
    assert!(used * PAGE > size);
    assert!(open_cut(&path, size), "as it is");
    assert!(open_cut(&path, size + PAGE / 2), "longer than it must be");
    for cut in [1, 64, PAGE, 2 * PAGE, size / 2] {
        assert!(!open_cut(&path, size - cut), "{cut} bytes less, of {size}; {used} pages");
    }
}

/// The same for tables with names, and for such as are no more.
#[test]
fn buckets_of_all_tables_count() {
    let _alone = alone();
    for dropped in [false, true] {
        let (s, path) = scratch("named");
        stage(60, || {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            Array::manage_i64(&object, 0, 10, ManageOptions::new().root("first")).expect("manages");
            let t = HashTable::manage(&object, ManageOptions::new().root("second")).expect("manages");
            for n in 0.. {
                t.add(&n.to_string().into_bytes(), b"v").expect("adds");
                let size = std::fs::metadata(&path).expect("exists").len();
                if n % 64 == 0 && (used_pages(&path) - 30) * PAGE > size {
                    break;
                }
            }
            if dropped {
                object.drop_table("second").expect("drops");
            }
        });
        let size = std::fs::metadata(&path).expect("exists").len();
        let opens = |len| {
            let (cut, copy) = scratch("named-cut");
            std::fs::copy(&path, &copy).expect("copies");
            File::options().write(true).open(&copy).expect("opens").set_len(len).expect("cuts");
            OpenOptions::new().open(&cut.0).map(|object| check_object(&object))
        };
        assert!(matches!(opens(size), Ok(Summary { tables: 1 | 2, .. })));
        assert!(is_truncated(&opens(size - 1)), "{dropped}: {:?}", opens(size - 1));
    }
}

/// Goal: nobody is refused while an object grows, even if growing processes are killed. Method: it is opened as if for
/// the first time, with all handles gone between; those who let it grow add long and short bindings and tables.
#[test]
fn a_growing_object_is_never_refused() {
    let _alone = alone();
    let seconds = if long_form() { 60 } else { 6 };
    let (s, path) = scratch("growing");
    drop(s.open());
    let begin = Instant::now();
    let (mut opened, mut killed, mut short) = (0u64, 0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let grower = fork(seconds as u32 + 30, || grow(&s.0));
        let life = Duration::from_millis(100 + 37 * (killed % 11));
        let since = Instant::now();
        while since.elapsed() < life {
            let object = OpenOptions::new().read_only(opened % 2 == 0).open(&s.0);
            drop(object.unwrap_or_else(|e| panic!("refused after {opened} times: {e}")));
            opened += 1;
            short += u64::from(used_pages(&path) * PAGE > std::fs::metadata(&path).expect("exists").len());
        }
        assert_eq!(grower.kill(), End::Signal(libc::SIGKILL));
        killed += 1;
        if std::fs::metadata(&path).expect("exists").len() > 200 << 20 {
            Object::unlink(&s.0).expect("unlinks");
            drop(s.open());
        }
    }
    assert!(opened > 100 && short > 0, "{opened} {short}");
    check(&s.0);
    say(&format!(
        "opened {opened} times, {short} of them with an end without memory; killed {killed} who let it grow\n"
    ));
}

/// Lets an object grow in all ways, for ever.
fn grow(name: &Name) {
    let object = OpenOptions::new().open(name).expect("opens");
    let mut random = Random(u64::from(std::process::id()));
    for round in 0.. {
        let table = format!("{}", random.below(20));
        let t = HashTable::manage(&object, ManageOptions::new().root(&table)).expect("manages");
        for _ in 0..random.below(3000) {
            t.add(&random.next().to_le_bytes(), &[1; 40]).expect("adds");
        }
        t.add(b"long", &vec![7; random.below(100_000) as usize]).expect("adds");
        if round % 8 == 7 {
            let _ = object.drop_table(&table);
        }
    }
}
