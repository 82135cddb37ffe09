/* Instructions per operation, counted by callgrind: see bench/instructions.sh. Each measured_* function does
 * its operation `n` times; callgrind collects inside of them only. */
#define _GNU_SOURCE
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As a table doubles, chains get longer and shorter again: 250,000 keys are at the same point of that as the
 * 1,000,000 of the benchmark. */
enum { KEYS = 250000, MEASURED = 20000, COUNTERS = 1000 };
static netshm_hashtbl *table;

static void must(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "instructions: %s: %s\n", what, netshm_strerror(code));
        exit(1);
    }
}
static const void *key(unsigned char *into, unsigned long n) {
    unsigned long x = n * 0x9e3779b97f4a7c15u;
    memcpy(into, &x, 8);
    memcpy(into + 8, &n, 8);
    return into;
}

static unsigned char keys[2 * MEASURED][16], counters[COUNTERS][16], value[64], long_value[1024];
static int64_t ones[MEASURED / COUNTERS + 1];

__attribute__((noinline)) void measured_find(int n) {
    size_t len;
    for (int i = 0; i < n; i++) must(netshm_hashtbl_find(table, keys[i], 16, value, 64, &len), "find");
}
__attribute__((noinline)) void measured_miss(int n) {
    size_t len;
    for (int i = 0; i < n; i++) {
        if (netshm_hashtbl_find(table, keys[MEASURED + i], 16, value, 64, &len) != NETSHM_E_NOT_FOUND) exit(1);
    }
}
__attribute__((noinline)) void measured_replace(int n) {
    for (int i = 0; i < n; i++) must(netshm_hashtbl_replace(table, keys[i], 16, value, 64), "replace");
}
/* Values of a kilobyte: the keys get such ones before. */
static void lengthen(int n) {
    for (int i = 0; i < n; i++) {
        netshm_slice key = {keys[i], 16}, longer = {long_value, sizeof long_value};
        must(netshm_hashtbl_replace_many(table, &key, &longer, 1, NULL), "replace_many");
    }
}
__attribute__((noinline)) void measured_find_1k(int n) {
    size_t len;
    for (int i = 0; i < n; i++) {
        must(netshm_hashtbl_find(table, keys[i], 16, long_value, sizeof long_value, &len), "find");
        if (len != sizeof long_value) exit(1);
    }
}
__attribute__((noinline)) void measured_replace_1k(int n) {
    for (int i = 0; i < n; i++) {
        must(netshm_hashtbl_replace(table, keys[i], 16, long_value, sizeof long_value), "replace");
    }
}
/* By values of another length, so that each gets a new record. Half of them were made shorter before, and become longer. */
static void shorten_odd(int n) {
    for (int i = 1; i < n; i += 2) {
        netshm_slice key = {keys[i], 16}, shorter = {value, 48};
        must(netshm_hashtbl_replace_many(table, &key, &shorter, 1, NULL), "replace_many");
    }
}
__attribute__((noinline)) void measured_move(int n) {
    for (int i = 0; i < n; i++) {
        must(netshm_hashtbl_replace(table, keys[i], 16, value, i % 2 ? 64 : 48), "replace");
    }
}
static int set_again(netshm_update *update, const void *old, size_t len, void *arg) {
    (void)arg;
    memcpy(value, old, len);
    int code = netshm_update_set(update, value, len);
    return code == NETSHM_OK ? NETSHM_REPLACE : code;
}
__attribute__((noinline)) void measured_update(int n) {
    for (int i = 0; i < n; i++) must(netshm_hashtbl_update(table, keys[i], 16, set_again, NULL), "update");
}
__attribute__((noinline)) void measured_cas(int n) {
    for (int i = 0; i < n; i++) {
        must(netshm_hashtbl_cas(table, counters[i % COUNTERS], 16, &ones[i / COUNTERS], 8, &ones[i / COUNTERS + 1], 8), "cas");
    }
}
__attribute__((noinline)) void measured_add(int n) {
    for (int i = 0; i < n; i++) must(netshm_hashtbl_add(table, keys[MEASURED + i], 16, value, 64), "add");
}
/* The same, 16 keys in one call. */
static netshm_slice many_keys[2 * MEASURED], many_values[2 * MEASURED];
__attribute__((noinline)) void measured_find_16(int n) {
    static unsigned char values[16][64];
    int64_t lens[16];
    for (int i = 0; i < n; i += 16) {
        must(netshm_hashtbl_find_many_into(table, many_keys + i, 16, values, 64, lens), "find_many_into");
    }
}
__attribute__((noinline)) void measured_replace_16(int n) {
    for (int i = 0; i < n; i += 16) {
        must(netshm_hashtbl_replace_many(table, many_keys + i, many_values + i, 16, NULL), "replace_many");
    }
}
__attribute__((noinline)) void measured_remove(int n) {
    for (int i = 0; i < n; i++) must(netshm_hashtbl_remove(table, keys[MEASURED + i], 16, NULL), "remove");
}
__attribute__((noinline)) void measured_count(int n) {
    int64_t now;
    for (int i = 0; i < n; i++) must(netshm_hashtbl_incr(table, counters[i % COUNTERS], 16, 1, 0, &now), "incr");
}
__attribute__((noinline)) void measured_group(int n) {
    for (int i = 0; i < n; i++) {
        netshm_txn *group;
        int64_t count;
        size_t len;
        must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
        must(netshm_hashtbl_find(table, counters[i % COUNTERS], 16, &count, 8, &len), "find");
        must(netshm_hashtbl_replace(table, counters[i % COUNTERS], 16, &count, 8), "replace");
        must(netshm_group_commit(group), "commit");
    }
}
/* Two keys read and changed, values of 64 bytes. */
__attribute__((noinline)) void measured_group2(int n) {
    for (int i = 0; i < n; i += 2) {
        netshm_txn *group;
        size_t len;
        must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
        for (int k = i; k < i + 2; k++) {
            must(netshm_hashtbl_find(table, keys[k], 16, value, 64, &len), "find");
            must(netshm_hashtbl_replace(table, keys[k], 16, value, 64), "replace");
        }
        must(netshm_group_commit(group), "commit");
    }
}
__attribute__((noinline)) void measured_group8(int n) {
    for (int i = 0; i < n; i++) {
        int64_t now = i;
        netshm_txn *group;
        must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
        for (int k = 0; k < 8; k++) {
            must(netshm_hashtbl_replace(table, counters[(8 * i + k) % COUNTERS], 16, &now, 8), "replace");
        }
        must(netshm_group_commit(group), "commit");
    }
}
/* Eight keys read and changed, in one call each, as whoever knows his keys beforehand does it. */
__attribute__((noinline)) void measured_many8(int n) {
    static uint64_t values[8][8];
    netshm_slice changed[8];
    int64_t lens[8];
    for (int i = 0; i < n; i += 8) {
        netshm_txn *group;
        must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
        must(netshm_hashtbl_find_many_into(table, many_keys + i, 8, values, 64, lens), "find_many_into");
        for (int k = 0; k < 8; k++) {
            if (lens[k] != 64) exit(1);
            values[k][0]++;
            changed[k] = (netshm_slice){values[k], 64};
        }
        must(netshm_hashtbl_replace_many(table, many_keys + i, changed, 8, NULL), "replace_many");
        must(netshm_group_commit(group), "commit");
    }
}
static int each(netshm_slice key, netshm_slice value, void *seen) {
    (void)key, (void)value;
    ++*(int *)seen;
    return NETSHM_CONTINUE;
}
/* Over the keys and the counters. */
__attribute__((noinline)) void measured_walk(void) {
    int seen = 0;
    must(netshm_hashtbl_iter(table, each, &seen), "iter");
    if (seen != KEYS + COUNTERS) exit(1);
}

/* Tables from 8 bytes to 8 bytes: typed as integers, and raw. The keys are the same. */
static netshm_hashtbl *integers(const char *name, const char *type, netshm_object *object) {
    netshm_hashtbl *t;
    netshm_options options = NETSHM_OPTIONS_INIT;
    options.root = name;
    must(netshm_hashtbl_manage_as(object, type, type, &options, &t), "manage_as");
    for (int64_t i = 0; i < KEYS; i++) {
        netshm_value v = netshm_int(i);
        must(*type == 'i' ? netshm_hashtbl_add_v(t, &v, 1, &v, 1) : netshm_hashtbl_add(t, &i, 8, &i, 8), "add");
    }
    return t;
}
__attribute__((noinline)) void measured_words(int n) {
    size_t len;
    for (int64_t i = 0; i < n; i++) must(netshm_hashtbl_find(table, &i, 8, value, 8, &len), "find");
}
static netshm_result *result;
__attribute__((noinline)) void measured_typed(int n) {
    for (int64_t i = 0; i < n; i++) {
        netshm_value k = netshm_int(i);
        must(netshm_hashtbl_find_v(table, &k, 1, result), "find_v");
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "find";
    char path[64], memory[64];
    unsigned char k[16];
    netshm_object *object;
    int64_t now;
    snprintf(path, sizeof path, "/tmp/netshm-instructions-%d", (int)getpid());
    snprintf(memory, sizeof memory, "/netshm-instructions-%d", (int)getpid());
    must(netshm_open(NETSHM_POSIX, path, memory, NETSHM_CREAT | NETSHM_RDWR | NETSHM_EXCL, 0600, &object), "open");
    must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "manage");
    for (unsigned long i = 0; i < KEYS; i++) must(netshm_hashtbl_add(table, key(k, i), 16, value, 64), "add");
    for (unsigned long i = 0; i < 2 * MEASURED; i++) key(keys[i], i < MEASURED ? i * 11 : KEYS + i);
    for (unsigned long i = 0; i < 2 * MEASURED; i++) {
        many_keys[i] = (netshm_slice){keys[i], 16};
        many_values[i] = (netshm_slice){value, 64};
    }
    for (unsigned long i = 0; i < COUNTERS; i++) {
        must(netshm_hashtbl_incr(table, key(counters[i], KEYS * 2 + i), 16, 1, 0, &now), "incr");
    }
    for (int i = 0; i <= MEASURED / COUNTERS; i++) ones[i] = i + 1;
    if (!strcmp(what, "find")) measured_find(MEASURED);
    else if (!strcmp(what, "miss")) measured_miss(MEASURED);
    else if (!strcmp(what, "replace")) measured_replace(MEASURED);
    else if (!strcmp(what, "find_1k")) { lengthen(MEASURED); measured_find_1k(MEASURED); }
    else if (!strcmp(what, "replace_1k")) { lengthen(MEASURED); measured_replace_1k(MEASURED); }
    else if (!strcmp(what, "move")) { shorten_odd(MEASURED); measured_move(MEASURED); }
    else if (!strcmp(what, "update")) measured_update(MEASURED);
    else if (!strcmp(what, "compare")) measured_cas(MEASURED);
    else if (!strcmp(what, "find_16")) measured_find_16(MEASURED);
    else if (!strcmp(what, "replace_16")) measured_replace_16(MEASURED);
    else if (!strcmp(what, "add")) measured_add(MEASURED);
    else if (!strcmp(what, "remove")) { measured_add(MEASURED); measured_remove(MEASURED); }
    else if (!strcmp(what, "count")) measured_count(MEASURED);
    else if (!strcmp(what, "group")) measured_group(MEASURED);
    else if (!strcmp(what, "group2")) measured_group2(MEASURED);
    else if (!strcmp(what, "group8")) measured_group8(MEASURED);
    else if (!strcmp(what, "many8")) measured_many8(MEASURED);
    else if (!strcmp(what, "walk")) measured_walk();
    else if (!strcmp(what, "words") || !strcmp(what, "typed")) {
        int typed = !strcmp(what, "typed");
        must(netshm_hashtbl_close(table), "close");
        table = integers(what, typed ? "int64" : "bytes", object);
        must(netshm_result_new(&result), "result");
        if (typed) measured_typed(MEASURED);
        else measured_words(MEASURED);
        netshm_result_free(result);
    }
    else return 2;
    netshm_hashtbl_close(table);
    netshm_close(object);
    must(netshm_unlink(NETSHM_POSIX, path, memory), "unlink");
    return 0;
}
