/* How evenly a table grows: the time of each single add from an empty table on, beside a control.
 *
 * usage: growth [keys [expected]]
 *
 * The control does a fixed amount of private work per step and shows what the machine itself interrupts. The two take
 * turns of some milliseconds and get equal time, so that their counts of long steps can be compared. A long step
 * in which the thread was taken off its processor for another one ("switched") is not the library's.
 * Afterwards: what it costs to open, manage and close the object with all of its keys.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { KEY = 16, VALUE = 64, TURN_NS = 5000000, LIMITS = 3, OPENINGS = 21 };
static const uint64_t limits_ns[LIMITS] = {20000, 100000, 1000000};

struct steps {
    const char *name;
    uint64_t count, total_ns, worst_ns, worst_alone_ns;
    uint64_t longer[LIMITS], alone[LIMITS];
};

static char path[64], memory[64];
static uint64_t expected;

static void must(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "growth: %s: %s\n", what, netshm_strerror(code));
        exit(1);
    }
}
static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
/* How often this thread was taken off its processor although it wanted to go on. */
static long switches(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}
static void make_key(unsigned char *key, uint64_t n) {
    uint64_t x = n * 0x9e3779b97f4a7c15u;
    memcpy(key, &x, 8);
    memcpy(key + 8, &n, 8);
}

static void note(struct steps *s, uint64_t took, long *switched) {
    s->count++;
    s->total_ns += took;
    if (took > s->worst_ns) s->worst_ns = took;
    if (took <= limits_ns[0]) return;
    long now = switches();
    int alone = now == *switched;
    *switched = now;
    if (alone && took > s->worst_alone_ns) s->worst_alone_ns = took;
    for (int i = 0; i < LIMITS; i++) {
        s->longer[i] += took > limits_ns[i];
        s->alone[i] += alone && took > limits_ns[i];
    }
}

static netshm_hashtbl *table;
static void add(uint64_t n) {
    static unsigned char value[VALUE];
    unsigned char key[KEY];
    make_key(key, n);
    must(netshm_hashtbl_add(table, key, KEY, value, VALUE), "add");
}
/* About as long as an add, all of it in the first-level cache. */
static void control(uint64_t n) {
    static uint64_t state;
    uint64_t x = n + state;
    for (int i = 0; i < 150; i++) x = x * 6364136223846793005u + 1442695040888963407u;
    state = x;
}

/* Steps until the turn's time, or all of the steps, are used up. */
static void turn(struct steps *s, void (*step)(uint64_t), uint64_t most_ns, uint64_t most_steps) {
    long switched = switches();
    uint64_t start = now_ns(), before = start;
    while (before - start < most_ns && s->count < most_steps) {
        step(s->count);
        uint64_t after = now_ns();
        note(s, after - before, &switched);
        before = after;
    }
}

static void print(const struct steps *s) {
    printf("  %-8s %10" PRIu64 " %7.0f ns", s->name, s->count, (double)s->total_ns / (double)s->count);
    for (int i = 0; i < LIMITS; i++) printf(" %6" PRIu64 " (%5" PRIu64 ")", s->longer[i], s->alone[i]);
    printf(" %9.1f (%.1f) us\n", (double)s->worst_ns / 1e3, (double)s->worst_alone_ns / 1e3);
}

static void print_beyond(int limit, const struct steps *adds, const struct steps *controls) {
    static const char *const names[LIMITS] = {"20 us", "100 us", "1 ms"};
    uint64_t a = adds->alone[limit], c = controls->alone[limit];
    printf("  adds above %-6s beyond the control's: %4" PRIu64 "   (adds %" PRIu64 ", control in the same time %" PRIu64 ")\n",
           names[limit], a > c ? a - c : 0, a, c);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void median(const char *what, double *us) {
    qsort(us, OPENINGS, sizeof *us, compare);
    printf("  %-28s %7.1f us   (%.1f to %.1f)\n", what, us[OPENINGS / 2], us[0], us[OPENINGS - 1]);
}

static netshm_object *open_object(int flags) {
    netshm_object *object;
    must(netshm_open(NETSHM_POSIX, path, memory, flags, 0600, &object), "open");
    return object;
}
/* Every opening is alone: nobody else of this process keeps the object open. */
static void measure_opening(uint64_t keys) {
    double opened[OPENINGS], found[OPENINGS], changed[OPENINGS], closed[OPENINGS];
    unsigned char key[KEY], value[VALUE];
    size_t len;
    make_key(key, keys / 2);
    for (int i = 0; i < OPENINGS; i++) {
        double t0 = (double)now_ns();
        netshm_object *object = open_object(NETSHM_RDWR);
        must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "manage");
        double t1 = (double)now_ns();
        must(netshm_hashtbl_find(table, key, KEY, value, VALUE, &len), "find");
        if (len != VALUE) must(NETSHM_E_CORRUPT, "length of what was found");
        double t2 = (double)now_ns();
        must(netshm_hashtbl_replace(table, key, KEY, value, VALUE), "replace");
        double t3 = (double)now_ns();
        netshm_hashtbl_close(table);
        netshm_close(object);
        double t4 = (double)now_ns();
        opened[i] = (t1 - t0) / 1e3, found[i] = (t2 - t1) / 1e3;
        changed[i] = (t3 - t2) / 1e3, closed[i] = (t4 - t3) / 1e3;
    }
    printf("an object of %" PRIu64 " keys, by %d openings: median (least to most)\n", keys, OPENINGS);
    median("open and manage", opened);
    printf("  goal <= 1000 us  %s\n", opened[OPENINGS / 2] <= 1000 ? "met" : "NOT MET");
    median("first find", found);
    median("first change", changed);
    median("close both", closed);
}

int main(int argc, char **argv) {
    uint64_t keys = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    struct steps adds = {.name = "add"}, controls = {.name = "control"};
    netshm_options options = NETSHM_OPTIONS_INIT;
    expected = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    options.init = expected;
    snprintf(path, sizeof path, "/tmp/netshm-growth-%d", (int)getpid());
    snprintf(memory, sizeof memory, "/netshm-growth-%d", (int)getpid());
    netshm_object *object = open_object(NETSHM_CREAT | NETSHM_RDWR | NETSHM_EXCL);
    double before = (double)now_ns();
    must(netshm_hashtbl_manage(object, NULL, NULL, &options, &table), "manage");
    printf("%" PRIu64 " adds from empty, keys of %d bytes, values of %d bytes\n", keys, KEY, VALUE);
    printf("new table for %" PRIu64 " keys: %.1f us\n", expected, ((double)now_ns() - before) / 1e3);
    while (adds.count < keys) {
        turn(&adds, add, TURN_NS, keys);
        turn(&controls, control, TURN_NS, UINT64_MAX);
    }
    printf("steps longer than              each           20 us         100 us           1 ms      worst; in brackets: not switched\n");
    print(&adds);
    print(&controls);
    puts("by the wall clock, which judges, without steps in which the thread was switched off its processor:");
    for (int i = LIMITS - 1; i >= 0; i--) print_beyond(i, &adds, &controls);
    uint64_t most = controls.longer[LIMITS - 1];
    int none = adds.alone[LIMITS - 1] <= controls.alone[LIMITS - 1] && adds.longer[LIMITS - 1] <= most + most / 2 + 2;
    printf("  goal: none above 1 ms beyond the control (all steps: half as many again, and 2)  %s\n", none ? "met" : "NOT MET");
    netshm_hashtbl_close(table);
    netshm_close(object);
    measure_opening(keys);
    must(netshm_unlink(NETSHM_POSIX, path, memory), "unlink");
    return 0;
}
