//! Goal: the plain life of a table through the Rust API. Method: one process, every operation once or more.

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions};

struct Scratch(Name);

impl Scratch {
    fn new(tag: &str) -> Scratch {
        let unique = format!("netshm-smoke-{tag}-{}", std::process::id());
        Scratch(Name::posix(format!("/tmp/{unique}"), format!("/{unique}")))
    }
    fn open(&self) -> HashTable {
        let object = OpenOptions::new().create(true).open(&self.0).expect("opens");
        HashTable::manage(&object, &ManageOptions::new()).expect("manages")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Object::unlink(&self.0);
    }
}

fn check(name: &Name) {
    let object = OpenOptions::new().open(name).expect("opens");
    let mut findings = Vec::new();
    let outcome = object.check(|f| {
        findings.push(f);
        findings.len() < 20
    });
    let summary = outcome.unwrap_or_else(|e| panic!("{e}: {findings:#?}"));
    assert!(summary.complete, "{summary:?}");
}

#[test]
fn stacks_of_bindings() {
    let scratch = Scratch::new("stacks");
    let t = scratch.open();
    assert_eq!(t.find(b"k").expect("finds"), None);
    t.add(b"k", b"1").expect("adds");
    t.add(b"k", b"22").expect("adds");
    t.add(b"k", b"333").expect("adds");
    assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"333"[..]));
    assert_eq!(t.find_all(b"k").expect("finds"), [b"333".to_vec(), b"22".to_vec(), b"1".to_vec()]);
    assert_eq!(t.len().expect("counts"), 3);
    t.replace(b"k", b"4").expect("replaces");
    assert!(t.remove(b"k").expect("removes"));
    assert_eq!(t.find(b"k").expect("finds").as_deref(), Some(&b"22"[..]));
    assert!(t.remove(b"k").expect("removes") && t.remove(b"k").expect("removes"));
    assert!(!t.remove(b"k").expect("removes"));
    assert_eq!(t.len().expect("counts"), 0);
    assert_eq!(t.increment(b"n", 5, 100).expect("adds"), 105);
    assert_eq!(t.increment(b"n", -7, 0).expect("adds"), 98);
    assert_eq!(t.insert(b"n", b""), Err(Error::Exists));
    check(&scratch.0);
}

#[test]
fn many_keys_grow_and_shrink() {
    let scratch = Scratch::new("many");
    let t = scratch.open();
    for i in 0..100_000u64 {
        t.add(&i.to_le_bytes(), &(i * 3).to_le_bytes()).expect("adds");
    }
    check(&scratch.0);
    for i in 0..100_000u64 {
        assert_eq!(t.find(&i.to_le_bytes()).expect("finds"), Some((i * 3).to_le_bytes().to_vec()), "{i}");
        assert_eq!(t.find(&(i + 1_000_000).to_le_bytes()).expect("finds"), None);
    }
    assert_eq!(t.len().expect("counts"), 100_000);
    assert_eq!(
        t.iter().map(|b| b.expect("reads").0).collect::<std::collections::HashSet<_>>().len(),
        100_000
    );
    for i in 0..100_000u64 {
        t.replace(&i.to_le_bytes(), &vec![1; (i % 300) as usize]).expect("replaces");
    }
    check(&scratch.0);
    for i in 0..100_000u64 {
        assert!(t.remove(&i.to_le_bytes()).expect("removes"));
    }
    assert_eq!(t.len().expect("counts"), 0);
    check(&scratch.0);
}

#[test]
fn groups() {
    let scratch = Scratch::new("groups");
    let t = scratch.open();
    t.add(b"a", b"1").expect("adds");
    let aborted: Result<(), Error> = t.table().group(|| {
        t.replace(b"a", b"2")?;
        t.add(b"b", b"9")?;
        assert_eq!(t.find(b"a")?.as_deref(), Some(&b"2"[..]));
        assert_eq!(t.len()?, 2);
        Err(Error::Aborted)
    });
    assert_eq!(aborted, Err(Error::Aborted));
    assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"1"[..]));
    assert_eq!(t.find(b"b").expect("finds"), None);
    t.table()
        .group(|| -> Result<(), Error> {
            for i in 0..20_000u32 {
                t.add(&i.to_le_bytes(), b"in a group")?;
            }
            let inner: Result<(), Error> = t.table().group(|| {
                t.replace(b"a", b"inner")?;
                Err(Error::Aborted)
            });
            assert_eq!(inner, Err(Error::Aborted));
            assert_eq!(t.iter().count(), 20_001);
            Ok(())
        })
        .expect("commits");
    assert_eq!(t.len().expect("counts"), 20_001);
    assert_eq!(t.find(b"a").expect("finds").as_deref(), Some(&b"1"[..]));
    check(&scratch.0);
}

#[test]
fn large_values_and_reinitialising() {
    let scratch = Scratch::new("large");
    let t = scratch.open();
    for (i, len) in [0usize, 1, 100, 5_000, 16_000, 17_000, 70_000, 1 << 20, 20 << 20].into_iter().enumerate()
    {
        let value: Vec<u8> = (0..len).map(|n| (n * 7 + i) as u8).collect();
        t.replace(&[i as u8], &value).expect("replaces");
        assert_eq!(t.find(&[i as u8]).expect("finds"), Some(value));
    }
    check(&scratch.0);
    let object = OpenOptions::new().open(&scratch.0).expect("opens");
    let again = HashTable::manage(&object, ManageOptions::new().reinitialise(true)).expect("manages");
    assert_eq!(again.len().expect("counts"), 0);
    assert_eq!(t.len().expect("counts"), 0);
    check(&scratch.0);
    t.add(b"x", b"y").expect("adds");
    check(&scratch.0);
}

#[test]
fn a_group_given_up_in_a_callback_ends_with_the_operation() {
    let scratch = Scratch::new("given-up");
    let t = scratch.open();
    let mut group = Some(t.table().begin().expect("begins"));
    t.add(b"k", b"v").expect("adds");
    let outcome = t.update(b"k", |_| {
        assert_eq!(group.take().map(|g| g.commit()), Some(Err(Error::InCallback)));
        netshm::Update::Keep
    });
    assert_eq!(outcome, Err(Error::Aborted));
    assert_eq!(t.find(b"k").expect("finds"), None);
    t.add(b"k", b"after").expect("adds");
    check(&scratch.0);
}

#[test]
fn an_object_without_a_name_is_handed_over_by_its_descriptor() {
    let object = OpenOptions::new().anonymous().expect("makes memory");
    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    t.add(b"k", b"v").expect("adds");
    let fd = object.as_fd().try_clone_to_owned().expect("duplicates");
    let other = OpenOptions::new().from_fd(fd).expect("opens");
    let again = HashTable::manage(&other, &ManageOptions::new()).expect("manages");
    assert_eq!(again.find(b"k").expect("finds").as_deref(), Some(&b"v"[..]));
    assert!(other.check(|_| true).expect("is sound").complete);
}

/// Goal: memory that a stranger hands over is sealed against being shortened, for ever, once it is known to be an object,
/// and left alone before. Method: its seals are asked for.
#[cfg(target_os = "linux")]
#[test]
fn only_what_is_an_object_is_sealed() {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    // SAFETY: the name is a C string; the descriptor is nobody else's.
    let memory = unsafe {
        let fd = libc::memfd_create(c"stranger".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        std::fs::File::from(OwnedFd::from_raw_fd(fd))
    };
    // SAFETY: the command takes nothing else.
    let seals = || unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) };
    let adopt = || OpenOptions::new().from_fd(memory.try_clone().expect("duplicates").into());
    std::io::Write::write_all(&mut &memory, b"of somebody who knows nothing of us").expect("writes");
    let refused = adopt();
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(seals(), 0, "it is no object");
    memory.set_len(0).expect("empties");
    let object = adopt().expect("opens");
    assert_eq!(seals(), 0, "it holds nothing yet");
    HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    assert_eq!(seals(), libc::F_SEAL_SHRINK);
}

#[test]
fn what_an_object_records_is_not_overruled() {
    let scratch = Scratch::new("recorded");
    scratch.open();
    let object = OpenOptions::new().open(&scratch.0).expect("opens");
    let keyed = HashTable::manage(&object, ManageOptions::new().hashing(netshm::KeyHashing::Keyed));
    assert!(matches!(keyed, Err(Error::Kind { .. })), "{keyed:?}");
    let unlocked = HashTable::manage(&object, ManageOptions::new().locking(netshm::Locking::None));
    assert!(matches!(unlocked, Err(Error::Locking { .. })), "{unlocked:?}");
}
