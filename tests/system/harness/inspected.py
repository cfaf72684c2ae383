#!/usr/bin/env python3
"""So many requests, one after the other, on one inspected connection of HTTP/1.1; for counting what they cost. usage: inspected.py REQUESTS"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import netns
netns.enter()
from harness import cases, inner
from harness.pki import Authority

HOST = "counted.example"


def main():
    folder = tempfile.mkdtemp(prefix="sallyport-counted-")
    os.chmod(folder, 0o755)
    lab = inner.Lab(folder, Authority(folder), [HOST], config={"user": None})
    try:
        with inner.Inside(lab.gate.address, f"{HOST}:443", lab.gate.credential("sbx-1"), lab.context, seconds=60) as inside:
            for _ in range(int(sys.argv[1])):
                inside.send(f"GET /a/path?query HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: counted\r\nAccept: */*\r\n\r\n".encode())
                cases.equal(inside.read_until(["GET"], 20, linger=0).status, 200, "a request inside")
        cases.equal(len(lab.gate.records("decision", entry="inspected")), int(sys.argv[1]), "requests that were judged and recorded")
    finally:
        lab.close()


if __name__ == "__main__":
    main()
