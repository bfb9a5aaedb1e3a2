"""Two operators: one acts, the other takes over, and neither goes by the clock on the wall."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane import ControlPlane
from operators import LEASE_SECONDS, RunningOperator, settings_for
from waiting import until

pytestmark = pytest.mark.cluster


@contextmanager
def two_operators(control_plane: ControlPlane, namespace: str) -> Iterator[tuple[RunningOperator, RunningOperator]]:
    """Run one that leads and one that stands by."""
    settings = settings_for(namespace)
    kubeconfig = control_plane.kubeconfig("baleen-operator")
    first = RunningOperator(kubeconfig, settings)
    second = None
    try:
        first.wait_until_leading()
        second = RunningOperator(kubeconfig, settings)
        second.wait_until_ready("standby")
        yield first, second
    finally:
        for each in (first, second):
            if each is not None:
                each.process.send_signal(signal.SIGCONT)
                each.close()
        control_plane.delete("lease", settings["lease_name"], "baleen-system")


def foreign_lease(name: str, *, renewed: datetime) -> Any:
    """Write a Lease of somebody who died, as their clock has it."""
    time = renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "baleen-system"},
        "spec": {
            "holderIdentity": "somebody-else",
            "leaseDurationSeconds": 2,
            "acquireTime": time,
            "renewTime": time,
            "leaseTransitions": 4,
        },
    }


def test_when_the_leader_is_killed_the_other_takes_over(control_plane: ControlPlane, namespace: str):
    with two_operators(control_plane, namespace) as (first, second):
        assert second.metric("baleen_operator_leader") == 0
        first.kill()

        second.wait_until_leading(seconds=LEASE_SECONDS * 10)
        assert second.metric("baleen_operator_leader") == 1


def test_when_the_leader_is_told_to_end_the_other_leads(control_plane: ControlPlane, namespace: str):
    with two_operators(control_plane, namespace) as (first, second):
        assert first.stop() == 0

        second.wait_until_leading()


def test_a_leader_that_slept_through_its_lease_ends_and_says_why(control_plane: ControlPlane, namespace: str):
    with two_operators(control_plane, namespace) as (first, second):
        first.process.send_signal(signal.SIGSTOP)
        second.wait_until_leading(seconds=LEASE_SECONDS * 10)
        first.process.send_signal(signal.SIGCONT)

        assert first.wait_for_end() == 3
        assert first.wait_for("the Lease is lost: the process ends")["level"] == "critical"
        assert second.ready()[0] == 200


@pytest.mark.parametrize(
    "hours", [pytest.param(-1, id="an hour behind"), pytest.param(1, id="an hour ahead"), pytest.param(0, id="right")]
)
def test_a_lease_is_over_when_it_is_not_renewed_whatever_its_holders_clock_said(
    control_plane: ControlPlane, namespace: str, hours: int
):
    settings = settings_for(namespace)
    lease = foreign_lease(settings["lease_name"], renewed=datetime.now(UTC) + timedelta(hours=hours))
    control_plane.kubectl("create", "-f", "-", input=json.dumps(lease))
    operator = RunningOperator(control_plane.kubeconfig("baleen-operator"), settings)
    try:
        assert operator.wait_for("standing by")["holder"] == "somebody-else"
        operator.wait_until_leading()
        found = control_plane.get_json("lease", settings["lease_name"], "baleen-system")["spec"]

        assert found["leaseTransitions"] == 5
        assert found["leaseDurationSeconds"] == LEASE_SECONDS
    finally:
        operator.close()
        control_plane.delete("lease", settings["lease_name"], "baleen-system")


async def test_a_lease_that_somebody_renews_is_left_alone_though_their_clock_is_an_hour_behind(
    control_plane: ControlPlane, namespace: str
):
    settings = settings_for(namespace)
    name, started = settings["lease_name"], datetime.now(UTC)
    renewed = started - timedelta(hours=1)
    control_plane.kubectl("create", "-f", "-", input=json.dumps(foreign_lease(name, renewed=renewed)))
    operator = RunningOperator(control_plane.kubeconfig("baleen-operator"), settings)

    def renewed_for_long_enough() -> bool:
        lease = foreign_lease(name, renewed=datetime.now(UTC) - timedelta(hours=1))
        control_plane.kubectl("patch", "lease", "-n", "baleen-system", name, "--type=merge", "-p", json.dumps(lease))
        return datetime.now(UTC) - started > timedelta(seconds=8)

    try:
        operator.wait_for("standing by")
        started = datetime.now(UTC)
        await until(renewed_for_long_enough)

        assert operator.ready()[1]["role"] == "standby"
    finally:
        operator.close()
        control_plane.delete("lease", name, "baleen-system")
