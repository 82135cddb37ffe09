-- Goal: the library can be used from LuaJIT's ffi straight from the header.
--
-- Method: the header goes through the preprocessor and then, as it is, to ffi.cdef; the tests use byte tables, stacks,
-- groups, cursors, primitive tables and errors. A Lua error must not leave a callback, or it would leave through the
-- library's own frames: `guarded` below is what a binding does instead. The results are TAP.
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

function tests.primitive_tables()
    -- The object holds one table; another one gets an object of its own.
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
