/* Goal: the library can be loaded at run time and dropped while threads that used it live on. Method: dlopen,
 * threads that use a table, dlclose, then the end of the threads (whose destructors are the library's). */
#include <dlfcn.h>
#include "support.h"

typedef int (*open_fn)(int, const char *, const char *, uint32_t, uint32_t, netshm_object **);
typedef int (*manage_fn)(netshm_object *, netshm_type *, netshm_type *, const netshm_options *, netshm_hashtbl **);
typedef int (*incr_fn)(netshm_hashtbl *, const void *, size_t, int64_t, int64_t, int64_t *);
typedef int (*close_fn)(netshm_hashtbl *);
typedef int (*close_object_fn)(netshm_object *);

static incr_fn incr;
static netshm_hashtbl *t;
static pthread_barrier_t used, dropped;

static void *work(void *arg)
{
    int i, wrong = 0;
    (void)arg;
    for (i = 0; i < 100; i++)
        if (incr(t, "n", 1, 1, 0, NULL) != NETSHM_OK) wrong++;
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&dropped);
    return (void *)(intptr_t)wrong;
}

/* C99 has no cast from a data pointer to a function pointer. */
static void look_up(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    ok(symbol != NULL);
    memcpy(function, &symbol, sizeof symbol);
}

int main(int argc, char **argv)
{
    const char *path = getenv("NETSHM_LIBRARY");
    pthread_t threads[4];
    place *p = place_new();
    int round, i;
    (void)argc, (void)argv;
    if (path == NULL) {
        printf("1..0 # SKIP NETSHM_LIBRARY is not set\n");
        return 0;
    }
    for (round = 0; round < 3; round++) {
        open_fn open_object;
        manage_fn manage;
        close_fn close_table;
        close_object_fn close_object;
        netshm_object *o = NULL;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        ok(library != NULL);
        if (library == NULL) {
            note("%s", dlerror());
            break;
        }
        look_up(library, "netshm_open", &open_object);
        look_up(library, "netshm_hashtbl_manage", &manage);
        look_up(library, "netshm_hashtbl_incr", &incr);
        look_up(library, "netshm_hashtbl_close", &close_table);
        look_up(library, "netshm_close", &close_object);
        good(open_object(NETSHM_POSIX, p->file, p->mem, CREATE, 0600, &o));
        good(manage(o, NULL, NULL, NULL, &t));
        good(close_object(o));
        pthread_barrier_init(&used, NULL, 5);
        pthread_barrier_init(&dropped, NULL, 5);
        for (i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, NULL);
        pthread_barrier_wait(&used);
        if (round != 1) good(close_table(t));
        is(dlclose(library), 0);
        pthread_barrier_wait(&dropped);
        for (i = 0; i < 4; i++) {
            void *wrong = NULL;
            pthread_join(threads[i], &wrong);
            is((intptr_t)wrong, 0);
        }
        /* It stays loaded. */
        if (round == 1) good(close_table(t));
    }
    {
        netshm_hashtbl *own = place_table(p, NULL);
        int64_t n = 0;
        good(netshm_hashtbl_incr(own, "n", 1, 0, 0, &n));
        is(n, 1200);
        good(netshm_hashtbl_close(own));
    }
    return done();
}
