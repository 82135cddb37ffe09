/* Goal: several tables in one object, from C. Method: make, list, group over, drop and re-initialise them. */
#include "support.h"

static netshm_object *o;

static int manage(const char *root, uint32_t flags, netshm_hashtbl **t)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    options.root = root;
    options.flags = flags;
    *t = NULL;
    return netshm_hashtbl_manage(o, NULL, NULL, &options, t);
}

/* The number of tables, and whether each has one of the names, "" for none, in any order. */
static int listed(const char *names)
{
    netshm_root_info *infos = NULL;
    size_t n = 99, i;
    int code = netshm_roots(o, &infos, &n);
    if (code != NETSHM_OK) return code;
    for (i = 0; i < n; i++) {
        if (infos[i].kind != NETSHM_TABLE_HASHTBL || infos[i].reserved != 0) return -1;
        if (strcmp(infos[i].key_type, "") != 0 || strcmp(infos[i].value_type, "") != 0) return -2;
        if (infos[i].name == NULL ? i != 0 : strstr(names, infos[i].name) == NULL) return -3;
    }
    netshm_free(infos);
    return (int)n;
}

static int change_both(netshm_hashtbl *one, netshm_hashtbl *other, int commit)
{
    netshm_txn *g = NULL;
    int code = netshm_group_begin(netshm_hashtbl_table(one), &g);
    if (code != NETSHM_OK) return code;
    code = put(one, "key", "changed");
    if (code == NETSHM_OK) code = put(other, "key", "changed");
    if (code != NETSHM_OK) return code;
    return commit ? netshm_group_commit(g) : netshm_group_abort(g);
}

/* A handle of a table that was dropped is of the next one with the same name, kind and types, and of no other one. */
static void stale_until_there(netshm_hashtbl *dropped, const char *root)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_hashtbl *next = NULL;
    netshm_array *array = NULL;
    options.root = root;
    good(netshm_hashtbl_manage_as(o, "int", "string", &options, &next));
    is(has(dropped, "key", "new"), NETSHM_E_STALE);
    good(netshm_hashtbl_close(next));
    good(netshm_root_drop(o, root));
    good(netshm_array_manage_int64(o, 0, 10, &options, &array));
    is(has(dropped, "key", "new"), NETSHM_E_STALE);
    good(netshm_array_close(array));
    good(netshm_root_drop(o, root));
    is(has(dropped, "key", "new"), NETSHM_E_STALE);
    good(manage(root, 0, &next));
    is(has(dropped, "key", "new"), NETSHM_E_NOT_FOUND);
    good(put(next, "key", "new"));
    is(has(dropped, "key", "new"), 1);
    good(netshm_hashtbl_close(next));
    good(netshm_root_drop(o, root));
    is(has(dropped, "key", "new"), NETSHM_E_STALE);
}

int main(void)
{
    place *p = place_new();
    netshm_hashtbl *unnamed, *one, *other, *again;
    netshm_root_info *infos;
    char long_name[242];
    size_t n;

    good(place_open(p, CREATE, &o));
    is(listed(""), 0);
    good(manage("one", 0, &one));
    good(manage("other", 0, &other));
    good(manage("one", 0, &again));
    is(listed("one other"), 2);
    good(manage(NULL, 0, &unnamed));
    is(listed("one other"), 3);
    good(put(one, "key", "1"));
    good(put(other, "key", "2"));
    is(has(again, "key", "1"), 1);
    is(has(other, "key", "2"), 1);
    is(has(unnamed, "key", "1"), NETSHM_E_NOT_FOUND);

    /* One group for both. */
    good(change_both(one, other, 0));
    is(has(again, "key", "1"), 1);
    is(has(other, "key", "2"), 1);
    good(change_both(one, other, 1));
    is(has(again, "key", "changed"), 1);
    is(has(other, "key", "changed"), 1);

    netshm_hashtbl_close(again);

    /* Names. */
    memset(long_name, 'x', sizeof long_name);
    long_name[241] = 0;
    is(manage("", 0, &again), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(manage(long_name, 0, &again), NETSHM_E_INVALID);
    is(manage("\xff", 0, &again), NETSHM_E_INVALID);
    ok(again == NULL);
    long_name[240] = 0;
    good(manage(long_name, 0, &again));
    good(put(again, "key", "long"));
    is(netshm_root_drop(o, ""), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_root_drop(o, "\xff"), NETSHM_E_INVALID);
    is(netshm_root_drop(o, NULL), NETSHM_E_INVALID);
    is(netshm_root_drop(NULL, "one"), NETSHM_E_INVALID);
    is(netshm_root_drop(o, "none"), NETSHM_E_NOT_FOUND);
    good(netshm_root_drop(o, long_name));
    is(netshm_root_drop(o, long_name), NETSHM_E_NOT_FOUND);
    is(has(again, "key", "long"), NETSHM_E_STALE);
    stale_until_there(again, long_name);
    netshm_hashtbl_close(again);
    is(netshm_roots(NULL, &infos, &n), NETSHM_E_INVALID);
    is(netshm_roots(o, NULL, &n), NETSHM_E_INVALID);
    is(netshm_roots(o, &infos, NULL), NETSHM_E_INVALID);

    /* Not in a group. */
    {
        netshm_txn *g = NULL;
        good(netshm_group_begin(netshm_hashtbl_table(one), &g));
        is(netshm_root_drop(o, "other"), NETSHM_E_IN_GROUP);
        ok(strstr(last_text(), "removing a table") != NULL);
        good(netshm_group_abort(g));
    }

    /* One table anew, then all. */
    good(manage("one", NETSHM_REINIT, &again));
    is(has(one, "key", "changed"), NETSHM_E_NOT_FOUND);
    is(has(other, "key", "changed"), 1);
    netshm_hashtbl_close(again);
    is(listed("one other"), 3);
    good(manage(NULL, NETSHM_REINIT, &again));
    is(listed(""), 1);
    is(has(other, "key", "changed"), NETSHM_E_STALE);
    is(has(unnamed, "key", "changed"), NETSHM_E_NOT_FOUND);
    netshm_hashtbl_close(again);
    good(manage("other", 0, &again));
    is(has(other, "key", "changed"), NETSHM_E_NOT_FOUND);
    netshm_hashtbl_close(again);
    netshm_hashtbl_close(one);
    netshm_hashtbl_close(other);
    netshm_hashtbl_close(unnamed);
    netshm_close(o);
    good(place_check(p));
    return done();
}
