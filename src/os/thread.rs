//! Which thread runs: a number that tells the threads of a process apart.
//!
//! It owns no memory of what a thread has done; that is for thread-local storage, whose every use is a call in a shared
//! library. This takes an instruction where the processor has the number at hand.

/// This thread's number. No other thread of the process has it as long as this one lives. Never 0.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux", not(miri)))]
#[inline(always)]
pub(crate) fn number() -> usize {
    let number;
    // SAFETY: the ABI of the platform has the thread pointer, which is the address of memory of this thread's, in this
    // word. It is read, and stays the same as long as the thread lives.
    unsafe {
        std::arch::asm!("mov {number}, fs:[0]", number = out(reg) number,
            options(nostack, preserves_flags, pure, readonly));
    }
    number
}

/// This thread's number. No other thread of the process has it as long as this one lives. Never 0.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux", not(miri))))]
#[inline(always)]
pub(crate) fn number() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use super::number;
    use std::collections::HashSet;
    use std::sync::Barrier;

    #[test]
    fn threads_that_live_at_once_have_different_numbers_and_keep_them() {
        let all_there = Barrier::new(16);
        let numbers: HashSet<usize> = std::thread::scope(|threads| {
            let see = || {
                let first = number();
                all_there.wait();
                assert_eq!(number(), first);
                first
            };
            let all: Vec<_> = (0..16).map(|_| threads.spawn(see)).collect();
            all.into_iter().map(|thread| thread.join().expect("ends")).collect()
        });
        assert!(numbers.len() == 16 && !numbers.contains(&0), "{numbers:?}");
    }
}
