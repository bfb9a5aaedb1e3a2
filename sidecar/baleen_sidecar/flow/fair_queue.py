"""A queue that is fair to tenants: whoever waits gets an equal share of the work, however much others want done.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996): each tenant has a virtual time at which its next item
starts, which grows by the cost of what was taken; the tenant with the least of it is next. Whoever comes back from
having nothing to do starts where the others are, so that nobody saves up. Unlike there, an item gets its start when it
is the tenant's first and not when it comes, so that what is cancelled or shed costs its tenant nothing. Of one tenant,
the earliest deadline is next.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

IDLE_KEPT: Final = 1024
"""Tenants with nothing to do whose time is still kept; whoever makes up more names than that wins an item by it."""


class Item(Protocol):
    """What can stand in the queue; `cost` is in units of work, and `number` is of no other item."""

    @property
    def tenant(self) -> str: ...
    @property
    def deadline(self) -> float: ...
    @property
    def cost(self) -> int: ...
    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=Item)


class Pick(Enum):
    """What becomes of an item that was offered."""

    TAKE = auto()
    LEAVE = auto()
    DROP = auto()
    """It leaves the queue, and its tenant is not charged."""
    STOP = auto()
    """It stays, and nothing more is offered."""


class _Share(Generic[T]):
    """What one tenant has waiting, by deadline, and the virtual time at which the next of it starts."""

    __slots__ = ("cost", "items", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.items: list[T] = []
        self.cost = 0


class FairQueue(Generic[T]):
    """Items of many tenants."""

    def __init__(self) -> None:
        self._busy: dict[str, _Share[T]] = {}
        self._idle: dict[str, float] = {}
        """Where tenants that have nothing waiting would start."""
        self._virtual = 0.0
        self._count = 0
        self.cost = 0
        """Of all that waits."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return (item for share in self._busy.values() for item in share.items)

    def put(self, item: T) -> None:
        """Let an item wait."""
        share = self._busy.get(item.tenant)
        if share is None:
            share = self._busy[item.tenant] = _Share(self._start_of(item.tenant))
            self._idle.pop(item.tenant, None)
        insort(share.items, item, key=_order)
        share.cost += item.cost
        self._count += 1
        self.cost += item.cost

    def remove(self, item: T) -> None:
        """Take out an item that waits."""
        self._take_out(item, self._busy[item.tenant])

    def pull(self, decide: Callable[[T], Pick]) -> None:
        """Offer items in their order; a tenant's next one is offered in its turn, also where one before was left."""
        turns = [
            (share.start, share.items[0].deadline, share.items[0].number, share, 0) for share in self._busy.values()
        ]
        heapify(turns)
        taken = False
        while turns:
            start, _, _, share, place = heappop(turns)
            item = share.items[place]
            match decide(item):
                case Pick.STOP:
                    return
                case Pick.LEAVE:
                    place += 1
                case Pick.TAKE:
                    if not taken:
                        taken, self._virtual = True, max(self._virtual, start)
                    share.start += item.cost
                    self._take_out(item, share)
                case Pick.DROP:
                    self._take_out(item, share)
            if place < len(share.items):
                following = share.items[place]
                heappush(turns, (share.start, following.deadline, following.number, share, place))

    def ahead(self, item: T) -> int:
        """Return the cost of what would be done before an item that does not wait yet, were nothing else to come.

        By then every other tenant has come as far as the item's own, or has had all that it wants.
        """
        own, before = self._busy.get(item.tenant), 0
        if own is not None:
            # Most are to be done after those that came before: what comes after an item is the shorter part.
            before = own.cost - sum(each.cost for each in own.items[bisect_left(own.items, _order(item), key=_order) :])
        until = (self._start_of(item.tenant) if own is None else own.start) + before + item.cost
        others = (share for share in self._busy.values() if share is not own)
        return before + int(sum(min(share.cost, max(0.0, until - share.start)) for share in others))

    def longest(self) -> tuple[str, int] | None:
        """Return the tenant that has most waiting, and how much."""
        best = max(self._busy.items(), key=lambda pair: pair[1].cost, default=None)
        return None if best is None else (best[0], best[1].cost)

    def waiting(self, tenant: str) -> int:
        """Return how much a tenant has waiting."""
        share = self._busy.get(tenant)
        return 0 if share is None else share.cost

    def last(self, tenant: str) -> T:
        """Return what a tenant would have done last."""
        return self._busy[tenant].items[-1]

    def _start_of(self, tenant: str) -> float:
        """Return where a tenant starts that has nothing waiting: with the others, or later if it was ahead of them."""
        return max(self._idle.get(tenant, 0.0), self._virtual)

    def _take_out(self, item: T, share: _Share[T]) -> None:
        del share.items[bisect_left(share.items, _order(item), key=_order)]
        share.cost -= item.cost
        self._count -= 1
        self.cost -= item.cost
        if not share.items:
            del self._busy[item.tenant]
            if len(self._idle) >= IDLE_KEPT:
                self._idle.clear()
            self._idle[item.tenant] = share.start
        if not self._count:
            # Nobody waits for anybody: the next ones are equal.
            self._idle.clear()
            self._virtual = 0.0


def _order(item: Item) -> tuple[float, int]:
    return item.deadline, item.number
