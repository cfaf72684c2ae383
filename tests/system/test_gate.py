#!/usr/bin/env python3
"""The gate from outside, feature by feature: tunnels to TLS and plain ports, forwarding, resolution, listeners, records, admin."""
import asyncio
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

from harness import netns
netns.enter()
from harness import cases, wire
from harness import gate as gates
from harness.cases import case, equal, eventually, expect
from harness.dns import DnsStub
from harness.origin import Origin, echo
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-gate-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
POLICY = gates.limited("allowed.example", "other.example", "allowed.example:7")
DNS = DnsStub(default={"A": [netns.ORIGIN]})
WEB = Origin(netns.ORIGIN, 80)
RAW = Origin(netns.ORIGIN, 443, serve=echo)
ECHO = Origin(netns.ORIGIN, 7, serve=echo)


def gate(config=None, policy=None, dns=DNS, **options):
    return gates.Gate({"default": policy or POLICY}, config, dns=dns, **options)


def hello(name):
    """A ClientHello as a real client sends it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def refused_inside(g, target, data, reason, pieces=1):
    """A tunnel that is closed for what it begins with; the origin gets a connection at most and not one byte."""
    sub = f"in-{time.monotonic_ns()}"
    mark = RAW.accepted()
    t = g.tunnel(target, sub)
    equal(t.status, 200, "CONNECT")
    step = -(-len(data) // pieces)
    for i in range(0, len(data), step):
        t.send(data[i:i + step])
        time.sleep(0.01 if pieces > 1 else 0)
    expect(t.ended_within(3) is not None, f"{reason}: the tunnel stays open")
    close = g.record("close", sandbox=sub)
    equal((close.get("decision"), close.get("reason")), ("deny", reason), "the close record")
    equal(RAW.seen_since(mark), b"", "bytes that the origin got")


# ---- what a tunnel begins with

@case
def a_tunnel_to_a_tls_port_must_name_its_host():
    with gate() as g:
        refused_inside(g, "allowed.example:443", hello("other.example"), "sni_mismatch")
        refused_inside(g, "allowed.example:443", hello("other.example"), "sni_mismatch", pieces=7)
        refused_inside(g, "allowed.example:443", hello(None), "sni_missing")
        refused_inside(g, "allowed.example:443", b"GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n", "not_tls")
        refused_inside(g, "allowed.example:443", b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls")
        refused_inside(g, "allowed.example:443", b"\x16\x03\x01\x00\x05hello", "not_tls")
        equal({r["reason"] for r in g.records("decision")}, {"ok"}, "the decisions before")


@case
def a_fitting_hello_passes_however_it_is_cut():
    with gate() as g:
        for name in ("allowed.example", "ALLOWED.example"):
            data = hello(name)
            t = g.tunnel("allowed.example:443", "fit")
            for i in range(0, len(data), 97):
                t.send(data[i:i + 97])
                time.sleep(0.002)
            expect(t.read_exactly(len(data)) == data, "every byte of the hello arrives")
            t.close()
        equal(g.record("close", sandbox="fit")["sni"], "allowed.example", "the name in the record")


@case
def a_tunnel_to_a_plain_port_speaks_http_to_its_host():
    with gate() as g:
        t = g.tunnel("allowed.example:80", "plain")
        t.send(b"GET /x HTTP/1.1\r\nHost: allowed.example\r\n\r\n")
        expect(b"200 OK" in t.sock.recv(4096), "the origin answers")
        t.close()
        mark = WEB.accepted()
        for sub, data in (("p1", b"GET / HTTP/1.1\r\nHost: denied.example\r\n\r\n"), ("p2", b"\x16\x03\x01\x02\x00\x01"), ("p3", b"SSH-2.0-x\r\n")):
            t = g.tunnel("allowed.example:80", sub)
            t.send(data)
            t.ended_within(3)
            equal(g.record("close", sandbox=sub).get("decision"), "deny", f"the close record for {data[:20]!r}")
        equal(WEB.seen_since(mark), b"", "bytes that the origin got")


@case
def a_real_tls_session_runs_through():
    secure = Origin(netns.OTHER_ORIGIN, 443, tls=CA.leaf("other.example"))
    with gate({"upstream": {"hosts": {"other.example": [netns.OTHER_ORIGIN]}}}) as g:
        t = g.tunnel("other.example:443", "tls")
        context = ssl.create_default_context(cafile=CA.path)
        with context.wrap_socket(t.sock, server_hostname="other.example") as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
            expect(b"200 OK" in s.recv(4096), "the answer")
    secure.close()


# ---- forwarding

@case
def each_request_of_a_kept_connection_is_judged():
    with gate() as g:
        def head(host, sub):
            return f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {g.credential(sub)}\r\n\r\n".encode()
        data = head("allowed.example", "a") + head("denied.example", "a") + head("other.example", "a")
        reply = wire.say(g.address, data, seconds=3, linger=0.1, methods=["GET"] * 3)
        answers = [(m.status, m.reason) for m in reply.messages]
        equal(answers[:2], [(200, None), (403, "host_not_allowed")], "answers in order")
        # A refusal may end the connection; what comes after it is judged by itself or not at all.
        expect(answers[2:] == [(200, None)] or (answers[2:] == [] and reply.closed), f"after the refusal: {answers[2:]} {reply.closed}")
        eventually(lambda: len(g.records("decision", client=reply.client)) == len(answers), "a decision record for each answer")


@case
def upstream_connections_are_not_shared_between_sandboxes():
    with gate() as g:
        mark = WEB.accepted()
        for sub in ("a", "a", "b", "b"):
            head = f"GET http://allowed.example/{sub} HTTP/1.1\r\nHost: allowed.example\r\nProxy-Authorization: {g.credential(sub)}\r\n\r\n"
            equal(wire.say(g.address, head.encode(), linger=0.0).status, 200, "the answer")
        for c in WEB.connections[mark:]:
            equal(len({r.path for r in c.requests}), 1, "sandboxes on one connection")


@case
def methods_and_paths_of_plain_requests():
    policy = {**gates.limited(), "rules": [
        {"id": "read", "host": "allowed.example", "scheme": "http", "methods": ["GET", "HEAD", "PROPFIND"], "path": "^/open/", "action": "allow"}]}
    with gate(policy=policy) as g:
        def ask(method, path):
            head = f"{method} http://allowed.example{path} HTTP/1.1\r\nHost: allowed.example\r\nProxy-Authorization: {g.credential()}\r\nConnection: close\r\n\r\n"
            r = wire.say(g.address, head.encode())
            return r.status, r.reason
        equal(ask("GET", "/open/x"), (200, None), "an allowed path")
        equal(ask("PROPFIND", "/open/x"), (200, None), "a method that the policy adds")
        equal(ask("DELETE", "/open/x"), (403, "method_not_allowed"), "a method that no rule has")
        equal(ask("GET", "/closed"), (403, "path_not_allowed"), "a path that no rule has")
        equal(ask("TRACE", "/open/x"), (405, "method_not_allowed"), "TRACE")
        equal(ask("FOO", "/open/x")[0], 501, "an unknown method")
        for path in ("/open/../closed", "/open/%2e%2e/closed", "/open/..%2fclosed", "/open/%252e%252e/closed"):
            equal(ask("GET", path)[0], 403, path)
        equal(g.tunnel("allowed.example:80").status, 403, "a tunnel to what only a path opens")


@case
def answers_without_a_body():
    async def answer(connection, request):
        status = request.path.strip("/")
        connection.writer.write(f"HTTP/1.1 {status} X\r\n{'Content-Length: 5' if request.method == 'HEAD' else 'X: y'}\r\n\r\n".encode())
    origin = Origin(netns.OTHER_ORIGIN, 80, answer)
    with gate({"upstream": {"hosts": {"other.example": [netns.OTHER_ORIGIN]}}}) as g:
        for method, path, status in (("HEAD", "/200", 200), ("GET", "/204", 204), ("GET", "/304", 304)):
            head = f"{method} http://other.example{path} HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: {g.credential()}\r\n\r\n"
            reply = wire.say(g.address, head.encode() * 2, linger=0.05, methods=[method] * 2, seconds=3)
            equal([m.status for m in reply.messages], [status] * 2, f"{method} {path} twice on one connection")
            equal(reply.rest, b"", "bytes left over")
    origin.close()


@case
def other_forms_of_a_request_target():
    with gate() as g:
        for target, host in (("/", "allowed.example"), ("*", "allowed.example"), ("https://allowed.example/", "allowed.example"), ("allowed.example:80", "allowed.example")):
            head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {g.credential()}\r\n\r\n"
            reply = wire.say(g.address, head.encode())
            equal((reply.status, reply.reason, reply.closed), (400, "request_malformed", "eof"), target)
        detail = json.loads(wire.say(g.address, f"GET / HTTP/1.1\r\nHost: x\r\nProxy-Authorization: {g.credential()}\r\n\r\n".encode()).body)
        expect("proxy" in detail["detail"].lower(), f"the detail says that this is a proxy: {detail['detail']!r}")


@case
def a_refused_sender_can_still_read_why_and_is_not_read_for_ever():
    with gate() as g, socket.create_connection(g.address, 10) as s:
        s.sendall(f"POST http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\nProxy-Authorization: {g.credential()}\r\nContent-Length: 9000000000\r\n\r\n".encode())
        s.setblocking(False)
        began, taken = time.monotonic(), 0
        while time.monotonic() < began + 1:
            try:
                taken += s.send(bytes(1 << 16))
            except BlockingIOError:
                time.sleep(0.01)
        expect(taken < 64 << 20, f"{taken} bytes of a refused body were taken in a second")  # what the kernel's buffers hold, and a little
        s.settimeout(5)
        expect(s.recv(4096).startswith(b"HTTP/1.1 403 "), "the answer is there after all that was sent")
        def ended():
            try:
                s.send(b"x")
            except BlockingIOError:
                return False
            except OSError:
                return True
        s.setblocking(False)
        eventually(ended, "the connection is given up", 4)


@case
def a_refusal_explains_itself():
    with gate() as g:
        reply = g.get("http://denied.example/x?secret=1")
        m = reply.messages[0]
        equal((m.status, m.phrase, m.reason), (403, "Egress denied: host_not_allowed", "host_not_allowed"), "the status line and reason")
        expect((m.field("proxy-status") or "").startswith("sallyport; error=http_request_denied"), f"Proxy-Status: {m.field('proxy-status')}")
        equal(m.field("content-type"), "application/problem+json", "content-type")
        body = json.loads(m.body)
        equal((body["status"], body["host"], body["port"], body["reason"]), (403, "denied.example", 80, "host_not_allowed"), "the body")
        for member in ("type", "title", "detail", "instance", "rule"):
            expect(member in body, f"the body has {member}")
        expect("allowed.example" not in reply.data.decode(), "the refusal names another host of the policy")
        equal(body["instance"].rsplit("/", 1)[-1].rsplit(":", 1)[-1], g.record("decision", client=reply.client)["id"], "instance is the record's id")


# ---- resolution

@case
def a_name_is_resolved_after_the_record_and_shared():
    dns = DnsStub(table={"allowed.example": {"A": [netns.ORIGIN], "delay": 0.3, "ttl": 60}})
    with gate(dns=dns) as g:
        async def many():
            heads = [f"GET http://allowed.example/{n} HTTP/1.1\r\nHost: allowed.example\r\nProxy-Authorization: {g.credential('d')}\r\nConnection: close\r\n\r\n"
                     for n in range(8)]
            return await asyncio.gather(*(wire.talk(g.address, h.encode()) for h in heads))
        equal({r.status for r in asyncio.run(many())}, {200}, "answers")
        expect(dns.queries["allowed.example"] <= 2, f"8 requests made {dns.queries['allowed.example']} queries (A and AAAA once)")
        g.get("http://allowed.example/")
        expect(dns.queries["allowed.example"] <= 2, "an answer within its TTL is asked for again")
        events = [json.loads(l) for l in g.record_lines()]
        first = {e: next((r["seq"] for r in events if r["event"] == e and r.get("host") == "allowed.example"), None) for e in ("resolve", "decision")}
        expect(first["resolve"] and first["resolve"] < first["decision"], f"the resolve record comes first: {first}")
    dns.close()


@case
def dns_faults_are_failures_not_dials():
    rows = {"nx.example": {"rcode": "NXDOMAIN"}, "fail.example": {"rcode": "SERVFAIL"}, "refused.example": {"rcode": "REFUSED"},
            "empty.example": {"A": []}, "silent.example": {"silent": True}, "loop.example": {"CNAME": "loop.example"}}
    dns = DnsStub(table=rows)
    with gate({"upstream": {"dns_timeout_ms": 500}}, gates.limited(*rows), dns=dns) as g:
        mark = WEB.accepted()
        for name in rows:
            reply = g.get(f"http://{name}/", seconds=8)
            equal((reply.status, reply.reason), (502, "dns_failure"), name)
        equal(WEB.accepted(), mark, "connections")
    dns.close()


@case
def many_answers_come_over_tcp_and_too_many_refuse():
    many = [f"198.51.100.{n}" for n in range(1, 60)]
    dns = DnsStub(table={"many.example": {"A": [netns.ORIGIN] + many}, "toomany.example": {"A": [f"198.51.100.{n}" for n in range(1, 80)]}})
    with gate({"upstream": {"allow_addresses": ["198.51.100.0/24"], "connect_timeout_ms": 3000}}, gates.limited("many.example", "toomany.example"), dns=dns) as g:
        equal(g.get("http://many.example/").status, 200, "60 answers")
        equal(g.get("http://toomany.example/").reason, "address_not_allowed", "79 answers")
    dns.close()


@case
def the_next_address_is_tried():
    with gate({"upstream": {"hosts": {"allowed.example": ["198.51.100.99", netns.ORIGIN]}, "allow_addresses": ["198.51.100.99/32"], "connect_timeout_ms": 4000}}) as g:
        began = time.monotonic()
        equal(g.get("http://allowed.example/").status, 200, "the answer")
        expect(time.monotonic() - began < 2, "falling back took too long")


@case
def dial_failures_have_their_reasons():
    with gate({"upstream": {"hosts": {"other.example": ["198.51.100.99"], "allowed.example": [netns.ORIGIN]}, "allow_addresses": ["198.51.100.99/32"],
                            "connect_timeout_ms": 700}}, gates.limited("other.example", "allowed.example:81")) as g:
        equal(g.get("http://allowed.example:81/").reason, "upstream_refused", "nobody listens")
        expect(g.get("http://other.example/").reason in ("upstream_unreachable", "upstream_timeout"), "no route")


@case
def the_proxys_own_sockets_are_never_dialled():
    with gate({"default_ports": [80, 443], "upstream": {"hosts": {"self.example": ["127.0.0.1"]}, "allow_addresses": ["127.0.0.0/8", "127.0.0.1/32"]}},
              gates.limited("allowed.example")) as g:
        g.write_policy("self", gates.limited(f"self.example:{g.port}", f"127.0.0.1:{g.port}"))
        credential = g.credential(policy="self")
        eventually(lambda: g.get(f"http://self.example:{g.port}/", credential=credential).reason != "policy_unknown", "the policy is there")
        equal(g.get(f"http://self.example:{g.port}/", credential=credential).reason, "address_not_allowed", "by name")
        equal(g.get(f"http://127.0.0.1:{g.port}/", credential=credential).reason, "address_not_allowed", "by address")


@case
def names_that_are_never_asked_for():
    names = ["localhost", "printer", "metadata.google.internal", "host.local", "1.0.0.127.in-addr.arpa", "x.onion", "x.test", "x.invalid", "nas.home.arpa"]
    dns = DnsStub(default={"A": [netns.ORIGIN]})
    with gate(policy={"version": 1, "networking": {"type": "unrestricted"}}, dns=dns) as g:
        for name in names:
            equal(g.get(f"http://{name}/").reason, "host_not_allowed", name)
        equal(dns.asked(), 0, f"queries: {dict(dns.queries)}")
        equal(g.get("http://anything.example/").status, 200, "an unrestricted name")
    dns.close()


# ---- listeners

@case
def proxy_protocol_tells_the_client():
    with gate(prepare=lambda g: (g.config["listen"][0].update(proxy_protocol=True), g.write_config())) as g:
        head = f"GET http://allowed.example/ HTTP/1.1\r\nHost: allowed.example\r\nProxy-Authorization: {g.credential('pp')}\r\nConnection: close\r\n\r\n".encode()
        v2 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", 12) + socket.inet_aton("203.0.113.7") + socket.inet_aton("203.0.113.1") + struct.pack("!HH", 4711, 3128)
        equal(wire.say(g.address, v2 + head).status, 200, "with a PROXY header")
        equal(wire.say(g.address, [(0, v2[:5]), (0.02, v2[5:20]), (0.02, v2[20:] + head)]).status, 200, "with a PROXY header in pieces")
        equal(g.record("decision", sandbox="pp")["client"], "203.0.113.7:4711", "the client in the record")
        expect(wire.say(g.address, head, seconds=3).status != 200, "without a PROXY header")


@case
def a_listener_with_a_token_needs_none_from_the_client():
    def prepare(g):
        g.write("listener.token", g.token("owner"), 0o600)
        g.config["listen"][0]["token_file"] = g.path("listener.token")
        g.write_config()
    with gate(prepare=prepare) as g:
        bare = b"GET http://allowed.example/ HTTP/1.1\r\nHost: allowed.example\r\nConnection: close\r\n\r\n"
        equal(wire.say(g.address, bare).status, 200, "without a credential")
        equal(g.record("decision")["sandbox"], "owner", "whose it is")
        equal(g.get("http://allowed.example/", "owner").status, 200, "with the same sandbox's token")
        equal(g.get("http://allowed.example/", "thief").reason, "token_binding", "with another sandbox's token")
        g.write("listener.token", g.token("owner", policy="nope"), 0o600)
        eventually(lambda: wire.say(g.address, bare).reason == "policy_unknown", "a changed token is in use", 3)


@case
def connections_for_dns_make_room_when_they_end():
    port = gates.free_port()

    def prepare(g):
        g.write("listener.token", g.token("owner"), 0o600)
        g.config["listen"].append({"name": "dns", "address": f"127.0.0.1:{port}", "kind": "dns", "token_file": g.path("listener.token")})
        g.write_config()
    with gate({"limits": {"connections": 4}}, prepare=prepare) as g:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7allowed\7example\0\0\1\0\1"
        for s in held:
            s.sendall(struct.pack("!H", len(query)) + query)
            expect(b"\x12\x34" in s.recv(512), "an answer")
        for s in held:
            s.close()
        equal(g.get("http://allowed.example/", "later").status, 200, "a request after all of them have gone")


@case
def inherited_sockets_and_readiness():
    g = gate()
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(g.path("notify"))
    os.chmod(g.path("notify"), 0o777)
    g.config["listen"] = [{"name": "main", "fd": "front"}]
    g.write_config()
    g.address = listening.getsockname()
    script = ('import os, sys\nfd = int(sys.argv[1])\nos.dup2(fd, 3)\nos.set_inheritable(3, True)\n'
              'os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="front", NOTIFY_SOCKET=sys.argv[2])\n'
              'os.execv(sys.argv[3], sys.argv[3:])')
    g.stderr_file = open(g.path("stderr"), "ab")
    g.process = subprocess.Popen([sys.executable, "-c", script, str(listening.fileno()), g.path("notify"), gates.binary(), "serve", "--config", g.path("config.json")],
                                 pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL, stdout=g.stderr_file, stderr=g.stderr_file, cwd=gates.ROOT)
    notify.settimeout(15)
    try:
        with g:
            expect(b"READY=1" in notify.recv(4096), "READY=1 on NOTIFY_SOCKET")
            equal(g.get("http://allowed.example/").status, 200, "a request on the inherited socket")
    except socket.timeout:
        raise cases.Failed(f"no READY=1 on NOTIFY_SOCKET: {g.stderr()[-500:]}")
    listening.close()


@case
def a_parent_proxy_is_used_without_dns():
    dns = DnsStub(default={"A": [netns.ORIGIN]})
    with gate() as parent:
        def prepare(g):
            g.write("parent.token", parent.token("parent"), 0o600)
            g.config["upstream"].update(parent=f"http://127.0.0.1:{parent.port}", parent_token_file=g.path("parent.token"))
            g.write_config()
        with gate(policy=gates.limited("allowed.example", "allowed.example:7", "closed.example"), dns=dns, prepare=prepare) as g:
            equal(g.get("http://allowed.example/", "child").status, 200, "a plain request")
            t = g.tunnel("allowed.example:7", "child")
            expect(t.status == 200 and t.echo(), "a tunnel")
            t.close()
            equal(g.get("http://denied.example/", "child").reason, "host_not_allowed", "the child's own verdict")
            reply = g.get("http://closed.example/", "child")
            equal((reply.status, reply.reason), (403, "host_not_allowed"), "the parent's verdict")
            equal(dns.asked(), 0, "queries of the child")
            equal({r["sandbox"] for r in parent.records("decision")}, {"parent"}, "who the parent sees")
    dns.close()


# ---- policies by token

@case
def policies_that_tokens_name_and_carry():
    with gate() as g:
        g.write_policy("narrow", gates.limited("other.example"))
        named = g.credential(policy="narrow")
        eventually(lambda: g.get("http://other.example/", credential=named).status == 200, "the named policy")
        equal(g.get("http://allowed.example/", credential=named).reason, "host_not_allowed", "a host of another policy")
        equal(g.get("http://other.example/", credential=g.credential(policy="none")).reason, "policy_unknown", "a policy that is not there")
        equal(g.get("http://other.example/", credential=g.credential(policy="../jwks")).status, 407, "a path is no name")
        carried = g.credential(networking={"type": "limited", "allowed_hosts": ["carried.example"]})
        equal(g.get("http://carried.example/", credential=carried).status, 200, "a carried policy")
        equal(g.get("http://allowed.example/", credential=carried).reason, "host_not_allowed", "a host that it does not carry")
        for wide in ({"networking": {"type": "unrestricted"}}, {"allowed_hosts": "*"}, {"policy": "narrow", "allowed_hosts": ["a.example"]}):
            equal(g.get("http://allowed.example/", credential=g.credential(**wide)).reason, "token_claims", str(wide))
        import hashlib
        with open(g.path("policies/narrow.json"), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        equal(g.get("http://other.example/", credential=g.credential(policy="narrow", policy_sha256=digest)).status, 200, "the right digest")
        equal(g.get("http://other.example/", credential=g.credential(policy="narrow", policy_sha256="0" * 64)).reason, "policy_unknown", "a wrong digest")


@case
def report_mode_lets_through_and_says_so():
    with gate(policy={**POLICY, "mode": "report", "blocked_hosts": ["blocked.example"]}) as g:
        reply = g.get("http://anything.example/", "rep")
        equal(reply.status, 200, "a host that would be refused")
        r = g.record("decision", sandbox="rep")
        equal((r["decision"], r.get("would")), ("allow", "deny"), "the record")
        equal(g.get("http://blocked.example/", "rep").reason, "host_blocked", "a blocked host")


# ---- records and admin

@case
def durabilities_and_rotation():
    for durability in ("buffered", "written", "synced"):
        with gate({"record": {"durability": durability, "rotate_bytes": 20000}}) as g:
            for n in range(60):
                equal(g.get(f"http://allowed.example/{n}").status, 200, durability)
            g.stop()
            files = sorted(f for f in os.listdir(g.dir) if f.startswith("decisions.jsonl"))
            expect(len(files) > 1, f"{durability}: no file was rotated: {files}")
            gates.run("log", "verify", g.path("decisions.jsonl"))


@case
def an_edited_log_is_found():
    g = gate()
    with g:
        for n in range(5):
            g.get(f"http://allowed.example/{n}")
        g.stop()
        lines = g.record_lines()
        for name, edited in (("edit", [l.replace(b"/3", b"/9") for l in lines]), ("removal", lines[:4] + lines[5:]), ("order", lines[:3] + [lines[4], lines[3]] + lines[5:])):
            path = g.path("edited.jsonl")
            with open(path, "wb") as f:
                f.write(b"\n".join(edited) + b"\n")
            p = gates.run("log", "verify", path, status=1)
            expect(re.search(r"\b[0-9]+\b", p.stdout + p.stderr), f"{name}: verify says where: {p.stdout + p.stderr}")
        summary = gates.run("log", "summary", g.path("decisions.jsonl")).stdout
        expect("allowed.example" in summary, "the summary names the host")


@case
def the_admin_socket_answers():
    with gate() as g:
        g.get("http://allowed.example/")
        g.get("http://denied.example/")
        equal(g.admin("/healthz")[0], 200, "/healthz")
        equal(g.admin("/readyz")[0], 200, "/readyz")
        eventually(lambda: (g.metric("sallyport_requests_total") or 0) >= 2, "/metrics counts requests")
        metrics = g.admin("/metrics")[1]
        for name in ("sallyport_requests_total", "sallyport_tunnels_active", "sallyport_bytes_total", "sallyport_connect_duration_seconds",
                     "sallyport_decision_duration_seconds", "sallyport_token_verifications_total", "sallyport_dns_lookups_total", "sallyport_records_total",
                     "sallyport_policy_generation", "sallyport_build_info", "process_"):
            expect(name in metrics, f"/metrics has no {name}")
        expect("allowed.example" not in metrics and "sbx-1" not in metrics, "/metrics names a host or sandbox")
        expect("denied.example" in eventually(lambda: "denied.example" in g.admin("/denials")[1] and g.admin("/denials")[1], "/denials"), "/denials")
        status, scope = g.admin("/policy/default")
        expect(status == 200 and "allowed.example" in scope, f"/policy/default: {status} {scope[:200]}")
        equal(g.admin("/policy/none")[0], 404, "a policy that is not there")
        equal(g.admin("/nothing")[0], 404, "a page that is not there")


@case
def the_admin_process_starts_with_its_first_visitor():
    g = gate().spawn()
    with g:
        eventually(lambda: "serving with" in g.stderr(), "the gate serves")
        equal(g.get("http://allowed.example/").status, 200, "a request")
        equal(g.children("admin"), [], "nobody asked for the admin process")
        equal(g.admin("/readyz")[0], 200, "the first visitor's answer")
        equal(len(g.children("admin")), 1, "admin processes")
        expect(g.metric("process_open_fds") > 0, "the first metrics are whole")
        pid = g.children("admin")[0]
        g.config["admin"]["socket"] = g.path("other.sock")
        g.write_config()
        g.reload()
        eventually(lambda: pid not in g.children("admin"), "with another socket the process ends")
        eventually(lambda: g.admin("/healthz")[0] == 200, "the other socket answers")


@case
def the_tcp_admin_address_says_little():
    port = gates.free_port()
    with gate({"admin": {"address": f"127.0.0.1:{port}"}}):
        def ask(path):
            return wire.say(("127.0.0.1", port), f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), seconds=3).status
        equal((ask("/healthz"), ask("/readyz"), ask("/metrics")), (200, 200, 200), "what it has")
        expect(ask("/policy/default") in (403, 404) and ask("/denials") in (403, 404), "what it has not")


@case
def a_worker_can_do_little():
    with gate() as g:
        worker = g.children("worker")[0]
        with open(f"/proc/{worker}/status") as f:
            status = dict(line.split(":", 1) for line in f.read().splitlines() if ":" in line)
        equal(status["NoNewPrivs"].strip(), "1", "NoNewPrivs")
        equal(status["Seccomp"].strip(), "2", "Seccomp (2: a filter)")
        if netns.privileged() and os.getuid() == 0:
            expect("0" not in status["Uid"].split(), f"Uid: {status['Uid']}")
            equal(int(status["CapEff"].strip(), 16), 0, "effective capabilities")
        with open(f"/proc/{worker}/limits") as f:
            core = next(l for l in f if l.startswith("Max core"))
        equal(core.split()[4], "0", "core size limit")
        names = set()
        for fd in os.listdir(f"/proc/{worker}/fd"):
            names.add(os.readlink(f"/proc/{worker}/fd/{fd}"))
        for secret in ("key.pem", "decisions.jsonl", "policies", "jwks.json"):
            expect(not any(secret in n for n in names), f"a worker has {secret} open: {names}")


@case
def a_binary_without_its_companions_says_so():
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        alone = shutil.copy(gates.binary(), folder)
        p = subprocess.run([alone, "serve", "--config", os.path.join(folder, "none.json")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        equal(p.returncode, 3, "exit status")
        expect("sallyport-worker is neither beside this binary nor in ../libexec/sallyport" in p.stdout, p.stdout)
        for command, status in (("version", 3), ("run", 125)):
            p = subprocess.run([alone, command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            equal(p.returncode, status, f"exit status of {command}")
            expect("sallyport-tool is not installed" in p.stdout, p.stdout)


@case
def bad_usage_is_said_and_is_2():
    g = gate()
    for text, wanted in (('{"lissten": []}', ("lissten", "listen")), ("{", ("config.json",)), ('{"listen": [{"address": "nonsense"}]}', ("listen", "address"))):
        g.write("config.json", text)
        p = gates.run("serve", "--config", g.path("config.json"), status=2)
        for word in wanted:
            expect(word in p.stderr, f"{text}: the error does not say {word!r}: {p.stderr!r}")
        equal(len(p.stderr.strip().splitlines()), 1, f"lines of the error {p.stderr!r}")
    g.write_config()
    with socket.create_server(("127.0.0.1", g.port)):
        p = gates.run("serve", "--config", g.path("config.json"), status=3)
        expect(str(g.port) in p.stderr, f"the error names the address: {p.stderr!r}")
    g.cleanup()


if __name__ == "__main__":
    import shutil
    cases.at_end(lambda: shutil.rmtree(FOLDER, ignore_errors=True))
    cases.main()
