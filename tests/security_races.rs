//! Goal: whoever works in a directory like /tmp is not led astray by another user who swaps what stands at his names while
//! he works: he changes nobody's files, uses nobody's object unknowingly, does not hang and does not crash.
//!
//! Method: "nobody" exchanges (atomically, by `RENAME_EXCHANGE`) what he may at all names that the library opens or makes
//! in a sticky directory, /dev/shm among these: symbolic links to files of root, a hard link where the kernel permits it,
//! FIFOs, directories, files of his own, nothing. Root opens, makes, copies, salvages, lists and deletes there meanwhile.
//! A race counts as hit when a whole swap of one of its names began and ended during the call. `NETSHM_LONG=1` goes on
//! for longer.

mod support_processes;
mod support_security;

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions, PmKind, PmObject, Pmanage};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support_processes::*;
use support_security::*;

/// What is done, and which of `Stand::names` it is about.
const ROLES: [(&str, Range<usize>); 9] = [
    ("file", 0..1),
    ("file to read", 0..1),
    ("memory", 1..3),
    ("copy", 3..4),
    ("copy in memory", 4..6),
    ("salvage", 6..8),
    ("list", 8..9),
    ("unique", 9..45),
    ("swept", 45..46),
];
const NAMES: usize = 46;

/// What root has, outside of the directory; the others may look at it.
const VICTIMS: [&str; 6] = ["empty", "text", "object", "list", "precious", "linkable"];

/// What is put in the place of a name.
const LURES: [&str; 13] = [
    "link empty",
    "link text",
    "link object",
    "link list",
    "link nowhere",
    "hard link",
    "fifo",
    "directory",
    "own junk",
    "own empty",
    "own object",
    "own line",
    "own list",
];

/// Where in these lists some are.
const SOURCE: usize = 6;
const OWN_OBJECT: usize = 10;

// Words in shared memory: who does what at present, then counts, then two words for each name.
const STOP: usize = 0;
const FOCUS: usize = 1;
const REMOVED: usize = 2;
const DENIED: usize = 3;
const HIDDEN: usize = 4;
const PLACED: usize = 5;
const BEGUN: usize = PLACED + LURES.len();
const DONE: usize = BEGUN + NAMES;
const WORDS: usize = DONE + NAMES;

/// Where it happens.
struct Stand {
    /// Sticky, and writable for all.
    place: Place,
    /// Root's only.
    victims: Place,
    names: Vec<PathBuf>,
    words: Shared,
}

impl Stand {
    fn new() -> Stand {
        let place = Place::new("races", 0o1777);
        let victims = Place::new("victims", 0o755);
        let mut names: Vec<PathBuf> = vec![
            place.file("data"),
            place.file("managed"),
            place.memory("managed"),
            place.file("copy"),
            place.file("saved"),
            place.memory("saved"),
            place.file("source"),
            place.file("salvaged"),
            place.file("list"),
        ];
        names.extend((b'0'..=b'9').chain(b'A'..=b'Z').map(|c| place.file(&format!("u{}", char::from(c)))));
        names.push(place.file("swept"));
        assert_eq!(names.len(), NAMES);
        let stand = Stand { place, victims, names, words: Shared::new(WORDS) };
        let at = |what| stand.victims.file(what);
        std::fs::write(at("empty"), "").expect("writes");
        std::fs::write(at("text"), "root:x:0:0\n").expect("writes");
        std::fs::write(at("linkable"), "daemon:x:1:1\n").expect("writes");
        std::fs::write(at("precious"), "is kept\n").expect("writes");
        std::fs::write(at("list"), format!("R FILE \"{}\"\n", at("precious").display())).expect("writes");
        let object = OpenOptions::new().create(true).mode(0o644).open(&Name::file(at("object")));
        table(&object.expect("makes")).add(b"secret", b"root's").expect("adds");
        // The kernel lets others link to what they may write, if to anything.
        std::fs::set_permissions(at("linkable"), PermissionsExt::from_mode(0o666)).expect("permits");
        stand
    }

    fn name(&self, what: &str) -> Name {
        Name::file(self.place.file(what))
    }
}

fn table(object: &Object) -> HashTable {
    HashTable::manage(object, &ManageOptions::new()).expect("manages")
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("has no NUL")
}

fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path).or_else(|e| std::fs::remove_dir(path).map_err(|_| e))
}

/// The other user, until he is stopped.
fn attack(stand: &Stand) {
    let nest = stand.place.file("nest");
    std::fs::create_dir(&nest).expect("makes a directory");
    let own = nest.join("object");
    let object = OpenOptions::new().create(true).mode(0o666).open(&Name::file(&own)).expect("makes");
    table(&object).add(b"theirs", b"nobody's").expect("adds");
    drop(object);
    let spare = nest.join("spare");
    let mut random = Random(0x5eed);
    let mut count = 0u64;
    while stand.words.get(STOP) == 0 {
        let names = ROLES[stand.words.get(FOCUS) as usize].1.clone();
        let i = names.start + random.below(names.len() as u64) as usize;
        let at = &stand.names[i];
        count += 1;
        let done = if random.below(5) == 0 {
            stand.words.set(BEGUN + i, count);
            let removed = remove(at).is_ok();
            stand.words.add(REMOVED, u64::from(removed));
            removed
        } else {
            // A source that can be salvaged, every other time.
            let lure = match i == SOURCE && random.below(2) == 0 {
                true => OWN_OBJECT,
                false => random.below(LURES.len() as u64) as usize,
            };
            // It is root's file and cannot be taken away again: seldom, or else the swaps end.
            if LURES[lure] == "hard link" && (random.below(32) != 0 || owner_is_root(at)) {
                continue;
            }
            let _ = remove(&spare);
            if !bait(stand, LURES[lure], &own, &spare) {
                continue;
            }
            stand.words.set(BEGUN + i, count);
            let placed = swap(&spare, at);
            stand.words.add(if placed { PLACED + lure } else { DENIED }, 1);
            placed
        };
        if done {
            stand.words.set(DONE + i, count);
        }
        if count % 16 == 0 {
            take_drafts(stand, &spare);
        }
    }
}

fn owner_is_root(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|at| at.uid() == 0)
}

/// Makes it, for a name to be. False: not permitted.
fn bait(stand: &Stand, lure: &str, own: &Path, spare: &Path) -> bool {
    let victim = |what: &str| stand.victims.file(what);
    let outcome = match lure {
        "hard link" => std::fs::hard_link(victim("linkable"), spare),
        // SAFETY: a C string that lives during the call.
        "fifo" => match unsafe { libc::mkfifo(c_path(spare).as_ptr(), 0o666) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        },
        "directory" => std::fs::create_dir(spare),
        "own junk" => std::fs::write(spare, "junk\n"),
        "own empty" => std::fs::write(spare, ""),
        "own object" => std::fs::hard_link(own, spare),
        "own line" => std::fs::write(spare, format!("R POSIX_SHM \"/{}-managed\"\n", stand.place.tag)),
        "own list" => std::fs::write(spare, format!("R FILE \"{}\"\n", victim("precious").display())),
        link => symlink(victim(link.strip_prefix("link ").expect("is a link")), spare),
    };
    outcome.is_ok()
}

/// Puts one in the place of the other at once, whatever that is. False: the kernel does not permit it.
fn swap(spare: &Path, at: &Path) -> bool {
    // An exchange if there is something, else a new name.
    rename(spare, at, libc::RENAME_EXCHANGE) || rename(spare, at, libc::RENAME_NOREPLACE)
}

fn rename(from: &Path, to: &Path, flags: libc::c_uint) -> bool {
    let (from, to) = (c_path(from), c_path(to));
    let cwd = libc::AT_FDCWD;
    // SAFETY: C strings that live during the call.
    unsafe { libc::syscall(libc::SYS_renameat2, cwd, from.as_ptr(), cwd, to.as_ptr(), flags) == 0 }
}

/// Tries to get at files that root has not finished.
fn take_drafts(stand: &Stand, spare: &Path) {
    for entry in std::fs::read_dir(&stand.place.path).into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(b".") {
            stand.words.add(HIDDEN, 1);
            let _ = remove(spare);
            let _ = bait(stand, "link empty", spare, spare);
            assert!(!rename(spare, &entry.path(), libc::RENAME_EXCHANGE), "a draft was taken");
        }
    }
}

/// What must not change of a victim; links to it may be made.
type Stamp = (u64, u64, u32, u32, u32, i64, i64);

fn stamp(path: &Path) -> Stamp {
    let m = std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (m.ino(), m.size(), m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec())
}

/// What root makes sure of.
struct Watch {
    stamps: Vec<Stamp>,
    contents: Vec<Vec<u8>>,
}

impl Watch {
    fn new(stand: &Stand) -> Watch {
        let paths = || VICTIMS.iter().map(|what| stand.victims.file(what));
        let contents = paths().map(|path| std::fs::read(path).expect("reads")).collect();
        Watch { stamps: paths().map(|path| stamp(&path)).collect(), contents }
    }

    fn nothing_has_happened(&self, stand: &Stand, contents: bool, after: &str) {
        for (i, what) in VICTIMS.iter().enumerate() {
            let path = stand.victims.file(what);
            assert_eq!(stamp(&path), self.stamps[i], "{what}, after {after}");
            if contents {
                assert!(std::fs::read(path).expect("reads") == self.contents[i], "{what}, after {after}");
            }
        }
        assert!(!stand.victims.file("nowhere").exists(), "made where a link leads, after {after}");
    }

    /// The object is none that root has elsewhere, and, if it has to be, root's.
    fn is_right(&self, object: &Object, exclusive: bool) {
        let link = format!("/proc/self/fd/{}", object.as_fd().as_raw_fd());
        let found = std::fs::metadata(link).expect("is open");
        assert!(found.is_file());
        assert!(self.stamps.iter().all(|stamp| stamp.0 != found.ino()), "a link was followed");
        assert!(!exclusive || found.uid() == 0, "another's object was taken for a new one");
    }
}

/// What was made is root's, and nobody has got in between: the sticky bit keeps it.
fn is_ours(path: &Path, mode: u32) {
    let found = std::fs::symlink_metadata(path).expect("is there");
    assert!(found.is_file() && found.uid() == 0 && found.nlink() == 1, "{}: {found:?}", path.display());
    assert_eq!(found.mode() & 0o7777, mode, "{}", path.display());
}

/// Works with an object that may be another's.
fn work(object: &Object) -> Result<(), Error> {
    let t = HashTable::manage(object, &ManageOptions::new())?;
    assert_eq!(t.find(b"secret")?, None, "another object was got at");
    t.replace(b"key", &[7; 5000])?;
    object.chmod(0o640)
}

/// One call, or a few that belong together.
fn call(stand: &Stand, watch: &Watch, ours: &Object, role: &str, n: u64) -> Result<(), Error> {
    let (exclusive, replace) = (n % 2 == 0, n % 3 != 0);
    let mut create = OpenOptions::new();
    create.create(true).exclusive(exclusive).truncate(n % 5 == 1);
    let open = |name: &Name| {
        let object = create.open(name)?;
        watch.is_right(&object, exclusive);
        work(&object)?;
        if n % 4 == 0 { Object::unlink(name) } else { Ok(()) }
    };
    match role {
        "file" => open(&stand.name("data")),
        "memory" => open(&stand.place.posix("managed")),
        "file to read" => {
            let object = OpenOptions::new().read_only(true).open(&stand.name("data"))?;
            watch.is_right(&object, false);
            Ok(())
        }
        "copy" => {
            ours.backup(&stand.name("copy"), 0o604, replace, 5000)?;
            is_ours(&stand.place.file("copy"), 0o604);
            Ok(())
        }
        "copy in memory" => {
            ours.backup(&stand.place.posix("saved"), 0o604, replace, 5000)?;
            is_ours(&stand.place.memory("saved"), 0o604);
            Ok(())
        }
        "salvage" => {
            let to = stand.name("salvaged");
            let from = stand.name("source");
            netshm::salvage(&from, &to, 0o604, replace)?;
            is_ours(&stand.place.file("salvaged"), 0o604);
            let saved = OpenOptions::new().open(&to).and_then(|saved| work(&saved));
            saved.expect("root's own can be used");
            Ok(())
        }
        "list" => {
            let list = Pmanage::open(stand.place.file("list"))?;
            match n % 3 {
                0 => list.register(&PmObject::new(PmKind::File, "/nowhere/x")),
                1 => list.registered().map(drop),
                _ => list.unlink(),
            }
        }
        "unique" => {
            let object = OpenOptions::new().create_unique(&stand.name("uX"))?;
            watch.is_right(&object, true);
            is_ours(object.name().expect("has one").file_name(), 0o600);
            work(&object)
        }
        _ => swept(stand, watch),
    }
}

/// Somebody closes the descriptor behind the library's back, and the name leads elsewhere when it is opened again.
fn swept(stand: &Stand, watch: &Watch) -> Result<(), Error> {
    let path = stand.place.file("swept");
    let object = OpenOptions::new().create(true).exclusive(true).open(&Name::file(&path))?;
    watch.is_right(&object, true);
    let t = table(&object);
    t.add(b"key", b"value").expect("adds");
    std::fs::remove_file(&path).expect("is root's");
    for _ in 0..1000 {
        if std::fs::symlink_metadata(&path).is_ok_and(|at| at.is_file() || at.is_symlink()) {
            break;
        }
        std::thread::yield_now();
    }
    close(object.as_fd().as_raw_fd());
    assert_eq!(object.chmod(0o604), Err(Error::Closed));
    assert_eq!(object.chown(Some(NOBODY), None), Err(Error::Closed));
    // It needs more memory, and must not get it from another file.
    t.add(b"long", &vec![9; 4 << 20])
}

/// Is it an answer that the documentation has for this?
fn is_documented(role: &str, error: &Error) -> bool {
    match error {
        Error::NotFound | Error::Exists | Error::Invalid { .. } | Error::Busy(_) | Error::Corrupt { .. } => {
            true
        }
        Error::Kind { .. } => matches!(role, "memory" | "copy in memory"),
        Error::Line { .. } | Error::Permission => role == "list",
        Error::Closed => role == "swept",
        // A file does not take the place of a directory.
        Error::System { call: "rename", errno } => *errno == libc::EISDIR,
        _ => false,
    }
}

/// Removes what the other user cannot: root's files, and links to these.
fn clean(stand: &Stand, names: Range<usize>) {
    for path in &stand.names[names] {
        if owner_is_root(path) {
            std::fs::remove_file(path).expect("is root's");
        }
    }
}

/// Waits for a moment in which the other user is at it; not for long, as there may be too few processors.
fn wait_for_the_enemy(stand: &Stand, names: Range<usize>) {
    let swaps = || names.clone().map(|i| stand.words.get(DONE + i)).max();
    let (before, begin) = (swaps(), Instant::now());
    while swaps() == before && begin.elapsed() < Duration::from_millis(3) {
        std::thread::yield_now();
    }
}

/// Root, at work.
fn work_among_enemies(stand: &Stand) {
    let watch = Watch::new(stand);
    let ours = OpenOptions::new().create(true).open(&stand.victims.posix("ours")).expect("opens");
    table(&ours).add(b"key", b"value").expect("adds");
    let (rounds, most) = if long_form() { (300, 3000) } else { (2, 400) };
    let mut hits = [0u64; ROLES.len()];
    let mut calls = [0u64; ROLES.len()];
    let mut answers: [BTreeMap<String, u64>; ROLES.len()] = Default::default();
    for round in 0..most {
        if round >= rounds && hits.iter().all(|hits| *hits > 0) {
            break;
        }
        for (r, (role, names)) in ROLES.into_iter().enumerate() {
            if round >= rounds && hits[r] > 0 {
                continue;
            }
            stand.words.set(FOCUS, r as u64);
            for _ in 0..30 {
                wait_for_the_enemy(stand, names.clone());
                let begun: Vec<u64> = names.clone().map(|i| stand.words.get(BEGUN + i)).collect();
                let outcome = call(stand, &watch, &ours, role, calls[r]);
                let hit = names.clone().zip(begun).any(|(i, begun)| stand.words.get(DONE + i) > begun);
                hits[r] += u64::from(hit);
                calls[r] += 1;
                let answer = match &outcome {
                    Ok(()) => "done".to_owned(),
                    Err(Error::Invalid { reason, .. }) => (*reason).to_owned(),
                    Err(e) => format!("{e:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
                };
                *answers[r].entry(answer).or_default() += 1;
                if let Err(e) = outcome {
                    assert!(is_documented(role, &e), "{role}: {e:?}");
                }
                watch.nothing_has_happened(stand, false, role);
                clean(stand, names.clone());
            }
            watch.nothing_has_happened(stand, true, role);
        }
    }
    for (r, (role, _)) in ROLES.into_iter().enumerate() {
        say(&format!("races: {role}: {} of {} calls hit: {:?}\n", hits[r], calls[r], answers[r]));
    }
    for (r, (role, _)) in ROLES.into_iter().enumerate() {
        assert!(hits[r] > 0, "no race was hit: {role}");
        // A new name is found whatever is done.
        assert!(role == "unique" || answers[r].len() > 1, "always the same answer: {role}");
    }
}

fn protected(what: &str) -> bool {
    let set = std::fs::read_to_string(format!("/proc/sys/fs/protected_{what}"));
    !matches!(set.as_deref().map(str::trim), Ok("0"))
}

#[test]
fn names_that_are_swapped_all_the_time_do_no_harm() {
    let _alone = alone();
    if !is_root() {
        skip("races: not root, so there is no other user");
        return;
    }
    if protected("symlinks") {
        skip(
            "races: fs.protected_symlinks is set: the kernel follows no link here, whatever the library does",
        );
    }
    let stand = Stand::new();
    let enemy = become_nobody(600, || attack(&stand));
    stage(600, || work_among_enemies(&stand));
    stand.words.set(STOP, 1);
    enemy.succeeds();
    let placed: Vec<u64> = (0..LURES.len()).map(|i| stand.words.get(PLACED + i)).collect();
    let [removed, denied, hidden] = [REMOVED, DENIED, HIDDEN].map(|i| stand.words.get(i));
    let all: Vec<_> = LURES.iter().zip(&placed).collect();
    say(&format!("races: placed {all:?}, removed {removed}, denied {denied}, drafts seen {hidden}\n"));
    for (lure, placed) in LURES.iter().zip(placed) {
        if *lure == "hard link" && placed == 0 {
            skip("races: hard links to root's files are not permitted here");
            continue;
        }
        assert!(placed > 0, "never placed: {lure}");
    }
    assert!(removed > 0 && denied > 0);
}
