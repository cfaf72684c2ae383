#!/usr/bin/env python3
"""Upstreams whose TLS is bad in every way of tests/vectors/tls-upstream.jsonl: the handshake with the client is completed, each
request hears what is wrong, and not one of its bytes reaches the upstream. And some that are good, as controls."""
import ctypes
import datetime
import ipaddress
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import warnings

from harness import netns
netns.enter()
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from harness import cases, inner, vectors
from harness import gate as gates, h2
from harness.cases import Failed, Skip, case, equal, expect, report, table
from harness.pki import pem_of

warnings.simplefilter("ignore", DeprecationWarning)  # old protocols are what is tried
FOLDER = tempfile.mkdtemp(prefix="sallyport-upstream-tls-")
os.chmod(FOLDER, 0o755)
EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
HOUR = datetime.timedelta(hours=1)
LONG = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 46]) + ".long.example"  # 251 bytes
NAME64 = "n" * 51 + ".long.example"
CONNECT_MS = 1500


# ---- certificates

class Issuer:
    """A CA of any kind; `parent` None signs itself."""

    def __init__(self, name, parent=None, pathlen=None, ca=True, constraints=None, start=-1, end=48, key=None):
        self.key, self.parent = key or ec.generate_private_key(ec.SECP256R1()), parent
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extensions = [(x509.BasicConstraints(ca, pathlen if ca else None), True)]
        if constraints:
            extensions.append((x509.NameConstraints([x509.DNSName(constraints)], None), True))
        self.cert = sign(self.name, self.key.public_key(), parent or self, extensions, start, end)

    def leaf(self, *names, key=EC, extra=(), start=-1, end=48, common=None):
        """(certificate, key): SANs of names and addresses; none when there are no names."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (common or "leaf")[:60])])
        extensions = [(x509.BasicConstraints(False, None), True), *extra]
        if names:
            extensions.append((x509.SubjectAlternativeName([general(n) for n in names]), False))
        return sign(subject, key.public_key(), self, extensions, start, end), key


def general(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def sign(subject, public, issuer, extensions, start, end):
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.name).public_key(public)
               .serial_number(x509.random_serial_number()).not_valid_before(now + start * HOUR).not_valid_after(now + end * HOUR))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer.key, hashes.SHA256())


def pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


def files(leaf, *chain):
    """Paths of (chain, key) for a leaf and what stands above it."""
    cert, key = leaf
    path = tempfile.mktemp(dir=FOLDER)
    with open(path + ".pem", "wb") as f:
        f.write(b"".join(pem(c) for c in (cert, *chain)))
    with open(path + ".key", "wb") as f:
        f.write(pem_of(key))
    return path + ".pem", path + ".key"


ROOT = Issuer("root")
TWO = Issuer("intermediate", ROOT)


def sha1_leaf(host):
    """What the library refuses to sign: by the openssl command."""
    path = tempfile.mktemp(dir=FOLDER)
    with open(path + ".ca", "wb") as f:
        f.write(pem(TWO.cert))
    with open(path + ".cakey", "wb") as f:
        f.write(pem_of(TWO.key))
    with open(path + ".key", "wb") as f:
        f.write(pem_of(RSA))
    with open(path + ".ext", "w") as f:
        f.write(f"subjectAltName=DNS:{host}\nbasicConstraints=critical,CA:FALSE\n")
    run = lambda *a: subprocess.run([tool("openssl"), *a], check=True, capture_output=True)
    run("req", "-new", "-key", path + ".key", "-subj", "/CN=leaf", "-out", path + ".csr")
    run("x509", "-req", "-in", path + ".csr", "-CA", path + ".ca", "-CAkey", path + ".cakey", "-CAcreateserial", "-sha1", "-days", "2", "-extfile",
        path + ".ext", "-out", path + ".pem")
    with open(path + ".pem", "ab") as f:
        f.write(pem(TWO.cert))
    return path + ".pem", path + ".key"


def staple(leaf, status, by=None, hours=24):
    """A stapled answer about a leaf of TWO's."""
    now, path, by = datetime.datetime.utcnow(), tempfile.mktemp(dir=FOLDER), by or TWO
    revoked = status == ocsp.OCSPCertStatus.REVOKED
    answer = (ocsp.OCSPResponseBuilder().add_response(leaf[0], TWO.cert, hashes.SHA256(), status, now - HOUR, now + hours * HOUR, now - HOUR if revoked else None, None)
              .responder_id(ocsp.OCSPResponderEncoding.NAME, by.cert).sign(by.key, hashes.SHA256()))
    with open(path, "wb") as f:
        f.write(answer.public_bytes(serialization.Encoding.DER))
    return path


# ---- servers

def tool(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        raise Skip(f"{name} is not installed")
    return found


class World:
    """An address for each upstream; names that lead there."""

    def __init__(self):
        self.hosts, self.count, self.upstreams = {}, 0, []

    def address(self, *names):
        self.count += 1
        address = f"127.0.10.{self.count}"
        self.hosts.update({n: [address] for n in names})
        return address


world = World()


class Python:
    """Python's TLS in threads (asyncio's swallows the alert of a handshake that failed); what it decrypts is counted, and which
    handshakes were resumed."""

    def __init__(self, names, paths, change=None, address=None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_ciphers("ALL:@SECLEVEL=0")
        self.context.load_cert_chain(*paths)
        if change:
            change(self.context)
        self.seen, self.resumed = b"", []
        address = address or world.address(*names)
        self.listener = socket.create_server((address, 443), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        try:
            with self.context.wrap_socket(s, server_side=True) as tls:
                self.resumed.append(tls.session_reused)
                data = b""
                while b"\r\n\r\n" not in data and (more := tls.recv(65536)):
                    data += more
                    self.seen += more
                if data:
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    tls.recv(1)
        except OSError:
            s.close()

    def got(self):
        return self.seen

    def stop(self):
        self.listener.close()


class Command:
    """`openssl s_server` or `gnutls-serv`, which write what they decrypt to their output."""

    def __init__(self, names, argv, sign_of_request=b"GET /"):
        self.address, self.sign = world.address(*names), sign_of_request
        self.path = tempfile.mktemp(dir=FOLDER)
        self.process = subprocess.Popen([a.replace("@ADDRESS@", self.address) for a in argv], stdin=subprocess.PIPE, stdout=open(self.path, "wb"),
                                        stderr=subprocess.STDOUT, preexec_fn=netns.die_with_parent, cwd=FOLDER)
        try:
            cases.eventually(self.answers, f"{argv[0]} answers", 10)
        except Failed as e:
            raise Failed(f"{e}: {self.output()[-300:]!r}")

    def answers(self):
        """By its socket's state: a connection would be served, and counted."""
        expect(self.process.poll() is None, f"ended at start: {self.output()[-300:]!r}")
        wanted = "%08X:01BB" % struct.unpack("=I", socket.inet_aton(self.address))[0]
        with open("/proc/net/tcp") as f:
            return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in list(f)[1:])

    def output(self):
        with open(self.path, "rb") as f:
            return f.read()

    def got(self):
        return self.output() if self.sign in self.output() else b""

    def say(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def stop(self):
        self.process.kill()
        self.process.wait()


def s_server(names, paths, *options):
    return Command(names, [tool("openssl"), "s_server", "-accept", "@ADDRESS@:443", "-cert_chain", paths[0], "-cert", paths[0], "-key", paths[1], *options])


class Raw:
    """Bytes that no library would send: `serve` is called with each connection, in a thread."""

    def __init__(self, names, serve):
        self.seen, self.kept = b"", []
        self.listener = socket.create_server((world.address(*names), 443))
        self.serve = serve
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(self, s), daemon=True).start()

    def got(self):
        return b"".join(re.findall(rb"GET /\S*", self.seen))

    def stop(self):
        self.listener.close()


def read_hello(s):
    data = b""
    while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
        more = s.recv(65536)
        if not more:
            break
        data += more
    return data


def extensions_of(hello):
    """{type: bytes} of a ClientHello in one record."""
    body, pos = hello[9:], 34
    pos += 1 + body[pos]
    pos += 2 + int.from_bytes(body[pos:pos + 2], "big")
    pos += 1 + body[pos]
    end, found = pos + 2 + int.from_bytes(body[pos:pos + 2], "big"), {}
    pos += 2
    while pos < end:
        kind, n = struct.unpack(">HH", body[pos:pos + 4])
        found[kind] = body[pos + 4:pos + 4 + n]
        pos += 4 + n
    return found


def sslv3(raw, s):
    read_hello(s)
    hello = b"\x02\x00\x00\x26\x03\x00" + os.urandom(32) + b"\x00\x00\x2f\x00"
    s.sendall(b"\x16\x03\x00" + len(hello).to_bytes(2, "big") + hello)
    raw.seen += s.recv(65536)
    s.close()


def stalls(raw, s):
    raw.hello = read_hello(s)
    raw.kept.append(s)


def stalls_after_server_hello(raw, s):
    read_hello(s)
    hello = b"\x02\x00\x00\x2d\x03\x03" + os.urandom(32) + b"\x00\xc0\x2f\x00\x00\x05\xff\x01\x00\x01\x00"
    s.sendall(b"\x16\x03\x03" + len(hello).to_bytes(2, "big") + hello)
    raw.kept.append(s)


def at_most(version):
    def change(context):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    return change


def suites(text):
    def change(context):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(text + ":@SECLEVEL=0")
    return change


def client_certificates(mode, version):
    def change(context):
        context.load_verify_locations(ROOT_PATH)
        context.verify_mode = mode
        context.minimum_version = context.maximum_version = version
    return change


def picks(protocol):
    """A server that answers ALPN with what nobody offered: by OpenSSL's own call, which Python has no name for."""
    import _ssl
    text = ctypes.create_string_buffer(protocol)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_ubyte), ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p)

    @kind
    def choose(_ssl_, out, out_len, _in, _in_len, _arg):
        out[0], out_len[0] = ctypes.addressof(text), len(protocol)
        return 0

    def change(context):
        library = ctypes.CDLL(_ssl.__file__)
        pointer = ctypes.c_void_p.from_address(id(context) + 2 * ctypes.sizeof(ctypes.c_void_p))
        library.SSL_CTX_set_alpn_select_cb(pointer, choose, None)
        change.kept = choose, text
    return change


# ---- the table

class Row:
    """detail: what the refusal must say; status 200 for controls; `also` judges further, with the server and the reply."""

    def __init__(self, name, server, detail=None, status=502, reason="upstream_tls", host=None, also=None):
        self.name, self.server, self.detail, self.status, self.host, self.also = name, server, detail, status, host, also
        self.reason = None if status == 200 else reason


def chained(host, **options):
    return files(TWO.leaf(host, **options), TWO.cert)


def long_chain(host):
    """A hundred certificates of ten kilobytes each."""
    above, chain = ROOT, []
    padding = (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x04\x82\x27\x10" + bytes(10000)), False)
    for n in range(100):
        issuer = Issuer.__new__(Issuer)
        issuer.key, issuer.name = EC, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"step {n}")])
        issuer.cert = sign(issuer.name, EC.public_key(), above, [(x509.BasicConstraints(True, None), True), padding], -1, 48)
        chain.insert(0, issuer.cert)
        above = issuer
    return files(above.leaf(host), *chain)


def no_bad_goodbye(raw, s):
    """Answers without a length and vanishes without close_notify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*raw.paths)
    try:
        tls = context.wrap_socket(s, server_side=True)
        tls.recv(65536)
        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\npart of it")
        time.sleep(0.2)
        os.close(tls.detach())
    except OSError:
        pass


def no_answer_at_all(raw, s):
    """The same before it has answered anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*raw.paths)
    try:
        tls = context.wrap_socket(s, server_side=True)
        tls.recv(65536)
        os.close(tls.detach())
    except OSError:
        pass


def truncated(host, serve=no_bad_goodbye):
    raw = Raw([host], serve)
    raw.paths = chained(host)
    return raw


def judge_truncated(server, reply):
    ended_well = reply.closed == "close_notify" and reply.messages and reply.messages[0].complete and not re.search(rb"\r\ntransfer-encoding:", reply.messages[0].head, re.I)
    return "the client takes it for a whole answer" if ended_well else None


def build():
    """Rows by the vector's id, and more that it has not; each with a host of its own."""
    B = "bad.example"
    must_staple = (x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
    unknown = (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.2"), b"\x05\x00"), True)
    expired_two = Issuer("expired intermediate", ROOT, start=-48, end=-24)
    short = Issuer("pathlen 0", ROOT, pathlen=0)
    below = Issuer("too deep", short)
    narrow = Issuer("constrained", ROOT, constraints="other.example")
    leaf_as_ca = Issuer("a leaf", ROOT, ca=False)
    stranger = Issuer("stranger")
    rsa1024 = rsa.generate_private_key(65537, 1024)
    weak_ca = Issuer("weak intermediate", ROOT, key=rsa1024)

    def python(host, paths, **options):
        return lambda: Python([host], paths() if callable(paths) else paths, **options)

    def row(ident, text, detail, paths=None, host=None, **more):
        host = host or f"{ident}.{B}"
        options = {k: more.pop(k) for k in ("change",) if k in more}
        server = more.pop("server", None) or python(host, paths or (lambda: chained(host)), **options)
        return Row(f"{ident} {text}", server, detail, host=host, **more)

    def stapled(ident, text, verdict, detail, extra=(), by=None, hours=24, **more):
        host = f"{ident}.{B}"

        def server():
            leaf = TWO.leaf(host, extra=extra)
            return s_server([host], files(leaf, TWO.cert), "-www", "-status_file", staple(leaf, verdict, by, hours))
        return row(ident, text, detail, server=server, **more)
    good, revoked = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED
    host = lambda ident: f"{ident}.{B}"
    return [
        row("tu-001", "expired leaf", "expired", lambda: chained(host("tu-001"), start=-48, end=-24)),
        row("tu-002", "not yet valid leaf", "not yet valid", lambda: chained(host("tu-002"), start=24)),
        row("tu-003", "expired intermediate", "expired", lambda: files(expired_two.leaf(host("tu-003")), expired_two.cert)),
        row("tu-004", "wrong host", "another host", lambda: chained("good.example")),
        row("tu-005", "common name alone", "another host", lambda: files(TWO.leaf(common=host("tu-005")), TWO.cert)),
        row("tu-006", "wildcard two labels deep", "another host", lambda: chained("*.bad.example"), host="a.tu-006.bad.example"),
        row("tu-007", "wildcard for the name itself", "another host", lambda: chained("*.tu-007.bad.example")),
        row("tu-008", "partial wildcard", "another host", lambda: chained("tu*.bad.example")),
        row("tu-009", "wildcard of a whole top-level domain", "another host", lambda: chained("*.example"), host="tu-009.example"),
        row("tu-010", "NUL in the SAN", None, lambda: chained("tu-010.bad.example\0.evil.example")),
        row("tu-012", "self-signed", "self-signed", lambda: files((sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")]), EC.public_key(), SelfSigned,
                                                                        [(x509.SubjectAlternativeName([general(host("tu-012"))]), False)], -1, 48), EC))),
        row("tu-013", "untrusted root, sent along", "not trusted", lambda: files(stranger.leaf(host("tu-013")), stranger.cert)),
        row("tu-013b", "untrusted root, not sent", "unknown", lambda: files(stranger.leaf(host("tu-013b")))),
        row("tu-014", "intermediate missing", "missing", lambda: files(TWO.leaf(host("tu-014")))),
        row("tu-015", "leaf used as CA", "none of a CA", lambda: files(leaf_as_ca.leaf(host("tu-015")), leaf_as_ca.cert)),
        row("tu-016", "path length exceeded", "longer", lambda: files(below.leaf(host("tu-016")), below.cert, short.cert)),
        row("tu-017", "name constraints broken", "name constraints", lambda: files(narrow.leaf(host("tu-017")), narrow.cert)),
        row("tu-018", "EKU clientAuth alone", "not for servers",
            lambda: chained(host("tu-018"), extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)])),
        row("tu-019", "unknown critical extension", "critical", lambda: chained(host("tu-019"), extra=[unknown])),
        row("tu-020", "SHA-1 signature", "weak", lambda: sha1_leaf(host("tu-020"))),
        row("tu-021", "RSA 1024 leaf", "weak", lambda: chained(host("tu-021"), key=rsa1024)),
        row("tu-022", "RSA 1024 CA", "weak", lambda: files(weak_ca.leaf(host("tu-022")), weak_ca.cert)),
        row("tu-024", "TLS 1.0", "TLS 1.2", change=at_most(ssl.TLSVersion.TLSv1)),
        row("tu-025", "TLS 1.1", "TLS 1.2", change=at_most(ssl.TLSVersion.TLSv1_1)),
        row("tu-026", "SSLv3", "TLS 1.2", server=lambda: Raw([host("tu-026")], sslv3)),
        row("tu-029", "no encryption", "cipher", lambda: chained(host("tu-029"), key=RSA), change=suites("NULL")),
        row("tu-029b", "anonymous", "cipher", change=suites("aNULL")),
        row("tu-030", "static RSA", "cipher", lambda: chained(host("tu-030"), key=RSA), change=suites("AES128-GCM-SHA256:AES256-SHA")),
        row("tu-031", "CBC alone", "cipher", lambda: chained(host("tu-031"), key=RSA), change=suites("ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES128-SHA")),
        row("tu-032", "legacy renegotiation", None, server=lambda: Gnutls(host("tu-032"), "NORMAL:-VERS-TLS1.3:%DISABLE_SAFE_RENEGOTIATION")),
        row("tu-035", "must-staple without a staple", "must-staple", lambda: chained(host("tu-035"), extra=[must_staple])),
        stapled("tu-035b", "must-staple, stapled good", good, None, extra=[must_staple], status=200),
        stapled("tu-035c", "must-staple, staple too old", good, "must-staple", extra=[must_staple], hours=-0.5),
        stapled("tu-035d", "must-staple, staple by a stranger", good, "must-staple", extra=[must_staple], by=stranger),
        stapled("tu-036", "stapled revoked", revoked, "revoked"),
        row("tu-037", "client certificate asked for, TLS 1.3", None, change=client_certificates(ssl.CERT_OPTIONAL, ssl.TLSVersion.TLSv1_3), status=200),
        row("tu-037b", "client certificate asked for, TLS 1.2", None, change=client_certificates(ssl.CERT_OPTIONAL, ssl.TLSVersion.TLSv1_2), status=200),
        row("tu-037c", "client certificate demanded, TLS 1.2", "client certificate", change=client_certificates(ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2)),
        row("tu-037d", "client certificate demanded, TLS 1.3", "client certificate", change=client_certificates(ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3)),
        row("tu-039", "no close_notify, answer to the end", None, server=lambda: truncated(host("tu-039")), status=None, also=judge_truncated),
        row("tu-039b", "no close_notify, no answer", None, server=lambda: truncated(host("tu-039b"), no_answer_at_all), reason="upstream_closed"),
        row("tu-040", "ALPN h2 alone", "ALPN", server=lambda: s_server([host("tu-040")], chained(host("tu-040")), "-alpn", "h2", "-quiet")),
        row("tu-041", "ALPN that nobody offered", None, change=picks(b"smtp")),
        row("tu-043", "chain of 1 MB", None, lambda: long_chain(host("tu-043"))),
        row("tu-045", "stalls after ServerHello", None, server=lambda: Raw([host("tu-045")], stalls_after_server_hello), status=504, reason="upstream_timeout"),
        row("tu-050", "no TLS at all", "does not speak TLS", server=lambda: Raw([host("tu-050")], lambda raw, s: (s.sendall(b"HTTP/1.1 400 no\r\n\r\n"), s.close()))),
        row("tu-050b", "closes at the hello", "closed", server=lambda: Raw([host("tu-050b")], lambda raw, s: (read_hello(s), s.close()))),
        row("tu-051", "good TLS 1.2", None, change=at_most(ssl.TLSVersion.TLSv1_2), status=200),
        row("tu-051b", "good TLS 1.3", None, status=200),
        row("tu-051c", "good, RSA", None, lambda: chained(host("tu-051c"), key=RSA), status=200),
        row("tu-051d", "good, a wildcard", None, lambda: chained("*.bad.example"), status=200),
        row("tu-051e", "IPv6 literal, IP SAN", None, host=f"[{netns.ORIGIN6}]", server=lambda: Python([], chained(netns.ORIGIN6), address=netns.ORIGIN6), status=200),
        row("tu-051f", "IPv4 literal, IP SAN", None, host=netns.ORIGIN, server=lambda: Python([], chained(netns.ORIGIN), address=netns.ORIGIN), status=200),
        row("tu-051g", "IPv4 literal, DNS SAN of its text", "not for this address", host=netns.OTHER_ORIGIN,
            server=lambda: Python([], files((sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, netns.OTHER_ORIGIN)]), EC.public_key(), TWO, [
                (x509.SubjectAlternativeName([x509.DNSName(netns.OTHER_ORIGIN)]), False)], -1, 48), EC), TWO.cert), address=netns.OTHER_ORIGIN)),
        row("tu-052", "name of 64 bytes", None, lambda: chained(NAME64), host=NAME64, status=200),
        row("tu-052b", "name of 251 bytes", None, lambda: chained(LONG), host=LONG, status=200),
    ]


class SelfSigned:
    key, name = EC, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])


class Gnutls(Command):
    """It listens on every address: on a port of its own, which the upstream's address leads to."""

    def __init__(self, host, priority):
        paths, self.port = chained(host, key=RSA), 8443
        super().__init__([], [tool("gnutls-serv"), "--echo", "--port", str(self.port), "--x509certfile", paths[0], "--x509keyfile", paths[1],
                              "--priority", priority])
        self.front = Raw([host], self.lead)

    def answers(self):
        expect(self.process.poll() is None, f"ended at start: {self.output()[-300:]!r}")
        return b"0.0.0.0 port 8443...done" in self.output()

    def lead(self, raw, s):
        with socket.create_connection(("127.0.0.1", self.port)) as up:
            threading.Thread(target=copy, args=(up, s), daemon=True).start()
            copy(s, up)

    def stop(self):
        self.front.stop()
        super().stop()


def copy(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def request(host, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def ask(host, sub, alpn=("http/1.1",), seconds=10, path="/"):
    context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"), alpn)
    return inner.talk(gate.address, f"{host}:443", gate.credential(sub), context, request(host, path), seconds=seconds)


def why_not(row, server, sub):
    reply = ask(row.host, sub)
    if row.status is None:
        return row.also(server, reply)
    if (reply.status, reply.reason) != (row.status, row.reason):
        return f"{reply.status} {reply.reason}, expected {row.status} {row.reason}: {reply.data[-300:]!r}"
    if row.status == 200:
        return None
    if row.detail and row.detail.encode() not in reply.body:
        return f"the refusal does not say {row.detail!r}: {reply.body[-400:]!r}"
    if server.got():
        return f"it got {server.got()[:200]!r}"
    closes = cases.eventually(lambda: gate.records("close", sandbox=sub), "a close record")
    if not any(r.get("reason") == row.reason for r in closes + gate.records("decision", sandbox=sub)):
        return f"no record says {row.reason}: {closes}"
    if row.also:
        return row.also(server, reply)
    return None


@table
def the_matrix():
    for n, row in enumerate(ROWS):
        server = SERVERS[n]
        if isinstance(server, Skip):
            report(row.name, server, skip=True)
            continue
        try:
            why = why_not(row, server, f"row{n}")
        except (OSError, Failed) as e:
            why = f"{type(e).__name__}: {e}"
        report(row.name, why)


@case
def every_vector_is_tried():
    elsewhere = {"tu-033": "renegotiation", "tu-034": "floods", "tu-044": "hello", "tu-046": "resumption", "tu-047": "resumption", "tu-048": "test_inspect.py", "tu-049": "all rows"}
    tried = {r.name.split()[0] for r in ROWS} | elsewhere.keys()
    missing = {r["id"] for r in vectors.rows("tls-upstream.jsonl")} - tried
    expect(not missing, f"rows that nothing tries: {sorted(missing)}")


# ---- more than one handshake

@case
def the_hello_offers_what_it_should():
    """tu-044 and tu-047: no compressed certificates, no early data; the name that was asked for, and a staple."""
    reply = ask("hello.bad.example", "hello")
    equal((reply.status, reply.reason), (504, "upstream_timeout"), "an upstream that never answers")
    extensions = extensions_of(hello_server.hello)
    expect(27 not in extensions, "certificate compression is offered")
    expect(42 not in extensions, "early data is offered")
    expect(b"hello.bad.example" in extensions[0], "SNI")
    expect(5 in extensions, "a staple is not asked for")
    equal(extensions[16], b"\x00\x09\x08http/1.1", "ALPN")


@case
def sessions_stay_with_their_host_and_policy():
    """tu-046 and tu-047: one server with one ticket key behind two names, of which its certificate covers one."""
    def reused(host, sub, policy=None):
        mark = len(resume_server.resumed)
        context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"))
        credential = gate.credential(sub, **({"policy": policy} if policy else {}))
        reply = inner.talk(gate.address, f"{host}:443", credential, context, request(host))
        return reply.status, resume_server.resumed[mark:]
    equal(reused("one.bad.example", "a"), (200, [False]), "the first visit")
    equal(reused("one.bad.example", "a"), (200, [True]), "the second")
    equal(reused("two.bad.example", "a"), (200, [False]), "another host behind the same server")
    equal(reused("one.bad.example", "a", "other"), (200, [False]), "another policy")
    status, resumed = reused("three.bad.example", "a")
    equal((status, any(resumed)), (502, False), "a host that the certificate does not cover")


@case
def renegotiation_by_the_server_is_not_answered():
    """tu-033: it ends the connection or is refused; it never makes another handshake."""
    host = "reneg.bad.example"
    server = renegotiating
    if isinstance(server, Skip):
        raise server
    context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"))
    with inner.Inside(gate.address, f"{host}:443", gate.credential("reneg"), context) as inside:
        time.sleep(0.3)
        server.say(b"r\n")
        time.sleep(0.7)
        text = server.output()
        expect(text.count(b"CIPHER is") <= 1, f"a second handshake: {text[-300:]!r}")
        try:
            inside.send(request(host))
            inside.receive(2)
        except OSError:
            pass
    equal(ask("tu-051.bad.example", "after").status, 200, "the worker serves others")


@case
def a_flood_of_key_updates_is_bounded():
    """tu-034: thousands of them, each with a wish for one back; others are served meanwhile."""
    host = "flood.bad.example"
    if isinstance(flooding, Skip):
        raise flooding
    context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"))
    with inner.Inside(gate.address, f"{host}:443", gate.credential("flood"), context) as inside:
        time.sleep(0.3)
        before = cpu_of_worker()
        try:
            for _ in range(50):
                flooding.say(b"K\n" * 40)
                time.sleep(0.01)
        except BrokenPipeError:
            pass
        began = time.monotonic()
        equal(ask("tu-051.bad.example", "meanwhile").status, 200, "others are served")
        expect(time.monotonic() - began < 3, "others wait")
        expect(cpu_of_worker() - before < 5, f"{cpu_of_worker() - before} s of a processor")


# ---- refused once the handshake seems over, as TLS 1.3 lets a server do

class Late:
    """In front of a server: what that says once the client has spoken twice arrives a while later."""

    def __init__(self, host, server, seconds):
        self.server, self.seconds, self.spoken = server, seconds, 0
        self.front = Raw([host], self.lead)

    def lead(self, raw, s):
        with socket.create_connection(self.server) as up:
            threading.Thread(target=self.hold, args=(up, s), daemon=True).start()
            try:
                while data := s.recv(65536):
                    self.spoken += 1
                    up.sendall(data)
            except OSError:
                time.sleep(self.seconds)

    def hold(self, up, s):
        try:
            while data := up.recv(65536):
                if self.spoken > 1:
                    time.sleep(self.seconds)
                s.sendall(data)
        except OSError:
            pass
        s.close()

    def stop(self):
        self.front.stop()


def demanding(host, alpn, seconds):
    """A server of TLS 1.3 that wants a certificate, and says so so late."""
    def change(context):
        client_certificates(ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3)(context)
        context.set_alpn_protocols([alpn])
    server = Python([f"behind.{host}"], chained(host), change)
    return server, Late(host, (world.hosts[f"behind.{host}"][0], 443), seconds)


def is_explained(reply, what):
    equal((reply.status, reply.reason), (502, "upstream_tls"), what)
    expect(b"client certificate" in reply.body, f"{what}: {reply.body!r}")


@case
def a_late_demand_is_said_to_a_request_under_way():
    is_explained(ask("late1.bad.example", "late-get"), "a request that was sent")
    upload = b"POST /up HTTP/1.1\r\nHost: late1.bad.example\r\nContent-Length: 4000000\r\n\r\n" + bytes(4000000)
    context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"))
    is_explained(inner.talk(gate.address, "late1.bad.example:443", gate.credential("late-post"), context, upload, methods=["POST"]), "an upload")
    is_explained(inner.talk(gate.address, "tu-037d.bad.example:443", gate.credential("post"), context, upload.replace(b"late1", b"tu-037d"), methods=["POST"]),
                 "an upload that meets a closed connection")
    equal(demanders[0][0].got(), b"", "what reached the server")
    gate.record("close", sandbox="late-get", reason="upstream_tls", status=502)


@case
def a_late_demand_is_said_to_a_request_that_comes_later():
    context = inner.trusting(os.path.join(FOLDER, "ca/ca.pem"))
    with inner.Inside(gate.address, "late1.bad.example:443", gate.credential("later"), context) as inside:
        time.sleep(1)
        inside.send(request("late1.bad.example"))
        is_explained(inside.read_until(["GET"], 5), "a request after the refusal")


@case
def a_late_demand_is_said_to_each_stream():
    raw = h2.Client(gate, os.path.join(FOLDER, "ca/ca.pem"), "late2.bad.example", "late-h2")
    raw.send(h2.frame(h2.HEADERS, 5, 1, h2.request("late2.bad.example")) + h2.frame(h2.HEADERS, 4, 3, h2.request("late2.bad.example", method="POST")) +
             h2.frame(h2.DATA, 0, 3, bytes(16000)))
    for stream in (1, 3):
        _, body, code = raw.answer(stream)
        expect(b"upstream_tls" in body and b"client certificate" in body, f"stream {stream}: {body!r}, reset {code}")
    time.sleep(1)
    raw.send(h2.frame(h2.HEADERS, 5, 5, h2.request("late2.bad.example")))
    expect(b"client certificate" in raw.answer(5)[1], "a request after the refusal")
    raw.close()
    equal(demanders[1][0].got(), b"", "what reached the server")
    cases.eventually(lambda: len(gate.records("close", sandbox="late-h2", reason="upstream_tls")) == 3, "three records")


def cpu_of_worker():
    total = 0
    for pid in gate.children("worker"):
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


@case
def the_gate_ends_well():
    gate.stop()


def start(make):
    try:
        return make()
    except Skip as e:
        return e


def start_gate():
    gates.run("ca", "init", "--dir", os.path.join(FOLDER, "ca"))
    literals = [f"[{netns.ORIGIN6}]", netns.ORIGIN, netns.OTHER_ORIGIN]
    config = {"inspect": {"mode": "all", "ca": os.path.join(FOLDER, "ca")},
              "upstream": {"hosts": world.hosts, "ca_file": ROOT_PATH, "connect_timeout_ms": CONNECT_MS,
                           "allow_addresses": ["127.0.10.0/24", f"{netns.ORIGIN6}/128"]}}
    policy = gates.limited(*world.hosts, *literals, inspect={"mode": "all"})
    return gates.Gate({"default": policy, "other": {**policy, "description": "another"}}, config).start()


def clean_up():
    gate.stop(check=False)
    gate.cleanup()
    for s in [*SERVERS, *sum(demanders, ()), hello_server, resume_server, renegotiating, flooding]:
        if not isinstance(s, Skip):
            s.stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    ROOT_PATH = os.path.join(FOLDER, "root.pem")
    with open(ROOT_PATH, "wb") as f:
        f.write(pem(ROOT.cert))
    ROWS = build()
    SERVERS = [start(r.server) for r in ROWS]
    hello_server = Raw(["hello.bad.example"], stalls)
    resume_server = Python(["one.bad.example", "two.bad.example", "three.bad.example"],
                             files(TWO.leaf("one.bad.example", "two.bad.example"), TWO.cert))
    renegotiating = start(lambda: s_server(["reneg.bad.example"], chained("reneg.bad.example"), "-tls1_2"))
    demanders = [demanding("late1.bad.example", "http/1.1", 0.7), demanding("late2.bad.example", "h2", 0.7)]
    flooding = start(lambda: s_server(["flood.bad.example"], chained("flood.bad.example"), "-tls1_3"))
    gate = start_gate()
    cases.at_end(clean_up)
    cases.main()
