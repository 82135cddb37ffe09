"""Goal: the library can be used from Python's ctypes straight from the header.

Method: header.py reads include/netshm.h; the tests use byte tables, stacks, groups, cursors, primitive tables and errors
through what it has read. An exception in a callback is turned into a negative answer by header.py: it has to undo
everything, and to come out again where the call was made.
"""

import ctypes
import os
import threading
import unittest
from ctypes import byref, c_int, c_int64, c_size_t, c_uint64, c_void_p

from header import Header

n = Header()


class Failed(Exception):
    pass


def must(code):
    if code == n.E_CALLER and n.raised:
        raised, n.raised = n.raised, None
        raise raised
    if code != n.OK:
        details = n.types["netshm_error"](size=ctypes.sizeof(n.types["netshm_error"]))
        n.last_error(byref(details))
        raise Failed(code, details.text if details.code == code else n.strerror(code))


class Case(unittest.TestCase):
    def setUp(self):
        own = f"netshm-py-{os.getpid()}-{id(self)}"
        self.names = n.POSIX, f"/tmp/{own}".encode(), f"/{own}".encode()
        self.object = c_void_p()
        must(n.open(*self.names, n.RDWR | n.CREAT | n.EXCL, 0o600, byref(self.object)))
        self.addCleanup(lambda: must(n.unlink(*self.names)))

    def tearDown(self):
        damages = []
        hear = n.callback("netshm_damage_fn", lambda what, at, text, _arg: damages.append(text) or n.CONTINUE)
        self.assertEqual(n.check(self.object, 0, hear, None), n.OK, damages)
        must(n.close(self.object))


class Bytes(Case):
    def setUp(self):
        super().setUp()
        self.table = c_void_p()
        must(n.hashtbl_manage(self.object, None, None, None, byref(self.table)))

    def tearDown(self):
        must(n.hashtbl_close(self.table))
        super().tearDown()

    def put(self, key, value):
        must(n.hashtbl_replace(self.table, key, len(key), value, len(value)))

    def get(self, key):
        value, length = c_void_p(), c_size_t()
        code = n.hashtbl_get(self.table, key, len(key), byref(value), byref(length))
        if code == n.E_NOT_FOUND:
            return None
        must(code)
        copy = ctypes.string_at(value, length.value)
        n.free(value)
        return copy

    def test_bytes_and_stacks(self):
        key = b"key\0with zero"
        for value in (b"old", b"", b"new\0er", bytes(100_000)):
            must(n.hashtbl_add(self.table, key, len(key), value, len(value)))
        values, count = ctypes.POINTER(n.types["netshm_slice"])(), c_size_t()
        must(n.hashtbl_find_all(self.table, key, len(key), byref(values), byref(count)))
        stack = [ctypes.string_at(values[i].data, values[i].len) for i in range(count.value)]
        n.free(values)
        self.assertEqual(stack, [bytes(100_000), b"new\0er", b"", b"old"])
        there = c_int()
        must(n.hashtbl_remove(self.table, key, len(key), byref(there)))
        self.assertEqual((there.value, self.get(key)), (1, b"new\0er"))
        self.assertIsNone(self.get(b"none"))
        now = c_int64()
        must(n.hashtbl_incr(self.table, b"n", 1, -(2**62), 0, byref(now)))
        self.assertEqual(now.value, -(2**62))

    def test_cursor_and_callback_see_the_same(self):
        should = {b"%d" % i: b"value %d" % i for i in range(500)}
        for key, value in should.items():
            self.put(key, value)
        length = c_uint64()
        must(n.hashtbl_length(self.table, byref(length)))
        self.assertEqual(length.value, 500)
        cursor, key, value = c_void_p(), n.types["netshm_slice"](), n.types["netshm_slice"]()
        must(n.cursor_open(self.table, 0, byref(cursor)))
        seen = {}
        while (code := n.cursor_next(cursor, byref(key), byref(value))) == n.OK:
            seen[ctypes.string_at(key.data, key.len)] = ctypes.string_at(value.data, value.len)
        self.assertEqual(code, n.E_NOT_FOUND)
        must(n.cursor_close(cursor))
        self.assertEqual(seen, should)
        walked = {}

        def visit(key, value, _arg):
            walked[ctypes.string_at(key.data, key.len)] = ctypes.string_at(value.data, value.len)
            return n.CONTINUE

        must(n.hashtbl_iter(self.table, n.callback("netshm_iter_fn", visit), None))
        self.assertEqual(walked, should)

    def group(self, body):
        return n.group(n.hashtbl_table(self.table), n.callback("netshm_group_fn", body), None)

    def test_groups(self):
        def both(_txn, _arg):
            self.put(b"a", b"1")
            self.put(b"b", b"2")
            return n.COMMIT

        self.assertEqual(self.group(both), n.OK)
        self.assertEqual((self.get(b"a"), self.get(b"b")), (b"1", b"2"))
        self.assertEqual(self.group(lambda _txn, _arg: n.E_CALLER - 7), n.E_CALLER - 7)
        txn = c_void_p()
        must(n.group_begin(n.hashtbl_table(self.table), byref(txn)))
        self.put(b"a", b"9")
        must(n.group_abort(txn))
        self.assertEqual(self.get(b"a"), b"1")

    def test_an_exception_rolls_back(self):
        self.put(b"a", b"before")

        def body(_txn, _arg):
            self.put(b"a", b"after")
            self.put(b"more", b"")
            raise Failed("in the middle")

        with self.assertRaisesRegex(Failed, "in the middle"):
            must(self.group(body))
        self.assertEqual((self.get(b"a"), self.get(b"more")), (b"before", None))
        # In an inner group it undoes that one only.
        def outer(_txn, _arg):
            self.put(b"a", b"outer")
            self.assertRaises(Failed, lambda: must(self.group(body)))
            return n.COMMIT

        must(self.group(outer))
        self.assertEqual((self.get(b"a"), self.get(b"more")), (b"outer", None))

    def test_an_exception_keeps_a_binding_and_ends_a_walk(self):
        self.put(b"a", b"before")
        self.put(b"b", b"")
        calls = []

        def raising(*_):
            calls.append(1)
            raise Failed

        update = n.callback("netshm_update_fn", raising)
        self.assertRaises(Failed, lambda: must(n.hashtbl_update(self.table, b"a", 1, update, None)))
        visit = n.callback("netshm_iter_fn", raising)
        self.assertRaises(Failed, lambda: must(n.hashtbl_iter(self.table, visit, None)))
        self.assertEqual((len(calls), self.get(b"a")), (2, b"before"))

    def test_update_with_a_value(self):
        def double(u, old, length, _arg):
            value = ctypes.string_at(old, length) * 2
            must(n.update_set(u, value, len(value)))
            return n.REPLACE

        self.put(b"a", b"xy")
        must(n.hashtbl_update(self.table, b"a", 1, n.callback("netshm_update_fn", double), None))
        self.assertEqual(self.get(b"a"), b"xyxy")

    def test_errors(self):
        with self.assertRaises(Failed) as caught:
            must(n.hashtbl_add(self.table, None, 3, b"", 0))
        self.assertEqual(caught.exception.args[0], n.E_INVALID)
        self.assertIn(b"key", caught.exception.args[1])
        self.assertEqual(n.open(*self.names, n.RDWR | n.CREAT | n.EXCL, 0o600, byref(c_void_p())), n.E_EXISTS)
        options = n.types["netshm_options"](size=ctypes.sizeof(n.types["netshm_options"]), locking=n.LOCK_NONE)
        self.assertEqual(n.hashtbl_manage(self.object, None, None, byref(options), byref(c_void_p())), n.E_LOCKING)
        self.assertEqual(n.strerror(n.E_DEADLOCK), b"deadlock: this group was chosen to give way")

    def test_threads(self):
        """ctypes gives up the interpreter's lock during a call: threads really meet in the library."""
        def work():
            for _ in range(2000):
                must(n.hashtbl_incr(self.table, b"n", 1, 1, 0, None))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(int.from_bytes(self.get(b"n"), "little"), 8000)

    def test_a_forked_child(self):
        self.put(b"a", b"1")
        child = os.fork()
        if child == 0:
            try:
                self.put(b"a", b"child's")
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.get(b"a"), b"child's")


class Primitive(Case):
    def test_blocks(self):
        table = c_void_p()
        must(n.table_manage(self.object, None, byref(table)))
        for i in range(1, 4):
            must(n.table_add(table, -5, (ctypes.c_int32 * 2)(i, -i), 2))
        calls = []

        def block(words, count, _arg):
            calls.append([words[i] for i in range(count)])
            if not words:
                return n.BLOCK_GO
            words[1] *= 100
            return n.BLOCK_GO | (n.BLOCK_REMOVE if words[0] == 2 else 0)

        must(n.table_write_blocks(table, n.BLOCK_REMOVE, -5, n.callback("netshm_block_fn", block), None))
        self.assertEqual(calls, [[3, -3], [], [2, -2], [], [1, -1], []])
        values, count = ctypes.POINTER(n.types["netshm_words"])(), c_size_t()
        must(n.table_find_all(table, -5, byref(values), byref(count)))
        self.assertEqual([values[i].data[:values[i].n] for i in range(count.value)], [[3, -300], [1, -100]])
        n.free(values)
        text = c_void_p()
        must(n.table_dump(table, byref(text)))
        self.assertIn(b"bindings: 2\n", ctypes.string_at(text))
        n.free(text)
        must(n.table_close(table))


class Reading(unittest.TestCase):
    def test_everything_was_read(self):
        """Each function of the header is one that the library has, and the reader has missed none."""
        with open(os.environ["NETSHM_HEADER"], encoding="utf-8") as f:
            text = f.read()
        self.assertGreater(len(n.functions), 40)
        for name in n.functions:
            self.assertIn(name + "(", text)
        self.assertEqual((n.E_PANIC, n.OK, n.COMMIT), (-31, 0, 1))
        self.assertEqual(ctypes.sizeof(n.types["netshm_slice"]), ctypes.sizeof(c_void_p) + ctypes.sizeof(c_size_t))


if __name__ == "__main__":
    unittest.main()
