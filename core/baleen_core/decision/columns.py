"""Many decisions at once: two revisions that have nothing but categories, judged in columns of numpy.

A column is a signal, a row a decision. It says exactly what the engine says of content without frames, in which a
category has one sighting; a property test holds the two together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baleen_core.decision.categories import ALLOW, BLOCK, REVIEW, VERDICTS, CompiledCategory, Vote
from baleen_core.decision.engine import CompiledPolicy, find_limits
from baleen_core.decision.flips import CELLS, FlipMatrix, FlipSummary, Kind, choose_examples, language_key
from baleen_core.ratio import MILLION
from baleen_core.records import DecisionRecord, Evidence, Missing

Severities = NDArray[np.int8]
"""A severity (index of VERDICTS) a row."""
Mask = NDArray[np.bool_]

_NO_SCORE: Final = -1
_UNSAID, _FAILED, _NOT_SERVED, _NOT_APPLICABLE = range(4)
_CODES: Final[Mapping[Missing, int]] = {
    Missing.FAILED: _FAILED,
    Missing.NOT_SERVED: _NOT_SERVED,
    Missing.NOT_APPLICABLE: _NOT_APPLICABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """How many decisions were left out for want of scores, and for how many each signal is wanting."""

    decisions: int
    signals: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Decisions as arrays: scores (millionths, -1 for none) and codes of what is missing, decisions by signals.

    `limited` has the few rows with limits that were hit. `language` is the place in `languages` of each row's language.
    """

    ids: Sequence[str]
    place: Mapping[str, int]
    scores: NDArray[np.int32]
    missing: NDArray[np.int8]
    is_text: Mask
    rescannable: Mask
    limited: Mapping[int, Evidence]
    language: NDArray[np.intp]
    languages: Sequence[str | None]

    def spoken(self, category: CompiledCategory) -> Mask:
        """Say for each row whether the category is made for it."""
        speaks = np.array([category.speaks(language) for language in self.languages], np.bool_)
        return ~self.is_text | speaks[self.language]


def is_columnar(policy: CompiledPolicy) -> bool:
    """Say whether a policy has nothing but categories."""
    return not policy.rules and not policy.lists


def fits_columns(evidence: Evidence) -> bool:
    """Say whether evidence is of content that is seen all at once, with scores that a column can hold."""
    at_once = not evidence.frames and evidence.video is None
    return at_once and all(0 <= score <= MILLION for score in evidence.signals.values())


def summarize_columns(
    stable: CompiledPolicy, candidate: CompiledPolicy, records: Sequence[DecisionRecord], offers: Mapping[str, str]
) -> tuple[FlipSummary, Unscored]:
    """Judge decisions, whose evidence fits, by two columnar policies, and count the flips.

    `offers` is as in `backtest.Comparison`; what it makes unknown is left out.
    """
    if not records:
        return FlipSummary(), Unscored(decisions=0, signals={})
    rows = _rows(stable, candidate, records)
    unknown = _find_unknown((stable, candidate), rows, offers)
    known = ~unknown.any(axis=1)
    before, after = _judge(stable, rows), _judge(candidate, rows)
    cells = _cells(before.overall, after.overall)[known]
    keys = [language_key(language) for language in rows.languages]
    distinct = sorted(set(keys))
    key_of = np.array([distinct.index(key) for key in keys], np.intp)[rows.language][known]
    by_language = np.bincount(key_of * CELLS + cells, minlength=len(distinct) * CELLS).reshape(-1, CELLS)
    nothing = np.zeros(len(records), np.int8)
    flips = FlipSummary(
        overall=_matrix(np.bincount(cells, minlength=CELLS)),
        categories={
            name: _matrix(
                np.bincount(
                    _cells(before.categories.get(name, nothing), after.categories.get(name, nothing))[known],
                    minlength=CELLS,
                )
            )
            for name in {**before.categories, **after.categories}
        }
        if known.any()
        else {},
        languages={key: _matrix(row) for key, row in zip(distinct, by_language, strict=True) if row.any()},
        examples=_examples(rows.ids, np.flatnonzero(known), cells),
    )
    counts = np.count_nonzero(unknown, axis=0).tolist()
    signals = {signal: counts[column] for signal, column in rows.place.items() if counts[column]}
    return flips, Unscored(decisions=int(np.count_nonzero(~known)), signals=signals)


def _rows(stable: CompiledPolicy, candidate: CompiledPolicy, records: Sequence[DecisionRecord]) -> _Rows:
    wanted = sorted({signal for policy in (stable, candidate) for each in policy.categories for signal in each.signals})
    place = {signal: column for column, signal in enumerate(wanted)}
    evidences = [record.evidence for record in records]
    shape = (len(records), len(wanted))
    scores = [evidence.signals.get(signal, _NO_SCORE) for evidence in evidences for signal in wanted]
    missing = np.zeros(shape, np.int8)
    for row, evidence in enumerate(evidences):
        for signal, why in evidence.missing.items():
            if signal in place:
                missing[row, place[signal]] = _CODES[why]
    languages: dict[str | None, int] = {}
    return _Rows(
        ids=[record.id for record in records],
        place=place,
        scores=np.array(scores, np.int32).reshape(shape),
        missing=missing,
        is_text=np.array([evidence.content.type == "text" for evidence in evidences], np.bool_),
        rescannable=np.array([evidence.rescannable for evidence in evidences], np.bool_),
        limited={row: evidence for row, evidence in enumerate(evidences) if evidence.limits},
        language=np.array([languages.setdefault(each.language, len(languages)) for each in evidences], np.intp),
        languages=tuple(languages),
    )


def _find_unknown(policies: Sequence[CompiledPolicy], rows: _Rows, offers: Mapping[str, str]) -> Mask:
    """Say which wanted scores were not asked for and would be now; note those that do not apply to the content."""
    wanted = np.zeros(rows.scores.shape, np.bool_)
    for policy in policies:
        for category in policy.categories:
            spoken = rows.spoken(category)
            for signal in category.signals:
                wanted[:, rows.place[signal]] |= spoken
    unknown = np.zeros(rows.scores.shape, np.bool_)
    unasked = (rows.scores == _NO_SCORE) & ((rows.missing == _UNSAID) | (rows.missing == _NOT_SERVED))
    for signal, column in rows.place.items():
        if signal in offers:
            applies = rows.is_text == (offers[signal] == "text")
            unknown[:, column] = wanted[:, column] & unasked[:, column] & applies
            rows.missing[unasked[:, column] & ~applies, column] = _NOT_APPLICABLE
    return unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What one revision says of each row: altogether, and by category."""

    overall: Severities
    categories: Mapping[str, Severities]


def _judge(policy: CompiledPolicy, rows: _Rows) -> _Judged:
    on_failure = np.where(rows.rescannable & policy.rescans, ALLOW, policy.on_failure)
    categories = {each.name: _judge_category(each, rows, on_failure) for each in policy.categories}
    overall = np.full(len(rows.ids), ALLOW, np.int8)
    for row, evidence in rows.limited.items():
        if find_limits(policy, evidence):
            overall[row] = REVIEW
    for severities in categories.values():
        np.maximum(overall, severities, out=overall)
    return _Judged(overall=overall, categories=categories)


def _judge_category(category: CompiledCategory, rows: _Rows, on_failure: NDArray[np.intp]) -> Severities:
    columns = [rows.place[signal] for signal in category.signals]
    has = rows.scores[:, columns] != _NO_SCORE
    missing = rows.missing[:, columns]
    unserved = (missing == _UNSAID) | (missing == _NOT_SERVED)
    failed = (missing == _FAILED) | (~has & unserved & (not category.ignores_unserved))
    reaches = {
        severity: _reaches(vote, rows, failed & ~has, category)
        for severity, vote in ((REVIEW, category.review), (BLOCK, category.block))
    }
    severities = np.where(reaches[BLOCK], BLOCK, np.where(reaches[REVIEW], REVIEW, ALLOW))
    severities = np.where(failed.any(axis=1), np.maximum(severities, on_failure), severities)
    other = REVIEW if category.reviews_other_languages else ALLOW
    return np.where(rows.spoken(category), severities, other).astype(np.int8)


def _reaches(vote: Vote, rows: _Rows, unknown: Mask, category: CompiledCategory) -> Mask:
    """Say for each row whether a vote is carried, as `categories.nearness` does with one that is Critical."""
    if not vote.thresholds:
        return np.zeros(len(rows.ids), np.bool_)
    columns = [rows.place[signal] for signal, _ in vote.thresholds]
    scores = rows.scores[:, columns]
    has = scores != _NO_SCORE
    over = has & (scores >= np.array([threshold for _, threshold in vote.thresholds], np.int32))
    reached = np.asarray(over.any(axis=1), np.bool_)
    if not vote.needs_all:
        return reached
    of_vote = [category.signals.index(signal) for signal, _ in vote.thresholds]
    carried: Mask = reached & (over | ~has).all(axis=1) & ~unknown[:, of_vote].any(axis=1)
    return carried


def _cells(before: Severities, after: Severities) -> NDArray[np.intp]:
    return before.astype(np.intp) * len(VERDICTS) + after


def _matrix(counts: NDArray[np.intp]) -> FlipMatrix:
    return FlipMatrix(counts=tuple(counts.tolist()))


def _examples(ids: Sequence[str], rows: NDArray[np.intp], cells: NDArray[np.intp]) -> dict[Kind, tuple[str, ...]]:
    return {
        (before, after): choose_examples(ids[row] for row in rows[cells == cell].tolist())
        for cell, (before, after) in enumerate((before, after) for before in VERDICTS for after in VERDICTS)
        if before is not after and (cells == cell).any()
    }
