"""The models that Baleen ships recipes for: one folder each with `model.yaml` and `card.md`. No weights, no code."""
