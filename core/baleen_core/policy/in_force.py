"""What is in force: a pure function of route, override and revisions at hand, so that every process answers alike."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from baleen_core.assignment import Assignment, Exposure
from baleen_core.errors import PolicyError, Problem
from baleen_core.policy.parse import MAX_TEXT, digest, read_header
from baleen_core.reading import Reader, boolean, instant, name, text

KIND: Final = "ModerationOverride"
MAX_REJECTED: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedCandidate:
    """A revision that is rolled out beside the stable one, for whom it judges, and how that is found out."""

    digest: str
    exposure: Exposure
    assignment: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What was decided to be in force for a policy, and what was before, newest first; all are digests of revisions."""

    stable: str = ""
    recent_stable: tuple[str, ...] = ()
    candidate: RoutedCandidate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """This revision and no other, why, and until when (RFC 3339, UTC; empty: until it is taken away)."""

    digest: str
    reason: str = ""
    expire_time: str = ""

    def is_over(self, now: datetime) -> bool:
        """Say whether its time has passed."""
        return bool(self.expire_time) and datetime.fromisoformat(self.expire_time) <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """This revision may pass the steps of its rollout up to `through_step`."""

    digest: str
    through_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What the person on call says; all of it binds to digests, so that nothing can go stale onto a later edit."""

    pin: Pin | None = None
    reject: frozenset[str] = frozenset()
    approve: Approval | None = None
    paused: bool = False

    def pin_at(self, now: datetime) -> Pin | None:
        """Return the pin, if it has one whose time has not passed."""
        return self.pin if self.pin and not self.pin.is_over(now) else None


def in_force(route: Route, override: Override | None, present: Collection[str], *, now: datetime) -> str | None:
    """Return the digest of the revision that is in force, or None when there is none.

    The pin, if its time has not passed and its revision is present (and verified); else the stable one, or the newest
    of those that were, that is present and not rejected.
    """
    said = override or Override()
    if (pin := said.pin_at(now)) and pin.digest in present:
        return pin.digest
    allowed = (each for each in (route.stable, *route.recent_stable) if each not in said.reject)
    return next((each for each in allowed if each in present), None)


def candidate_in_force(
    route: Route, override: Override | None, present: Collection[str], *, now: datetime
) -> RoutedCandidate | None:
    """Return the candidate that judges beside the stable revision, or None when there is none.

    Beside anything but the stable revision, such as a pinned one, nothing is tried out; nor is what is rejected.
    """
    found, said = route.candidate, override or Override()
    if found is None or found.digest in said.reject or found.digest not in present:
        return None
    pin = said.pin_at(now)
    is_pinned = pin is not None and pin.digest in present
    return found if not is_pinned and in_force(route, override, present, now=now) == route.stable else None


def parse_override(manifest: Mapping[str, object]) -> Override:
    """Read a ModerationOverride from its whole manifest.

    Raises:
        PolicyError: lists every problem, each with its field's path and what would be right.
    """
    problems: list[Problem] = []
    override = _read_manifest(Reader(manifest, "", problems))
    if problems:
        raise PolicyError(problems)
    return override


def _read_manifest(manifest: Reader) -> Override:
    read_header(manifest, kind=KIND)
    metadata = manifest.mapping("metadata", required=True)
    # Its name is that of the policy, which whoever puts the two together has to read anyway.
    metadata.required("name", name, "")
    spec = manifest.mapping("spec", required=True)
    manifest.done()
    override = Override(
        pin=_read_pin(spec.mapping("pin")) if spec.has("pin") else None,
        reject=frozenset(spec.values("reject", digest, limit=MAX_REJECTED)),
        approve=_read_approval(spec.mapping("approve")) if spec.has("approve") else None,
        paused=spec.optional("paused", boolean, False),
    )
    if override.pin and override.pin.digest in override.reject:
        spec.report("pin", "is rejected too; take its digest out of reject, or pin another revision")
    spec.done()
    return override


def _read_pin(pin: Reader) -> Pin:
    found = Pin(
        digest=pin.required("digest", digest, ""),
        reason=pin.optional("reason", text(min_length=0, max_length=MAX_TEXT), ""),
        expire_time=pin.optional("expireTime", instant, ""),
    )
    pin.done()
    return found


def _read_approval(approval: Reader) -> Approval:
    found = Approval(
        digest=approval.required("digest", digest, ""),
        through_step=approval.optional("throughStep", name, ""),
    )
    approval.done()
    return found
