/* Goal: a call that cannot be made where it is made says so at once, and nothing has changed. Method: all calls that change,
 * lock or replace something of an object, through its handles and through those of a second open, from callbacks that
 * hold a key, in a group, and in a child of a process that has a group open; what finds is asked at the same places. */
#include "support.h"

static place *p;
static netshm_object *o, *second;
static netshm_table *words, *words_again;
static netshm_hashtbl *raw, *typed;
static netshm_array *numbers;
static netshm_result *r;
static int fd = -1, wrong;

/* In a child and in the middle of a call, where a test of its own for each would be in the way: counts, and says what
 * was wrong. */
#define gives(call, wanted) expect(call, wanted, #call, __LINE__)

static void expect(int code, int wanted, const char *call, int line)
{
    if (code == wanted) return;
    wrong++;
    note("line %d: %s is %d, not %d", line, call, code, wanted);
}

static int wrong_so_far(void)
{
    int n = wrong;
    wrong = 0;
    return n;
}

static int empty_group(netshm_txn *x, void *arg) { (void)x, (void)arg; return NETSHM_COMMIT; }
static int keep(netshm_update *u, const void *old, size_t n, void *arg)
{
    (void)u, (void)old, (void)n, (void)arg;
    return NETSHM_KEEP;
}
static int keep_v(netshm_update *u, const netshm_value *old, size_t n, void *arg)
{
    (void)u, (void)old, (void)n, (void)arg;
    return NETSHM_KEEP;
}
static int go(int32_t *w, size_t n, void *arg) { (void)w, (void)n, (void)arg; return NETSHM_BLOCK_GO; }
static int see(netshm_slice k, netshm_slice v, void *arg) { (void)k, (void)v, (void)arg; return NETSHM_CONTINUE; }
static int see_bytes(const void *data, size_t len, void *arg) { (void)data, (void)len, (void)arg; return 1; }
static int see_words(int32_t k, const int32_t *w, size_t n, void *arg)
{
    (void)k, (void)w, (void)n, (void)arg;
    return NETSHM_CONTINUE;
}
static int see_element(uint64_t i, netshm_slice e, void *arg) { (void)i, (void)e, (void)arg; return NETSHM_CONTINUE; }

/* What changes bindings and elements, and what belongs to groups. */
static void changes(int wanted)
{
    int32_t word = 9;
    int64_t number = 9;
    size_t n = 0;
    netshm_txn *x = NULL;
    netshm_value key[1], val[2];
    netshm_slice one = { "k", 1 };
    key[0] = netshm_str("k");
    val[0] = netshm_int(9);
    val[1] = netshm_str("nine");
    gives(netshm_table_add(words, 1, &word, 1), wanted);
    gives(netshm_table_replace(words, 2, &word, 1), wanted);
    gives(netshm_table_remove(words, 1, NULL), wanted);
    gives(netshm_table_write_blocks(words, 0, 1, go, NULL), wanted);
    gives(netshm_table_add(words_again, 1, &word, 1), wanted);
    gives(netshm_table_replace(words_again, 1, &word, 1), wanted);
    gives(netshm_table_remove(words_again, 2, NULL), wanted);
    gives(netshm_hashtbl_add(raw, "k", 1, "w", 1), wanted);
    gives(netshm_hashtbl_replace(raw, "k", 1, "w", 1), wanted);
    gives(netshm_hashtbl_insert(raw, "new", 3, "w", 1), wanted);
    gives(netshm_hashtbl_remove(raw, "k", 1, NULL), wanted);
    gives(netshm_hashtbl_incr(raw, "count", 5, 1, 0, NULL), wanted);
    gives(netshm_hashtbl_cas(raw, "k", 1, "v", 1, "w", 1), wanted);
    gives(netshm_hashtbl_update(raw, "k", 1, keep, NULL), wanted);
    gives(netshm_hashtbl_replace_many(raw, &one, &one, 1, &n), wanted);
    gives(netshm_hashtbl_add_many(raw, &one, &one, 1, &n), wanted);
    gives(netshm_hashtbl_add_v(typed, key, 1, val, 2), wanted);
    gives(netshm_hashtbl_replace_v(typed, key, 1, val, 2), wanted);
    gives(netshm_hashtbl_remove_v(typed, key, 1, NULL), wanted);
    gives(netshm_hashtbl_update_v(typed, key, 1, keep_v, NULL), wanted);
    gives(netshm_hashtbl_cas_v(typed, key, 1, val, 2, val, 2), wanted);
    gives(netshm_array_set_int64(numbers, 1, 9), wanted);
    gives(netshm_array_incr(numbers, 1, 1, NULL), wanted);
    gives(netshm_array_write(numbers, 0, 1, &number, 8), wanted);
    gives(netshm_array_resize(numbers, 5), wanted);
    gives(netshm_group(words, empty_group, NULL), wanted);
    gives(netshm_group_retry(words_again, 0, empty_group, NULL), wanted);
    gives(netshm_group_begin(netshm_hashtbl_table(raw), &x), wanted);
    gives(x == NULL, 1);
}

/* What is about an object as a whole. */
static void wholes(int wanted)
{
    netshm_object *opened = NULL;
    netshm_table *t = NULL;
    netshm_hashtbl *h = NULL;
    netshm_array *a = NULL;
    netshm_options again = NETSHM_OPTIONS_INIT, named = NETSHM_OPTIONS_INIT;
    char backup[64];
    again.flags = NETSHM_REINIT;
    named.root = "made where it cannot be";
    snprintf(backup, sizeof backup, "%s.backup", p->file);
    gives(netshm_root_drop(o, "raw"), wanted);
    gives(netshm_root_drop(second, "raw"), wanted);
    gives(netshm_table_manage(o, &again, &t), wanted);
    gives(netshm_table_manage(second, &again, &t), wanted);
    gives(netshm_table_manage(o, &named, &t), wanted);
    gives(netshm_hashtbl_manage(second, NULL, NULL, &named, &h), wanted);
    gives(netshm_hashtbl_manage_as(o, "int", "string", &named, &h), wanted);
    gives(netshm_array_manage_int64(o, 0, 1, &named, &a), wanted);
    named.root = "numbers";
    named.flags = NETSHM_REINIT;
    gives(netshm_array_manage_int64(second, 0, 1, &named, &a), wanted);
    gives(place_open(p, NETSHM_RDWR | NETSHM_TRUNC, &opened), wanted);
    gives(netshm_open_fd(fd, NETSHM_RDWR | NETSHM_TRUNC, &opened), wanted);
    gives(netshm_sync(o, 0), wanted);
    gives(netshm_sync(second, -1), wanted);
    gives(netshm_backup(o, NETSHM_FILE, backup, NULL, 0600, 0, 0, NULL), wanted);
    gives(netshm_backup(second, NETSHM_FILE, backup, NULL, 0600, 0, 0, NULL), wanted);
    gives(netshm_check(o, 0, NULL, NULL), wanted);
    gives(netshm_check(second, 0, NULL, NULL), wanted);
    gives(access(backup, F_OK), -1);
    gives(opened == NULL && t == NULL && h == NULL && a == NULL, 1);
}

/* What finds. */
static void finds(int wanted)
{
    int32_t word = 0;
    int64_t number = 0;
    uint64_t count = 0;
    size_t n = 0;
    int found = 0;
    char buffer[8];
    netshm_value key[1];
    netshm_words *all = NULL;
    netshm_cursor *c = NULL;
    key[0] = netshm_str("k");
    gives(netshm_table_find(words, 1, &word, 1, &n), wanted);
    gives(netshm_table_find(words_again, 1, &word, 1, &n), wanted);
    if (wanted == NETSHM_OK) gives(word, 5);
    gives(netshm_table_find_all(words, 1, &all, &n), wanted);
    netshm_free(all);
    gives(netshm_table_mem(words, 1, &found), wanted);
    gives(netshm_table_length(words, &count), wanted);
    gives(netshm_table_iter(words, see_words, NULL), wanted);
    gives(netshm_table_iter_keys(words, see_words, NULL), wanted);
    gives(netshm_table_read_blocks(words_again, 1, go, NULL), wanted);
    gives(netshm_hashtbl_find(raw, "k", 1, buffer, sizeof buffer, &n), wanted);
    if (wanted == NETSHM_OK) gives(buffer[0], 'v');
    gives(netshm_hashtbl_view(raw, "k", 1, see_bytes, NULL, &found), wanted);
    gives(netshm_hashtbl_iter(raw, see, NULL), wanted);
    gives(netshm_hashtbl_length(raw, &count), wanted);
    gives(netshm_cursor_open(raw, 0, &c), NETSHM_OK);
    gives(netshm_cursor_next(c, NULL, NULL), wanted);
    gives(netshm_cursor_close(c), NETSHM_OK);
    gives(netshm_hashtbl_find_v(typed, key, 1, r), wanted);
    gives(netshm_array_get_int64(numbers, 1, &number), wanted);
    gives(netshm_array_length(numbers, &count), wanted);
    gives(netshm_array_read(numbers, 0, 1, &number, 8), wanted);
    gives(netshm_array_iter(numbers, see_element, NULL), wanted);
}

/* What asks nothing of a key, and works everywhere. */
static void others(void)
{
    netshm_object *opened = NULL;
    netshm_table *t = NULL;
    netshm_root_info *roots = NULL;
    size_t n = 0;
    gives(place_open(p, RW, &opened), NETSHM_OK);
    gives(netshm_table_manage(opened, NULL, &t), NETSHM_OK);
    gives(netshm_roots(opened, &roots, &n), NETSHM_OK);
    gives((int)n, 4);
    netshm_free(roots);
    gives(netshm_table_close(t), NETSHM_OK);
    gives(netshm_close(opened), NETSHM_OK);
    gives(netshm_array_default(numbers, r), NETSHM_OK);
}

static int find_code, calls;

/* Asks once, holding a key. */
static void ask(void)
{
    char *text = NULL;
    if (calls++ > 0) return;
    changes(NETSHM_E_IN_CALLBACK);
    wholes(NETSHM_E_IN_CALLBACK);
    gives(netshm_table_dump(words, &text), NETSHM_E_IN_CALLBACK);
    finds(find_code);
    others();
}

static int ask_of_blocks(int32_t *w, size_t n, void *arg)
{
    (void)w, (void)n, (void)arg;
    ask();
    return NETSHM_BLOCK_GO;
}

static int ask_of_update(netshm_update *u, const void *old, size_t n, void *arg)
{
    (void)u, (void)old, (void)n, (void)arg;
    ask();
    return NETSHM_KEEP;
}

/* All is as it was made. */
static int as_made(void)
{
    int32_t word = 0;
    int64_t number = 0;
    uint64_t count[4] = { 0, 0, 0, 0 };
    size_t n = 0;
    const netshm_value *v = NULL;
    netshm_value key[1];
    key[0] = netshm_str("k");
    gives(netshm_table_find(words, 1, &word, 1, &n), NETSHM_OK);
    gives(word, 5);
    gives(has(raw, "k", "v"), 1);
    gives(netshm_hashtbl_find_v(typed, key, 1, r), NETSHM_OK);
    gives(netshm_result_values(r, &v, &n), NETSHM_OK);
    gives(n == 2 && v[0].as.i == 1, 1);
    gives(netshm_array_get_int64(numbers, 1, &number), NETSHM_OK);
    gives((int)number, 7);
    gives(netshm_table_length(words, &count[0]), NETSHM_OK);
    gives(netshm_hashtbl_length(raw, &count[1]), NETSHM_OK);
    gives(netshm_hashtbl_length(typed, &count[2]), NETSHM_OK);
    gives(netshm_array_length(numbers, &count[3]), NETSHM_OK);
    gives(count[0] == 1 && count[1] == 1 && count[2] == 1 && count[3] == 10, 1);
    gives(netshm_check(o, 0, NULL, NULL), NETSHM_OK);
    return wrong_so_far();
}

static void in_callbacks(void)
{
    netshm_txn *x = NULL;
    find_code = NETSHM_OK;
    calls = 0;
    good(netshm_table_write_blocks(words, NETSHM_BLOCK_REMOVE, 1, ask_of_blocks, NULL));
    is(wrong_so_far(), 0);
    is(calls, 2);
    is(as_made(), 0);
    calls = 0;
    good(netshm_hashtbl_update(raw, "k", 1, ask_of_update, NULL));
    is(wrong_so_far(), 0);
    is(calls, 1);
    is(as_made(), 0);

    /* In a group finding would see what the callback is about to change. */
    find_code = NETSHM_E_IN_CALLBACK;
    calls = 0;
    good(netshm_group_begin(words, &x));
    good(netshm_table_write_blocks(words_again, 0, 1, ask_of_blocks, NULL));
    good(netshm_hashtbl_update(raw, "k", 1, ask_of_update, NULL));
    is(wrong_so_far(), 0);
    is(calls, 3);
    good(netshm_group_commit(x));
    is(as_made(), 0);
}

static int ask_of_parents_group(void *arg)
{
    (void)arg;
    alarm(60);
    changes(NETSHM_E_FORKED);
    wholes(NETSHM_E_FORKED);
    finds(NETSHM_E_FORKED);
    others();
    return wrong_so_far();
}

static void in_groups(void)
{
    netshm_txn *x = NULL;
    good(netshm_group_begin(netshm_array_table(numbers), &x));
    wholes(NETSHM_E_IN_GROUP);
    finds(NETSHM_OK);
    others();
    is(wrong_so_far(), 0);
    is(in_child(ask_of_parents_group, NULL), 0);
    good(put(raw, "k", "w"));
    is(in_child(ask_of_parents_group, NULL), 0);
    good(netshm_group_abort(x));
    is(as_made(), 0);
}

int main(void)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    int32_t word = 5;
    netshm_value key[1], val[2];
    p = place_new();
    good(place_open(p, CREATE, &o));
    good(place_open(p, RW, &second));
    good(netshm_fd(o, &fd));
    good(netshm_result_new(&r));
    good(netshm_table_manage(o, NULL, &words));
    good(netshm_table_manage(second, NULL, &words_again));
    options.root = "raw";
    good(netshm_hashtbl_manage(o, NULL, NULL, &options, &raw));
    options.root = "typed";
    good(netshm_hashtbl_manage_as(second, "string", "(int,string)", &options, &typed));
    options.root = "numbers";
    good(netshm_array_manage_int64(o, 7, 10, &options, &numbers));
    good(netshm_table_add(words, 1, &word, 1));
    good(put(raw, "k", "v"));
    key[0] = netshm_str("k");
    val[0] = netshm_int(1);
    val[1] = netshm_str("one");
    good(netshm_hashtbl_add_v(typed, key, 1, val, 2));
    is(as_made(), 0);

    in_callbacks();
    in_groups();

    good(netshm_table_close(words));
    good(netshm_table_close(words_again));
    good(netshm_hashtbl_close(raw));
    good(netshm_hashtbl_close(typed));
    good(netshm_array_close(numbers));
    good(netshm_result_free(r));
    good(netshm_close(o));
    good(netshm_close(second));
    return done();
}
