/* What is traced: participants that take turns, each of them a thread with a slot of its own, operation by
 * operation, with different keys. See run.sh.
 *
 * usage: trace load OBJECT                      makes the object, not traced
 *        trace run OBJECT PARTICIPANTS INFO     the operations; INFO receives where the object is mapped
 *
 * A store to `marks` tells the simulator who begins or ends what; it is the store's address that counts.
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 60000, MOST = 512, KINDS = 16, VALUE = 64, WARM = 2 };

/* Begin of operation `kind` by participant p at marks[kind * MOST + p]; its end at the last mark. */
volatile unsigned char marks[KINDS * MOST + 1];

static netshm_hashtbl *table;
static netshm_array *array;
static int participants;
static sem_t turns[MOST], done;
static int kind_now, round_now;

static void must(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "trace: %s: %s\n", what, netshm_strerror(code));
        exit(1);
    }
}
static void key_of(unsigned char *key, unsigned long n) {
    unsigned long x = n * 0x9e3779b97f4a7c15u;
    memcpy(key, &x, 8);
    memcpy(key + 8, &n, 8);
}
static void open_all(const char *name, int flags) {
    netshm_object *object;
    netshm_options options = NETSHM_OPTIONS_INIT;
    char path[256];
    snprintf(path, sizeof path, "/tmp%s", name);
    must(netshm_open(NETSHM_POSIX, path, name, NETSHM_RDWR | flags, 0600, &object), "open");
    must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "manage");
    options.root = "array";
    must(netshm_array_manage_int64(object, 0, 1 << 23, &options, &array), "array");
}

enum kind { FIND, MISS, REPLACE, COUNT, GROUP, GET, SET, SET_NEAR, ADD, REMOVE, OF_ALL, ALONE, ALL };
static const int rounds_of[ALL] = {6, 6, 6, 6, 6, 6, 6, 6, 40, 40, 6, 6};

static _Alignas(64) unsigned char value[MOST][VALUE];
/* With head and count 128 bytes, which share no cache line with others. */
enum { PADDED = 104 };
static unsigned char padded[MOST][PADDED];
static void operate(int kind, int round, int p) {
    /* Each participant has keys of its own, except that all of them count in one key at the end. */
    unsigned long own = (unsigned long)p * (KEYS / MOST) + (unsigned long)round;
    unsigned long fresh = KEYS * 20ul + (unsigned long)p * 1000 + (unsigned long)round;
    unsigned char key[16];
    int64_t now;
    size_t len;
    netshm_txn *group;
    key_of(key, kind == ADD || kind == REMOVE || kind == MISS ? fresh : own);
    if (kind == COUNT || kind == GROUP) key_of(key, KEYS * 4ul + (unsigned long)p);
    if (kind == OF_ALL) key_of(key, KEYS * 4ul);
    /* Far apart: each in another chunk. */
    uint64_t i = kind == SET_NEAR ? (uint64_t)p : (uint64_t)p * 8000 + (uint64_t)round;
    marks[kind * MOST + p] = 1;
    switch (kind) {
    case FIND: must(netshm_hashtbl_find(table, key, 16, value[p], VALUE, &len), "find"); break;
    case MISS: if (netshm_hashtbl_find(table, key, 16, value[p], VALUE, &len) != NETSHM_E_NOT_FOUND) exit(1); break;
    case REPLACE: must(netshm_hashtbl_replace(table, key, 16, value[p], VALUE), "replace"); break;
    case ALONE: must(netshm_hashtbl_incr(table, padded[p], PADDED, 1, 0, &now), "incr"); break;
    case COUNT: case OF_ALL: must(netshm_hashtbl_incr(table, key, 16, 1, 0, &now), "incr"); break;
    case GROUP:
        must(netshm_group_begin(netshm_hashtbl_table(table), &group), "begin");
        must(netshm_hashtbl_find(table, key, 16, &now, 8, &len), "find");
        must(netshm_hashtbl_replace(table, key, 16, &now, 8), "replace");
        must(netshm_group_commit(group), "commit");
        break;
    case GET: must(netshm_array_get_int64(array, i, &now), "get"); break;
    case SET: case SET_NEAR: must(netshm_array_set_int64(array, i, round), "set"); break;
    case ADD: must(netshm_hashtbl_add(table, key, 16, value[p], VALUE), "add"); break;
    case REMOVE: must(netshm_hashtbl_remove(table, key, 16, NULL), "remove"); break;
    }
    marks[KINDS * MOST] = 1;
}

static void *participant(void *number) {
    int p = (int)(long)number;
    for (;;) {
        sem_wait(&turns[p]);
        if (kind_now == ALL) return NULL;
        operate(kind_now, round_now, p);
        sem_post(&done);
    }
}

static void where_mapped(const char *name, const char *info) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r"), *out = fopen(info, "w");
    if (!maps || !out) exit(1);
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (strstr(line, name) && sscanf(line, "%lx-%lx", &from, &to) == 2 && to - from > 1 << 20) {
            fprintf(out, "%lx %lx\n", from, to);
            break;
        }
    }
    fclose(maps);
    fclose(out);
}

int main(int argc, char **argv) {
    pthread_t threads[MOST];
    unsigned char key[16];
    int64_t now;
    for (unsigned long p = 0; p < MOST; p++) key_of(padded[p], KEYS * 8ul + p);
    if (argc == 3 && !strcmp(argv[1], "load")) {
        open_all(argv[2], NETSHM_CREAT | NETSHM_EXCL);
        for (unsigned long i = 0; i < KEYS; i++) {
            key_of(key, i);
            must(netshm_hashtbl_add(table, key, 16, value[0], VALUE), "add");
        }
        for (unsigned long i = 0; i < MOST; i++) {
            key_of(key, KEYS * 4ul + i);
            must(netshm_hashtbl_incr(table, key, 16, 1, 0, &now), "incr");
            must(netshm_hashtbl_incr(table, padded[i], PADDED, 1, 0, &now), "incr");
            must(netshm_array_set_int64(array, i * 8000, 1), "set");
        }
        return 0;
    }
    if (argc != 5) return 2;
    participants = atoi(argv[3]);
    if (participants < 1 || participants > MOST) return 2;
    open_all(argv[2], 0);
    where_mapped(argv[2], argv[4]);
    sem_init(&done, 0, 0);
    for (long p = 0; p < participants; p++) {
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 256 << 10);
        sem_init(&turns[p], 0, 0);
        if (pthread_create(&threads[p], &small, participant, (void *)p) != 0) return 1;
    }
    for (kind_now = 0; kind_now < ALL; kind_now++) {
        for (round_now = 0; round_now < rounds_of[kind_now]; round_now++) {
            for (int p = 0; p < participants; p++) {
                sem_post(&turns[p]);
                sem_wait(&done);
            }
        }
    }
    for (int p = 0; p < participants; p++) sem_post(&turns[p]);
    for (int p = 0; p < participants; p++) pthread_join(threads[p], NULL);
    return 0;
}
