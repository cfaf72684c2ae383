/* What the sub-commands share: options from a table, the last word on standard error, the place of
 * the data files. */
#include "sallyport/cmd/cmd.h"

#include <string.h>
#include <unistd.h>

#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

#define ROWS_MAX 64
#define SHOWN_MAX 80 /* bytes of an argument repeated in an error */
#define HELP_COLUMN 28

static const struct option_row *
find_row(const struct option_row *rows, struct slice name)
{
    for (; rows->name; rows++) {
        if (slice_is(name, rows->name))
            return rows;
    }
    return NULL;
}

static int
fail_unknown(const struct option_row *rows, struct slice name, struct err *err)
{
    const char *names[ROWS_MAX + 2] = {"--help"};
    size_t count = 1;
    for (; rows->name && count <= ROWS_MAX; rows++)
        names[count++] = rows->name;
    cleanup_free char *word =
        mem_dup_slice(slice_of(name.ptr, name.len < SHOWN_MAX ? name.len : SHOWN_MAX));
    const char *near = nearest_word(word, names);
    if (near)
        return err_invalid(err, "unknown option %s; did you mean %s?", word, near);
    return err_invalid(err, "unknown option %s; --help lists the options", word);
}

/* Takes the value behind `=`, or the next argument; *i moves past what was taken. */
static int
take_value(const struct option_row *row, struct slice given, int argc, char **argv, int *i,
           const char **ret, struct err *err)
{
    if (given.ptr) {
        *ret = given.ptr; /* the end of an argv string: it is terminated */
        return 0;
    }
    if (*i + 1 >= argc)
        return err_invalid(err, "option %s needs a value: %s %s", row->name, row->name,
                           row->argument);
    *ret = argv[++*i];
    return 0;
}

static int
store(const struct option_row *row, const char *value, struct err *err)
{
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)row->dest = true;
        return 0;
    case OPTION_TEXT: {
        const char **dest = row->dest;
        /* The later one would win silently; which was meant is for the user to say. */
        if (*dest && strcmp(*dest, value) != 0)
            return err_invalid(err, "option %s is given twice", row->name);
        *dest = value;
        return 0;
    }
    case OPTION_REPEATED: {
        struct option_list *list = row->dest;
        if (list->count == sizeof list->items / sizeof list->items[0])
            return err_invalid(err, "option %s is given more than %zu times", row->name,
                               list->count);
        list->items[list->count++] = value;
        return 0;
    }
    }
    return err_invalid(err, "option %s cannot be read", row->name);
}

static int
take_option(const struct option_row *rows, int argc, char **argv, int *i, struct err *err)
{
    struct slice given, name = slice_split(slice_str(argv[*i]), '=', &given);
    const struct option_row *row = find_row(rows, name);
    const char *value = NULL;
    if (!row)
        return fail_unknown(rows, name, err);
    if (row->kind == OPTION_FLAG && given.ptr)
        return err_invalid(err, "option %s takes no value", row->name);
    if (row->kind != OPTION_FLAG && take_value(row, given, argc, argv, i, &value, err) != 0)
        return -1;
    return store(row, value, err);
}

/* A `-` alone is an argument (standard input). */
static bool
is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0';
}

int
options_parse(const struct option_row *rows, int *argc, char **argv, struct err *err)
{
    int kept = 1, i = 1;
    for (; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (!is_option(argv[i]))
            argv[kept++] = argv[i];
        else if (take_option(rows, *argc, argv, &i, err) != 0)
            return -1;
    }
    while (i < *argc)
        argv[kept++] = argv[i++];
    argv[kept] = NULL;
    *argc = kept;
    return 0;
}

void
options_help(FILE *out, const char *usage, const struct option_row *rows)
{
    fprintf(out, "usage: %s\n", usage);
    if (rows->name)
        fprintf(out, "\n");
    for (; rows->name; rows++) {
        int width = fprintf(out, "  %s%s%s", rows->name, rows->argument ? " " : "",
                            rows->argument ? rows->argument : "");
        fprintf(out, "%*s%s\n", width < HELP_COLUMN ? HELP_COLUMN - width : 2, "",
                rows->help ? rows->help : "");
    }
}

/* One line, and nothing that moves a terminal: an error may repeat bytes of a file. */
static void
print_safely(FILE *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
    }
}

int
cmd_fail(const struct err *err)
{
    fputs("sallyport: ", stderr);
    print_safely(stderr, err->text);
    fputc('\n', stderr);
    return err_exit_status(err);
}

int
cmd_usage(const char *usage)
{
    fprintf(stderr, "sallyport: usage: %s\n", usage);
    return 2;
}

/* The folder of the running binary, heap, or NULL. */
static char *
binary_folder(void)
{
    char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path);
    if (len <= 0 || (size_t)len == sizeof path)
        return NULL;
    const char *slash = memrchr(path, '/', (size_t)len);
    return slash ? mem_dup_slice(slice_of(path, (size_t)(slash - path))) : NULL;
}

char *
data_file(const char *name)
{
    cleanup_free char *folder = binary_folder();
    char *tries[] = {
        mem_printf("policies/%s", name),
        folder ? mem_printf("%s/../policies/%s", folder, name) : NULL,
        folder ? mem_printf("%s/../share/sallyport/policies/%s", folder, name) : NULL,
        folder ? mem_printf("%s/../../share/sallyport/policies/%s", folder, name) : NULL, /* from libexec/sallyport */
        mem_printf("%s/share/sallyport/policies/%s", SALLYPORT_PREFIX, name),
    };
    char *found = NULL;
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        if (!found && tries[i] && access(tries[i], R_OK) == 0)
            found = steal(&tries[i]);
        free(tries[i]);
    }
    return found;
}
