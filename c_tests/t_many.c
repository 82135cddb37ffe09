/* Goal: several keys in one call do what as many single calls do. Method: numbers of keys around those of a batch,
 * absent and repeated ones, values of all lengths, buffers that are too small; groups; objects open for reading only;
 * wrong arguments, which change nothing; a stop half-way, which tells where. */
#include "support.h"

enum { MOST = 70, STRIDE = 40 };

static char key_text[MOST][24], value_text[MOST][STRIDE];
static netshm_slice keys[MOST], vals[MOST];

/* Key i, value i: the same for the same `round`. */
static void prepare(int round)
{
    int i;
    for (i = 0; i < MOST; i++) {
        snprintf(key_text[i], sizeof key_text[i], "key %d", i);
        snprintf(value_text[i], sizeof value_text[i], "%d of round %d", i * i, round);
        keys[i].data = key_text[i];
        keys[i].len = strlen(key_text[i]);
        vals[i].data = value_text[i];
        vals[i].len = strlen(value_text[i]);
    }
}

/* Are the first n values found those that were prepared? */
static int all_there(netshm_hashtbl *t, size_t n)
{
    char buf[MOST * STRIDE];
    int64_t lens[MOST];
    netshm_slice *found = NULL;
    size_t i, wrong = 0;
    if (netshm_hashtbl_find_many_into(t, keys, n, buf, STRIDE, lens) != NETSHM_OK) return 0;
    if (netshm_hashtbl_find_many(t, keys, n, &found) != NETSHM_OK) return 0;
    for (i = 0; i < n; i++) {
        if (lens[i] != (int64_t)vals[i].len || memcmp(buf + i * STRIDE, vals[i].data, vals[i].len) != 0) wrong++;
        if (found[i].len != vals[i].len || memcmp(found[i].data, vals[i].data, vals[i].len) != 0) wrong++;
        if (has(t, key_text[i], value_text[i]) != 1) wrong++;
    }
    netshm_free(found);
    return wrong == 0;
}

static void as_single_calls(netshm_hashtbl *t)
{
    static const size_t numbers[] = {1, 2, 15, 16, 17, 31, 32, 33, MOST};
    size_t k, done = 99;
    uint64_t n = 0;
    for (k = 0; k < sizeof numbers / sizeof *numbers; k++) {
        prepare((int)k);
        good(netshm_hashtbl_replace_many(t, keys, vals, numbers[k], &done));
        is(done, numbers[k]);
        ok(all_there(t, numbers[k]));
    }
    good(netshm_hashtbl_length(t, &n));
    is(n, MOST);
    note("bindings on top");
    prepare(100);
    good(netshm_hashtbl_add_many(t, keys, vals, MOST, NULL));
    ok(all_there(t, MOST));
    good(netshm_hashtbl_length(t, &n));
    is(n, 2 * MOST);
    note("no keys");
    {
        netshm_slice *found = keys;
        good(netshm_hashtbl_find_many(t, NULL, 0, &found));
        ok(found == NULL);
        good(netshm_hashtbl_find_many_into(t, NULL, 0, NULL, 8, NULL));
        good(netshm_hashtbl_replace_many(t, NULL, NULL, 0, &done));
        is(done, 0);
        good(netshm_hashtbl_add_many(t, NULL, NULL, 0, NULL));
    }
}

static void unusual(netshm_hashtbl *t)
{
    static char longest[100000], buf[6 * STRIDE];
    netshm_slice mixed[6], *found = NULL;
    int64_t lens[6];
    memset(longest, 'l', sizeof longest);
    good(netshm_hashtbl_replace(t, "long", 4, longest, sizeof longest));
    good(netshm_hashtbl_replace(t, "empty", 5, NULL, 0));
    good(netshm_hashtbl_replace(t, NULL, 0, "of nothing", 10));
    prepare(100);
    mixed[0] = keys[3];
    mixed[1].data = "absent", mixed[1].len = 6;
    mixed[2].data = "empty", mixed[2].len = 5;
    mixed[3].data = NULL, mixed[3].len = 0;
    mixed[4].data = "long", mixed[4].len = 4;
    mixed[5] = keys[3];
    is(netshm_hashtbl_find_many_into(t, mixed, 6, buf, STRIDE, lens), NETSHM_E_TOO_SMALL);
    is(lens[0], vals[3].len);
    is(lens[1], NETSHM_E_NOT_FOUND);
    is(lens[2], 0);
    is(lens[3], 10);
    is(lens[4], sizeof longest);
    is(lens[5], vals[3].len);
    ok(memcmp(buf, vals[3].data, vals[3].len) == 0);
    ok(memcmp(buf + 3 * STRIDE, "of nothing", 10) == 0);
    ok(memcmp(buf + 5 * STRIDE, vals[3].data, vals[3].len) == 0);
    good(netshm_hashtbl_find_many_into(t, mixed + 1, 2, NULL, 0, lens));
    is(lens[0], NETSHM_E_NOT_FOUND);
    is(lens[1], 0);
    good(netshm_hashtbl_find_many(t, mixed, 6, &found));
    is(found[0].len, vals[3].len);
    ok(found[1].data == NULL && found[1].len == 0);
    ok(found[2].data != NULL && found[2].len == 0);
    ok(found[3].len == 10 && memcmp(found[3].data, "of nothing", 10) == 0);
    ok(found[4].len == sizeof longest && memcmp(found[4].data, longest, sizeof longest) == 0);
    ok(found[5].len == vals[3].len && memcmp(found[5].data, vals[3].data, vals[3].len) == 0);
    netshm_free(found);
    note("of equal keys the last one counts");
    mixed[0] = keys[4], mixed[1] = keys[4];
    good(netshm_hashtbl_replace_many(t, mixed, vals + 8, 2, NULL));
    is(has(t, key_text[4], value_text[9]), 1);
    good(netshm_hashtbl_replace(t, keys[4].data, keys[4].len, vals[4].data, vals[4].len));
}

static void in_groups(netshm_hashtbl *t)
{
    netshm_txn *x = NULL;
    prepare(200);
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    good(netshm_hashtbl_replace_many(t, keys, vals, MOST, NULL));
    ok(all_there(t, MOST));
    good(netshm_group_abort(x));
    prepare(100);
    ok(all_there(t, MOST));
    prepare(201);
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    good(netshm_hashtbl_replace_many(t, keys, vals, MOST, NULL));
    good(netshm_group_commit(x));
    ok(all_there(t, MOST));
}

static void wrong_arguments(netshm_hashtbl *t)
{
    netshm_slice bad[3], *found = keys;
    size_t done = 99;
    int64_t lens[3];
    char buf[3 * STRIDE];
    uint64_t before = 0, after = 0;
    good(netshm_hashtbl_length(t, &before));
    bad[0].data = "new key", bad[0].len = 7;
    bad[1] = keys[1];
    bad[2].data = NULL, bad[2].len = 1;
    is(netshm_hashtbl_replace_many(t, bad, vals, 3, &done), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(done, 0);
    is(netshm_hashtbl_add_many(t, keys, bad, 3, &done), NETSHM_E_INVALID);
    is(last().argument, 3);
    bad[2].data = "k", bad[2].len = SIZE_MAX;
    is(netshm_hashtbl_replace_many(t, bad, vals, 3, &done), NETSHM_E_TOO_LARGE);
    is(netshm_hashtbl_find_many(t, bad, 3, &found), NETSHM_E_TOO_LARGE);
    ok(found == keys);
    is(netshm_hashtbl_find_many_into(t, bad, 3, buf, STRIDE, lens), NETSHM_E_TOO_LARGE);
    is(netshm_hashtbl_find_many_into(t, keys, 3, buf, SIZE_MAX / 2, lens), NETSHM_E_INVALID);
    is(last().argument, 5);
    good(netshm_hashtbl_length(t, &after));
    is(after, before);
}

static void reading_only(const place *p)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    size_t done = 99;
    good(place_open(p, NETSHM_RDONLY, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    ok(all_there(t, MOST));
    is(netshm_hashtbl_replace_many(t, keys, vals, MOST, &done), NETSHM_E_READ_ONLY);
    is(done, 0);
    is(netshm_hashtbl_add_many(t, keys, vals, MOST, &done), NETSHM_E_READ_ONLY);
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
}

/* Values of 4000 bytes, until the object is full. */
static void half_way(const place *p)
{
    static char big[MOST * 20][16], value[4000];
    static netshm_slice many[MOST * 20], values[MOST * 20];
    netshm_options options = locking_options();
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    size_t done = 99, i, wrong = 0;
    uint64_t n = 0;
    /* The largest size is settled together with the locking method. */
    options.max_bytes = 2 << 20;
    good(netshm_open(NETSHM_POSIX, p->file, p->mem, CREATE, 0600, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, &options, &t));
    good(netshm_close(o));
    for (i = 0; i < MOST * 20; i++) {
        snprintf(big[i], sizeof big[i], "big %d", (int)i);
        many[i].data = big[i], many[i].len = strlen(big[i]);
        values[i].data = value, values[i].len = sizeof value;
    }
    is(netshm_hashtbl_replace_many(t, many, values, MOST * 20, &done), NETSHM_E_NO_SPACE);
    note("%d of %d fit", (int)done, MOST * 20);
    ok(done > 100 && done < 1000);
    for (i = 0; i < MOST * 20; i++) {
        int found = -1;
        if (netshm_hashtbl_mem(t, big[i], strlen(big[i]), &found) != NETSHM_OK || found != (i < done)) wrong++;
    }
    is(wrong, 0);
    good(netshm_hashtbl_length(t, &n));
    is(n, done);
    good(netshm_hashtbl_close(t));
}

int main(void)
{
    place *p = place_new(), *q = place_new();
    netshm_hashtbl *t = place_table(p, NULL);
    ok(t != NULL);
    as_single_calls(t);
    unusual(t);
    in_groups(t);
    wrong_arguments(t);
    reading_only(p);
    half_way(q);
    good(netshm_hashtbl_close(t));
    is(place_check(p), NETSHM_OK);
    is(place_check(q), NETSHM_OK);
    return done();
}
