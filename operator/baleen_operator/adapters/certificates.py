"""The webhooks' certificate: kept in one Secret, seen by every replica, made anew in time, trusted before it serves.

Any replica makes it, not the leader alone: webhooks are served before anybody leads, and every write says which
version of the Secret it is about, so that of two who are at it one looks again.
"""

import asyncio
import base64
import binascii
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from baleen_core.errors import ClusterError, Stale
from baleen_operator.adapters.api import MERGE, STRATEGIC_MERGE, ApiServer, call_on
from baleen_operator.adapters.events import Events
from baleen_operator.adapters.kube import FIELD_MANAGER, decode_object
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Emit, Target
from baleen_operator.plan.certificates import BACKDATED, Life, Step, next_step
from baleen_operator.plan.conditions import write_time

logger = logging.getLogger(__name__)

SECRETS: Final = Target(group="", version="v1", plural="secrets", kind="Secret")
_GROUP: Final = "admissionregistration.k8s.io"
CONFIGURATIONS: Final = tuple(
    Target(group=_GROUP, version="v1", plural=f"{kind.lower()}s", kind=kind)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
)
CONFIGURATION_NAME: Final = "baleen"
"""Of both; the operator's role names it."""
LONGEST_LOOK_SECONDS: Final = 10.0
LONGEST_SETTLE_SECONDS: Final = 60.0
"""Each of several API servers hears of a changed configuration by its own watch."""
AGAIN_SECONDS: Final = 0.2
MAX_AUTHORITIES: Final = 3

OffLoop = Callable[[Callable[[], Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate that fits its key and names us, both as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    life: Life


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRules:
    """Where the certificate is kept, what it must be good for, and, where we make it ourselves, for how long."""

    namespace: str
    secret: str
    names: tuple[str, ...]
    lifetime: timedelta | None

    @property
    def look_seconds(self) -> float:
        """How often the Secret is looked at."""
        return LONGEST_LOOK_SECONDS if self.lifetime is None else min(LONGEST_LOOK_SECONDS, self._share(20))

    @property
    def settle_seconds(self) -> float:
        """How long API servers are given to hear of an authority before its certificate serves."""
        return 0.0 if self.lifetime is None else min(LONGEST_SETTLE_SECONDS, self._share(20))

    def _share(self, parts: int) -> float:
        assert self.lifetime is not None
        return self.lifetime.total_seconds() / parts


class Certificates:
    """Looks after the certificate; `context` serves the newest one, also to connections that come later.

    `looked` is set once it was looked at, whatever came of it.
    """

    def __init__(
        self,
        api: ApiServer,
        rules: CertificateRules,
        events: Events,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        off_loop: OffLoop,
    ) -> None:
        self._api = api
        self._rules = rules
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._off_loop = off_loop
        self._data: dict[str, bytes] = {}
        self._loaded: Pair | None = None
        self._trusted: tuple[bytes, float] = (b"", 0.0)
        self._trouble = "it was not read yet"
        self.looked = asyncio.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def state(self) -> str:
        """Say how the certificate is, for people."""
        if self._loaded is None:
            return f"there is none: {self._trouble}"
        end = write_time(self._loaded.life.end)
        if not self._loaded.life.is_valid(self._clock()):
            return f"expired at {end}" + (f": {self._trouble}" if self._trouble else "")
        return f"good until {end}" + (f"; {self._trouble}" if self._trouble else "")

    async def run(self) -> None:
        """Look after it until cancelled."""
        said = ""
        while True:
            seconds = self._rules.look_seconds
            try:
                await self._look()
                self._trouble = ""
            except Stale:
                # Another replica was at it, or the Secret changed for another reason.
                seconds = AGAIN_SECONDS
            except (ClusterError, ValueError) as exc:
                self._trouble = str(exc)
            except Exception as exc:
                logger.error("looking after the webhooks' certificate failed", exc_info=exc)
                self._trouble = type(exc).__name__
            if self._trouble != said:
                said = self._trouble
                if said:
                    logger.warning("the webhooks' certificate", extra={"problem": said})
            self.looked.set()
            self._metrics.certificate_expiry.set(self._loaded.life.end.timestamp() if self._loaded else 0)
            await asyncio.sleep(seconds)

    async def _look(self) -> None:
        secret = await self._read(SECRETS, self._rules.namespace, self._rules.secret)
        if self._rules.lifetime is None:
            self._load_provided(secret)
            return
        secret, data = await self._bring_up_to_date(secret)
        await self._have_trusted(data["ca.crt"])
        pair = self._pair(data, "tls")
        assert isinstance(pair, Pair), "what was just made or found good"
        self._data = data
        self._load(pair)

    def _load_provided(self, secret: Mapping[str, Any] | None) -> None:
        where = f"Secret {self._rules.secret} in namespace {self._rules.namespace}"
        if secret is None:
            raise ValueError(f"{where} is missing")
        pair = self._pair(_data_of(secret), "tls")
        if isinstance(pair, str):
            raise ValueError(f"{where}: {pair}")
        self._load(pair)
        if not pair.life.is_valid(self._clock()):
            message = f"{where}: the webhooks' certificate expired at {write_time(pair.life.end)}"
            self._tell(secret, "CertificateExpired", f"{message}; whoever provides it must renew it", is_warning=True)
            raise ValueError("whoever provides it must renew it")

    async def _bring_up_to_date(self, secret: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], dict[str, bytes]]:
        """Do what comes next, and return the Secret as it is then."""
        data = _data_of(secret) if secret is not None else self._data
        serving, following = self._pair(data, "tls"), self._pair(data, "next")
        now = self._clock()
        step = next_step(
            serving.life if isinstance(serving, Pair) else None,
            following.life if isinstance(following, Pair) else None,
            now=now,
            is_trusted=self._is_settled(data.get("ca.crt", b"")),
        )
        match step:
            case Step.KEEP if secret is not None:
                return secret, data
            case Step.KEEP:
                changed = data
            case Step.PROMOTE:
                changed = {"tls.crt": data["next.crt"], "tls.key": data["next.key"], "next.crt": b"", "next.key": b""}
            case Step.REPLACE | Step.PREPARE:
                made = await self._off_loop(lambda: self._make(now))
                where = "tls" if step is Step.REPLACE else "next"
                bundle = _bundle(made.authority, data.get("ca.crt", b""), now)
                changed = {f"{where}.crt": made.certificate, f"{where}.key": made.key, "ca.crt": bundle}
        written = await self._write(secret, changed if secret is not None else {**data, **changed})
        self._say_step(step, written, serving)
        return written, _data_of(written)

    def _say_step(self, step: Step, secret: Mapping[str, Any], before: Pair | str) -> None:
        logger.info("the webhooks' certificate was renewed", extra={"step": step.value})
        if step is Step.REPLACE and isinstance(before, Pair):
            message = f"the webhooks' certificate had expired at {write_time(before.life.end)}, and was replaced"
            self._tell(secret, "CertificateExpired", message, is_warning=True)
        elif step in (Step.REPLACE, Step.PROMOTE):
            self._tell(secret, "CertificateRenewed", "the webhooks have a new certificate", is_warning=False)

    def _tell(self, secret: Mapping[str, Any], reason: str, message: str, *, is_warning: bool) -> None:
        self._events.emit(
            Emit(
                target=SECRETS,
                namespace=self._rules.namespace,
                name=self._rules.secret,
                uid=str(secret["metadata"].get("uid", "")),
                type="Warning" if is_warning else "Normal",
                reason=reason,
                message=message,
            )
        )

    def _pair(self, data: Mapping[str, bytes], prefix: str) -> Pair | str:
        """Return a pair of the Secret, or why it is none; that it expired is no reason."""
        try:
            pair = read_pair(data.get(f"{prefix}.crt", b""), data.get(f"{prefix}.key", b""), self._rules.names)
            if self._rules.lifetime is not None:
                _check_signed(pair.certificate, data.get("ca.crt", b""))
        except (ValueError, UnsupportedAlgorithm) as exc:
            return f"{prefix}.crt and {prefix}.key are no certificate for {', '.join(self._rules.names)}: {exc}"
        return pair

    def _make(self, now: datetime) -> "Made":
        assert self._rules.lifetime is not None
        return make_pair(self._rules.names, now, self._rules.lifetime)

    def _load(self, pair: Pair) -> None:
        if self._loaded is not None and self._loaded.certificate == pair.certificate:
            return
        with _as_file(pair.certificate) as certificate, _as_file(pair.key) as key:
            self.context.load_cert_chain(certificate, key)
        self._loaded = pair
        logger.info("the webhooks' certificate is served", extra={"until": write_time(pair.life.end)})

    # Whom API servers trust

    async def _have_trusted(self, bundle: bytes) -> None:
        """Have both configurations name these authorities; one that is not there is of no interest."""
        for target in CONFIGURATIONS:
            found = await self._read(target, "", CONFIGURATION_NAME)
            webhooks = [each["name"] for each in (found or {}).get("webhooks") or () if _trusts(each) != bundle]
            if not webhooks or found is None:
                continue
            encoded = base64.b64encode(bundle).decode()
            body = {
                "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
                "webhooks": [{"name": name, "clientConfig": {"caBundle": encoded}} for name in webhooks],
            }
            call = call_on(target, "patch", "", CONFIGURATION_NAME)
            await self._api.request(
                call, query={"fieldManager": FIELD_MANAGER}, body=body, content_type=STRATEGIC_MERGE
            )
            logger.info("API servers are told whom to trust", extra={"configuration": target.kind})
            self._trusted = (b"", 0.0)
        if self._trusted[0] != bundle:
            self._trusted = (bundle, time.monotonic())

    def _is_settled(self, bundle: bytes) -> bool:
        trusted, since = self._trusted
        return trusted == bundle and time.monotonic() - since >= self._rules.settle_seconds

    # The API server

    async def _read(self, target: Target, namespace: str, name: str) -> Mapping[str, Any] | None:
        data = await self._api.request(call_on(target, "get", namespace, name))
        return None if data is None else decode_object(data)

    async def _write(self, secret: Mapping[str, Any] | None, changed: Mapping[str, bytes]) -> Mapping[str, Any]:
        namespace, name = self._rules.namespace, self._rules.secret
        data = {key: base64.b64encode(value).decode() if value else None for key, value in changed.items()}
        query = {"fieldManager": FIELD_MANAGER}
        if secret is None:
            call = call_on(SECRETS, "create", namespace)
            there = {key: value for key, value in data.items() if value is not None}
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": there}
            written = await self._api.request(call, query=query, body=body)
            if written is None:
                raise ClusterError(f"{call}: there is no such namespace")
        else:
            call = call_on(SECRETS, "patch", namespace, name)
            body = {"metadata": {"resourceVersion": secret["metadata"]["resourceVersion"]}, "data": data}
            written = await self._api.request(call, query=query, body=body, content_type=MERGE)
            if written is None:
                raise Stale(f"{call}: it is not there any more")
        return decode_object(written)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new pair, and the authority that signed it and can sign nothing else: its key is gone."""

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes


def make_pair(names: Sequence[str], now: datetime, lifetime: timedelta) -> Made:
    """Make a certificate for these host names or IP addresses, by an authority made for it alone."""
    begin, end = now - BACKDATED, now + lifetime
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: several are trusted at once.
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"baleen-webhook-ca-{serial:040x}")])
    authority = (
        x509.CertificateBuilder(authority_name, authority_name, authority_key.public_key(), serial, begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        x509.CertificateBuilder(
            authority_name,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "baleen-webhook")]),
            key.public_key(),
            x509.random_serial_number(),
            begin,
            end,
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return Made(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        authority=authority.public_bytes(serialization.Encoding.PEM),
    )


def read_pair(certificate: bytes, key: bytes, names: Sequence[str]) -> Pair:
    """Read a certificate with its key.

    Raises:
        ValueError: they are not of each other, or not for all of these names.
    """
    if not certificate or not key:
        raise ValueError("they are not there")
    read = x509.load_pem_x509_certificates(certificate)[0]
    private = serialization.load_pem_private_key(key, password=None)
    if _public_bytes(private.public_key()) != _public_bytes(read.public_key()):
        raise ValueError("the key is that of another certificate")
    try:
        extension = read.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise ValueError("it names no host") from None
    missing = [name for name in names if _general_name(name) not in extension.value]
    if missing:
        raise ValueError(f"it does not name {', '.join(missing)}")
    life = Life(begin=read.not_valid_before_utc, end=read.not_valid_after_utc)
    return Pair(certificate=certificate, key=key, life=life)


def _check_signed(certificate: bytes, bundle: bytes) -> None:
    read = x509.load_pem_x509_certificate(certificate)
    for authority in x509.load_pem_x509_certificates(bundle) if bundle else ():
        try:
            read.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise ValueError("none of the authorities in ca.crt signed it")


def _bundle(first: bytes, others: bytes, now: datetime) -> bytes:
    """Return the newest authority, and those before it that still count."""
    try:
        before = x509.load_pem_x509_certificates(others) if others else []
    except ValueError:
        before = []
    valid = [each.public_bytes(serialization.Encoding.PEM) for each in before if each.not_valid_after_utc > now]
    return b"".join([first, *valid][:MAX_AUTHORITIES])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _public_bytes(key: Any) -> bytes:
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _data_of(secret: Mapping[str, Any]) -> dict[str, bytes]:
    found = {}
    for name, value in (secret.get("data") or {}).items():
        try:
            found[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError):
            continue
    return found


def _trusts(webhook: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(webhook.get("clientConfig", {}).get("caBundle") or "", validate=True)
    except (binascii.Error, TypeError):
        return b""


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Give bytes the name of a file in memory: a key is never on a disk, and TLS contexts read files only."""
    number = os.memfd_create("baleen")
    try:
        os.write(number, data)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
