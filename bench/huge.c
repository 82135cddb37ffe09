/* What huge pages are worth: finds at random in a table with and without NETSHM_HUGE_PAGES, and the same two dependent
 * misses in private memory with and without transparent huge pages, in turns.
 *
 * usage: huge [keys [rounds]]
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { KEY = 16, VALUE = 64, MAX_ROUNDS = 32 };
struct record { uint64_t head[4]; unsigned char value[VALUE]; };

static uint64_t keys = 1000000, rounds = 5, finds = 1000000;

static void must(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "huge: %s: %s\n", what, netshm_strerror(code));
        exit(1);
    }
}
/* The processor time of this thread: others may be busy on the machine. */
static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
static void make_key(unsigned char *key, uint64_t n) {
    uint64_t x = mixed(n + 1);
    memcpy(key, &x, 8);
    memcpy(key + 8, &n, 8);
}

/* What of this process's memory is in huge pages of files, in KiB. */
static long huge_kib(void) {
    char line[256];
    long sum = 0, n;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "ShmemPmdMapped: %ld", &n) == 1 || sscanf(line, "FilePmdMapped: %ld", &n) == 1) sum += n;
    if (f) fclose(f);
    return sum;
}

static netshm_hashtbl *make_table(int huge) {
    char path[64], name[64];
    netshm_object *object;
    netshm_hashtbl *table;
    netshm_options options = NETSHM_OPTIONS_INIT;
    unsigned char key[KEY], value[VALUE] = {0};
    snprintf(path, sizeof path, "/tmp/netshm-huge-%d-%d", (int)getpid(), huge);
    snprintf(name, sizeof name, "/netshm-huge-%d-%d", (int)getpid(), huge);
    must(netshm_open(NETSHM_POSIX, path, name, NETSHM_CREAT | NETSHM_RDWR | NETSHM_EXCL, 0600, &object), "open");
    must(netshm_unlink(NETSHM_POSIX, path, name), "unlink");
    if (huge) options.flags = NETSHM_HUGE_PAGES;
    must(netshm_hashtbl_manage(object, NULL, NULL, &options, &table), "manage");
    double start = now_ns();
    for (uint64_t i = 0; i < keys; i++) {
        make_key(key, i);
        memcpy(value, key, KEY);
        must(netshm_hashtbl_add(table, key, KEY, value, VALUE), "add");
    }
    printf("  %-22s loaded at %.0f ns per key; %ld MiB in huge pages\n", huge ? "with NETSHM_HUGE_PAGES" : "without",
           (now_ns() - start) / (double)keys, huge_kib() >> 10);
    netshm_close(object);
    return table;
}
static double find_run(netshm_hashtbl *table) {
    unsigned char key[KEY], value[VALUE];
    uint64_t x = 1;
    size_t len;
    double start = now_ns();
    for (uint64_t i = 0; i < finds; i++) {
        make_key(key, mixed(x++) % keys);
        must(netshm_hashtbl_find(table, key, KEY, value, VALUE, &len), "find");
        if (len != VALUE || memcmp(value, key, KEY) != 0) must(NETSHM_E_CORRUPT, "what was found");
    }
    return (now_ns() - start) / (double)finds;
}

/* A line of an index, and the record that it names: two misses, one after the other. */
struct limit { uint64_t *lines; struct record *records; };
static void *private_memory(size_t bytes, int huge) {
    size_t all = bytes + (4 << 20);
    unsigned char *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) must(NETSHM_E_NO_MEMORY, "mmap");
    madvise(p, all, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(p, 0, all);
    return p;
}
static struct limit make_limit(int huge) {
    struct limit l = {private_memory(keys * 17, huge), private_memory(keys * sizeof(struct record), huge)};
    for (uint64_t i = 0; i < keys * 17 / 64; i++) l.lines[i * 8] = mixed(i) % keys;
    return l;
}
static double limit_run(const struct limit *l) {
    unsigned char value[VALUE];
    uint64_t x = 1, sum = 0;
    double start = now_ns();
    for (uint64_t i = 0; i < finds; i++) {
        uint64_t line = (mixed(x++) + (sum & 1)) % (keys * 17 / 64);
        memcpy(value, l->records[l->lines[line * 8]].value, VALUE);
        sum += value[5];
    }
    if (sum == 1) puts("");
    return (now_ns() - start) / (double)finds;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void print(const char *what, double *small, double *huge) {
    double ratio[MAX_ROUNDS];
    for (uint64_t i = 0; i < rounds; i++) ratio[i] = small[i] / huge[i];
    qsort(ratio, rounds, sizeof *ratio, compare);
    qsort(small, rounds, sizeof *small, compare);
    qsort(huge, rounds, sizeof *huge, compare);
    printf("  %-22s %6.0f ns, with huge pages %6.0f ns: %.2f times as fast (%.2f to %.2f)\n", what, small[rounds / 2],
           huge[rounds / 2], ratio[rounds / 2], ratio[0], ratio[rounds - 1]);
}

int main(int argc, char **argv) {
    double a[MAX_ROUNDS], b[MAX_ROUNDS], c[MAX_ROUNDS], d[MAX_ROUNDS];
    if (argc > 1) keys = strtoull(argv[1], NULL, 10);
    if (argc > 2) rounds = strtoull(argv[2], NULL, 10);
    if (keys < 1000 || rounds < 1 || rounds > MAX_ROUNDS) return 2;
    printf("%" PRIu64 " keys; %" PRIu64 " rounds\n", keys, rounds);
    netshm_hashtbl *small = make_table(0), *huge = make_table(1);
    struct limit small_limit = make_limit(0), huge_limit = make_limit(1);
    for (uint64_t i = 0; i < rounds; i++) {
        a[i] = find_run(small);
        b[i] = find_run(huge);
        c[i] = limit_run(&small_limit);
        d[i] = limit_run(&huge_limit);
    }
    printf("  %-22s %ld MiB of the tables in huge pages\n", "at the end", huge_kib() >> 10);
    print("find", a, b);
    print("two misses, private", c, d);
    netshm_hashtbl_close(small);
    netshm_hashtbl_close(huge);
    return 0;
}
