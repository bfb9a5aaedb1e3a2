"""Evidence and policies in, a decision out; then the same again (replay), and in words (explain)."""
