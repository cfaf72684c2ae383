/* From a script's documents to settings and snapshots, by the product's own readers. */
#include <stdlib.h>
#include <string.h>

#include "fakes/play.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/config.h"

static const char default_settings[] =
    "{\"listen\":[{\"name\":\"main\",\"address\":\"127.0.0.1:3128\"}],"
    "\"auth\":{\"audience\":null},\"upstream\":{\"dns_servers\":[\"127.0.0.53:53\"]}}";
static const char default_policy[] =
    "{\"version\":1,\"networking\":{\"type\":\"limited\",\"allowed_hosts\":"
    "[\"api.example.com\",\"*.example.org\",\"db.example.net:5432\"]}}";

#define BLOBS_MAX (POLICIES_MAX + 8)

struct blobs {
    struct blob items[BLOBS_MAX];
    size_t count;
};

static void
add_blob(struct blobs *b, const char *name, const char *text)
{
    b->items[b->count++] = (struct blob){slice_str(name), slice_str(text)};
}

static int
read_settings(const struct generation *g, struct settings *ret, struct err *err)
{
    json_t *root = json_loads(default_settings, 0, NULL);
    if (g->settings) {
        json_t *more = json_loads(g->settings, 0, NULL);
        json_object_update_recursive(root, more);
        json_decref(more);
    }
    int result = config_read(root, "settings", NULL, ret, err);
    json_decref(root);
    return result;
}

/* Names of policy blobs must live as long as the snapshot, so they are kept in the generation's
 * documents. */
static int
stage_generation(struct staged *st, const struct script *s, size_t i, struct err *err)
{
    const struct generation *g = &s->generations[i];
    struct blobs b = {.count = 0};
    bool has_p = false;
    static char names[GENERATIONS_MAX][POLICIES_MAX][80];
    if (read_settings(g, &st->settings[i], err) < 0)
        return -1;
    st->count = i + 1;
    add_blob(&b, "keys", tokens_jwks());
    if (g->revoked)
        add_blob(&b, "revoked", g->revoked);
    if (g->listener_token)
        add_blob(&b, "listener-token/main", g->listener_token);
    for (size_t k = 0; k < g->policy_count; k++) {
        snprintf(names[i][k], sizeof names[i][k], "policy/%s", g->policies[k].name);
        add_blob(&b, names[i][k], g->policies[k].text);
        has_p |= strcmp(g->policies[k].name, "p") == 0;
    }
    if (!has_p)
        add_blob(&b, "policy/p", default_policy);
    st->chained |= st->settings[i].parent_url != NULL;
    st->buffered |= st->settings[i].durability == DURABILITY_BUFFERED;
    struct guard_options own = {0};
    st->snapshots[i] = snapshot_new(&st->settings[i], b.items, b.count, &own, true, i + 1, err);
    return st->snapshots[i] ? 0 : -1;
}

int
stage_build(struct staged *st, const struct script *s, struct err *err)
{
    *st = (struct staged){.count = 0};
    for (size_t i = 0; i < s->generation_count; i++)
        if (stage_generation(st, s, i, err) < 0)
            return -1;
    return 0;
}

void
stage_free(struct staged *st)
{
    for (size_t i = 0; i < st->count; i++) {
        snapshot_unref(st->snapshots[i]);
        settings_free(&st->settings[i]);
    }
}
