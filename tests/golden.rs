//! Goal: objects that earlier versions of the library have made are read, checked and changed by this one. Method: the
//! words of such objects, as text, one file for each format version and hash function; see "Versions" in docs/design.md.
//!
//! A file has the line `size BYTES` and lines `OFFSET WORD WORD ...`: words in hexadecimal digits, from an offset in
//! such digits on; all other words are 0. Lines that begin with # are comments.

mod support_processes;

use netshm::{
    Array, HashTable, KeyHashing, Locking, ManageOptions, Name, Object, OpenOptions, PrimitiveTable,
    TypedArray, TypedHashTable,
};
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support_processes::*;

type Ages = TypedHashTable<String, (i64, Option<String>)>;
type Seats = TypedArray<Option<String>>;

/// So many that the table has grown and has buckets with overflow lines.
const KEYS: u32 = 270;
const LONG: usize = 40_000;

/// What each object holds.
struct Tables {
    object: Object,
    main: HashTable,
    ages: Ages,
    words: PrimitiveTable,
    numbers: Array,
    seats: Seats,
}

impl Tables {
    fn open(object: Object) -> Tables {
        let of = |name: &str| ManageOptions::new().root(name).clone();
        Tables {
            main: HashTable::manage(&object, &ManageOptions::new()).expect("manages"),
            ages: Ages::manage(&object, &of("ages")).expect("manages"),
            words: PrimitiveTable::manage(&object, &of("words")).expect("manages"),
            numbers: Array::manage_i64(&object, -7, 5000, &of("numbers")).expect("manages"),
            seats: Seats::manage(&object, &Some("nobody".into()), 100, &of("seats")).expect("manages"),
            object,
        }
    }

    fn fill(&self) {
        for key in 0..KEYS {
            self.main.add(&key.to_le_bytes(), b"").expect("adds");
        }
        for value in [&b"oldest"[..], b"older", b"newest"] {
            self.main.add(b"stack", value).expect("adds");
        }
        self.main.add(b"long", &long_value()).expect("adds");
        self.main.add(b"removed", b"").expect("adds");
        self.main.remove(b"removed").expect("removes");
        self.main.increment(b"count", 41, 1).expect("counts");
        self.ages.add("Ada", &(36, None)).expect("adds");
        self.ages.add("Grace", &(85, Some("Hopper".into()))).expect("adds");
        self.words.add(-5, &[1, -2, 3]).expect("adds");
        self.words.add(-5, &[]).expect("adds");
        self.words.add(7, &[i32::MIN, i32::MAX]).expect("adds");
        self.numbers.set_i64(0, i64::MIN).expect("sets");
        self.numbers.set_i64(4999, 77).expect("sets");
        self.seats.set(3, &Some("Ada".into())).expect("sets");
        self.seats.set(99, &None).expect("sets");
    }

    fn verify(&self) {
        for key in 0..KEYS {
            assert_eq!(
                self.main.find(&key.to_le_bytes()).expect("finds").as_deref(),
                Some(&b""[..]),
                "{key}"
            );
        }
        let stack = [b"newest".to_vec(), b"older".to_vec(), b"oldest".to_vec()];
        assert_eq!(self.main.find_all(b"stack").expect("finds"), stack);
        assert!(self.main.find(b"long").expect("finds") == Some(long_value()));
        assert_eq!(self.main.find(b"removed"), Ok(None));
        assert_eq!(self.main.find(b"count").expect("finds").as_deref(), Some(&42u64.to_le_bytes()[..]));
        assert_eq!(self.main.len(), Ok(u64::from(KEYS) + 5));
        assert_eq!(self.main.iter().filter(Result::is_ok).count() as u32, KEYS + 5);
        assert_eq!(self.ages.find("Ada"), Ok(Some((36, None))));
        assert_eq!(self.ages.find("Grace"), Ok(Some((85, Some("Hopper".into())))));
        assert_eq!(self.ages.len(), Ok(2));
        assert_eq!(self.words.find_all(-5), Ok(vec![vec![], vec![1, -2, 3]]));
        assert_eq!(self.words.find(7), Ok(Some(vec![i32::MIN, i32::MAX])));
        assert_eq!(self.words.len(), Ok(3));
        assert_eq!((self.numbers.length(), self.numbers.get_i64(0)), (Ok(5000), Ok(i64::MIN)));
        assert_eq!((self.numbers.get_i64(1), self.numbers.get_i64(4999)), (Ok(-7), Ok(77)));
        assert_eq!((self.seats.get(3), self.seats.get(99)), (Ok(Some("Ada".into())), Ok(None)));
        assert_eq!((self.seats.get(4), self.seats.length()), (Ok(Some("nobody".into())), Ok(100)));
        let summary = check_object(&self.object);
        assert_eq!((summary.tables, summary.overflow_lines > 0), (5, true));
    }

    /// Every table can be changed, and is what it was when the changes are undone.
    fn change(&self) {
        for key in KEYS..2 * KEYS {
            self.main.add(&key.to_le_bytes(), b"new").expect("adds");
        }
        self.ages.add("Alan", &(41, None)).expect("adds");
        self.words.add(8, &[8]).expect("adds");
        self.numbers.set_i64(2500, 1).expect("sets");
        check_object(&self.object);
        for key in KEYS..2 * KEYS {
            assert_eq!(self.main.remove(&key.to_le_bytes()), Ok(true));
        }
        assert_eq!((self.ages.remove("Alan"), self.words.remove(8)), (Ok(true), Ok(true)));
    }
}

fn long_value() -> Vec<u8> {
    let mut value = vec![0; LONG];
    value[..5].copy_from_slice(b"begin");
    value[LONG - 3..].copy_from_slice(b"end");
    value
}

fn scratch() -> (Scratch, PathBuf) {
    let s = Scratch::file(Path::new("/dev/shm"), "golden");
    let Name::File(path) = &s.0 else { unreachable!("it is a file") };
    let path = path.clone();
    (s, path)
}

/// Writes an object from its text.
fn restore(text: &str, path: &Path) {
    let file = File::create_new(path).expect("creates");
    let hex = |digits: &str| u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{digits}: {e}"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ').expect("two parts") {
            ("size", bytes) => file.set_len(bytes.parse().expect("a number")).expect("sets the length"),
            (offset, words) => {
                let bytes: Vec<u8> = words.split(' ').flat_map(|word| hex(word).to_le_bytes()).collect();
                file.write_all_at(&bytes, hex(offset)).expect("writes");
            }
        }
    }
}

/// The text of an object.
fn dump(bytes: &[u8]) -> String {
    let mut text = format!("# Made by netshm {}.\nsize {}\n", env!("CARGO_PKG_VERSION"), bytes.len());
    for (n, line) in bytes.chunks(64).enumerate() {
        let words: Vec<u64> =
            line.chunks(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes"))).collect();
        let Some(last) = words.iter().rposition(|word| *word != 0) else { continue };
        let first = words.iter().position(|word| *word != 0).unwrap_or(0);
        write!(text, "{:x}", n * 64 + first * 8).expect("fits");
        words[first..=last].iter().for_each(|word| write!(text, " {word:x}").expect("fits"));
        text.push('\n');
    }
    text
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Makes the objects of this library's format version, unless they are there.
fn make() {
    for (hashing, locking, name) in
        [(KeyHashing::Fast, Locking::Futex, "xxh3"), (KeyHashing::Keyed, Locking::Record, "siphash")]
    {
        let (s, path) = scratch();
        stage(60, || {
            let object = OpenOptions::new().create(true).open(&s.0).expect("opens");
            let options = ManageOptions::new().hashing(hashing).locking(locking).clone();
            HashTable::manage(&object, &options).expect("manages");
            Tables::open(object).fill();
        });
        let bytes = fs::read(&path).expect("reads");
        // Whoever closes it in order marks it clean, so that it may be carried to another machine.
        assert_eq!(bytes[4096 + 16..4096 + 24], bytes[4096 + 24..4096 + 32]);
        let version = bytes[8];
        let golden = directory().join(format!("format{version}-{name}.txt"));
        if golden.exists() {
            say(&format!("{} is there and stays as it is\n", golden.display()));
        } else {
            fs::write(golden, dump(&bytes)).expect("writes");
        }
    }
}

#[test]
fn objects_of_all_format_versions_are_understood() {
    let _alone = alone();
    if std::env::var("NETSHM_GOLDEN").is_ok_and(|what| what == "make") {
        make();
    }
    let mut seen = 0;
    for entry in fs::read_dir(directory()).expect("lists") {
        let golden = entry.expect("lists").path();
        let text = fs::read_to_string(&golden).expect("reads");
        let (s, path) = scratch();
        restore(&text, &path);
        let before = fs::read(&path).expect("reads");
        stage(60, || {
            Tables::open(OpenOptions::new().read_only(true).open(&s.0).expect("opens")).verify();
        });
        assert!(fs::read(&path).expect("reads") == before, "{} was changed by reading", golden.display());
        stage(60, || {
            let tables = Tables::open(OpenOptions::new().open(&s.0).expect("opens"));
            tables.verify();
            tables.change();
            let main = &tables.main;
            assert_eq!(main.len(), Ok(u64::from(KEYS) + 5));
            check_object(&tables.object);
        });
        seen += 1;
    }
    assert!(seen >= 2, "there are {seen} objects");
}
