"""A client that sends exactly these bytes in exactly these pieces, and reads what comes back."""
import asyncio
import contextlib
import re
import socket
import time


class Message:
    """One response: its head, its body, and whether its framing was complete."""

    def __init__(self, head, body, complete):
        self.head, self.body, self.complete = head, body, complete
        m = re.match(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r\n", head)
        self.status = int(m[1]) if m else 0
        self.phrase = (m[2] or b"").decode("latin-1") if m else ""

    def field(self, name):
        m = re.search(rb"\r\n" + name.encode() + rb":[ \t]*([^\r\n]*)", self.head, re.I)
        return m[1].decode("latin-1") if m else None

    @property
    def reason(self):
        return self.field("x-deny-reason")


def take_message(data, method, ended):
    """One final response from data; (message or None, rest)."""
    while True:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None, data
        head, rest = data[:end + 4], data[end + 4:]
        status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if not status:
            return Message(head, b"", False), b""
        code = int(status[1])
        if 100 <= code < 200 and code != 101:
            data = rest
            continue
        break
    if code in (101, 204, 304) or method == "HEAD" or (method == "CONNECT" and 200 <= code < 300):
        return Message(head, b"", True), rest
    if re.search(rb"\r\ntransfer-encoding:[ \t]*chunked", head, re.I):
        return take_chunked(head, rest, ended)
    length = re.search(rb"\r\ncontent-length:[ \t]*(\d+)\r\n", head, re.I)
    if not length:
        return (Message(head, rest, True), b"") if ended else (None, data)
    n = int(length[1])
    if len(rest) < n:
        return (Message(head, rest, False), b"") if ended else (None, data)
    return Message(head, rest[:n], True), rest[n:]


def take_chunked(head, rest, ended):
    body, pos = b"", 0
    while True:
        eol = rest.find(b"\r\n", pos)
        size = int(rest[pos:eol].split(b";")[0] or b"0", 16) if eol >= 0 else None
        if size is None or len(rest) < eol + 2 + size + 2:
            return (Message(head, body, False), b"") if ended else (None, head + rest)
        if size == 0:
            return Message(head, body, True), rest[eol + 4:]
        body += rest[eol + 2:eol + 2 + size]
        pos = eol + 4 + size


class Reply:
    """Everything that a connection gave: its messages, the bytes after them, how it ended, who we were."""

    def __init__(self, data, methods, closed, client):
        self.data, self.closed, self.client = data, closed, client
        self.messages, rest = [], data
        for method in methods:
            message, rest = take_message(rest, method, bool(closed))
            if message is None:
                break
            self.messages.append(message)
        self.rest = rest

    @property
    def status(self):
        return self.messages[0].status if self.messages else 0

    @property
    def reason(self):
        return self.messages[0].reason if self.messages else None

    @property
    def body(self):
        return self.messages[0].body if self.messages else b""


def methods_of(data):
    """The methods of the requests in data, as far as a client knows (to read the answers)."""
    found = re.findall(rb"(?:^|[\r\n])([A-Z]+) [^\r\n]* HTTP/1", data)
    return [m.decode() for m in found] or ["GET"]


async def read_until(loop, sock, methods, seconds, linger):
    """Reads until the end, or until all answers are there and `linger` seconds more have passed without an end."""
    data, closed = b"", None
    end = loop.time() + seconds
    while closed is None and (left := end - loop.time()) > 0:
        try:
            more = await asyncio.wait_for(loop.sock_recv(sock, 262144), left)
        except asyncio.TimeoutError:
            break
        except OSError:
            closed = "reset"
            break
        if not more:
            closed = "eof"
        data += more
        if linger is not None and len(Reply(data, methods, None, "").messages) == len(methods):
            end, linger = min(end, loop.time() + linger), None
    return data, closed


async def talk(address, pieces, source=None, seconds=5.0, linger=None, methods=None, half_close=False):
    """pieces: bytes, or [(seconds to wait before, bytes)]. linger None: read until the other side ends (or time is over)."""
    loop = asyncio.get_running_loop()
    pieces = [(0, pieces)] if isinstance(pieces, (bytes, bytearray)) else pieces
    methods = methods or methods_of(b"".join(p for _, p in pieces))
    with contextlib.closing(socket.socket()) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((source, 0))
        await loop.sock_connect(sock, address)
        client = "%s:%d" % sock.getsockname()[:2]
        reading = asyncio.ensure_future(read_until(loop, sock, methods, seconds, linger))
        with contextlib.suppress(OSError):  # refused before all was said: the answer is what counts
            for wait, piece in pieces:
                if wait:
                    await asyncio.sleep(wait)
                if piece:
                    await asyncio.wait_for(loop.sock_sendall(sock, piece), seconds)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        data, closed = await reading
        return Reply(data, methods, closed, client)


def say(address, pieces, **options):
    """talk() for those who have no loop."""
    return asyncio.run(talk(address, pieces, **options))


async def gather(jobs, at_once):
    """Runs an iterator of coroutines, so many at once; results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(job):
        async with gate:
            return await job
    return await asyncio.gather(*(one(j) for j in jobs))


class Tunnel:
    """A blocking CONNECT tunnel for tests that look at it step by step."""

    def __init__(self, address, target, credential, seconds=10.0, early=b""):
        self.sock = socket.create_connection(address, seconds)
        self.client = "%s:%d" % self.sock.getsockname()[:2]
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: {credential}\r\n\r\n"
        self.sock.sendall(head.encode() + early)
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(4096)
            if not more:
                break
            data += more
        self.message, self.rest = take_message(data, "CONNECT", True)
        self.status = self.message.status if self.message else 0

    def send(self, data):
        self.sock.sendall(data)

    def read_exactly(self, n):
        data, self.rest = self.rest[:n], self.rest[n:]
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                break
            data += more
        return data

    def echo(self, data=b"ping"):
        self.send(data)
        return self.read_exactly(len(data)) == data

    def ended_within(self, seconds):
        """Seconds until the other side ends the tunnel, or None."""
        began = time.monotonic()
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                self.sock.settimeout(max(0.01, seconds - (time.monotonic() - began)))
        except socket.timeout:
            return None
        except OSError:
            pass
        return time.monotonic() - began

    def close(self):
        self.sock.close()
