//! Goal: a backup of a busy object is a consistent object, and salvage saves what can be saved, and nothing else.
//!
//! Method: processes move amounts between accounts while backups are made: the sum is right in each. For salvage the test
//! reads the undamaged bytes by its own understanding of the format, and so knows which bytes each binding depends on;
//! then it damages bytes at random, and holds what was saved against what could be saved.

mod support;

use netshm::check::Summary;
use netshm::{
    Array, Error, HashTable, ManageOptions, Name, Object, OpenOptions, PrimitiveTable, Salvaged, Type, Value,
};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::process::{Shared, fork, now_ns, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_object_sound, assert_sound};

fn main() {
    support::main(&[
        ("backups_under_load", backups_under_load),
        ("backups_of_all_kinds", backups_of_all_kinds),
        ("a_killed_backup_leaves_nothing", a_killed_backup_leaves_nothing),
        ("salvage_of_an_intact_object", salvage_of_an_intact_object),
        ("salvage_of_random_damage", salvage_of_random_damage),
        ("salvage_of_hostile_bytes", salvage_of_hostile_bytes),
        ("checksums_are_kept", checksums_are_kept),
        ("a_damaged_root_loses_its_table_alone", a_damaged_root_loses_its_table_alone),
        ("roots_that_share_their_buckets_take_no_ages", roots_that_share_their_buckets_take_no_ages),
        ("copies_may_be_read_only_and_have_long_names", copies_may_be_read_only_and_have_long_names),
    ]);
}

fn options() -> ManageOptions {
    ManageOptions::new().locking(support::locking()).clone()
}

fn named(root: &str) -> ManageOptions {
    options().root(root).clone()
}

fn open(name: &Name) -> Object {
    OpenOptions::new().create(true).open(name).expect("opens")
}

fn rounds(short: u64, long: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { long } else { short })
}

const ACCOUNTS: u64 = 40;

fn account(n: u64) -> Vec<u8> {
    format!("account {n}").into_bytes()
}

/// Moves amounts between accounts of two tables, and makes memory come and go, for ever. Notes when it has ended an
/// operation, and the longest time between two such moments, in nanoseconds.
fn work(name: &Name, seed: u64, pauses: &Shared) -> ! {
    let object = OpenOptions::new().open(name).expect("opens");
    let (one, other) = (
        HashTable::manage(&object, &options()).expect("manages"),
        HashTable::manage(&object, &named("other")).expect("manages"),
    );
    let mut random = Random::new(seed);
    let mut last = now_ns();
    loop {
        let now = now_ns();
        pauses.word(seed as usize).fetch_max(now - std::mem::replace(&mut last, now), Ordering::SeqCst);
        let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
        match random.below(4) {
            0 => _ = one.remove(&random.below(1 << 14).to_be_bytes()).expect("removes"),
            1 => {
                let size = if random.once_in(50) { 100_000 } else { random.below(300) };
                one.replace(&random.below(1 << 14).to_be_bytes(), &vec![seed as u8; size as usize])
                    .expect("replaces");
            }
            _ => one
                .table()
                .group_retry(None, || -> netshm::Result<()> {
                    one.increment(&account(from), -1, 0)?;
                    other.increment(&account(to), 1, 0)?;
                    Ok(())
                })
                .expect("moves"),
        }
    }
}

fn sum(object: &Object) -> i64 {
    let mut sum = 0;
    for options in [options(), named("other")] {
        let table = HashTable::manage(object, &options).expect("manages");
        for n in 0..ACCOUNTS {
            let value = table.find(&account(n)).expect("finds").expect("is there");
            sum += i64::from_le_bytes(value.try_into().expect("8 bytes"));
        }
    }
    sum
}

const WORKERS: usize = 4;

fn backups_under_load() {
    watchdog(900);
    let scratch = Scratch::posix("live");
    let object = open(scratch.name());
    for options in [options(), named("other")] {
        let table = HashTable::manage(&object, &options).expect("manages");
        for n in 0..ACCOUNTS {
            table.add(&account(n), &100i64.to_le_bytes()).expect("adds");
        }
    }
    let pauses = Shared::new(WORKERS);
    let mut workers: Vec<_> =
        (0..WORKERS as u64).map(|seed| fork(|| work(scratch.name(), seed, &pauses))).collect();
    // The longest pause of any worker since the last call.
    let longest = || {
        let words = (0..WORKERS).map(|n| pauses.word(n).swap(0, Ordering::SeqCst));
        Duration::from_nanos(words.max().unwrap_or(0))
    };
    let (mut stops, mut during, mut without) = (Vec::new(), Vec::new(), Vec::new());
    let (mut size, mut late) = (0, 0);
    let start = Instant::now();
    let rounds = rounds(12, 1000);
    for round in 0..rounds {
        let copy = if round % 2 == 0 { Scratch::file("copy") } else { Scratch::posix("copy") };
        longest();
        let begin = Instant::now();
        let done = object.backup(copy.name(), 0o600, false, 0).expect("backs up");
        let took = begin.elapsed();
        during.push(longest());
        stops.push(done.writers_stopped);
        (size, late) = (done.size_bytes, late + done.copied_meanwhile);
        // The control: somebody else is as busy for as long.
        while begin.elapsed() < took * 2 {
            std::hint::spin_loop();
        }
        without.push(longest());
        let copied = OpenOptions::new().open(copy.name()).expect("opens at once");
        assert_eq!(sum(&copied), 200 * ACCOUNTS as i64);
        assert_object_sound(&copied);
        // It can be worked with, and grown.
        let table = HashTable::manage(&copied, &options()).expect("manages");
        for n in 0u64..2000 {
            table.replace(&n.to_be_bytes(), &[1; 500]).expect("replaces");
        }
        assert_object_sound(&copied);
    }
    let of = |times: &mut Vec<Duration>| {
        times.sort();
        format!("{:?} in the middle, {:?} at most", times[times.len() / 2], times[times.len() - 1])
    };
    println!(
        "backups_under_load: {rounds} of {} KiB in {:?}, writers stopped for {}, {} KiB copied then; longest pause of \
         {WORKERS} workers during each backup {}, during as long without one {}",
        size >> 10,
        start.elapsed(),
        of(&mut stops),
        (late / rounds) >> 10,
        of(&mut during),
        of(&mut without)
    );
    for worker in &mut workers {
        assert_eq!(worker.poll(), None, "all go on");
        worker.kill();
    }
    assert_eq!(sum(&object), 200 * ACCOUNTS as i64);
    assert_object_sound(&object);
}

fn backups_of_all_kinds() {
    let from = Scratch::file("kinds");
    let object = open(from.name());
    let (file, memory) = (Scratch::file("to"), Scratch::posix("to"));
    assert_eq!(object.backup(file.name(), 0o600, false, 0), Err(Error::NotFound), "there is nothing");
    let table = HashTable::manage(&object, &options()).expect("manages");
    table.add(b"key", b"value").expect("adds");
    for to in [&file, &memory] {
        object.backup(to.name(), 0o600, false, 0).expect("backs up");
        assert_eq!(object.backup(to.name(), 0o600, false, 0), Err(Error::Exists));
        let copy = open(to.name());
        table.replace(b"key", b"later").expect("replaces");
        object.backup(to.name(), 0o600, true, 0).expect("replaces the copy");
        for replace in [false, true] {
            let onto_itself = object.backup(from.name(), 0o600, replace, 0);
            assert!(matches!(onto_itself, Err(Error::Invalid { .. })), "{onto_itself:?}");
        }
        let found = |object: &Object| {
            HashTable::manage(object, &options()).expect("manages").find(b"key").expect("finds")
        };
        assert_eq!(found(&copy).as_deref(), Some(&b"value"[..]), "who uses the old one goes on");
        assert_eq!(found(&open(to.name())).as_deref(), Some(&b"later"[..]));
        assert_sound(to.name());
        table.replace(b"key", b"value").expect("replaces");
    }
    // What may not be.
    let group = table.table().begin().expect("begins");
    table.add(b"key", b"open").expect("adds");
    let busy = Scratch::file("busy");
    assert!(matches!(object.backup(busy.name(), 0o600, false, 0), Err(Error::InGroup(_))));
    std::thread::scope(|threads| {
        let outcome = threads.spawn(|| object.backup(busy.name(), 0o600, false, 20)).join().expect("joins");
        assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    });
    group.abort().expect("aborts");
    assert!(!busy.path().exists());
    let reader = OpenOptions::new().read_only(true).open(from.name()).expect("opens");
    assert_eq!(reader.backup(busy.name(), 0o600, false, 0), Err(Error::ReadOnly));
    assert_eq!(object.backup(&Name::file("/no/such/place"), 0o600, false, 0), Err(Error::NotFound));
    // A copy of a copy, after a sync, of an object without a name.
    let hidden = OpenOptions::new().anonymous().expect("memory");
    let table = HashTable::manage(&hidden, &options()).expect("manages");
    table.add(b"key", &vec![3; 1 << 20]).expect("adds");
    hidden.sync(0).expect("syncs");
    hidden.backup(busy.name(), 0o600, false, 0).expect("backs up");
    table.add(b"key", b"goes on").expect("adds");
    assert_sound(busy.name());
}

fn a_killed_backup_leaves_nothing() {
    watchdog(300);
    let from = Scratch::posix("killed");
    let object = open(from.name());
    let table = HashTable::manage(&object, &options()).expect("manages");
    for n in 0u64..5000 {
        table.add(&n.to_be_bytes(), &[7; 400]).expect("adds");
    }
    let mut random = Random::from_environment("a_killed_backup_leaves_nothing");
    let mut finished = 0;
    for _ in 0..rounds(20, 500) {
        let to = Scratch::file("gone");
        let mut child = fork(|| {
            let object = OpenOptions::new().open(from.name()).expect("opens");
            object.backup(to.name(), 0o600, false, 0).expect("backs up");
        });
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        child.kill();
        if to.path().exists() {
            finished += 1;
            assert_sound(to.name());
        }
        table.replace(b"key", b"writers go on").expect("replaces");
    }
    println!("a_killed_backup_leaves_nothing: {finished} were finished");
    assert_object_sound(&object);
}

/// All bindings of a table, of each key the newest first.
fn contents(table: &HashTable) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut all: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for binding in table.iter() {
        let (key, value) = binding.expect("walks");
        all.entry(key).or_default().push(value);
    }
    all
}

/// Tables of all kinds, with stacks and long values.
fn furnish(object: &Object, random: &mut Random, keys: u64) {
    for root in ["", "second"] {
        let options = if root.is_empty() { options() } else { named(root) };
        let table = HashTable::manage(object, &options).expect("manages");
        for n in 0..keys {
            let key = format!("{root} key {n}").into_bytes();
            for binding in 0..if random.once_in(5) { random.below(4) } else { 1 } {
                let size = if random.once_in(60) { random.below(40_000) } else { random.below(200) };
                let mut value = format!("{root} {n} {binding} ").into_bytes();
                value.extend((0..size).map(|i| (i * 7 + n) as u8));
                table.add(&key, &value).expect("adds");
            }
        }
        for n in (0..keys).step_by(7) {
            table.remove(format!("{root} key {n}").as_bytes()).expect("removes");
        }
    }
}

fn salvage_of_an_intact_object() {
    let mut random = Random::from_environment("salvage_of_an_intact_object");
    let (from, to) = (Scratch::posix("intact"), Scratch::posix("saved"));
    let object = open(from.name());
    furnish(&object, &mut random, 3000);
    let numbers = Type::parse("int").expect("a type");
    let array =
        Array::manage(&object, &numbers, &[Value::Int(-5)], 100_000, &named("array")).expect("manages");
    for n in (0..100_000).step_by(37) {
        array.set(n, &n.to_le_bytes()).expect("sets");
    }
    let texts = Type::parse("string").expect("a type");
    let words =
        Array::manage(&object, &texts, &[Value::Bytes(b"none")], 1000, &named("words")).expect("manages");
    words.set(17, b"seventeen").expect("sets");
    let primitive = PrimitiveTable::manage(&object, &named("primitive")).expect("manages");
    for n in 0..500 {
        primitive.add(n, &[n, n + 1, n + 2]).expect("adds");
    }
    let done = netshm::salvage(from.name(), to.name(), 0o600, false).expect("salvages");
    println!("salvage_of_an_intact_object: {done:?}");
    assert_eq!((done.tables, done.tables_lost, done.bindings_lost, done.buckets_lost), (5, 0, 0, 0));
    assert_eq!(done.bindings_counted, Some(done.bindings));
    assert_eq!(netshm::salvage(from.name(), to.name(), 0o600, false), Err(Error::Exists));
    let saved = open(to.name());
    assert_object_sound(&saved);
    assert_eq!(saved.tables().expect("lists"), object.tables().expect("lists"));
    for options in [options(), named("second")] {
        let table = |object| HashTable::manage(object, &options).expect("manages");
        assert_eq!(contents(&table(&saved)), contents(&table(&object)));
    }
    let again = Array::manage(&saved, &numbers, &[Value::Int(0)], 0, &named("array")).expect("manages");
    assert_eq!(again.length().expect("length"), 100_000);
    for n in 0..1000 {
        assert_eq!(again.get(n).expect("gets"), array.get(n).expect("gets"));
    }
    let again = Array::manage(&saved, &texts, &[Value::Bytes(b"")], 0, &named("words")).expect("manages");
    for n in 10..20 {
        assert_eq!(again.get(n).expect("gets"), words.get(n).expect("gets"));
    }
    let again = PrimitiveTable::manage(&saved, &named("primitive")).expect("manages");
    assert_eq!(again.find(77).expect("finds"), Some(vec![77, 78, 79]));
}

/// A binding as the test finds it in the undamaged bytes.
struct Known {
    table: usize,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The bytes that it depends on, but for its own key and value.
    needs: Vec<Range<usize>>,
    /// Its own lengths, key and value.
    payload: Range<usize>,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes"))
    }
    fn unit(&self, at: usize) -> usize {
        16 * (self.word(at) & ((1 << 40) - 1)) as usize
    }
}

/// All bindings of the unnamed table and of the first named one, by the description of the format.
fn known_bindings(bytes: &[u8]) -> Vec<Known> {
    let b = Bytes(bytes);
    let main = b.word(2 * 4096 + 64) as usize;
    let catalog = b.word(2 * 4096 + 72) as usize;
    let second = b.word(catalog + 256) as usize;
    let word = |at: usize| at..at + 8;
    // Version, features, hash and seed of the header.
    let header = [word(8), word(24), word(32), word(56), word(64), word(72)];
    let paths = [
        (main, vec![word(2 * 4096 + 64)]),
        (
            second,
            vec![word(2 * 4096 + 72), word(catalog + 256), word(catalog + 264), catalog + 272..catalog + 280],
        ),
    ];
    let mut all = Vec::new();
    for (table, (root, path)) in paths.into_iter().enumerate() {
        let (base, ready) = (b.word(root + 8) as u32, b.word(root + 72) as usize);
        let nature = [word(root), word(root + 8), word(root + 128 * 8), word(root + 192 * 8)];
        for index in 0..ready {
            let k = if index >> base == 0 { 0 } else { (index.ilog2() - base + 1) as usize };
            let first = if k == 0 { 0 } else { 1 << (base as usize + k - 1) };
            let pointer = root + 8 * (32 + k);
            let mut line = b.word(pointer) as usize + 64 * (index - first);
            // The lock word does not matter, the level does.
            let mut needs: Vec<Range<usize>> = header.iter().chain(&path).chain(&nature).cloned().collect();
            needs.push(word(pointer));
            needs.push(word(line + 56));
            loop {
                for entry in (line + 8..line + 56).step_by(8).filter(|at| b.word(*at) != 0) {
                    let mut chain = needs.clone();
                    chain.push(word(entry));
                    let mut record = b.unit(entry);
                    while record != 0 {
                        let lengths = b.word(record + 8);
                        let (key, value) = ((lengths & 0xffff_ffff) as usize, (lengths >> 32) as usize);
                        let value_at = record + 16 + key.next_multiple_of(8);
                        chain.push(word(record));
                        let end = value_at + value.next_multiple_of(8);
                        all.push(Known {
                            table,
                            key: bytes[record + 16..record + 16 + key].to_vec(),
                            value: bytes[value_at..value_at + value].to_vec(),
                            needs: chain.clone(),
                            payload: record + 8..end,
                        });
                        // What is above an older binding has to be whole as well.
                        chain.push(record + 8..end);
                        record = b.unit(record);
                    }
                }
                let next = b.unit(line + 56);
                if next == 0 {
                    break;
                }
                line = next;
                needs.push(word(line));
                needs.push(word(line + 56));
            }
        }
    }
    all
}

/// Sets bytes at random: single bits, words, lines, pages. Gives the ranges that are different now.
fn damage(bytes: &mut [u8], used: &[usize], random: &mut Random) -> Vec<bool> {
    let before = bytes.to_vec();
    for _ in 0..1 + random.below(60) {
        let page = 4096 * *random.one_of(used);
        let at = page + random.below(4096) as usize;
        match random.below(10) {
            0..4 => bytes[at] ^= 1 << random.below(8),
            4..8 => {
                let from = at & !7;
                let word = if random.once_in(2) { random.next() } else { random.next() >> 40 };
                bytes[from..from + 8].copy_from_slice(&word.to_le_bytes());
            }
            8 => {
                let from = at & !63;
                bytes[from..from + 64].fill_with(|| random.next() as u8);
            }
            _ => bytes[page..page + 4096].fill(0),
        }
    }
    before.iter().zip(&*bytes).map(|(before, after)| before != after).collect()
}

fn salvage_of_random_damage() {
    let mut random = Random::from_environment("salvage_of_random_damage");
    let (mut saved, mut could, mut stored, mut refused, mut forged, mut altered) = (0, 0, 0, 0, 0, 0);
    let (mut found_by_check, mut images, mut told) = (0, 0, 0);
    for round in 0..rounds(12, 600) {
        let original = Scratch::file("original");
        let object = open(original.name());
        let has_checksums = round % 2 == 1;
        if has_checksums {
            let options = named("settles the checksums").checksums(true).clone();
            HashTable::manage(&object, &options).expect("manages");
            object.drop_table("settles the checksums").expect("drops");
        }
        let keys = [40, 500, 2000][round as usize % 3];
        furnish(&object, &mut random, keys);
        drop(object);
        let bytes = std::fs::read(original.path()).expect("reads");
        let known = known_bindings(&bytes);
        let used: Vec<usize> = (0..bytes.len() / 4096)
            .filter(|p| bytes[4096 * p..4096 * (p + 1)].iter().any(|b| *b != 0))
            .collect();
        for _ in 0..6 {
            images += 1;
            let mut image = bytes.clone();
            let changed = damage(&mut image, &used, &mut random);
            let hurt = |range: &Range<usize>| changed[range.clone()].iter().any(|changed| *changed);
            let (from, to) = (Scratch::file("damaged"), Scratch::file("saved"));
            std::fs::write(from.path(), &image).expect("writes");
            let is_sound = is_sound(from.name());
            found_by_check += u64::from(!is_sound);
            if has_checksums && known.iter().any(|binding| hurt(&binding.payload)) {
                assert!(!is_sound, "the check verifies checksums");
                told += 1;
            }
            let outcome = netshm::salvage(from.name(), to.name(), 0o600, false);
            if let Err(e) = &outcome {
                assert!(matches!(e, Error::Corrupt { .. } | Error::Newer(_)), "{e}");
                assert!((0..128).any(|at| changed[at]), "only a damaged header is a reason: {e}");
                refused += 1;
                continue;
            }
            let copy = open(to.name());
            assert_object_sound(&copy);
            let tables = [options(), named("second")].map(|options| {
                let there = copy
                    .tables()
                    .expect("lists")
                    .iter()
                    .any(|t| t.name.as_deref().unwrap_or("") == options_root(&options));
                if there {
                    contents(&HashTable::manage(&copy, &options).expect("manages"))
                } else {
                    BTreeMap::new()
                }
            });
            let mut intact: HashSet<(usize, &[u8], &[u8])> = HashSet::new();
            for binding in &known {
                stored += 1;
                let whole = !binding.needs.iter().any(hurt) && !hurt(&binding.payload);
                intact.insert((binding.table, &binding.key, &binding.value));
                if whole {
                    could += 1;
                    let is_saved = tables[binding.table]
                        .get(&binding.key)
                        .is_some_and(|all| all.contains(&binding.value));
                    saved += u64::from(is_saved);
                }
            }
            // Nothing that was not stored; what is hurt itself, and nothing tells, is counted.
            for (table, contents) in tables.iter().enumerate() {
                for (key, values) in contents {
                    for value in values {
                        if intact.contains(&(table, key, value)) {
                            continue;
                        }
                        let is_hurt = |k: &Known| k.table == table && k.key == *key && hurt(&k.payload);
                        // With checksums one of 8 million is to be expected.
                        let unnoticed = !has_checksums && known.iter().any(is_hurt);
                        *if unnoticed { &mut altered } else { &mut forged } += 1;
                    }
                }
            }
        }
    }
    println!(
        "salvage_of_random_damage: {images} images, of {stored} bindings {could} could be saved, {saved} were; \
         {altered} values were hurt themselves; {refused} refused; {found_by_check} found by the check, {told} of them with checksums and hurt values"
    );
    assert_eq!(forged, 0, "bindings that nobody stored");
    assert_eq!(saved, could, "all that could be saved");
}

/// Every way of changing a record, alone and in groups, leaves right checksums.
fn checksums_are_kept() {
    let mut random = Random::from_environment("checksums_are_kept");
    let scratch = Scratch::file("checksums");
    let object = open(scratch.name());
    let table = HashTable::manage(&object, &options().checksums(true).clone()).expect("manages");
    let of = |text: &str| Type::parse(text).expect("a type");
    let zero = [Value::Int(0), Value::Int(0), Value::Int(0)];
    let array = Array::manage(&object, &of("int"), &zero[..1], 5000, &named("int")).expect("manages");
    let small = Array::manage(&object, &of("int32"), &zero[..1], 5000, &named("int32")).expect("manages");
    let triple = of("(int,(int,int))");
    let wide = Array::manage(&object, &triple, &zero, 5000, &named("wide")).expect("manages");
    let texts = Array::manage_bytes(&object, b"none", 5000, &named("texts")).expect("manages");
    let primitive = PrimitiveTable::manage(&object, &named("primitive")).expect("manages");
    let step = |random: &mut Random| {
        let key = random.below(60).to_le_bytes();
        let value = vec![random.next() as u8; random.below(300) as usize];
        match random.below(15) {
            0 => table.add(&key, &value).expect("adds"),
            1 => table.replace(&key, &value).expect("replaces"),
            2 => _ = table.remove(&key).expect("removes"),
            3 => {
                table.replace(b"counter", &5i64.to_le_bytes()).expect("replaces");
                _ = table.increment(b"counter", 3, 0).expect("increments");
            }
            4 => _ = table.insert(&key, &value),
            5 => table
                .update(&key, |old| match old {
                    Some(old) => netshm::Update::Replace(old.iter().map(|byte| byte ^ 0x55).collect()),
                    None => netshm::Update::Keep,
                })
                .expect("updates"),
            6 => array.set_i64(random.below(4000), 9).expect("sets"),
            7 => _ = array.increment(random.below(4000), 1).expect("increments"),
            8 => small.set(random.below(4000), &[1, 2, 3, 4]).expect("sets"),
            9 => {
                let element = triple.encode(&[Value::Int(7), Value::Int(8), Value::Int(9)]).expect("encodes");
                wide.set(random.below(4000), &element).expect("sets");
            }
            10 => {
                let first = random.below(3000);
                let count = if random.once_in(2) { 1000 } else { 5 };
                array.write(first, &vec![random.next() as u8; 8 * count]).expect("writes");
            }
            11 => small.resize(4000 + random.below(1000)).expect("resizes"),
            12 => primitive.replace(random.below(9) as i32, &[1, 2, random.next() as i32]).expect("replaces"),
            13 => texts.set(random.below(4000), &value).expect("sets"),
            _ => table.replace(&key, &vec![1; 50_000]).expect("replaces"),
        }
    };
    for _ in 0..rounds(60, 2000) {
        for _ in 0..random.below(30) {
            step(&mut random);
        }
        let group = table.table().begin().expect("begins");
        for _ in 0..random.below(10) {
            step(&mut random);
        }
        if random.once_in(3) {
            group.abort().expect("aborts")
        } else {
            group.commit().expect("commits")
        }
        if random.once_in(4) {
            assert_object_sound(&object);
        }
    }
    table.replace_many(&[(b"one", b"many"), (b"two", b"many")]).expect("replaces many");
    assert_eq!(table.find(b"two").expect("finds").as_deref(), Some(&b"many"[..]));
    assert_object_sound(&object);
    let copy = Scratch::file("copy");
    let done = netshm::salvage(scratch.name(), copy.name(), 0o600, false).expect("salvages");
    assert_eq!((done.bindings_lost, done.buckets_lost, done.bindings_counted), (0, 0, Some(done.bindings)));
    assert_sound(copy.name());
    drop((table, array, small, wide, texts, primitive, object));
    // What an object has, later handles get without asking; one that has none is refused to whoever wants them.
    let table = HashTable::manage(&open(copy.name()), &options().checksums(true).clone()).expect("manages");
    table.replace(b"one", b"more").expect("replaces");
    drop(table);
    assert_sound(copy.name());
    let plain = Scratch::file("plain");
    let object = open(plain.name());
    HashTable::manage(&object, &options()).expect("manages");
    let refused = HashTable::manage(&object, &options().checksums(true).clone());
    assert!(matches!(refused, Err(Error::Kind { .. })), "{refused:?}");
}

fn options_root(options: &ManageOptions) -> &'static str {
    if format!("{options:?}").contains("second") { "second" } else { "" }
}

fn is_sound(name: &Name) -> bool {
    let opened = OpenOptions::new().read_only(true).open(name);
    opened.is_ok_and(|object| matches!(object.check(|_| true), Ok(Summary { complete: true, .. })))
}

fn salvage_of_hostile_bytes() {
    watchdog(600);
    let mut random = Random::from_environment("salvage_of_hostile_bytes");
    let original = Scratch::file("original");
    let object = open(original.name());
    furnish(&object, &mut random, 300);
    drop(object);
    let bytes = std::fs::read(original.path()).expect("reads");
    let used: Vec<usize> =
        (1..bytes.len() / 4096).filter(|p| bytes[4096 * p..4096 * (p + 1)].iter().any(|b| *b != 0)).collect();
    let mut total = Salvaged::default();
    for _ in 0..rounds(60, 20_000) {
        let mut image = bytes.clone();
        // Words that are those of other places: plausible everywhere, right nowhere.
        for _ in 0..random.below(3000) {
            let place = |random: &mut Random| 4096 * *random.one_of(&used) + 8 * random.below(512) as usize;
            let (from, to) = (place(&mut random), place(&mut random));
            let word: [u8; 8] = image[from..from + 8].try_into().expect("8 bytes");
            let word = if random.once_in(8) { random.next().to_le_bytes() } else { word };
            image[to..to + 8].copy_from_slice(&word);
        }
        if random.once_in(10) {
            image.truncate(random.below(bytes.len() as u64) as usize);
        }
        let (from, to) = (Scratch::file("hostile"), Scratch::file("saved"));
        std::fs::write(from.path(), &image).expect("writes");
        if random.once_in(4) {
            // Very long, and nearly all of it a hole.
            std::fs::File::options()
                .write(true)
                .open(from.path())
                .expect("opens")
                .set_len(1 << 40)
                .expect("lengthens");
        }
        match netshm::salvage(from.name(), to.name(), 0o600, false) {
            Ok(done) => {
                total.bindings += done.bindings;
                total.bindings_lost += done.bindings_lost;
                assert_sound(to.name());
            }
            Err(e) => assert!(matches!(e, Error::Corrupt { .. } | Error::Newer(_)), "{e}"),
        }
    }
    println!("salvage_of_hostile_bytes: {} saved, {} lost", total.bindings, total.bindings_lost);
}

fn word(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Places in the format: the main root and the catalog in the gate's page; an entry of the catalog, and its name; in a root
/// the signature of the values, and the bucket arrays.
const MAIN_ROOT: usize = 2 * 4096 + 64;
const CATALOG: usize = 2 * 4096 + 72;
const ENTRY: usize = 256;
const VALUES: usize = 192 * 8;
const ARRAYS: usize = 32 * 8;

fn a_damaged_root_loses_its_table_alone() {
    let (from, to) = (Scratch::posix("good"), Scratch::posix("saved"));
    {
        let object = open(from.name());
        let good = HashTable::manage(&object, &named("good")).expect("manages");
        (0..1000u32).for_each(|n| good.add(&n.to_le_bytes(), b"v").expect("adds"));
        HashTable::manage(&object, &named("bad")).expect("manages");
    }
    let mut bytes = std::fs::read(from.path()).expect("reads");
    let entries = word(&bytes, CATALOG) + ENTRY;
    let bad = (0..15).map(|n| entries + ENTRY * n).find(|at| bytes[at + 16..].starts_with(b"bad"));
    let root = word(&bytes, bad.expect("is there"));
    put(&mut bytes, root + VALUES, 3);
    bytes[root + VALUES + 8..][..3].copy_from_slice(b",_)");
    std::fs::write(from.path(), bytes).expect("writes");
    let done = netshm::salvage(from.name(), to.name(), 0o600, false).expect("salvages");
    assert_eq!((done.tables, done.tables_lost, done.bindings), (1, 1, 1000), "{done:?}");
}

/// Named tables, all of which have the same large region for their buckets.
fn roots_that_share_their_buckets_take_no_ages() {
    const ROOTS: usize = 450;
    let (from, to) = (Scratch::posix("shared"), Scratch::posix("saved"));
    HashTable::manage(&open(from.name()), &options()).expect("manages").add(b"k", b"v").expect("adds");
    let mut bytes = std::fs::read(from.path()).expect("reads");
    let first = bytes.len().next_multiple_of(4096);
    let main = word(&bytes, MAIN_ROOT);
    let root = bytes[main..main + 4096].to_vec();
    bytes.resize(first + (ROOTS / 15 + ROOTS) * 4096, 0);
    let (mut page, mut at, mut before) = (first, first + ROOTS / 15 * 4096, 0);
    for n in 0..ROOTS {
        let entry = page + ENTRY * (1 + n % 15);
        put(&mut bytes, entry, at as u64);
        put(&mut bytes, entry + 8, 8);
        bytes[entry + 16..entry + 24].copy_from_slice(format!("{n:08}").as_bytes());
        bytes[at..at + 4096].copy_from_slice(&root);
        (0..34).for_each(|k| put(&mut bytes, at + ARRAYS + 8 * k, first as u64));
        at += 4096;
        if n % 15 == 14 {
            put(&mut bytes, page, before);
            before = page as u64;
            page += 4096;
        }
    }
    put(&mut bytes, CATALOG, before);
    std::fs::write(from.path(), bytes).expect("writes");
    let exit = fork(|| {
        watchdog(30);
        let done = netshm::salvage(from.name(), to.name(), 0o600, false).expect("salvages");
        println!("roots_that_share_their_buckets_take_no_ages: {done:?}");
    })
    .wait();
    assert_eq!(exit, support::process::Exit::Code(0));
}

fn copies_may_be_read_only_and_have_long_names() {
    let from = Scratch::posix("from");
    let object = open(from.name());
    HashTable::manage(&object, &options()).expect("manages").add(b"k", b"v").expect("adds");
    let directory = std::env::temp_dir().join(format!("netshm-copies-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("directory");
    let name = Name::file(directory.join("n".repeat(255)));
    for replace in [false, true] {
        object.backup(&name, 0o444, replace, 0).expect("backs up");
    }
    let exit = fork(|| {
        // SAFETY: plain system calls. A root may write to everything, so somebody else salvages.
        unsafe {
            if libc::geteuid() == 0 {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                std::fs::set_permissions(&directory, mode).expect("permits");
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
            }
        }
        let saved = Name::file(directory.join("saved"));
        netshm::salvage(&name, &saved, 0o400, false).expect("salvages");
        let object = OpenOptions::new().read_only(true).open(&saved).expect("opens");
        let table = HashTable::manage(&object, &options()).expect("manages");
        assert_eq!(table.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
    })
    .wait();
    std::fs::remove_dir_all(directory).expect("cleanup");
    assert_eq!(exit, support::process::Exit::Code(0));
}
