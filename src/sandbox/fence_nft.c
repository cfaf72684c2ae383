/* nftables through libnftables, and nowhere else. The library is loaded when a fence is asked for
 * and not before: with what it needs itself it costs milliseconds, which a launcher of sandboxes
 * would pay at each start.
 *
 * Only text that fence_rules.c made is ever run; what the kernel says is read as JSON. */
#include <dlfcn.h>
#include <errno.h>
#include <jansson.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/sandbox/fence.h"

#define LIBRARY "libnftables.so.1"
#define JSON_DEPTH 24

struct fence_nft {
    void *library;
    struct nft_ctx *ctx;
    __typeof__(nft_ctx_new) *ctx_new;
    __typeof__(nft_ctx_free) *ctx_free;
    __typeof__(nft_ctx_buffer_output) *buffer_output;
    __typeof__(nft_ctx_buffer_error) *buffer_error;
    __typeof__(nft_ctx_get_output_buffer) *output;
    __typeof__(nft_ctx_get_error_buffer) *error;
    __typeof__(nft_ctx_output_set_flags) *set_flags;
    __typeof__(nft_run_cmd_from_buffer) *run;
};

/* ---- the library ---- */

static int
load_symbols(struct fence_nft *n, struct err *err)
{
    const struct {
        const char *name;
        void **place;
    } symbols[] = {
        {"nft_ctx_new", (void **)&n->ctx_new},
        {"nft_ctx_free", (void **)&n->ctx_free},
        {"nft_ctx_buffer_output", (void **)&n->buffer_output},
        {"nft_ctx_buffer_error", (void **)&n->buffer_error},
        {"nft_ctx_get_output_buffer", (void **)&n->output},
        {"nft_ctx_get_error_buffer", (void **)&n->error},
        {"nft_ctx_output_set_flags", (void **)&n->set_flags},
        {"nft_run_cmd_from_buffer", (void **)&n->run},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        *symbols[i].place = dlsym(n->library, symbols[i].name);
        if (!*symbols[i].place)
            return err_run(err,
                           "fence: " LIBRARY " has no %s; libnftables 0.9.8 or later is needed",
                           symbols[i].name);
    }
    return 0;
}

/* Asks for the generation of the rules, which changes nothing: the answer is an acknowledgement or
 * what stands in the way. The library would end the process where it gets no netlink socket, and
 * says less where a right is missing. */
static int
ask_generation(int fd)
{
    struct {
        struct nlmsghdr head;
        struct nfgenmsg body;
    } ask = {
        .head = {.nlmsg_len = sizeof ask,
                 .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
                 .nlmsg_flags = NLM_F_REQUEST},
        .body = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0},
    };
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } reply;
    if (send(fd, &ask, sizeof ask, 0) < 0)
        return errno;
    ssize_t got = recv(fd, &reply, sizeof reply, 0);
    if (got < (ssize_t)NLMSG_LENGTH(0))
        return got < 0 ? errno : EPROTO;
    if (reply.head.nlmsg_type != NLMSG_ERROR ||
        got < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
        return 0;
    return -((const struct nlmsgerr *)NLMSG_DATA(&reply.head))->error;
}

static int
try_kernel(struct err *err)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return err_errno(err, "fence: this kernel offers no nftables here (NETLINK_NETFILTER)");
    errno = ask_generation(fd);
    close(fd);
    if (errno == EPERM || errno == EACCES)
        return err_errno(err, "fence: needs CAP_NET_ADMIN in this network namespace");
    if (errno)
        return err_errno(err, "fence: this kernel has no nftables (nf_tables)");
    return 0;
}

int
fence_nft_open(struct fence_nft **ret, struct err *err)
{
    if (try_kernel(err) < 0)
        return -1;
    struct fence_nft *n = mem_zalloc(sizeof *n);
    n->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        fence_nft_close(n);
        return err_run(err,
                       "fence: " LIBRARY " cannot be loaded; install it (Debian: libnftables1)");
    }
    if (load_symbols(n, err) < 0) {
        fence_nft_close(n);
        return -1;
    }
    n->ctx = n->ctx_new(NFT_CTX_DEFAULT);
    if (!n->ctx || n->buffer_output(n->ctx) != 0 || n->buffer_error(n->ctx) != 0) {
        fence_nft_close(n);
        return err_run(err, "fence: " LIBRARY " cannot be set up");
    }
    *ret = n;
    return 0;
}

void
fence_nft_close(struct fence_nft *n)
{
    if (!n)
        return;
    if (n->ctx)
        n->ctx_free(n->ctx);
    if (n->library)
        dlclose(n->library);
    free(n);
}

/* The first line of what the library complains of; the rest repeats the command. */
static int
fail(struct fence_nft *n, const char *what, struct err *err)
{
    const char *said = n->error(n->ctx);
    const char *line = said ? strstr(said, "Error: ") : NULL;
    line = line ? line + strlen("Error: ") : said && *said ? said : "no reason given";
    return err_run(err, "fence: %s: %.*s", what, (int)strcspn(line, "\n"), line);
}

int
fence_nft_run(struct fence_nft *n, const struct buf *text, struct err *err)
{
    cleanup_free char *command = mem_dup_slice(buf_slice(text));
    n->set_flags(n->ctx, 0);
    if (n->run(n->ctx, command) != 0)
        return fail(n, "nftables refused the rules", err);
    return 0;
}

/* ---- what is there ---- */

static json_t *
ask(struct fence_nft *n, const char *command, struct err *err)
{
    n->set_flags(n->ctx, NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_NUMERIC_PRIO);
    if (n->run(n->ctx, command) != 0) {
        fail(n, "nftables is not available or not permitted here", err);
        return NULL;
    }
    const char *text = n->output(n->ctx);
    json_t *root = json_read(slice_str(text ? text : ""), "nftables", JSON_DEPTH, err);
    if (!root)
        err->kind = ERR_RUN; /* the kernel's side, not the user's */
    return root;
}

static const char *
text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void
read_table(const json_t *table, struct fence_state *s)
{
    if (strcmp(text_of(table, "name"), FENCE_TABLE) != 0)
        return;
    s->inet |= strcmp(text_of(table, "family"), "inet") == 0;
    s->netdev |= strcmp(text_of(table, "family"), "netdev") == 0;
}

static void
read_counter(const json_t *counter, struct fence_state *s)
{
    const char *name = text_of(counter, "name");
    if (strncmp(name, "refused_", 8) != 0)
        return;
    for (enum fence_counter c = 0; c < FENCE_COUNTERS; c++) {
        if (strcmp(name + 8, fence_counter_name(c)) == 0) {
            s->counts[c].packets =
                (uint64_t)json_integer_value(json_object_get(counter, "packets"));
            s->counts[c].bytes = (uint64_t)json_integer_value(json_object_get(counter, "bytes"));
        }
    }
}

static void
read_set(const json_t *set, struct fence_state *s)
{
    const json_t *elements = json_object_get(set, "elem"), *e;
    size_t i;
    bool guarded = strcmp(text_of(set, "name"), "guarded") == 0;
    if (!guarded && strcmp(text_of(set, "name"), "proxies") != 0)
        return;
    json_array_foreach(elements, i, e)
    {
        if (guarded) {
            s->guarded = true;
            s->guard_uid = (uint32_t)json_integer_value(e);
        } else if (s->proxy_count <= FENCE_UIDS_MAX) {
            s->proxies[s->proxy_count++] = (uint32_t)json_integer_value(e);
        }
    }
}

static void
read_chain(const json_t *chain, struct fence_state *s)
{
    const char *hook = text_of(chain, "hook"), *name = text_of(chain, "name");
    if (strcmp(hook, "output") == 0 && strcmp(name, "output") == 0)
        s->hooked = strcmp(text_of(chain, "policy"), "drop") == 0;
    if (strcmp(hook, "egress") != 0 || strncmp(name, FENCE_EGRESS, strlen(FENCE_EGRESS)) != 0)
        return;
    name += strlen(FENCE_EGRESS);
    if (fence_device_is_plain(name) && s->device_count < FENCE_DEVICES_MAX)
        snprintf(s->devices[s->device_count++], IF_NAMESIZE, "%s", name);
}

static int
read_listing(struct fence_nft *n, const char *command, struct fence_state *s, struct err *err)
{
    json_t *root = ask(n, command, err);
    const json_t *item, *part;
    size_t i;
    if (!root)
        return -1;
    json_array_foreach(json_object_get(root, "nftables"), i, item)
    {
        if ((part = json_object_get(item, "table")))
            read_table(part, s);
        if ((part = json_object_get(item, "counter")))
            read_counter(part, s);
        if ((part = json_object_get(item, "set")))
            read_set(part, s);
        if ((part = json_object_get(item, "chain")))
            read_chain(part, s);
    }
    json_decref(root);
    return 0;
}

int
fence_nft_read(struct fence_nft *n, struct fence_state *ret, struct err *err)
{
    struct fence_state s = {0};
    if (read_listing(n, "list tables", &s, err) < 0)
        return -1;
    if (s.inet && read_listing(n, "list table inet " FENCE_TABLE, &s, err) < 0)
        return -1;
    if (s.netdev && read_listing(n, "list table netdev " FENCE_TABLE, &s, err) < 0)
        return -1;
    *ret = s;
    return 0;
}
