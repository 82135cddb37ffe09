/* What arrays cost: one element beside a pthread mutex around one load or store, slices beside memcpy. One run,
 * interleaved rounds, ratios within a round; printed with the goals.
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

enum { CALLS = 2000000, IN_CACHE = 1024, MAX_ROUNDS = 32 };

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

typedef double measure(void);

static void compare(const char *what, measure *ours, measure *theirs, int rounds, double goal) {
    double a[MAX_ROUNDS], b[MAX_ROUNDS], r[MAX_ROUNDS];
    for (int n = 0; n < rounds; n++) {
        b[n] = theirs();
        a[n] = ours();
        r[n] = a[n] / b[n];
    }
    say(what, median(a, rounds), median(b, rounds), median(r, rounds), goal);
}

/* A slice of so many elements, again and again, until about 64 MiB are copied. */
static int64_t *from, *to;
static size_t slice;

static size_t times(void) { return ((size_t)8 << 20) / slice + 1; }

static double copy(void) {
    size_t n = times();
    double start = now_ns();
    for (size_t i = 0; i < n; i++) {
        memcpy(to, from, slice * 8);
        keep(to);
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

    printf("array: medians of %d rounds; elements of 8 bytes; ours, then the other\n", rounds);
    compare("get / mutex and load", array_get, mutex_load, rounds, 2.5);
    compare("set / mutex and store", array_set, mutex_store, rounds, 2.5);
    compare("add / mutex and store", array_incr, mutex_store, rounds, 2.5);
    size_t lengths[] = {5000, 100000, elements};
    for (int i = 0; i < 3; i++) {
        char text[64];
        slice = lengths[i];
        snprintf(text, sizeof text, "read %zu / memcpy", slice);
        compare(text, slice_read, copy, rounds, 2.0);
        snprintf(text, sizeof text, "write %zu / memcpy", slice);
        compare(text, slice_write, copy, rounds, 2.0);
    }

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
