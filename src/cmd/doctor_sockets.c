/* The sockets part of `sallyport doctor`: kinds of sockets that are not bound by routes or rules,
 * changes by netlink, sockets of the host's services, and descriptors that were inherited. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sallyport/cmd/doctor.h"

#define GROUP "sockets"
#define INHERITED_MAX 4096

/* ---- what was inherited ---- */

static const char *
family_word(int fd)
{
    int family = 0;
    socklen_t len = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0)
        return NULL;
    return family == AF_UNIX ? "unix" : "network";
}

/* A socket belongs for life to the namespace that made it, so an inherited one may reach what this
 * one cannot. */
void
doctor_inherited(struct doctor *d)
{
    char found[DOCTOR_FOUND_SIZE] = "";
    bool network = false;
    size_t count = 0;
    for (int fd = 3; fd < INHERITED_MAX; fd++) {
        struct stat st;
        if (fstat(fd, &st) < 0)
            continue;
        const char *family = S_ISSOCK(st.st_mode) ? family_word(fd) : NULL;
        size_t len = strlen(found);
        network |= family && strcmp(family, "network") == 0;
        count++;
        snprintf(found + len, sizeof found - len, "%s%d (%s)", len ? ", " : "", fd,
                 family                ? family
                 : S_ISDIR(st.st_mode) ? "folder"
                                       : "file");
    }
    doctor_add(d, "descriptors", "inherited",
               network ? DOCTOR_FAIL
               : count ? DOCTOR_WARN
                       : DOCTOR_PASS,
               "close descriptors above 2 before the sandbox's command is started", "%s",
               count ? found : "none");
}

/* ---- kinds of sockets ---- */

static int
try_socket(int family, int type, int protocol)
{
    int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

#define ADVICE_RAW "drop CAP_NET_RAW (sallyport run does; in a pod: drop ALL capabilities)"
#define ADVICE_FILTER                                                                              \
    "a system call filter that allows UNIX, INET, INET6 and NETLINK_ROUTE alone (sallyport run "   \
    "has it)"

static const struct {
    const char *name;
    int family, type, protocol;
    enum doctor_verdict when_open;
    const char *advice;
} kinds[] = {
    {"packet socket", AF_PACKET, SOCK_RAW, 0, DOCTOR_FAIL, ADVICE_RAW},
    {"raw IPv4 socket", AF_INET, SOCK_RAW, IPPROTO_ICMP, DOCTOR_FAIL, ADVICE_RAW},
    {"raw IPv6 socket", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, DOCTOR_FAIL, ADVICE_RAW},
    {"XDP socket", AF_XDP, SOCK_RAW, 0, DOCTOR_FAIL, ADVICE_RAW},
    {"bluetooth socket", AF_BLUETOOTH, SOCK_RAW, 1, DOCTOR_FAIL, ADVICE_FILTER},
    {"CAN socket", AF_CAN, SOCK_RAW, 1, DOCTOR_WARN, ADVICE_FILTER},
    {"TIPC socket", AF_TIPC, SOCK_SEQPACKET, 0, DOCTOR_WARN, ADVICE_FILTER},
    {"RDS socket", AF_RDS, SOCK_SEQPACKET, 0, DOCTOR_WARN, ADVICE_FILTER},
    {"SMC socket", AF_SMC, SOCK_STREAM, 0, DOCTOR_WARN, ADVICE_FILTER},
    {"kernel crypto socket", AF_ALG, SOCK_SEQPACKET, 0, DOCTOR_WARN, ADVICE_FILTER},
    {"netlink: netfilter", AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, DOCTOR_WARN, ADVICE_FILTER},
    {"netlink: audit", AF_NETLINK, SOCK_RAW, NETLINK_AUDIT, DOCTOR_WARN, ADVICE_FILTER},
};

static void
try_kinds(struct doctor *d)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int error = try_socket(kinds[i].family, kinds[i].type, kinds[i].protocol);
        doctor_add(d, GROUP, kinds[i].name, error ? DOCTOR_PASS : kinds[i].when_open,
                   kinds[i].advice, "%s", error ? strerror(error) : "can be opened");
    }
}

/* Belongs to no network namespace, and needs no capability. Where no host listens, connect() knows
 * no device. */
static void
try_vsock(struct doctor *d)
{
    struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        doctor_add(d, GROUP, "vsock", DOCTOR_PASS, NULL, "%s", strerror(errno));
        return;
    }
    int error = connect(fd, (struct sockaddr *)&host, sizeof host) < 0 ? errno : 0;
    close(fd);
    bool alone = error == ENODEV || error == EADDRNOTAVAIL;
    doctor_add(d, GROUP, "vsock", alone ? DOCTOR_WARN : DOCTOR_FAIL, ADVICE_FILTER,
               alone ? "can be opened; this machine has no device for it"
                     : "can be opened, and a host is behind it");
}

/* ---- changes by netlink ---- */

/* Each asks to delete what is not there: the permission is judged before that is noticed. */
static int
ask_netlink(const void *request, size_t len)
{
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } reply;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), error = EPROTO;
    if (fd < 0)
        return errno;
    ssize_t got = send(fd, request, len, 0) < 0 ? -1 : recv(fd, &reply, sizeof reply, 0);
    if (got < 0)
        error = errno;
    else if (got >= (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) &&
             reply.head.nlmsg_type == NLMSG_ERROR)
        error = -((const struct nlmsgerr *)NLMSG_DATA(&reply.head))->error;
    close(fd);
    return error;
}

static void
judge_netlink(struct doctor *d, const char *name, int error)
{
    bool refused = error == EPERM || error == EACCES || error == EAFNOSUPPORT;
    doctor_add(d, GROUP, name, refused ? DOCTOR_PASS : DOCTOR_FAIL,
               "drop CAP_NET_ADMIN (sallyport run does; in a pod: drop ALL capabilities)", "%s",
               refused ? strerror(error) : "permitted");
}

static void
try_netlink(struct doctor *d)
{
    struct {
        struct nlmsghdr head;
        struct rtmsg route;
        struct rtattr attribute;
        uint8_t address[4];
        struct rtattr priority;
        uint32_t metric;
    } route = {
        .head = {.nlmsg_len = sizeof route,
                 .nlmsg_type = RTM_DELROUTE,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .route = {.rtm_family = AF_INET,
                  .rtm_dst_len = 32,
                  .rtm_table = RT_TABLE_MAIN,
                  .rtm_scope = RT_SCOPE_NOWHERE},
        .attribute = {.rta_len = RTA_LENGTH(4), .rta_type = RTA_DST},
        .address = {192, 0, 2, 254},
        .priority = {.rta_len = RTA_LENGTH(4), .rta_type = RTA_PRIORITY},
        .metric = 0x7ffffff1, /* nobody's */
    };
    struct {
        struct nlmsghdr head;
        struct ifinfomsg link;
    } link = {
        .head = {.nlmsg_len = sizeof link,
                 .nlmsg_type = RTM_DELLINK,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .link = {.ifi_family = AF_UNSPEC, .ifi_index = 0x7ffffff1},
    };
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg address;
    } address = {
        .head = {.nlmsg_len = sizeof address,
                 .nlmsg_type = RTM_DELADDR,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .address = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = 0x7ffffff1},
    };
    judge_netlink(d, "netlink: change routes", ask_netlink(&route, sizeof route));
    judge_netlink(d, "netlink: change interfaces", ask_netlink(&link, sizeof link));
    judge_netlink(d, "netlink: change addresses", ask_netlink(&address, sizeof address));
}

/* ---- sockets of the host's services ---- */

#define ADVICE_UNIX "do not mount it: who can talk to it acts outside"

static const struct {
    const char *path;
    enum doctor_verdict when_open;
} services[] = {
    {"/run/docker.sock", DOCTOR_FAIL},
    {"/var/run/docker.sock", DOCTOR_FAIL},
    {"/run/containerd/containerd.sock", DOCTOR_FAIL},
    {"/run/crio/crio.sock", DOCTOR_FAIL},
    {"/run/podman/podman.sock", DOCTOR_FAIL},
    {"/run/dbus/system_bus_socket", DOCTOR_FAIL},
    {"/run/systemd/private", DOCTOR_FAIL},
    {"/run/systemd/resolve/io.systemd.Resolve", DOCTOR_FAIL},
    {"/run/nscd/socket", DOCTOR_FAIL},
    {"/var/run/nscd/socket", DOCTOR_FAIL},
    {"/tmp/.X11-unix/X0", DOCTOR_WARN},
};

static bool
connects(const struct sockaddr_un *sa, socklen_t len)
{
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool ok =
            fd >= 0 && (connect(fd, (const struct sockaddr *)sa, len) == 0 || errno == EAGAIN);
        if (fd >= 0)
            close(fd);
        if (ok)
            return true;
    }
    return false;
}

static bool
path_connects(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path)
        return false;
    memcpy(sa.sun_path, path, strlen(path));
    return connects(&sa, sizeof sa);
}

static void
try_services(struct doctor *d)
{
    size_t found = 0;
    for (size_t i = 0; i < sizeof services / sizeof services[0]; i++) {
        if (!path_connects(services[i].path))
            continue;
        doctor_add(d, GROUP, services[i].path, services[i].when_open, ADVICE_UNIX, "answers");
        found++;
    }
    if (found == 0)
        doctor_add(d, GROUP, "sockets of services", DOCTOR_PASS, NULL,
                   "none of the usual ones answers");
}

/* "unix:path=/run/user/1000/bus,guid=…" or a bare path. */
static void
try_agent(struct doctor *d, const char *variable)
{
    const char *value = getenv(variable);
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    if (!value)
        return;
    const char *start = strstr(value, "path=");
    start = start ? start + 5 : value;
    int n = snprintf(path, sizeof path, "%.*s", (int)strcspn(start, ",;"), start);
    if (n > 0 && (size_t)n < sizeof path && path_connects(path))
        doctor_add(d, GROUP, variable, DOCTOR_WARN,
                   "take the variable and the socket out of the sandbox",
                   "an agent of the host answers");
}

/* A line of /proc/net/unix, "ADDRESS: COUNT PROTOCOL FLAGS TYPE STATE INODE NAME": the abstract
 * name ("@…") of a socket that listens, else NULL. */
static char *
listening_name(char *line)
{
    const unsigned long listens = 0x10000; /* __SO_ACCEPTCON */
    char *words[8], *rest = NULL;
    size_t count = 0;
    line[strcspn(line, "\n")] = '\0';
    for (char *w = strtok_r(line, " ", &rest); w && count < 8; w = strtok_r(NULL, " ", &rest))
        words[count++] = w;
    bool ours = count == 8 && words[7][0] == '@' && (strtoul(words[3], NULL, 16) & listens);
    return ours ? words[7] : NULL;
}

/* Abstract names belong to the network namespace: whoever shares the host's sees the host's. */
static void
list_abstract(struct doctor *d)
{
    static const char *const hosts[] = {"containerd", "X11", "dbus", "systemd", "docker"};
    char line[512], found[DOCTOR_FOUND_SIZE] = "";
    size_t count = 0;
    bool host = false;
    FILE *f = fopen("/proc/net/unix", "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *name = listening_name(line);
        size_t len = strlen(found);
        if (!name)
            continue;
        for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
            host |= strstr(name, hosts[i]) != NULL;
        if (count++ < 3)
            snprintf(found + len, sizeof found - len, "%s%.48s", len ? ", " : "", name);
    }
    if (f)
        fclose(f);
    doctor_add(
        d, GROUP, "abstract unix sockets",
        host    ? DOCTOR_FAIL
        : count ? DOCTOR_WARN
                : DOCTOR_PASS,
        "a network namespace of the sandbox's own (sallyport run; a pod without hostNetwork)", "%s",
        count ? found : "nobody listens");
}

void
doctor_sockets(struct doctor *d)
{
    try_kinds(d);
    try_vsock(d);
    try_netlink(d);
    try_services(d);
    try_agent(d, "SSH_AUTH_SOCK");
    try_agent(d, "DBUS_SESSION_BUS_ADDRESS");
    list_abstract(d);
}
