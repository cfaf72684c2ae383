"""Tokens in number: signed here with the key that `sallyport token keygen` made (`token mint` costs a process each)."""
import base64
import json
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Signer:
    def __init__(self, pem_path, kid):
        with open(pem_path, "rb") as f:
            self.key = serialization.load_pem_private_key(f.read(), None)
        self.kid = kid

    def token(self, **claims):
        now = int(time.time())
        claims = {"iat": now - 5, "exp": now + 3600, "aud": "sallyport", **claims}
        head = b64u(json.dumps({"alg": "ES256", "kid": self.kid, "typ": "JWT"}).encode())
        signed = head + b"." + b64u(json.dumps({k: v for k, v in claims.items() if v is not None}).encode())
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + b64u(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def basic(token, user="sandbox"):
    """The value of Proxy-Authorization as clients make it from a proxy URL."""
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def jwk_of(pem_path, kid, alg):
    """A public JWK of a private key file, for key sets that keygen would not make."""
    with open(pem_path, "rb") as f:
        key = serialization.load_pem_private_key(f.read(), None).public_key()
    if alg.startswith("RS"):
        n = key.public_numbers()
        big = lambda x: b64u(x.to_bytes((x.bit_length() + 7) // 8, "big")).decode()
        return {"kty": "RSA", "kid": kid, "alg": alg, "use": "sig", "n": big(n.n), "e": big(n.e)}
    n, size = key.public_numbers(), (key.key_size + 7) // 8
    crv = {32: "P-256", 48: "P-384"}[size]
    return {"kty": "EC", "kid": kid, "alg": alg, "use": "sig", "crv": crv, "x": b64u(n.x.to_bytes(size, "big")).decode(),
            "y": b64u(n.y.to_bytes(size, "big")).decode()}
