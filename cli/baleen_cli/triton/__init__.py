"""Triton on this machine, without a container: taken from its wheel, given models, watched, and never left behind."""
