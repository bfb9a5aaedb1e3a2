"""A rollout as a gateway and a sidecar take it up, both as processes: both judge by it, and the gateway counts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from baleen_core.assignment import FULL, Exposure
from baleen_core.policy_stream import AUDIENCE
from baleen_core.resources import write_route
from cluster_site import TEXT, Site, wait_for_decision
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings, operator_token_file, sidecar_settings
from publishing import Publication, override_of, publication
from serving import until

pytestmark = pytest.mark.cluster


def rule(links: int, action: str) -> dict[str, Any]:
    return {"rules": [{"name": "links", "when": f"content.links > {links}", "action": action}]}


def rollout_in(namespace: str, exposure: Exposure, *, epoch: int = 1) -> Publication:
    """Publish a policy that reviews two links, with a candidate that blocks them."""
    return publication(
        namespace, "community", rule(1, "Review"), candidate=rule(1, "Block"), exposure=exposure, epoch=epoch
    )


@pytest.fixture
def site(control_plane: ControlPlane, namespace: str) -> Site:
    """A namespace with an application's account, and a policy in a shadow as an operator would publish it."""
    made = Site(plane=control_plane, namespace=namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "namespace": namespace}}
    made.apply(account, *rollout_in(namespace, Exposure(is_shadow=True)).manifests())
    return made


@pytest.fixture
def gateway(site: Site, tmp_path: Path) -> Iterator[RunningGateway]:
    with RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway", site.namespace)) as made:
        wait_for_decision(made, "Review")
        yield made


def trial_of(site: Site, gateway: RunningGateway, folder: Path) -> Mapping[str, Any]:
    """Return what the gateway tells the operator of the rollout."""
    token = operator_token_file(site.plane, folder).read_text()
    asking = {"Authorization": f"Bearer {token}"}
    found = httpx.get(f"{gateway.stream_url}/v1/convergence", headers=asking, trust_env=False).json()
    return dict(found["policies"][f"{site.namespace}/community"]["trial"] or {})


def flips(trial: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """Add the groups up: how often the sides said so, by the severities of what stable and candidate said."""
    counts = trial["flips"]
    return {(place // 3, place % 3): total for place in range(9) if (total := sum(counts[place::9]))}


def test_a_gateway_and_its_sidecar_judge_by_both_sides_and_the_gateway_counts_each_decision_once(
    site: Site, gateway: RunningGateway, tmp_path: Path
) -> None:
    settings = sidecar_settings(gateway, tmp_path / "shop", site.plane.token_for(site.namespace, "shop", AUDIENCE))
    with RunningGateway(**settings) as injected:
        wait_for_decision(injected, "Review")
        until(lambda: injected.policy()["candidate"] is not None)
        before = sum(trial_of(site, gateway, tmp_path)["cohorts"].values())
        for number in range(10):
            injected.decide(TEXT, author={"id": f"author-{number}"})
            gateway.decide(TEXT, author={"id": f"other-{number}"})
        shadow = trial_of(site, gateway, tmp_path)

        # Half of the authors from here on: the same ones at both.
        route = rollout_in(site.namespace, Exposure(weight_basis_points=FULL // 2), epoch=2).route
        site.apply(write_route(route))
        for each in (gateway, injected):
            until(lambda each=each: each.policy()["candidate"]["weight"] == 0.5)
        authors = [{"id": f"author-{number}"} for number in range(30)]
        # The same content by the same author would be taken for what a client sent again.
        decided = [
            [each.decide(f"{TEXT}, said {place} {number}", author=author) for number, author in enumerate(authors)]
            for place, each in enumerate((gateway, injected))
        ]
        weighted = trial_of(site, gateway, tmp_path)

        # The person on call ends it, with nobody else's help.
        site.apply(override_of(rollout_in(site.namespace, Exposure()), reject=[shadow["candidate"]]))
        for each in (gateway, injected):
            until(lambda each=each: each.policy()["candidate"] is None)
        after = [each.decide(TEXT, author=author)["decision"] for each in (gateway, injected) for author in authors]

    assert sum(shadow["cohorts"].values()) - before == 20
    assert shadow["cohorts"].keys() == {"Stable"}
    assert flips(shadow) == {(1, 2): sum(shadow["cohorts"].values())}
    cohorts = [[each["policies"][0]["cohort"] for each in side] for side in decided]
    assert cohorts[0] == cohorts[1]
    exposed = cohorts[0].count("Candidate")
    assert 0 < exposed < 30
    assert [each["decision"] for each in decided[0]] == [
        "Block" if cohort == "Candidate" else "Review" for cohort in cohorts[0]
    ]
    assert weighted["cohorts"] == {"Stable": shadow["cohorts"]["Stable"] + 2 * (30 - exposed), "Candidate": 2 * exposed}
    assert set(after) == {"Review"}
    assert trial_of(site, gateway, tmp_path) == {}
    assert gateway.metric("baleen_policy_flips_total", policy="community") >= 40


def test_a_gateway_that_is_killed_tries_out_the_same_after_it_and_says_that_it_counts_anew(
    site: Site, gateway: RunningGateway, tmp_path: Path
) -> None:
    site.apply(write_route(rollout_in(site.namespace, Exposure(weight_basis_points=FULL), epoch=2).route))
    until(lambda: (gateway.policy()["candidate"] or {}).get("weight") == 1)
    given = gateway.decide(TEXT, author={"id": "author-1"})
    before, candidate = trial_of(site, gateway, tmp_path), gateway.policy()["candidate"]
    gateway.kill()
    with gateway.again() as restarted:
        # Its first answer is given before the API server is asked.
        found = restarted.decide(TEXT, author={"id": "author-1"})
        after = trial_of(site, restarted, tmp_path)
        replayed = restarted.client.post(f"/v1/decisions/{given['id']}/replay").json()

        assert (found["decision"], found["policies"]) == (given["decision"], given["policies"])
        assert given["policies"][0]["cohort"] == "Candidate"
        assert restarted.policy()["candidate"] == candidate
    assert before["process"] != after["process"]
    assert (before["cohorts"]["Candidate"] >= 1, after["cohorts"]) == (True, {"Candidate": 1})
    assert (replayed["identical"], replayed["replayed"]) == (True, "Block")
