#!/usr/bin/env python3
"""Real clients inside `sallyport run` against a real server: by the proxy variables that the sandbox sets, and without any by
--transparent; in sandboxes made with and without privileges. A client that is not installed is skipped by name."""
import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from harness import clients, netns
clients.fetch_node()
netns.enter()
from harness import cases, sandbox
from harness import gate as gates
from harness.cases import Skip, case, equal, expect
from harness.dns import DnsStub
from harness.nginx import Nginx
from harness.pki import Authority
from harness.sandbox import PYTHON, Run

FOLDER = tempfile.mkdtemp(prefix="sallyport-run-clients-")
os.chmod(FOLDER, 0o755)
SHOWN = os.path.join(FOLDER, "shown")  # what every sandbox may read: the CA, programs of the test
os.mkdir(SHOWN)
CA = Authority(SHOWN)
ALLOWED = ["www.shop.example", "git.shop.example", "pip.shop.example", "npm.shop.example"]
DENIED = "www.denied.example"
PATHS = "/usr/local/bin:/usr/bin:/bin"
MODES = {"variables": [], "transparent": ["--transparent", "--no-proxy-env"]}
TRUST = ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]


def tool(name):
    """A program that the sandbox has as well."""
    path = shutil.which(name, path=PATHS)
    if not path:
        raise Skip(f"{name} is not installed")
    if not os.path.realpath(path).startswith("/usr/"):
        raise Skip(f"{name} is not below /usr")
    return path


def shown(name, program):
    """A program of the tests' own, where every sandbox may read it."""
    path = os.path.join(SHOWN, name)
    if not os.path.exists(path):
        shutil.copy(program, path)
    return path


def in_each_mode(function):
    for mode in MODES:
        for way, why in sandbox.ways():
            def one(mode=mode, way=way, why=why):
                if why:
                    raise Skip(why)
                function(mode, Caller(mode, way))
            one.__name__ = f"{function.__name__} [{mode}, {way}]"
            case(one)
    return function


class Caller:
    """Somebody who runs clients in sandboxes with one policy."""

    def __init__(self, mode, way):
        self.mode, self.way = mode, way
        self.work = sandbox.give(tempfile.mkdtemp(prefix="work-", dir=FOLDER), way)
        self.kept = []

    def run(self, *argv, status=0, env=(), seconds=60):
        config = {"upstream": {"hosts": {h: [netns.ORIGIN] for h in ALLOWED + [DENIED]}, "allow_addresses": [f"{netns.ORIGIN}/32"], "dns_servers": [stub.server]}}
        options = [*MODES[self.mode], "--bind-ro", SHOWN, "--workdir", self.work]
        for name in TRUST:
            options += ["--env", f"{name}={CA.path}"]
        for pair in env:
            options += ["--env", pair]
        with Run(argv, *options, way=self.way, policy=gates.limited(*ALLOWED), config=config, env={"PATH": PATHS}) as r:
            r.wait(seconds)
            self.kept, self.account = r.records(), r.account()
        text = r.out + r.err
        if (r.status == 0) != (status == 0):
            raise cases.Failed(f"{os.path.basename(argv[0])}: exit status {r.status}: {text.strip()[-900:]}")
        return r.out if status == 0 else text

    def allowed(self, host, scheme="https"):
        entry = "transparent" if self.mode == "transparent" else {"https": "connect", "http": "forward"}[scheme]
        rows = [x for x in self.kept if x["event"] == "decision" and x["decision"] == "allow" and x["host"] == host]
        expect(rows, f"no decision record that allows {host}")
        expect({x["entry"] for x in rows} <= {entry, "connect"}, f"entries {[x['entry'] for x in rows]}, expected {entry}")

    def denied(self):
        """The refusal is on record: by the name alone where names are asked of the responder."""
        expect([x for x in self.kept if x["event"] == "decision" and x["decision"] == "deny" and x["host"] == DENIED], "no decision record that denies")
        expect(self.account["would_allow"]["allowed_hosts"] == [DENIED], f"the account proposes {self.account['would_allow']}")

    def nothing_went_around(self):
        equal(self.account["bypass_attempts"], 0, f"bypass attempts {self.account['bypass']}")


@in_each_mode
def curl(mode, caller):
    program = tool("curl")
    for scheme in ("http", "https"):
        equal(caller.run(program, "-sS", f"{scheme}://www.shop.example/index.html"), "hello from the origin\n", scheme)
        caller.allowed("www.shop.example", scheme)
        caller.nothing_went_around()
        text = caller.run(program, "-sSv", "-f", f"{scheme}://{DENIED}/", status=1)
        expect("Could not resolve host" in text if mode == "transparent" else "403" in text, text[-600:])
        caller.denied()


@in_each_mode
def wget(mode, caller):
    program = tool("wget")
    equal(caller.run(program, "-q", "-O", "-", f"--ca-certificate={CA.path}", "https://www.shop.example/index.html"), "hello from the origin\n", "the page")
    caller.run(program, "-q", "-t", "1", "-O", "-", f"--ca-certificate={CA.path}", f"https://{DENIED}/", status=1)
    caller.denied()


@in_each_mode
def git_clone(mode, caller):
    program = tool("git")
    out = caller.run(program, "clone", "-q", "https://git.shop.example/repo.git", os.path.join(caller.work, "clone"), env=["GIT_TERMINAL_PROMPT=0"])
    with open(os.path.join(caller.work, "clone/file")) as f:
        equal(f.read(), "content\n", f"the cloned file ({out})")
    caller.allowed("git.shop.example")
    caller.nothing_went_around()
    caller.run(program, "clone", "-q", f"https://{DENIED}/repo.git", os.path.join(caller.work, "no"), env=["GIT_TERMINAL_PROMPT=0"], status=1)
    caller.denied()


@in_each_mode
def pip_download(mode, caller):
    if subprocess.run([PYTHON, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise Skip("pip is not installed")
    common = [PYTHON, "-m", "pip", "--disable-pip-version-check", "download", "--no-cache-dir", "--no-deps", "--retries", "0", "-d", caller.work]
    caller.run(*common, "--index-url", "https://pip.shop.example/simple", "demopkg")
    expect(os.path.exists(os.path.join(caller.work, WHEEL)), "the wheel is there")
    caller.allowed("pip.shop.example")
    caller.nothing_went_around()
    caller.run(*common, "--index-url", f"https://{DENIED}/simple", "demopkg", status=1)
    caller.denied()


@in_each_mode
def npm_install(mode, caller):
    program = tool("npm")
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0", f"--cafile={CA.path}"]
    caller.run(program, "install", *options, "--registry=https://npm.shop.example/", "tinypkg")
    expect(os.path.exists(os.path.join(caller.work, "node_modules/tinypkg/index.js")), "the package is there")
    caller.allowed("npm.shop.example")
    caller.nothing_went_around()
    caller.run(program, "install", *options, f"--registry=https://{DENIED}/", "otherpkg", status=1)
    caller.denied()


FETCH = "fetch(process.argv[1]).then(async r => { console.log(r.status, await r.text()); process.exit(r.ok ? 0 : 1) }, e => { console.log(e, e.cause); process.exit(1) })"


@in_each_mode
def node_fetch(mode, caller):
    program = tool("node") if mode == "transparent" else shown("node", clients.node())
    for scheme in ("http", "https"):
        equal(caller.run(program, "-e", FETCH, f"{scheme}://www.shop.example/index.html").strip(), "200 hello from the origin", scheme)
        caller.nothing_went_around()
        caller.run(program, "-e", FETCH, f"{scheme}://{DENIED}/", status=1)
        caller.denied()


@in_each_mode
def go_net_http(mode, caller):
    program = shown("goclient", clients.go())
    for options in ([], ["-h2"]):
        for scheme in ("http", "https"):
            equal(json.loads(caller.run(program, "get", *options, f"{scheme}://www.shop.example/index.html"))["body"], "hello from the origin\n", scheme)
            caller.allowed("www.shop.example", scheme)
            caller.nothing_went_around()
        error = json.loads(caller.run(program, "get", *options, f"https://{DENIED}/"))["error"]
        expect("no such host" in error if mode == "transparent" else error.endswith(": Egress denied: host_not_allowed"), error)
        caller.denied()


@in_each_mode
def python_urllib(mode, caller):
    code = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode(), end='')"
    for scheme in ("http", "https"):
        equal(caller.run(PYTHON, "-c", code, f"{scheme}://www.shop.example/index.html"), "hello from the origin\n", scheme)
        caller.nothing_went_around()
        caller.run(PYTHON, "-c", code, f"{scheme}://{DENIED}/", status=1)
        caller.denied()


JAVA = """
import java.net.URI;
import java.net.http.*;
public class Get {
    public static void main(String[] args) throws Exception {
        HttpResponse<String> r = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(args[0])).build(), HttpResponse.BodyHandlers.ofString());
        System.out.print(r.statusCode() + " " + r.body());
        System.exit(r.statusCode() == 200 ? 0 : 1);
    }
}
"""


def java_class():
    """Compiled once; the CA in a store that Java reads."""
    java, javac, keytool = tool("java"), tool("javac"), tool("keytool")
    if not os.path.exists(os.path.join(SHOWN, "Get.class")):
        with open(os.path.join(SHOWN, "Get.java"), "w") as f:
            f.write(JAVA)
        subprocess.run([javac, "-d", SHOWN, os.path.join(SHOWN, "Get.java")], check=True, stderr=subprocess.PIPE)
        subprocess.run([keytool, "-importcert", "-noprompt", "-alias", "test", "-file", CA.path, "-keystore", os.path.join(SHOWN, "trust.p12"), "-storetype", "PKCS12",
                        "-storepass", "changeit"], check=True, stderr=subprocess.PIPE)
    return java


@in_each_mode
def java_http_client(mode, caller):
    java = java_class()
    trust = f"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore={SHOWN}/trust.p12 -Djavax.net.ssl.trustStorePassword=changeit"
    for scheme in ("http", "https"):
        equal(caller.run(java, "-cp", SHOWN, "Get", f"{scheme}://www.shop.example/index.html", env=[trust]), "200 hello from the origin\n", scheme)
        caller.allowed("www.shop.example", scheme)
        caller.nothing_went_around()
    caller.run(java, "-cp", SHOWN, "Get", f"https://{DENIED}/", env=[trust], status=1)
    caller.denied()


# ---- the server

WHEEL = "demopkg-1.0-py3-none-any.whl"


def wheel():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("demopkg/__init__.py", "value = 1\n")
        z.writestr("demopkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demopkg\nVersion: 1.0\n")
        z.writestr("demopkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("demopkg-1.0.dist-info/RECORD", "")
    return data.getvalue()


def npm_package():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as t:
        for name, text in (("package.json", '{"name":"tinypkg","version":"1.0.0","main":"index.js"}'), ("index.js", "module.exports = 1\n")):
            info = tarfile.TarInfo("package/" + name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def git_repository():
    git = shutil.which("git", path=PATHS)
    if not git:
        return
    env = {"PATH": PATHS, "HOME": FOLDER, "GIT_CONFIG_NOSYSTEM": "1"}
    source, bare = os.path.join(FOLDER, "source"), os.path.join(FOLDER, "www/repo.git")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "init.defaultBranch=main"]
    subprocess.run([git, *author, "init", "-q", source], check=True, env=env)
    with open(os.path.join(source, "file"), "w") as f:
        f.write("content\n")
    for argv in (["-C", source, "add", "file"], [*author, "-C", source, "commit", "-qm", "one"], ["clone", "-q", "--bare", source, bare], ["-C", bare, "update-server-info"]):
        subprocess.run([git, *argv], check=True, env=env)


def start_server():
    server = Nginx(FOLDER, CA.leaf(*ALLOWED, DENIED, file="../origin"))
    server.file("index.html", "hello from the origin\n")
    data = wheel()
    server.file(f"files/{WHEEL}", data)
    server.file("simple/demopkg/index.html", f'<a href="/files/{WHEEL}#sha256={hashlib.sha256(data).hexdigest()}">{WHEEL}</a>')
    data = npm_package()
    server.file("tinypkg-1.0.0.tgz", data)
    dist = {"tarball": "https://npm.shop.example/tinypkg-1.0.0.tgz", "shasum": hashlib.sha1(data).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()}
    server.file("tinypkg", json.dumps({"name": "tinypkg", "dist-tags": {"latest": "1.0.0"},
                                       "versions": {"1.0.0": {"name": "tinypkg", "version": "1.0.0", "dist": dist}}}))
    git_repository()
    return server


def clean_up():
    server.stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    try:
        server = start_server()
    except Skip as e:
        print(f"SKIP clients in sandboxes: {e}")
        sys.exit(0)
    stub = DnsStub()
    cases.at_end(clean_up)
    cases.main()
