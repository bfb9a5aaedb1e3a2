"""The models that Baleen ships recipes for: a folder each with `model.yaml` and `card.md`, and how files are found.

No weights; nothing of the other packages is imported here.
"""
