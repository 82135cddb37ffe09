//! Primitive tables: int32 keys with stacks of int32 arrays, the reference's basic structure.
//!
//! Owns the form of keys and values as bytes (little-endian words, so that all machines agree) and the fragments
//! that callbacks see. Everything else is the hash table's.

use crate::cursor::{Bindings, Keys};
use crate::error::{Damage, Error, Result};
use crate::format::header;
use crate::hashtbl::{HashTable, Update};
use crate::object::{ManageOptions, Object};
use crate::table::{Table, TableKind, TableSpec};

/// A table that maps integers of 32 bits to arrays of such integers; the bindings of a key form a stack.
///
/// Clones share the same table. All threads may use it at once. After a fork the child may go on using it.
#[derive(Clone)]
pub struct PrimitiveTable {
    inner: HashTable,
}

impl std::fmt::Debug for PrimitiveTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrimitiveTable").field("table", self.inner.table()).finish()
    }
}

/// Most words of a fragment that callbacks of [`PrimitiveTable::read_blocks`] and
/// [`PrimitiveTable::write_blocks`] see: 4 KiB.
pub const FRAGMENT_WORDS: usize = 1024;

/// Where the callback of a walk over blocks wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To the next fragment, or from the end marker to the next binding.
    Go,
    /// To the next binding at once. This one gets no end marker.
    Next,
    /// Nowhere: the walk ends.
    Break,
}

/// What the callback of [`PrimitiveTable::write_blocks`] can do to a binding as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockOp {
    /// Removes it.
    Remove,
}

impl PrimitiveTable {
    /// Views an object as a primitive table. An empty object becomes one.
    ///
    /// # Errors
    /// [`Error::Locking`], [`Error::Kind`] if the table is something else, [`Error::NoSpace`], [`Error::ReadOnly`] if an
    /// empty object is open for reading only.
    pub fn manage(object: &Object, options: &ManageOptions) -> Result<PrimitiveTable> {
        let table = object.manage_as(&TableSpec::of_bytes(TableKind::Primitive), options)?;
        Ok(PrimitiveTable { inner: HashTable { table } })
    }

    /// The primitive table that a table is.
    ///
    /// # Errors
    /// [`Error::Kind`] if it is of another kind.
    pub(crate) fn of(table: &Table) -> Result<PrimitiveTable> {
        if table.kind() != TableKind::Primitive {
            let (asked, found) = (TableKind::Primitive.name().into(), table.kind().name().into());
            return Err(Error::Kind { asked, found });
        }
        Ok(PrimitiveTable { inner: HashTable { table: table.clone() } })
    }

    /// The underlying table, which is what groups are about.
    pub fn table(&self) -> &Table {
        self.inner.table()
    }

    /// Puts a binding on top of those that the key has; they are hidden, not removed.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooLarge`], [`Error::Timeout`], [`Error::Deadlock`] in a group,
    /// [`Error::ReadOnly`], [`Error::InCallback`] from a callback of [`write_blocks`](Self::write_blocks).
    pub fn add(&self, key: i32, words: &[i32]) -> Result<()> {
        self.inner.add(&key.to_le_bytes(), &bytes_of(words))
    }

    /// Replaces the newest binding of the key, or adds one.
    ///
    /// # Errors
    /// Those of [`add`](PrimitiveTable::add).
    pub fn replace(&self, key: i32, words: &[i32]) -> Result<()> {
        self.inner.replace(&key.to_le_bytes(), &bytes_of(words))
    }

    /// Removes the newest binding of the key, so that the one before it shows. Tells whether there was one.
    ///
    /// # Errors
    /// Those of [`add`](PrimitiveTable::add).
    pub fn remove(&self, key: i32) -> Result<bool> {
        self.inner.remove(&key.to_le_bytes())
    }

    /// A copy of the newest binding.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Timeout`] if a dead writer is in the way of a read-only handle,
    /// [`Error::NoMemory`].
    pub fn find(&self, key: i32) -> Result<Option<Vec<i32>>> {
        self.inner.find(&key.to_le_bytes())?.map(|bytes| words_of(&bytes)).transpose()
    }

    /// Copies the newest binding into a buffer and gives its length in words.
    ///
    /// # Errors
    /// [`Error::TooSmall`] with the length needed, in words; else those of [`find`](PrimitiveTable::find).
    pub fn find_into(&self, key: i32, buffer: &mut [i32]) -> Result<Option<usize>> {
        let Some(words) = self.find(key)? else { return Ok(None) };
        let place = buffer.get_mut(..words.len()).ok_or(Error::TooSmall { needed: words.len() as u64 })?;
        place.copy_from_slice(&words);
        Ok(Some(words.len()))
    }

    /// All bindings of the key, newest first.
    ///
    /// # Errors
    /// Those of [`find`](PrimitiveTable::find).
    pub fn find_all(&self, key: i32) -> Result<Vec<Vec<i32>>> {
        self.inner.find_all(&key.to_le_bytes())?.iter().map(|bytes| words_of(bytes)).collect()
    }

    /// Has the key a binding?
    ///
    /// # Errors
    /// Those of [`find`](PrimitiveTable::find).
    pub fn contains(&self, key: i32) -> Result<bool> {
        self.inner.contains(&key.to_le_bytes())
    }

    /// Number of bindings, hidden ones counted; see [`HashTable::len`].
    ///
    /// # Errors
    /// Those of [`HashTable::len`].
    pub fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    /// Has the table no binding?
    ///
    /// # Errors
    /// Those of [`len`](PrimitiveTable::len).
    pub fn is_empty(&self) -> Result<bool> {
        self.inner.is_empty()
    }

    /// All bindings, in any order of keys; those of one key newest first. See [`Bindings`] for what is seen.
    pub fn iter(&self) -> WordBindings<'_> {
        WordBindings(self.inner.iter())
    }

    /// Every key once.
    pub fn keys(&self) -> WordKeys<'_> {
        WordKeys(self.inner.keys())
    }

    /// Combines all bindings, in the order of [`iter`](PrimitiveTable::iter), with what `f` has made of those before.
    ///
    /// # Errors
    /// Those of [`find`](PrimitiveTable::find).
    pub fn fold<A>(&self, start: A, mut f: impl FnMut(A, i32, &[i32]) -> A) -> Result<A> {
        self.iter().try_fold(start, |so_far, binding| {
            let (key, words) = binding?;
            Ok(f(so_far, key, &words))
        })
    }

    /// Shows all bindings of a key, newest first, fragment by fragment: `f` is called with each fragment, of at most
    /// [`FRAGMENT_WORDS`] words, and with `None` at the end of each binding. It sees copies of what was there at one
    /// moment, and may call everything. Gives whether `f` ended it by [`Step::Break`].
    ///
    /// # Errors
    /// The callback's, and those of [`find`](PrimitiveTable::find).
    pub fn read_blocks(&self, key: i32, mut f: impl FnMut(Option<&[i32]>) -> Result<Step>) -> Result<bool> {
        self.read_copies(key, |fragment| f(fragment.map(|words| &*words)))
    }

    /// The same for a callback that may write to the copies, as one in C might.
    pub(crate) fn read_copies(
        &self,
        key: i32,
        mut f: impl FnMut(Option<&mut [i32]>) -> Result<Step>,
    ) -> Result<bool> {
        for mut words in self.find_all(key)? {
            let mut step = Step::Go;
            for fragment in words.chunks_mut(FRAGMENT_WORDS).map(Some).chain([None]) {
                step = f(fragment)?;
                if step != Step::Go {
                    break;
                }
            }
            if step == Step::Break {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Shows all bindings of a key as [`read_blocks`](PrimitiveTable::read_blocks) does, while the key is locked for
    /// writing. The fragments are private copies, to which `f` may assign. It may answer that the binding be removed,
    /// if `announced` says so: this stays answered whatever follows.
    ///
    /// All changes and removals, of any binding in the stack, happen together when the call returns, also if `f` ends
    /// it by [`Step::Break`]. Changing the object in the callback, and everything that belongs to a group, gives
    /// [`Error::InCallback`]; finding outside of groups shows what was there before.
    ///
    /// # Errors
    /// The callback's; [`Error::Unannounced`]; those of [`add`](PrimitiveTable::add). Nothing is changed then, and
    /// neither if the callback panics.
    pub fn write_blocks(
        &self,
        announced: &[BlockOp],
        key: i32,
        mut f: impl FnMut(Option<&mut [i32]>) -> Result<(Step, Option<BlockOp>)>,
    ) -> Result<()> {
        let mut ended = false;
        self.inner.update_stack(&key.to_le_bytes(), |bytes| {
            if ended {
                return Ok(None);
            }
            let mut words = words_of(bytes)?;
            let mut op = None;
            let mut step = Step::Go;
            for fragment in words.chunks_mut(FRAGMENT_WORDS).map(Some).chain([None]) {
                let answer;
                (step, answer) = f(fragment)?;
                if answer.is_some_and(|op| !announced.contains(&op)) {
                    return Err(Error::Unannounced);
                }
                op = answer.or(op);
                if step != Step::Go {
                    break;
                }
            }
            ended = step == Step::Break;
            if op == Some(BlockOp::Remove) {
                return Ok(Some(Update::Remove));
            }
            let new = bytes_of(&words);
            Ok(Some(if new == bytes { Update::Keep } else { Update::Replace(new) }))
        })
    }
}

/// Iterator over all bindings of a primitive table. See [`Bindings`] for what it sees.
#[derive(Debug)]
pub struct WordBindings<'t>(Bindings<'t>);

impl Iterator for WordBindings<'_> {
    type Item = Result<(i32, Vec<i32>)>;
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        Some(item.and_then(|(key, value)| Ok((key_of(&key)?, words_of(&value)?))))
    }
}

/// Iterator over all keys of a primitive table.
#[derive(Debug)]
pub struct WordKeys<'t>(Keys<'t>);

impl Iterator for WordKeys<'_> {
    type Item = Result<i32>;
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        Some(item.and_then(|key| key_of(&key)))
    }
}

impl<'t> IntoIterator for &'t PrimitiveTable {
    type Item = Result<(i32, Vec<i32>)>;
    type IntoIter = WordBindings<'t>;
    fn into_iter(self) -> WordBindings<'t> {
        self.iter()
    }
}

fn bytes_of(words: &[i32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The words that a value stands for. Bytes that are no whole words were not written by a primitive table.
fn words_of(bytes: &[u8]) -> Result<Vec<i32>> {
    if bytes.len() % 4 != 0 {
        return Err(Error::corrupt(Damage::Record, header::MAIN_ROOT));
    }
    let mut all = Vec::new();
    all.try_reserve_exact(bytes.len() / 4).map_err(|_| Error::NoMemory)?;
    all.extend(bytes.chunks_exact(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    Ok(all)
}

fn key_of(bytes: &[u8]) -> Result<i32> {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => Ok(i32::from_le_bytes(bytes)),
        Err(_) => Err(Error::corrupt(Damage::Record, header::MAIN_ROOT)),
    }
}
