/* Hands jobs from one process to another and the results back, without polling: whoever has nothing to do sleeps
 * until the key that it is interested in changes. */
#include <netshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call) must((call), #call)
enum { JOBS = 1000 };

static void must(int code, const char *call)
{
    if (code == NETSHM_OK) return;
    fprintf(stderr, "%s: %s\n", call, netshm_strerror(code));
    _exit(1);
}

/* Takes the number that is bound to a key away from there, once there is one. Stamp first, then look, then wait: what
 * comes between the look and the wait ends the wait at once. */
static int32_t take(netshm_hashtbl *table, const char *key)
{
    int32_t number = 0;
    for (;;) {
        uint64_t stamp;
        size_t len;
        int code;
        MUST(netshm_hashtbl_stamp(table, key, strlen(key), &stamp));
        code = netshm_hashtbl_find(table, key, strlen(key), &number, sizeof number, &len);
        if (code == NETSHM_OK) break;
        if (code != NETSHM_E_NOT_FOUND) must(code, "find");
        code = netshm_hashtbl_wait(table, key, strlen(key), &stamp, -1);
        if (code != NETSHM_E_INTERRUPTED) must(code, "wait");
    }
    MUST(netshm_hashtbl_remove(table, key, strlen(key), NULL));
    return number;
}

static void give(netshm_hashtbl *table, const char *key, int32_t number)
{
    MUST(netshm_hashtbl_insert(table, key, strlen(key), &number, sizeof number));
}

static void work(netshm_hashtbl *table)
{
    int i;
    for (i = 0; i < JOBS; i++) {
        int32_t job = take(table, "job");
        give(table, "result", job * job);
    }
}

int main(void)
{
    netshm_object *object = NULL;
    netshm_hashtbl *table = NULL;
    int64_t sum = 0;
    int32_t job;
    int status = 1;
    pid_t worker;
    /* Memory without a name: the worker inherits it, and nobody has to clean up. */
    MUST(netshm_open(NETSHM_ANON, NULL, NULL, NETSHM_RDWR | NETSHM_CREAT, 0, &object));
    MUST(netshm_hashtbl_manage(object, NULL, NULL, NULL, &table));
    worker = fork();
    if (worker == 0) {
        work(table);
        _exit(0);
    }
    for (job = 0; job < JOBS; job++) {
        give(table, "job", job);
        sum += take(table, "result");
    }
    waitpid(worker, &status, 0);
    printf("the sum of the squares below %d is %ld\n", JOBS, (long)sum);
    netshm_hashtbl_close(table);
    netshm_close(object);
    return status == 0 && sum == 332833500 ? 0 : 1;
}
