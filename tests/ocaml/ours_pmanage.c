/* Our side of the test of lists, see pmanage.ml: ours_pmanage LIST, with the same commands from standard input.
 * ours_pmanage LIST hold MEMORY: has the object open that LIST is the management file of, until standard input ends,
 * and sees that it still works then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "netshm.h"

static const char *const kinds[] = {"", "FILE", "POSIX_SHM", "POSIX_SEM", "SEM_CONT"};
static char line[1 << 16];

static void need(int code, const char *what)
{
    netshm_error e = {sizeof e, 0, 0, 0, 0, 0, 0, ""};
    if (code == NETSHM_OK) return;
    netshm_last_error(&e);
    fprintf(stderr, "ours: %s: %s: %s\n", what, netshm_strerror(code), e.text);
    exit(1);
}

/* In place; the result is shorter. */
static char *from_hex(char *hex)
{
    char *to = hex, *from = hex + 1;
    unsigned byte;
    for (; sscanf(from, "%2x", &byte) == 1; from += 2) *to++ = (char)byte;
    *to = 0;
    return hex;
}

static void show(netshm_pmanage *list)
{
    int *found;
    char **paths;
    size_t n, i;
    const char *byte;
    need(netshm_pmanage_list(list, &found, &paths, &n), "list");
    for (i = 0; i < n; i++) {
        printf("%s x", kinds[found[i]]);
        for (byte = paths[i]; *byte; byte++) printf("%02x", (unsigned char)*byte);
        printf("\n");
    }
    netshm_free(found);
    netshm_free(paths);
}

static void change(netshm_pmanage *list, int registers)
{
    int many[512], kind;
    const char *paths[512];
    char *word;
    size_t n = 0;
    while ((word = strtok(NULL, " \n")) != NULL) {
        for (kind = 4; kind > 0 && strcmp(word, kinds[kind]) != 0; kind--) {}
        many[n] = kind;
        paths[n++] = from_hex(strtok(NULL, " \n"));
    }
    if (registers) need(netshm_pmanage_register_many(list, many, paths, n), "register");
    else need(netshm_pmanage_unregister(list, many[0], paths[0]), "unregister");
}

static int hold(const char *file, const char *memory)
{
    netshm_object *o;
    netshm_hashtbl *t;
    int64_t now;
    need(netshm_open(NETSHM_POSIX, file, memory, NETSHM_RDWR | NETSHM_CREAT, 0600, &o), "open");
    need(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t), "manage");
    need(netshm_hashtbl_incr(t, "holders", 7, 1, 0, &now), "incr");
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {}
    need(netshm_hashtbl_incr(t, "holders", 7, 1, 0, &now), "incr at the end");
    need(netshm_hashtbl_close(t), "close");
    need(netshm_close(o), "close");
    return 0;
}

int main(int argc, char **argv)
{
    netshm_pmanage *list;
    if (argc == 4 && strcmp(argv[2], "hold") == 0) return hold(argv[1], argv[3]);
    need(netshm_pmanage_open(argv[1], &list), "open");
    while (fgets(line, sizeof line, stdin)) {
        char *word = strtok(line, " \n");
        if (strcmp(word, "register") == 0) change(list, 1);
        else if (strcmp(word, "unregister") == 0) change(list, 0);
        else if (strcmp(word, "list") == 0) show(list);
        else if (strcmp(word, "unlink") == 0) need(netshm_pmanage_unlink(list), "unlink");
        else need(NETSHM_E_INVALID, word);
    }
    need(netshm_pmanage_close(list), "close");
    return 0;
}
