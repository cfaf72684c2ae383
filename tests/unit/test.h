/* The test harness of the unit tests: each TEST is a case; a failed CHECK prints where and what, and the case fails.
 * Output: a line PASS, FAIL or SKIP a case, which tests/run counts. */
#ifndef TESTS_UNIT_TEST_H
#define TESTS_UNIT_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test_case {
    const char *name;
    void (*fn)(void);
    struct test_case *next;
};
static struct test_case *test_first, **test_last = &test_first;
static bool test_failed;
static const char *test_skipped;

#define TEST(id)                                                                                   \
    static void id(void);                                                                          \
    static struct test_case case_##id = {#id, id, NULL};                                           \
    __attribute__((constructor)) static void register_##id(void)                                   \
    {                                                                                              \
        *test_last = &case_##id;                                                                   \
        test_last = &case_##id.next;                                                               \
    }                                                                                              \
    static void id(void)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            test_failed = true;                                                                    \
            printf("  %s:%d: %s\n", __FILE__, __LINE__, #cond);                                    \
        }                                                                                          \
    } while (0)
/* With what was at hand, for table-driven cases. */
#define CHECK_THAT(cond, ...)                                                                      \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            test_failed = true;                                                                    \
            printf("  %s:%d: %s: ", __FILE__, __LINE__, #cond);                                    \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)
#define CHECK_STR(a, b) CHECK_THAT(strcmp((a), (b)) == 0, "\"%s\" is not \"%s\"", (a), (b))
#define SKIP(why)                                                                                  \
    do {                                                                                           \
        test_skipped = (why);                                                                      \
        return;                                                                                    \
    } while (0)

int
main(void)
{
    int failures = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (struct test_case *t = test_first; t; t = t->next) {
        test_failed = false;
        test_skipped = NULL;
        t->fn();
        if (test_failed)
            printf("FAIL %s\n", t->name);
        else if (test_skipped)
            printf("SKIP %s: %s\n", t->name, test_skipped);
        else
            printf("PASS %s\n", t->name);
        failures += test_failed;
    }
    return failures ? 1 : 0;
}

#endif
