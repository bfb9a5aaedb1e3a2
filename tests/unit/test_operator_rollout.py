"""How an edit goes live by steps: the state machine by itself, and in a cluster with people, time and restarts."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from baleen_core.analysis.metrics import MetricType
from baleen_core.assignment import Exposure
from baleen_core.errors import Stale
from baleen_core.policy.schema import OnDeadline, Plan, Step, StepType, Until, Verdict
from baleen_core.policy_stream import LATENCY_BOUNDS, TrialCounts, cell_index, flip_index
from baleen_core.records import Cohort
from baleen_core.resources import OVERRIDE_KIND, POLICY_KIND, ROUTE_KIND
from baleen_operator.plan.actions import Action, Apply
from baleen_operator.plan.rollout import NOBODY, Facts, Outcome, Progress, State, advance, begin, exposure_of, resume
from baleen_operator.plan.trial import cohort_counts, latency_counts, newest, paired_counts, tally
from baleen_operator.reconcile.ports import Acknowledged
from memory_cluster import FixedGateways, Killed
from policies import override_manifest
from policy_site import TROUBLES, Site, lose_status, pass_time, policy

START = datetime(2026, 2, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
PLAN = Plan(
    steps=(
        Step(name="shadow", type=StepType.SHADOW, until=Until(decisions=100, timeout_seconds=600)),
        Step(name="staff", type=StepType.MATCH, tenants=("staff",), until=Until(seconds=60)),
        Step(name="canary", type=StepType.WEIGHT, weight_basis_points=500, until=Until(seconds=60, decisions=50)),
        Step(name="sign-off", type=StepType.APPROVAL),
        Step(name="half", type=StepType.WEIGHT, weight_basis_points=5000, until=Until(seconds=60)),
    ),
    progress_deadline_seconds=86_400,
)
STEPS: list[dict[str, Any]] = [
    {"name": "shadow", "type": "Shadow", "until": {"seconds": 60}},
    {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 300}},
    {"name": "sign-off", "type": "Approval"},
    {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 300}},
]


def facts(seconds: float = 0, **said: Any) -> Facts:
    return Facts(now=START + timedelta(seconds=seconds), **({"is_everywhere": True} | said))


def at(step: str, seconds: float = 0, **fields: Any) -> State:
    """Return a state in a step that began so many seconds after the rollout."""
    began = START + timedelta(seconds=seconds)
    return replace(begin(PLAN, DIGEST, "v2", START), **({"step": step, "step_time": began} | fields))


def told(progress: Progress) -> tuple[str, Exposure, str]:
    return progress.state.step, progress.exposure, progress.reason


# The state machine


def test_nothing_is_exposed_before_everybody_has_the_candidate():
    waiting = advance(PLAN, begin(PLAN, DIGEST, "v2", START), facts(50, is_everywhere=False, missing_at="gw-1"))
    begun = advance(PLAN, waiting.state, facts(70))

    assert told(waiting) == ("shadow", NOBODY, "Preparing")
    assert "gw-1" in waiting.message
    assert begun.state.step_time == START + timedelta(seconds=70)


def test_a_step_ends_when_all_that_it_is_until_is_reached():
    early = advance(PLAN, at("canary"), facts(59, exposed=50))
    few = advance(PLAN, early.state, facts(60))
    still = advance(PLAN, at("canary"), facts(61, decisions=1000))

    assert told(early) == ("canary", Exposure(weight_basis_points=500), "Holding")
    assert "until 2026-02-01T00:01:00Z and 50 of 50 decisions" in early.message
    assert early.wait_seconds == pytest.approx(1)
    assert few.state.step == "sign-off"
    # Only what the candidate decided itself counts where it decides.
    assert still.state.step == "canary"


def test_a_shadow_counts_what_both_sides_judged_and_ends_by_its_timeout_in_any_case():
    counted = advance(PLAN, at("shadow"), facts(1, decisions=100))
    late = advance(PLAN, at("shadow"), facts(600))

    assert told(counted) == ("staff", Exposure(tenants=("staff",)), "Holding")
    assert counted.again
    assert late.state.step == "staff"


def test_an_approval_waits_with_the_exposure_of_the_step_before():
    waiting = advance(PLAN, at("sign-off"), facts(80_000))
    other = advance(PLAN, at("sign-off"), facts(1, approved="canary"))
    approved = [advance(PLAN, at("sign-off"), facts(1, approved=step)) for step in ("", "sign-off", "half")]

    assert told(waiting) == ("sign-off", Exposure(weight_basis_points=500), "AwaitingApproval")
    assert other.state.step == "sign-off"
    assert {each.state.step for each in approved} == {"half"}


def test_the_last_step_promotes():
    assert advance(PLAN, at("half"), facts(59)).outcome is Outcome.GOES_ON
    assert advance(PLAN, at("half"), facts(60)).outcome is Outcome.PROMOTED


@pytest.mark.parametrize(
    ("on_deadline", "outcome"), [(OnDeadline.HOLD, Outcome.STUCK), (OnDeadline.ROLL_BACK, Outcome.ROLLED_BACK)]
)
def test_a_rollout_that_takes_too_long_holds_or_goes_back(on_deadline: OnDeadline, outcome: Outcome):
    plan = replace(PLAN, progress_deadline_seconds=100, on_deadline=on_deadline)
    over = advance(plan, at("canary", 90), facts(100))

    assert (over.outcome, over.reason, over.exposure.weight_basis_points) == (outcome, "DeadlineExceeded", 500)


def test_while_it_is_paused_nothing_moves_and_nobody_is_taken_back():
    paused = advance(PLAN, at("half"), facts(99_999, paused="somebody says so"))

    assert told(paused) == ("half", Exposure(weight_basis_points=5000), "Paused")
    assert paused.outcome is Outcome.GOES_ON


def test_the_time_of_a_pause_counts_for_nothing():
    paused = advance(PLAN, at("half"), facts(50, paused="somebody says so"))
    longer = advance(PLAN, paused.state, facts(90_000, paused="somebody says so"))
    on = advance(PLAN, longer.state, facts(90_001))
    over = advance(PLAN, on.state, facts(90_011))

    assert longer == replace(paused, state=longer.state)
    assert (on.outcome, on.state.pause_time) == (Outcome.GOES_ON, None)
    assert "until 2026-02-02T01:00:11Z" in on.message
    assert over.outcome is Outcome.PROMOTED


def test_what_only_a_person_can_decide_is_looked_at_again_by_nobody_else():
    late = facts(90_000, approved="canary")

    assert advance(PLAN, at("sign-off"), late).wait_seconds is None
    assert advance(PLAN, at("sign-off"), facts(80_000)).wait_seconds == pytest.approx(6_400)


def test_another_plan_begins_again():
    other = replace(PLAN, steps=PLAN.steps[1:])

    assert resume(at("half"), PLAN, DIGEST, "v2", START).step == "half"
    assert resume(at("half"), other, DIGEST, "v2", START).step == "staff"
    assert resume(at("half"), PLAN, "sha256:" + "b" * 64, "v3", START).step == "shadow"


untils = st.builds(
    Until, seconds=st.integers(0, 30), decisions=st.integers(0, 30), timeout_seconds=st.none() | st.integers(30, 60)
)
some_steps = st.one_of(
    st.builds(Step, name=st.just(""), type=st.just(StepType.SHADOW), until=untils),
    st.builds(Step, name=st.just(""), type=st.just(StepType.MATCH), tenants=st.just(("staff",)), until=untils),
    st.builds(
        Step, name=st.just(""), type=st.just(StepType.WEIGHT), weight_basis_points=st.integers(0, 10_000), until=untils
    ),
    st.builds(Step, name=st.just(""), type=st.just(StepType.APPROVAL)),
)
plans = st.lists(some_steps, min_size=1, max_size=6).map(
    lambda steps: Plan(steps=tuple(replace(step, name=f"s{number}") for number, step in enumerate(steps)))
)
looks = st.fixed_dictionaries(
    {
        "seconds": st.integers(0, 20),
        "is_everywhere": st.booleans(),
        "paused": st.sampled_from(["", "", "somebody says so"]),
        "approved": st.sampled_from([None, None, "", "s0", "s3"]),
        "decisions": st.integers(0, 20),
        "exposed": st.integers(0, 20),
        "is_lost": st.booleans(),
    }
)


@given(plans, st.lists(looks, max_size=40))
def test_no_step_is_skipped_shortened_or_gone_back_to(plan: Plan, events: list[dict[str, Any]]):
    """Whatever comes when: what was decided is routed, and where that was not written down (`is_lost`) it goes on."""
    names = [step.name for step in plan.steps]
    written, routed, furthest, now = begin(plan, DIGEST, "v2", START), NOBODY, 0, START
    for event in events:
        now += timedelta(seconds=event["seconds"])
        said = {name: event[name] for name in ("is_everywhere", "paused", "approved", "decisions", "exposed")}
        given_now = Facts(now=now, **said)
        state = resume(written, plan, DIGEST, "v2", now, routed=routed, approved=given_now.approved)
        progress = advance(plan, state, given_now)
        before, after = names.index(state.step), names.index(progress.state.step)

        assert progress == advance(plan, state, given_now)
        assert before >= names.index(written.step)
        assert after in (before, before + 1)
        assert progress.exposure in (NOBODY, exposure_of(plan, after))
        if state.step_time is None and not event["is_everywhere"]:
            assert (after, progress.exposure) == (before, NOBODY)
        through = {None: 0, "": len(names)}.get(said["approved"])
        if through is None:
            through = names.index(said["approved"]) + 1 if said["approved"] in names else 0
        is_withdrawn = any(
            step.type is StepType.APPROVAL and number >= through
            for number, step in list(enumerate(plan.steps))[after:furthest]
        )
        if progress.exposure != routed and not is_withdrawn:
            assert after >= furthest, "nobody is taken back to a step that was over"
        if after > before or progress.outcome is Outcome.PROMOTED:
            step = plan.steps[before]
            assert not event["paused"]
            spent = (now - (state.step_time or now)).total_seconds()
            timed_out = step.until.timeout_seconds is not None and spent >= step.until.timeout_seconds
            assert timed_out or spent >= step.until.seconds
        if progress.outcome is Outcome.PROMOTED:
            assert after == len(names) - 1
            return
        if progress.exposure != routed:
            routed, furthest = progress.exposure, after
        if not event["is_lost"]:
            written = progress.state


# In a cluster


@pytest.fixture
def site() -> Site:
    return Site()


def stepped(block: str, version: str, **spec: Any) -> dict[str, Any]:
    return policy(block, version=version, rollout={"steps": STEPS} | spec.pop("rollout", {}), **spec)


def candidate(site: Site) -> dict[str, Any]:
    return site.route.get("candidate", {})


async def test_an_edit_goes_through_its_steps_and_is_promoted(site):
    await site.apply(stepped("92%", "v1"))
    first = site.stable
    salt = None
    await site.apply(stepped("80%", "v2"))
    second = candidate(site)["digest"]
    salt = site.route["assignment"]["salt"]

    assert (site.stable, site.route["epoch"] > 1, candidate(site)["shadow"]) == (first, True, True)
    assert site.condition("Ready") == ("False", "Shadow")
    assert site.condition("Reconciling") == ("True", "Shadow")
    assert site.condition("Accepted")[0] == "True"
    assert site.status["candidate"]["step"] == "shadow"
    assert site.revision(second)["spec"]["digest"] == second

    await pass_time(site, 61)
    assert candidate(site) == {"digest": second, "weightBasisPoints": 500, "shadow": False}
    assert site.status["candidate"]["weight"] == "5%"
    await pass_time(site, 301)
    assert site.condition("Reconciling") == ("True", "AwaitingApproval")
    assert candidate(site)["weightBasisPoints"] == 500
    await site.apply(override_manifest(approve={"digest": second, "throughStep": "sign-off"}))
    assert candidate(site)["weightBasisPoints"] == 5000
    assert site.route["assignment"]["salt"] == salt
    # What is stable is told of once, whomever the candidate judges meanwhile.
    assert site.history() == [(1, "Applied")]
    await pass_time(site, 301)

    assert (site.stable, candidate(site), site.route.get("assignment")) == (second, {}, None)
    assert site.condition("Ready") == ("True", "InForce")
    assert [reason for _, reason in site.history()] == ["Promoted", "Applied"]
    assert site.route["recentStable"] == [first]
    assert "candidate" not in site.status
    assert [each for each in site.cluster.events() if each in ("RolloutStep", "Promoted")][-1] == "Promoted"


async def test_a_gateway_without_the_candidate_keeps_it_from_everybody(site):
    site.restart(gateways=FixedGateways(Acknowledged(total=2, current=1, stale=("gw-1",))))
    await site.apply(stepped("92%", "v1"))
    await site.apply(policy("80%", version="v2", rollout={"steps": STEPS[1:]}))
    await pass_time(site, 1000)

    assert candidate(site)["shadow"] is True
    assert site.condition("Reconciling") == ("True", "Preparing")
    assert "gw-1" in site.message("Reconciling")
    site.restart()
    await site.reconcile()
    assert candidate(site)["weightBasisPoints"] == 500


async def test_an_edit_supersedes_the_candidate_and_begins_at_the_first_step(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    await pass_time(site, 61)
    second = candidate(site)["digest"]
    await site.apply(stepped("70%", "v3"))

    assert candidate(site)["digest"] != second
    assert candidate(site)["shadow"] is True
    assert site.status["candidate"]["step"] == "shadow"


async def test_writing_what_is_stable_again_is_an_abort(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    await pass_time(site, 61)
    await site.apply(stepped("92%", "v1"))

    assert candidate(site) == {}
    assert site.condition("Ready") == ("True", "InForce")
    assert site.history() == [(1, "Applied")]


async def test_what_was_stable_a_while_ago_returns_at_once(site):
    await site.apply(stepped("92%", "v1"))
    first = site.stable
    await site.apply(policy("80%", version="v2"))
    await site.apply(stepped("92%", "v1"))

    assert (site.stable, candidate(site)) == (first, {})
    assert site.history()[0][1] == "Returned"


async def test_a_paused_rollout_stays_as_it_is_and_goes_on(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    await pass_time(site, 61)
    await site.apply(stepped("80%", "v2", paused=True))
    await pass_time(site, 10_000)

    assert site.condition("Reconciling") == ("True", "Paused")
    assert candidate(site)["weightBasisPoints"] == 500
    await site.apply(stepped("80%", "v2"))
    assert site.condition("Reconciling") == ("True", "Holding")
    await pass_time(site, 300)
    assert site.condition("Reconciling") == ("True", "AwaitingApproval")


async def test_beside_a_rejected_revision_nothing_goes_on(site):
    await site.apply(policy("95%", version="v0"))
    await site.apply(policy("92%", version="v1"))
    await site.apply(stepped("80%", "v2"))
    await pass_time(site, 61)
    await site.apply(override_manifest(reject=[site.stable]))
    await pass_time(site, 10_000)
    paused = site.condition("Reconciling"), site.message("Reconciling")
    await site.apply(policy("80%", version="v2"))

    assert paused[0] == ("True", "Paused")
    assert "rejects what is stable; what cannot wait goes live without rollout.steps" in paused[1]
    assert site.condition("Ready") == ("True", "InForce")


async def test_a_rejected_candidate_is_gone_and_its_approval_brings_it_back_to_the_first_step(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    await pass_time(site, 61)
    second = candidate(site)["digest"]
    await site.apply(override_manifest(reject=[second]))

    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "Rejected")
    site.cluster.remove(OVERRIDE_KIND, *("trust-safety", "community"))
    await site.reconcile()
    assert (candidate(site)["digest"], candidate(site)["shadow"]) == (second, True)


async def test_what_failed_is_not_tried_again_until_somebody_approves_it(site):
    slow = {"progressDeadlineSeconds": 100, "onDeadline": "RollBack"}
    await site.apply(stepped("92%", "v1", rollout=slow))
    first = site.stable
    await site.apply(stepped("80%", "v2", rollout=slow))
    second = candidate(site)["digest"]
    await pass_time(site, 101)
    await pass_time(site, 101)

    assert (site.stable, candidate(site)) == (first, {})
    assert site.condition("Stalled") == ("True", "DeadlineExceeded")
    assert "100 seconds" in site.message("Stalled")
    assert second in [each["digest"] for each in site.status["failed"]]
    await site.apply(override_manifest(approve={"digest": second}))
    assert candidate(site)["digest"] == second
    assert "failed" not in site.status

    # One approval is for one try.
    await pass_time(site, 101)
    await pass_time(site, 101)
    assert site.condition("Stalled") == ("True", "DeadlineExceeded")
    assert "once more" in site.message("Stalled")
    site.cluster.remove(OVERRIDE_KIND, "trust-safety", "community")
    await site.reconcile()
    await site.apply(override_manifest(approve={"digest": second}))
    assert candidate(site)["digest"] == second


async def test_a_change_of_what_cannot_go_by_steps_is_refused(site):
    await site.apply(stepped("92%", "v1"))
    before = site.find(ROUTE_KIND)
    content = site.find(POLICY_KIND)["spec"]["policy"] | {"enforcement": "DryRun"}
    site.cluster.edit(
        POLICY_KIND, "trust-safety", "community", lambda each: each["spec"].update(policy=content, version="v2")
    )
    await site.reconcile()

    assert site.condition("Accepted") == ("False", "Invalid")
    assert "spec.policy.enforcement" in site.message("Accepted")
    assert site.find(ROUTE_KIND) == before


async def test_an_approval_of_what_is_not_there_says_what_is(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    second = candidate(site)["digest"]
    await site.apply(override_manifest(approve={"digest": second, "throughStep": "signoff"}))
    step = site.message("Ready")
    await site.apply(override_manifest(approve={"digest": "sha256:" + "0" * 64}))

    assert "did you mean 'sign-off'?" in step
    assert "is no revision of this policy; known are" in site.message("Ready")


async def test_an_override_that_cannot_be_read_leaves_the_rollout_as_it_is(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    await pass_time(site, 61)
    before = candidate(site)
    broken = override_manifest(reject=["latest"])
    await site.apply(broken)
    await pass_time(site, 10_000)

    assert candidate(site) == before
    assert site.condition("Stalled") == ("True", "OverrideInvalid")
    site.cluster.remove(OVERRIDE_KIND, "trust-safety", "community")
    await site.reconcile()
    assert site.condition("Reconciling") == ("True", "AwaitingApproval")


async def test_a_lost_revision_of_the_candidate_is_written_again(site):
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2"))
    second = candidate(site)["digest"]
    name = site.revision(second)["metadata"]["name"]
    site.cluster.remove("ModerationPolicyRevision", "trust-safety", name)
    await site.reconcile()

    assert site.revision(second)["spec"]["digest"] == second


KEPT = {"gates": {"neverLoosen": ["toxicity"]}}


async def test_what_may_not_be_softened_is_refused_also_by_an_edit_that_takes_its_gate_away(site):
    await site.apply(policy("92%", version="v1", **KEPT))
    first = site.stable
    await site.apply(policy("95%", version="v2", **KEPT))
    refused = site.condition("Accepted"), site.condition("Stalled"), site.message("Accepted")
    await site.apply(policy("95%", version="v2"))
    together = site.condition("Accepted"), site.stable
    await site.apply(policy("90%", version="v3", **KEPT))

    assert refused[:2] == (("False", "GateFailed"), ("True", "GateFailed"))
    assert "spec.policy.categories[0].signals[0].block" in refused[2]
    assert "95% is above 92%" in refused[2]
    assert together == (("False", "GateFailed"), first)
    assert site.condition("Ready") == ("True", "InForce")


async def test_a_floor_of_what_may_not_be_softened_stays_a_floor(site):
    await site.apply(policy(version="v1", role="Floor", **KEPT))
    before = site.find(ROUTE_KIND)
    await site.apply(policy(version="v2", role="Policy", **KEPT))
    refused, after = site.condition("Accepted"), site.find(ROUTE_KIND)
    message = site.message("Accepted")
    await site.apply(policy(version="v2", role="Policy"))
    together = site.condition("Accepted"), site.find(ROUTE_KIND)

    assert (refused, after) == (("False", "GateFailed"), before)
    assert "spec.role: Unproven: it was Floor" in message
    assert together == (refused, before)


async def test_a_gate_is_taken_away_by_an_edit_of_its_own(site):
    await site.apply(policy("92%", version="v1", **KEPT))
    await site.apply(policy("92%", version="v1"))
    rows = site.history()
    await site.apply(policy("95%", version="v2"))

    # What is stable stays what it is by that.
    assert rows == [(1, "Applied")]
    assert site.condition("Ready") == ("True", "InForce")


async def test_a_new_gate_binds_the_edit_that_brings_it(site):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("95%", version="v2", **KEPT))

    assert site.condition("Accepted") == ("False", "GateFailed")


async def test_going_back_to_what_was_stable_needs_no_proof(site):
    await site.apply(policy("92%", version="v1"))
    first = site.stable
    await site.apply(policy("80%", version="v2", **KEPT))
    await site.apply(policy("92%", version="v1", **KEPT))

    assert site.stable == first
    assert site.history()[0][1] == "Returned"


# With an analysis

ANALYSIS = {
    "intervalSeconds": 1,
    "metrics": [{"name": "blocks", "type": "BlockRate", "maxIncrease": "1%", "maxDecrease": "1%"}],
}


class Gateway(FixedGateways):
    """One gateway, whose counts tests write."""

    def __init__(self) -> None:
        super().__init__()
        self.stable = ""
        self.process = "one"
        self.rollouts: set[str] = set()
        """Those that it was asked for."""
        self.flips = [0] * (64 * 9)
        self.decided = 0
        self.weights: dict[int, dict[int, int]] = {}
        self.missed = {"Stable": 0, "Candidate": 0}
        self.lies: dict[str, Any] = {}

    def begins_anew(self) -> None:
        """Start again, with nothing counted."""
        self.process += " and another"
        self.flips, self.decided, self.weights = [0] * (64 * 9), 0, {}

    def decides(self, count: int) -> None:
        """Count so many decisions of the candidate, in one group."""
        self.flips[0] += count
        self.decided += count

    def divided(self, count: int, side: Cohort, *, weight: int, seconds: float = 0.01, failed: bool = False) -> None:
        """Count so many decisions in every group, for a side that chance chose."""
        self.judged(count, Verdict.ALLOW, Verdict.ALLOW)
        self.decided += 64 * count if side is Cohort.CANDIDATE else 0
        cells = self.weights.setdefault(weight, {})
        for group in range(64):
            index = cell_index(group, side, seconds, failed=failed)
            cells[index] = cells.get(index, 0) + count

    def judged(self, count: int, stable: Verdict, candidate: Verdict) -> None:
        """Count so many decisions in every group."""
        for group in range(64):
            self.flips[flip_index(group, stable, candidate)] += count

    def trial(self, key: Any, rollout: str) -> Any:
        self.rollouts.add(rollout)
        cohorts = {"Stable": sum(self.flips) - self.decided, "Candidate": self.decided}
        counts = TrialCounts(
            stable=self.stable,
            candidate="sha256:c",
            rollout=rollout,
            process=self.process,
            flips=tuple(self.flips),
            cohorts=cohorts,
            weights={weight: dict(cells) for weight, cells in self.weights.items()},
            made={side: count + self.missed[side] for side, count in cohorts.items()},
        )
        return {"gw-1": structs.replace(counts, **self.lies)}


async def rolling(
    site: Site, steps: list[dict[str, Any]] | None = None, salt: Any = lambda: "salt-of-a-test", **analysis: Any
) -> Gateway:
    """Bring a rollout with an analysis to where everybody has its candidate, and return the gateway."""
    gateway = Gateway()
    site.restart(gateways=gateway, salt=salt)
    plan = {"analysis": ANALYSIS | analysis, "steps": STEPS[:2] if steps is None else steps}
    await site.apply(policy("92%", version="v1", rollout=plan))
    gateway.stable = site.stable
    await site.apply(policy("80%", version="v2", rollout=plan))
    return gateway


async def test_a_candidate_that_blocks_too_much_is_rolled_back_with_the_numbers(site):
    gateway = await rolling(site)
    gateway.judged(1000, Verdict.ALLOW, Verdict.ALLOW)
    gateway.judged(100, Verdict.ALLOW, Verdict.BLOCK)
    await pass_time(site, 5)

    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "AnalysisFailed")
    assert "blocks" in site.message("Stalled")
    assert "9.09%" in site.message("Stalled")
    assert [each["reason"] for each in site.status["failed"]] == ["AnalysisFailed"]


async def test_a_clock_that_was_put_back_keeps_no_candidate_from_being_rolled_back(site):
    gateway = await rolling(site)
    gateway.judged(1000, Verdict.ALLOW, Verdict.ALLOW)
    await pass_time(site, 5)
    gateway.judged(100, Verdict.ALLOW, Verdict.BLOCK)
    await pass_time(site, -3600)

    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "AnalysisFailed")


async def test_another_try_of_what_failed_is_another_rollout_for_those_who_count(site):
    salts = (f"salt {number}" for number in range(1000))
    gateway = await rolling(site, salt=lambda: next(salts))
    gateway.judged(100, Verdict.ALLOW, Verdict.BLOCK)
    await pass_time(site, 5)
    first, failed = set(gateway.rollouts), site.status["failed"][0]["digest"]
    gateway.flips = [0] * (64 * 9)
    await site.apply(override_manifest(approve={"digest": failed}))
    await pass_time(site, 5)

    assert candidate(site)["digest"] == failed
    assert len(first) == 1
    assert len(gateway.rollouts) == 2


async def test_a_candidate_that_stops_blocking_is_rolled_back_too(site):
    gateway = await rolling(site)
    gateway.judged(1000, Verdict.BLOCK, Verdict.BLOCK)
    gateway.judged(100, Verdict.BLOCK, Verdict.ALLOW)
    await pass_time(site, 5)

    assert site.condition("Stalled") == ("True", "AnalysisFailed")


async def test_a_candidate_that_is_like_the_stable_one_goes_through(site):
    gateway = await rolling(site)
    gateway.judged(20_000, Verdict.ALLOW, Verdict.ALLOW)
    gateway.judged(2_000, Verdict.BLOCK, Verdict.BLOCK)
    gateway.judged(1, Verdict.ALLOW, Verdict.REVIEW)
    await pass_time(site, 5)
    seen = site.status
    await pass_time(site, 61)
    await pass_time(site, 301)

    assert seen["analysis"]["verdict"] == "Pass"
    [metric] = seen["analysis"]["metrics"]
    assert (metric["name"], metric["stable"], metric["candidate"]) == ("blocks", "9.09%", "9.09%")
    assert seen["flips"] == [{"from": "Allow", "to": "Review", "count": 64}]
    assert site.condition("Ready") == ("True", "InForce")
    assert "analysis" not in site.status


@pytest.mark.parametrize(
    ("on_inconclusive", "reason", "is_routed"),
    [("Hold", "Holding", True), ("Promote", "InForce", False), ("RollBack", "AnalysisInconclusive", False)],
)
async def test_what_is_not_known_when_a_step_ends_is_for_the_policy_to_say(site, on_inconclusive, reason, is_routed):
    gateway = await rolling(site, STEPS[1:2], onInconclusive=on_inconclusive)
    gateway.judged(1, Verdict.ALLOW, Verdict.ALLOW)
    await pass_time(site, 301)

    assert site.condition("Ready")[1] == reason
    assert bool(candidate(site)) is is_routed


async def test_without_any_decision_it_holds_whatever_the_policy_says_of_what_is_not_known(site):
    await rolling(site, STEPS[1:2], onInconclusive="Promote")
    await pass_time(site, 301)

    assert site.condition("Reconciling") == ("True", "Holding")
    assert site.status["analysis"]["verdict"] == "Error"


async def test_a_step_until_so_many_decisions_counts_those_of_the_candidate_alone(site):
    steps = [{"name": "canary", "type": "Weight", "weight": "5%", "until": {"decisions": 100}}, STEPS[2]]
    gateway = Gateway()
    gateway.judged(1000, Verdict.ALLOW, Verdict.ALLOW)
    gateway.decided = 5000
    site.restart(gateways=gateway)
    await site.apply(policy("92%", version="v1", rollout={"steps": steps}))
    gateway.stable = site.stable
    await site.apply(policy("80%", version="v2", rollout={"steps": steps}))
    gateway.decides(60)
    await pass_time(site, 6)
    few = site.status["candidate"]
    gateway.decides(1)
    await pass_time(site, 0)
    same = site.status["candidate"]
    gateway.process, gateway.decided = "after a restart", 39
    await pass_time(site, 6)
    still = site.status["candidate"]
    gateway.decides(1)
    await pass_time(site, 6)

    assert (few["step"], few["decisions"]) == ("canary", 60)
    # Not each answer of a gateway is a status.
    assert same == few
    assert (still["step"], still["decisions"]) == ("canary", 99)
    assert site.status["candidate"]["step"] == "sign-off"


async def test_an_operator_that_starts_again_goes_on_with_what_gateways_counted(site):
    gateway = await rolling(site, STEPS[:1])
    gateway.judged(20_000, Verdict.ALLOW, Verdict.ALLOW)
    await pass_time(site, 5)
    site.restart(gateways=gateway)
    await pass_time(site, 61)

    assert site.condition("Ready") == ("True", "InForce")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 575), st.integers(0, 9), st.booleans()), max_size=30),
    st.integers(0, 30),
)
def test_nothing_is_counted_twice_or_lost_while_somebody_looks(counted: list[tuple[str, int, int, bool]], look: int):
    """What is new at each look adds up to what was counted since the beginning, whoever is gone by then."""
    tables = {name: [0] * (64 * 9) for name in "abc"}
    alive = set("abc")

    def said() -> list[TrialCounts]:
        return [
            TrialCounts(
                stable="s",
                candidate="c",
                process=name,
                flips=tuple(tables[name]),
                cohorts={"Stable": sum(tables[name])},
            )
            for name in sorted(alive)
        ]

    processes = baseline = newest({}, said())
    news = 0
    for number, (name, index, count, dies) in enumerate(counted):
        if name in alive:
            tables[name][index] += count
        if number % (look + 1) == 0 or dies:
            seen = newest(processes, said())
            news += tally(seen, processes).decisions
            processes = seen
        if dies:
            alive.discard(name)
    seen = newest(processes, said())
    news += tally(seen, processes).decisions

    assert news == tally(seen, baseline).decisions == sum(map(sum, tables.values()))


@given(st.lists(st.integers(0, 50), min_size=9, max_size=9))
def test_the_columns_of_a_metric_are_those_of_its_table(pairs: list[int]):
    flips = pairs * 64
    blocks, reviews, differ = (
        paired_counts(type, flips) for type in (MetricType.BLOCK_RATE, MetricType.REVIEW_RATE, MetricType.FLIP_RATE)
    )

    assert blocks.decisions[0] == reviews.decisions[7] == sum(pairs)
    assert (blocks.stable[0], blocks.candidate[0]) == (sum(pairs[6:]), sum(pairs[2::3]))
    assert (reviews.stable[0], reviews.candidate[0]) == (sum(pairs[3:6]), sum(pairs[1::3]))
    assert differ.differing[0] == sum(pairs) - pairs[0] - pairs[4] - pairs[8]


# Metrics that compare cohorts

COHORTS = {
    "intervalSeconds": 1,
    "metrics": [
        {"name": "errors", "type": "ErrorRate", "maxIncrease": "1%"},
        {"name": "latency", "type": "LatencyP99", "maxIncreaseMilliseconds": 20},
    ],
}


async def test_in_a_shadow_cohorts_are_not_compared_and_hold_nothing(site):
    await rolling(site, **COHORTS)
    shadow = site.status
    await pass_time(site, 61)
    canary = site.status
    await pass_time(site, 301)

    assert shadow["candidate"]["step"] == "shadow"
    assert shadow["analysis"]["verdict"] == "Pass"
    assert [each["verdict"] for each in shadow["analysis"]["metrics"]] == ["Inconclusive"] * 2
    # From the first weight on, no data is an error, which holds.
    assert (canary["candidate"]["step"], canary["analysis"]["verdict"]) == ("canary", "Error")
    assert site.condition("Reconciling") == ("True", "Holding")
    assert "no decisions of both arms are counted" in site.message("Reconciling")


@pytest.mark.parametrize(
    ("worse", "told"),
    [
        pytest.param({"failed": True}, "errors: 5.88% with the candidate, 0% with stable", id="it fails more often"),
        pytest.param({"seconds": 0.2}, "latency: 1", id="it is slower"),
    ],
)
async def test_a_candidate_whose_cohort_fares_worse_is_rolled_back(site, worse, told):
    gateway = await rolling(site, STEPS[1:2], **COHORTS)
    for side in Cohort:
        gateway.divided(80, side, weight=500)
    gateway.divided(5, Cohort.CANDIDATE, weight=500, **worse)
    await pass_time(site, 5)

    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "AnalysisFailed")
    assert told in site.message("Stalled")


async def test_a_candidate_whose_cohort_fares_alike_at_every_weight_goes_through(site):
    gateway = await rolling(site, [STEPS[1], STEPS[3]], **COHORTS)
    gateway.divided(20_000, Cohort.STABLE, weight=500)
    gateway.divided(1000, Cohort.CANDIDATE, weight=500)
    await pass_time(site, 301)
    # By night everything is slower and fails more often, and the candidate has half of it.
    for side in Cohort:
        gateway.divided(900, side, weight=5000, seconds=0.2)
        gateway.divided(100, side, weight=5000, seconds=0.2, failed=True)
    await pass_time(site, 5)
    seen = site.status
    await pass_time(site, 301)

    assert seen["analysis"]["verdict"] == "Pass"
    assert site.condition("Ready") == ("True", "InForce")


@given(st.lists(st.tuples(st.integers(0, 63), st.sampled_from(Cohort), st.floats(0, 20), st.booleans()), max_size=40))
def test_the_columns_of_cohorts_are_those_of_what_was_decided(made: list[tuple[int, Cohort, float, bool]]):
    cells = Counter(cell_index(group, side, seconds, failed=failed) for group, side, seconds, failed in made)
    rates, latencies = cohort_counts(cells), latency_counts(cells)

    for side, decisions, events, histogram in (
        (Cohort.STABLE, rates.stable_decisions, rates.stable_events, latencies.stable),
        (Cohort.CANDIDATE, rates.candidate_decisions, rates.candidate_events, latencies.candidate),
    ):
        mine = [each for each in made if each[1] is side]
        assert sum(decisions) == len(mine)
        assert sum(events) == sum(failed for *_, failed in mine)
        for group in range(64):
            assert decisions[group] == sum(column[group] for column in histogram)
        for bound, column in zip(LATENCY_BOUNDS, accumulate(map(sum, histogram)), strict=True):
            assert column == sum(seconds <= bound for _, _, seconds, _ in mine)


# Counts that are missing, and counts that cannot be true


async def test_a_gateway_that_is_gone_has_said_for_good_what_it_counted(site):
    gateway = await rolling(site, STEPS[:1])
    gateway.judged(20_000, Verdict.ALLOW, Verdict.ALLOW)
    await pass_time(site, 5)
    gateway.begins_anew()
    await pass_time(site, 61)

    assert site.condition("Ready") == ("True", "InForce")


@pytest.mark.parametrize(
    ("left", "decided", "verdict", "told"),
    [
        pytest.param(9_700, 0.05, "Pass", "", id="few"),
        pytest.param(5_000, 0.05, "Inconclusive", "off by more than 5% (MAX_MISSING)", id="many in both arms"),
        pytest.param(9_700, 0.02, "Error", "differs by more than 1% (MAX_UNEQUAL)", id="many of the candidate alone"),
    ],
)
async def test_what_a_gateway_counted_that_is_gone_is_missed_by_an_operator_that_starts_again(
    site, left, decided, verdict, told
):
    gateway = await rolling(site, STEPS[1:2])
    gateway.judged(10_000, Verdict.ALLOW, Verdict.ALLOW)
    gateway.decided = 32_000
    await pass_time(site, 5)
    before = site.status["candidate"]
    gateway.begins_anew()
    gateway.judged(left, Verdict.ALLOW, Verdict.ALLOW)
    gateway.decided = int(64 * left * decided)
    site.restart(gateways=gateway)
    await pass_time(site, 5)
    found = site.status

    assert (before["stableJudged"], before["candidateJudged"]) == (608_000, 32_000)
    assert found["analysis"]["verdict"] == verdict
    if told:
        await pass_time(site, 301)
        assert told in site.message("Reconciling")
        assert site.status["candidate"]["candidateJudged"] == 32_000
    if verdict == "Inconclusive":
        # What is lost stays lost, however much comes later, and whoever starts again.
        gateway.divided(5_000, Cohort.STABLE, weight=500)
        await pass_time(site, 5)
        site.restart(gateways=gateway)
        await pass_time(site, 5)
        assert site.status["candidate"]["stableJudged"] == 608_000 + 64 * 5_000
        assert site.status["analysis"]["verdict"] != "Pass"


async def test_decisions_that_gateways_know_of_and_could_not_count_are_missing(site):
    gateway = await rolling(site, STEPS[1:2], onInconclusive="Promote")
    gateway.judged(10_000, Verdict.ALLOW, Verdict.ALLOW)
    gateway.missed["Stable"] = 40_000
    await pass_time(site, 5)

    assert site.status["analysis"]["verdict"] == "Inconclusive"


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param({"flips": (-1, 1, *(0,) * 574)}, id="less than nothing"),
        pytest.param({"flips": (2**54, *(0,) * 575), "cohorts": {"Stable": 2**54}}, id="absurd"),
        pytest.param({"made": {"Stable": 1}}, id="more counted than made"),
        pytest.param({"flips": (5, *(0,) * 575), "cohorts": {"Stable": 5}}, id="less than before"),
    ],
)
async def test_a_gateway_that_lies_holds_the_rollout_and_is_named(site, lie):
    gateway = await rolling(site, STEPS[1:2], onInconclusive="Promote")
    gateway.judged(20_000, Verdict.ALLOW, Verdict.ALLOW)
    await pass_time(site, 5)
    honest = site.status["analysis"]
    gateway.lies = lie
    await pass_time(site, 301)
    told = site.condition("Reconciling"), site.message("Reconciling")
    verdict = site.status["analysis"]["verdict"]
    gateway.lies = {}
    await pass_time(site, 5)

    assert (honest["verdict"], verdict) == ("Pass", "Error")
    assert told[0] == ("True", "Holding")
    assert "what gw-1 counted cannot be true" in told[1]
    assert site.condition("Ready") == ("True", "InForce"), "what it had said before counts still"


# What must not happen whatever else is wrong

BAD = (Verdict.ALLOW, Verdict.BLOCK)
SLOW = {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 10_000}}


async def exposed(site: Site, **plan: Any) -> Gateway:
    """Bring a candidate to half of the content."""
    gateway = Gateway()
    site.restart(gateways=gateway)
    whole = {"analysis": ANALYSIS, "steps": [SLOW]} | plan
    await site.apply(policy("92%", version="v1", rollout=whole))
    gateway.stable = site.stable
    await site.apply(policy("80%", version="v2", rollout=whole))
    assert candidate(site)["weightBasisPoints"] == 5000
    gateway.judged(1000, Verdict.ALLOW, Verdict.ALLOW)
    return gateway


@pytest.mark.parametrize(
    "trouble",
    [
        "paused",
        "deadline",
        "a gateway that is behind",
        "an edit that is not valid, and a restart",
        "an edit by a version of other content, and a restart",
        *TROUBLES,
    ],
)
async def test_what_the_analysis_is_sure_of_is_taken_back_whatever_else_keeps_the_rollout(site, trouble):
    gateway = await exposed(site, progressDeadlineSeconds=20_000)
    plan = site.find(POLICY_KIND)["spec"]["rollout"]
    match trouble:
        case "paused":
            await site.apply(override_manifest(paused=True))
        case "deadline":
            await pass_time(site, 20_001)
        case "a gateway that is behind":
            gateway.said = Acknowledged(total=1, current=0, stale=("gw-1",))
            await pass_time(site, 10_001)
        case "an edit that is not valid":
            await site.apply(policy("920%", version="v3"))
        case "an edit that is not valid, and a restart":
            await site.apply(policy("920%", version="v3", rollout=plan))
            site.restart(gateways=gateway)
        case "an edit by a version of other content, and a restart":
            await site.apply(policy("70%", version="v1", rollout=plan))
            site.restart(gateways=gateway)
        case "an override":
            await site.apply(override_manifest(reject=["latest"]))
        case "a model":
            site.cluster.models_served = ()
            await site.reconcile()
    before, outcome = candidate(site), await site.reconcile()
    gateway.judged(100, *BAD)
    await pass_time(site, 5)

    assert before["weightBasisPoints"] == 5000
    assert outcome.requeue_seconds is not None, "the next look does not wait for somebody else's change"
    assert outcome.requeue_seconds <= 30
    assert candidate(site) == {}
    assert [each["reason"] for each in site.status["failed"]] == ["AnalysisFailed"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({}, id="none"),
        pytest.param({"analysis": ANALYSIS | {"confidence": "90%"}, "steps": [SLOW]}, id="another"),
        pytest.param({"analysis": ANALYSIS, "steps": [SLOW | {"weight": "500%"}]}, id="not valid"),
    ],
)
async def test_an_operator_that_starts_again_beside_another_plan_compares_nothing_until_it_sees_the_one_before(
    site, other
):
    gateway = await exposed(site)
    plan = site.find(POLICY_KIND)["spec"]["rollout"]
    await site.apply(policy("920%", version="v3", rollout=other))
    site.restart(gateways=gateway)
    gateway.judged(100, *BAD)
    outcome = await site.reconcile()
    before = candidate(site)
    await site.apply(policy("920%", version="v3", rollout=plan))

    assert before["weightBasisPoints"] == 5000
    assert outcome.requeue_seconds is None
    assert candidate(site) == {}
    assert [each["reason"] for each in site.status["failed"]] == ["AnalysisFailed"]


@pytest.mark.parametrize(
    ("plan", "gateways"),
    [
        pytest.param({}, FixedGateways(), id="nothing is compared"),
        pytest.param(
            {"analysis": ANALYSIS},
            FixedGateways(Acknowledged(total=1, current=0, stale=("gw-1",))),
            id="it has not begun",
        ),
    ],
)
async def test_a_paused_rollout_that_no_count_can_end_waits_for_a_change(site, plan, gateways):
    site.restart(gateways=gateways)
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2", rollout=plan | {"steps": [SLOW]}))
    await site.apply(override_manifest(paused=True))
    outcome = await site.reconcile()

    assert site.condition("Reconciling") == ("True", "Paused")
    assert outcome.requeue_seconds is None


async def test_a_candidate_does_not_come_in_force_since_the_route_is_lost(site):
    await exposed(site)
    first, second, salt = site.stable, candidate(site)["digest"], site.route["assignment"]["salt"]
    site.cluster.remove(ROUTE_KIND, "trust-safety", "community")
    site.restart(salt=lambda: "another salt")
    await site.reconcile()

    assert (site.stable, candidate(site)["digest"]) == (first, second)
    assert site.route["assignment"]["salt"] != salt, "it begins again, with other people"


async def test_a_failure_is_known_also_when_the_operator_is_killed_right_after_it(site):
    gateway = await exposed(site)
    gateway.judged(100, *BAD)
    site.clock.now += timedelta(seconds=5)
    site.cluster.kill_after = 1
    with pytest.raises(Killed):
        await site.reconcile()
    site.cluster.kill_after = None
    told = site.message("Stalled")
    site.restart(gateways=gateway)
    await site.reconcile()

    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "AnalysisFailed")
    # From the first moment on it is said what to do about it.
    assert told == site.message("Stalled")
    assert "write other content, or to try it again" in told


THREE = [{"name": f"s{n}", "type": "Weight", "weight": f"{n}0%", "until": {"seconds": 60}} for n in (1, 2, 3)]
STARTING = FixedGateways(Acknowledged(has_looked=False))
"""An operator that has asked no gateway yet."""


@pytest.mark.parametrize("gateways", [STARTING, FixedGateways()], ids=["nobody was asked yet", "all have it"])
@pytest.mark.parametrize("at_step", [0, 1, 2])
async def test_a_route_whose_status_was_not_written_is_gone_on_from(site, at_step, gateways):
    weights: list[int] = []

    def note(action: Action) -> None:
        if isinstance(action, Apply) and action.target.kind == ROUTE_KIND:
            weights.append(candidate(site).get("weightBasisPoints", 10_000))

    await site.apply(policy("92%", version="v1"))
    site.restart(gateways=FixedGateways(Acknowledged(total=1, current=0, stale=("gw-1",))))
    await site.apply(policy("80%", version="v2", rollout={"steps": THREE}))
    site.cluster.on_write = note
    site.restart()
    for _ in range(at_step):
        await pass_time(site, 61)
    site.clock.now += timedelta(seconds=61)
    site.cluster.kill_after = 1
    with pytest.raises(Killed):
        await site.reconcile()
    behind = site.status["candidate"]
    site.restart(gateways=gateways)
    await site.reconcile()
    found = site.status["candidate"]
    await pass_time(site, 50)

    assert weights == [1000, 2000, 3000][: at_step + 1]
    assert (behind["step"], "stepTime" in behind) == (("s1", False) if at_step == 0 else (f"s{at_step}", True))
    # Its hold begins anew, since nobody knows when it began.
    assert (found["step"], site.status["candidate"]) == (f"s{at_step + 1}", found)


async def test_a_status_that_somebody_came_before_takes_nobody_back(site):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2", rollout={"steps": THREE}))
    weights = [candidate(site)["weightBasisPoints"]]
    gateway = site.ports.gateways

    def edit_meanwhile(action: Action) -> None:
        if isinstance(action, Apply) and action.target.kind == ROUTE_KIND:
            weights.append(candidate(site)["weightBasisPoints"])
            # The author edits what is no content, and no gateway has adopted what was just written.
            gateway.said = Acknowledged(total=1, current=0, stale=("gw-1",))
            site.cluster.edit(
                POLICY_KIND, "trust-safety", "community", lambda each: each["spec"].update(description="x")
            )

    site.cluster.on_write = edit_meanwhile
    with pytest.raises(Stale):
        await pass_time(site, 61)
    await site.reconcile()

    assert weights == [1000, 2000]
    assert site.status["candidate"]["step"] == "s2"


async def brought_to_all(site: Site, *steps: dict[str, Any], **analysis: Any) -> Gateway:
    """Bring a rollout to where a gateway has its candidate by now, and the operator has not seen it."""
    gateway = Gateway()
    gateway.said = Acknowledged(total=1, current=0, stale=("gw-1",))
    site.restart(gateways=gateway)
    plan = {"analysis": analysis, "steps": list(steps)}
    await site.apply(policy("92%", version="v1", rollout=plan))
    gateway.stable = site.stable
    await site.apply(policy("80%", version="v2", rollout=plan))
    gateway.said = Acknowledged()
    site.cluster.put(override_manifest(approve={"digest": candidate(site)["digest"]}))
    return gateway


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(
    ("steps", "analysis"),
    [
        pytest.param([SLOW], ANALYSIS, id="both sides judge"),
        pytest.param([STEPS[2], SLOW], COHORTS, id="one side decides and it was approved before"),
    ],
)
async def test_what_is_counted_of_a_candidate_whose_status_was_not_written_takes_it_back(
    site, steps, analysis, trouble
):
    gateway = await brought_to_all(site, *steps, **analysis)
    await lose_status(site, trouble)
    before = candidate(site)
    gateway.divided(1000, Cohort.STABLE, weight=5000)
    gateway.divided(1000, Cohort.CANDIDATE, weight=5000, failed=True)
    gateway.judged(200, *BAD)
    await pass_time(site, 5)

    assert before["weightBasisPoints"] == 5000
    assert candidate(site) == {}
    assert [each["reason"] for each in site.status["failed"]] == ["AnalysisFailed"]


async def test_what_was_counted_while_no_operator_knew_that_a_step_had_begun_counts(site):
    gateway = await brought_to_all(site, SLOW, **ANALYSIS)
    site.cluster.kill_after = 1
    with pytest.raises(Killed):
        await site.reconcile()
    before = candidate(site)
    gateway.judged(1000, Verdict.ALLOW, Verdict.ALLOW)
    gateway.judged(100, *BAD)
    site.restart(gateways=gateway)
    await site.reconcile()

    assert before["weightBasisPoints"] == 5000
    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "AnalysisFailed")


@pytest.mark.parametrize(("seconds", "step"), [(30, "canary"), (301, "sign-off")])
async def test_a_route_written_by_hand_cuts_no_time_and_no_approval(site, seconds, step):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2", rollout={"steps": [STEPS[1], STEPS[2], STEPS[3]]}))
    await pass_time(site, seconds)

    def write(route: dict[str, Any]) -> None:
        route["spec"]["candidate"]["weightBasisPoints"] = 5000
        route["spec"]["epoch"] += 1

    site.cluster.edit(ROUTE_KIND, "trust-safety", "community", write)
    site.restart()
    await site.reconcile()

    assert (candidate(site)["weightBasisPoints"], site.status["candidate"]["step"]) == (500, step)


async def test_an_approval_goes_on_after_the_deadline(site):
    await exposed(site, progressDeadlineSeconds=100)
    await pass_time(site, 200)
    late = site.condition("Stalled"), site.message("Stalled")
    await site.apply(override_manifest(approve={"digest": candidate(site)["digest"]}))

    assert late[0] == ("True", "DeadlineExceeded")
    assert "approve it to have it go on" in late[1]
    assert site.condition("Reconciling") == ("True", "Holding")


async def test_a_step_is_not_over_before_everybody_enforces_it(site):
    steps = [{"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 60}}]
    await site.apply(policy("92%", version="v1", rollout={"steps": steps}))
    await site.apply(policy("80%", version="v2", rollout={"steps": steps}))
    site.restart(gateways=FixedGateways(Acknowledged(total=3, current=2, stale=("gw-3",))))
    await pass_time(site, 100)
    behind = site.condition("Reconciling"), site.message("Reconciling")
    site.restart(gateways=FixedGateways(Acknowledged(has_looked=False)))
    await pass_time(site, 100)
    unknown = site.condition("Reconciling")
    site.restart()
    await site.reconcile()

    assert behind[0] == unknown == ("True", "Holding")
    assert "gw-3" in behind[1]
    assert site.condition("Ready") == ("True", "InForce")


async def test_another_sampling_of_videos_cannot_go_by_steps(site):
    await site.apply(stepped("92%", "v1"))
    content = site.find(POLICY_KIND)["spec"]["policy"] | {"video": {"framesPerMinute": 600}}
    site.cluster.edit(
        POLICY_KIND, "trust-safety", "community", lambda each: each["spec"].update(policy=content, version="v2")
    )
    await site.reconcile()

    assert site.condition("Accepted") == ("False", "Invalid")
    assert "spec.policy.video" in site.message("Accepted")
