from dataclasses import replace
from datetime import UTC, datetime

import pytest

from baleen_bench.followers import Standing, adopt
from baleen_core.policy.schema import Revision
from baleen_sidecar.ports import Adopted
from policies import CATEGORY
from policy_enforced import quantile
from publishing import STRICTER, publication, rejecting

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PUBLISHED = publication("bench", "policy", {"categories": [CATEGORY]}, {"categories": [STRICTER]}, epoch=2)
POLICY = PUBLISHED.policy
STABLE, EARLIER = PUBLISHED.route.route.stable, PUBLISHED.route.route.recent_stable[0]
BEFORE = Adopted(epoch=1, digest=EARLIER)


def test_a_simulated_sidecar_enforces_what_is_routed_and_obeys_an_override():
    overridden = replace(POLICY, override=rejecting(STABLE))

    assert adopt(POLICY, BEFORE, NOW) == Adopted(epoch=2, digest=STABLE)
    assert adopt(overridden, BEFORE, NOW) == Adopted(epoch=2, digest=EARLIER)


@pytest.mark.parametrize(
    "revisions",
    [
        pytest.param({}, id="not there"),
        pytest.param({STABLE: Revision(digest=STABLE, content="{}")}, id="altered"),
    ],
)
def test_a_simulated_sidecar_keeps_what_it_enforces_until_the_epoch_is_whole(revisions):
    found = adopt(replace(POLICY, revisions=revisions), BEFORE, NOW)

    assert (found.epoch, found.digest, bool(found.pending)) == (1, EARLIER, True)


def test_a_simulated_sidecar_follows_policies_that_change_and_forgets_those_that_go():
    standing = Standing()
    standing.take({POLICY.key: POLICY}, NOW)
    assert standing.adopted == {POLICY.key: Adopted(epoch=2, digest=STABLE)}

    standing.take({POLICY.key: replace(POLICY, override=rejecting(STABLE))}, NOW)
    assert standing.adopted == {POLICY.key: Adopted(epoch=2, digest=EARLIER)}

    standing.take({}, NOW)
    assert standing.adopted == {}


@pytest.mark.parametrize(
    ("share", "value"),
    [
        pytest.param(0.0, 1, id="the least"),
        pytest.param(0.5, 100, id="half"),
        pytest.param(0.99, 198, id="all but one in a hundred"),
        pytest.param(1.0, 200, id="the most"),
    ],
)
def test_a_quantile_is_a_value_that_was_measured(share, value):
    assert quantile(range(200, 0, -1), share) == value
