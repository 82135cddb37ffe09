/* Goal: what a change of one typed binding depends on: update by callback, compare-and-replace, waiting for change, with
 * cells. Method: every answer of a callback, keys and values of several cells, types that do not fit, custom types whose
 * conversions fail, groups, and a thread that waits. */
#include "support.h"

static netshm_object *o;
static netshm_hashtbl *t;
static netshm_result *r;
static netshm_value key[2];

static netshm_hashtbl *table(const char *key_type, const char *val_type)
{
    netshm_hashtbl *made = NULL;
    netshm_close(o);
    o = NULL;
    good(place_open(place_new(), CREATE, &o));
    good(netshm_hashtbl_manage_as(o, key_type, val_type, NULL, &made));
    return made;
}

/* The binding of the key is this number with this text, or none. */
static int bound(int64_t number, const char *text)
{
    const netshm_value *v = NULL;
    size_t n = 0;
    int code = netshm_hashtbl_find_v(t, key, 2, r);
    if (code != NETSHM_OK) return code;
    if (netshm_result_values(r, &v, &n) != NETSHM_OK || v[0].as.i != number) return 0;
    if (text == NULL) return n == 2 && v[1].kind == NETSHM_V_NONE;
    return n == 3 && v[1].kind == NETSHM_V_SOME && strcmp((const char *)v[2].as.s.data, text) == 0;
}

/* What the callback is to do, and what it has seen. */
struct plan {
    int answer, calls, cells, inside, raw, wrong_cells;
    int64_t seen;
    const char *text;
    int sets;
    netshm_hashtbl *close;
    netshm_update *kept;
};

static int update(netshm_update *u, const netshm_value *old, size_t no, void *arg)
{
    struct plan *p = (struct plan *)arg;
    netshm_value v[3];
    p->calls++;
    p->kept = u;
    p->cells = old == NULL ? -1 : (int)no;
    p->seen = old == NULL ? 0 : old[0].as.i;
    if (p->close != NULL) netshm_hashtbl_close(p->close);
    v[0] = netshm_int(p->seen + 1);
    v[1] = p->text == NULL ? netshm_none() : netshm_some();
    v[2] = netshm_str(p->text == NULL ? "" : p->text);
    if (p->sets) {
        p->inside = netshm_update_set_v(u, v, p->text == NULL ? 2 : 3);
        p->wrong_cells = netshm_update_set_v(u, v, 1);
        p->raw = netshm_update_set(u, "raw", 3);
        if (p->raw == NETSHM_E_TYPE) p->raw = netshm_update_append(u, "raw", 3);
    } else {
        p->inside = netshm_hashtbl_replace_v(t, key, 2, v, 2);
    }
    return p->answer;
}

static int updated(struct plan *p, int answer, int sets, const char *text)
{
    memset(p, 0, sizeof *p);
    p->answer = answer;
    p->sets = sets;
    p->text = text;
    return netshm_hashtbl_update_v(t, key, 2, update, p);
}

static void updates(void)
{
    struct plan p;
    netshm_value one[1];
    t = table("(int,string)", "(int,string?)");
    good(updated(&p, NETSHM_KEEP, 0, NULL));
    ok(p.calls == 1 && p.cells == -1 && p.inside == NETSHM_E_IN_CALLBACK);
    is(bound(0, NULL), NETSHM_E_NOT_FOUND);
    good(updated(&p, NETSHM_REMOVE, 1, "x"));
    is(bound(0, NULL), NETSHM_E_NOT_FOUND);
    good(updated(&p, NETSHM_REPLACE, 1, "one"));
    ok(p.inside == NETSHM_OK && p.wrong_cells == NETSHM_E_TYPE && p.raw == NETSHM_E_TYPE);
    is(bound(1, "one"), 1);
    good(updated(&p, NETSHM_REPLACE, 1, NULL));
    ok(p.cells == 3 && p.seen == 1);
    is(bound(2, NULL), 1);
    is(netshm_update_set_v(p.kept, key, 2), NETSHM_E_CLOSED);
    good(updated(&p, 77, 1, "ignored"));
    ok(p.cells == 2 && p.seen == 2);
    is(updated(&p, NETSHM_REPLACE, 0, NULL), NETSHM_E_CALLBACK);
    is(updated(&p, -5000, 1, "x"), -5000);
    is(updated(&p, NETSHM_E_RANGE, 1, "x"), NETSHM_E_RANGE);
    is(updated(&p, -77, 1, "x"), NETSHM_E_CALLBACK);
    is(bound(2, NULL), 1);
    one[0] = netshm_str("k");
    is(netshm_hashtbl_update_v(t, one, 1, update, &p), NETSHM_E_TYPE);
    is(netshm_hashtbl_update_v(t, NULL, 1, update, &p), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_hashtbl_update_v(t, key, 2, NULL, &p), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(netshm_hashtbl_update_v(NULL, key, 2, update, &p), NETSHM_E_INVALID);
    is(netshm_update_set_v(NULL, key, 2), NETSHM_E_INVALID);
    is(last().argument, 1);
    good(updated(&p, NETSHM_REMOVE, 0, NULL));
    is(bound(0, NULL), NETSHM_E_NOT_FOUND);

    /* The handle may go meanwhile. */
    memset(&p, 0, sizeof p);
    p.sets = 1;
    p.answer = NETSHM_REPLACE;
    p.text = "last";
    p.close = t;
    good(netshm_hashtbl_update_v(t, key, 2, update, &p));
    is(netshm_hashtbl_update_v(t, key, 2, update, &p), NETSHM_E_CLOSED);
    t = NULL;
    good(netshm_hashtbl_manage_as(o, NULL, NULL, NULL, &t));
    is(bound(1, "last"), 1);
    good(netshm_hashtbl_close(t));
}

static void in_groups(void)
{
    netshm_txn *x = NULL;
    struct plan p;
    t = table("(int,string)", "(int,string?)");
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    good(updated(&p, NETSHM_REPLACE, 1, "group"));
    good(updated(&p, NETSHM_REPLACE, 1, "again"));
    is(p.seen, 1);
    is(updated(&p, -1000, 1, "lost"), -1000);
    is(bound(2, "again"), 1);
    good(netshm_group_abort(x));
    is(bound(2, "again"), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_close(t));
}

/* A raw update takes cells of its table's type, and a custom type's conversion takes bytes only. */
static int raw_update(netshm_update *u, const void *old, size_t len, void *arg)
{
    netshm_value v[1];
    int *codes = (int *)arg;
    (void)old, (void)len;
    v[0] = netshm_int(5);
    codes[0] = netshm_update_set_v(u, v, 1);
    v[0] = netshm_str("text");
    codes[1] = netshm_update_set_v(u, v, 1);
    codes[2] = netshm_update_append(u, "!", 1);
    return NETSHM_REPLACE;
}

static int decode_answer, encode_inside, decode_inside, alive;

static int encode(const void *object, netshm_update *out, void *arg)
{
    netshm_value v[1];
    (void)arg;
    v[0] = netshm_str("cells");
    encode_inside = netshm_update_set_v(out, v, 1);
    return netshm_update_set(out, object, 4);
}

static int decode(netshm_slice bytes, void **object, void *arg)
{
    (void)arg;
    if (decode_answer != 0) return decode_answer;
    decode_inside = netshm_hashtbl_remove(t, "other", 5, NULL);
    *object = malloc(4);
    memcpy(*object, bytes.data, 4);
    alive++;
    return NETSHM_OK;
}

static void drop(void *object, void *arg)
{
    (void)arg;
    free(object);
    alive--;
}

static int custom_update(netshm_update *u, const netshm_value *old, size_t no, void *arg)
{
    netshm_value v[1];
    int next = 1;
    if (old != NULL) {
        if (no != 1 || old[0].kind != NETSHM_V_CUSTOM || alive != 1) return -1001;
        memcpy(&next, old[0].as.object, 4);
        next++;
    }
    ++*(int *)arg;
    v[0] = netshm_custom_object(&next);
    return netshm_update_set_v(u, v, 1) == NETSHM_OK ? NETSHM_REPLACE : -1002;
}

static void raw_and_custom(void)
{
    netshm_custom c;
    netshm_type *number = NULL;
    netshm_value k[1], v[1];
    int codes[3], calls = 0, five = 5;
    size_t n = 0;
    t = table(NULL, NULL);
    good(netshm_hashtbl_update(t, "k", 1, raw_update, codes));
    ok(codes[0] == NETSHM_E_TYPE && codes[1] == NETSHM_OK && codes[2] == NETSHM_OK);
    is(has(t, "k", "text!"), 1);
    good(netshm_hashtbl_close(t));

    memset(&c, 0, sizeof c);
    c.size = sizeof c;
    c.name = "number";
    c.encode = encode;
    c.decode = decode;
    c.drop = drop;
    good(netshm_type_custom(&c, &number));
    netshm_close(o);
    o = NULL;
    good(place_open(place_new(), CREATE, &o));
    good(netshm_hashtbl_manage(o, NULL, number, NULL, &t));
    good(netshm_type_close(number));
    k[0] = netshm_str("k");
    good(netshm_hashtbl_update_v(t, k, 1, custom_update, &calls));
    is(encode_inside, NETSHM_E_TYPE);
    good(netshm_hashtbl_update_v(t, k, 1, custom_update, &calls));
    ok(calls == 2 && alive == 0);
    is(decode_inside, NETSHM_E_IN_CALLBACK);
    good(netshm_hashtbl_find_v(t, k, 1, r));
    is(decode_inside, NETSHM_OK);
    good(netshm_hashtbl_find_all_v(t, k, 1, r, &n));
    is(n, 1);
    is(netshm_hashtbl_find_v(t, key + 1, 1, r), NETSHM_E_NOT_FOUND);
    is(alive, 0);
    decode_answer = -1234;
    is(netshm_hashtbl_update_v(t, k, 1, custom_update, &calls), -1234);
    is(calls, 2);
    decode_answer = 0;
    v[0] = netshm_custom_object(&five);
    is(netshm_hashtbl_cas_v(t, k, 1, v, 1, v, 1), NETSHM_E_CHANGED);
    five = 2;
    good(netshm_hashtbl_cas_v(t, k, 1, v, 1, v, 1));
    good(netshm_hashtbl_close(t));
}

static void comparing(void)
{
    netshm_value old[3], val[3], wrong[1];
    t = table("(int,string)", "(int,string?)");
    old[0] = netshm_int(1);
    old[1] = netshm_none();
    val[0] = netshm_int(2);
    val[1] = netshm_some();
    val[2] = netshm_str("two");
    is(netshm_hashtbl_cas_v(t, key, 2, old, 2, val, 3), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_add_v(t, key, 2, old, 2));
    is(netshm_hashtbl_cas_v(t, key, 2, val, 3, val, 3), NETSHM_E_CHANGED);
    is(bound(1, NULL), 1);
    good(netshm_hashtbl_cas_v(t, key, 2, old, 2, val, 3));
    is(bound(2, "two"), 1);
    is(netshm_hashtbl_cas_v(t, key, 2, old, 2, val, 3), NETSHM_E_CHANGED);
    wrong[0] = netshm_str("x");
    is(netshm_hashtbl_cas_v(t, key, 2, wrong, 1, val, 3), NETSHM_E_TYPE);
    is(netshm_hashtbl_cas_v(t, key, 2, val, 3, wrong, 1), NETSHM_E_TYPE);
    is(netshm_hashtbl_cas_v(t, wrong, 1, val, 3, val, 3), NETSHM_E_TYPE);
    is(netshm_hashtbl_cas_v(NULL, key, 2, old, 2, val, 3), NETSHM_E_INVALID);
    is(netshm_hashtbl_cas_v(t, NULL, 2, old, 2, val, 3), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_hashtbl_cas_v(t, key, 2, NULL, 2, val, 3), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(netshm_hashtbl_cas_v(t, key, 2, old, 2, NULL, 3), NETSHM_E_INVALID);
    is(last().argument, 6);
    is(bound(2, "two"), 1);
    good(netshm_hashtbl_close(t));

    /* A raw table's values need no more than their bytes to be equal; nor does a table of two words. */
    t = table("int", "int64");
    old[0] = netshm_int(7);
    val[0] = netshm_int(-7);
    good(netshm_hashtbl_add_v(t, old, 1, old, 1));
    good(netshm_hashtbl_cas_v(t, old, 1, old, 1, val, 1));
    is(netshm_hashtbl_cas_v(t, old, 1, old, 1, val, 1), NETSHM_E_CHANGED);
    val[0] = netshm_double(0.5);
    is(netshm_hashtbl_cas_v(t, old, 1, old, 1, val, 1), NETSHM_E_TYPE);
    good(netshm_hashtbl_close(t));
}

static void *changes(void *arg)
{
    netshm_value v[2];
    (void)arg;
    usleep(50000);
    v[0] = netshm_int(9);
    v[1] = netshm_none();
    return (void *)(intptr_t)netshm_hashtbl_replace_v(t, key, 2, v, 2);
}

static void waiting(void)
{
    uint64_t stamp = 0, before;
    netshm_value wrong[1];
    pthread_t thread;
    void *code = NULL;
    t = table("(int,string)", "(int,string?)");
    wrong[0] = netshm_int(1);
    good(netshm_hashtbl_stamp_v(t, key, 2, &stamp));
    ok(stamp != 0);
    before = stamp;
    is(netshm_hashtbl_wait_v(t, key, 2, &stamp, 0), NETSHM_E_TIMEOUT);
    is(last().code, NETSHM_E_TIMEOUT);
    is(netshm_hashtbl_wait_v(t, key, 2, &stamp, 20000000), NETSHM_E_TIMEOUT);
    ok(stamp == before);
    is(pthread_create(&thread, NULL, changes, NULL), 0);
    good(netshm_hashtbl_wait_v(t, key, 2, &stamp, (int64_t)20 * 1000000000));
    is(pthread_join(thread, &code), 0);
    is((intptr_t)code, NETSHM_OK);
    ok(stamp != before);
    is(bound(9, NULL), 1);
    is(netshm_hashtbl_stamp_v(t, wrong, 1, &stamp), NETSHM_E_TYPE);
    is(netshm_hashtbl_wait_v(t, wrong, 1, &stamp, 0), NETSHM_E_TYPE);
    is(netshm_hashtbl_stamp(t, "k", 1, &stamp), NETSHM_E_TYPE);
    is(netshm_hashtbl_stamp_v(NULL, key, 2, &stamp), NETSHM_E_INVALID);
    is(netshm_hashtbl_stamp_v(t, NULL, 2, &stamp), NETSHM_E_INVALID);
    is(netshm_hashtbl_stamp_v(t, key, 2, NULL), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(netshm_hashtbl_wait_v(NULL, key, 2, &stamp, 0), NETSHM_E_INVALID);
    is(netshm_hashtbl_wait_v(t, NULL, 2, &stamp, 0), NETSHM_E_INVALID);
    is(netshm_hashtbl_wait_v(t, key, 2, NULL, 0), NETSHM_E_INVALID);
    is(last().argument, 4);
    good(netshm_hashtbl_close(t));
    is(netshm_hashtbl_wait_v(t, key, 2, &stamp, 0), NETSHM_E_CLOSED);
    is(netshm_hashtbl_stamp_v(t, key, 2, &stamp), NETSHM_E_CLOSED);
    is(netshm_hashtbl_cas_v(t, key, 2, key, 2, key, 2), NETSHM_E_CLOSED);
}

/* A key's conversion that closes the handle which it converts for. Nothing else keeps the object open. */
static int encode_and_close(const void *object, netshm_update *out, void *arg)
{
    netshm_hashtbl **closes = (netshm_hashtbl **)arg;
    int code = netshm_update_set(out, object, 4);
    if (netshm_hashtbl_close(*closes) != NETSHM_OK) return -1001;
    return code;
}

static void waiting_with_a_closed_handle(void)
{
    netshm_custom c;
    netshm_type *number = NULL;
    netshm_object *own = NULL;
    netshm_value k[1];
    place *p = place_new();
    uint64_t stamp = 1;
    int five = 5;
    memset(&c, 0, sizeof c);
    c.size = sizeof c;
    c.name = "number";
    c.arg = &t;
    c.encode = encode_and_close;
    c.decode = decode;
    c.drop = drop;
    good(netshm_type_custom(&c, &number));
    good(place_open(p, CREATE, &own));
    good(netshm_hashtbl_manage(own, number, NULL, NULL, &t));
    good(netshm_type_close(number));
    good(netshm_close(own));
    k[0] = netshm_custom_object(&five);
    good(netshm_hashtbl_wait_v(t, k, 1, &stamp, 0));
    is(netshm_hashtbl_wait_v(t, k, 1, &stamp, 0), NETSHM_E_CLOSED);
    is(place_check(p), NETSHM_OK);
}

int main(void)
{
    good(netshm_result_new(&r));
    key[0] = netshm_int(-3);
    key[1] = netshm_str("key");
    updates();
    in_groups();
    raw_and_custom();
    comparing();
    waiting();
    waiting_with_a_closed_handle();
    good(netshm_check(o, 0, NULL, NULL));
    good(netshm_close(o));
    good(netshm_result_free(r));
    return done();
}
