/* Goal: arrays of any type. Method: elements of fixed and of variable size, pairs, options; walks; wrong types and
 * cells. */
#include "support.h"

static netshm_result *r;

static int manage_with(const place *p, const char *signature, const netshm_value *dflt, size_t nd, uint64_t length,
                       uint32_t flags, netshm_array **out)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_object *o = NULL;
    netshm_type *type = NULL;
    int code = place_open(p, CREATE, &o);
    options.flags = flags;
    if (code == NETSHM_OK) code = netshm_type_parse(signature, &type);
    if (code == NETSHM_OK) code = netshm_array_manage(o, type, dflt, nd, length, &options, out);
    netshm_type_close(type);
    netshm_close(o);
    return code;
}

static int manage(const place *p, const char *signature, const netshm_value *dflt, size_t nd, uint64_t length,
                  netshm_array **out)
{
    return manage_with(p, signature, dflt, nd, length, 0, out);
}

static const netshm_value *got(size_t wanted)
{
    static netshm_value none;
    const netshm_value *v = NULL;
    size_t n = 0;
    good(netshm_result_values(r, &v, &n));
    is(n, wanted);
    return n == wanted ? v : &none;
}

static void strings(void)
{
    place *p = place_new();
    netshm_array *a = NULL;
    netshm_value dflt[1], v[1];
    uint64_t n = 0;
    char buffer[8];
    dflt[0] = netshm_str("nothing");
    good(manage(p, "string", dflt, 1, 1000, &a));
    good(netshm_array_get(a, 999, r));
    ok(strcmp((const char *)got(1)->as.s.data, "nothing") == 0);
    v[0] = netshm_str("some text that is longer than eight bytes");
    good(netshm_array_set(a, 999, v, 1));
    good(netshm_array_get(a, 999, r));
    ok(strcmp((const char *)got(1)->as.s.data, "some text that is longer than eight bytes") == 0);
    good(netshm_array_default(a, r));
    is(got(1)->as.s.len, 7);
    is(netshm_array_get(a, 1000, r), NETSHM_E_RANGE);
    is(netshm_array_set(a, 1000, v, 1), NETSHM_E_RANGE);
    is(netshm_array_get_int64(a, 1, (int64_t *)(void *)&n), NETSHM_E_TYPE);
    is(netshm_array_read(a, 0, 1, buffer, 8), NETSHM_E_TYPE);
    v[0] = netshm_int(5);
    is(netshm_array_set(a, 1, v, 1), NETSHM_E_TYPE);
    good(netshm_array_close(a));
    a = NULL;
    is(manage(p, "int", v, 1, 5, &a), NETSHM_E_TYPE);
    ok(a == NULL);
    good(place_check(p));
}

static void numbers(void)
{
    place *p = place_new();
    netshm_array *a = NULL;
    netshm_value v[1];
    int32_t in[4], out[4];
    int64_t now = 0;
    int i;
    v[0] = netshm_int(-1);
    good(manage(p, "int32", v, 1, 100000, &a));
    for (i = 0; i < 4; i++) in[i] = 10 + i;
    good(netshm_array_write(a, 3965, 4, in, 4));
    good(netshm_array_read(a, 3964, 4, out, 4));
    ok(out[0] == -1 && out[1] == 10 && out[2] == 11 && out[3] == 12);
    good(netshm_array_incr(a, 3965, 5, &now));
    is(now, 15);
    v[0] = netshm_int(INT32_MAX);
    good(netshm_array_set(a, 7, v, 1));
    is(netshm_array_incr(a, 7, 1, &now), NETSHM_E_OVERFLOW);
    is(netshm_array_set_int64(a, 7, (int64_t)INT32_MAX + 1), NETSHM_E_OVERFLOW);
    good(netshm_array_get(a, 7, r));
    is(got(1)->as.i, INT32_MAX);
    good(netshm_array_get(a, 6, r));
    is(got(1)->as.i, -1);
    good(netshm_array_close(a));
    good(place_check(p));
}

static void pairs(void)
{
    place *p = place_new();
    netshm_array *a = NULL;
    netshm_value v[3];
    v[0] = netshm_int(1);
    v[1] = netshm_none();
    good(manage(p, "(int,string?)", v, 2, 10, &a));
    v[0] = netshm_int(2);
    v[1] = netshm_some();
    v[2] = netshm_str("two");
    good(netshm_array_set(a, 2, v, 3));
    good(netshm_array_get(a, 2, r));
    ok(got(3)[0].as.i == 2);
    good(netshm_array_get(a, 3, r));
    ok(got(2)[0].as.i == 1);
    is(netshm_array_set(a, 2, v, 1), NETSHM_E_TYPE);
    good(netshm_array_close(a));
    is(manage(place_new(), "(int,_)", v, 1, 10, &a), NETSHM_E_UNSUPPORTED);
    good(place_check(p));

    p = place_new();
    v[0] = netshm_int(1);
    v[1] = netshm_int(2);
    good(manage(p, "(int,int32)", v, 2, 5000, &a));
    v[0] = netshm_int(3);
    good(netshm_array_set(a, 4999, v, 2));
    good(netshm_array_get(a, 4999, r));
    ok(got(2)[0].as.i == 3 && got(2)[1].as.i == 2);
    good(netshm_array_get(a, 4998, r));
    ok(got(2)[0].as.i == 1 && got(2)[1].as.i == 2);
    good(netshm_array_close(a));
    good(place_check(p));
}

static uint64_t length_of(netshm_array *a)
{
    uint64_t n = UINT64_MAX;
    good(netshm_array_length(a, &n));
    return n;
}

/* An array keeps type, length and default value, whoever manages it again, until it is made again. */
static void managed_again(void)
{
    place *p = place_new();
    netshm_array *a = NULL, *again = NULL;
    netshm_value dflt[1], v[1];
    dflt[0] = netshm_str("first");
    good(manage(p, "string", dflt, 1, 0, &a));
    is(length_of(a), 0);
    is(netshm_array_get(a, 0, r), NETSHM_E_RANGE);
    good(netshm_array_resize(a, 10));
    v[0] = netshm_str("set");
    good(netshm_array_set(a, 9, v, 1));
    dflt[0] = netshm_str("second");
    good(manage(p, "string", dflt, 1, 5, &again));
    is(length_of(again), 10);
    good(netshm_array_get(again, 0, r));
    ok(strcmp((const char *)got(1)->as.s.data, "first") == 0);
    good(netshm_array_close(again));
    v[0] = netshm_int(0);
    again = NULL;
    is(manage(p, "int", v, 1, 5, &again), NETSHM_E_TYPE);
    ok(again == NULL && strstr(last_text(), "string") != NULL && strstr(last_text(), "int") != NULL);
    good(netshm_array_get(a, 9, r));
    ok(strcmp((const char *)got(1)->as.s.data, "set") == 0);
    good(manage_with(p, "string", dflt, 1, 20, NETSHM_REINIT, &again));
    is(length_of(again), 20);
    is(length_of(a), 20);
    good(netshm_array_get(a, 9, r));
    ok(strcmp((const char *)got(1)->as.s.data, "second") == 0);
    good(netshm_array_close(a));
    good(netshm_array_close(again));
    good(place_check(p));
}

static const char *text_of(netshm_array *a, uint64_t i)
{
    good(netshm_array_get(a, i, r));
    return (const char *)got(1)->as.s.data;
}

/* NULL is whatever an array records: its type, its default value, or both. A new one needs both. */
static void recorded(void)
{
    place *p = place_new();
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_object *o = NULL, *reader = NULL;
    netshm_array *a = NULL, *again = NULL;
    netshm_type *string = NULL, *other = NULL, *half = NULL;
    netshm_hashtbl *h = NULL;
    netshm_value v[2];
    netshm_root_info *roots = NULL;
    struct stat st;
    int64_t number = 0;
    size_t n = 99;
    int fd = -1;
    good(netshm_type_parse("string", &string));
    good(netshm_type_parse("int", &other));
    good(netshm_type_parse("(string,_)", &half));
    v[0] = netshm_str("nothing");
    v[1] = netshm_int(0);
    good(netshm_open(NETSHM_POSIX, p->file, p->mem, CREATE, 0600, &o));

    /* Without an array nothing is made, not even the object's header. */
    is(netshm_array_manage(o, NULL, v, 1, 5, NULL, &a), NETSHM_E_INVALID);
    is(last().argument, 2);
    ok(strstr(last_text(), "a new array needs it") != NULL);
    is(netshm_array_manage(o, string, NULL, 0, 5, NULL, &a), NETSHM_E_INVALID);
    is(last().argument, 3);
    good(netshm_fd(o, &fd));
    ok(fstat(fd, &st) == 0 && st.st_size == 0);
    good(settle_locking(o));
    options.root = "texts";
    is(netshm_array_manage(o, NULL, NULL, 0, 0, &options, &a), NETSHM_E_INVALID);
    is(netshm_array_manage(o, string, NULL, 0, 0, &options, &a), NETSHM_E_INVALID);
    good(netshm_roots(o, &roots, &n));
    is(n, 0);
    ok(a == NULL);

    good(netshm_array_manage(o, string, v, 1, 10, &options, &a));
    good(netshm_array_set(a, 9, v, 1));
    good(netshm_array_manage(o, NULL, NULL, 0, 0, &options, &again));
    is(length_of(again), 10);
    ok(strcmp(text_of(again, 0), "nothing") == 0);
    v[0] = netshm_str("something");
    good(netshm_array_set(again, 1, v, 1));
    ok(strcmp(text_of(a, 1), "something") == 0);
    is(netshm_array_set(again, 1, v + 1, 1), NETSHM_E_TYPE);
    is(netshm_array_get_int64(again, 1, &number), NETSHM_E_TYPE);
    good(netshm_array_close(again));
    /* What is given besides does not matter without a type. */
    good(netshm_array_manage(o, NULL, v + 1, 77, UINT64_MAX, &options, &again));
    is(length_of(again), 10);
    good(netshm_array_close(again));
    good(netshm_array_manage(o, string, NULL, 0, 3, &options, &again));
    ok(strcmp(text_of(again, 0), "nothing") == 0 && strcmp(text_of(again, 1), "something") == 0);
    good(netshm_array_close(again));
    again = NULL;
    is(netshm_array_manage(o, string, NULL, 1, 3, &options, &again), NETSHM_E_INVALID);
    is(netshm_array_manage(o, other, NULL, 0, 3, &options, &again), NETSHM_E_TYPE);
    ok(strstr(last_text(), "string") != NULL && strstr(last_text(), "int") != NULL);
    is(netshm_array_manage(o, half, NULL, 0, 3, &options, &again), NETSHM_E_UNSUPPORTED);
    options.flags = NETSHM_REINIT;
    is(netshm_array_manage(o, NULL, NULL, 0, 3, &options, &again), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_array_manage(o, string, NULL, 0, 3, &options, &again), NETSHM_E_INVALID);
    is(last().argument, 3);
    options.flags = 0;
    is(length_of(a), 10);
    ok(strcmp(text_of(a, 1), "something") == 0);

    /* Elements in chunks; and by an object that is open for reading only. */
    options.root = "numbers";
    good(netshm_array_manage_int64(o, -7, 100, &options, &again));
    good(netshm_array_set_int64(again, 99, 5));
    good(netshm_array_close(again));
    good(place_open(p, NETSHM_RDONLY, &reader));
    good(netshm_array_manage(reader, NULL, NULL, 0, 0, &options, &again));
    good(netshm_array_get_int64(again, 99, &number));
    is(number, 5);
    good(netshm_array_get_int64(again, 98, &number));
    is(number, -7);
    good(netshm_array_read(again, 99, 1, &number, 8));
    is(number, 5);
    is(netshm_array_set_int64(again, 98, 1), NETSHM_E_READ_ONLY);
    good(netshm_array_close(again));
    again = NULL;
    options.root = "none";
    is(netshm_array_manage(reader, NULL, NULL, 0, 0, &options, &again), NETSHM_E_INVALID);
    options.root = "table";
    good(netshm_hashtbl_manage(o, NULL, NULL, &options, &h));
    is(netshm_array_manage(o, NULL, NULL, 0, 0, &options, &again), NETSHM_E_KIND);
    ok(again == NULL);

    good(netshm_hashtbl_close(h));
    good(netshm_array_close(a));
    good(netshm_close(reader));
    good(netshm_close(o));
    good(netshm_type_close(string));
    good(netshm_type_close(other));
    good(netshm_type_close(half));
    good(place_check(p));
}

struct seen { int calls, stop_after, answer, wrong; uint64_t indices; netshm_array *close; };

/* Element i is the pair of i and a text, or of i and none. */
static int see(uint64_t i, const netshm_value *v, size_t n, void *arg)
{
    struct seen *s = (struct seen *)arg;
    s->calls++;
    s->indices += i;
    if (v[0].kind != NETSHM_V_INT || v[0].as.i != (int64_t)i) s->wrong++;
    if (i % 2 == 0 && (n != 3 || v[1].kind != NETSHM_V_SOME || strcmp((const char *)v[2].as.s.data, "even") != 0))
        s->wrong++;
    if (i % 2 == 1 && (n != 2 || v[1].kind != NETSHM_V_NONE)) s->wrong++;
    if (s->close != NULL) good(netshm_array_close(s->close));
    s->close = NULL;
    return s->calls == s->stop_after ? s->answer : NETSHM_CONTINUE;
}

static int is_number(uint64_t i, const netshm_value *v, size_t n, void *arg)
{
    (void)i;
    *(int64_t *)arg += n == 1 && v[0].kind == NETSHM_V_INT ? v[0].as.i : 1000000;
    return NETSHM_CONTINUE;
}

static void walking(void)
{
    place *p = place_new();
    netshm_array *a = NULL, *closed;
    netshm_value v[3];
    struct seen s;
    int64_t sum = 0;
    int i;
    v[0] = netshm_int(-1);
    v[1] = netshm_none();
    good(manage(p, "(int,string?)", v, 2, (uint64_t)1 << 40, &a));
    memset(&s, 0, sizeof s);
    good(netshm_array_iter_v(a, see, &s));
    is(s.calls, 0);
    for (i = 0; i < 10; i++) {
        v[0] = netshm_int(i);
        v[1] = i % 2 == 0 ? netshm_some() : netshm_none();
        v[2] = netshm_str("even");
        good(netshm_array_set(a, (uint64_t)i, v, i % 2 == 0 ? 3 : 2));
    }
    good(netshm_array_iter_v(a, see, &s));
    ok(s.calls == 10 && s.wrong == 0 && s.indices == 45);
    memset(&s, 0, sizeof s);
    s.stop_after = 4;
    good(netshm_array_iter_v(a, see, &s));
    is(s.calls, 4);
    s.calls = 0;
    s.answer = -1500;
    is(netshm_array_iter_v(a, see, &s), -1500);
    s.calls = 0;
    s.answer = -500;
    is(netshm_array_iter_v(a, see, &s), NETSHM_E_CALLBACK);
    is(netshm_array_iter_v(a, NULL, &s), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_array_iter_v(NULL, see, &s), NETSHM_E_INVALID);
    memset(&s, 0, sizeof s);
    closed = s.close = a;
    good(netshm_array_iter_v(a, see, &s));
    ok(s.calls == 10 && s.wrong == 0);
    is(netshm_array_iter_v(closed, see, &s), NETSHM_E_CLOSED);

    /* Elements in chunks, some of them, of which many are not set. */
    p = place_new();
    a = NULL;
    v[0] = netshm_int(7);
    good(manage(p, "int32", v, 1, 1000000, &a));
    for (i = 0; i < 1000000; i += 99999) good(netshm_array_set_int64(a, (uint64_t)i, -i));
    good(netshm_array_iter_v(a, is_number, &sum));
    is(sum, -55 * 99999);
    good(netshm_array_close(a));
}

int main(void)
{
    netshm_array *a = NULL;
    good(netshm_result_new(&r));
    strings();
    numbers();
    pairs();
    managed_again();
    recorded();
    walking();
    is(netshm_array_get(NULL, 0, r), NETSHM_E_INVALID);
    is(netshm_array_set(NULL, 0, NULL, 0), NETSHM_E_INVALID);
    is(netshm_array_default(NULL, r), NETSHM_E_INVALID);
    is(netshm_array_manage(NULL, NULL, NULL, 0, 0, NULL, &a), NETSHM_E_INVALID);
    good(netshm_result_free(r));
    return done();
}
