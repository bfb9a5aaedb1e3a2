"""Count a piece of content in the quotas that it is a part of, before any model is asked about it."""

from collections.abc import Callable, Sequence

from baleen_core.records import ContentType, Context
from baleen_sidecar.flow.quotas import Quota, Standing, find_claims, refusal
from baleen_sidecar.ports import Quotas
from baleen_sidecar.usecases.moderate import Caller


class ChargeQuotas:
    """Lets a piece of content in, or says which quota is used up."""

    def __init__(
        self,
        current: Callable[[], Sequence[Quota]],
        quotas: Quotas,
        *,
        chance: Callable[[int], bytes],
        count: Callable[[Standing], None] = lambda standing: None,
    ) -> None:
        """`current` are the quotas that are set now; `count` hears of each standing after a claim."""
        self._current = current
        self._quotas = quotas
        self._chance = chance
        self._count = count

    async def __call__(self, context: Context, content: ContentType, caller: Caller) -> None:
        """Count it, and let the caller know how its quotas stand.

        Raises:
            LimitExceeded: one of them is used up; nothing was counted.
        """
        claims = find_claims(self._current(), context, content)
        if not claims:
            return
        standings = await self._quotas.take(claims)
        for standing in standings:
            self._count(standing)
        if refused := refusal(standings, jitter=self._chance(1)[0] / 255):
            raise refused
        caller.allowances[:] = (standing.allowance for standing in standings)
