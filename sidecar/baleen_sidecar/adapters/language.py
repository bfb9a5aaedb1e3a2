"""The language of a text, in process, by eldc's n-grams (60 languages)."""

import eldc

SAMPLE_LENGTH = 4096
"""Characters that are enough to tell; more only cost time."""


class EldcLanguageDetector:
    """Names the language of a text; safe to use from several threads."""

    def __init__(self) -> None:
        eldc.init()

    def detect(self, text: str) -> str | None:
        """Return an ISO 639-1 code, or None when the text is too short or unclear to tell."""
        # A lone surrogate is no character, and eldc refuses it.
        sample = text[:SAMPLE_LENGTH].encode("utf-8", "replace").decode("utf-8")
        result = eldc.detect_details(sample)
        return str(result.language) if result.reliable and result.language != "und" else None
