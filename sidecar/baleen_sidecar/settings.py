"""Everything that an installation can set; only `baleen serve` reads the environment."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from baleen_core.errors import InvalidError, Problem

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX = "BALEEN_"


class Durability(StrEnum):
    """When a decision counts as written: after fsync, or once the operating system has it (synced each half second)."""

    FSYNC = "Fsync"
    INTERVAL = "Interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The defaults suit one node; each field is set by `BALEEN_<FIELD>` in upper case."""

    host: str = "127.0.0.1"
    """The address to listen on. Loopback only: API keys, which a wider one needs, are not built yet."""
    port: int = 8080
    """The port of everything; 0 takes a free one."""
    policies: Path = Path("policies")
    """The folder of policies, lists and overrides."""
    models: Path = Path("models")
    """The folder of ModelDeployments."""
    state: Path = Path(".state")
    """The folder of the decision log and the last good policies; one process at a time."""
    durability: Durability = Durability.FSYNC
    """What a decision waits for before it is answered."""
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

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read `BALEEN_*` variables.

        Raises:
            InvalidError: a variable that is not a setting, or a value that is not of its kind; all of them at once.
        """
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        problems: list[Problem] = []
        values: dict[str, Any] = {}
        for variable, text in sorted(env.items()):
            if not variable.startswith(PREFIX) or variable in FOREIGN:
                continue
            if variable not in known:
                problems.append(
                    Problem(field=variable, message=f"is not a setting; there are {', '.join(sorted(known))}")
                )
                continue
            try:
                values[known[variable]] = _READERS[known[variable]](text)
            except ValueError as exc:
                problems.append(Problem(field=variable, message=f"{text!r} is not valid: {exc}"))
        if problems:
            raise InvalidError(problems)
        settings = cls(**values)
        if not is_loopback(settings.host):
            raise InvalidError(
                [
                    Problem(
                        field=PREFIX + "HOST",
                        message=f"{settings.host} is not loopback; without API keys only 127.0.0.1 or ::1 is served",
                    )
                ]
            )
        return settings


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


FOREIGN = frozenset({"BALEEN_TRITON_SITE", "BALEEN_URL"})
"""Variables of our prefix that belong to other programs."""


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("it must be 1 or more")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError("a port is 0 to 65535")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 86_400:
        raise ValueError("it must be above 0 and below 86400 seconds")
    return number


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


_READERS: Mapping[str, Callable[[str], Any]] = {
    "host": str,
    "port": _port,
    "policies": Path,
    "models": Path,
    "state": Path,
    "durability": Durability,
    "text_limit_bytes": _positive,
    "text_limit_windows": _positive,
    "image_limit_bytes": _positive,
    "image_limit_pixels": _positive,
    "video_limit_bytes": _positive,
    "video_limit_seconds": _positive,
    "fetch_timeout_seconds": _seconds,
    "fetch_limit_redirects": _positive,
    "allowed_private_networks": _networks,
    "model_timeout_seconds": _seconds,
    "deadline_seconds": _seconds,
    "verify_interval_seconds": _seconds,
}
