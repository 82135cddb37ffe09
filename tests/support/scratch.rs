//! Objects for tests.

use netshm::check::Summary;
use netshm::{Name, Object, OpenOptions};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A name that nobody else has. The object is removed with it.
#[derive(Debug)]
pub(crate) struct Scratch {
    name: Name,
    owner: u32,
}

fn unique(tag: &str) -> String {
    format!("netshm-test-{tag}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Scratch {
    /// POSIX shared memory.
    pub(crate) fn posix(tag: &str) -> Scratch {
        let unique = unique(tag);
        Scratch::guard(Name::posix(format!("/tmp/{unique}"), format!("/{unique}")))
    }

    /// A file, in memory like the others.
    pub(crate) fn file(tag: &str) -> Scratch {
        Scratch::guard(Name::file(format!("/dev/shm/{}", unique(tag))))
    }

    fn guard(name: Name) -> Scratch {
        Scratch { name, owner: std::process::id() }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// The file with the data.
    pub(crate) fn path(&self) -> PathBuf {
        match self.name.mem_name() {
            Some(mem) => PathBuf::from(format!("/dev/shm{}", mem.to_string_lossy())),
            None => self.name.file_name().to_owned(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Forked children have copies of the guard.
        if self.owner == std::process::id() {
            let _ = Object::unlink(&self.name);
        }
    }
}

/// Fails unless the checker finds nothing and could follow everything.
#[track_caller]
pub(crate) fn assert_sound(name: &Name) -> Summary {
    assert_object_sound(&OpenOptions::new().open(name).expect("opens for the checker"))
}

/// The same, for an object that is open.
#[track_caller]
pub(crate) fn assert_object_sound(object: &Object) -> Summary {
    let mut findings = Vec::new();
    let outcome = object.check(|finding| {
        findings.push(finding);
        findings.len() < 10
    });
    let summary = outcome.unwrap_or_else(|e| panic!("the checker: {e}: {findings:#?}"));
    assert!(summary.complete && findings.is_empty(), "{summary:?} {findings:#?}");
    summary
}

/// The bytes of a data file, holes left out.
#[derive(Debug)]
pub(crate) struct Snapshot {
    len: u64,
    extents: Vec<(u64, Vec<u8>)>,
}

const PAGE: usize = 4096;

impl Snapshot {
    pub(crate) fn take(scratch: &Scratch) -> Snapshot {
        let file = File::open(scratch.path()).expect("opens the data");
        let len = file.metadata().expect("asks for the length").len();
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).expect("reads the data");
        let mut extents: Vec<(u64, Vec<u8>)> = Vec::new();
        for (i, page) in bytes.chunks(PAGE).enumerate() {
            if page.iter().all(|b| *b == 0) {
                continue;
            }
            let at = (i * PAGE) as u64;
            match extents.last_mut() {
                Some((from, data)) if *from + data.len() as u64 == at => data.extend_from_slice(page),
                _ => extents.push((at, page.to_vec())),
            }
        }
        Snapshot { len, extents }
    }

    /// A number that images with the same bytes have in common; words at some offsets do not count.
    pub(crate) fn fingerprint(&self, ignored: impl Fn(u64) -> bool) -> u64 {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.len);
        for (at, bytes) in &self.extents {
            let words = bytes.chunks(8).zip((*at..).step_by(8)).filter(|(_, at)| !ignored(*at));
            words.for_each(|(word, at)| {
                hasher.write_u64(at);
                hasher.write(word);
            });
        }
        hasher.finish()
    }

    /// A copy of the object: one that nobody holds.
    pub(crate) fn restore(&self, tag: &str) -> Scratch {
        let scratch = Scratch::file(tag);
        let file = File::create_new(scratch.path()).expect("creates a copy");
        file.set_len(self.len).expect("sets its length");
        for (at, bytes) in &self.extents {
            file.write_all_at(bytes, *at).expect("writes the copy");
        }
        scratch
    }
}
