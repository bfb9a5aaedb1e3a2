"""Hot routes with a span for each request, which is a part of its caller's trace if that says which."""

from baleen_sidecar.flow.traceparent import HEADER, read_traceparent
from baleen_sidecar.ports import Tracing
from baleen_sidecar.web.errors import ProblemDetails
from baleen_sidecar.web.hot import Headers, HotAnswer, HotRequest, HotRoute


class TracedRoute:
    """See HotRoute. What was asked, by whom and with what key is not told."""

    def __init__(self, inner: HotRoute, tracing: Tracing) -> None:
        self.method = inner.method
        self._inner = inner
        self._tracing = tracing

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        parent = read_traceparent(request.headers.get(HEADER, b""))
        with self._tracing.span(f"{self.method} {request.path}", parent=parent, of_caller=True) as span:
            span.note("http.request.method", self.method)
            span.note("http.route", request.path)
            span.note("baleen.request_id", request.request_id)
            answer = await self._inner.answer(request)
            span.note("http.response.status_code", answer.status)
            return answer

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return self._inner.refuse(problem, more)
