"""Following a list and watches: whatever is interleaved, the copy becomes what the server has."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.reflection import MANY, Change, Gone, Malformed, Reflection

Objects = Mapping[tuple[str, str], int]


def manifest(name: str, value: int, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name, "resourceVersion": str(version)}, "spec": value}


def make_reflection() -> Reflection[int]:
    return Reflection(lambda found, before: int(found["spec"]))


def event(kind: str, name: str, value: int, version: int) -> dict[str, Any]:
    return {"type": kind, "object": manifest(name, value, version)}


class Server:
    """Keeps objects and the events since the last compaction, as an API server does."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[str, int] = {}
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.oldest = 1

    def write(self, name: str, value: int | None) -> None:
        """Put or delete an object."""
        if value is None and name not in self.objects:
            return
        self.version += 1
        if value is None:
            found = event("DELETED", name, self.objects.pop(name), self.version)
        else:
            found = event("MODIFIED" if name in self.objects else "ADDED", name, value, self.version)
            self.objects[name] = value
        self.events.append((self.version, found))

    def compact(self) -> None:
        """Forget what was before now."""
        self.oldest = self.version

    def since(self, version: int) -> list[dict[str, Any]]:
        """Return the events after a version, or that it is gone."""
        if version < self.oldest:
            return [{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}]
        return [found for number, found in self.events if number > version]


class Client:
    """Lists when it must, watches, and is interrupted at will."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reflection = make_reflection()
        self.seen: dict[tuple[str, str], int] = {}

    def step(self, at_most: int) -> None:
        """List if that is needed, and take some events of one watch."""
        if not self.reflection.resource_version:
            items = [manifest(name, value, 0) for name, value in self.server.objects.items()]
            for change in self.reflection.listed(items, str(self.server.version)):
                self.note(change)
        try:
            for found in self.server.since(int(self.reflection.resource_version))[:at_most]:
                if change := self.reflection.observed(found):
                    self.note(change)
        except Gone:
            self.reflection.gone()

    def bookmark(self) -> None:
        """Take a bookmark, which a server sends to those who have all that was before."""
        version = self.reflection.resource_version
        if version and not self.server.since(int(version)):
            found = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.server.version)}}}
            assert self.reflection.observed(found) is None

    def note(self, change: Change[int]) -> None:
        """Follow the changes alone."""
        assert self.seen.get(change.key) == change.before
        if change.after is None:
            self.seen.pop(change.key, None)
        else:
            self.seen[change.key] = change.after


names = st.sampled_from("abc")
steps = st.one_of(
    st.tuples(st.just("write"), names, st.one_of(st.none(), st.integers(0, 3))),
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["compact", "bookmark"])),
)


@given(st.lists(steps, max_size=40))
def test_any_interleaving_of_lists_watches_410_and_bookmarks_gives_what_the_server_has(
    taken: list[tuple[Any, ...]],
) -> None:
    server = Server()
    client = Client(server)
    for name, *arguments in taken:
        getattr(client if hasattr(client, name) else server, name)(*arguments)
    client.step(at_most=1000)
    client.step(at_most=1000)

    assert client.seen == {("default", name): value for name, value in server.objects.items()}
    assert client.reflection.is_whole
    assert int(client.reflection.resource_version) <= server.version


def test_what_was_deleted_while_nobody_watched_is_gone_after_the_next_list() -> None:
    reflection = make_reflection()
    reflection.listed([manifest("a", 1, 1), manifest("b", 2, 2)], "2")
    reflection.gone()

    changes = reflection.listed([manifest("b", 2, 2)], "9")

    assert Change(key=("default", "a"), before=1, after=None) in changes


def test_410_once_is_no_problem_and_410_every_time_is_one_until_a_watch_works() -> None:
    reflection = make_reflection()
    told = []
    for _ in range(MANY):
        reflection.listed([], "5")
        told.append(reflection.problem)
        reflection.gone()
    reflection.listed([], "6")

    assert told == [""] * MANY
    assert "410 Gone" in reflection.problem
    reflection.opened()
    assert reflection.problem == ""
    reflection.observed(event("ADDED", "a", 1, 7))
    reflection.gone()
    assert reflection.problem == ""


def test_a_failure_keeps_what_is_known_and_goes_on_where_it_was() -> None:
    reflection = make_reflection()
    reflection.listed([manifest("a", 1, 1)], "4")

    reflection.failed("watch things: refused")

    assert (reflection.problem, reflection.resource_version, reflection.is_whole) == (
        "watch things: refused",
        "4",
        True,
    )


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="a list"),
        pytest.param({"type": "ADDED"}, id="no object"),
        pytest.param({"type": "ADDED", "object": {}}, id="no metadata"),
        pytest.param({"type": "ADDED", "object": {"metadata": {"resourceVersion": "3"}}}, id="no name"),
        pytest.param({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": 3}}}, id="a version of numbers"),
        pytest.param(event("RENAMED", "a", 1, 3), id="an unknown type"),
        pytest.param({"type": "ERROR", "object": {"code": 500, "message": "boom"}}, id="another error"),
    ],
)
def test_what_is_no_event_is_said_and_changes_nothing(found: Any) -> None:
    reflection = make_reflection()
    reflection.listed([manifest("a", 1, 1)], "2")
    with pytest.raises(Malformed):
        reflection.observed(found)

    assert reflection.resource_version == "2"
    assert reflection.listed([manifest("a", 1, 1)], "2") == [Change(key=("default", "a"), before=1, after=1)]


def test_a_list_without_a_version_is_not_taken_over() -> None:
    reflection = make_reflection()
    with pytest.raises(Malformed):
        reflection.listed([manifest("a", 1, 1)], "")

    assert not reflection.is_whole
