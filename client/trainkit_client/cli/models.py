"""`trainkit models`: list, use, evaluate, download and name models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trainkit_client.cli import completion
from trainkit_client.cli.command import FAILED, CommandError, Session, command, group
from trainkit_client.cli.output import Column, age, local_time, number, shown_value, size

app = group("List, use, evaluate, download and name models.")
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Name, name:version, name@alias, id or @last.", autocompletion=completion.MODELS
    ),
]
TYPES = {
    ".csv": "text/csv",
    ".txt": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".zip": "application/zip",
    ".npz": "application/x-npz",
}
"""Suffix of a file -> its media type."""
METRICS = ("accuracy", "r2", "loss")


def main_metric(metrics: dict[str, Any]) -> str:
    """Return the metric that is worth most in a list."""
    return next((f"{name} {number(metrics[name])}" for name in METRICS if metrics.get(name) is not None), "-")


def named(model: dict[str, Any]) -> str:
    """Return `digits:3`; a model without a name has its id alone."""
    return f"{model['name']}:{model['version']}" if model.get("name") else "-"


COLUMNS = (
    Column("id", lambda row: row["id"]),
    Column("name", named, shrinks=True),
    Column("aliases", lambda row: row.get("aliases") or "-", shrinks=True),
    Column("kind", lambda row: row.get("kind"), min_width=90),
    Column("metric", lambda row: main_metric(row.get("metrics") or {})),
    Column("size", lambda row: size(row.get("bytes")), right=True, min_width=100),
    Column("age", lambda row: age(row.get("created_at")), right=True, min_width=95),
)


@command(app, "list", "trainkit models list\ntrainkit models list --name digits --quiet")
def list_models(
    session: Session,
    name: Annotated[str | None, typer.Option(help="Only this name; digits* for a beginning.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 20,
) -> None:
    """List models, newest first."""
    session.output.rows(session.rows("/v1/models", name=name, limit=limit), COLUMNS, "There are no such models.")


@command(app, "show", "trainkit models show digits")
def show(session: Session, model: ModelArgument) -> None:
    """Show a model: its metrics, classes and where it comes from."""
    found = session.find("models", model)
    session.output.document(found)
    manifest, lineage = found.get("manifest") or {}, found.get("lineage") or {}
    dataset = lineage.get("dataset") or {}
    session.output.fields_for_people(
        [
            ("id", found["id"]),
            ("name", named(found)),
            ("aliases", found.get("aliases")),
            ("kind", found.get("kind")),
            ("task", manifest.get("task")),
            ("classes", manifest.get("classes")),
            ("metrics", found.get("metrics")),
            ("job", found.get("job")),
            ("dataset", f"{dataset['name']}:{dataset['version']}" if dataset.get("name") else None),
            ("labels", found.get("labels")),
            ("notes", found.get("notes")),
            ("size", size(found.get("bytes"))),
            ("created", local_time(found.get("created_at"))),
        ]
    )


def content_of(file: str, media_type: str | None) -> tuple[bytes, str]:
    """Return the bytes of a file, or of standard input, and their media type."""
    kind = media_type or TYPES.get(Path(file).suffix.lower())
    if kind is None:
        known = ", ".join(TYPES)
        raise CommandError(f"The type of {file!r} cannot be told from its name ({known}). Say it with --type.")
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()), kind
    except OSError as error:
        raise CommandError(f"{file!r} cannot be read: {error.strerror}.") from None


TypeOption = Annotated[str | None, typer.Option("--type", metavar="MEDIA/TYPE", help="Media type of the file.")]
ExtraOption = Annotated[bool, typer.Option("--ignore-extra", help="Allow columns that the model does not know.")]


@command(
    app,
    "predict",
    "trainkit models predict digits held-out-7.png\ntrainkit models predict cancer one-sample.csv --json",
)
def predict(
    session: Session,
    model: ModelArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Rows or an image; - reads standard input.")],
    media_type: TypeOption = None,
    ignore_extra: ExtraOption = False,
) -> None:
    """Predict the rows of a file, or an image."""
    content, kind = content_of(file, media_type)
    found = session.find("models", model)
    answer = session.client.request(
        "POST",
        f"/v1/models/{found['id']}/predict",
        content=content,
        headers={"Content-Type": kind},
        params={"ignore_extra": "true"} if ignore_extra else None,
    )
    if session.output.as_json:
        session.output.json(answer)
        return
    for row in answer["predictions"]:
        print(prediction_text(row, session.output.quiet))
        for warning in row.get("warnings") or []:
            session.output.note(f"{warning.get('column')}: {warning['message']}")


def prediction_text(row: dict[str, Any], quiet: bool) -> str:
    """Return a prediction as a line: the label and its probability, or the value."""
    if row.get("label") is None:
        return json.dumps(row.get("value"))
    probability = (row.get("probabilities") or {}).get(row["label"])
    return row["label"] if quiet or probability is None else f"{row['label']}  {number(probability)}"


@command(
    app,
    "evaluate",
    "trainkit models evaluate digits --dataset digits --part test\n"
    "trainkit models evaluate digits --dataset digits --require 'accuracy>=0.5'",
)
def evaluate(
    session: Session,
    model: ModelArgument,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Labelled samples, instead of --dataset.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A dataset of the service.", autocompletion=completion.DATASETS)
    ] = None,
    part: Annotated[str | None, typer.Option(help="Of the dataset: all, train, validation or test.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of a table with the answers.")] = None,
    require: Annotated[
        list[str] | None, typer.Option(metavar="METRIC>=VALUE", help="End with exit code 1 where it does not hold.")
    ] = None,
    media_type: TypeOption = None,
    ignore_extra: ExtraOption = False,
) -> int | None:
    """Measure a model on labelled samples. With --require this is the gate of a release."""
    if (file is None) == (dataset is None):
        raise CommandError("Give a FILE or --dataset, and not both.")
    conditions = [condition(text) for text in require or []]
    found = session.find("models", model)
    path = f"/v1/models/{found['id']}/evaluate"
    if dataset is not None:
        what = {"id": session.find("datasets", dataset)["id"], **({"target": target} if target else {})}
        answer = session.post(path, {"dataset": what, **({"part": part} if part else {})})
    else:
        content, kind = content_of(str(file), media_type)
        params = {"ignore_extra": "true" if ignore_extra else None, "target": target}
        answer = session.client.request(
            "POST",
            path,
            content=content,
            headers={"Content-Type": kind},
            params={name: value for name, value in params.items() if value},
        )
    if session.output.as_json:
        session.output.json(answer)
    else:
        metrics = {name: value for name, value in answer["metrics"].items() if value is not None}
        session.output.fields_for_people([("split", answer["split"]), ("samples", answer["samples"]), *metrics.items()])
        for warning in answer.get("warnings") or []:
            session.output.note(warning["message"])
    missed = [text for text in (miss(answer["metrics"], *one) for one in conditions) if text]
    for text in missed:
        session.output.error(text)
    return FAILED if missed else None


def condition(text: str) -> tuple[str, str, float]:
    """Return metric, operator and bound of `accuracy>=0.9`."""
    for operator in (">=", "<="):
        name, mark, bound = text.partition(operator)
        try:
            if mark and name.strip():
                return name.strip(), operator, float(bound)
        except ValueError:
            break
    raise CommandError(f"--require takes METRIC>=VALUE or METRIC<=VALUE, such as accuracy>=0.9; got {text!r}.")


def miss(metrics: dict[str, Any], name: str, operator: str, bound: float) -> str | None:
    """Return why a condition does not hold; None where it does. A metric without a value holds none."""
    if name not in metrics:
        raise CommandError(f"--require: there is no metric {name!r} here; there are {', '.join(metrics)}.")
    value = metrics[name]
    holds = value is not None and (value >= bound if operator == ">=" else value <= bound)
    return None if holds else f"{name} is {shown_value(value)}; required: {operator} {bound:g}."


@command(
    app,
    "download",
    "trainkit models download digits\ntrainkit models download digits --format onnx --output digits.onnx",
)
def download(
    session: Session,
    model: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder to write; default: this folder.")
    ] = None,
    format: Annotated[
        Literal["safetensors", "onnx", "zip"], typer.Option(help="zip holds an ensemble or a baseline, too.")
    ] = "safetensors",
) -> None:
    """Download a model: safetensors with its description, no pickle."""
    found = session.client.models.get(session.find("models", model)["id"])
    path = found.download(output or Path.cwd(), format=format)
    session.output.document({"id": found.id, "path": str(path)}, f"{path}", str(path))


@command(app, "alias", "trainkit models alias digits production\ntrainkit models alias digits:1 staging")
def alias(
    session: Session,
    model: ModelArgument,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as production.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it away from the model.")] = False,
) -> None:
    """Let MODEL@ALIAS mean this version from now on."""
    found = session.find("models", model)
    path = f"/v1/models/{found['id']}/aliases/{name}"
    if remove:
        session.client.request("DELETE", path)
        session.output.document({"removed": name, "id": found["id"]}, f"{found['name']}@{name} is removed.")
        return
    answer = session.client.request("PUT", path)
    session.output.document(
        answer, f"{answer['name']}@{answer['alias']} is {answer['name']}:{answer['version']}.", name
    )
