//! What may be done to an object by bytes that an enemy chooses: a script says how the bytes of a valid object are
//! changed, before it is opened, between operations, and inside of callbacks, and which operations are made.
//!
//! The fuzzer (`fuzz/`), the tests on its finds (`tests/hostile_bytes.rs`) and the processes beside a hostile one
//! (`tests/hostile_peer.rs`) share it. It judges no answer: errors and wrong values are what bad bytes may lead to. What
//! must not happen is a panic, a fault, a loop without end, or memory without bound.
//!
//! A script: `image, flags, number of changes, changes, [pages], operations`. Where it ends, zeros follow, and the
//! operations end. Flags: 1 and 2 both: of an earlier boot; 4: cut to so many pages; 8: for reading only; 16: looked at and
//! saved afterwards; 32: operations try, and do not wait.

use netshm::{
    Array, BlockOp, HashTable, ManageOptions, Name, Object, OpenOptions, PrimitiveTable, Step, Transaction,
    Type, TypedArray, TypedHashTable, Update, Value,
};
use std::cell::Cell;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const PAGE: u64 = 4096;
/// Operations of a script beyond this number are not made.
const MOST_STEPS: usize = 48;
/// An object may not take more memory than this: what the operations store is a fraction of it.
const MOST_MEMORY: u64 = 256 << 20;
/// Items of an iteration that are looked at.
const MOST_ITEMS: usize = 3000;

type Ages = TypedHashTable<String, (i64, Option<String>)>;
type Seats = TypedArray<Option<String>>;

/// A valid object: its length and the words that are not 0.
pub struct Image {
    size: u64,
    words: Vec<(u64, u64)>,
    /// The same, by places that lie less than a page apart.
    runs: Vec<(u64, Vec<u8>)>,
}

const IMAGES: [&str; 5] = [
    include_str!("../golden/format1-xxh3.txt"),
    include_str!("../golden/format1-siphash.txt"),
    include_str!("images/checksums.txt"),
    include_str!("images/dead.txt"),
    include_str!("images/swept.txt"),
];

/// The objects that scripts begin with, by their numbers.
pub fn images() -> &'static [Image] {
    static PARSED: OnceLock<Vec<Image>> = OnceLock::new();
    PARSED.get_or_init(|| IMAGES.iter().map(|text| Image::parse(text)).collect())
}

impl Image {
    /// Reads the text; `tests/golden.rs` says what it looks like.
    pub fn parse(text: &str) -> Image {
        let hex = |digits: &str| u64::from_str_radix(digits, 16).expect("hexadecimal digits");
        let mut image = Image { size: 0, words: Vec::new(), runs: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ').expect("two parts") {
                ("size", bytes) => image.size = bytes.parse().expect("a number"),
                (offset, words) => {
                    let words = words.split(' ').map(hex).enumerate();
                    let start = hex(offset);
                    image.words.extend(words.map(|(n, word)| (start + 8 * n as u64, word)));
                }
            }
        }
        image.words.retain(|(_, word)| *word != 0);
        for (at, word) in &image.words {
            let near = image.runs.last_mut().filter(|(start, run)| at - start - (run.len() as u64) < PAGE);
            match near {
                Some((start, run)) => run.resize((at - *start) as usize, 0),
                None => image.runs.push((*at, Vec::new())),
            }
            image.runs.last_mut().expect("one").1.extend(word.to_le_bytes());
        }
        image
    }

    /// Writes the object to a new file.
    pub fn restore(&self, file: &File) {
        file.set_len(self.size).expect("sets the length");
        self.restore_words(file);
    }

    /// A place that means something, or near to one.
    pub fn place(&self, random: u64) -> u64 {
        let (near, _) = self.words[random as usize % self.words.len()];
        near + if random >> 60 == 0 { 8 * (random >> 32 & 7) } else { 0 }
    }

    /// All words that are not 0, with their places.
    pub fn words(&self) -> &[(u64, u64)] {
        &self.words
    }

    /// Writes the words that are not 0, and zeros in short gaps between them: few calls.
    pub fn restore_words(&self, file: &File) {
        for (start, run) in &self.runs {
            file.write_all_at(run, *start).expect("writes");
        }
    }
}

/// The rest of a script.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u64 {
        u64::from(self.byte()) | u64::from(self.byte()) << 8
    }

    fn word(&mut self) -> u64 {
        (0..4).fold(0, |word, n| word | self.short() << (16 * n))
    }
}

/// Where the words lie that everything depends on: `(first, distance, words)`.
const PLACES: [(u64, u64, u64); 12] = [
    (0, 8, 16),                   // header
    (PAGE, 8, 8),                 // life
    (2 * PAGE, 64, 8),            // gate, roots, retire lock
    (2 * PAGE + 200, 8, 2),       // retired roots
    (3 * PAGE, 8, 24),            // slot directory
    (4 * PAGE, 8, 256),           // page allocator
    (5 * PAGE, 8, 256),           // arenas
    (8 * PAGE, 8, 256),           // slot 1: state, lock list
    (8 * PAGE + 8 * 160, 8, 256), // its log
    (8 * PAGE + 8 * 416, 8, 256), // its magazine
    (10 * PAGE, 8, 256),          // slot 2
    (24 * PAGE, 8, 256),          // page descriptors
];

/// Changes a word, or a page, of the file as the script says.
pub fn scribble(file: &File, image: &Image, input: &mut Input<'_>) {
    let how = input.byte();
    let select = input.short();
    let near = image.words[select as usize % image.words.len()];
    let at = match how & 7 {
        0..=2 => near.0,
        3 => near.0 + 8 * u64::from(input.byte() % 64),
        4 => near.0.saturating_sub(8 * u64::from(input.byte() % 8)),
        5 | 6 => {
            let (first, distance, words) = PLACES[(select >> 8) as usize % PLACES.len()];
            first + distance * ((select & 0xff) % words)
        }
        _ => 8 * (select << 4 | u64::from(input.byte() & 15)),
    };
    let mut now = [0; 8];
    if file.read_exact_at(&mut now, at).is_err() {
        return;
    }
    let now = u64::from_le_bytes(now);
    let other = |select: u64| image.words[select as usize % image.words.len()];
    let value = match how >> 3 & 15 {
        0 => input.word(),
        1 => now ^ 1 << (input.byte() & 63),
        2 => other(input.short()).1,
        3 => other(input.short()).0,
        4 => input.short() * PAGE,
        5 => input.short() * 64,
        6 => input.short(),
        7 => u64::MAX >> (input.byte() & 63),
        8 => now.wrapping_add(input.short()),
        9 => now.wrapping_sub(input.short()),
        // The number of a unit, other bits as they are.
        10 => now & !0xff_ffff_ffff | input.short() << 2,
        11 => now & !0xff_ffff_ffff | other(input.short()).0 >> 4,
        12 => now & !0xffff_ffff | input.short(),
        13 => now & 0xffff_ffff | input.short() << 32,
        14 => {
            let page = vec![input.byte(); PAGE as usize];
            let _ = file.write_all_at(&page, at / PAGE * PAGE);
            return;
        }
        _ => 0,
    };
    let _ = file.write_all_at(&value.to_le_bytes(), at);
}

/// Whom the bytes are changed by while a script's operations are made.
pub trait Enemy {
    /// Changes something, as the script says.
    fn strike(&self, input: &mut Input<'_>);

    /// May something have been changed since the object was opened? Then locks and slots may be in the hands of somebody who
    /// lives and knows nothing of it, and calls that have no time-out may wait for him: they are left out.
    fn has_struck(&self) -> bool {
        true
    }

    /// The object is opened anew.
    fn begin(&self) {}
}

/// The script itself.
struct Script<'a> {
    file: &'a File,
    image: &'a Image,
    has_struck: Cell<bool>,
}

impl Enemy for Script<'_> {
    fn strike(&self, input: &mut Input<'_>) {
        self.has_struck.set(true);
        scribble(self.file, self.image, input);
    }

    fn has_struck(&self) -> bool {
        self.has_struck.get()
    }

    fn begin(&self) {
        self.has_struck.set(false);
    }
}

/// Somebody else.
pub struct Elsewhere;

impl Enemy for Elsewhere {
    fn strike(&self, _: &mut Input<'_>) {}
}

/// A place for the files of one script at a time; they go with it.
pub struct Place {
    directory: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = PathBuf::from(format!("/dev/shm/netshm-hostile-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("makes a directory");
        Place { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Where the parts of a script begin, as far as it came; the last part of a kind ends where something else begins.
#[derive(Debug, Default)]
pub struct Parts {
    pub changes: Vec<u16>,
    /// Where what says how long the object is begins, and what follows it.
    pub cut: (u16, u16),
    pub steps: Vec<u16>,
    pub end: u16,
}

/// Makes what a script says.
pub fn run(place: &Place, script: &[u8]) -> Parts {
    let at = |input: &Input<'_>| u16::try_from(script.len() - input.0.len()).unwrap_or(u16::MAX);
    let mut parts = Parts::default();
    let mut input = Input(script);
    let image = &images()[usize::from(input.byte()) % images().len()];
    let flags = input.byte();
    let (path, copy) = (place.path("object"), place.path("copy"));
    for path in [&path, &copy] {
        let _ = std::fs::remove_file(path);
    }
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("creates");
    image.restore(&file);
    let boot = |words: &[u8]| file.write_all_at(words, PAGE).expect("writes");
    match flags & 3 {
        // Used by an earlier boot: refused, or in order, as the life page says.
        3 => {}
        // Not known, which is no reason for a refusal.
        _ => boot(&[0; 16]),
    }
    for _ in 0..input.byte() % 16 {
        parts.changes.push(at(&input));
        scribble(&file, image, &mut input);
    }
    parts.cut.0 = at(&input);
    if flags & 4 != 0 {
        let len = image.size.min(input.short() * 512);
        file.set_len(len).expect("cuts");
    }
    parts.cut.1 = at(&input);
    let timeout_ms = if flags & 32 != 0 { -1 } else { 1 };
    let name = Name::file(&path);
    if let Ok(object) = OpenOptions::new().read_only(flags & 8 != 0).open(&name) {
        let mut session = Session::new(object, &copy, timeout_ms);
        let enemy = Script { file: &file, image, has_struck: Cell::new(false) };
        let mut steps = 0;
        while !input.is_empty() && steps < MOST_STEPS {
            parts.steps.push(at(&input));
            session.step(&mut input, &enemy);
            steps += 1;
        }
    }
    if flags & 16 != 0 {
        // What is left is opened by somebody else, and saved.
        if let Ok(object) = OpenOptions::new().read_only(true).open(&name) {
            check(&object);
        }
        let _ = netshm::salvage(&name, &Name::file(&copy), 0o600, true);
    }
    use std::os::unix::fs::MetadataExt;
    let taken = file.metadata().expect("exists").blocks() * 512;
    assert!(taken <= MOST_MEMORY, "the object takes {taken} bytes");
    parts.end = at(&input);
    parts
}

fn check(object: &Object) {
    let mut left = 1000;
    let _ = object.check(|_| {
        left -= 1;
        left > 0
    });
}

/// Makes a little of everything with an object of which `words` have been changed beforehand: above all what takes memory and
/// gives it back, outside of groups and in them, ends the use of the slot, and begins anew.
pub fn run_everything(place: &Place, image: &Image, words: &[(u64, u64)]) {
    const STEPS: [&[u8]; 12] = [
        // 256 short values are added, all others removed.
        &[24, 5, 101, 0, 1, 0xa4, 255, 104, 200],
        // A group that needs more log than there is in the slot, and one that is aborted.
        &[192, 101, 0, 2, 0x6d, 120, 60, 7, 204, 192, 101, 0, 3, 0xa4, 60, 214],
        // Values of several pages, in each other's place.
        &[50, 215, 0xff, 50, 215, 0xf7, 60, 215],
        // A stack, a counter, all bindings.
        &[50, 205, 0x84, 60, 205, 68, 225, 82, 203, 1, 84],
        // Long slices of both arrays, twice.
        &[156, 0, 0, 0xff, 0x0f, 156, 0, 0, 0xff, 0x0f, 157, 0, 0, 0xb8, 0x0b, 157, 0, 0, 0xb8, 0x0b],
        // Arrays get longer and shorter.
        &[158, 0, 0x30, 158, 0, 0x10, 159, 0, 0x20, 123, 3, 0, 90, 126, 0xb8, 0x0b, 120, 3, 0],
        // Types.
        &[170, 0, 172, 1, 182, 1, 184, 2, 186, 0, 1, 0, 0, 0, 0],
        // Another table, a group that removes, the table begun anew.
        &[234, 0, 100, 192, 104, 255, 204, 237],
        // The handles are made anew.
        &[244, 24, 5, 101, 0, 4, 0xa4, 40],
        // So is the object's.
        &[247, 24, 5, 101, 0, 5, 0xa4, 100, 104, 255],
        // It is read by somebody else.
        &[251, 200],
        // It comes to rest.
        &[247, 24, 6],
    ];
    let path = place.path("object");
    let _ = std::fs::remove_file(&path);
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("creates");
    image.restore(&file);
    for (at, word) in [(PAGE, 0), (PAGE + 8, 0)].iter().chain(words) {
        file.write_all_at(&word.to_le_bytes(), *at).expect("writes");
    }
    if let Ok(object) = OpenOptions::new().open(&Name::file(&path)) {
        let mut session = Session::new(object, &place.path("copy"), 1);
        let steps = STEPS.concat();
        let mut input = Input(&steps);
        while !input.is_empty() {
            session.step(&mut input, &Elsewhere);
        }
    }
}

/// Keys that the images have, and some that they do not.
fn key(input: &mut Input<'_>) -> Vec<u8> {
    let n = input.byte();
    match n {
        0..=199 => u32::from(n).to_le_bytes().to_vec(),
        200..=209 => b"stack".to_vec(),
        210..=219 => b"long".to_vec(),
        220..=229 => b"count".to_vec(),
        230..=239 => vec![n; usize::from(n)],
        240..=249 => format!("{n} of another length").into_bytes(),
        _ => 3000u32.wrapping_add(n.into()).to_le_bytes().to_vec(),
    }
}

fn value(input: &mut Input<'_>) -> Vec<u8> {
    let n = input.byte();
    let len = match n & 7 {
        0 => 0,
        1..=4 => usize::from(n >> 3),
        5 => 8 * usize::from(n),
        6 => 97 * usize::from(n),
        _ => 700 * usize::from(n >> 3),
    };
    vec![n; len]
}

/// An object as somebody uses it who knows nothing of an enemy.
pub struct Session {
    groups: Vec<Transaction>,
    main: Option<HashTable>,
    ages: Option<Ages>,
    words: Option<PrimitiveTable>,
    numbers: Option<Array>,
    records: Option<Array>,
    seats: Option<Seats>,
    object: Object,
    copy: PathBuf,
    timeout_ms: i32,
}

impl Session {
    pub fn new(object: Object, copy: &Path, timeout_ms: i32) -> Session {
        let mut session = Session {
            groups: Vec::new(),
            main: None,
            ages: None,
            words: None,
            numbers: None,
            records: None,
            seats: None,
            object,
            copy: copy.to_owned(),
            timeout_ms,
        };
        session.manage(timeout_ms);
        session
    }

    /// Gets the handles, as far as possible.
    fn manage(&mut self, timeout_ms: i32) {
        let of = |root: &str| ManageOptions::new().root(root).lock_timeout_ms(timeout_ms).clone();
        let o = &self.object;
        self.main = HashTable::manage(o, ManageOptions::new().lock_timeout_ms(timeout_ms)).ok();
        self.ages = Ages::manage(o, &of("ages")).ok();
        self.words = PrimitiveTable::manage(o, &of("words")).ok();
        self.numbers = Array::manage_i64(o, -7, 5000, &of("numbers")).ok();
        let pair = Type::parse("(int,(int32,double))").expect("a type");
        let default = [Value::Int(1), Value::Int(2), Value::Double(3.0)];
        self.records = Array::manage(o, &pair, &default, 3000, &of("records")).ok();
        self.seats = Seats::manage(o, &Some("nobody".into()), 100, &of("seats")).ok();
    }

    /// Makes the next operation of a script.
    pub fn step(&mut self, input: &mut Input<'_>, enemy: &dyn Enemy) {
        match input.byte() {
            0..=23 => enemy.strike(input),
            n @ 24..=119 => self.use_main(n, input, enemy),
            n @ 120..=167 => self.use_arrays(n, input, enemy),
            n @ 168..=191 => self.use_typed(n, input, enemy),
            n @ 192..=223 => self.use_groups(n),
            n => self.use_object(n, input, enemy),
        }
    }

    fn use_main(&self, n: u8, input: &mut Input<'_>, enemy: &dyn Enemy) {
        let Some(t) = &self.main else { return };
        match n {
            24..=31 => _ = t.find(&key(input)),
            32..=35 => _ = t.find_all(&key(input)),
            36..=38 => _ = t.contains(&key(input)),
            39..=41 => _ = t.find_into(&key(input), &mut [0; 100]),
            42..=43 => _ = t.view(&key(input), <[u8]>::len),
            44..=49 => _ = t.add(&key(input), &value(input)),
            50..=57 => _ = t.replace(&key(input), &value(input)),
            58..=59 => _ = t.insert(&key(input), &value(input)),
            60..=67 => _ = t.remove(&key(input)),
            68..=71 => _ = t.increment(&key(input), 1, 0),
            72..=73 => _ = t.increment(b"count", 1, 0),
            74..=75 => _ = t.compare_and_replace(&key(input), &value(input), &value(input)),
            76..=79 => {
                let (key, answer, new) = (key(input), input.byte(), value(input));
                _ = t.try_update(&key, |_| {
                    enemy.strike(input);
                    Ok(match answer % 3 {
                        0 => Update::Keep,
                        1 => Update::Remove,
                        _ => Update::Replace(new),
                    })
                });
            }
            80..=83 => {
                let key = key(input);
                _ = t.update_stack(&key, |old| {
                    let answer = input.byte();
                    if answer > 127 {
                        enemy.strike(input);
                    }
                    Ok(match answer % 5 {
                        0 => None,
                        1 => Some(Update::Remove),
                        2 => Some(Update::Replace(old.iter().rev().copied().collect())),
                        3 => Some(Update::Replace(value(input))),
                        _ => Some(Update::Keep),
                    })
                });
            }
            84..=89 => {
                let mut at = 0;
                for binding in t.iter().take(MOST_ITEMS) {
                    at += 1;
                    if at % 32 == 5 && !input.is_empty() {
                        enemy.strike(input);
                    }
                    if binding.is_err() {
                        break;
                    }
                }
            }
            90..=91 => _ = t.keys().take(MOST_ITEMS).take_while(Result::is_ok).count(),
            92..=94 => _ = t.len(),
            95..=97 => {
                let keys: Vec<_> = (0..input.byte() % 32).map(|_| key(input)).collect();
                _ = t.find_many(&keys);
            }
            98..=100 => {
                let bindings: Vec<_> = (0..input.byte() % 32).map(|_| (key(input), value(input))).collect();
                _ = if n == 98 { t.add_many(&bindings) } else { t.replace_many(&bindings) };
            }
            101..=103 => {
                // Growth, with its splits.
                let (first, short) = (input.short() as u32, value(input));
                for n in 0..=u32::from(input.byte()) {
                    if t.add(&(first << 8 | n).to_le_bytes(), &short[..short.len().min(64)]).is_err() {
                        break;
                    }
                }
            }
            104..=107 => {
                for n in 0..u32::from(input.byte()) {
                    _ = t.remove(&n.to_le_bytes());
                }
            }
            108..=110 => {
                if let Ok(mut stamp) = t.stamp(&key(input)) {
                    enemy.strike(input);
                    _ = t.wait(&key(input), &mut stamp, Some(Duration::from_millis(1)));
                }
            }
            111..=112 => _ = t.table().dump(),
            113..=114 => _ = (t.table().name(), t.table().signatures()),
            115..=116 => {
                let keys: Vec<_> = (0..input.byte() % 8).map(|_| key(input)).collect();
                let stride = usize::from(input.byte());
                _ = t.find_many_into(
                    &keys,
                    &mut vec![0; keys.len() * stride],
                    stride,
                    &mut [None; 8][..keys.len()],
                );
            }
            _ => _ = t.find(b"stack"),
        }
    }

    fn use_arrays(&self, n: u8, input: &mut Input<'_>, enemy: &dyn Enemy) {
        if let (Some(seats), true) = (&self.seats, n < 132) {
            let at = input.short() % 110;
            match n {
                120..=122 => _ = seats.get(at),
                123..=125 => _ = seats.set(at, &Some("x".repeat(usize::from(input.byte())))),
                126 => _ = seats.resize(input.short() % 3000),
                127 => _ = seats.default_value(),
                128 => _ = seats.iter().take(MOST_ITEMS).take_while(Result::is_ok).count(),
                _ => _ = seats.length(),
            }
        }
        let array = if n & 1 == 0 { &self.numbers } else { &self.records };
        let (Some(a), true) = (array, n >= 132) else { return };
        let at = input.short() % 6000;
        let element = if n & 1 == 0 { 8 } else { 20 };
        match n {
            132..=135 => _ = a.get(at),
            136..=137 => _ = a.get_i64(at),
            138..=141 => _ = a.set(at, &vec![n; element]),
            142..=143 => _ = a.set_i64(at, 7),
            144..=145 => _ = a.increment(at, 1),
            146..=149 => {
                let mut into = vec![0; element * input.short() as usize % 100_000 / element * element];
                _ = a.read(at, &mut into);
            }
            150..=151 => {
                let mut into = vec![MaybeUninit::uninit(); element * usize::from(input.byte())];
                _ = a.read_raw(at, &mut into);
            }
            152..=157 => {
                let count = if n > 155 { input.short() % 6000 } else { u64::from(input.byte()) };
                _ = a.write(at, &vec![n; element * count as usize]);
            }
            158..=161 => _ = a.resize(input.short()),
            162..=163 => _ = a.default_value(),
            164..=165 => {
                for (i, element) in a.iter().take(MOST_ITEMS).enumerate() {
                    if i % 512 == 17 && !input.is_empty() {
                        enemy.strike(input);
                    }
                    if element.is_err() {
                        break;
                    }
                }
            }
            _ => _ = a.length(),
        }
    }

    fn use_typed(&self, n: u8, input: &mut Input<'_>, enemy: &dyn Enemy) {
        if let (Some(ages), true) = (&self.ages, n < 180) {
            let name = ["Ada", "Grace", "Alan"][usize::from(input.byte()) % 3];
            match n {
                168 => _ = ages.find(name),
                169 => _ = ages.find_all(name),
                170 => _ = ages.add(name, &(i64::from(n), Some("again".into()))),
                171 => _ = ages.replace(name, &(1, None)),
                172 => _ = ages.remove(name),
                173 => _ = ages.iter().take(MOST_ITEMS).take_while(Result::is_ok).count(),
                174 => _ = ages.keys().take(MOST_ITEMS).take_while(Result::is_ok).count(),
                175 => {
                    _ = ages.update(name, |_| {
                        enemy.strike(input);
                        Ok(Update::Replace((5, None)))
                    });
                }
                _ => _ = ages.len(),
            }
        }
        let (Some(words), true) = (&self.words, n >= 180) else { return };
        let key = [-5, 7, 8, 9][usize::from(input.byte()) % 4];
        match n {
            180 => _ = words.find(key),
            181 => _ = words.find_all(key),
            182 => _ = words.add(key, &[1; 9]),
            183 => _ = words.replace(key, &[2; 3]),
            184 => _ = words.remove(key),
            185 => _ = words.read_blocks(key, |_| Ok(Step::Go)),
            186 | 187 => {
                let ops = [BlockOp::Remove];
                _ = words.write_blocks(&ops, key, |fragment| {
                    if let Some(first) = fragment.and_then(<[i32]>::first_mut) {
                        *first += 1;
                        enemy.strike(input);
                    }
                    let answer = input.byte();
                    Ok((Step::Go, (answer & 3 == 1).then_some(BlockOp::Remove)))
                });
            }
            188 => _ = words.iter().take(MOST_ITEMS).take_while(Result::is_ok).count(),
            189 => _ = words.keys().take(MOST_ITEMS).take_while(Result::is_ok).count(),
            _ => _ = words.len(),
        }
    }

    fn use_groups(&mut self, n: u8) {
        match n {
            192..=203 => {
                if let (Some(t), true) = (&self.main, self.groups.len() < 3) {
                    self.groups.extend(t.table().begin());
                }
            }
            204..=213 => _ = self.groups.pop().map(Transaction::commit),
            214..=218 => _ = self.groups.pop().map(Transaction::abort),
            219..=220 => _ = self.groups.last_mut().map(Transaction::restart),
            _ => {
                let moved = self.groups.pop().and_then(|group| group.detach().ok());
                self.groups.extend(moved.and_then(|group| group.attach().ok()));
            }
        }
    }

    fn end_groups(&mut self) {
        while let Some(group) = self.groups.pop() {
            drop(group);
        }
    }

    fn use_object(&mut self, n: u8, input: &mut Input<'_>, enemy: &dyn Enemy) {
        let (o, wait) = (&self.object, self.timeout_ms.min(1));
        let of = |root: &str| ManageOptions::new().root(root).lock_timeout_ms(wait).clone();
        match n {
            224..=229 if !enemy.has_struck() => check(o),
            230..=231 if !enemy.has_struck() => _ = o.tables(),
            232..=233 if !enemy.has_struck() => {
                _ = o.drop_table(["ages", "numbers", "new"][usize::from(input.byte()) % 3])
            }
            234..=236 => {
                let root = ["new", "newer", "words"][usize::from(input.byte()) % 3];
                if let Ok(t) = HashTable::manage(o, of(root).expected(u64::from(input.byte()))) {
                    enemy.strike(input);
                    _ = t.add(b"first", b"value");
                }
            }
            237..=238 => {
                _ = HashTable::manage(o, ManageOptions::new().lock_timeout_ms(wait).reinitialise(true))
            }
            239 => _ = HashTable::manage(o, of("again").reinitialise(true)),
            240 => _ = Array::manage_i64(o, 0, input.short(), of("numbers").reinitialise(true)),
            241 => _ = o.sync(wait),
            242..=243 => _ = o.backup(&Name::file(&self.copy), 0o600, true, 1),
            244..=246 => {
                // All handles go, but for one; the rest of the object is looked at afresh.
                self.end_groups();
                self.manage(wait);
            }
            247..=250 => {
                let path = self.object.name().map(|name| name.file_name().to_owned());
                let Some(path) = path else { return };
                // Nobody has the object open for a moment.
                self.end_groups();
                (self.main, self.ages, self.words, self.numbers) = (None, None, None, None);
                (self.records, self.seats) = (None, None);
                if let Ok(nothing) = OpenOptions::new().anonymous() {
                    self.object = nothing;
                }
                enemy.strike(input);
                enemy.begin();
                if let Ok(object) = OpenOptions::new().open(&Name::file(path)) {
                    self.object = object;
                    self.manage(wait);
                }
            }
            251..=253 => {
                let other = self.object.name().map(|name| OpenOptions::new().read_only(true).open(name));
                if let Some(Ok(other)) = other {
                    if let Ok(t) = HashTable::manage(&other, ManageOptions::new().lock_timeout_ms(wait)) {
                        _ = t.find(&key(input));
                        _ = t.iter().take(MOST_ITEMS).take_while(Result::is_ok).count();
                        _ = t.len();
                    }
                    // For reading only, it waits for nobody.
                    check(&other);
                }
            }
            _ => _ = o.size(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end_groups();
    }
}
