#!/usr/bin/env python3
"""`sallyport run` from outside: what CMD gets and what it does not, its end, its account, and that nothing is left. Each case
runs as root (when the tests do) and as a user without privileges (in a user namespace)."""
import array
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from harness import netns
ROOT_CALLER = os.getuid() == 0
netns.enter()
from harness import cases
from harness import gate as gates
from harness.cases import Skip, equal, eventually, expect
from harness.origin import Origin

USER = 54321  # nobody's uid
SALLYPORT = gates.binary()
FOLDER = tempfile.mkdtemp(prefix="sallyport-run-test-")
os.chmod(FOLDER, 0o755)
WEB = Origin(netns.ORIGIN, 80)
LOCAL = Origin("127.0.0.1", 8090)
CONFIG = {"upstream": {"hosts": {"allowed.example": [netns.ORIGIN], "private.example": ["127.0.0.1"]},
                       "allow_addresses": [f"{netns.ORIGIN}/32"], "dns_servers": ["127.0.0.1:9"]}, "user": None}


class Caller:
    """Root, or a user without privileges: the processes that call `sallyport run`."""

    def __init__(self, name):
        self.name = name
        self.uid = USER if name == "user" and netns.privileged() else os.getuid()
        self.dir = os.path.join(FOLDER, name)
        os.makedirs(self.dir, exist_ok=True)
        os.chown(self.dir, self.uid, self.uid) if self.uid != os.getuid() else None
        os.chmod(self.dir, 0o755)
        self.policy = self.write("policy.json", json.dumps(gates.limited("allowed.example", "private.example")))
        self.config = self.write("config.json", json.dumps(CONFIG))

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text, mode=0o644):
        with open(self.path(name), "w") as f:
            f.write(text)
        os.chmod(self.path(name), mode)
        if self.uid != os.getuid():
            os.chown(self.path(name), self.uid, self.uid)
        return self.path(name)

    def folder(self, name, owner=None):
        os.makedirs(self.path(name), exist_ok=True)
        if netns.privileged():
            os.chown(self.path(name), self.uid if owner is None else owner, self.uid if owner is None else owner)
        return self.path(name)

    def start(self, *args, env=None, **options):
        def become():
            if self.uid != os.getuid():
                os.setgroups([])
                os.setresgid(self.uid, self.uid, self.uid)
                os.setresuid(self.uid, self.uid, self.uid)
        clean = {k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"}
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([SALLYPORT, "run", *args], cwd="/", env={**clean, **(env or {})}, preexec_fn=become,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, *args, status=0, seconds=60, **options):
        """stdout and stderr; the status is judged."""
        p = self.start(*args, **options)
        try:
            out, err = (t.decode("utf-8", "replace") for t in p.communicate(timeout=seconds))
        except subprocess.TimeoutExpired:
            p.kill()
            raise cases.Failed(f"no end after {seconds} s: {args}")
        found = gates.SANITIZER.search(err)
        expect(not found, f"sanitizer: {err}")
        if status is not None and p.returncode != status:
            raise cases.Failed(f"exit status {p.returncode}, expected {status}; stderr: {err.strip()[-1500:]}; stdout: {out[-300:]}")
        self.status = p.returncode
        return out, err

    def shell(self, script, *options, **more):
        return self.run(*options, "--", "sh", "-c", script, **more)

    def account(self, *args, **more):
        """(stdout, the account) of a run with --json."""
        out, err = self.run("--json", *args, **more)
        lines = [l for l in err.splitlines() if l.startswith('{"sandbox"')]
        equal(len(lines), 1, f"accounts in {err!r}")
        return out, json.loads(lines[0])

    def works(self):
        """Why no sandbox can be made here, or None."""
        p = self.start("--quiet", "--", "true")
        err = p.communicate(timeout=60)[1].decode()
        return None if p.returncode == 0 else err.strip()


CALLERS = [Caller("root")] if ROOT_CALLER and netns.privileged() else []
CALLERS.append(Caller("user"))
BROKEN = {c.name: c.works() for c in CALLERS}


def both(function):
    """A case for each caller."""
    for caller in CALLERS:
        def one(caller=caller):
            why = BROKEN[caller.name]
            # Root must be able to; a user only where the kernel allows it, which is then said.
            if why and caller.name == "user" and re.search(r"user_namespaces|userns|container runtime|Permission denied", why):
                raise Skip(f"no sandbox for a user here: {why}")
            expect(not why, f"no sandbox at all: {why}")
            function(caller)
        one.__name__ = f"{function.__name__}_as_{caller.name}"
        cases.case(one)
    return function


def lines(text):
    return [l for l in text.splitlines() if l]


# ---- CMD and its end

@both
def the_status_is_cmds(c):
    out, _ = c.shell("echo out; echo err >&2; exit 7", status=7)
    equal(out, "out\n", "stdout")
    c.shell("kill -9 $$", status=137)
    c.shell("kill -TERM $$", status=143)
    c.run("--", "no-such-program", status=127)
    c.run("--", "/etc/hosts", status=126)
    c.run("true")
    out, _ = c.run("echo", "--policy", "-x")
    equal(out, "--policy -x\n", "what follows CMD is CMD's own")


@both
def bad_usage_is_2_and_says_what(c):
    for args, text in ((["--nothing", "--", "true"], "unknown option"), ([], "usage"), (["--memory", "lots", "--", "true"], "--memory"),
                       (["--port", "8080", "--", "true"], "--transparent"), (["--policy", "/nonexistent", "--", "true"], "/nonexistent"),
                       (["--gateway", "https://gw.example", "--", "true"], "--token-file"), (["--timeout", "x", "--", "true"], "--timeout")):
        err = c.run(*args, status=2)[1]
        expect(text in err, f"{args}: {err!r} does not say {text!r}")


@both
def a_sandbox_that_cannot_be_made_is_125(c):
    for args, text in ((["--workdir", "/nonexistent"], "/nonexistent"), (["--workdir", "/"], "whole host"), (["--bind", "/etc"], "/etc"),
                       (["--bind-ro", "/proc"], "/proc"), (["--workdir", "/dev/null"], "not a directory")):
        err = c.run(*args, "--", "true", status=125)[1]
        expect(text in err, f"{args}: {err!r} does not say {text!r}")


@both
def standard_input_is_passed_on(c):
    p = c.start("--quiet", "--", "cat", stdin=subprocess.PIPE)
    out, _ = p.communicate(b"bytes\n", timeout=60)
    equal((p.returncode, out), (0, b"bytes\n"), "through a pipe")


@both
def what_would_lead_out_is_no_standard_input(c):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        expect("socket" in c.run("--", "cat", stdin=s, status=125)[1], "a socket of the host's network")
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    c.run("--", "cat", stdin=b, status=125)
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    expect("directory" in c.run("--", "ls", "/proc/self/fd/0/", stdin=fd, status=125)[1], "a directory")
    os.close(fd)
    a.close()
    b.close()


@both
def signals_reach_cmd(c):
    p = c.start("--quiet", "--", "sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    equal(p.stdout.readline(), b"ready\n", "its first line")
    p.send_signal(signal.SIGTERM)
    out, _ = p.communicate(timeout=30)
    equal((p.returncode, out), (9, b"got\n"), "its trap")


@both
def the_time_is_kept(c):
    began = time.monotonic()
    err = c.run("--quiet", "--timeout", "1s", "--", "sleep", "60", status=143)[1]
    expect("--timeout" in err, err)
    c.shell("trap '' TERM; sleep 60; sleep 60", "--quiet", "--timeout", "1s", status=137)
    expect(time.monotonic() - began < 20, "both end soon")


# ---- the way out

@both
def without_a_policy_nothing_leaves(c):
    mark = WEB.accepted()
    out, account = c.account("--config", c.write("bare.json", json.dumps(CONFIG)), "--policy", c.write("deny.json", json.dumps(gates.limited())),
                             "--", "curl", "-sS", "-m", "20", "http://allowed.example/", status=None)
    equal(WEB.accepted(), mark, "connections to the origin")
    equal((account["allowed"], account["denied"]), (0, 1), "the account")
    equal(account["would_allow"]["allowed_hosts"], ["allowed.example"], "the line that would have allowed it")
    out, account = c.account("--", "curl", "-sS", "-m", "20", "https://allowed.example/", status=56)
    equal((account["denied"], account["hosts"][0]["reason"]), (1, "host_not_allowed"), "no policy at all")


@both
def the_allowed_host_is_reached_through_the_proxy(c):
    out, account = c.account("--config", c.config, "--policy", c.policy, "--", "sh", "-c",
                             "curl -sS -m 20 http://allowed.example/; curl -s -m 20 -o /dev/null -w ' %{http_code}' http://other.example/")
    equal(out, "ok 403", "the answers")
    equal((account["allowed"], account["denied"]), (1, 1), "the account")
    row = next(h for h in account["hosts"] if h["host"] == "allowed.example")
    expect(row["allowed"] == 1 and row["bytes_down"] > 0 and row["port"] == 80, f"its row: {row}")
    expect(account["sandbox"].startswith("run-"), account["sandbox"])


@both
def an_address_that_is_forbidden_stays_so(c):
    mark = LOCAL.accepted()
    _, account = c.account("--config", c.config, "--policy", c.policy, "--", "curl", "-s", "-m", "20", "http://private.example/")
    equal(account["hosts"][0]["reason"], "address_not_allowed", "the reason")
    equal(account["would_allow"]["allowed_hosts"], [], "no line of a policy would have helped")
    equal(LOCAL.accepted(), mark, "connections")


@both
def the_hosts_loopback_is_another(c):
    mark = LOCAL.accepted()
    c.run("--quiet", "--", "curl", "-sS", "-m", "20", "--noproxy", "*", "http://127.0.0.1:8090/", status=7)
    c.run("--quiet", "--", "curl", "-sS", "-m", "20", "--noproxy", "*", f"http://{netns.ORIGIN}:8090/", status=7)
    equal(LOCAL.accepted(), mark, "connections to the host's server")


AROUND = """
import socket, time
began = time.monotonic()
for family, kind, to in ((2, 1, ("198.51.100.10", 80)), (2, 1, ("169.254.169.254", 80)), (2, 2, ("192.0.2.1", 53)), (10, 1, ("2001:db8::1", 443)),
                         (10, 2, ("2001:db8::1", 443))):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(10)
            s.connect(to)
            s.send(b"x")
            s.recv(1)
        print("reached", to)
    except ConnectionRefusedError:
        print("refused", to[0], to[1])
    except OSError as e:
        print("failed", to, e)
print("seconds", int(time.monotonic() - began))
"""


@both
def going_around_is_refused_at_once_and_recorded(c):
    mark = WEB.accepted()
    out, account = c.account("--", "python3", "-c", AROUND)
    equal(lines(out), ["refused 198.51.100.10 80", "refused 169.254.169.254 80", "refused 192.0.2.1 53", "refused 2001:db8::1 443",
                       "refused 2001:db8::1 443", "seconds 0"], "every attempt")
    equal(WEB.accepted(), mark, "connections to the origin")
    equal(account["bypass_attempts"], 5, "attempts in the account")
    equal({r["name"] for r in account["bypass"]}, {"tcp 198.51.100.10:80", "tcp 169.254.169.254:80", "udp 192.0.2.1:53", "tcp [2001:db8::1]:443",
                                                   "udp [2001:db8::1]:443"}, "their names")


@both
def the_gate_that_dies_takes_the_sandbox_along(c):
    p = c.start("--", "sleep", "60")
    serve = eventually(lambda: descendants(p.pid, b"serve"), "the gate")
    time.sleep(0.5)
    os.kill(serve[0], signal.SIGKILL)
    err = p.communicate(timeout=30)[1].decode()
    equal(p.returncode, 125, f"status ({err})")
    expect("proxy has ended" in err, err)


# ---- what is inside

@both
def nothing_of_the_host_is_inside(c):
    secret = c.write("secret", "very secret")
    with open("/tmp/sallyport-run-secret", "w") as f:
        f.write("x")
    out, _ = c.shell(f"cat {secret} /tmp/sallyport-run-secret /etc/shadow; ls -A /home /root /tmp /run /var/lib /srv /mnt; ls /; cat /etc/passwd", "--quiet")
    os.unlink("/tmp/sallyport-run-secret")
    expect("secret" not in out, out)
    equal(set(lines(out.split("usr\n")[0])) & {"sandbox", "work", "boot", "media"}, {"sandbox"}, "folders")
    users = [l.split(":")[0] for l in lines(out) if l.count(":") == 6]
    equal(users, ["root", "sandbox", "nobody"], "accounts")


@both
def the_processes_have_no_rights(c):
    out, _ = c.shell("id -u; cat /proc/self/status; echo first:; cat /proc/1/environ; ls /proc/1/fd; hostname", "--quiet")
    got = lines(out)
    expect(int(got[0]) != 0, "not root inside")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        expect(f"{name}:\t0000000000000000" in got, f"{name}: {[l for l in got if l.startswith(name)]}")
    expect("NoNewPrivs:\t1" in got and "Seccomp:\t2" in got, "no_new_privs and a filter")
    equal(got[got.index("first:") + 1:], ["sandbox"], "what the first process shows, and the host name")


@both
def only_three_descriptors_come_in(c):
    extra = os.open("/etc/passwd", os.O_RDONLY)
    out, _ = c.shell("ls /proc/$$/fd", "--quiet", pass_fds=(extra,))
    os.close(extra)
    equal(set(lines(out)) - {"10", "255"}, {"0", "1", "2"}, "descriptors")  # a shell keeps one of its own


@both
def the_environment_is_listed(c):
    out, _ = c.run("--quiet", "--env", "WANTED=1", "--env", "FROM_CALLER", "--", "env",
                   env={"API_KEY": "s3cret", "FROM_CALLER": "yes", "HTTPS_PROXY": "http://elsewhere.example:1", "JAVA_TOOL_OPTIONS": "-Xmx9m"})
    env = dict(l.split("=", 1) for l in lines(out))
    expect("API_KEY" not in env and "s3cret" not in out, "the caller's secret")
    equal((env["WANTED"], env["FROM_CALLER"]), ("1", "yes"), "what was asked for")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        equal(env[name], "http://127.0.0.1:3128", name)
    expect(env["JAVA_TOOL_OPTIONS"].startswith("-Xmx9m -Dhttp.proxyHost"), env["JAVA_TOOL_OPTIONS"])
    expect("eyJ" not in out, "no token")
    out, _ = c.run("--quiet", "--no-proxy-env", "--", "env")
    expect("3128" not in out, "no proxy variables")


@both
def an_exposed_token_is_good_here_alone(c):
    out, _ = c.run("--quiet", "--expose-token", "--config", c.config, "--policy", c.policy, "--", "sh", "-c",
                   "echo $https_proxy; curl -sS -m 20 http://allowed.example/")
    url, answer = out.rsplit("\n", 1)
    expect(re.fullmatch(r"http://run-[0-9A-Z]{26}:jwt_eyJ[\w.-]+@127\.0\.0\.1:3128", url), url)
    equal(answer, "ok", "with the token")
    out, account = c.account("--config", c.config, "--policy", c.policy, "--", "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "-x", url,
                             "http://allowed.example/")
    equal(out, "407", "another sandbox's token")


# ---- directories

@both
def the_working_directory_is_writable_and_the_callers(c):
    for owner in [c.uid] + ([USER] if c.uid == 0 and netns.privileged() else []):
        d = c.folder(f"work-{owner}", owner)
        out, _ = c.shell("pwd; echo made > file && mkdir sub && echo x > sub/f && cat file", "--quiet", "--workdir", d)
        shutil.rmtree(os.path.join(d, "sub"))
        equal(lines(out), [d, "made"], "inside")
        equal(os.stat(os.path.join(d, "file")).st_uid, owner, "the owner outside")


@both
def named_directories_are_as_named(c):
    readable, writable = c.folder("readable"), c.folder("writable")
    c.write("readable/file", "there\n")
    out, _ = c.shell(f"cat {readable}/file; echo x > {readable}/new || echo closed; echo x > {writable}/new && echo open", "--quiet", "--bind-ro", readable,
                     "--bind", writable)
    equal(lines(out), ["there", "closed", "open"], "both")
    expect(not os.path.exists(os.path.join(readable, "new")), "nothing was written")


@both
def a_link_is_no_working_directory(c):
    top = c.folder("links")
    for name, to in (("etc", "/etc"), ("up", "..")):
        path = os.path.join(top, name)
        if not os.path.islink(path):
            os.symlink(to, path)
        err = c.run("--workdir", path, "--", "true", status=125)[1]
        expect("symbolic link" in err, err)
        c.run("--bind-ro", os.path.join(path, "."), "--", "true", status=125)


@both
def what_governs_the_sandbox_is_not_in_it(c):
    d = c.folder("project")
    policy, config = c.write("project/policy.json", json.dumps(gates.limited("allowed.example"))), c.write("project/config.json", json.dumps(CONFIG))
    out, account = c.account("--workdir", d, "--policy", policy, "--config", config, "--", "sh", "-c",
                             "cat policy.json config.json; rm -f policy.json; mv policy.json x; echo '{}' > policy.json; ls;"
                             "curl -s -m 20 http://allowed.example/")
    equal(lines(out), ["config.json", "policy.json", "ok"], "neither shown nor replaced, and in force")
    equal(json.load(open(policy))["networking"]["allowed_hosts"], ["allowed.example"], "the file outside")
    token = c.write("project/token", "x", 0o600)
    err = c.run("--workdir", d, "--gateway", "http://gw.example:3128", "--token-file", token, "--", "true", status=2)[1]
    expect("--token-file" in err and "replace" in err, err)
    bad = c.write("bad.json", json.dumps({**CONFIG, "record": {"path": os.path.join(d, "records")}}))
    expect("record.path" in c.run("--workdir", d, "--config", bad, "--", "true", status=2)[1], "records where the sandbox writes")


@both
def an_image_is_a_root_of_its_own(c):
    image = c.folder("image")
    for folder in ("bin", "etc", "lib", "lib64", "usr"):
        c.folder(f"image/{folder}")
    for program in ("sh", "cat", "ls"):
        real = os.path.realpath(shutil.which(program, path="/usr/bin:/bin"))
        for file in [real] + re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", real], stdout=subprocess.PIPE, text=True).stdout):
            target = c.path("image") + (f"/bin/{program}" if file == real else file)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.realpath(file), target)
    for folder, _, files in os.walk(image):
        for path in [folder] + [os.path.join(folder, f) for f in files]:
            os.chown(path, c.uid, c.uid) if netns.privileged() else None
            os.chmod(path, 0o755)
    out, _ = c.shell("ls /usr; cat /etc/hosts; echo x > /tmp/x && cat /tmp/x", "--quiet", "--rootfs", image)
    expect("127.0.0.1 localhost" in out and out.endswith("x\n"), out)
    expect(not os.path.exists(os.path.join(image, "tmp/x")) and not os.listdir(os.path.join(image, "etc")), "the image is as it was")


# ---- limits

def groups_left():
    found = []
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(folder, n) for n in names if n.startswith("sallyport-")]
    return found


@both
def memory_and_processes_are_limited(c):
    c.run("--quiet", "--memory", "64M", "--", "python3", "-c", "bytearray(256 << 20)", status=None)
    if c.status == 125:
        raise Skip("no control group can be made here by this caller")
    equal(c.status, 137, "more memory than there is")
    out, err = c.shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo done", "--quiet", "--pids", "8", status=None)
    expect("fork" in err.lower(), f"more processes than there may be: {err}")
    equal(groups_left(), [], "control groups")


@both
def limits_that_cannot_be_had_are_said(c):
    err = c.run("--quiet", "--limits", "best-effort", "--memory", "64M", "--", "python3", "-c", "bytearray(256 << 20)", status=None)[1]
    expect(c.status in (1, 137), f"status {c.status}")
    expect(c.status == 137 or "best-effort" in err, err)


# ---- terminal

@both
def cmd_has_a_terminal_of_its_own(c):
    def become():
        if c.uid != os.getuid():
            os.setresgid(c.uid, c.uid, c.uid)
            os.setresuid(c.uid, c.uid, c.uid)
    pid, master = pty.fork()
    if pid == 0:
        become()
        os.execv(SALLYPORT, [SALLYPORT, "run", "--quiet", "--", "sh", "-c", "tty; read x; echo got $x; trap 'exit 9' INT; echo wait; sleep 60; sleep 60"])
    seen, sent, end = b"", 0, time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            seen += data
        if sent == 0 and b"pts/0" in seen:
            os.write(master, b"hello\r")
            sent = 1
        if sent == 1 and b"wait" in seen:
            os.write(master, b"\x03")
            sent = 2
    _, status = os.waitpid(pid, 0)
    os.close(master)
    expect(b"/dev/pts/0" in seen and b"got hello" in seen, seen)
    equal(os.waitstatus_to_exitcode(status), 9, f"the interrupt key ({seen})")


# ---- nothing is left

def descendants(pid, word=b""):
    found, todo = [], [pid]
    while todo:
        for task in [todo.pop()]:
            try:
                children = [int(p) for t in os.listdir(f"/proc/{task}/task") for p in open(f"/proc/{task}/task/{t}/children").read().split()]
            except OSError:
                continue
            todo += children
            found += children
    out = []
    for p in found:
        try:
            if word in open(f"/proc/{p}/cmdline", "rb").read():
                out.append(p)
        except OSError:
            pass
    return out


def alive(pids):
    out = []
    for p in pids:
        try:
            if open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
                out.append(p)
        except OSError:
            pass
    return out


def run_dirs():
    return {os.path.join(b, d) for b in ("/tmp", "/run", "/dev/shm", "/var/tmp") if os.path.isdir(b) for d in os.listdir(b)
            if re.fullmatch(r"sallyport-\w{6}", d)}


@both
def nothing_is_left_whatever_ends_first(c):
    before = run_dirs()
    for who in ("cmd", "launcher", "front"):
        p = c.start("--quiet", "--", "sh", "-c", "sleep 61 & setsid sleep 62 & (sleep 63 &) ; echo up; sleep 64")
        p.stdout.readline()
        eventually(lambda: len(descendants(p.pid)) >= 6, "its processes")
        all_of_them = descendants(p.pid)
        launcher = descendants(p.pid, b"launch")[0]
        if who == "cmd":
            p.send_signal(signal.SIGTERM)
        else:
            os.kill(launcher if who == "launcher" else p.pid, signal.SIGKILL)
        p.communicate(timeout=30)
        eventually(lambda: not alive(all_of_them), f"{who}: the end of {len(all_of_them)} processes", 10)
        eventually(lambda: not (run_dirs() - before), f"{who}: folders", 5)
        if who == "launcher":
            equal(p.returncode, 125, "status when the launcher was killed")


@both
def many_at_once_keep_apart(c):
    runs = []
    for i in range(12):
        policy = c.write(f"policy-{i}.json", json.dumps(gates.limited("allowed.example" if i % 2 == 0 else f"n{i}.example")))
        runs.append((i, c.start("--quiet", "--config", c.config, "--policy", policy, "--", "curl", "-s", "-m", "30", "-o", "/dev/null", "-w",
                                "%{http_code}", "http://allowed.example/")))
    for i, p in runs:
        out = p.communicate(timeout=60)[0]
        equal(out, b"200" if i % 2 == 0 else b"403", f"sandbox {i}")


# ---- forms

@both
def a_work_item_names_session_and_policy(c):
    item = {"session_id": "sess-1", "environment_key": "k3y", "secret": "s3cret", "policy": {"networking": {"type": "limited", "allowed_hosts": ["allowed.example"]}}}
    p = c.start("--json", "--config", c.config, "--work-item", "-", "--", "sh", "-c", "env; cat; curl -s -m 20 http://allowed.example/", stdin=subprocess.PIPE,
                env={"ENVIRONMENT_KEY": "k3y"})
    out, err = p.communicate(json.dumps(item).encode(), timeout=60)
    account = json.loads(err.decode().splitlines()[-1])
    equal((account["sandbox"], account["allowed"]), ("sess-1", 1), "the account")
    expect(b"k3y" not in out and b"s3cret" not in out and out.endswith(b"ok"), out)
    for bad in (b"", b"[]", b"{}", b'{"session_id":"a b"}', b'{"session_id":"a","session_id":"b"}', b'{"session_id":"a","policy":"x"}'):
        p = c.start("--work-item", "-", "--", "true", stdin=subprocess.PIPE)
        err = p.communicate(bad, timeout=60)[1]
        equal(p.returncode, 2, f"{bad}: {err}")


@both
def a_shared_gateway_is_the_parent(c):
    folder = tempfile.mkdtemp(prefix="sallyport-gw-", dir=FOLDER)
    with gates.Gate({"default": gates.limited("allowed.example")}, {"upstream": {"hosts": {"allowed.example": [netns.ORIGIN]}}}, dir=folder) as gateway:
        token = c.write("gateway-token", gateway.token("gw-sbx"), 0o600)
        out, account = c.account("--gateway", f"http://127.0.0.1:{gateway.port}", "--token-file", token, "--", "sh", "-c",
                                 "curl -sS -m 20 http://allowed.example/; curl -s -m 20 -o /dev/null -w ' %{http_code}' http://other.example.com/; env")
        expect(out.startswith("ok 403"), out[:200])
        expect("eyJ" not in out, "no token inside")
        equal(gateway.record("decision", host="allowed.example")["sandbox"], "gw-sbx", "who asked the gateway")


@cases.case
def a_kernel_that_forbids_it_is_named():
    script = "import os,sys; sys.path.insert(0, sys.argv[2]); from harness import netns; netns.become_root_of_a_user_namespace(); " \
             "netns.write('/proc/sys/user/max_user_namespaces', '0'); os.execv(sys.argv[1], [sys.argv[1], 'run', '--', 'true'])"

    def become():
        if netns.privileged() and os.getuid() == 0:
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
    p = subprocess.run([sys.executable, "-c", script, SALLYPORT, os.path.dirname(os.path.abspath(__file__))], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, cwd="/", preexec_fn=become, timeout=60)
    if "Traceback" in p.stderr:
        raise Skip("no nested user namespace to try it in: " + p.stderr.strip().splitlines()[-1])
    equal(p.returncode, 125, p.stderr)
    expect("user.max_user_namespaces" in p.stderr, p.stderr)


cases.at_end(lambda: shutil.rmtree(FOLDER, ignore_errors=True))
if __name__ == "__main__":
    cases.main()
