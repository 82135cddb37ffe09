//! Goal: the floors of the library stay floors: a module imports from its own room and from below only.
//!
//! Method: every `crate::` and `super::` path of every file under src/ is read from the text, without comments,
//! strings and test modules, and looked up in the list of floors.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Floor of each room. Rooms of one floor do not know each other, except for `NEIGHBOURS`.
const FLOORS: &[(&str, u32)] = &[
    ("error", 0),
    ("format", 0),
    ("os", 0),
    ("segment", 1),
    ("lock", 2),
    ("life", 3),
    ("log", 3),
    ("recovery", 3),
    ("writer", 3),
    ("alloc", 4),
    ("index", 4),
    ("settle", 5),
    ("txn", 5),
    ("group", 6),
    ("engine", 6),
    ("types", 6),
    ("object", 7),
    ("table", 7),
    ("hashtbl", 7),
    ("array", 7),
    ("cursor", 7),
    ("primitive", 7),
    ("dump", 7),
    ("backup", 7),
    ("salvage", 8),
    ("pmanage", 6),
    ("typed", 7),
    ("typed_array", 7),
    // The checker shares nothing with what it judges but the names of damages.
    ("check", 7),
    ("ffi", 9),
    // What lib.rs gives to users; nobody inside imports through it.
    ("Error", 0),
    ("Result", 0),
    ("Damage", 0),
];

/// Rooms that may know each other although they lie on one floor: (who, whom).
const NEIGHBOURS: &[(&str, &str)] = &[
    ("error", "format"),
    ("format", "error"),
    ("os", "error"),
    ("recovery", "log"),
    ("writer", "life"),
    ("writer", "log"),
    ("writer", "recovery"),
    ("engine", "group"),
    ("group", "engine"),
    ("object", "hashtbl"),
    ("hashtbl", "object"),
    ("hashtbl", "table"),
    ("hashtbl", "cursor"),
    ("cursor", "hashtbl"),
    ("array", "cursor"),
    ("array", "hashtbl"),
    ("array", "object"),
    ("array", "table"),
    ("typed", "hashtbl"),
    ("typed", "object"),
    ("typed", "table"),
    ("typed", "cursor"),
    ("typed_array", "array"),
    ("typed_array", "object"),
    ("typed_array", "table"),
    ("cursor", "object"),
    ("object", "cursor"),
    ("object", "backup"),
    ("object", "check"),
    ("object", "table"),
    ("primitive", "hashtbl"),
    ("primitive", "object"),
    ("primitive", "table"),
    ("primitive", "cursor"),
    ("dump", "table"),
];

/// Single imports upwards, each with its reason: (file, room, reason).
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("engine/mod.rs", "check", "the engine runs the checker, because it alone can keep all others out")];

/// Crates that only the rooms next to the system may name, and the paths of theirs that others may.
const SYSTEM_CRATES: [&str; 3] = ["libc", "nix", "memmap2"];

struct Source {
    /// Path below src/.
    file: String,
    room: String,
    text: String,
}

/// All files under src/ but tests and lib.rs, their text without comments, literals and test modules.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("src is readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut sources = Vec::new();
    for path in files {
        let below = path.strip_prefix(&root).expect("lies under src");
        let file = below.to_str().expect("is UTF-8").to_owned();
        let name = below.file_name().and_then(|n| n.to_str()).expect("has a name");
        if file == "lib.rs" || name.starts_with("test") {
            continue;
        }
        let first = below.components().next().expect("has a component").as_os_str();
        let room = first.to_str().expect("is UTF-8").trim_end_matches(".rs").to_owned();
        let text = without_tests(&without_noise(&std::fs::read_to_string(&path).expect("reads")));
        sources.push(Source { file, room, text });
    }
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    sources
}

/// Blanks comments and literals. Lengths and lines stay.
fn without_noise(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        for b in &mut out[from..to] {
            if *b != b'\n' {
                *b = b' ';
            }
        }
    };
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let end = if rest.starts_with(b"//") {
            i + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            i + rest.windows(2).position(|w| w == b"*/").map_or(rest.len(), |n| n + 2)
        } else if rest[0] == b'"' {
            let mut n = 1;
            while n < rest.len() && rest[n] != b'"' {
                n += if rest[n] == b'\\' { 2 } else { 1 };
            }
            i + (n + 1).min(rest.len())
        } else if rest.len() > 2 && rest[0] == b'\'' && (rest[2] == b'\'' || rest[1] == b'\\') {
            i + 2 + rest[2..].iter().position(|b| *b == b'\'').map_or(0, |n| n + 1)
        } else {
            i += 1;
            continue;
        };
        blank(i, end);
        i = end;
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// Cuts out what follows `#[cfg(test)]`, up to the end of its braces or its semicolon.
fn without_tests(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut depth = 0;
        let mut end = rest.len();
        for (i, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = i + 1;
                break;
            }
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// The names that follow `prefix::` in a text, a group in braces taken apart. Whole words only.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let pattern = format!("{prefix}::");
    for (at, _) in text.match_indices(&pattern) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + pattern.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && c == ',' {
                    names.insert(first_word(&name));
                    name.clear();
                } else if depth == 0 || name.is_empty() {
                    name.push(c);
                }
            }
            names.insert(first_word(&name));
        } else {
            names.insert(first_word(rest));
        }
    }
    names.remove("");
    names
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// May a file of `room` import from `other`?
fn allowed(room: &str, other: &str) -> bool {
    let (Some(here), Some(there)) = (floor(room), floor(other)) else { return false };
    if room == "check" {
        return other == "check" || other == "error";
    }
    room == other || there < here || NEIGHBOURS.contains(&(room, other))
}

#[test]
fn imports_go_downwards() {
    let mut violations = String::new();
    let mut used = BTreeSet::new();
    let mut imports = 0;
    for source in sources() {
        let mut others = names_after(&source.text, "crate");
        // A file right under src/ names its siblings by `super`, and so does a module of it that is written
        // within the file; both would be strange here.
        if !source.file.contains('/') {
            others.extend(names_after(&source.text, "super").into_iter().filter(|n| floor(n).is_some()));
        }
        others.extend(names_after(&source.text, "super::super").into_iter().filter(|n| floor(n).is_some()));
        for other in others {
            imports += 1;
            if other == "inject" || allowed(&source.room, &other) {
                continue;
            }
            let exception =
                EXCEPTIONS.iter().position(|(file, room, _)| *file == source.file && *room == other);
            if let Some(n) = exception {
                used.insert(n);
            } else {
                let _ = writeln!(violations, "  {} imports crate::{other}", source.file);
            }
        }
    }
    assert!(imports > 150, "only {imports} imports were found");
    assert_eq!(violations, "", "imports against the floors:\n{violations}");
    assert_eq!(used.len(), EXCEPTIONS.len(), "an exception is no longer needed");
}

#[test]
fn the_system_is_met_at_the_bottom_and_at_the_top_only() {
    let mut violations = String::new();
    for source in sources() {
        for name in SYSTEM_CRATES {
            for item in names_after(&source.text, name) {
                let number = item.starts_with('E')
                    && item.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
                let fine = matches!(source.room.as_str(), "os" | "ffi") || (source.room == "error" && number);
                if !fine {
                    let _ = writeln!(violations, "  {} uses {name}::{item}", source.file);
                }
            }
        }
    }
    assert_eq!(violations, "", "system calls in the wrong rooms:\n{violations}");
}

#[test]
fn the_parser_sees_what_it_should() {
    let text = "use crate::a::{b, c};\nuse crate::{d, e::{f, g}, h as i};\nlet x = crate::j(not_crate::k);\n";
    let found: Vec<String> = names_after(text, "crate").into_iter().collect();
    assert_eq!(found, ["a", "d", "e", "h", "j"]);
    let noisy = "x // crate::a\n\"crate::b \\\" crate::c\" '\"' crate::d /* crate::e */ 'a crate::f";
    let found: Vec<String> = names_after(&without_noise(noisy), "crate").into_iter().collect();
    assert_eq!(found, ["d", "f"]);
    let tests = "crate::a; #[cfg(test)]\nmod tests { fn x() { crate::b() } } crate::c #[cfg(test)] use crate::d; crate::e";
    let found: Vec<String> = names_after(&without_tests(tests), "crate").into_iter().collect();
    assert_eq!(found, ["a", "c", "e"]);
}

/// The same broken on purpose: what would be found if somebody imported upwards.
#[test]
fn breaks_would_be_found() {
    assert!(allowed("txn", "alloc") && allowed("alloc", "writer") && allowed("engine", "txn"));
    assert!(allowed("group", "engine") && allowed("engine", "group"));
    for (room, other) in [
        ("alloc", "index"),
        ("index", "alloc"),
        ("txn", "engine"),
        ("txn", "group"),
        ("engine", "object"),
        ("os", "segment"),
        ("format", "os"),
        ("os", "format"),
        ("check", "format"),
        ("segment", "lock"),
        ("hashtbl", "ffi"),
        ("lock", "unknown"),
    ] {
        assert!(!allowed(room, other), "{room} -> {other}");
    }
}
