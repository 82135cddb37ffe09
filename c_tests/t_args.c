/* Goal: no wrong argument crashes. Method: NULL for every pointer argument of every function; handles that are
 * closed, or of another type. */
#include "support.h"

static int view(const void *d, size_t n, void *a) { (void)d, (void)n, (void)a; return 0; }
static int update(netshm_update *u, const void *d, size_t n, void *a) { (void)u, (void)d, (void)n, (void)a; return 0; }
static int visit(netshm_slice k, netshm_slice v, void *a) { (void)k, (void)v, (void)a; return 0; }
static int group(netshm_txn *x, void *a) { (void)x, (void)a; return NETSHM_COMMIT; }

/* The call refuses argument n because it is NULL. */
#define null(call, n) (is(call, NETSHM_E_INVALID), is(last().argument, n), ok(strstr(last_text(), "NULL") != NULL))

static size_t len;
static int number;
static int64_t sum;
static uint64_t count;
static void *block;
static netshm_slice *slices, slice;
static netshm_object *o, *no;
static netshm_hashtbl *t, *nt;
static netshm_cursor *c, *nc;
static netshm_txn *x, *nx;
static char buffer[16];

static void nulls(const place *p)
{
    is(netshm_last_error(NULL), NETSHM_E_INVALID);
    null(netshm_open(NETSHM_POSIX, NULL, p->mem, RW, 0, &no), 2);
    null(netshm_open(NETSHM_POSIX, p->file, NULL, RW, 0, &no), 3);
    null(netshm_open(NETSHM_FILE, NULL, NULL, RW, 0, &no), 2);
    null(netshm_open(NETSHM_POSIX, p->file, p->mem, RW, 0, NULL), 6);
    null(netshm_create_unique(NETSHM_POSIX, NULL, "/X", 0, &no), 2);
    null(netshm_create_unique(NETSHM_POSIX, "/tmp/X", NULL, 0, &no), 3);
    null(netshm_create_unique(NETSHM_FILE, NULL, NULL, 0, &no), 2);
    null(netshm_create_unique(NETSHM_FILE, "/tmp/X", NULL, 0, NULL), 5);
    null(netshm_name(NULL, &number, NULL, NULL), 1);
    null(netshm_fd(NULL, &number), 1);
    null(netshm_open_fd(0, RW, NULL), 3);
    null(netshm_hashtbl_stamp(NULL, "k", 1, &count), 1);
    null(netshm_hashtbl_stamp(t, NULL, 1, &count), 2);
    null(netshm_hashtbl_stamp(t, "k", 1, NULL), 4);
    null(netshm_hashtbl_wait(NULL, "k", 1, &count, 0), 1);
    null(netshm_hashtbl_wait(t, NULL, 1, &count, 0), 2);
    null(netshm_hashtbl_wait(t, "k", 1, NULL, 0), 4);
    null(netshm_fd(o, NULL), 2);
    null(netshm_unlink(NETSHM_POSIX, NULL, p->mem), 2);
    null(netshm_unlink(NETSHM_POSIX, p->file, NULL), 3);
    null(netshm_unlink(NETSHM_FILE, NULL, NULL), 2);
    null(netshm_chmod(NULL, 0600), 1);
    null(netshm_chown(NULL, 0, 0), 1);
    good(netshm_close(NULL));
    null(netshm_check(NULL, 0, NULL, NULL), 1);
    null(netshm_sync(NULL, 0), 1);
    null(netshm_backup(NULL, NETSHM_FILE, "/tmp/netshm-never-made", NULL, 0600, 0, 0, NULL), 1);
    null(netshm_backup(o, NETSHM_FILE, NULL, NULL, 0600, 0, 0, NULL), 3);
    null(netshm_salvage(NETSHM_FILE, NULL, NULL, NETSHM_FILE, "/tmp/netshm-never-made", NULL, 0600, 0, NULL), 2);
    null(netshm_salvage(NETSHM_FILE, "/tmp/netshm-never-made", NULL, NETSHM_FILE, NULL, NULL, 0600, 0, NULL), 5);
    null(netshm_hashtbl_manage(NULL, NULL, NULL, NULL, &nt), 1);
    null(netshm_hashtbl_manage(o, NULL, NULL, NULL, NULL), 5);
    is(netshm_hashtbl_manage(o, (netshm_type *)o, NULL, NULL, &nt), NETSHM_E_INVALID);
    is(netshm_hashtbl_manage(o, NULL, (netshm_type *)o, NULL, &nt), NETSHM_E_INVALID);
    ok(netshm_hashtbl_table(NULL) == NULL);
    good(netshm_hashtbl_close(NULL));
    null(netshm_hashtbl_add(NULL, "k", 1, "v", 1), 1);
    null(netshm_hashtbl_add(t, NULL, 1, "v", 1), 2);
    null(netshm_hashtbl_add(t, "k", 1, NULL, 1), 4);
    null(netshm_hashtbl_replace(NULL, "k", 1, "v", 1), 1);
    null(netshm_hashtbl_replace(t, NULL, 1, "v", 1), 2);
    null(netshm_hashtbl_replace(t, "k", 1, NULL, 1), 4);
    null(netshm_hashtbl_insert(NULL, "k", 1, "v", 1), 1);
    null(netshm_hashtbl_insert(t, NULL, 1, "v", 1), 2);
    null(netshm_hashtbl_insert(t, "k", 1, NULL, 1), 4);
    null(netshm_hashtbl_remove(NULL, "k", 1, &number), 1);
    null(netshm_hashtbl_remove(t, NULL, 1, &number), 2);
    null(netshm_hashtbl_find(NULL, "k", 1, buffer, 16, &len), 1);
    null(netshm_hashtbl_find(t, NULL, 1, buffer, 16, &len), 2);
    null(netshm_hashtbl_find(t, "k", 1, NULL, 16, &len), 4);
    null(netshm_hashtbl_find(t, "k", 1, buffer, 16, NULL), 6);
    null(netshm_hashtbl_get(NULL, "k", 1, &block, &len), 1);
    null(netshm_hashtbl_get(t, NULL, 1, &block, &len), 2);
    null(netshm_hashtbl_get(t, "k", 1, NULL, &len), 4);
    null(netshm_hashtbl_get(t, "k", 1, &block, NULL), 5);
    null(netshm_hashtbl_find_all(NULL, "k", 1, &slices, &len), 1);
    null(netshm_hashtbl_find_all(t, NULL, 1, &slices, &len), 2);
    null(netshm_hashtbl_find_all(t, "k", 1, NULL, &len), 4);
    null(netshm_hashtbl_find_all(t, "k", 1, &slices, NULL), 5);
    null(netshm_hashtbl_mem(NULL, "k", 1, &number), 1);
    null(netshm_hashtbl_mem(t, NULL, 1, &number), 2);
    null(netshm_hashtbl_mem(t, "k", 1, NULL), 4);
    null(netshm_hashtbl_find_many(NULL, &slice, 1, &slices), 1);
    null(netshm_hashtbl_find_many(t, NULL, 1, &slices), 2);
    null(netshm_hashtbl_find_many(t, &slice, 1, NULL), 4);
    null(netshm_hashtbl_find_many_into(NULL, &slice, 1, buffer, 16, &sum), 1);
    null(netshm_hashtbl_find_many_into(t, NULL, 1, buffer, 16, &sum), 2);
    null(netshm_hashtbl_find_many_into(t, &slice, 1, NULL, 16, &sum), 4);
    null(netshm_hashtbl_find_many_into(t, &slice, 1, buffer, 16, NULL), 6);
    null(netshm_hashtbl_replace_many(NULL, &slice, &slice, 1, &len), 1);
    null(netshm_hashtbl_replace_many(t, NULL, &slice, 1, &len), 2);
    null(netshm_hashtbl_replace_many(t, &slice, NULL, 1, &len), 3);
    null(netshm_hashtbl_add_many(NULL, &slice, &slice, 1, NULL), 1);
    null(netshm_hashtbl_add_many(t, NULL, &slice, 1, NULL), 2);
    null(netshm_hashtbl_add_many(t, &slice, NULL, 1, NULL), 3);
    null(netshm_hashtbl_length(NULL, &count), 1);
    null(netshm_hashtbl_length(t, NULL), 2);
    null(netshm_hashtbl_incr(NULL, "k", 1, 1, 1, &sum), 1);
    null(netshm_hashtbl_incr(t, NULL, 1, 1, 1, &sum), 2);
    null(netshm_hashtbl_cas(NULL, "k", 1, "o", 1, "n", 1), 1);
    null(netshm_hashtbl_cas(t, NULL, 1, "o", 1, "n", 1), 2);
    null(netshm_hashtbl_cas(t, "k", 1, NULL, 1, "n", 1), 4);
    null(netshm_hashtbl_cas(t, "k", 1, "o", 1, NULL, 1), 6);
    null(netshm_hashtbl_view(NULL, "k", 1, view, NULL, &number), 1);
    null(netshm_hashtbl_view(t, NULL, 1, view, NULL, &number), 2);
    null(netshm_hashtbl_view(t, "k", 1, NULL, NULL, &number), 4);
    null(netshm_update_set(NULL, "v", 1), 1);
    null(netshm_update_set((netshm_update *)buffer, NULL, 1), 2);
    is(netshm_update_set((netshm_update *)buffer, "v", 1), NETSHM_E_CLOSED);
    null(netshm_hashtbl_update(NULL, "k", 1, update, NULL), 1);
    null(netshm_hashtbl_update(t, NULL, 1, update, NULL), 2);
    null(netshm_hashtbl_update(t, "k", 1, NULL, NULL), 4);
    null(netshm_hashtbl_iter(NULL, visit, NULL), 1);
    null(netshm_hashtbl_iter(t, NULL, NULL), 2);
    null(netshm_hashtbl_iter_keys(NULL, visit, NULL), 1);
    null(netshm_hashtbl_iter_keys(t, NULL, NULL), 2);
    null(netshm_cursor_open(NULL, 0, &nc), 1);
    null(netshm_cursor_open(t, 0, NULL), 3);
    null(netshm_cursor_next(NULL, &slice, &slice), 1);
    good(netshm_cursor_close(NULL));
    null(netshm_group(NULL, group, NULL), 1);
    null(netshm_group(netshm_hashtbl_table(t), NULL, NULL), 2);
    null(netshm_group_retry(NULL, 0, group, NULL), 1);
    null(netshm_group_retry(netshm_hashtbl_table(t), 0, NULL, NULL), 3);
    null(netshm_group_begin(NULL, &nx), 1);
    null(netshm_group_begin(netshm_hashtbl_table(t), NULL), 2);
    null(netshm_group_commit(NULL), 1);
    good(netshm_group_abort(NULL));
    null(netshm_group_restart(NULL), 1);
    null(netshm_group_detach(NULL), 1);
    null(netshm_group_attach(NULL), 1);
    netshm_free(NULL);
    ok(no == NULL && nt == NULL && nc == NULL && nx == NULL && block == NULL && slices == NULL);
    ok(len == 0 && number == 0 && sum == 0 && count == 0);
}

/* Every function that takes a handle of some type refuses this one with this code. */
static void all_objects(netshm_object *h, int code)
{
    is(netshm_name(h, NULL, NULL, NULL), code);
    is(netshm_fd(h, &number), code);
    is(netshm_chmod(h, 0600), code);
    is(netshm_chown(h, (uint32_t)-1, (uint32_t)-1), code);
    is(netshm_check(h, 0, NULL, NULL), code);
    is(netshm_hashtbl_manage(h, NULL, NULL, NULL, &nt), code);
    is(netshm_close(h), code);
}

static void all_hashtbls(netshm_hashtbl *h, int code)
{
    ok(netshm_hashtbl_table(h) == NULL);
    is(netshm_hashtbl_add(h, "k", 1, "v", 1), code);
    is(netshm_hashtbl_replace(h, "k", 1, "v", 1), code);
    is(netshm_hashtbl_insert(h, "k", 1, "v", 1), code);
    is(netshm_hashtbl_stamp(h, "k", 1, &count), code);
    is(netshm_hashtbl_wait(h, "k", 1, &count, 0), code);
    is(netshm_hashtbl_remove(h, "k", 1, NULL), code);
    is(netshm_hashtbl_find(h, "k", 1, buffer, 16, &len), code);
    is(netshm_hashtbl_get(h, "k", 1, &block, &len), code);
    is(netshm_hashtbl_find_all(h, "k", 1, &slices, &len), code);
    is(netshm_hashtbl_mem(h, "k", 1, &number), code);
    is(netshm_hashtbl_find_many(h, &slice, 1, &slices), code);
    is(netshm_hashtbl_find_many_into(h, &slice, 1, buffer, 16, &sum), code);
    is(netshm_hashtbl_replace_many(h, &slice, &slice, 1, NULL), code);
    is(netshm_hashtbl_add_many(h, &slice, &slice, 1, NULL), code);
    is(netshm_hashtbl_length(h, &count), code);
    is(netshm_hashtbl_incr(h, "k", 1, 1, 1, &sum), code);
    is(netshm_hashtbl_cas(h, "k", 1, "o", 1, "n", 1), code);
    is(netshm_hashtbl_view(h, "k", 1, view, NULL, NULL), code);
    is(netshm_hashtbl_update(h, "k", 1, update, NULL), code);
    is(netshm_hashtbl_iter(h, visit, NULL), code);
    is(netshm_hashtbl_iter_keys(h, visit, NULL), code);
    is(netshm_cursor_open(h, 0, &nc), code);
    is(netshm_hashtbl_close(h), code);
}

static void all_tables(netshm_table *h, int code)
{
    is(netshm_group(h, group, NULL), code);
    is(netshm_group_retry(h, 0, group, NULL), code);
    is(netshm_group_begin(h, &nx), code);
}

static void all_cursors(netshm_cursor *h, int code)
{
    is(netshm_cursor_next(h, &slice, &slice), code);
    is(netshm_cursor_close(h), code);
}

static void all_txns(netshm_txn *h, int code)
{
    is(netshm_group_restart(h), code);
    is(netshm_group_detach(h), code);
    is(netshm_group_attach(h), code);
    is(netshm_group_commit(h), code);
    is(netshm_group_abort(h), code);
}

int main(void)
{
    static uint64_t junk[64];
    place *p = place_new();
    netshm_table *table;
    good(place_open(p, CREATE, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(put(t, "k", "v"));
    nulls(p);
    table = netshm_hashtbl_table(t);
    good(netshm_cursor_open(t, 0, &c));
    good(netshm_group_begin(table, &x));

    note("handles of another type");
    all_objects((netshm_object *)t, NETSHM_E_INVALID);
    all_objects((netshm_object *)table, NETSHM_E_INVALID);
    all_objects((netshm_object *)c, NETSHM_E_INVALID);
    all_objects((netshm_object *)x, NETSHM_E_INVALID);
    all_hashtbls((netshm_hashtbl *)o, NETSHM_E_INVALID);
    all_hashtbls((netshm_hashtbl *)table, NETSHM_E_INVALID);
    all_tables((netshm_table *)t, NETSHM_E_INVALID);
    all_tables((netshm_table *)o, NETSHM_E_INVALID);
    all_cursors((netshm_cursor *)t, NETSHM_E_INVALID);
    all_txns((netshm_txn *)c, NETSHM_E_INVALID);

    note("no handles at all");
    all_objects((netshm_object *)junk, NETSHM_E_CLOSED);
    all_hashtbls((netshm_hashtbl *)junk, NETSHM_E_CLOSED);
    all_tables((netshm_table *)junk, NETSHM_E_CLOSED);
    all_cursors((netshm_cursor *)junk, NETSHM_E_CLOSED);
    all_txns((netshm_txn *)junk, NETSHM_E_CLOSED);
    all_hashtbls((netshm_hashtbl *)((char *)junk + 1), NETSHM_E_INVALID);

    note("closed handles");
    good(netshm_group_commit(x));
    all_txns(x, NETSHM_E_CLOSED);
    good(netshm_close(o));
    all_objects(o, NETSHM_E_CLOSED);
    is(has(t, "k", "v"), 1);
    good(netshm_hashtbl_close(t));
    all_hashtbls(t, NETSHM_E_CLOSED);
    all_tables(table, NETSHM_E_CLOSED);
    good(netshm_cursor_next(c, NULL, NULL));
    good(netshm_cursor_close(c));
    all_cursors(c, NETSHM_E_CLOSED);

    /* Any order, many times: everything is given back, and closed handles are known for a while. */
    {
        netshm_hashtbl *closed[100];
        int i, wrong = 0;
        for (i = 0; i < 1000; i++) {
            netshm_hashtbl *u = place_table(p, NULL);
            if (u == NULL || has(u, "k", "v") != 1) wrong++;
            if (netshm_hashtbl_close(u) != NETSHM_OK) wrong++;
            closed[i % 100] = u;
        }
        for (i = 0; i < 100; i++)
            if (put(closed[i], "k", "v") != NETSHM_E_CLOSED || netshm_hashtbl_close(closed[i]) != NETSHM_E_CLOSED) wrong++;
        is(wrong, 0);
    }
    is(place_check(p), NETSHM_OK);
    return done();
}
