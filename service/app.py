"""The application: middleware, routes, errors. `service/asgi.py` serves it."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from anyio import CapacityLimiter, create_task_group, to_thread
from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service import dashboard, errors, instrumentation, openapi, tables, tracing
from service.api_docs import routes as api_docs
from service.artifacts import routes as artifacts
from service.audit import routes as audit
from service.audit.background import keep_audit_log
from service.audit.refusals import Refusals
from service.auth import BEARER, Authentication
from service.background.lease_watcher import watch_leases
from service.body_limits import BodyLimits
from service.bulk import routes as bulk
from service.catalog import routes as catalog
from service.conditional_requests import ConditionalRequests
from service.context import Context
from service.cors import CrossOrigin, checked_origin
from service.database import MAX_CONNECTIONS, make_engine
from service.datasets import alias_routes as dataset_aliases
from service.datasets import routes as datasets
from service.deletion import routes as deletion
from service.deprecation import DeprecationHeaders
from service.diagnosis import routes as diagnosis
from service.doorbell import Doorbell
from service.early_refusals import STATE, EarlyRefusals
from service.experiments import replicate_routes
from service.experiments import routes as experiments
from service.health import routes as health
from service.history import routes as history
from service.http_methods import HttpMethods
from service.info import routes as info
from service.job_watcher import JobWatcher
from service.jobs import history_routes
from service.jobs import routes as jobs
from service.jobs import worker_routes as workers
from service.key_limits import KeyLimits
from service.keys import routes as keys
from service.load_shedding import LoadShedding
from service.logs import routes as logs
from service.mcp.endpoint import MCP_PATH, McpEndpoint
from service.me import routes as me
from service.metrics import export_routes, plot_routes, series_routes, stream
from service.metrics import routes as metrics
from service.mirrors import routes as mirrors
from service.models import alias_routes as model_aliases
from service.models import routes as models
from service.models.single_file import MEDIA_TYPE as SAFETENSORS
from service.monitoring import request_metrics
from service.monitoring import routes as monitoring
from service.monitoring.exposition import Exposition
from service.monitoring.gauges import BrokerInfo, BuildInfo, PoolGauges, StateGauges
from service.monitoring.instrumentation import RequestInstrumentation
from service.oidc import routes as sign_in
from service.oidc.config import OidcConfig
from service.oidc.provider import Provider
from service.projects import routes as projects
from service.proxy_headers import ProxyHeaders, TrustedProxies, checked_root_path
from service.rate_limits import RateLimiter
from service.recommendations import routes as recommendations
from service.recommendations import submit_routes
from service.request_audit import AuditRequests
from service.request_checks import check_request
from service.request_headers import RequestHeaders, host_pattern
from service.request_sessions import RequestSessions
from service.secret_box import SecretBox
from service.security_headers import SecurityHeaders
from service.sessions import session_factory
from service.settings import Settings
from service.shared_rates import share_rates
from service.simulation import routes as decisions
from service.specs import routes as specs
from service.storage import Storage
from service.stream_tickets import routes as stream_tickets
from service.uploads import routes as uploads
from service.usage import routes as usage
from service.users import routes as users
from service.webhooks import routes as webhooks
from service.webhooks.mail import MailServer
from service.webhooks.target_policy import TargetPolicy
from trainkit.version import __version__

__all__ = ["create_app", "tables"]
THREADS = 64
"""Requests that may wait for the database at once; waiting readers (long-poll, SSE) hold no thread."""
OTHER_CONNECTIONS = 10
"""Connections that requests leave to the sessions that are not injected: authentication, streams, uploads, scrapes."""
FILES = 65536
FORGOTTEN_PART_SECONDS = 86400.0
AS_THEY_ARE = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/vnd.apache.parquet",
    SAFETENSORS,
)
"""Not compressed on the way: streams, and what would not shrink. (Level 1: half the time of 5, a quarter more bytes.)"""


class WholeBodiesGzipped(GZipMiddleware):
    """Compresses whole bodies: a part of one counts the bytes as they are stored."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == b"range" for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@cache
def api_router() -> APIRouter:
    """All that asks for a key. FastAPI works out a router's routes when they are first asked for, a quarter of a second
    for ours: one router serves every application of a process."""
    router, every_route = APIRouter(), [Depends(BEARER), Depends(check_request)]
    # asked before the form of the same address
    router.include_router(datasets.by_uri, dependencies=every_route)
    for room in (
        datasets,
        uploads,
        specs,
        submit_routes,
        jobs,
        history_routes,
        artifacts,
        plot_routes,
        decisions,
        diagnosis,
        deletion,
        bulk,
        recommendations,
        experiments,
        history,
        replicate_routes,
        logs,
        metrics,
        series_routes,
        export_routes,
        stream,
        models,
        dataset_aliases,
        model_aliases,
        catalog,
        workers,
        monitoring,
        me,
        keys,
        audit,
        projects,
        usage,
        users,
        webhooks,
        mirrors,
        stream_tickets,
        info,
    ):
        router.include_router(room.router, dependencies=every_route)
    router.include_router(sign_in.router)  # most of it asks for no key, and the provider may add parameters
    return router


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service with its own engine, storage and doorbell."""
    settings = settings or Settings.from_env()
    SecretBox(settings)  # like a wrong key of secrets
    TargetPolicy(settings.webhook_allow)  # a wrong entry is told now, not to the first who makes a webhook
    MailServer.of(settings)
    oidc = OidcConfig.of(settings)
    provider = Provider(oidc) if oidc is not None else None
    engine = make_engine(settings.database_url)
    sessions = session_factory(engine)
    storage, doorbell = Storage(settings.storage_url), Doorbell(settings.broker_url)
    context = Context(settings, engine, sessions, storage, doorbell, JobWatcher(sessions))

    refusals, rates = Refusals(), RateLimiter()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # a stream is a connection: the usual 1024 are soon used up, and the system allows more to those who ask
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))
        await to_thread.run_sync(context.storage.sweep_parts, FORGOTTEN_PART_SECONDS)
        async with create_task_group() as tasks:
            tasks.start_soon(watch_leases, context)
            tasks.start_soon(keep_audit_log, sessions, refusals)
            tasks.start_soon(share_rates, rates, doorbell)
            tasks.start_soon(mcp.serve)
            yield {STATE: early}
            tasks.cancel_scope.cancel()
        engine.dispose()
        if spans is not None:
            await to_thread.run_sync(spans.shutdown)

    telemetry, spans = tracing.of_requests(settings)
    app = FastAPI(
        title="trainkit",
        version=__version__,
        summary="Trains deep networks: exact, resumable, explained.",
        lifespan=lifespan,
        openapi_url=None,  # see `openapi.install`
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry,
    )
    app.state.spans = spans
    app.state.context = context
    app.state.refusals = refusals
    app.state.request_sessions = RequestSessions(engine, sessions, MAX_CONNECTIONS - OTHER_CONNECTIONS)
    folder = settings.metrics_folder
    # of several processes each would tell its own pool, and a scrape meets one of them by chance
    pool_gauges = [] if folder else [PoolGauges(engine)]
    state = (StateGauges(sessions), BuildInfo(engine), BrokerInfo(doorbell), *pool_gauges)
    app.state.exposition = Exposition((*request_metrics.REQUEST_METRICS, *instrumentation.WORK_METRICS), state, folder)
    app.state.scrapes = CapacityLimiter(monitoring.MAX_PARALLEL)
    errors.install(app)
    openapi.install(app)
    api_docs.install(app)
    mcp = McpEndpoint(app)
    app.router.routes.append(Route(MCP_PATH, mcp, include_in_schema=False))
    app.router.routes.extend(api_router().routes)
    app.state.oidc_provider = provider
    app.include_router(health.router, dependencies=[Depends(check_request)])
    dashboard.install(app, sign_in=bool(settings.oidc_issuer))
    # the last one added is the first one asked
    app.add_middleware(ConditionalRequests)
    app.add_middleware(WholeBodiesGzipped, minimum_size=1000, compresslevel=1, exclude_content_types=AS_THEY_ARE)
    app.add_middleware(DeprecationHeaders)
    app.add_middleware(HttpMethods)
    app.add_middleware(
        BodyLimits,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        idle_seconds=settings.body_idle_seconds,
    )
    early = EarlyRefusals()
    app.add_middleware(LoadShedding, early=early)
    app.add_middleware(KeyLimits, sessions=sessions, settings=settings, early=early, rates=rates)
    opened = [openapi.OPENAPI_PATH] if settings.public_openapi else []
    app.add_middleware(
        Authentication,
        sessions=sessions,
        metrics_token=settings.metrics_token,
        max_key_days=settings.max_key_days,
        open_paths=opened,
        max_wrong_keys=settings.max_wrong_keys_per_minute,
        provider=provider,
    )
    app.add_middleware(AuditRequests, sessions=sessions, refusals=refusals)
    # read here, so that a wrong setting stops the start; a middleware is made at the first request
    app.add_middleware(RequestHeaders, allowed_hosts=[host_pattern(name) for name in settings.allowed_hosts])
    app.add_middleware(RequestInstrumentation)
    if origins := [checked_origin(name) for name in settings.cors_origins]:
        app.add_middleware(CrossOrigin, origins=origins)
    app.add_middleware(SecurityHeaders)
    proxies, root_path = TrustedProxies(settings.trusted_proxies), checked_root_path(settings.root_path)
    app.add_middleware(ProxyHeaders, trusted=proxies, root_path=root_path)
    return app
