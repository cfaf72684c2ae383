#!/usr/bin/env python3
"""Responses of a hostile origin, whole and in pieces: what the client gets, and that nothing left over reaches the next request."""
import asyncio
import socket
import struct

from harness import netns
netns.enter()
from harness import cases, vectors, wire
from harness import gate as gates
from harness.cases import case, equal, expect, report, table
from harness.dns import DnsStub
from harness.origin import Origin

IDLE_MS = 2000
STALLS = ("pr-077", "pr-079")  # rows in which the origin goes silent
ROWS = {r["id"]: r for r in vectors.rows("responses-bad.jsonl")}
UPGRADE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
           "Sec-WebSocket-Version: 13\r\n")


async def answer(connection, request):
    """/ID or /ID/OFFSET gives that row's bytes (split there), then the end; anything else is well."""
    parts = request.path.strip("/").split("/")
    if parts[0] not in ROWS:
        connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        return False
    row = ROWS[parts[0]]
    data = vectors.blob(row, "raw")
    k = int(parts[1]) if len(parts) > 1 else 0
    if k:
        connection.writer.write(data[:k])
        await asyncio.sleep(vectors.GAP)
    connection.writer.write(data[k:])
    if row["id"] in STALLS:
        await connection.reader.read()
    return row["expect"]["connection"] != "reusable"


def aborted(reply):
    return bool(reply.closed) and (not reply.messages or not reply.messages[0].complete)


def judge(row, reply):
    """None, or what is wrong with what the client got."""
    wanted, data = row["expect"]["client"], reply.data
    first = reply.messages[0] if reply.messages else None
    if b"evil" in data.partition(b"\r\n\r\n")[2]:
        return f"the client got surplus bytes: {data[:300]!r}"
    fine = {
        "502 (or abort if bytes were already relayed)": reply.status == 502 or aborted(reply),
        "complete-or-error: never a silently short success": reply.status == 502 or aborted(reply)
                                                             or (row["id"] == "pr-049" and reply.status == 200 and reply.body == b""),
        "502": reply.status == 502,
        "504": reply.status == 504,
        "aborted response": reply.status in (502, 504) or aborted(reply),
        "200": reply.status == 200 and first.complete,
        "200 with 3 bytes": reply.status == 200 and reply.body == b"abc",
        "204 without body; upstream connection dropped": reply.status == 204 and b"abc" not in data,
        "304 without body; upstream connection dropped": reply.status == 304 and b"abc" not in data,
        "302 unchanged": reply.status == 302 and first.field("location") in row.get("raw", ""),
        "removed": reply.status == 200 and b"secret" not in data and first.field("keep-alive") is None,
    }[wanted]
    if fine and reply.status in (502, 504) and not reply.reason:
        return "the proxy's own answer is not marked as the proxy's"
    return None if fine else f"expected {wanted}; got {reply.status} ({reply.reason}), {reply.closed}: {data[:200]!r}"


class Lab:
    def __init__(self):
        self.origin = Origin(netns.ORIGIN, 80, answer)
        self.dns = DnsStub(default={"A": [netns.ORIGIN]})
        self.gate = gates.Gate({"default": gates.limited("allowed.example")}, {"limits": {"idle_timeout_ms": IDLE_MS}}, dns=self.dns).start()

    def request(self, path, sub, extra=""):
        return (f"GET http://allowed.example/{path} HTTP/1.1\r\nHost: allowed.example\r\n"
                f"Proxy-Authorization: {self.gate.credential(sub)}\r\n{extra}\r\n").encode()

    async def one(self, row, path, sub):
        extra = UPGRADE if row.get("request") == "websocket" else ""
        reply = await wire.talk(self.gate.address, self.request(path, sub, extra), seconds=IDLE_MS / 1000 + 6, linger=0.0, methods=["GET"])
        return judge(row, reply)


async def replay(lab, row):
    n, bad = row["id"], lab.origin.accepted()
    why = await lab.one(row, n, n)
    if why:
        return why
    used = len(lab.origin.connections) - bad
    # The next request of the same sandbox, on the same connection and on a new one, gets its own answer.
    both = await wire.talk(lab.gate.address, lab.request(n, n, UPGRADE if row.get("request") else "") + lab.request("good", n),
                           seconds=IDLE_MS / 1000 + 6, linger=0.05, methods=["GET", "GET"])
    if len(both.messages) > 1 and both.messages[1].body != b"good" and both.messages[1].status == 200:
        return f"the second answer on the connection: {both.data[-200:]!r}"
    if b"evil" in both.data.partition(b"\r\n\r\n")[2]:
        return f"surplus bytes on the connection: {both.data[-200:]!r}"
    fresh = await wire.talk(lab.gate.address, lab.request("good", n), seconds=5, linger=0.0)
    if (fresh.status, fresh.body) != (200, b"good"):
        return f"the next request got {fresh.status} {fresh.body!r}"
    if row["expect"]["connection"] != "reusable":
        spoilt = lab.origin.connections[bad:bad + used]
        if any(r.path == "/good" for c in spoilt for r in c.requests):
            return "the spoilt origin connection was used again"
        if not await vectors.until(lambda: all(c.ended for c in spoilt)):
            return "the spoilt origin connection stays open"
    return None


async def splits(lab, row):
    data = vectors.blob(row, "raw")
    if row["id"] in STALLS or len(data) < 2:
        return None
    step = -(-len(data) // vectors.SPLITS_MAX) if len(data) < 10000 else len(data) // 8
    offsets = range(1, len(data), step)
    answers = await wire.gather((lab.one(row, f"{row['id']}/{k}", f"{row['id']}-{k}") for k in offsets), 24)
    return next((f"split at {k}: {why}" for k, why in zip(offsets, answers) if why), None)


@table
def answers_of_a_hostile_origin():
    lab = Lab()
    before = lab.gate.descriptors()

    async def all_rows():
        for row in ROWS.values():
            if row["layer"].startswith("plain"):
                report(f"{row['id']} {row['cls']} ({row['reason']})", await replay(lab, row) or await splits(lab, row))
    try:
        asyncio.run(all_rows())
        lab.gate.no_leak_since(before, slack=64)
    finally:
        lab.gate.stop()
        lab.gate.cleanup()


def opaque_gate():
    """A gate for tunnels whose bytes are nobody's business: port 7 is neither a TLS port nor a plain one."""
    dns = DnsStub(default={"A": [netns.ORIGIN]})
    return gates.Gate({"default": gates.limited("allowed.example:7")}, {"limits": {"idle_timeout_ms": IDLE_MS}}, dns=dns)


@case
def pr_082_half_close_reaches_the_origin_and_the_other_way_stays_open():
    async def after_the_end(connection):
        while await connection.read():
            pass
        await asyncio.sleep(0.3)
        connection.writer.write(b"late")
        await connection.writer.drain()
    origin = Origin(netns.ORIGIN, 7, serve=after_the_end)
    with opaque_gate() as gate:
        t = gate.tunnel("allowed.example:7")
        equal(t.status, 200, "CONNECT")
        t.send(b"early")
        t.sock.shutdown(socket.SHUT_WR)
        equal(t.read_exactly(4), b"late", "what the origin said after the client's end")
        expect(t.ended_within(2) is not None, "the tunnel ends with the origin")
        equal(bytes(origin.connections[0].seen), b"early", "what the origin saw")
    origin.close()


@case
def pr_083_a_reset_by_the_origin_ends_the_tunnel():
    async def reset(connection):
        await connection.read()
        sock = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    origin = Origin(netns.ORIGIN, 7, serve=reset)
    with opaque_gate() as gate:
        before = gate.descriptors()
        t = gate.tunnel("allowed.example:7")
        t.send(b"x")
        expect(t.ended_within(2) is not None, "the tunnel ends")
        gate.record("close", host="allowed.example")
        gate.no_leak_since(before)
    origin.close()


if __name__ == "__main__":
    cases.main()
