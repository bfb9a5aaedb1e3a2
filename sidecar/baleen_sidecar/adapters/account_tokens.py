"""Tokens of the cluster's ServiceAccounts: the API server says whose they are, a file which of them may call."""

import logging
from collections.abc import Callable
from typing import Final

from baleen_core.accounts import Accounts
from baleen_core.callers import Identity, KeyRole
from baleen_core.errors import Forbidden, Problem, UpstreamError
from baleen_sidecar.flow.claims import HEADER, unknown
from baleen_sidecar.ports import Authenticator

log = logging.getLogger(__name__)

MAX_ASKING: Final = 64
"""Tokens that the API server is asked about at a time; callers that are remembered wait for none of them."""


class AccountTokens:
    """Knows callers by tokens of their ServiceAccounts for `audience`; see the port `Tokens`."""

    def __init__(self, authenticator: Authenticator, accounts: Callable[[], Accounts], *, audience: str) -> None:
        self._authenticator = authenticator
        self._accounts = accounts
        self._audience = audience
        self._is_lost = False

    async def identify(self, token: str, role: KeyRole) -> Identity:
        """See Tokens."""
        try:
            found = await self._authenticator.authenticate(token)
        except UpstreamError as exc:
            # Once, however many ask meanwhile.
            if not self._is_lost:
                self._is_lost = True
                log.error("nobody can be asked whose tokens are", extra={"cause": str(exc)})
            raise UpstreamError("the API server cannot be asked now whose the token is") from None
        self._is_lost = False
        if found is None:
            raise unknown(
                f"the token is not of a ServiceAccount for the audience {self._audience!r}, or its time has passed"
            )
        account = self._accounts().find(found.namespace, found.name)
        if account is None:
            message = f"the ServiceAccount {found.namespace}/{found.name} is not one of those that may call"
            raise Forbidden([Problem(field=HEADER, message=message)])
        return account
