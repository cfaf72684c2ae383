#!/usr/bin/env python3
"""Package registries that are open for reading: real clients read, and nothing that publishes gets past, whoever sends it and in
whatever spelling. The hosts are those of the shipped data file, answered by an origin of the test."""
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

from harness import cases, clients, netns
netns.enter()
from harness import gate as gates, h2, inner
from harness.cases import Skip, case, equal, expect, report, table
from harness.clients import tool
from harness.h2 import DATA, END_HEADERS, END_STREAM, HEADERS, frame
from harness.nginx import Nginx
from harness.origin import Origin
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-registries-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
with open(os.path.join(gates.ROOT, "policies/registries.json")) as f:
    FILE = json.load(f)
MANAGERS = ["apt", "npm", "pip", "cargo", "gem", "go", "docker", "pub", "github"]
MEGABYTE = 1 << 20


def hosts_below(grouped):
    return [domain if label == "@" else f"{label}.{domain}" for domain, labels in grouped.items() for label in labels]


def host(group):
    """The first host of a group of the file's grammar."""
    return hosts_below(FILE["reads"][group]["hosts"])[0]


NAMES = sorted({h for m in MANAGERS for h in hosts_below(FILE["managers"][m]["hosts"])})
NPM, PYPI, CRATES, GEMS, OCI, PUB, FORGE, STORAGE = map(host, ("npm", "pypi", "crates", "rubygems", "oci", "pub", "github", "go-storage"))
MIRROR = hosts_below(FILE["managers"]["apt"]["hosts"])[0]
PYPI_FILES, INDEX, CRATE_FILES = hosts_below(FILE["managers"]["pip"]["hosts"])[1], *hosts_below(FILE["managers"]["cargo"]["hosts"])[:2]
NGINX = """
user root; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 0; server_names_hash_bucket_size 128;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    server {{
        listen {address}:80; listen {address}:443 ssl http2; server_name _;
        ssl_certificate {cert}; ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:7001; proxy_http_version 1.1; proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
        }}
    }}
}}
"""


# ---- the world

run = functools.partial(clients.run, FOLDER)


def ca():
    return os.path.join(FOLDER, "ca/ca.pem")


def proxy(sub, **claims):
    return f"http://sandbox:{gate.token(sub, **claims)}@127.0.0.1:{gate.port}"


def proxies(sub, **claims):
    url = proxy(sub, **claims)
    return {"http_proxy": url, "https_proxy": url, "HTTP_PROXY": url, "HTTPS_PROXY": url}


def curl(sub, url, *options, http="--http1.1", **claims):
    """(status, deny reason or None) of one request."""
    out = run(tool("curl"), "-sS", "--path-as-is", "--cacert", ca(), http, "-x", proxy(sub, **claims), "-o", "/dev/null", "-w",
              "%{http_code} %header{x-deny-reason}", *options, url, status=None)
    words = out.strip().splitlines()[-1].split() if out.strip() else [""]
    return (int(words[0]) if words[0].isdigit() else 0), (words[1] if len(words) > 1 else None)


def arrived(method, path=None):
    return [r for r in behind.requests() if r.method == method and (path is None or r.path.split("?")[0] == path)]


def archive(**files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


PACKAGE = archive(**{"package/package.json": '{"name":"tinypkg","version":"1.0.0","main":"index.js"}', "package/index.js": "module.exports = 1\n"})
SDIST = archive(**{"demopkg-1.0/setup.py": "from setuptools import setup\nsetup()\n", "demopkg-1.0/PKG-INFO": "Metadata-Version: 1.0\nName: demopkg\nVersion: 1.0\n"})


def document(name, file):
    return json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": name, "version": "1.0.0", "dist": {
        "tarball": f"https://{NPM}/{name}/-/{file}-1.0.0.tgz", "shasum": hashlib.sha1(PACKAGE).hexdigest()}}}}).encode()


FILES = {
    "/tinypkg": document("tinypkg", "tinypkg"), "/tinypkg/-/tinypkg-1.0.0.tgz": PACKAGE,
    "/@scope%2ftiny": document("@scope/tiny", "tiny"), "/@scope/tiny/-/tiny-1.0.0.tgz": PACKAGE,
    "/-/v1/search": b'{"objects":[],"total":0,"time":"now"}', "/-/ping": b"{}", "/-/package/tinypkg/dist-tags": b'{"latest":"1.0.0"}',
    "/simple/demopkg/": f'<a href="https://{PYPI_FILES}/packages/demopkg-1.0.tar.gz#sha256={hashlib.sha256(SDIST).hexdigest()}">demopkg-1.0.tar.gz</a>'.encode(),
    "/packages/demopkg-1.0.tar.gz": SDIST,
    "/config.json": json.dumps({"dl": f"https://{CRATE_FILES}/crates", "api": f"https://{CRATES}"}).encode(),
    "/api/v1/crates": b'{"crates":[{"name":"foundcrate","max_version":"1.0.0","description":"d"}],"meta":{"total":1}}',
}


async def backend(connection, request):
    """Every registry at once. What publishes would succeed here."""
    path = request.path.split("?")[0]
    body = FILES.get(path, b"{}" if request.method != "GET" else b"")
    status = b"404 Not Found" if request.method == "GET" and path not in FILES else b"200 OK"
    kind = b"text/html" if path.startswith("/simple/") else b"application/json" if body[:1] == b"{" else b"application/octet-stream"
    connection.writer.write(b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body if request.method != "HEAD" else b""))


def start_gate():
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca")}, "upstream": {"hosts": {n: [netns.ORIGIN] for n in NAMES}, "ca_file": CA.path}}
    policy = {"version": 1, "networking": {"type": "limited", "allowed_hosts": [], "allow_package_managers": True}, "package_managers": MANAGERS}
    return gates.Gate({"default": policy, "writer": {**policy, "package_access": "write"}, "reporter": {**policy, "mode": "report"}}, config).start()


# ---- clients

def npm(*args, cwd, sub="npm", status=0, **claims):
    options = ["--no-fund", "--no-update-notifier", "--fetch-retries=0", f"--cafile={ca()}", f"--cache={FOLDER}/npm-cache", f"--//{NPM}/:_authToken=secret"]
    return run(tool("npm"), *args, *options, env=proxies(sub, **claims), status=status, cwd=cwd)


def folder_with(name, file, text):
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, file), "w") as f:
        f.write(text)
    return folder


@case
def npm_installs_and_audits():
    folder = folder_with("npm", "package.json", '{"name": "app", "version": "1.0.0"}')
    npm("install", "tinypkg", "@scope/tiny", cwd=folder)
    expect(os.path.exists(os.path.join(folder, "node_modules/@scope/tiny/index.js")), "the scoped package is there")
    bulk = "/-/npm/v1/security/advisories/bulk"
    expect(arrived("POST", bulk), "install asked for advisories")
    before = len(arrived("POST", bulk))
    expect("found 0 vulnerabilities" in npm("audit", cwd=folder), "audit has an answer")
    expect(len(arrived("POST", bulk)) > before, "audit's question arrived")
    equal(gate.record("decision", entry="inspected", sandbox="npm", method="POST")["rule"], "package_managers.npm", "the record")


@case
def npm_looks_around():
    folder = os.path.join(FOLDER, "npm")
    for args in (["view", "tinypkg"], ["view", "@scope/tiny@1.0.0"], ["search", "tiny"], ["ping"], ["dist-tag", "ls", "tinypkg"], ["outdated"], ["pack", "tinypkg"]):
        npm(*args, cwd=folder, sub="npmread")
    equal(gate.records("decision", entry="inspected", sandbox="npmread", decision="deny"), [], "nothing of it was refused")


@case
def npm_may_not_write():
    folder = folder_with("own", "package.json", '{"name": "mypkg", "version": "1.0.0"}')
    for args in (["publish"], ["dist-tag", "add", "tinypkg@1.0.0", "x"], ["deprecate", "tinypkg", "no"], ["unpublish", "tinypkg", "--force"], ["login", "--auth-type=legacy"],
                 ["whoami"], ["token", "list"], ["owner", "add", "somebody", "tinypkg"], ["star", "tinypkg"]):
        before = len(behind.requests())
        npm(*args, cwd=folder, sub="npmwrite", status=None)
        new = [r for r in behind.requests()[before:] if r.method not in ("GET", "HEAD") or r.path.startswith(("/-/whoami", "/-/npm/v1/tokens"))]
        equal([(r.method, r.path) for r in new], [], f"npm {args[0]} reached the registry with")
    reasons = {r["reason"] for r in gate.records("decision", entry="inspected", sandbox="npmwrite", decision="deny")}
    equal(reasons, {"method_not_allowed", "path_not_allowed"}, "the reasons")
    npm("publish", cwd=folder, sub="npmpub", policy="writer")
    expect(arrived("PUT", "/mypkg"), "with package_access write it is published")


@case
def pip_downloads():
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise Skip("pip is not installed")
    run(*pip, "--isolated", "--disable-pip-version-check", "download", "--no-cache-dir", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--retries", "1",
        "--cert", ca(), "-d", os.path.join(FOLDER, "pip"), "demopkg", env=proxies("pip"), status=None)
    expect(arrived("GET", "/simple/demopkg/") and arrived("GET", "/packages/demopkg-1.0.tar.gz"), "index and file were read")
    equal(gate.records("decision", entry="inspected", sandbox="pip", decision="deny"), [], "nothing of it was refused")


@case
def cargo_searches_and_may_not_publish():
    environment = {**proxies("cargo"), "CARGO_HTTP_CAINFO": ca(), "CARGO_HOME": os.path.join(FOLDER, "cargo"), "CARGO_NET_RETRY": "0", "PATH": os.environ["PATH"],
                   "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup"))}
    name, version = (run(tool("cargo"), "--version", env=environment, status=None).split() + ["", ""])[:2]
    if name != "cargo":
        raise Skip("cargo does not run here")
    if [int(n) for n in version.split(".")[:2]] < [1, 70]:
        raise Skip(f"cargo {version} looks for the index with git, elsewhere")
    expect("foundcrate" in run(tool("cargo"), "search", "found", env=environment), "search has an answer")
    folder = folder_with("crate", "Cargo.toml", '[package]\nname = "mycrate"\nversion = "1.0.0"\nedition = "2021"\ndescription = "d"\nlicense = "MIT"\n')
    os.makedirs(os.path.join(folder, "src"), exist_ok=True)
    with open(os.path.join(folder, "src/lib.rs"), "w") as f:
        f.write("")
    out = run(tool("cargo"), "publish", "--no-verify", "--allow-dirty", "--token", "secret", env=environment, status=1, cwd=folder)
    expect("method_not_allowed" in out or "403" in out, out[-400:])
    expect(not arrived("PUT", "/api/v1/crates/new"), "nothing was published")


# ---- what writes, by its shape

FORM, JSON, OCTETS = "application/x-www-form-urlencoded", "application/json", "application/octet-stream"
M, P = "method_not_allowed", "path_not_allowed"
WRITES = [
    (PYPI, "POST", "/legacy/", "multipart/form-data; boundary=x", M), (CRATES, "PUT", "/api/v1/crates/new", OCTETS, M),
    (CRATES, "DELETE", "/api/v1/crates/x/1.0.0/yank", None, M), (GEMS, "POST", "/api/v1/gems", OCTETS, M), (GEMS, "DELETE", "/api/v1/gems/yank", FORM, M),
    (OCI, "POST", "/v2/a/b/blobs/uploads/", OCTETS, P), (OCI, "PATCH", "/v2/a/b/blobs/uploads/1-2", OCTETS, M),
    (OCI, "PUT", "/v2/a/b/manifests/latest", "application/vnd.oci.image.manifest.v1+json", M), (OCI, "GET", "/v2/a/b/blobs/uploads/1-2", None, P),
    (NPM, "PUT", "/mypkg", JSON, M), (NPM, "PUT", "/@me%2fmypkg", JSON, M), (NPM, "POST", "/-/v1/login", JSON, P), (NPM, "PUT", "/-/user/org.couchdb.user:me", JSON, M),
    (PUB, "GET", "/api/packages/versions/new", None, P), (PUB, "GET", "/api/packages/versions/newUploadFinish?upload_id=1", None, P),
    (STORAGE, "POST", "/bucket/?uploads", OCTETS, M), (STORAGE, "GET", "/somebody-elses/x?d=secret", None, P),
    (FORGE, "GET", "/o/r.git/info/refs?service=git-receive-pack", None, P), (FORGE, "POST", "/o/r.git/git-receive-pack", "application/x-git-receive-pack-request", M),
    (FORGE, "POST", "/o/r.git/info/lfs/objects/batch", "application/vnd.git-lfs+json", M),
    # a write in the dress of a read
    (NPM, "POST", "//-/npm/v1/security/advisories/bulk", JSON, P), (NPM, "POST", "/-/npm/v1/security/advisories/bulk/../../../../../../mypkg", JSON, M),
    (NPM, "POST", "/-%2fnpm/v1/security/advisories/bulk", JSON, P), (NPM, "POST", "/-/npm/v1/security/advisories/bulk?rev=1", JSON, P),
    (NPM, "POST", "/-/NPM/v1/security/advisories/bulk", JSON, P), (NPM, "POST", "/-/npm/v1/security/advisories/bulk", OCTETS, M),
    (NPM, "GET", "/tinypkg", JSON, M), (NPM, "HEAD", "/tinypkg", JSON, M), (NPM, "OPTIONS", "/tinypkg", JSON, M),
    (FORGE, "GET", "/o/r.git/info/refs?service=git%2Dreceive-pack", None, P), (FORGE, "GET", "/o/r.git/info/%72efs?service=git-receive-pack", None, P),
    (STORAGE, "GET", "/proxy-golang-org-prod/..%2fsomebody-elses/x", None, P), (PUB, "GET", "/api/packages/versions%2fnew", None, P),
    (OCI, "POST", "/token/../v2/a/b/blobs/uploads/", FORM, P),
]
READS = [
    (NPM, "POST", "/-/npm/v1/security/advisories/bulk", JSON), (NPM, "POST", "/-/npm/v1/security/audits/quick", "application/json; charset=utf-8"),
    (OCI, "POST", "/token", FORM), (OCI, "GET", "/v2/a/b/manifests/latest", None), (OCI, "HEAD", "/v2/a/b/blobs/sha256:00ff", None),
    (FORGE, "GET", "/o/r.git/info/refs?service=git-upload-pack", None), (FORGE, "POST", "/o/r.git/git-upload-pack", "application/x-git-upload-pack-request"),
    (PYPI, "GET", "/simple/x/", None), (CRATES, "GET", "/api/v1/crates?q=x", None), (GEMS, "GET", "/info/rails", None), (NPM, "GET", "/@a%2Fb", None),
    (STORAGE, "GET", "/proxy-golang-org-prod/x", None), (PUB, "GET", "/api/packages/http", None), (INDEX, "GET", "/3/a/abc", None),
]


def options_for(method, kind):
    request = ["--head"] if method == "HEAD" and not kind else ["-X", method]
    return [*request, *(["-H", f"Content-Type: {kind}", "--data-binary", "content"] if kind else [])]


@table
def writes_are_refused():
    for http in ("--http1.1", "--http2"):
        for name, method, path, kind, reason in WRITES:
            before = len(behind.requests())
            got = curl("shapes", f"https://{name}{path}", *options_for(method, kind), http=http)
            new = behind.requests()[before:]
            ok = got == (403, reason) and not new
            report(f"{method} {path} {kind or ''} {http}", None if ok else f"{got}, expected 403 {reason}; {len(new)} requests arrived")


@table
def reads_arrive():
    for http in ("--http1.1", "--http2"):
        for name, method, path, kind in READS:
            before = len(behind.requests())
            got = curl("shapes", f"https://{name}{path}", *options_for(method, kind), http=http)
            new = behind.requests()[before:]
            ok = got[1] is None and [(r.method, r.path) for r in new] == [(method, path)] and new[0].body == (b"content" if kind else b"")
            report(f"{method} {path} {kind or ''} {http}", None if ok else f"{got}; {[(r.method, r.path) for r in new]} arrived")


@table
def check_says_the_same():
    """Without content: what only content gives away is left out."""
    rows = [(n, m, p, "deny", r) for n, m, p, kind, r in WRITES if not (m in ("GET", "HEAD", "OPTIONS") and kind) and kind != OCTETS or p.startswith("/v2/")]
    rows += [(n, m, p, "allow", "ok") for n, m, p, _ in READS]
    rows = [r for r in rows if r[:3] != (NPM, "POST", "/-/npm/v1/security/advisories/bulk") or r[3] == "allow"]
    for name, method, path, decision, reason in rows:
        p = gates.run("check", "--config", gate.path("config.json"), "--policy", gate.path("policies/default.json"), "--method", method, "--json", f"https://{name}{path}", status=None)
        got = json.loads(p.stdout)
        got = got[0] if isinstance(got, list) else got.get("results", [got])[0]
        ok = (got["decision"], got["reason"]) == (decision, reason)
        report(f"check {method} {path}", None if ok else f"{got['decision']} {got['reason']}, expected {decision} {reason}")


# ---- bodies

def file_of(size):
    path = os.path.join(FOLDER, f"bytes-{size}")
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(b"x" * size)
    return path


@case
def a_body_is_held_to_its_length():
    url, bulk = f"https://{NPM}/-/npm/v1/security/advisories/bulk", "/-/npm/v1/security/advisories/bulk"
    for http in ("--http1.1", "--http2"):
        before = len(arrived("POST", bulk))
        got = curl("length", url, "-H", f"Content-Type: {JSON}", "-H", "Expect:", "--data-binary", f"@{file_of(MEGABYTE)}", http=http)
        equal((got, len(arrived("POST", bulk)) - before), ((200, None), 1), f"as much as is allowed, {http}")
        got = curl("length", url, "-H", f"Content-Type: {JSON}", "-H", "Expect:", "--data-binary", f"@{file_of(MEGABYTE + 1)}", http=http)
        equal(got, (413, "request_too_large"), f"one byte more, {http}")
    got = curl("length", url, "-H", f"Content-Type: {JSON}", "-H", "Expect:", "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{file_of(2 * MEGABYTE)}")
    expect(got[0] in (0, 413), f"in chunks: {got}")
    close = cases.eventually(lambda: gate.records("close", sandbox="length", reason="request_too_large"), "the close record of the one in chunks")[0]
    expect(close["bytes_up"] <= MEGABYTE + 200_000, f"{close['bytes_up']} bytes went up")
    equal(len(arrived("POST", bulk)) - before, 1, "requests that arrived whole")


def h2_client(sub):
    return h2.Client(gate, ca(), NPM, sub)


def fields_of(*more, path="/tinypkg", method="GET"):
    return h2.request(NPM, path, method, "https", *more)


@case
def http2_without_a_length_is_held_to_it_too():
    c = h2_client("h2length")
    bulk = "/-/npm/v1/security/advisories/bulk"
    before = len(arrived("POST", bulk))
    c.send(frame(HEADERS, END_HEADERS, 1, fields_of(("content-type", JSON), path=bulk, method="POST")))
    room, sent, answer = {0: 65535, 1: 65535}, 0, None
    while answer is None and sent < 2 * MEGABYTE:
        while min(room.values()) >= 16000:
            c.send(frame(DATA, 0, 1, bytes(16000)))
            room, sent = {k: v - 16000 for k, v in room.items()}, sent + 16000
        kind, _, sid, data = c.next() or (h2.GOAWAY, 0, 0, b"")
        if kind == h2.WINDOW_UPDATE and sid in room:
            room[sid] += int.from_bytes(data, "big")
        answer = kind if kind in (h2.GOAWAY, h2.RST_STREAM, HEADERS) else None
    equal((answer, MEGABYTE < sent < 2 * MEGABYTE), (HEADERS, True), f"the refusal, after {sent} bytes")
    cases.eventually(lambda: gate.records("close", sandbox="h2length", reason="request_too_large"), "its close record")
    equal(len(arrived("POST", bulk)) - before, 0, "requests that arrived whole")
    c.close()


@case
def http2_reads_bring_nothing_along():
    before = len(behind.requests())
    c = h2_client("h2get")
    # ended by an empty frame: no content
    c.send(frame(HEADERS, END_HEADERS, 1, fields_of()) + frame(DATA, END_STREAM, 1))
    head, body, code = c.answer(1)
    expect(body == FILES["/tinypkg"] and code is None, f"{body[:80]!r} {code}")
    equal(len(behind.requests()) - before, 1, "the read arrived")
    rows = [("GET", (("content-length", "6"),), b"secret"), ("GET", (), b"s"), ("HEAD", (), b"secret"), ("GET", (("content-length", "0"),), b"s")]
    for n, ((method, first, rest), gap) in enumerate((row, gap) for row in rows for gap in (0, 0.1)):
        sid = 3 + 2 * n
        opening, content = frame(HEADERS, END_HEADERS, sid, fields_of(*first, method=method)), frame(DATA, END_STREAM, sid, rest)
        for part in (opening + content,) if gap == 0 else (opening, content):
            c.send(part)
            time.sleep(gap)
        head, body, code = c.answer(sid)
        expect(FILES["/tinypkg"] not in body, f"stream {sid} was answered by the origin")
    c.close()
    equal(len(behind.requests()) - before, 1, "nothing else arrived whole")
    cases.eventually(lambda: gate.records("decision", sandbox="h2get", reason="method_not_allowed"), "the refusal at the head")
    cases.eventually(lambda: gate.records("close", sandbox="h2get", reason="method_not_allowed"), "the refusal at the first byte")


# ---- ways around

def talk(sub, data, name=None):
    return inner.talk(gate.address, f"{name or NPM}:443", gate.credential(sub), inner.trusting(ca()), [(0, data)], seconds=8, linger=0.5)


@case
def a_write_behind_a_read():
    before = len(behind.requests())
    put = f"PUT /mypkg HTTP/1.1\r\nHost: {NPM}\r\nContent-Type: {JSON}\r\nContent-Length: 2\r\n\r\n{{}}"
    reply = talk("pipelined", f"GET /tinypkg HTTP/1.1\r\nHost: {NPM}\r\n\r\n{put}".encode())
    equal([m.status for m in reply.messages], [200, 403], "the answers")
    for framing in (f"Content-Length: {len(put)}", "Transfer-Encoding: chunked"):
        body = put if "Length" in framing else f"{len(put):x}\r\n{put}\r\n0\r\n\r\n"
        reply = talk("inside", f"GET /tinypkg HTTP/1.1\r\nHost: {NPM}\r\n{framing}\r\n\r\n{body}".encode())
        equal([(m.status, m.reason) for m in reply.messages], [(403, M)], f"a write as the content of a read, {framing}")
    equal([(r.method, r.path) for r in behind.requests()[before:]], [("GET", "/tinypkg")], "what arrived")


@case
def an_upgrade_is_no_read():
    before = len(behind.requests())
    reply = talk("upgrade", (f"GET /tinypkg HTTP/1.1\r\nHost: {NPM}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
    equal([(m.status, m.reason) for m in reply.messages], [(403, M)], "WebSocket")
    equal(len(behind.requests()), before, "what arrived")


@case
def another_method_may_not_be_named_elsewhere():
    before = len(behind.requests())
    for http in ("--http1.1", "--http2"):
        curl("override", f"https://{NPM}/-/npm/v1/security/audits", "-H", f"Content-Type: {JSON}", "-H", "X-HTTP-Method-Override: PUT", "-H", "X-HTTP-Method: DELETE",
             "-H", "X-Method-Override: PUT", "--data-binary", "{}", http=http)
    new = behind.requests()[before:]
    equal(len(new), 2, "the reads arrived")
    expect(not any(r.field(n) for r in new for n in ("x-http-method-override", "x-http-method", "x-method-override")), "with a method of their own")


@case
def two_types_are_none():
    before = len(behind.requests())
    reply = talk("types", (f"POST /-/npm/v1/security/audits HTTP/1.1\r\nHost: {NPM}\r\nContent-Type: {JSON}\r\nContent-Type: multipart/form-data\r\n"
                           "Content-Length: 2\r\n\r\n{}").encode())
    equal([(m.status, m.reason) for m in reply.messages], [(403, M)], "two types")
    equal(len(behind.requests()), before, "what arrived")


@case
def report_mode_lets_through_and_says_so():
    got = curl("reporter", f"https://{NPM}/mypkg2", "-X", "PUT", "-H", f"Content-Type: {JSON}", "--data-binary", "{}", policy="reporter")
    equal(got, (200, None), "a publication in report mode")
    got = curl("reporter", f"https://{NPM}/-/npm/v1/security/audits", "-H", f"Content-Type: {JSON}", "-H", "Expect:", "--data-binary", f"@{file_of(2 * MEGABYTE)}", policy="reporter")
    equal(got, (200, None), "too much in report mode")
    records = gate.records("decision", entry="inspected", sandbox="reporter")
    equal([(r["method"], r.get("would")) for r in records], [("PUT", "deny"), ("POST", "deny")], "the records")


@case
def plain_http_is_held_to_it_as_well():
    equal(curl("plain", f"http://{NPM}/tinypkg")[1], "port_not_allowed", "a registry without port 80")
    before = len(behind.requests())
    url = f"http://{MIRROR}/debian/dists/x"
    for options in (["-X", "PUT", "--data-binary", "x"], ["-X", "POST", "--data-binary", "x"], ["-X", "DELETE"], ["-X", "GET", "--data-binary", "x"],
                    ["-X", "GET", "-H", "Transfer-Encoding: chunked", "--data-binary", "x"], ["-X", "OPTIONS"]):
        equal(curl("plain", url, *options), (403, M), " ".join(options))
    equal(curl("plain", f"http://{MIRROR}/debian/..%2fx"), (403, P), "a path with two readings")
    equal(len(behind.requests()), before, "what arrived")
    curl("plain", url)
    curl("plain", f"http://{MIRROR}/debian/pool/libstdc++_1%3a2~3.deb")
    equal([r.path for r in behind.requests()[before:]], ["/debian/dists/x", "/debian/pool/libstdc++_1%3a2~3.deb"], "what reads")


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
        server = Nginx(FOLDER, CA.leaf(*NAMES, file="origin"), NGINX)
    except Skip as e:
        print(f"SKIP registries: {e}")
        sys.exit(0)
    behind = Origin("127.0.0.1", 7001, backend)
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
