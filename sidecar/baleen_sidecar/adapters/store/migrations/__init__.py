"""Numbered migrations, forward only. A released one is never edited; each ends in the schema that a test compares."""
