#!/usr/bin/env python3
"""The tables' rows about what is inside an inspected tunnel: requests that are ambiguous or meant for somebody else, requests that
arrive clean, and answers of a hostile origin; whole, split at each offset and byte by byte."""
import asyncio
import json
import os
import re
import shutil
import tempfile
import time

from harness import netns
netns.enter()
from harness import cases, inner, vectors, wire
from harness.cases import report, table
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-inner-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
HOSTS = ["allowed.example", "api.allowed.example"]
REGISTRY = "registry.example"
REGISTRIES = {"date": "2026-01-01", "managers": {"npm": {"hosts": {REGISTRY.partition(".")[2]: [REGISTRY.partition(".")[0]]}}}}
VAULT = ("@@INJECTED@@", "attacker")  # rows that say so are about credentials that the gate adds
KNOWN = {}  # what fails, and why; a row that does not fail any more is to leave
IDLE_MS = 2000
STALLS = ("pr-077", "pr-079")  # rows in which the origin goes silent
SPLITS_MAX = 12  # of an answer: the codec is the one that the same rows try outside, at each offset
UPGRADE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
           "Sec-WebSocket-Version: 13\r\n")


def label(row):
    return f"{row['id']} {row['cls']} ({row['reason']})"


def tell(row, why):
    """report(), and what is known to fail."""
    known = KNOWN.get(row["id"])
    if known and why:
        report(label(row), f"{known}: {why}", skip=True)
    else:
        report(label(row), why or ("it works now: no longer KNOWN" if known else None))


def start_requests():
    path = os.path.join(FOLDER, "registries.json")
    with open(path, "w") as f:
        json.dump(REGISTRIES, f)
    policy = {"package_managers": ["npm"], "networking": {"type": "limited", "allowed_hosts": HOSTS, "allow_package_managers": True}}
    return inner.Lab(FOLDER, CA, HOSTS, policy, {"registries": path}, names=HOSTS + [REGISTRY])


def verdict_of(reply):
    return [(m.status, m.reason) for m in reply.messages]


class Seen:
    """What the origin decrypts from here on."""

    def __init__(self, lab):
        self.lab, self.marks = lab, {id(c): (len(c.seen), len(c.requests)) for c in lab.origin.connections}

    def bytes(self):
        return b"".join(bytes(c.seen[self.marks.get(id(c), (0, 0))[0]:]) for c in self.lab.origin.connections)

    def requests(self):
        return [r for c in self.lab.origin.connections for r in c.requests[self.marks.get(id(c), (0, 0))[1]:]]


# ---- requests that are refused

def why_reached(row, seen):
    """Holds what the origin decrypted to what the row permits; a connection alone is the tunnel's."""
    got, requests = seen.bytes(), seen.requests()
    if row["expect"]["upstream"] == "no-connect":
        return f"the origin got {got[:300]!r}" if got else None
    if any((r.field("host") or "") != "allowed.example" for r in requests):
        return f"the origin got a request for another host: {got[:300]!r}"
    if len(requests) > 1:
        return f"{len(requests)} requests reached the origin"
    if re.search(rb"\r\n(upgrade|http2-settings):", got, re.I):
        return f"the origin got an upgrade: {got[:300]!r}"
    return None


def why_bad_inner_record(lab, client, allowed):
    """One decision for the tunnel and one a request, which parse."""
    def found():
        return [r for r in lab.gate.records("decision") if r.get("client") == client and r["entry"] == "inspected"]
    end = time.monotonic() + 3
    while len(found()) < allowed + 1 and time.monotonic() < end:
        time.sleep(0.02)
    records = found()
    denials = [r for r in records if r["decision"] == "deny"]
    if len(denials) != 1 or len(records) != 1 + allowed:
        return f"{len(records)} decision records of requests, {len(denials)} of them denials"
    if not vectors.CANONICAL.fullmatch(denials[0]["host"]) or not denials[0].get("parent"):
        return f"the record's host or parent: {denials[0]}"
    return None


def refuse(lab, row):
    data, seen = vectors.blob(row, "raw"), Seen(lab)
    reply = lab.talk(row["tunnel"], row["id"], data, source=lab.next_source(), seconds=8, linger=1)
    statuses = [m.status for m in reply.messages]
    if not statuses or any(s not in row["expect"]["status"] for s in statuses):
        why = f"statuses {statuses}, expected {row['expect']['status']}"
    elif any(m.status >= 400 and not m.reason for m in reply.messages):
        why = "the refusal is not marked as the proxy's"
    elif statuses[-1] >= 400 and not reply.closed:
        why = f"the connection stays open after {statuses[-1]} ({reply.messages[-1].reason})"
    elif statuses[-1] >= 400:
        why = why_bad_inner_record(lab, reply.client, len(statuses) - 1)
    else:
        why = None
    return why or why_reached(row, seen), data, verdict_of(reply)


def first_difference(lab, row, data, verdict, linger):
    """The same bytes in pieces; at most thirty connections of one address, whose failures are limited."""
    plans = [(f"split at {i}", [(0, data[:i]), (vectors.GAP, data[i:])]) for i in range(1, len(data))]
    plans.append(("byte by byte", [(0.0005, data[i:i + 1]) for i in range(len(data))]))
    home = lab.rows = lab.rows + 1
    lab.rows += len(plans) // 30
    methods = wire.methods_of(data)

    def one(n, text, pieces):
        reply = lab.talk(row["tunnel"], row["id"], pieces, source=vectors.source(home + n // 30), linger=linger, methods=methods)
        return None if verdict_of(reply) == verdict else f"{text}: {verdict_of(reply)}, whole: {verdict}"
    return next((a for a in inner.each([lambda n=n, p=p: one(n, *p) for n, p in enumerate(plans)]) if a), None)


@table
def requests_that_are_refused():
    lab = start_requests()
    try:
        before = lab.gate.descriptors()
        for row in [r for r in vectors.rows("requests-bad.jsonl") if r["layer"] == "inner"]:
            why, data, verdict = refuse(lab, row)
            seen = Seen(lab)
            if why is None:
                why = first_difference(lab, row, data, verdict, 0.0 if verdict[-1][0] == 200 else None)
            if why is None and row["expect"]["upstream"] == "no-connect" and seen.bytes():
                why = f"in pieces the origin got {seen.bytes()[:200]!r}"
            tell(row, why)
        lab.gate.no_leak_since(before, slack=2)
    finally:
        lab.close()


# ---- the rows about the outside, brought inside

def brought_inside(row):
    """The bytes of an outer row as a request in a tunnel to allowed.example; None where it is about what only the outside has."""
    data = vectors.blob(row, "raw")
    if row["layer"] != "proxy" or row["phase"] == "timing" or not re.match(rb"[A-Z]+ http://allowed\.example/", data):
        return None
    if data.count(b"@@AUTH@@") + data.count(b"@@JWT@@") != 1:
        return None
    out, n = re.subn(rb"\r\nProxy-Authorization: Basic @@AUTH@@(?=\r\n)", b"", data)
    out = out.replace(b" http://allowed.example/", b" /", 1)
    return out if n == 1 and b"http://" not in out.split(b"\r\n", 1)[0] else None


@table
def outer_rows_inside():
    lab = start_requests()
    try:
        rows = [(r, d) for r in vectors.rows("requests-bad.jsonl") if (d := brought_inside(r)) is not None]
        cases.expect(len(rows) > 40, f"only {len(rows)} rows can be brought inside")
        for row, data in rows:
            seen, expected = Seen(lab), row["expect"]["status"]
            second = row["expect"]["upstream"] == "second-not-forwarded"
            reply = lab.talk("allowed.example:443", row["id"], data, source=lab.next_source(), seconds=8, linger=None if row["expect"]["close"] and not second else 1)
            statuses, complete = [m.status for m in reply.messages], seen.requests()
            why = None
            if second:
                why = None if statuses[:1] == [200] and len(complete) <= 1 else f"statuses {statuses}, {len(complete)} requests reached the origin"
            elif not statuses or statuses[0] not in expected:
                why = f"statuses {statuses}, expected {expected}"
            elif row["phase"] == "head" and seen.bytes():
                why = f"the origin got {seen.bytes()[:200]!r}"
            elif complete:
                why = f"a complete message reached the origin: {complete[0].head[:200]!r}"
            elif row["expect"]["close"] and not reply.closed:
                why = "the connection stays open"
            report(f"inside {label(row)}", why)
    finally:
        lab.close()


# ---- requests that arrive clean

async def answer_or_upgrade(connection, request):
    if (request.field("upgrade") or "").lower() == "websocket":
        connection.writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        while data := await connection.read():
            connection.writer.write(data)
        return True
    connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def arrives(lab, row):
    seen, data = Seen(lab), vectors.blob(row, "raw")
    reply = lab.talk(row["tunnel"], row["id"], data, linger=0.05)
    got = seen.bytes()
    if reply.status not in row["expect"]["status"]:
        return f"status {reply.status} ({reply.reason}), expected {row['expect']['status']}", data, verdict_of(reply)
    if reply.status in (200, 101):
        for text in row["expect"]["upstream_must_contain"]:
            if text.encode("latin-1") not in got:
                return f"the origin did not get {text!r} but {got[:400]!r}", data, verdict_of(reply)
        if got.lower().count(b"\r\nvia:") != 1 or not re.search(rb"\r\nhost: " + row["tunnel"].rsplit(":")[0].encode() + rb"\r\n", got, re.I):
            return f"not exactly one Via, or another Host: {got[:400]!r}", data, verdict_of(reply)
        if b"@@PLACEHOLDER@@" in data and b"@@PLACEHOLDER@@" not in got:
            return f"the body was changed: {got[-200:]!r}", data, verdict_of(reply)
    for text in row["expect"]["upstream_must_not_contain"]:
        if text.lower().encode("latin-1") + b":" in got.lower():
            return f"the origin got {text!r}: {got[:400]!r}", data, verdict_of(reply)
    return None, data, verdict_of(reply)


@table
def requests_that_arrive_clean():
    lab = start_requests()
    lab.origin.answer = answer_or_upgrade
    try:
        for row in [r for r in vectors.rows("requests-sanitize.jsonl") if r["layer"] == "inner"]:
            said = row["expect"]["upstream_must_contain"] + row["expect"]["upstream_must_not_contain"]
            if any(v in said for v in VAULT):
                report(label(row), "there is no vault yet that adds credentials", skip=True)
                continue
            why, data, verdict = arrives(lab, row)
            report(label(row), why or first_difference(lab, row, data, verdict, 0.0))
    finally:
        lab.close()


# ---- answers

ROWS = {r["id"]: r for r in vectors.rows("responses-bad.jsonl") if "inner" in r["layer"]}


async def answer(connection, request):
    """/ID or /ID/OFFSET gives that row's bytes (split there), then the end; anything else is well."""
    parts = request.path.strip("/").split("/")
    if parts[0] not in ROWS:
        connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        return False
    row, k = ROWS[parts[0]], int(parts[1]) if len(parts) > 1 else 0
    data = vectors.blob(row, "raw")
    if k:
        connection.writer.write(data[:k])
        await asyncio.sleep(vectors.GAP)
    connection.writer.write(data[k:])
    if row["id"] in STALLS:
        await connection.reader.read()
    return row["expect"]["connection"] != "reusable"


def aborted(reply):
    """Not taken for a success by any client: nothing whole, or an end without TLS's goodbye."""
    return bool(reply.closed) and (not reply.messages or not reply.messages[0].complete or reply.closed != "close_notify")


def judge(row, reply):
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


def request(path, extra=""):
    return f"GET /{path} HTTP/1.1\r\nHost: allowed.example\r\n{extra}\r\n".encode()


def replay(lab, row):
    n, extra = row["id"], UPGRADE if row.get("request") == "websocket" else ""
    mark = lab.origin.accepted()
    why = judge(row, lab.talk("allowed.example:443", n, request(n, extra), seconds=IDLE_MS / 1000 + 6, linger=0.0, methods=["GET"]))
    if why:
        return why
    # The next request in the same tunnel gets its own answer, or none.
    both = lab.talk("allowed.example:443", n, request(n, extra) + request("good"), seconds=IDLE_MS / 1000 + 6, linger=0.05, methods=["GET", "GET"])
    if len(both.messages) > 1 and both.messages[1].status == 200 and both.messages[1].body != b"good":
        return f"the second answer on the connection: {both.data[-200:]!r}"
    if b"evil" in both.data.partition(b"\r\n\r\n")[2]:
        return f"surplus bytes on the connection: {both.data[-200:]!r}"
    if row["expect"]["connection"] != "reusable":
        spoilt = lab.origin.connections[mark:]
        if any(r.path == "/good" for c in spoilt for r in c.requests):
            return "the spoilt origin connection was used again"
        try:
            cases.eventually(lambda: all(c.ended for c in spoilt), "the spoilt origin connections end", 4)
        except cases.Failed as e:
            return str(e)
    return None


def splits(lab, row):
    data = vectors.blob(row, "raw")
    if row["id"] in STALLS or len(data) < 2:
        return None
    offsets = range(1, len(data), max(1, -(-len(data) // SPLITS_MAX)))
    extra = UPGRADE if row.get("request") == "websocket" else ""

    def one(k):
        return judge(row, lab.talk("allowed.example:443", f"{row['id']}-{k}", request(f"{row['id']}/{k}", extra), seconds=IDLE_MS / 1000 + 6,
                                   linger=0.0, methods=["GET"]))
    answers = inner.each([lambda k=k: one(k) for k in offsets])
    return next((f"split at {k}: {why}" for k, why in zip(offsets, answers) if why), None)


@table
def answers_of_a_hostile_origin():
    lab = inner.Lab(FOLDER, CA, HOSTS, config={"limits": {"idle_timeout_ms": IDLE_MS}}, answer=answer)
    try:
        before = lab.gate.descriptors()
        for row in ROWS.values():
            if row["layer"] == "inner":
                report(label(row), "there is no vault yet that adds credentials", skip=True)
            else:
                report(f"inside {label(row)}", replay(lab, row) or splits(lab, row))
        lab.gate.no_leak_since(before, slack=2)
    finally:
        lab.close()


if __name__ == "__main__":
    cases.at_end(lambda: shutil.rmtree(FOLDER, ignore_errors=True))
    cases.main()
