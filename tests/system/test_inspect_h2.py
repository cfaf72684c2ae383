#!/usr/bin/env python3
"""Inspection of HTTP/2: curl, Node and h2load through a real gate to nginx, Node and nghttpd; frames by hand for what no client sends."""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from harness import netns
netns.enter()
from harness import cases
from harness import gate as gates, h2
from harness.cases import Skip, case, equal, expect
from harness.h2 import block, frame
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-h2-")
os.chmod(FOLDER, 0o755)
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "harness")
CA = Authority(FOLDER)
HOST, RULED, OTHER, LOADED, BAD = "h2.shop.example", "ruled.shop.example", "other.shop.example", "load.shop.example", "bad.shop.example"
ORIGIN, BAD_ORIGIN = "127.0.9.50", "127.0.9.51"
RULES = [{"id": "read", "host": RULED, "methods": ["GET"], "path": "^/(index|echo)", "action": "allow"}, {"id": "no-more", "host": RULED, "action": "deny"}]


# ---- the world

def tool(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        raise Skip(f"{name} is not installed")
    return found


class NodeOrigin:
    def __init__(self, address, certificate):
        self.log = os.path.join(FOLDER, f"origin-{address}.log")
        out = open(self.log, "w")
        self.process = subprocess.Popen([tool("node"), os.path.join(HERE, "h2origin.js"), address, "443", *certificate], stdout=out,
                                        preexec_fn=netns.die_with_parent)
        cases.eventually(lambda: "ready" in self.lines(), "the origin answers", 10)

    def lines(self):
        with open(self.log) as f:
            return f.read().splitlines()

    def requests(self, path):
        return [l for l in self.lines() if l.split(" ")[1:2] == [path]]

    def stop(self):
        self.process.kill()
        self.process.wait()


def start_gate(policy=None, limits=None, **inspect):
    if not os.path.exists(os.path.join(FOLDER, "ca")):
        gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    hosts = {HOST: [ORIGIN], RULED: [ORIGIN], OTHER: [ORIGIN], BAD: [BAD_ORIGIN], LOADED: [netns.OTHER_ORIGIN]}
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca"), **inspect}, "limits": limits or {},
              "upstream": {"hosts": hosts, "ca_file": CA.path, "allow_addresses": ["127.0.9.0/24"]}}
    document = gates.limited(HOST, RULED, OTHER, BAD, LOADED, rules=RULES, inspect={"mode": "all"}, **(policy or {}))
    return gates.Gate({"default": document}, config).start()


def node(test, *args, host=HOST, sub=None):
    p = subprocess.run([tool("node"), os.path.join(HERE, "h2client.js"), gate.address[0], str(gate.address[1]), gate.credential(sub or test),
                        os.path.join(FOLDER, "ca/ca.pem"), host, test, *args], capture_output=True, text=True, timeout=60)
    expect(p.returncode == 0 and p.stdout, f"node {test}: {p.stderr[-500:]}")
    return json.loads(p.stdout)


def curl(*args, sub="curl"):
    p = subprocess.run([tool("curl"), "-sS", "--cacert", os.path.join(FOLDER, "ca/ca.pem"), "-x", gate.proxy_url(sub), *args], capture_output=True,
                       text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": FOLDER})
    return p.stdout + p.stderr


# ---- frames by hand

def request(authority=HOST, path="/index.html", **more):
    return h2.request(authority, path, **more)


class Raw(h2.Client):
    def __init__(self, sub, host=HOST):
        super().__init__(gate, os.path.join(FOLDER, "ca/ca.pem"), host, sub)


def outcome(payload, stream=1, sub="raw"):
    """What becomes of one request: ("body", bytes of it) or ("reset", code) or ("goaway", code)."""
    raw = Raw(sub)
    raw.send(frame(1, 5, stream, payload))
    body = b""
    for kind, flags, sid, data in raw.frames(lambda f: f[0] in (3, 7) or (f[2] == stream and f[0] in (0, 1) and f[1] & 1)):
        if kind == 3:
            return "reset", int.from_bytes(data, "big")
        if kind == 7:
            return "goaway", int.from_bytes(data[4:8], "big")
        if kind == 0:
            body += data
    raw.close()
    return "body", body


# ---- what is allowed

@case
def a_page_by_curl():
    out = curl("-v", "--http2", f"https://{HOST}/index.html")
    expect("hello from h2" in out and "HTTP/2 200" in out, out[-600:])
    expect("alt-svc" not in out, "Alt-Svc would lead round the gate")
    tunnel, inner = gate.record("decision", entry="connect", sandbox="curl"), gate.record("decision", entry="inspected", sandbox="curl")
    equal((inner["parent"], inner["method"], inner["path"], inner["decision"]), (tunnel["id"], "GET", "/index.html", "allow"), "the request's record")
    equal(gate.record("close", id=inner["id"])["status"], 200, "status")
    equal(gate.record("close", id=tunnel["id"])["alpn"], "h2", "ALPN in the record")


@case
def many_streams_by_curl():
    out = curl("-Z", "--http2", *[f"https://{HOST}/index.html?n={n}" for n in range(30)], sub="parallel")
    equal(out.count("hello from h2"), 30, "pages")
    cases.eventually(lambda: len(gate.records("close", sandbox="parallel")) == 30 + len(gate.records("decision", entry="connect", sandbox="parallel")),
                     "each request and each tunnel closed once", 10)


@case
def a_page_by_node():
    r = node("get")
    equal((r["status"], r["text"]), (200, "hello from h2\n"), "the page")
    expect(r["headers"]["via"] == "2 sallyport", r["headers"])
    equal(origin.requests("/index.html")[-1].split(" ")[2:], [HOST, "2", "sallyport", "DELETE"], "what the origin saw")


@case
def grpc_unary_and_streaming():
    equal(node("grpc"), [True] * 50, "unary calls with bodies and trailers both ways")
    r = node("bidi")
    equal((r["status"], r["bytes"], r["trailers"]["grpc-status"]), (200, 100, "0"), "a stream of messages")
    r = node("unimplemented")
    equal((r["status"], r["headers"]["grpc-status"], r["code"]), (200, "12", 0), "an answer of trailers alone")


@case
def interim_answers_pass():
    r = node("hints")
    equal((r["hints"], r["status"], r["text"]), (1, 200, "hinted"), "103 and 200")


@case
def large_bodies_both_ways():
    r = node("upload")
    equal((r["bytes"], r["trailers"]["x-bytes"]), (20 << 20, str(20 << 20)), "20 MiB up and down")
    cases.eventually(lambda: any(c["bytes_up"] >= 20 << 20 and c["bytes_down"] >= 20 << 20 for c in gate.records("close", sandbox="upload")), "counted")


@case
def a_slow_stream_does_not_hold_its_neighbours():
    equal(node("slow"), [400 * 65536] * 3, "three large answers beside one that is not read")


@case
def resets_and_goaway_pass_through():
    refused, half, after = node("refused")
    equal((refused["code"], half["code"], half["text"], after["status"]), (7, 2, "half", 200), "codes of the origin")
    equal(node("cancel")["code"], 8, "cancelled")
    cases.eventually(lambda: "hang closed 8" in origin.lines(), "the origin sees the client's reset")
    r, said = node("goaway")
    equal((r["status"], r["text"], said), (200, "last", True), "GOAWAY")


@case
def an_answer_before_the_request_has_ended():
    r = node("early")
    equal((r["status"], r["text"]), (413, "too much"), "413")


@case
def an_upstream_that_vanishes_is_reported():
    r = node("vanish")
    equal((r.get("status"), r["headers"]["x-deny-reason"]), (502, "upstream_closed"), "502")
    equal(node("407")["status"], 502, "a 407 of the origin never reaches the client")


# ---- what is refused

@case
def rules_judge_streams():
    equal(node("path", "/index.html", host=RULED, sub="ruled")["status"], 200, "allowed")
    r = node("path", "/private", host=RULED, sub="ruled")
    equal((r["status"], r["headers"]["x-deny-reason"], r["headers"]["content-type"]), (403, "path_not_allowed", "application/problem+json"), "refused")
    equal(json.loads(r["text"])["reason"], "path_not_allowed", "the body says why")
    equal(node("path", "/index/../private", host=RULED, sub="ruled")["status"], 403, "dot segments")
    equal(node("path", "/echo", "POST", host=RULED, sub="ruled")["headers"]["x-deny-reason"], "method_not_allowed", "method")
    expect(not origin.requests("/private"), "the origin saw none of it")
    gate.record("decision", entry="inspected", host=RULED, path="/private", decision="deny", reason="path_not_allowed")


@case
def fronting_and_nonsense_are_refused():
    before = len(origin.lines())
    for payload, reason in ((request(OTHER), b"host_mismatch"), (request("evil.example"), b"host_mismatch"), (request(HOST + ":444"), b"host_mismatch"),
                            (request(scheme="http"), b"request_malformed"), (request("%41"), b"request_malformed"),
                            (request(path="/%zz"), b"request_malformed"), (request(method="TRACE"), b"method_not_allowed"),
                            (request(method="BREW"), b"method_not_allowed"), (block((":method", "CONNECT"), (":authority", HOST + ":443")), b"request_malformed")):
        kind, body = outcome(payload, sub="fronting")
        expect(kind == "body" and b'"reason":"%s"' % reason in body.replace(b": ", b":"), f"{reason}: {kind} {body}")
    equal(gate.record("decision", entry="inspected", sandbox="fronting", reason="host_mismatch")["decision"], "deny", "the record")
    for payload in (request() + block(("host", OTHER)), request() + block(("connection", "close")), request() + block(("X-A", "1")), request() + block(("a", "x\r\ny")),
                    request() + block(("transfer-encoding", "chunked")), request(path="/ HTTP/1.1"),
                    block((":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", HOST), (":path", "/"))):
        equal(outcome(payload, sub="malformed"), ("reset", 1), payload)
    expect(gate.record("decision", entry="inspected", sandbox="malformed")["reason"] == "request_malformed", "recorded")
    equal(len(origin.lines()), before, "requests that reached the origin")


@case
def prior_knowledge_is_refused():
    out = curl("-v", "--http2-prior-knowledge", "-p", f"http://{HOST}:443/index.html", sub="prior")
    expect("hello" not in out, out[-300:])
    gate.record("close", sandbox="prior", reason="not_tls")


@case
def rapid_reset_ends_the_connection():
    before = len(origin.requests("/hang"))
    raw = Raw("rapid")
    payload = request(path="/hang")
    for n in range(20):
        raw.send(b"".join(frame(1, 5, 1 + 2 * i, payload) + frame(3, 0, 1 + 2 * i, struct.pack(">I", 8)) for i in range(n * 50, n * 50 + 50)))
    last = [f for f in raw.frames(lambda f: f[0] == 7) if f[0] == 7]
    expect(last and int.from_bytes(last[0][3][4:8], "big") == 11, f"no GOAWAY ENHANCE_YOUR_CALM: {last}")
    expect(len(origin.requests("/hang")) - before <= 128, "requests that reached the origin")
    equal(gate.record("close", sandbox="rapid", cause="protocol_error")["client_fault"], "rapid reset", "the tunnel's record")


@case
def a_bad_upstream_is_reported_to_each_stream():
    r = node("path", "/index.html", host=BAD, sub="bad")
    expect(r.get("failed") == "ALPN http/1.1" or r.get("headers", {}).get("x-deny-reason") == "upstream_tls", r)
    raw = Raw("bad-h2", host=BAD)
    raw.send(frame(1, 5, 1, request(BAD)))
    body = b"".join(f[3] for f in raw.frames(lambda f: f[0] == 0 and f[1] & 1) if f[0] == 0)
    expect(b"upstream_tls" in body, body)
    equal([l for l in bad.lines() if l != "ready"], [], "requests that reached it")


@case
def limits_of_the_policy_hold():
    global gate
    outer = gate
    gate = start_gate(policy={"limits": {"requests_per_minute": 10}})
    try:
        raw = Raw("limited")
        raw.send(b"".join(frame(1, 5, 1 + 2 * n, request()) for n in range(20)))
        ended = []
        got = raw.frames(lambda f: f[0] == 0 and f[1] & 1 and (ended.append(f) or len(ended) == 20))
        refused = [f for f in got if f[0] == 0 and b'"limit_requests"' in f[3]]
        equal(len(refused), 11, "refused of 20, when CONNECT was the first of 10")
    finally:
        gate.stop()
        gate.cleanup()
        gate = outer


# ---- load

class Connector(threading.Thread):
    """For clients that know no proxy: a port that leads through the gate's CONNECT to one host."""

    def __init__(self, host, sub):
        super().__init__(daemon=True)
        self.head = f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: {gate.credential(sub)}\r\n\r\n".encode()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        up = socket.create_connection(gate.address)
        up.sendall(self.head)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += up.recv(1)
        other = threading.Thread(target=self.copy, args=(s, up), daemon=True)
        other.start()
        self.copy(up, s)

    def copy(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Nghttpd:
    def __init__(self, *options):
        www = os.path.join(FOLDER, "www")
        os.makedirs(www, exist_ok=True)
        with open(os.path.join(www, "page"), "w") as f:
            f.write("x" * 2000)
        certificate = CA.leaf(LOADED, file="load")
        self.process = subprocess.Popen([tool("nghttpd"), "-a", netns.OTHER_ORIGIN, "-d", www, *options, "443", certificate[1], certificate[0]],
                                        stdout=subprocess.DEVNULL, preexec_fn=netns.die_with_parent)

    @staticmethod
    def answers():
        try:
            socket.create_connection((netns.OTHER_ORIGIN, 443), 1).close()
            return True
        except OSError:
            return False

    def __enter__(self):
        cases.eventually(self.answers, "nghttpd answers", 10)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def h2load(sub, requests, connections, streams):
    connector = Connector(LOADED, sub)
    p = subprocess.run([tool("h2load"), "-n", str(requests), "-c", str(connections), "-m", str(streams), f"--connect-to=127.0.0.1:{connector.port}",
                        f"https://{LOADED}/page"], capture_output=True, text=True, timeout=120)
    line = next((l for l in p.stdout.splitlines() if l.startswith("requests:")), p.stdout + p.stderr)
    expect(f"{requests} succeeded, 0 failed, 0 errored" in line, line)


@case
def load_of_100_streams_on_16_connections():
    with Nghttpd():
        h2load("load", 8000, 16, 100)


@case
def a_server_of_two_streams_at_once():
    with Nghttpd("-m", "2"):
        h2load("narrow", 1000, 4, 50)
        pages = curl("-Z", "--http2", *[f"https://{LOADED}/page?n={n}" for n in range(60)], sub="narrow-curl")
        equal(pages.count("x" * 2000), 60, "pages by curl")
        raw = Raw("narrow-raw", LOADED)
        limits = lambda frames: [f[3] for f in frames if f[0] == h2.SETTINGS and not f[1] & h2.ACK]
        raw.send(frame(1, 5, 1, request(LOADED, "/page")))
        first = limits(raw.frames(lambda f: f[0] == 0 and f[1] & 1))
        raw.send(frame(h2.SETTINGS, h2.ACK, 0))
        second = limits(raw.frames(lambda f: f[0] == h2.SETTINGS and not f[1] & h2.ACK))
        expect(struct.pack(">HI", 3, 128) in first[0] and second == [struct.pack(">HI", 3, 2)], f"{first} {second}")
        raw.send(frame(h2.SETTINGS, h2.ACK, 0) + b"".join(frame(1, 5, n, request(LOADED, "/page")) for n in (3, 5)))
        for n in (3, 5):
            equal(len(raw.answer(n)[1]), 2000, "a page of two")
        raw.close()


@case
def a_server_changes_how_many_streams_it_takes():
    def serve(connection, number):
        connection.send(h2.settings((3, 1)))
        for kind, flags, stream, data in iter(connection.next, None):
            if kind == h2.HEADERS:
                connection.send(frame(h2.HEADERS, 5, stream, b"\x88") + h2.settings((3, 5)))
    server = h2.Server(netns.OTHER_ORIGIN, CA.leaf(LOADED, file="load"), serve)
    try:
        raw, told = Raw("changing", LOADED), []
        raw.send(frame(h2.SETTINGS, h2.ACK, 0))

        def is_new_limit(f):
            if f[0] == h2.SETTINGS and not f[1] & h2.ACK and f[3][:2] == b"\0\3":
                told.append(int.from_bytes(f[3][2:], "big"))
                raw.send(frame(h2.SETTINGS, h2.ACK, 0))
            return len(told) == wanted
        wanted = 1
        raw.frames(is_new_limit)
        wanted = 2
        raw.send(frame(1, 5, 1, request(LOADED, "/page")))
        raw.frames(is_new_limit)
        equal(told, [1, 5], "announced numbers of streams")
        raw.close()
    finally:
        server.stop()


@case
def extended_connect_is_never_offered():
    """RFC 8441, though the server offers it: clients then speak WebSocket over HTTP/1.1 (test_inspect_clients has a browser that does)."""
    def serve(connection, number):
        connection.send(h2.settings((8, 1)))
        for kind, flags, stream, data in iter(connection.next, None):
            if kind == h2.HEADERS:
                seen.append(data)
                connection.send(frame(h2.HEADERS, 5, stream, b"\x88"))
    seen = []
    server = h2.Server(netns.OTHER_ORIGIN, CA.leaf(LOADED, file="load"), serve)
    try:
        raw = Raw("extended", LOADED)
        first = raw.frames(lambda f: f[0] == h2.SETTINGS)[-1][3]
        expect(all(first[n:n + 2] != b"\0\x08" for n in range(0, len(first), 6)), f"SETTINGS_ENABLE_CONNECT_PROTOCOL is offered: {first}")
        raw.send(frame(1, 4, 1, block((":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", LOADED), (":path", "/ws"))))
        equal(raw.answer(1)[2], h2.PROTOCOL_ERROR, "a request with :protocol is reset")
        raw.send(frame(1, 5, 3, request(LOADED, "/page")))
        head, _, code = raw.answer(3)
        expect(head[:1] == b"\x88" and code is None, f"the connection does not go on: {head} {code}")
        equal(len(seen), 1, "requests that reached the server")
        equal(gate.record("decision", entry="inspected", sandbox="extended", decision="deny")["reason"], "request_malformed", "the record")
        raw.close()
    finally:
        server.stop()


# ---- faults, in words

@case
def faults_of_a_client_are_told():
    raw = Raw("broken")
    raw.send(frame(h2.PRIORITY, 0, 0, bytes(5)))
    raw.frames(lambda f: f[0] == h2.GOAWAY)
    equal(gate.record("close", sandbox="broken")["client_fault"], "PRIORITY: stream_id == 0", "what was wrong")


def told_of(sub, serve):
    """The refusal's body and the tunnel's record, with an upstream that does this."""
    server = h2.Server(netns.OTHER_ORIGIN, CA.leaf(LOADED, file="load"), serve)
    try:
        raw = Raw(sub, LOADED)
        raw.send(frame(1, 5, 1, request(LOADED, "/page")))
        _, body, code = raw.answer(1)
        raw.close()
        expect(b'"upstream_closed"' in body, f"{body} {code}")
        return body.decode(), gate.record("close", sandbox=sub, alpn="h2")
    finally:
        server.stop()


@case
def faults_of_an_upstream_are_told():
    def bad_frame(connection, number):
        connection.send(h2.settings() + frame(h2.PING, 0, 1, bytes(8)))
        connection.frames(lambda f: False)
    body, tunnel = told_of("badframe", bad_frame)
    expect("broke HTTP/2: PING: stream_id != 0" in body, body)
    equal(tunnel["upstream_fault"], "the server broke HTTP/2: PING: stream_id != 0", "the tunnel's record")

    def goes(connection, number):
        connection.send(h2.settings() + frame(h2.GOAWAY, 0, 0, struct.pack(">II", 0x7fffffff, h2.ENHANCE_YOUR_CALM) + b"never repeated"))
        connection.frames(lambda f: f[0] == h2.HEADERS)
    body, tunnel = told_of("goes", goes)
    expect("ended the connection: ENHANCE_YOUR_CALM" in body and "repeated" not in body, body)
    equal(tunnel["upstream_fault"], "the server ended the connection: ENHANCE_YOUR_CALM", "the tunnel's record")

    def no_message(connection, number):
        connection.send(h2.settings())
        connection.frames(lambda f: f[0] == h2.HEADERS)
        connection.send(frame(h2.HEADERS, 5, 1, h2.block((":status", "200"), ("Upper", "case"))))
        connection.frames(lambda f: False)
    body, tunnel = told_of("nomessage", no_message)
    expect("the answer is no HTTP/2 message, or was broken off: PROTOCOL_ERROR" in body, body)


@case
def a_slow_reader_holds_its_windows_and_no_more():
    pid = max((p for p in gate.children() if "worker" in gate.command_line(p)), key=lambda p: p)
    raws = []

    def resident():
        with open(f"/proc/{pid}/statm") as f:
            return int(f.read().split()[1]) * 4096
    before = resident()
    for n in range(4):
        raw = Raw(f"slow{n}")
        raw.send(frame(4, 0, 0, struct.pack(">HI", 4, 65535)) + frame(8, 0, 0, struct.pack(">I", 1 << 24)))
        for i in range(10):
            raw.send(frame(1, 5, 1 + 2 * i, request(path="/big")))
        raws.append(raw)
    time.sleep(3)
    grown = resident() - before
    expect(grown < 64 << 20, f"{grown} bytes for 40 streams of 26 MB that nobody reads")
    for raw in raws:
        raw.close()


@case
def a_refusal_that_nobody_reads_does_not_keep_the_tunnel():
    global gate
    outer = gate
    gate = start_gate(limits={"idle_timeout_ms": 1000})
    try:
        raw = Raw("unread", host=RULED)
        raw.send(frame(4, 0, 0, struct.pack(">HI", 4, 0)) + frame(1, 5, 1, request(RULED, "/private")))
        reset = [f for f in raw.frames(lambda f: f[0] == 3) if f[0] == 3]
        expect(reset and reset[0][2:] == (1, struct.pack(">I", 8)), f"the stream is not given up: {reset}")
        expect(any(f[0] == 7 for f in raw.frames(lambda f: False)), "no GOAWAY before the end")
        gate.record("close", sandbox="unread", host=RULED, cause="upstream_closed")
    finally:
        gate.stop()
        gate.cleanup()
        gate = outer


@case
def the_gate_ends_well():
    gate.stop()


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    origin.stop()
    bad.stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    try:
        origin = NodeOrigin(ORIGIN, CA.leaf(HOST, RULED, OTHER, file="h2"))
        bad = NodeOrigin(BAD_ORIGIN, CA.leaf("wrong.shop.example", file="h2bad"))
    except Skip as e:
        print(f"SKIP inspection of HTTP/2: {e}")
        sys.exit(0)
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
