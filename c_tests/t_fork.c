/* Goal: a child may go on using what it inherits. Method: objects, tables and cursors used on both sides of forks,
 * children of children, children that are killed. */
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
    return done();
}
