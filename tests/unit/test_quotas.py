"""Quotas: no span of a window has more than the limit, whoever waits is let in, and a file says what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import InvalidError
from baleen_core.records import Context
from baleen_sidecar.flow.quotas import (
    MAX_QUOTAS,
    SLOTS,
    Claim,
    Per,
    Quota,
    Standing,
    Windows,
    find_claims,
    in_words,
    parse_quotas,
    refusal,
)

ANNE = Context(tenant="acme", surface="chat", source="site/camera", session="s1", author={"id": "anne"})


def quota(limit: int = 3, window_seconds: int = 86_400, **more: object) -> Quota:
    return Quota(**{"name": "photos", "per": Per.AUTHOR, "limit": limit, "window_seconds": window_seconds, **more})


@given(
    limit=st.integers(1, 5),
    window=st.integers(1, 1000),
    pauses=st.lists(st.floats(0, 400), max_size=80),
    start=st.floats(0, 1e7),
)
def test_no_span_of_a_window_has_more_than_the_limit(limit, window, pauses, start):
    windows, now, taken = Windows(), start, []
    claim = Claim(quota=quota(limit, window), key="key")
    for pause in pauses:
        now += pause
        if not windows.take([claim], now)[0].is_used_up:
            taken.append(now)

    for begun in taken:
        assert sum(begun <= at < begun + window for at in taken) <= limit


@given(limit=st.integers(1, 5), window=st.integers(1, 1000), pauses=st.lists(st.floats(0, 400), max_size=80))
def test_whoever_waits_as_long_as_told_is_let_in_and_that_is_a_60th_late_at_most(limit, window, pauses):
    windows, now = Windows(), 1e6
    claim = Claim(quota=quota(limit, window), key="key")
    taken = []
    for pause in pauses:
        now += pause
        (standing,) = windows.take([claim], now)
        if not standing.is_used_up:
            taken.append(now)
            continue
        exact = taken[-limit] + window - now
        assert exact - 1e-6 <= standing.reset_seconds <= exact + window / SLOTS + 1e-6
        (later,) = windows.take([claim], now + standing.reset_seconds + 1e-6, counts=False)
        assert not later.is_used_up


@given(sharers=st.integers(1, 10), limit=st.integers(1, 30))
def test_sharers_together_let_no_more_in_than_the_limit_unless_each_has_but_one(sharers, limit):
    claim = Claim(quota=quota(limit), key="key")
    replicas = [Windows() for _ in range(sharers)]
    taken = sum(
        not windows.take([claim], 0.0, sharers=sharers)[0].is_used_up for windows in replicas for _ in range(limit + 1)
    )

    assert taken <= max(limit, sharers)


def test_what_one_count_refuses_is_counted_in_none():
    windows = Windows()
    small, large = Claim(quota=quota(1), key="small"), Claim(quota=quota(2, name="large"), key="large")
    first = windows.take([small, large], 0.0)
    for _ in range(5):
        windows.take([small, large], 0.0)
    last = windows.take([small, large], 0.0)

    assert [each.left for each in first] == [0, 1]
    assert [(each.left, each.is_used_up) for each in last] == [(0, True), (1, False)]


def test_looking_counts_nothing():
    windows, claim = Windows(), Claim(quota=quota(1), key="key")

    assert [windows.take([claim], 0.0, counts=False)[0].is_used_up for _ in range(3)] == [False] * 3


@given(keys=st.lists(st.integers(0, 200), max_size=300))
def test_counts_are_never_more_than_their_bound(keys):
    windows = Windows(MAX_QUOTAS)
    for key in keys:
        windows.take([Claim(quota=quota(1), key=str(key))], 0.0)
        assert len(windows) <= MAX_QUOTAS


def test_counts_without_room_for_those_of_one_claim_are_none():
    with pytest.raises(ValueError, match="room for 64"):
        Windows(MAX_QUOTAS - 1)


@pytest.mark.parametrize(
    ("of", "context", "content", "is_counted"),
    [
        pytest.param(quota(), ANNE, "text", True, id="of any content"),
        pytest.param(quota(content=frozenset({"image"})), ANNE, "image", True, id="of this content"),
        pytest.param(quota(content=frozenset({"image"})), ANNE, "text", False, id="of other content"),
        pytest.param(quota(tenant="acme"), ANNE, "text", True, id="of this tenant"),
        pytest.param(quota(tenant="other"), ANNE, "text", False, id="of another tenant"),
        pytest.param(quota(surface="chat", source="site/camera"), ANNE, "text", True, id="of this surface and source"),
        pytest.param(
            quota(surface="chat", source="site"), ANNE, "text", False, id="of this surface and another source"
        ),
        pytest.param(quota(), Context(tenant="acme"), "text", False, id="nobody says who the author is"),
        pytest.param(quota(per=Per.SESSION), ANNE, "text", True, id="per session"),
        pytest.param(quota(per=Per.TENANT), Context(), "text", False, id="per tenant, of none"),
    ],
)
def test_a_quota_counts_what_it_is_about(of, context, content, is_counted):
    assert bool(find_claims([of], context, content)) == is_counted


def test_counts_are_apart_by_whom_they_are_of_and_within_a_tenant():
    bert, elsewhere = Context(tenant="acme", author={"id": "bert"}), Context(tenant="other", author={"id": "anne"})
    keys = [quota().counts(context, "text") for context in (ANNE, bert, elsewhere)]
    keys += [quota(window_seconds=60).counts(ANNE, "text"), quota(name="texts").counts(ANNE, "text")]
    odd = Context(tenant="acme", author={"id": "x" * 10_000 + "\ud800"})

    assert len(set(keys)) == len(keys)
    assert quota(limit=99).counts(ANNE, "image") == keys[0]
    assert "anne" not in keys[0]
    assert len(quota().counts(odd, "text")) == len(keys[0])


@given(seconds=st.floats(0, 1e6), jitter=st.floats(0, 1))
def test_a_refusal_names_the_limit_and_asks_nobody_to_come_back_too_early(seconds, jitter):
    of = quota(content=frozenset({"image"}), limit=30)
    refused = refusal(
        [
            Standing(quota=of, left=0, reset_seconds=seconds, is_used_up=True),
            Standing(quota=quota(name="other"), left=1, reset_seconds=1e7),
        ],
        jitter=jitter,
    )

    assert "the quota 'photos' allows 30 images in 24 h per author" in str(refused)
    assert seconds <= refused.retry_after_seconds <= seconds * 1.1 + 2
    assert refused.retry_after_seconds <= seconds + 61
    assert [(each.name, each.left) for each in refused.allowances] == [("photos", 0), ("other", 1)]


def test_what_is_let_in_is_no_refusal():
    assert refusal([Standing(quota=quota(), left=0, reset_seconds=1.0)], jitter=0.5) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (90, "90 s"), (3600, "1 h"), (5400, "90 min")]
)
def test_spans_are_said_as_people_do(seconds, words):
    assert in_words(seconds) == words


def test_a_file_is_read_whole():
    (photos, _) = parse_quotas(
        {
            "quotas": [
                {
                    "name": "photos",
                    "per": "Author",
                    "content": ["image", "video"],
                    "limit": 30,
                    "windowSeconds": 86400,
                    "match": {"tenant": "acme", "surface": "uploads", "source": "site-7/camera-3"},
                },
                {"name": "all", "per": "Tenant", "limit": 1000, "windowSeconds": 60},
            ]
        }
    )

    assert photos == Quota(
        name="photos",
        per=Per.AUTHOR,
        limit=30,
        window_seconds=86400,
        content=frozenset({"image", "video"}),
        tenant="acme",
        surface="uploads",
        source="site-7/camera-3",
    )
    assert parse_quotas({"quotas": []}) == ()


GOOD = {"name": "photos", "per": "Author", "limit": 30, "windowSeconds": 60}


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        pytest.param([], "", "not a mapping", id="a list"),
        pytest.param({}, "quotas", "an empty list is that there are none", id="nothing"),
        pytest.param({"quotas": [GOOD, GOOD]}, "quotas[1].name", "is there twice", id="twice"),
        pytest.param({"quotas": [GOOD | {"limit": 0}]}, "quotas[0].limit", "from 1 to 1000000", id="of nothing"),
        pytest.param(
            {"quotas": [GOOD | {"windowSeconds": 2_678_401}]}, "quotas[0].windowSeconds", "to 2678400", id="long"
        ),
        pytest.param({"quotas": [GOOD | {"windowSeconds": 0.5}]}, "quotas[0].windowSeconds", "whole number", id="half"),
        pytest.param({"quotas": [GOOD | {"per": "author"}]}, "quotas[0].per", "did you mean Author", id="lower case"),
        pytest.param(
            {"quotas": [GOOD | {"content": ["photo"]}]}, "quotas[0].content[0]", "text, image, video", id="kind"
        ),
        pytest.param(
            {"quotas": [GOOD | {"match": {"author": "x"}}]}, "quotas[0].match.author", "unknown field", id="match"
        ),
        pytest.param({"quotas": [GOOD | {"window": 60}]}, "quotas[0].window", "windowSeconds", id="a word"),
        pytest.param({"quotas": [{}]}, "quotas[0].limit", "is required", id="empty"),
        pytest.param(
            {"quotas": [GOOD | {"name": f"n{number}"} for number in range(65)]}, "quotas", "at most 64", id="too many"
        ),
    ],
)
def test_a_file_says_what_is_wrong_with_it(document, field, words):
    with pytest.raises(InvalidError) as caught:
        parse_quotas(document)

    assert words in {problem.field: problem.message for problem in caught.value.problems}[field]
