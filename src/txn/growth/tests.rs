//! Growth by whatever is lawful, and by what damaged bytes say.

use super::*;
use crate::index::catalog::Identity;
use crate::index::find::{self, Obstacle};
use crate::index::home::home;
use crate::lock::Patience;
use crate::object::{ManageOptions, Object, OpenOptions};
use crate::txn::cursor::{self, Batch, Part, Position};
use crate::{Array, HashTable};

/// Goal: growth does not give memory to what damaged bytes call an array of buckets. Method: the next array lies where none
/// can be: between two lines, before the pages that are used end, or far behind them.
#[test]
fn what_cannot_be_an_array_gets_no_memory() {
    let object = OpenOptions::new().anonymous().expect("memory");
    let table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table").table;
    let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
    let mut w = entered.writer(Patience::FOR_EVER);
    let (root, base, ready) =
        (table.view.roots.root(), table.view.roots.base_level(), table.view.roots.ready());
    let (k, i) = root::bucket_place(ready, base);
    let array_at = root.word(root::W_ARRAYS + k as u64);
    assert_eq!((w.segment.load(array_at), i), (0, 0), "it is not there yet");
    let (size, used) = (w.segment.limit(), w.segment.load(header::USED_PAGES) * PAGE_BYTES);
    for wrong in [16, used - PAGE_BYTES + 8, used, used + (1 << 40), !(PAGE_BYTES - 1)] {
        w.segment.store(array_at, wrong);
        let outcome = make_ready(&mut w, &table.view, ready);
        assert_eq!(outcome, Err(Error::corrupt(Damage::Root, array_at)), "{wrong:#x}");
        w.segment.refresh().expect("is whole");
        assert_eq!(w.segment.limit(), size, "{wrong:#x}");
    }
    w.segment.store(array_at, 0);
    assert_eq!(make_ready(&mut w, &table.view, ready), Ok(true));
}

/// Goal: what is permitted is advisory, so that keys are found whatever the order was in which buckets have been
/// split. Method: single buckets are split as far as there are partners for them; a hint that says as little as it can is
/// made before each operation, of every kind that looks for a bucket.
#[test]
fn keys_are_found_whatever_the_order_of_splits_was() {
    for rarely in [2, 5, 11] {
        let object = OpenOptions::new().anonymous().expect("memory");
        let hash_table = crate::HashTable::manage(&object, &ManageOptions::new()).expect("a table");
        let keys: Vec<_> = (0..2000u64).map(u64::to_le_bytes).collect();
        for key in &keys {
            hash_table.add(key, b"value").expect("adds");
        }
        let table = &hash_table.table;
        let view = &table.view;
        let permitted_at = view.roots.root().word(root::W_PERMITTED);
        let know_little = || {
            let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
            let w = entered.writer(Patience::FOR_EVER);
            w.segment.store(permitted_at, 0);
            view.refresh(&w).expect("refreshes");
            assert_eq!(view.roots.expected(), 1 << view.roots.base_level());
        };
        let mut behind_all = 0;
        {
            let mut entered = table.engine.enter(Patience::FOR_EVER).expect("enters");
            let mut w = entered.writer(Patience::FOR_EVER);
            for index in (0..view.roots.ready()).step_by(rarely) {
                while let Some((_, level)) = living_ancestor(&w, view, index).filter(|at| at.0 == index) {
                    if !split_generally(&mut w, view, index, level).expect("splits") {
                        break;
                    }
                    behind_all += u64::from(2 << level > view.roots.ready());
                }
            }
        }
        assert!(behind_all > 10, "{behind_all}: levels by which keys are at home behind all that is ready");

        let segment = &table.engine.segment;
        for (n, key) in keys.iter().enumerate() {
            let hash = view.key_hash.hash(key);
            know_little();
            let found = find::attempt(segment, &view.roots, hash, key, |_, found| found.is_some());
            assert!(matches!(found, Ok((true, _))), "{n}");
            know_little();
            assert!(home(segment, &view.roots, hash).is_ok(), "{n}");
            let value = &[b'v'; 20][..n % 20];
            know_little();
            hash_table.replace(key, value).expect("replaces");
            know_little();
            assert_eq!(hash_table.find_many(&[key]).expect("finds"), [Some(value.to_vec())]);
            let absent = (1 << 32 | n as u64).to_le_bytes();
            know_little();
            let hash = view.key_hash.hash(&absent);
            let found = find::attempt(segment, &view.roots, hash, &absent, |_, found| found.is_some());
            assert!(matches!(found, Ok((false, _))), "{n}");
        }
        let (mut position, mut batch, mut count) = (Position::START, Batch::default(), 0);
        while !position.is_end() {
            know_little();
            position = cursor::attempt(segment, view, position, Part::Keys, &mut batch)
                .unwrap_or_else(|obstacle| panic!("{obstacle:?} behind {count}"));
            while batch.take().is_some() {
                count += 1;
            }
        }
        assert_eq!(count, keys.len());
        let in_group: Result<usize> = table.group(|| {
            hash_table.add(b"one more", b"value")?;
            hash_table.iter().try_fold(0, |n, binding| binding.map(|_| n + 1))
        });
        assert_eq!(in_group, Ok(keys.len() + 1));
        let summary = object.check(|finding| panic!("{finding:?}")).expect("checks");
        assert_eq!(summary.bindings, keys.len() as u64 + 1);
    }
}

/// Goal: a table grows, whatever splits of another one its only session has still to make. Method: the session leaves one
/// table just when it has taken tickets, and fills another.
#[test]
fn tickets_of_another_table_do_not_stop_growth() {
    let object = OpenOptions::new().anonymous().expect("memory");
    let manage = |name| crate::HashTable::manage(&object, ManageOptions::new().root(name)).expect("a table");
    let (left, filled) = (manage("left"), manage("filled"));
    let has_tickets = || {
        let mut entered = left.table.engine.enter(Patience::FOR_EVER).expect("enters");
        entered.writer(Patience::FOR_EVER).s.tickets.are_of(left.table.view.roots.root())
    };
    let mut n = 0u64;
    while !has_tickets() {
        left.add(&n.to_le_bytes(), b"value").expect("adds");
        n += 1;
    }
    let keys = 10_000u64;
    for n in 0..keys {
        filled.add(&n.to_le_bytes(), b"value").expect("adds");
    }
    let permitted = filled.table.view.roots.root().word(root::W_PERMITTED);
    let permitted = filled.table.engine.segment.load(permitted);
    assert!(permitted >= (keys - 200) * root::LOAD_BUCKETS / root::LOAD_KEYS, "{permitted}");
}

/// A word of a table's root.
fn root_word(table: &HashTable, n: u64) -> Offset {
    table.table.view.roots.root().word(n)
}

fn load(table: &HashTable, n: u64) -> u64 {
    table.table.engine.segment.load(root_word(table, n))
}

fn empty_table() -> (Object, HashTable) {
    let object = OpenOptions::new().anonymous().expect("memory");
    let table = HashTable::manage(&object, &ManageOptions::new()).expect("a table");
    (object, table)
}

fn add(table: &HashTable, keys: std::ops::Range<u64>) {
    for n in keys {
        table.add(&n.to_le_bytes(), b"value").expect("adds");
    }
}

/// Goal: whoever knows of few buckets finds his way, or knows that his hint is old. Method: hints from all stages of a
/// table's growth, which ends at sizes that are no powers of two, so that some keys are at home behind what is ready.
#[test]
fn an_old_hint_leads_to_the_key_or_is_known_to_be_old() {
    for keys in [1000, 2300, 5100, 9900] {
        let (_object, table) = empty_table();
        let (engine, view) = (&table.table.engine, &table.table.view);
        let mut hints = Vec::new();
        for from in (0..keys).step_by(100) {
            let hint = TableView::new(Identity::unnamed(), view.key_hash);
            engine.refresh(&hint, Patience::FOR_EVER).expect("refreshes");
            hints.push(hint);
            add(&table, from..from + 100);
        }
        let (mut right, mut old) = (0, 0);
        for hint in &hints {
            for n in 0..keys {
                let key = n.to_le_bytes();
                let hash = view.key_hash.hash(&key);
                let segment = &engine.segment;
                let found = find::attempt(segment, &hint.roots, hash, &key, |_, found| found.is_some());
                let obstacles =
                    [found.map(|(found, _)| assert!(found)).err(), home(segment, &hint.roots, hash).err()];
                for obstacle in obstacles {
                    match obstacle {
                        None => right += 1,
                        Some(Obstacle::Stale) => old += 1,
                        Some(other) => panic!("{n} of {keys}: {other:?}"),
                    }
                }
            }
        }
        assert!(right > 0 && old > 0, "{right} {old}");
    }
}

/// Asserts that a table has grown as its number of keys wants it, but for what a few sessions have not reported yet, and
/// that what is permitted was done.
fn assert_grown(table: &HashTable, keys: u64) {
    let wanted = buckets_for(keys - 300);
    let permitted = load(table, root::W_PERMITTED);
    assert!(permitted >= wanted && load(table, root::W_READY) >= wanted, "{permitted} of {wanted}");
    let dump = table.table.dump().expect("dumps");
    let lines = dump.matches("overflow line").count() as u64;
    assert!(lines < wanted, "{lines} overflow lines beside {wanted} buckets");
}

/// Goal: a table grows by groups, be each as small as it may. Method: groups that add a few keys each, and nothing else.
#[test]
fn small_groups_let_a_table_grow() {
    for size in [1, 10, 63, 64, 1000] {
        let (_object, table) = empty_table();
        let keys = 20_000;
        for from in (0..keys).step_by(size) {
            let grouped: Result<()> = table.table.group(|| {
                add(&table, from..(from + size as u64).min(keys));
                Ok(())
            });
            grouped.expect("commits");
        }
        assert_grown(&table, keys);
    }
}

/// Goal: what an inner group did and took back does not count. Method: the rough number of bindings before and after.
#[test]
fn inner_groups_that_are_rolled_back_leave_the_count() {
    let (_object, table) = empty_table();
    add(&table, 0..1000);
    let before = load(&table, root::W_ROUGH_COUNT);
    for _ in 0..20 {
        let outer: Result<()> = table.table.group(|| {
            let inner: Result<()> = table.table.group(|| {
                for n in 0..200u64 {
                    assert!(table.remove(&n.to_le_bytes())?);
                }
                Err(Error::Range)
            });
            assert_eq!(inner, Err(Error::Range));
            table.replace(b"a key", b"value")
        });
        outer.expect("commits");
    }
    assert_eq!(table.len(), Ok(1001));
    let after = load(&table, root::W_ROUGH_COUNT);
    assert!(before.abs_diff(after) <= REPORT as u64, "{before} {after}");
}

/// Goal: advisory words steer growth, and do not end it. Method: tables in which they are too small or too large by much, as
/// deaths, full devices and rounding leave them; keys added one by one, and by groups.
#[test]
fn growth_overcomes_whatever_advisory_words_say() {
    let minus = |n: i64| (-n) as u64;
    for (permitted, rough) in
        [(0, 0), (17_000, 0), (1 << 14, 64), (64, minus(64)), (64, minus(6400)), (3000, minus(64))]
    {
        for in_groups in [false, true] {
            let (_object, table) = empty_table();
            let segment = &table.table.engine.segment;
            segment.store(root_word(&table, root::W_PERMITTED), permitted);
            segment.store(root_word(&table, root::W_ROUGH_COUNT), rough);
            let keys = 60_000;
            for from in (0..keys).step_by(1000) {
                if in_groups {
                    let grouped: Result<()> = table.table.group(|| {
                        add(&table, from..from + 1000);
                        Ok(())
                    });
                    grouped.expect("commits");
                } else {
                    add(&table, from..from + 1000);
                }
            }
            // The keys that are missing in the count have to be added once more.
            assert_grown(&table, keys - 6400);
        }
    }
}

/// Goal: a slice of a large array makes the index grow as far as it needs. Method: the count of a table that is as good as
/// empty has come out below 0.
#[test]
fn a_slice_permits_no_more_than_it_needs() {
    let object = OpenOptions::new().anonymous().expect("memory");
    let array = Array::manage_i64(&object, 0, 1 << 40, &ManageOptions::new()).expect("an array");
    let root = array.table().view.roots.root();
    let segment = &array.table().engine.segment;
    segment.store(root.word(root::W_ROUGH_COUNT), -64i64 as u64);
    array.write(0, &vec![1; 1 << 20]).expect("writes");
    let permitted = segment.load(root.word(root::W_PERMITTED));
    assert!(permitted <= 1000, "{permitted}");
}

/// Goal: an object that is full refuses what it has no memory for, and nothing else. Method: a table that cannot grow while
/// there are blocks for bindings; groups of many small changes.
#[test]
fn growth_that_cannot_be_had_is_no_error() {
    let object = OpenOptions::new().anonymous().expect("memory");
    let table = HashTable::manage(&object, ManageOptions::new().max_bytes(1 << 20)).expect("a table");
    // Blocks that are free again, and no page that is.
    let mut n = 0u64;
    while table.add(&n.to_le_bytes(), &[7; 40]).is_ok() {
        n += 1;
    }
    let ready = load(&table, root::W_READY);
    for key in 0..n {
        assert_eq!(table.remove(&key.to_le_bytes()), Ok(true));
    }
    table.table.engine.segment.store(root_word(&table, root::W_ROUGH_COUNT), 10 * ready);
    let grouped: Result<()> = table.table.group(|| {
        for key in 0..n / 2 {
            table.add(&key.to_le_bytes(), &[7; 40])?;
        }
        Ok(())
    });
    assert_eq!(grouped, Ok(()));
}

/// Goal: tickets that cannot be used do not keep a session from what it has to do. Method: one operation with tickets of a table
/// that had this place before, and with some for which there is no memory.
#[test]
fn tickets_in_vain_are_given_up_at_once() {
    let object = OpenOptions::new().anonymous().expect("memory");
    let table = HashTable::manage(&object, ManageOptions::new().max_bytes(1 << 20)).expect("a table");
    add(&table, 0..10);
    let root = table.table.view.roots.root();
    for (permitted, first) in [(64, 1000), (1 << 30, 1 << 29)] {
        table.table.engine.segment.store(root_word(&table, root::W_PERMITTED), permitted);
        let session = || table.table.engine.enter(Patience::FOR_EVER).expect("enters");
        session().writer(Patience::FOR_EVER).s.tickets.take_on(root, first..first + 100_000);
        table.replace(&0u64.to_le_bytes(), b"other").expect("replaces");
        assert!(!session().writer(Patience::FOR_EVER).s.tickets.are_of(root), "{permitted}");
    }
    assert_eq!(table.len(), Ok(10));
}
