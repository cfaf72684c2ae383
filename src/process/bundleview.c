/* A child's view of a bundle: mapped, checked, its settings read again by the same table. The blobs point into the mapping,
 * which lives as long as the view. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/bundlepack.h"
#include "sallyport/process/config.h"

static bool
within(const struct bundle_view *v, uint64_t at, uint64_t len)
{
    return at <= v->size && len <= v->size - at;
}

static int
index_entries(struct bundle_view *v, struct err *err)
{
    struct pack_head head;
    const char *map = v->map;
    if (!map)
        return err_invalid(err, "there is no bundle");
    memcpy(&head, map, sizeof head);
    if (head.magic != PACK_MAGIC || head.size != v->size || head.count > (v->size - sizeof head) / sizeof(struct pack_entry))
        return err_invalid(err, "the bundle is not one");
    v->blobs = mem_array(head.count + 1, sizeof *v->blobs);
    for (uint64_t i = 0; i < head.count; i++) {
        struct pack_entry e;
        memcpy(&e, map + sizeof head + i * sizeof e, sizeof e);
        if (!within(v, e.name_at, e.name_len) || !within(v, e.at, e.len))
            return err_invalid(err, "entry %llu of the bundle lies outside it", (unsigned long long)i);
        v->blobs[v->blob_count++] = (struct blob){slice_of(map + e.name_at, e.name_len), slice_of(map + e.at, e.len)};
    }
    return 0;
}

struct slice
bundle_view_blob(const struct bundle_view *v, const char *name)
{
    for (size_t i = 0; i < v->blob_count; i++)
        if (slice_is(v->blobs[i].name, name))
            return v->blobs[i].bytes;
    return slice_of(NULL, 0);
}

static int
read_settings(struct bundle_view *v, struct err *err)
{
    struct slice text = bundle_view_blob(v, "config"), base_text = bundle_view_blob(v, "config-base");
    if (!text.ptr)
        return err_invalid(err, "the bundle holds no configuration");
    json_t *root = json_read(text, "configuration", CONFIG_DEPTH_MAX, err);
    if (!root)
        return -1;
    cleanup_free char *base = mem_dup_slice(base_text.ptr ? base_text : slice_str(""));
    int rc = config_read(root, "configuration", base, &v->settings, err);
    json_decref(root);
    return rc;
}

static int
map_sealed(struct bundle_view *v, int fd, struct err *err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & PACK_SEALS) != PACK_SEALS || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct pack_head))
        return err_invalid(err, "the bundle is not sealed");
    v->size = (size_t)st.st_size;
    v->map = mmap(NULL, v->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (v->map == MAP_FAILED) {
        v->map = NULL;
        return err_errno(err, "mapping the bundle");
    }
    return 0;
}

int
bundle_open(int fd, struct bundle_view **ret, struct err *err)
{
    struct bundle_view *v = mem_zalloc(sizeof *v);
    int rc = map_sealed(v, fd, err);
    close(fd);
    if (rc < 0 || index_entries(v, err) < 0 || read_settings(v, err) < 0) {
        bundle_close(v);
        return -1;
    }
    *ret = v;
    return 0;
}

void
bundle_close(struct bundle_view *v)
{
    if (!v)
        return;
    settings_free(&v->settings);
    free(v->blobs);
    if (v->map)
        munmap(v->map, v->size);
    free(v);
}

/* ---- this host's own addresses ---- */

static size_t
count_lines(struct slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == '\n';
    return n;
}

void
bundle_own_addresses(struct slice own, struct slice listening, struct guard_options *ret)
{
    struct addr *addrs = mem_array(count_lines(own) + 1, sizeof *addrs);
    struct sockaddr_storage *sockets = mem_array(count_lines(listening) + 1, sizeof *sockets);
    size_t addr_count = 0, socket_count = 0;
    for (struct slice rest = own; rest.ptr && rest.len;) {
        struct slice line = slice_split(rest, '\n', &rest);
        addr_count += addr_parse(line, &addrs[addr_count]);
    }
    for (struct slice rest = listening; rest.ptr && rest.len;) {
        socklen_t len;
        struct slice line = slice_split(rest, '\n', &rest);
        socket_count += sockaddr_parse(line, 0, &sockets[socket_count], &len);
    }
    *ret = (struct guard_options){.own = addrs, .own_count = addr_count, .listeners = sockets, .listener_count = socket_count};
}
