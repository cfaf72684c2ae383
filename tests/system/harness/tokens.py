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
