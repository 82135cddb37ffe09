//! The small text file beside a POSIX shared memory object, by which its memory is found and deleted
//! even when nobody is left who knows the name.
//!
//! It owns the line that an object writes there and OCaml's way of quoting names, which
//! Netsys_pmanage reads. It refuses to write to a file that holds anything else, and never keeps the
//! file locked beyond one append: other programs lock the whole of it.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::descriptor::{
    Descriptor, as_file, io_error, open_error, open_or_create, open_path, permissions, require_regular,
    unlink_path,
};
use super::filelock::{lock_range, unlock_range};
use super::space::pwrite_all;
use super::time::Deadline;
use crate::error::{Error, Result};

/// What is longer than this is not looked through: lists of that length are made by mistake.
const MAX_BYTES: usize = 4 << 20;

/// How long an append waits for other programs that have the file locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How the management file is to be opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ManagementFlags {
    /// Only look; a missing file is no error.
    pub(crate) read_only: bool,
    /// Create it if it is missing.
    pub(crate) create: bool,
    /// Its name must be new.
    pub(crate) exclusive: bool,
}

/// An open management file.
#[derive(Debug)]
pub(crate) struct Management {
    descriptor: Descriptor,
    created: bool,
}

/// What the file says about one memory object.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It is registered.
    Registered,
    /// It is not, nor is any other; these bytes at the file's end register it.
    Missing { append: Vec<u8> },
    /// The file is about something else, namely this.
    Foreign(String),
}

impl Management {
    /// Opens the file; `None` if it is missing and the flags allow that.
    pub(crate) fn open(path: &Path, flags: ManagementFlags, mode: u32) -> Result<Option<Management>> {
        let mode = permissions(mode)?;
        let open = |access: OFlag, create| {
            open_or_create(|extra| open_path(path, access | extra, mode), create, create && flags.exclusive)
        };
        let outcome = match flags.read_only && !flags.create {
            true => open(OFlag::O_RDONLY, false),
            // Who may not write to it can still use the object, if its line is there.
            false => open(OFlag::O_RDWR, flags.create).or_else(|errno| match errno {
                Errno::EACCES | Errno::EROFS if !flags.exclusive => {
                    open(OFlag::O_RDONLY, false).map_err(|_| errno)
                }
                _ => Err(errno),
            }),
        };
        let (fd, created) = match outcome {
            Err(Errno::ENOENT) if flags.read_only => return Ok(None),
            outcome => outcome.map_err(|errno| open_error("open", "file_name", errno))?,
        };
        let descriptor = Descriptor::new(fd)?;
        require_regular(descriptor.fd(), "file_name")?;
        Ok(Some(Management { descriptor, created }))
    }

    /// Whether the file was made by this opening.
    pub(crate) fn created(&self) -> bool {
        self.created
    }

    /// Whether the file can be written to.
    pub(crate) fn writable(&self) -> bool {
        !self.descriptor.is_read_only()
    }

    /// Whether the path leads to this file, still.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let identity = self.descriptor.identity();
        std::fs::symlink_metadata(path).is_ok_and(|at| at.dev() == identity.dev && at.ino() == identity.ino)
    }

    /// Removes the file if this opening has made it and nobody has put it to use: it is empty, or, if it may be
    /// registered, says no more than that `mem` is.
    pub(crate) fn take_back(&self, path: &Path, mem: &OsStr, registered: bool) -> Result<()> {
        if !self.created {
            return Ok(());
        }
        let fd = self.descriptor.fd();
        // Whoever appends to it has it locked.
        lock_range(fd, 0, 0, Deadline::after(Some(LOCK_PATIENCE)))?;
        let outcome = read(fd).and_then(|content| {
            let unused = content.is_empty() || (registered && content == registration(mem.as_bytes()));
            if unused && self.is_at(path) { unlink_path(path) } else { Ok(()) }
        });
        let unlocked = unlock_range(fd, 0, 0);
        outcome.and(unlocked)
    }

    /// The open file itself.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether the memory object is registered. A file that names another one is an error.
    pub(crate) fn is_registered(&self, mem: &OsStr) -> Result<bool> {
        let content = read(self.descriptor.fd())?;
        match examine(&content, mem.as_bytes()) {
            Finding::Registered => Ok(true),
            Finding::Missing { .. } => Ok(false),
            Finding::Foreign(found) => Err(foreign_error(mem, found)),
        }
    }

    /// Writes the line that registers the memory object, unless it is there.
    pub(crate) fn register(&self, mem: &OsStr) -> Result<()> {
        if self.is_registered(mem)? {
            return Ok(());
        }
        if !self.writable() {
            return Err(Error::Permission);
        }
        let fd = self.descriptor.fd();
        lock_range(fd, 0, 0, Deadline::after(Some(LOCK_PATIENCE)))?;
        let outcome = append_registration(fd, mem);
        let unlocked = unlock_range(fd, 0, 0);
        outcome.and(unlocked)
    }
}

/// Registers in a locked file.
fn append_registration(fd: BorrowedFd<'_>, mem: &OsStr) -> Result<()> {
    let content = read(fd)?;
    let append = match examine(&content, mem.as_bytes()) {
        Finding::Registered => return Ok(()),
        Finding::Foreign(found) => return Err(foreign_error(mem, found)),
        Finding::Missing { append } => append,
    };
    let end = content.len() as u64;
    pwrite_all(fd, &append, end).inspect_err(|_| {
        // Half a line would confuse other readers. Should this fail, too, the next one completes it.
        let _ = as_file(fd).set_len(end);
    })
}

fn read(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match as_file(fd).read_at(&mut chunk, content.len() as u64) {
            Ok(0) => return Ok(content),
            Ok(count) => content.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("pread", &error)),
        }
        if content.len() > MAX_BYTES {
            return Err(Error::TooLarge("the management file"));
        }
    }
}

/// The line that registers a memory object.
fn registration(mem: &[u8]) -> Vec<u8> {
    [b"R POSIX_SHM ", &ocaml_quote(mem)[..], b"\n"].concat()
}

#[cold]
fn foreign_error(mem: &OsStr, found: String) -> Error {
    Error::Kind { asked: describe(mem.as_bytes()), found }
}

fn describe(mem: &[u8]) -> String {
    format!("the management file of POSIX_SHM {}", String::from_utf8_lossy(&ocaml_quote(mem)))
}

/// Finds out what the content says about a memory object.
fn examine(content: &[u8], mem: &[u8]) -> Finding {
    let ours = registration(mem);
    let complete = content.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let (lines, tail) = content.split_at(complete);
    let mut scan = Scan::default();
    lines.split(|&byte| byte == b'\n').for_each(|line| scan.line(line));
    // Behind the last line there may be the beginning of ours, if its writer died: it is completed.
    // It may also be a whole line that only lacks its end.
    let append = if ours.starts_with(tail) && tail.len() + 1 < ours.len() {
        ours[tail.len()..].to_vec()
    } else {
        scan.line(tail);
        [b"\n", &ours[..]].concat()
    };
    match scan.registered.first() {
        _ if scan.registered.iter().any(|path| path == mem) => Finding::Registered,
        Some(other) => Finding::Foreign(describe(other)),
        None if scan.stray => Finding::Foreign("a file that is not a management file".to_owned()),
        None => Finding::Missing { append },
    }
}

/// What the lines read so far amount to.
#[derive(Default)]
struct Scan {
    /// The memory objects that are registered.
    registered: Vec<Vec<u8>>,
    /// Whether there was a line that no management file has.
    stray: bool,
}

impl Scan {
    fn line(&mut self, line: &[u8]) {
        match parse_event(line) {
            Some((true, path)) => {
                if !self.registered.contains(&path) {
                    self.registered.push(path);
                }
            }
            Some((false, path)) => self.registered.retain(|other| *other != path),
            None => self.stray |= !line.trim_ascii().is_empty() && !is_other_event(line),
        }
    }
}

/// Reads a line about POSIX shared memory: whether it registers, and what.
fn parse_event(line: &[u8]) -> Option<(bool, Vec<u8>)> {
    let line = line.trim_ascii();
    let (registers, quoted) = match line.strip_prefix(b"R POSIX_SHM ") {
        Some(quoted) => (true, quoted),
        None => (false, line.strip_prefix(b"U POSIX_SHM ")?),
    };
    Some((registers, ocaml_unquote(quoted.trim_ascii())?))
}

/// Whether a line is about an object of another kind.
fn is_other_event(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let Some(rest) = line.strip_prefix(b"R ").or_else(|| line.strip_prefix(b"U ")) else { return false };
    let Some(blank) = rest.iter().position(|&byte| byte == b' ') else { return false };
    let (kind, quoted) = rest.split_at(blank);
    kind != b"POSIX_SHM"
        && kind.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_')
        && ocaml_unquote(quoted.trim_ascii()).is_some()
}

/// Quotes a string as OCaml's `%S` does.
pub(crate) fn ocaml_quote(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quoted.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', byte]),
            b'\n' => quoted.extend(b"\\n"),
            b'\t' => quoted.extend(b"\\t"),
            b'\r' => quoted.extend(b"\\r"),
            8 => quoted.extend(b"\\b"),
            b' '..=b'~' => quoted.push(byte),
            _ => quoted.extend([b'\\', b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10]),
        }
    }
    quoted.push(b'"');
    quoted
}

/// Reads a whole string in OCaml's quotes; `None` if it is not one.
pub(crate) fn ocaml_unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let inner = quoted.strip_prefix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(text),
            b'\\' => match bytes.next_if(|byte| matches!(byte, b'\n' | b'\r')) {
                None => text.push(unescape(&mut bytes)?),
                // The end of a line and the blanks behind it do not count. A lone carriage return is one.
                Some(b'\r') if bytes.next_if_eq(&b'\n').is_none() => text.push(b'\r'),
                Some(_) => while bytes.next_if_eq(&b' ').is_some() {},
            },
            byte => text.push(byte),
        }
    }
}

/// Reads what follows a backslash.
fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    match bytes.next()? {
        byte @ (b'"' | b'\\' | b'\'' | b' ') => Some(byte),
        b'n' => Some(b'\n'),
        b't' => Some(b'\t'),
        b'r' => Some(b'\r'),
        b'b' => Some(8),
        b'x' => character_code([bytes.next()?, bytes.next()?], 16),
        digit => character_code([digit, bytes.next()?, bytes.next()?], 10),
    }
}

fn character_code<const N: usize>(digits: [u8; N], radix: u32) -> Option<u8> {
    let mut code = 0;
    for digit in digits {
        code = code * radix + char::from(digit).to_digit(radix)?;
    }
    u8::try_from(code).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_that_of_ocaml() {
        assert_eq!(ocaml_quote(b"/a b"), b"\"/a b\"");
        assert_eq!(ocaml_quote(b"\"\\\n\t\r\x08\x00\x7f\xff'"), br#""\"\\\n\t\r\b\000\127\255'""#);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(ocaml_unquote(&ocaml_quote(&all)), Some(all));
        assert_eq!(ocaml_unquote(br#""\x41\'\ ""#), Some(b"A' ".to_vec()));
        assert_eq!(ocaml_unquote(b"\"a\\\n  b\\\r\n c\\\rd\"").as_deref(), Some(&b"abc\rd"[..]));
        for bad in
            [&b""[..], b"\"", b"a", b"\"a\"b", br#""\""#, br#""\256""#, br#""\12""#, br#""\q""#, br#""\xg0""#]
        {
            assert_eq!(ocaml_unquote(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    fn missing(append: &[u8]) -> Finding {
        Finding::Missing { append: append.to_vec() }
    }

    #[test]
    fn the_content_is_understood() {
        let line = b"R POSIX_SHM \"/a\"\n";
        assert_eq!(examine(b"", b"/a"), missing(line));
        assert_eq!(examine(line, b"/a"), Finding::Registered);
        assert_eq!(examine(b"R FILE \"/x\"\nR POSIX_SHM \"/a\"", b"/a"), Finding::Registered);
        assert_eq!(examine(b"R POSIX_SHM \"/b\"\nR POSIX_SHM \"/a\"\n", b"/a"), Finding::Registered);
        assert_eq!(examine(b"R POSIX_SHM \"/a\"\nU POSIX_SHM \"/a\"\n", b"/a"), missing(line));
        assert_eq!(examine(b"R FILE \"/x\"\n", b"/a"), missing(line));
        assert_eq!(examine(b"R FILE \"/x\"", b"/a"), missing(b"\nR POSIX_SHM \"/a\"\n"));
        assert_eq!(examine(b"R POSI", b"/a"), missing(b"X_SHM \"/a\"\n"));
        assert!(
            matches!(examine(b"R POSIX_SHM \"/b\"\n", b"/a"), Finding::Foreign(found) if found.contains("\"/b\""))
        );
        for precious in [&b"root:x:0:0\n"[..], b"dear diary", b"R POSIX_SHM \"/b\nR POS"] {
            assert!(matches!(examine(precious, b"/a"), Finding::Foreign(_)));
        }
    }
}
