/* Goal: objects as the header describes them. Method: every flag, name and function, right and wrong. */
#include "support.h"

static int contains(const char *path, const char *text)
{
    char buffer[512];
    ssize_t n;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    n = read(fd, buffer, sizeof buffer - 1);
    close(fd);
    buffer[n < 0 ? 0 : n] = 0;
    return strcmp(buffer, text) == 0;
}

static int open_flags(const place *p, uint32_t flags)
{
    netshm_object *o = NULL;
    int code = place_open(p, flags, &o);
    netshm_close(o);
    return code;
}

static void posix_objects(void)
{
    place *p = place_new(), *q = place_new();
    netshm_object *o = NULL, *second = NULL;
    netshm_hashtbl *t = NULL;
    char line[160];
    const char *file = NULL, *mem = NULL;
    struct stat st;
    int kind = 0, fd = -1;

    is(place_open(p, RW, &o), NETSHM_E_NOT_FOUND);
    is(place_open(p, NETSHM_RDONLY, &o), NETSHM_E_NOT_FOUND);
    ok(o == NULL);
    is(open_flags(p, 0), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(open_flags(p, NETSHM_RDONLY | NETSHM_RDWR), NETSHM_E_INVALID);
    is(open_flags(p, NETSHM_RDONLY | NETSHM_CREAT), NETSHM_E_INVALID);
    is(open_flags(p, NETSHM_RDONLY | NETSHM_TRUNC), NETSHM_E_INVALID);
    is(open_flags(p, NETSHM_RDWR | NETSHM_EXCL), NETSHM_E_INVALID);
    is(open_flags(p, NETSHM_RDWR | 32), NETSHM_E_INVALID);
    is(open_flags(p, 0x80000002u), NETSHM_E_INVALID);
    is(access(p->file, F_OK), -1);
    is(access(p->path, F_OK), -1);

    good(place_open(p, CREATE | NETSHM_EXCL, &o));
    snprintf(line, sizeof line, "R POSIX_SHM \"%s\"\n", p->mem);
    ok(contains(p->file, line));
    is(access(p->path, F_OK), 0);
    is(open_flags(p, CREATE | NETSHM_EXCL), NETSHM_E_EXISTS);
    good(netshm_name(o, &kind, &file, &mem));
    is(kind, NETSHM_POSIX);
    ok(file && strcmp(file, p->file) == 0);
    ok(mem && strcmp(mem, p->mem) == 0);
    good(netshm_name(o, NULL, NULL, NULL));
    good(netshm_fd(o, &fd));
    ok(fstat(fd, &st) == 0 && S_ISREG(st.st_mode));
    is(st.st_mode & 0777, 0600);
    good(netshm_chmod(o, 0640));
    ok(stat(p->path, &st) == 0 && (st.st_mode & 0777) == 0640);
    ok(stat(p->file, &st) == 0 && (st.st_mode & 0777) == 0640);
    is(netshm_chmod(o, 0200000), NETSHM_E_INVALID);
    good(netshm_chown(o, (uint32_t)-1, (uint32_t)-1));
    good(netshm_chown(o, (uint32_t)getuid(), (uint32_t)getgid()));
    if (getuid() == 0) {
        good(netshm_chown(o, 65534, (uint32_t)-1));
        ok(stat(p->path, &st) == 0 && st.st_uid == 65534 && st.st_gid == getgid());
        good(netshm_chown(o, 0, 65533));
        ok(stat(p->path, &st) == 0 && st.st_uid == 0 && st.st_gid == 65533);
        ok(stat(p->file, &st) == 0 && st.st_uid == 0 && st.st_gid == 65533);
        good(netshm_chown(o, (uint32_t)-1, (uint32_t)getgid()));
    } else {
        note("SKIP: giving files to others needs root");
    }

    /* Opened twice in one process; what one handle writes the other sees. */
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(put(t, "k", "v"));
    good(place_open(p, NETSHM_RDONLY, &second));
    good(netshm_close(o));
    {
        netshm_hashtbl *u = NULL;
        good(netshm_hashtbl_manage(second, NULL, NULL, NULL, &u));
        is(has(u, "k", "v"), 1);
        is(put(u, "k", "w"), NETSHM_E_READ_ONLY);
        good(netshm_close(second));
        is(has(u, "k", "v"), 1);
        good(put(t, "k", "w"));
        is(has(u, "k", "w"), 1);
        good(netshm_hashtbl_close(u));
    }
    is(has(t, "k", "w"), 1);

    /* Truncating empties it for everybody, in one step. */
    good(open_flags(p, RW | NETSHM_TRUNC));
    {
        netshm_hashtbl *u = place_table(p, NULL);
        uint64_t n = 7;
        ok(u != NULL);
        good(netshm_hashtbl_length(u, &n));
        is(n, 0);
        good(netshm_hashtbl_close(u));
    }
    good(netshm_hashtbl_close(t));
    is(place_check(p), NETSHM_OK);

    /* A management file about another memory object. */
    {
        char other[64];
        netshm_object *wrong = NULL;
        snprintf(other, sizeof other, "%s-other", p->mem);
        is(netshm_open(NETSHM_POSIX, p->file, other, CREATE, 0600, &wrong), NETSHM_E_KIND);
        ok(strstr(last_text(), other) != NULL && strstr(last_text(), p->mem) != NULL);
    }
    good(netshm_unlink(NETSHM_POSIX, p->file, p->mem));
    is(access(p->file, F_OK), -1);
    is(access(p->path, F_OK), -1);
    is(netshm_unlink(NETSHM_POSIX, p->file, p->mem), NETSHM_E_NOT_FOUND);

    /* An empty object, read only, cannot become a table. */
    good(open_flags(q, CREATE));
    good(place_open(q, NETSHM_RDONLY, &o));
    is(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t), NETSHM_E_READ_ONLY);
    good(netshm_check(o, 0, NULL, NULL));
    good(netshm_close(o));
}

static void wrong_names(void)
{
    static const char *const mems[] = { "", "a", "/", "//", "/a/b", "/.", "/..", "a/b" };
    place *p = place_new();
    netshm_object *o = NULL;
    char many[400];
    size_t i;
    for (i = 0; i < sizeof mems / sizeof mems[0]; i++) {
        is(netshm_open(NETSHM_POSIX, p->file, mems[i], CREATE, 0600, &o), NETSHM_E_INVALID);
        is(last().argument, 3);
    }
    memset(many, 'a', sizeof many - 1);
    many[sizeof many - 1] = 0;
    many[0] = '/';
    is(netshm_open(NETSHM_POSIX, p->file, many, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(NETSHM_POSIX, "", p->mem, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_open(NETSHM_FILE, "", NULL, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(NETSHM_FILE, p->file, p->mem, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 3);
    is(netshm_open(NETSHM_ANON, p->file, NULL, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(0, p->file, p->mem, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 1);
    is(netshm_open(-1, p->file, p->mem, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(NETSHM_FILE, "/nonexistent/directory/file", NULL, CREATE, 0600, &o), NETSHM_E_NOT_FOUND);
    is(access(p->file, F_OK), -1);
    ok(o == NULL);
}

static void file_objects(void)
{
    place *p = place_new();
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    const char *file = NULL, *mem = "x";
    int kind = 0;
    is(netshm_open(NETSHM_FILE, p->file, NULL, RW, 0600, &o), NETSHM_E_NOT_FOUND);
    good(netshm_open(NETSHM_FILE, p->file, NULL, CREATE, 0600, &o));
    good(netshm_name(o, &kind, &file, &mem));
    is(kind, NETSHM_FILE);
    ok(strcmp(file, p->file) == 0);
    ok(mem == NULL);
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(put(t, "k", "v"));
    good(netshm_close(o));
    good(netshm_hashtbl_close(t));
    good(netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDONLY, 0, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    is(has(t, "k", "v"), 1);
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    good(netshm_unlink(NETSHM_FILE, p->file, NULL));
    is(netshm_unlink(NETSHM_FILE, p->file, NULL), NETSHM_E_NOT_FOUND);
}

static void unique_objects(void)
{
    static const char characters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    netshm_object *o[20];
    char file_pattern[64], mem_pattern[64];
    struct stat st;
    int i, j;
    snprintf(file_pattern, sizeof file_pattern, "/tmp/netshm-ct-%d-XXX", (int)getpid());
    snprintf(mem_pattern, sizeof mem_pattern, "/netshm-ct-%d-XXXX", (int)getpid());
    for (i = 0; i < 20; i++) {
        const char *file = NULL, *mem = NULL;
        good(netshm_create_unique(NETSHM_POSIX, file_pattern, mem_pattern, 0600, &o[i]));
        good(netshm_name(o[i], NULL, &file, &mem));
        ok(strlen(file) == strlen(file_pattern) && strspn(file + strlen(file) - 3, characters) == 3);
        ok(strspn(mem + strlen(mem) - 4, characters) == 4);
        ok(stat(file, &st) == 0 && (st.st_mode & 0777) == 0600);
        ok(strlen(mem) == strlen(mem_pattern) && memcmp(mem, mem_pattern, strlen(mem) - 4) == 0);
        ok(access(file, F_OK) == 0);
        for (j = 0; j < i; j++) {
            const char *other = NULL;
            netshm_name(o[j], NULL, NULL, &other);
            if (strcmp(mem, other) == 0) ok(!"twice the same name");
        }
    }
    for (i = 0; i < 20; i++) {
        const char *file = NULL, *mem = NULL;
        good(netshm_name(o[i], NULL, &file, &mem));
        good(netshm_unlink(NETSHM_POSIX, file, mem));
        good(netshm_close(o[i]));
    }
    is(netshm_create_unique(NETSHM_POSIX, "/tmp/no-pattern", "/no-pattern", 0600, &o[0]), NETSHM_E_INVALID);
    is(last().argument, 2);
    ok(strstr(last_text(), "file_pat") != NULL);
    is(netshm_create_unique(NETSHM_POSIX, file_pattern, "/no-pattern", 0600, &o[0]), NETSHM_E_INVALID);
    is(last().argument, 3);
    ok(strstr(last_text(), "mem_pat") != NULL);
    is(netshm_create_unique(NETSHM_FILE, file_pattern, mem_pattern, 0600, &o[0]), NETSHM_E_INVALID);
    good(netshm_create_unique(NETSHM_FILE, file_pattern, NULL, 0600, &o[0]));
    {
        const char *file = NULL;
        good(netshm_name(o[0], NULL, &file, NULL));
        good(netshm_unlink(NETSHM_FILE, file, NULL));
    }
    good(netshm_close(o[0]));
}

int main(void)
{
    posix_objects();
    wrong_names();
    file_objects();
    unique_objects();
    return done();
}
