/* Not a test: it proves that the sanitizers are on, by the faults that they must find. argv[1] chooses one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "netshm.h"

int main(int argc, char **argv)
{
    int number = argc + 2147483640;
    volatile char *volatile block = (char *)malloc(8);
    if (argc < 2 || block == NULL) return 0;
    printf("%s\n", netshm_strerror(0));
    switch (argv[1][0]) {
    case 'a': block[8 * argc] = 1; break;
    case 'u': number += 10 * argc; printf("%d\n", number); break;
    case 'l': block = NULL; break;
    }
    free((void *)block);
    return 0;
}
