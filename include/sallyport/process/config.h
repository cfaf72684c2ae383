/* The configuration: one table of rows {JSON path, type, place in struct settings, default, flags, a line of doc} from which
 * reading, defaults, reload and documentation derive. Pure: reads no file itself. CONTRACT section 2. */
#ifndef SALLYPORT_PROCESS_CONFIG_H
#define SALLYPORT_PROCESS_CONFIG_H

#include <stdio.h>

#include "sallyport/base/err.h"
#include "sallyport/base/json.h"
#include "sallyport/base/slice.h"
#include "sallyport/proxy/settings.h"

#define CONFIG_TEXT_MAX (4u << 20)
#define CONFIG_LISTENERS_MAX 32
#define CONFIG_DEPTH_MAX 8

/* A member that the command line sets over the file: "auth.keys". Makes the objects on the way. Takes over value. */
void config_set(json_t *root, const char *path, json_t *value);
/* The members of a file as read, before the command line adds what only it may say. */
int config_check_file(const json_t *root, const char *file, struct err *err);
/* Calls visit for every member that names a file or folder and is there: its setting ("record.path") and value. What visit
 * returns (heap) takes the value's place; NULL leaves it. */
void config_each_path(json_t *root, char *(*visit)(void *arg, const char *setting, const char *value), void *arg);
/* Settings from a whole configuration (an object). `file` is for errors; relative paths in it stand on `base` (NULL: the
 * working directory as it is). *ret is written only on success; free with settings_free. Unknown keys name the nearest. */
int config_read(const json_t *root, const char *file, const char *base, struct settings *ret, struct err *err);
/* What a configuration may say and cannot be served so: no listener, inspection without a CA. */
int config_check_available(const struct settings *s, const char *file, struct err *err);
/* Members that only a restart changes (listen, workers, user, record.path): puts the old ones into `next` and lists those that
 * differed in text ("" when none did). */
void config_keep_fixed(const json_t *running, json_t *next, char *text, size_t size);
/* Frees what the settings hold, not the struct itself, which is zero afterwards. */
void settings_free(struct settings *s);
/* The table as Markdown rows, for docs. */
void config_print_table(FILE *out);
/* Letters, digits, '.', '_' and '-', not beginning with '.', at most 128: names of policies and listeners. */
bool config_name_ok(struct slice name);

#endif
