#!/usr/bin/env python3
"""Requests: ambiguous ones reach nobody, whole or in pieces; well-formed ones arrive clean."""
import asyncio
import base64
import re

from harness import netns
netns.enter()
from harness import cases, vectors, wire
from harness.cases import report, table

HEAD_TIMEOUT_MS = 3000


def token_in(data):
    m = re.search(rb"Basic ([A-Za-z0-9+/=]{100,})", data)
    return m[1] if m else b"\0"


def label(row):
    return f"{row['id']} {row['cls']} ({row['reason']})"


def outer(name):
    """The rows but those about the inside of inspected tunnels, which test_vectors_inner.py tries."""
    return [r for r in vectors.rows(name) if r["layer"] != "inner"]


def why_upstream_saw(lab, row, before, origin, mark):
    """Holds what reached the name server and the origin to what the row permits."""
    asked, accepted, complete = (a - b for a, b in zip(lab.counts(), before))
    limit = row["expect"]["upstream"]
    if limit == "no-connect" and (asked or accepted):
        return f"{asked} queries and {accepted} connections"
    if limit == "no-complete-message" and complete:
        return f"a complete message: {origin.seen_since(mark)[:300]!r}"
    if limit == "second-not-forwarded" and complete > 1:
        return f"{complete} requests were forwarded"
    return None


async def refuse(lab, row):
    token = lab.auth(row["id"])
    data = vectors.substitute(vectors.blob(row, "raw"), token.decode())
    origin = lab.origins[0]
    before, mark = lab.counts(), origin.accepted()
    must_close = row["expect"]["close"]
    reply = await wire.talk(lab.gate.address, data, source=lab.next_source(), seconds=8 if must_close else 1)
    if row["expect"]["upstream"] == "second-not-forwarded":
        statuses = [m.status for m in reply.messages]
        why = None if statuses and statuses[0] == 200 and statuses[1:] in ([], [row["expect"]["status"][1]]) else f"statuses {statuses}"
        why = why or ("the connection stays open" if must_close and not reply.closed else None)
    else:
        why = vectors.why_not_refused(reply, row["expect"]["status"], must_close)
        if why is None:
            await vectors.settle_record(lab, reply.client)
            why = vectors.why_bad_record(lab, reply.client, allowed=row["phase"] == "body")
    return why or why_upstream_saw(lab, row, before, origin, mark), data, verdict_of(reply)


def verdict_of(reply):
    return [(m.status, m.reason) for m in reply.messages]


def same(reply, verdict):
    return verdict_of(reply) == verdict


async def split(lab, row, data, verdict):
    """The same row in pieces: the same verdict, and still no more reaches anybody than may."""
    descriptors, before, mark = lab.gate.descriptors(), lab.counts(), lab.origins[0].accepted()
    forwards = row["expect"]["upstream"] == "second-not-forwarded"
    why = await vectors.replay_splits(lab, data, token_in(data), verdict, row["id"], same, linger=None if row["expect"]["close"] else 0.3)
    if forwards:
        return why  # connections to an origin that served a request are kept for a while
    return why or why_upstream_saw(lab, row, before, lab.origins[0], mark) or lab.gate.why_leaked(descriptors, slack=2)


async def refuse_all(lab, rows):
    # First each row once: the records of so many clients as the pieces need would fold into one.
    whole = [(row, *await refuse(lab, row)) for row in rows]
    for row, why, data, verdict in whole:
        report(label(row), why or await split(lab, row, data, verdict))


@table
def ambiguous_requests():
    rows = outer("requests-bad.jsonl")
    lab = vectors.Lab("P1")
    try:
        asyncio.run(refuse_all(lab, [r for r in rows if r["phase"] != "timing"]))
    finally:
        lab.close()


async def one_timing(lab, row):
    token = lab.auth(row["id"]).decode()
    pieces = []
    for ms, b64 in row["segments"]:
        pieces.append((ms / 1000, base64.b64decode(b64)))
    whole = b"".join(p for _, p in pieces)
    if b"@@AUTH@@" in whole and not any(b"@@AUTH@@" in p for _, p in pieces):
        return "the placeholder is split", None
    pieces = [(s, vectors.substitute(p, token)) for s, p in pieces]
    before = lab.counts()
    reply = await wire.talk(lab.gate.address, pieces, source=lab.next_source(), seconds=HEAD_TIMEOUT_MS / 1000 + 3)
    if reply.status not in row["expect"]["status"]:
        return f"status {reply.status} ({reply.reason}), {reply.closed}", None
    if not reply.closed:
        return "the connection stays open", None
    if len(reply.messages) > 1 or reply.rest:
        return f"more than one answer: {reply.data[-200:]!r}", None
    return (None if lab.counts() == before else "something reached the name server or an origin"), None


async def timing_all(lab, rows):
    answers = await asyncio.gather(*(one_timing(lab, r) for r in rows))
    for row, (why, _) in zip(rows, answers):
        report(label(row), why)


@table
def slow_and_torn_requests():
    lab = vectors.Lab("P1", config={"limits": {"head_timeout_ms": HEAD_TIMEOUT_MS}})
    try:
        asyncio.run(timing_all(lab, [r for r in vectors.rows("requests-bad.jsonl") if r["phase"] == "timing"]))
    finally:
        lab.close()


async def forward(lab, row):
    token = lab.auth(row["id"])
    data = vectors.substitute(vectors.blob(row, "raw"), token.decode())
    origin = lab.origins[0]
    seen = {id(c): len(c.seen) for c in origin.connections}
    reply = await wire.talk(lab.gate.address, data, source=lab.next_source(), seconds=8, linger=0.05)
    if reply.status not in row["expect"]["status"]:
        return f"status {reply.status} ({reply.reason}), expected {row['expect']['status']}", data, verdict_of(reply)
    got = b"".join(bytes(c.seen[seen.get(id(c), 0):]) for c in origin.connections)
    for text in row["expect"]["upstream_must_contain"]:
        if reply.status == 200 and vectors.substitute(text.encode("latin-1"), token.decode()) not in got:
            return f"the origin did not get {text!r} but {got[:400]!r}", data, verdict_of(reply)
    for text in row["expect"]["upstream_must_not_contain"]:
        if vectors.substitute(text.encode("latin-1"), token.decode()) in got:
            return f"the origin got {text!r}: {got[:400]!r}", data, verdict_of(reply)
    if reply.status == 200 and got.lower().count(b"\r\nvia:") != 1:
        return f"not exactly one Via: {got[:400]!r}", data, verdict_of(reply)
    return None, data, verdict_of(reply)


async def forward_all(lab, rows):
    whole = [(row, *await forward(lab, row)) for row in rows]
    for row, why, data, verdict in whole:
        why = why or await vectors.replay_splits(lab, data, token_in(data), verdict, row["id"], same, linger=0.0, at_once=24)
        report(label(row), why)


@table
def well_formed_requests_arrive_clean():
    rows = outer("requests-sanitize.jsonl")
    lab = vectors.Lab("P1")
    try:
        asyncio.run(forward_all(lab, rows))
    finally:
        lab.close()


if __name__ == "__main__":
    cases.main()
