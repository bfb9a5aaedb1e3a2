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


def test_a_long_text_costs_no_more_than_its_beginning():
    assert DETECTOR.detect("You are a wonderful person. " * 40_000) == "en"
