"""HTTP/2 by hand, for what no client sends: frames, header blocks without compression, and a reader of frames."""
import socket
import ssl
import struct
import threading

from . import inner

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 0x20
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR,
 CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(*fields):
    out = b""
    for name, value in fields:
        n, v = name.encode("latin1"), value.encode("latin1")
        out += b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v
    return out


def request(authority, path="/", method="GET", scheme="https", *more):
    return block((":method", method), (":scheme", scheme), (":authority", authority), (":path", path), *more)


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in pairs))


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings()


class Frames:
    """Frames of a socket, either side."""

    def __init__(self, s, data=b""):
        self.socket, self.data, self.ended = s, data, False

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def next(self):
        """(type, flags, stream, payload); None at the end, or when the socket's time is over."""
        while len(self.data) < 9 or len(self.data) < 9 + int.from_bytes(self.data[:3], "big"):
            try:
                more = self.socket.recv(65536)
                self.ended = not more
            except TimeoutError:
                more = b""
            except (OSError, ssl.SSLError):
                more, self.ended = b"", True
            if not more:
                return None
            self.data += more
        n = int.from_bytes(self.data[:3], "big")
        found = (self.data[3], self.data[4], int.from_bytes(self.data[5:9], "big") & 0x7FFFFFFF, self.data[9:9 + n])
        self.data = self.data[9 + n:]
        return found

    def frames(self, until):
        """All frames up to the first that `until` accepts, or to the end."""
        got = []
        while (f := self.next()) is not None:
            got.append(f)
            if until(f):
                break
        return got

    def close(self):
        self.socket.close()


class Client(Frames):
    """One HTTP/2 connection inside an inspected tunnel, from the client's preface on."""

    def __init__(self, gate, ca, host, sub, seconds=10, preface=PREFACE):
        context = inner.trusting(ca, ["h2"])
        inside = inner.Inside(gate.address, f"{host}:443", gate.credential(sub), context, seconds=seconds)
        alpn = inside.tls.selected_alpn_protocol()
        if alpn != "h2":
            inside.close()
            raise OSError(f"ALPN: {alpn}")
        inside.tls.settimeout(seconds)
        super().__init__(inside.tls)
        self.send(preface)

    def answer(self, stream):
        """(header block, body, code of a reset or of a GOAWAY that is none of the polite kind, else None) of one stream."""
        head, body = b"", b""
        for kind, flags, sid, data in iter(self.next, None):
            if kind == GOAWAY and data[4:8] != bytes(4):
                return head, body, int.from_bytes(data[4:8], "big")
            if sid != stream:
                continue
            if kind == RST_STREAM:
                return head, body, int.from_bytes(data, "big")
            if kind == HEADERS:
                head += data
            elif kind == DATA:
                body += data
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                break
        return head, body, None


class Server:
    """A TLS server of HTTP/2 that does what `serve(connection, number)` says with each connection, in a thread: a Frames behind the
    client's preface."""

    def __init__(self, address, certificate, serve):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.context.set_alpn_protocols(["h2"])
        self.serve, self.count, self.seen = serve, 0, []
        self.listener = socket.create_server((address, 443))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self.handle, args=(s, self.count), daemon=True).start()

    def handle(self, s, number):
        try:
            s.settimeout(20)
            with self.context.wrap_socket(s, server_side=True) as tls:
                preface = b""
                while len(preface) < 24:
                    more = tls.recv(24 - len(preface))
                    if not more:
                        return
                    preface += more
                self.serve(Frames(tls), number)
        except OSError:
            s.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # a thread that accepts would keep the address
        self.listener.close()
