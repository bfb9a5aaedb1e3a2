"""How a policy stands in the cluster: everything that its resources say, as one value."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from baleen_core.errors import BaleenError, NotFound, PolicyError
from baleen_core.policy.in_force import Override, in_force, parse_override
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import RevisionContent
from baleen_core.policy.scope import Candidate
from baleen_core.reading import show, unknown_name
from baleen_core.resources import POLICY_LABEL, PublishedRoute, read_revision_resource, read_route
from baleen_operator.plan.history import merge_rows, row_of
from baleen_operator.resources.policy import Failed, Row, Status, read_rows, read_status

MAX_NAMED: Final = 10
SHORT_DIGEST: Final = len("sha256:") + 10
PREFIX: Final = "sha256:"

Manifest = Mapping[str, Any]
T = TypeVar("T")


class Revisions(Collection[str]):
    """A policy's revisions by digest; one is *in* it when its content is there and true, as for a gateway."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._manifests = {str((each.get("spec") or {}).get("digest", "")): each for each in manifests}
        self._read: dict[str, RevisionContent | str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifests)

    def __len__(self) -> int:
        return len(self._manifests)

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and isinstance(self._find(digest), RevisionContent)

    @property
    def manifests(self) -> Collection[Manifest]:
        """Return the resources as they are."""
        return self._manifests.values()

    def content(self, digest: str) -> RevisionContent:
        """Return what a revision says.

        Raises:
            NotFound: it is not there, or is not what its digest names.
        """
        found = self._find(digest)
        if isinstance(found, str):
            raise NotFound(f"revision {short(digest)} cannot be used: {found}")
        return found

    def problem(self, digest: str) -> str:
        """Say why a revision cannot be used; empty when it can."""
        found = self._find(digest)
        return found if isinstance(found, str) else ""

    def version(self, digest: str) -> str:
        """Return the version that its author gave a revision first."""
        manifest = self._manifests.get(digest)
        try:
            return read_revision_resource(manifest)[1] if manifest else ""
        except PolicyError:
            return ""

    def _find(self, digest: str) -> RevisionContent | str:
        # Reading one takes a millisecond, and most of them nobody asks for.
        if digest not in self._read:
            self._read[digest] = self._verified(digest)
        return self._read[digest]

    def _verified(self, digest: str) -> RevisionContent | str:
        if digest not in self._manifests:
            return "there is no such revision"
        try:
            return read_revision(read_revision_resource(self._manifests[digest])[2])
        except BaleenError as exc:
            return str(exc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Resources as they are (None: not there), and what they say; a problem says why one cannot be read."""

    namespace: str
    name: str
    policy: Manifest | None = None
    route_manifest: Manifest | None = None
    override_manifest: Manifest | None = None
    revisions: Revisions = field(default_factory=lambda: Revisions(()))
    route: PublishedRoute | None = None
    route_problem: str = ""
    override: Override | None = None
    override_problem: str = ""

    @property
    def key(self) -> str:
        """Return namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def versions(self) -> tuple[str, ...]:
        """Return what tells the policy, its route and its override from what they were at another time."""
        parts = (self.policy, self.route_manifest, self.override_manifest)
        return (self.key, *(str(each["metadata"].get("resourceVersion", "")) if each else "" for each in parts))

    @property
    def status(self) -> Status:
        """Return what the operator wrote of the policy last; empty when it wrote nothing yet."""
        return read_status(self.policy or {})

    def in_force(self, now: datetime) -> str | None:
        """Return the digest in force, as gateways find it: a policy that is not routed is none for them."""
        return in_force(self.route.route, self.override, self.revisions, now=now) if self.route else None

    def version(self, digest: str) -> str:
        """Return the version by which people know a digest."""
        if self.route and digest == self.route.route.stable and self.route.version:
            return self.route.version
        candidate = self.status.candidate
        if candidate and digest == candidate.digest and candidate.version:
            return candidate.version
        return self.revisions.version(digest)

    def failed(self, digest: str) -> Failed | None:
        """Return how the rollout of a revision failed; None when it did not."""
        return next((each for each in self.status.failed if each.digest == digest), None)

    def named(self, digest: str) -> str:
        """Show a digest for people, with its version."""
        version = self.version(digest)
        return f"{short(digest)} ({version})" if version else short(digest)

    @property
    def activated(self) -> tuple[str, ...]:
        """Return every digest that was or is stable or in force, newest first."""
        routed = (self.route.route.stable, *self.route.route.recent_stable) if self.route else ()
        return tuple(dict.fromkeys(each for each in (*routed, *(row.digest for row in history(self))) if each))

    @property
    def known(self) -> tuple[str, ...]:
        """Return every digest that anything of this policy names: newest activation first, then those without one."""
        candidate, tried = self.status.candidate, self.route.route.candidate if self.route else None
        on_the_way = [each.digest for each in (tried, candidate) if each]
        return tuple(dict.fromkeys((*self.activated, *on_the_way, *(each for each in self.revisions if each))))


def make_facts(
    namespace: str,
    name: str,
    *,
    policy: Manifest | None = None,
    route: Manifest | None = None,
    override: Manifest | None = None,
    revisions: Iterable[Manifest] = (),
) -> Facts:
    """Read what the resources of one policy say."""
    published, route_problem = _attempt(read_route, route)
    said, override_problem = _attempt(parse_override, override)
    return Facts(
        namespace=namespace,
        name=name,
        policy=policy,
        route_manifest=route,
        override_manifest=override,
        revisions=Revisions(revisions),
        route=published,
        route_problem=route_problem,
        override=said,
        override_problem=override_problem,
    )


def with_override(facts: Facts, override: Manifest | None) -> Facts:
    """Return how the policy stands with another override, or with none."""
    said, problem = _attempt(parse_override, override)
    return replace(facts, override_manifest=override, override=said, override_problem=problem)


def gather(
    policies: Iterable[Manifest],
    routes: Iterable[Manifest],
    overrides: Iterable[Manifest],
    revisions: Iterable[Manifest],
) -> list[Facts]:
    """Put the resources of many policies together, in the order of their namespaces and names.

    An override or revisions alone make no policy: they are what is left of one, or wait for one.
    """
    parts = [{_key(each): each for each in kind} for kind in (policies, routes, overrides)]
    found_revisions: dict[tuple[str, str], list[Manifest]] = {}
    for each in revisions:
        owner = (each.get("metadata", {}).get("labels") or {}).get(POLICY_LABEL, "")
        found_revisions.setdefault((_key(each)[0], owner), []).append(each)
    return [
        make_facts(
            *key,
            policy=parts[0].get(key),
            route=parts[1].get(key),
            override=parts[2].get(key),
            revisions=found_revisions.get(key, ()),
        )
        for key in sorted({*parts[0], *parts[1]})
    ]


def history(facts: Facts) -> tuple[Row, ...]:
    """Return what came into force, newest first: it outlives the policy in the revisions that it was made of."""
    kept = (read_rows((each.get("status") or {}).get("activations")) for each in facts.revisions.manifests)
    return merge_rows([row_of(facts.route)] if facts.route else [], *kept)


def row_in_force(facts: Facts, now: datetime) -> Row | None:
    """Return the row by which what is in force came to be; None while no operator has written it yet."""
    rows = history(facts)
    return rows[0] if rows and rows[0].digest == facts.in_force(now) else None


def find_digest(text: str, facts: Facts, known: Sequence[str]) -> str:
    """Return the one of the digests that `text` names: a version, a digest or its beginning.

    Raises:
        NotFound: it names none of them, or several; they are named.
    """
    found = [each for each in known if facts.version(each) == text] or [
        each for each in known if text and each.removeprefix(PREFIX).startswith(text.removeprefix(PREFIX))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFound(f"{show(text)} names several revisions of {facts.key}: {_names(facts, found)}")
    versions = {facts.version(each) for each in known} - {""}
    wrong = unknown_name(text, versions, f"revision of {facts.key}")
    if "did you mean" in wrong:
        raise NotFound(wrong)
    raise NotFound(f"unknown revision {show(text)} of {facts.key}; known are {_names(facts, known) or 'none'}")


def candidates(policies: Iterable[Facts], now: datetime) -> list[Candidate]:
    """Return what is in force of each policy, as it competes for a request."""
    found = []
    for each in policies:
        digest = each.in_force(now)
        if digest is not None and each.route is not None:
            found.append(
                Candidate(
                    name=each.name,
                    namespace=each.namespace,
                    created=each.route.created,
                    revision=each.revisions.content(digest),
                    version=each.version(digest),
                )
            )
    return found


def overriding(facts: Facts, now: datetime) -> str:
    """Say in a word what an override makes of a policy; empty when it changes nothing."""
    if facts.override_problem:
        return "Unreadable"
    said = facts.override
    if said is None:
        return ""
    words = []
    if said.pin and not said.pin.is_over(now):
        words.append("Pinned" if said.pin.digest in facts.revisions else "PinMissing")
    if facts.route and facts.route.route.stable in said.reject:
        words.append("Rejected")
    if said.paused:
        words.append("Paused")
    return ",".join(words)


def condition(manifest: Manifest | None, type: str) -> Manifest:
    """Return a condition of a resource's status; empty when nobody said anything yet."""
    found = ((manifest or {}).get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == type), {})


def age(time: str, now: datetime) -> str:
    """Show how long ago something was, as kubectl does; empty when nobody knows."""
    try:
        seconds = int((now - datetime.fromisoformat(time)).total_seconds())
    except (TypeError, ValueError):
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def short(digest: str) -> str:
    """Shorten a digest for people, to as many digits as name its resource."""
    return digest[:SHORT_DIGEST]


def without_managed_fields(manifest: Manifest) -> dict[str, Any]:
    """Leave out what nobody reads, as kubectl does."""
    metadata = {name: value for name, value in manifest.get("metadata", {}).items() if name != "managedFields"}
    return {**manifest, "metadata": metadata}


def _attempt(read: Callable[[Manifest], T], manifest: Manifest | None) -> tuple[T | None, str]:
    if manifest is None:
        return None, ""
    try:
        return read(manifest), ""
    except PolicyError as exc:
        return None, str(exc)


def _key(manifest: Manifest) -> tuple[str, str]:
    metadata = manifest["metadata"]
    return metadata["namespace"], metadata["name"]


def _names(facts: Facts, digests: Sequence[str]) -> str:
    named = ", ".join(facts.named(each) for each in digests[:MAX_NAMED])
    return named if len(digests) <= MAX_NAMED else f"{named} and {len(digests) - MAX_NAMED} more"
