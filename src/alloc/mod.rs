//! Memory inside an object: pages, slabs, and blocks in the custody of a slot.
//!
//! A block is, at every moment, in exactly one place: free in its slab, in a cell or on the pending list of
//! one slot, or reachable. The moves between free and custody are mini-transactions; those between custody
//! and reachable are part of the operation that makes them. So nothing leaks, wherever a process dies.
//!
//! - [`pages`]: runs of pages, growth of the file, giving memory back to the system.
//! - [`slabs`]: blocks of the size classes.
//! - [`fast_arena`], [`fast_refill`], [`fast_return`]: the short ways between slabs and a magazine.
//! - [`custody`]: magazines, reserve and pending list of a slot; taking and freeing.
//! - [`kept`]: what stays in the reserve for a while, and how it goes back.

pub(crate) mod custody;
mod fast_arena;
mod fast_refill;
mod fast_return;
pub(crate) mod kept;
pub(crate) mod pages;
mod slabs;

pub(crate) use custody::{free_block, free_run, take_block, take_run};
