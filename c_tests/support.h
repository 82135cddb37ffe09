/* What the tests share: names of their own, which are removed in the end; the file's bytes; children. */
#ifndef SUPPORT_H
#define SUPPORT_H
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tap.h"

#define RW (NETSHM_RDWR)
#define CREATE (NETSHM_RDWR | NETSHM_CREAT)

typedef struct place { char file[48], mem[48], path[64]; } place;

static place places[32];
static int place_count;
static pid_t place_owner;

static inline void places_remove(void)
{
    int i;
    if (getpid() != place_owner) return;
    for (i = 0; i < place_count; i++) {
        unlink(places[i].file);
        unlink(places[i].path);
    }
}

/* A new name. `path` is where the memory lies as a file. */
static inline place *place_new(void)
{
    place *p = &places[place_count];
    if (place_count == 0) {
        place_owner = getpid();
        atexit(places_remove);
    }
    snprintf(p->file, sizeof p->file, "/tmp/netshm-ct-%d-%d", (int)place_owner, place_count);
    snprintf(p->mem, sizeof p->mem, "/netshm-ct-%d-%d", (int)place_owner, place_count);
    snprintf(p->path, sizeof p->path, "/dev/shm/netshm-ct-%d-%d", (int)place_owner, place_count);
    place_count++;
    return p;
}

/* With NETSHM_LOCKING=record a new object gets this method, so that tests whose subject is another one run over both. */
static inline int settle_locking(netshm_object *o)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_hashtbl *t = NULL;
    const char *method = getenv("NETSHM_LOCKING");
    struct stat st;
    int code, fd = -1;
    if (method == NULL || netshm_fd(o, &fd) != NETSHM_OK || fstat(fd, &st) != 0 || st.st_size > 0) return NETSHM_OK;
    options.locking = strcmp(method, "record") == 0 ? NETSHM_LOCK_RECORD : 99;
    options.root = "settles the locking";
    code = netshm_hashtbl_manage(o, NULL, NULL, &options, &t);
    netshm_hashtbl_close(t);
    return code == NETSHM_OK ? netshm_root_drop(o, options.root) : code;
}

static inline int place_open(const place *p, uint32_t flags, netshm_object **out)
{
    int code = netshm_open(NETSHM_POSIX, p->file, p->mem, flags, 0600, out);
    return code == NETSHM_OK && (flags & NETSHM_CREAT) != 0 ? settle_locking(*out) : code;
}

/* Options with the locking method to test: the best one, or that of NETSHM_LOCKING. */
static inline netshm_options locking_options(void)
{
    netshm_options o = NETSHM_OPTIONS_INIT;
    const char *method = getenv("NETSHM_LOCKING");
    if (method != NULL) {
        o.locking = strcmp(method, "record") == 0 ? NETSHM_LOCK_RECORD : 99;
        note("locking method %s", method);
    }
    return o;
}

/* A table in the place; the object's handle is closed. */
static inline netshm_hashtbl *place_table(const place *p, const netshm_options *options)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    if (place_open(p, CREATE, &o) != NETSHM_OK || netshm_hashtbl_manage(o, NULL, NULL, options, &t) != NETSHM_OK)
        t = NULL;
    netshm_close(o);
    return t;
}

/* The object is without damage. */
static inline int place_check(const place *p)
{
    netshm_object *o = NULL;
    int code = place_open(p, RW, &o);
    if (code == NETSHM_OK) code = netshm_check(o, 0, NULL, NULL);
    netshm_close(o);
    return code;
}

static inline int put(netshm_hashtbl *t, const char *key, const char *value)
{
    return netshm_hashtbl_replace(t, key, strlen(key), value, strlen(value));
}

static inline int has(netshm_hashtbl *t, const char *key, const char *value)
{
    char buffer[256];
    size_t len = 0;
    int code = netshm_hashtbl_find(t, key, strlen(key), buffer, sizeof buffer, &len);
    if (code != NETSHM_OK) return code;
    return len == strlen(value) && memcmp(buffer, value, len) == 0 ? 1 : 0;
}

/* Runs a function in a forked child and gives its exit code, or 1000 + its signal. */
static inline int in_child(int (*body)(void *), void *arg)
{
    int status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) _exit(body(arg));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline const char *last_text(void)
{
    static netshm_error e;
    e.size = sizeof e;
    netshm_last_error(&e);
    return e.text;
}

static inline netshm_error last(void)
{
    netshm_error e;
    e.size = sizeof e;
    netshm_last_error(&e);
    return e;
}

#endif
