/* Goal: sync, backup and salvage through the C interface. Method: an object in a file, its copies, and bytes overwritten. */
#include "support.h"
#include <stdint.h>

static int holds(int kind, const char *file, const char *mem, const char *key)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    int code = netshm_open(kind, file, mem, NETSHM_RDWR, 0600, &o);
    if (code == NETSHM_OK) code = netshm_check(o, 0, NULL, NULL);
    if (code == NETSHM_OK) code = netshm_hashtbl_manage(o, NULL, NULL, NULL, &t);
    if (code == NETSHM_OK) code = has(t, key, "value") == 1 ? NETSHM_OK : 1;
    netshm_hashtbl_close(t);
    netshm_close(o);
    return code;
}

static void overwrite(const char *file, long at, const void *bytes, size_t size)
{
    int fd = open(file, O_RDWR);
    ok(fd >= 0 && pwrite(fd, bytes, size, at) == (ssize_t)size);
    close(fd);
}

static int damaged;

static int note_damage(int what, int64_t offset, const char *text, void *arg)
{
    (void)offset, (void)text, (void)arg;
    damaged = what;
    return NETSHM_STOP;
}

/* A value changes its bytes: only a checksum tells. */
static void checksums(const place *p, const place *to)
{
    static unsigned char bytes[1 << 20];
    netshm_options options = NETSHM_OPTIONS_INIT;
    netshm_salvaged s;
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    ssize_t size;
    long at;
    int fd;
    options.flags = NETSHM_CHECKSUMS;
    good(netshm_open(NETSHM_FILE, p->file, NULL, CREATE, 0600, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, &options, &t));
    good(put(t, "one", "a value that can be found"));
    good(put(t, "other", "value"));
    good(netshm_check(o, 0, NULL, NULL));
    netshm_hashtbl_close(t);
    netshm_close(o);
    fd = open(p->file, O_RDONLY);
    size = read(fd, bytes, sizeof bytes);
    close(fd);
    for (at = 0; at + 25 < size && memcmp(bytes + at, "a value that can be found", 25) != 0; at++) {}
    overwrite(p->file, at, "A", 1);
    good(netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDWR, 0600, &o));
    is(netshm_check(o, 0, note_damage, NULL), NETSHM_E_CORRUPT);
    is(damaged, NETSHM_DAMAGE_CHECKSUM);
    netshm_close(o);
    s.size = sizeof s;
    good(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, &s));
    is(s.bindings, 1);
    is(s.bindings_lost, 1);
    is(holds(NETSHM_FILE, to->file, NULL, "other"), NETSHM_OK);
}

int main(void)
{
    place *p = place_new(), *to = place_new(), *q = place_new();
    netshm_object *o = NULL, *r = NULL;
    netshm_hashtbl *t = NULL;
    netshm_txn *x = NULL;
    netshm_salvaged s;
    netshm_error e;
    uint64_t stopped = 0;
    unsigned char boot[16], junk[64];
    int i;
    memset(&s, 0, sizeof s);
    memset(junk, 0xa5, sizeof junk);
    memset(boot, 0x11, sizeof boot);
    good(netshm_open(NETSHM_FILE, p->file, NULL, CREATE, 0600, &o));
    good(netshm_sync(o, 0));
    is(netshm_backup(o, NETSHM_FILE, to->file, NULL, 0600, 0, 0, NULL), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    for (i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        if (put(t, key, "value") != NETSHM_OK) ok(!"put");
    }
    good(netshm_sync(o, 0));
    good(put(t, "later", "value"));

    good(netshm_backup(o, NETSHM_FILE, to->file, NULL, 0600, 0, 0, &stopped));
    ok(stopped > 0);
    note("writers were stopped for %llu us", (unsigned long long)stopped / 1000);
    is(holds(NETSHM_FILE, to->file, NULL, "later"), NETSHM_OK);
    is(netshm_backup(o, NETSHM_FILE, to->file, NULL, 0600, 0, 0, NULL), NETSHM_E_EXISTS);
    good(put(t, "latest", "value"));
    good(netshm_backup(o, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, 0, NULL));
    is(holds(NETSHM_FILE, to->file, NULL, "latest"), NETSHM_OK);
    good(netshm_backup(o, NETSHM_POSIX, q->file, q->mem, 0600, 0, 0, NULL));
    is(holds(NETSHM_POSIX, q->file, q->mem, "latest"), NETSHM_OK);
    good(netshm_unlink(NETSHM_POSIX, q->file, q->mem));

    /* Arguments and states. */
    is(netshm_backup(NULL, NETSHM_FILE, to->file, NULL, 0600, 0, 0, NULL), NETSHM_E_INVALID);
    is(netshm_backup(o, NETSHM_FILE, NULL, NULL, 0600, 0, 0, NULL), NETSHM_E_INVALID);
    e.size = sizeof e;
    good(netshm_last_error(&e));
    is(e.argument, 3);
    is(netshm_backup(o, NETSHM_FILE, to->file, NULL, 0600, 2, 0, NULL), NETSHM_E_INVALID);
    is(netshm_backup(o, 77, to->file, NULL, 0600, 0, 0, NULL), NETSHM_E_INVALID);
    is(netshm_sync(NULL, 0), NETSHM_E_INVALID);
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    is(netshm_sync(o, 0), NETSHM_E_IN_GROUP);
    is(netshm_backup(o, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, 0, NULL), NETSHM_E_IN_GROUP);
    good(netshm_group_abort(x));
    good(netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDONLY, 0600, &r));
    is(netshm_sync(r, 0), NETSHM_E_READ_ONLY);
    is(netshm_backup(r, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, 0, NULL), NETSHM_E_READ_ONLY);
    netshm_close(r);
    netshm_hashtbl_close(t);
    netshm_close(o);
    t = NULL;

    /* As if the machine had gone down meanwhile: another boot's id, and dirty. */
    {
        uint64_t dirty = 1000;
        overwrite(p->file, 4096, boot, sizeof boot);
        overwrite(p->file, 4096 + 16, &dirty, sizeof dirty);
    }
    good(netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDWR, 0600, &o));
    is(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t), NETSHM_E_CORRUPT);
    good(netshm_last_error(&e));
    note("%s", e.text);
    ok(strstr(e.text, "check") != NULL && strstr(e.text, "salvage") != NULL);
    good(netshm_check(o, 0, NULL, NULL));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    is(has(t, "latest", "value"), 1);
    netshm_hashtbl_close(t);
    netshm_close(o);

    /* Salvage. */
    is(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, &s), NETSHM_E_INVALID);
    s.size = sizeof s;
    is(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, 0, &s), NETSHM_E_EXISTS);
    good(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, &s));
    is(s.bindings, 1002);
    is(s.bindings_counted, 1002);
    is(s.bindings_lost + s.buckets_lost + s.tables_lost, 0);
    is(holds(NETSHM_FILE, to->file, NULL, "latest"), NETSHM_OK);
    /* Free lists, gate and slots do not matter; a root does. */
    overwrite(p->file, 4 * 4096 + 128, junk, sizeof junk);
    overwrite(p->file, 8 * 4096, junk, sizeof junk);
    good(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, NULL));
    is(holds(NETSHM_FILE, to->file, NULL, "latest"), NETSHM_OK);
    overwrite(p->file, 2 * 4096 + 64, junk, 8);
    good(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, &s));
    is(s.tables, 0);
    ok(s.tables_lost > 0);
    overwrite(p->file, 64, junk, 16);
    overwrite(p->file, 56, junk, 8);
    is(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, NULL), NETSHM_E_CORRUPT);
    checksums(place_new(), to);
    is(netshm_salvage(NETSHM_FILE, "/no/such/file", NULL, NETSHM_FILE, to->file, NULL, 0600, NETSHM_REPLACE, NULL),
       NETSHM_E_NOT_FOUND);
    is(netshm_salvage(NETSHM_FILE, p->file, NULL, NETSHM_FILE, NULL, NULL, 0600, NETSHM_REPLACE, NULL), NETSHM_E_INVALID);
    good(netshm_last_error(&e));
    is(e.argument, 5);
    return done();
}
