"""The server's commands of `trainkit`, which the client's command line finds by an entry point."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from service.cli import commands
from service.cli.home import Home, RefusedError

OWNER_ONLY = 0o077
"""Database, logs and files of jobs are for the user that runs the service."""

app = typer.Typer()
key_app = typer.Typer(help="Create API keys in the database.", no_args_is_help=True)
app.add_typer(key_app, name="key")
audit_app = typer.Typer(help="Verify or export the audit log.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")
secrets_app = typer.Typer(help="Encrypt the secrets in the database anew.", no_args_is_help=True)
app.add_typer(secrets_app, name="secrets")


HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Data folder; default: TRAINKIT_HOME, then ~/.trainkit.")
]
HostOption = Annotated[str, typer.Option(help="Address to listen on; the default is this machine alone.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of the HTTP API.")]


@app.command(epilog="trainkit up --home ~/trainkit\ntrainkit up --port 8322 --workers 2")
def up(
    home: HomeOption = None,
    port: PortOption = 8321,
    host: HostOption = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=0, max=256, help="Training workers; each trains one job at a time.")] = 1,
) -> None:
    """Start everything on this machine and keep it running until Ctrl-C."""
    from service.cli.up import up as start_everything

    os.umask(OWNER_ONLY)
    start_everything(Home.at(home), host, port, workers)


@app.command(epilog="trainkit api --host 0.0.0.0 --port 8321")
def api(home: HomeOption = None, port: PortOption = 8321, host: HostOption = "127.0.0.1") -> None:
    """Run the HTTP API alone."""
    commands.replace_this_process(commands.api_command(host, port), commands.shared_metrics(_environment(home)))


@app.command(
    epilog="trainkit worker --queues train --device cuda\ntrainkit worker --queues data,predict --concurrency 4"
)
def worker(
    queues: Annotated[str, typer.Option(help="Comma-separated: train, data, predict.")] = "train,data,predict",
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Jobs at a time.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Device of jobs with `device: auto`: cpu, cuda, cuda:1, mps.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Run a worker alone."""
    environment = _environment(home)
    if device is not None:
        environment["TRAINKIT_DEVICE"] = device
    names = [name.strip() for name in queues.split(",") if name.strip()]
    if unknown := sorted(set(names) - {"train", "data", "predict"}):
        raise RefusedError(f"unknown queue {unknown[0]!r}", "Choose from train, data and predict.", 2)
    commands.replace_this_process(commands.worker_command(",".join(names), concurrency), environment)


@app.command(epilog="trainkit migrate")
def migrate(home: HomeOption = None) -> None:
    """Create the database's tables or bring them up to date."""
    commands.replace_this_process(commands.migrate_command(), _environment(home))


@key_app.command("create", epilog="trainkit key create --name ci --role developer --expires-days 90")
def create_key(
    name: Annotated[str, typer.Option(help="Name of the key.")] = "key",
    project: Annotated[str | None, typer.Option(help="Project of the key; default: the first one.")] = None,
    role: Annotated[
        str | None, typer.Option(help="viewer, developer, admin or operator; also admin,operator. Default: admin.")
    ] = None,
    expires_days: Annotated[float | None, typer.Option(help="Days after which it ends; default: never.")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs that it may create; default: any number.")] = None,
    max_compute_seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds that its jobs may train; default: any number.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Create an API key. It is printed once; the service stores only its hash."""
    given = {
        "--project": project or None,
        "--role": role or None,
        "--expires-days": expires_days,
        "--max-jobs": max_jobs,
        "--max-compute-seconds": max_compute_seconds,
    }
    more = [part for option, value in given.items() if value is not None for part in (option, str(value))]
    commands.replace_this_process(commands.key_command(name, *more), _environment(home))


@audit_app.command("verify", epilog="trainkit audit verify")
def verify_audit_log(
    head: Annotated[
        str | None, typer.Option(help="SEQ:HASH of an entry, as printed earlier and kept elsewhere.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="An export to verify, instead of the database.")] = None,
    home: HomeOption = None,
) -> None:
    """Check that no entry was changed, removed, inserted or moved. Exit code 1: one was, and the first is named."""
    given = {"--head": head, "--file": None if file is None else str(file)}
    options = [part for option, value in given.items() if value for part in (option, value)]
    commands.replace_this_process(commands.audit_command("verify", *options), _environment(home))


@audit_app.command("export", epilog="trainkit audit export --after 100")
def export_audit_log(
    after: Annotated[int, typer.Option(min=0, help="Only entries after this seq.")] = 0, home: HomeOption = None
) -> None:
    """Print all entries as JSON Lines, oldest first."""
    commands.replace_this_process(commands.audit_command("export", "--after", str(after)), _environment(home))


@secrets_app.command("rotate", epilog="trainkit secrets rotate")
def rotate_secrets(home: HomeOption = None) -> None:
    """Encrypt all stored secrets with the first key of TRAINKIT_SECRET_KEY; the others may be dropped afterwards."""
    commands.replace_this_process(commands.secrets_command("rotate"), _environment(home))


def _environment(home: Path | None) -> dict[str, str]:
    os.umask(OWNER_ONLY)
    chosen = Home.at(home)
    if "TRAINKIT_DATABASE_URL" not in os.environ or "TRAINKIT_STORAGE_URL" not in os.environ:
        chosen.create()
    return chosen.environment(os.environ)
