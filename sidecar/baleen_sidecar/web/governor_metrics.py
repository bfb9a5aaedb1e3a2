"""What Prometheus scrapes of the governor."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from baleen_core.priority import Priority
from baleen_sidecar.flow.governor import Admission
from baleen_sidecar.usecases.govern import Governor


def watch_governor(governor: Governor, registry: CollectorRegistry) -> None:
    """Expose how things stand, and count what did not just enter."""
    turned = Counter(
        "baleen_governor_held",
        "Requests that the governor did not just let in: had to wait, or were refused",
        ["priority", "result"],
        registry=registry,
    )
    labels = {
        (priority, admission): turned.labels(priority.title, result)
        for priority in Priority
        for admission, result in ((Admission.WAIT, "waited"), (Admission.REFUSE, "refused"))
    }
    governor.count = lambda priority, admission: labels[priority, admission].inc()
    for name, said, value in (
        ("throttle_level", "Who is let in: 0, 0.3, 0.5, 0.8 or 1", lambda: governor.throttle.level),
        (
            "cpu_ratio",
            "CPU used of what may be and refusals leave, over the last seconds",
            lambda: governor.throttle.cpu_percent / 100,
        ),
        ("memory_ratio", "Memory used of what may be", lambda: governor.throttle.memory_percent / 100),
        ("waiting", "Requests that wait for the throttle level to come down", lambda: float(governor.waiting)),
        (
            "entering_per_second",
            "Requests that may come in a second; infinite while there is no need for a limit",
            lambda: governor.entering_per_second,
        ),
    ):
        Gauge(f"baleen_governor_{name}", said, registry=registry).set_function(value)
