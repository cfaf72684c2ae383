/* `sallyport log verify|summary|follow`: the decision log as people and scripts read it. This file
 * holds the options and `verify`; only reads. What a record holds came from clients, so that
 * nothing of it reaches a terminal but printable ASCII. */
#include "sallyport/cmd/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/record/verify.h"

#define USAGE                                                                                      \
    "sallyport log verify|summary|follow [options] FILE...  (`-` is standard input; FILE's "       \
    "rotated files are found)"
#define KEY_FILE_MAX 65536

static void
on_verify_line(void *ctx, struct slice line, bool whole)
{
    verify_line(ctx, line, whole);
}

static int
parse_head(const char *text, struct verify_options *o, struct err *err)
{
    struct slice hash, seq = slice_split(slice_str(text), ':', &hash);
    unsigned char digest[SHA256_SIZE];
    unsigned long long number;
    if (!slice_parse_uint(seq, UINT64_MAX, &number) || number == 0 || !hash.ptr ||
        !hex_decode(hash, digest, sizeof digest))
        return err_invalid(err, "--head: expected SEQ:HASH, a number and 64 lower-case hex digits");
    o->has_head = true;
    o->head_seq = number;
    memcpy(o->head_hash, hash.ptr, hash.len);
    o->head_hash[hash.len] = '\0';
    return 0;
}

static struct checkpoint_key *
read_key(const char *path, struct err *err)
{
    char *pem;
    size_t len;
    if (file_read(path, KEY_FILE_MAX, FILE_ANY, &pem, &len, err) != 0)
        return NULL;
    struct checkpoint_key *key = checkpoint_key_public(slice_of(pem, len), path, err);
    mem_wipe(pem, len);
    free(pem);
    return key;
}

static void
report_json(const struct verify_result *r)
{
    json_t *o = json_pack("{s:b, s:s}", "intact", r->kind == VERIFY_INTACT, "kind",
                          verify_kind_text(r->kind));
    if (r->kind != VERIFY_INTACT) {
        json_object_set_new(o, "file", json_string(r->at.file ? r->at.file : ""));
        json_object_set_new(o, "line", log_json_count(r->at.line));
        json_object_set_new(o, "seq", log_json_count(r->at.seq));
        json_object_set_new(o, "text", json_string(r->text));
    }
    json_object_set_new(o, "files", log_json_count(r->files));
    json_object_set_new(o, "records", log_json_count(r->records));
    json_object_set_new(o, "first_seq", log_json_count(r->first_seq));
    json_object_set_new(o, "last_seq", log_json_count(r->last_seq));
    json_object_set_new(o, "last_hash", json_string(r->last_hash));
    json_object_set_new(o, "starts", log_json_count(r->starts));
    json_object_set_new(o, "checkpoints", log_json_count(r->checkpoints));
    json_object_set_new(o, "vouched_seq", log_json_count(r->vouched_seq));
    json_object_set_new(o, "torn", log_json_count(r->torn));
    json_object_set_new(o, "head_checked", json_boolean(r->head_checked));
    log_print_json(o);
}

static void
report_notes(const struct verify_result *r, bool with_key)
{
    if (r->torn > 0)
        printf("note: %s:%" PRIu64
               ": the last line is torn (no newline); it is no record and was not checked\n",
               r->torn_at.file, r->torn_at.line);
    if (r->first_seq > 1)
        printf("note: begins at record %" PRIu64 "; what came before is not here and not checked\n",
               r->first_seq);
    if (with_key && r->records > 0)
        printf("note: signed checkpoints vouch for the records up to %" PRIu64 "\n",
               r->vouched_seq);
    if (!r->head_checked && r->records > 0)
        printf("note: a cut tail shows only against a head kept elsewhere (--head SEQ:HASH); the "
               "head here is\n"
               "%" PRIu64 ":%s\n",
               r->last_seq, r->last_hash);
}

static const char *
plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static void
report_text(const struct verify_result *r, bool with_key)
{
    if (r->kind == VERIFY_INTACT)
        printf("intact: %" PRIu64 " record%s (%" PRIu64 " to %" PRIu64 ") in %" PRIu64
               " file%s, %" PRIu64 " start%s, %" PRIu64 " checkpoint%s\n",
               r->records, plural(r->records), r->first_seq, r->last_seq, r->files,
               plural(r->files), r->starts, plural(r->starts), r->checkpoints,
               plural(r->checkpoints));
    else
        printf("%s:%" PRIu64 ": %s at record %" PRIu64 ": %s\n", r->at.file ? r->at.file : "-",
               r->at.line, verify_kind_text(r->kind), r->at.seq, r->text);
    report_notes(r, with_key);
}

static int
verify_files(struct verify *v, const struct log_files *files, struct err *err)
{
    for (size_t i = 0; i < files->count; i++) {
        verify_file(v, files->names[i]);
        if (log_each_line(files->names[i], on_verify_line, v, err) != 0)
            return -1;
    }
    return 0;
}

int
log_verify(const struct log_options *o, const struct log_files *files, struct err *err)
{
    struct verify_options vo = {0};
    struct checkpoint_key *key = NULL;
    struct verify_result result;
    if (o->head && parse_head(o->head, &vo, err) != 0)
        return cmd_fail(err);
    if (o->key && !(key = read_key(o->key, err)))
        return cmd_fail(err);
    vo.key = key;
    struct verify *v = verify_new(&vo);
    int status = verify_files(v, files, err) == 0 ? 0 : cmd_fail(err);
    if (status == 0) {
        verify_finish(v, &result);
        if (o->json)
            report_json(&result);
        else
            report_text(&result, key != NULL);
        status = result.kind == VERIFY_INTACT ? 0 : 1;
    }
    verify_free(v);
    checkpoint_key_free(key);
    return status;
}

static int
dispatch(const struct log_options *o, const char *verb, int count, char **names, struct err *err)
{
    bool verifying = strcmp(verb, "verify") == 0;
    if (!verifying && (o->key || o->head)) {
        err_invalid(err, "log %s: --key and --head belong to `log verify`", verb);
        return cmd_fail(err);
    }
    if (strcmp(verb, "follow") == 0)
        return log_follow(o, count, names, err);
    struct log_files *files = mem_zalloc(sizeof *files);
    int status;
    if (log_files_find(files, count, names, err) != 0)
        status = cmd_fail(err);
    else
        status = verifying ? log_verify(o, files, err) : log_summary(o, files, err);
    log_files_done(files);
    free(files);
    return status;
}

int
cmd_log(int argc, char **argv)
{
    static const char *const verbs[] = {"verify", "summary", "follow", NULL};
    struct log_options o = {0};
    struct err err = {0};
    const struct option_row rows[] = {
        {"--json", OPTION_FLAG, &o.json, NULL, "as JSON (follow: the lines as they are)"},
        {"--key", OPTION_TEXT, &o.key, "FILE", "verify: PEM public keys that sign checkpoints"},
        {"--head", OPTION_TEXT, &o.head, "SEQ:HASH",
         "verify: a head kept elsewhere, which shows a cut tail"},
        {"--all", OPTION_FLAG, &o.all, NULL,
         "summary: every row; follow: from the first record on"},
        {"--help", OPTION_FLAG, &o.help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err) != 0)
        return cmd_fail(&err);
    if (o.help) {
        options_help(stdout, USAGE, rows);
        return 0;
    }
    if (argc < 3)
        return cmd_usage(USAGE);
    for (size_t i = 0; verbs[i]; i++) {
        if (strcmp(argv[1], verbs[i]) == 0)
            return dispatch(&o, argv[1], argc - 2, argv + 2, &err);
    }
    const char *near = nearest_word(argv[1], verbs);
    err_invalid(&err, "log: unknown verb; expected verify, summary or follow%s%s%s",
                near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return cmd_fail(&err);
}
