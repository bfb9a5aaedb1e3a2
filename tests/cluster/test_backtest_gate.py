"""An edit that logged decisions stop: a real API server, the operator, and two gateways with logs of their own."""

from pathlib import Path

import pytest

from cluster_site import TEXT, Site, override, wait_for_decision
from gateway_process import RunningGateway, gateway_settings, operator_token_file
from operators import RunningOperator, settings_for
from serving import until

pytestmark = pytest.mark.cluster

GATES = {"backtest": {"decisions": 30, "maxFlipRate": "50%", "maxNewBlocks": "10%"}}


@pytest.mark.timeout(120)
def test_a_too_strict_edit_is_stopped_by_what_two_gateways_logged_until_somebody_approves_it(
    site: Site, tmp_path: Path
):
    plane, space = site.plane, site.namespace

    def write(action: str, version: str, links: int) -> None:
        site.apply_policy(action, links=links, version=version, gates=GATES)

    def wait_for(type: str, reason: str) -> dict[str, object]:
        found = plane.wait_for_condition("modpol", "community", type, space, reason=reason, seconds=60)
        return dict(found["status"])

    first, second = (gateway_settings(plane, tmp_path / name, space) for name in ("gateway-1", "gateway-2"))
    with RunningGateway(**first) as one, RunningGateway(**second) as two:
        settings = settings_for(
            space,
            gateway_urls=f"{one.stream_url},{two.stream_url}",
            gateway_token_file=str(operator_token_file(plane, tmp_path)),
        )
        with RunningOperator(plane.kubeconfig("baleen-operator"), settings) as operator:
            operator.wait_until_leading()
            write("Review", "v1", links=9)
            stable = wait_for("Ready", "InForce")["stable"]
            for gateway in (one, two):
                gateway.wait_until_ready()
            # Of 30 decisions 15 had three links; neither log alone has so many.
            for gateway, text in ((one, TEXT), (two, "kind words")):
                assert [gateway.moderate(text).json()["decision"] for _ in range(15)] == ["Allow"] * 15

            write("Block", "v2", links=2)
            stopped = wait_for("Stalled", "GateFailed")

            (said,) = stopped["backtests"]
            message = next(each["message"] for each in stopped["conditions"] if each["type"] == "Stalled")
            assert (said["verdict"], said["reason"], said["stable"]) == ("Fail", "TooManyNewBlocks", stable["digest"])
            assert "50% of 30 logged decisions would be newly blocked (15), above maxNewBlocks (10%)" in message
            assert "Allow → Block 15" in message
            assert site.route()["stable"] == stable["digest"]
            operator.kill()

        with RunningOperator(plane.kubeconfig("baleen-operator"), settings) as operator:
            operator.wait_until_leading()
            # Other decisions by now, and nobody is asked about them: it was said what became of this edit.
            for _ in range(30):
                two.moderate("kind words")
            plane.kubectl("annotate", "modpol", "community", "-n", space, "touched=true")
            assert wait_for("Stalled", "GateFailed")["backtests"] == [said]
            site.apply(override(space, approve={"digest": stopped["candidate"]["digest"]}))
            assert wait_for("Ready", "InForce")["stable"]["digest"] == stopped["candidate"]["digest"]
            wait_for_decision(one, "Block")

            # With one of them gone nothing passes, and nothing fails.
            two.close()
            write("Block", "v3", links=1)
            waiting = wait_for("Reconciling", "GateUnanswered")
            message = next(each["message"] for each in waiting["conditions"] if each["type"] == "Ready")
            assert "the gateways could not answer: gateway-2 d" in message
            assert until(lambda: site.route()["stable"] == stopped["candidate"]["digest"]) < 1
