"""A backtest on its way from the gateway that has the log to whoever adds up the shares."""

from collections.abc import Iterable, Sequence

from baleen_core.decision.backtest import Backtest, Ended
from baleen_core.decision.flips import FlipMatrix, FlipSummary
from baleen_core.policy_stream import BacktestExamples, BacktestShare


def write_share(replica: str, found: Backtest, ended: Ended, log: str) -> BacktestShare:
    """Write what a gateway found in a log; `log` names one that others read, too."""
    flips = found.flips
    return BacktestShare(
        replica=replica,
        ended=ended.value,
        overall=flips.overall.counts,
        categories={name: each.counts for name, each in flips.categories.items()},
        languages={name: each.counts for name, each in flips.languages.items()},
        examples=tuple(BacktestExamples(from_=kind[0], to=kind[1], ids=ids) for kind, ids in flips.examples.items()),
        unknown=found.unknown,
        erased=found.erased,
        elsewhere=found.elsewhere,
        signals=dict(found.signals),
        lists=dict(found.lists),
        log=log,
        no_namespace=found.no_namespace,
    )


def read_share(share: BacktestShare) -> tuple[Backtest, Ended]:
    """Read what a gateway found.

    Raises:
        ValueError: its counts contradict each other, so that they are of no decisions.
    """
    overall = FlipMatrix(counts=share.overall)
    total = overall.total
    if any(sum(counts) != total for counts in share.categories.values()):
        raise ValueError("a category has not as many decisions as there are")
    if sum(map(sum, share.languages.values())) != total:
        raise ValueError("the languages have not as many decisions together as there are")
    if max(share.no_namespace, share.erased, *share.signals.values(), *share.lists.values()) > share.unknown:
        raise ValueError("more decisions are unknown for one reason than are unknown")
    kinds = {kind for kind, _ in overall.kinds()}
    examples = {(each.from_, each.to): each.ids for each in share.examples}
    if not examples.keys() <= kinds or any(len(ids) > overall.count(*kind) for kind, ids in examples.items()):
        raise ValueError("there are more examples of a flip than flips")
    flips = FlipSummary(
        overall=overall,
        categories={name: FlipMatrix(counts=counts) for name, counts in share.categories.items()},
        languages={name: FlipMatrix(counts=counts) for name, counts in share.languages.items()},
        examples=examples,
    )
    found = Backtest(
        flips=flips,
        unknown=share.unknown,
        signals=share.signals,
        lists=share.lists,
        elsewhere=share.elsewhere,
        erased=share.erased,
        no_namespace=share.no_namespace,
    )
    return found, Ended(share.ended)


def next_shares(decisions: int, gateways: Iterable[str], found: Sequence[tuple[str, int, bool]]) -> dict[str, int]:
    """Return how many decisions each of some gateways is to be asked for next; nothing when that is all there is.

    `found` says of each that answered how many decisions it found and whether its log goes on. At first all have the
    same share; what the log of one is too short for is asked of the others.
    """
    names = sorted(gateways)
    if not found:
        share = -(-decisions // len(names)) if names else 0
        return dict.fromkeys(names, share)
    wanting = decisions - sum(count for _, count, _ in found)
    longer = [(name, count) for name, count, goes_on in found if goes_on]
    if wanting <= 0 or not longer:
        return {}
    more = -(-wanting // len(longer))
    return {name: count + more for name, count in longer}
