/*
 * A pre-fork HTTP server: several worker processes share sessions and counters in a netshm table.
 *
 *     http_server [WORKERS [CLIENTS [REQUESTS]]]
 *
 * The parent listens on a free port of 127.0.0.1 and forks the workers, and clients that drive them. While they are at
 * it, it kills workers by SIGKILL and replaces them. A visit changes three things, the session, the counter of the
 * site, and the note which visit of the session was the last one; it does so in a group, so that a worker that is
 * killed has done all of it or nothing. A client that gets no answer asks again with the same number, and is told what
 * it was told, or would have been. In the end every visit has been counted exactly once.
 */
#define _GNU_SOURCE
#include <netshm.h>
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, KILLS = 3 };

static netshm_hashtbl *table;
static struct sockaddr_in address;

static void fail(const char *what)
{
    fprintf(stderr, "http_server: %s\n", what);
    exit(1);
}

static void must(int code, const char *what)
{
    if (code == NETSHM_OK) return;
    fprintf(stderr, "http_server: %s: %s\n", what, netshm_strerror(code));
    exit(1);
}

/* Adds to a counter; 0 shows it. */
static int64_t count(const char *name, int64_t delta)
{
    int64_t now = 0;
    must(netshm_hashtbl_incr(table, name, strlen(name), delta, 0, &now), name);
    return now;
}

/* ---- The server: what a worker does. */

/* What is stored for a session: the number of its last visit, and how many visits it has had. */
typedef struct session { int64_t last, visits; } session;

typedef struct visit { int64_t id, number; session now; } visit;

/* One visit, as a group: everything in it happens, or nothing. */
static int make_visit(netshm_txn *txn, void *arg)
{
    visit *v = arg;
    char key[40];
    size_t len;
    int code, key_len = snprintf(key, sizeof key, "session %" PRId64, v->id);
    (void)txn;
    code = netshm_hashtbl_find(table, key, (size_t)key_len, &v->now, sizeof v->now, &len);
    if (code == NETSHM_E_NOT_FOUND) memset(&v->now, 0, sizeof v->now);
    else if (code != NETSHM_OK) return code;
    /* The client did not hear the answer, and asks again. */
    if (v->now.last == v->number) return NETSHM_COMMIT;
    v->now.last = v->number;
    v->now.visits++;
    code = netshm_hashtbl_replace(table, key, (size_t)key_len, &v->now, sizeof v->now);
    if (code == NETSHM_OK) code = netshm_hashtbl_incr(table, "visits", 6, 1, 0, NULL);
    return code == NETSHM_OK ? NETSHM_COMMIT : code;
}

static void answer(int connection, const char *status, const char *cookie, const char *body)
{
    char text[512];
    int len = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\n%sContent-Length: %zu\r\n"
                       "Connection: close\r\n\r\n%s", status, cookie, strlen(body), body);
    /* If the client has gone, it will ask again. */
    if (send(connection, text, (size_t)len, MSG_NOSIGNAL) < 0) return;
}

static void serve(int connection)
{
    char request[2048], cookie[80], body[64];
    size_t have = 0;
    const char *field;
    visit v;
    for (;;) {
        ssize_t n = recv(connection, request + have, sizeof request - 1 - have, 0);
        if (n <= 0) return;
        have += (size_t)n;
        request[have] = 0;
        if (strstr(request, "\r\n\r\n")) break;
        if (have == sizeof request - 1) return;
    }
    memset(&v, 0, sizeof v);
    if (strncmp(request, "GET /login ", 11) == 0) {
        snprintf(cookie, sizeof cookie, "Set-Cookie: session=%" PRId64 "\r\n", count("sessions", 1));
        answer(connection, "200 OK", cookie, "welcome\n");
    } else if (sscanf(request, "GET /visit/%" SCNd64 " ", &v.number) == 1 && v.number > 0) {
        field = strstr(request, "\r\nCookie: session=");
        if (!field || sscanf(field, "\r\nCookie: session=%" SCNd64, &v.id) != 1) {
            answer(connection, "403 Forbidden", "", "no session\n");
            return;
        }
        /* Groups that wait for each other in a circle are told apart by age; this form tries again by itself. */
        must(netshm_group_retry(netshm_hashtbl_table(table), -1, make_visit, &v), "a visit");
        snprintf(body, sizeof body, "visit %" PRId64 "\n", v.now.visits);
        answer(connection, "200 OK", "", body);
    } else if (strncmp(request, "GET /total ", 11) == 0) {
        snprintf(body, sizeof body, "%" PRId64 "\n", count("visits", 0));
        answer(connection, "200 OK", "", body);
    } else {
        answer(connection, "404 Not Found", "", "no such page\n");
    }
}

static void set_timeout(int s)
{
    struct timeval limit = { 5, 0 };
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* The worker uses the table that it has inherited: that is all it takes. */
static void work(int listener)
{
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            fail("accept");
        }
        set_timeout(connection);
        serve(connection);
        close(connection);
    }
}

/* ---- The clients. */

/* One request; 0 if there was no whole answer. */
static int ask(const char *request, char *reply, size_t size)
{
    size_t have = 0;
    ssize_t n = 1;
    const char *head, *length;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0) fail("socket");
    set_timeout(s);
    if (connect(s, (struct sockaddr *)&address, sizeof address) < 0 ||
        send(s, request, strlen(request), MSG_NOSIGNAL) < 0)
        n = -1;
    while (n > 0 && have < size - 1) {
        n = recv(s, reply + have, size - 1 - have, 0);
        if (n > 0) have += (size_t)n;
    }
    close(s);
    reply[have] = 0;
    head = strstr(reply, "\r\n\r\n");
    length = strstr(reply, "\r\nContent-Length: ");
    return head && length && strlen(head + 4) == strtoul(length + 18, NULL, 10);
}

/* Asks until there is an answer: a worker may have been killed while it had the request. */
static int ask_on(const char *request, char *reply, size_t size)
{
    int tries;
    for (tries = 0; tries < 1000; tries++) {
        if (ask(request, reply, size)) return tries;
        usleep(2000);
    }
    fail("the server does not answer");
    return -1;
}

/* Visits the site so many times, and sees that every visit is counted once. */
static void visit_all(int requests)
{
    char request[200], reply[1024];
    int64_t id = 0, visits = 0;
    const char *found;
    int n, again = 0;
    ask_on("GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n", reply, sizeof reply);
    found = strstr(reply, "Set-Cookie: session=");
    if (!found || sscanf(found, "Set-Cookie: session=%" SCNd64, &id) != 1) fail("no session was given");
    for (n = 1; n <= requests; n++) {
        snprintf(request, sizeof request, "GET /visit/%d HTTP/1.1\r\nHost: localhost\r\nCookie: session=%" PRId64
                 "\r\n\r\n", n, id);
        again += ask_on(request, reply, sizeof reply);
        found = strstr(reply, "\r\n\r\nvisit ");
        if (!found || sscanf(found, "\r\n\r\nvisit %" SCNd64, &visits) != 1 || visits != n) {
            fprintf(stderr, "http_server: visit %d was answered by: %s\n", n, reply);
            exit(1);
        }
    }
    if (again) count("asked again", again);
}

/* ---- The parent. */

/* Nobody outlives the parent. */
static pid_t start(void)
{
    pid_t parent = getpid(), child;
    fflush(NULL);
    child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    return child;
}

static pid_t start_worker(int listener)
{
    pid_t pid = start();
    if (pid == 0) work(listener);
    return pid;
}

static int listen_somewhere(void)
{
    socklen_t len = sizeof address;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof address) < 0 || listen(s, 128) < 0 ||
        getsockname(s, (struct sockaddr *)&address, &len) < 0)
        fail("cannot listen on 127.0.0.1");
    return s;
}

static int sum_visits(netshm_slice key, netshm_slice val, void *arg)
{
    session now;
    if (key.len > 8 && memcmp(key.data, "session ", 8) == 0 && val.len == sizeof now) {
        memcpy(&now, val.data, sizeof now);
        *(int64_t *)arg += now.visits;
    }
    return NETSHM_CONTINUE;
}

int main(int argc, char **argv)
{
    int workers = argc > 1 ? atoi(argv[1]) : 4, clients = argc > 2 ? atoi(argv[2]) : 4;
    int requests = argc > 3 ? atoi(argv[3]) : 500;
    int64_t wanted = (int64_t)clients * requests, sum = 0;
    int kind, listener, i, status, running, killed = 0;
    const char *file_name, *mem_name;
    pid_t worker[MOST], client[MOST], pid;
    netshm_object *object;
    if (workers < 1 || workers > MOST || clients < 1 || clients > MOST || requests < 1) fail("impossible numbers");

    must(netshm_create_unique(NETSHM_POSIX, "/tmp/netshm-http-XXXXXXXX", "/netshm-http-XXXXXXXX", 0600, &object),
         "creating the memory");
    must(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table), "managing the table");
    /* The children inherit the object. Without its name it goes when the last of them goes, however they end. */
    must(netshm_name(object, &kind, &file_name, &mem_name), "asking for the name");
    must(netshm_unlink(kind, file_name, mem_name), "removing the name");

    listener = listen_somewhere();
    for (i = 0; i < workers; i++) worker[i] = start_worker(listener);
    for (i = 0; i < clients; i++) {
        client[i] = start();
        if (client[i] == 0) {
            close(listener);
            visit_all(requests);
            _exit(0);
        }
    }
    printf("serving 127.0.0.1:%d with %d workers, %d clients, %" PRId64 " visits\n", ntohs(address.sin_port), workers,
           clients, wanted);

    for (running = clients; running > 0 || killed < KILLS;) {
        /* After each quarter of the load a worker is killed, wherever it is. */
        if (killed < KILLS && count("visits", 0) >= wanted * (killed + 1) / (KILLS + 1)) {
            kill(worker[killed % workers], SIGKILL);
            killed++;
        }
        pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0) fail("waitpid");
        if (pid == 0) {
            usleep(500);
            continue;
        }
        for (i = 0; i < clients; i++)
            if (client[i] == pid) {
                if (status != 0) fail("a client has failed");
                running--;
            }
        for (i = 0; i < workers; i++)
            if (worker[i] == pid) {
                if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) fail("a worker has failed");
                worker[i] = start_worker(listener);
            }
    }
    for (i = 0; i < workers; i++) kill(worker[i], SIGTERM);
    while (wait(NULL) > 0) {}

    must(netshm_hashtbl_iter(table, sum_visits, &sum), "looking at the sessions");
    printf("%d workers killed; %" PRId64 " requests asked again; visits: %" PRId64 " in all, %" PRId64
           " in the sessions\n", killed, count("asked again", 0), count("visits", 0), sum);
    if (count("visits", 0) != wanted || sum != wanted) fail("the counters are wrong");
    must(netshm_check(object, 0, NULL, NULL), "checking");
    must(netshm_hashtbl_close(table), "closing");
    must(netshm_close(object), "closing");
    return 0;
}
