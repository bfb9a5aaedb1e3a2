"""Quotas: so many pieces of content in any span of so many seconds, for each author, surface, source and so on.

Such as 30 images in 24 hours. A token bucket would not do: after its burst it lets the same number through once more
within the window. A quota counts in slots, each a 60th of its window long, and what was counted in a slot counts until
the whole slot is older than the window. So no span of a window's length ever has more than the limit, memory is
bounded, and what was used comes back at most a 60th of the window late.
"""

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from baleen_core.errors import Allowance, InvalidError, LimitExceeded, Problem
from baleen_core.policy.parse import exact_source, place
from baleen_core.reading import Reader, integer, name, one_of, report_duplicates
from baleen_core.records import ContentType, Context

SLOTS: Final = 60
"""Slots of a window; one more is counted, of which only a part is in it."""
MAX_KEYS: Final = 32_768
"""Counters that are kept in process, up to 1.1 KB each; of more, the one that was asked for longest ago goes."""
MAX_QUOTAS: Final = 64
MAX_LIMIT: Final = 1_000_000
MAX_WINDOW_SECONDS: Final = 31 * 86_400
_JITTER_RATIO: Final = 0.1
_JITTER_SECONDS: Final = 60.0


class Per(StrEnum):
    """What each has a count of its own, within its tenant."""

    AUTHOR = "Author"
    SESSION = "Session"
    SURFACE = "Surface"
    SOURCE = "Source"
    TENANT = "Tenant"


class Content(StrEnum):
    """What a quota counts."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """At most `limit` pieces of `content` (none named: of any) in any `window_seconds`, for each `per`.

    It is about the tenant, surface and source that it names, or about any.
    """

    name: str
    per: Per
    limit: int
    window_seconds: int
    content: frozenset[Content] = frozenset()
    tenant: str | None = None
    surface: str | None = None
    source: str | None = None

    @property
    def slot_seconds(self) -> float:
        return self.window_seconds / SLOTS

    def counts(self, context: Context, content: ContentType) -> str | None:
        """Return the name of the count that content of this context is a part of; None if it is of none.

        What does not say its author is in no count of authors, and so on. The name is of bounded length, says nothing
        of whom it is about, and changes with what would make an old count meaningless.
        """
        wanted = (self.tenant, self.surface, self.source)
        given = (context.tenant, context.surface, context.source)
        if any(want is not None and want != have for want, have in zip(wanted, given, strict=True)):
            return None
        if self.content and Content(content) not in self.content:
            return None
        counted = _value(self.per, context)
        if counted is None:
            return None
        said = repr((self.per.value, context.tenant, counted)).encode(errors="surrogatepass")
        return f"{self.name}:{self.window_seconds}:{hashlib.blake2b(said, digest_size=16).hexdigest()}"

    def __str__(self) -> str:
        what = " and ".join(f"{each.value}s" for each in Content if each in self.content) or "pieces of content"
        whose, window = self.per.value.lower(), in_words(self.window_seconds)
        return f"the quota {self.name!r} allows {self.limit} {what} in {window} per {whose}"


def _value(per: Per, context: Context) -> str | int | bool | None:
    match per:
        case Per.AUTHOR:
            return context.author.get("id")
        case Per.SESSION:
            return context.session
        case Per.SURFACE:
            return context.surface
        case Per.SOURCE:
            return context.source
        case Per.TENANT:
            return context.tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One piece of content, to be counted in the count `key` of `quota`."""

    quota: Quota
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a quota stands after a claim: what is left, and after how many seconds there is more.

    `is_used_up` says that it was this one that did not let the claim in.
    """

    quota: Quota
    left: int
    reset_seconds: float
    is_used_up: bool = False

    @property
    def allowance(self) -> Allowance:
        """Say it to the caller."""
        return Allowance(
            name=self.quota.name,
            limit=self.quota.limit,
            window_seconds=self.quota.window_seconds,
            left=self.left,
            reset_seconds=self.reset_seconds,
        )


def find_claims(quotas: Sequence[Quota], context: Context, content: ContentType) -> tuple[Claim, ...]:
    """Return what a piece of content is counted in."""
    found = ((quota, quota.counts(context, content)) for quota in quotas)
    return tuple(Claim(quota=quota, key=key) for quota, key in found if key is not None)


def refusal(standings: Sequence[Standing], *, jitter: float) -> LimitExceeded | None:
    """Return why a claim was not let in; None if it was. `jitter` is 0 to 1.

    `Retry-After` is up to a tenth, or a minute, later than the quota says: those who were refused together must not all
    come back together.
    """
    used_up = [each for each in standings if each.is_used_up]
    if not used_up:
        return None
    last = max(used_up, key=lambda each: each.reset_seconds)
    later = jitter * min(last.reset_seconds * _JITTER_RATIO + 1, _JITTER_SECONDS)
    message = f"{last.quota}, and all of them are used; there is more in {in_words(math.ceil(last.reset_seconds))}"
    return LimitExceeded(
        message,
        retry_after_seconds=math.ceil(last.reset_seconds + later),
        allowances=tuple(each.allowance for each in standings),
    )


def in_words(seconds: int) -> str:
    """Say a span of time as people do, where that is exact."""
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds // 60} min"
    return f"{seconds} s"


class _Window:
    """What was counted lately: slots in the order of time, and how much was counted in each."""

    __slots__ = ("counts", "slots")

    def __init__(self) -> None:
        self.slots = array("q")
        self.counts = array("l")

    def forget(self, oldest: int) -> None:
        """Drop what was counted before the slot `oldest`."""
        gone = 0
        while gone < len(self.slots) and self.slots[gone] < oldest:
            gone += 1
        if gone:
            del self.slots[:gone]
            del self.counts[:gone]

    def add(self, slot: int) -> None:
        """Count one."""
        if self.slots and self.slots[-1] >= slot:
            self.counts[-1] += 1
        else:
            self.slots.append(slot)
            self.counts.append(1)

    def freeing(self, needed: int) -> int:
        """Return the slot with which, in the order of time, `needed` of them are gone."""
        for slot, count in zip(self.slots, self.counts, strict=True):
            needed -= count
            if needed <= 0:
                return slot
        return self.slots[-1]


class Windows:
    """Counts by key, never more than `limit` of them; times are seconds of a clock that only goes forward."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        if limit < MAX_QUOTAS:
            raise ValueError(f"the counts of one claim need room for {MAX_QUOTAS}: {limit}")
        self._limit = limit
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def take(
        self, claims: Sequence[Claim], now: float, *, sharers: int = 1, counts: bool = True
    ) -> tuple[Standing, ...]:
        """Count a claim in all of its counts, or, where one of them has no room, in none.

        Each of `sharers` may let an equal part of a limit in, and one at least. Without `counts` nothing is counted.
        """
        limits = [max(claim.quota.limit // sharers, 1) for claim in claims]
        windows = [self._find(claim, now) for claim in claims]
        totals = [sum(window.counts) for window in windows]
        full = [total >= limit for total, limit in zip(totals, limits, strict=True)]
        taken = counts and not any(full)
        if taken:
            for claim, window in zip(claims, windows, strict=True):
                window.add(_slot(claim.quota, now))
        return tuple(
            Standing(
                quota=claim.quota,
                left=max(limit - total - taken, 0),
                reset_seconds=_reset(claim.quota, window, total - limit + 1, now),
                is_used_up=is_full,
            )
            for claim, window, total, limit, is_full in zip(claims, windows, totals, limits, full, strict=True)
        )

    def _find(self, claim: Claim, now: float) -> _Window:
        window = self._windows.get(claim.key)
        if window is None:
            window = self._windows[claim.key] = _Window()
            if len(self._windows) > self._limit:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(claim.key)
            window.forget(_slot(claim.quota, now) - SLOTS)
        return window


def _slot(quota: Quota, now: float) -> int:
    return int(now // quota.slot_seconds)


def _reset(quota: Quota, window: _Window, needed: int, now: float) -> float:
    return seconds_until(window.freeing(max(needed, 1)), quota, now) if window.slots else 0.0


def seconds_until(slot: int, quota: Quota, now: float) -> float:
    """Return the seconds until what was counted in a slot does not count any more."""
    return max((slot + SLOTS + 1) * quota.slot_seconds - now, 0.0)


def parse_quotas(document: object) -> tuple[Quota, ...]:
    """Read what a file of quotas says: a mapping with the list `quotas`.

    Raises:
        InvalidError: every problem, each with its entry (`quotas[2].limit`).
    """
    problems: list[Problem] = []
    fields = Reader(document, "", problems)
    if not fields.has("quotas") and fields.is_mapping:
        fields.report("quotas", "is required; an empty list is that there are none")
    entries = fields.mappings("quotas", limit=MAX_QUOTAS)
    fields.done()
    quotas = tuple(_read_quota(entry) for entry in entries)
    report_duplicates(entries, [quota.name for quota in quotas], "name")
    if problems:
        raise InvalidError(problems)
    return quotas


def _read_quota(entry: Reader) -> Quota:
    match = entry.mapping("match")
    quota = Quota(
        name=entry.required("name", name, ""),
        per=entry.required("per", one_of(Per), Per.AUTHOR),
        limit=entry.required("limit", integer(1, MAX_LIMIT), 1),
        window_seconds=entry.required("windowSeconds", integer(1, MAX_WINDOW_SECONDS), 1),
        content=frozenset(entry.values("content", one_of(Content), limit=len(Content))),
        tenant=match.optional("tenant", place, None),
        surface=match.optional("surface", place, None),
        source=match.optional("source", exact_source, None),
    )
    match.done()
    entry.done()
    return quota
