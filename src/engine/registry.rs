//! The engines of this process, so that all handles to one object share one.

use super::{Engine, create};
use crate::error::{Error, Result};
use crate::format::header::Header;
use crate::os::process;
use crate::os::shm::Files;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Identity of an object's memory, and whether it is mapped for writing.
type Key = (u64, u64, bool);

struct Registry {
    epoch: u64,
    engines: Mutex<Vec<(Key, Weak<Engine>)>>,
}

/// Replaced by a forked child, whose parent may have held the mutex; the parent's is left alone.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

fn registry() -> &'static Registry {
    let epoch = process::fork_epoch();
    loop {
        let now = REGISTRY.load(Ordering::Acquire);
        // SAFETY: registries are never freed.
        let known = unsafe { now.as_ref() };
        if let Some(registry) = known.filter(|r| r.epoch == epoch) {
            return registry;
        }
        let inherited =
            known.and_then(|r| r.engines.try_lock().ok().map(|engines| engines.clone())).unwrap_or_default();
        let new = Box::into_raw(Box::new(Registry { epoch, engines: Mutex::new(inherited) }));
        if REGISTRY.compare_exchange(now, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: it was made above and not published.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

fn engines() -> MutexGuard<'static, Vec<(Key, Weak<Engine>)>> {
    registry().engines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine of an object: that of another handle of this process, or a new one. `create` makes the object
/// first, if there is nothing yet, with the header that it gives.
pub(crate) fn open(
    files: &Arc<Files>,
    reserve: u64,
    create: Option<&dyn Fn() -> Result<Header>>,
) -> Result<Option<Arc<Engine>>> {
    let writable = !files.read_only();
    let identity = files.identity();
    let key = (identity.dev, identity.ino, writable);
    if let Some(engine) = known(key) {
        return Ok(Some(engine));
    }
    let header = match (create::inspect(files)?, create) {
        (create::Content::Object(header), _) => header,
        (create::Content::Nothing, None) => return Ok(None),
        (create::Content::Nothing, Some(_)) if !writable => return Err(Error::ReadOnly),
        (create::Content::Nothing, Some(header)) => create::create(files, &header()?)?,
    };
    let engine = Engine::new(files.clone(), header, reserve, writable)?;
    let mut engines = engines();
    engines.retain(|(_, weak)| weak.strong_count() > 0);
    if let Some(other) = usable(&engines, key) {
        return Ok(Some(other));
    }
    engines.push((key, Arc::downgrade(&engine)));
    Ok(Some(engine))
}

fn known(key: Key) -> Option<Arc<Engine>> {
    usable(&engines(), key)
}

/// The engine of an object. One that has lost pages stays with its handles.
fn usable(engines: &[(Key, Weak<Engine>)], key: Key) -> Option<Arc<Engine>> {
    let mut alive = engines.iter().filter(|e| e.0 == key).filter_map(|e| e.1.upgrade());
    alive.find(|engine| engine.segment.is_whole())
}
