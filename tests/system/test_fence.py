#!/usr/bin/env python3
"""The fence in a network namespace with a cable to another one: who leaves, who is refused and how fast, what is counted."""
import json
import os
import socket
import subprocess
import sys

from harness import netns
netns.enter()
from harness import cases, pod
from harness.cases import Skip, at_end, case, equal, eventually, expect
from harness.gate import binary

PROXY, GUARD, OTHER = 65532, 65533, 1000
AT_ONCE = 0.5  # seconds; a time-out would take as long as the attempt allows


# As in a small image, which has neither; the mounts are this program's own.
for names in ("/etc/protocols", "/etc/services"):
    if os.path.exists(names):
        equal(netns.libc.mount(b"/dev/null", names.encode(), None, 4096, None), 0, f"a mount over {names}")  # MS_BIND


def fence(*args, uid=0):
    def become():
        if uid:
            os.setgroups([])
            os.setresuid(uid, uid, uid)
    p = subprocess.run([binary(), "fence", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                       preexec_fn=become)
    return p.returncode, p.stdout, p.stderr


def must(*args):
    status, out, err = fence(*args)
    equal(status, 0, f"fence {' '.join(args)}: {err}")
    return out


def shown():
    return json.loads(must("show", "--json"))


def skip_all(why):
    print(f"SKIP {os.path.basename(sys.argv[0])}: {why}", flush=True)
    sys.exit(0)


if not netns.privileged():
    skip_all("only one user exists here; the fence tells users apart")
status, _, complaint = fence("show")  # a kernel without nftables is a reason to skip, a binary that is missing is none
if status == 3 and "not installed" not in complaint:
    skip_all(complaint.strip())
try:
    WORLD = pod.World()
except (OSError, subprocess.CalledProcessError) as e:
    skip_all(f"no second network namespace: {e}")
at_end(WORLD.close)


def refused(got, what, names):
    result, seconds = got
    expect(result in names, f"{what}: {result}, expected one of {names}")
    expect(seconds < AT_ONCE, f"{what}: took {seconds} s")


def everything_leaves(uid):
    for address in (pod.FAR, pod.FAR6, pod.NEAR, pod.NEAR6, pod.METADATA):
        equal(pod.as_uid(uid, pod.attempt_tcp, address)[0], "ok", f"TCP to {address} as {uid}")
        equal(pod.as_uid(uid, pod.attempt_udp, address)[0], "ok", f"UDP to {address} as {uid}")


@case
def without_a_fence_everybody_leaves():
    everything_leaves(OTHER)
    equal(fence("show")[0], 1, "status of show without a fence")
    before = WORLD.count()["frames"]
    equal(pod.as_uid(OTHER, pod.attempt_frame, raw=True)[0], "ok", "a frame")
    eventually(lambda: WORLD.count()["frames"] == before + 1, "the frame arrives outside")


@case
def the_proxy_leaves():
    must("install", "--proxy-uid", str(PROXY))
    everything_leaves(PROXY)


@case
def everybody_else_is_refused_at_once():
    must("install", "--proxy-uid", str(PROXY))
    before = WORLD.count()
    for uid in (OTHER, 0):
        for address in (pod.FAR, pod.FAR6, pod.NEAR, pod.NEAR6, pod.METADATA):
            refused(pod.as_uid(uid, pod.attempt_tcp, address), f"TCP to {address} as {uid}", ["ECONNREFUSED"])
            refused(pod.as_uid(uid, pod.attempt_udp, address), f"UDP to {address} as {uid}",
                    ["EPERM", "EHOSTUNREACH", "EACCES"])
    refused(pod.attempt_ping(pod.FAR), "a ping as root", ["EPERM"])
    equal(WORLD.count(), before, "what arrived outside")


@case
def refusals_are_counted():
    must("install", "--proxy-uid", str(PROXY))
    before = shown()["refused"]
    pod.as_uid(OTHER, pod.attempt_tcp, pod.FAR)
    pod.as_uid(OTHER, pod.attempt_udp, pod.FAR6)
    pod.attempt_ping(pod.FAR)
    after = shown()["refused"]
    for kind in ("tcp", "udp", "icmp"):
        expect(after[kind]["packets"] > before[kind]["packets"], f"{kind} is not counted")
        expect(after[kind]["bytes"] > before[kind]["bytes"], f"{kind}: bytes are not counted")
    equal(after["other"], before["other"], "other")


@case
def loopback_works():
    must("install", "--proxy-uid", str(PROXY))
    for address in ("127.0.0.1", "::1", pod.POD):
        with pod.Service(OTHER, address) as s:
            equal(pod.as_uid(OTHER + 1, pod.attempt_tcp, address, s.port)[0], "ok", f"TCP to {address}")
    with pod.Service(OTHER, "127.0.0.1", kind=socket.SOCK_DGRAM) as s:
        equal(pod.as_uid(OTHER + 1, pod.attempt_udp, "127.0.0.1", s.port)[0], "ok", "UDP on loopback")


@case
def a_resolver_on_loopback_answers_the_proxy_alone():
    must("install", "--proxy-uid", str(PROXY))
    with pod.Service(0, pod.RESOLVER, 53, kind=socket.SOCK_DGRAM):
        equal(pod.as_uid(PROXY, pod.attempt_udp, pod.RESOLVER, 53)[0], "ok", "the proxy's query")
        refused(pod.as_uid(OTHER, pod.attempt_udp, pod.RESOLVER, 53), "another's query", ["EPERM", "EHOSTUNREACH"])
        refused(pod.as_uid(OTHER, pod.attempt_tcp, pod.RESOLVER, 53), "another's query over TCP", ["ECONNREFUSED"])
        expect(shown()["refused"]["names"]["packets"] >= 2, "the queries are not counted")
        must("install", "--proxy-uid", str(PROXY), "--allow-loopback-dns")
        equal(pod.as_uid(OTHER, pod.attempt_udp, pod.RESOLVER, 53)[0], "ok", "a query with --allow-loopback-dns")


@case
def what_the_proxy_sent_before_its_close_arrives():
    """After close() a connection's packets have no owner any more; the flow is what lets them out."""
    must("install", "--proxy-uid", str(PROXY))
    def fill_and_close():
        s = socket.create_connection((pod.FAR, pod.PORT))
        s.setblocking(False)
        sent = 0
        try:
            while True:
                sent += s.send(bytes(65536))
        except BlockingIOError:
            s.close()
        return sent
    WORLD.reading(False)
    before = WORLD.count()["bytes"]
    sent = pod.as_uid(PROXY, fill_and_close)
    WORLD.reading(True)
    expect(isinstance(sent, int) and sent > 0, f"sending: {sent}")
    eventually(lambda: WORLD.count()["bytes"] - before == sent, f"all {sent} bytes arrive")


@case
def only_the_proxys_listeners_answer_outside():
    must("install", "--proxy-uid", str(PROXY))
    with pod.Service(PROXY) as s:
        equal(WORLD.connect(pod.POD, s.port)[0], "ok", "to the proxy")
    with pod.Service(PROXY, opener=PROXY) as s:
        equal(WORLD.connect(pod.POD, s.port)[0], "ok", "to a listener that the proxy opened")
    with pod.Service(OTHER, "0.0.0.0", opener=OTHER) as s:
        expect(WORLD.connect(pod.POD, s.port)[0] != "ok", "a workload's listener answers outside")
    with pod.Service(OTHER) as s:
        expect(WORLD.connect(pod.POD, s.port)[0] != "ok", "a workload answers outside on a listener of root")


@case
def frames_do_not_leave():
    must("install", "--proxy-uid", str(PROXY))
    if not shown()["egress_devices"]:
        raise Skip("this kernel has no egress hook")
    equal(shown()["egress_devices"], [pod.DEVICE], "devices with an egress chain")
    before = WORLD.count()["frames"]
    pod.as_uid(OTHER, pod.attempt_frame, raw=True)
    pod.attempt_frame()
    equal(pod.as_uid(PROXY, pod.attempt_frame, raw=True)[0], "ok", "the proxy's frame, the control")
    eventually(lambda: WORLD.count()["frames"] == before + 1, "the proxy's frame alone arrives")
    equal(shown()["refused"]["frames"]["packets"], 2, "frames counted")


@case
def installing_twice_is_installing_once():
    must("remove")
    must("install", "--proxy-uid", str(PROXY), "--guard-uid", str(GUARD))
    pod.as_uid(OTHER, pod.attempt_tcp, pod.FAR)
    once = shown()
    expect(once["refused"]["tcp"]["packets"] > 0, "nothing was counted")
    must("install", "--proxy-uid", str(PROXY), "--guard-uid", str(GUARD))
    equal(shown(), once, "the fence after a second install, counters included")
    equal(once["may_leave"], [PROXY, GUARD], "may_leave")
    must("install", "--proxy-uid", str(PROXY))
    equal(shown()["may_leave"], [PROXY], "may_leave after another install")
    refused(pod.as_uid(GUARD, pod.attempt_tcp, pod.FAR), "TCP as a user of the older fence", ["ECONNREFUSED"])


@case
def the_guards_ranges_are_closed_to_the_workers():
    must("install", "--proxy-uid", str(PROXY), "--guard-uid", str(GUARD))
    for address in (pod.FAR, pod.FAR6):
        equal(pod.as_uid(GUARD, pod.attempt_tcp, address)[0], "ok", f"TCP to {address}")
        equal(pod.as_uid(GUARD, pod.attempt_udp, address)[0], "ok", f"UDP to {address}")
    for address in (pod.METADATA, pod.NEAR, pod.NEAR6):
        refused(pod.as_uid(GUARD, pod.attempt_tcp, address), f"TCP to {address}", ["ECONNREFUSED"])
        refused(pod.as_uid(GUARD, pod.attempt_udp, address), f"UDP to {address}", ["EPERM", "EHOSTUNREACH", "EACCES"])
    expect(shown()["refused"]["guard"]["packets"] >= 6, "the guard's refusals are not counted")
    equal(pod.as_uid(PROXY, pod.attempt_tcp, pod.NEAR)[0], "ok", "the proxy's own user, who is not guarded")
    with pod.Service(OTHER, "127.0.0.1") as s:
        refused(pod.as_uid(GUARD, pod.attempt_tcp, "127.0.0.1", s.port), "a worker to loopback", ["ECONNREFUSED"])


@case
def workers_answer_their_clients():
    must("install", "--proxy-uid", str(PROXY), "--guard-uid", str(GUARD))
    with pod.Service(GUARD, "0.0.0.0") as s:
        equal(pod.as_uid(OTHER, pod.attempt_tcp, "127.0.0.1", s.port)[0], "ok", "a client on loopback")
        equal(WORLD.connect(pod.POD, s.port)[0], "ok", "a client on the private network")


@case
def a_range_can_be_opened_to_the_workers():
    must("install", "--proxy-uid", str(PROXY), "--guard-uid", str(GUARD), "--guard-allow", "10.66.0.0/24")
    equal(pod.as_uid(GUARD, pod.attempt_tcp, pod.NEAR)[0], "ok", "TCP to an opened range")
    refused(pod.as_uid(GUARD, pod.attempt_tcp, pod.METADATA), "TCP to metadata", ["ECONNREFUSED"])


def _third_namespace_connects(address):
    """A namespace behind this one, whose packets pass through it."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            netns.unshare(netns.CLONE_NEWNET)
            theirs.sendall(b"1")
            theirs.recv(1)
            netns.ip("link", "set", "in1", "up")
            netns.ip("addr", "add", "10.67.0.2/24", "dev", "in1")
            netns.ip("route", "add", "default", "via", "10.67.0.1")
            theirs.sendall(json.dumps(pod.attempt_tcp(address)).encode())
        finally:
            os._exit(0)
    ours.recv(1)
    netns.ip("link", "add", "in0", "type", "veth", "peer", "name", "in1")
    netns.ip("link", "set", "in1", "netns", str(pid))
    netns.ip("addr", "add", "10.67.0.1/24", "dev", "in0")
    netns.ip("link", "set", "in0", "up")
    try:
        ours.sendall(b"g")
        return json.loads(ours.recv(4096))
    finally:
        os.waitpid(pid, 0)
        subprocess.run(["ip", "link", "del", "in0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@case
def what_passes_through_is_refused():
    netns.write("/proc/sys/net/ipv4/ip_forward", "1")
    must("install", "--proxy-uid", str(PROXY))
    before = WORLD.count()["tcp"]
    refused(_third_namespace_connects(pod.NEAR), "a container behind", ["ECONNREFUSED"])
    equal(WORLD.count()["tcp"], before, "connections outside")
    expect(shown()["refused"]["forward"]["packets"] > 0, "forwarded packets are not counted")


@case
def removing_removes():
    must("install", "--proxy-uid", str(PROXY))
    must("remove")
    equal(fence("show")[0], 1, "status of show after remove")
    everything_leaves(OTHER)
    equal(must("remove").strip(), "fence: there was none", "a second remove")


@case
def what_is_wrong_is_said():
    for args, status, words in ((["install"], 2, "--proxy-uid N is expected"),
                                (["install", "--proxy-uid", "0"], 2, "every root process"),
                                (["install", "--proxy-uid", "-1"], 2, "a user id"),
                                (["install", "--proxy-uid", "4294967295"], 2, "a user id"),
                                (["install", "--proxy-uid", "1; flush ruleset"], 2, "a user id"),
                                (["install", "--guard-allow", "10.0.0.1/8", "--proxy-uid", "1"], 2, "host bits"),
                                (["install", "--proxy-udi", "1"], 2, "did you mean --proxy-uid"),
                                (["show", "--proxy-uid", "1"], 2, "unknown option"),
                                (["build"], 2, "install, show or remove"), ([], 2, "install, show or remove")):
        got, out, err = fence(*args)
        equal(got, status, f"status of fence {args}")
        expect(words in err and err.count("\n") == 1 and err.startswith("sallyport: ") and not out, f"fence {args}: {err!r}")
    got, _, err = fence("install", "--proxy-uid", "1", uid=OTHER)
    equal(got, 3, "status without the right")
    expect("CAP_NET_ADMIN" in err and err.count("\n") == 1, err)
    got, out, _ = fence("--help")
    expect(got == 0 and "--guard-allow" in out, "help")


if __name__ == "__main__":
    cases.main()
