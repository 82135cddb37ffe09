/* Goal: groups are all or nothing. Method: callbacks and begin/commit/abort, nested, moved between threads,
 * inherited by a forked child, and two processes that deadlock. */
#include "support.h"
#include <sched.h>

static place *p;
static netshm_hashtbl *t;
static netshm_table *table;

static int two_writes(netshm_txn *txn, void *arg)
{
    int answer = *(int *)arg;
    if (txn == NULL || put(t, "a", "group") != NETSHM_OK || put(t, "b", "group") != NETSHM_OK) return -1001;
    if (has(t, "a", "group") != 1) return -1002;
    if (netshm_group_commit(txn) != NETSHM_E_IN_CALLBACK || netshm_group_abort(txn) != NETSHM_E_IN_CALLBACK
        || netshm_group_restart(txn) != NETSHM_E_IN_CALLBACK || netshm_group_detach(txn) != NETSHM_E_IN_CALLBACK
        || netshm_group_attach(txn) != NETSHM_E_IN_CALLBACK)
        return -1003;
    return answer;
}

static int grouped(int answer) { return netshm_group(table, two_writes, &answer); }

static void callbacks(void)
{
    static const int harmless[] = { NETSHM_ROLLBACK, 2, 77 };
    size_t i;
    put(t, "a", "before");
    for (i = 0; i < sizeof harmless / sizeof harmless[0]; i++) is(grouped(harmless[i]), NETSHM_E_ABORTED);
    is(grouped(-5000), -5000);
    is(grouped(NETSHM_E_NOT_FOUND), NETSHM_E_NOT_FOUND);
    is(grouped(NETSHM_E_DEADLOCK), NETSHM_E_DEADLOCK);
    is(grouped(-500), NETSHM_E_CALLBACK);
    is(has(t, "a", "before"), 1);
    is(has(t, "b", ""), NETSHM_E_NOT_FOUND);
    is(grouped(NETSHM_COMMIT), NETSHM_OK);
    is(has(t, "a", "group"), 1);
    is(has(t, "b", "group"), 1);
}

static int inner_aborts(netshm_txn *txn, void *arg)
{
    int answer = NETSHM_ROLLBACK;
    (void)txn;
    put(t, "outer", "1");
    if (grouped(answer) != NETSHM_E_ABORTED) return -1001;
    if (has(t, "outer", "1") != 1 || has(t, "a", "group") == 1) return -1002;
    *(int *)arg = 1;
    return NETSHM_COMMIT;
}

static void nesting(void)
{
    netshm_txn *outer = NULL, *inner = NULL;
    uint64_t n = 0;
    int ran = 0;
    put(t, "a", "x");
    put(t, "b", "x");
    good(netshm_group(table, inner_aborts, &ran));
    is(ran, 1);
    is(has(t, "outer", "1"), 1);
    is(has(t, "a", "x"), 1);

    good(netshm_group_begin(table, &outer));
    put(t, "a", "o");
    good(netshm_group_begin(table, &inner));
    put(t, "a", "i");
    put(t, "b", "i");
    is(netshm_group_detach(outer), NETSHM_OK);
    is(netshm_group_attach(outer), NETSHM_OK);
    is(netshm_group_detach(inner), NETSHM_E_IN_GROUP);
    is(netshm_group_restart(inner), NETSHM_E_IN_GROUP);
    good(netshm_group_abort(inner));
    is(has(t, "a", "o"), 1);
    is(has(t, "b", "x"), 1);
    good(netshm_group_begin(table, &inner));
    put(t, "b", "j");
    good(netshm_group_commit(inner));
    good(netshm_hashtbl_length(t, &n));
    good(netshm_group_commit(outer));
    is(has(t, "a", "o"), 1);
    is(has(t, "b", "j"), 1);

    /* The outer group ends first: the inner one is told so. */
    good(netshm_group_begin(table, &outer));
    put(t, "b", "kept");
    good(netshm_group_begin(table, &inner));
    put(t, "a", "lost");
    put(t, "b", "lost");
    good(netshm_group_commit(outer));
    is(netshm_group_commit(inner), NETSHM_E_ABORTED);
    is(netshm_group_commit(inner), NETSHM_E_CLOSED);
    is(has(t, "a", "o"), 1);
    is(has(t, "b", "kept"), 1);
    good(netshm_group_abort(NULL));
}

static int other_handles(netshm_txn *txn, void *arg)
{
    netshm_hashtbl *second = place_table(p, NULL);
    int code;
    (void)txn, (void)arg;
    put(t, "a", "seen by all handles");
    code = has(second, "a", "seen by all handles");
    netshm_hashtbl_close(second);
    return code == 1 ? NETSHM_COMMIT : -1001;
}

static void *see_nothing(void *arg) { *(int *)arg = has(t, "a", "mine"); return NULL; }
static void *try_commit(void *arg)
{
    return (void *)(intptr_t)netshm_group_commit((netshm_txn *)arg);
}
static void *attach_and_commit(void *arg)
{
    netshm_txn *x = (netshm_txn *)arg;
    int code = netshm_group_attach(x);
    if (code == NETSHM_OK && has(t, "a", "mine") != 1) code = -1001;
    if (code == NETSHM_OK) put(t, "b", "theirs");
    if (code == NETSHM_OK) code = netshm_group_commit(x);
    return (void *)(intptr_t)code;
}
static void *just_abort(void *arg) { return (void *)(intptr_t)netshm_group_abort((netshm_txn *)arg); }
static void *just_begin(void *arg)
{
    netshm_txn **x = (netshm_txn **)arg;
    int code = netshm_group_begin(table, x);
    put(t, "a", "begun elsewhere");
    if (code == NETSHM_OK) code = netshm_group_detach(*x);
    return (void *)(intptr_t)code;
}

static int on_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, body, arg);
    pthread_join(thread, &result);
    return (int)(intptr_t)result;
}

static void threads(void)
{
    netshm_txn *x = NULL, *y = NULL;
    int seen = 5;
    put(t, "a", "before");
    good(netshm_group_begin(table, &x));
    put(t, "a", "mine");
    on_thread(see_nothing, &seen);
    is(seen, 0);
    is(on_thread(try_commit, x), NETSHM_E_IN_GROUP);
    is(netshm_group_attach(x), NETSHM_E_IN_GROUP);
    good(netshm_group_detach(x));
    is(netshm_group_detach(x), NETSHM_E_IN_GROUP);
    is(netshm_group_commit(x), NETSHM_E_IN_GROUP);
    is(netshm_group_restart(x), NETSHM_E_IN_GROUP);
    is(has(t, "a", "before"), 1);
    is(on_thread(attach_and_commit, x), NETSHM_OK);
    is(has(t, "a", "mine"), 1);
    is(has(t, "b", "theirs"), 1);

    /* A detached group can be undone by anybody; here it stays detached while another one is open. */
    good(netshm_group_begin(table, &x));
    put(t, "a", "lost");
    good(netshm_group_detach(x));
    good(netshm_group_begin(table, &y));
    is(netshm_group_attach(x), NETSHM_E_IN_GROUP);
    good(netshm_group_abort(y));
    is(on_thread(just_abort, x), NETSHM_OK);
    is(has(t, "a", "mine"), 1);
    good(put(t, "a", "free again"));

    /* The thread that began it is gone. */
    is(on_thread(just_begin, &x), NETSHM_OK);
    good(netshm_group_attach(x));
    is(has(t, "a", "begun elsewhere"), 1);
    good(netshm_group_commit(x));
    is(has(t, "a", "begun elsewhere"), 1);
}

/* Threads that abort the same detached groups at once: each group is ended by one of them, and the other is told so. The
 * groups are the last to keep their object. */
enum { GROUPS = 24, ROUNDS = 100 };
static struct { int arrived; netshm_txn *x[GROUPS]; int codes[2][GROUPS]; } at_once;

/* Two threads meet for the n-th time, and go on in the same moment if two processors are free. */
static void meet(int n)
{
    int looks = 0;
    __sync_fetch_and_add(&at_once.arrived, 1);
    while (__sync_fetch_and_add(&at_once.arrived, 0) < 2 * n)
        if (++looks % 10000 == 0) sched_yield();
}

static void abort_all(int *codes)
{
    int i;
    for (i = 0; i < GROUPS; i++) codes[i] = netshm_group_abort(at_once.x[i]);
}

static void *abort_too(void *arg)
{
    int round;
    (void)arg;
    for (round = 0; round < ROUNDS; round++) {
        meet(3 * round + 1);
        meet(3 * round + 2);
        abort_all(at_once.codes[1]);
        meet(3 * round + 3);
    }
    return NULL;
}

static void aborts_at_once(void)
{
    place *own = place_new();
    pthread_t thread;
    int round, i, once = 0, told = 0;
    is(pthread_create(&thread, NULL, abort_too, NULL), 0);
    for (round = 0; round < ROUNDS; round++) {
        netshm_hashtbl *last = place_table(own, NULL);
        for (i = 0; i < GROUPS; i++) {
            netshm_group_begin(netshm_hashtbl_table(last), &at_once.x[i]);
            netshm_group_detach(at_once.x[i]);
        }
        netshm_hashtbl_close(last);
        meet(3 * round + 1);
        meet(3 * round + 2);
        abort_all(at_once.codes[0]);
        meet(3 * round + 3);
        for (i = 0; i < GROUPS; i++) {
            int mine = at_once.codes[0][i], other = at_once.codes[1][i];
            once += (mine == NETSHM_OK) + (other == NETSHM_OK) == 1;
            if (mine == NETSHM_OK) mine = other;
            told += mine == NETSHM_E_BUSY || mine == NETSHM_E_CLOSED;
        }
    }
    pthread_join(thread, NULL);
    is(once, GROUPS * ROUNDS);
    is(told, GROUPS * ROUNDS);
    is(place_check(own), NETSHM_OK);
}

typedef struct inside { netshm_txn *x; int codes[5]; } inside;

static int end_inside(netshm_update *u, const void *old, size_t len, void *arg)
{
    inside *in = (inside *)arg;
    (void)u, (void)old, (void)len;
    in->codes[0] = netshm_group_commit(in->x);
    in->codes[1] = netshm_group_abort(in->x);
    in->codes[2] = netshm_group_detach(in->x);
    in->codes[3] = netshm_group_restart(in->x);
    in->codes[4] = put(t, "a", "no");
    return NETSHM_KEEP;
}

static void in_an_operation(void)
{
    inside in;
    int i;
    good(netshm_group_begin(table, &in.x));
    put(t, "a", "yes");
    good(netshm_hashtbl_update(t, "a", 1, end_inside, &in));
    for (i = 0; i < 5; i++) is(in.codes[i], NETSHM_E_IN_CALLBACK);
    good(netshm_group_commit(in.x));
    is(has(t, "a", "yes"), 1);
}

/* Keys share locks: a child that writes may meet the parent's lock, which it must not wait for here. */
static netshm_hashtbl *hasty;

static int child_writes(const char *key)
{
    int code = put(hasty, key, "works");
    return code == NETSHM_OK || code == NETSHM_E_TIMEOUT;
}

static int child_uses_group(void *arg)
{
    char key[] = "a";
    size_t len;
    if (netshm_hashtbl_replace(t, key, 1, "child", 5) != NETSHM_E_FORKED) return 1;
    if (netshm_hashtbl_find(t, key, 1, NULL, 0, &len) != NETSHM_E_FORKED) return 2;
    if (netshm_group_restart((netshm_txn *)arg) != NETSHM_E_FORKED) return 3;
    if (netshm_group_detach((netshm_txn *)arg) != NETSHM_E_FORKED) return 4;
    if (netshm_group_commit((netshm_txn *)arg) != NETSHM_E_FORKED) return 5;
    if (netshm_group_commit((netshm_txn *)arg) != NETSHM_E_CLOSED) return 6;
    /* From now on the child is like any other process. */
    if (!child_writes("child")) return 7;
    if (has(t, "a", "old") != 1) return 8;
    return 0;
}

static int child_uses_detached(void *arg)
{
    if (!child_writes("child2")) return 1;
    if (netshm_group_attach((netshm_txn *)arg) != NETSHM_E_FORKED) return 2;
    if (netshm_group_abort((netshm_txn *)arg) != NETSHM_E_FORKED) return 3;
    if (!child_writes("child2")) return 4;
    return 0;
}

static int fork_in_group(netshm_txn *txn, void *arg)
{
    pid_t pid = fork();
    (void)txn;
    *(pid_t *)arg = pid;
    return NETSHM_COMMIT;
}

static void forks(void)
{
    netshm_txn *x = NULL;
    pid_t pid = -1;
    int code, status = 0;
    netshm_options impatient = NETSHM_OPTIONS_INIT;
    impatient.lock_timeout_ms = -1;
    hasty = place_table(p, &impatient);
    put(t, "a", "old");
    good(netshm_group_begin(table, &x));
    put(t, "a", "parent");
    is(in_child(child_uses_group, x), 0);
    is(has(t, "a", "parent"), 1);
    good(netshm_group_commit(x));
    is(has(t, "a", "parent"), 1);

    good(netshm_group_begin(table, &x));
    put(t, "a", "detached");
    good(netshm_group_detach(x));
    is(in_child(child_uses_detached, x), 0);
    good(netshm_group_attach(x));
    good(netshm_group_commit(x));
    is(has(t, "a", "detached"), 1);

    fflush(stdout);
    code = netshm_group(table, fork_in_group, &pid);
    if (pid == 0) _exit(code == NETSHM_E_FORKED ? 0 : 9);
    is(code, NETSHM_OK);
    waitpid(pid, &status, 0);
    is(status, 0);
    good(netshm_hashtbl_close(hasty));
    is(place_check(p), NETSHM_OK);
}

/* Two processes take the same two keys in opposite order. */
typedef struct dance { const char *first, *second; int attempts, deadlocks; volatile int *arrived; } dance;

static int step(netshm_txn *txn, void *arg)
{
    dance *d = (dance *)arg;
    int i, code;
    int64_t now;
    (void)txn;
    d->attempts++;
    code = netshm_hashtbl_incr(t, d->first, strlen(d->first), 1, 0, &now);
    if (code != NETSHM_OK) return code;
    __sync_fetch_and_add(d->arrived, 1);
    for (i = 0; i < 20000 && *d->arrived < 2; i++) usleep(1000);
    code = netshm_hashtbl_incr(t, d->second, strlen(d->second), 1, 0, &now);
    if (code == NETSHM_E_DEADLOCK) d->deadlocks++;
    /* Swallowed: the group is doomed all the same. */
    return NETSHM_COMMIT;
}

static int dance_alone(void *arg)
{
    dance d;
    d.first = "y";
    d.second = "x";
    d.attempts = d.deadlocks = 0;
    d.arrived = (volatile int *)arg;
    if (netshm_group_retry(table, -1, step, &d) != NETSHM_OK) return 200;
    return d.deadlocks > 99 ? 99 : d.deadlocks;
}

static void deadlock(void)
{
    int round, met = 0, status = 0;
    int64_t x = 0, y = 0;
    volatile int *arrived = (volatile int *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (round = 0; round < 5; round++) {
        dance d;
        pid_t pid;
        *arrived = 0;
        fflush(stdout);
        pid = fork();
        if (pid == 0) _exit(dance_alone((void *)arrived));
        d.first = "x";
        d.second = "y";
        d.attempts = d.deadlocks = 0;
        d.arrived = arrived;
        good(netshm_group_retry(table, -1, step, &d));
        waitpid(pid, &status, 0);
        ok(WIFEXITED(status) && WEXITSTATUS(status) < 200);
        met += d.deadlocks + WEXITSTATUS(status);
    }
    note("%d deadlocks met", met);
    ok(met >= 5);
    good(netshm_hashtbl_incr(t, "x", 1, 0, 0, &x));
    good(netshm_hashtbl_incr(t, "y", 1, 0, 0, &y));
    is(x, 10);
    is(y, 10);
    munmap((void *)arrived, 4096);
}

static int slow_child(void *arg)
{
    dance d;
    netshm_txn *x = NULL;
    int code;
    (void)arg;
    (void)d;
    if (netshm_group_begin(table, &x) != NETSHM_OK) return 1;
    if (put(t, "held", "child") != NETSHM_OK) return 2;
    *(volatile int *)arg = 1;
    usleep(600 * 1000);
    code = netshm_group_abort(x);
    return code == NETSHM_OK ? 0 : 3;
}

static void timeouts(void)
{
    netshm_options o = NETSHM_OPTIONS_INIT;
    netshm_hashtbl *patient;
    volatile int *held = (volatile int *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    pid_t pid;
    put(t, "held", "before");
    o.lock_timeout_ms = 50;
    patient = place_table(p, &o);
    o.lock_timeout_ms = -1;
    hasty = place_table(p, &o);
    fflush(stdout);
    pid = fork();
    if (pid == 0) _exit(slow_child((void *)held));
    while (!*held) usleep(1000);
    is(put(patient, "held", "x"), NETSHM_E_TIMEOUT);
    is(last().holder_pid, pid);
    is(put(hasty, "held", "x"), NETSHM_E_TIMEOUT);
    is(has(t, "held", "before"), 1);
    good(put(t, "held", "after"));
    waitpid(pid, &status, 0);
    is(status, 0);
    good(put(hasty, "held", "x"));
    good(netshm_hashtbl_close(patient));
    good(netshm_hashtbl_close(hasty));
    munmap((void *)held, 4096);
}

int main(void)
{
    netshm_options options = locking_options();
    p = place_new();
    t = place_table(p, &options);
    table = netshm_hashtbl_table(t);
    ok(t != NULL && table != NULL);
    callbacks();
    nesting();
    good(netshm_group(table, other_handles, NULL));
    threads();
#if defined(__SANITIZE_THREAD__)
    /* Closing a handle in two threads is a mistake that is told, and a race all the same: the loser looks at what is closed. */
    note("not under ThreadSanitizer: two threads that abort one group");
#else
    aborts_at_once();
#endif
    in_an_operation();
    forks();
    deadlock();
    timeouts();

    /* A group outlives the handles of its table. */
    {
        netshm_txn *x = NULL;
        netshm_hashtbl *second = place_table(p, NULL);
        good(netshm_group_begin(netshm_hashtbl_table(second), &x));
        good(put(second, "a", "kept"));
        good(netshm_hashtbl_close(second));
        good(netshm_group_commit(x));
        is(has(t, "a", "kept"), 1);
    }
    is(place_check(p), NETSHM_OK);
    good(netshm_hashtbl_close(t));
    is(netshm_group(table, inner_aborts, NULL), NETSHM_E_CLOSED);
    return done();
}
