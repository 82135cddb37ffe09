//! The files behind a shared memory object: opened, created, removed, and found again.
//!
//! It owns the descriptors of the memory and of its management file, and the order in which the two
//! come and go: the management file is written before the memory exists and removed after it, so that
//! at every moment a memory object left behind can be found. It refuses to look into the memory, to
//! shorten it, and to use a file that other machines may change.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

pub(crate) use super::descriptor::Identity;
use super::descriptor::{
    Descriptor, open_error, open_or_create, open_path, permissions, require_regular, retry, unlink_path,
};
use super::management::{Management, ManagementFlags};
use super::memory::{create_memfd, memory_exists, open_memory};
use super::name::{Kind, Name};
use super::process::random_bytes;
use crate::error::{Error, Result};

/// How often `create_unique` tries another name.
const UNIQUE_ATTEMPTS: usize = 1000;

/// How an object is to be opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpenFlags {
    /// For reading only; otherwise for reading and writing.
    pub(crate) read_only: bool,
    /// Create the object if it does not exist.
    pub(crate) create: bool,
    /// It must not exist.
    pub(crate) exclusive: bool,
}

/// The open files behind an object.
#[derive(Debug)]
pub(crate) struct Files {
    data: Descriptor,
    management: Option<Management>,
    name: Option<Name>,
    read_only: bool,
    #[cfg(test)]
    created: bool,
}

impl Files {
    /// Opens or creates the files that a name stands for. `mode` is that of files created, less the
    /// umask.
    pub(crate) fn open(name: &Name, flags: OpenFlags, mode: u32) -> Result<Files> {
        name.validate()?;
        if flags.exclusive && !flags.create {
            let reason = "exclusive has a meaning only together with create";
            return Err(Error::Invalid { argument: "flags", reason });
        }
        let permissions = permissions(mode)?;
        match name {
            Name::Posix { file, mem } => {
                let management =
                    ManagementFlags { read_only: flags.read_only, create: flags.create, exclusive: false };
                open_posix(file, mem, flags, management, mode)
            }
            Name::File(path) => open_file(path, flags, permissions),
        }
    }

    /// Makes memory without a name. Nobody can shorten it, or seal it against us.
    #[cfg(target_os = "linux")]
    pub(crate) fn anonymous() -> Result<Files> {
        let fd = create_memfd().map_err(|errno| Error::system("memfd_create", errno as i32))?;
        let flags = OpenFlags { create: true, exclusive: true, ..OpenFlags::default() };
        Files::assemble(None, fd, None, flags, true)
    }

    /// Makes memory without a name.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn anonymous() -> Result<Files> {
        Err(Error::Unsupported("this system has no memory without a name"))
    }

    /// Takes over a descriptor that somebody handed to us.
    pub(crate) fn adopt(fd: OwnedFd, read_only: bool) -> Result<Files> {
        let invalid = |reason| Err(Error::Invalid { argument: "fd", reason });
        let status = retry(|| nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL))
            .map(OFlag::from_bits_retain)
            .map_err(|errno| Error::system("fcntl", errno as i32))?;
        #[cfg(target_os = "linux")]
        if status.contains(OFlag::O_PATH) {
            return invalid("it gives no access");
        }
        if status.contains(OFlag::O_APPEND) {
            return invalid("it is open for appending");
        }
        let access = status & OFlag::O_ACCMODE;
        if access == OFlag::O_WRONLY {
            return invalid("it is open for writing only");
        }
        if access == OFlag::O_RDONLY && !read_only {
            return Err(Error::ReadOnly);
        }
        require_regular(fd.as_fd(), "fd")?;
        Files::assemble(None, fd, None, OpenFlags { read_only, ..OpenFlags::default() }, false)
    }

    fn assemble(
        name: Option<Name>,
        fd: OwnedFd,
        management: Option<Management>,
        flags: OpenFlags,
        #[cfg_attr(not(test), expect(unused_variables))] created: bool,
    ) -> Result<Files> {
        check_file_system(fd.as_fd())?;
        Ok(Files {
            data: Descriptor::new(fd)?,
            management,
            name,
            read_only: flags.read_only,
            #[cfg(test)]
            created,
        })
    }

    /// The memory's descriptor, as it was opened. Where the host may have closed it behind our back,
    /// and before anything that changes the file, `verify_or_reopen` is the call.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.data.fd()
    }

    /// The name under which the object was opened or created, if it has one.
    pub(crate) fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The kind of object.
    pub(crate) fn kind(&self) -> Kind {
        self.name.as_ref().map_or(Kind::Anon, Name::kind)
    }

    /// Whether it is open for reading only.
    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether this opening made the memory.
    #[cfg(test)]
    pub(crate) fn created(&self) -> bool {
        self.created
    }

    /// Which file the memory is.
    pub(crate) fn identity(&self) -> Identity {
        self.data.identity()
    }

    /// Length of the memory in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        super::space::file_size(verify_or_reopen(self)?)
    }

    /// After it was found that the memory holds something else: removes the management file, if this opening has made
    /// it. The error to report is the first one.
    pub(crate) fn take_back(&self) {
        if let (Some(management), Some(Name::Posix { file, mem })) = (&self.management, &self.name) {
            let _ = management.take_back(file, mem, true);
        }
    }

    /// Opens the memory by its name once more; it may be another one meanwhile.
    pub(crate) fn open_by_name(&self) -> Result<OwnedFd> {
        let access = access(self.read_only);
        match &self.name {
            Some(Name::Posix { mem, .. }) => open_memory(mem, access, Mode::empty())
                .map_err(|errno| open_error("shm_open", "mem_name", errno)),
            Some(Name::File(path)) => {
                open_path(path, access, Mode::empty()).map_err(|errno| open_error("open", "file_name", errno))
            }
            None => Err(Error::Closed),
        }
    }
}

/// The memory's descriptor, verified: if the host has swept it away, it is opened again by name.
/// `Error::Closed` if the name leads elsewhere now.
pub(crate) fn verify_or_reopen(files: &Files) -> Result<BorrowedFd<'_>> {
    files.data.verify_or_reopen(|| files.open_by_name())
}

/// Creates an object under a new name: every `X` of the pattern becomes a random character.
pub(crate) fn create_unique(pattern: &Name, mode: u32) -> Result<Files> {
    pattern.validate()?;
    let permissions = permissions(mode)?;
    let flags = OpenFlags { create: true, exclusive: true, ..OpenFlags::default() };
    let management = ManagementFlags { read_only: false, create: true, exclusive: true };
    for _ in 0..UNIQUE_ATTEMPTS {
        let outcome = match instance_of(pattern)? {
            Name::Posix { file, mem } => open_posix(&file, &mem, flags, management, mode),
            Name::File(path) => open_file(&path, flags, permissions),
        };
        match outcome {
            Err(Error::Exists) => {}
            outcome => return outcome,
        }
    }
    Err(Error::Exists)
}

/// Removes the names of an object. The memory itself lives on while somebody maps it.
pub(crate) fn unlink(name: &Name) -> Result<()> {
    name.validate()?;
    match name {
        Name::File(path) => unlink_path(path),
        Name::Posix { file, mem } => {
            let memory = retry(|| nix::sys::mman::shm_unlink(mem.as_os_str()))
                .map_err(|errno| open_error("shm_unlink", "mem_name", errno));
            // Memory that could not be removed must stay registered.
            if !matches!(memory, Ok(()) | Err(Error::NotFound)) {
                return memory;
            }
            match unlink_path(file) {
                Err(Error::NotFound) => memory,
                outcome => memory.and(outcome),
            }
        }
    }
}

/// Changes the permissions of all files behind an object.
pub(crate) fn chmod(files: &Files, mode: u32) -> Result<()> {
    permissions(mode)?;
    verify_or_reopen(files)?;
    files.data.chmod(mode)?;
    verified_management(files).map_or(Ok(()), |management| management.chmod(mode))
}

/// Changes owner and group of all files behind an object; `None` leaves what is.
pub(crate) fn chown(files: &Files, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    verify_or_reopen(files)?;
    files.data.chown(uid, gid)?;
    verified_management(files).map_or(Ok(()), |management| management.chown(uid, gid))
}

/// The management file, if there is one, and if it is still the one that was opened.
fn verified_management(files: &Files) -> Option<&Descriptor> {
    let (management, name) = (files.management.as_ref()?.descriptor(), files.name.as_ref()?);
    let reopen = || {
        open_path(name.file_name(), access(management.is_read_only()), Mode::empty())
            .map_err(|errno| open_error("open", "file_name", errno))
    };
    // Cleaners of temporary directories remove it, and that is no reason to fail.
    management.verify_or_reopen(reopen).ok()?;
    Some(management)
}

fn access(read_only: bool) -> OFlag {
    if read_only { OFlag::O_RDONLY } else { OFlag::O_RDWR }
}

fn open_file(path: &Path, flags: OpenFlags, mode: Mode) -> Result<Files> {
    let access = access(flags.read_only);
    let open = |extra| open_path(path, access | extra, mode);
    let (fd, created) = open_or_create(open, flags.create, flags.exclusive)
        .map_err(|errno| open_error("open", "file_name", errno))?;
    let assemble = || {
        require_regular(fd.as_fd(), "file_name")?;
        Files::assemble(Some(Name::File(path.to_owned())), fd, None, flags, created)
    };
    assemble().inspect_err(|_| {
        if created {
            // The file was made where it cannot be used; the error to report is the first one.
            let _ = unlink_path(path);
        }
    })
}

fn open_posix(
    file: &Path,
    mem: &OsStr,
    flags: OpenFlags,
    management_flags: ManagementFlags,
    mode: u32,
) -> Result<Files> {
    // Asked before the management file is made, so that a failure leaves nothing behind.
    if flags.exclusive && memory_exists(mem)? {
        return Err(Error::Exists);
    }
    let mut management = Management::open(file, management_flags, mode)?;
    let outcome = open_registered_memory(mem, management.as_ref(), flags, permissions(mode)?);
    let (fd, created) = outcome.inspect_err(|_| {
        // What failed here may have succeeded elsewhere with the same management file.
        let Some(management) = &management else { return };
        let ours = management.created() && management.is_at(file);
        if ours && (management_flags.exclusive || matches!(memory_exists(mem), Ok(false))) {
            let _ = unlink_path(file);
        } else {
            let _ = management.take_back(file, mem, false);
        }
    })?;
    // Somebody may have unlinked the object between the two steps: memory needs a file that names it.
    if created && management.as_ref().is_some_and(|management| !management.is_at(file)) {
        management = Management::open(file, ManagementFlags { exclusive: false, ..management_flags }, mode)?;
        if let Some(management) = &management {
            management.register(mem)?;
        }
    }
    let name = Name::Posix { file: file.to_owned(), mem: mem.to_owned() };
    let made_file = management.as_ref().is_some_and(Management::created);
    Files::assemble(Some(name), fd, management, flags, created).inspect_err(|_| {
        // What others may have found already stays.
        if created && flags.exclusive {
            let _ = nix::sys::mman::shm_unlink(mem);
            if made_file {
                let _ = unlink_path(file);
            }
        }
    })
}

/// Opens or creates the memory; before it is created, the management file names it.
fn open_registered_memory(
    mem: &OsStr,
    management: Option<&Management>,
    flags: OpenFlags,
    mode: Mode,
) -> Result<(OwnedFd, bool)> {
    let registered = management.map_or(Ok(true), |management| management.is_registered(mem))?;
    let open = |extra| open_memory(mem, access(flags.read_only) | extra, mode);
    let failed = |errno| open_error("shm_open", "mem_name", errno);
    let existing = if flags.exclusive { Err(Errno::ENOENT) } else { open(OFlag::empty()) };
    let opened = match existing {
        Err(Errno::ENOENT) if flags.create => None,
        outcome => Some(outcome.map_err(failed)?),
    };
    if let Some(management) = management {
        if !registered && (opened.is_none() || management.writable()) {
            management.register(mem)?;
        }
    }
    let (fd, created) = match opened {
        Some(fd) => (fd, false),
        None => open_or_create(open, true, flags.exclusive).map_err(failed)?,
    };
    require_regular(fd.as_fd(), "mem_name").inspect_err(|_| {
        if created && flags.exclusive {
            let _ = nix::sys::mman::shm_unlink(mem);
        }
    })?;
    Ok((fd, created))
}

/// Memory without a name that somebody else has made may not be sealed yet: from now on nobody can shorten it. Where seals
/// are not possible (other files, a descriptor for reading only, seals that are sealed) nothing changes. A seal is for
/// ever, so it has to be known that the memory holds an object.
pub(crate) fn seal_against_shrinking(files: &Files) {
    #[cfg(target_os = "linux")]
    if files.name.is_none() {
        use std::os::fd::AsRawFd;

        // SAFETY: the command takes an integer.
        unsafe { libc::fcntl(files.fd().as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
    }
}

/// Refuses file systems that other machines share: neither mapped memory nor locks are common there.
#[cfg(target_os = "linux")]
fn check_file_system(fd: BorrowedFd<'_>) -> Result<()> {
    /// From linux/magic.h and the sources of the file systems.
    const NETWORK: [u32; 13] = [
        0x0000_6969, // NFS
        0x0000_517B, // SMB
        0xFF53_4D42, // CIFS
        0xFE53_4D42, // SMB2
        0x0102_1997, // 9P
        0x5346_414F, // AFS
        0x6B41_4653, // AFS of the kernel
        0x00C3_6400, // Ceph
        0x7375_7245, // Coda
        0x0000_564C, // NCP
        0x0BD0_0BD0, // Lustre
        0x4750_4653, // GPFS
        0x1983_0326, // BeeGFS
    ];

    let status =
        retry(|| nix::sys::statfs::fstatfs(fd)).map_err(|errno| Error::system("fstatfs", errno as i32))?;
    // The magic numbers have 32 bits; the field is wider, and signed, on some systems only.
    let magic = status.filesystem_type().0 as u32;
    if NETWORK.contains(&magic) {
        return Err(Error::Unsupported("an object on a network file system"));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn check_file_system(_fd: BorrowedFd<'_>) -> Result<()> {
    Ok(())
}

/// A name made from a pattern.
fn instance_of(pattern: &Name) -> Result<Name> {
    Ok(match pattern {
        Name::Posix { file, mem } => Name::Posix {
            file: randomize(file.as_os_str(), "file_name")?.into(),
            mem: randomize(mem, "mem_name")?,
        },
        Name::File(path) => Name::File(randomize(path.as_os_str(), "file_name")?.into()),
    })
}

/// Replaces every `X` by a random one of 0-9A-Z.
fn randomize(pattern: &OsStr, argument: &'static str) -> Result<OsString> {
    let mut text = pattern.as_bytes().to_vec();
    if !text.contains(&b'X') {
        return Err(Error::Invalid { argument, reason: "the pattern contains no X" });
    }
    for byte in text.iter_mut().filter(|byte| **byte == b'X') {
        *byte = random_character()?;
    }
    Ok(OsString::from_vec(text))
}

fn random_character() -> Result<u8> {
    const ALPHABET: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    loop {
        let mut random = [0];
        random_bytes(&mut random)?;
        // The largest multiple of 36 in a byte, so that all characters are equally likely.
        if random[0] < 252 {
            return Ok(ALPHABET[usize::from(random[0]) % ALPHABET.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const READ_WRITE: OpenFlags = OpenFlags { read_only: false, create: false, exclusive: false };
    const READ_ONLY: OpenFlags = OpenFlags { read_only: true, ..READ_WRITE };
    const CREATE: OpenFlags = OpenFlags { create: true, ..READ_WRITE };
    const NEW: OpenFlags = OpenFlags { exclusive: true, ..CREATE };

    /// A directory of its own for a test, removed at its end, and a memory name with it.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Place {
            let path = std::env::temp_dir().join(format!("netshm-os-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("directory");
            Place(path)
        }

        fn path(&self, file: &str) -> PathBuf {
            self.0.join(file)
        }

        fn mem(&self) -> String {
            format!("/{}", self.0.file_name().expect("name").to_str().expect("text"))
        }

        fn posix(&self) -> Name {
            Name::posix(self.path("m"), self.mem())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = nix::sys::mman::shm_unlink(self.mem().as_str());
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn argument_of(outcome: Result<Files>) -> &'static str {
        match outcome {
            Err(Error::Invalid { argument, .. }) => argument,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_posix_object_comes_and_goes() {
        let place = Place::new("posix");
        let name = place.posix();
        assert_eq!(Files::open(&name, READ_WRITE, 0).err(), Some(Error::NotFound));
        assert_eq!(Files::open(&name, READ_ONLY, 0).err(), Some(Error::NotFound));
        let files = Files::open(&name, NEW, 0o600).expect("created");
        assert!(files.created() && !files.read_only() && files.kind() == Kind::Posix);
        let line = format!("R POSIX_SHM \"{}\"\n", place.mem());
        assert_eq!(std::fs::read_to_string(place.path("m")).expect("readable"), line);
        assert_eq!(Files::open(&name, NEW, 0o600).err(), Some(Error::Exists));

        let again = Files::open(&name, CREATE, 0o600).expect("opened");
        assert!(!again.created());
        assert_eq!(again.identity(), files.identity());
        assert_eq!(std::fs::read_to_string(place.path("m")).expect("readable"), line);

        chmod(&files, 0o640).expect("chmod");
        assert_eq!(std::fs::metadata(place.path("m")).expect("stat").permissions().mode() & 0o777, 0o640);
        chown(&files, Some(nix::unistd::getuid().as_raw()), None).expect("chown");

        // The cleaner of /tmp comes by.
        std::fs::remove_file(place.path("m")).expect("remove");
        assert!(Files::open(&name, READ_ONLY, 0).is_ok());
        assert_eq!(Files::open(&name, READ_WRITE, 0).err(), Some(Error::NotFound));
        chmod(&files, 0o600).expect("chmod");
        Files::open(&name, CREATE, 0o600).expect("opened");
        assert_eq!(std::fs::read_to_string(place.path("m")).expect("readable"), line);

        unlink(&name).expect("unlink");
        assert!(!place.path("m").exists());
        assert_eq!(files.size(), Ok(0));
        std::fs::write(place.path("m"), &line).expect("write");
        assert_eq!(unlink(&name), Err(Error::NotFound));
        assert!(!place.path("m").exists());
    }

    #[test]
    fn a_management_file_of_another_object_is_refused() {
        let place = Place::new("foreign");
        let content = "R POSIX_SHM \"/netshm-other\"\n";
        std::fs::write(place.path("m"), content).expect("write");
        match Files::open(&place.posix(), CREATE, 0o600).err() {
            Some(Error::Kind { asked, found }) => {
                assert!(asked.contains(&place.mem()) && found.contains("/netshm-other"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(memory_exists(place.mem().as_ref()), Ok(false));
        std::fs::write(place.path("m"), "precious").expect("write");
        assert!(matches!(Files::open(&place.posix(), CREATE, 0o600), Err(Error::Kind { .. })));
        assert_eq!(std::fs::read(place.path("m")).expect("readable"), b"precious");
    }

    #[test]
    fn a_failed_creation_leaves_nothing() {
        let place = Place::new("failed");
        let mem = place.mem();
        open_memory(mem.as_ref(), OFlag::O_RDWR | OFlag::O_CREAT, Mode::S_IRWXU).expect("memory");
        assert_eq!(Files::open(&place.posix(), NEW, 0o600).err(), Some(Error::Exists));
        assert!(!place.path("m").exists());
        // The memory is there and the file is new: the line is written all the same.
        let files = Files::open(&place.posix(), CREATE, 0o600).expect("opened");
        assert!(!files.created());
        assert!(std::fs::read_to_string(place.path("m")).expect("readable").contains(&mem));
        // A directory that does not exist.
        let lost = Name::posix(place.path("no/where"), format!("{mem}-lost"));
        assert_eq!(Files::open(&lost, CREATE, 0o600).err(), Some(Error::NotFound));
        assert_eq!(memory_exists(format!("{mem}-lost").as_ref()), Ok(false));
    }

    #[test]
    fn a_file_object_and_what_is_none() {
        let place = Place::new("file");
        let name = Name::file(place.path("f"));
        assert_eq!(Files::open(&name, READ_WRITE, 0o600).err(), Some(Error::NotFound));
        let files = Files::open(&name, NEW, 0o600).expect("created");
        assert!(files.created());
        super::super::space::allocate(files.fd(), 0, 5).expect("fits");
        assert_eq!(Files::open(&name, NEW, 0o600).err(), Some(Error::Exists));
        let reader = Files::open(&name, READ_ONLY, 0).expect("opened");
        assert!(reader.read_only() && reader.size() == Ok(5));
        assert_eq!(argument_of(Files::open(&name, OpenFlags { exclusive: true, ..READ_WRITE }, 0)), "flags");
        assert_eq!(argument_of(Files::open(&name, CREATE, 0o1777)), "mode");

        std::os::unix::fs::symlink(place.path("f"), place.path("link")).expect("symlink");
        nix::unistd::mkfifo(&place.path("fifo"), Mode::S_IRWXU).expect("mkfifo");
        std::fs::create_dir(place.path("directory")).expect("mkdir");
        for file in ["link", "fifo", "directory", "f/", "."] {
            for flags in [READ_ONLY, READ_WRITE, CREATE] {
                if file != "f/" {
                    assert_eq!(
                        argument_of(Files::open(&Name::file(place.path(file)), flags, 0o600)),
                        "file_name"
                    );
                    let posix = Name::posix(place.path(file), place.mem());
                    assert_eq!(argument_of(Files::open(&posix, flags, 0o600)), "file_name");
                }
            }
        }
        assert_eq!(memory_exists(place.mem().as_ref()), Ok(false));
        unlink(&name).expect("unlink");
        assert_eq!(unlink(&name), Err(Error::NotFound));
    }

    #[test]
    fn unique_names_are_made_from_patterns() {
        let place = Place::new("unique");
        let pattern = Name::file(place.path("aXbXX"));
        let (one, two) =
            (create_unique(&pattern, 0o600).expect("one"), create_unique(&pattern, 0o600).expect("two"));
        assert_ne!(one.name(), two.name());
        let name = one.name().expect("name").file_name().file_name().expect("file").as_bytes().to_vec();
        assert!(name[0] == b'a' && name[2] == b'b' && name.len() == 5);
        assert!(name.iter().skip(1).all(|byte| b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZb".contains(byte)));

        let pattern = Name::posix(place.path("mXXXX"), format!("{}-XXXXXX", place.mem()));
        let files = create_unique(&pattern, 0o600).expect("posix");
        let name = files.name().expect("name").clone();
        assert_eq!(Files::open(&name, READ_WRITE, 0).expect("opened").identity(), files.identity());
        unlink(&name).expect("unlink");

        assert_eq!(argument_of(create_unique(&Name::file(place.path("a")), 0o600)), "file_name");
        let half = Name::posix(place.path("X"), place.mem());
        assert_eq!(argument_of(create_unique(&half, 0o600)), "mem_name");

        // All 36 names of a pattern are found, and then there is none left.
        let narrow = Name::file(place.path("zX"));
        let made = (0..36).filter(|_| create_unique(&narrow, 0o600).is_ok()).count();
        assert_eq!(made, 36);
        assert_eq!(create_unique(&narrow, 0o600).err(), Some(Error::Exists));
    }

    #[test]
    fn descriptors_are_adopted_by_their_access() {
        let place = Place::new("adopt");
        let path = place.path("f");
        Files::open(&Name::file(&path), NEW, 0o600).expect("created");
        let open = |flags| open_path(&path, flags, Mode::empty()).expect("open");
        assert!(Files::adopt(open(OFlag::O_RDWR), false).is_ok());
        assert!(Files::adopt(open(OFlag::O_RDWR), true).expect("adopted").read_only());
        assert_eq!(Files::adopt(open(OFlag::O_RDONLY), false).err(), Some(Error::ReadOnly));
        assert_eq!(argument_of(Files::adopt(open(OFlag::O_WRONLY), false)), "fd");
        assert_eq!(argument_of(Files::adopt(open(OFlag::O_RDWR | OFlag::O_APPEND), false)), "fd");
        #[cfg(target_os = "linux")]
        assert_eq!(argument_of(Files::adopt(open(OFlag::O_PATH), true)), "fd");
    }

    #[test]
    fn a_swept_descriptor_is_found_again_by_name() {
        let place = Place::new("swept");
        let files = Files::open(&place.posix(), NEW, 0o600).expect("created");
        let other = Files::open(&Name::file(place.path("f")), NEW, 0o600).expect("created");
        let number = files.fd().as_raw_fd();
        // SAFETY: both numbers are open; the swept one is what is tested.
        unsafe { libc::dup2(other.fd().as_raw_fd(), number) };
        let verified = verify_or_reopen(&files).expect("found").as_raw_fd();
        assert_ne!(verified, number);
        assert_eq!(files.fd().as_raw_fd(), verified);
        super::super::filelock::open_again(&files).expect("opened again");
        unlink(&place.posix()).expect("unlink");
        assert!(super::super::filelock::open_again(&files).is_ok(), "the link leads to what has no name");
        // SAFETY: as above.
        unsafe { libc::dup2(other.fd().as_raw_fd(), verified) };
        assert_eq!(verify_or_reopen(&files).err(), Some(Error::Closed));
        for stray in [number, verified] {
            // SAFETY: these are the copies made above, which nobody owns.
            unsafe { libc::close(stray) };
        }
    }
}
