//! Lists of persistent kernel objects, by which whatever a crashed server has left is found and deleted.
//!
//! It owns the meaning of the list's lines, which is that of Netsys_pmanage, whose files are interchangeable with
//! ours: `R KIND "path"` registers, `U KIND "path"` unregisters, the path is quoted as OCaml's `%S` does. It refuses
//! to know whether a listed object exists or is in use, and keeps no file open or locked beyond one call.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::os::management::{ocaml_quote, ocaml_unquote};
use crate::os::persistent::{LockedList, Purpose, remove_file, remove_posix_sem, remove_posix_shm};
use crate::os::turn::Replaceable;

/// Number of semaphores that a container of Netsys_sem may have.
const CONTAINER_SEMAPHORES: u32 = 16384;

/// What kind of object an entry of a list is. More kinds may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PmKind {
    /// A file.
    File = 1,
    /// POSIX shared memory.
    PosixShm = 2,
    /// A named POSIX semaphore.
    PosixSem = 3,
    /// A container of semaphores, as Ocamlnet's Netsys_sem makes them: for the path `p` the POSIX shared memory
    /// `p_sems` and the named semaphores `p_contsem` and `p_sem0` to `p_sem16383`.
    SemCont = 4,
}

const KINDS: [(PmKind, &str); 4] = [
    (PmKind::File, "FILE"),
    (PmKind::PosixShm, "POSIX_SHM"),
    (PmKind::PosixSem, "POSIX_SEM"),
    (PmKind::SemCont, "SEM_CONT"),
];

impl PmKind {
    /// The word that stands for the kind in a list.
    fn word(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

/// A persistent kernel object, by its name. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PmObject {
    /// What it is.
    pub kind: PmKind,
    /// Its name: an absolute path, or what stands for one in the kind's name space, such as `/my_memory`.
    pub path: PathBuf,
}

impl PmObject {
    /// Names an object.
    pub fn new(kind: PmKind, path: impl Into<PathBuf>) -> PmObject {
        PmObject { kind, path: path.into() }
    }

    /// Deletes the object, as [`Pmanage::unlink`] does with all that are registered; in what list it is makes
    /// no difference. A failure to delete is ignored.
    ///
    /// # Errors
    /// [`Error::Invalid`], the path is not absolute or contains a NUL byte.
    pub fn unlink(&self) -> Result<()> {
        self.validate()?;
        self.remove();
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        validate("path", &self.path)
    }

    /// Deletes what can be deleted. A relative path, which Netsys_pmanage lets in, would mean another thing in
    /// every process: it is left alone.
    fn remove(&self) {
        let path = self.path.as_os_str().as_bytes();
        if self.validate().is_err() {
            return;
        }
        match self.kind {
            PmKind::File => remove_file(path),
            PmKind::PosixShm => remove_posix_shm(path),
            PmKind::PosixSem => remove_posix_sem(path),
            PmKind::SemCont => {
                remove_posix_shm(&[path, b"_sems"].concat());
                remove_posix_sem(&[path, b"_contsem"].concat());
                for number in 0..CONTAINER_SEMAPHORES {
                    remove_posix_sem(&[path, format!("_sem{number}").as_bytes()].concat());
                }
            }
        }
    }

    /// The line that says what happens to the object.
    fn line(&self, event: Event) -> Vec<u8> {
        let path = ocaml_quote(self.path.as_os_str().as_bytes());
        [event.letter(), b" ", self.kind.word().as_bytes(), b" ", &path, b"\n"].concat()
    }
}

/// What a line does with its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Register,
    Unregister,
}

impl Event {
    fn letter(self) -> &'static [u8] {
        match self {
            Event::Register => b"R",
            Event::Unregister => b"U",
        }
    }

    /// Does it; whether that makes a difference.
    fn apply(self, object: PmObject, objects: &mut BTreeSet<PmObject>) -> bool {
        match self {
            Event::Register => objects.insert(object),
            Event::Unregister => objects.remove(&object),
        }
    }
}

/// A list of persistent kernel objects, in a text file or in memory.
///
/// All threads may use it at once, and all processes its file, programs with Ocamlnet's Netsys_pmanage included.
/// Each call opens the file and locks the whole of it for as long as it takes. A clone is the same list.
#[derive(Debug, Clone)]
pub struct Pmanage {
    store: Store,
}

#[derive(Clone)]
enum Store {
    File(PathBuf),
    /// Replaced as a whole, so that a child can use it wherever the parent's threads were at the fork.
    Memory(Arc<Replaceable<BTreeSet<PmObject>>>),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Store::File(path) => f.debug_tuple("File").field(path).finish(),
            Store::Memory(list) => list.read(|list| f.debug_tuple("Memory").field(list).finish()),
        }
    }
}

impl Pmanage {
    /// The list in a file. The file is created, for its owner only, when something is registered.
    ///
    /// # Errors
    /// [`Error::Invalid`], the path is not absolute or contains a NUL byte.
    pub fn open(path: impl Into<PathBuf>) -> Result<Pmanage> {
        let path = path.into();
        validate("path", &path)?;
        Ok(Pmanage { store: Store::File(path) })
    }

    /// A list that is not saved anywhere. A forked child has a copy, as it was at the fork.
    pub fn in_memory() -> Pmanage {
        Pmanage { store: Store::Memory(Arc::new(Replaceable::new(BTreeSet::new()))) }
    }

    /// Registers an object; that it is registered already is no error.
    ///
    /// # Errors
    /// [`Error::Invalid`], the object's path is not absolute or contains a NUL byte; [`Error::Line`], the file
    /// has a line that cannot be understood; [`Error::Timeout`], another program keeps the file locked;
    /// [`Error::NoSpace`], [`Error::Permission`], [`Error::System`]. Nothing has changed then.
    pub fn register(&self, object: &PmObject) -> Result<()> {
        self.register_many(std::slice::from_ref(object))
    }

    /// Registers several objects by one change of the list: all of them or, on an error, none.
    ///
    /// # Errors
    /// As for [`Pmanage::register`].
    pub fn register_many(&self, objects: &[PmObject]) -> Result<()> {
        self.note(Event::Register, objects)
    }

    /// Unregisters an object, which is not deleted; that it is not registered is no error.
    ///
    /// # Errors
    /// As for [`Pmanage::register`].
    pub fn unregister(&self, object: &PmObject) -> Result<()> {
        self.note(Event::Unregister, std::slice::from_ref(object))
    }

    fn note(&self, event: Event, objects: &[PmObject]) -> Result<()> {
        objects.iter().try_for_each(PmObject::validate)?;
        match &self.store {
            Store::Memory(list) => {
                list.replace(|list| {
                    let mut list = list.clone();
                    for object in objects {
                        event.apply(object.clone(), &mut list);
                    }
                    list
                });
                Ok(())
            }
            Store::File(_) if objects.is_empty() => Ok(()),
            Store::File(path) => match LockedList::open(path, Purpose::Extend)? {
                Some(file) => extend(&file, event, objects),
                None => Err(Error::NotFound),
            },
        }
    }

    /// What is registered, each object once, sorted by kind and path.
    ///
    /// Paths that this library would not have registered, relative ones and those with NUL bytes, are listed, too.
    ///
    /// # Errors
    /// [`Error::Line`], the file has a line that cannot be understood; [`Error::Timeout`], another program keeps
    /// the file locked; [`Error::Permission`], [`Error::System`]. A missing file is an empty list.
    pub fn registered(&self) -> Result<Vec<PmObject>> {
        match &self.store {
            Store::Memory(list) => Ok(list.read(|list| list.iter().cloned().collect())),
            Store::File(path) => match LockedList::open(path, Purpose::Look)? {
                Some(file) => Ok(Content::parse(&file.read()?)?.objects.into_iter().collect()),
                None => Ok(Vec::new()),
            },
        }
    }

    /// Deletes every registered object and empties the list. Failures to delete single objects are ignored.
    ///
    /// The list is emptied in the end: should the process die on the way, all is still registered. (One in memory is
    /// emptied first.)
    ///
    /// # Errors
    /// As for [`Pmanage::registered`]; [`Error::Permission`] also if the file belongs neither to this process's user nor to
    /// root: deleting is done by this process's rights. Nothing has changed then.
    pub fn unlink(&self) -> Result<()> {
        match &self.store {
            Store::Memory(list) => {
                list.replace(|_| BTreeSet::new()).iter().for_each(PmObject::remove);
                Ok(())
            }
            Store::File(path) => {
                let Some(file) = LockedList::open(path, Purpose::Clear)? else { return Ok(()) };
                let content = Content::parse(&file.read()?)?;
                content.objects.iter().for_each(PmObject::remove);
                file.cut(0)
            }
        }
    }
}

fn validate(argument: &'static str, path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Error::Invalid { argument, reason: "it is not an absolute path" });
    }
    if bytes.contains(&0) {
        return Err(Error::Invalid { argument, reason: "it contains a NUL byte" });
    }
    Ok(())
}

/// Adds lines to a locked file, for those objects with which they make a difference.
fn extend(file: &LockedList, event: Event, objects: &[PmObject]) -> Result<()> {
    let mut content = Content::parse(&file.read()?)?;
    let mut lines = Vec::new();
    if content.lacks_newline {
        lines.push(b'\n');
    }
    let before = lines.len();
    for object in objects {
        if event.apply(object.clone(), &mut content.objects) {
            lines.extend(object.line(event));
        }
    }
    match lines.len() == before {
        true => Ok(()),
        false => file.continue_from(content.whole_bytes as u64, &lines),
    }
}

/// What a list says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    objects: BTreeSet<PmObject>,
    /// Length of the whole lines. Behind them there may be half a line, whose writer has died, or blank ones.
    whole_bytes: usize,
    /// Whether the last of the whole lines has no end.
    lacks_newline: bool,
}

impl Content {
    /// Reads a list as Ocamlnet does, by `Scanf` with `"%c %s %S\n"`: blanks, and even ends of lines, may lie
    /// between the three parts.
    fn parse(bytes: &[u8]) -> Result<Content> {
        let mut content = Content::default();
        while content.whole_bytes < bytes.len() && !content.lacks_newline {
            let start = content.whole_bytes;
            let mut scan = Scan { rest: &bytes[start..] };
            match scan.event() {
                Ok((event, object, ended)) => {
                    event.apply(object, &mut content.objects);
                    content.whole_bytes = bytes.len() - scan.rest.len();
                    content.lacks_newline = !ended;
                }
                Err(Flaw::Unfinished) if is_dead_end(&bytes[start..]) => break,
                Err(flaw) => return Err(flaw.at(bytes, start)),
            }
        }
        Ok(content)
    }
}

/// Whether it is what may be behind the whole lines of a list: a line that is not yet ended, or nothing visible.
fn is_dead_end(rest: &[u8]) -> bool {
    !rest.contains(&b'\n') || rest.trim_ascii().is_empty()
}

/// Why there is no event.
enum Flaw {
    /// The end of the file has come too early.
    Unfinished,
    /// There is something else.
    Garbage(&'static str),
}

impl Flaw {
    #[cold]
    fn at(self, bytes: &[u8], start: usize) -> Error {
        let line = bytes[..start].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let reason = match self {
            Flaw::Unfinished => "the line is not complete",
            Flaw::Garbage(reason) => reason,
        };
        Error::Line { line, offset: start as u64, reason }
    }
}

struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    /// Takes an event and its object, and says whether the end of the line was there.
    fn event(&mut self) -> std::result::Result<(Event, PmObject, bool), Flaw> {
        let event = match self.take(1) {
            b"R" => Event::Register,
            b"U" => Event::Unregister,
            blank if blank.trim_ascii().is_empty() && self.rest.trim_ascii().is_empty() => {
                return Err(Flaw::Unfinished);
            }
            _ => return Err(Flaw::Garbage("it begins with neither R nor U")),
        };
        self.skip_blanks();
        let kind = self.kind()?;
        self.skip_blanks();
        let path = self.path()?;
        let ended = match self.rest {
            [] | b"\r" => false,
            [b'\n', ..] => self.take(1) == b"\n",
            [b'\r', b'\n', ..] => self.take(2) == b"\r\n",
            _ => return Err(Flaw::Garbage("something follows the path")),
        };
        Ok((event, PmObject { kind, path }, ended))
    }

    fn kind(&mut self) -> std::result::Result<PmKind, Flaw> {
        let length = self.rest.iter().position(|byte| is_blank(*byte)).unwrap_or(self.rest.len());
        let word = self.take(length);
        match KINDS.iter().find(|(_, known)| known.as_bytes() == word) {
            Some((kind, _)) => Ok(*kind),
            None if self.rest.is_empty()
                && KINDS.iter().any(|(_, known)| known.as_bytes().starts_with(word)) =>
            {
                Err(Flaw::Unfinished)
            }
            None => Err(Flaw::Garbage("there is no such kind of object")),
        }
    }

    fn path(&mut self) -> std::result::Result<PathBuf, Flaw> {
        if self.rest.is_empty() {
            return Err(Flaw::Unfinished);
        }
        let length = quoted_length(self.rest)?;
        match ocaml_unquote(self.take(length)) {
            Some(path) => Ok(PathBuf::from(OsString::from_vec(path))),
            None => Err(Flaw::Garbage("the path has a bad escape")),
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        let length = self.rest.iter().position(|byte| !is_blank(*byte)).unwrap_or(self.rest.len());
        self.take(length);
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Length of what begins with a quotation mark, up to the one that ends it.
fn quoted_length(bytes: &[u8]) -> std::result::Result<usize, Flaw> {
    if bytes.first() != Some(&b'"') {
        return Err(Flaw::Garbage("the path is not in quotes"));
    }
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return Err(Flaw::Unfinished),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn object(kind: PmKind, path: &[u8]) -> PmObject {
        PmObject::new(kind, OsStr::from_bytes(path))
    }

    fn parsed(bytes: &[u8]) -> (Vec<PmObject>, usize, bool) {
        let content = Content::parse(bytes).expect("a good list");
        (content.objects.into_iter().collect(), content.whole_bytes, content.lacks_newline)
    }

    /// A file of its own, which is removed in the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Scratch {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Scratch(std::env::temp_dir().join(format!("netshm-pm-{}-{number}", std::process::id())))
        }

        fn list(&self) -> Pmanage {
            Pmanage::open(&self.0).expect("absolute")
        }

        fn content(&self) -> Vec<u8> {
            std::fs::read(&self.0).expect("readable")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn lists_are_understood() {
        let (a, b) = (object(PmKind::File, b"/a"), object(PmKind::SemCont, b"/b"));
        assert_eq!(parsed(b""), (vec![], 0, false));
        assert_eq!(parsed(b"R FILE \"/a\"\n"), (vec![a.clone()], 12, false));
        assert_eq!(parsed(b"R FILE \"/a\""), (vec![a.clone()], 11, true));
        assert_eq!(parsed(b"R FILE \"/a\"\nU FILE \"/a\"\n"), (vec![], 24, false));
        assert_eq!(parsed(b"R SEM_CONT \"/b\"\r\nRFILE\n\"/a\"\n"), (vec![a.clone(), b], 28, false));
        for half in [&b"R"[..], b"R ", b"R POSIX_", b"R FILE", b"U FILE ", b"R FILE \"/x\\", b"\n", b" \n\n"]
        {
            let bytes = [b"R FILE \"/a\"\n", half].concat();
            assert_eq!(parsed(&bytes), (vec![a.clone()], 12, false), "{}", half.escape_ascii());
        }
    }

    #[test]
    fn the_line_of_garbage_is_told() {
        for (garbage, part) in [
            (&b"X FILE \"/a\"\n"[..], "neither R nor U"),
            (b"\nR FILE \"/a\"\n", "neither R nor U"),
            (b"R FIL \"/a\"\n", "no such kind"),
            (b"R FIL\n", "no such kind"),
            (b"Readme", "no such kind"),
            (b"R FILE /a\n", "not in quotes"),
            (b"R FILE \"/a\\q\"\n", "bad escape"),
            (b"R FILE \"/\\256\"\n", "bad escape"),
            (b"R FILE \"/a\" \n", "follows"),
            (b"R FILE \"/a\"R FILE \"/b\"\n", "follows"),
            (b"R FILE \"/a\n", "not complete"),
            (b"R FILE\nR FILE \"/b\"\n", "not in quotes"),
        ] {
            let scratch = Scratch::new();
            let before = [b"R FILE \"/1\"\nU FILE \"/1\"\n", garbage].concat();
            std::fs::write(&scratch.0, &before).expect("writable");
            let list = scratch.list();
            let outcomes = [
                list.registered().map(drop),
                list.register(&object(PmKind::File, b"/new")),
                list.unregister(&object(PmKind::File, b"/new")),
                list.unlink(),
            ];
            for outcome in outcomes {
                match outcome {
                    Err(Error::Line { line: 3, offset: 24, reason }) => {
                        assert!(reason.contains(part), "{reason}")
                    }
                    other => panic!("{}: {other:?}", garbage.escape_ascii()),
                }
            }
            assert_eq!(scratch.content(), before, "nothing has changed");
        }
    }

    #[test]
    fn what_is_registered_is_listed_and_what_is_unregistered_is_not() {
        let scratch = Scratch::new();
        let all: Vec<u8> = std::iter::once(b'/').chain(1..=255).collect();
        for list in [scratch.list(), Pmanage::in_memory()] {
            assert_eq!(list.registered(), Ok(vec![]));
            list.unlink().expect("nothing to be done");
            let mut objects: Vec<PmObject> = KINDS.map(|(kind, _)| object(kind, &all)).into();
            list.register_many(&objects).expect("registered");
            list.register(&objects[0]).expect("twice is fine");
            assert_eq!(list.registered().as_ref(), Ok(&objects));
            list.unregister(&objects.remove(2)).expect("unregistered");
            list.unregister(&object(PmKind::File, b"/no")).expect("never registered");
            assert_eq!(list.clone().registered(), Ok(objects));
            list.register_many(&[]).expect("nothing to be done");
        }
        assert_eq!(scratch.content().iter().filter(|byte| **byte == b'\n').count(), 5);
    }

    #[test]
    fn relative_paths_are_refused_as_a_whole() {
        let scratch = Scratch::new();
        assert!(matches!(Pmanage::open("relative"), Err(Error::Invalid { argument: "path", .. })));
        assert!(matches!(Pmanage::open(""), Err(Error::Invalid { argument: "path", .. })));
        for list in [scratch.list(), Pmanage::in_memory()] {
            for bad in [&b"relative"[..], b"", b"/nul\0"] {
                let (good, bad) = (object(PmKind::File, b"/good"), object(PmKind::PosixShm, bad));
                let outcome = list.register_many(&[good, bad.clone()]);
                assert!(matches!(outcome, Err(Error::Invalid { argument: "path", .. })));
                assert!(list.unregister(&bad).is_err() && bad.unlink().is_err());
            }
            assert_eq!(list.registered(), Ok(vec![]));
        }
        assert!(!scratch.0.exists());
    }

    #[test]
    fn half_a_line_is_replaced_and_a_missing_end_completed() {
        let scratch = Scratch::new();
        let new = object(PmKind::PosixSem, b"/new");
        for (before, after) in [
            (&b"R FILE \"/a\"\nR FILE \"/ver"[..], &b"R FILE \"/a\"\nR POSIX_SEM \"/new\"\n"[..]),
            (b"R FILE \"/a\"", b"R FILE \"/a\"\nR POSIX_SEM \"/new\"\n"),
            (b"\n\n", b"R POSIX_SEM \"/new\"\n"),
        ] {
            std::fs::write(&scratch.0, before).expect("writable");
            scratch.list().register(&new).expect("registered");
            assert_eq!(scratch.content(), after);
        }
    }

    #[test]
    fn unlink_deletes_and_empties() {
        let (scratch, victim) = (Scratch::new(), Scratch::new());
        let name = victim.0.file_name().and_then(OsStr::to_str).expect("UTF-8");
        let semaphores =
            ["", "_contsem", "_sem0", "_sem16383"].map(|end| format!("/dev/shm/sem.{name}{end}"));
        let memory = ["", "_sems"].map(|end| format!("/dev/shm/{name}{end}"));
        for list in [scratch.list(), Pmanage::in_memory()] {
            for path in semaphores.iter().chain(&memory) {
                std::fs::write(path, b"").expect("a stand-in");
            }
            std::fs::write(&victim.0, b"").expect("a file");
            let directory = object(PmKind::File, b"/tmp");
            list.register_many(&[directory, PmObject::new(PmKind::File, &victim.0)]).expect("registered");
            for kind in [PmKind::PosixShm, PmKind::PosixSem, PmKind::SemCont] {
                list.register(&PmObject::new(kind, format!("/{name}"))).expect("registered");
            }
            list.unlink().expect("unlinked, though a directory stays");
            assert_eq!(list.registered(), Ok(vec![]));
            assert!(!victim.0.exists() && Path::new("/tmp").is_dir());
            for path in semaphores.iter().chain(&memory) {
                assert!(!Path::new(path).exists(), "{path}");
            }
        }
        assert_eq!(scratch.content(), b"");
    }

    /// Netsys_pmanage does not check what is registered as one of many.
    #[test]
    fn relative_paths_of_others_are_listed_and_left_alone() {
        let scratch = Scratch::new();
        std::fs::write(&scratch.0, b"R FILE \"Cargo.toml\"\nR FILE \"/nul\\000\"\n").expect("writable");
        let list = scratch.list();
        let found = [object(PmKind::File, b"/nul\0"), object(PmKind::File, b"Cargo.toml")];
        assert_eq!(list.registered(), Ok(found.into()));
        assert!(Path::new("Cargo.toml").exists());
        list.unlink().expect("unlinked");
        assert!(Path::new("Cargo.toml").exists());
        assert_eq!(list.registered(), Ok(vec![]));
    }

    #[test]
    fn threads_lose_nothing() {
        const EACH: usize = 50;
        let scratch = Scratch::new();
        for list in [scratch.list(), Pmanage::in_memory()] {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let list = &list;
                    scope.spawn(move || {
                        for n in 0..EACH {
                            let path = format!("/{thread}/{n}");
                            list.register(&PmObject::new(PmKind::File, &path)).expect("registered");
                            let gone = PmObject::new(PmKind::PosixShm, path);
                            list.register(&gone).expect("registered");
                            list.unregister(&gone).expect("unregistered");
                        }
                    });
                }
            });
            assert_eq!(list.registered().expect("listed").len(), 4 * EACH);
        }
    }
}
