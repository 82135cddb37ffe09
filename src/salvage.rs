//! Saving what is intact of a damaged object.
//!
//! The damaged file is only read, without locks, and nothing in it is believed that does not prove itself: see
//! [`bindings`]. What does goes into a new object by ordinary operations, tables with their names and types. The new
//! object gets its name when it is finished.

mod bindings;
mod source;

use crate::error::{Damage, Error, Result};
use crate::format::bucket::{LINE_BYTES, MAX_LEVEL};
use crate::format::header::{self, Header};
use crate::format::{Offset, PAGE_BYTES, array, catalog, root};
use crate::hashtbl::HashTable;
use crate::index::KeyHash;
use crate::object::{KeyHashing, Locking, ManageOptions, Object};
use crate::os::draft::Draft;
use crate::os::name::Name;
use crate::os::shm::{Files, OpenFlags};
use crate::table::{TableKind, TableSpec};
use crate::types::Type;
use bindings::{Binding, Reader, Stack};
use source::Source;
use std::collections::HashSet;

/// Buckets that are read at a time.
const AT_ONCE: u64 = 1024;

/// What has been saved, and what not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Tables and arrays found, the unnamed one included.
    pub tables: u64,
    /// Tables of which nothing is left: their roots, or what refers to these, are damaged.
    pub tables_lost: u64,
    /// Bindings saved; of an array, chunks or elements.
    pub bindings: u64,
    /// Bindings that are known to be lost. Behind each there may be older ones of the same key.
    pub bindings_lost: u64,
    /// Buckets that cannot be read or are damaged: what they referred to is not known.
    pub buckets_lost: u64,
    /// How many bindings the tables found had by their own count, if that can be read. Operations that were cut
    /// off may make it wrong by some.
    pub bindings_counted: Option<u64>,
}

/// Copies every binding whose record and chain are undamaged from an object, which nobody should be using, into a new
/// one. Tables and arrays keep their names, types and lengths; the order of a key's bindings is kept.
///
/// No binding is invented: a key proves by its hash that it belongs where it was found. That the bytes of a value
/// are those that were stored is only known if the object has checksums.
///
/// `replace`: an object of the new name may exist, and is replaced. The new one has no maximum size.
///
/// # Errors
/// [`Error::Corrupt`], the header is damaged so that no key can be recognised; [`Error::Newer`]; [`Error::NotFound`];
/// [`Error::Exists`]; [`Error::Permission`]; [`Error::NoSpace`]; [`Error::Invalid`].
pub fn salvage(from: &Name, to: &Name, mode: u32, replace: bool) -> Result<Salvaged> {
    let flags = OpenFlags { read_only: true, ..OpenFlags::default() };
    let source = Source::new(Files::open(from, flags, 0)?)?;
    let header = judge_header(&source)?;
    let (draft, files) = Draft::begin(to, mode, replace)?;
    let object = Object::from_files(files, crate::format::MAX_OBJECT_BYTES)?;
    let report = {
        let mut salvage = Salvage {
            hash: KeyHash::of(&header),
            header,
            source,
            object: &object,
            claimed: HashSet::new(),
            report: Salvaged { bindings_counted: Some(0), ..Salvaged::default() },
        };
        salvage.tables()?;
        salvage.report
    };
    // The object's last handle writes it and marks it clean.
    drop(object);
    draft.publish()?;
    Ok(report)
}

/// The header, if there is enough of it to recognise keys.
fn judge_header(source: &Source) -> Result<Header> {
    let Some(mut words) = source.words::<{ header::HEADER_WORDS }>(header::HEADER) else {
        return Err(Error::corrupt(Damage::Truncated, Offset(source.size())));
    };
    // These say nothing that is needed here.
    words[header::W_MAGIC as usize] = header::MAGIC;
    words[header::W_SLOT_BYTES as usize] = crate::format::slot::SLOT_BYTES;
    words[header::W_ARENAS as usize] = header::ARENAS;
    if !(1..=3).contains(&words[header::W_LOCKING as usize]) {
        words[header::W_LOCKING as usize] = header::LOCKING_FUTEX;
    }
    Header::decode(&words)
}

struct Salvage<'a> {
    header: Header,
    hash: KeyHash,
    source: Source,
    object: &'a Object,
    claimed: HashSet<u64>,
    report: Salvaged,
}

/// The words of a root.
type Root = [u64; (PAGE_BYTES / 8) as usize];

impl Salvage<'_> {
    fn tables(&mut self) -> Result<()> {
        let [main, mut page] = self.source.words::<2>(header::MAIN_ROOT).unwrap_or_else(|| {
            // Whatever tables there were.
            self.report.tables_lost += 1;
            [0, 0]
        });
        if main != 0 {
            self.table("", Offset(main))?;
        }
        let mut names = HashSet::new();
        while page != 0 {
            let usable = page % PAGE_BYTES == 0 && self.claimed.insert(page / crate::format::UNIT_BYTES);
            let Some(words) = usable.then(|| self.source.words::<512>(Offset(page))).flatten() else {
                self.report.tables_lost += 1;
                break;
            };
            for n in 0..catalog::ENTRIES {
                let at = (catalog::entry(Offset(0), n).0 / 8) as usize;
                let root = words[at + catalog::W_ROOT as usize];
                let name = text(&words[at + catalog::W_NAME_LEN as usize..], catalog::MAX_NAME);
                match name {
                    _ if root == 0 => {}
                    Some(name) if !name.is_empty() && names.insert(name.clone()) => {
                        self.table(&name, Offset(root))?;
                    }
                    _ => self.report.tables_lost += 1,
                }
            }
            page = words[catalog::W_NEXT as usize];
        }
        Ok(())
    }

    fn table(&mut self, name: &str, at: Offset) -> Result<()> {
        let usable = at.0 % PAGE_BYTES == 0 && self.claimed.insert(at.0 / crate::format::UNIT_BYTES);
        let words = usable.then(|| self.source.words::<512>(at)).flatten();
        let Some((words, made)) = words.and_then(|words| Some((words, self.make(name, &words)?))) else {
            self.report.tables_lost += 1;
            return Ok(());
        };
        let table = match made {
            Ok(table) => table,
            Err(error) if concerns_target(&error) => return Err(error),
            Err(_) => {
                self.report.tables_lost += 1;
                return Ok(());
            }
        };
        self.report.tables += 1;
        self.count(&words);
        let base = words[root::W_BASE_LEVEL as usize] as u32;
        // From behind: if a bucket is there as it was before it was split, its offspring knows better.
        for k in (0..root::max_arrays(base)).rev() {
            let array = Offset(words[(root::W_ARRAYS + u64::from(k)) as usize]);
            if !array.is_none() {
                self.buckets(&table, base, k, array)?;
            }
        }
        Ok(())
    }

    /// Makes a table like one that is damaged. None: what it is cannot be told.
    fn make(&self, name: &str, words: &Root) -> Option<Result<Saved>> {
        let kind = TableKind::from_recorded(words[root::W_KIND as usize])?;
        let base = words[root::W_BASE_LEVEL as usize];
        if !(u64::from(root::MIN_BASE_LEVEL)..=u64::from(MAX_LEVEL)).contains(&base) || base > 36 {
            return None;
        }
        let [keys, values] = root::W_SIGNATURES.map(|at| text(&words[at as usize..], root::MAX_SIGNATURE));
        let (keys, values) = (keys?, values?);
        let is_array = kind == TableKind::Array;
        let length = if is_array { words[root::W_LENGTH as usize] } else { 0 };
        if length > array::MAX_LENGTH {
            return None;
        }
        let sizes = [&keys, &values]
            .map(|text| Type::parse(text).ok().and_then(|of| of.fixed_bytes()).map(|bytes| bytes as u64));
        let mut default = Vec::new();
        if is_array {
            default.push(words[array::W_DEFAULT as usize]);
            default.extend(&words[array::W_LONG_DEFAULT as usize..]);
            default.truncate(1 + (array::MAX_DEFAULT_BYTES / 8) as usize);
        }
        let spec = TableSpec { kind, signatures: [&keys, &values], accepts: &|_| true, length, lacks: None };
        let mut options = ManageOptions::new();
        options.root(name);
        options.locking(Locking::from_recorded(self.header.locking));
        options.checksums(self.header.checksums);
        options.hashing(if self.header.hash == 2 { KeyHashing::Keyed } else { KeyHashing::Fast });
        if let Ok(hint @ 160..) = u32::try_from(self.header.page_hint) {
            options.page_size(hint / 4 * 4);
        }
        let layout = is_array.then(|| array::Layout::of(sizes[1]));
        let made = self.object.manage_with(&spec, &default, &options);
        Some(made.map(|table| Saved { cells: HashTable { table }, kind, sizes, layout, length }))
    }

    /// Adds up what the slots of the damaged object have counted.
    fn count(&mut self, words: &Root) {
        let mut sum = Some(0i64);
        let mut slots_left = u64::from(header::MAX_SLOT);
        for chunk in 0..root::COUNTER_CHUNKS {
            let at = Offset(words[(root::W_COUNTERS + u64::from(chunk)) as usize]);
            let lines = root::counter_chunk_lines(chunk).min(slots_left);
            slots_left -= lines;
            for i in 0..if at.is_none() { 0 } else { lines } {
                let line = self.source.words::<1>(root::counter_line(at, i));
                sum = line.and_then(|[count]| sum?.checked_add(count as i64));
                if sum.is_none() {
                    break;
                }
            }
        }
        let sum = sum.and_then(|sum| u64::try_from(sum).ok());
        self.report.bindings_counted =
            self.report.bindings_counted.zip(sum).and_then(|(all, sum)| all.checked_add(sum));
    }

    /// Saves what an array of buckets leads to, the last bucket first.
    fn buckets(&mut self, table: &Saved, base: u32, k: u32, array: Offset) -> Result<()> {
        let len = root::array_buckets(k, base);
        let first = if k == 0 { 0 } else { len };
        let end = array.0.saturating_add(len.saturating_mul(LINE_BYTES)).min(self.source.size());
        if array.0 % PAGE_BYTES != 0 || array.0 >= end {
            self.report.buckets_lost += len;
            return Ok(());
        }
        for part in self.source.data_backwards(array.0..end) {
            let mut until = (part.end - array.0) / LINE_BYTES;
            let from = (part.start - array.0) / LINE_BYTES;
            while until > from {
                let start = from.max(until.saturating_sub(AT_ONCE));
                self.some_buckets(table, base, array.add(start * LINE_BYTES), first + start, until - start)?;
                until = start;
            }
        }
        Ok(())
    }

    fn some_buckets(&mut self, table: &Saved, base: u32, at: Offset, index: u64, count: u64) -> Result<()> {
        let mut bytes = vec![0; (count * LINE_BYTES) as usize];
        if self.source.look(at, &mut bytes).is_none() {
            self.report.buckets_lost += count;
            return Ok(());
        }
        for (i, bytes) in bytes.chunks_exact(LINE_BYTES as usize).enumerate().rev() {
            let mut line = [0; 8];
            for (word, bytes) in line.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            }
            if line[1..] == [0; 7] {
                continue;
            }
            let report = &mut self.report;
            let mut reader = Reader {
                source: &mut self.source,
                hash: self.hash,
                checksums: self.header.checksums,
                claimed: &mut self.claimed,
            };
            let losses = reader.bucket(index + i as u64, base, line, |reader, stack| {
                let (saved, lost) = table.put(reader, stack)?;
                report.bindings += saved;
                report.bindings_lost += lost;
                Ok(())
            })?;
            self.report.bindings_lost += losses.bindings;
            self.report.buckets_lost += u64::from(losses.is_damaged);
        }
        Ok(())
    }
}

/// A table of the new object.
struct Saved {
    cells: HashTable,
    kind: TableKind,
    /// Sizes of all keys and of all values in bytes, if their types have one.
    sizes: [Option<u64>; 2],
    layout: Option<array::Layout>,
    length: u64,
}

impl Saved {
    /// Puts a key's bindings into the table. Gives how many were saved, and how many lost.
    fn put(&self, reader: &mut Reader, stack: Stack) -> Result<(u64, u64)> {
        let Stack { newest, older } = stack;
        if self.cells.contains(&newest.key)? {
            return Ok((0, 0));
        }
        let (mut saved, mut lost) = (0, 0);
        let mut add = |binding: Option<Binding>| {
            match binding.and_then(|binding| self.suitable(binding)) {
                Some(Binding { key, value, .. }) => match self.cells.add(&key, &value) {
                    Ok(()) => saved += 1,
                    Err(error) if concerns_target(&error) => return Err(error),
                    Err(_) => lost += 1,
                },
                None => lost += 1,
            }
            Ok::<(), Error>(())
        };
        for at in older.into_iter().rev() {
            add(reader.record(at, |key, _| *key == *newest.key))?;
        }
        add(Some(newest))?;
        Ok((saved, lost))
    }

    /// The binding, if a table of this kind can have it.
    fn suitable(&self, mut binding: Binding) -> Option<Binding> {
        let (key, value) = (binding.key.len() as u64, binding.value.len() as u64);
        let fits = match (self.kind, self.layout) {
            (TableKind::Primitive, _) => key == 4 && value % 4 == 0,
            (TableKind::Array, Some(layout)) => {
                key == array::KEY_BYTES && self.suits_array(&layout, &mut binding)
            }
            _ => {
                self.sizes[0].is_none_or(|size| size == key) && self.sizes[1].is_none_or(|size| size == value)
            }
        };
        fits.then_some(binding)
    }

    /// Can an array of this layout and length have the cell? Elements beyond its length are taken out of it.
    fn suits_array(&self, layout: &array::Layout, binding: &mut Binding) -> bool {
        let Ok(key) = <[u8; 8]>::try_from(&*binding.key) else { return false };
        let index = u64::from_le_bytes(key);
        let array::Layout::Chunks(chunk) = layout else { return index < self.length };
        let Some(first) = index.checked_mul(chunk.per_chunk) else { return false };
        if first >= self.length || binding.value.len() as u64 != chunk.value_bytes {
            return false;
        }
        let present = (self.length - first).min(chunk.per_chunk);
        for (n, byte) in binding.value.iter_mut().take(8 * chunk.bitmap_words as usize).enumerate() {
            let bits = present.saturating_sub(8 * n as u64).min(8);
            *byte &= (0xff_u16 >> (8 - bits)) as u8;
        }
        true
    }
}

/// Is the error one of making the new object, rather than of what the damaged one has?
fn concerns_target(error: &Error) -> bool {
    use Error::{NoMemory, NoSpace, Permission, ReadOnly, System, Timeout};
    matches!(error, NoMemory | NoSpace | Permission | ReadOnly | System { .. } | Timeout { .. })
}

/// A text with its length before it, if it is one.
fn text(words: &[u64], most: usize) -> Option<String> {
    let (len, words) = words.split_first()?;
    let len = usize::try_from(*len).ok().filter(|len| *len <= most)?;
    let mut bytes: Vec<u8> = words.iter().take(len.div_ceil(8)).flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(len);
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}
