#!/usr/bin/env python3
"""The address guard from outside: every edge of every prefix, as a DNS answer and as upstream.hosts says. What is forbidden is
never dialled; what is open is dialled and, without a route here, unreachable."""
import asyncio

from harness import netns
netns.enter()
from harness import cases, vectors, wire
from harness import gate as gates
from harness.cases import report, table
from harness.dns import DnsStub

POLICY = gates.limited("*.edges.example")


def name_of(n, how):
    return f"{how}{n}.edges.example"


def request(host, credential):
    return f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: {credential}\r\n\r\n".encode()


async def judge(gate, n, row, how, source):
    reply = await wire.talk(gate.address, request(name_of(n, how), gate.credential(f"{how}{n}")), source=source, seconds=12)
    verdict = (reply.status, reply.reason)
    if row["expect"] == "deny":
        return None if verdict == (403, "address_not_allowed") else f"{how}: {verdict}"
    # No route leads anywhere from here: dialled is enough.
    return None if reply.status in (502, 504) and reply.reason in ("upstream_unreachable", "upstream_timeout", "upstream_refused") else f"{how}: {verdict}"


async def judge_all(gate, rows):
    for how in ("dns", "own"):
        answers = await wire.gather((judge(gate, n, row, how, vectors.source(n)) for n, row in enumerate(rows)), 8)
        for row, why in zip(rows, answers):
            report(f"{row['address']} by {how} ({row['note']})", why)
    for n, row in enumerate(rows):
        record = next((r for r in gate.records("decision") if r.get("host") == name_of(n, "dns")), None)
        if record is None or record["decision"] != row["expect"]:
            report(f"{row['address']}: record", f"{record}")


@table
def edges():
    rows = vectors.rows("ssrf-edges.jsonl")
    table_ = {name_of(n, "dns"): {"AAAA" if ":" in r["address"] else "A": [r["address"]]} for n, r in enumerate(rows)}
    hosts = {name_of(n, "own"): [r["address"]] for n, r in enumerate(rows)}
    dns = DnsStub(table=table_)
    config = {"upstream": {"hosts": hosts, "connect_timeout_ms": 1500, "allow_addresses": []}, "_strict_addresses": True}
    with gates.Gate({"default": POLICY}, config, dns=dns) as gate:
        before = gate.descriptors()
        asyncio.run(judge_all(gate, rows))
        gate.no_leak_since(before, slack=1)


if __name__ == "__main__":
    cases.main()
