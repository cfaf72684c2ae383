#!/usr/bin/env python3
"""What RFC 9113 and RFC 7541 ask of an HTTP/2 peer, through a real gate: as a server towards clients, as a client towards servers. Rows are
named as the public conformance suite h2spec numbers its cases (part/section/case), so that none of them is left out."""
import os
import shutil
import struct
import tempfile
import threading

from harness import netns
netns.enter()
from harness import cases, h2
from harness import gate as gates
from harness.cases import Failed, case, equal, expect, report, table
from harness.h2 import (ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, PADDED,
                        PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, WITH_PRIORITY, block, frame, settings)
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-h2c-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
HOST, HOSTILE = "good.shop.example", "hostile.shop.example"
ADDRESS, HOSTILE_ADDRESS = "127.0.9.70", "127.0.9.71"
BODY = b"twelve bytes"
u32 = lambda n: struct.pack(">I", n)


# ---- the good upstream

def answer_all(connection, number):
    """200 and a body to each request that is whole; more streams than it takes at once wait for nobody."""
    connection.send(settings((3, 1000)))
    for kind, flags, stream, data in iter(connection.next, None):
        if kind == SETTINGS and not flags & ACK:
            connection.send(frame(SETTINGS, ACK, 0))
        elif kind == DATA and data:
            connection.send(frame(WINDOW_UPDATE, 0, 0, u32(len(data))) + frame(WINDOW_UPDATE, 0, stream, u32(len(data))))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            connection.send(frame(HEADERS, END_HEADERS, stream, b"\x88") + frame(DATA, END_STREAM, stream, BODY))


# ---- requests

def fields(method="GET", path="/", *more, authority=HOST, scheme="https"):
    return h2.request(authority, path, method, scheme, *more)


def get(stream=1, flags=END_STREAM | END_HEADERS):
    return frame(HEADERS, flags, stream, fields())


def post(stream=1, *more):
    return frame(HEADERS, END_HEADERS, stream, fields("POST", "/", *more))


def literal(how, name, value, huffman=False):
    """how: first byte with the index of the name, or a bare pattern and a name."""
    length = lambda s: bytes([len(s) | 0x80 * huffman]) + s
    return how + (length(name) if name else b"") + length(value)


HUFFMAN_KEY, HUFFMAN_VALUE = bytes.fromhex("25a849e95ba97d7f"), bytes.fromhex("25a849e95bb8e8b4bf")  # RFC 7541 appendix C.4.3
AGENT = {0x40: b"\x7a", 0x00: b"\x0f\x2b", 0x10: b"\x1f\x2b"}  # User-Agent, index 58


def with_block(extra, before=b""):
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, before + fields() + extra)


def hpack_good():
    rows = [("generic/5/1", "indexed fields", frame(HEADERS, 5, 1, b"\x82\x87\x84" + block((":authority", HOST))))]
    for n, how in ((2, 0x40), (6, 0x00), (10, 0x10)):
        rows += [(f"generic/5/{n}", f"literal {how:#x}, indexed name", with_block(literal(AGENT[how], b"", b"me"))),
                 (f"generic/5/{n + 1}", f"literal {how:#x}, indexed name, Huffman", with_block(literal(AGENT[how], b"", HUFFMAN_VALUE, True))),
                 (f"generic/5/{n + 2}", f"literal {how:#x}, new name", with_block(literal(bytes([how]), b"custom-key", b"custom-value"))),
                 (f"generic/5/{n + 3}", f"literal {how:#x}, new name, Huffman", with_block(literal(bytes([how]), HUFFMAN_KEY, HUFFMAN_VALUE, True)))]
    return rows + [("generic/5/14", "a table size update", with_block(b"", b"\x3f\xe1\x1f")), ("generic/5/15", "two of them", with_block(b"", b"\x20\x3f\xe1\x1f"))]


CLOSED = object()  # after the answer


# What a client may send, and is answered for on stream 1 (or the one that is named).
GOOD = [
    ("generic/1/1", "a preface and a request", get()),
    ("generic/2/1", "PRIORITY on an idle stream", frame(PRIORITY, 0, 1, u32(0) + b"\xff") + get()),
    ("generic/2/2", "WINDOW_UPDATE on a half-closed stream", get() + frame(WINDOW_UPDATE, 0, 1, u32(100))),
    ("generic/2/3", "PRIORITY on a half-closed stream", get() + frame(PRIORITY, 0, 1, u32(0) + b"\x10")),
    ("generic/2/4", "RST_STREAM on a half-closed stream, then another request", get() + frame(RST_STREAM, 0, 1, u32(CANCEL)) + get(3), 3),
    ("generic/2/5", "PRIORITY on a closed stream", [get(), CLOSED, frame(PRIORITY, 0, 1, u32(0) + b"\x10") + get(3)], 3),
    ("generic/3.1/1", "DATA", post() + frame(DATA, END_STREAM, 1, b"test")),
    ("generic/3.1/2", "DATA in pieces", post() + frame(DATA, 0, 1, b"test") + frame(DATA, END_STREAM, 1, b"test")),
    ("generic/3.1/3", "DATA with padding", post() + frame(DATA, END_STREAM | PADDED, 1, b"\x05test" + bytes(5))),
    ("generic/3.2/2", "HEADERS with padding", frame(HEADERS, 5 | PADDED, 1, b"\x05" + fields() + bytes(5))),
    ("generic/3.2/3", "HEADERS with a priority", frame(HEADERS, 5 | WITH_PRIORITY, 1, u32(0) + b"\xff" + fields())),
    ("generic/3.3/2", "PRIORITY of 256", frame(PRIORITY, 0, 1, u32(0) + b"\xff") + get()),
    ("generic/3.3/3", "PRIORITY with a dependency", frame(PRIORITY, 0, 1, u32(0) + b"\xff") + frame(PRIORITY, 0, 3, u32(1) + b"\xff") + get()),
    ("generic/3.3/4", "PRIORITY, exclusive", frame(PRIORITY, 0, 3, u32(1 | 1 << 31) + b"\xff") + get()),
    ("generic/3.3/5", "PRIORITY of an idle stream, then a lower one", frame(PRIORITY, 0, 99, u32(0) + b"\xff") + get()),
    ("generic/3.5/1", "SETTINGS", settings((3, 100), (4, 70000)) + get()),
    ("generic/3.8/1", "GOAWAY", get() + frame(GOAWAY, 0, 0, u32(0) + u32(0))),
    ("generic/3.9/1", "WINDOW_UPDATE of the connection", frame(WINDOW_UPDATE, 0, 0, u32(1)) + get()),
    ("generic/3.9/2", "WINDOW_UPDATE of a stream", post() + frame(WINDOW_UPDATE, 0, 1, u32(1)) + frame(DATA, END_STREAM, 1)),
    ("generic/3.10/1", "CONTINUATION", frame(HEADERS, END_STREAM, 1, fields()[:20]) + frame(CONTINUATION, END_HEADERS, 1, fields()[20:])),
    ("generic/3.10/2", "CONTINUATION twice", frame(HEADERS, END_STREAM, 1, fields()[:9]) + frame(CONTINUATION, 0, 1, fields()[9:20]) + frame(CONTINUATION, END_HEADERS, 1, fields()[20:])),
    ("generic/4/3", "POST", post() + frame(DATA, END_STREAM, 1, b"test")),
    ("generic/4/4", "POST with trailers", post(1, ("trailer", "x-test")) + frame(DATA, 0, 1, b"test") + frame(HEADERS, 5, 1, block(("x-test", "ok")))),
    *hpack_good(),
    # RFC 9113 section 5.1 has it both ways: such DATA may be thrown away.
    ("http2/5.1/8", "closed by RST_STREAM: DATA", post() + frame(RST_STREAM, 0, 1, u32(CANCEL)) + frame(DATA, END_STREAM, 1, b"test") + get(3), 3),
    ("http2/5.1/11", "closed: DATA", [get(), CLOSED, frame(DATA, END_STREAM, 1, b"test") + get(3)], 3),
    ("http2/4.1/1", "a frame of unknown type", frame(0xbe, 0, 0, b"whatever") + get()),
    ("http2/4.1/2", "undefined flags", frame(PING, 0x16, 0, bytes(8)) + get()),
    ("http2/4.1/3", "the reserved bit", frame(PING, 0, 1 << 31, bytes(8)) + get()),
    ("http2/4.2/1", "DATA of 2^14 bytes", post() + frame(DATA, END_STREAM, 1, bytes(16384))),
    ("http2/5.5/1", "an unknown frame on a stream", post() + frame(0xbe, 0xff, 1, b"whatever") + frame(DATA, END_STREAM, 1)),
    ("http2/6.5.2/5", "an unknown setting", settings((0xff, 1)) + get()),
    ("http2/6.5.3/1", "the last of two values counts", settings((4, 100), (4, 12)) + get()),
    ("http2/6.7/2", "a PING that nobody asked for is acknowledged", frame(PING, ACK, 0, b"unasked!") + get()),
    ("http2/6.10/1", "CONTINUATIONs", frame(HEADERS, END_STREAM, 1, fields()[:1]) + b"".join(frame(CONTINUATION, 0, 1, fields()[n:n + 8]) for n in range(1, 49, 8)) +
     frame(CONTINUATION, END_HEADERS, 1, fields()[49:])),
    ("http2/7/1", "GOAWAY with an unknown code", get() + frame(GOAWAY, 0, 0, u32(0) + u32(0xff))),
    ("http2/7/2", "RST_STREAM with an unknown code", post() + frame(RST_STREAM, 0, 1, u32(0xff)) + get(3), 3),
]

over = frame(WINDOW_UPDATE, 0, 0, u32(0x7fffffff)) * 2
half_closed = frame(HEADERS, END_STREAM | END_HEADERS, 1, fields("GET", "/"))
STREAM_OR_CONNECTION = ((RST_STREAM, STREAM_CLOSED), (GOAWAY, STREAM_CLOSED))
REFUSED = ((RST_STREAM, PROTOCOL_ERROR),)
ENDED = ((GOAWAY, PROTOCOL_ERROR),)
TOO_LONG = ((GOAWAY, FRAME_SIZE_ERROR),)
GARBLED = ((GOAWAY, COMPRESSION_ERROR),)


def bad_head(*pairs):
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, block(*pairs))


METHOD, SCHEME, AUTHORITY, PATH = (":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")
long_block = fields() + b"".join(b"\x00\x01a\x7f\xc5\x07" + bytes([97]) * 1092 for _ in range(16))

# What it must not send: the errors that the standard leaves to choose from.
BAD = [
    ("http2/4.2/2", "DATA over SETTINGS_MAX_FRAME_SIZE", post() + frame(DATA, END_STREAM, 1, bytes(16385)), TOO_LONG),
    ("http2/4.2/3", "HEADERS over SETTINGS_MAX_FRAME_SIZE", frame(HEADERS, 5, 1, long_block), TOO_LONG),
    ("http2/4.3/1", "a header block that cannot be decoded", frame(HEADERS, 5, 1, b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff"), GARBLED),
    ("http2/4.3/2", "PRIORITY inside a header block", frame(HEADERS, END_STREAM, 1, fields()) + frame(PRIORITY, 0, 1, u32(0) + b"\xff"), ENDED),
    ("http2/4.3/3", "HEADERS of another stream inside a header block", frame(HEADERS, END_STREAM, 1, fields()) + get(3), ENDED),
    ("http2/5.1/1", "idle: DATA", frame(DATA, END_STREAM, 1, b"test"), ENDED),
    ("http2/5.1/2", "idle: RST_STREAM", frame(RST_STREAM, 0, 1, u32(CANCEL)), ENDED),
    ("http2/5.1/3", "idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, u32(100)), ENDED),
    ("http2/5.1/4", "idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, fields()), ENDED),
    ("http2/5.1/5", "half-closed: DATA", half_closed + frame(DATA, END_STREAM, 1, b"test"), STREAM_OR_CONNECTION),
    ("http2/5.1/6", "half-closed: HEADERS", half_closed + get(), STREAM_OR_CONNECTION),
    ("http2/5.1/7", "half-closed: CONTINUATION", half_closed + frame(CONTINUATION, END_HEADERS, 1, fields()), ENDED + STREAM_OR_CONNECTION),
    ("http2/5.1/9", "closed by RST_STREAM: HEADERS", post() + frame(RST_STREAM, 0, 1, u32(CANCEL)) + get(), STREAM_OR_CONNECTION + ENDED),
    ("http2/5.1/10", "closed by RST_STREAM: CONTINUATION", post() + frame(RST_STREAM, 0, 1, u32(CANCEL)) + frame(CONTINUATION, END_HEADERS, 1, fields()), STREAM_OR_CONNECTION + ENDED),
    ("http2/5.1/12", "closed: HEADERS", [get(), CLOSED, get()], STREAM_OR_CONNECTION + ENDED),
    ("http2/5.1/13", "closed: CONTINUATION", [get(), CLOSED, frame(CONTINUATION, END_HEADERS, 1, fields())], STREAM_OR_CONNECTION + ENDED),
    ("http2/5.1.1/1", "an even stream", get(2), ENDED),
    ("http2/5.1.1/2", "a lower stream", get(5) + get(3), ENDED),
    ("http2/5.3.1/1", "HEADERS that depend on themselves", frame(HEADERS, 5 | WITH_PRIORITY, 1, u32(1) + b"\xff" + fields()), REFUSED + ENDED),
    ("http2/5.4.1/1", "after an error the connection is closed", frame(PING, 0, 3, bytes(8)), ENDED),
    ("http2/5.5/2", "an unknown frame inside a header block", frame(HEADERS, END_STREAM, 1, fields()) + frame(0xbe, 0, 1, b"whatever"), ENDED),
    ("http2/6.1/1", "DATA on stream 0", frame(DATA, END_STREAM, 0, b"test"), ENDED),
    ("http2/6.1/2", "DATA on a stream that is not open", half_closed + frame(DATA, END_STREAM, 1, b"test"), STREAM_OR_CONNECTION),
    ("http2/6.1/3", "DATA with too much padding", post() + frame(DATA, END_STREAM | PADDED, 1, b"\x06test"), ENDED),
    ("http2/6.2/1", "HEADERS without END_HEADERS, then PRIORITY", frame(HEADERS, 0, 1, fields()) + frame(PRIORITY, 0, 1, u32(0) + b"\xff"), ENDED),
    ("http2/6.2/2", "HEADERS without END_HEADERS, then HEADERS of another", frame(HEADERS, 0, 1, fields()) + get(3), ENDED),
    ("http2/6.2/3", "HEADERS on stream 0", get(0), ENDED),
    ("http2/6.2/4", "HEADERS with too much padding", frame(HEADERS, 5 | PADDED, 1, b"\xff" + fields()), ENDED),
    ("http2/6.3/1", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, u32(0) + b"\xff"), ENDED),
    ("http2/6.3/2", "PRIORITY of another length", post() + frame(PRIORITY, 0, 1, bytes(2)), TOO_LONG + ((RST_STREAM, FRAME_SIZE_ERROR),)),
    ("http2/6.4/1", "RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, u32(CANCEL)), ENDED),
    ("http2/6.4/2", "RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, u32(CANCEL)), ENDED),
    ("http2/6.4/3", "RST_STREAM of another length", post() + frame(RST_STREAM, 0, 1, bytes(3)), TOO_LONG),
    ("http2/6.5/1", "SETTINGS acknowledged with a payload", frame(SETTINGS, ACK, 0, b"\0"), TOO_LONG),
    ("http2/6.5/2", "SETTINGS on a stream", frame(SETTINGS, 0, 1, struct.pack(">HI", 3, 100)), ENDED),
    ("http2/6.5/3", "SETTINGS of another length", frame(SETTINGS, 0, 0, bytes(3)), TOO_LONG),
    ("http2/6.5.2/1", "SETTINGS_ENABLE_PUSH of 2", settings((2, 2)), ENDED),
    ("http2/6.5.2/2", "SETTINGS_INITIAL_WINDOW_SIZE of 2^31", settings((4, 1 << 31)), ((GOAWAY, FLOW_CONTROL_ERROR),)),
    ("http2/6.5.2/3", "SETTINGS_MAX_FRAME_SIZE too small", settings((5, 16383)), ENDED),
    ("http2/6.5.2/4", "SETTINGS_MAX_FRAME_SIZE too large", settings((5, 16777216)), ENDED),
    ("http2/6.7/3", "PING on a stream", frame(PING, 0, 1, bytes(8)), ENDED),
    ("http2/6.7/4", "PING of another length", frame(PING, 0, 0, bytes(6)), TOO_LONG),
    ("http2/6.8/1", "GOAWAY on a stream", frame(GOAWAY, 0, 1, u32(0) + u32(0)), ENDED),
    ("http2/6.9/1", "WINDOW_UPDATE of 0 for the connection", frame(WINDOW_UPDATE, 0, 0, u32(0)), ENDED),
    ("http2/6.9/2", "WINDOW_UPDATE of 0 for a stream", post() + frame(WINDOW_UPDATE, 0, 1, u32(0)), ENDED + REFUSED),
    ("http2/6.9/3", "WINDOW_UPDATE of another length", frame(WINDOW_UPDATE, 0, 0, bytes(3)), TOO_LONG),
    ("http2/6.9.1/2", "WINDOW_UPDATEs beyond 2^31-1 for the connection", over, ((GOAWAY, FLOW_CONTROL_ERROR),)),
    ("http2/6.9.1/3", "WINDOW_UPDATEs beyond 2^31-1 for a stream", post() + frame(WINDOW_UPDATE, 0, 1, u32(0x7fffffff)) * 2, ((RST_STREAM, FLOW_CONTROL_ERROR),)),
    ("http2/6.9.2/3", "SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1", settings((4, 0xffffffff)), ((GOAWAY, FLOW_CONTROL_ERROR),)),
    ("http2/6.10/2", "CONTINUATION, then another frame", frame(HEADERS, END_STREAM, 1, fields()[:9]) + frame(CONTINUATION, 0, 1, fields()[9:]) + frame(DATA, END_STREAM, 1, b"x"), ENDED),
    ("http2/6.10/3", "CONTINUATION on stream 0", frame(HEADERS, END_STREAM, 1, fields()[:9]) + frame(CONTINUATION, END_HEADERS, 0, fields()[9:]), ENDED),
    ("http2/6.10/4", "CONTINUATION behind END_HEADERS", half_closed + frame(CONTINUATION, END_HEADERS, 1, b""), ENDED),
    ("http2/6.10/5", "CONTINUATION behind a CONTINUATION with END_HEADERS", frame(HEADERS, 0, 1, fields()) + frame(CONTINUATION, END_HEADERS, 1) * 2, ENDED),
    ("http2/6.10/6", "CONTINUATION behind DATA", post() + frame(DATA, 0, 1, b"test") + frame(CONTINUATION, END_HEADERS, 1, fields()), ENDED),
    ("http2/8.1/1", "a second head without END_STREAM", post() + frame(DATA, 0, 1, b"test") + frame(HEADERS, END_HEADERS, 1, block(("x-test", "ok"))), REFUSED),
    ("http2/8.1.2/1", "upper case", bad_head(METHOD, SCHEME, AUTHORITY, PATH, ("X-TEST", "ok")), REFUSED),
    ("http2/8.1.2.1/1", "an unknown pseudo-header field", bad_head(METHOD, SCHEME, AUTHORITY, PATH, (":test", "ok")), REFUSED),
    ("http2/8.1.2.1/2", "a pseudo-header field of responses", bad_head(METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")), REFUSED),
    ("http2/8.1.2.1/3", "a pseudo-header field as trailer", post() + frame(DATA, 0, 1, b"test") + frame(HEADERS, 5, 1, block((":method", "200"))), REFUSED),
    ("http2/8.1.2.1/4", "a pseudo-header field behind a regular one", bad_head(METHOD, SCHEME, AUTHORITY, ("x-test", "ok"), PATH), REFUSED),
    ("http2/8.1.2.2/1", "Connection", bad_head(METHOD, SCHEME, AUTHORITY, PATH, ("connection", "keep-alive")), REFUSED),
    ("http2/8.1.2.2/2", "TE other than trailers", bad_head(METHOD, SCHEME, AUTHORITY, PATH, ("te", "trailers, deflate;q=0.5")), REFUSED),
    ("http2/8.1.2.3/1", "an empty :path", bad_head(METHOD, SCHEME, AUTHORITY, (":path", "")), REFUSED),
    ("http2/8.1.2.3/2", "no :method", bad_head(SCHEME, AUTHORITY, PATH), REFUSED),
    ("http2/8.1.2.3/3", "no :scheme", bad_head(METHOD, AUTHORITY, PATH), REFUSED),
    ("http2/8.1.2.3/4", "no :path", bad_head(METHOD, SCHEME, AUTHORITY), REFUSED),
    ("http2/8.1.2.3/5", ":method twice", bad_head(METHOD, METHOD, SCHEME, AUTHORITY, PATH), REFUSED),
    ("http2/8.1.2.3/6", ":scheme twice", bad_head(METHOD, SCHEME, SCHEME, AUTHORITY, PATH), REFUSED),
    ("http2/8.1.2.3/7", ":path twice", bad_head(METHOD, SCHEME, AUTHORITY, PATH, PATH), REFUSED),
    ("http2/8.1.2.6/1", "Content-Length that is not the length", post(1, ("content-length", "1")) + frame(DATA, END_STREAM, 1, b"test"), REFUSED),
    ("http2/8.1.2.6/2", "Content-Length that is not the sum", post(1, ("content-length", "1")) + frame(DATA, 0, 1, b"test") + frame(DATA, END_STREAM, 1, b"test"), REFUSED),
    ("http2/8.2/1", "PUSH_PROMISE of a client", post() + frame(PUSH_PROMISE, END_HEADERS, 1, u32(3) + fields()), ENDED),
    ("hpack/2.3.3/1", "an index beyond the tables", with_block(b"\xff\x46"), GARBLED),
    ("hpack/2.3.3/2", "a name's index beyond the tables", with_block(literal(b"\x7f\x46", b"", b"empty")), GARBLED),
    ("hpack/4.2/1", "a table size update behind fields", with_block(b"\x3f\xe1\x1f"), GARBLED),
    ("hpack/5.2/1", "Huffman padding of more than 7 bits", with_block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"), GARBLED),
    ("hpack/5.2/2", "Huffman padding of zeros", with_block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"), GARBLED),
    ("hpack/5.2/3", "Huffman with EOS", with_block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"), GARBLED),
    ("hpack/6.1/1", "index 0", with_block(b"\x80"), GARBLED),
    ("hpack/6.3/1", "a table size over the limit", with_block(b"", b"\x3f\xe2\x1f"), GARBLED),
]


class Conversation(h2.Client):
    def __init__(self, ident, host=HOST, preface=h2.PREFACE):
        super().__init__(gate, os.path.join(FOLDER, "ca/ca.pem"), host, "".join(c if c.isalnum() else "-" for c in ident), 5, preface)

    def say(self, data, stream=1):
        for piece in data if isinstance(data, list) else [data]:
            if piece is CLOSED:
                is_answered(self, stream if stream == 1 else 1)
            else:
                self.send(piece)


def is_answered(connection, stream):
    head, body, code = connection.answer(stream)
    expect(code is None and head[:1] == b"\x88" and body == BODY, f"stream {stream}: head {head!r}, body {body!r}, code {code}")


def error_of(frames):
    """The first error, and the connection's end where it is one of the connection."""
    for kind, flags, stream, data in frames:
        if kind == RST_STREAM:
            return kind, int.from_bytes(data, "big")
        if kind == GOAWAY and data[4:8] != bytes(4):
            return kind, int.from_bytes(data[4:8], "big")
    return None


@table
def good_clients():
    for ident, title, data, *stream in GOOD:
        stream = stream[0] if stream else 1
        why = None
        try:
            c = Conversation(ident)
            c.say(data, stream)
            is_answered(c, stream)
            c.close()
        except (OSError, Failed) as e:
            why = e
        report(f"{ident} {title}", why)


@table
def bad_clients():
    for ident, title, data, allowed in BAD:
        why = None
        try:
            c = Conversation(ident)
            c.say(data)
            frames = c.frames(lambda f: error_of([f]))
            found = error_of(frames)
            if found not in allowed:
                why = f"{found}, expected one of {allowed}"
            elif found[0] == GOAWAY:
                c.frames(lambda f: False)
                why = None if c.ended else "the connection is not closed"
            c.close()
        except (OSError, Failed) as e:
            why = e
        report(f"{ident} {title}", why)


# ---- cases that are a conversation

@case
def http2_3_5_prefaces():
    c = Conversation("3.5/1")
    kind, flags, stream, data = c.next()
    equal((kind, flags & ACK, stream), (SETTINGS, 0, 0), "the first frame of a server")
    c.close()
    c = Conversation("3.5/2", preface=b"INVALID CONNECTION PREFACE\r\n\r\n")
    c.frames(lambda f: False)
    expect(c.ended, "a wrong preface does not end the connection")


@case
def generic_4_head():
    c = Conversation("generic/4/2")
    c.send(frame(HEADERS, 5, 1, fields("HEAD")))
    expect(c.answer(1)[0][:1] == b"\x88", "HEAD")
    c.close()


@case
def generic_3_pings_and_settings_are_acknowledged():
    c = Conversation("generic/3.7/1 http2/6.7/1 http2/6.5.3/2")
    expect(c.frames(lambda f: f[0] == SETTINGS and f[1] & ACK)[-1][3] == b"", "SETTINGS")
    c.send(frame(PING, 0, 0, b"h2spec?!"))
    equal(c.frames(lambda f: f[0] == PING)[-1], (PING, ACK, 0, b"h2spec?!"), "PING")
    c.close()


@case
def http2_5_1_2_streams_are_limited():
    c = Conversation("5.1.2/1", HOSTILE)
    hostile.say = b""  # nothing is answered
    c.send(frame(SETTINGS, ACK, 0) + b"".join(frame(HEADERS, 5, 1 + 2 * n, fields(authority=HOSTILE)) for n in range(200)))
    found = error_of(c.frames(lambda f: error_of([f])))
    expect(found in ((RST_STREAM, REFUSED_STREAM), (RST_STREAM, PROTOCOL_ERROR), (GOAWAY, PROTOCOL_ERROR)), found)
    c.close()


@case
def http2_5_3_1_priority_on_itself_is_ignored():
    """The one case in which RFC 9113 asks for less: the priorities of RFC 7540 are switched off, and PRIORITY is not judged."""
    c = Conversation("5.3.1/2")
    c.send(frame(PRIORITY, 0, 3, u32(3) + b"\xff") + get())
    is_answered(c, 1)
    c.close()


@case
def http2_6_9_windows():
    c = Conversation("6.9.1/1")
    c.send(settings((4, 1)) + get())
    is_data = lambda f: f[0] == DATA
    equal(c.frames(is_data)[-1][3], BODY[:1], "a window of one byte")
    c.send(settings((4, 3)))
    equal(c.frames(is_data)[-1][3], BODY[1:3], "6.9.2/1: a window that was made larger")
    c.send(settings((4, 0)) + frame(WINDOW_UPDATE, 0, 1, u32(3)) + frame(PING, 0, 0, bytes(8)))
    expect(not [f for f in c.frames(lambda f: f[0] == PING) if is_data(f)], "6.9.2/2: data through a window below zero")
    c.send(frame(WINDOW_UPDATE, 0, 1, u32(1)))
    equal(c.frames(is_data)[-1][3], BODY[3:4], "one byte above zero")
    c.close()


# ---- the gate as a client

class Hostile:
    """Says what it was told to when the first request comes, and keeps what it is told."""

    def __init__(self):
        self.say, self.first, self.heard, self.over = b"", None, [], threading.Event()

    def __call__(self, connection, number):
        connection.send(self.first if self.first is not None else settings())
        say, heard, over = self.say, self.heard, self.over
        for f in iter(connection.next, None):
            heard.append(f)
            if f[0] == HEADERS and f[2] == 1 and say:
                connection.send(say)
            if f[0] == SETTINGS and not f[1] & ACK:
                connection.send(frame(SETTINGS, ACK, 0))
        over.set()

    def prepare(self, say, first=None):
        self.say, self.first, self.heard, self.over = say, first, [], threading.Event()


ok = frame(HEADERS, END_HEADERS, 1, b"\x88")
whole = ok + frame(DATA, END_STREAM, 1, BODY)

# What a server may not send; what it is told, and the client gets 502 or a reset.
BAD_SERVERS = [
    ("client/1/1", "no SETTINGS at first", b"", ENDED, frame(PING, 0, 0, bytes(8))),
    ("client/4.2/2", "DATA over SETTINGS_MAX_FRAME_SIZE", ok + frame(DATA, END_STREAM, 1, bytes(16385)), TOO_LONG),
    ("client/4.2/3", "HEADERS over SETTINGS_MAX_FRAME_SIZE", frame(HEADERS, 5, 1, b"\x88" + long_block), TOO_LONG),
    ("client/4.3/1", "a header block that cannot be decoded", frame(HEADERS, 5, 1, b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff"), GARBLED),
    ("client/4.3/2", "PRIORITY inside a header block", frame(HEADERS, 0, 1, b"\x88") + frame(PRIORITY, 0, 1, u32(0) + b"\xff"), ENDED),
    ("client/4.3/3", "HEADERS of another stream inside a header block", frame(HEADERS, 0, 1, b"\x88") + frame(HEADERS, 5, 3, b"\x88"), ENDED),
    ("client/5.1/1", "idle: DATA", frame(DATA, END_STREAM, 5, b"test"), ENDED),
    ("client/5.1/2", "idle: RST_STREAM", frame(RST_STREAM, 0, 5, u32(CANCEL)), ENDED),
    ("client/5.1/3", "idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 5, u32(100)), ENDED),
    ("client/5.1/4", "idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 5, b"\x88"), ENDED),
    ("client/5.1.1/1", "HEADERS on a stream of the server's", frame(HEADERS, 5, 2, b"\x88"), ENDED),
    ("client/5.4.1/1", "PING of another length", frame(PING, 0, 0, bytes(6)), TOO_LONG),
    ("client/5.5/2", "an unknown frame inside a header block", frame(HEADERS, 0, 1, b"\x88") + frame(0xbe, 0, 1, b"whatever"), ENDED),
    ("client/6.1/1", "DATA on stream 0", frame(DATA, 0, 0, b"test"), ENDED),
    ("client/6.1/3", "DATA with too much padding", ok + frame(DATA, END_STREAM | PADDED, 1, b"\x06test"), ENDED),
    ("client/6.1/4", "DATA before the head", frame(DATA, END_STREAM, 1, b"test"), ENDED + REFUSED),
    ("client/6.2/3", "HEADERS on stream 0", frame(HEADERS, 5, 0, b"\x88"), ENDED),
    ("client/6.2/4", "HEADERS with too much padding", frame(HEADERS, 5 | PADDED, 1, b"\xff\x88"), ENDED),
    ("client/6.3/1", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, u32(0) + b"\xff"), ENDED),
    ("client/6.3/2", "PRIORITY of another length", frame(PRIORITY, 0, 1, bytes(2)), TOO_LONG + ((RST_STREAM, FRAME_SIZE_ERROR),)),
    ("client/6.4/1", "RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, u32(CANCEL)), ENDED),
    ("client/6.4/3", "RST_STREAM of another length", frame(RST_STREAM, 0, 1, bytes(3)), TOO_LONG),
    ("client/6.5/1", "SETTINGS acknowledged with a payload", frame(SETTINGS, ACK, 0, b"\0"), TOO_LONG),
    ("client/6.5/2", "SETTINGS on a stream", frame(SETTINGS, 0, 1, struct.pack(">HI", 3, 100)), ENDED),
    ("client/6.5/3", "SETTINGS of another length", frame(SETTINGS, 0, 0, bytes(3)), TOO_LONG),
    ("client/6.5.2/1", "SETTINGS_ENABLE_PUSH of 1", settings((2, 1)), ENDED),
    ("client/6.5.2/2", "SETTINGS_INITIAL_WINDOW_SIZE of 2^31", settings((4, 1 << 31)), ((GOAWAY, FLOW_CONTROL_ERROR),)),
    ("client/6.5.2/3", "SETTINGS_MAX_FRAME_SIZE too small", settings((5, 16383)), ENDED),
    ("client/6.5.2/4", "SETTINGS_MAX_FRAME_SIZE too large", settings((5, 16777216)), ENDED),
    ("client/6.7/3", "PING on a stream", frame(PING, 0, 1, bytes(8)), ENDED),
    ("client/6.8/1", "GOAWAY on a stream", frame(GOAWAY, 0, 1, u32(0) + u32(0)), ENDED),
    ("client/6.9/1", "WINDOW_UPDATE of 0 for the connection", frame(WINDOW_UPDATE, 0, 0, u32(0)), ENDED),
    ("client/6.9/2", "WINDOW_UPDATE of 0 for a stream", frame(WINDOW_UPDATE, 0, 1, u32(0)), ENDED + REFUSED),
    ("client/6.9/3", "WINDOW_UPDATE of another length", frame(WINDOW_UPDATE, 0, 0, bytes(3)), TOO_LONG),
    ("client/6.9.1/1", "WINDOW_UPDATEs beyond 2^31-1 for the connection", over, ((GOAWAY, FLOW_CONTROL_ERROR),)),
    ("client/6.9.1/2", "WINDOW_UPDATEs beyond 2^31-1 for a stream", frame(WINDOW_UPDATE, 0, 1, u32(0x7fffffff)) * 2, ((RST_STREAM, FLOW_CONTROL_ERROR),)),
    ("client/6.10/3", "CONTINUATION on stream 0", frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, END_HEADERS, 0, b""), ENDED),
    ("client/6.10/4", "CONTINUATION behind END_HEADERS", ok + frame(CONTINUATION, END_HEADERS, 1, b""), ENDED),
    ("client/6.10/6", "CONTINUATION behind DATA", ok + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1, b""), ENDED),
    ("client/push", "PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + fields(authority=HOSTILE)), ENDED + ((RST_STREAM, CANCEL), (RST_STREAM, REFUSED_STREAM))),
    ("client/hpack/2.3.3", "an index beyond the tables", frame(HEADERS, 5, 1, b"\x88\xff\x46"), GARBLED),
    ("client/hpack/4.2", "a table size update behind fields", frame(HEADERS, 5, 1, b"\x88\x3f\xe1\x1f"), GARBLED),
    ("client/hpack/6.1", "index 0", frame(HEADERS, 5, 1, b"\x88\x80"), GARBLED),
    ("client/hpack/6.3", "a table size over the limit", frame(HEADERS, 5, 1, b"\x3f\xe2\x1f\x88"), GARBLED),
]

# And what it may.
GOOD_SERVERS = [
    ("client/4.1/1", "a frame of unknown type", frame(0xbe, 0, 0, b"whatever") + whole),
    ("client/4.1/2", "undefined flags", frame(PING, 0x16, 0, bytes(8)) + whole),
    ("client/4.1/3", "the reserved bit", frame(PING, 0, 1 << 31, bytes(8)) + whole),
    ("client/4.2/1", "DATA with padding", ok + frame(DATA, END_STREAM | PADDED, 1, b"\x07" + BODY + bytes(7))),
    ("client/5.5/1", "an unknown frame on a stream", ok + frame(0xbe, 0xff, 1, b"whatever") + frame(DATA, END_STREAM, 1, BODY)),
    ("client/6.5.2/5", "an unknown setting", settings((0xff, 1)) + whole),
    ("client/6.7/1", "an unasked acknowledgement of PING", frame(PING, ACK, 0, bytes(8)) + whole),
    ("client/6.10/1", "CONTINUATION", frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, END_HEADERS, 1, b"\x88") + frame(DATA, END_STREAM, 1, BODY)),
    ("client/7/1", "GOAWAY with an unknown code, behind the answer", whole + frame(GOAWAY, 0, 0, u32(1) + u32(0xff))),
    ("client/8.1", "an interim answer", frame(HEADERS, END_HEADERS, 1, block((":status", "103"))) + whole),
]


@table
def bad_servers():
    for ident, title, say, allowed, *first in BAD_SERVERS:
        why = None
        try:
            hostile.prepare(say, *first)
            c = Conversation(ident, HOSTILE)
            c.send(frame(HEADERS, 5, 1, fields(authority=HOSTILE)))
            head, body, code = c.answer(1)
            refused = b"upstream_closed" in body or code not in (None, 0)
            c.close()
            hostile.over.wait(5)
            found = error_of(hostile.heard)
            if not refused and found != (RST_STREAM, CANCEL):
                why = f"the client is not told: {head!r} {body!r} {code}"
            elif found not in allowed:
                why = f"the server is told {found}, expected one of {allowed}"
        except (OSError, Failed) as e:
            why = e
        report(f"{ident} {title}", why)


@table
def good_servers():
    for ident, title, say in GOOD_SERVERS:
        why = None
        try:
            hostile.prepare(say)
            c = Conversation(ident, HOSTILE)
            c.send(frame(HEADERS, 5, 1, fields(authority=HOSTILE)))
            head, body, code = c.answer(1)
            if body != BODY or code is not None:
                why = f"{head!r} {body!r} {code}"
            c.close()
        except (OSError, Failed) as e:
            why = e
        report(f"{ident} {title}", why)


@case
def the_gate_ends_well():
    gate.stop()


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    good.stop()
    bad.stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    hostile = Hostile()
    good = h2.Server(ADDRESS, CA.leaf(HOST, file="good"), answer_all)
    bad = h2.Server(HOSTILE_ADDRESS, CA.leaf(HOSTILE, file="hostile"), hostile)
    gate = gates.Gate({"default": gates.limited(HOST, HOSTILE, inspect={"mode": "all"})},
                      {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca")},
                       "upstream": {"hosts": {HOST: [ADDRESS], HOSTILE: [HOSTILE_ADDRESS]}, "ca_file": CA.path, "allow_addresses": ["127.0.9.0/24"]}}).start()
    cases.at_end(clean_up)
    cases.main()
