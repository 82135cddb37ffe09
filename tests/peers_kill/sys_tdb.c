// TDB in two ways: with robust mutexes, as Samba uses it for what is fast, and with a transaction for each change.
// Its checker: tdb_check().
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <tdb.h>
#include <unistd.h>

#include "system.h"

enum { CHAINS = 1009 };

static struct tdb_context *tdb;
static bool with_transactions;

static TDB_DATA datum(const void *bytes, size_t size) {
    TDB_DATA data = {(unsigned char *)(uintptr_t)bytes, size};
    return data;
}

// With TDB_CLEAR_IF_FIRST, which mutexes need, whoever opens it when nobody has it open empties it: the parent keeps it open.
static int create_with(const char *path, bool transactions) {
    with_transactions = transactions;
    int flags = TDB_NOSYNC | (transactions ? 0 : TDB_CLEAR_IF_FIRST | TDB_MUTEX_LOCKING | TDB_INCOMPATIBLE_HASH);
    tdb = tdb_open(path, CHAINS, flags, O_CREAT | O_RDWR, 0600);
    return tdb ? OK : FAILED;
}

static int create_mutex(const char *path) { return create_with(path, false); }
static int create_transactions(const char *path) { return create_with(path, true); }

static void destroy(const char *path) {
    tdb_close(tdb);
    unlink(path);
}

static int join(const char *path) {
    (void)path;
    return tdb_reopen(tdb) == 0 ? OK : FAILED;
}

static void leave(void) { tdb_close(tdb); }

static int begin(void) { return with_transactions ? tdb_transaction_start(tdb) : 0; }

static int end(int outcome) {
    if (!with_transactions) return outcome;
    if (outcome == FAILED) return tdb_transaction_cancel(tdb), FAILED;
    return tdb_transaction_commit(tdb) == 0 ? outcome : FAILED;
}

static int put(const void *key, size_t key_size, const void *value, size_t value_size) {
    if (begin() != 0) return FAILED;
    return end(tdb_store(tdb, datum(key, key_size), datum(value, value_size), TDB_REPLACE) == 0 ? OK : FAILED);
}

static int take_away(const void *key, size_t key_size) {
    if (begin() != 0) return FAILED;
    if (tdb_delete(tdb, datum(key, key_size)) == 0) return end(OK);
    return end(tdb_error(tdb) == TDB_ERR_NOEXIST ? ABSENT : FAILED);
}

struct target {
    void *into;
    size_t capacity;
    long size;
};

static int copy_out(TDB_DATA key, TDB_DATA value, void *arg) {
    struct target *target = arg;
    (void)key;
    target->size = (long)value.dsize;
    memcpy(target->into, value.dptr, value.dsize < target->capacity ? value.dsize : target->capacity);
    return 0;
}

static long find(const void *key, size_t key_size, void *value, size_t capacity) {
    struct target target = {value, capacity, ABSENT};
    if (tdb_parse_record(tdb, datum(key, key_size), copy_out, &target) != 0 && tdb_error(tdb) != TDB_ERR_NOEXIST) {
        return FAILED;
    }
    return target.size;
}

static int check(void) { return tdb_check(tdb, NULL, NULL) == 0 ? OK : FAILED; }

const struct system tdb_mutex_system = {
    "tdb (mutexes)", "robust mutexes, NOSYNC, no transactions", create_mutex, destroy, join, leave, put, take_away, find,
    check,
};
const struct system tdb_transactions_system = {
    "tdb (transactions)", "record locks, NOSYNC, a transaction for each change", create_transactions, destroy, join, leave,
    put, take_away, find, check,
};
