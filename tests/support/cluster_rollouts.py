"""Rollouts on a real API server: an author, the person on call, the operator, and three gateways under load."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cluster_site import Site, override, policy, write_yaml
from gateway_process import RunningGateway, gateway_settings, operator_token_file
from named_digests import Watch
from operators import RunningOperator, settings_for
from serving import Answered, Load
from waiting import pauses

GATEWAYS: Final = ("gateway-1", "gateway-2", "gateway-3")


class Rolling:
    """What is there, and what is done."""

    def __init__(self, site: Site, folder: Path, gateways: list[RunningGateway], **operator: str) -> None:
        self.site, self.folder, self.gateways = site, folder, gateways
        urls = ",".join(each.stream_url for each in gateways)
        token = operator_token_file(site.plane, folder)
        self.settings = settings_for(site.namespace, gateway_urls=urls, gateway_token_file=str(token), **operator)

    def operator(self) -> RunningOperator:
        """Start the operator, and return it once it leads."""
        running = RunningOperator(self.site.plane.kubeconfig("baleen-operator"), self.settings)
        running.wait_until_leading()
        return running

    def apply(self, action: str, version: str, *steps: dict[str, Any], links: int = 9, **spec: Any) -> Path:
        """Apply the author's file as GitOps tools do, and return it."""
        rollout = {"steps": list(steps), **spec.pop("rollout", {})}
        manifest = policy(self.site.namespace, action, links=links, version=version, rollout=rollout, **spec)
        self.site.apply(manifest)
        return write_yaml(self.folder, manifest, file=f"{version}.yaml")

    def override(self, **spec: Any) -> None:
        """Write the override as the person on call does without any tool of ours."""
        path = write_yaml(self.folder, override(self.site.namespace, **spec), file="override.yaml")
        self.site.plane.kubectl("apply", "-f", path, user="on-call")

    def status(self) -> dict[str, Any]:
        """Return the policy's status."""
        return dict(self.site.plane.get_json("modpol", "community", self.site.namespace).get("status", {}))

    def wait_for(self, type: str, reason: str, *, status: str = "True") -> dict[str, Any]:
        """Return the policy's status once a condition holds, or does not, for this reason."""
        found = self.site.plane.wait_for_condition(
            "modpol", "community", type, self.site.namespace, status=status, reason=reason
        )
        return dict(found["status"])

    def has_no_difference(self, path: Path) -> None:
        """See that nothing of what its author wrote was changed by anybody."""
        for pause in pauses():
            found = self.site.plane.kubectl("diff", "--server-side", "--field-manager=kubectl", "-f", path, check=False)
            # kubectl reads twice, and the operator may have written a status in between; a dry run changes no version.
            if "-  resourceVersion:" not in found.stdout:
                break
            time.sleep(pause)
        assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr

    def enforced(self) -> set[str]:
        """Return the digests that are stable at gateways."""
        return {each.policy()["digest"] for each in self.gateways}


@contextlib.contextmanager
def rolling_out(site: Site, folder: Path, **operator: str) -> Iterator[Rolling]:
    """Give a namespace with three gateways, and an operator to start, with these settings."""
    with contextlib.ExitStack() as stack:
        settings = [gateway_settings(site.plane, folder / name, site.namespace) for name in GATEWAYS]
        gateways = [stack.enter_context(RunningGateway(**each)) for each in settings]
        yield Rolling(site, folder, gateways, **operator)


class Traffic:
    """What was asked of all gateways, and what was there meanwhile."""

    def __init__(self, loads: list[Load], watch: Watch) -> None:
        self.loads, self.watch = loads, watch

    @property
    def answered(self) -> list[Answered]:
        """All requests that were answered so far."""
        return [each for load in self.loads for each in list(load.answered)]

    def judged(self) -> set[tuple[str, str]]:
        """Return the digests that judged, each with its cohort."""
        policies = [each for answer in self.answered for each in answer.body.get("policies", ())]
        return {(each["digest"], each["cohort"]) for each in policies}


@contextlib.contextmanager
def traffic(rolling: Rolling, **load: Any) -> Iterator[Traffic]:
    """Ask all gateways all the time: in the end no request failed, and each was judged by what was named then."""
    with Watch(rolling.site) as watch, contextlib.ExitStack() as stack:
        loads = [Load(each.url, **({"callers": 2} | load)) for each in rolling.gateways]
        for each in loads:
            stack.enter_context(each)
        yield Traffic(loads, watch)
    for each in loads:
        assert len(each.answered) > 20
        assert [other for other in each.answered if other.status != 200] == []
        assert watch.wrong(each.answered) == []
