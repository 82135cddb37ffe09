/* Goal: a process that has asked for the guard outlives that another one shortens the file of an object under it: calls say
 * NETSHM_E_CORRUPT from then on; faults that concern no object end as they did before. Method: children that use objects
 * while the file is cut, to nothing and in the middle, from reading and writing handles, threads, groups and
 * iterators; handlers of their own. */
#include "support.h"
#include <setjmp.h>

enum { KEYS = 2000 };

static netshm_hashtbl *table_of(netshm_object *o, int timeout_ms)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_hashtbl *t = NULL;
    options.lock_timeout_ms = timeout_ms;
    return netshm_hashtbl_manage(o, NULL, NULL, &options, &t) == NETSHM_OK ? t : NULL;
}

static int use_file(const char *path, uint32_t flags, netshm_object **o, netshm_hashtbl **t)
{
    int code = netshm_open(NETSHM_FILE, path, NULL, flags, 0600, o);
    if (code == NETSHM_OK && (*t = table_of(*o, 1000)) == NULL) code = NETSHM_E_CORRUPT;
    return code;
}

static int count_one(netshm_slice key, netshm_slice val, void *a)
{
    (void)key, (void)val;
    (*(int *)a)++;
    return 0;
}

static void fill(netshm_hashtbl *t)
{
    char value[100];
    int i;
    memset(value, 'v', sizeof value);
    for (i = 0; i < KEYS; i++)
        if (netshm_hashtbl_replace(t, &i, sizeof i, value, sizeof value) != NETSHM_OK) _exit(90);
}

static off_t cut_to;

/* Touches everything; 0: all calls after the first one that failed said CORRUPT. The first ones may have any outcome. Where
 * the first pages are still there, calls go on that touch none of those that are gone: enough that all return. */
static int use_all(netshm_object *o, netshm_hashtbl *t, int writes)
{
    char buffer[200];
    size_t len;
    int i, n = 0, code = NETSHM_OK, found;
    uint64_t length;
    if (cut_to > 4096) {
        for (i = 0; i < KEYS && code == NETSHM_OK; i++) {
            code = netshm_hashtbl_find(t, &i, sizeof i, buffer, sizeof buffer, &len);
            if (code == NETSHM_OK && writes) code = netshm_hashtbl_replace(t, &i, sizeof i, "new value", 9);
        }
        (void)netshm_hashtbl_length(t, &length);
        (void)netshm_hashtbl_iter(t, count_one, &n);
        return 0;
    }
    for (i = 0; i < KEYS; i++) {
        code = netshm_hashtbl_find(t, &i, sizeof i, buffer, sizeof buffer, &len);
        if (code == NETSHM_E_CORRUPT) break;
    }
    if (code != NETSHM_E_CORRUPT && writes)
        for (i = 0; i < KEYS && code != NETSHM_E_CORRUPT; i++) code = netshm_hashtbl_replace(t, &i, sizeof i, "new value", 9);
    if (code != NETSHM_E_CORRUPT) return 1;
    i = 7;
    if (netshm_hashtbl_find(t, &i, sizeof i, buffer, sizeof buffer, &len) != NETSHM_E_CORRUPT) return 2;
    if (netshm_hashtbl_mem(t, &i, sizeof i, &found) != NETSHM_E_CORRUPT) return 3;
    if (netshm_hashtbl_length(t, &length) != NETSHM_E_CORRUPT) return 4;
    if (netshm_hashtbl_iter(t, count_one, &n) != NETSHM_E_CORRUPT) return 5;
    if (netshm_check(o, 0, NULL, NULL) != NETSHM_E_CORRUPT) return 6;
    if (!writes) return 0;
    if (netshm_hashtbl_add(t, &i, sizeof i, "v", 1) != NETSHM_E_CORRUPT) return 7;
    if (netshm_hashtbl_replace(t, &i, sizeof i, "v", 1) != NETSHM_E_CORRUPT) return 8;
    if (netshm_hashtbl_remove(t, &i, sizeof i, NULL) != NETSHM_E_CORRUPT) return 9;
    /* What a group had locked when it was cut stays locked. */
    code = netshm_sync(o, 100);
    if (code == NETSHM_OK) return 10;
    return 0;
}

static int (*body_of_child)(const char *);

static int watched(void *path)
{
    alarm(60);
    return body_of_child((const char *)path);
}

static int child(int (*body)(const char *), char *path)
{
    body_of_child = body;
    return in_child(watched, path);
}

static uint32_t access_flags;
static int guarded;

static int cut_beneath(const char *path)
{
    netshm_object *o = NULL, *again = NULL;
    netshm_hashtbl *t = NULL, *u = NULL;
    char buffer[200];
    size_t len;
    int code, key = 5;
    if (use_file(path, access_flags, &o, &t) != NETSHM_OK) return 91;
    if (guarded && (netshm_guard_sigbus() != NETSHM_OK || netshm_guard_sigbus() != NETSHM_OK)) return 92;
    if (netshm_hashtbl_find(t, &key, sizeof key, buffer, sizeof buffer, &len) != NETSHM_OK) return 93;
    if (truncate(path, cut_to) != 0) return 94;
    code = use_all(o, t, access_flags == RW);
    if (code != 0) return code;
    if (netshm_hashtbl_close(t) != NETSHM_OK || netshm_close(o) != NETSHM_OK) return 95;
    /* Another object at the same place is another one. */
    if (truncate(path, 0) != 0 || use_file(path, CREATE, &again, &u) != NETSHM_OK) return 96;
    fill(u);
    if (netshm_check(again, 0, NULL, NULL) != NETSHM_OK) return 97;
    return netshm_hashtbl_close(u) == NETSHM_OK && netshm_close(again) == NETSHM_OK ? 0 : 98;
}

/* The old handle is there while the new one is made. */
static int made_again_beside(const char *path)
{
    netshm_object *o = NULL, *again = NULL;
    netshm_hashtbl *t = NULL, *u = NULL;
    char buffer[200];
    size_t len;
    int key = 5;
    if (netshm_guard_sigbus() != NETSHM_OK || use_file(path, RW, &o, &t) != NETSHM_OK) return 91;
    if (truncate(path, 0) != 0 || use_all(o, t, 1) != 0) return 92;
    if (use_file(path, CREATE, &again, &u) != NETSHM_OK) return 93;
    fill(u);
    if (netshm_hashtbl_find(u, &key, sizeof key, buffer, sizeof buffer, &len) != NETSHM_OK) return 94;
    if (netshm_hashtbl_find(t, &key, sizeof key, buffer, sizeof buffer, &len) != NETSHM_E_CORRUPT) return 95;
    if (netshm_hashtbl_close(t) != NETSHM_OK || netshm_close(o) != NETSHM_OK) return 96;
    if (netshm_check(again, 0, NULL, NULL) != NETSHM_OK) return 97;
    return 0;
}

/* The old handle only reads between the cut and its end: what it has locked and claimed is the new object's by then. */
static int closed_beside_a_new_one(const char *path)
{
    netshm_object *o = NULL, *again = NULL;
    netshm_hashtbl *t = NULL, *u = NULL;
    netshm_txn *group;
    char buffer[200];
    size_t len;
    uint64_t before = 0, after = 0;
    int fd, key = 5;
    const off_t first_slot = 32768; /* docs/design.md: its first word says whose it is */
    if (netshm_guard_sigbus() != NETSHM_OK || use_file(path, RW, &o, &t) != NETSHM_OK) return 91;
    if (netshm_hashtbl_replace(t, &key, sizeof key, "mine", 4) != NETSHM_OK || truncate(path, 0) != 0) return 92;
    if (netshm_hashtbl_find(t, &key, sizeof key, buffer, sizeof buffer, &len) != NETSHM_E_CORRUPT) return 93;
    if (use_file(path, CREATE, &again, &u) != NETSHM_OK) return 94;
    if (netshm_group_begin(netshm_hashtbl_table(u), &group) != NETSHM_OK) return 95;
    if (netshm_hashtbl_replace(u, &key, sizeof key, "new", 3) != NETSHM_OK) return 96;
    fd = open(path, O_RDONLY);
    if (fd < 0 || pread(fd, &before, 8, first_slot) != 8 || before == 0) return 97;
    if (netshm_hashtbl_close(t) != NETSHM_OK || netshm_close(o) != NETSHM_OK) return 98;
    if (pread(fd, &after, 8, first_slot) != 8 || after != before) return 99;
    close(fd);
    if (netshm_group_commit(group) != NETSHM_OK) return 90;
    return netshm_check(again, 0, NULL, NULL) == NETSHM_OK ? 0 : 89;
}

static int in_a_group(const char *path)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    netshm_txn *x = NULL;
    int key;
    if (netshm_guard_sigbus() != NETSHM_OK || use_file(path, RW, &o, &t) != NETSHM_OK) return 91;
    if (netshm_group_begin(netshm_hashtbl_table(t), &x) != NETSHM_OK) return 92;
    for (key = 0; key < 20; key++)
        if (netshm_hashtbl_replace(t, &key, sizeof key, "grouped", 7) != NETSHM_OK) return 93;
    if (truncate(path, 0) != 0) return 94;
    for (key = 10; key < 30; key++) (void)netshm_hashtbl_replace(t, &key, sizeof key, "cut", 3);
    (void)netshm_group_commit(x);
    key = use_all(o, t, 1);
    if (key != 0) return key;
    return netshm_hashtbl_close(t) == NETSHM_OK && netshm_close(o) == NETSHM_OK ? 0 : 96;
}

static void *use_until_cut(void *a)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    char buffer[200];
    size_t len;
    int key = 0, code = use_file((const char *)a, RW, &o, &t);
    while (code != NETSHM_E_CORRUPT) {
        key = (key + 1) % KEYS;
        code = key % 4 == 0 ? netshm_hashtbl_replace(t, &key, sizeof key, "threaded", 8)
                            : netshm_hashtbl_find(t, &key, sizeof key, buffer, sizeof buffer, &len);
    }
    (void)netshm_hashtbl_close(t);
    (void)netshm_close(o);
    return NULL;
}

static int with_threads(const char *path)
{
    pthread_t threads[3];
    int i;
    if (netshm_guard_sigbus() != NETSHM_OK) return 91;
    for (i = 0; i < 3; i++)
        if (pthread_create(&threads[i], NULL, use_until_cut, (void *)(uintptr_t)path) != 0) return 92;
    usleep(20000);
    if (truncate(path, cut_to) != 0) return 93;
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    return 0;
}

/* A mapping that is no object's. */
static volatile char *foreign(void)
{
    const char *path = "/dev/shm/netshm-ct-foreign";
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    volatile char *at;
    unlink(path);
    if (fd < 0 || ftruncate(fd, 4096) != 0) _exit(80);
    at = (volatile char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == (volatile char *)MAP_FAILED || ftruncate(fd, 0) != 0) _exit(81);
    return at;
}

static sigjmp_buf back;
static volatile int seen;

static void leave_by_jump(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    seen++;
    siglongjmp(back, 1);
}

static void note_signal(int signal)
{
    (void)signal;
    seen++;
}

static int passed_on_to_a_handler(const char *path)
{
    struct sigaction action;
    volatile char *at = foreign();
    memset(&action, 0, sizeof action);
    action.sa_sigaction = leave_by_jump;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGBUS, &action, NULL) != 0 || netshm_guard_sigbus() != NETSHM_OK) return 91;
    if (sigsetjmp(back, 1) == 0) {
        *at = 1;
        return 92;
    }
    if (seen != 1) return 93;
    return cut_beneath(path) == 0 && seen == 1 ? 0 : 94;
}

static int sent_to_a_handler(const char *path)
{
    (void)path;
    signal(SIGBUS, note_signal);
    if (netshm_guard_sigbus() != NETSHM_OK) return 91;
    kill(getpid(), SIGBUS);
    raise(SIGBUS);
    if (seen != 2) return 92;
    /* One that was installed later, and this one before it. */
    signal(SIGBUS, SIG_IGN);
    if (netshm_guard_sigbus() != NETSHM_OK) return 93;
    kill(getpid(), SIGBUS);
    return seen == 2 ? 0 : 94;
}

static struct sigaction replaced;

static void hand_back(int signal, siginfo_t *info, void *context)
{
    seen++;
    replaced.sa_sigaction(signal, info, context);
}

/* A handler that was installed later passes on what is not its own, and the guard is asked for once more. */
static int handed_back(const char *path)
{
    struct sigaction action;
    (void)path;
    if (netshm_guard_sigbus() != NETSHM_OK) return 91;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = hand_back;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGBUS, &action, &replaced) != 0 || netshm_guard_sigbus() != NETSHM_OK) return 92;
    *foreign() = 1;
    return 93;
}

static int fault_elsewhere(const char *path)
{
    (void)path;
    if (netshm_guard_sigbus() != NETSHM_OK) return 91;
    *foreign() = 1;
    return 92;
}

static int sent_without_handler(const char *path)
{
    (void)path;
    if (netshm_guard_sigbus() != NETSHM_OK) return 91;
    kill(getpid(), SIGBUS);
    return 92;
}

int main(void)
{
    /* Nothing; the end of the header; the fixed pages; the middle. */
    static const off_t cuts[] = { 0, 4096, 32 * 4096, 60 * 4096, 100 * 4096 };
    place *p = place_new();
    netshm_object *o;
    netshm_hashtbl *t;
    size_t i;
    int run;
    for (run = 0; run < 2; run++)
        for (i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            unlink(p->path);
            good(use_file(p->path, CREATE, &o, &t));
            fill(t);
            good(netshm_hashtbl_close(t));
            good(netshm_close(o));
            cut_to = cuts[i];
            access_flags = run == 0 ? RW : NETSHM_RDONLY;
            guarded = 1;
            note("cut to %ld pages", (long)(cut_to / 4096));
            is(child(cut_beneath, p->path), 0);
        }
    for (run = 0; run < 8; run++) {
        static int (*const bodies[])(const char *) = { cut_beneath, in_a_group, made_again_beside, with_threads, with_threads,
                                                       passed_on_to_a_handler, cut_beneath, closed_beside_a_new_one };
        unlink(p->path);
        good(use_file(p->path, CREATE, &o, &t));
        fill(t);
        good(netshm_hashtbl_close(t));
        good(netshm_close(o));
        cut_to = run == 4 ? 60 * 4096 : 0;
        access_flags = RW;
        /* The first one has no guard: that is what it is for. */
        guarded = run != 0;
        is(child(bodies[run], p->path), run == 0 ? 1000 + SIGBUS : 0);
    }
    is(child(sent_to_a_handler, p->path), 0);
    is(child(fault_elsewhere, p->path), 1000 + SIGBUS);
    is(child(handed_back, p->path), 1000 + SIGBUS);
    is(child(sent_without_handler, p->path), 1000 + SIGBUS);
    return done();
}
