#!/usr/bin/env python3
"""Inspection by HTTP/1.1: real clients and raw TLS through a real gate whose keeper mints, to origins good and bad."""
import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile

from harness import netns
netns.enter()
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from harness import cases
from harness import gate as gates
from harness.cases import Skip, case, equal, expect
from harness.nginx import Nginx
from harness.origin import Origin
from harness.pki import Authority, pem_of

FOLDER = tempfile.mkdtemp(prefix="sallyport-inspect-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
GOOD = ["www.shop.example", "api.shop.example", "git.shop.example", "plain.shop.example"]
BAD = ["expired.bad.example", "future.bad.example", "wrong.bad.example", "self.bad.example", "unknown.bad.example", "cnonly.bad.example",
       "weak.bad.example", "deep.sub.bad.example"]
RULES = [{"id": "read", "host": "api.shop.example", "methods": ["GET", "HEAD"], "path": "^/public/", "action": "allow"},
         {"id": "no-more", "host": "api.shop.example", "action": "deny"}]


# ---- the world

def certificate(name, key, issuer=None, sans=None, start=-1, end=48, digest=None, public=None):
    """A leaf of any kind: issuer None signs itself."""
    now = datetime.datetime.utcnow()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:60])])
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.name if issuer else subject)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(now + datetime.timedelta(hours=start)).not_valid_after(now + datetime.timedelta(hours=end))
               .add_extension(x509.BasicConstraints(False, None), True))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(s) for s in sans]), False)
    signed = builder.sign(issuer.key if issuer else key, digest or hashes.SHA256())
    paths = os.path.join(FOLDER, name + ".pem"), os.path.join(FOLDER, name + ".key")
    with open(paths[0], "wb") as f:
        f.write(signed.public_bytes(__import__("cryptography").hazmat.primitives.serialization.Encoding.PEM))
    with open(paths[1], "wb") as f:
        f.write(pem_of(key))
    return paths


def bad_certificates():
    other = tempfile.mkdtemp(dir=FOLDER)
    stranger = Authority(other)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    weak = rsa.generate_private_key(65537, 1024)
    return {
        "expired.bad.example": certificate("expired.bad.example", ec_key, CA, ["expired.bad.example"], -48, -24),
        "future.bad.example": certificate("future.bad.example", ec_key, CA, ["future.bad.example"], 24, 48),
        "wrong.bad.example": certificate("wrong.bad.example", ec_key, CA, ["other.example"]),
        "self.bad.example": certificate("self.bad.example", ec_key, None, ["self.bad.example"]),
        "unknown.bad.example": certificate("unknown.bad.example", ec_key, stranger, ["unknown.bad.example"]),
        "cnonly.bad.example": certificate("cnonly.bad.example", ec_key, CA, None),
        "weak.bad.example": certificate("weak.bad.example", weak, CA, ["weak.bad.example"]),
        "deep.sub.bad.example": certificate("deep.sub.bad.example", ec_key, CA, ["*.bad.example"]),
    }


def start_bad_origins():
    """One address each; what a request byte reached is counted by the origin."""
    origins = {}
    for n, (name, paths) in enumerate(bad_certificates().items()):
        address = f"127.0.9.{n + 1}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(*paths)
        origins[name] = (address, Origin(address, 443, tls=context))
    return origins


def start_gate(**inspect):
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca")) if not os.path.exists(os.path.join(FOLDER, "ca")) else None
    hosts = {name: [netns.ORIGIN] for name in GOOD}
    hosts.update({name: [address] for name, (address, _) in bad.items()})
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca"), **inspect},
              "upstream": {"hosts": hosts, "ca_file": CA.path, "allow_addresses": [f"{a}/32" for a, _ in bad.values()]}}
    policy = gates.limited(*GOOD, *BAD, rules=RULES, inspect={"mode": "all", "passthrough": ["plain.shop.example"]})
    return gates.Gate({"default": policy}, config).start()


def curl(*args, sub="curl", status=0, ca=None):
    program = shutil.which("curl")
    if not program:
        raise Skip("curl is not installed")
    p = subprocess.run([program, "-sS", "--cacert", ca or os.path.join(FOLDER, "ca/ca.pem"), "-x", gate.proxy_url(sub), *args], capture_output=True,
                       text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": FOLDER})
    expect((p.returncode == 0) == (status == 0), f"curl {args}: exit status {p.returncode}: {p.stderr.strip()[-400:]}")
    return p.stdout + p.stderr


def inside(host, request, sub="raw", sni=None, seconds=10, alpn=("http/1.1",)):
    """Raw bytes inside an inspected tunnel; everything that comes back."""
    with socket.create_connection(gate.address, seconds) as s:
        s.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: {gate.credential(sub)}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = s.recv(1)
            expect(more, f"no answer to CONNECT: {head!r}")
            head += more
        expect(head.startswith(b"HTTP/1.1 200"), head)
        context = ssl.create_default_context(cafile=os.path.join(FOLDER, "ca/ca.pem"))
        context.set_alpn_protocols(list(alpn))
        if sni and sni != host:
            context.check_hostname = False
        with context.wrap_socket(s, server_hostname=sni or host) as t:
            t.settimeout(seconds)
            t.sendall(request)
            data = b""
            try:
                while more := t.recv(65536):
                    data += more
            except (OSError, ssl.SSLError):
                pass
            return data


def get(host, path="/index.html", extra="", method="GET", named=None):
    return inside(host, f"{method} {path} HTTP/1.1\r\nHost: {named or host}\r\nConnection: close\r\n{extra}\r\n".encode())


def reached():
    return sum(o.complete() for _, o in bad.values())


# ---- what is allowed

@case
def a_page_by_curl():
    out = curl("-v", "https://www.shop.example/index.html")
    expect("hello from the origin" in out, out[-500:])
    expect("SSL certificate verify ok" in out, "the leaf verifies against the inspection CA")
    tunnel = gate.record("decision", entry="connect", host="www.shop.example", sandbox="curl")
    request = gate.record("decision", entry="inspected", host="www.shop.example", sandbox="curl")
    equal((tunnel["inspect"], request["inspect"]), (True, True), "inspect")
    equal((request["parent"], request["method"], request["path"], request["scheme"]), (tunnel["id"], "GET", "/index.html", "https"), "the request's record")
    close = gate.record("close", id=tunnel["id"])
    expect(close["tls_upstream"].startswith("TLSv1.") and close["tls_client"].startswith("TLSv1.") and len(close["upstream_certificate"]) == 64, close)
    inner = gate.record("close", id=request["id"])
    equal(inner["status"], 200, "the status of the request")


@case
def many_requests_on_one_connection():
    out = curl("-v", *["https://www.shop.example/index.html"] * 5, sub="keep")
    equal(out.count("hello from the origin"), 5, "pages")
    equal(len(gate.records("decision", entry="connect", sandbox="keep")), 1, "tunnels")
    cases.eventually(lambda: len(gate.records("close", sandbox="keep")) == 6, "five requests and one tunnel closed")


@case
def every_byte_both_ways():
    data = os.urandom(2_000_000)
    server.file("big", data)
    path = os.path.join(FOLDER, "got")
    curl("-o", path, "https://www.shop.example/big", sub="bytes")
    with open(path, "rb") as f:
        expect(f.read() == data, "the file differs")


@case
def tls_12_and_13():
    for flag in ("--tlsv1.2 --tls-max 1.2", "--tlsv1.3"):
        expect("hello" in curl(*flag.split(), "https://www.shop.example/index.html", sub="versions"), flag)


@case
def clients_with_other_tls_libraries():
    wget = shutil.which("wget")
    if not wget:
        raise Skip("wget is not installed")
    url = gate.proxy_url("wget")
    p = subprocess.run([wget, "-q", "-O", "-", f"--ca-certificate={FOLDER}/ca/ca.pem", "https://www.shop.example/index.html"], capture_output=True,
                       text=True, timeout=60, env={"PATH": os.environ["PATH"], "https_proxy": url})
    equal(p.stdout, "hello from the origin\n", f"wget: {p.stderr}")


@case
def strict_verification_by_python():
    context = ssl.create_default_context(cafile=os.path.join(FOLDER, "ca/ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(gate.address, 10) as s:
        s.sendall(f"CONNECT www.shop.example:443 HTTP/1.1\r\nHost: www.shop.example\r\nProxy-Authorization: {gate.credential('strict')}\r\n\r\n".encode())
        expect(s.recv(65536).startswith(b"HTTP/1.1 200"), "CONNECT")
        with context.wrap_socket(s, server_hostname="www.shop.example") as t:
            names = [v for k, v in t.getpeercert()["subjectAltName"]]
            equal(names, ["www.shop.example"], "the leaf's names")


@case
def git_clone():
    git = shutil.which("git")
    if not git:
        raise Skip("git is not installed")
    env = {"PATH": os.environ["PATH"], "HOME": FOLDER, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_SSL_CAINFO": f"{FOLDER}/ca/ca.pem",
           "https_proxy": gate.proxy_url("git")}
    run = lambda *a: subprocess.run([git, "-c", "user.name=t", "-c", "user.email=t@example.test", *a], check=True, env=env, capture_output=True, timeout=60)
    run("init", "-q", f"{FOLDER}/source")
    with open(f"{FOLDER}/source/file", "w") as f:
        f.write("content\n")
    run("-C", f"{FOLDER}/source", "add", "file")
    run("-C", f"{FOLDER}/source", "commit", "-qm", "one")
    run("clone", "-q", "--bare", f"{FOLDER}/source", f"{FOLDER}/www/repo.git")
    run("-C", f"{FOLDER}/www/repo.git", "update-server-info")
    run("clone", "-q", "https://git.shop.example/repo.git", f"{FOLDER}/clone")
    with open(f"{FOLDER}/clone/file") as f:
        equal(f.read(), "content\n", "the cloned file")


@case
def passthrough_is_not_touched():
    expect("hello" in curl("https://plain.shop.example/index.html", ca=CA.path, sub="pass"), "the origin's own certificate")
    equal(gate.record("decision", host="plain.shop.example")["inspect"], False, "inspect")


# ---- what is refused inside

@case
def rules_judge_method_and_path():
    server.file("public/a", "open\n")
    expect(b"open" in get("api.shop.example", "/public/a"), "an allowed path")
    answer = get("api.shop.example", "/private")
    expect(b"403 Egress denied: path_not_allowed" in answer and b"x-deny-reason: path_not_allowed" in answer, answer[:200])
    answer = get("api.shop.example", "/public/a", method="DELETE")
    expect(b"403 Egress denied: method_not_allowed" in answer, answer[:200])
    for trick in ("/public/../private", "/public/%2e%2e/private", "/public/%2e%2e%2fprivate"):
        expect(b" 403 " in get("api.shop.example", trick)[:16] + b" ", f"{trick} passed")
    expect("path_not_allowed" in curl("-i", "https://api.shop.example/private", sub="shown"), "curl shows why")


@case
def fronting_is_refused():
    before = len(server_log())
    equal(get("www.shop.example", named="api.shop.example")[:12], b"HTTP/1.1 421", "another Host")
    equal(get("www.shop.example", "https://api.shop.example/")[:12], b"HTTP/1.1 421", "absolute-form of another host")
    equal(get("www.shop.example", extra="Host: api.shop.example\r\n")[:12], b"HTTP/1.1 400", "Host twice")
    equal(inside("www.shop.example", b"GET / HTTP/1.1\r\n\r\n")[:12], b"HTTP/1.1 400", "no Host")
    equal(get("www.shop.example", method="CONNECT")[:12], b"HTTP/1.1 400", "CONNECT inside")
    try:
        inside("www.shop.example", b"GET / HTTP/1.1\r\nHost: www.shop.example\r\n\r\n", sni="api.shop.example")
        raise cases.Failed("a tunnel with another SNI opened")
    except OSError:
        pass
    gate.record("close", reason="sni_mismatch", decision="deny")
    equal(len(server_log()), before, "requests that reached the origin")


def server_log():
    with open(os.path.join(FOLDER, "access.log")) as f:
        return f.read().splitlines()


@case
def a_bad_upstream_is_reported_inside_and_gets_no_request():
    words = {"expired": "expired", "future": "not yet valid", "wrong": "another", "self": "self-signed", "unknown": "signature", "cnonly": "", "weak": "weak", "deep": ""}
    for name in BAD:
        answer = get(name)
        expect(answer.startswith(b"HTTP/1.1 502 Egress failed: upstream_tls"), f"{name}: {answer[:120]}")
        expect(words[name.split(".")[0]].encode() in answer, f"{name}: {answer[-300:]}")
    equal(reached(), 0, "requests that reached a bad upstream")


@case
def a_refusal_at_connect_can_be_said_inside():
    global gate
    outer = gate
    gate = start_gate(deny_in_tunnel=True)
    try:
        out = curl("-i", "https://denied.example/", sub="inside")
        expect("403 Egress denied: host_not_allowed" in out, out[:300])
        gate.record("decision", host="denied.example", decision="deny", entry="connect")
    finally:
        gate.stop()
        gate.cleanup()
        gate = outer


# ---- the keeper alone has the key

@case
def no_worker_holds_the_ca_key():
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    with open(os.path.join(FOLDER, "ca/ca.key"), "rb") as f:
        secret = load_pem_private_key(f.read(), None).private_numbers().private_value.to_bytes(32, "big")
    needles = [secret, secret[::-1]]
    searched = 0
    for pid in gate.children():
        if "keeper" in gate.command_line(pid):
            continue
        try:
            found, size = search(pid, needles)
        except PermissionError:
            raise Skip("this user may not read the memory of the processes")
        expect(not found, f"process {pid} ({gate.command_line(pid)[:40]}) holds the CA key")
        searched += size
    expect(searched > 1 << 20, "memory was searched")


def search(pid, needles):
    size = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, mode = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            if "r" not in mode or "w" not in mode or end - start > 1 << 28:
                continue
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except OSError:
                continue
            size += len(data)
            if any(n in data for n in needles):
                return True, size
    return False, size


@case
def the_gate_ends_well():
    gate.stop()


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    server.stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    try:
        server = Nginx(FOLDER, CA.leaf(*GOOD, file="origin"))
    except Skip as e:
        print(f"SKIP inspection: {e}")
        sys.exit(0)
    server.file("index.html", "hello from the origin\n")
    bad = start_bad_origins()
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
