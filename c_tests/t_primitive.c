/* Goal: primitive tables do in C what the header says. Method: every function, its answers and its refusals. */
#include "support.h"

static netshm_table *t;

/* A callback that follows a script: an answer for each call, and what was shown. */
typedef struct script {
    const int *answers;
    int calls, ends, assign;
    long sum;
    size_t longest;
} script;

static int play(int32_t *words, size_t n, void *arg)
{
    script *s = (script *)arg;
    size_t i;
    if (words) {
        for (i = 0; i < n; i++) s->sum += words[i];
        if (s->assign) words[0] = s->assign++;
        if (n > s->longest) s->longest = n;
    } else {
        if (n != 0) return -1001;
        s->ends++;
    }
    return s->answers ? s->answers[s->calls++] : (s->calls++, NETSHM_BLOCK_GO);
}

static script scripted(const int *answers)
{
    script s;
    memset(&s, 0, sizeof s);
    s.answers = answers;
    return s;
}

/* The stack of a key is this, newest first: one word each. */
static int stack_is(int32_t key, int n, int a, int b, int c)
{
    netshm_words *vals = NULL;
    size_t count = 99;
    int wanted[3], i, same;
    wanted[0] = a; wanted[1] = b; wanted[2] = c;
    if (netshm_table_find_all(t, key, &vals, &count) != NETSHM_OK) return 0;
    same = count == (size_t)n && (n > 0) == (vals != NULL);
    for (i = 0; same && i < n; i++) same = vals[i].n == 1 && vals[i].data[0] == wanted[i];
    netshm_free(vals);
    return same;
}

static void fill(int32_t key)
{
    int32_t word;
    int there = 1;
    while (there) netshm_table_remove(t, key, &there);
    for (word = 1; word <= 3; word++) netshm_table_add(t, key, &word, 1);
}

static int visit(int32_t key, const int32_t *words, size_t n, void *arg)
{
    long *sums = (long *)arg;
    sums[0]++;
    sums[1] += key;
    if (words) sums[2] += n ? words[0] : 0;
    return sums[3] && sums[0] == sums[3] ? NETSHM_STOP : NETSHM_CONTINUE;
}

static int wrong(int32_t key, const int32_t *words, size_t n, void *arg)
{
    (void)key; (void)words; (void)n; (void)arg;
    return -1234;
}

/* Calls that a callback of write_blocks may not make. */
static int forbidden(int32_t *words, size_t n, void *arg)
{
    int *codes = (int *)arg;
    int32_t word = 9;
    netshm_txn *x = NULL;
    char *text = NULL;
    size_t len;
    (void)words; (void)n;
    codes[0] = netshm_table_add(t, 1, &word, 1);
    codes[1] = netshm_table_remove(t, 1, NULL);
    codes[2] = netshm_table_write_blocks(t, 0, 1, forbidden, codes);
    codes[3] = netshm_group_begin(t, &x);
    codes[4] = netshm_table_dump(t, &text);
    codes[5] = netshm_table_find(t, 1, &word, 1, &len);
    return NETSHM_BLOCK_BREAK;
}

static int group_of(netshm_txn *x, void *arg)
{
    static const int remove_all[] = { NETSHM_BLOCK_NEXT | NETSHM_BLOCK_REMOVE, NETSHM_BLOCK_NEXT | NETSHM_BLOCK_REMOVE,
                                      NETSHM_BLOCK_NEXT | NETSHM_BLOCK_REMOVE };
    script s = scripted(remove_all);
    (void)x;
    if (netshm_table_write_blocks(t, NETSHM_BLOCK_REMOVE, 1, play, &s) != NETSHM_OK) return -1001;
    return stack_is(1, 0, 0, 0, 0) ? *(int *)arg : -1002;
}

static void basics(void)
{
    int32_t words[3000], back[3000], one = 7;
    long sums[4];
    size_t n = 0, i;
    uint64_t length = 0;
    int flag = 5;
    for (i = 0; i < 3000; i++) words[i] = (int32_t)i - 1500;
    is(netshm_table_find(t, -1, back, 3000, &n), NETSHM_E_NOT_FOUND);
    good(netshm_table_mem(t, -1, &flag));
    is(flag, 0);
    good(netshm_table_add(t, -1, words, 3000));
    good(netshm_table_mem(t, -1, &flag));
    is(flag, 1);
    is(netshm_table_find(t, -1, back, 2999, &n), NETSHM_E_TOO_SMALL);
    is(n, 3000);
    good(netshm_table_find(t, -1, back, 3000, &n));
    ok(n == 3000 && memcmp(words, back, sizeof words) == 0);
    good(netshm_table_add(t, -1, NULL, 0));
    good(netshm_table_find(t, -1, NULL, 0, &n));
    is(n, 0);
    good(netshm_table_replace(t, -1, &one, 1));
    good(netshm_table_find(t, -1, back, 3000, &n));
    ok(n == 1 && back[0] == 7);
    good(netshm_table_add(t, INT32_MIN, &one, 1));
    good(netshm_table_length(t, &length));
    is(length, 3);
    memset(sums, 0, sizeof sums);
    good(netshm_table_iter(t, visit, sums));
    ok(sums[0] == 3 && sums[1] == (long)INT32_MIN - 2 && sums[2] == 14 - 1500);
    memset(sums, 0, sizeof sums);
    good(netshm_table_iter_keys(t, visit, sums));
    ok(sums[0] == 2 && sums[1] == (long)INT32_MIN - 1 && sums[2] == 0);
    memset(sums, 0, sizeof sums);
    sums[3] = 2;
    good(netshm_table_iter(t, visit, sums));
    is(sums[0], 2);
    is(netshm_table_iter(t, wrong, NULL), -1234);
    good(netshm_table_remove(t, -1, &flag));
    is(flag, 1);
    good(netshm_table_remove(t, INT32_MIN, NULL));
    good(netshm_table_remove(t, INT32_MIN, &flag));
    is(flag, 0);
}

static void blocks(void)
{
    static const int stop_in_second[] = { 1, 1, 1, NETSHM_BLOCK_BREAK };
    static const int skip[] = { NETSHM_BLOCK_NEXT, NETSHM_BLOCK_NEXT, NETSHM_BLOCK_NEXT };
    static const int middle[] = { 1, 1, 1 | NETSHM_BLOCK_REMOVE, 1, 1, 1 };
    static const int middle_break[] = { 1, 1, 1 | NETSHM_BLOCK_REMOVE, NETSHM_BLOCK_BREAK };
    static const int ends[] = { 1, NETSHM_BLOCK_GO | NETSHM_BLOCK_REMOVE, 1, 1, NETSHM_BLOCK_REMOVE };
    static const int unknown[] = { 1, 64 };
    static const int failing[] = { 1 | NETSHM_BLOCK_REMOVE, 1, -1000 };
    static const int reserved[] = { -500 };
    script s = scripted(NULL);
    int32_t many[3000];
    memset(many, 0, sizeof many);
    good(netshm_table_add(t, 77, many, 3000));
    good(netshm_table_read_blocks(t, 77, play, &s));
    ok(s.calls == 4 && s.ends == 1 && s.longest == 1024);
    fill(1);
    s = scripted(NULL);
    good(netshm_table_read_blocks(t, 1, play, &s));
    ok(s.calls == 6 && s.ends == 3 && s.sum == 6);
    s = scripted(stop_in_second);
    good(netshm_table_read_blocks(t, 1, play, &s));
    ok(s.calls == 4 && s.sum == 5 && s.ends == 2);
    s = scripted(skip);
    good(netshm_table_read_blocks(t, 1, play, &s));
    ok(s.calls == 3 && s.ends == 0);
    s = scripted(middle);
    is(netshm_table_read_blocks(t, 1, play, &s), NETSHM_E_CALLBACK);
    s = scripted(NULL);
    good(netshm_table_read_blocks(t, 4711, play, &s));
    is(s.calls, 0);
    s = scripted(NULL);
    s.assign = 11;
    good(netshm_table_read_blocks(t, 1, play, &s));
    ok(s.calls == 6 && stack_is(1, 3, 3, 2, 1));

    s = scripted(NULL);
    s.assign = 11;
    good(netshm_table_write_blocks(t, 0, 1, play, &s));
    ok(stack_is(1, 3, 11, 12, 13));
    fill(1);
    s = scripted(middle);
    is(netshm_table_write_blocks(t, 0, 1, play, &s), NETSHM_E_CALLBACK);
    ok(strstr(last_text(), "not announced") != NULL);
    ok(stack_is(1, 3, 3, 2, 1));
    s = scripted(middle);
    good(netshm_table_write_blocks(t, NETSHM_BLOCK_REMOVE, 1, play, &s));
    ok(stack_is(1, 2, 3, 1, 0));
    fill(1);
    s = scripted(middle_break);
    s.assign = 30;
    good(netshm_table_write_blocks(t, NETSHM_BLOCK_REMOVE, 1, play, &s));
    ok(stack_is(1, 2, 30, 1, 0));
    fill(1);
    s = scripted(ends);
    good(netshm_table_write_blocks(t, NETSHM_BLOCK_REMOVE, 1, play, &s));
    ok(s.calls == 5 && stack_is(1, 1, 2, 0, 0));
    fill(1);
    s = scripted(unknown);
    s.assign = 30;
    good(netshm_table_write_blocks(t, NETSHM_BLOCK_REMOVE, 1, play, &s));
    ok(s.calls == 2 && stack_is(1, 3, 30, 2, 1));
    fill(1);
    s = scripted(failing);
    s.assign = 30;
    is(netshm_table_write_blocks(t, NETSHM_BLOCK_REMOVE, 1, play, &s), -1000);
    ok(stack_is(1, 3, 3, 2, 1));
    s = scripted(reserved);
    is(netshm_table_write_blocks(t, 0, 1, play, &s), NETSHM_E_CALLBACK);
    is(netshm_table_write_blocks(t, 8, 1, play, &s), NETSHM_E_INVALID);
    is(last().argument, 2);
}

static void callbacks(void)
{
    int codes[6], answer;
    fill(1);
    good(netshm_table_write_blocks(t, 0, 1, forbidden, codes));
    is(codes[0], NETSHM_E_IN_CALLBACK);
    is(codes[1], NETSHM_E_IN_CALLBACK);
    is(codes[2], NETSHM_E_IN_CALLBACK);
    is(codes[3], NETSHM_E_IN_CALLBACK);
    is(codes[4], NETSHM_E_IN_CALLBACK);
    is(codes[5], NETSHM_OK);
    answer = NETSHM_ROLLBACK;
    is(netshm_group(t, group_of, &answer), NETSHM_E_ABORTED);
    ok(stack_is(1, 3, 3, 2, 1));
    answer = NETSHM_COMMIT;
    good(netshm_group(t, group_of, &answer));
    ok(stack_is(1, 0, 0, 0, 0));
}

static void arguments(void)
{
    int32_t word = 0;
    size_t n;
    netshm_words *vals;
    int32_t storage[4] = { 0, 0, 0, 0 };
    is(netshm_table_add(NULL, 1, &word, 1), NETSHM_E_INVALID);
    is(netshm_table_add(t, 1, NULL, 1), NETSHM_E_INVALID);
    is(last().argument, 3);
    is(netshm_table_add(t, 1, (const int32_t *)(const void *)((const char *)storage + 1), 1), NETSHM_E_INVALID);
    is(netshm_table_replace(t, 1, NULL, 1), NETSHM_E_INVALID);
    is(netshm_table_remove(NULL, 1, NULL), NETSHM_E_INVALID);
    is(netshm_table_mem(t, 1, NULL), NETSHM_E_INVALID);
    is(netshm_table_find(t, 1, NULL, 1, &n), NETSHM_E_INVALID);
    is(netshm_table_find(t, 1, &word, 1, NULL), NETSHM_E_INVALID);
    is(netshm_table_find_all(t, 1, NULL, &n), NETSHM_E_INVALID);
    is(netshm_table_find_all(t, 1, &vals, NULL), NETSHM_E_INVALID);
    is(netshm_table_length(t, NULL), NETSHM_E_INVALID);
    is(netshm_table_iter(t, NULL, NULL), NETSHM_E_INVALID);
    is(netshm_table_iter_keys(t, NULL, NULL), NETSHM_E_INVALID);
    is(netshm_table_read_blocks(t, 1, NULL, NULL), NETSHM_E_INVALID);
    is(netshm_table_write_blocks(t, 0, 1, NULL, NULL), NETSHM_E_INVALID);
    is(netshm_table_dump(t, NULL), NETSHM_E_INVALID);
    is(netshm_table_manage(NULL, NULL, &t), NETSHM_E_INVALID);
    good(netshm_table_close(NULL));
}

int main(void)
{
    place *p = place_new(), *q = place_new();
    netshm_object *o = NULL;
    netshm_table *again = NULL, *closed;
    netshm_hashtbl *h;
    char *text = NULL;
    int32_t word = 5;
    int answer;
    good(place_open(p, CREATE, &o));
    good(netshm_table_manage(o, NULL, &t));
    good(netshm_close(o));
    basics();
    blocks();
    callbacks();
    arguments();

    good(netshm_table_dump(t, &text));
    ok(text && strstr(text, "bindings: 2\n") != NULL);
    netshm_free(text);
    good(place_open(p, RW, &o));
    good(netshm_table_manage(o, NULL, &again));
    good(netshm_close(o));
    closed = t;
    good(netshm_table_close(t));
    is(netshm_table_close(closed), NETSHM_E_CLOSED);
    is(netshm_table_add(closed, 1, &word, 1), NETSHM_E_CLOSED);
    good(netshm_table_add(again, 1, &word, 1));

    /* The table of a hash table is a scope, and not to be closed. */
    h = place_table(q, NULL);
    ok(h != NULL);
    is(netshm_table_close(netshm_hashtbl_table(h)), NETSHM_E_INVALID);
    is(netshm_table_close((netshm_table *)(void *)h), NETSHM_E_INVALID);
    is(netshm_table_add(netshm_hashtbl_table(h), 1, &word, 1), NETSHM_E_KIND);
    ok(strstr(last_text(), "primitive table") && strstr(last_text(), "hash table"));
    is(netshm_table_mem(netshm_hashtbl_table(h), 1, &answer), NETSHM_E_KIND);
    is(netshm_table_write_blocks(netshm_hashtbl_table(h), 0, 1, play, NULL), NETSHM_E_KIND);
    good(place_open(q, RW, &o));
    is(netshm_table_manage(o, NULL, &again), NETSHM_E_KIND);
    good(netshm_close(o));
    good(netshm_table_dump(netshm_hashtbl_table(h), &text));
    netshm_free(text);
    good(netshm_hashtbl_close(h));
    good(netshm_table_close(again));
    good(place_check(p));
    good(place_check(q));
    return done();
}
