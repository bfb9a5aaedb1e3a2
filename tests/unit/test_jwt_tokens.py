"""Signed tokens: which keys are believed, which signatures count, and that nothing else does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from baleen_core.callers import Identity, KeyRole
from baleen_core.errors import InvalidError, Unauthenticated
from baleen_sidecar.adapters.jwt_tokens import (
    MAX_HEADER_LENGTH,
    MAX_TOKEN_LENGTH,
    EitherTokens,
    JwtTokens,
    issuer_of,
)
from baleen_sidecar.adapters.signing_keys import MAX_KEYS, SigningKeyFile, read_signing_keys
from baleen_sidecar.flow.claims import ClaimRules
from baleen_sidecar.testing import FixedTokens
from identity_provider import ISSUER, Provider, forge, good_claims, public, rsa_key

RSA = rsa_key()
PROVIDER = Provider({"ed": Ed25519PrivateKey.generate(), "rsa": RSA})
RULES = ClaimRules(issuer=ISSUER, audience="baleen")


@pytest.fixture
def tokens(tmp_path: Path) -> JwtTokens:
    path = tmp_path / "jwks.json"
    path.write_text(PROVIDER.jwks())
    keys = SigningKeyFile(path)
    keys.load()
    return JwtTokens(keys, RULES)


async def refusal(tokens: JwtTokens, token: str, role: KeyRole = KeyRole.ADMIN) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await tokens.identify(token, role)
    said = str(caught.value)
    # Nothing of it that is longer than a word.
    assert not [part for part in re.split(r"[^A-Za-z0-9_-]", token) if len(part) > 12 and part in said]
    return said


@pytest.mark.parametrize("key_id", ["ed", "rsa"])
async def test_a_token_of_the_issuer_says_who_calls(tokens: JwtTokens, key_id: str) -> None:
    found = await tokens.identify(PROVIDER.token(key_id), KeyRole.REVIEW)

    assert (found.name, found.roles) == ("alice", {KeyRole.ADMIN, KeyRole.REVIEW})


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", None])
async def test_it_may_say_that_it_is_one(tokens: JwtTokens, typ: str | None) -> None:
    assert await tokens.identify(PROVIDER.token(headers={"typ": typ}), KeyRole.ADMIN)


def public_pem() -> bytes:
    return RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def truncated(count: int) -> str:
    return PROVIDER.token("rsa")[:-count]


HEADER = {"typ": "JWT", "kid": "rsa"}
WRONG = [
    pytest.param(
        lambda: forge(HEADER | {"alg": "none"}, good_claims()), "`alg` must be one of RS256, EdDSA", id="none"
    ),
    pytest.param(lambda: forge(HEADER | {"alg": "NoNe"}, good_claims()), "`alg`", id="none, written otherwise"),
    pytest.param(lambda: forge(HEADER | {"alg": "RS256"}, good_claims()), "signature", id="no signature"),
    pytest.param(
        lambda: forge(HEADER | {"alg": "HS256"}, good_claims(), secret=public_pem()),
        "`alg`",
        id="the public key as a secret",
    ),
    pytest.param(
        lambda: forge(HEADER | {"alg": "RS256"}, good_claims(), secret=public_pem()),
        "signature",
        id="the same as RS256",
    ),
    pytest.param(
        lambda: forge(HEADER | {"alg": "EdDSA"}, good_claims()), "signature", id="the key's algorithm changed"
    ),
    pytest.param(lambda: PROVIDER.token("ed", headers={"kid": "rsa"}), "signature", id="another key's id"),
    pytest.param(lambda: PROVIDER.token(headers={"kid": "../rsa"}), "not known here", id="a key that is not there"),
    pytest.param(lambda: PROVIDER.token(headers={"kid": ""}), "must name its key", id="no key's id"),
    pytest.param(
        lambda: Provider({"ed": Ed25519PrivateKey.generate()}).token(), "signature", id="a stranger's key of that id"
    ),
    pytest.param(lambda: PROVIDER.token(headers={"crit": ["x"], "x": 1, "b64": True}), "(`crit`)", id="extensions"),
    pytest.param(
        lambda: PROVIDER.token(headers={"typ": "logout+jwt"}), "`typ` must be JWT", id="made for something else"
    ),
    pytest.param(
        lambda: PROVIDER.token(headers={"jwk": public(Ed25519PrivateKey.generate()), "kid": "new"}),
        "not known here",
        id="its own key",
    ),
    pytest.param(lambda: truncated(1), "signature", id="truncated by a letter"),
    pytest.param(lambda: truncated(300), "signature", id="truncated"),
    pytest.param(lambda: PROVIDER.token() + ".x", "signature", id="a part more"),
    pytest.param(lambda: PROVIDER.token() + "=", "signature", id="padded"),
    pytest.param(lambda: "a.b.c", "cannot be read", id="no token"),
    pytest.param(lambda: "..", "cannot be read", id="dots"),
    pytest.param(lambda: PROVIDER.token(exp=1_000_000_000), "time has passed", id="expired"),
    pytest.param(lambda: PROVIDER.token(aud="shop"), "`aud`", id="for somebody else"),
    pytest.param(
        lambda: PROVIDER.token(padding="x" * MAX_TOKEN_LENGTH), f"at most {MAX_TOKEN_LENGTH} are read", id="too long"
    ),
    pytest.param(
        lambda: PROVIDER.token(headers={"x": "y" * MAX_HEADER_LENGTH}), "the token's header has", id="a long header"
    ),
    pytest.param(lambda: forge({"alg": "RS256", "kid": 7}, {}), "cannot be read", id="a number as key"),
    pytest.param(lambda: forge(HEADER | {"alg": ["RS256"]}, {}), "cannot be read", id="a list of algorithms"),
]


@pytest.mark.parametrize(("make", "words"), WRONG)
async def test_nothing_else_is_believed_and_none_of_it_is_repeated(tokens: JwtTokens, make: Any, words: str) -> None:
    assert words in await refusal(tokens, make())


@given(at=st.integers(0, 10_000), letter=st.characters(codec="latin-1"))
async def test_a_token_with_a_letter_changed_is_none(at: int, letter: str) -> None:
    keys = read_signing_keys(PROVIDER.jwks())

    class Known:
        async def find(self, key_id: str) -> Any:
            return keys.find(key_id)

    token = PROVIDER.token("ed", sub="bob")
    place = at % len(token)
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        await refusal(JwtTokens(Known(), RULES), changed)  # type: ignore[arg-type]


async def test_content_is_not_judged_for_who_shows_a_signed_token(tokens: JwtTokens) -> None:
    said = await refusal(tokens, PROVIDER.token(roles=["moderate", "admin"]), KeyRole.MODERATE)

    assert said.endswith("show an API key")


def test_keys_for_something_else_are_passed_over() -> None:
    others = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "curve"},
        public(RSA) | {"kid": "enc", "use": "enc"},
        public(RSA) | {"kid": "pss", "alg": "PS256"},
        {"kty": "OKP", "crv": "X25519", "x": "x", "kid": "exchange"},
        public(RSA),
    ]
    keys = read_signing_keys(PROVIDER.jwks(*others))

    assert len(keys) == 2
    assert keys.find("ed")
    assert not [name for name in ("shared", "curve", "enc", "pss", "exchange", "") if keys.find(name)]


SMALL = rsa_key(1024)
SECRET: dict[str, Any] = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True) | {"kid": "mine"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "is no JWKS", id="empty"),
        pytest.param("{", "is no JWKS", id="cut off"),
        pytest.param("[" * 100_000, "is no JWKS", id="deep"),
        pytest.param('{"keys": {}}', "is no JWKS", id="no list"),
        pytest.param('{"keys": [1]}', "is no JWKS", id="a number"),
        pytest.param('{"keys": []}', "has no key with a `kid` for RS256 or EdDSA", id="none"),
        pytest.param(
            json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "a"}]}), "is no OKP", id="half"
        ),
        pytest.param(
            json.dumps({"keys": [{"kty": "RSA", "n": 1, "e": "AQAB", "kid": "a"}]}), "is no RSA", id="a number as n"
        ),
        pytest.param(json.dumps({"keys": [{"kid": "a"}]}), "keys[0]:", id="no type"),
        pytest.param(
            json.dumps({"keys": [public(SMALL) | {"kid": "a"}]}), "has 1024 bits; give a key of 2048", id="weak"
        ),
        pytest.param(json.dumps({"keys": [SECRET]}), "keys[0]: is a private key", id="private"),
        pytest.param(PROVIDER.jwks(public(RSA) | {"kid": "ed"}), "keys[2]: its `kid` is there twice", id="twice"),
        pytest.param(json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), "at most 64", id="many"),
    ],
)
def test_keys_that_are_wrong_are_named_and_not_shown(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        read_signing_keys(text)

    assert SECRET["d"] not in str(caught.value)
    path = tmp_path / "jwks.json"
    path.write_text(text)
    with pytest.raises(InvalidError) as refused:
        SigningKeyFile(path).load()
    assert [problem.field for problem in refused.value.problems] == [str(path)]


async def test_another_file_of_keys_counts_at_the_next_look(tokens: JwtTokens, tmp_path: Path) -> None:
    keys = tokens.keys
    assert isinstance(keys, SigningKeyFile)
    new = Provider({"next": Ed25519PrivateKey.generate()})
    (tmp_path / "jwks.json").write_text(new.jwks())
    keys.load()

    assert await tokens.identify(new.token("next"), KeyRole.ADMIN)
    assert "not known here" in await refusal(tokens, PROVIDER.token())


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.!.c", "a.W10.c", "x" * 20_000 + ".b.c", "ä.ö.ü"])
def test_who_made_what_is_no_token_nobody_says(token: str) -> None:
    assert issuer_of(token) == ""


async def test_a_token_is_shown_to_whoever_is_said_to_have_made_it(tokens: JwtTokens) -> None:
    account = Identity(name="shop/app", roles=frozenset({KeyRole.MODERATE}))
    of_cluster = forge({"alg": "RS256", "kid": "k"}, {"iss": "https://kubernetes.default.svc"})
    either = EitherTokens(tokens, FixedTokens({of_cluster: account}))

    assert await either.identify(of_cluster, KeyRole.MODERATE) is account
    assert (await either.identify(PROVIDER.token(), KeyRole.ADMIN)).name == "alice"
