#!/usr/bin/env python3
"""Makes tokens of recipes: build_jwt.py KEYDIR RECIPES.jsonl OUTDIR

Writes OUTDIR/ID.tok for each recipe of kind "token" and OUTDIR/index.json with what is expected. KEYDIR gets the test
keys on first use (PEM), NAME.jwks.json for the verifier of each algorithm, and keeps them. Needs python3-cryptography.

A recipe is one JSON object a line:
  verifier    ES256, RS256, HS256, ...: the algorithm of the gate's key (and of the token, unless sign says otherwise)
  header      members to change in {"alg", "typ", "kid"}; header_raw: the header's text instead
  claims      members to change in the usual claims; claims_raw: their text instead
  sign        {"alg", "key", "opt"}: how the signature is made; opt is one of der, flip-s, r0, rs0, r=n
  post        what is done to the finished token, in order: "NAME" or ["NAME", ARGUMENT]
Values: {"$t": N} is now + N seconds ("$as": "string" or "float"), {"$rep": [TEXT, N]} repeats, {"$nest": N} nests arrays,
{"$del": 1} removes the member. Raw texts are latin-1 and may hold ${NOW+N} and ${REP:TEXT:N}.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import sys
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
USUAL_CLAIMS = {
    "iss": "egress-control.test", "aud": "egress-proxy", "sub": "sb-1", "jti": "t-0001",
    "iat": {"$t": -60}, "nbf": {"$t": -60}, "exp": {"$t": 3600},
}
ASYMMETRIC = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p256-evil": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-evil": lambda: rsa.generate_private_key(65537, 2048),
    "ed": ed25519.Ed25519PrivateKey.generate,
}
SECRETS = {"hs32": b"k" * 32, "hsevil": b"e" * 32, "empty": b"", "nul": b"\0", "one": b"s", "secret": b"secret"}
VERIFIERS = {"ES256": "p256", "ES384": "p384", "RS256": "rsa", "EdDSA": "ed", "HS256": "hs32"}
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def unb64(text):
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


# -- keys --

def write(path, data, mode):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as f:
        f.write(data)


def load_or_make(folder, name, make):
    path = os.path.join(folder, name + ".key")
    if not os.path.exists(path):
        write(path, make().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                         serialization.NoEncryption()), 0o600)
    with open(path, "rb") as f:
        return serialization.load_pem_private_key(f.read(), None)


def load_keys(folder):
    """Private keys by name, secrets by name, and public halves as the bytes that a confused verifier would take for a secret."""
    os.makedirs(folder, exist_ok=True)
    keys = dict(SECRETS)
    for name, make in ASYMMETRIC.items():
        key = keys[name] = load_or_make(folder, name, make)
        public = key.public_key()
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        keys[name + ".pub"] = public.public_bytes(serialization.Encoding.PEM, spki)
        keys[name + ".pub.der"] = public.public_bytes(serialization.Encoding.DER, spki)
        write(os.path.join(folder, name + ".pub"), keys[name + ".pub"], 0o644)
    keys["rsa.pub.pkcs1"] = keys["rsa"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    return keys


def number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big")).decode()


def to_jwk(key, alg):
    if isinstance(key, bytes):
        return {"kty": "oct", "kid": "k1", "alg": alg, "k": b64(key).decode()}
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "alg": alg, "x": b64(raw).decode()}
    n = public.public_numbers()
    if isinstance(public, rsa.RSAPublicKey):
        return {"kty": "RSA", "kid": "k1", "alg": alg, "n": number(n.n), "e": number(n.e)}
    size = key.key_size // 8
    return {"kty": "EC", "crv": f"P-{key.key_size}", "kid": "k1", "alg": alg, "x": number(n.x, size), "y": number(n.y, size)}


def write_key_sets(folder, keys):
    for alg, name in VERIFIERS.items():
        text = json.dumps({"keys": [to_jwk(keys[name], alg)]}, indent=1).encode()
        write(os.path.join(folder, alg + ".jwks.json"), text, 0o600 if alg == "HS256" else 0o644)


# -- header and claims --

def fill(value, now):
    """Replaces {"$t"}, {"$rep"} and {"$nest"} objects by what they stand for."""
    if isinstance(value, list):
        return [fill(v, now) for v in value]
    if not isinstance(value, dict):
        return value
    if "$t" in value:
        moment = now + value["$t"]
        return {"string": str(moment), "float": moment + 0.5}.get(value.get("$as"), moment)
    if "$rep" in value:
        return value["$rep"][0] * value["$rep"][1]
    return {k: fill(v, now) for k, v in value.items()}


def to_text(members):
    """Compact JSON; nested arrays are written by hand, since no encoder goes as deep."""
    parts = []
    for name, value in members.items():
        if isinstance(value, dict) and "$nest" in value:
            text = "[" * value["$nest"] + "1" + "]" * value["$nest"]
        else:
            text = json.dumps(value, separators=(",", ":"))
        parts.append(json.dumps(name) + ":" + text)
    return ("{" + ",".join(parts) + "}").encode()


def raw_text(text, now):
    text = re.sub(r"\$\{NOW([+-]\d+)\}", lambda m: str(now + int(m[1])), text)
    text = re.sub(r"\$\{REP:(.*?):(\d+)\}", lambda m: m[1] * int(m[2]), text)
    return text.encode("latin-1")


def part(recipe, name, usual, now):
    if name + "_raw" in recipe:
        return raw_text(recipe[name + "_raw"], now)
    members = {**usual, **recipe.get(name, {})}
    return to_text({k: fill(v, now) for k, v in members.items() if v != {"$del": 1}})


# -- signatures --

def sign_ecdsa(key, data, digest, opt):
    der = key.sign(data, ec.ECDSA(digest))
    if opt == "der":
        return der
    r, s = decode_dss_signature(der)
    if opt == "flip-s":
        s = P256_ORDER - s
    elif opt == "r0":
        r = 0
    elif opt == "rs0":
        r = s = 0
    elif opt == "r=n":
        r = P256_ORDER
    size = (key.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def sign(data, alg, key, opt):
    bits = alg[-3:] if alg[-3:] in ("256", "384", "512") else "256"
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[bits]
    family = alg[:2]
    if alg == "none":
        return b""
    if family == "HS":
        return hmac.new(key, data, getattr(hashlib, "sha" + bits)).digest()
    if family == "RS":
        return key.sign(data, padding.PKCS1v15(), digest)
    if family == "PS":
        return key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    if alg == "EdDSA":
        return key.sign(data)
    return sign_ecdsa(key, data, digest, opt)


# -- what is done to a finished token --

def change_signature(token, change):
    head, claims, signature = token.split(b".")
    return b".".join([head, claims, change(signature)])


def flip_bit(signature):
    data = bytearray(unb64(signature))
    data[len(data) // 2] ^= 1
    return b64(bytes(data))


def last_not_canonical(token, _):
    at = ALPHABET.index(token[-1:])
    return token[:-1] + ALPHABET[at ^ 1:(at ^ 1) + 1]


def swap(index):
    def do(token, text):
        parts = token.split(b".")
        parts[index] = b64(raw_text(text, int(time.time())))
        return b".".join(parts)
    return do


def pad(text):
    return text + b"=" * (-len(text) % 4)


POST = {
    "append": lambda t, a: t + a.encode("latin-1"),
    "prepend": lambda t, a: a.encode("latin-1") + t,
    "drop_sig": lambda t, _: change_signature(t, lambda s: b""),
    "two_parts": lambda t, _: b".".join(t.split(b".")[:2]),
    "one_part": lambda t, _: t.split(b".")[0],
    "truncate_sig": lambda t, a: t[:-a],
    "flip_sig_bit": lambda t, _: change_signature(t, flip_bit),
    "sig_extra": lambda t, a: change_signature(t, lambda s: b64(unb64(s) + a.encode("latin-1"))),
    "noncanon_last": last_not_canonical,
    "sig_std_alphabet": lambda t, _: change_signature(t, lambda s: s.replace(b"-", b"+").replace(b"_", b"/")),
    "insert_sig": lambda t, a: t[:-10] + a.encode("latin-1") + t[-10:],
    "pad_parts": lambda t, _: b".".join(pad(p) for p in t.split(b".")),
    "pad_header": lambda t, _: b".".join([pad(t.split(b".")[0])] + t.split(b".")[1:]),
    "swap_claims": swap(1),
    "swap_header": swap(0),
    "replace": lambda t, a: a.encode("latin-1"),
    "percent_dots": lambda t, _: t.replace(b".", b"%2E"),
    "double": lambda t, a: t + a.encode("latin-1") + t,
    "repeat_to": lambda t, a: t + b"A" * (a - len(t)),
}


def finish(token, steps):
    for step in steps:
        name, argument = step if isinstance(step, list) else (step, None)
        token = POST[name](token, argument)
    return token


def build(recipe, keys, now):
    how = recipe.get("sign", {})
    alg = how.get("alg", recipe.get("verifier", "ES256"))
    usual_key = {"H": "hs32", "R": "rsa", "P": "rsa"}.get(alg[0], {"EdDSA": "ed", "ES384": "p384"}.get(alg, "p256"))
    header = part(recipe, "header", {"alg": alg, "typ": "JWT", "kid": "k1"}, now)
    claims = part(recipe, "claims", USUAL_CLAIMS, now)
    data = b64(header) + b"." + b64(claims)
    signature = b64(sign(data, alg, keys[how.get("key", usual_key)], how.get("opt")))
    token = data + b"." + signature
    # Of a signature in the standard alphabet something must show: sign again until it does (ECDSA is randomised).
    while "sig_std_alphabet" in recipe.get("post", []) and not re.search(rb"[-_]", token.split(b".")[2]):
        token = data + b"." + b64(sign(data, alg, keys[how.get("key", usual_key)], how.get("opt")))
    return finish(token, recipe.get("post", []))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    folder, recipes, out = sys.argv[1:]
    keys = load_keys(folder)
    write_key_sets(folder, keys)
    os.makedirs(out, exist_ok=True)
    index = []
    with open(recipes) as f:
        for line in f:
            recipe = json.loads(line)
            if recipe.get("kind", "token") != "token":
                continue
            write(os.path.join(out, recipe["id"] + ".tok"), build(recipe, keys, int(time.time())), 0o644)
            index.append({k: recipe[k] for k in ("id", "verifier", "expect", "reason") if k in recipe})
    with open(os.path.join(out, "index.json"), "w") as f:
        json.dump(index, f, indent=1)


if __name__ == "__main__":
    main()
