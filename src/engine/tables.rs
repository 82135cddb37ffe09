//! The tables that this process has handles for: one view of each, shared by all handles.

use crate::index::KeyHash;
use crate::index::catalog::Identity;
use crate::txn::TableView;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A list that only grows, without a lock, which a forked child might find locked for ever. There are few
/// tables, and a view of one that was dropped comes to use again when the name does.
pub(super) struct Tables {
    newest: AtomicPtr<Node>,
    key_hash: KeyHash,
}

struct Node {
    view: Arc<TableView>,
    older: *mut Node,
}

// SAFETY: nodes are made whole before they are published, never changed, and freed by drop alone.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

impl Tables {
    pub(super) fn new(key_hash: KeyHash) -> Tables {
        Tables { newest: AtomicPtr::new(ptr::null_mut()), key_hash }
    }

    /// The view of a table that is expected to be this; made if there is none.
    pub(super) fn view(&self, identity: Identity) -> Arc<TableView> {
        let mut newest = self.newest.load(Ordering::Acquire);
        if let Some(view) = find(newest, ptr::null_mut(), &identity) {
            return view;
        }
        let new = Box::into_raw(Box::new(Node {
            view: Arc::new(TableView::new(identity, self.key_hash)),
            older: newest,
        }));
        loop {
            // Release pairs with the Acquire loads: the node is whole when it can be seen.
            match self.newest.compare_exchange(newest, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: published nodes live as long as `self`.
                Ok(_) => return unsafe { &*new }.view.clone(),
                Err(now) => {
                    // SAFETY: it was made above and is not published.
                    let unpublished = unsafe { &mut *new };
                    if let Some(view) = find(now, newest, unpublished.view.roots.identity()) {
                        // SAFETY: as above.
                        drop(unsafe { Box::from_raw(new) });
                        return view;
                    }
                    newest = now;
                    unpublished.older = now;
                }
            }
        }
    }
}

/// Looks from node `from` on to node `until`, which is not looked at.
fn find(from: *mut Node, until: *mut Node, identity: &Identity) -> Option<Arc<TableView>> {
    let mut at = from;
    while at != until {
        // SAFETY: published nodes live as long as their list.
        let node = unsafe { at.as_ref() }?;
        if node.view.roots.identity() == identity {
            return Some(node.view.clone());
        }
        at = node.older;
    }
    None
}

impl Drop for Tables {
    fn drop(&mut self) {
        let mut at = *self.newest.get_mut();
        while !at.is_null() {
            // SAFETY: each node was made by Box::into_raw and is in the list once.
            let node = unsafe { Box::from_raw(at) };
            at = node.older;
        }
    }
}
