/* The Test Anything Protocol in a few lines: ok(), is(), done(). Clean as C99 and as C++11. */
#ifndef TAP_H
#define TAP_H
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "netshm.h"

static int tap_count, tap_failures;

static int tap_result(int passed, const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%s %d - ", passed ? "ok" : "not ok", ++tap_count);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    if (!passed) {
        tap_failures++;
        printf("# at %s line %d\n", file, line);
    }
    fflush(stdout);
    return passed;
}

static int tap_is(long long got, long long wanted, const char *text, const char *file, int line)
{
    int passed = tap_result(got == wanted, file, line, "%s is %lld", text, wanted);
    if (!passed) {
        netshm_error e;
        e.size = sizeof e;
        netshm_last_error(&e);
        printf("# got %lld; last error: %d, %s\n", got, e.code, e.text);
    }
    return passed;
}

/* A condition holds. */
#define ok(condition) tap_result(!!(condition), __FILE__, __LINE__, "%s", #condition)
/* An integer is as expected. */
#define is(expression, wanted) tap_is((long long)(expression), (long long)(wanted), #expression, __FILE__, __LINE__)
/* A call succeeds. */
#define good(call) is(call, NETSHM_OK)
/* Says something. */
#define note(...) (printf("# " __VA_ARGS__), printf("\n"), (void)fflush(stdout))

static int done(void)
{
    printf("1..%d\n", tap_count);
    return tap_failures ? 1 : 0;
}

#endif
