"""Reads include/netshm.h for ctypes: all of its types, numbers and functions, without declaring one by hand.

NETSHM_LIBRARY names the library, NETSHM_HEADER the header, CC the C preprocessor. What the reader does not understand
is an error, so that the header stays within what bindings can read.
"""

import ctypes
import os
import re
import subprocess

PLAIN = {
    "void": None, "char": ctypes.c_char, "int": ctypes.c_int, "long": ctypes.c_long, "double": ctypes.c_double,
    "float": ctypes.c_float, "size_t": ctypes.c_size_t, "unsigned int": ctypes.c_uint, "int8_t": ctypes.c_int8,
    "uint8_t": ctypes.c_uint8, "int16_t": ctypes.c_int16, "uint16_t": ctypes.c_uint16, "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
}


def preprocess(*options):
    """The header after the preprocessor, without what it includes."""
    with open(os.environ["NETSHM_HEADER"], encoding="utf-8") as f:
        text = re.sub(r"#include[^\n]*", "", f.read())
    command = [*os.environ.get("CC", "cc").split(), "-E", *options, "-DNULL=0", "-x", "c", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def closing(text, at):
    """The place of the brace that closes the one at a place."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError("braces without end")


def without_inlines(text):
    """Inline functions are C's alone."""
    while found := re.search(r"static\s+inline\b", text):
        end = closing(text, text.index("{", found.start()))
        text = text[:found.start()] + text[end + 1:]
    return text


def statements(text):
    """Splits at semicolons outside of braces."""
    start = depth = 0
    for i, c in enumerate(text):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == ";" and depth == 0:
            yield " ".join(text[start:i].split())
            start = i + 1


class Header:
    """The library, with its types as attributes of `types` and its numbers as attributes of this."""

    def __init__(self):
        self.lib = ctypes.CDLL(os.environ["NETSHM_LIBRARY"])
        self.types = {}
        self.functions = []
        self.raised = None
        for name, number in re.findall(r"#define NETSHM_(\w+) \(?(-?\d+)U?L?L?\)?\s*\n", preprocess("-dM")):
            setattr(self, name, int(number))
        for statement in statements(without_inlines(preprocess("-P"))):
            self.read(statement)

    def read(self, statement):
        if found := re.fullmatch(r"typedef struct (\w+) \1", statement):
            self.types[found[1]] = None
        elif found := re.fullmatch(r"typedef (struct|union) (\w+) (\{.*\}) (\w+)", statement):
            kind = ctypes.Union if found[1] == "union" else ctypes.Structure
            self.types[found[4]] = self.structure(kind, found[4], found[3])
        elif found := re.fullmatch(r"typedef (.+?)\(\*(\w+)\)\s*\((.*)\)", statement):
            self.types[found[2]] = ctypes.CFUNCTYPE(self.type_of(found[1]), *self.parameters(found[3]))
        elif found := re.fullmatch(r"([^()=]+?)\b(netshm_\w+)\s*\((.*)\)", statement):
            function = getattr(self.lib, found[2])
            function.restype, function.argtypes = self.type_of(found[1]), self.parameters(found[3])
            setattr(self, found[2][len("netshm_"):], function)
            self.functions.append(found[2])
        elif statement:
            raise ValueError(f"cannot read: {statement}")

    def structure(self, kind, name, braces):
        fields = []
        for field in statements(braces[1:-1]):
            if found := re.fullmatch(r"(union|struct)(?: \w+)? (\{.*\}) (\w+)", field):
                inner = ctypes.Union if found[1] == "union" else ctypes.Structure
                fields.append((found[3], self.structure(inner, f"{name}_{found[3]}", found[2])))
            elif found := re.fullmatch(r"(.+?)\(\*(\w+)\)\s*\((.*)\)", field):
                fields.append((found[2], ctypes.CFUNCTYPE(self.type_of(found[1]), *self.parameters(found[3]))))
            elif field:
                found = re.fullmatch(r"(.*?)(\w+)(?:\[(\d+)\])?", field)
                c_type = self.type_of(found[1])
                fields.append((found[2], c_type * int(found[3]) if found[3] else c_type))
        return type(name, (kind,), {"_fields_": fields})

    def callback(self, name, function):
        """A callback of this type. An exception in it is kept in `raised`, and C gets the answer NETSHM_E_CALLER.

        It must not reach ctypes: what C gets then is whatever lies on the stack, with CPython 3.13 for instance a 1,
        which means "commit".
        """
        def guarded(*arguments):
            try:
                return function(*arguments)
            except BaseException as e:
                self.raised = e
                return self.E_CALLER

        return self.types[name](guarded)

    def parameters(self, text):
        if text.strip() in ("", "void"):
            return []
        # The last word of a parameter is its name.
        return [self.type_of(re.fullmatch(r"(.*?)(\w+)\s*", parameter)[1]) for parameter in text.split(",")]

    def type_of(self, text):
        stars = text.count("*")
        name = re.sub(r"\b(const|struct|union|extern)\b|\*", " ", text)
        name = " ".join(name.split())
        if name not in PLAIN and name not in self.types:
            raise ValueError(f"unknown type: {text}")
        c_type = PLAIN[name] if name in PLAIN else self.types[name]
        if stars and c_type is None:
            c_type, stars = ctypes.c_void_p, stars - 1
        elif stars == 1 and name == "char" and "const" in text:
            c_type, stars = ctypes.c_char_p, 0
        elif stars == 2 and name == "char" and "const" not in text:
            # Text that the caller has to free: its address must stay known.
            c_type, stars = ctypes.c_void_p, 1
        for _ in range(stars):
            c_type = ctypes.POINTER(c_type)
        return c_type
