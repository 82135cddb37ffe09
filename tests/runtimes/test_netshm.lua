-- Goal: the library can be used from LuaJIT's ffi straight from the header.
--
-- Method: the header goes through the preprocessor and then, as it is, to ffi.cdef; the tests use byte tables, stacks,
-- groups, cursors, typed values, arrays, primitive tables and errors. A Lua error must not leave a callback, or it would
-- leave through the library's own frames: `guarded` below is what a binding does instead. The results are TAP.
--
-- NETSHM_LIBRARY names the library, NETSHM_HEADER the header, CC the C preprocessor.

local ffi = require("ffi")

local function run(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read("*a")
    pipe:close()
    assert(#text > 1000, "the preprocessor says nothing")
    return text
end

local header = assert(os.getenv("NETSHM_HEADER"))
local preprocessor = "grep -v '^#include' '" .. header .. "' | " .. (os.getenv("CC") or "cc") .. " -E -x c "

-- Types and functions. Inline functions are C's alone.
local declarations = run(preprocessor .. "-P -"):gsub("static%s+inline[^{]*%b{}", "")
ffi.cdef(declarations)
local C = ffi.load(assert(os.getenv("NETSHM_LIBRARY")))

-- Numbers.
local N = {}
for name, number in run(preprocessor .. "-dM -"):gmatch("#define NETSHM_([%w_]+) %(?(%-?%d+)U?%)?\n") do
    N[name] = tonumber(number)
end

local count, failures = 0, 0

local function ok(condition, what)
    count = count + 1
    if not condition then failures = failures + 1 end
    print((condition and "ok " or "not ok ") .. count .. " - " .. what)
    if not condition then print("# " .. debug.traceback():gsub("\n", "\n# ")) end
end

local function is(got, wanted, what)
    ok(got == wanted, what .. " is " .. tostring(wanted):gsub("%z", "\\0"))
    if got ~= wanted then print("# got " .. tostring(got)) end
end

local function must(code)
    if code ~= N.OK then
        local details = ffi.new("netshm_error", { size = ffi.sizeof("netshm_error") })
        C.netshm_last_error(details)
        error(ffi.string(details.code == code and details.text or C.netshm_strerror(code)), 2)
    end
end

-- A callback: an error in it is kept, and C gets the answer NETSHM_E_CALLER, which undoes everything.
local raised
local function guarded(kind, body)
    return ffi.cast(kind, function(...)
        local fine, answer = pcall(body, ...)
        if fine then return answer end
        raised = answer
        return N.E_CALLER
    end)
end

-- Calls something that calls back. Compiled code must not be called back.
local function calling(call, ...)
    return call(...)
end
jit.off(calling)

local own = "netshm-lua-" .. tostring(ffi.cast("intptr_t", ffi.new("char[1]"))):gsub("%D", "") .. os.time()
local file_name, mem_name = "/tmp/" .. own, "/" .. own
local object = ffi.new("netshm_object *[1]")
must(C.netshm_open(N.POSIX, file_name, mem_name, N.RDWR + N.CREAT + N.EXCL, 384, object))
-- From here on nothing is left behind, whatever happens: the memory lives as long as it is open.
must(C.netshm_unlink(N.POSIX, file_name, mem_name))

local tables = ffi.new("netshm_hashtbl *[1]")
must(C.netshm_hashtbl_manage(object[0], nil, nil, nil, tables))
local t = tables[0]

local function put(key, value)
    must(C.netshm_hashtbl_replace(t, key, #key, value, #value))
end

local function get(key)
    local buffer, len = ffi.new("char[256]"), ffi.new("size_t[1]")
    local code = C.netshm_hashtbl_find(t, key, #key, buffer, 256, len)
    if code == N.E_NOT_FOUND then return nil end
    must(code)
    return ffi.string(buffer, len[0])
end

local tests = {}

function tests.bytes_and_stacks()
    put("key\0zero", "a value\0!")
    is(get("key\0zero"), "a value\0!", "a value with a zero")
    is(get("none"), nil, "what is not there")
    must(C.netshm_hashtbl_add(t, "key\0zero", 8, "newer", 5))
    local values, n = ffi.new("netshm_slice *[1]"), ffi.new("size_t[1]")
    must(C.netshm_hashtbl_find_all(t, "key\0zero", 8, values, n))
    is(tonumber(n[0]), 2, "the depth of the stack")
    is(ffi.string(values[0][0].data, values[0][0].len), "newer", "the newest")
    is(ffi.string(values[0][1].data, values[0][1].len), "a value\0!", "the one before")
    C.netshm_free(values[0])
    must(C.netshm_hashtbl_remove(t, "key\0zero", 8, nil))
    is(get("key\0zero"), "a value\0!", "what shows again")
    local sum = ffi.new("int64_t[1]")
    must(C.netshm_hashtbl_incr(t, "n", 1, -5, -9007199254740993LL, sum))
    is(sum[0], -9007199254740998LL, "an integer beyond what a double holds")
    must(C.netshm_hashtbl_remove(t, "n", 1, nil))
    must(C.netshm_hashtbl_remove(t, "key\0zero", 8, nil))
end

function tests.cursors()
    for i = 1, 300 do put("key " .. i, "value " .. i) end
    local cursor = ffi.new("netshm_cursor *[1]")
    local key, value = ffi.new("netshm_slice"), ffi.new("netshm_slice")
    must(C.netshm_cursor_open(t, 0, cursor))
    local seen, wrong, code = 0, 0, nil
    while true do
        code = C.netshm_cursor_next(cursor[0], key, value)
        if code ~= N.OK then break end
        local number = ffi.string(key.data, key.len):match("^key (%d+)$")
        if ffi.string(value.data, value.len) ~= "value " .. tostring(number) then wrong = wrong + 1 end
        seen = seen + 1
    end
    is(code, N.E_NOT_FOUND, "the end of the walk")
    must(C.netshm_cursor_close(cursor[0]))
    local length = ffi.new("uint64_t[1]")
    must(C.netshm_hashtbl_length(t, length))
    ok(seen == 300 and wrong == 0 and length[0] == 300, "the cursor has seen all of 300")
end

function tests.groups()
    local scope = C.netshm_hashtbl_table(t)
    local commit = guarded("netshm_group_fn", function()
        put("a", "1")
        put("b", "2")
        return N.COMMIT
    end)
    is(calling(C.netshm_group, scope, commit, nil), N.OK, "a group that commits")
    is(get("a") .. get("b"), "12", "what it has done")
    local failing = guarded("netshm_group_fn", function()
        put("a", "9")
        put("c", "9")
        error("in the middle")
    end)
    is(calling(C.netshm_group, scope, failing, nil), N.E_CALLER, "a group whose callback raises an error")
    ok(tostring(raised):find("in the middle"), "the error comes out again")
    is(get("a"), "1", "what it has changed")
    is(get("c"), nil, "what it has added")
    commit:free()
    failing:free()
    local txn = ffi.new("netshm_txn *[1]")
    must(C.netshm_group_begin(scope, txn))
    put("a", "9")
    must(C.netshm_group_abort(txn[0]))
    is(get("a"), "1", "after an abort it")
end

function tests.updates()
    put("a", "xy")
    local double = guarded("netshm_update_fn", function(u, old, len)
        local value = ffi.string(old, len):rep(2)
        must(C.netshm_update_set(u, value, #value))
        return N.REPLACE
    end)
    must(calling(C.netshm_hashtbl_update, t, "a", 1, double, nil))
    is(get("a"), "xyxy", "an updated value")
    double:free()
end

-- What the header's inline functions make of Lua's values. Numbers are INT, true is SOME, false is NONE. The strings
-- must live as long as the cells.
local function cells(...)
    local n = select("#", ...)
    local made = ffi.new("netshm_value[?]", n)
    for i = 1, n do
        local cell, value = made[i - 1], select(i, ...)
        if type(value) == "boolean" then
            cell.kind = value and N.V_SOME or N.V_NONE
        elseif type(value) == "string" then
            cell.kind, cell.as.s.data, cell.as.s.len = N.V_BYTES, ffi.cast("const char *", value), #value
        else
            cell.kind, cell.as.i = N.V_INT, value
        end
    end
    return made, n
end

-- The same backwards, as one string.
local function show(read, n)
    local parts = {}
    for i = 0, tonumber(n) - 1 do
        local cell, as = read[i].kind, read[i].as
        parts[i + 1] = cell == N.V_SOME and "some" or cell == N.V_NONE and "none"
            or cell == N.V_BYTES and ffi.string(as.s.data, as.s.len) or tostring(as.i)
    end
    return table.concat(parts, " ")
end

local function shown(result, i)
    local read, n = ffi.new("const netshm_value *[1]"), ffi.new("size_t[1]")
    must(C.netshm_result_at(result, i or 0, read, n))
    return show(read[0], n[0])
end

local function new_result()
    local result = ffi.new("netshm_result *[1]")
    must(C.netshm_result_new(result))
    return result[0]
end

-- Options for a table with a name of its own beside the unnamed one.
local function named(root)
    return ffi.new("netshm_options", { size = ffi.sizeof("netshm_options"), root = root })
end

function tests.typed_values()
    local ages, other = ffi.new("netshm_hashtbl *[1]"), ffi.new("netshm_hashtbl *[1]")
    must(C.netshm_hashtbl_manage_as(object[0], "string", "(int,string?)", named("ages"), ages))
    local ada, ada_cells = cells("Ada")
    local age, age_cells = cells(9007199254740993LL, true, "Countess\0of")
    local none, none_cells = cells(-1, false)
    local found, n, there = new_result(), ffi.new("size_t[1]"), ffi.new("int[1]")
    must(C.netshm_hashtbl_replace_v(ages[0], ada, ada_cells, age, age_cells))
    must(C.netshm_hashtbl_add_v(ages[0], ada, ada_cells, none, none_cells))
    must(C.netshm_hashtbl_find_v(ages[0], ada, ada_cells, found))
    is(shown(found), "-1LL none", "the newest value")
    must(C.netshm_hashtbl_find_all_v(ages[0], ada, ada_cells, found, n))
    is(tonumber(n[0]), 2, "the depth of the stack")
    is(shown(found, 1), "9007199254740993LL some Countess\0of", "the value before")
    must(C.netshm_hashtbl_remove_v(ages[0], ada, ada_cells, there))
    must(C.netshm_hashtbl_find_v(ages[0], ada, ada_cells, found))
    is(shown(found), "9007199254740993LL some Countess\0of", "what shows again")
    is(C.netshm_hashtbl_find_v(ages[0], age, age_cells, found), N.E_TYPE, "a key of another type")
    local code = C.netshm_hashtbl_manage_as(object[0], "string", "int", named("ages"), other)
    is(code, N.E_TYPE, "a table of another type")
    -- By type objects, one of which is the left half of a pair.
    local types = ffi.new("netshm_type *[2]")
    must(C.netshm_type_parse("string", types))
    must(C.netshm_type_parse("(int,_)", types + 1))
    local text = ffi.new("const char *[1]")
    must(C.netshm_type_signature(types[1], text))
    is(ffi.string(text[0]), "(int,_)", "a signature")
    must(C.netshm_hashtbl_manage(object[0], types[0], types[1], named("ages"), other))
    for i = 0, 1 do must(C.netshm_type_close(types[i])) end
    must(C.netshm_hashtbl_find_v(other[0], ada, ada_cells, found))
    is(shown(found), "9007199254740993LL", "the left half of the value")
    must(C.netshm_hashtbl_close(other[0]))
    must(C.netshm_hashtbl_close(ages[0]))
    must(C.netshm_result_free(found))
end

function tests.typed_walks()
    local squares = ffi.new("netshm_hashtbl *[1]")
    must(C.netshm_hashtbl_manage_as(object[0], "(int32,string)", "int", named("squares"), squares))
    for i = 1, 200 do
        local key, key_cells = cells(i, "square")
        must(C.netshm_hashtbl_incr_v(squares[0], key, key_cells, i * i, 0, nil))
    end
    local cursor, key, value = ffi.new("netshm_cursor *[1]"), new_result(), new_result()
    local seen, right, code = 0, 0, nil
    must(C.netshm_cursor_open(squares[0], 0, cursor))
    while true do
        code = C.netshm_cursor_next_v(cursor[0], key, value)
        if code ~= N.OK then break end
        local i = tonumber(shown(key):match("^(%d+)LL square$"))
        if shown(value) == i * i .. "LL" then right = right + 1 end
        seen = seen + 1
    end
    is(code, N.E_NOT_FOUND, "the end of the walk")
    ok(seen == 200 and right == 200, "the cursor has seen all of 200")
    must(C.netshm_cursor_close(cursor[0]))
    local walked = 0
    local visit = guarded("netshm_iter_v_fn", function(k, nk, v, nv)
        local i = tonumber(show(k, nk):match("^(%d+)LL square$"))
        if show(v, nv) == i * i .. "LL" then walked = walked + 1 end
        return N.CONTINUE
    end)
    must(calling(C.netshm_hashtbl_iter_v, squares[0], visit, nil))
    visit:free()
    is(walked, 200, "what the callback has seen")
    for _, result in ipairs({ key, value }) do must(C.netshm_result_free(result)) end
    must(C.netshm_hashtbl_close(squares[0]))
end

function tests.arrays()
    local a, value = ffi.new("netshm_array *[1]"), ffi.new("int64_t[1]")
    must(C.netshm_array_manage_int64(object[0], -1, 10, named("array"), a))
    must(C.netshm_array_set_int64(a[0], 3, 9007199254740993LL))
    must(C.netshm_array_incr(a[0], 9, 43, value))
    is(value[0], 42LL, "the default and what was added")
    local slice = ffi.new("int64_t[10]")
    must(C.netshm_array_read(a[0], 0, 10, slice, 8))
    ok(slice[0] == -1 and slice[3] == 9007199254740993LL and slice[9] == 42, "a slice has all elements")
    is(C.netshm_array_get_int64(a[0], 10, value), N.E_RANGE, "an index behind the end")
    must(C.netshm_array_resize(a[0], 4))
    must(C.netshm_array_resize(a[0], 1000))
    local length = ffi.new("uint64_t[1]")
    must(C.netshm_array_length(a[0], length))
    is(tonumber(length[0]), 1000, "the length")
    must(C.netshm_array_get_int64(a[0], 9, value))
    is(value[0], -1LL, "what was cut off")
    local txn = ffi.new("netshm_txn *[1]")
    must(C.netshm_group_begin(C.netshm_array_table(a[0]), txn))
    must(C.netshm_array_set_int64(a[0], 3, 0))
    must(C.netshm_group_abort(txn[0]))
    must(C.netshm_array_get_int64(a[0], 3, value))
    is(value[0], 9007199254740993LL, "after an abort an element")
    must(C.netshm_array_close(a[0]))
    -- Elements of another type.
    local element, result = ffi.new("netshm_type *[1]"), new_result()
    local default, default_cells = cells(7, false)
    local set, set_cells = cells(8, true, "eight")
    must(C.netshm_type_parse("(int,string?)", element))
    must(C.netshm_array_manage(object[0], element[0], default, default_cells, 5, named("pairs"), a))
    must(C.netshm_type_close(element[0]))
    must(C.netshm_array_set(a[0], 4, set, set_cells))
    must(C.netshm_array_get(a[0], 4, result))
    is(shown(result), "8LL some eight", "a pair")
    must(C.netshm_array_get(a[0], 0, result))
    is(shown(result), "7LL none", "the default pair")
    must(C.netshm_result_free(result))
    must(C.netshm_array_close(a[0]))
end

function tests.primitive_tables()
    -- The unnamed table of the object is another one; this gets an object of its own.
    local other, p = ffi.new("netshm_object *[1]"), ffi.new("netshm_table *[1]")
    must(C.netshm_open(N.POSIX, file_name .. "p", mem_name .. "p", N.RDWR + N.CREAT + N.EXCL, 384, other))
    must(C.netshm_unlink(N.POSIX, file_name .. "p", mem_name .. "p"))
    must(C.netshm_table_manage(other[0], nil, p))
    for i = 1, 3 do must(C.netshm_table_add(p[0], 7, ffi.new("int32_t[2]", i, -i), 2)) end
    local ends = 0
    local block = guarded("netshm_block_fn", function(words, n)
        if words == nil then
            ends = ends + 1
            return N.BLOCK_GO
        end
        words[1] = words[1] * 100
        return words[0] == 2 and N.BLOCK_GO + N.BLOCK_REMOVE or N.BLOCK_GO
    end)
    must(calling(C.netshm_table_write_blocks, p[0], N.BLOCK_REMOVE, 7, block, nil))
    block:free()
    is(ends, 3, "the number of end markers")
    local values, n = ffi.new("netshm_words *[1]"), ffi.new("size_t[1]")
    must(C.netshm_table_find_all(p[0], 7, values, n))
    ok(n[0] == 2 and values[0][0].data[1] == -300 and values[0][1].data[1] == -100, "one is gone, two are changed")
    C.netshm_free(values[0])
    is(C.netshm_check(other[0], 0, nil, nil), N.OK, "the check")
    must(C.netshm_table_close(p[0]))
    must(C.netshm_close(other[0]))
end

function tests.errors()
    local code = C.netshm_hashtbl_add(t, nil, 3, "", 0)
    is(code, N.E_INVALID, "a key that is NULL")
    local details = ffi.new("netshm_error", { size = ffi.sizeof("netshm_error") })
    C.netshm_last_error(details)
    is(details.argument, 2, "the argument that is wrong")
    ok(not pcall(must, code), "must() raises an error")
    local options = ffi.new("netshm_options", { size = ffi.sizeof("netshm_options"), locking = N.LOCK_NONE })
    is(C.netshm_hashtbl_manage(object[0], nil, nil, options, tables), N.E_LOCKING, "another locking method")
    is(ffi.string(C.netshm_strerror(N.E_RANGE)), "index out of range", "a text")
end

-- Garbage collection ends handles in any order, here the object's before its table's.
function tests.finalizers()
    do
        local o, h = ffi.new("netshm_object *[1]"), ffi.new("netshm_hashtbl *[1]")
        must(C.netshm_open(N.POSIX, file_name .. "g", mem_name .. "g", N.RDWR + N.CREAT, 384, o))
        must(C.netshm_unlink(N.POSIX, file_name .. "g", mem_name .. "g"))
        must(C.netshm_hashtbl_manage(o[0], nil, nil, nil, h))
        local _ = ffi.gc(o[0], C.netshm_close), ffi.gc(h[0], C.netshm_hashtbl_close)
    end
    collectgarbage()
    collectgarbage()
    ok(true, "handles are ended by the collector")
end

local names = {}
for name in pairs(tests) do names[#names + 1] = name end
-- The cursor's test counts all there is, so it comes before those that leave something.
table.sort(names, function(a, b)
    local order = { bytes_and_stacks = 1, cursors = 2 }
    return (order[a] or 9) < (order[b] or 9) or (order[a] or 9) == (order[b] or 9) and a < b
end)
for _, name in ipairs(names) do
    print("# " .. name)
    local fine, problem = pcall(tests[name])
    if not fine then ok(false, name .. ": " .. tostring(problem)) end
end
is(C.netshm_check(object[0], 0, nil, nil), N.OK, "the check at the end")
must(C.netshm_hashtbl_close(t))
must(C.netshm_close(object[0]))
print("1.." .. count)
os.exit(failures == 0 and 0 or 1)
