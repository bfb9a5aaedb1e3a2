"""Whether each answer was judged by what a route or an override named, at a state that was current at that time.

`Watch` notes every state of them as the API server gives it, and `Named` holds answers of a load against the states. It
reads manifests itself: what the product takes to be in force is what is to be checked.
"""

import contextlib
import json
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx

from cluster_site import Site
from serving import Answered, until

STALE_SECONDS: Final = 2.0
"""How long after a change somebody may judge by what was before: the goal of `policy_enforced_p99_s`."""
WATCH_SECONDS: Final = 0.5
"""How much sooner than this watch a gateway may hear of a change, on a machine that is busy."""
ROUTE: Final = "modroute"
OVERRIDE: Final = "modover"
POLICY: Final = "modpol"
PATHS: Final = {
    kind: f"/apis/moderation.baleen.dev/v1alpha1/namespaces/{{}}/{plural}"
    for kind, plural in ((ROUTE, "moderationroutes"), (OVERRIDE, "moderationoverrides"), (POLICY, "moderationpolicies"))
}

Judged = tuple[str, str]
"""A digest, and the cohort in which it judged: Stable or Candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What judges from a moment on (seconds of the monotonic clock)."""

    since: float
    named: frozenset[Judged]


def named_by(route: Mapping[str, Any] | None, override: Mapping[str, Any] | None) -> frozenset[Judged]:
    """Return what judges by the `spec` of a policy's route and that of its override; a pin does not expire here."""
    said, there = override or {}, route or {}
    rejected = set(said.get("reject", ()))
    if pin := said.get("pin"):
        return frozenset({(pin["digest"], "Stable")})
    stables = [each for each in (there.get("stable"), *there.get("recentStable", ())) if each]
    stable = next((each for each in stables if each not in rejected), None)
    found = {(stable, "Stable")} if stable else set()
    candidate = there.get("candidate")
    if candidate and stable == there["stable"] and candidate["digest"] not in rejected and _judges(candidate):
        found.add((candidate["digest"], "Candidate"))
    return frozenset(found)


def _judges(candidate: Mapping[str, Any]) -> bool:
    exposed = bool(candidate.get("weightBasisPoints") or candidate.get("match", {}).get("tenants"))
    return exposed and not candidate.get("shadow", False)


@dataclass(slots=True)
class Named:
    """The states of one policy in the order in which they were seen."""

    states: list[State] = field(default_factory=list)

    def note(self, at: float, route: Mapping[str, Any] | None, override: Mapping[str, Any] | None) -> None:
        """Note what is there from a moment on."""
        named = named_by(route, override)
        if not self.states or self.states[-1].named != named:
            self.states.append(State(since=at, named=named))

    def wrong(self, answers: Iterable[Answered]) -> list[str]:
        """Say which of the answers with status 200 were judged by what nothing named then, and what was named."""
        return [problem for each in answers if each.status == 200 for problem in self._wrong(each)]

    def _wrong(self, answer: Answered) -> Iterator[str]:
        if not answer.body["policies"]:
            yield f"{answer.text!r} was judged by no policy"
        # It was judged at some time between the two, by what was current up to a bound before.
        first, last = answer.begun - STALE_SECONDS, answer.ended + WATCH_SECONDS
        current = self.states[max(0, self._index(first)) : self._index(last) + 1]
        for each in answer.body["policies"]:
            judged = each["digest"], each["cohort"]
            if not any(judged in state.named for state in current):
                then = sorted(named for state in current for named in state.named)
                yield f"{answer.text!r} was judged by {judged}{self._ended(judged, answer)}; named then were {then}"

    def _index(self, moment: float) -> int:
        return bisect_right(self.states, moment, key=lambda state: state.since) - 1

    def _ended(self, judged: Judged, answer: Answered) -> str:
        """Say how long it had not been named any more."""
        for state, after in zip(reversed(self.states[:-1]), reversed(self.states[1:]), strict=True):
            if judged in state.named and after.since <= answer.begun:
                return f", {answer.begun - after.since:.2f} s after it was last named"
        return ", which was not named before"


class Watch:
    """Watches a policy with its route and its override from the block's beginning to its end.

    `routes` and `statuses` are all specs of the route and all statuses of the policy, each with the moment it was seen.
    """

    def __init__(self, site: Site, name: str = "community") -> None:
        self.named = Named()
        self.routes: list[tuple[float, dict[str, Any]]] = []
        self.statuses: list[tuple[float, dict[str, Any]]] = []
        self.failures: list[str] = []
        self._site, self._name = site, name
        self._now: dict[str, dict[str, Any] | None] = {}
        self._lock = threading.Lock()
        self._is_ending = False
        self._responses: dict[str, httpx.Response] = {}
        self._client = site.plane.client()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for kind in PATHS:
            version = self._list(kind)
            self._threads.append(threading.Thread(target=self._follow, args=(kind, version), daemon=True))
        for thread in self._threads:
            thread.start()
        until(lambda: len(self._responses) == len(PATHS) or self.failures)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            until(self._is_up_to_date)
        finally:
            self._is_ending = True
            for response in self._responses.values():
                with contextlib.suppress(OSError):
                    response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(30)
            self._client.close()
        assert not self.failures, self.failures

    def wrong(self, answers: Iterable[Answered]) -> list[str]:
        """See `Named`."""
        return self.named.wrong(answers)

    def _list(self, kind: str) -> str:
        found = self._get(kind)
        self._take(kind, next(iter(found["items"]), None))
        return str(found["metadata"]["resourceVersion"])

    def _get(self, kind: str) -> dict[str, Any]:
        answer = self._client.get(PATHS[kind].format(self._site.namespace), params=self._selected())
        answer.raise_for_status()
        return dict(answer.json())

    def _selected(self) -> dict[str, str]:
        return {"fieldSelector": f"metadata.name={self._name}"}

    def _is_up_to_date(self) -> bool:
        there = {kind: next(iter(self._get(kind)["items"]), None) for kind in PATHS}
        return bool(self.failures) or all(_version(there[kind]) == _version(self._now[kind]) for kind in PATHS)

    def _follow(self, kind: str, version: str) -> None:
        # An hour, after which the API server would end it: longer than a test may take.
        asked = {**self._selected(), "watch": "1", "resourceVersion": version, "timeoutSeconds": "3600"}
        try:
            with self._client.stream(
                "GET", PATHS[kind].format(self._site.namespace), params=asked, timeout=None
            ) as response:
                response.raise_for_status()
                self._responses[kind] = response
                for line in response.iter_lines():
                    event = json.loads(line)
                    assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
                    self._take(kind, None if event["type"] == "DELETED" else event["object"])
            problem = "the watch ended"
        except Exception as exc:
            problem = repr(exc)
        if not self._is_ending:
            self.failures.append(f"{kind}: {problem}")

    def _take(self, kind: str, found: dict[str, Any] | None) -> None:
        at = time.monotonic()
        with self._lock:
            self._now[kind] = found
            if kind == POLICY:
                self.statuses.append((at, (found or {}).get("status", {})))
                return
            if kind == ROUTE and found is not None:
                self.routes.append((at, found["spec"]))
            self.named.note(at, _spec(self._now.get(ROUTE)), _spec(self._now.get(OVERRIDE)))


def _spec(manifest: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if manifest is None else manifest["spec"]


def _version(manifest: Mapping[str, Any] | None) -> str:
    return "" if manifest is None else str(manifest["metadata"]["resourceVersion"])
