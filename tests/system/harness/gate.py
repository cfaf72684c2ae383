"""A real `sallyport serve` with a configuration in a folder of its own."""
import copy
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import cases, netns, tokens

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|runtime error:|LeakSanitizer|assertion|Assertion")
AUDIENCE = "sallyport"


def binary():
    path = os.environ.get("SALLYPORT") or os.path.join(ROOT, "build/address-undefined/sallyport")
    if not os.access(path, os.X_OK):
        raise cases.Failed(f"{path} is not built (make test builds it, SALLYPORT names another)")
    return os.path.abspath(path)


def run(*args, stdin=None, status=0, **options):
    """A sub-command that is expected to end with that status (None: any)."""
    p = subprocess.run([binary(), *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=60, cwd=ROOT, **options)
    if SANITIZER.search(p.stderr):
        raise cases.Failed(f"sallyport {args[0]}: {p.stderr.strip()}")
    if status is not None and p.returncode != status:
        raise cases.Failed(f"sallyport {' '.join(args)[:200]}: exit status {p.returncode}, expected {status}: {p.stderr.strip()}")
    return p


def merged(base, over):
    """base with what over says, objects merged member by member."""
    out = copy.deepcopy(base)
    for k, v in (over or {}).items():
        out[k] = merged(out[k], v) if isinstance(v, dict) and isinstance(out.get(k), dict) else v
    return out


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def limited(*hosts, **more):
    """A policy that allows these hosts."""
    return {"version": 1, "networking": {"type": "limited", "allowed_hosts": list(hosts)}, **more}


class Gate:
    """policies: name -> document; "default" is what a token without a policy gets."""

    def __init__(self, policies, config=None, dns=None, nofile=None, prepare=None, dir=None):
        self.dir = dir or tempfile.mkdtemp(prefix="sallyport-test-")
        os.chmod(self.dir, 0o755)
        self.nofile, self.process, self.exit_status = nofile, None, None
        self.path = lambda *parts: os.path.join(self.dir, *parts)
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        os.makedirs(self.path("policies"), exist_ok=True)
        for name, document in policies.items():
            self.write_policy(name, document)
        if not os.path.exists(self.path("key.pem")):
            run("token", "keygen", "--alg", "ES256", "--kid", "k1", "--private", self.path("key.pem"), "--jwks", self.path("jwks.json"))
        self.signer = tokens.Signer(self.path("key.pem"), "k1")
        self.config = merged(self._defaults(dns), config)
        self.write_config()
        if prepare:
            prepare(self)

    def _defaults(self, dns):
        config = {
            "listen": [{"name": "main", "address": f"127.0.0.1:{self.port}"}],
            "workers": 1,
            "auth": {"keys": self.path("jwks.json"), "audience": AUDIENCE, "revoked": self.path("revoked.json")},
            "policies": self.path("policies"), "default_policy": "default",
            "registries": os.path.join(ROOT, "policies/registries.json"),
            "upstream": {"dns_servers": [dns.server if dns else "127.0.0.1:9"],
                         # The origins' addresses are this host's own here: each needs its exact entry.
                         "allow_addresses": [f"{netns.ORIGIN}/32", f"{netns.OTHER_ORIGIN}/32"]},
            "record": {"path": self.path("decisions.jsonl"), "durability": "written"},
            "admin": {"socket": self.path("admin.sock")},
        }
        if os.getuid() == 0 and not netns.privileged():
            config["user"] = None  # nobody else exists in this user namespace
        return config

    # ---- files

    def write_config(self):
        if not os.path.exists(self.path("revoked.json")):
            self.write("revoked.json", "[]")
        # Lists that a case gives replace the default; the origins stay reachable by name.
        allow = self.config["upstream"]["allow_addresses"]
        for own in (f"{netns.ORIGIN}/32", f"{netns.OTHER_ORIGIN}/32"):
            if own not in allow and not self.config.get("_strict_addresses"):
                allow.append(own)
        self.write("config.json", json.dumps({k: v for k, v in self.config.items() if not k.startswith("_")}, indent=1))

    def write(self, name, text, mode=0o644):
        """Replaces a file as an operator should: a new file, then a rename."""
        with open(self.path(name + ".new"), "w") as f:
            f.write(text)
        os.chmod(self.path(name + ".new"), mode)
        os.rename(self.path(name + ".new"), self.path(name))

    def write_policy(self, name, document):
        self.write(f"policies/{name}.json", document if isinstance(document, str) else json.dumps(document))

    # ---- life

    def spawn(self):
        def child():
            netns.die_with_parent()
            if self.nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))
        self.stderr_file = open(self.path("stderr"), "ab")
        self.process = subprocess.Popen([binary(), "serve", "--config", self.path("config.json")], cwd=ROOT,
                                        stdin=subprocess.DEVNULL, stdout=self.stderr_file, stderr=self.stderr_file, preexec_fn=child)
        return self

    def start(self, seconds=20):
        self.spawn()
        end = time.monotonic() + seconds
        while not self.ready():
            if self.process.poll() is not None:
                raise cases.Failed(f"serve ended with {self.process.returncode} at start: {self.stderr().strip()[-2000:]}")
            if time.monotonic() > end:
                raise cases.Failed(f"serve is not ready after {seconds} s: {self.stderr().strip()[-2000:]}")
            time.sleep(0.02)
        return self

    def refuses_to_start(self, seconds=20):
        """Exit status and standard error of a start that must fail; nothing is left behind."""
        self.spawn()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop(check=False)
            raise cases.Failed("it started")
        finally:
            self.stderr_file.close()
        text = self.stderr()
        self.cleanup()
        if SANITIZER.search(text):
            raise cases.Failed(f"sanitizer: {text.strip()}")
        return status, text

    def ready(self):
        return self.admin("/readyz")[0] == 200

    def admin(self, path):
        """(status, body) of the admin socket; (0, "") while nobody answers."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(self.config["admin"]["socket"])
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
                data = b""
                while more := s.recv(65536):
                    data += more
        except OSError:
            return 0, ""
        head, _, body = data.partition(b"\r\n\r\n")
        m = re.match(rb"HTTP/1\.[01] (\d+)", head)
        return (int(m[1]) if m else 0), body.decode("utf-8", "replace")

    def metric(self, name):
        """The sum of a metric over its labels; None when it is not there."""
        values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.e+-]+)$", self.admin("/metrics")[1], re.M)
        return sum(map(float, values)) if values else None

    def stop(self, seconds=15, check=True):
        """SIGTERM, then judges the whole life: exit status, sanitizers, the record's chain."""
        if self.process is None or self.exit_status is not None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            # A second one ends it at once; then the hard way, by ids that are ours.
            self.process.send_signal(signal.SIGTERM)
            try:
                self.exit_status = self.process.wait(3)
            except subprocess.TimeoutExpired:
                for pid in self.children() + [self.process.pid]:
                    self.kill(pid, signal.SIGKILL)
                self.exit_status = self.process.wait()
                raise cases.Failed(f"serve did not end within {seconds} s of SIGTERM")
        self.stderr_file.close()
        if check:
            self.judge()

    def judge(self):
        text = self.stderr()
        found = SANITIZER.search(text)
        if found:
            raise cases.Failed(f"sanitizer: {text[found.start():found.start() + 3000]}")
        cases.equal(self.exit_status, 0, f"exit status of serve (stderr: {text.strip()[-500:]!r})")
        if self.config["record"].get("path") and os.path.exists(self.config["record"]["path"]):
            run("log", "verify", self.config["record"]["path"])

    def cleanup(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, kind, *rest):
        try:
            self.stop(check=kind is None)
        finally:
            if kind is not None:
                print("  stderr of serve: " + self.stderr().strip()[-3000:].replace("\n", "\n  "))
            self.cleanup()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    # ---- looking at it

    def stderr(self):
        try:
            with open(self.path("stderr"), errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def children(self, role=None):
        """Process ids below the supervisor; of one role by its command line."""
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
                pids = [int(p) for p in f.read().split()]
        except FileNotFoundError:
            return []
        return [p for p in pids if role is None or role in self.command_line(p)]

    @staticmethod
    def command_line(pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                return f.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""

    @staticmethod
    def kill(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def descriptors(self):
        """Open descriptors by worker; empty where we may not look."""
        counts = {}
        for pid in self.children("worker"):
            try:
                counts[pid] = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                return {}
        return counts

    def no_leak_since(self, before, slack=0):
        """The workers' descriptor counts come back to what they were."""
        def back():
            now = self.descriptors()
            return now.keys() != before.keys() or all(now[p] <= before[p] + slack for p in now)
        try:
            cases.eventually(back, "descriptors", 5)
        except cases.Failed:
            raise cases.Failed(f"descriptors leaked in a worker: {before} before, {self.descriptors()} after")

    def why_leaked(self, before, slack=0):
        """no_leak_since() for tables: the text or None."""
        try:
            self.no_leak_since(before, slack)
        except cases.Failed as e:
            return str(e)
        return None

    def record_lines(self):
        try:
            with open(self.config["record"]["path"], "rb") as f:
                return f.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def records(self, event=None, **members):
        """Parsed records; every line must be JSON."""
        out = []
        for line in self.record_lines():
            if event and b'"event":"%s"' % event.encode() not in line:
                continue
            r = json.loads(line)
            if all(r.get(k) == v for k, v in members.items()) and (event is None or r["event"] == event):
                out.append(r)
        return out

    def record(self, event, seconds=5, **members):
        """The first such record; waits for it."""
        return cases.eventually(lambda: self.records(event, **members), f"a {event} record with {members}", seconds)[0]

    # ---- credentials

    def mint(self, *args):
        return run("token", "mint", "--key", self.path("key.pem"), "--kid", "k1", "--aud", AUDIENCE, *args).stdout.strip()

    def token(self, sub="sbx-1", **claims):
        return self.signer.token(sub=sub, **claims)

    def credential(self, sub="sbx-1", **claims):
        return tokens.basic(self.token(sub, **claims))

    def proxy_url(self, sub="sbx-1", scheme="http", port=None):
        return f"{scheme}://sandbox:{self.token(sub)}@127.0.0.1:{port or self.port}"

    # ---- requests that every test makes

    def get(self, url, sub="sbx-1", credential=None, extra="", **options):
        """One GET through the gate on a connection of its own."""
        from . import wire
        host = url.split("/")[2]
        head = (f"GET {url} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {credential or self.credential(sub)}\r\n"
                f"{extra}Connection: close\r\n\r\n")
        return wire.say(self.address, head.encode(), **options)

    def tunnel(self, target, sub="sbx-1", credential=None, **options):
        from . import wire
        return wire.Tunnel(self.address, target, credential or self.credential(sub), **options)
