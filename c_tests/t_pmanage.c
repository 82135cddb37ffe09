/* Goal: lists of persistent objects say what was registered, delete it, and refuse what is wrong without a change.
 * Method: files, shared memory and semaphores that are there or not; lists of ours and of others' making; ten
 * processes that register at once. */
#include <semaphore.h>
#include <time.h>
#include "support.h"

#define null(call, n) (is(call, NETSHM_E_INVALID), is(last().argument, n), ok(strstr(last_text(), "NULL") != NULL))
#define PROCESSES 10
#define EACH 50

static int holds(const char *path, const char *content)
{
    char buffer[4096];
    FILE *f = fopen(path, "r");
    size_t n;
    if (!f) return 0;
    n = fread(buffer, 1, sizeof buffer - 1, f);
    fclose(f);
    buffer[n] = 0;
    if (strcmp(buffer, content) != 0) note("the file holds: %s", buffer);
    return strcmp(buffer, content) == 0;
}

static void write_file(const char *path, const char *content)
{
    FILE *f = fopen(path, "w");
    ok(f != NULL && fputs(content, f) >= 0 && fclose(f) == 0);
}

static int exists(const char *path) { return access(path, F_OK) == 0; }

static int listed(netshm_pmanage *p, const int *kinds, const char *const *paths, size_t n)
{
    int *found_kinds = NULL, same;
    char **found_paths = NULL;
    size_t i, found = 99;
    if (netshm_pmanage_list(p, &found_kinds, &found_paths, &found) != NETSHM_OK) return 0;
    same = found == n && (n > 0 || (!found_kinds && !found_paths));
    for (i = 0; same && i < n; i++) same = found_kinds[i] == kinds[i] && strcmp(found_paths[i], paths[i]) == 0;
    netshm_free(found_kinds);
    netshm_free(found_paths);
    return same;
}

static void registering(const char *file)
{
    static const int kinds[] = {NETSHM_PM_FILE, NETSHM_PM_FILE, NETSHM_PM_POSIX_SHM, NETSHM_PM_POSIX_SEM, NETSHM_PM_SEM_CONT};
    static const char *const paths[] = {"/a \"\\\n\t\r\b\x01\x7f\xff'", "/b", "/b", "/b", "/b"};
    netshm_pmanage *p = NULL;
    good(netshm_pmanage_open(file, &p));
    ok(!exists(file));
    ok(listed(p, NULL, NULL, 0));
    good(netshm_pmanage_unlink(p));
    good(netshm_pmanage_unregister(p, NETSHM_PM_FILE, "/none"));
    good(netshm_pmanage_register_many(p, kinds, paths, 5));
    ok(listed(p, kinds, paths, 5));
    ok(holds(file, "R FILE \"/a \\\"\\\\\\n\\t\\r\\b\\001\\127\\255'\"\nR FILE \"/b\"\nR POSIX_SHM \"/b\"\n"
        "R POSIX_SEM \"/b\"\nR SEM_CONT \"/b\"\n"));
    good(netshm_pmanage_unregister(p, NETSHM_PM_SEM_CONT, "/b"));
    good(netshm_pmanage_unregister(p, NETSHM_PM_FILE, paths[0]));
    ok(listed(p, kinds + 1, paths + 1, 3));
    good(netshm_pmanage_register(p, NETSHM_PM_FILE, paths[0]));
    ok(listed(p, kinds, paths, 4));
    good(netshm_pmanage_register_many(p, NULL, NULL, 0));
    good(netshm_pmanage_close(p));
    unlink(file);
}

static void refusing(const char *file)
{
    static const int kinds[] = {NETSHM_PM_FILE, NETSHM_PM_FILE}, unknown[] = {NETSHM_PM_FILE, 5};
    static const char *const relative[] = {"/good", "bad"}, *const missing[] = {"/good", NULL};
    const char *garbage = "R FILE \"/a\"\nR FILE \"/b\"\nI am no event\nR FILE \"/c\"\n";
    netshm_pmanage *p = NULL, *memory = NULL;
    int *k = NULL;
    char **s = NULL;
    size_t n = 7;
    null(netshm_pmanage_open(file, NULL), 2);
    is(netshm_pmanage_open("relative", &p), NETSHM_E_INVALID);
    ok(strstr(last_text(), "absolute") != NULL);
    is(last().argument, 1);
    good(netshm_pmanage_open(file, &p));
    good(netshm_pmanage_open(NULL, &memory));
    null(netshm_pmanage_register(NULL, 1, "/a"), 1);
    null(netshm_pmanage_register(p, 1, NULL), 3);
    is(netshm_pmanage_register(p, 0, "/a"), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_pmanage_register(p, 1, "a"), NETSHM_E_INVALID);
    is(last().argument, 3);
    is(netshm_pmanage_register(memory, 1, ""), NETSHM_E_INVALID);
    null(netshm_pmanage_unregister(NULL, 1, "/a"), 1);
    null(netshm_pmanage_unregister(p, 1, NULL), 3);
    is(netshm_pmanage_unregister(p, 1, "a"), NETSHM_E_INVALID);
    null(netshm_pmanage_register_many(NULL, kinds, relative, 2), 1);
    null(netshm_pmanage_register_many(p, NULL, relative, 2), 2);
    null(netshm_pmanage_register_many(p, kinds, NULL, 2), 3);
    null(netshm_pmanage_register_many(p, kinds, missing, 2), 3);
    is(netshm_pmanage_register_many(p, kinds, relative, 2), NETSHM_E_INVALID);
    is(last().argument, 3);
    is(netshm_pmanage_register_many(p, unknown, relative, 2), NETSHM_E_INVALID);
    is(last().argument, 2);
    null(netshm_pmanage_list(NULL, &k, &s, &n), 1);
    null(netshm_pmanage_list(p, NULL, &s, &n), 2);
    null(netshm_pmanage_list(p, &k, NULL, &n), 3);
    null(netshm_pmanage_list(p, &k, &s, NULL), 4);
    null(netshm_pmanage_unlink(NULL), 1);
    null(netshm_pmanage_unlink_this(1, NULL), 2);
    is(netshm_pmanage_unlink_this(9, "/a"), NETSHM_E_INVALID);
    is(netshm_pmanage_unlink_this(1, "a"), NETSHM_E_INVALID);
    is(last().argument, 2);
    ok(!exists(file));
    ok(listed(memory, NULL, NULL, 0));
    write_file(file, garbage);
    is(netshm_pmanage_list(p, &k, &s, &n), NETSHM_E_CORRUPT);
    ok(k == NULL && s == NULL && n == 7);
    ok(strstr(last_text(), "line 3") != NULL);
    is(last().offset, 24);
    is(netshm_pmanage_register(p, NETSHM_PM_FILE, "/new"), NETSHM_E_CORRUPT);
    is(netshm_pmanage_unregister(p, NETSHM_PM_FILE, "/a"), NETSHM_E_CORRUPT);
    is(netshm_pmanage_unlink(p), NETSHM_E_CORRUPT);
    ok(holds(file, garbage));
    write_file(file, "R FILE \"/nul\\000\"\n");
    is(netshm_pmanage_list(p, &k, &s, &n), NETSHM_E_UNSUPPORTED);
    good(netshm_pmanage_unlink(p));
    ok(holds(file, ""));
    is(netshm_close((netshm_object *)p), NETSHM_E_INVALID);
    good(netshm_pmanage_close(p));
    is(netshm_pmanage_close(p), NETSHM_E_CLOSED);
    is(netshm_pmanage_unlink(p), NETSHM_E_CLOSED);
    good(netshm_pmanage_close(memory));
    good(netshm_pmanage_close(NULL));
    unlink(file);
    ok(mkdir(file, 0700) == 0);
    good(netshm_pmanage_open(file, &p));
    is(netshm_pmanage_register(p, NETSHM_PM_FILE, "/a"), NETSHM_E_INVALID);
    good(netshm_pmanage_close(p));
    rmdir(file);
    ok(symlink("/tmp/netshm-ct-nowhere", file) == 0);
    good(netshm_pmanage_open(file, &p));
    is(netshm_pmanage_register(p, NETSHM_PM_FILE, "/a"), NETSHM_E_INVALID);
    good(netshm_pmanage_close(p));
    unlink(file);
}

/* All four kinds, of objects that are there, and a file that is not. */
static void deleting(const char *file, const place *victim)
{
    static const char *const ends[] = {"", "_contsem", "_sem0", "_sem16383"};
    char name[96], sems[96];
    sem_t *sem;
    netshm_pmanage *p = NULL;
    int i, round;
    for (round = 0; round < 3; round++) {
        good(netshm_pmanage_open(round ? file : NULL, &p));
        write_file(victim->file, "anything");
        snprintf(sems, sizeof sems, "%s_sems", victim->mem);
        close(shm_open(victim->mem, O_CREAT | O_RDWR, 0600));
        close(shm_open(sems, O_CREAT | O_RDWR, 0600));
        for (i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "%s%s", victim->mem, ends[i]);
            sem = sem_open(name, O_CREAT, 0600, 0);
            ok(sem != SEM_FAILED && sem_close(sem) == 0);
        }
        if (round == 2) {
            good(netshm_pmanage_unlink_this(NETSHM_PM_FILE, victim->file));
            good(netshm_pmanage_unlink_this(NETSHM_PM_POSIX_SHM, victim->mem));
            good(netshm_pmanage_unlink_this(NETSHM_PM_POSIX_SEM, victim->mem));
            good(netshm_pmanage_unlink_this(NETSHM_PM_SEM_CONT, victim->mem));
        } else {
            good(netshm_pmanage_register(p, NETSHM_PM_FILE, "/tmp/netshm-ct-nowhere/file"));
            good(netshm_pmanage_register(p, NETSHM_PM_FILE, victim->file));
            good(netshm_pmanage_register(p, NETSHM_PM_POSIX_SHM, victim->mem));
            good(netshm_pmanage_register(p, NETSHM_PM_POSIX_SEM, victim->mem));
            good(netshm_pmanage_register(p, NETSHM_PM_SEM_CONT, victim->mem));
            ok(exists(victim->file) && exists(victim->path));
            good(netshm_pmanage_unlink(p));
            ok(listed(p, NULL, NULL, 0));
        }
        ok(!exists(victim->file) && !exists(victim->path));
        is(shm_open(sems, O_RDWR, 0), -1);
        for (i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "%s%s", victim->mem, ends[i]);
            ok(sem_open(name, 0) == SEM_FAILED);
        }
        good(netshm_pmanage_close(p));
    }
    unlink(file);
}

static int registers(void *arg)
{
    netshm_pmanage *p = NULL;
    char path[64];
    int i;
    if (netshm_pmanage_open((const char *)arg, &p) != NETSHM_OK) return 1;
    for (i = 0; i < EACH; i++) {
        snprintf(path, sizeof path, "/%d/%d", (int)getpid(), i);
        if (netshm_pmanage_register(p, NETSHM_PM_FILE, path) != NETSHM_OK) return 2;
        if (netshm_pmanage_register(p, NETSHM_PM_POSIX_SEM, path) != NETSHM_OK) return 3;
        if (netshm_pmanage_unregister(p, NETSHM_PM_POSIX_SEM, path) != NETSHM_OK) return 4;
    }
    return netshm_pmanage_close(p) == NETSHM_OK ? 0 : 5;
}

static void crowding(const char *file)
{
    netshm_pmanage *p = NULL;
    pid_t children[PROCESSES];
    int *kinds = NULL, status, i;
    char **paths = NULL;
    size_t n = 0;
    fflush(stdout);
    for (i = 0; i < PROCESSES; i++)
        if ((children[i] = fork()) == 0) _exit(registers((void *)(uintptr_t)file));
    for (i = 0; i < PROCESSES; i++) {
        waitpid(children[i], &status, 0);
        is(status, 0);
    }
    good(netshm_pmanage_open(file, &p));
    good(netshm_pmanage_list(p, &kinds, &paths, &n));
    is(n, PROCESSES * EACH);
    netshm_free(kinds);
    netshm_free(paths);
    good(netshm_pmanage_close(p));
    unlink(file);
}

/* While another process has the file locked by lockf, calls wait; and no call leaves the file locked. */
static void locking(const char *file)
{
    int ready[2], status, fd;
    char byte = 0;
    struct timespec nap = {0, 200 * 1000 * 1000}, before, after;
    netshm_pmanage *p = NULL;
    pid_t child;
    write_file(file, "R FILE \"/a\"\n");
    ok(pipe(ready) == 0);
    fflush(stdout);
    if ((child = fork()) == 0) {
        fd = open(file, O_RDWR);
        if (lockf(fd, F_LOCK, 0) != 0 || write(ready[1], &byte, 1) != 1) _exit(1);
        nanosleep(&nap, NULL);
        _exit(0);
    }
    ok(read(ready[0], &byte, 1) == 1);
    clock_gettime(CLOCK_MONOTONIC, &before);
    good(netshm_pmanage_open(file, &p));
    good(netshm_pmanage_register(p, NETSHM_PM_FILE, "/b"));
    clock_gettime(CLOCK_MONOTONIC, &after);
    ok((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 >= 100);
    waitpid(child, &status, 0);
    is(status, 0);
    ok(holds(file, "R FILE \"/a\"\nR FILE \"/b\"\n"));
    fd = open(file, O_RDWR);
    ok(lockf(fd, F_TEST, 0) == 0);
    close(fd);
    good(netshm_pmanage_close(p));
    close(ready[0]);
    close(ready[1]);
    unlink(file);
}

/* An object's management file is such a list, also while the object is in use. */
static void of_an_object(const place *owner)
{
    int kind = NETSHM_PM_POSIX_SHM;
    const char *path = owner->mem;
    netshm_pmanage *p = NULL;
    netshm_hashtbl *t = place_table(owner, NULL);
    good(put(t, "key", "value"));
    good(netshm_pmanage_open(owner->file, &p));
    ok(listed(p, &kind, &path, 1));
    good(netshm_pmanage_unlink(p));
    ok(!exists(owner->path) && holds(owner->file, ""));
    is(has(t, "key", "value"), 1);
    good(put(t, "key", "other"));
    good(netshm_hashtbl_close(t));
    good(netshm_pmanage_close(p));
}

int main(void)
{
    place *list = place_new(), *other = place_new();
    registering(list->file);
    refusing(list->file);
    deleting(list->file, other);
    crowding(list->file);
    locking(list->file);
    of_an_object(other);
    return done();
}
