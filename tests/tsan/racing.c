/* Not a test: it proves that ThreadSanitizer is on, by the races that it must find. "c": in this file; "library": two
 * threads let the library write to the same place; "none": the same, one after the other. */
#include "../../c_tests/support.h"

static netshm_hashtbl *t;
static char value[8];
static size_t length;

static void *races(void *arg)
{
    (void)arg;
    length++;
    return NULL;
}

static void *finds(void *arg)
{
    int i;
    (void)arg;
    for (i = 0; i < 1000; i++) netshm_hashtbl_find(t, "key", 3, value, sizeof value, &length);
    return NULL;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "none";
    void *(*body)(void *) = strcmp(what, "c") == 0 ? races : finds;
    pthread_t one, two;
    place *p = place_new();
    t = place_table(p, NULL);
    good(put(t, "key", "8 bytes."));
    pthread_create(&one, NULL, body, NULL);
    if (strcmp(what, "none") == 0) pthread_join(one, NULL);
    pthread_create(&two, NULL, body, NULL);
    if (strcmp(what, "none") != 0) pthread_join(one, NULL);
    pthread_join(two, NULL);
    good(netshm_hashtbl_close(t));
    return done();
}
