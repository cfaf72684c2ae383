#!/usr/bin/env python3
"""`sallyport run` with what stands around it: inspection with a CA of the run's own, a shared gateway, transparent listeners, and what
a killed run leaves to the next one."""
import fcntl
import json
import os
import shutil
import signal
import tempfile

import test_run  # first: it makes the network namespace
from harness import cases, netns
from harness import gate as gates
from harness.cases import Skip, equal, eventually, expect
from harness.origin import Origin
from harness.pki import Authority

del cases.REGISTERED[:]  # its cases are its own
both, CONFIG, FOLDER = test_run.both, test_run.CONFIG, test_run.FOLDER
CA = Authority(FOLDER)
os.chmod(CA.path, 0o644)
SECURE = Origin(netns.ORIGIN, 443, tls=CA.leaf("allowed.example", "other.example"))
INSPECTING = gates.merged(CONFIG, {"upstream": {"ca_file": CA.path}, "inspect": {"mode": "all"}})
ROOTS = "/etc/ssl/certs/ca-certificates.crt"


def records(path, event="decision", **members):
    with open(path) as f:
        return [r for r in map(json.loads, f) if r["event"] == event and all(r.get(k) == v for k, v in members.items())]


def recorded(c, name, config):
    """A configuration whose records are kept; removes older ones."""
    path = os.path.join(c.folder("records"), name + ".jsonl")
    for old in (path, path + ".lock"):
        if os.path.exists(old):
            os.unlink(old)
    return c.write(name + ".json", json.dumps(gates.merged(config, {"record": {"path": path}}))), path


# ---- inspection

PROGRAMS = {
    "curl": ["curl", "-sS", "-m", "20", "https://allowed.example/c"],
    "python": ["python3", "-c", "import urllib.request as u; print(u.urlopen('https://allowed.example/p', timeout=20).read().decode(), end='')"],
    "wget": ["wget", "-q", "-T", "20", "-t", "1", "-O", "-", "https://allowed.example/w"],
    "node": ["node", "-e", "fetch('https://allowed.example/n').then(r => r.text()).then(t => process.stdout.write(t))"],
}


@both
def every_client_trusts_the_runs_own_ca(c):
    config, path = recorded(c, "inspecting", INSPECTING)
    for name, argv in PROGRAMS.items():
        if not shutil.which(argv[0], path="/usr/local/bin:/usr/bin:/bin"):
            print(f"SKIP {name} trusts the run's own CA: it is not installed", flush=True)
            continue
        if os.path.exists(path):
            os.unlink(path)
        transparent = ["--transparent"] if name == "node" else []  # older ones ask no variable for a proxy
        out, account = c.account("--config", config, "--policy", c.policy, *transparent, "--", *argv)
        equal((out, account["denied"]), ("ok", 0), name)
        seen = [(r["host"], r["path"], r["decision"]) for r in records(path, entry="inspected")]
        equal(seen, [("allowed.example", "/" + name[0], "allow")], f"{name}: what was seen of it")


JAVA = """
import java.net.URI; import java.net.http.*;
class Fetch { public static void main(String[] a) throws Exception {
    HttpClient c = HttpClient.newBuilder().proxy(java.net.ProxySelector.getDefault()).build();
    System.out.print(c.send(HttpRequest.newBuilder(URI.create("https://allowed.example/j")).build(), HttpResponse.BodyHandlers.ofString()).body()); } }
"""


@both
def java_trusts_it_too(c):
    if not shutil.which("javac"):
        raise Skip("there is no JDK")
    source = c.write("Fetch.java", JAVA)
    config, path = recorded(c, "java", INSPECTING)
    out, _ = c.run("--quiet", "--config", config, "--policy", c.policy, "--bind-ro", c.dir, "--", "java", "-XX:+UseSerialGC", source)
    equal(out, "ok", "the answer")
    equal([r["path"] for r in records(path, entry="inspected")], ["/j"], "what was seen of it")


@both
def no_key_is_inside(c):
    named = c.folder("ca")
    if not os.path.exists(os.path.join(named, "ca.key")):
        gates.run("ca", "init", "--dir", named)
        for name in ("ca.pem", "ca.key"):
            os.chown(os.path.join(named, name), c.uid, c.uid) if netns.privileged() else None
    both_ways = (("ephemeral", {}, []), ("named", {"inspect": {"ca": named}}, ["--bind-ro", named]))
    for name, more, options in both_ways:
        config, path = recorded(c, "key-" + name, gates.merged(INSPECTING, more))
        out, _ = c.run("--quiet", *options, "--config", config, "--policy", c.policy, "--", "sh", "-c",
                       f"cat {named}/ca.key; curl -sS -m 20 https://allowed.example/; "
                       "grep -rlI 'PRIVATE KEY' /etc /tmp /run /var /home /root /dev/shm 2>/dev/null; find / -path /usr/share -prune -o -name 'ca.key' -size +0 -print 2>/dev/null; true")
        equal([l for l in out.splitlines() if l], ["ok"], f"{name}: an answer and no key")
        equal(len(records(path, entry="inspected")), 1, f"{name}: inspected")
    err = c.run("--workdir", named, "--config", config, "--policy", c.policy, "--", "true", status=2)[1]
    expect("inspect.ca" in err and "replace" in err, err)


@both
def the_policy_or_an_option_asks_for_inspection(c):
    base = gates.merged(CONFIG, {"upstream": {"ca_file": CA.path}})
    asking = c.write("asking.json", json.dumps(gates.limited("allowed.example", inspect={"mode": "listed", "hosts": ["allowed.example"]})))
    fetch = ["--", "sh", "-c", "env | grep -c sallyport/ca-bundle; curl -s -m 20 https://allowed.example/"]
    for name, options, seen in (("policy", ["--policy", asking], 1), ("option", ["--policy", c.policy, "--inspect", "all"], 1),
                                ("neither", ["--policy", c.policy], 0), ("off", ["--policy", c.policy, "--inspect", "off"], 0)):
        config, path = recorded(c, "asks-" + name, base)
        out, _ = c.run("--quiet", "--config", config, *options, *fetch, status=None)
        expect((int(out.splitlines()[0]) > 10) == bool(seen), f"{name}: variables: {out}")
        equal(len(records(path, entry="inspected")), seen, f"{name}: inspected requests")
    config, _ = recorded(c, "asks-ceiling", gates.merged(base, {"inspect": {"mode": "off"}}))
    expect("inspect.mode" in c.run("--config", config, "--policy", asking, "--", "true", status=2)[1], "the configuration is the ceiling")
    expect("--inspect" in c.run("--inspect", "some", "--", "true", status=2)[1], "a word that is none")


@both
def what_the_user_trusted_is_in_the_bundle(c):
    mine = c.folder("mine")
    authority = Authority(mine)
    with open(authority.path) as f:
        certificate = f.read()
    key = authority.leaf("x.example")[1]
    extra = c.write("mine/extra.pem", open(key).read() + certificate)
    body = certificate.splitlines()[2]
    for name, options, env in (("caller", [], {"NODE_EXTRA_CA_CERTS": extra}), ("--env", ["--env", f"REQUESTS_CA_BUNDLE={extra}"], {}),
                               ("--env NAME", ["--env", "SSL_CERT_FILE"], {"SSL_CERT_FILE": extra, "PIP_CERT": ROOTS})):
        out, _ = c.run("--quiet", "--inspect", "all", *options, "--", "sh", "-c",
                       "echo $NODE_EXTRA_CA_CERTS $REQUESTS_CA_BUNDLE $SSL_CERT_FILE $GIT_SSL_CAINFO $PIP_CERT | tr ' ' '\\n' | sort -u;"
                       f"grep -cF '{body}' $SSL_CERT_FILE; grep -c PRIVATE $SSL_CERT_FILE; grep -c BEGIN $SSL_CERT_FILE", env=env)
        got = out.splitlines()
        equal(got[:3], ["/etc/sallyport/ca-bundle.pem", "1", "0"], f"{name}: one bundle with the user's own root, and no key")
        with open(ROOTS) as f:
            equal(int(got[3]), f.read().count("BEGIN") + 2, f"{name}: each certificate once")
    out, _ = c.run("--quiet", "--inspect", "all", "--env", "SSL_CERT_FILE=/only/inside.pem", "--", "sh", "-c", "echo $SSL_CERT_FILE")
    equal(out, "/only/inside.pem\n", "a file that only the sandbox has")
    out, _ = c.run("--quiet", "--", "sh", "-c", "env | grep -c ca-bundle; ls /etc/sallyport", status=2)
    equal(out, "0\n", "without inspection")


# ---- a shared gateway

PLAIN = Origin(netns.ORIGIN, 8081)
ASK = """
import http.client, json, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    c = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
    if port == "443":
        c.request("CONNECT", target, headers={"Host": target})
    else:
        c.request("GET", f"http://{target}/", headers={"Host": target})
    r = c.getresponse()
    print(target, r.status, r.headers.get("x-deny-reason"))
    c.close()
"""


@both
def the_gateway_decides_alone(c):
    folder = tempfile.mkdtemp(prefix="sallyport-gw-", dir=FOLDER)
    hosts = {"allowed.example": [netns.ORIGIN]}
    with gates.Gate({"default": gates.limited("allowed.example", "allowed.example:8081")}, {"upstream": {"hosts": hosts}}, dir=folder) as gateway:
        token = c.write("gateway-token", gateway.token("gw-sbx"), 0o600)
        config, path = recorded(c, "gateway", {"blocked_hosts": ["blocked.example"], "user": None})
        gateway_options = ["--quiet", "--config", config, "--gateway", f"http://127.0.0.1:{gateway.port}", "--token-file", token]
        targets = ["allowed.example:443", "allowed.example:80", "allowed.example:8081", "allowed.example:8082", "other.example:443", "db.corp.internal:5432",
                   "blocked.example:443", "bad..name:80", "[::ffff:198.51.100.10]:80"]
        out, _ = c.run(*gateway_options, "--", "python3", "-c", ASK, *targets)
        equal(dict(l.split(" ", 1) for l in out.splitlines()), {
            "allowed.example:443": "200 None", "allowed.example:80": "200 None", "allowed.example:8081": "200 None",
            "allowed.example:8082": "403 port_not_allowed", "other.example:443": "403 host_not_allowed", "db.corp.internal:5432": "403 host_not_allowed",
            "blocked.example:443": "403 host_blocked", "bad..name:80": "400 request_malformed",
            "[::ffff:198.51.100.10]:80": "403 host_not_allowed"}, "the answers inside")
        sources = {(r["host"], r["port"]): r["source"] for r in records(path, decision="deny") + records(path, "close", decision="deny") if r["host"]}
        equal({sources[k] for k in (("allowed.example", 8082), ("other.example", 443), ("db.corp.internal", 5432))}, {"parent"}, "whose verdict it was")
        equal(sources[("blocked.example", 443)], "operator", "what is blocked here")
        asked = {r["host"] for r in gateway.records("decision")}
        expect("db.corp.internal" in asked and "blocked.example" not in asked, f"what the gateway was asked: {asked}")
        strict = c.write("strict.json", json.dumps(gates.limited("allowed.example")))
        out, _ = c.run(*gateway_options, "--policy", strict, "--", "python3", "-c", ASK, "allowed.example:80", "allowed.example:8081")
        equal(out.splitlines(), ["allowed.example:80 200 None", "allowed.example:8081 403 port_not_allowed"], "a policy of one's own counts as well")
    parent = c.write("to-parent.json", json.dumps({"version": 1, "networking": {"type": "parent"}}))
    expect("upstream.parent" in c.run("--policy", parent, "--", "true", status=2)[1], "no parent to decide")


# ---- transparent, to the host's own addresses

HERE = "127.0.5.1"
OWN = [Origin(HERE, 80), Origin(HERE, 443, tls=CA.leaf("own.example", file="own")), Origin(HERE, 8085)]
OWN_CONFIG = gates.merged(CONFIG, {"upstream": {"hosts": {"own.example": [HERE], "shut.example": ["127.0.5.2"]}, "allow_addresses": [f"{HERE}/32"]}})
DNS = """
import socket, struct
def query(name, server, tcp):
    q = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0\\0\\1\\0\\1"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect((server, 53))
        s.send((struct.pack(">H", len(q)) if tcp else b"") + q)
        a = s.recv(4096)
        while tcp and (len(a) < 2 or len(a) < 2 + struct.unpack(">H", a[:2])[0]):
            a += s.recv(4096)
    a = a[2:] if tcp else a
    count = struct.unpack(">H", a[6:8])[0]
    return a[3] & 15, a[-4:-2] in (b"\\xc6\\x12", b"\\xc6\\x13") if count else None
for server in ("127.0.0.1", "203.0.113.53"):
    for tcp in (False, True):
        print(query("own.example", server, tcp), query("never.example", server, tcp))
"""


@both
def own_addresses_are_reached_transparently(c):
    policy = c.write("own-policy.json", json.dumps(gates.limited("own.example", "own.example:8085", "shut.example")))
    config, path = recorded(c, "own", OWN_CONFIG)
    ca = c.write("test-ca.pem", open(CA.path).read())
    out, account = c.account("--transparent", "--port", "8085", "--no-proxy-env", "--bind-ro", c.dir, "--config", config, "--policy", policy, "--", "sh", "-c",
                             f"curl -sS -m 20 http://own.example/; curl -sS -m 20 --cacert {ca} https://own.example/; curl -sS -m 20 http://own.example:8085/;"
                             "curl -s -m 20 -o /dev/null -w ' %{http_code}' http://shut.example/; env | grep -ci _proxy=; true")
    equal(out, "okokok 4030\n", "ports 80, 443 and another, an address that is not opened, and no proxy variables")
    seen = sorted((r["host"], r["port"], r["reason"]) for r in records(path, entry="transparent"))
    equal(seen, [("own.example", 80, "ok"), ("own.example", 443, "ok"), ("own.example", 8085, "ok"), ("shut.example", 80, "address_not_allowed")], "records")
    equal(account["bypass_attempts"], 0, "nothing went around")


@both
def names_are_answered_by_udp_and_tcp(c):
    policy = c.write("own-policy.json", json.dumps(gates.limited("own.example")))
    config, path = recorded(c, "names", OWN_CONFIG)
    out, _ = c.run("--quiet", "--transparent", "--config", config, "--policy", policy, "--", "python3", "-c", DNS)
    equal(out.splitlines(), ["(0, True) (3, None)"] * 4, "any resolver, both ways: a synthetic address, and none")
    expect(any(r["host"] == "never.example" and r["decision"] == "deny" for r in records(path, "resolve") + records(path)), "the refusal is recorded")


# ---- what killed runs leave

@both
def the_next_run_sweeps_what_killed_ones_left(c):
    before, mine = test_run.run_dirs(), []
    for i in range(2):
        p = c.start("--quiet", "--", "sh", "-c", "echo up; sleep 60")
        p.stdout.readline()
        mine.append(p)
    dead, living = mine
    folders = test_run.run_dirs() - before
    equal(len(folders), 2, "folders of two runs")
    tasks = test_run.descendants(dead.pid)
    launcher = test_run.descendants(dead.pid, b"launch")[0]
    os.kill(dead.pid, signal.SIGSTOP)  # neither sees the other go
    os.kill(launcher, signal.SIGSTOP)
    os.kill(launcher, signal.SIGKILL)
    os.kill(dead.pid, signal.SIGKILL)
    dead.communicate(timeout=30)
    eventually(lambda: not test_run.alive(tasks), "the end of its processes", 10)
    left = {f for f in folders if os.path.exists(f) and lock_is_free(f)}
    equal(len(left), 1, "one folder without an owner")
    strange = tempfile.mkdtemp(prefix="sallyport-", dir=os.path.dirname(next(iter(left))))  # nothing of ours in it
    plain = os.path.join(os.path.dirname(strange), "sallyport-AAAAAA")
    os.rename(strange, plain)
    if netns.privileged():
        os.chown(plain, c.uid, c.uid)
    try:
        c.run("--quiet", "--", "sleep", "0.3")
        equal(test_run.run_dirs() - before - {plain}, folders - left, "the dead run's folder is gone, the living one's is not")
        expect(os.path.isdir(plain), "a folder without a lock is nobody's")
    finally:
        os.rmdir(plain)
        living.terminate()
        living.communicate(timeout=30)
    eventually(lambda: not (test_run.run_dirs() - before), "all folders")


def lock_is_free(folder):
    with open(os.path.join(folder, "lock")) as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False


@both
def nobody_elses_folder_is_swept(c):
    if not netns.privileged():
        raise Skip("there is only one user here")
    folder = "/tmp/sallyport-BBBBBB"
    os.mkdir(folder, 0o700)
    open(os.path.join(folder, "lock"), "w").close()
    os.chown(folder, USER_OF_NOBODY, USER_OF_NOBODY)
    try:
        c.run("--quiet", "--", "sleep", "0.2")
        expect(os.path.exists(os.path.join(folder, "lock")), "it is still there")
    finally:
        shutil.rmtree(folder)


USER_OF_NOBODY = 61234
if __name__ == "__main__":
    cases.main()
