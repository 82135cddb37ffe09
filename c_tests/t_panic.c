/* Goal: no panic leaves the library. Method: built with the feature `inject`, where a hook makes the next call of
 * this thread panic inside; every function that returns a code is called so. c_tests/calls.sh sees to it that none is
 * left out. */
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

static int visit_v(const netshm_value *k, size_t nk, const netshm_value *v, size_t nv, void *a)
{
    (void)k, (void)nk, (void)v, (void)nv, (void)a;
    return 0;
}
static int update_v(netshm_update *u, const netshm_value *o, size_t no, void *a)
{
    (void)u, (void)o, (void)no, (void)a;
    return 0;
}
static int element(uint64_t i, netshm_slice e, void *a) { (void)i, (void)e, (void)a; return 0; }
static int element_v(uint64_t i, const netshm_value *v, size_t n, void *a) { (void)i, (void)v, (void)n, (void)a; return 0; }
static int words(int32_t k, const int32_t *w, size_t n, void *a) { (void)k, (void)w, (void)n, (void)a; return 0; }
static int block(int32_t *w, size_t n, void *a) { (void)w, (void)n, (void)a; return 0; }

#define panics(call) (netshm_test_panic(1), is(call, NETSHM_E_PANIC), is(last().code, NETSHM_E_PANIC), \
                      ok(strstr(last_text(), "asked for this panic") != NULL))

static netshm_options named(const char *root)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    options.root = root;
    return options;
}

static void types(void)
{
    netshm_type *a = NULL, *b = NULL, *nothing = NULL;
    netshm_custom custom;
    const char *text = NULL;
    memset(&custom, 0, sizeof custom);
    custom.size = sizeof custom;
    good(netshm_type_parse("int", &a));
    good(netshm_type_parse("string", &b));
    panics(netshm_guard_sigbus());
    panics(netshm_type_parse("int", &nothing));
    panics(netshm_type_pair(a, b, &nothing));
    panics(netshm_type_left(a, &nothing));
    panics(netshm_type_option(a, &nothing));
    panics(netshm_type_custom(&custom, &nothing));
    panics(netshm_type_signature(a, &text));
    panics(netshm_type_close(a));
    ok(nothing == NULL && text == NULL);
    good(netshm_type_signature(a, &text));
    good(netshm_type_close(a));
    good(netshm_type_close(b));
}

static void typed(netshm_object *o)
{
    netshm_options options = named("typed");
    netshm_hashtbl *t = NULL, *nothing = NULL;
    netshm_result *r = NULL, *no_result = NULL;
    netshm_cursor *c = NULL;
    netshm_value k[1], v[1];
    const netshm_value *cells = NULL;
    char buffer[16];
    uint64_t stamp = 0;
    int64_t sum = 0;
    size_t n = 0;
    int number = 0;
    k[0] = netshm_int(1);
    v[0] = netshm_int(2);
    good(netshm_hashtbl_manage_as(o, "int", "int", &options, &t));
    good(netshm_hashtbl_add_v(t, k, 1, v, 1));
    good(netshm_result_new(&r));
    good(netshm_cursor_open(t, 0, &c));
    panics(netshm_hashtbl_manage_as(o, "int", "int", &options, &nothing));
    panics(netshm_hashtbl_add_v(t, k, 1, v, 1));
    panics(netshm_hashtbl_replace_v(t, k, 1, v, 1));
    panics(netshm_hashtbl_insert_v(t, k, 1, v, 1));
    panics(netshm_hashtbl_remove_v(t, k, 1, &number));
    panics(netshm_hashtbl_mem_v(t, k, 1, &number));
    panics(netshm_hashtbl_find_v(t, k, 1, r));
    panics(netshm_hashtbl_find_all_v(t, k, 1, r, &n));
    panics(netshm_hashtbl_incr_v(t, k, 1, 1, 1, &sum));
    panics(netshm_hashtbl_cas_v(t, k, 1, v, 1, k, 1));
    panics(netshm_hashtbl_update_v(t, k, 1, update_v, NULL));
    panics(netshm_update_set_v((netshm_update *)buffer, v, 1));
    panics(netshm_hashtbl_iter_v(t, visit_v, NULL));
    panics(netshm_hashtbl_iter_keys_v(t, visit_v, NULL));
    panics(netshm_cursor_next_v(c, NULL, NULL));
    panics(netshm_hashtbl_stamp_v(t, k, 1, &stamp));
    panics(netshm_hashtbl_wait_v(t, k, 1, &stamp, 0));
    panics(netshm_result_new(&no_result));
    panics(netshm_result_values(r, &cells, &n));
    panics(netshm_result_at(r, 0, &cells, &n));
    panics(netshm_result_free(r));
    ok(nothing == NULL && no_result == NULL && cells == NULL && n == 0 && number == 0 && sum == 0 && stamp == 0);
    good(netshm_hashtbl_find_v(t, k, 1, r));
    good(netshm_result_values(r, &cells, &n));
    ok(n == 1 && cells[0].as.i == 2);
    good(netshm_cursor_next_v(c, NULL, NULL));
    good(netshm_cursor_close(c));
    good(netshm_result_free(r));
    good(netshm_hashtbl_close(t));
}

static void arrays(netshm_object *o)
{
    netshm_options options = named("array");
    netshm_array *a = NULL, *nothing = NULL;
    netshm_type *of = NULL;
    netshm_result *r = NULL;
    netshm_value v[1];
    int64_t value = 7;
    uint64_t n = 0;
    v[0] = netshm_int(5);
    good(netshm_type_parse("int64", &of));
    good(netshm_result_new(&r));
    good(netshm_array_manage(o, of, v, 1, 10, &options, &a));
    good(netshm_array_set_int64(a, 0, 1));
    panics(netshm_array_manage(o, of, v, 1, 10, &options, &nothing));
    panics(netshm_array_manage_int64(o, 0, 10, &options, &nothing));
    panics(netshm_array_length(a, &n));
    panics(netshm_array_resize(a, 5));
    panics(netshm_array_get_int64(a, 0, &value));
    panics(netshm_array_set_int64(a, 0, 2));
    panics(netshm_array_incr(a, 0, 1, &value));
    panics(netshm_array_read(a, 0, 1, &value, 8));
    panics(netshm_array_write(a, 0, 1, &value, 8));
    panics(netshm_array_iter(a, element, NULL));
    panics(netshm_array_get(a, 0, r));
    panics(netshm_array_set(a, 0, v, 1));
    panics(netshm_array_default(a, r));
    panics(netshm_array_iter_v(a, element_v, NULL));
    panics(netshm_array_close(a));
    netshm_test_panic(1);
    ok(netshm_array_table(a) == NULL);
    ok(nothing == NULL && n == 0 && value == 7);
    good(netshm_array_get_int64(a, 0, &value));
    is(value, 1);
    good(netshm_array_close(a));
    good(netshm_result_free(r));
    good(netshm_type_close(of));
}

static void primitives(netshm_object *o)
{
    netshm_options options = named("primitive");
    netshm_table *t = NULL, *nothing = NULL;
    netshm_words *all = NULL;
    const int32_t one = 1;
    int32_t found = 7;
    char *text = NULL;
    uint64_t length = 0;
    size_t n = 0;
    int number = 0;
    good(netshm_table_manage(o, &options, &t));
    good(netshm_table_add(t, 1, &one, 1));
    panics(netshm_table_manage(o, &options, &nothing));
    panics(netshm_table_add(t, 1, &one, 1));
    panics(netshm_table_replace(t, 1, &one, 1));
    panics(netshm_table_remove(t, 1, &number));
    panics(netshm_table_mem(t, 1, &number));
    panics(netshm_table_find(t, 1, &found, 1, &n));
    panics(netshm_table_find_all(t, 1, &all, &n));
    panics(netshm_table_length(t, &length));
    panics(netshm_table_iter(t, words, NULL));
    panics(netshm_table_iter_keys(t, words, NULL));
    panics(netshm_table_read_blocks(t, 1, block, NULL));
    panics(netshm_table_write_blocks(t, 0, 1, block, NULL));
    panics(netshm_table_dump(t, &text));
    panics(netshm_table_close(t));
    ok(nothing == NULL && all == NULL && text == NULL && number == 0 && n == 0 && length == 0 && found == 7);
    good(netshm_table_find(t, 1, &found, 1, &n));
    ok(found == 1 && n == 1);
    good(netshm_table_close(t));
}

static void lists(void)
{
    const int kind = NETSHM_PM_FILE;
    const char *const names[] = { "/tmp/none" };
    netshm_pmanage *p = NULL, *nothing = NULL;
    int *kinds = NULL;
    char **paths = NULL;
    size_t n = 0;
    good(netshm_pmanage_open(NULL, &p));
    panics(netshm_pmanage_open(NULL, &nothing));
    panics(netshm_pmanage_register(p, NETSHM_PM_FILE, "/tmp/none"));
    panics(netshm_pmanage_unregister(p, NETSHM_PM_FILE, "/tmp/none"));
    panics(netshm_pmanage_register_many(p, &kind, names, 1));
    panics(netshm_pmanage_list(p, &kinds, &paths, &n));
    panics(netshm_pmanage_unlink(p));
    panics(netshm_pmanage_unlink_this(NETSHM_PM_FILE, "/tmp/none"));
    panics(netshm_pmanage_close(p));
    ok(nothing == NULL && kinds == NULL && paths == NULL && n == 0);
    good(netshm_pmanage_unlink(p));
    good(netshm_pmanage_close(p));
}

int main(void)
{
    place *p = place_new();
    netshm_object *o = NULL, *no = NULL;
    netshm_hashtbl *t = NULL, *nt = NULL;
    netshm_table *table;
    netshm_cursor *c = NULL, *nc = NULL;
    netshm_txn *x = NULL, *nx = NULL;
    netshm_slice *slices = NULL, key = { "k", 1 };
    netshm_root_info *infos = NULL;
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

    panics(netshm_open(NETSHM_POSIX, p->file, p->mem, CREATE, 0600, &no));
    panics(netshm_roots(o, &infos, &len));
    panics(netshm_root_drop(o, "none"));
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
    panics(netshm_sync(o, 0));
    panics(netshm_backup(o, NETSHM_FILE, "/tmp/netshm-never-made", NULL, 0600, 0, 0, NULL));
    panics(netshm_salvage(NETSHM_FILE, "/tmp/netshm-never-made", NULL, NETSHM_FILE, "/tmp/netshm-never-made-2", NULL, 0600, 0,
                          NULL));
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
    panics(netshm_update_append((netshm_update *)buffer, "v", 1));
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
    ok(no == NULL && nt == NULL && nc == NULL && nx == NULL && block == NULL && slices == NULL && infos == NULL && len == 0);

    /* All handles are as they were. */
    is(netshm_group(table, panics_inside, t), NETSHM_E_PANIC);
    is(has(t, "k", "v"), 1);
    good(netshm_group_commit(x));
    is(netshm_group(table, panics_inside, t), NETSHM_E_PANIC);
    is(has(t, "k", "v"), 1);
    good(netshm_cursor_next(c, NULL, NULL));
    good(netshm_cursor_close(c));
    types();
    typed(o);
    arrays(o);
    primitives(o);
    lists();
    good(netshm_close(o));
    good(netshm_hashtbl_close(t));
    is(place_check(p), NETSHM_OK);
    return done();
}
