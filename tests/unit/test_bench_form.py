import dataclasses
import json

import pytest

from baleen_bench.form import QUICK, Aim, Figure, Outcome, compare, compare_all, judge, noise_of, result, write_result
from baleen_bench.load import Load
from baleen_bench.machine import Machine

MACHINE = Machine(cpus=2, memory_gib=24, python="3.11.2", kernel="6.1", steal=0.01, other_load=0.02)


@pytest.mark.parametrize(
    ("value", "goal", "noise", "verdict"),
    [
        pytest.param(0.62, ">= 0.4", 0.05, "met", id="well above"),
        pytest.param(0.2, ">= 0.4", 0.05, "missed", id="well below"),
        pytest.param(0.41, ">= 0.4", 0.05, "undecided", id="above by less than the noise"),
        pytest.param(0.39, ">= 0.4", 0.05, "undecided", id="below by less than the noise"),
        pytest.param(0.4, ">= 0.4", 0.0, "undecided", id="exactly at the goal"),
        pytest.param(2.0, "<= 3", 0.1, "met", id="a ceiling kept"),
        pytest.param(9.0, "< 3", 0.1, "missed", id="a ceiling broken"),
        pytest.param(5600.0, ">= 5000", 0.2, "undecided", id="noise is relative"),
        pytest.param(5600.0, ">= 5000", None, "undecided", id="without a noise nothing is decided"),
        pytest.param(0.62, None, 0.05, "published", id="without a goal"),
    ],
)
def test_a_goal_is_met_only_by_more_than_the_noise(value, goal, noise, verdict):
    assert judge(value, goal, noise) == verdict


def test_a_goal_that_is_no_comparison_is_refused():
    with pytest.raises(ValueError, match="'about 3' must be one of"):
        judge(1.0, "about 3", 0.1)


def test_noise_is_the_largest_deviation_of_the_peer_from_itself():
    assert noise_of([(100, 100), (90, 100), (104, 100)]) == pytest.approx(0.1)
    assert noise_of([(100, 100), (0, 100)]) == 1.0


@dataclasses.dataclass
class ScriptedSide:
    """A side whose capacities are known beforehand, in the order in which it is asked."""

    name: str
    capacities: list[float]
    asked: list[tuple[str, int]]

    def calibrate(self, *, step_seconds, max_seconds):
        return 1000.0, {}

    def offer(self, *, rate, seconds, seed):
        self.asked.append((self.name, seed))
        return Load(
            offered_per_second=rate,
            achieved_per_second=self.capacities.pop(0),
            answered=1,
            errors={},
            latency_ms={},
            histogram=[],
            server_cpu_us=1.0,
        )


def test_the_peer_is_measured_against_itself_first_and_then_both_in_turns():
    asked = []
    peer = ScriptedSide("peer", [1000.0, 800.0, 1000.0, 500.0], asked)
    subject = ScriptedSide("subject", [600.0, 400.0], asked)

    found = compare(subject, peer, dataclasses.replace(QUICK, noise_pairs=1, repetitions=2))

    assert [name for name, _ in asked] == ["peer", "peer", "peer", "subject", "subject", "peer"]
    assert found.noise == pytest.approx(0.25)
    assert found.ratios == [0.6, 0.8]


def test_several_peers_have_each_a_noise_of_its_own_and_the_same_subject():
    asked = []
    good = ScriptedSide("good", [1000.0, 800.0, 1000.0, 500.0], asked)
    bad = ScriptedSide("bad", [100.0, 100.0, 100.0, 200.0], asked)
    subject = ScriptedSide("subject", [600.0, 400.0], asked)

    found = compare_all(subject, [good, bad], dataclasses.replace(QUICK, noise_pairs=1, repetitions=2))

    assert [name for name, _ in asked[4:]] == ["good", "bad", "subject", "subject", "bad", "good"]
    assert {name: each.noise for name, each in found.items()} == {"good": pytest.approx(0.25), "bad": 0.0}
    assert {name: each.ratios for name, each in found.items()} == {"good": [0.6, 0.8], "bad": [6.0, 2.0]}


def test_both_sides_of_a_repetition_see_the_same_arrivals():
    asked = []
    peer, subject = ScriptedSide("peer", [1.0] * 3, asked), ScriptedSide("subject", [1.0] * 1, asked)

    compare(subject, peer, QUICK)

    (_, peers), (_, subjects) = asked[-2:]
    assert peers == subjects


def test_a_figure_is_the_median_with_the_spread_of_its_repetitions():
    figure = Figure.of(
        "ratio", [0.58, 0.66, 0.62123], "ratio", aims={"ratio": Aim(what="a ratio", goal=">= 0.4")}, noise=0.05
    )

    assert (figure.value, figure.spread, figure.goal, figure.verdict) == (0.621, (0.58, 0.66), ">= 0.4", "met")


def test_a_result_has_the_published_form(tmp_path):
    aims = {"ratio": Aim(what="a ratio", goal=">= 0.4"), "seconds": Aim(what="some seconds")}
    figures = (
        Figure.of("ratio", [0.62], "ratio", aims=aims, noise=0.05, stand_in="accelerator"),
        Figure.of("seconds", [2.0], "s", aims=aims),
    )

    path = write_result(result("decide", Outcome(figures=figures, raw={"loads": []}), MACHINE), tmp_path)

    kept = json.loads(path.read_text())
    assert path.name == "decide.json"
    assert list(kept) == ["script", "commit", "machine", "date", "figures", "raw"]
    assert list(kept["machine"]) == ["cpus", "memory_gib", "python", "kernel", "steal", "other_load"]
    assert kept["figures"][0] == {
        "id": "ratio",
        "value": 0.62,
        "unit": "ratio",
        "goal": ">= 0.4",
        "spread": [0.62, 0.62],
        "noise": 0.05,
        "verdict": "met",
        "stand_in": "accelerator",
    }
    assert kept["figures"][1] == {
        "id": "seconds",
        "value": 2.0,
        "unit": "s",
        "goal": None,
        "spread": [2.0, 2.0],
        "noise": None,
        "verdict": "published",
    }
