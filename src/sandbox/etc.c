/* /etc of a sandbox. The host's is full of what is nobody's business (shadow, keys, tokens of package sources), so files are
 * named one by one; accounts, hosts and the resolver's configuration are written anew. */
#include "sallyport/sandbox/etc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/sandbox/trust.h"

const char *const etc_shown[] = {
    "/etc/alternatives", "/etc/bash.bashrc", "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/crypto-policies",
    "/etc/debian_version", "/etc/ethertypes", "/etc/fonts", "/etc/gai.conf", "/etc/inputrc", "/etc/java*", "/etc/ld.so.cache",
    "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/locale.alias", "/etc/locale.conf", "/etc/localtime", "/etc/lsb-release", "/etc/magic",
    "/etc/magic.mime", "/etc/maven", "/etc/mime.types", "/etc/os-release", "/etc/perl", "/etc/pki/ca-trust", "/etc/pki/java",
    "/etc/pki/tls/cert.pem", "/etc/pki/tls/certs", "/etc/pki/tls/openssl.cnf", "/etc/profile", "/etc/protocols", "/etc/python*",
    "/etc/rpc", "/etc/services", "/etc/ssl/cert.pem", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/terminfo", "/etc/timezone",
    "/etc/xattr.conf", NULL,
};

static int
write_bytes(const char *path, struct slice bytes, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 && errno == ELOOP) { /* an image's link leads nowhere here */
        unlink(path);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    }
    int rc = fd < 0 || fd_write_all(fd, bytes) < 0 ? err_errno(err, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int
write_file(const char *path, const char *text, struct err *err)
{
    return write_bytes(path, slice_str(text), err);
}

static int
write_accounts(const struct place *p, struct err *err)
{
    cleanup_free char *users = mem_printf("root:x:0:0:root:/root:/usr/sbin/nologin\nsandbox:x:%u:%u:sandbox:" SANDBOX_HOME ":/bin/sh\n"
                                          "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", (unsigned)p->uid, (unsigned)p->gid);
    cleanup_free char *groups = mem_printf("root:x:0:\nsandbox:x:%u:\ntty:x:5:\nnogroup:x:65534:\n", (unsigned)p->gid);
    return write_file("/etc/passwd", users, err) < 0 ? -1 : write_file("/etc/group", groups, err);
}

/* Maven looks at no variable for its proxy. Clear of secrets: the proxy asks for none. */
#define MAVEN_SETTINGS                                                                                                  \
    "<settings><proxies>\n"                                                                                             \
    "<proxy><id>http</id><active>true</active><protocol>http</protocol><host>127.0.0.1</host><port>3128</port>"         \
    "<nonProxyHosts>localhost|127.*</nonProxyHosts></proxy>\n"                                                          \
    "<proxy><id>https</id><active>true</active><protocol>https</protocol><host>127.0.0.1</host><port>3128</port>"       \
    "<nonProxyHosts>localhost|127.*</nonProxyHosts></proxy>\n"                                                          \
    "</proxies></settings>\n"

static int
write_maven(const struct place *p, struct err *err)
{
    static const char folder[] = SANDBOX_HOME "/.m2", file[] = SANDBOX_HOME "/.m2/settings.xml";
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        return err_errno(err, "%s", folder);
    if (write_file(file, MAVEN_SETTINGS, err) < 0)
        return -1;
    if (!p->user_namespace && (chown(folder, p->uid, p->gid) < 0 || chown(file, p->uid, p->gid) < 0))
        return err_errno(err, "%s", folder);
    return 0;
}

static int
write_trust(const char *ca_bundle, struct err *err)
{
    struct buf store;
    if (mkdir("/etc/sallyport", 0755) < 0 && errno != EEXIST)
        return err_errno(err, "/etc/sallyport");
    buf_init(&store, 2 * TRUST_BUNDLE_MAX);
    int rc = trust_java_store(ca_bundle, &store) ? write_bytes(INSIDE_JAVA_STORE, buf_slice(&store), err) : err_invalid(err, INSIDE_JAVA_STORE ": is too large");
    buf_done(&store);
    return rc < 0 ? -1 : write_file(INSIDE_CA_BUNDLE, ca_bundle, err);
}

int
etc_write(const struct sandbox_options *o, const struct place *p, const char *ca_bundle, struct err *err)
{
    if (mkdir("/etc", 0755) < 0 && errno != EEXIST)
        return err_errno(err, "/etc");
    if ((!o->rootfs || access("/etc/passwd", F_OK) < 0) && write_accounts(p, err) < 0)
        return -1;
    if (write_file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n", err) < 0 ||
        write_file("/etc/hostname", "sandbox\n", err) < 0 ||
        /* Empty means no DNS: a resolver library then asks 127.0.0.1, where nobody answers without --transparent. */
        write_file("/etc/resolv.conf", o->transparent ? "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n" : "", err) < 0 ||
        write_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", err) < 0)
        return -1;
    if (!o->rootfs && symlink("/proc/self/mounts", "/etc/mtab") < 0 && errno != EEXIST)
        return err_errno(err, "/etc/mtab");
    if (ca_bundle && write_trust(ca_bundle, err) < 0)
        return -1;
    return o->no_proxy_env ? 0 : write_maven(p, err);
}
