"""Origins: servers that count connections and complete requests and keep the bytes that they saw."""
import asyncio
import errno
import re
import ssl
import time

from . import background


class Request:
    def __init__(self, head, body):
        self.head, self.body = head, body
        self.line = head.split(b"\r\n", 1)[0].decode("latin-1")
        self.method, self.path = (self.line.split(" ") + ["", ""])[:2]

    def field(self, name):
        m = re.search(rb"\r\n" + name.encode() + rb":[ \t]*([^\r\n]*)", self.head, re.I)
        return m[1].decode("latin-1") if m else None


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.peer = writer.get_extra_info("peername")
        self.seen = bytearray()
        self.requests = []
        self.ended = None  # "eof" or "reset"

    async def read(self, size=65536):
        try:
            data = await self.reader.read(size)
        except OSError:
            self.ended = "reset"
            return b""
        self.seen += data
        if not data:
            self.ended = "eof"
        return data


def chunked_end(data, pos):
    """Where a chunked body that begins at pos ends, its bytes; (None, b'') while it is incomplete."""
    body = b""
    while True:
        eol = data.find(b"\r\n", pos)
        if eol < 0:
            return None, b""
        size = int(re.match(rb"[0-9A-Fa-f]+", data[pos:eol])[0], 16)
        pos = eol + 2
        if size == 0:
            end = data.find(b"\r\n", pos) if data[pos:pos + 2] == b"\r\n" else data.find(b"\r\n\r\n", pos) + 2
            return (end + 2, body) if end >= pos else (None, b"")
        if len(data) < pos + size + 2:
            return None, b""
        body += data[pos:pos + size]
        pos += size + 2


def take_request(data):
    """(request, bytes used), or (None, 0) while it is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None, 0
    head = bytes(data[:end + 4])
    if re.search(rb"\r\ntransfer-encoding:", head, re.I):
        stop, body = chunked_end(bytes(data), end + 4)
        return (Request(head, body), stop) if stop else (None, 0)
    length = re.search(rb"\r\ncontent-length:[ \t]*(\d+)", head, re.I)
    stop = end + 4 + (int(length[1]) if length else 0)
    return (Request(head, bytes(data[end + 4:stop])), stop) if len(data) >= stop else (None, 0)


async def answer_ok(connection, request):
    body = b"" if request.method == "HEAD" else b"ok"
    connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\n" + body)


class Origin:
    """answer(connection, request) is a coroutine that writes; True as its result ends the connection.
    `serve` replaces HTTP altogether: a coroutine of one connection."""

    def __init__(self, address, port, answer=answer_ok, serve=None, tls=None):
        self.address, self.answer, self.serve = address, answer, serve or self._http
        self.connections = []
        context = tls if isinstance(tls, ssl.SSLContext) else None
        if tls and not context:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
        self._server = self._listen(address, port, context)
        self.port = self._server.sockets[0].getsockname()[1]

    def _listen(self, address, port, context):
        """The port may still be that of an origin that is closing, or for a moment that of somebody's connection."""
        for _ in range(50):
            try:
                return background.call(asyncio.start_server(self._accept, address, port, ssl=context, limit=1 << 20, backlog=4096))
            except OSError as e:
                if e.errno != errno.EADDRINUSE:
                    raise
                time.sleep(0.1)
        raise OSError(errno.EADDRINUSE, f"{address}:{port} stays in use")

    def accepted(self):
        return len(self.connections)

    def complete(self):
        return sum(len(c.requests) for c in self.connections)

    def open_now(self):
        return sum(c.ended is None for c in self.connections)

    def seen_since(self, mark):
        return b"".join(bytes(c.seen) for c in self.connections[mark:])

    def requests(self):
        return [r for c in self.connections for r in c.requests]

    async def _accept(self, reader, writer):
        connection = Connection(reader, writer)
        self.connections.append(connection)
        try:
            await self.serve(connection)
        except OSError:
            connection.ended = connection.ended or "reset"
        finally:
            connection.ended = connection.ended or "closed"
            writer.close()

    async def _http(self, connection):
        data, invited = bytearray(), False
        while True:
            request, used = take_request(data)
            if request is None:
                if not invited and re.search(rb"\r\nexpect:[ \t]*100-continue\r\n(.*\r\n)*\r\n", data, re.I):
                    connection.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    invited = True
                more = await connection.read()
                if not more:
                    return
                data += more
                continue
            del data[:used]
            invited = False
            connection.requests.append(request)
            if await self.answer(connection, request):
                await connection.writer.drain()
                return

    def close(self):
        background.loop.call_soon_threadsafe(self._server.close)


async def echo(connection):
    """Sends back what comes in; ends when the other side has ended."""
    while data := await connection.read():
        connection.writer.write(data)
        await connection.writer.drain()
    connection.writer.write_eof()
