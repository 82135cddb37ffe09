/* Goal: a child may go on using what it inherits. Method: objects, tables and cursors used on both sides of forks,
 * children of children, children that are killed; forks while threads change a list of persistent objects. */
#include "support.h"

static place *p;
static netshm_object *o;
static netshm_hashtbl *t;
static netshm_cursor *c;

static int use(void *arg)
{
    int i, depth = *(int *)arg;
    netshm_slice key;
    netshm_hashtbl *u = NULL;
    for (i = 0; i < 500; i++)
        if (netshm_hashtbl_incr(t, "all", 3, 1, 0, NULL) != NETSHM_OK) return 1;
    if (has(t, "k", "v") != 1) return 2;
    if (netshm_cursor_next(c, &key, NULL) != NETSHM_OK) return 3;
    if (netshm_hashtbl_manage(o, NULL, NULL, NULL, &u) != NETSHM_OK) return 4;
    if (netshm_hashtbl_incr(u, "all", 3, 1, 0, NULL) != NETSHM_OK) return 5;
    if (netshm_hashtbl_close(u) != NETSHM_OK) return 6;
    if (depth > 0) {
        depth--;
        i = in_child(use, &depth);
        if (i != 0) return i + 10;
    }
    if (netshm_cursor_close(c) != NETSHM_OK) return 7;
    if (netshm_hashtbl_close(t) != NETSHM_OK) return 8;
    if (netshm_close(o) != NETSHM_OK) return 9;
    return 0;
}

static int die_in_group(void *arg)
{
    netshm_txn *x = NULL;
    (void)arg;
    if (netshm_group_begin(netshm_hashtbl_table(t), &x) != NETSHM_OK) return 1;
    if (put(t, "k", "lost") != NETSHM_OK || put(t, "l", "lost") != NETSHM_OK) return 2;
    kill(getpid(), SIGKILL);
    return 3;
}

static int endless(void *arg)
{
    char key[16];
    int i;
    (void)arg;
    for (i = 0;; i++) {
        snprintf(key, sizeof key, "e%d", i % 100);
        if (put(t, key, "endless") != NETSHM_OK) return 1;
    }
}

static volatile int enough;

/* Registers and unregisters, without end. */
static void *crowd(void *arg)
{
    netshm_pmanage *list = (netshm_pmanage *)arg;
    char path[32];
    int i;
    for (i = 0; !enough; i++) {
        snprintf(path, sizeof path, "/crowd%d", i % 20);
        netshm_pmanage_register(list, NETSHM_PM_FILE, path);
        netshm_pmanage_unregister(list, NETSHM_PM_FILE, path);
    }
    return NULL;
}

/* The list is whole, and can be changed. */
static int uses_list(void *arg)
{
    netshm_pmanage *list = (netshm_pmanage *)arg;
    int *kinds = NULL;
    char **paths = NULL;
    size_t n = 0, i, found = 0;
    alarm(20);
    if (netshm_pmanage_register(list, NETSHM_PM_POSIX_SEM, "/child") != NETSHM_OK) return 1;
    if (netshm_pmanage_list(list, &kinds, &paths, &n) != NETSHM_OK) return 2;
    for (i = 0; i < n; i++) found += strcmp(paths[i], "/child") == 0 || strcmp(paths[i], "/always") == 0;
    return found == 2 && n <= 2 + 3 ? 0 : 3;
}

/* A list in memory is whole in a child, wherever the other threads were. */
static void lists(void)
{
    netshm_pmanage *list = NULL;
    pthread_t threads[3];
    int i, wrong = 0;
    good(netshm_pmanage_open(NULL, &list));
    good(netshm_pmanage_register(list, NETSHM_PM_FILE, "/always"));
    for (i = 0; i < 3; i++) is(pthread_create(&threads[i], NULL, crowd, list), 0);
    for (i = 0; i < 300 && wrong == 0; i++) wrong += in_child(uses_list, list) != 0;
    is(wrong, 0);
    enough = 1;
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    is(in_child(uses_list, list), 0);
    good(netshm_pmanage_close(list));
}

int main(void)
{
    int depth = 2, i, status = 0;
    pid_t children[4];
    int64_t all = 0;
    p = place_new();
    good(place_open(p, CREATE, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(put(t, "k", "v"));
    good(put(t, "l", "v"));
    good(netshm_cursor_open(t, 0, &c));

    is(in_child(use, &depth), 0);
    good(netshm_hashtbl_incr(t, "all", 3, 0, 0, &all));
    is(all, 3 * 501);

    fflush(stdout);
    for (i = 0; i < 4; i++) {
        children[i] = fork();
        if (children[i] == 0) _exit(use(&depth));
    }
    depth = 0;
    for (i = 0; i < 500; i++) netshm_hashtbl_incr(t, "all", 3, 1, 0, NULL);
    for (i = 0; i < 4; i++) {
        waitpid(children[i], &status, 0);
        is(status, 0);
    }
    good(netshm_hashtbl_incr(t, "all", 3, 0, 0, &all));
    is(all, 3 * 501 + 4 * 3 * 501 + 500);

    /* The dead leave nothing behind. */
    is(in_child(die_in_group, NULL), 1000 + SIGKILL);
    is(has(t, "k", "v"), 1);
    good(put(t, "k", "w"));
    good(put(t, "l", "w"));
    for (i = 0; i < 10; i++) {
        fflush(stdout);
        children[0] = fork();
        if (children[0] == 0) _exit(endless(NULL));
        usleep(20000);
        kill(children[0], SIGKILL);
        waitpid(children[0], &status, 0);
        ok(WIFSIGNALED(status));
        good(netshm_check(o, 0, NULL, NULL));
    }
    good(netshm_cursor_next(c, NULL, NULL));
    good(netshm_cursor_close(c));
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    is(place_check(p), NETSHM_OK);
    lists();
    return done();
}
