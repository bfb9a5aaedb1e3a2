import pytest

from baleen_sidecar.adapters.language import EldcLanguageDetector

DETECTOR = EldcLanguageDetector()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("You are a wonderful person and I am glad that we met.", "en"),
        ("Das ist eine sehr schöne Geschichte über einen Hund.", "de"),
        ("¿Por qué no me llamaste ayer por la noche?", "es"),
        ("Съешь же ещё этих мягких французских булок.", "ru"),
        ("これは日本語の文章です。", "ja"),
        ("שלום לכולם, איך היה היום שלכם?", "he"),
    ],
)
def test_a_sentence_tells_its_language(text, code):
    assert DETECTOR.detect(text) == code


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("x", id="a letter"),
        pytest.param("12345 678", id="digits"),
        pytest.param("😂😂😂", id="emoji"),
        pytest.param("\ud800\udfff", id="lone surrogates"),
        pytest.param("\x00" * 50, id="zero bytes"),
    ],
)
def test_what_is_too_short_or_unclear_has_no_language(text):
    assert DETECTOR.detect(text) is None


GERMAN = "Das ist eine sehr schöne Geschichte über einen Hund, der gerne im Wald spazieren geht. "
ENGLISH = "You are a horrible person and nobody in this town wants to see you again. "


def test_a_long_text_costs_no_more_than_its_samples():
    assert DETECTOR.detect("You are a wonderful person. " * 40_000) == "en"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param((GERMAN * 60)[:4096] + ENGLISH * 25, id="at its end"),
        pytest.param(ENGLISH * 25 + GERMAN * 60, id="at its beginning"),
        pytest.param(GERMAN * 60 + ENGLISH * 30 + GERMAN * 60, id="in its middle"),
    ],
)
def test_a_long_text_with_a_stretch_in_another_language_has_no_language(text):
    assert DETECTOR.detect(text) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GERMAN * 60, id="all of it"),
        pytest.param(GERMAN * 60 + "0123456789 " * 200, id="with digits at its end"),
    ],
)
def test_a_long_text_has_the_one_language_that_is_clear(text):
    assert DETECTOR.detect(text) == "de"
