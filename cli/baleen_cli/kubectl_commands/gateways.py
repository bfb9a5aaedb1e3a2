"""Ask gateways about the decisions that they have on record: each has a log of its own, so all are asked.

They are reached through the API server, as `kubectl proxy` would, or at addresses that somebody names.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
import typer

from baleen_cli.client import KEY_VARIABLE, Client, check_key, read_answer, to_error
from baleen_cli.cluster import Cluster, Manifest
from baleen_cli.console import note
from baleen_core.errors import ContentError, NotFound, Problem, UpstreamError
from baleen_sidecar.web.errors import ProblemDetails

GATEWAYS: Final = "app.kubernetes.io/component=gateway"
PORT: Final = 8080
AT_ONCE: Final = 8
OUR_FAULT: Final = frozenset({400, 401, 403, 413, 415, 422})
"""What all gateways would say alike: the key or the request is wrong."""

SystemOption = Annotated[str, typer.Option("--system-namespace", help="Where Baleen is installed")]
GatewayOption = Annotated[
    list[str] | None,
    typer.Option("--gateway", help="Ask the gateway at this address, such as http://127.0.0.1:8080; may be repeated"),
]
DEFAULT_SYSTEM: Final = "baleen-system"

Ask = Callable[[str, str, Mapping[str, Any] | None], dict[str, Any] | ProblemDetails]
"""Method, path and body to what a gateway answers; raises UpstreamError where it does not."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers(Generic[T]):
    """What gateways said, by their names, and why others said nothing."""

    answers: Mapping[str, T]
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """How many were asked."""
        return len(self.answers) + len(self.problems)

    def note(self) -> None:
        """Tell people how many answered, where not all did."""
        for name, problem in self.problems.items():
            note(f"{name} did not answer: {problem}")
        if self.problems:
            note(
                f"{len(self.answers)} of {self.asked} gateways answered; what the others have on record is not counted"
            )

    def as_object(self) -> dict[str, Any]:
        """Write who answered for machines."""
        return {"asked": self.asked, "answered": sorted(self.answers), "problems": dict(self.problems)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateways:
    """Those that can be asked, by their names."""

    by_name: Mapping[str, Ask]

    def ask_all(self, question: Callable[[Ask], T]) -> Answers[T]:
        """Put a question, which may be several requests, to all of them at once.

        Raises:
            ContentError: one says that the key or the request is wrong. UpstreamError: none has an answer.
        """

        def put(name: str) -> T | UpstreamError | NotFound:
            try:
                return question(self.by_name[name])
            except (UpstreamError, NotFound) as exc:
                return exc

        with ThreadPoolExecutor(AT_ONCE) as executor:
            found = dict(zip(self.by_name, executor.map(put, self.by_name), strict=True))
        problems = {name: each for name, each in found.items() if isinstance(each, UpstreamError | NotFound)}
        if len(problems) == len(found):
            raise _whole(problems)
        answers: dict[str, Any] = {name: each for name, each in found.items() if name not in problems}
        return Answers(answers=answers, problems={name: str(each) for name, each in problems.items()})


def call(ask: Ask, method: str, path: str, type: type[T], body: Mapping[str, Any] | None = None) -> T:
    """Put one request to a gateway, and read its answer as `type`.

    Raises:
        ContentError: it says that the key or the request is wrong. NotFound: it has no such thing.
        UpstreamError: it has no answer now, or none that can be read.
    """
    answer = ask(method, path, body)
    if isinstance(answer, ProblemDetails):
        if answer.status == 404:
            raise NotFound(answer.detail)
        raise to_error(answer) if answer.status in OUR_FAULT else UpstreamError(f"{answer.title}: {answer.detail}")
    try:
        return msgspec.convert(answer, type)
    except msgspec.ValidationError as exc:
        raise UpstreamError(f"its answer is not that of this release: {exc}") from exc


def find_gateways(cluster: Cluster, namespace: str, addresses: Sequence[str] | None) -> Gateways:
    """Find the gateways that are ready, or those at these addresses.

    Raises:
        ContentError: there is no key to show, or an address is none. NotFound: none is ready.
        ClusterError: the API server refused or did not answer.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if addresses:
        return Gateways(by_name={each: Client(each, key, option="--gateway").ask for each in addresses})
    if not key:
        message = (
            "is not set; gateways ask for a key of no tenant, with the role admin (and review, to explain decisions): "
            "see `baleen keys create`"
        )
        raise ContentError([Problem(field=KEY_VARIABLE, message=message)])
    check_key(key)
    pods = cluster.list("Pod", namespace, label=GATEWAYS)
    ready = {str(each["metadata"]["name"]): _port_of(each) for each in pods if _is_ready(each)}
    if not ready:
        what = f"of {len(pods)} gateways none is ready" if pods else "there are no gateways"
        raise NotFound(
            f"{what} in namespace {namespace}; choose another with --system-namespace, or name an address with "
            "--gateway"
        )
    if len(ready) < len(pods):
        note(f"{len(pods) - len(ready)} of {len(pods)} gateways are not ready, and are not asked")
    found = {name: _through_api_server(cluster, namespace, name, port, key) for name, port in sorted(ready.items())}
    return Gateways(by_name=found)


def _through_api_server(cluster: Cluster, namespace: str, pod: str, port: int, key: str) -> Ask:
    def ask(method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any] | ProblemDetails:
        headers = {"X-API-Key": key}
        status, data = cluster.ask_pod(namespace, pod, port, method, path, headers=headers, body=body)
        try:
            return read_answer(status, data)
        except ValueError as exc:
            raise UpstreamError(f"it did not answer as a gateway does: {exc}") from exc

    return ask


def _port_of(pod: Manifest) -> int:
    ports = (port for each in (pod.get("spec") or {}).get("containers") or () for port in each.get("ports") or ())
    return next((int(port["containerPort"]) for port in ports if port.get("name") == "http"), PORT)


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_leaving = "deletionTimestamp" in pod["metadata"]
    return not is_leaving and any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _whole(problems: Mapping[str, UpstreamError | NotFound]) -> UpstreamError | NotFound:
    """Say at once what all gateways say: in the words of one, where they say the same."""
    said: Iterable[str] = dict.fromkeys(str(each) for each in problems.values())
    kind = NotFound if all(isinstance(each, NotFound) for each in problems.values()) else UpstreamError
    return kind(f"no gateway has an answer: {'; '.join(said)}")
