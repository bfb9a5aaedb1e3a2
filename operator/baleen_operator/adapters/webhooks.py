"""The webhooks that the API server asks, over HTTPS: on each replica, whether it leads or not.

Whoever reaches the port may ask, since API servers show no certificate of their own. So an answer says nothing that
the question did not bring along, but for the names of models, and no question can cost much. Only whoever shows a
policy as it is stored, and so may read it, is told what logged decisions say of an edit of it.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from msgspec.structs import replace

from baleen_core.errors import ClusterError, ContentError
from baleen_core.model.schema import Model
from baleen_core.policy.grants import Grants
from baleen_core.resources import DEPLOYMENT_KIND
from baleen_operator.adapters.kube import KubeCluster
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.metrics import Metrics
from baleen_operator.plan.admission import (
    Answer,
    Asked,
    admit_pod,
    admit_policy,
    read_review,
    say_in_parts,
    write_review,
)
from baleen_operator.plan.injection import InjectionRules
from baleen_operator.plan.stamping import stamp_override, stamp_policy
from baleen_operator.reconcile.ports import OffLoop

logger = logging.getLogger(__name__)

PODS_PATH: Final = "/pods"
POLICIES_PATH: Final = "/policies"
APPLIED_PATH: Final = "/applied-by"
APPROVED_PATH: Final = "/approved-by"
MAX_BYTES: Final = 4 << 20
"""What an API server can store, twice, since an update comes with what was there, and some more."""
ANSWER_SECONDS: Final = 4.0
"""About pods and policies; an API server waits for five."""
SPARE_SECONDS: Final = 0.5
"""How much of that is left when whoever only tries is answered."""
STAMP_SECONDS: Final = 1.5
"""About who wrote something; an API server waits for two, and then stores it without a name."""
MAX_AT_ONCE: Final = 64
MAX_STAMPS_AT_ONCE: Final = 16
"""Places of their own: a crowd of pods must keep no name away."""
MODELS_AGE_SECONDS: Final = 5.0
MODELS_READ_SECONDS: Final = 2.0
END_SECONDS: Final = 2.0

Judge = Callable[[Asked], Answer]
Try = Callable[[Asked], Awaitable[str]]
"""What somebody who only tries wants to know, in words; it takes its time."""


class ListedModels:
    """The models that are served, listed when somebody asks: a replica that stands by watches nothing."""

    def __init__(self, cluster: KubeCluster, mirror: Mirror, namespaces: Sequence[str]) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._namespaces = tuple(namespaces)
        self._lock = asyncio.Lock()
        self._listed_at: float | None = None

    async def __call__(self) -> Sequence[Model] | None:
        """Return them as they were a few seconds ago; None when they could never be listed."""
        async with self._lock:
            if self._listed_at is None or time.monotonic() - self._listed_at > MODELS_AGE_SECONDS:
                try:
                    async with asyncio.timeout(MODELS_READ_SECONDS):
                        await self._cluster.relist((DEPLOYMENT_KIND,), self._namespaces)
                    self._listed_at = time.monotonic()
                except (ClusterError, TimeoutError) as exc:
                    reason = str(exc) or "no answer in time"
                    logger.warning("models could not be listed for a webhook", extra={"reason": reason})
        return None if self._listed_at is None else self._mirror.models()


class Webhooks:
    """Answers about pods, policies and overrides."""

    def __init__(
        self,
        *,
        rules: InjectionRules,
        grants: Grants,
        namespaces: Collection[str],
        models: Callable[[], Awaitable[Sequence[Model] | None]],
        metrics: Metrics,
        off_loop: OffLoop,
        stamps_off_loop: OffLoop,
        backtest: Try | None = None,
    ) -> None:
        """`backtest` says what logged decisions say of an edit; who wrote something does not wait behind `off_loop`."""
        self._backtest = backtest
        self._rules = rules
        self._grants = grants
        self._namespaces = namespaces
        self._models = models
        self._metrics = metrics
        self._turns = _Turns(off_loop, MAX_AT_ONCE, ANSWER_SECONDS)
        self._stamps = _Turns(stamps_off_loop, MAX_STAMPS_AT_ONCE, STAMP_SECONDS)

    async def pods(self, request: web.Request) -> web.Response:
        """Give a pod its sidecar."""
        return await self._answer("pods", request, self._pod_judge)

    async def policies(self, request: web.Request) -> web.Response:
        """Judge a policy."""
        return await self._answer("policies", request, self._policy_judge, self._backtest)

    async def applied_by(self, request: web.Request) -> web.Response:
        """Write on a policy who applied its content."""
        return await self._stamp("applied-by", request, stamp_policy)

    async def approved_by(self, request: web.Request) -> web.Response:
        """Write on an override who approved."""
        return await self._stamp("approved-by", request, stamp_override)

    async def _pod_judge(self) -> Judge:
        return lambda asked: admit_pod(asked, self._rules)

    async def _policy_judge(self) -> Judge:
        models = await self._models()
        return lambda asked: admit_policy(asked, models, self._grants, self._namespaces)

    async def _stamp(self, webhook: str, request: web.Request, stamp: Judge) -> web.Response:
        async def find_judge() -> Judge:
            return stamp

        return await self._answer(webhook, request, find_judge, turns=self._stamps)

    async def _answer(
        self,
        webhook: str,
        request: web.Request,
        find_judge: Callable[[], Awaitable[Judge]],
        tell: Try | None = None,
        *,
        turns: "_Turns | None" = None,
    ) -> web.Response:
        allowed, began, turns = "none", time.monotonic(), turns or self._turns
        try:
            async with asyncio.timeout(turns.seconds):
                asked, answer, body = await turns.answer(request, find_judge)
            if tell is not None and asked.dry_run and answer.allowed:
                words = await _within(turns.seconds - SPARE_SECONDS - (time.monotonic() - began), tell(asked))
                answer = replace(answer, warnings=(*answer.warnings, *say_in_parts(words))) if words else answer
                body = write_review(asked, answer)
            allowed = str(answer.allowed).lower()
            return web.Response(body=body, content_type="application/json")
        except ContentError as exc:
            return web.Response(status=400, text=str(exc))
        except TimeoutError:
            logger.warning("a webhook did not answer in time", extra={"webhook": webhook})
            return web.Response(status=503, text=f"no answer in {turns.seconds:g} s: there is too much to do")
        except web.HTTPException:
            raise
        except Exception:
            logger.error("a webhook failed", extra={"webhook": webhook}, exc_info=True)
            return web.Response(status=500, text="the webhook failed by a fault of its own; its log says more")
        finally:
            self._metrics.admission_requests.labels(webhook, allowed).inc()


class _Turns:
    """Places for so many questions at once, each to be answered within `seconds`."""

    def __init__(self, off_loop: OffLoop, places: int, seconds: float) -> None:
        self._off_loop, self._places, self.seconds = off_loop, asyncio.Semaphore(places), seconds

    async def answer(
        self, request: web.Request, find_judge: Callable[[], Awaitable[Judge]]
    ) -> tuple[Asked, Answer, bytes]:
        await self._places.acquire()
        try:
            data, judge = await request.read(), await find_judge()
            # All in one go: what is read takes ten times the room of what was sent.
            work = asyncio.ensure_future(self._off_loop(lambda: _judge(data, judge)))
        except BaseException:
            self._places.release()
            raise
        # A thread goes on when nobody waits any more, and so long its place is taken.
        work.add_done_callback(self._leave)
        return await asyncio.shield(work)

    def _leave(self, work: "asyncio.Future[tuple[Asked, Answer, bytes]]") -> None:
        self._places.release()
        if not work.cancelled():
            # Whoever asked may be gone, and nobody misses what it raised.
            work.exception()


def _judge(data: bytes, judge: Judge) -> tuple[Asked, Answer, bytes]:
    asked = read_review(data)
    answer = judge(asked)
    return asked, answer, write_review(asked, answer)


async def _within(seconds: float, words: Awaitable[str]) -> str:
    """Return the words if they come in time: what is not known keeps nobody from an answer."""
    try:
        async with asyncio.timeout(seconds):
            return await words
    except TimeoutError:
        return "the backtest could not be asked: there was no time left"
    except Exception:
        logger.error("a backtest for a dry run failed", exc_info=True)
        return "the backtest could not be asked: by a fault of the webhook's own; its log says more"


@asynccontextmanager
async def webhook_server(host: str, port: int, context: ssl.SSLContext, webhooks: Webhooks) -> AsyncIterator[int]:
    """Answer until the end; yields the port.

    Raises:
        OSError: the address cannot be listened on.
    """
    app = web.Application(client_max_size=MAX_BYTES)
    app.add_routes(
        [
            web.post(PODS_PATH, webhooks.pods),
            web.post(POLICIES_PATH, webhooks.policies),
            web.post(APPLIED_PATH, webhooks.applied_by),
            web.post(APPROVED_PATH, webhooks.approved_by),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=END_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
