"""A client inside an inspected tunnel: CONNECT, TLS by the inspection CA, then exactly these bytes in exactly these pieces."""
import concurrent.futures
import contextlib
import os
import socket
import ssl
import time

from . import cases, gate as gates, netns, vectors, wire
from .dns import DnsStub
from .origin import Origin


def trusting(ca, alpn=("http/1.1",), minimum=None):
    context = ssl.create_default_context(cafile=ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if minimum:
        context.minimum_version = minimum
    return context


class Inside:
    """One TLS connection inside a tunnel. `ended` afterwards: "close_notify", "eof" (nothing said goodbye) or "reset"."""

    def __init__(self, address, target, credential, context, source=None, seconds=10.0, name=None):
        self.ended, self.tls = None, None
        host = target.rsplit(":", 1)[0].strip("[]")
        self.sock = socket.create_connection(address, seconds, (source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = "%s:%d" % self.sock.getsockname()[:2]
        try:
            self.sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: {credential}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = self.sock.recv(1)
                if not more:
                    break
                head += more
            cases.expect(head.startswith(b"HTTP/1.1 200"), f"the answer to CONNECT {target}: {head!r}")
            self.tls = context.wrap_socket(self.sock, server_hostname=name or host, suppress_ragged_eofs=False)
        except BaseException:
            self.sock.close()
            raise

    def send(self, data):
        self.tls.sendall(data)

    def receive(self, seconds):
        """Some bytes; none when it has ended, None when the time is over."""
        if self.ended:
            return b""
        self.tls.settimeout(max(seconds, 0.001))
        try:
            data = self.tls.recv(262144)
            self.ended = None if data else "close_notify"
            return data
        except ssl.SSLZeroReturnError:
            self.ended = "close_notify"
        except ssl.SSLEOFError:
            self.ended = "eof"
        except (socket.timeout, ssl.SSLWantReadError):
            return None
        except OSError:
            self.ended = "reset"
        return b""

    def read_until(self, methods, seconds, linger=None):
        """As wire.read_until(): to the end, or until all answers are there and `linger` seconds more have passed."""
        data, end = b"", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            more = self.receive(left)
            if more is None or self.ended:
                break
            data += more
            if linger is not None and len(wire.Reply(data, methods, None, "").messages) == len(methods):
                end, linger = min(end, time.monotonic() + linger), None
        return wire.Reply(data, methods, self.ended, self.client)

    def close(self):
        (self.tls or self.sock).close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def talk(address, target, credential, context, pieces, source=None, seconds=8.0, linger=None, methods=None):
    pieces = [(0, pieces)] if isinstance(pieces, (bytes, bytearray)) else pieces
    methods = methods or wire.methods_of(b"".join(p for _, p in pieces))
    with Inside(address, target, credential, context, source, seconds) as inside:
        with contextlib.suppress(OSError):  # refused before all was said: the answer is what counts
            for wait, piece in pieces:
                time.sleep(wait)
                inside.send(piece)
        return inside.read_until(methods, seconds, linger)


def each(jobs, at_once=16):
    """Results of functions that wait, in order."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda job: job(), jobs))


class Lab:
    """A gate that inspects everything, a CA for the origin, an origin that counts behind TLS, and a name server."""

    def __init__(self, folder, authority, hosts, policy=None, config=None, answer=None, names=None):
        self.ca = os.path.join(folder, "ca")
        if not os.path.exists(self.ca):
            gates.run("ca", "init", "--dir", self.ca)
        self.context = trusting(os.path.join(self.ca, "ca.pem"))
        self.dns = DnsStub(default={"A": [netns.ORIGIN]})
        certificate = authority.leaf(*(names or hosts), file="inner")
        self.origin = Origin(netns.ORIGIN, 443, *([answer] if answer else []), tls=certificate)
        document = gates.limited(*hosts, inspect={"mode": "all"}, **(policy or {}))
        base = {"inspect": {"mode": "all", "ca": self.ca}, "upstream": {"ca_file": authority.path, "allow_addresses": [f"{netns.ORIGIN}/32"]}}
        self.gate = gates.Gate({"default": document}, gates.merged(base, config), dns=self.dns).start()
        self.rows = 0

    def next_source(self):
        self.rows += 1
        return vectors.source(self.rows)

    def talk(self, target, sub, pieces, **options):
        return talk(self.gate.address, target, self.gate.credential(sub), self.context, pieces, **options)

    def close(self):
        self.gate.stop()
        self.dns.close()
        self.origin.close()
        self.gate.cleanup()
