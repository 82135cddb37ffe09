//! Goal: nobody gets in who may not, nobody leads the library to a file that is not meant, nobody who may only read is
//! in the way of those who write, and nothing of a process's memory but keys and values gets into an object.
//!
//! Method: real other users (a child becomes "nobody"), files of all kinds planted where the library makes or opens its
//! own, locks and calls of all kinds by somebody who may only read, keys made to collide, memory filled with a pattern
//! that must not show up in the object. docs/security.md says what is promised.

mod support_processes;
mod support_security;

use netshm::{
    Array, BlockOp, Error, HashTable, KeyHashing, ManageOptions, Name, Object, OpenOptions, PmKind, PmObject,
    Pmanage, PrimitiveTable, Step, TypedArray, TypedHashTable, Update,
};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support_processes::*;
use support_security::*;

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).mode() & 0o7777
}

fn table(object: &Object) -> HashTable {
    HashTable::manage(object, &ManageOptions::new()).expect("manages")
}

/// Goal: all files have the mode that was asked for, less the umask, whatever makes them.
#[test]
fn modes_and_the_umask_at_every_creation() {
    let _alone = alone();
    for mask in [0o000, 0o022, 0o027, 0o077] {
        for mode in [0o600, 0o640, 0o666, 0o644, 0o400] {
            let place = Place::new("modes", 0o755);
            stage(30, || {
                // SAFETY: a plain system call.
                unsafe { libc::umask(mask) };
                let wanted = mode & !mask;
                let mut options = OpenOptions::new();
                options.create(true).mode(mode);
                let is = |path: PathBuf| {
                    let found = mode_of(&path);
                    assert_eq!(found, wanted, "{}: {found:o}, umask {mask:o}, mode {mode:o}", path.display());
                };
                let object = options.open(&place.posix("posix")).expect("opens");
                table(&object).add(b"k", b"v").expect("adds");
                is(place.file("posix"));
                is(place.memory("posix"));
                options.open(&Name::file(place.file("file"))).expect("opens");
                is(place.file("file"));
                let unique = options.create_unique(&place.posix("XXXXXXXX")).expect("creates");
                let Some(Name::Posix { file, mem }) = unique.name() else { panic!("it has a name") };
                is(file.clone());
                is(Path::new("/dev/shm").join(mem.to_string_lossy().trim_start_matches('/')));
                let unique = options.create_unique(&Name::file(place.file("uXXXXXXXX"))).expect("creates");
                is(unique.name().expect("has a name").file_name().to_owned());
                for (copy, salvaged) in [("c", "s"), ("c", "s")] {
                    object.backup(&place.posix(copy), mode, true, 1000).expect("copies");
                    object.backup(&Name::file(place.file("cf")), mode, true, 1000).expect("copies");
                    netshm::salvage(&place.posix("posix"), &place.posix(salvaged), mode, true)
                        .expect("salvages");
                    netshm::salvage(&place.posix("posix"), &Name::file(place.file("sf")), mode, true)
                        .expect("salvages");
                    for name in [copy, salvaged] {
                        is(place.file(name));
                        is(place.memory(name));
                    }
                    is(place.file("cf"));
                    is(place.file("sf"));
                }
                Pmanage::open(place.file("list"))
                    .and_then(|list| list.register(&PmObject::new(PmKind::File, "/nowhere/x")))
                    .expect("registers");
                assert_eq!(mode_of(&place.file("list")), 0o600 & !mask);
            });
        }
    }
}

/// What somebody plants where the library looks for its own.
const PLANTED: [&str; 7] = ["link", "dangling link", "fifo", "directory", "socket", "device", "hard link"];

/// Plants it. False: not possible here.
fn plant(what: &str, at: &Path, victim: &Path) -> bool {
    let path = CString::new(at.as_os_str().as_bytes()).expect("has no NUL");
    match what {
        "link" => symlink(victim, at).expect("plants"),
        "dangling link" => symlink(victim.with_extension("nowhere"), at).expect("plants"),
        // SAFETY: a C string that lives during the call.
        "fifo" => assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o666) }, 0),
        "directory" => std::fs::create_dir(at).expect("plants"),
        "socket" => drop(std::os::unix::net::UnixListener::bind(at).expect("plants")),
        "hard link" => std::fs::hard_link(victim, at).expect("plants"),
        _ => {
            // SAFETY: as above; 1, 3 is the null device.
            let code = unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)) };
            return code == 0;
        }
    }
    true
}

/// Goal: whatever stands where the library's files are to be, it is not followed, not opened, not waited for, not written
/// to. Method: each role of a file, each thing in its place.
#[test]
fn planted_files_are_not_used() {
    let _alone = alone();
    const PRECIOUS: &[u8] = b"root:x:0:0\n";
    type Use = fn(&Place, &Path) -> Result<(), Error>;
    let create = |name: &Name| OpenOptions::new().create(true).open(name).map(drop);
    // The role, where its file lies, and what is done.
    let roles: [(&str, Use); 7] = [
        ("data", |_, at| OpenOptions::new().create(true).open(&Name::file(at)).map(drop)),
        ("data to read", |_, at| OpenOptions::new().read_only(true).open(&Name::file(at)).map(drop)),
        ("management", |place, at| {
            let name = Name::posix(at, format!("/{}-other", place.tag));
            OpenOptions::new().create(true).open(&name).map(drop)
        }),
        ("memory", |place, _| OpenOptions::new().create(true).open(&place.posix("memory")).map(drop)),
        ("copy", |place, at| {
            let object = OpenOptions::new().open(&place.posix("object")).expect("opens");
            object.backup(&Name::file(at), 0o600, false, 1000).map(drop)
        }),
        ("salvaged", |place, at| {
            netshm::salvage(&place.posix("object"), &Name::file(at), 0o600, false).map(drop)
        }),
        ("list", |_, at| {
            let list = Pmanage::open(at)?;
            list.register(&PmObject::new(PmKind::File, "/nowhere/x"))
        }),
    ];
    for what in PLANTED {
        for (role, use_it) in roles {
            let place = Place::new("planted", 0o755);
            let victim = place.file("victim");
            std::fs::write(&victim, PRECIOUS).expect("writes");
            create(&place.posix("object")).expect("creates");
            table(&OpenOptions::new().open(&place.posix("object")).expect("opens"))
                .add(b"k", b"v")
                .expect("adds");
            let at = if role == "memory" { place.memory("memory") } else { place.file("planted") };
            if !plant(what, &at, &victim) {
                skip(&format!("security: a {what} cannot be planted here"));
                continue;
            }
            // With a watchdog: it does not wait for a FIFO's other end.
            stage(20, || {
                let e = use_it(&place, &at).expect_err("is refused");
                let clear = match e {
                    Error::Invalid { .. } => what != "hard link",
                    Error::Exists => matches!(role, "copy" | "salvaged"),
                    Error::Corrupt { .. } | Error::Kind { .. } | Error::Line { .. } => what == "hard link",
                    _ => false,
                };
                assert!(clear, "{role}, {what}: {e:?}");
            });
            assert_eq!(std::fs::read(&victim).expect("reads"), PRECIOUS, "{role}, {what}");
            assert!(!victim.with_extension("nowhere").exists(), "{role}, {what}");
        }
    }
    // A copy that replaces puts itself in the place of a link, not of what that leads to.
    let place = Place::new("replaced", 0o755);
    let victim = place.file("victim");
    std::fs::write(&victim, PRECIOUS).expect("writes");
    symlink(&victim, place.file("copy")).expect("plants");
    let object = OpenOptions::new().create(true).open(&place.posix("object")).expect("opens");
    table(&object).add(b"k", b"v").expect("adds");
    object.backup(&Name::file(place.file("copy")), 0o600, true, 1000).expect("copies");
    assert_eq!(std::fs::read(&victim).expect("reads"), PRECIOUS);
    assert!(std::fs::symlink_metadata(place.file("copy")).expect("is there").is_file());
}

/// Goal: in a directory like /tmp others cannot remove or replace our files, and what they make there beforehand does no
/// more than to deny us the name. Method: two users in a sticky directory that all may write.
#[test]
fn two_users_in_a_sticky_directory() {
    let _alone = alone();
    let place = Place::new("sticky", 0o1777);
    let ours = OpenOptions::new().create(true).open(&place.posix("ours")).expect("opens");
    table(&ours).add(b"k", b"v").expect("adds");
    let file = Name::file(place.file("file"));
    table(&OpenOptions::new().create(true).open(&file).expect("opens")).add(b"k", b"v").expect("adds");
    std::fs::write(place.file("victim"), "x").expect("writes");
    let victim = PmObject::new(PmKind::File, place.file("victim"));
    let tried = as_nobody("a sticky directory", || {
        for name in [place.posix("ours"), file.clone()] {
            for read_only in [true, false] {
                let opened = OpenOptions::new().read_only(read_only).open(&name).err();
                assert_eq!(opened, Some(Error::Permission), "{name:?}");
            }
            assert_eq!(OpenOptions::new().create(true).open(&name).err(), Some(Error::Permission));
            assert_eq!(Object::unlink(&name), Err(Error::Permission));
            let to = Name::file(place.file("stolen"));
            assert_eq!(netshm::salvage(&name, &to, 0o600, false).err(), Some(Error::Permission));
        }
        let object = OpenOptions::new().create(true).open(&place.posix("theirs")).expect("opens");
        table(&object).add(b"k", b"v").expect("adds");
        for name in [place.posix("ours"), file.clone()] {
            // Not in the place of another user's object, which the kernel sees to.
            assert!(object.backup(&name, 0o600, true, 1000).is_err());
        }
        // A management file for memory that is to come, with another name in it; and a list of what to delete.
        std::fs::write(place.file("coming"), "R POSIX_SHM \"/etc-passwd\"\n").expect("plants");
        let list = Pmanage::open(place.file("list")).expect("opens");
        list.register(&victim).expect("registers");
        for name in ["coming", "list"] {
            std::fs::set_permissions(place.file(name), PermissionsExt::from_mode(0o666)).expect("permits");
        }
    });
    if !tried {
        return;
    }
    assert_eq!(table(&ours).find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
    // What names another object is no management file of ours.
    let opened = OpenOptions::new().create(true).open(&place.posix("coming"));
    assert!(matches!(opened, Err(Error::Kind { .. })), "{opened:?}");
    assert!(!place.memory("coming").exists());
    // Root deletes nothing because somebody else has it in his list.
    let list = Pmanage::open(place.file("list")).expect("opens");
    assert_eq!(list.unlink(), Err(Error::Permission));
    assert!(place.file("victim").exists());
    assert_eq!(list.registered().expect("may be looked at"), [victim]);
    // Its owner may.
    as_nobody("a list", || Pmanage::open(place.file("list")).and_then(|l| l.unlink()).expect("unlinks"));
    // Whoever may not delete it does not.
    assert!(!is_root() || place.file("victim").exists());
}

/// Everything that a descriptor and a mapping for reading can be used for, once.
fn try_everything(fd: i32, at: *mut u8, len: usize) {
    let whole = |kind: i32| libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the kernel judges all of these; none may be able to change the object, which is what is tested.
    unsafe {
        assert_eq!(libc::fcntl(fd, libc::F_OFD_SETLK, &whole(libc::F_WRLCK)), -1, "a lock for writing");
        assert_eq!(libc::ftruncate(fd, 0), -1, "truncates");
        assert_eq!(libc::fallocate(fd, 0, 0, 1 << 20), -1, "allocates");
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(libc::fallocate(fd, punch, 0, 4096), -1, "punches");
        assert_eq!(libc::pwrite(fd, at.cast(), 8, 0), -1, "writes");
        assert_eq!(libc::fchmod(fd, 0o666), -1, "changes the mode");
        assert_eq!(
            libc::mprotect(at.cast(), len, libc::PROT_READ | libc::PROT_WRITE),
            -1,
            "makes it writable"
        );
        assert_eq!(libc::madvise(at.cast(), len, libc::MADV_REMOVE), -1, "removes");
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let writable = libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0);
        assert_eq!(writable, libc::MAP_FAILED, "maps for writing");
        let link = CString::new(format!("/proc/self/fd/{fd}")).expect("has no NUL");
        assert_eq!(libc::open(link.as_ptr(), libc::O_RDWR), -1, "opens again for writing");
        libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB);
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK);
        libc::madvise(at.cast(), len, libc::MADV_DONTNEED);
        libc::mlock(at.cast(), len.min(32 << 10));
        libc::msync(at.cast(), len, libc::MS_SYNC | libc::MS_INVALIDATE);
        libc::fsync(fd);
    }
}

/// Goal: whoever may only read does not keep writers from anything that they have begun: not by locks, not by taking their
/// wake-ups, not by moving them to queues of his own; and the locks of the dead are taken from them all the same.
/// Method: a user who may only read has locked all of the file and takes every wake-up of every word, while two processes
/// want the same key in groups, and a third one dies with it locked.
#[test]
fn readers_cannot_disturb_writers() {
    let _alone = alone();
    if !is_root() {
        skip("security: readers_cannot_disturb_writers: not root, so there is no other user");
        return;
    }
    let place = Place::new("disturbed", 0o755);
    let object = OpenOptions::new().create(true).mode(0o644).open(&place.posix("a")).expect("opens");
    let t = table(&object);
    t.increment(b"n", 0, 0).expect("makes it");
    let words = Shared::new(8);
    let rounds = if long_form() { 2000 } else { 200 };
    let writers: Vec<Child> = (0..3u64)
        .map(|i| {
            fork(120, || {
                let t = open(&place.posix("a"));
                t.replace(format!("registered {i}").as_bytes(), b"v").expect("replaces");
                words.add(0, 1);
                words.wait_for(1, 1);
                if i == 2 {
                    // Dies with the lock that the others want.
                    let group = t.table().begin().expect("begins");
                    t.increment(b"n", 1000, 0).expect("increments");
                    words.set(2, 1);
                    std::thread::sleep(Duration::from_millis(30));
                    std::mem::forget(group);
                    // SAFETY: ends the process at once.
                    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                }
                words.wait_for(2, 1);
                for _ in 0..rounds {
                    let group: Result<(), Error> = t.table().group_retry(None, || {
                        t.increment(b"n", 1, 0)?;
                        t.increment(b"m", 1, 0)?;
                        Ok(())
                    });
                    group.expect("commits");
                }
            })
        })
        .collect();
    words.wait_for(0, 3);
    let reader = become_nobody(60, || disturb(&place, &words));
    words.wait_for(3, 1);
    // A process that comes now is kept out, and told so, not kept waiting.
    let late = fork(30, || {
        let object = OpenOptions::new().open(&place.posix("a")).expect("opens");
        let t = table(&object);
        assert_eq!(t.contains(b"n"), Ok(true));
        assert!(matches!(t.add(b"late", b"v"), Err(Error::Busy(_))));
        words.set(5, 1);
        words.wait_for(6, 1);
        t.add(b"late", b"v").expect("adds when the reader has gone");
    });
    words.wait_for(5, 1);
    words.set(1, 1);
    let ends: Vec<End> = writers.into_iter().map(Child::wait).collect();
    assert_eq!(ends, [End::Exit(0), End::Exit(0), End::Signal(libc::SIGKILL)]);
    words.set(4, 1);
    reader.succeeds();
    words.set(6, 1);
    late.succeeds();
    let number = |key| t.find(key).expect("finds").and_then(|v| v.try_into().ok()).map(u64::from_le_bytes);
    assert_eq!((number(b"n"), number(b"m")), (Some(2 * rounds), Some(2 * rounds)));
    check(&place.posix("a"));
    say(&format!("{} disturbing calls\n", words.get(7)));
}

/// Disturbs, by the rights of a reader, until it is told to end.
fn disturb(place: &Place, words: &Shared) {
    let file = std::fs::File::open(place.memory("a")).expect("may be read");
    let len = file.metadata().expect("is there").len() as usize;
    let fd = file.as_raw_fd();
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    let at = at.cast::<u8>();
    try_everything(fd, at, len);
    for (start, length) in [(0, 0), (1i64 << 61, 0)] {
        let lock = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: start,
            l_len: length,
            l_pid: 0,
        };
        // What is not locked for writing can be locked: from behind the registered on.
        for skipped in 0..64 {
            let lock = libc::flock { l_start: lock.l_start + skipped, ..lock };
            // SAFETY: the structure lives during the call.
            if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) } == 0 {
                break;
            }
        }
    }
    let behind = libc::flock {
        l_type: libc::F_RDLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: (1 << 61) + (1 << 32) + 5,
        l_len: 0,
        l_pid: 0,
    };
    let creation = libc::flock { l_start: 1 << 61, l_len: 1, ..behind };
    for lock in [behind, creation] {
        // SAFETY: the structure lives during the call.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) }, 0, "locks for reading");
    }
    words.set(3, 1);
    let own = Box::new(0u32);
    while words.get(4) == 0 {
        for offset in (0..len).step_by(64) {
            let word = at.wrapping_add(offset).cast::<u32>();
            // SAFETY: the words are mapped, and the kernel checks the addresses.
            unsafe {
                libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
                // Takes the sleepers along to a word of its own, where nobody wakes them.
                libc::syscall(
                    libc::SYS_futex,
                    word,
                    libc::FUTEX_REQUEUE,
                    0,
                    i32::MAX as usize,
                    &raw const *own,
                    0,
                );
                // Stands in the queue itself, in front of them.
                let brief = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
                let value = word.read_volatile();
                if value & 0xff != 0 {
                    libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, &raw const brief, 0, 0);
                }
            }
            words.add(7, 3);
        }
    }
}

/// Goal: unnamed memory is as open as its descriptor says only if its mode says so, too. Method: another user gets a
/// descriptor for reading.
#[test]
fn a_descriptor_for_reading_and_the_mode_of_unnamed_memory() {
    let _alone = alone();
    let object = OpenOptions::new().anonymous().expect("makes memory");
    table(&object).add(b"k", b"v").expect("adds");
    let link = format!("/proc/self/fd/{}", object.as_fd().as_raw_fd());
    let reading: OwnedFd = std::fs::File::open(link).expect("opens again").into();
    let opens_for_writing = || {
        let again = CString::new(format!("/proc/self/fd/{}", reading.as_raw_fd())).expect("has no NUL");
        // SAFETY: a C string that lives during the call.
        let fd = unsafe { libc::open(again.as_ptr(), libc::O_RDWR) };
        if fd >= 0 {
            // SAFETY: it was just made.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        fd >= 0
    };
    // As docs/security.md warns.
    if !as_nobody("unnamed memory", || assert!(opens_for_writing(), "by its mode, everybody may")) {
        return;
    }
    object.chmod(0o600).expect("changes the mode");
    as_nobody("unnamed memory", || {
        assert!(!opens_for_writing());
        let copy = reading.try_clone().expect("duplicates");
        let object = OpenOptions::new().read_only(true).from_fd(copy).expect("opens");
        let t = table(&object);
        assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
        assert_eq!(t.add(b"k", b"w"), Err(Error::ReadOnly));
    });
}

/// The bytes of an object at rest, by which an attacker who may read it makes his keys.
fn seed_of(path: &Path) -> [u64; 2] {
    let bytes = std::fs::read(path).expect("reads");
    [64, 72].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("has 8 bytes")))
}

fn hash(hashing: KeyHashing, seed: [u64; 2], key: &[u8]) -> u64 {
    match hashing {
        KeyHashing::Keyed => {
            use std::hash::Hasher;
            let mut hasher = siphasher::sip::SipHasher13::new_with_keys(seed[0], seed[1]);
            hasher.write(key);
            hasher.finish()
        }
        _ => xxhash_rust::xxh3::xxh3_64_with_seed(key, seed[0]),
    }
}

/// Keys that the hash function with this seed sends to the same bucket of 1024.
fn colliding(hashing: KeyHashing, seed: [u64; 2], count: usize) -> Vec<Vec<u8>> {
    let candidates = (0u64..).map(|n| format!("session {n:016x}").into_bytes());
    candidates.filter(|key| hash(hashing, seed, key) & 1023 == 77).take(count).collect()
}

/// Goal: keys that collide for the hash function without a seed, or with another object's, do an object no harm. Method:
/// how many overflow lines they make beside arbitrary keys; and that keys made with the object's own seed make many, so
/// that the test would see it.
#[test]
fn keys_made_to_collide() {
    let _alone = alone();
    const COUNT: usize = 5000;
    let place = Place::new("flood", 0o755);
    for hashing in [KeyHashing::Fast, KeyHashing::Keyed] {
        let lines = |which: &str, make: &dyn Fn([u64; 2]) -> Vec<Vec<u8>>| {
            let path = place.file(which);
            let name = Name::file(&path);
            let object = OpenOptions::new().create(true).open(&name).expect("opens");
            let t = HashTable::manage(&object, ManageOptions::new().hashing(hashing)).expect("manages");
            for key in make(seed_of(&path)) {
                t.add(&key, b"v").expect("adds");
            }
            let summary = check_object(&object);
            assert_eq!(summary.keys, COUNT as u64);
            let seed = seed_of(&path);
            Object::unlink(&name).expect("unlinks");
            (summary.overflow_lines, seed)
        };
        let arbitrary = |_| (0..COUNT).map(|n| format!("arbitrary {n}").into_bytes()).collect();
        let (usual, others_seed) = lines("usual", &arbitrary);
        let (unkeyed, seed) = lines("unkeyed", &|_| colliding(hashing, [0; 2], COUNT));
        assert_ne!(seed, others_seed, "each object has a seed of its own");
        let (others, _) = lines("other's", &|_| colliding(hashing, others_seed, COUNT));
        let (own, _) = lines("own", &|seed| colliding(hashing, seed, COUNT));
        say(&format!(
            "{hashing:?}: overflow lines of {COUNT} keys: arbitrary {usual}, colliding without seed {unkeyed}, with \
             another object's {others}, with the object's own {own}\n"
        ));
        let most = usual * 3 / 2 + 50;
        assert!(unkeyed < most && others < most, "{usual} {unkeyed} {others}");
        assert!(own > 2 * most, "the test would not see it: {own}");
    }
}

/// Fills the free part of the stack with the pattern, deeper than any operation gets.
#[inline(never)]
fn poison_stack(pattern: u8) {
    let mut deep = [0u8; 64 << 10];
    std::hint::black_box(&mut deep).fill(pattern);
    std::hint::black_box(&deep);
}

/// Bytes within a poisoned surrounding, at an odd place in it.
struct Surrounded(Vec<u8>, usize, usize);

impl Surrounded {
    fn new(bytes: &[u8], at: usize) -> Surrounded {
        let mut all = vec![PATTERN; bytes.len() + 64];
        all[at..at + bytes.len()].copy_from_slice(bytes);
        Surrounded(all, at, bytes.len())
    }
    fn get(&self) -> &[u8] {
        &self.0[self.1..self.1 + self.2]
    }
}

const PATTERN: u8 = 0xd7;

/// Goal: nothing that is in the process's memory but keys and values gets into the object: not from its heap, its stack,
/// nor from beside the caller's bytes. Method: all of these are filled with a pattern; the object must not have it.
#[test]
fn nothing_else_gets_into_the_object() {
    let _alone = alone();
    for checksums in [false, true] {
        for file in [false, true] {
            let place = Place::new("poison", 0o755);
            let (name, path) = match file {
                true => (Name::file(place.file("a")), place.file("a")),
                false => (place.posix("a"), place.memory("a")),
            };
            stage(120, || {
                // The allocator fills what it hands out, and what it gets back.
                // SAFETY: it is a call of the C library.
                unsafe { libc::mallopt(libc::M_PERTURB, i32::from(!PATTERN)) };
                let fresh: Vec<u8> = Vec::with_capacity(5000);
                // SAFETY: reads what the allocator has put there.
                let filled = unsafe { fresh.as_ptr().add(100).read_volatile() };
                if filled != PATTERN {
                    skip(
                        "security: the allocator does not fill memory; the stack and what surrounds values remain",
                    );
                }
                all_operations(&name, checksums, &place);
            });
            for path in [path, place.file("copy"), place.file("saved")] {
                let bytes = std::fs::read(&path).expect("reads");
                let found = bytes.windows(3).position(|part| part == [PATTERN; 3]);
                let found = found.or_else(|| bytes.windows(3).position(|part| part == [!PATTERN; 3]));
                assert_eq!(found, None, "{} of {} bytes", path.display(), bytes.len());
            }
        }
    }
}

fn poisoned(act: &dyn Fn()) {
    poison_stack(PATTERN);
    act();
}

/// Each operation that stores something, with a poisoned stack and lengths of all remainders.
fn all_operations(name: &Name, checksums: bool, place: &Place) {
    poisoned(&|| {
        let object = OpenOptions::new().create(true).open(name).expect("opens");
        let mut options = ManageOptions::new();
        options.checksums(checksums);
        let t = HashTable::manage(&object, &options).expect("manages");
        let array =
            Array::manage_bytes(&object, b"def", 100, options.clone().root("array")).expect("manages");
        let numbers =
            Array::manage_i64(&object, 3, 100_000, options.clone().root("numbers")).expect("manages");
        for n in 0..700usize {
            let key = Surrounded::new(format!("k{n:0width$}", width = n % 23).as_bytes(), n % 13);
            let value = Surrounded::new(&vec![b'v'; n * 7 % 300], n % 11);
            poisoned(&|| match n % 7 {
                0 => t.replace(key.get(), value.get()).expect("replaces"),
                1 => _ = t.increment(key.get(), 5, 1).map_err(|e| assert_eq!(e, Error::NotFound)),
                2 => {
                    let group: Result<(), Error> = t.table().group(|| {
                        t.add(key.get(), value.get())?;
                        t.replace(b"both", value.get())
                    });
                    group.expect("commits");
                }
                3 => array.set(n as u64 % 100, value.get()).expect("sets"),
                4 => numbers.write(n as u64 * 100, &vec![1; 8 * (n % 40)]).expect("writes"),
                5 => t.add_many(&[(key.get(), value.get()), (b"x", value.get())]).expect("adds"),
                _ => t.add(key.get(), value.get()).expect("adds"),
            });
            if n % 3 == 0 {
                poisoned(&|| _ = t.remove(key.get()).expect("removes"));
            }
        }
        for len in [300, 5001, 70_003, 300_005] {
            let value = Surrounded::new(&vec![b'w'; len], 5);
            poisoned(&|| t.replace(b"large", value.get()).expect("replaces"));
        }
        poisoned(&|| array.resize(1000).expect("resizes"));
        poisoned(&|| changes_of_values(&t));
        poisoned(&|| last_changes(&t));
        poisoned(&|| slices_again(&object, &options));
        poisoned(&|| words(&object, &options));
        poisoned(&|| typed(&object, &options));
        poisoned(&|| object.sync(1000).expect("syncs"));
        let copy = Name::file(place.file("copy"));
        poisoned(&|| _ = object.backup(&copy, 0o600, false, 1000).expect("copies"));
        let saved = Name::file(place.file("saved"));
        poisoned(&|| _ = netshm::salvage(&copy, &saved, 0o600, false).expect("salvages"));
        check_object(&object);
    });
}

/// Lengths of all remainders, up and down, within a size class and beyond it, and of several chunks.
const LENS: [usize; 26] = [
    0, 1, 9, 3, 8, 7, 64, 63, 5, 100, 33, 301, 302, 299, 2, 1000, 17, 4001, 999, 70_001, 6, 70_002, 130_000,
    11, 300_003, 1,
];

/// A vector with a poisoned rest, as callbacks answer.
fn answered(byte: u8, len: usize) -> Vec<u8> {
    let mut all = vec![PATTERN; len + 64];
    all[..len].fill(byte);
    all.truncate(len);
    all
}

/// What replaces a value, by callbacks and comparison and without, by shorter and longer ones, also deep in stacks.
fn changes_of_values(t: &HashTable) {
    let value = |n: usize| Surrounded::new(&vec![b'a' + n as u8 % 26; LENS[n % LENS.len()]], 1 + n % 11);
    let keys: Vec<_> = (0..10).map(|n| Surrounded::new(&b"changed in all ways"[..9 + n], n % 13)).collect();
    for (i, key) in keys.iter().enumerate() {
        let key = key.get();
        poisoned(&|| t.insert(key, value(i).get()).expect("inserts"));
        for n in 0..2 * LENS.len() {
            let (old, new) = (value(n + i), value(n + i + 1));
            poisoned(&|| t.replace(key, old.get()).expect("replaces"));
            poisoned(&|| match n % 4 {
                0 => t.update(key, |_| Update::Replace(answered(b'u', new.get().len()))).expect("updates"),
                1 => t.compare_and_replace(key, old.get(), new.get()).expect("replaces"),
                2 => t.replace_many(&[(key, new.get()), (b"y", old.get())]).expect("replaces"),
                _ => t.add(key, new.get()).expect("adds"),
            });
            if n % 8 == 7 {
                let answer = |old: &[u8]| {
                    let change =
                        if old.len() % 3 == 0 { Update::Remove } else { Update::Replace(answered(b'z', n)) };
                    Ok(Some(change))
                };
                poisoned(&|| t.update_stack(key, answer).expect("rewrites the stack"));
                poisoned(&|| t.replace(key, new.get()).expect("replaces"));
            }
            // The same length, in place.
            let len = LENS[n % LENS.len()];
            let same = Surrounded::new(&vec![b's'; len], 1 + n % 5);
            poisoned(&|| t.replace(key, same.get()).expect("replaces"));
            poisoned(&|| t.update(key, |_| Update::Replace(answered(b't', len))).expect("updates"));
            poisoned(&|| t.compare_and_replace(key, &answered(b't', len), same.get()).expect("replaces"));
            if n % 5 == 4 {
                poisoned(&|| t.update(key, |_| Update::Remove).expect("removes"));
            }
        }
        poisoned(&|| {
            let group: Result<(), Error> = t.table().group(|| {
                t.update(key, |_| Update::Replace(answered(b'g', LENS[i + 3])))?;
                t.replace(key, value(i + 9).get())?;
                _ = t.remove(key)?;
                t.insert(b"of a group", value(i).get())?;
                t.compare_and_replace(b"of a group", value(i).get(), b"odd")?;
                t.remove(b"of a group").map(drop)
            });
            group.expect("commits");
        });
    }
}

/// What each way of changing a value leaves behind if nothing follows: the object is looked at in the end.
fn last_changes(t: &HashTable) {
    for (n, len) in LENS.into_iter().enumerate() {
        let old = Surrounded::new(&vec![b'o'; len], 1 + n % 11);
        for (i, new_len) in [len, LENS[(n + 1) % LENS.len()]].into_iter().enumerate() {
            let new = Surrounded::new(&vec![b'n'; new_len], 1 + n % 7);
            let answer = || Update::Replace(answered(b'u', new_len));
            for way in 0..6 {
                let key = format!("{way}, {n} to {i}");
                let key = key.as_bytes();
                poisoned(&|| t.insert(key, old.get()).expect("inserts"));
                poisoned(&|| match way {
                    0 => t.replace(key, new.get()).expect("replaces"),
                    1 => t.update(key, |_| answer()).expect("updates"),
                    2 => t.compare_and_replace(key, old.get(), new.get()).expect("replaces"),
                    3 => t.update_stack(key, |_| Ok(Some(answer()))).expect("rewrites"),
                    4 => t.table().group(|| t.update(key, |_| answer())).expect("updates in a group"),
                    _ => t.replace_many(&[(key, new.get())]).expect("replaces"),
                });
            }
        }
    }
}

/// Slices that are written over others, within elements that share a chunk and across chunks.
fn slices_again(object: &Object, options: &ManageOptions) {
    let manage = |root| Array::manage_i64(object, 3, 30_000, options.clone().root(root)).expect("manages");
    let numbers = manage("again");
    for (n, len) in LENS.iter().enumerate() {
        let count = (len / 16).max(1);
        let values = Surrounded::new(&vec![n as u8; 8 * count], 1 + n % 7);
        for first in [0, 100, 5000] {
            poisoned(&|| numbers.write(first, values.get()).expect("writes"));
            poisoned(&|| numbers.write(first + 1, values.get()).expect("writes"));
        }
        poisoned(&|| _ = numbers.increment(n as u64, 7).expect("increments"));
    }
    poisoned(&|| numbers.resize(10).expect("resizes"));
    poisoned(&|| numbers.resize(2000).expect("resizes"));
    let bytes =
        Array::manage_bytes(object, b"default", 50, options.clone().root("elements")).expect("manages");
    for n in 0..4 * LENS.len() {
        let value = Surrounded::new(&vec![b'e'; LENS[n % LENS.len()]], n % 11);
        poisoned(&|| bytes.set(n as u64 % 7, value.get()).expect("sets"));
    }
}

/// Primitive tables: values of words, odd numbers of them among these.
fn words(object: &Object, options: &ManageOptions) {
    let t = PrimitiveTable::manage(object, options.clone().root("words")).expect("manages");
    for (n, len) in LENS.iter().enumerate() {
        let value = vec![n as i32; len / 3];
        poisoned(&|| t.add(n as i32 % 5, &value).expect("adds"));
        poisoned(&|| t.replace(7, &value).expect("replaces"));
        poisoned(&|| {
            let change = |fragment: Option<&mut [i32]>| {
                if let Some(words) = fragment {
                    words.fill(5);
                }
                Ok((Step::Go, (n % 3 == 0).then_some(BlockOp::Remove)))
            };
            t.write_blocks(&[BlockOp::Remove], n as i32 % 5, change).expect("changes blocks");
        });
        if n % 6 == 5 {
            poisoned(&|| _ = t.remove(7).expect("removes"));
        }
    }
}

/// Typed tables and arrays, which encode what is stored in buffers of their own.
fn typed(object: &Object, options: &ManageOptions) {
    type Pair = (i64, Option<String>);
    let t = TypedHashTable::<String, Pair>::manage(object, options.clone().root("typed")).expect("manages");
    let a = TypedArray::<Pair>::manage(object, &(1, None), 100, options.clone().root("typed array"))
        .expect("manages");
    let pair = |n: usize| -> Pair {
        let text = "t".repeat(LENS[n % LENS.len()]);
        (n as i64 * 77, (n % 4 != 0).then_some(text))
    };
    for n in 0..2 * LENS.len() {
        let key = "key".repeat(n % 5);
        poisoned(&|| t.add(&key, &pair(n)).expect("adds"));
        poisoned(&|| t.replace(&key, &pair(n + 1)).expect("replaces"));
        poisoned(&|| t.compare_and_replace(&key, &pair(n + 1), &pair(n + 2)).expect("replaces"));
        poisoned(&|| t.update(&key, |_| Ok(Update::Replace(pair(n + 3)))).expect("updates"));
        poisoned(&|| a.set(n as u64 % 9, &pair(n)).expect("sets"));
        if n % 3 == 0 {
            poisoned(&|| _ = t.remove(&key).expect("removes"));
        }
        let fresh = format!("new {n}");
        poisoned(&|| t.insert(&fresh, &pair(n)).expect("inserts"));
    }
    let counters =
        TypedHashTable::<i64, i64>::manage(object, options.clone().root("counters")).expect("manages");
    for n in 0..20 {
        poisoned(&|| _ = counters.increment(&(n % 6), 5, 1).expect("increments"));
    }
}
