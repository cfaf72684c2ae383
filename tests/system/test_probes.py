#!/usr/bin/env python3
"""What a hostile program can try from inside `sallyport run`. The battery of harness/inside.py runs twice: in a sandbox made by
somebody without privileges and in one made by root without a user namespace. What counts is what the outside sees: packets on
every interface of the test's own network, connections at servers, and the records of the gate; the error that the program got
comes second. Beside it, what legitimate programs do must work."""
import base64
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from harness import netns
netns.enter()
from harness import cases, pod, sandbox
from harness import gate as gates
from harness.cases import Skip, case, equal, expect, table
from harness.dns import DnsStub
from harness.origin import Origin, echo
from harness.sandbox import PYTHON, ROOT, UNPRIVILEGED, Run, run

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = tempfile.mkdtemp(prefix="sallyport-probes-")
os.chmod(FOLDER, 0o755)
os.mkdir(os.path.join(FOLDER, "inside"))
shutil.copy(os.path.join(HERE, "harness/inside.py"), os.path.join(FOLDER, "inside/inside.py"))
INSIDE = os.path.join(FOLDER, "inside")
MARKER = "mk" + os.urandom(8).hex()
WAYS = sandbox.ways()
ALLOWED, DENIED, WILD = "www.shop.example", "www.denied.example", "cdn.shop.example"


def each_way(function):
    """A case for each way of making a sandbox."""
    for way, why in WAYS:
        def one(way=way, why=why):
            if why:
                raise Skip(why)
            function(way)
        one.__name__ = f"{function.__name__} [{way}]"
        case(one)
    return function


def config(**more):
    hosts = {name: [netns.ORIGIN] for name in (ALLOWED, DENIED, WILD)}
    base = {"upstream": {"hosts": hosts, "dns_servers": [names.server], "allow_addresses": [f"{netns.ORIGIN}/32", f"{netns.OTHER_ORIGIN}/32"]}}
    return gates.merged(base, more)


def policy(*hosts, **more):
    return gates.limited(*(hosts or (ALLOWED, f"{ALLOWED}:9443", "*.cdn.shop.example")), **more)


def script(text):
    """A program for inside, with what the probes share."""
    return [PYTHON, "-c", f"import sys; sys.argv = ['', '{{}}']; sys.path.insert(0, {INSIDE!r})\nfrom inside import *\n" + text]


def inside(text, *options, way=ROOT, seconds=60, **more):
    """Runs it to its end, with the usual policy and configuration; the lines that it printed are JSON."""
    r = run(script(text), "--bind-ro", INSIDE, *options, way=way, seconds=seconds, **{"policy": policy(), "config": config(), **more})
    expect(r.status == 0, f"it ended with {r.status}: {r.out[-600:]} {r.err[:900]}")
    r.said = [json.loads(line) for line in r.out.splitlines()]
    return r


def kept(r, event, **members):
    return [x for x in r.kept if x["event"] == event and all(x.get(k) == v for k, v in members.items())]


def no_connections():
    return {"origins": sum(o.accepted() for o in ORIGINS), "host": services.accepted(), "world": world.count(), "names": names.asked()}


# ---- the battery

def known(way, run_files):
    own = os.path.join(FOLDER, "suid")
    return {
        "marker": MARKER,
        "public": [["198.51.100.10", 443], ["198.51.100.10", 80], ["5.5.5.5", 7], ["8.8.8.8", 443], ["2a05:5::5", 7], ["2001:db8:7::7", 443], ["2606:4700:4700::1111", 443]],
        "private": [["10.66.0.2", 7], ["10.66.0.1", 7], ["192.168.1.1", 22], ["172.16.0.1", 8080], ["100.64.0.1", 80], ["fd66::2", 7], ["192.0.2.7", 80]],
        "resolvers": [["8.8.8.8", 53], ["10.66.0.2", 53], ["10.66.0.1", 53], ["169.254.169.253", 53], ["2001:4860:4860::8888", 53], ["192.0.2.7", names.port]],
        "names": [ALLOWED, DENIED, "example.com", "data.cdn.shop.example", "metadata.google.internal"],
        "host_port": services.port,
        "abstract": [MARKER, "/tmp/.X11-unix/X0", f"{FOLDER}/abstract"],
        "unix": [os.path.join(FOLDER, "host.sock")] + run_files,
        "host_pids": [os.getpid(), world.pid],
        "setuid": [os.path.join(own, "id")],
        "env_outside": ["HOST_SECRET", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "NOTIFY_SOCKET", "LISTEN_FDS"],
        "run_files": run_files,
    }


def prepare_setuid():
    own = os.path.join(FOLDER, "suid")
    os.makedirs(own, exist_ok=True)
    shutil.copy("/usr/bin/id", os.path.join(own, "id"))
    os.chmod(os.path.join(own, "id"), 0o6755)
    return own


def bypasses(rows):
    """(protocol, address, port) of records, those folded into `repeated` too."""
    return {(x.get("protocol"), x.get("host"), x.get("port", 0)) for x in rows if x["event"] == "bypass" or (x["event"] == "repeated" and x.get("protocol"))}


def canonical(address):
    return socket.inet_ntop(sandbox_family(address), socket.inet_pton(sandbox_family(address), address))


def sandbox_family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def battery(way):
    extra, holds = [], []
    # What a careless caller leaves open: a folder of the host's, a listening socket, a file with a secret.
    with open(os.path.join(FOLDER, "secret"), "w") as f:
        f.write(MARKER + "-secret")
    holds = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), os.open(os.path.join(FOLDER, "secret"), os.O_RDONLY), socket.create_server(("127.0.0.1", 0)).detach()]
    environment = {"HOST_SECRET": MARKER + "-secret", "AWS_SECRET_ACCESS_KEY": MARKER + "-secret", "GITHUB_TOKEN": MARKER + "-secret", "SSH_AUTH_SOCK": "/tmp/agent"}
    work = sandbox.give(tempfile.mkdtemp(prefix="work-", dir=FOLDER), way)
    folder = tempfile.mkdtemp(prefix="probes-")
    run_files = [os.path.join(folder, n) for n in ("policy.json", "config.json", "decisions.jsonl", "run")]
    what = {**known(way, run_files), "workdir": work}
    packets.take()
    before = no_connections()
    r = run([PYTHON, os.path.join(INSIDE, "inside.py"), json.dumps(what)], "--bind-ro", INSIDE, "--bind-ro", prepare_setuid(), "--workdir", work, *extra, way=way,
            policy=policy(), config=config(), env=environment, pass_fds=holds, folder=folder, seconds=100)
    for fd in holds:
        os.close(fd)
    report_battery(r, way, packets.take(), before, no_connections())


def report_battery(r, way, passed, before, after):
    rows = [json.loads(line) for line in r.out.splitlines() if line.startswith("{")]
    recorded = bypasses(r.kept)
    for row in rows:
        wrong = None if row["ok"] else row["what"]
        missing = [p for p in row["packets"] if (p[0], canonical(p[1]), p[2]) not in recorded]
        if not wrong and missing:
            wrong = f"no bypass record of {missing}; {row['what']}"
        cases.report(f"{row['name']} [{way}]", wrong)
    cases.report(f"the battery ran to its end [{way}]", None if r.status == 0 and len(rows) > 45 else f"status {r.status}, {len(rows)} probes: {r.err[-800:]}")
    cases.report(f"no packet left, seen from outside [{way}]", f"{passed}" if passed else None)
    cases.report(f"no server, resolver or name server was reached, seen from outside [{way}]", None if after == before else f"{before} before, {after} after")
    try:
        account = r.account()
        wrong = None if account["bypass_attempts"] >= len({tuple(p) for row in rows for p in row["packets"]}) and account["allowed"] == 0 else \
            f"{account['bypass_attempts']} attempts, {account['allowed']} allowed"
    except (cases.Failed, KeyError) as e:
        wrong = str(e)
    cases.report(f"the account counts the attempts [{way}]", wrong)
    cases.report(f"the run's private folder is gone [{way}]", f"{r.left}" if r.left else None)


@table
def batteries():
    for way, why in WAYS:
        if why:
            cases.report(f"the battery [{way}]", why, skip=True)
            continue
        battery(way)


# ---- what legitimate programs do works: by the proxy's variables, and without any by --transparent

@each_way
def control_explicit_proxy(way):
    r = inside("""
proxy = ("127.0.0.1", 3128)
say = lambda x: print(json.dumps(x))
say(answer_of(*proxy, b"GET http://www.shop.example/ HTTP/1.1\\r\\nHost: www.shop.example\\r\\nConnection: close\\r\\n\\r\\n").decode())
with socket.create_connection(proxy) as s:
    s.sendall(b"CONNECT www.shop.example:9443 HTTP/1.1\\r\\nHost: www.shop.example:9443\\r\\n\\r\\n")
    say(s.recv(4096).decode())
    s.sendall(b"hello")
    say(s.recv(5).decode())
say(answer_of(*proxy, b"CONNECT www.denied.example:443 HTTP/1.1\\r\\nHost: www.denied.example:443\\r\\n\\r\\n").decode())
say([os.environ[v] for v in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")])
""", way=way)
    plain, connect, echoed, denied, variables = r.said
    expect(plain.startswith("HTTP/1.1 200") and plain.endswith("ok"), plain)
    expect(connect.startswith("HTTP/1.1 200") and echoed == "hello", connect)
    expect(denied.startswith("HTTP/1.1 403 Egress denied: host_not_allowed"), denied)
    equal(set(variables), {"http://127.0.0.1:3128"}, "proxy variables")
    account = r.account()
    equal((account["allowed"], account["denied"], account["bypass_attempts"]), (2, 1, 0), "allowed, denied, bypass attempts")
    equal(account["would_allow"], {"allowed_hosts": [DENIED]}, "what would have allowed it")


@each_way
def control_transparent_without_variables(way):
    r = inside("""
say = lambda x: print(json.dumps(x))
say([k for k in os.environ if "proxy" in k.lower()])
for name in ("www.shop.example", "www.denied.example"):
    try:
        say(sorted({a[4][0] for a in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}))
    except socket.gaierror as e:
        say(str(e))
address = socket.gethostbyname("www.shop.example")
say(answer_of(address, 80, b"GET / HTTP/1.1\\r\\nHost: www.shop.example\\r\\nConnection: close\\r\\n\\r\\n").decode())
with socket.create_connection((address, 9443)) as s:
    s.sendall(b"hello")
    s.settimeout(5)
    say(s.recv(5).decode())
# To any address: the Host says which, the address is dialled by nobody.
say(answer_of("5.5.5.5", 80, b"GET / HTTP/1.1\\r\\nHost: www.shop.example\\r\\nConnection: close\\r\\n\\r\\n").decode())
say(answer_of("5.5.5.5", 80, b"GET / HTTP/1.1\\r\\nHost: www.denied.example\\r\\nConnection: close\\r\\n\\r\\n").decode()[:60])
say(answer_of(address, 80, b"GET / HTTP/1.1\\r\\nHost: www.denied.example\\r\\nConnection: close\\r\\n\\r\\n").decode()[:60])
""", "--transparent", "--port", "9443", "--no-proxy-env", way=way)
    variables, allowed, denied, page, echoed, other, refused, mismatch = r.said
    equal(variables, [], "proxy variables")
    expect(allowed and all(a.startswith(("198.18.", "198.19.", "fd53:")) for a in allowed), f"synthetic addresses: {allowed}")
    expect("not known" in denied, denied)
    for text in (page, other):
        expect(text.startswith("HTTP/1.1 200") and text.endswith("ok"), text)
    equal(echoed, "hello", "on --port 9443")
    expect(refused.startswith("HTTP/1.1 403 "), refused)
    expect(mismatch.startswith("HTTP/1.1 421 "), mismatch)
    expect(kept(r, "decision", decision="deny", host=DENIED, entry="dns"), "the refused name is on record")


@each_way
def transparent_what_is_not_served_is_refused_and_recorded(way):
    packets.take()
    before = no_connections()
    r = inside("""
rows = [attempt("tcp", a, p) for a, p in (("5.5.5.5", 7), ("5.5.5.5", 22), ("198.18.0.1", 8443), ("169.254.169.254", 8080), ("2a05:5::5", 7), ("5.5.5.5", 3128))]
rows += [attempt("udp", a, p) for a, p in (("5.5.5.5", 443), ("198.18.0.1", 443), ("8.8.8.8", 123), ("2a05:5::5", 443), ("9.9.9.9", 853))]
print(json.dumps(refused(*rows)))
""", "--transparent", way=way)
    ok, what, sent = r.said[0]
    expect(ok, what)
    missing = [p for p in sent if (p[0], canonical(p[1]), p[2]) not in bypasses(r.kept)]
    expect(not missing and len(sent) == 11, f"no bypass record of {missing}")
    passed = packets.take()
    expect(not passed, f"packets left: {passed}")
    equal(no_connections(), before, "servers reached")


ASK = """
def ask(server, name, kind=1, tcp=False):
    query = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0" + struct.pack("!HH", kind, 1)
    with socket.socket(family_of(server), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        try:
            s.connect((server, 53))
            s.sendall(struct.pack("!H", len(query)) + query if tcp else query)
            data = s.recv(4096)
        except OSError as e:
            return str(e)
    flags, _, answers = struct.unpack_from("!HHH", data[2:] if tcp else data, 2)
    return [flags & 15, answers]
"""


def names_of(way, servers, *transports):
    packets.take()
    asked = names.asked()
    r = inside(ASK + f"""
for server in {servers!r}:
    for tcp in {transports!r}:
        print(json.dumps([ask(server, "www.shop.example", tcp=tcp), ask(server, "c2VjcmV0IGRhdGE.denied.example", tcp=tcp),
                          ask(server, "c2VjcmV0IGRhdGE.cdn.shop.example", tcp=tcp), ask(server, "c2VjcmV0.www.shop.example", 16, tcp),
                          ask(server, "1.1.168.192.in-addr.arpa", 12, tcp)]))
""", "--transparent", way=way)
    for answers in r.said:
        equal(answers, [[0, 1], [3, 0], [0, 1], [3, 0], [3, 0]], "rcode and answers for allowed, denied, below a wildcard, TXT, PTR")
    equal(names.asked(), asked, "queries at the name server")
    passed = packets.take()
    expect(not passed, f"packets left: {passed}")
    expect([x for x in kept(r, "decision", decision="deny", entry="dns") if x["host"].lower() == "c2vjcmv0igrhdge.denied.example"], "the refused name is on record")
    return r


@each_way
def transparent_names_never_leave(way):
    names_of(way, ("8.8.8.8", "10.66.0.2", "127.0.0.1", "192.0.2.7"), False, True)


@each_way
def transparent_names_by_ipv6_resolvers(way):
    names_of(way, ("2001:4860:4860::8888", "::1"), True)
    names_of(way, ("::1", "2001:4860:4860::8888"), False)


@each_way
def transparent_answers_to_names_are_no_bypass(way):
    r = names_of(way, ("8.8.8.8",), False)
    equal(bypasses(r.kept), set(), "bypass records of a program that asked the responder alone")


@each_way
def a_flood_of_names_mixes_none(way):
    """More names below a wildcard than there are synthetic addresses: an address that was given again is the new name's."""
    r = inside(ASK + """
def address_of(name):
    query = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0\\0\\x01\\0\\x01"
    for _ in range(5):
        s.send(query)
        try:
            return socket.inet_ntoa(s.recv(4096)[-4:])
        except TimeoutError:
            pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(2)
    s.connect(("127.0.0.1", 53))
    first = address_of("n0.cdn.shop.example")
    seen = {first}
    for i in range(1, 4500):
        seen.add(address_of(f"n{i}.cdn.shop.example"))
page = lambda host: answer_of(first, 80, f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode()).decode()[:12]
print(json.dumps([len(seen), page("n0.cdn.shop.example")]))
""", "--transparent", way=way)
    count, page = r.said[0]
    expect(count <= 4096, f"{count} synthetic addresses")
    equal(page, "HTTP/1.1 421", "the first name at an address that belongs to another by now")


# ---- through the proxy: what no policy opens

@each_way
def sp_035_sp_036_unrestricted_still_closes_metadata_host_and_proxy(way):
    before = no_connections()
    targets = ["169.254.169.254:80", "[fd00:ec2::254]:80", "metadata.google.internal:80", "168.63.129.16:80", "168.63.129.16:443", "127.0.0.1:3128", "[::1]:3128",
               "localhost:3128", f"127.0.0.1:{services.port}", "10.66.0.1:443", "[::ffff:127.0.0.1]:443", "0.0.0.0:80", "[fd66::1]:443", "192.168.0.1:443",
               "100.64.0.1:80", "2130706433:80", "0x7f.1:80", "[64:ff9b::a9fe:a9fe]:80", "metadata:80", "host.docker.internal:80", "198.18.0.1:443"]
    r = inside(f"""
for t in {targets!r}:
    got = answer_of("127.0.0.1", 3128, f"CONNECT {{t}} HTTP/1.1\\r\\nHost: {{t}}\\r\\n\\r\\n".encode()).decode().split("\\r\\n")[0]
    print(json.dumps([t, got]))
""", way=way, policy={"version": 1, "networking": {"type": "unrestricted"}}, config={"upstream": {"dns_servers": [names.server]}, "default_ports": [80, 443, 3128, services.port, 32526]})
    wrong = [row for row in r.said if not re.match(r"HTTP/1.1 40[03] ", row[1])]
    expect(not wrong and len(r.said) == len(targets), f"not refused: {wrong}")
    equal(no_connections(), before, "servers reached, names asked")


@each_way
def sp_041_sp_042_an_allowed_tunnel_carries_what_was_asked_for(way):
    mark = [len(o.connections) for o in ORIGINS]
    r = inside("""
def hello(name, pad=0):
    extensions = b""
    if name is not None:
        n = name.encode()
        extensions += struct.pack("!HHHBH", 0, len(n) + 5, len(n) + 3, 0, len(n)) + n
    extensions += struct.pack("!HHB H", 43, 3, 2, 0x0304)[:7] if pad == 0 else struct.pack("!HH", 21, pad) + bytes(pad)
    body = b"\\x03\\x03" + bytes(32) + b"\\0" + b"\\0\\x02\\x13\\x01" + b"\\x01\\0" + struct.pack("!H", len(extensions)) + extensions
    message = b"\\x01" + struct.pack("!I", len(body))[1:] + body
    return b"".join(b"\\x16\\x03\\x01" + struct.pack("!H", len(message[i:i + 16384])) + message[i:i + 16384] for i in range(0, len(message), 16384))

def tunnel(pieces, host="www.shop.example:443"):
    with socket.create_connection(("127.0.0.1", 3128)) as s:
        s.settimeout(5)
        s.sendall(f"CONNECT {host} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
        if not s.recv(4096).startswith(b"HTTP/1.1 200"):
            return "refused"
        sent = b"".join(pieces)
        try:
            for piece in pieces:
                s.sendall(piece)
                time.sleep(0.02)
            got = b""
            while len(got) < len(sent):
                more = s.recv(65536)
                if not more:
                    return "closed"
                got += more
        except OSError as e:
            return "closed" if isinstance(e, ConnectionError) else "no answer"
        return "echoed" if got == sent else "other"

good = hello("www.shop.example")
say = lambda name, x: print(json.dumps([name, x]))
say("its own name", tunnel([good]))
say("in three segments", tunnel([good[:3], good[3:40], good[40:]]))
say("17 kB in two records", tunnel([hello("www.shop.example", 17000)]))
say("another name", tunnel([hello("www.denied.example")]))
say("an outer name", tunnel([hello("cloudflare-ech.com")]))
say("no name", tunnel([hello(None)]))
say("ssh", tunnel([b"SSH-2.0-OpenSSH_9.2\\r\\n"]))
say("HTTP in clear", tunnel([b"GET / HTTP/1.1\\r\\nHost: www.shop.example\\r\\n\\r\\n"]))
say("noise", tunnel([bytes(range(256)) * 4]))
""", way=way)
    got = dict(r.said)
    for name in ("its own name", "in three segments", "17 kB in two records"):
        equal(got[name], "echoed", name)
    for name in ("another name", "an outer name", "no name", "ssh", "HTTP in clear", "noise"):
        equal(got[name], "closed", name)
    reasons = sorted(x["reason"] for x in kept(r, "close", decision="deny"))
    equal(reasons, ["not_tls"] * 3 + ["sni_mismatch"] * 2 + ["sni_missing"], "reasons on record")
    seen = b"".join(o.seen_since(m) for o, m in zip(ORIGINS, mark))
    expect(b"SSH-2.0" not in seen and b"denied" not in seen and b"cloudflare" not in seen, "bytes of refused tunnels reached the origin")


@each_way
def sp_003_dns_over_https_through_an_allowed_name(way):
    r = inside("""
head = b"GET http://www.shop.example/dns-query?dns=AAAB HTTP/1.1\\r\\nHost: dns.example\\r\\nAccept: application/dns-message\\r\\n\\r\\n"
print(json.dumps(answer_of("127.0.0.1", 3128, head, 2).decode()[:40]))
head = b"CONNECT dns.example:443 HTTP/1.1\\r\\nHost: dns.example:443\\r\\n\\r\\n"
print(json.dumps(answer_of("127.0.0.1", 3128, head, 2).decode()[:40]))
""", way=way)
    expect(r.said[0].startswith(("HTTP/1.1 421", "HTTP/1.1 400")) and r.said[1].startswith("HTTP/1.1 403"), r.said)


@each_way
def sp_045_uploads_are_counted_and_cut(way):
    r = inside("""
body = b"x" * 3_000_000
head = b"POST http://www.shop.example/ HTTP/1.1\\r\\nHost: www.shop.example\\r\\nContent-Length: 3000000\\r\\n\\r\\n"
got = b""
with socket.create_connection(("127.0.0.1", 3128)) as s:
    s.settimeout(5)
    try:
        s.sendall(head + body)
        got = s.recv(4096)
    except OSError:
        pass
print(json.dumps(got.decode()[:40]))
""", way=way, policy=policy(limits={"bytes_up": 1_000_000}))
    closed = kept(r, "close")
    expect(closed and closed[0]["bytes_up"] <= 1_200_000, f"more than the budget went up: {closed}")
    expect(not r.said[0].startswith("HTTP/1.1 200"), r.said)


@each_way
def sp_051_a_flood_of_refusals_does_not_fill_the_record(way):
    r = inside("""
refusals = 0
for i in range(40):
    with socket.create_connection(("127.0.0.1", 3128)) as s:
        s.sendall(b"CONNECT www.denied.example:443 HTTP/1.1\\r\\nHost: www.denied.example:443\\r\\n\\r\\n")
        refusals += s.recv(4096).startswith(b"HTTP/1.1 403")
for i in range(300):
    with socket.socket() as s:
        s.connect_ex(("5.5.5.5", 7))
print(json.dumps(refusals))
""", way=way)
    equal(r.said, [40], "refused")
    expect(len(r.kept) < 60, f"{len(r.kept)} records")
    folded = {x.get("of", ""): x["count"] for x in kept(r, "repeated")}
    equal(sum(folded.values()), 30 + 290, f"folded into `repeated`: {folded}")
    account = r.account()
    equal((account["denied"], account["bypass_attempts"]), (40, 300), "denied and bypass attempts in the account")


@each_way
def refusals_of_many_hosts_are_no_failures(way):
    """More than are told apart: the rest is counted together, and nothing of it turns into something else."""
    r = inside("""
refusals = 0
for i in range(5000):
    with socket.create_connection(("127.0.0.1", 3128)) as s:
        s.sendall(f"CONNECT h{i}.denied.example:443 HTTP/1.1\\r\\nHost: h{i}.denied.example:443\\r\\n\\r\\n".encode())
        refusals += s.recv(4096).startswith(b"HTTP/1.1 403")
print(json.dumps(refusals))
""", way=way)
    equal(r.said, [5000], "refused")
    counted = len(kept(r, "decision", decision="deny")) + sum(x["count"] for x in kept(r, "repeated"))
    equal(counted, 5000, "on record, singly or counted")
    account = r.account()
    equal((account["failed"], account["allowed"]), (0, 0), "failed and allowed in the account")


# ---- tokens

@each_way
def the_search_for_secrets_finds_an_exposed_token(way):
    r = run([PYTHON, os.path.join(INSIDE, "inside.py"), json.dumps({**known(way, []), "only": ["no token, key or secret"]})], "--bind-ro", INSIDE, "--expose-token", way=way,
            policy=policy(), config=config())
    row = json.loads(r.out)
    expect(not row["ok"] and "/environ" in row["what"], f"a token in HTTPS_PROXY is not found: {row}")


@each_way
def a_token_of_another_sandbox_opens_nothing(way):
    """Each run has a key of its own, so here it is the signature that fails; with one key for both (below), the binding."""
    r = run(["sh", "-c", "echo $HTTPS_PROXY"], "--expose-token", way=way, policy=policy(), config=config())
    url = r.out.strip()
    m = re.fullmatch(r"http://([A-Za-z0-9_-]+):jwt_([A-Za-z0-9_.-]+)@127.0.0.1:3128", url)
    expect(m, f"the exposed URL: {url[:80]}")
    mine = base64.b64encode(f"{m[1]}:{m[2]}".encode()).decode()
    other = inside(f"""
head = "GET http://www.shop.example/ HTTP/1.1\\r\\nHost: www.shop.example\\r\\nProxy-Authorization: Basic {mine}\\r\\nConnection: close\\r\\n\\r\\n"
print(json.dumps(answer_of("127.0.0.1", 3128, head.encode()).decode()))
""", way=way)
    expect(re.match("HTTP/1.1 407 Egress denied: token_(binding|signature)", other.said[0]), other.said[0][:200])
    own = inside("""
import base64
_, _, rest = os.environ["HTTPS_PROXY"].partition("//")
basic = base64.b64encode(rest.rpartition("@")[0].encode()).decode()
head = f"GET http://www.shop.example/ HTTP/1.1\\r\\nHost: www.shop.example\\r\\nProxy-Authorization: Basic {basic}\\r\\nConnection: close\\r\\n\\r\\n"
print(json.dumps(answer_of("127.0.0.1", 3128, head.encode()).decode()))
""", "--expose-token", way=way)
    expect(own.said[0].startswith("HTTP/1.1 200"), "its own token: " + own.said[0][:200])


@each_way
def two_tokens_of_one_key_do_not_mix(way):
    folder = tempfile.mkdtemp(prefix="keys-", dir=FOLDER)
    os.chmod(folder, 0o755)
    key, jwks = os.path.join(folder, "key.pem"), os.path.join(folder, "jwks.json")
    gates.run("token", "keygen", "--alg", "ES256", "--kid", "k1", "--private", key, "--jwks", jwks)
    tokens = {}
    for sub, bound in (("box-a", "proxy"), ("box-b", "proxy"), ("box-c", "elsewhere")):
        tokens[sub] = gates.run("token", "mint", "--key", key, "--kid", "k1", "--sub", sub, "--aud", "sallyport", "--claim", f'cnf={{"listener":"{bound}"}}').stdout.strip()
    text = """
for value in %r:
    head = "GET http://www.shop.example/ HTTP/1.1\\r\\nHost: www.shop.example\\r\\n" + (value and f"Proxy-Authorization: Bearer {value}\\r\\n") + "Connection: close\\r\\n\\r\\n"
    print(json.dumps(answer_of("127.0.0.1", 3128, head.encode()).decode().split("\\r\\n")[0]))
""" % ["", tokens["box-b"], tokens["box-a"], tokens["box-c"], "eyJhbGciOiJub25lIn0.e30."]
    with Run(script(text), "--bind-ro", INSIDE, "--token-file", os.path.join(folder, "token"), way=way, policy=policy(),
             config=config(auth={"keys": jwks, "audience": "sallyport"}),
             prepare=lambda r: token_file(os.path.join(folder, "token"), tokens["box-a"], way)) as r:
        r.wait()
        equal(r.status, 0, f"exit status ({r.err[-500:]})")
        got = [json.loads(line) for line in r.out.splitlines()]
    equal([g[:9] + g[9:12] for g in got], ["HTTP/1.1 200", "HTTP/1.1 407", "HTTP/1.1 200", "HTTP/1.1 407", "HTTP/1.1 407"], f"none, another's, its own, one for another listener, unsigned: {got}")
    expect("token_binding" in got[1] and "token_binding" in got[3], got)


def token_file(path, text, way):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o600)
    sandbox.give(path, way)


@each_way
def two_sandboxes_do_not_reach_each_other(way):
    listen = """
a = socket.create_server(("0.0.0.0", 4400))
b = socket.socket(socket.AF_UNIX); b.bind("\\0meeting"); b.listen(1)
print("up", flush=True)
ready = select.select([a, b], [], [], 20)[0] if not sys.stdin.readline() else select.select([a, b], [], [], 0)[0]
print(json.dumps(len(ready)))
"""
    with Run(script(listen), "--bind-ro", INSIDE, way=way, policy=policy(), config=config(), stdin=subprocess.PIPE) as first:
        first.process.stdout.readline()
        pid = first.command()
        r = inside(f"""
with socket.socket(socket.AF_UNIX) as s:
    print(json.dumps([attempt("tcp", "127.0.0.1", 4400)[0], failing(s.connect, "\\0meeting"), failing(os.kill, {pid}, 0), failing(open, "/proc/{pid}/environ")]))
""", way=way)
        equal(r.said[0], ["ECONNREFUSED", "ECONNREFUSED", "ESRCH", "ENOENT"], "TCP, abstract socket, signal, /proc")
        first.wait(data=b"go\n")
        equal(first.out.strip(), "0", "who came to the first")


# ---- terminals

def on_terminal(argv, folder, way, say=b"", seconds=15):
    """Runs argv on a terminal of its own; what came out of it."""
    pid, master = pty.fork()
    if pid == 0:
        sandbox.become(way)
        os.environ["XDG_RUNTIME_DIR"] = folder
        os.execv(argv[0], argv)
    data, end = b"", time.monotonic() + seconds
    if say:
        time.sleep(0.5)
        os.write(master, say)
    while time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            try:
                more = os.read(master, 65536)
            except OSError:
                break
            if not more:
                break
            data += more
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(master)
    return data.decode("utf-8", "replace")


@each_way
def sp_028_a_terminal_of_its_own(way):
    folder = sandbox.give(tempfile.mkdtemp(prefix="tty-", dir=FOLDER), way)
    text = """
got = {}
for name, number, argument in (("TIOCSTI", 0x5412, b"x"), ("TIOCLINUX", 0x541c, b"\\x02"), ("TIOCSTI wide", 0x5412 | 1 << 32, b"x")):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(16 if X86 else 29), ctypes.c_long(0), ctypes.c_long(number), ctypes.create_string_buffer(argument))
    got[name] = error_name(ctypes.get_errno()) if done < 0 else "ok"
got["tty"] = os.ttyname(0)
got["session"] = os.getsid(0) == os.getpid()
got["others"] = sorted(os.listdir("/dev/pts"))
print("GOT" + json.dumps(got))
"""
    out = on_terminal([gates.binary(), "run", "--quiet", "--bind-ro", INSIDE, "--", *script(text)], folder, way)
    m = re.search(r"GOT(\{.*\})", out)
    expect(m, out[-800:])
    got = json.loads(m[1])
    equal((got["TIOCSTI"], got["TIOCLINUX"], got["TIOCSTI wide"]), ("EPERM", "EPERM", "EPERM"), "typing into it")
    equal((got["tty"], got["session"], got["others"]), ("/dev/pts/0", True, ["0", "ptmx"]), "terminal, session, terminals in sight")


# ---- named directories

@each_way
def links_and_names_of_directories(way):
    top = tempfile.mkdtemp(prefix="links-", dir=FOLDER)
    work = os.path.join(top, "work")
    os.makedirs(os.path.join(work, "real"))
    os.symlink(work, os.path.join(top, "link"))
    os.symlink("/", os.path.join(work, "rootlink"))
    os.symlink("/etc/shadow", os.path.join(work, "shadow"))
    os.symlink(f"{FOLDER}/secret", os.path.join(work, "secret"))
    os.symlink("/proc/1/root", os.path.join(work, "first"))
    os.symlink("../..", os.path.join(work, "up"))
    sandbox.give(top, way)
    for options in (["--workdir", os.path.join(top, "link")], ["--bind", os.path.join(top, "link", "real")], ["--bind-ro", os.path.join(work, "rootlink")],
                    ["--workdir", "/"], ["--bind", "/proc"], ["--bind", "/dev"], ["--bind-ro", "/sys"], ["--bind", f"{work}/../../../../"], ["--bind-ro", "/proc/self/root"],
                    ["--bind", "/etc"], ["--bind-ro", "/usr/.."], ["--workdir", os.path.join(work, "missing")]):
        r = run(["true"], *options, way=way)
        expect(r.status in (2, 125) and r.err.startswith("sallyport: "), f"{options}: {r.status} {r.err[:300]}")
    r = inside(f"""
work = {work!r}
got = {{"shadow": failing(open, work + "/shadow"), "secret": failing(open, work + "/secret"), "first": failing(os.listdir, work + "/first/"),
       "umount": call("umount2", ctypes.create_string_buffer(work.encode()), 2), "rename": failing(os.rename, work, work + "2"),
       "rmdir": failing(os.rmdir, work)}}
print(json.dumps(got))
print(json.dumps(sorted(os.listdir(work + "/up"))))
print(json.dumps(os.path.exists(work + "/rootlink/etc/shadow")))
print(json.dumps([os.getcwd(), failing(lambda: open("made", "w").write("x"))]))
""", "--workdir", work, way=way)
    got, above, shadow, (cwd, made) = r.said
    equal(got["shadow"], "ENOENT", "a link to /etc/shadow")
    equal(got["secret"], "ENOENT", "a link to a file of the host's")
    expect(got["first"] in ("EACCES", "EPERM") and got["umount"] == "EPERM" and got["rename"] in ("EBUSY", "EROFS", "EXDEV", "EACCES") and got["rmdir"] in ("EBUSY", "EROFS", "EACCES"), got)
    expect(set(above) <= {os.path.basename(top), "inside"} and not shadow, f"above the working directory: {above}")
    equal((cwd, made), (work, "ok"), "where CMD begins, and that it may write")
    st = os.lstat(os.path.join(work, "made"))
    equal(st.st_uid, sandbox.SOMEBODY if way == UNPRIVILEGED and netns.privileged() else 0, "whose file it is outside")


@each_way
def no_setuid_file_is_left_in_a_named_directory(way):
    """Outside, a file of root's (or the caller's) with the setuid bit would lend that user to whoever runs it."""
    work = sandbox.give(tempfile.mkdtemp(prefix="suid-", dir=FOLDER), way)
    inside("""
def made(name, mode=0o755):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, mode))
failing(made, "by-open", 0o6755)
made("by-chmod"); failing(os.chmod, "by-chmod", 0o4755)
made("by-chmod-group"); failing(os.chmod, "by-chmod-group", 0o2755)
made("by-fchmod"); f = os.open("by-fchmod", os.O_RDONLY); failing(os.fchmod, f, 0o6755)
failing(os.mknod, "by-mknod", stat.S_IFREG | 0o6755)
made("by-fchmodat2"); libc.syscall(ctypes.c_long(452), ctypes.c_long(-100), b"by-fchmodat2", ctypes.c_long(0o6755), ctypes.c_long(0))
made("by-fchmodat"); libc.syscall(ctypes.c_long(268 if X86 else 53), ctypes.c_long(-100), b"by-fchmodat", ctypes.c_long(0o6755))
""", "--workdir", work, way=way)
    found = [f"{n} {os.lstat(os.path.join(work, n)).st_mode:o} of uid {os.lstat(os.path.join(work, n)).st_uid}" for n in sorted(os.listdir(work))
             if os.lstat(os.path.join(work, n)).st_mode & 0o6000]
    expect(not found, f"left behind: {found}")


@each_way
def what_is_bound_read_only_stays_so(way):
    top = sandbox.give(tempfile.mkdtemp(prefix="ro-", dir=FOLDER), way)
    with open(os.path.join(top, "file"), "w") as f:
        f.write("as it was")
    os.chmod(os.path.join(top, "file"), 0o666)
    os.chmod(top, 0o777)
    os.mkdir(os.path.join(top, "below"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "none", os.path.join(top, "below")], check=True)
    try:
        r = inside(f"""
top = {top!r}
print(json.dumps([failing(open, top + "/file", "w"), failing(os.unlink, top + "/file"), failing(open, top + "/new", "w"), failing(open, top + "/below/new", "w"),
                  call("mount_setattr", -100, ctypes.create_string_buffer(top.encode()), 0, ctypes.create_string_buffer(struct.pack("QQQQ", 0, 1, 0, 0)), 32)]))
""", "--bind-ro", top, way=way)
    finally:
        subprocess.run(["umount", os.path.join(top, "below")], check=True)
    expect(all(e in ("EROFS", "EACCES") for e in r.said[0][:4]) and r.said[0][4] == "EPERM", f"writing, deleting, making, making on a mount below, remounting: {r.said[0]}")
    expect("EROFS" in r.said[0], f"another reason than the mount: {r.said[0]}")


@each_way
def sp_048_files_of_the_run_in_named_directories(way):
    """Where CMD could replace them they are refused; where it could read them they are covered."""
    work = sandbox.give(tempfile.mkdtemp(prefix="own-", dir=FOLDER), way)
    for name in ("policy", "config"):
        with open(os.path.join(work, name + ".json"), "w") as f:
            json.dump(policy() if name == "policy" else {"record": {"path": os.path.join(work, "records.jsonl")}}, f)
    sandbox.give(work, way)
    r = run(["true"], "--workdir", work, "--config", os.path.join(work, "config.json"), way=way)
    expect(r.status in (2, 125) and "records.jsonl" in r.err, f"records in the working directory: {r.status} {r.err[:300]}")
    r = run(["cat", os.path.join(work, "policy.json")], "--bind-ro", work, "--policy", os.path.join(work, "policy.json"), way=way)
    equal(r.out, "", "a policy in a directory that is shown")
    r = run(["sh", "-c", "mv policy.json other.json; echo '{}' > policy.json; rm -f policy.json; cat policy.json"], "--workdir", work, "--policy",
            os.path.join(work, "policy.json"), way=way)
    equal(r.out, "", "a policy in the working directory")
    with open(os.path.join(work, "policy.json")) as f:
        expect("shop.example" in f.read(), "the policy outside is as it was")


# ---- an image of somebody else's making

PROBE = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static const char *tcp(const char *address, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, address, &to.sin_addr);
    return connect(fd, (void *)&to, sizeof to) ? strerrorname_np(errno) : "ok";
}
static const char *file(const char *path, int flags)
{
    return open(path, flags, 0600) < 0 ? strerrorname_np(errno) : "ok";
}
int main(void)
{
    printf("{\"proxy\": \"%s\", \"world\": \"%s\", \"shadow\": \"%s\", \"link\": \"%s\", \"write\": \"%s\", \"uid\": %d}\n", tcp("127.0.0.1", 3128),
           tcp("5.5.5.5", 7), file("/etc/shadow", O_RDONLY), file("/outside", O_RDONLY), file("/bin/probe", O_WRONLY), (int)getuid());
}
"""


@each_way
def an_image_whose_links_point_outside(way):
    image = tempfile.mkdtemp(prefix="image-", dir=FOLDER)
    os.makedirs(os.path.join(image, "bin"))
    os.symlink(FOLDER, os.path.join(image, "outside"))
    os.mkdir(os.path.join(image, "real"))
    os.symlink("/real", os.path.join(image, "etc"))
    os.symlink("../../../../../../etc/shadow", os.path.join(image, "real/shadow"))
    os.symlink("/../../../etc/passwd", os.path.join(image, "real/resolv.conf"))
    with open(os.path.join(FOLDER, "probe.c"), "w") as f:
        f.write("#define _GNU_SOURCE\n" + PROBE)
    p = subprocess.run(["gcc", "-static", "-o", os.path.join(image, "bin/probe"), os.path.join(FOLDER, "probe.c")], stderr=subprocess.PIPE, text=True)
    if p.returncode:
        raise Skip("no static programs can be made here")
    sandbox.give(image, way)
    before = open("/etc/passwd").read()
    r = run(["/bin/probe"], "--rootfs", image, way=way, policy=policy(), config=config())
    expect(r.status == 0, f"{r.status} {r.err[:500]}")
    got = json.loads(r.out)
    uid = got.pop("uid")
    equal((got["proxy"], got["world"]), ("ok", "ECONNREFUSED"), "the proxy, the world")
    expect(got["shadow"] in ("ELOOP", "ENOENT") and got["link"] == "ENOENT" and uid != 0, f"{got} as {uid}")
    expect(open("/etc/passwd").read() == before and sorted(os.listdir(image)) == ["bin", "etc", "outside", "real"], "the image or the host was written")
    equal(bypasses(r.kept), {("tcp", "5.5.5.5", 7)}, "bypass records")


# ---- descriptors that would lead out

@each_way
def standard_descriptors_of_the_host(way):
    for what, fd in (("a directory", os.open("/", os.O_RDONLY | os.O_DIRECTORY)), ("a socket", socket.create_server(("127.0.0.1", 0)).detach()),
                     ("a connection", socket.create_connection((netns.ORIGIN, 80)).detach())):
        r = Run(["true"], way=way, stdin=fd).wait()
        r.cleanup()
        os.close(fd)
        expect(r.status in (2, 125) and "descriptor 0" in r.err, f"{what} as standard input: {r.status} {r.err[:300]}")


# ---- limits, bounded: no more than some hundred processes, some hundred megabytes

def limited(*options, way, **more):
    r = run(*options, way=way, **more)
    if r.status == 125 and "no control group" in r.err:
        raise Skip("no control group can be made here")
    return r


FORKS = """
made = 0
for _ in range(200):
    try:
        pid = os.fork()
    except BlockingIOError:
        break
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    made += 1
print(made)
"""
HOG = """
held = []
for _ in range(60):
    held.append(bytearray(os.urandom(4096)) * 1024)
    print(len(held) * 4, flush=True)
"""


@each_way
def a_fork_bomb_meets_its_limit(way):
    r = limited(script(FORKS), "--bind-ro", INSIDE, "--pids", "32", way=way)
    equal(r.status, 0, f"exit status ({r.err[-300:]})")
    expect(20 <= int(r.out) < 32, f"{r.out} processes")


@each_way
def a_memory_hog_meets_its_limit(way):
    for text in (HOG, HOG.replace("held.append(", "open('/tmp/%d' % len(held), 'wb').write(held.append(1) or ")):
        r = limited(script(text), "--bind-ro", INSIDE, "--memory", "64M", way=way)
        equal(r.status, 137, f"exit status ({r.out[-60:]} {r.err[-300:]})")
        expect(8 <= int(r.out.split()[-1]) <= 64, f"MB before: {r.out.split()[-1]}")


@each_way
def a_busy_loop_meets_its_limit(way):
    r = limited(script("end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(sum(os.times()[:2]))"), "--bind-ro", INSIDE, "--cpus", "0.4", way=way)
    expect(r.status == 0 and float(r.out) < 1.0, f"{r.out} s of processor in 1.5 s: {r.err[-300:]}")


@each_way
def limits_where_no_control_group_is_to_be_had(way):
    if way == ROOT:
        raise Skip("root has control groups")
    r = run(["true"], "--pids", "32", way=way)
    if r.status == 0:
        raise Skip("control groups are delegated to this user")
    expect(r.status == 125 and "best-effort" in r.err, f"{r.status} {r.err}")
    r = run(script(FORKS), "--bind-ro", INSIDE, "--pids", "32", "--limits", "best-effort", way=way)
    expect(r.status == 0 and int(r.out) < 32 and "best-effort" in r.err, f"{r.status}, {r.out} processes: {r.err[:300]}")
    r = run(script(HOG + "print('all')"), "--bind-ro", INSIDE, "--memory", "128M", "--limits", "best-effort", way=way)
    expect(r.status == 1 and "MemoryError" in r.err, f"{r.status} {r.out[-40:]} {r.err[:300]}")


@each_way
def a_timeout_ends_it(way):
    began = time.monotonic()
    r = run(["sleep", "30"], "--timeout", "1s", way=way)
    equal(r.status, 143, "exit status")
    r = run(["sh", "-c", "trap '' TERM; sleep 30 & setsid sleep 30 & while :; do wait; done"], "--timeout", "1s", way=way)
    equal(r.status, 137, "exit status of one that ignores it")
    expect(time.monotonic() - began < 9, "it took %.1f s" % (time.monotonic() - began))


# ---- the end, whatever way it comes

def nothing_left(r, inode, what):
    def gone():
        if os.listdir(r.path("run")):
            return False
        if sandbox.ours(r.dir):
            return False
        return not [p for p in os.listdir("/proc") if p.isdigit() and sandbox.namespace(p, "net") == inode]
    try:
        cases.eventually(gone, "all is gone", 12)
    except cases.Failed:
        left = [sandbox.command_line(p)[:80] for p in sandbox.ours(r.dir)]
        inside_it = [(p, sandbox.command_line(p)[:60]) for p in os.listdir("/proc") if p.isdigit() and sandbox.namespace(p, "net") == inode]
        raise cases.Failed(f"{what}: left: files {os.listdir(r.path('run'))}, processes {left}, in its network {inside_it}")
    groups = subprocess.run(["find", "/sys/fs/cgroup", "-maxdepth", "4", "-name", f"sallyport-*{os.path.basename(r.dir)}*"], stdout=subprocess.PIPE).stdout
    expect(not groups, f"{what}: control groups {groups}")


DAEMONS = ["sh", "-c", "trap '' HUP TERM INT; setsid sleep 300 & (setsid sh -c 'sleep 300 & sleep 300' &) ; echo up; while :; do sleep 300; done"]


@each_way
def whatever_is_killed_nothing_is_left(way):
    for what in ("run", "launcher", "first process", "gate", "CMD", "run by SIGTERM, then SIGKILL to CMD"):
        with Run(DAEMONS, "--transparent", way=way, policy=policy(), config=config()) as r:
            r.process.stdout.readline()
            command, gate = r.command(), r.gate()
            launcher = sandbox.children(r.process.pid)[0]
            first = next(p for p in sandbox.children(launcher) if not sandbox.same_namespace(p, launcher, "net"))
            inode = sandbox.namespace(command, "net")
            if what.startswith("run by"):
                r.process.terminate()
                time.sleep(0.2)
                os.kill(command, signal.SIGKILL)
            else:
                os.kill({"run": r.process.pid, "launcher": launcher, "first process": first, "gate": gate, "CMD": command}[what], signal.SIGKILL)
            r.wait(15)
            expected = {"run": -9, "launcher": 125, "gate": 125, "CMD": 137}.get(what)
            expect(expected is None or r.status == expected, f"{what} killed: exit status {r.status}, expected {expected}: {r.err[-300:]}")
            nothing_left(r, inode, what)


@each_way
def sp_034_without_the_gate_nothing_is_served(way):
    """The listeners belong to the sandbox's network and to the gate; when it dies, the sandbox does."""
    with Run(["sh", "-c", "echo up; sleep 60"], way=way, policy=policy(), config=config()) as r:
        r.process.stdout.readline()
        began = time.monotonic()
        os.kill(r.gate(), signal.SIGKILL)
        r.wait(15)
        expect(r.status == 125 and "proxy has ended" in r.err, f"{r.status} {r.err[-300:]}")
        expect(time.monotonic() - began < 4, "slow")


@each_way
def a_killed_worker_is_replaced(way):
    text = """
head = b"GET http://www.shop.example/ HTTP/1.1\\r\\nHost: www.shop.example\\r\\nConnection: close\\r\\n\\r\\n"
print(json.dumps(answer_of("127.0.0.1", 3128, head).decode()[:12]), flush=True)
sys.stdin.readline()
print(json.dumps(answer_of("127.0.0.1", 3128, head).decode()[:12]), flush=True)
"""
    with Run(script(text), "--bind-ro", INSIDE, way=way, policy=policy(), config=config(), stdin=subprocess.PIPE) as r:
        equal(json.loads(r.process.stdout.readline()), "HTTP/1.1 200", "before")
        workers = [p for p in sandbox.children(r.gate()) if b"worker" in sandbox.command_line(p)]
        expect(workers, "there is a worker")
        for p in workers:
            os.kill(p, signal.SIGKILL)
        r.wait(20, b"\n")
        equal(r.out.strip(), '"HTTP/1.1 200"', f"after ({r.err[-300:]})")


# ---- where user namespaces are off

def without_user_namespaces(function):
    """function() in a user namespace that has all ids of this one and allows none below it; its JSON result."""
    ours, theirs = socket.socketpair()
    result, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            netns.unshare(netns.CLONE_NEWUSER)
            theirs.sendall(b"1")
            theirs.recv(1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            netns.write("/proc/sys/user/max_user_namespaces", "0")
            os.write(into, json.dumps(function()).encode())
        except BaseException as e:
            os.write(into, json.dumps(f"{type(e).__name__}: {e}").encode())
        finally:
            os._exit(0)
    ours.recv(1)
    for name in ("uid_map", "gid_map"):
        netns.write(f"/proc/{pid}/{name}", "0 0 4294967295")
    ours.sendall(b"1")
    os.close(into)
    with os.fdopen(result) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return json.loads(text)


@case
def root_needs_no_user_namespace():
    if not netns.privileged():
        raise Skip("this needs a root with more than one user")

    def go():
        r = run(["sh", "-c", "readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map"], way=ROOT)
        return [r.status, r.out, r.err, os.readlink("/proc/self/ns/user")]
    status, out, err, here = got = without_user_namespaces(go)
    expect(status == 0 and out.splitlines()[0] == here and out.splitlines()[1] != "0", f"{got}")


@case
def without_privileges_the_setting_in_the_way_is_named():
    if not netns.privileged():
        raise Skip("this needs a root with more than one user")

    def go():
        r = run(["true"], way=UNPRIVILEGED)
        return [r.status, r.err]
    status, err = without_user_namespaces(go)
    expect(status == 125 and "user.max_user_namespaces" in err, f"{status} {err}")


@case
def root_of_a_user_namespace_of_one_id():
    """As in a rootless container: root by name, with nobody else to become."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if netns.privileged():
                netns.become_root_of_a_user_namespace()
            r = run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ALLOWED}/"], way=sandbox.AS_WE_ARE, policy=policy(), config=config())
            os.write(theirs, json.dumps([r.status, r.out, r.err[:600]]).encode())
        except BaseException as e:
            os.write(theirs, json.dumps([-1, "", f"{type(e).__name__}: {e}"]).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as f:
        status, out, err = json.loads(f.read())
    os.waitpid(pid, 0)
    equal((status, out), (0, "200"), f"exit status and answer ({err})")


@each_way
def which_way_was_taken(way):
    r = run(["readlink", "/proc/self/ns/user"], way=way)
    same = r.out.strip() == os.readlink("/proc/self/ns/user")
    equal(same, way == ROOT, "no user namespace of its own")


# ---- the three layers, each with the other two switched off: the test gives the sandbox a cable and a route, an open policy

class Cable:
    """A way out of the sandbox's network namespace that only a test can lay: a cable to this one, with routes over it."""

    def __init__(self, pid):
        netns.ip("link", "add", "lay0", "type", "veth", "peer", "name", "lay1")
        netns.ip("link", "set", "lay1", "netns", str(pid))
        netns.ip("addr", "add", "10.77.0.2/24", "dev", "lay0")
        netns.ip("link", "set", "lay0", "up")
        for words in ("addr add 10.77.0.1/24 dev lay1", "link set lay1 up", "route del local default dev lo table local", "route add default via 10.77.0.2"):
            p = sandbox.in_network_of(pid, "/usr/sbin/ip" if os.path.exists("/usr/sbin/ip") else "/sbin/ip", *words.split())
            expect(p.returncode == 0, f"{words}: {p.stdout}")
        self.resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.resolver.bind(("10.77.0.2", 53))
        self.queries, self.ended = [], False
        self.thread = threading.Thread(target=self._answer, daemon=True)
        self.thread.start()

    def _answer(self):
        while not self.ended:
            if not select.select([self.resolver], [], [], 0.1)[0]:
                continue
            data, peer = self.resolver.recvfrom(2048)
            self.queries.append(data[12:])
            self.resolver.sendto(data[:2] + b"\x81\x80\0\x01\0\x01\0\0\0\0" + data[12:] + b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\x4d\0\x02", peer)

    def close(self):
        self.ended = True
        self.thread.join()
        self.resolver.close()
        subprocess.run(["ip", "link", "del", "lay0"], stderr=subprocess.DEVNULL)


OPEN = {"version": 1, "networking": {"type": "unrestricted"}}


def with_cable(way, text, *options, policy=OPEN, config=None, around=None):
    with Run(script("print(json.dumps('up'), flush=True)\nsys.stdin.readline()\n" + text), "--bind-ro", INSIDE, *options, way=way, policy=policy, config=config,
             stdin=subprocess.PIPE) as r:
        r.process.stdout.readline()
        cable = Cable(r.command())
        try:
            r.wait(30, b"\n")
        finally:
            cable.close()
        expect(r.status == 0, f"it ended with {r.status}: {r.out} {r.err[:600]}")
        return cable, [json.loads(line) for line in r.out.splitlines()]


@each_way
def layer_no_names_with_a_route_and_an_open_policy(way):
    server = Origin("0.0.0.0", 7700)
    cable, said = with_cable(way, ASK + """
print(json.dumps([ask("10.77.0.2", "control.example"), attempt("tcp", "10.77.0.2", 7700)[0]]))
began = time.monotonic()
got = []
for name in ("www.shop.example", "leak.example.com"):
    try:
        got.append(socket.getaddrinfo(name, 80))
    except socket.gaierror:
        got.append("no")
print(json.dumps([got, time.monotonic() - began]))
print(json.dumps(os.popen("getent hosts leak2.example.com").read()))
""")
    server.close()
    control, (got, seconds), getent = said
    equal(control, [[0, 1], "ok"], "control: a resolver and a server over the cable")
    equal((got, getent), (["no", "no"], ""), "names")
    expect(seconds < 2, f"after {seconds:.1f} s")
    expect(len(cable.queries) == 1 and b"control" in cable.queries[0], f"queries: {cable.queries}")


@each_way
def layer_no_route_with_names_and_an_open_policy(way):
    before = world.count()["tcp"]
    r = inside("""
with socket.create_connection(("127.0.0.1", 3128)) as s:
    s.settimeout(5)
    s.sendall(b"CONNECT 5.5.5.5:7 HTTP/1.1\\r\\nHost: 5.5.5.5:7\\r\\n\\r\\n")
    status = s.recv(4096).decode()[:12]
    s.sendall(b"hello")
    print(json.dumps([status, s.recv(5).decode()]))
print(json.dumps(bool(socket.getaddrinfo("www.shop.example", 80))))
print(json.dumps(refused(attempt("tcp", "5.5.5.5", 7), attempt("udp", "5.5.5.5", 7), attempt("tcp", "2a05:5::5", 7))))
""", "--transparent", way=way, policy=OPEN, config=config(default_ports=[7, 80, 443]))
    equal(r.said[0], ["HTTP/1.1 200", "hello"], "control: the proxy lets it out")
    expect(r.said[1] and r.said[2][0], r.said)
    counted = world.count()
    equal(counted["tcp"], before + 1, "connections outside")


@each_way
def layer_token_and_allowlist_with_names_and_a_route(way):
    netns.ip("addr", "add", "10.77.0.9/32", "dev", "lo")
    names_here = {h: [netns.ORIGIN] for h in (ALLOWED, DENIED)}

    def listen(gate):
        gate.config["listen"] = [{"name": "main", "address": f"127.0.0.1:{gate.port}"}, {"name": "cable", "address": "10.77.0.9:3199"}]
        gate.write_config()
    try:
        with gates.Gate({"default": policy()}, {"upstream": {"hosts": names_here}}, prepare=listen) as gate:
            mark = [o.accepted() for o in ORIGINS]
            credential = gate.credential("box")
            cable, said = with_cable(way, f"""
for host, extra in (("{ALLOWED}", ""), ("{ALLOWED}", "Proxy-Authorization: {credential}\\r\\n"), ("{DENIED}", "Proxy-Authorization: {credential}\\r\\n"),
                    ("10.77.0.2", "Proxy-Authorization: {credential}\\r\\n"), ("{ALLOWED}", "Proxy-Authorization: Bearer eyJhbGciOiJub25lIn0.e30.\\r\\n")):
    head = f"GET http://{{host}}/ HTTP/1.1\\r\\nHost: {{host}}\\r\\n{{extra}}Connection: close\\r\\n\\r\\n"
    print(json.dumps(answer_of("10.77.0.9", 3199, head.encode()).decode()[:12]))
""")
            equal(said, [f"HTTP/1.1 {n}" for n in (407, 200, 403, 403, 407)], "no token, a token, a denied host, an address, a token that is none")
            equal([o.accepted() - m for o, m in zip(ORIGINS, mark)], [1, 0, 0, 0], "connections at the origins")
    finally:
        netns.ip("addr", "del", "10.77.0.9/32", "dev", "lo")


@case
def sp_044_an_attackers_own_key_to_an_allowed_api():
    raise Skip("this version has no vault that would replace a client's credential")


# ---- set-up

class Services:
    """What the host has on its loopback and addresses; counts who comes."""

    def __init__(self):
        self.port = gates.free_port()
        self.origins = [Origin(a, self.port) for a in ("127.0.0.1", "::1", "10.66.0.1", "192.0.2.7", "fd66::1")]
        self.unix, self.counts = [], 0
        for name in ("\0" + MARKER, "\0" + FOLDER + "/abstract", os.path.join(FOLDER, "host.sock")):
            s = socket.socket(socket.AF_UNIX)
            s.bind(name)
            s.listen(8)
            self.unix.append(s)
        os.chmod(os.path.join(FOLDER, "host.sock"), 0o777)

    def accepted(self):
        readable = select.select(self.unix, [], [], 0)[0]
        self.counts += len(readable)
        for s in readable:
            s.accept()[0].close()
        return self.counts + sum(o.accepted() for o in self.origins)


def clean_up():
    world.close()
    packets.close()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    world = pod.World()
    names = DnsStub({"A": [netns.ORIGIN], "AAAA": []}, address="192.0.2.7")
    services = Services()
    ORIGINS = [Origin(netns.ORIGIN, 80), Origin(netns.ORIGIN, 443, serve=echo), Origin(netns.ORIGIN, 9443, serve=echo), Origin(netns.ORIGIN6, 443, serve=echo)]
    packets = sandbox.Packets()
    cases.at_end(clean_up)
    cases.main()
