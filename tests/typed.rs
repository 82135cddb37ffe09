//! Goal: typed tables keep what they record: types are compared when a table is managed, values come back as they were,
//! and what does not fit or does not decode is an error. Method: one process, through the Rust API, beside a table of
//! bytes on the same object where the bytes matter.

use netshm::{
    Data, Encode, Error, HashTable, Int, Left, ManageOptions, Object, OpenOptions, Result, Type, TypedArray,
    TypedHashTable, Update,
};
use std::time::Duration;

fn object() -> Object {
    OpenOptions::new().anonymous().expect("makes memory")
}

fn typed<K: Data, V: Data>(object: &Object) -> Result<TypedHashTable<K, V>> {
    TypedHashTable::manage(object, &ManageOptions::new())
}

/// The types of a refused call: asked for and recorded.
fn mismatch<T: std::fmt::Debug>(outcome: Result<T>) -> (String, String) {
    match outcome {
        Err(Error::Type { asked, recorded }) => (asked, recorded),
        other => panic!("{other:?}"),
    }
}

#[test]
fn stacks_of_typed_bindings() {
    let object = object();
    let t = typed::<String, (i64, Option<String>)>(&object).expect("manages");
    assert_eq!(t.find("k").expect("finds"), None);
    t.add("k", &(1, None)).expect("adds");
    t.add("k", &(2, Some("two".into()))).expect("adds");
    let long = "x".repeat(1000);
    t.add(&"k".to_string(), &(3, Some(long.clone()))).expect("adds");
    assert_eq!(t.find("k").expect("finds"), Some((3, Some(long.clone()))));
    assert_eq!(t.find_all("k").expect("finds"), [(3, Some(long)), (2, Some("two".into())), (1, None)]);
    assert_eq!(t.len().expect("counts"), 3);
    assert!(t.remove("k").expect("removes") && t.contains("k").expect("looks"));
    t.replace("k", &(-2, None)).expect("replaces");
    assert_eq!(t.insert("k", &(0, None)), Err(Error::Exists));
    t.insert("l", &(9, None)).expect("inserts");
    assert_eq!(t.compare_and_replace("l", &(8, None), &(7, None)), Err(Error::Changed));
    t.compare_and_replace("l", &(9, None), &(7, None)).expect("replaces");
    let mut all: Vec<_> = t.iter().collect::<Result<_>>().expect("reads");
    all.sort();
    assert_eq!(all, [("k".into(), (-2, None)), ("k".into(), (1, None)), ("l".into(), (7, None))]);
    let mut keys: Vec<String> = t.keys().collect::<Result<_>>().expect("reads");
    keys.sort();
    assert_eq!(keys, ["k", "l"]);
    t.update("l", |old| {
        assert_eq!(old, Some((7, None)));
        Ok(Update::Replace((8, Some("eight".into()))))
    })
    .expect("updates");
    t.update("m", |old| Ok(if old.is_none() { Update::Replace((0, None)) } else { Update::Keep }))
        .expect("updates");
    assert_eq!(t.update("m", |_| Err(Error::Aborted)), Err(Error::Aborted));
    assert_eq!(t.find("m").expect("finds"), Some((0, None)));
    t.update("m", |_| Ok(Update::Remove)).expect("updates");
    assert!(!t.contains("m").expect("looks"));
    assert_eq!(t.find("l").expect("finds"), Some((8, Some("eight".into()))));
    let aborted: Result<()> = t.table().group(|| {
        t.replace("l", &(0, None))?;
        Err(Error::Aborted)
    });
    assert_eq!(aborted, Err(Error::Aborted));
    assert_eq!(t.find("l").expect("finds"), Some((8, Some("eight".into()))));
    assert!(!t.is_empty().expect("counts"));
    assert!(object.check(|_| true).expect("is sound").complete);
}

#[test]
fn types_are_recorded_and_compared() {
    let object = object();
    typed::<String, (Int, String)>(&object).expect("manages");
    typed::<String, (Int, String)>(&object).expect("manages it again");
    assert_eq!(
        mismatch(typed::<i64, (Int, String)>(&object)),
        ("keys of type int64".into(), "keys of type string".into())
    );
    assert_eq!(
        mismatch(typed::<String, (Int, Vec<u8>)>(&object)),
        ("values of type (int,bytes)".into(), "values of type (int,string)".into())
    );
    let (asked, recorded) = mismatch(HashTable::manage(&object, &ManageOptions::new()));
    assert!(asked.contains("raw bytes") && recorded.contains("(int,string)"), "{asked}, {recorded}");
    // Other types by a new beginning only.
    let again = TypedHashTable::<i64, i64>::manage(&object, ManageOptions::new().reinitialise(true))
        .expect("manages");
    again.add(&1, &2).expect("adds");
    assert_eq!(typed::<i64, i64>(&object).expect("manages").find(&1).expect("finds"), Some(2));
    mismatch(typed::<String, (Int, String)>(&object));
}

#[test]
fn strings_and_bytes_are_tables_of_bytes() {
    let object = object();
    let raw = HashTable::manage(&object, &ManageOptions::new()).expect("manages");
    raw.add(b"key", b"value").expect("adds");
    raw.add(b"\xff", b"value").expect("adds");
    let strings = typed::<String, String>(&object).expect("manages");
    assert_eq!(strings.find("key").expect("finds").as_deref(), Some("value"));
    let bytes = typed::<Vec<u8>, Vec<u8>>(&object).expect("manages");
    bytes.replace(&b"key"[..], &b"\xff"[..]).expect("replaces");
    assert_eq!(raw.find(b"key").expect("finds").as_deref(), Some(&b"\xff"[..]));
    assert!(matches!(strings.find("key"), Err(Error::Corrupt { .. })));
    // The walk goes on after what does not decode.
    assert_eq!(strings.iter().filter(Result::is_err).count(), 2);
    assert_eq!(strings.iter().count(), 2);
    mismatch(typed::<i64, String>(&object));

    let other = OpenOptions::new().anonymous().expect("makes memory");
    typed::<String, Vec<u8>>(&other).expect("manages");
    HashTable::manage(&other, &ManageOptions::new()).expect("manages as raw bytes");
    mismatch(typed::<Vec<u8>, Vec<u8>>(&other));
}

#[test]
fn the_left_half_reads_and_cannot_be_recorded() {
    let object = object();
    let half = typed::<String, Left<i64>>(&object);
    assert!(matches!(half, Err(Error::Invalid { .. })), "{half:?}");
    let whole = typed::<String, (i64, (String, i32))>(&object).expect("the object is still empty");
    whole.add("k", &(77, ("x".into(), 1))).expect("adds");
    let half = typed::<String, Left<i64>>(&object).expect("manages");
    assert_eq!(half.find("k").expect("finds"), Some(Left(77)));
    assert_eq!(half.iter().collect::<Result<Vec<_>>>().expect("reads"), [("k".to_owned(), Left(77))]);
    let inner = typed::<String, (i64, Left<String>)>(&object).expect("manages");
    assert_eq!(inner.find("k").expect("finds"), Some((77, Left("x".into()))));
    mismatch(typed::<String, Left<i32>>(&object));
}

#[test]
fn counters_and_their_bounds() {
    let object = object();
    let t = typed::<(i32, String), i64>(&object).expect("manages");
    let key = (7, "a".to_owned());
    assert_eq!(t.increment(&key, 5, 100), Ok(105));
    t.replace(&key, &i64::MAX).expect("replaces");
    assert_eq!(t.increment(&key, 1, 0), Err(Error::Overflow));
    assert_eq!(t.find(&key), Ok(Some(i64::MAX)));
}

#[test]
fn many_integers() {
    let object = object();
    let t = typed::<i64, i64>(&object).expect("manages");
    for i in 0..20_000 {
        t.add(&(i - 10_000), &(i * i)).expect("adds");
    }
    for i in 0..20_000 {
        assert_eq!(t.find(&(i - 10_000)), Ok(Some(i * i)));
    }
    assert_eq!(t.keys().map(|k| k.expect("reads")).sum::<i64>(), -10_000);
    assert!(object.check(|_| true).expect("is sound").complete);
}

/// A type of the user's own, which refuses to be written if it is negative.
#[derive(Debug, PartialEq)]
struct Degrees(i32);

impl Encode for Degrees {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        if self.0 < 0 { Err(Error::Callback(-1)) } else { self.0.encode(out) }
    }
}
impl Data for Degrees {
    fn data_type() -> Result<Type> {
        Type::custom("degrees")
    }
    fn decode(bytes: &[u8]) -> Result<Degrees> {
        i32::decode(bytes).map(Degrees)
    }
}

#[test]
fn own_types() {
    let object = object();
    let t = typed::<String, (Degrees, Degrees)>(&object).expect("manages");
    t.add("here", &(Degrees(52), Degrees(13))).expect("adds");
    assert_eq!(t.add("there", &(Degrees(1), Degrees(-1))), Err(Error::Callback(-1)));
    assert_eq!(t.find("here"), Ok(Some((Degrees(52), Degrees(13)))));
    assert_eq!(t.len(), Ok(1));
    let (_, recorded) = mismatch(typed::<String, (i32, i32)>(&object));
    assert_eq!(recorded, "values of type (custom:degrees,custom:degrees)");
}

#[test]
fn waiting_for_a_typed_key() {
    let object = object();
    let t = typed::<(i64, String), i64>(&object).expect("manages");
    let key = (7, "key".to_owned());
    let mut stamp = t.stamp(&key).expect("looks");
    assert_eq!(t.wait(&key, &mut stamp, Some(Duration::ZERO)), Ok(false));
    let before = stamp;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            t.increment(&key, 5, 0).expect("adds");
        });
        assert_eq!(t.wait(&key, &mut stamp, Some(Duration::from_secs(20))), Ok(true));
    });
    assert_ne!(stamp, before);
    assert_eq!(t.find(&key), Ok(Some(5)));
    assert_eq!(t.stamp(&key), Ok(stamp));
}

#[test]
fn typed_arrays() {
    type Seat = (i64, Option<String>);
    let object = object();
    let manage = |length| TypedArray::<Seat>::manage(&object, &(-1, None), length, &ManageOptions::new());
    let a = manage(1 << 40).expect("manages");
    assert_eq!(a.length(), Ok(1 << 40));
    assert_eq!(a.default_value(), Ok((-1, None)));
    assert_eq!(a.get(5), Ok((-1, None)));
    let set = [(3, (3, Some("three".to_owned()))), (1 << 39, (4, None)), (12, (0, Some(String::new())))];
    for (i, seat) in &set {
        a.set(*i, seat).expect("sets");
    }
    assert_eq!(a.get(1 << 40), Err(Error::Range));
    assert_eq!(a.set(1 << 40, &(0, None)), Err(Error::Range));
    let mut all = a.iter().collect::<Result<Vec<_>>>().expect("reads");
    all.sort();
    let mut wanted = set.to_vec();
    wanted.sort();
    assert_eq!(all, wanted);
    a.resize(4).expect("resizes");
    assert_eq!(manage(0).expect("manages").get(3), Ok(set[0].1.clone()));
    assert_eq!((&a).into_iter().count(), 1);
    let (asked, recorded) = mismatch(TypedArray::<String>::manage(&object, "", 0, &ManageOptions::new()));
    assert!(asked.contains("string") && recorded.contains("(int64,string?)"), "{asked} {recorded}");

    // What does not decode is an error of its element, and the walk goes on.
    a.array().set(2, b"garbage").expect("sets bytes");
    assert!(matches!(a.get(2), Err(Error::Corrupt { .. })));
    let (whole, broken): (Vec<_>, Vec<_>) = a.iter().partition(Result::is_ok);
    assert_eq!((whole.len(), broken.len()), (1, 1));
    assert!(object.check(|_| true).expect("is sound").complete);
}

#[test]
fn typed_arrays_of_numbers() {
    let object = object();
    let a = TypedArray::<i64>::manage(&object, &5, 10_000, &ManageOptions::new()).expect("manages");
    assert_eq!(a.increment(9_999, -7), Ok(-2));
    assert_eq!(a.increment(0, i64::MAX), Err(Error::Overflow));
    a.table()
        .group(|| {
            a.set(1, &1)?;
            assert_eq!(a.iter().count(), 2);
            Err::<(), _>(Error::Aborted)
        })
        .expect_err("is aborted");
    assert_eq!(a.iter().collect::<Vec<_>>(), [Ok((9_999, -2))]);
}
