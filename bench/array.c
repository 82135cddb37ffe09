/* What arrays cost: one element beside a pthread mutex around one load or store, slices beside memcpy. One run,
 * interleaved rounds, each the least of some batches, ratios within a round; printed with the goals. Rows without a goal
 * say what is possible: a store between two compare-and-swaps with a redo log, and the bare copying to blocks that take
 * turns.
 *
 * usage: array [elements [rounds]]
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { CALLS = 100000, BATCHES = 20, IN_CACHE = 1024, MAX_ROUNDS = 32 };

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(int code, const char *what) {
    if (code == 0) return;
    fprintf(stderr, "bench: %s: %s\n", what, netshm_strerror(code));
    exit(1);
}

/* So that the compiler takes nothing out of a loop. */
static void keep(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* What processes would share instead: a mutex made for that, which takes no short cuts for single threads. */
static struct shared { pthread_mutex_t mutex; int64_t plain[IN_CACHE]; } *shared;
static netshm_array *array;

static double mutex_load(void) {
    int64_t sum = 0;
    double start = now_ns();
    for (size_t i = 0; i < CALLS; i++) {
        pthread_mutex_lock(&shared->mutex);
        sum += shared->plain[i % IN_CACHE];
        pthread_mutex_unlock(&shared->mutex);
    }
    keep(&sum);
    return (now_ns() - start) / CALLS;
}

static double mutex_store(void) {
    double start = now_ns();
    for (size_t i = 0; i < CALLS; i++) {
        pthread_mutex_lock(&shared->mutex);
        shared->plain[i % IN_CACHE] = (int64_t)i;
        pthread_mutex_unlock(&shared->mutex);
    }
    keep(shared->plain);
    return (now_ns() - start) / CALLS;
}

static double array_get(void) {
    int64_t sum = 0, value = 0;
    double start = now_ns();
    for (size_t i = 0; i < CALLS; i++) {
        if (netshm_array_get_int64(array, i % IN_CACHE, &value) != NETSHM_OK) exit(1);
        sum += value;
    }
    keep(&sum);
    return (now_ns() - start) / CALLS;
}

static double array_set(void) {
    double start = now_ns();
    for (size_t i = 0; i < CALLS; i++)
        if (netshm_array_set_int64(array, i % IN_CACHE, (int64_t)i) != NETSHM_OK) exit(1);
    return (now_ns() - start) / CALLS;
}

static double array_incr(void) {
    double start = now_ns();
    for (size_t i = 0; i < CALLS; i++)
        if (netshm_array_incr(array, i % IN_CACHE, 1, NULL) != NETSHM_OK) exit(1);
    return (now_ns() - start) / CALLS;
}

/* What a change of one element costs at least if a death must not matter: a log, a lock, and marks between them. */
static struct { _Alignas(64) uint64_t words[64]; } *slot;

static void mark(int word, uint64_t value) { __atomic_store_n(&slot->words[word], value, __ATOMIC_RELEASE); }

static void swap(uint64_t from, uint64_t to) {
    if (!__atomic_compare_exchange_n(&slot->words[48], &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) exit(1);
}

static double logged_store(void) {
    double start = now_ns();
    for (size_t i = 0; i < CALLS; i++) {
        uint64_t version = __atomic_load_n(&slot->words[48], __ATOMIC_ACQUIRE);
        mark(16, i % IN_CACHE);
        mark(17, i);
        mark(8, 48);
        mark(1, 1);
        swap(version, version + 1);
        mark(0, 1);
        __atomic_store_n(&shared->plain[i % IN_CACHE], (int64_t)i, __ATOMIC_RELEASE);
        mark(0, 2);
        swap(version + 1, version + 2);
        mark(1, 0);
        mark(0, 0);
    }
    return (now_ns() - start) / CALLS;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return sorted[n / 2];
}

static int missed;

static void say(const char *what, double ours, double theirs, double ratio, double goal) {
    int met = ratio <= goal;
    missed += !met;
    printf("%-28s %10.1f ns %10.1f ns   ratio %5.2f   goal %4.1f   %s\n", what, ours, theirs, ratio, goal,
           met ? "met" : "MISSED");
}

/* A row that has no goal, but explains others. */
static void explain(const char *what, double least, double theirs, double ratio) {
    printf("  %-26s %10.1f ns %10.1f ns   ratio %5.2f\n", what, least, theirs, ratio);
}

typedef double measure(void);

enum { NO_GOAL = 0 };

static void keep_less(double *best, double now) {
    if (now < *best) *best = now;
}

/* Batches are short, so that some run without being disturbed by what else the machine does, and alternate, so that
 * both meet the same machine. */
static void compare(const char *what, measure *ours, measure *theirs, int rounds, double goal) {
    double a[MAX_ROUNDS], b[MAX_ROUNDS], r[MAX_ROUNDS];
    for (int n = 0; n < rounds; n++) {
        b[n] = theirs();
        a[n] = ours();
        for (int batch = 1; batch < BATCHES; batch++) {
            keep_less(&b[n], theirs());
            keep_less(&a[n], ours());
        }
        r[n] = a[n] / b[n];
    }
    if (goal == NO_GOAL) explain(what, median(a, rounds), median(b, rounds), median(r, rounds));
    else say(what, median(a, rounds), median(b, rounds), median(r, rounds), goal);
}

/* A slice of so many elements, again and again, until some megabytes are copied. */
static int64_t *from, *to;
static size_t slice;

static size_t times(void) { return ((size_t)1 << 20) / slice + 1; }

static double copy(void) {
    size_t n = times();
    double start = now_ns();
    for (size_t i = 0; i < n; i++) {
        memcpy(to, from, slice * 8);
        keep(to);
    }
    return (now_ns() - start) / (double)n;
}

/* The same to blocks of 16 KiB in shared memory, of which there are two for each piece: what the slice leaves of the last
 * one is copied from the other one. */
enum { BLOCK = 16384, PIECE = 16104, HEAD = 280 };
static char *blocks;

static double copy_to_blocks(void) {
    size_t n = times(), bytes = slice * 8, half = (bytes / PIECE + 1) * BLOCK;
    double start = now_ns();
    for (size_t i = 0; i < n; i++) {
        char *block = blocks + i % 2 * half + HEAD, *other = blocks + (i + 1) % 2 * half + HEAD;
        for (size_t done = 0; done < bytes; done += PIECE, block += BLOCK, other += BLOCK) {
            size_t now = bytes - done < PIECE ? bytes - done : PIECE;
            memcpy(block, (char *)from + done, now);
            memcpy(block + now, other + now, PIECE - now);
        }
        keep(blocks);
    }
    return (now_ns() - start) / (double)n;
}

static double slice_read(void) {
    size_t n = times();
    double start = now_ns();
    for (size_t i = 0; i < n; i++) must(netshm_array_read(array, 0, slice, to, 8), "read");
    return (now_ns() - start) / (double)n;
}

static double slice_write(void) {
    size_t n = times();
    double start = now_ns();
    for (size_t i = 0; i < n; i++) must(netshm_array_write(array, 0, slice, from, 8), "write");
    return (now_ns() - start) / (double)n;
}

int main(int argc, char **argv) {
    size_t elements = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000000;
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    netshm_object *object = NULL;
    if (elements < 200000) elements = 200000;
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = 5;
    must(netshm_create_unique(NETSHM_POSIX, "/tmp/netshm-bench-XXXXXX", "/netshm-bench-XXXXXX", 0600, &object), "create");
    must(netshm_array_manage_int64(object, 0, elements, NULL, &array), "manage");
    from = malloc(elements * 8);
    to = malloc(elements * 8);
    if (!from || !to) return 1;
    for (size_t i = 0; i < elements; i++) from[i] = (int64_t)i;
    memset(to, 1, elements * 8);
    must(netshm_array_write(array, 0, elements, from, 8), "write");
    must(netshm_array_read(array, 0, elements, to, 8), "read");
    if (memcmp(from, to, elements * 8) != 0) return 1;

    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pthread_mutex_init(&shared->mutex, &attributes) != 0) return 1;

    slot = mmap(NULL, sizeof *slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    blocks = mmap(NULL, 2 * (elements * 8 / PIECE + 1) * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (slot == MAP_FAILED || blocks == MAP_FAILED) return 1;

    printf("array: medians of %d rounds; elements of 8 bytes; ours, then the other\n", rounds);
    compare("get / mutex and load", array_get, mutex_load, rounds, 2.5);
    compare("set / mutex and store", array_set, mutex_store, rounds, 2.5);
    compare("add / mutex and store", array_incr, mutex_store, rounds, 2.5);
    compare("log, two CAS / mutex", logged_store, mutex_store, rounds, NO_GOAL);
    /* 40 KB, 0.8, 1.2, 2.4, 4.8, 8 MB, and all. */
    size_t lengths[] = {5000, 100000, 150000, 300000, 600000, 1000000, elements};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char text[64];
        slice = lengths[i];
        if (slice > elements) continue;
        snprintf(text, sizeof text, "read %zu / memcpy", slice);
        compare(text, slice_read, copy, rounds, 2.0);
        snprintf(text, sizeof text, "write %zu / memcpy", slice);
        compare(text, slice_write, copy, rounds, 2.0);
        compare("bare copy to blocks / memcpy", copy_to_blocks, copy, rounds, NO_GOAL);
    }
    memset(to, 1, elements * 8);
    must(netshm_array_write(array, 0, elements, from, 8), "write");
    must(netshm_array_read(array, 0, elements, to, 8), "read");
    if (memcmp(from, to, elements * 8) != 0) return 1;

    netshm_array_close(array);
    const char *file = NULL, *mem = NULL;
    int kind = 0;
    must(netshm_name(object, &kind, &file, &mem), "name");
    netshm_unlink(kind, file, mem);
    netshm_close(object);
    free(from);
    free(to);
    printf("array: %d goals missed\n", missed);
    return 0;
}
