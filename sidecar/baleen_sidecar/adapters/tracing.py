"""OpenTelemetry, sent to a collector by OTLP over HTTP; imported only where an endpoint is set, since it is large."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_EXPORT_SECONDS: Final = 3
"""A collector that is slower is not waited for; spans that find no room meanwhile are dropped."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OtelSpan:
    """See ports.Span."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, name: str, value: str | int) -> None:
        """See ports.Span."""
        self._span.set_attribute(name, value)


class OtlpTracing:
    """See ports.Tracing. Spans are sent by a thread; a collector that is away costs no request anything."""

    def __init__(self, endpoint: str, *, version: str) -> None:
        """`endpoint` is a base address such as `http://collector:4318`; `OTEL_…` variables set what else there is."""
        session = requests.Session()
        # A proxy named in the environment is for the outside world; headers for the collector come from elsewhere.
        session.trust_env = False
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=_EXPORT_SECONDS, session=session)
        resource = Resource.create({"service.name": "baleen", "service.version": version})
        # No hook at exit: whoever opened it closes it.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("baleen", version)

    @contextmanager
    def span(self, name: str, *, parent: str = "", of_caller: bool = False) -> Iterator[OtelSpan]:
        """See ports.Tracing."""
        with self._tracer.start_as_current_span(
            name,
            context=_PROPAGATOR.extract({"traceparent": parent}) if parent else None,
            kind=trace.SpanKind.SERVER if of_caller else trace.SpanKind.INTERNAL,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield OtelSpan(span)
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(trace.StatusCode.ERROR)
                raise

    def traceparent(self) -> str:
        """See ports.Tracing."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent", "")

    def trace_id(self) -> str:
        """See ports.Tracing; a trace that is not sampled has no reader."""
        found = trace.get_current_span().get_span_context()
        return trace.format_trace_id(found.trace_id) if found.is_valid and found.trace_flags.sampled else ""

    def close(self) -> None:
        """Send what has not been sent yet, if it goes quickly."""
        self._provider.shutdown()
