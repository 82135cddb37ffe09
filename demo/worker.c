/*
 * A worker of the demo in C. What all workers do is told at the top of drive.py.
 *
 *     worker_c NAME FILE_NAME MEM_NAME TEXT
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORD_BYTES 64
#define KEY_BYTES 256

struct word {
    const char *letters;
    size_t len;
};

/* What the group has to do for one chunk. */
struct chunk {
    netshm_hashtbl *table;
    const char *worker;
    const char *share;
    const char *key;
    struct word *words;
    size_t number_of_words;
};

static pid_t driver;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "worker.c: %s: %s\n", what, why);
    exit(1);
}

/* Lets the everyday answers pass, and ends the program with the others. */
static int must(const char *what, int code)
{
    netshm_error details = { .size = sizeof details };
    if (code == NETSHM_OK || code == NETSHM_E_NOT_FOUND || code == NETSHM_E_CHANGED) return code;
    netshm_last_error(&details);
    die(what, details.code == code ? details.text : netshm_strerror(code));
    return code;
}

static void nap(void)
{
    struct timespec pause = { 0, 2000000 };
    if (getppid() != driver) die("nap", "the driver is gone");
    nanosleep(&pause, NULL);
}

static int incr(netshm_hashtbl *table, const char *family, const char *name, int64_t delta)
{
    char key[KEY_BYTES];
    snprintf(key, sizeof key, "%s:%s", family, name);
    return netshm_hashtbl_incr(table, key, strlen(key), delta, 0, NULL);
}

/* The integer that is bound to a key; 0 if there is none. */
static int64_t number(netshm_hashtbl *table, const char *family, const char *name)
{
    char key[KEY_BYTES];
    unsigned char bytes[8] = { 0 };
    uint64_t value = 0;
    size_t len;
    snprintf(key, sizeof key, "%s:%s", family, name);
    must(key, netshm_hashtbl_find(table, key, strlen(key), bytes, sizeof bytes, &len));
    for (int i = 7; i >= 0; i--) value = value << 8 | bytes[i];
    return (int64_t)value;
}

/* The text that is bound to a key; empty if there is none. */
static void text_of(netshm_hashtbl *table, const char *key, char text[KEY_BYTES])
{
    size_t len = 0;
    int code = must(key, netshm_hashtbl_find(table, key, strlen(key), text, KEY_BYTES - 1, &len));
    text[code == NETSHM_OK ? len : 0] = '\0';
}

/* Alphabetically: see "Order" in drive.py. */
static int compare(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    int difference = memcmp(x->letters, y->letters, x->len < y->len ? x->len : y->len);
    return difference ? difference : (x->len > y->len) - (x->len < y->len);
}

/* Makes the text lower case and gives its words, sorted. `words` has room for one word per two bytes. */
static size_t split(char *text, size_t len, struct word *words)
{
    size_t n = 0, start = 0;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && text[i] >= 'A' && text[i] <= 'Z') text[i] += 'a' - 'A';
        if (i < len && text[i] >= 'a' && text[i] <= 'z') continue;
        if (i > start) {
            words[n].letters = text + start;
            words[n++].len = i - start < WORD_BYTES ? i - start : WORD_BYTES;
        }
        start = i + 1;
    }
    qsort(words, n, sizeof *words, compare);
    return n;
}

/* The group: takes the chunk off the list and adds its words. After an error nothing of it has happened. */
static int add_chunk(netshm_txn *txn, void *arg)
{
    const struct chunk *c = arg;
    size_t end, increments = 0;
    int was_there, code;
    (void)txn;
    code = netshm_hashtbl_remove(c->table, c->key, strlen(c->key), &was_there);
    if (code != NETSHM_OK) return code;
    if (!was_there) return NETSHM_COMMIT; /* it has been counted */
    for (size_t i = 0; i < c->number_of_words; i = end) {
        const struct word *word = &c->words[i];
        for (end = i + 1; end < c->number_of_words && compare(word, &c->words[end]) == 0;) end++;
        code = netshm_hashtbl_incr(c->table, word->letters, word->len, (int64_t)(end - i), 0, NULL);
        if (code != NETSHM_OK) return code;
        increments++;
    }
    code = incr(c->table, "words", c->worker, (int64_t)c->number_of_words);
    if (code == NETSHM_OK) code = incr(c->table, "increments", c->worker, (int64_t)increments);
    if (code == NETSHM_OK) code = incr(c->table, "done", c->share, 1);
    return code == NETSHM_OK ? NETSHM_COMMIT : code;
}

static void count_chunk(struct chunk *c, int text, long long offset, size_t len)
{
    char *bytes = malloc(len);
    c->words = malloc((len / 2 + 1) * sizeof *c->words);
    if (!bytes || !c->words) die("malloc", "out of memory");
    if (pread(text, bytes, len, (off_t)offset) != (ssize_t)len) die("pread", "the text is too short");
    c->number_of_words = split(bytes, len, c->words);
    must("group", netshm_group_retry(netshm_hashtbl_table(c->table), -1, add_chunk, c));
    free(c->words);
    free(bytes);
}

static void count_share(netshm_hashtbl *table, const char *worker, const char *share, int text)
{
    char key[KEY_BYTES], value[KEY_BYTES];
    struct chunk chunk = { table, worker, share, key, NULL, 0 };
    int64_t size = number(table, "size", share);
    for (int64_t i = 0; i < size; i++) {
        long long offset;
        size_t len;
        while (number(table, "given", share) <= i) nap();
        snprintf(key, sizeof key, "chunk:%s:%lld", share, (long long)i);
        text_of(table, key, value);
        if (sscanf(value, "%lld %zu", &offset, &len) == 2) count_chunk(&chunk, text, offset, len);
    }
}

/* If a process has died whose share nobody has taken over yet: takes it over. */
static int take_over(netshm_hashtbl *table, const char *worker, int text)
{
    char share[KEY_BYTES], owner[2 * KEY_BYTES];
    text_of(table, "orphan:", share);
    snprintf(owner, sizeof owner, "owner:%s", share);
    if (must("cas", netshm_hashtbl_cas(table, owner, strlen(owner), "", 0, worker, strlen(worker)))) return 0;
    count_share(table, worker, share, text);
    return 1;
}

int main(int argc, char **argv)
{
    netshm_object *object;
    netshm_hashtbl *table;
    int text, finished = 0;
    if (argc != 5) die("usage", "worker_c NAME FILE_NAME MEM_NAME TEXT");
    driver = getppid();
    text = open(argv[4], O_RDONLY);
    if (text < 0) die("open", argv[4]);
    if (must("open", netshm_open(NETSHM_POSIX, argv[2], argv[3], NETSHM_RDWR, 0, &object))) die("open", "no object");
    must("manage", netshm_hashtbl_manage(object, NULL, NULL, NULL, &table));

    must("ready", incr(table, "ready", "", 1));
    count_share(table, argv[1], argv[1], text);
    while (!finished) {
        if (!take_over(table, argv[1], text)) nap();
        must("finished", netshm_hashtbl_mem(table, "finished:", strlen("finished:"), &finished));
    }

    netshm_hashtbl_close(table);
    netshm_close(object);
    close(text);
    return 0;
}
