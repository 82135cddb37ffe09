/* Goal: header and library agree. Method: versions, codes and texts compared; the header included twice. */
#include "netshm.h"
#include "netshm.h"
#include "support.h"

int main(void)
{
    char version[32];
    int code, known = 0, all = 1;
    const char *unknown = netshm_strerror(-999);
    is(netshm_version(), NETSHM_VERSION_NUMBER);
    is(netshm_version() >> 16, NETSHM_VERSION_MAJOR);
    is(netshm_version() >> 8 & 255, NETSHM_VERSION_MINOR);
    is(netshm_version() & 255, NETSHM_VERSION_PATCH);
    ok(strcmp(netshm_version_string(), NETSHM_VERSION_STRING) == 0);
    snprintf(version, sizeof version, "%d.%d.%d", NETSHM_VERSION_MAJOR, NETSHM_VERSION_MINOR, NETSHM_VERSION_PATCH);
    ok(strcmp(netshm_version_string(), version) == 0);

    /* The codes are fixed for ever. */
    is(NETSHM_OK, 0);
    is(NETSHM_E_NOT_FOUND, -1);
    is(NETSHM_E_EXISTS, -2);
    is(NETSHM_E_TOO_SMALL, -3);
    is(NETSHM_E_CHANGED, -4);
    is(NETSHM_E_INVALID, -5);
    is(NETSHM_E_TYPE, -6);
    is(NETSHM_E_LOCKING, -7);
    is(NETSHM_E_KIND, -8);
    is(NETSHM_E_DEADLOCK, -9);
    is(NETSHM_E_TIMEOUT, -10);
    is(NETSHM_E_ABORTED, -11);
    is(NETSHM_E_IN_GROUP, -12);
    is(NETSHM_E_IN_CALLBACK, -13);
    is(NETSHM_E_CALLBACK, -14);
    is(NETSHM_E_RANGE, -15);
    is(NETSHM_E_OVERFLOW, -16);
    is(NETSHM_E_TOO_LARGE, -17);
    is(NETSHM_E_CORRUPT, -18);
    is(NETSHM_E_NEWER, -19);
    is(NETSHM_E_NO_SPACE, -20);
    is(NETSHM_E_NO_MEMORY, -21);
    is(NETSHM_E_PERMISSION, -22);
    is(NETSHM_E_READ_ONLY, -23);
    is(NETSHM_E_CLOSED, -24);
    is(NETSHM_E_FORKED, -25);
    is(NETSHM_E_STALE, -26);
    is(NETSHM_E_BUSY, -27);
    is(NETSHM_E_INTERRUPTED, -28);
    is(NETSHM_E_UNSUPPORTED, -29);
    is(NETSHM_E_SYSTEM, -30);
    is(NETSHM_E_PANIC, -31);
    is(NETSHM_POSIX, 1);
    is(NETSHM_FILE, 2);
    is(NETSHM_ANON, 3);
    ok(NETSHM_RDONLY == 1 && NETSHM_RDWR == 2 && NETSHM_CREAT == 4 && NETSHM_EXCL == 8 && NETSHM_TRUNC == 16);
    ok(NETSHM_LOCK_RECORDED == 0 && NETSHM_LOCK_NONE == 1 && NETSHM_LOCK_RECORD == 2 && NETSHM_LOCK_FUTEX == 3);
    ok(NETSHM_KEEP == 0 && NETSHM_REPLACE == 1 && NETSHM_REMOVE == 2 && NETSHM_STOP == 0 && NETSHM_CONTINUE == 1);
    ok(NETSHM_ROLLBACK == 0 && NETSHM_COMMIT == 1 && NETSHM_REINIT == 1);

    /* Every integer has a text, and every code its own. */
    for (code = -100; code <= 10; code++) {
        const char *text = netshm_strerror(code);
        if (text == NULL || text[0] == 0) all = 0;
        else if (strcmp(text, unknown) != 0) known++;
        else if (code <= 0 && code >= NETSHM_E_PANIC) all = 0;
        else if (strlen(text) > 100) all = 0;
    }
    ok(all);
    is(known, 32);
    ok(strcmp(netshm_strerror(-2147483647 - 1), netshm_strerror(NETSHM_E_CALLER)) == 0);
    ok(strcmp(netshm_strerror(2147483647), unknown) == 0);
    netshm_free(NULL);
    ok(netshm_supported_kinds() & 1 << NETSHM_FILE);
    ok(netshm_supported_kinds() & 1 << NETSHM_POSIX);
    is(netshm_best_locking(NETSHM_POSIX), NETSHM_LOCK_FUTEX);
    is(netshm_best_locking(NETSHM_FILE), NETSHM_LOCK_FUTEX);
    is(netshm_best_locking(77), NETSHM_E_INVALID);
    return done();
}
