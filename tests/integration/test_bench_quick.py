import pytest

from baleen_bench.form import QUICK
from baleen_bench.scripts import NAMES, load_script


@pytest.mark.triton
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs_and_measures_what_it_declares(name):
    script = load_script(name)

    outcome = script.measure(QUICK)

    measured = {figure.id for figure in outcome.figures}
    assert measured
    assert measured <= set(script.FIGURES)
    assert all(figure.value > 0 for figure in outcome.figures)
