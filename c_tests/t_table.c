/* Goal: tables as the header describes them. Method: every function, values from 0 bytes to 100 MiB, stacks. */
#include "support.h"

static netshm_hashtbl *t;

static void stacks(void)
{
    char buffer[16];
    size_t len = 99, n = 99, i;
    int there = 9, found = 9;
    uint64_t length = 99;
    netshm_slice *all = NULL;
    char *value = NULL;

    is(netshm_hashtbl_find(t, "k", 1, buffer, sizeof buffer, &len), NETSHM_E_NOT_FOUND);
    is(len, 99);
    good(netshm_hashtbl_find_all(t, "k", 1, &all, &n));
    ok(n == 0 && all == NULL);
    good(netshm_hashtbl_mem(t, "k", 1, &found));
    is(found, 0);
    good(netshm_hashtbl_remove(t, "k", 1, &there));
    is(there, 0);
    good(netshm_hashtbl_remove(t, "k", 1, NULL));

    good(netshm_hashtbl_add(t, "k", 1, "one", 3));
    good(netshm_hashtbl_add(t, "k", 1, "two!", 4));
    good(netshm_hashtbl_add(t, "k", 1, NULL, 0));
    good(netshm_hashtbl_add(t, "k", 1, "four", 4));
    good(netshm_hashtbl_length(t, &length));
    is(length, 4);
    good(netshm_hashtbl_find_all(t, "k", 1, &all, &n));
    is(n, 4);
    ok(n == 4 && all[0].len == 4 && memcmp(all[0].data, "four", 4) == 0 && all[1].len == 0 && all[1].data != NULL
       && all[2].len == 4 && memcmp(all[2].data, "two!", 4) == 0 && memcmp(all[3].data, "one", 3) == 0);
    netshm_free(all);
    good(netshm_hashtbl_remove(t, "k", 1, &there));
    is(there, 1);
    is(netshm_hashtbl_find(t, "k", 1, NULL, 0, &len), NETSHM_OK);
    is(len, 0);
    good(netshm_hashtbl_replace(t, "k", 1, "three", 5));
    is(netshm_hashtbl_find(t, "k", 1, buffer, 4, &len), NETSHM_E_TOO_SMALL);
    is(len, 5);
    is(netshm_hashtbl_find(t, "k", 1, NULL, 0, &len), NETSHM_E_TOO_SMALL);
    good(netshm_hashtbl_find(t, "k", 1, buffer, 5, &len));
    ok(len == 5 && memcmp(buffer, "three", 5) == 0);
    good(netshm_hashtbl_get(t, "k", 1, (void **)&value, &len));
    ok(len == 5 && memcmp(value, "three", 5) == 0);
    netshm_free(value);
    is(netshm_hashtbl_get(t, "none", 4, (void **)&value, &len), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_mem(t, "k", 1, &found));
    is(found, 1);
    is(netshm_hashtbl_insert(t, "k", 1, "x", 1), NETSHM_E_EXISTS);
    good(netshm_hashtbl_insert(t, "new", 3, "x", 1));
    for (i = 0; i < 3; i++) good(netshm_hashtbl_remove(t, "k", 1, &there));
    is(there, 1);
    good(netshm_hashtbl_remove(t, "k", 1, &there));
    is(there, 0);
    good(netshm_hashtbl_remove(t, "new", 3, &there));

    /* The empty key and keys with zeros in them are keys like others. */
    good(netshm_hashtbl_replace(t, NULL, 0, "empty", 5));
    good(netshm_hashtbl_replace(t, "\0", 1, "zero", 4));
    good(netshm_hashtbl_replace(t, "\0\0", 2, "zeros", 5));
    is(has(t, "", "empty"), 1);
    good(netshm_hashtbl_find(t, "\0", 1, buffer, sizeof buffer, &len));
    ok(len == 4 && memcmp(buffer, "zero", 4) == 0);
    good(netshm_hashtbl_remove(t, "", 0, NULL));
    good(netshm_hashtbl_remove(t, "\0", 1, NULL));
    good(netshm_hashtbl_remove(t, "\0\0", 2, NULL));
    good(netshm_hashtbl_length(t, &length));
    is(length, 0);
}

static void integers(void)
{
    int64_t now = 0;
    unsigned char bytes[8];
    size_t len = 0;
    good(netshm_hashtbl_incr(t, "n", 1, 5, 100, &now));
    is(now, 105);
    good(netshm_hashtbl_incr(t, "n", 1, -300, 7, &now));
    is(now, -195);
    good(netshm_hashtbl_incr(t, "n", 1, 1, 0, NULL));
    good(netshm_hashtbl_find(t, "n", 1, bytes, 8, &len));
    ok(len == 8 && bytes[0] == 0x3e && bytes[1] == 0xff && bytes[7] == 0xff);
    good(netshm_hashtbl_replace(t, "n", 1, "\377\377\377\377\377\377\377\177", 8));
    now = 77;
    is(netshm_hashtbl_incr(t, "n", 1, 1, 0, &now), NETSHM_E_OVERFLOW);
    is(now, 77);
    good(netshm_hashtbl_incr(t, "n", 1, INT64_MIN, 0, &now));
    is(now, -1);
    is(netshm_hashtbl_incr(t, "m", 1, INT64_MAX, 1, &now), NETSHM_E_OVERFLOW);
    good(put(t, "s", "short"));
    is(netshm_hashtbl_incr(t, "s", 1, 1, 0, &now), NETSHM_E_TYPE);
    is(has(t, "s", "short"), 1);
    is(has(t, "m", ""), NETSHM_E_NOT_FOUND);
}

static void comparing(void)
{
    good(put(t, "c", "old"));
    is(netshm_hashtbl_cas(t, "c", 1, "other", 5, "new", 3), NETSHM_E_CHANGED);
    is(netshm_hashtbl_cas(t, "c", 1, "olD", 3, "new", 3), NETSHM_E_CHANGED);
    is(netshm_hashtbl_cas(t, "c", 1, NULL, 0, "new", 3), NETSHM_E_CHANGED);
    is(has(t, "c", "old"), 1);
    good(netshm_hashtbl_cas(t, "c", 1, "old", 3, "new", 3));
    is(has(t, "c", "new"), 1);
    good(netshm_hashtbl_cas(t, "c", 1, "new", 3, NULL, 0));
    good(netshm_hashtbl_cas(t, "c", 1, NULL, 0, "x", 1));
    is(netshm_hashtbl_cas(t, "absent", 6, "", 0, "x", 1), NETSHM_E_NOT_FOUND);
}

typedef struct plan { int answer, sets, calls, inner, found, was_null; const char *value; netshm_update *kept; char seen[32]; } plan;

static int update(netshm_update *u, const void *old, size_t len, void *arg)
{
    plan *p = (plan *)arg;
    p->calls++;
    p->was_null = old == NULL;
    p->kept = u;
    memset(p->seen, 0, sizeof p->seen);
    if (old) memcpy(p->seen, old, len < 31 ? len : 31);
    if (p->sets) {
        netshm_update_set(u, "overwritten", 11);
        p->inner = netshm_update_set(u, p->value, strlen(p->value));
    } else {
        p->inner = netshm_hashtbl_replace(t, "u", 1, "from inside", 11);
    }
    p->found = has(t, "u", p->seen);
    return p->answer;
}

static int updated(plan *p, int answer, const char *value)
{
    memset(p, 0, sizeof *p);
    p->answer = answer;
    p->sets = value != NULL;
    p->value = value;
    return netshm_hashtbl_update(t, "u", 1, update, p);
}

static void updates(void)
{
    netshm_txn *x = NULL;
    plan p;
    good(updated(&p, NETSHM_KEEP, NULL));
    ok(p.calls == 1 && p.was_null);
    is(p.inner, NETSHM_E_IN_CALLBACK);
    is(p.found, NETSHM_E_NOT_FOUND);
    is(has(t, "u", ""), NETSHM_E_NOT_FOUND);
    good(updated(&p, NETSHM_REMOVE, NULL));
    good(updated(&p, NETSHM_REPLACE, "first"));
    is(p.inner, NETSHM_OK);
    is(has(t, "u", "first"), 1);
    is(netshm_update_set(p.kept, "x", 1), NETSHM_E_CLOSED);
    good(updated(&p, NETSHM_REPLACE, ""));
    ok(strcmp(p.seen, "first") == 0);
    /* Finding shows what was there before; in a group it is refused as well. */
    is(p.found, 1);
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    good(updated(&p, NETSHM_KEEP, "x"));
    is(p.found, NETSHM_E_IN_CALLBACK);
    good(netshm_group_commit(x));
    good(updated(&p, NETSHM_REPLACE, "second"));
    ok(!p.was_null && p.seen[0] == 0);
    good(updated(&p, NETSHM_KEEP, "ignored"));
    good(updated(&p, 77, "ignored"));
    is(has(t, "u", "second"), 1);
    is(updated(&p, NETSHM_REPLACE, NULL), NETSHM_E_CALLBACK);
    is(updated(&p, NETSHM_E_RANGE, "x"), NETSHM_E_RANGE);
    is(updated(&p, NETSHM_E_NOT_FOUND, "x"), NETSHM_E_NOT_FOUND);
    is(updated(&p, -5000, "x"), -5000);
    is(last().code, -5000);
    is(updated(&p, -77, "x"), NETSHM_E_CALLBACK);
    ok(strstr(last_text(), "-77") != NULL);
    is(has(t, "u", "second"), 1);
    good(updated(&p, NETSHM_REMOVE, "x"));
    is(has(t, "u", ""), NETSHM_E_NOT_FOUND);
}

typedef struct lengths { size_t before, between, after, appended; int wrong; } lengths;

static void *set_elsewhere(void *u) { return (void *)(intptr_t)netshm_update_set((netshm_update *)u, "x", 1); }

static int set_twice(netshm_update *u, const void *old, size_t len, void *arg)
{
    lengths *l = (lengths *)arg;
    unsigned char bytes[600];
    size_t i;
    for (i = 0; i < len; i++) l->wrong |= ((const unsigned char *)old)[i] != 'o';
    memset(bytes, 'b', sizeof bytes);
    l->wrong |= len != l->before || old == NULL || netshm_update_set(u, bytes, l->between) != NETSHM_OK;
    memset(bytes, 'n', sizeof bytes);
    l->wrong |= netshm_update_set(u, bytes, l->after) != NETSHM_OK;
    l->wrong |= netshm_update_append(u, bytes, l->appended) != NETSHM_OK;
    /* What was handed over is not looked at any more. */
    memset(bytes, 'x', sizeof bytes);
    return NETSHM_REPLACE;
}

static int ask_elsewhere(netshm_update *u, const void *old, size_t len, void *arg)
{
    pthread_t thread;
    void *code = NULL;
    (void)old, (void)len;
    pthread_create(&thread, NULL, set_elsewhere, u);
    pthread_join(thread, &code);
    *(int *)arg = (int)(intptr_t)code;
    return NETSHM_REPLACE;
}

/* Values of all lengths, set one after the other, come in the place of values of all lengths. */
static void update_lengths(void)
{
    static const size_t all[] = { 0, 1, 3, 7, 8, 9, 16, 31, 64, 65, 127, 128, 129, 130, 255, 256, 257, 500 };
    const size_t n = sizeof all / sizeof all[0];
    unsigned char bytes[600];
    size_t i, j, len = 0;
    int wrong = 0, code = 5;
    for (i = 0; i < n * n; i++) {
        for (j = 0; j < n; j += 1 + i % 5) {
            lengths l;
            size_t k;
            l.before = all[i / n], l.between = all[j], l.after = all[i % n], l.appended = i % 3 ? 0 : all[j] % 70, l.wrong = 0;
            memset(bytes, 'o', sizeof bytes);
            wrong += netshm_hashtbl_replace(t, "lengths", 7, bytes, l.before) != NETSHM_OK;
            wrong += netshm_hashtbl_update(t, "lengths", 7, set_twice, &l) != NETSHM_OK || l.wrong;
            wrong += netshm_hashtbl_find(t, "lengths", 7, bytes, sizeof bytes, &len) != NETSHM_OK;
            wrong += len != l.after + l.appended;
            for (k = 0; k < len; k++) wrong += bytes[k] != 'n';
        }
    }
    is(wrong, 0);
    is(netshm_hashtbl_update(t, "lengths", 7, ask_elsewhere, &code), NETSHM_E_CALLBACK);
    is(code, NETSHM_E_CLOSED);
}

static int view(const void *data, size_t len, void *arg)
{
    /* A view may call everything. */
    *(int *)arg = put(t, "v", "changed in the view");
    return data != NULL && len == 5 && memcmp(data, "value", 5) == 0 ? -123456 : 0;
}

static void views(void)
{
    int answer = 1, inner = 1;
    is(netshm_hashtbl_view(t, "v", 1, view, &inner, &answer), NETSHM_E_NOT_FOUND);
    ok(answer == 1 && inner == 1);
    good(put(t, "v", "value"));
    good(netshm_hashtbl_view(t, "v", 1, view, &inner, &answer));
    is(answer, -123456);
    is(inner, NETSHM_OK);
    good(netshm_hashtbl_view(t, "v", 1, view, &inner, NULL));
    is(has(t, "v", "changed in the view"), 1);
}

static void sizes(void)
{
    static const size_t lengths[] = { 0, 1, 7, 8, 15, 16, 100, 4000, 4096, 5000, 65536, 1 << 20, 100 << 20 };
    size_t i, j, len;
    for (i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t n = lengths[i], cap = n ? n : 1;
        unsigned char *in = (unsigned char *)malloc(cap), *copy = NULL, *out = (unsigned char *)malloc(cap);
        for (j = 0; j < n; j++) in[j] = (unsigned char)(j * 131 + j / 251);
        len = 1234567;
        good(netshm_hashtbl_replace(t, "size", 4, in, n));
        if (n) is(netshm_hashtbl_find(t, "size", 4, out, n - 1, &len), NETSHM_E_TOO_SMALL);
        good(netshm_hashtbl_find(t, "size", 4, out, n, &len));
        ok(len == n && memcmp(in, out, n) == 0);
        good(netshm_hashtbl_get(t, "size", 4, (void **)&copy, &len));
        ok(copy != NULL && len == n && memcmp(in, copy, n) == 0);
        netshm_free(copy);
        if (n && n <= 65536) {
            good(netshm_hashtbl_add(t, in, n, in, n));
            good(netshm_hashtbl_find(t, in, n, out, n, &len));
            ok(len == n && memcmp(in, out, n) == 0);
            good(netshm_hashtbl_remove(t, in, n, NULL));
        }
        free(in);
        free(out);
    }
    good(netshm_hashtbl_remove(t, "size", 4, NULL));
}

static void many(void)
{
    char key[32], value[32];
    int i, wrong = 0;
    uint64_t before = 0, after = 0;
    good(netshm_hashtbl_length(t, &before));
    for (i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "value-%d", i * 7);
        if (put(t, key, value) != NETSHM_OK) wrong++;
    }
    for (i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "value-%d", i * 7);
        if (has(t, key, value) != 1) wrong++;
    }
    good(netshm_hashtbl_length(t, &after));
    is(after - before, 20000);
    for (i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        if (netshm_hashtbl_remove(t, key, strlen(key), NULL) != NETSHM_OK) wrong++;
    }
    good(netshm_hashtbl_length(t, &after));
    is(after, before);
    is(wrong, 0);
}

/* Closes both handles, its own while two calls use it, and is called again by itself with another one. */
typedef struct closing { netshm_hashtbl *own, *other; int calls, codes[4]; } closing;

static int show_and_close(const void *data, size_t len, void *arg)
{
    closing *c = (closing *)arg;
    c->calls++;
    c->codes[2] = netshm_hashtbl_close(c->own);
    c->codes[3] = netshm_hashtbl_replace(c->own, "k", 1, data, len);
    return (int)len;
}

static int update_and_close(netshm_update *u, const void *old, size_t len, void *arg)
{
    closing *c = (closing *)arg;
    char text[8] = "";
    c->calls++;
    if (c->own != NULL) {
        closing inner = {NULL, c->other, 0, {0}};
        c->codes[0] = netshm_hashtbl_update(c->other, "k", 1, update_and_close, &inner);
        c->codes[1] = inner.calls == 1 && inner.codes[0] == NETSHM_OK ? netshm_hashtbl_view(c->own, "k", 1, show_and_close, c, NULL) : 1;
    } else {
        c->codes[0] = netshm_hashtbl_close(c->other);
    }
    if (old == NULL || len > 7) return NETSHM_REMOVE;
    memcpy(text, old, len);
    text[0]++;
    return netshm_update_set(u, text, len) == NETSHM_OK ? NETSHM_REPLACE : NETSHM_REMOVE;
}

/* What is behind a handle lives until the calls that use it have ended. */
static void closed_by_callbacks(void)
{
    place *a = place_new(), *b = place_new();
    closing c = {place_table(a, NULL), place_table(b, NULL), 0, {0}};
    netshm_object *o = NULL;
    netshm_hashtbl *again = NULL;
    const place *both[2];
    int i;
    ok(c.own != NULL && c.other != NULL);
    good(put(c.own, "k", "a"));
    good(put(c.other, "k", "x"));
    good(netshm_hashtbl_update(c.own, "k", 1, update_and_close, &c));
    is(c.calls, 2);
    good(c.codes[0]);
    good(c.codes[1]);
    good(c.codes[2]);
    is(c.codes[3], NETSHM_E_CLOSED);
    is(netshm_hashtbl_update(c.own, "k", 1, update_and_close, &c), NETSHM_E_CLOSED);
    is(netshm_hashtbl_close(c.other), NETSHM_E_CLOSED);
    both[0] = a;
    both[1] = b;
    for (i = 0; i < 2; i++) {
        good(place_open(both[i], RW, &o));
        good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &again));
        is(has(again, "k", i == 0 ? "b" : "y"), 1);
        good(netshm_hashtbl_close(again));
        good(netshm_close(o));
        is(place_check(both[i]), NETSHM_OK);
    }
}

int main(void)
{
    place *p = place_new();
    t = place_table(p, NULL);
    ok(t != NULL);
    stacks();
    integers();
    comparing();
    updates();
    update_lengths();
    views();
    sizes();
    many();
    closed_by_callbacks();
    is(netshm_hashtbl_add(t, "k", (size_t)-1, "", 0), NETSHM_E_TOO_LARGE);
    is(netshm_hashtbl_add(t, "k", 1, "v", (size_t)-1), NETSHM_E_TOO_LARGE);
    is(place_check(p), NETSHM_OK);
    good(netshm_hashtbl_close(t));
    is(place_check(p), NETSHM_OK);
    return done();
}
