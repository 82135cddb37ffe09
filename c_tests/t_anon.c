/* Goal: memory without a name, and objects given as descriptors. Method: made, passed to a child by inheritance and by
 * exec, to another process over a Unix socket; attempts to shorten it; descriptors that are none. */
#include "support.h"
#include <sys/socket.h>

static netshm_object *anonymous(void)
{
    netshm_object *o = NULL;
    good(netshm_open(NETSHM_ANON, NULL, NULL, CREATE, 0, &o));
    return o;
}

static netshm_hashtbl *table_of(netshm_object *o)
{
    netshm_hashtbl *t = NULL;
    return netshm_hashtbl_manage(o, NULL, NULL, NULL, &t) == NETSHM_OK ? t : NULL;
}

static int fd_of(netshm_object *o)
{
    int fd = -1;
    good(netshm_fd(o, &fd));
    return fd;
}

static void made_and_sealed(void)
{
    netshm_object *o = anonymous(), *other = NULL, *reader = NULL;
    netshm_hashtbl *t = table_of(o), *u, *r;
    const char *file = "x", *mem = "x";
    struct stat before, after;
    int kind = 0, fd = fd_of(o);
    ok((netshm_supported_kinds() & (1u << NETSHM_ANON)) != 0);
    is(netshm_best_locking(NETSHM_ANON), NETSHM_LOCK_FUTEX);
    good(netshm_name(o, &kind, &file, &mem));
    is(kind, NETSHM_ANON);
    ok(file == NULL && mem == NULL);
    good(put(t, "k", "v"));
    is(fstat(fd, &before), 0);
    is(ftruncate(fd, 0), -1);
    is(errno, EPERM);
    is(ftruncate(fd, before.st_size - 1), -1);
    is(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    is(fstat(fd, &after), 0);
    ok(before.st_size == after.st_size);
    ok((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);

    /* The same object once more, for both and for reading. */
    good(netshm_open_fd(fd, RW, &other));
    good(netshm_open_fd(fd, NETSHM_RDONLY, &reader));
    u = table_of(other);
    r = table_of(reader);
    good(put(u, "k", "w"));
    is(has(t, "k", "w"), 1);
    is(has(r, "k", "w"), 1);
    is(put(r, "k", "x"), NETSHM_E_READ_ONLY);
    good(netshm_close(o));
    good(netshm_hashtbl_close(t));
    is(has(u, "k", "w"), 1);
    good(put(u, "k", "y"));
    is(has(r, "k", "y"), 1);
    good(netshm_check(other, 0, NULL, NULL));
    good(netshm_check(reader, 0, NULL, NULL));
    good(netshm_hashtbl_close(u));
    good(netshm_hashtbl_close(r));
    good(netshm_close(reader));

    /* Emptied. */
    fd = fd_of(other);
    good(netshm_open_fd(fd, RW | NETSHM_TRUNC, &o));
    t = table_of(o);
    is(has(t, "k", "y"), NETSHM_E_NOT_FOUND);
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    good(netshm_close(other));
}

static void refused(void)
{
    place *p = place_new();
    netshm_object *o = NULL, *posix = NULL;
    int ends[2], fd, closed;
    is(netshm_open(NETSHM_ANON, NULL, "/name", CREATE, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 3);
    is(netshm_open(NETSHM_ANON, "/tmp/name", NULL, CREATE, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_open(NETSHM_ANON, NULL, NULL, RW, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(netshm_open(NETSHM_ANON, NULL, NULL, NETSHM_RDONLY, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 4);
    is(netshm_open(NETSHM_ANON, NULL, NULL, CREATE | 1024, 0600, &o), NETSHM_E_INVALID);
    is(netshm_create_unique(NETSHM_ANON, NULL, NULL, 0600, &o), NETSHM_E_INVALID);
    is(last().argument, 1);
    is(netshm_unlink(NETSHM_ANON, NULL, NULL), NETSHM_E_INVALID);

    good(place_open(p, CREATE, &posix));
    fd = fd_of(posix);
    is(netshm_open_fd(fd, CREATE, &o), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_open_fd(fd, 0, &o), NETSHM_E_INVALID);
    is(last().argument, 2);
    is(netshm_open_fd(-1, RW, &o), NETSHM_E_INVALID);
    is(last().argument, 1);
    closed = dup(fd);
    close(closed);
    is(netshm_open_fd(closed, RW, &o), NETSHM_E_INVALID);
    is(last().argument, 1);
    is(pipe(ends), 0);
    is(netshm_open_fd(ends[0], NETSHM_RDONLY, &o), NETSHM_E_INVALID);
    is(last().argument, 1);
    close(ends[0]);
    close(ends[1]);
    fd = open(p->path, O_RDONLY);
    is(netshm_open_fd(fd, RW, &o), NETSHM_E_READ_ONLY);
    good(netshm_open_fd(fd, NETSHM_RDONLY, &o));
    ok(fcntl(fd, F_GETFD) >= 0);
    good(netshm_close(o));
    ok(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    fd = open("/etc/passwd", O_RDONLY);
    o = NULL;
    is(netshm_open_fd(fd, NETSHM_RDONLY, &o), NETSHM_E_CORRUPT);
    close(fd);
    ok(o == NULL);
    good(netshm_close(posix));
}

static int inherits(void *arg)
{
    netshm_object *o = (netshm_object *)arg, *again = NULL;
    netshm_hashtbl *t = table_of(o), *u;
    int fd = -1;
    if (t == NULL || has(t, "who", "parent") != 1) return 1;
    if (netshm_fd(o, &fd) != NETSHM_OK || netshm_open_fd(fd, RW, &again) != NETSHM_OK) return 2;
    u = table_of(again);
    if (u == NULL || put(u, "who", "child") != NETSHM_OK) return 3;
    if (netshm_hashtbl_close(t) != NETSHM_OK || netshm_close(o) != NETSHM_OK) return 4;
    if (has(u, "who", "child") != 1) return 5;
    return netshm_hashtbl_close(u) == NETSHM_OK && netshm_close(again) == NETSHM_OK ? 0 : 6;
}

/* What the program does when it is called with the number of a descriptor. */
static int executed(int fd)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t;
    if (netshm_open_fd(fd, RW, &o) != NETSHM_OK || close(fd) != 0) return 1;
    t = table_of(o);
    if (t == NULL || has(t, "who", "child") != 1 || put(t, "who", "program") != NETSHM_OK) return 2;
    return netshm_hashtbl_close(t) == NETSHM_OK && netshm_close(o) == NETSHM_OK ? 0 : 3;
}

typedef struct program { const char *path; int fd; } program;

static int executes(void *arg)
{
    program *what = (program *)arg;
    char number[16];
    snprintf(number, sizeof number, "%d", what->fd);
    execl(what->path, what->path, number, (char *)NULL);
    return 99;
}

static void inherited(const char *path)
{
    netshm_object *o = anonymous();
    netshm_hashtbl *t = table_of(o);
    program what;
    good(put(t, "who", "parent"));
    is(in_child(inherits, o), 0);
    is(has(t, "who", "child"), 1);
    what.path = path;
    what.fd = dup(fd_of(o));
    is(in_child(executes, &what), 0);
    is(has(t, "who", "program"), 1);
    close(what.fd);
    good(netshm_check(o, 0, NULL, NULL));
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
}

static int send_fd(int to, int fd)
{
    struct msghdr message;
    struct iovec part;
    union { struct cmsghdr header; char space[64]; } control;
    char byte = 0;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = &byte;
    part.iov_len = 1;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof fd);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return sendmsg(to, &message, 0) == 1 ? 0 : -1;
}

static int receive_fd(int from)
{
    struct msghdr message;
    struct iovec part;
    union { struct cmsghdr header; char space[64]; } control;
    char byte = 0;
    int fd = -1;
    memset(&message, 0, sizeof message);
    part.iov_base = &byte;
    part.iov_len = 1;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1) return -1;
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

/* A peer that was there before the object: it knows nothing but what comes through the socket. */
static int peer(int socket)
{
    netshm_object *o = NULL;
    netshm_hashtbl *t;
    char byte = 0;
    int i, fd = receive_fd(socket);
    if (fd < 0 || netshm_open_fd(fd, RW, &o) != NETSHM_OK || close(fd) != 0) return 1;
    t = table_of(o);
    if (t == NULL) return 2;
    for (i = 0; i < 1000; i++)
        if (netshm_hashtbl_incr(t, "n", 1, 1, 0, NULL) != NETSHM_OK) return 3;
    /* The giver has closed everything and is about to end; it is said so by the end of the stream. */
    if (write(socket, "d", 1) != 1 || read(socket, &byte, 1) != 0) return 4;
    if (put(t, "alone", "yes") != NETSHM_OK || has(t, "alone", "yes") != 1) return 5;
    for (i = 0; i < 20000; i++)
        if (netshm_hashtbl_add(t, &i, sizeof i, "grown", 5) != NETSHM_OK) return 6;
    if (netshm_check(o, 0, NULL, NULL) != NETSHM_OK) return 7;
    return netshm_hashtbl_close(t) == NETSHM_OK && netshm_close(o) == NETSHM_OK ? 0 : 8;
}

static void passed_over_a_socket(void)
{
    int ends[2], status = 0;
    pid_t child;
    netshm_object *o;
    netshm_hashtbl *t;
    int64_t n = 0;
    char byte;
    is(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        close(ends[0]);
        _exit(peer(ends[1]));
    }
    close(ends[1]);
    o = anonymous();
    t = table_of(o);
    is(send_fd(ends[0], fd_of(o)), 0);
    is(read(ends[0], &byte, 1), 1);
    good(netshm_hashtbl_incr(t, "n", 1, 0, 0, &n));
    is(n, 1000);
    good(netshm_hashtbl_close(t));
    good(netshm_close(o));
    close(ends[0]);
    waitpid(child, &status, 0);
    is(status, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) return executed(atoi(argv[1]));
    made_and_sealed();
    refused();
    inherited(argv[0]);
    passed_over_a_socket();
    return done();
}
