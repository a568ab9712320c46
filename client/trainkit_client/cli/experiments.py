"""`trainkit experiments`: sweeps, folds, ensembles and the autopilot."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from trainkit_client.cli import completion
from trainkit_client.cli.command import FAILED, SUCCEEDED, Session, command, group
from trainkit_client.cli.jobs import SetOption, YesOption, confirm, read_spec
from trainkit_client.cli.output import Column, age, local_time, number

app = group("Sweeps, folds, ensembles and the autopilot.")
ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="Name, id, a beginning of it, or @last.", autocompletion=completion.EXPERIMENTS
    ),
]
ENDED = frozenset({"succeeded", "stopped", "failed"})
PAUSE_SECONDS = 1.0
COLUMNS = (
    Column("id", lambda row: row["id"]),
    Column("name", lambda row: row.get("name"), shrinks=True),
    Column("kind", lambda row: row.get("kind")),
    Column("state", lambda row: row["state"]),
    Column("age", lambda row: age(row.get("created_at")), right=True),
)
TRIALS = (
    Column("trial", lambda row: row["number"], right=True),
    Column("state", lambda row: row.get("state")),
    Column("value", lambda row: number(row.get("value")), right=True),
    Column("settings", lambda row: row.get("params"), shrinks=True),
    Column("epoch", lambda row: row.get("best_epoch"), right=True, min_width=90),
    Column("job", lambda row: row.get("job"), min_width=100),
)


@command(
    app,
    "submit",
    "trainkit experiments submit plan.yaml\ntrainkit experiments submit plan.yaml --set folds=2 --watch",
)
def submit(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Plan as YAML or JSON; - reads standard input.")],
    settings: SetOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait until it ends, and print the table.")] = False,
) -> int | None:
    """Submit an experiment."""
    content, kind = read_spec(file, settings or [])
    found = session.client.request("POST", "/v1/experiments", content=content, headers={"Content-Type": kind})
    if watch:
        return follow(session, found["id"])
    session.output.document(found, f"{found['id']} ({found.get('name') or 'no name'}) is {found['state']}.")
    return None


@command(app, "list", "trainkit experiments list")
def list_experiments(
    session: Session,
    state: Annotated[str | None, typer.Option(help="Only these states, with commas.")] = None,
    name: Annotated[str | None, typer.Option(help="Only this name; a* for a beginning.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 20,
) -> None:
    """List experiments, newest first."""
    rows = session.rows("/v1/experiments", state=state, name=name, limit=limit)
    session.output.rows(rows, COLUMNS, "There are no such experiments.")


@command(app, "show", "trainkit experiments show @last")
def show(session: Session, experiment: ExperimentArgument) -> None:
    """Show an experiment, and what its jobs have come to."""
    found = session.find("experiments", experiment)
    session.output.document(found)
    best = found.get("best") or {}
    error = found.get("error") or {}
    session.output.fields_for_people(
        [
            ("id", found["id"]),
            ("name", found.get("name")),
            ("kind", found.get("kind")),
            ("state", found["state"]),
            ("reason", found.get("reason")),
            ("error", error.get("message")),
            ("metric", f"{found['metric']} ({found.get('direction')})" if found.get("metric") else None),
            ("jobs", found.get("jobs")),
            (
                "best",
                f"trial {best['number']}: {number(best.get('value'))} ({best.get('job')})" if best.get("job") else None,
            ),
            ("created", local_time(found.get("created_at"))),
            ("finished", local_time(found.get("finished_at"))),
        ]
    )
    statements(session, found)


def statements(session: Session, document: dict[str, Any]) -> None:
    """Print what the figures say together."""
    for one in document.get("summaries") or []:
        if one.get("mean") is not None:
            low, high = one.get("low"), one.get("high")
            interval = f", 95 % interval {number(low)} to {number(high)}" if low is not None else ""
            session.output.line(f"{one.get('name', one.get('variant', ''))}: mean {number(one['mean'])}{interval}")
    for one in document.get("comparisons") or []:
        session.output.line(str(one.get("summary") or one.get("verdict")))


@command(app, "results", "trainkit experiments results @last\ntrainkit experiments results @last --json")
def results(session: Session, experiment: ExperimentArgument) -> None:
    """Print the table of trials, the best first."""
    print_results(session, session.find("experiments", experiment)["id"])


def print_results(session: Session, identity: str) -> None:
    """Print the table of an experiment."""
    document = session.get(f"/v1/experiments/{identity}/results")
    if session.output.as_json:
        session.output.json(document)
        return
    worst_first = document.get("direction") == "min"
    rows = sorted(document["data"], key=lambda row: rank(row.get("value"), worst_first))
    session.output.rows(rows, TRIALS, "There are no trials yet.", key="job")
    statements(session, document)


def rank(value: float | None, smallest_first: bool) -> tuple[bool, float]:
    """Return the place of a value in a table; none comes last."""
    return (True, 0.0) if value is None else (False, value if smallest_first else -value)


@command(app, "watch", "trainkit experiments watch @last")
def watch(session: Session, experiment: ExperimentArgument) -> int:
    """Wait until an experiment ends, and print its table. Exit code 1: it failed."""
    return follow(session, session.find("experiments", experiment)["id"])


def follow(session: Session, identity: str) -> int:
    """Say on stderr how many jobs have ended, until all have."""
    shown = ""
    while True:
        found = session.get(f"/v1/experiments/{identity}")
        counts = ", ".join(f"{count} {state}" for state, count in (found.get("jobs") or {}).items() if count)
        text = f"{found['state']}: {counts}" if counts else found["state"]
        if text != shown:
            shown = text
            session.output.note(text)
        if found["state"] in ENDED:
            break
        time.sleep(PAUSE_SECONDS)
    print_results(session, identity)
    return FAILED if found["state"] == "failed" else SUCCEEDED


@command(app, "stop", "trainkit experiments stop endless")
def stop(session: Session, experiment: ExperimentArgument) -> None:
    """Stop an experiment: its running jobs keep usable models."""
    found = session.find("experiments", experiment)
    answer = session.post(f"/v1/experiments/{found['id']}/stop")
    session.output.document(answer, f"{answer['id']} ({answer.get('name') or 'no name'}) is {answer['state']}.")


@command(app, "delete", "trainkit experiments delete old-plan --yes")
def delete(session: Session, experiment: ExperimentArgument, yes: YesOption = False) -> None:
    """Delete an experiment that has ended; its jobs stay."""
    found = session.find("experiments", experiment)
    confirm(f"{found['id']} ({found.get('name')})", yes)
    session.client.request("DELETE", f"/v1/experiments/{found['id']}")
    if session.output.as_json:
        session.output.json({"deleted": [found["id"]]})
    session.output.line(f"{found['id']} ({found.get('name')}) is deleted.")
