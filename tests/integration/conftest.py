"""Fixtures of the integration tests."""

from triton import shared_triton

__all__ = ["shared_triton"]
