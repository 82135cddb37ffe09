/* Goal: NULL where a pointer is needed is refused, with the number of the argument. Method: each pointer argument of
 * each function of types, results, typed tables, arrays, primitive tables, lists; t_args has the other ones.
 * c_tests/calls.sh sees to it that no function is left out. */
#include "support.h"

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

/* The call refuses argument n because it is NULL. */
#define null(call, n) (is(call, NETSHM_E_INVALID), is(last().argument, n), ok(strstr(last_text(), "NULL") != NULL))

static netshm_object *o;
static netshm_type *of, *no_type;
static netshm_result *r;
static netshm_value k[1], v[1];
static char buffer[16];
static uint64_t count;
static int64_t sum;
static size_t n;
static int number;

static netshm_options named(const char *root)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    options.root = root;
    return options;
}

static void objects(void)
{
    netshm_root_info *infos = NULL;
    null(netshm_roots(NULL, &infos, &n), 1);
    null(netshm_roots(o, NULL, &n), 2);
    null(netshm_roots(o, &infos, NULL), 3);
    null(netshm_root_drop(NULL, "none"), 1);
    null(netshm_root_drop(o, NULL), 2);
    null(netshm_update_append(NULL, "v", 1), 1);
    null(netshm_update_append((netshm_update *)buffer, NULL, 1), 2);
    ok(infos == NULL);
}

static void types(void)
{
    netshm_custom custom;
    const char *text = NULL;
    memset(&custom, 0, sizeof custom);
    custom.size = sizeof custom;
    null(netshm_type_parse(NULL, &no_type), 1);
    null(netshm_type_parse("int", NULL), 2);
    null(netshm_type_pair(NULL, of, &no_type), 1);
    null(netshm_type_pair(of, NULL, &no_type), 2);
    null(netshm_type_pair(of, of, NULL), 3);
    null(netshm_type_left(NULL, &no_type), 1);
    null(netshm_type_left(of, NULL), 2);
    null(netshm_type_option(NULL, &no_type), 1);
    null(netshm_type_option(of, NULL), 2);
    null(netshm_type_custom(NULL, &no_type), 1);
    null(netshm_type_custom(&custom, &no_type), 1);
    null(netshm_type_custom(&custom, NULL), 2);
    null(netshm_type_signature(NULL, &text), 1);
    null(netshm_type_signature(of, NULL), 2);
    good(netshm_type_close(NULL));
    ok(text == NULL);
}

static void results(void)
{
    const netshm_value *cells = NULL;
    null(netshm_result_new(NULL), 1);
    null(netshm_result_values(NULL, &cells, &n), 1);
    null(netshm_result_values(r, NULL, &n), 2);
    null(netshm_result_values(r, &cells, NULL), 3);
    null(netshm_result_at(NULL, 0, &cells, &n), 1);
    null(netshm_result_at(r, 0, NULL, &n), 3);
    null(netshm_result_at(r, 0, &cells, NULL), 4);
    good(netshm_result_free(NULL));
    ok(cells == NULL);
}

/* Calls that take a table, a key and a value. */
static void changes(netshm_hashtbl *t)
{
    null(netshm_hashtbl_add_v(NULL, k, 1, v, 1), 1);
    null(netshm_hashtbl_add_v(t, NULL, 1, v, 1), 2);
    null(netshm_hashtbl_add_v(t, k, 1, NULL, 1), 4);
    null(netshm_hashtbl_replace_v(NULL, k, 1, v, 1), 1);
    null(netshm_hashtbl_replace_v(t, NULL, 1, v, 1), 2);
    null(netshm_hashtbl_replace_v(t, k, 1, NULL, 1), 4);
    null(netshm_hashtbl_insert_v(NULL, k, 1, v, 1), 1);
    null(netshm_hashtbl_insert_v(t, NULL, 1, v, 1), 2);
    null(netshm_hashtbl_insert_v(t, k, 1, NULL, 1), 4);
    null(netshm_hashtbl_remove_v(NULL, k, 1, &number), 1);
    null(netshm_hashtbl_remove_v(t, NULL, 1, &number), 2);
    null(netshm_hashtbl_incr_v(NULL, k, 1, 1, 1, &sum), 1);
    null(netshm_hashtbl_incr_v(t, NULL, 1, 1, 1, &sum), 2);
    null(netshm_hashtbl_cas_v(NULL, k, 1, v, 1, v, 1), 1);
    null(netshm_hashtbl_cas_v(t, NULL, 1, v, 1, v, 1), 2);
    null(netshm_hashtbl_cas_v(t, k, 1, NULL, 1, v, 1), 4);
    null(netshm_hashtbl_cas_v(t, k, 1, v, 1, NULL, 1), 6);
    null(netshm_hashtbl_update_v(NULL, k, 1, update_v, NULL), 1);
    null(netshm_hashtbl_update_v(t, NULL, 1, update_v, NULL), 2);
    null(netshm_hashtbl_update_v(t, k, 1, NULL, NULL), 4);
    null(netshm_update_set_v(NULL, v, 1), 1);
    null(netshm_update_set_v((netshm_update *)buffer, NULL, 1), 2);
    is(netshm_update_set_v((netshm_update *)buffer, v, 1), NETSHM_E_CLOSED);
    is(netshm_hashtbl_length(t, &count), NETSHM_OK);
    is(count, 0);
}

static void finds(netshm_hashtbl *t)
{
    null(netshm_hashtbl_mem_v(NULL, k, 1, &number), 1);
    null(netshm_hashtbl_mem_v(t, NULL, 1, &number), 2);
    null(netshm_hashtbl_mem_v(t, k, 1, NULL), 4);
    null(netshm_hashtbl_find_v(NULL, k, 1, r), 1);
    null(netshm_hashtbl_find_v(t, NULL, 1, r), 2);
    null(netshm_hashtbl_find_v(t, k, 1, NULL), 4);
    null(netshm_hashtbl_find_all_v(NULL, k, 1, r, &n), 1);
    null(netshm_hashtbl_find_all_v(t, NULL, 1, r, &n), 2);
    null(netshm_hashtbl_find_all_v(t, k, 1, NULL, &n), 4);
    null(netshm_hashtbl_find_all_v(t, k, 1, r, NULL), 5);
    null(netshm_hashtbl_iter_v(NULL, visit_v, NULL), 1);
    null(netshm_hashtbl_iter_v(t, NULL, NULL), 2);
    null(netshm_hashtbl_iter_keys_v(NULL, visit_v, NULL), 1);
    null(netshm_hashtbl_iter_keys_v(t, NULL, NULL), 2);
    null(netshm_cursor_next_v(NULL, r, NULL), 1);
    null(netshm_hashtbl_stamp_v(NULL, k, 1, &count), 1);
    null(netshm_hashtbl_stamp_v(t, NULL, 1, &count), 2);
    null(netshm_hashtbl_stamp_v(t, k, 1, NULL), 4);
    null(netshm_hashtbl_wait_v(NULL, k, 1, &count, 0), 1);
    null(netshm_hashtbl_wait_v(t, NULL, 1, &count, 0), 2);
    null(netshm_hashtbl_wait_v(t, k, 1, NULL, 0), 4);
}

static void typed(void)
{
    netshm_options options = named("typed");
    netshm_hashtbl *t = NULL, *nothing = NULL;
    null(netshm_hashtbl_manage_as(NULL, "int", "int", &options, &nothing), 1);
    null(netshm_hashtbl_manage_as(o, "int", "int", &options, NULL), 5);
    good(netshm_hashtbl_manage_as(o, "int", "int", &options, &t));
    changes(t);
    finds(t);
    good(netshm_hashtbl_close(t));
    ok(nothing == NULL && count == 0);
}

static void arrays(void)
{
    netshm_options options = named("array");
    netshm_array *a = NULL, *nothing = NULL;
    null(netshm_array_manage_int64(NULL, 0, 10, &options, &nothing), 1);
    null(netshm_array_manage_int64(o, 0, 10, &options, NULL), 5);
    null(netshm_array_manage(NULL, of, v, 1, 10, &options, &nothing), 1);
    null(netshm_array_manage(o, NULL, v, 1, 10, &options, &nothing), 2);
    null(netshm_array_manage(o, of, NULL, 1, 10, &options, &nothing), 3);
    null(netshm_array_manage(o, of, v, 1, 10, &options, NULL), 7);
    good(netshm_array_manage_int64(o, 0, 10, &options, &a));
    ok(netshm_array_table(NULL) == NULL);
    null(netshm_array_length(NULL, &count), 1);
    null(netshm_array_length(a, NULL), 2);
    null(netshm_array_resize(NULL, 5), 1);
    null(netshm_array_get_int64(NULL, 0, &sum), 1);
    null(netshm_array_get_int64(a, 0, NULL), 3);
    null(netshm_array_set_int64(NULL, 0, 2), 1);
    null(netshm_array_incr(NULL, 0, 1, &sum), 1);
    null(netshm_array_read(NULL, 0, 1, buffer, 8), 1);
    null(netshm_array_read(a, 0, 1, NULL, 8), 4);
    null(netshm_array_write(NULL, 0, 1, buffer, 8), 1);
    null(netshm_array_write(a, 0, 1, NULL, 8), 4);
    null(netshm_array_iter(NULL, element, NULL), 1);
    null(netshm_array_iter(a, NULL, NULL), 2);
    null(netshm_array_get(NULL, 0, r), 1);
    null(netshm_array_get(a, 0, NULL), 3);
    null(netshm_array_set(NULL, 0, v, 1), 1);
    null(netshm_array_set(a, 0, NULL, 1), 3);
    null(netshm_array_default(NULL, r), 1);
    null(netshm_array_default(a, NULL), 2);
    null(netshm_array_iter_v(NULL, element_v, NULL), 1);
    null(netshm_array_iter_v(a, NULL, NULL), 2);
    good(netshm_array_close(NULL));
    good(netshm_array_close(a));
    ok(nothing == NULL);
}

static void primitives(void)
{
    netshm_options options = named("primitive");
    netshm_table *t = NULL, *nothing = NULL;
    netshm_words *all = NULL;
    int32_t word = 1;
    char *text = NULL;
    null(netshm_table_manage(NULL, &options, &nothing), 1);
    null(netshm_table_manage(o, &options, NULL), 3);
    good(netshm_table_manage(o, &options, &t));
    null(netshm_table_add(NULL, 1, &word, 1), 1);
    null(netshm_table_add(t, 1, NULL, 1), 3);
    null(netshm_table_replace(NULL, 1, &word, 1), 1);
    null(netshm_table_replace(t, 1, NULL, 1), 3);
    null(netshm_table_remove(NULL, 1, &number), 1);
    null(netshm_table_mem(NULL, 1, &number), 1);
    null(netshm_table_mem(t, 1, NULL), 3);
    null(netshm_table_find(NULL, 1, &word, 1, &n), 1);
    null(netshm_table_find(t, 1, NULL, 1, &n), 3);
    null(netshm_table_find(t, 1, &word, 1, NULL), 5);
    null(netshm_table_find_all(NULL, 1, &all, &n), 1);
    null(netshm_table_find_all(t, 1, NULL, &n), 3);
    null(netshm_table_find_all(t, 1, &all, NULL), 4);
    null(netshm_table_length(NULL, &count), 1);
    null(netshm_table_length(t, NULL), 2);
    null(netshm_table_iter(NULL, words, NULL), 1);
    null(netshm_table_iter(t, NULL, NULL), 2);
    null(netshm_table_iter_keys(NULL, words, NULL), 1);
    null(netshm_table_iter_keys(t, NULL, NULL), 2);
    null(netshm_table_read_blocks(NULL, 1, block, NULL), 1);
    null(netshm_table_read_blocks(t, 1, NULL, NULL), 3);
    null(netshm_table_write_blocks(NULL, 0, 1, block, NULL), 1);
    null(netshm_table_write_blocks(t, 0, 1, NULL, NULL), 4);
    null(netshm_table_dump(NULL, &text), 1);
    null(netshm_table_dump(t, NULL), 2);
    good(netshm_table_close(NULL));
    good(netshm_table_close(t));
    ok(nothing == NULL && all == NULL && text == NULL);
}

static void lists(void)
{
    const int kind = NETSHM_PM_FILE;
    const char *const names[] = { "/tmp/none" };
    netshm_pmanage *p = NULL;
    int *kinds = NULL;
    char **paths = NULL;
    null(netshm_pmanage_open("/tmp/none", NULL), 2);
    good(netshm_pmanage_open(NULL, &p));
    null(netshm_pmanage_register(NULL, NETSHM_PM_FILE, "/tmp/none"), 1);
    null(netshm_pmanage_register(p, NETSHM_PM_FILE, NULL), 3);
    null(netshm_pmanage_unregister(NULL, NETSHM_PM_FILE, "/tmp/none"), 1);
    null(netshm_pmanage_unregister(p, NETSHM_PM_FILE, NULL), 3);
    null(netshm_pmanage_register_many(NULL, &kind, names, 1), 1);
    null(netshm_pmanage_register_many(p, NULL, names, 1), 2);
    null(netshm_pmanage_register_many(p, &kind, NULL, 1), 3);
    null(netshm_pmanage_list(NULL, &kinds, &paths, &n), 1);
    null(netshm_pmanage_list(p, NULL, &paths, &n), 2);
    null(netshm_pmanage_list(p, &kinds, NULL, &n), 3);
    null(netshm_pmanage_list(p, &kinds, &paths, NULL), 4);
    null(netshm_pmanage_unlink(NULL), 1);
    null(netshm_pmanage_unlink_this(NETSHM_PM_FILE, NULL), 2);
    good(netshm_pmanage_close(NULL));
    good(netshm_pmanage_close(p));
    ok(kinds == NULL && paths == NULL);
}

int main(void)
{
    place *p = place_new();
    k[0] = netshm_int(1);
    v[0] = netshm_int(2);
    good(place_open(p, CREATE, &o));
    good(netshm_type_parse("int", &of));
    good(netshm_result_new(&r));
    objects();
    types();
    results();
    typed();
    arrays();
    primitives();
    lists();
    ok(no_type == NULL && n == 0 && number == 0 && sum == 0);
    good(netshm_result_free(r));
    good(netshm_type_close(of));
    good(netshm_close(o));
    is(place_check(p), NETSHM_OK);
    return done();
}
