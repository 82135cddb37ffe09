//! Goal: what the machine's failure leaves of an object in a file. After a sync that nothing followed, the object is exactly
//! as it was; after further changes it is recognised, and used only if a check finds it sound.
//!
//! Method: a model of a device. It takes pages over when the library syncs them, and of the others, at the moment of
//! the crash, a random part. The image gets another boot's id and is opened. What was stored is known from a plain map.
//! `NETSHM_CAMPAIGN` names a directory that keeps which rounds are done, so that the same command goes on after an interruption.

mod support;

use netshm::{Damage, Error, HashTable, ManageOptions, Name, Object, OpenOptions};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use support::campaign::Campaign;
use support::process::{Exit, Shared, fork, watchdog};
use support::random::Random;
use support::scratch::Scratch;

const PAGE: usize = 4096;
const LIFE: usize = 4096;

fn main() {
    support::main(&[
        ("closed_in_order", closed_in_order),
        ("synced_and_unsynced", synced_and_unsynced),
        ("synced_while_others_write", synced_while_others_write),
        ("a_sync_waits_for_groups", a_sync_waits_for_groups),
        ("dying_at_every_store_of_a_sync", dying_at_every_store_of_a_sync),
        ("a_read_only_handle_does_not_adopt", a_read_only_handle_does_not_adopt),
        (
            "the_first_change_after_a_sync_waits_as_long_as_it_may",
            the_first_change_after_a_sync_waits_as_long_as_it_may,
        ),
        ("who_cannot_open_the_file_goes_on_after_a_sync", who_cannot_open_the_file_goes_on_after_a_sync),
        ("what_the_device_refused_is_not_forgotten", what_the_device_refused_is_not_forgotten),
    ]);
}

/// What a device holds of the file at `path`.
struct Device {
    path: PathBuf,
    bytes: Vec<u8>,
    syncs: u32,
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);

/// Watches over an object that has not been created yet.
fn watch(scratch: &Scratch) {
    *DEVICE.lock().expect("the device") = Some(Device { path: scratch.path(), bytes: Vec::new(), syncs: 0 });
    netshm::inject::observe_syncs(take_over);
}

fn take_over(inode: u64, range: Range<u64>) {
    let mut device = DEVICE.lock().expect("the device");
    let Some(device) = device.as_mut() else { return };
    // Images are synced as well.
    if std::fs::metadata(&device.path).map_or(0, |file| file.ino()) != inode {
        return;
    }
    let live = std::fs::read(&device.path).expect("reads the file");
    let range = range.start as usize..(range.end as usize).min(live.len());
    if device.bytes.len() < live.len() {
        device.bytes.resize(live.len(), 0);
    }
    device.bytes[range.clone()].copy_from_slice(&live[range]);
    device.syncs += 1;
}

fn syncs() -> u32 {
    DEVICE.lock().expect("the device").as_ref().map_or(0, |device| device.syncs)
}

/// What is there after a boot: each page that `written` chooses as it is in the file, the others as the device had it.
fn crash(mut written: impl FnMut() -> bool) -> Scratch {
    let device = DEVICE.lock().expect("the device");
    let device = device.as_ref().expect("is watched");
    let live = std::fs::read(&device.path).expect("reads the file");
    let mut bytes = device.bytes.clone();
    // The length is a page of the file system's.
    if written() && live.len() > bytes.len() {
        bytes.resize(live.len(), 0);
    }
    for (page, live) in bytes.chunks_mut(PAGE).zip(live.chunks(PAGE)) {
        if page != live && written() {
            page.copy_from_slice(live);
        }
    }
    reboot(&bytes)
}

fn reboot(bytes: &[u8]) -> Scratch {
    let scratch = Scratch::file("image");
    let mut bytes = bytes.to_vec();
    if bytes.len() > LIFE {
        bytes[LIFE] ^= 1;
    }
    std::fs::write(scratch.path(), &bytes).expect("writes the image");
    scratch
}

type Model = HashMap<Vec<u8>, Vec<u8>>;
/// All bindings that there have been.
type History = HashSet<(Vec<u8>, Vec<u8>)>;

fn options() -> ManageOptions {
    // A value may lie in two pages, of which one is lost: that shows by its checksum alone.
    ManageOptions::new().locking(support::locking()).checksums(true).clone()
}

fn open(name: &Name) -> Object {
    OpenOptions::new().create(true).open(name).expect("opens")
}

fn unclean<T>(outcome: &netshm::Result<T>) -> bool {
    matches!(outcome, Err(Error::Corrupt { what: Damage::Unclean, .. }))
}

/// Some changes, also in the model.
fn change(table: &HashTable, model: &mut Model, history: &mut History, random: &mut Random, count: u64) {
    for _ in 0..count {
        let key = format!("key {}", random.below(400)).into_bytes();
        if random.once_in(4) {
            table.remove(&key).expect("removes");
            model.remove(&key);
        } else {
            let value = vec![random.next() as u8; random.below(600) as usize];
            table.replace(&key, &value).expect("replaces");
            history.insert((key.clone(), value.clone()));
            model.insert(key, value);
        }
    }
}

fn assert_is(object: &Object, model: &Model) {
    let table = HashTable::manage(object, &options()).expect("manages");
    assert_eq!(table.len().expect("counts"), model.len() as u64);
    for (key, value) in model {
        assert_eq!(
            table.find(key).expect("finds").as_ref(),
            Some(value),
            "{:?}",
            String::from_utf8_lossy(key)
        );
    }
    support::scratch::assert_object_sound(object);
    table.replace(b"afterwards", b"it can be changed").expect("replaces");
}

fn rounds(short: u64, long: u64) -> u64 {
    support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { long } else { short })
}

fn closed_in_order() {
    let mut campaign = Campaign::open("crash.closed_in_order", "the object was as it had been closed");
    let seed = campaign.seed(|| Random::seed("closed_in_order"));
    support::rounds(&mut campaign, seed, rounds(5, 100), |_, random| {
        let scratch = Scratch::file("closed");
        watch(&scratch);
        let mut model = Model::new();
        for _ in 0..2 {
            let object = open(scratch.name());
            let table = HashTable::manage(&object, &options()).expect("manages");
            change(&table, &mut model, &mut History::new(), random, 300);
        }
        let image = crash(|| random.once_in(2));
        let object = open(image.name());
        assert_is(&object, &model);
        []
    });
    campaign.end();
}

/// How images of crashes have fared.
#[derive(Debug, Default)]
struct Fates {
    unchanged: u64,
    sound: u64,
    damaged: u64,
    not_created: u64,
    differing: u64,
    salvaged: u64,
    lost: u64,
}

impl Fates {
    fn counts(&self) -> [(&'static str, u64); 7] {
        [
            ("unchanged", self.unchanged),
            ("sound", self.sound),
            ("damaged", self.damaged),
            ("not created", self.not_created),
            ("differing", self.differing),
            ("bindings salvaged", self.salvaged),
            ("bindings lost", self.lost),
        ]
    }
}

fn synced_and_unsynced() {
    let holds = "what was synced was unchanged; what was not was recognised, and used only if sound";
    let mut campaign = Campaign::open("crash.synced_and_unsynced", holds);
    let seed = campaign.seed(|| Random::seed("synced_and_unsynced"));
    support::rounds(&mut campaign, seed, rounds(12, 400), |_, random| {
        let mut fates = Fates::default();
        let scratch = Scratch::file("synced");
        watch(&scratch);
        let object = open(scratch.name());
        let mut model = Model::new();
        let table = HashTable::manage(&object, &options()).expect("manages");
        let mut history = History::new();
        if random.once_in(4) {
            judge(&crash(|| random.once_in(2)), &model, &history, &mut fates);
        }
        for _ in 0..3 {
            let changes = 1 << random.below(10);
            change(&table, &mut model, &mut history, random, changes);
            object.sync(0).expect("syncs");
            // Nothing has been changed: whatever else the system has written makes no difference.
            for part in [1, 2, u64::MAX] {
                let image = crash(|| part == 1 || random.once_in(part));
                assert_is(&open(image.name()), &model);
                fates.unchanged += 1;
            }
            assert_eq!(table.find(b"no key").expect("finds"), None);
            let before = syncs();
            object.check(|finding| panic!("{finding:?}")).expect("sound");
            assert!(syncs() > before, "the gate was taken, which counts as a change");
            object.sync(0).expect("syncs again");

            let mut later = model.clone();
            // Removing what is not there would be no change.
            table.replace(b"key 0", b"surely a change").expect("replaces");
            later.insert(b"key 0".to_vec(), b"surely a change".to_vec());
            let changes = random.below(60);
            history.insert((b"key 0".to_vec(), b"surely a change".to_vec()));
            change(&table, &mut later, &mut history, random, changes);
            // All that came later is lost.
            let image = crash(|| false);
            let object = open(image.name());
            assert!(unclean(&HashTable::manage(&object, &options())), "is recognised");
            object.check(|finding| panic!("{finding:?}")).expect("what was synced is sound");
            assert_is(&object, &model);
            for part in [2, 3, 10] {
                judge(&crash(|| random.once_in(part)), &model, &history, &mut fates);
                judge(&crash(|| !random.once_in(part)), &model, &history, &mut fates);
            }
            model = later;
        }
        fates.counts()
    });
    let fates = Fates::default().counts().map(|(name, _)| (name, campaign.sum(name)));
    println!("synced_and_unsynced: {fates:?}");
    assert!(campaign.sum("sound") > 0 && campaign.sum("damaged") > 0, "both are seen: {fates:?}");
    campaign.end();
}

/// An image of an object that was in use.
fn judge(image: &Scratch, synced: &Model, history: &History, fates: &mut Fates) {
    let object = match OpenOptions::new().open(image.name()) {
        Ok(object) => object,
        Err(Error::Corrupt { what: Damage::Magic | Damage::Truncated, .. }) => {
            fates.not_created += 1;
            return;
        }
        Err(e) => panic!("{e}"),
    };
    let refused = HashTable::manage(&object, &options());
    assert!(unclean(&refused), "{refused:?}");
    assert!(unclean(&object.tables()) && unclean(&object.sync(0)));
    assert!(unclean(&OpenOptions::new().truncate(true).open(image.name()).map(|_| ())));
    match object.check(|_| true) {
        Ok(_) => {
            let table = HashTable::manage(&object, &options()).expect("can be used");
            fates.sound += 1;
            let same = table.len().expect("counts") == synced.len() as u64
                && synced.iter().all(|(k, v)| table.find(k).expect("finds").as_ref() == Some(v));
            fates.differing += u64::from(!same);
            assert_known(&table, history);
            table.replace(b"afterwards", b"it can be changed").expect("replaces");
            support::scratch::assert_object_sound(&object);
        }
        Err(Error::Corrupt { .. }) => {
            fates.damaged += 1;
            assert!(unclean(&HashTable::manage(&object, &options())), "is refused as before");
            salvage(image, history, fates);
        }
        Err(e) => panic!("{e}"),
    }
}

/// All that is there has been stored at some time.
fn assert_known(table: &HashTable, history: &History) {
    for binding in table.iter() {
        let binding = binding.expect("walks");
        assert!(history.contains(&binding), "never stored: {:?}", String::from_utf8_lossy(&binding.0));
    }
}

/// What does not pass the check can be salvaged.
fn salvage(image: &Scratch, history: &History, fates: &mut Fates) {
    let saved = Scratch::file("saved");
    let done = netshm::salvage(image.name(), saved.name(), 0o600, false).expect("salvages");
    fates.salvaged += done.bindings;
    fates.lost += done.bindings_lost;
    let copy = open(saved.name());
    support::scratch::assert_object_sound(&copy);
    if done.tables > 0 {
        assert_known(&HashTable::manage(&copy, &options()).expect("manages"), history);
    }
}

const ACCOUNTS: u64 = 50;

fn account(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// Moves amounts between accounts for ever.
fn transfer(name: &Name, seed: u64) -> ! {
    let object = OpenOptions::new().open(name).expect("opens");
    let table = HashTable::manage(&object, &options()).expect("manages");
    let mut random = Random::new(seed);
    loop {
        let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
        if from == to {
            table
                .replace(format!("other {}", random.below(500)).as_bytes(), &vec![7; from as usize * 20])
                .expect("");
            continue;
        }
        table
            .table()
            .group_retry(None, || -> netshm::Result<()> {
                table.increment(&account(from), -1, 0)?;
                table.increment(&account(to), 1, 0)?;
                Ok(())
            })
            .expect("transfers");
    }
}

fn sum(table: &HashTable) -> i64 {
    let value = |n| table.find(&account(n)).expect("finds").expect("is there");
    (0..ACCOUNTS).map(|n| i64::from_le_bytes(value(n).try_into().expect("8 bytes"))).sum()
}

fn synced_while_others_write() {
    watchdog(300);
    let scratch = Scratch::file("busy");
    watch(&scratch);
    let object = open(scratch.name());
    let table = HashTable::manage(&object, &options()).expect("manages");
    for n in 0..ACCOUNTS {
        table.add(&account(n), &100i64.to_le_bytes()).expect("adds");
    }
    let mut writers: Vec<_> = (0..3).map(|seed| fork(|| transfer(scratch.name(), seed))).collect();
    let mut longest = std::time::Duration::ZERO;
    let holds = "among writers, the device had a state of one moment when the sync returned";
    let mut campaign = Campaign::open("crash.synced_while_others_write", holds);
    support::rounds(&mut campaign, 0, rounds(20, 2000), |round, _| {
        let start = std::time::Instant::now();
        object.sync(0).expect("syncs");
        longest = longest.max(start.elapsed());
        // The last thing that a sync writes is the mark, and what the device has then is at rest.
        let image = crash(|| false);
        if round % 2 == 0 {
            leave_locks(&image);
        }
        let copy = open(image.name());
        let copied = HashTable::manage(&copy, &options()).expect("is in order");
        assert_eq!(sum(&copied), 100 * ACCOUNTS as i64);
        support::scratch::assert_object_sound(&copy);
        []
    });
    println!("synced_while_others_write: the longest sync took {longest:?}");
    for writer in &mut writers {
        assert_eq!(writer.poll(), None, "writers go on");
        writer.kill();
    }
    assert_eq!(sum(&table), 100 * ACCOUNTS as i64);
    support::scratch::assert_object_sound(&object);
    campaign.end();
}

/// Makes some bucket locks look as if slot 2 had come while the gate was held: it takes them, and gives them back without
/// a change, at moments at which the device takes over other pages.
fn leave_locks(image: &Scratch) {
    const WRITING: u64 = 1 << 16;
    let mut bytes = std::fs::read(image.path()).expect("reads the image");
    let word = |bytes: &[u8], at: u64| {
        u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().expect("8 bytes"))
    };
    let root = word(&bytes, 2 * PAGE as u64 + 64);
    let buckets = word(&bytes, root + 8 * 32);
    for bucket in (0..64).step_by(3) {
        let at = (buckets + 64 * bucket) as usize;
        let locked = word(&bytes, at as u64) | 2 | WRITING;
        bytes[at..at + 8].copy_from_slice(&locked.to_le_bytes());
    }
    std::fs::write(image.path(), bytes).expect("writes the image");
}

fn a_sync_waits_for_groups() {
    let scratch = Scratch::file("groups");
    let object = open(scratch.name());
    let table = HashTable::manage(&object, &options()).expect("manages");
    let group = table.table().begin().expect("begins");
    table.add(b"key", b"value").expect("adds");
    assert!(matches!(object.sync(0), Err(Error::InGroup(_))));
    std::thread::scope(|threads| {
        let outcome = threads.spawn(|| [object.sync(-1), object.sync(30)]).join().expect("joins");
        assert!(outcome.iter().all(|o| matches!(o, Err(Error::Timeout { .. }))), "{outcome:?}");
    });
    group.commit().expect("commits");
    object.sync(-1).expect("syncs");
    object.sync(-1).expect("syncs twice");
    let reader = OpenOptions::new().read_only(true).open(scratch.name()).expect("opens");
    let view = HashTable::manage(&reader, &options()).expect("manages");
    assert_eq!(view.find(b"key").expect("finds").as_deref(), Some(&b"value"[..]));
    reader.check(|finding| panic!("{finding:?}")).expect("an object at rest is sound");
    assert!(matches!(reader.sync(0), Err(Error::ReadOnly)));
    table.add(b"other key", b"value").expect("adds");
    support::scratch::assert_object_sound(&object);
}

fn dying_at_every_store_of_a_sync() {
    watchdog(300);
    let shared = Shared::new(1);
    for k in 0.. {
        let scratch = Scratch::file("dying");
        let object = open(scratch.name());
        drop(HashTable::manage(&object, &options()).expect("manages"));
        let mut child = fork(|| {
            let object = OpenOptions::new().open(scratch.name()).expect("opens");
            let table = HashTable::manage(&object, &options()).expect("manages");
            table.add(b"key", b"value").expect("adds");
            object.sync(0).expect("syncs");
            netshm::inject::arm(k);
            table.add(b"key", b"newer").expect("adds after a sync");
            object.sync(0).expect("syncs");
            shared.set(0, netshm::inject::disarm());
        });
        let exit = child.wait();
        let table = HashTable::manage(&object, &options()).expect("manages");
        let all = table.find_all(b"key").expect("finds");
        assert!(all.len() == 2 || (all.len() == 1 && exit == Exit::KILLED), "{all:?} {exit:?}");
        table.add(b"key", b"mine").expect("adds");
        object.sync(0).expect("syncs");
        table.add(b"key", b"mine").expect("adds");
        support::scratch::assert_object_sound(&object);
        if exit == Exit::Code(0) {
            assert!(k == shared.get(0), "{k} of {}", shared.get(0));
            println!("dying_at_every_store_of_a_sync: {k} stores");
            return;
        }
        assert_eq!(exit, Exit::KILLED);
    }
}

fn a_read_only_handle_does_not_adopt() {
    let scratch = Scratch::file("reader");
    watch(&scratch);
    let object = open(scratch.name());
    let table = HashTable::manage(&object, &options()).expect("manages");
    table.add(b"key", b"value").expect("adds");
    let image = crash(|| true);
    let reader = OpenOptions::new().read_only(true).open(image.name()).expect("opens");
    assert!(unclean(&HashTable::manage(&reader, &options())));
    reader.check(|finding| panic!("{finding:?}")).expect("sound");
    assert!(unclean(&HashTable::manage(&reader, &options())), "who may only read cannot adopt it");
    open(image.name()).check(|finding| panic!("{finding:?}")).expect("sound");
    let view = HashTable::manage(&reader, &options()).expect("manages");
    assert_eq!(view.find(b"key").expect("finds").as_deref(), Some(&b"value"[..]));
}

/// Goal: the first change after a sync, which marks the object dirty under the creation byte, keeps to the table's time-out.
/// Method: a stranger has locked that byte.
fn the_first_change_after_a_sync_waits_as_long_as_it_may() {
    watchdog(60);
    const CREATION_BYTE: i64 = 1 << 61;
    let scratch = Scratch::file("byte");
    let object = open(scratch.name());
    let table = HashTable::manage(&object, &options()).expect("manages");
    table.add(b"key", b"value").expect("adds");
    // Later: it cannot open the file again, and one of its threads waits with the one description that is left.
    let step = Shared::new(1);
    let mut server = fork(|| {
        watchdog(60);
        let object = open(scratch.name());
        let manage =
            |ms| HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(ms)).expect("manages");
        let (patient, hasty) = (manage(0), manage(20));
        patient.add(b"takes", b"part").expect("adds");
        step.set(0, 1);
        while step.get(0) != 2 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a plain system call, with a struct that lives longer.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) }, 0);
        std::thread::scope(|threads| {
            threads.spawn(|| patient.replace(b"key", b"later").expect("has waited"));
            // Long enough for it to be waiting, mostly. What is judged does not depend on that.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let outcome = hasty.replace(b"key", b"later");
            assert!(matches!(outcome, Err(Error::Timeout { .. })), "without a number: {outcome:?}");
            step.set(0, 3);
        });
    });
    while step.get(0) != 1 {
        assert_eq!(server.poll(), None, "ends too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    object.sync(0).expect("syncs");
    let stranger = std::fs::File::options().write(true).open(scratch.path()).expect("opens");
    // SAFETY: the structure is plain numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_start = CREATION_BYTE;
    lock.l_len = 1;
    // SAFETY: a plain system call, with a structure that lives longer.
    let locked = unsafe {
        libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&stranger), libc::F_OFD_SETLK, &raw const lock)
    };
    assert_eq!(locked, 0);
    for ms in [-1, 20] {
        let hasty = HashTable::manage(&object, ManageOptions::new().lock_timeout_ms(ms)).expect("manages");
        let outcome = hasty.replace(b"key", b"later");
        assert!(matches!(outcome, Err(Error::Timeout { .. })), "{ms} ms: {outcome:?}");
    }
    step.set(0, 2);
    while step.get(0) != 3 {
        assert_eq!(server.poll(), None, "ends too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(stranger);
    assert_eq!(server.wait(), Exit::Code(0));
    table.replace(b"key", b"later").expect("replaces");
    assert_eq!(table.find(b"key").expect("finds").as_deref(), Some(&b"later"[..]));
}

/// Goal: a server that has used an object goes on with it, also after the syncs of others, when it cannot open the file
/// again. Method: it loses the means to, somebody else syncs, it changes and syncs with several threads.
fn who_cannot_open_the_file_goes_on_after_a_sync() {
    watchdog(120);
    without_opening("no number is free", || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a plain system call, with a struct that lives longer.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) == 0 }
    });
    // SAFETY: a plain system call.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIP: not root: dropped privileges and another root directory were NOT tested");
        return;
    }
    // SAFETY: plain system calls.
    without_opening("privileges are dropped", || unsafe { libc::setresuid(65534, 65534, 65534) == 0 });
    without_opening("another root directory", || {
        // SAFETY: plain system calls, with strings that end with 0.
        unsafe { libc::chroot(c"/sys".as_ptr()) == 0 && libc::chdir(c"/".as_ptr()) == 0 }
    });
}

fn without_opening(case: &str, lose: impl FnOnce() -> bool) {
    let scratch = Scratch::file("sealed");
    let step = Shared::new(1);
    let wait_for = |n| {
        while step.get(0) != n {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let mut server = fork(|| {
        watchdog(60);
        let object = open(scratch.name());
        let table = HashTable::manage(&object, &options()).expect("manages");
        table.add(b"key", b"value").expect("adds");
        assert!(lose(), "{case}: {}", std::io::Error::last_os_error());
        assert!(OpenOptions::new().open(scratch.name()).is_err(), "{case}: it can be opened");
        step.set(0, 1);
        wait_for(2);
        table.replace(b"key", b"after another's sync").unwrap_or_else(|e| panic!("{case}: {e}"));
        std::thread::scope(|threads| {
            for n in 0..3u8 {
                let (table, object) = (&table, &object);
                threads.spawn(move || {
                    for _ in 0..20 {
                        table.increment(&[n], 1, 0).unwrap_or_else(|e| panic!("{case}: {e}"));
                        object.sync(0).unwrap_or_else(|e| panic!("{case}: {e}"));
                    }
                });
            }
        });
        step.set(0, 3);
    });
    while step.get(0) != 1 {
        assert_eq!(server.poll(), None, "{case}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let object = open(scratch.name());
    object.sync(0).expect("syncs");
    step.set(0, 2);
    assert_eq!(server.wait(), Exit::Code(0), "{case}");
    let table = HashTable::manage(&object, &options()).expect("manages");
    assert_eq!(table.find(b"key").expect("finds").as_deref(), Some(&b"after another's sync"[..]));
    for n in 0..3u8 {
        assert_eq!(table.find(&[n]).expect("finds").as_deref(), Some(&20u64.to_le_bytes()[..]));
    }
    support::scratch::assert_object_sound(&object);
}

/// Goal: once the device has refused anything, the object is never again said to be clean before a check. Method: it
/// refuses each of the syncs of a change after a sync, and of the sync that follows; all later ones succeed.
fn what_the_device_refused_is_not_forgotten() {
    let refused = |outcome| matches!(outcome, Err(Error::System { errno: libc::EIO, .. }));
    for k in 0..4 {
        let scratch = Scratch::file("refused");
        watch(&scratch);
        let object = open(scratch.name());
        let table = HashTable::manage(&object, &options()).expect("manages");
        table.add(b"key", b"value").expect("adds");
        object.sync(0).expect("syncs");
        netshm::inject::fail_sync(k);
        let changed = table.replace(b"key", b"newer");
        if k == 0 {
            assert!(
                refused(changed.map(drop)),
                "it must not be changed before the device says that it is dirty"
            );
            table.replace(b"key", b"newer").expect("the device has taken it now");
        } else {
            changed.expect("replaces");
            assert!(refused(object.sync(0)), "sync {k}");
        }
        assert!(refused(object.sync(0)), "sync {k}: the pages that were refused count as written");
        table.replace(b"key", b"newest").expect("replaces");
        drop((table, object));
        let image = crash(|| true);
        let object = open(image.name());
        assert!(unclean(&HashTable::manage(&object, &options())), "sync {k}");
        object.check(|finding| panic!("{finding:?}")).expect("sound");
        object.sync(0).expect("a check has ended it");
    }
}
