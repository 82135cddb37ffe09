/* How long after a commit a waiter runs, beside a bare futex in the same run.
 *
 * usage: wake [rounds]
 *
 * A process waits, asleep; another one changes what it waits for. Measured is the time from right before the change
 * (netshm_hashtbl_replace of 8 bytes; a store and FUTEX_WAKE) to right after the wait has returned. Rounds of both
 * alternate. Before each, the changer sleeps a little, so that the waiter sleeps, too.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <netshm.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GOAL_US = 50, MOST = 100000 };

struct shared {
    _Atomic uint32_t word;
    _Atomic uint64_t ready, changed_at, seen;
    double bare[MOST], wait[MOST];
};

static struct shared *shared;
static netshm_hashtbl *table;

static void must(int code, const char *what) {
    if (code == NETSHM_OK) return;
    fprintf(stderr, "wake: %s: %s\n", what, netshm_strerror(code));
    _exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void until(_Atomic uint64_t *word, uint64_t value) {
    while (atomic_load(word) < value) usleep(20);
}

static double since_change_us(void) {
    uint64_t now = now_ns();
    return (double)(now - atomic_load(&shared->changed_at)) / 1e3;
}

static void waiter(uint64_t rounds) {
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t stamp;
        must(netshm_hashtbl_stamp(table, "k", 1, &stamp), "stamp");
        uint32_t word = atomic_load(&shared->word);
        atomic_store(&shared->ready, 2 * i + 1);
        while (atomic_load(&shared->word) == word)
            syscall(SYS_futex, &shared->word, FUTEX_WAIT, word, NULL, NULL, 0);
        shared->bare[i] = since_change_us();
        atomic_store(&shared->seen, 2 * i + 1);
        atomic_store(&shared->ready, 2 * i + 2);
        must(netshm_hashtbl_wait(table, "k", 1, &stamp, -1), "wait");
        shared->wait[i] = since_change_us();
        atomic_store(&shared->seen, 2 * i + 2);
    }
}

static void changer(uint64_t rounds) {
    for (uint64_t i = 0; i < rounds; i++) {
        until(&shared->ready, 2 * i + 1);
        usleep(300);
        atomic_store(&shared->changed_at, now_ns());
        atomic_fetch_add(&shared->word, 1);
        syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
        until(&shared->seen, 2 * i + 1);
        until(&shared->ready, 2 * i + 2);
        usleep(300);
        atomic_store(&shared->changed_at, now_ns());
        must(netshm_hashtbl_replace(table, "k", 1, &i, sizeof i), "replace");
        until(&shared->seen, 2 * i + 2);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double report(const char *what, double *times, uint64_t n) {
    qsort(times, n, sizeof *times, by_value);
    printf("  %-28s median %7.1f us   99%% %7.1f us\n", what, times[n / 2], times[n * 99 / 100]);
    return times[n / 2];
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000;
    netshm_object *object = NULL;
    int status = 1;
    if (rounds < 1 || rounds > MOST) return 2;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 1;
    must(netshm_open(NETSHM_ANON, NULL, NULL, NETSHM_RDWR | NETSHM_CREAT, 0, &object), "open");
    must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "manage");
    must(netshm_hashtbl_replace(table, "k", 1, &rounds, sizeof rounds), "replace");
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        waiter(rounds);
        _exit(0);
    }
    changer(rounds);
    waitpid(child, &status, 0);
    if (status != 0) return 1;
    printf("from a change to the run of whoever waits for it (%lu rounds, alternating)\n", (unsigned long)rounds);
    double bare = report("store and FUTEX_WAKE", shared->bare, rounds);
    double wait = report("replace, netshm_hashtbl_wait", shared->wait, rounds);
    printf("  %.2f times the bare one; goal <= %d us  %s\n", wait / bare, GOAL_US, wait <= GOAL_US ? "met" : "NOT MET");
    netshm_hashtbl_close(table);
    netshm_close(object);
    return 0;
}
