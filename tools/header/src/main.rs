//! Writes the C header: `netshm-header ROOT OUTPUT`.
//!
//! The header tells its story in sections, one for each noun of src/ffi, in the order of [`SECTIONS`]. cbindgen
//! makes each section; this program puts them together and fills in the version.

use std::path::Path;
use std::{env, fs, process};

/// File of src/ffi, heading, text that follows its declarations. Without a heading, the section above goes on.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("error", "Errors, versions, memory", ""),
    ("object", "Objects", ""),
    ("options", "Options", OPTIONS_INIT),
    ("roots", "The tables of an object", ""),
    ("hashtbl", "Hash tables", ""),
    ("hashtbl/changes", "", ""),
    ("hashtbl/finds", "", ""),
    ("many", "Several keys in one call", ""),
    ("update", "One binding by callback", ""),
    ("cursor", "Walking over a table", ""),
    ("value", "Typed values", VALUES),
    ("types", "Types", ""),
    ("result", "Results", ""),
    ("typed", "Typed hash tables", ""),
    ("typed_walk", "Walking over a typed table", ""),
    ("typed_update", "One typed binding by callback", ""),
    ("array", "Arrays", ""),
    ("array_typed", "Arrays of any type", ""),
    ("primitive", "Primitive tables", ""),
    ("group", "Groups", ""),
    ("watch", "Waiting for change", ""),
    ("check", "Checking", ""),
    ("rescue", "Backup and salvage", ""),
    ("pmanage", "Finding and deleting what is left", ""),
];

const OPTIONS_INIT: &str = "
/**
 * Initial value of a #netshm_options: all defaults.
 */
#define NETSHM_OPTIONS_INIT { sizeof(netshm_options), 0, 0, 0, 0, 0, 0, NULL, 0, 0 }
";

const VALUES: &str = r#"
/*
 * Makers of cells, for `netshm_value v[] = { netshm_int(5), netshm_str("x") };`. With NETSHM_NO_INLINE defined the
 * header has declarations only, for other languages' readers of headers.
 */
#ifndef NETSHM_NO_INLINE

/** An integer, for int, int32, int64, nativeint. */
static inline netshm_value netshm_int(int64_t i)
{
    netshm_value v;
    v.kind = NETSHM_V_INT;
    v.reserved = 0;
    v.as.i = i;
    return v;
}

/** An unsigned integer, for uint. */
static inline netshm_value netshm_uint(uint64_t u)
{
    netshm_value v;
    v.kind = NETSHM_V_UINT;
    v.reserved = 0;
    v.as.u = u;
    return v;
}

/** A double. */
static inline netshm_value netshm_double(double d)
{
    netshm_value v;
    v.kind = NETSHM_V_DOUBLE;
    v.reserved = 0;
    v.as.d = d;
    return v;
}

/** Bytes, for string, bytes, int32[]. They are not copied until a call gets the cell. */
static inline netshm_value netshm_bytes(const void *data, size_t len)
{
    netshm_value v;
    v.kind = NETSHM_V_BYTES;
    v.reserved = 0;
    v.as.s.data = data;
    v.as.s.len = len;
    return v;
}

/** The bytes of a C string, without the zero at its end. */
static inline netshm_value netshm_str(const char *text)
{
    size_t len = 0;
    while (text[len] != 0) len++;
    return netshm_bytes(text, len);
}

/** An option with a content, whose cells follow. */
static inline netshm_value netshm_some(void)
{
    netshm_value v;
    v.kind = NETSHM_V_SOME;
    v.reserved = 0;
    v.as.u = 0;
    return v;
}

/** An option without content. */
static inline netshm_value netshm_none(void)
{
    netshm_value v;
    v.kind = NETSHM_V_NONE;
    v.reserved = 0;
    v.as.u = 0;
    return v;
}

/** An object of a custom type. */
static inline netshm_value netshm_custom_object(void *object)
{
    netshm_value v;
    v.kind = NETSHM_V_CUSTOM;
    v.reserved = 0;
    v.as.object = object;
    return v;
}
#endif /* NETSHM_NO_INLINE */

/** An array of cells and their number, as two arguments of a call. */
#define NETSHM_CELLS(array) (array), sizeof(array) / sizeof((array)[0])
"#;

const WARNING: &str = "/* Generated from src/ffi by `make header`: do not edit. `make check-header` compares. */";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, root, output] = &arguments[..] else {
        eprintln!("usage: netshm-header ROOT OUTPUT");
        process::exit(2);
    };
    let root = Path::new(root);
    let header = assemble(root);
    fs::write(output, header).unwrap_or_else(|e| panic!("{output}: {e}"));
}

fn assemble(root: &Path) -> String {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let take = |text: &mut Option<String>| fill_in(root, text.take().unwrap_or_default().trim());
    let (top, versions) = (take(&mut config.header), take(&mut config.after_includes));
    let mut header = format!(
        "{WARNING}\n\n{top}\n\n#ifndef NETSHM_H\n#define NETSHM_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n\
         {versions}\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n"
    );
    for (file, heading, more) in SECTIONS {
        if !heading.is_empty() {
            let rule = "-".repeat(100 - heading.len());
            header += &format!("\n/* ---- {heading} {rule} */\n");
        }
        header += "\n";
        header += &section(&config, &root.join(format!("src/ffi/{file}.rs")));
        header += more;
    }
    header += "\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* NETSHM_H */\n";
    header
}

fn section(config: &cbindgen::Config, file: &Path) -> String {
    let bindings = cbindgen::Builder::new()
        .with_config(config.clone())
        .with_src(file)
        .generate()
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut text = Vec::new();
    bindings.write(&mut text);
    compact(String::from_utf8(text).expect("UTF-8").trim_start())
}

/// Lists of numbers are read in one go: short comments in one line, no empty lines between, and negative numbers
/// in parentheses. Types are called by their short names.
fn compact(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = text.lines().peekable();
    let is_define = |line: &str| line.starts_with("#define ");
    while let Some(line) = rest.next() {
        let mut line = line.to_owned();
        if let Some((head, number)) = line.rsplit_once(" -").filter(|_| is_define(&line)) {
            line = format!("{head} (-{number})");
        }
        if !line.starts_with("typedef struct") && !line.trim_start().starts_with('*') {
            line = line.replace("struct netshm_", "netshm_");
        }
        if line.trim_start() == "*/" && lines.len() >= 2 && lines[lines.len() - 2].trim_start() == "/**" {
            let content = lines.pop().unwrap_or_default();
            let begin = lines.pop().unwrap_or_default();
            line = format!("{begin} {} */", content.trim_start().trim_start_matches("* "));
            let follows = rest.peek().is_some_and(|next| is_define(next));
            let is_list = lines.len() >= 2 && lines[lines.len() - 1].is_empty() && is_define(&lines[lines.len() - 2]);
            if follows && is_list {
                lines.pop();
            }
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// Puts the version in the crate's Cargo.toml where the text asks for it.
fn fill_in(root: &Path, text: &str) -> String {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("version = ")).expect("a version");
    let version = line.split('"').nth(1).expect("a version");
    let parts: Vec<&str> = version.split('.').collect();
    let [major, minor, patch] = parts[..] else { panic!("{version}: not three numbers") };
    text.replace("@VERSION@", version)
        .replace("@MAJOR@", major)
        .replace("@MINOR@", minor)
        .replace("@PATCH@", patch)
}
