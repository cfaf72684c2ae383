/* Path patterns of rules: PCRE2, compiled once, matched under limits. The only module with PCRE2. */
#ifndef SALLYPORT_POLICY_PATTERN_H
#define SALLYPORT_POLICY_PATTERN_H

#include <stdbool.h>

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

#define PATTERN_TEXT_MAX 1024       /* bytes of one pattern */
#define PATTERN_MATCH_LIMIT 50000   /* steps of one match; a pattern for a path needs a few hundred */
#define PATTERN_HEAP_KB 1024        /* memory of one match without JIT */

struct pattern;

enum pattern_result { PATTERN_EXCEEDED = 0 /* over a limit: nobody may take this for an answer */, PATTERN_NO, PATTERN_YES };

/* Bytes, not UTF-8; `$` is the very end; \C, callouts and mode switches to UTF are off. The err text is about the
 * pattern alone ("at 7: missing closing parenthesis"). */
struct pattern *pattern_compile(struct slice text, struct err *err);
/* One that must match the whole subject, without anchors of its own. Many of a data file are never asked, so the machine code
 * of one is made when it first is. */
struct pattern *pattern_compile_whole(struct slice text, struct err *err);
void pattern_free(struct pattern *p); /* NULL is fine */
enum pattern_result pattern_match(const struct pattern *p, struct slice subject);
/* Off before policies are compiled where memory may not become executable (a confined worker). On at first. */
void pattern_set_jit(bool on);

#endif
