#!/usr/bin/env python3
"""The inspection CA and what it signs, held against the programs that will have to trust it: OpenSSL, GnuTLS, Python, Java, Node,
Go and rustls, each at its strictest. The leaves come from a real gate whose keeper minted them, for hosts that it refuses, so that
no upstream is needed."""
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile

from harness import netns
netns.enter()
from harness import cases, clients
from harness import gate as gates
from harness.cases import Skip, case, equal, expect

FOLDER = tempfile.mkdtemp(prefix="sallyport-ca-")
os.chmod(FOLDER, 0o755)
LONG = "a" * 60 + ".long.example"  # over the 64 bytes of a CN
EDGE = "b" * 52 + ".edge.examp"     # 63 bytes
HOSTS = ["www.shop.example", "x.example", EDGE, LONG, "under_score.shop.example", "198.51.100.7", "[2001:db8::7]"]


def path(*parts):
    return os.path.join(FOLDER, *parts)


def tool(*args, status=0, stdin=None):
    """Output of another program, or Skip when it is not there."""
    if not shutil.which(args[0]):
        raise Skip(f"{args[0]} is not installed")
    p = subprocess.run(args, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    if status is not None and p.returncode != status:
        raise cases.Failed(f"{' '.join(args[:4])}: status {p.returncode}: {p.stdout[-400:]}")
    return p.stdout


def start_gate():
    gates.run("ca", "init", "--dir", path("ca"))
    config = {"inspect": {"mode": "all", "ca": path("ca"), "deny_in_tunnel": True, "passthrough": ["through.shop.example"]}, "workers": 2}
    g = gates.Gate({"default": gates.limited("allowed.shop.example")}, config)
    g.start()
    return g


def tls_to(host, context, port=443):
    """A TLS connection through the gate to a host that it refuses: the handshake is ours all the same."""
    s = socket.create_connection(gate.address, timeout=10)
    s.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nProxy-Authorization: {gate.credential('ca')}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        more = s.recv(4096)
        if not more:
            raise cases.Failed(f"CONNECT {host}: {head!r}")
        head += more
    expect(head.startswith(b"HTTP/1.1 200"), f"CONNECT {host}: {head[:100]}")
    bare = host.strip("[]")
    literal = ":" in bare or re.fullmatch(r"[\d.]+", bare)
    return context.wrap_socket(s, server_hostname=bare if context.check_hostname or not literal else None)


def strict_context(ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca or path("ca/ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def leaf_file(host):
    """The leaf that the gate shows for the host, as a PEM file."""
    out = path(re.sub(r"\W", "_", host) + ".pem")
    if not os.path.exists(out):
        with tls_to(host, strict_context()) as t:
            with open(out, "w") as f:
                f.write(ssl.DER_cert_to_PEM_cert(t.getpeercert(binary_form=True)))
    return out


# ---- the command

@case
def init_makes_a_key_for_its_owner_alone_and_never_again():
    equal(stat.S_IMODE(os.stat(path("ca/ca.key")).st_mode), 0o600, "mode of ca.key")
    equal(stat.S_IMODE(os.stat(path("ca/ca.pem")).st_mode), 0o644, "mode of ca.pem")
    before = open(path("ca/ca.pem")).read(), open(path("ca/ca.key")).read()
    p = gates.run("ca", "init", "--dir", path("ca"), status=2)
    expect("not overwritten" in p.stderr, p.stderr)
    os.rename(path("ca/ca.pem"), path("ca/aside.pem"))
    gates.run("ca", "init", "--dir", path("ca"), status=None)
    expect(not os.path.exists(path("ca/ca.pem")), "a certificate without its key was written")
    os.rename(path("ca/aside.pem"), path("ca/ca.pem"))
    equal((open(path("ca/ca.pem")).read(), open(path("ca/ca.key")).read()), before, "the CA")


@case
def init_refuses_what_it_cannot_mean():
    for args in (["--days", "0"], ["--days", "x"], ["--days", "99999"], ["--constrain", "*.example.com"], ["--constrain", "a b"],
                 ["--constrain", "https://example.com"], ["--constrain", "10.0.0.1/8"], ["more"]):
        gates.run("ca", "init", "--dir", path("never"), *args, status=2)
    gates.run("ca", "init", status=2)
    gates.run("ca", "nonsense", status=2)
    expect(not os.path.exists(path("never")), "a folder was made")


@case
def each_ca_has_a_name_of_its_own():
    gates.run("ca", "init", "--dir", path("second"))
    names = [json.loads(gates.run("ca", "show", "--dir", path(d), "--json").stdout)["subject"] for d in ("ca", "second")]
    expect(names[0] != names[1], f"both are {names[0]}")


@case
def show_says_what_is_wrong_with_the_key_file():
    gates.run("ca", "init", "--dir", path("open"))
    facts = json.loads(gates.run("ca", "show", "--dir", path("open"), "--json").stdout)
    equal((facts["key"], facts["key_file"], facts["constraints"]), ("EC P-256", "fine", []), "facts")
    os.chmod(path("open/ca.key"), 0o640)
    expect("readable by others" in gates.run("ca", "show", "--dir", path("open"), status=1).stdout, "not said")
    os.unlink(path("open/ca.key"))
    expect("missing" in gates.run("ca", "show", "--dir", path("open"), status=1).stdout, "not said")
    gates.run("ca", "show", "--dir", path("nowhere"), status=2)


@case
def bundle_is_the_systems_roots_and_the_ca():
    gates.run("ca", "bundle", "--dir", path("ca"), "--out", path("all.pem"))
    context = ssl.create_default_context(cafile=path("all.pem"))
    own = [c for c in context.get_ca_certs() if "sallyport" in str(c["subject"])]
    equal(len(own), 1, "our CA in the bundle")
    expect(len(context.get_ca_certs()) > 20, "the system's roots are in it")
    gates.run("ca", "bundle", "--dir", path("ca"), status=2)


# ---- the gate's view of it

def refused_start(prepare, words):
    g = gates.Gate({"default": gates.limited("a.example")}, {"inspect": {"mode": "all", "ca": path("refused")}})
    shutil.rmtree(path("refused"), ignore_errors=True)
    gates.run("ca", "init", "--dir", path("refused"))
    prepare()
    status, said = g.refuses_to_start()
    expect(status in (2, 3) and words in said, f"status {status}, {words!r} is not in {said[-300:]!r}")


@case
def a_key_that_others_can_read_keeps_the_gate_from_starting():
    refused_start(lambda: os.chmod(path("refused/ca.key"), 0o644), "others may read")


@case
def a_key_of_another_ca_keeps_the_gate_from_starting():
    refused_start(lambda: shutil.copy(path("ca/ca.key"), path("refused/ca.key")), "does not belong")


@case
def a_missing_ca_keeps_the_gate_from_starting_and_says_what_to_do():
    refused_start(lambda: shutil.rmtree(path("refused")), "sallyport ca init")


@case
def a_leaf_as_a_ca_keeps_the_gate_from_starting():
    def prepare():
        shutil.copy(leaf_file("www.shop.example"), path("refused/ca.pem"))
    refused_start(prepare, "none of a CA")


# ---- what is minted, before each judge

@case
def python_accepts_every_leaf_at_its_strictest():
    for host in HOSTS:
        with tls_to(host, strict_context()) as t:
            names = t.getpeercert()["subjectAltName"]
            equal(len(names), 1, f"names in the leaf of {host}")
            expect(t.version() in ("TLSv1.2", "TLSv1.3"), t.version())


@case
def a_leaf_is_for_its_host_alone():
    context = strict_context()
    with tls_to("www.shop.example", context) as t:
        expect(t.getpeercert()["subjectAltName"] == (("DNS", "www.shop.example"),), "one name")
    bad = strict_context(path("second/ca.pem"))
    try:
        tls_to("www.shop.example", bad).close()
        raise cases.Failed("another CA was taken for ours")
    except ssl.SSLCertVerificationError:
        pass


@case
def openssl_accepts_every_leaf_at_its_strictest():
    for host in HOSTS:
        check = ["-verify_ip" if host[0] == "[" or host[0].isdigit() else "-verify_hostname", host.strip("[]")]
        out = tool("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-auth_level", "2", *check, "-CAfile", path("ca/ca.pem"), leaf_file(host))
        expect("OK" in out, out)


@case
def openssl_reads_what_was_meant():
    text = tool("openssl", "x509", "-in", leaf_file("www.shop.example"), "-noout", "-text")
    for wanted in ("Subject: CN = www.shop.example", "CA:FALSE", "Digital Signature", "TLS Web Server Authentication", "DNS:www.shop.example",
                   "X509v3 Authority Key Identifier", "X509v3 Subject Key Identifier", "ecdsa-with-SHA256", "prime256v1"):
        expect(wanted in text, f"{wanted} is not in {text}")
    expect("*" not in text.replace("**", ""), "a wildcard")
    text = tool("openssl", "x509", "-in", leaf_file(LONG), "-noout", "-text")
    expect("X509v3 Subject Alternative Name: critical" in text and re.search(r"Subject:\s*$", text, re.M), text)
    root = tool("openssl", "x509", "-in", path("ca/ca.pem"), "-noout", "-text")
    for wanted in ("Basic Constraints: critical", "CA:TRUE, pathlen:0", "Key Usage: critical", "Certificate Sign, CRL Sign"):
        expect(wanted in root, f"{wanted} is not in {root}")
    expect("Extended Key Usage" not in root and "Policies" not in root, root)


@case
def gnutls_accepts_every_leaf():
    for host in HOSTS:
        check = f"--verify-hostname={host.strip('[]')}"
        out = tool("certtool", "--verify", "--verify-profile=high", check, "--load-ca-certificate", path("ca/ca.pem"), "--infile", leaf_file(host))
        expect("Verified" in out and "Not verified" not in out, f"{host}: {out[-300:]}")


@case
def a_gnutls_client_completes_its_handshake():
    # gnutls-cli has no proxy: the bytes go through a socket pair that the gate's tunnel is spliced to.
    if not shutil.which("gnutls-cli"):
        raise Skip("gnutls-cli is not installed")
    import threading
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        near, _ = listener.accept()
        far = socket.create_connection(gate.address)
        far.sendall(f"CONNECT www.shop.example:443 HTTP/1.1\r\nHost: www.shop.example:443\r\nProxy-Authorization: {gate.credential('ca')}\r\n\r\n".encode())
        far.recv(4096)
        def pump(a, b):
            try:
                while data := a.recv(65536):
                    b.sendall(data)
                b.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        threading.Thread(target=pump, args=(near, far), daemon=True).start()
        pump(far, near)
    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    out = tool("gnutls-cli", "--x509cafile", path("ca/ca.pem"), "--sni-hostname", "www.shop.example", "--verify-hostname", "www.shop.example",
               "-p", str(port), "127.0.0.1", status=None, stdin="GET / HTTP/1.1\r\nHost: www.shop.example\r\n\r\n")
    expect("The certificate is trusted" in out and "Handshake was completed" in out, out[-400:])


JAVA = """
import java.io.*; import java.security.*; import java.security.cert.*; import javax.net.ssl.*;
public class Judge {
    public static void main(String[] a) throws Exception {
        CertificateFactory f = CertificateFactory.getInstance("X.509");
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setCertificateEntry("ca", f.generateCertificate(new FileInputStream(a[0])));
        TrustManagerFactory t = TrustManagerFactory.getInstance("PKIX");
        t.init(store);
        X509TrustManager m = (X509TrustManager) t.getTrustManagers()[0];
        for (int i = 1; i < a.length; i++) {
            X509Certificate leaf = (X509Certificate) f.generateCertificate(new FileInputStream(a[i]));
            m.checkServerTrusted(new X509Certificate[] {leaf}, "ECDHE_ECDSA");
            System.out.println("trusted " + leaf.getSubjectAlternativeNames());
        }
    }
}
"""


@case
def java_accepts_every_leaf():
    if not shutil.which("java"):
        raise Skip("java is not installed")
    with open(path("Judge.java"), "w") as f:
        f.write(JAVA)
    out = tool("java", path("Judge.java"), path("ca/ca.pem"), *[leaf_file(h) for h in HOSTS], status=None)
    if "compiler" in out and "trusted" not in out:
        raise Skip("this java has no compiler")
    equal(out.count("trusted "), len(HOSTS), out[-400:])


@case
def keytool_reads_the_ca():
    out = tool("keytool", "-printcert", "-file", path("ca/ca.pem"))
    expect("CA:true" in out and "PathLen:0" in out, out)


NODE = """
const {X509Certificate} = require("crypto"), fs = require("fs");
const ca = new X509Certificate(fs.readFileSync(process.argv[1]));
for (let i = 2; i < process.argv.length; i += 2) {
    const leaf = new X509Certificate(fs.readFileSync(process.argv[i])), name = process.argv[i + 1];
    const named = /^[\\d.]+$|:/.test(name) ? leaf.checkIP(name) : leaf.checkHost(name, {subject: "never"});
    if (!leaf.checkIssued(ca) || !leaf.verify(ca.publicKey) || leaf.ca || !named) throw new Error(name);
    console.log("good", named);
}
"""


@case
def node_accepts_every_leaf():
    args = [x for h in HOSTS for x in (leaf_file(h), h.strip("[]"))]
    out = tool("node", "-e", NODE, path("ca/ca.pem"), *args, status=None)
    equal(out.count("good "), len(HOSTS), out[-400:])


@case
def go_accepts_every_leaf_for_its_host_alone():
    go = clients.go()
    args = [x for h in HOSTS for x in (leaf_file(h), h)]
    out = tool(go, "judge", path("ca/ca.pem"), *args)
    equal(out.splitlines(), [f"good {h}" for h in HOSTS], "judgements")
    out = tool(go, "judge", path("ca/ca.pem"), leaf_file(HOSTS[0]), "shop.example", leaf_file("198.51.100.7"), "198.51.100.8")
    equal([line.split()[0] for line in out.splitlines()], ["refused"] * 2, out)
    expect("unknown authority" in tool(go, "judge", path("second/ca.pem"), leaf_file(HOSTS[0]), HOSTS[0]), "another CA was taken for ours")


@case
def a_go_client_completes_its_handshakes():
    env = {"HTTPS_PROXY": gate.proxy_url("go"), "SSL_CERT_FILE": path("ca/ca.pem"), "SSL_CERT_DIR": FOLDER}
    for options in ([], ["-h2"]):
        p = subprocess.run([clients.go(), "get", *options, *[f"https://{h}/" for h in HOSTS]], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        said = [json.loads(line) for line in p.stdout.splitlines()]
        equal([(a["status"], a["reason"], a["error"]) for a in said], [(403, "host_not_allowed", "")] * len(HOSTS), p.stdout[-600:])


def by_rustls(ca, *hosts):
    return tool(clients.rustls(), "%s:%d" % gate.address, gate.credential("rustls"), clients.der(ca, FOLDER), *[h + "/" for h in hosts]).splitlines()


@case
def a_rustls_client_completes_its_handshakes():
    named = [h for h in HOSTS if not re.match(r"\[|\d", h)]
    said = by_rustls(path("ca/ca.pem"), *named)
    for host, answer in zip(named, said, strict=True):
        expect(answer.startswith("HTTP/1.1 403 ") and "TLSv1_3" in answer and "host_not_allowed" in answer, f"{host}: {answer}")
    expect(by_rustls(path("ca/ca.pem"), "198.51.100.7")[0].startswith("error: "), "this webpki verifies no addresses, whoever signs for them")
    refused = by_rustls(path("second/ca.pem"), named[0])
    expect("UnknownIssuer" in refused[0], f"another CA was taken for ours: {refused}")


# ---- the gate with it

@case
def passthrough_is_never_shown_a_leaf():
    equal(gate.tunnel("through.shop.example:443", sub="ca").status, 403, "CONNECT to a refused passthrough host")
    equal(gate.tunnel("www.shop.example:443", sub="ca").status, 200, "CONNECT to a refused host whose refusal is said inside")


@case
def leaves_are_counted_and_minted_once():
    before = gate.metric("sallyport_certificates_minted_total")
    for _ in range(3):
        tls_to("counted.shop.example", strict_context()).close()
    after = cases.eventually(lambda: gate.metric("sallyport_certificates_minted_total") > before and gate.metric("sallyport_certificates_minted_total"), "counted")
    expect(after - before <= 2, f"{after - before} minted for one host by two workers")


@case
def a_killed_keeper_comes_back_and_who_waits_is_served():
    pid = gate.children("keeper")[0]
    gate.kill(pid, 9)
    with tls_to("after-the-kill.shop.example", strict_context()) as t:
        expect(t.getpeercert(), "a leaf")
    expect(gate.children("keeper")[0] != pid, "another keeper")


@case
def another_ca_on_reload_is_used_at_once():
    shutil.copytree(path("second"), path("next"))
    gate.config["inspect"]["ca"] = path("next")
    gate.write_config()
    gate.reload()
    def signed_by(folder):
        try:
            with tls_to("www.shop.example", strict_context(path(folder, "ca.pem"))) as t:
                return t.getpeercert()
        except (OSError, cases.Failed):  # another CA's leaf, or none: the reload is under way
            return None
    cases.eventually(lambda: signed_by("next"), "a leaf of the new CA")
    gate.config["inspect"]["mode"] = "off"
    gate.write_config()
    gate.reload()
    cases.eventually(lambda: not gate.children("keeper"), "the keeper has ended")
    gate.config["inspect"].update(mode="all", ca=path("ca"))
    gate.write_config()
    gate.reload()
    cases.eventually(lambda: gate.children("keeper"), "the keeper is back")
    cases.eventually(lambda: signed_by("ca"), "a leaf of the first CA")


gate = start_gate()
cases.at_end(lambda: (gate.stop(), gate.cleanup(), shutil.rmtree(FOLDER, ignore_errors=True)))
cases.main()
