// LMDB, a transaction for each change. It has no checker: everything is walked through, in both directions, counted and
// compared with what mdb_stat() says; readers' places of the dead must go.
#include <lmdb.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "system.h"

static MDB_env *env;
static MDB_dbi dbi;

static MDB_val datum(const void *bytes, size_t size) {
    MDB_val data = {size, (void *)(uintptr_t)bytes};
    return data;
}

// An environment must not be taken along into a child: the parent opens none.
static int create(const char *path) {
    (void)path;
    return OK;
}

static void destroy(const char *path) {
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", path);
    unlink(lock);
    unlink(path);
}

static int join(const char *path) {
    MDB_txn *txn;
    if (mdb_env_create(&env) != 0 || mdb_env_set_mapsize(env, (size_t)64 << 20) != 0) return FAILED;
    if (mdb_env_open(env, path, MDB_NOSYNC | MDB_WRITEMAP | MDB_NOSUBDIR, 0600) != 0) return FAILED;
    if (mdb_txn_begin(env, NULL, 0, &txn) != 0) return FAILED;
    if (mdb_dbi_open(txn, NULL, 0, &dbi) != 0) return mdb_txn_abort(txn), FAILED;
    return mdb_txn_commit(txn) == 0 ? OK : FAILED;
}

static void leave(void) { mdb_env_close(env); }

static int put(const void *key, size_t key_size, const void *value, size_t value_size) {
    MDB_txn *txn;
    MDB_val k = datum(key, key_size), v = datum(value, value_size);
    if (mdb_txn_begin(env, NULL, 0, &txn) != 0) return FAILED;
    if (mdb_put(txn, dbi, &k, &v, 0) != 0) return mdb_txn_abort(txn), FAILED;
    return mdb_txn_commit(txn) == 0 ? OK : FAILED;
}

static int take_away(const void *key, size_t key_size) {
    MDB_txn *txn;
    MDB_val k = datum(key, key_size);
    if (mdb_txn_begin(env, NULL, 0, &txn) != 0) return FAILED;
    int code = mdb_del(txn, dbi, &k, NULL);
    if (code != 0 && code != MDB_NOTFOUND) return mdb_txn_abort(txn), FAILED;
    if (mdb_txn_commit(txn) != 0) return FAILED;
    return code == 0 ? OK : ABSENT;
}

static long find(const void *key, size_t key_size, void *value, size_t capacity) {
    MDB_txn *txn;
    MDB_val k = datum(key, key_size), v;
    if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0) return FAILED;
    int code = mdb_get(txn, dbi, &k, &v);
    if (code == 0) memcpy(value, v.mv_data, v.mv_size < capacity ? v.mv_size : capacity);
    long size = code == 0 ? (long)v.mv_size : code == MDB_NOTFOUND ? ABSENT : FAILED;
    mdb_txn_abort(txn);
    return size;
}

static long walk(MDB_txn *txn, MDB_cursor_op first, MDB_cursor_op next) {
    MDB_cursor *cursor;
    MDB_val key, value;
    long count = 0;
    if (mdb_cursor_open(txn, dbi, &cursor) != 0) return FAILED;
    int code = mdb_cursor_get(cursor, &key, &value, first);
    for (; code == 0; code = mdb_cursor_get(cursor, &key, &value, next)) count++;
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? count : FAILED;
}

static int check(void) {
    MDB_txn *txn;
    MDB_stat stat;
    int dead;
    if (mdb_reader_check(env, &dead) != 0 || mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0) return FAILED;
    int fine = mdb_stat(txn, dbi, &stat) == 0 && walk(txn, MDB_FIRST, MDB_NEXT) == (long)stat.ms_entries &&
               walk(txn, MDB_LAST, MDB_PREV) == (long)stat.ms_entries;
    mdb_txn_abort(txn);
    return fine ? OK : FAILED;
}

const struct system lmdb_system = {
    "lmdb", "NOSYNC, WRITEMAP, a transaction for each change", create, destroy, join, leave, put, take_away, find, check,
};
