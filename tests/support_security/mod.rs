//! What the tests of security share: another user, and a directory that all may have to do with.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use crate::support_processes::{Child, fork, skip};
use netshm::Name;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub const NOBODY: u32 = 65534;

pub fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// Runs `body` as a user who owns nothing. False: it is not possible here, which is said.
pub fn as_nobody(what: &str, body: impl FnOnce()) -> bool {
    if !is_root() {
        skip(&format!("security: {what}: not root, so there is no other user"));
        return false;
    }
    become_nobody(60, body).succeeds();
    true
}

pub fn become_nobody(seconds: u32, body: impl FnOnce()) -> Child {
    fork(seconds, || {
        // SAFETY: plain system calls.
        unsafe {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
            assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
        }
        body();
    })
}

/// A directory that goes away in the end, with all POSIX memory that its tests made.
pub struct Place {
    pub path: PathBuf,
    pub tag: String,
}

impl Place {
    pub fn new(tag: &str, mode: u32) -> Place {
        let tag = format!("netshm-security-{tag}-{}", std::process::id());
        let path = Path::new("/dev/shm").join(&tag);
        std::fs::create_dir(&path).expect("makes a directory");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("permits");
        Place { path, tag }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn posix(&self, name: &str) -> Name {
        Name::posix(self.file(name), format!("/{}-{name}", self.tag))
    }

    pub fn memory(&self, name: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("{}-{name}", self.tag))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{}-", self.tag)) {
                let _ = std::fs::remove_file(entry.path()).or_else(|_| std::fs::remove_dir(entry.path()));
            }
        }
    }
}
