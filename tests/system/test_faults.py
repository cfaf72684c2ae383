#!/usr/bin/env python3
"""Faults and changes under load: killed processes, a full disk, no descriptors, reloads, revocations, floods, drains."""
import asyncio
import collections
import os
import signal
import socket
import threading
import time

from harness import netns
netns.enter()
from harness import cases, wire
from harness import gate as gates
from harness.cases import Skip, case, equal, eventually, expect
from harness.dns import DnsStub
from harness.origin import Origin, answer_ok, echo
from harness.tokens import basic

POLICY = gates.limited("allowed.example", "allowed.example:7", "slow.example:80")
DNS = DnsStub(default={"A": [netns.ORIGIN]})
WEB = Origin(netns.ORIGIN, 80)
ECHO = Origin(netns.ORIGIN, 7, serve=echo)
TUNNEL = "allowed.example:7"


def gate(config=None, policy=None, **options):
    return gates.Gate({"default": policy or POLICY}, config, dns=DNS, **options)


def request(g, path, sub="sbx-1", host="allowed.example"):
    return (f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {g.credential(sub)}\r\n"
            "Connection: close\r\n\r\n").encode()


class Load:
    """Clients that ask for /PREFIX-1, /PREFIX-2, … until stopped; what each path got."""

    def __init__(self, g, prefix, clients=8, sub="load"):
        self.g, self.prefix, self.results, self.stopping = g, prefix, {}, False
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run(clients, sub)), daemon=True)
        self.thread.start()

    async def _run(self, clients, sub):
        numbers = iter(range(1, 1 << 30))
        head = request(self.g, "/@", sub)

        async def client():
            while not self.stopping:
                path = f"/{self.prefix}-{next(numbers)}"
                try:
                    reply = await wire.talk(self.g.address, head.replace(b"/@", path.encode()), seconds=10)
                    self.results[path] = (reply.status, reply.reason)
                except OSError as e:
                    self.results[path] = (0, type(e).__name__)
                    await asyncio.sleep(0.01)
        await asyncio.gather(*(client() for _ in range(clients)))

    def stop(self):
        self.stopping = True
        self.thread.join(30)
        return self.results

    def ok(self):
        return [p for p, r in self.results.items() if r[0] == 200]


def every_success_is_recorded_once(g, results):
    """Every 200 that a client saw has its decision record, exactly once."""
    seen = collections.Counter(r.get("path") for r in g.records("decision", decision="allow"))
    ids = collections.Counter(r["id"] for r in g.records("decision"))
    missing = [p for p, r in results.items() if r[0] == 200 and seen[p] == 0]
    doubled = [p for p, n in seen.items() if n > 1 and p] + [i for i, n in ids.items() if n > 1]
    expect(not missing, f"{len(missing)} answered requests have no record: {missing[:5]}")
    expect(not doubled, f"{len(doubled)} are recorded twice: {doubled[:5]}")


def only(pids, what):
    equal(len(pids), 1, what)
    return pids[0]


# ---- processes

@case
def a_killed_worker_loses_only_its_tunnels():
    with gate({"workers": 2}) as g:
        tunnels = [g.tunnel(TUNNEL, f"s-{n}") for n in range(24)]
        equal({t.status for t in tunnels}, {200}, "the tunnels")
        victim = g.children("worker")[0]
        g.kill(victim, signal.SIGKILL)
        dead = [t for t in tunnels if t.ended_within(0.5) is not None]
        live = [t for t in tunnels if t not in dead]
        expect(dead and live, f"{len(dead)} of {len(tunnels)} tunnels ended")
        for t in live:
            t.sock.settimeout(5)
        expect(all(t.echo() for t in live), "a tunnel of the other worker is hurt")
        eventually(lambda: len(g.children("worker")) == 2 and victim not in g.children("worker"), "another worker is started")
        equal({g.tunnel(TUNNEL, f"n-{n}").status for n in range(12)}, {200}, "new tunnels")
        for t in live:
            t.close()


@case
def a_killed_worker_resets_nobody_who_waits():
    with gate({"workers": 1}) as g:
        worker = only(g.children("worker"), "workers")
        g.kill(worker, signal.SIGSTOP)
        waiting = []
        for n in range(20):
            s = socket.create_connection(g.address, 10)
            s.sendall(request(g, f"/wait-{n}", f"w-{n}"))
            waiting.append(s)
        g.kill(worker, signal.SIGKILL)
        answers = []
        for s in waiting:
            s.settimeout(15)
            try:
                answers.append(s.recv(4096)[:12])
            except OSError as e:
                answers.append(type(e).__name__.encode())
        equal(set(answers), {b"HTTP/1.1 200"}, "answers to those who waited")


@case
def a_worker_killed_under_load_is_replaced():
    with gate({"workers": 2}) as g:
        load = Load(g, "kill")
        for _ in range(3):
            time.sleep(0.5)
            g.kill(g.children("worker")[0], signal.SIGKILL)
        time.sleep(1.5)
        before = len(load.ok())
        time.sleep(0.5)
        after = len(load.ok())
        results = load.stop()
        expect(after > before, "requests succeed after the restarts")
        bad = collections.Counter(r for r in results.values() if r[0] not in (0, 200))
        expect(not bad, f"other answers: {bad}")
        every_success_is_recorded_once(g, results)


@case
def a_killed_recorder_loses_and_doubles_nothing():
    with gate({"workers": 2}) as g:
        load = Load(g, "rec")
        for _ in range(4):
            time.sleep(0.5)
            g.kill(only(eventually(lambda: g.children("recorder"), "a recorder"), "recorders"), signal.SIGKILL)
        time.sleep(1.0)
        before = len(load.ok())
        time.sleep(0.5)
        expect(len(load.ok()) > before, "requests succeed after the restarts")
        results = load.stop()
        bad = collections.Counter(r for r in results.values() if r not in ((200, None), (503, "record_unavailable")))
        expect(not bad, f"other answers: {bad}")
        time.sleep(0.3)
        every_success_is_recorded_once(g, results)


@case
def a_killed_supervisor_leaves_nobody_behind():
    g = gate()
    g.start()
    pids = g.children()
    g.kill(g.process.pid, signal.SIGKILL)
    g.process.wait(5)
    try:
        eventually(lambda: not any(g.command_line(p).strip() for p in pids), "the other processes end", 5)
    finally:
        for p in pids:
            if "sallyport" in g.command_line(p):
                g.kill(p, signal.SIGKILL)
    gates.run("log", "verify", g.path("decisions.jsonl"))
    g.cleanup()


@case
def a_start_after_a_crash_goes_on_with_the_chain():
    g = gate()
    g.start()
    equal(g.get("http://allowed.example/one").status, 200, "before")
    g.kill(g.process.pid, signal.SIGKILL)
    g.process.wait(5)
    time.sleep(0.5)
    with open(g.path("decisions.jsonl"), "ab") as f:
        f.write(b'{"ts":"2026-11-20T18:08:24.471461Z","seq":9')  # a line torn by the crash
    again = gates.Gate({"default": POLICY}, dns=DNS, dir=g.dir)
    with again:
        equal(again.get("http://allowed.example/two").status, 200, "after")
        expect("torn" in again.stderr() or "set aside" in again.stderr(), f"the torn line is said: {again.stderr()[-300:]!r}")


# ---- limits of the machine

def small_disk():
    """A tmpfs of 512 KiB, most of it filled."""
    import tempfile
    folder = tempfile.mkdtemp(prefix="sallyport-disk-")
    if netns.libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, b"size=512k,mode=777") != 0:
        raise Skip("no tmpfs can be mounted here")
    with open(os.path.join(folder, "filler"), "wb") as f:
        f.write(b"x" * (300 << 10))
    return folder


@case
def a_full_disk_refuses_and_recovers():
    folder = small_disk()
    with gate({"record": {"path": os.path.join(folder, "decisions.jsonl")}}) as g:
        results = {}
        for n in range(3000):
            reply = g.get(f"http://allowed.example/full-{n}")
            results[f"/full-{n}"] = (reply.status, reply.reason)
            if reply.status != 200:
                break
        equal(results[f"/full-{n}"], (503, "record_unavailable"), f"the answer on a full disk (after {n} requests)")
        asked = WEB.accepted()
        equal({g.get("http://allowed.example/still").status for _ in range(5)}, {503}, "answers while it is full")
        equal(WEB.accepted(), asked, "connections to the origin while it is full")
        os.unlink(os.path.join(folder, "filler"))
        eventually(lambda: g.get("http://allowed.example/again").status == 200, "requests succeed when there is room", 15)
        every_success_is_recorded_once(g, results)
    netns.libc.umount2(folder.encode(), 2)
    os.rmdir(folder)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@case
def no_descriptors_pause_accepting():
    with gate({"workers": 1}, nofile=128) as g:
        worker = only(g.children("worker"), "workers")
        tunnels, refused = [], 0
        for n in range(120):
            try:
                t = g.tunnel(TUNNEL, f"e-{n}", seconds=1.0)
            except socket.timeout:
                break
            if t.status == 200:
                tunnels.append(t)
            else:
                refused += 1
                expect(t.status in (503, 429), f"status {t.status}")
                if refused > 3:
                    break
        expect(8 < len(tunnels) < 120, f"{len(tunnels)} tunnels opened with 128 descriptors")
        used = cpu_seconds(worker)
        time.sleep(1)
        used = cpu_seconds(worker) - used
        expect(used < 0.5, f"the worker is busy while it has no descriptors: {used:.2f} s of CPU in 1 s")
        expect(all(t.echo() for t in tunnels), "a live tunnel is hurt")
        for t in tunnels:
            t.close()

        def works():
            try:
                return g.get("http://allowed.example/after", seconds=2).status == 200
            except OSError:
                return False
        eventually(works, "it accepts again", 10)
        equal(g.children("worker"), [worker], "the worker is the same")


# ---- changes while it runs

@case
def a_broken_policy_keeps_the_old_one():
    with gate() as g:
        equal(g.get("http://allowed.example/").status, 200, "before")
        for broken in ('{"version": 1, "networking": {"type": "limited", "allowed_hosts": ["*"]}}', "{", '{"version": 2}'):
            g.write_policy("default", broken)
            mark = len(g.stderr())
            g.reload()
            eventually(lambda: "default.json" in g.stderr()[mark:], f"the error about {broken[:20]!r} names the file", 5)
            equal(g.get("http://allowed.example/").status, 200, "the old policy")
            equal(g.get("http://other.example/").reason, "host_not_allowed", "the old policy, another host")
        g.write_policy("default", gates.limited("other.example"))
        g.reload()
        eventually(lambda: g.get("http://other.example/").status == 200, "a good policy is taken")
        equal(g.get("http://allowed.example/").reason, "host_not_allowed", "what it no longer allows")
        g.write_policy("default", "")
        eventually(lambda: g.get("http://other.example/").reason == "host_not_allowed", "an empty policy denies all")


@case
def a_broken_configuration_keeps_the_old_one():
    with gate() as g:
        before = g.config
        g.config = {**before, "auht": {}}
        g.write_config()
        mark = len(g.stderr())
        g.reload()
        eventually(lambda: "auht" in g.stderr()[mark:] and "auth" in g.stderr()[mark:], "the error names the key and the nearest known one", 5)
        equal(g.get("http://allowed.example/").status, 200, "the old configuration")
        g.config = gates.merged(before, {"blocked_hosts": ["allowed.example"]})
        g.write_config()
        g.reload()
        eventually(lambda: g.get("http://allowed.example/").reason == "host_blocked", "a good configuration is taken")
        g.config = before


@case
def a_checker_that_is_killed_changes_nothing():
    with gate() as g:
        ended, end = "the checker ended, or was ended", time.monotonic() + 20
        while ended not in g.stderr() and time.monotonic() < end:  # it lives for milliseconds
            g.reload()
            until, found = time.monotonic() + 0.5, []
            while not found and time.monotonic() < until:
                found = g.children("checker")
            for pid in found:
                g.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        expect(ended in g.stderr(), "no checker was met")
        equal(g.get("http://allowed.example/").status, 200, "the old configuration")
        g.write_policy("default", gates.limited("other.example"))
        g.reload()
        eventually(lambda: g.get("http://other.example/").status == 200, "the next one is taken")
        eventually(lambda: not g.children("checker"), "none is left")


@case
def a_changed_policy_cuts_tunnels_without_a_signal():
    with gate() as g:
        g.write_policy("other", POLICY)
        eventually(lambda: g.get("http://allowed.example/", credential=g.credential(policy="other")).status == 200, "the second policy")
        kept, cut = g.tunnel(TUNNEL, credential=g.credential("kept", policy="other")), g.tunnel(TUNNEL, "cut")
        expect(kept.echo() and cut.echo(), "the tunnels work")
        g.write_policy("default", gates.limited("allowed.example"))
        took = cut.ended_within(3)
        expect(took is not None, "the tunnel is cut")
        close = g.record("close", sandbox="cut")
        equal((close.get("cause"), close.get("address")), ("port_not_allowed", netns.ORIGIN), "the record says why")
        equal(g.tunnel(TUNNEL, "new").status, 403, "a new tunnel")
        kept.sock.settimeout(5)
        expect(kept.echo(), "a tunnel that is still allowed lives")
        kept.close()


@case
def a_new_policy_file_is_found_without_a_signal():
    with gate() as g:
        equal(g.get("http://late.example/", credential=g.credential(policy="late")).reason, "policy_unknown", "before")
        g.write_policy("late", gates.limited("late.example"))
        eventually(lambda: g.get("http://late.example/", credential=g.credential(policy="late")).status == 200, "the policy is found", 3)
        os.unlink(g.path("policies/late.json"))
        eventually(lambda: g.get("http://late.example/", credential=g.credential(policy="late")).reason == "policy_unknown", "it is gone", 3)


@case
def revocation_cuts_a_tunnel_within_a_second():
    with gate() as g:
        cut, kept = g.tunnel(TUNNEL, "cut", credential=g.credential("cut", jti="j-1")), g.tunnel(TUNNEL, "kept")
        expect(cut.echo() and kept.echo(), "the tunnels work")
        gates.run("token", "revoke", "--file", g.path("revoked.json"), "--jti", "j-1")
        took = cut.ended_within(3)
        expect(took is not None and took < 1.5, f"cut after {took} s")
        expect("revoked" in str(g.record("close", sandbox="cut").get("cause")), "the cause in the record")
        kept.sock.settimeout(5)
        expect(kept.echo(), "another sandbox's tunnel lives")
        kept.close()


@case
def expiry_cuts_a_tunnel():
    with gate({"auth": {"leeway_s": 0}}) as g:
        exp = int(time.time()) + 3
        t = g.tunnel(TUNNEL, credential=g.credential("cut", exp=exp))
        expect(t.echo(), "the tunnel works")
        took = t.ended_within(6)
        expect(took is not None, "the tunnel is cut")
        late = time.time() - exp
        expect(-0.2 < late < 1.6, f"cut {late:.2f} s after exp")
        expect("expired" in str(g.record("close", sandbox="cut").get("cause")), "the cause in the record")


# ---- the end

@case
def a_drain_lets_requests_end():
    async def slow(connection, r):
        await asyncio.sleep(1.0)
        await answer_ok(connection, r)
    origin = Origin(netns.OTHER_ORIGIN, 80, slow)
    with gate({"upstream": {"hosts": {"slow.example": [netns.OTHER_ORIGIN]}}}) as g:
        t = g.tunnel(TUNNEL, "t")
        sockets = []
        for n in range(10):
            s = socket.create_connection(g.address, 10)
            s.sendall(request(g, f"/slow-{n}", f"d-{n}", "slow.example"))
            sockets.append(s)
        eventually(lambda: origin.complete() == 10, "the requests are at the origin")
        g.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        expect(t.echo(), "a live tunnel goes on while it drains")
        equal({s.recv(4096)[:12] for s in sockets}, {b"HTTP/1.1 200"}, "requests under way")
        try:
            late = g.get("http://allowed.example/late", seconds=3)
            expect(late.status in (0, 503), f"a new request got {late.status}")
        except OSError:
            pass  # nobody listens any more: as good
        t.close()
        equal(g.process.wait(10), 0, "exit status")
        expect(g.records("stop"), "a stop record ends the log")
    origin.close()


@case
def a_second_sigterm_ends_at_once():
    with gate() as g:
        t = g.tunnel(TUNNEL, "t")
        g.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        began = time.monotonic()
        g.process.send_signal(signal.SIGTERM)
        equal(g.process.wait(10), 0, "exit status")
        expect(time.monotonic() - began < 3, "it took too long")
        expect(t.ended_within(2) is not None, "the tunnel ends")
        expect(g.records("close", sandbox="t"), "the tunnel has its close record")


@case
def sigterm_under_load_loses_no_record():
    with gate({"workers": 2}) as g:
        load = Load(g, "term")
        time.sleep(1)
        g.process.send_signal(signal.SIGTERM)
        equal(g.process.wait(15), 0, "exit status")
        results = load.stop()
        bad = collections.Counter(r for r in results.values() if r not in ((200, None), (503, "shutting_down")) and r[0] != 0)
        expect(not bad, f"other answers: {bad}")
        every_success_is_recorded_once(g, results)


# ---- floods and limits

@case
def a_flood_of_refusals_folds_and_hides_nothing():
    with gate() as g:
        async def flood():
            head = request(g, "/", "flood", "denied.example")
            return [r.status for r in await wire.gather((wire.talk(g.address, head) for _ in range(200)), 16)]
        statuses = asyncio.run(flood())
        equal(g.get("http://allowed.example/between", "flood").status, 200, "an allow in between")
        statuses += asyncio.run(flood())
        equal(set(statuses), {403}, "answers")
        g.stop()
        single = g.records("decision", sandbox="flood", decision="deny")
        folded = g.records("repeated", sandbox="flood")
        expect(10 <= len(single) <= 20, f"{len(single)} refusals singly")
        equal(len(single) + sum(r["count"] for r in folded), 400, "refusals in the records")
        equal(len(g.records("decision", sandbox="flood", decision="allow", path="/between")), 1, "the allow in between")
        expect({r["host"] for r in folded} == {"denied.example"} and {r["reason"] for r in folded} == {"host_not_allowed"}, f"{folded[:1]}")


@case
def an_idle_tunnel_is_closed():
    with gate({"limits": {"idle_timeout_ms": 600}}) as g:
        t = g.tunnel(TUNNEL, "idle")
        time.sleep(0.3)
        expect(t.echo(), "the tunnel works")
        took = t.ended_within(3)
        expect(took is not None and 0.4 < took < 2, f"closed after {took} s")
        expect("idle" in str(g.record("close", sandbox="idle").get("cause")), "the cause in the record")


@case
def a_slow_head_is_408():
    with gate({"limits": {"head_timeout_ms": 500}}) as g:
        reply = wire.say(g.address, b"GET http://allowed.example/ HTTP/1.1\r\nHost:", seconds=4)
        equal((reply.status, reply.reason, reply.closed), (408, "request_timeout", "eof"), "the answer")
        equal(wire.say(g.address, b"", seconds=4).data, b"", "a connection that says nothing is closed silently")


@case
def tunnel_bytes_are_counted_exactly():
    with gate() as g:
        up = os.urandom(1_234_567)
        t = g.tunnel(TUNNEL, "count")
        sender = threading.Thread(target=t.send, args=(up,))
        sender.start()
        expect(t.read_exactly(len(up)) == up, "every byte comes back")
        sender.join()
        t.close()
        r = g.record("close", sandbox="count")
        equal((r["bytes_up"], r["bytes_down"]), (len(up), len(up)), "bytes in the close record")


@case
def bytes_behind_a_connect_head_are_the_tunnels():
    with gate() as g:
        t = g.tunnel(TUNNEL, "early", early=b"early bytes")
        equal(t.read_exactly(11), b"early bytes", "the echo")
        t.close()
        equal(g.record("close", sandbox="early")["bytes_up"], 11, "bytes in the close record")


@case
def a_slow_reader_stops_the_sender():
    async def firehose(connection):
        block = b"x" * 65536
        try:
            while True:
                connection.writer.write(block)
                await connection.writer.drain()
                sent[0] += len(block)
        except OSError:
            pass
    sent = [0]
    origin = Origin(netns.OTHER_ORIGIN, 7, serve=firehose)
    with gate({"upstream": {"hosts": {"allowed.example": [netns.OTHER_ORIGIN]}}}) as g:
        t = g.tunnel(TUNNEL, "slow")
        eventually(lambda: sent[0] > 0, "bytes flow")
        time.sleep(1)
        first = sent[0]
        time.sleep(0.5)
        expect(sent[0] - first < 1 << 20 and sent[0] < 64 << 20, f"{sent[0]} bytes were taken from the origin for a client that does not read")
        t.close()
        g.record("close", sandbox="slow")
    origin.close()


@case
def too_many_tunnels_of_one_sandbox():
    with gate({"limits": {"tunnels_per_sandbox": 4}}) as g:
        tunnels = [g.tunnel(TUNNEL, "many") for _ in range(4)]
        over = g.tunnel(TUNNEL, "many")
        equal((over.status, over.message.reason), (429, "limit_tunnels"), "the fifth")
        expect(over.message.field("retry-after"), "Retry-After")
        other = g.tunnel(TUNNEL, "other")
        equal(other.status, 200, "another sandbox")
        tunnels.pop().close()
        eventually(lambda: g.tunnel(TUNNEL, "many").status == 200, "there is room again", 3)


@case
def failed_tokens_are_rate_limited_by_address():
    with gate() as g:
        one, other = g.token("one"), g.token("other")
        bad = basic(one.rpartition(".")[0] + "." + other.rpartition(".")[2])
        async def guess():
            head = b"GET http://allowed.example/ HTTP/1.1\r\nHost: allowed.example\r\nProxy-Authorization: " + bad.encode() + b"\r\n\r\n"
            return [(r.status, r.reason) for r in await wire.gather((wire.talk(g.address, head, source="127.9.9.9") for _ in range(1300)), 16)]
        answers = collections.Counter(asyncio.run(guess()))
        expect(any(status in (429, 503) for status, _ in answers), f"1300 failures from one address gave {dict(answers)}")
        equal(g.get("http://allowed.example/", source="127.9.9.10").status, 200, "another address")


if __name__ == "__main__":
    cases.main()
