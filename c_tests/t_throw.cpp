/* Goal: an exception that leaves a callback ends the process, as does the end of the callback's thread. Method: in a
 * child, a callback of every kind throws on every way that leads to it, while the caller stands ready to catch; the
 * child must die by SIGABRT. Without throwing, the same calls return: the callbacks are reached. */
#include "support.h"
#include <sys/resource.h>

static netshm_object *damaged;
static netshm_hashtbl *raw, *typed, *custom;
static netshm_table *table, *primitive;
static netshm_array *array;
static netshm_result *result;
static netshm_value cell, thing;
static bool armed;
static int reached;

static int leave()
{
    reached++;
    if (armed) throw 1;
    return 0;
}

/* One callback of each type that the header has. */
static const netshm_view_fn view = [](const void *, size_t, void *) { return leave(); };
static const netshm_update_fn update = [](netshm_update *, const void *, size_t, void *) { return leave(); };
static const netshm_update_v_fn update_v = [](netshm_update *, const netshm_value *, size_t, void *) { return leave(); };
static const netshm_iter_fn visit = [](netshm_slice, netshm_slice, void *) { return leave(); };
static const netshm_iter_v_fn visit_v =
    [](const netshm_value *, size_t, const netshm_value *, size_t, void *) { return leave(); };
static const netshm_array_iter_fn element = [](uint64_t, netshm_slice, void *) { return leave(); };
static const netshm_array_iter_v_fn element_v = [](uint64_t, const netshm_value *, size_t, void *) { return leave(); };
static const netshm_words_fn words = [](int32_t, const int32_t *, size_t, void *) { return leave(); };
static const netshm_block_fn block = [](int32_t *, size_t, void *) { return leave(); };
static const netshm_damage_fn damage = [](int, int64_t, const char *, void *) { return leave(); };
static const netshm_group_fn group = [](netshm_txn *, void *) { return leave() + NETSHM_COMMIT; };
static const netshm_encode_fn encode =
    [](const void *, netshm_update *out, void *) { return leave() + netshm_update_set(out, "x", 1); };
static const netshm_decode_fn decode = [](netshm_slice, void **made, void *) { *made = &armed; return leave(); };
static const netshm_drop_fn drop = [](void *, void *) { leave(); };

static const netshm_view_fn ends_thread = [](const void *, size_t, void *) {
    reached++;
    if (armed) pthread_exit(NULL);
    return 0;
};

/* One call for each way to a callback. */
static int by_view() { return netshm_hashtbl_view(raw, "k", 1, view, NULL, NULL); }
static int by_end_of_thread() { return netshm_hashtbl_view(raw, "k", 1, ends_thread, NULL, NULL); }
static int by_update() { return netshm_hashtbl_update(raw, "k", 1, update, NULL); }
static int by_update_v() { return netshm_hashtbl_update_v(typed, &cell, 1, update_v, NULL); }
static int by_iter() { return netshm_hashtbl_iter(raw, visit, NULL); }
static int by_iter_keys() { return netshm_hashtbl_iter_keys(raw, visit, NULL); }
static int by_iter_v() { return netshm_hashtbl_iter_v(typed, visit_v, NULL); }
static int by_iter_keys_v() { return netshm_hashtbl_iter_keys_v(typed, visit_v, NULL); }
static int by_array_iter() { return netshm_array_iter(array, element, NULL); }
static int by_array_iter_v() { return netshm_array_iter_v(array, element_v, NULL); }
static int by_table_iter() { return netshm_table_iter(primitive, words, NULL); }
static int by_table_iter_keys() { return netshm_table_iter_keys(primitive, words, NULL); }
static int by_read_blocks() { return netshm_table_read_blocks(primitive, 1, block, NULL); }
static int by_write_blocks() { return netshm_table_write_blocks(primitive, 0, 1, block, NULL); }
static int by_group() { return netshm_group(table, group, NULL); }
static int by_group_retry() { return netshm_group_retry(table, -1, group, NULL); }
static int by_encode() { return netshm_hashtbl_replace_v(custom, &cell, 1, &thing, 1); }
static int by_decode() { return netshm_hashtbl_find_v(custom, &cell, 1, result); }

static int by_drop()
{
    bool throws = armed;
    armed = false;
    netshm_result *r = NULL;
    int code = netshm_result_new(&r);
    if (code == NETSHM_OK) code = netshm_hashtbl_find_v(custom, &cell, 1, r);
    armed = throws;
    reached = 0;
    return code == NETSHM_OK ? netshm_result_free(r) : code;
}

static int by_check()
{
    int code = netshm_check(damaged, 0, damage, NULL);
    return code == NETSHM_E_CORRUPT ? NETSHM_OK : code;
}

static const struct way { const char *name; int (*call)(); } ways[] = {
    { "view", by_view }, { "the end of the thread", by_end_of_thread }, { "update", by_update },
    { "update_v", by_update_v }, { "iter", by_iter }, { "iter_keys", by_iter_keys }, { "iter_v", by_iter_v },
    { "iter_keys_v", by_iter_keys_v }, { "array_iter", by_array_iter }, { "array_iter_v", by_array_iter_v },
    { "table_iter", by_table_iter }, { "table_iter_keys", by_table_iter_keys }, { "read_blocks", by_read_blocks },
    { "write_blocks", by_write_blocks }, { "group", by_group }, { "group_retry", by_group_retry },
    { "encode", by_encode }, { "decode", by_decode }, { "drop", by_drop }, { "check", by_check },
};

struct trial { const way *w; bool in_group; };

/* 0: the exception came through; 1: the call returned; 2: there was no way to try. */
static int expects_end(void *arg)
{
    const trial *t = static_cast<const trial *>(arg);
    const rlimit none = { 0, 0 };
    netshm_txn *g = NULL;
    setrlimit(RLIMIT_CORE, &none);
    if (freopen("/dev/null", "w", stderr) == NULL) return 2;
    if (t->in_group && netshm_group_begin(table, &g) != NETSHM_OK) return 2;
    armed = true;
    try {
        t->w->call();
    } catch (int) {
        return 0;
    }
    return 1;
}

static void attempt(const way *w, bool in_group)
{
    trial t = { w, in_group };
    note("%s%s", w->name, in_group ? ", in a group" : "");
    is(in_child(expects_end, &t), 1000 + SIGABRT);
}

/* An object in a file, with a count that is wrong. */
static void damage_one(const place *p)
{
    const off_t at = 4 * 4096 + 72;
    unsigned char count = 0;
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    good(netshm_open(NETSHM_FILE, p->file, NULL, CREATE, 0600, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    int fd = open(p->file, O_RDWR);
    ok(pread(fd, &count, 1, at) == 1);
    count ^= 1;
    ok(pwrite(fd, &count, 1, at) == 1);
    close(fd);
    good(netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDONLY, 0600, &damaged));
}

static netshm_options named(const char *root)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    options.root = root;
    return options;
}

/* A table of custom values, with one in it. */
static void make_custom(netshm_object *o)
{
    netshm_options options = named("custom");
    netshm_custom description = netshm_custom();
    netshm_type *integer = NULL, *of = NULL;
    description.size = sizeof description;
    description.name = "thing";
    description.encode = encode;
    description.decode = decode;
    description.drop = drop;
    good(netshm_type_custom(&description, &of));
    good(netshm_type_parse("int", &integer));
    good(netshm_hashtbl_manage(o, integer, of, &options, &custom));
    good(by_encode());
    good(netshm_type_close(integer));
    good(netshm_type_close(of));
}

/* One binding, or one element, in each. */
static void make_all(netshm_object *o)
{
    const int32_t word = 1;
    netshm_options options = named("typed");
    cell = netshm_int(1);
    thing = netshm_custom_object(&armed);
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &raw));
    table = netshm_hashtbl_table(raw);
    good(put(raw, "k", "v"));
    good(netshm_hashtbl_manage_as(o, "int", "int", &options, &typed));
    good(netshm_hashtbl_replace_v(typed, &cell, 1, &cell, 1));
    options = named("array");
    good(netshm_array_manage_int64(o, 0, 10, &options, &array));
    good(netshm_array_set_int64(array, 1, 1));
    options = named("primitive");
    good(netshm_table_manage(o, &options, &primitive));
    good(netshm_table_add(primitive, 1, &word, 1));
    make_custom(o);
    good(netshm_result_new(&result));
}

int main()
{
    const place *p = place_new();
    netshm_object *o = NULL;
    damage_one(place_new());
    good(place_open(p, CREATE, &o));
    make_all(o);
    for (const way &w : ways) {
        reached = 0;
        note("%s", w.name);
        good(w.call());
        ok(reached > 0);
        attempt(&w, false);
        if (w.call != by_check) attempt(&w, true);
    }
    good(netshm_result_free(result));
    good(netshm_hashtbl_close(custom));
    good(netshm_table_close(primitive));
    good(netshm_array_close(array));
    good(netshm_hashtbl_close(typed));
    good(netshm_hashtbl_close(raw));
    good(netshm_close(o));
    good(netshm_close(damaged));
    is(place_check(p), NETSHM_OK);
    return done();
}
