/* What netshm costs beside memory that is not shared: one run, interleaved rounds, ratios within a round.
 *
 * usage: bench [keys [rounds]]
 *
 * The systems: the limit (hash, two dependent random cache misses and the copy of the value, in a shared mapping),
 * a hashbrown map in private memory without locks, the same with two compare-and-swaps around each change (both in
 * bench/map), and netshm through libnetshm.so with default locking. Keys of 16 bytes, values of 64 bytes. Every
 * operation is a function call into a shared library.
 *
 * The goals are those that netshm has for 1,000,000 keys. They are meant beside absl::flat_hash_map, which bench/peers
 * measures; this program needs no other package, and has the rows that explain a goal which is missed.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "benchmap.h"

enum { KEY = 16, VALUE = 64, COUNTERS = 1000, AT_ONCE = 16, LAG = 64, MAX_ROUNDS = 32 };

static size_t keys = 1000000, rounds = 5;
static unsigned char *in_order, *shuffled, *absent, *counter_keys;
static uint32_t *order;

static uint64_t random_state = 88172645463325252u;
static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void fail(const char *what, int code) {
    fprintf(stderr, "bench: %s: %s\n", what, netshm_strerror(code));
    exit(1);
}
static void must(int code, const char *what) {
    if (code != 0) fail(what, code);
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Bits of a counter, mixed (splitmix64), so that keys look random and are distinct. */
static void make_key(unsigned char *key, uint64_t n) {
    uint64_t x = n + 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    memcpy(key, &x, 8);
    memcpy(key + 8, &n, 8);
}

static void *allocate(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) fail("malloc", NETSHM_E_NO_MEMORY);
    return p;
}

static void prepare(void) {
    in_order = allocate(keys * KEY);
    shuffled = allocate(keys * KEY);
    absent = allocate(keys * KEY);
    counter_keys = allocate(COUNTERS * KEY);
    order = allocate(keys * sizeof *order);
    for (size_t i = 0; i < keys; i++) {
        make_key(in_order + KEY * i, i);
        make_key(absent + KEY * i, i + ((uint64_t)1 << 40));
        order[i] = (uint32_t)i;
    }
    for (size_t i = keys - 1; i > 0; i--) {
        size_t j = next_random() % (i + 1);
        uint32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (size_t i = 0; i < keys; i++) memcpy(shuffled + KEY * i, in_order + KEY * (size_t)order[i], KEY);
    for (size_t i = 0; i < COUNTERS; i++) make_key(counter_keys + KEY * i, i + ((uint64_t)1 << 50));
}

/* --- the limit: hash, one line of an index, one record; see bench/map --- */
struct line { uint64_t words[8]; };
struct record { unsigned char head[32], value[VALUE]; };
static struct line *lines;
static struct record *records;
static uint64_t line_mask;

static void *shared(const char *what, size_t bytes) {
    int fd = memfd_create(what, 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) fail("memfd_create", NETSHM_E_SYSTEM);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) fail("mmap", NETSHM_E_SYSTEM);
    close(fd);
    return p;
}

static void limit_prepare(void) {
    size_t n = 1;
    while (n < keys) n *= 2;
    line_mask = n - 1;
    lines = shared("lines", n * sizeof *lines);
    records = shared("records", keys * sizeof *records);
    for (size_t i = 0; i < n; i++) lines[i].words[1] = next_random() % keys;
    for (size_t i = 0; i < keys; i++) memset(records[i].value, (int)i, VALUE);
}
typedef void limit_find(const void *, uint64_t, const void *, size_t, const void *, size_t, void *, size_t);
static double limit_run(limit_find *find) {
    unsigned char value[VALUE];
    uint64_t sum = 0;
    double start = now_ns();
    for (size_t i = 0; i < keys; i++) {
        find(lines, line_mask, records, sizeof *records, shuffled + KEY * i, KEY, value, VALUE);
        sum += value[5];
    }
    double took = now_ns() - start;
    if (sum == 1) puts("");
    return took / (double)keys;
}
/* The same, but each key is known only when the value before it is: what a program sees that cannot go on without. */
static volatile size_t nothing = 0;
static double limit_run_in_turn(void) {
    unsigned char value[VALUE] = {0};
    size_t none = nothing;
    double start = now_ns();
    for (size_t i = 0; i < keys; i++) {
        const unsigned char *key = shuffled + KEY * i + (value[5] & none);
        benchlimit_find(lines, line_mask, records, sizeof *records, key, KEY, value, VALUE);
    }
    return (now_ns() - start) / (double)keys;
}
/* Memory that nobody has used before, as much as the table took: pages come from the system one by one. */
static double first_use_run(double bytes) {
    size_t len = ((size_t)bytes + 4095) / 4096 * 4096;
    int fd = memfd_create("fresh", 0);
    if (fd < 0 || ftruncate(fd, (off_t)len) != 0) fail("memfd_create", NETSHM_E_SYSTEM);
    volatile unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) fail("mmap", NETSHM_E_SYSTEM);
    double start = now_ns();
    for (size_t i = 0; i < len; i += 4096) p[i] = 1;
    double took = now_ns() - start;
    munmap((void *)p, len);
    close(fd);
    return took / (double)keys;
}
/* By turns, see below: single lookups, and 16 at once. */
static void limit_hits(const unsigned char *query, size_t n) {
    unsigned char value[VALUE];
    for (size_t i = 0; i < n; i++) {
        benchlimit_find(lines, line_mask, records, sizeof *records, query + KEY * i, KEY, value, VALUE);
    }
}
static void limit_hits_many(const unsigned char *query, size_t n) {
    unsigned char values[AT_ONCE * VALUE];
    for (size_t i = 0; i < n; i += AT_ONCE) {
        benchlimit_find_16(lines, line_mask, records, sizeof *records, query + KEY * i, KEY, values, VALUE);
    }
}
static double limit_miss_run(void) {
    uint64_t sum = 0;
    double start = now_ns();
    for (size_t i = 0; i < keys; i++) sum += benchlimit_miss(lines, line_mask, absent + KEY * i, KEY);
    double took = now_ns() - start;
    if (sum == 1) puts("");
    return took / (double)keys;
}
/* Changes of all records at random, or of a thousand, which stay in the cache. */
static double limit_write_run(size_t different, size_t len) {
    unsigned char value[VALUE];
    memset(value, 3, VALUE);
    double start = now_ns();
    for (size_t i = 0; i < keys; i++) {
        const unsigned char *key = different == keys ? shuffled + KEY * i : in_order + KEY * (size_t)(order[i] % different);
        benchlimit_write(lines, line_mask, records, sizeof *records, key, KEY, value, len);
    }
    return (now_ns() - start) / (double)keys;
}

/* --- the systems under one interface --- */
struct system {
    const char *name;
    void (*open)(void), (*close)(void);
    void (*load)(const unsigned char *key, const unsigned char *value);
    int (*find)(const unsigned char *key, unsigned char *into);
    void (*replace)(const unsigned char *key, const unsigned char *value);
    int (*remove)(const unsigned char *key);
    void (*count)(const unsigned char *key);
    void (*count_in_group)(const unsigned char *key);
};

static benchmap *map;
static void map_open(void) { map = benchmap_new(0); }
static void map_close(void) { benchmap_free(map); }
static void map_load(const unsigned char *key, const unsigned char *value) {
    benchmap_add(map, key, KEY, value, VALUE);
}
static int map_find(const unsigned char *key, unsigned char *into) {
    size_t len;
    return benchmap_find(map, key, KEY, into, VALUE, &len);
}
static void map_replace(const unsigned char *key, const unsigned char *value) {
    benchmap_put(map, key, KEY, value, VALUE);
}
static int map_remove(const unsigned char *key) { return benchmap_remove(map, key, KEY); }
static void map_count(const unsigned char *key) {
    static const unsigned char zero[8];
    if (benchmap_increment(map, key, KEY, 1) == INT64_MIN) benchmap_add(map, key, KEY, zero, 8);
}

/* The same map with a lock in each value, before its bytes. */
static void locked_load(const unsigned char *key, const unsigned char *value) {
    unsigned char bytes[8 + VALUE] = {0};
    memcpy(bytes + 8, value, VALUE);
    benchmap_add(map, key, KEY, bytes, sizeof bytes);
}
static int locked_find(const unsigned char *key, unsigned char *into) {
    unsigned char bytes[8 + VALUE];
    size_t len;
    int code = benchmap_find(map, key, KEY, bytes, sizeof bytes, &len);
    if (code == 0) memcpy(into, bytes + 8, VALUE);
    return code;
}
static void locked_replace(const unsigned char *key, const unsigned char *value) {
    benchmap_put_locked(map, key, KEY, value, VALUE);
}
static void locked_count(const unsigned char *key) {
    static const unsigned char zero[16];
    if (benchmap_increment_locked(map, key, KEY, 1) == INT64_MIN) benchmap_add(map, key, KEY, zero, sizeof zero);
}

static netshm_object *object;
static netshm_hashtbl *table;
static char path[64], memory[64];
static void shm_open_table(void) {
    snprintf(path, sizeof path, "/tmp/netshm-bench-%d", (int)getpid());
    snprintf(memory, sizeof memory, "/netshm-bench-%d", (int)getpid());
    must(netshm_open(NETSHM_POSIX, path, memory, NETSHM_CREAT | NETSHM_RDWR | NETSHM_EXCL, 0600, &object), "open");
    must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "manage");
}
static void shm_close_table(void) {
    netshm_hashtbl_close(table);
    netshm_close(object);
    must(netshm_unlink(NETSHM_POSIX, path, memory), "unlink");
}
static void shm_load(const unsigned char *key, const unsigned char *value) {
    must(netshm_hashtbl_add(table, key, KEY, value, VALUE), "add");
}
static int shm_find(const unsigned char *key, unsigned char *into) {
    size_t len;
    return netshm_hashtbl_find(table, key, KEY, into, VALUE, &len);
}
static void shm_replace(const unsigned char *key, const unsigned char *value) {
    must(netshm_hashtbl_replace(table, key, KEY, value, VALUE), "replace");
}
static int shm_remove(const unsigned char *key) {
    int was_there;
    must(netshm_hashtbl_remove(table, key, KEY, &was_there), "remove");
    return was_there;
}
static void shm_count(const unsigned char *key) {
    int64_t now;
    must(netshm_hashtbl_incr(table, key, KEY, 1, 0, &now), "incr");
}
static void shm_count_in_group(const unsigned char *key) {
    netshm_txn *group;
    int64_t n = 0;
    size_t len;
    must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
    must(netshm_hashtbl_find(table, key, KEY, &n, sizeof n, &len), "find");
    n++;
    must(netshm_hashtbl_replace(table, key, KEY, &n, sizeof n), "replace");
    must(netshm_group_commit(group), "commit");
}

static void shm_group_of_nothing(void) {
    netshm_txn *group;
    must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
    must(netshm_group_commit(group), "commit");
}

/* Several keys in one call. */
static void many_slices(netshm_slice *slices, const unsigned char *query) {
    for (size_t j = 0; j < AT_ONCE; j++) slices[j] = (netshm_slice){query + KEY * j, KEY};
}
static void shm_find_many(const unsigned char *query, size_t n, int64_t expected) {
    unsigned char values[AT_ONCE * VALUE];
    netshm_slice slices[AT_ONCE];
    int64_t lens[AT_ONCE];
    size_t wrong = 0;
    for (size_t i = 0; i < n; i += AT_ONCE) {
        many_slices(slices, query + KEY * i);
        must(netshm_hashtbl_find_many_into(table, slices, AT_ONCE, values, VALUE, lens), "find_many_into");
        for (size_t j = 0; j < AT_ONCE; j++) wrong += lens[j] != expected;
    }
    if (wrong) fail("find_many_into gave wrong answers", NETSHM_E_CORRUPT);
}
typedef int store_many(netshm_hashtbl *, const netshm_slice *, const netshm_slice *, size_t, size_t *);
static void shm_store_many(store_many *store, const unsigned char *query, size_t n) {
    unsigned char value[VALUE];
    netshm_slice slices[AT_ONCE], values[AT_ONCE];
    memset(value, 11, VALUE);
    for (size_t j = 0; j < AT_ONCE; j++) values[j] = (netshm_slice){value, VALUE};
    for (size_t i = 0; i < n; i += AT_ONCE) {
        many_slices(slices, query + KEY * i);
        must(store(table, slices, values, AT_ONCE, NULL), "store many");
    }
}
static void hits_many(const unsigned char *query, size_t n) { shm_find_many(query, n, VALUE); }
static void misses_many(const unsigned char *query, size_t n) { shm_find_many(query, n, NETSHM_E_NOT_FOUND); }
static void replaces_many(const unsigned char *query, size_t n) {
    shm_store_many(netshm_hashtbl_replace_many, query, n);
}
static void adds_many(const unsigned char *query, size_t n) { shm_store_many(netshm_hashtbl_add_many, query, n); }
/* The same by single calls. */
static void hits(const unsigned char *query, size_t n) {
    unsigned char value[VALUE];
    for (size_t i = 0; i < n; i++) must(shm_find(query + KEY * i, value), "find");
}
static void misses(const unsigned char *query, size_t n) {
    unsigned char value[VALUE];
    for (size_t i = 0; i < n; i++) {
        if (shm_find(query + KEY * i, value) != NETSHM_E_NOT_FOUND) fail("a key that was never there", NETSHM_E_CORRUPT);
    }
}
static void replaces(const unsigned char *query, size_t n) {
    unsigned char value[VALUE];
    memset(value, 11, VALUE);
    for (size_t i = 0; i < n; i++) shm_replace(query + KEY * i, value);
}
static void adds(const unsigned char *query, size_t n) {
    unsigned char value[VALUE];
    memset(value, 11, VALUE);
    for (size_t i = 0; i < n; i++) shm_load(query + KEY * i, value);
}

enum { MAP, NETSHM, LOCKED_MAP, SYSTEMS };
static struct system systems[SYSTEMS] = {
    {"hashbrown (private, no locks)", map_open, map_close, map_load, map_find, map_replace, map_remove, map_count, NULL},
    {"netshm", shm_open_table, shm_close_table, shm_load, shm_find, shm_replace, shm_remove, shm_count, shm_count_in_group},
    {"hashbrown, a lock in each value", map_open, map_close, locked_load, locked_find, locked_replace, map_remove,
     locked_count, NULL},
};

enum { LIMIT, LOAD, HIT, MISS, REPLACE, REMOVE_ADD, COUNT, GROUP_COUNT, ROWS };
static const char *row_names[ROWS] = {"limit", "load", "find hit", "find miss", "replace", "remove and add",
                                      "counter (incr)", "counter (group)"};
static double figures[SYSTEMS][ROWS][MAX_ROUNDS];
static double turns[1 + SYSTEMS][MAX_ROUNDS], first_use[MAX_ROUNDS], speedup_limit[MAX_ROUNDS];
static double limit_busy[MAX_ROUNDS], limit_miss[MAX_ROUNDS], limit_replace[MAX_ROUNDS], limit_count[MAX_ROUNDS];
static double warm[SYSTEMS][MAX_ROUNDS], empty_group[MAX_ROUNDS];
static double speedup_reads[MAX_ROUNDS], speedup_writes[MAX_ROUNDS], bytes_per_entry;

static double finds(const struct system *s, const unsigned char *query, size_t n, int expected) {
    unsigned char value[VALUE];
    size_t wrong = 0;
    double start = now_ns();
    for (size_t i = 0; i < n; i++) wrong += s->find(query + KEY * i, value) != expected;
    double took = now_ns() - start;
    if (wrong) {
        fprintf(stderr, "bench: %s: %zu wrong answers\n", s->name, wrong);
        exit(1);
    }
    return took / (double)n;
}

/* Finds of keys that are known only when the value before is. */
static double finds_in_turn(const struct system *s) {
    unsigned char value[VALUE] = {0};
    size_t none = nothing;
    double start = now_ns();
    for (size_t i = 0; i < keys; i++) {
        if (s->find(shuffled + KEY * i + (value[5] & none), value) != 0) fail(s->name, NETSHM_E_NOT_FOUND);
    }
    return (now_ns() - start) / (double)keys;
}

/* Not timed: the answers are right. */
static void expect_values(const struct system *s, int byte) {
    unsigned char value[VALUE], expected[VALUE];
    memset(expected, byte, VALUE);
    for (size_t i = 0; i < keys; i++) {
        if (s->find(shuffled + KEY * i, value) == 0 && memcmp(value, expected, VALUE) == 0) continue;
        fprintf(stderr, "bench: %s: not the value that was stored last\n", s->name);
        exit(1);
    }
}
static int64_t counted(const struct system *s) {
    unsigned char value[VALUE];
    int64_t sum = 0, n;
    for (size_t i = 0; i < COUNTERS; i++) {
        if (s->find(counter_keys + KEY * i, value) != 0) fail(s->name, NETSHM_E_NOT_FOUND);
        memcpy(&n, value, sizeof n);
        sum += n;
    }
    return sum;
}
static void expect_counted(const struct system *s, int64_t expected) {
    if (counted(s) == expected) return;
    fprintf(stderr, "bench: %s: the counters are wrong\n", s->name);
    exit(1);
}

static void run_system(int which, size_t round) {
    const struct system *s = &systems[which];
    unsigned char value[VALUE];
    memset(value, 7, VALUE);
    s->open();
    double start = now_ns();
    for (size_t i = 0; i < keys; i++) s->load(in_order + KEY * i, value);
    figures[which][LOAD][round] = (now_ns() - start) / (double)keys;
    if (which == NETSHM) {
        /* Memory really taken, not the file's nominal length. */
        int fd;
        struct stat status;
        must(netshm_fd(object, &fd), "fd");
        if (fstat(fd, &status) != 0) fail("fstat", NETSHM_E_SYSTEM);
        bytes_per_entry = (double)status.st_blocks * 512 / (double)keys;
    }
    finds(s, shuffled, keys, 0);
    figures[which][HIT][round] = finds(s, shuffled, keys, 0);
    turns[1 + which][round] = finds_in_turn(s);
    figures[which][MISS][round] = finds(s, absent, keys, NETSHM_E_NOT_FOUND);
    memset(value, 9, VALUE);
    start = now_ns();
    for (size_t i = 0; i < keys; i++) s->replace(shuffled + KEY * i, value);
    figures[which][REPLACE][round] = (now_ns() - start) / (double)keys;
    expect_values(s, 9);
    for (size_t i = 0; i < COUNTERS; i++) s->count(counter_keys + KEY * i);
    int64_t before = counted(s);
    start = now_ns();
    for (size_t i = 0; i < keys; i++) s->find(counter_keys + KEY * (order[i] % COUNTERS), value);
    warm[which][round] = (now_ns() - start) / (double)keys;
    start = now_ns();
    for (size_t i = 0; i < keys; i++) s->count(counter_keys + KEY * (order[i] % COUNTERS));
    figures[which][COUNT][round] = (now_ns() - start) / (double)keys;
    expect_counted(s, before + (int64_t)keys);
    if (s->count_in_group) {
        start = now_ns();
        for (size_t i = 0; i < keys; i++) s->count_in_group(counter_keys + KEY * (order[i] % COUNTERS));
        figures[which][GROUP_COUNT][round] = (now_ns() - start) / (double)keys;
        expect_counted(s, before + 2 * (int64_t)keys);
        start = now_ns();
        for (size_t i = 0; i < keys; i++) shm_group_of_nothing();
        empty_group[round] = (now_ns() - start) / (double)keys;
    }
}

/* A key is removed, and the one that was removed 64 removals before is added: per pair. Last of a round, since it moves
 * the records. */
static void run_removes(int which, size_t round) {
    const struct system *s = &systems[which];
    unsigned char value[VALUE];
    size_t wrong = 0;
    memset(value, 13, VALUE);
    double start = now_ns();
    for (size_t i = 0; i < keys + LAG; i++) {
        if (i < keys) wrong += s->remove(shuffled + KEY * i) != 1;
        if (i >= LAG) s->load(shuffled + KEY * (i - LAG), value);
    }
    figures[which][REMOVE_ADD][round] = (now_ns() - start) / (double)keys;
    if (wrong) {
        fprintf(stderr, "bench: %s: %zu keys were not there to be removed\n", s->name, wrong);
        exit(1);
    }
    expect_values(s, 13);
}

/* In a process of its own, so that the heap of the others stays as it is. */
static void run_locked_map(size_t round) {
    double(*rows)[ROWS] = shared("rows", sizeof *rows);
    pid_t pid = fork();
    if (pid < 0) fail("fork", NETSHM_E_SYSTEM);
    if (pid == 0) {
        run_system(LOCKED_MAP, round);
        for (int row = 0; row < ROWS; row++) (*rows)[row] = figures[LOCKED_MAP][row][round];
        _exit(0);
    }
    int status;
    wait(&status);
    if (status != 0) fail("the process with the map under locks", NETSHM_E_SYSTEM);
    for (int row = 0; row < ROWS; row++) figures[LOCKED_MAP][row][round] = (*rows)[row];
    munmap(rows, sizeof *rows);
}

/* Work of one forked process: all keys from `from` on, in a circle; writes to every second one if asked. */
enum kind { READS, WRITES, LIMIT_READS };
static void work(size_t from, size_t process, enum kind kind) {
    unsigned char value[VALUE];
    memset(value, (int)process, VALUE);
    for (size_t n = 0; n < keys; n++) {
        size_t i = from + n < keys ? from + n : from + n - keys;
        if (kind == LIMIT_READS) {
            benchlimit_find(lines, line_mask, records, sizeof *records, shuffled + KEY * i, KEY, value, VALUE);
        } else if (kind == WRITES && (n & 1)) {
            shm_replace(shuffled + KEY * i, value);
        } else if (shm_find(shuffled + KEY * i, value) != 0) {
            exit(1);
        }
    }
}

/* Operations per second of `n` forked processes that begin together. */
static double forked_rate(size_t n, enum kind kind) {
    double *times = shared("times", 4096);
    volatile int *ready = (volatile int *)(times + 64), *go = ready + 1;
    for (size_t p = 0; p < n; p++) {
        pid_t pid = fork();
        if (pid < 0) fail("fork", NETSHM_E_SYSTEM);
        if (pid == 0) {
            unsigned char value[VALUE];
            must(netshm_hashtbl_find(table, shuffled, KEY, value, VALUE, &(size_t){0}), "find");
            __atomic_add_fetch(ready, 1, __ATOMIC_SEQ_CST);
            while (!__atomic_load_n(go, __ATOMIC_SEQ_CST)) {}
            work(p * (keys / n), p, kind);
            times[p] = now_ns();
            _exit(0);
        }
    }
    while (__atomic_load_n(ready, __ATOMIC_SEQ_CST) != (int)n) usleep(100);
    double start = now_ns(), end = 0;
    __atomic_store_n(go, 1, __ATOMIC_SEQ_CST);
    for (size_t p = 0; p < n; p++) {
        int status;
        wait(&status);
        if (status != 0) fail("a forked process", NETSHM_E_SYSTEM);
    }
    for (size_t p = 0; p < n; p++) end = times[p] > end ? times[p] : end;
    munmap(times, 4096);
    return (double)(n * keys) / ((end - start) / 1e9);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Single calls and such for 16 keys take turns of less than a millisecond, so that both meet the same machine: the
 * medians of their turns. */
enum { TURN = 2048 };
struct pair { double single[MAX_ROUNDS], many[MAX_ROUNDS]; };
static struct pair limit_pair, hit_pair, miss_pair, replace_pair, load_pair;
typedef void by_turns(const unsigned char *query, size_t n);
static void run_pair(struct pair *pair, size_t round, by_turns *single, by_turns *many, const unsigned char *query) {
    size_t n = keys < 2 * TURN ? keys / 2 / AT_ONCE * AT_ONCE : TURN, pairs = keys / (2 * n);
    double *took = allocate(2 * pairs * sizeof *took);
    for (size_t i = 0; i < 2 * pairs; i++) {
        double start = now_ns();
        (i % 2 ? many : single)(query + KEY * n * i, n);
        took[i % 2 * pairs + i / 2] = (now_ns() - start) / (double)n;
    }
    qsort(took, pairs, sizeof *took, compare);
    qsort(took + pairs, pairs, sizeof *took, compare);
    pair->single[round] = took[pairs / 2];
    pair->many[round] = took[pairs + pairs / 2];
    free(took);
}
static void run_many(size_t round) {
    run_pair(&hit_pair, round, hits, hits_many, shuffled);
    run_pair(&miss_pair, round, misses, misses_many, absent);
    run_pair(&replace_pair, round, replaces, replaces_many, shuffled);
}
static void load_by_many(size_t round) {
    shm_open_table();
    run_pair(&load_pair, round, adds, adds_many, in_order);
    shm_close_table();
}

struct spread { double median, least, most; };
static struct spread spread_of(const double *values) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, rounds * sizeof *values);
    qsort(sorted, rounds, sizeof *sorted, compare);
    return (struct spread){sorted[rounds / 2], sorted[0], sorted[rounds - 1]};
}
static void print_figure(const char *name, const double *values) {
    struct spread s = spread_of(values);
    printf("  %-34s %7.0f ns   (%.0f to %.0f)\n", name, s.median, s.least, s.most);
}
static void print_ratio(const char *name, const double *a, const double *b, double goal, int at_least) {
    double ratios[MAX_ROUNDS];
    for (size_t r = 0; r < rounds; r++) ratios[r] = a[r] / (b ? b[r] : 1);
    struct spread s = spread_of(ratios);
    if (goal == 0) {
        printf("  %-46s %5.2f  (%.2f to %.2f)\n", name, s.median, s.least, s.most);
        return;
    }
    int met = at_least ? s.median >= goal : s.median <= goal;
    printf("  %-46s %5.2f  (%.2f to %.2f)  goal %s %.2f  %s\n", name, s.median, s.least, s.most,
           at_least ? ">=" : "<=", goal, met ? "met" : "NOT MET");
}

int main(int argc, char **argv) {
    if (argc > 1) keys = strtoul(argv[1], NULL, 10);
    if (argc > 2) rounds = strtoul(argv[2], NULL, 10);
    if (keys < 1000 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench [keys >= 1000 [rounds <= %d]]\n", MAX_ROUNDS);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    prepare();
    limit_prepare();
    for (size_t r = 0; r < rounds; r++) {
        limit_run(benchlimit_find);
        figures[0][LIMIT][r] = limit_run(benchlimit_find);
        turns[0][r] = limit_run_in_turn();
        limit_busy[r] = limit_run(benchlimit_find_busy);
        run_pair(&limit_pair, r, limit_hits, limit_hits_many, shuffled);
        limit_miss[r] = limit_miss_run();
        limit_replace[r] = limit_write_run(keys, VALUE);
        limit_count[r] = limit_write_run(COUNTERS, 8);
        run_system(MAP, r);
        run_removes(MAP, r);
        map_close();
        run_system(NETSHM, r);
        run_many(r);
        double one = forked_rate(1, READS), two = forked_rate(2, READS);
        speedup_reads[r] = two / one;
        one = forked_rate(1, WRITES);
        two = forked_rate(2, WRITES);
        speedup_writes[r] = two / one;
        one = forked_rate(1, LIMIT_READS);
        two = forked_rate(2, LIMIT_READS);
        speedup_limit[r] = two / one;
        first_use[r] = first_use_run(bytes_per_entry * (double)keys);
        run_removes(NETSHM, r);
        shm_close_table();
        load_by_many(r);
        run_locked_map(r);
        fprintf(stderr, "bench: round %zu of %zu done\n", r + 1, rounds);
    }
    puts("The map is hashbrown (XXH3, boxed keys and values), private, no locks. The goals are meant for 1,000,000 keys and");
    puts("beside absl::flat_hash_map, which make bench-peers measures.");
    printf("%zu keys of %d bytes, values of %d bytes; %zu rounds; median (least to most)\n", keys, KEY, VALUE, rounds);
    print_figure("limit: two misses and the copy", figures[0][LIMIT]);
    print_figure("  the same and 150 instructions", limit_busy);
    print_figure("  the same, one after the other", turns[0]);
    print_figure("  16 at once", limit_pair.many);
    print_figure("  one miss: an absent key", limit_miss);
    print_figure("  a change under two CAS", limit_replace);
    print_figure("  a counter under two CAS", limit_count);
    for (int which = 0; which < SYSTEMS; which++) {
        printf("%s\n", systems[which].name);
        if (which == LOCKED_MAP) {
            print_figure(row_names[REPLACE], figures[which][REPLACE]);
            print_figure(row_names[COUNT], figures[which][COUNT]);
            continue;
        }
        for (int row = LOAD; row < ROWS; row++) {
            if (row == GROUP_COUNT && which == MAP) continue;
            print_figure(row_names[row], figures[which][row]);
        }
        print_figure("find of a counter", warm[which]);
        if (which == NETSHM) print_figure("group of nothing", empty_group);
        print_figure("find hit, one after the other", turns[1 + which]);
    }
    printf("netshm besides\n");
    print_figure("first use of as much shared memory", first_use);
    print_figure("find hit, 16 at once", hit_pair.many);
    print_figure("find miss, 16 at once", miss_pair.many);
    print_figure("replace, 16 at once", replace_pair.many);
    print_figure("load, 16 at once", load_pair.many);
    printf("ratios within a round\n");
    print_ratio("find hit / limit", figures[1][HIT], figures[0][LIMIT], 1.35, 0);
    print_ratio("find hit / map", figures[1][HIT], figures[0][HIT], 0.75, 0);
    print_ratio("find miss / map", figures[1][MISS], figures[0][MISS], 1.3, 0);
    print_ratio("load / map", figures[1][LOAD], figures[0][LOAD], 0.45, 0);
    print_ratio("replace / map", figures[1][REPLACE], figures[0][REPLACE], 0.8, 0);
    print_ratio("remove and add / map", figures[1][REMOVE_ADD], figures[0][REMOVE_ADD], 0.8, 0);
    print_ratio("counter by incr / map", figures[1][COUNT], figures[0][COUNT], 1.1, 0);
    print_ratio("counter by group / map", figures[1][GROUP_COUNT], figures[0][COUNT], 3.0, 0);
    print_ratio("find hit / find hit, 16 at once", hit_pair.single, hit_pair.many, 3.5, 1);
    print_ratio("replace / replace, 16 at once", replace_pair.single, replace_pair.many, 3.5, 1);
    print_ratio("two processes / one, reads", speedup_reads, NULL, 1.9, 1);
    print_ratio("two processes / one, 50% writes", speedup_writes, NULL, 1.8, 1);
    printf("  %-46s %5.0f bytes          goal <= 120  %s\n", "memory per entry of 16 + 64 bytes", bytes_per_entry,
           bytes_per_entry <= 120 ? "met" : "NOT MET");
    printf("what explains them\n");
    print_ratio("find hit / limit with 150 instructions", figures[1][HIT], limit_busy, 0, 0);
    print_ratio("find hit / limit, one after the other", turns[2], turns[0], 0, 0);
    print_ratio("find hit / map, one after the other", turns[2], turns[1], 0, 0);
    print_ratio("limit: two processes / one", speedup_limit, NULL, 0, 0);
    print_ratio("limit / limit, 16 at once", limit_pair.single, limit_pair.many, 0, 0);
    print_ratio("find hit, 16 at once / limit, 16 at once", hit_pair.many, limit_pair.many, 0, 0);
    print_ratio("find miss / find miss, 16 at once", miss_pair.single, miss_pair.many, 0, 0);
    print_ratio("load / load, 16 at once", load_pair.single, load_pair.many, 0, 0);
    print_ratio("replace / replace under a lock in each value", figures[NETSHM][REPLACE], figures[LOCKED_MAP][REPLACE], 0, 0);
    print_ratio("  that / map", figures[LOCKED_MAP][REPLACE], figures[MAP][REPLACE], 0, 0);
    print_ratio("counter by incr / under a lock in each value", figures[NETSHM][COUNT], figures[LOCKED_MAP][COUNT], 0, 0);
    print_ratio("  that / map", figures[LOCKED_MAP][COUNT], figures[MAP][COUNT], 0, 0);
    print_ratio("find of a counter / map's counter", warm[NETSHM], figures[MAP][COUNT], 0, 0);
    print_ratio("empty group / map's counter", empty_group, figures[MAP][COUNT], 0, 0);
    print_ratio("find miss / one miss", figures[1][MISS], limit_miss, 0, 0);
    print_ratio("replace / change under two CAS", figures[1][REPLACE], limit_replace, 0, 0);
    print_ratio("counter by incr / counter under two CAS", figures[1][COUNT], limit_count, 0, 0);
    return 0;
}
