"""`trainkit datasets`: upload data, list it, read what was found in it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from trainkit_client.cli import completion
from trainkit_client.cli.command import FAILED, Session, command, group
from trainkit_client.cli.jobs import YesOption, confirm
from trainkit_client.cli.output import Column, age, local_time, number, shown_value, size

app = group("Upload data, list it, read what was found in it.")
DatasetArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="Name, name:version, name@alias, id or @last.", autocompletion=completion.DATASETS
    ),
]
COLUMNS = (
    Column("id", lambda row: row["id"]),
    Column("name", lambda row: f"{row.get('name')}:{row.get('version')}", shrinks=True),
    Column("state", lambda row: row["state"]),
    Column("kind", lambda row: row.get("kind")),
    Column("samples", lambda row: row.get("samples"), right=True),
    Column("size", lambda row: size(row.get("bytes")), right=True, min_width=90),
    Column("age", lambda row: age(row.get("created_at")), right=True),
)
MAX_FINDINGS = 20


@command(
    app,
    "upload",
    "trainkit datasets upload digits.zip\ntrainkit datasets upload cancer.csv --name cancer --target diagnosis",
)
def upload(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder with one folder for each class.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: that of the file.")] = None,
    target: Annotated[str | None, typer.Option(help="Of a table: the column to predict.")] = None,
    kind: Annotated[str | None, typer.Option(help="What it is, where it cannot be told: table, images ...")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it has been checked.")] = False,
) -> int | None:
    """Upload a file or a folder, and wait until it has been checked. A cut upload goes on when it is repeated."""
    bar = Bar(session)
    dataset = session.client.datasets.upload(path, name=name, kind=kind, target=target, progress=bar)
    bar.end()
    if not no_wait:
        dataset = dataset.wait(check=False)
    document = dataset.to_dict()
    samples = f", {document['samples']} samples" if document.get("samples") else ""
    text = f"{document['id']} ({document['name']}:{document['version']}) is {document['state']}{samples}."
    session.output.document(document, text)
    if document["state"] == "invalid":
        error = document.get("error") or {}
        session.output.error(f"{error.get('message', 'the dataset is invalid')} {error.get('hint', '')}".strip())
        return FAILED
    return None


class Bar:
    """How much of a file was sent, on stderr of a terminal."""

    def __init__(self, session: Session) -> None:
        self.shown = sys.stderr.isatty() and not session.output.quiet
        self.next = 0.0

    def __call__(self, sent: int, total: int) -> None:
        """Take the bytes that were sent, and all bytes."""
        if not self.shown or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + 0.2
        share = sent / total if total else 0.0
        filled = round(30 * share)
        sys.stderr.write(
            f"\r{'━' * filled}{'─' * (30 - filled)} {100 * share:3.0f}%  {size(sent)} of {size(total)}\033[K"
        )
        sys.stderr.flush()

    def end(self) -> None:
        """Remove the bar."""
        if self.shown and self.next:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


@command(app, "list", "trainkit datasets list\ntrainkit datasets list --name 'digits*' --quiet")
def list_datasets(
    session: Session,
    name: Annotated[str | None, typer.Option(help="Only this name; digits* for a beginning.")] = None,
    state: Annotated[str | None, typer.Option(help="Only these states: validating, ready, invalid.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 20,
) -> None:
    """List datasets, newest first."""
    rows = session.rows("/v1/datasets", name=name, state=state, limit=limit)
    session.output.rows(rows, COLUMNS, "There are no such datasets.")


@command(app, "show", "trainkit datasets show digits")
def show(session: Session, dataset: DatasetArgument) -> None:
    """Show a dataset."""
    found = session.find("datasets", dataset)
    session.output.document(found)
    error = found.get("error") or {}
    session.output.fields_for_people(
        [
            ("id", found["id"]),
            ("name", f"{found['name']}:{found['version']}"),
            ("state", found["state"]),
            ("error", f"{error['message']} ({error['code']})\n{error.get('hint', '')}".strip() if error else None),
            ("kind", found.get("kind")),
            ("target", found.get("target")),
            ("samples", found.get("samples")),
            ("classes", found.get("classes")),
            ("size", size(found.get("bytes"))),
            ("sha256", found.get("sha256")),
            ("aliases", found.get("aliases")),
            ("created", local_time(found.get("created_at"))),
        ]
    )


@command(app, "report", "trainkit datasets report digits\ntrainkit datasets report cancer --json")
def report(session: Session, dataset: DatasetArgument) -> None:
    """Print what the check of a dataset found: classes, columns, problems, and what is attainable."""
    found = session.find("datasets", dataset)
    document = session.get(f"/v1/datasets/{found['id']}/report")
    output = session.output
    if output.as_json or output.quiet:
        output.document(document, identity=found["id"])
        return
    facts = document.get("facts") or {}
    output.fields_for_people(
        [
            ("dataset", f"{found['name']}:{found['version']}"),
            ("kind", document.get("kind")),
            ("because", document.get("detected_because")),
            ("samples", document.get("samples")),
            ("shape", facts.get("input_shape")),
            ("classes", document.get("classes")),
            ("splits", document.get("splits")),
        ]
    )
    columns = facts.get("columns") or []
    if columns:
        output.line()
        output.table(
            columns,
            (
                Column("column", lambda row: row["name"], shrinks=True),
                Column("type", lambda row: row["type"]),
                Column("missing", lambda row: row.get("missing"), right=True),
                Column("different", lambda row: row.get("unique"), right=True),
            ),
        )
    for text in attainable(document):
        output.line(text)
    findings = document.get("findings") or []
    for place, finding in enumerate([*(document.get("errors") or []), *findings][:MAX_FINDINGS]):
        if place == 0:
            output.line()
        where = f" ({finding['where']})" if finding.get("where") else ""
        output.line(f"{finding.get('severity', 'error')}: {finding.get('message')}{where}")
    if len(findings) > MAX_FINDINGS:
        output.line(f"... and {len(findings) - MAX_FINDINGS} more: trainkit datasets report {dataset} --json")


def attainable(document: dict[str, Any]) -> list[str]:
    """Return what simple references reach, as lines."""
    lines = []
    for one in document.get("attainable") or []:
        if one.get("value") is not None:
            interval = (
                f" (95 %: {number(one.get('low'))} to {number(one.get('high'))})" if one.get("low") is not None else ""
            )
            lines.append(f"{one['reference']} reaches {one['metric']} {shown_value(one['value'])}{interval}")
    return ["", *lines] if lines else []


@command(app, "delete", "trainkit datasets delete old-data --yes")
def delete(session: Session, dataset: DatasetArgument, yes: YesOption = False) -> None:
    """Delete a dataset. One that jobs use is refused."""
    found = session.find("datasets", dataset)
    confirm(f"{found['id']} ({found['name']}:{found['version']})", yes)
    session.client.request("DELETE", f"/v1/datasets/{found['id']}")
    if session.output.as_json:
        session.output.json({"deleted": [found["id"]]})
    session.output.line(f"{found['id']} ({found['name']}:{found['version']}) is deleted.")
