/* Walking over a table beside reading the same records in the order of an index, without checks.
 *
 * usage: walk [keys [rounds [huge]]]          huge: with NETSHM_HUGE_PAGES
 *
 * The index of the other side: lines of six numbers of records, as full as our buckets, the records in the order in
 * which they were added, so that both meet them at random. It reads a byte of the key and of both ends of the value.
 *
 * What a walk cannot do without is shown beside it: the same with key and value copied, which is the least that a walk
 * costs whose values stay valid while others change them; and the same lines and records in the order of reversed bits,
 * asked for as long before as our walk asks for them, without checks and without copies.
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

enum { KEY = 16, VALUE = 64, ENTRIES = 6, MAX_ROUNDS = 32 };
struct record { uint64_t head[2]; unsigned char key[KEY], value[VALUE]; };
struct line { uint32_t records[ENTRIES]; uint64_t rest[5]; };

static netshm_hashtbl *table;
static size_t keys = 1000000, rounds = 7, line_count;
static struct record *records;
static struct line *lines;

static void must(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "walk: %s: %s\n", what, netshm_strerror(code));
        exit(1);
    }
}
/* The processor time of this thread: others may be busy on the machine. */
static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static void make_key(unsigned char *key, uint64_t n) {
    uint64_t x = n * 0x9e3779b97f4a7c15u;
    memcpy(key, &x, 8);
    memcpy(key + 8, &n, 8);
}
static void *shared(size_t bytes) {
    int fd = memfd_create("walk", 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) must(NETSHM_E_SYSTEM, "memfd_create");
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) must(NETSHM_E_NO_MEMORY, "mmap");
    close(fd);
    return p;
}

static void prepare(void) {
    unsigned char value[VALUE] = {0};
    uint64_t random = 88172645463325252u;
    line_count = keys * 4 / 15;
    records = shared(keys * sizeof *records);
    lines = shared((line_count + keys / ENTRIES + 1) * sizeof *lines);
    for (size_t i = 0; i < keys; i++) {
        make_key(records[i].key, i);
        records[i].value[8] = value[8] = (unsigned char)i;
        must(netshm_hashtbl_add(table, records[i].key, KEY, value, VALUE), "add");
    }
    /* Each record into a random line; what finds it full goes into one behind, as into our overflow lines. */
    size_t behind = line_count;
    for (size_t i = 0; i < keys; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        struct line *line = &lines[random % line_count];
        if (line->rest[0] == ENTRIES) line = &lines[behind];
        line->records[line->rest[0]++] = (uint32_t)i;
        if (line == &lines[behind] && line->rest[0] == ENTRIES) behind++;
    }
    line_count = behind + 1;
}

static volatile uint64_t sink;
static uint64_t bytes_of(const unsigned char *key, const unsigned char *value) {
    return key[8] + value[8] + value[VALUE - 1];
}
static void in_index_order(void) {
    uint64_t sum = 0;
    for (size_t i = 0; i < line_count; i++) {
        for (uint64_t n = 0; n < lines[i].rest[0]; n++) {
            const struct record *r = &records[lines[i].records[n]];
            sum += bytes_of(r->key, r->value);
        }
    }
    sink += sum;
}
static void copied_in_index_order(void) {
    struct { unsigned char key[KEY], value[VALUE]; } copy;
    uint64_t sum = 0;
    for (size_t i = 0; i < line_count; i++) {
        for (uint64_t n = 0; n < lines[i].rest[0]; n++) {
            const struct record *r = &records[lines[i].records[n]];
            memcpy(copy.key, r->key, KEY);
            memcpy(copy.value, r->value, VALUE);
            /* The compiler must not take the copy for the record. */
            __asm__ volatile("" : : "r"(&copy) : "memory");
            sum += bytes_of(copy.key, copy.value);
        }
    }
    sink += sum;
}
/* The line that comes after this one in the order of reversed bits, which is what lets a walk pass every key once while
 * the table grows; behind the last one 0. Those behind the first ones are reached from them, as overflow lines are. */
static size_t order_bits, ordered;
static size_t after(size_t i) {
    do {
        size_t bit = (size_t)1 << (order_bits - 1);
        while (bit && (i & bit)) i ^= bit, bit >>= 1;
        i |= bit;
    } while (i >= ordered);
    return i;
}
static void ask_for_records(const struct line *line) {
    for (uint64_t n = 0; n < line->rest[0]; n++) {
        const struct record *r = &records[line->records[n]];
        __builtin_prefetch(r);
        __builtin_prefetch((const char *)(r + 1) - 1);
    }
}
static void in_our_order(void) {
    enum { LINES = 8, RECORDS = 4 };
    size_t coming[LINES], last = 0;
    uint64_t sum = 0;
    ordered = keys * 4 / 15;
    for (order_bits = 1; (size_t)1 << order_bits < ordered;) order_bits++;
    for (size_t i = 0; i < LINES; i++) {
        coming[i] = last;
        __builtin_prefetch(&lines[last]);
        last = after(last);
    }
    for (size_t i = 0; i < line_count; i++) {
        const struct line *line = &lines[i];
        if (i < ordered) {
            line = &lines[coming[i % LINES]];
            coming[i % LINES] = last;
            __builtin_prefetch(&lines[last]);
            last = after(last);
            ask_for_records(&lines[coming[(i + RECORDS) % LINES]]);
        } else if (i + RECORDS < line_count) {
            ask_for_records(&lines[i + RECORDS]);
        }
        for (uint64_t n = 0; n < line->rest[0]; n++) {
            const struct record *r = &records[line->records[n]];
            sum += bytes_of(r->key, r->value);
        }
    }
    sink += sum;
}
static void by_cursor(void) {
    netshm_cursor *cursor;
    netshm_slice key, value;
    size_t n = 0;
    must(netshm_cursor_open(table, 0, &cursor), "cursor");
    while (netshm_cursor_next(cursor, &key, &value) == NETSHM_OK) n += key.len == KEY && value.len == VALUE;
    netshm_cursor_close(cursor);
    if (n != keys) must(NETSHM_E_CORRUPT, "number of bindings seen");
}
static int each(netshm_slice key, netshm_slice value, void *n) {
    if (key.len != KEY || value.len != VALUE) return 0;
    ++*(size_t *)n;
    return 1;
}
static void by_callback(void) {
    size_t n = 0;
    must(netshm_hashtbl_iter(table, each, &n), "iter");
    if (n != keys) must(NETSHM_E_CORRUPT, "number of bindings seen");
}

static int add_bytes(netshm_slice key, netshm_slice value, void *sum) {
    *(uint64_t *)sum += bytes_of(key.data, value.data);
    return NETSHM_CONTINUE;
}
/* Not timed: netshm's walk meets what is in the index. */
static void verify(void) {
    uint64_t sum = 0;
    in_index_order();
    must(netshm_hashtbl_iter(table, add_bytes, &sum), "iter");
    if (sum != sink) must(NETSHM_E_CORRUPT, "bindings seen");
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
enum { PLAIN, COPIED, OUR_ORDER, CURSOR, CALLBACK, WALKS };
static const struct { const char *name; void (*walk)(void); } walks[WALKS] = {
    {"index order, no checks", in_index_order}, {"  key and value copied", copied_in_index_order},
    {"  in our order", in_our_order}, {"netshm by cursor", by_cursor}, {"netshm by callback", by_callback}};
static double times[WALKS][MAX_ROUNDS];

/* Nanoseconds per binding. A small table is walked several times. */
static double run(void (*walk)(void)) {
    size_t repeats = 1000000 / keys + 1;
    double start = now_ns();
    for (size_t i = 0; i < repeats; i++) walk();
    return (now_ns() - start) / (double)(repeats * keys);
}
static double median(const double *values) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, rounds * sizeof *values);
    qsort(sorted, rounds, sizeof *sorted, compare);
    return sorted[rounds / 2];
}
static double print_rate(const char *beside, int which, int other) {
    double ratio[MAX_ROUNDS];
    for (size_t i = 0; i < rounds; i++) ratio[i] = times[other][i] / times[which][i];
    qsort(ratio, rounds, sizeof *ratio, compare);
    printf("  %s %4.2f (%.2f to %.2f)", beside, ratio[rounds / 2], ratio[0], ratio[rounds - 1]);
    return ratio[rounds / 2];
}
static void print(int which) {
    printf("  %-24s %6.1f ns", walks[which].name, median(times[which]));
    if (which != PLAIN) {
        double rate = print_rate("rate / index order", which, PLAIN);
        if (which != COPIED) print_rate("/ copied", which, COPIED);
        if (which >= CURSOR) printf("  goal >= 0.5 of index order  %s", rate >= 0.5 ? "met" : "NOT MET");
    }
    puts("");
}

int main(int argc, char **argv) {
    char path[64], name[64];
    netshm_object *object;
    netshm_options options = NETSHM_OPTIONS_INIT;
    if (argc > 3) options.flags = NETSHM_HUGE_PAGES;
    if (argc > 1) keys = strtoul(argv[1], NULL, 10);
    if (argc > 2) rounds = strtoul(argv[2], NULL, 10);
    if (keys < 100 || rounds < 1 || rounds > MAX_ROUNDS) return 2;
    snprintf(path, sizeof path, "/tmp/netshm-walk-%d", (int)getpid());
    snprintf(name, sizeof name, "/netshm-walk-%d", (int)getpid());
    must(netshm_open(NETSHM_POSIX, path, name, NETSHM_CREAT | NETSHM_RDWR | NETSHM_EXCL, 0600, &object), "open");
    must(netshm_unlink(NETSHM_POSIX, path, name), "unlink");
    must(netshm_hashtbl_manage(object, NULL, NULL, &options, &table), "manage");
    prepare();
    verify();
    printf("walking over %zu bindings of %d + %d bytes%s; per binding; medians of %zu rounds, by processor time\n", keys,
           KEY, VALUE, options.flags ? ", huge pages" : "", rounds);
    for (size_t i = 0; i < rounds; i++)
        for (int which = 0; which < WALKS; which++) times[which][i] = run(walks[which].walk);
    for (int which = 0; which < WALKS; which++) print(which);
    netshm_hashtbl_close(table);
    netshm_close(object);
    return 0;
}
