"""Keep out who may not call: in front of every route, so that a refusal costs next to nothing."""

from collections.abc import Callable, Mapping
from typing import Final

from baleen_core.api_keys import ApiKeys
from baleen_core.callers import Identity
from baleen_core.errors import BaleenError, LimitExceeded, Unauthenticated
from baleen_sidecar.flow.door import (
    Right,
    check_right,
    find_key,
    is_open,
    is_token,
    read_key,
    refuse_key_in_url,
    right_for,
)
from baleen_sidecar.flow.rates import Rates
from baleen_sidecar.ports import Tokens
from baleen_sidecar.web.callers import note_key
from baleen_sidecar.web.errors import describe
from baleen_sidecar.web.hot import (
    ASGIApp,
    Headers,
    HotRoute,
    MustAsk,
    NotAdmitted,
    Receive,
    Scope,
    Send,
    check_path,
    problem_answer,
    read_request_id,
    refuse_with,
)
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.rate_limit import refusal_headers
from baleen_sidecar.web.request_body import RequestBody

CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="baleen"')
_JITTER_BYTES: Final = 4


class Doorkeeper:
    """Says whose a request is, and whether it may come in, by its head alone; for whoever serves bytes.

    First `admit`, which takes microseconds. Where it says None there is a token, and `ask` says whose.
    """

    def __init__(
        self,
        keys: Callable[[], ApiKeys],
        *,
        wall_seconds: Callable[[], float],
        monotonic_seconds: Callable[[], float],
        chance: Callable[[int], bytes],
        tokens: Tokens | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._rates = Rates()
        self._wall_seconds = wall_seconds
        self._monotonic_seconds = monotonic_seconds
        self._chance = chance

    def admit(self, path: str, query: bytes, headers: Mapping[bytes, bytes]) -> Identity | None:
        """Return whose request to this path it is, unless a token says it. One that is admitted is counted.

        Raises:
            Unauthenticated: nobody's who is known here, or a key is in the URL.
            Forbidden: the caller has not the right.
            LimitExceeded: a limit of the caller is used up.
        """
        refuse_key_in_url(query)
        shown = read_key(headers)
        if self._tokens is not None and is_token(shown):
            return None
        key = find_key(self._keys(), shown, wall_seconds=self._wall_seconds())
        return self._let_in(key, right_for(path))

    async def ask(self, path: str, headers: Mapping[bytes, bytes]) -> Identity:
        """Return whose request it is by its token.

        Raises:
            Unauthenticated, Forbidden, LimitExceeded: as for `admit`.
            UpstreamError: it cannot be found out now. Overloaded: too many are being found out.
        """
        assert self._tokens is not None, "only where there is a token that somebody can read"
        right = right_for(path)
        who = await self._tokens.identify(read_key(headers).decode("latin-1"), right.role)
        return self._let_in(who, right)

    def _let_in(self, who: Identity, right: Right) -> Identity:
        check_right(who, right)
        if who.limits or who.tenant_limits:
            jitter = int.from_bytes(self._chance(_JITTER_BYTES)) / 256**_JITTER_BYTES
            self._rates.take(who, self._monotonic_seconds(), jitter)
        return who


class Door:
    """Passes on what is open, and requests of callers who may come in, with the caller in their scope.

    Unlike `LoopbackOnly` it does not look at Host and Origin: a web page has no key to show.
    """

    def __init__(
        self,
        app: ASGIApp,
        keeper: Doorkeeper,
        *,
        metrics: RequestMetrics,
        chance: Callable[[int], bytes],
        routes: Mapping[str, HotRoute] | None = None,
    ) -> None:
        """`routes` are those that have words of their own for a refusal, by path."""
        self._app = app
        self._keeper = keeper
        self._metrics = metrics
        self._chance = chance
        self._routes = routes or {}

    def admit(self, path: str, query: bytes, headers: Mapping[bytes, bytes], request_id: str) -> Identity | None:
        """See baleen_sidecar.web.hot.Door."""
        check_path(path, request_id)
        if is_open(path):
            return None
        try:
            who = self._keeper.admit(path, query, headers)
        except BaleenError as exc:
            raise _refusal(exc, request_id) from None
        if who is None:
            raise MustAsk
        return who

    async def ask(self, path: str, headers: Mapping[bytes, bytes], request_id: str) -> Identity:
        """See baleen_sidecar.web.hot.Door."""
        try:
            return await self._keeper.ask(path, headers)
        except BaleenError as exc:
            raise _refusal(exc, request_id) from None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        request_id = read_request_id(headers, self._chance)
        more: Headers
        try:
            try:
                who = self.admit(scope["path"], scope["query_string"], headers, request_id)
            except MustAsk:
                who = await self.ask(scope["path"], headers, request_id)
            if who is not None:
                note_key(scope, who)
        except NotAdmitted as exc:
            problem, more = exc.problem, exc.more
        except LimitExceeded as exc:
            problem, more = describe(exc, request_id), refusal_headers(exc)
        else:
            return await self._app(scope, receive, send)
        self._metrics.refused(problem.status)
        route = self._routes.get(scope["path"])
        answer = problem_answer(problem, more) if route is None else route.refuse(problem, more)
        await refuse_with(send, answer, problem.request_id, RequestBody(headers, receive))


def _refusal(error: BaleenError, request_id: str) -> NotAdmitted:
    more = [CHALLENGE] if isinstance(error, Unauthenticated) else refusal_headers(error)
    return NotAdmitted(describe(error, request_id), more)
