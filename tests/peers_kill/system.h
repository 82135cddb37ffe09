// A store of keys and values that several processes use at once, as the killing program sees it.
#ifndef PEERS_KILL_SYSTEM_H
#define PEERS_KILL_SYSTEM_H

#include <stddef.h>

enum { OK = 0, FAILED = -1, ABSENT = -2 };

struct system {
    const char *name;
    const char *setup;
    // Called by the parent, once for each new store. It keeps whatever has to be open as long as the store is in use.
    int (*create)(const char *path);
    void (*destroy)(const char *path);
    // Called by each child first of all.
    int (*join)(const char *path);
    void (*leave)(void);
    int (*put)(const void *key, size_t key_size, const void *value, size_t value_size);
    int (*remove)(const void *key, size_t key_size);
    // The size of the value, or ABSENT, or FAILED.
    long (*find)(const void *key, size_t key_size, void *value, size_t capacity);
    // The system's own checker, or the nearest to it, in a process that has joined.
    int (*check)(void);
};

extern const struct system netshm_system;
#ifdef HAVE_TDB
extern const struct system tdb_mutex_system, tdb_transactions_system;
#endif
#ifdef HAVE_LMDB
extern const struct system lmdb_system;
#endif

#endif
