"""Sources: how much comes from each, whether anything comes at all, and that no caller can make up too many."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baleen_sidecar.flow.sources import (
    SPAN_SECONDS,
    Presence,
    Source,
    Sources,
    Told,
    after_content,
    after_message,
    report,
)

NOW = 1000.0
OFFLINE_SECONDS = 90.0
CAMERA = Source(tenant="acme", name="site-7/camera-3", since=NOW)


def told(frames: int, *, latency: float = 40.0, errors: int = 0) -> Told:
    return Told(frames_processed=frames, avg_latency_ms=latency, errors_count=errors)


def seen(source: Source, now: float, *, seconds: float = 0.2, frames: int = 1, failed: bool = False) -> Source:
    return after_content(source, now=now, seconds=seconds, frames=frames, failed=failed)


@settings(max_examples=30)
@given(every=st.floats(0.5, 5), for_seconds=st.floats(65, 130), frames=st.integers(0, 30))
def test_the_rate_of_a_steady_source_is_told(every: float, for_seconds: float, frames: int) -> None:
    source, now = CAMERA, NOW
    while now < NOW + for_seconds:
        source = seen(source, now, frames=frames)
        now += every

    found = report(source, now=now, offline_seconds=OFFLINE_SECONDS)

    # One piece of content more or less, in the nine tenths of the span that are looked at in any case.
    slack = 1 / (0.9 * SPAN_SECONDS)
    assert found.contents_per_second == pytest.approx(1 / every, abs=slack)
    assert found.frames_per_second == pytest.approx(frames / every, abs=frames * slack)


@given(
    contents=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 60), st.integers(0, 60), st.booleans()), max_size=30),
)
def test_totals_are_of_all_content_and_ratio_and_mean_are_within_what_was_seen(
    contents: list[tuple[float, float, int, bool]],
) -> None:
    source, now = CAMERA, NOW
    for pause, seconds, frames, failed in contents:
        now += pause
        source = seen(source, now, seconds=seconds, frames=frames, failed=failed)

    found = report(source, now=now, offline_seconds=OFFLINE_SECONDS)

    assert (source.contents, source.frames) == (len(contents), sum(each[2] for each in contents))
    assert source.errors == sum(each[3] for each in contents)
    assert found.error_ratio is None or 0 <= found.error_ratio <= 1
    if found.mean_seconds is not None:
        took = [each[1] for each in contents if not each[3]]
        assert min(took) <= found.mean_seconds + 1e-9
        assert found.mean_seconds <= max(took) + 1e-9


def test_a_moment_ago_is_no_rate_of_thousands_a_second() -> None:
    found = report(seen(CAMERA, NOW, frames=30), now=NOW + 0.001, offline_seconds=OFFLINE_SECONDS)

    assert (found.contents_per_second, found.frames_per_second) == (1, 30)


@pytest.mark.parametrize(
    ("after", "presence"),
    [
        pytest.param(0, Presence.ONLINE, id="at once"),
        pytest.param(90, Presence.ONLINE, id="at the bound"),
        pytest.param(90.001, Presence.OFFLINE, id="beyond"),
    ],
)
def test_a_source_is_offline_once_nothing_came_for_so_long(after: float, presence: Presence) -> None:
    source = seen(CAMERA, NOW, failed=True)

    assert report(source, now=NOW + after, offline_seconds=OFFLINE_SECONDS).presence is presence


def test_a_source_that_tells_of_no_new_frames_is_not_online_by_that() -> None:
    silent = after_message(CAMERA, told(0), now=NOW)
    begun = after_message(silent, told(10), now=NOW + 30)
    stuck = after_message(begun, told(10), now=NOW + 150)

    found = [report(each, now=NOW + 150, offline_seconds=OFFLINE_SECONDS).presence for each in (silent, begun, stuck)]
    assert found == [Presence.OFFLINE] * 3
    assert report(begun, now=NOW + 31, offline_seconds=OFFLINE_SECONDS).presence is Presence.ONLINE


@given(steps=st.lists(st.tuples(st.floats(0, 60), st.integers(0, 10_000), st.booleans()), min_size=1, max_size=30))
def test_what_is_told_adds_up_also_over_restarts_and_lost_messages(steps: list[tuple[float, int, bool]]) -> None:
    """A lost message is a longer step; whoever begins again has less than before, or it cannot be seen."""
    source, now, total = CAMERA, NOW, 0
    for pause, frames, begins_again in steps:
        before, now = source.message, now + pause
        began_again = begins_again and frames < total
        total = frames if began_again else total + frames
        source = after_message(source, told(total), now=now)
        assert source.message is not None
        rate = source.message.frames_per_second
        if before is None:
            assert rate is None
        elif now > before.at:
            assert rate == pytest.approx(frames / (now - before.at))


names = st.tuples(st.sampled_from(["acme", "shop", None]), st.integers(0, 30).map(str))


@given(limit=st.integers(1, 12), changes=st.lists(names, max_size=60))
def test_there_are_never_more_than_the_limit_and_what_was_just_heard_of_is_there(
    limit: int, changes: list[tuple[str | None, str]]
) -> None:
    sources = Sources(limit)
    for place, (tenant, name) in enumerate(changes):
        sources.change(tenant, name, lambda each, now=float(place): seen(each, now), now=float(place))
        known = [(each.tenant, each.name) for each in sources]
        assert len(sources) == len(known) == len(set(known)) <= limit
        assert (tenant, name) in known
    if len(set(changes)) <= limit:
        assert {each.name: each.contents for each in sources if each.tenant == "acme"} == Counter(
            name for tenant, name in changes if tenant == "acme"
        )


def test_a_tenant_that_makes_up_names_pushes_out_its_own_and_first_what_was_not_heard_of_for_longest() -> None:
    sources = Sources(4)
    for now, (tenant, name) in enumerate([("shop", "door"), ("acme", "a"), ("acme", "b"), ("acme", "c")]):
        sources.change(tenant, name, lambda each: each, now=now)
    sources.change("acme", "a", lambda each: seen(each, 5.0), now=5.0)
    for number in range(3):
        sources.change("acme", f"made-up-{number}", lambda each: each, now=6.0)

    assert [(each.tenant, each.name) for each in sources] == [
        ("shop", "door"),
        ("acme", "made-up-0"),
        ("acme", "made-up-1"),
        ("acme", "made-up-2"),
    ]
