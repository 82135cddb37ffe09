/* Goal: walks see what the header promises. Method: callbacks and cursors over a table that changes meanwhile. */
#include "support.h"

enum { KEYS = 1000 };
static netshm_hashtbl *t;
static int seen[KEYS], total, limit, answer;
static char last_of_key[KEYS];

static int visit(netshm_slice key, netshm_slice val, void *arg)
{
    char text[16];
    int k;
    if (key.len >= sizeof text) return -1001;
    memcpy(text, key.data, key.len);
    text[key.len] = 0;
    k = atoi(text);
    if (text[0] == 'x') return NETSHM_CONTINUE;
    if (k < 0 || k >= KEYS) return -1004;
    if (val.data) {
        /* Newest first: 'n' comes before 'o'. */
        if (last_of_key[k] == 'o') return -1002;
        last_of_key[k] = *(const char *)val.data;
    } else if (val.len) {
        return -1003;
    }
    seen[k]++;
    total++;
    if (arg) {
        char more[20];
        snprintf(more, sizeof more, "x%s", text);
        if (netshm_hashtbl_add((netshm_hashtbl *)arg, more, strlen(more), "x", 1) != NETSHM_OK) return -1005;
    }
    return limit && total == limit ? answer : NETSHM_CONTINUE;
}

static void start(int stop_after, int with)
{
    memset(seen, 0, sizeof seen);
    memset(last_of_key, 0, sizeof last_of_key);
    total = 0;
    limit = stop_after;
    answer = with;
}

static int each_is(int n)
{
    int k;
    for (k = 0; k < KEYS; k++)
        if (seen[k] != n) return 0;
    return 1;
}

int main(void)
{
    place *p = place_new();
    netshm_cursor *c = NULL;
    netshm_slice key, val;
    char text[16];
    int k, code, n;
    t = place_table(p, NULL);

    good(netshm_hashtbl_iter(t, visit, NULL));
    is(total, 0);
    good(netshm_cursor_open(t, 0, &c));
    is(netshm_cursor_next(c, &key, &val), NETSHM_E_NOT_FOUND);
    is(netshm_cursor_next(c, &key, &val), NETSHM_E_NOT_FOUND);
    good(netshm_cursor_close(c));

    for (k = 0; k < KEYS; k++) {
        snprintf(text, sizeof text, "%d", k);
        netshm_hashtbl_add(t, text, strlen(text), "old", 3);
        netshm_hashtbl_add(t, text, strlen(text), "new", 3);
    }
    start(0, 0);
    good(netshm_hashtbl_iter(t, visit, NULL));
    ok(each_is(2));
    start(0, 0);
    good(netshm_hashtbl_iter_keys(t, visit, NULL));
    ok(each_is(1));
    start(7, NETSHM_STOP);
    good(netshm_hashtbl_iter(t, visit, NULL));
    is(total, 7);
    start(7, 55);
    good(netshm_hashtbl_iter(t, visit, NULL));
    is(total, 7);
    start(7, NETSHM_E_CHANGED);
    is(netshm_hashtbl_iter(t, visit, NULL), NETSHM_E_CHANGED);
    start(7, -4000);
    is(netshm_hashtbl_iter_keys(t, visit, NULL), -4000);
    is(total, 7);
    start(7, -99);
    is(netshm_hashtbl_iter(t, visit, NULL), NETSHM_E_CALLBACK);

    /* The callback adds keys: those that were there are seen exactly once. */
    start(0, 0);
    good(netshm_hashtbl_iter_keys(t, visit, t));
    ok(each_is(1));

    /* A cursor sees the same, and keeps the table open by itself. */
    good(netshm_cursor_open(t, 0, &c));
    good(netshm_hashtbl_close(t));
    start(0, 0);
    for (n = 0; (code = netshm_cursor_next(c, &key, &val)) == NETSHM_OK; n++) {
        if (visit(key, val, NULL) != NETSHM_CONTINUE) break;
    }
    is(code, NETSHM_E_NOT_FOUND);
    ok(each_is(2));
    good(netshm_cursor_close(c));
    is(netshm_cursor_close(c), NETSHM_E_CLOSED);
    is(netshm_cursor_next(c, &key, &val), NETSHM_E_CLOSED);

    t = place_table(p, NULL);
    good(netshm_cursor_open(t, NETSHM_CURSOR_KEYS, &c));
    start(0, 0);
    while ((code = netshm_cursor_next(c, &key, &val)) == NETSHM_OK) {
        if (val.data != NULL || val.len != 0) ok(!"a key cursor has no values");
        visit(key, val, NULL);
    }
    is(code, NETSHM_E_NOT_FOUND);
    ok(each_is(1));
    good(netshm_cursor_close(c));
    is(netshm_cursor_open(t, 2, &c), NETSHM_E_INVALID);
    is(last().argument, 2);
    good(netshm_cursor_open(t, 0, &c));
    good(netshm_cursor_next(c, NULL, NULL));
    good(netshm_cursor_close(c));
    good(netshm_cursor_close(NULL));

    /* In a group, a walk sees the group's changes. */
    {
        netshm_txn *x = NULL;
        good(netshm_group_begin(netshm_hashtbl_table(t), &x));
        for (k = 0; k < KEYS; k++) {
            snprintf(text, sizeof text, "%d", k);
            netshm_hashtbl_remove(t, text, strlen(text), NULL);
        }
        start(0, 0);
        good(netshm_hashtbl_iter(t, visit, NULL));
        ok(each_is(1));
        good(netshm_group_abort(x));
        start(0, 0);
        good(netshm_hashtbl_iter(t, visit, NULL));
        ok(each_is(2));
    }
    is(place_check(p), NETSHM_OK);
    good(netshm_hashtbl_close(t));
    return done();
}
