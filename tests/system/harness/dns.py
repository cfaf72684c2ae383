"""A name server for tests, UDP and TCP, that answers from a table and counts what it is asked."""
import asyncio
import collections
import ipaddress
import struct

from . import background

A, CNAME, AAAA, OPT = 1, 5, 28, 41
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}


def encode_name(name):
    labels = [l.encode("latin-1") for l in name.rstrip(".").split(".") if l]
    return b"".join(bytes([len(l)]) + l for l in labels) + b"\0"


def decode_name(data, pos):
    labels = []
    while data[pos]:
        if data[pos] >= 64:
            raise ValueError("compressed question")
        labels.append(data[pos + 1:pos + 1 + data[pos]].decode("latin-1"))
        pos += 1 + data[pos]
    return ".".join(labels), pos + 1


def record(name, kind, ttl, data):
    return encode_name(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def chain_of(name, row):
    """CNAME records from name on, and the name they end at."""
    targets = [f"c{i}.{name}" for i in range(row.get("CNAME_chain", 0))]
    targets += [row["CNAME"]] if "CNAME" in row else []
    records, owner = [], name
    for target in targets:
        records.append(record(owner, CNAME, row.get("ttl", 5), encode_name(target)))
        owner = target
    return records, owner


class DnsStub:
    """table: name -> {"A": […], "AAAA": […], "CNAME": …, "CNAME_chain": n, "rcode": …, "delay": s, "ttl": s, "silent": True}.
    A name that is not in the table is answered by `default`, so that a query that should never leave would succeed."""

    def __init__(self, default=None, table=None, address="127.0.0.1"):
        self.default = default or {"rcode": "NXDOMAIN"}
        self.table = dict(table or {})
        self.queries = collections.Counter()  # by lower-case name, both kinds and transports
        self.address = address
        self.port = background.call(self._open())

    @property
    def server(self):
        return f"{self.address}:{self.port}"

    def asked(self):
        return sum(self.queries.values())

    async def _open(self):
        stub = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, peer):
                asyncio.ensure_future(stub._answer_udp(self.transport, data, peer))

        self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, (self.address, 0))
        port = self._udp.get_extra_info("sockname")[1]
        self._tcp = await asyncio.start_server(self._serve_tcp, self.address, port)
        return port

    async def _answer_udp(self, transport, data, peer):
        reply = await self._answer(data)
        if reply is None:
            return
        if len(reply) > self._udp_room(data):
            reply = reply[:2] + struct.pack("!HHHHH", struct.unpack("!H", reply[2:4])[0] | 0x0200, 1, 0, 0, 0) + self._question(data)
        transport.sendto(reply, peer)

    async def _serve_tcp(self, reader, writer):
        try:
            while True:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                reply = await self._answer(await reader.readexactly(size))
                if reply is not None:
                    writer.write(struct.pack("!H", len(reply)) + reply)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    @staticmethod
    def _question(data):
        _, end = decode_name(data, 12)
        return data[12:end + 4]

    def _udp_room(self, data):
        end = 12 + len(self._question(data))
        if struct.unpack("!H", data[10:12])[0] and len(data) >= end + 5 and struct.unpack("!H", data[end + 1:end + 3])[0] == OPT:
            return max(512, struct.unpack("!H", data[end + 3:end + 5])[0])
        return 512

    async def _answer(self, data):
        try:
            name, end = decode_name(data, 12)
            (kind,) = struct.unpack("!H", data[end:end + 2])
        except (ValueError, IndexError, struct.error):
            return None
        self.queries[name.lower()] += 1
        row = self.table.get(name.lower(), self.default)
        if row.get("delay"):
            await asyncio.sleep(row["delay"])
        if row.get("silent"):
            return None
        records = self._records(name, kind, row)
        flags = 0x8180 | RCODES[row.get("rcode", "NOERROR")]
        return data[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + self._question(data) + b"".join(records)

    @staticmethod
    def _records(name, kind, row):
        if row.get("rcode"):
            return []
        records, owner = chain_of(name, row)
        for a in row.get({A: "A", AAAA: "AAAA"}.get(kind, ""), []):
            records.append(record(owner, kind, row.get("ttl", 5), ipaddress.ip_address(a).packed))
        return records

    def close(self):
        background.loop.call_soon_threadsafe(self._udp.close)
        background.loop.call_soon_threadsafe(self._tcp.close)
