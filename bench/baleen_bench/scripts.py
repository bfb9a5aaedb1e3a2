"""The scripts of bench/, in the order in which they run and are published."""

import importlib
from collections.abc import Mapping
from typing import Final, Protocol, cast

from baleen_bench.form import Aim, Effort, Outcome

NAMES: Final = (
    "decide_ratio_floor",
    "decide_rps_durable",
    "decide_cpu_us",
    "refuse_cpu_us",
    "decide_p99_ms_at_half_load",
    "durable_ack_ratio",
    "decide_ratio_direct_triton",
    "batches",
    "triton_front_cpu_ratio",
    "added_latency",
    "peers",
    "engine",
    "judged_twice",
    "overload",
    "fair_share",
    "breaker_back",
    "metastable_recovery",
    "backtest_per_s",
    "cache_ratio_lfu",
    "cr_ready",
    "operator_rss",
    "policy_enforced",
    "container_images",
    "in_pods",
    "analysis_false_rollback",
    "analysis_detect_ratio",
)
IN_CLUSTER: Final = frozenset({"cr_ready", "operator_rss", "policy_enforced"})
"""Those that start a control plane."""
ON_NODE: Final = frozenset({"container_images", "in_pods"})
"""Those that run containers, as root. All others start Triton or nothing."""


class Script(Protocol):
    """What a script has: what each figure is to be, by its id, and how all of them are measured."""

    FIGURES: Mapping[str, Aim]

    def measure(self, effort: Effort) -> Outcome:
        """Measure every figure; a quick effort may leave some out.

        Raises:
            CannotMeasure: the machine is not one for it.
        """


def load_script(name: str) -> Script:
    """Import a script by its name, which is its file's."""
    return cast(Script, importlib.import_module(name))
