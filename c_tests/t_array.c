/* Goal: arrays as the header describes them. Method: every function, indices around the ends, slices, groups,
 * several processes, wrong arguments. */
#include "support.h"

enum { LENGTH = 10000 };

static netshm_array *open_array(const place *p, int64_t dflt, uint64_t length)
{
    netshm_object *o = NULL;
    netshm_array *a = NULL;
    good(place_open(p, CREATE, &o));
    good(netshm_array_manage_int64(o, dflt, length, NULL, &a));
    good(netshm_close(o));
    return a;
}

static void elements(netshm_array *a)
{
    int64_t value = 99, now = 99;
    uint64_t n = 99;

    good(netshm_array_length(a, &n));
    is(n, LENGTH);
    good(netshm_array_get_int64(a, 0, &value));
    is(value, -7);
    is(netshm_array_get_int64(a, LENGTH, &value), NETSHM_E_RANGE);
    is(netshm_array_get_int64(a, UINT64_MAX, &value), NETSHM_E_RANGE);
    is(value, -7);
    is(netshm_array_set_int64(a, LENGTH, 1), NETSHM_E_RANGE);
    good(netshm_array_set_int64(a, LENGTH - 1, INT64_MAX));
    is(netshm_array_incr(a, LENGTH - 1, 1, &now), NETSHM_E_OVERFLOW);
    is(now, 99);
    good(netshm_array_incr(a, LENGTH - 1, -7, &now));
    ok(now == INT64_MAX - 7);
    good(netshm_array_incr(a, 5, 1, NULL));
    good(netshm_array_get_int64(a, 5, &value));
    is(value, -6);
    is(netshm_array_incr(a, LENGTH, 1, &now), NETSHM_E_RANGE);
}

static void slices(netshm_array *a)
{
    static int64_t in[LENGTH], out[LENGTH];
    int i, same = 1;

    for (i = 0; i < LENGTH; i++) in[i] = i * 3;
    good(netshm_array_write(a, 10, LENGTH - 20, in, 8));
    good(netshm_array_read(a, 0, LENGTH, out, 8));
    for (i = 10; i < LENGTH - 10; i++) same = same && out[i] == (i - 10) * 3;
    ok(same);
    is(out[0], -7);
    is(out[5], -6);
    is(out[LENGTH - 2], -7);
    is(netshm_array_read(a, 1, LENGTH, out, 8), NETSHM_E_RANGE);
    is(netshm_array_write(a, 1, LENGTH, in, 8), NETSHM_E_RANGE);
    is(netshm_array_read(a, 0, SIZE_MAX, out, 8), NETSHM_E_RANGE);
    is(netshm_array_read(a, 0, 1, out, 4), NETSHM_E_INVALID);
    is(last().argument, 5);
    good(netshm_array_read(a, LENGTH, 0, NULL, 8));
    is(netshm_array_read(a, LENGTH + 1, 0, NULL, 8), NETSHM_E_RANGE);
    is(netshm_array_read(a, 0, 1, NULL, 8), NETSHM_E_INVALID);
    is(netshm_array_write(a, 0, 1, NULL, 8), NETSHM_E_INVALID);
}

typedef struct seen { uint64_t count, indices; int stop_after; int answer; } seen;

static int see(uint64_t i, netshm_slice encoded, void *arg)
{
    seen *s = (seen *)arg;
    s->count++;
    s->indices += i;
    if (encoded.len != 8) return -2000;
    return s->stop_after && s->count == (uint64_t)s->stop_after ? s->answer : NETSHM_CONTINUE;
}

static void walking(const place *p)
{
    netshm_array *a = open_array(p, 0, (uint64_t)1 << 40);
    seen s = { 0, 0, 0, 0 };
    good(netshm_array_iter(a, see, &s));
    is(s.count, 0);
    good(netshm_array_set_int64(a, 3, 1));
    good(netshm_array_set_int64(a, ((uint64_t)1 << 40) - 1, 2));
    good(netshm_array_set_int64(a, (uint64_t)1 << 39, 3));
    good(netshm_array_iter(a, see, &s));
    is(s.count, 3);
    ok(s.indices == 3 + ((uint64_t)1 << 40) - 1 + ((uint64_t)1 << 39));
    s.count = 0;
    s.stop_after = 2;
    good(netshm_array_iter(a, see, &s));
    is(s.count, 2);
    s.count = 0;
    s.answer = -1234;
    is(netshm_array_iter(a, see, &s), -1234);
    is(netshm_array_iter(a, NULL, NULL), NETSHM_E_INVALID);
    good(netshm_array_close(a));
}

static void resizing(netshm_array *a)
{
    int64_t value = 0;
    uint64_t n = 0;
    good(netshm_array_set_int64(a, 100, 5));
    good(netshm_array_resize(a, 100));
    is(netshm_array_get_int64(a, 100, &value), NETSHM_E_RANGE);
    good(netshm_array_resize(a, LENGTH));
    good(netshm_array_get_int64(a, 100, &value));
    is(value, -7);
    good(netshm_array_get_int64(a, 99, &value));
    is(value, 89 * 3);
    is(netshm_array_resize(a, ((uint64_t)1 << 48) + 1), NETSHM_E_TOO_LARGE);
    good(netshm_array_length(a, &n));
    is(n, LENGTH);
}

static void groups(netshm_array *a)
{
    netshm_txn *x = NULL;
    int64_t value = 0, pair[2] = { 8, 9 };
    uint64_t n = 0;
    good(netshm_group_begin(netshm_array_table(a), &x));
    good(netshm_array_set_int64(a, 1, 11));
    good(netshm_array_write(a, 2, 2, pair, 8));
    good(netshm_array_resize(a, 50));
    good(netshm_array_get_int64(a, 3, &value));
    is(value, 9);
    is(netshm_array_get_int64(a, 50, &value), NETSHM_E_RANGE);
    good(netshm_group_abort(x));
    good(netshm_array_length(a, &n));
    is(n, LENGTH);
    good(netshm_array_get_int64(a, 1, &value));
    is(value, -7);
    good(netshm_group_begin(netshm_array_table(a), &x));
    good(netshm_array_set_int64(a, 1, 12));
    good(netshm_group_commit(x));
    good(netshm_array_get_int64(a, 1, &value));
    is(value, 12);
}

static int count_in_child(void *arg)
{
    netshm_array *a = (netshm_array *)arg;
    int i;
    for (i = 0; i < 1000; i++)
        if (netshm_array_incr(a, 2, 1, NULL) != NETSHM_OK) return 1;
    return 0;
}

static void processes(netshm_array *a)
{
    int64_t value = 0;
    good(netshm_array_set_int64(a, 2, 0));
    is(in_child(count_in_child, a), 0);
    is(count_in_child(a), 0);
    good(netshm_array_get_int64(a, 2, &value));
    is(value, 2000);
}

static void wrong(netshm_array *a, const place *p)
{
    netshm_object *o = NULL;
    netshm_array *none = NULL;
    int64_t value = 0;
    uint64_t n = 0;
    is(netshm_array_manage_int64(NULL, 0, 0, NULL, &none), NETSHM_E_INVALID);
    good(place_open(p, RW, &o));
    is(netshm_array_manage_int64(o, 0, 0, NULL, NULL), NETSHM_E_INVALID);
    is(netshm_array_manage_int64(o, 0, ((uint64_t)1 << 48) + 1, NULL, &none), NETSHM_E_TOO_LARGE);
    ok(none == NULL);
    is(netshm_array_length((netshm_array *)(void *)o, &n), NETSHM_E_INVALID);
    good(netshm_close(o));
    is(netshm_array_length(NULL, &n), NETSHM_E_INVALID);
    is(netshm_array_length(a, NULL), NETSHM_E_INVALID);
    is(netshm_array_get_int64(NULL, 0, &value), NETSHM_E_INVALID);
    is(netshm_array_get_int64(a, 0, NULL), NETSHM_E_INVALID);
    is(netshm_array_set_int64(NULL, 0, 1), NETSHM_E_INVALID);
    is(netshm_array_incr(NULL, 0, 1, NULL), NETSHM_E_INVALID);
    is(netshm_array_resize(NULL, 0), NETSHM_E_INVALID);
    is(netshm_array_iter(NULL, see, NULL), NETSHM_E_INVALID);
    is(netshm_array_read(NULL, 0, 0, NULL, 8), NETSHM_E_INVALID);
    is(netshm_array_write(NULL, 0, 0, NULL, 8), NETSHM_E_INVALID);
    ok(netshm_array_table(NULL) == NULL);
    good(netshm_array_close(NULL));
}

int main(void)
{
    place *p = place_new();
    netshm_array *a = open_array(p, -7, LENGTH), *again;
    int64_t value = 0;
    elements(a);
    slices(a);
    resizing(a);
    groups(a);
    processes(a);
    wrong(a, p);
    again = open_array(p, 1, 5);
    good(netshm_array_close(a));
    is(netshm_array_get_int64(a, 0, &value), NETSHM_E_CLOSED);
    good(netshm_array_get_int64(again, 0, &value));
    is(value, -7);
    good(netshm_array_close(again));
    walking(place_new());
    good(place_check(p));
    return done();
}
