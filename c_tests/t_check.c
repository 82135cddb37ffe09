/* Goal: damage is found and told. Method: a clean object, then words of its file overwritten. */
#include "support.h"

static int calls, first_what, answer;
static int64_t first_offset;

static int damage(int what, int64_t offset, const char *text, void *arg)
{
    if (calls++ == 0) {
        first_what = what;
        first_offset = offset;
        note("%d at %lld: %s", what, (long long)offset, text);
    }
    if (arg) ((int *)arg)[0] = text != NULL && text[0] != 0;
    return answer;
}

static int checked(const place *p, int with)
{
    netshm_object *o = NULL;
    int code, text = 0;
    calls = 0;
    answer = with;
    code = netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDONLY, 0600, &o);
    if (code == NETSHM_OK) {
        code = netshm_check(o, 0, damage, &text);
        if (calls && !text) code = 1;
    }
    netshm_close(o);
    return code;
}

static int calls_back(int what, int64_t offset, const char *text, void *arg)
{
    (void)what, (void)offset, (void)text;
    return netshm_check((netshm_object *)arg, 0, NULL, NULL);
}

int main(void)
{
    place *p = place_new();
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    netshm_txn *x = NULL;
    unsigned char word[8];
    int i, fd, n;
    good(netshm_open(NETSHM_FILE, p->file, NULL, CREATE, 0600, &o));
    good(netshm_check(o, 0, damage, NULL));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    for (i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        if (put(t, key, "value") != NETSHM_OK) ok(!"put");
    }
    good(netshm_check(o, 0, damage, NULL));
    is(calls, 0);
    is(netshm_check(o, 1, damage, NULL), NETSHM_E_INVALID);
    good(netshm_group_begin(netshm_hashtbl_table(t), &x));
    is(netshm_check(o, 0, damage, NULL), NETSHM_E_IN_GROUP);
    good(netshm_group_abort(x));
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    is(checked(p, NETSHM_CONTINUE), NETSHM_OK);
    is(calls, 0);

    /* Free counts of the page allocator, on page 4. */
    fd = open(p->file, O_RDWR);
    ok(pread(fd, word, 8, 4 * 4096 + 72) == 8);
    word[0] ^= 0x55;
    ok(pwrite(fd, word, 8, 4 * 4096 + 72) == 8);
    is(checked(p, NETSHM_CONTINUE), NETSHM_E_CORRUPT);
    ok(calls >= 1);
    is(first_offset, 4 * 4096 + 72);
    is(first_what, NETSHM_DAMAGE_COUNT);
    is(last().code, NETSHM_E_CORRUPT);
    is(last().offset, first_offset);
    word[0] ^= 0x55;
    ok(pwrite(fd, word, 8, 4 * 4096 + 72) == 8);
    is(checked(p, NETSHM_CONTINUE), NETSHM_OK);

    /* More than one damage. */
    {
        unsigned char counts[16], wrong[16];
        const off_t at = 4 * 4096 + 72;
        ok(pread(fd, counts, 16, at) == 16);
        memcpy(wrong, counts, 16);
        wrong[0] ^= 1;
        wrong[8] ^= 1;
        ok(pwrite(fd, wrong, 16, at) == 16);
        is(checked(p, NETSHM_CONTINUE), NETSHM_E_CORRUPT);
        n = calls;
        note("%d findings", n);
        ok(n > 1);
        is(checked(p, NETSHM_STOP), NETSHM_E_CORRUPT);
        is(calls, 1);
        is(checked(p, 1234), NETSHM_E_CORRUPT);
        is(calls, 1);
        is(checked(p, -1234), -1234);
        is(calls, 1);
        is(checked(p, -500), NETSHM_E_CALLBACK);
        is(checked(p, NETSHM_E_NOT_FOUND), NETSHM_E_NOT_FOUND);
        /* Without a callback; and with one that calls back. */
        good(netshm_open(NETSHM_FILE, p->file, NULL, RW, 0600, &o));
        is(netshm_check(o, 0, NULL, NULL), NETSHM_E_CORRUPT);
        is(netshm_check(o, 0, calls_back, o), NETSHM_E_IN_CALLBACK);
        good(netshm_close(o));
        ok(pwrite(fd, counts, 16, at) == 16);
    }
    close(fd);
    is(checked(p, NETSHM_CONTINUE), NETSHM_OK);
    return done();
}
