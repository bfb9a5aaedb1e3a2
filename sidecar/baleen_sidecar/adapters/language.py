"""The language of a text, in process, by eldc's n-grams (60 languages)."""

import eldc

SAMPLE_LENGTH = 1500
"""Characters of one sample: enough to tell a language; more only cost time."""


class EldcLanguageDetector:
    """Names the language of a text; safe to use from several threads."""

    def __init__(self) -> None:
        eldc.init()

    def detect(self, text: str) -> str | None:
        """Return an ISO 639-1 code, or None when the text is too short or unclear to tell, or in several languages.

        Of a text above `SAMPLE_LENGTH` the beginning, the middle and the end are looked at, so that a long beginning in
        one language does not hide an end in another; where two of them are clear and differ, there is no answer.
        """
        if len(text) <= SAMPLE_LENGTH:
            return _language(text)
        found = {language for sample in _samples(text) if (language := _language(sample)) is not None}
        return found.pop() if len(found) == 1 else None


def _samples(text: str) -> tuple[str, ...]:
    last = len(text) - SAMPLE_LENGTH
    return tuple(text[start : start + SAMPLE_LENGTH] for start in (0, last // 2, last))


def _language(sample: str) -> str | None:
    if not sample.isascii():
        # A lone surrogate is no character, and eldc refuses it.
        sample = sample.encode("utf-8", "replace").decode("utf-8")
    result = eldc.detect_details(sample)
    if not result.reliable:
        return None
    language = str(result.language)
    return None if language == "und" else language
