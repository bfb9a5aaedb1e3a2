"""Microseconds of processor time to refuse a request over the wire, by what it is refused for.

The peer is uvicorn and raw ASGI alone (`empty`): what the server itself takes of a request that it answers at once.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import yaml

from baleen_bench import policies
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.load import HttpSide, Load
from baleen_bench.sides import bench
from baleen_core.api_keys import ApiKey, KeyList, hash_key, make_key, render_key_list
from baleen_core.callers import KeyRole, Per, RateLimit
from baleen_sidecar.settings import Durability

FIGURES = {
    "refuse_cpu_us": Aim(what="processor time to refuse a request with an API key that is not known", goal="<= 30"),
    "refuse_cpu_us_none": Aim(what="the same without any API key", goal="<= 30"),
    "refuse_cpu_us_limit": Aim(what="the same over a limit of the API key", goal="<= 30"),
    "refuse_cpu_us_empty": Aim(what="processor time of a request that an empty server answers"),
}
_REPETITIONS: Final = 3
_RATE: Final = 2000.0
_KEY, _STRANGER = make_key(bytes(32)), make_key(bytes(range(32)))
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
        }
        empty = sides["refuse_cpu_us_empty"]
        for side in sides.values():
            _offer(side, effort, seed=0)  # warms up, and uses up the limit
        pairs = [(_offer(empty, effort, seed), _offer(empty, effort, seed)) for seed in range(effort.noise_pairs)]
        turns = [
            {name: _offer(side, effort, 100 + seed) for name, side in sides.items()}
            for seed in range(min(_REPETITIONS, effort.repetitions))
        ]
    for turn in turns:
        for name, status in _STATUS.items():
            found = {key: count for key, count in turn[name].errors.items() if count}
            assert list(found) == [status], (name, found)
    noise = noise_of((one.server_cpu_us, other.server_cpu_us) for one, other in pairs)
    figures = tuple(
        Figure.of(name, [turn[name].server_cpu_us or 0.0 for turn in turns], "µs/request", aims=FIGURES, noise=noise)
        for name in FIGURES
    )
    raw = {"peer_against_itself": [[asdict(one), asdict(other)] for one, other in pairs]}
    return Outcome(figures=figures, raw=raw | {name: [asdict(turn[name]) for turn in turns] for name in FIGURES})


def _write_keys(path: Path) -> Path:
    key = ApiKey(name="bench", sha256=hash_key(_KEY), roles=frozenset({KeyRole.MODERATE}), limits=(_FEW,))
    path.write_text(yaml.safe_dump(render_key_list(KeyList(keys=(key,)))))
    return path


def _offer(side: HttpSide, effort: Effort, seed: int) -> Load:
    return side.offer(rate=_RATE, seconds=effort.seconds, seed=seed)
