"""Backtests over real connections: gateways with logs of their own, and the operator that adds up what they say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import msgspec
import pytest

from baleen_core.decision.backtest import Backtest, Ended, GateVerdict, judge_worst
from baleen_core.decision.engine import compile_policy
from baleen_core.decision.flips import Rejudged, summarize
from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.errors import Overloaded
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import BacktestGate
from baleen_core.policy_stream import BACKTESTS_PATH, BacktestQuestion, BacktestRevision, BacktestShare
from baleen_core.records import DecisionRecord
from baleen_core.resources import POLICY_KIND
from baleen_operator.adapters import backtests as module
from baleen_operator.adapters import gateways as polling
from baleen_operator.adapters.backtests import Answer, GatewayBacktests, TriedBacktests, add_up
from baleen_operator.adapters.gateways import GatewayPlaces, PolledGateways
from baleen_operator.metrics import Metrics
from baleen_operator.plan.admission import read_review
from baleen_operator.plan.gate import Asked, Question
from baleen_operator.reconcile.ports import OffLoop
from baleen_sidecar.adapters.store import SqliteDecisionLog, SqliteRevisionStore
from baleen_sidecar.usecases.simulate import Simulate
from evidence import decide_by, make_evidence
from gateways import Gateway, gateway
from memory_cluster import run_here
from policies import policy_manifest
from policy_site import Site, policy
from store_files import make_database
from waiting import until

KEY = ("trust-safety", "community")
TOXIC = "toxicity.toxic"


def revision(block: str) -> BacktestRevision:
    """What a policy says that blocks from there on."""
    content = {"categories": [{"name": "insult", "signals": [{"name": TOXIC, "block": block}]}]}
    made = make_revision(parse_policy(policy_manifest(content)), {})
    return BacktestRevision(digest=made.digest, content=made.content)


STABLE, CANDIDATE = revision("90%"), revision("50%")
CONTENT = BacktestQuestion(policy="/".join(KEY), stable=STABLE, candidate=CANDIDATE, decisions=60)
QUESTION = Question(
    candidate=CANDIDATE.digest, stable=STABLE.digest, gate=BacktestGate(decisions=60, max_new_blocks=50_000)
)


@asynccontextmanager
async def logged(folder: Path, decisions: int, *, above: int = 0, **simulated: Any) -> AsyncIterator[Gateway]:
    """Run a gateway that decided so often, some of it on what the candidate would block."""
    await asyncio.to_thread(folder.mkdir)
    database = make_database(folder)
    compiled = compile_policy(KEY[1], "", read_revision(STABLE), {}, namespace=KEY[0])  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as executor:
        async with SqliteDecisionLog(database) as log:
            async with asyncio.TaskGroup() as group:
                for number in range(decisions):
                    evidence = make_evidence(
                        {TOXIC: 700_000 if number < above else 100_000}, type="text", language="en"
                    )
                    decision = decide_by(compiled, evidence=evidence)
                    name = f"{folder.name}-{number}"
                    group.create_task(
                        log.append(DecisionRecord(id=name, time="", evidence=evidence, decision=decision))
                    )
            simulate = Simulate(
                PolicySnapshot,
                lambda: (),
                log,
                SqliteRevisionStore(database),
                executor=executor,
                monotonic_seconds=monotonic,
                **simulated,
            )
            async with gateway(compare=simulate.compare) as made:
                yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "EAGER_SECONDS", 0.02)
    monkeypatch.setattr(polling, "IDLE_SECONDS", 0.05)


@asynccontextmanager
async def asking(folder: Path, *urls: str, **more: Any) -> AsyncIterator[Callable[[], Any]]:
    """Poll these gateways as the operator does; yields what asks them all and returns what came of it."""
    token = folder / "operator-token"
    token.write_text("operator-token")
    polled = PolledGateways(
        GatewayPlaces(urls=urls), None, Metrics(), token_file=token, timeout_seconds=5, on_change=lambda keys: None
    )  # type: ignore[arg-type]
    heard: list[Any] = []
    backtests = GatewayBacktests(polled, clock=lambda: datetime.now(UTC), on_change=heard.append, **more)
    running = [asyncio.ensure_future(each.run()) for each in (polled, backtests)]

    async def ask() -> Asked:
        before = len(heard)
        backtests.ask(KEY, QUESTION, CONTENT)
        assert backtests.asked(KEY).under_way == QUESTION
        await until(lambda: len(heard) > before)
        assert heard[-1] == {KEY}
        return backtests.asked(KEY)

    try:
        await until(lambda: polled.known() is not None)
        await until(lambda: all(answers or not urls for _, answers in (polled.known() or {}).values()) or more)
        yield ask
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_all_logs_together_answer_each_over_its_share(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        small = await stack.enter_async_context(logged(tmp_path / "small", 10, above=10))
        large = await stack.enter_async_context(logged(tmp_path / "large", 200, above=200))
        asked = await (await stack.enter_async_context(asking(tmp_path, small.url, large.url)))()

    assert (asked.question, asked.under_way, asked.problem, asked.tries) == (QUESTION, None, "", 1)
    # What the small log has not, the large one gives.
    assert asked.found.compared == 60
    assert asked.found.flips.overall.new_blocks == 60
    assert asked.found.flips.categories["insult"].new_blocks == 60
    assert any(each.startswith("small-") for ids in asked.found.flips.examples.values() for each in ids)


async def test_logs_that_are_too_short_together_say_what_they_have(tmp_path: Path) -> None:
    async with (
        logged(tmp_path / "one", 7) as one,
        logged(tmp_path / "two", 5) as two,
        asking(tmp_path, one.url, two.url) as ask,
    ):
        asked = await ask()

    assert (asked.found.compared, asked.bound, asked.problem) == (12, "", "")


async def test_without_a_gateway_there_is_no_decision(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        asked = await ask()

    assert (asked.found.compared, asked.problem) == (0, "")
    assert "no gateway is known" in asked.bound


async def test_a_gateway_that_is_away_or_is_too_slow_is_no_answer_and_is_named(tmp_path: Path) -> None:
    async with (
        logged(tmp_path / "one", 100) as one,
        logged(tmp_path / "two", 100, limit_seconds=0.0) as slow,
        asking(tmp_path, one.url, slow.url) as ask,
    ):
        late = await ask()
        await slow.stop()
        gone = await ask()
        await slow.start()

    assert late.found is None
    assert "gateway-1 judged 0 decisions in" in late.problem
    assert (gone.found, gone.tries) == (None, 2)
    assert "answer" in gone.problem


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        pytest.param({"overall": (10_000, *[0] * 8)}, "no more than", id="more than it was asked for"),
        pytest.param({"overall": (1, *[0] * 8), "ended": "Enough"}, "asked for 60", id="enough that are too few"),
        pytest.param({"overall": (-1, *[0] * 8)}, "Expected `int` >= 0", id="nonsense"),
        pytest.param({"overall": (9, *[0] * 8), "languages": {}}, "the languages", id="what contradicts itself"),
    ],
)
async def test_a_gateway_that_says_what_cannot_be_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], problem: str
) -> None:
    share = BacktestShare(replica="gateway-1", ended="EndOfLog", overall=(0,) * 9)
    lie = msgspec.to_builtins(share) | {"languages": {"en": said["overall"]}} | said

    async def answer(*_: Any) -> BacktestShare:
        return msgspec.json.decode(msgspec.json.encode(lie), type=BacktestShare)

    async with logged(tmp_path / "one", 1) as one, asking(tmp_path, one.url) as ask:
        monkeypatch.setattr(module, "_post", answer)
        asked = await ask()

    assert asked.found is None
    assert asked.problem.startswith("gateway-1 ")
    assert problem in asked.problem or "says 10,000 decisions, asked for 60" in asked.problem


# Gateways that share a log


@asynccontextmanager
async def reading(
    log: str, on_record: int, *, found_of_ten: int = 10, asked: list[int] | None = None
) -> AsyncIterator[Gateway]:
    """Run one that reads a log and finds so many of ten that it is asked for; `asked` is told what it is asked for."""

    async def compare(question: BacktestQuestion, **_: Any) -> tuple[Backtest, Ended]:
        if asked is not None:
            asked.append(question.decisions)
        count = min(question.decisions * found_of_ten // 10, on_record)
        found = [Rejudged(id=f"{log}-{n}", before=0, after=2, categories={}, language="en") for n in range(count)]
        left = Ended.END_OF_LOG if count == on_record else Ended.SCAN_LIMIT
        return Backtest(flips=summarize(found)), Ended.ENOUGH if count == question.decisions else left

    async def log_id() -> str:
        return log

    async with gateway(compare=compare, log_id=log_id) as made:
        yield made


async def added_up(wanted: int, *gateways: Gateway) -> Answer:
    """Ask them as the operator does."""
    names = {each.url: f"gateway-{number}" for number, each in enumerate(gateways)}
    async with aiohttp.ClientSession() as session:
        question = msgspec.structs.replace(CONTENT, decisions=wanted)
        return await add_up(session, question, names, {"Authorization": "Bearer operator-token"})


@pytest.mark.parametrize(
    ("wanted", "compared"),
    [
        pytest.param(60, 20, id="each decision counts once, so there are too few"),
        pytest.param(15, 15, id="one gateway is asked for what the others would have given"),
        pytest.param(20, 20, id="all of the log"),
        pytest.param(1, 1, id="fewer than gateways"),
    ],
)
async def test_a_log_that_three_gateways_share_counts_once(wanted: int, compared: int) -> None:
    async with reading("db", 20) as one, reading("db", 20) as two, reading("db", 20) as three:
        answer = await added_up(wanted, one, two, three)

    assert answer.problem == answer.bound == ""
    assert answer.found is not None
    assert answer.found.compared == answer.found.flips.overall.new_blocks == compared


async def test_logs_of_which_one_is_shared_make_up_for_each_other() -> None:
    shared: list[int] = []
    own: list[int] = []
    async with (
        reading("db", 200, asked=shared) as one,
        reading("db", 200, asked=shared) as two,
        reading("", 200, asked=own) as three,
        reading("", 7) as short,
    ):
        answer = await added_up(60, one, two, three, short)

    # A quarter each, and then what is wanting of 37 from both logs that go on: of the shared one from two that read it.
    assert (shared, own) == ([15, 15, 27, 27], [15, 27])
    assert answer.found is not None
    assert answer.found.compared == 27 + 27 + 7


@asynccontextmanager
async def lying(log: str, *, first: int, then: Callable[[int], tuple[int, Ended]]) -> AsyncIterator[Gateway]:
    """Run one that names a log and invents that nothing flips in it; asked for `first` it blocks all, as others do."""

    async def compare(question: BacktestQuestion, **_: Any) -> tuple[Backtest, Ended]:
        if question.decisions == first:
            count, after, ended = first, 2, Ended.ENOUGH
        else:
            (count, ended), after = then(question.decisions), 0
        found = [Rejudged(id=f"{log}-{n}", before=0, after=after, categories={}, language="en") for n in range(count)]
        return Backtest(flips=summarize(found)), ended

    async def log_id() -> str:
        return log

    async with gateway(compare=compare, log_id=log_id) as made:
        yield made


@pytest.mark.parametrize(
    "first",
    [pytest.param(0, id="from the first question on"), pytest.param(20, id="once it knows that it counts")],
)
async def test_whoever_names_the_log_of_others_and_says_otherwise_is_named_and_counts_for_nothing(first: int) -> None:
    async with (
        lying("db", first=first, then=lambda wanted: (wanted, Ended.ENOUGH)) as liar,
        reading("db", 200) as honest,
        reading("", 200) as other,
    ):
        for gateways in ((liar, honest, other), (honest, liar, other)):
            answer = await added_up(60, *gateways)

            assert answer.found is None
            assert "say that they read one log, and contradict each other: " in answer.problem
            assert "gateway-0" in answer.problem
            assert "gateway-1" in answer.problem


@asynccontextmanager
async def saying(log: str, *, blocks: int, reviews: int = 0, on_record: int = 1_000) -> AsyncIterator[Gateway]:
    """Run one that says of a log how many of what it is asked for would be blocked and reviewed."""

    async def compare(question: BacktestQuestion, **_: Any) -> tuple[Backtest, Ended]:
        count = min(question.decisions, on_record)
        after = [2] * blocks + [1] * reviews + [0] * (count - blocks - reviews)
        found = [
            Rejudged(id=f"{log}-{number}", before=0, after=each, categories={}, language="en")
            for number, each in enumerate(after)
        ]
        return Backtest(flips=summarize(found)), Ended.ENOUGH if count == question.decisions else Ended.END_OF_LOG

    async def log_id() -> str:
        return log

    async with gateway(compare=compare, log_id=log_id) as made:
        yield made


async def test_of_two_who_read_one_log_what_is_worse_is_told_too_of_new_blocks_and_of_flips() -> None:
    gate = BacktestGate(decisions=60, max_new_blocks=50_000)
    async with (
        saying("db", blocks=0) as mild,
        saying("db", blocks=5) as blocking,
        saying("db", blocks=0, reviews=9) as flipping,
        saying("", blocks=0) as own,
    ):
        for gateways in ((mild, blocking), (blocking, flipping), (mild, flipping, own)):
            answer = await added_up(60, *gateways)
            assert answer.found is not None
            heard = [each.flips.overall for each in (answer.found, *answer.also)]

            assert max(each.new_blocks for each in heard) == (5 if blocking in gateways else 0)
            assert max(each.flips for each in heard) == (9 if flipping in gateways else 5)
            assert {each.total for each in heard} == {60}
            judged = judge_worst(gate, (answer.found, *answer.also))
            assert judged.verdict == (GateVerdict.FAIL if blocking in gateways else GateVerdict.PASS)


async def test_what_is_worse_of_a_log_counts_also_where_another_log_is_asked_for_more() -> None:
    async with (
        saying("db", blocks=0, on_record=21) as mild,
        saying("db", blocks=5, on_record=20) as blocking,
        saying("", blocks=0) as own,
    ):
        answer = await added_up(90, mild, blocking, own)

    assert answer.found is not None
    assert (answer.found.compared, answer.found.flips.overall.new_blocks) == (90, 0)
    assert [(each.compared, each.flips.overall.new_blocks) for each in answer.also] == [(89, 5), (89, 5)]


async def test_whoever_says_that_the_log_of_others_has_ended_is_not_believed() -> None:
    async with lying("db", first=30, then=lambda _: (0, Ended.END_OF_LOG)) as liar, reading("db", 200) as honest:
        answer = await added_up(60, liar, honest)

    assert answer.problem == ""
    assert answer.found is not None
    assert answer.found.compared == answer.found.flips.overall.new_blocks == 60


async def test_whoever_names_another_log_when_asked_for_more_counts_for_nothing() -> None:
    logs = iter(["db", "", "db", ""])

    async def log_id() -> str:
        return next(logs)

    async def compare(question: BacktestQuestion, **_: Any) -> tuple[Backtest, Ended]:
        found = [
            Rejudged(id=str(n), before=0, after=2, categories={}, language="en") for n in range(question.decisions)
        ]
        return Backtest(flips=summarize(found)), Ended.ENOUGH

    async with gateway(compare=compare, log_id=log_id) as moving, reading("db", 200) as honest:
        answer = await added_up(60, moving, honest)

    assert answer.found is None
    assert answer.problem == "gateway-0 says that it reads the log '', and before that it was 'db'"


async def test_a_shared_log_is_looked_back_in_as_far_as_all_that_is_wanted_allows() -> None:
    async with reading("db", 200, found_of_ten=5) as one, reading("db", 200, found_of_ten=5) as two:
        answer = await added_up(40, one, two)

    # Half of a share of 20, and then of all that was wanted but those.
    assert answer.found is not None
    assert answer.found.compared == 20
    assert "want fewer" in answer.bound


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        pytest.param(RecursionError("maximum depth"), "gateway-1 did not answer as it should: maximum", id="too deep"),
        pytest.param(KeyError("ours"), "they could not be asked, by a fault of the operator's own", id="our fault"),
    ],
)
async def test_whatever_comes_of_a_question_the_next_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, problem: str
) -> None:
    async def fail(*_: Any) -> BacktestShare:
        raise failure

    async with logged(tmp_path / "one", 60) as one, asking(tmp_path, one.url) as ask:
        with monkeypatch.context() as broken:
            broken.setattr(module, "_post", fail)
            asked = await ask()
        again = await ask()

    assert asked.found is None
    assert asked.problem.startswith(problem)
    assert again.found.compared == 60


async def test_a_gateway_that_answers_somebody_else_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    busy = 2
    async with logged(tmp_path / "one", 60) as one:
        compare = one.compare

        async def turned_away(question: BacktestQuestion, **more: Any) -> Any:
            nonlocal busy
            busy -= 1
            if busy >= 0:
                raise Overloaded("another simulation is under way; one runs at a time", retry_after_seconds=5)
            return await compare(question, **more)

        await one.stop()
        one.compare = turned_away
        await one.start()
        async with asking(tmp_path, one.url) as ask:
            asked = await ask()

    assert (busy, asked.problem, asked.found.compared) == (-1, "", 60)


@pytest.mark.parametrize(
    ("token", "body", "status", "said"),
    [
        pytest.param("shop-token", CONTENT, 403, "shop/default is not the operator's", id="a sidecar"),
        pytest.param("backup-token", CONTENT, 403, "is not the operator's", id="another account of ours"),
        pytest.param("nobody", CONTENT, 401, "nobody's", id="nobody"),
        pytest.param("operator-token", {"policy": "a/b"}, 422, "the question cannot be read", id="half a question"),
        pytest.param(
            "operator-token", {**msgspec.to_builtins(CONTENT), "decisions": 100_001}, 422, "<= 100000", id="too many"
        ),
        pytest.param(
            "operator-token", {**msgspec.to_builtins(CONTENT), "seconds": 31}, 422, "<= 30.0", id="for too long"
        ),
        pytest.param(
            "operator-token",
            {**msgspec.to_builtins(CONTENT), "stable": {"digest": STABLE.digest, "content": "{}"}},
            422,
            "stable",
            id="a forged revision",
        ),
        pytest.param("operator-token", "x" * 17_000_000, 413, "16777216 bytes", id="too large"),
    ],
)
async def test_who_may_not_ask_or_asks_for_too_much_is_refused(
    tmp_path: Path, token: str, body: Any, status: int, said: str
) -> None:
    async with logged(tmp_path / "one", 3) as one, one.client(token) as client:
        answer = await client.post(BACKTESTS_PATH, content=msgspec.json.encode(body))

    assert answer.status_code == status
    assert said in answer.json()["detail"]


async def test_where_there_is_no_log_nobody_is_answered() -> None:
    async with gateway() as made, made.client("operator-token") as client:
        answer = await client.post(BACKTESTS_PATH, content=msgspec.json.encode(CONTENT))

    assert answer.status_code == 404
    assert "no decision log" in answer.json()["detail"]


async def test_whoever_hangs_up_has_nothing_judged_for_it(tmp_path: Path) -> None:
    ended: list[Ended] = []
    async with logged(tmp_path / "one", 2000, page_rows=1) as one:
        compare = one.compare

        async def noted(question: BacktestQuestion, **more: Any) -> Any:
            found = await compare(question, **more)
            ended.append(found[1])
            return found

        await one.stop()
        one.compare = noted
        await one.start()
        async with one.client("operator-token") as client:
            body = msgspec.json.encode(msgspec.structs.replace(CONTENT, decisions=100_000))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.post(BACKTESTS_PATH, content=body)
        await until(lambda: bool(ended))

    assert ended == [Ended.ABANDONED]


# For somebody who only tries


async def stored() -> Site:
    """A policy in force that has a gate."""
    site = Site()
    await site.apply(policy("90%", version="v1", gates={"backtest": {"decisions": 20, "maxNewBlocks": "5%"}}))
    return site


def tried(site: Site, edit: dict[str, Any], **old: Any) -> Any:
    """What an API server asks of an edit that it will not store."""
    before = site.find(POLICY_KIND) | old
    request = {"uid": "1", "namespace": KEY[0], "object": edit, "oldObject": before, "dryRun": True}
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return read_review(msgspec.json.encode(whole))


async def run_later(work: Callable[[], Any]) -> Any:
    """Let others go first."""
    await asyncio.sleep(0)
    return work()


def trying(site: Site, folder: Path, *urls: str, seconds: float = 5.0, off_loop: OffLoop = run_here) -> TriedBacktests:
    """Try backtests as a replica does that follows no gateway."""
    token = folder / "operator-token"
    token.write_text("operator-token")
    polled = PolledGateways(
        GatewayPlaces(urls=urls), None, Metrics(), token_file=token, timeout_seconds=5, on_change=lambda keys: None
    )  # type: ignore[arg-type]
    return TriedBacktests(site.cluster, polled, off_loop=off_loop, seconds=seconds)  # type: ignore[arg-type]


async def test_whoever_only_tries_is_told_what_the_logs_say(tmp_path: Path) -> None:
    site = await stored()
    strict = policy("50%", version="v2", gates={})
    async with logged(tmp_path / "one", 10, above=4) as one, logged(tmp_path / "two", 15) as two:
        backtest = trying(site, tmp_path, one.url, two.url)
        failed = await backtest(tried(site, strict))
        fine = await backtest(tried(site, policy("80%", version="v2")))
        same = await backtest(tried(site, policy("90%", version="v2")))

    # The gate of what is stable counts, though the edit has none.
    assert failed.startswith(
        "gates.backtest: Fail (TooManyNewBlocks): 20% of 20 logged decisions would be newly blocked"
    )
    assert fine.startswith("gates.backtest: Pass (WithinLimits)")
    assert same == ""


async def test_a_stranger_who_does_not_know_the_policy_learns_nothing_of_the_log(tmp_path: Path) -> None:
    site = await stored()
    guess = policy("85%", version="v1", gates={"backtest": {"decisions": 20, "maxNewBlocks": "5%"}})
    asked = 0
    async with logged(tmp_path / "one", 30, above=4) as one:

        async def compare(*_: Any, **__: Any) -> Any:
            nonlocal asked
            asked += 1

        await one.stop()
        one.compare = compare
        await one.start()
        backtest, edit = trying(site, tmp_path, one.url), policy("50%", version="v2")
        other = await backtest(tried(site, edit, spec=guess["spec"]))
        # What can be guessed is not enough.
        guessed = await backtest(tried(site, edit, metadata={"name": KEY[1], "uid": "guessed"}))
        without = await backtest(tried(site, edit, metadata={"name": KEY[1]}))

    assert {other, guessed, without} == {"the backtest could not be asked: what is stored is another policy by now"}
    assert asked == 0


async def test_what_cannot_be_asked_in_time_or_at_once_is_said(tmp_path: Path) -> None:
    site, strict = await stored(), policy("50%", version="v2")
    gone = await trying(site, tmp_path, "http://127.0.0.1:1")(tried(site, strict))
    source = {"type": "ConfigMap", "name": "known", "key": "digests"}
    listed = policy("50%", version="v2")
    listed["spec"]["policy"]["lists"] = [{"name": "known", "type": "Terms", "action": "Block", "source": source}]
    lists = await trying(site, tmp_path)(tried(site, listed))
    async with logged(tmp_path / "one", 30, limit_seconds=0.0) as slow:
        late = await trying(site, tmp_path, slow.url)(tried(site, strict))
    backtest = trying(site, tmp_path)
    backtest._is_busy = True
    busy = await backtest(tried(site, strict))

    for told, said in (
        (gone, "did not answer"),
        (lists, "once the policy is applied"),
        (late, "judged 0"),
        (busy, "being"),
    ):
        assert told.startswith("the backtest could not be asked: ")
        assert said in told


async def keeping(**gates: Any) -> Site:
    """A policy without gates, since a softer edit took them away that the route does not let through."""
    site = Site()
    await site.apply(policy("90%", version="v1", gates=gates))
    await site.apply(policy("95%", version="v2"))
    assert site.route["gates"].keys() == gates.keys()
    return site


async def test_whoever_only_tries_is_told_of_gates_that_only_the_route_keeps(tmp_path: Path) -> None:
    site = await keeping(neverLoosen=["toxicity"])
    ask = trying(site, tmp_path)
    softer = await ask(tried(site, policy("94%", version="v3")))
    stricter = await ask(tried(site, policy("80%", version="v3")))
    back = await ask(tried(site, policy("90%", version="v3")))
    again = await ask(tried(site, policy("95%", version="v2")))
    named = await ask(tried(site, policy("94%", version="v3", gates={"neverLoosen": ["toxicity"]})))
    source = {"type": "ConfigMap", "name": "known", "key": "digests"}
    listed = policy("94%", version="v3")
    listed["spec"]["policy"]["lists"] = [{"name": "known", "type": "Terms", "action": "Block", "source": source}]
    with_list = await ask(tried(site, listed))

    # What is softer than what is stable is, though it is stricter than what waits.
    for said in (softer, named):
        assert said.startswith("by gates.neverLoosen, of this edit or kept from an earlier one: toxicity, this may be ")
        assert "refused beside what is stable: spec.policy.categories[0]" in said
    assert (stricter, back, again) == ("", "", "")
    assert with_list.endswith(" toxicity: lists are read once the policy is applied")


async def test_whoever_only_tries_is_told_of_a_floor_that_the_route_keeps_as_one(tmp_path: Path) -> None:
    site = Site()
    await site.apply(policy("90%", version="v1", role="Floor", gates={"neverLoosen": ["toxicity"]}))
    await site.apply(policy("90%", version="v2"))
    said = await trying(site, tmp_path)(tried(site, policy("80%", version="v3")))

    assert "this may be refused beside what is stable: spec.role: Unproven: it was Floor" in said


async def test_a_backtest_that_only_the_route_asks_for_is_made_for_whoever_only_tries(tmp_path: Path) -> None:
    async with logged(tmp_path / "one", 30, above=12) as one:
        site = await keeping(backtest={"decisions": 20, "maxNewBlocks": "5%"})
        said = await trying(site, tmp_path, one.url)(tried(site, policy("50%", version="v3")))

    assert said.startswith("gates.backtest: Fail (TooManyNewBlocks): ")


async def test_a_stranger_is_not_told_whether_a_route_keeps_gates(tmp_path: Path) -> None:
    kept, none = await keeping(neverLoosen=["toxicity"]), Site()
    await none.apply(policy("90%", version="v1"), policy("95%", version="v2"))
    edit, guessed = policy("94%", version="v3"), {"name": KEY[1], "uid": "guessed"}
    told = {await trying(site, tmp_path)(tried(site, edit, metadata=guessed)) for site in (kept, none)}
    known = await trying(none, tmp_path)(tried(none, edit))

    (said,) = told
    assert said == (
        "gates of earlier edits, which the route keeps, were not looked up: what is stored is another policy by now"
    )
    assert known == ""


async def test_what_was_found_before_a_gateway_keeps_a_dry_run_waiting_is_said(tmp_path: Path) -> None:
    site = await keeping(neverLoosen=["toxicity"], backtest={"decisions": 20, "maxNewBlocks": "5%"})
    hold = asyncio.Event()

    async def silent(*_: Any, **__: Any) -> Any:
        await hold.wait()

    async with gateway(compare=silent) as made:
        said = await trying(site, tmp_path, made.url, seconds=0.5)(tried(site, policy("94%", version="v3")))
        hold.set()

    softer, late = said.rsplit("; ", 1)
    assert softer.startswith("by gates.neverLoosen, of this edit or kept from an earlier one: toxicity, this may be ")
    assert late == "the backtest could not be asked: no answer in 0.5 s"


async def test_a_dry_run_leaves_gateways_less_than_its_own_time_so_that_they_are_heard(tmp_path: Path) -> None:
    asked: list[float] = []

    async def slow(question: BacktestQuestion, **_: Any) -> tuple[Backtest, Ended]:
        asked.append(question.seconds)
        return Backtest(), Ended.TIME_LIMIT

    site = await stored()
    async with gateway(compare=slow) as made:
        said = await trying(site, tmp_path, made.url, seconds=5.0)(tried(site, policy("50%", version="v2")))

    assert said.startswith(f"the backtest could not be asked: {made.url} judged 0 decisions in ")
    assert len(asked) == 1
    assert 0 < asked[0] <= 5.0 * module.JUDGED_SHARE


async def test_dry_runs_at_once_of_a_policy_without_gates_say_nothing_and_too_many_are_turned_away(
    tmp_path: Path,
) -> None:
    site = Site()
    await site.apply(policy("90%", version="v1"))
    backtest, edit = trying(site, tmp_path, off_loop=run_later), policy("94%", version="v2")
    at_once = await asyncio.gather(*(backtest(tried(site, edit)) for _ in range(module.MAX_IN_LINE)))
    more = await asyncio.gather(*(backtest(tried(site, edit)) for _ in range(module.MAX_IN_LINE + 2)))

    assert set(at_once) == {""}
    refused = f"{module.NOT_LOOKED_UP}: {module.MAX_IN_LINE} others are being looked up"
    assert more.count("") == module.MAX_IN_LINE
    assert more.count(refused) == 2
