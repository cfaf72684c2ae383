#!/usr/bin/env python3
"""How inspected tunnels end, and what must not end them: requests under way when a token expires or a policy changes, and
upstreams whose TLS has something to say while no request is under way."""
import asyncio
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time

from harness import netns
netns.enter()
from harness import cases
from harness import gate as gates
from harness.cases import case, equal, expect
from harness.origin import Origin
from harness.pki import Authority

FOLDER = tempfile.mkdtemp(prefix="sallyport-inspect-ends-")
os.chmod(FOLDER, 0o755)
CA = Authority(FOLDER)
HOST = "late.shop.example"
ADDRESS = "127.0.9.100"


async def answer_late(connection, request):
    await asyncio.sleep(20 if request.path == "/late" else 0)
    connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def start_gate():
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca")}, "auth": {"leeway_s": 0},
              "upstream": {"hosts": {HOST: [ADDRESS]}, "ca_file": CA.path, "allow_addresses": [f"{ADDRESS}/32"]}}
    return gates.Gate({"default": policy(HOST)}, config).start()


def policy(*hosts):
    return gates.limited(*hosts, inspect={"mode": "all"})


def tunnel(**claims):
    """TLS inside an inspected tunnel."""
    s = socket.create_connection(gate.address, 10)
    s.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: {gate.credential(**claims)}\r\n\r\n".encode())
    expect(s.recv(65536).startswith(b"HTTP/1.1 200"), "CONNECT")
    return ssl.create_default_context(cafile=os.path.join(FOLDER, "ca/ca.pem")).wrap_socket(s, server_hostname=HOST)


def ask(t, path):
    t.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())


def ended(t):
    """What came before the end of the connection."""
    data = b""
    try:
        while more := t.recv(65536):
            data += more
    except (ssl.SSLError, ConnectionError):
        pass
    return data


def worker_lives(sub):
    equal(gate.stderr().count("alarm"), 0, "alarms")
    cases.eventually(lambda: len(gate.records("close", sandbox=sub)) == 2, "the tunnel and its request are closed")


@case
def session_tickets_do_not_end_it():
    with tunnel(sub="tickets") as t:
        time.sleep(0.5)
        ask(t, "/")
        expect(t.recv(65536).startswith(b"HTTP/1.1 200"), "the first request, after the upstream's tickets")
        time.sleep(0.5)
        ask(t, "/")
        expect(t.recv(65536).startswith(b"HTTP/1.1 200"), "the second request")


@case
def a_token_expires_under_a_request():
    now = int(time.time())
    with tunnel(sub="expires", iat=now - 10, exp=now + 2) as t:
        ask(t, "/late")
        ended(t)
    worker_lives("expires")


@case
def a_policy_changes_under_a_request():
    with tunnel(sub="changes") as t:
        ask(t, "/late")
        cases.eventually(lambda: gate.records("decision", entry="inspected", sandbox="changes"), "the request is decided")
        gate.write_policy("default", policy("other.shop.example"))
        ended(t)
    worker_lives("changes")


@case
def the_gate_ends_well():
    gate.stop()


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    origin.close()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    origin = Origin(ADDRESS, 443, answer=answer_late, tls=CA.leaf(HOST, file="late"))
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
