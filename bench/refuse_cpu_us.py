"""Microseconds of processor time to refuse a request: over the wire, by what it is refused for, and without the wire.

No refusal over the wire is cheaper than the wire. So there are two floors in the same run: a bare protocol that parses
a request and answers bytes that were made before (`bare`), and uvicorn with raw ASGI that does (`empty`), which is the
peer. `door` has no socket: from the bytes of a request to those of its refusal, which is all that is the product's own.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Final

import yaml

from baleen_bench import doorstep, policies, texts
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.load import HttpSide, Load
from baleen_bench.sides import bench
from baleen_core.api_keys import ApiKey, KeyList, hash_key, make_key, render_key_list
from baleen_core.callers import KeyRole, Per, RateLimit
from baleen_sidecar.settings import Durability
from baleen_sidecar.web.moderate import PATH as MODERATE

FIGURES = {
    "refuse_cpu_us": Aim(what="processor time to refuse a request with an API key that is not known", goal="<= 30"),
    "refuse_cpu_us_none": Aim(what="the same without any API key", goal="<= 30"),
    "refuse_cpu_us_limit": Aim(what="the same over a limit of the API key", goal="<= 30"),
    "refuse_cpu_us_empty": Aim(what="processor time of a request that an empty server answers"),
    "refuse_cpu_us_bare": Aim(what="processor time of a request that a bare protocol answers: the wire alone"),
    "refuse_cpu_us_door": Aim(
        what="processor time to refuse a request with an API key that is not known, from its bytes to those of the "
        "answer, without the wire",
        goal="<= 20",
    ),
}
_REPETITIONS: Final = 3
_RATE: Final = 2000.0
_KEY, _STRANGER = make_key(bytes(32)), make_key(bytes(range(32)))
_DOOR: Final = "refuse_cpu_us_door"
_STATUS: Final = {"refuse_cpu_us": "401", "refuse_cpu_us_none": "401", "refuse_cpu_us_limit": "429"}
_FEW: Final = RateLimit(requests=1, per=Per.DAY, burst=1)


def measure(effort: Effort) -> Outcome:
    """Give every side the same load, in turns."""
    with bench() as here:
        keys = _write_keys(here.folder / "keys.yaml")
        subject = here.sidecar("refusing", Durability.INTERVAL, policies.rule_only(), api_keys=keys)
        sides: Mapping[str, HttpSide] = {
            "refuse_cpu_us": replace(subject, headers=(f"X-API-Key: {_STRANGER}",)),
            "refuse_cpu_us_none": subject,
            "refuse_cpu_us_limit": replace(subject, headers=(f"X-API-Key: {_KEY}",)),
            "refuse_cpu_us_empty": here.floor("empty"),
            "refuse_cpu_us_bare": here.floor("bare"),
        }
        empty = sides["refuse_cpu_us_empty"]
        for side in sides.values():
            _offer(side, effort, seed=0)  # warms up, and uses up the limit
        pairs = [(_offer(empty, effort, seed), _offer(empty, effort, seed)) for seed in range(effort.noise_pairs)]
        turns = [
            {name: _offer(side, effort, 100 + seed) for name, side in sides.items()}
            for seed in range(min(_REPETITIONS, effort.repetitions))
        ]
        at_door = at_the_door(here.folder / "door", keys, seconds=effort.seconds)
    for turn in turns:
        for name, status in _STATUS.items():
            found = {key: count for key, count in turn[name].errors.items() if count}
            assert list(found) == [status], (name, found)
    noise = noise_of((one.server_cpu_us, other.server_cpu_us) for one, other in pairs)
    figures = tuple(
        Figure.of(name, [turn[name].server_cpu_us or 0.0 for turn in turns], "µs/request", aims=FIGURES, noise=noise)
        for name in sides
    )
    figures += (Figure.of(_DOOR, at_door[0], "µs/request", aims=FIGURES, noise=noise_of(zip(*at_door, strict=True))),)
    raw = {"peer_against_itself": [[asdict(one), asdict(other)] for one, other in pairs]}
    raw |= {name: [asdict(turn[name]) for turn in turns] for name in sides}
    return Outcome(figures=figures, raw=raw | {_DOOR: at_door})


def at_the_door(folder: Path, keys: Path, *, seconds: float) -> tuple[list[float], list[float]]:
    """Return the microseconds of a refusal without the wire, twice in turns: the second is the first's noise."""
    policies.write(folder / "policies", policies.rule_only())
    request = doorstep.request_of(MODERATE, texts.request(texts.messages(1)[0], 0), f"X-API-Key: {_STRANGER}")
    found = doorstep.cpu_us(
        doorstep.settings_for(folder, keys),
        {"one": request, "other": request},
        status={"one": 401, "other": 401},
        seconds=seconds,
    )
    # Third parts: a figure's spread is that of its repetitions, not of 64 requests.
    return tuple([mean(turns[part::_REPETITIONS]) for part in range(_REPETITIONS)] for turns in found.values())


def _write_keys(path: Path) -> Path:
    key = ApiKey(name="bench", sha256=hash_key(_KEY), roles=frozenset({KeyRole.MODERATE}), limits=(_FEW,))
    path.write_text(yaml.safe_dump(render_key_list(KeyList(keys=(key,)))))
    return path


def _offer(side: HttpSide, effort: Effort, seed: int) -> Load:
    return side.offer(rate=_RATE, seconds=effort.seconds, seed=seed)
