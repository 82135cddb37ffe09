"""Goal: the library can be used from Python's ctypes straight from the header.

Method: header.py reads include/netshm.h; the tests use byte tables, stacks, groups, cursors, typed values, arrays,
primitive tables and errors through what it has read. An exception in a callback is turned into a negative answer by
header.py: it has to undo everything, and to come out again where the call was made.
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

    def slices(self, all_bytes):
        cast = [(ctypes.cast(ctypes.c_char_p(each), c_void_p), len(each)) for each in all_bytes]
        return (n.types["netshm_slice"] * len(cast))(*cast)

    def test_many_keys_in_one_call(self):
        should = {b"%d" % i: b"value\0%d" % i for i in range(50)}
        keys, done = self.slices(should.keys()), c_size_t()
        must(n.hashtbl_replace_many(self.table, keys, self.slices(should.values()), len(keys), byref(done)))
        self.assertEqual((done.value, self.get(b"49")), (50, b"value\0" + b"49"))
        asked = [b"7", b"absent", b"49", b"7"]
        values = ctypes.POINTER(n.types["netshm_slice"])()
        must(n.hashtbl_find_many(self.table, self.slices(asked), len(asked), byref(values)))
        found = [ctypes.string_at(v.data, v.len) if v.data else None for v in values[: len(asked)]]
        n.free(values)
        self.assertEqual(found, [should.get(key) for key in asked])
        room, lens = ctypes.create_string_buffer(4 * 10), (c_int64 * 4)()
        must(n.hashtbl_find_many_into(self.table, self.slices(asked), 4, room, 10, lens))
        found = [room[10 * i : 10 * i + lens[i]] if lens[i] != n.E_NOT_FOUND else None for i in range(4)]
        self.assertEqual(found, [should.get(key) for key in asked])

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


def cells(*values):
    """What the header's inline functions make of Python's values, and their number. True is SOME, None is NONE."""
    made = (n.types["netshm_value"] * len(values))()
    made.values = values  # keeps the bytes alive
    for cell, value in zip(made, values):
        content = getattr(cell, "as")  # the name is a keyword
        if value is None or value is True:
            cell.kind = n.V_NONE if value is None else n.V_SOME
        elif isinstance(value, int):
            cell.kind, content.i = n.V_INT, value
        elif isinstance(value, float):
            cell.kind, content.d = n.V_DOUBLE, value
        else:
            cell.kind = n.V_BYTES
            content.s.data, content.s.len = ctypes.cast(ctypes.c_char_p(value), c_void_p), len(value)
    return made, len(values)


def values_of(read, count):
    """The same backwards."""
    result = []
    for cell in (read[i] for i in range(count)):
        content = getattr(cell, "as")
        result.append({n.V_NONE: lambda: None, n.V_SOME: lambda: True, n.V_INT: lambda: content.i,
                       n.V_DOUBLE: lambda: content.d,
                       n.V_BYTES: lambda: ctypes.string_at(content.s.data, content.s.len)}[cell.kind]())
    return tuple(result)


class Results(Case):
    def setUp(self):
        super().setUp()
        self.result = self.new_result()

    def new_result(self):
        result = c_void_p()
        must(n.result_new(byref(result)))
        self.addCleanup(lambda: must(n.result_free(result)))
        return result

    def read(self, result=None):
        read, count = ctypes.POINTER(n.types["netshm_value"])(), c_size_t()
        must(n.result_values(result or self.result, byref(read), byref(count)))
        return values_of(read, count.value)


class Typed(Results):
    TYPES = b"string", b"(int,string?)"

    def setUp(self):
        super().setUp()
        self.table = c_void_p()
        must(n.hashtbl_manage_as(self.object, *self.TYPES, None, byref(self.table)))

    def tearDown(self):
        must(n.hashtbl_close(self.table))
        super().tearDown()

    def put(self, key, *value):
        must(n.hashtbl_replace_v(self.table, *cells(key), *cells(*value)))

    def get(self, key):
        code = n.hashtbl_find_v(self.table, *cells(key), self.result)
        if code == n.E_NOT_FOUND:
            return None
        must(code)
        return self.read()

    def test_values_and_stacks(self):
        self.put(b"Ada", 36, True, b"Countess\0of")
        self.assertEqual(self.get(b"Ada"), (36, True, b"Countess\0of"))
        must(n.hashtbl_add_v(self.table, *cells(b"Ada"), *cells(-(2**63), None)))
        self.assertEqual(self.get(b"Ada"), (-(2**63), None))
        count, read, length = c_size_t(), ctypes.POINTER(n.types["netshm_value"])(), c_size_t()
        must(n.hashtbl_find_all_v(self.table, *cells(b"Ada"), self.result, byref(count)))
        stack = []
        for i in range(count.value):
            must(n.result_at(self.result, i, byref(read), byref(length)))
            stack.append(values_of(read, length.value))
        self.assertEqual(stack, [(-(2**63), None), (36, True, b"Countess\0of")])
        self.assertEqual(n.result_at(self.result, 2, byref(read), byref(length)), n.E_RANGE)
        self.assertEqual(n.hashtbl_insert_v(self.table, *cells(b"Ada"), *cells(1, None)), n.E_EXISTS)
        there = c_int()
        must(n.hashtbl_remove_v(self.table, *cells(b"Ada"), byref(there)))
        self.assertEqual((there.value, self.get(b"Ada")), (1, (36, True, b"Countess\0of")))
        must(n.hashtbl_mem_v(self.table, *cells(b"none"), byref(there)))
        self.assertEqual((there.value, self.get(b"none")), (0, None))

    def test_what_is_of_another_type(self):
        self.assertEqual(n.hashtbl_add_v(self.table, *cells(b"k"), *cells(b"text", None)), n.E_TYPE)
        self.assertEqual(n.hashtbl_add_v(self.table, *cells(b"k"), *cells(1)), n.E_TYPE)
        self.assertEqual(n.hashtbl_manage_as(self.object, b"string", b"int", None, byref(c_void_p())), n.E_TYPE)
        self.assertEqual(n.type_parse(b"(int,", byref(c_void_p())), n.E_INVALID)
        self.assertIsNone(self.get(b"k"))

    def test_parsed_types(self):
        """The same table by type objects; a left half of the pair is for reading only."""
        self.put(b"Ada", 36, True, b"Countess")
        key, value, left, text = c_void_p(), c_void_p(), c_void_p(), ctypes.POINTER(ctypes.c_char)()
        must(n.type_parse(b"string", byref(key)))
        must(n.type_parse(b"int", byref(value)))
        must(n.type_left(value, byref(left)))
        must(n.type_signature(left, byref(text)))
        self.assertEqual(ctypes.cast(text, ctypes.c_char_p).value, b"(int,_)")
        other = c_void_p()
        must(n.hashtbl_manage(self.object, key, left, None, byref(other)))
        for made in key, value, left:
            must(n.type_close(made))
        must(n.hashtbl_find_v(other, *cells(b"Ada"), self.result))
        self.assertEqual(self.read(), (36,))
        self.assertEqual(n.hashtbl_add_v(other, *cells(b"Ada"), *cells(1)), n.E_TYPE)
        must(n.hashtbl_close(other))

    def test_cursor_and_callback_see_the_same(self):
        should = {(b"%d" % i,): (i, None) if i % 2 else (i, True, b"even") for i in range(300)}
        for key, value in should.items():
            self.put(*key, *value)
        cursor, key, seen, walked = c_void_p(), self.new_result(), {}, {}
        must(n.cursor_open(self.table, 0, byref(cursor)))
        while (code := n.cursor_next_v(cursor, key, self.result)) == n.OK:
            seen[self.read(key)] = self.read()
        self.assertEqual(code, n.E_NOT_FOUND)
        must(n.cursor_close(cursor))

        def visit(key, key_cells, value, value_cells, _arg):
            walked[values_of(key, key_cells)] = values_of(value, value_cells)
            return n.CONTINUE

        must(n.hashtbl_iter_v(self.table, n.callback("netshm_iter_v_fn", visit), None))
        self.assertEqual((seen, walked), (should, should))

    def test_counting(self):
        """Beside the other table, under a name of its own."""
        options = n.types["netshm_options"](size=ctypes.sizeof(n.types["netshm_options"]), root=b"counts")
        counts, now = c_void_p(), c_int64()
        must(n.hashtbl_manage_as(self.object, b"(int32,string)", b"int", byref(options), byref(counts)))
        must(n.hashtbl_incr_v(counts, *cells(-7, b"x"), -(2**62), 5, byref(now)))
        self.assertEqual(now.value, 5 - 2**62)
        self.assertEqual(n.hashtbl_incr_v(counts, *cells(2**40, b"x"), 1, 0, byref(now)), n.E_OVERFLOW)
        must(n.hashtbl_close(counts))


class Arrays(Results):
    def test_integers(self):
        array, value = c_void_p(), c_int64()
        must(n.array_manage_int64(self.object, -1, 10, None, byref(array)))
        must(n.array_set_int64(array, 3, 2**62 + 1))
        must(n.array_incr(array, 9, 43, byref(value)))
        self.assertEqual(value.value, 42)
        got = (c_int64 * 10)()
        must(n.array_read(array, 0, 10, got, 8))
        self.assertEqual(list(got), [-1, -1, -1, 2**62 + 1] + [-1] * 5 + [42])
        self.assertEqual(n.array_get_int64(array, 10, byref(value)), n.E_RANGE)
        must(n.array_write(array, 4, 2, (c_int64 * 2)(4, 5), 8))
        seen = {}

        def visit(i, encoded, _arg):
            seen[i] = int.from_bytes(ctypes.string_at(encoded.data, encoded.len), "little")
            return n.CONTINUE

        must(n.array_iter(array, n.callback("netshm_array_iter_fn", visit), None))
        self.assertEqual(seen, {3: 2**62 + 1, 4: 4, 5: 5, 9: 42})
        must(n.array_resize(array, 4))
        must(n.array_resize(array, 2**40))
        length = c_uint64()
        must(n.array_length(array, byref(length)))
        must(n.array_get_int64(array, 4, byref(value)))
        self.assertEqual((length.value, value.value), (2**40, -1))

        def body(_txn, _arg):
            must(n.array_set_int64(array, 3, 0))
            raise Failed("in the middle")

        scope = n.array_table(array)
        self.assertRaises(Failed, lambda: must(n.group(scope, n.callback("netshm_group_fn", body), None)))
        must(n.array_get_int64(array, 3, byref(value)))
        self.assertEqual(value.value, 2**62 + 1)
        must(n.array_close(array))

    def test_any_type(self):
        element, array = c_void_p(), c_void_p()
        must(n.type_parse(b"(double,string?)", byref(element)))
        must(n.array_manage(self.object, element, *cells(0.5, None), 5, None, byref(array)))
        must(n.type_close(element))
        must(n.array_set(array, 1, *cells(-2.25, True, b"text")))
        for i, should in (0, (0.5, None)), (1, (-2.25, True, b"text")):
            must(n.array_get(array, i, self.result))
            self.assertEqual(self.read(), should)
        self.assertEqual(n.array_set(array, 1, *cells(1, None)), n.E_TYPE)
        must(n.array_default(array, self.result))
        self.assertEqual(self.read(), (0.5, None))
        must(n.array_close(array))


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
