//! The format layer's texts and encodings, fed with any bytes: signatures of types, values of types, lists of persistent
//! objects, and the checker over a piece of memory. The fuzzer (`fuzz/`) and `tests/hostile_bytes.rs` share it.

use netshm::check::{Bytes, Options};
use netshm::{Pmanage, Type};
use std::path::Path;

const SIGNATURES: [&str; 9] = [
    "string",
    "int32[]",
    "(int,string?)",
    "((int32,double),(string,uint))?",
    "(string,(string,string))",
    "((int32[],bytes)?,int)",
    "nativeint??",
    "(custom:name,int64)",
    "(double?,_)",
];

/// Feeds some bytes to what the first one says.
pub fn run(list: &Path, bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 4 {
        0 => signature(bytes),
        1 => value(bytes),
        2 => persistent(list, bytes),
        _ => checked(bytes),
    }
}

/// A signature that is understood is its type's own; what is not is refused at a place inside of it.
fn signature(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Type::parse(text) {
        Ok(of) => {
            assert_eq!(of.signature(), text);
            assert!(of.reads(&of));
        }
        Err(netshm::Error::Signature { position, .. }) => {
            assert!(position <= text.len(), "{position}");
            // A beginning of some signature cannot be refused anywhere but at its end.
            if let Some(beginning) = text.get(..position) {
                if let Err(netshm::Error::Signature { position: at, .. }) = Type::parse(beginning) {
                    assert_eq!(at, position);
                }
            }
        }
        Err(_) => {}
    }
}

/// What decodes is encoded to the same bytes, unless a half of it is left out.
fn value(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let of = Type::parse(SIGNATURES[usize::from(*which) % SIGNATURES.len()]).expect("a type");
    match of.decode(bytes) {
        Ok(cells) if !of.is_for_reading_only() && !of.signature().contains("custom") => {
            assert_eq!(of.encode(&cells).as_deref(), Ok(bytes), "{}", of.signature());
        }
        Ok(_) => {}
        Err(netshm::Error::Corrupt { offset, .. }) => assert!(offset <= bytes.len() as u64),
        Err(e) => panic!("{e}"),
    }
}

/// A list is read, added to, read again. Nothing that it names is unlinked.
fn persistent(list: &Path, bytes: &[u8]) {
    std::fs::write(list, bytes).expect("writes");
    let file = Pmanage::open(list).expect("opens");
    let before = file.registered();
    let new = netshm::PmObject::new(netshm::PmKind::File, "/netshm/hostile \"\\ \n");
    if file.register(&new).is_ok() {
        let after = file.registered().expect("a list that can be added to can be read");
        assert!(after.contains(&new), "{after:?}");
        if let Ok(before) = before {
            assert!(before.iter().all(|object| after.contains(object)));
        }
        file.unregister(&new).expect("unregisters");
        assert!(!file.registered().expect("reads").contains(&new));
    }
}

/// A piece of memory is judged: pages that differ from nothing come from the bytes.
fn checked(bytes: &[u8]) {
    let mut left = 10_000;
    let options = Options { own_slot: 0, after_crash: bytes.len() % 2 == 0 };
    netshm::check::check(&Bytes(bytes), &options, &mut |_| {
        left -= 1;
        left > 0
    });
}
