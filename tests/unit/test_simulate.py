"""Simulations: how far back they look, and when they stop."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec import UNSET, UnsetType, structs

from baleen_core.decision.backtest import Ended, GateReason
from baleen_core.decision.engine import Sides, compile_policy
from baleen_core.errors import ContentError, Overloaded
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import BacktestGate, ListType, Revision
from baleen_core.policy_stream import BacktestQuestion, BacktestRevision
from baleen_core.records import Decision, DecisionRecord, Evidence
from baleen_sidecar.testing import MemoryDecisionLog, MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.policy_documents import Document, Documents
from baleen_sidecar.usecases.simulate import Draft, Simulate
from evidence import decide_by, make_evidence, make_model
from policies import policy_manifest

SCORE = "pictures.gore"
MODELS = (make_model("pictures", "gore"),)


def manifest(review: str) -> dict[str, Any]:
    return policy_manifest({"categories": [{"name": "gore", "signals": [{"name": SCORE, "review": review}]}]})


class Site:
    """A policy in force, a log, and a clock that moves by `tick` seconds each time that somebody looks."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store, self.log, self.tick = MemoryRevisionStore(), MemoryDecisionLog(), 0.0
        self.adopt = AdoptPolicies(self.store, MODELS, executor=executor, wall_seconds=lambda: 0.0)
        self.clock = itertools.count()
        self.simulate = Simulate(
            self.adopt.current,
            lambda: MODELS,
            self.log,
            self.store,
            executor=executor,
            monotonic_seconds=lambda: next(self.clock) * self.tick,
            page_rows=10,
            limit_seconds=30.0,
            min_scanned=30,
        )

    async def put_in_force(self, policy: dict[str, Any]) -> None:
        await self.adopt.adopt(Documents(documents=(Document(file="a.yaml", body=policy),)))

    async def decide(
        self, *scores: int, elsewhere: bool = False, namespace: str | UnsetType | None = None, digest: str = ""
    ) -> None:
        """Put decisions of the policy in force on record, or of another one that is called otherwise.

        Of another `namespace` or revision where one is named; UNSET is what earlier releases wrote.
        """
        (loaded,) = self.adopt.current().policies
        for score in scores:
            evidence = make_evidence({SCORE: score})
            decision = decide_by(loaded.compiled, evidence=evidence)
            if elsewhere:
                refs = tuple(structs.replace(ref, name="other") for ref in decision.policies)
                decision = structs.replace(decision, policies=refs)
            if namespace is not None:
                refs = tuple(
                    structs.replace(ref, namespace=namespace, digest=digest or ref.digest) for ref in decision.policies
                )
                decision = structs.replace(decision, policies=refs)
            await self._put(evidence, decision)

    async def try_out(self, stable: Revision, candidate: Revision, *scores: int, exposed: bool) -> None:
        """Put decisions on texts on record that were made while one revision was rolled out beside the other."""
        compiled = []
        for each in (stable, candidate):
            await self.store.put_revision("trust-safety/community", each)
            content = read_revision(each)
            compiled.append(compile_policy("community", "v1.0.0", content, (SCORE,), namespace="trust-safety"))
        sides = Sides(stable=compiled[0], candidate=compiled[1], group=0, exposed=exposed)
        for score in scores:
            evidence = make_evidence({SCORE: score}, type="text")
            await self._put(evidence, decide_by(compiled[exposed], evidence=evidence, trials=(sides,)))

    async def _put(self, evidence: Evidence, decision: Decision) -> None:
        name = f"{await self.log.count():06}"
        await self.log.append(DecisionRecord(id=name, time="", evidence=evidence, decision=decision))


@pytest.fixture
async def site():
    with ThreadPoolExecutor(1) as executor:
        site = Site(executor)
        await site.put_in_force(manifest("50%"))
        yield site


async def test_the_newest_decisions_are_compared_until_there_are_enough(site):
    await site.decide(*[400_000] * 25, *[100_000] * 15)

    enough = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=15)
    more = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=16)
    everything = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=41)

    assert (enough.found.compared, enough.found.flips.overall.flips, enough.ended) == (15, 0, Ended.ENOUGH)
    assert (more.found.compared, more.found.flips.overall.flips, more.ended) == (16, 1, Ended.ENOUGH)
    assert (everything.found.compared, everything.found.flips.overall.flips) == (40, 25)
    assert everything.ended is Ended.END_OF_LOG


async def test_what_others_decided_is_passed_over_up_to_a_limit(site):
    await site.decide(400_000)
    await site.decide(*[400_000] * 49, elsewhere=True)

    four = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=4)
    five = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=5)

    assert (four.found.compared, four.found.elsewhere, four.ended) == (0, 40, Ended.SCAN_LIMIT)
    assert (five.found.compared, five.found.elsewhere, five.ended) == (1, 49, Ended.SCAN_LIMIT)


async def test_decisions_of_a_policy_of_the_same_name_in_another_namespace_are_passed_over(site):
    await site.decide(*[400_000] * 4)
    await site.decide(*[100_000] * 6, namespace="elsewhere")
    found = (await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=10)).found

    assert (found.compared, found.elsewhere, found.unknown) == (4, 6, 0)


async def test_decisions_without_a_namespace_are_compared_where_a_revision_of_the_policy_judged(site):
    earlier = site.adopt.current().statuses[0].digest
    await site.put_in_force(manifest("60%"))
    await site.decide(*[400_000] * 3, namespace=UNSET)
    await site.decide(*[400_000] * 4, namespace=UNSET, digest=earlier)
    await site.decide(*[400_000] * 5, namespace=UNSET, digest="sha256:another")
    gate = BacktestGate(decisions=12, max_flip_rate=None, max_new_blocks=None)
    said = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=12, gate=gate)

    assert (said.found.compared, said.found.unknown, said.found.no_namespace) == (7, 5, 5)
    assert said.gate.reason is GateReason.NAMESPACE_MISSING
    assert said.gate.message.startswith(
        "5 of 12 logged decisions cannot be judged again, 5 of them since an earlier release wrote them without"
    )


async def test_what_an_operator_asks_is_about_one_namespace_too(site):
    await site.decide(*[400_000] * 4)
    ours, _ = await site.simulate.compare(question("50%", "20%"))
    theirs, _ = await site.simulate.compare(structs.replace(question("50%", "20%"), policy="elsewhere/community"))

    assert (ours.compared, theirs.compared, theirs.elsewhere) == (4, 0, 4)


@pytest.mark.parametrize("decisions", [1, 2])
async def test_however_few_are_wanted_enough_are_looked_at_to_find_them(site, decisions):
    # More of others than the ten that are looked at for each that is wanted.
    await site.decide(*[400_000] * decisions)
    await site.decide(*[400_000] * 25, elsewhere=True)

    found = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=decisions)

    assert (found.found.compared, found.ended) == (decisions, Ended.ENOUGH)


async def test_of_a_page_no_more_are_compared_than_are_wanted(site):
    await site.decide(*[400_000] * 25)

    found = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=13)

    assert (found.found.compared, found.ended) == (13, Ended.ENOUGH)


async def test_a_simulation_takes_no_longer_than_it_may(site):
    await site.decide(*[400_000] * 100)
    site.tick = 10.0

    found = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=100)

    assert (found.ended, found.found.compared) == (Ended.TIME_LIMIT, 20)


async def test_a_simulation_that_nobody_wants_any_more_ends_with_its_page(site):
    await site.decide(*[400_000] * 100)
    asked = itertools.count(1)

    async def is_wanted() -> bool:
        return next(asked) <= 3

    found = await site.simulate.run("community", Draft(policy=manifest("20%")), is_wanted=is_wanted)

    assert (found.ended, found.found.compared) == (Ended.ABANDONED, 30)


async def test_decisions_of_earlier_revisions_are_judged_by_the_one_in_force(site):
    await site.decide(*[400_000] * 10)
    await site.put_in_force(manifest("30%"))

    found = await site.simulate.run("community", Draft(policy=manifest("20%")))

    assert (found.found.compared, found.found.flips.overall.flips) == (10, 0)


async def test_after_a_failure_the_next_simulation_runs(site):
    await site.decide(400_000)
    site.log.newest, newest = None, site.log.newest
    with pytest.raises(TypeError):
        await site.simulate.run("community", Draft(policy=manifest("20%")))
    site.log.newest = newest

    assert (await site.simulate.run("community", Draft(policy=manifest("20%")))).found.compared == 1


@pytest.mark.parametrize(
    ("decisions", "elsewhere", "tick", "said"),
    [
        pytest.param(5, 0, 0.0, "no more than `decisions` (5) are compared", id="fewer were asked for"),
        pytest.param(5, 60, 0.0, "no more than the newest 50 of the log are looked at", id="most are of others"),
        pytest.param(20, 0, 20.0, "no more could be judged in 30 s", id="the time was over"),
        pytest.param(20, 0, 0.0, "wait until more are logged", id="the log has no more"),
    ],
)
async def test_a_gate_that_found_too_few_says_what_kept_it_from_more(site, decisions, elsewhere, tick, said):
    await site.decide(*[400_000] * (15 if elsewhere == 0 else 3))
    await site.decide(*[400_000] * elsewhere, elsewhere=True)
    site.tick = tick
    gate = BacktestGate(decisions=20, max_flip_rate=1)

    found = await site.simulate.run("community", Draft(policy=manifest("50%")), decisions=decisions, gate=gate)

    assert found.gate is not None
    assert found.gate.reason is GateReason.TOO_FEW_DECISIONS
    assert said in found.gate.message


def question(stable: str, candidate: str, **more: Any) -> BacktestQuestion:
    """Ask about two revisions of the policy, neither of which need be in force."""
    sides = [make_revision(parse_policy(manifest(review)), {}) for review in (stable, candidate)]
    before, after = (BacktestRevision(digest=each.digest, content=each.content) for each in sides)
    return BacktestQuestion(
        policy="trust-safety/community", **({"stable": before, "candidate": after, "decisions": 9} | more)
    )


async def test_two_revisions_are_compared_whatever_is_in_force(site):
    await site.decide(*[400_000] * 12)

    found, ended = await site.simulate.compare(question("45%", "35%"))

    assert (found.compared, found.flips.overall.flips, ended) == (9, 9, Ended.ENOUGH)


async def test_a_revision_that_is_not_what_its_digest_names_is_compared_with_nothing(site):
    asked = question("45%", "35%")
    forged = structs.replace(asked.candidate, content=asked.stable.content)

    with pytest.raises(ContentError, match=r"^candidate: "):
        await site.simulate.compare(structs.replace(asked, candidate=forged))


async def test_lists_of_digests_come_with_the_question_or_are_on_record(site):
    await site.decide(*[400_000] * 3)
    digest = make_evidence({SCORE: 0}).content.digest
    banned, other = (read_list(ListType.DIGEST, each) for each in (digest, "e" * 64))
    source = {"type": "ConfigMap", "name": "known", "key": "digests"}
    listed = manifest("45%")
    listed["spec"]["policy"]["lists"] = [{"name": "known", "type": "Digest", "action": "Block", "source": source}]
    revision = make_revision(parse_policy(listed), {"known": banned})
    asked = structs.replace(
        question("45%", "45%"), candidate=BacktestRevision(digest=revision.digest, content=revision.content)
    )

    unknown, _ = await site.simulate.compare(asked)
    brought, _ = await site.simulate.compare(structs.replace(asked, lists={banned.digest: canonical_list(banned)}))
    await site.store.put_list(banned.digest, canonical_list(banned))
    on_record, _ = await site.simulate.compare(asked)

    assert (unknown.unknown, unknown.lists) == (3, {"known": 3})
    assert brought.flips.overall.new_blocks == on_record.flips.overall.new_blocks == 3
    with pytest.raises(ContentError, match=f"lists.{banned.digest}: is the list {other.digest}"):
        await site.simulate.compare(structs.replace(asked, lists={banned.digest: canonical_list(other)}))


@pytest.mark.parametrize("exposed", [True, False], ids=["the candidate counted", "a shadow"])
async def test_lists_that_either_side_of_a_rollout_looked_up_are_known(site, exposed):
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms"}
    slurs = {"slurs": read_list(ListType.TERMS, "fool")}

    def listing(review: str) -> Revision:
        listed = manifest(review)
        listed["spec"]["policy"]["lists"] = [{"name": "slurs", "type": "Terms", "action": "Block", "source": source}]
        return make_revision(parse_policy(listed), slurs)

    without = make_revision(parse_policy(manifest("50%")), {})
    stable, candidate = (listing("45%"), without) if exposed else (without, listing("45%"))
    await site.try_out(stable, candidate, *[400_000] * 3, exposed=exposed)
    before, after = (BacktestRevision(digest=each.digest, content=each.content) for each in (stable, listing("35%")))

    found, _ = await site.simulate.compare(structs.replace(question("50%", "50%"), stable=before, candidate=after))

    assert (found.compared, found.unknown, found.lists) == (3, 0, {})


async def test_one_question_is_answered_at_a_time(site):
    await site.decide(*[400_000] * 100)

    async def is_wanted() -> bool:
        with pytest.raises(Overloaded):
            await site.simulate.compare(question("45%", "35%"))
        return False

    found, ended = await site.simulate.compare(question("45%", "35%", decisions=100), is_wanted=is_wanted)

    assert (found.compared, ended) == (0, Ended.ABANDONED)
