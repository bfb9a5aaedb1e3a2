"""Who has how many connections, and how many there may be for the files that a process may open."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import InvalidError
from baleen_sidecar.main import RESERVED_FILES, within_files
from baleen_sidecar.settings import Settings
from baleen_sidecar.web.connections import ConnectionLimits, Shared

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60)


@given(steps=STEPS, limit=st.integers(1, 4))
def test_nobody_has_more_than_the_limit_and_whoever_left_is_forgotten(
    steps: list[tuple[str, bool]], limit: int
) -> None:
    shared, held = Shared(), {"a": 0, "b": 0, "c": 0}
    for caller, comes in steps:
        if comes:
            assert shared.enter(caller, limit) == (held[caller] < limit)
            held[caller] = min(limit, held[caller] + 1)
        elif held[caller]:
            shared.leave(caller)
            held[caller] -= 1

    assert dict(shared.open) == {caller: count for caller, count in held.items() if count}


@pytest.mark.parametrize(
    ("soft", "hard", "set_to", "connections"),
    [
        pytest.param(1024, 1_048_576, 10_000 + RESERVED_FILES, 10_000, id="raised as far as needed"),
        pytest.param(1024, 4096, 4096, 4096 - RESERVED_FILES, id="raised as far as allowed, and fewer connections"),
        pytest.param(65_536, 65_536, None, 10_000, id="enough already"),
        pytest.param(1024, resource.RLIM_INFINITY, 10_000 + RESERVED_FILES, 10_000, id="no hard limit"),
        pytest.param(resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 10_000, id="no limit at all"),
        pytest.param(256, 256, 256, 1, id="hardly any"),
    ],
)
def test_there_are_no_more_connections_than_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, set_to: int | None, connections: int
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: taken.append(limits[0]))

    found = within_files(ConnectionLimits(connections=10_000))

    assert found.connections == connections
    assert taken == ([] if set_to is None else [set_to])


def test_memory_for_bodies_that_is_less_than_one_body_is_refused() -> None:
    with pytest.raises(
        InvalidError, match=r"BALEEN_BODY_MEMORY_BYTES: 1048576 is less than one body may have, 139875669"
    ):
        Settings.from_env({"BALEEN_BODY_MEMORY_BYTES": "1048576"})
