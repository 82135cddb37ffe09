//! Goal: limits that the system sets a process are errors, no signals: nothing is lost, and all works on where there is
//! room again.
//!
//! Method: setrlimit in a child, in front of each kind of operation; the table beside a model, and the checker.

mod support_processes;

use netshm::{Error, HashTable, ManageOptions, Name, Object, OpenOptions};
use std::collections::BTreeMap;
use support_processes::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn limit(what: libc::__rlimit_resource_t, to: u64) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives during the calls.
    unsafe {
        assert_eq!(libc::getrlimit(what, &raw mut limits), 0);
        limits.rlim_cur = to.min(limits.rlim_max);
        assert_eq!(libc::setrlimit(what, &raw const limits), 0);
    }
}

fn compare(t: &HashTable, model: &Model) {
    let found: Model = t.iter().collect::<Result<_, _>>().expect("reads");
    assert!(found == *model, "{} of {}", found.len(), model.len());
}

/// Goal: a file that may not become so long is an object without space, and SIGXFSZ, which would end the process, is never
/// sent. Method: limits from nothing to some MiB, small and large values, both kinds; the limit is lifted in the end.
#[test]
fn a_limit_of_the_length_of_files() {
    let _alone = alone();
    let step = if long_form() { 12_288 } else { 200_704 };
    let mut figures = String::new();
    for most in (0u64..2_000_000).step_by(step).chain([4, 4096, 8192, 3 << 20]) {
        for file in [false, true] {
            let s = if file { Scratch::file("/dev/shm".as_ref(), "fsize") } else { Scratch::posix("fsize") };
            let figure = Shared::new(1);
            stage(60, || {
                let before = figure_of_fsize(&s.0, most);
                figure.set(0, before);
            });
            figures += &format!(" {most}:{}", figure.get(0));
        }
    }
    say(&format!("bytes of a file:keys{figures}\n"));
}

fn figure_of_fsize(name: &Name, most: u64) -> u64 {
    limit(libc::RLIMIT_FSIZE, most);
    let mut model = Model::new();
    let made = OpenOptions::new()
        .create(true)
        .open(name)
        .and_then(|object| HashTable::manage(&object, &ManageOptions::new()).map(|t| (object, t)));
    let mut added = 0;
    match &made {
        Ok((object, t)) => {
            for n in 0.. {
                let value = vec![n as u8; [10, 300, 5000, 100_000][n % 4]];
                match t.add(&n.to_le_bytes(), &value) {
                    Ok(()) => drop(model.insert(n.to_le_bytes().to_vec(), value)),
                    Err(e) => {
                        assert_eq!(e, Error::NoSpace);
                        break;
                    }
                }
                added += 1;
            }
            assert_eq!(t.replace(b"large", &vec![1; 5_000_000]), Err(Error::NoSpace));
            let to = Name::File(format!("/dev/shm/netshm-fsize-copy-{}", std::process::id()).into());
            let copied = object.backup(&to, 0o600, true, 1000);
            assert!(copied.is_ok() || copied == Err(Error::NoSpace), "{copied:?}");
            let _ = Object::unlink(&to);
            compare(t, &model);
            check_object(object);
        }
        Err(e) => assert_eq!(*e, Error::NoSpace),
    }
    limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
    let object = OpenOptions::new().create(true).open(name).expect("opens without the limit");
    let t = HashTable::manage(&object, &ManageOptions::new()).expect("manages without the limit");
    compare(&t, &model);
    t.add(b"large", &vec![1; 5_000_000]).expect("adds without the limit");
    check_object(&object);
    added
}

/// Goal: who has no descriptor left gets an error that says so from what needs one, and all else works. Method: numbers
/// free from none to ten, for opening, the first change, growth, copies; then all numbers.
#[test]
fn few_descriptors() {
    let _alone = alone();
    for free in 0..11u64 {
        for file in [false, true] {
            let s =
                if file { Scratch::file("/dev/shm".as_ref(), "nofile") } else { Scratch::posix("nofile") };
            stage(60, || without_descriptors(&s.0, free));
        }
    }
}

fn without_descriptors(name: &Name, free: u64) {
    let is_that = |e: &Error| {
        let right = matches!(e, Error::System { errno: libc::EMFILE, .. });
        assert!(right, "{free} numbers: {e:?}");
    };
    let early = open(name);
    early.add(b"early", b"v").expect("adds");
    let mut model = Model::from([(b"early".to_vec(), b"v".to_vec())]);
    let highest = std::fs::read_dir("/proc/self/fd").expect("reads").flatten();
    let highest = highest.filter_map(|e| e.file_name().to_string_lossy().parse::<u64>().ok()).max();
    // Fills the gaps below, so that just so many are left.
    let most = highest.unwrap_or(0) + 12;
    limit(libc::RLIMIT_NOFILE, most);
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - free as usize);
    let again = OpenOptions::new().open(name).and_then(|object| {
        let t = HashTable::manage(&object, &ManageOptions::new())?;
        t.add(b"again", b"v").map(|()| (object, t))
    });
    match &again {
        Ok((object, _)) => {
            model.insert(b"again".to_vec(), b"v".to_vec());
            let to = Name::File(format!("/dev/shm/netshm-nofile-copy-{}", std::process::id()).into());
            let copied = object.backup(&to, 0o600, true, 1000);
            copied.as_ref().map(drop).unwrap_or_else(is_that);
            let _ = Object::unlink(&to);
        }
        Err(e) => is_that(e),
    }
    // What is open already needs none.
    for n in 0..300u64 {
        let value = vec![n as u8; 3000];
        early.add(&n.to_le_bytes(), &value).expect("adds");
        model.insert(n.to_le_bytes().to_vec(), value);
    }
    let group: Result<(), Error> = early.table().group(|| early.add(b"in a group", b"v"));
    group.expect("commits");
    model.insert(b"in a group".to_vec(), b"v".to_vec());
    drop((again, taken));
    compare(&early, &model);
    compare(&open(name), &model);
    check(name);
}
