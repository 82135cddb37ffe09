/* Goal: one handle serves many threads. Method: threads that count, replace, walk, and open and close handles; the same with
 * typed values, elements and slices of arrays, and primitive tables, groups over all of them among it; and what destructors
 * do at the ends of threads. */
#include "support.h"

enum { THREADS = 8, ROUNDS = 2000, ENDS = 40 };
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

/* Tables of the other kinds in one object; each is used by all threads at once. */
enum { KIND_ROUNDS = 400, ELEMENTS = 5000, SLICE = 64 };
static netshm_object *kinds;
static netshm_hashtbl *typed;
static netshm_array *numbers, *texts;
static netshm_table *blocks;

/* Counts in all of them at once. */
static int count_in_kinds(netshm_txn *x, void *arg)
{
    int32_t word = 0;
    int64_t now = 0;
    size_t n = 0;
    netshm_value key[1], val[2];
    int code = netshm_table_find(blocks, 0, &word, 1, &n);
    (void)x, (void)arg;
    if (code == NETSHM_E_NOT_FOUND) code = NETSHM_OK;
    word++;
    if (code == NETSHM_OK) code = netshm_table_replace(blocks, 0, &word, 1);
    if (code == NETSHM_OK) code = netshm_array_incr(numbers, 0, 1, &now);
    key[0] = netshm_int(-1);
    val[0] = netshm_int(now);
    val[1] = netshm_none();
    if (code == NETSHM_OK) code = netshm_hashtbl_replace_v(typed, key, 1, val, 2);
    if (code == NETSHM_OK && now != word) code = -2000;
    return code == NETSHM_OK ? NETSHM_COMMIT : code;
}

/* All words of a fragment are the same, and get one more. */
static int change_words(int32_t *w, size_t n, void *arg)
{
    size_t i;
    for (i = 1; i < n && w != NULL; i++)
        if (w[i] != w[0]) ++*(int *)arg;
    for (i = 0; i < n && w != NULL; i++) w[i]++;
    return NETSHM_BLOCK_GO;
}

static int count_v(const netshm_value *k, size_t nk, const netshm_value *v, size_t nv, void *arg)
{
    (void)k, (void)v;
    if (nk == 1 && nv >= 2) ++*(int *)arg;
    return NETSHM_CONTINUE;
}

static int count_elements(uint64_t i, const netshm_value *v, size_t n, void *arg)
{
    (void)i, (void)v;
    if (n == 1) ++*(int *)arg;
    return NETSHM_CONTINUE;
}

static int typed_round(netshm_result *r, int me, int i)
{
    char text[64];
    const netshm_value *v = NULL;
    size_t n = 0;
    netshm_value key[1], val[3];
    int wrong = 0, seen = 0;
    snprintf(text, sizeof text, "thread %d in round %d", me, i);
    key[0] = netshm_int(me);
    val[0] = netshm_int(i);
    val[1] = netshm_some();
    val[2] = netshm_str(text);
    wrong += netshm_hashtbl_replace_v(typed, key, 1, val, 3) != NETSHM_OK;
    wrong += netshm_hashtbl_find_v(typed, key, 1, r) != NETSHM_OK;
    wrong += netshm_result_values(r, &v, &n) != NETSHM_OK || n != 3 || v[0].as.i != i
        || strcmp((const char *)v[2].as.s.data, text) != 0;
    key[0] = netshm_int(THREADS);
    wrong += netshm_hashtbl_replace_v(typed, key, 1, val, 3) != NETSHM_OK;
    wrong += netshm_hashtbl_find_v(typed, key, 1, r) != NETSHM_OK;
    wrong += netshm_array_set(texts, (uint64_t)me, val + 2, 1) != NETSHM_OK;
    wrong += netshm_array_get(texts, (uint64_t)me, r) != NETSHM_OK;
    wrong += netshm_result_values(r, &v, &n) != NETSHM_OK || n != 1 || strcmp((const char *)v[0].as.s.data, text) != 0;
    if (i % 50 == 0) {
        wrong += netshm_hashtbl_iter_v(typed, count_v, &seen) != NETSHM_OK || seen < 2;
        seen = 0;
        wrong += netshm_array_iter_v(texts, count_elements, &seen) != NETSHM_OK || seen < 1;
    }
    return wrong;
}

static int array_round(int me, int i)
{
    int64_t slice[SLICE], now = 0;
    uint64_t length = 0;
    int wrong = 0, j;
    for (j = 0; j < SLICE; j++) slice[j] = me * 1000 + i;
    wrong += netshm_array_incr(numbers, 1, 1, NULL) != NETSHM_OK;
    wrong += netshm_array_set_int64(numbers, 10 + (uint64_t)me, i) != NETSHM_OK;
    wrong += netshm_array_get_int64(numbers, 10 + (uint64_t)me, &now) != NETSHM_OK || now != i;
    /* Across the border of two chunks. */
    wrong += netshm_array_write(numbers, 1990, SLICE, slice, 8) != NETSHM_OK;
    wrong += netshm_array_read(numbers, 1990, SLICE, slice, 8) != NETSHM_OK;
    for (j = 1; j < SLICE; j++)
        if (slice[j] != slice[0]) { wrong++; break; }
    wrong += netshm_array_length(numbers, &length) != NETSHM_OK || length < ELEMENTS || length >= ELEMENTS + THREADS;
    if (i % 40 == 0) wrong += netshm_array_resize(numbers, ELEMENTS + (uint64_t)me) != NETSHM_OK;
    return wrong;
}

static int block_round(int me, int i)
{
    int32_t words[20], found[20];
    size_t n = 0;
    netshm_words *all = NULL;
    int wrong = 0, mixed = 0, j;
    for (j = 0; j < 20; j++) words[j] = i;
    wrong += netshm_table_replace(blocks, 1 + me, words, 20) != NETSHM_OK;
    wrong += netshm_table_find(blocks, 1 + me, found, 20, &n) != NETSHM_OK || n != 20 || found[19] != i;
    wrong += netshm_table_write_blocks(blocks, 0, 100, change_words, &mixed) != NETSHM_OK;
    wrong += netshm_table_find_all(blocks, 100, &all, &n) != NETSHM_OK || n != 2;
    netshm_free(all);
    return wrong + mixed;
}

static void *work_on_kinds(void *arg)
{
    intptr_t me = (intptr_t)arg, wrong = 0;
    netshm_result *r = NULL;
    int i;
    wrong += netshm_result_new(&r) != NETSHM_OK;
    for (i = 0; i < KIND_ROUNDS; i++) {
        wrong += typed_round(r, (int)me, i) + array_round((int)me, i) + block_round((int)me, i);
        if (i % 50 == 0) wrong += netshm_group_retry(blocks, -1, count_in_kinds, NULL) != NETSHM_OK;
        if (i % 100 == 0) {
            netshm_array *again = NULL;
            netshm_options options = NETSHM_OPTIONS_INIT;
            options.root = "texts";
            wrong += netshm_array_manage(kinds, NULL, NULL, 0, 0, &options, &again) != NETSHM_OK;
            wrong += netshm_array_get(again, (uint64_t)me, r) != NETSHM_OK;
            wrong += netshm_array_close(again) != NETSHM_OK;
        }
    }
    wrong += netshm_result_free(r) != NETSHM_OK;
    return (void *)wrong;
}

static void every_kind(void)
{
    place *q = place_new();
    pthread_t threads[THREADS];
    netshm_options options = locking_options();
    netshm_type *string = NULL;
    netshm_value none[1];
    int32_t words[20] = { 0 }, found[20];
    int64_t now = 0;
    size_t n = 0;
    void *wrong;
    intptr_t i;
    none[0] = netshm_str("none");
    good(place_open(q, CREATE, &kinds));
    good(netshm_table_manage(kinds, &options, &blocks));
    options.root = "typed";
    good(netshm_hashtbl_manage_as(kinds, "int", "(int,string?)", &options, &typed));
    options.root = "numbers";
    good(netshm_array_manage_int64(kinds, 0, ELEMENTS, &options, &numbers));
    options.root = "texts";
    good(netshm_type_parse("string", &string));
    good(netshm_array_manage(kinds, string, none, 1, 100, &options, &texts));
    good(netshm_type_close(string));
    good(netshm_table_add(blocks, 100, words, 20));
    good(netshm_table_add(blocks, 100, words, 3));
    for (i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work_on_kinds, (void *)i);
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &wrong);
        is((intptr_t)wrong, 0);
    }
    good(netshm_array_get_int64(numbers, 0, &now));
    is(now, THREADS * KIND_ROUNDS / 50);
    good(netshm_array_get_int64(numbers, 1, &now));
    is(now, THREADS * KIND_ROUNDS);
    good(netshm_table_find(blocks, 0, found, 20, &n));
    is(found[0], THREADS * KIND_ROUNDS / 50);
    good(netshm_table_find(blocks, 100, found, 20, &n));
    is(found[0], THREADS * KIND_ROUNDS);
    good(netshm_table_remove(blocks, 100, NULL));
    good(netshm_table_find(blocks, 100, found, 20, &n));
    ok(n == 20 && found[0] == found[19] && found[0] == THREADS * KIND_ROUNDS);
    good(netshm_check(kinds, 0, NULL, NULL));
    good(netshm_table_close(blocks));
    good(netshm_hashtbl_close(typed));
    good(netshm_array_close(numbers));
    good(netshm_array_close(texts));
    good(netshm_close(kinds));
}

/* Destructors of thread-specific data run after the library's own: by then another thread has the session, and a group open
 * in it. */
static pthread_key_t at_end;
static pthread_barrier_t over, begun, changed;
static intptr_t wrong_late;

static void late(void *arg)
{
    char got[8];
    size_t len = 0;
    (void)arg;
    pthread_barrier_wait(&over);
    pthread_barrier_wait(&begun);
    wrong_late += netshm_hashtbl_incr(t, "late", 4, 1, 0, NULL) != NETSHM_OK;
    wrong_late += netshm_hashtbl_find(t, "lost", 4, got, sizeof got, &len) != NETSHM_E_NOT_FOUND;
    wrong_late += netshm_group(netshm_hashtbl_table(t), move_one, NULL) != NETSHM_OK;
    pthread_barrier_wait(&changed);
}

static void *end(void *arg)
{
    intptr_t wrong = netshm_hashtbl_incr(t, "ends", 4, 1, 0, NULL) != NETSHM_OK;
    wrong += pthread_setspecific(at_end, arg) != 0;
    return (void *)wrong;
}

static void *take_over(void *arg)
{
    netshm_txn *group = NULL;
    intptr_t wrong = 0;
    (void)arg;
    pthread_barrier_wait(&over);
    wrong += netshm_group_begin(netshm_hashtbl_table(t), &group) != NETSHM_OK;
    wrong += netshm_hashtbl_replace(t, "lost", 4, "", 0) != NETSHM_OK;
    pthread_barrier_wait(&begun);
    pthread_barrier_wait(&changed);
    wrong += netshm_group_abort(group) != NETSHM_OK;
    return (void *)wrong;
}

static void threads_end(void)
{
    pthread_t threads[2];
    void *wrong;
    int i;
    int64_t now = 0;
    is(pthread_key_create(&at_end, late), 0);
    pthread_barrier_init(&over, NULL, 2);
    pthread_barrier_init(&begun, NULL, 2);
    pthread_barrier_init(&changed, NULL, 2);
    for (i = 0; i < ENDS; i++) {
        pthread_create(&threads[0], NULL, end, &i);
        pthread_create(&threads[1], NULL, take_over, NULL);
        pthread_join(threads[0], &wrong);
        wrong_late += (intptr_t)wrong;
        pthread_join(threads[1], &wrong);
        wrong_late += (intptr_t)wrong;
    }
    is(wrong_late, 0);
    good(netshm_hashtbl_incr(t, "late", 4, 0, 0, &now));
    is(now, ENDS);
}

int main(void)
{
    pthread_t threads[THREADS];
    intptr_t i;
    int64_t now = 0;
    void *wrong;
    netshm_options options = locking_options();
    p = place_new();
    /* So many buckets that a group on one key is in the way of no other. */
    options.init = 1 << 20;
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
    threads_end();
    good(netshm_hashtbl_incr(t, "all", 3, 0, 0, &now));
    is(now, THREADS * ROUNDS);
    good(netshm_hashtbl_incr(t, "to", 2, 0, 0, &now));
    is(now, THREADS * ROUNDS / 50 + ENDS);
    good(netshm_hashtbl_incr(t, "from", 4, 0, 0, &now));
    is(now, 1000 - THREADS * ROUNDS / 50 - ENDS);
    is(place_check(p), NETSHM_OK);
    good(netshm_hashtbl_close(t));
    every_kind();
    return done();
}
