"""Everything the environment decides, read in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

GIB = 2**30
LOOPBACK = ("127.0.0.0/8", "::1")
LogFormat = Literal["text", "json"]
ConfinementMode = Literal["auto", "required", "off"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the parts are, and the limits they keep."""

    database_url: str
    """`postgresql+psycopg://user:password@host/name`, or `sqlite:////path`."""
    broker_url: str
    """Redis or RabbitMQ; it carries messages that name no job, and may lose them."""
    storage_url: str
    """Folder (or `file://` URL) of datasets, checkpoints and models, shared by all hosts."""
    home: Path
    """Folder below which everything lies that has no setting of its own."""
    scratch: Path
    """A worker's local folder: spools, downloads, files of running jobs."""
    lease_seconds: float = 30.0
    """How long a claim holds without a renewal; then another worker takes the job over."""
    heartbeat_seconds: float = 5.0
    """How often a worker renews its claims."""
    max_upload_bytes: int = 64 * GIB
    """Largest upload."""
    max_storage_bytes: int | None = None
    """Bytes that one project may keep: datasets, open uploads, checkpoints, artifacts and models; 0: no limit."""
    file_roots: tuple[Path, ...] = ()
    """Folders, separated by `:`, below which `file://` datasets may be registered; empty: none."""
    s3_buckets: tuple[str, ...] = ()
    """Buckets, separated by `,`, whose objects may be registered as `s3://` datasets; empty: none."""
    webhook_allow: tuple[str, ...] = ()
    """Host names, addresses and networks, separated by `,`, that webhooks may call although they are not public."""
    mirror_folder: Path | None = None
    """Folder, shared by all workers, in which projects may have TensorBoard files of their jobs; empty: none."""
    public_url: str = ""
    """Address that people open this service at, such as `https://trainkit.example.org`, for links in messages and mirrors."""
    smtp_url: str | None = None
    """Mail server of notifications: `smtp://user:password@host:587` with STARTTLS, `smtps://host` with TLS from the start,
    `smtp+plain://host` without; empty: no mail."""
    mail_from: str | None = None
    """Address that notifications come from."""
    mail_domains: tuple[str, ...] = ()
    """Domains, separated by `,`, that notifications may be mailed to; empty: any."""
    max_open_uploads: int = 100
    """Unfinished uploads of one project; 0: no limit."""
    max_open_upload_bytes: int = 256 * GIB
    """Bytes that the unfinished uploads of one project may declare together; 0: no limit."""
    max_table_columns: int = 32_768
    """Columns of a table."""
    max_table_cells: int = 0
    """Rows times columns of a table; 0: what the memory of the reading process holds, 32 bytes for each."""
    max_expansion: int = 200
    """Largest ratio of what a file becomes when it is read to its own size, from 64 MiB on."""
    reader_memory_bytes: int = 0
    """Memory of a process that reads an upload or a request; 0: four fifths of the machine's, over all slots."""
    reader_cpu_seconds: int = 3600
    """Processor time of such a process."""
    max_webhooks: int = 50
    """Webhooks of one project; 0: no limit."""
    max_webhooks_per_host: int = 10
    """Webhooks of one project to one host and port; 0: no limit."""
    upload_keep_seconds: float = 7 * 86400.0
    """How long an unfinished upload is kept after its last byte."""
    max_body_bytes: int = 32 * 2**20
    """Largest body of a prediction or evaluation; that of any other request but an upload is 256 KiB."""
    max_connections: int = 0
    """Open connections of one API process; 0: what its file descriptors allow."""
    max_connections_per_address: int = 2048
    """Open connections of one client's address (IPv6: /64 network) to one API process; 0: no limit of its own."""
    max_requests_per_key: int = 128
    """Requests of one API key that one API process serves at a time, without streams; 0: no limit."""
    max_requests_per_minute: int = 6000
    """Requests a minute of one API key, as many of them at once; 0: no limit."""
    max_streams_per_key: int = 1024
    """Event streams and long polls of one API key that wait in one API process; 0: no limit."""
    max_key_days: int = 0
    """Days after which an API key ends, whatever its own end is; 0: no limit."""
    max_wrong_keys_per_minute: int = 60
    """Wrong keys a minute from one address, in one API process; from all together 20 times as many. 0: no limit."""
    oidc_issuer: str | None = None
    """Issuer of the OpenID Connect provider that people sign in with, such as `https://login.example.org`; empty: none."""
    oidc_client_id: str | None = None
    """Id of this service at the provider."""
    secret_keys: tuple[str, ...] = ()
    """Keys, separated by `,`, of the secrets in the database: each the base64 of 32 bytes. The first one encrypts."""
    secret_key_file: Path | None = None
    """File with these keys, one a line; empty: `secret-key` in the home, which is created where the database is SQLite."""
    oidc_client_secret: str | None = None
    """Its secret there; empty: a public client, which PKCE alone protects."""
    oidc_audience: str | None = None
    """Audience that a bearer token must be issued for; empty: the client id."""
    oidc_scopes: str = "openid profile email"
    """Scopes that the sign-in asks for, separated by spaces; many providers tell groups only with a further one."""
    oidc_groups_claim: str = "groups"
    """Claim that holds a person's groups; a path is written with dots (`realm_access.roles`)."""
    oidc_roles: str = ""
    """What groups may do, as JSON: `{"ml-team": {"vision": "developer"}, "platform": "operator"}`."""
    session_seconds: float = 43_200.0
    """How long a browser stays signed in."""
    request_head_seconds: float = 10.0
    """Seconds in which a client must send the request line and all headers."""
    body_idle_seconds: float = 20.0
    """Seconds that a client may fall behind the lowest speed of a body, 1 KiB a second, or 64 KiB of a large prediction."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, separated by `,`, that the header `Host` may have: `*` any; empty: any, but over loopback its own names."""
    root_path: str = ""
    """Path below which a proxy serves the API, such as `/trainkit`; whether the proxy removes it or not."""
    cors_origins: tuple[str, ...] = ()
    """Origins, separated by `,`, whose pages may call the API, such as `https://app.example.com`; empty: none."""
    public_openapi: bool = False
    """Whether `/openapi.json` needs no key: `1` or `0`."""
    trusted_proxies: tuple[str, ...] = LOOPBACK
    """Addresses and networks of proxies, separated by `,`, whose `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` are
    believed; `none`: nobody's."""
    predict_seconds: float = 60.0
    """How long a request waits for a worker's prediction."""
    max_inference_requests: int = 100
    """Predictions, evaluations, previews and reports of one project that may wait for a worker; 0: no limit."""
    max_interruptions: int = 5
    """Lost workers in a row, without a newer checkpoint in between, after which a job fails."""
    max_queued_jobs: int = 10_000
    """Jobs of one project that may be queued; 0: no limit."""
    max_running_jobs: int = 0
    """Jobs of one project that may run at once; 0: no limit."""
    max_gpu_hours: int = 0
    """GPU-hours that the jobs of one project may use in a calendar month (UTC); 0: no limit."""
    max_job_memory_bytes: int = 0
    """Resident memory of one training process; a spec may ask for less, never for more. 0: what the largest worker has."""
    max_job_epochs: int = 100_000
    """Epochs of one job. A spec with more is refused, and so are a resume and a fork. 0: no limit."""
    max_job_seconds: float = 7 * 86400.0
    """Seconds of training of one job, over all attempts; then it stops and keeps its best weights. 0: no limit."""
    max_estimated_seconds: float = 7 * 86400.0
    """A job without `resources.max_seconds` that is estimated to train for longer is refused. 0: no limit."""
    wedged_seconds: float = 900.0
    """A training process that makes no step for so long is killed, and the job goes on from its checkpoint. 0: never."""
    checkpoints_days: int | None = 30
    """Days after a job's end that old checkpoints are kept; 0: for ever."""
    checkpoints_kept: int = 1
    """Number of newest checkpoints of a job that are never removed: `resume` and `fork` need one."""
    logs_days: int | None = 90
    """Days after a job's end that its log lines are kept; 0: for ever."""
    metrics_days: int | None = None
    """Days after a job's end that its metric log is kept; 0: for ever."""
    jobs_days: int | None = None
    """Days after a job's end until it is deleted, as `DELETE` does; 0: never."""
    audit_days: int | None = 365
    """Days that entries of the audit log are kept; 0: for ever."""
    confinement: ConfinementMode = "auto"
    """Whether processes that train, read uploads or predict are confined to their files: `auto` with what the system has
    (the worker's log says what), `required`, or `off`."""
    device: str = "auto"
    """Device of jobs whose spec says `auto`: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    log_format: LogFormat = "text"
    """Format of the service's own log: `text`, or `json` with one object per line."""
    metrics_token: str | None = None
    """Token that opens `/metrics` of the API and of workers, and nothing else."""
    metrics_folder: Path | None = None
    """Folder in which several API processes share their metrics; empty: each process has its own."""
    worker_metrics_port: int = 0
    """Port that a worker answers Prometheus on; 0: none."""
    worker_metrics_host: str = "127.0.0.1"
    """Address that a worker answers Prometheus on."""
    tracing: bool = False
    """Whether spans are sent by OTLP; needs the extra `otel`. Without it, `OTEL_EXPORTER_OTLP_ENDPOINT` decides."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `TRAINKIT_*`; what is left out gets the defaults of a single machine."""
        env = os.environ if environment is None else environment
        home = Path(env.get("TRAINKIT_HOME", "~/.trainkit")).expanduser()
        return cls(
            database_url=env.get("TRAINKIT_DATABASE_URL", f"sqlite:///{home}/trainkit.db"),
            broker_url=env.get("TRAINKIT_BROKER_URL", "redis://127.0.0.1:6379/0"),
            storage_url=env.get("TRAINKIT_STORAGE_URL", str(home / "storage")),
            home=home,
            scratch=Path(env.get("TRAINKIT_SCRATCH", str(home / "scratch"))),
            lease_seconds=float(env.get("TRAINKIT_LEASE_SECONDS", "30")),
            heartbeat_seconds=float(env.get("TRAINKIT_HEARTBEAT_SECONDS", "5")),
            max_upload_bytes=int(env.get("TRAINKIT_MAX_UPLOAD_BYTES", str(64 * GIB))),
            max_storage_bytes=int(env.get("TRAINKIT_MAX_STORAGE_BYTES") or 0) or None,
            file_roots=tuple(Path(root) for root in env.get("TRAINKIT_FILE_ROOTS", "").split(os.pathsep) if root),
            s3_buckets=tuple(name.strip() for name in env.get("TRAINKIT_S3_BUCKETS", "").split(",") if name.strip()),
            webhook_allow=tuple(
                name.strip() for name in env.get("TRAINKIT_WEBHOOK_ALLOW", "").split(",") if name.strip()
            ),
            mirror_folder=Path(env["TRAINKIT_MIRROR_FOLDER"]) if env.get("TRAINKIT_MIRROR_FOLDER") else None,
            public_url=env.get("TRAINKIT_PUBLIC_URL", "").rstrip("/"),
            smtp_url=env.get("TRAINKIT_SMTP_URL") or None,
            mail_from=env.get("TRAINKIT_MAIL_FROM") or None,
            mail_domains=tuple(
                name.strip().lower() for name in env.get("TRAINKIT_MAIL_DOMAINS", "").split(",") if name.strip()
            ),
            max_open_uploads=int(env.get("TRAINKIT_MAX_OPEN_UPLOADS", "100")),
            max_open_upload_bytes=int(env.get("TRAINKIT_MAX_OPEN_UPLOAD_BYTES", str(256 * GIB))),
            max_table_columns=int(env.get("TRAINKIT_MAX_TABLE_COLUMNS", "32768")),
            max_table_cells=int(env.get("TRAINKIT_MAX_TABLE_CELLS", "0")),
            max_expansion=int(env.get("TRAINKIT_MAX_EXPANSION", "200")),
            reader_memory_bytes=int(env.get("TRAINKIT_READER_MEMORY_BYTES", "0")),
            reader_cpu_seconds=int(env.get("TRAINKIT_READER_CPU_SECONDS", "3600")),
            max_webhooks=int(env.get("TRAINKIT_MAX_WEBHOOKS", "50")),
            max_webhooks_per_host=int(env.get("TRAINKIT_MAX_WEBHOOKS_PER_HOST", "10")),
            upload_keep_seconds=float(env.get("TRAINKIT_UPLOAD_KEEP_SECONDS", str(7 * 86400))),
            max_body_bytes=int(env.get("TRAINKIT_MAX_BODY_BYTES", str(32 * 2**20))),
            max_connections=int(env.get("TRAINKIT_MAX_CONNECTIONS", "0")),
            max_connections_per_address=int(env.get("TRAINKIT_MAX_CONNECTIONS_PER_ADDRESS", "2048")),
            max_requests_per_key=int(env.get("TRAINKIT_MAX_REQUESTS_PER_KEY", "128")),
            max_requests_per_minute=int(env.get("TRAINKIT_MAX_REQUESTS_PER_MINUTE", "6000")),
            max_streams_per_key=int(env.get("TRAINKIT_MAX_STREAMS_PER_KEY", "1024")),
            max_key_days=int(env.get("TRAINKIT_MAX_KEY_DAYS", "0")),
            max_wrong_keys_per_minute=int(env.get("TRAINKIT_MAX_WRONG_KEYS_PER_MINUTE", "60")),
            oidc_issuer=env.get("TRAINKIT_OIDC_ISSUER") or None,
            oidc_client_id=env.get("TRAINKIT_OIDC_CLIENT_ID") or None,
            secret_keys=tuple(key.strip() for key in env.get("TRAINKIT_SECRET_KEY", "").split(",") if key.strip()),
            secret_key_file=Path(env["TRAINKIT_SECRET_KEY_FILE"]) if env.get("TRAINKIT_SECRET_KEY_FILE") else None,
            oidc_client_secret=env.get("TRAINKIT_OIDC_CLIENT_SECRET") or None,
            oidc_audience=env.get("TRAINKIT_OIDC_AUDIENCE") or None,
            oidc_scopes=env.get("TRAINKIT_OIDC_SCOPES") or "openid profile email",
            oidc_groups_claim=env.get("TRAINKIT_OIDC_GROUPS_CLAIM") or "groups",
            oidc_roles=env.get("TRAINKIT_OIDC_ROLES", ""),
            session_seconds=float(env.get("TRAINKIT_SESSION_SECONDS", "43200")),
            request_head_seconds=float(env.get("TRAINKIT_REQUEST_HEAD_SECONDS", "10")),
            body_idle_seconds=float(env.get("TRAINKIT_BODY_IDLE_SECONDS", "20")),
            allowed_hosts=tuple(
                name.strip() for name in env.get("TRAINKIT_ALLOWED_HOSTS", "").split(",") if name.strip()
            ),
            root_path=env.get("TRAINKIT_ROOT_PATH", ""),
            cors_origins=tuple(
                name.strip() for name in env.get("TRAINKIT_CORS_ORIGINS", "").split(",") if name.strip()
            ),
            public_openapi=_switch(env, "TRAINKIT_PUBLIC_OPENAPI"),
            trusted_proxies=_trusted_proxies(env.get("TRAINKIT_TRUSTED_PROXIES", "")),
            predict_seconds=float(env.get("TRAINKIT_PREDICT_SECONDS", "60")),
            max_inference_requests=int(env.get("TRAINKIT_MAX_INFERENCE_REQUESTS", "100")),
            max_interruptions=int(env.get("TRAINKIT_MAX_INTERRUPTIONS", "5")),
            max_queued_jobs=int(env.get("TRAINKIT_MAX_QUEUED_JOBS", "10000")),
            max_running_jobs=int(env.get("TRAINKIT_MAX_RUNNING_JOBS", "0")),
            max_gpu_hours=int(env.get("TRAINKIT_MAX_GPU_HOURS", "0")),
            max_job_memory_bytes=int(env.get("TRAINKIT_MAX_JOB_MEMORY_BYTES", "0")),
            max_job_epochs=int(env.get("TRAINKIT_MAX_JOB_EPOCHS", "100000")),
            max_job_seconds=float(env.get("TRAINKIT_MAX_JOB_SECONDS", str(7 * 86400))),
            max_estimated_seconds=float(env.get("TRAINKIT_MAX_ESTIMATED_SECONDS", str(7 * 86400))),
            wedged_seconds=float(env.get("TRAINKIT_WEDGED_SECONDS", "900")),
            checkpoints_days=int(env.get("TRAINKIT_CHECKPOINTS_DAYS", "30")) or None,
            checkpoints_kept=int(env.get("TRAINKIT_CHECKPOINTS_KEPT", "1")),
            logs_days=int(env.get("TRAINKIT_LOGS_DAYS", "90")) or None,
            metrics_days=int(env.get("TRAINKIT_METRICS_DAYS", "0")) or None,
            jobs_days=int(env.get("TRAINKIT_JOBS_DAYS", "0")) or None,
            audit_days=int(env.get("TRAINKIT_AUDIT_DAYS", "365")) or None,
            confinement=_confinement(env.get("TRAINKIT_CONFINEMENT") or "auto"),
            device=env.get("TRAINKIT_DEVICE", "auto"),
            log_format=_log_format(env.get("TRAINKIT_LOG_FORMAT") or "text"),
            metrics_token=env.get("TRAINKIT_METRICS_TOKEN") or None,
            metrics_folder=Path(env["PROMETHEUS_MULTIPROC_DIR"]) if env.get("PROMETHEUS_MULTIPROC_DIR") else None,
            worker_metrics_port=int(env.get("TRAINKIT_WORKER_METRICS_PORT") or 0),
            worker_metrics_host=env.get("TRAINKIT_WORKER_METRICS_HOST") or "127.0.0.1",
            tracing=_tracing(env),
        )


def _log_format(given: str) -> LogFormat:
    if given not in get_args(LogFormat):
        raise ValueError(f"TRAINKIT_LOG_FORMAT is {given!r}; it may be {' or '.join(get_args(LogFormat))}")
    return cast(LogFormat, given)


def _confinement(given: str) -> ConfinementMode:
    if given not in get_args(ConfinementMode):
        raise ValueError(f"TRAINKIT_CONFINEMENT is {given!r}; it may be {', '.join(get_args(ConfinementMode))}")
    return cast(ConfinementMode, given)


def _switch(env: Mapping[str, str], name: str) -> bool:
    given = env.get(name) or "0"
    if given not in ("0", "1"):
        raise ValueError(f"{name} is {given!r}; it may be 1 or 0")
    return given == "1"


def _trusted_proxies(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    return () if names == ("none",) else names or LOOPBACK


def _tracing(env: Mapping[str, str]) -> bool:
    """`TRAINKIT_OTEL` says so or says no; left out, OpenTelemetry's own variable of where to send spans does."""
    value = env.get("TRAINKIT_OTEL", "")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return value not in ("0", "false", "no") if value else any(env.get(name) for name in endpoints)
