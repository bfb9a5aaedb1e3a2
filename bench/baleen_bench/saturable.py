"""Fronts of the stand-in `stub`, which answers 400 texts a second and no more: the product, and Envoy as its peer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from baleen_bench import policies
from baleen_bench.envoy import envoy
from baleen_bench.flows import Front
from baleen_bench.models import STUB, load
from baleen_bench.sides import Bench, bench
from baleen_bench.texts import messages, request, write_lines
from baleen_bench.triton import Triton, triton
from baleen_core.api_keys import ApiKey, KeyList, hash_key, make_key, render_key_list
from baleen_core.callers import KeyRole
from baleen_core.priority import Priority
from baleen_sidecar.settings import Durability

DEADLINE_SECONDS: Final = 0.5
_TEXTS: Final = 8_192
"""Of each caller, all different: equal ones at a time would be answered together."""
_QUICK_TEXTS: Final = 1_024
"""For a quick run, of which few are sent."""
_CALLS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sends a flow: how urgently, for which tenant, and by the key of which other caller, if not its own."""

    priority: Priority = Priority.NORMAL
    tenant: str | None = None
    key_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a saturable model stands, and what is put in front of it."""

    bench: Bench
    server: Triton
    texts: int

    def sidecar(self, callers: Mapping[str, Caller]) -> Front:
        """Put the product in front, with an API key for each caller."""
        keys = {name: make_key(bytes([number]) * 32) for number, name in enumerate(callers)}
        file = self.bench.folder / "keys.yaml"
        file.write_text(_render_keys(callers, keys))
        side = self.bench.sidecar(
            "saturable",
            Durability.INTERVAL,
            policies.threshold(*load(STUB.name).signal_names()),
            triton=self.server,
            model=STUB.name,
            api_keys=file,
            is_governed=True,
        )
        return Front(
            name=side.name,
            url=side.url,
            pid=side.server.pid,
            triton=self.server.pid,
            cpu=self.bench.cores.other,
            callers={
                name: (
                    f"-lines={_write_requests(self.bench.folder / f'{name}.jsonl', caller=number, texts=self.texts)}",
                    "-header=Content-Type: application/json",
                    f"-header=X-API-Key: {keys[caller.key_of or name]}",
                    f"-header=X-Baleen-Priority: {caller.priority.title}",
                    f"-header=X-Baleen-Deadline-Ms: {round(DEADLINE_SECONDS * 1000)}",
                )
                for number, (name, caller) in enumerate(callers.items())
            },
        )

    @contextmanager
    def envoy(self, callers: Sequence[str]) -> Iterator[Front]:
        """Put Envoy in front; who calls is nothing to it, and what it is sent are the calls that the product makes."""
        with envoy(self.server, self.bench.folder / "envoy", cpu=self.bench.cores.server) as at:
            bodies = at.write_calls(self.bench.folder / "calls", messages(_CALLS))
            arguments = (*(f"-body={body}" for body in bodies), *(f"-header={each}" for each in at.headers))
            yield Front(
                name="envoy",
                url=at.url,
                pid=at.pid,
                triton=self.server.pid,
                cpu=self.bench.cores.other,
                callers=dict.fromkeys(callers, arguments),
            )


@contextmanager
def stage(*, quick: bool) -> Iterator[Stage]:
    """Run the model on one core until the end of the block."""
    with bench() as here, triton(STUB.name, cpu=here.cores.other) as server:
        yield Stage(bench=here, server=server, texts=_QUICK_TEXTS if quick else _TEXTS)


def _render_keys(callers: Mapping[str, Caller], keys: Mapping[str, str]) -> str:
    entries = (
        ApiKey(
            name=name,
            sha256=hash_key(keys[name]),
            roles=frozenset({KeyRole.MODERATE}),
            tenant=caller.tenant,
            top_priority=caller.priority,
        )
        for name, caller in callers.items()
    )
    return yaml.safe_dump(render_key_list(KeyList(keys=tuple(entries))))


def _write_requests(path: Path, *, caller: int, texts: int) -> Path:
    known = messages()
    numbers = range(caller * texts, (caller + 1) * texts)
    texts = (f"{known[number % len(known)]} {number}" for number in numbers)
    return write_lines(path, (request(text, number) for text, number in zip(texts, numbers, strict=True)))
