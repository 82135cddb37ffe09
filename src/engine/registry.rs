//! The engines of this process, so that all handles to one object share one.

use super::{Engine, create};
use crate::error::{Error, Result};
use crate::format::header::Header;
use crate::os::process;
use crate::os::shm::{self, Files};
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
        // It may have been opened by a path before.
        shm::seal_against_shrinking(files);
        return Ok(Some(engine));
    }
    let header = match (create::inspect(files)?, create) {
        (create::Content::Object(header), _) => header,
        (create::Content::Nothing, None) => return Ok(None),
        (create::Content::Nothing, Some(_)) if !writable => return Err(Error::ReadOnly),
        (create::Content::Nothing, Some(header)) => create::create(files, &header()?)?,
    };
    // Before the size is asked for that the mapping rests on.
    shm::seal_against_shrinking(files);
    let engine = Engine::new(files.clone(), header, reserve, writable)?;
    let all;
    let mut engines = engines();
    engines.retain(|(_, weak)| weak.strong_count() > 0);
    all = alive(&engines, key);
    if let Some(other) = all.iter().find(|engine| is_usable(engine)) {
        return Ok(Some(other.clone()));
    }
    engines.push((key, Arc::downgrade(&engine)));
    Ok(Some(engine))
}

fn known(key: Key) -> Option<Arc<Engine>> {
    let all = alive(&engines(), key);
    all.into_iter().find(is_usable)
}

/// The engines of an object. Their handles may be closed meanwhile, and what is given here be the last reference: an
/// engine's end takes its time, and waits for others, so the mutex has to be released before.
fn alive(engines: &[(Key, Weak<Engine>)], key: Key) -> Vec<Arc<Engine>> {
    engines.iter().filter(|e| e.0 == key).filter_map(|e| e.1.upgrade()).collect()
}

/// One that has lost pages stays with its handles.
fn is_usable(engine: &Arc<Engine>) -> bool {
    engine.segment.is_whole()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Damage;
    use crate::object::{ManageOptions, OpenOptions};
    use crate::os::guard;
    use crate::os::name::Name;

    /// Goal: no engine ends while the mutex is held. Method: the only handle of one that has lost its pages is closed
    /// while the engines are looked at.
    #[test]
    fn a_cut_engine_ends_after_the_mutex_is_released() {
        guard::install().expect("a handler");
        let path = std::env::temp_dir().join(format!("netshm-registry-{}", std::process::id()));
        let object = OpenOptions::new().create(true).open(&Name::file(&path)).expect("opens");
        let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table");
        let engine = Arc::downgrade(&known(key_of(&path)).expect("is known"));
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
        file.set_len(0).expect("cuts");
        let found = table.find(b"key");
        assert!(matches!(found, Err(Error::Corrupt { what: Damage::Truncated, .. })), "{found:?}");

        let engines = engines();
        let all = alive(&engines, key_of(&path));
        assert!(!all.iter().any(is_usable), "it is cut");
        drop((table, object));
        assert_eq!(engine.strong_count(), 1, "it has not ended yet");
        drop(engines);
        drop(all);
        assert_eq!(engine.strong_count(), 0);
        std::fs::remove_file(path).expect("removes");
    }

    fn key_of(path: &std::path::Path) -> Key {
        use std::os::unix::fs::MetadataExt;

        let file = path.metadata().expect("is there");
        (file.dev(), file.ino(), true)
    }
}
