"""Fixtures of the API tests."""

from sidecars import loaded_models, locator, sidecar, start_sidecar
from triton import shared_triton

__all__ = ["loaded_models", "locator", "shared_triton", "sidecar", "start_sidecar"]
