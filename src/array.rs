//! Arrays: what users call.
//!
//! Owns how an object becomes an array, its length and default value, and single elements as bytes: without a lock
//! for reading, by a transaction for a change. What the bytes mean is the business of the types.
//!
//! - [`numbers`]: elements that are integers, by the short ways.
//! - [`slices`]: many elements in one call.
//! - [`walk`]: those that are set, one after the other.

mod numbers;
mod slices;
mod walk;

pub use walk::Elements;

use crate::engine::Rounds;
use crate::error::{Damage, Error, Result};
use crate::format::array::{Geometry, Layout, MAX_LENGTH};
use crate::group::back_off;
use crate::hashtbl::HashTable;
use crate::index::find::{Found, Obstacle};
use crate::index::hints::Hints;
use crate::lock::Patience;
use crate::object::{ManageOptions, Object};
use crate::segment::Segment;
use crate::table::{Table, TableKind, TableSpec};
use crate::txn::array;
use crate::txn::cursor::{buffer, copy_bytes};
use crate::txn::{TableView, ops};
use crate::types::{Type, Value};
use crate::writer::Writer;
use numbers::Number;
use std::sync::Arc;

/// An array in an object. Elements that were never set show the default value and take no memory.
///
/// Clones share the same array. All threads may use it at once. After a fork the child may go on using it.
/// An index that is not below the length is [`Error::Range`], and nothing is changed.
#[derive(Clone)]
pub struct Array {
    /// The index that holds chunks and records.
    cells: HashTable,
    layout: Layout,
    element: Element,
    /// What integers the elements are, if they are any.
    number: Option<Number>,
    hints: Arc<Hints>,
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Array").field("element", &self.element).finish_non_exhaustive()
    }
}

/// The type of an array's elements, as far as the array needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    /// The type's signature.
    pub(crate) signature: String,
    /// Bytes of every element; none if they vary.
    pub(crate) bytes: Option<u64>,
}

impl Element {
    fn of(element: &Type) -> Element {
        let bytes = element.fixed_bytes().map(|bytes| bytes as u64);
        Element { signature: element.signature().into(), bytes }
    }
}

impl Array {
    /// Views an object as an array of integers of 64 bits (type `int64`). An empty object becomes one of `length`
    /// elements, which show `default`; one that holds an array keeps its length and its default value.
    ///
    /// # Errors
    /// [`Error::Type`] if the elements are of another type, [`Error::Kind`] if the object holds something else,
    /// [`Error::TooLarge`] beyond 2^48 elements; else those of [`HashTable::manage`].
    pub fn manage_i64(object: &Object, default: i64, length: u64, options: &ManageOptions) -> Result<Array> {
        let element = Element { signature: "int64".into(), bytes: Some(8) };
        Array::manage_as(object, element, &default.to_le_bytes(), length, options)
    }

    /// The same for elements that are byte strings of any length (type `bytes`).
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a default value of more than 2048 bytes; else those of
    /// [`manage_i64`](Array::manage_i64).
    pub fn manage_bytes(
        object: &Object,
        default: &[u8],
        length: u64,
        options: &ManageOptions,
    ) -> Result<Array> {
        let element = Element { signature: "bytes".into(), bytes: None };
        Array::manage_as(object, element, default, length, options)
    }

    /// Views an object as an array of elements of a type. An empty object becomes one of `length` elements, which
    /// show `default`; one that holds an array keeps its length and its default value.
    ///
    /// # Errors
    /// [`Error::Type`] if the elements are of another type, or the default value is; [`Error::Unsupported`] for
    /// types with left halves, which can only be read; [`Error::TooLarge`] beyond 2^48 elements, or for a default
    /// value of more than 2048 bytes; else those of [`HashTable::manage`].
    pub fn manage(
        object: &Object,
        element: &Type,
        default: &[Value<'_>],
        length: u64,
        options: &ManageOptions,
    ) -> Result<Array> {
        if element.is_for_reading_only() {
            return Err(Error::Unsupported("left halves of pairs as elements of arrays"));
        }
        Array::manage_encoded(object, element, &element.encode(default)?, length, options)
    }

    /// The same for a default value that is encoded.
    pub(crate) fn manage_encoded(
        object: &Object,
        element: &Type,
        default: &[u8],
        length: u64,
        options: &ManageOptions,
    ) -> Result<Array> {
        Array::manage_as(object, Element::of(element), default, length, options)
    }

    /// Views an object as the array that it holds, of elements of this type, or of the one that it records, with
    /// the default value that it records. Gives the type besides.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no array yet, and to re-initialise one: a new one needs a type and a default
    /// value. [`Error::Unsupported`] for types with left halves; else those of [`manage_i64`](Array::manage_i64).
    pub fn manage_existing(
        object: &Object,
        element: Option<&Type>,
        options: &ManageOptions,
    ) -> Result<(Array, Type)> {
        if element.is_some_and(Type::is_for_reading_only) {
            return Err(Error::Unsupported("left halves of pairs as elements of arrays"));
        }
        let spec = TableSpec {
            signatures: ["", element.map_or("", Type::signature)],
            accepts: &|[key, of]| key.is_empty() && element.is_none_or(|asked| asked.signature() == of),
            lacks: Some(if element.is_none() { "elem" } else { "dflt" }),
            ..TableSpec::of_bytes(TableKind::Array)
        };
        let table = object.manage_as(&spec, options)?;
        let of = match element {
            Some(element) => element.clone(),
            None => Type::parse(&table.signatures()[1])
                .map_err(|_| Error::Corrupt { what: Damage::Root, offset: 0 })?,
        };
        Ok((Array::new(table, Layout::of(Element::of(&of).bytes), Element::of(&of)), of))
    }

    /// Views an object as an array. An empty object becomes one of `length` elements.
    pub(crate) fn manage_as(
        object: &Object,
        element: Element,
        default: &[u8],
        length: u64,
        options: &ManageOptions,
    ) -> Result<Array> {
        let layout = Layout::of(element.bytes);
        if element.bytes.is_some_and(|bytes| bytes != default.len() as u64) {
            return Err(Error::Invalid { argument: "dflt", reason: "it is not of the size of an element" });
        }
        let words = array::default_words(&layout, default)?;
        if length > MAX_LENGTH {
            return Err(Error::TooLarge("an array of more than 2^48 elements"));
        }
        let spec = TableSpec {
            kind: TableKind::Array,
            signatures: ["", &element.signature],
            accepts: &|recorded| recorded == ["", element.signature.as_str()],
            length,
            lacks: None,
        };
        Ok(Array::new(object.manage_with(&spec, &words, options)?, layout, element))
    }

    fn new(table: Table, layout: Layout, element: Element) -> Array {
        let number = element.number();
        Array { cells: HashTable { table }, layout, element, number, hints: Arc::new(Hints::new()) }
    }

    /// The underlying table, for groups.
    pub fn table(&self) -> &Table {
        self.cells.table()
    }

    fn view(&self) -> &TableView {
        &self.cells.table.view
    }

    fn segment(&self) -> &Segment {
        &self.cells.table.engine.segment
    }

    /// The number of elements. In a group it is the one that the group has made, and nobody else changes it
    /// until the group ends.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Deadlock`] in a group.
    pub fn length(&self) -> Result<u64> {
        if self.cells.table.group_is_open()? {
            return self.cells.in_group(|w, table| {
                if w.s.p.held.is_empty() {
                    // Whoever holds any lock keeps the length as it is: changing it takes the gate.
                    ops::at(w, table, &0u64.to_le_bytes())?;
                }
                array::check_range(w, table, 0, 0)?;
                Ok(array::length(w, table))
            });
        }
        self.read_root(|segment, table| {
            array::check_range(segment, table, 0, 0)?;
            Ok(array::length(segment, table))
        })
    }

    /// The value that elements show which are not set, encoded.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Timeout`].
    pub fn default_value(&self) -> Result<Vec<u8>> {
        let value = self.read_root(|segment, table| array::default_value(segment, table, &self.layout))?;
        Ok(value.into_vec())
    }

    /// Reads words of the root, which the gate's version proves.
    fn read_root<R>(&self, read: impl Fn(&Segment, &TableView) -> Result<R>) -> Result<R> {
        let (engine, patience) = (&*self.cells.table.engine, self.cells.table.patience());
        let (segment, table) = (self.segment(), self.view());
        let mut rounds = Rounds::default();
        loop {
            let version = table.roots.version();
            let result = read(segment, table);
            segment.fence_acquire();
            if table.roots.is_current(segment, version) {
                return result;
            }
            engine.overcome(table, Obstacle::Stale, &mut rounds, patience)?;
        }
    }

    /// The key of the chunk or record of an element.
    #[inline(always)]
    fn key_of(&self, index: u64) -> Result<[u8; 8]> {
        if index >= MAX_LENGTH {
            return Err(Error::Range);
        }
        Ok(match &self.layout {
            Layout::Chunks(g) => g.place(index).chunk,
            Layout::Records => index,
        }
        .to_le_bytes())
    }

    /// The chunks, if elements are of fixed size.
    fn chunks(&self) -> Result<&Geometry> {
        match &self.layout {
            Layout::Chunks(g) => Ok(g),
            Layout::Records => Err(self.wrong_type("small elements of fixed size")),
        }
    }

    #[cold]
    fn wrong_type(&self, asked: &str) -> Error {
        Error::Type { asked: asked.into(), recorded: self.element.signature.clone() }
    }

    /// A copy of an element, encoded.
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::Corrupt`], [`Error::Timeout`], [`Error::Deadlock`] in a group,
    /// [`Error::NoMemory`].
    pub fn get(&self, index: u64) -> Result<Vec<u8>> {
        let key = self.key_of(index)?;
        self.cells.read(
            &key,
            |_, found| self.element_seen(index, found),
            |w, at| self.element_planned(w, at, index),
        )?
    }

    /// An element as a find sees it, who validates it afterwards.
    fn element_seen(&self, index: u64, found: Option<Found>) -> Result<Vec<u8>> {
        let (segment, table) = (self.segment(), self.view());
        array::check_range(segment, table, index, 1)?;
        match (&self.layout, found) {
            (_, None) => {}
            (Layout::Records, Some(f)) => return copy_bytes(segment, f.value_at, f.shape.value_len),
            (Layout::Chunks(g), found) => {
                let mut bytes = vec![0; g.element_bytes as usize];
                let value = array::value_found(g, found)?;
                let position = g.place(index).position;
                if value.is_some_and(|value| array::read_element(segment, g, value, position, &mut bytes)) {
                    return Ok(bytes);
                }
            }
        }
        Ok(array::default_value(segment, table, &self.layout)?.into_vec())
    }

    /// An element with the plans of this thread's group.
    fn element_planned(&self, w: &mut Writer, at: &ops::At, index: u64) -> Result<Vec<u8>> {
        let table = self.view();
        array::check_range(w, table, index, 1)?;
        match &self.layout {
            Layout::Records => {
                if let Some((value, len)) = at.value() {
                    let mut bytes = buffer(len)?;
                    ops::read_value(w, value, len, &mut bytes);
                    return Ok(bytes);
                }
            }
            Layout::Chunks(g) => {
                let mut bytes = vec![0; g.element_bytes as usize];
                let value = array::value_at(g, at.hit)?;
                let position = g.place(index).position;
                if value.is_some_and(|value| array::read_element(w, g, value, position, &mut bytes)) {
                    return Ok(bytes);
                }
            }
        }
        Ok(array::default_value(w, table, &self.layout)?.into_vec())
    }

    /// Gives an element a value, which must be an encoding of the array's type.
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::Invalid`] for a value of another size, [`Error::NoSpace`],
    /// [`Error::TooLarge`], [`Error::Timeout`], [`Error::Deadlock`] in a group, [`Error::ReadOnly`].
    pub fn set(&self, index: u64, value: &[u8]) -> Result<()> {
        self.key_of(index)?;
        let Layout::Chunks(g) = &self.layout else {
            return self.cells.change(|_, _| None, |w, table| array::set_record(w, table, index, value));
        };
        if value.len() as u64 != g.element_bytes {
            return Err(Error::Invalid { argument: "value", reason: "it is not of the size of an element" });
        }
        if g.element_bytes <= 8 {
            let mut bits = [0; 8];
            bits[..value.len()].copy_from_slice(value);
            return self.set_bits(g, index, u64::from_le_bytes(bits));
        }
        self.cells.change(|_, _| None, |w, table| array::update(w, table, g, index, |_| Ok(value.to_vec())))
    }

    /// What an operation by a short way has left to be done.
    #[cold]
    pub(crate) fn do_chores(&self) {
        self.cells.do_chores();
    }

    /// Changes the number of elements. New ones show the default value; those cut off are gone, also if the
    /// array grows again. Everybody else is kept out meanwhile; how long that takes, and the memory for the
    /// log, depend on the number of elements that are set and cut off.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^48 elements, [`Error::NoSpace`], [`Error::Timeout`], [`Error::Deadlock`] in a
    /// group, [`Error::ReadOnly`].
    pub fn resize(&self, length: u64) -> Result<()> {
        if length > MAX_LENGTH {
            return Err(Error::TooLarge("an array of more than 2^48 elements"));
        }
        self.transact(|w, table| array::resize(w, table, &self.layout, length))
    }

    /// Makes a change that may take several locks; if it has to give way to others, it is made again.
    fn transact<R>(&self, mut operation: impl FnMut(&mut Writer, &TableView) -> Result<R>) -> Result<R> {
        let mut attempts = 0;
        let patience = self.cells.table.patience();
        loop {
            let result = self.cells.change_generally(&mut operation);
            let again = matches!(result, Err(Error::Deadlock))
                && !self.cells.table.group_is_open()?
                && !matches!(patience, Patience::Until(deadline) if deadline.passed());
            if !again {
                return result;
            }
            attempts += 1;
            crate::os::time::sleep(back_off(attempts));
        }
    }
}
