//! Arrays of Rust's own types.
//!
//! Owns the way from values to an array of encoded elements. The bytes themselves are made in `types`.

use crate::array::{Array, Elements};
use crate::error::Result;
use crate::object::{ManageOptions, Object};
use crate::table::Table;
use crate::types::{Data, Encode};
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

/// An array of elements of type `T`. The type is recorded in the object and checked when it is managed.
///
/// Clones share the same array. All threads may use it at once. It is an [`Array`] of the encoded values, and its
/// methods have the errors of that one's besides their own.
///
/// ```no_run
/// use netshm::{ManageOptions, Name, OpenOptions, TypedArray};
///
/// # fn main() -> netshm::Result<()> {
/// let object = OpenOptions::new().create(true).open(&Name::posix("/tmp/seats", "/seats"))?;
/// let seats = TypedArray::<Option<String>>::manage(&object, &None, 100, &ManageOptions::new())?;
/// seats.set(7, &Some("Ada".to_owned()))?;
/// for seat in &seats {
///     let (number, name) = seat?;
///     println!("{number}: {name:?}");
/// }
/// # Ok(()) }
/// ```
pub struct TypedArray<T> {
    array: Array,
    types: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedArray<T> {
    fn clone(&self) -> Self {
        TypedArray { array: self.array.clone(), types: PhantomData }
    }
}

impl<T> fmt::Debug for TypedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedArray").field(&self.array).finish()
    }
}

impl<T: Data> TypedArray<T> {
    /// Views an object as an array of elements of this type. An empty object becomes one of `length` elements, which
    /// show `default`; one that holds an array keeps its length and its default value.
    ///
    /// # Errors
    /// Those of [`Array::manage`].
    pub fn manage<W>(object: &Object, default: &W, length: u64, options: &ManageOptions) -> Result<Self>
    where
        T: Borrow<W>,
        W: Encode + ?Sized,
    {
        let element = T::data_type()?;
        let array = default
            .with_encoded(|default| Array::manage_encoded(object, &element, default, length, options))??;
        Ok(TypedArray { array, types: PhantomData })
    }

    /// The array of encoded elements, for slices.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// The underlying table, for groups.
    pub fn table(&self) -> &Table {
        self.array.table()
    }

    /// The number of elements. See [`Array::length`].
    ///
    /// # Errors
    /// Those of [`Array::length`].
    pub fn length(&self) -> Result<u64> {
        self.array.length()
    }

    /// Changes the number of elements. See [`Array::resize`].
    ///
    /// # Errors
    /// Those of [`Array::resize`].
    pub fn resize(&self, length: u64) -> Result<()> {
        self.array.resize(length)
    }

    /// The value that elements show which are not set.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if it does not decode; else those of [`Array::default_value`].
    pub fn default_value(&self) -> Result<T> {
        T::decode(&self.array.default_value()?)
    }

    /// An element.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if it does not decode; else those of [`Array::get`].
    pub fn get(&self, index: u64) -> Result<T> {
        T::decode(&self.array.get(index)?)
    }

    /// Gives an element a value.
    ///
    /// # Errors
    /// Those of [`Array::set`].
    pub fn set<W>(&self, index: u64, value: &W) -> Result<()>
    where
        T: Borrow<W>,
        W: Encode + ?Sized,
    {
        value.with_encoded(|value| self.array.set(index, value))?
    }

    /// The elements that are set, with their indices; see [`Array::iter`].
    pub fn iter(&self) -> TypedElements<'_, T> {
        TypedElements(self.array.iter(), PhantomData)
    }
}

impl TypedArray<i64> {
    /// Adds to an element, in one step, and gives the sum.
    ///
    /// # Errors
    /// [`Error::Overflow`](crate::Error::Overflow), and nothing is changed; else those of [`Array::increment`].
    pub fn increment(&self, index: u64, delta: i64) -> Result<i64> {
        self.array.increment(index, delta)
    }
}

impl<'a, T: Data> IntoIterator for &'a TypedArray<T> {
    type Item = Result<(u64, T)>;
    type IntoIter = TypedElements<'a, T>;
    fn into_iter(self) -> TypedElements<'a, T> {
        self.iter()
    }
}

/// Iterator over the elements of a typed array that are set; it sees what [`Elements`] does. One that does not decode is
/// an error, and the walk goes on after it.
pub struct TypedElements<'a, T>(Elements<'a>, PhantomData<fn() -> T>);

impl<T> fmt::Debug for TypedElements<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedElements").field(&self.0).finish()
    }
}

impl<T: Data> Iterator for TypedElements<'_, T> {
    type Item = Result<(u64, T)>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|item| item.and_then(|(index, value)| Ok((index, T::decode(&value)?))))
    }
}
