"""A pod and the world outside it: this process's network namespace (netns.enter) has one cable to another namespace, in which
an echo service counts what arrives. Nothing of it touches the machine's own network."""
import encodings.idna  # noqa: F401: looked up by name later, by a user who may not read it
import json
import os
import select
import signal
import socket
import struct
import time

from . import netns

DEVICE = "pod0"
POD, POD6 = "10.66.0.1", "fd66::1"
NEAR, NEAR6 = "10.66.0.2", "fd66::2"      # the other end of the cable
FAR, FAR6 = "5.5.5.5", "2a05:5::5"        # addresses that a guard finds public; both live outside, in the other namespace
METADATA = "169.254.169.254"
PORT = 7
FRAME = 0x88B5                            # an ethertype for experiments (IEEE 802)
RESOLVER = "127.0.0.53"


def _outside(channel, ready):
    """The child's life: echo TCP and UDP, count all, until the channel closes."""
    netns.unshare(netns.CLONE_NEWNET)
    ready.send(b"1")
    channel.recv(1)  # the cable is there
    netns.ip("link", "set", "lo", "up")
    netns.ip("link", "set", "out0", "up")
    for a in (f"{NEAR}/24", f"{FAR}/32", f"{METADATA}/32"):
        netns.ip("addr", "add", a, "dev", "out0")
    for a in (f"{NEAR6}/64", f"{FAR6}/128"):
        netns.ip("-6", "addr", "add", a, "dev", "out0", "nodad")
    counts = {"tcp": 0, "udp": 0, "frames": 0, "bytes": 0}
    listeners, udps = [], []
    for family, addresses in ((socket.AF_INET, (NEAR, FAR, METADATA)), (socket.AF_INET6, (NEAR6, FAR6))):
        for a in addresses:
            t = socket.socket(family)
            t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            t.bind((a, PORT))
            t.listen(64)
            u = socket.socket(family, socket.SOCK_DGRAM)
            u.bind((a, PORT))
            listeners.append(t)
            udps.append(u)
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(FRAME))
    open_sockets, state = [], {"reading": True}
    channel.send(b"r")
    while True:
        streams = open_sockets if state["reading"] else []
        readable, _, _ = select.select([channel, frames] + listeners + udps + streams, [], [])
        for s in readable:
            if s is channel:
                order = channel.recv(4096)
                if not order:
                    os._exit(0)
                channel.send(_obey(json.loads(order), counts, state))
            elif s is frames:
                counts["frames"] += 1
                s.recv(2048)
            elif s in listeners:
                counts["tcp"] += 1
                open_sockets.append(s.accept()[0])
            elif s in udps:
                counts["udp"] += 1
                data, peer = s.recvfrom(2048)
                s.sendto(data, peer)
            else:
                try:
                    data = s.recv(65536)
                    counts["bytes"] += len(data)
                    if data:
                        if data.startswith(b"hello"):
                            s.sendall(data[:64])
                        continue
                except OSError:
                    pass
                open_sockets.remove(s)
                s.close()


def _obey(order, counts, state):
    if order[0] == "counts":
        return json.dumps(counts).encode()
    if order[0] == "read":
        state["reading"] = order[1]
        return b"null"
    return json.dumps(attempt_tcp(*order[1:])).encode()  # "connect"


class World:
    """The other namespace. count() is what arrived there; connect() comes from there."""

    def __init__(self):
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.channel.close()
                _outside(theirs, theirs)
            finally:
                os._exit(1)
        theirs.close()
        self.channel.settimeout(20)
        if self.channel.recv(1) != b"1":
            raise OSError("no second network namespace")
        netns.ip("link", "add", DEVICE, "type", "veth", "peer", "name", "out0")
        netns.ip("link", "set", "out0", "netns", str(self.pid))
        netns.ip("addr", "add", f"{POD}/24", "dev", DEVICE)
        netns.ip("-6", "addr", "add", f"{POD6}/64", "dev", DEVICE, "nodad")
        netns.ip("link", "set", DEVICE, "up")
        self.channel.send(b"g")
        if self.channel.recv(1) != b"r":
            raise OSError("the other network namespace did not come up")
        netns.ip("route", "add", "default", "via", NEAR)
        netns.ip("-6", "route", "add", "default", "via", NEAR6)
        netns.ip("neigh", "flush", "all")

    def _ask(self, *order):
        self.channel.send(json.dumps(order).encode())
        return json.loads(self.channel.recv(65536))

    def count(self):
        return self._ask("counts")

    def reading(self, on):
        """Whether bytes of connections are taken."""
        self._ask("read", on)

    def connect(self, address, port):
        return self._ask("connect", address, port)

    def close(self):
        self.channel.close()
        os.waitpid(self.pid, 0)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def outcome(function):
    """What a network attempt came to: "ok", or the errno's name; and the seconds it took."""
    began = time.monotonic()
    try:
        function()
        result = "ok"
    except TimeoutError as e:
        result = "ETIMEDOUT" if e.errno is None else errno_name(e)
    except OSError as e:
        result = errno_name(e)
    return [result, round(time.monotonic() - began, 3)]


def errno_name(e):
    import errno
    return errno.errorcode.get(e.errno, str(e))


def attempt_tcp(address, port=PORT, seconds=2.0):
    def go():
        with socket.socket(family_of(address)) as s:
            s.settimeout(seconds)
            s.connect((address, port))
            s.sendall(b"hello")
            if s.recv(64) != b"hello":
                raise OSError(0, "no echo")
    return outcome(go)


def attempt_udp(address, port=PORT, seconds=2.0):
    def go():
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as s:
            s.settimeout(seconds)
            s.connect((address, port))
            s.send(b"hello")
            s.recv(64)
    return outcome(go)


def attempt_ping(address):
    """An echo request by a raw socket: only whether it could be sent."""
    def go():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
            s.sendto(struct.pack("!BBHHH", 8, 0, 0xf7fd, 1, 1), (address, 0))
    return outcome(go)


def attempt_frame(device=DEVICE):
    def go():
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as s:
            s.sendto(b"over the wall", (device, FRAME, 0, 0, b"\xff" * 6))
    return outcome(go)


def as_uid(uid, function, *args, raw=False):
    """function(*args) in a child that has become this user (raw keeps CAP_NET_RAW); its JSON result."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if raw:
                netns.libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            if raw:
                header = struct.pack("II", 0x20080522, 0)
                netns.libc.capset(header, struct.pack("IIIIII", 1 << 13, 1 << 13, 0, 0, 0, 0))
            os.write(theirs, json.dumps(function(*args)).encode())
        except BaseException as e:
            os.write(theirs, json.dumps(["%s: %s" % (type(e).__name__, e), 0]).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    text = b""
    while True:
        part = os.read(ours, 65536)
        if not part:
            break
        text += part
    os.close(ours)
    os.waitpid(pid, 0)
    return json.loads(text)


class Service:
    """A listener in the pod: opened by one user, accepting and echoing as another."""

    def __init__(self, uid, address="0.0.0.0", port=0, opener=0, kind=socket.SOCK_STREAM):
        self.socket = None
        if opener == 0:
            self.socket = socket.socket(family_of(address), kind)
            self.socket.bind((address, port))
            if kind == socket.SOCK_STREAM:
                self.socket.listen(16)
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setgroups([])
                os.setresuid(uid, uid, uid)
                s = self.socket or socket.create_server((address, port), family=family_of(address))
                theirs.sendall(struct.pack("H", s.getsockname()[1]))
                while True:
                    if kind == socket.SOCK_DGRAM:
                        data, peer = s.recvfrom(2048)
                        s.sendto(data, peer)
                        continue
                    c = s.accept()[0]
                    try:
                        c.sendall(c.recv(64))
                    except OSError:
                        pass
                    c.close()
            finally:
                os._exit(1)
        self.port = struct.unpack("H", ours.recv(2))[0]
        if self.socket:
            self.socket.close()

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
