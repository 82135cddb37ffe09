/* The smallest whole program: puts a greeting into shared memory, where every process finds it. */
#include <netshm.h>
#include <stdio.h>

int main(void)
{
    netshm_object *object = NULL;
    netshm_hashtbl *table = NULL;
    char text[64];
    size_t len;
    int64_t runs = 0;
    int code = netshm_open(NETSHM_POSIX, "/tmp/netshm-hello", "/netshm-hello", NETSHM_RDWR | NETSHM_CREAT, 0600, &object);
    if (code == NETSHM_OK) code = netshm_hashtbl_manage(object, NULL, NULL, NULL, &table);
    if (code == NETSHM_OK) code = netshm_hashtbl_replace(table, "greeting", 8, "Hello, world", 12);
    if (code == NETSHM_OK) code = netshm_hashtbl_incr(table, "runs", 4, 1, 0, &runs);
    if (code == NETSHM_OK) code = netshm_hashtbl_find(table, "greeting", 8, text, sizeof text, &len);
    if (code == NETSHM_OK) printf("%.*s! Run number %ld.\n", (int)len, text, (long)runs);
    else fprintf(stderr, "%s\n", netshm_strerror(code));
    netshm_hashtbl_close(table);
    netshm_close(object);
    return code == NETSHM_OK ? 0 : 1;
}
