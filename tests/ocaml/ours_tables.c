/* Our side of the comparison of tables, see tables.ml.
 *   ours_tables generate (string|int32) SEED COUNT    prints operations, one a line
 *   ours_tables bytes OBJECT OPERATIONS               performs them with a hash table of bytes
 *   ours_tables primitive OBJECT OPERATIONS           performs them with a primitive table, if this library has one */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "netshm.h"

enum { LONGEST = 1 << 16, MOST_BINDINGS = 1 << 16 };

static char line[2 * LONGEST + 256];
static unsigned char key_bytes[LONGEST], value_bytes[LONGEST];
static netshm_slice key, value;
static FILE *operations;
static netshm_hashtbl *bytes_table;

static void need(int code, const char *what)
{
    netshm_error e = {sizeof e, 0, 0, 0, 0, 0, 0, ""};
    if (code == NETSHM_OK) return;
    netshm_last_error(&e);
    fprintf(stderr, "ours: %s: %s: %s\n", what, netshm_strerror(code), e.text);
    exit(1);
}

/* ---- Generating */

static uint64_t state;

static unsigned pick(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 20) % below;
}

static void put_bytes(unsigned seed, size_t len)
{
    size_t i;
    printf(" x");
    for (i = 0; i < len; i++) printf("%02x", (seed >> 8 * (i % 4) & 255) ^ (unsigned)(i / 4 * 37 & 255));
}

static void put_key(int words)
{
    unsigned n = pick(40);
    if (words) put_bytes(n < 4 ? n - 2 : n * 2654435761u, 4);
    else put_bytes(n * 2654435761u, n < 4 ? n : n < 30 ? n % 12 : 12 * n);
}

/* Few bytes mostly, sometimes several of the reference's pages. */
static void put_value(int words)
{
    unsigned kind = pick(20);
    size_t len = kind < 2 ? 0 : kind < 14 ? pick(24) : kind < 19 ? pick(600) : pick(8000);
    put_bytes((unsigned)state, words ? len / 4 * 4 : len);
}

static void generate(int words, long count)
{
    static const struct { const char *name; unsigned weight, key, value; } kinds[] = {
        {"add", 30, 1, 1}, {"replace", 14, 1, 1}, {"remove", 30, 1, 0}, {"find", 12, 1, 0}, {"find_all", 8, 1, 0},
        {"mem", 6, 1, 0}, {"length", 4, 0, 0}, {"iter_keys", 1, 0, 0}, {"iter", 1, 0, 0}, {"fold", 1, 0, 0}};
    while (count-- > 0) {
        unsigned at = pick(107), i = 0;
        if (pick(60) == 0 && count > 12) {
            printf("group %u\n", pick(12));
            continue;
        }
        while (at >= kinds[i].weight) at -= kinds[i++].weight;
        printf("%s", kinds[i].name);
        if (kinds[i].key) put_key(words);
        if (kinds[i].value) put_value(words);
        printf("\n");
    }
    /* What a group at the end may lack. */
    for (count = 0; count < 12; count++) printf("iter\n");
}

/* ---- Bindings: how both kinds of tables show theirs */

typedef struct binding { char *text; size_t at; } binding;

static binding found[MOST_BINDINGS];
static size_t found_count;
static uint64_t found_bytes;

static char *hex(const void *data, size_t len)
{
    char *text = (char *)malloc(2 * len + 2);
    size_t i;
    strcpy(text, "x");
    for (i = 0; i < len; i++) sprintf(text + 1 + 2 * i, "%02x", ((const unsigned char *)data)[i]);
    return text;
}

static void forget(void)
{
    while (found_count > 0) free(found[--found_count].text);
    found_bytes = 0;
}

static void note(char *text)
{
    if (found_count == MOST_BINDINGS) need(NETSHM_E_TOO_LARGE, "the test");
    found[found_count].text = text;
    found[found_count].at = found_count;
    found_count++;
}

static size_t key_length(const char *text) { return strcspn(text, "="); }

/* By the key's digits; what is shown first stays first. */
static int by_key(const void *a, const void *b)
{
    const binding *x = (const binding *)a, *y = (const binding *)b;
    size_t m = key_length(x->text), n = key_length(y->text);
    int order = memcmp(x->text, y->text, m < n ? m : n);
    if (order == 0 && m != n) order = m < n ? -1 : 1;
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

static void note_binding(netshm_slice k, const netshm_slice *v)
{
    char *left = hex(k.data, k.len), *right = v ? hex(v->data, v->len) : NULL, *both;
    both = (char *)malloc(strlen(left) + (right ? strlen(right) : 0) + 2);
    sprintf(both, right ? "%s=%s" : "%s", left, right);
    free(left);
    free(right);
    note(both);
    found_bytes += k.len + (v ? v->len : 0) + 1;
}

static int seen(netshm_slice k, netshm_slice v, void *arg)
{
    (void)arg;
    note_binding(k, &v);
    return NETSHM_CONTINUE;
}

static int seen_key(netshm_slice k, netshm_slice v, void *arg)
{
    (void)v, (void)arg;
    note_binding(k, NULL);
    return NETSHM_CONTINUE;
}

/* Those of one key behind it, as key=value,value;key=... */
static void show_bindings(void)
{
    size_t i, n, before = 0;
    qsort(found, found_count, sizeof *found, by_key);
    for (i = 0; i < found_count; i++) {
        n = key_length(found[i].text);
        if (i > 0 && n == before && memcmp(found[i].text, found[i - 1].text, n) == 0)
            printf(",%s", found[i].text + n + 1);
        else printf("%s%s", i > 0 ? ";" : "", found[i].text);
        before = n;
    }
    printf("\n");
}

static void show_list(void)
{
    size_t i;
    for (i = 0; i < found_count; i++) printf("%s%s", i > 0 ? "," : "", found[i].text);
    printf("\n");
}

/* ---- The two kinds of tables */

#define KEY key.data, key.len
#define VALUE value.data, value.len

typedef struct table {
    void (*manage)(netshm_object *o);
    netshm_table *(*scope)(void);
    int (*add)(void), (*replace)(void), (*remove)(void), (*find)(void), (*find_all)(void), (*mem)(int *there);
    int (*length)(uint64_t *n), (*iter)(void), (*iter_keys)(void);
} table;

static void bytes_manage(netshm_object *o) { need(netshm_hashtbl_manage(o, NULL, NULL, NULL, &bytes_table), "manage"); }
static netshm_table *bytes_scope(void) { return netshm_hashtbl_table(bytes_table); }
static int bytes_add(void) { return netshm_hashtbl_add(bytes_table, KEY, VALUE); }
static int bytes_replace(void) { return netshm_hashtbl_replace(bytes_table, KEY, VALUE); }
static int bytes_remove(void) { return netshm_hashtbl_remove(bytes_table, KEY, NULL); }
static int bytes_mem(int *there) { return netshm_hashtbl_mem(bytes_table, KEY, there); }
static int bytes_length(uint64_t *n) { return netshm_hashtbl_length(bytes_table, n); }
static int bytes_iter(void) { return netshm_hashtbl_iter(bytes_table, seen, NULL); }
static int bytes_iter_keys(void) { return netshm_hashtbl_iter_keys(bytes_table, seen_key, NULL); }

static int bytes_find(void)
{
    void *block;
    size_t len;
    int code = netshm_hashtbl_get(bytes_table, KEY, &block, &len);
    if (code != NETSHM_OK) return code;
    note(hex(block, len));
    netshm_free(block);
    return code;
}

static int bytes_find_all(void)
{
    netshm_slice *all;
    size_t n, i;
    int code = netshm_hashtbl_find_all(bytes_table, KEY, &all, &n);
    if (code != NETSHM_OK) return code;
    for (i = 0; i < n; i++) note(hex(all[i].data, all[i].len));
    netshm_free(all);
    return code;
}

static const table bytes = {bytes_manage, bytes_scope, bytes_add, bytes_replace, bytes_remove, bytes_find,
    bytes_find_all, bytes_mem, bytes_length, bytes_iter, bytes_iter_keys};

#ifdef HAVE_PRIMITIVE
#include "ours_primitive.h"
#endif

/* ---- Performing */

static void from_hex(const char *text, unsigned char *buffer, netshm_slice *slice)
{
    unsigned byte;
    slice->len = 0;
    slice->data = buffer;
    if (!text) return;
    for (text++; sscanf(text, "%2x", &byte) == 1; text += 2) buffer[slice->len++] = (unsigned char)byte;
}

static int perform(const table *t);

typedef struct several { const table *t; long count; } several;

static int perform_several(netshm_txn *x, void *arg)
{
    several *s = (several *)arg;
    (void)x;
    while (s->count-- > 0)
        if (!perform(s->t)) return NETSHM_ROLLBACK;
    return NETSHM_COMMIT;
}

static int perform(const table *t)
{
    const char *name, *rest;
    int code = NETSHM_OK, there;
    uint64_t n;
    if (!fgets(line, sizeof line, operations)) return 0;
    name = strtok(line, " \n");
    rest = strtok(NULL, " \n");
    forget();
    if (strcmp(name, "group") == 0) {
        several s;
        s.t = t;
        s.count = atol(rest);
        need(netshm_group(t->scope(), perform_several, &s), "group");
        printf("end\n");
        return 1;
    }
    from_hex(rest, key_bytes, &key);
    from_hex(strtok(NULL, " \n"), value_bytes, &value);
    if (strcmp(name, "add") == 0) code = t->add(), printf("done\n");
    else if (strcmp(name, "replace") == 0) code = t->replace(), printf("done\n");
    else if (strcmp(name, "remove") == 0) code = t->remove(), printf("done\n");
    else if (strcmp(name, "find") == 0) {
        code = t->find();
        if (code == NETSHM_E_NOT_FOUND) note(strcpy((char *)malloc(5), "none")), code = NETSHM_OK;
        show_list();
    } else if (strcmp(name, "find_all") == 0) code = t->find_all(), show_list();
    else if (strcmp(name, "mem") == 0) code = t->mem(&there), printf("%s\n", there ? "true" : "false");
    else if (strcmp(name, "length") == 0) code = t->length(&n), printf("%llu\n", (unsigned long long)n);
    else if (strcmp(name, "iter") == 0) code = t->iter(), show_bindings();
    else if (strcmp(name, "fold") == 0) code = t->iter(), printf("%llu\n", (unsigned long long)found_bytes);
    else if (strcmp(name, "iter_keys") == 0) {
        code = t->iter_keys();
        qsort(found, found_count, sizeof *found, by_key);
        show_list();
    } else code = NETSHM_E_INVALID;
    need(code, name);
    return 1;
}

int main(int argc, char **argv)
{
    const table *t = &bytes;
    netshm_object *o;
    if (argc == 5 && strcmp(argv[1], "generate") == 0) {
        state = 0x9e3779b97f4a7c15u * strtoull(argv[3], NULL, 10) + 1;
        generate(strcmp(argv[2], "int32") == 0, atol(argv[4]));
        return 0;
    }
    if (argc != 4) return 2;
#ifdef HAVE_PRIMITIVE
    if (strcmp(argv[1], "primitive") == 0) t = &primitive;
#endif
    operations = fopen(argv[3], "r");
    if (!operations) return 2;
    need(netshm_open(NETSHM_FILE, argv[2], NULL, NETSHM_RDWR | NETSHM_CREAT, 0600, &o), "open");
    t->manage(o);
    while (perform(t)) {}
    need(netshm_check(o, 0, NULL, NULL), "check");
    return 0;
}
