//! Values: the cells in which typed keys and values cross, and the conversion of the caller's cells.

use super::call::{Fault, Outcome, bytes};
use super::hashtbl::netshm_slice;
use crate::types::{CustomObject, Value};
use smallvec::SmallVec;
use std::ffi::c_void;
use std::mem::{offset_of, size_of};

/// Kind of a cell: an integer, as.i. Of types int, int32, int64, nativeint. Where the caller gives an integer of any
/// type, also of uint, both kinds of integer cells will do: the number counts, and has to fit. What is read has the
/// type's own kind.
pub const NETSHM_V_INT: u32 = 1;
/// Kind of a cell: an unsigned integer, as.u. Of type uint; see #NETSHM_V_INT.
pub const NETSHM_V_UINT: u32 = 2;
/// Kind of a cell: a double, as.d.
pub const NETSHM_V_DOUBLE: u32 = 3;
/// Kind of a cell: bytes, as.s. Of types string, bytes, int32[] (4 little-endian bytes for each number).
pub const NETSHM_V_BYTES: u32 = 4;
/// Kind of a cell: an option that has a content, whose cells follow.
pub const NETSHM_V_SOME: u32 = 5;
/// Kind of a cell: an option without content.
pub const NETSHM_V_NONE: u32 = 6;
/// Kind of a cell: an object of a custom type, as.object.
pub const NETSHM_V_CUSTOM: u32 = 7;

/// The content of a cell; its kind says which member.
#[repr(C)]
#[derive(Clone, Copy)]
pub union netshm_content {
    /// With #NETSHM_V_INT.
    pub i: i64,
    /// With #NETSHM_V_UINT.
    pub u: u64,
    /// With #NETSHM_V_DOUBLE.
    pub d: f64,
    /// With #NETSHM_V_BYTES.
    pub s: netshm_slice,
    /// With #NETSHM_V_CUSTOM.
    pub object: *mut c_void,
}

/// A cell. A value is its leaves in order, each a cell: one cell for a number, a string, an object; those of
/// the left and then those of the right half for a pair; for an option #NETSHM_V_NONE, or #NETSHM_V_SOME and
/// the cells of the content.
///
/// The helpers below make cells: `netshm_value v[] = { netshm_int(5), netshm_some(), netshm_str("x") };` is a
/// value of type `(int,string?)`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct netshm_value {
    /// One of the NETSHM_V_ numbers.
    pub kind: u32,
    /// Padding. It is not looked at; cells that the library makes have 0.
    pub reserved: u32,
    /// The content.
    pub r#as: netshm_content,
}

const _: () = assert!(offset_of!(netshm_value, r#as) == 8 && size_of::<netshm_content>() % 8 == 0);

impl netshm_value {
    pub(super) fn int(i: i64) -> netshm_value {
        netshm_value { kind: NETSHM_V_INT, reserved: 0, r#as: netshm_content { i } }
    }

    /// The cell of a value. Bytes point to where the value has them.
    pub(super) fn of(value: Value<'_>) -> netshm_value {
        let (kind, content) = match value {
            Value::Int(i) => (NETSHM_V_INT, netshm_content { i }),
            Value::Uint(u) => (NETSHM_V_UINT, netshm_content { u }),
            Value::Double(d) => (NETSHM_V_DOUBLE, netshm_content { d }),
            Value::Bytes(bytes) => {
                let s = netshm_slice { data: bytes.as_ptr().cast(), len: bytes.len() };
                (NETSHM_V_BYTES, netshm_content { s })
            }
            Value::Some => (NETSHM_V_SOME, netshm_content { u: 0 }),
            Value::None => (NETSHM_V_NONE, netshm_content { u: 0 }),
            Value::Custom(object) => (NETSHM_V_CUSTOM, netshm_content { object: object.0.cast_mut().cast() }),
        };
        netshm_value { kind, reserved: 0, r#as: content }
    }
}

/// The caller's cells, converted.
pub(super) type Cells<'a> = SmallVec<[Value<'a>; 4]>;

/// More cells than any type can have: its signature would be too long.
const MANY_CELLS: usize = 1024;

/// Reads `n` cells at argument `number`; the next argument is their number.
///
/// # Safety
/// If it is not NULL, `n` cells must be readable there, and what they point to during `'a`.
pub(super) unsafe fn cells<'a>(number: u32, cells: *const netshm_value, n: usize) -> Outcome<Cells<'a>> {
    if cells.is_null() {
        return Err(Fault::Null(number));
    }
    if n > MANY_CELLS {
        return Err(Fault::Argument(number + 1, "more cells than any type has"));
    }
    // SAFETY: the caller's promise.
    (0..n).map(|i| unsafe { convert(number, cells.add(i).read_unaligned()) }).collect()
}

/// # Safety
/// As for [`cells`].
unsafe fn convert<'a>(number: u32, cell: netshm_value) -> Outcome<Value<'a>> {
    // SAFETY: the kind says which member the caller has set; all are plain bits.
    Ok(unsafe {
        match cell.kind {
            NETSHM_V_INT => Value::Int(cell.r#as.i),
            NETSHM_V_UINT => Value::Uint(cell.r#as.u),
            NETSHM_V_DOUBLE => Value::Double(cell.r#as.d),
            NETSHM_V_BYTES => match bytes(number, cell.r#as.s.data, cell.r#as.s.len) {
                Err(Fault::Null(_)) => {
                    return Err(Fault::Argument(number, "a cell has NULL with a length that is not 0"));
                }
                other => Value::Bytes(other?),
            },
            NETSHM_V_SOME => Value::Some,
            NETSHM_V_NONE => Value::None,
            NETSHM_V_CUSTOM => Value::Custom(CustomObject(cell.r#as.object.cast_const().cast())),
            _ => return Err(Fault::Argument(number, "a cell has an unknown kind")),
        }
    })
}
