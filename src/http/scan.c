/* head_scan: finds the end of a head while it arrives, one byte after the other, and refuses at the
 * first byte that no head can hold there. The verdict depends on the bytes alone, never on how they
 * were split: all that is remembered between two calls is a state and a position. It is stricter
 * than llhttp, which sees only what has passed here. */
#include "sallyport/http/chars.h"
#include "sallyport/http/head.h"

/* What the next byte is. */
enum scan_state {
    AT_START = 0, /* zero, so that a zeroed struct begins here */
    AT_START_LF,
    AT_METHOD,
    IN_METHOD,
    AT_TARGET,
    IN_TARGET,
    /* The seven bytes of "HTTP/1." one by one; the order of these states is the order of the bytes.
     */
    AT_VERSION_0,
    AT_VERSION_1,
    AT_VERSION_2,
    AT_VERSION_3,
    AT_VERSION_4,
    AT_VERSION_5,
    AT_VERSION_6,
    AT_MINOR,
    AT_STATUS_SPACE,
    AT_STATUS_1,
    AT_STATUS_2,
    AT_STATUS_3,
    AFTER_STATUS,
    IN_PHRASE,
    AT_START_LINE_CR,
    AT_LINE_LF,
    AT_FIELD,
    IN_NAME,
    IN_VALUE,
    AT_LAST_LF,
    IS_COMPLETE,
    IS_TOO_LARGE,
    IS_MALFORMED,
};

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static enum scan_state
step_version(enum scan_state at, char c)
{
    if (c != "HTTP/1."[at - AT_VERSION_0])
        return IS_MALFORMED;
    return at + 1;
}

static enum scan_state
step_method(const struct head_scan *s, char c)
{
    /* Methods have a cap: what goes on for longer is not HTTP, or not meant well. */
    if (char_is(c, CHAR_TOKEN) && s->pos - s->start < HEAD_METHOD_MAX)
        return IN_METHOD;
    return c == ' ' && s->pos > s->start ? AT_TARGET : IS_MALFORMED;
}

static enum scan_state
step_target(enum scan_state at, char c)
{
    if (char_is(c, CHAR_TARGET))
        return IN_TARGET;
    return c == ' ' && at == IN_TARGET ? AT_VERSION_0 : IS_MALFORMED;
}

static enum scan_state
step_phrase(char c)
{
    if (c == '\r')
        return AT_LINE_LF;
    return char_is(c, CHAR_VALUE) ? IN_PHRASE : IS_MALFORMED;
}

/* At the first byte of a field line, or of the empty line that ends the head. SP and HTAB would be
 * obs-fold. */
static enum scan_state
step_field(struct head_scan *s, char c)
{
    if (c == '\r')
        return AT_LAST_LF;
    if (!char_is(c, CHAR_TOKEN))
        return IS_MALFORMED;
    return ++s->lines > HEAD_FIELDS_MAX ? IS_TOO_LARGE : IN_NAME;
}

static enum scan_state
step_value(char c)
{
    if (c == '\r')
        return AT_LINE_LF;
    return char_is(c, CHAR_VALUE) ? IN_VALUE : IS_MALFORMED;
}

static enum scan_state
step_status(enum scan_state at, char c)
{
    if (at == AT_STATUS_1)
        return c >= '1' && c <= '5' ? AT_STATUS_2 : IS_MALFORMED;
    return is_digit(c) ? at + 1 : IS_MALFORMED;
}

static enum scan_state
step_start(struct head_scan *s, char c)
{
    if (s->response)
        return step_version(AT_VERSION_0, c);
    if (c != '\r')
        return step_method(s, c);
    s->start = 2;
    return AT_START_LF;
}

/* The state after one more byte; s->pos is where that byte stands. */
static enum scan_state
step(struct head_scan *s, char c)
{
    enum scan_state at = s->state;
    switch (at) {
    case AT_START:
        return step_start(s, c);
    case AT_START_LF:
        return c == '\n' ? AT_METHOD : IS_MALFORMED;
    case AT_METHOD:
    case IN_METHOD:
        return step_method(s, c);
    case AT_TARGET:
    case IN_TARGET:
        return step_target(at, c);
    case AT_VERSION_0:
    case AT_VERSION_1:
    case AT_VERSION_2:
    case AT_VERSION_3:
    case AT_VERSION_4:
    case AT_VERSION_5:
    case AT_VERSION_6:
        return step_version(at, c);
    case AT_MINOR:
        if (c != '0' && c != '1')
            return IS_MALFORMED;
        return s->response ? AT_STATUS_SPACE : AT_START_LINE_CR;
    case AT_STATUS_SPACE:
        return c == ' ' ? AT_STATUS_1 : IS_MALFORMED;
    case AT_STATUS_1:
    case AT_STATUS_2:
    case AT_STATUS_3:
        return step_status(at, c);
    case AFTER_STATUS:
        /* The SP before an absent phrase is often left out; nothing becomes ambiguous by it. */
        return c == ' ' ? IN_PHRASE : c == '\r' ? AT_LINE_LF : IS_MALFORMED;
    case IN_PHRASE:
        return step_phrase(c);
    case AT_START_LINE_CR:
        return c == '\r' ? AT_LINE_LF : IS_MALFORMED;
    case AT_LINE_LF:
        return c == '\n' ? AT_FIELD : IS_MALFORMED;
    case AT_FIELD:
        return step_field(s, c);
    case IN_NAME:
        return char_is(c, CHAR_TOKEN) ? IN_NAME : c == ':' ? IN_VALUE : IS_MALFORMED;
    case IN_VALUE:
        return step_value(c);
    case AT_LAST_LF:
        return c == '\n' ? IS_COMPLETE : IS_MALFORMED;
    case IS_COMPLETE:
    case IS_TOO_LARGE:
    case IS_MALFORMED:
        return at;
    }
    return IS_MALFORMED;
}

/* Most bytes of a head stand in names, values and targets: these are skipped without a step each. */
static size_t
run_len(const struct head_scan *s, struct slice rest)
{
    switch (s->state) {
    case IN_NAME:
        return chars_run(rest, CHAR_TOKEN);
    case IN_VALUE:
        return chars_value_run(rest);
    case IN_TARGET:
        return chars_target_run(rest);
    default:
        return 0;
    }
}

static void
advance(struct head_scan *s, struct slice bytes, size_t limit)
{
    while (s->pos < limit && s->state < IS_COMPLETE) {
        s->state = (uint8_t)step(s, bytes.ptr[s->pos]);
        s->pos++;
        s->pos += run_len(s, slice_of(bytes.ptr + s->pos, limit - s->pos));
    }
    if (s->state == IS_COMPLETE && !s->end)
        s->end = s->pos;
}

enum head_scan_status
head_scan(struct head_scan *scan, struct slice bytes, size_t cap)
{
    advance(scan, bytes, bytes.len < cap ? bytes.len : cap);
    if (scan->state == IS_COMPLETE)
        return HEAD_SCAN_COMPLETE;
    if (scan->state == IS_MALFORMED)
        return HEAD_SCAN_MALFORMED;
    if (scan->state == IS_TOO_LARGE || scan->pos >= cap)
        return HEAD_SCAN_TOO_LARGE;
    return HEAD_SCAN_MORE;
}
