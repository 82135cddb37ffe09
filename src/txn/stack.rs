//! Changing any binding in a key's stack, not only the newest, as part of a transaction.
//!
//! Owns the relinking: a binding that goes, or moves to a new record, is bypassed by the link of the next newer
//! record that stays, or by the key's entry. It decides nothing itself: what becomes of each binding is the
//! caller's answer, and all answers are heard before anything is planned.

use super::ops::{self, At};
use super::{TableView, Update, cursor};
use crate::alloc;
use crate::error::Result;
use crate::format::Offset;
use crate::format::record::{self, IN_PLACE_BYTES, Shape};
use crate::format::size_class::LINE_CLASS;
use crate::index::chain;
use crate::writer::{Words, Writer};

/// Asks for the fate of each binding of a key, newest first, until there is no answer (the rest is kept then), and
/// plans all of it. An error leaves nothing planned that the caller's roll-back does not undo.
pub(crate) fn rewrite(
    w: &mut Writer,
    table: &TableView,
    at: &At,
    mut fate_of: impl FnMut(&[u8]) -> Result<Option<Update>>,
) -> Result<()> {
    let Some(hit) = at.hit else { return Ok(()) };
    let mut stack: Vec<(Offset, Shape, Update)> = Vec::new();
    let mut asking = true;
    chain::for_each_binding(&*w, hit.record(), |record, shape| {
        let mut fate = Update::Keep;
        if asking {
            let mut value = cursor::buffer(shape.value_len)?;
            ops::read_value(w, record.add(shape.value_at()), shape.value_len, &mut value);
            match fate_of(&value)? {
                Some(answer) => fate = answer,
                None => asking = false,
            }
        }
        stack.push((record, shape, fate));
        Ok(None::<()>)
    })?;
    if w.is_forked() {
        // In the callback. The locks and the slot are the parent's; whoever called undoes the rest.
        return Ok(());
    }
    plan(w, table, at, hit, stack)
}

/// Plans the fates, from the oldest binding to the newest, so that each link is known before it is needed.
fn plan(
    w: &mut Writer,
    table: &TableView,
    at: &At,
    hit: chain::Hit,
    stack: Vec<(Offset, Shape, Update)>,
) -> Result<()> {
    let mut older = Offset::NONE;
    let mut gone: Vec<(Offset, Shape)> = Vec::new();
    let mut removed = 0;
    for (record, shape, fate) in stack.into_iter().rev() {
        let value = match fate {
            Update::Remove => {
                gone.push((record, shape));
                removed += 1;
                continue;
            }
            Update::Keep => None,
            Update::Replace(value) => Some(value),
        };
        if let Some(value) = value {
            let in_place = value.len() as u64 == shape.value_len && shape.value_len <= IN_PLACE_BYTES;
            if !in_place {
                older = ops::make_record(w, at.key, &value, older)?;
                gone.push((record, shape));
                continue;
            }
            at.overwrite(w, record, shape, &value);
        }
        let word = w.word(record);
        if record::older(word) != older {
            w.put(record, record::with_older(word, older));
            w.will_change(at.home.bucket);
        }
        older = record;
    }
    // `older` is the newest binding that is left.
    if older.is_none() {
        if let Some(line) = chain::remove(w, at.home.bucket, hit.at)? {
            alloc::free_block(w, line, LINE_CLASS);
        }
    } else if older != hit.record() {
        at.bind(w, older)?;
    }
    // Freeing uses the first word of a record for another list: only now, when all links have been read.
    for (record, shape) in gone {
        ops::free_record(w, record, shape)?;
    }
    if removed > 0 { ops::count(w, table, -removed) } else { Ok(()) }
}
