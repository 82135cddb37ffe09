// netshm, with futexes. Its checker: netshm_check().
#include <netshm.h>
#include <unistd.h>

#include "system.h"

static netshm_object *object;
static netshm_hashtbl *table;

static int join(const char *path) {
    if (netshm_open(NETSHM_FILE, path, NULL, NETSHM_RDWR | NETSHM_CREAT, 0600, &object) != NETSHM_OK) return FAILED;
    return netshm_hashtbl_manage(object, NULL, NULL, NULL, &table) == NETSHM_OK ? OK : FAILED;
}

static void leave(void) {
    netshm_hashtbl_close(table);
    netshm_close(object);
}

// The parent keeps nothing open.
static int create(const char *path) {
    (void)path;
    return OK;
}

static void destroy(const char *path) { unlink(path); }

static int put(const void *key, size_t key_size, const void *value, size_t value_size) {
    return netshm_hashtbl_replace(table, key, key_size, value, value_size) == NETSHM_OK ? OK : FAILED;
}

static int take_away(const void *key, size_t key_size) {
    int found;
    if (netshm_hashtbl_remove(table, key, key_size, &found) != NETSHM_OK) return FAILED;
    return found ? OK : ABSENT;
}

static long find(const void *key, size_t key_size, void *value, size_t capacity) {
    size_t size;
    int code = netshm_hashtbl_find(table, key, key_size, value, capacity, &size);
    if (code == NETSHM_E_NOT_FOUND) return ABSENT;
    return code == NETSHM_OK ? (long)size : FAILED;
}

static int check(void) { return netshm_check(object, 0, NULL, NULL) == NETSHM_OK ? OK : FAILED; }

const struct system netshm_system = {
    "netshm", "futexes, one operation at a time", create, destroy, join, leave, put, take_away, find, check,
};
