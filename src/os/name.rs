//! How a shared memory object is named.
//!
//! It owns the two ways of naming, the list of kinds, and the check that a name can be handed to the
//! system as it is. It refuses to touch the object: whether the name exists is the business of `shm`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;

use crate::error::{Error, Result};

/// Longest name of one file, which a POSIX shared memory object is, too.
const NAME_MAX: usize = 255;

/// Where POSIX shared memory lives as a file system.
const POSIX_DIRECTORY: &str = "/dev/shm";

/// The name of a shared memory object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Name {
    /// POSIX shared memory, and the small file by which it is managed.
    Posix {
        /// The management file, by which the memory can be found and deleted later.
        file: PathBuf,
        /// The name of the memory: one leading slash, no other.
        mem: OsString,
    },
    /// A file that holds the data.
    File(PathBuf),
}

/// What kind of memory is behind an object. More kinds may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// POSIX shared memory with a management file.
    Posix = 1,
    /// A mapped file.
    File = 2,
    /// Memory without a name, handed over as a descriptor.
    Anon = 3,
}

impl Name {
    /// A name of POSIX shared memory: the management file and the memory.
    pub fn posix(file: impl Into<PathBuf>, mem: impl Into<OsString>) -> Name {
        Name::Posix { file: file.into(), mem: mem.into() }
    }

    /// The name of a file that holds the data.
    pub fn file(path: impl Into<PathBuf>) -> Name {
        Name::File(path.into())
    }

    /// The kind of object that has such a name.
    pub fn kind(&self) -> Kind {
        match self {
            Name::Posix { .. } => Kind::Posix,
            Name::File(_) => Kind::File,
        }
    }

    /// The path: of the management file, or of the file that holds the data.
    pub fn file_name(&self) -> &Path {
        match self {
            Name::Posix { file, .. } => file,
            Name::File(path) => path,
        }
    }

    /// The name of the memory; a file has none.
    pub fn mem_name(&self) -> Option<&OsStr> {
        match self {
            Name::Posix { mem, .. } => Some(mem),
            Name::File(_) => None,
        }
    }

    /// Checks that the system would understand the name, and no other file than the one meant.
    pub(crate) fn validate(&self) -> Result<()> {
        validate_path(self.file_name())?;
        match self.mem_name() {
            Some(mem) => validate_mem(mem.as_bytes()),
            None => Ok(()),
        }
    }
}

fn validate_path(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    let invalid = |reason| Err(Error::Invalid { argument: "file_name", reason });
    if bytes.is_empty() {
        return invalid("the path is empty");
    }
    if bytes.contains(&0) {
        return invalid("the path contains a NUL byte");
    }
    Ok(())
}

fn validate_mem(mem: &[u8]) -> Result<()> {
    let invalid = |reason| Err(Error::Invalid { argument: "mem_name", reason });
    let Some((b'/', rest)) = mem.split_first() else {
        return invalid("it must begin with a slash");
    };
    if rest.is_empty() {
        return invalid("nothing follows the slash");
    }
    if rest.contains(&b'/') {
        return invalid("there must be no second slash");
    }
    if rest.contains(&0) {
        return invalid("it contains a NUL byte");
    }
    if rest == b"." || rest == b".." {
        return invalid("it names a directory");
    }
    if mem.len() > NAME_MAX {
        return invalid("it is too long");
    }
    Ok(())
}

/// The kinds of objects that this process can create here.
pub(crate) fn supported_kinds() -> &'static [Kind] {
    match (posix_available(), cfg!(target_os = "linux")) {
        (true, true) => &[Kind::Posix, Kind::File, Kind::Anon],
        (false, true) => &[Kind::File, Kind::Anon],
        (true, false) => &[Kind::Posix, Kind::File],
        (false, false) => &[Kind::File],
    }
}

/// Whether POSIX shared memory can be created here: containers may lack it or have it read-only.
pub(crate) fn posix_available() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    Path::new(POSIX_DIRECTORY).is_dir()
        && nix::unistd::access(POSIX_DIRECTORY, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_are_refused() {
        for mem in ["", "a", "/", "//", "/a/b", "/a\0b", "/.", "/.."] {
            let outcome = Name::posix("/tmp/f", mem).validate();
            assert!(matches!(outcome, Err(Error::Invalid { argument: "mem_name", .. })), "{mem:?}");
        }
        assert!(Name::posix("/tmp/f", format!("/{}", "a".repeat(255))).validate().is_err());
        for path in ["", "a\0b"] {
            for name in [Name::file(path), Name::posix(path, "/a")] {
                assert!(matches!(name.validate(), Err(Error::Invalid { argument: "file_name", .. })));
            }
        }
        assert_eq!(Name::posix("relative", "/a").validate(), Ok(()));
        assert_eq!(Name::file("/tmp/x").validate(), Ok(()));
    }

    #[test]
    fn files_are_always_supported() {
        assert!(supported_kinds().contains(&Kind::File));
        assert_eq!(supported_kinds().contains(&Kind::Posix), posix_available());
    }
}
