/* Goal: whoever works through the C interface, while a process that may write to the object stores random bytes into it,
 * gets OK or a code that the header names for the call, in time; nothing else. Method: workers make calls and look at each
 * code; the enemy stores bytes, words and pages, makes words change all the time, and puts the object right now and then.
 * NETSHM_ROUNDS is the number of calls, NETSHM_SEED repeats what is chosen. */
#include "support.h"
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

#define WORKERS 3
#define PAGE 4096
#define TIMEOUT_MS 20
/* A call that takes so long has no end: SIGALRM tells. */
#define PATIENCE_S 100
#define MOST_BYTES (1l << 30)

/* What all processes share. */
typedef struct common {
    long done, opened, refused, corrupt, timeouts, changed, slowest_us;
    int end, wrong;
    char slowest_call[50];
} common;

static common *shared;
static place *p;
static unsigned char *right;
static size_t right_len;

static void add(long *counter, long n) { __atomic_fetch_add(counter, n, __ATOMIC_RELAXED); }
static long get(long *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }
static int ended(void) { return __atomic_load_n(&shared->end, __ATOMIC_RELAXED); }

/* Random numbers (splitmix64). */
static uint64_t state;

static uint64_t any(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned below(unsigned n) { return (unsigned)(any() % n); }

/* ---- Calls and their codes, as the header has them; but those of misuse, which is not made here. */

#define C(name) (1ull << -NETSHM_E_##name)
#define OPEN (C(NOT_FOUND) | C(PERMISSION) | C(KIND) | C(CORRUPT) | C(NEWER) | C(NO_MEMORY) | C(NO_SPACE) | C(SYSTEM))
#define MANAGE (C(TYPE) | C(TIMEOUT) | C(KIND) | C(LOCKING) | C(READ_ONLY) | C(CORRUPT) | C(NO_SPACE) | C(NO_MEMORY) | C(BUSY) | C(SYSTEM) | \
    C(DEADLOCK))
#define FIND (C(NOT_FOUND) | C(TOO_SMALL) | C(CORRUPT) | C(TIMEOUT) | C(BUSY) | C(STALE) | C(DEADLOCK))
#define ADD (C(NO_SPACE) | C(TOO_LARGE) | C(TIMEOUT) | C(READ_ONLY) | C(STALE) | C(DEADLOCK) | C(NO_MEMORY) | C(BUSY) | \
    C(CORRUPT) | C(SYSTEM))
#define LENGTH (C(TIMEOUT) | C(DEADLOCK) | C(CORRUPT) | C(STALE))
#define GET (C(RANGE) | C(TYPE) | C(OVERFLOW) | C(CORRUPT) | C(TIMEOUT) | C(BUSY) | C(STALE) | \
    C(DEADLOCK))
#define SET (C(RANGE) | C(TYPE) | C(OVERFLOW) | ADD)
#define WAIT (C(TIMEOUT) | C(IN_GROUP) | C(STALE) | C(BUSY) | C(CORRUPT) | C(SYSTEM))
#define CHECK (C(CORRUPT) | C(TIMEOUT) | C(BUSY) | C(IN_GROUP) | C(DEADLOCK))
#define ROOTS (C(CORRUPT) | C(TIMEOUT) | C(BUSY) | C(NO_MEMORY))
#define DROP (C(NOT_FOUND) | C(IN_GROUP) | C(READ_ONLY) | C(TIMEOUT) | C(DEADLOCK) | C(CORRUPT) | C(NO_SPACE) | C(NO_MEMORY) | \
    C(SYSTEM) | C(BUSY))
#define SYNC (C(TIMEOUT) | C(DEADLOCK) | C(IN_GROUP) | C(READ_ONLY) | C(SYSTEM) | C(NO_SPACE) | C(CORRUPT))
#define BACKUP (C(NOT_FOUND) | C(DEADLOCK) | C(NO_SPACE) | C(TIMEOUT) | C(IN_GROUP) | C(READ_ONLY) | C(PERMISSION) | C(CORRUPT) | C(SYSTEM))
#define SALVAGE (C(CORRUPT) | C(NEWER) | C(NOT_FOUND) | C(PERMISSION) | C(NO_SPACE) | C(SYSTEM))
#define DUMP (C(CORRUPT) | C(STALE) | C(TIMEOUT) | C(DEADLOCK) | C(NO_MEMORY))
#define BEGIN (C(DEADLOCK) | C(READ_ONLY) | C(BUSY) | C(CORRUPT))
#define COMMIT (C(DEADLOCK) | C(NO_SPACE) | C(TIMEOUT) | C(CORRUPT) | C(ABORTED) | C(BUSY))
#define RESTART (C(ABORTED) | C(TIMEOUT) | C(CORRUPT) | C(BUSY))

static struct timespec begun;

static void begin(void)
{
    alarm(PATIENCE_S);
    clock_gettime(CLOCK_MONOTONIC, &begun);
}

static int judge(int code, const char *call, unsigned long long codes)
{
    struct timespec now;
    long took, slowest;
    clock_gettime(CLOCK_MONOTONIC, &now);
    took = (now.tv_sec - begun.tv_sec) * 1000000 + (now.tv_nsec - begun.tv_nsec) / 1000;
    slowest = get(&shared->slowest_us);
    if (took > slowest) {
        /* Not exact if two are slow at once, and good enough. */
        __atomic_store_n(&shared->slowest_us, took, __ATOMIC_RELAXED);
        snprintf(shared->slowest_call, sizeof shared->slowest_call, "%s", call);
    }
    add(&shared->done, 1);
    if (code == NETSHM_E_CORRUPT) add(&shared->corrupt, 1);
    if (code == NETSHM_E_TIMEOUT) add(&shared->timeouts, 1);
    if (code != NETSHM_OK && (code > 0 || code < NETSHM_E_PANIC || (codes >> -code & 1) == 0)) {
        char text[2000];
        int n = snprintf(text, sizeof text, "# not for this call: %d, %s: %.1500s\n", code, last_text(), call);
        __atomic_fetch_add(&shared->wrong, 1, __ATOMIC_RELAXED);
        if (write(1, text, n < (int)sizeof text ? n : (int)sizeof text) < 0) return code;
    }
    return code;
}

#define CALL(call, codes) (begin(), judge(call, #call, codes))

/* ---- Workers */

typedef struct session {
    netshm_object *o;
    netshm_hashtbl *t;
    netshm_array *a;
    netshm_table *w;
    netshm_txn *group;
    place copy;
} session;

static int seen;

static int see(netshm_slice key, netshm_slice val, void *arg)
{
    (void)key, (void)val, (void)arg;
    return ++seen < 3000 ? NETSHM_CONTINUE : NETSHM_STOP;
}

static int see_element(uint64_t i, netshm_slice encoded, void *arg)
{
    (void)i, (void)encoded, (void)arg;
    return ++seen < 3000 ? NETSHM_CONTINUE : NETSHM_STOP;
}

static int see_damage(int what, int64_t offset, const char *text, void *arg)
{
    (void)what, (void)offset, (void)text, (void)arg;
    return ++seen < 1000 ? NETSHM_CONTINUE : NETSHM_STOP;
}

static int see_bytes(const void *data, size_t len, void *arg)
{
    *(unsigned *)arg = len > 0 ? *(const unsigned char *)data : 0;
    return 0;
}

static int see_block(int32_t *words, size_t n, void *arg)
{
    if (words != NULL && n > 0) *(int32_t *)arg += words[n - 1]++;
    return ++seen < 100 ? NETSHM_BLOCK_GO : NETSHM_BLOCK_BREAK;
}

static int change(netshm_update *u, const void *old, size_t old_len, void *arg)
{
    (void)arg;
    if (below(3) == 0) return NETSHM_REMOVE;
    if (old_len > 100) old_len = 100;
    return netshm_update_set(u, old, old_len) == NETSHM_OK ? NETSHM_REPLACE : NETSHM_KEEP;
}

static void use_table(session *s)
{
    static char buffer[30000], other[3000];
    netshm_hashtbl *t = s->t;
    netshm_slice keys[8], vals[8], *found;
    netshm_cursor *c = NULL;
    uint32_t key[8];
    uint64_t n = 0, stamp = 0;
    int64_t now = 0;
    size_t len = 0, i, many = 1 + below(8), value = below(16) == 0 ? below(sizeof buffer) : below(300);
    unsigned first = 0;
    void *got;
    int there = 0;
    if (t == NULL) return;
    for (i = 0; i < 8; i++) {
        key[i] = below(260);
        keys[i].data = &key[i], keys[i].len = 4;
        vals[i].data = other, vals[i].len = below(sizeof other);
    }
    seen = 0;
    switch (below(22)) {
    case 0: case 1: CALL(netshm_hashtbl_find(t, key, 4, buffer, value, &len), FIND); break;
    case 2:
        if (CALL(netshm_hashtbl_get(t, key, 4, &got, &len), FIND | C(NO_MEMORY)) == NETSHM_OK) netshm_free(got);
        break;
    case 3:
        if (CALL(netshm_hashtbl_find_all(t, key, 4, &found, &len), FIND | C(NO_MEMORY)) == NETSHM_OK) netshm_free(found);
        break;
    case 4: CALL(netshm_hashtbl_mem(t, key, 4, &there), FIND); break;
    case 5: CALL(netshm_hashtbl_length(t, &n), FIND); break;
    case 6: CALL(netshm_hashtbl_view(t, key, 4, see_bytes, &first, &there), FIND); break;
    case 7:
        if (CALL(netshm_hashtbl_find_many(t, keys, many, &found), FIND | C(NO_MEMORY)) == NETSHM_OK) netshm_free(found);
        break;
    case 8: case 9: CALL(netshm_hashtbl_add(t, key, 4, buffer, value), ADD); break;
    case 10: case 11: CALL(netshm_hashtbl_replace(t, key, 4, buffer, value), ADD); break;
    case 12: CALL(netshm_hashtbl_remove(t, key, 4, &there), ADD); break;
    case 13: CALL(netshm_hashtbl_incr(t, key, 4, 1, 0, &now), ADD | C(OVERFLOW) | C(TYPE)); break;
    case 14: CALL(netshm_hashtbl_cas(t, key, 4, other, 3, buffer, value), ADD | C(CHANGED) | C(NOT_FOUND)); break;
    case 15: CALL(netshm_hashtbl_update(t, key, 4, change, NULL), ADD); break;
    case 16: CALL(netshm_hashtbl_replace_many(t, keys, vals, many, &len), ADD); break;
    case 17: CALL(netshm_hashtbl_iter(t, see, NULL), FIND); break;
    case 18:
        if (CALL(netshm_cursor_open(t, below(2) ? NETSHM_CURSOR_KEYS : 0, &c), 0) != NETSHM_OK) break;
        while (seen++ < 50 && CALL(netshm_cursor_next(c, &keys[0], &vals[0]), FIND) == NETSHM_OK) {}
        CALL(netshm_cursor_close(c), 0);
        break;
    case 19:
        if (CALL(netshm_hashtbl_stamp(t, key, 4, &stamp), FIND) == NETSHM_OK)
            CALL(netshm_hashtbl_wait(t, key, 4, &stamp, 1000000), WAIT);
        break;
    case 20:
        if (CALL(netshm_table_dump(netshm_hashtbl_table(t), (char **)&got), DUMP) == NETSHM_OK) netshm_free(got);
        break;
    default: CALL(netshm_hashtbl_add(t, "a longer key", 12, buffer, value), ADD); break;
    }
}

static void use_array(session *s)
{
    static int64_t elements[3000];
    uint64_t n = 0;
    int64_t now = 0;
    unsigned at = below(2100), many = below(3000);
    seen = 0;
    if (s->a == NULL) return;
    switch (below(8)) {
    case 0: CALL(netshm_array_length(s->a, &n), LENGTH); break;
    case 1: CALL(netshm_array_get_int64(s->a, at, &now), GET); break;
    case 2: CALL(netshm_array_set_int64(s->a, at, 5), SET); break;
    case 3: CALL(netshm_array_incr(s->a, at, 1, &now), SET); break;
    case 4: CALL(netshm_array_read(s->a, at, many, elements, 8), GET); break;
    case 5: CALL(netshm_array_write(s->a, at, many, elements, 8), GET | SET); break;
    case 6: CALL(netshm_array_iter(s->a, see_element, NULL), GET); break;
    default: CALL(netshm_array_resize(s->a, 1000 + below(2000)), SET); break;
    }
}

static void use_words(session *s)
{
    int32_t words[64] = {1, 2, 3}, sum = 0;
    netshm_words *all;
    uint64_t count = 0;
    size_t n = 0;
    int key = (int)below(40);
    seen = 0;
    if (s->w == NULL) return;
    switch (below(6)) {
    case 0: CALL(netshm_table_find(s->w, key, words, below(64), &n), FIND | C(KIND)); break;
    case 1:
        if (CALL(netshm_table_find_all(s->w, key, &all, &n), FIND | C(NO_MEMORY) | C(KIND)) == NETSHM_OK) netshm_free(all);
        break;
    case 2: CALL(netshm_table_add(s->w, key, words, below(64)), ADD | C(KIND)); break;
    case 3: CALL(netshm_table_length(s->w, &count), FIND | C(KIND)); break;
    case 4: CALL(netshm_table_write_blocks(s->w, 0, key, see_block, &sum), ADD | C(KIND)); break;
    default: CALL(netshm_table_read_blocks(s->w, key, see_block, &sum), FIND | C(KIND)); break;
    }
}

static void end_group(session *s, int commit)
{
    if (commit) CALL(netshm_group_commit(s->group), COMMIT);
    else CALL(netshm_group_abort(s->group), COMMIT & ~C(NO_SPACE));
    s->group = NULL;
}

static void use_group(session *s)
{
    if (s->t == NULL) return;
    if (s->group == NULL) CALL(netshm_group_begin(netshm_hashtbl_table(s->t), &s->group), BEGIN);
    else if (below(4) == 0) CALL(netshm_group_restart(s->group), RESTART);
    else end_group(s, below(3) != 0);
}

static void use_object(session *s)
{
    netshm_salvaged report;
    netshm_root_info *roots = NULL;
    size_t n = 0;
    uint64_t stopped = 0;
    report.size = sizeof report;
    seen = 0;
    switch (below(6)) {
    case 0: CALL(netshm_check(s->o, 0, see_damage, NULL), CHECK); break;
    case 3:
        if (CALL(netshm_roots(s->o, &roots, &n), ROOTS) == NETSHM_OK) netshm_free(roots);
        break;
    case 4: CALL(netshm_root_drop(s->o, below(3) ? "nothing" : "words"), DROP); break;
    case 1: CALL(netshm_sync(s->o, TIMEOUT_MS), SYNC); break;
    case 2:
        CALL(netshm_backup(s->o, NETSHM_FILE, s->copy.path, NULL, 0600, NETSHM_REPLACE, TIMEOUT_MS, &stopped), BACKUP);
        break;
    default:
        CALL(netshm_salvage(NETSHM_FILE, p->path, NULL, NETSHM_FILE, s->copy.path, NULL, 0600, NETSHM_REPLACE, &report),
            SALVAGE);
        break;
    }
}

static netshm_options of_root(const char *root)
{
    netshm_options o = NETSHM_OPTIONS_INIT;
    o.lock_timeout_ms = TIMEOUT_MS;
    o.root = root;
    return o;
}

static void work(session *s)
{
    netshm_options o = of_root(NULL), numbers = of_root("numbers"), words = of_root("words");
    int read_only = below(5) == 0, steps = 20 + (int)below(200);
    s->o = NULL, s->t = NULL, s->a = NULL, s->w = NULL, s->group = NULL;
    if (CALL(netshm_open(NETSHM_FILE, p->path, NULL, read_only ? NETSHM_RDONLY : NETSHM_RDWR, 0, &s->o), OPEN) != NETSHM_OK) {
        add(&shared->refused, 1);
        return;
    }
    add(&shared->opened, 1);
    CALL(netshm_hashtbl_manage(s->o, NULL, NULL, &o, &s->t), MANAGE);
    CALL(netshm_array_manage_int64(s->o, -7, 2000, &numbers, &s->a), MANAGE | C(TOO_LARGE));
    CALL(netshm_table_manage(s->o, &words, &s->w), MANAGE);
    while (steps-- > 0 && !ended()) {
        unsigned kind = below(40);
        if (kind < 20) use_table(s);
        else if (kind < 28) use_array(s);
        else if (kind < 34) use_words(s);
        else if (kind < 39) use_group(s);
        else use_object(s);
    }
    if (s->group != NULL) end_group(s, 0);
    CALL(netshm_hashtbl_close(s->t), 0);
    CALL(netshm_array_close(s->a), 0);
    CALL(netshm_table_close(s->w), 0);
    CALL(netshm_close(s->o), 0);
}

static int worker(void *arg)
{
    session s;
    s.copy = *(place *)arg;
    while (!ended()) work(&s);
    alarm(0);
    return 0;
}

/* ---- The enemy */

/* A place where there is something, or one of those on which everybody depends: headers, allocator, slots. */
static size_t somewhere(void)
{
    size_t at, tries = 0;
    if (below(3) == 0) return (below(40) * PAGE + 8 * below(64)) % right_len;
    do at = any() % (right_len / 8) * 8;
    while (right[at] == 0 && right[at + 1] == 0 && tries++ < 2000);
    return at;
}

static int enemy(void *arg)
{
    int fd = open(p->path, O_RDWR);
    unsigned char *at = (unsigned char *)mmap(NULL, right_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)arg;
    if (fd < 0 || at == MAP_FAILED) return 1;
    while (!ended()) {
        long until = get(&shared->done) + (long)below(300);
        int changes = (int)below(40);
        memcpy(at, right, right_len);
        while (get(&shared->done) < until && !ended()) sched_yield();
        while (changes-- > 0 && !ended()) {
            size_t place = somewhere();
            uint64_t *word = (uint64_t *)(void *)(at + place), *other = (uint64_t *)(void *)(at + somewhere()), one = *word, two;
            unsigned flips = below(20000);
            switch (below(10)) {
            case 0: at[any() % right_len] = (unsigned char)any(); break;
            case 1: *word = any(); break;
            case 2: *word ^= 1ull << below(64); break;
            case 3: *word += below(65536); break;
            case 4: *word = *other; break;
            case 5: *word = any() >> below(64); break;
            case 6: memset(at + place / PAGE * PAGE, below(2) ? 0 : (int)below(256), PAGE); break;
            case 7: memcpy(at + place / PAGE * PAGE, at + somewhere() / PAGE * PAGE, PAGE); break;
            default:
                /* Now the one, now the other. */
                two = below(2) ? *other : one ^ 1ull << below(64);
                while (flips-- > 0) {
                    __atomic_store_n(word, two, __ATOMIC_RELAXED);
                    __atomic_store_n(word, one, __ATOMIC_RELAXED);
                }
                break;
            }
            add(&shared->changed, 1);
            sched_yield();
        }
    }
    return 0;
}

/* ---- All together */

static void fill(void)
{
    netshm_options numbers = of_root("numbers"), words = of_root("words");
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    netshm_array *a = NULL;
    netshm_table *w = NULL;
    int32_t some[40] = {5, 6, 7};
    uint32_t i;
    int fd, wrong = 0;
    struct stat st;
    good(netshm_open(NETSHM_FILE, p->path, NULL, CREATE, 0600, &o));
    good(settle_locking(o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(netshm_array_manage_int64(o, -7, 2000, &numbers, &a));
    good(netshm_table_manage(o, &words, &w));
    for (i = 0; i < 200; i++) wrong += netshm_hashtbl_add(t, &i, 4, "some value", i % 11) != NETSHM_OK;
    for (i = 0; i < 20; i++) {
        wrong += netshm_array_set_int64(a, i * 90, (int64_t)i) != NETSHM_OK;
        wrong += netshm_table_add(w, (int32_t)i, some, i) != NETSHM_OK;
    }
    is(wrong, 0);
    netshm_hashtbl_close(t), netshm_array_close(a), netshm_table_close(w);
    good(netshm_check(o, 0, NULL, NULL));
    good(netshm_close(o));
    fd = open(p->path, O_RDONLY);
    ok(fd >= 0 && fstat(fd, &st) == 0);
    right_len = (size_t)st.st_size;
    right = (unsigned char *)malloc(right_len);
    ok(right != NULL && read(fd, right, right_len) == (ssize_t)right_len);
    close(fd);
}

static long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? atol(text) : otherwise;
}

static pid_t start(int (*body)(void *), void *arg)
{
    pid_t pid;
    state = any();
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(body(arg));
    }
    return pid;
}

int main(void)
{
    long rounds = setting("NETSHM_ROUNDS", getenv("NETSHM_LONG") != NULL ? 10000000 : 40000), told = 0;
    place *copies[WORKERS];
    pid_t pids[WORKERS + 1];
    int i, status = 0, running = WORKERS + 1, died = 0;
    struct stat st;
    state = (uint64_t)setting("NETSHM_SEED", (long)time(NULL));
    note("NETSHM_SEED=%lld", (long long)state);
    shared = (common *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ok(shared != MAP_FAILED);
    p = place_new();
    fill();
    for (i = 0; i < WORKERS; i++) {
        copies[i] = place_new();
        pids[i] = start(worker, copies[i]);
    }
    pids[WORKERS] = start(enemy, NULL);
    while (running > 0) {
        if (get(&shared->done) >= rounds || shared->wrong > 20 || died > 0) shared->end = 1;
        usleep(5000);
        if (stat(p->path, &st) != 0 || st.st_blocks * 512 > MOST_BYTES) died++;
        if (get(&shared->done) / 500000 > told) note("%ld of %ld calls", get(&shared->done), rounds), told++;
        for (i = 0; i <= WORKERS; i++) {
            if (pids[i] <= 0 || waitpid(pids[i], &status, WNOHANG) <= 0) continue;
            pids[i] = 0, running--;
            if (status != 0 || !ended()) died++, note("process %d has ended: %#x (0xe: a call without end)", i, status);
        }
    }
    is(died, 0);
    is(shared->wrong, 0);
    ok(shared->opened > 0 && shared->changed > 0 && shared->corrupt > 0);
    note("%ld calls, opened %ld times, refused %ld times; corrupt %ld times, timed out %ld times; slowest call %ld ms (%s...); %ld changes",
        shared->done, shared->opened, shared->refused, shared->corrupt, shared->timeouts, shared->slowest_us / 1000,
        shared->slowest_call, shared->changed);
    free(right);
    return done();
}
