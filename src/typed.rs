//! Typed hash tables: which types a table is managed with, and tables of Rust's own types.
//!
//! Owns the comparison of the types asked for with those recorded, and the way from values to a table of bytes. The
//! bytes themselves are made in `types`.

use crate::cursor::{Bindings, Keys};
use crate::error::{Damage, Error, Result};
use crate::format::Offset;
use crate::hashtbl::{HashTable, Stamp, Update};
use crate::object::{ManageOptions, Object};
use crate::table::{Table, TableKind, TableSpec};
use crate::types::{Data, Encode, Type};
use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// The types that a table is used with through one handle.
#[derive(Debug, Clone)]
pub(crate) struct Types {
    pub(crate) key: Type,
    pub(crate) value: Type,
}

/// Views an object as a hash table of these types. None stands for raw bytes in a new table, and for whatever
/// is recorded in an existing one.
pub(crate) fn manage(
    object: &Object,
    key: Option<&Type>,
    value: Option<&Type>,
    options: &ManageOptions,
) -> Result<(HashTable, Types)> {
    let (key, value) = (Side::new("keys", key), Side::new("values", value));
    let spec = TableSpec {
        signatures: [key.signature(), value.signature()],
        accepts: &|recorded| key.accepts(recorded[0]) && value.accepts(recorded[1]),
        ..TableSpec::of_bytes(TableKind::HashTable)
    };
    let managed = object.manage_as(&spec, options);
    let types = Types { key: key.agreed()?, value: value.agreed()? };
    Ok((HashTable { table: managed? }, types))
}

/// What is asked for as the type of keys or of values, and what has been agreed with the table.
pub(crate) struct Side<'a> {
    /// What messages call it.
    name: &'static str,
    asked: Option<&'a Type>,
    agreed: RefCell<Result<Type>>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(name: &'static str, asked: Option<&'a Type>) -> Side<'a> {
        let agreed = asked.cloned().unwrap_or_else(Type::bytes);
        Side { name, asked, agreed: RefCell::new(Ok(agreed)) }
    }

    /// What a new table records.
    pub(crate) fn signature(&self) -> &'a str {
        self.asked.map_or("", Type::signature)
    }

    /// Does what is asked for go with what a table records?
    pub(crate) fn accepts(&self, recorded: &str) -> bool {
        let agreed = self.agree(recorded);
        let is_fine = agreed.is_ok();
        *self.agreed.borrow_mut() = agreed;
        is_fine
    }

    fn agree(&self, recorded: &str) -> Result<Type> {
        let found = match recorded {
            "" => None,
            signature => {
                let parsed = Type::parse(signature);
                Some(parsed.map_err(|_| Error::corrupt(Damage::Root, Offset::NONE))?)
            }
        };
        match (self.asked, found) {
            (None, found) => Ok(found.unwrap_or_else(Type::bytes)),
            (Some(asked), None) if asked.is_raw() => Ok(asked.clone()),
            (Some(asked), Some(found)) if asked.reads(&found) => Ok(asked.clone()),
            (Some(asked), _) => {
                let recorded = if recorded.is_empty() { "raw bytes" } else { recorded };
                Err(Error::Type {
                    asked: format!("{} of type {asked}", self.name),
                    recorded: format!("{} of type {recorded}", self.name),
                })
            }
        }
    }

    /// The type to be used, after the table was opened; or why it was not.
    pub(crate) fn agreed(self) -> Result<Type> {
        self.agreed.into_inner()
    }
}

/// A hash table that maps `K` to `V`; the bindings of a key form a stack. The types are recorded in the object and
/// checked when it is managed.
///
/// Clones share the same table. All threads may use it at once. It is a [`HashTable`] of the encoded values, and
/// its methods have the errors of that one's besides their own.
///
/// ```no_run
/// use netshm::{ManageOptions, Name, OpenOptions, TypedHashTable};
///
/// # fn main() -> netshm::Result<()> {
/// let object = OpenOptions::new().create(true).open(&Name::posix("/tmp/ages", "/ages"))?;
/// let ages = TypedHashTable::<String, (i64, Option<String>)>::manage(&object, &ManageOptions::new())?;
/// ages.replace("Ada", &(36, None))?;
/// assert_eq!(ages.find("Ada")?, Some((36, None)));
/// # Ok(()) }
/// ```
pub struct TypedHashTable<K, V> {
    table: HashTable,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for TypedHashTable<K, V> {
    fn clone(&self) -> Self {
        TypedHashTable { table: self.table.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for TypedHashTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedHashTable").field("table", self.table.table()).finish()
    }
}

/// Values up to this size are read without memory of their own.
const SMALL_BYTES: usize = 128;

impl<K: Data, V: Data> TypedHashTable<K, V> {
    /// Views an object as a hash table of these types. An empty object becomes one.
    ///
    /// # Errors
    /// [`Error::Type`] if other types are recorded; else those of [`HashTable::manage`].
    pub fn manage(object: &Object, options: &ManageOptions) -> Result<Self> {
        let (table, _) = manage(object, Some(&K::data_type()?), Some(&V::data_type()?), options)?;
        Ok(TypedHashTable { table, types: PhantomData })
    }

    /// The underlying table, for groups.
    pub fn table(&self) -> &Table {
        self.table.table()
    }

    /// Puts a binding on top of those that the key has; they are hidden, not removed.
    ///
    /// # Errors
    /// Those of [`HashTable::add`].
    #[inline]
    pub fn add<Q, W>(&self, key: &Q, value: &W) -> Result<()>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Encode + ?Sized,
        W: Encode + ?Sized,
    {
        key.with_encoded(|key| value.with_encoded(|value| self.table.add(key, value)))??
    }

    /// Replaces the newest binding of the key, or adds one.
    ///
    /// # Errors
    /// Those of [`HashTable::replace`].
    #[inline]
    pub fn replace<Q, W>(&self, key: &Q, value: &W) -> Result<()>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Encode + ?Sized,
        W: Encode + ?Sized,
    {
        key.with_encoded(|key| value.with_encoded(|value| self.table.replace(key, value)))??
    }

    /// Binds a key that has no binding yet.
    ///
    /// # Errors
    /// [`Error::Exists`] if it has one; else those of [`HashTable::insert`].
    pub fn insert<Q, W>(&self, key: &Q, value: &W) -> Result<()>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Encode + ?Sized,
        W: Encode + ?Sized,
    {
        key.with_encoded(|key| value.with_encoded(|value| self.table.insert(key, value)))??
    }

    /// Replaces the newest binding if it equals `old`, byte by byte in its encoding.
    ///
    /// # Errors
    /// [`Error::Changed`], [`Error::NotFound`]; else those of [`HashTable::compare_and_replace`].
    pub fn compare_and_replace<Q, W, X>(&self, key: &Q, old: &W, new: &X) -> Result<()>
    where
        K: Borrow<Q>,
        V: Borrow<W> + Borrow<X>,
        Q: Encode + ?Sized,
        W: Encode + ?Sized,
        X: Encode + ?Sized,
    {
        key.with_encoded(|key| {
            old.with_encoded(|old| new.with_encoded(|new| self.table.compare_and_replace(key, old, new)))
        })???
    }

    /// Removes the newest binding of the key, so that the one before it shows. Tells whether there was one.
    ///
    /// # Errors
    /// Those of [`HashTable::remove`].
    pub fn remove<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        key.with_encoded(|key| self.table.remove(key))?
    }

    /// The newest binding.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the value does not decode; [`Error::Overflow`] if it does not fit here; else those
    /// of [`HashTable::find`].
    #[inline]
    pub fn find<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        key.with_encoded(|key| {
            let mut small = [0; SMALL_BYTES];
            match self.table.find_into(key, &mut small) {
                Ok(None) => Ok(None),
                Ok(Some(len)) => V::decode(&small[..len]).map(Some),
                Err(Error::TooSmall { .. }) => {
                    self.table.find(key)?.map(|value| V::decode(&value)).transpose()
                }
                Err(e) => Err(e),
            }
        })?
    }

    /// All bindings of the key, newest first.
    ///
    /// # Errors
    /// Those of [`find`](TypedHashTable::find).
    pub fn find_all<Q>(&self, key: &Q) -> Result<Vec<V>>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        let all = key.with_encoded(|key| self.table.find_all(key))??;
        all.iter().map(|value| V::decode(value)).collect()
    }

    /// Has the key a binding?
    ///
    /// # Errors
    /// Those of [`HashTable::contains`].
    pub fn contains<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        key.with_encoded(|key| self.table.contains(key))?
    }

    /// Number of bindings, hidden ones counted. See [`HashTable::len`].
    ///
    /// # Errors
    /// Those of [`HashTable::len`].
    pub fn len(&self) -> Result<u64> {
        self.table.len()
    }

    /// Has the table no binding?
    ///
    /// # Errors
    /// Those of [`HashTable::len`].
    pub fn is_empty(&self) -> Result<bool> {
        self.table.is_empty()
    }

    /// Calls `update` once, under the key's lock, with the newest binding, and does what it answers. What the
    /// callback may do, and the conversions of `V`, is as with [`HashTable::update`].
    ///
    /// # Errors
    /// The callback's; those of [`find`](TypedHashTable::find) and [`HashTable::update`]. Nothing is changed then.
    pub fn update<Q>(&self, key: &Q, update: impl FnOnce(Option<V>) -> Result<Update<V>>) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
        V: Encode,
    {
        key.with_encoded(|key| {
            self.table.try_update(key, |old| {
                Ok(match update(old.map(V::decode).transpose()?)? {
                    Update::Keep => Update::Keep,
                    Update::Remove => Update::Remove,
                    Update::Replace(value) => {
                        let mut encoded = Vec::new();
                        value.encode(&mut encoded)?;
                        Update::Replace(encoded)
                    }
                })
            })
        })?
    }

    /// The present stamp of a key, for [`wait`](TypedHashTable::wait). See [`HashTable::stamp`].
    ///
    /// # Errors
    /// Those of [`HashTable::stamp`].
    pub fn stamp<Q>(&self, key: &Q) -> Result<Stamp>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        key.with_encoded(|key| self.table.stamp(key))?
    }

    /// Waits until the key's bindings may have changed since `stamp`, and puts the new stamp there. False: the
    /// time-out has passed before that. See [`HashTable::wait`].
    ///
    /// # Errors
    /// Those of [`HashTable::wait`].
    pub fn wait<Q>(&self, key: &Q, stamp: &mut Stamp, timeout: Option<Duration>) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        key.with_encoded(|key| self.table.wait(key, stamp, timeout))?
    }

    /// All bindings, in any order of keys; those of one key newest first. See [`Bindings`].
    pub fn iter(&self) -> TypedBindings<'_, K, V> {
        TypedBindings(self.table.iter(), PhantomData)
    }

    /// Every key once.
    pub fn keys(&self) -> TypedKeys<'_, K> {
        TypedKeys(self.table.keys(), PhantomData)
    }
}

impl<K: Data> TypedHashTable<K, i64> {
    /// Adds to the integer that is bound to the key, and gives the sum. A key without binding gets
    /// `initial + delta`.
    ///
    /// # Errors
    /// [`Error::Overflow`], and nothing is changed; else those of [`HashTable::increment`].
    pub fn increment<Q>(&self, key: &Q, delta: i64, initial: i64) -> Result<i64>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        key.with_encoded(|key| self.table.increment(key, delta, initial))?
    }
}

impl<'t, K: Data, V: Data> IntoIterator for &'t TypedHashTable<K, V> {
    type Item = Result<(K, V)>;
    type IntoIter = TypedBindings<'t, K, V>;
    fn into_iter(self) -> TypedBindings<'t, K, V> {
        self.iter()
    }
}

/// Iterator over all bindings of a typed table; it sees what [`Bindings`] does. One that does not decode is an error,
/// and the walk goes on after it.
pub struct TypedBindings<'t, K, V>(Bindings<'t>, PhantomData<fn() -> (K, V)>);

impl<K, V> fmt::Debug for TypedBindings<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedBindings").field(&self.0).finish()
    }
}

impl<K: Data, V: Data> Iterator for TypedBindings<'_, K, V> {
    type Item = Result<(K, V)>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|item| item.and_then(|(key, value)| Ok((K::decode(&key)?, V::decode(&value)?))))
    }
}

/// Iterator over all keys of a typed table.
pub struct TypedKeys<'t, K>(Keys<'t>, PhantomData<fn() -> K>);

impl<K> fmt::Debug for TypedKeys<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedKeys").field(&self.0).finish()
    }
}

impl<K: Data> Iterator for TypedKeys<'_, K> {
    type Item = Result<K>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|item| item.and_then(|key| K::decode(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(asked: Option<&str>, recorded: &str) -> Option<Result<Type>> {
        let asked = asked.map(|text| Type::parse(text).expect("parses"));
        let side = Side::new("key", asked.as_ref());
        let accepted = side.accepts(recorded);
        let agreed = side.agreed();
        if accepted || matches!(agreed, Err(Error::Corrupt { .. })) { Some(agreed) } else { None }
    }

    #[test]
    fn a_side_agrees_with_what_is_recorded_or_not_at_all() {
        let is = |text: &str| Some(Type::parse(text));
        assert_eq!(agreed(None, ""), is("bytes"));
        assert_eq!(agreed(None, "(int,string)"), is("(int,string)"));
        assert_eq!(agreed(Some("string"), ""), is("string"));
        assert_eq!(agreed(Some("bytes"), ""), is("bytes"));
        assert_eq!(agreed(Some("int"), ""), None);
        assert_eq!(agreed(Some("string"), "bytes"), None);
        assert_eq!(agreed(Some("(int,_)"), "(int,string)"), is("(int,_)"));
        assert_eq!(agreed(Some("(int,string)"), "(int,_)"), None);
        for damaged in ["integer", "(int", "int\0", "\u{fffd}"] {
            for asked in [None, Some("int")] {
                assert!(matches!(agreed(asked, damaged), Some(Err(Error::Corrupt { .. }))), "{damaged:?}");
            }
        }
    }
}
