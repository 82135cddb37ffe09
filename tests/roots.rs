//! Goal: several tables in one object are as good as one each. Method: every operation on the set of tables, with
//! handles of the tables open, in one process and, for the creation, in several at once; the checker afterwards.

mod support;

use netshm::{Error, HashTable, ManageOptions, Object, OpenOptions, TableKind};
use support::scratch::Scratch;

fn open(scratch: &Scratch) -> Object {
    OpenOptions::new().create(true).open(scratch.name()).expect("opens")
}

fn table(object: &Object, name: &str) -> HashTable {
    let mut options = ManageOptions::new();
    if !name.is_empty() {
        options.root(name);
    }
    HashTable::manage(object, &options).expect("manages")
}

fn names(object: &Object) -> Vec<Option<String>> {
    object.tables().expect("lists").into_iter().map(|info| info.name).collect()
}

fn assert_sound(scratch: &Scratch) -> netshm::check::Summary {
    let mut findings = Vec::new();
    let object = open(scratch);
    let outcome = object.check(|finding| {
        findings.push(finding);
        findings.len() < 10
    });
    outcome.unwrap_or_else(|e| panic!("{e}: {findings:#?}"))
}

#[test]
fn tables_by_name() {
    let scratch = Scratch::posix("roots");
    let object = open(&scratch);
    assert_eq!(names(&object), []);
    let a = table(&object, "a");
    let b = table(&object, "b");
    assert_eq!(names(&object), [Some("a".into()), Some("b".into())]);
    let unnamed = table(&object, "");
    a.add(b"k", b"in a").expect("adds");
    b.add(b"k", b"in b").expect("adds");
    b.add(b"k", b"above").expect("adds");
    assert_eq!(unnamed.find(b"k").expect("finds"), None);
    assert_eq!(a.find(b"k").expect("finds").as_deref(), Some(&b"in a"[..]));
    assert_eq!((a.len().expect("counts"), b.len().expect("counts")), (1, 2));
    assert_eq!(table(&object, "a").find(b"k").expect("finds").as_deref(), Some(&b"in a"[..]));
    assert_eq!(names(&object), [None, Some("a".into()), Some("b".into())]);
    let info = &object.tables().expect("lists")[1];
    assert_eq!((info.kind, info.key_type.as_str()), (TableKind::HashTable, ""));
    assert_eq!(a.table().name().as_deref(), Some("a"));
    assert_eq!(unnamed.table().name(), None);
    drop((a, b, unnamed, object));
    let again = open(&scratch);
    assert_eq!(table(&again, "b").find_all(b"k").expect("finds"), [&b"above"[..], b"in b"]);
    let summary = assert_sound(&scratch);
    assert_eq!((summary.tables, summary.bindings), (3, 3));
}

#[test]
fn more_names_than_a_page_has_entries() {
    let scratch = Scratch::posix("many-roots");
    let object = open(&scratch);
    let tables: Vec<_> = (0..40).map(|n| table(&object, &format!("table {n}"))).collect();
    for (n, table) in tables.iter().enumerate() {
        table.add(b"n", &n.to_le_bytes()).expect("adds");
    }
    object.drop_table("table 7").expect("drops");
    object.drop_table("table 30").expect("drops");
    table(&object, "in its place").add(b"n", b"new").expect("adds");
    assert_eq!(names(&object).len(), 39);
    for (n, table) in tables.iter().enumerate() {
        match table.find(b"n") {
            Err(Error::Stale) => assert!(n == 7 || n == 30, "{n}"),
            found => assert_eq!(found.expect("finds").as_deref(), Some(&n.to_le_bytes()[..])),
        }
    }
    assert_eq!(assert_sound(&scratch).tables, 39);
}

#[test]
fn bad_names() {
    let scratch = Scratch::posix("bad-roots");
    let object = open(&scratch);
    table(&object, &"n".repeat(240));
    for name in ["n".repeat(241), "a\0b".into()] {
        let outcome = HashTable::manage(&object, ManageOptions::new().root(&name));
        assert!(matches!(outcome, Err(Error::Invalid { argument: "root", .. })), "{outcome:?}");
        assert!(matches!(object.drop_table(&name), Err(Error::Invalid { .. })));
    }
    assert_eq!(object.drop_table("nobody"), Err(Error::NotFound));
    assert_eq!(names(&object).len(), 1);
}

#[test]
fn one_group_covers_all_tables() {
    let scratch = Scratch::posix("group-of-roots");
    let object = open(&scratch);
    let (a, b) = (table(&object, "a"), table(&object, "b"));
    let failed: Result<(), Error> = a.table().group(|| {
        a.add(b"k", b"1")?;
        b.add(b"k", b"2")?;
        assert_eq!((a.len()?, b.len()?), (1, 1));
        Err(Error::Aborted)
    });
    assert_eq!(failed, Err(Error::Aborted));
    assert_eq!((a.len(), b.len()), (Ok(0), Ok(0)));
    let done: Result<(), Error> = b.table().group(|| {
        for n in 0..1000u32 {
            a.add(&n.to_le_bytes(), b"a")?;
            b.add(&n.to_le_bytes(), b"b")?;
            b.add(&n.to_le_bytes(), b"c")?;
        }
        assert_eq!(a.iter().count(), 1000);
        assert_eq!(b.iter().count(), 2000);
        a.remove(&7u32.to_le_bytes()).map(|_| ())
    });
    done.expect("commits");
    assert_eq!((a.len(), b.len()), (Ok(999), Ok(2000)));
    assert!(matches!(a.table().group(|| object.drop_table("b")), Err(Error::InGroup(_))));
    assert_eq!(assert_sound(&scratch).bindings, 2999);
}

/// A table that was dropped, and one that got its buckets: who holds a lock of the second one by a group does not see it
/// through a handle of the first one.
#[test]
fn a_group_takes_no_table_for_one_that_is_gone() {
    let scratch = Scratch::posix("roots");
    let object = open(&scratch);
    let gone = table(&object, "gone");
    gone.add(b"k", b"old").expect("adds");
    object.drop_table("gone").expect("drops");
    let there = table(&object, "there");
    there.add(b"k", b"new").expect("adds");
    let outcome = there.table().group(|| {
        assert_eq!(there.find(b"k")?.as_deref(), Some(&b"new"[..]));
        assert_eq!(gone.find(b"k"), Err(Error::Stale));
        assert_eq!(gone.replace(b"k", b"bad"), Err(Error::Stale));
        there.replace(b"k", b"set")
    });
    assert_eq!(outcome, Ok(()));
    assert_eq!(there.find(b"k").expect("finds").as_deref(), Some(&b"set"[..]));
    drop((gone, there, object));
    assert_sound(&scratch);
}

#[test]
fn growth_of_two_tables_by_turns() {
    let scratch = Scratch::posix("roots-grow");
    let object = open(&scratch);
    let (a, b) = (table(&object, "a"), table(&object, "b"));
    for n in 0..20_000u32 {
        a.add(&n.to_le_bytes(), b"a").expect("adds");
        if n % 100 == 0 {
            b.add(&n.to_le_bytes(), b"b").expect("adds");
        }
    }
    for n in 0..20_000u32 {
        assert!(a.contains(&n.to_le_bytes()).expect("looks"));
        assert_eq!(b.contains(&n.to_le_bytes()), Ok(n % 100 == 0));
    }
    let summary = assert_sound(&scratch);
    // A small table does not grow with a large one: 200 keys need 54 buckets.
    assert!(summary.buckets < 20_000 / 3 + 200, "{summary:?}");
}

/// Goal: a table in the memory of one that was dropped is as good as new, whatever its session had in mind for that.
/// Method: the session drops it after each number of keys, most of them in the middle of growth; the memory is ready for
/// a new one when it has been swept.
#[test]
fn a_table_in_the_place_of_a_dropped_one() {
    let scratch = Scratch::posix("roots");
    let object = open(&scratch);
    let other = table(&object, "other");
    let add = |table: &HashTable, range: std::ops::Range<u64>| {
        for n in range {
            table.add(&n.to_le_bytes(), b"value").expect("adds");
        }
    };
    for keys in 2000..2000 + 128 {
        let former = table(&object, "former");
        add(&former, 0..keys);
        object.drop_table("former").expect("drops");
        // Each of these sweeps a little.
        add(&other, 0..300);
        let new = table(&object, "new");
        add(&new, 0..300);
        // Now everybody looks anew where the tables are.
        table(&object, "another");
        object.drop_table("another").expect("drops");
        for n in 0..400u64 {
            let found = new.find(&n.to_le_bytes()).unwrap_or_else(|e| panic!("{n} after {keys}: {e}"));
            assert_eq!(found.is_some(), n < 300, "{n} after {keys}");
        }
        object.drop_table("new").expect("drops");
        add(&other, 0..100);
    }
    assert_sound(&scratch);
}

#[test]
fn reinitialising_one_or_all() {
    let scratch = Scratch::posix("reinit-roots");
    let object = open(&scratch);
    let (unnamed, a, b) = (table(&object, ""), table(&object, "a"), table(&object, "b"));
    for t in [&unnamed, &a, &b] {
        t.add(b"k", b"v").expect("adds");
    }
    HashTable::manage(&object, ManageOptions::new().root("a").reinitialise(true)).expect("manages");
    // The handle sees the new, empty table.
    assert_eq!((unnamed.len(), a.len(), b.len()), (Ok(1), Ok(0), Ok(1)));
    HashTable::manage(&object, ManageOptions::new().reinitialise(true)).expect("manages");
    assert_eq!((unnamed.len(), a.len(), b.len()), (Ok(0), Err(Error::Stale), Err(Error::Stale)));
    assert_eq!(names(&object), [None]);
    table(&object, "b");
    assert_eq!(b.len(), Ok(0));
    let emptied = OpenOptions::new().truncate(true).open(scratch.name()).expect("opens");
    assert_eq!(names(&emptied), []);
    assert_eq!(unnamed.add(b"k", b"v"), Err(Error::Stale));
    assert_sound(&scratch);
}
