"""Texts over HTTP, judged by the real models."""

import json
import random
import subprocess
import sys
from typing import Any

import httpx
import pytest

from baleen_cli.models.store import ModelStore
from baleen_core.ratio import MILLION
from baleen_sidecar.testing import FixedInference
from sidecars import EXAMPLES, RunningSidecar, StartSidecar, post

ABUSE = (EXAMPLES / "content" / "english-abusive.txt").read_text().strip()
# A window is judged as a whole: a single sentence can drown among 480 tokens, a passage does not.
ABUSIVE_PASSAGE = 4 * (
    f"{ABUSE} You are a disgusting, stupid loser and nobody will ever love you. Shut your filthy mouth, you pathetic "
    "moron. People like you are garbage and should be ashamed to be alive. Get lost, you ugly fat pig. "
)
SENTENCES = (
    "The committee met on Tuesday to discuss the new library.",
    "Members agreed that the reading room should stay open until eight in the evening.",
    "The architect presented three drawings of the entrance hall.",
    "A question was raised about the cost of heating in winter.",
    "The treasurer explained that the budget would allow for better windows.",
    "Several neighbours asked for more bicycle stands near the main gate.",
    "The gardeners will plant lavender along the southern wall in spring.",
    "The next meeting takes place on the first Monday of the month.",
    "Minutes of the last meeting were read and approved without changes.",
    "The school choir offered to sing at the opening ceremony.",
)


def read(name: str) -> str:
    return (EXAMPLES / "content" / f"{name}.txt").read_text()


def judge(running: RunningSidecar, text: str, **context: Any) -> dict[str, Any]:
    response = post(running, {"type": "text", "text": text}, **context)
    assert response.status_code == 200, response.text
    return response.json()


def category(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in answer["categories"] if each["name"] == name)


def padding(sentences: int, *, seed: int = 7) -> str:
    """Harmless text without a period, so that no two windows of it are alike."""
    chosen = random.Random(seed)
    return " ".join(chosen.choice(SENTENCES) for _ in range(sentences))


@pytest.mark.parametrize(
    ("name", "language", "decision"),
    [
        pytest.param("english-friendly", "en", "Allow", id="friendly English"),
        pytest.param("german-friendly", "de", "Allow", id="friendly German"),
        pytest.param("french-friendly", "fr", "Allow", id="friendly French"),
        pytest.param("english-abusive", "en", "Block", id="abusive English"),
        pytest.param("spanish-abusive", "es", "Block", id="abusive Spanish"),
    ],
)
def test_a_text_is_judged_in_the_language_that_it_is_written_in(
    sidecar: RunningSidecar, name: str, language: str, decision: str
) -> None:
    answer = judge(sidecar, read(name))

    assert (answer["language"], answer["decision"]) == (language, decision)
    assert any(each["name"] == "toxicity-english" for each in answer["categories"]) == (language == "en")


def test_a_decision_says_what_why_and_by_which_policies_and_models(sidecar: RunningSidecar) -> None:
    answer = judge(sidecar, read("spanish-abusive"), surface="comments")

    assert set(answer) == {
        *("id", "decision", "risk", "score", "categories", "reasons", "policies", "models"),
        *("from_cache", "degraded", "language", "latency_ms", "queue_wait_ms", "durability"),
    }
    assert (answer["decision"], answer["risk"]) == ("Block", "Critical")
    assert (answer["from_cache"], answer["degraded"]) == (False, [])
    assert answer["score"] == max(each["score"] for each in answer["categories"])
    toxicity = category(answer, "toxicity")
    assert toxicity["decision"] == "Block"
    assert toxicity["score"] == max(toxicity["signals"].values()) == toxicity["signals"]["text-safety.toxicity"]
    (reason,) = (each for each in answer["reasons"] if each["name"] == "toxicity")
    assert reason["type"] == "Category"
    assert "text-safety.toxicity" in reason["text"]
    roles = [(each["role"], each["name"], each["version"], each["cohort"]) for each in answer["policies"]]
    assert roles == [("Winner", "community", "v1.0.0", "Stable"), ("Floor", "company-floor", "v1.0.0", "Stable")]
    assert 0 < answer["latency_ms"] < 60_000
    assert 0 <= answer["queue_wait_ms"] <= answer["latency_ms"]


def test_the_policies_of_a_decision_have_the_digests_that_validate_prints(sidecar: RunningSidecar) -> None:
    command = [sys.executable, "-m", "baleen_cli", "policy", "validate", str(EXAMPLES / "policies")]
    validated = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    answer = judge(sidecar, "Good morning everybody, how are you today?")

    assert len(answer["policies"]) == 2
    for policy in answer["policies"]:
        assert f"trust-safety/{policy['name']} is valid: {policy['version']}, {policy['digest']}" in validated


def test_the_models_of_a_decision_are_those_that_were_fetched(sidecar: RunningSidecar) -> None:
    lock = json.loads((ModelStore().root / "models.lock").read_text())["models"]

    answer = judge(sidecar, read("english-friendly"))

    assert [model["name"] for model in answer["models"]] == ["text-safety", "toxicity"]
    for model in answer["models"]:
        locked = lock[model["name"]]
        assert (model["version"], model["sha256"]) == (locked["version"], locked["digests"]["model.onnx"])


def test_raw_bytes_and_json_are_judged_alike(sidecar: RunningSidecar) -> None:
    text = read("english-abusive")
    raw = sidecar.client.post(
        "/v1/moderate",
        params={"surface": "kids-chat", "author.age_days": "3", "author.verified": "true"},
        content=text.encode(),
        headers={"Content-Type": "text/plain; charset=UTF-8"},
    ).json()
    context = {"surface": "kids-chat", "author": {"age_days": 3, "verified": True}}

    assert comparable(judge(sidecar, text, **context)) == comparable(raw)


def test_scores_are_whole_millionths(sidecar: RunningSidecar) -> None:
    answer = judge(sidecar, read("english-abusive"))

    scores = [answer["score"], *(score for each in answer["categories"] for score in each["signals"].values())]
    assert scores == [round(score * MILLION) / MILLION for score in scores]


def test_a_score_that_single_precision_cannot_hold_reaches_its_threshold(start_sidecar: StartSidecar) -> None:
    # As float32, 0.7 is 0.69999998.
    running = start_sidecar(inference=FixedInference({"text-safety.toxicity": 0.7}))

    toxicity = category(judge(running, "anything at all"), "toxicity")

    assert (toxicity["score"], toxicity["decision"]) == (0.7, "Review")


def test_abuse_behind_more_text_than_is_judged_is_for_a_person(sidecar: RunningSidecar) -> None:
    three_hundred_windows = "1 " * (480 + 299 * 432)

    answer = judge(sidecar, three_hundred_windows + ABUSE)

    assert answer["decision"] == "Review"
    assert ("TextTooLong", "text") in {(reason["type"], reason["name"]) for reason in answer["reasons"]}


@pytest.mark.parametrize("before", [0, 27, 54], ids=["at the start", "in the middle", "at the end"])
def test_abuse_anywhere_in_a_long_text_is_found(sidecar: RunningSidecar, before: int) -> None:
    answer = judge(sidecar, f"{padding(before)} {ABUSIVE_PASSAGE} {padding(54 - before, seed=8)}")

    assert answer["decision"] == "Block"
    assert "TextTooLong" not in {reason["type"] for reason in answer["reasons"]}


def test_a_long_harmless_text_is_allowed(sidecar: RunningSidecar) -> None:
    assert judge(sidecar, padding(60))["decision"] == "Allow"


@pytest.mark.parametrize(
    "disguise",
    [
        pytest.param("Y0u are a w0rthless p1ece of tr4sh and 3verybody hates you, you stup1d 1d1ot.", id="leetspeak"),
        pytest.param("\u200b".join(ABUSE), id="zero-width spaces between all letters"),
        pytest.param(ABUSE.replace("o", "о").replace("e", "е").replace("a", "а"), id="letters of another script"),
        pytest.param("".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in ABUSE), id="fullwidth letters"),
        pytest.param("\u202e" + ABUSE + "\u202c", id="direction override"),
        pytest.param("שלום לכולם " + ABUSE + " مرحبا", id="among right-to-left scripts"),
        pytest.param("今日は " + ABUSE + " Привет, как дела?", id="among other scripts"),
    ],
)
def test_a_disguise_does_not_help_abuse(sidecar: RunningSidecar, disguise: str) -> None:
    answer = judge(sidecar, disguise)

    assert answer["decision"] == "Block", answer


@pytest.mark.parametrize(
    ("text", "language"),
    [
        pytest.param("مرحبا بكم جميعا في هذا المكان الجميل، نتمنى لكم يوما سعيدا", "ar", id="Arabic"),
        pytest.param("שלום לכולם וברוכים הבאים לאתר שלנו, אנחנו שמחים לראות אתכם", "he", id="Hebrew"),
        pytest.param("皆さんこんにちは、今日はとても良い天気ですね。散歩に行きましょう。", "ja", id="Japanese"),
    ],
)
def test_friendly_text_in_any_script_is_allowed(sidecar: RunningSidecar, text: str, language: str) -> None:
    answer = judge(sidecar, text)

    assert (answer["decision"], answer["language"]) == ("Allow", language), answer


def test_what_the_caller_says_of_the_language_counts_when_it_cannot_be_told(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=FixedInference({"toxicity.toxic": 0.99}))

    unclear = judge(running, "ok ok")
    english, german = (judge(running, "ok ok", language=language) for language in ("en-GB", "de"))

    # A language that nobody knows may be the one that the category is for.
    assert ("language" in unclear, unclear["decision"]) == (False, "Block")
    assert (english["language"], english["decision"]) == ("en", "Block")
    assert (german["language"], german["decision"]) == ("de", "Allow")


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs between two decisions on the same content."""
    return {key: value for key, value in answer.items() if key not in ("id", "latency_ms", "queue_wait_ms")}


def test_each_decision_has_an_id_of_its_own_that_sorts_by_time(sidecar: RunningSidecar) -> None:
    ids = [judge(sidecar, "Good morning everybody, how are you today?")["id"] for _ in range(3)]

    assert len(set(ids)) == 3
    assert all(len(each) == 26 for each in ids)
    assert [each[:10] for each in ids] == sorted(each[:10] for each in ids)


def test_a_failed_model_is_answered_for_by_the_policy_and_named(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=FixedInference(down={"text-safety"}))

    answer = judge(running, "Good morning everybody, how are you today?")
    ready = running.client.get("/ready")

    assert (answer["decision"], answer["degraded"]) == ("Review", ["text-safety"])
    assert {reason["type"] for reason in answer["reasons"]} == {"ModelFailure"}
    assert category(answer, "toxicity")["score"] is None
    assert category(answer, "toxicity-english")["score"] == 0
    assert isinstance(ready, httpx.Response)
    assert ready.json()["degraded"] == ["model/text-safety"]
