/* The launcher's command line: a table. `sallyport run` hands its own options over as they were given, so what is wrong with
 * a value is said here, in its words. */
#include "sallyport/sandbox/options.h"

#include <stddef.h>
#include <string.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/slice.h"

enum kind { KIND_FLAG, KIND_TEXT, KIND_TEXTS, KIND_SIZE, KIND_MILLI, KIND_COUNT, KIND_SECONDS, KIND_PORT, KIND_EFFORT, KIND_FD };

struct row {
    const char *name;
    enum kind kind;
    size_t offset;
};

#define AT(member) offsetof(struct sandbox_options, member)

static const struct row rows[] = {
    {"--id", KIND_TEXT, AT(id)},
    {"--run-dir", KIND_TEXT, AT(run_dir)},
    {"--gate", KIND_TEXT, AT(gate)},
    {"--wait-fd", KIND_FD, AT(wait_fd)},
    {"--gate-arg", KIND_TEXTS, AT(gate_args)},
    {"--transparent", KIND_FLAG, AT(transparent)},
    {"--port", KIND_PORT, 0},
    {"--workdir", KIND_TEXT, AT(workdir)},
    {"--rootfs", KIND_TEXT, AT(rootfs)},
    {"--bind", KIND_TEXTS, AT(binds)},
    {"--bind-ro", KIND_TEXTS, AT(binds_ro)},
    {"--hide", KIND_TEXTS, AT(hides)},
    {"--memory", KIND_SIZE, AT(memory_bytes)},
    {"--cpus", KIND_MILLI, AT(cpu_milli)},
    {"--pids", KIND_COUNT, AT(pids)},
    {"--timeout", KIND_SECONDS, AT(timeout_s)},
    {"--limits", KIND_EFFORT, AT(best_effort)},
    {"--env", KIND_TEXTS, AT(env)},
    {"--no-proxy-env", KIND_FLAG, AT(no_proxy_env)},
    {"--credential-file", KIND_TEXT, AT(credential_file)},
    {"--ca-bundle", KIND_TEXT, AT(ca_bundle)},
};

static uint64_t
unit_of(char suffix)
{
    switch (suffix) {
    case 'k': case 'K': return UINT64_C(1) << 10;
    case 'm': case 'M': return UINT64_C(1) << 20;
    case 'g': case 'G': return UINT64_C(1) << 30;
    default: return 0;
    }
}

bool
parse_size(const char *text, uint64_t *ret)
{
    unsigned long long number;
    struct slice digits = slice_str(text);
    uint64_t unit = digits.len ? unit_of(digits.ptr[digits.len - 1]) : 0;
    if (unit)
        digits.len--;
    /* Below a page nothing runs, above 2^53 it is a slip of the pen. */
    if (!slice_parse_uint(digits, (UINT64_C(1) << 53) / (unit ? unit : 1), &number) || number * (unit ? unit : 1) < 4096)
        return false;
    *ret = number * (unit ? unit : 1);
    return true;
}

bool
parse_milli(const char *text, uint64_t *ret)
{
    unsigned long long whole, part = 0;
    struct slice rest, first = slice_split(slice_str(text), '.', &rest);
    if (!slice_parse_uint(first, 4096, &whole))
        return false;
    if (rest.ptr && (rest.len == 0 || rest.len > 3))
        return false;
    for (size_t i = 0; rest.ptr && i < 3; i++) {
        char digit = i < rest.len ? rest.ptr[i] : '0';
        if (digit < '0' || digit > '9')
            return false;
        part = part * 10 + (unsigned)(digit - '0');
    }
    *ret = whole * 1000 + part;
    return *ret >= 10; /* the kernel's shortest quota is a hundredth */
}

static int
add_port(struct sandbox_options *o, const char *text, struct err *err)
{
    unsigned long long port;
    if (!slice_parse_uint(slice_str(text), 65535, &port) || port == 0)
        return err_invalid(err, "--port: a number from 1 to 65535 is expected");
    if (port == SANDBOX_PROXY_PORT || port == 53)
        return err_invalid(err, "--port: %llu is taken by the sandbox's own listener", port);
    if (o->port_count == SANDBOX_PORTS_MAX)
        return err_invalid(err, "--port: at most %d are taken", SANDBOX_PORTS_MAX);
    for (size_t i = 0; i < o->port_count; i++)
        if (o->ports[i] == port)
            return 0;
    o->ports[o->port_count++] = (uint16_t)port;
    return 0;
}

static int
store(const struct row *row, const char *value, struct sandbox_options *o, struct err *err)
{
    void *place = (char *)o + row->offset;
    struct text_items *list = place;
    unsigned long long number;
    switch (row->kind) {
    case KIND_FLAG:
        *(bool *)place = true;
        return 0;
    case KIND_TEXT:
        *(const char **)place = value;
        return 0;
    case KIND_TEXTS:
        if (list->count == SANDBOX_LIST_MAX)
            return err_invalid(err, "%s: is given more than %d times", row->name, SANDBOX_LIST_MAX);
        list->items[list->count++] = value;
        return 0;
    case KIND_SIZE:
        return parse_size(value, place) ? 0 : err_invalid(err, "%s: bytes such as 512M or 2G are expected", row->name);
    case KIND_MILLI:
        return parse_milli(value, place) ? 0 : err_invalid(err, "%s: a number of processors such as 1.5 is expected", row->name);
    case KIND_COUNT:
        if (!slice_parse_uint(slice_str(value), 4194304, &number) || number < 2)
            return err_invalid(err, "%s: a number of processes from 2 on is expected", row->name);
        *(uint64_t *)place = number;
        return 0;
    case KIND_SECONDS:
        if (clock_parse_duration(value, place) != 1 || *(int64_t *)place <= 0)
            return err_invalid(err, "%s: a duration such as 90s, 15m or 1h is expected", row->name);
        return 0;
    case KIND_PORT:
        return add_port(o, value, err);
    case KIND_EFFORT:
        *(bool *)place = strcmp(value, "best-effort") == 0;
        return *(bool *)place ? 0 : err_invalid(err, "%s: best-effort is the only word that is expected", row->name);
    case KIND_FD:
        if (!slice_parse_uint(slice_str(value), 65535, &number) || number < 3)
            return err_invalid(err, "%s: a descriptor from 3 on is expected", row->name);
        *(int *)place = (int)number;
        return 0;
    }
    return err_invalid(err, "%s: cannot be read", row->name);
}

static int
take(int argc, char **argv, int *i, struct sandbox_options *o, struct err *err)
{
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        if (strcmp(argv[*i], rows[k].name) != 0)
            continue;
        if (rows[k].kind == KIND_FLAG)
            return store(&rows[k], NULL, o, err);
        if (*i + 1 >= argc)
            return err_invalid(err, "%s: a value is expected", rows[k].name);
        return store(&rows[k], argv[++*i], o, err);
    }
    return err_invalid(err, "sallyport-run: unknown option %.80s", argv[*i]);
}

static int
check(const struct sandbox_options *o, struct err *err)
{
    if (!o->id || !o->run_dir || !o->gate || !o->command[0])
        return err_invalid(err, "sallyport-run: launch: --id, --run-dir, --gate and a command are expected");
    if (!*o->id || strlen(o->id) > 64 || strspn(o->id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(o->id))
        return err_invalid(err, "sallyport-run: --id: up to 64 letters, digits, '_' and '-' are expected");
    if (o->port_count && !o->transparent)
        return err_invalid(err, "--port: adds to --transparent, which is not given");
    return 0;
}

int
sandbox_options_parse(int argc, char **argv, struct sandbox_options *ret, struct err *err)
{
    struct sandbox_options o = {0};
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (take(argc, argv, &i, &o, err) < 0)
            return -1;
    o.command = argv + (i < argc ? i + 1 : argc);
    if (check(&o, err) < 0)
        return -1;
    *ret = o;
    return 0;
}
