//! Goal: whenever the machine fails before, during or after a backup, there is no copy under its name afterwards, or a whole
//! one, which is in order and has what the object had at one moment; and when the call has returned there is one.
//!
//! Method: a child makes the backup, and is stopped before and after each of its system calls. A model of a device follows it: it
//! has the bytes that a file had when the child last synced it, and the name that was there when it last synced the directory. At
//! each stop the machine fails: of a name that is not synced both states are judged, and of each page that has changed since
//! the last sync, at random, either state. The image gets another boot's id and is opened. `NETSHM_CAMPAIGN` names a directory that keeps which rounds are
//! done, so that the same command goes on after an interruption.

mod support;

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    support::main(&[
        ("a_backup_at_rest", moments::at_rest),
        ("a_backup_among_writers", moments::among_writers),
        ("a_backup_of_what_has_holes", moments::with_holes),
    ]);
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    println!("SKIP: backup_crash: only Linux on x86_64 is known to the test");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod moments {
    use super::support;
    use netshm::{HashTable, ManageOptions, Name, Object, OpenOptions};
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use support::campaign::Campaign;
    use support::process::{Child, Exit, fork, watchdog};
    use support::random::Random;
    use support::scratch::{Scratch, assert_object_sound};

    const PAGE: usize = 4096;
    /// The page that says which boot an object was last used in, and whether it is clean.
    const LIFE: usize = 4096;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn options() -> ManageOptions {
        // A value may lie in two pages, of which one is lost: that shows by its checksum alone.
        ManageOptions::new().locking(support::locking()).checksums(true).clone()
    }

    fn open(name: &Name) -> (Object, HashTable) {
        let object = OpenOptions::new().create(true).open(name).expect("opens");
        let table = HashTable::manage(&object, &options()).expect("manages, so it is in order");
        (object, table)
    }

    fn content(table: &HashTable) -> Model {
        table.iter().collect::<netshm::Result<_>>().expect("reads")
    }

    fn rounds() -> u64 {
        support::setting("NETSHM_ROUNDS").unwrap_or(if support::long() { 50 } else { 1 })
    }

    /// Nobody changes anything: a copy has all that there is.
    pub(super) fn at_rest() {
        let mut campaign = Campaign::open("backup_crash.a_backup_at_rest", HOLDS);
        let seed = campaign.seed(|| Random::seed("a_backup_at_rest"));
        support::rounds(&mut campaign, seed, rounds(), |_, random| {
            let source = Scratch::file("source");
            let (object, table) = open(source.name());
            let mut random_value = random.clone();
            for n in 0..300u32 {
                let value = vec![n as u8; random_value.below(900) as usize];
                table.add(&n.to_le_bytes(), &value).expect("adds");
            }
            table.add(b"long", &vec![9; 150_000]).expect("adds");
            let whole = content(&table);
            let tally = every_way("at rest", &source, random, &|found| {
                assert!(*found == whole, "it is another state")
            });
            drop(object);
            tally.counts()
        });
        campaign.end();
    }

    const HOLDS: &str =
        "at each moment there was no copy, the older one, or a whole one of one moment, in order";
    const ACCOUNTS: u64 = 50;

    /// Others move amounts between accounts: a copy has the sum.
    pub(super) fn among_writers() {
        let mut campaign = Campaign::open("backup_crash.a_backup_among_writers", HOLDS);
        let seed = campaign.seed(|| Random::seed("a_backup_among_writers"));
        support::rounds(&mut campaign, seed, rounds(), |_, random| {
            let source = Scratch::file("source");
            let (object, table) = open(source.name());
            for n in 0..ACCOUNTS {
                table.add(&n.to_le_bytes(), &100i64.to_le_bytes()).expect("adds");
            }
            let mut writers: Vec<_> = (0..2).map(|seed| fork(|| transfer(source.name(), seed))).collect();
            let tally = every_way("among writers", &source, random, &|found| {
                let value =
                    |n: u64| i64::from_le_bytes(found[&n.to_le_bytes()[..]][..].try_into().expect("8 bytes"));
                assert_eq!((0..ACCOUNTS).map(value).sum::<i64>(), 100 * ACCOUNTS as i64);
            });
            for writer in &mut writers {
                assert_eq!(writer.poll(), None, "writers go on");
                writer.kill();
            }
            drop(object);
            tally.counts()
        });
        campaign.end();
    }

    fn transfer(name: &Name, seed: u64) -> ! {
        let (_object, table) = open(name);
        let mut random = Random::new(seed);
        loop {
            let (from, to) = (random.below(ACCOUNTS).to_le_bytes(), random.below(ACCOUNTS).to_le_bytes());
            if random.once_in(3) {
                let other = format!("other {}", random.below(300));
                table.replace(other.as_bytes(), &vec![7; random.below(2000) as usize]).expect("replaces");
                continue;
            }
            table
                .table()
                .group_retry(None, || -> netshm::Result<()> {
                    table.increment(&from, -1, 0)?;
                    table.increment(&to, 1, 0)?;
                    Ok(())
                })
                .expect("transfers");
            // Else a traced backup never gets ahead of them.
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    /// Memory that is reserved only has no pages in the copy either.
    pub(super) fn with_holes() {
        let mut random = Random::from_environment("a_backup_of_what_has_holes");
        let source = Scratch::file("source");
        let (object, table) = open(source.name());
        table.add(b"key", b"value").expect("adds");
        let sparse = options().root("sparse").clone();
        let array = netshm::Array::manage_i64(&object, 3, 2_000_000, &sparse).expect("manages");
        array.set_i64(1_000_000, 8).expect("sets");
        for n in 0..5u8 {
            table.add(&[n], &vec![n; 200_000]).expect("adds");
        }
        for n in 0..5u8 {
            table.remove(&[n]).expect("removes");
        }
        let whole = content(&table);
        every_way("with holes", &source, &mut random, &|found| {
            assert!(*found == whole, "it is another state")
        });
    }

    /// Backs up under a new name and under that of an older copy, with files that have no name at first, and where a
    /// file system knows none of these.
    fn every_way(what: &str, source: &Scratch, random: &mut Random, judge: &dyn Fn(&Model)) -> Tally {
        let mut tally = Tally::default();
        for replace in [false, true] {
            for nameless in [true, false] {
                watchdog(300);
                let to = Scratch::file("backup");
                let mut device = Device::new(&to);
                if replace {
                    let (older, table) = open(to.name());
                    table.add(b"older", b"copy").expect("adds");
                    drop((table, older));
                    device.sync_all();
                }
                let child = backup(source, &to, replace);
                let mut stops = Stops { device, child: child.pid(), nameless, call: None };
                let mut seen = HashSet::new();
                loop {
                    let ended = stops.next();
                    for image in stops.device.images(random) {
                        tally.moments += 1;
                        let Some(bytes) = image else {
                            assert!(ended.is_none() && !replace, "{what}: it is lost");
                            tally.none += 1;
                            continue;
                        };
                        let mut hasher = DefaultHasher::new();
                        bytes.hash(&mut hasher);
                        if seen.insert(hasher.finish()) {
                            let is_older = judge_image(&bytes, judge);
                            assert!(!is_older || replace);
                            // The last one is that of after the call.
                            assert!(ended.is_none() || !is_older, "{what}: it is not there yet");
                            *(if is_older { &mut tally.older } else { &mut tally.whole }) += 1;
                        }
                    }
                    if let Some(exit) = ended {
                        assert_eq!(exit, Exit::Code(0), "{what}, replace: {replace}, nameless: {nameless}");
                        break;
                    }
                }
                assert_eq!(
                    stops.device.device_name,
                    stops.device.live_name(),
                    "{what}: the name is not synced"
                );
                tally.unsynced_names += stops.device.unsynced;
                // It has been waited for.
                std::mem::forget(child);
            }
        }
        println!("{what}: {tally:?}");
        assert!(tally.whole >= 4 && tally.older >= 2 && tally.none > 0 && tally.unsynced_names > 0);
        tally
    }

    #[derive(Debug, Default)]
    struct Tally {
        /// States of the device that were looked at; of those with a copy, the distinct ones that were judged.
        moments: u64,
        none: u64,
        older: u64,
        whole: u64,
        /// Moments at which the name might have been lost.
        unsynced_names: u64,
    }

    impl Tally {
        fn counts(&self) -> [(&'static str, u64); 5] {
            [
                ("moments", self.moments),
                ("moments without a copy", self.none),
                ("distinct older copies judged", self.older),
                ("distinct whole copies judged", self.whole),
                ("moments with an unsynced name", self.unsynced_names),
            ]
        }
    }

    /// Opens what is there after the next boot. Tells whether it is the older copy.
    fn judge_image(bytes: &[u8], judge: &dyn Fn(&Model)) -> bool {
        let image = Scratch::file("image");
        let mut bytes = bytes.to_vec();
        assert!(bytes.len() > LIFE, "it is not whole");
        bytes[LIFE] ^= 1;
        std::fs::write(image.path(), &bytes).expect("writes the image");
        let object = OpenOptions::new().open(image.name()).expect("opens");
        let table = HashTable::manage(&object, &options()).expect("manages, so it is in order");
        assert_object_sound(&object);
        let found = content(&table);
        let is_older = found.contains_key(&b"older"[..]);
        if !is_older {
            judge(&found);
        }
        table.replace(b"afterwards", &vec![1; 50_000]).expect("can be changed");
        assert_object_sound(&object);
        is_older
    }

    /// A child that makes the backup; it is traced, and stopped in front of it.
    fn backup(source: &Scratch, to: &Scratch, replace: bool) -> Child {
        let child = fork(|| {
            let object = OpenOptions::new().open(source.name()).expect("opens");
            // SAFETY: plain system calls; the tracer is the parent.
            unsafe {
                assert_eq!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0), 0, "may be traced");
                libc::raise(libc::SIGSTOP);
            }
            object.backup(to.name(), 0o600, replace, 0).expect("backs up");
        });
        let pid = child.pid();
        assert_eq!(wait(pid), Wait::Stopped(libc::SIGSTOP));
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        // SAFETY: the child is traced and stopped.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) }, 0);
        child
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Wait {
        Stopped(i32),
        Ended(Exit),
    }

    fn wait(pid: i32) -> Wait {
        let mut status = 0;
        // SAFETY: the child is ours.
        while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
        }
        if libc::WIFSTOPPED(status) {
            Wait::Stopped(libc::WSTOPSIG(status))
        } else if libc::WIFSIGNALED(status) {
            Wait::Ended(Exit::Signal(libc::WTERMSIG(status)))
        } else {
            Wait::Ended(Exit::Code(libc::WEXITSTATUS(status)))
        }
    }

    /// What a device has of a file and its name.
    struct Device {
        path: PathBuf,
        /// Which file has the name, on the device.
        device_name: Option<u64>,
        /// The bytes of files, by their inodes, as they were last synced.
        synced: HashMap<u64, Vec<u8>>,
        /// Moments at which the name was not what the system said.
        unsynced: u64,
    }

    impl Device {
        fn new(scratch: &Scratch) -> Device {
            Device { path: scratch.path(), device_name: None, synced: HashMap::new(), unsynced: 0 }
        }

        /// Which file has the name, as the system says now.
        fn live_name(&self) -> Option<u64> {
            self.path.symlink_metadata().ok().map(|file| file.ino())
        }

        fn live_bytes(&self) -> Vec<u8> {
            std::fs::read(&self.path).expect("reads")
        }

        fn sync_all(&mut self) {
            self.device_name = self.live_name();
            self.synced.insert(self.device_name.expect("is there"), self.live_bytes());
        }

        /// What a failure may leave under the name: nothing, or these bytes.
        fn images(&mut self, random: &mut Random) -> Vec<Option<Vec<u8>>> {
            let live = self.live_name();
            let mut names = vec![self.device_name];
            if live != self.device_name {
                self.unsynced += 1;
                names.push(live);
            }
            let mut images = Vec::new();
            for name in names {
                let Some(inode) = name else {
                    images.push(None);
                    continue;
                };
                let synced = self.synced.get(&inode).cloned().unwrap_or_default();
                if live != Some(inode) {
                    images.push(Some(synced));
                    continue;
                }
                let now = self.live_bytes();
                if now != synced {
                    images.push(Some(synced.clone()));
                    images.extend([2, 2, 5].map(|part| Some(mixture(&synced, &now, random, part))));
                }
                images.push(Some(now));
            }
            images
        }
    }

    /// Some of the pages that have changed are written.
    fn mixture(synced: &[u8], now: &[u8], random: &mut Random, part: u64) -> Vec<u8> {
        let mut bytes = synced.to_vec();
        // The length is a page of the file system's.
        if random.once_in(2) {
            bytes.resize(now.len(), 0);
        }
        for (page, now) in bytes.chunks_mut(PAGE).zip(now.chunks(PAGE)) {
            if page.len() == now.len() && page != now && random.once_in(part) {
                page.copy_from_slice(now);
            }
        }
        bytes
    }

    /// The child's way from one system call to the next.
    struct Stops {
        device: Device,
        child: i32,
        /// Can the file system make files without names?
        nameless: bool,
        /// The call that it is in.
        call: Option<Call>,
    }

    /// A system call, and what it brings to the device if it succeeds.
    enum Call {
        Other,
        /// It is to be told that the file system does not know that.
        Refused,
        Sync(u64, Vec<u8>),
        SyncDirectory(Option<u64>),
    }

    impl Stops {
        /// Lets the child run to the beginning or the end of a system call, or to its own.
        fn next(&mut self) -> Option<Exit> {
            // SAFETY: the child is traced and stopped.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.child, 0, 0) }, 0);
            match wait(self.child) {
                Wait::Ended(exit) => return Some(exit),
                Wait::Stopped(signal) => assert_eq!(signal, libc::SIGTRAP | 0x80, "no signals are sent"),
            }
            let mut registers = self.registers();
            match self.call.take() {
                None => {
                    let call = self.enter(&registers);
                    if matches!(call, Call::Refused) {
                        registers.orig_rax = u64::MAX;
                        self.set_registers(&registers);
                    }
                    self.call = Some(call);
                }
                Some(Call::Refused) => {
                    registers.rax = -i64::from(libc::EOPNOTSUPP) as u64;
                    self.set_registers(&registers);
                }
                Some(Call::Sync(inode, bytes)) if registers.rax == 0 => {
                    self.device.synced.insert(inode, bytes);
                }
                Some(Call::SyncDirectory(name)) if registers.rax == 0 => self.device.device_name = name,
                Some(_) => {}
            }
            None
        }

        /// Only what is there before a sync is certain to be on the device after it.
        fn enter(&self, registers: &libc::user_regs_struct) -> Call {
            match registers.orig_rax as i64 {
                libc::SYS_fsync | libc::SYS_fdatasync => {
                    let file = PathBuf::from(format!("/proc/{}/fd/{}", self.child, registers.rdi));
                    let target = file.metadata().expect("is open");
                    if target.is_dir() {
                        let directory = self.device.path.parent().expect("has one");
                        assert_eq!(target.ino(), directory.metadata().expect("is there").ino());
                        return Call::SyncDirectory(self.device.live_name());
                    }
                    Call::Sync(target.ino(), std::fs::read(file).expect("reads"))
                }
                libc::SYS_openat | libc::SYS_open if !self.nameless => {
                    let at = (registers.orig_rax as i64 == libc::SYS_openat) as usize;
                    let flags = [registers.rsi, registers.rdx][at] as i32;
                    if flags & libc::O_TMPFILE == libc::O_TMPFILE { Call::Refused } else { Call::Other }
                }
                _ => Call::Other,
            }
        }

        fn registers(&self) -> libc::user_regs_struct {
            // SAFETY: the structure is plain numbers.
            let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
            // SAFETY: the child is traced and stopped, and the structure lives during the call.
            let got = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.child, 0, &raw mut registers) };
            assert_eq!(got, 0);
            registers
        }

        fn set_registers(&self, registers: &libc::user_regs_struct) {
            // SAFETY: as above.
            let set =
                unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.child, 0, std::ptr::from_ref(registers)) };
            assert_eq!(set, 0);
        }
    }
}
