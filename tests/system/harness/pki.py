"""A certificate authority of the test's own and leaves by it."""
import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def pem_of(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.cert = self._sign(self.name, self.key.public_key(), [(x509.BasicConstraints(True, None), True), (
            x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)])
        self.path = os.path.join(folder, "ca.pem")
        with open(self.path, "wb") as f:
            f.write(self.cert.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, public_key, extensions):
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public_key)
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                   .not_valid_after(now + datetime.timedelta(days=2))
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def leaf(self, *names, file="leaf"):
        """(certificate, key) paths for these DNS names or addresses."""
        import ipaddress
        key = ec.generate_private_key(ec.SECP256R1())
        def general(n):
            try:
                return x509.IPAddress(ipaddress.ip_address(n))
            except ValueError:
                return x509.DNSName(n)
        cert = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:60])]), key.public_key(),
                          [(x509.SubjectAlternativeName([general(n) for n in names]), False), (x509.BasicConstraints(False, None), True)])
        paths = os.path.join(self.folder, file + ".pem"), os.path.join(self.folder, file + ".key")
        with open(paths[0], "wb") as f:
            f.write(cert.public_bytes(serialization.Encoding.PEM))
        with open(paths[1], "wb") as f:
            f.write(pem_of(key))
        os.chmod(paths[1], 0o600)
        return paths
