/*
 * A computation by several processes: counts the primes below N and keeps the result of each segment in a shared array.
 *
 *     primes [N [PROCESSES]]        N is a power of ten, 100,000,000 if it is not given
 *
 * The numbers are cut into segments. A process takes the next segment by adding one to a shared counter, an element of
 * its own behind those of the segments, sieves it, and stores the count in the segment's element. One process is killed
 * in the middle: its segment then still shows the default, which is seen, and somebody else computes it. What had been
 * stored is still there.
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Odd numbers of a segment: a byte each, so that the sieve fits into the processor's cache. */
enum { SEGMENT = 1 << 17, MOST = 64 };

/* What an element shows until a result is stored in it. */
#define NO_RESULT INT64_C(-1)

static netshm_array *results;
static uint32_t *small_primes;
static size_t small_count;

static void fail(const char *what)
{
    fprintf(stderr, "primes: %s\n", what);
    exit(1);
}

static void must(int code, const char *what)
{
    if (code == NETSHM_OK) return;
    fprintf(stderr, "primes: %s: %s\n", what, netshm_strerror(code));
    exit(1);
}

/* All odd primes up to the square root of N. */
static void find_small_primes(uint64_t n)
{
    uint32_t root = 1, i, j;
    char *composite;
    while ((uint64_t)(root + 1) * (root + 1) <= n) root++;
    composite = calloc(root + 1, 1);
    small_primes = malloc((root + 1) * sizeof *small_primes);
    if (!composite || !small_primes) fail("no memory");
    for (i = 3; i <= root; i += 2) {
        if (composite[i]) continue;
        small_primes[small_count++] = i;
        for (j = i; (uint64_t)i * j <= root; j += 2) composite[i * j] = 1;
    }
    free(composite);
}

/* Primes among the odd numbers of a segment, below n. */
static uint64_t count_segment(uint64_t segment, uint64_t n)
{
    static char composite[SEGMENT];
    uint64_t first = segment * SEGMENT * 2 + 1, end = first + 2 * SEGMENT, found = 0;
    size_t i;
    memset(composite, 0, sizeof composite);
    for (i = 0; i < small_count; i++) {
        uint64_t p = small_primes[i], at = p * p;
        if (at >= end) break;
        if (at < first) {
            at = (first + p - 1) / p * p;
            if (at % 2 == 0) at += p;
        }
        for (at = (at - first) / 2; at < SEGMENT; at += p) composite[at] = 1;
    }
    if (segment == 0) composite[0] = 1; /* 1 is no prime */
    for (i = 0; i < SEGMENT && first + 2 * i < n; i++) found += !composite[i];
    return found;
}

static void compute(uint64_t segment, uint64_t n)
{
    uint64_t found = count_segment(segment, n);
    must(netshm_array_set_int64(results, segment, (int64_t)found), "storing a result");
}

/* What a process does: takes segments until none is left. */
static void work(uint64_t segments, uint64_t n)
{
    for (;;) {
        int64_t taken = 0;
        /* The counter begins with the default, so that the first one gets 0. */
        must(netshm_array_incr(results, segments, 1, &taken), "taking a segment");
        if ((uint64_t)taken >= segments) return;
        compute((uint64_t)taken, n);
    }
}

int main(int argc, char **argv)
{
    static const uint64_t known[] = { 0, 4, 25, 168, 1229, 9592, 78498, 664579, 5761455, 50847534, 455052511 };
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000000, power = 10, total = 1; /* 2 is a prime */
    int processes = argc > 2 ? atoi(argv[2]) : 4, i, exponent = 1, repaired = 0;
    uint64_t segments = (n + 2 * SEGMENT - 1) / (2 * SEGMENT), segment;
    int64_t value;
    const char *file_name, *mem_name;
    netshm_object *object;
    pid_t pid[MOST], parent = getpid();
    int kind;
    while (power < n && exponent < 10) {
        power *= 10;
        exponent++;
    }
    if (power != n || processes < 1 || processes > MOST) fail("N must be a power of ten up to 10^10");
    find_small_primes(n);

    must(netshm_create_unique(NETSHM_POSIX, "/tmp/netshm-primes-XXXXXXXX", "/netshm-primes-XXXXXXXX", 0600, &object),
         "creating the memory");
    must(netshm_array_manage_int64(object, NO_RESULT, segments + 1, NULL, &results), "managing the array");
    must(netshm_name(object, &kind, &file_name, &mem_name), "asking for the name");
    must(netshm_unlink(kind, file_name, mem_name), "removing the name");

    for (i = 0; i < processes; i++) {
        pid[i] = fork();
        if (pid[i] < 0) fail("fork");
        if (pid[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) _exit(1);
            work(segments, n);
            _exit(0);
        }
    }
    /* A long computation loses a process now and then. */
    for (;;) {
        must(netshm_array_get_int64(results, segments, &value), "reading the counter");
        if (value >= (int64_t)(segments / 4)) break;
        usleep(1000);
    }
    kill(pid[0], SIGKILL);
    for (i = 0; i < processes; i++) {
        int status;
        if (waitpid(pid[i], &status, 0) != pid[i]) fail("waitpid");
        if (status != 0 && i != 0) fail("a process has failed");
    }

    for (segment = 0; segment < segments; segment++) {
        must(netshm_array_get_int64(results, segment, &value), "reading a result");
        if (value == NO_RESULT) {
            compute(segment, n);
            repaired++;
            must(netshm_array_get_int64(results, segment, &value), "reading a result");
        }
        total += (uint64_t)value;
    }
    printf("%" PRIu64 " primes below %" PRIu64 ", by %d processes in %" PRIu64 " segments; %d of a killed process done "
           "again\n", total, n, processes, segments, repaired);
    if (total != known[exponent]) fail("that is wrong");
    must(netshm_check(object, 0, NULL, NULL), "checking");
    must(netshm_array_close(results), "closing");
    must(netshm_close(object), "closing");
    free(small_primes);
    return 0;
}
