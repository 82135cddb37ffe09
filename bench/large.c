/* Large values beside memcpy: replace and find of values of 1 KiB to 8 MiB, and memcpy of as many bytes into
 * and out of shared memory, in turns, with as many different places as the table has.
 *
 * usage: large [rounds]
 *
 * Warm: one key, so that what is copied stays in the last-level cache as far as it fits; a new value takes another
 * place than the old one, so memcpy changes between two as well. Cold: 96 MiB, which do not fit.
 *
 * The controls are memcpy beside memcpy, and say how much of a missed goal is the copy's own: to and from a place that
 * is not aligned, as a value is not that lies behind its record's header and key (24 bytes), and, warm, to two places by turns; and
 * on x86_64 by the string instruction, which the library uses for all lengths and libc not where the second-level cache is too small.
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROUNDS = 64, COLD_BYTES = 96 << 20, PAGE = 4096 };
static netshm_hashtbl *table;
static unsigned char *private_copy, *shared;
static size_t bytes, places, rounds = 9;

static void must(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "large: %s: %s\n", what, netshm_strerror(code));
        exit(1);
    }
}
/* The processor time of this thread: others may be busy on the machine. */
static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static void *memory(size_t n, int flags, int fd) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, flags | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) must(NETSHM_E_NO_MEMORY, "mmap");
    return p;
}

static void put(size_t i) {
    private_copy[i % bytes]++;
    must(netshm_hashtbl_replace(table, &i, sizeof i, private_copy, bytes), "replace");
}
static void get(size_t i) {
    size_t len;
    must(netshm_hashtbl_find(table, &i, sizeof i, private_copy, bytes, &len), "find");
    if (len != bytes) must(NETSHM_E_CORRUPT, "length of what was found");
}
/* The compiler must not leave out a copy that nobody reads. */
static void copy(void *to, const void *from) {
    memcpy(to, from, bytes);
    __asm__ volatile("" : : "r"(to) : "memory");
}
static void copy_to(size_t place) {
    private_copy[place % bytes]++;
    copy(shared + place * bytes, private_copy);
}
static void copy_in(size_t i) {
    static size_t turn;
    copy_to(places == 1 ? turn++ & 1 : i);
}
static void copy_out(size_t i) {
    copy(private_copy, shared + i * bytes);
}
/* The same where places do not begin with a page, and with one place. */
static size_t shift;
static void copy_in_shifted(size_t i) {
    shared += shift;
    copy_in(i);
    shared -= shift;
}
static void copy_out_shifted(size_t i) {
    copy(private_copy, shared + shift + i * bytes);
}
static void copy_in_one(size_t i) {
    (void)i;
    copy_to(0);
}

#ifdef __x86_64__
static void copy_in_string(size_t i) {
    static size_t turn;
    unsigned char *to = shared + (places == 1 ? turn++ & 1 : i) * bytes + 64, *from = private_copy;
    size_t n = bytes;
    private_copy[i % bytes]++;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}
#endif

static double run(void (*step)(size_t)) {
    size_t n = (64 << 20) / bytes;
    double start = now_ns();
    for (size_t i = 0; i < n; i++) step(i % places);
    return (now_ns() - start) / (double)n;
}
static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void row(const char *what, const char *where, void (*ours)(size_t), void (*plain)(size_t), double goal) {
    double a[MAX_ROUNDS], b[MAX_ROUNDS], ratio[MAX_ROUNDS];
    for (size_t i = 0; i < rounds; i++) {
        a[i] = run(ours);
        b[i] = run(plain);
        ratio[i] = b[i] / a[i];
    }
    qsort(a, rounds, sizeof *a, compare);
    qsort(b, rounds, sizeof *b, compare);
    qsort(ratio, rounds, sizeof *ratio, compare);
    double mid = ratio[rounds / 2];
    printf("%5zu KiB  %-23s %-5s %8.3f us  memcpy %8.3f us  rate %4.2f of memcpy's (%.2f to %.2f)", bytes >> 10, what,
           where, a[rounds / 2] / 1e3, b[rounds / 2] / 1e3, mid, ratio[0], ratio[rounds - 1]);
    if (goal > 0) printf("  goal >= %.1f  %s", goal, mid >= goal ? "met" : "NOT MET");
    puts("");
}

static void control(const char *where, int cold) {
    char what[32];
    for (shift = 16; shift <= 24; shift += 8) {
        snprintf(what, sizeof what, "  memcpy to offset %zu", shift);
        row(what, where, copy_in_shifted, copy_in, 0);
        snprintf(what, sizeof what, "  memcpy from offset %zu", shift);
        row(what, where, copy_out_shifted, copy_out, 0);
    }
#ifdef __x86_64__
    row("  string instruction", where, copy_in_string, copy_in, 0);
#endif
    if (!cold) row("  memcpy, 2 places / 1", where, copy_in, copy_in_one, 0);
}
static void measure(size_t size, double goal) {
    for (int cold = 0; cold < 2; cold++) {
        const char *where = cold ? "cold" : "warm";
        bytes = size;
        places = cold ? COLD_BYTES / size : 1;
        for (size_t i = 0; i < places; i++) put(i);
        memcpy(shared, private_copy, bytes);
        get(places - 1);
        if (memcmp(shared, private_copy, bytes) != 0) must(NETSHM_E_CORRUPT, "what was found");
        row("replace", where, put, copy_in, goal);
        row("find", where, get, copy_out, goal);
        control(where, cold);
    }
}

int main(int argc, char **argv) {
    char path[64], name[64];
    netshm_object *object;
    if (argc > 1) rounds = strtoul(argv[1], NULL, 10);
    if (rounds < 1 || rounds > MAX_ROUNDS) return 2;
    snprintf(path, sizeof path, "/tmp/netshm-large-%d", (int)getpid());
    snprintf(name, sizeof name, "/netshm-large-%d", (int)getpid());
    must(netshm_open(NETSHM_POSIX, path, name, NETSHM_CREAT | NETSHM_RDWR | NETSHM_EXCL, 0600, &object), "open");
    must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "manage");
    int fd = memfd_create("large", 0);
    if (fd < 0 || ftruncate(fd, COLD_BYTES + PAGE) != 0) must(NETSHM_E_SYSTEM, "memfd_create");
    shared = memory(COLD_BYTES + PAGE, MAP_SHARED, fd);
    private_copy = memory(8 << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    puts("controls are indented: memcpy beside memcpy to aligned places (a value of ours lies at offset 24 of its record)");
    measure(1 << 10, 0);
    measure(64 << 10, 0);
    measure(1 << 20, 0.7);
    measure(8 << 20, 0);
    netshm_hashtbl_close(table);
    netshm_close(object);
    must(netshm_unlink(NETSHM_POSIX, path, name), "unlink");
    return 0;
}
