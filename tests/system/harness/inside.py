"""Runs inside a sandbox, by the system's Python alone: tries every way out that a battery of probes names, and prints one JSON
line a probe: its name, whether it was refused as it should be, what came of it, the seconds it took, and the packets it sent
on their way (protocol, address, port), which the gate must have recorded. argv: a JSON object of what the outside knows."""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time

KNOWN = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
# The generic numbers are those of aarch64 and riscv64.
NUMBERS = {"clone": (56, 220), "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
           "unshare": (272, 97), "setns": (308, 268), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
           "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "open_by_handle_at": (304, 265),
           "name_to_handle_at": (303, 264), "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
           "personality": (135, 92), "process_vm_readv": (310, 270), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
           "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
           "open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432), "move_mount": (429, 429), "mount_setattr": (442, 442),
           "reboot": (169, 142), "swapon": (167, 224), "acct": (163, 89), "syslog": (103, 116), "sethostname": (170, 161),
           "settimeofday": (164, 170), "quotactl": (179, 60), "fanotify_init": (300, 262), "getpid": (39, 172), "kcmp": (312, 272)}
PROBES = []


def probe(name):
    def add(function):
        PROBES.append((name, function))
        return function
    return add


def error_name(number):
    return errno.errorcode.get(number, str(number))


def call(name, *args):
    """The name of the error of a system call, or "ok"."""
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(NUMBERS[name][0 if X86 else 1]), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args]) >= 0:
        return "ok"
    return error_name(ctypes.get_errno())


def failing(function, *args):
    """The name of the error that it raises, or "ok"."""
    try:
        function(*args)
    except OSError as e:
        return error_name(e.errno) if e.errno else type(e).__name__ + ": " + str(e)
    return "ok"


def all_are(wanted, got):
    """got: name -> outcome. Refused as wanted, every one."""
    wrong = {k: v for k, v in got.items() if v not in wanted}
    return not wrong, wrong or got


def in_child(function, seconds=5):
    """How a child that runs it ends: ("exit", status) or ("signal", number)."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(function() or 0)
        finally:
            os._exit(99)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return ("signal", os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ("exit", os.WEXITSTATUS(status))
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return ("hung", 0)


# ---- packets

REFUSALS = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EPERM", "EACCES", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EPROTONOSUPPORT", "EINVAL",
            "ENODEV", "ENOPROTOOPT", "ESOCKTNOSUPPORT"}
INITIAL = b"\xc3\x00\x00\x00\x01\x08" + b"\x42" * 1194  # what a QUIC client's first datagram looks like


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def attempt(kind, address, port, data=b"hello", prepare=None, wait=True):
    """One attempt to reach: what came of it, the seconds, and the packet that was on its way (None: no socket at all)."""
    began, sent = time.monotonic(), None
    try:
        with socket.socket(family_of(address), socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
            s.settimeout(2.0)
            if prepare:
                prepare(s)
            sent = [kind, address.split("%")[0].replace("::ffff:", "") if "." in address else address.split("%")[0], port]
            s.connect((address, port) if "%" not in address else socket.getaddrinfo(address, port)[0][4])
            if kind == "udp":
                s.send(data)
                if wait:
                    s.recv(4096)
            outcome = "ok"
    except TimeoutError:
        outcome = "ETIMEDOUT"
    except OSError as e:
        outcome = error_name(e.errno)
    return outcome, time.monotonic() - began, sent


def refused(*attempts):
    """Judges attempts: all refused, each within a second; and the packets."""
    packets, wrong, slowest = [], {}, 0.0
    for outcome, seconds, sent in attempts:
        if outcome not in REFUSALS or seconds > 1.0:
            wrong[str(sent)] = f"{outcome} after {seconds:.2f} s"
        slowest = max(slowest, seconds)
        if sent:
            packets.append(sent)
    return not wrong, wrong or f"refused, the slowest after {slowest:.3f} s", packets


@probe("sp-001 raw TCP to public addresses")
def tcp_public():
    return refused(*[attempt("tcp", a, p) for a, p in KNOWN["public"]])


@probe("sp-001 raw TCP to private and shared addresses")
def tcp_private():
    return refused(*[attempt("tcp", a, p) for a, p in KNOWN["private"]])


@probe("sp-001 raw TCP to link-local and metadata addresses")
def tcp_metadata():
    return refused(*[attempt("tcp", a, p) for a, p in (("169.254.169.254", 7), ("169.254.169.254", 8080), ("169.254.170.2", 7), ("168.63.129.16", 32526),
                                                       ("fd00:ec2::254", 7), ("fe80::a9fe:a9fe%lo", 7))])


@probe("raw TCP to an IPv4 address by an IPv6 socket")
def tcp_mapped():
    return refused(attempt("tcp", "::ffff:5.5.5.5", 17))


@probe("TCP fast open: data in the SYN")
def tcp_fast_open():
    began = time.monotonic()
    with socket.socket() as s:
        s.setblocking(False)
        outcome = failing(s.sendto, b"secret", socket.MSG_FASTOPEN, ("5.5.5.6", 4433))
        if outcome == "EINPROGRESS":
            select.select([], [s], [], 2)
            outcome = error_name(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return refused((outcome, time.monotonic() - began, ["tcp", "5.5.5.6", 4433]))


@probe("TCP without waiting (O_NONBLOCK)")
def tcp_nonblocking():
    began = time.monotonic()
    with socket.socket() as s:
        s.setblocking(False)
        s.connect_ex(("5.5.5.7", 4434))
        select.select([], [s], [], 2)
        outcome = error_name(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    return refused((outcome, time.monotonic() - began, ["tcp", "5.5.5.7", 4434]))


@probe("TCP from a source address that is not ours")
def tcp_spoofed():
    def bind(s):
        s.bind(("10.66.0.1", 0))
    return refused(attempt("tcp", "5.5.5.8", 4435, prepare=bind))


@probe("source routes and marks")
def source_routes():
    got = {}
    with socket.socket() as s:
        # Loose source route by 5.5.5.5 (RFC 791): it would be the next hop of a packet to loopback.
        got["IP_OPTIONS"] = failing(s.setsockopt, socket.IPPROTO_IP, 4, struct.pack("!BBB4sB", 131, 7, 4, socket.inet_aton("5.5.5.5"), 0))
        if got["IP_OPTIONS"] == "ok":
            s.settimeout(1)
            got["IP_OPTIONS"] = failing(s.connect, ("127.0.0.1", 4436))
        got["SO_MARK"] = failing(s.setsockopt, socket.SOL_SOCKET, 36, 1)
        got["IP_TRANSPARENT"] = failing(s.setsockopt, socket.IPPROTO_IP, 19, 1)
        got["SO_BINDTODEVICE"] = failing(s.setsockopt, socket.SOL_SOCKET, 25, b"pod0\0")
    with socket.socket(socket.AF_INET6) as s:
        got["IPV6_RTHDR"] = failing(s.setsockopt, socket.IPPROTO_IPV6, 57, b"\0" * 8)
    return all_are(REFUSALS, got)


@probe("sp-003 DNS over UDP to resolvers of the world, of the host and of the gate")
def dns_udp():
    query = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0" + b"\x04leak\x07example\x04test\0" + b"\x00\x01\x00\x01"
    return refused(*[attempt("udp", a, p, query) for a, p in KNOWN["resolvers"]])


@probe("sp-003 DNS over TCP and TLS")
def dns_tcp():
    return refused(*[attempt("tcp", a, 53) for a, _ in KNOWN["resolvers"][:3]], attempt("tcp", "1.1.1.1", 853), attempt("udp", "9.9.9.9", 853))


@probe("sp-003 names: the system's own resolver finds nothing, at once")
def no_names():
    got = {}
    for name in KNOWN["names"]:
        began = time.monotonic()
        try:
            got[name] = str(socket.getaddrinfo(name, 80)[0][4])
        except socket.gaierror as e:
            seconds = time.monotonic() - began
            got[name] = "no" if seconds < 1 else f"{e} after {seconds:.1f} s"
    ok, what = all_are({"no"}, got)
    return ok, what


@probe("sp-004 QUIC-like UDP 443")
def quic():
    return refused(*[attempt("udp", a, 443, INITIAL) for a in ("5.5.5.5", "198.51.100.10", "2a05:5::5")])


@probe("UDP to any port, asked for no answer")
def udp_fire_and_forget():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        outcome = failing(s.sendto, b"beacon", ("5.5.5.9", 5055))
    return True, outcome, [["udp", "5.5.5.9", 5055]] if outcome == "ok" else []


@probe("UDP in fragments, IPv6")
def udp_fragments():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IPV6, 24, 1280)  # IPV6_MTU
        outcome = failing(s.sendto, b"x" * 4000, ("2a05:5::6", 5056))
    return True, outcome, [["udp", "2a05:5::6", 5056]] if outcome == "ok" else []


@probe("sp-005 ICMP: ping sockets and raw sockets, both families")
def icmp():
    got = {f"{f.name} {t.name} {p}": failing(socket.socket, f, t, p) for f in (socket.AF_INET, socket.AF_INET6)
           for t in (socket.SOCK_DGRAM, socket.SOCK_RAW) for p in (1, 58)}
    return all_are(REFUSALS, got)


@probe("raw sockets of every protocol, and transport protocols other than TCP and UDP")
def raw():
    got = {}
    for f in (socket.AF_INET, socket.AF_INET6):
        for p in (0, 2, 4, 6, 17, 41, 47, 50, 255):
            got[f"{f.name} raw {p}"] = failing(socket.socket, f, socket.SOCK_RAW, p)
        for t, p in ((1, 132), (5, 132), (6, 33), (2, 136), (1, 262)):  # SCTP, SCTP one to many, DCCP, UDP-Lite, MPTCP
            got[f"{f.name} {t} {p}"] = failing(socket.socket, f, t, p)
    return all_are(REFUSALS, got)


@probe("sp-009 packet sockets on every interface")
def packets():
    got = {f"{t} {p:#x}": failing(socket.socket, 17, t, p) for t in (2, 3, 10) for p in (0, 0x0003, 0x0300, 0x88b5)}
    return all_are(REFUSALS, got)


@probe("IPv6 link-local and multicast, IPv4 multicast and broadcast")
def multicast():
    def broadcast(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    rows = [("fe80::1%lo", 5353), ("ff02::fb%lo", 5353), ("ff02::1%lo", 5354), ("ff05::2", 5355), ("224.0.0.251", 5353), ("239.255.255.250", 1900),
            ("255.255.255.255", 67), ("10.66.0.255", 68)]
    packets, wrong = [], {}
    for a, p in rows:
        # No error comes back from a group: only that nothing answers counts, and that it is on record.
        outcome, seconds, sent = attempt("udp", a, p, prepare=broadcast, wait=False)
        if outcome == "ok":
            packets.append(sent)
        elif outcome not in REFUSALS or seconds > 1:
            wrong[a] = f"{outcome} after {seconds:.2f} s"
    return not wrong, wrong or "nobody there", packets


@probe("joining a multicast group and listening hears nobody")
def multicast_join():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 5353))
        outcome = failing(s.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0"))
        s.settimeout(0.3)
        return failing(s.recv, 100) == "TimeoutError: timed out", outcome


# ---- what the host has on its loopback, and sockets

@probe("services on the host's loopback")
def host_loopback():
    return refused(*[attempt("tcp", a, KNOWN["host_port"])[:2] + (None,) for a in ("127.0.0.1", "::1", "127.0.0.53", "0.0.0.0")])


@probe("services on the host's own addresses")
def host_addresses():
    return refused(*[attempt("tcp", a, KNOWN["host_port"]) for a in ("10.66.0.1", "192.0.2.7", "fd66::1")])


@probe("sp-015 abstract unix sockets of the host")
def abstract_sockets():
    got = {}
    for name in KNOWN["abstract"]:
        with socket.socket(socket.AF_UNIX) as s:
            got[name] = failing(s.connect, "\0" + name)
    return all_are({"ECONNREFUSED"}, got)


@probe("sp-016 path unix sockets of the host")
def path_sockets():
    got = {}
    for path in KNOWN["unix"] + ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket",
                                 "/run/systemd/notify", "/run/systemd/private", "/run/user/0/podman/podman.sock", "/run/nscd/socket",
                                 "/run/systemd/resolve/io.systemd.Resolve", "/tmp/.X11-unix/X0", "/run/user/1000/wayland-0"]:
        with socket.socket(socket.AF_UNIX) as s:
            got[path] = failing(s.connect, path)
    found = [os.path.join(d, f) for top in ("/run", "/tmp", "/var", "/dev", "/etc", "/opt", "/srv") for d, _, files in os.walk(top) for f in files
             if stat.S_ISSOCK(os.lstat(os.path.join(d, f)).st_mode)]
    ok, what = all_are({"ENOENT"}, got)
    return ok and not found, found or what


@probe("sp-012 vsock, and every other socket family")
def families():
    ok = {0: "EAFNOSUPPORT", 1: "ok", 2: "ok", 10: "ok", 16: "ok"}
    got, wrong = {}, {}
    for f in range(0, 64):
        for t in (1, 2, 3, 5):
            if f in ok and not (f == 0):
                continue
            got[f"{f}/{t}"] = failing(lambda: socket.socket(f, t, 0).close())
    judged, wrong = all_are({"EAFNOSUPPORT", "EPERM"}, got)
    for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        if failing(lambda: socket.socket(f, socket.SOCK_STREAM).close()) != "ok":
            return False, f"{f} does not work"
    return judged, wrong if not judged else "unix, inet and inet6 alone"


@probe("socket families with a number above 32 bits, and by socketpair")
def families_wide():
    got = {}
    for family in (40, 17, 38):
        for number in (family, family | 1 << 32, family | 0xffffffff << 32):
            got[f"socket {number:#x}"] = call_socket(number)
        fds = (ctypes.c_int * 2)()
        got[f"socketpair {family}"] = "ok" if libc.socketpair(family, 1, 0, fds) == 0 else "no"
    return all_are({"EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT", "EINVAL", "no"}, got)


def call_socket(family):
    ctypes.set_errno(0)
    number = 41 if X86 else 198
    fd = libc.syscall(ctypes.c_long(number), ctypes.c_long(family), ctypes.c_long(1), ctypes.c_long(0))
    return error_name(ctypes.get_errno()) if fd < 0 else "ok"


# ---- netlink

def netlink_request(kind, flags, payload, protocol=0):
    """The error that the kernel answers with, or "ok"."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as s:
        s.settimeout(2)
        s.send(struct.pack("IHHII", 16 + len(payload), kind, 0x0005 | flags, 1, 0) + payload)
        answer = s.recv(8192)
    length, kind = struct.unpack_from("IH", answer)
    if kind != 2:  # NLMSG_ERROR
        return f"message {kind}"
    code = struct.unpack_from("i", answer, 16)[0]
    return error_name(-code) if code else "ok"


def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


@probe("sp-010 adding routes, addresses and interfaces by netlink")
def netlink_changes():
    create, got = 0x0600, {}
    for name in ("dummy", "veth", "vxlan", "ipvlan", "macvlan", "wireguard", "bridge", "tun", "gre", "sit", "vcan"):
        info = attribute(18, attribute(1, name.encode()))  # IFLA_LINKINFO, IFLA_INFO_KIND
        got["link " + name] = failing_or(netlink_request, 16, create, struct.pack("BxHiII", 0, 0, 0, 1, 1) + attribute(3, b"way0\0") + info)
    got["link lo down"] = failing_or(netlink_request, 16, 0, struct.pack("BxHiII", 0, 0, 1, 0, 1))
    got["link to another namespace"] = failing_or(netlink_request, 16, 0, struct.pack("BxHiII", 0, 0, 1, 0, 0) + attribute(19, struct.pack("I", os.getppid())))
    got["route"] = failing_or(netlink_request, 24, create, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(5, socket.inet_aton("10.66.0.2")))
    got["route delete"] = failing_or(netlink_request, 25, 0, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 255, 0, 0, 2, 0) + attribute(4, struct.pack("i", 1)))
    got["address"] = failing_or(netlink_request, 20, create, struct.pack("BBBBI", 2, 24, 0, 0, 1) + attribute(2, socket.inet_aton("10.66.0.9")))
    got["neighbour"] = failing_or(netlink_request, 28, create, struct.pack("BxHiHBB", 2, 0, 1, 2, 0, 0) + attribute(1, socket.inet_aton("10.66.0.2")))
    got["rule"] = failing_or(netlink_request, 32, create, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0))
    got["namespace id"] = failing_or(netlink_request, 88, create, struct.pack("Bxxx", 0) + attribute(1, struct.pack("i", 5)) + attribute(2, struct.pack("I", 1)))
    return all_are({"EPERM", "EACCES"}, got)


def failing_or(function, *args):
    try:
        return function(*args)
    except OSError as e:
        return error_name(e.errno) if e.errno else "ETIMEDOUT"


@probe("sp-049 firewall rules and every other netlink protocol")
def netlink_protocols():
    got = {str(p): failing(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, p).close()) for p in range(1, 32)}
    return all_are({"EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT"}, got)


@probe("interface settings by ioctl")
def interface_ioctl():
    request = b"lo".ljust(16, b"\0") + struct.pack("H", 0).ljust(24, b"\0")
    got = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for name, number in (("SIOCSIFFLAGS", 0x8914), ("SIOCSIFADDR", 0x8916), ("SIOCADDRT", 0x890b), ("SIOCSIFNAME", 0x8923), ("SIOCETHTOOL", 0x8946)):
            got[name] = failing(fcntl.ioctl, s, number, request)
    return all_are({"EPERM", "EACCES", "EFAULT", "EOPNOTSUPP"}, got)


@probe("sp-030 /proc/net and /sys show this sandbox's network alone")
def shown_network():
    with open("/proc/net/dev") as f:
        devices = [line.split(":")[0].strip() for line in f if ":" in line]
    with open("/proc/net/unix") as f:
        named = [line.split()[7] for line in f.readlines()[1:] if len(line.split()) > 7]
    seen = devices != ["lo"] and devices or named or (os.path.isdir("/sys/class/net") and os.listdir("/sys/class/net") not in ([], ["lo"]) and "/sys/class/net")
    links = [line for line in open("/proc/net/route").read().splitlines()[1:] if line.split()[0] != "lo"]
    return not seen and not links, seen or links or "lo alone"


# ---- namespaces, processes, system calls

NAMESPACES = {"user": 0x10000000, "net": 0x40000000, "mount": 0x00020000, "pid": 0x20000000, "ipc": 0x08000000, "uts": 0x04000000,
              "cgroup": 0x02000000, "time": 0x00000080}


@probe("nested user and other namespaces by unshare")
def unshare():
    got = {name: call("unshare", flag) for name, flag in NAMESPACES.items()}
    got["user+net"] = call("unshare", NAMESPACES["user"] | NAMESPACES["net"])
    return all_are({"EPERM"}, got)


@probe("nested namespaces by clone")
def clone():
    got = {}
    for name, flag in [*NAMESPACES.items(), ("user+net", 0x50000000)]:
        if name == "time":
            continue  # its flag is a signal's number for clone
        ctypes.set_errno(0)
        pid = libc.syscall(ctypes.c_long(NUMBERS["clone"][0 if X86 else 1]), ctypes.c_long(flag | signal.SIGCHLD), *[ctypes.c_long(0)] * 4)
        if pid == 0:
            os._exit(0)
        got[name] = error_name(ctypes.get_errno()) if pid < 0 else "ok"
    return all_are({"EPERM"}, got)


@probe("sp-024 clone3, whose flags no filter can read, is ENOSYS")
def clone3():
    arguments = ctypes.create_string_buffer(struct.pack("Q" * 11, NAMESPACES["user"], *[0] * 3, signal.SIGCHLD, *[0] * 6))
    got = call("clone3", ctypes.addressof(arguments), 88)
    return got == "ENOSYS", got


@probe("setns through /proc, and by a pidfd")
def setns():
    got = {}
    for pid in ("self", "1", str(os.getppid())):
        for name in ("net", "user", "mnt", "pid", "ipc", "uts"):
            try:
                fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            except OSError as e:
                got[f"{pid} {name}"] = error_name(e.errno)
                continue
            got[f"{pid} {name}"] = call("setns", fd, 0)
            os.close(fd)
    fd = os.pidfd_open(os.getpid())
    got["pidfd"] = call("setns", fd, NAMESPACES["net"])
    return all_are({"EPERM", "EACCES", "ENOENT"}, got)


@probe("ptrace and the memory of other processes")
def ptrace():
    child = os.fork()
    if child == 0:
        time.sleep(3)
        os._exit(0)
    buffer = ctypes.create_string_buffer(64)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(buffer), 8))
    fd = os.pidfd_open(child)
    got = {"attach 1": call("ptrace", 16, 1, 0, 0), "seize 1": call("ptrace", 0x4206, 1, 0, 0), "attach a child": call("ptrace", 16, child, 0, 0),
           "traceme": call("ptrace", 0, 0, 0, 0), "process_vm_readv 1": call("process_vm_readv", 1, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0),
           "pidfd_getfd": call("pidfd_getfd", fd, 0, 0), "kcmp": call("kcmp", 1, os.getpid(), 0, 0, 0), "/proc/1/mem": failing(open, "/proc/1/mem", "rb")}
    for pid in KNOWN["host_pids"]:
        got[f"kill {pid}"] = failing(os.kill, pid, 0)
    os.close(fd)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return all_are({"EPERM", "EACCES", "ESRCH", "ENOENT"}, got)


@probe("the first process shows nothing of itself")
def first_process():
    got = {name: failing(lambda: open(f"/proc/1/{name}", "rb").read(16)) for name in ("environ", "mem", "maps", "auxv", "stack", "syscall", "io")}
    got["fd"] = failing(os.listdir, "/proc/1/fd")
    got["root"] = failing(os.listdir, "/proc/1/root")
    got["cwd"] = failing(os.readlink, "/proc/1/cwd")
    with open("/proc/1/cmdline", "rb") as f:
        line = f.read(65536).replace(b"\0", b"")
    ok, what = all_are({"EACCES", "EPERM"}, got)
    named = line not in (b"", b"sallyport-run")  # its arguments name the files of the run
    return ok and not named, line.decode("latin-1") if named else what


@probe("io_uring, by which sockets pass every filter, is ENOSYS")
def io_uring():
    parameters = ctypes.create_string_buffer(256)
    return all_are({"ENOSYS"}, {"setup": call("io_uring_setup", 8, ctypes.addressof(parameters)), "enter": call("io_uring_enter", 0, 0, 0, 0, 0, 0),
                                "register": call("io_uring_register", 0, 0, 0, 0)})


@probe("sp-027 bpf, perf, userfaultfd, keys, handles, modules, kexec, personality")
def kernel_calls():
    zero = ctypes.create_string_buffer(256)
    at = ctypes.addressof(zero)
    names = {"bpf": (0, at, 128), "perf_event_open": (at, 0, -1, -1, 0), "userfaultfd": (1,), "keyctl": (0, -3, 0), "add_key": (at, at, at, 1, -3),
             "request_key": (at, at, at, -3), "open_by_handle_at": (-100, at, 0), "name_to_handle_at": (-100, at, at, at, 0), "kexec_load": (0, 0, 0, 0),
             "init_module": (at, 0, at), "finit_module": (0, at, 0), "personality": (0x0040000,), "reboot": (0xfee1dead, 672274793, 0, 0),
             "swapon": (at, 0), "acct": (0,), "syslog": (3, at, 16), "sethostname": (at, 4), "settimeofday": (at, 0), "quotactl": (0, at, 0, at),
             "fanotify_init": (0, 0)}
    return all_are({"EPERM"}, {name: call(name, *args) for name, args in names.items()})


@probe("sp-026 mounts: old calls and new")
def mounts():
    text = ctypes.create_string_buffer(b"proc\0")
    at = ctypes.addressof(text)
    tmp = ctypes.create_string_buffer(b"/tmp\0")
    t = ctypes.addressof(tmp)
    names = {"mount": (at, t, at, 0, 0), "umount2": (t, 2), "pivot_root": (t, t), "chroot": (t,), "fsopen": (at, 0), "open_tree": (-100, t, 1),
             "fsmount": (0, 0, 0), "move_mount": (-100, t, -100, t, 0), "mount_setattr": (-100, t, 0, t, 32)}
    return all_are({"EPERM"}, {name: call(name, *args) for name, args in names.items()})


@probe("sp-026 kernel settings are read-only")
def settings():
    got = {}
    for path in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/ping_group_range", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname",
                 "/proc/sys/vm/overcommit_memory", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/proc/1/oom_score_adj",
                 "/proc/sys/kernel/modprobe", "/proc/sys/fs/binfmt_misc/register", "/proc/self/uid_map", "/proc/self/setgroups", "/proc/kcore", "/proc/kmsg",
                 "/proc/irq/0/smp_affinity", "/sys/class/net/lo/mtu"):
        got[path] = failing(lambda: os.close(os.open(path, os.O_WRONLY)))
    for name, text in (("uid_map", b"0 0 1"), ("gid_map", b"0 0 1")):
        got["write " + name] = failing(lambda: open(f"/proc/self/{name}", "wb", 0).write(text))
    got.pop("/proc/self/uid_map"), got.pop("/proc/self/setgroups")
    wrong = {k: v for k, v in got.items() if v == "ok" and k != "/proc/kcore" and k != "/proc/kmsg"}
    for path in ("/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys"):
        try:
            with open(path, "rb") as f:
                if f.read(16):
                    wrong[path] = "can be read"
        except OSError:
            pass
    return not wrong, wrong or "read-only"


@probe("x32 and i386 entry points end the process")
def foreign_calls():
    if not X86:
        return True, "no such entry points on this processor"

    def x32():
        libc.syscall(ctypes.c_long(0x40000000 | 39))
        return 0

    def i386():
        # mov eax, 20 (getpid); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        return 0
    return all_are({("signal", signal.SIGSYS)}, {"x32": in_child(x32), "i386": in_child(i386)})


@probe("privileges: no capability, no_new_privs, a filter, not root, no groups")
def privileges():
    with open("/proc/self/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    wrong = {k: v for k, v in status.items() if k.startswith("Cap") and int(v, 16)}
    wrong.update({k: status.get(k) for k, v in (("NoNewPrivs", "1"), ("Seccomp", "2")) if status.get(k) != v})
    if 0 in os.getresuid() + os.getresgid():
        wrong["ids"] = f"{os.getresuid()} {os.getresgid()}"
    for what in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
        if failing(what) == "ok":
            wrong["setuid"] = "allowed"
    if [g for g in os.getgroups() if g not in (os.getgid(), 65534)]:
        wrong["groups"] = os.getgroups()
    return not wrong, wrong or f"uid {os.getuid()}"


@probe("sp-029 programs with the setuid bit have no effect")
def setuid_programs():
    got = {}
    for path in KNOWN["setuid"]:
        out = os.popen(f"{path} -u 2>&1").read().strip()
        got[path] = "as before" if out == str(os.geteuid()) else out
    return all_are({"as before"}, got)


@probe("sp-018 descriptors: 0, 1, 2 and no more")
def descriptors():
    held = KNOWN.get("descriptors_at_start")
    return held == [0, 1, 2], held


@probe("sp-025 devices")
def devices():
    got = {}
    for path in ("net/tun", "kvm", "vhost-vsock", "vhost-net", "vsock", "mem", "kmsg", "fuse", "sda", "vda", "loop-control", "port", "hpet", "console", "uinput"):
        got[path] = failing(lambda: os.close(os.open("/dev/" + path, os.O_RDWR)))
    got["mknod"] = failing(os.mknod, "/tmp/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    got["mknod disk"] = failing(os.mknod, "/tmp/vda", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    return all_are({"ENOENT", "EPERM", "EACCES", "ENXIO", "ENODEV"}, got)


@probe("sp-028 no controlling terminal, and none can be typed into")
def terminal():
    number = 0x5412  # TIOCSTI
    got = {"tty": failing(lambda: os.close(os.open("/dev/tty", os.O_RDWR)))}
    master, slave = os.openpty()
    for name, n, argument in (("TIOCSTI", number, b"x"), ("TIOCLINUX", 0x541c, b"\x02"), ("TIOCSTI wide", number | 1 << 32, b"x")):
        ctypes.set_errno(0)
        text = ctypes.create_string_buffer(argument)
        done = libc.syscall(ctypes.c_long(16 if X86 else 29), ctypes.c_long(slave), ctypes.c_long(n), ctypes.c_long(ctypes.addressof(text)))
        got[name] = error_name(ctypes.get_errno()) if done < 0 else "ok"
    os.close(master), os.close(slave)
    return all_are({"EPERM", "ENXIO", "ENOTTY"}, got)


# ---- what lies about

SECRET = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}|PRIVATE" + rb" KEY|" + KNOWN.get("marker", "-").encode() + rb"-secret")


def files_to_read():
    for pid in [p for p in os.listdir("/proc") if p.isdigit()] + ["self", "thread-self", "1"]:
        for name in ("environ", "cmdline", "mountinfo", "mounts", "maps", "auxv", "comm", "status", "stack", "cgroup", "fdinfo/0", "fdinfo/3", "net/unix",
                     "task/1/environ", "fd/0", "fd/3", "fd/4", "root/run", "attr/current", "loginuid", "sessionid"):
            yield f"/proc/{pid}/{name}"
    for top in ("/run", "/tmp", "/dev/shm", "/etc", "/home", "/root", "/var", "/opt", "/srv", "/mnt", "/sys", "/dev/mqueue", KNOWN.get("workdir", "/tmp")):
        for folder, _, names in os.walk(top):
            for name in names:
                yield os.path.join(folder, name)


@probe("no token, key or secret of the caller's in anything that can be read")
def secrets():
    found, read = [], 0
    for path in files_to_read():
        try:
            if not path.startswith("/proc") and not stat.S_ISREG(os.stat(path).st_mode):
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            continue
        try:
            data = os.read(fd, 1 << 20)
        except OSError:
            continue
        finally:
            os.close(fd)
        read += 1
        if match := SECRET.search(data):
            found.append(f"{path}: {match[0][:24].decode()}")
    # Shared memory, message queues and semaphores of the host would be in tables.
    for table in ("shm", "msg", "sem"):
        with open(f"/proc/sysvipc/{table}") as f:
            if len(f.readlines()) > 1:
                found.append("/proc/sysvipc/" + table)
    return not found and read > 50, found or f"{read} files read"


@probe("sp-019 environment: nothing of the caller's but what is listed")
def environment():
    unknown = [k for k in os.environ if k in KNOWN["env_outside"] or "SECRET" in k or "TOKEN" in k]
    return not unknown and "PATH" in os.environ, unknown or f"{len(os.environ)} variables"


@probe("sp-048 the policy, keys and records of this run are nowhere")
def own_files():
    got = {}
    for path in KNOWN["run_files"]:
        got[path] = failing(os.lstat, path)
    with open("/proc/self/mountinfo") as f:
        shown = [path for path in KNOWN["run_files"] if os.path.dirname(path) in f.read()]
    ok, what = all_are({"ENOENT", "EACCES"}, got)
    return ok and not shown, shown or what


@probe("the file tree: the system read-only, nothing of other users")
def tree():
    got = {}
    for path in ("/usr/probe", "/etc/probe", "/probe", "/lib/probe", "/bin/probe", "/dev/probe", "/proc/probe", "/sys/probe", "/opt/probe"):
        got[path] = failing(lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)))
    ok, what = all_are({"EROFS", "EACCES", "ENOENT", "EPERM"}, got)
    there = [p for p in ("/etc/shadow", "/etc/ssh", "/root/.ssh", "/root/.bashrc", "/boot", "/var/lib/dpkg", "/var/log/dpkg.log", "/work", "/etc/gshadow", "/etc/sudoers",
                         "/etc/ssl/private", "/proc/1/root/etc/shadow", "/.dockerenv") if os.path.exists(p)]
    return ok and not there and os.listdir("/root") == [], there or what


@probe("sp-034 the gate's listener cannot be taken over from inside")
def taking_over():
    got = {}
    for address in ("127.0.0.1", "0.0.0.0", "::"):
        for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket(family_of(address)) as s:
                if option:
                    s.setsockopt(socket.SOL_SOCKET, option, 1)
                got[f"{address} {option}"] = failing(lambda: (s.bind((address, 3128)), s.listen(1)))
    return all_are({"EADDRINUSE", "EACCES"}, got)


# ---- for programs of single cases

def answer_of(address, port, head, seconds=5):
    with socket.socket(family_of(address)) as s:
        s.settimeout(seconds)
        s.connect((address, port))
        s.sendall(head)
        data = b""
        try:
            while more := s.recv(65536):
                data += more
        except OSError:
            pass
        return data


def run(probes):
    held = [int(fd) for fd in os.listdir("/proc/self/fd")]
    KNOWN["descriptors_at_start"] = sorted(fd for fd in held if os.path.exists(f"/proc/self/fd/{fd}"))
    for name, function in probes:
        began = time.monotonic()
        try:
            ok, what, *sent = function()
        except Exception as e:  # a probe that trips is a failure of that probe alone
            ok, what, sent = False, f"{type(e).__name__}: {e}", []
        print(json.dumps({"name": name, "ok": bool(ok), "what": str(what)[:1500], "seconds": round(time.monotonic() - began, 3),
                          "packets": sent[0] if sent else []}), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run([(n, f) for n, f in PROBES if not KNOWN.get("only") or any(o in n for o in KNOWN["only"])])
