"""The webhooks that the API server asks, over HTTPS: on each replica, whether it leads or not.

Whoever reaches the port may ask, since API servers show no certificate of their own. So an answer says nothing that
the question did not bring along, but for the names of models, and no question can cost much.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from baleen_core.errors import ClusterError, ContentError
from baleen_core.model.schema import Model
from baleen_core.policy.grants import Grants
from baleen_core.resources import DEPLOYMENT_KIND
from baleen_operator.adapters.kube import KubeCluster
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.metrics import Metrics
from baleen_operator.plan.admission import Answer, Asked, admit_pod, admit_policy, read_review, write_review
from baleen_operator.plan.injection import InjectionRules
from baleen_operator.reconcile.ports import OffLoop

logger = logging.getLogger(__name__)

PODS_PATH: Final = "/pods"
POLICIES_PATH: Final = "/policies"
MAX_BYTES: Final = 8 << 20
"""What an API server takes for an object, twice: an update comes with what was there."""
ANSWER_SECONDS: Final = 4.0
"""An API server waits for five."""
MAX_AT_ONCE: Final = 16
MODELS_AGE_SECONDS: Final = 5.0
MODELS_READ_SECONDS: Final = 2.0
END_SECONDS: Final = 2.0


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
    """Answers about pods and policies."""

    def __init__(
        self,
        *,
        rules: InjectionRules,
        grants: Grants,
        models: Callable[[], Awaitable[Sequence[Model] | None]],
        metrics: Metrics,
        off_loop: OffLoop,
    ) -> None:
        self._rules = rules
        self._grants = grants
        self._models = models
        self._metrics = metrics
        self._off_loop = off_loop
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def pods(self, request: web.Request) -> web.Response:
        """Give a pod its sidecar."""
        return await self._answer("pods", request, self._judge_pod)

    async def policies(self, request: web.Request) -> web.Response:
        """Judge a policy."""
        return await self._answer("policies", request, self._judge_policy)

    async def _judge_pod(self, asked: Asked) -> Answer:
        return await self._off_loop(lambda: admit_pod(asked, self._rules))

    async def _judge_policy(self, asked: Asked) -> Answer:
        models = await self._models()
        return await self._off_loop(lambda: admit_policy(asked, models, self._grants))

    async def _answer(
        self, webhook: str, request: web.Request, judge: Callable[[Asked], Awaitable[Answer]]
    ) -> web.Response:
        allowed = "none"
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._places:
                data = await request.read()
                asked = await self._off_loop(lambda: read_review(data))
                answer = await judge(asked)
            allowed = str(answer.allowed).lower()
            return web.Response(body=write_review(asked, answer), content_type="application/json")
        except ContentError as exc:
            return web.Response(status=400, text=str(exc))
        except TimeoutError:
            logger.warning("a webhook did not answer in time", extra={"webhook": webhook})
            return web.Response(status=503, text=f"no answer in {ANSWER_SECONDS:g} s: there is too much to do")
        except web.HTTPException:
            raise
        except Exception:
            logger.error("a webhook failed", extra={"webhook": webhook}, exc_info=True)
            return web.Response(status=500, text="the webhook failed by a fault of its own; its log says more")
        finally:
            self._metrics.admission_requests.labels(webhook, allowed).inc()


@asynccontextmanager
async def webhook_server(host: str, port: int, context: ssl.SSLContext, webhooks: Webhooks) -> AsyncIterator[int]:
    """Answer until the end; yields the port.

    Raises:
        OSError: the address cannot be listened on.
    """
    app = web.Application(client_max_size=MAX_BYTES)
    app.add_routes([web.post(PODS_PATH, webhooks.pods), web.post(POLICIES_PATH, webhooks.policies)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=END_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
