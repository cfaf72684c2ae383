/* PCRE2 behind four functions. A pattern is the policy author's and a subject is the sandbox's, so the cost of a match
 * is capped in steps and memory, and what passes the cap is neither yes nor no. Owns its compiled code and one match
 * block a pattern; matching does not allocate with JIT. One thread at a time. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "sallyport/policy/pattern.h"

#include <pcre2.h>

#include "sallyport/base/mem.h"

#define PARENS_MAX 64 /* nested groups */

struct pattern {
    pcre2_code *code;
    pcre2_match_data *block;
    pcre2_match_context *limits;
    bool jit_due; /* at the first match */
};

static bool jit_on = true;

void
pattern_set_jit(bool on)
{
    jit_on = on;
}

static pcre2_code *
compile(struct slice text, uint32_t more, struct err *err)
{
    int fault;
    size_t where;
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    if (!cc)
        abort();
    pcre2_set_parens_nest_limit(cc, PARENS_MAX);
    pcre2_set_max_pattern_length(cc, PATTERN_TEXT_MAX);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text.ptr, text.len,
                                     PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP |
                                         PCRE2_NEVER_BACKSLASH_C | more,
                                     &fault, &where, cc);
    pcre2_compile_context_free(cc);
    if (!code) {
        char message[160];
        pcre2_get_error_message(fault, (PCRE2_UCHAR *)message, sizeof message);
        err_invalid(err, "is no pattern, at %zu: %s", where, message);
    }
    return code;
}

/* Without it the interpreter matches, under the same limits. */
static void
use_jit(struct pattern *p)
{
    if (p->jit_due)
        (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    p->jit_due = false;
}

static struct pattern *
pattern_new(struct slice text, uint32_t more, struct err *err)
{
    if (text.len == 0 || text.len > PATTERN_TEXT_MAX) {
        err_invalid(err, "has %zu bytes; expected a pattern of 1 to %d", text.len, PATTERN_TEXT_MAX);
        return NULL;
    }
    pcre2_code *code = compile(text, more, err);
    if (!code)
        return NULL;
    struct pattern *p = mem_zalloc(sizeof *p);
    p->code = code;
    p->block = pcre2_match_data_create(1, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (!p->block || !p->limits)
        abort();
    pcre2_set_match_limit(p->limits, PATTERN_MATCH_LIMIT);
    pcre2_set_depth_limit(p->limits, PATTERN_MATCH_LIMIT);
    pcre2_set_heap_limit(p->limits, PATTERN_HEAP_KB);
    p->jit_due = jit_on;
    return p;
}

struct pattern *
pattern_compile(struct slice text, struct err *err)
{
    struct pattern *p = pattern_new(text, 0, err);
    if (p)
        use_jit(p);
    return p;
}

struct pattern *
pattern_compile_whole(struct slice text, struct err *err)
{
    return pattern_new(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED, err);
}

void
pattern_free(struct pattern *p)
{
    if (!p)
        return;
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->block);
    pcre2_code_free(p->code);
    free(p);
}

enum pattern_result
pattern_match(const struct pattern *p, struct slice subject)
{
    if (p->jit_due)
        use_jit((struct pattern *)(uintptr_t)p);
    int n = pcre2_match(p->code, (PCRE2_SPTR)subject.ptr, subject.len, 0, 0, p->block, p->limits);
    if (n >= 0)
        return PATTERN_YES;
    return n == PCRE2_ERROR_NOMATCH ? PATTERN_NO : PATTERN_EXCEEDED;
}
