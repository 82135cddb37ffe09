// peers_kill KILLS [DIRECTORY [SYSTEM]]: the same kills for netshm and for its peers, or for those of them that have SYSTEM in
// their names.
//
// Three processes store and remove, each on keys of its own. What each has begun, and what had returned, is noted in memory
// that outlives them. One of them is killed at a random moment. Then the others must go on; everybody
// pauses, the system's own checker looks, and every key must have what was acknowledged, or what was in flight. After a
// failure of whatever kind the store is made anew. Counted are kills after which the checker failed, after which something
// acknowledged was lost or something was there that was never stored, and after which somebody was stuck or broke down.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

enum { WRITERS = 3, KEYS = 64, MOST_BYTES = 480, STUCK_SECONDS = 20, STARVED_SECONDS = 5, PARK_NAP_US = 200 };

struct writer {
    // The version that each key has, 0 for none.
    volatile uint64_t acknowledged[KEYS];
    // What is in flight: a key and its next version. key is KEYS if nothing is.
    volatile uint64_t key, version;
    volatile uint64_t operations, first_at, parked;
};

struct shared {
    struct writer writers[WRITERS];
    volatile uint64_t park;
};

static struct shared *shared;
static uint64_t seed;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t next_random(void) { return mix(seed += 0x9e3779b97f4a7c15u); }

static void nap_us(uint64_t us) {
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

// ---- What is stored

struct key {
    uint32_t writer, number;
};

static size_t size_of(uint64_t version) { return 8 + 8 * (mix(version) % (MOST_BYTES / 8)); }

static void fill(uint64_t *value, uint64_t version) {
    for (size_t i = 0; i < size_of(version) / 8; i++) value[i] = version;
}

// ---- Children

static _Noreturn void write_for_ever(const struct system *s, const char *path, int me) {
    struct writer *w = &shared->writers[me];
    uint64_t random = mix((uint64_t)getpid() * 77777 + now_ns());
    if (s->join(path) != OK) _exit(1);
    for (;;) {
        while (shared->park) {
            w->parked = 1;
            nap_us(PARK_NAP_US);
        }
        w->parked = 0;
        random = mix(random + 0x9e3779b97f4a7c15u);
        struct key key = {(uint32_t)me, (uint32_t)(random % KEYS)};
        uint64_t value[MOST_BYTES / 8 + 1];
        uint64_t version = random / KEYS % 4 == 0 ? 0 : (random >> 8 | 1);
        w->version = version;
        w->key = key.number;
        int code;
        if (version == 0) {
            code = s->remove(&key, sizeof key);
            if ((code == ABSENT) != (w->acknowledged[key.number] == 0)) _exit(3);
        } else {
            fill(value, version);
            code = s->put(&key, sizeof key, value, size_of(version));
        }
        if (code == FAILED) _exit(2);
        w->acknowledged[key.number] = version;
        w->key = KEYS;
        w->operations++;
        if (!w->first_at) w->first_at = now_ns();
    }
}

enum verdict { SOUND = 0, CHECK_FAILED = 10, LOST = 11, BROKEN = 12 };

static int is_version(const uint64_t *value, long size, uint64_t version) {
    if (version == 0) return size == ABSENT;
    if (size != (long)size_of(version)) return 0;
    for (long i = 0; i < size / 8; i++) {
        if (value[i] != version) return 0;
    }
    return 1;
}

// What was in flight when a writer died may be there or not; its book is brought into line.
static _Noreturn void judge(const struct system *s, const char *path) {
    alarm(STUCK_SECONDS);
    if (s->join(path) != OK) _exit(BROKEN);
    int sound = s->check() == OK;
    int lost = 0;
    for (int me = 0; me < WRITERS; me++) {
        struct writer *w = &shared->writers[me];
        for (uint32_t n = 0; n < KEYS; n++) {
            struct key key = {(uint32_t)me, n};
            uint64_t value[MOST_BYTES / 8 + 1];
            long size = s->find(&key, sizeof key, value, sizeof value);
            if (is_version(value, size, w->acknowledged[n])) continue;
            if (w->key == n && is_version(value, size, w->version)) {
                w->acknowledged[n] = w->version;
                continue;
            }
            lost = 1;
        }
        w->key = KEYS;
    }
    s->leave();
    _exit(!sound ? CHECK_FAILED : lost ? LOST : SOUND);
}

static pid_t start(const struct system *s, const char *path, int me) {
    if (me >= 0) shared->writers[me].parked = 0;
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) exit(1);
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    if (me < 0) judge(s, path);
    write_for_ever(s, path, me);
}

// ---- The trials

struct tally {
    unsigned kills, check_failed, lost, stuck, broken, starved;
    uint64_t operations;
    uint64_t *pauses;
};

static pid_t pids[WRITERS];

static void finish(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

// Waits until a word of each writer is not 0. Gives 0; 1, somebody is stuck; 2, somebody has ended by himself.
static int wait_for_all(volatile uint64_t *(*word)(int), int but, uint64_t seconds) {
    uint64_t end = now_ns() + seconds * 1000000000u;
    for (int me = 0; me < WRITERS; me++) {
        while (me != but && !*word(me)) {
            if (waitpid(pids[me], NULL, WNOHANG) == pids[me]) {
                pids[me] = 0;
                return 2;
            }
            if (now_ns() > end) return 1;
            nap_us(50);
        }
    }
    return 0;
}

// Says what a process sleeps on, if that is a futex: the word's value is of one whose lock it wants, with the bits that
// the kernel and glibc know.
static void tell_sleep(const struct system *s, int me) {
    char name[64], line[256] = "";
    unsigned long long number, address;
    uint32_t word = 0;
    snprintf(name, sizeof name, "/proc/%d/syscall", (int)pids[me]);
    FILE *file = fopen(name, "r");
    if (!file) return;
    if (!fgets(line, sizeof line, file)) line[0] = 0;
    fclose(file);
    line[strcspn(line, "\n")] = 0;
    fprintf(stderr, "%s: writer %d (%d) is in system call %s\n", s->name, me, (int)pids[me], line);
    if (sscanf(line, "%llu %llx", &number, &address) != 2 || number != SYS_futex) return;
    struct iovec here = {&word, sizeof word}, there = {(void *)(uintptr_t)address, sizeof word};
    if (process_vm_readv(pids[me], &here, 1, &there, 1, 0) != (ssize_t)sizeof word) return;
    pid_t owner = (pid_t)(word & FUTEX_TID_MASK);
    fprintf(stderr, "%s:   the futex is %#x: owner %d, %s;%s%s\n", s->name, word, (int)owner,
            owner == 0 ? "nobody" : kill(owner, 0) == 0 ? "who lives" : "who is dead",
            word & FUTEX_WAITERS ? " somebody waits" : " nobody waits",
            word & FUTEX_OWNER_DIED ? "; its owner has died" : "");
}

static volatile uint64_t *first_at(int me) { return &shared->writers[me].first_at; }
static volatile uint64_t *parked(int me) { return &shared->writers[me].parked; }

static void begin_store(const struct system *s, const char *path) {
    memset(shared, 0, sizeof *shared);
    if (s->create(path) != OK) {
        fprintf(stderr, "%s cannot be created at %s\n", s->name, path);
        exit(1);
    }
    for (int me = 0; me < WRITERS; me++) {
        shared->writers[me].key = KEYS;
        pids[me] = start(s, path, me);
    }
}

static void end_store(const struct system *s, const char *path, struct tally *tally) {
    for (int me = 0; me < WRITERS; me++) {
        if (pids[me]) finish(pids[me]);
        tally->operations += shared->writers[me].operations;
    }
    s->destroy(path);
}

static int tell(const struct system *s, const struct tally *tally, const char *what) {
    fprintf(stderr, "%s, kill %u: %s\n", s->name, tally->kills, what);
    return 0;
}

// One kill. False: the store has to be made anew.
static int one_kill(const struct system *s, const char *path, struct tally *tally) {
    nap_us(next_random() % 3000);
    int victim = (int)(next_random() % WRITERS);
    uint64_t from = now_ns();
    finish(pids[victim]);
    pids[victim] = 0;
    for (int me = 0; me < WRITERS; me++) shared->writers[me].first_at = 0;
    const char *when = "going on";
    int outcome = wait_for_all(first_at, victim, STARVED_SECONDS);
    uint64_t slowest = from;
    for (int me = 0; me < WRITERS; me++) {
        uint64_t at = shared->writers[me].first_at;
        if (me != victim && !at) at = now_ns();
        if (me != victim && at > slowest) slowest = at;
    }
    tally->pauses[tally->kills++] = slowest - from;
    if (outcome == 1) {
        // A survivor who only ever came too late for a lock that another one takes again and again goes on now.
        tally->starved++;
        outcome = 0;
    }
    if (outcome == 0) {
        shared->park = 1;
        when = "pausing";
        outcome = wait_for_all(parked, victim, STUCK_SECONDS);
    }
    if (outcome != 0) {
        *(outcome == 1 ? &tally->stuck : &tally->broken) += 1;
        for (int me = 0; outcome == 1 && me < WRITERS; me++)
            if (me != victim && !*parked(me)) tell_sleep(s, me);
        fprintf(stderr, "%s, while ", outcome == 1 ? "stuck" : "ended by itself");
        return tell(s, tally, when);
    }
    int status;
    pid_t judging = start(s, path, -1);
    waitpid(judging, &status, 0);
    shared->park = 0;
    if (WIFSIGNALED(status)) {
        // The alarm: stuck. Anything else: it broke down over what it found.
        *(WTERMSIG(status) == SIGALRM ? &tally->stuck : &tally->check_failed) += 1;
        return tell(s, tally, WTERMSIG(status) == SIGALRM ? "the checker is stuck" : "the checker broke down");
    }
    switch (WEXITSTATUS(status)) {
        case SOUND: pids[victim] = start(s, path, victim); return 1;
        case CHECK_FAILED: tally->check_failed++; return tell(s, tally, "the check failed");
        case LOST: tally->lost++; return tell(s, tally, "lost or wrong");
        default: tally->broken++; return tell(s, tally, "cannot be opened");
    }
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int run(const struct system *s, const char *directory, unsigned kills) {
    char path[4096];
    struct tally tally = {.pauses = calloc(kills, sizeof(uint64_t))};
    snprintf(path, sizeof path, "%s/peers-kill-%d", directory, (int)getpid());
    begin_store(s, path);
    while (tally.kills < kills) {
        if (!one_kill(s, path, &tally)) {
            end_store(s, path, &tally);
            begin_store(s, path);
        }
        if (tally.kills % 1000 == 0) fprintf(stderr, "%s: %u kills\n", s->name, tally.kills);
    }
    end_store(s, path, &tally);
    qsort(tally.pauses, kills, sizeof(uint64_t), by_size);
    double p50 = (double)tally.pauses[kills / 2] / 1e6, p99 = (double)tally.pauses[kills - 1 - kills / 100] / 1e6;
    printf("%-20s %6u kills: check failed %4u, lost or wrong %4u, stuck %4u, broke down %4u, "
           "starved by others %u; "
           "others went on after p50 %.1f ms, p99 %.1f ms, worst %.1f ms; %llu operations (%s)\n",
           s->name, kills, tally.check_failed, tally.lost, tally.stuck, tally.broken, tally.starved, p50, p99,
           (double)tally.pauses[kills - 1] / 1e6, (unsigned long long)tally.operations, s->setup);
    fflush(stdout);
    free(tally.pauses);
    return s == &netshm_system && tally.check_failed + tally.lost + tally.stuck + tally.broken > 0;
}

int main(int argc, char **argv) {
    int kills = argc > 1 ? atoi(argv[1]) : 300;
    const char *directory = argc > 2 ? argv[2] : "/dev/shm";
    static const struct system *const systems[] = {
        &netshm_system,
#ifdef HAVE_LMDB
        &lmdb_system,
#endif
#ifdef HAVE_TDB
        &tdb_transactions_system, &tdb_mutex_system,
#endif
    };
    const char *only = argc > 3 ? argv[3] : "";
    if (kills < 1) return fprintf(stderr, "usage: peers_kill KILLS [DIRECTORY [SYSTEM]]\n"), 2;
    seed = now_ns();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return perror("mmap"), 1;
    int failures = 0;
    size_t runs = 0;
    for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
        if (!strstr(systems[i]->name, only)) continue;
        failures += run(systems[i], directory, (unsigned)kills);
        runs++;
    }
    if (runs == 0) return fprintf(stderr, "no system has %s in its name\n", only), 2;
    return failures != 0;
}
