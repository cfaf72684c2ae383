"""The tables of tests/vectors: rows as bytes, the gate of each policy that they name, and the replay that judges one row."""
import asyncio
import base64
import json
import os
import re
import zlib

from . import gate as gates
from . import netns, wire
from .dns import DnsStub
from .origin import Origin

FOLDER = os.path.join(gates.ROOT, "tests/vectors")
CANONICAL = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")
SPLITS_MAX = 400  # offsets a row: a longer request is sampled
GAP = 0.004       # seconds between two pieces, so that they are read one by one


def rows(name):
    with open(os.path.join(FOLDER, name)) as f:
        return [json.loads(line) for line in f if line.strip()]


def blob(row, key):
    """The bytes of a row's member; base64 is authoritative, the text beside it is for readers."""
    if key + "_zb64" in row:
        return zlib.decompress(base64.b64decode(row[key + "_zb64"]))
    if key + "_b64" in row:
        return base64.b64decode(row[key + "_b64"])
    return row.get(key, "").encode("latin-1")


def substitute(data, token):
    return data.replace(b"@@AUTH@@", base64.b64encode(b"sandbox:" + token.encode())).replace(b"@@JWT@@", token.encode())


def source(n):
    """A client address of its own for each row (or thirty connections of one): records fold by it, failures are limited by it."""
    n += 2
    return f"127.{1 + (n >> 14)}.{(n >> 7) & 127}.{1 + (n & 127)}"


def offsets(data, token):
    """Where to split: everywhere but inside the token, of which a few places stand for all."""
    inside = data.find(token)
    skip = range(inside + 2, inside + len(token) - 1) if inside >= 0 else range(0)
    middle = inside + len(token) // 2
    all_of_them = [i for i in range(1, len(data)) if i not in skip or i == middle]
    step = -(-len(all_of_them) // SPLITS_MAX)
    return all_of_them[::step]


def single_bytes(data):
    size = 1 if len(data) <= 4096 else -(-len(data) // 997)
    return [(0.0005 if i % 16 == 0 else 0, data[i:i + size]) for i in range(0, len(data), size)]


class Lab:
    """One gate for one policy of policies.json, a name server and origins that count."""

    def __init__(self, policy="P1", table=None, config=None, origins=True):
        with open(os.path.join(FOLDER, "policies.json")) as f:
            p = json.load(f)[policy]
        self.dns = DnsStub(default={"A": [netns.ORIGIN]}, table=table)
        self.origins = make_origins() if origins is True else origins
        self.gate = gates.Gate({"default": p["policy"]}, gates.merged(p["config"], config), dns=self.dns).start()
        self.rows = 0

    def counts(self):
        return self.dns.asked(), sum(o.accepted() for o in self.origins), sum(o.complete() for o in self.origins)

    def auth(self, sub):
        return self.gate.token(sub).encode()

    def next_source(self):
        self.rows += 1
        return source(self.rows)

    def close(self):
        self.gate.stop()
        self.dns.close()
        for o in self.origins:
            o.close()
        self.gate.cleanup()


def make_origins():
    return [Origin(a, p) for a in (netns.ORIGIN, "192.0.2.7", netns.ORIGIN6) for p in (80, 443, 8443)]


# ---- judging

def why_not_refused(reply, statuses, must_close=True):
    if reply.status not in statuses:
        return f"status {reply.status} ({reply.reason}), expected {statuses}; the connection: {reply.closed}"
    if must_close and not reply.closed:
        return "the connection stays open"
    if reply.status >= 400 and not reply.reason:
        return f"{reply.status} without x-deny-reason"
    if reply.status >= 400 and not reply.messages[0].complete:
        return "the body of the refusal is cut"
    if reply.rest:
        return f"bytes after the refusal: {reply.rest[:80]!r}"
    return None


def why_bad_record(lab, client, allowed=False):
    """Exactly one decision (or challenge) of that client, which parses, with a host that can be trusted in a log."""
    def found():
        out = []
        for line in lab.gate.record_lines():
            if client.encode() + b'"' in line and (b'"event":"decision"' in line or b'"event":"challenge"' in line):
                if any(c < 0x20 or c > 0x7e for c in line):
                    return None, f"a byte outside printable ASCII in {line[:200]!r}"
                out.append(json.loads(line))
        return out, None
    records, why = found()
    if why:
        return why
    if len(records) != 1:
        return f"{len(records)} decision records"
    r = records[0]
    if r["event"] == "decision" and r["decision"] != ("allow" if allowed else "deny"):
        return f"the record says {r['decision']}"
    if r.get("reason") not in ("request_malformed", "request_too_large", "request_timeout") and r.get("host"):
        if not CANONICAL.fullmatch(r["host"]):
            return f"the record's host is not canonical: {r['host']!r}"
    return None


async def until(predicate, seconds=3.0):
    end = asyncio.get_running_loop().time() + seconds
    while not (value := predicate()) and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.01)
    return value


async def settle_record(lab, client):
    """Waits for the client's record: a refusal need not wait for the disk, its record comes a moment later."""
    await until(lambda: any(client.encode() + b'"' in l and b'"event":"resolve"' not in l for l in lab.gate.record_lines()), 2)


async def replay_splits(lab, data, token, verdict, name, is_same, linger=None, at_once=48, seconds=15.0):
    """The same bytes split at each offset, and one by one: the first difference, or None."""
    plans = [(f"split at {i}", [(0, data[:i]), (GAP, data[i:])]) for i in offsets(data, token)]
    plans.append(("byte by byte", single_bytes(data)))
    methods = wire.methods_of(data)
    home = lab.rows = lab.rows + 1

    async def one(n, label, pieces):
        if n % 30 == 0:
            lab.rows += 1
        reply = await wire.talk(lab.gate.address, pieces, source=source(home + n // 30), seconds=seconds, linger=linger, methods=methods)
        return None if is_same(reply, verdict) else f"{label}: {reply.status} {reply.reason} ({reply.closed}), whole: {verdict}"
    answers = await wire.gather((one(n, *p) for n, p in enumerate(plans)), at_once)
    return next((a for a in answers if a), None)
