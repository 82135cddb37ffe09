//! Goal: signatures and encodings are canonical, the two ways of encoding agree, and hostile bytes give errors.
//! Method: properties over random types and values, and the corner cases one by one.

use super::*;
use crate::error::{Damage, Error};
use proptest::prelude::*;

fn types() -> impl Strategy<Value = Type> {
    let simple = prop_oneof![
        Just(Type::int()),
        Just(Type::int32()),
        Just(Type::int64()),
        Just(Type::nativeint()),
        Just(Type::uint()),
        Just(Type::double()),
        Just(Type::string()),
        Just(Type::bytes()),
        Just(Type::int32_array()),
        "[a-zA-Z0-9._-]{1,10}".prop_map(|name| Type::custom(&name).expect("a good name")),
    ];
    simple.prop_recursive(6, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Type::pair(&a, &b).expect("short")),
            inner.prop_map(|a| Type::option(&a).expect("short")),
        ]
    })
}

/// An owned cell.
#[derive(Debug, Clone)]
enum Owned {
    Int(i64),
    Uint(u64),
    Double(f64),
    Bytes(Vec<u8>),
    Some,
    None,
}

fn borrow(cells: &[Owned]) -> Vec<super::Value<'_>> {
    let cell = |owned: &'_ Owned| match owned {
        Owned::Int(n) => super::Value::Int(*n),
        Owned::Uint(n) => super::Value::Uint(*n),
        Owned::Double(d) => super::Value::Double(*d),
        Owned::Some => super::Value::Some,
        _ => super::Value::None,
    };
    cells
        .iter()
        .map(|owned| match owned {
            Owned::Bytes(bytes) => super::Value::Bytes(bytes),
            other => cell(other),
        })
        .collect()
}

/// Values of a type, made from a stream of random words.
fn cells_of(what: &Type, random: &mut impl FnMut() -> u64, cells: &mut Vec<Owned>) {
    match what.shape() {
        Shape::Int | Shape::Int64 | Shape::NativeInt => cells.push(Owned::Int(random() as i64)),
        Shape::Int32 => cells.push(Owned::Int((random() as i32).into())),
        Shape::Uint => cells.push(Owned::Uint(random())),
        Shape::Double => cells.push(Owned::Double(f64::from_bits(random()))),
        Shape::String | Shape::Bytes | Shape::Custom(_) => {
            let len = random() % 12;
            cells.push(Owned::Bytes((0..len).map(|_| random() as u8).collect()));
        }
        Shape::Int32Array => {
            let len = random() % 4 * 4;
            cells.push(Owned::Bytes((0..len).map(|_| random() as u8).collect()));
        }
        Shape::Pair(left, right) => {
            cells_of(left, random, cells);
            cells_of(right, random, cells);
        }
        Shape::Left(left) => cells_of(left, random, cells),
        Shape::Option(content) => {
            if random() % 2 == 0 {
                cells.push(Owned::None);
            } else {
                cells.push(Owned::Some);
                cells_of(content, random, cells);
            }
        }
    }
}

fn stream(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// NaNs are equal to themselves here, and to each other.
fn same(a: &[super::Value<'_>], b: &[super::Value<'_>]) -> bool {
    let bits = |d: f64| if d.is_nan() { u64::MAX } else { d.to_bits() };
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (super::Value::Double(a), super::Value::Double(b)) => bits(*a) == bits(*b),
            (a, b) => a == b,
        })
}

proptest! {
    #[test]
    fn a_printed_type_parses_to_itself(what in types()) {
        let again = Type::parse(what.signature()).expect("parses");
        prop_assert_eq!(again.signature(), what.signature());
        prop_assert_eq!(again.fixed_bytes(), what.fixed_bytes());
        prop_assert!(again.reads(&what) && what.reads(&again));
    }

    #[test]
    fn a_prefix_or_a_change_of_a_signature_is_an_error_in_it_or_another_type(
        what in types(), at in any::<prop::sample::Index>(), byte in 32u8..127
    ) {
        let text = what.signature();
        let at = at.index(text.len());
        let mut changed = text.as_bytes().to_vec();
        changed[at] = byte;
        for candidate in [&text.as_bytes()[..at], &changed] {
            match signature::parse(candidate) {
                Ok(other) => prop_assert_eq!(other.signature().as_bytes(), candidate),
                Err(Error::Signature { position, .. }) => prop_assert!((at..=candidate.len()).contains(&position)),
                Err(e) => prop_assert!(false, "{e}"),
            }
        }
    }

    #[test]
    fn arbitrary_text_is_a_canonical_signature_or_an_error(text in "[()a-z0-9,_?:\\[\\]]{0,24}") {
        if let Ok(found) = Type::parse(&text) {
            prop_assert_eq!(found.signature(), text);
        }
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same(what in types(), seed in any::<u64>()) {
        let mut cells = Vec::new();
        cells_of(&what, &mut stream(seed), &mut cells);
        let cells = borrow(&cells);
        let bytes = what.encode(&cells).expect("encodes");
        if let Some(len) = what.fixed_bytes() {
            prop_assert_eq!(bytes.len(), len);
        }
        let decoded = what.decode(&bytes).expect("decodes");
        prop_assert!(same(&decoded, &cells), "{:?} became {:?}", cells, decoded);
    }

    #[test]
    fn whatever_decodes_is_canonical(
        what in types(), seed in any::<u64>(), at in any::<prop::sample::Index>(), flip in 1u8.., cut in 0usize..12
    ) {
        let mut cells = Vec::new();
        cells_of(&what, &mut stream(seed), &mut cells);
        let mut bytes = what.encode(&borrow(&cells)).expect("encodes");
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 2));
        match what.decode(&bytes) {
            Ok(decoded) => {
                let again = what.encode(&decoded).expect("encodes");
                prop_assert_eq!(again, bytes);
            }
            Err(Error::Corrupt { what: Damage::Encoding, offset }) => {
                prop_assert!(offset <= bytes.len() as u64);
            }
            Err(e) => prop_assert!(false, "{e}"),
        }
    }

    #[test]
    fn random_bytes_decode_canonically_or_not_at_all(what in types(), bytes in prop::collection::vec(0u8..4, 0..40)) {
        if let Ok(decoded) = what.decode(&bytes) {
            prop_assert_eq!(what.encode(&decoded).expect("encodes"), bytes);
        }
    }

    #[test]
    fn the_left_half_reads_every_pair_that_begins_with_it(
        left in types(), right in types(), more in types(), seed in any::<u64>()
    ) {
        let pair = Type::pair(&left, &right).expect("short");
        let half = Type::left(&left).expect("short");
        prop_assert!(half.reads(&pair) && !pair.reads(&half));
        // Alone, and as the left half of another pair.
        for (whole, half) in [
            (pair.clone(), half.clone()),
            (Type::pair(&pair, &more).expect("short"), Type::pair(&half, &more).expect("short")),
        ] {
            let (mut cells, mut wanted) = (Vec::new(), Vec::new());
            cells_of(&whole, &mut stream(seed), &mut cells);
            cells_of(&left, &mut stream(seed), &mut wanted);
            let bytes = whole.encode(&borrow(&cells)).expect("encodes");
            prop_assert!(half.reads(&whole));
            let seen = half.decode(&bytes).expect("decodes");
            prop_assert!(same(&seen[..wanted.len()], &borrow(&wanted)));
            let refused = matches!(half.encode(&seen), Err(Error::Type { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn the_traits_write_what_the_cells_do(
        a in any::<i64>(), b in any::<i32>(), c in any::<u64>(), d in any::<f64>(), e in ".{0,9}",
        f in prop::collection::vec(any::<u8>(), 0..9), g in prop::collection::vec(any::<i32>(), 0..5),
        h in prop::option::of(".{0,5}"), i in any::<isize>(),
    ) {
        type All = ((((i64, i32), (u64, f64)), (String, Vec<u8>)), ((Vec<i32>, Option<String>), (isize, Int)));
        let value: All =
            ((((a, b), (c, d)), (e.clone(), f.clone())), ((g.clone(), h.clone()), (i, Int(a))));
        let words: Vec<u8> = g.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut cells = vec![
            super::Value::Int(a), super::Value::Int(b.into()), super::Value::Uint(c), super::Value::Double(d),
            super::Value::Bytes(e.as_bytes()), super::Value::Bytes(&f), super::Value::Bytes(&words),
        ];
        match &h {
            Some(text) => cells.extend([super::Value::Some, super::Value::Bytes(text.as_bytes())]),
            None => cells.push(super::Value::None),
        }
        cells.extend([super::Value::Int(i as i64), super::Value::Int(a)]);
        let what = All::data_type().expect("short");
        let mut bytes = Vec::new();
        value.encode(&mut bytes).expect("encodes");
        prop_assert_eq!(&what.encode(&cells).expect("encodes"), &bytes);
        prop_assert_eq!(value.with_encoded(<[u8]>::to_vec).expect("encodes"), bytes.clone());
        prop_assert_eq!(All::decode(&bytes).expect("decodes"), value);
    }
}

#[test]
fn errors_of_signatures_give_the_position() {
    for (text, position) in [
        ("", 0),
        ("integer", 3),
        ("intx", 3),
        ("int3", 4),
        ("int32x", 5),
        ("int32[x", 6),
        ("int_", 3),
        ("native", 6),
        ("i", 1),
        ("x", 0),
        ("(int,strong)", 8),
        ("customer", 6),
        ("cust", 4),
        ("int ", 3),
        ("(int", 4),
        ("(int,", 5),
        ("(int,)", 5),
        ("(int,string", 11),
        ("(int,string?", 12),
        ("(int,string,int)", 11),
        ("(_,int)", 1),
        ("_", 0),
        ("(int,_x)", 6),
        ("int32[", 6),
        ("int64[]", 5),
        ("custom", 6),
        ("custom:", 7),
        ("custom:a/b", 8),
        ("?", 0),
        ("(int,string)?x", 13),
        (LONG_NAME, 71),
    ] {
        let found = Type::parse(text);
        let matches = matches!(found, Err(Error::Signature { position: at, .. }) if at == position);
        assert!(matches, "{text}: {found:?}");
    }
}

/// 65 letters where 64 are possible.
const LONG_NAME: &str = "custom:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What a signature begins with is never blamed: after its first bytes, the first foreign byte is, or a later one if
/// another signature goes on so.
#[test]
fn errors_of_signatures_blame_no_beginning() {
    let signatures = [
        "int32",
        "int64",
        "nativeint",
        "uint",
        "double",
        "string",
        "bytes",
        "int32[]",
        "custom:a.b",
        "(int,string?)",
        "((int,_),custom:c)?",
        "(bytes??,(uint,int32[]))",
    ];
    for signature in signatures {
        for cut in 0..signature.len() {
            for byte in " !?_()[],:abcdefghijklmnopqrstuvwxyz0123456789".chars() {
                let text = format!("{}{byte}", &signature[..cut]);
                match Type::parse(&text) {
                    Ok(_) => {}
                    Err(Error::Signature { position, .. }) => {
                        assert!((cut..=cut + 1).contains(&position), "{text}: {position}");
                    }
                    other => panic!("{text}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn types_have_bounds() {
    let mut deep = Type::int();
    for _ in 1..datatype::MAX_DEPTH {
        deep = Type::option(&deep).expect("is not too deep");
    }
    assert!(matches!(Type::option(&deep), Err(Error::TooLarge(_))));
    assert!(Type::parse(&format!("int{}", "?".repeat(31))).is_ok());
    assert!(matches!(Type::parse(&format!("int{}", "?".repeat(32))), Err(Error::TooLarge(_))));
    assert!(matches!(Type::parse(&"(".repeat(300)), Err(Error::TooLarge(_))));
    let mut long = Type::string();
    let refused = (0..20).find_map(|_| match Type::pair(&long, &long) {
        Ok(pair) => {
            long = pair;
            None
        }
        Err(e) => Some(e),
    });
    assert!(matches!(refused, Some(Error::TooLarge(_))) && long.signature().len() <= 504);
    assert!(
        Type::custom("").is_err() && Type::custom(&"x".repeat(65)).is_err() && Type::custom("a b").is_err()
    );
}

#[test]
fn integers_that_do_not_fit_are_refused() {
    for (what, cell) in [
        (Type::int32(), super::Value::Int(1 << 31)),
        (Type::int32(), super::Value::Int(-(1 << 31) - 1)),
        (Type::int(), super::Value::Uint(1 << 63)),
        (Type::int64(), super::Value::Uint(u64::MAX)),
        (Type::uint(), super::Value::Int(-1)),
    ] {
        assert_eq!(what.encode(&[cell]), Err(Error::Overflow), "{what}");
    }
    assert_eq!(Type::uint().encode(&[super::Value::Int(7)]), Type::uint().encode(&[super::Value::Uint(7)]));
    assert_eq!(Type::int().encode(&[super::Value::Uint(7)]), Type::int().encode(&[super::Value::Int(7)]));
}

#[test]
fn cells_of_another_shape_are_refused() {
    use super::Value::{Bytes, Int, None, Some};
    let what = Type::parse("(int,string?)").expect("parses");
    for cells in [
        &[][..],
        &[Int(1)],
        &[Int(1), Some],
        &[Int(1), None, None],
        &[Int(1), Bytes(b"x")],
        &[Bytes(b"x"), None],
        &[Some, Int(1), None],
        &[Int(1), Some, Bytes(b"x"), Int(1)],
    ] {
        let found = what.encode(cells);
        assert!(
            matches!(&found, Err(Error::Type { recorded, .. }) if recorded == "(int,string?)"),
            "{found:?}"
        );
    }
    assert!(matches!(Type::int32_array().encode(&[Bytes(b"12345")]), Err(Error::Invalid { .. })));
}

#[test]
fn the_bytes_are_those_of_the_document() {
    use super::Value::{Bytes, Double, Int, None, Some};
    let bytes = |signature: &str, cells: &[super::Value<'_>]| {
        Type::parse(signature).expect("parses").encode(cells).expect("encodes")
    };
    assert_eq!(bytes("int", &[Int(-2)]), [0xfe, 255, 255, 255, 255, 255, 255, 255]);
    assert_eq!(bytes("int32", &[Int(-2)]), [0xfe, 255, 255, 255]);
    assert_eq!(bytes("string", &[Bytes(b"ab")]), b"ab");
    assert_eq!(bytes("string?", &[Some, Bytes(b"ab")]), b"\x01ab");
    assert_eq!(bytes("string?", &[None]), b"\0");
    assert_eq!(bytes("(int32,string)", &[Int(1), Bytes(b"ab")]), b"\x01\0\0\0ab");
    assert_eq!(bytes("(string,int32)", &[Bytes(b"ab"), Int(1)]), b"\x02\0\0\0\0\0\0\0ab\x01\0\0\0");
    assert_eq!(bytes("((int32,int32),int32)", &[Int(1), Int(2), Int(3)]).len(), 20);
    assert_eq!(bytes("double", &[Double(-f64::NAN)]), 0x7ff8_0000_0000_0000u64.to_le_bytes());
    assert_ne!(bytes("double", &[Double(0.0)]), bytes("double", &[Double(-0.0)]));
    let other_nan = 0x7ff8_0000_0000_0001u64.to_le_bytes();
    assert!(Type::double().decode(&other_nan).is_err() && f64::decode(&other_nan).is_err());
    let offset = |signature: &str, bytes: &[u8]| match Type::parse(signature).expect("parses").decode(bytes) {
        Err(Error::Corrupt { what: Damage::Encoding, offset }) => offset,
        other => panic!("{other:?}"),
    };
    assert_eq!(offset("int", b"1234567"), 7);
    assert_eq!(offset("int", b"123456789"), 8);
    assert_eq!(offset("(int32,string?)", b"\x01\0\0\0\x02"), 4);
    assert_eq!(offset("(int32,string?)", b"\x01\0\0\0\0x"), 5);
    assert_eq!(offset("(string,int32)", b"\xff\xff\xff\xff\xff\xff\xff\xffab\x01\0\0\0"), 0);
    assert_eq!(offset("(string,int32)", b"\x02\0\0\0\0\0\0\0ab\x01\0\0"), 13);
}

#[test]
fn only_equal_types_read_each_other_but_for_left_halves() {
    let reads = |a: &str, b: &str| Type::parse(a).expect("parses").reads(&Type::parse(b).expect("parses"));
    assert!(
        reads("(int,_)", "(int,string)")
            && reads("(int,_)", "(int,(int,int))")
            && reads("(int,_)", "(int,_)")
    );
    assert!(reads("((int,_),string)", "((int,int),string)") && reads("(int,_)?", "(int,string)?"));
    assert!(reads("(int,(int,_))", "(int,(int,string))"));
    for (a, b) in [
        ("int", "int64"),
        ("string", "bytes"),
        ("(int,_)", "(int32,string)"),
        ("(int,_)", "int"),
        ("(int,string)", "(int,_)"),
        ("int?", "int"),
        ("custom:a", "custom:b"),
    ] {
        assert!(!reads(a, b), "{a} {b}");
    }
}
