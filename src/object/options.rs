//! How an object is made, and how its tables are looked at.

use crate::error::{Error, Result};
use crate::format::MAX_OBJECT_BYTES;
use crate::format::catalog::MAX_NAME;
use crate::format::header::Header;
use crate::os::name::Kind;
use crate::os::{self, process};

/// How concurrent changes are kept apart. Recorded in the object when it is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Locking {
    /// Nothing is protected: for a single thread of a single process, or readers only. Still safe against
    /// being killed.
    None = 1,
    /// The lock words of [`Futex`](Locking::Futex), without the futex system call: for systems and sandboxes that
    /// do not have it. As always, `fcntl` record locks tell who lives. Whoever waits looks again and again, at
    /// first every 50 us, later every 2 ms; who need not wait pays nothing for that.
    Record = 2,
    /// Lock words in the shared memory, with the futex system call for waiting.
    Futex = 3,
}

impl Locking {
    /// The method of a recorded number; the best one if there is no such method.
    pub(crate) fn from_recorded(number: u64) -> Locking {
        match number {
            1 => Locking::None,
            2 => Locking::Record,
            _ => Locking::Futex,
        }
    }

    pub(crate) fn name(number: u64) -> &'static str {
        match number {
            1 => "NONE",
            2 => "RECORD",
            3 => "FUTEX",
            _ => "unknown",
        }
    }
}

/// The hash function of an object's keys. Recorded in the object when it is initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyHashing {
    /// XXH3 with a random seed: fast; collisions can be made by somebody who learns the seed.
    #[default]
    Fast = 1,
    /// SipHash-1-3 with a random key: for keys chosen by enemies.
    Keyed = 2,
}

/// Kinds of objects that this system supports.
pub fn supported_kinds() -> &'static [Kind] {
    os::name::supported_kinds()
}

/// The best locking method for a kind of object: [`Locking::Futex`], or [`Locking::Record`] where the system has no futex
/// call for this process, as in some sandboxes. It is tried once.
pub fn best_locking(_kind: Kind) -> Locking {
    if os::futex::works() { Locking::Futex } else { Locking::Record }
}

/// The locking method of a new object for which none is asked.
fn default_locking(kind: Kind) -> Locking {
    #[cfg(feature = "inject")]
    if crate::inject::prefers_record_locking() {
        return Locking::Record;
    }
    best_locking(kind)
}

/// What a new object is made with, and how an existing one is looked at.
#[derive(Debug, Clone)]
pub struct ManageOptions {
    pub(crate) locking: Option<Locking>,
    pub(crate) hashing: Option<KeyHashing>,
    pub(crate) page_size: u32,
    pub(crate) lock_timeout_ms: i32,
    pub(crate) expected: u64,
    pub(crate) max_bytes: u64,
    pub(crate) reinitialise: bool,
    pub(crate) huge_pages: bool,
    pub(crate) checksums: bool,
    /// Empty: the unnamed table.
    pub(crate) root: String,
}

impl Default for ManageOptions {
    fn default() -> Self {
        ManageOptions {
            locking: None,
            hashing: None,
            page_size: 256,
            lock_timeout_ms: 0,
            expected: 0,
            max_bytes: 0,
            reinitialise: false,
            huge_pages: false,
            checksums: false,
            root: String::new(),
        }
    }
}

impl ManageOptions {
    /// All defaults.
    pub fn new() -> ManageOptions {
        ManageOptions::default()
    }
    /// The locking method. Default: that of the object, or [`best_locking`] for a new one.
    pub fn locking(&mut self, locking: Locking) -> &mut Self {
        self.locking = Some(locking);
        self
    }
    /// The hash function of the keys. Default: that of the object, or [`KeyHashing::Fast`].
    pub fn hashing(&mut self, hashing: KeyHashing) -> &mut Self {
        self.hashing = Some(hashing);
        self
    }
    /// A hint, in bytes: at least 160 and divisible by 4. It is recorded and has no other effect.
    pub fn page_size(&mut self, bytes: u32) -> &mut Self {
        self.page_size = bytes;
        self
    }
    /// Longest wait for a lock through this handle, in milliseconds: 0 no limit, negative no waiting. Until another table is
    /// managed by the same [`Object`](super::Object), its [`check`](super::Object::check), [`tables`](super::Object::tables) and
    /// [`drop_table`](super::Object::drop_table) wait as long; before any is, they wait without a limit.
    pub fn lock_timeout_ms(&mut self, ms: i32) -> &mut Self {
        self.lock_timeout_ms = ms;
        self
    }
    /// Number of keys for which a new table has room from the beginning.
    pub fn expected(&mut self, keys: u64) -> &mut Self {
        self.expected = keys;
        self
    }
    /// The size in bytes beyond which a new object does not grow; 0: no limit.
    pub fn max_bytes(&mut self, bytes: u64) -> &mut Self {
        self.max_bytes = bytes;
        self
    }
    /// Name of the table in the object, 1 to 240 bytes. Default: the unnamed table.
    pub fn root(&mut self, name: &str) -> &mut Self {
        self.root = name.to_string();
        self
    }
    /// Deletes everything that the table holds, in one transaction; if it is the unnamed one, everything that
    /// the object holds, named tables included.
    pub fn reinitialise(&mut self, yes: bool) -> &mut Self {
        self.reinitialise = yes;
        self
    }

    /// Asks the system for huge pages for this process's view of the object's memory. Where it refuses, nothing is lost.
    /// See docs/tuning.md.
    pub fn huge_pages(&mut self, yes: bool) -> &mut Self {
        self.huge_pages = yes;
        self
    }

    /// A new object gets checksums of its keys and values, which [`check`](Object::check) and [`salvage`](crate::salvage)
    /// verify; finds do not. Changes take some times as long, and an object keeps what it was made with.
    pub fn checksums(&mut self, yes: bool) -> &mut Self {
        self.checksums = yes;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        if self.page_size < 160 || self.page_size % 4 != 0 {
            let reason = "must be at least 160 and divisible by 4";
            return Err(Error::Invalid { argument: "page_size", reason });
        }
        if self.expected > 1 << 38 {
            return Err(Error::Invalid { argument: "init", reason: "more keys than an object can hold" });
        }
        if self.max_bytes > MAX_OBJECT_BYTES {
            return Err(Error::Invalid { argument: "max_bytes", reason: "more than 16 TiB" });
        }
        if !self.root.is_empty() {
            check_name(&self.root)?;
        }
        Ok(())
    }

    /// The header of a new object.
    pub(super) fn header(&self, kind: Kind) -> Result<Header> {
        let mut random = [0u8; 32];
        process::random_bytes(&mut random)?;
        let word = |i: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&random[8 * i..8 * i + 8]);
            u64::from_le_bytes(bytes)
        };
        Ok(Header {
            locking: self.locking.unwrap_or_else(|| default_locking(kind)) as u64,
            hash: self.hashing.unwrap_or_default() as u64,
            seed: [word(0), word(1)],
            page_hint: self.page_size as u64,
            max_bytes: self.max_bytes,
            identity: [word(2), word(3)],
            checksums: self.checksums,
            must_be_read_only: false,
        })
    }
}

/// May a table have this name?
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        let reason = "a name of a table has 1 to 240 bytes, none of them 0";
        return Err(Error::Invalid { argument: "root", reason });
    }
    Ok(())
}
