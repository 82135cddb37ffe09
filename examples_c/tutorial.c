/*
 * The example of Netshm's own tutorial, retold: a table from strings to pairs of an integer and a string, a
 * read-modify-write made safe by a group, and a deadlock that is caught and tried again.
 *
 * The types of the table are string and (int,string); they are recorded in the memory, and whoever manages it with other
 * types gets an error. A value goes in and comes out as an array of cells, here one for each half of the pair.
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 2000, LONGEST = 100 };

static netshm_hashtbl *table;
static netshm_result *found; /* what a find has found; each find uses it again */

static void fail(const char *what)
{
    fprintf(stderr, "tutorial: %s\n", what);
    exit(1);
}

static void must(int code, const char *what)
{
    if (code == NETSHM_OK) return;
    fprintf(stderr, "tutorial: %s: %s\n", what, netshm_strerror(code));
    exit(1);
}

/* ---- Pairs. What goes in is copied, what comes out is a copy: nothing here ever points into shared memory. */

typedef struct pair { int64_t n; char s[LONGEST + 1]; } pair;

static int put_pair(const char *key, const pair *p)
{
    netshm_value k[] = { netshm_str(key) }, v[] = { netshm_int(p->n), netshm_str(p->s) };
    return netshm_hashtbl_replace_v(table, NETSHM_CELLS(k), NETSHM_CELLS(v));
}

static int get_pair(const char *key, pair *p)
{
    netshm_value k[] = { netshm_str(key) };
    const netshm_value *v;
    size_t n;
    int code = netshm_hashtbl_find_v(table, NETSHM_CELLS(k), found);
    if (code == NETSHM_OK) code = netshm_result_values(found, &v, &n);
    if (code != NETSHM_OK) return code;
    /* The types say that there are two cells, of these kinds; how long the string is they do not say. */
    if (v[1].as.s.len > LONGEST) fail("the string is too long");
    p->n = v[0].as.i;
    memcpy(p->s, v[1].as.s.data, v[1].as.s.len);
    p->s[v[1].as.s.len] = 0;
    return NETSHM_OK;
}

/* ---- Read-modify-write. */

/* Adds one to the integer of a pair. Called alone it would be wrong: between its find and its replace another process
 * may do the same, and one of the two would be lost. */
static int add_one(const char *key)
{
    pair p;
    int code = get_pair(key, &p);
    if (code != NETSHM_OK) return code;
    p.n++;
    return put_pair(key, &p);
}

/* As a group it is right: whoever comes second waits. */
static int add_one_in_group(netshm_txn *txn, void *key)
{
    int code = add_one(key);
    (void)txn;
    return code == NETSHM_OK ? NETSHM_COMMIT : code;
}

static void count_together(void)
{
    char key[] = "First Key";
    int i;
    for (i = 0; i < ROUNDS; i++)
        must(netshm_group(netshm_hashtbl_table(table), add_one_in_group, key), "the group");
}

/* ---- Deadlock. */

/* Tells the other process that this one has come so far, and waits for it; but not for ever, for if both keys happen
 * to share a lock, the other one cannot come. */
static void meet(int mine, int others)
{
    struct pollfd fd;
    char byte = 0;
    if (write(mine, &byte, 1) != 1) fail("write");
    fd.fd = others;
    fd.events = POLLIN;
    if (poll(&fd, 1, 500) == 1 && read(others, &byte, 1) != 1) fail("read");
}

/* Adds one to both pairs, the first of which the other process takes second. Gives the number of deadlocks. */
static int add_to_both(const char *first, const char *second, int mine, int others)
{
    netshm_txn *txn;
    int deadlocks = 0, code;
    must(netshm_group_begin(netshm_hashtbl_table(table), &txn), "beginning a group");
    for (;;) {
        code = add_one(first);
        /* Now each process holds what the other one needs next. */
        if (deadlocks == 0) meet(mine, others);
        if (code == NETSHM_OK) code = add_one(second);
        if (code != NETSHM_E_DEADLOCK) break;
        /* One of the two is told, instead of both waiting for ever. All that it has written is undone; after a moment
         * it begins again, and is the older one now. netshm_group_retry() does the same by itself. */
        deadlocks++;
        must(netshm_group_restart(txn), "beginning again");
    }
    must(code, "adding");
    must(netshm_group_commit(txn), "committing");
    return deadlocks;
}

/* ---- Processes. */

static pid_t start(void)
{
    pid_t parent = getpid(), child;
    fflush(NULL);
    child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    return child;
}

static int exit_status(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) fail("a process was lost");
    return WEXITSTATUS(status);
}

int main(void)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_object *object;
    const char *file_name, *mem_name;
    char a[20], b[20];
    netshm_value key[] = { netshm_str("First Key") };
    netshm_value hiding[] = { netshm_int(2), netshm_str("hides it") };
    netshm_value no_pair[] = { netshm_str("a string alone") };
    pair p = { 1, "First value" };
    int kind, round, to_child[2], to_parent[2], deadlocks = 0, sum = 0;
    pid_t child;

    /* A new object with a name of its own: each X is replaced until nobody has that name. */
    must(netshm_create_unique(NETSHM_POSIX, "/tmp/netshm-tutorial.XXXXX", "/netshm-tutorial.XXXXX", 0600, &object),
         "creating the memory");
    must(netshm_name(object, &kind, &file_name, &mem_name), "asking for the name");
    printf("the memory is called %s, its management file is %s\n", mem_name, file_name);
    options.init = 100000; /* the expected size; the table grows in any case */
    must(netshm_hashtbl_manage_as(object, "string", "(int,string)", &options, &table), "managing the table");
    must(netshm_result_new(&found), "making a result");

    /* Bindings of a key form a stack: add hides, remove shows again. */
    must(put_pair("First Key", &p), "putting a pair");
    must(get_pair("First Key", &p), "getting a pair");
    printf("First Key is (%" PRId64 ", \"%s\")\n", p.n, p.s);
    must(netshm_hashtbl_add_v(table, NETSHM_CELLS(key), NETSHM_CELLS(hiding)), "adding");
    must(get_pair("First Key", &p), "getting a pair");
    if (p.n != 2 || strcmp(p.s, "hides it") != 0) fail("nothing is hidden");
    must(netshm_hashtbl_remove_v(table, NETSHM_CELLS(key), NULL), "removing");
    must(get_pair("First Key", &p), "getting a pair");
    if (p.n != 1 || strcmp(p.s, "First value") != 0) fail("the pair is another one");

    /* What is no pair does not get in. */
    if (netshm_hashtbl_replace_v(table, NETSHM_CELLS(key), NETSHM_CELLS(no_pair)) != NETSHM_E_TYPE)
        fail("a string was taken for a pair");

    /* Two processes count in the same pair. */
    child = start();
    count_together();
    if (child == 0) _exit(0);
    if (exit_status(child) != 0) fail("the other process has failed");
    must(get_pair("First Key", &p), "getting a pair");
    printf("after %d groups of each of two processes it is (%" PRId64 ", \"%s\")\n", ROUNDS, p.n, p.s);
    if (p.n != 1 + 2 * ROUNDS) fail("some were lost");

    /* Two processes take the same two pairs in opposite order. */
    for (round = 0; round < 10 && deadlocks == 0; round++) {
        snprintf(a, sizeof a, "left %d", round);
        snprintf(b, sizeof b, "right %d", round);
        p.n = 0;
        must(put_pair(a, &p), "putting a pair");
        must(put_pair(b, &p), "putting a pair");
        if (pipe(to_child) != 0 || pipe(to_parent) != 0) fail("pipe");
        child = start();
        if (child == 0) _exit(10 + add_to_both(b, a, to_parent[1], to_child[0]));
        deadlocks = add_to_both(a, b, to_child[1], to_parent[0]);
        deadlocks += exit_status(child) - 10;
        must(get_pair(a, &p), "getting a pair");
        sum = (int)p.n;
        must(get_pair(b, &p), "getting a pair");
        sum += (int)p.n;
        if (sum != 4) fail("a group was lost, or done twice");
    }
    printf("deadlocks: %d; both groups were done, once each\n", deadlocks);
    if (deadlocks == 0) fail("no deadlock was met");

    must(netshm_check(object, 0, NULL, NULL), "checking");
    /* The memory stays until it is unlinked, however many processes come and go. */
    must(netshm_unlink(kind, file_name, mem_name), "unlinking");
    must(netshm_result_free(found), "freeing the result");
    must(netshm_hashtbl_close(table), "closing");
    must(netshm_close(object), "closing");
    return 0;
}
