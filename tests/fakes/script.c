/* Reading scenario files. Line by line; bytes stand in blocks of lines that begin with `|` (CRLF is
 * added) or `+` (as it is), JSON in a block from `{` to a `}` at the line's beginning. */
#include "fakes/script.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/mem.h"

#define TEXT_MAX (8u << 20)
#define LINE_MAX_BYTES 65536
#define NAMES_MAX 32

struct reader {
    struct script *script;
    FILE *file;
    char line[LINE_MAX_BYTES];
    bool pushed_back;
    int number;
    struct document tokens[NAMES_MAX]; /* ${NAME} */
    size_t token_count;
};

static void __attribute__((noreturn, format(printf, 2, 3)))
broken(const struct reader *r, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "scenario: %s:%d: ", r->script->path, r->number);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

static bool
next_line(struct reader *r)
{
    if (r->pushed_back) {
        r->pushed_back = false;
        return true;
    }
    if (!fgets(r->line, sizeof r->line, r->file))
        return false;
    r->number++;
    r->line[strcspn(r->line, "\n")] = '\0';
    return true;
}

static struct generation *
now_reading(struct reader *r)
{
    return &r->script->generations[r->script->generation_count - 1];
}

static struct step *
add_step(struct reader *r, enum step_kind kind)
{
    if (r->script->step_count == STEPS_MAX)
        broken(r, "more than %d steps", STEPS_MAX);
    struct step *s = &r->script->steps[r->script->step_count++];
    s->kind = kind;
    s->line = r->number;
    return s;
}

/* ---- bytes ---- */

static void append_text(struct reader *r, struct buf *out, const char *p);

static void
append_macro(struct reader *r, struct buf *out, const char *name)
{
    size_t len;
    char option[16] = "", arg[512] = "";
    unsigned long count;
    for (size_t i = 0; i < r->token_count; i++)
        if (strcmp(r->tokens[i].name, name) == 0) {
            buf_append_str(out, r->tokens[i].text);
            return;
        }
    if (sscanf(name, "HELLO-%15[a-z]:%511s", option, arg) == 2 ||
        sscanf(name, "HELLO:%511s", arg) == 1 || strcmp(name, "HELLO") == 0) {
        char *hello = hello_build(arg[0] ? arg : NULL, option[0] ? option : NULL, &len);
        buf_append(out, hello, len);
        free(hello);
        return;
    }
    if (sscanf(name, "REPEAT:%lu:%511[^}]", &count, arg) == 2) {
        for (unsigned long i = 0; i < count; i++)
            append_text(r, out, arg);
        return;
    }
    broken(r, "unknown name ${%s}", name);
}

static const char *
append_escape(struct reader *r, struct buf *out, const char *p)
{
    static const char from[] = "rnt0\\", to[] = "\r\n\t\0\\";
    unsigned value;
    const char *at = *p ? strchr(from, *p) : NULL;
    if (at) {
        buf_append(out, &to[at - from], 1);
        return p + 1;
    }
    if (*p == 'x' && sscanf(p + 1, "%2x", &value) == 1) {
        char c = (char)value;
        buf_append(out, &c, 1);
        return p + 3;
    }
    broken(r, "unknown escape \\%c", *p);
}

static void
append_text(struct reader *r, struct buf *out, const char *p)
{
    while (*p) {
        char name[600];
        if (*p == '\\') {
            p = append_escape(r, out, p + 1);
        } else if (sscanf(p, "${%599[^}]}", name) == 1) {
            append_macro(r, out, name);
            p = strchr(p, '}') + 1;
        } else {
            buf_append(out, p++, 1);
        }
    }
}

/* The block of `|` and `+` lines that follows. */
static void
read_bytes(struct reader *r, struct step *s)
{
    struct buf out;
    buf_init(&out, TEXT_MAX);
    while (next_line(r)) {
        const char *p = r->line + strspn(r->line, " \t");
        if (*p != '|' && *p != '+') {
            r->pushed_back = true;
            break;
        }
        append_text(r, &out, p + 1 + (p[1] == ' '));
        if (*p == '|')
            buf_append_str(&out, "\r\n");
    }
    s->len = buf_len(&out);
    s->bytes = mem_dup_slice(buf_slice(&out));
    buf_done(&out);
    if (s->len == 0)
        broken(r, "no bytes follow");
}

/* The JSON that follows: from `{` or `[` on this line to a line that is its end. One line alone is
 * fine too. */
static char *
read_json(struct reader *r, const char *begin)
{
    struct buf out;
    buf_init(&out, TEXT_MAX);
    const char *p = strpbrk(begin, "{[");
    if (!p)
        broken(r, "JSON is expected here");
    append_text(r, &out, p);
    for (;;) {
        json_error_t e;
        json_t *v = json_loadb(out.data, buf_len(&out), 0, &e);
        json_decref(v);
        if (v)
            break;
        if (!next_line(r))
            broken(r, "JSON does not end: %s", e.text);
        buf_append_str(&out, "\n");
        append_text(r, &out, r->line);
    }
    char *text = mem_dup_slice(buf_slice(&out));
    buf_done(&out);
    return text;
}

static void
split_words(struct reader *r, struct step *s, char *text)
{
    for (char *w = strtok(text, " \t"); w; w = strtok(NULL, " \t")) {
        if (s->word_count == STEP_WORDS_MAX)
            broken(r, "too many words");
        s->words[s->word_count++] = mem_strdup(w);
    }
}

/* ---- lines ---- */

static void
read_effects(struct reader *r)
{
    struct step *s = add_step(r, STEP_EFFECTS);
    while (next_line(r)) {
        if (!isspace((unsigned char)r->line[0])) {
            r->pushed_back = true;
            break;
        }
        const char *p = r->line + strspn(r->line, " \t");
        if (!*p)
            break;
        if (s->word_count == STEP_WORDS_MAX)
            broken(r, "too many effects");
        s->words[s->word_count++] = mem_strdup(p);
    }
}

static int64_t
read_duration(struct reader *r, const char *text)
{
    char unit[8] = "";
    long long n;
    if (sscanf(text, "%lld%7s", &n, unit) != 2)
        broken(r, "a time like 500ms or 10s is expected");
    if (strcmp(unit, "ms") == 0)
        return n;
    if (strcmp(unit, "s") == 0)
        return n * 1000;
    broken(r, "unknown unit %s", unit);
}

/* c1 > …, c1 < …, c1 fin and so on. */
static void
read_wire_line(struct reader *r, const char *wire, char *rest)
{
    static const struct {
        const char *word;
        enum step_kind kind;
    } verbs[] = {
        {">", STEP_SEND},        {"<", STEP_EXPECT},      {"fin", STEP_FIN},
        {"reset", STEP_RESET},   {"window", STEP_WINDOW}, {"refused", STEP_REFUSED},
        {"closed", STEP_CLOSED}, {"open", STEP_OPEN},     {"silent", STEP_SILENT},
        {"cut", STEP_CUT},       {"eof", STEP_EOF},       {"count", STEP_COUNT},
    };
    char verb[16] = "";
    int used = 0;
    sscanf(rest, "%15s %n", verb, &used);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verbs[i].word, verb) != 0)
            continue;
        struct step *s = add_step(r, verbs[i].kind);
        snprintf(s->wire, sizeof s->wire, "%s", wire);
        split_words(r, s, rest + used);
        if (s->kind == STEP_SEND || s->kind == STEP_EXPECT)
            read_bytes(r, s);
        if (s->kind == STEP_WINDOW || s->kind == STEP_COUNT)
            s->number = s->word_count ? strtoll(s->words[0], NULL, 10) : 0;
        return;
    }
    broken(r, "unknown verb %s", verb);
}

static void
read_policy(struct reader *r, const char *rest)
{
    struct generation *g = now_reading(r);
    char name[64];
    if (sscanf(rest, "%63s", name) != 1 || name[0] == '{')
        broken(r, "policy NAME {…}");
    if (g->policy_count == POLICIES_MAX)
        broken(r, "too many policies");
    struct document *d = NULL;
    for (size_t i = 0; i < g->policy_count; i++)
        if (strcmp(g->policies[i].name, name) == 0)
            d = &g->policies[i];
    if (!d) {
        d = &g->policies[g->policy_count++];
        d->name = mem_strdup(name);
    }
    free(d->text);
    d->text = read_json(r, rest);
}

static void
read_token(struct reader *r, const char *rest)
{
    char name[64], kid[64] = "k1";
    if (sscanf(rest, "%63s kid=%63s", name, kid) < 1)
        broken(r, "token NAME {claims}");
    if (r->token_count == NAMES_MAX)
        broken(r, "too many tokens");
    char *claims = read_json(r, rest);
    r->tokens[r->token_count++] = (struct document){mem_strdup(name), tokens_mint(claims, kid)};
    free(claims);
}

static char *
copy_text(const char *text)
{
    return text ? mem_strdup(text) : NULL;
}

/* What is said after a `generation` line is in force from the next `reload` on; the rest stays as
 * it was. */
static void
begin_generation(struct reader *r)
{
    struct script *s = r->script;
    if (s->generation_count == GENERATIONS_MAX)
        broken(r, "too many generations");
    struct generation *g = &s->generations[s->generation_count++];
    if (s->generation_count == 1)
        return;
    const struct generation *old = g - 1;
    g->settings = copy_text(old->settings);
    g->revoked = copy_text(old->revoked);
    g->listener_token = copy_text(old->listener_token);
    g->policy_count = old->policy_count;
    for (size_t i = 0; i < old->policy_count; i++)
        g->policies[i] =
            (struct document){mem_strdup(old->policies[i].name), mem_strdup(old->policies[i].text)};
}

static void
replace(char **place, char *text)
{
    free(*place);
    *place = text;
}

/* Lines that describe rather than do. */
static bool
read_description(struct reader *r, const char *word, const char *rest)
{
    struct generation *g = now_reading(r);
    if (strcmp(word, "settings") == 0)
        replace(&g->settings, read_json(r, rest));
    else if (strcmp(word, "policy") == 0)
        read_policy(r, rest);
    else if (strcmp(word, "revoked") == 0)
        replace(&g->revoked, read_json(r, rest));
    else if (strcmp(word, "token") == 0)
        read_token(r, rest);
    else if (strcmp(word, "generation") == 0)
        begin_generation(r);
    else if (strcmp(word, "connections") == 0)
        r->script->connections_max = strtoul(rest, NULL, 10);
    else if (strcmp(word, "whole") == 0)
        r->script->whole = true;
    else if (strcmp(word, "listener-token") == 0) {
        struct buf b;
        buf_init(&b, TEXT_MAX);
        append_text(r, &b, rest);
        replace(&g->listener_token, mem_dup_slice(buf_slice(&b)));
        buf_done(&b);
    } else {
        return false;
    }
    return true;
}

static void
read_step(struct reader *r, const char *word, char *rest)
{
    static const struct {
        const char *word;
        enum step_kind kind;
    } verbs[] = {
        {"client", STEP_CONNECT},    {"dns", STEP_DNS},         {"dial", STEP_DIALS},
        {"recorder", STEP_RECORDER}, {"wait", STEP_WAIT},       {"record", STEP_RECORD},
        {"quiet", STEP_QUIET},       {"none", STEP_NONE},       {"reload", STEP_RELOAD},
        {"drain", STEP_DRAIN},       {"drained", STEP_DRAINED}, {"stop", STEP_STOP},
        {"sleep", STEP_SLEEP},
    };
    if (strcmp(word, "effects") == 0) {
        read_effects(r);
        return;
    }
    if ((word[0] == 'c' || word[0] == 'u') && isdigit((unsigned char)word[1])) {
        read_wire_line(r, word, rest);
        return;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verbs[i].word, word) != 0)
            continue;
        struct step *s = add_step(r, verbs[i].kind);
        split_words(r, s, rest);
        if (s->kind == STEP_WAIT || s->kind == STEP_SLEEP)
            s->number = read_duration(r, s->word_count ? s->words[0] : "");
        return;
    }
    broken(r, "unknown word %s", word);
}

struct script *
script_read(const char *path)
{
    struct script *s = mem_zalloc(sizeof *s);
    struct reader *r = mem_zalloc(sizeof *r);
    s->path = path;
    r->script = s;
    r->file = fopen(path, "r");
    if (!r->file)
        broken(r, "cannot be opened");
    const char *slash = strrchr(path, '/');
    snprintf(s->name, sizeof s->name, "%s", slash ? slash + 1 : path);
    s->name[strcspn(s->name, ".")] = '\0';
    r->tokens[r->token_count++] = (struct document){
        mem_strdup("TOKEN"), tokens_mint("{\"sub\":\"sbx-1\",\"policy\":\"p\"}", "k1")};
    begin_generation(r);
    while (next_line(r)) {
        char word[32] = "";
        int used = 0;
        if (r->line[0] == '#' || sscanf(r->line, "%31s %n", word, &used) < 1)
            continue;
        if (!read_description(r, word, r->line + used))
            read_step(r, word, r->line + used);
    }
    fclose(r->file);
    for (size_t i = 0; i < r->token_count; i++) {
        free(r->tokens[i].name);
        free(r->tokens[i].text);
    }
    free(r);
    return s;
}

void
script_free(struct script *s)
{
    for (size_t i = 0; i < s->step_count; i++) {
        free(s->steps[i].bytes);
        for (size_t k = 0; k < s->steps[i].word_count; k++)
            free(s->steps[i].words[k]);
    }
    for (size_t i = 0; i < s->generation_count; i++) {
        struct generation *g = &s->generations[i];
        free(g->settings);
        free(g->revoked);
        free(g->listener_token);
        for (size_t k = 0; k < g->policy_count; k++) {
            free(g->policies[k].name);
            free(g->policies[k].text);
        }
    }
    free(s);
}
