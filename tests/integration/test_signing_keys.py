"""Keys of signed tokens from an https address: asked again in bounds, and kept for a while when it is away."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from baleen_core.errors import UpstreamError
from baleen_sidecar.adapters import signing_keys
from baleen_sidecar.adapters.signing_keys import SigningKeyAddress
from identity_provider import Provider

OLD = Provider({"old": Ed25519PrivateKey.generate()})
NEW = Provider({"old": OLD.keys["old"], "new": Ed25519PrivateKey.generate()})
GONE = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Issuer:
    """An https server that answers with what it `says`, and counts how often it was asked."""

    ca_file: Path
    url: str = ""
    says: str = field(default_factory=lambda: answer(OLD.jwks()))
    asked: int = 0
    is_slow: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        if self.is_slow:
            await reader.read()
        writer.write(self.says.encode())
        await writer.drain()
        writer.close()


def answer(body: str, status: str = "200 OK", more: str = "") -> str:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n{body}"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 and its key, in one file."""
    key = generate_ec(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("issuer") / "issuer.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + private)
    return path


@pytest.fixture
async def issuer(certificate: Path) -> AsyncIterator[Issuer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    found = Issuer(certificate)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        found.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        yield found


@asynccontextmanager
async def following(
    issuer: Issuer, clock: Callable[[], float], **more: Path | None
) -> AsyncIterator[SigningKeyAddress]:
    keys = SigningKeyAddress(issuer.url, monotonic_seconds=clock, **({"ca_file": issuer.ca_file} | more))
    try:
        yield keys
    finally:
        await keys.aclose()


async def test_a_key_that_is_new_is_found_when_a_token_names_it_and_strangers_cannot_make_it_be_asked_for_more(
    issuer: Issuer,
) -> None:
    clock = Clock()
    async with following(issuer, clock) as keys:
        assert await keys.find("old")
        found = await asyncio.gather(*(keys.find(f"stranger-{number}") for number in range(200)))
        assert (set(found), issuer.asked) == ({None}, 1)

        issuer.says = answer(NEW.jwks())
        assert await keys.find("new") is None
        clock.now += signing_keys.MISSING_SECONDS
        found = await asyncio.gather(*(keys.find("new") for _ in range(50)))

        assert (all(found), issuer.asked) == (True, 2)
        assert keys.component().healthy


@pytest.mark.parametrize(
    ("says", "words"),
    [
        pytest.param(GONE, "answered with status 503, not 200", id="away"),
        pytest.param(answer("", "302 Found", "Location: http://127.0.0.1:1/\r\n"), "status 302", id="elsewhere"),
        pytest.param(answer("<html>"), "is no JWKS", id="a page"),
        pytest.param(answer('{"keys": []}'), "has no key", id="no keys"),
        pytest.param(
            answer(" " * (signing_keys.MAX_ANSWER_BYTES + 1)), "over the limit of 262144 bytes", id="too much"
        ),
        pytest.param("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "RemoteProtocolError", id="broken off"),
        pytest.param("nonsense\r\n\r\n", "RemoteProtocolError", id="no HTTP"),
    ],
)
async def test_while_the_address_says_something_else_the_last_good_keys_count_for_a_day(
    issuer: Issuer, says: str, words: str
) -> None:
    clock = Clock()
    async with following(issuer, clock) as keys:
        await keys.find("old")
        issuer.says = says
        clock.now += signing_keys.STALE_SECONDS - 1
        assert await keys.find("new") is None
        assert await keys.find("old")
        assert not keys.component().healthy
        assert words in keys.component().detail

        clock.now += signing_keys.MISSING_SECONDS
        with pytest.raises(UpstreamError, match=r"^the keys by which tokens are checked cannot be read now$"):
            await keys.find("old")
        issuer.says = answer(OLD.jwks())
        clock.now += signing_keys.MISSING_SECONDS

        assert await keys.find("old")


async def test_whoever_others_do_not_vouch_for_is_not_believed(issuer: Issuer) -> None:
    async with following(issuer, Clock(), ca_file=None) as keys:
        with pytest.raises(UpstreamError):
            await keys.find("old")

        assert issuer.asked == 0
        assert "ConnectError" in keys.component().detail


async def test_an_address_that_says_nothing_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_keys, "FETCH_SECONDS", 0.05)
    issuer.is_slow = True
    async with following(issuer, Clock()) as keys:
        with pytest.raises(UpstreamError):
            await keys.find("old")

        assert not keys.component().healthy


async def test_keys_are_read_from_the_start_without_anybody_asking(issuer: Issuer) -> None:
    async with following(issuer, Clock()) as keys:
        watching = asyncio.create_task(keys.watch())
        async with asyncio.timeout(10):
            while not keys.component().healthy:  # noqa: ASYNC110 - it is seen by a look alone
                await asyncio.sleep(0.005)
        watching.cancel()

        assert issuer.asked == 1
        assert await keys.find("old")
