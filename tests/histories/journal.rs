//! What the processes of a recording write down: one entry per operation, in memory that outlives them.
//!
//! Owns the stamps and the layout of a journal. An entry is words. It is written in this order: arguments and the
//! stamp of the invocation, then the first word, which makes it count; then, after the operation, what it gave, and
//! last the stamp of the response. A process that is killed leaves every entry as far as it got.

use crate::support::process::{Shared, now_ns};
use std::sync::atomic::{AtomicU64, Ordering};

/// Not 0 once the entry counts.
pub(crate) const KIND: usize = 0;
pub(crate) const INVOKED: usize = 1;
/// 0 as long as the operation has not returned.
pub(crate) const RETURNED: usize = 2;
/// The other words belong to whoever writes the entries.
pub(crate) const FIRST_FREE: usize = 3;

/// Kind of an entry that says that all keys have been locked since the process died that wrote the ones before it.
const SETTLEMENT: u64 = 255;

/// A journal of entries of equal size for each of several processes.
pub(crate) struct Journal {
    words: Shared,
    processes: usize,
    entries: usize,
    width: usize,
}

impl Journal {
    pub(crate) fn new(processes: usize, entries: usize, width: usize) -> Journal {
        Journal { words: Shared::new(processes * entries * width), processes, entries, width }
    }

    pub(crate) fn processes(&self) -> usize {
        self.processes
    }

    /// How many entries each process has room for.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    fn word(&self, process: usize, entry: usize, word: usize) -> &AtomicU64 {
        assert!(process < self.processes && entry < self.entries && word < self.width);
        self.words.word((process * self.entries + entry) * self.width + word)
    }

    pub(crate) fn get(&self, process: usize, entry: usize, word: usize) -> u64 {
        self.word(process, entry, word).load(Ordering::Acquire)
    }

    /// Stores in the order of the program, and without a full fence, which could hide a missing one.
    pub(crate) fn set(&self, process: usize, entry: usize, word: usize, value: u64) {
        self.word(process, entry, word).store(value, Ordering::Release);
    }

    /// Writes down that all keys have been locked, from `before` to `after`.
    pub(crate) fn settle(&self, process: usize, entry: usize, before: u64, after: u64) {
        self.set(process, entry, INVOKED, before);
        self.set(process, entry, RETURNED, after);
        self.set(process, entry, KIND, SETTLEMENT);
    }

    pub(crate) fn is_settlement(&self, process: usize, entry: usize) -> bool {
        self.get(process, entry, KIND) == SETTLEMENT
    }

    /// When it was decided at last whether an entry that was cut off has happened, if that is known.
    pub(crate) fn decided(&self, process: usize, entry: usize) -> Option<u64> {
        if self.get(process, entry, RETURNED) != 0 {
            return None;
        }
        let later = entry + 1..self.begun(process);
        later.into_iter().find(|n| self.is_settlement(process, *n)).map(|n| self.get(process, n, RETURNED))
    }

    /// How many operations a process has begun.
    pub(crate) fn begun(&self, process: usize) -> usize {
        self.begun_from(process, 0)
    }

    /// The same, if it is known that it has begun as many as `from`.
    pub(crate) fn begun_from(&self, process: usize, from: usize) -> usize {
        (from..self.entries).find(|n| self.get(process, *n, KIND) == 0).unwrap_or(self.entries)
    }
}

/// The moment before an operation: nothing of what follows happens before it.
pub(crate) fn stamp_before() -> u64 {
    let now = now_ns();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it.
    unsafe {
        // The clock is an instruction that later loads could overtake.
        std::arch::x86_64::_mm_lfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(Ordering::SeqCst);
    now
}

/// The moment after an operation. Stores of the operation that nobody can see yet have not happened: no fence.
pub(crate) fn stamp_after() -> u64 {
    now_ns()
}
