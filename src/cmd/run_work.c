/* A work item: what a self-hosted worker is told to do, as JSON. Session, policy and token are taken from it by name; the
 * rest, secrets among it, is read here, wiped, and reaches neither CMD nor a file. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/run.h"

#define WORK_MAX (1u << 20)
#define WORK_DEPTH 16
#define SUB_MAX 128

/* Where each may stand; the first that is there counts. */
static const char *const session_paths[] = {"session_id", "data.session_id", "session.id", "data.session.id", "data.id", "id", NULL};
static const char *const policy_paths[] = {"policy", "data.policy", "environment.config", "data.environment.config", "config",
                                           "data.config", NULL};

static const json_t *
find(const json_t *root, const char *const *paths)
{
    for (; *paths; paths++) {
        const json_t *at = root;
        struct slice rest = slice_str(*paths);
        while (at && rest.ptr) {
            cleanup_free char *name = mem_dup_slice(slice_split(rest, '.', &rest));
            at = json_object_get(at, name);
        }
        if (at)
            return at;
    }
    return NULL;
}

static bool
is_sub(const char *text)
{
    size_t len = strlen(text);
    return len >= 1 && len <= SUB_MAX && strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

/* "networking" and its companions are a policy; whatever else stands beside them is not. */
static char *
policy_text(const json_t *from)
{
    static const char *const members[] = {"networking", "mcp_servers", "package_managers", "blocked_hosts", "rules", "limits"};
    json_auto_t *policy = json_pack("{s:i}", "version", 1);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *value = json_object_get(from, members[i]);
        if (value)
            json_object_set(policy, members[i], value);
    }
    return json_dumps(policy, JSON_COMPACT);
}

static int
take(struct run *r, const json_t *root, const char *name, struct err *err)
{
    const json_t *session = find(root, session_paths), *policy = find(root, policy_paths);
    if (!json_is_string(session) || !is_sub(json_string_value(session)))
        return err_invalid(err, "%s: session_id: 1 to %d letters, digits, '_' and '-' are expected", name, SUB_MAX);
    r->session = mem_strdup(json_string_value(session));
    r->sandbox = mem_strdup(json_string_value(session));
    if (strlen(r->sandbox) > 64)
        r->sandbox[64] = '\0'; /* it names the control group as well */
    if (json_object_get(root, "networking"))
        policy = root;
    if (policy && json_object_get(policy, "networking"))
        r->work_policy = policy_text(policy);
    else if (policy)
        return err_invalid(err, "%s: policy: an object with networking is expected", name);
    return 0;
}

int
run_read_work_item(struct run *r, struct err *err)
{
    char *text;
    size_t len;
    bool standard = strcmp(r->o.work_item, "-") == 0;
    const char *name = standard ? "--work-item" : r->o.work_item;
    int rc = standard ? file_read_fd(0, name, WORK_MAX, &text, &len, err) : file_read(r->o.work_item, WORK_MAX, FILE_ANY, &text, &len, err);
    if (rc < 0)
        return -1;
    json_t *root = json_read(slice_of(text, len), name, WORK_DEPTH, err);
    mem_wipe(text, len);
    free(text);
    if (!root)
        return -1;
    rc = json_is_object(root) ? take(r, root, name, err) : err_invalid(err, "%s: a JSON object is expected", name);
    json_decref(root);
    /* Read to its end: CMD gets an empty standard input. */
    if (rc == 0 && standard) {
        int null = open("/dev/null", O_RDONLY);
        if (null > 0)
            rc = dup2(null, 0) < 0 ? err_errno(err, "/dev/null") : 0;
        if (null > 0)
            close(null);
    }
    return rc;
}
