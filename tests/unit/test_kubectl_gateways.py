"""`kubectl baleen simulate | flips | top`: what is added up of several gateways' answers, and what is said of it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import ApiClient, Configuration

import baleen_cli.cluster as cluster_module
from baleen_cli.cluster import Cluster
from baleen_cli.kubectl_commands.adding import add_flips, add_simulations
from baleen_cli.kubectl_commands.gateways import Gateways, call, find_gateways
from baleen_cli.kubectl_commands.simulating import choose_sides, read_gate
from baleen_cli.kubectl_commands.top import CANDIDATE, STABLE, count_no_namespace, top_rows
from baleen_core.decision.backtest import Backtest, BacktestGate, judge_backtest, merge_backtests
from baleen_core.decision.flips import Rejudged, merge_flips, summarize
from baleen_core.decision.performance import summarize_performance
from baleen_core.errors import ClusterError, ContentError, NotFound, UpstreamError
from baleen_sidecar.usecases.simulate import Ended, Simulation
from baleen_sidecar.usecases.survey import LookedBack, Surveyed, TrialFlips
from baleen_sidecar.web.errors import FieldError, ProblemDetails
from baleen_sidecar.web.simulations import to_simulation_answer
from baleen_sidecar.web.surveys import PerformanceAnswer, to_flips_answer, to_performance_answer
from judged_records import ALLOW, BLOCK, REVIEW, decided, on_record, ref, tried
from policies import override_manifest
from policy_site import KEY, pass_time, policy
from rolling_site import facts_of, rolling

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
severities = st.integers(0, 2)
decisions = st.builds(
    Rejudged,
    id=st.text("0123456789abcdef", min_size=1, max_size=8),
    before=severities,
    after=severities,
    categories=st.dictionaries(st.sampled_from(["hate", "spam"]), st.tuples(severities, severities)),
    language=st.sampled_from([None, "en", "klingon"]),
    group=st.integers(0, 63),
)
logs = st.lists(st.lists(decisions, max_size=20), min_size=1, max_size=4)
GATE = BacktestGate(decisions=10, max_flip_rate=300_000)


def simulation(found: Backtest, **fields: Any) -> Any:
    named = {"policy": KEY, "stable": A, "candidate": B, "ended": Ended.END_OF_LOG, "gate": None}
    return to_simulation_answer(Simulation(found=found, **{**named, **fields}))


def rollout_flips(found: Any, **fields: Any) -> Any:
    named = {"policy": KEY, "stable": A, "candidate": B, "erased": 1, "scanned": 7, "ended": LookedBack.END_OF_LOG}
    return to_flips_answer(TrialFlips(found=found, **{**named, **fields}))


@given(found=logs, unknown=st.integers(0, 5))
def test_simulations_of_several_logs_are_the_simulation_of_one_that_has_all(found, unknown):
    parts = [
        Backtest(
            flips=summarize([Rejudged(**{**_fields(each), "group": None}) for each in log]),
            unknown=unknown,
            signals={"a.b": unknown},
            elsewhere=1,
            no_namespace=unknown,
        )
        for log in found
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = merge_backtests(whole, part)
    added = add_simulations({f"gateway-{n}": simulation(part) for n, part in enumerate(parts)}, GATE)

    assert added == simulation(whole, gate=judge_backtest(GATE, whole))


@pytest.mark.parametrize("ended", [Ended.ENOUGH, Ended.SCAN_LIMIT, Ended.TIME_LIMIT])
def test_where_one_log_goes_on_too_few_decisions_are_no_reason_to_wait(ended):
    answers = {"one": simulation(Backtest(elsewhere=1)), "other": simulation(Backtest(elsewhere=1), ended=ended)}

    found = add_simulations(answers, GATE).gate

    assert found.message.startswith("0 decisions of this policy were found, and 10 are wanted: ")
    assert "wait" not in found.message


def _fields(each: Rejudged) -> dict[str, Any]:
    return {name: getattr(each, name) for name in Rejudged.__dataclass_fields__}


@given(found=logs)
def test_flips_of_several_logs_are_those_of_one_that_has_all(found):
    whole = summarize([])
    for log in found:
        whole = merge_flips(whole, summarize(log))
    added = add_flips({f"gateway-{n}": rollout_flips(summarize(log)) for n, log in enumerate(found)})

    assert added == rollout_flips(whole, erased=len(found), scanned=7 * len(found))
    assert added == rollout_flips(
        summarize([each for log in found for each in log]), erased=len(found), scanned=7 * len(found)
    )


@pytest.mark.parametrize(
    ("ended", "whole"),
    [
        (["EndOfLog", "Enough"], "Enough"),
        (["Enough", "ScanLimit", "EndOfLog"], "ScanLimit"),
        (["TimeLimit", "ScanLimit"], "TimeLimit"),
        (["EndOfLog", "EndOfLog"], "EndOfLog"),
    ],
)
def test_what_bounded_one_log_most_bounds_the_whole(ended, whole):
    answers = {str(n): simulation(Backtest(), ended=Ended(each)) for n, each in enumerate(ended)}

    assert add_simulations(answers, None).ended == whole


@given(found=logs, readers=st.integers(1, 3))
def test_a_log_that_several_gateways_share_counts_once(found, readers):
    backtests = [
        Backtest(flips=summarize([Rejudged(**{**_fields(each), "group": None}) for each in log])) for log in found
    ]
    names = {f"gateway-{n}": n for n in range(1, len(found))}
    of_all = {f"reader-{n}": 0 for n in range(readers)} | names

    def ask(answers: Any, which: Any) -> Any:
        return {name: which(answers[n], log="" if n else "db") for name, n in of_all.items()}

    simulated = add_simulations(ask(backtests, simulation), GATE)
    flipped = add_flips(ask([summarize(log) for log in found], rollout_flips))

    assert simulated.compared == flipped.compared == sum(map(len, found))
    assert simulated.matrix == flipped.matrix
    assert (flipped.erased, flipped.scanned) == (len(found), 7 * len(found))
    assert simulated.log == flipped.log == ("" if len(found) > 1 else "db")
    assert simulated.gate.verdict == judge_backtest(GATE, _merged(backtests)).verdict


def _merged(found: list[Backtest]) -> Backtest:
    whole = found[0]
    for each in found[1:]:
        whole = merge_backtests(whole, each)
    return whole


def test_gateways_that_contradict_each_other_about_one_log_are_not_added_up():
    found = [
        summarize([Rejudged(id=str(n), before=0, after=after, categories={}, language="en") for n in range(50)])
        for after in (0, 2)
    ]
    one, two = (simulation(Backtest(flips=each), log="db") for each in found)
    said = "one and two say that they read one log, and contradict each other: 0 flips of 50 decisions, and 50 of 50"

    with pytest.raises(UpstreamError, match=said):
        add_simulations({"one": one, "two": two}, None)
    with pytest.raises(UpstreamError, match=said):
        add_flips({"one": rollout_flips(found[0], log="db"), "two": rollout_flips(found[1], log="db")})


@pytest.mark.parametrize(
    "ended",
    [
        pytest.param((Ended.ENOUGH, Ended.SCAN_LIMIT), id="one looked further back"),
        pytest.param((Ended.TIME_LIMIT, Ended.TIME_LIMIT), id="each looked as far as there was time"),
        pytest.param((Ended.ABANDONED, Ended.ABANDONED), id="each was left alone at some time"),
    ],
)
def test_gateways_that_looked_further_back_than_others_contradict_nobody(ended):
    newest, more = (
        summarize(
            [
                Rejudged(id=str(n), before=0, after=2 if n < 50 else 0, categories={}, language=None)
                for n in range(count)
            ]
        )
        for count in (50, 5_000)
    )
    one, two = (Backtest(flips=each) for each in (newest, more))
    answers = {"one": simulation(one, log="db", ended=ended[0]), "two": simulation(two, log="db", ended=ended[1])}

    assert add_simulations(answers, None).compared == 5_000


def test_gateways_on_one_log_that_have_not_converged_are_not_added_up_either():
    answers = {"one": simulation(Backtest(), log="db"), "two": simulation(Backtest(), stable=B, log="db")}

    with pytest.raises(UpstreamError, match="do not compare the same revisions"):
        add_simulations(answers, None)


def test_what_is_of_different_revisions_is_not_added_up():
    with pytest.raises(UpstreamError, match=r"\(one, two: sha256:a+ and sha256:b+; three: sha256:b+ and sha256:a+\)"):
        add_flips(
            {
                "one": rollout_flips(summarize([])),
                "two": rollout_flips(summarize([])),
                "three": rollout_flips(summarize([]), stable=B, candidate=A),
            }
        )


def refusal(status: int, detail: str, *fields: FieldError) -> ProblemDetails:
    return ProblemDetails(type="urn:baleen:problem:x", title="Refused", status=status, detail=detail, errors=fields)


def asked(**answers: Any) -> Any:
    """Put one question to gateways, each of which has this answer, or raises it."""

    def answering(answer: Any) -> Any:
        def ask(method: str, path: str, body: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    gateways = Gateways(by_name={name: answering(each) for name, each in answers.items()})
    return gateways.ask_all(lambda ask: call(ask, "GET", "/", dict[str, int]))


def test_those_that_do_not_answer_are_named_and_the_others_count():
    found = asked(
        one={"x": 1},
        two=refusal(503, "another survey is under way"),
        three=UpstreamError("away"),
        four={"x": "y"},
        five=refusal(404, "no such policy"),
    )

    assert found.answers == {"one": {"x": 1}}
    assert found.problems.keys() == {"two", "three", "four", "five"}
    assert found.problems["two"] == "Refused: another survey is under way"
    assert "its answer is not that of this release" in found.problems["four"]
    assert found.as_object()["asked"] == 5


@pytest.mark.parametrize("status", [401, 403, 413, 422])
def test_what_is_wrong_with_the_request_or_the_key_is_an_error_at_once(status):
    field = FieldError(field="policy.spec", message="is wrong")
    with pytest.raises(ContentError) as raised:
        asked(one={"x": 1}, two=refusal(status, "wrong", field))

    assert [(each.field, each.message) for each in raised.value.problems] == [("policy.spec", "is wrong")]


def test_where_nobody_answers_it_is_said_why():
    with pytest.raises(UpstreamError, match="no gateway has an answer: away; Refused: busy"):
        asked(one=UpstreamError("away"), two=refusal(503, "busy"), three=UpstreamError("away"))
    with pytest.raises(NotFound, match="no gateway has an answer: there is no decision 'x'"):
        asked(one=refusal(404, "there is no decision 'x'"), two=refusal(404, "there is no decision 'x'"))


@pytest.fixture
def api_server():
    """Answer every request as the test says, and remember what was asked and shown."""
    said: dict[str, Any] = {"status": 200, "body": b"{}", "headers": {}, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["asked"].append((self.path, self.headers["X-API-Key"]))
            self.send_response(said["status"])
            for name, value in said["headers"].items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said["body"])))
            self.end_headers()
            self.wfile.write(said["body"])

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        said["url"] = f"http://127.0.0.1:{server.server_port}"
        yield said
        server.shutdown()
        thread.join()


def ask_pod(api_server: dict[str, Any]) -> tuple[int, bytes]:
    configuration = Configuration()
    configuration.host, configuration.retries, configuration.proxy = api_server["url"], False, None
    cluster = Cluster(ApiClient(configuration), "trust-safety")
    return cluster.ask_pod("baleen-system", "gateway-0", 8080, "GET", "/v1/x?a=1", headers={"X-API-Key": "secret"})


def test_a_pod_is_asked_through_the_api_server_and_its_answers_are_its_own(api_server):
    api_server |= {"status": 422, "body": b'{"detail": "no"}'}

    assert ask_pod(api_server) == (422, b'{"detail": "no"}')
    assert api_server["asked"] == [("/api/v1/namespaces/baleen-system/pods/gateway-0:8080/proxy/v1/x?a=1", "secret")]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, b'{"kind": "Status", "apiVersion": "v1", "message": "no"}', "you may not get pods/proxy 'gateway-0'"),
        (404, b'{"kind": "Status", "apiVersion": "v1", "message": "gone"}', "cannot get pods/proxy 'gateway-0': gone"),
        (503, b'{"kind": "Status", "apiVersion": "v1", "message": "refused"}', "'gateway-0' in namespace .*: refused"),
        (200, b" " * 101, "the answer has more than the limit of 100 bytes"),
    ],
)
def test_what_the_api_server_says_itself_is_told_from_what_a_pod_says(api_server, monkeypatch, status, body, words):
    monkeypatch.setattr(cluster_module, "LIMIT_ANSWER_BYTES", 100)
    api_server |= {"status": status, "body": body}

    with pytest.raises(ClusterError, match=words):
        ask_pod(api_server)


def test_a_gateway_sends_nobody_elsewhere_with_the_key(api_server):
    api_server |= {"status": 302, "headers": {"Location": f"{api_server['url']}/elsewhere"}}

    assert ask_pod(api_server)[0] == 302
    assert len(api_server["asked"]) == 1


def test_what_is_no_address_of_a_gateway_is_named_as_the_option_is():
    with pytest.raises(ContentError, match=r"--gateway: 'gateway-0' is not an address such as"):
        find_gateways(Cluster(ApiClient(Configuration()), "default"), "baleen-system", ["gateway-0"])


NO_LIMITS: dict[str, str | None] = {"maxFlipRate": None, "maxNewBlocks": None}


@pytest.mark.parametrize(
    ("written", "limits", "gate"),
    [
        pytest.param(None, {}, None, id="no gate"),
        pytest.param(
            {"decisions": 5000, "maxFlipRate": "2%", "maxNewBlocks": "0.5%"},
            {},
            BacktestGate(decisions=5000, max_flip_rate=20_000, max_new_blocks=5_000),
            id="as written",
        ),
        pytest.param(
            {"decisions": 5000, "maxFlipRate": "2%"},
            {"maxFlipRate": "5%"},
            BacktestGate(decisions=5000, max_flip_rate=50_000),
            id="a limit that is named counts",
        ),
        pytest.param(
            None, {"maxNewBlocks": "1%"}, BacktestGate(decisions=1, max_new_blocks=10_000), id="a limit alone is a gate"
        ),
    ],
)
def test_an_edit_is_held_to_its_own_gate_or_to_limits_that_are_named(written, limits, gate):
    spec = {} if written is None else {"gates": {"backtest": written}}

    assert read_gate({"spec": spec}, NO_LIMITS | limits) == gate


def test_a_limit_that_is_none_is_named():
    with pytest.raises(ContentError, match=r"spec\.gates\.backtest\.maxFlipRate: "):
        read_gate({"spec": {}}, NO_LIMITS | {"maxFlipRate": "many"})


async def test_flips_are_those_of_the_rollout_under_way_or_of_the_last_that_failed():
    site = await rolling(122)
    candidate = site.route["candidate"]["digest"]
    under_way, named = (
        choose_sides(facts_of(site), *sides, site.clock.now) for sides in (("", ""), ("v1", candidate[:20]))
    )
    ending = await rolling(61, rollout={"progressDeadlineSeconds": 60, "onDeadline": "RollBack"})
    failed = choose_sides(facts_of(ending), "", "", ending.clock.now)

    assert under_way == named == (site.stable, candidate)
    assert "candidate" not in ending.route
    assert failed == (ending.stable, ending.status["failed"][0]["digest"])


async def test_where_nothing_was_rolled_out_both_sides_have_to_be_named():
    site = await rolling()
    await site.apply(policy("92%", version="v1"))

    with pytest.raises(NotFound, match=r"name both sides of a rollout: sha256:\w+ \(v1\)"):
        choose_sides(facts_of(site), "", "", site.clock.now)


def performance(site: Any, *records: Any, seconds: float = 10, **fields: Any) -> PerformanceAnswer:
    return to_performance_answer(
        Surveyed(
            policy=KEY,
            found=summarize_performance(on_record(), records),
            decisions=len(records),
            scanned=len(records),
            seconds=seconds,
            ended=LookedBack.WINDOW,
            **{"in_force": site.stable, "candidate": site.route["candidate"]["digest"], **fields},
        )
    )


async def test_what_gateways_decide_is_added_up_for_each_revision():
    site = await rolling(122)
    stable, candidate = site.stable, site.route["candidate"]["digest"]
    by_old, by_stable, by_new = ref("sha256:old", version="v0"), ref(stable), ref(candidate, version="v2")
    trial = tried(ALLOW, BLOCK, stable=stable, candidate=candidate)
    one = performance(site, *[decided(ALLOW, by_stable, trials=(trial,))] * 20, decided(BLOCK, by_new, trials=(trial,)))
    two = performance(site, *[decided(REVIEW, by_stable)] * 10, decided(ALLOW, by_old), seconds=5, candidate="")
    answers = {"one": {"trust-safety/community": one}, "two": {"trust-safety/community": two}, "three": {}}
    rows = top_rows(facts_of(site), answers, site.clock.now)

    assert [(row.side, row.digest, row.version) for row in rows] == [
        (STABLE, stable, "v1"),
        (CANDIDATE, candidate, "v2"),
        ("", "sha256:old", "v0"),
    ]
    assert [row.per_second for row in rows] == [4.0, 0.1, 0.2]
    assert [row.outcomes for row in rows] == [(20, 10, 0), (0, 0, 1), (1, 0, 0)]
    assert (rows[0].said, rows[1].said, rows[1].weight) == ((21, 0, 0), (0, 0, 21), "5%")
    assert [(row.enforcing, row.answered) for row in rows[:2]] == [(2, 3), (1, 3)]


async def test_decisions_of_a_log_that_gateways_share_are_shown_once_and_all_gateways_count():
    site = await rolling(122)
    stable, candidate = site.stable, site.route["candidate"]["digest"]
    log = [*[decided(ALLOW, ref(stable))] * 20, *[decided(BLOCK, ref(candidate, version="v2"))] * 5]
    shared = [performance(site, *log, log="db"), performance(site, *log, log="db", candidate="")]
    own = performance(site, *[decided(REVIEW, ref(stable))] * 10)
    answers = {str(n): {"trust-safety/community": each} for n, each in enumerate([*shared, own])}
    rows = top_rows(facts_of(site), answers, site.clock.now)

    assert [(row.side, row.outcomes, row.per_second) for row in rows] == [
        (STABLE, (20, 10, 0), 3.0),
        (CANDIDATE, (0, 0, 5), 0.5),
    ]
    assert [(row.enforcing, row.answered) for row in rows] == [(3, 3), (2, 3)]


async def test_decisions_that_may_be_of_the_policy_are_counted_once_for_each_log():
    site = await rolling(122)
    shared = [performance(site, log="db", no_namespace=5), performance(site, log="db", no_namespace=5)]
    own = performance(site, no_namespace=2)
    answers = {str(n): {"trust-safety/community": each} for n, each in enumerate([*shared, own])} | {"none": {}}

    assert count_no_namespace(facts_of(site), answers) == 7


async def test_a_revision_that_is_in_force_and_decided_nothing_is_shown():
    site = await rolling(122)
    await site.apply(override_manifest(pin={"digest": site.stable}))
    await pass_time(site, 1)
    (row,) = top_rows(facts_of(site), {"one": {}}, site.clock.now)

    assert (row.digest, row.side, row.per_second, row.decisions, row.enforcing) == (site.stable, STABLE, 0, 0, 0)
