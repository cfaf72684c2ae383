#!/usr/bin/env python3
"""doctor must find the ways out that are there, and must not find any where there are none."""
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from harness import netns
netns.enter()
from harness import cases, pod
from harness.cases import Skip, at_end, case, equal, expect
from harness.gate import SANITIZER, binary

OTHER, PROXY = 1000, 65532
LAST = 4.0  # seconds that it may take under a sanitizer
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
FOLDER = tempfile.mkdtemp(prefix="doctor-")
RESOLV_CONF = os.path.join(FOLDER, "resolv.conf")
for option in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
    if option in os.environ:
        BARE[option] = os.environ[option]


def resolvers(*addresses):
    with open(RESOLV_CONF, "w") as f:
        f.writelines(f"nameserver {a}\n" for a in addresses)


resolvers()
if netns.libc.mount(RESOLV_CONF.encode(), os.path.realpath("/etc/resolv.conf").encode(), None, 4096, None) != 0:  # MS_BIND
    print(f"SKIP {os.path.basename(sys.argv[0])}: resolv.conf cannot be replaced for the test", flush=True)
    sys.exit(0)
PRIVILEGED = netns.privileged()


class Report:
    def __init__(self, *args, env=None, prefix=(), fds=(), status=None):
        began = time.monotonic()
        p = subprocess.run([*prefix, binary(), "doctor", "--json", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=30, env=dict(BARE, **(env or {})), pass_fds=fds)
        self.seconds = time.monotonic() - began
        self.status = p.returncode
        expect(not SANITIZER.search(p.stderr), p.stderr)
        expect(p.returncode in (0, 1), f"exit status {p.returncode}: {p.stderr}")
        self.all = json.loads(p.stdout)
        self.rows = self.all["rows"]
        equal(self.status, 1 if self.all["way_out"] else 0, "exit status")

    def row(self, name):
        found = [r for r in self.rows if r["name"] == name]
        equal(len(found), 1, f"rows named {name}")
        return found[0]

    def verdict(self, name):
        return self.row(name)["verdict"]

    def failed(self, group=None):
        return [r["name"] for r in self.rows if r["verdict"] == "fail" and group in (None, r["group"])]


def confined(uid=OTHER):
    """A user without rights, as a pod's workload has none. No user switching inside a user namespace of one user."""
    words = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return words + ([f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if PRIVILEGED else [])


@case
def an_empty_namespace_has_no_way_out_by_network():
    r = Report()
    equal(r.failed("network"), [], "network rows that failed")
    equal(r.verdict("interfaces"), "pass", "interfaces")
    equal(r.verdict("resolv.conf"), "pass", "resolv.conf")
    expect(r.seconds < LAST, f"took {r.seconds:.1f} s")


@case
def rights_are_found():
    r = Report()
    for name in ("packet socket", "raw IPv4 socket", "capability NET_RAW", "capability NET_ADMIN", "capability SETUID",
                 "capability SYS_ADMIN", "netlink: change routes", "netlink: change interfaces", "netlink: change addresses"):
        equal(r.verdict(name), "fail", name)
    equal(r.status, 1, "exit status with rights")


@case
def without_rights_fewer_ways_are_found():
    with_rights, without = Report(), Report(prefix=confined(), env={})
    expect(len(without.failed()) < len(with_rights.failed()), f"{without.failed()} against {with_rights.failed()}")
    for name in ("packet socket", "raw IPv4 socket", "raw IPv6 socket", "netlink: change routes", "capabilities", "no_new_privs"):
        equal(without.verdict(name), "pass", name)


@case
def the_report_has_its_shape():
    r = Report()
    equal(sorted(r.all), ["counts", "rows", "way_out"], "members")
    equal(sorted(r.all["counts"]), ["fail", "pass", "warn"], "counts")
    for row in r.rows:
        equal(sorted(row), ["advice", "found", "group", "name", "verdict"], "members of a row")
        expect(row["verdict"] in ("fail", "pass", "warn"), row["verdict"])
        expect(row["verdict"] == "pass" or row["advice"], f"{row['name']}: no advice")
        expect(row["verdict"] != "pass" or row["advice"] is None, f"{row['name']}: advice where all is well")
    for verdict, n in r.all["counts"].items():
        equal(sum(row["verdict"] == verdict for row in r.rows), n, f"count of {verdict}")
    text = subprocess.run([binary(), "doctor"], stdout=subprocess.PIPE, text=True, env=BARE, timeout=30)
    equal(text.returncode, 1, "exit status of the table")
    expect("to do: " in text.stdout and "there is a way out" in text.stdout.splitlines()[-1], "the table")


# ---- in a namespace of their own: what the gate looks like from inside

def inside(function, *args):
    """function in a child with a new, empty network namespace; its JSON result."""
    def go():
        netns.unshare(netns.CLONE_NEWNET)
        netns.ip("link", "set", "lo", "up")
        return function(*args)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = {"ok": go()}
        except BaseException as e:
            result = {"error": f"{type(e).__name__}: {e}"}
        os.write(theirs, json.dumps(result).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as f:
        result = json.loads(f.read())
    os.waitpid(pid, 0)
    if "error" in result:
        raise cases.Failed(result["error"])
    return result["ok"]


def serve(sock, reply):
    def loop():
        while True:
            data, peer = sock.recvfrom(2048)
            answer = reply(data)
            if answer is not None:
                sock.sendto(answer, peer)
    threading.Thread(target=loop, daemon=True).start()


def a_record(address):
    def reply(query):
        return (query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address))
    return reply


def code(n):
    return lambda query: query[:2] + bytes([0x81, 0x80 | n]) + b"\0\1\0\0\0\0\0\0" + query[12:]


def with_resolver(reply, address="127.0.0.53"):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 53))
    serve(s, reply)
    resolvers(address)
    row = Report(prefix=[]).row(f"dns {address}")
    return [row["verdict"], row["found"]]


@case
def a_resolver_that_asks_the_world_is_a_way_out():
    equal(inside(with_resolver, a_record("93.184.215.14"))[0], "fail", "a real address")


@case
def the_gates_responder_is_none():
    equal(inside(with_resolver, a_record("198.18.0.5"))[0], "pass", "a synthetic address")
    equal(inside(with_resolver, a_record("198.19.255.255"))[0], "pass", "the last synthetic address")
    equal(inside(with_resolver, a_record("198.20.0.0"))[0], "fail", "the address behind them")
    equal(inside(with_resolver, code(3))[0], "pass", "NXDOMAIN")
    equal(inside(with_resolver, code(5))[0], "pass", "REFUSED")
    equal(inside(with_resolver, code(2))[0], "warn", "SERVFAIL")
    equal(inside(with_resolver, lambda q: None)[0], "pass", "silence on loopback")


@case
def answers_that_are_no_answers_do_no_harm():
    whole = a_record("93.184.215.14")
    for n in (0, 1, 11, 12, 13, 28, 30, 40, 44):
        inside(with_resolver, lambda q: whole(q)[:n])
    inside(with_resolver, lambda q: q[:2] + b"\x81\x80\0\1\xff\xff\0\0\0\0" + q[12:] + b"\xc0" * 400)
    inside(with_resolver, lambda q: q[:2] + b"\x81\x80\0\1\xff\xff\0\0\0\0" + b"\x3f" * 490)
    equal(inside(with_resolver, lambda q: b"\0\0" + whole(q)[2:])[0], "pass", "an answer to another question")


def any_address_is_local():
    netns.ip("route", "add", "local", "0.0.0.0/0", "dev", "lo")
    netns.ip("-6", "route", "add", "local", "::/0", "dev", "lo")
    keep = []
    for port in (80, 443):
        s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
        keep.append(s)
    resolvers()
    r = Report()
    return [r.failed("network"), r.row("tcp 192.0.2.1:443")["found"], r.row("tcp [2001:db8::1]:443")["found"],
            r.verdict("proxy variables")]


@case
def connections_that_the_gate_answers_are_no_way_out():
    failed, found, found6, proxy = inside(any_address_is_local)
    equal(failed, [], "network rows that failed")
    expect("by the gate" in found and "by the gate" in found6, f"{found}; {found6}")
    equal(proxy, "pass", "no proxy variables, where none are needed")


# ---- other ways

@case
def an_inherited_connection_is_a_way_out():
    with socket.socket() as s:
        equal(Report(fds=(s.fileno(),)).verdict("inherited"), "fail", "a TCP socket")
    ours, theirs = socket.socketpair()
    equal(Report(fds=(ours.fileno(),)).verdict("inherited"), "warn", "a unix socket")
    equal(Report().verdict("inherited"), "pass", "nothing")


@case
def another_network_namespace_that_can_be_entered_is_found():
    child = os.fork()
    if child == 0:
        netns.unshare(netns.CLONE_NEWNET)
        time.sleep(30)
        os._exit(0)
    try:
        cases.eventually(lambda: os.stat(f"/proc/{child}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino, "a namespace")
        equal(Report().verdict("network of other processes"), "fail", "with SYS_ADMIN")
        equal(Report(prefix=confined()).verdict("network of other processes"), "pass", "without")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@case
def abstract_sockets_of_services_are_found():
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("\0/containerd-shim/test.sock")
        s.listen(1)
        r = Report()
        equal(r.verdict("abstract unix sockets"), "fail", "a container engine's")
    equal(Report().verdict("abstract unix sockets"), "pass", "none")


# ---- settings

PROXY_URL = "http://127.0.0.1:3128"
GOOD = {name: PROXY_URL for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY")}
GOOD.update({"NO_PROXY": "localhost,127.0.0.1,::1", "no_proxy": "localhost, 127.0.0.0/8,[::1]", "NODE_USE_ENV_PROXY": "1",
             "JAVA_TOOL_OPTIONS": "-Dhttp.proxyHost=127.0.0.1 -Dhttps.proxyHost=127.0.0.1"})


def settings(**changes):
    env = {**GOOD, **changes}
    return Report(env={k: v for k, v in env.items() if v is not None})


@case
def good_settings_pass():
    with socket.create_server(("127.0.0.1", 3128)):
        r = settings()
        equal([(row["name"], row["found"]) for row in r.rows if row["group"] == "settings" and row["verdict"] != "pass"], [], "rows")
    equal(settings().verdict("proxy"), "warn", "a proxy that does not answer")


@case
def bad_settings_are_named():
    for changes, name, words in (
            ({"http_proxy": None}, "proxy variables", "http_proxy"),
            ({"HTTPS_PROXY": "http://127.0.0.1:3129"}, "proxy variables agree", "HTTPS_PROXY"),
            ({"NO_PROXY": "localhost,*"}, "NO_PROXY", "*"),
            ({"no_proxy": "localhost,.internal.example"}, "no_proxy", ".internal.example"),
            ({"NO_PROXY": "10.0.0.0/8"}, "NO_PROXY", "10.0.0.0/8"),
            ({"NO_PROXY": "0.0.0.0/0"}, "NO_PROXY", "0.0.0.0/0"),
            ({"ALL_PROXY": PROXY_URL}, "ALL_PROXY", "set"),
            ({"NODE_USE_ENV_PROXY": None}, "Node", "not set"),
            ({"JAVA_TOOL_OPTIONS": "-Xmx1g"}, "Java", "no proxy"),
            ({"SSL_CERT_FILE": "/nonexistent/ca.pem"}, "trust bundle", "/nonexistent/ca.pem"),
            ({"SSL_CERT_FILE": RESOLV_CONF}, "trust variables", "CURL_CA_BUNDLE")):
        row = settings(**changes).row(name)
        expect(row["verdict"] == "warn" and words in row["found"], f"{changes}: {row}")


@case
def a_credential_is_not_shown():
    env = {k: "http://sbx:s3cr3t-token@127.0.0.1:3128" if v == PROXY_URL else v for k, v in GOOD.items()}
    r = Report(env=env)
    equal(r.verdict("proxy credential"), "warn", "proxy credential")
    expect("s3cr3t" not in json.dumps(r.all), "the credential is in the report")


@case
def the_bundle_is_read():
    def certificate(name):
        path = os.path.join(FOLDER, name)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                        "-keyout", os.devnull, "-out", path], check=True, stderr=subprocess.DEVNULL)
        with open(path) as f:
            return path, f.read()
    ca, ca_text = certificate("ca.pem")
    _, other_text = certificate("other.pem")
    _, third_text = certificate("third.pem")
    bundle = os.path.join(FOLDER, "bundle.pem")
    names = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "DENO_CERT", "CARGO_HTTP_CAINFO",
             "GIT_SSL_CAINFO", "BUNDLE_SSL_CA_CERT", "AWS_CA_BUNDLE"]
    env = {name: bundle for name in names}
    netns.write(bundle, other_text + third_text + ca_text)
    r = Report("--ca", ca, env=env)
    for name in ("trust variables", "trust bundle", "inspection CA"):
        equal(r.verdict(name), "pass", name)
    netns.write(bundle, other_text + third_text)
    equal(Report("--ca", ca, env=env).verdict("inspection CA"), "warn", "a bundle without the CA")
    netns.write(bundle, ca_text)
    equal(Report("--ca", ca, env=env).verdict("trust bundle"), "warn", "a bundle of the CA alone")
    netns.write(bundle, "no certificate\0at all")
    equal(Report("--ca", ca, env=env).verdict("trust bundle"), "warn", "a bundle of nothing")
    equal(Report("--ca", ca).verdict("trust variables"), "warn", "no variables, though there is a CA")


@case
def what_is_wrong_is_said():
    for args, words in ((["--probe", "example.com:443"], "address and port"), (["--probe", "192.0.2.1"], "address and port"),
                        (["--proxy-uid", "me"], "a user id"), (["--prob", "x"], "did you mean --probe"), (["now"], "usage:"),
                        (["--probe=192.0.2.1:1"] * 17, "more than 16 times")):
        p = subprocess.run([binary(), "doctor", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=BARE, timeout=30)
        equal(p.returncode, 2, f"status of doctor {args}")
        expect(words in p.stderr and not p.stdout, f"doctor {args}: {p.stderr}")


# ---- in the sandbox of `run`

def in_sandbox(*options):
    """A sanitizer's search for leaks needs ptrace, which is not to be had in there."""
    folder = os.path.dirname(binary())
    p = subprocess.run([binary(), "run", "--quiet", "--bind-ro", folder, "--env", "ASAN_OPTIONS=detect_leaks=0",
                        *options, "--", binary(), "doctor", "--json", "--proxy-uid", str(PROXY)],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=BARE, timeout=60, cwd=FOLDER)
    if p.returncode == 125:
        raise Skip(p.stderr.strip().splitlines()[-1])
    expect(p.stdout.startswith("{"), f"exit status {p.returncode}: {p.stderr}")
    report = json.loads(p.stdout)
    equal([row for row in report["rows"] if row["verdict"] == "fail"], [], "rows that failed")
    equal(p.returncode, 0, "exit status")
    return {row["name"]: row for row in report["rows"]}


@case
def the_sandbox_passes():
    rows = in_sandbox()
    equal(rows["resolv.conf"]["verdict"], "pass", "resolv.conf")
    equal(rows["interfaces"]["verdict"], "pass", "interfaces")


@case
def the_transparent_sandbox_passes():
    expect("by the gate" in in_sandbox("--transparent")["tcp 192.0.2.1:443"]["found"], "the gate does not answer")


# ---- a cable: last, because from here on there are addresses that take their time to be silent

def world():
    if not PRIVILEGED:
        raise Skip("only one user exists here")
    try:
        w = pod.World()
    except (OSError, subprocess.CalledProcessError) as e:
        raise Skip(f"no second network namespace: {e}")
    at_end(w.close)
    return w


WORLD = []


@case
def a_cable_is_a_way_out():
    WORLD.append(world())
    before = WORLD[0].count()
    r = Report("--probe", f"{pod.FAR}:{pod.PORT}", "--probe", f"[{pod.FAR6}]:{pod.PORT}", prefix=confined())
    for address in (f"{pod.FAR}:{pod.PORT}", f"[{pod.FAR6}]:{pod.PORT}"):
        equal(r.verdict(f"tcp {address}"), "fail", f"tcp {address}")
        expect("connected" in r.row(f"tcp {address}")["found"], str(r.row(f"tcp {address}")))
        equal(r.verdict(f"udp {address}"), "fail", f"udp {address}")
    for name in ("tcp 192.0.2.1:443", "udp 192.0.2.1:443", "tcp 169.254.169.254:80", "udp 224.0.0.251:5353", "dns 8.8.8.8"):
        equal(r.verdict(name), "fail", name)
    equal(r.verdict("interfaces"), "warn", "interfaces")
    expect(WORLD[0].count()["tcp"] >= before["tcp"] + 2, "the probes did not arrive, so that they prove nothing")
    expect(r.seconds < LAST, f"took {r.seconds:.1f} s")


@case
def a_refusal_from_outside_is_still_a_way_out():
    if not WORLD:
        raise Skip("no cable")
    r = Report("--probe", f"{pod.NEAR}:81", prefix=confined())
    equal(r.verdict(f"tcp {pod.NEAR}:81"), "fail", "a port that is closed outside")


@case
def a_fence_is_seen_to_hold():
    if not WORLD:
        raise Skip("no cable")
    installed = subprocess.run([binary(), "fence", "install", "--proxy-uid", str(PROXY)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    if installed.returncode == 3 and "not installed" not in installed.stderr:
        raise Skip(installed.stderr.strip())
    equal(installed.returncode, 0, f"fence install: {installed.stderr}")
    try:
        before = WORLD[0].count()
        args = ["--probe", f"{pod.FAR}:{pod.PORT}", "--probe", f"{pod.NEAR}:81", "--proxy-uid", str(PROXY)]
        r = Report(*args, prefix=confined())
        equal(r.failed("network"), [], "network rows that failed behind a fence")
        equal(r.verdict("the proxy's user"), "pass", "the proxy's user")
        equal(WORLD[0].count(), before, "what arrived outside")
        proxy = Report(*args, prefix=confined(PROXY))
        equal(proxy.verdict("the proxy's user"), "fail", "as the proxy's user")
        equal(proxy.verdict(f"tcp {pod.FAR}:{pod.PORT}"), "fail", "a probe as the proxy's user")
        equal(Report(*args).verdict("the proxy's user"), "fail", "with SETUID")
    finally:
        subprocess.run([binary(), "fence", "remove"], stdout=subprocess.DEVNULL)


@case
def silence_is_not_taken_for_a_wall():
    """Packets that are dropped outside cannot be told from packets that arrive."""
    if not WORLD:
        raise Skip("no cable")
    r = Report(prefix=confined())
    equal(r.verdict("tcp 198.51.100.1:80"), "fail", "an address that nobody answers for")


if __name__ == "__main__":
    cases.main()
