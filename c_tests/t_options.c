/* Goal: options are sized, checked and effective. Method: right, absurd, smaller and larger structures. */
#include "support.h"

static place *p;

/* Manages a new object with these options; gives the code and leaves the object as it was. */
static int managed(const netshm_options *options)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    int code;
    struct stat st;
    netshm_unlink(NETSHM_POSIX, p->file, p->mem);
    if (place_open(p, CREATE, &o) != NETSHM_OK) return 1;
    code = netshm_hashtbl_manage(o, NULL, NULL, options, &t);
    if (code == NETSHM_OK && put(t, "k", "v") != NETSHM_OK) code = 2;
    if (code == NETSHM_E_INVALID && (last().argument != 4 || t != NULL)) code = 3;
    if (code < 0 && (stat(p->path, &st) != 0 || st.st_size != 0)) code = 4;
    netshm_hashtbl_close(t);
    netshm_close(o);
    return code;
}

typedef struct larger { netshm_options o; char more[64]; } larger;

int main(void)
{
    netshm_options o = NETSHM_OPTIONS_INIT;
    const netshm_options defaults = NETSHM_OPTIONS_INIT;
    netshm_options zero;
    larger big;
    size_t size;
    p = place_new();
    memset(&zero, 0, sizeof zero);
    is(managed(NULL), NETSHM_OK);
    is(managed(&o), NETSHM_OK);
    is(managed(&zero), NETSHM_E_INVALID);
    ok(strstr(last_text(), "size") != NULL);
    zero.size = sizeof zero;
    is(managed(&zero), NETSHM_OK);

    /* Sizes. */
    memset(&big, 0, sizeof big);
    big.o = o;
    big.o.size = sizeof big;
    is(managed(&big.o), NETSHM_OK);
    big.more[63] = 1;
    is(managed(&big.o), NETSHM_E_INVALID);
    big.more[63] = 0;
    big.more[0] = 1;
    is(managed(&big.o), NETSHM_E_INVALID);
    big.o.size = sizeof big.o;
    is(managed(&big.o), NETSHM_OK);
    for (size = 0; size < sizeof o; size++) {
        o.size = size;
        if (managed(&o) != NETSHM_E_INVALID) ok(!"a size that is too small");
    }
    o.size = (size_t)-1;
    is(managed(&o), NETSHM_E_INVALID);

    /* Absurd fields. */
#define field(name, value, code) (o = defaults, o.name = value, is(managed(&o), code))
    field(flags, 8, NETSHM_E_INVALID);
    field(flags, NETSHM_CHECKSUMS, NETSHM_OK);
    field(flags, 0x80000000u, NETSHM_E_INVALID);
    field(locking, 4, NETSHM_E_INVALID);
    field(locking, 0xffffffffu, NETSHM_E_INVALID);
    field(locking, NETSHM_LOCK_RECORD, NETSHM_OK);
    field(hashing, 3, NETSHM_E_INVALID);
    field(reserved, 1, NETSHM_E_INVALID);
    field(root, "root", NETSHM_OK);
    field(root, "", NETSHM_E_INVALID);
    field(page_size, 1, NETSHM_E_INVALID);
    field(page_size, 156, NETSHM_E_INVALID);
    field(page_size, 161, NETSHM_E_INVALID);
    field(page_size, 160, NETSHM_OK);
    field(page_size, 0xfffffffcu, NETSHM_OK);
    field(init, UINT64_MAX, NETSHM_E_INVALID);
    field(max_bytes, UINT64_MAX, NETSHM_E_INVALID);
    field(init, 100000, NETSHM_OK);
    field(max_bytes, 1, NETSHM_E_NO_SPACE);
    field(max_bytes, 64 << 20, NETSHM_OK);
    field(lock_timeout_ms, -2147483647 - 1, NETSHM_OK);
    field(lock_timeout_ms, 2147483647, NETSHM_OK);
    field(flags, NETSHM_REINIT, NETSHM_OK);
    field(flags, NETSHM_HUGE_PAGES, NETSHM_OK);
    field(flags, NETSHM_REINIT | NETSHM_HUGE_PAGES, NETSHM_OK);
    field(hashing, NETSHM_HASH_KEYED, NETSHM_OK);

    /* The locking method is recorded. */
    field(locking, NETSHM_LOCK_NONE, NETSHM_OK);
    {
        netshm_object *object = NULL;
        netshm_hashtbl *t = NULL;
        good(place_open(p, RW, &object));
        o.locking = NETSHM_LOCK_FUTEX;
        is(netshm_hashtbl_manage(object, NULL, NULL, &o, &t), NETSHM_E_LOCKING);
        ok(strstr(last_text(), "FUTEX") != NULL && strstr(last_text(), "NONE") != NULL);
        o.locking = NETSHM_LOCK_RECORDED;
        good(netshm_hashtbl_manage(object, NULL, NULL, &o, &t));
        is(has(t, "k", "v"), 1);
        /* Re-initialising empties it, for those who have it open, too. */
        o.flags = NETSHM_REINIT;
        {
            netshm_hashtbl *u = NULL;
            uint64_t n = 9;
            good(netshm_hashtbl_manage(object, NULL, NULL, &o, &u));
            good(netshm_hashtbl_length(u, &n));
            is(n, 0);
            is(has(t, "k", "v"), NETSHM_E_NOT_FOUND);
            good(put(t, "again", "1"));
            is(has(u, "again", "1"), 1);
            good(netshm_hashtbl_close(u));
        }
        good(netshm_hashtbl_close(t));
        good(netshm_close(object));
        is(place_check(p), NETSHM_OK);
    }

    /* Record locking: who asks for another method is told both names, and the object stays as it is. */
    field(locking, NETSHM_LOCK_RECORD, NETSHM_OK);
    {
        netshm_object *object = NULL;
        netshm_hashtbl *t = NULL;
        good(place_open(p, RW, &object));
        o.locking = NETSHM_LOCK_FUTEX;
        is(netshm_hashtbl_manage(object, NULL, NULL, &o, &t), NETSHM_E_LOCKING);
        ok(t == NULL && strstr(last_text(), "FUTEX") != NULL && strstr(last_text(), "RECORD") != NULL);
        o.locking = NETSHM_LOCK_RECORD;
        good(netshm_hashtbl_manage(object, NULL, NULL, &o, &t));
        is(has(t, "k", "v"), 1);
        good(netshm_hashtbl_close(t));
        good(netshm_close(object));
        is(place_check(p), NETSHM_OK);
    }

    /* A maximum size: an error, nothing lost, and room again after removing. */
    {
        netshm_hashtbl *t;
        static char value[4000];
        char key[16];
        int i, code = 0, present = 0;
        netshm_unlink(NETSHM_POSIX, p->file, p->mem);
        o = defaults;
        o.max_bytes = 1 << 20;
        t = place_table(p, &o);
        ok(t != NULL);
        for (i = 0; i < 1000 && code == 0; i++) {
            snprintf(key, sizeof key, "%d", i);
            code = netshm_hashtbl_add(t, key, strlen(key), value, sizeof value);
        }
        is(code, NETSHM_E_NO_SPACE);
        note("%d values of 4000 bytes in 1 MiB", i - 1);
        ok(i > 100);
        for (i = i - 2; i >= 0; i--) {
            size_t len = 0;
            snprintf(key, sizeof key, "%d", i);
            present += netshm_hashtbl_find(t, key, strlen(key), value, sizeof value, &len) == NETSHM_OK ? 0 : 1;
            netshm_hashtbl_remove(t, key, strlen(key), NULL);
        }
        is(present, 0);
        good(netshm_hashtbl_add(t, "k", 1, value, sizeof value));
        good(netshm_hashtbl_close(t));
        is(place_check(p), NETSHM_OK);
    }
    return done();
}
