"""Serve the models that ModelDeployments name: load their recipes, and ask every replica its golden questions.

Level-triggered: it is given all deployments that there are now; the same input leads to the same state, however often
it comes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from baleen_core.errors import BaleenError, ModelError, Problem
from baleen_core.model.fallback import find_fallback_faults
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.parse import parse_model_deployment
from baleen_core.model.schema import Model, ModelDeployment, Resilience
from baleen_sidecar.ports import ImageDecoder, Key
from baleen_sidecar.usecases.verify_models import ModelControl, VerifyModels

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 2.0
"""How soon a model without its golden answers is asked again, and one that could not be loaded is tried again."""
GRPC_PORT: Final = 8001
_PROBE_LIMIT_SECONDS: Final = 2.5
"""How long a server that was away may take over golden questions before it counts as still away: one that swallows
what it is asked must not keep the next question from being asked."""
_TIMES_SLOWER: Final = 3.0
"""Where golden answers usually take long, one that is back may take so many times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSet:
    """The models that are served now, and every signal that is declared for them (`<model>.<signal>`).

    `waiting` are declared and not served: their files are not at hand yet, or an older one of that name goes on.
    """

    models: tuple[LoadedModel, ...] = ()
    signals: frozenset[str] = frozenset()
    waiting: tuple[Model, ...] = ()

    @property
    def expected(self) -> tuple[Model, ...]:
        """Return one model of each name: that which is served, or else that which waits."""
        served = {loaded.model.name: loaded.model for loaded in self.models}
        return tuple(({each.name: each for each in self.waiting} | served).values())


class FixedModels:
    """The same models for ever, as in local mode."""

    def __init__(self, models: Iterable[LoadedModel]) -> None:
        loaded = tuple(models)
        self._current = ModelSet(models=loaded, signals=signals_of(each.model for each in loaded))

    def current(self) -> ModelSet:
        """Return the models."""
        return self._current


class ModelServer(ModelControl, Protocol):
    """One server that runs models, under the address that it has now."""

    def is_confirmed(self, model: Model) -> bool:
        """Say whether the model gave its golden answers there and may serve."""

    def is_failing(self) -> bool:
        """Say whether the last call that anybody made there failed."""

    def probe_at(self, model: Model) -> float | None:
        """Return when the model's breaker there wants golden questions (monotonic seconds); None: it does not."""

    def is_late(self, model: Model) -> bool:
        """Say whether its calls there take so long that golden questions have to tell whether it hangs."""


class ModelServers(Protocol):
    """The servers that models are asked at."""

    def route(self, places: Mapping[str, Sequence[str]], resilience: Mapping[str, Resilience]) -> None:
        """From now on ask each model (by name) at these addresses alone, and meet its failures by these rules."""

    def server(self, endpoint: str) -> ModelServer:
        """Return the server at an address that a model is asked at."""

    async def sweep(self) -> None:
        """Close the servers at which no model is asked any more, once their calls have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A model that is ready to be asked, and where."""

    loaded: LoadedModel
    endpoints: tuple[str, ...]
    interval_seconds: float
    resilience: Resilience


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """A model as a deployment declares it, and where it is asked."""

    owner: Key
    model: Model
    endpoints: tuple[str, ...]
    interval_seconds: float
    resilience: Resilience


@dataclass(slots=True, kw_only=True)
class _Watch:
    """One model at one server: who asks it, and when it is to be asked again (monotonic seconds)."""

    verify: VerifyModels
    server: ModelServer
    loaded: LoadedModel
    interval_seconds: float
    due_at: float = 0.0
    retry_at: float = 0.0
    again_at: float = 0.0
    is_asking: bool = False
    usual_seconds: float | None = None
    """How long its golden answers took last; None: it never gave them."""

    def is_due(self, now: float) -> bool:
        """Say whether it is to be asked now."""
        if self.is_asking or now < self.again_at:
            return False
        if (probe_at := self._probe_at) is not None:
            return now >= probe_at
        return self.is_late or now >= self.due_at or (now >= self.retry_at and self.server.is_failing())

    @property
    def is_late(self) -> bool:
        """Whether it serves, and is asked out of turn since calls take long."""
        return self._probe_at is None and self.server.is_late(self.loaded.model)

    @property
    def limit_seconds(self) -> float | None:
        """How long a server may take that fails; None: as long as the model's own time budget lets it."""
        if self.usual_seconds is None or self._is_well:
            return None
        return max(_PROBE_LIMIT_SECONDS, _TIMES_SLOWER * self.usual_seconds)

    @property
    def _probe_at(self) -> float | None:
        return self.server.probe_at(self.loaded.model)

    @property
    def _is_well(self) -> bool:
        return self.server.is_confirmed(self.loaded.model) and self._probe_at is None and not self.is_late


@dataclass(slots=True)
class _Known:
    """The deployments that were valid last, with the manifests that they were read from, and the problems of others."""

    deployments: dict[Key, tuple[Mapping[str, Any], ModelDeployment]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class ServeModels:
    """Holds the models that deployments name, and lets each replica serve only while its answers are right.

    A model whose content changes is replaced once the new one gave its golden answers somewhere (or the old one gives
    them no more): while its server restarts, the old one goes on.
    """

    def __init__(
        self,
        servers: ModelServers,
        *,
        load: Callable[[Model], LoadedModel],
        images: ImageDecoder,
        golden_file: Callable[[Model, str], bytes],
        interval_seconds: float,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`load` (in a thread) and `golden_file` find a model's files; a deployment may ask for a shorter interval."""
        self._servers = servers
        self._load = load
        self._images = images
        self._golden_file = golden_file
        self._interval_seconds = interval_seconds
        self._retry_seconds = min(retry_seconds, interval_seconds)
        self._known = _Known()
        self._declared: dict[str, _Declared] = {}
        self._loaded: dict[Model, LoadedModel] = {}
        self._failures: dict[Model, str] = {}
        self._serving: dict[str, _Placed] = {}
        self._watches: dict[tuple[str, int], _Watch] = {}
        self._current = ModelSet()
        self._declares_more = asyncio.Event()
        self._watches_more = asyncio.Event()

    def current(self) -> ModelSet:
        """Return the models that are served now; the same object until that changes."""
        return self._current

    async def serve(self, deployments: Sequence[Mapping[str, Any]], *, is_whole: bool = True) -> tuple[Problem, ...]:
        """Take note of every deployment that there is; files are loaded, and models verified, by `run`.

        A deployment that is not valid keeps what it declared before; without `is_whole`, so does one that is missing.
        Returns everything that is wrong now.
        """
        self._known = _read(deployments, self._known, is_whole=is_whole)
        self._declared, claimed_twice = _claim(self._known, self._interval_seconds)
        self._known.problems += claimed_twice
        wanted = {each.model for each in self._declared.values()}
        self._loaded = {model: loaded for model, loaded in self._loaded.items() if model in wanted}
        self._failures = {model: cause for model, cause in self._failures.items() if model in wanted}
        self._settle()
        self._declares_more.set()
        return self.problems

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Say everything that is wrong with the deployments, and with the files of their models."""
        failed = [
            Problem(field=f"{_title(each.owner)}: models[{each.model.name}]", message=self._failures[each.model])
            for each in self._declared.values()
            if each.model in self._failures
        ]
        return (*self._known.problems, *failed)

    def kept(self) -> tuple[Mapping[str, Any], ...]:
        """Return the deployments that must survive a restart: each as it was valid last."""
        return tuple(manifest for manifest, _ in self._known.deployments.values())

    def find_file(self, sha256: str) -> tuple[Model, str] | None:
        """Return a declared model that names an asset or a golden file of this SHA-256, and the file's name."""
        for model in (each.model for each in self._declared.values()):
            named = [(asset.name, asset.sha256) for asset in model.preprocessing.assets]
            named += [(golden.input.name or "", golden.input.sha256 or "") for golden in model.golden]
            for name, digest in named:
                if name and digest == sha256:
                    return model, name
        return None

    async def run(self) -> None:
        """Load and verify for ever; a model that is not verified, or whose server fails calls, is asked again soon."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_loading(), name="load models")
            while True:
                self._watches_more.clear()
                now = asyncio.get_running_loop().time()
                for watch in self._watches.values():
                    if watch.is_due(now):
                        watch.is_asking = True
                        group.create_task(self._check(watch))
                await self._servers.sweep()
                await _wait(self._watches_more, self._retry_seconds / 4)

    async def load(self) -> None:
        """Load what is declared and not loaded; a failure is the model's alone."""
        for model in [each.model for each in self._declared.values() if each.model not in self._loaded]:
            try:
                loaded = await asyncio.to_thread(self._load, model)
            except Exception as exc:  # whatever a file makes a library raise: all restarts would end by it, too
                self._note_failure(model, exc)
                continue
            self._failures.pop(model, None)
            if any(each.model == model for each in self._declared.values()):
                self._loaded[model] = loaded
                self._settle()

    def _note_failure(self, model: Model, failed: Exception) -> None:
        is_foreseen = isinstance(failed, BaleenError | OSError)
        cause = str(failed) if is_foreseen else repr(failed)
        if self._failures.get(model) != cause:
            log.error(
                "model not loaded",
                extra={"model": model.name, "cause": cause},
                exc_info=None if is_foreseen else failed,
            )
        self._failures[model] = cause

    async def check(self) -> None:
        """Ask every model at every server now."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches.values():
                group.create_task(self._check(watch))

    async def _run_loading(self) -> None:
        while True:
            self._declares_more.clear()
            await self.load()
            await _wait(self._declares_more, self._retry_seconds if self._failures else None)

    async def _check(self, watch: _Watch) -> None:
        watch.is_asking = True
        begun = asyncio.get_running_loop().time()
        try:
            (found,) = await watch.verify.check(limit_seconds=watch.limit_seconds, is_early=watch.is_late)
        finally:
            watch.is_asking = False
        now = asyncio.get_running_loop().time()
        if not found.problems:
            watch.usual_seconds = now - begun
        watch.again_at = now + self._retry_seconds / 4
        watch.retry_at = now + self._retry_seconds
        watch.due_at = watch.retry_at if found.problems else now + watch.interval_seconds
        self._settle()

    def _settle(self) -> None:
        """Decide which models are served, where they are asked, and which of them is verified where."""
        wanted = {
            name: _Placed(
                loaded=self._loaded[each.model],
                endpoints=each.endpoints,
                interval_seconds=each.interval_seconds,
                resilience=each.resilience,
            )
            for name, each in self._declared.items()
            if each.model in self._loaded
        }
        self._serving = {
            name: placed
            for name in self._declared
            if (placed := self._choose(self._serving.get(name), wanted.get(name))) is not None
        }
        self._route(wanted)
        current = ModelSet(
            models=tuple(placed.loaded for placed in self._serving.values()),
            signals=signals_of(each.model for each in self._declared.values()),
            waiting=tuple(each.model for name, each in self._declared.items() if not self._serves(name, each.model)),
        )
        if _identity(current) != _identity(self._current):
            self._current = current
            names = [f"{loaded.model.name} {loaded.model.version}" for loaded in current.models]
            log.info("models served", extra={"models": names, "waiting": [each.name for each in current.waiting]})

    def _serves(self, name: str, model: Model) -> bool:
        return name in self._serving and self._serving[name].loaded.model == model

    def _choose(self, serving: _Placed | None, wanted: _Placed | None) -> _Placed | None:
        if serving is None or wanted is None:
            return wanted or serving
        return wanted if self._is_confirmed(wanted) or not self._is_confirmed(serving) else serving

    def _is_confirmed(self, placed: _Placed) -> bool:
        watches = (self._watches.get((endpoint, id(placed.loaded))) for endpoint in placed.endpoints)
        return any(watch is not None and watch.server.is_confirmed(placed.loaded.model) for watch in watches)

    def _route(self, wanted: Mapping[str, _Placed]) -> None:
        """Ask the models that serve, and those that are to follow them, at all their addresses, and nothing else."""
        placed = [*self._serving.values(), *(each for each in wanted.values() if each not in self._serving.values())]
        places: dict[str, dict[str, None]] = {}
        for each in placed:
            places.setdefault(each.loaded.model.name, {}).update(dict.fromkeys(each.endpoints))
        # What is declared last counts, also while the model before goes on.
        resilience = {each.loaded.model.name: each.resilience for each in placed}
        self._servers.route({name: tuple(endpoints) for name, endpoints in places.items()}, resilience)
        watches: dict[tuple[str, int], _Watch] = {}
        for each in placed:
            for endpoint in each.endpoints:
                key = endpoint, id(each.loaded)
                watch = self._watches.get(key)
                if watch is None:
                    watch = self._watch(endpoint, each)
                    self._watches_more.set()
                watch.interval_seconds = each.interval_seconds
                watches[key] = watch
        self._watches = watches

    def _watch(self, endpoint: str, placed: _Placed) -> _Watch:
        server = self._servers.server(endpoint)
        verify = VerifyModels([placed.loaded], server, images=self._images, golden_file=self._golden_file, loads=False)
        return _Watch(verify=verify, server=server, loaded=placed.loaded, interval_seconds=placed.interval_seconds)


def signals_of(models: Iterable[Model]) -> frozenset[str]:
    """Return every signal of these models as policies name them."""
    return frozenset(f"{model.name}.{signal.name}" for model in models for signal in model.signals)


def endpoints_of(deployment: ModelDeployment) -> tuple[str, ...]:
    """Return where a deployment's models are asked: at a Triton of someone else, or the Service of our own."""
    # The operator gives the Service this name.
    return deployment.endpoints or (f"triton-{deployment.name}.{deployment.namespace}.svc:{GRPC_PORT}",)


def _read(manifests: Sequence[Mapping[str, Any]], known: _Known, *, is_whole: bool) -> _Known:
    """Read every deployment that is new or changed; one that is not valid is what it was before."""
    found = _Known(deployments={} if is_whole else dict(known.deployments))
    problems: list[Problem] = []
    for manifest in manifests:
        key = _key(manifest)
        before = known.deployments.get(key)
        if before is not None and (before[0] is manifest or before[0] == manifest):
            found.deployments[key] = before
            continue
        try:
            found.deployments[key] = manifest, parse_model_deployment(manifest)
        except ModelError as exc:
            problems += [
                Problem(field=f"{_title(key)}: {each.field}".rstrip(": "), message=each.message)
                for each in exc.problems
            ]
            if before is not None:
                found.deployments[key] = before
    found.problems = tuple(problems)
    return found


def _claim(known: _Known, interval_seconds: float) -> tuple[dict[str, _Declared], tuple[Problem, ...]]:
    """Give each model's name to the oldest deployment that has it."""
    declared: dict[str, _Declared] = {}
    problems: list[Problem] = []
    for key, (_, deployment) in sorted(known.deployments.items(), key=lambda each: (_created(each[1][0]), each[0])):
        for index, model in enumerate(deployment.models):
            if model.name in declared:
                owner = _title(declared[model.name].owner)
                message = f"{model.name!r} is a model of the older {owner}; give this one another name"
                problems.append(Problem(field=f"{_title(key)}: spec.models[{index}].name", message=message))
                continue
            declared[model.name] = _Declared(
                owner=key,
                model=model,
                endpoints=endpoints_of(deployment),
                interval_seconds=min(interval_seconds, deployment.verify_interval_seconds),
                resilience=deployment.resilience,
            )
    titles = {name: _title(each.owner) for name, each in declared.items()}
    faults = find_fallback_faults([each.model for each in declared.values()], is_all=True)
    problems += [
        Problem(
            field=f"{titles[each.model]}: models[{each.model}].signals[{each.index}].fallback", message=each.message
        )
        for each in faults
    ]
    return declared, tuple(problems)


def _created(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"].get("creationTimestamp") or "")


def _key(manifest: Mapping[str, Any]) -> Key:
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping):
        return "", ""
    return str(metadata.get("namespace") or "default"), str(metadata.get("name") or "")


def _title(key: Key) -> str:
    return "ModelDeployment {}/{}".format(*key)


def _identity(models: ModelSet) -> tuple[object, ...]:
    """Recipes are compared by the object that they are."""
    return tuple(map(id, models.models)), models.signals, models.waiting


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
