#!/usr/bin/env python3
"""Tunnels with much to carry: spliced through pipes of the worker's. Every byte arrives, in order; ends, resets, budgets and
expiry do what they do elsewhere; pipes are held only while bytes are under way."""
import array
import asyncio
import contextlib
import fcntl
import hashlib
import os
import random
import signal
import socket
import struct
import termios
import threading
import time

from harness import netns
netns.enter()
from harness import background, cases, wire
from harness import gate as gates
from harness.cases import Skip, case, equal, eventually, expect
from harness.origin import Origin

MIB = 1 << 20
PIPES_MAX, PIPES_KEPT = 64, 16  # of a worker: all, and those that wait for their next use
TARGET = "bulk.example:7"
BLOCK = os.urandom(MIB)


class Gate(gates.Gate):
    """A gate before an origin that does what the coroutine serve does."""

    def __init__(self, serve, config=None, policy=None):
        self.origin = Origin(netns.ORIGIN, 7, serve=serve)
        base = {"upstream": {"hosts": {"bulk.example": [netns.ORIGIN]}}}
        super().__init__({"default": policy or gates.limited(TARGET)}, gates.merged(base, config))

    def start(self, *args):
        super().start(*args)
        self.at_rest = len(self.fillings())
        return self

    def stop(self, *args, **options):
        super().stop(*args, **options)
        self.origin.close()

    def fillings(self):
        """Bytes in each pipe that has both ends in the worker."""
        found = {}
        for pid in self.children("worker"):
            try:
                descriptors = os.listdir(f"/proc/{pid}/fd")
            except PermissionError as e:
                raise Skip("the worker's descriptors may not be looked at") from e
            for fd in descriptors:
                with contextlib.suppress(FileNotFoundError):
                    found.setdefault(os.readlink(f"/proc/{pid}/fd/{fd}"), []).append(f"/proc/{pid}/fd/{fd}")
        return [filling(paths[0]) for name, paths in found.items() if name.startswith("pipe:") and len(paths) == 2]

    def pipes(self):
        """Pipes for tunnels, lent or kept."""
        return len(self.fillings()) - self.at_rest

    def full_pipes(self):
        return sum(n > 0 for n in self.fillings())


def filling(path):
    count = array.array("i", [0])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    finally:
        os.close(fd)
    return count[0]


def slow_tunnel(g, sub, **claims):
    """A tunnel whose client has little room for what comes."""
    t = wire.Tunnel.__new__(wire.Tunnel)
    t.sock = socket.socket()
    t.sock.settimeout(20)
    t.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    t.sock.connect(g.address)
    t.sock.sendall(f"CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\nProxy-Authorization: {g.credential(sub, **claims)}\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += t.sock.recv(1)
    t.rest, t.status = b"", int(data.split()[1])
    equal(t.status, 200, "the tunnel")
    return t


def stalled_tunnel(g, sub, **claims):
    """A tunnel that has carried bulk to a client that then stopped reading: its pipe is full."""
    t = g.tunnel(TARGET, sub, credential=g.credential(sub, **claims))
    t.sock.settimeout(20)
    t.read_exactly(16 * MIB)
    eventually(g.full_pipes, "a pipe is full")
    return t


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def pour(connection, count, then_end=True):
    """Sends BLOCK so often, as fast as it is taken."""
    for _ in range(count):
        connection.writer.write(BLOCK)
        await connection.writer.drain()
    if then_end:
        connection.writer.write_eof()


def digest_of(count):
    h = hashlib.sha256()
    for _ in range(count):
        h.update(BLOCK)
    return h.hexdigest()


def read_to_the_end(sock, slow=False, h=None):
    """(bytes, digest) until the orderly end; slow reads little and rests at first. h: of what has been read before."""
    h, n, dice = h or hashlib.sha256(), 0, random.Random(7)
    while more := sock.recv(dice.choice((100, 5000, 70000)) if slow and n < 16 * MIB else MIB):
        h.update(more)
        n += len(more)
        if slow and n < 16 * MIB and dice.random() < 0.02:
            time.sleep(0.002)
    return n, h.hexdigest()


async def digest_and_end(connection, slow=False):
    h, n, dice = hashlib.sha256(), 0, random.Random(8)
    while more := await connection.reader.read(dice.choice((100, 5000, 70000)) if slow and n < 16 * MIB else MIB):
        h.update(more)
        n += len(more)
        if slow and n < 16 * MIB and dice.random() < 0.02:
            await asyncio.sleep(0.002)
    return n, h.hexdigest()


@case
def both_ways_at_once_with_slow_readers():
    up = []

    async def serve(connection):
        pouring = asyncio.ensure_future(pour(connection, 32))
        up.append(await digest_and_end(connection, slow=True))
        await pouring
    with Gate(serve) as g:
        t = slow_tunnel(g, "both")

        def send():
            for _ in range(24):
                t.sock.sendall(BLOCK)
            t.sock.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        equal(read_to_the_end(t.sock, slow=True), (32 * MIB, digest_of(32)), "what came down")
        sender.join()
        eventually(lambda: up, "the origin has heard it all")
        equal(up[0], (24 * MIB, digest_of(24)), "what went up")
        r = g.record("close", sandbox="both")
        equal((r["bytes_up"], r["bytes_down"]), (24 * MIB, 32 * MIB), "the record")
        t.close()


@case
def an_end_waits_for_what_is_in_the_pipe_and_the_other_way_goes_on():
    heard, may_read = [], asyncio.Event()

    async def serve(connection):
        await may_read.wait()
        heard.append(await digest_and_end(connection))
        await pour(connection, 16)
    with Gate(serve) as g:
        t = g.tunnel(TARGET, "half")
        t.sock.settimeout(20)

        def send():
            for _ in range(32):
                t.sock.sendall(BLOCK)
            t.sock.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        eventually(g.full_pipes, "a pipe is full")
        background.loop.call_soon_threadsafe(may_read.set)
        sender.join()
        equal(read_to_the_end(t.sock), (16 * MIB, digest_of(16)), "what came down after the client's end")
        equal(heard[0], (32 * MIB, digest_of(32)), "what went up before it")
        r = g.record("close", sandbox="half")
        equal((r["bytes_up"], r["bytes_down"]), (32 * MIB, 16 * MIB), "the record")
        t.close()


@case
def a_client_resets_while_a_pipe_is_full():
    async def serve(connection):
        await pour(connection, 1000)
    with Gate(serve) as g:
        before = g.descriptors()
        t = stalled_tunnel(g, "gone")
        reset(t.sock)
        equal(g.record("close", sandbox="gone")["cause"], "client_reset", "the cause")
        eventually(lambda: g.origin.connections[0].ended, "the origin is told")
        equal(g.full_pipes(), 0, "pipes with bytes of an ended tunnel")
        g.no_leak_since(before, slack=2)


@case
def an_origin_resets_while_a_pipe_is_full():
    cut = asyncio.Event()

    async def serve(connection):
        pouring = asyncio.ensure_future(pour(connection, 1000))
        await cut.wait()
        pouring.cancel()
        sock = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()
    with Gate(serve) as g:
        t = stalled_tunnel(g, "broken")
        background.loop.call_soon_threadsafe(cut.set)
        try:
            read_to_the_end(t.sock)
            expect(False, "a reset became an orderly end")
        except ConnectionResetError:
            pass
        equal(g.record("close", sandbox="broken")["cause"], "upstream_reset", "the cause")
        equal(g.full_pipes(), 0, "pipes with bytes of an ended tunnel")
        t.close()


@case
def a_byte_budget_ends_in_the_middle_of_bulk():
    budget, heard = 8 * MIB, []

    async def serve(connection):
        n = 0
        try:
            while more := await connection.reader.read(MIB):
                n += len(more)
        finally:
            heard.append(n)
    with Gate(serve, policy=gates.limited(TARGET, limits={"bytes_up": budget})) as g:
        t = g.tunnel(TARGET, "thrifty")
        try:
            for _ in range(64):
                t.send(BLOCK)
        except OSError:
            pass
        r = g.record("close", sandbox="thrifty")
        equal(r["reason"], "limit_bytes", "the reason")
        eventually(lambda: heard, "the origin's end")
        expect(budget - MIB // 4 <= heard[0] <= budget + 65536, f"{heard[0]} bytes of a budget of {budget} went up")
        expect(budget < r["bytes_up"] <= budget + MIB // 4, f"recorded: {r['bytes_up']}")
        equal(g.tunnel(TARGET, "thrifty").message.reason, "limit_bytes", "another tunnel")
        t.close()


@case
def more_tunnels_than_pipes():
    async def serve(connection):
        await pour(connection, 24)
    wanted = digest_of(24)
    with Gate(serve, {"limits": {"tunnels_per_sandbox": 1000}}) as g:
        before = g.descriptors()
        tunnels = [g.tunnel(TARGET, "many") for _ in range(PIPES_MAX + 6)]
        begun = [hashlib.sha256(t.read_exactly(4 * MIB)) for t in tunnels]
        most = 0
        for i, t in enumerate(tunnels):
            most = max(most, g.full_pipes())
            n, digest = read_to_the_end(t.sock, h=begun[i])
            equal((n, digest), (20 * MIB, wanted), f"tunnel {i}")
        expect(PIPES_MAX // 2 <= most <= PIPES_MAX, f"{most} pipes were full")
        eventually(lambda: g.pipes() <= PIPES_KEPT, "few are kept")
        for t in tunnels:
            t.close()
        g.no_leak_since(before, slack=2 * PIPES_KEPT)


@case
def a_quiet_tunnel_holds_no_pipe():
    async def serve(connection):
        while await connection.read(1):
            await pour(connection, 8, then_end=False)
            connection.seen.clear()
    with Gate(serve) as g:
        tunnels = [g.tunnel(TARGET, f"s-{n}") for n in range(PIPES_KEPT + 8)]
        for t in tunnels * 2:
            t.send(b"!")
            equal(len(t.read_exactly(8 * MIB)), 8 * MIB, "bulk")
        expect(1 <= g.pipes() <= 2, f"{g.pipes()} pipes for {len(tunnels)} tunnels that say nothing")
        for t in tunnels:
            t.close()


@case
def a_token_expires_while_a_pipe_is_full():
    async def serve(connection):
        await pour(connection, 1000)
    with Gate(serve, {"auth": {"leeway_s": 0}}) as g:
        exp = int(time.time()) + 3
        t = stalled_tunnel(g, "late", exp=exp)
        expect("expired" in g.record("close", sandbox="late")["cause"], "the cause")
        late = time.time() - exp
        expect(-0.2 < late < 1.6, f"cut {late:.2f} s after exp")
        equal(g.full_pipes(), 0, "pipes with bytes of an ended tunnel")
        t.close()


@case
def others_get_their_turn():
    """Small exchanges in one tunnel while four others carry all that goes."""
    async def serve(connection):
        if await connection.reader.readexactly(1) == b"b":
            await pour(connection, 1 << 20)
        while more := await connection.reader.read(100):
            connection.writer.write(more)
    with Gate(serve) as g:
        stopping = threading.Event()

        def drink(t):
            while not stopping.is_set() and t.sock.recv(MIB):
                pass
            reset(t.sock)
        bulk = [g.tunnel(TARGET, f"bulk-{n}") for n in range(4)]
        for t in bulk:
            t.send(b"b")
        drinkers = [threading.Thread(target=drink, args=(t,)) for t in bulk]
        for d in drinkers:
            d.start()
        quiet = g.tunnel(TARGET, "quiet")
        quiet.send(b"q")
        began = time.monotonic()
        for i in range(50):
            expect(quiet.echo(b"%04d" % i), "the echo")
        took = time.monotonic() - began
        stopping.set()
        for d in drinkers:
            d.join()
        expect(took < 10, f"50 small exchanges beside bulk took {took:.1f} s")
        quiet.close()


def all_that_comes(tunnel):
    """How much, until the end or until nothing comes for a while."""
    tunnel.sock.settimeout(8)
    got = len(tunnel.rest)
    with contextlib.suppress(TimeoutError):
        while more := tunnel.sock.recv(MIB):
            got += len(more)
    return got


@case
def a_worker_that_was_stopped_and_continued_goes_on():
    async def serve(connection):
        await pour(connection, 400)
    with Gate(serve) as g:
        t = g.tunnel(TARGET, "paused")
        worker, done = g.children("worker")[0], threading.Event()

        def pause():
            """A signal cuts a splice short where there is room."""
            while not done.is_set():
                os.kill(worker, signal.SIGSTOP)
                os.kill(worker, signal.SIGCONT)
                time.sleep(0.003)
        pausing = threading.Thread(target=pause)
        pausing.start()
        try:
            equal(all_that_comes(t), 400 * MIB, "what came down")
        finally:
            done.set()
            pausing.join()
        t.close()


@case
def an_urgent_byte_holds_nothing_back():
    async def serve(connection):
        await pour(connection, 16, then_end=False)
        with socket.socket(fileno=os.dup(connection.writer.transport.get_extra_info("socket").fileno())) as raw:
            sent = 0
            while not sent:
                with contextlib.suppress(BlockingIOError):
                    sent = raw.send(b"!", socket.MSG_OOB)
                await asyncio.sleep(0.01)
        await pour(connection, 8)
    with Gate(serve) as g:
        t = g.tunnel(TARGET, "urgent")
        equal(all_that_comes(t), 24 * MIB, "what came down")
        t.close()


if __name__ == "__main__":
    cases.main()
