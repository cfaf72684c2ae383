#!/usr/bin/env python3
"""What sandboxes and workers may have of the keeper: a share of its signatures each, and no channel that outlives its worker."""
import ctypes
import os
import shutil
import signal
import socket
import ssl
import struct
import tempfile
import time

from harness import netns
netns.enter()
from harness import cases, inner
from harness import gate as gates
from harness.cases import Skip, case, equal, expect
from harness.dns import DnsStub
from harness.origin import Origin
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-keeper-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
WILD, DEAD = "wild.example", "dead.example"
FLOOD = 2500
BURST, RATE = 1500, 50  # SHARED_LEAVES_BURST, SHARED_LEAVES_PER_S


def start_gate():
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca")}, "upstream": {"ca_file": CA.path}, "workers": 2}
    return gates.Gate({"default": gates.limited(f"*.{WILD}", f"*.{DEAD}", inspect={"mode": "all"})}, config, dns=dns).start()


def visit(name, sub):
    """The status of a request inside."""
    host = f"{name}.{WILD}"
    with inner.Inside(gate.address, f"{host}:443", gate.credential(sub), context) as inside:
        inside.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return inside.read_until(["GET"], 10).status


def knock(name, sub):
    """No more of a visit than what makes the keeper sign: 200 when TLS begins, 429, or "ended"."""
    host = f"{name}.{DEAD}"
    hello = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=host)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    try:
        with socket.create_connection(gate.address, 10) as s:
            s.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: {gate.credential(sub)}\r\n\r\n".encode() + hello.read())
            data = b""
            while b"\r\n\r\n\x16\x03" not in data and (more := s.recv(65536)):
                data += more
    except ConnectionError:
        return "ended"
    if b"\r\n\r\n\x16\x03" in data:
        return 200
    return 429 if b" 429 " in data and b"limit_requests" in data and b"\r\nRetry-After: " in data else "ended" if b" 200 " in data else data


@case
def one_who_floods_names_does_not_starve_others():
    for _ in range(40):  # each worker keeps its own
        equal(visit("first", "flooder"), 200, "the first visit")
    began = time.monotonic()
    found = inner.each([lambda n=n: knock(f"n{n}", "flooder") for n in range(FLOOD)], 16)
    most = BURST + RATE * (time.monotonic() - began + 1)
    equal(set(found) - {"ended"}, {200, 429}, "what the flooder got")
    expect(BURST - 2 <= found.count(200) <= most, f"{found.count(200)} of {most:.0f} certificates, {found.count('ended')} ended, {found.count(429)} refused")
    began = time.monotonic()
    equal(visit("other", "neighbour"), 200, "somebody else's first visit")
    expect(time.monotonic() - began < 2, "it waited")
    minted = gate.metric("sallyport_certificates_minted_total")
    for _ in range(20):
        equal(visit("first", "flooder"), 200, "a host that is known")
    equal(gate.metric("sallyport_certificates_minted_total"), minted, "certificates made for hosts that are known")
    gate.record("decision", sandbox="flooder", decision="deny", reason="limit_requests")
    expect(not [r for r in gate.records("decision", sandbox="neighbour") if r["decision"] != "allow"], "a neighbour was refused")
    time.sleep(1)
    equal(visit("later", "flooder"), 200, "a new host a while later")


class Grabbed:
    """A copy of a worker's channel to the keeper, as one that was taken could have passed on."""

    def __init__(self, pid):
        arguments = gate.command_line(pid).split()
        libc = ctypes.CDLL(None, use_errno=True)
        process = libc.syscall(434, pid, 0)  # pidfd_open
        copy = libc.syscall(438, process, int(arguments[arguments.index("--leaves") + 1]), 0)  # pidfd_getfd
        if copy < 0:
            raise Skip(f"no descriptor of another process can be had here: {os.strerror(ctypes.get_errno())}")
        os.close(process)
        self.socket = socket.socket(fileno=copy)
        self.socket.settimeout(5)

    def ask(self, host):
        """A question for a leaf under a policy that is nobody's: what comes back, or None when it is cut off."""
        body = struct.pack(">IH32sBBH", 4711, 443, bytes(32), 4, len(host), 0) + b"none" + host.encode()
        try:
            self.socket.send(struct.pack("=HHI", 1, 0, len(body)) + body)
            while data := self.socket.recv(65536):
                if data[8:12] == struct.pack(">I", 4711):
                    return data
        except ConnectionError:
            pass
        return None


@case
def a_channel_ends_with_its_worker():
    equal(visit("before", "one"), 200, "inspection works")
    keeper = gate.children("keeper")
    for pid in gate.children("worker"):
        grabbed = Grabbed(pid)
        gate.kill(pid, signal.SIGSTOP)  # it would read the answer itself
        answer = grabbed.ask("www.wild.example")
        expect(answer and answer[12] == 3, f"the copy speaks to the keeper: {answer}")
        gate.kill(pid, signal.SIGKILL)
        cases.eventually(lambda: len(set(gate.children("worker")) - {pid}) == 2, "the worker is started again", 10)
        equal(grabbed.ask("www.wild.example"), None, "an answer on the channel of a worker that has ended")
        grabbed.socket.close()
    equal(gate.children("keeper"), keeper, "the keeper")
    for n in range(20):
        equal(visit(f"after{n}", "two"), 200, "a first visit through the workers that were started again")
    gate.kill(keeper[0], signal.SIGKILL)
    cases.eventually(lambda: gate.children("keeper") not in ([], keeper), "the keeper is started again", 10)
    for n in range(20):
        equal(visit(f"again{n}", "three"), 200, "a first visit after the keeper was started again")


@case
def the_gate_ends_well():
    gate.stop()


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    dns.close()
    origin.close()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    dns = DnsStub(default={"A": [netns.ORIGIN]}, table={f"n{n}.{DEAD}": {"A": [netns.OTHER_ORIGIN]} for n in range(FLOOD)})
    origin = Origin(netns.ORIGIN, 443, tls=CA.leaf(f"*.{WILD}", file="wild"))
    gate = start_gate()
    context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"))
    cases.at_end(clean_up)
    cases.main()
