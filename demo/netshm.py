"""netshm by ctypes: what the demo needs of it, declared from include/netshm.h alone.

The environment variable NETSHM_LIBRARY names the library.
"""

import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

OK, NOT_FOUND, CHANGED, CALLER = 0, -1, -4, -1000
POSIX, RDWR, CREAT, EXCL = 1, 2, 4, 8
ROLLBACK, COMMIT, CONTINUE = 0, 1, 1


class Options(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("flags", c_uint32), ("locking", c_uint32), ("page_size", c_uint32),
                ("lock_timeout_ms", ctypes.c_int32), ("init", c_uint64), ("max_bytes", c_uint64),
                ("root", c_char_p), ("hashing", c_uint32), ("reserved", c_uint32)]


class Details(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("code", c_int), ("sys_errno", c_int), ("argument", c_int), ("reserved", c_int),
                ("offset", c_int64), ("holder_pid", c_int64), ("text", ctypes.c_char * 232)]


class Slice(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("len", c_size_t)]

    def bytes(self):
        return ctypes.string_at(self.data, self.len)


GROUP_FN = CFUNCTYPE(c_int, c_void_p, c_void_p)
DAMAGE_FN = CFUNCTYPE(c_int, c_int, c_int64, c_char_p, c_void_p)
KEY = [c_void_p, c_char_p, c_size_t]  # a table and a key: how most parameter lists begin

lib = ctypes.CDLL(os.environ["NETSHM_LIBRARY"])
for name, parameters in {
    "open": [c_int, c_char_p, c_char_p, c_uint32, c_uint32, POINTER(c_void_p)],
    "unlink": [c_int, c_char_p, c_char_p],
    "fd": [c_void_p, POINTER(c_int)],
    "close": [c_void_p],
    "check": [c_void_p, c_uint32, DAMAGE_FN, c_void_p],
    "last_error": [POINTER(Details)],
    "hashtbl_manage": [c_void_p, c_void_p, c_void_p, POINTER(Options), POINTER(c_void_p)],
    "hashtbl_close": [c_void_p],
    "hashtbl_replace": KEY + [c_char_p, c_size_t],
    "hashtbl_remove": KEY + [POINTER(c_int)],
    "hashtbl_find": KEY + [c_char_p, c_size_t, POINTER(c_size_t)],
    "hashtbl_mem": KEY + [POINTER(c_int)],
    "hashtbl_incr": KEY + [c_int64, c_int64, POINTER(c_int64)],
    "hashtbl_cas": KEY + [c_char_p, c_size_t, c_char_p, c_size_t],
    "group_retry": [c_void_p, c_int64, GROUP_FN, c_void_p],
    "cursor_open": [c_void_p, c_uint32, POINTER(c_void_p)],
    "cursor_next": [c_void_p, POINTER(Slice), POINTER(Slice)],
    "cursor_close": [c_void_p],
}.items():
    getattr(lib, "netshm_" + name).argtypes = parameters
lib.netshm_strerror.restype = c_char_p
lib.netshm_hashtbl_table.restype = c_void_p
lib.netshm_hashtbl_table.argtypes = [c_void_p]


class Error(Exception):
    """A call failed."""

    def __init__(self, code):
        details = Details(size=ctypes.sizeof(Details))
        lib.netshm_last_error(byref(details))
        text = details.text if details.code == code else lib.netshm_strerror(code)
        super().__init__(text.decode())
        self.code = code


def must(code):
    """Lets the everyday answers pass, and makes an exception of the others."""
    if code not in (OK, NOT_FOUND, CHANGED):
        raise Error(code)
    return code


class Table:
    """A hash table in an object. Keys and values are bytes."""

    def __init__(self, file_name, mem_name, create=False):
        self.names = POSIX, os.fsencode(file_name), os.fsencode(mem_name)
        self.object, self.table = c_void_p(), c_void_p()
        flags = RDWR | CREAT | EXCL if create else RDWR
        found = lib.netshm_open(*self.names, flags, 0o600, byref(self.object))
        if found != OK:
            raise Error(found)
        must(lib.netshm_hashtbl_manage(self.object, None, None, None, byref(self.table)))
        self.core = lib.netshm_hashtbl_table(self.table)
        self.buffer, self.length = ctypes.create_string_buffer(256), c_size_t()

    def close(self):
        must(lib.netshm_hashtbl_close(self.table))
        must(lib.netshm_close(self.object))

    def unlink(self):
        must(lib.netshm_unlink(*self.names))

    def size(self):
        """Bytes of memory that the object has."""
        fd = c_int()
        must(lib.netshm_fd(self.object, byref(fd)))
        return os.fstat(fd.value).st_blocks * 512

    def find(self, key):
        """The value, which is short in this demo, or None."""
        if must(lib.netshm_hashtbl_find(self.table, key, len(key), self.buffer, 256, byref(self.length))):
            return None
        return self.buffer.raw[:self.length.value]

    def number(self, key):
        """The integer that incr() counts; 0 if there is none."""
        return int.from_bytes(self.find(key) or b"", "little", signed=True)

    def contains(self, key):
        found = c_int()
        must(lib.netshm_hashtbl_mem(self.table, key, len(key), byref(found)))
        return bool(found.value)

    def replace(self, key, value):
        must(lib.netshm_hashtbl_replace(self.table, key, len(key), value, len(value)))

    def remove(self, key):
        """Tells whether there was a binding."""
        was_there = c_int()
        must(lib.netshm_hashtbl_remove(self.table, key, len(key), byref(was_there)))
        return bool(was_there.value)

    def incr(self, key, delta):
        must(lib.netshm_hashtbl_incr(self.table, key, len(key), delta, 0, None))

    def compare_and_replace(self, key, old, new):
        """Tells whether the value was the old one, and is the new one now."""
        return must(lib.netshm_hashtbl_cas(self.table, key, len(key), old, len(old), new, len(new))) == OK

    def group(self, body):
        """Runs body() as a transaction, again if it has to give way. All is undone if it raises an exception."""
        failure = None

        def run(_txn, _arg):
            nonlocal failure
            try:
                failure = None
                body()
                return COMMIT
            except BaseException as e:  # none may leave through C
                failure = e
                return CALLER

        code = lib.netshm_group_retry(self.core, -1, GROUP_FN(run), None)
        if failure:
            raise failure
        must(code)

    def items(self):
        """All bindings."""
        cursor, key, value = c_void_p(), Slice(), Slice()
        must(lib.netshm_cursor_open(self.table, 0, byref(cursor)))
        try:
            while must(lib.netshm_cursor_next(cursor, byref(key), byref(value))) == OK:
                yield key.bytes(), value.bytes()
        finally:
            lib.netshm_cursor_close(cursor)

    def check(self):
        """All damages that the checker finds, as texts."""
        damages = []

        def hear(what, offset, text, _arg):
            damages.append(f"damage {what} at {offset}: {text.decode()}")
            return CONTINUE

        code = lib.netshm_check(self.object, 0, DAMAGE_FN(hear), None)
        if code != OK and not damages:
            raise Error(code)
        return damages
