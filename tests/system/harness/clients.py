"""Clients that no package holds ready: two programs built from the sources beside this file, and what npm fetches. All of it is made
once and kept in build/clients. Who fetches does so before netns.enter(): afterwards there is no network."""
import contextlib
import fcntl
import os
import platform
import shutil
import ssl
import subprocess
import time

from . import gate as gates
from .cases import Failed, Skip

HERE = os.path.dirname(os.path.abspath(__file__))
KEPT = os.path.join(gates.ROOT, "build/clients")
CRATES = "/usr/share/cargo/registry"  # where Debian's librust packages put their sources
PATHS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
FETCH_SECONDS, FETCH_AGAIN_SECONDS, BUILD_SECONDS = 60, 3600, 240


def tool(name):
    """A program's path, or Skip."""
    path = shutil.which(name, path=PATHS)
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def run(home, *argv, env=None, status=0, seconds=60, cwd=None):
    """A client with nothing of the caller's environment but PATH; everything it said. status 1: it must fail; None: any."""
    clean = {"PATH": os.environ["PATH"], "HOME": home, "LANG": "C.UTF-8", **(env or {})}
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean, timeout=seconds, cwd=cwd or home, stdin=subprocess.DEVNULL)
    text = p.stdout.decode("utf-8", "replace")
    if status is not None and (p.returncode == 0) != (status == 0):
        raise Failed(f"{os.path.basename(argv[0])}: exit status {p.returncode}: {text.strip()[-800:]}")
    return text


@contextlib.contextmanager
def alone(name):
    """The folder build/clients/NAME, for one test program at a time."""
    folder = os.path.join(KEPT, name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(KEPT, name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def java(folder, ca, port):
    """argv before the URLs of JavaClient.java by the proxy at that port, the CA in a store that is made in folder; or Skip."""
    program, keytool, _ = tool("java"), tool("keytool"), tool("javac")
    store = os.path.join(folder, "trust.p12")
    if not os.path.exists(store):
        subprocess.run([keytool, "-importcert", "-noprompt", "-alias", "test", "-file", ca, "-keystore", store, "-storetype", "PKCS12", "-storepass", "changeit"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    # Java answers a challenge to CONNECT by Basic only when it is told to.
    options = [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit", "-Djdk.http.auth.tunneling.disabledSchemes="]
    for scheme in ("http", "https"):
        options += [f"-D{scheme}.proxyHost=127.0.0.1", f"-D{scheme}.proxyPort={port}"]
    return [program, *options, os.path.join(HERE, "JavaClient.java")]


def der(ca, folder):
    """The same certificate for who reads no PEM."""
    path = os.path.join(folder, "ca.der")
    with open(ca) as source, open(path, "wb") as f:
        f.write(ssl.PEM_cert_to_DER_cert(source.read()))
    return path


# ---- from npm

NODE_PACKAGE = "node-linux-" + {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def fetch(name, *packages):
    """Into build/clients/NAME/node_modules, when npm is there. What could not be fetched is left alone for an hour."""
    with alone(name) as folder:
        tried, npm = os.path.join(folder, "tried"), shutil.which("npm")
        if not npm or os.path.exists(os.path.join(folder, "complete")):
            return
        if os.path.exists(tried) and time.time() - os.path.getmtime(tried) < FETCH_AGAIN_SECONDS:
            return
        open(tried, "w").close()
        try:
            p = subprocess.run([npm, "install", "--no-package-lock", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", *packages],
                               cwd=folder, timeout=FETCH_SECONDS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            if p.returncode == 0:
                open(os.path.join(folder, "complete"), "w").close()
        except subprocess.TimeoutExpired:
            pass


def modules():
    """The folder of @grpc/grpc-js and undici, or Skip."""
    if not os.path.exists(os.path.join(KEPT, "modules/complete")):
        raise Skip("@grpc/grpc-js and undici could not be fetched")
    return os.path.join(KEPT, "modules/node_modules")


def fetch_modules():
    fetch("modules", "@grpc/grpc-js@1", "undici@6")


def knows_proxy_variables(node):
    """Whether this Node's fetch() heeds NODE_USE_ENV_PROXY, and its version."""
    version = subprocess.run([node, "-p", "process.versions.node"], stdout=subprocess.PIPE, text=True).stdout.strip()
    major, minor = (int(x) for x in version.split(".")[:2])
    return (major, minor) >= (24, 5) or (major == 22 and minor >= 21), version


def fetch_node():
    """A Node whose fetch() heeds the proxy variables, where the installed one does not."""
    node = shutil.which("node")
    if not (node and knows_proxy_variables(node)[0]):
        fetch("node", NODE_PACKAGE + "@24")


def node():
    """The program, or Skip."""
    installed = shutil.which("node")
    heeds, version = knows_proxy_variables(installed) if installed else (False, "none")
    if heeds:
        return installed
    fetched = os.path.join(KEPT, "node/node_modules", NODE_PACKAGE, "bin/node")
    if not os.access(fetched, os.X_OK):
        raise Skip(f"Node {version} does not know NODE_USE_ENV_PROXY, and a newer one could not be fetched")
    return fetched


# ---- built here

def build(argv, folder, env):
    """The compiler gets nothing of the caller's settings: they could name a network."""
    clean = {"PATH": os.environ["PATH"], "HOME": folder, **env}
    if "RUSTUP_HOME" in os.environ or os.path.isdir(os.path.expanduser("~/.rustup")):
        clean["RUSTUP_HOME"] = os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup"))
    p = subprocess.run(argv, cwd=folder, env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS)
    if p.returncode:
        raise Failed(f"{os.path.basename(argv[0])}: {p.stdout.strip()[-1500:]}")


def go():
    """goclient.go, built: the program's path, or Skip."""
    compiler = tool("go")
    with alone("go") as folder:
        program = os.path.join(folder, "goclient")
        build([compiler, "build", "-o", program, os.path.join(HERE, "goclient.go")], folder,
              {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOCACHE": os.path.join(folder, "cache"), "GOPATH": os.path.join(folder, "path"),
               "CGO_ENABLED": "0"})
        return program


MANIFEST = """[package]
name = "rustlsclient"
version = "0.0.0"
edition = "2021"
[dependencies]
rustls = "0.20"
[profile.dev]
debug = false
"""
SOURCE = f"""[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "{CRATES}"
"""


def rustls():
    """rustlsclient.rs, built with Debian's crates: the program's path, or Skip."""
    cargo = tool("cargo")
    if not os.path.isdir(CRATES) or not any(name.startswith("rustls-0.20.") for name in os.listdir(CRATES)):
        raise Skip("librust-rustls-dev is not installed")
    with alone("rustls") as folder:
        for name, text in (("Cargo.toml", MANIFEST), (".cargo/config.toml", SOURCE), ("src/main.rs", open(os.path.join(HERE, "rustlsclient.rs")).read())):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not os.path.exists(path) or open(path).read() != text:  # cargo builds what is newer
                with open(path, "w") as f:
                    f.write(text)
        build([cargo, "build", "--offline", "--quiet"], folder, {"CARGO_HOME": os.path.join(folder, "home")})
        return os.path.join(folder, "target/debug/rustlsclient")
