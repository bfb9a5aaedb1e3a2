"""The JSON of a simulation: what is asked, and what is answered; rates are 0 to 1 with six places."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from baleen_core.decision.backtest import Backtest, Ended, GateReason, GateResult, GateVerdict
from baleen_core.decision.flips import FlipMatrix, FlipSummary
from baleen_core.errors import ContentError, Problem
from baleen_core.policy.schema import MAX_BACKTEST_DECISIONS, BacktestGate, Verdict
from baleen_core.ratio import MILLION, parse_ratio
from baleen_sidecar.usecases.simulate import DEFAULT_DECISIONS, Draft, Simulation
from baleen_sidecar.web.schemas import decode_body

LIMIT_BYTES: Final = 4 * 1024 * 1024
"""The largest request: a policy with its lists."""
MAX_CONTENTS: Final = 64

Decisions = Annotated[int, Meta(ge=1, le=MAX_BACKTEST_DECISIONS)]
Ratio = Annotated[str, Meta(max_length=16, description="A percentage such as 2%, or a decimal such as 0.02")]


class SimulationGate(Struct, forbid_unknown_fields=True):
    """What the result is held to, as in `gates.backtest` of a policy; a limit that is left out is none."""

    decisions: Decisions
    max_flip_rate: Ratio | None = None
    max_new_blocks: Ratio | None = None


class SimulationRequest(Struct, forbid_unknown_fields=True):
    """A whole ModerationPolicy as its author writes it, with the ConfigMaps and Secrets that its lists are in."""

    policy: dict[str, Any]
    contents: Annotated[tuple[dict[str, Any], ...], Meta(max_length=MAX_CONTENTS)] = ()
    decisions: Decisions = DEFAULT_DECISIONS
    gate: SimulationGate | None = None


Matrix = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


class FlipAnswer(Struct, frozen=True, rename={"from_": "from"}):
    """How many decisions go from one verdict to another, and the ids of some of them."""

    from_: Verdict
    to: Verdict
    count: int
    examples: tuple[str, ...]


class FlipsAnswer(Struct, frozen=True):
    """The flips of one category or language; `matrix` is as in the whole answer."""

    name: str
    compared: int
    flips: int
    new_blocks: int
    new_allows: int
    matrix: Matrix


class GateAnswer(Struct, frozen=True):
    """Pass, Fail or Inconclusive, why in one word, and in words for the author."""

    verdict: GateVerdict
    reason: GateReason
    message: str


class SimulationAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What differs between the revision in force (`stable`) and the candidate, over the decisions on record.

    `unknown` decisions could not be compared: for want of scores of `signals_missing`, since `lists_missing` were not
    looked up, or since they were `erased`; those of `no_namespace` were written by an earlier release, and may be of
    another namespace's policy of that name. In `elsewhere` the policy had no part. `matrix` has a row for each verdict
    of the revision in force, and in it a column for each of the candidate: Allow, Review, Block. Processes that share a
    log have the same `log`; where nobody shares it there is none.
    """

    policy: str
    stable: str
    candidate: str
    compared: int
    unknown: int
    elsewhere: int
    ended: Ended
    flip_rate: float
    new_block_rate: float
    new_allow_rate: float
    matrix: Matrix
    flips: tuple[FlipAnswer, ...]
    categories: tuple[FlipsAnswer, ...]
    languages: tuple[FlipsAnswer, ...]
    signals_missing: dict[str, int]
    lists_missing: dict[str, int]
    erased: int = 0
    gate: GateAnswer | None = None
    log: str = ""
    no_namespace: int = 0


_DECODER: Final = msgspec.json.Decoder(SimulationRequest)
_KNOWN: Final = {"": SimulationRequest.__struct_fields__, "gate": SimulationGate.__struct_fields__}


def read_simulation(body: bytes) -> tuple[Draft, int, BacktestGate | None]:
    """Read a request: the draft, how many decisions to compare, and the gate.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    request = decode_body(body, _DECODER, _KNOWN)
    return Draft(policy=request.policy, contents=request.contents), request.decisions, _read_gate(request.gate)


def to_simulation_answer(simulation: Simulation) -> SimulationAnswer:
    """Turn a simulation into what the caller sees."""
    found = simulation.found
    return SimulationAnswer(
        policy="/".join(simulation.policy),
        stable=simulation.stable,
        candidate=simulation.candidate,
        compared=found.compared,
        unknown=found.unknown,
        elsewhere=found.elsewhere,
        ended=simulation.ended,
        flip_rate=found.flip_rate / MILLION,
        new_block_rate=found.new_block_rate / MILLION,
        new_allow_rate=found.new_allow_rate / MILLION,
        matrix=to_matrix(found.flips.overall),
        flips=flips_by_kind(found.flips),
        categories=flips_by_name(found.flips.categories),
        languages=flips_by_name(found.flips.languages),
        signals_missing=dict(sorted(found.signals.items())),
        lists_missing=dict(sorted(found.lists.items())),
        erased=found.erased,
        gate=_gate(simulation.gate),
        log=simulation.log,
        no_namespace=found.no_namespace,
    )


def flips_by_kind(flips: FlipSummary) -> tuple[FlipAnswer, ...]:
    """Return each kind of flip with its count and examples, the most frequent first."""
    return tuple(
        FlipAnswer(before, after, count, flips.examples.get((before, after), ()))
        for (before, after), count in flips.overall.kinds()
    )


def flips_by_name(matrices: Mapping[str, FlipMatrix]) -> tuple[FlipsAnswer, ...]:
    """Return the flips of each category or language, in the order of their names."""
    return tuple(
        FlipsAnswer(name, each.total, each.flips, each.new_blocks, each.new_allows, to_matrix(each))
        for name, each in sorted(matrices.items())
    )


def to_matrix(each: FlipMatrix) -> Matrix:
    """Return counts as rows and columns."""
    a, b, c, d, e, f, g, h, i = each.counts
    return (a, b, c), (d, e, f), (g, h, i)


def to_backtest(answer: SimulationAnswer) -> Backtest:
    """Turn an answer back into what was found."""
    return Backtest(
        flips=to_summary(answer.matrix, answer.flips, answer.categories, answer.languages),
        unknown=answer.unknown,
        signals=answer.signals_missing,
        lists=answer.lists_missing,
        elsewhere=answer.elsewhere,
        erased=answer.erased,
        no_namespace=answer.no_namespace,
    )


def to_summary(
    matrix: Matrix,
    flips: Iterable[FlipAnswer],
    categories: Iterable[FlipsAnswer],
    languages: Iterable[FlipsAnswer],
    groups: Iterable[FlipsAnswer] = (),
) -> FlipSummary:
    """Turn the parts of an answer back into what was counted, so that those of several gateways can be added up."""
    return FlipSummary(
        overall=_from_matrix(matrix),
        categories={each.name: _from_matrix(each.matrix) for each in categories},
        languages={each.name: _from_matrix(each.matrix) for each in languages},
        groups={int(each.name): _from_matrix(each.matrix) for each in groups},
        examples={(each.from_, each.to): each.examples for each in flips},
    )


def _from_matrix(matrix: Matrix) -> FlipMatrix:
    return FlipMatrix(counts=tuple(count for row in matrix for count in row))


def _gate(result: GateResult | None) -> GateAnswer | None:
    return None if result is None else GateAnswer(result.verdict, result.reason, result.message)


def _read_gate(gate: SimulationGate | None) -> BacktestGate | None:
    if gate is None:
        return None
    return BacktestGate(
        decisions=gate.decisions,
        max_flip_rate=_read_ratio(gate.max_flip_rate, "gate.max_flip_rate"),
        max_new_blocks=_read_ratio(gate.max_new_blocks, "gate.max_new_blocks"),
    )


def _read_ratio(text: str | None, field: str) -> int | None:
    try:
        return None if text is None else parse_ratio(text)
    except ValueError as exc:
        raise ContentError([Problem(field=field, message=str(exc))]) from None
