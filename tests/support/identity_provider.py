"""Who signs tokens: key pairs, their JWKS, and tokens as an identity provider makes them, or as a forger would."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

ISSUER = "https://id.example"
Private = RSAPrivateKey | Ed25519PrivateKey


def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    """Make a pair, which takes some 50 ms."""
    return generate_private_key(public_exponent=65537, key_size=bits)


@dataclass
class Provider:
    """Signs with keys by their ids."""

    keys: dict[str, Private] = field(default_factory=lambda: {"ed": Ed25519PrivateKey.generate()})

    def jwks(self, *entries: dict[str, Any]) -> str:
        """Return all public keys, and `entries` beside them."""
        return json.dumps({"keys": [*(public(key) | {"kid": name} for name, key in self.keys.items()), *entries]})

    def token(self, key_id: str = "ed", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign claims, which are good ones but for what is given; None takes one away."""
        key = self.keys[key_id]
        algorithm = "RS256" if isinstance(key, RSAPrivateKey) else "EdDSA"
        return jwt.encode(good_claims(**claims), key, algorithm=algorithm, headers={"kid": key_id} | (headers or {}))


def good_claims(**claims: Any) -> dict[str, Any]:
    """Return claims of somebody who may do all that tokens are for, changed by `claims`."""
    now = time.time()
    found = {"iss": ISSUER, "aud": "baleen", "sub": "alice", "iat": now, "exp": now + 600, "roles": ["admin", "review"]}
    return {name: value for name, value in (found | claims).items() if value is not None}


def public(key: Private) -> dict[str, Any]:
    """Return a public key as a JWKS has it, without its id."""
    if isinstance(key, RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)


def forge(header: dict[str, Any], claims: dict[str, Any], *, secret: bytes | None = None) -> str:
    """Put a token together by hand: without a signature, or with an HMAC by a secret."""
    signed = f"{_segment(json.dumps(header).encode())}.{_segment(json.dumps(claims).encode())}"
    signature = b"" if secret is None else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_segment(signature)}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
