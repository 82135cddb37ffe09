/* Not a test: it proves that the sanitizers are on, by the faults that they must find. "a": the library itself writes to
 * memory that was freed; "l": a handle of the library is leaked; "u": C code overflows; "n": nothing is wrong. */
#include "../../c_tests/support.h"

static void leaks(place *p)
{
    netshm_object *volatile object = NULL;
    good(place_open(p, RW, (netshm_object **)&object));
    object = NULL;
}

int main(int argc, char **argv)
{
    char what = argc > 1 ? argv[1][0] : 'n';
    volatile int number = 2147483647;
    size_t *volatile length = malloc(sizeof *length);
    char value[8];
    place *p = place_new();
    netshm_hashtbl *t = place_table(p, NULL);
    good(put(t, "key", "8 bytes."));
    if (what == 'l') leaks(p);
    if (what == 'u') number += argc;
    if (what == 'a') free(length);
    good(netshm_hashtbl_find(t, "key", 3, value, sizeof value, length));
    if (what != 'a') free(length);
    good(netshm_hashtbl_close(t));
    return done();
}
