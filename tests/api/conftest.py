"""Fixtures of the API tests."""

from collections.abc import Iterator

import pytest

from baleen_sidecar.flow.breaker import State
from sidecars import RunningSidecar, loaded_models, locator, sidecar, start_sidecar
from triton import shared_triton

__all__ = ["loaded_models", "locator", "shared_triton", "sidecar", "start_sidecar"]


@pytest.fixture(autouse=True)
def every_model_is_left_in_use(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say after which test first the sidecar that all share asks a model no more; those after it may fail for that."""
    yield
    if "sidecar" in request.fixturenames:
        shared: RunningSidecar = request.getfixturevalue("sidecar")
        breakers = shared.sidecar.ports.breakers
        assert breakers is not None
        assert [each for each in breakers.reports() if each.state is not State.CLOSED] == []
