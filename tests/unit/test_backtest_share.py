"""Shares of a backtest: nothing is lost on the way, contradictions are refused, and together they are the whole."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from baleen_core.decision.backtest import Backtest, Ended, merge_backtests
from baleen_core.decision.backtest_share import next_shares, read_share, write_share
from baleen_core.decision.flips import Rejudged, summarize
from baleen_core.policy.schema import Verdict
from baleen_core.policy_stream import BacktestExamples, BacktestShare

ALLOW, REVIEW, BLOCK = Verdict
severities = st.integers(0, 2)
judged = st.builds(
    Rejudged,
    id=st.text("abc", min_size=1, max_size=4),
    before=severities,
    after=severities,
    categories=st.fixed_dictionaries({"hate": st.tuples(severities, severities)}),
    language=st.sampled_from(["en", "de", None]),
)
backtests = st.builds(
    lambda found, unknown, erased, wanting, elsewhere, no_namespace: Backtest(
        flips=summarize(found),
        unknown=unknown,
        erased=min(erased, unknown),
        signals={"toxicity.toxic": min(wanting, unknown)} if unknown else {},
        elsewhere=elsewhere,
        no_namespace=min(no_namespace, unknown),
    ),
    st.lists(judged, max_size=12, unique_by=lambda each: each.id),
    *[st.integers(0, 9)] * 5,
)


def carried(found: Backtest, ended: Ended) -> tuple[Backtest, Ended]:
    """Send a backtest as JSON, and read it."""
    return read_share(
        msgspec.json.decode(msgspec.json.encode(write_share("gw-1", found, ended, "gw-0-4f")), type=BacktestShare)
    )


@given(backtests, st.sampled_from(Ended))
def test_nothing_is_lost_on_the_way(found, ended):
    assert carried(found, ended) == (found, ended)


@given(backtests, backtests)
def test_shares_add_up_to_what_one_log_would_say(one, other):
    both = merge_backtests(carried(one, Ended.ENOUGH)[0], carried(other, Ended.ENOUGH)[0])

    assert both == merge_backtests(one, other)
    assert both.compared == one.compared + other.compared


FOUND = summarize([Rejudged(id="d", before=0, after=2, categories={"hate": (0, 2)}, language="en")])
SHARE = write_share("gw-1", Backtest(flips=FOUND, unknown=2, signals={"a.b": 2}), Ended.ENOUGH, "")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"overall": (0,) * 9}, id="fewer than in the categories"),
        pytest.param({"languages": {}}, id="of no language"),
        pytest.param({"erased": 3}, id="more erased than unknown"),
        pytest.param({"no_namespace": 3}, id="more without a namespace than unknown"),
        pytest.param({"signals": {"a.b": 3}}, id="more wanting than unknown"),
        pytest.param({"examples": (BacktestExamples(from_=ALLOW, to=REVIEW, ids=("d",)),)}, id="of no flip"),
        pytest.param({"examples": (BacktestExamples(from_=ALLOW, to=BLOCK, ids=("d", "e")),)}, id="of more flips"),
        pytest.param({"ended": "Never"}, id="an end that is none"),
    ],
)
def test_what_contradicts_itself_is_no_share(wrong):
    read_share(SHARE)

    with pytest.raises(ValueError, match=r"."):
        read_share(structs.replace(SHARE, **wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"overall": [1] * 8},
        {"overall": [-1] + [1] * 8},
        {"overall": [2**60] + [0] * 8},
        {"categories": {str(number): [0] * 9 for number in range(129)}},
        {"replica": "x" * 254},
    ],
)
def test_what_is_out_of_bounds_is_not_even_read(wrong):
    said = msgspec.to_builtins(SHARE) | wrong

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(said), type=BacktestShare)


@given(st.integers(1, 300), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), max_size=6))
def test_all_logs_together_give_as_many_decisions_as_there_are(wanted, logs):
    """Each round asks for more of those alone whose log goes on, and it comes to an end."""
    found: dict[str, tuple[str, int, bool]] = {}
    shares = next_shares(wanted, logs, ())
    for _ in range(len(logs) + 2):
        if not shares:
            break
        for name, share in shares.items():
            assert name not in found or share > found[name][1]
            found[name] = (name, min(share, logs[name]), logs[name] >= share)
        shares = next_shares(wanted, logs, tuple(found.values()))

    assert not shares
    total = sum(count for _, count, _ in found.values())
    assert total >= min(wanted, sum(logs.values()))
    assert total < wanted + max(1, len(logs))


def test_a_share_says_as_much_as_the_others():
    assert next_shares(5000, ("a", "b", "c"), ()) == {"a": 1667, "b": 1667, "c": 1667}
    assert next_shares(5000, (), ()) == {}
    assert next_shares(90, "abc", (("a", 30, True), ("b", 10, False), ("c", 30, True))) == {"a": 40, "c": 40}
