//! Objects: opening, naming, closing, removing, managing.

mod options;

use crate::backup::{self, Backup};
use crate::check;
use crate::engine::holds::Hold;
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::format::MAX_OBJECT_BYTES;
use crate::format::bucket::LINE_BYTES;
use crate::format::header::Header;
use crate::index::catalog::{self, Identity};
use crate::lock::Patience;
use crate::os::name::{Kind, Name};
use crate::os::shm::{self, Files};
use crate::table::{Table, TableInfo, TableKind, TableSpec};
use crate::txn::lifecycle::{self, Initialise, Wanted};
use options::check_name;
pub use options::{KeyHashing, Locking, ManageOptions, best_locking, supported_kinds};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// How an object is opened.
///
/// ```no_run
/// # fn main() -> netshm::Result<()> {
/// let name = netshm::Name::posix("/tmp/sample", "/sample");
/// let object = netshm::OpenOptions::new().create(true).open(&name)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    read_only: bool,
    create: bool,
    exclusive: bool,
    truncate: bool,
    mode: u32,
    reservation: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            read_only: false,
            create: false,
            exclusive: false,
            truncate: false,
            mode: 0o600,
            reservation: MAX_OBJECT_BYTES,
        }
    }
}

impl OpenOptions {
    /// Reading and writing of an object that exists.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }
    /// Only reading: the object is mapped read-only.
    pub fn read_only(&mut self, yes: bool) -> &mut Self {
        self.read_only = yes;
        self
    }
    /// Creates the object if it does not exist.
    pub fn create(&mut self, yes: bool) -> &mut Self {
        self.create = yes;
        self
    }
    /// With `create`: fails with [`Error::Exists`] if the object exists.
    pub fn exclusive(&mut self, yes: bool) -> &mut Self {
        self.exclusive = yes;
        self
    }
    /// Empties the object, in one transaction.
    pub fn truncate(&mut self, yes: bool) -> &mut Self {
        self.truncate = yes;
        self
    }
    /// Permissions of a new object, as of `open(2)`; the umask is honoured. Default: 0600.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }
    /// Address space to reserve for growth, in bytes. The default is all that an object can need, 16 TiB,
    /// or what can be had; a full reservation is extended by itself.
    pub fn reservation(&mut self, bytes: u64) -> &mut Self {
        self.reservation = bytes;
        self
    }

    /// Opens the object.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::Permission`], [`Error::Invalid`], [`Error::Kind`] if
    /// the management file names another memory object, [`Error::Corrupt`] and [`Error::Newer`] if the file
    /// is no object that this library can use, [`Error::Unsupported`] on network file systems.
    pub fn open(&self, name: &Name) -> Result<Object> {
        self.check_flags()?;
        let flags =
            shm::OpenFlags { read_only: self.read_only, create: self.create, exclusive: self.exclusive };
        self.finish(Object::from_files(Files::open(name, flags, self.mode)?, self.reservation)?)
    }

    fn check_flags(&self) -> Result<()> {
        if self.read_only && (self.create || self.truncate) {
            return Err(Error::Invalid {
                argument: "flags",
                reason: "creating and truncating need an object open for writing",
            });
        }
        Ok(())
    }

    fn finish(&self, object: Object) -> Result<Object> {
        if self.truncate {
            object.empty()?;
        }
        Ok(object)
    }

    /// Makes an object without a name. It goes with its last descriptor and mapping; others get it as a
    /// descriptor, by inheritance or over a Unix socket, see [`Object::as_fd`] and
    /// [`from_fd`](OpenOptions::from_fd). Nobody can shorten it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the system has no such memory; [`Error::System`].
    pub fn anonymous(&self) -> Result<Object> {
        Object::from_files(Files::anonymous()?, self.reservation)
    }

    /// Opens the object that a descriptor refers to, read-only or for reading and writing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not a regular file or not suitably open; else those of
    /// [`open`](OpenOptions::open).
    pub fn from_fd(&self, fd: std::os::fd::OwnedFd) -> Result<Object> {
        self.check_flags()?;
        self.finish(Object::from_files(Files::adopt(fd, self.read_only)?, self.reservation)?)
    }

    /// Creates an object under a new name: each `X` of the pattern becomes a random character of 0-9A-Z.
    ///
    /// # Errors
    /// [`Error::Exists`] if 1,000 attempts met names in use; else those of [`open`](OpenOptions::open).
    pub fn create_unique(&self, pattern: &Name) -> Result<Object> {
        Object::from_files(shm::create_unique(pattern, self.mode)?, self.reservation)
    }
}

/// An open shared memory object.
#[derive(Clone)]
pub struct Object {
    inner: Arc<Inner>,
}

struct Inner {
    files: Arc<Files>,
    reservation: u64,
    /// Null until the object is known to hold something; then a reference that this object owns. No lock:
    /// a forked child could find it held for ever.
    engine: AtomicPtr<Engine>,
    /// That of the table that was asked for last: calls on the object wait as long.
    lock_timeout_ms: AtomicI32,
}

impl Inner {
    fn engine(&self) -> Option<Hold> {
        let engine = self.engine.load(Ordering::Acquire);
        if engine.is_null() {
            return None;
        }
        // SAFETY: the pointer came from Hold::into_raw, and its reference is kept until drop.
        Some(unsafe { Hold::of_raw(engine) })
    }

    /// Keeps an engine, unless another thread has kept one already.
    fn keep(&self, engine: Hold) -> Hold {
        let kept = engine.clone().into_raw();
        match self.engine.compare_exchange(ptr::null_mut(), kept, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => engine,
            Err(_) => {
                // SAFETY: it was made above and not published.
                drop(unsafe { Hold::from_raw(kept) });
                self.engine().unwrap_or(engine)
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let engine = *self.engine.get_mut();
        if !engine.is_null() {
            // SAFETY: as in `engine`; this is the reference that was kept.
            drop(unsafe { Hold::from_raw(engine) });
        }
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Object {
    /// The object behind files that are open.
    pub(crate) fn from_files(files: Files, reservation: u64) -> Result<Object> {
        let object = Object {
            inner: Arc::new(Inner {
                files: Arc::new(files),
                reservation,
                engine: AtomicPtr::new(ptr::null_mut()),
                lock_timeout_ms: AtomicI32::new(0),
            }),
        };
        // What is there is judged at once, so that the error comes with the call that names the file.
        match object.engine_if_any() {
            Ok(_) => Ok(object),
            Err(e) => {
                object.inner.files.take_back();
                Err(e)
            }
        }
    }

    /// The object's name; none if it has none.
    pub fn name(&self) -> Option<&Name> {
        self.inner.files.name()
    }

    /// The object's kind.
    pub fn kind(&self) -> Kind {
        self.inner.files.kind()
    }

    /// Was the object opened for reading only?
    pub fn is_read_only(&self) -> bool {
        self.inner.files.read_only()
    }

    /// The descriptor of the memory, borrowed. It may be passed on; it must not be closed or truncated.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inner.files.fd()
    }

    /// Size of the object's file in bytes, holes included.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn size(&self) -> Result<u64> {
        self.inner.files.size()
    }

    /// Removes an object's name or names, and its memory once nobody uses it any more.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Permission`].
    pub fn unlink(name: &Name) -> Result<()> {
        shm::unlink(name)
    }

    /// Changes the permissions of all files behind the object.
    ///
    /// # Errors
    /// [`Error::Permission`].
    pub fn chmod(&self, mode: u32) -> Result<()> {
        shm::chmod(&self.inner.files, mode)
    }

    /// Changes owner and group of all files behind the object; `None` leaves one as it is.
    ///
    /// # Errors
    /// [`Error::Permission`].
    pub fn chown(&self, user: Option<u32>, group: Option<u32>) -> Result<()> {
        shm::chown(&self.inner.files, user, group)
    }

    /// How long calls on the object wait for locks.
    fn patience(&self) -> Patience {
        Patience::from_millis(self.inner.lock_timeout_ms.load(Ordering::Relaxed))
    }

    /// The engine, if the object holds something.
    fn engine_if_any(&self) -> Result<Option<Hold>> {
        self.engine_or(None)
    }

    fn engine_or(&self, create: Option<&dyn Fn() -> Result<Header>>) -> Result<Option<Hold>> {
        let inner = &self.inner;
        if let Some(engine) = inner.engine() {
            return Ok(Some(engine));
        }
        let engine = engine::open(&inner.files, inner.reservation, create)?;
        Ok(engine.map(|engine| inner.keep(Hold::new(engine))))
    }

    /// A table of this object, as the options want it; it is made if there is none.
    pub(crate) fn manage_as(&self, spec: &TableSpec, options: &ManageOptions) -> Result<Table> {
        self.manage_with(spec, &[], options)
    }

    /// The same for an array, with the words of the default value that a new one gets.
    pub(crate) fn manage_with(
        &self,
        spec: &TableSpec,
        default: &[u64],
        options: &ManageOptions,
    ) -> Result<Table> {
        options.validate()?;
        let timeout = options.lock_timeout_ms;
        self.inner.lock_timeout_ms.store(timeout, Ordering::Relaxed);
        let header = || options.header(self.kind());
        let create: Option<&dyn Fn() -> Result<Header>> =
            if spec.lacks.is_none() { Some(&header) } else { None };
        let Some(engine) = self.engine_or(create)? else {
            return Err(spec.judge_new().err().unwrap_or(Error::Closed));
        };
        engine.require_order()?;
        self.judge_header(&engine.header, options)?;
        if options.huge_pages {
            // Without address space for them it goes on as before.
            let _ = engine.segment.use_huge_pages();
        }
        let new = Identity {
            name: options.root.as_bytes().into(),
            kind: spec.kind as u64,
            signatures: spec.signatures.map(|text| text.as_bytes().into()),
        };
        if new.signatures.iter().any(|text| text.len() > crate::format::root::MAX_SIGNATURE) {
            return Err(Error::TooLarge("the signature of a type"));
        }
        let base_level = crate::format::root::base_level_for(options.expected);
        let wanted = Wanted { identity: &new, base_level, length: spec.length, default };
        if options.reinitialise {
            spec.judge_new()?;
            judge_new(&new)?;
            initialise(&engine, Initialise::Anew(wanted), Patience::from_millis(timeout))?;
        }
        loop {
            let patience = Patience::from_millis(timeout);
            let found = engine.read_at_rest(patience, |segment| {
                let root = catalog::root_of(segment, &new.name)?;
                if root.is_none() { Ok(None) } else { catalog::nature(segment, root).map(Some) }
            })?;
            let Some((kind, signatures)) = found else {
                spec.judge_new()?;
                judge_new(&new)?;
                initialise(&engine, Initialise::IfEmpty(wanted), patience)?;
                continue;
            };
            self.judge_nature(spec, kind, &signatures)?;
            let view = engine.view(Identity { signatures, ..new.clone() });
            match engine.refresh(&view, patience) {
                // Somebody has removed or replaced it meanwhile, or died while doing so and was recovered.
                Err(Error::Stale) => {}
                outcome => {
                    return outcome.map(|()| Table { engine, view, lock_timeout_ms: timeout });
                }
            }
        }
    }

    /// Is the object what the options want it to be?
    fn judge_header(&self, header: &Header, options: &ManageOptions) -> Result<()> {
        let recorded = header.locking;
        if options.locking.is_some_and(|asked| asked as u64 != recorded) {
            let asked = options.locking.map_or("", |l| Locking::name(l as u64));
            return Err(Error::Locking { asked, recorded: Locking::name(recorded) });
        }
        if options.checksums && !header.checksums {
            let (asked, found) = ("an object with checksums".into(), "one without".into());
            return Err(Error::Kind { asked, found });
        }
        let hashing = header.hash;
        if options.hashing.is_some_and(|asked| asked as u64 != hashing) {
            let name =
                |number| if number == KeyHashing::Keyed as u64 { "keyed hashing" } else { "fast hashing" };
            let asked = options.hashing.map_or("", |h| name(h as u64)).into();
            return Err(Error::Kind { asked, found: name(hashing).into() });
        }
        Ok(())
    }

    /// Is a table what a handle wants it to be?
    fn judge_nature(&self, spec: &TableSpec, kind: u64, signatures: &[Box<[u8]>; 2]) -> Result<()> {
        if kind != spec.kind as u64 {
            let found = TableKind::from_recorded(kind).map_or("a table of an unknown kind", TableKind::name);
            return Err(Error::Kind { asked: spec.kind.name().into(), found: found.into() });
        }
        let recorded = signatures.each_ref().map(|text| String::from_utf8_lossy(text));
        let recorded = [&*recorded[0], &*recorded[1]];
        if (spec.accepts)(recorded) {
            return Ok(());
        }
        let describe = |texts: [&str; 2]| {
            let name = |text: &str| if text.is_empty() { "raw bytes".to_string() } else { text.to_string() };
            format!("{} -> {}", name(texts[0]), name(texts[1]))
        };
        Err(Error::Type { asked: describe(spec.signatures), recorded: describe(recorded) })
    }

    /// All tables of the object, the unnamed one first.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Timeout`] if a dead writer is in the way of a read-only handle, or somebody has been
    /// making or removing a table for longer than the [time-out](ManageOptions::lock_timeout_ms).
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let Some(engine) = self.engine_if_any()? else { return Ok(Vec::new()) };
        engine.require_order()?;
        engine.read_at_rest(self.patience(), |segment| {
            let mut all = Vec::new();
            let mut list = |name: Option<&[u8]>, root| -> Result<()> {
                let (kind, [keys, values]) = catalog::nature(segment, root)?;
                let kind =
                    TableKind::from_recorded(kind).ok_or(Error::corrupt(crate::error::Damage::Root, root))?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (key_type, value_type) = (text(&keys), text(&values));
                all.push(TableInfo { name: name.map(text), kind, key_type, value_type });
                Ok(())
            };
            let main = catalog::root_of(segment, b"")?;
            if !main.is_none() {
                list(None, main)?;
            }
            catalog::for_each_entry(segment, |_, used| {
                used.map_or(Ok(()), |entry| list(Some(&entry.name), entry.root)).map(|()| None::<()>)
            })?;
            Ok(all)
        })
    }

    /// Removes a named table with all that it holds. Handles to it say [`Error::Stale`] until a table of the same name,
    /// kind and types is there again, which they then are of.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InGroup`], [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Timeout`] if a group is open for
    /// longer than the [time-out](ManageOptions::lock_timeout_ms).
    pub fn drop_table(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let Some(engine) = self.engine_if_any()? else { return Err(Error::NotFound) };
        engine.require_order()?;
        let removed = initialise(&engine, Initialise::Drop(name.as_bytes()), self.patience())?;
        if removed { Ok(()) } else { Err(Error::NotFound) }
    }

    /// Removes everything that the object holds.
    fn empty(&self) -> Result<()> {
        match self.engine_if_any()? {
            Some(engine) => {
                engine.require_order()?;
                initialise(&engine, Initialise::RemoveAll, self.patience()).map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// Copies the object to a new name, as it is at one moment, while others go on. Writers are kept out for a short time at
    /// the end: while the object is compared with the copy, and what has changed meanwhile is copied again. The
    /// copy is an object of its own, closed in order, written to its device before it gets its name; until
    /// then nothing is there. Its permissions are those of `mode`, less the umask.
    ///
    /// `replace`: an object of that name may exist, and is replaced; whoever uses it goes on with the old one.
    /// `lock_timeout_ms` bounds the wait for groups that are open: 0 no limit, negative no waiting. Under the locking method
    /// NONE nobody is kept out: the object has to be quiet.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NoSpace`]; [`Error::Timeout`]; [`Error::InGroup`], this thread has a group open;
    /// [`Error::ReadOnly`], the object is open for reading only, which cannot keep writers out; [`Error::NotFound`],
    /// the object is empty, or there is no such directory; [`Error::Permission`]; [`Error::Invalid`]; [`Error::System`].
    pub fn backup(&self, to: &Name, mode: u32, replace: bool, lock_timeout_ms: i32) -> Result<Backup> {
        let engine = self.engine_if_any()?.ok_or(Error::NotFound)?;
        engine.require_order()?;
        backup::backup(&engine, to, mode, replace, Patience::from_millis(lock_timeout_ms))
    }

    /// Writes all that has been stored to the file's device, at a moment at which no operation and no group is half done,
    /// and waits until it is there. Writers wait for the part of it that the first pass, while they go on, has left.
    ///
    /// If the machine goes down before anything is changed again, the object is exactly as it was at that moment, and
    /// used like one that was closed in order. If it goes down after further changes, some of these may be on the
    /// device and others not: the object is refused with [`Damage::Unclean`](crate::Damage::Unclean) until
    /// [`check`](Object::check) has found it sound. POSIX shared memory has no device: nothing is gained by syncing it.
    ///
    /// `lock_timeout_ms` bounds the wait for groups that are open: 0 no limit, negative no waiting.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::InGroup`], this thread has a group open; [`Error::ReadOnly`]; [`Error::System`]
    /// and [`Error::NoSpace`], the device does not take it: then it is not known what is on it.
    pub fn sync(&self, lock_timeout_ms: i32) -> Result<()> {
        let Some(engine) = self.engine_if_any()? else { return Ok(()) };
        engine.require_order()?;
        engine.sync(Patience::from_millis(lock_timeout_ms))
    }

    /// Verifies every invariant of the object's structure; nothing is changed. Calls `report` with each
    /// finding until it gives false.
    ///
    /// If the object is open for writing, all other participants are kept out while the check runs, which waits for groups
    /// that are open no longer than the [time-out](ManageOptions::lock_timeout_ms); else it should be quiet, or changes under way
    /// may look like damage.
    ///
    /// An object that the machine went down with while it was in use is refused by all other calls. If the check finds
    /// no damage in its structure, and it is open for writing, it can be used from then on: it has what was synced last, and
    /// of later changes some. If there is damage, it can be salvaged.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first finding, if there is one; errors of waiting for the object.
    pub fn check(&self, mut report: impl FnMut(check::Finding) -> bool) -> Result<check::Summary> {
        let Some(engine) = self.engine_if_any()? else {
            return Ok(check::Summary { complete: true, ..check::Summary::default() });
        };
        let mut first = None;
        let mut note = |finding: check::Finding| {
            first.get_or_insert(Error::Corrupt { what: finding.what, offset: finding.offset });
            report(finding)
        };
        let summary = engine.check(self.patience(), &mut note)?;
        first.map_or(Ok(summary), Err)
    }
}

/// Changes the set of tables. Tells whether it changed anything.
fn initialise(engine: &Engine, how: Initialise, patience: Patience) -> Result<bool> {
    let mut entered = engine.enter(patience)?;
    if entered.in_group() {
        return Err(Error::InGroup(purpose(&how)));
    }
    let mut w = entered.writer(patience);
    let changed = lifecycle::initialise(&mut w, how)?;
    // The old table is swept now if nothing disturbs; else by whoever comes along.
    // Each step is for a line of the object at least, unless its lists go round.
    let mut steps = engine.segment.limit() / LINE_BYTES;
    while steps > 0 && matches!(lifecycle::sweep_step(&mut w), Ok(true)) {
        steps -= 1;
    }
    Ok(changed)
}

/// What a change of the set of tables is for.
fn purpose(how: &Initialise<'_>) -> &'static str {
    match how {
        Initialise::IfEmpty(_) | Initialise::Anew(_) => "initialising a table",
        Initialise::Drop(_) => "removing a table",
        Initialise::RemoveAll => "emptying an object",
    }
}

/// May a new table record these types? The left half of a pair, `(A,_)`, only reads what others have made.
fn judge_new(new: &Identity) -> Result<()> {
    for (signature, argument) in new.signatures.iter().zip(["key", "val"]) {
        if signature.windows(3).any(|part| part == b",_)") {
            let reason = "a new table needs a whole type, not the left half of a pair";
            return Err(Error::Invalid { argument, reason });
        }
    }
    Ok(())
}
