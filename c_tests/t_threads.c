/* Goal: one handle serves many threads. Method: threads that count, replace, walk, and open and close handles. */
#include "support.h"

enum { THREADS = 8, ROUNDS = 2000 };
static place *p;
static netshm_hashtbl *t;

static int move_one(netshm_txn *x, void *arg)
{
    int code;
    (void)x, (void)arg;
    code = netshm_hashtbl_incr(t, "from", 4, -1, 0, NULL);
    if (code == NETSHM_OK) code = netshm_hashtbl_incr(t, "to", 2, 1, 0, NULL);
    return code == NETSHM_OK ? NETSHM_COMMIT : code;
}

static int count(netshm_slice k, netshm_slice v, void *arg)
{
    (void)k, (void)v;
    ++*(int *)arg;
    return NETSHM_CONTINUE;
}

static void *work(void *arg)
{
    intptr_t me = (intptr_t)arg, wrong = 0;
    char key[16], value[200];
    int i, n;
    memset(value, 'a' + (int)me, sizeof value);
    snprintf(key, sizeof key, "own-%d", (int)me);
    for (i = 0; i < ROUNDS; i++) {
        char got[200];
        size_t len = 0, j, length = (size_t)(i % 200) + 1;
        if (netshm_hashtbl_incr(t, "all", 3, 1, 0, NULL) != NETSHM_OK) wrong++;
        if (netshm_hashtbl_replace(t, key, strlen(key), value, length) != NETSHM_OK) wrong++;
        if (netshm_hashtbl_find(t, key, strlen(key), got, sizeof got, &len) != NETSHM_OK || len != length) wrong++;
        if (netshm_hashtbl_replace(t, "shared", 6, value, length) != NETSHM_OK) wrong++;
        if (netshm_hashtbl_find(t, "shared", 6, got, sizeof got, &len) != NETSHM_OK) wrong++;
        for (j = 1; j < len; j++)
            if (got[j] != got[0]) { wrong++; break; }
        if (i % 50 == 0) {
            if (netshm_group_retry(netshm_hashtbl_table(t), -1, move_one, NULL) != NETSHM_OK) wrong++;
            n = 0;
            if (netshm_hashtbl_iter(t, count, &n) != NETSHM_OK || n < 2) wrong++;
        }
        if (i % 200 == 0) {
            netshm_hashtbl *u = place_table(p, NULL);
            if (u == NULL || netshm_hashtbl_incr(u, "all", 3, 0, 0, NULL) != NETSHM_OK) wrong++;
            if (netshm_hashtbl_close(u) != NETSHM_OK) wrong++;
        }
    }
    /* Each thread has its own last error. */
    if (netshm_hashtbl_add(t, NULL, (size_t)me + 1, "", 0) != NETSHM_E_INVALID || last().argument != 2) wrong++;
    return (void *)wrong;
}

int main(void)
{
    pthread_t threads[THREADS];
    intptr_t i;
    int64_t now = 0;
    void *wrong;
    netshm_options options = locking_options();
    p = place_new();
    t = place_table(p, &options);
    good(put(t, "shared", "x"));
    good(netshm_hashtbl_incr(t, "from", 4, 1000, 0, NULL));
    is(netshm_last_error(NULL), NETSHM_E_INVALID);
    is(last().code, 0);
    for (i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &wrong);
        is((intptr_t)wrong, 0);
    }
    is(last().code, 0);
    good(netshm_hashtbl_incr(t, "all", 3, 0, 0, &now));
    is(now, THREADS * ROUNDS);
    good(netshm_hashtbl_incr(t, "to", 2, 0, 0, &now));
    is(now, THREADS * ROUNDS / 50);
    good(netshm_hashtbl_incr(t, "from", 4, 0, 0, &now));
    is(now, 1000 - THREADS * ROUNDS / 50);
    is(place_check(p), NETSHM_OK);
    good(netshm_hashtbl_close(t));
    return done();
}
