#!/usr/bin/env python3
"""Targets: what is denied reaches no name server and no origin; what is allowed is one canonical host and port everywhere."""
import asyncio
import re

from harness import netns
netns.enter()
from harness import cases, vectors, wire
from harness.cases import report, table

# Where the contract answers otherwise than the table: an extension method needs a rule of the policy.
CONTRACT = {"ta-059": [501]}


def authority_of(uri):
    m = re.match(rb"[a-z]+://([^/?#]*)", uri, re.I)
    return m[1] if m else b"allowed.example"


def request_of(row, lab):
    if row["form"] == "raw":
        return vectors.blob(row, "raw")
    target = vectors.blob(row, "target")
    for mark, value in ((b"@PROXY_HOST@", b"127.0.0.1"), (b"@GATEWAY_IP@", b"127.0.0.1"), (b"@ADMIN_PORT@", b"%d" % lab.gate.port)):
        target = target.replace(mark, value)
    if row["form"] == "connect":
        return b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\nProxy-Authorization: Basic @@AUTH@@\r\n\r\n"
    # Host is held to the target: only a row about something else than that carries the fitting one.
    host = authority_of(target) if row["expect"] == "allow" or row["status"] == [403] else b"allowed.example"
    return b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nProxy-Authorization: Basic @@AUTH@@\r\n\r\n"


async def deny(lab, row):
    """One denied row, whole: why it is not as it must be, and the verdict."""
    token = lab.auth(row["id"])
    data = vectors.substitute(request_of(row, lab), token.decode())
    before = lab.counts()
    reply = await wire.talk(lab.gate.address, data, source=lab.next_source(), seconds=8)
    why = vectors.why_not_refused(reply, row["status"])
    if why is None:
        await vectors.settle_record(lab, reply.client)
        why = vectors.why_bad_record(lab, reply.client)
    asked, accepted, _ = lab.counts()
    if asked != before[0] and row["cls"] != "dns":
        why = why or f"a name server was asked: {dict(lab.dns.queries)}"
    if accepted != before[1]:
        why = why or "an origin was connected"
    return why, data, (reply.status, reply.reason)


def same(reply, verdict):
    return (reply.status, reply.reason) == verdict


async def split(lab, row, data, verdict):
    """The same row in pieces: the same verdict, and still nothing reaches anybody."""
    descriptors, counted = lab.gate.descriptors(), lab.counts()
    why = await vectors.replay_splits(lab, data, vectors_token(data), verdict, row["id"], same)
    if why is None and lab.counts() != counted:
        why = f"split: name server, origins, requests saw {counted} before and {lab.counts()} after"
    return why or lab.gate.why_leaked(descriptors, slack=1)


async def deny_all(lab, rows):
    # First each row once: the records of so many clients as the pieces need would fold into one.
    whole = [(row, *await deny(lab, row)) for row in rows]
    for row, why, data, verdict in whole:
        if why is None and row["cls"] != "dns":
            why = await split(lab, row, data, verdict)
        report(f"{row['id']} {row['cls']} ({row['reason']})", why)


def vectors_token(data):
    m = re.search(rb"Basic ([A-Za-z0-9+/=]{100,})", data)
    return m[1] if m else b"\0"


def hostile_names(rows):
    out = {}
    for row in rows:
        if "dns" in row:
            answer = dict(row["dns"])
            # An alias is served with what it leads to, as a hostile server would.
            out[row["target"].rsplit(":", 1)[0]] = answer
    return out


def run_deny(policy, **options):
    rows = [r for r in vectors.rows("targets-deny.jsonl") if r["policy"] == policy]
    lab = vectors.Lab(policy, table=hostile_names(rows), **options)
    try:
        asyncio.run(deny_all(lab, rows))
    finally:
        lab.close()


@table
def denied_targets_of_a_short_list():
    run_deny("P1")


@table
def denied_by_what_the_name_leads_to():
    run_deny("P2")


@table
def denied_though_unrestricted():
    run_deny("P3")


@table
def denied_though_the_range_is_open():
    run_deny("P5")


async def allow(lab, row):
    token = lab.auth(row["id"])
    data = vectors.substitute(request_of(row, lab), token.decode())
    host, port = row["canonical"].rsplit(":", 1)
    accepted, asked = sum(o.accepted() for o in lab.origins), lab.dns.queries[host]
    reply = await wire.talk(lab.gate.address, data, source=lab.next_source(), seconds=8, linger=0.02)
    verdict = (reply.status, reply.reason)
    if row["id"] in CONTRACT:
        return (None if reply.status in CONTRACT[row["id"]] else f"status {reply.status}"), data, verdict
    if reply.status != 200:
        return f"status {reply.status} ({reply.reason})", data, verdict
    if sum(o.accepted() for o in lab.origins) == accepted and row["form"] == "connect":
        return "no origin was connected", data, verdict
    if not re.fullmatch(r"[0-9.]+|\[.*\]", host) and lab.dns.queries[host] == asked and asked == 0:
        return f"the name server was not asked for {host}: {dict(lab.dns.queries)}", data, verdict
    await vectors.settle_record(lab, reply.client)
    record = next((r for r in lab.gate.records("decision") if r.get("client") == reply.client), None)
    if record is None or (record["decision"], record["host"], record["port"]) != ("allow", host, int(port)):
        return f"the record is {record}", data, verdict
    return vectors.why_bad_record(lab, reply.client, allowed=True), data, verdict


async def allow_all(lab, rows):
    whole = [(row, *await allow(lab, row)) for row in rows]
    for row, why, data, verdict in whole:
        if why is None:
            why = await vectors.replay_splits(lab, data, vectors_token(data), verdict, row["id"], same, linger=0.0, at_once=24)
        report(f"{row['id']} ({row['reason']})", why)


def run_allow(policy):
    lab = vectors.Lab(policy)
    before = lab.gate.descriptors()
    try:
        asyncio.run(allow_all(lab, [r for r in vectors.rows("targets-allow.jsonl") if r["policy"] == policy]))
        lab.gate.no_leak_since(before, slack=64)  # kept connections to origins stay for a while
    finally:
        lab.close()


@table
def allowed_targets():
    run_allow("P1")


@table
def allowed_literals():
    run_allow("P4")


if __name__ == "__main__":
    cases.main()
