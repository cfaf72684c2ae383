#!/usr/bin/env python3
"""Real clients whose every request is inspected: what worked without works, what is refused shows why. A client that is not
installed is skipped by name."""
import asyncio
import base64
import datetime
import email.utils
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

from harness import clients, netns
clients.fetch_modules()
clients.fetch_node()
netns.enter()
from harness import cases, inner
from harness import gate as gates
from harness.cases import Skip, case, equal, expect
from harness.clients import tool
from harness.nginx import Nginx
from harness.origin import Origin
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-inspect-clients-")
os.chmod(FOLDER, 0o755)
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "harness")
CA = Authority(FOLDER)
WWW, GIT, READ, NPM, PIP, DEB, GRPC = (f"{n}.shop.example" for n in ("www", "git", "readonly", "npm", "pip", "deb", "grpc"))
UNDER = "under_score.shop.example"
HOSTS = [WWW, GIT, DEB, GRPC, UNDER, netns.ORIGIN]
FORGE = "forge.shop.example"
GRPC_ADDRESS = "127.0.9.20"
RULES = [{"id": "clone", "host": READ, "methods": ["GET", "POST"], "path": r"^/git/[a-z.]+/(info/refs|git-upload-pack)$", "action": "allow"},
         {"id": "no-push", "host": READ, "action": "deny"}]
with open(os.path.join(gates.ROOT, "policies/registries.json")) as f:
    FORGE_READS = json.load(f)["reads"]["github"]["requests"]
REGISTRIES = {"date": "2026-01-01", "managers": {"npm": {"hosts": {"shop.example": ["npm"]}}, "pip": {"hosts": {"shop.example": ["pip"]}}, "forge": {"hosts": {"shop.example": ["forge"]}}},
              "reads": {"forge": {"date": "2026-01-01", "hosts": {"shop.example": ["forge"]}, "requests": FORGE_READS}}}
NGINX = """
user root; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log {dir}/access.log; default_type application/octet-stream; types {{ text/html html; application/json json; }}
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi; absolute_redirect off; client_max_body_size 0;
    server {{
        listen {address}:80; listen {address}:443 ssl http2; server_name _;
        ssl_certificate {cert}; ssl_certificate_key {key};
        root {dir}/www; index index.html;
        location ~ ^/(ws|sse|poll|echo|seen) {{
            proxy_pass http://127.0.0.1:7001; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
        }}
        location /git/ {{
            fastcgi_pass unix:{dir}/fcgi.sock; include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME @BACKEND@;
            fastcgi_param GIT_HTTP_EXPORT_ALL ""; fastcgi_param GIT_PROJECT_ROOT {dir}; fastcgi_param PATH_INFO $uri; fastcgi_param REMOTE_USER t;
            fastcgi_request_buffering off;
        }}
    }}
    server {{
        listen {address}:443 ssl http2; server_name npm.shop.example pip.shop.example;
        ssl_certificate {cert}; ssl_certificate_key {key};
        location / {{ proxy_pass http://127.0.0.1:7001; proxy_http_version 1.1; proxy_set_header Host $host; }}
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


def inspected(sub, **members):
    return gate.record("decision", entry="inspected", sandbox=sub, **members)


def npm_package():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as t:
        for name, text in (("package.json", '{"name":"tinypkg","version":"1.0.0","main":"index.js"}'), ("index.js", "module.exports = 1\n")):
            info = tarfile.TarInfo("package/" + name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def wheel():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("demopkg/__init__.py", "value = 1\n")
        z.writestr("demopkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demopkg\nVersion: 1.0\n")
        z.writestr("demopkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("demopkg-1.0.dist-info/RECORD", "")
    return data.getvalue()


PACKAGE, WHEEL = npm_package(), wheel()
WHEEL_NAME = "demopkg-1.0-py3-none-any.whl"
DIST = {"tarball": f"https://{NPM}/tinypkg/-/tinypkg-1.0.0.tgz", "shasum": hashlib.sha1(PACKAGE).hexdigest(),
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(PACKAGE).digest()).decode()}
FILES = {
    "/tinypkg": json.dumps({"name": "tinypkg", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "tinypkg", "version": "1.0.0", "dist": DIST}}}).encode(),
    "/tinypkg/-/tinypkg-1.0.0.tgz": PACKAGE,
    "/simple/demopkg/": f'<a href="/files/{WHEEL_NAME}#sha256={hashlib.sha256(WHEEL).hexdigest()}">{WHEEL_NAME}</a>'.encode(),
    f"/files/{WHEEL_NAME}": WHEEL,
}


async def websocket(connection, request):
    key = request.field("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    connection.writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while len(head := await connection.reader.readexactly(2)) == 2:
        size = head[1] & 127
        mask = await connection.reader.readexactly(4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(await connection.reader.readexactly(size)))
        if head[0] & 15 == 8:
            connection.writer.write(b"\x88" + bytes([size]) + data)
            return True
        connection.writer.write(b"\x81" + bytes([size + 5]) + b"echo:" + data)
        await connection.writer.drain()
    return True


async def backend(connection, request):
    """What nginx has behind it: WebSocket, events, long polls, and the registries."""
    w, path = connection.writer, request.path.split("?")[0]
    if (request.field("upgrade") or "").lower() == "websocket":
        try:
            return await websocket(connection, request)
        except asyncio.IncompleteReadError:
            return True
    if path == "/sse":
        w.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(5):
            text = b"data: %d\n\n" % n
            w.write(b"%x\r\n%s\r\n" % (len(text), text))
            await w.drain()
            await asyncio.sleep(0.4)
        w.write(b"0\r\n\r\n")
        return False
    if path == "/poll":
        await asyncio.sleep(2)
    body = request.body if path == "/echo" else b"{}" if request.method in ("PUT", "POST") else FILES.get(path, b"")
    kind = b"text/html" if path.startswith("/simple/") else b"application/json" if path == "/tinypkg" or request.method == "PUT" else b"application/octet-stream"
    status = b"404 Not Found" if request.method == "GET" and path not in FILES and path not in ("/poll", "/seen") else b"200 OK"
    w.write(b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body if request.method != "HEAD" else b""))


def start_gate():
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    with open(os.path.join(FOLDER, "registries.json"), "w") as f:
        json.dump(REGISTRIES, f)
    hosts = {name: [netns.ORIGIN] for name in [*HOSTS, READ, NPM, PIP, FORGE] if name != netns.ORIGIN}
    hosts[GRPC] = [GRPC_ADDRESS]
    held = gates.free_port()
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca")}, "registries": os.path.join(FOLDER, "registries.json"),
              "upstream": {"hosts": hosts, "ca_file": CA.path, "allow_addresses": [f"{GRPC_ADDRESS}/32"]},
              "listen": [{"name": "main", "address": "set below"}, {"name": "held", "address": f"127.0.0.1:{held}", "token_file": "set below"}]}
    policy = {**gates.limited(*HOSTS, rules=RULES, inspect={"mode": "all"}, package_managers=["npm", "pip", "forge"])}
    policy["networking"]["allow_package_managers"] = True

    def prepare(g):
        g.held = held
        g.config["listen"][0]["address"] = f"127.0.0.1:{g.port}"
        g.config["listen"][1]["token_file"] = g.path("held.token")
        g.write("held.token", g.token("browser"), 0o600)
        g.write_config()
    return gates.Gate({"default": policy, "writer": {**policy, "package_access": "write"}}, config, prepare=prepare).start()


# ---- curl, wget, apt

@case
def curl_by_each_protocol():
    for option, version in (("--http1.1", "1.1"), ("--http2", "2"), ("--http1.0", None)):
        out = run(tool("curl"), "-sS", "--cacert", ca(), option, "-x", proxy("curl"), "-w", "%{http_version} %{num_connects}", *[f"https://{WWW}/index.html", "-o", os.path.join(FOLDER, "page")])
        expect(version is None or out.startswith(version + " "), f"{option}: {out}")
        with open(os.path.join(FOLDER, "page")) as f:
            expect("a page" in f.read(), option)
    equal(inspected("curl", host=WWW, path="/index.html")["scheme"], "https", "the record")


@case
def curl_with_prior_knowledge_is_refused():
    out = run(tool("curl"), "-sS", "--http2-prior-knowledge", "-p", "-x", proxy("prior"), f"http://{WWW}:443/index.html", status=None)
    expect("a page" not in out, out[-200:])
    with inner.Inside(gate.address, f"{WWW}:443", gate.credential("prior"), inner.trusting(ca())) as inside:
        inside.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        reply = inside.read_until(["GET"], 5)
    expect(400 <= reply.status < 600 and reply.reason and reply.closed, f"{reply.status} {reply.data[:200]!r}")


@case
def curl_uploads_and_expects():
    path = os.path.join(FOLDER, "upload")
    with open(path, "wb") as f:
        f.write(os.urandom(5_000_000))
    for option in ("--http1.1", "--http2"):
        for how in (["-T", path], ["--data-binary", "@" + path, "-H", "Expect: 100-continue"], ["-T", path, "-H", "Transfer-Encoding: chunked"]):
            out = os.path.join(FOLDER, "back")
            run(tool("curl"), "-sS", "--cacert", ca(), option, "-x", proxy("upload"), *how, "-o", out, f"https://{WWW}/echo")
            with open(path, "rb") as a, open(out, "rb") as b:
                expect(a.read() == b.read(), f"{option} {how[0]}: what came back differs")


@case
def wget_with_gnutls():
    out = run(tool("wget"), "-q", "-O", "-", f"--ca-certificate={ca()}", f"https://{WWW}/index.html", env=proxies("wget"))
    expect("a page" in out, out)
    out = run(tool("wget"), "-S", "-O", "-", f"--ca-certificate={ca()}", "--tries=1", f"https://{READ}/private", env=proxies("wget"), status=1)
    expect("path_not_allowed" in out, out[-300:])


@case
def apt_over_https():
    apt, root = tool("apt-get"), os.path.join(FOLDER, "apt")
    text = b"Package: demopkg\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.test>\nFilename: ./demopkg.deb\nSize: 1\nSHA256: " + b"0" * 64 + b"\nDescription: nothing\n"
    date = email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc)).replace("+0000", "UTC")
    server.file("deb/Packages", text)
    server.file("deb/Release", f"Origin: test\nSuite: stable\nCodename: stable\nDate: {date}\nArchitectures: all amd64 arm64\nSHA256:\n {hashlib.sha256(text).hexdigest()} {len(text)} Packages\n")
    for d in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d"):
        os.makedirs(os.path.join(root, d))
    with open(os.path.join(root, "sources.list"), "w") as f:
        f.write(f"deb [trusted=yes] https://{DEB}/deb ./\n")
    open(os.path.join(root, "status"), "w").close()
    options = {"Dir::State": f"{root}/state", "Dir::State::status": f"{root}/status", "Dir::Cache": f"{root}/cache", "Dir::Etc": f"{root}/etc",
               "Dir::Etc::sourcelist": f"{root}/sources.list", "Dir::Etc::sourceparts": "-", "APT::Sandbox::User": "root", "Acquire::Languages": "none",
               "Acquire::Retries": "0", "Acquire::https::CaInfo": ca(), "Acquire::https::Proxy": proxy("apt")}
    out = run(apt, *[f"-o{k}={v}" for k, v in options.items()], "update", status=None)
    expect([l for l in os.listdir(os.path.join(root, "state/lists")) if "Packages" in l], f"no package list came: {out[-500:]}")
    inspected("apt", host=DEB, decision="allow")


# ---- git

def git(*args, sub="git", status=0, cwd=FOLDER):
    env = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_SSL_CAINFO": ca(), **proxies(sub)}
    return run(tool("git"), "-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "init.defaultBranch=main", *args, env=env, status=status, cwd=cwd)


@case
def git_clones_and_pushes():
    if not git_server:
        raise Skip("fcgiwrap or git is not installed")
    clone = os.path.join(FOLDER, "clone")
    git("clone", "-q", f"https://{GIT}/git/repo.git", clone)
    with open(os.path.join(clone, "large"), "wb") as f:
        f.write(os.urandom(3_000_000))  # over http.postBuffer: in chunks, after a probe
    git("add", "large", cwd=clone)
    git("commit", "-qm", "two", cwd=clone)
    git("push", "-q", "origin", "HEAD", cwd=clone)
    equal(git("ls-remote", f"https://{GIT}/git/repo.git", "HEAD").split()[0], git("rev-parse", "HEAD", cwd=clone).strip(), "what the server has")
    again = os.path.join(FOLDER, "again")
    git("clone", "-q", f"https://{GIT}/git/repo.git", again)
    expect(os.path.getsize(os.path.join(again, "large")) == 3_000_000, "the pushed file")
    equal(inspected("git", path="/git/repo.git/git-receive-pack")["method"], "POST", "the push is recorded")


@case
def git_may_clone_where_a_rule_refuses_pushes():
    if not git_server:
        raise Skip("fcgiwrap or git is not installed")
    clone = os.path.join(FOLDER, "readonly")
    git("clone", "-q", f"https://{READ}/git/repo.git", clone, sub="reader")
    git("commit", "-q", "--allow-empty", "-m", "three", cwd=clone)
    # The query tells a push from a clone at /info/refs; the path does not. The push itself is refused.
    out = git("push", "-q", "origin", "HEAD", sub="reader", status=1, cwd=clone)
    expect("403" in out, f"git shows why: {out}")
    inspected("reader", decision="deny", reason="path_not_allowed", path="/git/repo.git/git-receive-pack")


@case
def git_reads_a_registry_and_may_not_push_to_it():
    if not git_server:
        raise Skip("fcgiwrap or git is not installed")
    clone = os.path.join(FOLDER, "forge")
    git("clone", "-q", f"https://{FORGE}/git/repo.git", clone, sub="forge")
    git("fetch", "-q", "--depth=1", "origin", sub="forge", cwd=clone)
    equal(gate.records("decision", entry="inspected", sandbox="forge", decision="deny"), [], "nothing of it was refused")
    equal(inspected("forge", method="POST", path="/git/repo.git/git-upload-pack")["rule"], "package_managers.forge", "what let it through")
    git("commit", "-q", "--allow-empty", "-m", "four", cwd=clone)
    out = git("push", "-q", "origin", "HEAD", sub="forge", status=1, cwd=clone)
    expect("403" in out, f"git shows why: {out}")
    refused = [r["path"] for r in gate.records("decision", entry="inspected", sandbox="forge", decision="deny")]
    equal(refused, ["/git/repo.git/info/refs"], "the push ends with its first question")


# ---- package managers

def npm(*args, cwd, sub="npm", status=0, **claims):
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0", f"--cafile={ca()}", f"--cache={FOLDER}/npm-cache", f"--registry=https://{NPM}/",
               f"--//{NPM}/:_authToken=secret"]
    return run(tool("npm"), *args, *options, env=proxies(sub, **claims), status=status, cwd=cwd)


@case
def npm_installs_and_may_not_publish():
    folder = os.path.join(FOLDER, "npm")
    os.makedirs(folder)
    npm("install", "tinypkg", cwd=folder)
    expect(os.path.exists(os.path.join(folder, "node_modules/tinypkg/index.js")), "the package is there")
    own = os.path.join(FOLDER, "own")
    os.makedirs(own)
    with open(os.path.join(own, "package.json"), "w") as f:
        json.dump({"name": "mypkg", "version": "1.0.0", "description": "d", "license": "MIT"}, f)
    out = npm("publish", cwd=own, status=1)
    expect("403" in out or "method_not_allowed" in out, f"npm shows why: {out[-600:]}")
    equal(inspected("npm", decision="deny", host=NPM)["reason"], "method_not_allowed", "the record")
    expect(not [r for r in behind.requests() if r.method == "PUT" and r.path == "/mypkg"], "a publication reached the registry")
    npm("publish", cwd=own, sub="npmw", policy="writer")
    expect([r for r in behind.requests() if r.method == "PUT" and r.path == "/mypkg"], "with package_access write it reaches it")


@case
def pip_downloads_and_may_not_upload():
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise Skip("pip is not installed")
    out = os.path.join(FOLDER, "pip")
    run(*pip, "--isolated", "--disable-pip-version-check", "download", "--no-cache-dir", "--no-deps", "--retries", "1", "--cert", ca(), "-d", out,
        "--index-url", f"https://{PIP}/simple", "demopkg", env=proxies("pip"))
    expect(os.path.exists(os.path.join(out, WHEEL_NAME)), "the wheel is there")
    text = run(tool("curl"), "-sSi", "--cacert", ca(), "--http1.1", "-x", proxy("pip"), "-F", ":action=file_upload", "-F", f"content=@{out}/{WHEEL_NAME}", f"https://{PIP}/legacy/")
    expect("403" in text and "method_not_allowed" in text, text[-300:])
    expect(not [r for r in behind.requests() if r.path == "/legacy/"], "an upload reached the registry")


@case
def an_upload_refused_over_http2_shows_why():
    path = os.path.join(FOLDER, "refused")
    for size in (200_000, 5_000_000):
        with open(path, "wb") as f:
            f.write(os.urandom(size))
        for _ in range(10):
            text = run(tool("curl"), "-sSi", "--cacert", ca(), "--http2", "-x", proxy("early"), "-F", f"content=@{path}", f"https://{PIP}/legacy/", status=None)
            expect("HTTP/2 403" in text and '"reason":"method_not_allowed"' in text, f"{size} bytes: {text[-300:]}")


# ---- Node

def node(test, *args):
    out = run(tool("node"), os.path.join(HERE, "nodeclients.js"), clients.modules() if test != "https" else "", test, *args, env=proxies("node-" + test) | {"no_proxy": ""})
    return json.loads(out.strip().splitlines()[-1])


@case
def node_https():
    r = node("https", f"http://127.0.0.1:{gate.port}", gate.credential("nodeh"), ca(), f"https://{WWW}/index.html")
    equal(r, [200, "a page\n"], "the page")


@case
def undici_by_http1_and_http2():
    for version, via in (("h1", "1.1 sallyport"), ("h2", "2 sallyport")):
        sub = "undici-" + version
        r = node("undici", f"http://127.0.0.1:{gate.port}", gate.credential(sub), ca(), f"https://{WWW}/index.html", version)
        expect(isinstance(r, list) and [x[0] for x in r] == [200] * 4 and r[3][1] == 100000, f"{version}: {r}")
        equal(r[0][2], via, f"{version}: Via")
        equal(len(gate.records("decision", entry="connect", sandbox=sub)), 1, f"{version}: tunnels")


@case
def grpc_unary_and_streams():
    modules = clients.modules()
    cert, key = CA.leaf(GRPC, file="grpc")
    log = os.path.join(FOLDER, "grpc.log")
    process = subprocess.Popen([tool("node"), os.path.join(HERE, "nodeclients.js"), modules, "grpc-server", f"{GRPC_ADDRESS}:443", cert, key],
                               stdout=open(log, "w"), stderr=subprocess.STDOUT, preexec_fn=netns.die_with_parent)
    try:
        cases.eventually(lambda: "ready" in open(log).read(), "the gRPC server", 10)
        r = node("grpc-client", f"{GRPC}:443", ca())
        equal((r.get("unary"), r.get("fail"), r.get("many"), r.get("parallel")), ([0, "seen"], [9, "not today"], 20, 100), f"calls: {r}")
        equal(r["chat"], [50, 50 * 5 + sum(1000 * n for n in range(1, 50))], "messages to and fro")
        equal(inspected("node-grpc-client", host=GRPC, path="/demo.Echo/Chat")["method"], "POST", "the record")
    finally:
        process.kill()
        process.wait()


# ---- Go, rustls, Java, a newer Node

@case
def go_by_http1_and_http2():
    pages = [f"https://{host}/index.html" for host in (WWW, UNDER, netns.ORIGIN)]
    for option, proto in (([], "HTTP/1.1"), (["-h2"], "HTTP/2.0")):
        sub = "go-" + proto[5]
        go = lambda *args: [json.loads(line) for line in run(clients.go(), "get", *option, *args, env=proxies(sub) | {"SSL_CERT_FILE": ca()}).splitlines()]
        equal([(a["status"], a["proto"], a["body"]) for a in go(*pages)], [(200, proto, "a page\n")] * 3, "pages of a name, of one with an underscore, of an address")
        equal([(a["status"], a["proto"], a["reason"]) for a in go(f"https://{READ}/private")], [(403, proto, "path_not_allowed")], "a refused path")
        equal([(a["status"], a["length"], a["error"]) for a in go("-up", "3000000", f"https://{WWW}/echo")], [(200, 3000000, "")], "an upload")
        for _ in range(5):
            equal([(a["status"], a["reason"], a["error"]) for a in go("-up", "3000000", f"https://{PIP}/legacy/")], [(403, "method_not_allowed", "")], "a refused upload")
    inspected("go-2", host=UNDER, path="/index.html", decision="allow")


@case
def rustls_is_served_and_refused():
    said = run(clients.rustls(), f"127.0.0.1:{gate.port}", gate.credential("rustls"), clients.der(ca(), FOLDER), *[f"{h}/index.html" for h in (WWW, UNDER)], f"{READ}/private")
    pages, refused = said.splitlines()[:2], said.splitlines()[2]
    expect(all(line.startswith("HTTP/1.1 200 OK | Some(TLSv1_3) | http/1.1 | a page") for line in pages), said)
    expect(refused.startswith("HTTP/1.1 403 ") and "path_not_allowed" in refused, refused)


@case
def java_by_http1_and_http2():
    argv = clients.java(FOLDER, ca(), gate.port)
    said = run(*argv, *[f"https://{h}/index.html" for h in (WWW, netns.ORIGIN)], f"https://{READ}/private", env={"TOKEN": gate.token("java")})
    equal(said.splitlines(), ["200 OK", "200 HTTP_2 a page"] * 2 + ["403 Egress denied: path_not_allowed", "403 HTTP_2 path_not_allowed"], "answers")
    # Java names no server in its hello whose name has an underscore.
    out = run(tool("java"), *argv[1:], f"https://{UNDER}/", env={"TOKEN": gate.token("java-under")}, status=1)
    expect("terminated the handshake" in out and "unsupported URI" in out, out)
    equal(gate.record("close", sandbox="java-under")["reason"], "sni_missing", "the record")


@case
def node_fetch():
    code = "(async () => { for (const u of process.argv.slice(1)) { const r = await fetch(u); console.log(r.status, r.headers.get('x-deny-reason') || (await r.text()).trim()) } })()"
    env = {**proxies("fetch"), "NODE_USE_ENV_PROXY": "1", "NODE_EXTRA_CA_CERTS": ca()}
    said = run(clients.node(), "-e", code, f"https://{WWW}/index.html", f"https://{READ}/private", env=env)
    equal(said.splitlines(), ["200 a page", "403 path_not_allowed"], "answers")


# ---- what lasts

def arrivals(sub, alpn):
    """When the events of /sse came, in seconds."""
    began, times = time.monotonic(), []
    p = subprocess.Popen([tool("curl"), "-sSN", "--cacert", ca(), alpn, "-x", proxy(sub), f"https://{WWW}/sse"], stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]})
    for line in p.stdout:
        if line.startswith(b"data"):
            times.append(time.monotonic() - began)
    p.wait()
    return times


@case
def events_come_when_they_are_sent():
    for alpn in ("--http1.1", "--http2"):
        times = arrivals("sse", alpn)
        equal(len(times), 5, f"{alpn}: events")
        gaps = [b - a for a, b in zip(times, times[1:])]
        expect(all(0.15 < g < 1.2 for g in gaps), f"{alpn}: events in bunches: {gaps}")


@case
def long_polls_are_waited_for():
    for alpn in ("--http1.1", "--http2"):
        out = run(tool("curl"), "-sS", "--cacert", ca(), alpn, "-x", proxy("poll"), "-o", "/dev/null", "-w", "%{http_code} %{time_total}", f"https://{WWW}/poll")
        code, seconds = out.split()
        expect(code == "200" and 1.9 < float(seconds) < 5, f"{alpn}: {out}")


@case
def a_slow_reader_holds_its_windows_and_no_more():
    pid = gate.children("worker")[0]

    def resident():
        with open(f"/proc/{pid}/statm") as f:
            return int(f.read().split()[1]) * 4096
    with open(server.file("huge", b""), "wb") as f:
        f.truncate(300 << 20)
    before, readers = resident(), []
    for n in range(10):
        inside = inner.Inside(gate.address, f"{WWW}:443", gate.credential(f"slow{n}"), inner.trusting(ca()))
        inside.send(f"GET /huge HTTP/1.1\r\nHost: {WWW}\r\n\r\n".encode())
        readers.append(inside)
    time.sleep(1)
    early = resident()
    time.sleep(2)
    grown, late = resident() - before, resident() - early
    for r in readers:
        r.close()
    expect(grown < 64 << 20 and late < 4 << 20, f"{grown} bytes for ten answers of 300 MB that nobody reads, {late} of them in the last seconds")


# ---- a browser

PAGE = """<!doctype html><title>a page</title><body>a page<script>
const s = new WebSocket('wss://' + location.host + '/ws');
s.onopen = () => s.send('hi');
s.onmessage = e => fetch('/seen?' + encodeURIComponent(e.data) + '&' + performance.getEntriesByType('navigation')[0].nextHopProtocol);
s.onerror = () => fetch('/seen?failed');
</script></body>
"""


def browser(*options):
    """argv of a browser with a profile of its own that trusts the CA, by the listener that holds its token; and its home."""
    chromium, certutil = tool("chromium"), tool("certutil")
    home = os.path.join(FOLDER, "home")
    db = os.path.join(home, ".pki/nssdb")
    if not os.path.isdir(db):
        os.makedirs(db)
        run(certutil, "-N", "-d", "sql:" + db, "--empty-password")
        run(certutil, "-A", "-d", "sql:" + db, "-n", "inspection", "-t", "C,,", "-i", ca())
    return [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "--metrics-recording-only", f"--user-data-dir={home}/data",
            f"--proxy-server=http://127.0.0.1:{gate.held}", *options], home


@case
def chromium_loads_a_page_with_a_websocket():
    argv, home = browser(f"https://{WWW}/page.html")
    with open(os.path.join(FOLDER, "chromium.log"), "w") as log:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=netns.die_with_parent,
                             env={"PATH": os.environ["PATH"], "HOME": home})
    seen = lambda: [r.path for r in behind.requests() if r.path.startswith("/seen")]
    try:
        cases.eventually(seen, "the page says what its WebSocket got", 40)
    except cases.Failed as e:
        with open(os.path.join(FOLDER, "chromium.log")) as f:
            raise cases.Failed(f"{e}: {f.read()[-600:]}; records: {[(r['host'], r['reason']) for r in gate.records('decision', sandbox='browser')][:5]}")
    finally:
        os.killpg(p.pid, signal.SIGKILL)  # its own session: itself and its helpers
        p.wait()
    equal(seen()[0], "/seen?echo%3Ahi&h2", "the message that came back, and the page's protocol")
    equal(inspected("browser", path="/ws")["decision"], "allow", "the WebSocket's record")
    cases.eventually(lambda: gate.records("close", sandbox="browser", status=101), "its end is recorded")


@case
def chromium_shows_why():
    for url, sign in ((f"https://{READ}/private", '"reason":"path_not_allowed"'), ("https://www.denied.example/", "ERR_TUNNEL_CONNECTION_FAILED")):
        argv, home = browser("--dump-dom", url)
        out = run(*argv, env={"HOME": home}, status=None)
        expect(sign in out, f"{url}: {out[-600:]}")


@case
def the_gate_ends_well():
    gate.stop()


# ---- git's server

def start_git():
    fcgiwrap, program = shutil.which("fcgiwrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"), shutil.which("git")
    if not fcgiwrap or not program:
        return None, "/nonexistent"
    backend_path = os.path.join(subprocess.run([program, "--exec-path"], capture_output=True, text=True).stdout.strip(), "git-http-backend")
    env = {"GIT_CONFIG_NOSYSTEM": "1"}
    source, repo = os.path.join(FOLDER, "source"), os.path.join(FOLDER, "git/repo.git")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "init.defaultBranch=main"]
    run(program, *author, "init", "-q", source, env=env)
    with open(os.path.join(source, "file"), "w") as f:
        f.write("content\n")
    run(program, *author, "-C", source, "add", "file", env=env)
    run(program, *author, "-C", source, "commit", "-qm", "one", env=env)
    run(program, "clone", "-q", "--bare", source, repo, env=env)
    run(program, "-C", repo, "config", "http.receivepack", "true", env=env)
    process = subprocess.Popen([fcgiwrap, "-s", f"unix:{FOLDER}/fcgi.sock"], stdin=subprocess.DEVNULL, preexec_fn=netns.die_with_parent,
                               env={"PATH": os.environ["PATH"], "HOME": FOLDER})
    cases.eventually(lambda: os.path.exists(f"{FOLDER}/fcgi.sock"), "fcgiwrap", 5)
    return process, backend_path


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    server.stop()
    if git_server:
        git_server.kill()
        git_server.wait()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    git_server, backend_path = start_git()
    try:
        server = Nginx(FOLDER, CA.leaf(WWW, GIT, READ, NPM, PIP, DEB, UNDER, FORGE, netns.ORIGIN, file="origin"), NGINX.replace("@BACKEND@", backend_path))
    except Skip as e:
        print(f"SKIP inspected clients: {e}")
        sys.exit(0)
    behind = Origin("127.0.0.1", 7001, backend)
    server.file("index.html", "a page\n")
    server.file("page.html", PAGE)
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
