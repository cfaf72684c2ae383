#!/usr/bin/env python3
"""Many sandboxes at once, each with a policy of its own: nobody gets another's policy, and at the end nothing is left. 200 of
them with the release build; under sanitizers, whose processes are many times larger, 60."""
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from harness import netns
netns.enter()
from harness import cases, sandbox
from harness import gate as gates
from harness.cases import case, equal, expect
from harness.dns import DnsStub
from harness.origin import Origin

COUNT = 60 if sandbox.is_sanitized() else 200
FOLDER = tempfile.mkdtemp(prefix="sallyport-many-")
os.chmod(FOLDER, 0o755)
# Says that it is there, waits until everybody is, then asks for its own host, a neighbour's, everybody's, and goes around.
PROGRAM = r"""
echo up; read go
ask() { for url in "$@"; do curl -s -o /dev/null -m 30 -w '%{http_code} ' "$url"; done; }
body() { curl -s -m 30 "$@"; echo; }
ask http://h$1.shop.example/ http://h$2.shop.example/ http://shared.shop.example/
body -H "X-Me: $1" http://h$1.shop.example/me
curl -s --noproxy '*' -m 5 -o /dev/null http://198.51.100.10/; echo $?
"""


def name(i):
    return f"h{i}.shop.example"


def cgroups():
    p = subprocess.run(["find", "/sys/fs/cgroup", "-maxdepth", "5", "-name", "sallyport-*"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return set(p.stdout.split())


def state():
    """What the machine holds of processes, networks, mounts, control groups and sockets, as far as it is ours to count."""
    networks, sockets = set(), 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if sandbox.namespace(pid, "user"):
            networks.add(sandbox.namespace(pid, "net"))
    for table in ("unix", "tcp", "packet"):
        with open("/proc/net/" + table) as f:
            rows = f.readlines()[1:]
            # What is closing or waits for late packets is the kernel's.
            sockets += len([r for r in rows if table != "tcp" or r.split()[3] in ("01", "0A")])
    with open("/proc/self/mountinfo") as f:
        mounts = len(f.readlines())
    return {"networks": networks, "sockets": sockets, "mounts": mounts, "cgroups": cgroups(), "processes": set(sandbox.ours(FOLDER))}


class Box:
    def __init__(self, i, config):
        self.i, self.neighbour = i, (i + 1) % COUNT
        self.policy = os.path.join(FOLDER, f"policy-{i}.json")
        with open(self.policy, "w") as f:
            json.dump(gates.limited(name(i), *(["shared.shop.example"] if i % 2 else [])), f)
        options = ["--pids", "64"] if netns.privileged() and i % 10 == 0 and LIMITS else []
        argv = [gates.binary(), "run", "--json", "--policy", self.policy, "--config", config, *options, "--", "sh", "-c", PROGRAM, "sh", str(i), str(self.neighbour)]
        env = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": os.path.join(FOLDER, "run"), **{k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")}}
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd="/",
                                        preexec_fn=lambda: sandbox.become(sandbox.UNPRIVILEGED if i % 2 else sandbox.ROOT), start_new_session=True)

    def judge(self):
        """Why it is not as it should be, or None."""
        out, err = self.process.communicate(timeout=60)
        out, err = out.decode(), err.decode()
        if found := gates.SANITIZER.search(err):
            return err[found.start():][:1500]
        if self.process.returncode:
            return f"exit status {self.process.returncode}: {out} {err[:600]}"
        lines = out.split("\n")
        shared = "200" if self.i % 2 else "403"
        if lines[0] != f"200 403 {shared} me={self.i}" or lines[1] != "7":
            return f"answers {lines[:2]}"
        account = json.loads(err.splitlines()[-1])
        allowed = {h["host"] for h in account["hosts"] if h["allowed"]}
        wanted = {name(self.i)} | ({"shared.shop.example"} if self.i % 2 else set())
        if allowed != wanted or account["bypass_attempts"] != 1:
            return f"account: {account}"
        return None


async def answer(connection, request):
    me = (request.field("x-me") or "").encode()
    body = b"me=" + me
    seen[(request.field("host") or "").split(":")[0]] += 1
    connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@case
def many_at_once_each_with_its_own_policy():
    config = os.path.join(FOLDER, "config.json")
    with open(config, "w") as f:
        json.dump({"upstream": {"hosts": {h: [netns.ORIGIN] for h in [*map(name, range(COUNT)), "shared.shop.example"]}, "dns_servers": [stub.server],
                                "allow_addresses": [f"{netns.ORIGIN}/32"]}}, f)
    before = state()
    began = time.monotonic()
    boxes = []
    try:
        for i in range(COUNT):
            boxes.append(Box(i, config))
        for b in boxes:
            line = b.process.stdout.readline()
            expect(line == b"up\n", f"sandbox {b.i} does not come up: {line + b.process.communicate(timeout=10)[1][:800] if line != b'up' + bytes([10]) else ''}")
        up = time.monotonic() - began
        networks = {sandbox.namespace(p, "net") for p in filter(str.isdigit, os.listdir("/proc"))}
        expect(len(networks - before["networks"]) >= COUNT, f"{len(networks - before['networks'])} networks with {COUNT} sandboxes up")
        for b in boxes:
            b.process.stdin.write(b"go\n")
            b.process.stdin.flush()
        wrong = {b.i: why for b in boxes if (why := b.judge())}
    finally:
        for b in boxes:
            if b.process.poll() is None:
                for pid in [b.process.pid] + sandbox.descendants(b.process.pid):
                    try:
                        os.kill(pid, 9)
                    except ProcessLookupError:
                        pass
                b.process.wait()
    print(f"  {COUNT} sandboxes, all up after {up:.1f} s, all done after {time.monotonic() - began:.1f} s", flush=True)
    expect(not wrong, f"{len(wrong)} of {COUNT}: " + "; ".join(f"{i}: {why}" for i, why in list(wrong.items())[:3]))
    foreign = {h: n for h, n in seen.items() if n != (2 if h.startswith("h") else COUNT // 2)}
    expect(not foreign, f"requests at the origin by host: {foreign}")
    equal(stub.asked(), 0, "names asked of a name server")
    everything_is_gone(before)


def everything_is_gone(before):
    def gone():
        now = state()
        return now["networks"] <= before["networks"] and now["sockets"] <= before["sockets"] and now["mounts"] == before["mounts"] and \
            now["cgroups"] <= before["cgroups"] and not now["processes"] and not os.listdir(os.path.join(FOLDER, "run"))
    try:
        cases.eventually(gone, "all is gone", 15)
    except cases.Failed:
        now = state()
        left = {k: len(now[k] - before[k]) if isinstance(now[k], set) else now[k] - before[k] for k in now}
        raise cases.Failed(f"left after {COUNT} sandboxes: {left}, files {os.listdir(os.path.join(FOLDER, 'run'))[:5]}")


def clean_up():
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    os.mkdir(os.path.join(FOLDER, "run"))
    os.chmod(os.path.join(FOLDER, "run"), 0o1777)
    seen = collections.Counter()
    stub = DnsStub({"A": [netns.ORIGIN]})
    origin = Origin(netns.ORIGIN, 80, answer)
    LIMITS = os.path.isdir("/sys/fs/cgroup/pids") or "pids" in (open("/sys/fs/cgroup/cgroup.controllers").read() if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "")
    cases.at_end(clean_up)
    cases.main()
