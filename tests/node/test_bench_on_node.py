"""The benchmark of images, as quick as can be; that of an installation takes minutes: `make bench` alone runs it."""

import pytest

import container_images
from baleen_bench.form import QUICK

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("node_ready"), pytest.mark.timeout(1800)]


def test_the_images_are_measured_as_declared():
    outcome = container_images.measure(QUICK)

    assert {figure.id for figure in outcome.figures} == set(container_images.FIGURES)
    assert all(figure.value > 0 for figure in outcome.figures)
