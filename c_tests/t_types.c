/* Goal: types, cells, results and typed tables as the header describes them. Method: every function, every kind of cell,
 * custom types whose callbacks fail, and the mismatches one by one. */
#include "support.h"

static netshm_object *o;
static netshm_result *r;

static netshm_type *parsed(const char *signature)
{
    netshm_type *t = NULL;
    good(netshm_type_parse(signature, &t));
    return t;
}

static int signature_is(netshm_type *t, const char *wanted)
{
    const char *text = NULL;
    return netshm_type_signature(t, &text) == NETSHM_OK && strcmp(text, wanted) == 0;
}

/* Another object, with a table of these types. */
static netshm_hashtbl *table(const char *key, const char *val)
{
    netshm_hashtbl *t = NULL;
    netshm_close(o);
    o = NULL;
    good(place_open(place_new(), CREATE, &o));
    good(netshm_hashtbl_manage_as(o, key, val, NULL, &t));
    return t;
}

static const netshm_value *values(size_t wanted)
{
    static const netshm_value none[1] = { { 0, 0, { 0 } } };
    const netshm_value *v = NULL;
    size_t n = 0;
    if (netshm_result_values(r, &v, &n) != NETSHM_OK || n != wanted) {
        ok(!"the result has as many cells as it should");
        return none;
    }
    return v;
}

static int text_is(const netshm_value *v, const char *wanted)
{
    const char *text = (const char *)v->as.s.data;
    return v->kind == NETSHM_V_BYTES && v->as.s.len == strlen(wanted) && memcmp(text, wanted, v->as.s.len + 1) == 0
        && (uintptr_t)text % 8 == 0;
}

static void types(void)
{
    netshm_type *a = parsed("int"), *b = parsed("string"), *option = NULL, *pair = NULL, *left = NULL, *x = NULL;
    const char *text = NULL;
    size_t i;
    static const struct { const char *text; int position; } wrong[] = {
        { "", 0 }, { "integer", 3 }, { "intx", 3 }, { "int3", 4 }, { "(int,string", 11 }, { "(int string)", 4 }, { "int ", 3 }, { "_", 0 },
        { "int\377", 3 }, { "x\377", 0 }, { "(int,\303\274)", 5 }, { "custom:", 7 }, { "int32[", 6 }
    };
    good(netshm_type_option(b, &option));
    good(netshm_type_pair(a, option, &pair));
    good(netshm_type_left(a, &left));
    good(netshm_type_close(b));
    ok(signature_is(a, "int"));
    ok(signature_is(option, "string?"));
    ok(signature_is(pair, "(int,string?)"));
    ok(signature_is(left, "(int,_)"));
    is(netshm_type_signature(b, &text), NETSHM_E_CLOSED);
    is(netshm_type_close(b), NETSHM_E_CLOSED);
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        is(netshm_type_parse(wrong[i].text, &x), NETSHM_E_INVALID);
        is(last().offset, wrong[i].position);
        is(last().argument, 1);
    }
    ok(x == NULL);
    while (netshm_type_pair(pair, pair, &x) == NETSHM_OK) {
        good(netshm_type_close(pair));
        pair = x;
    }
    is(last().code, NETSHM_E_TOO_LARGE);
    is(netshm_type_parse(NULL, &x), NETSHM_E_INVALID);
    is(netshm_type_parse("int", NULL), NETSHM_E_INVALID);
    is(netshm_type_pair(a, NULL, &x), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_type_pair((netshm_type *)r, a, &x), NETSHM_E_INVALID);
    is(netshm_type_signature(a, NULL), NETSHM_E_INVALID);
    good(netshm_type_close(a));
    good(netshm_type_close(option));
    good(netshm_type_close(pair));
    good(netshm_type_close(left));
    good(netshm_type_close(NULL));
}

static void every_kind(void)
{
    netshm_hashtbl *t = table("string", "((int,int32),((uint,double),((string,bytes?),(int32[],nativeint?))))");
    int32_t words[3];
    netshm_value key[1], val[12];
    const netshm_value *v;
    memset(val, 0, sizeof val);
    words[0] = 1;
    words[1] = -1;
    words[2] = INT32_MAX;
    key[0] = netshm_str("key");
    val[0] = netshm_int(INT64_MIN);
    val[1] = netshm_int(-5);
    val[2] = netshm_uint(UINT64_MAX);
    val[3] = netshm_double(0.5);
    val[4] = netshm_str("text");
    val[5] = netshm_some();
    val[6] = netshm_bytes("\0\1", 2);
    val[7] = netshm_bytes(words, sizeof words);
    val[8] = netshm_none();
    good(netshm_hashtbl_add_v(t, NETSHM_CELLS(key), val, 9));
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r));
    v = values(9);
    ok(v[0].kind == NETSHM_V_INT && v[0].as.i == INT64_MIN && v[1].kind == NETSHM_V_INT && v[1].as.i == -5);
    ok(v[2].kind == NETSHM_V_UINT && v[2].as.u == UINT64_MAX && v[3].kind == NETSHM_V_DOUBLE && v[3].as.d == 0.5);
    ok(text_is(&v[4], "text"));
    ok(v[5].kind == NETSHM_V_SOME && v[6].as.s.len == 2 && memcmp(v[6].as.s.data, "\0\1", 3) == 0);
    ok(v[7].as.s.len == sizeof words && memcmp(v[7].as.s.data, words, sizeof words) == 0);
    ok(v[8].kind == NETSHM_V_NONE);

    /* What does not fit changes nothing. */
    val[1] = netshm_int(1ll << 31);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 9), NETSHM_E_OVERFLOW);
    val[1] = netshm_int(0);
    val[2] = netshm_int(-1);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 9), NETSHM_E_OVERFLOW);
    val[2] = netshm_int(1);
    val[7] = netshm_bytes(words, 5);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 9), NETSHM_E_INVALID);
    val[7] = netshm_bytes(NULL, 5);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 9), NETSHM_E_INVALID);
    is(last().argument, 4);
    val[7] = netshm_bytes(NULL, 0);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 8), NETSHM_E_TYPE);
    ok(strstr(last_text(), "INT INT INT DOUBLE") != NULL && strstr(last_text(), "((int,int32)") != NULL);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 10), NETSHM_E_INVALID);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 0), NETSHM_E_TYPE);
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, (size_t)-1), NETSHM_E_INVALID);
    is(last().argument, 5);
    is(netshm_hashtbl_replace_v(t, val, 1, val, 9), NETSHM_E_TYPE);
    is(netshm_hashtbl_replace_v(t, NULL, 1, val, 9), NETSHM_E_INVALID);
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r));
    is(values(9)[1].as.i, -5);
    good(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), val, 9));
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r));
    v = values(9);
    ok(v[2].kind == NETSHM_V_UINT && v[2].as.u == 1 && v[7].as.s.len == 0 && v[7].as.s.data != NULL);
    good(netshm_hashtbl_close(t));
}

static void stacks(const char *key_type, netshm_value k1, netshm_value k2, const char *val_type, int cells)
{
    netshm_hashtbl *t = table(key_type, val_type);
    netshm_value one[2], two[2], three[2];
    const netshm_value *v = NULL;
    size_t n = 99;
    int there = 9, i;
    uint64_t length = 0;
    one[0] = netshm_int(1);
    two[0] = netshm_int(2);
    three[0] = netshm_int(3);
    one[1] = two[1] = netshm_str("x");
    three[1] = netshm_str("a longer text");
    is(netshm_hashtbl_find_v(t, &k1, 1, r), NETSHM_E_NOT_FOUND);
    is(netshm_result_values(r, &v, &n), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_find_all_v(t, &k1, 1, r, &n));
    is(n, 0);
    is(netshm_result_values(r, &v, &n), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_add_v(t, &k1, 1, one, cells));
    good(netshm_hashtbl_add_v(t, &k1, 1, two, cells));
    good(netshm_hashtbl_add_v(t, &k1, 1, three, cells));
    good(netshm_hashtbl_length(t, &length));
    is(length, 3);
    good(netshm_hashtbl_find_all_v(t, &k1, 1, r, &n));
    is(n, 3);
    for (i = 0; i < 3; i++) {
        n = 0;
        good(netshm_result_at(r, i, &v, &n));
        ok((int)n == cells && v[0].as.i == 3 - i && (cells == 1 || text_is(&v[1], i ? "x" : "a longer text")));
    }
    is(netshm_result_at(r, 3, &v, &n), NETSHM_E_RANGE);
    good(netshm_hashtbl_find_v(t, &k1, 1, r));
    is(values(cells)[0].as.i, 3);
    is(netshm_hashtbl_find_v(t, &k2, 1, r), NETSHM_E_NOT_FOUND);
    is(netshm_result_values(r, &v, &n), NETSHM_E_NOT_FOUND);
    is(netshm_hashtbl_insert_v(t, &k1, 1, one, cells), NETSHM_E_EXISTS);
    good(netshm_hashtbl_insert_v(t, &k2, 1, one, cells));
    good(netshm_hashtbl_replace_v(t, &k2, 1, two, cells));
    good(netshm_hashtbl_find_v(t, &k2, 1, r));
    is(values(cells)[0].as.i, 2);
    good(netshm_hashtbl_mem_v(t, &k2, 1, &there));
    is(there, 1);
    good(netshm_hashtbl_remove_v(t, &k2, 1, &there));
    is(there, 1);
    good(netshm_hashtbl_remove_v(t, &k2, 1, &there));
    is(there, 0);
    good(netshm_hashtbl_mem_v(t, &k2, 1, &there));
    is(there, 0);
    good(netshm_hashtbl_remove_v(t, &k1, 1, NULL));
    good(netshm_hashtbl_find_v(t, &k1, 1, r));
    is(values(cells)[0].as.i, 2);
    is(netshm_hashtbl_find_v(t, &k1, 1, NULL), NETSHM_E_INVALID);
    is(netshm_hashtbl_find_v(NULL, &k1, 1, r), NETSHM_E_INVALID);
    good(netshm_hashtbl_close(t));
    is(netshm_hashtbl_find_v(t, &k1, 1, r), NETSHM_E_CLOSED);
}

static void words(void)
{
    netshm_hashtbl *t = table("int64", "int");
    int64_t i, wrong = 0, now = 0;
    netshm_value k[1], v[1];
    for (i = -5000; i < 5000; i++) {
        k[0] = netshm_int(i);
        v[0] = netshm_int(i * i);
        if (netshm_hashtbl_add_v(t, k, 1, v, 1) != NETSHM_OK) wrong++;
    }
    for (i = -5000; i < 5000; i++) {
        k[0] = netshm_int(i);
        if (netshm_hashtbl_find_v(t, k, 1, r) != NETSHM_OK || values(1)[0].as.i != i * i) wrong++;
    }
    is(wrong, 0);
    good(netshm_hashtbl_incr_v(t, k, 1, -5, 0, &now));
    is(now, 4999 * 4999 - 5);
    v[0] = netshm_uint(UINT64_MAX);
    is(netshm_hashtbl_add_v(t, k, 1, v, 1), NETSHM_E_OVERFLOW);
    v[0] = netshm_uint(7);
    good(netshm_hashtbl_add_v(t, v, 1, v, 1));
    k[0] = netshm_int(7);
    good(netshm_hashtbl_find_v(t, k, 1, r));
    is(values(1)[0].as.i, 7);
    good(netshm_hashtbl_close(t));
}

struct seen { int64_t sum; int bindings, stop_after, answer; netshm_hashtbl *close; };

static int see(const netshm_value *key, size_t nk, const netshm_value *val, size_t nv, void *arg)
{
    struct seen *s = (struct seen *)arg;
    if (nk != 2 || key[0].kind != NETSHM_V_INT || !text_is(&key[1], "name")) return -1001;
    if (val != NULL && (nv != 1 || !text_is(val, "value"))) return -1002;
    s->sum += key[0].as.i;
    s->bindings++;
    netshm_hashtbl_close(s->close);
    s->close = NULL;
    return s->bindings == s->stop_after ? s->answer : NETSHM_CONTINUE;
}

static void walks(void)
{
    netshm_hashtbl *t = table("(int,string)", "string");
    netshm_value k[2], v[1];
    struct seen s;
    netshm_cursor *c = NULL;
    netshm_result *other = NULL;
    int i, wrong = 0;
    k[1] = netshm_str("name");
    v[0] = netshm_str("value");
    for (i = 0; i < 100; i++) {
        k[0] = netshm_int(i / 2);
        good(netshm_hashtbl_add_v(t, NETSHM_CELLS(k), NETSHM_CELLS(v)));
    }
    memset(&s, 0, sizeof s);
    good(netshm_hashtbl_iter_keys_v(t, see, &s));
    ok(s.bindings == 50 && s.sum == 49 * 25);
    memset(&s, 0, sizeof s);
    s.stop_after = 7;
    good(netshm_hashtbl_iter_v(t, see, &s));
    is(s.bindings, 7);
    memset(&s, 0, sizeof s);
    s.stop_after = 3;
    s.answer = -2000;
    is(netshm_hashtbl_iter_v(t, see, &s), -2000);
    is(netshm_hashtbl_iter_v(t, NULL, &s), NETSHM_E_INVALID);
    good(netshm_cursor_open(t, 0, &c));
    is(netshm_cursor_next(c, NULL, NULL), NETSHM_E_TYPE);
    good(netshm_result_new(&other));
    for (i = 0; i < 100; i++) {
        const netshm_value *v = NULL;
        size_t n = 0;
        if (netshm_cursor_next_v(c, r, other) != NETSHM_OK || !text_is(&values(2)[1], "name")) wrong++;
        if (netshm_result_values(other, &v, &n) != NETSHM_OK || n != 1 || !text_is(v, "value")) wrong++;
    }
    is(wrong, 0);
    is(netshm_cursor_next_v(c, r, NULL), NETSHM_E_NOT_FOUND);
    is(netshm_cursor_next_v(c, r, r), NETSHM_E_BUSY);
    is(netshm_cursor_next_v(NULL, r, other), NETSHM_E_INVALID);
    good(netshm_cursor_close(c));
    good(netshm_cursor_open(t, NETSHM_CURSOR_KEYS, &c));
    for (i = 0; netshm_cursor_next_v(c, NULL, other) == NETSHM_OK; i++) {}
    is(i, 50);
    good(netshm_cursor_close(c));
    good(netshm_result_free(other));
    memset(&s, 0, sizeof s);
    s.close = t;
    good(netshm_hashtbl_iter_v(t, see, &s));
    ok(s.bindings == 100 && s.sum == 2 * 49 * 25);
}

static int no_bytes(netshm_slice key, netshm_slice val, void *arg)
{
    (void)key;
    (void)val;
    (void)arg;
    return NETSHM_STOP;
}

static void raw_calls(void)
{
    netshm_hashtbl *t = table("string", "int"), *x = NULL, *raw = NULL;
    char buffer[16];
    size_t len = 0;
    int64_t now = 0;
    int there = 9;
    netshm_value k[1], v[1];
    k[0] = netshm_str("k");
    is(netshm_hashtbl_add(t, "k", 1, "12345678", 8), NETSHM_E_TYPE);
    ok(strstr(last_text(), "raw bytes") != NULL && strstr(last_text(), "holds int") != NULL);
    is(netshm_hashtbl_find(t, "k", 1, buffer, sizeof buffer, &len), NETSHM_E_TYPE);
    is(netshm_hashtbl_iter(t, no_bytes, NULL), NETSHM_E_TYPE);
    good(netshm_hashtbl_iter_keys(t, no_bytes, NULL));
    good(netshm_hashtbl_incr(t, "k", 1, 5, 1, &now));
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(k), r));
    is(values(1)[0].as.i, 6);
    good(netshm_hashtbl_mem(t, "k", 1, &there));
    is(there, 1);
    good(netshm_hashtbl_remove(t, "k", 1, NULL));
    good(netshm_hashtbl_close(t));

    t = table("int", "string");
    is(netshm_hashtbl_mem(t, "12345678", 8, &there), NETSHM_E_TYPE);
    is(netshm_hashtbl_incr(t, "12345678", 8, 1, 1, NULL), NETSHM_E_TYPE);
    is(netshm_hashtbl_incr_v(t, k, 1, 1, 1, NULL), NETSHM_E_TYPE);
    good(netshm_hashtbl_close(t));

    /* Strings are the same bytes with and without types. */
    t = table(NULL, NULL);
    good(put(t, "k", "value"));
    good(netshm_hashtbl_manage_as(o, "string", "string", NULL, &x));
    good(netshm_hashtbl_find_v(x, NETSHM_CELLS(k), r));
    ok(text_is(values(1), "value"));
    v[0] = netshm_bytes("other", 5);
    good(netshm_hashtbl_replace_v(x, NETSHM_CELLS(k), NETSHM_CELLS(v)));
    is(has(t, "k", "other"), 1);
    is(has(x, "k", "other"), 1);
    good(netshm_hashtbl_manage_as(o, "bytes", NULL, NULL, &raw));
    good(netshm_hashtbl_find_v(raw, NETSHM_CELLS(k), r));
    ok(text_is(values(1), "other"));
    is(netshm_hashtbl_manage_as(o, "int", NULL, NULL, &t), NETSHM_E_TYPE);
    good(netshm_hashtbl_close(t));
    good(netshm_hashtbl_close(x));
    good(netshm_hashtbl_close(raw));
}

static void mismatches(void)
{
    netshm_hashtbl *t = table("string", "(int,string?)"), *x = NULL;
    netshm_type *k = parsed("string"), *v = parsed("(int,string)"), *half = parsed("(int,_)");
    netshm_value key[1], val[2];
    key[0] = netshm_str("key");
    val[0] = netshm_int(42);
    val[1] = netshm_none();
    good(netshm_hashtbl_add_v(t, NETSHM_CELLS(key), NETSHM_CELLS(val)));
    good(netshm_hashtbl_close(t));

    is(netshm_hashtbl_manage(o, k, v, NULL, &x), NETSHM_E_TYPE);
    ok(strstr(last_text(), "values of type (int,string),") != NULL);
    ok(strstr(last_text(), "values of type (int,string?)") != NULL);
    is(netshm_hashtbl_manage(o, v, NULL, NULL, &x), NETSHM_E_TYPE);
    is(netshm_hashtbl_manage_as(o, "string", "(int,string", NULL, &x), NETSHM_E_INVALID);
    ok(last().argument == 3 && last().offset == 11);
    is(netshm_hashtbl_manage(o, (netshm_type *)o, NULL, NULL, &x), NETSHM_E_INVALID);
    is(last().argument, 2);
    ok(x == NULL);

    /* Whatever is recorded. */
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &x));
    good(netshm_hashtbl_find_v(x, NETSHM_CELLS(key), r));
    is(values(2)[1].kind, NETSHM_V_NONE);
    good(netshm_hashtbl_close(x));

    /* The left half is for reading. */
    good(netshm_hashtbl_manage(o, k, half, NULL, &x));
    good(netshm_hashtbl_find_v(x, NETSHM_CELLS(key), r));
    is(values(1)[0].as.i, 42);
    is(netshm_hashtbl_replace_v(x, NETSHM_CELLS(key), val, 1), NETSHM_E_TYPE);
    good(netshm_hashtbl_remove_v(x, NETSHM_CELLS(key), NULL));
    good(netshm_hashtbl_close(x));
    netshm_close(o);
    o = NULL;
    good(place_open(place_new(), CREATE, &o));
    is(netshm_hashtbl_manage(o, k, half, NULL, &x), NETSHM_E_INVALID);
    is(last().argument, 3);
    good(netshm_type_close(k));
    good(netshm_type_close(v));
    good(netshm_type_close(half));
}

/* A custom type: points, which are counted. */
struct point { int32_t x, y; };
static int points, encode_answer, decode_answer;

static int encode(const void *object, netshm_update *out, void *arg)
{
    const struct point *p = (const struct point *)object;
    if (arg != &points) return -1001;
    if (encode_answer == 77) return NETSHM_OK;
    if (netshm_update_set(out, &p->x, sizeof p->x) != NETSHM_OK) return -1002;
    if (netshm_update_append(out, &p->y, sizeof p->y) != NETSHM_OK) return -1003;
    return encode_answer;
}

static int decode(netshm_slice bytes, void **object, void *arg)
{
    struct point *p;
    const netshm_value *v;
    size_t n;
    if (arg != &points) return -1001;
    if (netshm_result_values(r, &v, &n) != NETSHM_E_BUSY) return -1004;
    if (decode_answer != 0) return decode_answer;
    if (bytes.len != sizeof *p) return NETSHM_E_CORRUPT;
    p = (struct point *)malloc(sizeof *p);
    memcpy(p, bytes.data, sizeof *p);
    *object = p;
    points++;
    return NETSHM_OK;
}

static void drop(void *object, void *arg)
{
    if (arg == &points) points--;
    free(object);
}

static void custom(void)
{
    netshm_custom c;
    netshm_type *point = NULL, *pair = NULL, *string = parsed("string");
    netshm_hashtbl *t = NULL, *opaque = NULL;
    struct point a = { 3, 4 }, b = { 5, 6 };
    netshm_value key[1], val[2];
    const netshm_value *v = NULL;
    size_t n = 0;
    memset(&c, 0, sizeof c);
    c.size = sizeof c;
    c.name = "point";
    c.arg = &points;
    c.encode = encode;
    is(netshm_type_custom(&c, &point), NETSHM_E_INVALID);
    c.decode = decode;
    c.drop = drop;
    c.name = "p o";
    is(netshm_type_custom(&c, &point), NETSHM_E_INVALID);
    c.name = NULL;
    is(netshm_type_custom(&c, &point), NETSHM_E_INVALID);
    c.name = "point";
    c.size = 8;
    is(netshm_type_custom(&c, &point), NETSHM_E_INVALID);
    c.size = sizeof c;
    good(netshm_type_custom(&c, &point));
    ok(signature_is(point, "custom:point"));
    good(netshm_type_pair(point, point, &pair));
    good(netshm_type_close(point));
    netshm_close(o);
    o = NULL;
    good(place_open(place_new(), CREATE, &o));
    good(netshm_hashtbl_manage(o, string, pair, NULL, &t));
    good(netshm_type_close(string));
    good(netshm_type_close(pair));

    key[0] = netshm_str("segment");
    val[0] = netshm_custom_object(&a);
    val[1] = netshm_custom_object(&b);
    good(netshm_hashtbl_add_v(t, NETSHM_CELLS(key), NETSHM_CELLS(val)));
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r));
    v = values(2);
    ok(v[0].kind == NETSHM_V_CUSTOM && ((struct point *)v[0].as.object)->y == 4);
    ok(v[1].kind == NETSHM_V_CUSTOM && ((struct point *)v[1].as.object)->x == 5);
    is(points, 2);
    good(netshm_hashtbl_find_all_v(t, NETSHM_CELLS(key), r, &n));
    is(points, 2);

    /* Failing callbacks: their answers come through, and nothing changes. */
    decode_answer = -1234;
    is(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r), -1234);
    is(points, 0);
    is(netshm_result_values(r, &v, &n), NETSHM_E_NOT_FOUND);
    decode_answer = 5;
    is(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r), NETSHM_E_CALLBACK);
    decode_answer = 0;
    encode_answer = -1235;
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), NETSHM_CELLS(val)), -1235);
    encode_answer = 1;
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), NETSHM_CELLS(val)), NETSHM_E_CALLBACK);
    encode_answer = 77;
    is(netshm_hashtbl_replace_v(t, NETSHM_CELLS(key), NETSHM_CELLS(val)), NETSHM_E_CALLBACK);
    encode_answer = 0;
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r));
    is(points, 2);

    /* Who does not know the type sees its bytes; and what another program wrote need not decode. */
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &opaque));
    good(netshm_hashtbl_find_v(opaque, NETSHM_CELLS(key), r));
    is(points, 0);
    v = values(2);
    ok(v[0].kind == NETSHM_V_BYTES && v[0].as.s.len == sizeof a && memcmp(v[0].as.s.data, &a, sizeof a) == 0);
    val[0] = netshm_bytes(&b, sizeof b);
    val[1] = netshm_bytes("short", 5);
    good(netshm_hashtbl_replace_v(opaque, NETSHM_CELLS(key), NETSHM_CELLS(val)));
    is(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r), NETSHM_E_CORRUPT);
    is(points, 0);
    val[1] = netshm_bytes(&a, sizeof a);
    good(netshm_hashtbl_replace_v(opaque, NETSHM_CELLS(key), NETSHM_CELLS(val)));
    good(netshm_hashtbl_find_v(t, NETSHM_CELLS(key), r));
    is(points, 2);
    good(netshm_hashtbl_close(opaque));
    good(netshm_hashtbl_close(t));
}

/* Every typed call refuses this table with this code. */
static void all_hashtbls(netshm_hashtbl *h, int code)
{
    netshm_value k[1];
    size_t n = 0;
    int number = 0;
    k[0] = netshm_str("k");
    is(netshm_hashtbl_add_v(h, k, 1, k, 1), code);
    is(netshm_hashtbl_replace_v(h, k, 1, k, 1), code);
    is(netshm_hashtbl_insert_v(h, k, 1, k, 1), code);
    is(netshm_hashtbl_remove_v(h, k, 1, NULL), code);
    is(netshm_hashtbl_mem_v(h, k, 1, &number), code);
    is(netshm_hashtbl_find_v(h, k, 1, r), code);
    is(netshm_hashtbl_find_all_v(h, k, 1, r, &n), code);
    is(netshm_hashtbl_incr_v(h, k, 1, 1, 1, NULL), code);
    is(netshm_hashtbl_iter_v(h, see, NULL), code);
    is(netshm_hashtbl_iter_keys_v(h, see, NULL), code);
    is(netshm_hashtbl_close(h), code);
}

static void all_types(netshm_type *h, int code)
{
    const char *text = NULL;
    netshm_type *x = NULL;
    netshm_hashtbl *t = NULL;
    is(netshm_type_signature(h, &text), code);
    is(netshm_type_pair(h, h, &x), code);
    is(netshm_type_left(h, &x), code);
    is(netshm_type_option(h, &x), code);
    is(netshm_hashtbl_manage(o, h, NULL, NULL, &t), code);
    is(netshm_hashtbl_manage(o, NULL, h, NULL, &t), code);
    is(netshm_type_close(h), code);
}

static void all_results(netshm_result *h, netshm_hashtbl *t, int code)
{
    const netshm_value *v = NULL;
    netshm_value k[1];
    size_t n = 0;
    k[0] = netshm_str("k");
    is(netshm_result_values(h, &v, &n), code);
    is(netshm_result_at(h, 0, &v, &n), code);
    is(netshm_hashtbl_find_v(t, k, 1, h), code);
    is(netshm_hashtbl_find_all_v(t, k, 1, h, &n), code);
    is(netshm_result_free(h), code);
}

static void handles(void)
{
    static uint64_t junk[64];
    netshm_hashtbl *t = table("string", "string");
    netshm_type *type = parsed("int");
    netshm_result *other = NULL;
    good(netshm_result_new(&other));
    all_hashtbls((netshm_hashtbl *)type, NETSHM_E_INVALID);
    all_hashtbls((netshm_hashtbl *)r, NETSHM_E_INVALID);
    all_hashtbls((netshm_hashtbl *)junk, NETSHM_E_CLOSED);
    all_types((netshm_type *)t, NETSHM_E_INVALID);
    all_types((netshm_type *)junk, NETSHM_E_CLOSED);
    all_results((netshm_result *)t, t, NETSHM_E_INVALID);
    all_results((netshm_result *)junk, t, NETSHM_E_CLOSED);
    good(netshm_result_free(other));
    all_results(other, t, NETSHM_E_CLOSED);
    good(netshm_type_close(type));
    all_types(type, NETSHM_E_CLOSED);
    good(netshm_hashtbl_close(t));
    all_hashtbls(t, NETSHM_E_CLOSED);
    t = table("int", "string");
    good(netshm_hashtbl_close(t));
    all_hashtbls(t, NETSHM_E_CLOSED);
    t = table("int", "int64");
    good(netshm_hashtbl_close(t));
    all_hashtbls(t, NETSHM_E_CLOSED);
}

int main(void)
{
    netshm_result *other = NULL;
    good(netshm_result_new(&r));
    is(netshm_result_new(NULL), NETSHM_E_INVALID);
    good(netshm_result_new(&other));
    good(netshm_result_free(other));
    is(netshm_result_free(other), NETSHM_E_CLOSED);
    good(netshm_result_free(NULL));
    types();
    every_kind();
    stacks("string", netshm_str("a"), netshm_str("b"), "(int,string)", 2);
    stacks("int", netshm_int(-1), netshm_int(1), "int64", 1);
    stacks("double", netshm_double(0.5), netshm_double(-0.5), "nativeint", 1);
    stacks("string", netshm_str(""), netshm_str("b"), "int32", 1);
    words();
    walks();
    raw_calls();
    mismatches();
    custom();
    handles();
    good(netshm_result_free(r));
    is(points, 0);
    netshm_close(o);
    return done();
}
