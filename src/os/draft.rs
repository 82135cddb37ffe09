//! A file that gets its name when it is finished: nobody ever sees half of it under that name.
//!
//! Where the system can make a file without a name, a process that dies leaves nothing behind. Elsewhere the file
//! has a hidden name beside the final one meanwhile, which a death leaves.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;

use super::descriptor::{Identity, common_flags, io_error, open_error, open_path, permissions, retry};
use super::management::{Management, ManagementFlags};
use super::memory::path_of_memory;
use super::name::Name;
use super::process::random_bytes;
use super::shm::Files;
use crate::error::{Error, Result};

/// Bytes of a file's name that its hidden one has: a replaced byte that is no text takes three.
const HIDDEN_STEM: usize = 64;
/// How often another hidden name is tried.
const ATTEMPTS: u32 = 100;

/// The future of a file that is being written.
#[derive(Debug)]
pub(crate) struct Draft {
    fd: OwnedFd,
    name: Name,
    /// Where the file is to be.
    path: PathBuf,
    /// Where it is meanwhile, if it has to be somewhere.
    hidden: Option<PathBuf>,
    mode: u32,
    /// The permissions that the file is to have.
    permissions: Mode,
    replace: bool,
}

impl Draft {
    /// Begins a file for the object of that name. If one exists already, it is an error, unless it is to be replaced.
    pub(crate) fn begin(name: &Name, mode: u32, replace: bool) -> Result<(Draft, Files)> {
        name.validate()?;
        let permissions = permissions(mode)?;
        let path = place_of(name)?;
        if !replace && path.symlink_metadata().is_ok() {
            return Err(Error::Exists);
        }
        // Who makes it has to write to it, whatever its permissions are to be.
        let (fd, hidden) = make(&path, permissions | Mode::S_IRUSR | Mode::S_IWUSR)?;
        let copy = fd.try_clone().map_err(|error| io_error("dup", &error));
        let mut draft = Draft { fd, name: name.clone(), path, hidden, mode, permissions, replace };
        let files = draft.settle_permissions().and(copy).and_then(|copy| Files::adopt(copy, false));
        match files {
            Ok(files) => Ok((draft, files)),
            Err(error) => {
                draft.discard();
                Err(error)
            }
        }
    }

    /// Is this the file that a name stands for?
    pub(crate) fn is_at(name: &Name, identity: Identity) -> Result<bool> {
        let there = place_of(name)?.symlink_metadata();
        Ok(there.is_ok_and(|there| Identity { dev: there.dev(), ino: there.ino() } == identity))
    }

    /// Takes out of the permissions what the process's mask has taken out of them.
    fn settle_permissions(&mut self) -> Result<()> {
        let made = nix::sys::stat::fstat(&self.fd).map_err(|errno| Error::system("fstat", errno as i32))?;
        self.permissions &= Mode::from_bits_truncate(made.st_mode);
        Ok(())
    }

    /// Gives the file, which is finished and written, its name.
    pub(crate) fn publish(mut self) -> Result<()> {
        let management = match &self.name {
            Name::File(_) => None,
            Name::Posix { file, mem } => {
                let flags = ManagementFlags { read_only: false, create: true, exclusive: false };
                let management = Management::open(file, flags, self.mode)?;
                if let Some(management) = &management {
                    management.register(mem)?;
                }
                management.map(|management| (management.created(), file.clone()))
            }
        };
        let outcome = self.give_name();
        if let (Err(_), Some((true, file))) = (&outcome, management) {
            // It is about memory that this call has not made.
            if self.path.symlink_metadata().is_err() {
                let _ = std::fs::remove_file(file);
            }
        }
        outcome?;
        // The name is to outlive a failure of the machine, too. Memory has nothing to sync.
        match File::open(directory_of(&self.path)).and_then(|directory| directory.sync_all()) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(io_error("fsync", &error)),
            _ => Ok(()),
        }
    }

    fn give_name(&mut self) -> Result<()> {
        nix::sys::stat::fchmod(&self.fd, self.permissions)
            .map_err(|errno| Error::system("fchmod", errno as i32))?;
        let linked = match self.hidden.clone() {
            None if !self.replace => return link(&self.fd, &self.path),
            None => {
                let hidden = hidden_name(&self.path)?;
                link(&self.fd, &hidden)?;
                hidden
            }
            Some(hidden) if !self.replace => {
                std::fs::hard_link(&hidden, &self.path).map_err(|error| io_error("link", &error))?;
                self.discard();
                return Ok(());
            }
            Some(hidden) => hidden,
        };
        self.hidden = Some(linked.clone());
        std::fs::rename(&linked, &self.path).map_err(|error| io_error("rename", &error))?;
        self.hidden = None;
        Ok(())
    }

    /// Removes the hidden name.
    fn discard(&mut self) {
        if let Some(hidden) = self.hidden.take() {
            let _ = std::fs::remove_file(hidden);
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.discard();
    }
}

/// The path of an object's data.
fn place_of(name: &Name) -> Result<PathBuf> {
    match name {
        Name::File(path) => Ok(path.clone()),
        Name::Posix { mem, .. } => {
            path_of_memory(mem).ok_or(Error::Unsupported("making POSIX shared memory without a name first"))
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a file in the directory of the path, without a name if that is possible.
fn make(path: &Path, mode: Mode) -> Result<(OwnedFd, Option<PathBuf>)> {
    #[cfg(target_os = "linux")]
    {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | common_flags();
        match retry(|| nix::fcntl::open(directory_of(path), flags, mode)) {
            Ok(fd) => return Ok((super::descriptor::lift(fd)?, None)),
            // The kernel or the file system does not know it.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {}
            Err(errno) => return Err(open_error("open", "file_name", errno)),
        }
    }
    for _ in 0..ATTEMPTS {
        let hidden = hidden_name(path)?;
        match open_path(&hidden, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, mode) {
            Ok(fd) => return Ok((super::descriptor::lift(fd)?, Some(hidden))),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(open_error("open", "file_name", errno)),
        }
    }
    Err(Error::Exists)
}

/// A name beside the final one that nobody else has.
fn hidden_name(path: &Path) -> Result<PathBuf> {
    let mut random = [0; 8];
    random_bytes(&mut random)?;
    // Names have 255 bytes at most, and the rest of this one 18.
    let last = path.file_name().unwrap_or_default().as_encoded_bytes();
    let mut name = OsString::from(".");
    name.push(String::from_utf8_lossy(&last[..last.len().min(HIDDEN_STEM)]).as_ref());
    name.push(format!(".{:016x}", u64::from_le_bytes(random)));
    Ok(path.with_file_name(name))
}

/// Gives a file without a name one that is new.
fn link(fd: &OwnedFd, path: &Path) -> Result<()> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (here, follow) = (nix::fcntl::AT_FDCWD, AtFlags::AT_SYMLINK_FOLLOW);
    retry(|| nix::unistd::linkat(here, link.as_str(), here, path, follow))
        .map_err(|errno| Error::system("linkat", errno as i32))
}

#[cfg(test)]
mod tests {
    use super::super::shm::unlink;
    use super::*;

    #[test]
    fn a_draft_has_no_name_before_it_is_published() {
        let directory = std::env::temp_dir().join(format!("netshm-draft-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        let count = || std::fs::read_dir(&directory).expect("lists").count();
        let name = Name::file(directory.join("object"));
        let (draft, files) = Draft::begin(&name, 0o600, false).expect("begins");
        super::super::space::pwrite_all(files.fd(), b"first", 0).expect("writes");
        drop(draft);
        assert_eq!(count(), 0, "what was given up leaves nothing");
        drop(files);
        for (content, replace) in [(b"first", false), (b"later", true)] {
            let (draft, files) = Draft::begin(&name, 0o600, replace).expect("begins");
            super::super::space::pwrite_all(files.fd(), content, 0).expect("writes");
            draft.publish().expect("publishes");
            assert_eq!(std::fs::read(directory.join("object")).expect("reads"), content);
            assert_eq!(count(), 1);
        }
        assert_eq!(Draft::begin(&name, 0o600, false).err(), Some(Error::Exists));
        let (draft, files) = Draft::begin(&Name::file(directory.join("race")), 0o600, false).expect("begins");
        std::fs::write(directory.join("race"), b"another's").expect("writes");
        super::super::space::pwrite_all(files.fd(), b"ours", 0).expect("writes");
        assert_eq!(draft.publish().err(), Some(Error::Exists));
        assert_eq!(std::fs::read(directory.join("race")).expect("reads"), b"another's");
        std::fs::remove_dir_all(directory).expect("cleanup");
    }

    #[test]
    fn memory_gets_its_name_and_its_line_in_the_end() {
        let tag = format!("netshm-draft-memory-{}", std::process::id());
        let name = Name::posix(std::env::temp_dir().join(&tag), format!("/{tag}"));
        let (draft, files) = Draft::begin(&name, 0o600, false).expect("begins");
        super::super::space::pwrite_all(files.fd(), b"memory", 0).expect("writes");
        assert!(!std::env::temp_dir().join(&tag).exists());
        draft.publish().expect("publishes");
        let line = std::fs::read_to_string(std::env::temp_dir().join(&tag)).expect("reads");
        assert_eq!(line, format!("R POSIX_SHM \"/{tag}\"\n"));
        let flags = super::super::shm::OpenFlags { read_only: true, ..Default::default() };
        assert_eq!(Files::open(&name, flags, 0).expect("opens").size(), Ok(6));
        unlink(&name).expect("unlinks");
    }
}
