/* Goal: netshm_hashtbl_wait() ends when it should, and says why. Method: waits with a change before, during and
 * never; signals; groups and callbacks; processes that answer each other. */
#include "support.h"
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

static place *p;
static netshm_hashtbl *t;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* How often this process has given the processor away. */
static long sleeps_so_far(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nvcsw : -1;
}

static const int64_t MS = 1000000, LONG_TIME = (int64_t)20 * 1000000000;

static void time_passes(void)
{
    uint64_t stamp = 0, before;
    double begin;
    long sleeps;
    good(netshm_hashtbl_stamp(t, "k", 1, &stamp));
    ok(stamp != 0);
    before = stamp;
    is(netshm_hashtbl_wait(t, "k", 1, &stamp, 0), NETSHM_E_TIMEOUT);
    is(last().code, NETSHM_E_TIMEOUT);
    ok(strstr(last_text(), "change") != NULL);
    begin = seconds();
    sleeps = sleeps_so_far();
    is(netshm_hashtbl_wait(t, "k", 1, &stamp, 70 * MS), NETSHM_E_TIMEOUT);
    ok(seconds() - begin >= 0.07);
    ok(sleeps_so_far() > sleeps);
    ok(stamp == before);
    good(put(t, "k", "1"));
    good(netshm_hashtbl_wait(t, "k", 1, &stamp, -1));
    ok(stamp != before);
    before = stamp;
    stamp = 0;
    good(netshm_hashtbl_wait(t, "k", 1, &stamp, -1));
    ok(stamp == before);
    /* An empty key is a key. */
    good(netshm_hashtbl_stamp(t, NULL, 0, &stamp));
    is(netshm_hashtbl_wait(t, NULL, 0, &stamp, 0), NETSHM_E_TIMEOUT);
    good(netshm_hashtbl_add(t, "", 0, "v", 1));
    good(netshm_hashtbl_wait(t, NULL, 0, &stamp, -1));
}

static int waits_in_update(netshm_update *u, const void *old, size_t len, void *arg)
{
    uint64_t stamp = 1;
    (void)u, (void)old, (void)len;
    *(int *)arg = netshm_hashtbl_wait(t, "k", 1, &stamp, -1);
    return NETSHM_KEEP;
}

static void refused(void)
{
    netshm_txn *x = NULL;
    uint64_t stamp = 0, in_group = 0;
    int code = 0;
    good(netshm_hashtbl_stamp(t, "k", 1, &stamp));
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    good(put(t, "k", "group"));
    is(netshm_hashtbl_wait(t, "k", 1, &stamp, -1), NETSHM_E_IN_GROUP);
    good(netshm_hashtbl_stamp(t, "k", 1, &in_group));
    ok(in_group == stamp);
    good(netshm_group_commit(x));
    good(netshm_hashtbl_wait(t, "k", 1, &stamp, -1));
    good(netshm_hashtbl_update(t, "k", 1, waits_in_update, &code));
    is(code, NETSHM_E_IN_CALLBACK);
}

static void handler(int number) { (void)number; }

static int interrupted(void *arg)
{
    struct sigaction action;
    struct itimerval timer;
    uint64_t stamp = 0;
    (void)arg;
    memset(&action, 0, sizeof action);
    memset(&timer, 0, sizeof timer);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    if (sigaction(SIGALRM, &action, NULL) != 0) return 1;
    timer.it_value.tv_usec = timer.it_interval.tv_usec = 20000;
    if (netshm_hashtbl_stamp(t, "k", 1, &stamp) != NETSHM_OK) return 2;
    if (setitimer(ITIMER_REAL, &timer, NULL) != 0) return 3;
    if (netshm_hashtbl_wait(t, "k", 1, &stamp, LONG_TIME) != NETSHM_E_INTERRUPTED) return 4;
    return last().code == NETSHM_E_INTERRUPTED ? 0 : 5;
}

/* Waits until the number of a key is odd, or even, and adds 1. */
static int take_turn(int odd)
{
    uint64_t stamp = 0;
    unsigned char value[8];
    size_t len = 0;
    for (;;) {
        if (netshm_hashtbl_stamp(t, "turn", 4, &stamp) != NETSHM_OK) return 1;
        if (netshm_hashtbl_find(t, "turn", 4, value, sizeof value, &len) != NETSHM_OK) return 2;
        if (value[0] % 2 == odd) return netshm_hashtbl_incr(t, "turn", 4, 1, 0, NULL) == NETSHM_OK ? 0 : 3;
        if (netshm_hashtbl_wait(t, "turn", 4, &stamp, LONG_TIME) != NETSHM_OK) return 4;
    }
}

enum { ROUNDS = 2000 };

static int answers(void)
{
    int i, code = 0;
    for (i = 0; i < ROUNDS && code == 0; i++) code = take_turn(1);
    return code;
}

static void hand_over(void)
{
    int i, status = 0, code = 0;
    int64_t now = 0;
    pid_t child;
    good(netshm_hashtbl_incr(t, "turn", 4, 0, 0, NULL));
    fflush(stdout);
    child = fork();
    if (child == 0) _exit(answers());
    for (i = 0; i < ROUNDS && code == 0; i++) code = take_turn(0);
    is(code, 0);
    waitpid(child, &status, 0);
    is(status, 0);
    good(netshm_hashtbl_incr(t, "turn", 4, 0, 0, &now));
    is(now, 2 * ROUNDS);
}

int main(void)
{
    netshm_object *o = NULL;
    p = place_new();
    good(place_open(p, CREATE, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(put(t, "k", "0"));
    time_passes();
    refused();
    is(in_child(interrupted, NULL), 0);
    hand_over();
    good(netshm_check(o, 0, NULL, NULL));
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    return done();
}
