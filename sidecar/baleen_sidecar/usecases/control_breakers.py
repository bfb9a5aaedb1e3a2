"""Show every breaker, and open and close them by hand; who did so, and why, is kept with the breaker and logged."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from baleen_core.errors import NotFound
from baleen_sidecar.flow.breaker import Manual, State
from baleen_sidecar.ports import BreakerKind, BreakerReport, Breakers, Order

log = logging.getLogger(__name__)


class Health(StrEnum):
    """How breakers are, alone and together."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    FAILING = "Failing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How many breakers are how; all together they fail when a model does, at all of its servers."""

    total: int
    healthy: int
    degraded: int
    failing: int
    overall: Health


class ControlBreakers:
    """Everybody's breakers in one list; they are of this process alone, and forgotten when it ends."""

    def __init__(self, everybodys: Sequence[Breakers], *, wall_seconds: Callable[[], float]) -> None:
        self._everybodys = everybodys
        self._wall_seconds = wall_seconds

    def reports(self) -> tuple[BreakerReport, ...]:
        """Return all breakers there are."""
        return tuple(report for breakers in self._everybodys for report in breakers.reports())

    def order(self, name: str, state: Manual, *, by: str, reason: str) -> BreakerReport:
        """Open or close a breaker by hand, or leave it to itself again; return it as it is then.

        Raises:
            NotFound: there is none of this name.
        """
        order = Order(state=state, by=by, reason=reason, at=self._wall_seconds())
        for breakers in self._everybodys:
            report = breakers.order(name, order)
            if report is not None:
                facts = {"breaker": name, "state": state.value, "by": by, "reason": reason}
                log.warning("breaker ordered", extra=facts)
                return report
        raise NotFound(f"there is no breaker {name!r}; GET /v1/breakers names those there are")


def health_of(report: BreakerReport) -> Health:
    """Say how a breaker is: failing while it is open; degraded while it is tried, counts failures, or stands apart."""
    if report.state is State.OPEN:
        return Health.FAILING
    is_troubled = report.state is State.HALF_OPEN or report.failures_in_a_row > 0 or report.ejected_until is not None
    return Health.DEGRADED if is_troubled else Health.HEALTHY


def summarize(reports: Sequence[BreakerReport]) -> Summary:
    """Count breakers by how they are."""
    found = [health_of(report) for report in reports]
    models = [each for each, report in zip(found, reports, strict=True) if report.kind is BreakerKind.MODEL]
    healthy = found.count(Health.HEALTHY)
    overall = Health.HEALTHY if healthy == len(found) else Health.DEGRADED
    return Summary(
        total=len(found),
        healthy=healthy,
        degraded=found.count(Health.DEGRADED),
        failing=found.count(Health.FAILING),
        overall=Health.FAILING if Health.FAILING in models else overall,
    )
