/*
 * A persistent lookup table: the files of a directory, with their sizes and times of change.
 *
 *     lookup build TABLE DIRECTORY      makes the table, a file
 *     lookup find TABLE PATH...         looks paths up; a path that is not there gives exit status 1
 *     lookup try DIRECTORY              both, with a table of its own that is removed in the end, and compares
 *
 * The table is an ordinary file that is mapped: opening it takes no time, however large it is, and all processes that
 * look things up share one copy of it in memory. Those that only look up open it for reading only.
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct entry { int64_t size, changed; } entry;

static netshm_hashtbl *table;
static uint64_t entries;
static int64_t bytes;

static int failed(int code, const char *what)
{
    netshm_error details;
    details.size = sizeof details;
    netshm_last_error(&details);
    fprintf(stderr, "lookup: %s: %s\n", what, details.code == code ? details.text : netshm_strerror(code));
    return 2;
}

static int add_file(const char *path, const struct stat *status, int type, struct FTW *place)
{
    entry e;
    (void)place;
    if (type != FTW_F) return 0;
    e.size = status->st_size;
    e.changed = status->st_mtime;
    entries++;
    bytes += e.size;
    return netshm_hashtbl_replace(table, path, strlen(path), &e, sizeof e);
}

/* The table is filled in one transaction: whoever opens it meanwhile, or after a crash, finds all of it or nothing. */
static int fill(netshm_txn *txn, void *arg)
{
    int code = nftw(arg, add_file, 16, FTW_PHYS);
    (void)txn;
    if (code > 0 || code == -1) return NETSHM_E_CALLER; /* the directory cannot be read */
    return code == 0 ? NETSHM_COMMIT : code;
}

static int build(const char *file, char *directory)
{
    netshm_object *object = NULL;
    netshm_options options = NETSHM_OPTIONS_INIT;
    int code;
    options.flags = NETSHM_REINIT;
    entries = 0;
    bytes = 0;
    code = netshm_open(NETSHM_FILE, file, NULL, NETSHM_RDWR | NETSHM_CREAT, 0644, &object);
    if (code == NETSHM_OK) code = netshm_hashtbl_manage(object, NULL, NULL, &options, &table);
    if (code == NETSHM_OK) code = netshm_group(netshm_hashtbl_table(table), fill, directory);
    netshm_hashtbl_close(table);
    table = NULL;
    netshm_close(object);
    if (code == NETSHM_E_CALLER) return failed(code, directory);
    if (code != NETSHM_OK) return failed(code, file);
    printf("%" PRIu64 " files of %s, %" PRId64 " bytes in all\n", entries, directory, bytes);
    return 0;
}

/* Opens the table for looking up. */
static int open_table(const char *file)
{
    netshm_object *object = NULL;
    int code = netshm_open(NETSHM_FILE, file, NULL, NETSHM_RDONLY, 0, &object);
    if (code == NETSHM_OK) code = netshm_hashtbl_manage(object, NULL, NULL, NULL, &table);
    netshm_close(object); /* the table keeps what it needs */
    return code == NETSHM_OK ? 0 : failed(code, file);
}

static int find(const char *path, entry *e)
{
    size_t len;
    return netshm_hashtbl_find(table, path, strlen(path), e, sizeof *e, &len);
}

static int find_all(char **paths)
{
    int status = 0;
    for (; *paths; paths++) {
        entry e;
        int code = find(*paths, &e);
        if (code == NETSHM_OK) {
            printf("%s: %" PRId64 " bytes, changed %" PRId64 "\n", *paths, e.size, e.changed);
        } else if (code == NETSHM_E_NOT_FOUND) {
            printf("%s: not in the table\n", *paths);
            status = 1;
        } else {
            return failed(code, *paths);
        }
    }
    return status;
}

/* Looks every key of the table up, as a walk gives them. */
static int look_up_again(netshm_slice key, netshm_slice val, void *arg)
{
    char path[4096];
    entry e;
    if (key.len >= sizeof path || val.len != sizeof e) return NETSHM_E_CALLER;
    memcpy(path, key.data, key.len);
    path[key.len] = 0;
    if (find(path, &e) != NETSHM_OK || memcmp(&e, val.data, sizeof e) != 0) return NETSHM_E_CALLER;
    entries++;
    *(int64_t *)arg += e.size;
    return NETSHM_CONTINUE;
}

static int try_it(char *directory)
{
    char file[64];
    uint64_t length = 0, built;
    int64_t sum = 0;
    entry e;
    int status;
    snprintf(file, sizeof file, "/tmp/netshm-lookup-%ld", (long)getpid());
    status = build(file, directory);
    if (status == 0) status = open_table(file);
    if (status == 0) {
        int code;
        built = entries;
        entries = 0;
        code = netshm_hashtbl_length(table, &length);
        if (code == NETSHM_OK) code = netshm_hashtbl_iter(table, look_up_again, &sum);
        if (code != NETSHM_OK) status = failed(code, "looking up");
        else if (entries != built || length != built || sum != bytes) status = failed(0, "the table is another one");
        else if (find("no such file", &e) != NETSHM_E_NOT_FOUND) status = failed(0, "what is not there was found");
        else if (netshm_hashtbl_replace(table, "x", 1, "y", 1) != NETSHM_E_READ_ONLY)
            status = failed(0, "a table open for reading only was changed");
        else printf("opened again: all %" PRIu64 " are found\n", entries);
        netshm_hashtbl_close(table);
    }
    netshm_unlink(NETSHM_FILE, file, NULL);
    return status;
}

int main(int argc, char **argv)
{
    int status;
    if (argc == 4 && strcmp(argv[1], "build") == 0) return build(argv[2], argv[3]);
    if (argc >= 4 && strcmp(argv[1], "find") == 0) {
        status = open_table(argv[2]);
        if (status == 0) status = find_all(argv + 3);
        netshm_hashtbl_close(table);
        return status;
    }
    if (argc == 3 && strcmp(argv[1], "try") == 0) return try_it(argv[2]);
    fprintf(stderr, "usage: lookup build TABLE DIRECTORY | find TABLE PATH... | try DIRECTORY\n");
    return 2;
}
