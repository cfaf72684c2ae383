"""`sallyport run` as the tests call it: as root or as somebody without privileges, with files in a folder that the caller owns,
and what the outside sees of it: processes, packets, records."""
import collections
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from . import cases, gate, netns

SOMEBODY = 6543  # a uid that nobody has
PYTHON = "/usr/bin/python3"
ROOT, UNPRIVILEGED, AS_WE_ARE = "root", "unprivileged", "as we are"


def ways():
    """How sandboxes can be made here: (name, why not or None)."""
    if netns.privileged():
        return [(UNPRIVILEGED, None), (ROOT, None)]
    return [(UNPRIVILEGED, None), (ROOT, "root's way needs a root with more than one user")]


def is_sanitized():
    with open(gate.binary(), "rb") as f:
        return b"__asan_init" in f.read()


def become(way):
    """For preexec_fn: the caller of this way."""
    if way == UNPRIVILEGED and netns.privileged():
        os.setgroups([])
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
    elif way == UNPRIVILEGED:
        # Root of a user namespace of one id: in another one below it, that id is somebody without privileges.
        netns.unshare(netns.CLONE_NEWUSER)
        netns.write("/proc/self/setgroups", "deny")
        netns.write("/proc/self/uid_map", f"{SOMEBODY} 0 1")
        netns.write("/proc/self/gid_map", f"{SOMEBODY} 0 1")
    netns.die_with_parent()


def give(path, way):
    """Makes path (and what is below) the property of the caller of this way."""
    if way != UNPRIVILEGED or not netns.privileged():
        return path
    for top, folders, files in os.walk(path):
        for name in [top] + [os.path.join(top, n) for n in folders + files]:
            os.lchown(name, SOMEBODY, SOMEBODY)
    if not os.path.isdir(path):
        os.chown(path, SOMEBODY, SOMEBODY)
    return path


class Run:
    """One `sallyport run`. Its folder holds policy.json, config.json, the record and the run's own private folder."""

    def __init__(self, command, *options, way=ROOT, policy=None, config=None, env=None, stdin=subprocess.DEVNULL, pass_fds=(), quiet=False,
                 account=True, folder=None, prepare=None, stdout=subprocess.PIPE):
        self.dir = folder or tempfile.mkdtemp(prefix="probes-")
        os.chmod(self.dir, 0o755)
        self.path = lambda *parts: os.path.join(self.dir, *parts)
        os.makedirs(self.path("run"), exist_ok=True)
        argv = [gate.binary(), "run"]
        if account:
            argv += ["--json"]
        if quiet:
            argv += ["--quiet"]
        if policy is not None:
            self.write("policy.json", policy)
            argv += ["--policy", self.path("policy.json")]
        if config is not None:
            merged = gate.merged({"record": {"path": self.path("decisions.jsonl")}}, config)
            self.write("config.json", merged)
            argv += ["--config", self.path("config.json")]
        give(self.dir, way)
        if prepare:
            prepare(self)
        clean = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": self.path("run"), **(env or {})}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                clean[name] = os.environ[name]
        self.process = subprocess.Popen([*argv, *options, "--", *command], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=clean,
                                        pass_fds=pass_fds, preexec_fn=lambda: become(way), cwd="/", start_new_session=True)
        self.status, self.out, self.err = None, "", ""

    def write(self, name, document):
        with open(self.path(name), "w") as f:
            f.write(document if isinstance(document, str) else json.dumps(document))

    def wait(self, seconds=60, data=None):
        try:
            out, err = self.process.communicate(data, timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise cases.Failed(f"sallyport run did not end within {seconds} s")
        self.status = self.process.returncode
        self.out, self.err = (out or b"").decode("utf-8", "replace"), err.decode("utf-8", "replace")
        if gate.SANITIZER.search(self.err):
            raise cases.Failed(f"sanitizer: {self.err[:3000]}")
        return self

    def kill(self):
        """What the test started, by its ids."""
        for pid in [self.process.pid] + descendants(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.communicate()

    def account(self):
        for line in reversed(self.err.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        raise cases.Failed(f"no account on standard error: {self.err[-1500:]!r}")

    def records(self, event=None, **members):
        try:
            with open(self.path("decisions.jsonl")) as f:
                rows = [json.loads(line) for line in f.read().splitlines()]
        except FileNotFoundError:
            return []
        return [r for r in rows if (event is None or r["event"] == event) and all(r.get(k) == v for k, v in members.items())]

    def command(self):
        """The process id of CMD as the outside sees it."""
        def find():
            for helper in children(self.process.pid):
                for first in children(helper):
                    if same_namespace(first, helper, "net"):
                        continue
                    if inside := children(first):
                        return inside[0]
            return None
        return cases.eventually(find, "CMD runs", 20)

    def gate(self):
        """The supervisor's process id."""
        def find():
            for helper in children(self.process.pid):
                for p in children(helper):
                    if b"serve" in command_line(p):
                        return p
            return None
        return cases.eventually(find, "the gate runs", 20)

    def cleanup(self):
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cleanup()


def run(command, *options, seconds=60, data=None, **more):
    """Runs it to its end; the folder is gone, what it said stays."""
    r = Run(command, *options, stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL, **more)
    try:
        r.wait(seconds, data)
        r.kept = r.records()
        r.left = [n for n in os.listdir(r.path("run"))]
    finally:
        r.cleanup()
    return r


# ---- processes

def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def descendants(pid):
    found = children(pid)
    for p in list(found):
        found += descendants(p)
    return found


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def namespace(pid, name):
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")
    except OSError:
        return None


def same_namespace(a, b, name):
    return namespace(a, name) == namespace(b, name)


def ours(marker):
    """Living processes whose command line or environment names marker (a folder of the test's)."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                text = f.read() + command_line(pid)
        except OSError:
            continue
        if marker.encode() in text:
            found.append(int(pid))
    return found


def in_network_of(pid, *argv):
    """A program of ours in the network namespace of this process; what only a test may do."""
    tool = next(p for p in ("/usr/bin/nsenter", "/bin/nsenter") if os.path.exists(p))
    return subprocess.run([tool, "-t", str(pid), "-n", *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)


# ---- packets

class Packets:
    """Counts what passes the interfaces of this network namespace, whoever sends it: (device, protocol, address, port). What the
    kernel says by itself on a cable (neighbours, group membership) is left out."""

    def __init__(self):
        self.seen = collections.Counter()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        except PermissionError:
            pass  # root of a user namespace alone
        self.socket.settimeout(0.2)
        self.ended = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while not self.ended:
            try:
                data, (device, kind, direction, *_) = self.socket.recvfrom(128)
            except (TimeoutError, OSError):
                continue
            # On lo each packet passes twice; on a cable what comes in is the other side's.
            if direction == 4 and kind in (0x0800, 0x86DD) and (row := self._row(data)):
                self.seen[(device, *row)] += 1

    @staticmethod
    def _row(data):
        if data[0] >> 4 == 4:
            header, protocol, address = (data[0] & 15) * 4, data[9], socket.inet_ntoa(data[16:20])
        else:
            header, protocol, address = 40, data[6], socket.inet_ntop(socket.AF_INET6, data[24:40])
        if protocol == 2 or (protocol == 0 and data[40:41] == b"\x3a") or (protocol == 58 and 130 <= data[header] <= 143):
            return None
        port = struct.unpack_from("!H", data, header + 2)[0] if protocol in (6, 17) else 0
        return {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}.get(protocol, str(protocol)), address, port

    def take(self):
        """What was seen since the last time."""
        time.sleep(0.25)
        seen, self.seen = self.seen, collections.Counter()
        return dict(seen)

    def close(self):
        self.ended = True
        self.thread.join()
        self.socket.close()
