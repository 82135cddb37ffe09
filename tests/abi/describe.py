"""Describes functions, and the structures of the header that they touch, from debug information, in words that do not
depend on the language: of the library as Rust compiled it, or of the header as C compiled it.

usage, inside of gdb: gdb -batch -ex 'python ABI = ("Rust" or "C", "HEADER", "SYMBOLS")' -x describe.py BINARY
"""
import re

import gdb

LANGUAGE, HEADER, SYMBOLS = ABI  # noqa: F821, by -ex
# The structures whose content the header shows. Of the others only the names are compared.
OPEN = set(re.findall(r"^typedef (?:struct|union) (\w+) \{", open(HEADER).read(), re.MULTILINE))
VOID = ("void", "core::ffi::c_void")
structures = {}


def plain(t):
    """Without typedefs, and without the Option around a function pointer, which is NULL where it is None."""
    t = t.strip_typedefs().unqualified()
    if t.code == gdb.TYPE_CODE_STRUCT and (t.name or "").startswith("core::option::Option<"):
        some = [f.type for f in t.fields() if f.name == "Some"]
        return plain(some[0].fields()[0].type)
    return t


def bare(name):
    """The last part of a path: as C knows it."""
    return re.sub(r"^(struct|union|enum) ", "", name).split("::")[-1]


def words(t):
    """One type in words. Notes the structures it meets."""
    t = plain(t)
    if t.code == gdb.TYPE_CODE_VOID or t.name in VOID:
        return "void"
    if t.code == gdb.TYPE_CODE_PTR:
        return words(t.target()) + " *"
    if t.code == gdb.TYPE_CODE_FUNC:
        return function(t)
    if t.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        name = bare(t.name or t.tag)
        if name in OPEN and name not in structures:
            structures[name] = None
            structures[name] = structure(t)
        return name
    if t.code == gdb.TYPE_CODE_ARRAY:
        low, high = t.range()
        return "%s [%d]" % (words(t.target()), high - low + 1)
    if t.code == gdb.TYPE_CODE_BOOL:
        return "bool"
    if t.code == gdb.TYPE_CODE_FLT:
        return "float %d" % (8 * t.sizeof)
    if t.code in (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_CHAR):
        return "%s %d" % ("signed" if t.is_signed else "unsigned", 8 * t.sizeof)
    raise gdb.GdbError("%s has a type that no C function should have" % t)


def function(t):
    variable = ["..."] if t.code == gdb.TYPE_CODE_FUNC and getattr(t, "varargs", False) else []
    return "%s (%s)" % (words(t.target()), ", ".join([words(f.type) for f in t.fields()] + variable))


def structure(t):
    kind = "union" if t.code == gdb.TYPE_CODE_UNION else "struct"
    lines = ["%s, %d bytes, aligned to %d" % (kind, t.sizeof, t.alignof)]
    for f in sorted(t.fields(), key=lambda f: (f.bitpos, f.name)):
        lines.append("    at %d: %s, %s" % (f.bitpos // 8, f.name, words(f.type)))
    return "\n".join(lines)


def main():
    # Else gdb takes the names for Rust's, which have a path before them.
    gdb.execute("set language c")
    for symbol in open(SYMBOLS).read().split():
        expression = "&" + symbol if LANGUAGE == "Rust" else "abi_" + symbol
        print("%s: %s" % (symbol, function(gdb.parse_and_eval(expression).type.target())))
    for name in sorted(structures):
        print("%s: %s" % (name, structures[name]))
    missing = OPEN - set(structures)
    if missing:
        raise gdb.GdbError("not met in any function: " + ", ".join(sorted(missing)))


main()
