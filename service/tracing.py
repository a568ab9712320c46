"""OpenTelemetry, for whoever wants it: the extra `otel`, and a variable that says where spans go. Else its SDK stays out.

FastAPI makes the spans of requests itself, named by the route's template; here it is told where to send them. Its own
figures and logs stay off: `/metrics` and the service's log tell more, and no secret.
"""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from importlib.util import find_spec
from typing import Any

from fastapi.telemetry import TelemetryConfig

from service.settings import Settings

log = logging.getLogger(__name__)
NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
TICKET = re.compile(r"\bticket=[^&]*")
NOT_TRACED = frozenset({"/healthz", "/readyz", "/metrics"})


def is_enabled(settings: Settings) -> bool:
    """Whether spans are to be sent, and can be."""
    return settings.tracing and not missing()


def missing() -> list[str]:
    """The packages that the extra `otel` would bring."""
    return [name for name in NEEDED if not _found(name)]


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even its parent is there
        return False


def of_requests(settings: Settings) -> tuple[TelemetryConfig, Any]:
    """(what FastAPI is told, the provider of spans or None). `traceparent` is honoured."""
    quiet: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    if settings.tracing and (lacking := missing()):
        log.warning("no tracing: %s is not installed (pip install 'trainkit[otel]')", ", ".join(lacking))
    if not is_enabled(settings):
        return quiet, None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=_resource("trainkit-api"))
    provider.add_span_processor(_ticket_redaction())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    ours: TelemetryConfig = {"tracing": True, "tracer_provider": provider, "operation_spans": False, "exclude": _dull}
    return {**quiet, **ours}, provider


def _ticket_redaction() -> Any:
    """FastAPI writes the query into a span before any middleware sees the request: a stream ticket is taken out."""
    from opentelemetry.sdk.trace import Span, SpanProcessor

    class TicketRedaction(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            query = (span.attributes or {}).get("url.query")
            if isinstance(query, str) and "ticket=" in query:
                span.set_attribute("url.query", TICKET.sub("ticket=REDACTED", query))

    return TicketRedaction()


def _dull(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in NOT_TRACED


def sending_at_once(service: str, seconds: float) -> Any:
    """A provider without threads: a span is sent when it ends, within so many seconds or not at all."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(resource=_resource(service))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(timeout=seconds)))
    return provider


def _resource(service: str) -> Any:
    """`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more, or otherwise."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    return Resource({"service.name": service}).merge(OTELResourceDetector().detect())
