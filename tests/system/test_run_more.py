#!/usr/bin/env python3
"""`sallyport run` with what stands around it: inspection with a CA of the run's own, a shared gateway, transparent listeners, and what
a killed run leaves to the next one."""
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time

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
                       "grep -rlI 'PRIVATE KEY' /etc /tmp /run /var /home /root /dev/shm 2>/dev/null; find / -name 'ca.key' -size +0 2>/dev/null; true")
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


if __name__ == "__main__":
    cases.main()
