"""What the clusters' tests hold answers against can fail: it is tried on answers that are wrong."""

from typing import Any

import pytest

from named_digests import STALE_SECONDS, WATCH_SECONDS, Named, named_by
from serving import Answered

OLD, NEW, TRIED = "sha256:old", "sha256:new", "sha256:tried"
SECOND = 1.0


def answer(digest: str, at: float, cohort: str = "Stable", seconds: float = 0.0, status: int = 200) -> Answered:
    body = {"policies": [{"digest": digest, "cohort": cohort}]} if status == 200 else {}
    return Answered(text="kind words", status=status, body=body, begun=at, ended=at + seconds)


def candidate(weight: int = 0, **more: Any) -> dict[str, Any]:
    return {"digest": TRIED, "weightBasisPoints": weight, "shadow": weight == 0, **more}


@pytest.fixture
def named() -> Named:
    """Give a policy whose OLD revision was stable from 100 on, with TRIED at 5 % from 110 on, and NEW from 120 on."""
    found = Named()
    found.note(100, {"stable": OLD}, None)
    found.note(105, {"stable": OLD, "candidate": candidate()}, None)
    found.note(110, {"stable": OLD, "candidate": candidate(500)}, None)
    found.note(120, {"stable": NEW, "recentStable": [OLD]}, None)
    return found


@pytest.mark.parametrize(
    "right",
    [
        pytest.param(answer(OLD, 101), id="named now"),
        pytest.param(answer(OLD, 120 + STALE_SECONDS - 0.1), id="named a moment ago"),
        pytest.param(answer(NEW, 110, seconds=11), id="named while it was asked"),
        pytest.param(answer(TRIED, 115, "Candidate"), id="a candidate with a weight"),
        pytest.param(answer(NEW, 120 - WATCH_SECONDS + 0.1), id="named, and the watch heard of it a moment later"),
    ],
)
def test_an_answer_by_what_was_named_is_right(named: Named, right: Answered):
    assert named.wrong([right]) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param(answer("sha256:other", 115), "which was not named before", id="never named"),
        pytest.param(answer(NEW, 115), "which was not named before", id="not named yet"),
        pytest.param(answer(OLD, 120 + STALE_SECONDS + 0.1), "2.10 s after it was last named", id="too old"),
        pytest.param(answer(TRIED, 107, "Candidate"), "which was not named before", id="in a shadow"),
        pytest.param(answer(TRIED, 125, "Candidate"), "5.00 s after it was last named", id="a candidate that is over"),
        pytest.param(answer(TRIED, 115, "Stable"), "('sha256:tried', 'Stable')", id="a candidate for everybody"),
    ],
)
def test_an_answer_by_anything_else_is_found(named: Named, wrong: Answered, words: str):
    (problem,) = named.wrong([answer(OLD, 101), wrong, answer(NEW, 130)])

    assert words in problem


def test_an_answer_by_no_policy_is_found_and_a_failed_one_is_for_others_to_count(named: Named):
    nobody = Answered(text="kind words", status=200, body={"policies": []}, begun=101, ended=101)

    assert named.wrong([nobody, answer("", 101, status=503)]) == ["'kind words' was judged by no policy"]


@pytest.mark.parametrize(
    ("override", "judge"),
    [
        (None, {(NEW, "Stable"), (TRIED, "Candidate")}),
        ({"paused": True, "approve": {"digest": TRIED}}, {(NEW, "Stable"), (TRIED, "Candidate")}),
        ({"reject": [TRIED]}, {(NEW, "Stable")}),
        ({"reject": [NEW]}, {(OLD, "Stable")}),
        ({"reject": [NEW, OLD]}, set()),
        ({"pin": {"digest": OLD}}, {(OLD, "Stable")}),
    ],
)
def test_an_override_counts_over_the_route(override: dict[str, Any] | None, judge: set[tuple[str, str]]):
    route = {"stable": NEW, "recentStable": [OLD], "candidate": candidate(500)}

    assert named_by(route, override) == judge
    assert named_by(None, override) == {each for each in judge if override and "pin" in override}
