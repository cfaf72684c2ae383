/* Lookups over the one list of reasons (base/reason_list.h). */
#include "sallyport/base/reason.h"

struct row {
    const char *text;
    int status;
    const char *proxy_error;
    const char *proxy_reason;
    const char *meaning;
    const char *advice;
};

static const struct row rows[REASON_COUNT] = {
    [REASON_OK] = {"ok", 200, NULL, NULL, "the request is allowed", "nothing to do"},
#define X(symbol, text, status, error, reason, meaning, advice)                                    \
    [REASON_##symbol] = {text, status, error, reason, meaning, advice},
    REASON_LIST(X)
#undef X
};

/* A forgotten verdict, or a number that is none, is a failure of ours and never "ok". */
static const struct row *
row_of(enum reason r)
{
    if ((unsigned)r >= REASON_COUNT || r == REASON_UNDECIDED)
        return &rows[REASON_INTERNAL];
    return &rows[r];
}

const char *
reason_text(enum reason r)
{
    return row_of(r)->text;
}

int
reason_status(enum reason r)
{
    return row_of(r)->status;
}

const char *
reason_proxy_error(enum reason r)
{
    return row_of(r)->proxy_error;
}

const char *
reason_proxy_reason(enum reason r)
{
    return row_of(r)->proxy_reason;
}

const char *
reason_meaning(enum reason r)
{
    return row_of(r)->meaning;
}

const char *
reason_advice(enum reason r)
{
    return row_of(r)->advice;
}

enum reason
reason_from_text(struct slice text)
{
    for (unsigned r = REASON_OK; r < REASON_COUNT; r++) {
        if (slice_is(text, rows[r].text))
            return (enum reason)r;
    }
    return REASON_UNDECIDED;
}

bool
reason_is_denial(enum reason r)
{
    if (r == REASON_OK)
        return false;
    /* Judgements are 4xx, 0 (after the 200 of a tunnel) and 501 (a method or coding that is never
     * forwarded). */
    int status = reason_status(r);
    return status < 500 || status == 501;
}
