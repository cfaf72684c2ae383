#!/usr/bin/env python3
"""Tokens: what is refused reaches nobody; what happens to a token's life (expiry, rotation, revocation); start-up refusals."""
import asyncio
import base64
import json
import os
import re
import shutil
import sys
import tempfile
import time

from harness import netns
netns.enter()
from harness import cases, vectors, wire
from harness import gate as gates
from harness.cases import Skip, case, equal, eventually, expect, report, table
from harness.dns import DnsStub
from harness.origin import Origin
from harness.tokens import basic

sys.path.insert(0, vectors.FOLDER)
import build_jwt

KEYS = tempfile.mkdtemp(prefix="sallyport-keys-")
K = build_jwt.load_keys(KEYS)
POLICY = gates.limited("allowed.example")
AUTH = {"issuer": "egress-control.test", "audience": "egress-proxy"}


def key_set(verifier):
    return {"keys": [build_jwt.to_jwk(K[build_jwt.VERIFIERS[verifier]], verifier)]}


def lab_of(verifier):
    def prepare(gate):
        gate.write("verifier.json", json.dumps(key_set(verifier)))
        os.chmod(gate.path("verifier.json"), 0o600)
        gate.config["auth"]["keys"] = gate.path("verifier.json")
        gate.write_config()
    lab = Lab(POLICY, {"auth": {**AUTH, "allow_hmac": verifier == "HS256"}}, prepare)
    return lab


class Lab(vectors.Lab):
    """A gate with one name, its origin and a name server that counts."""

    def __init__(self, policy, config=None, prepare=None):
        self.dns = DnsStub(default={"A": [netns.ORIGIN]})
        self.origins = [Origin(netns.ORIGIN, 80)]
        self.gate = gates.Gate({"default": policy}, config, dns=self.dns, prepare=prepare).start()
        self.rows = 0


def credentials(token):
    """The ways in which clients carry a token; a field cannot carry every byte."""
    yield "Basic", b"Basic " + base64.b64encode(b"sandbox:" + token)
    if re.fullmatch(rb"[!-~]{1,8000}", token):
        yield "Bearer", b"Bearer " + token


def get(credential, host=b"allowed.example"):
    return b"GET http://" + host + b"/ HTTP/1.1\r\nHost: " + host + b"\r\nProxy-Authorization: " + credential + b"\r\n\r\n"


async def refused(lab, row, token):
    for scheme, credential in credentials(token):
        before = lab.counts()
        reply = await wire.talk(lab.gate.address, get(credential), source=lab.next_source(), seconds=20)
        # A token larger than a head may be, or with bytes that no field holds, is refused before it is read.
        why = vectors.why_not_refused(reply, [407, 400, 431] if len(token) > 16384 else [407, 400] if scheme == "Bearer" else [407])
        if why is None and reply.status == 407 and not str(reply.reason).startswith("token_"):
            why = f"x-deny-reason is {reply.reason}"
        if why is None:
            await vectors.settle_record(lab, reply.client)
            why = vectors.why_bad_record(lab, reply.client)
        if why is None and lab.counts() != before:
            why = f"name server, connections, requests: {lab.counts()} after {before}"
        if why:
            return f"{scheme}: {why}"
    return None


async def accepted(lab, row, token, sub=None):
    for scheme, credential in credentials(token):
        reply = await wire.talk(lab.gate.address, get(credential), source=lab.next_source(), seconds=10, linger=0.0)
        if reply.status != 200:
            return f"{scheme}: status {reply.status} ({reply.reason})"
        await vectors.settle_record(lab, reply.client)
        r = next((r for r in lab.gate.records("decision") if r["client"] == reply.client), {})
        if sub and r.get("sandbox") != sub:
            return f"{scheme}: the record names {r.get('sandbox')}"
    return None


async def does_not_widen(lab, row, token):
    reply = await wire.talk(lab.gate.address, get(basic(token.decode()).encode(), b"evil.example"), source=lab.next_source())
    return None if reply.status in (403, 407) else f"status {reply.status} for a host outside of the policy"


async def same_identity(lab, row, token):
    return await refused(lab, row, token) and await accepted(lab, row, token, "sb-1")


JUDGES = {"reject": refused, "accept": accepted, "accept-without-widening": does_not_widen, "reject-or-same-identity": same_identity}


async def replay(lab, rows):
    for row in rows:
        token = build_jwt.build(row, K, int(time.time()))
        why = await JUDGES[row["expect"]](lab, row, token)
        report(f"{row['id']} {row.get('cls', 'good')} {row['verifier']} ({row['reason']})", why)


@table
def tokens_of_the_tables():
    rows = [r for r in vectors.rows("jwt-bad.jsonl") + vectors.rows("jwt-good.jsonl") if r["kind"] == "token"]
    for verifier in build_jwt.VERIFIERS:
        lab = lab_of(verifier)
        before = lab.gate.descriptors()
        try:
            asyncio.run(replay(lab, [r for r in rows if r["verifier"] == verifier]))
            lab.gate.no_leak_since(before, slack=32)
        finally:
            lab.close()


# ---- a token's life (kind "context")

def simple_lab(config=None):
    return Lab(POLICY, config)


def status(lab, credential, **options):
    reply = wire.say(lab.gate.address, get(credential.encode() if isinstance(credential, str) else credential), linger=0.0, **options)
    return reply.status, reply.reason


def in_lab(function):
    """A case with a lab of its own, which is judged at the end."""
    def run():
        lab = simple_lab(getattr(function, "config", None))
        try:
            function(lab)
            lab.close()
        except BaseException:
            lab.gate.stop(check=False)
            print("  stderr of serve: " + lab.gate.stderr()[-2000:].replace("\n", "\n  "))
            lab.origins[0].close()
            raise
    run.__name__ = function.__name__
    return case(run)


@in_lab
def jb_279_a_bound_token_is_refused_elsewhere(lab):
    bound = lab.gate.credential("sb-1", cnf={"address": "127.0.0.9/32"})
    equal(status(lab, bound, source="127.0.0.9"), (200, None), "from its address")
    equal(status(lab, bound, source="127.0.0.10"), (407, "token_binding"), "from another")
    here = lab.gate.credential("sb-1", cnf={"listener": "main"})
    equal(status(lab, here), (200, None), "on its listener")
    equal(status(lab, lab.gate.credential("sb-1", cnf={"listener": "other"})), (407, "token_binding"), "on another listener")


@in_lab
def jb_281_282_290_a_revoked_token_is_dead_at_once(lab):
    one, two = lab.gate.credential("sb-1", jti="t-1"), lab.gate.credential("sb-2", jti="t-2")
    equal((status(lab, one)[0], status(lab, two)[0]), (200, 200), "before")
    gates.run("token", "revoke", "--file", lab.gate.path("revoked.json"), "--sub", "sb-1")
    eventually(lambda: status(lab, one) == (407, "token_revoked"), "the sandbox's token is refused", 3)
    equal(status(lab, one, source="127.0.0.77"), (407, "token_revoked"), "from another address")
    equal(status(lab, two)[0], 200, "another sandbox")
    gates.run("token", "revoke", "--file", lab.gate.path("revoked.json"), "--jti", "t-2")
    eventually(lambda: status(lab, two) == (407, "token_revoked"), "the token is refused by its jti", 3)


def jb_285_expiry_is_seen_between_two_requests(lab):
    now = int(time.time())
    data = get(lab.gate.credential("sb-1", iat=now - 1, exp=now + 2).encode())
    reply = asyncio.run(wire.talk(lab.gate.address, [(0, data), (3.5, data)], seconds=8, methods=["GET", "GET"]))
    equal([(m.status, m.reason) for m in reply.messages], [(200, None), (407, "token_expired")], "answers on one connection")


jb_285_expiry_is_seen_between_two_requests.config = {"auth": {"leeway_s": 0}}
in_lab(jb_285_expiry_is_seen_between_two_requests)


@in_lab
def jb_286_a_retired_key_verifies_nothing(lab):
    gate = lab.gate
    old = gate.credential()
    gates.run("token", "keygen", "--alg", "ES256", "--kid", "k2", "--private", gate.path("key2.pem"), "--jwks", gate.path("jwks.json"))
    new = basic(gates.run("token", "mint", "--key", gate.path("key2.pem"), "--kid", "k2", "--sub", "sbx-1", "--aud", "sallyport").stdout.strip())
    eventually(lambda: status(lab, new)[0] == 200, "the new key is in use", 3)
    equal(status(lab, old)[0], 200, "the old key during the overlap")
    with open(gate.path("jwks.json")) as f:
        keys = [k for k in json.load(f)["keys"] if k["kid"] == "k2"]
    gate.write("jwks.json", json.dumps({"keys": keys}))
    eventually(lambda: status(lab, old) == (407, "token_signature"), "the retired key", 3)
    equal(status(lab, new)[0], 200, "the new key")


@in_lab
def jb_288_an_emptied_key_file_changes_nothing(lab):
    gate, good = lab.gate, lab.gate.credential()
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=")
    claims = lab.gate.token().split(".")[1].encode()
    gate.write("jwks.json", "")
    gate.reload()
    eventually(lambda: "jwks.json" in gate.stderr(), "the alarm about the key file", 5)
    equal(status(lab, good)[0], 200, "the old keys")
    equal(status(lab, basic((head + b"." + claims + b".").decode()))[0], 407, "a token with alg none")
    equal(status(lab, basic("")) [0], 407, "an empty token")


@case
def jb_289_the_clock_steps_back():
    raise Skip("no fake clock reaches a static vDSO call; the token's times are unit tested with given times")


@in_lab
def jb_292_the_token_is_nowhere(lab):
    gate, token = lab.gate, lab.gate.token()
    wrong = token[:-8] + "AAAAAAAA"
    replies = [wire.say(gate.address, get(basic(t).encode(), h)) for t in (token, wrong) for h in (b"allowed.example", b"evil.example")
               if (t, h) != (token, b"allowed.example")]
    replies.append(wire.say(gate.address, get(basic(token).encode()), linger=0.0))
    time.sleep(0.2)
    places = {"the records": b"\n".join(gate.record_lines()), "standard error": gate.stderr().encode(), "/metrics": gate.admin("/metrics")[1].encode(),
              "/denials": gate.admin("/denials")[1].encode(), "the origin": lab.origins[0].seen_since(0), "answers": b"".join(r.data for r in replies)}
    for place, text in places.items():
        for t in (token, wrong):
            for secret in (t, t.split(".")[2], base64.b64encode(f"sandbox:{t}".encode()).decode()[40:]):
                expect(secret.encode() not in text, f"{place}: holds {secret[:12]}…")


# ---- start-up refusals (kind "config")

def starts_not(name, keys=None, mode=0o600, auth=None, make=None):
    def prepare(gate):
        path = gate.path("bad-keys.json")
        if make:
            make(path)
        elif keys is not None:
            with open(path, "w") as f:
                f.write(keys)
            os.chmod(path, mode)
        gate.config["auth"]["keys"] = path
        gate.write_config()
    try:
        exit_status, text = gates.Gate({"default": POLICY}, {"auth": auth or {}}, prepare=prepare).refuses_to_start()
        why = None if exit_status == 2 else f"exit status {exit_status}, expected 2: {text.strip()[-300:]}"
        why = why or (None if "bad-keys.json" in text else f"the error does not name the file: {text.strip()[-300:]}")
    except cases.Failed as e:
        why = str(e)
    report(name, why)


@table
def key_files_that_forbid_a_start():
    p256, p384 = (build_jwt.to_jwk(K[n], "ES256") for n in ("p256", "p384"))
    with open(os.path.join(KEYS, "p256.key")) as f:
        private = f.read()
    oct_key = key_set("HS256")
    starts_not("jb-293 key file missing")
    starts_not("jb-294 key file empty", "")
    starts_not("jb-294 key set empty", '{"keys":[]}')
    starts_not("jb-295 key file unreadable", make=os.mkdir)
    starts_not("jb-302 ES256 with a P-384 key", json.dumps({"keys": [p384]}))
    starts_not("jb-303 private key where a public key is expected", private)
    starts_not("jb-303 private JWK", json.dumps({"keys": [{**p256, "d": "A" * 43}]}))
    starts_not("jb-304 secret readable by others", json.dumps(oct_key), mode=0o644, auth={"allow_hmac": True})
    starts_not("jb-305 alg any", json.dumps({"keys": [{**p256, "alg": "any"}]}))
    starts_not("jb-305 alg none", json.dumps({"keys": [{**p256, "alg": "none"}]}))
    starts_not("jb-307 two keys with one kid", json.dumps({"keys": [p256, p256]}))
    starts_not("jb-308 certificate instead of a key", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    starts_not("an HMAC key without allow_hmac", json.dumps(oct_key))


if __name__ == "__main__":
    cases.at_end(lambda: shutil.rmtree(KEYS, ignore_errors=True))
    cases.main()
