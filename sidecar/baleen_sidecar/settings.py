"""Everything that an installation can set; only `baleen serve` and `__main__` read the environment."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from baleen_core.environment import (
    Readers,
    json_reader,
    read_days,
    read_level,
    read_names,
    read_pause,
    read_port,
    read_positive,
    read_seconds,
    read_switch,
    read_tenants,
    read_url,
    read_variables,
)
from baleen_core.errors import InvalidError, Problem
from baleen_core.policy.parse import exact_source, place
from baleen_core.reading import name
from baleen_core.records import Durability as Durability
from baleen_sidecar.flow.governor import Bounds, GovernorRules
from baleen_sidecar.flow.translation import OPENAI, Translation

_ATTRIBUTE: Final = re.compile("[A-Z][A-Z0-9_]{0,62}")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX = "BALEEN_"
BACKUP_PREFIX: Final = "BALEEN_BACKUP_"
MAX_FAILURES: Final = 1000
MAX_OF_GRPC: Final = 2**31 - 1
"""The highest number that an option of gRPC can have."""
JSON_OVERHEAD_BYTES: Final = 64 * 1024
"""What a JSON request may have around its content."""
ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where every pod finds the token of its ServiceAccount, and who vouches for the API server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The defaults suit one node; each field is set by `BALEEN_<FIELD>` in upper case."""

    host: str = "127.0.0.1"
    """The address to listen on; one beyond loopback needs API keys, or tokens."""
    port: int = 8080
    """The port of everything; 0 takes a free one."""
    api_keys_file: Path | None = None
    """The file of API keys, read again when it changes. With it every caller needs a key; empty: none, on loopback."""
    policies: Path = Path("policies")
    """The folder of policies, lists and overrides."""
    models: Path = Path("models")
    """The folder of ModelDeployments."""
    state: Path = Path(".state")
    """The folder of the decision log and the last good policies; one process at a time."""
    database_url_file: Path | None = None
    """The file of a PostgreSQL URL, where decisions are kept instead of in the state folder; empty: in the folder."""
    durability: Durability = Durability.FSYNC
    """What a decision waits for before it is answered."""
    retention_decisions_days: int = 0
    """How many days a decision is kept where no policy that judged it says it; 0: for ever."""
    text_limit_bytes: int = 256 * 1024
    """The longest text, in bytes of UTF-8."""
    text_limit_windows: int = 64
    """The most windows of tokens that a text is judged in; beyond, it goes to review as TextTooLong."""
    image_limit_bytes: int = 20 * 1024 * 1024
    """The largest image file."""
    image_limit_pixels: int = 50_000_000
    """The largest image, width times height."""
    video_limit_bytes: int = 100 * 1024 * 1024
    """The largest video that is judged at once."""
    video_limit_seconds: int = 60
    """The longest video that is judged at once."""
    fetch_timeout_seconds: float = 5.0
    """The time to read content from an address, redirects included."""
    fetch_limit_redirects: int = 3
    """How many redirects are followed; each is checked as the first address is."""
    allowed_private_networks: tuple[Network, ...] = ()
    """Private networks that content may be read from (comma-separated CIDRs); none by default."""
    model_timeout_seconds: float = 20.0
    """How long one call to a model may take before it counts as failed."""
    deadline_seconds: float = 60.0
    """How long a caller may wait when it names no deadline of its own."""
    verify_interval_seconds: float = 30.0
    """How often each model must give its golden answers again."""
    default_tenant: str | None = None
    """The tenant of requests that name none; empty: none."""
    default_surface: str | None = None
    """The surface of requests that name none; empty: none."""
    default_source: str | None = None
    """The source of requests that name none; empty: none."""
    quotas_file: Path | None = None
    """The file of quotas, read again when it changes; empty: there are none."""
    redis_url_file: Path | None = None
    """The file of the URL of a Redis in which replicas share scores and quotas; empty: each has its own alone."""
    governor: bool = True
    """Whether less is let in while CPU or memory is short; `false`: never."""
    governor_cpu_percent: float = 70.0
    """From so much CPU on, of what may be used, the throttle level goes up."""
    governor_cpu_shed_percent: float = 90.0
    """From so much CPU on, only what is critical is let in."""
    governor_memory_percent: float = 75.0
    """From so much memory on, of what may be used, the throttle level goes up."""
    governor_memory_shed_percent: float = 95.0
    """From so much memory on, only what is critical is let in."""
    jwt_keys: str = ""
    """The public keys (JWKS) by which JWTs of callers are checked: a file, or an https:// address; empty: no JWTs."""
    jwt_ca_file: Path | None = None
    """The certificates that vouch for that address; empty: the system's."""
    jwt_issuer: str = ""
    """Who must have made a JWT (`iss`)."""
    jwt_audience: str = "baleen"
    """For whom it must be (`aud`)."""
    jwt_roles_claim: str = "roles"
    """The claim, or its path such as `realm_access.roles`, with the roles `review` and `admin`; all else is ignored."""
    jwt_tenant_claim: str = ""
    """The claim with the one tenant that a JWT may speak for, `*` for all of them; empty: every JWT may for all."""
    jwt_leeway_seconds: float = 30.0
    """By how much clocks may differ, at most 60."""
    source_failure_threshold: int = 5
    """After so many pieces of media in a row that cannot be read, a source's are refused for a while; 0: never."""
    connection_limit: int = 10_000
    """The most open connections of the HTTP port; no more than the process may have files."""
    connection_limit_per_key: int = 2_000
    """The most open connections whose last request came with the same API key."""
    connection_limit_per_address: int = 1_000
    """The most open connections of one address on which no API key was shown yet."""
    idle_seconds: float = 75.0
    """How long a connection stays open on which nothing is asked."""
    body_memory_bytes: int = 256 * 1024 * 1024
    """The most memory for the bodies of all requests that are not answered."""
    batch_limit: int = 100
    """The most items of a batch, and the most inputs of a request in OpenAI's shape."""
    batch_limit_bytes: int = 32 * 1024 * 1024
    """The largest body of a batch, or of a request in OpenAI's shape."""
    batch_timeout_seconds: float = 300.0
    """How long the caller of a batch may wait when it names no deadline of its own."""
    openai_categories: Translation = field(default_factory=dict)
    """Categories of policies by OpenAI's, as JSON; one that is not named stands for the documented ones."""
    perspective_attributes: Translation = field(default_factory=dict)
    """Categories of policies by Perspective's attributes, as JSON; others can be added, or taken away by []."""
    rescan_limit_bytes: int = 256 * 1024 * 1024
    """How much content is kept for a second look (`onModelFailure: AllowAndRescan`); beyond, it goes to review."""
    rescan_days: int = 7
    """After how many days a second look is concluded without the models that are missing still: by review."""
    cache_enabled: bool = True
    """Whether scores that models gave are remembered; decisions never are."""
    cache_ttl_seconds: float = 3600.0
    """How long scores are remembered at most."""
    cache_limit_bytes: int = 32 * 1024 * 1024
    """How much memory remembered scores may take in this process."""
    cache_tenant_percent: int = 50
    """How much of that a tenant may fill, in percent."""
    cache_by_tenant: bool = False
    """Whether each tenant's scores are remembered for itself alone, so that none can tell what others have sent."""
    cache_redis_timeout_seconds: float = 0.05
    """How long Redis may take to say what it remembers before models are asked instead."""
    batches_in_flight: int = 2
    """How many batches may be under way at each instance of a model; what comes meanwhile waits, and goes together."""
    batch_queue_rows: int = 1024
    """How many rows (windows of text, pictures) may wait for a model, and as many frames; beyond, some are refused."""
    batch_queue_bytes: int = 256 * 1024 * 1024
    """How many bytes of rows may wait for a model, and as many of frames."""
    source_offline_seconds: float = 90.0
    """How long a source may send nothing before it counts as offline."""
    otlp_endpoint: str = ""
    """Where traces are sent by OTLP over HTTP, such as `http://collector:4318`; empty: nowhere, and none are made."""
    grpc_port: int | None = None
    """The port of gRPC, at the address of the HTTP port; 0 takes a free one; empty: none."""
    grpc_message_limit_bytes: int = 32 * 1024 * 1024
    """The largest message over gRPC; larger videos are read from an address, or sent over HTTP."""
    grpc_call_limit: int = 1_000
    """The most calls over gRPC at a time; a stream is one. Health checks and reflection have limits of their own."""
    grpc_connection_limit: int = 1_000
    """The most open connections of the gRPC port."""
    stream_window: int = 16
    """How many messages of a stream are read that are not answered yet; then it waits."""
    stream_message_limit_bytes: int = 32 * 1024 * 1024
    """The largest message of a stream over WebSocket; larger videos are read from an address, or sent by themselves."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read `BALEEN_*` variables.

        Raises:
            InvalidError: a variable that is not a setting, or a value that is not of its kind; all of them at once.
        """
        values, problems = read_variables(env, PREFIX, _READERS, FOREIGN)
        settings = cls(**values)
        problems += (*settings.conflicts(), *settings.governor_conflicts())
        if problems:
            raise InvalidError(problems)
        return settings

    def governor_rules(self) -> GovernorRules:
        """Return from where on less is let in."""
        return GovernorRules(
            cpu=Bounds(raised=self.governor_cpu_percent, shed=self.governor_cpu_shed_percent),
            memory=Bounds(raised=self.governor_memory_percent, shed=self.governor_memory_shed_percent),
        )

    def governor_conflicts(self) -> tuple[Problem, ...]:
        """Say which bounds of the governor are not in order."""
        pairs = (
            ("CPU", self.governor_cpu_percent, self.governor_cpu_shed_percent),
            ("MEMORY", self.governor_memory_percent, self.governor_memory_shed_percent),
        )
        return tuple(
            Problem(
                field=f"{PREFIX}GOVERNOR_{name}_SHED_PERCENT",
                message=f"is {shed:g}, and must be above {PREFIX}GOVERNOR_{name}_PERCENT, which is {raised:g}",
            )
            for name, raised, shed in pairs
            if shed <= raised
        )

    def conflicts(self, *, has_accounts: bool = False) -> tuple[Problem, ...]:
        """Say what cannot be, though each value is of its kind; `has_accounts`: ServiceAccounts may call, too."""
        problems = [
            Problem(field=f"{PREFIX}JWT_{name}", message=f"is empty; with {PREFIX}JWT_KEYS it says {what}")
            for name, said, what in (
                ("ISSUER", self.jwt_issuer, "who must have made a token (`iss`)"),
                ("AUDIENCE", self.jwt_audience, "for whom a token must be (`aud`)"),
                ("ROLES_CLAIM", self.jwt_roles_claim, "which claim has the roles"),
            )
            if self.jwt_keys and not said
        ]
        if not (is_loopback(self.host) or self.api_keys_file is not None or self.jwt_keys or has_accounts):
            message = (
                f"{self.host} is not loopback; without API keys only 127.0.0.1 or ::1 is served: "
                f"make some with `baleen keys create`, and set {PREFIX}API_KEYS_FILE"
            )
            problems.append(Problem(field=PREFIX + "HOST", message=message))
        if self.body_memory_bytes < self.largest_body_bytes:
            message = (
                f"{self.body_memory_bytes} is less than one body may have, {self.largest_body_bytes}: "
                "allow more, or smaller images and videos"
            )
            problems.append(Problem(field=PREFIX + "BODY_MEMORY_BYTES", message=message))
        return tuple(problems)

    @property
    def largest_body_bytes(self) -> int:
        """The most that one request may bring: the largest medium in base64, with something around it."""
        return max(self.text_limit_bytes, self.image_limit_bytes, self.video_limit_bytes) * 4 // 3 + JSON_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """What a gateway, or a sidecar that follows one, can set beside `Settings`; also by `BALEEN_<FIELD>`."""

    gateway_url: str = ""
    """The gateway to follow, as an injected sidecar does. Empty: this is a gateway, and follows the API server."""
    gateway_token_file: Path = Path("/var/run/secrets/baleen/token")
    """The file of a ServiceAccount's token for the audience `baleen-gateway`, read again each time."""
    gateway_ca_file: Path | None = None
    """The certificates that vouch for the gateway; empty: the system's."""
    spool_limit_bytes: int = 256 * 1024 * 1024
    """How many bytes of decisions a sidecar that follows keeps; what the gateway does not have yet is never dropped."""
    kubernetes_url: str = ""
    """Where the API server is; empty: where the environment of every pod says."""
    kubernetes_token_file: Path = ACCOUNT_FOLDER / "token"
    """The file of our token for the API server, read again each time."""
    kubernetes_ca_file: Path = ACCOUNT_FOLDER / "ca.crt"
    """The certificates that vouch for the API server."""
    namespaces: tuple[str, ...] = ()
    """The namespaces (comma-separated) whose policies and models are served; empty: all of them."""
    tenants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """As for the operator: the tenants whose policies the sidecars of each namespace get; empty: any."""
    model_files: Path = Path("models")
    """The folder of recipes' assets and golden files; shipped golden files are found without it."""
    metrics_port: int | None = None
    """A port that has `/metrics` and nothing else, at the address of the HTTP port; 0 takes a free one; empty: none."""
    stream_host: str = "0.0.0.0"  # noqa: S104 - sidecars come from other pods, and each request has a token
    """The address that a gateway's policy stream listens on."""
    stream_port: int = 8081
    """Its port; 0 takes a free one."""
    stream_address: str = ""
    """Where sidecars reach the stream of this very replica, such as http://10.244.0.7:8081; empty: as they came."""
    operators: tuple[str, ...] = ("baleen-system/baleen-operator",)
    """The ServiceAccounts (comma-separated, namespace/name) that may ask a gateway for convergence and backtests."""
    backup_accounts: tuple[str, ...] = ()
    """The ServiceAccounts (comma-separated, namespace/name) that may have a copy of a gateway's whole state."""
    drain_seconds: float = 0.0
    """How long, once told to end, callers are still answered and asked to connect anew elsewhere; 0: not at all."""
    replica: str = ""
    """How this process is called in a policy's convergence; empty: the host's name, which is the pod's."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    accounts_file: Path | None = None
    """The file of ServiceAccounts that may call a gateway, read again when it changes; empty: none may."""
    accounts_audience: str = "baleen"
    """The audience that their tokens must be for."""

    @property
    def is_gateway(self) -> bool:
        return not self.gateway_url

    def metrics_ports(self) -> tuple[int, ...]:
        """Return the ports, of which there is one or none, that have metrics alone."""
        return () if self.metrics_port is None else (self.metrics_port,)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> tuple[Settings, Self]:
        """Read `BALEEN_*` variables; what is for folders of policies and models is no setting here.

        Raises:
            InvalidError: as for `Settings`.
        """
        shared = {name: reader for name, reader in _READERS.items() if name not in _OF_FOLDERS}
        values, problems = read_variables(env, PREFIX, {**shared, **_CLUSTER_READERS}, FOREIGN)
        settings = Settings(**{name: value for name, value in values.items() if name in shared})
        own = cls(**{name: value for name, value in values.items() if name not in shared})
        problems += settings.conflicts(has_accounts=own.accounts_file is not None)
        problems += settings.governor_conflicts()
        if own.accounts_file is not None and not own.is_gateway:
            message = "a sidecar that follows a gateway has no right to ask the API server whose a token is"
            problems.append(Problem(field=PREFIX + "ACCOUNTS_FILE", message=message))
        if settings.database_url_file is not None and not own.is_gateway:
            message = "a sidecar that follows a gateway sends its decisions there, and keeps none in a database"
            problems.append(Problem(field=PREFIX + "DATABASE_URL_FILE", message=message))
        if problems:
            raise InvalidError(problems)
        return settings, own


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """What `python -m baleen_sidecar.backup take` can set; by `BALEEN_BACKUP_<FIELD>`."""

    gateways: str = "http://baleen-gateway-stream:8081"
    """The gateways' second port; each address that the name has is a replica."""
    token_file: Path = Path("/var/run/secrets/baleen/token")
    """The file of a token for the audience `baleen-gateway`, of an account in `BALEEN_BACKUP_ACCOUNTS`."""
    folder: Path = Path("/backup")
    """The folder of backups, which has one for each replica."""
    keep_days: int = 30
    """Backups of a replica that are older by so many days than one that was just taken are deleted."""
    timeout_seconds: float = 3600.0
    """How long a gateway may take to make its copy."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read `BALEEN_BACKUP_*` variables.

        Raises:
            InvalidError: as for `Settings`.
        """
        values, problems = read_variables(env, BACKUP_PREFIX, _BACKUP_READERS)
        if problems:
            raise InvalidError(problems)
        return cls(**values)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


FOREIGN = frozenset({"BALEEN_API_KEY", "BALEEN_TRITON_SITE", "BALEEN_URL"})
"""Variables of our prefix that belong to other programs."""


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part) for part in read_names(text))


def _accounts(text: str) -> tuple[str, ...]:
    accounts = read_names(text)
    for account in accounts:
        namespace, _, name = account.partition("/")
        if not namespace or not name or "/" in name:
            raise ValueError(f"{account!r} is no ServiceAccount such as baleen-system/baleen-operator")
    return accounts


def _file(text: str) -> Path | None:
    return Path(text) if text else None


def _percent(text: str) -> float:
    number = float(text)
    if not 1 <= number <= 100:
        raise ValueError("it must be 1 to 100 percent")
    return number


def _key_source(text: str) -> str:
    url = urlsplit(text)
    if "://" in text and (url.scheme != "https" or not url.hostname or url.username or url.fragment):
        raise ValueError("it must be a file, or an address such as https://id.example/keys without user and fragment")
    return text


def _leeway(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 60:
        raise ValueError("it must be 0 to 60 seconds")
    return number


def _audience(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty; name an audience, such as baleen")
    return text.strip()


def _claim(text: str) -> str:
    if text != text.strip():
        raise ValueError("it must have no spaces around it")
    return text


def _optional(convert: Callable[[object], str]) -> Callable[[str], str | None]:
    return lambda text: convert(text) if text else None


def _port(text: str) -> int | None:
    return read_port(text) if text else None


def _limit_of_grpc(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_OF_GRPC:
        raise ValueError(f"it must be 1 to {MAX_OF_GRPC}, which is all that gRPC can count")
    return number


def _threshold(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MAX_FAILURES:
        raise ValueError(f"it must be 0 to {MAX_FAILURES}")
    return number


_read_translation = json_reader('{"violence": ["gore", "weapons"]}', dict[str, tuple[str, ...]])


def _openai_categories(text: str) -> Translation:
    return _checked(_read_translation(text), "no category of OpenAI's", OPENAI.__contains__, ", ".join(OPENAI))


def _perspective_attributes(text: str) -> Translation:
    return _checked(_read_translation(text), "no attribute", _ATTRIBUTE.fullmatch, "such as TOXICITY")


def _checked(translation: Translation, what: str, is_known: Callable[[str], object], examples: str) -> Translation:
    for foreign, ours in translation.items():
        if not is_known(foreign):
            raise ValueError(f"{foreign!r} is {what}; write {examples}")
        for each in ours:
            name(each)
    return translation


def _whole_percent(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise ValueError("it must be 1 to 100")
    return number


def _header(text: str) -> str:
    # It is sent with each request.
    if not text.isascii() or not text.isprintable():
        raise ValueError("it must be printable ASCII")
    return text


_READERS: Final[Readers] = {
    "host": str,
    "port": read_port,
    "api_keys_file": _file,
    "policies": Path,
    "models": Path,
    "state": Path,
    "database_url_file": _file,
    "durability": Durability,
    "retention_decisions_days": read_days,
    "text_limit_bytes": read_positive,
    "text_limit_windows": read_positive,
    "image_limit_bytes": read_positive,
    "image_limit_pixels": read_positive,
    "video_limit_bytes": read_positive,
    "video_limit_seconds": read_positive,
    "fetch_timeout_seconds": read_seconds,
    "fetch_limit_redirects": read_positive,
    "allowed_private_networks": _networks,
    "model_timeout_seconds": read_seconds,
    "deadline_seconds": read_seconds,
    "verify_interval_seconds": read_seconds,
    "default_tenant": _optional(place),
    "default_surface": _optional(place),
    "default_source": _optional(exact_source),
    "quotas_file": _file,
    "redis_url_file": _file,
    "governor": read_switch,
    "governor_cpu_percent": _percent,
    "governor_cpu_shed_percent": _percent,
    "governor_memory_percent": _percent,
    "governor_memory_shed_percent": _percent,
    "jwt_keys": _key_source,
    "jwt_ca_file": _file,
    "jwt_issuer": _claim,
    "jwt_audience": _claim,
    "jwt_roles_claim": _claim,
    "jwt_tenant_claim": _claim,
    "jwt_leeway_seconds": _leeway,
    "source_failure_threshold": _threshold,
    "connection_limit": read_positive,
    "connection_limit_per_key": read_positive,
    "connection_limit_per_address": read_positive,
    "idle_seconds": read_seconds,
    "body_memory_bytes": read_positive,
    "batch_limit": read_positive,
    "batch_limit_bytes": read_positive,
    "batch_timeout_seconds": read_seconds,
    "openai_categories": _openai_categories,
    "perspective_attributes": _perspective_attributes,
    "rescan_limit_bytes": read_positive,
    "rescan_days": read_positive,
    "cache_enabled": read_switch,
    "cache_ttl_seconds": read_seconds,
    "cache_limit_bytes": read_positive,
    "cache_tenant_percent": _whole_percent,
    "cache_by_tenant": read_switch,
    "cache_redis_timeout_seconds": read_seconds,
    "batches_in_flight": read_positive,
    "batch_queue_rows": read_positive,
    "batch_queue_bytes": read_positive,
    "source_offline_seconds": read_seconds,
    "otlp_endpoint": read_url,
    "grpc_port": _port,
    "grpc_message_limit_bytes": _limit_of_grpc,
    "grpc_call_limit": read_positive,
    "grpc_connection_limit": _limit_of_grpc,
    "stream_window": read_positive,
    "stream_message_limit_bytes": read_positive,
}

_OF_FOLDERS: Final = frozenset({"policies", "models"})

_CLUSTER_READERS: Final[Readers] = {
    "gateway_url": read_url,
    "gateway_token_file": Path,
    "gateway_ca_file": _file,
    "spool_limit_bytes": read_positive,
    "kubernetes_url": read_url,
    "kubernetes_token_file": Path,
    "kubernetes_ca_file": Path,
    "namespaces": read_names,
    "tenants": read_tenants,
    "model_files": Path,
    "metrics_port": _port,
    "stream_host": str,
    "stream_port": read_port,
    "stream_address": read_url,
    "operators": _accounts,
    "backup_accounts": _accounts,
    "drain_seconds": read_pause,
    "replica": _header,
    "log_level": read_level,
    "accounts_file": _file,
    "accounts_audience": _audience,
}

_BACKUP_READERS: Final[Readers] = {
    "gateways": read_url,
    "token_file": Path,
    "folder": Path,
    "keep_days": read_positive,
    "timeout_seconds": read_seconds,
}
