"""Bring a ModelDeployment about: make its runtime or drive someone else's, and say how its models are."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from baleen_core.errors import BaleenError, ClusterError, ModelError, ModelUnavailable, Stale
from baleen_core.model.golden import compare_golden, highest_scores
from baleen_core.model.parse import parse_model_deployment
from baleen_core.model.schema import Model, ModelDeployment
from baleen_core.resources import DEPLOYMENT_KIND
from baleen_operator.logs import about
from baleen_operator.plan.actions import Action, Target
from baleen_operator.plan.manifests import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    ENDPOINT_SLICES,
    GRPC_PORT,
    NETWORK_POLICIES,
    SERVICES,
    Owner,
    build_config_maps,
    build_disruption_budget,
    build_network_policy,
    build_runtime,
    build_service,
    runtime_name,
    selector_labels,
    service_endpoint,
)
from baleen_operator.plan.model_deployment import (
    Finding,
    Observed,
    Place,
    after_loading,
    describe,
    describe_failure,
    describe_refusal,
    is_owned,
    is_to_load,
    judge,
    plan_object,
    plan_removal,
    plan_status,
    read_rollout,
    seconds_until_look,
    silence,
)
from baleen_operator.plan.refusals import (
    NAME_CONFLICT,
    Refusal,
    refuse_conflicts,
    refuse_invalid,
    refuse_runtime,
)
from baleen_operator.reconcile.model_ports import ModelPorts, TritonServer
from baleen_operator.reconcile.ports import Key, Manifest, Outcome
from baleen_operator.resources.model_deployment import ModelState, Resource, Status, read_resource

logger = logging.getLogger(__name__)

_NAMED: Final = (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, NETWORK_POLICIES)
_SERVERS_AT_ONCE: Final = 8

Loads = Mapping[str, Sequence[Model]]
"""The models that each server is to load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What there is of a runtime: the objects that have its name, its ConfigMaps and where its pods are."""

    named: Mapping[Target, Manifest | None]
    config_maps: Sequence[Manifest]
    places: tuple[Place, ...]


async def reconcile_model_deployment(key: Key, ports: ModelPorts) -> Outcome:
    """Look at a ModelDeployment once: everything that is to be done now is done, and its status says how it is.

    Raises:
        Stale: somebody wrote in between. ClusterError: the API server did not answer, or refused to take the status.
    """
    manifest = ports.seen.get(DEPLOYMENT_KIND, key)
    if manifest is None:
        ports.rounds.forget(key)
        return Outcome()
    resource = read_resource(manifest)
    if resource.is_leaving:
        return Outcome()
    if left := ports.rounds.seconds_left(key, resource.uid, resource.generation, ports.clock()):
        return Outcome(requeue_seconds=left)
    outcome = await _reconcile(manifest, resource, ports)
    if outcome.requeue_seconds is not None:
        due = ports.budgets.again(ports.clock(), outcome.requeue_seconds)
        ports.rounds.note(key, resource.uid, resource.generation, due)
    return outcome


async def _reconcile(manifest: Manifest, resource: Resource, ports: ModelPorts) -> Outcome:
    try:
        deployment = parse_model_deployment(manifest)
    except ModelError as wrong:
        return await _refuse(resource, refuse_invalid(wrong.problems), ports)
    refusal = refuse_conflicts(deployment, ports.seen.claimant) or refuse_runtime(deployment, ports.rules)
    if refusal:
        return await _refuse(resource, refusal, ports)
    owner = Owner(namespace=resource.namespace, name=resource.name, uid=resource.uid)
    if deployment.endpoints:
        return await _drive(deployment, resource, owner, ports)
    return await _run(deployment, resource, owner, ports)


async def _refuse(resource: Resource, refusal: Refusal, ports: ModelPorts) -> Outcome:
    await _tell(resource, describe_refusal(resource, refusal, ports.clock()), ports)
    # Only somebody else's going makes a name free; all else is for the author, whose edit is seen.
    is_taken = refusal.reason == NAME_CONFLICT
    return Outcome(requeue_seconds=ports.budgets.progress_seconds if is_taken else None)


async def _drive(deployment: ModelDeployment, resource: Resource, owner: Owner, ports: ModelPorts) -> Outcome:
    """Look after a Triton that someone else runs."""
    places = tuple(Place(endpoint=endpoint) for endpoint in deployment.endpoints)
    # It had a runtime of its own before its author gave it endpoints.
    had = await _observe_made(owner, ports) if resource.status.selector else None
    findings, loads = await _examine(deployment, resource, places, ports, may_load=True)
    for action in _plan_leftovers(had, owner) if had else ():
        await ports.cluster.act(action)
    observed = Observed(
        deployment=deployment,
        resource=resource,
        places=places,
        findings=findings,
        endpoints=deployment.endpoints,
        now=ports.clock(),
    )
    return await _conclude(observed, loads, ports)


async def _run(deployment: ModelDeployment, resource: Resource, owner: Owner, ports: ModelPorts) -> Outcome:
    """Look after a Triton of our own."""
    made = await _observe_made(owner, ports)
    foreign = [target.kind for target, live in made.named.items() if live and not is_owned(live, owner.uid)]
    if foreign:
        message = f"{', '.join(foreign)} {runtime_name(owner.name)} is there already and belongs to somebody else"
        await _tell(resource, describe_failure(resource, "NameTaken", message, ports.clock()), ports)
        return Outcome(requeue_seconds=ports.budgets.progress_seconds)
    rollout = read_rollout(made.named[DEPLOYMENTS], deployment.replicas)
    changes = _plan_made(deployment, owner, made, ports, is_settled=rollout.is_settled)
    if changes:
        # What is about to change is not settled, whatever was said of the version before.
        rollout = replace(rollout, is_settled=False)
    findings, loads = await _examine(deployment, resource, made.places, ports, may_load=rollout.is_settled)
    try:
        for action in changes:
            await ports.cluster.act(action)
    except Stale:
        raise
    except ClusterError as refused:
        await _tell(resource, describe_failure(resource, "ApplyFailed", str(refused), ports.clock()), ports)
        return Outcome(requeue_seconds=ports.budgets.progress_seconds)
    observed = Observed(
        deployment=deployment,
        resource=resource,
        places=made.places,
        findings=findings,
        rollout=rollout,
        endpoints=(service_endpoint(owner),),
        selector=",".join(f"{label}={value}" for label, value in selector_labels(owner.name).items()),
        now=ports.clock(),
    )
    return await _conclude(observed, loads, ports)


async def _conclude(observed: Observed, loads: Loads, ports: ModelPorts) -> Outcome:
    """Say what was found; load what is to be loaded, and say what came of it."""
    budgets = ports.budgets
    is_news = any(finding.state is ModelState.LOADING for finding in observed.findings)
    if is_news or not loads:
        observed = replace(observed, resource=await _tell(observed.resource, describe(observed), ports))
    outcomes = await _load_all(loads, ports)
    if any(outcomes.values()):
        observed = replace(after_loading(observed, outcomes), now=ports.clock())
        await _tell(observed.resource, describe(observed), ports)
    if any(not failure for failure in outcomes.values()):
        return Outcome(requeue_seconds=budgets.soon_seconds)
    status, interval = describe(observed), observed.deployment.verify_interval_seconds
    is_coming = observed.rollout is not None and status.ready_replicas < observed.deployment.replicas
    if is_coming:
        return Outcome(requeue_seconds=min(budgets.progress_seconds, interval))
    soon = budgets.progress_seconds
    return Outcome(
        requeue_seconds=seconds_until_look(status, ports.clock(), soon_seconds=soon, interval_seconds=interval)
    )


async def _tell(resource: Resource, status: Status, ports: ModelPorts) -> Resource:
    """Write the status if it is news, and return the resource as it is then."""
    for action in plan_status(resource, status):
        written = await ports.cluster.act(action)
        if written is not None:
            resource = read_resource(written)
    return resource


async def _observe_made(owner: Owner, ports: ModelPorts) -> _Made:
    name, labels = runtime_name(owner.name), selector_labels(owner.name)
    cluster = ports.cluster
    slices = await cluster.select(ENDPOINT_SLICES, owner.namespace, {"kubernetes.io/service-name": name})
    return _Made(
        named={target: await cluster.read(target, owner.namespace, name) for target in _NAMED},
        config_maps=await cluster.select(CONFIG_MAPS, owner.namespace, labels),
        places=_read_places(slices),
    )


def _read_places(slices: Sequence[Manifest]) -> tuple[Place, ...]:
    found: dict[str, bool] = {}
    for each in slices:
        host = "[{}]" if each.get("addressType") == "IPv6" else "{}"
        for endpoint in each.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            if not conditions.get("terminating"):
                # All addresses of an endpoint are the same pod.
                found[f"{host.format(endpoint['addresses'][0])}:{GRPC_PORT}"] = bool(conditions.get("ready"))
    return tuple(Place(endpoint=endpoint, is_ready=is_ready) for endpoint, is_ready in sorted(found.items()))


def _plan_made(
    deployment: ModelDeployment, owner: Owner, made: _Made, ports: ModelPorts, *, is_settled: bool
) -> tuple[Action, ...]:
    config_maps = build_config_maps(deployment, owner)
    there = {each["metadata"]["name"]: each for each in made.config_maps}
    wanted = {
        NETWORK_POLICIES: build_network_policy(deployment, owner, ports.rules),
        SERVICES: build_service(owner),
        DISRUPTION_BUDGETS: build_disruption_budget(owner),
        DEPLOYMENTS: build_runtime(deployment, owner, ports.rules, config_maps),
    }
    actions = [
        action for each in config_maps for action in plan_object(CONFIG_MAPS, each, there.get(each["metadata"]["name"]))
    ]
    for target, desired in wanted.items():
        actions += plan_object(target, desired, made.named[target])
    if is_settled and not actions:
        names = {each["metadata"]["name"] for each in config_maps}
        # No pod of a version before is left that could start again from them.
        left = [each for name, each in there.items() if name not in names]
        actions += plan_removal(CONFIG_MAPS, left, owner.uid)
    return tuple(actions)


def _plan_leftovers(made: _Made, owner: Owner) -> tuple[Action, ...]:
    named = [(target, [live]) for target, live in made.named.items() if live is not None]
    return tuple(
        action
        for target, live in (*named, (CONFIG_MAPS, made.config_maps))
        for action in plan_removal(target, live, owner.uid)
    )


async def _examine(
    deployment: ModelDeployment, resource: Resource, places: Sequence[Place], ports: ModelPorts, *, may_load: bool
) -> tuple[tuple[Finding, ...], Loads]:
    """Ask every server about every model, several servers at once; a server that takes too long did not answer."""
    gate = asyncio.Semaphore(_SERVERS_AT_ONCE)

    async def examine(place: Place) -> tuple[tuple[Finding, ...], tuple[Model, ...]]:
        async with gate, ports.triton.connect(place.endpoint) as server:
            seconds = ports.budgets.ask_seconds
            try:
                async with asyncio.timeout(seconds):
                    return await _examine_one(deployment, resource, place, server, ports, may_load=may_load)
            except ModelUnavailable as silent:
                return silence(deployment.models, place, str(silent)), ()
            except TimeoutError:
                return silence(deployment.models, place, f"not everything within {seconds:g} seconds"), ()

    async with asyncio.TaskGroup() as group:
        tasks = {place.endpoint: group.create_task(examine(place)) for place in places}
    findings = tuple(finding for task in tasks.values() for finding in task.result()[0])
    return findings, {endpoint: task.result()[1] for endpoint, task in tasks.items() if task.result()[1]}


async def _examine_one(
    deployment: ModelDeployment,
    resource: Resource,
    place: Place,
    server: TritonServer,
    ports: ModelPorts,
    *,
    may_load: bool,
) -> tuple[tuple[Finding, ...], tuple[Model, ...]]:
    entries = await server.index()
    findings = []
    for model in deployment.models:
        before = resource.status.model(model.name)
        finding = judge(model, place, entries, before=before, may_load=may_load)
        if finding.state is ModelState.VERIFIED:
            finding = await _ask(model, finding, resource, server, ports)
        findings.append(finding)
    loads = tuple(model for model in deployment.models if may_load and is_to_load(model, entries))
    return tuple(findings), loads


async def _ask(model: Model, finding: Finding, resource: Resource, server: TritonServer, ports: ModelPorts) -> Finding:
    """Ask a model its golden questions, and say what is wrong with the answers."""
    try:
        questions = await ports.files.questions(model)
    except Exception as failed:  # of this model alone, whatever a file makes a library raise: the others are asked
        is_foreseen = isinstance(failed, BaleenError)
        message = f"model {model.name!r} cannot be asked: {failed if is_foreseen else repr(failed)}"
        before = resource.status.model(model.name)
        if not is_foreseen and (before is None or message not in before.message):
            fields = about(DEPLOYMENT_KIND, resource.namespace, resource.name, model=model.name)
            logger.exception("no golden questions", extra=fields)
        return replace(finding, state=ModelState.UNCHECKED, message=message)
    differences: list[str] = []
    try:
        for index, batches in enumerate(questions):
            answers = [(inputs, await server.infer(model, inputs)) for inputs in batches]
            differences += map(str, compare_golden(model, index, highest_scores(model, answers)))
    except ModelUnavailable as silent:
        return replace(finding, state=ModelState.SILENT, message=str(silent))
    if differences:
        message = f"Triton at {finding.endpoint} answers wrongly: {'; '.join(differences)}"
        return replace(finding, state=ModelState.WRONG, message=message)
    return finding


async def _load_all(loads: Loads, ports: ModelPorts) -> Mapping[tuple[str, str], str]:
    """Load and warm models, on several servers at once; return why each was not loaded, or nothing where it was."""
    gate = asyncio.Semaphore(_SERVERS_AT_ONCE)

    async def load(endpoint: str, models: Sequence[Model]) -> Mapping[tuple[str, str], str]:
        outcomes: dict[tuple[str, str], str] = {}
        async with gate, ports.triton.connect(endpoint, to_load=True) as server:
            try:
                async with asyncio.timeout(ports.budgets.load_seconds):
                    for model in models:
                        outcomes[endpoint, model.name] = await _load(model, server, ports)
            except TimeoutError:
                late = f"Triton at {endpoint} did not load everything within {ports.budgets.load_seconds:g} seconds"
                outcomes |= {(endpoint, each.name): late for each in models if (endpoint, each.name) not in outcomes}
        return outcomes

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load(endpoint, models)) for endpoint, models in loads.items()]
    return {key: failure for task in tasks for key, failure in task.result().items()}


async def _load(model: Model, server: TritonServer, ports: ModelPorts) -> str:
    try:
        await server.load(model)
    except ModelUnavailable as failed:
        return str(failed)
    try:
        questions = await ports.files.questions(model)
        for _ in range(model.warmup_iterations):
            for inputs in questions[0]:
                await server.infer(model, inputs)
    except Exception:
        # What it says when it is asked in earnest, in the next round, goes into the status.
        return ""
    return ""
