/* Goal: what is no good object gives its own clear error and is left alone. Method: damaged files; the bytes are
 * compared before and after. */
#include "support.h"

static place *p;
static unsigned char *before;
static size_t before_size;
/* A management file that is not there. */
static char others[80];

static unsigned char *slurp(size_t *size)
{
    struct stat st;
    unsigned char *bytes;
    int fd = open(p->file, O_RDONLY);
    size_t n = 0;
    if (fd < 0 || fstat(fd, &st) != 0) return NULL;
    bytes = (unsigned char *)malloc((size_t)st.st_size + 1);
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, bytes + n, (size_t)st.st_size - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(fd);
    *size = n;
    return bytes;
}

static void spit_to(const char *file, const void *bytes, size_t size, mode_t mode)
{
    int fd;
    size_t n = 0;
    unlink(file);
    fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while (n < size) {
        ssize_t put = write(fd, (const char *)bytes + n, size - n);
        if (put <= 0) break;
        n += (size_t)put;
    }
    fchmod(fd, mode);
    close(fd);
}

static void spit(const void *bytes, size_t size, mode_t mode)
{
    spit_to(p->file, bytes, size, mode);
}

/* A file with these bytes is refused with this code by open or manage, and is not changed. */
static int refused(const void *bytes, size_t size, uint32_t flags, int code)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    unsigned char *after;
    size_t after_size = 0;
    int got, same;
    spit(bytes, size, 0600);
    got = netshm_open(NETSHM_FILE, p->file, NULL, flags, 0600, &o);
    if (got == NETSHM_OK) got = netshm_hashtbl_manage(o, NULL, NULL, NULL, &t);
    netshm_hashtbl_close(t);
    netshm_close(o);
    after = slurp(&after_size);
    same = after_size == size && memcmp(after, bytes, size) == 0;
    free(after);
    if (!same) note("the bytes were changed");
    if (got != code) note("got %d instead of %d: %s", got, code, last_text());
    return same && got == code;
}

static void set_word(unsigned char *bytes, size_t at, uint64_t value)
{
    int i;
    for (i = 0; i < 8; i++) bytes[at + (size_t)i] = (unsigned char)(value >> 8 * i);
}

static int as_nobody(void *arg)
{
    netshm_object *o = NULL;
    int *codes = (int *)arg;
    if (setgid(65534) != 0 || setuid(65534) != 0) return 77;
    codes[0] = netshm_open(NETSHM_FILE, p->file, NULL, RW, 0600, &o);
    codes[1] = netshm_open(NETSHM_FILE, p->file, NULL, NETSHM_RDONLY, 0600, &o);
    codes[2] = netshm_open(NETSHM_FILE, "/root/netshm-ct", NULL, CREATE, 0600, &o);
    codes[3] = netshm_unlink(NETSHM_FILE, p->file, NULL);
    codes[4] = netshm_open(NETSHM_POSIX, others, p->mem, CREATE, 0600, &o);
    codes[5] = access(others, F_OK);
    codes[6] = netshm_open(NETSHM_POSIX, others, p->mem, NETSHM_RDONLY, 0600, &o);
    codes[7] = access(others, F_OK);
    return 0;
}

int main(void)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t = NULL;
    unsigned char *bad;
    static unsigned char zeros[8192], text[] = "This is a shopping list: bread, milk, eggs and so on and so forth.\n";
    size_t sizes[10], i;
    char directory[80];
    p = place_new();
    good(netshm_open(NETSHM_FILE, p->file, NULL, CREATE, 0600, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    for (i = 0; i < 300; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", (int)i);
        if (put(t, key, "value") != NETSHM_OK) ok(!"put");
    }
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    before = slurp(&before_size);
    ok(before != NULL && before_size >= 32 * 4096);
    note("%d bytes", (int)before_size);
    bad = (unsigned char *)malloc(before_size);
#define damaged(at, value, code) \
    (memcpy(bad, before, before_size), set_word(bad, at, value), ok(refused(bad, before_size, RW, code)), \
     ok(refused(bad, before_size, NETSHM_RDONLY, code)))

    note("wrong magic");
    damaged(0, 0, NETSHM_E_CORRUPT);
    damaged(0, 0x1234, NETSHM_E_CORRUPT);
    ok(refused(text, sizeof text, RW, NETSHM_E_CORRUPT));
    ok(refused(text, sizeof text, CREATE, NETSHM_E_CORRUPT));
    ok(refused(text, sizeof text, RW | NETSHM_TRUNC, NETSHM_E_CORRUPT));
    ok(refused(text, sizeof text, NETSHM_RDONLY, NETSHM_E_CORRUPT));
    ok(refused(zeros, sizeof zeros, RW, NETSHM_E_CORRUPT));
    ok(refused(text, 1, RW, NETSHM_E_CORRUPT));

    note("truncated files");
    sizes[0] = 1;
    sizes[1] = 8;
    sizes[2] = 100;
    sizes[3] = 4096;
    sizes[4] = 5000;
    sizes[5] = 31 * 4096;
    sizes[6] = before_size / 2;
    sizes[7] = before_size - 3 * 4096;
    sizes[8] = before_size - 4096;
    sizes[9] = before_size - 1;
    for (i = 0; i < 10; i++) {
        ok(refused(before, sizes[i], RW, NETSHM_E_CORRUPT));
        ok(strstr(last_text(), "truncated file") != NULL || sizes[i] < 8);
        ok(refused(before, sizes[i], NETSHM_RDONLY, NETSHM_E_CORRUPT));
        ok(refused(before, sizes[i], RW | NETSHM_TRUNC, NETSHM_E_CORRUPT));
    }

    note("newer versions and unknown features");
    damaged(8, 2, NETSHM_E_NEWER);
    damaged(8, 0xffffffff, NETSHM_E_NEWER);
    damaged(32, 2, NETSHM_E_NEWER);
    damaged(32, (uint64_t)1 << 63, NETSHM_E_NEWER);
    note("impossible header fields");
    damaged(48, 0, NETSHM_E_CORRUPT);
    damaged(48, 99, NETSHM_E_CORRUPT);
    damaged(48, 4, NETSHM_E_CORRUPT);
    damaged(56, 99, NETSHM_E_CORRUPT);
    damaged(112, 100, NETSHM_E_CORRUPT);
    damaged(120, 17, NETSHM_E_CORRUPT);

    note("features that can be ignored");
    memcpy(bad, before, before_size);
    set_word(bad, 16, 1);
    spit(bad, before_size, 0600);
    good(netshm_open(NETSHM_FILE, p->file, NULL, RW, 0600, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    good(put(t, "k", "v"));
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    memcpy(bad, before, before_size);
    set_word(bad, 24, 1);
    spit(bad, before_size, 0600);
    good(netshm_open(NETSHM_FILE, p->file, NULL, RW, 0600, &o));
    good(netshm_hashtbl_manage(o, NULL, NULL, NULL, &t));
    is(has(t, "7", "value"), 1);
    is(put(t, "k", "v"), NETSHM_E_READ_ONLY);
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));

    note("other things than files");
    is(netshm_open(NETSHM_FILE, "/tmp", NULL, RW, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(NETSHM_FILE, "/tmp", NULL, NETSHM_RDONLY, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(NETSHM_FILE, "/dev/null", NULL, RW, 0600, &o), NETSHM_E_INVALID);
    snprintf(directory, sizeof directory, "%s.d", p->file);
    mkfifo(directory, 0600);
    is(netshm_open(NETSHM_FILE, directory, NULL, RW, 0600, &o), NETSHM_E_INVALID);
    is(netshm_open(NETSHM_POSIX, directory, p->mem, CREATE, 0600, &o), NETSHM_E_INVALID);
    unlink(directory);

    note("no permission");
    if (getuid() == 0) {
        int *codes = (int *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        spit(before, before_size, 0600);
        snprintf(others, sizeof others, "%s.others", p->file);
        good(netshm_open(NETSHM_POSIX, others, p->mem, CREATE, 0600, &o));
        good(netshm_close(o));
        unlink(others);
        is(in_child(as_nobody, codes), 0);
        is(codes[0], NETSHM_E_PERMISSION);
        is(codes[1], NETSHM_E_PERMISSION);
        is(codes[2], NETSHM_E_PERMISSION);
        is(codes[3], NETSHM_E_PERMISSION);
        note("somebody else's memory, and a new management file");
        is(codes[4], NETSHM_E_PERMISSION);
        is(codes[5], -1);
        is(codes[6], NETSHM_E_PERMISSION);
        is(codes[7], -1);
        note("memory that is no object, and a new management file");
        spit_to(p->path, text, sizeof text, 0600);
        is(netshm_open(NETSHM_POSIX, others, p->mem, CREATE, 0600, &o), NETSHM_E_CORRUPT);
        is(access(others, F_OK), -1);
        munmap(codes, 4096);
    } else {
        note("SKIP: needs root");
    }
    free(bad);
    free(before);
    return done();
}
