/* Goal: no panic leaves the library. Method: built with the feature `inject`, where a hook makes the next call of
 * this thread panic inside; every function that returns a code is called so. */
#include "support.h"

#ifdef __cplusplus
extern "C"
#endif
void netshm_test_panic(int armed);

static int view(const void *d, size_t n, void *a) { (void)d, (void)n, (void)a; return 0; }
static int update(netshm_update *u, const void *d, size_t n, void *a) { (void)u, (void)d, (void)n, (void)a; return 0; }
static int visit(netshm_slice k, netshm_slice v, void *a) { (void)k, (void)v, (void)a; return 0; }
static int panics_inside(netshm_txn *x, void *a)
{
    netshm_hashtbl *t = (netshm_hashtbl *)a;
    (void)x;
    put(t, "k", "lost");
    netshm_test_panic(1);
    return netshm_hashtbl_add(t, "k", 1, "v", 1);
}

#define panics(call) (netshm_test_panic(1), is(call, NETSHM_E_PANIC), is(last().code, NETSHM_E_PANIC), \
                      ok(strstr(last_text(), "asked for this panic") != NULL))

int main(void)
{
    place *p = place_new();
    netshm_object *o = NULL, *no = NULL;
    netshm_hashtbl *t = NULL, *nt = NULL;
    netshm_table *table;
    netshm_cursor *c = NULL, *nc = NULL;
    netshm_txn *x = NULL, *nx = NULL;
    netshm_slice *slices = NULL, key = { "k", 1 };
    int64_t found_len = 0;
    char buffer[16];
    void *block = NULL;
    size_t len = 0;
    uint64_t count = 0;
    int fd = 0;
    if (freopen("/dev/null", "w", stderr) == NULL) return 1;
    good(place_open(p, CREATE, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    table = netshm_hashtbl_table(t);
    good(put(t, "k", "v"));
    good(netshm_cursor_open(t, 0, &c));
    good(netshm_group_begin(table, &x));

    panics(place_open(p, CREATE, &no));
    panics(netshm_create_unique(NETSHM_FILE, "/tmp/X", NULL, 0600, &no));
    panics(netshm_name(o, NULL, NULL, NULL));
    panics(netshm_fd(o, &fd));
    panics(netshm_open_fd(fd, RW, &no));
    panics(netshm_hashtbl_stamp(t, "k", 1, &count));
    panics(netshm_hashtbl_wait(t, "k", 1, &count, 0));
    panics(netshm_unlink(NETSHM_POSIX, p->file, p->mem));
    panics(netshm_chmod(o, 0600));
    panics(netshm_chown(o, 0, 0));
    panics(netshm_close(o));
    panics(netshm_check(o, 0, NULL, NULL));
    panics(netshm_hashtbl_manage(o, NULL, NULL, NULL, &nt));
    panics(netshm_hashtbl_close(t));
    panics(netshm_hashtbl_add(t, "k", 1, "w", 1));
    panics(netshm_hashtbl_replace(t, "k", 1, "w", 1));
    panics(netshm_hashtbl_insert(t, "k", 1, "w", 1));
    panics(netshm_hashtbl_remove(t, "k", 1, NULL));
    panics(netshm_hashtbl_find(t, "k", 1, buffer, 16, &len));
    panics(netshm_hashtbl_get(t, "k", 1, &block, &len));
    panics(netshm_hashtbl_find_all(t, "k", 1, &slices, &len));
    panics(netshm_hashtbl_mem(t, "k", 1, &fd));
    panics(netshm_hashtbl_find_many(t, &key, 1, &slices));
    panics(netshm_hashtbl_find_many_into(t, &key, 1, buffer, 16, &found_len));
    panics(netshm_hashtbl_replace_many(t, &key, &key, 1, &len));
    panics(netshm_hashtbl_add_many(t, &key, &key, 1, &len));
    ok(found_len == 0 && len == 0);
    panics(netshm_hashtbl_length(t, &count));
    panics(netshm_hashtbl_incr(t, "k", 1, 1, 1, NULL));
    panics(netshm_hashtbl_cas(t, "k", 1, "v", 1, "w", 1));
    panics(netshm_hashtbl_view(t, "k", 1, view, NULL, NULL));
    panics(netshm_update_set((netshm_update *)buffer, "v", 1));
    panics(netshm_hashtbl_update(t, "k", 1, update, NULL));
    panics(netshm_hashtbl_iter(t, visit, NULL));
    panics(netshm_hashtbl_iter_keys(t, visit, NULL));
    panics(netshm_cursor_open(t, 0, &nc));
    panics(netshm_cursor_next(c, NULL, NULL));
    panics(netshm_cursor_close(c));
    panics(netshm_group(table, panics_inside, t));
    panics(netshm_group_retry(table, 0, panics_inside, t));
    panics(netshm_group_begin(table, &nx));
    panics(netshm_group_commit(x));
    panics(netshm_group_abort(x));
    panics(netshm_group_restart(x));
    panics(netshm_group_detach(x));
    panics(netshm_group_attach(x));
    netshm_test_panic(1);
    ok(netshm_hashtbl_table(t) == NULL);
    ok(no == NULL && nt == NULL && nc == NULL && nx == NULL && block == NULL && slices == NULL && len == 0);

    /* All handles are as they were. */
    is(netshm_group(table, panics_inside, t), NETSHM_E_PANIC);
    is(has(t, "k", "v"), 1);
    good(netshm_group_commit(x));
    is(netshm_group(table, panics_inside, t), NETSHM_E_PANIC);
    is(has(t, "k", "v"), 1);
    good(netshm_cursor_next(c, NULL, NULL));
    good(netshm_cursor_close(c));
    good(netshm_close(o));
    good(netshm_hashtbl_close(t));
    is(place_check(p), NETSHM_OK);
    return done();
}
