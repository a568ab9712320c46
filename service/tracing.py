"""OpenTelemetry, for whoever wants it: the extra `otel`, and a variable that says where spans go. Else not one import."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI

from service.settings import Settings

log = logging.getLogger(__name__)
NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.instrumentation.fastapi")
NOT_TRACED = "healthz,readyz,metrics$"


def wanted(settings: Settings) -> bool:
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


def instrument(app: FastAPI, settings: Settings) -> Any:
    """A span of every request, named by its route's template; the provider, or None. `traceparent` is honoured."""
    if not settings.tracing:
        return None
    if lacking := missing():
        log.warning("no tracing: %s is not installed (pip install 'trainkit[otel]')", ", ".join(lacking))
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=_resource("trainkit-api"))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=NOT_TRACED, exclude_spans=["receive", "send"]
    )
    return provider


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
