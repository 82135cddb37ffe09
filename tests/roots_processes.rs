//! Goal: processes that make, use and drop named tables at once never see half of one. Method: four of them with
//! few names, none waiting for another; the checker afterwards.

mod support;

use netshm::{Error, HashTable, ManageOptions, Object, OpenOptions};
use support::process::{Exit, fork};
use support::scratch::{Scratch, assert_object_sound};

fn manage(object: &Object, name: &str) -> HashTable {
    HashTable::manage(object, ManageOptions::new().root(name)).expect("manages")
}

fn names(object: &Object) -> Vec<String> {
    let mut all: Vec<_> =
        object.tables().expect("lists").into_iter().map(|info| info.name.unwrap_or_default()).collect();
    all.sort();
    all
}

/// Several processes make, drop and use tables of few names at once; each is one table for all.
fn processes_make_the_same_names() {
    const PROCESSES: u64 = 4;
    const ROUNDS: u64 = 60;
    let scratch = Scratch::file("roots");
    let body = |me: u64| {
        let object = OpenOptions::new().create(true).open(scratch.name()).expect("opens");
        let counter = manage(&object, "counter");
        for round in 0..ROUNDS {
            let name = format!("round {}", round % 7);
            let table = manage(&object, &name);
            match table.add(&me.to_le_bytes(), b"value") {
                Ok(()) | Err(Error::Stale) => {}
                Err(e) => panic!("{e}"),
            }
            if round % 3 == me % 3 {
                let outcome = object.drop_table(&name);
                assert!(matches!(outcome, Ok(()) | Err(Error::NotFound)), "{outcome:?}");
            }
            let listed = names(&object);
            assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "{listed:?}");
            assert!(listed.iter().any(|name| name == "counter"), "{listed:?}");
            manage(&object, "counter").increment(b"rounds", 1, 0).expect("counts");
            counter.increment(b"rounds", 1, 0).expect("counts");
        }
    };
    let body = &body;
    let children: Vec<_> = (0..PROCESSES).map(|me| fork(move || body(me))).collect();
    for mut child in children {
        assert_eq!(child.wait(), Exit::Code(0));
    }
    let object = OpenOptions::new().open(scratch.name()).expect("opens");
    let count = manage(&object, "counter").find(b"rounds").expect("finds").expect("is there");
    assert_eq!(count, (2 * PROCESSES * ROUNDS).to_le_bytes());
    let listed = object.tables().expect("listed").len() as u64;
    assert_eq!(assert_object_sound(&object).tables, listed);
}

fn main() {
    support::main(&[("processes_make_the_same_names", processes_make_the_same_names)]);
}
