//! Goal: nobody waits for what is not in his way, and nobody waits for ever. A group held for long blocks who wants to
//! change what it has touched, and nobody else; those who read never. Of groups that try again, the oldest gets through
//! within three further attempts. A huge value can be read while it is replaced all the time.
//!
//! Method: what must not be blocked is done from beginning to end while the group is held, by processes of their own:
//! that they end is the proof, and no time is measured. The ages of groups, which decide who gives way, are read from
//! the object's slots (docs/design.md, "Slot"): a group is the oldest from the first attempt on at whose beginning no slot
//! has a smaller age, and its attempts are counted from there. `NETSHM_LOCKING` chooses the locking method,
//! `NETSHM_ROUNDS` the number of groups of each process, `NETSHM_READS` that of reads of the huge value,
//! `NETSHM_LONG=1` ten times as many of both.

mod support;

use netshm::{Error, HashTable, ManageOptions, Name, OpenOptions, Update};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use support::process::{Child, Exit, Shared, fork, now_ns, watchdog};
use support::random::Random;
use support::scratch::{Scratch, assert_sound};

/// Nobody does nothing for so long, also on a machine that is very busy.
const STUCK_SECONDS: u32 = 300;

fn number_of(variable: &str, short: u64) -> u64 {
    support::setting(variable).unwrap_or(if support::long() { 10 * short } else { short })
}

fn options() -> ManageOptions {
    // Different keys hardly ever share a bucket, and with it a lock.
    ManageOptions::new().locking(support::locking()).expected(1 << 20).clone()
}

fn open(name: &Name) -> HashTable {
    let object = OpenOptions::new().create(true).open(name).expect("opens");
    HashTable::manage(&object, &options()).expect("manages")
}

/// A handle that does not wait for locks.
fn open_impatient(name: &Name) -> HashTable {
    let object = OpenOptions::new().open(name).expect("opens");
    HashTable::manage(&object, options().lock_timeout_ms(-1)).expect("manages")
}

fn open_for_reading(name: &Name) -> HashTable {
    let object = OpenOptions::new().read_only(true).open(name).expect("opens");
    HashTable::manage(&object, &options()).expect("manages")
}

fn succeed(children: Vec<Child>) {
    for (n, mut child) in children.into_iter().enumerate() {
        assert_eq!(child.wait(), Exit::Code(0), "process {n} (signal 14 is its watchdog)");
    }
}

// ---- A group held for long

/// What the group touches, each in another way.
const REPLACED: &[u8] = b"replaced";
const REMOVED: &[u8] = b"removed";
const COUNTED: &[u8] = b"counted";
const READ: &[u8] = b"read";
const ABSENT: &[u8] = b"absent";
const TOUCHED: [&[u8]; 5] = [REPLACED, REMOVED, COUNTED, READ, ABSENT];

const HELD: usize = 0;
const RELEASE: usize = 1;
const WAITING: usize = 2;
const WENT_ON: usize = 3;

fn value_before(key: &[u8]) -> Option<Vec<u8>> {
    match key {
        COUNTED => Some(5i64.to_le_bytes().to_vec()),
        ABSENT => None,
        _ => Some(b"before".to_vec()),
    }
}

fn hold(name: &Name, shared: &Shared) {
    let t = open(name);
    let group = t.table().begin().expect("begins");
    t.replace(REPLACED, b"after").expect("replaces");
    assert!(t.remove(REMOVED).expect("removes"));
    t.increment(COUNTED, 1, 0).expect("counts");
    t.find(READ).expect("finds");
    assert_eq!(t.find(ABSENT).expect("finds"), None);
    shared.set(HELD, 1);
    while shared.get(RELEASE) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    group.commit().expect("commits");
}

/// All ways to read, of what is touched and of other keys.
fn read_everything(t: &HashTable, others: u64) {
    watchdog(STUCK_SECONDS);
    let mut buffer = [0; 64];
    for round in 0..300u64 {
        for key in TOUCHED {
            let should = value_before(key);
            assert_eq!(t.find(key).expect("finds"), should);
            assert_eq!(t.contains(key).expect("looks"), should.is_some());
            assert_eq!(t.find_all(key).expect("finds").first(), should.as_ref());
            let len = t.find_into(key, &mut buffer).expect("finds");
            assert_eq!(len.map(|len| buffer[..len].to_vec()), should);
            t.stamp(key).expect("reads the stamp");
        }
        let all = t.find_many(&TOUCHED).expect("finds");
        assert!(all.into_iter().eq(TOUCHED.map(value_before)));
        assert!(t.contains(&other_key(round % others)).expect("looks"));
        if round % 30 == 0 {
            let touched = t.iter().map(|b| b.expect("iterates")).filter(|b| TOUCHED.contains(&&b.0[..]));
            assert_eq!(touched.count(), 4, "what is bound of it");
        }
    }
}

fn other_key(n: u64) -> Vec<u8> {
    format!("other {n}").into_bytes()
}

/// All ways to change other keys, alone and in groups.
fn change_others(name: &Name, keys: &[Vec<u8>], me: u64) {
    watchdog(STUCK_SECONDS);
    let t = open(name);
    let mut random = Random::new(me);
    for n in 0..3000u64 {
        let key = random.one_of(keys);
        let mine = format!("of {me}: {n}").into_bytes();
        match random.below(8) {
            0 => t.add(key, &mine).expect("adds"),
            1 => t.replace(key, &mine).expect("replaces"),
            2 => assert!(matches!(t.insert(key, &mine), Ok(()) | Err(Error::Exists))),
            3 => _ = t.remove(key).expect("removes"),
            4 => t.update(key, |_| Update::Replace(mine)).expect("updates"),
            5 => assert!(matches!(
                t.compare_and_replace(key, b"before", &mine),
                Ok(()) | Err(Error::Changed | Error::NotFound)
            )),
            6 => assert!(matches!(t.increment(key, 1, 0), Ok(_) | Err(Error::Type { .. }))),
            _ => {
                let another = random.one_of(keys);
                let both = t.table().group_retry(None, || {
                    t.replace(key, &mine)?;
                    t.find(another)?;
                    t.replace(another, &mine)
                });
                both.expect("commits");
            }
        }
        if n % 500 == 0 {
            // Coming and going is not in the way either.
            drop(open(name));
        }
    }
}

/// Keys of others that have no lock in common with what the group holds.
fn free_keys(name: &Name, others: u64) -> Vec<Vec<u8>> {
    let t = open_impatient(name);
    (0..others)
        .map(other_key)
        .filter(|key| match t.update(key, |_| Update::Keep) {
            Ok(()) => true,
            Err(Error::Timeout { .. }) => false,
            Err(e) => panic!("{e}"),
        })
        .collect()
}

fn held_group(stopped: bool) {
    const OTHERS: u64 = 60;
    let scratch = Scratch::posix("held");
    let name = scratch.name();
    let shared = Shared::new(4);
    succeed(vec![fork(|| {
        let t = open(name);
        for key in TOUCHED {
            if let Some(value) = value_before(key) {
                t.add(key, &value).expect("adds");
            }
        }
        (0..OTHERS).for_each(|n| t.add(&other_key(n), b"before").expect("adds"));
    })]);
    let holder = fork(|| hold(name, &shared));
    while shared.get(HELD) == 0 {
        std::thread::yield_now();
    }
    if stopped {
        holder.signal(libc::SIGSTOP);
    }
    let pid = holder.pid() as u32;
    // Whoever wants something of it waits, and knows for whom.
    succeed(vec![fork(|| {
        watchdog(STUCK_SECONDS);
        let t = open_impatient(name);
        for key in TOUCHED {
            let refused = Err(Error::Timeout { holder_pid: pid });
            assert_eq!(t.replace(key, b"by a thief"), refused);
            assert_eq!(t.add(key, b"by a thief"), refused);
            assert_eq!(t.update(key, |_| Update::Keep), refused);
            assert_eq!(t.table().group(|| t.find(key).map(|_| ())), refused);
        }
    })]);
    let waiters: Vec<Child> = TOUCHED
        .iter()
        .map(|key| {
            fork(|| {
                watchdog(STUCK_SECONDS);
                let t = open(name);
                shared.add(WAITING, 1);
                t.add(key, b"by a waiter").expect("adds in the end");
                shared.add(WENT_ON, 1);
            })
        })
        .collect();
    while shared.get(WAITING) < TOUCHED.len() as u64 {
        std::thread::yield_now();
    }
    // Everybody else does all he has to do, and ends, while the group is held.
    let mut children = vec![
        fork(|| read_everything(&open(name), OTHERS / 2)),
        fork(|| read_everything(&open_for_reading(name), OTHERS / 2)),
    ];
    for me in 0..2 {
        let from_half = |key: &Vec<u8>| (OTHERS / 2..OTHERS).any(|n| other_key(n) == *key);
        children.push(fork(|| {
            let keys: Vec<Vec<u8>> = free_keys(name, OTHERS).into_iter().filter(from_half).collect();
            assert!(keys.len() as u64 > OTHERS / 4, "hardly any key is free: {}", keys.len());
            change_others(name, &keys, me);
        }));
    }
    children.push(fork(|| {
        watchdog(STUCK_SECONDS);
        let t = open_impatient(name);
        let refused = (0..20_000u32).filter(|n| t.add(format!("new {n}").as_bytes(), b"x").is_err()).count();
        println!("  20000 new keys added meanwhile, {refused} refused since their bucket was held");
        assert!(refused < 20, "{refused}");
        t.len().expect("counts");
    }));
    succeed(children);
    assert_eq!(shared.get(WENT_ON), 0, "a waiter went on though the group is held");
    if stopped {
        holder.signal(libc::SIGCONT);
    }
    shared.set(RELEASE, 1);
    succeed(vec![holder]);
    succeed(waiters);
    succeed(vec![fork(|| {
        let t = open(name);
        for key in TOUCHED {
            assert_eq!(t.find(key).expect("finds").as_deref(), Some(&b"by a waiter"[..]));
            t.remove(key).expect("removes");
        }
        assert_eq!(t.find(REPLACED).expect("finds").as_deref(), Some(&b"after"[..]));
        assert_eq!(t.find(REMOVED).expect("finds"), None);
        assert_eq!(t.increment(COUNTED, 0, 0), Ok(6));
    })]);
    assert_sound(name);
}

// ---- The oldest gets through

const PROCESSES: usize = 8;
/// Attempts that the oldest may need, once it is the oldest.
const FURTHER: usize = 3;
/// Longest row of a distribution; what is longer is in the last place.
const ROW: usize = 16;

// Words: a barrier, then distributions.
const TOGETHER: usize = 0;
const OLDEST: usize = TOGETHER + 1;
const ATTEMPTS: usize = OLDEST + ROW;
const LONGEST: usize = ATTEMPTS + ROW;
const WORDS: usize = LONGEST + 1;

/// A view of an object's slots that changes nothing.
struct Slots {
    words: *const AtomicU64,
    len: usize,
}

impl Slots {
    fn new(scratch: &Scratch) -> Slots {
        let file = std::fs::File::open(scratch.path()).expect("opens the data");
        let len = file.metadata().expect("asks for the length").len() as usize;
        // SAFETY: a new mapping, of a file that is never shortened.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Slots { words: at.cast_const().cast(), len: len / 8 }
    }

    fn word(&self, byte: u64) -> u64 {
        let n = byte as usize / 8;
        assert!(n < self.len, "the slots lie in the first part of the file");
        // SAFETY: inside of the mapping.
        unsafe { (*self.words.add(n)).load(Ordering::SeqCst) }
    }

    /// Process id and age of each slot that is taken. More slots than the first ones are not looked at.
    fn ages(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        const CHUNKS: u64 = 3 * 4096 + 64;
        let chunks = [(self.word(CHUNKS), 8), (self.word(CHUNKS + 8), 8)];
        let slots =
            chunks.into_iter().filter(|c| c.0 != 0).flat_map(|c| (0..c.1).map(move |n| c.0 + 8192 * n));
        slots.filter(|at| self.word(*at) & 0xff == 1).map(|at| (self.word(at + 40), self.word(at + 48)))
    }

    /// Is the group that this process has open older than all others? One without an age has not had to wait yet, and
    /// will be younger.
    fn mine_is_oldest(&self) -> bool {
        let me = std::process::id() as u64;
        let mine = self.ages().find(|slot| slot.0 == me).map_or(0, |slot| slot.1);
        mine != 0 && self.ages().all(|(pid, age)| pid == me || age == 0 || age > mine)
    }
}

fn count(shared: &Shared, row: usize, n: u64) {
    shared.add(row + (n as usize).min(ROW - 1), 1);
}

fn row(shared: &Shared, row: usize) -> Vec<u64> {
    let all: Vec<u64> = (0..ROW).map(|n| shared.get(row + n)).collect();
    let len = all.iter().rposition(|n| *n != 0).map_or(0, |n| n + 1);
    all[..len].to_vec()
}

fn compete(scratch: &Scratch, shared: &Shared, me: usize, rounds: u64) {
    let t = open(scratch.name());
    let slots = Slots::new(scratch);
    let mut random = Random::new(me as u64);
    let keys: [&[u8]; 2] = if me % 2 == 0 { [b"hot 1", b"hot 2"] } else { [b"hot 2", b"hot 1"] };
    shared.add(TOGETHER, 1);
    while shared.get(TOGETHER) < PROCESSES as u64 {
        std::thread::yield_now();
    }
    for _ in 0..rounds {
        watchdog(STUCK_SECONDS);
        let begun = now_ns();
        let (mut attempts, mut as_oldest) = (0, 0);
        let done = t.table().group_retry(None, || {
            attempts += 1;
            if as_oldest > 0 || slots.mine_is_oldest() {
                as_oldest += 1;
            }
            t.increment(keys[0], 1, 0)?;
            // So that others come in between.
            match random.below(4) {
                0 => std::thread::sleep(std::time::Duration::from_micros(random.below(100))),
                _ => std::thread::yield_now(),
            }
            t.increment(keys[1], 1, 0).map(|_| ())
        });
        assert_eq!(done, Ok(()));
        count(shared, ATTEMPTS, attempts);
        count(shared, OLDEST, as_oldest);
        shared.word(LONGEST).fetch_max(now_ns() - begun, Ordering::SeqCst);
    }
}

fn the_oldest_of_eight_groups_gets_through_within_three_attempts() {
    let rounds = number_of("NETSHM_ROUNDS", 1500);
    let scratch = Scratch::posix("oldest");
    let shared = Shared::new(WORDS);
    let name = scratch.name();
    succeed(vec![fork(|| {
        let t = open(name);
        [b"hot 1", b"hot 2"].iter().for_each(|key| t.add(*key, &0i64.to_le_bytes()).expect("adds"));
    })]);
    let (shared, scratch) = (&shared, &scratch);
    succeed((0..PROCESSES).map(|me| fork(move || compete(scratch, shared, me, rounds))).collect());
    succeed(vec![fork(|| {
        let t = open(name);
        let sum = rounds as i64 * PROCESSES as i64;
        assert_eq!((t.increment(b"hot 1", 0, 0), t.increment(b"hot 2", 0, 0)), (Ok(sum), Ok(sum)));
    })]);
    assert_sound(name);
    let oldest = row(shared, OLDEST);
    println!(
        "  {PROCESSES} processes, {rounds} groups each, on 2 keys in opposite order ({:?})",
        support::locking()
    );
    println!("  groups by attempts needed (0, 1, 2, ..., {} or more): {:?}", ROW - 1, row(shared, ATTEMPTS));
    println!("  by attempts that began when the group was the oldest, after others in vain: {oldest:?}");
    println!("  longest time of one group {:.1} ms", shared.get(LONGEST) as f64 / 1e6);
    assert!(
        oldest.len() <= FURTHER + 1,
        "an oldest group needed more than {FURTHER} further attempts: {oldest:?}"
    );
    let ever_oldest: u64 = oldest.iter().skip(1).sum();
    assert!(ever_oldest > 20, "hardly any group was the oldest after a first attempt in vain: {oldest:?}");
}

// ---- A huge value

const HUGE: usize = 16 << 20;
const KEY: &[u8] = b"huge";

const STOP: usize = 0;
const REPLACED_TIMES: usize = 1;
const REFUSED: usize = 2;
const TIMES: usize = 3;

/// Replaces the value all the time. `step` tells the writers apart.
fn replace_huge(name: &Name, shared: &Shared, writer: u64, of: u64) {
    watchdog(2 * STUCK_SECONDS);
    let t = open(name);
    let mut value = vec![0u8; HUGE];
    for n in (1u64..).map(|n| n * of + writer) {
        value.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&n.to_le_bytes()));
        t.replace(KEY, &value).expect("replaces");
        shared.add(REPLACED_TIMES, 1);
        if shared.get(STOP) != 0 {
            return;
        }
    }
}

fn read_huge(t: &HashTable, shared: &Shared, reads: u64, place: usize) {
    watchdog(2 * STUCK_SECONDS);
    let mut buffer = vec![0u8; HUGE];
    let mut done = 0;
    while done < reads {
        let begin = now_ns();
        let outcome = match done % 2 {
            0 => t.find(KEY).map(|value| value.expect("is there")),
            _ => t.find_into(KEY, &mut buffer).map(|len| buffer[..len.expect("is there")].to_vec()),
        };
        let value = match outcome {
            Ok(value) => value,
            Err(Error::Busy(_) | Error::Timeout { .. }) => {
                shared.add(REFUSED, 1);
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        shared.set(place + done as usize, now_ns() - begin);
        assert_eq!(value.len(), HUGE);
        assert!(value.chunks_exact(8).all(|word| word == &value[..8]), "a mixture");
        done += 1;
    }
}

fn read_while_replaced(writers: u64, reads: u64, read_only: bool) {
    const READERS: u64 = 2;
    let scratch = Scratch::posix("huge");
    let name = scratch.name();
    let shared = Shared::new(TIMES + (READERS * reads) as usize);
    succeed(vec![fork(|| open(name).add(KEY, &vec![0; HUGE]).expect("adds"))]);
    let shared = &shared;
    let writing = (0..writers).map(|w| fork(move || replace_huge(name, shared, w, writers))).collect();
    while shared.get(REPLACED_TIMES) == 0 {
        std::thread::yield_now();
    }
    let before = shared.get(REPLACED_TIMES);
    let reading = (0..READERS as usize).map(|r| {
        fork(move || {
            let t = if read_only { open_for_reading(name) } else { open(name) };
            read_huge(&t, shared, reads, TIMES + r * reads as usize);
        })
    });
    succeed(reading.collect());
    let replaced = shared.get(REPLACED_TIMES) - before;
    shared.set(STOP, 1);
    succeed(writing);
    assert_sound(name);
    let mut times: Vec<u64> = (0..(READERS * reads) as usize).map(|n| shared.get(TIMES + n)).collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100] as f64 / 1e6;
    println!(
        "  {writers} writers, {READERS} readers{}: {} reads of 16 MiB during {replaced} replacements, {} refused; p50 {:.0} ms, p90 \
         {:.0} ms, max {:.0} ms",
        if read_only { " that may not write" } else { "" },
        READERS * reads,
        shared.get(REFUSED),
        at(50),
        at(90),
        at(100)
    );
    assert!(replaced > 0, "nobody replaced it");
}

fn a_huge_value_can_be_read_while_it_is_replaced_all_the_time() {
    let reads = number_of("NETSHM_READS", 6);
    read_while_replaced(1, reads, false);
    read_while_replaced(2, reads, false);
    read_while_replaced(1, reads, true);
}

fn main() {
    support::main(&[
        ("a_held_group_blocks_only_what_it_touched", || held_group(false)),
        ("a_stopped_group_blocks_only_what_it_touched", || held_group(true)),
        (
            "the_oldest_of_eight_groups_gets_through_within_three_attempts",
            the_oldest_of_eight_groups_gets_through_within_three_attempts,
        ),
        (
            "a_huge_value_can_be_read_while_it_is_replaced_all_the_time",
            a_huge_value_can_be_read_while_it_is_replaced_all_the_time,
        ),
    ]);
}
