/* Goal: what is longer than any key or value is refused before a byte of it is read. Method: every call that takes a
 * length gets one beyond 2^40, and an address where nothing can be read. */
#include "support.h"

static netshm_object *o;
static netshm_hashtbl *t;
static size_t too_long;
static void *nowhere;
static char buffer[16];
static void *block;
static netshm_slice *slices;
static size_t len;
static uint64_t stamp;
static int64_t sum;
static int number;

static int view(const void *d, size_t n, void *a) { (void)d, (void)n, (void)a; return 0; }
static int keep(netshm_update *u, const void *d, size_t n, void *a) { (void)u, (void)d, (void)n, (void)a; return NETSHM_KEEP; }

#define refused(call) (is(call, NETSHM_E_TOO_LARGE), ok(strstr(last_text(), "2^40") != NULL))

static void keys(void)
{
    refused(netshm_hashtbl_add(t, nowhere, too_long, "v", 1));
    refused(netshm_hashtbl_replace(t, nowhere, too_long, "v", 1));
    refused(netshm_hashtbl_insert(t, nowhere, too_long, "v", 1));
    refused(netshm_hashtbl_remove(t, nowhere, too_long, &number));
    refused(netshm_hashtbl_find(t, nowhere, too_long, buffer, sizeof buffer, &len));
    refused(netshm_hashtbl_get(t, nowhere, too_long, &block, &len));
    refused(netshm_hashtbl_find_all(t, nowhere, too_long, &slices, &len));
    refused(netshm_hashtbl_mem(t, nowhere, too_long, &number));
    refused(netshm_hashtbl_incr(t, nowhere, too_long, 1, 1, &sum));
    refused(netshm_hashtbl_cas(t, nowhere, too_long, "v", 1, "w", 1));
    refused(netshm_hashtbl_view(t, nowhere, too_long, view, NULL, NULL));
    refused(netshm_hashtbl_update(t, nowhere, too_long, keep, NULL));
    refused(netshm_hashtbl_stamp(t, nowhere, too_long, &stamp));
    refused(netshm_hashtbl_wait(t, nowhere, too_long, &stamp, 0));
}

static void values(void)
{
    refused(netshm_hashtbl_add(t, "k", 1, nowhere, too_long));
    refused(netshm_hashtbl_replace(t, "k", 1, nowhere, too_long));
    refused(netshm_hashtbl_insert(t, "k", 1, nowhere, too_long));
    refused(netshm_hashtbl_cas(t, "k", 1, nowhere, too_long, "w", 1));
    refused(netshm_hashtbl_cas(t, "k", 1, "v", 1, nowhere, too_long));
    /* A key whose bytes cannot be read either: both lengths are looked at first. */
    refused(netshm_hashtbl_add(t, nowhere, 100, nowhere, too_long));
    refused(netshm_hashtbl_replace(t, nowhere, 100, nowhere, too_long));
    refused(netshm_hashtbl_insert(t, nowhere, 100, nowhere, too_long));
    refused(netshm_hashtbl_cas(t, nowhere, 100, nowhere, 100, nowhere, too_long));
}

static void several(void)
{
    netshm_slice good_ones[2], bad_ones[2];
    int64_t lens[2] = { 0, 0 };
    good_ones[0].data = good_ones[1].data = bad_ones[0].data = "k";
    good_ones[0].len = good_ones[1].len = bad_ones[0].len = 1;
    bad_ones[1].data = nowhere;
    bad_ones[1].len = too_long;
    refused(netshm_hashtbl_find_many(t, bad_ones, 2, &slices));
    refused(netshm_hashtbl_find_many_into(t, bad_ones, 2, buffer, 8, lens));
    refused(netshm_hashtbl_replace_many(t, bad_ones, good_ones, 2, &len));
    refused(netshm_hashtbl_replace_many(t, good_ones, bad_ones, 2, &len));
    refused(netshm_hashtbl_add_many(t, bad_ones, good_ones, 2, &len));
    refused(netshm_hashtbl_add_many(t, good_ones, bad_ones, 2, &len));
}

/* The callback's own calls are refused, and what was set before stays. */
static int sets(netshm_update *u, const void *old, size_t old_len, void *arg)
{
    (void)old, (void)old_len, (void)arg;
    refused(netshm_update_set(u, nowhere, too_long));
    refused(netshm_update_append(u, nowhere, too_long));
    good(netshm_update_set(u, "ab", 2));
    refused(netshm_update_append(u, nowhere, too_long - 1));
    return NETSHM_REPLACE;
}

static void typed(void)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_hashtbl *typed = NULL;
    netshm_result *r = NULL;
    netshm_value one[1], bad[1];
    options.root = "typed";
    one[0] = netshm_str("k");
    bad[0] = netshm_bytes(nowhere, too_long);
    good(netshm_hashtbl_manage_as(o, "string", "string", &options, &typed));
    good(netshm_result_new(&r));
    refused(netshm_hashtbl_add_v(typed, bad, 1, one, 1));
    refused(netshm_hashtbl_add_v(typed, one, 1, bad, 1));
    refused(netshm_hashtbl_replace_v(typed, bad, 1, one, 1));
    refused(netshm_hashtbl_insert_v(typed, one, 1, bad, 1));
    refused(netshm_hashtbl_remove_v(typed, bad, 1, &number));
    refused(netshm_hashtbl_mem_v(typed, bad, 1, &number));
    refused(netshm_hashtbl_find_v(typed, bad, 1, r));
    refused(netshm_hashtbl_find_all_v(typed, bad, 1, r, &len));
    refused(netshm_hashtbl_cas_v(typed, one, 1, bad, 1, one, 1));
    refused(netshm_hashtbl_stamp_v(typed, bad, 1, &stamp));
    good(netshm_result_free(r));
    good(netshm_hashtbl_close(typed));
}

static void primitive(void)
{
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_table *p = NULL;
    const int32_t *words = (const int32_t *)nowhere;
    options.root = "primitive";
    good(netshm_table_manage(o, &options, &p));
    refused(netshm_table_add(p, 1, words, too_long / 4 + 1));
    refused(netshm_table_replace(p, 1, words, too_long / 4 + 1));
    refused(netshm_table_add(p, 1, words, (size_t)-1));
    good(netshm_table_close(p));
}

static void all(size_t length)
{
    too_long = length;
    keys();
    values();
    several();
    typed();
    primitive();
    good(netshm_hashtbl_update(t, "k", 1, sets, NULL));
    is(has(t, "k", "ab"), 1);
    is(netshm_hashtbl_remove(t, "k", 1, &number), NETSHM_OK);
    is(number, 1);
    number = 0;
}

int main(void)
{
    place *p = place_new();
    netshm_options options = NETSHM_OPTIONS_INIT;
    int code;
    if (sizeof(size_t) < 8) {
        note("SKIP: no length is too large for a key here");
        return done();
    }
    nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ok(nowhere != MAP_FAILED);
    options.max_bytes = 1 << 20;
    good(place_open(p, CREATE, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, &options, &t));
    /* The longest value is one: here there is no room for it; under valgrind, no address space either. */
    code = netshm_hashtbl_add(t, "k", 1, nowhere, (size_t)1 << 40);
    ok(code == NETSHM_E_NO_SPACE || (code == NETSHM_E_TOO_LARGE && strstr(last_text(), "address space") != NULL));
    all(((size_t)1 << 40) + 1);
    all((size_t)1 << 41);
    all((size_t)-1);
    ok(block == NULL && slices == NULL && len == 0 && stamp == 0 && sum == 0 && number == 0);
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    is(place_check(p), NETSHM_OK);
    return done();
}
