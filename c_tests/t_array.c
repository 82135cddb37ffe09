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

static void *length_by_another_thread(void *arg)
{
    uint64_t n = 0;
    return netshm_array_length((netshm_array *)arg, &n) == NETSHM_OK ? (void *)(uintptr_t)n : NULL;
}

/* A group over an array, which is resized in it, and a hash table beside it: all of it or nothing. */
static void groups_with_a_table(const place *p)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_object *o = NULL;
    netshm_array *a = NULL;
    netshm_hashtbl *h = NULL;
    netshm_txn *x = NULL, *inner = NULL;
    int64_t value = 0, in[3] = { 1, 2, 3 }, out[4] = { 0, 0, 0, 0 };
    uint64_t n = 0;
    void *seen_by_another = NULL;
    seen s = { 0, 0, 0, 0 };
    pthread_t thread;
    int commits, found = 9;
    good(place_open(p, CREATE, &o));
    good(netshm_array_manage_int64(o, -7, 10, NULL, &a));
    options.root = "table";
    good(netshm_hashtbl_manage(o, NULL, NULL, &options, &h));
    good(netshm_array_set_int64(a, 9, 9));
    good(put(h, "gone", "then"));
    for (commits = 0; commits < 2; commits++) {
        good(netshm_group_begin(commits ? netshm_hashtbl_table(h) : netshm_array_table(a), &x));
        good(netshm_array_set_int64(a, 5, 55));
        good(put(h, "k", "v"));
        good(netshm_array_resize(a, 20));
        good(netshm_array_set_int64(a, 15, 66));
        good(netshm_array_write(a, 16, 3, in, 8));
        good(netshm_hashtbl_remove(h, "gone", 4, NULL));
        good(netshm_array_resize(a, 7));
        good(netshm_array_resize(a, 30));
        good(netshm_array_get_int64(a, 9, &value));
        is(value, -7);
        good(netshm_array_get_int64(a, 16, &value));
        is(value, -7);
        good(netshm_array_write(a, 26, 3, in, 8));
        good(netshm_array_read(a, 25, 4, out, 8));
        ok(out[0] == -7 && out[1] == 1 && out[2] == 2 && out[3] == 3);
        good(netshm_array_length(a, &n));
        is(n, 30);
        memset(&s, 0, sizeof s);
        good(netshm_array_iter(a, see, &s));
        is(s.count, 4);
        is(has(h, "k", "v"), 1);
        is(has(h, "gone", "then"), NETSHM_E_NOT_FOUND);
        /* An inner group undoes its own changes alone. */
        good(netshm_group_begin(netshm_array_table(a), &inner));
        good(netshm_array_resize(a, 1));
        good(put(h, "k", "inner"));
        good(netshm_group_abort(inner));
        good(netshm_array_length(a, &n));
        is(n, 30);
        good(netshm_array_get_int64(a, 5, &value));
        is(value, 55);
        is(has(h, "k", "v"), 1);
        is(pthread_create(&thread, NULL, length_by_another_thread, a), 0);
        pthread_join(thread, &seen_by_another);
        is((uintptr_t)seen_by_another, 10);
        good(commits ? netshm_group_commit(x) : netshm_group_abort(x));

        good(netshm_array_length(a, &n));
        is(n, commits ? 30 : 10);
        good(netshm_array_get_int64(a, 5, &value));
        is(value, commits ? 55 : -7);
        good(netshm_array_get_int64(a, 9, &value));
        is(value, commits ? -7 : 9);
        is(netshm_array_get_int64(a, 26, &value), commits ? NETSHM_OK : NETSHM_E_RANGE);
        good(netshm_hashtbl_mem(h, "k", 1, &found));
        is(found, commits);
        good(netshm_hashtbl_mem(h, "gone", 4, &found));
        is(found, !commits);
        good(netshm_check(o, 0, NULL, NULL));
    }
    good(netshm_array_close(a));
    good(netshm_hashtbl_close(h));
    good(netshm_close(o));
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
    groups_with_a_table(place_new());
    good(place_check(p));
    return done();
}
