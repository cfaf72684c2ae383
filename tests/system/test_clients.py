#!/usr/bin/env python3
"""Real clients through a real gate to a real server: what is allowed works, what is denied shows as a denial. A client that is
not installed is skipped by name."""
import base64
import datetime
import email.utils
import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from harness import clients, netns
clients.fetch_node()
netns.enter()
from harness import cases
from harness import gate as gates
from harness.cases import Skip, case, equal, expect
from harness.clients import tool
from harness.nginx import Nginx
from harness.origin import Origin
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-clients-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
ALLOWED = ["www.shop.example", "git.shop.example", "pip.shop.example", "npm.shop.example", "deb.shop.example", "ws.shop.example"]
DENIED = "www.denied.example"
BIG = os.urandom(3_000_000)
TLS_PORT = gates.free_port()


def start_gate():
    cert = CA.leaf("gate.example", "127.0.0.1", file="gate")
    hosts = {name: [netns.ORIGIN] for name in ALLOWED + [DENIED]}
    hosts["ws.shop.example"] = [netns.OTHER_ORIGIN]
    config = {"upstream": {"hosts": hosts}, "listen": [
        {"name": "main", "address": "set below"},
        {"name": "tls", "address": f"127.0.0.1:{TLS_PORT}", "tls": {"cert": cert[0], "key": cert[1], "client_ca": None}}]}

    def address(gate):
        gate.config["listen"][0]["address"] = f"127.0.0.1:{gate.port}"
        gate.write_config()
    return gates.Gate({"default": gates.limited(*ALLOWED)}, config, prepare=address).start()


def start_server():
    server = Nginx(os.path.join(FOLDER), CA.leaf(*ALLOWED, DENIED, file="origin"))
    server.file("index.html", "hello from the origin\n")
    server.file("big", BIG)
    return server


run = functools.partial(clients.run, FOLDER, seconds=90)


def denied(text, *signs):
    """A denial shows: the status, or what the gate says in it."""
    expect(any(s in text for s in signs or ("403", "host_not_allowed")), f"no denial in {text.strip()[-400:]!r}")


def proxies(sub, upper=True):
    url = gate.proxy_url(sub)
    env = {"http_proxy": url, "https_proxy": url}
    return {**env, "HTTP_PROXY": url, "HTTPS_PROXY": url} if upper else env


def recorded(sub, decision, host, entry):
    gate.record("decision", sandbox=sub, decision=decision, host=host, entry=entry)


# ---- curl

@case
def curl_http():
    curl = tool("curl")
    equal(run(curl, "-sS", "-x", gate.proxy_url("curl"), "http://www.shop.example/index.html"), "hello from the origin\n", "the page")
    equal(run(curl, "-sS", "-0", "-x", gate.proxy_url("curl"), "http://www.shop.example/index.html"), "hello from the origin\n", "by HTTP/1.0")
    recorded("curl", "allow", "www.shop.example", "forward")
    text = run(curl, "-sSi", "-x", gate.proxy_url("curl"), f"http://{DENIED}/")
    denied(text, "403 Egress denied: host_not_allowed")
    expect("x-deny-reason: host_not_allowed" in text.lower(), text)


@case
def curl_https():
    curl = tool("curl")
    out = run(curl, "-sS", "--cacert", CA.path, "-x", gate.proxy_url("curls"), "https://www.shop.example/index.html")
    equal(out, "hello from the origin\n", "the page")
    recorded("curls", "allow", "www.shop.example", "connect")
    denied(run(curl, "-sSv", "--cacert", CA.path, "-x", gate.proxy_url("curls"), f"https://{DENIED}/", status=1), "403")


@case
def curl_downloads_every_byte_both_ways():
    curl = tool("curl")
    for scheme in ("http", "https"):
        path = os.path.join(FOLDER, "got")
        run(curl, "-sS", "--cacert", CA.path, "-x", gate.proxy_url("curlb"), "-o", path, f"{scheme}://www.shop.example/big")
        with open(path, "rb") as f:
            expect(f.read() == BIG, f"the file over {scheme} differs")


@case
def curl_keeps_a_connection():
    out = run(tool("curl"), "-sSv", "-x", gate.proxy_url("curlk"), *["http://www.shop.example/index.html"] * 3)
    equal(out.count("hello from the origin"), 3, "pages")
    expect("Re-using existing connection" in out, "curl opened new connections: " + out[-300:])


@case
def curl_through_a_tls_proxy():
    curl = tool("curl")
    if "HTTPS-proxy" not in run(curl, "--version"):
        raise Skip("this curl has no https:// proxies")
    url = gate.proxy_url("curlt", "https", TLS_PORT)
    for target in ("http://www.shop.example/index.html", "https://www.shop.example/index.html"):
        out = run(curl, "-sS", "--cacert", CA.path, "--proxy-cacert", CA.path, "-x", url, target)
        equal(out, "hello from the origin\n", target)
    denied(run(curl, "-sSv", "--cacert", CA.path, "--proxy-cacert", CA.path, "-x", url, f"https://{DENIED}/", status=1), "403")


@case
def curl_by_http2_alpn_in_a_tunnel_is_nobodys_business():
    out = run(tool("curl"), "-sS", "--http2", "--cacert", CA.path, "-x", gate.proxy_url("curl2"), "https://www.shop.example/index.html")
    equal(out, "hello from the origin\n", "the page")


@case
def curl_without_a_token_is_challenged():
    text = run(tool("curl"), "-sSi", "-x", f"http://127.0.0.1:{gate.port}", "http://www.shop.example/")
    expect("407 Egress denied: token_missing" in text, text)
    challenges = [l for l in text.lower().splitlines() if l.startswith("proxy-authenticate:")]
    equal(len(challenges), 2, "challenges (Basic and Bearer)")


@case
def curl_with_a_percent_encoded_user():
    url = f"http://us%40er:{gate.token('curlp')}@127.0.0.1:{gate.port}"
    equal(run(tool("curl"), "-sS", "-x", url, "http://www.shop.example/index.html"), "hello from the origin\n", "the page")


# ---- others

@case
def wget():
    program = tool("wget")
    for scheme in ("http", "https"):
        out = run(program, "-q", "-O", "-", f"--ca-certificate={CA.path}", f"{scheme}://www.shop.example/index.html", env=proxies("wget", False))
        equal(out, "hello from the origin\n", scheme)
        denied(run(program, "--tries=1", "-O", "-", f"--ca-certificate={CA.path}", f"{scheme}://{DENIED}/", env=proxies("wget", False), status=1), "Egress denied: host_not_allowed")


@case
def git_clone():
    git = tool("git")
    source = os.path.join(FOLDER, "source")
    env = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_SSL_CAINFO": CA.path}
    author = ["-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "init.defaultBranch=main"]
    run(git, *author, "init", "-q", source, env=env)
    with open(os.path.join(source, "file"), "w") as f:
        f.write("content\n")
    run(git, *author, "-C", source, "add", "file", env=env)
    run(git, *author, "-C", source, "commit", "-qm", "one", env=env)
    run(git, "clone", "-q", "--bare", source, os.path.join(FOLDER, "www/repo.git"), env=env)
    run(git, "-C", os.path.join(FOLDER, "www/repo.git"), "update-server-info", env=env)
    for scheme in ("https", "http"):
        run(git, "clone", "-q", f"{scheme}://git.shop.example/repo.git", os.path.join(FOLDER, "clone-" + scheme), env={**env, **proxies("git")})
        with open(os.path.join(FOLDER, f"clone-{scheme}", "file")) as f:
            equal(f.read(), "content\n", f"the cloned file over {scheme}")
    recorded("git", "allow", "git.shop.example", "connect")
    # It comes without a credential first, gets the challenge, and comes back on a new connection.
    expect(gate.records("challenge", host="git.shop.example"), "git's first CONNECT is recorded as a challenge")
    denied(run(git, "clone", "-q", f"https://{DENIED}/repo.git", os.path.join(FOLDER, "no"), env={**env, **proxies("git")}, status=1), "403")


@case
def python_urllib():
    code = ("import sys, urllib.request, ssl\n"
            "print(urllib.request.urlopen(sys.argv[1], context=ssl.create_default_context(cafile=sys.argv[2]), timeout=20).read().decode(), end='')")
    for scheme in ("http", "https"):
        out = run(sys.executable, "-c", code, f"{scheme}://www.shop.example/index.html", CA.path, env=proxies("urllib"))
        equal(out, "hello from the origin\n", scheme)
        denied(run(sys.executable, "-c", code, f"{scheme}://{DENIED}/", CA.path, env=proxies("urllib"), status=1), "403 Egress denied: host_not_allowed",
               "Error 403: Egress denied: host_not_allowed")


def wheel():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("demopkg/__init__.py", "value = 1\n")
        z.writestr("demopkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demopkg\nVersion: 1.0\n")
        z.writestr("demopkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("demopkg-1.0.dist-info/RECORD", "")
    return data.getvalue()


@case
def pip_download():
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise Skip("pip is not installed")
    name, data = "demopkg-1.0-py3-none-any.whl", wheel()
    server.file(f"files/{name}", data)
    server.file("simple/demopkg/index.html", f'<a href="/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>')
    common = [*pip, "--isolated", "--disable-pip-version-check", "download", "--no-cache-dir", "--no-deps", "--retries", "1", "--cert", CA.path]
    for proxy in (["--proxy", gate.proxy_url("pip")], []):
        out = os.path.join(FOLDER, "pip" + str(len(proxy)))
        run(*common, *proxy, "-d", out, "--index-url", "https://pip.shop.example/simple", "demopkg", env=None if proxy else proxies("pip"))
        expect(os.path.exists(os.path.join(out, name)), "the wheel is there")
    recorded("pip", "allow", "pip.shop.example", "connect")
    denied(run(*common, "--proxy", gate.proxy_url("pip"), "-d", FOLDER, "--index-url", f"https://{DENIED}/simple", "demopkg", status=1), "403 Egress denied: host_not_allowed")


@case
def node_fetch():
    code = "fetch(process.argv[1]).then(async r => console.log(r.status, await r.text()), e => { console.log(e, e.cause); process.exit(1) })"
    env = {**proxies("node"), "NODE_USE_ENV_PROXY": "1", "NODE_EXTRA_CA_CERTS": CA.path}
    for scheme in ("http", "https"):
        equal(run(clients.node(), "-e", code, f"{scheme}://www.shop.example/index.html", env=env).strip(), "200 hello from the origin", scheme)
        denied(run(clients.node(), "-e", code, f"{scheme}://{DENIED}/", env=env, status=1), "Proxy response (403)")
    recorded("node", "deny", DENIED, "connect")


@case
def node_https_get():
    code = ("require('https').get(process.argv[1], r => { console.log(r.statusCode); r.pipe(process.stdout) })"
            ".on('error', e => { console.log(e.code, e.message); process.exit(1) })")
    env = {**proxies("nodehttps"), "NODE_USE_ENV_PROXY": "1", "NODE_EXTRA_CA_CERTS": CA.path}
    equal(run(clients.node(), "-e", code, "https://www.shop.example/index.html", env=env), "200\nhello from the origin\n", "the page")
    denied(run(clients.node(), "-e", code, f"https://{DENIED}/", env=env, status=1), "403 Egress denied: host_not_allowed")


@case
def go_net_http():
    env = {**proxies("go"), "SSL_CERT_FILE": CA.path}
    named = ["http://www.shop.example/index.html", "https://www.shop.example/index.html"]
    refused = [f"https://{host}/" for host in (DENIED, "under_score.denied.example", "198.51.100.7", "[2001:db8::7]")]
    for options in ([], ["-h2"]):
        said = [json.loads(line) for line in run(clients.go(), "get", *options, *named, f"http://{DENIED}/", *refused, env=env).splitlines()]
        equal([(a["status"], a["proto"], a["body"]) for a in said[:2]], [(200, "HTTP/1.1", "hello from the origin\n")] * 2, "the pages")
        equal((said[2]["status"], said[2]["reason"]), (403, "host_not_allowed"), "a refused request")
        equal([a["error"] for a in said[3:]], [f'Get "{url}": Egress denied: host_not_allowed' for url in refused], "refused tunnels: Go shows the reason phrase")
    recorded("go", "deny", "under_score.denied.example", "connect")
    recorded("go", "deny", "[2001:db8::7]", "connect")


@case
def rustls():
    said = run(clients.rustls(), "%s:%d" % gate.address, gate.credential("rustls"), clients.der(CA.path, FOLDER), "www.shop.example/index.html", f"{DENIED}/").splitlines()
    expect(said[0].startswith("HTTP/1.1 200 OK") and said[0].endswith("hello from the origin"), f"the page: {said}")
    equal(said[1], "refused: HTTP/1.1 403 Egress denied: host_not_allowed", "a refused tunnel")


@case
def java_with_an_authenticator():
    argv = clients.java(FOLDER, CA.path, gate.port)
    out = run(*argv, *[f"{scheme}://{host}/index.html" for scheme in ("http", "https") for host in ("www.shop.example", DENIED)], env={"TOKEN": gate.token("java")})
    fetched = ["200 OK", "200 HTTP_1_1 hello from the origin"]
    equal(out.splitlines(), [*fetched, "403 Egress denied: host_not_allowed", "403 HTTP_1_1 host_not_allowed",
                             *fetched, 'Unable to tunnel through proxy. Proxy returns "HTTP/1.1 403 Egress denied: host_not_allowed"', "Tunnel failed, got: 403"], "answers")


@case
def aria2():
    program = tool("aria2c")
    for scheme in ("http", "https"):
        common = [program, "--no-conf", "--max-tries=1", "--allow-overwrite", f"--ca-certificate={CA.path}", "-d", FOLDER, "-o", "aria"]
        run(*common, f"{scheme}://www.shop.example/index.html", env=proxies("aria"))
        with open(os.path.join(FOLDER, "aria")) as f:
            equal(f.read(), "hello from the origin\n", scheme)
        denied(run(*common, f"{scheme}://{DENIED}/", env=proxies("aria"), status=1), "status=403", "Proxy connection failed")
    recorded("aria", "deny", DENIED, "connect")


@case
def lynx():
    url = f"http://127.0.0.1:{gate.port}"
    common = [tool("lynx"), "-dump", f"-pauth=sandbox:{gate.token('lynx')}"]
    env = {"http_proxy": url, "https_proxy": url, "SSL_CERT_FILE": CA.path}
    for scheme in ("http", "https"):
        equal(run(*common, f"{scheme}://www.shop.example/index.html", env=env).strip(), "hello from the origin", scheme)
        denied(run(*common, f"{scheme}://{DENIED}/", env=env, status=None), "the policy does not open this host")
    recorded("lynx", "deny", DENIED, "connect")


def npm_package():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as t:
        for name, text in (("package.json", '{"name":"tinypkg","version":"1.0.0","main":"index.js"}'), ("index.js", "module.exports = 1\n")):
            info = tarfile.TarInfo("package/" + name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


@case
def npm_install():
    npm = tool("npm")
    data = npm_package()
    server.file("tinypkg-1.0.0.tgz", data)
    dist = {"tarball": "https://npm.shop.example/tinypkg-1.0.0.tgz", "shasum": hashlib.sha1(data).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()}
    server.file("tinypkg", json.dumps({"name": "tinypkg", "dist-tags": {"latest": "1.0.0"},
                                       "versions": {"1.0.0": {"name": "tinypkg", "version": "1.0.0", "dist": dist}}}))
    folder = os.path.join(FOLDER, "npm")
    os.makedirs(folder)
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0", f"--cafile={CA.path}", f"--cache={FOLDER}/npm-cache"]
    run(npm, "install", *options, "--registry=https://npm.shop.example/", "tinypkg", env=proxies("npm"), cwd=folder)
    expect(os.path.exists(os.path.join(folder, "node_modules/tinypkg/index.js")), "the package is there")
    recorded("npm", "allow", "npm.shop.example", "connect")
    denied(run(npm, "install", *options, f"--registry=https://{DENIED}/", "otherpkg", env=proxies("npm"), cwd=folder, status=1), "403 Egress denied: host_not_allowed")


def release(packages):
    lines = [f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in packages.items()]
    date = email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc)).replace("+0000", "UTC")
    return f"Origin: test\nSuite: stable\nCodename: stable\nDate: {date}\nArchitectures: all amd64 arm64\nSHA256:\n" + "\n".join(lines) + "\n"


@case
def apt_update():
    apt = tool("apt-get")
    text = b"Package: demopkg\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.test>\nFilename: ./demopkg.deb\nSize: 1\nSHA256: " + \
           b"0" * 64 + b"\nDescription: nothing\n"
    files = {"Packages": text, "Packages.gz": gzip.compress(text)}
    for name, data in {**files, "Release": release(files).encode()}.items():
        server.file("deb/" + name, data)

    def update(host, sub, scheme):
        root = os.path.join(FOLDER, f"apt-{sub}-{scheme}")
        for d in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d"):
            os.makedirs(os.path.join(root, d), exist_ok=True)
        with open(os.path.join(root, "sources.list"), "w") as f:
            f.write(f"deb [trusted=yes] {scheme}://{host}/deb ./\n")
        open(os.path.join(root, "status"), "w").close()
        options = {"Dir::State": f"{root}/state", "Dir::State::status": f"{root}/status", "Dir::Cache": f"{root}/cache", "Dir::Etc": f"{root}/etc",
                   "Dir::Etc::sourcelist": f"{root}/sources.list", "Dir::Etc::sourceparts": "-", "APT::Sandbox::User": "root",
                   "Acquire::Languages": "none", "Acquire::Retries": "0", "Acquire::https::CaInfo": CA.path,
                   "Acquire::http::Proxy": gate.proxy_url(sub), "Acquire::https::Proxy": gate.proxy_url(sub)}
        out = run(apt, *[f"-o{k}={v}" for k, v in options.items()], "update", env=None, status=None)
        lists = os.listdir(os.path.join(root, "state/lists"))
        return out, [l for l in lists if "Packages" in l]
    for scheme in ("http", "https"):
        out, lists = update("deb.shop.example", "apt", scheme)
        expect(lists, f"{scheme}: no package list came: {out[-500:]}")
        out, lists = update(DENIED, "aptd", scheme)
        expect(not lists, "a denied host gave a list")
        denied(out, "Egress denied: host_not_allowed")


@case
def websocket_upgrade():
    accept = base64.b64encode(hashlib.sha1(b"dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()

    async def upgrade(connection, request):
        if (request.field("upgrade") or "").lower() != "websocket":
            connection.writer.write(b"HTTP/1.1 400 no upgrade\r\nContent-Length: 0\r\n\r\n")
            return True
        connection.writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        while data := await connection.read():
            connection.writer.write(data)
            await connection.writer.drain()
        return True
    origin = Origin(netns.OTHER_ORIGIN, 80, upgrade)
    with socket.create_connection(gate.address, 10) as s:
        s.sendall((f"GET http://ws.shop.example/chat HTTP/1.1\r\nHost: ws.shop.example\r\nProxy-Authorization: {gate.credential('ws')}\r\n"
                   "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = s.recv(4096)
            expect(more, f"ended before the answer: {data!r}")
            data += more
        expect(data.startswith(b"HTTP/1.1 101 "), f"the answer: {data[:200]!r}")
        head, _, rest = data.partition(b"\r\n\r\n")
        expect(accept.encode() in head, "Sec-WebSocket-Accept is passed on")
        for message in (b"\x81\x05hello", b"\x82\x7e\x10\x00" + bytes(range(256)) * 16):
            s.sendall(message)
            while len(rest) < len(message):
                more = s.recv(65536)
                expect(more, "ended inside an echo")
                rest += more
            equal(rest, message, "the frame that came back")
            rest = b""
    gate.record("close", sandbox="ws")
    origin.close()


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
        server = start_server()
    except Skip as e:
        print(f"SKIP real clients: {e}")
        sys.exit(0)
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
